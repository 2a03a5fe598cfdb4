"""Two equally likely full posteriors with tails of any weight, at -m and +m.

With equal probabilities the shared posterior is the normalised geometric mean

    q_C(z) = sqrt( f(z + m) f(z - m) ) / Z_C,   gap = -ln Z_C.

For a Gaussian f its standard deviation does not depend on m. Lighter tails make it shrink as the
two move apart, heavier tails make it grow: only the tails decide whether distance sharpens q_C.
"""

import math

import numpy as np
from scipy import special, stats

from tfp_gaps import _checks
from tfp_gaps.exact._numerics import quadrature


def _quartic_log_density(z):
    """ln of exp(-z^4 / 4) / (Gamma(1/4) / sqrt 2)."""
    return -(z**4) / 4 - special.gammaln(0.25) + 0.5 * math.log(2)


FAMILIES = {
    "light tails": _quartic_log_density,
    "Gaussian": stats.norm.logpdf,
    "Laplace": stats.laplace.logpdf,
    "logistic": stats.logistic.logpdf,
    "Student-t": stats.t(df=3).logpdf,
}
"""Log density of each family at location 0 and scale 1, from the lightest to the heaviest tails:
exp(-z^4 / 4), standard normal, Laplace, logistic, Student-t with 3 degrees of freedom."""


class TwoTails:
    """Two full posteriors f(z + m) and f(z - m), each with probability one half.

    Args:
        family: a key of `FAMILIES`.
        half_distance: m >= 0.

    Raises:
        ValueError: if the family is unknown, or m is negative or not finite.

    >>> [f"{TwoTails('light tails', m).shared_sd():.3f}" for m in (0, 3)]
    ['0.822', '0.192']
    """

    def __init__(self, family, half_distance):
        self.family = _checks.one_of(family, "family", list(FAMILIES))
        distance = float(_checks.finite_array(half_distance, "half_distance", ndim=0))
        if distance < 0:
            raise ValueError(
                f"half_distance must be zero or positive, but is {distance:g}. It is half the "
                "distance between the two full posteriors: pass its absolute value."
            )
        self.half_distance = distance

    def log_full_posteriors(self, z):
        """ln p(z | C, i) of the two full posteriors, shape [..., 2] for z of shape [...]."""
        z = _checks.finite_array(z, "z")[..., None]
        return FAMILIES[self.family](z - self.half_distance * np.array([-1.0, 1.0]))

    def marginal_density(self, z):
        """p(z | C), the average of the two full posteriors, shape as z."""
        return np.exp(self.log_full_posteriors(z)).mean(axis=-1)

    def shared_density(self, z):
        """q_C(z), the normalised geometric mean of the two, shape as z."""
        return np.exp(self.log_full_posteriors(z).mean(axis=-1) + self.conditioning_gap())

    def conditioning_gap(self):
        """-ln Z_C in nats, by quadrature; 0 at m = 0."""
        nodes, weights = self._nodes()
        log_geometric_mean = self.log_full_posteriors(nodes).mean(axis=-1)
        return max(0.0, -float(special.logsumexp(log_geometric_mean, b=weights)))

    def shared_sd(self):
        """Standard deviation of q_C, by quadrature; its mean is 0 by symmetry."""
        nodes, weights = self._nodes()
        return float(np.sqrt(weights @ (self.shared_density(nodes) * nodes**2)))

    def marginal_sd(self):
        """Standard deviation of p(z | C), by quadrature: sqrt(variance of f + m^2)."""
        nodes, weights = self._nodes()
        return float(np.sqrt(weights @ (self.marginal_density(nodes) * nodes**2)))

    def overlap(self):
        """integral of the smaller of the two full posteriors: 1 at m = 0, 0 far apart."""
        nodes, weights = self._nodes()
        return float(weights @ np.exp(self.log_full_posteriors(nodes).min(axis=-1)))

    def _nodes(self):
        """Nodes that are fine at both locations and, since q_C may be narrow, at zero."""
        narrow = 1.0 / (1.0 + self.half_distance)
        locs = np.array([-self.half_distance, 0.0, self.half_distance])
        return quadrature.graded_nodes(locs, np.array([1.0, narrow, 1.0]))
