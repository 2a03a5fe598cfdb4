"""Turn an executed notebook into a page: words of figures, cost, stable metadata."""

import base64
import io
import re

from PIL import Image

import notebooks
import outputs
import staleness
from notebooks import ChapterError

COST = ("<!-- cost -->", "<!-- /cost -->")
CHAPTERS = ("<!-- chapters -->", "<!-- /chapters -->")
HERO = "book/_static/hero.png"
_COLOURS = 256
_KEPT_METADATA = ("kernelspec", "language_info", "tfp_gaps", "mystnb")
_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def finish(project, name, notebook, cost, machine):
    """Give an executed notebook its figures' words, cost line, stamps and stable metadata.

    Args:
      project, name, notebook: the chapter.
      cost: the `execution.Cost` of the run.
      machine: what `execution.machine` says of where it ran.

    Raises:
        ChapterError: if a cell shows two figures, two figures share a name, or the first cell has
            no markers for the cost.
    """
    figures = {}
    for cell in notebooks.code_cells(notebook):
        words = label_figure(name, cell)
        if words and words["name"] in figures:
            raise ChapterError(f"{name} shows two figures with the name {words['name']!r}.")
        figures |= {words["name"]: words} if words else {}
        shrink_pictures(cell)
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown":
        raise ChapterError(f"{name} must begin with a Markdown cell that holds its title.")
    first.source = fill(first.source, COST, f"**Cost:** {cost}", f"the first cell of {name}")
    tidy(notebook)
    own = notebook.metadata.setdefault("tfp_gaps", {})
    own["cost"] = vars(cost).copy()
    own["machine"] = machine
    own["inputs"] = staleness.inputs(project, name, notebook)
    own["outputs"] = outputs.digests(notebook)


def label_figure(name, cell):
    """Move name, caption and alt text from a figure's output to the metadata of its cell.

    The page takes them from the cell only; what is plotted stays with the output, to be compared,
    and so do the data, of which the build makes a file (tools/figure_data.py).
    Returns the words, or None if the cell has no figure.
    """
    shown = [out for out in cell.outputs if "tfp_gaps" in out.get("metadata", {})]
    if len(shown) > 1:
        raise ChapterError(
            f"{name}: one figure per cell, but this cell shows {len(shown)}:\n{cell.source}"
        )
    if not shown:
        for key in ("figure", "image"):
            cell.metadata.get("mystnb", {}).pop(key, None)
        return None
    words = shown[0].metadata["tfp_gaps"]
    shown[0].metadata["tfp_gaps"] = {k: words[k] for k in ("plotted", "data") if k in words}
    page = cell.metadata.setdefault("mystnb", {})
    page["figure"] = {"name": words["name"], "caption": words["caption"]}
    page["image"] = {"alt": words["alt"]}
    return words


def shrink_pictures(cell):
    """Store the pictures of a cell with a palette: a third of the bytes, and to the eye the same.

    Figures hold few colours and their shades; no dithering, which would make noise of them.
    """
    for output in cell.outputs:
        encoded = output.get("data", {}).get("image/png")
        if encoded is None:
            continue
        picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
        buffer = io.BytesIO()
        flat = picture.quantize(_COLOURS, dither=Image.Dither.NONE)
        flat.save(buffer, "png", optimize=True)
        smaller = base64.b64encode(buffer.getvalue()).decode()
        if len(smaller) < len(encoded):
            output["data"]["image/png"] = smaller


def fill(text, markers, content, where):
    """Replace what stands between the two markers; blank lines keep it Markdown."""
    start, end = markers
    parts = re.split(f"({re.escape(start)}|{re.escape(end)})", text)
    if parts[1::2] != [start, end]:
        raise ChapterError(f"{where} must hold {start} and {end} once each, in this order.")
    return f"{parts[0]}{start}\n\n{content}\n\n{end}{parts[4]}"


def tidy(notebook):
    """Remove what differs from run to run without meaning anything; set what must not differ."""
    metadata = notebook.metadata
    for key in [key for key in metadata if key not in _KEPT_METADATA]:
        del metadata[key]
    metadata["kernelspec"] = dict(_KERNEL)
    if "version" in metadata.get("language_info", {}):
        language = metadata["language_info"]
        language["version"] = ".".join(language["version"].split(".")[:2])
    notebook.nbformat_minor = 5
    used = {}
    for cell in notebook.cells:
        # An id made of the content: editing one cell leaves the others' ids alone. The cost differs
        # from run to run, and is no part of it.
        lasting = re.sub(f"{COST[0]}.*{COST[1]}", "", cell.source, flags=re.DOTALL)
        content = staleness.digest(cell.cell_type, lasting)[:8]
        used[content] = used.get(content, 0) + 1
        cell["id"] = content if used[content] == 1 else f"{content}-{used[content]}"
        cell.metadata.pop("execution", None)
        if not cell.metadata.get("mystnb", True):
            del cell.metadata["mystnb"]


def title(notebook):
    """Return the first heading of the notebook."""
    for cell in notebook.cells:
        found = re.search(r"^# (.+)$", cell.source, re.MULTILINE)
        if cell.cell_type == "markdown" and found:
            return found.group(1).strip()
    raise ChapterError("A chapter has no title: begin its first cell with a line like '# Title'.")


def fill_readme(project):
    """Write the table of chapters with their cost into the README, if it has the markers."""
    if not project.readme.is_file():
        return
    text = project.readme.read_text(encoding="utf-8")
    if HERO in text:
        write_hero(project)
    if CHAPTERS[0] in text:
        table = "\n".join(_table_rows(project))
        filled = fill(text, CHAPTERS, table, project.readme.name)
        if filled != text:
            notebooks.write_text(project.readme, filled)


def write_hero(project):
    """Store the first figure of the index as the file that the README shows."""
    for cell in notebooks.code_cells(notebooks.read(project.path("index"))):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                picture = base64.b64decode(output["data"]["image/png"])
                target = project.readme.parent / HERO
                if not target.exists() or target.read_bytes() != picture:
                    notebooks.write_bytes(target, picture)
                return


def _table_rows(project):
    yield "| chapter | claims it decides | time | peak memory |"
    yield "|---|---|---|---|"
    for name in project.chapters():
        notebook = notebooks.read(project.path(name))
        cost = notebook.metadata.get("tfp_gaps", {}).get("cost")
        if cost is not None:
            link = f"[{title(notebook)}](book/{name}.ipynb)"
            claims = len(notebooks.claim_records(notebook)) or ""
            seconds, memory = f"{cost['seconds']:.0f} s", f"{cost['peak_gigabytes']:.1f} GB"
            yield f"| {link} | {claims} | {seconds} | {memory} |"
