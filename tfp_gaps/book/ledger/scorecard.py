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
    IDENTITY,
    LEVEL,
    MIME,
    NOT_TESTED,
    QUALIFIED,
    REPRODUCED,
    UNDECIDED,
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
    the verdict, or what is planned; `survives` whether the verdict holds for all claims at once
    (`surviving`), None where it rests on exact numbers alone or decides nothing.
    """

    claim: Claim
    record: Record | None
    verdict: str
    link: str | None
    note: str
    survives: bool | None = None


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
    survivors = surviving(found)
    return [
        _row(claim, found.get(key))._replace(survives=survivors.get(key))
        for key, claim in claims.items()
    ]


def surviving(records):
    """Say which verdicts hold together at the level that each has by itself (Holm 1979).

    The family holds two hypotheses for each claim whose criteria met an error: that it
    is reproduced, and that it is different. Of one claim with one criterion on one side
    of its bound, this is the pointwise rule.

    Args:
      records: dict from id to `Record`.

    Returns:
      survives: dict from the id of each such claim, unless undecided, to whether its verdict does.

    >>> from tfp_gaps.book.ledger.claims import Criterion
    >>> gain = Criterion("gain", "at_least", 0.0, why="a sign", margin=1.0)
    >>> claim = Claim("C99", "it helps", ("somebody",), "qualitative", "sums", (gain,))
    >>> surviving({"C99": Record(claim, {"gain": Estimate(4.0, 1.0)})})
    {'C99': True}
    """
    family = {
        (key, verdict): p
        for key, record in records.items()
        if any(record.estimates[each.name].standard_error for each in record.claim.criteria)
        for verdict, p in zip((REPRODUCED, DIFFERENT), record.p_values(), strict=True)
    }
    rejected = set()
    for rank, hypothesis in enumerate(sorted(family, key=family.get)):
        if family[hypothesis] > (1 - LEVEL) / (len(family) - rank):
            break
        rejected.add(hypothesis)
    words = {key: record.verdict for key, record in records.items() if (key, DIFFERENT) in family}
    return {
        key: (key, DIFFERENT if word == DIFFERENT else REPRODUCED) in rejected
        for key, word in words.items()
        if word != UNDECIDED
    }


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
        note = " ".join([*claim.limits, *(caveat.text for caveat in record.standing_caveats)])
        return Row(claim, record, record.verdict, f"{claim.chapter}.html#claim-{claim.id}", note)
    unrecorded = f"The chapter {claim.chapter} has not recorded it yet."
    return Row(claim, None, NOT_TESTED, None, claim.plan or unrecorded)


def verdict_totals(rows):
    """Return a dict from each of the verdicts to how many rows have it."""
    counts = collections.Counter(row.verdict for row in rows)
    return {verdict: counts[verdict] for verdict in VERDICTS}


def summary_line(rows):
    """Return the totals as one stable line.

    >>> print(summary_line([]).split("; ")[1])
    and 0 identities
    """
    totals = verdict_totals(rows)
    reproduced = totals[REPRODUCED] + totals[QUALIFIED]
    return (
        f"{reproduced} of {len(rows) - totals[IDENTITY]} claims reproduced ({totals[QUALIFIED]} of "
        f"them with qualification), {totals[DIFFERENT]} different, {totals[UNDECIDED]} undecided, "
        f"{totals[NOT_TESTED]} not tested; and {totals[IDENTITY]} identities"
    )


def verdict_at(record, level):
    """Return the verdict had every criterion and caveat been decided at another level.

    >>> from tfp_gaps.book.ledger.claims import Criterion
    >>> gain = Criterion("gain", "at_least", 0.0, why="a sign", margin=1.0)
    >>> claim = Claim("C99", "it helps", ("somebody",), "qualitative", "sums", (gain,))
    >>> record = Record(claim, {"gain": Estimate(3.0, 1.0)})
    >>> [verdict_at(record, level) for level in (0.99, 0.999)]
    ['reproduced', 'undecided']
    """
    return dataclasses.replace(record, level=level).verdict
