"""Graphical models of q: which arrows reach z, and which are missing, as small SVGs.

On a sequence z_t may depend on z_{t-1} and on the observations from x_{t-1} to x_{t+2}; the arrows
are those of a row of `exact.conditions.Conditions`. Without time z depends on the part of x that is
shown, C, and on the part that is not. What q does not see is dashed; teal marks a q that sees
nothing later, light purple one that sees a part of it, purple one that sees everything, as in the
other figures.
"""

from html import escape
from typing import NamedTuple

from tfp_gaps.book import literature
from tfp_gaps.book.figures import COLOURS
from tfp_gaps.exact.conditions import conditions

_STEPS = 4
_NOW = 1
"""Row of the conditions that is drawn: one step before it, two after."""

RULES = {
    "partial": {"first": None, "last": 0},
    "look-ahead": {"first": None, "last": 1},
    "full": {"first": None, "last": None},
}
"""The q of the book, as arguments of `exact.conditions.conditions`."""

SPLITS = {"told C": False, "told everything": True}
"""The q without time: whether it sees what is left out of C."""


NAMES = (*RULES, *literature.SCHEMES, *SPLITS)
"""What `graph` can draw."""


class _Node(NamedTuple):
    x: int
    y: int
    label: str
    seen: bool
    spoken: str


def graph(name):
    """The graphical model of one q as an SVG element.

    Args:
      name: in `NAMES`: of `RULES`, of `literature.SCHEMES`, or of `SPLITS`.

    Raises:
      ValueError: for another name.

    >>> graph("partial").count("gaps-missing"), graph("full").count("gaps-missing")
    (2, 0)
    """
    if name in SPLITS:
        return _static(name)
    rule = RULES.get(name) or literature.SCHEMES.get(name)
    if rule is None:
        raise ValueError(f"name must be one of {'; '.join(NAMES)}, but is {name!r}.")
    seen = conditions(_STEPS, **rule)
    labels = ("x", "t−1"), ("x", "t"), ("x", "t+1"), ("x", "t+2")
    nodes = [
        _Node(28 + 54 * place, 24, _indexed(*label), bool(is_seen), "".join(label))
        for place, (label, is_seen) in enumerate(zip(labels, seen.observations[_NOW], strict=True))
    ]
    earlier = bool(seen.latents[_NOW, _NOW - 1])
    nodes.append(_Node(28, 92, _indexed("z", "t−1"), earlier, "z t−1"))
    return _draw(name, nodes, (82, 92), _indexed("z", "t"), 218)


def _static(name):
    hidden = '<tspan text-decoration="overline">C</tspan>'
    nodes = [
        _Node(46, 24, "C", True, "C"),
        _Node(116, 24, hidden, SPLITS[name], "the rest"),
    ]
    return _draw(name, nodes, (81, 92), "z", 162)


def _draw(name, nodes, target, label, width):
    sees = [node.spoken for node in nodes if node.seen]
    lacks = [node.spoken for node in nodes if not node.seen]
    spoken = f"q, {name}: z depends on {', '.join(sees)}"
    spoken += f"; the arrows from {', '.join(lacks)} are missing." if lacks else "; none is missing"
    kind = "partial" if lacks else "full"
    if lacks and any("t+" in node for node in sees):
        kind = "semi"
    shapes = "".join(_arrow(node, target) + _circle(node) for node in nodes)
    x, y = target
    shapes += (
        f'<circle class="gaps-{kind}" cx="{x}" cy="{y}" r="17" fill="{COLOURS[kind]}" '
        f'fill-opacity="0.3" stroke="{COLOURS[kind]}" stroke-width="2.5"/>{_label(x, y, label)}'
    )
    return (
        f'<svg class="gaps-graph" viewBox="0 0 {width} 116" width="{width}" role="img" '
        f'aria-label="{escape(spoken)}" xmlns="http://www.w3.org/2000/svg">{shapes}</svg>'
    )


def _circle(node):
    faint = "" if node.seen else ' opacity="0.6" stroke-dasharray="3 3"'
    ring = f'<circle cx="{node.x}" cy="{node.y}" r="17" fill="none" stroke="currentColor"{faint}/>'
    return ring + _label(node.x, node.y, node.label)


def _arrow(node, target):
    """A line from rim to rim, with a head; dashed and without one where q does not see."""
    away, down = target[0] - node.x, target[1] - node.y
    length = (away**2 + down**2) ** 0.5
    away, down = away / length, down / length
    start = f"{node.x + 18 * away:.1f} {node.y + 18 * down:.1f}"
    tip_x, tip_y = target[0] - 20 * away, target[1] - 20 * down
    line = f'd="M{start}L{tip_x:.1f} {tip_y:.1f}" stroke="currentColor" fill="none"'
    if not node.seen:
        return f'<path class="gaps-missing" {line} stroke-dasharray="4 4" opacity="0.6"/>'
    back_x, back_y = tip_x - 9 * away, tip_y - 9 * down
    head = (
        f"M{tip_x:.1f} {tip_y:.1f}L{back_x - 4 * down:.1f} {back_y + 4 * away:.1f}"
        f"L{back_x + 4 * down:.1f} {back_y - 4 * away:.1f}Z"
    )
    return f'<path {line} stroke-width="1.8"/><path d="{head}" fill="currentColor"/>'


def _indexed(letter, index):
    return f'{letter}<tspan font-size="10" dy="4">{index}</tspan>'


def _label(x, y, label):
    return (
        f'<text x="{x}" y="{y + 4}" text-anchor="middle" font-size="14" font-style="italic" '
        f'fill="currentColor">{label}</text>'
    )
