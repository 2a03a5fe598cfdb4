"""What must hold for an executed chapter before it is committed."""

import re

import notebooks
import outputs
import staleness
from execution import Cost
from finishing import COST
from outputs import GLUED

MINIMUM_ALT_LENGTH = 40
MAXIMUM_BYTES = 1_500_000
MAXIMUM_SECONDS, MAXIMUM_GIGABYTES = 150, 1.6
"""What a chapter may take on two cores: minutes for a reader, and a hosted notebook's 2 GB."""
SHOWN = {"text/plain", "text/html", "text/markdown", "text/latex", notebooks.CLAIM_MIME}
CHECKED = "# NBVAL_CHECK_OUTPUT"
# What is no sentence: cost, formulas, roles, code, links, headings, tables, HTML.
_NO_SENTENCE = re.compile(
    r"<!-- cost -->.*?<!-- /cost -->|<!--.*?-->"
    r"|^(?:`{3,}|~{3,}|:{3,}).*?$|\$\$.*?\$\$|\$[^$]+\$"
    r"|\{[a-z:]+\}`[^`]*`|`[^`]*`|\[[^\]]*\]\([^)]*\)|^(?:#|\||<).*?$",
    re.DOTALL | re.MULTILINE,
)
_DECIMAL = re.compile(r"(?<![\w.])\d*\.\d+(?![\w.]*[a-z])")


def problems(project, name):
    """Return what is wrong with a chapter, one line each; an empty list if nothing is."""
    path = project.path(name)
    notebook = notebooks.read(path)
    found = staleness.reasons(project, name, notebook) + outputs.problems(name, notebook)
    cells = notebooks.code_cells(notebook)
    if not any(cell.source.lstrip().startswith(CHECKED) for cell in cells):
        found.append(f"no cell starts with {CHECKED!r}, so nothing is compared when it is re-run")
    if path.stat().st_size > MAXIMUM_BYTES:
        found.append(f"{path.stat().st_size} bytes, more than {MAXIMUM_BYTES}: use smaller figures")
    if not notebook.cells or COST[0] not in notebook.cells[0].source:
        found.append(f"the first cell has no {COST[0]} markers")
    elif not _shows_its_cost(notebook):
        found.append(
            f"the cost in its first cell is not the measured one: make rerun CHAPTERS={name}"
        )
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "code":
            found += [f"cell {number}: {problem}" for problem in _cell_problems(cell)]
        elif typed := bare_numbers(cell.source):
            found.append(
                f"cell {number}: the numbers {', '.join(typed)} are typed. Glue a result from its "
                "cell; write a setting as a formula, between dollars"
            )
    return found


def _shows_its_cost(notebook):
    cost = notebook.metadata.get("tfp_gaps", {}).get("cost")
    return cost is None or f"**Cost:** {Cost(**cost)}\n" in notebook.cells[0].source


def bare_numbers(text):
    """Decimals in the sentences of a text: typed, so that nobody computed them.

    >>> bare_numbers("It is 1.25 nats at $x = .5$, `v1.2` and {glue:text}`gap-0.1`.")
    ['1.25']
    """
    return _DECIMAL.findall(_NO_SENTENCE.sub(" ", text))


def _cell_problems(cell):
    for output in cell.outputs:
        if output.output_type == "error":
            yield f"holds an error: {output.ename}"
        if output.output_type == "stream" and output.name == "stderr":
            yield f"prints to stderr: {output.text.strip()[:80]!r}"
        for kind in output.get("data", {}):
            if kind not in SHOWN and not kind.startswith(("image/", GLUED)):
                yield f"holds an output of the kind {kind}, which a page cannot show"
        if any(kind.startswith("image/") for kind in output.get("data", {})):
            yield from _figure_problems(cell)


def _figure_problems(cell):
    page = cell.metadata.get("mystnb", {})
    figure, alt = page.get("figure", {}), page.get("image", {}).get("alt", "")
    if len(alt) < MINIMUM_ALT_LENGTH:
        yield f"figure with an alt text of {len(alt)} characters, fewer than {MINIMUM_ALT_LENGTH}"
    if not figure.get("name") or not figure.get("caption"):
        yield "figure without name or caption: display it by figures.show"
