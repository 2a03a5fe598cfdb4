"""`Estimate` against NumPy, the law of error propagation, and repetition."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfp_gaps.annealing import jackknife_error
from tfp_gaps.bounds import Bounds
from tfp_gaps.estimate import (
    INDEPENDENT,
    Estimate,
    over_seeds,
    paired_difference,
    ratio_of_means,
)
from tfp_gaps.forecasting import fair_crps
from tfp_gaps.gaps import decompose

FINITE = st.floats(-1e6, 1e6)
ERRORS = st.floats(0, 1e3)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (-90.2812, 0.1234, "-90.28 ± 0.12"),
        (-90.2812, 1.234, "-90.3 ± 1.2"),
        (-90.2812, 12.34, "-90 ± 12"),
        (1234.5, 210.0, "1230 ± 210"),
        # The error rounds up to one more digit: 0.0996 is 0.10.
        (0.5, 0.0996, "0.50 ± 0.10"),
        (-0.001, 0.2, "0.00 ± 0.20"),
        (0.25, 0.0, "0.2500"),
        (22.22222, 0.0, "22.22"),
        (9.99996, 0.0, "10.00"),
        (123456.7, 0.0, "123457"),
        (1.5e-12, 0.0, "1.500e-12"),
        (0.0, 0.0, "0"),
        (1.234e-9, 1.2e-10, "(1.23 ± 0.12)e-09"),
        (0.0, 2e-9, "(0.0 ± 2.0)e-09"),
    ],
)
def test_printing_follows_the_error(value, error, text):
    assert str(Estimate(value, error)) == text


def test_from_samples_is_mean_and_standard_error_of_the_mean():
    samples = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    estimate = Estimate.from_samples(samples, kind="seeds")
    # Two orders of summation in float64.
    assert estimate.value == pytest.approx(samples.mean(), rel=1e-14)
    assert estimate.standard_error == pytest.approx(samples.std(ddof=1) / 20, rel=1e-14)
    assert (estimate.num_samples, estimate.kind) == (400, "seeds")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.98])
def test_the_interval_of_a_share_covers_it(share):
    # At level 99 % the interval of Agresti and Coull holds the truth nearly always or more, where
    # that of the counts themselves has no width once all agree (in 36 % of these draws at .98).
    counts = np.random.default_rng(0).binomial(50, share, size=4000)
    limits = [Estimate.from_share(k, 50).confidence_interval() for k in counts]
    inside = np.mean([low <= share <= high for low, high in limits])
    assert inside >= 0.99 - 3 * 0.0016  # error of a proportion near .99 over 4000 draws


def test_a_share_of_all_has_an_error():
    # (50 + z^2 / 2) / (50 + z^2) with z = 2.5758, and its binomial error.
    sure = Estimate.from_share(50, 50)
    assert (sure.value, sure.standard_error) == pytest.approx((0.94142, 0.03121), abs=1e-5)
    assert (sure.num_samples, sure.kind) == (50, "data points")
    none = Estimate.from_share(0, 50)
    assert none.value == pytest.approx(1 - sure.value)


@pytest.mark.parametrize(("count", "total"), [(-1, 50), (51, 50), (np.nan, 50), (1, 0)])
def test_an_impossible_share_is_refused(count, total):
    with pytest.raises(ValueError, match="of 50|num_samples|count"):
        Estimate.from_share(count, total)


def test_standard_error_covers_the_truth_as_often_as_it_should():
    draws = np.random.default_rng(1).normal(size=(2000, 30))
    inside = []
    for row in draws:
        low, high = Estimate.from_samples(row).interval(z=2.045)  # t quantile, 29 degrees
        inside.append(low <= 0 <= high)
    # 95 % nominal; the standard error of a proportion over 2000 repetitions is .0049.
    assert np.mean(inside) == pytest.approx(0.95, abs=3 * 0.0049)


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e300])
def test_squares_of_extreme_samples_stay_in_range(scale):
    estimate = Estimate.from_samples(scale * np.array([1.0, 2.0, 3.0]))
    assert estimate.value == pytest.approx(2 * scale, rel=1e-14)
    assert estimate.standard_error == pytest.approx(scale / math.sqrt(3), rel=1e-14)


def test_pairing_removes_what_both_share():
    rng = np.random.default_rng(2)
    shared, a, b = rng.normal(0, 100, 500), rng.normal(1, 1, 500), rng.normal(0, 1, 500)
    paired = paired_difference(shared + a, shared + b)
    assert paired.value == pytest.approx((a - b).mean(), abs=1e-10)
    # sqrt(2 / 500) = .063, with a relative sampling error of 1 / sqrt(1000); unpaired it is 6.3.
    assert paired.standard_error == pytest.approx(0.063, rel=0.1)
    unpaired = Estimate.from_samples(shared + a) - Estimate.from_samples(shared + b)
    assert unpaired.standard_error > 50 * paired.standard_error


@given(FINITE, ERRORS, FINITE, ERRORS, st.floats(-100, 100))
def test_independent_estimates_add_in_quadrature(v, e, w, f, factor):
    a, b = Estimate(v, e, 10, "seeds"), Estimate(w, f, 20, "Monte Carlo")
    total, difference = a + b, a - b
    assert (total.value, difference.value) == (v + w, v - w)
    assert total.standard_error == difference.standard_error == math.hypot(e, f)
    assert total.num_samples == 10
    assert (factor * a).value == (a * factor).value == v * factor
    assert (factor * a).standard_error == e * abs(factor)


def test_sums_name_the_errors_that_they_hold():
    exact, seeds = Estimate(1.0, kind="exact"), Estimate(1.0, 0.1, kind="seeds")
    assert (exact + seeds).kind == "seeds"
    assert (exact + exact).kind == "exact"
    assert (seeds + Estimate(2.0, 0.3, kind="data points")).kind == "seeds and data points"
    assert sum([seeds, seeds]).value == 2.0
    assert (3 - seeds) == Estimate(2.0, 0.1, kind="seeds")
    assert (seeds / 4) == Estimate(0.25, 0.025, kind="seeds")


def test_slack_widens_the_interval_and_keeps_to_its_side():
    plain, loose = Estimate(2.0, 0.5, 9), Estimate(2.0, 0.5, 9, slack=(0.25, 3.0))
    low, high = plain.confidence_interval()
    assert loose.confidence_interval() == (low - 0.25, high + 3.0)
    assert loose.interval() == plain.interval()  # of the error alone
    # Turned round, what may lie above lies below; what is shifted keeps it.
    assert (1.0 - loose).slack == (loose * -1).slack == (3.0, 0.25)
    assert (-2 * loose).slack == (6.0, 0.5)
    assert (loose + Estimate(0.0, 0.1, slack=(1.0, 0.0))).slack == (1.25, 3.0)
    assert Estimate.from_dict(loose.as_dict()) == loose != plain
    assert "slack" not in plain.as_dict()


def test_numpy_scalars_yield_estimates_and_floats():
    estimate = np.float64(2.0) * Estimate(np.float32(1.5), np.float64(0.5))
    assert estimate == Estimate(3.0, 1.0)
    assert type(estimate.value) is float and type(estimate.standard_error) is float
    assert isinstance(np.float64(1.0) - estimate, Estimate)


@given(FINITE, ERRORS, st.one_of(st.none(), st.integers(1, 10**9)), st.text(max_size=5))
def test_dictionary_round_trip(value, error, count, kind):
    estimate = Estimate(value, error, count, kind)
    assert Estimate.from_dict(estimate.as_dict()) == estimate


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((float("nan"),), "value must be finite"),
        ((float("inf"), 1.0), "diverged"),
        (([1.0, 2.0],), "0 dimension"),
        (("ninety",), "real numbers"),
        ((1.0, -0.1), "standard_error must be zero"),
        ((1.0, float("nan")), "standard_error must be finite"),
        ((1.0, 0.1, 0), "num_samples must be an integer and >= 1"),
        ((1.0, 0.1, 2.5), "num_samples must be an integer"),
        ((1.0, 0.1, 5, "seeds", 0), "degrees_of_freedom must be positive"),
        ((1.0, 0.1, 5, "seeds", 4, (0.1, -0.1)), "slack must be two numbers of at least 0"),
        ((1.0, 0.1, 5, "seeds", 4, (0.1,)), "slack must be two numbers"),
    ],
)
def test_bad_numbers_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Estimate(*arguments)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([1.0], "at least 2"),
        ([], "at least 2"),
        ([[1.0, 2.0], [3.0, 4.0]], "1 dimension"),
        ([1.0, float("nan"), 2.0], "1 of its 3 entries"),
        ([1.0, float("-inf")], "finite"),
    ],
)
def test_bad_samples_are_refused(samples, message):
    with pytest.raises(ValueError, match=message):
        Estimate.from_samples(samples)


def test_pairs_must_match():
    with pytest.raises(ValueError, match="a_samples has 3 and b_samples has 2"):
        paired_difference([1.0, 2.0, 3.0], [1.0, 2.0])


@pytest.mark.parametrize("fields", [{}, {"value": 1.0, "error": 2.0}, [1.0], None])
def test_bad_dictionaries_are_refused(fields):
    with pytest.raises(ValueError, match=r"An estimate is a dictionary"):
        Estimate.from_dict(fields)


def test_arithmetic_with_other_things_is_a_type_error():
    with pytest.raises(TypeError):
        Estimate(1.0) + "1"
    with pytest.raises(TypeError):
        Estimate(1.0) * Estimate(2.0)
    with pytest.raises(TypeError):
        Estimate(1.0) / "2"


def test_crossed_repetitions_add_their_variances():
    # Effects of rows and columns alone, without interaction: the errors have closed forms.
    rows, columns = np.array([0.0, 1.0, 5.0]), np.array([-2.0, 0.0, 1.0, 3.0])
    estimate = Estimate.from_crossed(rows[:, None] + columns, INDEPENDENT)
    expected = rows.var(ddof=1) / 3 + columns.var(ddof=1) / 4
    assert estimate.value == pytest.approx(rows.mean() + columns.mean())
    assert estimate.standard_error == pytest.approx(np.sqrt(expected))
    assert estimate.num_samples == 3 and estimate.kind == "seeds and data points"


def test_one_row_has_the_error_of_its_columns():
    samples = [[1.0, 2.0, 4.0]]
    assert Estimate.from_crossed(samples, INDEPENDENT) == Estimate.from_samples(
        samples[0], kind="data points"
    )


def test_crossed_samples_must_be_a_finite_matrix():
    with pytest.raises(ValueError, match="dimension"):
        Estimate.from_crossed([1.0, 2.0], INDEPENDENT)
    with pytest.raises(ValueError, match="finite"):
        Estimate.from_crossed([[1.0, np.nan], [2.0, 3.0]], INDEPENDENT)


def test_columns_of_a_group_count_as_one_unit():
    # Two nights of three sequences: the groups' means are 2 and 6, whatever is inside.
    samples = np.array([[1.0, 5.0, 2.0, 6.0, 3.0, 7.0]])
    assert Estimate.from_crossed(samples, [0, 1] * 3) == Estimate(4.0, 2.0, 2, "data points")
    # One night of five sequences, all alike, has no spread, however many sequences a night has.
    alike = Estimate.from_crossed(np.full([2, 6], 3.0), [0, 0, 0, 0, 0, 1])
    assert (alike.value, alike.standard_error) == (3.0, 0.0)
    with pytest.raises(ValueError, match="one label for each of the 6 sequences, but has 5"):
        Estimate.from_crossed(samples, range(5))
    with pytest.raises(ValueError, match="at least 2"):
        Estimate.from_crossed(samples, [0] * 6)


def test_unequal_groups_have_the_error_of_a_ratio():
    """Against the spread of the mean over many draws of groups of one or seven sequences."""
    rng = np.random.default_rng(3)
    means, errors = [], []
    for _ in range(2000):
        sizes = rng.choice([1, 7], size=40)
        groups = np.repeat(np.arange(40), sizes)
        values = 5.0 + rng.normal(size=40)[groups] + rng.normal(size=len(groups))
        estimate = Estimate.from_crossed(values[None], groups)
        means.append(estimate.value)
        errors.append(estimate.standard_error)
    # A standard deviation of 2000 draws is known to 1.6 %; the ratio's error is first order in
    # 1 / 40 groups.
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(means), rel=0.08)


def test_degrees_of_freedom_follow_satterthwaite():
    assert Estimate(1.0, 0.1, 5, "seeds").degrees_of_freedom == 4
    assert Estimate(1.0, 0.1).degrees_of_freedom == math.inf
    a, b = Estimate(1.0, 3.0, 4), Estimate(1.0, 4.0, 11)
    assert (a - b).degrees_of_freedom == pytest.approx(625 / (81 / 3 + 256 / 10))
    assert (a + 5).degrees_of_freedom == (2 * a).degrees_of_freedom == 3
    rng = np.random.default_rng(4)
    crossed = Estimate.from_crossed(rng.normal(size=[4, 30]), INDEPENDENT)
    assert 3 <= crossed.degrees_of_freedom <= 32
    assert Estimate.from_dict(crossed.as_dict()) == crossed


def test_confidence_intervals_are_those_of_t():
    # t at .995 with two degrees of freedom is 9.925, and 2.576 with infinitely many.
    low, high = Estimate(1.0, 1.0, 3).confidence_interval()
    assert (low, high) == pytest.approx((-8.925, 10.925), abs=1e-3)
    assert Estimate(0.0, 1.0).confidence_interval()[1] == pytest.approx(2.5758, abs=1e-4)
    assert Estimate(0.5, 0.0, 3).confidence_interval() == (0.5, 0.5)


def test_the_error_of_a_ratio_is_its_spread_over_repetitions():
    rng = np.random.default_rng(5)
    found = []
    for _ in range(2000):
        whole = 3.0 + rng.normal(size=[4, 1]) / 2 + rng.normal(size=[1, 50])
        part = 0.7 * whole + rng.normal(size=[4, 1]) / 5 + rng.normal(size=[1, 50]) / 2
        found.append(ratio_of_means(part, whole, INDEPENDENT))
    # Known to 1.6 % from 2000 draws; the sum of both factors' variances is exact without
    # interaction, and the linearisation leaves second order in .1, the relative error of the mean.
    spread = np.std([e.value for e in found])
    assert np.sqrt(np.mean([e.standard_error**2 for e in found])) == pytest.approx(spread, rel=0.08)
    assert found[0].num_samples == 4


HIDDEN = np.ma.masked_greater(np.array([1.0, 2.0, 3.0, 1000.0]), 100)
PLAIN = np.zeros(4)


@pytest.mark.parametrize(
    "call",
    [
        lambda a: Estimate.from_samples(a),
        lambda a: paired_difference(a, PLAIN),
        lambda a: paired_difference(PLAIN, a),
        lambda a: Estimate.from_crossed([a, a], INDEPENDENT),
        lambda a: ratio_of_means([a], [PLAIN + 1.0], INDEPENDENT),
        lambda a: over_seeds([a, a]),
        lambda a: over_seeds(np.ma.stack([a, a]) if np.ma.isMaskedArray(a) else np.stack([a, a])),
        lambda a: decompose(evidence=a, elbo=PLAIN - 9.0),
        lambda a: Bounds.from_log_weights(a),
        lambda a: jackknife_error(a),
        lambda a: fair_crps(a, 0.0),
    ],
)
@pytest.mark.parametrize(
    ("given", "message"),
    [(HIDDEN, "no masked values, but [12] are masked"), (PLAIN + 1j, "they are complex")],
    ids=["masked", "complex"],
)
def test_masked_and_complex_numbers_are_refused_wherever_they_enter(call, given, message):
    with pytest.raises(ValueError, match=message):
        call(given)


def test_a_masked_array_that_hides_nothing_is_an_array():
    shown = np.ma.masked_greater(np.array([1.0, 2.0, 3.0]), 100)
    assert Estimate.from_samples(shown) == Estimate.from_samples([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["a", "a", None, None], "labels of one kind.*2 are None or NaN"),
        ([np.nan, 1.0, 1.0, 2.0], "1 are None or NaN"),
        (np.array([1, "b", "b", 2], object), "they mix int and str"),
        ([[1, 1, 2, 2]], r"each of the 4 sequences, but has 4 of shape \(1, 4\)"),
        ([1, 1, 2], r"each of the 4 sequences, but has 3"),
        (np.ma.masked_equal([1, 1, 2, 2], 1), "groups must hold no masked values, but 2"),
    ],
)
def test_labels_that_name_no_group_are_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        Estimate.from_crossed([[1.0, 2.0, 3.0, 4.0]], groups)


def test_a_ratio_to_zero_is_refused_by_name():
    with pytest.raises(ValueError, match="denominators must have a mean far from zero.*is 0"):
        ratio_of_means([[1.0, 2.0, 3.0, 4.0]], [[1.0, -1.0, 0.5, -0.5]], INDEPENDENT)
    with pytest.raises(ValueError, match="denominators must be finite, but 1 of its 2"):
        ratio_of_means([[1.0, 2.0]], [[1.0, np.nan]], INDEPENDENT)
