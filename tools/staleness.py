"""What a chapter's outputs rest on, as digests that tell when they have gone stale.

A chapter rests on its code cells; on the modules of `tfp_gaps` that those import, directly or
through one another (found in the syntax tree, nothing is imported; a name that the package loads
when it is used counts as an import of its module); on the pinned packages of requirements.lock; on
its own entries of book/claims.yml, and on book/literature.yml and the scripts of the widgets if it
imports what reads them; on the stored results that it was seen to read (`tfp_gaps.reads` of its
metadata, written by `reads`); and on the files that its metadata names under
`tfp_gaps.depends_on`. Comments and docstrings of a module change no output and do not count.
"""

import ast
import hashlib
import io
import json
import tokenize

import yaml
from IPython.core.inputtransformer2 import TransformerManager

import notebooks
from notebooks import ChapterError

PACKAGE = "tfp_gaps"
CLAIMS_MODULE = f"{PACKAGE}/book/ledger/claims.py"
CLAIMS_FILE = "book/claims.yml"
LITERATURE_MODULE = f"{PACKAGE}/book/literature.py"
LITERATURE_FILE = "book/literature.yml"
WIDGETS_MODULE = f"{PACKAGE}/book/figures/page.py"
WIDGETS_FILES = (f"{PACKAGE}/book/figures/scripts/*", f"{PACKAGE}/book/figures/widgets/*.json")


def inputs(project, name, notebook):
    """Return what the chapter rests on: a dict from a readable name to a digest.

    Raises:
        ChapterError: if a cell or an imported module does not parse, or a declared file is missing.
    """
    found = {"code cells": digest(*(cell.source for cell in notebooks.code_cells(notebook)))}
    modules = imported_modules(project, name, notebook)
    found |= {project.relative(path): digest(code_text(path)) for path in sorted(modules)}
    if LITERATURE_MODULE in found and (project.root / LITERATURE_FILE).is_file():
        found |= _declared(project, name, LITERATURE_FILE)
    if WIDGETS_MODULE in found:
        for pattern in WIDGETS_FILES:
            found |= _declared(project, name, pattern)
    found["requirements.lock"] = digest(*pins(project.lock))
    own = notebook.metadata.get("tfp_gaps", {})
    if CLAIMS_MODULE in found and (project.root / CLAIMS_FILE).is_file():
        found[f"{CLAIMS_FILE}, entries of {name}"] = digest(_claims_of(project, name))
    for pattern in own.get("depends_on", []):
        found |= _declared(project, name, pattern)
    for pattern in own.get("reads", []):
        paths = sorted(path for path in project.root.glob(pattern) if path.is_file())
        found |= {project.relative(path): digest(path.read_bytes()) for path in paths}
    return found


def reasons(project, name, notebook):
    """Return why the chapter has to be executed again; an empty list if it need not be."""
    cells = notebooks.code_cells(notebook)
    counts = [cell.execution_count for cell in cells]
    stored = notebook.metadata.get("tfp_gaps", {}).get("inputs")
    if stored is None:
        return ["never executed by this tool"]
    if counts != list(range(1, len(cells) + 1)):
        return ["not executed from top to bottom"]
    now = inputs(project, name, notebook)
    changed = [key for key in now if key in stored and now[key] != stored[key]]
    verbs = [
        (changed, "changed"),
        (now.keys() - stored, "is new"),
        (stored.keys() - now, "is gone"),
    ]
    return [f"{key} {verb}" for keys, verb in verbs for key in sorted(keys)]


def depends_on_chapters(notebook):
    """Whether the chapter reads the records of other chapters, and so is executed after them."""
    declared = notebook.metadata.get("tfp_gaps", {}).get("depends_on", [])
    return any(pattern.endswith(".ipynb") for pattern in declared)


def digest(*parts):
    """Return 16 hexadecimal digits of the SHA-256 of the parts, with their lengths."""
    sha = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode()
        sha.update(f"{len(data)}:".encode() + data)
    return sha.hexdigest()[:16]


def pins(lock):
    """Return the pinned packages of a lock, without hashes and comments."""
    if not lock.is_file():
        raise ChapterError(f"{lock} is missing. Write it with `make lock`.")
    lines = [line.strip().rstrip("\\").strip() for line in lock.read_text().splitlines()]
    return [line for line in lines if "==" in line and not line.startswith("#")]


