"""The ledger of claims: what was claimed, what decides it, and what a chapter measured.

`book/claims.yml` holds every claim with its criteria; a chapter hands its numbers to a `Ledger`:

    ledger = Ledger("conditioning")
    ledger.put("gap", f"{gap:.2f}")             # the text shows {glue:text}`conditioning-gap`
    ledger.record("C20", {"max density difference": difference})      # an `Estimate` or a number
    print(ledger.verdict_lines())

The verdict follows from numbers and criteria alone, and the record is stored in the notebook's
output, where `scorecard` finds it. So a chapter cannot claim what the file does not know, and the
scorecard cannot show what no chapter measured.

A criterion compares the two-sided 99 % t interval [L, U] of an estimate with a bound b and a margin
m, the smallest effect that would matter to a reader. For at_least (at_most is its mirror image):
reproduced if L > b, and "smaller than matters" if U < b + m as well; different if L <= b and
U < b + m; undecided otherwise. For equals: reproduced if the interval lies inside b +- m, different
if outside, else undecided. For differs: reproduced if the interval leaves b out, on either side,
and "smaller than matters" if it lies inside b +- m; different if it holds b and lies inside b +- m;
undecided otherwise. More noise never makes a criterion hold. An exact number needs no margin.
"""

import collections
import dataclasses
import hashlib
import json
import math
import numbers
import pathlib
import re

from scipy import optimize, stats

from tfp_gaps.book import files
from tfp_gaps.book.ledger import view
from tfp_gaps.estimate import Estimate
from tfp_gaps.tables import true_minus

MIME = "application/vnd.tfp-gaps.claim+json"
REPRODUCED = "reproduced"
QUALIFIED = "reproduced with qualification"
DIFFERENT = "different"
UNDECIDED = "undecided"
NOT_TESTED = "not tested"
IDENTITY = "identity"
VERDICTS = (REPRODUCED, QUALIFIED, DIFFERENT, UNDECIDED, NOT_TESTED, IDENTITY)
SMALL = "reproduced, but smaller than matters"
KINDS = ("identity", "inequality", "qualitative", "quantitative")
RULES = ("at_least", "at_most", "equals", "differs")
LEVEL = 0.99
POWER = 0.9


class ClaimsError(ValueError):
    """The claims file, a measurement or a stored record does not fit the ledger."""


