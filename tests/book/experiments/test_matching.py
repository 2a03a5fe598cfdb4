"""q that is fitted to draws: what it is compared with, in the plane and along the chain."""

import json

import numpy as np
import pytest
from scipy import stats

from tfp_gaps._tensorflow import tf
from tfp_gaps.book import results
from tfp_gaps.book.distillation import backward
from tfp_gaps.book.experiments import blind, filters, matching, two_latents
from tfp_gaps.exact import linear_gaussian as exact
from tfp_gaps.exact.joint_gaussian import JointGaussian
from tfp_gaps.models.vae import VAE
from tfp_gaps.networks import for_replicas, replica_normal, replica_seeds
from tfp_gaps.posteriors import families
from tfp_gaps.sequences import Batch

WORLD = filters.CHAIN


def test_the_model_of_a_part_has_its_pixels_and_no_others():
    size = matching.SIZES["smoke"]["images"].generator
    model = VAE(
        observation_size=784,
        latent_size=2,
        hidden=size.decoder,
        activation=size.activation,
        seeds=replica_seeds([3], "model"),
    )
    drawn, upper = blind.simulate(model, 5, seed=0), blind.visible_pixels(14)
    part = matching.model_of(model, size, upper)
    points = np.random.default_rng(0).normal(size=[6, 2])
    found = two_latents.log_joint(
        part, points, tf.constant(drawn.images[:, upper == 1], tf.float32)
    )[0]
    outputs = model.decoder(tf.constant(points[np.newaxis], tf.float32))[0].numpy()
    each = drawn.images * outputs[:, np.newaxis] - np.logaddexp(0, outputs)[:, np.newaxis]
    prior = stats.norm.logpdf(points).sum(-1)[:, np.newaxis]
    # Hundreds of terms in float32.
    np.testing.assert_allclose(found, (each * upper).sum(-1) + prior, atol=2e-3)


@pytest.mark.parametrize("narrow", [1.0, 0.5])
def test_a_gaussian_is_compared_with_a_gaussian_as_formulas_say(narrow):
    covariance = np.array([[1.0, 0.6], [0.6, 0.8]])
    grid = two_latents.Grid.square(7.0, 281)
    p = stats.multivariate_normal([0.3, -0.2], covariance)
    nodes = two_latents.nodes_of(p.logpdf(grid.points) - 5.0, grid)
    factor = narrow * np.linalg.cholesky(covariance)
    outputs = [[[0.3, -0.2, np.log(factor[0, 0]), np.log(factor[1, 1]), factor[1, 0]]]]
    family = families.make("full covariance", 2)
    q = families.Parameters(tf.constant(outputs, tf.float32), [], False)
    divergence, covered = matching._inside(family, q, 0, nodes)
    expected = 1 / narrow**2 - 1 + 2 * np.log(narrow)
    assert divergence == pytest.approx(expected, abs=1e-3)
    # The edge of a set cuts through cells of .05: an error of a few thousandths.
    assert covered == pytest.approx(1 - 0.1 ** (narrow**2), abs=5e-3)


def test_the_chain_is_compared_with_the_posterior_of_all_states_at_once():
    length, count, seeds = 5, 4, (0, 1)
    network = backward.BackwardNetwork(
        observation_size=1, latent_size=1, hidden_size=8, seeds=replica_seeds(seeds, "backward")
    )
    z, x = (part.astype(np.float32) for part in exact.sample(WORLD, length, count, seed=0))
    found = matching.measure_chain(network, WORLD, z, x, 2)
    joint = JointGaussian(WORLD, length)
    weights, covariance = joint.condition(joint.states, joint.observations)
    posterior = stats.multivariate_normal(np.zeros(length), covariance)

    def log_p(paths):  # [time, replicas, sequences]
        return posterior.logpdf(np.moveaxis(paths, 0, -1) - (x[..., 0].T @ weights.T))

    given = for_replicas(Batch(x), 2)
    paths = np.repeat(z[:, np.newaxis], 2, axis=1)
    filtered, kernels = backward.path_log_prob(network, given, tf.constant(paths))
    log_q = filtered[-1] + tf.reduce_sum(kernels, 0)
    expected = np.mean(log_p(paths[..., 0]) - log_q, -1)
    np.testing.assert_allclose(found["from_exact"], expected, rtol=1e-3)
    # KL(q || p), by other draws of q; its error over 4,000 of them is some hundredths.
    context, last = network.filter.context(given), tf.fill([2, count], length - 1)
    draw = tf.function(lambda noise: network.sample_path(context, last, noise))
    total = []
    for index in range(1000):
        noise = replica_normal([length, count, 1], replica_seeds(seeds, "test", index), axis=1)
        drawn, log_q = draw(noise)
        total.append(np.mean(np.sum(log_q, 0) - log_p(drawn.numpy()[..., 0]), -1))
    total = np.array(total)
    error = total.std(0, ddof=1) * np.sqrt(1 / 1000 + 1 / 40)
    np.testing.assert_array_less(np.abs(found["to_exact"] - total.mean(0)), 4 * error)


@pytest.mark.parametrize("variant", matching.VARIANTS)
def test_smoke_runs(variant):
    content = matching.run(scale="smoke", seeds=[0, 1], variant=variant)
    json.dumps(content, allow_nan=False)
    if variant == "images":
        assert len(content["found"]) == 2
        assert matching.means(content, "elbo", "covered").shape == (2,)
        for name in matching.ENCODERS:  # a bound is one, and a divergence is not negative
            of = content["found"][0][name]
            assert (np.array(of["bound"]) <= content["found"][0]["evidence"]).all()
            assert np.min([of["to_exact"], of["from_exact"]]) > -1e-3
    else:
        assert np.shape(content["found"]["matched"]["filter"]) == (2, 3)
        assert content["partial_gap"] > 0


def test_missing_results_name_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    with pytest.raises(results.ResultError, match="tfp-gaps run matching.*--variant chain"):
        matching.stored("chain")
    with pytest.raises(ValueError, match="variant"):
        matching.run(scale="smoke", seeds=[0], variant="roads")
