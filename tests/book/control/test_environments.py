"""Hikes and pendulum against their definitions, Gymnasium's pendulum, and bad input."""

import math

import gymnasium
import numpy as np
import pytest
import scipy.stats

from tfp_gaps._tensorflow import tf
from tfp_gaps.book.control import environments
from tfp_gaps.book.control.environments import Hike, MomentumHike, Pendulum

ALL = [Hike(0.2), MomentumHike(0.1), Pendulum(0.1)]
NAMES = ["hike", "momentum", "pendulum"]
# Standard deviations of a move given the state; the pendulum's in two substeps of .05 s.
MOVES = {
    Hike: [0.025, 0.025],
    MomentumHike: [math.hypot(0.01, 0.005)] * 2 + [0.01] * 2,
    Pendulum: [3 * 0.045 * 0.05, 2 * 0.045],
}
each = pytest.mark.parametrize("environment", ALL, ids=NAMES)


# Pendulum against Gymnasium -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_pendulum_equals_that_of_gymnasium(seed):
    """200 steps, actions beyond the bounds among them.

    The pendulum is chaotic at the top, so that float32 would drift from float64 along a path;
    each step is compared from Gymnasium's state, where rounding is at most a few 1e-6.
    """
    reference = gymnasium.make("Pendulum-v1").unwrapped
    reference.reset(seed=seed)
    pendulum = Pendulum(0.1, torque_noise=0.0, substeps=1)
    actions = np.random.default_rng(seed).uniform(-3, 3, [200, 1])
    for action in actions:
        before = np.array(reference.state)
        observation, reward, *_ = reference.step(action)
        ours = environments.step(pendulum, before, action, seed=0)
        np.testing.assert_allclose(ours.state, reference.state, atol=1e-5)
        np.testing.assert_allclose(pendulum.emission(ours.state), observation[:2], atol=1e-5)
        # The square of an angle near pi: relative to its size.
        np.testing.assert_allclose(ours.reward, reward, rtol=1e-5, atol=1e-5)


def test_substeps_hold_the_torque():
    once = Pendulum(0.1, torque_noise=0.0, substeps=1)
    twice = Pendulum(0.1, torque_noise=0.0, substeps=2)
    state, action = tf.constant([[2.0, -1.0], [0.1, 7.9]]), tf.constant([[1.5], [2.0]])
    none = tf.zeros([2, 1])
    expected = once.advance(once.advance(state, action, none), action, none)
    np.testing.assert_allclose(twice.advance(state, action, none), expected, rtol=1e-6)
    assert twice.decision_seconds == pytest.approx(0.1)


def test_angles_are_wrapped_in_the_reward_only():
    pendulum, torque = Pendulum(0.1), tf.zeros([2, 1])
    states = tf.constant([[0.3, 1.0], [0.3 + 2 * math.pi, 1.0]])
    rewards = pendulum.reward(states, torque, states)
    np.testing.assert_allclose(rewards, [-0.19, -0.19], rtol=1e-5)
    np.testing.assert_allclose(
        environments.wrap(tf.constant([-math.pi, 3.5])), [-math.pi, 3.5 - 2 * math.pi], rtol=1e-6
    )


# Hikes against their definition -------------------------------------------------------------------


def density(point, mean, deviations):
    return scipy.stats.multivariate_normal(mean, np.square(deviations)).pdf(point)


@pytest.mark.parametrize("point", [(0.5, 0.5), (0.02, 0.1), (-0.4, -0.52), (-0.85, -0.85), (1, -1)])
def test_terrain_by_another_library(point):
    ridges = (
        density(point, (0.5, 0.5), (0.75, 0.1)),
        0.8 * density(point, (0.0, 0.2), (0.1, 0.75)),
        0.55 * density(point, (-0.375, -0.5), (0.75, 0.1)),
    )
    expected = 4 * (1 - (1 - max(ridges) / 3) ** 4) - 4.5 + sum(point) / 4
    found = environments.terrain(tf.constant(point, tf.float32))
    assert float(found) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("point", [(1.01, 0.0), (0.0, -1.01), (-2.0, 2.0)])
def test_outside_of_the_box(point):
    assert float(environments.terrain(tf.constant(point))) == -6.0