@dataclasses.dataclass(frozen=True)
class Criterion:
    """One measurable condition; in a caveat, `text` says what its holding means.

    Attributes:
      name: what is measured, with its unit; the key under which a chapter reports it.
      rule: at_least, at_most, equals or differs (see the module's docstring).
      bound: the number that the estimate is compared with.
      why: the reason for bound and margin.
      set: the date on which name, direction, bound and text were set, and the digest of the whole.
      margin: smallest effect that matters; None where only an exact number can decide.
      text: caveats only; the qualification in words.

    Example:

    >>> five = Criterion("gain, nats", "at_least", 5.0, why="the size that we promise", margin=1.0)
    >>> [five.outcome(Estimate(v, 0.3)) for v in (7.0, 5.5, 5.1)]
    ['reproduced', 'undecided', 'different']
    """

    name: str
    rule: str
    bound: float
    why: str
    set: str = ""
    margin: float | None = None
    text: str | None = None

    def outcome(self, estimate, level=LEVEL):
        """Return `REPRODUCED`, `SMALL`, `DIFFERENT` or `UNDECIDED`."""
        low, high = self._effect(estimate).confidence_interval(level)
        margin = self.margin or 0.0
        if self.rule == "equals":
            if max(-low, high) <= margin:
                return REPRODUCED
            return DIFFERENT if low > margin or high < -margin else UNDECIDED
        if self.rule == "differs":
            within = max(-low, high) < margin
            if low > 0 or high < 0:
                return SMALL if within else REPRODUCED
            return DIFFERENT if within or low == high else UNDECIDED
        if low > 0 or low == high == 0:
            return SMALL if high < margin else REPRODUCED
        return DIFFERENT if high < margin or low == high else UNDECIDED

    def reverse(self, estimate):
        """Return whether the effect is certain to have the other direction: below a bound of zero.

        Below any other bound it may be in the right direction and too small.
        """
        one_sided = self.rule in ("at_least", "at_most")
        return one_sided and self.bound == 0 and self._effect(estimate).confidence_interval()[1] < 0

    def p_values(self, estimate):
        """Return the p values (for reproduced, for different).

        Of at_least and at_most they are one-sided, and fall below (1 - level) / 2 where `outcome`
        says so. What may lie on either side of the bound (differs, or different from what equals
        asks for) has both tails, at the distance found. Slack counts against either. An exact
        number gives 0 or 1.
        """
        if estimate.standard_error == 0:
            outcome = self.outcome(estimate)
            return float(outcome not in (REPRODUCED, SMALL)), float(outcome != DIFFERENT)
        effect, margin = self._effect(estimate), self.margin or 0.0
        low, high = effect.value - effect.slack[0], effect.value + effect.slack[1]
        nearest, farthest = max(0.0, low, -high), max(-low, high)
        if self.rule == "equals":
            outside = _tail(effect, nearest - margin) + _tail(effect, nearest + margin)
            return _tail(effect, margin - farthest), outside
        if self.rule == "differs":
            return 2 * _tail(effect, nearest), _tail(effect, margin - farthest)
        return _tail(effect, low), _tail(effect, margin - high)

    def requirement(self):
        """Return the condition in words and numbers, as shown to the reader.

        >>> Criterion("x", "equals", 0.5, why="closed form", margin=0.01).requirement()
        'within 0.01 of 0.5'
        """
        bound = _short(self.bound)
        if self.rule == "equals":
            return f"within {_short(self.margin or 0)} of {bound}"
        rule = "differs from" if self.rule == "differs" else self.rule.replace("_", " ")
        words = f"{rule} {bound}"
        return words if self.margin is None else f"{words}, margin {_short(self.margin)}"

    def shortfall(self, estimate):
        """Say what an undecided criterion lacks: what this design detects, and what would decide.

        >>> five = Criterion("gain, nats", "at_least", 5.0, why="a size", margin=1.0)
        >>> for words in five.shortfall(Estimate(5.5, 0.5, 4, "seeds")).split("; "):
        ...     print(words)
        detects an effect of 4.3 with 90 % power, where 1 matters
        19 seeds instead of 4 would suffice
        """
        # Equality takes two such tests, which share what may be missed.
        equals = self.rule == "equals"
        power = (1 + POWER) / 2 if equals else POWER
        what = "equality within" if equals else "an effect of"
        slack = max(estimate.slack) if equals else self._effect(estimate).slack[0]
        found = _short(float(f"{slack + _detectable(estimate, power):.2g}"))
        words = f"detects {what} {found} with 90 % power, where {_short(self.margin)} matters"
        if slack >= self.margin:
            return (
                f"{words}; the bounds may be {slack:.2g} too low, which no number of units mends, "
                "only a closer look at their slack"
            )
        times = _times_as_many(estimate, self.margin - slack, power)
        if times <= 1:
            return (
                f"{words}; the estimate lies too near the bound, a replication on new seeds would "
                "decide"
            )
        units = {"Monte Carlo": "draws"}.get(estimate.kind, estimate.kind or "samples")
        count = estimate.num_samples
        if count is None or " and " in units:
            more = _short(float(f"{times:.2g}"))
            return f"{words}; {more} times as many {units} would suffice"
        return f"{words}; {math.ceil(times * count)} {units} instead of {count} would suffice"

    def digest(self):
        """Return what `set` must end with: eight digits of the hash of the criterion's own text."""
        own = [self.name, self.rule, self.bound, self.margin, self.text]
        return hashlib.sha256(json.dumps(own).encode()).hexdigest()[:8]

    def _effect(self, estimate):
        """The estimate's distance from the bound, positive in the direction of the rule."""
        return (self.bound - estimate) if self.rule == "at_most" else (estimate - self.bound)


