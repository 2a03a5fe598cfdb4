"""Figures with sliders that work in a static page, without a kernel and without a network.

`slider` shows pictures that were computed beforehand, one `Frame` for each combination of positions
of its controls; `bars`, `fans` and `clouds` draw such pictures, with axes, as SVG. `bit_slider`
computes its curves in the page. Controls are native range inputs: labelled, with an `<output>`
each, usable by keyboard; what they choose is drawn, printed and said in words. The look and the
script are those of all widgets (`page`, `drawing`).
"""

from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks
from tfp_gaps.book.figures import drawing, page
from tfp_gaps.exact.bit import Bit

CURVES = (
    ("posterior_a", "full posterior if bit = 0", ""),
    ("posterior_b", "full posterior if bit = 1", ""),
    ("marginal", "p(z | C), their mixture", ""),
    ("moment_matched", "moment-matched Gaussian", "8 4"),
    ("mode_seeking", "mode-seeking Gaussian", "2 4"),
    ("shared", "shared posterior q_C", ""),
)
"""Key into `figures.COLOURS`, label and dash pattern of each curve of the bit, as drawn."""

_FAN = 0.3
"""Opacity of a band, so that two that overlap can both be seen."""


class Frame(NamedTuple):
    """One setting.

    picture: SVG, as `bars`, `fans` and `clouds` return it.
    numbers: texts, one for each label of the slider.
    """

    picture: str
    numbers: tuple


def slider(name, controls, labels, frames, *, start=None, legend=()):
    """Return HTML with one range input per control over precomputed frames.

    Args:
      name: identifier of the slider on its page, small letters and hyphens.
      controls: list of (label, ticks), ticks the texts of all positions.
      labels: what the numbers of a frame are.
      frames: one `Frame` for each combination of positions, the last control running fastest.
      start: position of each control at the start; None for the first ones.
      legend: list of (colour, label), the colours of the pictures.

    Returns:
      A self-contained HTML string; nothing is loaded.

    Raises:
      ValueError: for a bad name, a count that does not fit, or more than `page.MAXIMUM_BYTES`.

    >>> shown = slider("two", [("side", ["left", "right"])], ["sum"],
    ...                [Frame(bars([1], ["a"]), ("1",)), Frame(bars([2], ["a"]), ("2",))])
    >>> shown.count('type="range"'), "http" in shown
    (1, False)
    """
    sizes = [len(ticks) for _, ticks in controls]
    start = [0] * len(sizes) if start is None else list(start)
    _check(sizes, labels, frames, start)
    first = frames[int(np.ravel_multi_index(start, sizes))]
    inputs = "".join(
        page.slide(f"{name}-{i}", label, 0, len(ticks) - 1, 1, at, ticks[at])
        for i, ((label, ticks), at) in enumerate(zip(controls, start, strict=True))
    )
    content = (
        drawing.picture(first.picture)
        + (page.legend(legend) if legend else "")
        + page.controls(inputs)
        + page.numbers(zip(labels, first.numbers, strict=True))
        + page.state("The controls need JavaScript; this is one setting.")
    )
    data = {
        "ticks": [list(ticks) for _, ticks in controls],
        "frames": [[frame.picture, list(frame.numbers)] for frame in frames],
    }
    return page.widget(name, content, page.own_script("frames"), data=data)


def _check(sizes, labels, frames, start):
    expected = int(np.prod(sizes))
    if not sizes or min(sizes) < 2 or len(frames) != expected:
        raise ValueError(
            f"controls with {sizes} positions, each at least two, need {expected} frames, but got "
            f"{len(frames)}."
        )
    short = [frame for frame in frames if len(frame.numbers) != len(labels)]
    if short:
        raise ValueError(
            f"each frame must have {len(labels)} numbers, one for each of {list(labels)}, but one "
            f"has {len(short[0].numbers)}."
        )
    if len(start) != len(sizes) or not all(0 <= at < n for at, n in zip(start, sizes, strict=True)):
        raise ValueError(f"start must be a position of each control {sizes}, but is {start}.")


