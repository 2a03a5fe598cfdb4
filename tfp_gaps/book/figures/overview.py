"""The overview of gaps: from the evidence down to the ELBO, and the four distances between them.

    ln p(x) - L[q] = approximation + conditioning + capacity + optimisation,

as levels with a box between each two (`gaps.measure` has the numbers; the boxes are not to scale).
Large, it opens the book; small, it heads every chapter with the part lit that the chapter is about
(`PLACES`). Text is text, colours are those of the figures, and what is black here follows the
page's own colour, so that one drawing suits day and night.
"""

from html import escape

from tfp_gaps.book.figures import gaps
from tfp_gaps.gaps import PARTS

AMORTISATION = ("capacity", "optimisation")
PLACES = {
    "elbo": PARTS,
    "approximation": ("approximation",),
    "amortisation": AMORTISATION,
    "conditioning": ("conditioning",),
    "half-an-image": ("conditioning",),
    "simulators": ("conditioning",),
    "linear-gaussian": ("conditioning",),
    "learning": ("conditioning",),
    "digits": ("conditioning",),
    "real-data": ("conditioning",),
    "literature": ("conditioning",),
    "kl-balancing": ("conditioning",),
    "control": ("conditioning",),
    "world-models": ("conditioning",),
    "remedies": PARTS,
    "your-model": PARTS,
    "your-sequences": ("conditioning",),
}
"""The parts that each chapter is about, by the name of its page."""

_CHAPTERS = dict(
    zip(PARTS, ("approximation", "conditioning", "amortisation", "amortisation"), strict=True)
)
_CAUSES = dict(
    zip(
        PARTS,
        (
            "the family is too small",
            "the network is not shown everything",
            "the network is too small",
            "it is not trained to its best",
        ),
        strict=True,
    )
)
_LEVELS = (
    ("evidence", "ln p(x)"),
    ("best q of the family", "for each x by itself"),
    ("best q of the family", "that is shown only C"),
    ("best network", "of this size"),
    ("ELBO", "of the network at hand"),
)


def drawing():
    """The whole overview as one SVG element; each part, and each end, leads to its chapter.

    >>> drawing().count("<a ")
    7
    """
    left, right, top, step = 40, 284, 24, 68
    shapes = ""
    for row, part in enumerate(PARTS):
        y = top + row * step
        words = _text(162, y + 30, f"{part} gap", "part", "middle")
        words += _text(162, y + 51, _CAUSES[part], "cause", "middle")
        box = _box(part, left, y, right - left, step, opacity=0.28)
        shapes += _link(_CHAPTERS[part], box + words)
    for row, (name, what) in enumerate(_LEVELS):
        y = top + row * step
        words = _text(right + 14, y - 3, name, "level") + _text(right + 14, y + 14, what, "cause")
        is_end = row in (0, len(PARTS))
        shapes += _line(left - 8, y, right + 10, 3 if is_end else 1)
        shapes += _link("elbo", words) if is_end else words
    first, last = top + 2 * step, top + 4 * step
    brace = f'<path d="M34 {first + 3}H26V{last - 3}H34" fill="none" stroke="currentColor"/>'
    middle = (first + last) // 2
    turned = f'<g transform="rotate(-90 16 {middle})">{_text(16, middle, *_TURNED)}</g>'
    shapes += _link("amortisation", brace + turned)
    return _svg(460, top + 4 * step + 24, shapes, "gaps-overview", "Overview of gaps", "gaps-large")


_TURNED = ("amortisation gap", "level", "middle")


def here(lit):
    """The small overview at the head of a chapter, as one SVG element.

    Args:
      lit: names in `gaps.PARTS`, the parts that the chapter is about.

    Raises:
      ValueError: if one of them is no part, or there is none.

    >>> here(["conditioning"]).count("gaps-lit")
    1
    """
    unknown = set(lit) - set(PARTS)
    if unknown or not lit:
        raise ValueError(f"lit must name some of {', '.join(PARTS)}, but is {list(lit)}.")
    left, right, top, step = 8, 190, 14, 25
    shapes = ""
    for row, part in enumerate(PARTS):
        y, is_lit = top + row * step, part in lit
        box = _box(part, left, y, right - left, step, opacity=0.35 if is_lit else 0.07)
        kind = "small gaps-lit" if is_lit else "small"
        words = _text(99, y + 17, f"{part} gap", kind, "middle")
        shapes += _link(_CHAPTERS[part], box + words)
    for row in range(len(_LEVELS)):
        is_end = row in (0, len(PARTS))
        shapes += _line(left - 4, top + row * step, right + 6, 2.5 if is_end else 1)
    shapes += _link("elbo", _text(right + 12, top + 4, "evidence", "small"))
    shapes += _link("elbo", _text(right + 12, top + 4 * step + 4, "ELBO", "small"))
    rows = [row for row, part in enumerate(PARTS) if part in lit]
    middle = top + step * (rows[0] + rows[-1] + 1) / 2
    shapes += _text(right + 12, middle + 4, "◂ you are here", "small gaps-here")
    parts = "all four parts" if len(rows) == len(PARTS) else " and ".join(lit)
    title = f"Where this chapter is in the overview of gaps: {parts}"
    return _svg(300, top + 4 * step + 14, shapes, "gaps-here", title, "gaps-small")


def _svg(width, height, shapes, name, title, kind):
    parts = "; ".join(f"{part}, because {_CAUSES[part]}" for part in PARTS)
    story = (
        "Between the evidence ln p(x) at the top and the ELBO at the bottom lie four distances, "
        f"from top to bottom: {parts}. Capacity and optimisation together are the amortisation gap."
    )
    return (
        f'<svg class="gaps-drawing {kind}" viewBox="0 0 {width} {height}" role="group" '
        f'aria-labelledby="{name}-title {name}-story" xmlns="http://www.w3.org/2000/svg">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-story">{escape(story)}</desc>{shapes}</svg>'
    )


_SIZES = {"part": (16, 700), "cause": (13, 400), "level": (14, 600), "small": (13, 400)}


def _text(x, y, words, kind, anchor="start"):
    size, weight = _SIZES[kind.split()[0]]
    weight = 700 if "gaps-lit" in kind else weight
    return (
        f'<text x="{x}" y="{y:g}" class="gaps-{kind}" text-anchor="{anchor}" font-size="{size}" '
        f'font-weight="{weight}" fill="currentColor">{escape(words)}</text>'
    )


def _box(part, x, y, width, height, opacity):
    colour = gaps.COLOURS[part] if part not in AMORTISATION else "currentColor"
    # A grey of the page's own colour looks stronger than a hue of the same opacity.
    opacity = opacity if part not in AMORTISATION else 0.55 * opacity
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{colour}" '
        f'fill-opacity="{opacity:.3g}"/>'
    )


def _line(start, y, end, width):
    return f'<path d="M{start} {y}H{end}" stroke="currentColor" stroke-width="{width}"/>'


def _link(page, content):
    return f'<a href="{page}.html">{content}</a>'
