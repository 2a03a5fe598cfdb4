"""Figures that the sequential benchmarks share, with the alt text that belongs to each.

Every function draws plain arrays or `Estimate`s and returns (figure, alt text); the caption is the
chapter's, which alone knows scale, data and seeds. Bars and bands span two standard errors on each
side, but for `verdicts`, whose bars are the intervals that decide. Which error that is, over seeds
or over sequences, is the estimates' business: their `kind`.

`horizons_over_seeds`, `crossed_difference`, `gains`, `relative_crps` and `with_interval` turn
results into what the figures and sentences need.
"""

import itertools
import math
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from tfp_gaps.book import figures
from tfp_gaps.book.experiments.benchmark import over_seeds, stored_label
from tfp_gaps.book.experiments.evidence import difference_of_bounds
from tfp_gaps.estimate import Estimate, ratio_of_means

BARS = 2.0
"""Half width of bars and bands in standard errors."""

_MARKERS = ("o-", "s--", "^:", "D-.")
_CURVE_COLOURS = ("#000000", "#777777", "#000000", "#777777")  # teal and purple mean conditions
_SCORES = {"rmse": "RMSE", "crps": "CRPS"}


def look_ahead_curve(stored_results, quantities, *, unit="nats per window"):
    """Mean over seeds of some quantities against the look-ahead.

    Args:
      stored_results: as from `Benchmark.stored`, one for each look-ahead, in the order of the axis.
      quantities: {quantity in `estimates`: label of its curve}.
      unit: of the vertical axis.

    Returns:
      fig: the figure; bars are two standard errors over seeds.
      alt: alt text.

    >>> entries = [[{"value": v + s} for s in (0.0, 0.2)] for v in (-3.0, -2.0)]
    >>> runs = [{"lookahead": k, "estimates": {"elbo": e}} for k, e in zip((0, None), entries)]
    >>> fig, alt = look_ahead_curve(runs, {"elbo": "ELBO"}, unit="nats")
    >>> alt
    'Curves against the look-ahead, partial, full. ELBO: -2.90 ± 0.10, -1.90 ± 0.10 nats.'
    >>> plt.close(fig)
    """
    labels = [stored_label(result) for result in stored_results]
    positions = np.arange(len(labels))
    fig, axis = plt.subplots(figsize=(figures.WIDTH, 3.9))
    sentences = []
    for (quantity, label), marker, colour in zip(quantities.items(), _MARKERS, _CURVE_COLOURS):
        estimates = [over_seeds(result, quantity) for result in stored_results]
        _error_bars(axis, positions, estimates, marker, colour, label)
        sentences.append(f"{label}: {_listed(estimates)} {unit}.")
    axis.set(xticks=positions, xticklabels=labels, xlabel="look-ahead $k$", ylabel=unit)
    axis.margins(x=0.08)
    # Above the axes, where no curve can run through it.
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    return fig, f"Curves against the look-ahead, {', '.join(labels)}. {' '.join(sentences)}"


def horizon_curves(curves, *, step, unit, score_unit="standardised"):
    """Scores of predictions against how far ahead they are.

    Args:
      curves: {label: {"rmse": [Estimate per horizon], "crps": [...], "coverage_90": [...]}}; a
        model may be named "partial" or "full", others count as in between. Any key but "rmse" and
        "crps" is the coverage of central intervals of that many percent.
      step: duration of one step, in `unit`.
      unit: of time.
      score_unit: of RMSE and CRPS.

    Returns:
      fig: the figure, one panel below the other; bands are two standard errors.
      alt: alt text.
    """
    names, colours = list(next(iter(curves.values()))), _colours(curves)
    fig, axes = plt.subplots(
        len(names), 1, figsize=(figures.WIDTH, 2.1 * len(names) + 0.6), sharex=True, squeeze=False
    )
    sentences = []
    for axis, name in zip(axes[:, 0], names):
        title = _score_title(name)
        for index, (label, scores) in enumerate(curves.items()):
            colour = colours[index]
            times = step * np.arange(1, len(scores[name]) + 1)
            _band(axis, times, scores[name], label, colour, index)
            first, last = scores[name][0], scores[name][-1]
            sentences.append(f"{title}, {label}: {first} after {times[0]:g} {unit}, "
                             f"{last} after {times[-1]:g}.")  # fmt: skip
        if name in _SCORES:
            axis.set_ylabel(f"{title}\n({score_unit})")
        else:
            axis.axhline(_nominal(name), color="0.5", linestyle="--", linewidth=1)
            axis.set_ylabel(f"{title}\n(dashed: nominal)")
    axes[0, 0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)
    axes[-1, 0].set_xlabel(f"how far ahead ({unit})")
    return fig, f"Scores of predictions against the horizon. {' '.join(sentences)}"


