"""Plugin of `make verdicts`: nbval executes the chapters, and all they show is compared here.

On a machine of the class that made the page (processor, GPUs and system, as stored in the metadata
`tfp_gaps.machine`) everything must be the same to the letter; of a figure, its words and what it
plots. On another machine, or with TFP_GAPS_COMPARE=numbers, words must be the same, and numbers
close:

- a ± s and b ± t, and the estimates of a claim: |a - b| <= Z sqrt(s^2 + t^2), and s and t within a
  factor of `ERRORS` of one another;
- other numbers: within `RELATIVE`, one unit of the last decimal shown, or `ABSOLUTE`, below which
  they are residues of rounding; integers from 100 on may differ by one;
- what a figure plots: within `SEEN` of the range of its column. The paths in the pictures of a
  slider are left to the exact comparison; its words and numbers are not.

A verdict that differs although its estimates agree is marginal: that is warned of, and fails
nothing. A cell with a line "# Timing: REASON" shows wall times: its words and verdicts are
compared, its numbers are not. A cell with a line "# Trained here: REASON" shows single results of
training, which the last bit of a sum decides: on another machine its words, verdicts, numbers
written with ± and estimates with errors are compared, and what a figure plots by kind alone; other
numbers are not. "# Trained here (C83): REASON" says so of the record of that claim only. The
markers of nbval exempt nothing.
"""

import collections
import copy
import functools
import math
import os
import pathlib
import re
import sys
import warnings

import pytest
from nbformat import NotebookNode
from nbval.plugin import IPyNbCell

# pytest imports its plugins before it puts folders on the path.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import execution
import finishing
import notebooks
import outputs

RELATIVE, ABSOLUTE = 1e-3, 1e-6
"""Sums of float32 in another order differ by 1e-7 of their terms: ten times that is the residue of
numbers of order one, and a thousandth leaves room for what training makes of it."""
Z = 4.0
"""Of a thousand numbers of independent runs, one lies beyond by chance in 1 of 16 comparisons."""
ERRORS = 2.0
"""Errors from a few seeds are rough; without a limit, a large one would excuse anything."""
SEEN = 0.05
"""Of a curve without errors, what the eye would see."""
MODES = ("exact", "numbers")
TIMING = re.compile(r"^# Timing: \S", re.MULTILINE)
TRAINED_HERE = re.compile(r"^# Trained here(?: \((?P<claim>C\d+)\))?: \S", re.MULTILINE)
_SUPERSCRIPTS = "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"
_TIMES_TEN = f" \N{MULTIPLICATION SIGN} 10(?=[{_SUPERSCRIPTS}])"  # As `Ledger.put` writes e-14.
_POWER = rf"(?:e[-+]?\d+|{_TIMES_TEN}[{_SUPERSCRIPTS}]+)?"
_NUMBER = r"[-+\N{MINUS SIGN}]?\d+(?:,\d{3})*(?:\.\d+)?" + _POWER
_MEASURED = re.compile(rf"(?<![\w.#])({_NUMBER})(?: ± ({_NUMBER}))?")
_SUMMARY = re.compile(r"\d+(?: x \d+)* \|")  # As `plotted` writes what is no text.
_TICK = re.compile(r"<text [^>]*>[-\N{MINUS SIGN}\d.,]+<\\*/text>")
_PATH = re.compile(r"\bd=(\\*)\".*?\"")

Difference = collections.namedtuple("Difference", "name stored found marginal", defaults=[False])


class MarginalWarning(UserWarning):
    """A verdict differs from the stored one although its estimates agree within their errors."""


# --- in pytest ------------------------------------------------------------------------------------


def pytest_collection_modifyitems(items):
    """Have nbval compare all outputs of all cells by `differences`."""
    for item in items:
        if isinstance(item, IPyNbCell):
            item.options.update(check=True, skip=False, check_exception=False)
            item.compare_outputs = functools.partial(_compare_cell, item)


def pytest_runtest_setup(item):
    """Refuse cells that were not executed: nbval would compare nothing."""
    unrun = isinstance(item, IPyNbCell) and item.cell.execution_count is None
    if unrun and item.cell.source.strip():
        name = item.path.stem
        pytest.fail(
            f"{name}: this cell was never executed, so there is nothing to compare:\n"
            f"{item.cell.source}\nExecute the chapter: make rerun CHAPTERS={name}",
            pytrace=False,
        )


def _compare_cell(item, found, stored):
    """Stand in for `IPyNbCell.compare_outputs`: whether what was found is what was stored."""
    name, notebook = item.path.stem, item.parent.nb
    [number] = [n for n, cell in enumerate(notebook.cells, start=1) if cell is item.cell]
    fresh = copy.deepcopy(NotebookNode(item.cell | {"outputs": found}))
    finishing.label_figure(name, fresh)
    flipped = vars(item.parent).setdefault("flipped", set())
    item.comparison_traceback = []
    for each in differences(item.cell, fresh, mode(notebook), flipped):
        where = f"{name}, cell {number}, {each.name}"
        line = f"{where}\n  stored: {each.stored}\n  found:  {each.found}"
        if each.marginal:
            warnings.warn(MarginalWarning(f"marginal: {line}"), stacklevel=1)
        else:
            item.comparison_traceback.append(line)
    return not item.comparison_traceback


