"""Densities of the state-space models."""

import numpy as np
import pytest
from scipy import stats

from tfp_gaps._tensorflow import tf
from tfp_gaps.exact.linear_gaussian import LinearGaussian
from tfp_gaps.models.state_space import (
    EMISSIONS,
    LinearGaussianStateSpace,
    StateSpace,
    log_likelihood,
    sample_latents,
)
from tfp_gaps.networks import replica_normal, replica_seeds


def build(emission="bernoulli", seeds=(0, 1), control_size=0):
    return StateSpace(
        observation_size=3,
        latent_size=2,
        hidden_size=8,
        emission=emission,
        seeds=replica_seeds(seeds, "model"),
        control_size=control_size,
    )


@pytest.mark.parametrize("emission", EMISSIONS)
def test_shapes_and_observation_independence(emission):
    model = build(emission)
    z = replica_normal([5, 4, 2], replica_seeds([0, 1], "z"))
    z = tf.transpose(z, [1, 0, 2, 3])
    likelihood = model.emission(z)
    x = tf.ones([5, 2, 4, 3])
    assert likelihood.log_prob(x).shape == (5, 2, 4)
    # Channels are independent given z_t, so the joint is the sum of single-channel terms.
    parts = likelihood.distribution.log_prob(x)
    np.testing.assert_allclose(likelihood.log_prob(x), tf.reduce_sum(parts, -1), rtol=1e-5)


@pytest.mark.parametrize("emission", EMISSIONS)
def test_a_missing_channel_is_left_out_and_its_value_does_not_matter(emission):
    model = build(emission)
    z = tf.transpose(replica_normal([5, 4, 2], replica_seeds([0, 1], "z")), [1, 0, 2, 3])
    x = np.ones([5, 2, 4, 3], np.float32)
    mask = np.ones_like(x)
    mask[2, :, 1, 0] = mask[3] = 0.0
    found = log_likelihood(model, z, x, mask).numpy()
    per_channel = model.emission(z).distribution.log_prob(x).numpy()
    np.testing.assert_allclose(found, (per_channel * mask).sum(-1), rtol=1e-5, atol=1e-6)
    assert np.all(found[3] == 0.0)  # nothing seen, nothing said
    other = np.where(mask == 1.0, x, 0.0).astype(np.float32)
    np.testing.assert_array_equal(log_likelihood(model, z, other, mask), found)
    np.testing.assert_allclose(
        log_likelihood(model, z, x), log_likelihood(model, z, x, np.ones_like(x)), rtol=1e-5
    )


def test_emissions_are_the_densities_they_are_named_after():
    # SciPy, on the parameters that the model reports.
    z = tf.zeros([2, 1, 2])
    x = np.array([-0.3, 0.8, 4.0])
    heavy = build("student_t").emission(z).distribution
    expected = stats.t.logpdf(x, heavy.df[0, 0], heavy.loc[0, 0], heavy.scale[0, 0])
    np.testing.assert_allclose(heavy.log_prob(x.astype(np.float32))[0, 0], expected, rtol=1e-5)
    assert np.all(heavy.df > 2.0)
    model = build("heteroscedastic")
    near, far = (model.emission(z + shift).distribution for shift in (0.0, 3.0))
    assert np.abs(near.scale - far.scale).max() > 1e-3  # the noise depends on the state
    expected = stats.norm.logpdf(x, near.loc[0, 0], near.scale[0, 0])
    np.testing.assert_allclose(near.log_prob(x.astype(np.float32))[0, 0], expected, rtol=1e-5)


def test_initial_state_starts_as_a_standard_normal():
    first = build().initial()
    np.testing.assert_allclose(first.mean, 0.0)
    np.testing.assert_allclose(first.scale, 1.02, atol=1e-3)  # softplus(0.5413) + 0.02


def test_controls_move_the_transition():
    model = build(control_size=1)
    z = tf.zeros([2, 4, 2])
    still, pushed = (model.transition(z, u * tf.ones([2, 4, 1])) for u in (0.0, 3.0))
    assert np.abs(still.mean - pushed.mean).max() > 1e-3


def test_linear_gaussian_samples_have_the_exact_moments():
    exact = LinearGaussian(
        transition=0.8, transition_cov=0.36, emission=2.0, emission_cov=0.5, initial_cov=1.0
    )
    model = LinearGaussianStateSpace(exact)
    count = 40_000
    noise = replica_normal([6, count, 1], replica_seeds([0], "noise"))
    z = sample_latents(model, tf.transpose(noise, [1, 0, 2, 3])).numpy()[:, 0, :, 0]
    # Stationary start: variance 1 and covariance 0.8 at every step; 4 standard errors of a
    # variance, sqrt(2 / n), and of a product of standard normals, at most sqrt(2 / n).
    tolerance = 4 * np.sqrt(2 / count)
    np.testing.assert_allclose((z**2).mean(1), 1.0, atol=tolerance)
    np.testing.assert_allclose((z[1:] * z[:-1]).mean(1), 0.8, atol=tolerance)
    assert float(model.emission(tf.ones([1, 1, 1])).mean()[0, 0, 0]) == 2.0


def test_correlated_noise_is_refused():
    exact = LinearGaussian(
        transition=0.5 * np.eye(2),
        transition_cov=np.array([[1.0, 0.5], [0.5, 1.0]]),
        emission=np.eye(2),
        emission_cov=np.eye(2),
        initial_cov=np.eye(2),
    )
    with pytest.raises(ValueError, match="transition_cov must be diagonal"):
        LinearGaussianStateSpace(exact)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent_size": 0}, "latent_size must be an integer and >= 1"),
        ({"observation_size": 2.5}, "observation_size"),
        ({"emission": "poisson"}, "Known: bernoulli, normal"),
        ({"control_size": -1}, "control_size"),
    ],
)
def test_bad_sizes(change, message):
    sizes = {"observation_size": 3, "latent_size": 2, "hidden_size": 8, "emission": "normal"}
    with pytest.raises(ValueError, match=message):
        StateSpace(**(sizes | change), seeds=replica_seeds([0], "model"))
