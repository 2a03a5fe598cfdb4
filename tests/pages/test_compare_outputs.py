"""The comparison of a chapter that is executed again with the stored one, and what it finds."""

import copy
import os
import pathlib
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import compare_outputs
import execution
import finishing
import notebooks
import outputs
from notebooks import CLAIM_MIME, Project

ROOT = pathlib.Path(__file__).resolve().parents[2]
GLUED = outputs.GLUED + "text/plain"
ALT = "A line that rises from 0 to 2 while x goes from 0 to 1."


def glued(name, value):
    return new_output("display_data", {GLUED: repr(value)}, metadata={"scrapbook": {"name": name}})


def claim(verdict="reproduced", rule="at_least", kind="seeds", **estimates):
    """A record of C01 from pairs (value, standard error)."""
    record = {
        "id": "C01",
        "criteria": [{"name": name, "rule": rule} for name in estimates],
        "estimates": {
            name: {"value": value, "standard_error": error, "kind": kind}
            for name, (value, error) in estimates.items()
        },
        "verdict": verdict,
    }
    data = {CLAIM_MIME: record, "text/plain": f"C01 {verdict}: {estimates}"}
    return new_output("display_data", data)


def figure(**plotted):
    metadata = {"tfp_gaps": {"plotted": plotted}}
    return new_output("display_data", {"image/png": "", "text/plain": ALT}, metadata=metadata)


def table(text):
    return new_output("execute_result", {"text/html": text})


def printed(text):
    return new_output("stream", name="stdout", text=text)


def compare(old, new, mode, source="1", flipped=None):
    cells = (new_code_cell(source, outputs=side) for side in (old, new))
    return compare_outputs.differences(*cells, mode, set() if flipped is None else flipped)


def names(found):
    return [each.name for each in found]


# --- exact ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        (table("<td>4.56</td>"), table("<td>4.57</td>"), "output 1, text/html"),
        (glued("a-gap", "1.23 ± 0.10"), glued("a-gap", "1.23 ± 0.11"), "a-gap"),
        (printed("C01 reproduced\n"), printed("C01 different\n"), "stdout"),
        (claim(gap=(1.0, 0.1)), claim(gap=(1.0 + 1e-12, 0.1)), "C01, gap"),
        (
            figure(**{"axes 1, line 1": "1 x 1 | 1 1 1 1 1 | aa"}),
            figure(**{"axes 1, line 1": "1 x 1 | 1 1 1 1 1 | ab"}),
            "figure, axes 1, line 1",
        ),
    ],
)
def test_on_the_same_machine_everything_must_be_the_same(old, new, name):
    assert compare([old], [old], "exact") == []
    assert name in names(compare([old], [new], "exact"))
    assert compare([old], [], "exact")[0].found == "nothing"
    assert compare([], [old], "exact")[0].stored == "nothing"


def test_the_message_shows_where_two_texts_part():
    long = "<tr><td>" + "</td><td>".join(f"{k}.5 ± 0.1" for k in range(200)) + "</td></tr>"
    [found] = compare([table(long)], [table(long.replace("150.5", "150.6"))], "exact")
    assert "150.5 ± 0.1" in found.stored and "150.6 ± 0.1" in found.found
    assert len(found.stored) < 150


def test_what_is_printed_counts_as_one_text():
    # nbval joins what is printed before and after a table; the stored chapter holds it apart.
    apart = [printed("a\n"), table("1"), printed("b\n")]
    assert compare(apart, [printed("a\nb\n"), table("1")], "exact") == []
    assert names(compare(apart, [printed("b\n"), table("1")], "exact")) == ["stdout"]


