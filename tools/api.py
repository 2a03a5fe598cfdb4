"""Write the page on the package's functions from their docstrings; nothing is imported for it.

Docstrings are shown as they stand, in plain text: they hold formulas in columns, and examples that
the tests run. A name that starts with an underscore is nobody's business.
"""

import ast
import pathlib

PACKAGE = "tfp_gaps"


def lines(root):
    """Return the lines of Markdown for all public modules below a checkout."""
    found = {}
    for path in sorted((pathlib.Path(root) / PACKAGE).rglob("*.py")):
        name = module_name(path.relative_to(root))
        if not any(part.startswith("_") for part in name.split(".")):
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    written, group = [], None
    for name in sorted(found, key=lambda each: (each.count(".") > 1, each)):
        parent = name.rpartition(".")[0] if name.count(".") > 1 else PACKAGE
        if parent != group:
            group = parent
            written += [f"## `{group}`", ""]
        written += module(name, found[name])
    return written


def module_name(path):
    """Dotted name of a module from its path below the root.

    >>> module_name(pathlib.Path("tfp_gaps/exact/bit.py"))
    'tfp_gaps.exact.bit'
    """
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def anchor(name):
    """What a link to a module or to a name in it ends in.

    >>> anchor("tfp_gaps.exact.bit")
    'api-tfp-gaps-exact-bit'
    """
    # Identifiers know no case: `Draw` and `draw` must not become one.
    kind = "-class" if name.rpartition(".")[2][:1].isupper() else ""
    return "api-" + name.replace(".", "-").replace("_", "-").lower() + kind


def module(name, tree):
    """Lines for one module: its own words, then what it offers."""
    offered = [node for node in tree.body if is_public(node)]
    words = ast.get_docstring(tree) or ""
    if not offered and name.count(".") < 2:
        return []
    written = [f"({anchor(name)})=", f"### `{name.removeprefix(PACKAGE + '.')}`", "", *text(words)]
    for node in offered:
        words = ast.get_docstring(node) or ""
        written += [
            f"({anchor(f'{name}.{node.name}')})=",
            f"::::{{dropdown}} `{node.name}{signature(node)}`",
            *text(words),
        ]
        written += ["::::", ""]
    return written


def is_public(node):
    """Whether a statement defines a public function or class."""
    kinds = ast.FunctionDef | ast.ClassDef
    return isinstance(node, kinds) and not node.name.startswith("_")


def text(words):
    """A block of plain text."""
    return ["```text", *words.strip().splitlines(), "```", ""] if words.strip() else [""]


def signature(node):
    """Arguments of a function, of a constructor, or of the fields of a data class."""
    if isinstance(node, ast.FunctionDef):
        return f"({ast.unparse(node.args)})"
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            given = ast.unparse(statement.args)
            return f"({given.removeprefix('self').removeprefix(', ')})"
    fields = [
        ast.unparse(statement.target) + ("" if statement.value is None else "=…")
        for statement in node.body
        if isinstance(statement, ast.AnnAssign)
    ]
    return f"({', '.join(fields)})"
