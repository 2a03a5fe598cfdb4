"""What the executed chapters decided: one row per claim of the book's ledger, and their totals.

A record in a notebook's output counts only if it answers what claims.yml asks today, and if its
verdict follows from its own numbers; everything else is refused.
"""

import collections
import dataclasses
import json
import pathlib
import typing

from tfp_gaps.book.ledger.claims import (
    DIFFERENT,
    MIME,
    NOT_TESTED,
    QUALIFIED,
    REPRODUCED,
    VERDICTS,
    Claim,
    ClaimsError,
    Record,
    default_path,
    load,
)
from tfp_gaps.estimate import Estimate


class Row(typing.NamedTuple):
    """One line of the scorecard; `record` and `link` are None for a claim nobody measured.

    `link` leads to the cell of the built page that measured the claim; `note` says what qualifies
    the verdict, or what is planned.
    """

    claim: Claim
    record: Record | None
    verdict: str
    link: str | None
    note: str


def rows(book_dir=None):
    """Read what the executed chapters recorded: one `Row` per claim, in the order of claims.yml.

    Args:
      book_dir: folder with claims.yml and the notebooks; by default the book's own.

    Raises:
      ClaimsError: if a record belongs to an unknown claim or to another chapter, occurs twice, was
        decided under criteria that claims.yml no longer holds, or states a verdict that its own
        numbers do not give; if claims.yml or a notebook cannot be read.
    """
    book_dir = default_path().parent if book_dir is None else pathlib.Path(book_dir)
    claims, found = load(book_dir / "claims.yml"), {}
    for notebook in sorted(book_dir.glob("*.ipynb")):
        for stored in _stored_records(notebook):
            record = _restore(stored, claims, notebook.stem)
            if record.claim.id in found:
                raise ClaimsError(f"{notebook.name} holds two records of {record.claim.id}.")
            found[record.claim.id] = record
    return [_row(claim, found.get(key)) for key, claim in claims.items()]


def _stored_records(notebook):
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise ClaimsError(f"{notebook} is not a readable notebook: {error!r}.") from error
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return [output["data"][MIME] for output in outputs if MIME in output.get("data", {})]


def _restore(stored, claims, chapter):
    """Return the `Record` behind stored JSON, refusing everything that is not today's ledger."""
    try:
        claim_id, verdict = stored["id"], stored["verdict"]
        estimates = {name: Estimate.from_dict(entry) for name, entry in stored["estimates"].items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ClaimsError(f"{chapter}.ipynb holds a damaged claim record: {error!r}.") from error
    where, rerun = f"{chapter}.ipynb records {claim_id}", f"Execute the chapter {chapter!r} again."
    claim = claims.get(claim_id)
    if claim is None:
        raise ClaimsError(f"{where}, which claims.yml does not know.")
    if claim.chapter != chapter:
        raise ClaimsError(f"{where}, which claims.yml assigns to {claim.chapter!r}.")
    changed = [key for key, now in claim.question().items() if stored.get(key) != now]
    if changed:
        raise ClaimsError(
            f"{where}, but stale: claims.yml has since changed its {', '.join(changed)}. {rerun}"
        )
    record = Record(claim, estimates)
    if verdict != record.verdict:
        raise ClaimsError(
            f"{where} as {verdict!r}, but its own numbers say {record.verdict!r}. {rerun}"
        )
    return record


def _row(claim, record):
    if record is not None:
        note = " ".join(caveat.text for caveat in record.standing_caveats)
        return Row(claim, record, record.verdict, f"{claim.chapter}.html#claim-{claim.id}", note)
    unrecorded = f"The chapter {claim.chapter} has not recorded it yet."
    return Row(claim, None, NOT_TESTED, None, claim.plan or unrecorded)


def verdict_totals(rows):
    """Return a dict from each of the four verdicts to how many rows have it."""
    counts = collections.Counter(row.verdict for row in rows)
    return {verdict: counts[verdict] for verdict in VERDICTS}


def summary_line(rows):
    """Return the totals as one stable line.

    >>> summary_line([])
    '0/0 claims reproduced (0 of them with qualification), 0 different, 0 not tested here yet'
    """
    totals = verdict_totals(rows)
    reproduced = totals[REPRODUCED] + totals[QUALIFIED]
    return (
        f"{reproduced}/{len(rows)} claims reproduced ({totals[QUALIFIED]} of them with "
        f"qualification), {totals[DIFFERENT]} different, {totals[NOT_TESTED]} not tested here yet"
    )


def verdict_at(record, standard_errors):
    """Return the verdict had every criterion and caveat asked for so many standard errors.

    >>> from tfp_gaps.book.ledger.claims import Criterion
    >>> gain = Criterion("gain", "at_least", 0.0, why="a sign")
    >>> claim = Claim("C99", "it helps", ("somebody",), "qualitative", "sums", (gain,))
    >>> record = Record(claim, {"gain": Estimate(4.0, 1.0)})
    >>> [verdict_at(record, number) for number in (3, 5)]
    ['reproduced', 'different']
    """

    def asking(criteria):
        return tuple(dataclasses.replace(each, z=float(standard_errors)) for each in criteria)

    claim = record.claim
    asked = dataclasses.replace(
        claim, criteria=asking(claim.criteria), caveats=asking(claim.caveats)
    )
    return dataclasses.replace(record, claim=asked).verdict
