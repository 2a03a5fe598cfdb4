"""Runs: what is trained and evaluated in one go, and where its result and its checkpoints lie.

A run is an experiment at a scale, with one look-ahead and a few seeds, perhaps under a variant that
the experiment knows. An experiment without time has no look-ahead. The result is

    results/EXPERIMENT/SCALE[/VARIANT]/kK-seedsA-B-C.json
    results/EXPERIMENT/SCALE[/VARIANT]/seedsA-B-C.json       without time

and its checkpoints lie under the same names in results/.checkpoints. They are kept, so that a run
that was killed continues, and one that is finished can be evaluated again without training. A lock
that the system releases with its process keeps two processes from working on the same run.
"""

import contextlib
import fcntl
import importlib
import os
import re
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from tfp_gaps import _checks, storage
from tfp_gaps.book import experiments, results, scales
from tfp_gaps.posteriors.conditions import LookAhead

FURTHER = ("filters", "matching", "balanced", "generators")
"""Experiments beyond those of the post: on how to close the gaps, on other objectives, and with
more seeds. A run of one has no look-ahead, or several of its own."""

STATIC = (*experiments.STATIC, *FURTHER)
"""Experiments whose runs have no look-ahead of their own."""

NAMES = (*experiments.NAMES, *FURTHER)
"""All experiments that `tfp-gaps run` knows."""

DEFAULT = "default"
"""How a list of variants names the experiment without any."""

KEYS = ("experiment", "scale", "variants", "lookaheads", "seeds", "minutes")
OPTIONAL_KEYS = ("variants",)
SEQUENTIAL_KEYS = ("lookaheads",)
"""Keys that only experiments over time have, and need."""


class RunError(ValueError):
    """A run, or the list that declares runs, is not what it should be."""


class BusyError(RuntimeError):
    """Another process holds what only one may hold."""


@dataclass(frozen=True)
class Run:
    """What is trained and evaluated in one go.

    experiment: one of `runs.NAMES`.
    scale: "smoke", "book" or "paper".
    lookahead: k >= 0, or None for full conditioning; None for an experiment without time.
    seeds: one int per replica; a list is stored as a tuple.
    variant: an override that the experiment knows, or "" for none.

    >>> Run("digits", "paper", None, (0, 1, 2)).path("results").as_posix()
    'results/digits/paper/kfull-seeds0-1-2.json'
    >>> Run("digits", "paper", 1, [0], "latent4").command
    'tfp-gaps run digits --scale paper --lookahead 1 --seeds 0 --variant latent4'
    >>> Run("vae", "paper", None, (0,), "digits-flow").path("results").as_posix()
    'results/vae/paper/digits-flow/seed0.json'
    """

    experiment: str
    scale: str
    lookahead: int | None
    seeds: tuple[int, ...]
    variant: str = ""

    def __post_init__(self):
        _checks.one_of(self.experiment, "experiment", NAMES)
        scales.check(self.scale)
        if self.lookahead is not None:
            if self.is_static:
                raise RunError(
                    f"{self.experiment} has no time and so no look-ahead, but is given "
                    f"{self.lookahead!r}. Leave it out."
                )
            _checks.integer(self.lookahead, "lookahead", minimum=0)
        object.__setattr__(self, "seeds", _seeds(self.seeds))
        if self.variant == DEFAULT or not re.fullmatch(r"([a-z0-9][a-z0-9-]*)?", self.variant):
            raise RunError(
                f"variant should be a word of small letters, digits and hyphens other than "
                f"{DEFAULT!r}, but is {self.variant!r}. Leave it empty for the experiment as it is."
            )

    @property
    def is_static(self):
        """Whether the experiment is one without time, and so without look-ahead."""
        return self.experiment in STATIC

    def path(self, folder=None):
        """Where the result lies; `folder` is that of all results."""
        stem = self._below(results.FOLDER if folder is None else folder)
        return stem.with_name(f"{stem.name}.json")

    def checkpoints(self, folder=None):
        """Folder of the checkpoints; `folder` is that of all checkpoints."""
        return self._below(results.FOLDER / ".checkpoints" if folder is None else folder)

    @property
    def _label(self):
        return "full" if self.lookahead is None else str(self.lookahead)

    def _below(self, folder):
        plural = "seed" if len(self.seeds) == 1 else "seeds"
        stem = f"{plural}{'-'.join(str(seed) for seed in self.seeds)}"
        if not self.is_static:
            stem = f"k{self._label}-{stem}"
        return Path(folder, self.experiment, self.scale, self.variant, stem)

    @property
    def arguments(self):
        """What follows `tfp-gaps run` on the command line: a list of words."""
        words = [self.experiment, "--scale", self.scale]
        words += [] if self.is_static else ["--lookahead", self._label]
        words += ["--seeds", *(str(seed) for seed in self.seeds)]
        return words + (["--variant", self.variant] if self.variant else [])

    @property
    def command(self):
        """The command line that makes the result."""
        return " ".join(["tfp-gaps run", *self.arguments])


