"""Two noisy sensors of one quantity, of which the inference network sees one.

    z ~ N(0, 1),   c = z + N(0, noise_seen^2),   c' = z + N(0, noise_unseen^2),   q(z | c).

The full posterior is N(S (c / noise_seen^2 + c' / noise_unseen^2), S), the filter p(z | c) is
N(alpha c, S_F). The best q(z | c) is N(alpha c, S): the mean of the filter with the variance of the
full posterior. All gaps are closed forms, in nats per datum (one pair of readings). Source: the
shared posterior of Bayer et al. (2021), worked out for this model.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from tfp_gaps import _checks

_LOG_2PI = math.log(2 * math.pi)


class LinearQ(NamedTuple):
    """q(z | c) = N(slope * c, variance)."""

    slope: float
    variance: float


class LearnedSensors(NamedTuple):
    """A generative model that was learned with a partial q.

    c = loading_seen z + e, c' = loading_unseen z + e', with variance_seen, variance_unseen of the
    errors. `log_likelihood_loss` is E ln p_true - E ln p_learned and `gap` the conditioning gap
    left at the learned parameters, in nats per datum; `elbo` is what was maximised.
    """

    loading_seen: float
    loading_unseen: float
    variance_seen: float
    variance_unseen: float
    elbo: float
    log_likelihood_loss: float
    gap: float


class TwoSensors:
    """z ~ N(0, 1), c = z + noise_seen e, and c' = z + noise_unseen e', which q does not see.

    Args:
        noise_seen: standard deviation of the seen sensor's noise, > 0.
        noise_unseen: standard deviation of the unseen sensor's noise, > 0.

    Raises:
        ValueError: if a standard deviation is not positive and finite.

    References:
        Bayer et al., Mind the Gap when Conditioning Amortised Inference (ICLR 2021).

    >>> world = TwoSensors(noise_seen=1.0, noise_unseen=0.5)
    >>> print(f"{world.conditioning_gap():.4f} {world.mutual_information():.4f}")
    1.0000 0.5493
    """

    def __init__(self, noise_seen, noise_unseen):
        advice = "It is a standard deviation."
        self.noise_seen = _checks.positive_float(noise_seen, "noise_seen", advice=advice)
        self.noise_unseen = _checks.positive_float(noise_unseen, "noise_unseen", advice=advice)

    # Closed forms, in expectation over data ----------------------------------------------------

    def full_posterior_variance(self):
        """S = Var(z | c, c') = 1 / (1 + 1/noise_seen^2 + 1/noise_unseen^2)."""
        return 1.0 / (1.0 + self.noise_seen**-2 + self.noise_unseen**-2)

    def filter_variance(self):
        """S_F = Var(z | c) = 1 / (1 + 1/noise_seen^2)."""
        return 1.0 / (1.0 + self.noise_seen**-2)

    def filter(self):
        """The true filter p(z | c) as a `LinearQ`: slope S_F / noise_seen^2, variance S_F."""
        return LinearQ(1.0 / (1.0 + self.noise_seen**2), self.filter_variance())

    def best_partial(self):
        """The best q(z | c) for the ELBO: the filter's slope, the full posterior's variance.

        >>> TwoSensors(1.0, 0.5).best_partial()
        LinearQ(slope=0.5, variance=0.16666666666666666)
        """
        return LinearQ(self.filter().slope, self.full_posterior_variance())

    def conditioning_gap(self):
        """1/2 (S_F / S - 1), in nats per datum."""
        return 0.5 * self._excess()

    def mutual_information(self):
        """I(z; c' | c) = 1/2 ln(S_F / S), in nats per datum; below the conditioning gap."""
        return 0.5 * math.log1p(self._excess())

    def gap_of_true_filter(self):
        """E KL(p(z | c) || p(z | c, c')) = 2 gap - I, in nats: what the right answer costs as q."""
        return 2 * self.conditioning_gap() - self.mutual_information()

    def coverage(self, level=0.9, variance=None):
        """Probability that z falls in the central interval that N(alpha c, variance) claims.

        2 Phi( Phi^-1((1 + level) / 2) sqrt(variance / S_F) ) - 1.

        Args:
            level: nominal probability, in (0, 1).
            variance: that q claims; by default the full posterior's, as the best partial q does.

        Returns:
            The actual probability, as a float.

        >>> print(f"{TwoSensors(1.0, 0.5).coverage(0.9):.3f}")
        0.658
        """
        level = _checks.level(level)
        if variance is None:
            variance = self.full_posterior_variance()
        variance = _checks.positive_float(variance, "variance")
        half_width = stats.norm.ppf(0.5 * (1 + level)) * math.sqrt(variance)
        return float(1 - 2 * stats.norm.sf(half_width / math.sqrt(self.filter_variance())))

    def expected_evidence(self):
        """E ln p(c, c') = -1/2 ln det(2 pi e Sigma), in nats per datum."""
        seen, unseen = self.noise_seen**2, self.noise_unseen**2
        determinant = seen + unseen + seen * unseen
        return -1 - _LOG_2PI - 0.5 * math.log(determinant)

    def expected_elbo(self, slope, variance):
        """E_{c,c'} L[q] of q(z | c) = N(slope c, variance), in nats per datum.

        Computed as E ln p(z) + E ln p(c | z) + E ln p(c' | z) + entropy of q: the posterior is
        not used, so that comparing with `expected_evidence` checks the gap.

        Args:
            slope: of the mean, any finite number.
            variance: of q, > 0.

        Returns:
            The expected ELBO as a float.

        >>> world = TwoSensors(1.0, 0.5)
        >>> print(f"{world.expected_evidence() - world.expected_elbo(*world.filter()):.4f}")
        1.4507
        """
        slope = float(_checks.finite_array(slope, "slope", ndim=0))
        variance = _checks.positive_float(variance, "variance", advice="It is the variance of q.")
        seen, unseen = self.noise_seen**2, self.noise_unseen**2
        variance_c = 1 + seen
        log_prior = -0.5 * (_LOG_2PI + slope**2 * variance_c + variance)
        miss_seen = (1 - slope) ** 2 * variance_c + variance
        log_seen = -0.5 * (_LOG_2PI + math.log(seen) + miss_seen / seen)
        # E (c' - slope c)^2, with c' = z + e' and c = z + e.
        miss_unseen = (1 - slope) ** 2 + slope**2 * seen + unseen + variance
        log_unseen = -0.5 * (_LOG_2PI + math.log(unseen) + miss_unseen / unseen)
        entropy = 0.5 * (_LOG_2PI + 1 + math.log(variance))
        return log_prior + log_seen + log_unseen + entropy

    # Per datum -------------------------------------------------------------------------------

    def sample(self, num_samples, seed):
        """Draw data from the model.

        Args:
            num_samples: how many, >= 1.
            seed: of NumPy's generator.

        Returns:
            z, c, c': shape [num_samples] each.
        """
        num_samples = _checks.integer(num_samples, "num_samples", minimum=1)
        noise = np.random.default_rng(seed).normal(size=(3, num_samples))
        z = noise[0]
        return z, z + self.noise_seen * noise[1], z + self.noise_unseen * noise[2]

    def full_posterior(self, seen, unseen):
        """Mean (shape of the readings) and variance (a float) of p(z | c, c')."""
        seen, unseen = self._readings(seen, unseen)
        variance = self.full_posterior_variance()
        mean = variance * (seen / self.noise_seen**2 + unseen / self.noise_unseen**2)
        return mean, variance

    def log_evidence(self, seen, unseen):
        """ln p(c, c') of each datum, shape of the readings, from the joint normal of c and c'."""
        seen, unseen = self._readings(seen, unseen)
        covariance = [[1 + self.noise_seen**2, 1.0], [1.0, 1 + self.noise_unseen**2]]
        readings = np.stack(np.broadcast_arrays(seen, unseen), axis=-1)
        return stats.multivariate_normal(cov=covariance).logpdf(readings)

    def elbo(self, seen, unseen, mean, variance):
        """L[q] of each datum for q = N(mean, variance), in nats; the posterior is not used.

        E_q [ ln p(z) + ln p(c | z) + ln p(c' | z) - ln q(z) ].

        Args:
            seen, unseen: readings c and c', any shape.
            mean, variance: of q, broadcast against the readings; variance > 0.

        Returns:
            The ELBO, shape of all arguments broadcast together.

        >>> world = TwoSensors(1.0, 0.5)
        >>> q = world.full_posterior(0.3, -0.2)
        >>> bool(abs(world.elbo(0.3, -0.2, *q) - world.log_evidence(0.3, -0.2)) < 1e-12)
        True
        """
        seen, unseen = self._readings(seen, unseen)
        mean = _checks.finite_array(mean, "mean")
        variance = _checks.positive_array(variance, "variance")
        terms = [(0.0, 1.0), (seen, self.noise_seen**2), (unseen, self.noise_unseen**2)]
        log_joint = sum(
            -0.5 * (_LOG_2PI + math.log(noise) + ((target - mean) ** 2 + variance) / noise)
            for target, noise in terms
        )
        return log_joint + 0.5 * (_LOG_2PI + 1 + np.log(variance))

    def kl_to_full_posterior(self, seen, unseen, mean, variance):
        """KL(N(mean, variance) || p(z | c, c')) of each datum, in nats; arguments as `elbo`."""
        target, scale = self.full_posterior(seen, unseen)
        ratio = _checks.positive_array(variance, "variance") / scale
        distance = _checks.finite_array(mean, "mean") - target
        return 0.5 * (ratio - 1 - np.log(ratio) + distance**2 / scale)

    def _readings(self, seen, unseen):
        return _checks.finite_array(seen, "seen"), _checks.finite_array(unseen, "unseen")

    def _excess(self):
        """S_F / S - 1 = S_F / noise_unseen^2, without cancellation."""
        return self.filter_variance() / self.noise_unseen**2

    # Learning --------------------------------------------------------------------------------

    def learn(self, free_loadings=False, num_starts=8, seed=0):
        """Fit the generative model by its ELBO with the best q(z | c), on unlimited data.

        Model: z ~ N(0, 1), c = g z + N(0, v), c' = h z + N(0, v'). With
        S = 1 / (1 + g^2/v + h^2/v') the objective is

            E_data ln p_theta(c, c') - 1/2 S (h / v')^2 Var_data(c' | c).

        Args:
            free_loadings: learn g and h too; otherwise both stay at their true value 1.
            num_starts: random starts of the search, >= 1; the best objective wins.
            seed: of the starts.

        Returns:
            `LearnedSensors`. With free loadings the optimum lies at v = 0, which is reported at
            the edge of the search (1e-9 of the variance of c).

        >>> learned = TwoSensors(1.0, 0.5).learn()
        >>> print(f"{learned.variance_seen:.4f} {learned.variance_unseen:.4f}")
        0.6307 1.0460
        """
        num_starts = _checks.integer(num_starts, "num_starts", minimum=1)
        rng = np.random.default_rng(seed)
        scales = np.array([1 + self.noise_seen**2, 1 + self.noise_unseen**2])
        bounds = [(math.log(1e-9 * scale), math.log(1e3 * scale)) for scale in scales]
        if free_loadings:
            bounds += [(0.0, 3.0 * math.sqrt(scale)) for scale in scales]

        def loss(parameters):
            return -self._objective(_unpack(parameters))[0]

        best = None
        for _ in range(num_starts):
            start = np.log(scales) + rng.normal(size=2) - 1
            if free_loadings:
                start = np.append(start, rng.uniform(0.3, 1.3, size=2) * np.sqrt(scales))
            found = optimize.minimize(
                loss, start, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-15}
            )
            # Simplex steps finish what finite differences leave at the edge of round-off.
            found = optimize.minimize(
                loss,
                found.x,
                method="Nelder-Mead",
                bounds=bounds,
                options={"xatol": 1e-10, "fatol": 1e-15, "maxiter": 4000},
            )
            best = found if best is None or found.fun < best.fun else best
        parameters = _unpack(best.x)
        elbo, log_likelihood, gap = self._objective(parameters)
        loss_of_likelihood = self.expected_evidence() - log_likelihood
        return LearnedSensors(*map(float, (*parameters, elbo, loss_of_likelihood, gap)))

    def learn_wake_sleep(self):
        """Fit both variances with the filter of the model in place of the best q(z | c).

        Two steps take turns until neither moves: q is trained on what the model dreams, which is
        neural posterior estimation and ends at the model's own p_theta(z | c) (Hinton et al. 1995);
        the model is fitted to data with z drawn from q. With loadings of one both rest at

            v = noise_seen^2,   v' = noise_unseen^2 + 2 S_F.

        Returns:
            `LearnedSensors`; `elbo` is the bound with that q, `gap` that of the best q.

        >>> learned = TwoSensors(1.0, 0.5).learn_wake_sleep()
        >>> print(f"{learned.variance_unseen:.2f} {learned.log_likelihood_loss:.3f}")
        1.25 0.138
        """
        v, filtered = self.noise_seen**2, self.filter_variance()
        v_unseen = self.noise_unseen**2 + 2 * filtered
        _, log_likelihood, gap = self._objective((1.0, 1.0, v, v_unseen))
        elbo = 0.5 * math.log(filtered / (v * v_unseen)) - _LOG_2PI - 1
        loss = self.expected_evidence() - log_likelihood
        return LearnedSensors(1.0, 1.0, v, v_unseen, elbo, loss, gap)

    def _objective(self, parameters):
        """Expected ELBO, expected log-likelihood and conditioning gap at given parameters."""
        g, h, v, v_unseen = parameters
        model = np.array([[g * g + v, g * h], [g * h, h * h + v_unseen]])
        data = np.array([[1 + self.noise_seen**2, 1.0], [1.0, 1 + self.noise_unseen**2]])
        # det = g^2 v' + h^2 v + v v', written out: the determinant of `model` cancels for v -> 0.
        determinant = g * g * v_unseen + h * h * v + v * v_unseen
        adjugate = np.array([[model[1, 1], -g * h], [-g * h, model[0, 0]]])
        quadratic = np.sum(adjugate * data) / determinant
        log_likelihood = -_LOG_2PI - 0.5 * (math.log(determinant) + quadratic)
        posterior_variance = v * v_unseen / determinant
        variance_unseen_given_seen = self.noise_unseen**2 + self.filter_variance()
        gap = 0.5 * posterior_variance * (h / v_unseen) ** 2 * variance_unseen_given_seen
        return log_likelihood - gap, log_likelihood, gap


def _unpack(parameters):
    """(ln v, ln v'[, g, h]) to (g, h, v, v'); loadings are 1 unless given."""
    loadings = parameters[2:] if len(parameters) == 4 else (1.0, 1.0)
    return (*loadings, *np.exp(parameters[:2]))