def bit_slider(distance=4.0, width=0.5):
    """Return HTML with two sliders, distance d and width s, over the curves of the bit.

    For two equally likely full posteriors N(-d/2, s^2) and N(d/2, s^2), see `exact.bit`, a script
    in the page draws the curves and prints sd(q_C) = s, sd(p(z|C)) = sqrt(s^2 + d^2/4), the gap
    d^2/(8 s^2) and, by the trapezoidal rule, overlap and missing information.

    Args:
      distance: between the two means at the start, in [0, 8].
      width: standard deviation of both full posteriors at the start, in [.2, 2].

    Returns:
      A self-contained HTML string; nothing is loaded.

    Raises:
      ValueError: if a start value lies outside its slider.

    >>> shown = bit_slider()
    >>> shown.count('type="range"'), "http" in shown
    (2, False)
    """
    distance = _within(distance, "distance", 0, 8)
    width = _within(width, "width", 0.2, 2)
    world = Bit([-distance / 2, distance / 2], [width, width], [0.5, 0.5])
    content = (
        drawing.picture(_bit_picture(world))
        + page.legend([(key, label, dashes) for key, label, dashes in CURVES])
        + page.controls(
            page.slide(
                "bit-distance",
                "Distance between the two means",
                0,
                8,
                0.1,
                distance,
                f"{distance:.1f}",
            )
            + page.slide("bit-width", "Width of both (sd)", 0.2, 2, 0.05, width, f"{width:.2f}")
        )
        + page.numbers(_bit_numbers(world))
        + page.state("The controls need JavaScript; this is one setting.")
    )
    script = page.own_script("formulas") + page.own_script("bit_slider")
    return page.widget("bit-slider", content, script)


def _bit_numbers(world):
    """What the script prints, at the start."""
    values = (
        ("overlap of the two", world.overlap()),
        ("sd of the shared posterior", world.shared_posterior().scale),
        ("sd of p(z | C)", world.moment_matched().scale),
        ("missing information, nats", world.mutual_information()),
        ("conditioning gap, nats", world.conditioning_gap()),
    )
    return [(label, f"{float(value):.3f}") for label, value in values]


def _within(value, name, low, high):
    """A start value as a float."""
    value = float(_checks.finite_array(value, name, ndim=0))
    if not low <= value <= high:
        raise ValueError(
            f"{name} must lie between {low:g} and {high:g}, the ends of its slider, but is "
            f"{value:g}. Choose a start within them."
        )
    return value


def _bit_picture(world):
    """The curves at the start."""
    axes = drawing.Axes((-8, 8), (0, 1.05))
    z = np.linspace(*axes.across, 401)
    laws = {
        "marginal": world.marginal_posterior(),
        "moment_matched": world.moment_matched(),
        "mode_seeking": world.mode_seeking(),
        "shared": world.shared_posterior(),
    }
    full = world.full_posteriors().prob(z[:, np.newaxis]).numpy().T
    densities = {"posterior_a": full[0], "posterior_b": full[1]}
    densities |= {key: law.prob(z).numpy() for key, law in laws.items()}
    peak = float(world.shared_posterior().prob(world.shared_posterior().loc))
    drawn = "".join(
        axes.line(z, densities[key] / peak, key, dash=dashes, key=key) for key, _, dashes in CURVES
    )
    spoken = (
        "Densities over z: two full posteriors, their mixture, its moment-matched and its "
        "mode-seeking Gaussian, and the shared posterior."
    )
    framed = axes.frame("latent z", "density (the highest is 1)", drawn)
    return drawing.svg(axes.bottom, framed, spoken)


# --- pictures ------------------------------------------------------------------------------------


def bars(heights, labels, *, top=None, colour="full", spoken="bars", across="", up=""):
    """SVG of bars over labels.

    Args:
      heights: at least one, not negative.
      labels: one text below each bar; "" for none.
      top: height of the axis; None for the largest bar.
      colour: of the bars.
      spoken: what a screen reader says.
      across, up: names of the axes, with units.

    Raises:
      ValueError: for heights that are negative, not finite, or above `top`, or other labels.
    """
    heights = _checks.finite_array(heights, "heights", ndim=1)
    top = float(heights.max()) if top is None else float(top)
    if len(labels) != len(heights) or heights.min() < 0 or heights.max() > top * (1 + 1e-9):
        raise ValueError(
            f"heights must lie between 0 and {top:g} and have a label each, but are "
            f"{heights.min():g} to {heights.max():g} with {len(labels)} labels for {len(heights)}."
        )
    axes = drawing.Axes((0, len(heights)), (0, top or 1))
    middles = np.arange(len(heights)) + 0.5
    corners = [middles - 0.4, middles - 0.4, middles + 0.4, middles + 0.4]
    zero = np.zeros_like(heights)
    drawn = "".join(
        f"M{'L'.join(axes.place(x, y))}z"
        for x, y in zip(
            np.transpose(corners), np.transpose([zero, heights, heights, zero]), strict=True
        )
    )
    bar = f'<path d="{drawn}" style="fill:{page.paint(colour)}"/>'
    ticks = [(x, label) for x, label in zip(middles, labels, strict=True) if label]
    return drawing.svg(axes.bottom, axes.frame(across, up, bar, ticks=ticks), spoken)