def mode(notebook):
    """Return "exact" or "numbers", by TFP_GAPS_COMPARE or by the class of the machine.

    Raises:
        UsageError: if the variable holds something else.
    """
    wanted = os.environ.get("TFP_GAPS_COMPARE")
    if wanted is not None and wanted not in MODES:
        raise pytest.UsageError(
            f"TFP_GAPS_COMPARE must be {' or '.join(MODES)}, but is {wanted!r}. Without it, the "
            "class of the machine decides."
        )
    here, there = execution.machine(), notebook.metadata.get("tfp_gaps", {}).get("machine", {})
    same = all(here[key] == there.get(key) for key in ("processor", "gpus", "system"))
    return wanted or ("exact" if same else "numbers")


# --- what a cell shows ----------------------------------------------------------------------------


class Plotted(str):
    """What an artist plots, see `tfp_gaps.book.figures.plotted`."""


def shown(cell, mode="exact"):
    """Return what a cell shows, by name: glued values, claims, texts, what figures plot and say."""
    found, number = {}, 0
    for output in cell.outputs:
        if output.output_type == "stream":
            found[output.name] = found.get(output.name, "") + output.text
            continue
        number += 1
        name, data = outputs.label(output, number), output.get("data", {})
        for kind, value in data.items():
            if mode == "numbers" and notebooks.CLAIM_MIME in data and kind.startswith("text/"):
                continue  # The record says the same, with all digits.
            named = kind == notebooks.CLAIM_MIME or kind.startswith(outputs.GLUED)
            key = name if named and name not in found else f"output {number}, {kind}"
            found[key] = "a picture" if kind.startswith("image/") else value
        plotted = output.get("metadata", {}).get("tfp_gaps", {}).get("plotted", {})
        found |= {f"figure, {artist}": Plotted(text) for artist, text in plotted.items()}
    if mode == "numbers":
        found.pop("stderr", None)  # Where drivers of other machines speak.
    return found | {f"figure, {key}": text for key, text in outputs.words(cell).items()}


# --- how it is compared ---------------------------------------------------------------------------


def differences(stored, found, mode, flipped):
    """Return how a cell's outputs differ from the stored ones.

    Args:
      stored: the cell of the page.
      found: the same cell, executed again, its figure labelled.
      mode: "exact" or "numbers".
      flipped: the chapter's claims so far whose verdict differs marginally; is added to.

    Returns:
      list of `Difference`, in the order of the outputs.
    """
    old, new = shown(stored, mode), shown(found, mode)
    timing = TIMING.search(stored.source) is not None
    trained = TRAINED_HERE.search(stored.source) if mode == "numbers" else None
    result = []
    for key in [*old, *(key for key in new if key not in old)]:
        if key not in old or key not in new:
            sides = (_excerpt(side[key], 0) if key in side else "nothing" for side in (old, new))
            result.append(Difference(key, *sides))
        elif old[key] != new[key]:
            # What numbers are compared: all, those with an error, or none.
            single = trained and trained["claim"] in (None, key)
            which = "none" if timing else "estimates" if single else "all"
            result += _values(key, old[key], new[key], mode, which)
    flipped.update(each.name for each in result if each.marginal)
    return [_excused(each, old, new, flipped) if mode == "numbers" else each for each in result]


def _values(name, old, new, mode, which):
    """Yield the differences of two unequal values."""
    if isinstance(old, dict) and isinstance(new, dict):
        yield from _records(name, old, new, mode, which)
    elif mode == "exact" and which == "all":
        old, new = str(old), str(new)
        yield Difference(name, *_around_first_difference(old, new))
    elif isinstance(old, Plotted) and _SUMMARY.match(old) and _SUMMARY.match(new):
        if not _looks_alike(name, old, new, which):
            yield Difference(name, old, new)
    else:
        yield from _texts(name, str(old), str(new), which)


def _texts(name, old, new, which):
    """Words must be the same, and those numbers close that are compared."""
    old, new = (_PATH.sub("", re.sub(" +", " ", text)) for text in (old, new))
    if which == "estimates":
        # The axis of a slider's picture has the ticks that its range asks for.
        old, new = (_TICK.sub("", text) for text in (old, new))
    words = (_MEASURED.sub(lambda m: "0 ± 0" if m[2] else "0", text) for text in (old, new))
    if len(set(words)) > 1:
        yield Difference(name, *_around_first_difference(old, new))
    else:
        for left, right in zip(_MEASURED.finditer(old), _MEASURED.finditer(new), strict=True):
            compared = which == "all" or (which == "estimates" and left[2])
            if compared and left.group() != right.group() and not _agree(_read(left), _read(right)):
                yield Difference(name, _excerpt(old, left.start()), _excerpt(new, right.start()))
                return


