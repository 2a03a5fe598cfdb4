"""Every chapter has the shape in which the book teaches: answer, idea in code, story, what is left.

What a reader sees at once is what stands outside folds: Markdown but for dropdowns, cells whose
input is not hidden, outputs of cells that are not hidden as a whole. Counted in the notebooks'
sources and stored outputs; nothing is executed.
"""

import ast
import pathlib
import re

import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import notebooks
from notebooks import Project
from tfp_gaps.book.figures import overview
from tfp_gaps.book.ledger import claims

PROJECT = Project(pathlib.Path(__file__).resolve().parents[2])
# Pages about the book, which answer no question.
CHAPTERS = [name for name in PROJECT.chapters() if name not in ("index", "scorecard")]
IDEA_LINES, COLUMNS, TABLES, WORDS = 25, 80, 6, 2500
NUMBER = r"(?<![A-Za-z])\d|\{glue"  # not the 3 of a model's name
MACHINERY = r"\b[Ll]edger\b|\bput\(|NBVAL|\bglue\(|show_markdown|rows\.append|\.to_html\("
ENDINGS = ["What to remember", "What would make this chapter's claims false", "Try to break it"]
_FOLD = re.compile(r"^(`{3,}|:{3,})\{dropdown\}.*?^\1$", re.DOTALL | re.MULTILINE)
_FENCED = re.compile(r"<!-- cost -->.*?<!-- /cost -->|^(?:`{3,}|:{3,}).*?$|^:\w+:.*?$", re.S | re.M)


# --- what is seen at once ------------------------------------------------------------------------


def tags(cell):
    return set(cell.metadata.get("tags", []))