def _tail(estimate, distance):
    """Probability that an error of the estimate exceeds `distance`."""
    return float(stats.t.sf(distance / estimate.standard_error, estimate.degrees_of_freedom))


def _detectable(estimate, power, times=1.0):
    """Smallest effect whose interval clears the bound with probability `power`.

    Of a design with `times` as many units: the root of P(t' > t) = power in the shift of a
    noncentral t.
    """
    count, degrees = estimate.num_samples, estimate.degrees_of_freedom
    plain = count is not None and degrees == count - 1
    degrees = min(max(1.0, times * count - 1) if plain else times * degrees, 1e4)
    needed = stats.t.isf((1 - LEVEL) / 2, degrees)
    found = optimize.brentq(
        lambda shift: stats.nct.sf(needed, degrees, shift) - power, 0.0, 4 * needed + 5
    )
    return found * estimate.standard_error / math.sqrt(times)


def _times_as_many(estimate, effect, power):
    """How many times the units it takes to detect `effect`; 1 if these suffice."""

    def excess(logarithm):
        return _detectable(estimate, power, math.exp(logarithm)) - effect

    return 1.0 if excess(0.0) <= 0 else math.exp(optimize.brentq(excess, 0.0, 30.0))


def _short(number):
    """Print a bound as one would write it: 1e-8 rather than 1e-08."""
    return re.sub(r"e([+-])0+", r"e\1", f"{number:g}")


@dataclasses.dataclass(frozen=True)
class Former:
    """A criterion, or with `text` a caveat, that was replaced once a result existed.

    Attributes:
      name, rule, bound, margin: of the criterion; `at_most_se` is a rule of then.
      found: the value that it met, as printed.
      outcome: "held", "failed" or "undecided" by the rule of then, or "not measured".
      until: the date on which it was replaced.
      why: the reason that was given, or the lack of one.
    """

    name: str
    rule: str
    bound: float
    found: str
    outcome: str
    until: str
    why: str
    margin: float | None = None
    text: str | None = None


@dataclasses.dataclass(frozen=True)
class Claim:
    """One claim of the sources, in our words, and what decides it.

    Attributes:
      id: C01, C02, ...
      statement: the claim in our words.
      source: tuple of bibliography keys.
      kind: identity, inequality, qualitative or quantitative.
      chapter: the page that decides it, or None if no page does yet.
      criteria: tuple of `Criterion`; all must hold for the claim to be reproduced.
      caveats: tuple of `Criterion` with `text`; any that holds qualifies the verdict.
      limits: what was not tried, or shown elsewhere; each qualifies the verdict.
      was: tuple of `Former`, what decided the claim before.
      planned: tuple of `Criterion` that were set before their runs, which are not stored yet; they
        decide nothing until they move to `criteria` as they are.
      plan: for a claim without a chapter, how it will be tested.
      published: the published value in words, or None.
      published_note: why `published` is empty.
    """

    id: str
    statement: str
    source: tuple[str, ...]
    kind: str
    chapter: str | None
    criteria: tuple[Criterion, ...] = ()
    caveats: tuple[Criterion, ...] = ()
    limits: tuple[str, ...] = ()
    was: tuple[Former, ...] = ()
    planned: tuple[Criterion, ...] = ()
    plan: str | None = None
    published: str | None = None
    published_note: str | None = None

    @property
    def names(self):
        """The names of everything that a chapter must measure for this claim."""
        return [criterion.name for criterion in (*self.criteria, *self.caveats)]

    def question(self):
        """Return what a record of this claim answers; a record of another question is stale."""
        conditions = {"criteria": self.criteria, "caveats": self.caveats}
        return {
            "chapter": self.chapter,
            "statement": self.statement,
            "limits": list(self.limits),
            **{kind: [_as_asked(each) for each in found] for kind, found in conditions.items()},
        }