def test_words_of_a_figure_are_compared():
    stored, found = (new_code_cell("1", outputs=[figure()]) for _ in "ab")
    for cell in (stored, found):
        cell.metadata.mystnb = {"figure": {"name": "fig-a", "caption": "b"}, "image": {"alt": ALT}}
    assert compare_outputs.differences(stored, found, "exact", set()) == []
    found.metadata.mystnb.image.alt = ALT.replace("2", "3")
    [difference] = compare_outputs.differences(stored, found, "exact", set())
    assert difference.name == "figure, alt" and "3" in difference.found


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        # 4 sqrt(0.1^2 + 0.1^2) = 0.566.
        ("1.23 ± 0.10", "1.79 ± 0.10", True),
        ("1.23 ± 0.10", "1.81 ± 0.10", False),
        ("1.23 ± 0.10", "1.23 ± 0.20", True),
        ("1.23 ± 0.10", "1.23 ± 0.21", False),
        ("-1.23 ± 0.10", "1.23 ± 0.10", False),
        # A unit of the last decimal, a thousandth, and residues of rounding.
        ("4.56", "4.57", True),
        ("4.56", "4.58", False),
        ("1234.567", "1235.7", True),
        ("1234.567", "1236.9", False),
        ("3.3e-16", "2.2e-15", True),
        ("3.3 × 10⁻¹⁶", "2.2 × 10⁻¹⁵", True),
        ("3.3 × 10⁻²", "2.2 × 10⁻²", False),
        ("3.3e-5", "2.2e-5", False),
        # Counts: small ones are exact.
        ("87 of 200", "88 of 200", False),
        ("12,000", "12,001", True),
        ("12,000", "12,100", False),
        # Words, and names that hold digits.
        ("4.56 nats", "4.56 bits", False),
        ("C10", "C11", False),
        ("4.56", "4.56 ± 0.01", False),
        ("a   4.56", "a  4.5", True),
        ('<path d="M1 250"/> 4.56', '<path d="M1 200"/> 4.56', True),
        ('<path d="M1 250"/> 4.56', '<path d="M1 200"/> 4.66', False),
    ],
)
def test_on_another_machine_numbers_must_be_close_and_words_the_same(old, new, same):
    assert (compare([table(old)], [table(new)], "numbers") == []) is same
    assert (compare([glued("a", old)], [glued("a", new)], "numbers") == []) is same
    assert compare([table(old)], [table(new)], "exact") != []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (claim(gap=(1.0, 0.1)), claim(gap=(1.5, 0.1)), []),
        (claim(gap=(1.0, 0.1)), claim(gap=(1.6, 0.1)), ["C01, gap"]),
        (claim(gap=(1.0, 0.1)), claim(gap=(1.0, 0.3)), ["C01, gap"]),
        (claim(gap=(1.0, 0.1)), claim(gap=(1.0, 0.1), kind="exact"), ["C01, gap"]),
        (claim(gap=(1.0, 0.1)), claim(gap=(1.0, 0.1), rule="equals"), ["C01, what was asked"]),
        (claim(gap=(1.0, 0.0)), claim(gap=(1.0005, 0.0)), []),
        (claim(gap=(1.0, 0.0)), claim(gap=(1.002, 0.0)), ["C01, gap"]),
    ],
)
def test_estimates_of_a_claim_must_agree_within_their_errors(old, new, expected):
    assert names(compare([old], [new], "numbers")) == expected


def test_a_verdict_that_flips_within_the_errors_is_marginal_and_takes_its_words_along():
    flipped = set()
    old = [claim(gap=(0.35, 0.1)), glued("a-gap", "0.35 ± 0.10"), glued("a-gap-words", "above")]
    new = [
        claim("different", gap=(0.25, 0.1)),
        glued("a-gap", "0.25 ± 0.10"),
        glued("a-gap-words", "not told apart"),
    ]
    found = compare(old, new, "numbers", flipped=flipped)
    assert names(found) == ["C01", "a-gap-words"] and all(each.marginal for each in found)
    assert flipped == {"C01"}
    lines = [
        printed("C01 reproduced\nC02 reproduced\n"),
        printed("C01 different\nC02 reproduced\n"),
    ]
    [line] = compare(lines[:1], lines[1:], "numbers", flipped=flipped)
    assert line.marginal
    [line] = compare(lines[:1], lines[1:], "numbers", flipped={"C02"})
    assert not line.marginal
    assert not any(each.marginal for each in compare(old, new, "exact"))


