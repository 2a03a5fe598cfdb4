"""The numbers of a result as vectors: flattened, summarised, compared.

A vector of more than 8 numbers is summarised as its first 5, its mean, its standard deviation and
its tilt, the mean product with weights that rise from -1 to 1, which a change of order moves. All
have nine significant digits.

On the same machine class (processor, its vector instructions, versions of TensorFlow, NumPy and
SciPy) a number may differ by 1e-6 of the scale of its vector, the largest absolute value in it: the
same operations in the same order give the same bits there, with one thread or two, and what is left
is room for sums that a change of the code takes in another order. 1e-9 is the floor: gaps that are
exactly zero come out as the rounding of float64. A run that rounds to three decimals can flip the
last one by such a change; that is said too.

On another class sums are rounded otherwise, and training amplifies that: a number that has a
standard error may differ by `ERRORS` combined ones, any other by `LOOSE` of its scale. With other
vector widths and the compiler's fast arithmetic trained numbers moved by less than a hundredth of
that. Where a proposal is accepted, a particle resampled or an action chosen (`decides`), the last
bit can turn the decision, and what follows is another draw: there the mean of a vector may differ
by `ERRORS` combined standard errors over its entries, and a share of decisions by `DECIDED`. So may
a standard error, relative to itself: it is taken over the same sequences, of which a particle moves
a few by far less than they differ, while a wrong number of samples or of groups moves it more.
"""

import dataclasses
import math
import platform
import re
from importlib.metadata import version
from pathlib import Path

import numpy as np

WHOLE, FIRST, DIGITS = 8, 5, 9
TIGHT, FLOOR, LOOSE, ERRORS, DECIDED = 1e-6, 1e-9, 2e-3, 5.0, 0.1
PACKAGES = ("tensorflow", "tensorflow-probability", "numpy", "scipy")
FEATURES = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile")
SKIPPED = ("seconds", "training_seconds", "seeds", "size", "basis", "degrees_of_freedom")
"""Keys that hold settings, how long it took, or what follows from numbers beside them."""


def machine_class():
    """What decides how a sum is rounded, in one line."""
    from tfp_gaps._tensorflow import on_gpu  # seconds, which reading results does not need

    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    vendor = re.search(r"vendor_id\s*: (\S+)", text)
    flags = set(re.findall(r"\w+", (re.search(r"flags\s*:(.*)", text) or [""])[0]))
    parts = [platform.system(), platform.machine(), vendor[1] if vendor else platform.processor()]
    parts += [feature for feature in FEATURES if feature in flags]
    parts += [f"{package}-{version(package)}" for package in PACKAGES]
    return " ".join([*parts, "GPU" if on_gpu() else "CPU"])


def flatten(result, path=""):
    """The numbers of a nested result: {path: float64 [n]}.

    Entries of a list that are no numbers themselves are merged: a list of estimates is a vector of
    values and one of standard errors. Texts are left out; None is NaN.

    >>> flatten({"gap": [{"value": 1.0, "kind": "seeds"}, {"value": 2.0, "kind": "seeds"}]})
    {'gap/value': array([1., 2.])}
    """
    if hasattr(result, "_asdict"):
        result = result._asdict()
    elif dataclasses.is_dataclass(result):
        result = {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}
    if isinstance(result, dict):
        parts = [
            flatten(value, f"{path}/{key}" if path else str(key))
            for key, value in result.items()
            if key not in SKIPPED
        ]
    elif isinstance(result, list | tuple) and not _is_numeric(result):
        parts = [flatten(value, path) for value in result]
    elif isinstance(result, str):
        return {}
    else:
        return {path: np.ravel(np.asarray(result, np.float64))}
    merged = {}
    for part in parts:
        for key, values in part.items():
            merged[key] = np.concatenate([merged.get(key, []), values])
    return merged


def _is_numeric(value):
    """Whether a list holds numbers and lists of them alone; None counts as one."""
    if isinstance(value, list | tuple) and not hasattr(value, "_asdict"):
        return all(_is_numeric(each) for each in value)
    return value is None or isinstance(value, int | float | np.number | np.bool_)


