"""Beliefs about the latent state of a state-space model without actions: watch, and score.

The beliefs of `control.beliefs` here only watch. Scores are ln p(x_{t+1} | x_{1:t}) as a belief
predicts it; the energy distance to a reference (Szekely and Rizzo 2013), normalised,

    (2 E|a - b| - E|a - a'| - E|b - b'|) / (2 E|a - b|),

which is 0 if two distributions are equal and 1 at most; and, where the state is known, coverage.

Shapes: clouds are [time, replicas, sequences, particles, latent].
"""

import numpy as np

from tfp_gaps._tensorflow import tf
from tfp_gaps.book.control import scoring
from tfp_gaps.models.state_space import log_likelihood, sample_latents
from tfp_gaps.networks import replica_normal, replica_seeds, split_seeds


class ModelWorld:
    """A state-space model without controls as an environment, for `beliefs.BootstrapFilter`."""

    def __init__(self, model):
        self.model = model
        self.state_size = self.noise_size = model.latent_size

    def initial(self, noise):
        """Draw z_1."""
        first = self.model.initial()
        return first.mean + first.scale * noise

    def advance(self, state, action, noise):
        """Draw z_t given z_{t-1}; there is no action."""
        del action
        later = self.model.transition(state)
        return later.mean + later.scale * noise

    def observation_log_prob(self, state, observation):
        """ln p(x_t | z_t)."""
        return log_likelihood(self.model, state, observation)


def simulate(model, num_timesteps, num_sequences, *, seed):
    """Draw from p(z, x): states and observations, each [time, replicas, sequences, channels]."""
    seeds = replica_seeds([seed] * model.num_replicas, "simulated")
    noise_seeds, sensor_seeds = split_seeds(seeds, 2)
    noise = replica_normal([num_timesteps, num_sequences, model.latent_size], noise_seeds)
    states = sample_latents(model, tf.transpose(noise, [1, 0, 2, 3]))
    return states.numpy(), model.emission(states).sample(seed=sensor_seeds[0]).numpy()


def next_step(model, clouds, observations, *, seed):
    """ln p(x_{t+1} | x_{1:t}) when p(z_t | x_{1:t}) is what a cloud says, nats per step.

    The cloud is moved by the model and the observation's density averaged over it. With M particles
    the logarithm is too low by about half its variance; all beliefs are given the same M.

    Args:
      model: state-space model without controls.
      clouds: {name: clouds from `scoring.Watch.follow`}.
      observations: [time, replicas, sequences, channels].
      seed: int; the same noise moves all clouds.

    Returns:
      {name: float64 [time - 1, replicas, sequences]}.
    """

    @tf.function(jit_compile=True)
    def score(cloud, observation, key):
        particles = tf.transpose(cloud, [2, 0, 1, 3])
        noise = tf.random.stateless_normal(particles.shape, key, alg="philox")
        later = model.transition(particles)
        log_prob = log_likelihood(model, later.mean + later.scale * noise, observation)
        return tf.reduce_logsumexp(log_prob, 0) - np.log(particles.shape[0])

    x = tf.constant(observations, tf.float32)
    keys = [replica_seeds([seed], "next", t)[0] for t in range(len(x) - 1)]
    return {
        name: np.stack(
            [score(cloud[t], x[t + 1], key).numpy() for t, key in enumerate(keys)]
        ).astype(np.float64)
        for name, cloud in clouds.items()
    }


def energy_coefficients(clouds, reference, *, num_particles=100):
    """Normalised energy distance of clouds from a reference; see the module.

    Expectations are over time and sequences too, and unbiased, so that equal distributions give
    zero up to noise of either sign.

    Args:
      clouds: {name: clouds from `scoring.Watch.follow`}.
      reference: clouds of the reference, from a seed of their own.
      num_particles: of each that are compared in pairs.

    Returns:
      {name: float64 [replicas]}.
    """
    count = min(num_particles, reference.shape[3])
    # Pairs of a particle with itself are zero and do not count.
    own = count / (count - 1)

    @tf.function(jit_compile=True)
    def distance(a, b):
        between = tf.norm(a[..., tf.newaxis, :] - b[..., tf.newaxis, :, :], axis=-1)
        return tf.reduce_mean(between, [1, 2, 3])

    def mean_distance(a, b):
        rows = zip(a[..., :count, :], b[..., :count, :], strict=True)
        return np.mean([distance(x, y).numpy() for x, y in rows], 0, dtype=np.float64)

    spread = own * mean_distance(reference, reference)
    found = {}
    for name, cloud in clouds.items():
        within = own * mean_distance(cloud, cloud)
        found[name] = 1 - (within + spread) / (2 * mean_distance(cloud, reference))
    return found


def coverage(clouds, states):
    """Share of known states inside the 50 and 90 % sets of `scoring`: [levels, replicas].

    Args:
      clouds: from `scoring.Watch.follow`.
      states: [time, replicas, sequences, latent].
    """
    return scoring.calibrate(_Latents, clouds, states).coverage


class _Latents:
    """An environment for `scoring.calibrate` whose sensor shows the latent state itself."""

    @staticmethod
    def emission(states):
        return states

    @staticmethod
    def deviation(cloud, points):
        return points - cloud.mean(-2, keepdims=True)