def fans(
    past, truth, bands, *, limits, spoken, step=1.0, across="steps from the last one seen", up=""
):
    """SVG of a series, what came of it, and what models expected.

    Args:
      past: [context].
      truth: [horizons], what followed.
      bands: list of (lower [horizons], middle [horizons], upper [horizons], colour).
      limits: (low, high) of the vertical axis.
      spoken: what a screen reader says.
      step: length of a step in units of the horizontal axis, on which the last step seen is zero.
      across, up: names of the axes, with units.

    Raises:
      ValueError: for other shapes, or values that are not finite.
    """
    past, truth = (
        _checks.finite_array(x, n, ndim=1) for x, n in ((past, "past"), (truth, "truth"))
    )
    length = _checks.positive_float(step, "step")
    before, after = length * np.arange(1 - len(past), 1), length * np.arange(1, len(truth) + 1)
    axes = drawing.Axes((before[0], after[-1]), drawing.limits(limits, "limits"))
    drawn = ""
    for lower, middle, upper, colour in bands:
        edges = [_checks.finite_array(x, "band", ndim=1) for x in (lower, middle, upper)]
        if any(len(edge) != len(truth) for edge in edges):
            raise ValueError(
                f"a band must have {len(truth)} horizons, as the truth has, but has "
                f"{[len(edge) for edge in edges]}."
            )
        drawn += axes.band(after, edges[0], edges[2], colour, opacity=_FAN)
        drawn += axes.line(after, edges[1], colour)
    drawn += axes.line(before, past, "truth") + axes.dots(after, truth, "truth")
    return drawing.svg(axes.bottom, axes.frame(across, up, drawn), spoken)


def clouds(panels, *, truth, seen, reach, spoken, across="from the truth"):
    """SVG of clouds of points side by side, each around the same true place.

    Args:
      panels: list of (title, points [number, 2], colour).
      truth: [2], in the middle of each panel, a star.
      seen: [2], a cross.
      reach: half the width of a panel, in the units of the points; what lies beyond is left out.
      spoken: what a screen reader says.
      across: name of both axes, with their unit.

    Raises:
      ValueError: for other shapes, values that are not finite, or a reach that is not positive.
    """
    truth, seen = (
        _checks.finite_array(x, n, ndim=1) for x, n in ((truth, "truth"), (seen, "seen"))
    )
    reach = _checks.positive_float(reach, "reach")
    room, margin = drawing.WIDTH // max(1, len(panels)), 66
    side, parts, bottom = room - margin - 8, "", 0
    for place, (title, points, colour) in enumerate(panels):
        offsets = _checks.finite_array(points, "points", ndim=2) - truth
        inside = offsets[np.all(np.abs(offsets) <= reach, axis=1)]
        axes = drawing.Axes((-reach, reach), (-reach, reach), side, place * room + margin, side)
        drawn = axes.dots(*inside.T, colour, size=6, opacity=0.5)
        for offset, sign in ((seen - truth, "×"), (np.zeros(2), "★")):
            x, y = axes.place(*offset[:, np.newaxis])[0].split(" ")
            drawn += f'<text x="{x}" y="{y}" dy=".35em" text-anchor="middle">{sign}</text>'
        ticks = [(at, drawing.number(at)) for at in (-reach / 2, 0.0, reach / 2)]
        parts += axes.frame(across, title, drawn, ticks=ticks)
        bottom = axes.bottom
    marks = drawing.text(drawing.WIDTH / 2, bottom + 22, "★ truth, × observation", "middle")
    return drawing.svg(bottom + 32, parts + marks, spoken)
