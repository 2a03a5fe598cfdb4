"""Sliders over pictures that were computed beforehand: for a static page, without a kernel.

`slider` takes controls and one `Frame` for each combination of their positions. The controls are
native range inputs, labelled, usable by keyboard; what they choose is drawn, printed and read out.
The first frame is part of the page, so that a reader without scripts sees one setting. `bars`,
`fans` and `clouds` draw the pictures as SVG.
"""

import html
import itertools
import json
import re
from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks

MAXIMUM_BYTES = 300_000
"""A slider may not be heavier: the page is read on phones."""

_STYLE = """
#NAME{background:#fff;color:#111;border:1px solid #999;border-radius:6px;padding:.75rem;
 max-width:42rem;box-sizing:border-box;font-size:1rem;line-height:1.4}
#NAME *{color:#111;box-sizing:border-box}
#NAME .row{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 .5rem}
#NAME input{width:100%;margin:.2rem 0 .7rem;accent-color:#1f66c9;min-height:1.6rem}
#NAME svg{width:100%;height:auto;display:block;background:#fff}
#NAME dl{margin:.4rem 0;display:grid;grid-template-columns:repeat(auto-fit,minmax(15.5rem,1fr));
 gap:.1rem .8rem}
#NAME dl div{display:flex;justify-content:space-between;gap:.5rem}
#NAME dt,#NAME dd{margin:0;font-weight:normal}
#NAME output,#NAME dd{font-variant-numeric:tabular-nums;font-weight:bold}
"""

_SCRIPT = """
(function(){
"use strict";
var root=document.getElementById("NAME"),frames=FRAMES,ticks=TICKS;
var inputs=root.querySelectorAll("input"),outputs=root.querySelectorAll("output");
var values=root.querySelectorAll("dd"),picture=root.querySelector("[data-picture]");
function show(){var at=0,i;
 for(i=0;i<inputs.length;i++){at=at*ticks[i].length+Number(inputs[i].value);
  outputs[i].textContent=ticks[i][inputs[i].value];
  inputs[i].setAttribute("aria-valuetext",ticks[i][inputs[i].value]);}
 picture.innerHTML=frames[at][0];
 for(i=0;i<values.length;i++){values[i].textContent=frames[at][1][i];}}
for(var k=0;k<inputs.length;k++){inputs[k].addEventListener("input",show);}
show();
})();
"""


class Frame(NamedTuple):
    """One setting.

    picture: SVG, as `bars`, `fans` and `clouds` return it.
    numbers: texts, one for each label of the slider.
    """

    picture: str
    numbers: tuple


def slider(name, controls, labels, frames, *, start=None):
    """Return HTML with one range input per control over precomputed frames.

    Args:
      name: identifier of the slider on its page, small letters and hyphens.
      controls: list of (label, ticks), ticks the texts of all positions.
      labels: what the numbers of a frame are.
      frames: one `Frame` for each combination of positions, the last control running fastest.
      start: position of each control at the start; None for the first ones.

    Returns:
      A self-contained HTML string; nothing is loaded.

    Raises:
      ValueError: for a bad name, a count that does not fit, or more than `MAXIMUM_BYTES`.

    >>> page = slider("two", [("side", ["left", "right"])], ["sum"],
    ...               [Frame(bars([1], ["a"]), ("1",)), Frame(bars([2], ["a"]), ("2",))])
    >>> page.count('type="range"'), "http" in page
    (1, False)
    """
    if not re.fullmatch(r"[a-z][a-z-]*", name):
        raise ValueError(f"name must be small letters and hyphens, but is {name!r}.")
    sizes = [len(ticks) for _, ticks in controls]
    start = [0] * len(sizes) if start is None else list(start)
    _check(sizes, labels, frames, start)
    place = int(np.ravel_multi_index(start, sizes))
    rows = "".join(
        f"<div><dt>{html.escape(label)}</dt><dd>{html.escape(text)}</dd></div>"
        for label, text in zip(labels, frames[place].numbers, strict=True)
    )
    inputs = "".join(
        _control(f"{name}-{i}", label, ticks, at)
        for i, ((label, ticks), at) in enumerate(zip(controls, start, strict=True))
    )
    stored = json.dumps([[frame.picture, list(frame.numbers)] for frame in frames])
    script = _SCRIPT.replace("NAME", name).replace("FRAMES", stored.replace("</", "<\\/"))
    script = script.replace("TICKS", json.dumps([list(ticks) for _, ticks in controls]))
    page = (
        f'<div id="{name}"><style>{_STYLE.replace("NAME", name)}</style>{inputs}'
        f'<div data-picture aria-live="polite">{frames[place].picture}</div>'
        f"<dl>{rows}</dl><noscript>The controls need JavaScript; this is one setting.</noscript>"
        f"</div><script>{script}</script>"
    )
    if len(page.encode()) > MAXIMUM_BYTES:
        raise ValueError(
            f"a slider may have {MAXIMUM_BYTES} bytes, but this one has {len(page.encode())}. Use "
            "fewer positions, or round the numbers in the pictures."
        )
    return page


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


def _control(identifier, label, ticks, at):
    return (
        f'<div class="row"><label for="{identifier}">{html.escape(label)}</label>'
        f'<output for="{identifier}">{html.escape(ticks[at])}</output></div>'
        f'<input type="range" id="{identifier}" min="0" max="{len(ticks) - 1}" step="1" '
        f'value="{at}">'
    )


