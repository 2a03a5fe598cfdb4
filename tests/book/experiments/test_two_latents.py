"""Posteriors on a grid against closed forms, and the best q against known ones."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from tfp_gaps._tensorflow import tf
from tfp_gaps.book import results
from tfp_gaps.book.experiments import two_latents as two
from tfp_gaps.book.experiments import vae
from tfp_gaps.models.vae import VAE
from tfp_gaps.networks import replica_seeds
from tfp_gaps.posteriors import families, local

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
    world = linear.world
    total = world.loadings @ world.loadings.T + np.diag(world.noise**2)
    expected = stats.multivariate_normal(world.offset, total).logpdf(linear.images)
    nodes = two.tabulate(linear.model, linear.images, GRID)
    for found in (nodes, two.refine(linear.model, linear.images, nodes)):
        for image, own in enumerate(found):
            # Float32 log joints of about ten nats; the quadrature itself is exact to 1e-9.
            assert own.log_evidence == pytest.approx(expected[image], abs=2e-5)
            mean, covariance = own.moments()
            np.testing.assert_allclose(mean, linear.mean[image], atol=1e-4)
            np.testing.assert_allclose(covariance, linear.covariance, atol=1e-4)
            assert abs(own.non_gaussianity()) < 1e-4
            assert len(own.modes) == 1 and own.outer_share < 1e-6
            # The distance of two nodes.
            np.testing.assert_allclose(own.modes[0], linear.mean[image], atol=0.075)
    assert len(found[0].points) > 3 * len(nodes[0].points)


def test_a_finer_grid_around_the_mass_agrees(linear):
    nodes = two.tabulate(linear.model, linear.images, GRID)
    grid, fine = two.zoom(linear.model, linear.images[0], nodes[0], num=140)
    assert len(fine.points) == len(grid.points) == 140**2 and fine.cell < nodes[0].cell
    assert fine.log_evidence == pytest.approx(nodes[0].log_evidence, abs=2e-5)


def test_mass_at_the_edge_is_noticed(linear):
    small = two.Grid.square(0.5, 41)
    assert max(n.outer_share for n in two.tabulate(linear.model, linear.images, small)) > 0.05


def test_best_gaussians_are_the_known_ones(linear):
    for image, own in enumerate(two.tabulate(linear.model, linear.images, GRID)):
        full = two.best_gaussian(own, correlated=True)
        assert abs(full.kl) < 1e-3
        np.testing.assert_allclose(full.mean, linear.mean[image], atol=0.01)
        # The best factorised q has the mean and the diagonal of the precision.
        poor = two.best_gaussian(own, correlated=False)
        lost = np.prod(np.diag(linear.precision)) * np.linalg.det(linear.covariance)
        assert poor.kl == pytest.approx(0.5 * np.log(lost), abs=1e-3)
        found = np.diag(poor.whitening) ** 2
        np.testing.assert_allclose(found, np.diag(linear.precision), rtol=0.03)
        assert poor.whitening[1, 0] == 0


@pytest.mark.parametrize(("distance", "deviation", "share"), [(3.0, 0.15, 0.55), (2.0, 0.2, 0.6)])
def test_of_two_modes_far_apart_the_best_gaussian_has_the_larger_one(distance, deviation, share):
    # A long thin q across both would have nearly all of its mass where the grid has dropped nodes.
    grid = two.Grid.square(6.0, 241)
    centre = distance * np.array([np.cos(0.8), np.sin(0.8)])
    parts = [
        stats.multivariate_normal(place, deviation**2 * np.eye(2)).logpdf(grid.points)
        for place in (centre, -centre)
    ]
    own = two.nodes_of(np.logaddexp(np.log(share) + parts[0], np.log1p(-share) + parts[1]), grid)
    for correlated in (False, True):
        found = two.best_gaussian(own, correlated=correlated)
        # The divergence of a component from its mixture, as far as they do not overlap.
        assert found.kl == pytest.approx(-np.log(share), abs=1e-4)
        np.testing.assert_allclose(found.mean, centre, atol=1e-3)


def planted(log_joint):
    """`Nodes` of a function of the two latents."""
    return two.nodes_of(log_joint(*GRID.points.T), GRID)


@pytest.mark.parametrize("correlated", [False, True])
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_two_far_modes_cost_the_logarithm_of_the_share_that_is_held(share, correlated):
    def log_joint(first, second):
        logs = [
            np.log(weight) - 2 * (first - centre) ** 2 - 2 * (second - centre) ** 2
            for weight, centre in ((share, 2.0), (1 - share, -2.0))
        ]
        return np.logaddexp(*logs)

    nodes = planted(log_joint)
    assert len(nodes.modes) == 2
    # The distance of two nodes.
    np.testing.assert_allclose(np.abs(nodes.modes), 2.0, atol=0.075)
    assert share == 0.5 or (nodes.modes[0] > 0).all()
    np.testing.assert_allclose(np.sort(nodes.shares())[::-1], [share, 1 - share], atol=1e-6)
    best = two.best_gaussian(nodes, correlated=correlated)
    # Eight standard deviations apart: what leaks over is below 1e-6.
    assert best.kl == pytest.approx(-np.log(share), abs=1e-3)
    np.testing.assert_allclose(np.abs(best.mean), 2.0, atol=0.01)


def test_the_higher_mode_is_left_where_the_wider_one_holds_more():
    # The narrow mode is four times as high and holds a fifth of the mass.
    def log_joint(first, second):
        narrow = np.log(4) - 8 * ((first - 3) ** 2 + second**2)
        return np.logaddexp(narrow, -0.5 * ((first + 2) ** 2 + second**2))

    nodes = planted(log_joint)
    assert nodes.modes[0, 0] == pytest.approx(3.0, abs=0.075)
    best = two.best_gaussian(nodes, correlated=False)
    assert best.mean[0] == pytest.approx(-2.0, abs=0.05)
    assert best.kl == pytest.approx(-np.log(0.8), abs=5e-3)


def test_divergence_on_nodes_is_that_of_gaussians():
    normal = stats.multivariate_normal([0, 0], np.eye(2)).logpdf(GRID.points)
    nodes = two.nodes_of(normal, GRID, np.inf)
    assert nodes.log_evidence == pytest.approx(0, abs=1e-8)
    assert nodes.kl(normal) == pytest.approx(0, abs=1e-8)
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


def bernoulli_model():
    model = VAE(observation_size=12, latent_size=2, hidden=(8,), seeds=replica_seeds([0], "m"))
    for layer in (*model.decoder.hidden, model.decoder.output):
        layer.kernel.assign(1.5 * layer.kernel)
    return model


def test_table_holds_the_log_joint_of_the_model():
    model, rng = bernoulli_model(), np.random.default_rng(2)
    images = rng.integers(0, 2, [3, 12]).astype(np.float32)
    for image, own in enumerate(two.tabulate(model, images, two.Grid.square(5.0, 81))):
        picked = slice(None, None, 97)
        latents = tf.constant(own.points[picked, None, None], tf.float32)
        expected = model.log_joint(latents, images[None, image : image + 1]).numpy()
        np.testing.assert_allclose(own.log_joint[picked], expected[:, 0, 0], atol=2e-5)


@pytest.fixture(scope="module")
def searched():
    """Two images of a small Bernoulli model, with their best Gaussians."""
    model, rng = bernoulli_model(), np.random.default_rng(3)
    images = rng.integers(0, 2, [2, 12]).astype(np.float32)
    nodes = two.tabulate(model, images, GRID)
    best = {name: two.best_gaussians(model, name, nodes, images) for name in two.GAUSSIANS}
    return SimpleNamespace(model=model, images=images, nodes=nodes, best=best)


def test_sums_over_latents_and_over_noise_agree(searched):
    for name, best in searched.best.items():
        for image, own in enumerate(searched.nodes):
            density = two.log_density(best.family, best.parameters, image, own.points)
            # Nodes within 20 nats of the highest; float32 log densities.
            assert best.gap[image] == pytest.approx(own.kl(density), abs=1e-3)
            found = two.best_gaussian(own, correlated=two.GAUSSIANS[name])
            assert best.gap[image] == pytest.approx(found.kl, abs=1e-3)


def test_a_flow_ends_between_zero_and_the_gaussian_that_it_starts_at(searched):
    settings = local.Search(learning_rates=(2e-2, 2e-3), max_steps=60, num_samples=8)
    start, model = searched.best["factorised"], searched.model
    best, ends = two.best_flows(
        model, "affine flow", [start], searched.nodes, searched.images, settings, seed=0
    )
    # Stochastic steps may end some thousandths above the start.
    assert (best.gap < start.gap + 0.01 + 4 * best.gap_error).all()
    assert (best.gap > -4 * best.gap_error - 1e-4).all()
    assert ends.shape == (2, 2)
    np.testing.assert_array_equal(best.gap, ends.min(0))
    assert two.draws(best.family, best.parameters, 1, 7, seed=0).shape == (7, 2)
    for image, own in enumerate(searched.nodes):
        density = two.log_density(best.family, best.parameters, image, own.points)
        assert best.gap[image] == pytest.approx(own.kl(density), abs=2e-3)


def test_without_a_density_draws_take_the_place_of_the_sum(searched):
    # At its start the auxiliary flow is the factorised Gaussian, with a tight reverse model.
    start, family = searched.best["factorised"], families.make("auxiliary flow", 2, num_hidden=4)
    mean, log_scale = tf.split(start.parameters.outputs, 2, -1)
    own = families.gaussian_start(family, mean, log_scale, replica_seeds([0], "start"))
    found = two.evaluate(searched.model, family, own, searched.nodes, searched.images)
    assert (found.gap_error > 0).all()
    assert (np.abs(found.gap - start.gap) < 4 * found.gap_error + 1e-3).all()


def test_a_longer_search_ends_at_the_best_factorised_gaussian_and_not_below(linear):
    nodes = two.tabulate(linear.model, linear.images, GRID)
    outputs = np.concatenate([linear.mean + 1.0, np.full([3, 2], -1.0)], 1)[None]
    encoder = SimpleNamespace(
        family=families.make("factorised", 2),
        parameters=lambda x: families.Parameters(tf.constant(outputs, tf.float32), [], False),
    )
    stages = [
        local.Search(learning_rates=(rate,), max_steps=100, patience=99, num_samples=16)
        for rate in (5e-2, 5e-3)
    ]
    fitted = vae.Fitted(linear.model, encoder, None)
    gaps = two.search_stages(fitted, nodes, linear.images, stages, seed=0)
    assert gaps.shape == (3, 3)
    best = [two.best_gaussian(own, correlated=False).kl for own in nodes]
    assert (gaps[0] > gaps[1]).all()
    # Adam's last steps are of .005 per parameter.
    np.testing.assert_allclose(gaps[-1], best, atol=0.01)
    assert (gaps[-1] - best).min() > -1e-3


def test_chosen_images_have_the_ranks_that_they_are_named_after():
    # 20 posteriors: a ridge that bends more and more; and three with two bumps.
    def ridge(bend):
        return planted(lambda x, y: -0.5 * (x**2 + 4 * (y - bend * x**2) ** 2))

    def bumps(second, centre):
        return planted(
            lambda x, y: (
                np.logaddexp(-2 * (x - centre) ** 2, np.log(second) - 2 * (x + centre) ** 2)
                - 2 * y**2
            )
        )

    # The modes that lie farthest apart hold too little.
    two_modes = [bumps(0.9, 1.5), bumps(0.3, 2.0), bumps(0.04, 2.5)]
    nodes = [*(ridge(bend) for bend in np.linspace(0, 0.5, 20)), *two_modes]
    chosen = two.choose(nodes)
    assert chosen["one mode"] == 19 and chosen["two modes"] == 21
    ranks = [own.non_gaussianity() for own in nodes]
    assert sorted(ranks)[11] == ranks[chosen["median"]]
    assert sorted(ranks)[20] == ranks[chosen["ninth decile"]]
    assert "two modes" not in two.choose(nodes[:20])


def test_one_replica_alone_is_the_same_model():
    size = two.SIZES["smoke"].generators["flow"]
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


def test_a_run_measures_both_generators(monkeypatch, tmp_path):
    content = json.loads(json.dumps(two.run(scale="smoke", seeds=[0, 1])))
    assert set(content["generators"]) == {"factorised", "flow"}
    for values in content["generators"].values():
        assert np.shape(values["evidence"]) == np.shape(values["elbo"]) == (2, 6)
        # The evidence is exact and 100 draws per image err by less than a nat.
        assert (np.mean(values["evidence"], 1) > np.mean(values["elbo"], 1) - 0.5).all()
        full, poor = (np.array(values[name]) for name in ("full covariance", "factorised"))
        assert full.shape == (2, 2) and (full < poor + 2e-3).all()
    means = two.means_over_images(content, "evidence")
    assert means["flow"][1] == pytest.approx(np.mean(content["generators"]["flow"]["evidence"][1]))
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    with pytest.raises(results.ResultError, match="tfp-gaps run two_latents"):
        two.stored("book")


def test_what_does_not_fit_is_refused():
    model = VAE(observation_size=4, latent_size=3, hidden=(2,), seeds=replica_seeds([0], "m"))
    with pytest.raises(ValueError, match="2 latent dimensions"):
        two.tabulate(model, np.zeros([1, 4]), GRID)
    with pytest.raises(ValueError, match="12 pixels"):
        two.tabulate(bernoulli_model(), np.zeros([1, 4]), GRID)
    with pytest.raises(ValueError, match="2 dimensions of noise"):
        two.exact_elbo(bernoulli_model(), families.make("auxiliary flow", 2), None, [[0.0] * 12])
    with pytest.raises(ValueError, match="scale of two_latents"):
        two.run(scale="paper", seeds=[0])
    with pytest.raises(ValueError, match="variant"):
        two.run(scale="smoke", seeds=[0], variant="wide")
