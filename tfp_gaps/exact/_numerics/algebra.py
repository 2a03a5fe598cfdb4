"""Linear algebra of stacks of matrices, [..., rows, columns].

Everything but `root` is analytic in the entries (no conjugates), so that a complex step
differentiates it exactly.
"""

import numpy as np


def transpose(matrix):
    """Swap the last two axes (without conjugation)."""
    return np.swapaxes(matrix, -1, -2)


def symmetric(matrix):
    """Remove the rounding that makes a covariance asymmetric."""
    return 0.5 * (matrix + transpose(matrix))


def congruence(outer, inner):
    """outer inner outer'."""
    return outer @ inner @ transpose(outer)


def trace(left, right):
    """tr(left right) over the last two axes."""
    return np.einsum("...ij,...ji->...", left, right)


def root(covariance):
    """A real matrix B with B B' = covariance, [size, size], which may be singular.

    >>> root(np.diag([4.0, 0.0])).tolist()
    [[0.0, 2.0], [0.0, 0.0]]
    """
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))
