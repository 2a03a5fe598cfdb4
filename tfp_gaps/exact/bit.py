"""The bit: one latent variable, one missing discrete condition, every divergence known.

The excluded condition is a variable i with K values (K = 2: a bit), and given i the full posterior
is Gaussian,

    p(z | i) = N(m_i, s_i^2),   P(i) = w_i.

A q that does not see i pays E_i KL(q || p(. | i)) = KL(q || q_C) - ln Z_C, where q_C is the
normalised geometric mean of the full posteriors. The conditioning gap is -ln Z_C. The model is the
catastrophic example of Soelch, "A Tale of Gaps" (2021); the identity is from Bayer et al. (2021).
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

from tfp_gaps import _checks
from tfp_gaps._tensorflow import tfp
from tfp_gaps.exact._numerics import quadrature

tfd = tfp.distributions


class GapParts(NamedTuple):
    """Conditioning gap of Gaussian full posteriors, in nats: what distance and width add to it."""

    distance: float
    width: float


class Bit:
    """K Gaussian full posteriors N(locs[i], scales[i]^2) that occur with probability probs[i].

    Args:
        locs: shape [K], means of the full posteriors.
        scales: shape [K], their standard deviations, > 0.
        probs: shape [K], their probabilities; non-negative, summing to one.

    Raises:
        ValueError: if shapes differ, a number is not finite, a scale is not positive, or the
            probabilities are negative or do not sum to one.

    References:
        Soelch, A Tale of Gaps (2021); Bayer et al., Mind the Gap (ICLR 2021).

    >>> world = Bit(locs=[-2, 2], scales=[0.5, 0.5], probs=[0.5, 0.5])
    >>> world.conditioning_gap()
    8.0
    >>> print(f"{world.mutual_information():.4f}")
    0.6931
    """

    def __init__(self, locs, scales, probs):
        self.locs = _checks.finite_array(locs, "locs", ndim=1)
        self.scales = _checks.positive_array(scales, "scales", ndim=1)
        self.probs = _probabilities(probs)
        shapes = {self.locs.shape, self.scales.shape, self.probs.shape}
        if len(shapes) > 1:
            raise ValueError(
                "locs, scales and probs must have one entry per full posterior, but have shapes "
                f"{self.locs.shape}, {self.scales.shape} and {self.probs.shape}. Give all three "
                "the same length."
            )

    # Distributions ---------------------------------------------------------------------------

    def full_posteriors(self):
        """p(z | C, i) for each i: `tfd.Normal`, batch shape [K], float64."""
        return tfd.Normal(loc=self.locs, scale=self.scales)

    def marginal_posterior(self):
        """p(z | C) = sum_i w_i p(z | C, i), the arithmetic mean: a mixture, batch shape []."""
        return tfd.MixtureSameFamily(tfd.Categorical(probs=self.probs), self.full_posteriors())

    def shared_posterior(self):
        """q_C, proportional to prod_i p(z | C, i)^w_i, the geometric mean: `tfd.Normal`.

        precision = sum_i w_i / s_i^2,   mean = sum_i w_i m_i / s_i^2 / precision.
        """
        share = self._precision_shares()
        # Offsets from one of the means lose no digits when all means are far from zero.
        loc = self.locs[0] + share @ (self.locs - self.locs[0])
        return tfd.Normal(loc=loc, scale=self._shared_scale())

    def moment_matched(self):
        """argmin_N KL(p(z | C) || N): mean sum w m, variance sum w s^2 + w_i w_j d^2."""
        loc = self.locs[0] + self.probs @ (self.locs - self.locs[0])
        variance = self.probs @ self.scales**2 + self._spread(self.probs)
        return tfd.Normal(loc=loc, scale=np.sqrt(variance))

    def mode_seeking(self, seed=0, num_random_starts=4):
        """argmin_N KL(N || p(z | C)), the Gaussian that variational inference would find.

        The objective is not convex: far-apart full posteriors give one local optimum each. Each
        full posterior, the moment-matched and the shared Gaussian, and `num_random_starts` random
        ones serve as starts; the lowest objective (by quadrature) wins.

        Args:
            seed: of the random starts.
            num_random_starts: how many, >= 0.

        Returns:
            `tfd.Normal`, batch shape []. Where several optima are equally good (the symmetric
            case), the one found from the first full posterior.
        """
        count = _checks.integer(num_random_starts, "num_random_starts", minimum=0)
        starts = [*zip(self.locs, self.scales, strict=True)]
        for normal in (self.moment_matched(), self.shared_posterior()):
            starts.append((float(normal.loc), float(normal.scale)))
        rng = np.random.default_rng(seed)
        for _ in range(count):
            i = rng.choice(self.probs.size, p=self.probs)
            scale = math.exp(rng.uniform(*np.log([self.scales.min(), starts[len(self.locs)][1]])))
            starts.append((self.locs[i] + self.scales[i] * rng.normal(), scale))
        best = None
        for start in starts:
            found = self._descend(*start)
            # A relative margin keeps round-off from deciding between equally good optima.
            if best is None or found[0] < best[0] - 1e-9 * max(1.0, abs(best[0])):
                best = found
        return tfd.Normal(loc=np.float64(best[1]), scale=np.float64(best[2]))

    # Closed forms ----------------------------------------------------------------------------

    def conditioning_gap_parts(self):
        """Distance part and width part of the gap, in nats; both are >= 0.

        With precisions a_i = w_i / s_i^2 and A = sum_i a_i,

            distance = sum_{i<j} a_i a_j (m_i - m_j)^2 / (2 A),
            width    = sum_i w_i ln s_i + 1/2 ln A.

        Returns:
            `GapParts`.

        >>> parts = Bit([-2, 2], [1, 0.5], [0.5, 0.5]).conditioning_gap_parts()
        >>> print(f"{parts.distance:.4f} {parts.width:.4f}")
        3.2000 0.1116
        """
        share = self._precision_shares()
        unit = self._shared_scale()
        distance = 0.5 * self._spread(share) / unit**2
        # With u_i = -2 ln s_i minus its mean, sum w u = 0, and ln sum w e^u keeps its digits
        # as ln(1 + sum w (e^u - 1 - u)) when all scales are nearly equal.
        log_precisions = -2 * np.log(self.scales)
        centred = log_precisions - self.probs @ log_precisions
        width = 0.5 * np.log1p(self.probs @ (np.expm1(centred) - centred))
        return GapParts(float(distance), max(0.0, float(width)))

    def conditioning_gap(self):
        """-ln Z_C = min_q sum_i w_i KL(q || p(. | i)), in nats; closed form.

        For two full posteriors, with d = m_1 - m_2 and D = w_1 s_2^2 + w_2 s_1^2,

            gap = w_1 w_2 d^2 / (2 D) + 1/2 ln D - w_2 ln s_1 - w_1 ln s_2.

        Returns:
            The gap as a float >= 0; zero if and only if all full posteriors that occur are equal.
        """
        return float(sum(self.conditioning_gap_parts()))

    def mean_pairwise_kl(self):
        """sum_ij w_i w_j KL(p(. | i) || p(. | j)), in nats; closed form."""
        ratio = np.log(self.scales[:, None]) - np.log(self.scales[None, :])
        distance = (self.locs[:, None] - self.locs[None, :]) / self.scales[None, :]
        kl = 0.5 * (np.expm1(2 * ratio) - 2 * ratio + distance**2)
        return float(self.probs @ kl @ self.probs)

    # Quadrature ------------------------------------------------------------------------------

    def mutual_information(self):
        """I(z; i | C) = sum_i w_i KL(p(. | i) || p(z | C)), in nats; at most the entropy of i."""
        nodes, weights = self._nodes()
        log_full = self._log_full(nodes)
        log_ratio = log_full - self._log_marginal(nodes)[:, None]
        return float(weights @ (_weighted(log_full, log_ratio) @ self.probs))

    def cost_of(self, distribution):
        """sum_i w_i KL(q || p(. | i)), in nats: what q pays for not seeing i; by quadrature.

        Args:
            distribution: q, a scalar float64 `tfd` distribution with a mean and a variance.

        Returns:
            The cost as a float; at least `conditioning_gap()`.

        Raises:
            ValueError: if the distribution is not scalar, not float64, or its density does not
                integrate to one on the quadrature panels.

        >>> world = Bit([-2, 2], [1, 1], [0.5, 0.5])
        >>> print(f"{world.cost_of(world.moment_matched()):.4f}")
        3.1953
        """
        nodes, weights, log_q = self._log_density(distribution)
        return float(weights @ _weighted(log_q, log_q - self._log_full(nodes) @ self.probs))

    def kl_to_marginal(self, distribution):
        """KL(q || p(z | C)), in nats, by quadrature; arguments as for `cost_of`."""
        nodes, weights, log_q = self._log_density(distribution)
        return float(weights @ _weighted(log_q, log_q - self._log_marginal(nodes)))

    def kl_to_shared(self, distribution):
        """KL(q || q_C), in nats, by quadrature; arguments as for `cost_of`."""
        nodes, weights, log_q = self._log_density(distribution)
        shared = self.shared_posterior()
        log_shared = _log_normal(nodes, shared.loc.numpy(), shared.scale.numpy())
        return float(weights @ _weighted(log_q, log_q - log_shared))

    def log_normaliser(self):
        """ln Z_C = ln integral of exp(sum_i w_i ln p(z | i)) dz, by quadrature; <= 0."""
        nodes, weights = self._nodes()
        return float(special.logsumexp(self._log_full(nodes) @ self.probs, b=weights))

    def identity_residual(self, distribution):
        """cost(q) - [KL(q || q_C) - ln Z_C], in nats: zero by theory.

        The three terms are computed apart: cost and divergence by quadrature over q, ln Z_C by
        quadrature over the geometric mean.

        Args:
            distribution: q, as for `cost_of`.

        Returns:
            The residual as a float.

        >>> world = Bit([-1, 1], [1, 1], [0.5, 0.5])
        >>> abs(world.identity_residual(world.marginal_posterior())) < 1e-10
        True
        """
        predicted = self.kl_to_shared(distribution) - self.log_normaliser()
        return self.cost_of(distribution) - predicted

    def overlap(self):
        """integral of min_i p(z | i) dz over the i that occur: 1 if all are equal, 0 if disjoint.

        For equal scales s and two means at distance d this is 2 Phi(-d / (2 s)).
        """
        nodes, weights = self._nodes()
        return float(weights @ np.exp(self._log_full(nodes)[:, self.probs > 0].min(axis=1)))

    def marginal_modes(self):
        """Local maxima of p(z | C), ascending, shape [number of modes].

        >>> Bit([-2, 2], [1, 1], [0.5, 0.5]).marginal_modes().round(3)
        array([-1.999,  1.999])
        >>> len(Bit([-1, 1], [1, 1], [0.5, 0.5]).marginal_modes())
        1
        """
        nodes = self._nodes()[0]
        # A mode at zero has no relative precision, hence no absolute tolerance either.
        slope = self._slope_of_log_marginal(nodes)
        falls = np.flatnonzero((slope[:-1] > 0) & (slope[1:] <= 0))
        modes = [
            optimize.brentq(self._slope_of_log_marginal, nodes[i], nodes[i + 1], xtol=1e-300)
            for i in falls
        ]
        return np.array(modes)

    def minimise_over_densities(self, num_points=401, half_width=6.0, num_steps=80, seed=0):
        """Minimise sum_i w_i KL(q || p_i) over all densities on a grid, knowing nothing of q_C.

        q has one free mass per grid point, the richest family there is, and starts at random.
        Entropic mirror descent with step 1/2, ln q <- ln q - gradient / 2 and renormalise, halves
        the distance to the optimum of this convex problem in every step.

        Args:
            num_points: of the equidistant grid, >= 3.
            half_width: of the grid, in standard deviations of p(z | C) around its mean.
            num_steps: of mirror descent, >= 1.
            seed: of the random start.

        Returns:
            grid, shape [num_points]; density of the minimiser on it; its cost in nats.
        """
        num_points = _checks.integer(num_points, "num_points", minimum=3)
        num_steps = _checks.integer(num_steps, "num_steps", minimum=1)
        matched = self.moment_matched()
        reach = _checks.positive_float(half_width, "half_width") * float(matched.scale)
        grid = float(matched.loc) + np.linspace(-reach, reach, num_points)
        spacing = grid[1] - grid[0]
        log_mean = self._log_full(grid) @ self.probs + math.log(spacing)
        log_mass = special.log_softmax(np.random.default_rng(seed).normal(size=num_points))
        for _ in range(num_steps):
            gradient = log_mass + 1 - log_mean
            log_mass = special.log_softmax(log_mass - 0.5 * gradient)
        cost = np.exp(log_mass) @ (log_mass - log_mean)
        return grid, np.exp(log_mass) / spacing, float(cost)

    # Helpers ---------------------------------------------------------------------------------

    def _precision_shares(self):
        """w_i / s_i^2 divided by its sum; scaled first, so that squares cannot overflow."""
        relative = self.probs * (self.scales.min() / self.scales) ** 2
        return relative / relative.sum()

    def _shared_scale(self):
        """Standard deviation of q_C."""
        unit = self.scales.min()
        return unit / np.sqrt(self.probs @ (unit / self.scales) ** 2)

    def _spread(self, weights):
        """sum_{i<j} v_i v_j (m_i - m_j)^2, the variance of the means under weights v."""
        differences = self.locs[:, None] - self.locs[None, :]
        return 0.5 * weights @ differences**2 @ weights

    def _nodes(self, loc=None, scale=None):
        """Quadrature nodes that resolve every full posterior, q_C, and one more density."""
        occurs = self.probs > 0
        locs = [*self.locs[occurs], float(self.shared_posterior().loc)]
        scales = [*self.scales[occurs], self._shared_scale()]
        if loc is not None:
            locs.append(loc)
            scales.append(scale)
        crossings = quadrature.gaussian_crossings(
            self.locs[occurs], self.scales[occurs], np.log(self.probs[occurs])
        )
        return quadrature.graded_nodes(np.array(locs), np.array(scales), crossings)

    def _log_full(self, nodes):
        """ln p(z | i), shape [number of nodes, K]."""
        return _log_normal(np.asarray(nodes)[..., None], self.locs, self.scales)

    def _log_marginal(self, nodes):
        """ln p(z | C), shape [number of nodes]."""
        return special.logsumexp(self._log_full(nodes), b=self.probs, axis=-1)

    def _slope_of_log_marginal(self, nodes):
        """d/dz ln p(z | C), shape [number of nodes]."""
        return self._log_marginal_and_slope(nodes)[1]

    def _log_marginal_and_slope(self, nodes):
        """ln p(z | C) and its slope: the full posteriors' slopes, weighted by responsibility."""
        occurs = self.probs > 0
        log_joint = self._log_full(nodes)[..., occurs] + np.log(self.probs[occurs])
        log_marginal = special.logsumexp(log_joint, axis=-1)
        responsibilities = np.exp(log_joint - log_marginal[..., None])
        slopes = (self.locs[occurs] - np.asarray(nodes)[..., None]) / self.scales[occurs] ** 2
        return log_marginal, np.sum(responsibilities * slopes, axis=-1)

    def _log_density(self, distribution):
        """Nodes, weights and ln q on them; refuses densities that the nodes do not resolve."""
        _check_scalar_float64(distribution)
        loc, scale = float(distribution.mean()), float(distribution.stddev())
        if not (math.isfinite(loc) and math.isfinite(scale) and scale > 0):
            raise ValueError(
                f"The distribution must have a finite mean and a positive, finite standard "
                f"deviation, but has {loc:g} and {scale:g}. The divergence to a Gaussian is "
                "infinite without a variance."
            )
        nodes, weights = self._nodes(loc, scale)
        log_q = distribution.log_prob(nodes).numpy()
        mass = float(weights @ np.exp(log_q))
        if not abs(mass - 1) < 1e-9:
            raise ValueError(
                f"The density must integrate to one, but integrates to {mass:.12g} on panels "
                "around the full posteriors and its own mean and standard deviation. It has "
                "structure that is too fine for them, or is not normalised."
            )
        return nodes, weights, log_q

    def _descend(self, loc, scale):
        """Minimise KL(N(a, b^2) || p(z | C)) from one start; returns objective, a, b."""

        def objective(offset):
            a, b = loc + scale * offset[0], scale * math.exp(offset[1])
            nodes, weights = self._nodes(a, b)
            near = np.abs(nodes - a) < 40 * b  # beyond, the density of q underflows
            nodes, log_q = nodes[near], _log_normal(nodes[near], a, b)
            mass = weights[near] * np.exp(log_q)
            log_marginal, slope = self._log_marginal_and_slope(nodes)
            value = mass @ (log_q - log_marginal)
            # Pathwise derivatives: z = a + b e moves with a at speed 1 and with ln b at z - a.
            return value, np.array([-scale * (mass @ slope), -1 - mass @ (slope * (nodes - a))])

        found = optimize.minimize(objective, np.zeros(2), jac=True, options={"gtol": 1e-10})
        return found.fun, loc + scale * found.x[0], scale * math.exp(found.x[1])