def _records(name, old, new, mode, which):
    """Compare two claim records: what was asked, each estimate, the verdict."""
    own = ("estimates", "verdict")
    asked = [{key: value for key, value in side.items() if key not in own} for side in (old, new)]
    if asked[0] != asked[1] or old["estimates"].keys() != new["estimates"].keys():
        yield Difference(f"{name}, what was asked", *_around_first_difference(*map(str, asked)))
        return
    pairs = {key: (_estimate(old, key), _estimate(new, key)) for key in old["estimates"]}
    for key, (left, right) in pairs.items():
        either = left.kind != right.kind or max(left.error, right.error) > 0
        compared = which == "all" or (which == "estimates" and either)
        if compared and not (left == right if mode == "exact" else _agree(left, right)):
            yield Difference(
                f"{name}, {key}", *(f"{e.value!r} ± {e.error!r}" for e in (left, right))
            )
    if old["verdict"] != new["verdict"]:
        marginal = mode == "numbers" and all(_agree(*pair, floor=0.0) for pair in pairs.values())
        yield Difference(name, old["verdict"], new["verdict"], marginal)


def _excused(difference, old, new, flipped):
    """Call the words marginal that follow from a marginal verdict, or from the sign of a number."""
    name = difference.name
    before, after = (str(side.get(name)).splitlines() for side in (old, new))
    changed = [one for one, other in zip(before, after) if one != other]
    if name == "stdout" and len(before) == len(after):
        marginal = all(line.split(" ")[0] in flipped for line in changed)
    else:
        number = name.removesuffix("-words")
        sides = [str(side.get(number)) for side in (old, new)]
        marginal = number != name and number in old and not list(_texts("", *sides, "all"))
    return difference._replace(marginal=True) if marginal else difference


# --- numbers --------------------------------------------------------------------------------------

Number = collections.namedtuple("Number", "value error unit kind", defaults=["number"])


def _read(match):
    """Return the `Number` that a text shows."""
    plain = str.maketrans(_SUPERSCRIPTS + "\N{MINUS SIGN}", "-0123456789-", ",")
    texts = [re.sub(_TIMES_TEN, "e", text).translate(plain) for text in match.groups(default="0")]
    value, decimals = float(texts[0]), re.search(r"\.(\d+)", texts[0])
    power = int(texts[0].partition("e")[2] or 0)
    whole = 1.0 if abs(value) >= 100 else 0.0
    unit = 10.0 ** (power - len(decimals.group(1))) if decimals else whole
    return Number(value, float(texts[1]), unit)


def _estimate(record, name):
    """Return the `Number` of an estimate of a claim record."""
    estimate = record["estimates"][name]
    return Number(estimate["value"], estimate["standard_error"], 0.0, estimate["kind"])


def _agree(left, right, floor=ABSOLUTE):
    """Whether two numbers say the same, see the module's docstring."""
    errors = sorted((left.error, right.error))
    if left.kind != right.kind or (errors[0] > 0 and errors[1] > ERRORS * errors[0]):
        return False
    relative = RELATIVE * max(abs(left.value), abs(right.value))
    unit = 1.001 * max(left.unit, right.unit)  # The difference of two decimals is rounded, too.
    tolerance = max(Z * math.hypot(*errors), relative, unit, floor)
    return abs(left.value - right.value) <= tolerance


def _looks_alike(name, old, new, which):
    """Whether two summaries of an artist agree: shape and columns, as far as they are compared."""
    before, after = (text.split(" | ")[:-1] for text in (old, new))
    if which == "estimates" and " collection " in name:
        # A contour has as many corners as the training gave it, but some.
        before[0], after[0] = (re.sub(r"^[1-9]\d*", "n", side[0]) for side in (before, after))
    known = [[bool(column) for column in side] for side in (before, after)]
    if before[0] != after[0] or known[0] != known[1]:
        return False
    for left, right in zip(before[1:], after[1:]) if which == "all" else ():
        left, right = ([float(number) for number in text.split()] for text in (left, right))
        low, high = min([*left, *right], default=0.0), max([*left, *right], default=0.0)
        tolerance = max(SEEN * (high - low), RELATIVE * max(-low, high), ABSOLUTE)
        if len(left) != len(right) or any(abs(a - b) > tolerance for a, b in zip(left, right)):
            return False
    return True


# --- messages -------------------------------------------------------------------------------------


def _around_first_difference(old, new):
    """Return both texts from a little before the place where they part."""
    equal = (one == other for one, other in zip(old, new))
    common = old[: next((k for k, same in enumerate(equal) if not same), min(len(old), len(new)))]
    start = max(re.search(r"[^\s<>]*$", common).start(), len(common) - 60)
    return _excerpt(old, start), _excerpt(new, start)


def _excerpt(value, start):
    text = " ".join(str(value)[max(0, start - 30) : start + 90].split())
    return text or "nothing"
