"""Pictures of what a q may see: a figure of all schemes, and a chooser that works without a kernel.

Each row is a factor q(z_t | ...), each column something it could see. Three kinds of cells: seen
and of use, needed but hidden, and seen though p(z_t | z_{t-1}, x_{t:T}), the true factor of a
chain, does not depend on it.
"""

import html

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Patch

from tfp_gaps.book import literature
from tfp_gaps.book.figures import COLOURS, WIDTH, drawing, page

USED, HIDDEN, SPARE, NEITHER = range(4)
KINDS = (
    ("seen and of use", COLOURS["full"]),
    ("latent, needed but hidden", COLOURS["moment_matched"]),
    ("observation, needed but hidden", COLOURS["shared"]),
    ("seen, of no use to the true factor", "#cfc3e6"),
)
"""What a cell means, and its colour: hidden latents and observations have that of their gap."""

_STYLE = """
#NAME select{font:inherit;color:inherit;padding:.3rem;margin:.2rem 0 .7rem;width:100%;
 background:var(--pst-color-background,transparent);border:1px solid currentColor}
#NAME section svg{max-width:30rem;width:100%;height:auto}
#NAME section svg text{font-size:11px}
#NAME section+section{margin-top:1.5rem}
"""

_SCRIPT = """
var choice=root.querySelector("select"),parts=root.querySelectorAll("section");
function show(){for(var i=0;i<parts.length;i++){parts[i].hidden=parts[i].id!==choice.value;}}
choice.addEventListener("change",show);show();
"""


def cells(seen):
    """Kind of every cell, int [T, 2 T]: latents in the first half, observations in the second.

    >>> from tfp_gaps.exact.conditions import conditions
    >>> cells(conditions(2)).tolist() == [[NEITHER, NEITHER, USED, HIDDEN],
    ...                                   [USED, NEITHER, SPARE, USED]]
    True
    """
    step, other = np.arange(seen.num_timesteps)[:, np.newaxis], np.arange(seen.num_timesteps)
    shown = np.concatenate([seen.latents, seen.observations], 1)
    needed = np.concatenate([other == step - 1, other >= step], 1)
    return np.where(needed, np.where(shown, USED, HIDDEN), np.where(shown, SPARE, NEITHER))


def _cells_of_kinds(found):
    """Rows and columns of the cells of each of `KINDS`."""
    hidden, latent = found == HIDDEN, np.arange(found.shape[1]) < found.shape[1] // 2
    kinds = (found == USED, hidden & latent, hidden & ~latent, found == SPARE)
    return [np.nonzero(kind) for kind in kinds]