def _seeds(seeds):
    if isinstance(seeds, str) or not hasattr(seeds, "__iter__"):
        raise RunError(f"seeds should be a list of integers, but are {seeds!r}. Write [0, 1, 2].")
    found = tuple(_checks.integer(s, "each seed", minimum=0, maximum=2**31 - 1) for s in seeds)
    if not found or len(set(found)) != len(found):
        raise RunError(
            f"seeds must differ, and there must be one at least, but they are {list(found)}. Name "
            f"each once."
        )
    return found


def parse_lookahead(text):
    """Read a look-ahead as people write it: 0, 1, 2, ... or full.

    >>> parse_lookahead("4"), parse_lookahead("full")
    (4, None)
    """
    if text == "full":
        return None
    if re.fullmatch("[0-9]+", str(text)):
        return int(text)
    raise RunError(f"expected 0, 1, 2, ... or full, found {text!r}")


def stored_paths(folder=None):
    """Files of all stored results below a folder, in order; hidden folders are left out."""
    folder = Path(results.FOLDER if folder is None else folder)
    paths = (p for pattern in ("*/*/*.json", "*/*/*/*.json") for p in folder.glob(pattern))
    return sorted(
        p for p in paths if not any(part.startswith(".") for part in p.relative_to(folder).parts)
    )


# --- carrying out ---------------------------------------------------------------------------------


def perform(run, *, folder=None, checkpoints=None, force=False, wait=False):
    """Train, evaluate and store a run, unless its result is there already.

    Args:
      run: a `Run`.
      folder: of all results, by default `results.FOLDER`.
      checkpoints: folder of all checkpoints, by default .checkpoints beside the results.
      force: replace a stored result; training that its checkpoints show as finished is not
        repeated, only the evaluation.
      wait: if another process works on this run, wait for it and use its result.

    Returns:
      "written", or "already there"; a result in `results.FOLDER` is in its manifest then.

    Raises:
      RunError: for a variant that the experiment does not know.
      ResultError: if the stored result is incomplete or altered, and `force` is not given.
      BusyError: if another process works on this run, and `wait` is not given.
      OSError: if the folders cannot be written; nothing has been computed then.
    """
    folder = Path(results.FOLDER if folder is None else folder)
    path = run.path(folder)
    kept = run.checkpoints(folder / ".checkpoints" if checkpoints is None else checkpoints)
    if not force and path.exists():
        return _accept(path)
    storage.check_writable(path.parent)
    with exclusive(kept.with_name(f"{kept.name}.lock"), run.command, wait=wait):
        if not force and path.exists():
            return _accept(path)
        started, trained = time.monotonic(), trained_seconds(kept)
        result = _compute(run, kept)
        seconds = trained + time.monotonic() - started
        origin = results.provenance(
            command=run.command, data=result["data"], seeds=run.seeds, seconds=seconds
        )
        results.save(path, result, origin)
    return "written"


def _accept(path):
    try:
        results.adopt(path)
    except results.ResultError as error:
        raise results.ResultError(f"{error} To replace it, delete it or add --force.") from error
    return "already there"


def _compute(run, checkpoints):
    module = importlib.import_module(f"tfp_gaps.book.experiments.{run.experiment}")
    if run.variant and run.variant not in module.VARIANTS:
        known = ", ".join(filter(None, module.VARIANTS)) or "none"
        raise RunError(
            f"variant should be one that {run.experiment} knows ({known}), but is {run.variant!r}. "
            f"Choose one of them, or leave it out."
        )
    from tfp_gaps.training import progress_bar

    return module.run(
        scale=run.scale,
        **({} if run.is_static else {"conditions": LookAhead.of(run.lookahead)}),
        seeds=list(run.seeds),
        variant=run.variant,
        checkpoint_folder=checkpoints,
        progress=lambda phase, steps: progress_bar(f"{checkpoints.name} {phase}", steps),
    )


