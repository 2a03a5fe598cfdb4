"""Linear-quadratic-Gaussian control: two routes to each cost, simulation, and random systems."""

import dataclasses
import itertools

import numpy as np
import pytest

from tfp_gaps.exact import lqg
from tfp_gaps.exact._numerics import riccati
from tfp_gaps.exact.lqg import System

# Two float64 routes to one number of order one, condition numbers below about 1e6.
EXACT = 1e-8


def scalar(transition=0.95, emission_cov=1.0, **changes):
    """The scalar system of the tables; costs do not depend on how it starts."""
    system = System(transition, 0.5, 0.1, 1.0, emission_cov, 1.0, state_cost=1.0, control_cost=0.1)
    return dataclasses.replace(system, **changes)


def random_covariance(rng, size, *, singular=False):
    root = rng.standard_normal((size, size))
    if singular:
        root[:, 0] = 0.0
    return root @ root.T + (0.0 if singular else 0.05) * np.eye(size)


def random_system(rng, states, channels, controls, like=None):
    """Spectral radius up to 1.2, correlated noises; with `like` a model of the same x, u, cost."""
    transition = rng.standard_normal((states, states))
    transition *= rng.uniform(0.2, 1.2) / riccati.spectral_radius(transition)
    return System(
        transition=transition,
        control=rng.standard_normal((states, controls)),
        transition_cov=random_covariance(rng, states, singular=rng.random() < 0.2),
        emission=rng.standard_normal((channels, states)),
        emission_cov=random_covariance(rng, channels),
        initial_cov=random_covariance(rng, states),
        state_cost=like.state_cost if like else random_covariance(rng, states),
        control_cost=like.control_cost if like else random_covariance(rng, controls),
    )


def scalar_formula(model, system):
    """Gains by iterating the scalar Riccati equations, cost by iterating the second moment."""
    a, b, q, c, r, _, w, u = (
        getattr(model, field.name).item() for field in dataclasses.fields(System)
    )
    value, spread = w, q
    for _ in range(2000):
        value = w + a**2 * value - (a * b * value) ** 2 / (u + b**2 * value)
        spread = a**2 * spread * r / (c**2 * spread + r) + q
    feedback = a * b * value / (u + b**2 * value)
    gain = spread * c / (c**2 * spread + r)
    a0, b0, c0 = system.transition.item(), system.control.item(), system.emission.item()
    loop = np.array(
        [
            [a0, -b0 * feedback],
            [gain * c0 * a0, (1 - gain * c) * (a - b * feedback) - gain * c0 * b0 * feedback],
        ]
    )
    enters = np.array([[1.0, 0.0], [gain * c0, gain]])
    noise = np.diag([system.transition_cov.item(), system.emission_cov.item()])
    moment = np.zeros((2, 2))
    for _ in range(4000):
        moment = loop @ moment @ loop.T + enters @ noise @ enters.T
    effort = system.control_cost.item() * feedback**2 * moment[1, 1]
    return system.state_cost.item() * moment[0, 0] + effort


# Optimal cost ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transition", "costs"),
    [
        (0.95, (0.1355, 0.1807, 0.3385, 0.6650)),
        (1.0, (0.1398, 0.1924, 0.4008, 1.0819)),
        (1.05, (0.1444, 0.2055, 0.4778, 1.7946)),
    ],
)
def test_optimal_cost_table(transition, costs):
    for emission_cov, cost in zip((0.01, 0.1, 1.0, 10.0), costs, strict=True):
        assert lqg.optimal_cost(scalar(transition, emission_cov)) == pytest.approx(cost, abs=5e-5)


def test_open_loop_cost():
    system = scalar()
    found = lqg.closed_loop_cost(system, lqg.no_control(system))
    assert found == pytest.approx(0.1 / (1 - 0.95**2), rel=EXACT)
    assert found == pytest.approx(1.0256, abs=5e-5)


