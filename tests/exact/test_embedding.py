"""Objectives through an embedding: made posteriors, SciPy's divergences, a search."""

import numpy as np
import pytest
from scipy import integrate, optimize, stats

from tfp_gaps.exact import embedding
from tfp_gaps.exact.two_sensors import TwoSensors

RNG = np.random.default_rng(0)
FULL = np.log(RNG.dirichlet(np.ones(7), size=4))
WEIGHTS = RNG.dirichlet(np.ones(4))


def average(q, objective):
    """The objective of a density, written with SciPy's relative entropy."""
    pairs = [(q, p) if objective == "elbo" else (p, q) for p in np.exp(FULL)]
    return sum(w * stats.entropy(*pair) for w, pair in zip(WEIGHTS, pairs, strict=True))


@pytest.mark.parametrize(
    ("objective", "closed"),
    [("elbo", embedding.product), ("posterior estimation", embedding.mixture)],
)
def test_descent_ends_on_the_closed_form_and_nothing_is_better(objective, closed):
    found = embedding.best(FULL, WEIGHTS, objective)
    # Gradients are followed to 1e-9; the divergence is quadratic in what is left.
    np.testing.assert_allclose(np.exp(found), np.exp(closed(FULL, WEIGHTS)), atol=1e-6)
    lowest = average(np.exp(found), objective)
    for other in RNG.dirichlet(np.ones(7), size=200):
        assert average(0.9 * np.exp(found) + 0.1 * other, objective) > lowest


def test_each_target_is_a_distribution_and_the_product_is_a_geometric_mean():
    by_hand = np.prod(np.exp(FULL) ** WEIGHTS[:, None], axis=0)
    np.testing.assert_allclose(np.exp(embedding.product(FULL, WEIGHTS)), by_hand / by_hand.sum())
    np.testing.assert_allclose(np.exp(embedding.mixture(FULL, WEIGHTS)), WEIGHTS @ np.exp(FULL))


def test_divergence_is_that_of_scipy():
    p, q = FULL[0], FULL[1]
    np.testing.assert_allclose(embedding.kl(p, q), stats.entropy(np.exp(p), np.exp(q)))


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0])
def test_coverage_of_gaussians(scale):
    nodes = np.linspace(-14, 14, 1401)
    claimed, truth = (stats.norm.logpdf(nodes, scale=s) + np.log(0.02) for s in (scale, 1.0))
    expected = 2 * stats.norm.cdf(stats.norm.ppf(0.95) * scale) - 1
    # A cell of 0.02 adds its own variance, 0.02^2 / 12, to both.
    assert embedding.coverage(claimed, truth) == pytest.approx(expected, abs=2e-4)


def test_an_unknown_objective_is_named():
    with pytest.raises(ValueError, match="objective"):
        embedding.best(FULL, WEIGHTS, "forward")


@pytest.mark.parametrize("noises", [(1.0, 0.5), (2.0, 0.5)])
def test_parameters_that_predict_the_truth_best_are_the_filters(noises):
    """A third way: no grid of densities, but a search over slope and variance by quadrature."""
    world = TwoSensors(*noises)
    law = stats.multivariate_normal(cov=[[1, 1], [1, 1 + noises[0] ** 2]])

    def loss(parameters):
        slope, log_variance = parameters
        reach = 6 * np.sqrt(1 + noises[0] ** 2)
        nodes = np.linspace(-1, 1, 61)
        z, c = np.meshgrid(6 * nodes, reach * nodes, indexing="ij")
        density = law.pdf(np.stack([z, c], -1))
        log_q = stats.norm.logpdf(z, slope * c, np.exp(0.5 * log_variance))
        return -integrate.trapezoid(integrate.trapezoid(density * log_q, c[0]), z[:, 0])

    found = optimize.minimize(loss, [0.0, 0.0], method="BFGS").x
    expected = [world.filter().slope, np.log(world.filter_variance())]
    np.testing.assert_allclose(found, expected, atol=1e-4)  # slopes by differences
