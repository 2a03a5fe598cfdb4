"""Scores of beliefs with known calibration, prediction of known systems."""

import numpy as np
import pytest
from scipy import stats

from tfp_gaps.book.control import scoring
from tfp_gaps.book.control.beliefs import BootstrapFilter, ExactState
from tfp_gaps.book.control.environments import Hike, Pendulum, explore
from tfp_gaps.sequences import Sequences

RNG = np.random.default_rng(0)
HIKE = Hike(0.2)


@pytest.mark.parametrize("width", [1.0, 0.5, 2.0])
def test_coverage_of_normal_clouds(width):
    """The truth has standard deviation 1 around each cloud's centre, the cloud `width`."""
    shape = (30, 2, 50)
    centre = RNG.normal(size=[*shape, 2])
    truth = centre + RNG.normal(size=[*shape, 2])
    cloud = centre[..., np.newaxis, :] + width * RNG.normal(size=[*shape, 200, 2])
    found = scoring.calibrate(HIKE, cloud, truth.astype(np.float32))
    # The squared distance that holds a share p of the cloud, in units of the truth.
    bounds = width**2 * stats.chi2(2).ppf(scoring.LEVELS)
    expected = stats.chi2(2).cdf(bounds)
    # 1,250 clouds: an error of .014; 200 particles for 2 x 2 moments add .01.
    np.testing.assert_allclose(found.coverage, np.stack([expected] * 2, 1), atol=0.045)
    np.testing.assert_allclose(found.error, 1.0, rtol=0.06)
    np.testing.assert_allclose(found.claimed, width, rtol=0.03)
    log_likelihood = -np.log(2 * np.pi * width**2) - 1 / width**2
    np.testing.assert_allclose(found.log_likelihood, log_likelihood, rtol=0.06, atol=0.05)


def test_coverage_of_angles_across_the_cut():
    shape = (20, 1, 100)
    centre = np.pi + 0.05 * RNG.normal(size=shape)
    truth = np.stack([centre + 0.2 * RNG.normal(size=shape), np.zeros(shape)], -1)
    angle = centre[..., np.newaxis] + 0.2 * RNG.normal(size=[*shape, 200])
    shown = np.stack([np.cos(angle), np.sin(angle)], -1)
    found = scoring.calibrate(Pendulum(0.1), shown, truth.astype(np.float32))
    np.testing.assert_allclose(found.coverage[:, 0], scoring.LEVELS, atol=0.045)
    np.testing.assert_allclose([found.error[0], found.claimed[0]], 0.2, rtol=0.06)


def test_two_replicas_keep_their_own_scores():
    centre = np.zeros([10, 2, 200, 1, 2])
    cloud = RNG.normal(size=[10, 2, 200, 100, 2]) * np.array([1.0, 0.1])[:, None, None, None]
    truth = RNG.normal(size=[10, 200, 2]).astype(np.float32)
    found = scoring.calibrate(HIKE, centre + cloud, truth)
    assert found.coverage[1, 0] > 0.85 and found.coverage[1, 1] < 0.1


@pytest.fixture(scope="module")
def episodes():
    return explore(HIKE, num_episodes=300, num_timesteps=8, seed=0)


def test_predictions_from_the_exact_state_miss_by_the_noise_of_the_way(episodes):
    """sqrt(h) .025, from the state at the start and with the true moves."""
    clouds = scoring.follow(
        ExactState(),
        episodes.sequences,
        num_replicas=1,
        num_particles=100,
        seed=1,
        states=episodes.states,
    )
    np.testing.assert_array_equal(clouds[:, 0, :, 0], episodes.states)
    found = scoring.prediction_errors(
        HIKE, HIKE, clouds, episodes, start=2, horizons=(1, 4), seed=2
    )
    # 600 coordinates: an error of 3 %. The mean of 100 simulated ways adds half a percent.
    np.testing.assert_allclose(found[:, 0], 0.025 * np.sqrt([1, 4]), rtol=0.1)


def test_the_evidence_is_that_of_the_filter(episodes):
    """First step: uniform position seen through noise, a convolution in closed form."""
    start = Sequences(episodes.sequences.observations[:1])
    found = scoring.log_evidence(
        BootstrapFilter(HIKE, 20_000, exploring=True), start, num_replicas=1, seed=3
    )
    x = start.observations[0].astype(np.float64)
    noise = stats.norm(scale=0.2)
    density = (noise.cdf(x + 1) - noise.cdf(x - 1)) / 2
    # A few hundred particles are near an observation.
    error = found[0, 0] - np.log(density).sum(-1)
    assert abs(error.mean()) < 0.01 and error.std() < 0.08
    # Of the later steps few particles tell enough: what was seen before makes x more probable.
    few = BootstrapFilter(HIKE, 100, exploring=True)
    every = scoring.log_evidence(few, episodes.sequences, num_replicas=1, seed=3)
    assert every.shape == (8, 1, 300) and every.dtype == np.float64
    assert (every[1:].mean((1, 2)) > every[0].mean() + 1).all()