def _as_asked(criterion):
    return {key: v for key, v in dataclasses.asdict(criterion).items() if key != "set"}


@dataclasses.dataclass(frozen=True)
class Record:
    """What a chapter measured for one claim; the verdict follows from it.

    Args:
      claim: the `Claim`.
      estimates: mapping from every criterion and caveat name of the claim to an `Estimate`.
      level: of the intervals that decide.

    Raises:
      ClaimsError: if a name is missing or unknown, a value is not an `Estimate`, samples have no
        spread, or a value with an error meets a criterion without a margin.

    Example:

    >>> criterion = Criterion("residual", "at_most", 1e-8, why="float64")
    >>> claim = Claim("C99", "2 + 2 = 4", ("somebody",), "identity", "sums", (criterion,))
    >>> Record(claim, {"residual": Estimate(0.0)}).verdict
    'identity'
    """

    claim: Claim
    estimates: dict[str, Estimate]
    level: float = LEVEL

    def __post_init__(self):
        claim, names = self.claim, self.claim.names
        missing = [name for name in names if name not in self.estimates]
        extra = [name for name in self.estimates if name not in names]
        if missing or extra:
            raise ClaimsError(
                f"{claim.id} is decided by exactly these measurements: {names}. "
                f"Missing: {missing}. Unknown: {extra}. Give all of them under these names, or "
                f"change the criteria of {claim.id} in claims.yml."
            )
        for name, estimate in self.estimates.items():
            if not isinstance(estimate, Estimate):
                raise ClaimsError(
                    f"{claim.id}, {name!r}: expected an Estimate or a number, found "
                    f"{type(estimate).__name__} {estimate!r}. Give a number if it is exact, and "
                    "Estimate(value, standard_error) if it is not."
                )
            if not estimate.standard_error and estimate.kind not in ("", "exact"):
                raise ClaimsError(
                    f"{claim.id}, {name!r}: {estimate.kind} without any spread say nothing of the "
                    "error. Take Estimate.from_share for a share, Estimate.exact for an exact "
                    "number, and more samples otherwise."
                )

        for criterion in (*claim.criteria, *claim.caveats):
            if criterion.margin is None and self.estimates[criterion.name].standard_error:
                raise ClaimsError(
                    f"{claim.id}, {criterion.name!r}: has an error, but the criterion has no "
                    "margin. Give the smallest effect that would matter as its margin."
                )

    @property
    def verdict(self):
        """One of `VERDICTS` but `NOT_TESTED`, computed from estimates and criteria alone."""
        outcomes = {self.outcome(criterion) for criterion in self.claim.criteria}
        for word in (DIFFERENT, UNDECIDED):
            if word in outcomes:
                return word
        if self.claim.kind == "identity" and not self.standing_caveats:
            return IDENTITY
        qualified = SMALL in outcomes or self.standing_caveats or self.claim.limits
        return QUALIFIED if qualified else REPRODUCED

    @property
    def standing_caveats(self):
        """The caveats that are shown."""
        return [each for each in self.claim.caveats if self.outcome(each) in (REPRODUCED, SMALL)]

    @property
    def fails_former(self):
        """Whether the claim is reproduced here and failed a criterion that it had before."""
        failed = any(each.outcome == "failed" and not each.text for each in self.claim.was)
        return failed and self.verdict in (REPRODUCED, QUALIFIED)

    def outcome(self, criterion):
        """Return what the measured estimate says of `criterion` (one of the claim's own)."""
        return criterion.outcome(self.estimates[criterion.name], self.level)

    def p_values(self):
        """Return the p values of the claim: for reproduced, for different.

        All criteria must hold, so the first is the largest of theirs; one suffices to differ, so
        the second is the smallest of those that do not hold, times the number of all. An effect in
        the claim's direction is no evidence against it, however small.
        """
        rows = [each.p_values(self.estimates[each.name]) for each in self.claim.criteria]
        holds, differs = zip(*rows, strict=True)
        failed = [
            p
            for each, p in zip(self.claim.criteria, differs, strict=True)
            if self.outcome(each) not in (REPRODUCED, SMALL)
        ]
        return max(holds), min(1.0, min(failed, default=1.0) * len(rows))

    def as_dict(self):
        """Return the record as JSON-ready data: what was asked, measured and decided."""
        estimates = {name: self.estimates[name].as_dict() for name in self.claim.names}
        answer = {"estimates": estimates, "verdict": self.verdict}
        return {"id": self.claim.id, **self.claim.question(), **answer}


