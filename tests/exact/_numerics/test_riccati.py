"""Riccati and Lyapunov equations: residuals, SciPy, and what happens without a solution."""

import numpy as np
import pytest
import scipy.linalg

from tfp_gaps.exact._numerics import riccati


@pytest.mark.parametrize("sizes", [(1, 1), (3, 2), (2, 4)])
def test_solution_is_a_fixed_point_with_a_stable_filter(sizes):
    states, channels = sizes
    rng = np.random.default_rng(sizes)
    transition = rng.standard_normal((states, states))
    emission = rng.standard_normal((channels, states))
    noise = rng.standard_normal((states, states))
    noise = noise @ noise.T
    found = riccati.riccati(transition, emission, noise, np.eye(channels))
    after = riccati.filtered(found, emission, np.eye(channels))
    np.testing.assert_allclose(transition @ after @ transition.T + noise, found, rtol=1e-9)
    gain = riccati.gain(found, emission, np.eye(channels))
    np.testing.assert_allclose(after, found - gain @ emission @ found, atol=1e-9 * np.max(found))
    loop = transition @ (np.eye(states) - gain @ emission)
    assert riccati.spectral_radius(loop) < 1


def test_lyapunov_matches_scipy():
    rng = np.random.default_rng(3)
    transition = rng.standard_normal((4, 4))
    transition *= 0.99 / riccati.spectral_radius(transition)
    expected = scipy.linalg.solve_discrete_lyapunov(transition, np.eye(4))
    np.testing.assert_allclose(riccati.lyapunov(transition, np.eye(4)), expected, rtol=1e-9)


def test_lyapunov_does_not_mind_units():
    transition = np.array([[0.5, 1e-9], [1e9, 0.3]]) * 0.5
    units = np.diag([1.0, 1e9])
    scaled = riccati.lyapunov(transition, units @ units)
    plain = riccati.lyapunov(np.array([[0.5, 1.0], [1.0, 0.3]]) * 0.5, np.eye(2))
    np.testing.assert_allclose(scaled, units @ plain @ units, rtol=1e-12)


@pytest.mark.parametrize("transition", [1.0, 1.05, 7.0])
def test_unseen_unstable_states_are_discounted(transition):
    one = np.eye(1)
    found = riccati.riccati(transition * one, 0.0 * one, 0.3 * one, one).item()
    assert found == pytest.approx(0.3 / (1 - riccati.DISCOUNT**2), rel=1e-9)
