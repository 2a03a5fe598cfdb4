"""The ledger: rules at their boundaries, the schema's errors, records in and out of notebooks."""

import ast
import copy
import json
import pathlib
import subprocess
import sys

import myst_nb
import numpy as np
import pytest
import yaml

from tfp_gaps.book.ledger import Ledger, claims, scorecard, view
from tfp_gaps.book.ledger.claims import MIME, ClaimsError, Criterion
from tfp_gaps.estimate import Estimate

BOOK = pathlib.Path(__file__).resolve().parent.parent.parent.parent / "book"
SOURCES = {"soelch2021tale", "bayer2021mind", "cremer2018inference", "kayalibay2021less"}
OWN = ("contributors2026tale",)
"""Source of the claims that this book adds."""

TESTED = {
    "id": "C01",
    "statement": "Water is wet & cold.",
    "source": ["somebody2020"],
    "kind": "quantitative",
    "chapter": "water",
    "criteria": [{"name": "wetness", "rule": "at_least", "bound": 1.0, "why": "wet is wet"}],
    "caveats": [
        {"name": "heat", "rule": "at_least", "bound": 0.5, "why": "a limit", "text": "Not warm."}
    ],
}
PLANNED = {
    "id": "C02",
    "statement": "Fire is hot.",
    "source": ["somebody2020"],
    "kind": "qualitative",
    "chapter": None,
    "plan": "fire: touch it.",
}
WET = {"wetness": Estimate(2.0, 0.1, kind="seeds"), "heat": Estimate(0.0)}


@pytest.fixture
def book(tmp_path):
    """A folder with a claims file of one tested and one planned claim."""
    write_claims(tmp_path, [TESTED, PLANNED])
    return tmp_path


def write_claims(folder, entries):
    (folder / "claims.yml").write_text(yaml.safe_dump(entries), encoding="utf-8")
    return folder / "claims.yml"


def changed(entry, path, value):
    """Return a copy of `entry` with the item at `path` replaced, or removed if value is `...`."""
    entry = copy.deepcopy(entry)
    target = entry
    for key in path[:-1]:
        target = target[key]
    if value is ...:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return entry


def stored_record(book, estimates=None):
    """Return the JSON that a chapter would leave behind."""
    ledger = Ledger("water", book / "claims.yml")
    ledger.record("C01", estimates or WET)
    return ledger.records["C01"].as_dict()


def write_notebook(book, records, name="water"):
    outputs = [{"output_type": "display_data", "metadata": {}, "data": {MIME: r}} for r in records]
    cells = [
        {"cell_type": "markdown", "source": "text"},
        {
            "cell_type": "code",
            "source": "",
            "outputs": [{"output_type": "stream", "text": "x"}, *outputs],
        },
    ]
    (book / f"{name}.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")


def rule(name, bound, **options):
    return Criterion("x", name, bound, why="a test", **options)


# All numbers are exact in binary, so the boundary cases are boundaries and not roundings.
@pytest.mark.parametrize(
    ("criterion", "value", "error", "expected"),
    [
        (rule("at_most", 1.0), 1.0, 0.0, True),
        (rule("at_most", 1.0), 1.0009765625, 0.0, False),
        (rule("at_most", 1.0), 1.0, 5.0, True),  # at_most looks at the value alone
        (rule("at_least", 1.0), 1.0, 0.0, True),
        (rule("at_least", 1.0), 2.5, 0.5, True),  # 2.5 - 3 * .5 = 1
        (rule("at_least", 1.0), 2.5, 0.515625, False),
        (rule("at_least", 1.0, z=1.0), 2.5, 1.5, True),
        (rule("at_least", 1.0, z=1.0), 2.5, 1.75, False),
        (rule("at_most_se", 1.0), -0.5, 0.5, True),
        (rule("at_most_se", 1.0), -0.5, 0.515625, False),
        (rule("at_most_se", 1.0, z=2.0), 0.0, 0.5, True),
        (rule("at_most_se", 1.0, z=2.0), 0.0, 0.515625, False),
        (rule("equals", 1.0, tolerance=0.25), 1.25, 0.0, True),
        (rule("equals", 1.0, tolerance=0.25), 0.75, 0.0, True),
        (rule("equals", 1.0, tolerance=0.25), 1.2509765625, 0.0, False),
        (rule("equals", 1.0, tolerance=0.25), 2.5, 0.5, True),  # within three standard errors
        (rule("equals", 1.0, tolerance=0.25), 2.5, 0.484375, False),
        (rule("equals", 1.0, tolerance=0.25, z=1.0), 1.5, 0.5, True),
        (rule("equals", 1.0, tolerance=0.25, max_error=1.5), 1.0, 0.5, True),
        (rule("equals", 1.0, tolerance=0.25, max_error=1.5), 1.0, 0.515625, False),  # too noisy
    ],
)
def test_rules_at_their_boundaries(criterion, value, error, expected):
    assert criterion.holds(Estimate(value, error)) is expected