def _log_normal(z, loc, scale):
    """ln N(z; loc, scale^2)."""
    return -0.5 * ((z - loc) / scale) ** 2 - np.log(scale) - 0.5 * math.log(2 * math.pi)


def _weighted(log_density, values):
    """exp(log_density) * values, and zero where the density underflows."""
    density = np.exp(log_density)
    return np.where(density > 0, density * np.where(density > 0, values, 0.0), 0.0)


def _probabilities(probs):
    """Return probabilities that sum to one exactly; refuse what is not a distribution."""
    probs = _checks.finite_array(probs, "probs", ndim=1)
    if probs.size == 0 or np.any(probs < 0) or abs(probs.sum() - 1) > 1e-6:
        raise ValueError(
            "probs must be non-negative and sum to one (within 1e-6), but are "
            f"{probs.tolist()} with sum {probs.sum():.9g}. Divide them by their sum."
        )
    return probs / probs.sum()


def _check_scalar_float64(distribution):
    """Refuse anything but a scalar float64 distribution."""
    if not isinstance(distribution, tfd.Distribution):
        wrong = f"is of type {type(distribution).__name__}"
    elif distribution.dtype != np.float64:
        wrong = f"has dtype {distribution.dtype.name}"
    elif distribution.batch_shape.rank != 0 or distribution.event_shape.rank != 0:
        wrong = f"has shapes {distribution.batch_shape} (batch) and {distribution.event_shape}"
    else:
        return
    raise ValueError(
        f"distribution must be a scalar tfd distribution in float64, but {wrong}. Build it from "
        "float64 numbers, for instance tfd.Normal(np.float64(0), np.float64(1))."
    )
