"""How the ledger looks: one record under its cell, and the scorecard, as HTML and plain text.

Verdicts are words first; colour only repeats them. On narrow screens tables turn into stacked
blocks (each cell then carries its column's name), so a phone needs no sideways scrolling. The
styles use the page's own text colour and work on light and dark pages.
"""

from html import escape

SOURCE_NAMES = {
    "soelch2021tale": "Post (Soelch 2021)",
    "bayer2021mind": "Bayer et al. 2021",
    "cremer2018inference": "Cremer et al. 2018",
    "kayalibay2021less": "Kayalibay et al. 2021",
}
_SYMBOLS = {
    "reproduced": "\N{CHECK MARK}",
    "reproduced with qualification": "\N{CHECK MARK}*",
    "different": "\N{MULTIPLICATION SIGN}",
    "undecided": "?",
    "not tested": "\N{HORIZONTAL ELLIPSIS}",
    "identity": "=",
}
_COLOURS = {
    "reproduced": "#1b7f5c",
    "reproduced with qualification": "#b06a00",
    "different": "#c0392b",
    "undecided": "#777777",
    "not tested": "#777777",
    "identity": "#1f5fa8",
}
_STYLE = """<style>
.tfp-ledger { text-align: left; font-size: 0.9rem; line-height: 1.4; overflow-wrap: anywhere;
  scroll-margin-top: 5rem; }
.tfp-ledger table { width: 100%; border-collapse: collapse; table-layout: fixed; margin: 0.3rem 0;
  font-size: inherit; display: table; }
.tfp-ledger caption { caption-side: top; text-align: left; color: inherit; }
.tfp-ledger th, .tfp-ledger td { text-align: left; vertical-align: top; white-space: normal;
  padding: 0.3rem 0.5rem; border-top: 1px solid rgba(128, 128, 128, 0.4); background: none; }
.tfp-ledger td p, .tfp-ledger p { margin: 0 0 0.25rem 0; }
.tfp-ledger .small { font-size: 0.85em; opacity: 0.85; }
.tfp-ledger .verdict { border-left: 0.3rem solid; padding-left: 0.4rem; font-weight: 600;
  display: inline-block; }
.tfp-ledger ul { list-style: none; padding-left: 0; }
@media (max-width: 640px) {
  .tfp-ledger thead { position: absolute; left: -9999px; }
  .tfp-ledger table, .tfp-ledger tbody, .tfp-ledger tr, .tfp-ledger td, .tfp-ledger caption
    { display: block; width: 100%; box-sizing: border-box; }
  .tfp-ledger tr { border-top: 2px solid rgba(128, 128, 128, 0.6); padding: 0.4rem 0; }
  .tfp-ledger td { border: none; padding: 0.15rem 0; }
  .tfp-ledger td::before { content: attr(data-label); display: block; font-size: 0.8em;
    font-weight: 600; opacity: 0.75; }
}
</style>"""


def record_text(record):
    """Return a record as plain text: the verdict, then one line per measurement."""
    lines = [f"{record.claim.id} {record.verdict}: {record.claim.statement}"]
    for criterion, is_caveat in _conditions(record.claim):
        lines.append(
            f"  {criterion.name}: {record.estimates[criterion.name]} "
            f"[{criterion.requirement()}: {_outcome(record, criterion, is_caveat)}]"
        )
    return "\n".join(lines)


def record_html(record):
    """Return a record as an HTML table with the anchor `claim-<id>`."""
    claim = record.claim
    rows = [_condition_row(record, *condition) for condition in _conditions(claim)]
    statement = f"<strong>{claim.id}</strong> {escape(claim.statement)}"
    caption = f"{statement}<br>{_badge(record.verdict)}"
    columns = {"Measured quantity": 35, "Measured": 20, "Decided by": 45}
    return _block(_table(caption, columns, rows), anchor=f"claim-{claim.id}")


def scorecard_html(rows, reasons=True):
    """Return the measured claims as an HTML table, one row each.

    Args:
      rows: `scorecard.Row` list; rows without a record are left to `pending_html`.
      reasons: whether to print why each bound is what it is.
    """
    measured = [_scorecard_row(row, reasons) for row in rows if row.record is not None]
    columns = {"Claim": 28, "Measured, and what decides": 47, "Verdict": 25}
    return _block(_table("Claims that a chapter has measured", columns, measured))


def pending_html(rows):
    """Return the claims that no chapter has measured as an HTML table, with their plans."""
    pending = [
        [_statement(row.claim, row.link), escape(row.note)] for row in rows if row.record is None
    ]
    columns = {"Claim": 50, "Plan": 50}
    return _block(_table("Claims that are not tested", columns, pending))


def totals_html(totals):
    """Return how many claims have each verdict, as an HTML list."""
    items = [f"<li>{_badge(verdict)}: {count}</li>" for verdict, count in totals.items()]
    return _block(f"<ul>{''.join(items)}</ul>")


def _conditions(claim):
    """Pair each criterion and caveat of a claim with whether it is a caveat."""
    return [(each, False) for each in claim.criteria] + [(each, True) for each in claim.caveats]


