"""Sliders: labelled, small, loading nothing, and right at every position."""

import itertools
import json
import re

import numpy as np
import pytest
from bs4 import BeautifulSoup

from tfp_gaps.book.figures import COLOURS, sliders
from tfp_gaps.exact.bit import Bit

CONTROLS = [("look-ahead", ["0", "1", "all"]), ("noise <R>", ["low", "high"])]
FRAMES = [
    sliders.Frame(sliders.bars([i + 1.0, 2], ["a", ""], top=10), (f"{i}", f"{i * i}"))
    for i in range(6)
]


def frames():
    return sliders.slider("chain", CONTROLS, ["one", "two"], FRAMES, start=[1, 1])


@pytest.mark.parametrize("make", [frames, sliders.bit_slider])
def test_every_control_is_labelled_and_nothing_is_loaded(make):
    page = BeautifulSoup(make(), "html.parser")
    controls = page.select("input[type=range]")
    assert len(controls) == 2
    for control in controls:
        assert page.select_one(f"label[for={control['id']}]").text.strip()
        assert page.select_one(f"output[for={control['id']}]").text
        assert "tabindex" not in control.attrs  # native order: reachable by keyboard
    assert page.noscript.text.strip()
    assert not re.search(r"https?:|\bsrc=|@import|url\(", make())
    identifiers = [tag["id"] for tag in page.select("[id]")]
    assert len(identifiers) == len(set(identifiers))


def test_frames_start_where_asked():
    page = BeautifulSoup(frames(), "html.parser")
    for control, (label, ticks) in zip(page.select("input[type=range]"), CONTROLS, strict=True):
        assert page.select_one(f"label[for={control['id']}]").text == label
        assert control["max"] == str(len(ticks) - 1) and control["value"] == "1"
        assert page.select_one(f"output[for={control['id']}]").text == ticks[1]
    assert [dd.text for dd in page.select("dd")] == ["3", "9"]
    assert str(page.select_one("[data-picture]").decode_contents()) == str(
        BeautifulSoup(FRAMES[3].picture, "html.parser")
    )


def test_the_bit_is_small_and_has_the_colours_of_the_book():
    page = BeautifulSoup(sliders.bit_slider(5, 1.1), "html.parser")
    assert len(sliders.bit_slider()) < 10_000
    assert [output.text for output in page.select("output")] == ["5.0", "1.10"]
    picture = json.loads(re.search(r"var svg=(\".*?[^\\]\");", page.script.text)[1])
    for key, label, _ in sliders.CURVES:
        assert f'd="{{{key}}}" fill="none" stroke="{COLOURS[key]}"' in picture
        assert label in page.ul.text


_STUB = """
function element() { return {textContent: "", innerHTML: "", attributes: {},
  setAttribute: function (n, v) { this.attributes[n] = v; }, addEventListener: function () {}}; }
function elements(number) { return Array.from({length: number}, element); }
var lists = {input: elements(2), output: elements(2), dd: elements(NUMBERS)};
POSITIONS.forEach(function (v, i) { lists.input[i].value = String(v); });
var picture = element();
var document = {getElementById: function () { return {
  querySelectorAll: function (key) { return lists[key]; },
  querySelector: function () { return picture; }}; }};
"""


def shown(run_script, page, positions):
    """(texts of the controls, texts of the numbers, picture) at some positions."""
    page = BeautifulSoup(page, "html.parser")
    stub = _STUB.replace("POSITIONS", str(list(positions)))
    stub = stub.replace("NUMBERS", str(len(page.select("dd"))))
    report = (
        "function texts(l) { return l.map(function (e) { return e.textContent; }); }"
        "lists.input.forEach(function (e, i) {"
        "  if (e.attributes['aria-valuetext'] !== lists.output[i].textContent) throw i; });"
        "console.log(JSON.stringify([texts(lists.output), texts(lists.dd), picture.innerHTML]));"
    )
    return json.loads(run_script(stub + page.script.text + report))


@pytest.mark.parametrize("positions", list(itertools.product(range(3), range(2))))
def test_each_position_shows_its_frame(run_script, positions):
    ticks, numbers, picture = shown(run_script, frames(), positions)
    place = 2 * positions[0] + positions[1]
    assert numbers == [f"{place}", f"{place * place}"] and picture == FRAMES[place].picture
    assert ticks == [CONTROLS[0][1][positions[0]], CONTROLS[1][1][positions[1]]]


