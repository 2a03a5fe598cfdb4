"""The data of a figure travel from the kernel to the file that its page links to."""

import csv
import pathlib

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import execution
import figure_data
import finishing
from notebooks import Project

PROJECT = Project(pathlib.Path(__file__).resolve().parents[2])
TITLE = "# Lines\n\n<!-- cost -->\n<!-- /cost -->"
DRAW = """
import matplotlib.pyplot as plt
from tfp_gaps.book import figures

for last in (2, 3):  # two figures in one cell are mixed up by nobody
    fig, axes = plt.subplots()
    axes.plot([0, 1], [1, last], label="gap")
    fig.canvas.draw()
alt = "A line that rises from one to three while x goes from zero to one."
figures.show(fig, name="fig-line", caption="A line.", alt=alt)
"""


@pytest.fixture(scope="module")
def executed():
    """A chapter with a figure, executed in a kernel of this checkout."""
    notebook = new_notebook(cells=[new_markdown_cell(TITLE), new_code_cell(DRAW)])
    cost = execution.execute(PROJECT, "lines", notebook)
    finishing.finish(PROJECT, "lines", notebook, cost, execution.machine())
    return notebook


def test_an_execution_keeps_the_data_beside_what_is_compared(executed):
    [output] = executed.cells[1].outputs
    own = output.metadata.tfp_gaps
    assert set(own) == {"plotted", "data"}
    assert own.plotted["axes 1, line 1 (gap)"].startswith("2 x 2 | 0 1 0 1 0.5 | 1 3 1 3 2 | ")
    [line] = own.data
    assert (line.x, line.y, line.label) == ([0.0, 1.0], [1.0, 3.0], "gap")


def test_the_build_makes_files_of_them_and_removes_others(executed, tmp_path):
    (tmp_path / "book/_extra/figures").mkdir(parents=True)
    (tmp_path / "book/_extra/figures/fig-gone.csv").write_text("x\n")
    nbformat.write(executed, tmp_path / "book/lines.ipynb")
    figure_data.write(Project(tmp_path))
    [path] = (tmp_path / "book/_extra/figures").iterdir()
    assert path.name == "fig-line.csv"
    with path.open() as file:
        assert list(csv.reader(file))[1:] == [
            ["1", "line 1", "gap", "0", "1", ""],
            ["1", "line 1", "gap", "1", "3", ""],
        ]