@pytest.mark.parametrize(
    ("wetness", "heat", "verdict"),
    [
        (2.0, 0.0, "reproduced"),
        (2.0, 0.5, "reproduced with qualification"),
        (0.5, 0.0, "different"),
        (0.5, 0.5, "different"),  # a caveat cannot rescue a failed criterion
    ],
)
def test_verdict_follows_from_criteria_and_caveats(book, wetness, heat, verdict):
    ledger = Ledger("water", book / "claims.yml")
    ledger.record("C01", {"wetness": Estimate(wetness), "heat": Estimate(heat)})
    assert ledger.verdict_lines() == f"C01 {verdict}"


def test_every_criterion_must_hold(tmp_path):
    second = {"name": "depth", "rule": "at_most", "bound": 0.0, "why": "a second condition"}
    entry = changed(TESTED, ["criteria"], [*TESTED["criteria"], second])
    ledger = Ledger("water", write_claims(tmp_path, [entry]))
    ledger.record("C01", {**WET, "depth": Estimate(1.0)})
    assert ledger.verdict_lines() == "C01 different"


@pytest.mark.parametrize(
    ("estimates", "message"),
    [
        ({"wetness": Estimate(2.0)}, r"Missing: \['heat'\]"),
        ({**WET, "colour": Estimate(1.0)}, r"Unknown: \['colour'\]"),
        ({"Wetness": Estimate(2.0), "heat": Estimate(0.0)}, r"Missing: \['wetness'\]"),
        ({**WET, "wetness": True}, "expected an Estimate or a number, found bool"),
        ({**WET, "wetness": "reproduced"}, "expected an Estimate or a number, found str"),
    ],
)
def test_record_wants_exactly_the_named_estimates(book, estimates, message):
    ledger = Ledger("water", book / "claims.yml")
    with pytest.raises(ClaimsError, match=message):
        ledger.record("C01", estimates)
    assert ledger.records == {}


@pytest.mark.parametrize("number", [2, 2.0, np.float32(2), np.int64(2)])
def test_a_number_counts_as_exact(book, number):
    stored = stored_record(book, {**WET, "wetness": number})
    exactly = {"value": 2.0, "standard_error": 0.0, "num_samples": None, "kind": "exact"}
    assert stored["estimates"]["wetness"] == exactly


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_diverged_run_decides_nothing(book, number):
    with pytest.raises(ValueError, match="diverged"):
        stored_record(book, {**WET, "wetness": number})
    stored = stored_record(book)
    stored["estimates"]["wetness"]["value"] = number  # Python's JSON lets NaN through
    write_notebook(book, [stored])
    with pytest.raises(ClaimsError, match="damaged"):
        scorecard.rows(book)


def test_unknown_chapter_and_foreign_claim(book):
    with pytest.raises(ClaimsError, match="Chapters with claims: water"):
        Ledger("sand", book / "claims.yml")
    with pytest.raises(ClaimsError, match="does not assign C02"):
        Ledger("water", book / "claims.yml").record("C02", {})
    write_notebook(book, [], name="sand")  # a page that decides nothing
    with pytest.raises(ClaimsError, match="does not assign C01.*which decides none"):
        Ledger("sand", book / "claims.yml").record("C01", WET)


