"""BFGS from many starts at once, for objectives that are cheap per row and dear per call.

    x <- x + s p,   p = -H g,   H the inverse curvature by the formula of Broyden, Fletcher,
                                Goldfarb and Shanno (Nocedal and Wright 2006, algorithm 6.1)

In `minimise` every row climbs on its own; one evaluation serves all of them. Steps are shortened
until the value falls enough (Armijo), and a pair of changes that shows no positive curvature is not
used. `minimise_each` leaves the rows to SciPy, one after the other. Gradients come from complex
steps, d f / d u_j = Im f(u + i h e_j) / h, which are exact to rounding (Squire and Trapp 1998).
"""

from typing import NamedTuple

import numpy as np
from scipy import optimize

COMPLEX_STEP = 1e-30
# Share of the predicted decrease that a step must reach.
SUFFICIENT = 1e-4
SHORTEST_STEP = 1e-12
# A row ends when the next step promises less than this, relative to 1 + |value|: rounding.
PRECISION = 1e-12


class SearchResult(NamedTuple):
    """Where the rows ended.

    vectors: [rows, size].
    values: [rows]; infinite where the start had no finite value.
    gradients: [rows, size].
    """

    vectors: np.ndarray
    values: np.ndarray
    gradients: np.ndarray


def minimise(value_and_gradient, starts, *, tolerance, max_steps=300):
    """Minimise one function from many starts.

    Args:
      value_and_gradient: function of [rows, size] that returns values [rows] and gradients
        [rows, size]; what is not finite counts as infinitely bad. Called with fewer rows as rows
        finish.
      starts: [rows, size].
      tolerance: a row ends when the largest entry of its gradient is below this, or rounding hides
        what is left to gain.
      max_steps: evaluations after which every row ends where it is.

    Returns:
      `SearchResult`.

    >>> def bowls(x):
    ...     return np.sum((x**2 - 1.0) ** 2, axis=1), 4.0 * x * (x**2 - 1.0)
    >>> minimise(bowls, np.array([[0.5, 2.0], [-3.0, 0.1]]), tolerance=1e-8).vectors.round(6) + 0.0
    array([[ 1.,  1.],
           [-1.,  1.]])
    """
    x = np.array(starts, dtype=np.float64)
    f, g = _finite(*value_and_gradient(x))
    curvature = np.broadcast_to(np.eye(x.shape[1]), (len(x), x.shape[1], x.shape[1])).copy()
    fresh = np.ones(len(x), dtype=bool)
    step = _first_step(g)
    climbing = np.isfinite(f) & (np.max(np.abs(g), axis=1) > tolerance)
    for _ in range(max_steps):
        rows = np.flatnonzero(climbing)
        if len(rows) == 0:
            break
        direction = -np.einsum("rij,rj->ri", curvature[rows], g[rows])
        slope = np.sum(direction * g[rows], axis=1)
        climbing[rows] = -slope > PRECISION * (1.0 + np.abs(f[rows]))
        trial = x[rows] + step[rows, np.newaxis] * direction
        value, gradient = _finite(*value_and_gradient(trial))
        fell = value <= f[rows] + SUFFICIENT * step[rows] * slope
        step[rows[~fell]] *= _shrinkage(f[rows], value, step[rows] * slope)[~fell]
        moved = rows[fell]
        change = trial[fell] - x[moved], gradient[fell] - g[moved]
        curvature[moved] = _updated(curvature[moved], *change, fresh[moved])
        x[moved], f[moved], g[moved] = trial[fell], value[fell], gradient[fell]
        fresh[moved], step[moved] = False, 1.0
        _restart(rows[step[rows] < SHORTEST_STEP], curvature, fresh, step, climbing, g)
        climbing &= np.max(np.abs(g), axis=1) > tolerance
    return SearchResult(x, f, g)


