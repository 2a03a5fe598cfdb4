"""The drawings: well-formed, with an answer for each chapter, and arrows where the masks say so."""

import pathlib
import re
import xml.etree.ElementTree as ElementTree

import pytest
import yaml

from tfp_gaps.book import literature
from tfp_gaps.book.figures import graphs, overview
from tfp_gaps.gaps import PARTS

ROOT = pathlib.Path(__file__).resolve().parents[3]
SVG = "{http://www.w3.org/2000/svg}"


def texts(svg):
    return ["".join(each.itertext()) for each in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_the_large_drawing_goes_from_evidence_to_elbo_and_leads_to_the_chapters():
    found = ElementTree.fromstring(overview.drawing())
    places = {
        "".join(text.itertext()): float(text.get("y"))
        for text in found.iter(f"{SVG}text")
        if text.get("class") in ("gaps-part", "gaps-level")
    }
    wanted = ["evidence", *(f"{part} gap" for part in PARTS), "ELBO"]
    assert sorted(wanted, key=places.get) == wanted
    linked = {link.get("href") for link in found.iter(f"{SVG}a")}
    assert linked == {f"{name}.html" for name in (*PARTS[:2], "amortisation", "elbo")}


@pytest.mark.parametrize("lit", [PARTS, *[(part,) for part in PARTS], overview.AMORTISATION])
def test_the_small_drawing_lights_its_parts_and_says_so(lit):
    svg = overview.here(lit)
    found = ElementTree.fromstring(svg)
    bold = [t.text for t in found.iter(f"{SVG}text") if "gaps-lit" in t.get("class")]
    assert bold == [f"{part} gap" for part in lit]
    (mark,) = [t for t in found.iter(f"{SVG}text") if "gaps-here" in t.get("class")]
    rows = [float(t.get("y")) for t in found.iter(f"{SVG}text") if "gaps-lit" in t.get("class")]
    # Beside the middle of what is lit: text of one row and of its neighbour are 25 apart.
    assert abs(float(mark.get("y")) - (rows[0] + rows[-1]) / 2) < 5
    title = found.find(f"{SVG}title")
    assert title.get("id") in found.get("aria-labelledby").split()
    assert ("all four" in title.text) if lit == PARTS else all(part in title.text for part in lit)


@pytest.mark.parametrize("lit", [[], ["amortisation"]])
def test_a_part_that_is_none_is_refused(lit):
    with pytest.raises(ValueError, match=r"lit must name some of approximation, .*, but is"):
        overview.here(lit)


def test_every_chapter_has_a_place():
    parts = yaml.safe_load((ROOT / "_toc.yml").read_text())["parts"]
    chapters = [
        c["file"] for part in parts if part["caption"] != "Back matter" for c in part["chapters"]
    ]
    assert sorted(overview.PLACES) == sorted(chapters)


def test_colours_suit_day_and_night():
    """What is black on paper follows the page; hues are those of the figures."""
    for svg in (overview.drawing(), overview.here(PARTS), graphs.graph("full")):
        assert not re.search(r"#000|black", svg)
        assert "currentColor" in svg and "<path" in svg


@pytest.mark.parametrize("name", [*graphs.RULES, *literature.SCHEMES])
def test_arrows_are_missing_where_the_conditions_hide(name):
    found = ElementTree.fromstring(graphs.graph(name))
    missing = [p for p in found.iter(f"{SVG}path") if p.get("class") == "gaps-missing"]
    heads = [p for p in found.iter(f"{SVG}path") if p.get("fill") == "currentColor"]
    # Of z_{t-1} and of x_{t-1}, x_t, x_{t+1}, x_{t+2}, in words as the rules are stated.
    sees = {
        "partial": 3,
        "look-ahead": 4,
        "full": 5,
        "all": 5,
        "all, no latents": 4,
        "start, then present": 3,  # drawn at its first step, which has no z_{t-1}
        "past and present": 3,
        "present": 2,
        "past, no latents": 2,
        "present, no latents": 1,
    }[name]
    arrows = 4 if name == "start, then present" else 5
    assert (len(heads), len(missing)) == (sees, arrows - sees)
    label = found.get("aria-label")
    assert ("none is missing" in label) == (sees == arrows)
    assert ("t+2" in label.split(";")[0]) == (name in ("full", "all", "all, no latents"))


def test_a_split_shows_what_is_left_out():
    assert texts(graphs.graph("shown C")) == ["C", "C", "z"]
    assert graphs.graph("shown C").count("gaps-missing") == 1
    assert "gaps-missing" not in graphs.graph("shown everything")
    with pytest.raises(ValueError, match="name must be one of partial"):
        graphs.graph("some")
