"""The planner against regulators in closed form, and bad input."""

import math

import numpy as np
import pytest

from tfp_gaps._tensorflow import tf
from tfp_gaps.book.control import planning
from tfp_gaps.book.control.environments import Hike, Pendulum
from tfp_gaps.book.control.planning import Planner
from tfp_gaps.networks import flat_matmul


class Regulated:
    """A double integrator with a quadratic cost, whose best plan is a least-squares problem."""

    action_size = noise_size = 1
    action_bound = 10.0
    transition = np.array([[1.0, 0.3], [0.0, 1.0]], np.float32)
    control = np.array([[0.0], [0.3]], np.float32)

    def limit(self, action):
        return action

    def advance(self, state, action, noise):
        del noise
        return flat_matmul(state, self.transition.T) + flat_matmul(action, self.control.T)

    def reward(self, state, action, next_state):
        del state
        return -tf.reduce_sum(next_state**2, -1) - 0.1 * tf.reduce_sum(action**2, -1)

    def best_plan(self, state, horizon):
        """Stack the states as a linear function of the actions, and solve."""
        powers = [np.linalg.matrix_power(self.transition, h) for h in range(horizon + 1)]
        effect = np.zeros([2 * horizon, horizon])
        for h in range(horizon):
            for g in range(h + 1):
                effect[2 * h : 2 * h + 2, g : g + 1] = powers[h - g] @ self.control
        free = np.concatenate([powers[h + 1] @ state for h in range(horizon)])
        return np.linalg.solve(effect.T @ effect + 0.1 * np.eye(horizon), -effect.T @ free)


SEED = tf.constant([0, 1])
THOROUGH = Planner(6, num_candidates=1000, num_elite=50, num_iterations=20, memory=0.0, spread=0.3)


def test_the_plan_is_that_of_the_regulator():
    states = np.array([[1.0, 0.0], [-0.5, 1.0], [0.0, 0.0]], np.float32)
    simulator = Regulated()
    plan = THOROUGH.improve(
        simulator, tf.constant(states)[:, tf.newaxis], THOROUGH.start(3, 1), SEED
    )
    expected = [simulator.best_plan(state, 6) for state in states]
    # The search stops at a spread of about a hundredth of an action.
    np.testing.assert_allclose(plan[..., 0], expected, atol=0.05)


def test_a_plan_for_several_particles_is_that_for_their_mean():
    # Certainty equivalence: with a quadratic cost the spread of a belief does not change the plan.
    simulator = Regulated()
    particles = tf.constant([[[2.0, 0.5], [0.0, -0.5], [1.0, 0.0]]])
    plan = THOROUGH.improve(simulator, particles, THOROUGH.start(1, 1), SEED)
    np.testing.assert_allclose(plan[0, :, 0], simulator.best_plan([1.0, 0.0], 6), atol=0.05)


def test_return_of_a_candidate_is_the_sum_of_its_rewards():
    pendulum = Pendulum(0.1)
    rng = np.random.default_rng(0)
    particles = rng.standard_normal([2, 3, 2]).astype(np.float32)
    candidates = rng.uniform(-2, 2, [4, 2, 5, 1]).astype(np.float32)
    moves = rng.standard_normal([5, 2, 3, 1]).astype(np.float32)
    found = planning.expected_return(*map_constants(pendulum, particles, candidates, moves))
    for c in range(4):
        for b in range(2):
            returns = []
            for i in range(3):
                state, total = tf.constant(particles[b, i]), 0.0
                for h in range(5):
                    action = tf.constant(candidates[c, b, h])
                    after = pendulum.advance(state, action, tf.constant(moves[h, b, i]))
                    total += float(pendulum.reward(state, action, after))
                    state = after
                returns.append(total)
            assert float(found[c, b]) == pytest.approx(np.mean(returns), rel=1e-4)


def map_constants(simulator, *arrays):
    return simulator, *map(tf.constant, arrays)


def test_it_holds_the_pendulum_upright_and_keeps_the_bounds():
    pendulum = Pendulum(0.1, torque_noise=0.0)
    planner, state = Planner(10, num_candidates=64), tf.constant([[0.2, 0.0]])
    plan = planner.start(1, 1)
    improve = tf.function(lambda state, plan, seed: planner.improve(pendulum, state, plan, seed))
    for t in range(20):
        plan = improve(state[:, tf.newaxis], plan, tf.constant([3, t]))
        assert np.abs(plan).max() <= 2.0
        state = pendulum.advance(state, plan[:, 0], tf.zeros([1, 1]))
        plan = planning.shifted(plan)
    # Without control the angle would have left the top after five decisions.
    assert abs(float(state[0, 0])) < 0.1


def test_plans_depend_on_the_seed_alone():
    hike, planner = Hike(0.2), Planner(4, num_candidates=16, num_elite=4)
    particles = tf.zeros([2, 3, 2])
    one, same, other = (
        planner.improve(hike, particles, planner.start(2, 2), tf.constant(seed))
        for seed in ([0, 1], [0, 1], [0, 2])
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_noise_of_the_candidates():
    planner = Planner(5, num_candidates=4000, memory=0.8)
    draws = planner._draw([3, 5, 2], SEED).numpy()
    # 24,000 draws per step: five standard errors.
    np.testing.assert_allclose(draws.std(axis=(0, 1, 3)), 1.0, rtol=5 / math.sqrt(48_000))
    assert np.mean(draws[:, :, 1] * draws[:, :, 2]) == pytest.approx(0.8, abs=0.03)


def test_candidates_without_a_finite_return_are_never_the_best():
    class Unstable(Regulated):
        def advance(self, state, action, noise):
            moved = super().advance(state, action, noise)
            return tf.where(action > 0.0, moved * math.nan, moved)

    # To the left of the goal every good plan would push to the right: there are only bad ones left.
    planner = Planner(2, num_candidates=400, num_elite=10)
    plan = planner.improve(Unstable(), -tf.ones([1, 1, 2]), planner.start(1, 1), SEED)
    assert np.all(plan <= 0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon": 0}, "horizon must be an integer and >= 1"),
        ({"num_candidates": 4, "num_elite": 5}, "at most num_candidates"),
        ({"num_iterations": 0}, "num_iterations"),
        ({"memory": 1.0}, "memory"),
        ({"spread": -1.0}, "spread"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        Planner(**({"horizon": 3} | changes))


@pytest.mark.parametrize(
    ("particles", "plan", "message"),
    [([2, 2], [2, 4, 2], "particles must"), ([2, 1, 2], [2, 3, 2], "plan must")],
)
def test_bad_shapes(particles, plan, message):
    with pytest.raises(ValueError, match=message):
        Planner(4).improve(Hike(0.2), tf.zeros(particles), tf.zeros(plan), SEED)
