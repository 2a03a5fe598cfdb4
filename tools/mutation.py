"""Break the code on purpose, and count how often a test notices: python tools/mutation.py.

A mutant is one small change of one module: an operator, a comparison, a number, a sign, a
transpose, a call that is left out. Each is tried in a clone of the last commit with the tests that
stand for its module. It is caught if they fail or take several times as long as they should.
Mutants are drawn at random
per group of modules, so that a score has a standard error; the same seed draws the same ones.
Survivors are listed in the result with their place. `tools/mutation.yml` says of each why it does
no harm, or none is said, and it is a gap in the tests.
"""

import argparse
import ast
import concurrent.futures
import contextlib
import json
import math
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULT = ROOT / "tools" / "mutation.json"
REASONS = ROOT / "tools" / "mutation.yml"

# Modules of each group, from the root.
GROUPS = {
    "exact": [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "tfp_gaps" / "exact").rglob("[a-z]*.py"))
    ],
    "bounds": ["tfp_gaps/bounds.py"],
    "gaps": ["tfp_gaps/gaps.py"],
    "claims": ["tfp_gaps/book/ledger/claims.py"],
    "training": ["tfp_gaps/training.py"],
    "sequential": ["tfp_gaps/book/experiments/sequential.py"],
    "benchmark": ["tfp_gaps/book/experiments/benchmark.py"],
    "forecasting": ["tfp_gaps/forecasting.py"],
    "filtering": ["tfp_gaps/filtering.py"],
}
# Where the tests of the modules of a folder are: FOLDER/module.py has TESTS[FOLDER]/test_module.py.
TESTS = {
    "tfp_gaps": "tests",
    "tfp_gaps/exact": "tests/exact",
    "tfp_gaps/exact/_numerics": "tests/exact/_numerics",
    "tfp_gaps/book/experiments": "tests/book/experiments",
    "tfp_gaps/book/ledger": "tests/book/ledger",
}
# Tests that stand for a module besides the file of its name, from the same folder: those of what is
# built on it; "../" names the folder above.
ELSEWHERE = {
    "tfp_gaps/bounds.py": ["bounds_static"],
    "tfp_gaps/exact/_numerics/algebra.py": ["../linear_gaussian", "../lqg"],
    "tfp_gaps/exact/_numerics/bfgs.py": ["../linear_gaussian", "../lqg_learning"],
    "tfp_gaps/exact/_numerics/quadrature.py": ["../bit", "../tails", "../noisy_mixture"],
    "tfp_gaps/exact/_numerics/riccati.py": ["../lqg", "../linear_gaussian"],
    "tfp_gaps/exact/chain.py": ["linear_gaussian", "lqg"],
    "tfp_gaps/exact/joint_gaussian.py": ["linear_gaussian", "conditions"],
    "tfp_gaps/exact/linear_gaussian_learning.py": ["linear_gaussian", "lqg_learning"],
    "tfp_gaps/exact/linear_gaussian_recursions.py": ["linear_gaussian", "lqg_learning"],
    "tfp_gaps/exact/lqg.py": ["lqg_learning"],
    "tfp_gaps/exact/lqg_belief.py": ["lqg_learning"],
}
BINARY = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.Div: "*",
    ast.Pow: "*",
    ast.FloorDiv: "*",
    ast.Mod: "*",
    ast.BitAnd: "|",
    ast.BitOr: "&",
}
COMPARE = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}


def mutants(source):
    """Return all mutants of a source as (line, before, after, new source), in order."""
    lines = source.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))

    def span(node):
        first = starts[node.lineno - 1] + node.col_offset
        return first, starts[node.end_lineno - 1] + node.end_col_offset

    found, data = set(), source.encode()
    for node in _code(ast.parse(source)):
        for (first, last), text in _changes(node, span, data):
            before = data[first:last].decode()
            if before != text:
                changed = (data[:first] + text.encode() + data[last:]).decode()
                found.add((first, node.lineno, before, text, changed))
    kept = []
    for _, line, before, after, changed in sorted(found):
        with contextlib.suppress(SyntaxError):
            ast.parse(changed)
            kept.append((line, before, after, changed))
    return kept


def _code(tree):
    """All nodes that do something: no annotations, no text of errors, no texts at all."""
    stack = [tree]
    while stack:
        node = stack.pop()
        yield node
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list") or isinstance(
                node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom
            ):
                continue
            children = value if isinstance(value, list) else [value]
            stack.extend(child for child in children if isinstance(child, ast.AST))


