"""What pages take from data: it says what the notebooks and the ledger say."""

import json
import pathlib
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import pages
from notebooks import Project, code_cells, read
from tfp_gaps.book.ledger import claims, scorecard
from tfp_gaps.book.ledger.claims import Claim, Criterion, Record
from tfp_gaps.book.ledger.scorecard import Row
from tfp_gaps.estimate import Estimate

PROJECT = Project(pathlib.Path(__file__).resolve().parents[2])
MACHINE = {"processor": "Abacus", "memory_gigabytes": 8, "gpus": ["Bead"], "system": "Linux"}


def row(name, value, chapter="sums"):
    """A row of a claim that asks for at least 1; None for a claim without a chapter."""
    criterion = Criterion("gain, nats", "at_least", 1.0, why="a size", margin=0.5)
    claim = Claim(name, "Sums grow.", ("somebody",), "quantitative", chapter, (criterion,))
    if value is None:
        return Row(claim, None, claims.NOT_TESTED, None, "add up")
    record = Record(claim, {"gain, nats": Estimate(value, 0.1)})
    return Row(claim, record, record.verdict, f"{chapter}.html#claim-{name}", "")


@pytest.fixture
def project(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "requirements.lock").write_text("numpy==2.0.2 \\\n    --hash=sha256:aa\n")
    cost = {"seconds": 2.4, "cpu_seconds": 3.6, "peak_gigabytes": 0.25, "cores": 2}
    cells = [new_markdown_cell("# Sums"), new_code_cell("1")]
    own = {"cost": cost, "machine": MACHINE}
    notebook = new_notebook(cells=cells, metadata={"tfp_gaps": own})
    nbformat.write(notebook, tmp_path / "book/sums.ipynb")
    return Project(tmp_path)


def test_verdicts_are_counted_by_chapter(project):
    rows = [row("C01", 3.0), row("C02", 1.1), row("C03", None, chapter=None)]
    lines = pages.verdicts(project, rows)
    assert lines[0] == f"> **{scorecard.summary_line(rows)}**"
    assert lines[-3:] == [
        "| [Sums](sums.ipynb) | 1 | 0 | 1 | 0 | 0 | 0 |",
        "| no chapter | 0 | 0 | 0 | 0 | 1 | 0 |",
        "| **all** | 1 | 0 | 1 | 0 | 1 | 0 |",
    ]
    assert pages.held(rows)[-1] == "| quantitative | 1 | 0 | 1 | 0 | 1 | 0 | 3 |"


def test_what_differs_comes_with_its_numbers():
    lines = pages.listed([row("C01", 3.0), row("C02", 1.1)], claims.DIFFERENT)
    assert lines == [
        '- <a href="sums.html#claim-C02">C02</a>: Sums grow.',
        "  - gain, nats: **1.10 ± 0.10**, where at least 1, margin 0.5 was asked",
    ]
    assert pages.listed([row("C01", 3.0)], claims.DIFFERENT) == [
        "No claim that was measured came out different."
    ]
    (_, undecided) = pages.listed([row("C02", 1.25)], claims.UNDECIDED)
    assert undecided == (
        "  - gain, nats: **1.25 ± 0.10**, where at least 1, margin 0.5 was asked; "
        "detects an effect of 0.39 with 90 % power, where 0.5 matters; "
        "the estimate lies too near the bound, a replication on new seeds would decide"
    )
    assert pages.pending([row("C03", None)]) == ["- C03: Sums grow. Plan: add up"]


def test_costs_say_machine_and_state(project):
    lines = pages.costs(project)
    machine, state = "Abacus, 8 GB, Bead", "stale: never executed by this tool"
    assert lines[-2:] == [
        f"| [Sums](sums.ipynb) | 2 | 4 | 0.25 | 2 | {machine} | {state} |",
        "| **all, one after the other** | 2 | 4 | 0.25 |  |  |  |",
    ]


