"""The model to act on: densities, the conditional in closed form, bad input."""

import numpy as np
import pytest
from scipy import stats

from tfp_gaps._tensorflow import tf
from tfp_gaps.book.control.world_model import WorldModel, adapted
from tfp_gaps.networks import replica_seeds

SIZES = {"observation_size": 2, "latent_size": 3, "control_size": 1, "hidden_size": 8}


def build(seeds=(0, 1), **sizes):
    return WorldModel(**(SIZES | sizes), seeds=replica_seeds(seeds, "model"))


def normal(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_an_untrained_state_stays_near_where_it_is():
    latent, control = normal([100, 2, 5, 3]), normal([100, 2, 5, 1], 1)
    prior = build().transition(tf.constant(latent), tf.constant(control))
    assert prior.mean.shape == prior.scale.shape == (100, 2, 5, 3)
    moved = prior.mean.numpy() - latent
    # Linear part and network both start at a tenth of the usual size.
    assert 0.01 < moved.std() < 0.3


def test_the_first_state_starts_as_wide_as_asked():
    scale = build(first_scale=4.0).initial().scale.numpy()
    # The lower bound comes on top.
    np.testing.assert_allclose(scale, 4.0 + 2e-3, rtol=1e-5)
    with pytest.raises(ValueError, match="first_scale"):
        build(first_scale=0.0)


def test_the_conditional_is_that_of_the_joint_normal():
    model = build()
    prior = model.transition(tf.constant(normal([4, 2, 5, 3])), tf.constant(normal([4, 2, 5, 1])))
    observation = normal([2, 5, 2], 2)
    posterior, log_predictive = adapted(model, prior, tf.constant(observation))
    assert log_predictive.shape == (4, 2, 5)
    noise, emission = model.observation_noise.numpy(), np.eye(2, 3)
    for p, r, b in [(0, 0, 0), (3, 1, 4), (2, 0, 1)]:
        mean = prior.mean.numpy()[p, r, b].astype(np.float64)
        cov = np.diag(prior.scale.numpy()[p, r, b].astype(np.float64) ** 2)
        predicted = emission @ cov @ emission.T + np.diag(noise[r, 0].astype(np.float64) ** 2)
        gain = cov @ emission.T @ np.linalg.inv(predicted)
        error = observation[r, b] - emission @ mean
        np.testing.assert_allclose(posterior.mean[p, r, b], mean + gain @ error, rtol=1e-4)
        expected = np.sqrt(np.diag(cov - gain @ emission @ cov))
        np.testing.assert_allclose(posterior.scale[p, r, b], expected, rtol=1e-5)
        expected = stats.multivariate_normal(emission @ mean, predicted).logpdf(observation[r, b])
        np.testing.assert_allclose(log_predictive[p, r, b], expected, rtol=1e-4, atol=1e-4)


def test_prior_times_likelihood_is_conditional_times_evidence():
    """Bayes' rule in terms of the model's own distributions, at arbitrary states."""
    model = build(latent_size=2)
    prior = model.initial()
    observation, latent = tf.constant(normal([2, 7, 2])), tf.constant(normal([2, 7, 2], 1))
    posterior, log_predictive = adapted(model, prior, observation)

    def log_prob(distribution):
        return stats.norm(distribution.mean, distribution.scale).logpdf(latent).sum(-1)

    joint = log_prob(prior) + model.emission(latent).log_prob(observation)
    np.testing.assert_allclose(log_prob(posterior) + log_predictive, joint, rtol=1e-4, atol=1e-3)


def test_the_scales_keep_their_bound():
    model = build()
    for variable in model.trainable_variables:
        if variable.name.startswith(("transition_scale", "observation_noise")):
            variable.assign(tf.fill(variable.shape, -50.0))
    for scale in (model.transition_scale, model.observation_noise):
        np.testing.assert_allclose(scale, 2e-3, rtol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"latent_size": 1}, "latent_size must be an integer and >= 2"),
        ({"control_size": 0}, "control_size must be an integer and >= 1"),
        ({"hidden_size": 0}, "hidden_size must be an integer and >= 1"),
        ({"minimum_scale": 0.0}, "minimum_scale must be"),
    ],
)
def test_bad_sizes(sizes, message):
    with pytest.raises(ValueError, match=message):
        build(**sizes)
