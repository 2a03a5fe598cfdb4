"""What the widget on learning drift draws: python -m tfp_gaps.book.figures.widgets.drift_data.

The likelihood and the population ELBO of chains on a plane: memory a across, sensor noise R up, and
everything else such that the chain is stationary and has the variance v of the data,

    z_1 ~ N(0, v - R),   z_t = a z_{t-1} + N(0, (1 - a^2) (v - R)),   x_t = z_t + N(0, R).

What learning ends in lies within 1e-5 nats per step of this plane, which a test measures. The grid
takes a minute, so that it is stored: drift.json, in nats per step.
"""

import json
import pathlib

import numpy as np

from tfp_gaps.exact import linear_gaussian as exact

PATH = pathlib.Path(__file__).with_name("drift.json")
WORLD = exact.LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
NUM_TIMESTEPS = 8
LOOK_AHEADS = (0, 1, 2, 3, 5, None)
MEMORIES = np.linspace(0.05, 0.97, 24)
NOISES = np.concatenate([[1e-6], np.linspace(0.05, 1.3, 26)])


def on_the_plane(memory, noise):
    """The stationary chain with this memory, this sensor noise and the variance of the data.

    >>> chain = on_the_plane(0.9, 1.0)
    >>> round(chain.transition_cov.item(), 12)  # the data's own chain lies on the plane
    0.1
    """
    state = WORLD.initial_cov.item() + WORLD.emission_cov.item() - noise
    return exact.LinearGaussian.stationary(memory, (1 - memory**2) * state, 1.0, noise)


def likelihood(memory, noise):
    """Expected log-likelihood of the data, nats per step."""
    chain = on_the_plane(memory, noise)
    return exact.log_likelihood(WORLD, chain, NUM_TIMESTEPS) / NUM_TIMESTEPS


def elbo(memory, noise, lookahead):
    """Population ELBO with the best q of a look-ahead, nats per step."""
    chain = on_the_plane(memory, noise)
    return exact.population_elbo(WORLD, chain, NUM_TIMESTEPS, lookahead) / NUM_TIMESTEPS


def compute():
    """All that is stored: a dict of lists, rows running over R and columns over a."""

    def over_plane(height):
        return [[round(height(a, r), 5) for a in MEMORIES] for r in NOISES]

    learned = []
    for k in LOOK_AHEADS:
        model = exact.learn(WORLD, NUM_TIMESTEPS, k)
        learned.append([model.transition.item(), model.emission_cov.item()])
    return {
        "learned": learned,
        "likelihood": over_plane(likelihood),
        # With full conditions the bound is the likelihood.
        "elbo": [over_plane(lambda a, r, k=k: elbo(a, r, k)) for k in LOOK_AHEADS[:-1]],
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(compute(), separators=(",", ":")) + "\n", encoding="utf-8")