# --- the modules that a chapter imports ----------------------------------------------------------


def imported_modules(project, name, notebook):
    """Return the paths of the package's modules that the code cells import, transitively."""
    waiting, lazy = [], _lazy_names(project.root)
    for cell in notebooks.code_cells(notebook):
        source = TransformerManager().transform_cell(cell.source)
        waiting += _references(_parse(source, f"a code cell of {name}"), package="")
    found = set()
    while waiting:
        reference = waiting.pop()
        for path in _files(project.root, lazy.get(reference, reference)):
            if path not in found:
                found.add(path)
                tree = _parse(path.read_text(encoding="utf-8"), path)
                waiting += _references(tree, package=_package_of(project, path))
    return found


def _parse(source, where):
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise ChapterError(f"{where} is not valid Python: {error}. Correct it first.") from error


def _package_of(project, path):
    """Return the dotted package in which relative imports of the file at `path` start."""
    return ".".join(path.relative_to(project.root).parent.parts)


def _references(tree, package):
    """Yield every dotted name that the code may import from the package."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _import_base(node, package)
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = [f"{node.value.id}.{node.attr}"]  # tfp_gaps.measure
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value]  # importlib.import_module("tfp_gaps.book.experiments.digits")
        yield from (name for name in names if name.split(".")[0] == PACKAGE)


def _lazy_names(root):
    """Return {"tfp_gaps.name": "tfp_gaps.module"} of the names that the package loads on use."""
    tree = _parse((root / PACKAGE / "__init__.py").read_text(encoding="utf-8"), PACKAGE)
    tables = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_MODULES"
    ]
    return {
        f"{PACKAGE}.{name}": f"{PACKAGE}.{module}"
        for table in tables
        for name, module in table.items()
    }


def _import_base(node, package):
    if node.level == 0:
        return node.module
    parents = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*parents, *([node.module] if node.module else [])])


def _files(root, dotted):
    """Yield the files that importing `dotted` runs, as far as they exist: packages, then module."""
    parts = dotted.split(".")
    if not all(part.isidentifier() for part in parts):
        return
    for depth in range(1, len(parts) + 1):
        path = root.joinpath(*parts[:depth])
        for candidate in (path / "__init__.py", path.with_suffix(".py")):
            if candidate.is_file():
                yield candidate


def code_text(path):
    """Return a module's source without comments and docstrings."""
    source = path.read_text(encoding="utf-8")
    lines, touched = source.split("\n"), set()
    for line, column in _comments(source):
        lines[line] = lines[line][:column].rstrip()
        touched.add(line)
    for first, last in _docstrings(_parse(source, path)):
        lines[first : last + 1] = [""] * (last + 1 - first)
        touched.update(range(first, last + 1))
    return "\n".join(line for number, line in enumerate(lines) if line or number not in touched)


def _comments(source):
    """Yield line (from 0) and column of every comment."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0] - 1, token.start[1]


def _docstrings(tree):
    """Yield first and last line (from 0) of every statement that is only a string."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield from [(node.lineno - 1, node.end_lineno - 1)] * isinstance(node.value.value, str)


# --- the files that a chapter declares -----------------------------------------------------------


def _declared(project, name, pattern):
    """Return the digests of the declared files; of other chapters, of their claim records."""
    paths = sorted(path for path in project.root.glob(pattern) if path.is_file())
    if not paths and not any(letter in pattern for letter in "*?["):
        raise ChapterError(
            f"{name} declares that it depends on {pattern}, which does not exist. Create the file, "
            "or correct tfp_gaps.depends_on in the metadata of the chapter."
        )
    found = {}
    for path in paths:
        key = project.relative(path)
        if path.suffix == ".ipynb":
            if path != project.path(name):
                records = notebooks.claim_records(notebooks.read(path))
                found[f"{key}, claim records"] = digest(json.dumps(records, sort_keys=True))
        else:
            found[key] = digest(path.read_bytes())
    return found


def _claims_of(project, name):
    """Return the entries of the chapter as text."""
    path = project.root / CLAIMS_FILE
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
        own = [entry for entry in entries if entry["chapter"] == name]
    except (yaml.YAMLError, TypeError, KeyError) as error:
        raise ChapterError(f"{path} is not a list of claims: {error}. Correct it first.") from error
    return json.dumps(own, sort_keys=True)