def test_a_chapter_must_record_all_of_its_claims(book):
    ledger = Ledger("water", book / "claims.yml")
    with pytest.raises(ClaimsError, match="has not recorded C01"):
        ledger.verdict_lines()


def test_recording_again_replaces(book):
    ledger = Ledger("water", book / "claims.yml")
    ledger.record("C01", {**WET, "wetness": Estimate(0.0)})
    ledger.record("C01", WET)
    assert ledger.verdict_lines() == "C01 reproduced"


def test_record_shows_plain_text_outside_a_notebook(book, capsys):
    Ledger("water", book / "claims.yml").record("C01", WET)
    shown = capsys.readouterr().out
    assert shown.startswith("C01 reproduced: Water is wet & cold.")
    assert "2.00 ± 0.10" in shown
    assert "the caveat falls" in shown


def test_record_in_a_notebook_carries_anchor_text_and_data(book, monkeypatch):
    displayed = []
    monkeypatch.setattr("IPython.get_ipython", lambda: object())
    monkeypatch.setattr(
        "IPython.display.display", lambda *given, **how: displayed.append((given, how))
    )
    stored = stored_record(book)
    (((bundle,), how),) = displayed
    # A bundle of types is shown as such only if it is called raw.
    assert how == {"raw": True}
    assert bundle[MIME] == stored == json.loads(json.dumps(stored))
    assert 'id="claim-C01"' in bundle["text/html"]
    assert "Water is wet &amp; cold." in bundle["text/html"]
    assert "2.00 ± 0.10 (seeds)" in bundle["text/html"]


@pytest.fixture
def displayed(monkeypatch):
    """What a notebook would be given to show: pairs of a bundle and its metadata."""
    shown = []

    def display(bundle, *, raw, metadata):
        assert raw
        shown.append((bundle, metadata))

    monkeypatch.setattr("IPython.get_ipython", lambda: object())
    for module in ("IPython.display.display", "myst_nb.ext.glue.ipy_display"):
        monkeypatch.setattr(module, display)
    return shown


def test_what_is_glued_is_what_the_builder_expects(book, displayed):
    ledger = Ledger("water", book / "claims.yml")
    for text in ("2.00 ± 0.50", 'it\'s "wet"', "two\nlines", "long " * 60):
        ledger.put("depth", text)
        myst_nb.glue("water-depth", text, display=False)
        ours, theirs = displayed[-2:]
        assert ours == theirs


def test_gluing_outside_a_notebook_shows_nothing(book, capsys):
    Ledger("water", book / "claims.yml").put("depth", 2.0)
    assert capsys.readouterr().out == ""


def test_the_text_gets_its_numbers_under_the_chapters_name(book, displayed):
    ledger = Ledger("water", book / "claims.yml")
    ledger.put("depth", Estimate(2.0, 0.5))
    ledger.judge("rise", Estimate(1.0, 0.25), "up", "down", "level")
    ledger.judge("fall", Estimate(-1.0, 0.25), "up", "down", "level")
    ledger.judge("calm", Estimate(0.75, 0.25))  # three standard errors do not suffice
    glued = {
        metadata["scrapbook"]["name"]: ast.literal_eval(*bundle.values())
        for bundle, metadata in displayed
    }
    assert glued == {
        "water-depth": "2.00 ± 0.50",
        "water-rise": "1.00 ± 0.25",
        "water-rise-words": "up",
        "water-fall": "-1.00 ± 0.25",
        "water-fall-words": "down",
        "water-calm": "0.75 ± 0.25",
        "water-calm-words": "not told apart from zero by three standard errors",
    }


# --- the file ----------------------------------------------------------------------------------