def gap_in_time(divergences, *, xlabel="step $t$", ylabel="KL to the prior, nats per step"):
    """A quantity of each step, such as the divergence of q from the prior, for each look-ahead.

    Args:
      divergences: {label: [time], or [replicas, time], whose mean is drawn with a line for each}.
      xlabel, ylabel: of the axes.

    Returns:
      fig: the figure.
      alt: alt text.
    """
    fig, axis = plt.subplots(figsize=(figures.WIDTH, 3.9))
    sentences = []
    pairs = zip(divergences.items(), _colours(divergences))
    for index, ((label, values), colour) in enumerate(pairs):
        rows = np.atleast_2d(np.asarray(values, float))
        mean, steps = rows.mean(0), np.arange(1, rows.shape[1] + 1)
        if len(rows) > 1:
            axis.plot(steps, rows.T, color=colour, linewidth=0.7, alpha=0.5)
        axis.plot(steps, mean, _MARKERS[index % 4][1:], color=colour, label=label)
        peak = int(np.argmax(mean))
        sentences.append(
            f"{label}: largest at step {steps[peak]} with {mean[peak]:.2f}, in the middle "
            f"{mean[len(mean) // 2]:.2f}, at the end {mean[-1]:.2f}, in all {mean.sum():.1f}."
        )
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)
    return fig, f"{_plain(ylabel)}, step by step. {' '.join(sentences)}"


def sweep_curve(differences, *, xlabel, ylabel="full minus partial, nats per window"):
    """Differences against a setting that is swept, with a line at zero.

    Args:
      differences: {value of the setting: Estimate}, or {label: such a dict} for several curves. The
        values are placed evenly, in the order given.
      xlabel, ylabel: of the axes.

    Returns:
      fig: the figure; bars are two standard errors.
      alt: alt text.

    >>> fig, alt = sweep_curve({2: Estimate(3.0, 1.0), 4: Estimate(1.0, 0.5)}, xlabel="latent size")
    >>> alt
    'full minus partial, nats per window against latent size. At 2: 3.0 ± 1.0; at 4: 1.00 ± 0.50.'
    >>> plt.close(fig)
    """
    if all(isinstance(entry, Estimate) for entry in differences.values()):
        differences = {"": differences}
    settings = list(dict.fromkeys(x for series in differences.values() for x in series))
    fig, axis = plt.subplots(figsize=(figures.WIDTH, 3.9))
    axis.axhline(0, color="0.6", linewidth=1)
    sentences = []
    for index, ((label, series), colour) in enumerate(zip(differences.items(), _CURVE_COLOURS)):
        # Side by side, so that bars at one setting do not hide each other.
        shift = 0.08 * (index - (len(differences) - 1) / 2)
        positions = [settings.index(x) + shift for x in series]
        marker, estimates = _MARKERS[index], list(series.values())
        _error_bars(axis, positions, estimates, marker, colour, label)
        values = "; ".join(f"at {x}: {estimate}" for x, estimate in series.items())
        sentences.append(f"{label}: {values}." if label else f"{values[0].upper()}{values[1:]}.")
    axis.set(xticks=range(len(settings)), xticklabels=map(str, settings))
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.margins(x=0.08)
    if len(differences) > 1:
        axis.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    return fig, f"{_plain(ylabel)} against {_plain(xlabel)}. {' '.join(sentences)}"


def horizons_over_seeds(summary):
    """Means over seeds of the scores at each horizon, for `horizon_curves`.

    Args:
      summary: as from `benchmark.forecast_summary`, or "forecast" of a stored result.

    Returns:
      {"rmse": [Estimate per horizon], "crps": ..., "coverage_50": ..., ...}; the errors are over
      seeds, or over sequences where there is one seed only.

    >>> entry = {"value": 1.0, "standard_error": 0.1, "num_samples": 10, "kind": "data points"}
    >>> print(horizons_over_seeds({"rmse": [[entry], [entry | {"value": 2.0}]]})["rmse"][0])
    1.50 ± 0.50
    """
    curves = {}
    for name, seeds in summary.items():
        if name.endswith("_mean"):  # per sequence, not per horizon
            continue
        if len(seeds) == 1:
            curves[name] = [Estimate.from_dict(entry) for entry in seeds[0]]
        else:
            values = [[entry["value"] for entry in horizons] for horizons in seeds]
            curves[name] = [Estimate.from_samples(column, kind="seeds") for column in zip(*values)]
    return curves