def minimise_each(value_and_gradient, starts, *, tolerance, max_steps=500):
    """As `minimise`, with SciPy's BFGS for one row at a time: slower, and to the last digits.

    BFGS and not L-BFGS-B: at this size the dense curvature pays, and SciPy's port of the latter to
    C is a hundred times slower when OpenBLAS uses several threads (reported to SciPy as 22438).

    Here `value_and_gradient` gets one row, [size], and returns a number and [size].

    >>> def bowl(x):
    ...     return np.sum((x - 1.0) ** 2), 2.0 * (x - 1.0)
    >>> minimise_each(bowl, np.zeros((1, 2)), tolerance=1e-8).vectors.round(6)
    array([[1., 1.]])
    """

    def loss(x):
        return _finite(*value_and_gradient(x))

    options = {"gtol": tolerance, "maxiter": max_steps}
    # A trial step of the line search may overflow: it counts as infinitely bad, and is shortened.
    with np.errstate(all="ignore"):
        ends = [
            optimize.minimize(loss, start, jac=True, method="BFGS", options=options)
            for start in starts
        ]
    return SearchResult(*(np.stack([end[name] for end in ends]) for name in ("x", "fun", "jac")))


def complex_step(function, rows):
    """Values and gradients of an analytic function at real rows, by complex steps.

    Args:
      function: of complex [..., size] that returns [...]; all directions of all rows in one call.
      rows: [rows, size], or a single row [size].

    Returns:
      values: [rows], or a number; infinite where the function meets a singular matrix.
      gradients: shape of `rows`.

    >>> values, gradients = complex_step(lambda u: np.sum(u**3, axis=-1), np.array([[1.0, 2.0]]))
    >>> values.tolist(), gradients.tolist()
    ([9.0], [[3.0, 12.0]])
    """
    steps = rows[..., np.newaxis, :] + 1j * COMPLEX_STEP * np.eye(rows.shape[-1])
    with np.errstate(all="ignore"):
        try:
            values = function(steps)
        except np.linalg.LinAlgError:
            if rows.ndim == 1:
                return np.array(np.inf), np.zeros_like(rows)
            parts = [complex_step(function, row) for row in rows]
            return tuple(np.stack(values) for values in zip(*parts, strict=True))
    return values[..., 0].real, values.imag / COMPLEX_STEP


def _finite(values, gradients):
    bad = ~np.isfinite(values) | ~np.all(np.isfinite(gradients), axis=-1)
    return np.where(bad, np.inf, values), np.where(bad[..., np.newaxis], 0.0, gradients)


def _first_step(gradients):
    """Without curvature the first step has length one at most."""
    return 1.0 / np.maximum(np.linalg.norm(gradients, axis=1), 1.0)


def _shrinkage(before, after, predicted):
    """Minimum of the parabola through value, slope and the failed trial, between .1 and .5."""
    with np.errstate(invalid="ignore", over="ignore"):
        best = -0.5 * predicted / (after - before - predicted)
    return np.clip(np.where(np.isfinite(best), best, 0.1), 0.1, 0.5)


def _updated(curvature, change, difference, fresh):
    """The BFGS formula for each row; a fresh row first takes its scale from the pair."""
    inner = np.sum(change * difference, axis=1)
    lengths = np.linalg.norm(change, axis=1) * np.linalg.norm(difference, axis=1)
    usable = inner > 1e-10 * lengths
    inner = np.where(usable, inner, 1.0)
    scale = inner / np.maximum(np.sum(difference**2, axis=1), np.finfo(float).tiny)
    scale = np.where(fresh & usable, scale, 1.0)
    before = curvature * scale[:, np.newaxis, np.newaxis]
    outer = change[:, :, np.newaxis] * difference[:, np.newaxis, :]
    shrink = np.eye(change.shape[1]) - outer / inner[:, np.newaxis, np.newaxis]
    after = shrink @ before @ np.swapaxes(shrink, 1, 2)
    after += change[:, :, np.newaxis] * change[:, np.newaxis, :] / inner[:, np.newaxis, np.newaxis]
    return np.where(usable[:, np.newaxis, np.newaxis], after, curvature)


def _restart(stuck, curvature, fresh, step, climbing, gradients):
    """A row that cannot move forgets its curvature; one that has none to forget ends."""
    climbing[stuck[fresh[stuck]]] = False
    curvature[stuck] = np.eye(curvature.shape[1])
    fresh[stuck] = True
    step[stuck] = _first_step(gradients[stuck])
