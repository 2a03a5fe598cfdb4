"""The ledger: rules at their boundaries, the schema's errors, records in and out of notebooks."""

import ast
import copy
import json
import pathlib
import re
import subprocess
import sys

import myst_nb
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tfp_gaps.book.ledger import Ledger, board, claims, scorecard, view
from tfp_gaps.book.ledger.claims import MIME, ClaimsError, Criterion
from tfp_gaps.estimate import Estimate

BOOK = pathlib.Path(__file__).resolve().parent.parent.parent.parent / "book"
SOURCES = {
    "soelch2021tale",
    "bayer2021mind",
    "cremer2018inference",
    "kayalibay2021less",
    "becker2022uncertainty",
}
OWN = ("contributors2026tale",)
"""Source of the claims that this book adds."""

TESTED = {
    "id": "C01",
    "statement": "Water is wet & cold.",
    "source": ["somebody2020"],
    "kind": "quantitative",
    "chapter": "water",
    "criteria": [
        {
            "name": "wetness",
            "rule": "at_least",
            "bound": 1.0,
            "margin": 0.25,
            "why": "wet is wet",
            "set": "2026-01-01 01234567",
        }
    ],
    "caveats": [
        {
            "name": "heat",
            "rule": "at_least",
            "bound": 0.5,
            "why": "a limit",
            "set": "2026-01-02 01234567",
            "text": "Not warm.",
        }
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
EQUALS = {
    "name": "x",
    "rule": "equals",
    "bound": 1.0,
    "margin": 0.1,
    "why": "a test",
    "set": "2026-01-01 01234567",
}
FORMER = {
    "name": "wetness",
    "rule": "at_least",
    "bound": 2.0,
    "found": "0.1 ± 0.2",
    "outcome": "failed",
    "until": "2026-01-03",
    "why": "too strict",
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


REPRODUCED, DIFFERENT = "reproduced", "different"
SMALL, UNDECIDED = "reproduced, but smaller than matters", "undecided"
AT_LEAST = rule("at_least", 1.0, margin=0.5)
AT_MOST = rule("at_most", -1.0, margin=0.5)
EQUAL = rule("equals", 1.0, margin=0.5)
DIFFERS = rule("differs", 1.0, margin=0.5)


# The interval is value +- 9.925 standard errors: t at .995 with two degrees of freedom.
@pytest.mark.parametrize(
    ("criterion", "value", "error", "expected"),
    [
        (AT_LEAST, 2.0, 0.1, REPRODUCED),  # 1.01 to 2.99
        (AT_LEAST, 2.0, 0.102, UNDECIDED),  # 0.99 to 3.01
        (AT_LEAST, 1.25, 0.02, SMALL),  # 1.05 to 1.45
        (AT_LEAST, 1.3, 0.028, REPRODUCED),  # 1.02 to 1.58
        (AT_LEAST, 1.2, 0.03, DIFFERENT),  # 0.90 to 1.498
        (AT_LEAST, 1.2, 0.031, UNDECIDED),  # 0.89 to 1.51
        (AT_LEAST, 0.0, 0.01, DIFFERENT),
        (EQUAL, 1.2, 0.03, REPRODUCED),  # 0.90 to 1.498
        (EQUAL, 1.2, 0.031, UNDECIDED),
        (EQUAL, 0.8, 0.031, UNDECIDED),
        (EQUAL, 1.7, 0.02, DIFFERENT),  # 1.501 to 1.9
        (EQUAL, 0.3, 0.02, DIFFERENT),
        (EQUAL, 1.0, 50.0, UNDECIDED),
        (DIFFERS, 0.0, 0.1, REPRODUCED),  # -0.99 to 0.99
        (DIFFERS, 0.0, 0.102, UNDECIDED),
        (DIFFERS, 1.25, 0.02, SMALL),  # 1.05 to 1.45
        (DIFFERS, 0.8, 0.03, DIFFERENT),  # 0.502 to 1.098
        (DIFFERS, 0.8, 0.031, UNDECIDED),
    ],
)
def test_intervals_decide_at_their_boundaries(criterion, value, error, expected):
    estimate = Estimate(value, error, 3, "seeds")
    assert criterion.outcome(estimate) == expected
    if criterion is AT_LEAST:  # at_most is the mirror image
        assert AT_MOST.outcome(-estimate) == expected


@pytest.mark.parametrize(
    ("criterion", "value", "slack", "expected"),
    [
        (AT_LEAST, 2.0, (0.5, 9.0), REPRODUCED),  # 1.26 to 11.24
        (AT_LEAST, 2.0, (1.0, 0.0), UNDECIDED),  # 0.76 to 2.24
        (AT_LEAST, 0.5, (9.0, 0.5), DIFFERENT),  # -8.74 to 1.24
        (AT_LEAST, 0.5, (0.0, 1.0), UNDECIDED),  # 0.26 to 1.74
        (EQUAL, 1.0, (0.2, 0.2), REPRODUCED),  # 0.56 to 1.44
        (EQUAL, 1.0, (0.0, 0.4), UNDECIDED),  # 0.76 to 1.64
        (EQUAL, 2.0, (0.2, 9.0), DIFFERENT),  # 1.56 to 11.24
        (DIFFERS, 2.0, (0.7, 9.0), REPRODUCED),
        (DIFFERS, 2.0, (0.8, 0.0), UNDECIDED),  # 0.96 to 2.24
        (DIFFERS, 1.0, (0.2, 0.2), DIFFERENT),  # 0.56 to 1.44
    ],
)
def test_slack_counts_against_the_verdict_on_its_side(criterion, value, slack, expected):
    estimate = Estimate(value, 0.1, slack=slack)  # 99 %: value +- .258
    assert criterion.outcome(estimate) == expected
    holds, differs = criterion.p_values(estimate)
    assert (holds < 0.005) == (expected == REPRODUCED)
    assert (differs < 0.005) == (expected == DIFFERENT)
    if criterion is AT_LEAST:  # at_most is the mirror image
        assert AT_MOST.outcome(-estimate) == expected


@pytest.mark.parametrize(
    ("criterion", "value", "expected"),
    [
        (rule("at_least", 1.0), 1.0, REPRODUCED),
        (rule("at_least", 1.0), 0.9990234375, DIFFERENT),
        (rule("at_most", 0.0), 0.0, REPRODUCED),
        (rule("at_most", 0.0), 1e-9, DIFFERENT),
        (rule("equals", 2.0), 2.0, REPRODUCED),
        (rule("equals", 2.0), 2.0009765625, DIFFERENT),
        (rule("differs", 2.0), 2.0, DIFFERENT),
        (rule("differs", 2.0), 2.0009765625, REPRODUCED),
        (AT_LEAST, 1.25, SMALL),
        (AT_LEAST, 1.5, REPRODUCED),
        (EQUAL, 1.5, REPRODUCED),
    ],
)
def test_exact_numbers_leave_nothing_undecided(criterion, value, expected):
    assert criterion.outcome(Estimate(value)) == expected


@pytest.mark.parametrize("criterion", [AT_LEAST, AT_MOST, EQUAL, DIFFERS])
@given(value=st.floats(-5, 5), error=st.floats(1e-3, 5), count=st.integers(2, 50))
def test_more_noise_never_decides_what_less_noise_did_not(criterion, value, error, count):
    clear, noisy = (criterion.outcome(Estimate(value, e, count)) for e in (error, 2 * error))
    # A small effect may become one that could be large, or one that could be none.
    assert noisy in {clear, UNDECIDED} | ({REPRODUCED, DIFFERENT} if clear == SMALL else set())


@pytest.mark.parametrize("criterion", [AT_LEAST, AT_MOST])
@given(value=st.floats(-5, 5), error=st.floats(1e-2, 5), count=st.integers(2, 50))
def test_p_values_are_those_of_the_rule(criterion, value, error, count):
    estimate = Estimate(value, error, count)
    holds, differs = criterion.p_values(estimate)
    outcome = criterion.outcome(estimate)
    assert (holds < 0.005) == (outcome in (REPRODUCED, SMALL))
    assert (differs < 0.005) == (outcome in (DIFFERENT, SMALL))


@pytest.mark.parametrize(("criterion", "side"), [(EQUAL, 1), (DIFFERS, 0)])
def test_what_may_lie_on_either_side_has_a_two_sided_p(criterion, side):
    """The null at its edge: draws reach p as often as p says, for "different" and "differs"."""
    edge = 1.5 if criterion is EQUAL else 1.0
    draws = np.random.default_rng(0).normal(edge, 0.4, size=4000)
    found = [criterion.p_values(Estimate(value, 0.4))[side] for value in draws]
    # A share of 4000 near .2 is known to .006; one tail alone would reach .2 in .2 + .002 (equals,
    # whose other edge is 2.5 errors away) or in .4 (differs) of the draws.
    assert np.mean(np.array(found) < 0.2) == pytest.approx(0.2, abs=0.02)
    # Two normal tails by hand, at one and a half errors from the bound.
    expected = {1: 0.4013 + 0.0030, 0: 2 * 0.0668}[side]
    assert criterion.p_values(Estimate(1.6, 0.4))[side] == pytest.approx(expected, abs=1e-4)


def test_an_undecided_criterion_says_what_would_decide_it():
    """The shortfall's two numbers against draws of the design that it speaks of."""
    words = AT_LEAST.shortfall(Estimate(1.3, 0.3, 5, "seeds"))
    detects, seeds = (float(re.search(p, words)[1]) for p in (r"of ([\d.]+) with", r"(\d+) seeds"))
    rng = np.random.default_rng(0)
    for effect, count in ((detects, 5), (0.5, int(seeds))):
        draws = rng.normal(1.0 + effect, 0.3 * 5**0.5, size=[4000, count])
        found = [AT_LEAST.outcome(Estimate.from_samples(row)) for row in draws]
        share = np.mean([each in (REPRODUCED, SMALL) for each in found])
        # A share of 4000 is known to .005; two digits of the effect, and whole seeds, leave less
        # than two hundredths.
        assert share == pytest.approx(0.9, abs=0.02)


def test_slack_adds_to_what_can_be_detected_and_may_leave_it_open():
    tight, loose = Estimate(1.3, 0.3, 5, "seeds"), Estimate(1.3, 0.3, 5, "seeds", slack=(0.25, 0.0))
    detects = [
        float(re.search(r"of ([\d.]+) with", AT_LEAST.shortfall(each))[1])
        for each in (tight, loose)
    ]
    assert detects[1] - detects[0] == pytest.approx(0.25, abs=0.1)  # both have two digits
    # Half the margin is left: the seeds that a margin of half the size would take.
    half = rule("at_least", 1.0, margin=0.25)
    assert AT_LEAST.shortfall(loose).split("; ")[1] == half.shortfall(tight).split("; ")[1]
    hopeless = AT_LEAST.shortfall(Estimate(1.3, 0.3, 5, "seeds", slack=(0.5, 0.0)))
    assert hopeless.endswith(
        "; the bounds may be 0.5 too low, which no number of units mends, only a closer look at "
        "their slack"
    )


def test_a_design_with_power_enough_that_is_undecided_needs_a_replication():
    words = AT_LEAST.shortfall(Estimate(1.1, 0.1, 50, "seeds"))
    assert words.endswith("too near the bound, a replication on new seeds would decide")


@pytest.mark.parametrize(
    ("wetness", "heat", "verdict"),
    [
        (2.0, 0.0, "reproduced"),
        (1.125, 0.0, "reproduced with qualification"),  # smaller than the margin
        (2.0, 0.5, "reproduced with qualification"),
        (0.5, 0.0, "different"),
        (0.5, 0.5, "different"),  # a caveat cannot rescue a failed criterion
    ],
)
def test_verdict_follows_from_criteria_and_caveats(book, wetness, heat, verdict):
    ledger = Ledger("water", book / "claims.yml")
    ledger.record("C01", {"wetness": Estimate(wetness), "heat": Estimate(heat)})
    assert ledger.verdict_lines() == f"C01 {verdict}"


def verdict_of(folder, entry, measured):
    ledger = Ledger("water", write_claims(folder, [entry]))
    ledger.record("C01", measured)
    return ledger.verdict_lines().removeprefix("C01 ")


def test_every_criterion_must_hold(tmp_path):
    second = {**EQUALS, "name": "depth", "bound": 0.0}
    entry = changed(TESTED, ["criteria"], [*TESTED["criteria"], second])
    noisy, off = Estimate(0.0, 1.0), Estimate(1.0, 0.01)
    assert verdict_of(tmp_path, entry, {**WET, "depth": Estimate(0.0)}) == "reproduced"
    assert verdict_of(tmp_path, entry, {**WET, "depth": noisy}) == "undecided"
    assert verdict_of(tmp_path, entry, {**WET, "depth": off}) == "different"
    dry = {**WET, "wetness": Estimate(0.5, 0.01), "depth": noisy}
    assert verdict_of(tmp_path, entry, dry) == "different"  # one that differs suffices


def test_an_undecided_caveat_is_open_and_changes_nothing(tmp_path):
    entry = changed(TESTED, ["caveats", 0, "margin"], 0.1)
    measured = {**WET, "heat": Estimate(0.6, 0.1)}
    assert verdict_of(tmp_path, entry, measured) == "reproduced"
    record = claims.Record(claims.load(tmp_path / "claims.yml")["C01"], measured)
    assert "0.60 ± 0.10 [at least 0.5, margin 0.1: open]" in view.record_text(record)


def test_limits_qualify_and_identities_are_no_evidence(tmp_path):
    limited = {**TESTED, "limits": ["Salt water was not tried."]}
    assert verdict_of(tmp_path, limited, WET) == "reproduced with qualification"
    assert verdict_of(tmp_path, {**TESTED, "kind": "identity"}, WET) == "identity"
    dry = {**WET, "wetness": Estimate(0.5)}
    assert verdict_of(tmp_path, {**TESTED, "kind": "identity"}, dry) == "different"
    warm = {**WET, "heat": Estimate(1.0)}  # a caveat that stands is none of algebra
    qualified = verdict_of(tmp_path, {**TESTED, "kind": "identity"}, warm)
    assert qualified == "reproduced with qualification"


def test_an_error_needs_a_margin(tmp_path):
    with pytest.raises(ClaimsError, match="wetness.*no margin"):
        verdict_of(tmp_path, changed(TESTED, ["criteria", 0, "margin"], ...), WET)


def test_samples_without_spread_are_not_exact(tmp_path):
    same = Estimate.from_samples([2.0, 2.0, 2.0], kind="seeds")
    with pytest.raises(ClaimsError, match="wetness.*seeds without any spread"):
        verdict_of(tmp_path, TESTED, {**WET, "wetness": same})


def test_a_claim_that_failed_a_former_criterion_is_marked(tmp_path):
    entry = {**TESTED, "was": [FORMER]}
    record = claims.Record(claims.load(write_claims(tmp_path, [entry]))["C01"], WET)
    assert record.fails_former
    row = scorecard.Row(record.claim, record, record.verdict, "water.html", "", survives=False)
    assert "Would fail under a criterion" in board.table([row])
    held = changed(entry, ["was", 0, "outcome"], "held")
    record = claims.Record(claims.load(write_claims(tmp_path, [held]))["C01"], WET)
    assert not record.fails_former


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


def test_limits_stand_in_the_table_and_a_fallen_caveat_is_struck_out(tmp_path):
    limited = {**TESTED, "limits": ["Salt & ice were not tried."]}
    claim = claims.load(write_claims(tmp_path, [limited]))["C01"]
    fallen = view.record_html(claims.Record(claim, WET))
    assert "Limit: Salt &amp; ice were not tried." in fallen
    assert "<s>Not warm.</s>" in fallen
    standing = view.record_html(claims.Record(claim, {**WET, "heat": Estimate(1.0)}))
    assert "<p>Not warm.</p>" in standing and "<s>" not in standing


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
    assert 'href="scorecard.html#C01"' in bundle["text/html"]
    assert "Water is wet &amp; cold." in bundle["text/html"]
    assert "2.00 ± 0.10 (seeds; 99 %: 1.74 to 2.26)" in bundle["text/html"]


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
    glued = {
        metadata["scrapbook"]["name"]: ast.literal_eval(*bundle.values())
        for bundle, metadata in displayed
    }
    assert glued == {"water-depth": "2.00 ± 0.50"}


def test_a_number_is_glued_with_a_true_minus_and_a_word_with_its_hyphen(book, displayed):
    Ledger("water", book / "claims.yml").put("depth", "-2.0 ± 0.5 in a deep-sea 200-200")
    assert ast.literal_eval(*displayed[-1][0].values()) == "−2.0 ± 0.5 in a deep-sea 200-200"


@pytest.mark.parametrize(
    ("printed", "glued"),
    [("3e-10", "3 × 10⁻¹⁰"), ("less than -1.5e+06", "less than −1.5 × 10⁶"), ("size-2e-mail",) * 2],
)
def test_a_power_of_ten_is_glued_as_prose_writes_it(book, displayed, printed, glued):
    Ledger("water", book / "claims.yml").put("depth", printed)
    assert ast.literal_eval(*displayed[-1][0].values()) == glued


# --- the file ----------------------------------------------------------------------------------

CRITERION = ["criteria", 0]


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
        (changed(TESTED, [*CRITERION, "margin"], -1.0), "margin: expected a finite number >= 0"),
        (changed(TESTED, [*CRITERION, "margin"], "1"), "margin: expected a finite number"),
        (changed(TESTED, [*CRITERION, "text"], "But."), r"unknown keys \['text'\]"),
        (changed(TESTED, [*CRITERION, "tolerance"], 0.1), r"unknown keys \['tolerance'\]"),
        (changed(TESTED, [*CRITERION, "rule"], "at_most_se"), "rule: expected one of"),
        (changed(TESTED, [*CRITERION, "set"], ...), r"missing keys \['set'\]"),
        (changed(TESTED, [*CRITERION, "set"], "2026-01-01"), "set: expected a date and a digest"),
        ({**TESTED, "limits": [7]}, "limits: expected some text"),
        ({**TESTED, "was": [{**FORMER, "outcome": "so so"}]}, "outcome: expected one of"),
        ({**TESTED, "was": [changed(FORMER, ["why"], ...)]}, r"was 1: missing keys \['why'\]"),
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
    assert (row.verdict, row.link) == ("not tested", None)
    assert "water has not recorded it" in row.note


@pytest.mark.parametrize(
    ("path", "value", "changed_key"),
    [
        ([*CRITERION, "bound"], 1.5, "criteria"),
        ([*CRITERION, "margin"], 0.5, "criteria"),
        (["limits"], ["Salt water was not tried."], "limits"),
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
    assert (planned.verdict, planned.note) == ("not tested", "fire: touch it.")
    assert scorecard.verdict_totals(rows) == dict(
        zip(claims.VERDICTS, (0, 1, 0, 0, 1, 0), strict=True)
    )
    assert scorecard.summary_line(rows) == (
        "1 of 2 claims reproduced (1 of them with qualification), 0 different, 0 undecided, "
        "1 not tested; and 0 identities"
    )


# --- the book's own file -----------------------------------------------------------------------


def test_the_books_ledger_holds_all_claims():
    entries = claims.load(BOOK / "claims.yml")
    assert list(entries) == [f"C{number:02d}" for number in range(1, 91)]
    own = {id_ for id_, claim in entries.items() if claim.source == OWN}
    numbers = (*range(64, 70), *range(71, 76), *range(77, 81), *range(84, 91))
    assert own == {f"C{number}" for number in numbers}
    theirs = (claim.source for id_, claim in entries.items() if id_ not in own)
    assert {key for source in theirs for key in source} <= SOURCES


@pytest.mark.parametrize("claim", claims.load(BOOK / "claims.yml").values(), ids=lambda c: c.id)
def test_no_claim_of_the_book_is_beyond_failing(claim):
    """Some finite, exactly known numbers must make the verdict "different"."""
    if claim.chapter is None:
        assert claim.plan.split(":")[0] in {
            "amortisation", "approximation", "control", "literature", "real-data",
        }  # fmt: skip
        return
    for criterion in claim.criteria:
        wrong = {"at_least": -1e9, "at_most": 1e9, "equals": 1e9, "differs": criterion.bound}
        estimates = {name: Estimate(0.0) for name in claim.names}
        estimates[criterion.name] = Estimate(wrong[criterion.rule])
        assert claims.Record(claim, estimates).verdict == "different"


def test_every_criterion_of_the_book_carries_the_digest_of_its_text():
    """Who changes a criterion must set a new date, and if there was a result, keep the old one."""
    stale = {
        f"{claim.id}, {each.name}: {each.digest()}"
        for claim in claims.load(BOOK / "claims.yml").values()
        for each in (*claim.criteria, *claim.caveats, *claim.planned)
        if each.set.split()[1] != each.digest()
    }
    assert not stale


def test_p_values_of_a_claim_ask_for_all_or_for_any_of_its_criteria():
    other = Criterion("y", "at_least", 1.0, why="a test", margin=0.5)
    claim = claims.Claim("C01", "x", ("a",), "qualitative", "water", (AT_LEAST, other))
    record = claims.Record(claim, {"x": Estimate(2.0, 1.0), "y": Estimate(0.0, 1.0)})
    holds, differs = record.p_values()
    # Normal tails: of -1 for what holds least; of 1.5, twice, for what differs most.
    assert holds == pytest.approx(0.8413, abs=1e-4)
    assert differs == pytest.approx(2 * 0.0668, abs=1e-4)


def test_a_small_effect_in_the_claims_direction_is_no_evidence_against_it():
    other = Criterion("y", "at_least", 1.0, why="a test", margin=0.5)
    claim = claims.Claim("C01", "x", ("a",), "qualitative", "water", (AT_LEAST, other))
    # x is certain to be above its bound and below what matters; y is the only failure.
    record = claims.Record(claim, {"x": Estimate(1.25, 0.01), "y": Estimate(0.6, 0.3)})
    assert record.verdict == "different"
    # Three errors below what matters: a normal tail of .00135, twice.
    assert record.p_values()[1] == pytest.approx(2 * 0.00135, abs=1e-5)
    record = claims.Record(claim, {"x": Estimate(1.25, 0.01), "y": Estimate(3.0, 0.1)})
    assert record.p_values()[1] == 1.0


def test_a_difference_in_the_other_direction_is_said_to_be_one():
    for bound, value, words in (
        (0.0, -0.5, "different, in the other direction"),
        (1.0, 0.5, "different"),  # in the right direction, and too small
        (0.0, 0.125, "reproduced, but smaller than matters"),
    ):
        each = Criterion("gain", "at_least", bound, why="a size", margin=0.5)
        claim = claims.Claim("C01", "x", ("a",), "qualitative", "water", (each,))
        record = claims.Record(claim, {"gain": Estimate(value, 0.01)})
        assert view.outcome(record, each, is_caveat=False) == words


def test_holm_counts_both_directions_of_every_claim_that_has_an_error():
    def record(value, error=1.0):
        claim = claims.Claim("C01", "x", ("a",), "qualitative", "water", (AT_LEAST,))
        return claims.Record(claim, {"x": Estimate(value, error)})

    # With one claim the rule is the pointwise one: 2.576 errors beyond the bound.
    assert scorecard.surviving({"a": record(3.59)}) == {"a": True}
    assert scorecard.surviving({"a": record(3.57)}) == {}  # undecided
    # With ten, the least certain of all needs .01 / 11 once nine others are rejected: 3.12 errors;
    # the most certain .01 / 20. Exact numbers take no part.
    many = {f"b{number}": record(9.0) for number in range(9)} | {"c": record(2.0, 0.0)}
    assert scorecard.surviving(many | {"a": record(4.13)})["a"]
    assert not scorecard.surviving(many | {"a": record(4.10)})["a"]
    assert "c" not in scorecard.surviving(many)


def test_the_ledger_needs_no_tensorflow():
    code = "import sys, tfp_gaps.book.ledger.claims; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("value", "chosen"), [(0.26, "up"), (0.25, "level"), (-0.25, "level"), (-0.26, "down")]
)
def test_words_need_an_interval_without_zero(value, chosen):
    # 99 % of a normal distribution lie within 2.576 standard errors.
    words = {"above": "up", "below": "down", "undecided": "level"}
    assert claims.in_words(Estimate(value, 0.1), **words) == chosen
