"""A linear-Gaussian chain as one large normal distribution: the slow, obvious second route.

    (z_1, ..., z_T, x_1, ..., x_T) ~ N(0, Sigma),   Cov(z_s, z_t) = Var(z_s) (A')^(t-s) for s <= t

Conditioning Sigma with generic linear algebra gives every posterior of the chain, at cubic cost in
T. The book uses it to check what the recursions of `linear_gaussian` say, not to compute with it.
"""

from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks
from tfp_gaps.exact import linear_gaussian


class JointGaussian:
    """Covariance of all states and observations of a chain, and conditioning on any of them.

    Args:
      model: a `linear_gaussian.LinearGaussian`.
      num_timesteps: T.

    Raises:
      ValueError: if `num_timesteps` is not a positive integer.

    >>> joint = JointGaussian(linear_gaussian.LinearGaussian(0.9, 0.1, 1.0, 1.0, 0.5), 2)
    >>> joint.covariance.shape, joint.state(1).tolist(), joint.seen_until(0).tolist()
    ((4, 4), [1], [2])
    """

    def __init__(self, model, num_timesteps):
        self.num_timesteps = _checks.integer(num_timesteps, "num_timesteps", minimum=1)
        self._sizes = model.state_size, model.observation_size
        states = self._state_covariance(model)
        emission = np.kron(np.eye(num_timesteps), model.emission)
        noise = np.kron(np.eye(num_timesteps), model.emission_cov)
        cross = states @ emission.T
        self.covariance = np.block([[states, cross], [cross.T, emission @ cross + noise]])

    def _state_covariance(self, model):
        rows, variance = [], model.initial_cov
        for s in range(self.num_timesteps):
            if s > 0:
                variance = model.transition @ variance @ model.transition.T + model.transition_cov
            lags = range(self.num_timesteps - s)
            later = [variance @ np.linalg.matrix_power(model.transition, lag).T for lag in lags]
            rows.append([row[s].T for row in rows] + later)
        return np.block(rows)

    @property
    def states(self):
        """Indices of z_1, ..., z_T."""
        return np.arange(self.num_timesteps * self._sizes[0])

    @property
    def observations(self):
        """Indices of x_1, ..., x_T."""
        return np.arange(len(self.states), len(self.covariance))

    def state(self, t):
        """Indices of the state at step `t`, counted from 0."""
        return self.states.reshape(self.num_timesteps, -1)[t]

    def seen_until(self, t):
        """Indices of all observations up to and including step `t`, counted from 0."""
        return self.observations.reshape(self.num_timesteps, -1)[: t + 1].ravel()

    def condition(self, targets, given):
        """Regress `targets` on `given`.

        Returns:
          weights: [targets, given], E[targets | given] = weights given.
          covariance: of `targets` given them.
        """
        cross = self.covariance[np.ix_(given, targets)]
        weights = np.linalg.solve(self.covariance[np.ix_(given, given)], cross).T
        return weights, self.covariance[np.ix_(targets, targets)] - weights @ cross


class Residuals(NamedTuple):
    """Largest absolute differences between two routes to the same posterior.

    product: all factors p(z_t | z_{t-1}, x_{t:T}) of the recursion multiplied out, against the
      posterior of z_{1:T} by conditioning: weights of x and covariances.
    shielded: weight of x_{1:t-1} in p(z_t | z_{t-1}, x_{1:T}), by conditioning; should be absent.
    mixture: filter variance - smoother variance - variance of the smoother's mean given x_{1:t}.
    """

    product: float
    shielded: float
    mixture: float


def residuals(model, num_timesteps):
    """Compare the recursions of a chain with conditioning of its joint distribution.

    Args:
      model: a `linear_gaussian.LinearGaussian`.
      num_timesteps: T; a few dozen at most.

    Returns:
      `Residuals`.

    Raises:
      ValueError: if `num_timesteps` is not a positive integer.

    >>> model = linear_gaussian.LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    >>> max(residuals(model, 6)) < 1e-10
    True
    """
    joint = JointGaussian(model, num_timesteps)
    factors = linear_gaussian.shared_factors(model, model, num_timesteps, None)
    smoother, covariance = joint.condition(joint.states, joint.observations)
    weights, product_cov = _multiplied_out(factors)
    filtered = linear_gaussian.online_filter(model, num_timesteps).filtered_cov
    shielded, mixture = [0.0], []
    for t in range(num_timesteps):
        here, past = joint.state(t), joint.seen_until(t)
        if t > 0:
            before = joint.state(t - 1)
            of_all, _ = joint.condition(here, np.append(before, joint.observations))
            first = len(before)
            shielded.append(np.max(np.abs(of_all[:, first : first + len(joint.seen_until(t - 1))])))
        _, open_future = joint.condition(joint.observations, past)
        spread = smoother[here] @ open_future @ smoother[here].T
        mixture.append(np.max(np.abs(filtered[t] - covariance[np.ix_(here, here)] - spread)))
    apart = np.max(np.abs(weights - smoother)), np.max(np.abs(product_cov - covariance))
    return Residuals(float(max(apart)), float(max(shielded)), float(max(mixture)))


def _multiplied_out(factors):
    """Weights of x and covariance of (z_1, ..., z_T) under a product of factors."""
    num_timesteps, size = factors.transition.shape[:2]
    chain = np.eye(num_timesteps * size)
    noise = np.zeros_like(chain)
    for t in range(num_timesteps):
        rows = slice(t * size, (t + 1) * size)
        noise[rows, rows] = factors.covariance[t]
        if t > 0:
            chain[rows, (t - 1) * size : t * size] = -factors.transition[t]
    inverse = np.linalg.inv(chain)
    weights = factors.observation_weights.reshape(num_timesteps * size, -1)
    return inverse @ weights, inverse @ noise @ inverse.T
