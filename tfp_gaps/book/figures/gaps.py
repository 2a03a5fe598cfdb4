"""Figures of the gaps between evidence and ELBO, in one set of colours through the book."""

import matplotlib.pyplot as plt
import numpy as np

from tfp_gaps.book import figures
from tfp_gaps.gaps import PARTS

COLOURS = {
    part: figures.COLOURS[name]
    for part, name in zip(
        PARTS, ("moment_matched", "shared", "posterior_b", "mode_seeking"), strict=True
    )
}
"""Colour of each part, as a hexadecimal string."""


def staircase(
    report, *, xlabel="expected ELBO, nats per datum", elbo="ELBO of the trained network"
):
    """The four parts as a staircase from the evidence down to the ELBO.

    Args:
      report: `gaps.GapReport`.
      xlabel: of the axis.
      elbo: what the lowest level is.

    Returns:
      fig, and its alt text.
    """
    values = [part.value for part in report.parts.values()]
    levels = report.evidence.value - np.concatenate([[0], np.cumsum(values)])
    span = levels[0] - levels[-1]
    fig, axes = plt.subplots(figsize=(figures.WIDTH, 4.4))
    for row, (name, part) in enumerate(report.parts.items()):
        axes.barh(row, part.value, left=levels[row + 1], color=COLOURS[name], height=0.6)
        if part.standard_error > 0:
            error = 2 * part.standard_error
            axes.errorbar(levels[row + 1], row, xerr=error, color="black", lw=1.5)
        # Beside the error bar's right end, should it reach beyond the bar.
        right = max(levels[row], levels[row + 1] + 2 * part.standard_error)
        axes.text(right + 0.015 * span, row, f"{name} {_short(report, name)}", va="center")
    for level, low, high in zip(levels, (-0.6, 0, 1, 2, 3), (0.3, 1.3, 2.3, 3.3, 3.9), strict=True):
        axes.plot([level, level], [low - 0.3, high], color="black", lw=1)
    axes.text(levels[0] - 0.015 * span, -0.65, "evidence", ha="right", va="center")
    axes.text(levels[4] + 0.015 * span, 3.7, elbo, va="center")
    axes.set(xlabel=xlabel, yticks=[], ylim=(3.95, -0.95))
    axes.set_xlim(levels[-1] - 0.12 * span, levels[0] + 0.55 * span)
    axes.spines["left"].set_visible(False)
    steps = ", ".join(f"{name} {_short(report, name)}" for name in report.parts)
    alt = (
        f"Four horizontal bars form a staircase from the evidence at {report.evidence.value:.2f} "
        f"nats down to the {elbo} at {report.elbo.value:.2f} nats: {steps}."
    )
    return fig, alt


def _short(report, name):
    """Two decimals where a part is exact, else with its error; or that it was not measured."""
    if name in report.counted_as:
        return "not measured"
    part = report.parts[name]
    return f"{part.value:.2f}" if part.standard_error == 0 else str(part)
