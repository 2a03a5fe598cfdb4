"""The frame that all widgets share: one style, one script, controls that a keyboard reaches.

A widget is a picture that Python draws, with words below it. Without scripts that is all there is;
with them the controls appear, and `widgets.js` and the widget's own script move what they choose.
The colours are those of `figures.COLOURS`, lighter at night where dark ones cannot be seen.
"""

import html
import json
import pathlib
import re

from tfp_gaps.book.figures import COLOURS

FOLDER = pathlib.Path(__file__).parent / "scripts"

MAXIMUM_BYTES = 300_000
"""A widget may not be heavier: the page is read on phones."""

NIGHT = {
    "#c01020": "#ff7d87",
    "#1f66c9": "#7db0ff",
    "#000000": "#ced6dd",
    "#ee9a00": "#ffb545",
    "#009e8e": "#35cfbd",
    "#c080d0": "#d9a3e6",
    "#b08ad8": "#cdb0ee",
    "#4a2a86": "#a98bee",
    "#cfc3e6": "#5f5480",
}
"""What a colour of the book turns into on the dark ground of the page."""


def paint(colour):
    """CSS of a colour of the book, by its key or its value, that is light at night; others as is.

    >>> paint("shared"), paint("#009E8E"), paint("#123456")
    ('var(--tale-009e8e)', 'var(--tale-009e8e)', '#123456')
    """
    value = COLOURS.get(colour, colour).lower()
    return f"var(--tale-{value[1:]})" if value in NIGHT else value


def widget(name, content, script="", *, data=None, style=""):
    """HTML of a widget; its script finds the element as `root` and the data as `data`.

    Args:
      name: identifier on the page, small letters and hyphens.
      content: HTML; what has the attribute `data-live` appears only where scripts run.
      script: JavaScript, after the shared one.
      data: what the script needs, anything that JSON can hold.
      style: CSS beside the shared one; `#NAME` stands for the widget.

    Returns:
      A self-contained string; nothing is loaded.

    Raises:
      ValueError: for a bad name, or more than `MAXIMUM_BYTES`.
    """
    if not re.fullmatch(r"[a-z][a-z-]*", name):
        raise ValueError(f"name must be small letters and hyphens, but is {name!r}.")
    shared = (FOLDER / "widgets.js").read_text(encoding="utf-8")
    look = _colours() + (FOLDER / "widgets.css").read_text(encoding="utf-8")
    begin = f'"use strict";\nconst root = document.getElementById({literal(name)});\n'
    begin += f"const data = {literal(data)};\n"
    page = (
        f'<div class="tale" id="{name}"><style>{look}{style.replace("NAME", name)}</style>{content}'
        f"</div><script>(function () {{\n{begin}{shared}{script}}})();</script>"
    )
    if len(page.encode()) > MAXIMUM_BYTES:
        raise ValueError(
            f"a widget may have {MAXIMUM_BYTES} bytes, but this one has {len(page.encode())}. Use "
            "fewer positions, or round the numbers in the pictures."
        )
    return page


def own_script(name):
    """JavaScript of one widget, from its file."""
    return (FOLDER / f"{name}.js").read_text(encoding="utf-8")


def literal(value):
    """JavaScript of a value, safe inside of a script element."""
    return json.dumps(value).replace("</", "<\\/")


def _colours():
    """The custom properties behind `paint`, by day and by night (of the book, and of Jupyter)."""
    day = "".join(f"--tale-{colour[1:]}:{colour};" for colour in NIGHT)
    night = "".join(f"--tale-{colour[1:]}:{light};" for colour, light in NIGHT.items())
    dark = '[data-theme="dark"] .tale,[data-jp-theme-light="false"] .tale'
    return f".tale{{{day}}}{dark}{{{night}}}@media print{{.tale.tale{{{day}}}}}"


# --- parts of a widget ---------------------------------------------------------------------------


def legend(entries):
    """List of (colour, label) or (colour, label, dash pattern) with a piece of line for each.

    A pattern of dashes without length, such as "0 12", makes dots.
    """
    items = ""
    for colour, label, *dash in entries:
        cap = "round" if "".join(dash).startswith("0 ") else "butt"
        items += (
            '<li><svg viewBox="0 0 40 12" aria-hidden="true"><path d="M3 6H40" stroke-width="5" '
            f'style="stroke:{paint(colour)}" stroke-linecap="{cap}" '
            f'stroke-dasharray="{"".join(dash)}"/></svg>{html.escape(label)}</li>'
        )
    return f'<ul class="legend">{items}</ul>'


def numbers(rows):
    """List of (label, number) pairs."""
    items = (
        f"<div><dt>{html.escape(label)}</dt><dd>{html.escape(number)}</dd></div>"
        for label, number in rows
    )
    return f"<dl>{''.join(items)}</dl>"


def meters(rows, top, unit, num_ticks=5):
    """Live bars, one below the other, over one axis from 0 to `top`.

    Args:
      rows: list of (key, label, colour); the script sets a bar by its key.
      top: end of the axis.
      unit: of the axis, in words.
      num_ticks: of the axis, 0 and `top` among them.
    """
    bars = "".join(
        f'<div class="meter" data-meter="{key}"><span>{html.escape(label)}</span><span '
        f'class="track"><i style="background:{paint(colour)}"></i><b hidden></b></span>'
        '<output aria-live="off"></output></div>'
        for key, label, colour in rows
    )
    ticks = "".join(f"<span>{top * i / (num_ticks - 1):g}</span>" for i in range(num_ticks))
    return (
        f'<div class="meters" data-top="{top:g}" data-live hidden>{bars}<div class="scale" '
        f'aria-hidden="true">{ticks}</div><div class="unit">{html.escape(unit)}</div></div>'
    )


def slide(identifier, label, low, high, step, value, shown):
    """A labelled range input with its value in words beside the label."""
    return (
        f'<div class="named"><label for="{identifier}">{html.escape(label)}</label>'
        f'<output for="{identifier}" aria-live="off">{html.escape(shown)}</output></div>'
        f'<input type="range" id="{identifier}" min="{low:g}" max="{high:g}" step="{step:g}" '
        f'value="{value:g}">'
    )


def choice(name, legend_text, options):
    """Radio buttons; the first of the (value, label) options is chosen."""
    items = "".join(
        f'<label><input type="radio" name="{name}" value="{value}"'
        f"{'' if i else ' checked'}>{html.escape(label)}</label>"
        for i, (value, label) in enumerate(options)
    )
    return f"<fieldset><legend>{html.escape(legend_text)}</legend>{items}</fieldset>"


def controls(content):
    """What only works with scripts."""
    return f'<div class="controls" data-live hidden>{content}</div>'


def state(without_scripts):
    """Where the script says in words what is shown; without it, why nothing can be moved."""
    return (
        '<p class="state" role="status" aria-live="polite"></p>'
        f"<noscript><p>{html.escape(without_scripts)}</p></noscript>"
    )
