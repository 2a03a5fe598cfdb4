"""Checks of stored results beyond their checksums, for `tfp-gaps verify`.

What a result says twice must agree: an estimate with the values per sequence beside it, and the
ELBO with its steps,

    L = sum_t ( E_q[ln p(x_t | z_t)] - KL_t ).

And small runs whose results are stored are repeated: a change of the code that moves what they
measure moves what the large runs would measure. A number that a large result says only once can be
checked by the command of that result alone.
"""

import math
import random
import tempfile
from pathlib import Path

import numpy as np

from tfp_gaps.book import comparison, manifest, results, runs, sweep
from tfp_gaps.estimate import Estimate

SCALE = "smoke"
"""Of the runs that are repeated."""

SMOOTH = ("vae", "encoders", "inductive_bias", "two_latents", "generators")
"""Experiments in which the last bit decides nothing: see `comparison`."""

ROUNDED = 5.001e-4
"""Half of the third decimal, to which values per sequence are rounded."""

EXACT = 1e-9
"""Relative rounding of a sum in double precision, with room."""


def everything():
    """Files in results/ and what its manifest lists, there or not; hidden files are left out."""
    folder = results.FOLDER
    found = {path for path in folder.rglob("*") if path.is_file() and path.name != manifest.NAME}
    hidden = {
        path for path in found if any(p.startswith(".") for p in path.relative_to(folder).parts)
    }
    return sorted(found - hidden | {folder / key for key in manifest.read(folder)})


def problems(path):
    """Say in sentences what is wrong with a stored result; an empty list if nothing is found."""
    try:
        content = sweep.load(path)
    except results.ResultError as error:
        return [str(error)]
    said, origin = inconsistencies(content), content["provenance"]
    try:
        run = run_of(content)
        if run.command != origin["command"]:
            said.append(f"its settings are those of «{run.command}»")
        if results.is_committed(path) and run.path() != Path(path).resolve():
            said.append(f"it should lie in {run.path()}")
    except (KeyError, TypeError, ValueError) as error:
        said.append(f"its settings are those of no run ({type(error).__name__}: {error})")
    return [
        f"{path} is not what a run leaves: {one}. Make it again: {origin['command']} --force"
        for one in said
    ]


def run_of(content):
    """The run that a stored result says it is of."""
    lookahead = content.get("lookahead")
    return runs.Run(
        content["experiment"], content["scale"], lookahead, content["seeds"], content["variant"]
    )


def inconsistencies(content):
    """Say where the numbers of a result contradict one another.

    Every estimate whose values per sequence are all stored is computed again from them, and every
    ELBO from its steps. The other numbers stand for themselves.

    >>> estimate = {"value": 2.5, "standard_error": 1.0, "num_samples": 2}
    >>> inconsistencies({"estimates": {"elbo": [estimate]}, "per_sequence": {"elbo": [[1.0, 3.0]]}})
    ['elbo, replica 0: the value is 2.5, but from what is stored beside it 2']
    """
    return [
        f"{name}, replica {replica}: the {part} is {was:.7g}, but from what is stored beside it "
        f"{now:.7g}"
        for name, replica, part, was, now, allowed in (*_means(content), *_sums(content))
        if not abs(was - now) <= allowed
    ]


def _means(content):
    for name, rows in content.get("per_sequence", {}).items():
        for replica, (values, was) in enumerate(zip(rows, content["estimates"][name], strict=True)):
            if len(values) == was["num_samples"]:  # else a part is stored, to pair runs by
                now = Estimate.from_samples(values)
                yield name, replica, "value", was["value"], now.value, ROUNDED
                allowed = ROUNDED / math.sqrt(len(values) - 1)
                errors = was["standard_error"], now.standard_error
                yield name, replica, "standard error", *errors, allowed


def _sums(content):
    if "per_step" in content:
        steps = content["per_step"]
        totals = np.sum(np.subtract(steps["log_likelihood"], steps["divergence"]), axis=1)
        rows = zip(content["estimates"]["elbo"], totals, strict=True)
        for replica, (was, now) in enumerate(rows):
            yield "elbo", replica, "value", was["value"], now, EXACT * max(abs(now), 1.0)


def recompute(paths, number, seed):
    """Repeat a random sample of the stored small runs, and compare.

    Args:
      paths: of stored results; those of scale `SCALE` are drawn from.
      number: how many at most.
      seed: of the sample.

    Yields:
      path, and a list of sentences that say where the numbers differ; see `comparison`.

    Raises:
      ResultError: if there is none to repeat.
    """
    contents = {path: results.load(path) for path in paths}
    known = [path for path, content in contents.items() if content["scale"] == SCALE]
    if not known:
        raise results.ResultError(
            f"expected stored results of scale {SCALE}, which can be repeated, but found none. "
            f"Make one: tfp-gaps run digits --scale {SCALE}"
        )
    for path in random.Random(seed).sample(known, min(number, len(known))):
        stored, run = contents[path], run_of(contents[path])
        with tempfile.TemporaryDirectory() as folder:
            runs.perform(run, folder=folder)
            found = results.load(run.path(folder))
        content = {"provenance": stored["provenance"], "numbers": _numbers(stored)}
        decides = run.experiment not in SMOOTH
        yield path, comparison.differences(path, content, _numbers(found), decides=decides)


def _numbers(content):
    return comparison.summaries({k: v for k, v in content.items() if k != "provenance"})
