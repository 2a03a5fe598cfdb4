"""The scripts of the chapters: what is seen, what that needs, no more, and they run."""

import ast
import pathlib
import subprocess
import sys

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import experiments
import notebooks
from notebooks import Project
from tfp_gaps.book.figures import overview

PROJECT = Project(pathlib.Path(__file__).resolve().parents[2])


def sliced(*cells):
    """The script of a chapter of these cells, without its head; hidden ones are tuples."""
    made = [
        new_code_cell(cell[0], metadata={"tags": [cell[1]]})
        if isinstance(cell, tuple)
        else new_code_cell(cell)
        for cell in cells
    ]
    notebook = new_notebook(cells=[new_markdown_cell("# Sums\n\nText."), *made])
    text = experiments.script("sums", notebook)
    assert text.startswith('"""Sums\n') and "book/sums.ipynb" in text
    return text.split('"""\n', 1)[1].strip().split("\n\n\n")


def test_what_is_seen_stays_as_it_is():
    cell = "x = 1  # one\n\n\ndef f(y):\n    return y  # the same"
    assert "\n\n\n".join(sliced(cell, ("show(x)", "hide-input"))) == cell


@pytest.mark.parametrize(
    ("hidden", "kept"),
    [
        ("a = 2\nb = 3", "a = 2"),
        ("a = 2\nshow(a)\nledger.put('a', a)", "a = 2"),
        ("a = [1]\na.append(2)\na[0] = 3", "a = [1]\na.append(2)\na[0] = 3"),
        ("import n\nn.style()\na = n.x", "import n\n\na = n.x"),
        ("from m import (\n    n,\n    a,\n)", "from m import a"),
        ("c = 1\n\n\ndef f():\n    return c\n\n\na = f()", None),
        ("a = 1\na = 2", "a = 2"),
        ("a = 1\na += 2", "a = 1\na += 2"),
        ("a = 1\nfor i in range(3):\n    a = a + i", "a = 1\nfor i in range(3):\n    a = a + i"),
        ("k = 2\na = {k: k for k in range(3)}", "a = {k: k for k in range(3)}"),
        ("a = 0\nfor i in n:\n    b = i\n    a += b", None),
        ("for name in 'xy':\n    show(name)\na = [n for n in 'xy']", "a = [n for n in 'xy']"),
        ("@dec\ndef a():\n    pass", "@dec\ndef a():\n    pass"),
    ],
)
def test_of_the_hidden_what_is_needed_stays(hidden, kept):
    text = "\n\n\n".join(sliced((hidden, "hide-input"), "print(a)"))
    assert text == f"{hidden if kept is None else kept}\n\n\nprint(a)"


def test_a_loop_needs_no_earlier_use_of_its_names():
    loop = "for name in 'xy':\n    found = name\n    print(found)"
    assert sliced(("name = found = 1\nshow(name)", "hide-input"), loop) == [loop]


def test_what_comes_later_is_not_needed():
    assert sliced("a = 1\nprint(a)", ("a = 2", "remove-cell")) == ["a = 1\nprint(a)"]


def test_the_scale_is_an_argument_but_for_stored_results():
    text = sliced('ü, s = "ü", load("book", n=size["book"])', 'r = runs.stored("book")')
    assert text[0] == 'import sys\n\nSCALE = sys.argv[1] if len(sys.argv) > 1 else "book"\n\n' + (
        'ü, s = "ü", load(SCALE, n=size[SCALE])'
    )
    assert text[1] == 'r = runs.stored("book")'


# --- the chapters --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")
    for name in overview.PLACES:
        notebook = notebooks.read(PROJECT.path(name))
        (folder / f"{name}.py").write_text(experiments.script(name, notebook), encoding="utf-8")
    return folder


def test_every_script_has_all_it_uses_and_nothing_idle(scripts):
    # Undefined and redefined names, unused imports.
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F401,F811,F82"]
    done = subprocess.run([*command, str(scripts)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", overview.PLACES)
def test_a_script_shows_its_chapter_and_none_of_the_machinery(scripts, name):
    text = (scripts / f"{name}.py").read_text(encoding="utf-8")
    asserted = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Assert)]
    assert asserted or "assert_" in text
    assert not [word for word in ("ledger", "NBVAL", "plt.", "show_markdown") if word in text]


def test_a_script_runs_small_in_a_process_of_its_own(tmp_path):
    """`make experiments` runs them all."""
    notebook = notebooks.read(PROJECT.path("literature"))
    assert "nats per step" in experiments.run("literature", notebook, tmp_path)


def test_a_script_that_fails_is_named_with_what_it_said(tmp_path):
    cells = [new_markdown_cell("# Sums"), new_code_cell("assert 1 > 2, 'too small'")]
    with pytest.raises(notebooks.ChapterError, match=r"script of sums fails (?s:.*)too small"):
        experiments.run("sums", new_notebook(cells=cells), tmp_path)
