"""Policies by gradients: finite differences, Riccati's solution, a scalar search, simulation."""

import dataclasses

import numpy as np
import pytest
from scipy import optimize

from tfp_gaps.exact import lqg, lqg_policy
from tfp_gaps.exact._numerics import riccati


def random_model(rng, states, channels, controls):
    def covariance(size):
        root = rng.standard_normal((size, size))
        return root @ root.T + 0.1 * np.eye(size)

    transition = rng.standard_normal((states, states))
    transition *= rng.uniform(0.3, 0.95) / riccati.spectral_radius(transition)
    return lqg.System(
        transition,
        rng.standard_normal((states, controls)),
        covariance(states),
        rng.standard_normal((channels, states)),
        covariance(channels),
        np.eye(states),
        covariance(states),
        covariance(controls),
    )


SCALAR = lqg.System(0.95, 0.5, 0.1, 1.0, 1.0, 1.0, state_cost=1.0, control_cost=0.1)


@pytest.mark.parametrize(("sizes", "memory"), [((2, 1, 1), 2), ((2, 2, 1), 1), ((3, 2, 2), 0)])
def test_the_gradient_agrees_with_finite_differences(sizes, memory):
    rng = np.random.default_rng(1)
    model = random_model(rng, *sizes)
    shapes = lqg_policy._shapes(model, memory)
    point = 0.05 * rng.standard_normal(sum(np.prod(shape) for shape in shapes))

    def cost(vector):
        return lqg.closed_loop_cost(model, lqg_policy._controller(vector, shapes))

    value, gradient = lqg_policy._cost(model, lqg_policy._controller(point, shapes), len(shapes))
    assert value == pytest.approx(cost(point), rel=1e-12)
    # Central differences of 1e-6: their own error is about 1e-9 of the cost.
    found = optimize.approx_fprime(point, cost, 1e-6)
    np.testing.assert_allclose(gradient, found, rtol=1e-4, atol=1e-4 * np.abs(found).max())


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 1, 1), (2, 2, 2)])
def test_with_memory_the_search_finds_what_riccati_says(sizes):
    """Certainty equivalence: filter and regulator are the best linear policy."""
    model = random_model(np.random.default_rng(2), *sizes)
    policy = lqg_policy.optimise(model, sizes[0])
    best = lqg.optimal_cost(model)
    cost = lqg.closed_loop_cost(model, policy)
    assert best * (1 - 1e-9) <= cost <= best * (1 + 1e-6)


@pytest.mark.parametrize("transition", [1.0, 1.05])
def test_a_model_that_runs_away_is_caught_first(transition):
    model = dataclasses.replace(SCALAR, transition=np.array([[transition]]))
    cost = lqg.closed_loop_cost(model, lqg_policy.optimise(model, 1))
    assert cost == pytest.approx(lqg.optimal_cost(model), rel=1e-6)


def test_without_memory_the_search_finds_the_best_gain():
    policy = lqg_policy.optimise(SCALAR, 0)
    a, b, q, r, u = 0.95, 0.5, 0.1, 1.0, 0.1

    def cost(k):  # z' = (a - b k) z - b k v + w
        variance = (q + (b * k) ** 2 * r) / (1 - (a - b * k) ** 2)
        return variance + u * k**2 * (variance + r)

    found = optimize.minimize_scalar(cost, bounds=(0.0, 1.0), method="bounded")
    assert policy.feedback.item() == pytest.approx(found.x, abs=1e-4)
    assert lqg.closed_loop_cost(SCALAR, policy) == pytest.approx(found.fun, rel=1e-8)


def test_the_cost_of_a_policy_in_another_world_agrees_with_simulation():
    model = dataclasses.replace(
        SCALAR, transition=np.array([[0.7]]), emission_cov=np.array([[0.3]])
    )
    policy = lqg_policy.optimise(model, 1)
    costs = lqg.simulate(SCALAR, policy, num_timesteps=300, num_chains=2000, seed=3)[100:]
    means = costs.mean(0)
    error = means.std() / np.sqrt(len(means))
    assert abs(means.mean() - lqg.closed_loop_cost(SCALAR, policy)) < 4 * error


def test_a_model_that_sees_its_state_has_no_use_for_memory():
    model = dataclasses.replace(SCALAR, emission_cov=np.zeros((1, 1)))
    costs = [lqg.closed_loop_cost(SCALAR, lqg_policy.optimise(model, m)) for m in (0, 1)]
    assert costs[0] == pytest.approx(costs[1], rel=1e-4)


def test_a_model_that_nothing_moves_is_left_alone():
    model = dataclasses.replace(SCALAR, transition_cov=np.zeros((1, 1)))
    policy = lqg_policy.optimise(model, 1)
    idle = lqg.closed_loop_cost(SCALAR, lqg.no_control(SCALAR))
    assert lqg.closed_loop_cost(SCALAR, policy) == pytest.approx(idle, rel=1e-3)


def test_bad_input():
    with pytest.raises(ValueError, match="memory_size"):
        lqg_policy.optimise(SCALAR, -1)
    with pytest.raises(ValueError, match="num_starts"):
        lqg_policy.optimise(SCALAR, 1, num_starts=0)
    adrift = dataclasses.replace(SCALAR, transition=np.eye(1), control=np.zeros((1, 1)))
    with pytest.raises(ValueError, match="none of 2 searches"):
        lqg_policy.optimise(adrift, 1, num_starts=2)
