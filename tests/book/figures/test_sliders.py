"""The slider: structure, accessibility, and the numbers that its script computes."""

import re

import pytest
from bs4 import BeautifulSoup

from tfp_gaps.book.figures import COLOURS, sliders
from tfp_gaps.exact.bit import Bit


@pytest.fixture(scope="module")
def page():
    return BeautifulSoup(sliders.bit_slider(), "html.parser")


def test_every_control_has_a_label_and_an_output(page):
    controls = page.select("input[type=range]")
    assert len(controls) == 2
    for control in controls:
        assert page.select_one(f"label[for={control['id']}]").text.strip()
        assert page.select_one(f"output[for={control['id']}]").text
        assert "tabindex" not in control.attrs  # native order: reachable by keyboard


def test_nothing_is_loaded_and_the_page_stays_small(page):
    text = sliders.bit_slider()
    assert not re.search(r"https?:|src=|@import|url\(", text)
    assert len(text) < 10_000
    assert page.select_one("svg[role=img]")["aria-label"]
    assert page.noscript.text.strip()


def test_curves_have_the_colours_of_the_book(page):
    for key, label, _ in sliders.CURVES:
        assert page.select_one(f"[data-curve={key}]")["stroke"] == COLOURS[key]
        assert label in page.ul.text


def test_identifiers_are_unique(page):
    identifiers = [tag["id"] for tag in page.select("[id]")]
    assert len(identifiers) == len(set(identifiers))


_STUB = """
var store = {};
function element(key) {
  if (!(key in store)) {
    store[key] = {value: 0, textContent: "", attributes: {}, addEventListener: function () {},
      setAttribute: function (name, value) { this.attributes[name] = value; }};
  }
  return store[key];
}
var document = {getElementById: function () { return {querySelector: element}; }};
element("#bit-distance").value = DISTANCE;
element("#bit-width").value = WIDTH;
"""


@pytest.mark.parametrize(
    ("distance", "width"), [(2, 1), (4, 0.5), (5, 1), (6, 1), (0, 2), (8, 0.2)]
)
def test_the_script_computes_what_the_package_computes(page, run_script, distance, width):
    stub = _STUB.replace("DISTANCE", str(distance)).replace("WIDTH", str(width))
    report = "for (var k in store) console.log(k, store[k].textContent || "
    report += 'store[k].attributes["aria-label"] || "");'
    printed = run_script(stub + page.script.text + report)
    shown = dict(line.split(" ", 1) for line in printed.splitlines())
    world = Bit([-distance / 2, distance / 2], [width, width], [0.5, 0.5])
    expected = {
        "overlap": world.overlap(),
        "shared_sd": float(world.shared_posterior().scale),
        "marginal_sd": float(world.moment_matched().scale),
        "information": world.mutual_information(),
        "gap": world.conditioning_gap(),
    }
    for key, value in expected.items():
        digits = 3 if value < 100 else 1
        assert float(shown[f"[data-number={key}]"]) == pytest.approx(value, abs=0.51 * 10**-digits)
    seeking = world.mode_seeking()
    mean, sd = re.search(r"Gaussian has mean (\S+) and width (\S+);", shown["[data-plot]"]).groups()
    assert float(mean) == pytest.approx(float(seeking.loc), abs=0.006)
    assert float(sd) == pytest.approx(float(seeking.scale), abs=0.006)


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
