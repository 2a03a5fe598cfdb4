"""KL balancing on the linear-Gaussian chain: what is learned when q and p are weighed apart.

World models split KL(q || p) into KL(stop(q) || p), which teaches p, and beta KL(q || stop(p)),
which teaches q (Hafner et al. 2023). So q ascends E_q ln p(x | z) - beta KL(q || p(z)): it is the
best q of a model whose sensor noise is r = beta R, and p ascends E_q ln p(x, z). With L_k(theta, r)
the expected ELBO of look-ahead k, dynamics theta and sensor noise r, both climb

    J(theta, r) = L_k(theta, r) - T (1 - beta) / (2 beta) ln r

for one observed channel and T steps. Fixed points solve d L*_k / d ln r = T (1 - beta) / (2 beta),
L*_k the best bound at sensor noise r; J itself grows without limit as r -> 0. Where R is held
fixed, only r = beta R is left of beta. Derived for this book.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from scipy import integrate, optimize

from tfp_gaps import _checks
from tfp_gaps.exact import linear_gaussian
from tfp_gaps.exact import linear_gaussian_learning as learning
from tfp_gaps.exact import linear_gaussian_recursions as recursions
from tfp_gaps.exact._numerics import algebra, bfgs

# Sensor noise below this, in units of the data's, stands for none.
NO_NOISE = 1e-8
# A flow ends here, where it would become stiff.
LITTLE_NOISE = 1e-6


class Balanced(NamedTuple):
    """Where balanced learning ends.

    model: the learned `LinearGaussian`, with the R that p states; q acts on beta R.
    loss: expected log-likelihood that it lacks, nats per step.
    steps: updates, or evaluations, that it took.
    """

    model: linear_gaussian.LinearGaussian
    loss: float
    steps: int


def loss(data_model, model, num_timesteps):
    """Expected log-likelihood that `model` lacks on data of `data_model`, nats per step."""
    truth, reached = (
        linear_gaussian.log_likelihood(data_model, each, num_timesteps)
        for each in (data_model, model)
    )
    return (truth - reached) / num_timesteps


# Alternating updates ------------------------------------------------------------------------------


def alternate(
    data_model,
    num_timesteps,
    lookahead,
    beta,
    *,
    start=None,
    learn_noise=True,
    free_nats=0.0,
    tolerance=1e-9,
    max_steps=20_000,
):
    """Alternate the best q for sensor noise beta R with the model of the highest E_q ln p(x, z).

    Args:
      data_model: `LinearGaussian` of the data, one observed channel.
      num_timesteps: T.
      lookahead: k of q; None for full conditions.
      beta: weight of the divergence for q over its weight for p, 0 < beta <= 1.
      start: model to start from, whose emission is kept; None for `data_model`.
      learn_noise: whether R is learned; otherwise it stays as in `start`.
      free_nats: a divergence of q from p(z) up to this costs q nothing; nats per step, on average
        over steps and data. The model is trained on all of it.
      tolerance: ends when no parameter moves by more, relatively where it is a variance.
      max_steps: updates after which it ends in any case.

    Returns:
      `Balanced`.

    Raises:
      ValueError: for bad sizes, several channels, or a beta outside (0, 1].

    >>> chain = linear_gaussian.LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    >>> end = alternate(chain, 8, None, 0.1)
    >>> round(end.model.transition.item(), 3), round(end.loss, 4)
    (0.31, 0.0252)
    >>> bool(end.model.emission_cov.item() <= NO_NOISE)
    True
    """
    _check(data_model, num_timesteps, beta)
    model = data_model if start is None else start
    observed = learning.observation_covariance(data_model, num_timesteps)
    floor = NO_NOISE * data_model.emission_cov.item() if learn_noise else 0.0
    moved, steps = np.inf, 0
    while steps < max_steps and moved >= tolerance and model.emission_cov.item() >= floor:
        weight = _weight(data_model, model, observed, lookahead, beta, free_nats)
        factors = _best_q(data_model, model, num_timesteps, lookahead, weight)
        updated = _best_model(model, _moments(factors, observed), learn_noise)
        moved, model, steps = _distance(model, updated), updated, steps + 1
    return Balanced(model, loss(data_model, model, num_timesteps), steps)


def _best_q(data_model, model, num_timesteps, lookahead, weight):
    sharper = dataclasses.replace(model, emission_cov=weight * model.emission_cov)
    return linear_gaussian.shared_factors(data_model, sharper, num_timesteps, lookahead)


class _Moments(NamedTuple):
    """Of a path under q and the data: E z_t z_t' [T, n, n], E z_t z_{t-1}' [T - 1, n, n],
    E z_t x_t [T, n] and E x_t^2 [T]."""

    states: np.ndarray
    lagged: np.ndarray
    crossed: np.ndarray
    observed: np.ndarray


def _moments(factors, observed):
    num_timesteps, size, *_ = factors.observation_weights.shape
    of_x, noise = np.zeros((size, num_timesteps)), np.zeros((size, size))
    states, lagged, crossed = [], [], []
    for t in range(num_timesteps):
        forward = factors.transition[t]
        earlier, weights = of_x, factors.observation_weights[t, :, :, 0]
        of_x = forward @ earlier + weights
        lagged.append(of_x @ observed @ earlier.T + forward @ noise)
        noise = algebra.congruence(forward, noise) + factors.covariance[t]
        states.append(algebra.congruence(of_x, observed) + noise)
        crossed.append(of_x @ observed[:, t])
    return _Moments(
        np.stack(states), np.stack(lagged[1:]), np.stack(crossed), np.diagonal(observed)
    )


def _best_model(model, moments, learn_noise):
    """The model of the highest E_q ln p(x, z), with the emission of `model`."""
    before, after = moments.states[:-1].sum(0), moments.states[1:].sum(0)
    lagged = moments.lagged.sum(0)
    transition = np.linalg.solve(before, lagged.T).T
    steps = len(moments.observed)
    process = algebra.symmetric(after - transition @ lagged.T) / (steps - 1)
    sensor = _squared_error(model, moments) / steps if learn_noise else model.emission_cov
    return linear_gaussian.LinearGaussian(
        transition, process, model.emission, sensor, algebra.symmetric(moments.states[0])
    )


def _squared_error(model, moments):
    """sum_t E (x_t - C z_t)^2."""
    emission = model.emission[0]
    crossed = moments.crossed.sum(0) @ emission
    return moments.observed.sum() - 2 * crossed + emission @ moments.states.sum(0) @ emission


def _distance(before, after):
    pairs = [(getattr(before, f.name), getattr(after, f.name)) for f in dataclasses.fields(before)]
    change = [np.max(np.abs(new - old)) / max(np.max(np.abs(old)), 1e-300) for old, new in pairs]
    # The memory may pass through zero.
    return max(np.max(np.abs(after.transition - before.transition)), *change[1:])


def _weight(data_model, model, observed, lookahead, beta, free_nats):
    """beta, or the smaller weight at which the divergence from p(z) has just the free nats.

    q that pays beta max(KL, free) is the best q of the smallest weight w <= beta with KL <= free,
    if there is one.
    """
    size = len(observed)

    def excess(log_weight):
        factors = _best_q(data_model, model, size, lookahead, np.exp(log_weight))
        return divergence(model, factors, observed) - free_nats

    if free_nats == 0 or excess(np.log(beta)) >= 0:
        return beta
    return float(np.exp(optimize.brentq(excess, np.log(beta) - 60, np.log(beta), xtol=1e-12)))


def divergence(model, factors, observed):
    """E KL(q || p(z)) per step, p(z) the chain of `model` without its observations.

    Args:
      model: `LinearGaussian`.
      factors: `linear_gaussian.SharedFactors`, q.
      observed: covariance of x_{1:T}, [T, T].

    Returns:
      nats per step.

    >>> chain = linear_gaussian.LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    >>> q = linear_gaussian.shared_factors(chain, chain, 8, None)
    >>> x_cov = learning.observation_covariance(chain, 8)
    >>> round(divergence(chain, q, x_cov), 4)
    0.142
    """
    moments = _moments(factors, observed)
    a, lagged = model.transition, moments.lagged.sum(0)
    before, after = moments.states[:-1].sum(0), moments.states[1:].sum(0)
    moves = after - a @ lagged.T - lagged @ a.T + a @ before @ a.T
    steps = len(observed)
    inverse = [np.linalg.inv(model.transition_cov), np.linalg.inv(model.initial_cov)]
    fit = np.trace(inverse[0] @ moves) + np.trace(inverse[1] @ moments.states[0])
    log_dets = -np.linalg.slogdet(factors.covariance)[1].sum()
    log_dets += (steps - 1) * np.linalg.slogdet(model.transition_cov)[1]
    log_dets += np.linalg.slogdet(model.initial_cov)[1]
    return float(0.5 * (fit + log_dets - steps * model.state_size) / steps)


# The best bound at a given sensor noise -----------------------------------------------------------


class Profile(NamedTuple):
    """The best dynamics at a given sensor noise.

    model: `LinearGaussian` with that sensor noise.
    elbo: L*_k, its expected ELBO, nats per step.
    slope: d L*_k / d ln r, nats per step.
    loss: log-likelihood that the model lacks, nats per step.
    """

    model: linear_gaussian.LinearGaussian
    elbo: float
    slope: float
    loss: float


FAMILIES = ("chain", "spare", "path")


def profile(data_model, num_timesteps, lookahead, noise, *, family="chain"):
    """Maximise the expected ELBO over the dynamics while the sensor noise is held.

    Args:
      data_model: scalar `LinearGaussian` of the data.
      num_timesteps: T.
      lookahead: k of q; None for full conditions.
      noise: r, the sensor noise that q and the bound use.
      family: "chain", a scalar state (a, Q, P_0); "spare", a state of two components, the first
        of which is observed; "path", z_t ~ N(h_t, Q) with h_t = f h_{t-1} + g z_{t-1} that has no
        noise of its own, the deterministic path of a world model.

    Returns:
      `Profile`.

    Raises:
      ValueError: for an unknown family, a data model that is not scalar, or bad sizes.

    >>> chain = linear_gaussian.LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    >>> found = profile(chain, 8, None, 1.0)  # at the truth's own noise
    >>> round(found.model.transition.item(), 4), abs(found.loss) < 1e-9, abs(found.slope) < 1e-6
    (0.9, True, True)
    """
    _check(data_model, num_timesteps, 1.0)
    build, starts = _family(data_model, num_timesteps, family)
    data = recursions.padded(data_model, 1 if family == "chain" else 2)
    predicted, _ = recursions.forward(data, num_timesteps)
    k = _checks.look_ahead(lookahead, num_timesteps)

    def bound(values, log_noise):
        model = build(values, np.exp(log_noise))
        return recursions.bound(data, predicted, model, num_timesteps, k) / num_timesteps

    def objective(row):
        return bfgs.complex_step(lambda v: -bound(v, np.log(noise)), row)

    ends = bfgs.minimise_each(objective, starts, tolerance=1e-9)
    best = ends.vectors[np.argmin(ends.values)]
    step = bfgs.COMPLEX_STEP
    slope = float(bound(best + 0j, np.log(noise) + 1j * step).imag / step)
    model = linear_gaussian.LinearGaussian(*build(best, noise)[:-1])
    lost = loss(data_model, model, num_timesteps)
    return Profile(model, -float(ends.values.min()), slope, lost)


def fixed_noise(data_model, num_timesteps, lookahead, beta, *, noise=None, family="chain"):
    """Balanced learning with R held: the best bound at sensor noise beta R, for p read with R.

    Args:
      data_model, num_timesteps, lookahead, family: as in `profile`.
      beta: as in `alternate`.
      noise: R; None for that of the data.

    Returns:
      `Balanced`.

    Raises:
      ValueError: as `profile` and `alternate`.

    >>> chain = linear_gaussian.LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    >>> [round(fixed_noise(chain, 8, k, 0.1).loss, 4) for k in (0, None)]
    [0.0843, 0.0822]
    """
    _check(data_model, num_timesteps, beta)
    held = data_model.emission_cov.item() if noise is None else noise
    found = profile(data_model, num_timesteps, lookahead, beta * held, family=family).model
    model = dataclasses.replace(found, emission_cov=np.array([[held]]))
    return Balanced(model, loss(data_model, model, num_timesteps), 1)


def critical_beta(data_model, num_timesteps, lookahead, *, num_noises=12):
    """Below this beta no sensor noise is left, wherever learning starts: J has no maximum.

        beta_c = 1 / (1 + 2 max_r s(r)),   s = d L*_k / d ln r per step

    Args:
      data_model, num_timesteps, lookahead: as in `profile`.
      num_noises: r from .03 to 1.5 times that of the data at which s is computed, before the
        largest is refined; below, s is about proportional to r.

    Returns:
      beta_c, 1 if s is nowhere positive; and the list of `Profile`, by rising r.

    Raises:
      ValueError: as `profile`.

    >>> chain = linear_gaussian.LinearGaussian.stationary(0.9, 0.5, 1.0, 0.05)
    >>> beta, profiles = critical_beta(chain, 4, None, num_noises=5)
    >>> 0 < beta < 1, len(profiles)
    (True, 5)
    """
    truth = data_model.emission_cov.item()
    logs = np.log(truth * np.geomspace(0.03, 1.5, num_noises))

    def at(log_noise):
        return profile(data_model, num_timesteps, lookahead, float(np.exp(log_noise)))

    profiles = [at(each) for each in logs]
    top = int(np.argmax([each.slope for each in profiles]))
    around = logs[max(top - 1, 0)], logs[min(top + 1, num_noises - 1)]
    found = optimize.minimize_scalar(
        lambda u: -at(u).slope, bounds=around, method="bounded", options={"xatol": 5e-3}
    )
    steepest = max(-found.fun, profiles[top].slope, 0.0)
    return float(1 / (1 + 2 * steepest)), profiles


def _family(data_model, num_timesteps, family):
    """(values, r) -> `Matrices`, and start vectors near the truth and near the copy."""
    _checks.one_of(family, "family", FAMILIES)
    a, q, c, _, p = (getattr(data_model, f.name).item() for f in dataclasses.fields(data_model))
    fit = linear_gaussian.best_autoregression(data_model, num_timesteps)
    copy = fit.transition.item(), fit.innovation_cov.item() / c**2, fit.initial_cov.item() / c**2
    return {"chain": _plain, "path": _path, "spare": _spare}[family](c, [(a, q, p), copy])


def _plain(emission, ends):
    def build(values, noise):
        memory, process, initial = values[..., 0], np.exp(values[..., 1]), np.exp(values[..., 2])
        ones = np.ones_like(memory)
        parts = memory, process, emission * ones, noise * ones, initial
        square = [each[..., np.newaxis, np.newaxis] for each in parts]
        return recursions.Matrices(*square, np.zeros((*memory.shape, 1, 0)))

    return build, np.array([[memory, *np.log([process, start])] for memory, process, start in ends])


def _path(emission, ends):
    """State (z, h), h the path: both are g z + f h before the noise of z."""

    def build(values, noise):
        forget, gain, process, initial = (values[..., i] for i in range(4))
        rows = np.stack([gain, forget], -1)
        driven, first = (
            np.exp(v)[..., np.newaxis, np.newaxis] * np.diag([1.0, 0.0]) for v in (process, initial)
        )
        seen = emission * np.array([[1.0, 0.0]]) + 0 * driven[..., :1, :]
        sensor = noise * np.ones_like(gain)[..., np.newaxis, np.newaxis]
        control = np.zeros((*gain.shape, 2, 0))
        return recursions.Matrices(np.stack([rows, rows], -2), driven, seen, sensor, first, control)

    shares = [(forget, end) for end in ends for forget in (0.05, 0.5)]
    return build, np.array([[f, m - f, *np.log([q, p])] for f, (m, q, p) in shares])


def _spare(emission, ends):
    """Two components, the first observed; all of A, Q and P_0 free."""
    row = np.array([[emission, 0.0]])
    space = learning.ParameterSpace(row, 2)
    held = 4 + 3  # where the sensor noise stands, after A and the factor of Q

    def build(values, noise):
        log_scale = 0.5 * np.log(noise) * np.ones_like(values[..., :1])
        parts = values[..., :held], log_scale, values[..., held:]
        return space.matrices(np.concatenate(parts, -1))

    starts = []
    for memory, process, initial in ends:
        for spare in (0.1, 0.5):
            start = recursions.Matrices(
                np.array([[memory, spare], [spare, 0.5]]),
                process * np.array([[1.0, spare], [spare, 1.0]]),
                row,
                np.eye(1),
                initial * np.eye(2),
                np.zeros((2, 0)),
            )
            starts.append(np.delete(space.vector(start), held))
    return build, np.stack(starts)


# Gradient ascent with stopped gradients -----------------------------------------------------------


def climb(data_model, num_timesteps, lookahead, beta, start, *, through=False, time=1000.0):
    """Let q and p climb at once, each along its own gradient with the other's stopped.

    The flow d parameters / d time = gradient, nats per sequence, over the weights of q, its
    variances and the model's (as logarithms), from a q that is the prior of `start`.

    Args:
      data_model: scalar `LinearGaussian` of the data.
      num_timesteps, lookahead, beta: as in `alternate`.
      start: scalar `LinearGaussian` to start from, with emission 1.
      through: whether the gradient of KL(stop(q) || p) flows back into earlier steps of q, as it
        does through the sampled latents that p is given in the code of DreamerV3; if not, q
        descends beta KL as a whole, as in `alternate`.
      time: at which the flow ends, if neither sensor noise nor process noise is gone before.

    Returns:
      `Balanced`.

    Raises:
      ValueError: as `alternate`, or if an emission is not one.
    """
    _check(data_model, num_timesteps, beta)
    for each in (data_model, start):
        if each.state_size != 1 or each.emission.item() != 1.0:
            raise ValueError(
                "climb knows scalar chains with emission 1, but was given another. Rescale the "
                "state."
            )
    flow = _Flow(data_model, num_timesteps, lookahead, beta, through)
    floor = np.log(LITTLE_NOISE * data_model.emission_cov.item())

    def gone(_, values):
        return min(values[-3:-1]) - floor

    gone.terminal = True
    found = integrate.solve_ivp(
        lambda _, values: flow.gradient(values),
        (0.0, time),
        flow.vector(start),
        method="BDF",
        events=gone,
        rtol=1e-4,
        atol=1e-7,
    )
    a, process, sensor, initial = found.y[-4, -1], *np.exp(found.y[-3:, -1])
    model = linear_gaussian.LinearGaussian(a, process, 1.0, sensor, initial)
    return Balanced(model, loss(data_model, model, num_timesteps), int(found.nfev))


class _Flow:
    """The field of `climb`; values are A [T - 1], W where it is seen, ln D [T], a, ln Q, ln R,
    ln P_0."""

    def __init__(self, data_model, num_timesteps, lookahead, beta, through):
        k = _checks.look_ahead(lookahead, num_timesteps)
        self.size, self.beta = num_timesteps, beta
        self.back = 1.0 if through else beta
        self.seen = np.tri(num_timesteps, k=k, dtype=bool)
        observed = learning.observation_covariance(data_model, num_timesteps)
        # Everything is linear in (x, unit noise of q).
        self.covariance = np.block(
            [
                [observed, np.zeros_like(observed)],
                [np.zeros_like(observed), np.eye(num_timesteps)],
            ]
        )
        self.cuts = np.cumsum([num_timesteps - 1, self.seen.sum(), num_timesteps])

    def vector(self, model):
        a, q, _, r, p = (getattr(model, f.name).item() for f in dataclasses.fields(model))
        scales = np.log(np.append(p, np.full(self.size - 1, q)))
        weights = np.zeros(self.seen.sum())
        ends = [a, *np.log([q, r, p])]
        return np.concatenate([np.full(self.size - 1, a), weights, scales, ends])

    def gradient(self, values):
        """Ascent direction of every parameter."""
        latents, weights, log_scales, (a, *logs) = np.split(values, self.cuts)
        size, scales, latents = self.size, np.exp(log_scales), np.append(0.0, latents)
        q, r, p = np.exp(logs)
        priors, memory = np.append(p, np.full(size - 1, q)), np.append(0.0, np.full(size - 1, a))
        means, states = self._forward(latents, weights, scales)
        before = np.vstack([np.zeros(2 * size), states[:-1]])
        apart = means - memory[:, np.newaxis] * before  # mean of q less mean of p
        errors = np.eye(size, 2 * size) - states
        by_mean, by_state = self._backward(latents, errors / r, apart / priors[:, np.newaxis], a)
        seen = self.covariance @ by_mean.T  # Cov(all, by_mean_t)
        noise = by_state[np.arange(size), size + np.arange(size)]
        return np.concatenate(
            [
                np.einsum("ti,it->t", before, seen)[1:],
                seen[:size].T[self.seen],
                0.5 * np.sqrt(scales) * noise + 0.5 * self.beta * (1 - scales / priors),
                self._to_model(states, apart, errors, scales, (a, q, r, p)),
            ]
        )

    def _backward(self, latents, pull, apart, memory):
        """Derivatives by the mean of q and by z_t, as weights of (x, noise): both [T, 2 T].

        Args:
          latents: A, [T].
          pull: (x_t - z_t) / R, [T, 2 T].
          apart: mean of q less that of p, over the variance of p, [T, 2 T].
          memory: a.
        """
        by_mean, by_state = np.zeros_like(pull), pull.copy()
        for t in reversed(range(self.size)):
            if t + 1 < self.size:
                by_state[t] += latents[t + 1] * by_mean[t + 1] + self.back * memory * apart[t + 1]
            by_mean[t] = by_state[t] - self.beta * apart[t]
        return by_mean, by_state

    def _to_model(self, states, apart, errors, scales, parameters):
        """Derivatives of E_q ln p(x, z) by a, ln Q, ln R and ln P_0."""
        (a, q, r, p), size = parameters, self.size
        second = states @ self.covariance @ states.T
        squares = np.einsum("ti,ij,tj->t", apart, self.covariance, apart) + scales
        error = np.einsum("ti,ij,tj->", errors, self.covariance, errors)
        slope = np.trace(second[1:, :-1]) - a * np.trace(second[:-1, :-1])
        return [
            slope / q,
            0.5 * (squares[1:].sum() / q - (size - 1)),
            0.5 * (error / r - size),
            0.5 * (squares[0] / p - 1),
        ]

    def _forward(self, latents, weights, scales):
        """Means of q and states, as weights of (x, noise): both [T, 2 T]."""
        size = self.size
        full = np.zeros((size, 2 * size))
        full[:, :size][self.seen] = weights
        means, states, before = [], [], np.zeros(2 * size)
        for t in range(size):
            means.append(latents[t] * before + full[t])
            before = means[-1].copy()
            before[size + t] += np.sqrt(scales[t])
            states.append(before)
        return np.stack(means), np.stack(states)


# Checks -------------------------------------------------------------------------------------------


def _check(data_model, num_timesteps, beta):
    _checks.integer(num_timesteps, "num_timesteps", minimum=2)
    if data_model.observation_size != 1:
        raise ValueError(
            f"Balanced learning is worked out for one observed channel, but the data have "
            f"{data_model.observation_size}. Use a `LinearGaussian` with one."
        )
    if not 0 < beta <= 1:
        raise ValueError(f"beta must be above 0 and at most 1, but is {beta!r}.")
