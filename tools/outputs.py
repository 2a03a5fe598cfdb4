"""Digests of what a chapter shows, which tell when that is no longer what its cells gave.

Every execution stores under `tfp_gaps.outputs`, for each code cell by its id, a digest of its code,
one of each output, and one of the words (name, caption, alt text) that the page takes from the
cell. This is against accidents: a slip in an editor, a merge, outputs that a tool removed. Whoever
alters outputs and digests alike is found by `compare_outputs`, which executes the chapter again.
"""

import json

import notebooks
from staleness import digest

GLUED = "application/papermill.record/"


def digests(notebook):
    """Return the digests of all code cells, as a dict from the id of the cell."""
    return {cell.get("id"): _digests(cell) for _, cell in _code_cells(notebook)}


def _code_cells(notebook):
    """Return the code cells with their numbers; empty ones too, which ought to show nothing."""
    numbered = enumerate(notebook.cells, start=1)
    return [(number, cell) for number, cell in numbered if cell.cell_type == "code"]


def _digests(cell):
    return {
        "code": digest(cell.source),
        "outputs": [digest(json.dumps(output, sort_keys=True)) for output in cell.outputs],
        "words": digest(json.dumps(words(cell), sort_keys=True)),
    }


def words(cell):
    """Return name, caption and alt text of the cell's figure; {} if it has none."""
    page = cell.metadata.get("mystnb", {})
    return dict(page.get("figure", {})) | dict(page.get("image", {}))


def problems(name, notebook):
    """Return where the chapter's outputs are not those of its execution, one line per cell."""
    own = notebook.metadata.get("tfp_gaps", {})
    stored = own.get("outputs")
    if stored is None and "inputs" not in own:
        return []  # Never executed, as `staleness` says.
    remedy = f"Execute the chapter again: make rerun CHAPTERS={name}"
    if not isinstance(stored, dict) or not all(map(_is_entry, stored.values())):
        return [f"no execution has left digests of its outputs. {remedy}"]
    cells = _code_cells(notebook)
    shown = any(cell.outputs for _, cell in cells)
    if not shown and any(entry["outputs"] for entry in stored.values()):
        return [f"all outputs are stripped. {remedy}"]
    found = []
    for number, cell in cells:
        faults = _faults(cell, stored.get(cell.get("id")))
        found += [f"cell {number}: {fault}. {remedy}" for fault in faults]
    gone = stored.keys() - {cell.get("id") for _, cell in cells}
    return found + [f"the cell {key} of its execution is gone. {remedy}" for key in sorted(gone)]


def _is_entry(entry):
    return isinstance(entry, dict) and entry.keys() == {"code", "outputs", "words"}


def _faults(cell, stored):
    if stored is None:
        yield "its execution had no such cell"
        return
    now, before = _digests(cell), stored["outputs"]
    if now["code"] != stored["code"]:
        yield "its outputs belong to other code"
    if not now["outputs"] and before:
        yield f"its outputs are stripped, {len(before)} of them"
    elif len(now["outputs"]) != len(before):
        yield f"it shows {len(now['outputs'])} outputs, and its execution gave {len(before)}"
    else:
        for number, (found, wanted) in enumerate(zip(now["outputs"], before), start=1):
            if found != wanted:
                yield f"{label(cell.outputs[number - 1], number)} was altered after the execution"
    if now["words"] != stored["words"]:
        yield "name, caption or alt text of its figure was altered after the execution"


def label(output, number):
    """Return what a reader would call an output: the glued name, the claim, or its place.

    >>> label({"output_type": "stream", "name": "stdout"}, 2)
    'output 2 (stdout)'
    """
    data = output.get("data", {})
    glued = output.get("metadata", {}).get("scrapbook", {}).get("name")
    claim = data.get(notebooks.CLAIM_MIME, {}).get("id")
    kind = min(data, default=output.get("name", "error"))
    return glued or claim or f"output {number} ({kind})"
