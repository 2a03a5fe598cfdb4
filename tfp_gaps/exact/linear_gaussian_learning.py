"""Maximise the expected ELBO of a linear-Gaussian chain over its parameters.

    max_theta  E ln p_theta(x_{1:T}) - gap_k(theta),     expectation under a known data law

Covariances are parametrised by Cholesky factors with logarithmic diagonals, the state's coordinates
are fixed as far as possible through the emission; BFGS climbs (`_numerics.bfgs`), with complex
steps for gradients, and all directions form one batch of the recursions. Competing optima at R -> 0
(autoregressions) and Q -> 0 exist, so that several starts are needed. Chains with inputs
(`lqg_learning`) and without share this search.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

from tfp_gaps import _checks
from tfp_gaps.exact import linear_gaussian_recursions as recursions
from tfp_gaps.exact._numerics import algebra, bfgs

# Standard deviations end here, in units of the data: it stands for zero.
SMALLEST_SCALE = 1e-7
# Starts near a noise-free corner keep this share of noise: in the corner itself a logarithm of
# the noise has no gradient, and the search could not leave.
LITTLE_NOISE = 1e-3
# Two end points whose losses agree to this (nats, and relative) count as one optimum.
SAME_LOSS = 1e-6


class Starts(NamedTuple):
    """Where to search from.

    state_size: size of the learned state; None for that of the data.
    num_random: random starts beside the structured ones.
    seed: of the random starts.
    from_truth: whether the truth, and the truth with one noise made small, are starts.
    """

    state_size: int | None
    num_random: int
    seed: int
    from_truth: bool


class Search(NamedTuple):
    """How to search.

    minimise: `bfgs.minimise` or `bfgs.minimise_each`.
    stages: (tolerance, same, max_steps) of each stage, which goes on from where the one before has
      ended and forgets its curvature: largest entry of the gradient at the end, nats per unit of a
      parameter; ends whose losses agree to this (nats, and relative) go on as one, None: all go on;
      most steps.
    most: how many ends go on at most.
    finish: function of the bound and the model at an end that returns the final model, or None.
    """

    minimise: Callable
    stages: tuple
    most: int | None = None
    finish: Callable | None = None


# Loosely from everywhere, then tightly from the distinct ends; twice, for a last digit or two.
STAGES = (1e-4, SAME_LOSS, 500), (1e-10, None, 500), (1e-10, None, 500)
ONE_BY_ONE = Search(bfgs.minimise_each, STAGES)


class Optimum(NamedTuple):
    """One end point of the search.

    model: the learned chain.
    elbo: its `population_elbo`, nats per sequence.
    start: name of the start that led there.
    """

    model: Any
    elbo: float
    start: str


def maximise(data, num_timesteps, lookahead, starts, search=ONE_BY_ONE):
    """Climb from every start in units in which states and observations have variance one.

    Args:
      data: chain that generates the observations.
      num_timesteps: T.
      lookahead: k; None for all.
      starts: `Starts`.
      search: `Search`.

    Returns:
      A list of `Optimum`, models as `Matrices` in the units of the data; one for each distinct
      objective, best first.

    Raises:
      ValueError: for bad sizes, a negative `lookahead`, or if the bound is finite at no start.
    """
    k = _checks.look_ahead(lookahead, num_timesteps)
    state_scale, observation_scale = scales(data, num_timesteps)
    wanted = len(state_scale) if starts.state_size is None else starts.state_size
    starts = starts._replace(state_size=_checks.integer(wanted, "state_size", minimum=1))
    _checks.integer(starts.num_random, "num_starts", minimum=0)
    unit = rescaled(data, 1.0 / state_scale, 1.0 / observation_scale)
    size = max(wanted, len(state_scale))
    target = recursions.padded(unit, size)
    predicted, _ = recursions.forward(target, num_timesteps)

    def bound(model):
        judged = recursions.padded(model, size)
        return recursions.bound(target, predicted, judged, num_timesteps, k)

    ends = _climbed(bound, structured_starts(unit, num_timesteps, starts), search)
    if not ends:
        raise ValueError(
            "Nothing was learned: the expected ELBO is finite at no start, or there is none. Check "
            "that the variances of the data stay finite over num_timesteps, and that num_starts is "
            "positive if from_truth is False."
        )
    back = np.append(state_scale, np.ones(size - len(state_scale)))[:wanted]
    optima = []
    for _, model, name in ends:
        model = rescaled(model, back, observation_scale)
        elbo = recursions.population_elbo(data, model, num_timesteps, k)
        optima.append(Optimum(model, elbo, name))
    return optima


def _climbed(bound, starts, search):
    """All stages from all starts: (loss, `Matrices`, name) of each distinct end, best first."""
    finished = []
    for space, names, vectors in _grouped(starts):

        def loss(rows, space=space):
            return bfgs.complex_step(lambda v: -bound(space.matrices(v)), rows)

        ends = list(zip(np.full(len(names), np.inf), vectors, names, strict=True))
        for tolerance, same, max_steps in search.stages:
            _, rows, names = zip(*ends, strict=True)
            found = search.minimise(loss, np.stack(rows), tolerance=tolerance, max_steps=max_steps)
            ends = list(zip(found.values, found.vectors, names, strict=True))
            if same is not None:
                ends = distinct(ends, same)[: search.most]
            if not ends:
                break
        for value, vector, name in ends:
            model = space.matrices(vector)
            if search.finish is not None:
                model = search.finish(bound, model)
                value = -float(bound(model))
            finished.append((value, model, name))
    return distinct(finished)


def _grouped(starts):
    """Starts with the same emission share one `ParameterSpace` and climb together."""
    groups = {}
    for name, start in starts.items():
        groups.setdefault(start.emission.tobytes(), []).append((name, start))
    for members in groups.values():
        first = members[0][1]
        space = ParameterSpace(first.emission, *first.control.shape)
        names, models = zip(*members, strict=True)
        yield space, names, np.stack([space.vector(model) for model in models])


class ParameterSpace:
    """Real vectors to models and back; the emission moves only where the state cannot follow.

    Replacing z by T z changes nothing that is observed. Up to this freedom the emission is its
    start plus something orthogonal to the start's columns.

    Args:
      emission: [observation, state], where the search starts.
      state_size: n.
      num_inputs: columns of B.
    """

    def __init__(self, emission, state_size, num_inputs=0):
        self._emission = emission
        self._complement = scipy.linalg.null_space(emission.T)
        observations, free = self._complement.shape
        self._shapes = [("matrix", state_size, state_size)]
        self._shapes += [("covariance", n, n) for n in (state_size, observations, state_size)]
        self._shapes += [("matrix", free, state_size), ("matrix", state_size, num_inputs)]

    def vector(self, model):
        """Return the parameters of `model`, whose emission must be the one given at the start."""
        parts = [model.transition.ravel()]
        for covariance in (model.transition_cov, model.emission_cov, model.initial_cov):
            factor = _triangular_root(covariance)
            scales = np.maximum(np.diagonal(factor) - SMALLEST_SCALE, SMALLEST_SCALE)
            factor[np.diag_indices_from(factor)] = np.log(scales)
            parts.append(factor[np.tril_indices_from(factor)])
        parts.append(np.zeros(self._complement.shape[1] * len(model.transition)))
        return np.concatenate([*parts, model.control.ravel()])

    def matrices(self, vectors):
        """Return `Matrices` of one vector [size] or of a batch [batch, size]."""
        parts, position = [], 0
        for kind, rows, columns in self._shapes:
            size = rows * columns if kind == "matrix" else rows * (rows + 1) // 2
            piece = vectors[..., position : position + size]
            position += size
            if kind == "matrix":
                parts.append(piece.reshape(vectors.shape[:-1] + (rows, columns)))
            else:
                parts.append(_covariance(piece, rows))
        transition, transition_cov, emission_cov, initial_cov, free, control = parts
        emission = self._emission + self._complement @ free
        return recursions.Matrices(
            transition, transition_cov, emission, emission_cov, initial_cov, control
        )


def pooled_regression(data, num_timesteps, order):
    """Regress x_t on (x_{t-1}, ..., x_{t-order}) and u_{t-1} over all t, under the data's law.

    Inputs are white: the last one has coefficient C B, and does not change the others.

    Returns:
      coefficients: of x, [observation, order * observation].
      innovation_cov: [observation, observation], mean over t.
      initial_cov: covariance of (x_order, ..., x_1).
    """
    blocks = [_lagged_covariance(data, t, order + 1) for t in range(order, num_timesteps)]
    pooled, size = np.mean(blocks, axis=0), data.emission.shape[0]
    coefficients = np.linalg.solve(pooled[size:, size:], pooled[size:, :size]).T
    residual = np.hstack([np.eye(size), -coefficients])
    known = data.emission @ data.control
    innovation = algebra.symmetric(algebra.congruence(residual, pooled) - known @ known.T)
    return coefficients, innovation, _lagged_covariance(data, order - 1, order)


def observation_covariance(data, num_timesteps):
    """Covariance of (x_1, ..., x_T), oldest first: [T * observation, T * observation]."""
    newest_first = _lagged_covariance(data, num_timesteps - 1, num_timesteps)
    size = data.emission.shape[0]
    blocks = newest_first.reshape(num_timesteps, size, num_timesteps, size)
    return blocks[::-1, :, ::-1].reshape(newest_first.shape)


def distinct(ends, same=SAME_LOSS):
    """Sort (loss, ...) and drop what is not finite or repeats a loss to `same`."""
    kept = []
    for end in sorted(ends, key=lambda item: item[0]):
        new = not kept or end[0] - kept[-1][0] > same * (1.0 + abs(end[0]))
        if new and np.isfinite(end[0]):
            kept.append(end)
    return kept


def structured_starts(data, num_timesteps, wanted):
    """Name -> `Matrices`: the truth, the corners that a small gap rewards, and random ones."""
    state_size = wanted.state_size
    truth = _resized(data, state_size)
    emission_cov = truth.emission_cov
    state_part = algebra.congruence(truth.emission, truth.initial_cov + truth.transition_cov)
    starts = {
        "truth": truth,
        "small observation noise": truth._replace(emission_cov=LITTLE_NOISE * emission_cov),
        "small transition noise": truth._replace(
            transition_cov=LITTLE_NOISE * truth.transition_cov,
            emission_cov=emission_cov + state_part,
        ),
    }
    if not wanted.from_truth:
        starts.clear()
    order = state_size // len(emission_cov)
    if 1 <= order < num_timesteps:
        starts["autoregression"] = _autoregression(data, num_timesteps, order, truth.emission)
    if state_size >= sum(data.emission.shape):
        starts["innovations"] = _innovations(data, num_timesteps, truth)
    rng = np.random.default_rng(wanted.seed)
    for i in range(wanted.num_random):
        starts[f"random {i + 1}"] = _perturbed(truth, rng)
    if "small transition noise" in starts and data.control.shape[1] > 0:
        # Output error: controls alone move the state.
        start = starts["small transition noise"]
        starts["output error"] = start._replace(initial_cov=LITTLE_NOISE * start.initial_cov)
    return starts


def _autoregression(data, num_timesteps, order, emission):
    """State (x_t, ..., x_{t-order+1}), hardly any observation noise."""
    coefficients, innovation, initial = pooled_regression(data, num_timesteps, order)
    size, used = len(innovation), len(initial)
    transition, noise = np.eye(used, k=-size), np.zeros((used, used))
    transition[:size], noise[:size, :size] = coefficients, innovation
    control = np.zeros((used, data.control.shape[1]))
    control[:size] = data.emission @ data.control
    companion = recursions.Matrices(
        transition, noise, np.eye(size, used), LITTLE_NOISE * innovation, initial, control
    )
    return _with_emission(recursions.padded(companion, emission.shape[1]), emission)


def _innovations(data, num_timesteps, truth):
    """State (x_t, filtered mean): with spare components the past determines the whole state."""
    _, updates = recursions.forward(data, num_timesteps)
    a, c = data.transition, data.emission
    size, states = c.shape
    spread = [np.vstack([np.eye(size), gain]) for gain in updates.gain]
    model = recursions.Matrices(
        transition=np.hstack([np.zeros((size + states, size)), np.vstack([c @ a, a])]),
        transition_cov=algebra.congruence(spread[-1], updates.innovation_cov[-1]),
        emission=np.eye(size, size + states),
        emission_cov=LITTLE_NOISE * updates.innovation_cov[-1],
        initial_cov=algebra.congruence(spread[0], updates.innovation_cov[0]),
        control=np.vstack([c @ data.control, data.control]),
    )
    return _with_emission(recursions.padded(model, truth.emission.shape[1]), truth.emission)


def _perturbed(model, rng):
    """A random neighbour: entries of A moved by about .3, standard deviations by a factor e."""

    def spread(covariance):
        factors = np.exp(rng.standard_normal(len(covariance)))
        floor = LITTLE_NOISE * np.eye(len(covariance))
        return (covariance + floor) * np.outer(factors, factors)

    noise = 0.3 * rng.standard_normal(model.transition.shape)
    return model._replace(
        transition=model.transition + noise,
        transition_cov=spread(model.transition_cov),
        emission_cov=spread(model.emission_cov),
        initial_cov=spread(model.initial_cov),
    )


def _with_emission(model, emission):
    """Change the state's coordinates, from emission (I, 0) to the given one if its rows allow."""
    if np.linalg.matrix_rank(emission) < len(emission):
        return model
    basis = np.vstack([emission, scipy.linalg.null_space(emission).T])
    return _transformed(model, np.linalg.inv(basis), basis, np.eye(len(emission)))


