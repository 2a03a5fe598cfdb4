"""Acting: sums of rewards, equal episodes for all agents, learned simulators, bad input."""

import numpy as np
import pytest

from tfp_gaps._tensorflow import tf
from tfp_gaps.book.control.acting import LearnedSimulator, act
from tfp_gaps.book.control.beliefs import ExactState
from tfp_gaps.book.control.environments import Hike, Pendulum
from tfp_gaps.book.control.planning import Planner
from tfp_gaps.book.control.world_model import WorldModel
from tfp_gaps.networks import replica_seeds

HIKE = Hike(0.2, horizon=8)
PLANNER = Planner(horizon=4, num_candidates=16, num_elite=4, num_iterations=2)
COUNTS = {"num_replicas": 2, "num_episodes": 3, "seed": 0}


@pytest.fixture(scope="module")
def acted():
    return {
        name: act(HIKE, *parts, PLANNER, **COUNTS)
        for name, parts in {"random": (None, None), "exact": (HIKE, ExactState())}.items()
    }


def test_returns_are_the_sums_of_the_rewards_on_the_way(acted):
    for result in acted.values():
        reward = HIKE.reward(
            tf.constant(result.states[:-1]),
            tf.constant(result.actions),
            tf.constant(result.states[1:]),
        )
        np.testing.assert_allclose(result.returns, np.sum(reward, 0), rtol=1e-5)
        assert result.states.shape == (9, 2, 3, 2)
        assert result.actions.shape == (8, 2, 3, 2)
        assert np.linalg.norm(result.actions, axis=-1).max() <= HIKE.action_bound * (1 + 1e-5)


def test_all_agents_meet_the_same_starts_and_the_same_weather(acted):
    first, second = acted.values()
    np.testing.assert_array_equal(first.states[0], second.states[0])
    np.testing.assert_array_equal(first.states[0, 0], first.states[0, 1])

    def moves(result):
        return result.states[1:] - result.states[:-1] - result.actions

    def sensor(result):
        return result.observations - result.states

    for noise in (moves, sensor):
        np.testing.assert_allclose(noise(first), noise(second), atol=1e-6)
    # Not one noise for all steps or episodes, and of the right size.
    assert 0.15 < sensor(first).std() < 0.25
    assert np.unique(moves(first)[:, 0].round(6)).size > 40


def test_planning_pays(acted):
    assert (acted["exact"].returns > acted["random"].returns).all()
    # What it planned from was the truth.
    np.testing.assert_array_equal(acted["exact"].clouds[:, :, :, 0], acted["exact"].states[:-1])


def test_a_learned_simulator_with_the_true_parameters_is_the_environment():
    model = WorldModel(
        observation_size=2,
        latent_size=2,
        control_size=2,
        hidden_size=4,
        seeds=replica_seeds((0, 1), "model"),
    )
    linear = np.concatenate([np.zeros([2, 2]), np.eye(2)]).astype(np.float32)
    model.set_parameters(
        linear=linear, first_scale=0.1, transition_scale=0.025, observation_noise=0.2
    )
    simulator = LearnedSimulator(model, HIKE)
    rng = np.random.default_rng(0)
    state, action, noise = (
        tf.constant(rng.normal(scale=scale, size=[5, 6, 4, 2]), tf.float32)
        for scale in (0.5, 0.02, 1.0)
    )
    expected = HIKE.advance(state, action, noise)
    after = simulator.advance(state, HIKE.limit(action), noise)
    np.testing.assert_allclose(after, expected, atol=1e-6)
    np.testing.assert_allclose(
        simulator.reward(state, action, after), HIKE.reward(state, action, after), rtol=1e-5
    )


def test_replicas_are_not_mixed_up():
    model = WorldModel(
        observation_size=1,
        latent_size=1,
        control_size=1,
        hidden_size=4,
        seeds=replica_seeds((0, 1, 2), "model"),
    )
    simulator = LearnedSimulator(model, HIKE)
    state, action = tf.fill([7, 3 * 2, 4, 1], 0.3), tf.fill([7, 3 * 2, 4, 1], 0.1)
    moved = simulator.advance(state, action, tf.zeros_like(state)).numpy()[0, :, 0, 0]
    prior = model.transition(tf.fill([3, 1, 1], 0.3), tf.fill([3, 1, 1], 0.1)).mean.numpy()
    np.testing.assert_allclose(moved, np.repeat(prior.ravel(), 2), rtol=1e-5)
    assert len(np.unique(moved)) == 3


def test_the_reward_that_is_seen_is_that_of_the_pendulum_but_for_the_velocity():
    """Mean and final velocity of a decision differ by at most what .1 s accelerate."""
    pendulum = Pendulum(0.1, torque_noise=0.0)
    rng = np.random.default_rng(0)
    angle, speed = rng.uniform(-3, 3, 200), rng.uniform(-5, 5, 200)
    state = tf.constant(np.stack([angle, speed], 1), tf.float32)
    action = tf.constant(rng.uniform(-2, 2, [200, 1]), tf.float32)
    after = pendulum.advance(state, action, tf.zeros([200, 1]))
    shown = [pendulum.emission(s) for s in (state, after)]
    found = pendulum.shown_reward(shown[0], action, shown[1])
    mean_speed = (after[:, 1] + state[:, 1]) / 2
    expected = pendulum.reward(tf.stack([state[:, 0], mean_speed], 1), action, after)
    # Two half steps of .05 s. What is seen is the mean of the two later velocities, half of the
    # first change off; gravity and torque accelerate by 15 + 3 x 2 at most.
    off = 21 * 0.05 / 2
    bound = 0.1 * (2 * np.abs(mean_speed) * off + off**2)
    assert (np.abs(found - expected) <= bound + 1e-3).all()


@pytest.mark.parametrize("name", ["num_replicas", "num_episodes", "num_particles"])
def test_bad_counts(name):
    with pytest.raises(ValueError, match=f"{name} must be an integer and >= 1"):
        act(HIKE, HIKE, ExactState(), PLANNER, **(COUNTS | {name: 0}))
