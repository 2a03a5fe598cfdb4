"""What `make verdicts` says when a kernel dies, hangs or raises: toy chapters, real kernels."""

import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT = 20  # seconds for a cell
CHAPTERS = {
    "ends": ["import os", "# The end.\nos._exit(1)", "x = 1", "x = 2"],
    "aborts": [
        "import os",
        "os.write(2, b'F0 bfc.cc: no room\\n*** stack trace: ***\\n  @ 0x7f\\n')\nos.abort()",
    ],
    "killed": ["import os", "os.kill(os.getpid(), 9)", "x = 1"],
    "later": ["import os, threading\nthreading.Timer(0.1, os._exit, [3]).start()", "while True: 1"],
    "hangs": ["x = 1", "import time\ntime.sleep(600)", "x = 2"],
    "raises": ["x = 1 / 0", *(f"y = x + {k}" for k in range(11))],
    "differs": ["# NBVAL_CHECK_OUTPUT\nprint('C01 reproduced')", "x = 1", "y = x + 1"],
}


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    """Run the toys as `make verdicts` runs chapters; what is printed, and all test cases."""
    folder = tmp_path_factory.mktemp("toys")
    for name, sources in CHAPTERS.items():
        cells = [new_code_cell(source, execution_count=n) for n, source in enumerate(sources, 1)]
        cells.insert(1, new_markdown_cell("Text."))
        nbformat.write(new_notebook(cells=cells), folder / f"{name}.ipynb")
    command = [sys.executable, "-m", "pytest", "-c", "tools/nbval.ini", "--rootdir", "."]
    command += [f"--nbval-cell-timeout={LIMIT}", "-n", "1", "--dist", "loadfile", "--color=no"]
    command += [f"--junit-xml={folder}/report.xml", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1, done.stderr
    cases = xml.etree.ElementTree.parse(folder / "report.xml").iter("testcase")
    return done.stdout, list(cases)


def outcomes(cases, chapter):
    """f, s or . for each cell of a chapter."""
    letters = {"failure": "f", "skipped": "s"}
    found = [case for case in cases if chapter in case.get("classname").split(".")]
    return "".join(next((letters[e.tag] for e in case if e.tag in letters), ".") for case in found)


def first_failure(said, chapter):
    section = said.partition("= what failed first in each chapter =")[2].partition("\n=")[0]
    return re.search(rf"^{chapter}, (.*)$", section, re.MULTILINE)[1]


@pytest.mark.parametrize(
    ("chapter", "cells", "ending"),
    [
        ("ends", ".fss", "3 ended with its kernel: {}(exit status 1)"),
        (
            "aborts",
            ".f",
            "3 ended with its kernel: {}(signal SIGABRT, native code gave up, often for want of "
            "memory; its last words were «F0 bfc.cc: no room»)",
        ),
        (
            "killed",
            ".fs",
            "3 ended with its kernel: {}(signal SIGKILL, which is how the system ends what takes "
            "too much memory)",
        ),
        ("later", ".f", "3 ended with its kernel: {}(exit status 3)"),
    ],
)
def test_a_kernel_that_dies_is_named_within_seconds(verdicts, chapter, cells, ending):
    said, cases = verdicts
    assert outcomes(cases, chapter) == cells
    death = "the kernel died, most likely for want of memory "
    assert first_failure(said, chapter) == (
        f"cell {ending.format(death)}. Give it more memory, stop what else takes some (WORKERS=1 "
        f"runs one chapter at a time), or make the cell smaller."
    )
    assert "# The end." in said  # the source of the cell
    [case] = [
        case
        for case in cases
        if chapter in case.get("classname").split(".") and case.find("failure") is not None
    ]
    # Far from the cell's limit, which is what nbval waits for.
    assert float(case.get("time")) < LIMIT / 2


def test_a_cell_that_hangs_is_named_with_its_time(verdicts):
    said, cases = verdicts
    assert outcomes(cases, "hangs") == ".fs"
    assert first_failure(said, "hangs").startswith(f"cell 3 hung: it ran for more than {LIMIT} s")


def test_after_an_error_the_other_cells_are_skipped_and_the_cause_stands_first(verdicts):
    said, cases = verdicts
    assert outcomes(cases, "raises") == "f" + 11 * "s"
    assert first_failure(said, "raises") == (
        "cell 1 failed: Cell execution caused an exception: ZeroDivisionError: division by zero"
    )
    assert "NameError" not in said
    assert "not executed, since raises, cell 1 did not run to its end" in said


def test_after_an_output_that_differs_the_other_cells_run(verdicts):
    said, cases = verdicts
    assert outcomes(cases, "differs") == "f.."
    assert first_failure(said, "differs").startswith("cell 1 failed: Cell outputs differ")
