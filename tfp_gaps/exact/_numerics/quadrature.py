"""Composite Gauss-Legendre quadrature for densities of very different widths.

Integrals over mixtures break ordinary rules when one component is a million times narrower than
another, or when the logarithm of the mixture has a kink between two far components. The panels
here are graded around every location in units of its own scale, and around every crossing of two
components in units of the width of that crossing; on each panel the integrand is smooth and a
Gauss-Legendre rule of fixed order reaches round-off.
"""

import itertools

import numpy as np

_UNIT_NODES, _UNIT_WEIGHTS = np.polynomial.legendre.leggauss(20)
# Unit panels where a density lives, then panels that double: they reach 1e13 scales, so that
# polynomial tails are integrated too, and cost fewer than a hundred panels per location.
_NEAR = np.arange(0.0, 8.0, 1.0)
_FAR = 8.0 * 2.0 ** np.arange(0, 41)
_LADDER = np.concatenate([-_FAR[::-1], -_NEAR[:0:-1], _NEAR, _FAR])
_CROSSING = np.concatenate([-(2.0 ** np.arange(8, -3, -1)), [0.0], 2.0 ** np.arange(-2, 9)])


def graded_nodes(locs, scales, crossings=None):
    """Nodes and weights of a rule on the real line, fine around each location.

    Args:
        locs: shape [n], where the integrand has structure.
        scales: shape [n], the width of that structure.
        crossings: optional pair of arrays, shape [m] each: positions and widths of kinks.

    Returns:
        nodes, shape [number of nodes], ascending; weights, same shape: sum(weights * f(nodes))
        approximates the integral of f over the real line.

    >>> nodes, weights = graded_nodes([0.0], [1e-3])
    >>> bool(abs(weights @ np.exp(-0.5 * (nodes / 1e-3) ** 2) - 1e-3 * np.sqrt(2 * np.pi)) < 1e-17)
    True
    """
    locs, scales = np.atleast_1d(locs), np.atleast_1d(scales)
    points = [(locs[:, None] + scales[:, None] * _LADDER).ravel()]
    if crossings is not None:
        positions, widths = crossings
        points.append((positions[:, None] + widths[:, None] * _CROSSING).ravel())
    edges = np.unique(np.concatenate(points))
    # Panels thinner than round-off carry nothing and would only repeat nodes.
    keep = np.diff(edges, prepend=-np.inf) > 1e-15 * np.abs(edges)
    edges = edges[keep]
    half = 0.5 * np.diff(edges)[:, None]
    nodes = 0.5 * (edges[1:] + edges[:-1])[:, None] + half * _UNIT_NODES
    return nodes.ravel(), (half * _UNIT_WEIGHTS).ravel()


def gaussian_crossings(locs, scales, log_weights):
    """Where two weighted Gaussian densities cross, and how sharply.

    ln w_i N(z; m_i, s_i^2) = ln w_j N(z; m_j, s_j^2) is a quadratic equation in z. Its solutions
    are kinks of ln sum_i w_i N_i whose width is one over the difference of the two slopes.

    Args:
        locs, scales, log_weights: shape [K]; scales > 0.

    Returns:
        positions, widths: shape [number of crossings] each, empty if there are none.
    """
    positions, widths = [], []
    for i, j in itertools.combinations(range(len(locs)), 2):
        # In units of the narrower component and centred on it, where the crossing is sharpest.
        if scales[i] > scales[j]:
            i, j = j, i
        unit, distance = scales[i], (locs[j] - locs[i]) / scales[i]
        ratio = (scales[i] / scales[j]) ** 2
        offset = log_weights[i] - log_weights[j] + np.log(scales[j] / scales[i])
        # offset - z^2/2 + ratio (z - distance)^2 / 2 = 0
        roots = _real_roots(0.5 * (ratio - 1), -ratio * distance, offset + ratio * distance**2 / 2)
        for root in roots:
            slope = abs((ratio - 1) * root - ratio * distance)
            # A crossing beyond or wider than all panels is none: the two are almost the same.
            if abs(root) < _FAR[-1] and slope * _FAR[-1] > 1:
                positions.append(locs[i] + unit * root)
                widths.append(unit / slope)
    return np.array(positions), np.array(widths)


def _real_roots(a, b, c):
    """Real roots of a x^2 + b x + c, stable when a is near zero."""
    if a == 0:
        return [-c / b] if b != 0 else []
    discriminant = b * b - 4 * a * c
    if discriminant <= 0:
        return []
    half = -0.5 * (b + np.copysign(np.sqrt(discriminant), b))
    return [half / a] + ([c / half] if half != 0 else [])
