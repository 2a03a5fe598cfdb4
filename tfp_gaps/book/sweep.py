"""Sweeps: which declared runs are there, what the others will cost, and how they are started.

The declared runs are those of workflow/paper.yml. Their results are the targets of
workflow/Snakefile, and Snakemake computes the ones that are missing, on this machine or on others.
"""

import importlib.util
import os
import re
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from tfp_gaps.book import results, runs

FOLDER = results.ROOT / "workflow"
DECLARED = FOLDER / "paper.yml"
REGISTRIES = Path(__file__).resolve().parent / "data"
TEXT_SUFFIXES = (".py", ".json", ".yml", ".txt")


class SweepError(RuntimeError):
    """A sweep cannot start: a stored result is invalid, or the engine is missing."""


@dataclass(frozen=True)
class State:
    """What is known of a declared run without running it.

    status: "present", "missing" or "invalid".
    problem: why the stored result is invalid, else "".
    seconds: that computing it took, or is estimated to take on two cores.
    basis: where the seconds come from: "its result", "N stored runs" or "declared".
    is_begun: checkpoints of it exist, so that it will take less.
    """

    run: runs.Run
    path: Path
    status: str
    problem: str
    seconds: float
    basis: str
    is_begun: bool


def load(path):
    """Read a stored result, and check that it was made from the data that are registered now.

    Raises:
      ResultError: if it is missing, incomplete or altered, or made from other data.
    """
    content = results.load(path)
    data = str(content["provenance"]["data"])
    digests = re.findall(r"\b[0-9a-f]{12,64}\b", data)
    if not digests:
        raise results.ResultError(
            f"{path} should name the checksum of its data, but says only: {data}. Make it again: "
            f"{content['provenance']['command']}"
        )
    for digest in digests:
        if digest not in _registered():
            raise results.ResultError(
                f"{path} was made from data with the checksum {digest}, but no data set has that "
                f"checksum now. Make it again: {content['provenance']['command']}"
            )
    return content


def _registered():
    """The text of all files in which checksums of data are registered."""
    files = (path for path in sorted(REGISTRIES.rglob("*")) if path.suffix in TEXT_SUFFIXES)
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def examine(declared, folder=None):
    """Say of every declared run whether its result is there, and what it takes.

    Args:
      declared: list of `runs.Declared`.
      folder: of all results, by default `results.FOLDER`.

    Returns:
      list of `State`, in the same order. Seconds of a missing run are the median over stored runs
      of the same experiment and scale, whatever their look-ahead, seeds and variant; without any,
      as declared.
    """
    folder = Path(results.FOLDER if folder is None else folder)
    found, measured = {}, defaultdict(list)
    for run in (entry.run for entry in declared):
        if run.path(folder).exists():
            found[run] = _read(run, folder)
            if isinstance(found[run], float):
                measured[run.experiment, run.scale].append(found[run])
    return [_state(entry, folder, found.get(entry.run), measured) for entry in declared]


def _read(run, folder):
    """Return the seconds that a stored result took, or what is wrong with it as text."""
    try:
        origin = load(run.path(folder))["provenance"]
    except results.ResultError as error:
        return str(error)
    if origin["command"] != run.command:
        return (
            f"{run.path(folder)} should be the result of «{run.command}», but is that of "
            f"«{origin['command']}»: it lies under a wrong name. Move or delete it."
        )
    return float(origin["seconds"])


def _state(entry, folder, found, measured):
    path = entry.run.path(folder)
    if isinstance(found, float):
        return State(entry.run, path, "present", "", found, "its result", False)
    others = measured[entry.run.experiment, entry.run.scale]
    seconds, basis = 60 * entry.minutes, "declared"
    if others:
        plural = "run" if len(others) == 1 else "runs"
        seconds, basis = statistics.median(others), f"{len(others)} stored {plural}"
    status, problem = ("missing", "") if found is None else ("invalid", found)
    begun = any(entry.run.checkpoints(folder / ".checkpoints").glob("*.npz"))
    return State(entry.run, path, status, problem, seconds, basis, begun)


