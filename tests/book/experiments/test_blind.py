"""Encoders that see part of an image: simulation, hidden means, the shared optimum, the run."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tfp_gaps._tensorflow import tf
from tfp_gaps.book import results
from tfp_gaps.book.experiments import blind, vae
from tfp_gaps.models.vae import VAE
from tfp_gaps.networks import replica_seeds

NUM_PIXELS = 784


@pytest.fixture(scope="module")
def world():
    """A model of one latent dimension, whose conditional means follow from a grid over z."""
    model = VAE(
        observation_size=NUM_PIXELS,
        latent_size=1,
        hidden=(),
        seeds=replica_seeds([0], "test"),
    )
    # Few pixels depend on z, so that the visible half leaves z uncertain.
    slopes = np.zeros((1, 1, NUM_PIXELS), np.float32)
    slopes[..., [10, 20, 500, 700]] = [1.5, -1.0, 2.0, -3.0]
    model.decoder.output.kernel.assign(slopes)
    return model


def grid_means(model, images, visible):
    """E[x_hidden | x_visible] by quadrature over z: float64 [images, pixels]."""
    z = np.linspace(-8, 8, 2001)
    outputs = model.decoder(tf.constant(z[np.newaxis, :, np.newaxis], tf.float32))[0].numpy()
    outputs = outputs.astype(np.float64)
    seen = visible * (images[:, np.newaxis] * outputs - np.logaddexp(0, outputs))
    log_posterior = seen.sum(-1) - 0.5 * z**2
    weights = np.exp(log_posterior - log_posterior.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    return weights @ (1 / (1 + np.exp(-outputs)))


def test_simulated_pixels_have_the_means_of_their_latents(world):
    drawn = blind.simulate(world, 4000, seed=0)
    assert drawn.images.shape == (4000, NUM_PIXELS) and set(np.unique(drawn.images)) == {0, 1}
    means = tf.sigmoid(world.decoder(tf.constant(drawn.latents)[tf.newaxis]))[0].numpy()
    # A mean over 4,000 images has an error of at most .008; the largest of 784 stays below 4.5.
    assert np.abs((drawn.images - means).mean(0)).max() < 4.5 * 0.5 / np.sqrt(4000)
    # And the pixels follow the latents: pixel 700 has the slope -3.
    covariance = np.mean(drawn.images[:, 700] * drawn.latents[:, 0])
    assert covariance < -0.2


def test_hidden_means_are_those_of_quadrature(world):
    drawn = blind.simulate(world, 40, seed=1)
    visible = blind.visible_pixels(14)
    size = replace(blind.SIZES["smoke"], num_chains=16, num_steps=400, num_leapfrog_steps=5)
    found = blind.hidden_means(world, drawn, visible, size, seed=2)
    expected = grid_means(world, drawn.images, visible)
    hidden = visible == 0
    np.testing.assert_array_equal(found.pixels[:, ~hidden], drawn.images[:, ~hidden])
    # 16 chains of 200 correlated draws: a pixel's mean has an error of about .01.
    for pixel in (500, 700):
        miss = found.pixels[:, pixel] - expected[:, pixel]
        assert np.sqrt(np.mean(miss**2)) < 0.04
        assert abs(miss.mean()) < 0.02
    assert 0.4 < found.acceptance < 0.98


def test_all_pixels_visible_leaves_nothing_hidden(world):
    drawn = blind.simulate(world, 4, seed=1)
    found = blind.hidden_means(world, drawn, blind.visible_pixels(28), blind.SIZES["smoke"], seed=2)
    np.testing.assert_array_equal(found.pixels, drawn.images)
    assert found.error == 0.0


def test_the_expectation_over_hidden_pixels_is_exact_for_a_blind_posterior(world):
    # E over C' of L[q] = L[q] at the means: averaged over many hidden halves drawn from them.
    drawn = blind.simulate(world, 1, seed=3)
    visible = blind.visible_pixels(14)
    size = replace(blind.SIZES["smoke"].generator, latent_size=1)
    posterior = vae.new_posterior(size, [0], visible=visible)
    means = grid_means(world, drawn.images, visible)
    means = np.where(visible == 1, drawn.images, means)
    options = replace(blind.SIZES["smoke"], generator=replace(size, num_samples=200))
    many = replace(options, generator=replace(size, num_samples=40_000))
    expected = blind.amortised(world, posterior, drawn.images, many, seed=4, means=means)
    rng = np.random.default_rng(0)
    draws = np.where(visible == 1, drawn.images, rng.random((3000, NUM_PIXELS)) < means)
    found = blind.amortised(world, posterior, draws.astype(np.uint8), options, seed=4)
    # Images of a batch of 100 share their draws of z: the error is that over batches.
    batches = found.reshape(-1, 100).mean(1)
    error = batches.std(ddof=1) / np.sqrt(len(batches))
    assert error < 0.2
    assert found.mean() == pytest.approx(expected[0], abs=4 * error)


def test_annealing_sandwiches_the_evidence(world):
    drawn = blind.simulate(world, 12, seed=5)
    size = replace(
        blind.SIZES["smoke"],
        num_annealed=12,
        annealed={"num_chains": 32, "num_steps": 100, "num_leapfrog_steps": 5},
    )
    found = blind.sandwich(world, drawn, size, seed=0)
    z = np.linspace(-8, 8, 2001)
    joint = world.log_joint(
        tf.constant(z[:, np.newaxis, np.newaxis, np.newaxis], tf.float32),
        tf.constant(drawn.images[np.newaxis], tf.float32),
    )
    exact = np.log(np.exp(joint.numpy()[:, 0].astype(np.float64) + 600).sum(0) * (z[1] - z[0]))
    for side in ("lower", "upper"):
        miss = np.asarray(found[side]) - (exact - 600)
        # In one dimension a hundred temperatures leave an error of a few hundredths.
        assert abs(miss.mean()) < 4 * miss.std(ddof=1) / np.sqrt(12) + 0.01, side
        assert miss.std() < 0.3


def test_visible_pixels_counts_rows():
    np.testing.assert_array_equal(blind.visible_pixels(1)[:29], [1] * 28 + [0])
    with pytest.raises(ValueError, match="num_rows"):
        blind.visible_pixels(29)


def test_smoke_run_decomposes_without_remainder(tmp_path):
    content = blind.run(scale="smoke", seeds=[0], checkpoint_folder=tmp_path)
    content = json.loads(json.dumps(content))
    assert set(content["joint"]) == {"14"}
    assert "width8" in content["frozen"]["rows"]["14"]
    assert len(content["frozen"]["annealed"]["upper"]) == 2
    report = blind.decompose(content, 14)
    assert abs(report.residual()) < 1e-9
    assert report.conditioning.num_samples == 8 and report.conditioning.standard_error > 0


def test_several_seeds_and_variants_are_refused():
    with pytest.raises(ValueError, match="one seed at a time"):
        blind.run(scale="smoke", seeds=[0, 1])
    with pytest.raises(ValueError, match="variant"):
        blind.run(scale="smoke", seeds=[0], variant="latent4")


def test_missing_results_name_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    with pytest.raises(results.ResultError, match="tfp-gaps run blind"):
        blind.stored()
