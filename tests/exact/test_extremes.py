"""Closed forms at the edges: noises from 1e-6 to 1e6, chains of 1 to 500 steps, far separations."""

import itertools
import warnings

import numpy as np
import pytest

from tfp_gaps.exact import conditions
from tfp_gaps.exact import linear_gaussian as exact
from tfp_gaps.exact.bit import Bit
from tfp_gaps.exact.linear_gaussian import LinearGaussian
from tfp_gaps.exact.two_sensors import TwoSensors

NOISES = (1e-6, 1.0, 1e6)
MEMORIES = (0.0, 0.999, -0.9)


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("num_timesteps", [1, 2, 50, 500])
def test_the_gap_of_a_chain(num_timesteps):
    for memory, process, sensor in itertools.product(MEMORIES, NOISES, NOISES):
        chain = LinearGaussian.stationary(memory, process, 1.0, sensor)
        evidence = exact.log_likelihood(chain, chain, num_timesteps)
        gaps = [
            exact.conditioning_gap(chain, num_timesteps, k)
            for k in (0, 1, 2, None)
            if k is None or k < num_timesteps
        ]
        where = f"a = {memory}, Q = {process}, R = {sensor}"
        assert np.isfinite([evidence, *gaps]).all(), where
        # Rounding, relative to the largest number that was added up.
        rounding = 1e-12 * max(1, abs(evidence))
        assert gaps[-1] == 0 and min(gaps) >= -rounding, where
        assert all(less >= more - rounding for less, more in itertools.pairwise(gaps)), where
        bound = exact.population_elbo(chain, chain, num_timesteps, 0)
        assert evidence - bound == pytest.approx(gaps[0], abs=1e3 * rounding), where


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_the_gap_does_not_know_the_unit(unit):
    for memory, ratio in itertools.product(MEMORIES, NOISES):
        gaps = [
            exact.conditioning_gap(
                LinearGaussian.stationary(memory, scale * ratio, 1.0, scale), 50, 0
            )
            for scale in (1.0, unit)
        ]
        # Both sides are the same sequence of products, up to rounding of 50 steps.
        assert gaps[1] == pytest.approx(gaps[0], rel=1e-9, abs=1e-15)


def test_other_conditions_agree_with_look_ahead():
    for memory, process, sensor in itertools.product(MEMORIES, NOISES, NOISES):
        chain = LinearGaussian.stationary(memory, process, 1.0, sensor)
        found = conditions.gap(chain, conditions.conditions(5))
        # ln det of precisions that span twelve orders of magnitude.
        assert found == pytest.approx(exact.conditioning_gap(chain, 5, 0), rel=1e-6, abs=1e-9)


def test_a_sensor_that_sees_nothing_or_everything():
    for seen, unseen in itertools.product(NOISES, NOISES):
        sensors = TwoSensors(seen, unseen)
        gap = sensors.conditioning_gap()
        assert np.isfinite(gap) and gap >= 0
        assert sensors.filter_variance() >= sensors.full_posterior_variance() > 0
        assert 0 < sensors.coverage(0.9) <= 0.9 + 1e-12


@pytest.mark.parametrize("separation", [1e-3, 1.0, 1e3])
def test_modes_that_coincide_or_lie_a_thousand_widths_apart(separation):
    world = Bit([-separation / 2, separation / 2], [1.0, 1.0], [0.5, 0.5])
    # Of d^2 / 8 for equal widths.
    assert world.conditioning_gap() == pytest.approx(separation**2 / 8, rel=1e-9)
    assert 0 <= world.mutual_information() <= np.log(2) + 1e-12
