"""The glossary: links where they belong, nowhere else, and in every chapter."""

import pathlib

import pytest

import notebooks
import terms
from notebooks import Project

PROJECT = Project(pathlib.Path(__file__).resolve().parents[2])
WORDS = terms.entries((PROJECT.book / "glossary.md").read_text())
MINIMUM = 3


@pytest.mark.parametrize(
    ("text", "linked"),
    [
        ("The evidence is high.", "The {term}`evidence` is high."),
        ("Evidence of a filter.", "Evidence of a {term}`filter`."),
        ("A Kalman filter.", "A {term}`Kalman filter`."),
        ("Two beliefs.", "Two {term}`beliefs <belief>`."),
        ("The evidence lower bound.", "The {term}`evidence lower bound <ELBO>`."),
        ("# The evidence\n\nThe evidence.", "# The evidence\n\nThe {term}`evidence`."),
        ("$evidence$ `evidence` [evidence](a.md)", None),
        ("| evidence |\n\n<!-- evidence -->", None),
        ("```{dropdown} Why\nThe evidence.\n```", None),
        ("$$\n\\text{evidence}\n$$", None),
        ("The {term}`evidence`, the evidence.", None),
        ("The evidence-based world modelling.", None),
        ("We shrink the capacity.", None),
    ],
)
def test_words_are_linked_in_prose_only(text, linked):
    words = [word for word in WORDS if word not in terms.BY_HAND]
    assert terms.add_links([text], words) == [linked or text]


def test_only_the_first_use_in_a_chapter_is_linked():
    cells = ["Nothing.", "The evidence and the evidence.", "The evidence."]
    once = ["Nothing.", "The {term}`evidence` and the evidence.", "The evidence."]
    assert terms.add_links(cells, ["evidence"]) == once
    assert terms.add_links(once, ["evidence"]) == once


def test_every_form_belongs_to_an_entry_and_entries_are_unique():
    assert set(terms.FORMS) | terms.BY_HAND <= set(WORDS)
    assert len({word.lower() for word in WORDS}) == len(WORDS) > 30


@pytest.mark.parametrize("name", PROJECT.chapters())
def test_chapter_links_terms_that_exist(name):
    cells = notebooks.read(PROJECT.path(name)).cells
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    found = [word for text in texts for word in terms.linked(text)]
    known = {word.lower() for word in WORDS}
    assert [word for word in found if word.lower() not in known] == []
    advice = f"run: python tools/terms.py {name}"
    assert len(set(found)) >= MINIMUM, advice
    # Linked at first use: once each.
    assert len(found) == len(set(found)), advice
