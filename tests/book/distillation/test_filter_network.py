"""The filter by maximum likelihood: its densities, bad input."""

import numpy as np
import pytest
from scipy import stats

from tfp_gaps._tensorflow import tf
from tfp_gaps.book.distillation.filter_network import FilterNetwork, negative_log_likelihood
from tfp_gaps.networks import replica_normal, replica_seeds
from tfp_gaps.sequences import Batch

SIZES = {"observation_size": 2, "latent_size": 2, "hidden_size": 8}


def build(seeds=(0, 1), **sizes):
    return FilterNetwork(**(SIZES | sizes), seeds=replica_seeds(seeds, "filter"))


def normal(time, batch, channels, purpose="x"):
    """[time, replicas, batch, channels]."""
    return replica_normal([time, batch, channels], replica_seeds((0, 1), purpose), axis=1)


# Densities ----------------------------------------------------------------------------------------


def test_the_density_is_that_of_a_mixture_of_full_normals():
    network = build()
    context = network.context(Batch(normal(3, 2, 2)))[-1]
    # Components far apart and of unequal weight, so that a wrong one shows.
    for variable in network.trainable_variables:
        variable.assign(variable + 0.5 * tf.random.stateless_normal(variable.shape, [1, 2]))
    mixture, points = network.mixture(context), normal(1, 2, 2, "z")[0]
    assert mixture.batch_shape == (2, 2) and mixture.event_shape == (2,)
    parts = mixture.components_distribution
    weights = mixture.mixture_distribution.probs_parameter().numpy()
    means, covariances = parts.mean().numpy(), parts.covariance().numpy()
    found = mixture.log_prob(points).numpy()
    for r, b in np.ndindex(2, 2):
        terms = [
            w * stats.multivariate_normal(m, c).pdf(points[r, b])
            for w, m, c in zip(weights[r, b], means[r, b], covariances[r, b], strict=True)
        ]
        assert len(terms) == 5
        np.testing.assert_allclose(found[r, b], np.log(sum(terms)), rtol=1e-3, atol=1e-3)
    # Correlated, and no scale below its bound.
    assert np.abs(covariances[..., 0, 1]).max() > 1e-3
    narrow = build(minimum_scale=3.0).mixture(context).components_distribution
    assert (np.linalg.eigvalsh(narrow.covariance()).prod(-1) >= 3.0**4 * 0.999).all()


def test_steps_give_the_context():
    network = build(control_size=1)
    x, controls = normal(5, 3, 2), normal(5, 3, 1, "u")
    expected, state = network.context(Batch(x, controls)), network.begin(3)
    for t in range(5):
        context, state = network.step(state, x[t], controls[t])
        np.testing.assert_allclose(context, expected[t], rtol=1e-5, atol=1e-6)


def test_the_loss_is_minus_the_log_density_of_what_the_smoother_draws():
    network = build()
    batch, latents = Batch(normal(4, 3, 2)), normal(4, 3, 2, "z")
    loss = negative_log_likelihood(network, lambda batch, seeds: latents)
    found = loss(batch, replica_seeds((0, 1), "any"), 1.0).numpy()
    log_prob = network.mixture(network.context(batch)).log_prob(latents).numpy()
    np.testing.assert_allclose(found, -log_prob.sum(0).mean(-1), rtol=1e-5)


def test_every_trainable_variable_has_a_gradient():
    network = build()
    with tf.GradientTape() as tape:
        mixture = network.mixture(network.context(Batch(normal(4, 3, 2))))
        total = tf.reduce_sum(mixture.log_prob(normal(4, 3, 2, "z")))
    for variable, gradient in zip(
        network.trainable_variables, tape.gradient(total, network.trainable_variables), strict=True
    ):
        assert gradient is not None and tf.reduce_any(gradient != 0), variable.name


@pytest.mark.parametrize("name", ["latent_size", "num_components", "observation_size"])
def test_bad_sizes(name):
    with pytest.raises(ValueError, match=f"{name} must be an integer and >= 1"):
        build(**{name: 0})