def bars(heights, labels, *, top=None, colour="#4a2a86", spoken="bars"):
    """SVG of bars over labels.

    Args:
      heights: at least one, not negative.
      labels: one text below each bar; "" for none.
      top: height of the axis; None for the largest bar.
      colour: of the bars.
      spoken: what a screen reader says.

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
    width = 580 / len(heights)
    drawn = "".join(
        f"M{10 + i * width + 0.1 * width:.1f} 250v{-220 * height / (top or 1):.1f}"
        f"h{0.8 * width:.1f}V250z"
        for i, height in enumerate(heights)
    )
    texts = "".join(
        f'<text x="{10 + (i + 0.5) * width:.0f}" y="276" font-size="20" text-anchor="middle">'
        f"{html.escape(label)}</text>"
        for i, label in enumerate(labels)
        if label
    )
    return (
        f'<svg viewBox="0 0 600 286" role="img" aria-label="{html.escape(spoken)}">'
        f'<path d="{drawn}" fill="{colour}"/><path d="M6 250H594" stroke="#111"/>{texts}</svg>'
    )


def fans(past, truth, bands, *, limits, spoken):
    """SVG of a series, what came of it, and what models expected.

    Args:
      past: [context].
      truth: [horizons], what followed.
      bands: list of (lower [horizons], middle [horizons], upper [horizons], colour).
      limits: (low, high) of the vertical axis.
      spoken: what a screen reader says.

    Raises:
      ValueError: for other shapes, or values that are not finite.
    """
    past, truth = (
        _checks.finite_array(x, n, ndim=1) for x, n in ((past, "past"), (truth, "truth"))
    )
    low, high = map(float, limits)
    steps = len(past) + len(truth)

    def points(values, first):
        clipped = np.clip(values, low, high)
        return [
            f"{8 + 584 * (first + i) / (steps - 1):.0f} {262 - 250 * (v - low) / (high - low):.0f}"
            for i, v in enumerate(clipped)
        ]

    parts = ""
    for lower, middle, upper, colour in bands:
        edges = [_checks.finite_array(x, "band", ndim=1) for x in (lower, middle, upper)]
        if any(len(edge) != len(truth) for edge in edges):
            raise ValueError(
                f"a band must have {len(truth)} horizons, as the truth has, but has "
                f"{[len(edge) for edge in edges]}."
            )
        outline = points(edges[0], len(past)) + points(edges[2], len(past))[::-1]
        parts += (
            f'<path d="M{"L".join(outline)}z" fill="{colour}" fill-opacity=".3"/>'
            f'<path d="M{"L".join(points(edges[1], len(past)))}" fill="none" stroke="{colour}" '
            'stroke-width="3"/>'
        )
    seen = points(np.concatenate([past, truth]), 0)
    later = itertools.islice(seen, len(past), None)
    dots = "".join(f"M{point}h0" for point in later)
    return (
        f'<svg viewBox="0 0 600 290" role="img" aria-label="{html.escape(spoken)}">{parts}'
        f'<path d="M{"L".join(seen[: len(past)])}" fill="none" stroke="#111" stroke-width="3"/>'
        f'<path d="{dots}" fill="none" stroke="#111" stroke-width="8" stroke-linecap="round"/>'
        '<path d="M6 270H594" stroke="#111"/>'
        f'<text x="8" y="288" font-size="18">past</text>'
        f'<text x="592" y="288" font-size="18" text-anchor="end">future</text></svg>'
    )


def clouds(panels, *, truth, seen, reach, spoken):
    """SVG of clouds of points side by side, each around the same true place.

    Args:
      panels: list of (title, points [number, 2], colour).
      truth: [2], in the middle of each panel, a star.
      seen: [2], a cross.
      reach: half the width of a panel, in the units of the points; what lies beyond is left out.
      spoken: what a screen reader says.

    Raises:
      ValueError: for other shapes, values that are not finite, or a reach that is not positive.
    """
    truth, seen = (
        _checks.finite_array(x, n, ndim=1) for x, n in ((truth, "truth"), (seen, "seen"))
    )
    reach = _checks.positive_float(reach, "reach")
    side, gap, parts = 600 / len(panels) - 10, 10, ""
    for number, (title, points, colour) in enumerate(panels):
        points = _checks.finite_array(points, "points", ndim=2)
        left, middle = number * (side + gap) + gap / 2, side / 2

        def place(point, left=left, middle=middle):
            across, up = (np.asarray(point) - truth) / reach
            return f"{left + middle * (1 + across):.0f} {24 + middle * (1 - up):.0f}"

        inside = points[np.all(np.abs(points - truth) <= reach, axis=1)]
        dots = "".join(f"M{place(point)}h0" for point in inside)
        parts += (
            f'<rect x="{left:.0f}" y="24" width="{side:.0f}" height="{side:.0f}" fill="none" '
            f'stroke="#999"/><text x="{left:.0f}" y="16" font-size="19">{html.escape(title)}</text>'
            f'<path d="{dots}" stroke="{colour}" stroke-width="6" stroke-linecap="round" '
            'stroke-opacity=".5"/>'
            f'<text x="{left + middle:.0f}" y="{24 + middle + 9:.0f}" font-size="27" '
            'text-anchor="middle">★</text>'
        )
        if np.all(np.abs(seen - truth) <= reach):
            parts += (
                f'<path d="M{place(seen)}m-8 -8l16 16m0 -16l-16 16" stroke="#111" '
                'stroke-width="3"/>'
            )
    return (
        f'<svg viewBox="0 0 600 {side + 30:.0f}" role="img" aria-label="{html.escape(spoken)}">'
        f"{parts}</svg>"
    )
