"""Networks that infer rates through an embedding: exact numbers against simulated outbreaks."""

import numpy as np
import pytest

from tfp_gaps import networks
from tfp_gaps.book.experiments import simulators
from tfp_gaps.exact import embedding
from tfp_gaps.exact.bit import Bit
from tfp_gaps.exact.epidemic import Epidemic
from tfp_gaps.exact.two_sensors import TwoSensors
from tfp_gaps.posteriors import families
from tfp_gaps.posteriors.encoder import Posterior

WORLD = Epidemic(6)


@pytest.fixture(scope="module")
def found():
    return simulators.reference(WORLD)


@pytest.fixture(scope="module")
def estimator():
    return simulators.train(
        WORLD, "posterior estimation", num_data=4000, num_steps=300, seeds=(0, 1)
    )


def untrained(shown):
    return Posterior(
        families.make("full covariance", 2),
        observation_size=3,
        hidden=(8,),
        visible=simulators.EMBEDDINGS[shown],
        seeds=networks.replica_seeds((0, 1), "test"),
    )


def test_closed_forms_of_sensors_and_bit_are_found_on_the_grid():
    world = TwoSensors(1.0, 0.5)
    log_full, weights = simulators.sensors_on_grid(world)
    mixture, product = (f(log_full, weights) for f in (embedding.mixture, embedding.product))
    # A cell's own variance moves a coverage by less than 1e-3.
    assert embedding.coverage(product, mixture) == pytest.approx(world.coverage(), abs=1e-3)
    advantage = world.conditioning_gap() - world.mutual_information()
    assert embedding.kl(mixture, product) == pytest.approx(advantage, abs=1e-6)
    bit = Bit([-1, 1], [1, 1], [0.5, 0.5])
    log_full, weights = simulators.bit_on_grid(bit)
    cost = weights @ embedding.kl(embedding.product(log_full, weights), log_full)
    assert cost == pytest.approx(bit.conditioning_gap(), abs=1e-6)


def test_targets_are_those_of_fresh_outbreaks(found):
    """Coverage and log density of the product, counted on simulations."""
    product, mixture = simulators.targets(WORLD, found)
    outbreaks = WORLD.sample(20_000, seed=5)
    gammas = WORLD.product()
    shapes, rates = (p.numpy()[outbreaks.cases] for p in (gammas.concentration, gammas.rate))
    below = type(gammas)(shapes, rates).cdf(outbreaks.rates).numpy()[:, 1]
    inside = np.abs(below - 0.5) < 0.45
    assert product.coverage == pytest.approx(inside.mean(), abs=4 * inside.std() / 141)
    log_rates = np.log(outbreaks.rates)
    score = type(gammas)(shapes, rates).log_prob(outbreaks.rates).numpy().sum(-1) + log_rates.sum(
        -1
    )
    assert product.log_density[0] == pytest.approx(score.mean(), abs=4 * score.std() / 141)
    every = WORLD.log_mixture(log_rates)
    own = every[outbreaks.cases, np.arange(len(log_rates))]
    assert mixture.log_density[0] == pytest.approx(own.mean(), abs=4 * own.std() / 141)


def test_networks_are_judged_on_the_grid_as_on_fresh_outbreaks(found):
    posterior = untrained("final size")
    exact = simulators.judge(WORLD, found, posterior, "elbo")
    counted = simulators.held_out_coverage(WORLD, posterior, num_data=4000, num_draws=1000)
    assert abs(exact.coverage.mean() - counted.value) < 4 * counted.standard_error + 0.005
    assert np.all(exact.undone > 0)


def test_intervals_of_few_draws_hold_what_they_claim():
    """A fresh draw of q itself lies between the ends nine times out of ten."""
    posterior, seen = untrained("all"), np.zeros([1, 2000, 3], np.float32)
    ends = simulators.quantiles(posterior, seen, num_draws=39, seed=1)
    noise = np.random.default_rng(2).normal(size=[1, 2, 2000, 2]).astype(np.float32)
    fresh = posterior.draw(seen, noise).latents.numpy()[0, ..., 1]
    inside = (ends[0, 0] < fresh) & (fresh < ends[1, 0])
    # Four errors of 4000 draws; ranks of (draws - 1) would give 0.856.
    assert inside.mean() == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / 4000))


def test_masses_of_a_network_sum_to_one():
    seen = np.zeros([1, 2, 3], np.float32)
    log_q = simulators._on_grid(untrained("all"), seen)
    np.testing.assert_allclose(np.exp(log_q).sum((-2, -1)), 1, atol=0.02)  # tails beyond the grid


def test_what_is_hidden_does_not_move_q(estimator):
    outbreaks = WORLD.sample(20, seed=0)
    seen = simulators.features(WORLD, outbreaks)[np.newaxis]
    moved = seen + np.float32([0, 1, 1])
    for shown, same in (("final size", True), ("all", False)):
        posterior = untrained(shown)
        assert np.array_equal(posterior.outputs(seen), posterior.outputs(moved)) is same
    assert np.array_equal(estimator.outputs(seen), estimator.outputs(moved))


def test_posterior_estimation_ends_near_the_mixture_and_the_elbo_near_the_product(found, estimator):
    judged = simulators.judge(WORLD, found, estimator, "posterior estimation")
    assert np.all(judged.undone < 0.2) and np.all(np.abs(judged.coverage - 0.9) < 0.03)
    # The other objective calls the same networks far from its target.
    assert np.all(simulators.judge(WORLD, found, estimator, "elbo").undone > 0.5)
    by_elbo = simulators.train(WORLD, "elbo", num_data=8000, num_steps=1000, seeds=(0, 1))
    judged = simulators.judge(WORLD, found, by_elbo, "elbo")
    assert np.all(judged.undone < 0.2)
    assert np.all(judged.coverage < 0.85)


@pytest.mark.parametrize("options", [{"objective": "forward"}, {"objective": "elbo", "shown": "n"}])
def test_bad_input(options):
    with pytest.raises(ValueError, match="Known: "):
        simulators.train(WORLD, **options)
