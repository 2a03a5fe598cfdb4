"""Score a belief and a model on episodes whose true states are known.

Coverage: the truth lies in the belief's 90 % set if it is nearer to the belief's mean than nine
tenths of the belief's own particles are. For a position the distance is that of Mahalanobis, for an
angle the shorter way around from the circular mean: particles of a pendulum lie on a circle, where
a Gaussian set would be a thin disc.

Shapes: clouds are [time, replicas, episodes, particles, state].
"""

import time
from typing import NamedTuple

import numpy as np

from tfp_gaps._tensorflow import tf
from tfp_gaps.book.control.beliefs import Observation
from tfp_gaps.networks import replica_seeds

LEVELS = (0.5, 0.9)


class Calibration(NamedTuple):
    """How a belief about the position or angle fares, per replica: float64 [replicas].

    coverage: share of steps in which the truth lies in the set of each of `LEVELS`, [levels,
      replicas].
    error: root mean squared distance of the truth from the belief's mean, per coordinate.
    claimed: root mean square of the belief's own standard deviations.
    log_likelihood: of the truth under a normal with the belief's mean and covariance, nats a step.
    """

    coverage: np.ndarray
    error: np.ndarray
    claimed: np.ndarray
    log_likelihood: np.ndarray


class Watch:
    """A belief that watches, without acting; compiled once.

    Args:
      belief: one of `control.beliefs`.
      num_particles: how many are kept of what it believes after each step.
    """

    def __init__(self, belief, num_particles):
        def begin(observed, key):
            memory = belief.start(observed, key)
            return memory, belief.particles(memory, num_particles, key + 1)

        def advance(memory, action, observed, key):
            memory = belief.update(memory, action, observed, key)
            return memory, belief.particles(memory, num_particles, key + 1)

        self._steps = _compiled(begin, advance)

    def follow(self, observations, *, seed, controls=None, states=None):
        """Watch from the first step to the last.

        Args:
          observations: [time, replicas, episodes, channels]; replicas may see different ones.
          seed: int.
          controls: [time, replicas, episodes, controls], or None for a model without any.
          states: [time, replicas, episodes, state], for `ExactState`.

        Returns:
          clouds: float32 [time, replicas, episodes, particles, state].
        """
        return _run(self._steps, observations, controls, states, seed)

    def seconds_per_step(self, observations, *, repetitions=20):
        """Median wall time in which the next observation of every sequence is taken in."""
        begin, advance = self._steps
        first, second = (Observation(row, ()) for row in tf.constant(observations[:2], tf.float32))
        nothing = tf.zeros([*second.sensor.shape[:-1], 0])
        key, spent = replica_seeds([0], "cost")[0], []
        memory, _ = begin(first, key)
        advance(memory, nothing, second, key)
        for _ in range(repetitions):
            start = time.perf_counter()
            advance(memory, nothing, second, key)[1].numpy()
            spent.append(time.perf_counter() - start)
        return float(np.median(spent))


def follow(belief, sequences, *, num_replicas, num_particles, seed, states=None):
    """Let a belief watch recorded episodes, the same ones in all replicas.

    Args:
      belief: one of `control.beliefs`.
      sequences: `Sequences` with controls, as from `environments.explore`.
      num_replicas: of the learned models; without any, 1.
      num_particles: how many are kept.
      seed: int.
      states: [time, episodes, state], for `ExactState`.

    Returns:
      clouds: float32 [time, replicas, episodes, particles, state].
    """
    observations, controls, states = _repeated(sequences, num_replicas, states)
    watch = Watch(belief, num_particles)
    return watch.follow(observations, controls=controls, states=states, seed=seed)


def log_evidence(particle_filter, sequences, *, num_replicas, seed):
    """ln p(x_t | x_{1:t-1}) of recorded episodes under a filter's model.

    Returns:
      float64 [time, replicas, episodes], nats per step.
    """

    def begin(observed, seed):
        return particle_filter.first(observed.sensor, seed)

    def advance(memory, action, observed, seed):
        return particle_filter.next(memory, action, observed.sensor, seed)

    steps = _compiled(begin, advance)
    return _run(steps, *_repeated(sequences, num_replicas), seed).astype(np.float64)


def _compiled(*steps):
    return tuple(tf.function(step, jit_compile=True) for step in steps)


