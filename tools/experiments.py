"""Make a script of each chapter: the code that a reader sees, and what that needs.

    python tools/experiments.py [NAME...]     run the scripts at smoke size; say how long

The build puts the scripts beside the pages (`write`), which link to them. A script is a slice of
the notebook, found backwards from its last cell: what is visible stays as it is, comments included;
of a hidden cell a statement stays if it binds, or changes in place, a name that something after it
reads. So figures, tables and ledger go, and nothing is written twice. The scale "book" becomes an
argument of the script, except where stored results are read.
"""

import ast
import os
import pathlib
import subprocess
import symtable
import sys
import tempfile
import time

import notebooks
from finishing import title
from notebooks import Project
from tfp_gaps.book.figures import overview

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = "experiments"
HIDDEN = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
SCALE = "book"
NOT_SMALL = {
    "approximation": "the posteriors of the smoke size lie at the edge of the grid",
    "amortisation": "from the encoder of the smoke size, 300 steps are too few for what it asserts",
}
"""Chapters whose scripts run at the scale of the book only, and why."""

LIMIT = 1800
"""Seconds that a script may take at smoke size."""

_HEAD = '''"""{title}

The code that a reader of this chapter sees, and what it needs; the build makes it of the notebook
book/{name}.ipynb. Run it where tfp_gaps is installed:

    python {name}.py{usage}
"""
'''
_SCALE = """
import sys

SCALE = sys.argv[1] if len(sys.argv) > 1 else "book"
"""


def script(name, notebook):
    """The experiment of a chapter as the text of a Python script.

    Args:
      name, notebook: of the chapter.
    """
    body = "\n\n\n".join(_slice(notebooks.code_cells(notebook)))
    scaled = _with_scale(body)
    if scaled == body or name in NOT_SMALL:
        return _HEAD.format(title=title(notebook), name=name, usage="") + f"\n{body}\n"
    head = _HEAD.format(title=title(notebook), name=name, usage=" [smoke|book]")
    return head + _SCALE + f"\n{scaled}\n"


def write(project):
    """Write the scripts of all chapters to where the build takes the files beside the pages."""
    for name in overview.PLACES:
        if project.path(name).is_file():
            text = script(name, notebooks.read(project.path(name)))
            target = project.book / "_extra" / FOLDER / f"{name}.py"
            notebooks.write_text(target, text)


# --- the slice -----------------------------------------------------------------------------------


def _slice(cells):
    """The texts of the cells as far as they are kept, in order."""
    kept, needed = [], set()
    modules = {
        name
        for cell in cells
        for node in ast.parse(cell.source).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in _names(node)[0]
    }
    for cell in reversed(cells):
        visible = not HIDDEN & set(cell.metadata.get("tags", []))
        lines = []
        for node in reversed(ast.parse(cell.source).body):
            touched = _names(node)[0] | (_changed(node) - modules)
            if visible or touched & needed:
                lines.append((node, _text(cell.source, node, needed)))
                needed = (needed - _binds(node)) | _needs([node])
        if visible:
            kept.append(cell.source)
        elif lines:
            kept.append(_joined(lines[::-1]))
    return kept[::-1]


def _joined(statements):
    """Statements below each other, with the room that imports and functions have around them."""
    text, before = "", None
    for node, written in statements:
        kinds = {type(before), type(node)}
        if before and ast.FunctionDef in kinds:
            text += "\n\n"
        elif isinstance(before, ast.Import | ast.ImportFrom) and len(kinds) > 1:
            text += "\n"
        text, before = f"{text}{written}\n", node
    return text.rstrip("\n")


def _names(node):
    """Names that a statement binds, and those that it reads from around it."""
    table = symtable.symtable(ast.unparse(node), "cell", "exec")
    own = table.get_symbols()
    bound = {each.get_name() for each in own if each.is_assigned() or each.is_imported()}
    return bound, {each.get_name() for each in own if each.is_referenced()} | _globals(table)


def _needs(nodes):
    """Names that statements in a row read before one of them has bound them."""
    needed, bound = set(), set()
    for node in nodes:
        if isinstance(node, ast.For):
            read = _names(node.iter)[1] | (_needs(node.body) - _targets(node))
        elif isinstance(node, ast.AugAssign):
            read = set().union(*_names(node))
        else:
            read = _names(node)[1]
        needed |= read - bound
        bound |= _binds(node)
    return needed


def _binds(node):
    """Names that have a new value after a statement, whatever they were before."""
    if isinstance(node, ast.For):
        return _targets(node).union(*map(_binds, node.body))
    if isinstance(node, ast.If | ast.While | ast.Try | ast.With | ast.AugAssign):
        return set()
    return _names(node)[0]


def _targets(loop):
    return {each.id for each in ast.walk(loop.target) if isinstance(each, ast.Name)}


def _globals(table):
    """Names that functions and comprehensions within a statement read from outside of it."""
    found = set()
    for child in table.get_children():
        found |= {each.get_name() for each in child.get_symbols() if each.is_global()}
        found |= _globals(child)
    return found


def _changed(node):
    """Names whose objects a statement changes: x[0] = 1, x.a = 1, x.append(1)."""
    found = set()
    for each in ast.walk(node):
        if isinstance(each, ast.Expr) and isinstance(each.value, ast.Call):
            each = each.value.func
        elif not isinstance(getattr(each, "ctx", None), ast.Store):
            continue
        while isinstance(each, ast.Subscript | ast.Attribute):
            each = each.value
            if isinstance(each, ast.Name):
                found.add(each.id)
    return found


def _text(source, node, needed):
    """A statement as it is written; of an import, the names that are needed."""
    if isinstance(node, ast.ImportFrom):
        names = [each for each in node.names if (each.asname or each.name) in needed]
        return ast.unparse(ast.ImportFrom(node.module, names or node.names, node.level))
    lines = source.splitlines()
    first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])
    return "\n".join(lines[first - 1 : node.end_lineno])


def _with_scale(source):
    """The source with the scale as a variable where an experiment has it, not a stored result."""
    tree = ast.parse(source)
    stored = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("stored")
        for inner in ast.walk(node)
    }
    lines = source.encode().split(b"\n")
    places = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value == SCALE and id(node) not in stored
    ]
    for node in sorted(places, key=lambda node: (node.lineno, -node.col_offset)):
        line = lines[node.lineno - 1]
        lines[node.lineno - 1] = line[: node.col_offset] + b"SCALE" + line[node.end_col_offset :]
    return b"\n".join(lines).decode()


# --- running them --------------------------------------------------------------------------------


def run(name, notebook, folder):
    """Run the script of a chapter at smoke size in a process of its own; return what it printed.

    Raises:
        ChapterError: if it fails; the message ends with what it said last.
    """
    path = pathlib.Path(folder, f"{name}.py")
    path.write_text(script(name, notebook), encoding="utf-8")
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(path), "smoke"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths, "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    if done.returncode:
        said = "\n".join(done.stderr.splitlines()[-12:])
        raise notebooks.ChapterError(f"The script of {name} fails at smoke size:\n{said}")
    return done.stdout


def main(names, root=ROOT):
    """Run the scripts of the named chapters, or of all; return the exit status."""
    project, failed = Project(root), 0
    with tempfile.TemporaryDirectory() as folder:
        for name in names or overview.PLACES:
            started = time.monotonic()
            try:
                run(name, notebooks.read(project.path(name)), folder)
            except (notebooks.ChapterError, subprocess.TimeoutExpired) as error:
                failed += 1
                print(error, file=sys.stderr, flush=True)
            print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