def _resized(data, size):
    """Pad the state with unused components, or keep its first ones."""
    kept = np.eye(size, len(data.transition))
    return _transformed(data, kept, kept.T, np.eye(len(data.emission)))


def scales(data, num_timesteps):
    """Root mean variance over the sequence of each state and each channel; 1 for a constant."""
    states = [_lagged_covariance(data, t, 1, emit=False) for t in range(num_timesteps)]
    channels = [_lagged_covariance(data, t, 1) for t in range(num_timesteps)]
    scales = (np.sqrt(np.diagonal(np.mean(rows, axis=0))) for rows in (states, channels))
    return tuple(np.where(scale > 0, scale, 1.0) for scale in scales)


def rescaled(model, state_scale, observation_scale):
    """Multiply the state and the observations by positive numbers per component."""
    inverse = np.diag(1.0 / state_scale)
    return _transformed(model, np.diag(state_scale), inverse, np.diag(observation_scale))


def _transformed(model, state, inverse, channel):
    """The chain of `state` z and `channel` x; z = `inverse` (`state` z), or what is kept of it."""
    return recursions.Matrices(
        state @ model.transition @ inverse,
        algebra.congruence(state, model.transition_cov),
        channel @ model.emission @ inverse,
        algebra.congruence(channel, model.emission_cov),
        algebra.congruence(state, model.initial_cov),
        state @ model.control,
    )


