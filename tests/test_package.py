"""The shape of the package: who may import whom, and what `import tfp_gaps` offers."""

import ast
import pathlib
import subprocess
import sys

import pytest

import tfp_gaps

ROOT = pathlib.Path(tfp_gaps.__file__).resolve().parent
# Each room may import from itself and from the rooms named; a root module is a room of its own.
HELPERS = {"_checks", "_tensorflow", "storage"}
DATA = {"estimate", "tables", "sequences", "networks"} | HELPERS
ROOMS = {
    "exact": {"_checks", "_tensorflow"},
    "models": {"models", "exact", "networks", "sequences"} | HELPERS,
    "posteriors": {"posteriors", "models", "exact"} | DATA,
    "_checks": set(),
    "_tensorflow": set(),
    "storage": set(),
    "tables": set(),
    "estimate": {"_checks"},
    "gaps": {"_checks", "estimate", "tables"},
    "sequences": HELPERS,
    "networks": HELPERS,
    "training": {"networks", "sequences"} | HELPERS,
    "annealing": {"networks"} | HELPERS,
    "bounds": {"models", "posteriors"} | DATA,
    "filtering": {"models", "posteriors", "bounds"} | DATA,
    "forecasting": {"models", "posteriors", "bounds", "filtering"} | DATA,
    "sequential": {"models", "posteriors", "bounds", "filtering", "forecasting", "training", "gaps"}
    | {"exact"}
    | DATA,
    "measuring": {"models", "posteriors", "bounds", "annealing", "gaps"} | DATA,
    "__init__": set(),
}


def modules():
    return sorted(path for path in ROOT.rglob("*.py") if "__pycache__" not in path.parts)


def room(path):
    """The room of a file, as in `ROOMS`; "book" and "__main__" stand above them."""
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imported_rooms(path):
    """The rooms that a file imports from, found in its text."""
    known = {room(other) for other in modules()}
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "tfp_gaps" and parts[1:] != ["__version__"]:
                assert len(parts) > 1 and parts[1] in known, f"{path} imports {name}"
                found.add(parts[1])
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path):
    own = room(path)
    if own == "__main__":
        return
    allowed = set(ROOMS) - {"__init__"} | {"book"} if own == "book" else ROOMS[own] | {own}
    assert imported_rooms(path) <= allowed


def test_no_room_lies_below_itself():
    """The table above is a hierarchy: rooms can be put in an order in which none looks up."""
    left = dict(ROOMS)
    while left:
        lowest = [name for name, below in left.items() if not (below - {name}) & set(left)]
        assert lowest, left
        for name in lowest:
            del left[name]


def test_the_root_stays_small():
    assert len(list(ROOT.glob("*.py"))) <= 16
    roots = {path.stem for path in ROOT.glob("*.py")}
    assert not roots & set(tfp_gaps.__all__), "a module hides a public name of the package"


@pytest.mark.parametrize("name", tfp_gaps.__all__)
def test_every_public_name_is_there_and_explained_with_an_example(name):
    value = getattr(tfp_gaps, name)
    assert value.__name__ == name
    assert ">>> " in value.__doc__, f"{name} needs an example"


def test_an_unknown_name_is_answered_with_what_there_is():
    with pytest.raises(AttributeError, match=r"no attribute 'mesure'; it offers .*measure"):
        _ = tfp_gaps.mesure


@pytest.mark.parametrize("first", ["tfp_gaps.measuring", "tfp_gaps"])
def test_a_name_is_the_function_whichever_is_imported_first(first):
    """A submodule that is imported becomes an attribute of the package, and must hide nothing."""
    code = (
        f"import {first}; import tfp_gaps; from tfp_gaps import measure; import tfp_gaps.measuring;"
        "assert callable(tfp_gaps.measure) and measure is tfp_gaps.measuring.measure"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_importing_the_package_alone_loads_nothing_heavy():
    """Under a tenth of a second, which no import of NumPy or TensorFlow would be."""
    code = "import sys, tfp_gaps; print(*sorted(m for m in sys.modules if '.' not in m))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"numpy", "scipy", "tensorflow", "matplotlib"} & set(done.stdout.split())