def _outcome(record, criterion, is_caveat):
    """Say what became of a criterion or caveat, and of an undecided one what it lacks."""
    estimate, found = record.estimates[criterion.name], record.outcome(criterion)
    if is_caveat:
        names = {"different": "the caveat falls", "undecided": "open"}
        return names.get(found, "the caveat stands")
    if found == "undecided":
        return f"{found}: {criterion.shortfall(estimate)}"
    if found == "different" and criterion.reverse(estimate):
        return "different, in the other direction"
    return found


def _condition_row(record, criterion, is_caveat):
    estimate = record.estimates[criterion.name]
    label = "Caveat: " if is_caveat else ""
    text = f"<p>{escape(criterion.text)}</p>" if is_caveat else ""
    return [
        f"{label}{escape(criterion.name)}{text}",
        f"{estimate}{_kind(estimate)}",
        f"<p>{escape(criterion.requirement())}: "
        f"<strong>{_outcome(record, criterion, is_caveat)}</strong></p>"
        f'<p class="small">{escape(criterion.why)} Set: {criterion.set[:10]}.</p>',
    ]


def _kind(estimate):
    """Say which error it is, where there is one, and its interval."""
    if estimate.standard_error == 0:
        return ""
    low, high = estimate.confidence_interval()
    kind = f"{escape(estimate.kind)}; " if estimate.kind else ""
    below, above = estimate.slack
    widened = f", widened by {below:.2g} below and {above:.2g} above" if below or above else ""
    return f" ({kind}99 %: {low:.3g} to {high:.3g}{widened})"


def _scorecard_row(row, reasons):
    record, claim = row.record, row.claim
    parts = []
    for criterion, is_caveat in _conditions(claim):
        estimate = record.estimates[criterion.name]
        outcome = _outcome(record, criterion, is_caveat)
        words = f"{criterion.why} Set: {criterion.set[:10]}."
        why = f'<br><span class="small">{escape(words)}</span>' if reasons else ""
        parts.append(
            f"<p>{'Caveat: ' if is_caveat else ''}{escape(criterion.name)}: "
            f"<strong>{estimate}</strong>{_kind(estimate)} "
            f"[{escape(criterion.requirement())}: {outcome}]{why}</p>"
        )
    parts += [_planned(each) for each in claim.planned]
    parts += [_former(each) for each in claim.was]
    if claim.published or claim.published_note:
        published = claim.published or f"empty ({claim.published_note})"
        parts.append(f'<p class="small">Published value: {escape(published)}</p>')
    marks = [row.note] if row.note else []
    if row.survives is not None:
        marks.append(f"{'Survives' if row.survives else 'Does not survive'} Holm over all claims.")
    if record.fails_former:
        marks.append("Would fail under a criterion that it had before.")
    note = "".join(f"<p>{escape(mark)}</p>" for mark in marks)
    link = f'<p><a href="{escape(row.link)}">the cell that measured it</a></p>'
    return [_statement(claim, row.link), "".join(parts), _badge(row.verdict) + note + link]


def _planned(criterion):
    """A criterion that was set before its runs, which are not stored yet: it decides nothing."""
    return (
        f'<p class="small">Set on {criterion.set[:10]}, not measured yet: '
        f"{escape(criterion.name)} [{escape(criterion.requirement())}].</p>"
    )


def _former(former):
    """A criterion of before: what it asked, what it found and why it went."""
    asked = f"{former.rule.removesuffix('_se').replace('_', ' ')} {former.bound:g}"
    return (
        f'<p class="small">Until {former.until}{", a caveat" if former.text else ""}: '
        f"{escape(former.name)}: {former.found} [{asked}: {former.outcome}]. "
        f"{escape(former.why)}</p>"
    )


def _statement(claim, link):
    name = f'<a href="{escape(link)}">{claim.id}</a>' if link else claim.id
    sources = ", ".join(SOURCE_NAMES.get(key, key) for key in claim.source)
    small = f'<p class="small">{escape(sources)}; {claim.kind}</p>'
    return f"<p><strong>{name}</strong> {escape(claim.statement)}</p>{small}"


def _badge(verdict):
    style = f"border-left-color: {_COLOURS[verdict]}"
    return f'<span class="verdict" style="{style}">{_SYMBOLS[verdict]} {verdict}</span>'


def _block(content, anchor=None):
    identifier = f' id="{anchor}"' if anchor else ""
    return f'<div class="tfp-ledger"{identifier}>{_STYLE}{content}</div>'


def _table(caption, columns, rows):
    """Return a table; `columns` maps headings to widths in percent, cells are HTML already.

    Each cell carries its column's name for narrow screens, where the head is out of sight.
    """
    head = "".join(
        f'<th scope="col" style="width: {width}%">{heading}</th>'
        for heading, width in columns.items()
    )
    body = ""
    for row in rows:
        cells = zip(columns, row, strict=True)
        body += "".join(
            ["<tr>", *(f'<td data-label="{h}">{cell}</td>' for h, cell in cells), "</tr>"]
        )
    return (
        f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )
