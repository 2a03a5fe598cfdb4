"""Discrete algebraic Riccati and Lyapunov equations, with an answer in every corner.

    P = A (P - L C P) A' + Q,   L = P C' (C P C' + R)^-1,      X = A X A' + Q

P is the covariance of the steady Kalman filter before its update and, for the transposed system,
the value of the linear-quadratic regulator. Learned models have noises that vanish, or states that
nothing moves or shows, for which textbook solvers stop; here zeros are allowed.

References: Anderson and Moore 1979, Optimal Filtering.
"""

import numpy as np
import scipy.linalg

from tfp_gaps.exact._numerics import algebra

# A spectral radius that exceeds one by rounding only, or misses it by rounding, is one.
ROUNDING = 1e-9
# Spectral radius to which A is scaled where the infinite horizon has no solution.
DISCOUNT = 0.98
# Relative error that SciPy's solution may have before it is distrusted.
TOLERANCE = 1e-6


def riccati(transition, emission, transition_cov, emission_cov):
    """Covariance P of the steady filter before its update, the solution with a stable filter.

    Q and R may be zero. If no stable filter exists (an unstable part is not seen) the equation is
    solved for A scaled to the spectral radius `DISCOUNT`, by iteration from Q.

    Args:
      transition: A, [n, n].
      emission: C, [m, n].
      transition_cov: Q, [n, n].
      emission_cov: R, [m, m].

    Returns:
      P, [n, n].

    >>> one = np.eye(1)
    >>> round(riccati(1.05 * one, one, 0.0 * one, one).item(), 6)
    0.1025
    >>> round(riccati(1.0 * one, 0.0 * one, one, one).item(), 3)  # 1 / (1 - .98^2)
    25.253
    """

    def step(covariance, advance):
        seen = filtered(covariance, emission, emission_cov)
        return algebra.symmetric(algebra.congruence(advance, seen)) + transition_cov

    try:
        covariance = scipy.linalg.solve_discrete_are(
            transition.T, emission.T, transition_cov, emission_cov
        )
        if _solves(step, transition, emission, emission_cov, covariance):
            return step(covariance, transition)
    except (np.linalg.LinAlgError, ValueError):
        # No stable filter exists, or SciPy cannot find it.
        pass
    radius = spectral_radius(transition)
    discounted = transition * min(1.0, DISCOUNT / max(radius, DISCOUNT))
    covariance = np.array(transition_cov)
    # After n steps the start is forgotten but for DISCOUNT^2n: 1e-17 for n = 1000.
    for _ in range(1000):
        covariance = step(covariance, discounted)
    return covariance


def gain(covariance, emission, emission_cov):
    """L = P C' (C P C' + R)^+; nothing is learned from a channel without variance.

    >>> gain(np.eye(1), np.eye(1), 3.0 * np.eye(1)).tolist()
    [[0.25]]
    """
    innovation_cov = algebra.symmetric(algebra.congruence(emission, covariance))
    inverse = np.linalg.pinv(innovation_cov + emission_cov, hermitian=True)
    return covariance @ emission.T @ inverse


def filtered(covariance, emission, emission_cov):
    """Covariance after the update, in Joseph's form.

    >>> filtered(np.eye(1), np.eye(1), 3.0 * np.eye(1)).tolist()
    [[0.75]]
    """
    weight = gain(covariance, emission, emission_cov)
    shrink = np.eye(len(covariance)) - weight @ emission
    return algebra.congruence(shrink, covariance) + algebra.congruence(weight, emission_cov)


def lyapunov(transition, noise):
    """Sum of A^i Q A'^i for a stable A, by doubling: no badly scaled system has to be solved.

    >>> lyapunov(np.array([[0.5]]), np.array([[0.75]])).round(12).tolist()
    [[1.0]]
    """
    total, advance = noise, transition
    while np.any(np.abs(advance) > 1e-30):
        total = total + algebra.congruence(advance, total)
        advance = advance @ advance
    return algebra.symmetric(total)


def spectral_radius(matrix):
    """Largest modulus of an eigenvalue.

    >>> round(spectral_radius(np.array([[0.0, 0.25], [1.0, 0.0]])), 6)
    0.5
    """
    return float(np.max(np.abs(np.linalg.eigvals(matrix))))


def _solves(step, transition, emission, emission_cov, covariance):
    """Whether a candidate is positive, a fixed point, and its filter does not explode."""
    if not np.all(np.isfinite(covariance)):
        return False
    size = np.max(np.abs(covariance))
    positive = np.min(np.linalg.eigvalsh(covariance)) >= -TOLERANCE * size
    error = np.max(np.abs(step(covariance, transition) - covariance))
    weight = gain(covariance, emission, emission_cov)
    loop = transition @ (np.eye(len(transition)) - weight @ emission)
    return positive and error <= TOLERANCE * size and spectral_radius(loop) <= 1.0 + ROUNDING
