"""The page on the package: everything public is on it, and chapters link to it."""

import importlib
import pathlib
import pkgutil
import re

import api
import polish
import tfp_gaps

ROOT = pathlib.Path(__file__).resolve().parents[2]
LINES = api.lines(ROOT)


def test_every_public_module_with_a_function_is_there():
    titles = {line for line in LINES if line.startswith("### ")}
    for found in pkgutil.walk_packages(tfp_gaps.__path__, "tfp_gaps."):
        if found.ispkg or any(part.startswith("_") for part in found.name.split(".")):
            continue
        assert f"### `{found.name.removeprefix('tfp_gaps.')}`" in titles, found.name


def test_what_is_shown_is_what_python_says():
    module = importlib.import_module("tfp_gaps.estimate")
    place = LINES.index("### `estimate`")
    shown = "\n".join(LINES[place:])
    assert module.__doc__.strip().splitlines()[0] in shown
    assert module.Estimate.__doc__.strip().splitlines()[0] in shown
    assert "::::{dropdown} `paired_difference(" in shown


def test_nothing_private_and_no_anchor_twice():
    anchors = [line for line in LINES if line.startswith("(api-")]
    assert len(set(anchors)) == len(anchors) > 300
    assert not [line for line in LINES if re.match(r"::::\{dropdown\} `_", line)]


def test_a_signature_names_fields_and_arguments():
    lines = api.module("tfp_gaps.x.y", api.ast.parse(SOURCE))
    shown = [line for line in lines if line.startswith("::::{")]
    assert shown == ["::::{dropdown} `Pair(first, second=…)`", "::::{dropdown} `add(a, *, b=1)`"]
    assert lines[:2] == ["(api-tfp-gaps-x-y)=", "### `x.y`"]


SOURCE = '''"""Sums."""
class Pair:
    """Two."""
    first: int
    second: int = 0
def add(a, *, b=1):
    """Sum."""
def _hidden():
    """No."""
'''

IMPORT = (
    '<span class="kn">from</span><span class="w"> </span><span class="nn">tfp_gaps.exact</span>'
    '<span class="w"> </span><span class="kn">import</span> <span class="n">bit</span>'
    '<span class="p">,</span> <span class="n">none</span>\n<span class="n">bit</span>'
)


def test_imports_lead_to_the_page():
    linked = polish.link_imports(IMPORT, {"api-tfp-gaps-exact-bit"})
    assert linked.count('href="api.html#api-tfp-gaps-exact-bit">bit</a>') == 1
    assert '<span class="n">none</span>' in linked
    assert linked.endswith('\n<span class="n">bit</span>')
    assert polish.link_imports(linked, {"api-tfp-gaps-exact-bit"}) == linked