class Difference(NamedTuple):
    """A mean difference of two results, with three standard errors.

    over_seeds: of trainings, on these sequences.
    over_sequences: of sequences (or groups of them), for these trainings.
    both: of trainings and sequences.
    """

    over_seeds: Estimate
    over_sequences: Estimate
    both: Estimate


def crossed_difference(result, baseline, quantity, *, groups):
    """Mean difference of two results over seeds and sequences, and its errors.

    Seeds and sequences are crossed: every model is measured on the same sequences.

    Args:
      result, baseline: as from `benchmark.evaluate`, or stored; paired by seed and by sequence.
      quantity: in `per_sequence`, or "crps" or "squared_error" of the forecast, averaged over the
        horizons.
      groups: [sequences], labels, or `estimate.INDEPENDENT`; see `Estimate.from_crossed`.

    Returns:
      `Difference` of result minus baseline.

    Raises:
      ValueError: if there are not as many labels as sequences.

    >>> runs = [{"per_sequence": {"elbo": [[1.0, 2.0], [3.0, v]]}} for v in (6.0, 4.0)]
    >>> print(crossed_difference(*runs, "elbo", groups="independent").both)
    0.50 ± 0.71
    """
    values, others = (np.asarray(_per_sequence(r, quantity), float) for r in (result, baseline))
    difference = values - others
    return Difference(
        Estimate.from_samples(difference.mean(1), kind="seeds"),
        Estimate.from_crossed(difference.mean(0, keepdims=True), groups),
        Estimate.from_crossed(difference, groups),
    )


def gains(baseline, results, quantity, *, groups):
    """What each of several stored results gains over one, for `sweep_curve`.

    Args:
      baseline, results: a result and a list of them, as from `Benchmark.stored`, of equal seeds.
      quantity: as for `crossed_difference`, or "evidence": the best lower bounds of the models,
        without their slack.
      groups: as for `crossed_difference`; evidence brings its own.

    Returns:
      {label of the look-ahead: `Estimate` over seeds and groups, nats per sequence}.

    >>> runs = [
    ...     {"lookahead": k, "per_sequence": {"elbo": [[1.0, 2.0], [3.0, v]]}}
    ...     for k, v in ((0, 4.0), (1, 6.0))
    ... ]
    >>> print(gains(runs[0], runs[1:], "elbo", groups="independent")["1"])
    0.50 ± 0.71
    """
    return {
        stored_label(result): difference_of_bounds(result, baseline)
        if quantity == "evidence"
        else crossed_difference(result, baseline, quantity, groups=groups).both
        for result in results
    }


def relative_crps(result, baseline, *, groups):
    """CRPS of a result over that of the baseline, minus one, in percent; less is better.

    Both are averaged over horizons, seeds and sequences first; the error is over seeds and groups.

    Args:
      result, baseline, groups: as for `crossed_difference`.

    >>> runs = [{"forecast": {"crps_mean": [[0.5 * f, 1.5 * f]]}} for f in (0.9, 1.0)]
    >>> print(f"{relative_crps(*runs, groups='independent').value:.1f}")
    -10.0
    """
    scores = (_per_sequence(each, "crps") for each in (result, baseline))
    return 100 * (ratio_of_means(*scores, groups) - 1)


def with_interval(estimate, unit):
    """An estimate in words, with its 99 % interval to two digits of the interval's half width.

    >>> with_interval(Estimate(8.964, 0.31, 8, "seeds"), "nats")
    '9.0 nats (99 % interval 7.9 to 10.0)'
    >>> with_interval(Estimate(-0.01, 0.01), "%")
    '−0.010 % (99 % interval −0.036 to 0.016)'
    """
    low, high = estimate.confidence_interval()
    half = (high - low) / 2
    digits = max(0, 1 - math.floor(math.log10(half))) if half else 3
    value, low, high = (f"{round(x, digits) + 0.0:.{digits}f}" for x in (estimate.value, low, high))
    return f"{value} {unit} (99 % interval {low} to {high})".replace("-", "−")


_VERDICT_MARKS = {
    "reproduced": {"marker": "o", "color": "#000000"},
    "reproduced, but smaller than matters": {"marker": "D", "color": "#000000"},
    "different": {"marker": "x", "color": "#000000"},
    "undecided": {"marker": "o", "color": "#777777", "markerfacecolor": "#ffffff"},
}


