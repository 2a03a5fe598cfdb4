"""Stored results: JSON that says what was measured, and by which code, lock, data and device.

A result is written whole or not at all, carries a digest of its own content, and is never edited by
hand: the command it names makes it again. Those in results/ are listed in its manifest too, and are
read only if they are what it lists.
"""

import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path

from tfp_gaps import storage
from tfp_gaps.book import comparison, manifest, scales

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "results"
REQUIRED = ("command", "commit", "lock", "data", "device", "seconds", "seeds", "versions")
COMMIT_VARIABLE = "TFP_GAPS_COMMIT"


class ResultError(ValueError):
    """A stored result is missing, incomplete or altered."""


def provenance(*, command, data, seeds, seconds):
    """Describe how a result came about.

    Args:
      command: the command line that makes it again.
      data: one line with the files' checksum and the preprocessing.
      seeds: list of ints.
      seconds: wall time of the computation.

    Returns:
      dict with the keys `REQUIRED` and the date.
    """
    packages = ("tensorflow", "tensorflow-probability", "tf-keras", "numpy")
    return {
        "command": command,
        "commit": _commit(),
        "lock": _lock(),
        "data": data,
        "device": _device(),
        "machine": comparison.machine_class(),
        "seconds": round(seconds, 1),
        "seeds": list(seeds),
        "versions": {name: importlib.metadata.version(name) for name in packages}
        | {"python": platform.python_version()},
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    }


def _commit():
    """The commit, marked if the tracked files differ from it."""
    given = os.environ.get(COMMIT_VARIABLE)
    if given:
        return given
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        status = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no", "--", "tfp_gaps"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown (no git)"
    return head.stdout.strip() + (" with changes" if status.stdout.strip() else "")


def _lock():
    lock = ROOT / "requirements.lock"
    return hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else "unknown (no lock)"


def _device():
    from tfp_gaps._tensorflow import tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    return f"CPU, {os.cpu_count()} cores, {platform.machine()}"


def save(path, result, origin):
    """Write a result and its provenance atomically; list it in the manifest if it is in `FOLDER`.

    Args:
      path: target, .json.
      result: JSON-serialisable dict without NaN.
      origin: from `provenance`.
    """
    content = {**result, "provenance": origin}
    text = _text(content)
    document = json.dumps({**content, "digest": storage.sha256(text.encode())}, sort_keys=True)
    storage.write_atomically(path, (document + "\n").encode())
    if is_committed(path):
        manifest.record(FOLDER, path, origin)


def is_committed(path):
    """Whether a file lies in `FOLDER`, whose manifest lists what belongs there."""
    return Path(path).resolve().is_relative_to(FOLDER.resolve())


def load(path):
    """Read a stored result.

    Returns:
      dict, as given to `save`, with "provenance".

    Raises:
      ResultError: if the file is missing, is no result, lacks provenance, was altered, or lies in
        `FOLDER` and is not what the manifest lists.
    """
    if is_committed(path):
        _compare_with_manifest([path])
    return _read(Path(path))


def adopt(path):
    """Read a stored result as `load` does; one that the manifest does not list is entered first."""
    if is_committed(path) and not manifest.is_listed(FOLDER, path):
        manifest.record(FOLDER, path, _read(Path(path))["provenance"])
    return load(path)


def _compare_with_manifest(paths, expected=()):
    try:
        problems = manifest.problems(FOLDER, paths, expected)
    except manifest.ManifestError as error:
        raise ResultError(str(error)) from error
    if problems:
        raise ResultError(problems[0])


def _read(path):
    try:
        content = json.loads(path.read_text())
        digest = content.pop("digest")
        missing = [key for key in REQUIRED if key not in content["provenance"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultError(
            f"{path} should be a stored result, but could not be read ({type(error).__name__}: "
            f"{error}). Run `tfp-gaps list` for the commands that make results."
        ) from error
    if missing:
        raise ResultError(
            f"{path} should say how it was made, but its provenance lacks {', '.join(missing)}. "
            f"Make it again with the command it names."
        )
    if storage.sha256(_text(content).encode()) != digest:
        raise ResultError(
            f"{path} should have the digest {digest[:12]}, but its content gives another: it was "
            f"edited. Make it again: {content['provenance']['command']}"
        )
    return content


def stored(experiment, scale, variant="", *, names="*.json", options):
    """Read the committed results of an experiment, in the order of their names.

    Args:
      experiment: one of `runs.NAMES`.
      scale: "smoke", "book" or "paper".
      variant: as the experiment knows it.
      names: pattern of the files.
      options: what follows the scale and precedes the variant in a command that makes them.

    Returns:
      list of at least one dict, as from `load`.

    Raises:
      ResultError: if there are none, or one is incomplete, altered, missing, or not listed in the
        manifest.
    """
    folder = FOLDER / experiment / scales.check(scale) / variant
    paths = sorted(folder.glob(names))
    if not paths:
        command = f"tfp-gaps run {experiment} --scale {scale} {options}"
        raise ResultError(
            f"expected stored results {names} in {folder}, but found none. Make them: "
            + (f"{command} --variant {variant}" if variant else command)
        )
    _compare_with_manifest(paths, [(folder / names).relative_to(FOLDER).as_posix()])
    return [_read(path) for path in paths]


def training_options(folder, progress, phase, num_steps):
    """What `training.fit` is told in one phase of a run: its checkpoint, and whom it reports to.

    Args:
      folder: of the run's checkpoints, or None.
      progress: callable (phase, num_steps) -> progress callback of `training.fit`, or None.
      phase: name of the checkpoint and of the bar.
      num_steps: length of the bar.
    """
    return {
        "checkpoint": None if folder is None else Path(folder) / f"{phase}.npz",
        "progress": None if progress is None else progress(phase, num_steps),
    }


def _text(content):
    return json.dumps(content, sort_keys=True, allow_nan=False)
