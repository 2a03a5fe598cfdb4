"""The scorecard's table: whole and plain without JavaScript, searched and sorted with it."""

import json
import pathlib
import re
import shutil
import subprocess

import pytest
from bs4 import BeautifulSoup

from tfp_gaps.book.ledger import board, claims, scorecard
from tfp_gaps.book.ledger.claims import Claim, Criterion, Former, Record
from tfp_gaps.book.ledger.scorecard import Row
from tfp_gaps.estimate import Estimate

SCRIPT = pathlib.Path(__file__).resolve().parents[3] / "book/_static/scorecard.js"
FORMER = Former("warmth", "at_least_se", 2.0, "0.1 ± 0.2", "failed", "2026-01-01", "too strict")


def row(name, value, chapter="water", source=("soelch2021tale",), **more):
    """A claim that asks for at least 1 with a margin of .5, measured with an error of .1."""
    criterion = Criterion(
        "wetness", "at_least", 1.0, why="wet is wet", set="2026-01-01", margin=0.5
    )
    statement = f"{name} is wet & cold."
    claim = Claim(name, statement, source, "quantitative", chapter, (criterion,), **more)
    if value is None:
        return Row(claim, None, claims.NOT_TESTED, None, "touch it")
    record = Record(claim, {"wetness": Estimate(value, 0.1)})
    return Row(claim, record, record.verdict, f"{chapter}.html#claim-{name}", "", survives=False)


ROWS = [
    row("C01", 3.0),
    row("C02", 1.0, source=("bayer2021mind", "soelch2021tale")),
    row("C03", 1.25, chapter="fire"),
    row("C04", None, chapter=None),
    row("C05", 0.5, was=(FORMER,)),
]


def parsed(html):
    return BeautifulSoup(html, "html.parser")


def test_what_failed_comes_first_and_every_claim_has_an_address():
    page = parsed(board.table(ROWS))
    found = page.select("tbody tr")
    assert [each["id"] for each in found] == ["C02", "C05", "C03", "C04", "C01"]
    assert [each["data-verdict"] for each in found] == [
        "different",
        "different",
        "undecided",
        "not tested",
        "reproduced",
    ]
    assert page.select_one("#C05 a.claim-number")["href"] == "#C05"
    assert page.select_one("#C03 a[href='fire.html#claim-C03']").text == "fire"


def test_without_javascript_no_control_is_shown_and_no_row_hidden():
    page = parsed(board.table(ROWS))
    assert page.select_one("form").has_attr("hidden")
    assert not page.select("tr[hidden]") and not page.select("details[open]")
    assert not parsed(board.totals(scorecard.verdict_totals(ROWS))).select("button")


def test_criteria_are_folded_under_what_decided():
    page = parsed(board.table(ROWS))
    summary = page.select_one("#C01 summary")
    assert summary.text == "3.00 ± 0.10: wetness"
    inside = page.select_one("#C01 details").text
    for words in ("99 %: 2.74 to 3.26", "at least 1, margin 0.5", "wet is wet", "Does not survive"):
        assert words in inside
    assert "touch it" in page.select_one("#C04 details").text
    former = page.select_one("#C05 details details").text
    assert former.startswith("History of the criteria")
    assert "0.1 ± 0.2 [at least 2: failed]" in former and "too strict" in former
    assert "C01 is wet &amp; cold." in board.table(ROWS)


def test_every_source_of_the_book_has_a_name():
    for each in claims.load(claims.default_path()).values():
        assert set(each.source) <= set(board.SOURCE_NAMES), each.id


def test_sentences_name_the_claims_that_did_not_hold():
    page = parsed(board.sentences(ROWS, (claims.UNDECIDED, claims.DIFFERENT)))
    verdicts = [each.text.split(" ", 1)[1] for each in page.select(".verdict")]
    assert verdicts == ["undecided", "different"]
    named = [[each.a.text for each in listed.select("li")] for listed in page.select("ul")]
    assert named == [["C03"], ["C02", "C05"]]
    assert page.select_one("li a")["href"] == "scorecard.html#C03"


# --- in a browser --------------------------------------------------------------------------------

PROBE = """
const form = document.querySelector("form"), found = [];
const rows = () => [...document.querySelectorAll("tbody tr")];
const shown = () => rows().filter(r => !r.hidden).map(r => r.id);
const note = () => found.push(shown().join(" "));
const set = (name, value) => {
  form.elements[name].value = value;
  form.dispatchEvent(new Event("input", {bubbles: true}));
};
const button = word => document.querySelector(`.scorecard-totals button[data-verdict="${word}"]`);
note();
button("different").click(); note();
found.push(button("different").getAttribute("aria-pressed"));
button("different").click(); note();
set("source", "bayer2021mind"); note(); set("source", "");
set("chapter", "fire"); note(); set("chapter", "");
set("words", "wet c04"); note(); set("words", "");
set("sort", "id"); note();
set("words", "nothing of this"); note();
found.push(document.querySelector("[role=status]").textContent);
location.hash = "#C03";
setTimeout(() => {
  note();
  found.push(String(document.querySelector("#C03 details").open), String(form.hidden));
  document.body.innerHTML = `<pre id="probe">${JSON.stringify(found)}</pre>`;
}, 200);
"""


@pytest.fixture
def browse(tmp_path):
    """Open the scorecard in a browser, run the probe, and return what it found; needs Chromium."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium to use the page")

    def opened(address=""):
        content = board.totals(scorecard.verdict_totals(ROWS)) + board.table(ROWS)
        scripts = f"<script>{SCRIPT.read_text()}</script><script>{PROBE}</script>"
        page = tmp_path / "scorecard.html"
        page.write_text(f"<!doctype html><meta charset=utf-8><body>{content}{scripts}</body>")
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        command += ["--virtual-time-budget=10000", page.as_uri() + address]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=300).stdout
        return json.loads(re.search(r'<pre id="probe">(.*?)</pre>', shown)[1])

    return opened


def test_filters_search_sorting_and_links_in_a_browser(browse):
    everything = "C02 C05 C03 C04 C01"
    assert browse() == [
        everything,
        "C02 C05",
        "true",
        everything,
        "C02",
        "C03",
        "C04",
        "C01 C02 C03 C04 C05",
        "",
        "0 of 5 claims shown",
        everything,
        "true",
        "false",
    ]
    assert browse("?verdict=undecided")[0] == "C03"
