"""Execute chapters under other circumstances, and say what of their outputs differs.

    python tools/variants.py elbo your-model                     under all variants
    python tools/variants.py --variants as-it-is --keep FOLDER   all chapters, on this machine

A variant is a set of environment variables: fewer threads, other kernels, the ways of a GPU. What a
cell prints, glues or records is compared with what the stored chapter holds, number by number; the
stored chapter stays as it is. `book/reproducibility.md` shows the table. Exit status 1 means that a
chapter did not run to its end, 2 that the command was used wrongly.

Compilers are out of reach: what XLA compiles uses all that the processor has, in each variant.
"""

import argparse
import copy
import json
import math
import pathlib
import re
import subprocess
import sys
from typing import NamedTuple

import execution
import notebooks
from checks import GLUED
from notebooks import CLAIM_MIME, ChapterError, Project

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULT = ROOT / "tools" / "variants.json"


def _threads(number):
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    return dict.fromkeys((*names, "OPENBLAS_NUM_THREADS"), str(number))


VARIANTS = {
    "one-thread": _threads(1),
    "two-threads": _threads(2),
    "no-onednn": {"TF_ENABLE_ONEDNN_OPTS": "0"},
    "avx2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
        "NPY_DISABLE_CPU_FEATURES": (
            "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL"
        ),
    },
    "act-as-gpu": {"TFP_GAPS_ACT_AS_GPU": "1"},
}
HERE = "as-it-is"

_NUMBER = r"[-−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?"
# How long something took is another number each time; "s.e." is no unit of time.
_DURATION = re.compile(rf"{_NUMBER}(?: ± {_NUMBER})? (?:s|ms|min|seconds|minutes)\b(?!\.e)")
_NUMBERS = re.compile(rf"(?P<value>{_NUMBER})(?: ± (?P<error>{_NUMBER}))?")


class Difference(NamedTuple):
    """One output that is not what it was.

    cell: its number, from 1.
    output: name of a glued value or identifier of a claim; else the kind of output.
    before, after: as printed; "" for an output that is missing.
    relative: largest difference of a number without standard error, relative to the larger of the
      two, and for a claim's estimate to its bound if that is larger still.
    errors: largest difference of a number with one, in their combined standard errors.
    words: whether anything beside the numbers differs.
    """

    cell: int
    output: str
    before: str
    after: str
    relative: float
    errors: float
    words: bool


class Output(NamedTuple):
    """What is compared of one output: a name, its text, and the record if it is a claim's."""

    name: str
    text: str
    record: dict | None


def outputs(notebook):
    """Return {(cell from 1, output from 0): `Output`} of all that is no picture."""
    return {
        (number, index): _output(output)
        for number, cell in enumerate(notebook.cells, start=1)
        if cell.cell_type == "code"
        for index, output in enumerate(cell.outputs)
    }


def _output(output):
    if output.output_type == "stream":
        return Output(output.name, output.text, None)
    data = output.get("data", {})
    if CLAIM_MIME in data:
        record = data[CLAIM_MIME]
        return Output(record["id"], data["text/plain"], record)
    for kind, text in data.items():
        if kind.startswith(GLUED):
            return Output(output.metadata["scrapbook"]["name"], text, None)
    kind = "text/markdown" if "text/markdown" in data else "text/plain"
    return Output(kind, data.get(kind, ""), None)


def differences(stored, found):
    """Return a `Difference` for each output of two notebooks that is not the same in both."""
    before, after = outputs(stored), outputs(found)
    missing = Output("", "", None)
    pairs = [
        (place, before.get(place, missing), after.get(place, missing))
        for place in sorted(before.keys() | after.keys())
    ]
    return [
        Difference(place[0], old.name or new.name, old.text, new.text, *_compared(old, new))
        for place, old, new in pairs
        if (old.name, _timeless(old.text)) != (new.name, _timeless(new.text))
    ]


def _timeless(text):
    return _DURATION.sub("(time)", text)


def _compared(old, new):
    """Return the largest relative difference, the largest in errors, and whether words differ."""
    if old.record and new.record:
        gaps, words = list(_of_records(old.record, new.record)), verdict(old) != verdict(new)
    else:
        gaps, words = _of_texts(_timeless(old.text), _timeless(new.text))
    relative = [gap for gap, has_error in gaps if not has_error]
    errors = [gap for gap, has_error in gaps if has_error]
    return max(relative, default=0.0), max(errors, default=0.0), words


def _of_texts(old, new):
    before, after = list(_NUMBERS.finditer(old)), list(_NUMBERS.finditer(new))
    if _shape(old) != _shape(new):
        return [], True
    return [_gap(*map(_read, pair)) for pair in zip(before, after, strict=True)], False


def _shape(text):
    return " ".join(_NUMBERS.sub("#", text).split())


def _read(match):
    def number(text):
        return float(text.replace(",", "").replace("−", "-"))

    return number(match["value"]), number(match["error"] or "0"), 0.0