# --- reading claims.yml ------------------------------------------------------------------------


def default_path():
    """Return the path of the book's claims.yml, see `files.find`.

    Raises:
      ClaimsError: if it is nowhere.
    """
    try:
        return files.find("claims.yml")
    except FileNotFoundError as error:
        raise ClaimsError(str(error)) from error


def load(path=None):
    """Read and check the claims file.

    Args:
      path: the file; by default the book's own (`default_path`).

    Returns:
      claims: dict from id to `Claim`, in the order of the file.

    Raises:
      ClaimsError: if the file is missing, is not YAML, or an entry does not fit the schema
        (unknown or missing keys, unknown rule or kind, repeated ids, a bound without a reason).
    """
    path = default_path() if path is None else pathlib.Path(path)
    try:
        entries = files.read_list(path, "claims")
    except ValueError as error:
        raise ClaimsError(str(error)) from error
    claims = {}
    for number, entry in enumerate(entries, start=1):
        claim = _parse_claim(entry, f"{path.name}, entry {number}")
        if claim.id in claims:
            raise ClaimsError(f"{path.name}, entry {number}: the id {claim.id} was used before.")
        claims[claim.id] = claim
    return claims


def _parse_claim(entry, where):
    allowed = [field.name for field in dataclasses.fields(Claim)]
    _check_keys(entry, where, ["id", "statement", "source", "kind", "chapter"], allowed)
    where = f"{where} ({entry['id']})"
    _check_text(entry["id"], f"{where}: id", "a name like C07", r"C\d\d")
    _check_text(entry["statement"], f"{where}: statement")
    _check_choice(entry["kind"], KINDS, f"{where}: kind")
    if not isinstance(entry["source"], list) or not entry["source"]:
        raise ClaimsError(f"{where}: source must be a non-empty list of bibliography keys.")
    for key in entry["source"]:
        _check_text(key, f"{where}: source")
    _check_chapter_or_plan(entry, where)
    _check_published(entry, where)
    for text in entry.get("limits", []):
        _check_text(text, f"{where}: limits")
    parsed = {
        "source": tuple(entry["source"]),
        "criteria": _parse_list(entry, "criteria", f"{where}, criterion", _parse_criterion),
        "caveats": _parse_list(entry, "caveats", f"{where}, caveat", _parse_caveat),
        "limits": tuple(entry.get("limits", [])),
        "was": _parse_list(entry, "was", f"{where}, was", _parse_former),
        "planned": _parse_list(entry, "planned", f"{where}, planned", _parse_criterion),
    }
    claim = Claim(**{**entry, **parsed})
    names = [*claim.names, *(each.name for each in claim.planned)]
    repeated = [name for name, times in collections.Counter(names).items() if times > 1]
    if repeated:
        raise ClaimsError(f"{where}: names must differ, but {repeated} occur more than once.")
    return claim


def _check_chapter_or_plan(entry, where):
    """A claim either has a chapter and criteria that decide it, or a plan and neither."""
    if entry["chapter"] is None:
        _check_text(entry.get("plan"), f"{where}: plan (needed while there is no chapter)")
        if entry.get("criteria") or entry.get("caveats"):
            raise ClaimsError(f"{where}: has criteria, but no chapter that could decide them.")
        return
    advice = "a page name such as linear-gaussian, or null"
    _check_text(entry["chapter"], f"{where}: chapter", advice, r"[a-z0-9]+(-[a-z0-9]+)*")
    if not entry.get("criteria"):
        raise ClaimsError(f"{where}: has a chapter, but no criteria: nothing could decide it.")
    if "plan" in entry:
        raise ClaimsError(f"{where}: has a chapter, so it needs no plan: remove one of the two.")


