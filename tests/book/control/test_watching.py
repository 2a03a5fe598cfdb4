"""Beliefs that watch a state-space model, and their scores, where the answers are known."""

import numpy as np
import pytest
from scipy import stats

from tfp_gaps.book.control import scoring, watching
from tfp_gaps.book.control.beliefs import BootstrapFilter
from tfp_gaps.exact import linear_gaussian as exact
from tfp_gaps.models.state_space import LinearGaussianStateSpace

WORLD = exact.LinearGaussian.stationary(0.9, 0.5, 0.25, 0.0625)
LENGTH, COUNT, PARTICLES = 6, 100, 1000


@pytest.fixture(scope="module")
def chain():
    """Model, observations [time, sequences, 1] and the clouds of a bootstrap filter."""
    model = LinearGaussianStateSpace(WORLD, num_replicas=2)
    x = exact.sample(WORLD, LENGTH, COUNT, seed=0)[1].astype(np.float32)
    watch = scoring.Watch(BootstrapFilter(watching.ModelWorld(model), 4000), PARTICLES)
    clouds = watch.follow(np.repeat(x[:, np.newaxis], 2, 1), seed=1)
    return model, x, clouds, watch


def test_the_bootstrap_filter_is_the_kalman_filter(chain):
    _, x, clouds, _ = chain
    kalman = exact.kalman_filter(WORLD, x)
    mean, variance = clouds[..., 0].mean(-1), clouds[..., 0].var(-1)
    scale = np.sqrt(kalman.covariances[:, :, 0])
    # 1,000 kept of 4,000, resampled at each step: .04 for the means, and 5 % for the variance of a
    # sequence, .4 % for their average.
    errors = (mean - kalman.means[:, np.newaxis, :, 0]) / scale[:, np.newaxis]
    assert np.sqrt((errors**2).mean()) < 0.06
    np.testing.assert_allclose(variance.mean((1, 2)) / scale[:, 0] ** 2, 1.0, atol=0.015)


def test_the_next_step_is_predicted_as_kalman_predicts_it(chain):
    model, x, clouds, _ = chain
    rows = np.repeat(x[:, np.newaxis], 2, 1)
    found = watching.next_step(model, {"filter": clouds}, rows, seed=2)["filter"]
    assert found.shape == (LENGTH - 1, 2, COUNT) and found.dtype == np.float64
    whole = [exact.kalman_filter(WORLD, x[:t]).log_likelihood for t in range(1, LENGTH + 1)]
    # The logarithm of a mean of 1,000 draws is off by a few hundredths, more where x is unlikely.
    np.testing.assert_allclose(found.mean(1), np.diff(whole, axis=0), atol=0.1, rtol=0.1)
    np.testing.assert_allclose(found.mean(), np.diff(whole, axis=0).mean(), atol=0.01)


def test_replicas_may_watch_different_sequences(chain):
    _, x, clouds, watch = chain
    rows = np.stack([x, -x], 1)
    both = watch.follow(rows, seed=1)
    np.testing.assert_array_equal(both[:, 0], clouds[:, 0])
    assert np.abs(both[:, 1] - clouds[:, 1]).max() > 0.1


def test_the_energy_of_two_normals_is_known():
    """E|a - b| of N(0, 1) and N(m, 1) is that of a folded normal with variance 2."""
    rng = np.random.default_rng(0)
    shift = 1.5
    reference, same, moved = rng.standard_normal((3, 4, 2, 100, 100, 1)).astype(np.float32)
    found = watching.energy_coefficients({"same": same, "moved": moved + shift}, reference)

    def folded(mean):
        return stats.foldnorm(mean / np.sqrt(2), scale=np.sqrt(2)).mean()

    expected = 1 - folded(0) / folded(shift)
    np.testing.assert_allclose(found["same"], 0.0, atol=0.005)
    np.testing.assert_allclose(found["moved"], expected, atol=0.01)


def test_sets_cover_what_they_should_and_narrow_ones_less():
    rng = np.random.default_rng(1)
    cloud = rng.standard_normal((8, 2, 300, 200, 2)).astype(np.float32)
    states = rng.standard_normal((8, 2, 300, 2)).astype(np.float32)
    found = watching.coverage(cloud, states)
    # The first 5 steps are left out: 900 states for each replica.
    np.testing.assert_allclose(found, [[0.5] * 2, [0.9] * 2], atol=0.06)
    narrow = watching.coverage(0.5 * cloud, states)
    expected = stats.chi2(2).cdf(0.25 * stats.chi2(2).ppf([0.5, 0.9]))
    np.testing.assert_allclose(narrow, np.repeat(expected[:, None], 2, 1), atol=0.06)


def test_simulated_sequences_follow_the_model():
    model = LinearGaussianStateSpace(WORLD, num_replicas=2)
    states, x = watching.simulate(model, 5, 4000, seed=0)
    assert states.shape == x.shape == (5, 2, 4000, 1)
    # Replicas share the noise of the states, so that models are compared on the same draws.
    np.testing.assert_array_equal(states[:, 0], states[:, 1])
    assert np.abs(x[:, 0] - x[:, 1]).max() > 0.1
    assert np.abs(watching.simulate(model, 5, 4000, seed=1)[0] - states).max() > 0.1
    # Standard errors of a variance of 4,000: 2.2 %.
    np.testing.assert_allclose(states.var(2), WORLD.initial_cov.item(), rtol=0.1)
    np.testing.assert_allclose((x - 0.25 * states).var(2), 0.0625, rtol=0.1)


def test_time_is_measured(chain):
    _, x, _, watch = chain
    assert 0 < watch.seconds_per_step(np.repeat(x[:, np.newaxis], 2, 1), repetitions=2) < 60
