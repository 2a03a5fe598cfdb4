"""Multi-step prediction with a generative model, and proper scores of it.

A filter reads x_{1:t}; its particles are rolled forward and observed,

    z_{t+h}^i ~ p(z | z_{t+h-1}^i, u_{t+h-1}),     x_{t+h}^i ~ p(x | z_{t+h}^i),     i = 1..m,

and each horizon's ensemble is scored channel by channel against what was observed. The continuous
ranked probability score of an ensemble (Gneiting and Raftery 2007) is taken in its fair form,

    CRPS = 1/m sum_i |x^i - y| - 1 / (2 m (m - 1)) sum_{i,j} |x^i - x^j|,

and the squared error without the ensemble's own noise, so that the expectation of both does not
depend on m (Ferro 2014, for members that are exchangeable and independent given the past).
"""

import math
from dataclasses import dataclass

import numpy as np

from tfp_gaps import _checks, filtering
from tfp_gaps._tensorflow import tf
from tfp_gaps.estimate import Estimate
from tfp_gaps.models.own import as_state_space
from tfp_gaps.networks import replica_seeds
from tfp_gaps.sequences import Sequences, as_sequences

LEVELS = (0.5, 0.9)
PATHS_AT_ONCE = 50_000


@dataclass(frozen=True, eq=False)
class Forecast:
    """Predictive ensembles, and what came.

    samples: float32 [horizon, particles, replicas, sequences, channels]; entry h of the first axis
      is h + 1 steps ahead.
    truth: [horizon, sequences, channels].
    mask: bool, of the shape of `truth`, True where observed; None if everything is.

    Raises:
      ValueError: for shapes that do not agree, fewer than 2 particles, or values that are not
        finite, or masked.

    >>> Forecast(np.zeros([2, 50, 1, 3, 1]), np.ones([2, 3, 1])).samples.shape
    (2, 50, 1, 3, 1)
    """

    samples: np.ndarray
    truth: np.ndarray
    mask: np.ndarray | None = None

    def __post_init__(self):
        shape = np.shape(self.samples)
        if len(shape) != 5 or np.shape(self.truth) != (shape[0], *shape[3:]) or shape[1] < 2:
            raise ValueError(
                f"samples must have shape [horizon, particles, replicas, sequences, channels] with "
                f"at least 2 particles, and truth [horizon, sequences, channels], but they have "
                f"the shapes {shape} and {np.shape(self.truth)}. Use `forecast` to make both."
            )
        if self.mask is not None and np.shape(self.mask) != np.shape(self.truth):
            raise ValueError(
                f"mask must have the shape of truth, {np.shape(self.truth)}, but has shape "
                f"{np.shape(self.mask)}. Cut both from the same steps."
            )
        for name in ("samples", "truth"):
            values = getattr(self, name)
            _checks.unmasked(
                values, name, advice="Give what was observed as `mask`, True or False."
            )
            bad = int(np.sum(~np.isfinite(values)))
            if bad:
                raise ValueError(
                    f"samples and truth must be finite, but {bad} of {np.size(values)} values of "
                    f"{name} are NaN or infinite. Report the run as diverged, or mask the data."
                )


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of a forecast, each float64 [horizon, replicas, sequences], averaged over channels.

    squared_error: of the predictive mean, in squared units of the observations.
    crps: in units of the observations.
    coverage: dict from level to the share of channels inside the central interval of that level.
    observed: bool [horizon, sequences]; the scores are 0 where nothing was observed.
    """

    squared_error: np.ndarray
    crps: np.ndarray
    coverage: dict[float, np.ndarray]
    observed: np.ndarray

    def per_horizon(self, values):
        """Mean over sequences with its error over data points, where there were observations.

        Every sequence counts alike, however many of its channels were observed. The error takes
        them for independent; windows that overlap are not.

        Args:
          values: [horizon, replicas, sequences], e.g. `self.crps`, or a difference of two scores.

        Returns:
          [replica][horizon] lists of `Estimate`.

        Raises:
          ValueError: if fewer than 2 sequences have observations at some horizon.
        """
        return [
            [
                Estimate.from_samples(row[seen], kind="data points")
                for row, seen in zip(replica, self.observed)
            ]
            for replica in np.swapaxes(values, 0, 1)
        ]

    def rmse(self):
        """Root of the mean squared error: [replica][horizon] lists of `Estimate`.

        The error follows from the mean's by the derivative of the root, se / (2 rmse).
        """
        return [[_root(mean) for mean in row] for row in self.per_horizon(self.squared_error)]


def forecast(
    model,
    sequences,
    *,
    start,
    horizon,
    num_particles,
    seed,
    num_samples=None,
    posterior=None,
):
    """Filter the first `start` steps and predict the `horizon` steps after them.

    Args:
      model: state-space model.
      sequences: `Sequences`, or a bare array [time, sequences, channels]. Controls are known, for
        the predicted steps too.
      start: number of steps that the filter reads.
      horizon: number of steps that are predicted; start + horizon <= time.
      num_particles: of the filter.
      seed: int.
      num_samples: ensemble members per sequence, at most `num_particles`; None takes all.
      posterior: proposal of the filter; None, the default, filters with the model alone, which is
        fair to models that were trained under different conditions.

    Returns:
      A `Forecast`, whose samples include the observation noise. It holds horizon * num_samples
      numbers for each observed channel of each replica: use `evaluate` for many sequences.

    Raises:
      ValueError: for a start or horizon beyond the sequences, or as `filtering.particle_filter`.

    >>> from tfp_gaps.exact.linear_gaussian import LinearGaussian
    >>> from tfp_gaps.models.state_space import LinearGaussianStateSpace
    >>> model = LinearGaussianStateSpace(LinearGaussian(0.9, 0.1, 1.0, 1.0, 0.5))
    >>> options = {"start": 3, "horizon": 2, "num_particles": 100, "seed": 0}
    >>> predicted = forecast(model, np.zeros([5, 4, 1]), **options)
    >>> predicted.samples.shape
    (2, 100, 1, 4, 1)
    >>> scores = score(predicted)
    >>> len(scores.rmse()[0])
    2
    """
    model = as_state_space(model, "forecast(model, sequences)")
    future, particles = _filter(
        model, sequences, start, horizon, num_particles, seed, num_samples, posterior
    )
    parts = _predict(model, particles, future, seed, PATHS_AT_ONCE)
    samples = np.concatenate([part.samples for part in parts], axis=3)
    return Forecast(samples, future.observations, future.mask)


def evaluate(
    model,
    sequences,
    *,
    start,
    horizon,
    num_particles,
    seed,
    num_samples=None,
    posterior=None,
    levels=LEVELS,
    channels=slice(None),
    paths_at_once=PATHS_AT_ONCE,
):
    """Score the forecasts of many sequences without keeping the ensembles.

    Args:
      model, sequences, start, horizon, num_particles, seed, num_samples, posterior: as in
        `forecast`.
      levels, channels: as in `score`.
      paths_at_once: paths of all replicas together that are rolled out at a time; bounds the memory
        to horizon * channels numbers for each.

    Returns:
      `Scores`.

    Raises:
      ValueError: as `forecast` and `score`.
    """
    model = as_state_space(model, "evaluate(model, sequences)")
    future, particles = _filter(
        model, sequences, start, horizon, num_particles, seed, num_samples, posterior
    )
    batches = _predict(model, particles, future, seed, paths_at_once)
    parts = [score(batch, levels, channels) for batch in batches]
    return Scores(
        np.concatenate([part.squared_error for part in parts], -1),
        np.concatenate([part.crps for part in parts], -1),
        {key: np.concatenate([part.coverage[key] for part in parts], -1) for key in levels},
        np.concatenate([part.observed for part in parts], -1),
    )


def score(forecast, levels=LEVELS, channels=slice(None)):
    """Score a forecast: squared error, CRPS and coverage, averaged over observed channels.

    Args:
      forecast: `Forecast`.
      levels: of the central intervals, each between 0 and 1.
      channels: which channels to average over: indices, a slice, or a single index.

    Returns:
      `Scores`.

    Raises:
      ValueError: for a level outside (0, 1), and for channels that are none of the forecast's.

    >>> members = np.random.default_rng(0).normal(size=[1, 500, 1, 200, 1])
    >>> scores = score(Forecast(members, np.zeros([1, 200, 1])))  # the truth is the mode
    >>> float(scores.crps.mean().round(2))  # of a standard normal at 0: (sqrt 2 - 1) / sqrt pi
    0.23
    """
    for level in levels:
        if not 0.0 < level < 1.0:
            raise ValueError(
                f"levels must lie between 0 and 1, but one is {level!r}. Use 0.9 for 90 %."
            )
    channels = _channels(channels, np.shape(forecast.truth)[-1])
    mask = np.ones(forecast.truth.shape, bool) if forecast.mask is None else forecast.mask
    # Horizon by horizon: sorted float64 copies of everything would be three times the ensemble.
    parts = (np.asarray(part)[..., channels] for part in (forecast.samples, forecast.truth, mask))
    rows = [
        [_average(values, seen) for values in _score_step(samples, truth, levels)]
        for samples, truth, seen in zip(*parts, strict=True)
    ]
    squared_error, crps, *covered = (np.stack(column) for column in zip(*rows, strict=True))
    return Scores(squared_error, crps, dict(zip(levels, covered)), mask[..., channels].any(-1))


def _channels(channels, count):
    """Indices of channels that there are, at least one; a slice as it is."""
    found = np.arange(count)[channels] if isinstance(channels, slice) else np.atleast_1d(channels)
    if found.dtype == bool and found.shape == (count,):
        found = np.flatnonzero(found)
    fits = found.ndim == 1 and found.size and found.dtype.kind in "iu"
    if not fits or found.min() < -count or found.max() >= count:
        raise ValueError(
            f"channels must be a slice or indices of the {count} channels, one at least, but are "
            f"{channels!r}. Give for instance [0], or leave them out for all."
        )
    return channels if isinstance(channels, slice) else found


def fan(forecast, quantiles=(0.05, 0.25, 0.5, 0.75, 0.95)):
    """Quantiles of the ensembles: [quantiles, horizon, replicas, sequences, channels]."""
    return np.quantile(forecast.samples, quantiles, axis=1)


def fair_crps(samples, truth):
    """Score an ensemble; the expectation does not depend on its size.

        1/m sum_i |x^i - y| - 1 / (2 m (m - 1)) sum_{i,j} |x^i - x^j|

    Args:
      samples: [m, ...], m >= 2.
      truth: [...].

    Returns:
      CRPS, float64 [...], in units of the observations. A single score may be negative.

    References:
      Gneiting and Raftery (2007); Ferro (2014) for the fair form.

    >>> float(fair_crps(np.array([0.0, 2.0]), np.array(1.0)))
    0.0
    """
    samples, truth = (
        _checks.real_array(*part) for part in ((samples, "samples"), (truth, "truth"))
    )
    count = len(samples)
    # Sorted, sum_{i<j} (x_j - x_i) = sum_i (2 i - m - 1) x_i for i = 1..m.
    ranks = 2.0 * np.arange(1, count + 1) - count - 1.0
    spread = np.tensordot(ranks, np.sort(samples, axis=0), 1) / (count * (count - 1))
    return np.abs(samples - truth).mean(0) - spread


def coverage(samples, truth, level):
    """Whether the central interval of an ensemble holds the truth: 0 or 1, or between at its ends.

    The rank of y among the samples, spread evenly over [rank, rank + 1) / (m + 1), is uniform if y
    and the samples are exchangeable. The share of it inside the interval therefore has the mean
    `level` exactly, for ensembles of any size, and for binary data, where ranks are tied.

    Args:
      samples: [m, ...].
      truth: [...].
      level: between 0 and 1.

    Returns:
      coverage: float64 [...].

    >>> coverage(np.arange(9.0)[:, np.newaxis], np.array([4.5, 8.5]), 0.6)
    array([1., 0.])
    """
    low = (samples < truth).sum(0) / (len(samples) + 1)
    high = ((samples <= truth).sum(0) + 1) / (len(samples) + 1)
    overlap = np.minimum(high, 0.5 + level / 2) - np.maximum(low, 0.5 - level / 2)
    return np.clip(overlap / (high - low), 0.0, 1.0)


def _score_step(samples, truth, levels):
    """Yield each score of one horizon, [replicas, sequences, channels]."""
    mean = samples.mean(0, dtype=np.float64)
    yield (mean - truth) ** 2 - samples.var(0, ddof=1, dtype=np.float64) / len(samples)
    yield fair_crps(samples, truth)
    for level in levels:
        yield coverage(samples, truth, level)


def _average(values, seen):
    """Mean of [replicas, sequences, channels] over the channels seen; 0 where there is none."""
    return np.where(seen, values, 0.0).sum(-1) / np.maximum(seen.sum(-1), 1)


def _filter(model, sequences, start, horizon, num_particles, seed, num_samples, posterior):
    """Return the steps to predict as `Sequences`, and filtered particles at the step before."""
    sequences = as_sequences(sequences)
    time = sequences.num_timesteps
    advice = f"The sequences have {time} steps: leave at least one to predict."
    start = _checks.integer(start, "start", minimum=1, maximum=time - 1, advice=advice)
    advice = f"The sequences have {time} steps, of which the filter reads {start}."
    horizon = _checks.integer(horizon, "horizon", minimum=1, maximum=time - start, advice=advice)
    _checks.integer(num_particles, "num_particles", minimum=2)
    if num_samples is not None:
        _checks.integer(num_samples, "num_samples", minimum=2, maximum=num_particles)
    particles = filtering.particle_filter(
        model,
        _between(sequences, 0, start),
        num_particles=num_particles,
        seed=seed,
        posterior=posterior,
    ).particles
    return _between(sequences, start, start + horizon), particles[:num_samples]


def _predict(model, particles, future, seed, paths_at_once):
    """Yield a `Forecast` of the steps of `future` for each batch of sequences."""
    members, replicas = particles.shape[:2]
    size = max(1, paths_at_once // (members * replicas))
    for index, first in enumerate(range(0, len(future), size)):
        now = slice(first, first + size)
        batch = future.select(now)
        # One int for each batch. Not by the index of `replica_seeds`, which leaves the first alone.
        key = int(replica_seeds([seed], f"forecast {index}")[0, 0]) & 0x7FFFFFFF
        paths = filtering.roll_out(
            model,
            particles[:, :, now],
            num_steps=batch.num_timesteps,
            seed=key,
            controls=batch.controls,
        )
        samples = [
            model.emission(latent).sample(seed=replica_seeds([key], "observation", h)[0])
            for h, latent in enumerate(paths)
        ]
        samples = np.stack([tf.cast(sample, tf.float32).numpy() for sample in samples])
        yield Forecast(samples, batch.observations, batch.mask)


def _between(sequences, first, last):
    """Steps first, ..., last - 1."""
    return Sequences(*sequences.batch.map(lambda part: part[first:last]))


def _root(mean):
    """The root of an `Estimate`, which may be 0 or, without the ensemble's noise, just below."""
    value = math.sqrt(max(mean.value, 0.0))
    error = mean.standard_error / (2.0 * value) if value > 0 else math.sqrt(mean.standard_error)
    return Estimate(value, error, mean.num_samples, mean.kind)