@pytest.mark.parametrize(
    ("environment", "cost"), [(Hike(0.2), 0.1 * 0.05), (MomentumHike(0.1), 0.005)]
)
def test_reward_is_that_of_the_place_reached_less_the_effort(environment, cost):
    before = tf.zeros([environment.state_size])
    after = tf.constant([0.5, 0.5] + [0.0] * (environment.state_size - 2))
    # Longer than allowed: only what is carried out costs.
    reward = environment.reward(before, tf.constant([30.0, 40.0]), after)
    height = environments.terrain(tf.constant([0.5, 0.5]))
    assert float(height - reward) == pytest.approx(cost, rel=1e-3)


@pytest.mark.parametrize("environment", [Hike(0.2), MomentumHike(0.1)], ids=NAMES[:2])
def test_actions_are_rescaled_to_the_bound_and_no_further(environment):
    bound = environment.action_bound
    actions = bound * tf.constant([[3.0, 4.0], [0.3, -0.4], [0.0, 0.0]])
    expected = bound * np.array([[0.6, 0.8], [0.3, -0.4], [0.0, 0.0]])
    np.testing.assert_allclose(environment.limit(actions), expected, rtol=1e-5, atol=1e-7)


def moments(environment, state, action, count=40_000):
    """Mean and standard deviation of s', and of the sensor's error."""
    noise = np.random.default_rng(0).standard_normal([count, environment.noise_size])
    tile = [np.tile(np.float32(part), [count, 1]) for part in (state, action, noise[0] * 0)]
    after = environment.advance(tile[0], tile[1], tf.constant(noise, tf.float32)).numpy()
    return after.mean(0), after.std(0)


def test_moves_of_the_hike():
    mean, deviation = moments(Hike(0.2), [0.1, -0.2], [0.03, 0.04])
    # Five standard errors of 40,000 draws.
    np.testing.assert_allclose(mean, [0.13, -0.16], atol=5 * 0.025 / 200)
    np.testing.assert_allclose(deviation, 0.025, rtol=5 / math.sqrt(2 * 40_000))


def test_moves_with_momentum():
    state, action = [0.1, -0.2, 0.05, 0.0], [0.6, -0.8]
    mean, deviation = moments(MomentumHike(0.1), state, action)
    velocity = np.array([0.9 * 0.05 + 0.015 * 0.6, -0.015 * 0.8])
    expected = np.concatenate([[0.1, -0.2] + velocity, velocity])
    np.testing.assert_allclose(mean, expected, atol=5 * 0.0112 / 200)
    spread = [math.hypot(0.01, 0.005)] * 2 + [0.01] * 2
    np.testing.assert_allclose(deviation, spread, rtol=5 / math.sqrt(2 * 40_000))


def test_torque_noise_of_the_pendulum():
    state = [math.pi / 3, 0.5]
    mean, deviation = moments(Pendulum(0.1, substeps=1), state, [1.0])
    velocity = 0.5 + (15 * math.sin(math.pi / 3) + 3.0) * 0.05
    spread = 3 * 0.3 * 0.05
    np.testing.assert_allclose(mean[1], velocity, atol=5 * spread / 200)
    np.testing.assert_allclose(deviation, [spread * 0.05, spread], rtol=5 / math.sqrt(2 * 40_000))


# What all share -----------------------------------------------------------------------------------


@each
def test_sensor_and_its_density(environment):
    state = tf.random.stateless_normal([20_000, environment.state_size], [0, 1])
    noise = tf.random.stateless_normal([20_000, environment.observation_size], [0, 2])
    seen = environment.observe(state, noise)
    error = (seen - environment.emission(state)).numpy()
    sigma = environment.observation_noise
    np.testing.assert_allclose(error.std(0), sigma, rtol=5 / math.sqrt(40_000))
    expected = scipy.stats.norm.logpdf(error, scale=sigma).sum(-1)
    found = environment.observation_log_prob(state, seen)
    np.testing.assert_allclose(found, expected, atol=1e-3)


