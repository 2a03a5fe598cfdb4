"""A latent variable with a mixture prior, read through Gaussian noise: a posterior with two modes.

    p(z) = sum_i w_i N(z; m_i, s_i^2),   x = z + noise * e,   e ~ N(0, 1).

Evidence and posterior are closed forms, the posterior is again a mixture of Gaussians, and no
Gaussian q equals it: the smallest model in which evidence, ELBO and an approximation gap are all
known. Per datum, in nats.
"""

import math

import numpy as np
from scipy import special, stats

from tfp_gaps import _checks
from tfp_gaps.exact.bit import Bit


class NoisyMixture:
    """Mixture prior with Gaussian observation noise.

    Args:
        locs, scales, probs: of the prior's components, shape [K] each, as for `Bit`.
        noise: standard deviation of the reading's noise, > 0.

    Raises:
        ValueError: as `Bit`, and if the noise is not positive and finite.

    >>> world = NoisyMixture([-2, 2], [1, 1], [0.5, 0.5], noise=2.0)
    >>> q = world.posterior(0.3).moment_matched()
    >>> gap = world.log_evidence(0.3) - world.elbo(0.3, q)
    >>> abs(gap - world.posterior(0.3).kl_to_marginal(q)) < 1e-10
    True
    """

    def __init__(self, locs, scales, probs, noise):
        self.prior = Bit(locs, scales, probs)
        self.noise = _checks.positive_float(noise, "noise", advice="It is a standard deviation.")

    def log_evidence(self, reading):
        """ln p(x) = ln sum_i w_i N(x; m_i, s_i^2 + noise^2) of one reading, in nats."""
        return float(special.logsumexp(self._log_evidences(reading), b=self.prior.probs))

    def posterior(self, reading):
        """p(z | x) as a `Bit`, whose marginal posterior it is.

        Component i has precision 1/s_i^2 + 1/noise^2, and its probability is reweighted by how
        well it explains the reading.

        Args:
            reading: x, one number.

        Returns:
            `Bit`; `.marginal_posterior()` is the posterior as a distribution.
        """
        log_evidences = self._log_evidences(reading)
        variances = 1.0 / (self.prior.scales**-2 + self.noise**-2)
        locs = variances * (self.prior.locs / self.prior.scales**2 + reading / self.noise**2)
        with np.errstate(divide="ignore"):  # components that never occur stay at probability zero
            probs = special.softmax(log_evidences + np.log(self.prior.probs))
        return Bit(locs, np.sqrt(variances), probs)

    def elbo(self, reading, distribution):
        """L[q] = E_q ln p(x | z) - KL(q || p(z)), in nats; the posterior is not used.

        Args:
            reading: x, one number.
            distribution: q, a scalar float64 `tfd` distribution with mean and variance.

        Returns:
            The ELBO as a float.
        """
        reading = self._reading(reading)
        miss = (reading - float(distribution.mean())) ** 2 + float(distribution.variance())
        log_noise = math.log(2 * math.pi * self.noise**2)
        log_likelihood = -0.5 * (log_noise + miss / self.noise**2)
        return log_likelihood - self.prior.kl_to_marginal(distribution)

    def _log_evidences(self, reading):
        """ln N(x; m_i, s_i^2 + noise^2) of each component, shape [K]."""
        spread = np.hypot(self.prior.scales, self.noise)
        return stats.norm.logpdf(self._reading(reading), self.prior.locs, spread)

    def _reading(self, reading):
        return float(_checks.finite_array(reading, "reading", ndim=0))