def trained_seconds(checkpoints):
    """Seconds of training that the checkpoints in a folder hold already."""
    total = 0.0
    for path in sorted(Path(checkpoints).glob("*.npz")):
        with contextlib.suppress(storage.CorruptFileError):
            total += storage.read_arrays(path)[1].get("seconds", 0.0)
    return total


@contextlib.contextmanager
def exclusive(path, purpose, *, wait=False):
    """Hold a lock file; the system releases it when the process ends, however it ends.

    Args:
      path: the lock file; it is made if needed and stays.
      purpose: what the lock is for, as a command.
      wait: wait until it is free.

    Yields:
      The open file.

    Raises:
      BusyError: if another process holds it and `wait` is not given.
      OSError: if it cannot be written.
    """
    with _told_of(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")  # noqa: SIM115 (closed by the next line)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            if not wait:
                raise BusyError(
                    f"expected to be alone with «{purpose}», but {owner} is at work on it. Wait "
                    f"until that one has ended, or stop it; its work is not lost."
                ) from None
            print(f"waiting for {owner}, at work on «{purpose}»", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        with _told_of(path):
            file.truncate(0)
            # Past the buffer, which would try again, and fail again, when the file is closed.
            os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield file


@contextlib.contextmanager
def _told_of(path):
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"expected to write the lock file {path}, but the system said: {error.strerror}. "
            f"Choose a folder that can be written (and has room), then run the same command again",
        ) from error


# --- the declared list ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Declared:
    """A run that is wanted, and roughly how many minutes it takes on two cores."""

    run: Run
    minutes: float


def read_declared(path):
    """Read a list of declared runs, such as workflow/paper.yml.

    Returns:
      list of `Declared`, in the order of the file.

    Raises:
      RunError: naming the entry and the key that is not as it should be.
    """
    path = Path(path)
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RunError(
            f"{path} should be a list of declared runs in YAML, but cannot be read: {error}. Name "
            f"another file, or correct it."
        ) from error
    if not isinstance(entries, list) or not entries:
        raise RunError(
            f"{path} should be a list of entries with the keys {', '.join(KEYS)}, but holds "
            f"{type(entries).__name__}. See workflow/README.md."
        )
    declared, seen = [], {}
    for number, entry in enumerate(entries, start=1):
        for one in _read_entry(entry, f"{path}, entry {number}"):
            if one.run in seen:
                raise RunError(
                    f"{path}, entry {number}: each run should be declared once, but "
                    f"«{one.run.command}» is in entry {seen[one.run]} too. Leave one out."
                )
            seen[one.run] = number
            declared.append(one)
    return declared


def _read_entry(entry, where):
    """Return the runs of one entry; `where` opens the message of an error."""
    if not isinstance(entry, dict):
        raise RunError(f"{where} should have the keys {', '.join(KEYS)}, but is {entry!r}.")
    is_static = entry.get("experiment") in STATIC
    known = [key for key in KEYS if not (is_static and key in SEQUENTIAL_KEYS)]
    missing = [key for key in known if key not in entry and key not in OPTIONAL_KEYS]
    unknown = [str(key) for key in entry if key not in known]
    for keys, verb in ((missing, "lacks"), (unknown, "should not have")):
        if keys:
            raise RunError(f"{where} {verb} {', '.join(keys)}. The keys are {', '.join(known)}.")
    lookaheads = ["full"] if is_static else _list(entry, "lookaheads", where, "[0, 1, full]")
    variants = _list({"variants": [DEFAULT], **entry}, "variants", where, "[default, latent4]")
    try:
        minutes = _checks.positive_float(entry["minutes"], "minutes")
        return [
            Declared(_run(entry, lookahead, variant), minutes)
            for variant in variants
            for lookahead in lookaheads
        ]
    except (ValueError, TypeError) as error:
        raise RunError(f"{where}: {error}") from error


def _run(entry, lookahead, variant):
    if not isinstance(variant, str):
        raise RunError(f"each variant should be a word, but one is {variant!r}. Put it in quotes.")
    return Run(
        entry["experiment"],
        entry["scale"],
        parse_lookahead(lookahead),
        entry["seeds"],
        "" if variant == DEFAULT else variant,
    )


def _list(entry, key, where, example):
    if not isinstance(entry[key], list) or not entry[key]:
        raise RunError(f"{where}: {key} should be a list such as {example}, but is {entry[key]!r}.")
    return entry[key]
