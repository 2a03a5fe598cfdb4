"""The coverage of all bounds over a hundred random models of each kind, measured and printed."""

import numpy as np
import pytest

from tfp_gaps.book.experiments import coverage


@pytest.fixture(scope="module", params=coverage.WORLDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def rows(kind):
    return coverage.run(kind, coverage.QUICK)


def test_bounds_bracket_the_truth_as_often_as_their_errors_say(kind, rows, capsys):
    with capsys.disabled():
        print(f"\n{len(rows['AIS'].errors)} random models: {kind}\n{coverage.table(rows)}")
    assert all(len(row.errors) == 100 for row in rows.values())
    # Three binomial errors below the normal's share: at most 27, 7 and 2 models of 100 beyond 1, 2
    # and 3 standard errors. Were all five bounds normal and without slack, one level of one of them
    # would fall short in about 2 % of seeds; slack makes that rarer.
    assert coverage.failures(rows) == []


def test_the_error_of_the_elbo_is_that_of_an_estimate(rows):
    row = rows["ELBO as an estimate of its closed form"]
    for z, nominal in coverage.NOMINAL.items():
        expected = 100 * (2 * nominal - 1)
        # Three binomial errors and the one that a whole number may be off.
        spread = 3 * np.sqrt(expected * (1 - expected / 100)) + 1
        assert row.within(z) == pytest.approx(expected, abs=spread)


def test_both_sides_are_tight(rows):
    # 100 temperatures and 16 chains for posteriors in three dimensions.
    for name, row in rows.items():
        if "AIS" in name:
            assert row.sign * row.errors.mean() < 0.1
    gap = rows["ELBO"].errors.mean()
    assert gap < rows[f"IWAE-{coverage.QUICK.num_samples}"].errors.mean() < 0


def test_a_bound_on_the_wrong_side_is_found(rows):
    row = rows["AIS"]
    above = row._replace(errors=row.errors + 4 * row.standard_errors)
    assert len(coverage.failures({"AIS": above})) == len(coverage.Z)
    # The reverse without its sign claims to be a lower bound.
    upper = rows["reverse AIS, one posterior draw"]
    assert coverage.failures({"reverse": upper._replace(sign=1, errors=upper.errors + 0.5)})
    missing = row._replace(errors=np.full(100, np.nan))
    assert coverage.failures({"AIS": missing})


def test_fewer_than_two_models_are_refused():
    with pytest.raises(ValueError, match="num_models must be an integer and >= 2"):
        coverage.run(size=coverage.Size(num_models=1))


def test_an_unknown_kind_is_refused():
    with pytest.raises(
        ValueError, match="Unknown kind 'three sensors'. Known: factor analysis, two"
    ):
        coverage.run("three sensors")


def test_the_evidence_of_two_sensors_is_that_of_their_factor_analysis():
    # The bounds see the models, the truth comes from the sensors' own joint normal.
    worlds = coverage.two_sensors(coverage.Size(num_models=5), seed=3)
    each = zip(worlds.models, worlds.observations, worlds.truth, strict=True)
    for model, x, truth in each:
        assert truth == pytest.approx(model.log_evidence(x)[0], abs=1e-12)
