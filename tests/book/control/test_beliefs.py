"""Beliefs against Kalman filters, resampling, and what happens when a filter is lost."""

import dataclasses
import functools

import numpy as np
import pytest

from tfp_gaps._tensorflow import tf
from tfp_gaps.book.control import beliefs
from tfp_gaps.book.control.acting import act
from tfp_gaps.book.control.beliefs import (
    AdaptedFilter,
    BootstrapFilter,
    ExactState,
    Observation,
    resample,
)
from tfp_gaps.book.control.environments import MomentumHike, explore
from tfp_gaps.book.control.world_model import WorldModel
from tfp_gaps.book.distillation.filter_network import FilterNetwork
from tfp_gaps.networks import for_replicas, replica_seeds
from tfp_gaps.posteriors.conditions import LookAhead
from tfp_gaps.posteriors.look_ahead import LookAheadNetwork
from tfp_gaps.sequences import Batch, Sequences

NUM_TIMESTEPS, NUM_EPISODES = 10, 4
HIKE = MomentumHike(0.1)


def keys(purpose, t=0):
    return replica_seeds([5], purpose, t)[0]


@pytest.fixture(scope="module")
def explored():
    return explore(HIKE, num_episodes=NUM_EPISODES, num_timesteps=NUM_TIMESTEPS, seed=2).sequences


def kalman(sequences, transition, control, move_cov, first_cov, sensor_var):
    """Means, covariances and increments of ln p(x); position first, seen with variance r^2."""
    size, seen = len(transition), sequences.observations.shape[-1]
    emission = np.eye(seen, size)
    mean, cov = np.zeros([sequences.observations.shape[1], size]), first_cov
    means, increments = [], []
    for t in range(sequences.num_timesteps):
        if t:
            mean = mean @ transition.T + sequences.controls[t].astype(np.float64) @ control.T
            cov = transition @ cov @ transition.T + move_cov
        total = emission @ cov @ emission.T + sensor_var * np.eye(seen)
        gain = cov @ emission.T @ np.linalg.inv(total)
        error = sequences.observations[t] - mean @ emission.T
        increments.append(
            -0.5 * np.einsum("bi,ij,bj->b", error, np.linalg.inv(total), error)
            - 0.5 * np.linalg.slogdet(2 * np.pi * total)[1]
        )
        mean, cov = mean + error @ gain.T, cov - gain @ emission @ cov
        means.append(mean)
    return np.array(means), cov, np.array(increments)


def hike_kalman(sequences):
    """The momentum hike, with positions counted from the middle of its start."""
    stay, speed = np.eye(2), HIKE.drag * np.eye(2)
    transition = np.block([[stay, speed], [np.zeros([2, 2]), speed]])
    control = HIKE.thrust * np.concatenate([np.eye(2)] * 2)
    shared = HIKE.velocity_noise**2 * np.eye(2)
    move = np.block([[shared, shared], [shared, shared]])
    move[:2, :2] += HIKE.position_noise**2 * np.eye(2)
    first = np.diag([0.1**2] * 2 + [0.0] * 2)
    return kalman(sequences, transition, control, move, first, HIKE.observation_noise**2)


def run(particle_filter, sequences, num_replicas=1):
    """Clouds and increments of a filter."""

    def row(array, t):
        return tf.repeat(tf.constant(array[t])[tf.newaxis], num_replicas, 0)

    first = tf.function(particle_filter.first, jit_compile=True)
    onwards = tf.function(particle_filter.next, jit_compile=True)
    cloud, increment = first(row(sequences.observations, 0), keys("filter"))
    clouds, increments = [cloud], [increment]
    for t in range(1, sequences.num_timesteps):
        observed = row(sequences.observations, t)
        cloud, increment = onwards(cloud, row(sequences.controls, t), observed, keys("filter", t))
        clouds.append(cloud)
        increments.append(increment)
    return np.array(clouds), np.array(increments)


# Filters ------------------------------------------------------------------------------------------