@each
def test_exploration_is_a_run_of_the_environment(environment):
    episodes = environments.explore(environment, num_episodes=300, num_timesteps=6, seed=3)
    again = environments.explore(environment, num_episodes=300, num_timesteps=6, seed=3)
    np.testing.assert_array_equal(again.states, episodes.states)
    x, u = episodes.sequences.observations, episodes.sequences.controls
    assert u.shape == (6, 300, environment.action_size)
    assert not u[0].any()
    np.testing.assert_allclose(environment.limit(u), u, rtol=1e-5)
    error = x - environment.emission(tf.constant(episodes.states)).numpy()
    assert np.std(error) == pytest.approx(environment.observation_noise, rel=0.1)
    # Row t of the controls led from state t - 1 to state t, and nothing but noise besides.
    quiet = np.zeros([300, environment.noise_size], np.float32)
    expected = environment.advance(*map(tf.constant, (episodes.states[0], u[1], quiet)))
    deviation = np.std(episodes.states[1] - expected.numpy(), axis=0)
    # Four standard errors of 300 episodes.
    np.testing.assert_allclose(deviation, MOVES[type(environment)], rtol=4 / math.sqrt(600))
    for t in range(1, 6):
        reward = environment.reward(
            *map(tf.constant, (episodes.states[t - 1], u[t], episodes.states[t]))
        )
        np.testing.assert_allclose(reward, episodes.rewards[t - 1], rtol=1e-5)


@each
def test_successive_actions_agree(environment):
    episodes = environments.explore(environment, num_episodes=400, num_timesteps=9, seed=0)
    first, second = episodes.sequences.controls[4, :, 0], episodes.sequences.controls[5, :, 0]
    assert np.corrcoef(first, second)[0, 1] > 0.6


@each
def test_steps_depend_on_the_seed_alone(environment):
    state = np.zeros([4, environment.state_size])
    action = np.zeros([4, environment.action_size])
    one, same, other = (environments.step(environment, state, action, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.observation, same.observation)
    assert not np.array_equal(one.observation, other.observation)


@each
def test_initial_states(environment):
    noise = tf.random.stateless_normal([10_000, environment.state_size], [0, 0])
    start = environment.initial(noise).numpy()
    if isinstance(environment, Pendulum):
        assert np.abs(start[:, 0]).max() <= math.pi
        assert np.abs(start[:, 1]).max() <= 1.0
        # Uniform: standard deviation of the half width over root three.
        np.testing.assert_allclose(start.std(0), np.array([math.pi, 1]) / 3**0.5, rtol=0.03)
    else:
        np.testing.assert_allclose(start[:, :2].mean(0), -0.85, atol=0.005)
        np.testing.assert_allclose(start[:, :2].std(0), 0.1, rtol=0.04)
        assert not start[:, 2:].any()


# Bad input ----------------------------------------------------------------------------------------


@each
def test_bad_states_and_actions(environment):
    state = np.zeros([3, environment.state_size])
    action = np.zeros([3, environment.action_size])
    for bad_state, bad_action, message in (
        (state, action[:, :0], "action must have shape"),
        (state[:, :-1], action, "state must have shape"),
        (state * np.nan, action, "state must be finite"),
        (state, action + np.inf, "action must be finite"),
        (state, action[:2], "same leading axes"),
        (state, 0.0, "action must have shape"),
    ):
        with pytest.raises(ValueError, match=message):
            environments.step(environment, bad_state, bad_action, seed=0)


@pytest.mark.parametrize("kind", [Hike, MomentumHike, Pendulum])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"observation_noise": 0.0}, "observation_noise must be greater than zero"),
        ({"observation_noise": math.nan}, "observation_noise must be finite"),
        ({"observation_noise": 0.1, "horizon": 0}, "horizon must be an integer and >= 1"),
    ],
)
def test_bad_environments(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(**arguments)


@pytest.mark.parametrize("noise", [-0.1, math.nan, math.inf])
def test_bad_torque_noise(noise):
    with pytest.raises(ValueError, match="torque_noise must be"):
        Pendulum(0.1, torque_noise=noise)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_timesteps": 1}, "num_timesteps"),
        ({"num_episodes": 0}, "num_episodes"),
        ({"memory": 1.0}, "memory"),
        ({"memory": math.nan}, "memory"),
    ],
)
def test_bad_exploration(changes, message):
    arguments = {"num_episodes": 2, "num_timesteps": 3, "seed": 0} | changes
    with pytest.raises(ValueError, match=message):
        environments.explore(Hike(0.2), **arguments)