def _changes(node, span, data):
    """The spans to replace in a node, with what to put there."""
    if isinstance(node, ast.BinOp) and type(node.op) in BINARY:
        between = (span(node.left)[1], span(node.right)[0])
        yield _operator(data, between, BINARY[type(node.op)])
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARE:
        between = (span(node.left)[1], span(node.comparators[0])[0])
        yield _operator(data, between, COMPARE[type(node.ops[0])])
    elif isinstance(node, ast.BoolOp):
        between = (span(node.values[0])[1], span(node.values[1])[0])
        yield _operator(data, between, "or" if isinstance(node.op, ast.And) else "and")
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not | ast.Invert):
        first, last = span(node)
        yield (first, last), data[slice(*span(node.operand))].decode()
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield span(node), str(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield span(node), str(node.value + 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, float):
        yield span(node), repr(1.5 * node.value + (node.value == 0))
    elif isinstance(node, ast.Attribute) and node.attr == "T":
        yield span(node), data[slice(*span(node.value))].decode()
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield span(node), "pass"
    elif isinstance(node, ast.AugAssign) and type(node.op) in BINARY:
        between = (span(node.target)[1], span(node.value)[0])
        yield _operator(data, between, BINARY[type(node.op)] + "=")


def _operator(data, between, text):
    """Replace the operator between two operands, whatever brackets and spaces surround it."""
    first, last = between
    raw = data[first:last]
    core = raw.strip(b"() \n\t\\")
    place = first + raw.index(core)
    return (place, place + len(core)), text


class Clone:
    """A clone of the last commit, in which one mutant at a time is tried."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        subprocess.run(["git", "clone", "--quiet", ROOT, self.folder], check=True)
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(self.folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }

    def run(self, tests, limit):
        """Return "caught", "survived" or "timed out", and the seconds that it took."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        command += ["--hypothesis-seed=0", *tests]
        start = time.monotonic()
        with subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            try:
                outcome = "survived" if process.wait(limit) == 0 else "caught"
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                outcome = "timed out"
        return outcome, time.monotonic() - start

    def attempt(self, path, changed, tests, limit):
        """Try one mutant and put the module back."""
        target = self.folder / path
        original = target.read_text(encoding="utf-8")
        try:
            target.write_text(changed, encoding="utf-8")
            return self.run(tests, limit)
        finally:
            target.write_text(original, encoding="utf-8")


def tests_of(path):
    """What runs for a mutant of a module: the tests of its name, and its own examples."""
    folder, name = path.rsplit("/", 1)
    files = [f"{TESTS[folder]}/test_{name}"]
    for other in ELSEWHERE.get(path, []):
        above = TESTS[folder].rpartition("/")[0] if other.startswith("../") else TESTS[folder]
        files.append(f"{above}/test_{other.removeprefix('../')}.py")
    return [path, *(file for file in files if (ROOT / file).is_file())]


def draw(group, count, seed):
    """Draw mutants of a group without replacement; returns them and how many there are."""
    everything = [
        (path, *mutant)
        for path in GROUPS[group]
        for mutant in mutants((ROOT / path).read_text(encoding="utf-8"))
    ]
    chosen = random.Random(f"{group} {seed}").sample(everything, min(count, len(everything)))
    return chosen, len(everything)


def examine(group, count, seed, clones, jobs):
    """Try the drawn mutants of a group; returns what is stored of it."""
    chosen, total = draw(group, count, seed)
    limits = {}
    for path in sorted({mutant[0] for mutant in chosen}):
        outcome, seconds = clones[0].run(tests_of(path), None)
        if outcome != "survived":
            raise SystemExit(f"The tests of {path} should pass before anything is broken.")
        limits[path] = 4 * seconds + 20
    free = list(clones)

    def attempt(mutant):
        path, line, before, after, changed = mutant
        clone = free.pop()
        try:
            outcome, _ = clone.attempt(path, changed, tests_of(path), limits[path])
        finally:
            free.append(clone)
        print(f"{path}:{line}: {before} -> {after}: {outcome}", flush=True)
        return {"path": path, "line": line, "before": before, "after": after}, outcome

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        outcomes = list(pool.map(attempt, chosen))
    return {
        "mutants": total,
        "tried": len(outcomes),
        "timed_out": sum(outcome == "timed out" for _, outcome in outcomes),
        "survivors": [mutant for mutant, outcome in outcomes if outcome == "survived"],
    }


def reason_of(survivor, path=REASONS):
    """Why a survivor does no harm, or "" where nobody has said so."""
    reasons = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else []
    for entry in reasons or []:
        if all(entry[key] == survivor[key] for key in ("path", "before", "after")) and (
            entry.get("line", survivor["line"]) == survivor["line"]
        ):
            return entry["reason"]
    return ""


def score(found):
    """Share of caught mutants and its standard error, for a sample without replacement."""
    tried, total = found["tried"], found["mutants"]
    share = 1 - len(found["survivors"]) / tried
    rest = (total - tried) / max(total - 1, 1)
    return share, math.sqrt(max(share * (1 - share), 0) / tried * rest)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("groups", nargs="*", default=[], help=", ".join(GROUPS))
    parser.add_argument("--count", type=int, default=100, help="mutants of each group")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    unknown = set(arguments.groups) - set(GROUPS)
    if unknown or arguments.count < 1 or arguments.jobs < 1:
        parser.error(f"expected groups of {', '.join(GROUPS)} and positive counts")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="mutation-"))
    stored = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
    try:
        clones = [Clone(folder / str(job)) for job in range(arguments.jobs)]
        commit = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True
        ).stdout.strip()
        for group in arguments.groups or GROUPS:
            found = examine(group, arguments.count, arguments.seed, clones, arguments.jobs)
            stored[group] = {**found, "seed": arguments.seed, "commit": commit}
            temporary = RESULT.with_suffix(".tmp")
            temporary.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
            temporary.replace(RESULT)
            share, error = score(found)
            print(f"{group}: {100 * share:.1f} ± {100 * error:.1f} % of {found['tried']} caught")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
