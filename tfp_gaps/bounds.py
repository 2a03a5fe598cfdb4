"""Lower bounds on the evidence ln p(x) from draws of q, of sequences and of static models.

    ELBO    = E_q ln w,            w = p(x, z) / q(z | x)
    IWAE-K  = E ln 1/K sum_j w_j,  w_1..w_K from independent draws

ELBO <= IWAE-K <= ln p(x), and IWAE-K rises with K (Burda, Grosse, Salakhutdinov 2016). The ELBO of
a state-space model is summed over steps,

    E_q sum_t ln p(x_t | z_t) - KL(q(z_t | z_{t-1}, C_t) || p(z_t | z_{t-1})),

with the divergence computed exactly at each step, given the draw of the step before. Values are
nats per sequence; those of static models, at the end, nats per datum.
"""

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from tfp_gaps import _checks
from tfp_gaps._tensorflow import compiles, tf
from tfp_gaps.estimate import Estimate
from tfp_gaps.models.state_space import log_likelihood
from tfp_gaps.networks import for_replicas, replica_normal, replica_seeds
from tfp_gaps.posteriors import families
from tfp_gaps.posteriors.own import with_posterior


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


def importance_log_weights(model, posterior, batch, noise):
    """Make K paths per sequence of noise and return ln p(x, z) - ln q(z | x).

    Args:
      model, posterior, batch: as in `elbo_terms`.
      noise: standard normal [time, replicas, K * batch, latent], a path of each sequence after the
        other.

    Returns:
      log_weights: [K, replicas, batch], nats.
    """
    replicas, size = batch.observations.shape[1:3]
    num_samples = noise.shape[2] // size

    def tile(tensor):
        return tf.tile(tensor, [1, 1, num_samples, 1])

    context, tiled = tile(posterior.context(batch)), batch.map(tile)
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
    jit_compile=None,
):
    """Evidence lower bound of each sequence under each replica.

        ELBO(x) = E_q sum_t ln p(x_t | z_t) - KL(q(z_t | z_{t-1}, C_t) || p(z_t | z_{t-1}))

    Args:
      model: state-space model.
      posterior: q, as in `elbo_terms`.
      sequences: `Sequences`, or a bare array [time, sequences, channels]; every replica sees
        the same. Missing values do not count.
      seed: int, of the draws from q.
      repetitions: draws of the whole path per sequence.
      batch_size: sequences evaluated at once; bounds the memory.
      jit_compile: compile with XLA. On a CPU compiling costs more time and memory than one
        evaluation saves, so None does it only where there is a GPU.

    Returns:
      A `Profile`, nats per sequence and per step.

    Raises:
      ValueError: for wrong shapes, NaN observations, or counts below one.

    >>> from tfp_gaps.models.state_space import StateSpace
    >>> from tfp_gaps.posteriors.conditions import LookAhead
    >>> from tfp_gaps.posteriors.look_ahead import LookAheadNetwork
    >>> sizes = {"observation_size": 3, "latent_size": 2, "hidden_size": 8}
    >>> model = StateSpace(**sizes, emission="normal", seeds=replica_seeds([0], "model"))
    >>> q = LookAheadNetwork(conditions=LookAhead(0), **sizes, seeds=replica_seeds([0], "q"))
    >>> profile = elbo(model, q, np.zeros([5, 4, 3]), seed=0)
    >>> profile.divergence.shape, profile.bound.per_sequence().shape
    ((5, 1, 4), (1, 4))
    """
    model, posterior, sequences = _take(
        model, posterior, sequences, seed, "elbo(model, posterior, sequences)"
    )
    _checks.integer(repetitions, "repetitions", minimum=1)

    @tf.function(jit_compile=compiles(jit_compile))
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
    jit_compile=None,
):
    """Importance-weighted bound with K paths per sequence.

        IWAE-K(x) = E ln 1/K sum_j p(x, z^j) / q(z^j | x)

    Args:
      model, posterior, sequences, seed, repetitions, jit_compile: as in `elbo`.
      num_samples: K >= 1.
      paths_at_once: paths evaluated at once; bounds the memory. Four times as many where they are
        of one sequence alone, which are slow in small parts.

    Returns:
      A `Bound`, nats per sequence.

    Raises:
      ValueError: for K < 1, wrong shapes or NaN observations.

    >>> from tfp_gaps.models.state_space import StateSpace
    >>> from tfp_gaps.posteriors.conditions import LookAhead
    >>> from tfp_gaps.posteriors.look_ahead import LookAheadNetwork
    >>> sizes = {"observation_size": 3, "latent_size": 2, "hidden_size": 8}
    >>> model = StateSpace(**sizes, emission="normal", seeds=replica_seeds([0], "model"))
    >>> q = LookAheadNetwork(conditions=LookAhead(0), **sizes, seeds=replica_seeds([0], "q"))
    >>> iwae(model, q, np.zeros([5, 4, 3]), num_samples=10, seed=0).per_sequence().shape
    (1, 4)
    """
    model, posterior, sequences = _take(
        model, posterior, sequences, seed, "iwae(model, posterior, sequences)"
    )
    advice = "K = 1 is a one-sample ELBO; use 100 for tables."
    k = _checks.integer(num_samples, "num_samples", minimum=1, advice=advice)
    _checks.integer(repetitions, "repetitions", minimum=1)
    batch_size = max(1, paths_at_once // k)

    @tf.function(jit_compile=compiles(jit_compile))
    def draw(num_timesteps, size, seeds):
        return replica_normal([num_timesteps, k * size, model.latent_size], seeds, axis=1)

    @tf.function(jit_compile=compiles(jit_compile))
    def log_weights(batch, noise):
        return importance_log_weights(model, posterior, batch, noise)

    def value(batch, seeds):
        num_timesteps, _, size, _ = batch.observations.shape
        noise = draw(num_timesteps, size, seeds)
        # One sequence with more paths than allowed comes in parts of about one length.
        length = size * math.ceil(k / math.ceil(k * size / (4 * paths_at_once)))
        parts = [
            log_weights(batch, noise[:, :, first : first + length])
            for first in range(0, k * size, length)
        ]
        return log_mean_exp(tf.concat(parts, 0)).numpy().astype(np.float64)

    values = []
    for index, batch in enumerate(batches(sequences, model.num_replicas, batch_size)):
        streams = range(index * repetitions, (index + 1) * repetitions)
        seeds = [replica_seeds([seed] * model.num_replicas, "iwae", stream) for stream in streams]
        values.append(np.stack([value(batch, s) for s in seeds]))
    return Bound(np.concatenate(values, axis=-1))


def _take(model, posterior, sequences, seed, order):
    """All three as the library uses them; refuse another order, and seeds that are no integers."""
    _checks.seed(seed)
    return with_posterior(model, posterior, sequences, order)


def batches(sequences, num_replicas, batch_size):
    """Yield `batch_size` sequences at a time as `networks.for_replicas` shows them."""
    for start in range(0, len(sequences), batch_size):
        now = slice(start, start + batch_size)
        yield for_replicas(sequences.batch.map(lambda part, now=now: part[:, now]), num_replicas)


# --- bounds from the log weights of draws ---------------------------------------------------------

_EQUAL = 1e-4
"""Log weights in single precision that differ by less may be equal, nats."""

_FEWEST_FOR_TAIL = 25
_FEWEST_WEIGHTS = 100
"""Of which k-hat is judged: a tail of the largest twenty, known to 0.3."""
LARGEST_K = 0.7
"""Above it, neither an estimate nor its error can be trusted (Vehtari et al. 2024)."""


@dataclass(frozen=True, eq=False)
class Bounds:
    """Bounds on ln p(x) from K independent draws of q per datum: float64 arrays [*batch], nats.

        ELBO   = E ln w,                w = p(x, z) / q(z | x)
        IWAE-K = E ln 1/K sum_j w_j

    Made by `Bounds.from_log_weights`. A datum for which a draw gave no number has NaN everywhere:
    it is not left out.

    log_weights: ln w, float64 [K, *batch].

    >>> found = Bounds.from_log_weights(np.log([1.0, 1.0, 2.0]))
    >>> found.elbo.round(3).item(), found.iwae.round(3).item(), found.effective_size.round(3).item()
    (0.231, 0.288, 2.667)
    """

    log_weights: np.ndarray

    @classmethod
    def from_log_weights(cls, log_weights):
        """Make the bounds of ln w = ln p(x, z) - ln q(z), [K, *batch], in any precision.

        Raises:
          ValueError: for fewer than two draws, from which no error follows, and for values that
            are masked or not real.
        """
        values = _checks.real_array(log_weights, "log weights")
        if values.ndim == 0 or len(values) < 2:
            raise ValueError(
                f"log weights must be [draws, *batch] with at least 2 draws, but have shape "
                f"{values.shape}. Draw more from q; 1000 for tables."
            )
        return cls(np.where(np.isfinite(values).all(0), values, np.nan))

    @property
    def num_samples(self):
        """K."""
        return len(self.log_weights)

    @property
    def elbo(self):
        """Mean of ln w."""
        return self.log_weights.mean(0)

    @property
    def elbo_error(self):
        """Standard error of `elbo` over draws."""
        return self.log_weights.std(0, ddof=1) / np.sqrt(self.num_samples)

    @property
    def iwae(self):
        """Logarithm of the mean of w."""
        return self.log_weights.max(0) + np.log(self._relative().sum(0) / self.num_samples)

    @property
    def iwae_error(self):
        """Standard error of `iwae` over draws, by the delta method.

        sd(w) / (mean w sqrt K) = sqrt(1 / ESS - 1 / K)
        """
        return np.sqrt(np.maximum(1 / self.effective_size - 1 / self.num_samples, 0.0))

    @property
    def effective_size(self):
        """ESS = 1 / sum of squared normalised weights, between 1 and K."""
        scaled = self._relative()
        return scaled.sum(0) ** 2 / (scaled**2).sum(0)

    @functools.cached_property
    def pareto_k(self):
        """Pareto k-hat: shape of the tail of w (Vehtari et al. 2024), by ArviZ.

        Above min(1 - 1 / log10 K, 0.7) the error of IWAE-K is not to be trusted: draws that were
        not met could change the mean. -inf where the largest weights are equal, as under the exact
        posterior; inf where the others vanish beside the largest. NaN below 25 draws, and where
        many weights are tied, so that no tail can be fitted.
        """
        from arviz_stats.base import array_stats  # takes seconds that few need

        k = self.num_samples
        rows = self.log_weights.reshape(k, -1)
        found = np.full(rows.shape[1], np.nan)
        if k >= _FEWEST_FOR_TAIL:
            size = int(min(k / 5, 3 * k**0.5))  # of the tail, as the authors advise
            tail = np.sort(rows, axis=0)[-size - 1 :]  # behind the largest weight below it
            quarter = int(size / 4 + 0.5)  # of the tail, by which the fit is scaled
            vanishes = np.exp(tail[quarter] - tail[-1]) == 0.0
            flat = tail[-1] - tail[1] <= _EQUAL
            found[vanishes], found[flat] = np.inf, -np.inf
            fits = ~vanishes & ~flat & (tail[quarter] > tail[0])
            if fits.any():  # ArviZ takes ln of 1 / w, as it comes in cross-validation
                found[fits] = array_stats.psislw(-rows[:, fits], axis=0)[1]
        return found.reshape(self.log_weights.shape[1:])

    def _relative(self):
        """w relative to the largest of its datum."""
        return np.exp(self.log_weights - self.log_weights.max(0))


class Diagnostics(NamedTuple):
    """How far a bound from importance weights can be trusted, datum by datum.

    k_hat: shape of the tail of the weights, [data]; above 0.7 neither value nor error can be
      trusted. Of fewer than 100 weights NaN, or that of the q where chains start.
    effective_size: of the weights, [data].
    reliable: bool [data]: nothing speaks against it.
    doubts: {what speaks against it: bool [data]}. Of weights alone: "k-hat" above 0.7, and
      "effective size" below 10 (or half the weights, where there are fewer than 100). Chains whose
      start has a larger k-hat must have nearly equal weights, with an effective size of nine
      tenths.
    acceptance: of the moves of chains, averaged over the path, [data]; None without chains.
    """

    k_hat: np.ndarray
    effective_size: np.ndarray
    reliable: np.ndarray
    doubts: dict
    acceptance: np.ndarray | None = None

    def doubting(self, reason, where):
        """The same with one reason more, true for the data `where`, bool [data]."""
        return self._replace(
            reliable=self.reliable & ~where, doubts={**self.doubts, reason: np.asarray(where)}
        )

    def note(self):
        """`", unreliable"`, with the count of data and the reasons, or nothing."""
        return note(self.doubts)


def note(doubts):
    """ ", unreliable" with the count of data and the reasons, or nothing, of {reason: bool [data]}.

    >>> note({"k-hat": np.array([False, True]), "search": np.array([False, False])})
    ', unreliable for 1 of 2 data: k-hat'
    """
    found = [reason for reason, where in doubts.items() if np.any(where)]
    if not found:
        return ""
    where = np.any([doubts[reason] for reason in found], axis=0)
    share = "" if where.all() else f" for {where.sum()} of {len(where)} data"
    return f", unreliable{share}: {', '.join(found)}"


def diagnose(log_weights, start=None):
    """`Diagnostics` of ln w, [K, data]; `start` are those of the q from which chains started."""
    found = Bounds.from_log_weights(log_weights)
    size, enough = found.effective_size, found.num_samples >= _FEWEST_WEIGHTS
    k_hat = found.pareto_k if enough else np.full(size.shape, np.nan)
    heavy = k_hat > LARGEST_K
    if start is not None and np.isnan(k_hat).all():
        k_hat = start.k_hat
        heavy = ~((k_hat <= LARGEST_K) | (size >= 0.9 * found.num_samples))
    few = ~(size >= (10 if enough else found.num_samples / 2))
    doubts = {"k-hat": heavy, "effective size": few}
    return Diagnostics(k_hat, size, ~(heavy | few), doubts)


def tail_factor(k_hat, num_samples):
    """Factor on the error of the mean of K weights with tails of shape k: float64 [*batch].

        K^((1 - r) / 2),    r = (2 (k - 1) K^(2k + 1) + (1 - 2k) K^(2k) + K^2) /
                                ((K - 1) (K - K^(2k))),    0 <= k <= 1

    r is the rate at which the error falls with K, against the 1 of the central limit theorem
    (Vehtari et al. 2024, appendix): with heavy tails the sample variance, on which the usual
    error rests, lacks what was not drawn. 1 for no tail or an unknown one (NaN), sqrt K for k >= 1.

    >>> tail_factor(np.array([0.0, 0.5, 0.7, 1.0]), 1000).round(2)
    array([ 1.  ,  1.65,  4.35, 31.62])
    """
    k = np.clip(np.nan_to_num(k_hat, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)
    middle = np.abs(k - 0.5) < 1e-6  # a removable singularity
    k = np.where(middle, 0.25, k)
    count = float(num_samples)
    top = 2 * (k - 1) * count ** (2 * k + 1) + (1 - 2 * k) * count ** (2 * k) + count**2
    rate = top / ((count - 1) * (count - count ** (2 * k)))
    rate = np.where(middle, 1 - 1 / np.log(count), rate)
    return count ** ((1 - np.clip(rate, 0.0, 1.0)) / 2)


def interval_factor(num_samples):
    """Student's t for K samples over 1.96: widens an error for value ± 1.96 errors to cover 95 %.

    >>> interval_factor(16).round(3).item()
    1.087
    """
    return stats.t.isf(0.025, np.asarray(num_samples) - 1) / stats.norm.isf(0.025)


def negative_elbo(model, posterior):
    """The loss (batch, seeds, kl_weight) -> [replicas] of `training.fit`, nats per datum.

    `batch` is [replicas, batch, pixels]. One draw per datum; while `kl_weight` is below one the
    divergence counts for less.

    Args:
      model: `models.vae.VAE`.
      posterior: `posteriors.encoder.Posterior`.
    """

    def loss(batch, seeds, kl_weight):
        observations = tf.cast(batch, tf.float32)
        noise = replica_normal([observations.shape[1], posterior.family.num_noise], seeds)
        drawn = posterior.draw(observations, noise[tf.newaxis])
        divergence = drawn.log_density - model.log_prior(drawn.latents)
        fit = model.log_likelihood(drawn.latents, observations)
        return tf.reduce_mean(kl_weight * divergence - fit, [0, 2])

    return loss


def evaluate_static(
    model,
    family,
    parameters,
    observations,
    *,
    num_samples,
    seed,
    data_at_once=100,
    draws_at_once=5000,
    jit_compile=None,
):
    """ELBO and IWAE-K of one q per datum, from the same K draws.

    Args:
      model, family, parameters: as in `families.log_weights`; parameters for all data.
      observations: [replicas or 1, data, pixels]; pixel means are allowed for Bernoulli models.
      num_samples: K, at least 2.
      seed: int, of the draws.
      data_at_once, draws_at_once: data per call, and draws (data times samples) per call; they
        bound the memory of a call. What stays are the log weights, one number per draw.
      jit_compile: as in `elbo`.

    Returns:
      `Bounds` with fields [replicas, data], nats per datum.

    Raises:
      ValueError: for K < 2, NaN observations, or shapes that do not fit.
    """
    k = _checks.integer(num_samples, "num_samples", minimum=2, advice="Use 1000 for tables.")
    observations = families.check_observations(observations, model, parameters)

    @tf.function(jit_compile=compiles(jit_compile))
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
        parts.append(np.concatenate(drawn))
    return Bounds.from_log_weights(np.concatenate(parts, axis=-1))