def test_a_verdict_that_flips_beyond_the_errors_is_a_difference():
    old, new = claim(gap=(0.35, 0.1)), claim("different", gap=(-0.35, 0.1))
    assert [each.marginal for each in compare([old], [new], "numbers")] == [False, False]
    # A residue that jumps over its bound is no residue: ABSOLUTE excuses no verdict.
    old, new = claim(rest=(1e-9, 0.0)), claim("different", rest=(5e-7, 0.0))
    assert [each.marginal for each in compare([old], [new], "numbers")] == [False]
    words = [glued("a-gap", "0.35 ± 0.10"), glued("a-gap-words", "above")]
    other = [glued("a-gap", "-0.35 ± 0.10"), glued("a-gap-words", "below")]
    assert [each.marginal for each in compare(words, other, "numbers")] == [False, False]


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("9 x 1 | 0 10 0 10 5 | aa", "9 x 1 | 0 10.4 0 10.4 5.2 | bb", True),
        ("9 x 1 | 0 10 0 10 5 | aa", "9 x 1 | 0 11 0 11 5.5 | bb", False),
        ("9 x 1 | 0 10 0 10 5 | aa", "8 x 1 | 0 10 0 10 5 | bb", False),
        ("2 x 1 | 12345.6 12345.6 12345.6 12345.6 12345.6 | aa",) * 2 + (True,),
        ("Estimate 1.25", "Estimate 1.26", True),
        ("Estimate 1.25", "Estimate 1.35", False),
    ],
)
def test_curves_must_look_alike(old, new, same):
    sides = ([figure(**{"axes 1, line 1": side})] for side in (old, new))
    assert (compare(*sides, "numbers") == []) is same


# --- timings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", compare_outputs.MODES)
def test_of_declared_timings_names_words_and_verdicts_are_compared(mode):
    source = "# Timing: wall time differs from run to run.\n1"
    old = [claim(ratio=(12059.7, 0.0)), glued("a-time", "12,000 ms"), table("0.0077")]
    new = [claim(ratio=(9001.2, 0.0)), glued("a-time", "9,000 ms"), table("1.2")]
    assert compare(old, new, mode, source) == []
    assert len(compare(old, new, mode)) >= 3
    assert len(compare(old, new, mode, "# Timing:\n1")) >= 3  # without a reason
    assert names(compare(old, [new[0], glued("a-time", "9 s"), new[2]], mode, source)) == ["a-time"]
    different = claim("different", ratio=(2.0, 0.0))
    assert "C01" in names(compare(old, [different, *new[1:]], mode, source))
    assert names(compare(old, new[:2], mode, source)) == ["output 3, text/html"]


# --- trained in the chapter -----------------------------------------------------------------------


def test_of_single_results_of_training_another_machine_compares_words_verdicts_and_estimates():
    source = "# Trained here: another order of summation ends in another optimum.\n1"
    lines = {
        "axes 1, line 1": "9 x 1 | 0 1 0 1 0.5 | aa",
        "axes 1, collection 1": "217 x 1 | 1 | a",
    }
    other = {"axes 1, line 1": "9 x 1 | 0 9 0 9 5 | bb", "axes 1, collection 1": "215 x 1 | 2 | b"}
    old = [claim(least=(8.3e-5, 0.0)), glued("a-share", "64 %"), figure(**lines)]
    new = [claim(least=(7.9e-5, 0.0)), glued("a-share", "66 %"), figure(**other)]
    assert compare(old, new, "numbers", source) == []
    assert len(compare(old, new, "numbers")) == 4
    assert len(compare(old, new, "exact", source)) == 5  # the words of the claim, too
    assert len(compare(old, new, "numbers", "# Trained here:\n1")) == 4  # without a reason
    of_c01 = source.replace("here:", "here (C01):")
    assert "C01, least" not in names(compare(old, new, "numbers", of_c01))
    assert len(compare(old, new, "numbers", of_c01)) == 3
    assert len(compare(old, new, "numbers", of_c01.replace("C01", "C02"))) == 4