def _check_published(entry, where):
    if entry.get("published") is not None:
        _check_text(entry["published"], f"{where}: published")
    elif "published" in entry:
        _check_text(entry.get("published_note"), f"{where}: published_note (published is empty)")


def _parse_list(entry, key, where, parse):
    rows = entry.get(key, [])
    if not isinstance(rows, list):
        raise ClaimsError(f"{where}: expected a list, found {type(rows).__name__}.")
    return tuple(parse(row, f"{where} {number}") for number, row in enumerate(rows, start=1))


def _parse_caveat(row, where):
    return _parse_criterion(row, where, ("text",))


def _parse_criterion(row, where, extra_keys=()):
    required = ["name", "rule", "bound", "why", "set", *extra_keys]
    _check_keys(row, where, required, [*required, "margin"])
    _check_choice(row["rule"], RULES, f"{where}: rule")
    for key in ("name", "why", *extra_keys):
        _check_text(row[key], f"{where}: {key}")
    wanted = "a date and a digest of eight digits"
    _check_text(row["set"], f"{where}: set", wanted, r"\d{4}-\d\d-\d\d [0-9a-f]{8}")
    _check_number(row["bound"], f"{where}: bound")
    if "margin" in row:
        _check_number(row["margin"], f"{where}: margin", minimum=0.0)
    numbers = {key: float(row[key]) for key in ("bound", "margin") if key in row}
    return Criterion(**{**row, **numbers})


def _parse_former(row, where):
    required = ["name", "rule", "bound", "found", "outcome", "until", "why"]
    _check_keys(row, where, required, [*required, "margin", "text"])
    _check_choice(row["rule"], (*RULES, "at_most_se"), f"{where}: rule")
    _check_choice(
        row["outcome"], ("held", "failed", "undecided", "not measured"), f"{where}: outcome"
    )
    _check_number(row["bound"], f"{where}: bound")
    for key in ("name", "found", "until", "why"):
        _check_text(row[key], f"{where}: {key}")
    return Former(**{**row, "bound": float(row["bound"])})


def _check_keys(entry, where, required, allowed):
    if not isinstance(entry, dict):
        raise ClaimsError(f"{where}: expected key: value pairs, found {type(entry).__name__}.")
    missing = [key for key in required if key not in entry]
    unknown = [str(key) for key in entry if key not in allowed]
    if missing or unknown:
        raise ClaimsError(
            f"{where}: missing keys {missing}, unknown keys {unknown}. Known here: {list(allowed)}."
        )


def _check_text(value, where, wanted="some text", pattern=r"(?s).*\S.*"):
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise ClaimsError(f"{where}: expected {wanted}, found {value!r}.")


def _check_choice(value, choices, where):
    _check_text(value, where, f"one of {list(choices)}", "|".join(choices))


def _check_number(value, where, minimum=-math.inf):
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < minimum:
        wanted = "a finite number" + (f" >= {minimum:g}" if minimum > -math.inf else "")
        raise ClaimsError(
            f"{where}: expected {wanted}, found {value!r}. Mind that YAML reads 1e-8 as text: "
            "write 1.0e-8."
        )


# --- in a chapter ------------------------------------------------------------------------------


