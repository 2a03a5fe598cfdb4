"""Graded panels against integrals that are known."""

import math

import numpy as np
import pytest
from scipy import stats

from tfp_gaps.exact._numerics import quadrature


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("loc", [0.0, -3.0])
@pytest.mark.parametrize(
    ("density", "second_moment"),
    [
        (stats.norm.logpdf, 1.0),
        (stats.laplace.logpdf, 2.0),
        (stats.logistic.logpdf, math.pi**2 / 3),
        (stats.t(df=3).logpdf, 3.0),
        (stats.t(df=30).logpdf, 30 / 28),
    ],
    ids=["normal", "Laplace", "logistic", "t3", "t30"],
)
def test_mass_and_variance_of_known_densities(density, second_moment, scale, loc):
    nodes, weights = quadrature.graded_nodes([loc * scale], [scale])
    z = (nodes - loc * scale) / scale
    mass = weights @ np.exp(density(z)) / scale
    assert mass == pytest.approx(1, abs=1e-13)
    # A t with 3 degrees of freedom has 2e-12 of its variance beyond the last panel.
    variance = weights @ (np.exp(density(z)) * z**2) / scale
    assert variance == pytest.approx(second_moment, rel=1e-11)


def test_very_different_widths_are_integrated_together():
    nodes, weights = quadrature.graded_nodes([0.0, 1.0, 2.0], [1e-6, 1.0, 1e6])
    for loc, scale in [(0.0, 1e-6), (1.0, 1.0), (2.0, 1e6)]:
        assert weights @ stats.norm.pdf(nodes, loc, scale) == pytest.approx(1, abs=1e-13)


def test_crossings_solve_the_equation_and_know_their_width():
    locs, scales = np.array([-3.0, 1.0, 40.0]), np.array([1.0, 0.2, 3.0])
    log_weights = np.log([0.2, 0.5, 0.3])
    positions, widths = quadrature.gaussian_crossings(locs, scales, log_weights)
    assert len(positions) == 6

    def log_terms(z):
        return log_weights + stats.norm.logpdf(z, locs, scales)

    for position, width in zip(positions, widths, strict=True):
        terms, beside = log_terms(position), log_terms(position + 1e-7 * width)
        pairs = [(i, j) for i in range(3) for j in range(i)]
        i, j = min(pairs, key=lambda pair: abs(terms[pair[0]] - terms[pair[1]]))
        assert terms[i] == pytest.approx(terms[j], rel=1e-9)
        # One width further the two differ by one nat.
        slope = ((beside[i] - beside[j]) - (terms[i] - terms[j])) / 1e-7
        assert abs(slope) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("distance", [1e-158, 1e-20])
def test_components_that_are_almost_equal_do_not_cross(distance):
    positions, _ = quadrature.gaussian_crossings(
        np.array([0.0, distance]), np.ones(2), np.log([0.3, 0.7])
    )
    assert positions.size == 0


def test_kink_far_from_both_locations():
    # E |z - 300| under N(0, 100^2), whose kink lies where the panels of the location are wide.
    plain = quadrature.graded_nodes([0.0], [100.0])
    graded = quadrature.graded_nodes([0.0], [100.0], (np.array([300.0]), np.array([1e-3])))
    expected = 300 + 2 * (100 * stats.norm.pdf(3) - 300 * stats.norm.sf(3))
    error = [
        abs(weights @ (stats.norm.pdf(nodes, 0, 100) * np.abs(nodes - 300)) - expected)
        for nodes, weights in (plain, graded)
    ]
    assert error[1] < 1e-10


def panels(*arguments):
    """Left ends and right ends of the panels, from the nodes of each and the sum of its weights."""
    nodes, weights = (array.reshape(-1, 20) for array in quadrature.graded_nodes(*arguments))
    half = weights.sum(1) / 2
    return nodes.mean(1) - half, nodes.mean(1) + half


def test_panels_are_one_scale_wide_near_a_location_and_double_beyond():
    left, right = panels([3.0], [0.5])
    ends = np.append(left, right[-1]) / 0.5 - 6
    np.testing.assert_allclose(ends, -ends[::-1], rtol=1e-9, atol=1e-9)
    near = ends[(ends > -0.5) & (ends < 8.5)]
    np.testing.assert_allclose(near, np.arange(9), atol=1e-9)
    far = ends[ends > 7.5]
    np.testing.assert_allclose(far[1:] / far[:-1], 2.0, rtol=1e-9)
    assert far[-1] > 1e12


def test_panels_close_in_on_a_crossing():
    position, width = 0.3, 1e-4
    left, _ = panels([0.0], [1.0], (np.array([position]), np.array([width])))
    steps = width * 2.0 ** np.arange(-2, 9)
    for edge in [position, *(position + steps), *(position - steps)]:
        assert np.min(np.abs(left - edge)) < 1e-9 * width + 1e-15, edge
