"""Figures with sliders that work in a static page, without a kernel and without a network.

`slider` shows pictures that were computed beforehand, one `Frame` for each combination of positions
of its controls; `bars`, `fans` and `clouds` draw such pictures as SVG. `bit_slider` computes its
pictures in the page. Controls are native range inputs: labelled, with an `<output>` each, usable by
keyboard; what they choose is drawn, printed and read out. `widget` is the look they share.
"""

import html
import itertools
import json
import re
from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks
from tfp_gaps.book.figures import COLOURS

MAXIMUM_BYTES = 300_000
"""A slider may not be heavier: the page is read on phones."""

CURVES = (
    ("posterior_a", "full posterior if bit = 0", ""),
    ("posterior_b", "full posterior if bit = 1", ""),
    ("marginal", "p(z | C), their mixture", ""),
    ("moment_matched", "moment-matched Gaussian", "8 4"),
    ("mode_seeking", "mode-seeking Gaussian", "2 4"),
    ("shared", "shared posterior q_C", ""),
)
"""Key into `figures.COLOURS`, label and dash pattern of each curve of the bit, as drawn."""

_STYLE = """
#NAME{background:#fff;color:#111;border:1px solid #999;border-radius:6px;padding:.75rem;
 max-width:42rem;box-sizing:border-box;font-size:1rem;line-height:1.4}
#NAME *{color:#111;box-sizing:border-box}
#NAME .row{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 .5rem}
#NAME input{width:100%;margin:.2rem 0 .7rem;accent-color:#1f66c9;min-height:1.6rem}
#NAME svg{width:100%;height:auto;display:block;background:#fff}
#NAME ul,#NAME dl{list-style:none;margin:.4rem 0;padding:0;display:grid;
 grid-template-columns:repeat(auto-fit,minmax(15.5rem,1fr));gap:.1rem .8rem}
#NAME li svg{display:inline-block;width:2rem;height:.8rem;margin-right:.4rem}
#NAME dl div{display:flex;justify-content:space-between;gap:.5rem}
#NAME dt,#NAME dd{margin:0;font-weight:normal}
#NAME output,#NAME dd{font-variant-numeric:tabular-nums;font-weight:bold}
"""

# `frame` returns [picture, numbers] for the texts and the joint position of the controls.
_SCRIPT = """
var inputs=root.querySelectorAll("input"),outputs=root.querySelectorAll("output");
var values=root.querySelectorAll("dd"),picture=root.querySelector("[data-picture]");
function show(){var at=0,texts=[],i,now;
 for(i=0;i<inputs.length;i++){at=at*ticks[i].length+Number(inputs[i].value);
  texts.push(ticks[i][inputs[i].value]);outputs[i].textContent=texts[i];
  inputs[i].setAttribute("aria-valuetext",texts[i]);}
 now=frame(texts,at);picture.innerHTML=now[0];
 for(i=0;i<values.length;i++){values[i].textContent=now[1][i];}}
for(var k=0;k<inputs.length;k++){inputs[k].addEventListener("input",show);}
show();
"""

