"""Flavours of flows: which posteriors are chosen, a search against closed forms, what is read."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from tfp_gaps.book import results
from tfp_gaps.book.experiments import flows
from tfp_gaps.book.experiments import two_latents as two
from tfp_gaps.models.vae import VAE
from tfp_gaps.posteriors import local

GRID = two.Grid.square(6.0, 121)


def mixture(share, places, deviations):
    parts = [
        stats.multivariate_normal(place, np.diag(np.square(own))).logpdf(GRID.points)
        for place, own in zip(places, deviations, strict=True)
    ]
    return two.nodes_of(np.logaddexp(np.log(share) + parts[0], np.log1p(-share) + parts[1]), GRID)


def test_the_farthest_from_gaussian_are_chosen_by_their_modes():
    near, far = [[0, 0], [0.3, 0]], [[-2, 0], [2, 0]]
    own = [
        mixture(0.6, near, [[1, 1], [1, 1]]),  # nearly Gaussian
        mixture(0.5, near, [[1, 1], [0.3, 0.3]]),
        mixture(0.6, far, [[0.5, 0.5], [0.5, 0.5]]),
        mixture(0.97, far, [[0.5, 0.5], [0.5, 0.5]]),  # the second basin holds too little
        mixture(0.5, far, [[0.4, 0.4], [0.4, 0.4]]),
    ]
    found = flows.choose(own, 1)
    assert found == {"one mode": [1], "several modes": [4]}
    found = flows.choose(own, 9)
    assert found == {"one mode": [1, 0], "several modes": [4, 2]}


def test_a_search_ends_between_the_evidence_and_the_best_factorised():
    rng = np.random.default_rng(0)
    world = SimpleNamespace(
        loadings=rng.normal(size=[5, 2]), noise=rng.uniform(0.8, 1.2, 5), offset=rng.normal(size=5)
    )
    images = rng.normal(size=[2, 5])
    total = world.loadings @ world.loadings.T + np.diag(world.noise**2)
    evidence = stats.multivariate_normal(world.offset, total).logpdf(images)
    precision = np.eye(2) + world.loadings.T @ (world.loadings / world.noise[:, None] ** 2)
    covariance = np.linalg.inv(precision)
    centred = (images - world.offset) / world.noise**2
    mean = centred @ world.loadings @ covariance
    lost = 0.5 * np.log(np.prod(np.diag(precision)) * np.linalg.det(covariance))
    start = np.concatenate([mean, np.tile(-0.5 * np.log(np.diag(precision)), [2, 1])], 1)
    stages = tuple(
        local.Search(learning_rates=(rate,), max_steps=200, num_samples=16) for rate in (2e-2, 2e-3)
    )
    size = SimpleNamespace(num_starts=2, stages=stages)
    model = VAE.from_factor_analysis(world)
    label = "planar"
    found, finer = flows._exact_gaps(
        model, flows._make(label, 2), start[None], images, evidence, size
    )
    found = np.array(found)
    assert found.shape == (2, 2, 2)
    # Never below zero but for float32 log joints of ten nats; below where it started.
    assert (found > -1e-4).all() and (found[-1] < 0.8 * lost).all()
    np.testing.assert_allclose(finer, found[-1].min(0), atol=2e-3)  # stored to a thousandth


def test_gaps_and_shares_are_those_of_the_best_starts():
    content = {
        "images": {"one mode": [3, 5], "several modes": [4]},
        "gaps": {
            "full covariance": [0.2, 0.4, 0.5],
            "planar": [[[9.0, 9.0, 9.0]] * 2, [[0.1, 0.3, 0.5], [0.2, 0.1, 0.6]]],
            "affine coupling": [[[0.2, 0.05, 0.4]]],
        },
        "elbo": {"planar": [-1.0, -2.0], "factorised": [-1.5, -3.0]},
    }
    one, several = (flows.gaps(content, kind) for kind in flows.KINDS)
    np.testing.assert_allclose(one["planar"], [0.1, 0.1])
    np.testing.assert_allclose(several["planar"], [0.5])
    assert flows.share_left(one, ["planar"]).value == pytest.approx(0.2 / 0.6)
    best = flows.share_left(one, ["planar", "affine coupling"])
    assert best.value == pytest.approx(0.15 / 0.6)
    assert flows.gain(content, "planar", "factorised").value == pytest.approx(0.75)


def test_unknown_variants_and_missing_results_are_refused(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="variant"):
        flows.run(scale="smoke", seeds=[0], variant="fifty")
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    with pytest.raises(results.ResultError, match="tfp-gaps run flows"):
        flows.stored("two")