@pytest.mark.parametrize("transition", [0.5, 0.95, 1.0, 1.05])
def test_scalar_costs_match_iterated_scalar_equations(transition):
    system = scalar(transition, control=0.7, emission=1.3, state_cost=2.0)
    wrong = scalar(0.8, transition_cov=0.3, emission_cov=0.4, control=0.9, emission=1.1)
    for model in (system, dataclasses.replace(wrong, state_cost=2.0)):
        expected = scalar_formula(model, system)
        found = lqg.closed_loop_cost(system, lqg.certainty_equivalent(model))
        assert found == pytest.approx(expected, rel=EXACT)


@pytest.mark.parametrize("sizes", list(itertools.product((1, 2, 4), (1, 2), (1, 2))))
def test_optimal_cost_two_ways(sizes):
    rng = np.random.default_rng(sizes)
    for _ in range(5):
        system = random_system(rng, *sizes)
        by_lyapunov = lqg.closed_loop_cost(system, lqg.certainty_equivalent(system))
        assert lqg.optimal_cost(system) == pytest.approx(by_lyapunov, rel=1e-6)


def test_no_random_model_beats_the_optimum_on_1000_random_systems():
    rng = np.random.default_rng(0)
    finite = 0
    for i in range(1000):
        states, channels, controls = (1, 1, 1) if i % 2 else rng.integers(1, 4, size=3)
        system = random_system(rng, states, channels, controls)
        model = random_system(rng, states, channels, controls, like=system)
        if i % 4 < 2:
            # A random neighbour of the truth: most of these loops are stable.
            model = _mixture(system, model, 0.05)
        best = lqg.optimal_cost(system)
        cost = lqg.closed_loop_cost(system, lqg.certainty_equivalent(model))
        assert np.isfinite(best)
        assert cost >= best * (1 - 1e-9)
        finite += np.isfinite(cost)
    assert 500 < finite < 1000


def _mixture(system, other, share):
    names = ("transition", "control", "transition_cov", "emission", "emission_cov")
    mixed = {n: (1 - share) * getattr(system, n) + share * getattr(other, n) for n in names}
    return dataclasses.replace(system, **mixed)


def test_costs_do_not_depend_on_coordinates():
    system = random_system(np.random.default_rng(5), 3, 2, 1)
    turn = np.random.default_rng(6).standard_normal((3, 3)) + 2 * np.eye(3)
    back = np.linalg.inv(turn)
    turned = System(
        transition=turn @ system.transition @ back,
        control=turn @ system.control,
        transition_cov=turn @ system.transition_cov @ turn.T,
        emission=system.emission @ back,
        emission_cov=system.emission_cov,
        initial_cov=turn @ system.initial_cov @ turn.T,
        state_cost=back.T @ system.state_cost @ back,
        control_cost=system.control_cost,
    )
    expected = lqg.optimal_cost(system)
    assert lqg.optimal_cost(turned) == pytest.approx(expected, rel=1e-7)
    # The agent thinks in other coordinates than the system: nothing that x and u show changes.
    cost = lqg.closed_loop_cost(system, lqg.certainty_equivalent(turned))
    assert cost == pytest.approx(expected, rel=1e-7)


# Stability and corners ------------------------------------------------------------------------


@pytest.mark.parametrize("transition", [1.0, 1.0 + 1e-12, 1.05, 3.0])
def test_unstable_loops_cost_infinity(transition):
    system = scalar(transition)
    assert lqg.closed_loop_cost(system, lqg.no_control(system)) == np.inf
    # A model in which controls act the other way round pushes the state away.
    wrong = lqg.certainty_equivalent(dataclasses.replace(system, control=-0.5))
    assert lqg.closed_loop_cost(system, wrong) == np.inf