@pytest.mark.parametrize(
    ("distance", "width"), [(2, 1), (4, 0.5), (5, 1), (6, 1), (0, 2), (8, 0.2)]
)
def test_the_script_computes_what_the_package_computes(run_script, distance, width):
    page = sliders.bit_slider(distance, width)
    positions = [int(tag["value"]) for tag in BeautifulSoup(page, "html.parser").select("input")]
    ticks, numbers, picture = shown(run_script, page, positions)
    assert ticks == [f"{distance:.1f}", f"{width:.2f}"]
    world = Bit([-distance / 2, distance / 2], [width, width], [0.5, 0.5])
    expected = [
        world.overlap(),
        float(world.shared_posterior().scale),
        float(world.moment_matched().scale),
        world.mutual_information(),
        world.conditioning_gap(),
    ]
    for number, value in zip(numbers, expected, strict=True):
        digits = 3 if value < 100 else 1
        assert float(number) == pytest.approx(value, abs=0.51 * 10**-digits)
    seeking = world.mode_seeking()
    mean, sd = re.search(r"Gaussian has mean (\S+) and width (\S+);", picture).groups()
    assert float(mean) == pytest.approx(float(seeking.loc), abs=0.006)
    assert float(sd) == pytest.approx(float(seeking.scale), abs=0.006)
    # At their highest all curves are drawn in the proportion of their widths, 225 units for q_C.
    for key, scale in (("shared", width), ("moment_matched", expected[2])):
        path = re.search(rf'd="(M[^"]+)" fill="none" stroke="{COLOURS[key]}"', picture)[1]
        top = min(float(point.split()[1]) for point in re.split("[ML]", path)[1:])
        assert 250 - top == pytest.approx(225 * width / scale, abs=0.06)


@pytest.mark.parametrize(
    ("distance", "width", "message"),
    [
        (-1, 1, "distance must lie between 0 and 8"),
        (9, 1, "distance must lie between 0 and 8"),
        (1, 0.1, "width must lie between 0.2 and 2"),
        (1, float("nan"), "width must be finite"),
    ],
)
def test_starts_outside_the_sliders_are_refused(distance, width, message):
    with pytest.raises(ValueError, match=message):
        sliders.bit_slider(distance, width)


def test_bars_are_as_high_as_their_numbers():
    picture = sliders.bars([1, 3], ["x", ""], top=4, spoken="one & three")
    assert re.findall(r"v(-[\d.]+)h", picture) == ["-55.0", "-165.0"]
    assert 'aria-label="one &amp; three"' in picture and picture.count("<text") == 1


def test_fans_run_from_the_last_seen_step():
    past, truth = np.zeros(3), np.array([1.0, -1.0])
    band = (truth - 1, truth, truth + 1, "#123456")
    picture = sliders.fans(past, truth, [band], limits=(-2, 2), spoken="a fan")
    # Five steps across 584: the fourth begins at 8 + 3 * 146.
    assert picture.count("#123456") == 2 and "M446 137L592 262L592 137L446 12z" in picture
    middle = re.search(r'd="M([^"z]+)" fill="none" stroke="#123456"', picture)[1]
    assert middle == "446 74L592 200"
    assert re.search(r'd="(M\d+ \d+h0)+"', picture)[0].count("h0") == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sliders.slider("Chain", CONTROLS, ["one", "two"], FRAMES), "small letters"),
        (lambda: sliders.slider("c", CONTROLS, ["one", "two"], FRAMES[:5]), "6 frames"),
        (lambda: sliders.slider("c", CONTROLS, ["one"], FRAMES), "1 numbers"),
        (lambda: sliders.slider("c", CONTROLS, ["one", "two"], FRAMES, start=[3, 0]), "position"),
        (
            lambda: sliders.slider(
                "c",
                [("a", ["x", "y"])],
                [],
                [sliders.Frame("x" * sliders.MAXIMUM_BYTES, ())] * 2,
            ),
            "bytes",
        ),
        (lambda: sliders.bars([1, 2], ["a"]), "label"),
        (lambda: sliders.bars([1, -2], ["a", "b"]), "between"),
        (lambda: sliders.bars([1, np.nan], ["a", "b"]), "NaN"),
        (
            lambda: sliders.fans(
                [0.0], [1.0], [([0, 0], [0], [0], "#1")], limits=(0, 1), spoken=""
            ),
            "horizons",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_clouds_lie_around_the_truth_and_leave_out_what_is_far():
    points = np.array([[1.0, 2.0], [1.5, 2.0], [9.0, 9.0]])
    picture = sliders.clouds(
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
        sliders.clouds([], truth=[0.0], seen=[0.0], reach=0, spoken="")
