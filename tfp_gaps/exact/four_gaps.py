"""A small linear-Gaussian model in which all four gaps are there and each is known exactly.

    z ~ N(0, I),   c = A z + noise_seen e,   c' = B z + noise_unseen e',
    q(z | c) = N(U V c, diag(v)) with a bottleneck of `width` hidden units between V and U.

The posterior is a correlated Gaussian with precision L = I + A'A/noise_seen^2 + B'B/noise_unseen^2
(row by row), q is factorised, sees only c, is too narrow, and was stopped early, so that

    ln p - L[q] = approximation + conditioning + capacity + optimisation,

in expectation over data and in nats per datum, "approximation first" as everywhere in the book.
The names of the parts follow Cremer et al. (2018) and Soelch (2021).
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import linalg

from tfp_gaps import _checks
from tfp_gaps.exact.factor_analysis import FactorAnalysis

_LOG_2PI = math.log(2 * math.pi)
FAMILIES = ("factorised", "full covariance")


class GaussianQ(NamedTuple):
    """q(z | c, c') = N(weights_seen c + weights_unseen c', covariance)."""

    weights_seen: np.ndarray
    weights_unseen: np.ndarray
    covariance: np.ndarray


class Parts(NamedTuple):
    """evidence - elbo = approximation + conditioning + capacity + optimisation, nats per datum."""

    evidence: float
    approximation: float
    conditioning: float
    capacity: float
    optimisation: float
    elbo: float


class FourGaps:
    """The model z ~ N(0, I), c = A z + noise, c' = B z + noise, and its best and trained q.

    Args:
        emission_seen: A, shape [seen readings, latent dimensions].
        noise_seen: standard deviations of the seen readings' noise, shape [seen readings], > 0.
        emission_unseen: B, shape [unseen readings, latent dimensions]; no rows if all are seen.
        noise_unseen: as `noise_seen`, shape [unseen readings], > 0.

    Raises:
        ValueError: if shapes do not fit, an entry is not finite, or a noise is not positive.

    >>> world = FourGaps([[1.0, 0.0], [0.0, 1.0]], [1.0, 0.5], [[1.0, 1.0]], [0.5])
    >>> parts = world.decompose(width=1, num_steps=20)
    >>> bool(abs(parts.evidence - sum(parts[1:5]) - parts.elbo) < 1e-10)
    True
    """

    def __init__(self, emission_seen, noise_seen, emission_unseen, noise_unseen):
        self.emission_seen, self.noise_seen = _sensors(emission_seen, noise_seen, "seen")
        self.emission_unseen, self.noise_unseen = _sensors(emission_unseen, noise_unseen, "unseen")
        self.num_latents = self.emission_seen.shape[1]
        if self.emission_unseen.shape[1] != self.num_latents:
            raise ValueError(
                "Both sensors must read the same latent vector, but emission_seen has "
                f"{self.num_latents} columns and emission_unseen {self.emission_unseen.shape[1]}. "
                "Give both one column per latent dimension."
            )
        self._emission = np.concatenate([self.emission_seen, self.emission_unseen])
        self._noise = np.concatenate([self.noise_seen, self.noise_unseen])
        self._whole = FactorAnalysis(self._emission, self._noise)

    def posterior_precision(self):
        """Precision of p(z | c, c'), shape [latents, latents]."""
        return self._whole.posterior_precision()

    def filter_covariance(self):
        """Covariance of p(z | c), shape [latents, latents]."""
        return FactorAnalysis(self.emission_seen, self.noise_seen).posterior_covariance()

    def expected_evidence(self):
        """E ln p(c, c') in nats per datum, from the joint normal of all readings."""
        log_determinant = np.linalg.slogdet(self._data_covariance())[1]
        return float(-0.5 * (self._noise.size * (_LOG_2PI + 1) + log_determinant))

    def expected_elbo(self, q):
        """E L[q] in nats per datum, from the joint density and the entropy of q alone.

        Args:
            q: a `GaussianQ`.

        Returns:
            The expected ELBO as a float; at most `expected_evidence()`.
        """
        weights = np.concatenate([q.weights_seen, q.weights_unseen], axis=1)
        data = self._data_covariance()
        second_moment = weights @ data @ weights.T + q.covariance
        log_prior = -0.5 * (self.num_latents * _LOG_2PI + np.trace(second_moment))
        residual = np.eye(self._noise.size) - self._emission @ weights
        miss = residual @ data @ residual.T + self._emission @ q.covariance @ self._emission.T
        log_noise = 2 * np.log(self._noise)
        log_readings = -0.5 * np.sum(_LOG_2PI + log_noise + np.diag(miss) / self._noise**2)
        log_determinant = np.linalg.slogdet(q.covariance)[1]
        entropy = 0.5 * (self.num_latents * (_LOG_2PI + 1) + log_determinant)
        return float(log_prior + log_readings + entropy)

    def best_per_datum(self, family="factorised"):
        """q*_x, the best member of the family for each datum: the exact posterior mean.

        A factorised q has the reciprocal diagonal of the posterior precision as its variances,
        whatever its mean: it does not see the correlation.

        Args:
            family: "factorised" or "full covariance" (the posterior itself).

        Returns:
            `GaussianQ`.
        """
        gain = self._whole.posterior_covariance() @ (self._emission / self._noise[:, None] ** 2).T
        num_seen = self.noise_seen.size
        return GaussianQ(gain[:, :num_seen], gain[:, num_seen:], self._covariance(family))

    def best_shared(self, family="factorised"):
        """q*_C, the best function of c alone: mean E[z | c], covariance as `best_per_datum`."""
        return self._blind(self._filter_gain(), family)

    def best_network(self, width, family="factorised"):
        """The best q whose mean passes through `width` linear hidden units.

        The loss of a weight matrix W is 1/2 tr(L (W - W*) Cov(c) (W - W*)'), so the optimum is a
        truncated singular value decomposition of L^(1/2) W* Cov(c)^(1/2).

        Args:
            width: number of hidden units, >= 0 (0: a constant mean).
            family: "factorised" or "full covariance".

        Returns:
            `GaussianQ`.
        """
        width = _checks.integer(width, "width", minimum=0)
        left, right = self._whitening()
        u, values, v = np.linalg.svd(left @ self._filter_gain() @ right)
        count = min(width, values.size)
        truncated = (u[:, :count] * values[:count]) @ v[:count]
        weights = np.linalg.solve(left, truncated) @ np.linalg.inv(right)
        return self._blind(weights, family)

    def train_network(self, width, num_steps, *, learning_rate=0.02, family="factorised", seed=0):
        """Gradient descent on the exact expected negative ELBO, from a random start.

        Args:
            width: number of hidden units, >= 0.
            num_steps: of gradient descent, >= 0.
            learning_rate: > 0.
            family: "factorised" or "full covariance".
            seed: of the start.

        Returns:
            `GaussianQ` after the last step.

        Raises:
            ValueError: if an argument is out of range, or the descent diverges.
        """
        width = _checks.integer(width, "width", minimum=0)
        num_steps = _checks.integer(num_steps, "num_steps", minimum=0)
        learning_rate = _checks.positive_float(learning_rate, "learning_rate")
        family = _checks.one_of(family, "family", FAMILIES)
        rng = np.random.default_rng(seed)
        state = (
            rng.normal(size=(self.num_latents, width)) / math.sqrt(max(1, width)),
            rng.normal(size=(width, self.noise_seen.size)) / math.sqrt(self.noise_seen.size),
            np.eye(self.num_latents),
        )
        mask = np.eye(self.num_latents) if family == "factorised" else np.tri(self.num_latents)
        precision, gain = self.posterior_precision(), self._filter_gain()
        problem = precision, gain, self._seen_covariance(), mask
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(num_steps):
                state = _step(*state, problem, learning_rate)
        if not all(np.all(np.isfinite(array)) for array in state):
            raise ValueError(
                f"Gradient descent diverged within {num_steps} steps at learning rate "
                f"{learning_rate:g}. Use a smaller learning rate."
            )
        decoder, encoder, cholesky = state
        return self._blind(decoder @ encoder, family)._replace(covariance=cholesky @ cholesky.T)

    def decompose(self, width, num_steps, *, learning_rate=0.02, family="factorised", seed=0):
        """Split evidence - ELBO of a trained network into its four parts.

        approximation = 1/2 (sum_i ln L_ii - ln det L)   (zero for the full covariance),
        conditioning  = 1/2 (tr(L Cov(z | c)) - d),
        capacity      = half the squared singular values that `width` leaves out,
        optimisation  = ELBO of `best_network` - ELBO of `train_network`.

        Args: as `train_network`.

        Returns:
            `Parts`; `elbo` is the trained network's, computed without the posterior.
        """
        trained = self.train_network(
            width, num_steps, learning_rate=learning_rate, family=family, seed=seed
        )
        precision = self.posterior_precision()
        approximation = self._whole.approximation_gap() if family == "factorised" else 0.0
        conditioning = 0.5 * (np.trace(precision @ self.filter_covariance()) - self.num_latents)
        left, right = self._whitening()
        values = np.linalg.svd(left @ self._filter_gain() @ right, compute_uv=False)
        elbo = self.expected_elbo(trained)
        return Parts(
            evidence=self.expected_evidence(),
            approximation=approximation,
            conditioning=max(0.0, float(conditioning)),  # rounding where everything is seen
            capacity=0.5 * float(np.sum(values[width:] ** 2)),
            optimisation=self.expected_elbo(self.best_network(width, family)) - elbo,
            elbo=elbo,
        )

    def with_all_conditions(self):
        """The same model and data for a network that sees every reading: nothing is left out."""
        return FourGaps(self._emission, self._noise, np.zeros((0, self.num_latents)), [])

    def _blind(self, weights, family):
        unseen = np.zeros((self.num_latents, self.noise_unseen.size))
        return GaussianQ(weights, unseen, self._covariance(family))

    def _covariance(self, family):
        """Best covariance of the family under KL(q || posterior)."""
        if _checks.one_of(family, "family", FAMILIES) == "factorised":
            return np.diag(1.0 / np.diag(self.posterior_precision()))
        return self._whole.posterior_covariance()

    def _filter_gain(self):
        """W* of E[z | c] = W* c."""
        return self.filter_covariance() @ (self.emission_seen / self.noise_seen[:, None] ** 2).T

    def _whitening(self):
        """L^(1/2) and Cov(c)^(1/2): in their units the loss of W is a plain squared distance."""
        left = np.real(linalg.sqrtm(self.posterior_precision()))
        return left, np.real(linalg.sqrtm(self._seen_covariance()))

    def _seen_covariance(self):
        return self.emission_seen @ self.emission_seen.T + np.diag(self.noise_seen**2)

    def _data_covariance(self):
        return self._emission @ self._emission.T + np.diag(self._noise**2)


def _step(decoder, encoder, cholesky, problem, learning_rate):
    """One step of gradient descent; the diagonal of the Cholesky factor moves in its logarithm."""
    precision, gain, seen_covariance, mask = problem
    gradient = precision @ (decoder @ encoder - gain) @ seen_covariance
    new_decoder = decoder - learning_rate * gradient @ encoder.T
    new_encoder = encoder - learning_rate * decoder.T @ gradient
    slope = precision @ cholesky
    diagonal = np.diag(cholesky)
    new_diagonal = diagonal * np.exp(-learning_rate * (np.diag(slope) * diagonal - 1))
    below = (cholesky - learning_rate * slope) * (mask - np.eye(len(mask)))
    return new_decoder, new_encoder, below + np.diag(new_diagonal)


def _sensors(emission, noise, name):
    """Return emission [readings, latents] and noise [readings] of one sensor."""
    emission = _checks.finite_array(emission, f"emission_{name}", ndim=2)
    noise = _checks.positive_array(noise, f"noise_{name}", ndim=1)
    if emission.shape[0] != noise.size or emission.shape[1] == 0:
        raise ValueError(
            f"emission_{name} must have one row per entry of noise_{name}, but has shape "
            f"{emission.shape} for {noise.size} noises. Give one standard deviation per reading."
        )
    return emission, noise
