"""What the book adds to Sphinx: badges that lead to verdicts, drawings where they belong."""

import re

import pytest
from bs4 import BeautifulSoup
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

import book_extension
from tfp_gaps.book.ledger import claims
from tfp_gaps.book.ledger.claims import Claim, Criterion, Record
from tfp_gaps.book.ledger.scorecard import Row
from tfp_gaps.estimate import Estimate

CLAIM = Claim(
    "C20",
    "It rains.",
    ("somebody",),
    "identity",
    "conditioning",
    (Criterion("x", "at_most", 1.0, "y"),),
)
MEASURED = Record(CLAIM, {"x": Estimate(0.0)})
ROWS = [
    Row(CLAIM, MEASURED, MEASURED.verdict, "conditioning.html#claim-C20", ""),
    Row(
        Claim("C21", "It pours.", ("somebody",), "identity", None),
        None,
        claims.NOT_TESTED,
        None,
        "",
    ),
]


@pytest.fixture
def built(tmp_path, monkeypatch):
    """Build two pages from MyST, and return them parsed, with the warnings."""
    monkeypatch.setattr(book_extension.scorecard, "rows", lambda folder: ROWS)

    def build(text):
        source, warnings = tmp_path / "source", tmp_path / "warnings"
        source.mkdir()
        (source / "claims.yml").write_text("")
        (source / "index.md").write_text(
            f"# Start\n\n{text}\n\n```{{toctree}}\nconditioning\n```\n"
        )
        (source / "conditioning.md").write_text(f"# Conditioning\n\nFirst.\n\n{text}\n")
        with warnings.open("w") as log, docutils_namespace():
            app = Sphinx(
                source,
                None,
                tmp_path / "out",
                tmp_path / "trees",
                "html",
                confoverrides={"extensions": ["myst_parser", "book_extension"]},
                status=None,
                warning=log,
            )
            app.build()
        pages = {
            name: BeautifulSoup((tmp_path / f"out/{name}.html").read_text(), "html.parser")
            for name in ("index", "conditioning")
        }
        return pages, warnings.read_text()

    return build


def test_a_badge_leads_to_the_verdict_and_to_the_scorecard(built):
    pages, warnings = built("Rain {claim}`C20`, {claim}`C21`.")
    assert warnings == ""
    targets = {
        name: [[a["href"] for a in badge.find_all("a")] for badge in page.select(".claim-badge")]
        for name, page in pages.items()
    }
    planned = ["scorecard.html#C21", "scorecard.html#C21"]
    assert targets["index"] == [["conditioning.html#claim-C20", "scorecard.html#C20"], planned]
    assert targets["conditioning"] == [["#claim-C20", "scorecard.html#C20"], planned]
    badge = pages["index"].select_one(".claim-badge")
    assert badge.text.startswith("C20 =")
    assert badge.a["aria-label"] == "C20, identity"


def test_an_unknown_claim_or_graph_is_a_warning(built):
    _, warnings = built("Rain {claim}`C99`.\n\n```{graphical-models} some\n```")
    assert len(re.findall("'C99' is no claim of claims.yml", warnings)) == 2
    assert len(re.findall("name must be one of partial", warnings)) == 2


def test_the_drawing_stands_below_the_title_of_a_chapter_and_nowhere_else(built):
    pages, warnings = built("```{graphical-models} partial, all, no latents\n```")
    assert warnings == ""
    svg = pages["conditioning"].select_one("h1 ~ svg.gaps-small")
    assert svg.find_previous_sibling().name == "h1"
    assert not pages["index"].select("svg.gaps-small")
    captions = [each.text for each in pages["index"].select("figcaption")]
    assert captions == ["partial", "all, no latents"]
