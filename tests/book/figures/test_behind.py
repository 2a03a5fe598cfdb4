"""The data behind a figure are those it plots, at their places, under their labels."""

import csv
import io

import numpy as np
import pytest
from matplotlib.figure import Figure

from tfp_gaps.book.figures import behind
from tfp_gaps.book.figures.plotted import plotted


def rows(fig):
    """The file of a drawn figure as lists, without the head."""
    fig.savefig("/dev/null", format="png")
    head, *found = csv.reader(io.StringIO(behind.table(behind.data(fig))))
    assert head == behind.HEADER
    return found


@pytest.fixture
def axes():
    return Figure().add_subplot()


def test_a_line_is_its_points(axes):
    axes.plot([0, 1, 2], [0.1234567, np.nan, -3e9], label="full, of 2")
    axes.set_title("gap")
    assert rows(axes.figure) == [
        ["1: gap", "line 1", "full, of 2", "0", "0.123457", ""],
        ["1: gap", "line 1", "full, of 2", "1", "", ""],
        ["1: gap", "line 1", "full, of 2", "2", "-3e+09", ""],
    ]


def test_bars_are_corners_and_their_words_are_ticks(axes):
    axes.barh(["no", "yes"], [3, 4], height=0.5)
    axes.set_xlabel("nats")
    assert rows(axes.figure) == [
        ["1", "x axis", "nats", "", "", ""],
        ["1", "y tick", "no", "", "0", ""],
        ["1", "y tick", "yes", "", "1", ""],
        ["1", "patch 1", "", "0", "-0.25", ""],
        ["1", "patch 1", "", "3", "0.25", ""],
        ["1", "patch 2", "", "0", "0.75", ""],
        ["1", "patch 2", "", "4", "1.25", ""],
    ]


def test_error_bars_are_their_ends(axes):
    axes.errorbar([1], [2], yerr=[[0.5], [1]], capsize=0)
    ends = [row[3:5] for row in rows(axes.figure) if row[1] == "collection 1"]
    assert ends == [["1", "1.5"], ["1", "3"]]


def test_markers_and_maps_come_with_what_their_colours_mean(axes):
    axes.scatter([1, 2], [3, 4], c=[5, 6])
    axes.imshow([[7, 8]])
    assert [row[1:] for row in rows(axes.figure)] == [
        ["collection 1", "", "1", "3", "5"],
        ["collection 1", "", "2", "4", "6"],
        ["image 1", "", "0", "0", "7"],
        ["image 1", "", "1", "0", "8"],
    ]


def test_a_picture_is_left_out(axes):
    axes.imshow([[7, 8]])
    axes.set(xticks=[], yticks=[])
    assert rows(axes.figure) == []


def test_a_picture_without_ticks_is_no_data(axes):
    axes.imshow([[7, 8]])
    axes.set(xticks=[], yticks=[])
    assert not rows(axes.figure)


def test_ticks_of_a_logarithmic_axis_are_no_words(axes):
    axes.plot([1, 100], [1, 2])
    axes.set_xscale("log")
    assert {row[1] for row in rows(axes.figure)} == {"line 1"}


def test_what_is_too_much_is_left_out(axes):
    axes.plot(np.zeros(behind.MAXIMUM + 1))
    axes.plot([1, 2])
    assert {row[1] for row in rows(axes.figure)} == {"line 2"}


def test_a_message_gets_the_data_of_its_own_figure_or_none(axes, monkeypatch):
    axes.plot([0, 1], [2, 3])
    other = Figure()
    other.add_subplot().plot([0, 1], [2, 4])
    monkeypatch.setattr(behind, "_drawn", [axes.figure])
    for shown, known in ((axes.figure, True), (other, False)):
        content = {"metadata": {"tfp_gaps": {"plotted": plotted(shown)}}}
        own = behind.publish({"content": content})["content"]["metadata"]["tfp_gaps"]
        assert ("data" in own) is known
    assert behind.publish({"content": {}}) == {"content": {}}
