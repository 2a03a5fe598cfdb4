"""Filtering and prediction with a generative model alone, without its inference network.

A bootstrap particle filter needs p only, so it treats models that were trained with different
conditions alike. Its estimate of p(x_{1:T}) is unbiased; the logarithm is therefore biased
downwards, by about half its variance (`tfp.experimental.mcmc.particle_filter` does the work).
"""

import math
from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks
from tfp_gaps._tensorflow import HAS_GPU, tf, tfp
from tfp_gaps.models.state_space import step
from tfp_gaps.networks import replica_normal, replica_seeds

tfd = tfp.distributions


class Filtered(NamedTuple):
    """What a particle filter returns.

    log_increments: ln p(x_t | x_{1:t-1}), float64 [time, replicas, sequences], nats per step.
    particles: an equally weighted sample of p(z_t | x_{1:t}) at the last step,
      [particles, replicas, sequences, latent].
    """

    log_increments: np.ndarray
    particles: tf.Tensor


def particle_filter(model, observations, *, num_particles, seed, particles_at_once=25_000):
    """Run a bootstrap particle filter over x_{1:T}.

    Args:
      model: state-space model without controls.
      observations: [time, sequences, channels]; every replica sees the same.
      num_particles: at least 2; 1000 for tables.
      seed: int.
      particles_at_once: particles of all sequences of a replica together; bounds the memory.

    Returns:
      `Filtered`.

    Raises:
      ValueError: for wrong shapes or fewer than 2 particles.
    """
    _checks.integer(num_particles, "num_particles", minimum=2)
    observations = _checks.finite_array(observations, "observations", ndim=3)
    run = tf.function(_filter, jit_compile=HAS_GPU)
    total = observations.shape[1]
    num_batches = math.ceil(total * num_particles / particles_at_once)
    # Batches of one size: each further size costs a tracing of its own.
    size = math.ceil(total / num_batches)
    parts = []
    for index, start in enumerate(range(0, total, size)):
        batch = tf.cast(observations[:, start : start + size], tf.float32)
        batch = tf.repeat(batch[:, tf.newaxis], model.num_replicas, axis=1)
        parts.append(run(model, batch, num_particles, tf.constant([seed, index], tf.int32)))
    increments, last = (tf.concat(part, 2) for part in zip(*parts, strict=True))
    return Filtered(increments.numpy().astype(np.float64), last)


def _filter(model, observations, num_particles, seed):
    first = model.initial()
    shape = [model.num_replicas, observations.shape[2], model.latent_size]
    prior = tfd.Independent(
        tfd.Normal(tf.broadcast_to(first.mean, shape), tf.broadcast_to(first.scale, shape)), 1
    )
    filter_seed, final_seed = tf.unstack(tfp.random.split_seed(seed, 2))
    particles, log_weights, _, increments = tfp.experimental.mcmc.particle_filter(
        observations,
        initial_state_prior=prior,
        transition_fn=lambda _, z: tfd.Independent(tfd.Normal(*model.transition(z)), 1),
        observation_fn=lambda _, z: model.emission(z),
        num_particles=num_particles,
        seed=filter_seed,
    )
    parents = tfp.experimental.mcmc.resample_systematic(
        log_weights[-1], num_particles, (), seed=final_seed
    )
    return increments, _take(particles[-1], parents)


def _take(particles, parents):
    """Select particles [particles, ...batch, latent] by index [particles, ...batch]."""
    index = tf.broadcast_to(parents[..., tf.newaxis], particles.shape)
    return tf.experimental.numpy.take_along_axis(particles, index, axis=0)


def continue_from(model, particles, *, num_steps, seed):
    """Roll the model forward from filtered particles.

    Args:
      model: state-space model without controls.
      particles: sample of p(z_t | x_{1:t}), [particles, replicas, sequences, latent].
      num_steps: how many steps to predict.
      seed: int.

    Returns:
      mean: E[x_{t+h} | z_{t+h}] along each path, [num_steps, particles, replicas, sequences,
      channels].
    """
    _checks.integer(num_steps, "num_steps", minimum=1)
    means, latent = [], particles
    for h in range(num_steps):
        seeds = replica_seeds([seed], "prediction", h)
        noise = tf.reshape(replica_normal([tf.size(latent)], seeds), tf.shape(latent))
        latent = step(model, latent, noise)
        means.append(model.emission(latent).mean())
    return tf.stack(means)
