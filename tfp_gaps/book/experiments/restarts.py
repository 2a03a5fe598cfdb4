"""One encoder with capacity to spare, trained to a stationary point from many starts.

The square of a latent is read with noise, and the prior is not symmetric:

    z ~ N(mu, 1),   x | z ~ N(z^2, sigma^2),

so that the posterior has two modes near +sqrt(x) and -sqrt(x), of which the former holds more. With
q = N(m, s^2) the bound is a formula, since E[z^2] = m^2 + s^2 and E[z^4] = m^4 + 6 m^2 s^2 + 3 s^4.
A network of one hidden layer maps x to m and ln s. Its mean bound over a fixed set of observations,
less a small weight decay, without which some weights would grow for ever, is maximised in float64
by BFGS, all starts side by side, so that neither noise nor an early end can be the reason for what
an end lacks. The best q of each observation is searched likewise, and the amortisation gap of an
end is the mean of what its answers lack to it. Values are nats per datum.
"""

from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks
from tfp_gaps.exact._numerics import bfgs

MEAN, NOISE = 0.5, 0.5
"""mu and sigma."""

DECAY = 1e-4
"""Times the sum of squared weights, in nats."""

TOLERANCE = 1e-5
"""A search ends when the largest entry of the gradient is below it."""

_LOG_2PI = np.log(2 * np.pi)


class Ends(NamedTuple):
    """Where training ended, for each start.

    gap: amortisation gap, float64 [starts], nats per datum.
    slope: largest entry of the gradient, [starts].
    after: the gap that is left when the search goes on for each datum alone, from what the network
      says, [starts].
    means: m of each end for each observation, [starts, data].
    """

    gap: np.ndarray
    slope: np.ndarray
    after: np.ndarray
    means: np.ndarray


def observations(num, *, seed):
    """Draw x from the model: float64 [num], in ascending order."""
    _checks.integer(num, "num", minimum=2)
    rng = np.random.default_rng(seed)
    return np.sort((MEAN + rng.normal(size=num)) ** 2 + NOISE * rng.normal(size=num))


def elbo(mean, log_scale, x):
    """L[q](x) of q = N(mean, exp(log_scale)^2), in closed form; arguments broadcast, nats."""
    return _elbo(np.asarray(mean, float), np.asarray(log_scale, float), x)[0]


@np.errstate(over="ignore", invalid="ignore")  # a trial step too far counts as infinitely bad
def _elbo(mean, log_scale, x):
    """The bound and its derivatives by mean and log scale."""
    variance = np.exp(2.0 * log_scale)
    second = mean**2 + variance
    fourth = mean**4 + 6.0 * mean**2 * variance + 3.0 * variance**2
    misfit = x**2 - 2.0 * x * second + fourth
    value = -0.5 * misfit / NOISE**2 - np.log(NOISE)  # and what two Gaussians and H[q] leave
    value += -0.5 * ((mean - MEAN) ** 2 + variance) + log_scale + 0.5 * (1.0 - _LOG_2PI)
    by_mean = -2.0 * mean * (second - x + 2.0 * variance) / NOISE**2 - (mean - MEAN)
    by_variance = -(3.0 * second - x) / NOISE**2 - 0.5
    return value, by_mean, 2.0 * variance * by_variance + 1.0


def best(x):
    """The best q of each observation: (m [data], ln s [data], L[q] [data]).

    Searched from both modes and from the prior's mean, each with a wide and a narrow q.
    """
    x = np.asarray(x, float)
    root = np.sqrt(np.maximum(x, 0.1))
    places = np.stack([root, -root, np.full_like(x, MEAN)])
    starts = [np.stack([m, np.full_like(x, s)], -1) for m in places for s in (-2.0, 0.0)]
    found = _maximise_each(np.stack(starts), x)
    values = elbo(found[..., 0], found[..., 1], x)
    own = found[values.argmax(0), np.arange(len(x))]
    return own[:, 0], own[:, 1], values.max(0)


def train(x, *, width, num_starts, seed, max_steps=3000):
    """Train encoders from many starts.

    Args:
      x: observations, [data].
      width: hidden units.
      num_starts: initial weights, uniform as Glorot and Bengio (2010) propose.
      seed: int, of the initial weights.
      max_steps: evaluations after which every search ends where it is.

    Returns:
      `Ends`.
    """
    x = np.asarray(x, float)
    inputs = (x - x.mean()) / x.std()

    def loss(parameters):
        outputs, pull_back = _network(parameters, inputs, width)
        value, *slopes = _elbo(*np.moveaxis(outputs, -1, 0), x)
        decayed = DECAY * np.sum(parameters**2, -1) - value.mean(-1)
        gradient = pull_back(-np.stack(slopes, -1) / len(x))
        return decayed, gradient + 2 * DECAY * parameters

    found = bfgs.minimise(
        loss, _glorot(width, num_starts, seed), tolerance=TOLERANCE, max_steps=max_steps
    )
    outputs, _ = _network(found.vectors, inputs, width)
    highest, onwards = best(x)[2], _maximise_each(outputs, x)
    gap, after = (
        np.mean(highest - elbo(*np.moveaxis(q, -1, 0), x), -1) for q in (outputs, onwards)
    )
    return Ends(gap, np.abs(found.gradients).max(-1), after, outputs[..., 0])


def _glorot(width, num_starts, seed):
    """Kernels and biases of both layers in a row, [starts, 4 * width + 2]; biases are zero."""
    rng = np.random.default_rng(seed)
    parts = [
        np.sqrt(6 / (1 + width)) * rng.uniform(-1, 1, [num_starts, width]),
        np.zeros([num_starts, width]),
        np.sqrt(6 / (width + 2)) * rng.uniform(-1, 1, [num_starts, 2 * width]),
        np.zeros([num_starts, 2]),
    ]
    return np.concatenate(parts, 1)


def _network(parameters, inputs, width):
    """One hidden layer of tanh units: (m, ln s) [starts, data, 2], and their chain rule.

    The second is a function from derivatives by the outputs to those by the parameters.
    """
    first, bias, last, last_bias = np.split(parameters, [width, 2 * width, 4 * width], axis=-1)
    hidden = np.tanh(inputs[:, np.newaxis] * first[:, np.newaxis] + bias[:, np.newaxis])
    kernel = last.reshape(-1, width, 2)

    @np.errstate(invalid="ignore")  # of a trial step too far
    def pull_back(upstream):
        inner = (upstream @ kernel.swapaxes(1, 2)) * (1.0 - hidden**2)
        by_kernel = hidden.swapaxes(1, 2) @ upstream
        parts = [inputs @ inner, inner.sum(1), by_kernel.reshape(last.shape), upstream.sum(1)]
        return np.concatenate(parts, -1)

    return hidden @ kernel + last_bias[:, np.newaxis], pull_back


def _maximise_each(starts, x):
    """Maximise the bound of every observation from `starts` [..., data, 2]."""
    repeated = np.broadcast_to(x, starts.shape[:-1]).ravel()

    def loss(parameters):
        # Rows leave as they finish, and are told apart by the observation beside them.
        value, *slopes = _elbo(parameters[:, 0], parameters[:, 1], parameters[:, 2])
        return -value, np.stack([-slopes[0], -slopes[1], np.zeros(len(value))], -1)

    rows = np.concatenate([starts.reshape(-1, 2), repeated[:, np.newaxis]], -1)
    found = bfgs.minimise(loss, rows, tolerance=TOLERANCE)
    return found.vectors[:, :2].reshape(starts.shape)
