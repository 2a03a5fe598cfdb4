"""Sliders: labelled, small, loading nothing, and right at every position."""

import itertools
import re

import numpy as np
import pytest
from bs4 import BeautifulSoup

from tfp_gaps.book.figures import COLOURS, page, sliders
from tfp_gaps.exact.bit import Bit

CONTROLS = [("look-ahead", ["0", "1", "all"]), ("noise <R>", ["low", "high"])]
LEGEND = [("full", "weight")]
FRAMES = [
    sliders.Frame(
        sliders.bars([i + 1.0, 2], ["a", ""], top=10, spoken=f"bars {i}"), (f"{i}", f"{i * i}")
    )
    for i in range(6)
]


def frames():
    return sliders.slider("chain", CONTROLS, ["one", "two"], FRAMES, start=[1, 1], legend=LEGEND)


def test_every_control_is_labelled_and_nothing_is_loaded():
    page = BeautifulSoup(frames(), "html.parser")
    controls = page.select("input[type=range]")
    assert len(controls) == 2
    for control in controls:
        assert page.select_one(f"label[for={control['id']}]").text.strip()
        assert page.select_one(f"output[for={control['id']}]").text
        assert "tabindex" not in control.attrs  # native order: reachable by keyboard
    assert page.noscript.text.strip()
    assert not re.search(r"https?:|\bsrc=|@import|url\(", frames())
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
    assert [item.text for item in page.select(".legend li")] == ["weight"]


def set_to(browser, values):
    """Set the ranges as a hand does."""
    browser.ask(
        f"document.querySelectorAll('input').forEach((e, i) => {{ e.value = {list(values)}[i];"
        "e.dispatchEvent(new Event('input', {bubbles: true})); })"
    )


def texts(browser, selector):
    return browser.ask(
        f"Array.from(document.querySelectorAll('{selector}')).map((e) => e.textContent)"
    )


def test_each_position_shows_its_frame(show):
    browser = show(frames())
    for first, second in itertools.product(range(3), range(2)):
        set_to(browser, (first, second))
        place = 2 * first + second
        assert texts(browser, "dd") == [f"{place}", f"{place * place}"]
        ticks = [CONTROLS[0][1][first], CONTROLS[1][1][second]]
        assert texts(browser, "output") == ticks
        spoken = "Array.from(document.querySelectorAll('input')).map((e) => e.ariaValueText)"
        assert browser.ask(spoken) == ticks
        browser.until(f"document.querySelector('.state').textContent === 'bars {place}'")


def test_keys_move_a_slider(show):
    browser = show(frames())
    browser.ask("document.querySelector('input').focus()")
    browser.press("ArrowRight")
    assert texts(browser, "output") == ["all", "high"] and texts(browser, "dd") == ["5", "25"]


SETTINGS = [(2, 1), (4, 0.5), (5, 1), (6, 1), (0, 2), (8, 0.2)]


def test_the_script_computes_what_the_package_computes(show):
    browser = show(sliders.bit_slider(5, 1.1))
    assert texts(browser, "output") == ["5.0", "1.10"]
    for distance, width in SETTINGS:
        set_to(browser, (distance, width))
        assert texts(browser, "output") == [f"{distance:.1f}", f"{width:.2f}"]
        world = Bit([-distance / 2, distance / 2], [width, width], [0.5, 0.5])
        expected = [
            world.overlap(),
            float(world.shared_posterior().scale),
            float(world.moment_matched().scale),
            world.mutual_information(),
            world.conditioning_gap(),
        ]
        for number, value in zip(texts(browser, "dd"), expected, strict=True):
            digits = 3 if value < 100 else 1
            assert float(number) == pytest.approx(value, abs=0.51 * 10**-digits)
        seeking = world.mode_seeking()
        found = browser.ask(
            "Object.values({...document.querySelector('.tale').dataset}).map(Number)"
        )
        np.testing.assert_allclose(found, [seeking.loc, seeking.scale], atol=1e-3)
        # At their highest all curves are drawn in the proportion of their widths.
        for key, scale in (("shared", width), ("moment_matched", expected[2])):
            path = browser.ask(f"document.querySelector('[data-key={key}]').getAttribute('d')")
            top = min(float(point.split()[1]) for point in re.split("[ML]", path)[1:])
            assert 260 - top == pytest.approx(260 / 1.05 * width / scale, abs=0.06)


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
    picture = sliders.bars([1, 3], ["x", ""], top=4, spoken="one & three", across="step", up="m")
    # An area of 520 by 260 for two bars: four tenths of 260 on both sides of 130 and 390.
    assert "M26 260L26 195L234 195L234 260z" in picture
    assert "M286 260L286 65L494 65L494 260z" in picture
    assert 'aria-label="one &amp; three"' in picture
    labels = [tag.text for tag in BeautifulSoup(picture, "html.parser").select("text")]
    assert labels == ["x", "0", "1", "2", "3", "4", "step", "m"]


def test_fans_run_from_the_last_seen_step():
    past, truth = np.zeros(3), np.array([1.0, -1.0])
    band = (truth - 1, truth, truth + 1, COLOURS["partial"])
    picture = sliders.fans(
        past, truth, [band], limits=(-2, 2), spoken="a fan", step=0.5, across="hours", up="cars"
    )
    page = BeautifulSoup(picture, "html.parser")
    # Steps at -1, -.5, 0, .5 and 1 across 520, and room for half a step; the area is 260 high.
    assert "M346.7 130L462.2 260L462.2 130L346.7 0z" in picture
    assert page.select_one(".line")["d"] == "M346.7 65L462.2 195"
    assert page.select_one(".dots")["d"] == "M346.7 65h0M462.2 195h0"
    texts = [tag.text for tag in page.select("text")]
    assert texts[:3] == ["−1", "−0.5", "0"] and texts[-2:] == ["hours", "cars"]
    assert page.select_one(".area")["data-across"] == "-1 1.25"


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
                [sliders.Frame("x" * page.MAXIMUM_BYTES, ())] * 2,
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
    # Areas of 226, one unit to both sides: the middle at 113, a half unit is 56.5; up is up.
    areas = BeautifulSoup(picture, "html.parser").select(".area")
    assert [area.select_one(".dots")["d"] for area in areas] == [
        "M113 113h0M169.5 113h0",
        "M113 113h0",
    ]
    for area in areas:
        signs = {tag.text: (tag["x"], tag["y"]) for tag in area.select("text")}
        assert signs == {"×": ("113", "56.5"), "★": ("113", "113")}
    with pytest.raises(ValueError, match="reach"):
        sliders.clouds([], truth=[0.0], seen=[0.0], reach=0, spoken="")
