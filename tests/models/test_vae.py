"""Densities of the auto-encoder's model against SciPy, and its evidence against quadrature."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import special, stats

from tfp_gaps._tensorflow import tf
from tfp_gaps.models.vae import VAE, standard_normal_log_prob
from tfp_gaps.networks import replica_seeds

PIXELS, LATENT = 6, 3


def build(seeds=(0,), **options):
    sizes = {"observation_size": PIXELS, "latent_size": LATENT, "hidden": (5, 4)}
    return VAE(**(sizes | options), seeds=replica_seeds(seeds, "model"))


def latents(num_replicas=1, samples=2, count=4):
    shape = [samples, num_replicas, count, LATENT]
    return tf.constant(np.random.default_rng(0).normal(size=shape), tf.float32)


def images(count=4):
    return np.random.default_rng(1).integers(0, 2, [1, count, PIXELS]).astype(np.float32)


def decode(model, values, replica=0):
    """The decoder in NumPy, float64: elu layers, then an affine one."""
    values = values[:, replica].numpy().astype(np.float64)
    for layer in model.decoder.hidden:
        values = values @ layer.kernel[replica].numpy() + layer.bias[replica].numpy()
        values = np.where(values > 0, values, np.expm1(values))
    output = model.decoder.output
    return values @ output.kernel[replica].numpy() + output.bias[replica].numpy()


@pytest.mark.parametrize("hidden", [(), (5,), (5, 4, 4, 5)])
def test_bernoulli_densities_are_those_of_scipy(hidden):
    model, z, x = build(hidden=hidden), latents(), images()
    probability = special.expit(decode(model, z))
    expected = stats.bernoulli.logpmf(x[0], probability).sum(-1)
    # Float32 sums of six pixels.
    np.testing.assert_allclose(model.log_likelihood(z, x)[:, 0], expected, atol=1e-5)
    np.testing.assert_allclose(model.emission(z).log_prob(x)[:, 0], expected, atol=1e-5)
    prior = stats.norm.logpdf(z).sum(-1)
    np.testing.assert_allclose(model.log_prior(z), prior, atol=1e-5)
    np.testing.assert_allclose(model.log_joint(z, x)[:, 0], prior[:, 0] + expected, atol=1e-5)


def test_normal_densities_are_those_of_scipy():
    model, z = build(emission="normal"), latents()
    model.log_noise.assign(np.linspace(-1, 0.5, PIXELS)[None, None].astype(np.float32))
    x = np.random.default_rng(2).normal(size=[1, 4, PIXELS]).astype(np.float32)
    noise = np.exp(np.linspace(-1, 0.5, PIXELS))
    expected = stats.norm.logpdf(x[0], decode(model, z), noise).sum(-1)
    np.testing.assert_allclose(model.log_likelihood(z, x)[:, 0], expected, atol=2e-5)
    np.testing.assert_allclose(model.emission(z).log_prob(x)[:, 0], expected, atol=2e-5)
    assert any(variable is model.log_noise for variable in model.trainable_variables)


def test_the_mean_of_a_pixel_gives_the_expectation_over_it():
    model, z, x = build(), latents(), images()
    means = np.linspace(0.1, 0.9, 4, dtype=np.float32)
    values = []
    for pixel in (0.0, 1.0):
        x[..., 2] = pixel
        values.append(model.log_likelihood(z, x).numpy())
    x[..., 2] = means
    expected = (1 - means) * values[0] + means * values[1]
    np.testing.assert_allclose(model.log_likelihood(z, x), expected, atol=1e-5)


def test_replicas_are_independent_models():
    z, x = latents(num_replicas=2), images()
    both = build(seeds=[3, 8])
    assert both.num_replicas == 2
    values = both.log_joint(z, x).numpy()
    for r, seed in enumerate([3, 8]):
        alone = build(seeds=[seed]).log_joint(z[:, r : r + 1], x)
        np.testing.assert_allclose(values[:, r : r + 1], alone, atol=1e-5)
    assert np.abs(build(seeds=[3, 4]).log_joint(z, x) - values)[:, 1].min() > 1e-4


def test_linear_gaussian_model_has_the_evidence_of_factor_analysis():
    rng = np.random.default_rng(4)
    world = SimpleNamespace(
        loadings=rng.normal(size=[4, 2]), noise=rng.uniform(0.5, 1, 4), offset=rng.normal(size=4)
    )
    model = VAE.from_factor_analysis(world)
    x = rng.normal(size=[3, 4]).astype(np.float32)
    # ln of the integral of p(x, z) over a grid that holds all of the prior's mass; for a smooth
    # function that falls to zero, sums on a grid converge exponentially.
    grid = np.linspace(-7, 7, 141)
    z = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 1, 1, 2)
    z = tf.constant(np.tile(z, [1, 1, 3, 1]), tf.float32)
    log_joint = model.log_joint(z, x[None]).numpy()[:, 0].astype(np.float64)
    found = special.logsumexp(log_joint, axis=0) + 2 * np.log(grid[1] - grid[0])
    covariance = world.loadings @ world.loadings.T + np.diag(world.noise**2)
    expected = stats.multivariate_normal(world.offset, covariance).logpdf(x)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_standard_normal_sums_the_last_axis_alone():
    values = np.random.default_rng(5).normal(size=[2, 3, 4, 5]).astype(np.float32)
    found = standard_normal_log_prob(tf.constant(values))
    np.testing.assert_allclose(found, stats.norm.logpdf(values).sum(-1), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"emission": "poisson"}, "Unknown emission 'poisson'. Known: bernoulli, normal"),
        ({"activation": "sine"}, "Unknown activation 'sine'"),
        ({"latent_size": 0}, "latent_size must be an integer and >= 1"),
        ({"observation_size": 2.5}, "observation_size must be an integer"),
    ],
)
def test_bad_models_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)
