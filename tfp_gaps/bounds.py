"""Lower bounds on the evidence ln p(x_{1:T}) of a state-space model.

    ELBO    = E_q sum_t ln p(x_t | z_t) - KL(q(z_t | z_{t-1}, C_t) || p(z_t | z_{t-1}))
    IWAE-K  = E ln 1/K sum_j p(x, z^j) / q(z^j | x),   z^1..z^K independent draws from q

ELBO <= IWAE-K <= ln p(x), and IWAE-K rises with K (Burda, Grosse, Salakhutdinov 2016). The
divergence inside the ELBO is computed exactly at each step, given the draw of the step before.
All values are nats per sequence.
"""

import math
from dataclasses import dataclass

import numpy as np

from tfp_gaps import _checks
from tfp_gaps._tensorflow import HAS_GPU, tf
from tfp_gaps.estimate import Estimate
from tfp_gaps.models.state_space import log_likelihood
from tfp_gaps.networks import for_replicas, replica_normal, replica_seeds
from tfp_gaps.sequences import as_sequences


@dataclass(frozen=True)
class Bound:
    """A bound evaluated `repetitions` times on the same sequences.

    values: float64 [repetitions, replicas, sequences], nats per sequence.
    """

    values: np.ndarray

    def per_sequence(self):
        """Average over repetitions: float64 [replicas, sequences]."""
        return self.values.mean(axis=0)

    def estimate(self, replica=0):
        """Mean over sequences with its standard error over data points, as an `Estimate`."""
        return Estimate.from_samples(self.per_sequence()[replica], kind="data points")

    def monte_carlo_error(self, replica=0):
        """Standard error of the mean over these same sequences from the draws of q alone, in nats.

        Needs two repetitions at least.
        """
        means = self.values[:, replica].mean(axis=-1)
        if len(means) < 2:
            raise ValueError(
                "the Monte Carlo error needs at least 2 repetitions of the bound, but it was "
                "evaluated once. Pass repetitions=2 or more."
            )
        return float(means.std(ddof=1) / math.sqrt(len(means)))


def elbo_terms(model, posterior, batch, noise):
    """One draw of the ELBO, step by step.

    Args:
      model: state-space model.
      posterior: `LookAheadNetwork`, or what has its methods `context` and `sample_path`.
      batch: `sequences.Batch` of tensors [time, replicas, batch, channels].
      noise: standard normal [time, replicas, batch, latent].

    Returns:
      log_likelihood: ln p(x_t | z_t) of what is observed, [time, replicas, batch].
      divergence: KL(q_t || p_t), [time, replicas, batch].
    """
    path = posterior.sample_path(model, posterior.context(batch), noise, controls=batch.controls)
    return log_likelihood(model, path.latents, batch.observations, batch.mask), path.divergence


def importance_log_weights(model, posterior, batch, seeds, *, num_samples):
    """Draw K paths per sequence and return ln p(x, z) - ln q(z | x).

    Args:
      model, posterior, batch: as in `elbo_terms`.
      seeds: int32 [num_replicas, 2].
      num_samples: K.

    Returns:
      log_weights: [K, replicas, batch], nats.
    """
    time, replicas, size = batch.observations.shape[:3]

    def tile(tensor):
        return tf.tile(tensor, [1, 1, num_samples, 1])

    context, tiled = tile(posterior.context(batch)), batch.map(tile)
    noise = replica_normal([time, num_samples * size, model.latent_size], seeds, axis=1)
    path = posterior.sample_path(model, context, noise, controls=tiled.controls)
    fit = log_likelihood(model, path.latents, tiled.observations, tiled.mask)
    total = tf.reduce_sum(fit + path.log_weight, 0)
    return tf.transpose(tf.reshape(total, [replicas, num_samples, size]), [1, 0, 2])


def log_mean_exp(log_weights, axis=0):
    """ln of the mean of exp(log_weights), without overflow."""
    count = tf.cast(tf.shape(log_weights)[axis], log_weights.dtype)
    return tf.reduce_logsumexp(log_weights, axis) - tf.math.log(count)


