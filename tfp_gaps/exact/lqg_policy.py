"""Optimise a linear policy inside a model by gradients, as reinforcement learning would.

    u_t = -K y_t,   y_{t+1} = F y_t + L x_{t+1},   min over K, F, L of J = tr(N X)
    X = M X M' + G S G',   P = M' P M + N,   dJ = tr(dN X) + 2 tr(P M X dM') + 2 tr(P G S dG')

M and G move state and memory together (`tfp_gaps.exact.lqg`), S are the noises and N the costs. No
Riccati equation is solved and no filter is given: with as many memories as the model has states the
search can find the model's own filter and regulator, without memory the best gain on x_t alone.

References: Levine and Athans 1970, On the determination of the optimal constant output feedback
gains; Fazel et al. 2018, Global convergence of policy gradient methods for the LQR; Perdomo et al.
2021, Stabilizing dynamical systems via policy gradient methods.
"""

import dataclasses

import numpy as np
import scipy.linalg

from tfp_gaps import _checks
from tfp_gaps.exact import lqg
from tfp_gaps.exact._numerics import algebra, bfgs, riccati

# Starts are small: a policy that does nothing is stable in a stable model.
_START = 0.3
# A model that is not stable is first damped to this spectral radius, then less and less.
_DAMPED, _NUM_DAMPINGS = 0.9, 15


def optimise(model, memory_size, *, num_starts=4, seed=0):
    """The linear policy that costs least in a model, searched by BFGS from random starts.

    Where the model is not stable, no start is: A and B are then damped by a factor that rises to
    one, and every search begins where the one before ended (Perdomo et al. 2021).

    Args:
      model: a `lqg.System`, learned or true.
      memory_size: numbers that the policy remembers; 0 for u_t = -K x_t.
      num_starts: of the search; the best end is returned.
      seed: of the starts.

    Returns:
      A `lqg.Controller`.

    Raises:
      ValueError: for a negative size, no start, or if no policy was found that stabilises the
        model.

    >>> model = lqg.System(0.95, 0.5, 0.1, 1.0, 1.0, 1.0, state_cost=1.0, control_cost=0.1)
    >>> costs = [lqg.closed_loop_cost(model, optimise(model, size)) for size in (0, 1)]
    >>> [round(cost, 4) for cost in (*costs, lqg.optimal_cost(model))]
    [0.3411, 0.3385, 0.3385]
    """
    _checks.integer(memory_size, "memory_size", minimum=0)
    _checks.integer(num_starts, "num_starts", minimum=1)
    shapes = _shapes(model, memory_size)
    rng = np.random.default_rng(seed)
    starts = _START * rng.standard_normal((num_starts, sum(np.prod(s) for s in shapes)))

    for damped in _damped(model):

        def value_and_gradient(vector, damped=damped):
            return _cost(damped, _controller(vector, shapes), len(shapes))

        found = bfgs.minimise_each(value_and_gradient, starts, tolerance=1e-10, max_steps=2000)
        starts = found.vectors
    best = np.argmin(found.values)
    if not np.isfinite(found.values[best]):
        raise ValueError(
            f"A policy with {memory_size} memories should stabilise the model, but none of "
            f"{num_starts} searches found one, for the transition {model.transition.tolist()}. "
            "Give it as many memories as the model has states."
        )
    return _controller(found.vectors[best], shapes)


def _damped(model):
    """The model alone if it is stable; else damped ones before it, with less and less damping."""
    radius = riccati.spectral_radius(model.transition)
    if radius < 1.0 - riccati.ROUNDING:
        return [model]
    return [
        dataclasses.replace(
            model, transition=factor * model.transition, control=factor * model.control
        )
        for factor in np.linspace(_DAMPED / radius, 1.0, _NUM_DAMPINGS)
    ]


def _shapes(model, memory_size):
    """Shapes of what is searched: K alone, or K, F and L."""
    controls, seen = model.control_size, model.observation_size
    if memory_size == 0:
        return [(controls, seen)]
    return [(controls, memory_size), (memory_size, memory_size), (memory_size, seen)]


def _controller(vector, shapes):
    ends = np.cumsum([np.prod(shape) for shape in shapes])[:-1]
    parts = [part.reshape(s) for part, s in zip(np.split(vector, ends), shapes, strict=True)]
    if len(parts) == 1:
        seen = parts[0].shape[1]
        parts += [np.zeros((seen, seen)), np.eye(seen)]
    return lqg.Controller(*parts)


def _cost(model, controller, num_free):
    """Cost and its gradient with respect to the first `num_free` matrices of the controller."""
    loop, spread = lqg.closed_loop(model, controller)
    if riccati.spectral_radius(loop) >= 1.0 - riccati.ROUNDING:
        return np.inf, np.full(sum(part.size for part in controller[:num_free]), np.nan)
    n, feedback, gain = model.state_size, controller.feedback, controller.gain
    noise = scipy.linalg.block_diag(model.transition_cov, model.emission_cov)
    effort = algebra.congruence(feedback.T, model.control_cost)
    price = scipy.linalg.block_diag(model.state_cost, effort)
    moment = riccati.lyapunov(loop, algebra.congruence(spread, noise))
    adjoint = riccati.lyapunov(loop.T, price)
    by_loop, by_spread = 2 * adjoint @ loop @ moment, 2 * adjoint @ spread @ noise
    acted, seen = model.control @ feedback, model.emission
    by_memory = by_loop[n:, n:]
    by_feedback = 2 * model.control_cost @ feedback @ moment[n:, n:]
    by_feedback -= model.control.T @ (by_loop[:n, n:] + (gain @ seen).T @ by_memory)
    by_gain = by_loop[n:, :n] @ (seen @ model.transition).T - by_memory @ (seen @ acted).T
    by_gain += by_spread[n:, :n] @ seen.T + by_spread[n:, n:]
    gradients = (by_feedback, by_memory, by_gain)[:num_free]
    return algebra.trace(price, moment), np.concatenate([each.ravel() for each in gradients])
