"""Landscapes and tables of the ELBO chapter."""

import numpy as np
import pytest

from tfp_gaps.book.experiments import elbo
from tfp_gaps.exact.noisy_mixture import NoisyMixture
from tfp_gaps.exact.two_sensors import TwoSensors


def test_the_best_gaussian_of_a_landscape_is_the_mode_seeking_one():
    world = NoisyMixture([-2, 2], [1, 1], [0.5, 0.5], noise=2.0)
    means, sds = np.linspace(-3, 3, 25), np.linspace(0.3, 2.5, 23)
    landscape = elbo.mixture_landscape(world, 0.5, means, sds)
    assert landscape.elbo.shape == landscape.kl.shape == (25, 23)
    assert landscape.largest_residual() < 1e-10
    assert landscape.distance_of_optima() == 0
    i, j = np.unravel_index(np.argmax(landscape.elbo), landscape.elbo.shape)
    best = world.posterior(0.5).mode_seeking()
    # Within one step of the grid.
    assert means[i] == pytest.approx(float(best.loc), abs=0.25)
    assert sds[j] == pytest.approx(float(best.scale), abs=0.1)


def test_a_landscape_with_another_constant_or_optimum_is_noticed():
    world = TwoSensors(1.0, 0.5)
    means, sds = np.linspace(-2, 2, 21), np.linspace(0.1, 1.5, 15)
    landscape = elbo.sensors_landscape(world, 0.4, -0.3, means, sds)
    assert landscape.largest_residual() < 1e-12 and landscape.distance_of_optima() == 0
    assert landscape._replace(kl=landscape.kl + 0.01).largest_residual() > 0.009
    assert landscape._replace(kl=landscape.kl[::-1]).distance_of_optima() > 0.1


def test_the_table_ends_at_the_posteriors():
    world = TwoSensors(1.0, 0.5)
    _, seen, unseen = world.sample(5, seed=0)
    tabular = elbo.tabular_optimum(world, seen, unseen)
    mean, variance = world.full_posterior(seen, unseen)
    for rows in (tabular.averaged, tabular.per_datum):
        # BFGS with central differences stops at gradients of 1e-9.
        np.testing.assert_allclose(rows[:, 0], mean, atol=1e-6)
        np.testing.assert_allclose(np.exp(2 * rows[:, 1]), variance, atol=1e-6)
    # One q for all data keeps the variance and pays for the spread of the posterior means.
    expected = 0.5 * np.var(mean) / variance
    assert tabular.shared_loss == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("means", "sds"), [([0.0, float("nan")], [1.0]), ([0.0], [0.0])])
def test_bad_grids_are_refused(means, sds):
    with pytest.raises(ValueError, match="must be"):
        elbo.sensors_landscape(TwoSensors(1.0, 1.0), 0.0, 0.0, means, sds)
