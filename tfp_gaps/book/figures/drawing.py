"""Drawing as SVG: axes with ticks, names and units, and what lies between them.

A picture is 600 units wide. The shared style makes its text larger on a phone, for which the
margins leave room. Scripts read the scales of a plot from its `area`.
"""

import html
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator

from tfp_gaps import _checks
from tfp_gaps.book.figures.page import paint

WIDTH = 600


class Axes(NamedTuple):
    """A pair of axes.

    across, up: (low, high) of each.
    height: of the area, in units of the picture.
    left, width: where the area begins, and its width.
    top: room above the area, for the name of the vertical axis.
    """

    across: tuple
    up: tuple
    height: int = 260
    left: int = 66
    width: int = 520
    top: int = 36

    @property
    def bottom(self):
        """Lower end of the ticks and of the name of the horizontal axis."""
        return self.top + self.height + 62

    def place(self, x, y):
        """Text "x y" of each point, inside of the area.

        >>> Axes((0, 1), (0, 2)).place([0, 1], [0, 2])
        ['0 260', '520 0']
        """
        (x0, x1), (y0, y1) = self.across, self.up
        x = (np.asarray(x, float) - x0) / (x1 - x0) * self.width
        # Far outside is cut off anyway, and would only take digits.
        y = np.clip((y1 - np.asarray(y, float)) / (y1 - y0), -1, 2) * self.height
        return [f"{a:.1f} {b:.1f}".replace(".0", "") for a, b in zip(x, y, strict=True)]

    def frame(self, across, up, content, *, ticks=None):
        """SVG of the axes, named, around the content of the area.

        Args:
          across, up: names of the axes with their units.
          content: SVG of `line`, `band`, `dots` and the like.
          ticks: list of (place, label) of the horizontal axis; None for round numbers.
        """
        base = self.top + self.height
        lines, labels = f"M{self.left} {base}h{self.width}", ""
        for tick, label in ticks if ticks is not None else _round_ticks(self.across):
            x = self.left + (tick - self.across[0]) / np.ptp(self.across) * self.width
            lines += f"M{x:.1f} {base}v6"
            labels += text(x, base + 27, label, "middle")
        for tick, label in _round_ticks(self.up):
            y = base - (tick - self.up[0]) / np.ptp(self.up) * self.height
            lines += f"M{self.left - 6} {y:.1f}h6"
            labels += text(self.left - 9, y + 6, label, "end")
        labels += text(self.left + self.width / 2, base + 56, across, "middle")
        labels += text(self.left, self.top - 14, up)
        # A hair's breadth more than the area, so that lines on its edges keep their width.
        area = (
            f'<svg class="area" x="{self.left}" y="{self.top - 2}" width="{self.width}" '
            f'height="{self.height + 4}" viewBox="0 -2 {self.width} {self.height + 4}" '
            f'data-across="{self.across[0]:g} {self.across[1]:g}" '
            f'data-up="{self.up[0]:g} {self.up[1]:g}" data-size="{self.width} {self.height}">'
            f"{content}</svg>"
        )
        return f'<path class="axis" d="{lines}"/>{area}{labels}'

    def line(self, x, y, colour, *, dash="", width=3.5, key=""):
        """SVG of a line through points; a script finds it by its key."""
        return (
            f'<path d="{_path(self.place(x, y))}" class="line" style="stroke:{paint(colour)}" '
            f'stroke-width="{width:g}"{_dash(dash)}{_key(key)}/>'
        )

    def band(self, x, lower, upper, colour, *, key="", opacity=0.3):
        """SVG of the area between two lines; with opacity None its outline."""
        path = f"{_path(self.place(x, lower) + self.place(x, upper)[::-1])}z"
        look = f'style="fill:{paint(colour)}" fill-opacity="{opacity}"'
        if opacity is None:
            look = f'class="line" style="stroke:{paint(colour)}" stroke-width="2.5"'
        return f'<path d="{path}" {look}{_key(key)}/>'

    def dots(self, x, y, colour, *, size=9, opacity=1.0, key=""):
        """SVG of round dots."""
        drawn = "".join(f"M{point}h0" for point in self.place(x, y))
        return (
            f'<path d="{drawn}" class="dots" style="stroke:{paint(colour)}" '
            f'stroke-width="{size:g}" stroke-opacity="{opacity:g}"{_key(key)}/>'
        )


def _path(points):
    return f"M{'L'.join(points)}"


def _dash(dash):
    return f' stroke-dasharray="{dash}"' if dash else ""


def _key(key):
    return f' data-key="{key}"' if key else ""


def _round_ticks(limits):
    low, high = limits
    ticks = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)
    room = 1e-9 * (high - low)
    return [(t, number(t)) for t in ticks if low - room <= t <= high + room]


def number(value):
    """A number as the axes write it, with a true minus.

    >>> number(-0.5), number(1e-17)
    ('−0.5', '0')
    """
    return f"{round(float(value), 9) + 0.0:g}".replace("-", "−")


def svg(height, content, spoken, *, width=WIDTH):
    """An SVG that a screen reader reads as `spoken`."""
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{html.escape(spoken)}">{content}</svg>'
    )


def text(x, y, words, anchor="start"):
    """SVG of a text; `anchor` says which part of it is at x."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'


def picture(drawn):
    """Where a widget shows its picture."""
    return f'<div class="picture" data-picture>{drawn}</div>'


def limits(value, name):
    """(low, high) as floats.

    Raises:
      ValueError: unless they are finite and in this order.
    """
    low, high = _checks.finite_array(value, name, ndim=1)
    if not low < high:
        raise ValueError(f"{name} must be (low, high) with low < high, but are {value}.")
    return float(low), float(high)
