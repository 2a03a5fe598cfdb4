"""Exact answers about remedies: what refinement buys, when there is no gap to close, and what a
spare latent dimension leaves open.

In a factor model the ELBO of a Gaussian is quadratic in its mean m, with gradient

    g = W' diag(noise^-2) (x - b - W m) - m = L (m* - m),

so that steps m + M g with one matrix M for all data can be compared with plain ones, M = rate I
(learned steps: Marino, Yue and Mandt 2018).

The conditioning gap of a chain is zero if what comes later says nothing new about z_t: if the
sensor shows the state, or if nothing happens to a state that was known at the start. Neither limit
is reached evenly, which a sweep shows.

A model with a spare dimension can be a filter in disguise and lose no likelihood (Hafner et al.
2019 build one in). What it says about the *signal* C z_t behind the noise is another matter:
`signal_coverage` asks how often the truth lies in the interval that the model claims.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from tfp_gaps import _checks
from tfp_gaps.estimate import Estimate
from tfp_gaps.exact import linear_gaussian as exact
from tfp_gaps.exact.factor_analysis import FactorAnalysis


def refinement(*, num_steps, num_data, seed, num_observations=8, num_latents=3):
    """Refine the mean of a factorised q by its gradient, from one answer for all data.

    Args:
      num_steps: gradient evaluations.
      num_data: data that are refined, and as many others from which the step is learned.
      seed: of the model and the data.
      num_observations, num_latents: of the factor model.

    Returns:
      dict of "gradient" and "learned step", float64 [num_steps + 1, data], how far the ELBO is
      below the best factorised q's, nats; and "approximation", the gap of that q.

    Raises:
      ValueError: for counts below one.

    >>> found = refinement(num_steps=3, num_data=50, seed=0)
    >>> bool(found["learned step"][1].max() < 1e-9 < found["gradient"][3].min())
    True
    """
    _checks.integer(num_steps, "num_steps", minimum=1)
    model = FactorAnalysis.random(num_observations, num_latents, seed)
    others, x = (model.sample(num_data, seed + number)[1] for number in (1, 2))
    # The rate at which the steepest direction of the quadratic is not overshot.
    rate = 1 / np.linalg.eigvalsh(model.posterior_precision())[-1]
    steps = {
        "gradient": rate * np.eye(num_latents),
        "learned step": _learn_step(model, others, rate),
    }
    means, sds = model.best_factorised(x)
    best = model.elbo(x, means, sds=sds)
    found = {"approximation": model.approximation_gap()}
    for name, step in steps.items():
        mean, below = np.zeros_like(means), []
        for _ in range(num_steps + 1):
            below.append(best - model.elbo(x, mean, sds=sds))
            mean = mean + _gradient(model, x, mean) @ step.T
        found[name] = np.stack(below)
    return found


def _gradient(model, x, mean):
    """Of the ELBO with respect to the mean of q, [data, latents]."""
    scaled = model.loadings / model.noise[:, np.newaxis] ** 2
    return (x - model.offset - mean @ model.loadings.T) @ scaled - mean


def _learn_step(model, x, rate):
    """The step after which no gradient is left, from gradients before and after a plain step.

    The change of a gradient is -rate L times the gradient: least squares finds L.
    """
    start = np.zeros([len(x), model.num_latents])
    before = _gradient(model, x, start)
    after = _gradient(model, x, start + rate * before)
    curvature = np.linalg.lstsq(rate * before, before - after, rcond=None)[0].T
    return np.linalg.inv(curvature)


def gap_map(process, sensor, *, memory, num_timesteps, initial=None, lookahead=0):
    """Conditioning gap at the true parameters over process and sensor noise.

    Args:
      process: variances Q > 0 of the transition.
      sensor: variances R > 0 of the observation.
      memory: a of z_t = a z_{t-1} + noise.
      num_timesteps: T.
      initial: variance of z_1; None for the stationary one.
      lookahead: k >= 0.

    Returns:
      float64 [process, sensor], nats per step.

    Raises:
      ValueError: for variances that are not positive, or a stationary start with |a| >= 1.

    >>> gaps = gap_map([0.1], [1.0], memory=0.9, num_timesteps=8)
    >>> gaps.round(4).tolist()
    [[0.094]]
    """
    _checks.integer(num_timesteps, "num_timesteps", minimum=1)

    def gap(q, r):
        if initial is None:
            chain = exact.LinearGaussian.stationary(memory, q, 1.0, r)
        else:
            chain = exact.LinearGaussian(memory, q, 1.0, r, initial)
        return exact.conditioning_gap(chain, num_timesteps, lookahead) / num_timesteps

    return np.array([[gap(q, r) for r in sensor] for q in process])


class SignalBelief(NamedTuple):
    """What a model's q says about the signal C z_t, the observation without its noise.

    coverage: how often the central interval holds the true signal, an `Estimate` over sequences.
    claimed: mean standard deviation that q claims.
    error: root mean squared distance of q's mean from the true signal.
    """

    coverage: Estimate
    claimed: float
    error: float


def signal_belief(
    world, model, *, num_timesteps, lookahead, level=0.9, num_sequences=2000, seed=0, first=2
):
    """Run a model's best q online on sequences of the true chain and judge it by the signal.

    Args:
      world: `exact.LinearGaussian`, the truth, with one observation channel.
      model: `exact.LinearGaussian`, for instance learned; any number of states.
      num_timesteps: T.
      lookahead: of q. Under full conditions the exact filter of the model is taken instead, for a
        smoother cannot run online.
      level: of the interval.
      num_sequences, seed: of the data.
      first: steps at the beginning that are left out.

    Returns:
      `SignalBelief`.

    Raises:
      ValueError: for a level outside (0, 1), or counts below one.
    """
    _checks.level(level)
    states, x = exact.sample(world, num_timesteps, num_sequences, seed)
    signal = (states @ world.emission.T)[first:, :, 0]
    if lookahead is None:
        _, means, covariances = exact.kalman_filter(model, x)
    else:
        factors = exact.shared_factors(world, model, num_timesteps, lookahead)
        means, covariances = exact.factor_marginals(factors, x)
    mean = (means @ model.emission.T)[first:, :, 0]
    variance = np.einsum("i,tij,j->t", model.emission[0], covariances, model.emission[0])[first:]
    # Rounding can leave a variance of zero a little below it.
    scale = np.sqrt(np.maximum(variance, 0.0))
    inside = np.abs(signal - mean) <= stats.norm.ppf(0.5 + level / 2) * scale[:, np.newaxis]
    return SignalBelief(
        Estimate.from_samples(inside.mean(0), kind="data points"),
        float(scale.mean()),
        float(np.sqrt(np.mean((signal - mean) ** 2))),
    )