@dataclass(frozen=True)
class Profile:
    """The ELBO step by step, averaged over repetitions, float64 [time, replicas, sequences].

    log_likelihood: ln p(x_t | z_t) at the draw of q.
    divergence: KL(q_t || p_t) at the draw of the step before.
    values: the ELBO per repetition, [repetitions, replicas, sequences].
    """

    log_likelihood: np.ndarray
    divergence: np.ndarray
    values: np.ndarray

    @property
    def bound(self):
        """The ELBO as a `Bound`."""
        return Bound(self.values)


def elbo(
    model,
    posterior,
    sequences,
    *,
    seed,
    repetitions=1,
    batch_size=500,
    jit_compile=HAS_GPU,
):
    """Evidence lower bound of each sequence under each replica.

        ELBO(x) = E_q sum_t ln p(x_t | z_t) - KL(q(z_t | z_{t-1}, C_t) || p(z_t | z_{t-1}))

    Args:
      model: state-space model.
      posterior: q, as in `elbo_terms`.
      sequences: `data.Sequences`, or a bare array [time, sequences, channels]; every replica sees
        the same. Missing values do not count.
      seed: int, of the draws from q.
      repetitions: draws of the whole path per sequence.
      batch_size: sequences evaluated at once; bounds the memory.
      jit_compile: compile with XLA. On a CPU compiling costs more time and memory than one
        evaluation saves, so it is on by default only where there is a GPU.

    Returns:
      A `Profile`, nats per sequence and per step.

    Raises:
      ValueError: for wrong shapes, NaN observations, or counts below one.
    """
    sequences = as_sequences(sequences)
    _checks.integer(repetitions, "repetitions", minimum=1)

    @tf.function(jit_compile=jit_compile)
    def terms(batch, seeds):
        time, _, size, _ = batch.observations.shape
        noise = replica_normal([time, size, model.latent_size], seeds, axis=1)
        return elbo_terms(model, posterior, batch, noise)

    parts = []
    for index, batch in enumerate(batches(sequences, model.num_replicas, batch_size)):
        draws = []
        for repetition in range(repetitions):
            stream = index * repetitions + repetition
            seeds = replica_seeds([seed] * model.num_replicas, "elbo", stream)
            draws.append([tensor.numpy().astype(np.float64) for tensor in terms(batch, seeds)])
        log_likelihood, divergence = (np.stack(part) for part in zip(*draws, strict=True))
        parts.append(
            (log_likelihood.mean(0), divergence.mean(0), (log_likelihood - divergence).sum(1))
        )
    return Profile(*(np.concatenate(part, axis=-1) for part in zip(*parts, strict=True)))


def iwae(
    model,
    posterior,
    sequences,
    *,
    num_samples,
    seed,
    repetitions=1,
    paths_at_once=2500,
    jit_compile=HAS_GPU,
):
    """Importance-weighted bound with K paths per sequence.

        IWAE-K(x) = E ln 1/K sum_j p(x, z^j) / q(z^j | x)

    Args:
      model, posterior, sequences, seed, repetitions, jit_compile: as in `elbo`.
      num_samples: K >= 1.
      paths_at_once: paths evaluated at once; bounds the memory.

    Returns:
      A `Bound`, nats per sequence.

    Raises:
      ValueError: for K < 1, wrong shapes or NaN observations.
    """
    sequences = as_sequences(sequences)
    advice = "K = 1 is a one-sample ELBO; use 100 for tables."
    k = _checks.integer(num_samples, "num_samples", minimum=1, advice=advice)
    _checks.integer(repetitions, "repetitions", minimum=1)
    batch_size = max(1, paths_at_once // k)

    @tf.function(jit_compile=jit_compile)
    def bound(batch, seeds):
        return log_mean_exp(importance_log_weights(model, posterior, batch, seeds, num_samples=k))

    values = []
    for index, batch in enumerate(batches(sequences, model.num_replicas, batch_size)):
        streams = range(index * repetitions, (index + 1) * repetitions)
        seeds = [replica_seeds([seed] * model.num_replicas, "iwae", stream) for stream in streams]
        values.append(np.stack([bound(batch, s).numpy().astype(np.float64) for s in seeds]))
    return Bound(np.concatenate(values, axis=-1))


def batches(sequences, num_replicas, batch_size):
    """Yield `batch_size` sequences at a time as `networks.for_replicas` shows them."""
    for start in range(0, len(sequences), batch_size):
        now = slice(start, start + batch_size)
        yield for_replicas(sequences.batch.map(lambda part, now=now: part[:, now]), num_replicas)