def _repeated(sequences, num_replicas, states=None):
    """Observations, controls and states with an axis of equal replicas; None stays None."""
    arrays = (sequences.observations, sequences.controls, states)
    return (None if a is None else np.repeat(a[:, np.newaxis], num_replicas, 1) for a in arrays)


def _run(steps, observations, controls, states, seed):
    """Run through episodes, and stack what is returned beside the memory."""
    begin, advance = steps
    observations = tf.constant(observations, tf.float32)
    if controls is None:
        controls = tf.zeros([*observations.shape[:-1], 0])
    kept, memory = [], None
    for t, row in enumerate(observations):
        observed = Observation(row, () if states is None else tf.constant(states[t]))
        key = replica_seeds([seed], "watch", t)[0]
        if t == 0:
            memory, found = begin(observed, key)
        else:
            memory, found = advance(memory, tf.constant(controls[t]), observed, key)
        kept.append(found.numpy())
    return np.stack(kept)


def calibrate(environment, shown, states, *, first=5):
    """Compare clouds with the truth.

    Args:
      environment: whose sensor it is.
      shown: what the sensor would show of the particles, [time, replicas, episodes, particles,
        channels].
      states: the truth, [time, episodes, state] or, where episodes differ between replicas, [time,
        replicas, episodes, state].
      first: steps at the beginning that are left out.

    Returns:
      `Calibration`.
    """
    truth = environment.emission(tf.constant(states)).numpy()
    if truth.ndim == 3:
        truth = truth[:, np.newaxis]
    truth = np.broadcast_to(truth, (*shown.shape[:3], truth.shape[-1]))
    cloud, truth = (environment.deviation(shown, array) for array in (shown, truth[..., None, :]))
    cloud, truth = (part[first:].astype(np.float64) for part in (cloud, truth))
    size, count = cloud.shape[-1], cloud.shape[-2]
    covariance = np.einsum("...pi,...pj->...ij", cloud, cloud) / (count - 1)
    covariance += 1e-10 * np.eye(size)
    inverse = np.linalg.inv(covariance)
    inside, outside = (np.einsum("...pi,...ij,...pj->...p", x, inverse, x) for x in (cloud, truth))
    rank = (inside < outside).mean(-1)
    log_det = np.linalg.slogdet(2 * np.pi * covariance)[1]
    over = (0, 2)
    return Calibration(
        np.stack([(rank < level).mean(over) for level in LEVELS]),
        np.sqrt((truth[..., 0, :] ** 2).mean((0, 2, 3))),
        np.sqrt(np.trace(covariance, axis1=-2, axis2=-1).mean(over) / size),
        -0.5 * (outside[..., 0] + log_det).mean(over),
    )


def prediction_errors(environment, simulator, clouds, episodes, *, start, horizons, seed):
    """Root mean squared error of what the sensor would show h steps ahead, without its noise.

    The mean over the cloud's particles at `start`, moved on by the simulator under the episode's
    own actions, is compared with the truth.

    Args:
      environment: whose sensor it is.
      simulator: the environment, or a `LearnedSimulator`.
      clouds: from `follow`.
      episodes: `Episodes`, the same.
      start: index of the step from which to predict.
      horizons: steps ahead, in rising order.
      seed: int.

    Returns:
      float64 [horizons, replicas].
    """
    shape = clouds.shape[1:3]
    particles = tf.constant(clouds[start].reshape(-1, *clouds.shape[3:]))
    emission = environment.emission if simulator is environment else simulator.model.shown

    @tf.function(jit_compile=True)
    def advance(particles, action, seed):
        noise = tf.random.stateless_normal(
            [*particles.shape[:2], simulator.noise_size], seed, alg="philox"
        )
        action = tf.repeat(action[:, tf.newaxis], particles.shape[1], 1)
        moved = simulator.advance(particles, action, noise)
        return moved, tf.reduce_mean(emission(moved), 1)

    errors = []
    for h in range(1, max(horizons) + 1):
        action = np.tile(episodes.sequences.controls[start + h], (shape[0], 1))
        key = replica_seeds([seed], "prediction", h)[0]
        particles, mean = advance(particles, tf.constant(action), key)
        if h in horizons:
            truth = environment.emission(tf.constant(episodes.states[start + h])).numpy()
            error = mean.numpy().reshape(*shape, -1).astype(np.float64) - truth
            errors.append(np.sqrt((error**2).mean((1, 2))))
    return np.stack(errors)
