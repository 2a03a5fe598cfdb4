"""The committed chapters: executed, checked, fresh, labelled, and listed in the contents."""

import collections
import pathlib
import re

import pytest

import checks
import colab
import compare_outputs
import notebooks
from notebooks import Project

PROJECT = Project(pathlib.Path(__file__).resolve().parents[2])
CHAPTERS = PROJECT.chapters()
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


@pytest.fixture(params=CHAPTERS)
def chapter(request):
    return request.param, notebooks.read(PROJECT.path(request.param))


def test_the_contents_list_what_exists_and_nothing_else():
    listed = notebooks.toc_pages(PROJECT.root / "_toc.yml")
    suffixes = (".ipynb", ".md")
    found = [path.stem for path in PROJECT.book.iterdir() if path.suffix in suffixes]
    assert sorted(listed) == sorted(found)


def test_chapter_is_fit_to_be_committed(chapter):
    # Executed from top to bottom, fresh, checked cells, no errors, no stderr, alt texts, size.
    assert checks.problems(PROJECT, chapter[0]) == []


def test_chapter_fits_into_a_small_machine(chapter):
    name, notebook = chapter
    cost = notebook.metadata.tfp_gaps.cost
    assert cost.seconds < checks.MAXIMUM_SECONDS, name
    assert cost.peak_gigabytes < checks.MAXIMUM_GIGABYTES, name


def test_chapter_fetches_the_book_on_colab_and_only_there(chapter):
    _, notebook = chapter
    first = notebooks.code_cells(notebook)[0]
    assert first.source == colab.cell()
    # Not part of the page, and it prints nothing where the package is installed.
    assert first.metadata.tags == ["remove-cell"] and first.outputs == []


def test_metadata_are_nobodys(chapter):
    _, notebook = chapter
    assert set(notebook.metadata) <= {"kernelspec", "language_info", "tfp_gaps", "mystnb"}
    assert dict(notebook.metadata.kernelspec) == KERNEL
    for cell in notebook.cells:
        assert not {"execution", "vscode", "colab"} & set(cell.metadata)


# Cells whose numbers are not compared when they are executed again, since they show wall times.
TIMINGS = {"amortisation": 1}


def test_only_wall_times_are_exempt_from_the_comparison(chapter):
    name, notebook = chapter
    cells = [c for c in notebooks.code_cells(notebook) if compare_outputs.TIMING.search(c.source)]
    assert len(cells) == TIMINGS.get(name, 0)
    assert all("seconds" in cell.source for cell in cells)


# Cells that show single results of training, without errors: another machine gets other ones.
TRAINED_HERE = {
    "amortisation": 2,
    "approximation": 8,
    "digits": 3,
    "real-data": 3,
    "world-models": 4,
}


def test_only_declared_cells_show_single_results_of_training(chapter):
    name, notebook = chapter
    marked = compare_outputs.TRAINED_HERE
    cells = [c for c in notebooks.code_cells(notebook) if marked.search(c.source)]
    assert len(cells) == TRAINED_HERE.get(name, 0)


def decides_claims(name):
    cells = notebooks.code_cells(notebooks.read(PROJECT.path(name)))
    return any("ledger.record(" in cell.source for cell in cells)


@pytest.mark.parametrize("chapter", list(filter(decides_claims, CHAPTERS)), indirect=True)
def test_chapter_ends_with_what_would_refute_it_and_its_verdicts(chapter):
    _, notebook = chapter
    headings = [
        heading
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        for heading in re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)
    ]
    assert "What would make this chapter's claims false" in headings
    last = notebooks.code_cells(notebook)[-1]
    assert last.source.startswith(checks.CHECKED)
    verdicts = [record["id"] + " " + record["verdict"] for record in records(notebook)]
    assert last.outputs[0].text.splitlines() == sorted(verdicts)


def records(notebook):
    return notebooks.claim_records(notebook)


def test_figure_names_are_unique_in_the_book():
    names = collections.Counter(
        cell.metadata.mystnb.figure.name
        for chapter in CHAPTERS
        for cell in notebooks.read(PROJECT.path(chapter)).cells
        if "figure" in cell.metadata.get("mystnb", {})
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_pages_names_survive_a_change_of_builder():
    # An underscore in a page name changes its address in some of them.
    assert [name for name in CHAPTERS if not re.fullmatch(r"[a-z]+(-[a-z]+)*", name)] == []
