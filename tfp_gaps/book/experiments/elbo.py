"""Evidence, ELBO and divergence while q moves, and what averaging over data does to the optimum.

ln p(x) = L[q] + KL(q || p(z|x)) holds for every q, so the q of largest ELBO and the q of smallest
divergence are one; and a table with one row of parameters per datum, fitted to the average of the
ELBO, ends where each datum would end alone. Both are watched on worlds where all terms are known.
"""

import itertools
from typing import NamedTuple

import numpy as np
from scipy import optimize

from tfp_gaps import _checks
from tfp_gaps._tensorflow import tfp

tfd = tfp.distributions


class Landscape(NamedTuple):
    """ELBO and divergence of Gaussian q over a grid of means and standard deviations.

    means: [M]; sds: [S]; elbo, kl: [M, S], nats; log_evidence: float, nats.
    """

    means: np.ndarray
    sds: np.ndarray
    elbo: np.ndarray
    kl: np.ndarray
    log_evidence: float

    def largest_residual(self):
        """Largest |ln p(x) - KL - ELBO| over the grid, nats."""
        return float(np.max(np.abs(self.log_evidence - self.kl - self.elbo)))

    def distance_of_optima(self):
        """Largest difference in mean or standard deviation between the two optima on the grid."""
        best = np.unravel_index(np.argmax(self.elbo), self.elbo.shape)
        closest = np.unravel_index(np.argmin(self.kl), self.kl.shape)
        means, sds = self.means[[best[0], closest[0]]], self.sds[[best[1], closest[1]]]
        return float(max(np.ptp(means), np.ptp(sds)))


def mixture_landscape(world, reading, means, sds):
    """The landscape of one reading of a `NoisyMixture`; ELBO and KL by separate quadratures."""
    posterior = world.posterior(reading)
    means, sds = _axes(means, sds)
    elbo, kl = np.empty((2, means.size, sds.size))
    for i, j in itertools.product(range(means.size), range(sds.size)):
        q = tfd.Normal(means[i], sds[j])
        elbo[i, j], kl[i, j] = world.elbo(reading, q), posterior.kl_to_marginal(q)
    return Landscape(means, sds, elbo, kl, world.log_evidence(reading))


def sensors_landscape(world, seen, unseen, means, sds):
    """The landscape of one pair of readings of `TwoSensors`, in closed form."""
    means, sds = _axes(means, sds)
    grid = means[:, None], sds[None, :] ** 2
    elbo = world.elbo(seen, unseen, *grid)
    kl = world.kl_to_full_posterior(seen, unseen, *grid)
    return Landscape(means, sds, elbo, kl, float(world.log_evidence(seen, unseen)))


class Tabular(NamedTuple):
    """Optima of the average ELBO and of each datum's own, parameters (mean, log sd), [data, 2].

    shared_loss: what one q for all data loses on average against the table, nats per datum.
    """

    averaged: np.ndarray
    per_datum: np.ndarray
    shared_loss: float


def tabular_optimum(world, seen, unseen):
    """Fit q with one row of parameters per datum to the average ELBO, and each datum alone.

    Args:
        world: a `TwoSensors`.
        seen, unseen: readings, shape [data] each.

    Returns:
        `Tabular`.
    """
    seen = _checks.finite_array(seen, "seen", ndim=1)
    unseen = _checks.finite_array(unseen, "unseen", ndim=1)

    def elbo(rows, which=slice(None)):
        mean, log_sd = rows[..., 0], rows[..., 1]
        return world.elbo(seen[which], unseen[which], mean, np.exp(2 * log_sd))

    def fit(negative, num_rows):
        found = optimize.minimize(
            negative, np.zeros(2 * num_rows), jac="3-point", options={"gtol": 1e-9}
        )
        return found.x.reshape(num_rows, 2), found.fun

    averaged, loss = fit(lambda x: -np.mean(elbo(x.reshape(-1, 2))), seen.size)
    alone = [fit(lambda x, i=i: -elbo(x, i), 1)[0][0] for i in range(seen.size)]
    _, shared = fit(lambda x: -np.mean(elbo(x)), 1)
    return Tabular(averaged, np.stack(alone), float(shared - loss))


def _axes(means, sds):
    return (
        _checks.finite_array(means, "means", ndim=1),
        _checks.positive_array(sds, "sds", ndim=1),
    )