CRITERION = ["criteria", 0]
EQUALS = {"name": "x", "rule": "equals", "bound": 1.0, "tolerance": 0.1, "why": "a test"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("C01", "expected key: value pairs"),
        (changed(TESTED, ["colour"], "blue"), r"unknown keys \['colour'\]"),
        (changed(TESTED, ["verdict"], "reproduced"), r"unknown keys \['verdict'\]"),
        (changed(TESTED, ["statement"], ...), r"missing keys \['statement'\]"),
        (changed(TESTED, ["statement"], "  "), "statement: expected some text"),
        (changed(TESTED, ["id"], "C1"), "like C07"),
        (changed(TESTED, ["id"], 7), "like C07"),
        (changed(TESTED, ["kind"], "obvious"), "kind: expected one of"),
        (changed(TESTED, ["source"], "somebody2020"), "source must be a non-empty list"),
        (changed(TESTED, ["source"], []), "source must be a non-empty list"),
        (changed(TESTED, ["source"], [None]), "source: expected some text"),
        (changed(TESTED, ["chapter"], "Deep Water"), "chapter: expected a page name"),
        (changed(TESTED, ["chapter"], None), "plan"),
        (changed(TESTED, ["plan"], "later"), "needs no plan"),
        (changed(PLANNED, ["plan"], ...), "plan"),
        (changed(PLANNED, ["criteria"], TESTED["criteria"]), "no chapter that could decide"),
        (changed(TESTED, ["criteria"], ...), "nothing could decide"),
        (changed(TESTED, ["criteria"], []), "nothing could decide"),
        (changed(TESTED, ["criteria"], {"name": "x"}), "expected a list"),
        (changed(TESTED, CRITERION, "wet"), "expected key: value pairs"),
        (changed(TESTED, [*CRITERION, "why"], ...), r"missing keys \['why'\]"),
        (changed(TESTED, [*CRITERION, "why"], ""), "why: expected some text"),
        (changed(TESTED, [*CRITERION, "rule"], "roughly"), "rule: expected one of"),
        (changed(TESTED, [*CRITERION, "rule"], ["at_most"]), "rule: expected one of"),
        (changed(TESTED, [*CRITERION, "rule"], ...), r"missing keys \['rule'\]"),
        (changed(TESTED, [*CRITERION, "bound"], "1e-8"), "write 1.0e-8"),
        (changed(TESTED, [*CRITERION, "bound"], True), "bound: expected a finite number"),
        (changed(TESTED, [*CRITERION, "bound"], float("nan")), "bound: expected a finite number"),
        (changed(TESTED, [*CRITERION, "z"], -1.0), "z: expected a finite number >= 0"),
        (changed(TESTED, [*CRITERION, "text"], "But."), r"unknown keys \['text'\]"),
        (changed(TESTED, [*CRITERION, "tolerance"], 0.1), r"unknown keys \['tolerance'\]"),
        (changed(TESTED, CRITERION, {**EQUALS, "z": "3"}), "z: expected a finite number"),
        (changed(TESTED, CRITERION, {**EQUALS, "rule": "at_most", "z": 3}), "unknown keys"),
        (changed(changed(TESTED, CRITERION, EQUALS), [*CRITERION, "tolerance"], ...), "tolerance"),
        (changed(TESTED, ["caveats", 0, "text"], ...), r"missing keys \['text'\]"),
        (changed(TESTED, ["caveats", 0, "name"], "wetness"), "occur more than once"),
        (changed(TESTED, ["published"], None), "published_note"),
        (changed(TESTED, ["published"], 4.2), "published: expected some text"),
    ],
)
def test_malformed_entries_are_refused(tmp_path, entry, message):
    with pytest.raises(ClaimsError, match=message) as caught:
        claims.load(write_claims(tmp_path, [entry]))
    assert str(caught.value).startswith("claims.yml, entry 1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- id: [C01", "not valid YAML"),
        ("- id: C01\n  id: C02\n", "key given twice: id"),
        ("claims: {}\n", "must be a list of claims"),
        ("", "must be a list of claims"),
        ("[]", "must be a list of claims"),
        ("!!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_malformed_files_are_refused(tmp_path, text, message):
    (tmp_path / "claims.yml").write_text(text, encoding="utf-8")
    with pytest.raises(ClaimsError, match=message):
        claims.load(tmp_path / "claims.yml")


def test_repeated_ids_and_missing_files_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ClaimsError, match="entry 2: the id C01 was used before"):
        claims.load(write_claims(tmp_path, [TESTED, TESTED]))
    with pytest.raises(ClaimsError, match="Cannot read the claims file"):
        claims.load(tmp_path / "nothing.yml")
    monkeypatch.chdir(tmp_path)
    assert claims.default_path() == tmp_path / "claims.yml"  # the one beside the notebook wins