def grids(num_timesteps=6):
    """Figure with one grid for each scheme."""
    rows = -(-len(literature.SCHEMES) // 2)
    fig, panels = plt.subplots(rows, 2, figsize=(WIDTH, 2 * rows))
    for axes in panels.flat[len(literature.SCHEMES) :]:
        axes.remove()
    for axes, name in zip(panels.flat, literature.SCHEMES, strict=False):
        found = cells(literature.scheme(name, num_timesteps))
        for (_, colour), (rows, columns) in zip(KINDS, _cells_of_kinds(found), strict=True):
            # The observations stand apart from the latents.
            places = columns + 0.8 * (columns >= num_timesteps)
            for row, place in zip(rows, places, strict=True):
                axes.add_patch(plt.Rectangle((place, row), 0.88, 0.88, color=colour, lw=0))
        ends = [0.44, num_timesteps - 0.56, num_timesteps + 1.24, 2 * num_timesteps + 0.24]
        last = f"{num_timesteps}"
        axes.set(
            xlim=(-0.2, 2 * num_timesteps + 1),
            ylim=(num_timesteps, -0.2),
            xticks=ends,
            xticklabels=["$z_1$", f"$z_{last}$", "$x_1$", f"$x_{last}$"],
            yticks=[0.44, num_timesteps - 0.56],
            yticklabels=["$t=1$", f"$t={last}$"],
            aspect="equal",
        )
        axes.set_title(literature.TITLES[name], fontsize=10.5)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    fig.legend(
        handles=[Patch(color=colour, label=label) for label, colour in KINDS],
        loc="outside lower center",
        ncols=1,
        frameon=False,
    )
    return fig


def chooser(rows, chosen, num_timesteps=6):
    """HTML with a list of models; the page shows the conditions and the numbers of the chosen one.

    Args:
      rows: dict from a chain's label to a list of `experiments.literature.Row`, all schemes.
      chosen: name in `literature.MODELS` that is shown first.
      num_timesteps: T of the picture.

    Returns:
      A self-contained string; nothing is loaded. Without scripts it lists all models.

    Raises:
      ValueError: for an unknown model, or a scheme that was not measured.
    """
    literature.by_name(chosen)
    measured = {label: {row.scheme: row for row in each} for label, each in rows.items()}
    for label, each in measured.items():
        absent = sorted(set(literature.SCHEMES) - set(each))
        if absent:
            raise ValueError(
                f"All schemes should be measured on {label}, but {', '.join(absent)} is not. "
                "Measure with schemes=None."
            )
    options, sections = "", ""
    for index, model in enumerate(literature.MODELS):
        mark = " selected" if model.name == chosen else ""
        title = html.escape(f"{model.name}, {model.year}")
        options += f'<option value="scheme-{index}"{mark}>{title}</option>'
        sections += _section(index, model, measured, num_timesteps)
    content = (
        f'<label for="scheme-model">Model</label><select id="scheme-model">{options}</select>'
        f'<div aria-live="polite">{sections}</div>'
        f"{page.legend([(colour, label) for label, colour in KINDS])}"
    )
    return page.widget("scheme-chooser", content, _SCRIPT, style=_STYLE)


def _section(index, model, measured, num_timesteps):
    numbers = [
        (what, f"{abs(value):.4f} nats per step")
        for label, each in measured.items()
        for what, value in (
            (f"gap on {label}", each[model.scheme].gap),
            ("likelihood lost by learning", each[model.scheme].loss),
        )
    ]
    acts = [word for word in ("actions", "controls") if word in model.lacks]
    apart = (
        f"The chains have no {acts[0]}, so that hiding those costs nothing here. " if acts else ""
    )
    return (
        f'<section id="scheme-{index}"><p><strong>{html.escape(model.name)}</strong> sees '
        f"{literature.marked(model.sees)}. Hidden: {html.escape(model.lacks)}. {apart}"
        f"{literature.code_link(model)}, {html.escape(model.place)}</p>"
        f"{_svg(model, num_timesteps)}{page.numbers(numbers)}</section>"
    )


def _svg(model, size):
    found = cells(literature.scheme(model.scheme, size))
    paths = ""
    for (_, colour), (rows, columns) in zip(KINDS, _cells_of_kinds(found), strict=True):
        if not len(rows):
            continue
        outline = "".join(
            f"M{44 + 20 * column + (16 if column >= size else 0)} {20 * row}h18v18h-18z"
            for row, column in zip(rows, columns, strict=True)
        )
        paths += f'<path d="{outline}" style="fill:{page.paint(colour)}"/>'
    below, hidden = 20 * size + 16, found == HIDDEN
    paths += (
        drawing.text(44, below, f"z₁…z{_low(size)}")
        + drawing.text(60 + 20 * size, below, f"x₁…x{_low(size)}")
        + drawing.text(0, 14, "t = 1")
        + drawing.text(0, 20 * size - 6, f"t = {size}")
    )
    spoken = (
        f"Grid of what q sees over {size} steps: {np.sum(hidden)} of "
        f"{np.sum(hidden | (found == USED))} things that the true factors depend on "
        f"are hidden."
    )
    return drawing.svg(20 * size + 22, paths, spoken, width=40 * size + 70)


def _low(number):
    """A digit as a subscript."""
    return "".join("₀₁₂₃₄₅₆₇₈₉"[int(digit)] for digit in str(number))
