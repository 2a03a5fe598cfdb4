"""Compare the criteria of book/claims.yml with their history.

    python tools/criteria.py

Every criterion or caveat that the file ever held, and no longer holds with the same name,
direction, bound, margin and text, must stand under `was`; and the date in `set` must be that of the
first commit that held name, direction, bound and text. What git does not know yet is not checked.
Prints what is missing; exit status 1 if anything is.
"""

import pathlib
import subprocess
import sys
from typing import NamedTuple

import yaml

from tfp_gaps.book.ledger import claims

PATH = "book/claims.yml"


class Key(NamedTuple):
    """What tells criteria apart: the claim, what it asks and, of a caveat, what it says."""

    claim: str
    name: str
    direction: str
    bound: float
    text: str | None


def git(root, *arguments):
    """Return what git prints."""
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def key(claim, name, rule, bound, text):
    """Return the `Key`; rules of before that subtract an error have the direction of the others."""
    return Key(claim, name, rule.removesuffix("_se"), float(bound), text)


def history(root):
    """Return {key: (date of the first commit with it, the margins it has had)}."""
    found = {}
    log = git(root, "log", "--reverse", "--format=%H %as", "--", PATH)
    for commit, date in (line.split() for line in log.splitlines()):
        for entry in yaml.safe_load(git(root, "show", f"{commit}:{PATH}")):
            for kind in ("criteria", "caveats", "planned"):
                for row in entry.get(kind) or []:
                    asks = (row[each] for each in ("name", "rule", "bound"))
                    own = key(entry["id"], *asks, row.get("text"))
                    _, margins = found.setdefault(own, (date, set()))
                    margins.add(row.get("margin", row.get("tolerance")))
    return found


def problems(root):
    """Yield a sentence for each criterion that was dropped without a trace, or has a wrong date."""
    past = history(root)
    today, former = {}, {}
    for claim in claims.load(pathlib.Path(root) / PATH).values():
        for each in (*claim.criteria, *claim.caveats, *claim.planned):
            own = key(claim.id, each.name, each.rule, each.bound, each.text)
            today[own] = each
        for each in claim.was:
            own = key(claim.id, each.name, each.rule, each.bound, each.text)
            former.setdefault(own, set()).add(each.margin)
    for own, (date, margins) in past.items():
        kept = {today[own].margin, None} if own in today else set()
        gone = margins - kept - former.get(own, set())
        if gone and not (own in former and None in former[own] and own not in today):
            words = f" ({own.text})" if own.text else ""
            what = f"{own.claim}: {own.name!r}{words} (margin {gone})"
            yield f"{what} is gone or changed; say so under was."
        if own in today and today[own].set[:10] != date:
            yield f"{own.claim}: {own.name!r} was set on {date}, not on {today[own].set[:10]}."


def main():
    """Print the problems of this checkout; 1 if there are any."""
    found = list(problems(pathlib.Path(__file__).resolve().parents[1]))
    print("\n".join(found) or "Every criterion that was replaced is kept, and every date is right.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