class Ledger:
    """The numbers of one chapter: those of its text, and its claims, recorded one by one.

    Args:
      chapter: the page name, as in claims.yml.
      path: the claims file; by default the book's own.

    Raises:
      ClaimsError: if there is no such page and claims.yml assigns no claim to it.

    Example (what `put` and `record` display goes to the notebook's output):

    >>> list(Ledger("digits").claims), list(Ledger("index").claims)
    (['C31'], [])
    """

    def __init__(self, chapter, path=None):
        path = default_path() if path is None else pathlib.Path(path)
        everything = load(path)
        self.chapter = chapter
        self.claims = {key: claim for key, claim in everything.items() if claim.chapter == chapter}
        self.records = {}
        if not self.claims and not path.with_name(f"{chapter}.ipynb").is_file():
            chapters = sorted({claim.chapter for claim in everything.values() if claim.chapter})
            raise ClaimsError(
                f"No claim of claims.yml belongs to the chapter {chapter!r}. Chapters with claims: "
                f"{', '.join(chapters)}. Use one of these, or set `chapter:` of the claims first."
            )

    def put(self, name, value):
        """Glue `str(value)`; the text shows it by {glue:text}`CHAPTER-NAME`.

        A minus becomes a true one, and 4e-14 a number times a power of ten.

        The output is that of `myst_nb.glue`, which hosted notebooks lack.
        """
        prefix = "application/papermill.record/"
        scrapbook = {"name": f"{self.chapter}-{name}", "mime_prefix": prefix}
        text = true_minus(str(value))
        text = re.sub(r"(?<=\d)e([-+]\d+)\b", _power_of_ten, text)
        _display({f"{prefix}text/plain": repr(text)}, metadata={"scrapbook": scrapbook})

    def record(self, claim_id, measured):
        """Decide a claim from its measurements and display the record.

        The output carries the anchor `claim-<id>` and, as `MIME`, everything that the scorecard
        needs. Recording a claim again (a cell run twice) replaces the earlier record.

        Args:
          claim_id: for example "C20"; must belong to this chapter.
          measured: dict from each criterion and caveat name of the claim to an `Estimate`, or to a
            number, which is taken as exact.

        Raises:
          ClaimsError: if the claim is not this chapter's, or what was measured does not fit it.
        """
        if claim_id not in self.claims:
            raise ClaimsError(
                f"claims.yml does not assign {claim_id} to the chapter {self.chapter!r}, which "
                f"decides {', '.join(self.claims) or 'none'}. Record one of these, or change its "
                "chapter."
            )
        estimates = {name: _as_estimate(value) for name, value in measured.items()}
        record = Record(self.claims[claim_id], estimates)
        self.records[claim_id] = record
        _display(
            {
                "text/plain": view.record_text(record),
                "text/html": view.record_html(record),
                MIME: record.as_dict(),
            }
        )

    def verdict_lines(self):
        """Return one line per claim of the chapter, such as `C20 reproduced`.

        Raises:
          ClaimsError: if a claim of this chapter has not been recorded.
        """
        missing = [claim_id for claim_id in self.claims if claim_id not in self.records]
        if missing:
            raise ClaimsError(
                f"The chapter {self.chapter!r} has not recorded {', '.join(missing)}. Record every "
                "claim that claims.yml assigns to it, or move the claim to another chapter."
            )
        return "\n".join(f"{key} {self.records[key].verdict}" for key in self.claims)


def _power_of_ten(match):
    exponent = str(int(match[1])).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f" \N{MULTIPLICATION SIGN} 10{exponent}"


def _as_estimate(value):
    """A plain number is exact; whatever else is left to `Record`, which refuses what it must."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return Estimate.exact(value) if is_number else value


def in_words(difference, *, above, below, undecided):
    """Choose the words for a difference by its sign, if its 99 % interval leaves out zero.

    >>> words = {"above": "higher", "below": "lower", "undecided": "not told apart"}
    >>> in_words(Estimate(1.0, 0.1), **words), in_words(Estimate(0.2, 0.1), **words)
    ('higher', 'not told apart')
    """
    low, high = difference.confidence_interval(LEVEL)
    return above if low > 0 else below if high < 0 else undecided


def _display(bundle, **options):
    """Show a mime bundle in a notebook, and its plain text, if it has any, anywhere else."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        shell = None
    else:
        shell = get_ipython()
    if shell is not None:
        display(bundle, raw=True, **options)
    elif "text/plain" in bundle:
        print(bundle["text/plain"])
