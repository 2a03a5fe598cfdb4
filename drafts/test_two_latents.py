"""Posteriors on a grid against closed forms, and the best q against known ones."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from tfp_gaps._tensorflow import tf
from tfp_gaps.experiments import two_latents as two
from tfp_gaps.experiments import vae
from tfp_gaps.inference import families, local
from tfp_gaps.models.vae import VAE
from tfp_gaps.networks import replica_seeds

GRID = two.Grid.square(6.0, 161)


@pytest.fixture(scope="module")
def linear():
    """A linear-Gaussian model, three observations, and their posterior."""
    rng = np.random.default_rng(0)
    world = SimpleNamespace(
        loadings=rng.normal(size=[5, 2]), noise=rng.uniform(0.8, 1.2, 5), offset=rng.normal(size=5)
    )
    images = rng.normal(size=[3, 5])
    precision = np.eye(2) + world.loadings.T @ (world.loadings / world.noise[:, None] ** 2)
    covariance = np.linalg.inv(precision)
    centred = (images - world.offset) / world.noise**2
    return SimpleNamespace(
        world=world,
        model=VAE.from_factor_analysis(world),
        images=images,
        mean=centred @ world.loadings @ covariance,
        covariance=covariance,
        precision=precision,
    )


def test_evidence_and_moments_are_those_of_factor_analysis(linear):
    table = two.tabulate(linear.model, linear.images, GRID, 3)
    world = linear.world
    total = world.loadings @ world.loadings.T + np.diag(world.noise**2)
    expected = stats.multivariate_normal(world.offset, total).logpdf(linear.images)
    # Float32 log joints of about ten nats; the quadrature itself is exact to 1e-9.
    np.testing.assert_allclose(table.log_evidence[0], expected, atol=1e-5)
    assert table.outer_share.max() < 1e-6
    for image in range(3):
        mean, covariance = two.nodes_of(table, 0, image).moments()
        np.testing.assert_allclose(mean, linear.mean[image], atol=1e-4)
        np.testing.assert_allclose(covariance, linear.covariance, atol=1e-4)
        assert abs(two.nodes_of(table, 0, image).non_gaussianity()) < 1e-4
        assert two.num_modes(table, 0, image) == 1


def test_mass_at_the_edge_is_noticed(linear):
    small = two.Grid.square(0.5, 41)
    assert two.tabulate(linear.model, linear.images, small, 1).outer_share.max() > 0.05


def test_best_gaussians_are_the_known_ones(linear):
    table = two.tabulate(linear.model, linear.images, GRID, 3)
    for image in range(3):
        nodes = two.nodes_of(table, 0, image)
        full = two.best_gaussian(nodes, correlated=True)
        assert abs(full.kl) < 1e-3
        np.testing.assert_allclose(full.mean, linear.mean[image], atol=0.01)
        # The best factorised q has the mean and the diagonal of the precision.
        poor = two.best_gaussian(nodes, correlated=False)
        lost = np.prod(np.diag(linear.precision)) * np.linalg.det(linear.covariance)
        expected = 0.5 * np.log(lost)
        assert poor.kl == pytest.approx(expected, abs=1e-3)
        np.testing.assert_allclose(
            np.diag(poor.whitening) ** 2, np.diag(linear.precision), rtol=0.03
        )
        assert poor.whitening[1, 0] == 0


def test_divergence_on_nodes_is_that_of_gaussians():
    nodes = two.Nodes(
        GRID.points, stats.multivariate_normal([0, 0], np.eye(2)).logpdf(GRID.points), GRID.cell
    )
    assert nodes.log_evidence == pytest.approx(0, abs=1e-8)
    mean, scale = np.array([0.3, -0.2]), np.array([0.7, 1.1])
    expected = 0.5 * np.sum(scale**2 + mean**2 - 1 - 2 * np.log(scale))
    q = two.Gaussian(mean, np.diag(1 / scale), 0.0)
    # A part in a million of q lies beyond the grid.
    assert nodes.kl(q.log_prob(GRID.points)) == pytest.approx(expected, abs=1e-5)
    assert two.gaussian_kl(nodes, mean, np.diag(1 / scale)) == pytest.approx(expected, abs=1e-5)
    rotated = np.array([[1.2, 0.0], [0.5, 0.9]])
    covariance = np.linalg.inv(rotated.T @ rotated)
    expected = 0.5 * (np.trace(covariance) - 2 - np.log(np.linalg.det(covariance)))
    q = two.Gaussian(np.zeros(2), rotated, 0.0)
    assert nodes.kl(q.log_prob(GRID.points)) == pytest.approx(expected, abs=1e-5)
    # A q narrower than the grid gains nothing.
    assert two.gaussian_kl(nodes, np.zeros(2), 1e4 * np.eye(2)) > 5


def test_gradient_of_the_search_is_that_of_its_objective():
    rng = np.random.default_rng(1)
    points = two.Grid.square(2.0, 21).points
    values = -np.abs(points).sum(1) + 0.3 * np.sin(3 * points[:, 0] * points[:, 1])
    parameters = rng.normal(size=5) * 0.3
    _, gradient = two._objective(parameters, points, values, True)
    step = 1e-6
    for index in range(5):
        ends = [parameters + sign * step * np.eye(5)[index] for sign in (1, -1)]
        up, down = (two._objective(end, points, values, True)[0] for end in ends)
        assert gradient[index] == pytest.approx((up - down) / (2 * step), abs=1e-6)


def bernoulli_model(replicas=1):
    model = VAE(
        observation_size=12, latent_size=2, hidden=(8,), seeds=replica_seeds(range(replicas), "m")
    )
    for layer in (*model.decoder.hidden, model.decoder.output):
        layer.kernel.assign(1.5 * layer.kernel)
    return model


def test_table_holds_the_log_joint_of_the_model():
    model, rng = bernoulli_model(2), np.random.default_rng(2)
    images = rng.integers(0, 2, [4, 12]).astype(np.float32)
    grid = two.Grid.square(5.0, 81)
    table = two.tabulate(model, images, grid, 2)
    assert table.log_evidence.shape == (2, 4) and table.log_joint.shape == (2, 2, 81 * 81)
    picked = [0, 40, 3000, 6560]
    latents = np.tile(grid.points[picked][:, None, None], [1, 2, 4, 1]).astype(np.float32)
    expected = model.log_joint(tf.constant(latents), images[None]).numpy()
    np.testing.assert_allclose(
        table.log_joint[..., picked], expected[..., :2].transpose(1, 2, 0), atol=2e-5
    )
    nodes = two.nodes_of(table, 1, 0)
    assert nodes.log_evidence == pytest.approx(table.log_evidence[1, 0], abs=1e-4)


def test_search_comes_close_to_the_best_and_agrees_with_the_grid():
    model, rng = bernoulli_model(), np.random.default_rng(3)
    images = rng.integers(0, 2, [2, 12]).astype(np.float32)
    table = two.tabulate(model, images, GRID, 2)
    nodes = [two.nodes_of(table, 0, i) for i in range(2)]
    settings = local.Search(learning_rates=(5e-2,), max_steps=150, patience=9, num_samples=16)
    starts = np.zeros([2, 2, 2]), np.stack([np.zeros([2, 2]), np.full([2, 2], -1.0)])
    best = two.search(model, "full covariance", starts, images, settings, seed=0)
    for image in range(2):
        gap = table.log_evidence[0, image] - best.elbo[image]
        known = two.best_gaussian(nodes[image], correlated=True)
        assert gap == pytest.approx(known.kl, abs=0.01 + 4 * best.elbo_error[image])
        density = two.log_density(best.family, best.parameters, image, nodes[image].points)
        assert nodes[image].kl(density) == pytest.approx(gap, abs=4 * best.elbo_error[image] + 1e-3)
        # The same q through its parameters.
        again = two.parameters_of([known, known], correlated=True)
        own = two.log_density(families.make("full covariance", 2), again, 1, nodes[image].points)
        np.testing.assert_allclose(own, known.log_prob(nodes[image].points), atol=1e-3)
    assert two.draws(best.family, best.parameters, 1, 7, seed=0).shape == (7, 2)


def test_chosen_images_have_the_ranks_that_they_are_named_after():
    # 21 posteriors: a ridge that bends more and more, and one with two bumps.
    grid = two.Grid.square(5.0, 101)
    first, second = grid.points.T
    rows = [
        -0.5 * (first**2 + 4 * (second - bend * first**2) ** 2) for bend in np.linspace(0, 1, 20)
    ]
    rows.append(np.logaddexp(-2 * (first - 2) ** 2, -2 * (first + 2) ** 2) - 2 * second**2)
    table = two.Table(grid, np.zeros([1, 21]), np.zeros(1), np.array([rows], np.float32))
    chosen = two.choose(table)
    assert chosen["one mode"] == 19 and chosen["two modes"] == 20
    ranks = [two.nodes_of(table, 0, i).non_gaussianity() for i in range(21)]
    assert sorted(ranks)[10] == ranks[chosen["median"]]
    assert sorted(ranks)[18] == ranks[chosen["ninth decile"]]


def test_one_replica_alone_is_the_same_model():
    size = two.size_of("flow")
    seeds = replica_seeds([0, 1], "m")
    model = VAE(observation_size=784, latent_size=2, hidden=size.decoder, seeds=seeds)
    fitted = vae.Fitted(model, vae.new_posterior(size, [0, 1]), None)
    alone = two.select_replica(fitted, size, 1)
    images = np.random.default_rng(4).integers(0, 2, [1, 2, 784]).astype(np.float32)
    latents = np.random.default_rng(5).normal(size=[3, 2, 2, 2]).astype(np.float32)
    np.testing.assert_allclose(
        alone.model.log_joint(tf.constant(latents[:, 1:]), images)[:, 0],
        model.log_joint(tf.constant(latents), images)[:, 1],
        atol=1e-3,
    )
    np.testing.assert_allclose(
        alone.posterior.outputs(images)[0], fitted.posterior.outputs(images)[1], atol=1e-5
    )


def test_other_latent_dimensions_and_images_are_refused():
    model = VAE(observation_size=4, latent_size=3, hidden=(2,), seeds=replica_seeds([0], "m"))
    with pytest.raises(ValueError, match="2 latent dimensions"):
        two.tabulate(model, np.zeros([1, 4]), GRID, 1)
    with pytest.raises(ValueError, match="12 pixels"):
        two.tabulate(bernoulli_model(), np.zeros([1, 4]), GRID, 1)
    with pytest.raises(ValueError, match="generator"):
        two.size_of("spline")


def test_a_longer_search_ends_at_the_best_factorised_gaussian(linear):
    table = two.tabulate(linear.model, linear.images, GRID, 3)
    family = families.make("factorised", 2)
    fitted = vae.Fitted(linear.model, SimpleNamespace(family=family), None)
    common = {"check_every": 50, "patience": 99, "num_samples": 16, "batch_size": 3}
    stages = [
        local.Search(learning_rates=(rate,), max_steps=100, **common) for rate in (5e-2, 5e-3)
    ]
    starts = np.stack([linear.mean, linear.mean + 1.0]), np.full([2, 3, 2], -1.0)
    gaps, trace = two.plateau(fitted, table, starts, linear.images, stages, seed=0)
    assert gaps.shape == (2, 2, 3) and trace.shape == (2, 4)
    for image in range(3):
        known = two.best_gaussian(two.nodes_of(table, 0, image), correlated=False).kl
        # Adam's last steps are of .005 per parameter.
        np.testing.assert_allclose(gaps[-1, :, image], known, atol=0.01)
    # Far from the posterior's mass, where a window around that would hold nothing of q.
    outputs = np.array([4.0, -4.0, -1.0, -1.0])
    q = two.Gaussian(outputs[:2], np.exp(1.0) * np.eye(2), 0.0)
    whole = two.nodes_of(table, 0, 0, np.inf)
    expected = whole.kl(q.log_prob(whole.points))
    assert two.factorised_gap(table, 0, outputs) == pytest.approx(expected, rel=1e-5)