def test_defaults_and_options_of_criteria(tmp_path):
    noisy = {**EQUALS, "z": 2, "max_error": 0.5}
    path = write_claims(tmp_path, [changed(TESTED, CRITERION, noisy)])
    (criterion,) = claims.load(path)["C01"].criteria
    assert (criterion.tolerance, criterion.z, criterion.max_error) == (0.1, 2.0, 0.5)
    assert criterion.requirement() == "within 0.1 (or 2 s.e.) of 1, with 2 s.e. at most 0.5"
    (caveat,) = claims.load(path)["C01"].caveats
    assert (caveat.z, caveat.max_error, caveat.text) == (3.0, None, "Not warm.")


def test_an_equality_has_no_tolerance_unless_one_is_given():
    bare = Criterion("x", "equals", 1.0, why="an identity")
    assert bare.holds(Estimate(1.0)) and not bare.holds(Estimate(1.0 + 1e-9))


def test_a_malformed_criterion_is_named_by_its_place_counted_from_one(tmp_path):
    entry = changed(TESTED, [*CRITERION, "rule"], "roughly")
    with pytest.raises(ClaimsError, match="criterion 1:"):
        claims.load(write_claims(tmp_path, [entry]))


# --- the scorecard -----------------------------------------------------------------------------


def test_collect_returns_what_the_chapter_recorded(book):
    write_notebook(book, [stored_record(book)])
    write_notebook(book, [], name="scorecard")
    records = {row.claim.id: row.record for row in scorecard.rows(book)}
    assert records["C01"].estimates == WET
    assert records["C01"].verdict == "reproduced"
    assert records["C02"] is None


def test_collect_of_unexecuted_chapters_is_empty(book):
    (row, _) = scorecard.rows(book)
    assert row.record is None
    assert (row.verdict, row.link) == ("not tested here yet", None)
    assert "water has not recorded it" in row.note


@pytest.mark.parametrize(
    ("path", "value", "changed_key"),
    [
        ([*CRITERION, "bound"], 1.5, "criteria"),
        ([*CRITERION, "z"], 2.0, "criteria"),
        ([*CRITERION, "why"], "another reason", "criteria"),
        ([*CRITERION, "name"], "moisture", "criteria"),
        (["caveats", 0, "text"], "Not hot.", "caveats"),
        (["caveats"], [], "caveats"),
        (["statement"], "Water is dry.", "statement"),
    ],
)
def test_collect_refuses_stale_records(book, path, value, changed_key):
    write_notebook(book, [stored_record(book)])
    write_claims(book, [changed(TESTED, path, value), PLANNED])
    with pytest.raises(ClaimsError, match=f"stale: claims.yml has since changed its {changed_key}"):
        scorecard.rows(book)


def test_collect_refuses_records_that_do_not_belong(book):
    stored = stored_record(book)
    write_notebook(book, [{**stored, "id": "C03"}])
    with pytest.raises(ClaimsError, match="C03, which claims.yml does not know"):
        scorecard.rows(book)
    write_notebook(book, [{**stored, "id": "C02"}])
    with pytest.raises(ClaimsError, match="C02, which claims.yml assigns to None"):
        scorecard.rows(book)
    write_notebook(book, [stored, stored])
    with pytest.raises(ClaimsError, match="two records of C01"):
        scorecard.rows(book)
    (book / "water.ipynb").rename(book / "sand.ipynb")
    write_notebook(book, [])
    with pytest.raises(ClaimsError, match="sand.ipynb records C01.*assigns to 'water'"):
        scorecard.rows(book)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["verdict"], "reproduced with qualification", "its own numbers say 'reproduced'"),
        (["estimates", "wetness", "value"], 0.0, "its own numbers say 'different'"),
        (["estimates", "wetness"], ..., "Missing"),
        (["estimates", "wetness", "value"], ..., "damaged"),
        (["estimates"], ..., "damaged"),
        (["estimates"], [], "damaged"),
        (["id"], ..., "damaged"),
    ],
)
def test_collect_refuses_records_edited_by_hand(book, path, value, message):
    write_notebook(book, [changed(stored_record(book), path, value)])
    with pytest.raises(ClaimsError, match=message):
        scorecard.rows(book)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"nbformat": 4}', "\udcff"])
