"""Trained networks against the closed forms, at sizes that take seconds."""

import numpy as np
import pytest

from tfp_gaps.book.experiments import two_sensors
from tfp_gaps.exact.two_sensors import TwoSensors

WORLD = TwoSensors(1.0, 1.0)
QUICK = {"num_data": 20_000, "num_steps": 800, "batch_size": 256, "seeds": (0, 1, 2, 3)}


@pytest.fixture(scope="module")
def affine():
    return two_sensors.train(WORLD, hidden=(), **QUICK)


def test_an_affine_network_lands_on_the_closed_form(affine):
    measured = two_sensors.measure(WORLD, affine)
    partial = WORLD.best_partial()
    for estimate, expected in (
        (measured.slope, partial.slope),
        (measured.variance, partial.variance),
        (measured.held_out_gap, WORLD.conditioning_gap()),
    ):
        # Four standard errors over seeds or data, plus what training leaves.
        assert estimate.value == pytest.approx(expected, abs=4 * estimate.standard_error + 2e-3)
    # The population gap cannot fall below the closed form, and is reached to a percent.
    assert WORLD.conditioning_gap() <= measured.gap.value + 1e-7 < 1.01 * WORLD.conditioning_gap()
    assert measured.variance.value < 0.8 * WORLD.filter_variance()
    error = 4 * measured.coverage.standard_error + 0.003
    assert measured.coverage.value == pytest.approx(WORLD.coverage(0.9), abs=error)


def test_the_forward_divergence_learns_the_filter():
    network = two_sensors.train(WORLD, hidden=(), objective="forward", **QUICK)
    measured = two_sensors.measure(WORLD, network)
    assert measured.variance.value == pytest.approx(WORLD.filter_variance(), rel=0.02)
    assert measured.gap.value == pytest.approx(WORLD.gap_of_true_filter(), rel=0.03)
    assert measured.coverage.value == pytest.approx(0.9, abs=0.01)


def test_full_conditions_close_the_gap():
    network = two_sensors.train(WORLD, hidden=(8,), conditions="full", **QUICK)
    measured = two_sensors.measure(WORLD, network)
    assert measured.gap.value < 0.1 * WORLD.conditioning_gap()


def test_a_partial_network_cannot_react_to_what_it_does_not_see(affine):
    seen = np.linspace(-2, 2, 9)
    first, second = affine.moments(seen, 0 * seen), affine.moments(seen, 100 + seen)
    assert np.array_equal(first, second)
    moved = affine.moments(seen + 1, 0 * seen)
    assert np.min(np.abs(moved[0] - first[0])) > 0.1


def test_training_is_reproducible_and_depends_on_the_seed():
    options = {**QUICK, "num_steps": 20, "num_data": 500}
    runs = [two_sensors.train(WORLD, hidden=(3,), **options) for _ in range(2)]
    first, second = (run.moments(np.ones(1), np.ones(1))[0] for run in runs)
    assert np.array_equal(first, second)
    assert len(np.unique(first)) == len(QUICK["seeds"])


def test_population_integrals_are_those_of_the_world():
    seen, unseen, weights = two_sensors._population(WORLD)
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    moments = [weights @ values for values in (seen**2, unseen**2, seen * unseen)]
    np.testing.assert_allclose(moments, [2, 2, 1], atol=1e-12)
    q = WORLD.best_partial()
    kl = WORLD.kl_to_full_posterior(seen, unseen, q.slope * seen, q.variance)
    assert weights @ kl == pytest.approx(WORLD.conditioning_gap(), abs=1e-12)


@pytest.mark.parametrize(("hidden", "count"), [((), 4), ((1,), 6), ((16,), 66), ((4, 4), 38)])
def test_number_of_parameters(hidden, count):
    assert two_sensors.Network(hidden, "partial", (0,)).num_parameters == count


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conditions": "semi"}, "Unknown conditions 'semi'"),
        ({"objective": "reverse"}, "Unknown objective 'reverse'"),
        ({"num_data": 0}, "num_samples"),
        ({"num_steps": 0}, "num_steps"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        two_sensors.train(WORLD, **{**QUICK, **options})
