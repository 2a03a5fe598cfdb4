"""Policies and dreams: the environment itself as a model, gradients, and what training is worth."""

import numpy as np
import pytest

from tfp_gaps import training
from tfp_gaps._tensorflow import tf
from tfp_gaps.book.control.acting import weather
from tfp_gaps.book.control.environments import Hike, MomentumHike, Pendulum, terrain
from tfp_gaps.book.control.policy import Dream, Policy, negative_return, roll_out
from tfp_gaps.book.experiments import imagined, known_dynamics
from tfp_gaps.networks import replica_seeds


def a_policy(environment, seeds=(0, 1)):
    return Policy(
        observation_size=environment.observation_size,
        action_size=environment.action_size,
        action_bound=environment.action_bound,
        hidden_size=8,
        seeds=replica_seeds(seeds, "policy"),
    )


def acted(world, policy, num_episodes=6):
    start, moves, sensor = weather(world, num_replicas=2, num_episodes=num_episodes, seed=3)
    return roll_out(world, policy, world.initial(start), moves, sensor[:-1])


def test_a_dream_of_the_true_dynamics_is_the_environment():
    """The plain hike is a world model with known parameters: same noises, same episodes."""
    hike = Hike(0.2, horizon=8)
    model = known_dynamics.known_hike(hike, [0, 1])
    dream = Dream(model, hike, lambda states, seed: states, tf.constant([0, 0]))
    policy = a_policy(hike)
    found, wanted = acted(dream, policy), acted(hike, policy)
    assert np.abs(wanted.actions).max() > 1e-3
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)  # float32
    returns = [
        imagined.shown_return(hike, world, path.states, path.actions)
        for world, path in ((dream, found), (hike, wanted))
    ]
    np.testing.assert_allclose(*returns, atol=1e-4)
    np.testing.assert_allclose(returns[1], tf.reduce_sum(wanted.rewards, 0), atol=1e-4)


def test_a_dream_starts_where_its_translation_says():
    hike = MomentumHike(0.1, horizon=3)
    seen = []

    def to_latents(states, seed):
        seen.append(tuple(seed.numpy()))
        return tf.concat([states, states[..., :2]], -1)

    dream = Dream(
        known_dynamics.known_hike(Hike(0.2), [0, 1]), hike, to_latents, tf.constant([7, 8])
    )
    noise = tf.random.stateless_normal([2, 4, dream.state_size], [0, 1])
    np.testing.assert_array_equal(dream.initial(noise)[..., :4], hike.initial(noise))
    assert seen == [(7, 8)]


def test_a_policy_acts_within_bounds_and_on_the_past_alone():
    """What the sensor shows at a step changes no action before it, and that one and later ones."""
    hike = MomentumHike(0.1, horizon=5)
    policy = a_policy(hike)
    start, moves, sensor = weather(hike, num_replicas=2, num_episodes=3, seed=3)
    state = hike.initial(start)
    plain = roll_out(hike, policy, state, moves, sensor[:-1]).actions.numpy()
    changed = sensor[:-1] + 10.0 * tf.one_hot(2, 5)[:, tf.newaxis, tf.newaxis, tf.newaxis]
    other = roll_out(hike, policy, state, moves, changed).actions.numpy()
    np.testing.assert_array_equal(other[:2], plain[:2])
    assert np.all(np.abs(other[2:] - plain[2:]).max((1, 2, 3)) > 1e-4)
    assert np.linalg.norm(other, axis=-1).max() <= 1.0 + 1e-5


def test_the_gradient_is_that_of_the_return():
    """Along the gradient itself, against a central difference; every step is smooth inside."""
    hike = MomentumHike(0.1, horizon=6)
    policy = a_policy(hike)
    starts = tf.random.stateless_normal([2, 16, 4], [0, 1])
    loss = tf.function(negative_return(lambda seed: hike, policy, hike.edge))
    seeds, variables = replica_seeds([0, 1], "noise"), list(policy.trainable_variables)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(loss(starts, seeds, 1.0))
    gradients = tape.gradient(total, variables)
    size = float(tf.linalg.global_norm(gradients))
    ends = []
    for step in (0.01, -0.01):
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.assign_add(step / size * gradient)
        ends.append(float(tf.reduce_sum(loss(starts, seeds, 1.0))))
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.assign_sub(step / size * gradient)
    # float32: losses of about thirty are known to 1e-5, their difference over .02 to a few 1e-3.
    assert size > 0.1
    assert (ends[0] - ends[1]) / 0.02 == pytest.approx(size, rel=0.02)


def test_training_finds_the_way_up():
    """From rest to the upper right for as long as the slope leads there: x + y rises."""
    hike = MomentumHike(0.05, horizon=12)
    policy = a_policy(hike)
    before = acted(hike, policy, 50)
    starts = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
    settings = training.Settings(60, 16, learning_rate=1e-2, clip_norm=50.0, jit_compile=False)
    loss = negative_return(lambda seed: hike, policy, hike.edge)
    training.fit(loss, list(policy.trainable_variables), starts, settings, seeds=[0, 1])
    after = acted(hike, policy, 50)
    gained = tf.reduce_sum(after.rewards - before.rewards, 0)
    assert np.all(np.mean(gained, 1) > 0.5)
    assert np.all(np.mean(after.states[-1][..., :2], (1, 2)) > -0.7)


def test_the_edge_gets_a_slope_and_keeps_its_height():
    """Far inside and far outside nothing changes; half way the reward is half way."""
    hike = MomentumHike(0.1)
    places = tf.constant([[0.3, 0.5], [1.5, 0.0], [0.0, 1.0 - 1e-6], [0.0, 1.0 + 1e-6]])
    taken = hike.edge(places).numpy()
    np.testing.assert_allclose(taken[:2], 0.0, atol=1e-2)
    smooth = (terrain(places) - taken).numpy()
    assert smooth[2] == pytest.approx(smooth[3], abs=1e-3)
    assert smooth[2] == pytest.approx((float(terrain(places[2])) - 6.0) / 2, abs=1e-2)
    np.testing.assert_array_equal(Pendulum(0.1).edge(places), 0.0)


@pytest.mark.parametrize(("name", "value"), [("hidden_size", 0), ("action_bound", 0.0)])
def test_bad_input(name, value):
    good = {"observation_size": 2, "action_size": 2, "action_bound": 1.0, "hidden_size": 4}
    with pytest.raises(ValueError, match=name):
        Policy(**{**good, name: value}, seeds=np.zeros((1, 2)))