# Names: m is half the distance, s the width; n evaluates a normal density. The mode-seeking
# Gaussian comes from a search over its mean and width that starts at the centre and at one mode.
_BIT = """
var MAX=8,POINTS=801;
function n(z,a,b){return Math.exp(-0.5*Math.pow((z-a)/b,2))/(b*Math.sqrt(2*Math.PI));}
function integral(f,reach){var sum=0,h=2*reach/4000,i;
 for(i=0;i<=4000;i++){sum+=f(-reach+i*h);}return sum*h;}
function cost(a,b,m,s){var sum=0,h=0.06,e,z,u,v,top;
 for(e=-7.2;e<7.23;e+=h){z=a+b*e;u=-0.5*Math.pow((z-m)/s,2);v=-0.5*Math.pow((z+m)/s,2);
  top=Math.max(u,v);
  sum-=h*n(e,0,1)*(top+Math.log(0.5*(Math.exp(u-top)+Math.exp(v-top)))-Math.log(s));}
 return sum-Math.log(b);}
function seek(a,b,m,s,moves){var step=0.5,now=cost(a,b,m,s),better,i,trial;
 while(step>1e-6){better=false;
  for(i=0;i<4;i++){
   var x=a+(i===0?step*b:i===1?-step*b:0)*moves,y=b*Math.exp(i===2?step:i===3?-step:0);
   trial=cost(x,y,m,s);
   if(trial<now-1e-12){a=x;b=y;now=trial;better=true;}}
  if(!better){step/=2;}}
 return [a,b,now];}
function numbers(m,s){
 var mix=function(z){return 0.5*(n(z,m,s)+n(z,-m,s));},reach=m+9*s;
 var entropy=integral(function(z){var p=mix(z);return p>0?-p*Math.log(p):0;},reach);
 return [integral(function(z){return Math.min(n(z,m,s),n(z,-m,s));},reach),s,Math.sqrt(s*s+m*m),
  Math.max(0,entropy-0.5*Math.log(2*Math.PI*Math.E*s*s)),m*m/(2*s*s)];}
function frame(texts){
 var m=texts[0]/2,s=+texts[1],found=numbers(m,s),sd=found[2],drawn=svg,top=n(0,0,s),key;
 var wide=seek(0,sd,m,s,0),narrow=seek(-m,s,m,s,1);
 var best=narrow[2]<wide[2]-1e-9?narrow:wide;
 var curves={posterior_a:function(z){return n(z,-m,s);},posterior_b:function(z){return n(z,m,s);},
  marginal:function(z){return 0.5*(n(z,m,s)+n(z,-m,s));},
  moment_matched:function(z){return n(z,0,sd);},
  mode_seeking:function(z){return n(z,best[0],best[1]);},shared:function(z){return n(z,0,s);}};
 for(key in curves){
  var path="",i,z;
  for(i=0;i<POINTS;i++){z=-MAX+2*MAX*i/(POINTS-1);
   path+=(i?"L":"M")+(300+z*36).toFixed(1)+" "+(250-225*curves[key](z)/top).toFixed(1);}
  drawn=drawn.replace("{"+key+"}",path);}
 drawn=drawn.replace("{spoken}","Two full posteriors with means "+
  (-m).toFixed(2)+" and "+m.toFixed(2)+" and width "+s.toFixed(2)+
  ". The shared posterior is centred at 0 with width "+s.toFixed(2)+
  "; the mixture has standard deviation "+sd.toFixed(2)+
  "; the mode-seeking Gaussian has mean "+best[0].toFixed(2)+" and width "+best[1].toFixed(2)+
  "; the conditioning gap is "+found[4].toFixed(2)+" nats.");
 return [drawn,found.map(function(x){return x.toFixed(x<100?3:1);})];}
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
    stored = [[frame.picture, list(frame.numbers)] for frame in frames]
    return _sliders(
        name,
        zip(controls, start, strict=True),
        frames[int(np.ravel_multi_index(start, sizes))],
        labels,
        f"var frames={_literal(stored)};function frame(texts,at){{return frames[at];}}",
        noscript="The controls need JavaScript; this is one setting.",
    )


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
      distance: between the two means at the start, in [0, 8], in steps of .1.
      width: standard deviation of both full posteriors at the start, in [.2, 2], in steps of .05.

    Returns:
      A self-contained HTML string; nothing is loaded.

    Raises:
      ValueError: if a start value lies outside its slider.

    >>> page = bit_slider()
    >>> page.count('type="range"'), "http" in page
    (2, False)
    """
    distances, widths = np.linspace(0, 8, 81), np.linspace(0.2, 2, 37)
    controls = [
        ("Distance between the two means", [f"{x:.1f}" for x in distances]),
        ("Width of both (sd)", [f"{x:.2f}" for x in widths]),
    ]
    start = [_nearest(distances, distance, "distance"), _nearest(widths, width, "width")]
    labels = (
        "overlap of the two",
        "sd of the shared posterior",
        "sd of p(z | C)",
        "missing information, nats",
        "conditioning gap, nats",
    )
    return _sliders(
        "bit-slider",
        zip(controls, start, strict=True),
        Frame("", [""] * len(labels)),
        labels,
        f"var svg={_literal(_bit_picture())};{_BIT}",
        noscript="This figure needs JavaScript; the figures above show two of its settings.",
        legend=_legend(),
    )


def _nearest(ticks, value, name):
    """Position of the tick next to a start value."""
    value = float(_checks.finite_array(value, name, ndim=0))
    if not ticks[0] <= value <= ticks[-1]:
        raise ValueError(
            f"{name} must lie between {ticks[0]:g} and {ticks[-1]:g}, the ends of its slider, but "
            f"is {value:g}. Choose a start within them."
        )
    return int(np.argmin(np.abs(ticks - value)))


