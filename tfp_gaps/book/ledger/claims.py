"""The ledger of claims: what was claimed, what decides it, and what a chapter measured.

`book/claims.yml` holds every claim with its criteria; a chapter hands its numbers to a `Ledger`:

    ledger = Ledger("conditioning")
    ledger.put("gap", f"{gap:.2f}")             # the text shows {glue:text}`conditioning-gap`
    ledger.record("C20", {"max density difference": difference})      # an `Estimate` or a number
    print(ledger.verdict_lines())

The verdict follows from numbers and criteria alone, and the record is stored in the notebook's
output, where `scorecard` finds it. So a chapter cannot claim what the file does not know, and the
scorecard cannot show what no chapter measured.

A criterion compares an estimate (value v, standard error s) with a bound b:
at_most: v <= b;  at_least: v - z s >= b;  at_most_se: v + z s <= b;
equals: |v - b| <= max(tolerance, z s), and z s <= max_error where one is given.
"""

import collections
import dataclasses
import math
import numbers
import pathlib
import re

from tfp_gaps.book import files
from tfp_gaps.book.ledger import view
from tfp_gaps.estimate import Estimate

MIME = "application/vnd.tfp-gaps.claim+json"
REPRODUCED = "reproduced"
QUALIFIED = "reproduced with qualification"
DIFFERENT = "different"
NOT_TESTED = "not tested here yet"
VERDICTS = (REPRODUCED, QUALIFIED, DIFFERENT, NOT_TESTED)
KINDS = ("identity", "inequality", "qualitative", "quantitative")
_RULE_OPTIONS = {
    "at_most": (),
    "at_least": ("z",),
    "at_most_se": ("z",),
    "equals": ("tolerance", "z", "max_error"),
}


class ClaimsError(ValueError):
    """The claims file, a measurement or a stored record does not fit the ledger."""


@dataclasses.dataclass(frozen=True)
class Criterion:
    """One measurable condition; in a caveat, `text` says what its holding means.

    Attributes:
      name: what is measured, with its unit; the key under which a chapter reports it.
      rule: at_most, at_least, at_most_se or equals (see the module's docstring).
      bound: the number that the estimate is compared with.
      why: the reason for the bound.
      tolerance: equals only; accepted distance when the standard error is smaller.
      z: number of standard errors by which the rule must be met.
      max_error: equals only; `z` standard errors above this are too noisy to confirm equality.
      text: caveats only; the qualification in words.

    Example:

    >>> five = Criterion("gain, nats", "at_least", 5.0, why="the size that we promise")
    >>> five.holds(Estimate(7.0, 0.5)), five.holds(Estimate(7.0, 1.0))
    (True, False)
    """

    name: str
    rule: str
    bound: float
    why: str
    tolerance: float = 0.0
    z: float = 3.0
    max_error: float | None = None
    text: str | None = None

    def holds(self, estimate):
        """Return whether `estimate` meets this criterion."""
        value, error = estimate.value, self.z * estimate.standard_error
        if self.rule == "at_most":
            return value <= self.bound
        if self.rule == "at_least":
            return value - error >= self.bound
        if self.rule == "at_most_se":
            return value + error <= self.bound
        too_noisy = self.max_error is not None and error > self.max_error
        return abs(value - self.bound) <= max(self.tolerance, error) and not too_noisy

    def requirement(self):
        """Return the condition in words and numbers, as shown to the reader.

        >>> Criterion("x", "equals", 0.5, why="closed form", tolerance=0.01).requirement()
        'within 0.01 (or 3 s.e.) of 0.5'
        """
        bound, margin = _short(self.bound), f"{self.z:g} s.e."
        if self.rule == "at_most":
            return f"at most {bound}"
        if self.rule == "at_least":
            return f"at least {bound} after subtracting {margin}"
        if self.rule == "at_most_se":
            return f"at most {bound} after adding {margin}"
        noise = (
            "" if self.max_error is None else f", with {margin} at most {_short(self.max_error)}"
        )
        return f"within {_short(self.tolerance)} (or {margin}) of {bound}{noise}"


def _short(number):
    """Print a bound as one would write it: 1e-8 rather than 1e-08."""
    return re.sub(r"e([+-])0+", r"e\1", f"{number:g}")


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
    plan: str | None = None
    published: str | None = None
    published_note: str | None = None

    @property
    def names(self):
        """The names of everything that a chapter must measure for this claim."""
        return [criterion.name for criterion in (*self.criteria, *self.caveats)]

    def question(self):
        """Return what a record of this claim answers; a record of another question is stale."""
        return {
            "chapter": self.chapter,
            "statement": self.statement,
            "criteria": [dataclasses.asdict(criterion) for criterion in self.criteria],
            "caveats": [dataclasses.asdict(caveat) for caveat in self.caveats],
        }