def test_stable_but_slow_loops_are_finite():
    system = scalar(1.0 - 1e-6)
    cost = lqg.closed_loop_cost(system, lqg.no_control(system))
    assert cost == pytest.approx(0.1 / (1 - (1 - 1e-6) ** 2), rel=1e-6)


def test_a_system_that_no_control_stabilises_has_infinite_optimal_cost():
    assert lqg.optimal_cost(scalar(1.05, control=0.0)) == np.inf
    assert lqg.optimal_cost(scalar(1.05, emission=0.0)) == np.inf
    assert lqg.optimal_cost(scalar(0.95, control=0.0)) == pytest.approx(0.1 / (1 - 0.95**2))


@pytest.mark.parametrize(
    ("changes", "feedback", "gain"),
    [
        # Exact sensor: the filter believes x.
        ({"emission_cov": 0.0}, None, 1.0),
        # Undriven and decaying, or marginal: nothing is learned from x in the long run.
        ({"transition_cov": 0.0}, None, 0.0),
        ({"transition_cov": 0.0, "transition": 1.0}, None, 0.0),
        # Undriven and growing: P = (a^2 - 1) R, L = P / (P + R) = 1 - 1 / a^2.
        ({"transition_cov": 0.0, "transition": 1.05}, None, 1 - 1 / 1.05**2),
        ({"transition_cov": 0.0, "emission_cov": 0.0}, None, 0.0),
        # Free control cancels the state: K = a / b. A control without effect is not used.
        ({"control_cost": 0.0}, 0.95 / 0.5, None),
        ({"control": 0.0}, 0.0, None),
        ({"control": 0.0, "transition": 1.05}, 0.0, None),
        ({"control": 0.0, "control_cost": 0.0}, 0.0, None),
        ({"state_cost": 0.0}, 0.0, None),
    ],
)
def test_gains_in_corners(changes, feedback, gain):
    agent = lqg.certainty_equivalent(scalar(**changes))
    if feedback is not None:
        assert agent.feedback.item() == pytest.approx(feedback, abs=1e-9)
    if gain is not None:
        assert agent.gain.item() == pytest.approx(gain, abs=1e-9)
    assert np.all(np.isfinite(agent.memory))


def test_tiny_noises_approach_the_corners():
    for noise in (1e-6, 1e-10, 1e-14):
        agent = lqg.certainty_equivalent(scalar(emission_cov=noise))
        assert agent.gain.item() == pytest.approx(1.0, abs=20 * noise)
        agent = lqg.certainty_equivalent(scalar(transition_cov=noise))
        # P = Q / (1 - a^2) + O(Q^2), R = 1.
        assert agent.gain.item() == pytest.approx(noise / (1 - 0.95**2), rel=20 * noise**0.5)


# Decomposition --------------------------------------------------------------------------------


def test_decomposition_parts():
    system, model = scalar(), scalar(0.6, transition_cov=1.7, emission_cov=0.0)
    parts = lqg.decompose(system, model)
    assert parts.optimal == lqg.optimal_cost(system)
    # With R = 0 in the model its filter is the raw observation too, only the regulator differs.
    agent = lqg.raw_observation(model)
    assert parts.learned == pytest.approx(lqg.closed_loop_cost(system, agent), rel=EXACT)
    assert parts.without_filter == pytest.approx(
        lqg.closed_loop_cost(system, lqg.certainty_equivalent(scalar(emission_cov=0.0))), rel=EXACT
    )
    assert parts.optimal < parts.wrong_dynamics < parts.learned


# Simulation -----------------------------------------------------------------------------------


# A hidden velocity: what the agent remembers of position and velocity is far from symmetric.
SWINGING = System(
    transition=[[1.0, 0.3], [-0.1, 0.95]],
    control=[[0.0], [0.3]],
    transition_cov=np.diag([1e-4, 0.04]),
    emission=[[1.0, 0.0]],
    emission_cov=0.1,
    initial_cov=np.eye(2),
    state_cost=np.diag([1.0, 0.0]),
    control_cost=0.1,
)


