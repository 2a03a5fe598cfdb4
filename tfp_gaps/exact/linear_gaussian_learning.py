"""Maximise the expected ELBO of a linear-Gaussian chain over its parameters.

    max_theta  E ln p_theta(x_{1:T}) - gap_k(theta),     expectation under a known data law

Covariances are parametrised by Cholesky factors with logarithmic diagonals, the state's coordinates
are fixed as far as possible through the emission. BFGS (SciPy) gets gradients by complex steps,
d f / d u_j = Im f(u + i h e_j) / h, which are exact to rounding (Squire and Trapp 1998); all
directions form one batch of the recursions. Competing optima at R -> 0 (autoregressions) and Q -> 0
exist, so that several starts are needed.
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.optimize

from tfp_gaps.exact import linear_gaussian_recursions as recursions

# Standard deviations end here, in units of the data: it stands for zero.
SMALLEST_SCALE = 1e-7
COMPLEX_STEP = 1e-30
# Starts near a noise-free corner keep this share of noise: in the corner itself a logarithm of
# the noise has no gradient, and the search could not leave.
LITTLE_NOISE = 1e-3
# Two end points whose losses agree to this (nats, and relative) count as one optimum.
SAME_LOSS = 1e-6
# Largest entry of the gradient at which a climb ends, nats per unit of a parameter.
LOOSE, TIGHT = 1e-4, 1e-10


class Starts(NamedTuple):
    """Where to search from.

    state_size: size of the learned state.
    num_random: random starts beside the structured ones.
    seed: of the random starts.
    from_truth: whether the truth, and the truth with one noise made small, are starts.
    """

    state_size: int
    num_random: int
    seed: int
    from_truth: bool


def maximise(data, num_timesteps, lookahead, starts):
    """Climb from every start, loosely at first; then finish each distinct end point.

    Args:
      data: chain that generates the observations.
      num_timesteps: T.
      lookahead: k, between 0 and T - 1.
      starts: `Starts`.

    Returns:
      A list of (name of the start, `Matrices` where it ended), in the units of the data; one for
      each distinct objective, best first.

    Raises:
      ValueError: if the bound is finite at no start.
    """
    state_scale, observation_scale = scales(data, num_timesteps)
    unit = rescaled(data, 1.0 / state_scale, 1.0 / observation_scale)
    state_size = starts.state_size
    size = max(state_size, len(state_scale))
    target = recursions.padded(unit, size)
    predicted, _ = recursions.forward(target, num_timesteps)

    def objective(vectors, space):
        judged = recursions.padded(space.matrices(vectors), size)
        return recursions.bound(target, predicted, judged, num_timesteps, lookahead)

    ends = []
    for name, start in structured_starts(unit, num_timesteps, starts).items():
        space = ParameterSpace(start.emission, state_size, start.control.shape[1])
        end = _climb(objective, space, space.vector(start), LOOSE)
        ends.append((end.fun, end.x, space, name))
    finished = []
    for _, vector, space, name in distinct(ends):
        end = _climb(objective, space, vector, TIGHT)
        # A second run forgets the curvature of the first, and often gains a last digit or two.
        end = _climb(objective, space, end.x, TIGHT)
        finished.append((end.fun, end.x, space, name))
    if not finished:
        raise ValueError(
            "Nothing was learned: the expected ELBO is finite at no start, or there is none. Check "
            "that the variances of data_model stay finite over num_timesteps, and that num_starts "
            "is positive if from_truth is False."
        )
    back = np.append(state_scale, np.ones(max(state_size - len(state_scale), 0)))[:state_size]
    return [
        (name, rescaled(space.matrices(vector), back, observation_scale))
        for _, vector, space, name in distinct(finished)
    ]


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


def value_and_gradient(objective, vector):
    """Complex-step derivative of a batched, analytic function at a real vector [size]."""
    steps = vector + 1j * COMPLEX_STEP * np.eye(len(vector))
    values = objective(steps)
    return values[0].real, values.imag / COMPLEX_STEP


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
    innovation = recursions.symmetric(recursions.congruence(residual, pooled) - known @ known.T)
    return coefficients, innovation, _lagged_covariance(data, order - 1, order)


def observation_covariance(data, num_timesteps):
    """Covariance of (x_1, ..., x_T), oldest first: [T * observation, T * observation]."""
    newest_first = _lagged_covariance(data, num_timesteps - 1, num_timesteps)
    size = data.emission.shape[0]
    blocks = newest_first.reshape(num_timesteps, size, num_timesteps, size)
    return blocks[::-1, :, ::-1].reshape(newest_first.shape)


def _climb(objective, space, vector, tolerance):
    """Run BFGS on minus the objective; the result's `fun` is infinite if it never was finite.

    BFGS and not L-BFGS-B: at this size the dense curvature pays, and SciPy's port of the latter to
    C is a hundred times slower when OpenBLAS uses several threads (reported to SciPy as 22438).
    """

    def loss(u):
        try:
            value, gradient = value_and_gradient(lambda vectors: objective(vectors, space), u)
        except np.linalg.LinAlgError:
            value, gradient = np.nan, np.zeros_like(u)
        finite = np.isfinite(value) and np.all(np.isfinite(gradient))
        return (-value, -gradient) if finite else (np.inf, np.zeros_like(u))

    # A trial step of the line search may overflow: it counts as infinitely bad, and is shortened.
    with np.errstate(all="ignore"):
        return scipy.optimize.minimize(
            loss, vector, jac=True, method="BFGS", options={"gtol": tolerance, "maxiter": 500}
        )


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
    state_part = recursions.congruence(truth.emission, truth.initial_cov + truth.transition_cov)
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
        transition_cov=recursions.congruence(spread[-1], updates.innovation_cov[-1]),
        emission=np.eye(size, size + states),
        emission_cov=LITTLE_NOISE * updates.innovation_cov[-1],
        initial_cov=recursions.congruence(spread[0], updates.innovation_cov[0]),
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
    inverse = np.linalg.inv(basis)
    return recursions.Matrices(
        inverse @ model.transition @ basis,
        recursions.congruence(inverse, model.transition_cov),
        model.emission @ basis,
        model.emission_cov,
        recursions.congruence(inverse, model.initial_cov),
        inverse @ model.control,
    )


def _resized(data, size):
    """Pad the state with unused components, or keep its first ones."""
    if size >= len(data.transition):
        return recursions.padded(data, size)
    return recursions.Matrices(
        data.transition[:size, :size],
        data.transition_cov[:size, :size],
        data.emission[:, :size],
        data.emission_cov,
        data.initial_cov[:size, :size],
        data.control[:size],
    )


def scales(data, num_timesteps):
    """Root mean variance over the sequence of each state and each channel; 1 for a constant."""
    states = [_lagged_covariance(data, t, 1, emit=False) for t in range(num_timesteps)]
    channels = [_lagged_covariance(data, t, 1) for t in range(num_timesteps)]
    scales = (np.sqrt(np.diagonal(np.mean(rows, axis=0))) for rows in (states, channels))
    return tuple(np.where(scale > 0, scale, 1.0) for scale in scales)


def rescaled(model, state_scale, observation_scale):
    """Multiply the state and the observations by positive numbers per component."""
    state, channel = np.diag(state_scale), np.diag(observation_scale)
    inverse = np.diag(1.0 / state_scale)
    return recursions.Matrices(
        state @ model.transition @ inverse,
        recursions.congruence(state, model.transition_cov),
        channel @ model.emission @ inverse,
        recursions.congruence(channel, model.emission_cov),
        recursions.congruence(state, model.initial_cov),
        state @ model.control,
    )


def _lagged_covariance(data, t, count, *, emit=True):
    """Covariance of (x_t, ..., x_{t-count+1}), t counted from 0; of the states if not `emit`."""
    variance = data.initial_cov
    driven = data.transition_cov + data.control @ data.control.T
    for _ in range(t - count + 1):
        variance = recursions.congruence(data.transition, variance) + driven
    # Stack the states by the recursion z_s = A z_{s-1} + noise, newest first.
    size = len(data.transition)
    stacked = variance
    for _ in range(count - 1):
        advance = np.vstack([np.eye(size, len(stacked)), np.eye(len(stacked))])
        advance[:size, :size] = data.transition
        stacked = recursions.congruence(advance, stacked)
        stacked[:size, :size] += driven
    if not emit:
        return stacked
    emission = np.kron(np.eye(count), data.emission)
    noise = np.kron(np.eye(count), data.emission_cov)
    return recursions.symmetric(recursions.congruence(emission, stacked) + noise)


def _covariance(entries, size):
    """L L' from the lower triangle of L, its diagonal as logarithms above a floor: [..., n, n]."""
    factor = np.zeros(entries.shape[:-1] + (size, size), dtype=entries.dtype)
    rows, columns = np.tril_indices(size)
    factor[..., rows, columns] = np.where(
        rows == columns, SMALLEST_SCALE + np.exp(entries), entries
    )
    return factor @ recursions.transpose(factor)


def _triangular_root(covariance):
    """Lower triangular L with L L' = covariance, eigenvalues raised to the smallest scale."""
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, SMALLEST_SCALE**2))
    upper = np.linalg.qr(root.T, mode="r")
    return (upper * np.sign(np.diagonal(upper))[:, np.newaxis]).T