def summarise(values):
    """What is stored of a vector."""
    values = np.asarray(values, np.float64)
    if len(values) <= WHOLE:
        return {"all": [_rounded(value) for value in values]}
    weights = np.linspace(-1, 1, len(values))
    found = {"mean": values.mean(), "std": values.std(), "tilt": np.mean(weights * values)}
    first = [_rounded(value) for value in values[:FIRST]]
    return {"size": len(values), "first": first} | {k: _rounded(v) for k, v in found.items()}


def _rounded(value):
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else str(value)


def summaries(result):
    """What is stored of every vector of a nested result: {path: summary}."""
    return {key: summarise(values) for key, values in flatten(result).items()}


def differences(name, content, found, machine=None, *, decides=False):
    """Sentences that say where found numbers leave stored ones; empty if nowhere.

    Args:
      name: of what is compared.
      content: {"provenance": {"machine", ...}, "numbers": as from `summaries`}.
      found: as from `summaries`.
      machine: class of this machine; None to ask.
      decides: whether the last bit can turn a decision of what is compared.
    """
    stored, said = content["numbers"], []
    there, here = content["provenance"].get("machine"), machine or machine_class()
    same = there == here
    # A GPU's shards of a batch, and what is compiled for it alone, draw other noise from a seed:
    # of numbers without a standard error nothing can be said but that they are there.
    redrawn = str(there).endswith("GPU") != here.endswith("GPU")
    for key in sorted(stored.keys() | found.keys()):
        if key not in found or key not in stored:
            said.append(f"{name}, {key}: {'stored' if key in stored else 'found'} only")
            continue
        drawn = decides and not same
        allowed = TIGHT * _scale(stored[key]) + FLOOR
        if not same:
            allowed = max(_loose(key, stored, found, drawn), LOOSE * _scale(stored[key]))
        pairs = _pairs(stored[key], found[key], drawn)
        if redrawn and not (key.endswith("value") and _beside(key) in stored):
            pairs = {"size": (_length(stored[key]), _length(found[key]))}
            allowed = 0
        for part, (was, now) in pairs.items():
            if not _agree(was, now, allowed):
                said.append(
                    f"{name}, {key}, {part}: stored {was}, found {now}, may differ by {allowed:.2g}"
                )
    return said


def _pairs(was, now, drawn):
    """{part: (stored, found)} of what is compared of a vector; the mean alone if it was `drawn`."""
    if _length(was) != _length(now):
        return {"size": (_length(was), _length(now))}
    if drawn:
        return {"mean": (_mean(was), _mean(now))}
    parts = {part: (was[part], now[part]) for part in ("mean", "std", "tilt") if part in was}
    entries = zip(_entries(was), _entries(now), strict=True)
    return parts | {f"entry {index}": pair for index, pair in enumerate(entries)}


def _entries(summary):
    return summary.get("all", summary.get("first"))


def _length(summary):
    return summary.get("size", len(_entries(summary)))


def _mean(summary):
    if "mean" in summary or not _entries(summary):
        return summary.get("mean", 0.0)
    return _rounded(np.mean(np.asarray(_entries(summary), np.float64)))


def _scale(summary):
    values = [*_entries(summary), summary.get("mean", 0.0), summary.get("std", 0.0)]
    return max(abs(value) for value in values if not isinstance(value, str))


def _loose(key, stored, found, drawn):
    """What the standard errors of a number allow: its own, or those of a mean over entries."""
    if key.endswith("acceptance"):
        return DECIDED
    beside, parts = _beside(key), (stored[key], found[key])
    if key.endswith("value") and beside in stored and beside in found:
        errors = [_scale(each[beside]) for each in (stored, found)]
    else:
        errors = [_spread(each) / math.sqrt(max(_length(each), 1)) for each in parts if drawn]
    own = DECIDED * _scale(stored[key]) if drawn and key.endswith("standard_error") else 0.0
    return max(ERRORS * math.hypot(*errors), own)


def _beside(key):
    """The standard error of a value."""
    return key.removesuffix("value") + "standard_error"


def _spread(summary):
    if "std" in summary or not _entries(summary):
        return summary.get("std", 0.0)
    return float(np.std(np.asarray(_entries(summary), np.float64)))


def _agree(was, now, allowed):
    if isinstance(was, str) or isinstance(now, str):
        return was == now
    return abs(was - now) <= allowed
