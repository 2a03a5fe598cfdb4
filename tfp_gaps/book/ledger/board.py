"""The scorecard as a page: one row per claim, what came out different first, its criteria folded.

Without JavaScript it is a plain table with links. `book/_static/scorecard.js` reads the attributes
of the rows (verdict, chapter, source, place) and adds search, filters and sorting; the controls are
in the page, hidden until it runs. A row has the claim's own id: `scorecard.html#C20` leads to it.
"""

import re
from html import escape

from tfp_gaps.book.ledger import claims, view

WORST_FIRST = (
    claims.DIFFERENT,
    claims.UNDECIDED,
    claims.NOT_TESTED,
    claims.QUALIFIED,
    claims.REPRODUCED,
    claims.IDENTITY,
)
"""The verdicts in the order in which a doubting reader wants them."""

SOURCE_NAMES = {
    "soelch2021tale": "Soelch 2021",
    "bayer2021mind": "Bayer et al. 2021",
    "cremer2018inference": "Cremer et al. 2018",
    "kayalibay2021less": "Kayalibay et al. 2021",
    "becker2022uncertainty": "Becker and Neumann 2022",
    "contributors2026tale": "this book",
}


def table(rows):
    """Return all claims as an HTML table with its controls.

    Args:
      rows: `scorecard.Row` list, in the order of claims.yml.
    """
    ordered = sorted(rows, key=lambda row: WORST_FIRST.index(row.verdict))
    body = "".join(_row(row, place) for place, row in enumerate(ordered))
    head = '<th scope="col">Claim, and what was measured</th><th scope="col">Verdict</th>'
    return view.block(
        f"{_controls(rows)}<table class='scorecard-table'>"
        f"<caption>All claims; those that came out different come first</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def totals(found):
    """Return how many claims have each verdict, as an HTML list whose entries filter the table.

    Args:
      found: dict from verdict to number, as of `scorecard.verdict_totals`.
    """
    items = "".join(
        f'<li data-verdict="{verdict}">{view.badge(verdict)} {found[verdict]}</li>'
        for verdict in WORST_FIRST
    )
    return view.block(f'<ul class="scorecard-totals">{items}</ul>')


def sentences(rows, verdicts):
    """Return the claims with one of the verdicts as HTML, a list of sentences under each verdict.

    The number of each leads to its row of the scorecard; a verdict without a claim is left out.
    """
    found = {verdict: [row for row in rows if row.verdict == verdict] for verdict in verdicts}
    lists = ""
    for verdict, these in found.items():
        items = "".join(
            f'<li><a href="scorecard.html#{row.claim.id}">{row.claim.id}</a> '
            f"{escape(row.claim.statement)}</li>"
            for row in these
        )
        if items:
            lists += f'<p>{view.badge(verdict)}</p><ul class="claim-sentences">{items}</ul>'
    return view.block(lists)


# --- one row -------------------------------------------------------------------------------------


def _row(row, place):
    claim = row.claim
    chapter = claim.chapter or "none"
    sources = ", ".join(SOURCE_NAMES.get(key, key) for key in claim.source)
    where = f'<a href="{escape(row.link)}">{chapter}</a>' if row.link else "no chapter"
    claimed = (
        f'<p><a class="claim-number" href="#{claim.id}">{claim.id}</a> {escape(claim.statement)}'
        f' <span class="small">({escape(sources)}; {where})</span></p>{_folded(row)}'
    )
    keys = f'data-verdict="{row.verdict}" data-chapter="{chapter}" data-place="{place}"'
    keys += f' data-source="{" ".join(claim.source)}"'
    return (
        f'<tr id="{claim.id}" {keys}><td data-label="Claim">{claimed}</td>'
        f'<td data-label="Verdict">{view.badge(row.verdict)}</td></tr>'
    )


def _folded(row):
    if row.record is None:
        return f"<details><summary>What it would take</summary><p>{escape(row.note)}</p></details>"
    parts = [_condition(row.record, *each) for each in view.conditions(row.claim)]
    parts += [f'<p class="small">{view.words(words)}</p>' for words in _remarks(row)]
    parts += _within("Set, not measured yet", [_planned(each) for each in row.claim.planned])
    parts += _within("History of the criteria", [_former(each) for each in row.claim.was])
    summary = _headline(row)
    return f"<details><summary>{summary}</summary>{''.join(parts)}</details>"


def _within(title, parts):
    """Paragraphs under a fold of their own; nothing if there are none."""
    if not parts:
        return []
    return [f"<details><summary>{title}</summary>{''.join(parts)}</details>"]


def _headline(row):
    """The criterion that decided: the first that came out as the claim did, or the first of all.

    Of several criteria it says how many came out alike.
    """
    criteria = row.claim.criteria
    outcomes = [row.record.outcome(each) for each in criteria]
    place = outcomes.index(row.verdict) if row.verdict in outcomes else 0
    chosen, alike = criteria[place], outcomes.count(outcomes[place])
    among = f" <span>({alike} of {len(criteria)} criteria: {outcomes[place]})</span>"
    shown = f"{_short(row.record.estimates[chosen.name])}: {view.words(chosen.name)}"
    return f"{shown}{among if len(criteria) > 1 else ''}"


def _short(estimate):
    """A value as a text writes it: a power of ten in place of `4.125e-06`."""
    return re.sub(
        r"(\d\.\d+)e([+-])0*(\d+)",
        lambda m: f"{float(m[1]):.1f} × 10<sup>{'−' if m[2] == '-' else ''}{m[3]}</sup>",
        view.value(estimate),
    )


def _condition(record, criterion, is_caveat):
    estimate = record.estimates[criterion.name]
    text = f" {view.caveat_text(record, criterion)}" if is_caveat else ""
    return (
        f"<p>{'Caveat: ' if is_caveat else ''}{view.words(criterion.name)}: "
        f"{view.value(estimate)}{view.kind_of_error(estimate, criterion)}. "
        f"Asked: {view.words(criterion.requirement())}. "
        f"{view.decided(record, criterion, is_caveat)}{text}<br>"
        f'<span class="small">{view.words(criterion.why)} Set: {criterion.set[:10]}.</span></p>'
    )


def _remarks(row):
    yield f"Kind of claim: {row.claim.kind}."
    if row.claim.published or row.claim.published_note:
        yield f"Published value: {row.claim.published or f'empty ({row.claim.published_note})'}"
    if row.note:
        yield row.note
    if row.survives is not None:
        yield f"{'Survives' if row.survives else 'Does not survive'} Holm over all claims."
    if row.record.fails_former:
        yield "Would fail under a criterion that it had before."


def _planned(criterion):
    """A criterion that was set before its runs, which are not stored yet: it decides nothing."""
    return (
        f'<p class="small">Set on {criterion.set[:10]}, not measured yet: '
        f"{view.words(criterion.name)} [{view.words(criterion.requirement())}].</p>"
    )


def _former(former):
    """A criterion of before: what it asked, what it found and why it went."""
    asked = f"{former.rule.removesuffix('_se').replace('_', ' ')} {former.bound:g}"
    return (
        f'<p class="small">Until {former.until}{", a caveat" if former.text else ""}: '
        f"{view.words(former.name)}: {former.found} [{asked}: {former.outcome}]. "
        f"{view.words(former.why)}</p>"
    )


# --- the controls --------------------------------------------------------------------------------


def _controls(rows):
    chapters = sorted({row.claim.chapter for row in rows if row.claim.chapter})
    sources = sorted({key for row in rows for key in row.claim.source})
    return (
        '<form class="scorecard-controls" hidden><label>Search '
        '<input type="search" name="words"></label>'
        + _choice("verdict", "Verdict", {"": "all", **{name: name for name in WORST_FIRST}})
        + _choice("chapter", "Chapter", {"": "all", **{name: name for name in chapters}})
        + _choice(
            "source", "Source", {"": "all", **{key: SOURCE_NAMES.get(key, key) for key in sources}}
        )
        + _choice("sort", "Sort by", {"place": "verdict", "id": "number", "chapter": "chapter"})
        + '<button type="reset">Show all</button><p role="status" class="small"></p></form>'
    )


def _choice(name, label, options):
    inside = "".join(
        f'<option value="{escape(value)}">{escape(words)}</option>'
        for value, words in options.items()
    )
    return f'<label>{label} <select name="{name}">{inside}</select></label>'