def test_collect_refuses_unreadable_notebooks(book, text):
    (book / "water.ipynb").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ClaimsError, match="not a readable notebook"):
        scorecard.rows(book)


def test_scorecard_of_measured_and_planned_claims(book):
    write_notebook(book, [stored_record(book, {**WET, "heat": Estimate(1.0)})])
    rows = scorecard.rows(book)
    measured, planned = rows
    assert measured.link == "water.html#claim-C01"
    assert (measured.verdict, measured.note) == ("reproduced with qualification", "Not warm.")
    assert (planned.verdict, planned.note) == ("not tested here yet", "fire: touch it.")
    assert scorecard.verdict_totals(rows) == dict(zip(claims.VERDICTS, (0, 1, 0, 1), strict=True))
    assert scorecard.summary_line(rows) == (
        "1/2 claims reproduced (1 of them with qualification), 0 different, 1 not tested here yet"
    )


def test_scorecard_html_shows_measurement_reason_verdict_and_link(book):
    write_notebook(book, [stored_record(book)])
    rows = scorecard.rows(book)
    measured, planned = view.scorecard_html(rows), view.pending_html(rows)
    for expected in ("2.00 ± 0.10", "wet is wet", "✓ reproduced", "water.html#claim-C01"):
        assert expected in measured
    assert "wet is wet" not in view.scorecard_html(rows, reasons=False)
    assert "C02" not in measured
    assert "C01" not in planned
    assert "fire: touch it." in planned
    assert "not tested here yet" in view.totals_html(scorecard.verdict_totals(rows))


# --- the book's own file -----------------------------------------------------------------------


def test_the_books_ledger_holds_all_claims():
    entries = claims.load(BOOK / "claims.yml")
    assert list(entries) == [f"C{number:02d}" for number in range(1, 70)]
    own = {id_ for id_, claim in entries.items() if claim.source == OWN}
    assert own == {f"C{number}" for number in range(64, 70)}
    theirs = (claim.source for id_, claim in entries.items() if id_ not in own)
    assert {key for source in theirs for key in source} <= SOURCES


@pytest.mark.parametrize("claim", claims.load(BOOK / "claims.yml").values(), ids=lambda c: c.id)
def test_no_claim_of_the_book_is_beyond_failing(claim):
    """Some finite, exactly known numbers must make the verdict "different"."""
    if claim.chapter is None:
        assert claim.plan.split(":")[0] in {
            "amortisation", "approximation", "control", "literature", "traffic", "uav",
        }  # fmt: skip
        return
    for criterion in claim.criteria:
        wrong = {"at_least": -1e9, "at_most": 1e9, "at_most_se": 1e9, "equals": 1e9}
        estimates = {name: Estimate(0.0) for name in claim.names}
        estimates[criterion.name] = Estimate(wrong[criterion.rule])
        assert claims.Record(claim, estimates).verdict == "different"


def test_the_ledger_needs_no_tensorflow():
    code = "import sys, tfp_gaps.book.ledger.claims; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("value", "chosen"), [(0.31, "up"), (0.29, "level"), (-0.29, "level"), (-0.31, "down")]
)
def test_words_need_three_standard_errors(value, chosen):
    difference = Estimate(value, 0.1)
    words = {"above": "up", "below": "down", "undecided": "level"}
    assert claims.in_words(difference, **words) == chosen
