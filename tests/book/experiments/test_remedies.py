"""When there is no gap, and what a spare dimension leaves open."""

import numpy as np
import pytest

from tfp_gaps.book.experiments import remedies
from tfp_gaps.exact import linear_gaussian as exact
from tfp_gaps.exact.factor_analysis import FactorAnalysis

WORLD = exact.LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)


def test_refinement_contracts_as_the_curvature_says():
    """Plain steps shrink the distance along each eigenvector of L by 1 - lambda / lambda_max."""
    found = remedies.refinement(num_steps=5, num_data=30, seed=3)
    model = FactorAnalysis.random(8, 3, 3)
    x = model.sample(30, 5)[1]
    values, vectors = np.linalg.eigh(model.posterior_precision())
    away = model.posterior_mean(x) @ vectors
    for step in range(6):
        left = away * (1 - values / values[-1]) ** step
        expected = 0.5 * np.sum(values * left**2, 1)
        np.testing.assert_allclose(found["gradient"][step], expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found["learned step"][0], found["gradient"][0])
    assert np.abs(found["learned step"][1:]).max() < 1e-8
    assert found["approximation"] == pytest.approx(model.approximation_gap())


def test_the_map_holds_the_gaps_of_the_tables():
    found = remedies.gap_map([0.1, 0.5], [0.05, 1.0], memory=0.9, num_timesteps=8)
    np.testing.assert_allclose(found[0, 1], 0.0940, atol=5e-5)
    np.testing.assert_allclose(found[1], [0.0298, 0.1306], atol=5e-5)
    unknown = remedies.gap_map([0.001], [1.0], memory=0.9, num_timesteps=8, initial=1.0)
    np.testing.assert_allclose(unknown, 0.1028, atol=5e-5)
    ahead = remedies.gap_map([0.1], [1.0], memory=0.9, num_timesteps=8, lookahead=2)
    np.testing.assert_allclose(ahead, 0.0169, atol=5e-5)


@pytest.mark.parametrize(
    "harmless",
    [
        {"process": [0.1], "sensor": [1e-9]},
        {"process": [1e-9], "sensor": [1.0], "initial": 1e-9},
    ],
)
def test_a_perfect_sensor_and_a_known_deterministic_state_have_no_gap(harmless):
    found = remedies.gap_map(**harmless, memory=0.9, num_timesteps=8)
    assert 0 <= found < 1e-6


def test_a_deterministic_state_with_unknown_start_has_one():
    """All that is unknown is z_1. The best q_1 has the smoother's variance V_s and a mean that is
    right on average: half of Var(smoother's mean | x_1) / V_s = (V_f - V_s) / V_s is lost."""
    length, memory = 8, 0.9
    filtered, smoothed = 1 / 2, 1 / (1 + np.sum(memory ** (2 * np.arange(length))))
    expected = 0.5 * (filtered / smoothed - 1)
    found = remedies.gap_map([1e-8], [1.0], memory=memory, num_timesteps=length, initial=1.0)
    assert length * found.item() == pytest.approx(expected, rel=1e-4)


def test_the_true_filter_covers_and_the_partial_q_does_not():
    """In the steady state, by a Monte Carlo table: the best partial q covers .812 of nominal .9."""
    options = {"num_timesteps": 40, "num_sequences": 4000, "first": 10}
    filtered = remedies.signal_belief(WORLD, WORLD, lookahead=None, **options)
    partial = remedies.signal_belief(WORLD, WORLD, lookahead=0, **options)
    assert abs(filtered.coverage.value - 0.9) < 4 * filtered.coverage.standard_error
    assert abs(partial.coverage.value - 0.812) < 4 * partial.coverage.standard_error + 0.005
    assert filtered.error == pytest.approx(filtered.claimed, rel=0.02)
    # The table is for the steady state; near the end of a sequence less is still to come.
    assert partial.claimed == pytest.approx(np.sqrt(0.1565), rel=0.02)
    assert partial.error == pytest.approx(np.sqrt(0.2446), rel=0.03)


def test_a_state_that_copies_the_observation_claims_certainty():
    copy = exact.LinearGaussian.stationary(0.31, 1.38, 1.0, 1e-9)
    found = remedies.signal_belief(WORLD, copy, num_timesteps=8, lookahead=0)
    assert found.coverage.value < 0.01
    assert found.claimed < 1e-3
    assert found.error == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: remedies.signal_belief(WORLD, WORLD, num_timesteps=4, lookahead=0, level=1.0),
            "level",
        ),
        (lambda: remedies.gap_map([0.1], [1.0], memory=0.9, num_timesteps=0), "num_timesteps"),
        (lambda: remedies.gap_map([0.1], [-1.0], memory=0.9, num_timesteps=2), "emission_cov"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