def test_what_differs_elsewhere_is_a_table(project):
    assert pages.circumstances(project) == ["Not run yet: `python tools/variants.py`."]
    found = {
        "outputs": 7,
        "different": 2,
        "other_words": 1,
        "flips": ["C01: reproduced -> different"],
    }
    found |= {"largest_relative": 0.0123, "largest_in_errors": 0.44, "differences": []}
    row = {"chapter": "sums", "variant": "avx2", "commit": "abc", "machine": MACHINE}
    failed = row | {"variant": "act-as-gpu", "failure": "sums, cell 2 took more than 600 s:\nadd()"}
    (project.root / "tools").mkdir()
    (project.root / "tools/variants.json").write_text(json.dumps([row | found, failed]))
    assert pages.circumstances(project)[2:] == [
        "| sums | avx2 | 7 | 2 | 1 | 0.01 | 0.4 | C01: reproduced -> different |",
        "| sums | act-as-gpu | **failed**: sums, cell 2 took more than 600 s: |  |  |  |  |  |",
        "",
        "Commit `abc`, Abacus, 8 GB, Bead.",
    ]


def test_a_book_without_a_ledger_has_no_generated_parts(project):
    pages.write(project.root)
    assert not (project.book / pages.FOLDER).exists()


def test_the_page_includes_every_part_and_no_number():
    pages.write(PROJECT.root)
    text = (PROJECT.book / "reproducibility.md").read_text()
    parts = {path.name for path in (PROJECT.book / pages.FOLDER).glob("*.md")}
    included = {name for name in parts if f"{{include}} {pages.FOLDER}/{name}\n" in text}
    assert included == parts - {"api.md", "citation.md", "changelog.md"}
    assert not [word for word in text.split() if word.strip("(.,)").isdigit()]


def test_the_post_is_computed_sentence_by_sentence_where_the_table_says():
    """Each row names chapters that exist, and each of its claims is measured in one of them."""
    text = (PROJECT.book / "reproducibility.md").read_text()
    table = text.split("## The post, sentence by sentence")[1].split("\n## ")[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]
    ledger, named = claims.load(PROJECT.book / "claims.yml"), set()
    for statement, chapters, decided in rows:
        known = set(re.findall(r"\[([\w-]+)\]\(\1\.ipynb\)", chapters))
        assert known and known <= set(PROJECT.chapters()), statement
        ids = re.findall(r"{claim}`(\w+)`", decided)
        assert {ledger[id_].chapter for id_ in ids} <= known, statement
        assert ids or re.match("definition|motivation", decided), statement
        named.update(ids)
    assert {c.id for c in ledger.values() if "soelch2021tale" in c.source} <= named


def test_the_line_to_compare_is_the_scorecards():
    pages.write(PROJECT.root)
    line = (PROJECT.book / pages.FOLDER / "verdicts.md").read_text().splitlines()[0]
    last = code_cells(read(PROJECT.path("scorecard")))[-1]
    assert line == f"> **{last.outputs[0].text.strip()}**"


def test_a_table_of_a_benchmark_comes_with_its_origin(project):
    assert "benchmarks.targets" in pages.checked(project, "targets")[0]
    origin = {"command": "python -m benchmarks.targets", "commit": "abc", "date": "2026-01-02"}
    origin |= {"seconds": 125.0, "device": "CPU, 2 cores", "versions": {"numpy": "2.0"}}
    stored = {"table": {"header": ["a", "b"], "rows": [["x", "1 ± 2"]]}, "provenance": origin}
    (project.book / "targets.json").write_text(json.dumps(stored))
    lines = pages.checked(project, "targets")
    assert lines[:3] == ["| a | b |", "| --- | --- |", "| x | 1 ± 2 |"]
    assert "commit `abc`" in lines[-1] and "2 min on CPU, 2 cores; numpy 2.0" in lines[-1]


def test_the_entries_to_cite_are_those_of_the_checkout():
    lines = pages.citation(PROJECT)
    text = "\n".join(lines)
    assert [line for line in lines if line.startswith("@")] == [
        "@misc{tale-of-gaps,",
        "@misc{soelch2021tale,",
        "@inproceedings{bayer2021mind,",
        "@inproceedings{cremer2018inference,",
        "@inproceedings{kayalibay2021less,",
    ]
    assert "author = {{the Tale of Gaps contributors}}" in text
    assert text.count("{") == text.count("}")
    assert max(len(line) for line in lines) <= 80
    stored = (PROJECT.book / "references.bib").read_text(encoding="utf-8")
    entry = stored[stored.index("@inproceedings{bayer2021mind,") :].split("\n}")[0]
    assert " ".join(entry.split()) in " ".join(text.split())


def test_the_changelog_of_the_page_links_to_no_file_of_the_checkout():
    text = "\n".join(pages.changelog(PROJECT))
    assert "`CONTRIBUTING.md`" in text and "](CONTRIBUTING.md)" not in text
    assert not text.startswith("#")
