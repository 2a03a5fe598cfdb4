"""The numbers of a case as vectors: flattened, stored, compared.

A vector of more than 8 numbers is stored as its first 5, its mean, its standard deviation and its
tilt, the mean product with weights that rise from -1 to 1, which a change of order moves. All have
nine significant digits.

On the same machine class (processor, its vector instructions, versions of TensorFlow, NumPy and
SciPy) a number may differ by 1e-6 of the scale of its vector, the largest absolute value in it: the
same operations in the same order give the same bits there, and what is left is room for sums that
a change of the code takes in another order. 1e-9 is the floor: gaps that are exactly zero come out
as the rounding of float64. On another class sums are rounded otherwise, training amplifies that,
and a resampling or an acceptance that goes the other way gives another draw: there a number that
has a standard error may differ by `ERRORS` combined ones, and any other by `LOOSE` of its scale;
of long vectors the mean is compared, whose error is that over the entries.
"""

import dataclasses
import json
import math
import platform
import re
from importlib.metadata import version
from pathlib import Path

import numpy as np

from tfp_gaps import results, storage
from tfp_gaps._tensorflow import HAS_GPU

FOLDER = Path(__file__).resolve().parent / "stored"
WHOLE, FIRST, DIGITS = 8, 5, 9
TIGHT, FLOOR, LOOSE, ERRORS = 1e-6, 1e-9, 2e-3, 5.0
PACKAGES = ("tensorflow", "tensorflow-probability", "numpy", "scipy")
FEATURES = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile")
SKIPPED = ("seconds", "training_seconds", "seeds", "size", "basis")
"""Keys that hold settings, or how long it took."""


def machine_class():
    """What decides how a sum is rounded, in one line."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    vendor = re.search(r"vendor_id\s*: (\S+)", text)
    flags = set(re.findall(r"\w+", (re.search(r"flags\s*:(.*)", text) or [""])[0]))
    parts = [platform.system(), platform.machine(), vendor[1] if vendor else platform.processor()]
    parts += [feature for feature in FEATURES if feature in flags]
    parts += [f"{package}-{version(package)}" for package in PACKAGES]
    return " ".join([*parts, "GPU" if HAS_GPU else "CPU"])


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


def compute(case):
    """Run a case: {path: what is stored of its vector}."""
    return {key: summarise(values) for key, values in flatten(case()).items()}


def read(name):
    """The stored content of a case: {"provenance", "numbers"}."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        raise FileNotFoundError(
            f"expected the stored numbers of {name} in {path}, but there are none. Write them: "
            f"python -m tests.golden write {name}"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def write(name, numbers, seed):
    """Store the numbers of a case and where they come from."""
    origin = {
        "command": f"python -m tests.golden write {name}",
        "commit": results.provenance(command="", data="", seeds=[], seconds=0)["commit"],
        "machine": machine_class(),
        "seed": seed,
    }
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(numbers[key])}" for key in sorted(numbers))
    text = f'{{"provenance": {json.dumps(origin, indent=1)},\n"numbers": {{\n{lines}\n}}}}\n'
    storage.write_atomically(FOLDER / f"{name}.json", text.encode())


def differences(name, content, found, machine=None):
    """Sentences that say where found numbers leave stored ones; empty if nowhere.

    Args:
      name: of the case.
      content: as from `read`.
      found: as from `compute`.
      machine: class of this machine; None to ask.
    """
    stored, said = content["numbers"], []
    same = content["provenance"]["machine"] == (machine or machine_class())
    for key in sorted(stored.keys() | found.keys()):
        if key not in found or key not in stored:
            said.append(f"{name}, {key}: {'stored' if key in stored else 'found'} only")
            continue
        spread = 0.0 if same else _error(key, stored, found)
        for part, (was, now, scale) in _pairs(stored[key], found[key], same).items():
            allowed = TIGHT * scale + FLOOR if same else max(ERRORS * spread, LOOSE * scale)
            if not _agree(was, now, allowed):
                said.append(
                    f"{name}, {key}, {part}: stored {was}, found {now}, may differ by {allowed:.2g}"
                )
    return said


def _pairs(was, now, same):
    """{part: (stored, found, scale)} of what is compared of a vector."""
    if was.keys() != now.keys() or was.get("size") != now.get("size"):
        return {"size": (_length(was), _length(now), 0.0)}
    if "all" in was:
        parts = {f"entry {i}": pair for i, pair in enumerate(zip(was["all"], now["all"]))}
        if len(was["all"]) != len(now["all"]):
            parts = {"size": (_length(was), _length(now))}
    else:
        parts = {
            part: (was[part], now[part]) for part in ("mean", "std", "tilt")[: 3 if same else 1]
        }
        if same:
            parts |= {f"entry {i}": pair for i, pair in enumerate(zip(was["first"], now["first"]))}
    return {part: (*pair, _scale(was)) for part, pair in parts.items()}


def _length(summary):
    return summary.get("size", len(summary.get("all", ())))


def _scale(summary):
    values = [*summary.get("all", ()), *summary.get("first", ())]
    values += [summary.get("mean", 0.0), summary.get("std", 0.0)]
    return max((abs(value) for value in values if not isinstance(value, str)), default=0.0)


def _error(key, stored, found):
    """Combined standard error of a vector's entries, or of its mean; zero if it has none."""
    beside = key.removesuffix("value") + "standard_error"
    if key.endswith("value") and beside in stored and beside in found:
        return math.hypot(_scale(stored[beside]), _scale(found[beside]))
    errors = [part.get("std", 0.0) / math.sqrt(_length(part)) for part in (stored[key], found[key])]
    return math.hypot(*errors)


def _agree(was, now, allowed):
    if isinstance(was, str) or isinstance(now, str):
        return was == now
    return abs(was - now) <= allowed