@pytest.mark.parametrize(
    ("before", "after", "name"),
    [
        (claim(gap=(1.0, 0.1)), claim(gap=(1.6, 0.1)), "C01, gap"),
        (claim(gap=(1.0, 0.1)), claim(gap=(1.6, 0.0)), "C01, gap"),
        (claim(gap=(1.0, 0.0)), claim(gap=(1.0, 0.0), kind="exact"), "C01, gap"),
        (claim(least=(1.0, 0.0)), claim("different", least=(2.0, 0.0)), "C01"),
        (glued("a-gap", "1.23 ± 0.10"), glued("a-gap", "1.81 ± 0.10"), "a-gap"),
        (glued("a-share", "64 %"), glued("a-share", "64 nats"), "a-share"),
        (printed("partial 12\n"), printed("full 12\n"), "stdout"),
        (figure(a="9 x 2 | 1 | 2 | aa"), figure(a="9 x 1 | 1 | aa"), "figure, a"),
        (figure(a="9 x 1 | 1 | aa"), figure(a="8 x 1 | 1 | aa"), "figure, a"),
        (figure(a="9 x 1 | 1 | aa"), figure(), "figure, a"),
        (figure(a="9 x 2 | 1 | 2 | aa"), figure(a="9 x 2 | 1 |  | aa"), "figure, a"),
        (
            figure(**{"a, collection 1": "9 x 1 | 1 | aa"}),
            figure(**{"a, collection 1": "0 x 1 |  | aa"}),
            "figure, a, collection 1",
        ),
        (figure(a="share 5 | left"), figure(a="share 6 | right"), "figure, a"),
    ],
)
def test_single_results_of_training_are_no_cover_for_anything_else(before, after, name):
    source = "# Trained here: another order of summation ends in another optimum.\n1"
    assert names(compare([before], [after], "numbers", source)) == [name]


def test_a_picture_in_a_slider_has_the_ticks_that_its_range_asks_for():
    source = "# Trained here: another order of summation ends in another optimum.\n1"
    pictures = [
        table(f"<g>{''.join(f'<text x=0>{k}</text>' for k in ticks)}</g><text x=0>{unit}</text>")
        for ticks, unit in (((0, 50), "cars"), ((0, 50, 100), "cars"), ((0, 50), "m"))
    ]
    assert compare(pictures[:1], pictures[1:2], "numbers", source) == []
    assert compare(pictures[:1], pictures[1:2], "numbers") != []
    assert compare(pictures[:1], pictures[2:], "numbers", source) != []


def test_texts_in_a_figure_are_texts():
    texts = [figure(**{"axes 1, texts": f"{k} units | left"}) for k in ("4.56", "4.57", "5.56")]
    assert compare(texts[:1], texts[1:2], "numbers") == []
    assert names(compare(texts[:1], texts[2:], "numbers")) == ["figure, axes 1, texts"]


# --- which comparison -----------------------------------------------------------------------------


def test_the_class_of_the_machine_decides_unless_somebody_asks(monkeypatch):
    monkeypatch.delenv("TFP_GAPS_COMPARE", raising=False)
    here = execution.machine()
    same, other = (
        new_notebook(metadata={"tfp_gaps": {"machine": here | change}})
        for change in ({"memory_gigabytes": 1}, {"gpus": ["another"]})
    )
    assert compare_outputs.mode(same) == "exact"
    assert compare_outputs.mode(other) == compare_outputs.mode(new_notebook()) == "numbers"
    monkeypatch.setenv("TFP_GAPS_COMPARE", "numbers")
    assert compare_outputs.mode(same) == "numbers"
    monkeypatch.setenv("TFP_GAPS_COMPARE", "number")
    with pytest.raises(pytest.UsageError, match="must be exact or numbers, but is 'number'"):
        compare_outputs.mode(same)


# --- through nbval --------------------------------------------------------------------------------

