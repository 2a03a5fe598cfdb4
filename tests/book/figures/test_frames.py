"""Sliders over precomputed frames: complete, labelled, small, and right at every position."""

import itertools
import re

import numpy as np
import pytest
from bs4 import BeautifulSoup

from tfp_gaps.book.figures import frames

CONTROLS = [("look-ahead", ["0", "1", "all"]), ("noise <R>", ["low", "high"])]
FRAMES = [
    frames.Frame(frames.bars([i + 1.0, 2], ["a", ""], top=10), (f"{i}", f"{i * i}"))
    for i in range(6)
]


@pytest.fixture(scope="module")
def page():
    return BeautifulSoup(
        frames.slider("chain", CONTROLS, ["one", "two"], FRAMES, start=[1, 1]), "html.parser"
    )


def test_controls_are_labelled_and_start_where_asked(page):
    for control, (label, ticks) in zip(page.select("input[type=range]"), CONTROLS, strict=True):
        assert page.select_one(f"label[for={control['id']}]").text == label
        assert control["max"] == str(len(ticks) - 1) and control["value"] == "1"
        assert page.select_one(f"output[for={control['id']}]").text == ticks[1]
    assert [dd.text for dd in page.select("dd")] == ["3", "9"]
    assert str(page.select_one("[data-picture] svg")) and page.noscript.text


def test_nothing_is_loaded():
    text = frames.slider("chain", CONTROLS, ["one", "two"], FRAMES)
    assert not re.search(r"https?:|\bsrc=|@import|url\(", text)


_STUB = """
var VALUES = POSITIONS;
function element() { return {textContent: "", innerHTML: "", attributes: {},
  setAttribute: function (n, v) { this.attributes[n] = v; }, addEventListener: function () {}}; }
var inputs = VALUES.map(function (v) { var e = element(); e.value = String(v); return e; });
var lists = {input: inputs, output: [element(), element()], dd: [element(), element()]};
var picture = element();
var document = {getElementById: function () { return {
  querySelectorAll: function (key) { return lists[key]; },
  querySelector: function () { return picture; }}; }};
"""


@pytest.mark.parametrize("positions", list(itertools.product(range(3), range(2))))
def test_each_position_shows_its_frame(page, run_script, positions):
    stub = _STUB.replace("POSITIONS", str(list(positions)))
    report = (
        "console.log(lists.dd.map(function (e) { return e.textContent; }).join(' '));"
        "console.log(lists.output.map(function (e) { return e.textContent; }).join(' '));"
        "console.log(picture.innerHTML);"
    )
    printed = run_script(stub + page.script.text + report)
    numbers, ticks, picture = printed.strip().split("\n", 2)
    place = 2 * positions[0] + positions[1]
    assert numbers == f"{place} {place * place}" and picture == FRAMES[place].picture
    assert ticks == f"{CONTROLS[0][1][positions[0]]} {CONTROLS[1][1][positions[1]]}"


def test_bars_are_as_high_as_their_numbers():
    picture = frames.bars([1, 3], ["x", ""], top=4, spoken="one & three")
    assert re.findall(r"v(-[\d.]+)h", picture) == ["-55.0", "-165.0"]
    assert 'aria-label="one &amp; three"' in picture and picture.count("<text") == 1


def test_fans_run_from_the_last_seen_step():
    past, truth = np.zeros(3), np.array([1.0, -1.0])
    band = (truth - 1, truth, truth + 1, "#123456")
    picture = frames.fans(past, truth, [band], limits=(-2, 2), spoken="a fan")
    # Five steps across 584: the fourth begins at 8 + 3 * 146.
    assert picture.count("#123456") == 2 and "M446 137L592 262L592 137L446 12z" in picture
    middle = re.search(r'd="M([^"z]+)" fill="none" stroke="#123456"', picture)[1]
    assert middle == "446 74L592 200"
    assert re.search(r'd="(M\d+ \d+h0)+"', picture)[0].count("h0") == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frames.slider("Chain", CONTROLS, ["one", "two"], FRAMES), "small letters"),
        (lambda: frames.slider("c", CONTROLS, ["one", "two"], FRAMES[:5]), "6 frames"),
        (lambda: frames.slider("c", CONTROLS, ["one"], FRAMES), "1 numbers"),
        (lambda: frames.slider("c", CONTROLS, ["one", "two"], FRAMES, start=[3, 0]), "position"),
        (
            lambda: frames.slider(
                "c",
                [("a", ["x", "y"])],
                [],
                [frames.Frame("x" * frames.MAXIMUM_BYTES, ())] * 2,
            ),
            "bytes",
        ),
        (lambda: frames.bars([1, 2], ["a"]), "label"),
        (lambda: frames.bars([1, -2], ["a", "b"]), "between"),
        (lambda: frames.bars([1, np.nan], ["a", "b"]), "NaN"),
        (
            lambda: frames.fans([0.0], [1.0], [([0, 0], [0], [0], "#1")], limits=(0, 1), spoken=""),
            "horizons",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_clouds_lie_around_the_truth_and_leave_out_what_is_far():
    points = np.array([[1.0, 2.0], [1.5, 2.0], [9.0, 9.0]])
    picture = frames.clouds(
        [("left", points, "#aa0000"), ("right", points[:1], "#0000aa")],
        truth=[1.0, 2.0],
        seen=[1.0, 2.5],
        reach=1.0,
        spoken="two clouds",
    )
    # Panels of 290, the first from 5: its middle at 150, a half unit is 72.5; up is up.
    dots = re.findall(r'd="((?:M[\d ]+h0)+)" stroke="(#\w+)"', picture)
    assert dots == [("M150 169h0M222 169h0", "#aa0000"), ("M450 169h0", "#0000aa")]
    assert picture.count("M150 96m-8 -8") == 1 and picture.count("★") == 2
    with pytest.raises(ValueError, match="reach"):
        frames.clouds([], truth=[0.0], seen=[0.0], reach=0, spoken="")