@dataclasses.dataclass(frozen=True)
class Record:
    """What a chapter measured for one claim; the verdict follows from it.

    Args:
      claim: the `Claim`.
      estimates: mapping from every criterion and caveat name of the claim to an `Estimate`.

    Raises:
      ClaimsError: if a name is missing or unknown, or a value is not an `Estimate`.

    Example:

    >>> criterion = Criterion("residual", "at_most", 1e-8, why="float64")
    >>> claim = Claim("C99", "2 + 2 = 4", ("somebody",), "identity", "sums", (criterion,))
    >>> Record(claim, {"residual": Estimate(0.0)}).verdict
    'reproduced'
    """

    claim: Claim
    estimates: dict[str, Estimate]

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

    @property
    def verdict(self):
        """One of the first three of `VERDICTS`, computed from estimates and criteria alone."""
        if not all(self.holds(criterion) for criterion in self.claim.criteria):
            return DIFFERENT
        return QUALIFIED if self.standing_caveats else REPRODUCED

    @property
    def standing_caveats(self):
        """The caveats whose criterion holds."""
        return [caveat for caveat in self.claim.caveats if self.holds(caveat)]

    def holds(self, criterion):
        """Return whether the measured estimate meets `criterion` (one of the claim's own)."""
        return criterion.holds(self.estimates[criterion.name])

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
    fields = {key: value for key, value in entry.items() if key not in ("criteria", "caveats")}
    fields["source"] = tuple(entry["source"])
    claim = Claim(
        **fields,
        criteria=_parse_criteria(entry.get("criteria", []), f"{where}, criterion", ()),
        caveats=_parse_criteria(entry.get("caveats", []), f"{where}, caveat", ("text",)),
    )
    repeated = [name for name, times in collections.Counter(claim.names).items() if times > 1]
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


def _parse_criteria(rows, where, extra_keys):
    if not isinstance(rows, list):
        raise ClaimsError(f"{where}: expected a list, found {type(rows).__name__}.")
    numbered = enumerate(rows, start=1)
    return tuple(_parse_criterion(row, f"{where} {number}", extra_keys) for number, row in numbered)


def _parse_criterion(row, where, extra_keys):
    rule = row.get("rule") if isinstance(row, dict) else None
    options = _RULE_OPTIONS.get(rule, ()) if isinstance(rule, str) else ()
    required = ["name", "rule", "bound", "why", *extra_keys]
    if rule == "equals":
        required.append("tolerance")
    known = [field.name for field in dataclasses.fields(Criterion)]
    _check_keys(row, where, required, known)
    _check_choice(rule, _RULE_OPTIONS, f"{where}: rule")
    _check_keys(row, f"{where}: rule {rule}", required, [*required, *options])
    for key in ("name", "why", *extra_keys):
        _check_text(row[key], f"{where}: {key}")
    _check_number(row["bound"], f"{where}: bound")
    for key in options:
        if key in row:
            _check_number(row[key], f"{where}: {key}", minimum=0.0)
    numbers = {key: float(row[key]) for key in ("bound", *options) if key in row}
    return Criterion(**{**row, **numbers})


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
        """Glue `str(value)`, which the text shows by {glue:text}`CHAPTER-NAME`.

        The output is that of `myst_nb.glue`, which hosted notebooks lack.
        """
        prefix = "application/papermill.record/"
        scrapbook = {"name": f"{self.chapter}-{name}", "mime_prefix": prefix}
        _display({f"{prefix}text/plain": repr(str(value))}, metadata={"scrapbook": scrapbook})

    def judge(
        self,
        name,
        difference,
        above="above zero by more than three standard errors",
        below="**below** zero by more than three standard errors",
        undecided="not told apart from zero by three standard errors",
    ):
        """Put a difference, and as `name`-words what `in_words` says of its sign."""
        self.put(name, difference)
        words = in_words(difference, above=above, below=below, undecided=undecided)
        self.put(f"{name}-words", words)

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


def _as_estimate(value):
    """A plain number is exact; whatever else is left to `Record`, which refuses what it must."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return Estimate.exact(value) if is_number else value


def in_words(difference, *, above, below, undecided, z=3.0):
    """Choose the words for a difference by its sign, if that is beyond `z` standard errors.

    >>> words = {"above": "higher", "below": "lower", "undecided": "not told apart"}
    >>> in_words(Estimate(1.0, 0.1), **words), in_words(Estimate(0.2, 0.1), **words)
    ('higher', 'not told apart')
    """
    low, high = difference.interval(z)
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