def verdicts(records, *, labels=None, limits=(-8.0, 16.0)):
    """What was measured for claims about several data sets, against what matters.

    Args:
      records: {title: `ledger.claims.Record`}, a panel each. A criterion is named "data set: what,
        unit" and has a bound of zero and a margin.
      labels: {data set in the name of a criterion: how the figure calls it}; by default the name
        up to its first comma.
      limits: of the horizontal axis, in margins; a bar that goes on ends in an arrow.

    Returns:
      fig: the figure. The effect is drawn in units of its margin, positive in the direction of the
        claim; bars are the 99 % intervals that decide, with the slack of bounds.
      alt: alt text.
    """
    rows = [len(record.claim.criteria) for record in records.values()]
    fig, axes = plt.subplots(
        len(rows), 1, figsize=(figures.WIDTH, 0.64 * sum(rows) + 0.95 * len(rows)),
        sharex=True, squeeze=False, height_ratios=rows,
    )  # fmt: skip
    sentences = []
    for axis, (title, record) in zip(axes[:, 0], records.items()):
        axis.axvspan(0, 1, color="0.9", linewidth=0)
        axis.axvline(0, color="0.4", linewidth=1)
        axis.set(title=title, ylim=(0.6 - len(record.claim.criteria), 0.85), xlim=limits, yticks=[])
        axis.tick_params(labelbottom=True)
        axis.spines["left"].set_visible(False)
        told = [
            _verdict_row(axis, -i, record, criterion, labels or {})
            for i, criterion in enumerate(record.claim.criteria)
        ]
        sentences.append(f"{title}. {'; '.join(told)}.")
    axes[-1, 0].set_xlabel("full better →, in multiples of the smallest effect that matters")
    return fig, " ".join(sentences)


def _verdict_row(axis, height, record, criterion, labels):
    """Draw one criterion and return it in words."""
    estimate, outcome = record.estimates[criterion.name], record.outcome(criterion)
    sign = -1 if criterion.rule == "at_most" else 1
    effect = (sign / criterion.margin) * estimate
    ends, (left, right) = effect.confidence_interval(), axis.get_xlim()
    look, inside = _VERDICT_MARKS[outcome], np.clip(ends, left, right)
    axis.plot(inside, [height, height], color=look["color"], linewidth=2.5)
    for end, shown, arrow in zip(ends, inside, "<>"):
        if end != shown:
            axis.plot(shown, height, arrow, color=look["color"], clip_on=False)
    if left < effect.value < right:
        axis.plot(effect.value, height, markersize=8, markeredgewidth=2, zorder=3, **look)
    data, what = criterion.name.split(": ", 1)
    unit = what.rsplit(", ", 1)[1].replace("percent", "%").split(" per ")[0]
    told = with_interval(estimate, unit).replace("99 % interval ", "")
    words = f"{labels.get(data, data.split(', ')[0])}: {told}, {outcome}"
    # White behind the words, so that neither line nor band runs through them.
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
    place = axis.get_yaxis_transform()
    axis.text(0, height + 0.22, words, transform=place, fontsize=10.5, bbox=paper)
    return words


def _per_sequence(result, quantity):
    if quantity in ("crps", "squared_error"):
        return result["forecast"][f"{quantity}_mean"]
    return result["per_sequence"][quantity]


def _error_bars(axis, positions, estimates, marker, colour, label):
    axis.errorbar(
        positions,
        [estimate.value for estimate in estimates],
        yerr=[BARS * estimate.standard_error for estimate in estimates],
        fmt=marker,
        color=colour,
        label=label or None,
    )


def _band(axis, times, estimates, label, colour, index):
    values = np.array([estimate.value for estimate in estimates])
    errors = BARS * np.array([estimate.standard_error for estimate in estimates])
    axis.fill_between(times, values - errors, values + errors, color=colour, alpha=0.2, linewidth=0)
    axis.plot(times, values, _MARKERS[index % 4], color=colour, label=label, markersize=4)


def _colours(labels):
    """Colour of each label: by its first word if that names a conditioning, else one in between."""
    between = itertools.cycle(("semi", "posterior_b", "moment_matched"))
    named = ("partial", "full", "truth")
    firsts = [label.split()[0] for label in labels]
    return [figures.COLOURS[first if first in named else next(between)] for first in firsts]


def _score_title(name):
    return _SCORES.get(name) or f"coverage of {100 * _nominal(name):.0f} %"


def _nominal(name):
    """Nominal level of "coverage_90"."""
    return float(name.rsplit("_", 1)[1]) / 100


def _listed(estimates):
    return ", ".join(map(str, estimates))


def _plain(label):
    """An axis label without mathematics, on one line."""
    return " ".join(label.replace("$", "").split())
