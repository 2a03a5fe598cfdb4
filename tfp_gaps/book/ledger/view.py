"""How a record looks under the cell that measured it, and a verdict anywhere, as HTML and text.

Verdicts are words first; colour only repeats them. On narrow screens tables turn into stacked
blocks (each cell then carries its column's name), so a phone needs no sideways scrolling. The
styles use the page's own text colour and work on light and dark pages. `board` is the scorecard.
"""

import math
import re
from html import escape

ROUNDING = 1e-12
"""An exact value that is smaller is zero but for rounding."""

SYMBOLS = {
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
.tfp-ledger .claim-number { font-weight: 600; }
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
    for criterion, is_caveat in conditions(record.claim):
        lines.append(
            f"  {criterion.name}: {record.estimates[criterion.name]} "
            f"[{criterion.requirement()}: {outcome(record, criterion, is_caveat)}]"
        )
    lines += [f"  limit: {text}" for text in record.claim.limits]
    return "\n".join(lines)


def record_html(record):
    """Return a record as an HTML table with the anchor `claim-<id>`."""
    claim = record.claim
    rows = [_condition_row(record, *condition) for condition in conditions(claim)]
    rows += [_limit_row(text) for text in claim.limits]
    number = f'<a class="claim-number" href="scorecard.html#{claim.id}">{claim.id}</a>'
    statement = f"{number} {escape(claim.statement)}"
    caption = f"{statement}<br>{badge(record.verdict)}"
    columns = {"Measured quantity": 35, "Measured": 20, "Decided by": 45}
    return block(_table(caption, columns, rows), anchor=f"claim-{claim.id}")


def conditions(claim):
    """Pair each criterion and caveat of a claim with whether it is a caveat."""
    return [(each, False) for each in claim.criteria] + [(each, True) for each in claim.caveats]


def outcome(record, criterion, is_caveat):
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
    text = f"<p>{caveat_text(record, criterion)}</p>" if is_caveat else ""
    return [
        f"{label}{words(criterion.name)}{text}",
        f"{value(estimate)}{kind_of_error(estimate, criterion)}",
        f"<p>{words(criterion.requirement())}: {decided(record, criterion, is_caveat)}</p>"
        f'<p class="small">{words(criterion.why)} Set: {criterion.set[:10]}.</p>',
    ]


def caveat_text(record, criterion):
    """The words of a caveat as HTML; struck out if it falls, or it would read as if it held."""
    fallen = record.outcome(criterion) == "different"
    return f"<s>{words(criterion.text)}</s>" if fallen else words(criterion.text)


def _limit_row(text):
    """What qualifies a verdict without a measurement."""
    return [
        f"Limit: {words(text)}",
        "not measured here",
        "<p>Set in words; <strong>it qualifies the verdict</strong>.</p>",
    ]


def words(text):
    """A text of claims.yml as HTML, with the leading zeros that the names of criteria lack.

    >>> words("sigma = .05 & less")
    'sigma = 0.05 &amp; less'
    """
    return re.sub(r"(?<![\w.])\.(?=\d)", "0.", escape(text))


def value(estimate):
    """A measured value as HTML, with a true minus; what is zero to rounding says so.

    >>> from tfp_gaps.estimate import Estimate
    >>> value(Estimate(-2.0, 0.1)), value(Estimate.exact(1e-21))
    ('−2.00 ± 0.10', '0 to rounding')
    """
    if estimate.standard_error == 0 and 0 < abs(estimate.value) < ROUNDING:
        return "0 to rounding"
    return re.sub(r"^-", "\N{MINUS SIGN}", str(estimate))


def decided(record, criterion, is_caveat):
    """What became of a criterion, as HTML: the word is bold, what it lacks is not."""
    word, colon, rest = outcome(record, criterion, is_caveat).partition(":")
    return f"<strong>{word}</strong>{colon}{rest}"


def kind_of_error(estimate, criterion):
    """Say which error it is, where there is one, and its interval to the digits of the error.

    The interval of a share is cut at zero and one.

    >>> from tfp_gaps.book.ledger.claims import Criterion
    >>> from tfp_gaps.estimate import Estimate
    >>> gains = Criterion("share of images", "at_least", 0.8, why="most", margin=0.1)
    >>> kind_of_error(Estimate.from_share(50, 50), gains)
    ' (data points; 99 %: 0.858 to 1.000)'
    """
    if estimate.standard_error == 0:
        return ""
    digits = max(0, 1 - math.floor(math.log10(estimate.standard_error)))
    ends = estimate.confidence_interval()
    if criterion.name.startswith("share of "):
        ends = (min(max(end, 0.0), 1.0) for end in ends)
    ends = (f"{round(end, digits) + 0.0:.{digits}f}" for end in ends)
    low, high = (end.replace("-", "\N{MINUS SIGN}") for end in ends)
    kind = f"{escape(estimate.kind)}; " if estimate.kind else ""
    below, above = estimate.slack
    widened = f", widened by {below:.2g} below and {above:.2g} above" if below or above else ""
    return f" ({kind}99 %: {low} to {high}{widened})"


def badge(verdict):
    """Return a verdict as HTML: its sign, its word, and its colour at the edge."""
    style = f"border-left-color: {_COLOURS[verdict]}"
    return f'<span class="verdict" style="{style}">{SYMBOLS[verdict]} {verdict}</span>'


def claim_link(claim_id, verdict, link, page):
    """Return the badge of a claim in a text, as HTML: to its cell, and to its scorecard row.

    Args:
      claim_id, verdict: as "C20" and one of `claims.VERDICTS`.
      link: to the cell that measured it, or None.
      page: name of the page with the badge; a link within it needs no file name.

    >>> claim_link("C20", "identity", "sums.html#claim-C20", "sums").count('href="#claim-C20"')
    1
    """
    row = f"scorecard.html#{claim_id}"
    target = row if link is None else link.removeprefix(f"{page}.html")
    words = f"{claim_id} {SYMBOLS[verdict]}"
    style = f"border-left-color: {_COLOURS[verdict]}"
    return (
        f'<span class="claim-badge" style="{style}"><a href="{escape(target)}" '
        f'title="{verdict}: how it was decided" aria-label="{claim_id}, {verdict}">{words}</a>'
        f'<a href="{row}" title="{claim_id} in the scorecard" '
        f'aria-label="{claim_id} in the scorecard">\N{NORTH EAST ARROW}</a></span>'
    )


def block(content, anchor=None):
    """Return HTML with the styles of the ledger around it; `anchor` becomes its id."""
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