def test_the_bootstrap_filter_is_the_kalman_filter_of_the_momentum_hike():
    hike = dataclasses.replace(HIKE, horizon=NUM_TIMESTEPS - 1)
    acted = act(hike, None, None, None, num_replicas=1, num_episodes=NUM_EPISODES, seed=1)
    actions = acted.actions[:, 0]
    controls = np.concatenate([np.zeros_like(actions[:1]), actions])
    watched = Sequences(acted.observations[:, 0], controls)
    clouds, increments = run(BootstrapFilter(HIKE, 60_000), watched)
    # The Kalman filter below counts from the middle of the start.
    around = dataclasses.replace(watched, observations=watched.observations + 0.85)
    means, cov, expected = hike_kalman(around)
    found = clouds[-1, :, 0].mean(0) + np.array([0.85, 0.85, 0.0, 0.0])
    # 60,000 particles; the little noise of a move lets few ancestors survive ten resamplings.
    np.testing.assert_allclose(found, means[-1], atol=0.1 * np.sqrt(cov.diagonal().max()))
    spread = np.var(clouds[-1, :, 0], 0).mean(0)
    np.testing.assert_allclose(spread, cov.diagonal(), rtol=0.1)
    assert np.abs(increments[:, 0] - expected).mean() < 0.03


def test_the_adapted_filter_is_the_kalman_filter_of_a_linear_model():
    model = WorldModel(
        observation_size=2,
        latent_size=4,
        control_size=2,
        hidden_size=1,
        seeds=replica_seeds(range(8), "model"),
    )
    speed = np.diag([0.9] * 2)
    change = np.block([[np.zeros([2, 2]), speed], [np.zeros([2, 2]), speed - np.eye(2)]])
    control = 0.02 * np.concatenate([np.eye(2)] * 2)
    linear = np.concatenate([change.T, control.T]).astype(np.float32)
    model.set_parameters(
        linear=linear, first_scale=0.2, transition_scale=0.05, observation_noise=0.1
    )
    rng = np.random.default_rng(0)
    controls = rng.normal(size=[NUM_TIMESTEPS, NUM_EPISODES, 2])
    controls[0] = 0.0
    states = [0.2 * rng.normal(size=[NUM_EPISODES, 4])]
    for u in controls[1:]:
        moved = states[-1] @ (np.eye(4) + change).T + u @ control.T
        states.append(moved + 0.05 * rng.normal(size=moved.shape))
    observations = np.stack(states)[..., :2] + 0.1 * rng.normal(size=controls.shape)
    watched = Sequences(observations.astype(np.float32), controls.astype(np.float32))
    clouds, increments = run(AdaptedFilter(model, 10_000), watched, num_replicas=8)
    means, cov, expected = kalman(
        watched, np.eye(4) + change, control, 0.05**2 * np.eye(4), 0.2**2 * np.eye(4), 0.1**2
    )
    # Eight filters of the same model tell their own errors; t of seven degrees of freedom.
    found = clouds[-1].mean(0)
    error = found.std(0, ddof=1) / np.sqrt(8)
    assert error.max() < 0.05 * np.sqrt(cov.max())
    assert (np.abs(found.mean(0) - means[-1]) < 6 * error).all()
    spread = np.var(clouds[-1], 0).mean((0, 1))
    np.testing.assert_allclose(spread, cov.diagonal(), rtol=0.06)
    assert np.abs(increments.mean(1) - expected).mean() < 0.02


def test_a_lost_filter_goes_on_with_what_it_believed():
    filter_ = BootstrapFilter(HIKE, 50)
    far = tf.fill([1, 2, 2], np.float32(1e30))
    cloud, increment = filter_.first(far, keys("first"))
    assert np.isfinite(cloud).all() and not np.isfinite(increment).any()
    action = tf.zeros([1, 2, 2])
    cloud, _ = filter_.next(cloud, action, tf.fill([1, 2, 2], np.nan), keys("next"))
    assert np.isfinite(cloud).all()
    # Nobody was chosen over others: as many different particles as before.
    assert len(np.unique(cloud[:, 0, 0, 0])) == 50


