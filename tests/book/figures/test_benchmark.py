"""Figures of the benchmarks: what is drawn is what was given, and the words hold it."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from tfp_gaps.book import figures
from tfp_gaps.book.figures import benchmark as benchmark_figures
from tfp_gaps.book.ledger.claims import Claim, Criterion, Record
from tfp_gaps.estimate import INDEPENDENT, Estimate

VALUES = {0: (1.0, 2.0, 3.0), 4: (4.0, 4.0, 7.0), None: (6.0, 8.0, 10.0)}


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        figures.style()
        yield
        plt.close("all")


@pytest.fixture
def runs():
    return [
        {"lookahead": k, "estimates": {"elbo": [{"value": value} for value in values]}}
        for k, values in VALUES.items()
    ]


def curve(offset=0.0, count=3):
    return [Estimate(h + offset, 0.5) for h in range(1, count + 1)]


def heights(container):
    """Centres and half widths of error bars."""
    line, _, (bars,) = container
    return line.get_ydata(orig=False), [
        np.ptp(segment[:, 1]) / 2 for segment in bars.get_segments()
    ]


def test_look_ahead_curve_shows_means_and_two_errors_over_seeds(runs):
    fig, alt = benchmark_figures.look_ahead_curve(runs, {"elbo": "ELBO"})
    values, errors = heights(fig.axes[0].containers[0])
    np.testing.assert_allclose(values, [2, 5, 8])
    # Standard deviations 1, sqrt(3), 2 over the root of three seeds, doubled.
    np.testing.assert_allclose(errors, 2 * np.array([1, 3**0.5, 2]) / 3**0.5)
    assert [label.get_text() for label in fig.axes[0].get_xticklabels()] == ["partial", "4", "full"]
    assert "partial, 4, full" in alt and "2.00 ± 0.58, 5.0 ± 1.0, 8.0 ± 1.2 nats" in alt


def test_horizons_are_drawn_in_units_of_time_with_the_nominal_level():
    curves = {
        label: {"rmse": curve(offset), "crps": curve(offset), "coverage_90": curve(offset)}
        for label, offset in (("partial", 0.0), ("full", 1.0))
    }
    fig, alt = benchmark_figures.horizon_curves(curves, step=0.25, unit="hours")
    assert len(fig.axes) == 3
    partial, full = fig.axes[0].get_lines()
    np.testing.assert_allclose(partial.get_xdata(), [0.25, 0.5, 0.75])
    np.testing.assert_allclose(full.get_ydata(), [2, 3, 4])
    assert partial.get_color() == figures.COLOURS["partial"]
    assert any(list(line.get_ydata()) == [0.9, 0.9] for line in fig.axes[2].get_lines())
    assert "RMSE, full: 2.00 ± 0.50 after 0.25 hours, 4.00 ± 0.50 after 0.75" in alt
    assert "coverage of 90 %" in alt


def test_gap_in_time_draws_the_mean_and_every_replica():
    rows = np.array([[1.0, 5.0, 3.0], [3.0, 7.0, 1.0]])
    fig, alt = benchmark_figures.gap_in_time({"partial": rows, "full": rows[0]})
    lines = fig.axes[0].get_lines()
    assert len(lines) == 2 + 1 + 1
    np.testing.assert_allclose(lines[2].get_ydata(), [2, 6, 2])
    assert "partial: largest at step 2 with 6.00" in alt and "in all 10.0" in alt


def test_colours_follow_the_conditioning_and_stay_apart():
    rows = {
        "4 ahead minus partial": [1.0, 2.0],
        "6 ahead": [2.0, 1.0],
        "full minus partial": [0, 1],
    }
    fig, _ = benchmark_figures.gap_in_time(rows)
    colours = [line.get_color() for line in fig.axes[0].get_lines()]
    assert colours[0] == figures.COLOURS["semi"] and colours[2] == figures.COLOURS["full"]
    assert len(set(colours)) == 3


def test_sweep_takes_one_curve_or_several():
    series = {2: Estimate(3.0, 1.0), 8: Estimate(-1.0, 0.5)}
    fig, _ = benchmark_figures.sweep_curve(series, xlabel="latent size")
    values, errors = heights(fig.axes[0].containers[0])
    np.testing.assert_allclose((values, errors), [[3, -1], [2, 1]])
    several = {"ELBO": series, "model": {8: Estimate(0.5, 0.1)}}
    fig, alt = benchmark_figures.sweep_curve(several, xlabel="latent size")
    # A setting that only one curve has keeps its place, up to the shift that keeps bars apart.
    place = fig.axes[0].containers[1].lines[0].get_xdata(orig=False)
    np.testing.assert_allclose(place, [1], atol=0.1)
    assert "ELBO: at 2: 3.0 ± 1.0; at 8: -1.00 ± 0.50. model: at 8: 0.50 ± 0.10." in alt


def test_horizons_over_seeds_keeps_the_data_error_of_a_single_seed():
    entries = [Estimate(1.0, 0.1, 9, "data points").as_dict()] * 2
    summary = {"crps": [entries], "crps_mean": [[0.1, 0.2]]}
    curves = benchmark_figures.horizons_over_seeds(summary)
    assert list(curves) == ["crps"]
    assert curves["crps"] == [Estimate(1.0, 0.1, 9, "data points")] * 2
    both = benchmark_figures.horizons_over_seeds({"crps": [entries, entries]})
    assert both["crps"][0] == Estimate(1.0, 0.0, 2, "seeds")


def test_crossed_difference_adds_the_errors_of_seeds_and_sequences():
    rng = np.random.default_rng(0)
    seeds, sequences = 3.0 * rng.standard_normal([40, 1]), 2.0 * rng.standard_normal([1, 60])
    values = 1.0 + seeds + sequences
    result = {"forecast": {"crps_mean": values.tolist()}}
    baseline = {"forecast": {"crps_mean": np.zeros_like(values).tolist()}}
    difference = benchmark_figures.crossed_difference(result, baseline, "crps", groups=INDEPENDENT)
    squares = seeds.var(ddof=1) / 40, sequences.var(ddof=1) / 60
    for estimate, square in zip(difference, (*squares, sum(squares))):
        np.testing.assert_allclose(estimate.value, values.mean())
        np.testing.assert_allclose(estimate.standard_error**2, square)


def test_the_error_of_groups_is_over_groups():
    # Six sequences, three of each of two nights: the groups' means are 2 and 6, whatever is inside.
    values = np.array([[1.0, 5.0, 2.0, 6.0, 3.0, 7.0]] * 2)
    runs = [{"per_sequence": {"elbo": v.tolist()}} for v in (values, 0 * values)]
    difference = benchmark_figures.crossed_difference(*runs, "elbo", groups=[0, 1] * 3)
    assert difference.over_sequences == Estimate(4.0, 2.0, 2, "data points")
    assert difference.over_seeds.standard_error == 0


def test_gains_over_a_baseline_name_the_look_and_the_bounds_of_the_model():
    def stored(lookahead, gain):
        values = [[1.0 + gain, 2.0, 3.0 + gain], [2.0, 3.0 + gain, 5.0 + gain]]
        return {
            "lookahead": lookahead,
            "per_sequence": {"elbo": values},
            "evidence": {
                "replicas": [{"test": {"values": [2 * v for v in row]}} for row in values],
                "groups": [0, 0, 1],
            },
        }

    least, *wider = stored(0, 0.0), stored(1, 1.5), stored(None, 3.0)
    bound = benchmark_figures.gains(least, wider, "elbo", groups=INDEPENDENT)
    assert {label: e.value for label, e in bound.items()} == {"1": 1.0, "full": 2.0}
    model = benchmark_figures.gains(least, wider, "evidence", groups=INDEPENDENT)
    assert {label: e.value for label, e in model.items()} == {"1": 2.0, "full": 4.0}
    # The evidence is grouped as it was stored: the second group's one sequence counts once.
    expected = Estimate.from_crossed([[6.0, 0.0, 6.0], [0.0, 6.0, 6.0]], [0, 0, 1])
    assert model["full"] == expected


def test_relative_crps_is_the_ratio_of_the_means():
    rng = np.random.default_rng(0)
    partial = 1.0 + 0.2 * rng.random([3, 8])
    full = 0.96 * partial + 0.01 * rng.standard_normal([3, 8])
    runs = [{"forecast": {"crps_mean": scores.tolist()}} for scores in (full, partial)]
    found = benchmark_figures.relative_crps(*runs, groups=[0, 0, 1, 1, 2, 2, 3, 3])
    assert found.value == pytest.approx(100 * (full.mean() / partial.mean() - 1))
    # Each seed and flight left out in turn: the error of the ratio over either, added (jackknife).
    keep = [np.delete(np.arange(3), i) for i in range(3)]
    seeds = [full[k].mean() / partial[k].mean() for k in keep]
    pairs = [np.delete(np.arange(8), [2 * i, 2 * i + 1]) for i in range(4)]
    flights = [full[:, k].mean() / partial[:, k].mean() for k in pairs]
    variance = sum((n - 1) * np.var(left) for n, left in ((3, seeds), (4, flights)))
    # The jackknife and the linearisation agree up to the curvature of a ratio, of one in a hundred.
    assert found.standard_error == pytest.approx(100 * variance**0.5, rel=0.02)


@pytest.fixture(scope="module")
def decided():
    """A claim about three data sets, one of each verdict, at the margin of 2 nats or 1 percent."""
    asked = [
        Criterion(f"{data}: {what}", rule, 0.0, why="a test", margin=margin)
        for data, what, rule, margin in (
            ("digits, all of them", "ELBO, full minus partial, nats per image", "at_least", 2.0),
            ("flights", "CRPS, full over partial minus one, percent", "at_most", 1.0),
            ("roads", "ELBO, full minus partial, nats per window", "at_least", 2.0),
        )
    ]
    claim = Claim("C99", "it helps", ("somebody",), "qualitative", "sums", tuple(asked))
    found = (Estimate(4.0, 0.1), Estimate(2.0, 0.1), Estimate(5.0, 50.0, slack=(1.0, 0.0)))
    return Record(claim, {each.name: e for each, e in zip(asked, found, strict=True)})


def test_verdicts_are_drawn_in_margins_and_in_the_direction_of_the_claim(decided):
    fig, alt = benchmark_figures.verdicts({"The bound": decided})
    axis = fig.axes[0]
    bars = [line.get_xdata() for line in axis.lines[1:] if len(line.get_xdata()) == 2]
    half = 2.5758 * 0.1  # of the 99 % interval
    np.testing.assert_allclose(bars[0], [2 - half / 2, 2 + half / 2], atol=1e-4)  # 4 nats of 2
    np.testing.assert_allclose(bars[1], [-2 - half, -2 + half], atol=1e-4)  # at most: turned round
    np.testing.assert_allclose(bars[2], [-8, 16])  # goes on beyond the axis
    markers = [line.get_marker() for line in axis.lines]
    assert [m for m in markers if m not in ("None", None)] == ["o", "x", "<", ">", "o"]
    assert (
        "digits: 4.00 nats (3.74 to 4.26), reproduced; flights: 2.00 % (1.74 to 2.26), different"
        in alt
    )
    assert alt.startswith("The bound. ") and alt.endswith(", undecided.")
    labels = {"digits, all of them": "every digit"}
    _, alt = benchmark_figures.verdicts({"The bound": decided}, labels=labels)
    assert "every digit: 4.00 nats" in alt and "flights: 2.00 %" in alt
