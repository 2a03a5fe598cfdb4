"""Lower bounds on the evidence ln p(x) of a static model, datum by datum.

    ELBO    = E_q ln w,              w = p(x, z) / q(z | x)
    IWAE-K  = E ln 1/K sum_j w_j,    w_1..w_K independent                (Burda et al. 2016)

Both come from the same K draws. IWAE-K is a lower bound in expectation whose slack falls with K;
its error over draws follows from the effective sample size 1 / sum of squared normalised weights,

    se(ln mean w) ~ sd(w) / (mean w sqrt K) = sqrt(1 / ESS - 1 / K)      (delta method).

Everything is in nats per datum.
"""

from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks
from tfp_gaps._tensorflow import HAS_GPU, tf
from tfp_gaps.networks import replica_normal, replica_seeds
from tfp_gaps.posteriors import families


class Bounds(NamedTuple):
    """Bounds from K draws per datum, float64 [replicas, data], nats.

    elbo, elbo_error: mean of ln w and its standard error over draws.
    iwae, iwae_error: ln of the mean of w and its standard error by the delta method.
    effective_size: of K draws, between 1 and K.
    num_samples: K.

    A datum for which a draw gave no number has NaN in every field: it is not left out.
    """

    elbo: np.ndarray
    elbo_error: np.ndarray
    iwae: np.ndarray
    iwae_error: np.ndarray
    effective_size: np.ndarray
    num_samples: int


def negative_elbo(model, posterior):
    """The loss (batch, seeds, kl_weight) -> [replicas] of `training.fit`, nats per datum.

    `batch` is [replicas, batch, pixels]. One draw per datum; while `kl_weight` is below one the
    divergence counts for less.
    """

    def loss(batch, seeds, kl_weight):
        observations = tf.cast(batch, tf.float32)
        noise = replica_normal([observations.shape[1], posterior.family.num_noise], seeds)
        drawn = posterior.draw(observations, noise[tf.newaxis])
        divergence = drawn.log_density - model.log_prior(drawn.latents)
        fit = model.log_likelihood(drawn.latents, observations)
        return tf.reduce_mean(kl_weight * divergence - fit, [0, 2])

    return loss


def evaluate(
    model,
    family,
    parameters,
    observations,
    *,
    num_samples,
    seed,
    data_at_once=100,
    draws_at_once=5000,
    jit_compile=HAS_GPU,
):
    """ELBO and IWAE-K of one q per datum, from the same K draws.

    Args:
      model, family, parameters: as in `families.log_weights`; parameters for all data.
      observations: [replicas or 1, data, pixels]; pixel means are allowed for Bernoulli models.
      num_samples: K, at least 2.
      seed: int, of the draws.
      data_at_once, draws_at_once: data per call, and draws (data times samples) per call; they
        bound the memory.
      jit_compile: compile with XLA.

    Returns:
      `Bounds`.

    Raises:
      ValueError: for K < 2, NaN observations, or shapes that do not fit.
    """
    k = _checks.integer(num_samples, "num_samples", minimum=2, advice="Use 1000 for tables.")
    observations = families.check_observations(observations, model, parameters)

    @tf.function(jit_compile=jit_compile)
    def weights_of(part, own, seeds, size):
        shape = [size, part.shape[1], family.num_noise]
        noise = tf.transpose(replica_normal(shape, seeds), [1, 0, 2, 3])
        return families.log_weights(model, family, own, part, noise)

    parts = []
    for start in range(0, observations.shape[1], data_at_once):
        part = observations[:, start : start + data_at_once]
        own = parameters.select(start, start + data_at_once)
        size = min(k, max(1, draws_at_once // part.shape[1]))
        drawn = [
            weights_of(
                part,
                own,
                replica_seeds([seed] * model.num_replicas, f"bounds {start}", first),
                min(size, k - first),
            ).numpy()
            for first in range(0, k, size)
        ]
        parts.append(summarise(np.concatenate(drawn))[:-1])
    return Bounds(*(np.concatenate(field, axis=-1) for field in zip(*parts, strict=True)), k)


def summarise(log_weights):
    """`Bounds` from ln w of independent draws, [K, replicas, data]."""
    k, values = len(log_weights), np.asarray(log_weights, np.float64)
    values = np.where(np.isfinite(values).all(0), values, np.nan)
    largest = values.max(0)
    scaled = np.exp(values - largest)
    total, squares = scaled.sum(0), (scaled**2).sum(0)
    effective = total**2 / squares
    return Bounds(
        values.mean(0),
        values.std(0, ddof=1) / np.sqrt(k),
        largest + np.log(total / k),
        np.sqrt(np.maximum(1 / effective - 1 / k, 0.0)),
        effective,
        k,
    )
