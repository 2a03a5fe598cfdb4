"""Filters from full conditions: where they land, what the partial network claims, and the run."""

from dataclasses import replace

import numpy as np
import pytest

from tfp_gaps.book import results
from tfp_gaps.book.data.splits import Splits, Windows
from tfp_gaps.book.experiments import filters
from tfp_gaps.exact import linear_gaussian as exact
from tfp_gaps.exact.joint_gaussian import JointGaussian
from tfp_gaps.networks import replica_seeds
from tfp_gaps.sequences import Batch, Sequences

SEEDS = (0,)


@pytest.fixture(scope="module")
def problem():
    size = replace(filters.size_of("book"), num_timesteps=10, num_train=100_000, num_test=4000)
    return filters.chain_problem(size, SEEDS), size


def test_the_exact_smoother_draws_from_the_posterior_of_the_chain(problem):
    chain, size = problem
    x = np.repeat(chain.test.observations[:, np.newaxis, :1], 20_000, 2)
    draws = chain.smoother(Batch(x), replica_seeds(SEEDS, "draws")).numpy()[:, 0, :, 0]
    joint = JointGaussian(filters.CHAIN, size.num_timesteps)
    weights, covariance = joint.condition(joint.states, joint.observations)
    # Standard errors of 20,000 draws: .7 % of a standard deviation, 1 % of a variance.
    np.testing.assert_allclose(draws.mean(1), weights @ x[:, 0, 0, 0], atol=0.02)
    np.testing.assert_allclose(np.cov(draws), covariance, atol=0.02)


def test_the_distilled_filter_lands_on_the_kalman_filter():
    """Within 1 % in mean and variance: root mean squares of the means, and the variance averaged
    over sequences at the step where it is worst. The partial q is 26 % off."""
    size = replace(filters.size_of("book"), num_timesteps=6, num_train=100_000, num_test=4000)
    longer = replace(size.network, num_steps=4000, batch_size=128, learning_rate=1e-2)
    polish = replace(longer, num_steps=600, batch_size=1024, learning_rate=1e-3)
    size = replace(size, network=longer, polish=polish)
    chain = filters.chain_problem(size, SEEDS)
    network, history = filters.distil(chain, size, seeds=SEEDS, num_components=1)
    assert not history.diverged.any()
    found = filters.kalman_distance(network, chain.test.observations)
    assert found.mean < 0.01
    assert abs(found.variance - 1) < 0.01


def test_stored_distilled_filters_are_within_a_percent_of_kalman():
    """Sequences twice as long, three seeds: means of the seeds, as the ledger has them."""
    kalman = filters.stored("paper", "linear-gaussian")["kalman"]
    mean, variance, _ = np.array(kalman["distilled Gaussian"]).T
    assert mean.mean() < 0.01
    assert np.abs(variance - 1).mean() < 0.01
    np.testing.assert_allclose(kalman["partial q"], kalman["smoother"], atol=0.03)
    assert kalman["smoother"] < 0.8


def test_the_stored_chain_can_be_made_again():
    stored = filters.stored("paper", "linear-gaussian")
    again = filters.chain_problem(filters.size_of("paper"), stored["seeds"])
    assert again.source == stored["data"]


def test_the_partial_network_claims_the_variance_of_the_smoother(problem):
    chain, size = problem
    partial, _ = filters.fit_partial(chain, size, seeds=SEEDS)
    few = chain._replace(test=chain.test.first(300))
    found = filters.from_kalman({}, partial, few)
    # .3454 / .4678 in the steady state; here half-way through ten steps.
    assert found["smoother"] == pytest.approx(0.3454 / 0.4678, abs=5e-3)
    # Trained for 400 steps: within a few per cent of the smoother, a quarter below the filter.
    np.testing.assert_allclose(found["partial q"], found["smoother"], atol=0.04)


def test_kalman_distance_of_a_filter_that_knows_nothing():
    """Its mean is near 0 and its variance its own: the distance is near one, the ratio is known."""
    x = exact.sample(filters.CHAIN, 6, 500, seed=0)[1].astype(np.float32)
    network = filters.FilterNetwork(
        observation_size=1,
        latent_size=1,
        hidden_size=4,
        num_components=1,
        seeds=replica_seeds(SEEDS, "untrained"),
    )
    for variable in network.trainable_variables:
        variable.assign(0.0 * variable)
    found = filters.kalman_distance(network, x)
    assert found.mean == pytest.approx(1.0, abs=1e-5)
    own = (np.log1p(np.exp(-1.7)) + 1e-3) ** 2
    ratios = own / exact.kalman_filter(filters.CHAIN, x).covariances[:, 0, 0]
    expected = ratios[np.argmax(np.abs(ratios - 1))]
    assert found.variance == pytest.approx(expected, rel=1e-3)
    assert found.variance_spread == pytest.approx(np.sqrt(np.mean((ratios - 1) ** 2)), rel=1e-3)


def test_a_run_is_complete():
    result = filters.run(scale="smoke", seeds=[0, 1], variant="linear-gaussian")
    assert set(result["next_step"]) == {filters.REFERENCE, *filters.FILTERS}
    assert np.shape(result["next_step"]["backward"]) == (2, 20) == (2, len(result["groups"]))
    assert set(result["coverage"]) == set(result["energy"]) == set(result["seconds"])
    assert np.shape(result["coverage"]["partial q"]) == (2, 2)
    assert "SHA-256" in result["data"] and result["diverged"] == [False, False]
    # Twenty particles are few, but many are better; an untrained network is worse than either.
    ahead = {name: np.mean(values) for name, values in result["next_step"].items()}
    assert ahead[filters.REFERENCE] > ahead["distilled Gaussian"]
    assert abs(np.mean(result["energy"][filters.REFERENCE])) < 0.05
    assert 0 < filters.coverage_of(result, filters.REFERENCE, 0.9).value < 1


def test_windows_with_missing_values_are_left_out():
    x = np.arange(12.0).reshape(3, 4, 1)
    mask = np.ones([3, 4, 1], bool)
    mask[1, 2] = False
    part, whole = Sequences(x, mask=mask), Sequences(x)
    cut = Windows(np.arange(4), 10 * np.arange(4), 3)
    windows = {"train": cut, "validation": cut, "test": cut}
    found = filters.complete(Splits(whole, part, part, "source", windows=windows))
    assert [len(s) for s in (found.train, found.validation, found.test)] == [4, 3, 3]
    assert found.test.mask is None
    # What remains still knows where it was cut from.
    np.testing.assert_array_equal(found.windows["test"].starts, [0, 10, 30])
    np.testing.assert_array_equal(found.test.observations[0, :, 0], [0, 1, 3])


def test_bad_names(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match="Unknown variant"):
        filters.size_of("book", "digits")
    with pytest.raises(ValueError, match="Unknown scale"):
        filters.size_of("huge")
    with pytest.raises(results.ResultError, match="tfp-gaps run filters --scale smoke"):
        filters.stored("smoke", "traffic")