def duration(seconds):
    """A duration as people say it.

    >>> duration(40), duration(13 * 60), duration(2.6 * 3600)
    ('40 s', '13 min', '2 h 36 min')
    """
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def describe(state, root=None):
    """One line about a state; paths below `root` are shown from there."""
    shown = state.path if root is None else Path(os.path.relpath(state.path, root))
    if state.status == "present":
        return f"present  {shown}"
    if state.status == "invalid":
        return f"invalid  {shown}: {state.problem}"
    begun = ", begun" if state.is_begun else ""
    return f"missing  {shown}  {duration(state.seconds)} ({state.basis}{begun})"


def summarise(states):
    """Counts of states, and the seconds that are still needed, by where the estimate comes from.

    Returns:
      dict: "present", "missing", "invalid", "seconds", "seconds_declared" (the part of it for which
      there is no stored run to go by).
    """
    needed = [state for state in states if state.status != "present"]
    return {
        **{name: sum(s.status == name for s in states) for name in ("present", "missing")},
        "invalid": sum(s.status == "invalid" for s in states),
        "seconds": sum(s.seconds for s in needed),
        "seconds_declared": sum(s.seconds for s in needed if s.basis == "declared"),
    }


def describe_summary(summary):
    """The last line of a listing."""
    counts = f"{summary['present']} present, {summary['missing']} missing"
    counts += f", {summary['invalid']} invalid"
    if not summary["seconds"]:
        return f"{counts}."
    guessed = summary["seconds_declared"]
    parts = [(summary["seconds"] - guessed, "judged by stored runs"), (guessed, "as declared")]
    told = " and ".join(f"{duration(part)} {basis}" for part, basis in parts if part)
    return f"{counts}: about {duration(summary['seconds'])} on two cores ({told})."


def start(states, *, declared, folder=None, profile="local", arguments=()):
    """Become the Snakemake process that computes what is missing; return only if nothing is.

    The lock is inherited: it is released when Snakemake ends, even by a kill.

    Args:
      states: from `examine`.
      declared: path of the list of declared runs.
      folder: of all results, by default `results.FOLDER`.
      profile: a folder in workflow/profiles, or a path with a slash.
      arguments: further arguments for Snakemake.

    Raises:
      SweepError: if a stored result is invalid, or Snakemake, the Snakefile or the profile missing.
      BusyError: if another sweep works on the same folder.
    """
    invalid = [state for state in states if state.status == "invalid"]
    if invalid:
        listed = "\n".join(f"  {state.path}\n    {state.problem}" for state in invalid)
        raise SweepError(
            f"expected results that are whole or absent, but of these the sweep can use none. "
            f"Delete them, and the same command computes them again:\n{listed}"
        )
    if all(state.status == "present" for state in states):
        return
    folder = Path(results.FOLDER if folder is None else folder).resolve()
    command = _command(Path(declared).resolve(), folder, profile, arguments)
    with runs.exclusive(folder / ".checkpoints" / "sweep.lock", "tfp-gaps sweep") as lock:
        os.set_inheritable(lock.fileno(), True)
        sys.stdout.flush()
        os.execv(command[0], command)


def _command(declared, folder, profile, arguments):
    if importlib.util.find_spec("snakemake") is None:
        raise SweepError(
            "a sweep needs Snakemake, but this Python has none. Use `make paper`, which installs "
            'it, or install the extra: pip install -e ".[sweep]"'
        )
    snakefile = FOLDER / "Snakefile"
    if os.sep not in profile:
        profile = FOLDER / "profiles" / profile
    for path in (snakefile, Path(profile, "config.yaml")):
        if not path.is_file():
            raise SweepError(
                f"a sweep needs {path}, but there is no such file. Work in a checkout of the "
                f"project, with one of the profiles in workflow/profiles."
            )
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile)]
    command += ["--profile", str(profile), "--directory", str(folder.parent), *arguments]
    return [*command, "--config", f"declared={declared}", f"folder={folder.name}"]