def _bit_picture():
    """The axis and the curves, with the names of what the script fills in; text is large, since
    phones show it at half size."""
    ticks = "".join(
        f'<path d="M{300 + 36 * z} 250v6" stroke="#111"/>'
        + text(300 + 36 * z, 278, str(z), 21, "middle")
        for z in range(-8, 9, 4)
    )
    paths = "".join(
        f'<path d="{{{key}}}" fill="none" stroke="{COLOURS[key]}" stroke-width="3.5" '
        f'stroke-dasharray="{dashes}"/>'
        for key, _, dashes in CURVES
    )
    axis = '<path d="M6 250H594" stroke="#111"/>'
    label = text(300, 301, "z (all heights rescaled together)", 21, "middle")
    return svg(600, 312, f"{axis}{ticks}{label}{paths}", "{spoken}")


def _legend():
    items = "".join(
        '<li><svg viewBox="0 0 40 12" aria-hidden="true"><path d="M0 6H40" '
        f'stroke="{COLOURS[key]}" stroke-width="4" stroke-dasharray="{dashes}"/></svg>'
        f"{html.escape(label)}</li>"
        for key, label, dashes in CURVES
    )
    return f"<ul>{items}</ul>"


# --- what all widgets share ----------------------------------------------------------------------


def widget(name, content, script, style=""):
    """HTML of a framed part of the page with its own style and script, which finds it as `root`."""
    script = f'"use strict";var root=document.getElementById("{name}");{script}'
    return (
        f'<div id="{name}"><style>{(_STYLE + style).replace("NAME", name)}</style>{content}</div>'
        f"<script>(function(){{{script}}})();</script>"
    )


def numbers(rows):
    """HTML of a list of (label, number) pairs."""
    items = (
        f"<div><dt>{html.escape(label)}</dt><dd>{html.escape(number)}</dd></div>"
        for label, number in rows
    )
    return f"<dl>{''.join(items)}</dl>"


def _sliders(name, controls, first, labels, script, *, noscript, legend=""):
    """A widget with one range input for each ((label, ticks), start) of `controls`."""
    controls = list(controls)
    inputs = "".join(
        f'<div class="row"><label for="{name}-{i}">{html.escape(label)}</label>'
        f'<output for="{name}-{i}">{html.escape(ticks[at])}</output></div>'
        f'<input type="range" id="{name}-{i}" min="0" max="{len(ticks) - 1}" value="{at}">'
        for i, ((label, ticks), at) in enumerate(controls)
    )
    content = (
        f'{inputs}<div data-picture aria-live="polite">{first.picture}</div>{legend}'
        f"{numbers(zip(labels, first.numbers, strict=True))}"
        f"<noscript>{noscript}</noscript>"
    )
    ticks = _literal([list(ticks) for (_, ticks), _ in controls])
    page = widget(name, content, f"var ticks={ticks};{script}{_SCRIPT}")
    if len(page.encode()) > MAXIMUM_BYTES:
        raise ValueError(
            f"a slider may have {MAXIMUM_BYTES} bytes, but this one has {len(page.encode())}. Use "
            "fewer positions, or round the numbers in the pictures."
        )
    return page


def _literal(value):
    """JavaScript of a value, safe inside of a script element."""
    return json.dumps(value).replace("</", "<\\/")


# --- pictures ------------------------------------------------------------------------------------


def svg(width, height, content, spoken):
    """An SVG that a screen reader reads as `spoken`."""
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{html.escape(spoken)}">{content}</svg>'
    )


def text(x, y, words, size, anchor="start"):
    """SVG of a text; `anchor` says which part of it is at x."""
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" text-anchor="{anchor}">'
        f"{html.escape(words)}</text>"
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
        text(10 + (i + 0.5) * width, 276, label, 20, "middle")
        for i, label in enumerate(labels)
        if label
    )
    axis = '<path d="M6 250H594" stroke="#111"/>'
    return svg(600, 286, f'<path d="{drawn}" fill="{colour}"/>{axis}{texts}', spoken)


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
    parts += (
        f'<path d="M{"L".join(seen[: len(past)])}" fill="none" stroke="#111" stroke-width="3"/>'
        f'<path d="{dots}" fill="none" stroke="#111" stroke-width="8" stroke-linecap="round"/>'
        '<path d="M6 270H594" stroke="#111"/>'
    )
    return svg(
        600, 290, parts + text(8, 288, "past", 18) + text(592, 288, "future", 18, "end"), spoken
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
            f'stroke="#999"/>{text(left, 16, title, 19)}'
            f'<path d="{dots}" stroke="{colour}" stroke-width="6" stroke-linecap="round" '
            f'stroke-opacity=".5"/>{text(left + middle, 24 + middle + 9, "★", 27, "middle")}'
        )
        if np.all(np.abs(seen - truth) <= reach):
            parts += (
                f'<path d="M{place(seen)}m-8 -8l16 16m0 -16l-16 16" stroke="#111" '
                'stroke-width="3"/>'
            )
    return svg(600, side + 30, parts, spoken)