def test_particles_are_drawn_in_proportion_to_their_weights():
    weights = np.array([[0.5, 0.0], [0.25, 1.0], [0.25, 0.0], [0.0, 0.0]], np.float32)
    weights = np.repeat(weights, 25, 0)
    with np.errstate(divide="ignore"):
        log_weights = tf.constant(np.log(weights) + 7.0)
    numbers = np.repeat(np.arange(4.0, dtype=np.float32), 25)
    particles = tf.constant(np.stack([numbers, numbers], 1)[..., np.newaxis])
    drawn = resample(particles, log_weights, keys("resample")).numpy()[..., 0]
    counts = np.stack([np.bincount(column.astype(int), minlength=4) for column in drawn.T], 1)
    # Systematic resampling is exact to one copy of each particle.
    np.testing.assert_allclose(counts, [[50, 0], [25, 100], [25, 0], [0, 0]], atol=1)
    # In random order: its first half is a sample too.
    assert 12 < (drawn[:50, 0] == 0).sum() < 38


# Networks -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def networks():
    sizes = {"observation_size": 2, "latent_size": 3, "control_size": 2, "hidden_size": 8}
    partial = functools.partial(LookAheadNetwork, conditions=LookAhead(0))
    built = [
        build(**sizes, seeds=replica_seeds((0, 1), "network"))
        for build in (WorldModel, partial, FilterNetwork)
    ]
    for variable in built[1].trainable_variables:
        variable.assign(variable + 0.1 * tf.random.stateless_normal(variable.shape, [1, 2]))
    return built


def watch(belief, sequences):
    def row(array, t):
        return tf.repeat(tf.constant(array[t])[tf.newaxis], 2, 0)

    memory = belief.start(Observation(row(sequences.observations, 0), ()), keys("watch"))
    for t in range(1, sequences.num_timesteps):
        observed = Observation(row(sequences.observations, t), ())
        memory = belief.update(memory, row(sequences.controls, t), observed, keys("watch", t))
    return memory


def test_the_partial_posterior_has_the_law_of_the_paths_it_was_trained_with(networks, explored):
    model, network, _ = networks
    memory = watch(beliefs.PartialPosterior(model, network, 4000), explored)
    batch = for_replicas(explored.batch, 2)
    context, u = (tf.repeat(part, 1000, 2) for part in (network.context(batch), batch.controls))
    noise = tf.random.stateless_normal([*context.shape[:3], 3], [7, 8])
    paths = network.sample_path(model, context, noise, controls=u).latents[-1].numpy()
    paths = paths.reshape(2, NUM_EPISODES, 1000, 3)
    cloud = memory[0].numpy().transpose(1, 2, 0, 3)
    error = np.sqrt(paths.var(2) / 1000 + cloud.var(2) / 4000)
    assert (np.abs(paths.mean(2) - cloud.mean(2)) < 4.5 * error).all()
    # A standard deviation of 1,000 draws is known to 2.2 %.
    np.testing.assert_allclose(paths.std(2), cloud.std(2), rtol=0.12)


def test_the_distilled_filter_draws_from_its_network(networks, explored):
    network = networks[2]
    belief = beliefs.DistilledFilter(network)
    memory = watch(belief, explored)
    x, u = (
        tf.repeat(tf.constant(array)[:, tf.newaxis], 2, 1)
        for array in (explored.observations, explored.controls)
    )
    expected = network.mixture(network.context(Batch(x, u))[-1])
    cloud = belief.particles(memory, 5000, keys("cloud")).numpy()
    assert cloud.shape == (2, NUM_EPISODES, 5000, 3)
    error = cloud.std(2) / np.sqrt(5000)
    assert (np.abs(cloud.mean(2) - expected.mean()) < 4.5 * error).all()


def test_the_exact_state_and_a_map_of_it():
    state = tf.constant([[[1.0, 2.0]]])
    exact = ExactState()
    memory = exact.start(Observation((), state), keys("any"))
    np.testing.assert_array_equal(exact.particles(memory, 3, keys("any")), [[[[1.0, 2.0]] * 3]])
    doubled = beliefs.MappedBelief(exact, lambda states, seed: 2 * states)
    np.testing.assert_array_equal(doubled.particles(memory, 1, keys("any")), [[[[2.0, 4.0]]]])


def test_bad_counts(networks):
    model, network, _ = networks
    for build in (
        lambda: BootstrapFilter(HIKE, 1),
        lambda: AdaptedFilter(model, 0),
        lambda: beliefs.PartialPosterior(model, network, 1),
    ):
        with pytest.raises(ValueError, match="num_particles must be an integer and >= 2"):
            build()
