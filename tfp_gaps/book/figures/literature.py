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
from tfp_gaps.book.figures import COLOURS, WIDTH

USED, HIDDEN, SPARE, NEITHER = range(4)
KINDS = {
    USED: ("seen and of use", COLOURS["full"]),
    HIDDEN: ("needed but hidden", COLOURS["moment_matched"]),
    SPARE: ("seen, of no use to the true factor", "#cfc3e6"),
}
"""What a cell means, and its colour."""

TITLES = {
    "all": "all observations",
    "all, no latents": "all, without latents",
    "start, then present": "start, then the present",
    "past and present": "past and present",
    "present": "present and latents",
    "past, no latents": "past, without latents",
}
"""How a figure calls each of `literature.SCHEMES`."""

_STYLE = """
#scheme-chooser{background:#fff;color:#111;border:1px solid #999;border-radius:6px;padding:.75rem;
 max-width:42rem;box-sizing:border-box;font-size:1rem;line-height:1.4}
#scheme-chooser *{color:#111;box-sizing:border-box}
#scheme-chooser a{color:#0b4fa8;text-decoration:underline}
#scheme-chooser select{font-size:1rem;padding:.3rem;margin:.2rem 0 .7rem;width:100%;background:#fff;
 border:1px solid #555}
#scheme-chooser svg{width:100%;max-width:30rem;height:auto;display:block;background:#fff}
#scheme-chooser section+section{margin-top:1.5rem}
#scheme-chooser dl{margin:.4rem 0;display:grid;grid-template-columns:auto 1fr;gap:.1rem .8rem}
#scheme-chooser dt,#scheme-chooser dd{margin:0;font-weight:normal}
#scheme-chooser dd{font-weight:bold;font-variant-numeric:tabular-nums}
"""

_SCRIPT = """
(function(){
"use strict";
var root=document.getElementById("scheme-chooser"),choice=root.querySelector("select");
var parts=root.querySelectorAll("section");
function show(){for(var i=0;i<parts.length;i++){parts[i].hidden=parts[i].id!==choice.value;}}
choice.addEventListener("change",show);show();
})();
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


def grids(num_timesteps=6):
    """Figure with one grid for each scheme."""
    fig, panels = plt.subplots(3, 2, figsize=(WIDTH, 5.9))
    for axes, name in zip(panels.flat, literature.SCHEMES, strict=True):
        found = cells(literature.scheme(name, num_timesteps))
        for kind, (_, colour) in KINDS.items():
            rows, columns = np.nonzero(found == kind)
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
        axes.set_title(TITLES[name], fontsize=12)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    fig.legend(
        handles=[Patch(color=colour, label=label) for label, colour in KINDS.values()],
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
    return (
        f'<div id="scheme-chooser"><style>{_STYLE}</style>'
        f'<label for="scheme-model">Model</label><select id="scheme-model">{options}</select>'
        f'<div aria-live="polite">{sections}</div></div><script>{_SCRIPT}</script>'
    )


def _section(index, model, measured, num_timesteps):
    numbers = ""
    for label, each in measured.items():
        row = each[model.scheme]
        numbers += (
            f"<dt>gap on {html.escape(label)}</dt><dd>{row.gap:.4f} nats per step</dd>"
            f"<dt>likelihood lost by learning</dt><dd>{abs(row.loss):.4f} nats per step</dd>"
        )
    return (
        f'<section id="scheme-{index}"><p><strong>{html.escape(model.name)}</strong> sees '
        f"{literature.marked(model.sees)}. Hidden: {html.escape(model.lacks)}. "
        f"{literature.code_link(model)}, {html.escape(model.place)}</p>"
        f"{_svg(model, num_timesteps)}<dl>{numbers}</dl></section>"
    )


def _svg(model, size):
    found = cells(literature.scheme(model.scheme, size))
    paths = ""
    for kind, (_, colour) in KINDS.items():
        rows, columns = np.nonzero(found == kind)
        if not len(rows):
            continue
        outline = "".join(
            f"M{44 + 20 * column + (16 if column >= size else 0)} {20 * row}h18v18h-18z"
            for row, column in zip(rows, columns, strict=True)
        )
        paths += f'<path d="{outline}" fill="{colour}"/>'
    width = 40 * size + 70
    ends = (
        f'<text x="44" y="{20 * size + 16}" font-size="14">z₁…z{_low(size)}</text>'
        f'<text x="{60 + 20 * size}" y="{20 * size + 16}" font-size="14">x₁…x{_low(size)}</text>'
        '<text x="0" y="14" font-size="14">t = 1</text>'
        f'<text x="0" y="{20 * size - 6}" font-size="14">t = {size}</text>'
    )
    hidden = int(np.sum(found == HIDDEN))
    return (
        f'<svg viewBox="0 0 {width} {20 * size + 22}" role="img" aria-label="Grid of what q sees '
        f"over {size} steps: {hidden} of {int(np.sum((found == HIDDEN) | (found == USED)))} things "
        f'that the true factors depend on are hidden.">{paths}{ends}</svg>'
    )


def _low(number):
    """A digit as a subscript."""
    return "".join("₀₁₂₃₄₅₆₇₈₉"[int(digit)] for digit in str(number))
