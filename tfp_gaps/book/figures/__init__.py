"""One look for every figure of the book, and the words that go with it.

`style` sets size, fonts and lines; `COLOURS` gives each quantity one colour through the whole book,
as in the post: the two full posteriors are red and blue, the marginal posterior black, its Gaussian
approximation orange, the shared posterior teal. `show` displays a figure together with its name,
caption and alt text, so that all three can hold computed values. The colours stay apart for readers
with any of the three common colour-vision deficiencies (Machado, Oliveira, Fernandes 2009); the
tests measure it.
"""

import io
import re

import matplotlib
import matplotlib.figure
import matplotlib.pyplot as plt
from cycler import cycler

from tfp_gaps.book.figures.plotted import plotted
from tfp_gaps.tables import true_minus

WIDTH = 6.0
"""Width of a figure in inches: the text column of the page, and one third of it on a phone."""

DPI = 200
"""Pixels per inch of the stored PNG: twice what the page shows, for sharp screens."""

MINIMUM_ALT_LENGTH = 40
"""A shorter alt text names the figure; it does not say what the figure shows."""

COLOURS = {
    "posterior_a": "#c01020",  # red
    "posterior_b": "#1f66c9",  # blue
    "marginal": "#000000",  # black
    "moment_matched": "#ee9a00",  # orange
    "shared": "#009e8e",  # teal
    "mode_seeking": "#c080d0",  # purple
    # By how much of the future q may see. Partial is teal because a partial q learns the shared
    # posterior; more look-ahead is darker; the truth is black, as the marginal posterior is.
    "partial": "#009e8e",
    "semi": "#b08ad8",
    "full": "#4a2a86",
    "truth": "#000000",
}
"""Colour of each quantity, as a hexadecimal string."""

_RC_PARAMS = {
    "figure.figsize": (WIDTH, 3.7),
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "font.family": "DejaVu Sans",  # ships with Matplotlib: the same on every machine
    "font.size": 12,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(
        color=[
            COLOURS[key]
            for key in (
                "posterior_b",
                "moment_matched",
                "shared",
                "posterior_a",
                "mode_seeking",
                "marginal",
            )
        ]
    ),
    "grid.color": "#dddddd",
    "grid.linewidth": 0.8,
    "lines.linewidth": 2.0,
    "lines.markersize": 6.0,
    "errorbar.capsize": 3.0,
    "legend.frameon": False,
    "legend.fontsize": 11,
    "image.cmap": "viridis",
}


def style():
    """Set the book's figure style for this process.

    Figures are 6 inches wide with 12-point text, which is still legible on a page of 390 pixels.

    >>> style()
    >>> plt.rcParams["font.size"]
    12.0
    """
    matplotlib.rcParams.update(_RC_PARAMS)


def show(fig, *, name, caption, alt):
    """Display `fig` with its name, caption and alt text, and close it.

    The words travel in the output's metadata; executing the chapter moves them to the cell, where
    the page takes them from. What is plotted (`plotted`) travels there too and stays, so that the
    next execution can be compared with it. One figure per cell.

    Args:
        fig: the `matplotlib.figure.Figure`.
        name: label for cross-references, "fig-" and then lower-case letters, digits, hyphens.
        caption: what to see, and the scale, data and seed; Markdown with math.
        alt: what the figure shows, for those who do not see it: plain text of at least 40
            characters, built from the plotted values.

    Raises:
        ValueError: if one of them is missing, malformed, or holds a NaN or an infinity.

    >>> fig, axes = plt.subplots(figsize=(2, 2))
    >>> _ = axes.plot([0, 1], [0, 2])
    >>> alt = f"A line that rises from {0} to {2} while x goes from 0 to 1."
    >>> show(fig, name="fig-line", caption="A line.", alt=alt)
    A line that rises from 0 to 2 while x goes from 0 to 1.
    """
    if not isinstance(fig, matplotlib.figure.Figure):
        raise ValueError(f"fig must be a Matplotlib figure, but is a {type(fig).__name__}.")
    if not isinstance(name, str) or not re.fullmatch(r"fig(-[a-z0-9]+)+", name):
        raise ValueError(
            f'name must look like "fig-bit" (lower-case letters, digits, hyphens after "fig-"), '
            f"but is {name!r}. Pages refer to it by {{numref}}`fig-bit`."
        )
    words = {"name": name, "caption": _text(caption, "caption"), "alt": _text(alt, "alt")}
    if len(words["alt"]) < MINIMUM_ALT_LENGTH:
        raise ValueError(
            f"alt must say in at least {MINIMUM_ALT_LENGTH} characters what the figure shows, but "
            f"has {len(words['alt'])}: {alt!r}. Name the axes and the values that matter."
        )
    buffer = io.BytesIO()
    # No writer's name in the file, so that the same figure gives the same bytes.
    fig.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    width = round(fig.get_figwidth() * DPI / 2)
    plt.close(fig)
    _display(buffer.getvalue(), width, words, fig)


def _text(value, name):
    """Return `value` on one line; refuse empty text and values that were never computed."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a non-empty string, but is {value!r}.")
    found = re.search(r"(?<![\w\\])(nan|inf|None)(?!\w)", value)
    if found:
        raise ValueError(
            f"{name} holds {found.group()!r}, so a value in it was not computed: {value!r}. "
            "Look at where the value comes from."
        )
    return true_minus(" ".join(value.split()))


def _display(png, width, words, fig):
    """Show the picture in a notebook, and its alt text anywhere else."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        shell = None
    else:
        shell = get_ipython()
    if shell is None:
        print(words["alt"])
        return
    data = {"image/png": png, "text/plain": words["alt"]}
    own = words | {"plotted": plotted(fig)}
    display(data, raw=True, metadata={"image/png": {"width": width}, "tfp_gaps": own})
