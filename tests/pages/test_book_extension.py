"""What the book adds to Sphinx: badges that lead to verdicts, drawings where they belong."""

import re

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
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
# A white picture of one pixel.
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4//8/AAX+Av4N70a4AAAAAElFTkSuQmCC"
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
        (source / "_extra/experiments").mkdir(parents=True)
        (source / "_extra/experiments/conditioning.py").write_text("1\n2\n")
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


def test_a_chapter_with_badges_says_what_their_signs_mean(built):
    pages, warnings = built("**Cost:** 3 s\n\nRain {claim}`C20`.")
    assert warnings == ""
    (key,) = pages["conditioning"].select("p.badge-key")
    assert key.find_previous("p").text == "Cost: 3 s"
    assert "= identity" in key.text and "\N{CHECK MARK} reproduced," in key.text


def test_a_chapter_without_badges_needs_no_key(built):
    pages, _ = built("**Cost:** 3 s\n\nRain.")
    assert not pages["conditioning"].select("p.badge-key")


def test_a_chapter_ends_with_the_link_to_its_script(built):
    pages, warnings = built("## Last\n\nWords.")
    assert warnings == ""
    link = pages["conditioning"].select_one("p.take-along > a")
    assert link["href"] == "experiments/conditioning.py" and link.has_attr("download")
    assert "in 2 lines" in link.parent.text
    assert link.parent.find_previous("p").text == "Words."
    assert not pages["index"].select("p.take-along")


def test_a_figure_leads_to_its_data_and_to_the_cell_that_drew_it(tmp_path):
    """In a page made of a notebook; without data there is no link to them."""
    source = tmp_path / "source"
    (source / "_extra/figures").mkdir(parents=True)
    (source / "_extra/figures/fig-a.csv").write_text("x,y\n")
    cells = [new_markdown_cell("# Start")]
    for name, tag in (("fig-a", "hide-input"), ("fig-b", "remove-input"), (None, "hide-input")):
        page = {"figure": {"name": name, "caption": "Seen."}} if name else {}
        picture = new_output("display_data", {"image/png": PIXEL, "text/plain": "x"})
        cells.append(
            new_code_cell("show()", metadata={"tags": [tag], "mystnb": page}, outputs=[picture])
        )
    metadata = {"language_info": {"name": "python", "pygments_lexer": "python3"}}
    nbformat.write(new_notebook(cells=cells, metadata=metadata), source / "index.ipynb")
    extensions = ["myst_nb", "book_extension"]
    with docutils_namespace():
        options = {"extensions": extensions, "nb_execution_mode": "off"}
        app = Sphinx(source, None, tmp_path / "out", tmp_path, "html", options, status=None)
        app.build()
    page = BeautifulSoup((tmp_path / "out/index.html").read_text(), "html.parser")
    links = [
        [a["href"] for a in figure.select("p.figure-sources a")] for figure in page.select("figure")
    ]
    assert links == [["figures/fig-a.csv", "#code-fig-a"], []]
    code = page.find(id="code-fig-a")
    assert "show()" in code.text and code.find_parent("details")