def _of_records(old, new):
    bounds = {
        criterion["name"]: max(abs(criterion["bound"]), criterion["margin"] or 0.0)
        for criterion in [*old["criteria"], *old["caveats"]]
    }
    for name in old["estimates"].keys() & new["estimates"].keys():
        pair = [record["estimates"][name] for record in (old, new)]
        yield _gap(*((e["value"], e["standard_error"], bounds.get(name, 0.0)) for e in pair))


def _gap(old, new):
    """Compare two (value, standard error, floor of the scale): (difference, has an error)."""
    (a, a_error, floor), (b, b_error, _) = old, new
    error = math.hypot(a_error, b_error)
    scale = error or max(abs(a), abs(b), floor)
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0, bool(error)
    return abs(a - b) / scale, bool(error)


def verdict(output):
    """The verdict of a claim's output; None of any other."""
    return output.record and output.record["verdict"]


def flips(stored, found):
    """Return the claims with another verdict, or none in one of them: "C01: different -> ..."."""

    def verdicts(notebook):
        claimed = [output for output in outputs(notebook).values() if output.record]
        return {output.name: verdict(output) for output in claimed}

    before, after = verdicts(stored), verdicts(found)
    return [
        f"{name}: {before.get(name)} -> {after.get(name)}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def run(project, name, variant, keep=None):
    """Execute a chapter under a variant; returns its row of the table."""
    stored = notebooks.read(project.path(name))
    found = copy.deepcopy(stored)
    row = {"chapter": name, "variant": variant, "commit": _commit(project)}
    row["machine"] = execution.machine()
    try:
        cost = execution.execute(project, name, found, environment=VARIANTS.get(variant, {}))
    except ChapterError as error:
        return row | {"failure": str(error)}
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        notebooks.write(keep / f"{name}.{variant}.ipynb", found)
    return row | {"seconds": cost.seconds} | compare(stored, found)


def compare(stored, found):
    """Return what the table says of two notebooks."""
    different = differences(stored, found)
    return {
        "outputs": len(outputs(stored)),
        "different": len(different),
        "other_words": sum(each.words for each in different),
        "largest_relative": max((each.relative for each in different), default=0.0),
        "largest_in_errors": max((each.errors for each in different), default=0.0),
        "flips": flips(stored, found),
        "differences": [each._asdict() for each in different],
    }


def _commit(project):
    command = ["git", "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(
        command, cwd=project.root, capture_output=True, text=True, check=True
    ).stdout.strip()


def store(path, rows):
    """Write the rows, in place of those of the same chapter and variant."""
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    new = {(row["chapter"], row["variant"]): row for row in [*old, *rows]}
    ordered = [new[key] for key in sorted(new, key=_order)]
    notebooks.write_text(path, json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")


def _order(key):
    chapter, variant = key
    return chapter, [*VARIANTS, HERE].index(variant)


def table(rows):
    """Return head and cells of what the page shows of the rows."""
    head = [
        "chapter", "variant", "outputs", "printed otherwise", "in other words",
        "largest relative difference", "largest difference in standard errors", "verdicts changed",
    ]  # fmt: skip
    return head, [[row["chapter"], row["variant"], *_cells(row)] for row in rows]


def _cells(row):
    if "failure" in row:
        return [f"**failed**: {row['failure'].splitlines()[0]}", "", "", "", "", ""]
    return [
        row["outputs"],
        row["different"],
        row["other_words"],
        f"{row['largest_relative']:.1g}",
        f"{row['largest_in_errors']:.1f}",
        "; ".join(row["flips"]) or "none",
    ]


def main(arguments=None, root=ROOT):
    """Run the command and return the exit status."""
    project = Project(root)
    options = _parser().parse_args(arguments)
    known = project.chapters()
    if unknown := [name for name in options.names if name not in known]:
        print(f"Unknown chapter {', '.join(unknown)}. Known: {', '.join(known)}.", file=sys.stderr)
        return 2
    bad = False
    for name in options.names or known:
        for variant in options.variants:
            row = run(project, name, variant, options.keep)
            store(options.output, [row])
            bad |= "failure" in row
            print(f"{name}, {variant}: {', '.join(map(str, _cells(row)))}", flush=True)
    return int(bad)


def _parser():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="CHAPTER", help="page name; all without one")
    parser.add_argument(
        "--variants", nargs="+", choices=[*VARIANTS, HERE], default=list(VARIANTS), metavar="NAME",
        help=f"of {', '.join([*VARIANTS, HERE])}; all but the last by default",
    )  # fmt: skip
    parser.add_argument("--output", type=pathlib.Path, default=RESULT, help="table, JSON")
    parser.add_argument("--keep", type=pathlib.Path, help="folder for the executed chapters")
    return parser


if __name__ == "__main__":
    sys.exit(main())
