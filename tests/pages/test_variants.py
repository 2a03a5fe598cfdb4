"""Two executions of a chapter side by side: which outputs differ, by how much, in what."""

import copy
import json
import pathlib

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import variants
from notebooks import CLAIM_MIME, Project, code_cells, read

PROJECT = Project(pathlib.Path(__file__).resolve().parents[2])
GLUE = "application/papermill.record/text/plain"


def stream(text):
    return new_output("stream", name="stdout", text=text)


def glued(name, text):
    metadata = {"scrapbook": {"name": name, "mime_prefix": "application/papermill.record/"}}
    return new_output("display_data", {GLUE: repr(text)}, metadata=metadata)


def claim(value, error=0.0, verdict="reproduced", bound=1e-8):
    record = {
        "id": "C01",
        "verdict": verdict,
        "criteria": [{"name": "residual", "bound": bound, "margin": None}],
        "caveats": [],
        "estimates": {"residual": {"value": value, "standard_error": error}},
    }
    plain = f"C01 {verdict}: residual {value} ± {error}"
    return new_output("display_data", {CLAIM_MIME: record, "text/plain": plain})


def chapter(*outputs):
    return new_notebook(cells=[new_markdown_cell("# A"), new_code_cell("1", outputs=list(outputs))])


def one(before, after):
    [found] = variants.differences(chapter(before), chapter(after))
    return found


def test_equal_outputs_do_not_differ_whatever_they_took():
    picture = {"image/png": "AAAA", "text/plain": "A line at 3."}
    other = picture | {"image/png": "BBBB"}
    stored = chapter(stream("gain 1.5, in 3.2 s"), new_output("display_data", picture), claim(1.0))
    found = chapter(stream("gain 1.5, in 4 ms"), new_output("display_data", other), claim(1.0))
    assert variants.differences(stored, found) == []
    assert len(variants.outputs(stored)) == 3


def test_numbers_without_error_are_compared_relatively():
    found = one(stream("1,000 paths, −2.0 nats, 1e-05"), stream("1,000 paths, −2.1 nats, 1e-05"))
    assert (found.cell, found.output, found.words) == (2, "stdout", False)
    assert found.relative == pytest.approx(0.1 / 2.1)
    assert found.errors == 0


def test_numbers_with_errors_are_compared_in_their_errors():
    found = one(
        glued("a-gain", "0.50 ± 0.03, three s.e."), glued("a-gain", "0.40 ± 0.04, three s.e.")
    )
    assert found.output == "a-gain"
    assert found.errors == pytest.approx(2.0)  # .1 over .05, of which .03 and .04 are the sides
    assert found.relative == 0


def test_other_words_are_said_to_be_other_words():
    found = one(stream("annealed, 1.5"), stream("annealed, unreliable, 1.5"))
    assert found.words and (found.relative, found.errors) == (0, 0)
    gone = variants.differences(chapter(stream("1"), stream("2")), chapter(stream("1")))
    assert [(each.before, each.after, each.words) for each in gone] == [("2", "", True)]


def test_rounding_far_below_its_bound_is_no_difference_of_note():
    found = one(claim(4e-14), claim(-3e-14))
    assert found.output == "C01" and found.relative == pytest.approx(7e-6) and not found.words
    found = one(claim(2.0, 0.3), claim(2.5, 0.4))
    assert found.errors == pytest.approx(1.0)


def test_a_verdict_that_changes_is_named():
    stored, found = chapter(claim(0.0)), chapter(claim(1.0, verdict="different"))
    assert variants.flips(stored, found) == ["C01: reproduced -> different"]
    assert variants.flips(stored, chapter()) == ["C01: reproduced -> None"]
    assert variants.flips(stored, stored) == []
    assert one(claim(0.0), claim(1.0, verdict="different")).words


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(variants, "_commit", lambda project: "abc")
    (tmp_path / "book").mkdir()
    return Project(tmp_path)


def save(project, source, output):
    notebook = new_notebook(cells=[new_code_cell(source, outputs=[stream(output)])])
    nbformat.write(notebook, project.path("sums"))


def test_a_kernel_runs_under_the_variant_and_the_chapter_stays(project, monkeypatch, capsys):
    monkeypatch.delenv("TFP_GAPS_ACT_AS_GPU", raising=False)
    save(project, "import os\nprint(os.environ.get('TFP_GAPS_ACT_AS_GPU', 4))", "4\n")
    before, path = project.path("sums").read_bytes(), project.root / "table.json"
    options = ["sums", "--output", str(path), "--keep", str(project.root / "kept"), "--variants"]
    assert variants.main([*options, "act-as-gpu"], project.root) == 0
    assert variants.main([*options, "as-it-is", "act-as-gpu"], project.root) == 0
    rows = json.loads(path.read_text())
    shown = [
        (row["variant"], row["outputs"], row["different"], row["largest_relative"]) for row in rows
    ]
    assert shown == [("act-as-gpu", 1, 1, 0.75), ("as-it-is", 1, 0, 0.0)]
    assert project.path("sums").read_bytes() == before
    [cell] = code_cells(read(project.root / "kept/sums.act-as-gpu.ipynb"))
    assert cell.outputs[0].text == "1\n"
    assert "sums, act-as-gpu: 1, 1, 0, 0.8, 0.0, none" in capsys.readouterr().out


def test_a_chapter_that_fails_is_a_row_and_a_status(project):
    save(project, "1 / 0", "")
    path = project.root / "table.json"
    options = ["sums", "--variants", "one-thread", "--output", str(path)]
    assert variants.main(options, project.root) == 1
    [row] = json.loads(path.read_text())
    assert "ZeroDivisionError" in row["failure"]
    [cells] = variants.table([row])[1]
    assert cells[2].startswith("**failed**: sums, cell 1")
    assert variants.main(["absent"], project.root) == 2


def test_each_stored_chapter_equals_itself_and_one_moved_number_is_found():
    for name in ("elbo", "your-model"):
        stored = read(PROJECT.path(name))
        assert not variants.differences(stored, stored) and not variants.flips(stored, stored)
        moved = copy.deepcopy(stored)
        record = next(out for out in variants.outputs(moved).values() if out.record).record
        next(iter(record["estimates"].values()))["value"] += 1.0
        record["verdict"] = "different"
        assert len(variants.flips(stored, moved)) == 1