def prose(notebook):
    """The Markdown outside folds, cell by cell."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    return [_FOLD.sub("", cell.source) for cell in cells if "remove-cell" not in tags(cell)]


def visible_code(notebook):
    """The code cells whose input is seen."""
    hidden = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
    return [cell for cell in notebooks.code_cells(notebook) if not hidden & tags(cell)]


def visible_outputs(notebook):
    """What is seen of outputs, as pairs of kind and text."""
    hidden = {"hide-output", "hide-cell", "remove-output", "remove-cell"}
    for cell in notebooks.code_cells(notebook):
        if hidden & tags(cell):
            continue
        for output in cell.outputs:
            yield from output.get("data", {}).items()
            if output.output_type == "stream":
                yield "text/plain", output.text


def markup(notebook):
    """HTML that cells show, parsed, without what is folded within it."""
    for kind, text in visible_outputs(notebook):
        if kind == "text/html":
            page = BeautifulSoup(text, "html.parser")
            for fold in page.find_all("details"):
                fold.decompose()
            yield page


# --- what is asked -------------------------------------------------------------------------------


def no_answer(notebook):
    """The first cell is title, cost, and a box with the answer and its number."""
    box = re.search(
        r"```\{admonition\} Answer\n:class: tip\n(.*?)```", notebook.cells[0].source, re.S
    )
    if box is None:
        yield "the first cell has no box {admonition} Answer of :class: tip"
    elif "{glue:text}" not in box[1]:
        yield "the answer holds no number that a cell computed"


def no_idea(notebook):
    """One cell that a reader can take along: short, complete, and it asserts what it found."""
    candidates = [cell.source for cell in visible_code(notebook) if _asserts(cell.source)]
    short = [source for source in candidates if len(source.splitlines()) <= IDEA_LINES]
    if not candidates:
        yield "no visible cell with an assertion"
    elif not short:
        yield f"no visible cell with an assertion has at most {IDEA_LINES} lines"
    elif not any(re.search(r"^(?:import|from) ", source, re.M) for source in short):
        yield "the cell with the assertion does not import what it needs"


def _asserts(source):
    calls = [n.func for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)]
    names = [getattr(call, "attr", getattr(call, "id", "")) for call in calls]
    has = any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(source)))
    return has or any(name.startswith("assert_") for name in names)


def too_many_tables(notebook):
    """Tables are for looking up; what is read is a plot."""
    rule = re.compile(r"^ *\|?(?: *:?-+:? *\|)+(?: *:?-+:? *)?$", re.MULTILINE)
    shown = [text for kind, text in visible_outputs(notebook) if kind == "text/markdown"]
    number = sum(len(rule.findall(text)) for text in [*prose(notebook), *shown])
    number += sum(len(page.find_all("table")) for page in markup(notebook))
    if number > TABLES:
        yield f"{number} tables outside folds, more than {TABLES}"


def too_long(notebook):
    """Twenty minutes: prose and captions, a formula or an inserted number as one word."""
    captions = [
        cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", "")
        for cell in notebooks.code_cells(notebook)
        if not {"hide-cell", "remove-cell"} & tags(cell)
    ]
    number = sum(words(text) for text in [*prose(notebook), *captions])
    # The chapter that stands for two is to be no longer than one.
    most = 2000 if "# Real data" in notebook.cells[0].source else WORDS
    if number > most:
        yield f"{number} words outside folds, more than {most}"


def words(text):
    text = re.sub(r"\$\$.*?\$\$|\$[^$]+\$", " formula ", _FENCED.sub(" ", text), flags=re.S)
    return len(re.findall(r"[^\W_][\w'’.,-]*", re.sub(r"\{[a-z:]+\}`|\]\([^)]*\)", " ", text)))


def wide_lines(notebook):
    """Code and printed lines fit without scrolling sideways."""
    texts = [cell.source for cell in visible_code(notebook)]
    for cell in visible_code(notebook):
        texts += [output.text for output in cell.outputs if output.output_type == "stream"]
    for line in "\n".join(texts).splitlines():
        if len(line) > COLUMNS:
            yield f"{len(line)} columns, more than {COLUMNS}: {line}"


def bold_numbers(notebook):
    """Bold is for terms at their first use."""
    shown = [text for kind, text in visible_outputs(notebook) if kind == "text/markdown"]
    for text in [*prose(notebook), *shown]:
        for bold in re.findall(r"\*\*([^*\n]+)\*\*|__([^_\n]+)__", text):
            if re.search(NUMBER, "".join(bold)):
                yield f"bold: {''.join(bold)}"
    for page in markup(notebook):
        for bold in page.find_all(["b", "strong"]):
            if re.search(NUMBER, bold.get_text()):
                yield f"bold: {bold.get_text()}"


def machinery(notebook):
    """What makes the page is not what the page is about."""
    for cell in visible_code(notebook):
        for found in re.findall(MACHINERY, cell.source):
            yield f"{found} is seen in the cell {cell.source.splitlines()[0]!r}"


def wrong_endings(notebook):
    """What to remember, what would make it false, one attempt to break it, and how hard it is."""
    headings = re.findall(r"^## (.+)$", "\n".join(prose(notebook)), re.MULTILINE)
    if headings[-3:] != ENDINGS or len(set(headings)) < len(headings):
        yield f"should end with the sections {ENDINGS}, but with {headings[-3:]}"
    last = "\n".join(prose(notebook)).rpartition("## Try to break it\n")[2]
    if not re.match(r"\n*\*Level: [^*]+\.\*", last):
        yield "«Try to break it» does not begin with its level, as *Level: one line of code.*"


def unfolded_verdicts(notebook):
    """One fold with all verdicts, at the end."""
    decided = "How it was decided: the verdict"
    folds = [
        cell
        for cell in notebooks.code_cells(notebook)
        if cell.metadata.get("mystnb", {}).get("code_prompt_show", "").startswith(decided)
    ]
    if len(folds) != 1 or "hide-cell" not in tags(folds[0]):
        yield f"{len(folds)} folded cells are called «{decided}...», and not one"
    for page in markup(notebook):
        for record in page.find_all(id=re.compile(r"^claim-")):
            yield f"the verdict {record['id']} is not folded"


ASKED = [
    no_answer,
    no_idea,
    too_many_tables,
    too_long,
    wide_lines,
    bold_numbers,
    machinery,
    wrong_endings,
    unfolded_verdicts,
]


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter_has_the_shape(name, asked):
    assert list(asked(notebooks.read(PROJECT.path(name)))) == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_claim_of_a_chapter_has_its_badge(name):
    text = "\n".join(prose(notebooks.read(PROJECT.path(name))))
    known = claims.load(PROJECT.book / "claims.yml").values()
    own = {claim.id for claim in known if claim.chapter == name}
    assert own - set(re.findall(r"\{claim\}`(C\d+)`", text)) == set()


def test_every_chapter_has_its_place_in_the_drawing():
    assert sorted(overview.PLACES) == sorted(CHAPTERS)


# --- the checks themselves -----------------------------------------------------------------------

ANSWER = "# Gaps\n\n```{admonition} Answer\n:class: tip\nIt is {glue:text}`gap`.\n```\n"
IDEA = "import numpy as np\n\nassert np.log(1) == 0"
ENDING = (
    "## What to remember\n\nIt.\n\n## What would make this chapter's claims false\n\nThat.\n\n"
    "## Try to break it\n\n*Level: one line of code.* Why?"
)
TABLE = "| a | b |\n|---|---|\n| 1 | 2 |\n"


def small(*cells):
    """A chapter in shape, with these cells in its middle; texts are Markdown."""
    made = [new_markdown_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    start = [new_markdown_cell(ANSWER), new_code_cell(IDEA)]
    return new_notebook(cells=[*start, *made, new_markdown_cell(ENDING), verdicts()])


def verdicts():
    prompt = {"code_prompt_show": "How it was decided: the verdict"}
    return new_code_cell("record()", metadata={"tags": ["hide-cell"], "mystnb": prompt})


def shows(kind, text, *tags):
    output = new_output("display_data", {kind: text})
    return new_code_cell("show()", metadata={"tags": list(tags)}, outputs=[output])


def folded(text):
    return f"```{{dropdown}} More\n{text}\n```"


def code(source, *tags):
    return new_code_cell(source, metadata={"tags": list(tags)})


@pytest.mark.parametrize(
    "cells",
    [
        (),
        (TABLE,) * 6,
        (TABLE, folded(TABLE * 6), shows("text/markdown", TABLE * 6, "hide-cell")),
        (shows("text/html", "<details><table></table></details>" * 7, "hide-input"),),
        ("word " * 2400, folded("word " * 2400), "$$\n" + "a + " * 200 + "\n$$"),
        (code("x" * 81, "hide-input"), code("ledger.put(1)", "remove-input")),
        (
            "**bold** 1, **DreamerV3**",
            folded("**1**"),
            shows("text/markdown", "**1**", "hide-cell"),
        ),
    ],
)
def test_a_chapter_in_shape_passes(cells):
    assert [found for asked in ASKED for found in asked(small(*cells))] == []


@pytest.mark.parametrize(
    ("asked", "cells", "words"),
    [
        (too_many_tables, (TABLE,) * 7, "7 tables"),
        (too_many_tables, [shows("text/html", "<table></table>" * 7, "hide-input")], "7 tables"),
        (too_many_tables, [shows("text/markdown", TABLE) for _ in range(7)], "7 tables"),
        (too_long, ["word " * 2500], "25.. words"),
        (wide_lines, [code("a = " + "1" * 77)], "81 columns"),
        (bold_numbers, ["It is **1.2 nats**."], "bold: 1.2 nats"),
        (bold_numbers, ["It is **{glue:text}`gap`**."], "bold"),
        (bold_numbers, [shows("text/html", "<b>3</b>")], "bold: 3"),
        (machinery, [code("# NBVAL_CHECK_OUTPUT")], "NBVAL is seen"),
        (machinery, [code("ledger.record('C1')")], "ledger is seen"),
        (wrong_endings, ["## Try to break it"], "should end with"),
        (unfolded_verdicts, [shows("text/html", '<p id="claim-C1">')], "claim-C1 is not folded"),
        (unfolded_verdicts, [verdicts()], "2 folded cells"),
    ],
)
def test_each_check_finds_its_fault(asked, cells, words):
    [found] = asked(small(*cells))
    assert re.search(words, found)


@pytest.mark.parametrize(
    ("asked", "cell", "source", "words"),
    [
        (no_answer, 0, "# Gaps", "no box"),
        (no_answer, 0, ANSWER.replace("{glue:text}`gap`", "2"), "no number"),
        (no_idea, 1, "import numpy", "no visible cell"),
        (no_idea, 1, IDEA + "\n#" * 25, "at most 25 lines"),
        (no_idea, 1, "assert True", "does not import"),
        (wrong_endings, 2, ENDING.replace("*Level", "*Lever"), "its level"),
        (wrong_endings, 2, ENDING.replace("to remember", "for"), "should end with"),
    ],
)
def test_what_is_missing_is_found(asked, cell, source, words):
    notebook = small()
    notebook.cells[cell].source = source
    [found] = asked(notebook)
    assert words in found
