"""One notation: every sign in a chapter's formulas is in the table, numbers have leading zeros."""

import pathlib
import re

import pytest

import notebooks
from notebooks import Project

PROJECT = Project(pathlib.Path(__file__).resolve().parents[2])
TABLE = (PROJECT.book / "notation.md").read_text(encoding="utf-8")
PAGES = sorted(path.stem for path in PROJECT.book.glob("*.md") if path.stem != "notation")
# What any reader of formulas knows, and what only sets them.
KNOWN = """
    ln exp log min max lim sum prod int sqrt frac tfrac det to in infty le ge sim approx propto pm
    mid Vert times cdot dots cdots begin end left right big bigl bigr underbrace qquad quad
"""
_FORMULA = re.compile(r"\$\$(.*?)\$\$|(?<![\\$])\$([^$]+)\$", re.DOTALL)
_WORDS = re.compile(
    r"\\(?:text|operatorname|begin|end)\*?\s*\{[^}]*\}|\\\\\[[^]]*\]|\\[^A-Za-z]|\[1ex\]"
)
_SIGN = re.compile(
    r"\\(?:math[a-z]+|bar|hat|tilde|vec|overline|underline|boldsymbol|bm)\s*"
    r"(?:\{\s*(?:\\[A-Za-z]+|[A-Za-z])\s*\}|\\[A-Za-z]+|[A-Za-z])|\\[A-Za-z]+|[A-Za-z]"
)
_BARE = re.compile(r"(?<![\w.)\]/-])[-−]?\.\d")


def signs(text):
    """The signs of all formulas in a Markdown text, with their accents and alphabets."""
    formulas = " ; ".join(first or second for first, second in _FORMULA.findall(text))
    found = _SIGN.findall(_WORDS.sub(" ", formulas))
    plain = {re.sub(r"[{}\s]+", " ", sign).strip() for sign in found}
    return plain - {f"\\{name}" for name in KNOWN.split()}


def table(name):
    """The signs that a page may use: those of all pages, and its own rows."""
    everywhere, _, single = TABLE.partition("## In single chapters")
    _, _, below = single.partition(f"### {{doc}}`{name}`\n")
    rows = [row for row in below.split("\n### ")[0].splitlines() if row.startswith("| ")]
    return signs(everywhere) | signs("\n".join(row.split(" | ")[0] for row in rows))


def text_of(name):
    """What a page says, without code."""
    path = PROJECT.path(name)
    if not path.is_file():
        return path.with_suffix(".md").read_text(encoding="utf-8")
    cells = notebooks.read(path).cells
    captions = [cell.metadata.get("mystnb", {}).get("figure", {}) for cell in cells]
    said = [cell.source for cell in cells if cell.cell_type == "markdown"]
    return "\n\n".join([*said, *(figure.get("caption", "") for figure in captions)])


def shown(name):
    """Texts of a page and what its cells show of text."""
    path = PROJECT.path(name)
    outputs = []
    for cell in notebooks.code_cells(notebooks.read(path)) if path.is_file() else ():
        for output in cell.outputs:
            data = output.get("data", {}) | {"text/plain": output.get("text", "")}
            kinds = ("text/plain", "text/markdown", "text/latex")
            outputs += [data[kind] for kind in kinds if kind in data]
    return "\n\n".join([text_of(name), *outputs])


@pytest.mark.parametrize("name", [*PROJECT.chapters(), *PAGES])
def test_every_sign_is_in_the_table(name):
    assert signs(text_of(name)) - table(name) == set(), "explain it in book/notation.md, or change"


@pytest.mark.parametrize("name", PROJECT.chapters())
def test_no_row_of_a_chapter_is_idle(name):
    general = signs(TABLE.partition("## In single chapters")[0])
    cells = notebooks.code_cells(notebooks.read(PROJECT.path(name)))
    labels = signs("\n".join(cell.source for cell in cells))
    assert table(name) - general - signs(text_of(name)) - labels == set()


@pytest.mark.parametrize("name", [*PROJECT.chapters(), *PAGES])
def test_numbers_have_leading_zeros(name):
    outside = re.sub(r"```.*?```|`[^`\n]*`|\]\([^)]*\)", " ", shown(name), flags=re.DOTALL)
    assert [outside[m.start() : m.end() + 20] for m in _BARE.finditer(outside)] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"$\mathcal{L}[q_\phi] \le \ln p(\bar C)$", {r"\mathcal L", "q", r"\phi", "p", r"\bar C"}),
        (r"$\mathbf x_t$, $q^\star$", {r"\mathbf x", "t", "q", r"\star"}),
        ("$$\n\\text{gap} = \\tfrac12 \\sum_t V\n$$", {"t", "V"}),
        (r"It costs \$3, and \$5 for $\bar\varepsilon$", {r"\bar\varepsilon"}),
        ("no formula x", set()),
    ],
)
def test_signs_are_found_as_written(text, found):
    assert signs(text) == found