def _lagged_covariance(data, t, count, *, emit=True):
    """Covariance of (x_t, ..., x_{t-count+1}), t counted from 0; of the states if not `emit`."""
    variance = data.initial_cov
    driven = data.transition_cov + data.control @ data.control.T
    for _ in range(t - count + 1):
        variance = algebra.congruence(data.transition, variance) + driven
    # Stack the states by the recursion z_s = A z_{s-1} + noise, newest first.
    size = len(data.transition)
    stacked = variance
    for _ in range(count - 1):
        advance = np.vstack([np.eye(size, len(stacked)), np.eye(len(stacked))])
        advance[:size, :size] = data.transition
        stacked = algebra.congruence(advance, stacked)
        stacked[:size, :size] += driven
    if not emit:
        return stacked
    emission = np.kron(np.eye(count), data.emission)
    noise = np.kron(np.eye(count), data.emission_cov)
    return algebra.symmetric(algebra.congruence(emission, stacked) + noise)


def _covariance(entries, size):
    """L L' from the lower triangle of L, its diagonal as logarithms above a floor: [..., n, n]."""
    factor = np.zeros(entries.shape[:-1] + (size, size), dtype=entries.dtype)
    rows, columns = np.tril_indices(size)
    factor[..., rows, columns] = np.where(
        rows == columns, SMALLEST_SCALE + np.exp(entries), entries
    )
    return factor @ algebra.transpose(factor)


def _triangular_root(covariance):
    """Lower triangular L with L L' = covariance, eigenvalues raised to the smallest scale."""
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, SMALLEST_SCALE**2))
    upper = np.linalg.qr(root.T, mode="r")
    return (upper * np.sign(np.diagonal(upper))[:, np.newaxis]).T
