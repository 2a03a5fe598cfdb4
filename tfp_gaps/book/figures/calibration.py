"""How often the sets of a belief hold the truth, as dots beside the lines where they should lie.

A belief names a set for each nominal level, such as the half and nine tenths of its own mass. If it
is calibrated, each set holds the truth as often as its level says. A dot to the left of its line is
over-confidence, to the right of it under-confidence.
"""

import matplotlib.pyplot as plt

from tfp_gaps.book import figures

LEVELS = (0.5, 0.9)
_MARKERS = (
    {"marker": "o", "markerfacecolor": "#ffffff", "markeredgewidth": 1.8},
    {"marker": "o"},
)


def nominal_dots(groups):
    """Coverage of 50 % and 90 % sets, a row for each belief, a panel for each group.

    Args:
      groups: {title: {belief: (colour, [Estimate of each of `LEVELS`])}}; the colour is a key of
        `figures.COLOURS`, the estimates are shares between 0 and 1.

    Returns:
      fig: the figure; a ring is the 50 % set, a dot the 90 % set, bars are 95 % intervals.
      alt: alt text.

    >>> from tfp_gaps.estimate import Estimate
    >>> shares = [Estimate.exact(0.38), Estimate.exact(0.78)]
    >>> fig, alt = nominal_dots({"scalar, R = 1": {"partial q": ("partial", shares)}})
    >>> alt
    'Share of true states inside the 50 % and the 90 % set. scalar, R = 1: partial q 38 and 78 %.'
    >>> plt.close(fig)
    """
    sizes = [len(rows) for rows in groups.values()]
    fig, axes = plt.subplots(
        len(sizes), 1, figsize=(figures.WIDTH, 0.34 * sum(sizes) + 0.5 * len(sizes) + 0.6),
        sharex=True, squeeze=False, height_ratios=sizes,
    )  # fmt: skip
    sentences = []
    for axis, (title, rows) in zip(axes[:, 0], groups.items()):
        for level in LEVELS:
            axis.axvline(100 * level, color="0.5", linestyle="--", linewidth=1)
        told = [_row(axis, -i, name, *row) for i, (name, row) in enumerate(rows.items())]
        axis.set_yticks([-i for i in range(len(rows))], list(rows))
        axis.set(title=title, xlim=(-2, 102), ylim=(0.5 - len(rows), 0.5))
        axis.tick_params(axis="y", length=0)
        sentences.append(f"{title}: {'; '.join(told)}.")
    axes[-1, 0].set_xticks([0, 25, 50, 75, 90], ["0", "25", "50", "75", "90"])
    axes[-1, 0].set_xlabel("share of true states inside the set (%)")
    return fig, f"Share of true states inside the 50 % and the 90 % set. {' '.join(sentences)}"


def _row(axis, height, name, colour, shares):
    """Draw the sets of one belief and return them in words."""
    for share, look in zip(shares, _MARKERS):
        ends = share.confidence_interval(0.95)
        axis.plot(
            [100 * end for end in ends],
            [height, height],
            color=figures.COLOURS[colour],
            linewidth=2,
        )
        axis.plot(100 * share.value, height, color=figures.COLOURS[colour], markersize=8, **look)
    return f"{name} {' and '.join(f'{100 * share.value:.0f}' for share in shares)} %"
