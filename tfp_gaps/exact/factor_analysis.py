"""Factor analysis: the variational auto-encoder whose evidence, posterior and gaps are known.

    z ~ N(0, I),   x = W z + b + noise * e,   e ~ N(0, I)
    ln p(x) = ln N(x; b, W W' + diag noise^2)
    p(z | x) = N(S W' diag(noise^-2) (x - b), S),   S = L^-1,   L = I + W' diag(noise^-2) W

The posterior's covariance is the same for all x, and so is its distance to the best factorised q,
which has the reciprocal diagonal of L as its variances (Bishop 2006, section 10.1.2). Evidence and
posterior are those of Rubin and Thayer (1982). All values are nats per datum.
"""

import math

import numpy as np
from scipy import linalg

from tfp_gaps import _checks

_LOG_2PI = math.log(2 * math.pi)


class FactorAnalysis:
    """The model z ~ N(0, I), x = W z + b + noise.

    Args:
        loadings: W, shape [observations, latents].
        noise: standard deviation of each observation's noise, shape [observations], > 0.
        offset: b, a number or of shape [observations].

    Raises:
        ValueError: if shapes do not fit, an entry is not finite, or a noise is not positive.

    >>> world = FactorAnalysis([[1.0, 0.0], [1.0, 1.0]], [1.0, 0.5])
    >>> x = [[0.3, -0.2]]
    >>> means, sds = world.best_factorised(x)
    >>> gap = world.log_evidence(x) - world.elbo(x, means, sds=sds)
    >>> bool(abs(gap[0] - world.approximation_gap()) < 1e-12)
    True
    """

    def __init__(self, loadings, noise, offset=0.0):
        self.loadings = _checks.finite_array(loadings, "loadings", ndim=2)
        self.noise = _checks.positive_array(noise, "noise", ndim=1)
        self.num_observations, self.num_latents = self.loadings.shape
        if self.noise.size != self.num_observations or self.num_latents == 0:
            raise ValueError(
                f"loadings must be [observations, latents] with one row per entry of noise, but "
                f"have shape {self.loadings.shape} for {self.noise.size} noises. Give one standard "
                f"deviation per observation."
            )
        offset = _checks.finite_array(offset, "offset")
        if offset.shape not in ((), self.noise.shape):
            raise ValueError(
                f"offset must be a number or have shape {self.noise.shape}, but has {offset.shape}."
            )
        self.offset = np.broadcast_to(offset, self.noise.shape).copy()
        self._scaled = self.loadings / self.noise[:, None]

    @classmethod
    def random(cls, num_observations, num_latents, seed):
        """A model with normal loadings and offsets, and noises between 0.4 and 1.2.

        >>> FactorAnalysis.random(5, 2, seed=0).loadings.shape
        (5, 2)
        """
        _checks.integer(num_observations, "num_observations", minimum=1)
        _checks.integer(num_latents, "num_latents", minimum=1)
        rng = np.random.default_rng(seed)
        return cls(
            rng.normal(size=(num_observations, num_latents)),
            rng.uniform(0.4, 1.2, num_observations),
            rng.normal(size=num_observations),
        )

    def sample(self, num_data, seed):
        """Draw data with the latents that made them: exact draws of their posteriors.

        Returns:
            latents: [data, latents].
            observations: [data, observations].
        """
        num_data = _checks.integer(num_data, "num_data", minimum=1)
        rng = np.random.default_rng(seed)
        latents = rng.normal(size=(num_data, self.num_latents))
        noise = self.noise * rng.normal(size=(num_data, self.num_observations))
        return latents, latents @ self.loadings.T + self.offset + noise

    def sample_posterior(self, x, num_samples, seed):
        """Independent draws of p(z | x): [samples, data, latents]."""
        means = self.posterior_mean(x)
        num_samples = _checks.integer(num_samples, "num_samples", minimum=1)
        draws = np.random.default_rng(seed).normal(size=(num_samples, *means.shape))
        # L = U' U, so that U^-1 e has the covariance L^-1.
        root = linalg.cholesky(self.posterior_precision())
        return means + draws @ linalg.inv(root).T

    def log_evidence(self, x):
        """ln p(x), shape [data], from the normal distribution of x itself."""
        root = linalg.cholesky(np.diag(self.noise**2) + self.loadings @ self.loadings.T, lower=True)
        whitened = linalg.solve_triangular(root, self._centred(x).T, lower=True)
        log_scale = np.sum(np.log(np.diag(root)))
        return -0.5 * (self.num_observations * _LOG_2PI + np.sum(whitened**2, 0)) - log_scale

    def posterior_precision(self):
        """L, shape [latents, latents]."""
        return np.eye(self.num_latents) + self._scaled.T @ self._scaled

    def posterior_covariance(self):
        """Covariance of p(z | x) for every x, shape [latents, latents]."""
        return linalg.inv(self.posterior_precision())

    def posterior_mean(self, x):
        """Mean of p(z | x), shape [data, latents]."""
        evidence_for = (self._centred(x) / self.noise) @ self._scaled
        return linalg.solve(self.posterior_precision(), evidence_for.T, assume_a="pos").T

    def best_factorised(self, x):
        """The factorised q with the largest ELBO, for each datum.

        Returns:
            means: the posterior's, [data, latents].
            sds: one over the root of the diagonal of L, [data, latents].
        """
        means = self.posterior_mean(x)
        sds = 1 / np.sqrt(np.diag(self.posterior_precision()))
        return means, np.broadcast_to(sds, means.shape).copy()

    def approximation_gap(self):
        """ln p(x) - L[q*_x] of the factorised family, the same for all x:

        1/2 (sum_i ln L_ii - ln det L)
        """
        precision = self.posterior_precision()
        log_determinant = np.linalg.slogdet(precision)[1]
        return 0.5 * float(np.sum(np.log(np.diag(precision))) - log_determinant)

    def elbo(self, x, means, *, sds=None, covariance=None):
        """L[q] of a normal q for each datum, from expectation and entropy, not from the posterior.

        Args:
            x: [data, observations].
            means: [data, latents].
            sds: of a factorised q, [data, latents], > 0; or
            covariance: of any q, [latents, latents] for all data or [data, latents, latents].

        Returns:
            float64 [data], at most `log_evidence(x)`.

        Raises:
            ValueError: for shapes that do not fit, both or neither of `sds` and `covariance`, or a
                covariance that is not positive definite.
        """
        centred = self._centred(x)
        means = _checks.finite_array(means, "means", ndim=2)
        self._check_shape(means, (len(centred), self.num_latents), "means")
        covariance, log_determinant = self._spread(len(centred), sds, covariance)
        second = np.sum(means**2, -1) + np.trace(covariance, axis1=1, axis2=2)
        missed = np.sum(((centred - means @ self.loadings.T) / self.noise) ** 2, -1)
        missed += np.einsum("oi,nij,oj->n", self._scaled, covariance, self._scaled)
        constant = self.num_observations * _LOG_2PI + 2 * np.sum(np.log(self.noise))
        # The entropy of q is 1/2 (ln det + latents (1 + ln 2 pi)); the prior has the same ln 2 pi.
        return 0.5 * (log_determinant + self.num_latents - second - missed - constant)

    def _spread(self, num_data, sds, covariance):
        """Covariance [data, latents, latents] of q and the logarithm of its determinant [data]."""
        shape = (num_data, self.num_latents)
        if (sds is None) == (covariance is None):
            raise ValueError(
                "exactly one of sds (of a factorised q) and covariance must be given, but "
                f"{'neither' if sds is None else 'both'} was."
            )
        if sds is not None:
            sds = _checks.positive_array(sds, "sds", ndim=2)
            self._check_shape(sds, shape, "sds")
            return sds[:, :, None] ** 2 * np.eye(self.num_latents), 2 * np.sum(np.log(sds), -1)
        covariance = _checks.finite_array(covariance, "covariance")
        if covariance.ndim == 2:
            covariance = np.broadcast_to(covariance, (num_data, *covariance.shape))
        self._check_shape(covariance, (*shape, self.num_latents), "covariance")
        values = np.linalg.eigvalsh(covariance)
        if not (values.min() > 0 and np.allclose(covariance, np.swapaxes(covariance, 1, 2))):
            raise ValueError(
                "covariance must be symmetric and positive definite, but its smallest eigenvalue "
                f"is {values.min():g}. Build it as A A' from a square A."
            )
        return covariance, np.sum(np.log(values), -1)

    def _centred(self, x):
        x = _checks.finite_array(x, "x", ndim=2)
        self._check_shape(x, (len(x), self.num_observations), "x")
        return x - self.offset

    @staticmethod
    def _check_shape(array, expected, name):
        if array.shape != expected:
            raise ValueError(f"{name} must have shape {expected}, but has {array.shape}.")