@pytest.mark.parametrize(
    ("system", "model"),
    [
        (SWINGING, SWINGING),
        (scalar(), scalar()),
        (scalar(), scalar(0.59375, transition_cov=1.6641, emission_cov=0.0)),
        (scalar(1.05), scalar(1.0)),
        (random_system(np.random.default_rng(1), 3, 2, 2),) * 2,
    ],
)
def test_cost_matches_simulation(system, model):
    agent = lqg.certainty_equivalent(model)
    cost = lqg.closed_loop_cost(system, agent)
    costs = lqg.simulate(system, agent, num_timesteps=400, num_chains=4000, seed=3)
    # Chains are independent, steps of one are not: means of chains, without the first 200 steps.
    means = costs[200:].mean(axis=0)
    standard_error = means.std(ddof=1) / np.sqrt(len(means))
    assert standard_error < 0.01 * cost
    assert abs(means.mean() - cost) < 3 * standard_error


def test_simulation_is_reproducible():
    system = scalar()
    agent = lqg.certainty_equivalent(system)
    runs = [
        lqg.simulate(system, agent, num_timesteps=7, num_chains=2, seed=seed) for seed in (1, 1, 2)
    ]
    assert runs[0].shape == (7, 2)
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.allclose(runs[0], runs[2])


# Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transition": np.ones((2, 3))}, "transition must be square"),
        ({"transition": np.nan}, "transition must be finite"),
        ({"control": np.ones((2, 1))}, "control must have one row per state"),
        ({"control": np.ones(1)}, "control must be a matrix"),
        ({"emission": np.ones((1, 2))}, "emission must have one column per state"),
        ({"emission_cov": -1.0}, "emission_cov must be positive semi-definite"),
        ({"transition_cov": np.eye(2)}, "transition_cov must have shape"),
        ({"state_cost": -1.0}, "state_cost must be positive semi-definite"),
        ({"control_cost": np.eye(2)}, "control_cost must have shape"),
        ({"initial_cov": np.inf}, "initial_cov must be finite"),
    ],
)
def test_bad_systems(changes, message):
    with pytest.raises(ValueError, match=message):
        scalar(**changes)


def test_costs_must_be_symmetric():
    with pytest.raises(ValueError, match="state_cost must be symmetric"):
        System(
            np.eye(2), np.ones((2, 1)), np.eye(2), np.eye(2), np.eye(2), np.eye(2),
            state_cost=[[1.0, 0.5], [0.0, 1.0]], control_cost=1.0,
        )  # fmt: skip


def test_unstable_systems_have_no_stationary_start():
    matrices = {
        field.name: getattr(scalar(1.0), field.name)
        for field in dataclasses.fields(System)
        if field.name != "initial_cov"
    }
    with pytest.raises(ValueError, match="stationary start needs a stable transition"):
        System.stationary(**matrices, exploration_cov=0.25)


def test_controllers_must_fit():
    system = scalar()
    agent = lqg.certainty_equivalent(system)
    with pytest.raises(ValueError, match="controller's gain must have shape"):
        lqg.closed_loop_cost(system, agent._replace(gain=np.ones((1, 2))))
    with pytest.raises(ValueError, match="feedback must be finite"):
        lqg.closed_loop_cost(system, agent._replace(feedback=np.array([[np.nan]])))
    with pytest.raises(ValueError, match="num_chains must be an integer"):
        lqg.simulate(system, agent, num_timesteps=5, num_chains=0, seed=0)


def test_decomposition_needs_observed_states_in_known_coordinates():
    with pytest.raises(ValueError, match="must have the emission of system"):
        lqg.decompose(scalar(), scalar(emission=2.0))
    hidden = random_system(np.random.default_rng(2), 2, 1, 1)
    with pytest.raises(ValueError, match="must show every state"):
        lqg.decompose(hidden, hidden)