SOURCES = {
    "table": "from IPython.display import HTML\nHTML('<table><td>4.56</td></table>')",
    "glue": f"""
def show(data, **metadata):
    display({{"text/plain": "", **data}}, raw=True, metadata=metadata)

display({{"{GLUED}": "'1.23'"}}, raw=True, metadata={{"scrapbook": {{"name": "a-gap"}}}})""",
    "claim": f"""
estimate = {{"value": 1.0, "standard_error": 0.1, "kind": "seeds"}}
show({{"{CLAIM_MIME}": {{"id": "C01", "estimates": {{"gap": estimate}}, "verdict": "reproduced"}}}})
""",
    "figure": f"""
words = {{"name": "fig-a", "caption": "b", "alt": "{ALT}", "plotted": {{"line": "1 x 1"}}}}
show({{"image/png": ""}}, tfp_gaps=words)""",
    "timing": "# Timing: it differs.\nimport time\nprint(f'{1e3 * time.perf_counter():.3f} ms')",
    "code": "print('C01 reproduced')",
}
PLANTED = {
    "table": lambda cell: cell.outputs[0].data.update(
        {"text/html": "<table><td>4.57</td></table>"}
    ),
    "glue": lambda cell: cell.outputs[0].data.update({GLUED: "'1.24'"}),
    "claim": lambda cell: cell.outputs[0].data[CLAIM_MIME]["estimates"]["gap"].update(value=1.1),
    "figure": lambda cell: cell.metadata.mystnb.image.update(alt=ALT.replace("2", "3")),
    "timing": lambda cell: cell.outputs[0].update(text="12 seconds\n"),
    "code": lambda cell: cell.update(source="print('C01 different')"),
}
FOUND = {
    "table": ["toy, cell 2, output 1, text/html", "4.57", "4.56"],
    "glue": ["toy, cell 3, a-gap\n  stored: '1.24'\n  found:  '1.23'"],
    "claim": ["toy, cell 4, C01, gap\n  stored: 1.1 ± 0.1\n  found:  1.0 ± 0.1"],
    "figure": ["toy, cell 5, figure, alt", "from 0 to 3", "from 0 to 2"],
    "timing": ["toy, cell 6, stdout\n  stored: 12 seconds"],
    "code": ["toy, cell 7, stdout\n  stored: C01 reproduced\n  found:  C01 different"],
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """An executed chapter of six cells, finished as far as the comparison needs it."""
    project = Project(tmp_path_factory.mktemp("toy"))
    project.book.mkdir()
    cells = [new_markdown_cell("# Toy"), *map(new_code_cell, SOURCES.values())]
    notebook = new_notebook(cells=cells)
    execution.execute(project, "toy", notebook)
    for cell in notebooks.code_cells(notebook):
        finishing.label_figure("toy", cell)
    notebook.metadata["tfp_gaps"] = {"machine": execution.machine()}
    return project, notebook


def verdicts(project, notebook, **environment):
    """Run nbval as `make verdicts` does and return exit status and what it prints."""
    nbformat.write(notebook, project.path("toy"))
    settings = ["-c", "tools/nbval.ini", "--rootdir", ".", "--color=no"]
    command = [sys.executable, "-m", "pytest", *settings, str(project.path("toy"))]
    environment = {"TFP_GAPS_COMPARE": "exact", **environment}
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | environment, timeout=120
    )
    return result.returncode, result.stdout + result.stderr


def test_nbval_finds_what_was_planted_and_nothing_else(toy):
    project, clean = toy
    status, told = verdicts(project, clean)
    assert status == 0 and "6 passed" in told, told
    planted = copy.deepcopy(clean)
    for cell, change in zip(notebooks.code_cells(planted), PLANTED.values(), strict=True):
        change(cell)
    status, told = verdicts(project, planted)
    assert status == 1 and "6 failed" in told, told
    for texts in FOUND.values():
        assert all(text in told for text in texts), told


def test_nbval_refuses_stripped_cells_and_lets_nothing_be_exempt(toy):
    project, clean = toy
    planted = copy.deepcopy(clean)
    for cell in (planted.cells[1], planted.cells[2]):
        cell.outputs = []
    planted.cells[1].execution_count = None
    planted.cells[2].metadata.tags = ["nbval-ignore-output"]
    planted.cells[6].source = "# NBVAL_SKIP\nprint('C01 different')"
    status, told = verdicts(project, planted)
    assert status == 1 and "3 passed" in told, told
    assert "toy: this cell was never executed" in told
    assert "toy, cell 3, a-gap\n  stored: nothing\n  found:  '1.23'" in told
    assert "toy, cell 7, stdout" in told


def test_nbval_warns_of_a_marginal_verdict(toy):
    project, clean = toy
    planted = copy.deepcopy(clean)
    record = planted.cells[3].outputs[0].data[CLAIM_MIME]
    record["verdict"], record["estimates"]["gap"]["value"] = "different", 1.2
    planted.cells[6].outputs[0].text = "C01 different\n"
    status, told = verdicts(project, planted, TFP_GAPS_COMPARE="numbers")
    assert status == 0 and "6 passed, 2 warnings" in told, told
    assert "MarginalWarning: marginal: toy, cell 4, C01" in told
