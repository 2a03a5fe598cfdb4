"""The manifest of the stored results: of each file its SHA-256, its command and its commit.

A result carries a digest of its own content, which whoever edits it can compute anew. The manifest
lies beside the results in results/MANIFEST.json and is written by the command that stores one, so
that a result which was edited, added or removed in any other way shows.
"""

import json
from pathlib import Path, PurePath

from tfp_gaps import storage

NAME = "MANIFEST.json"
ADVICE = "Restore both from version control, or make it again:"


class ManifestError(ValueError):
    """The manifest cannot be read."""


def read(folder):
    """The manifest of a folder of results: {path below it: {"sha256", "command", "commit"}}.

    Raises:
      ManifestError: if there is none, or it is no such table.
    """
    path = Path(folder, NAME)
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        if not all(set(entry) == {"sha256", "command", "commit"} for entry in entries.values()):
            raise ValueError("an entry lacks its sha256, command or commit")
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ManifestError(
            f"{path} should list the stored results with their checksums, but could not be read "
            f"({type(error).__name__}: {error}). Restore it from version control."
        ) from error
    return entries


def record(folder, path, origin):
    """Enter a stored result into the manifest of its folder; other processes may do so meanwhile.

    Args:
      folder: of all results.
      path: of the result, below it.
      origin: provenance of the result.
    """
    import fcntl  # Windows, where results are only read, has none

    lock = Path(folder, ".checkpoints", "manifest.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the system releases it with the file
        entries = read(folder) if Path(folder, NAME).exists() else {}
        entries[_key(folder, path)] = {
            "sha256": storage.sha256(Path(path).read_bytes()),
            "command": origin["command"],
            "commit": origin["commit"],
        }
        lines = ",\n".join(f" {json.dumps(k)}: {json.dumps(entries[k])}" for k in sorted(entries))
        storage.write_atomically(Path(folder, NAME), f"{{\n{lines}\n}}\n".encode())


def problems(folder, paths, expected=()):
    """Say in sentences where files and manifest differ; an empty list if nowhere.

    Args:
      folder: of all results.
      paths: files that should be what the manifest lists.
      expected: patterns of paths below the folder; what the manifest lists of them should be there.

    Raises:
      ManifestError: if the manifest cannot be read.
    """
    entries, found = read(folder), {_key(folder, path) for path in paths}
    wanted = {key for key in entries for pattern in expected if PurePath(key).match(pattern)}
    return [
        said
        for key in sorted(found | wanted)
        if (said := _problem(Path(folder, key), entries.get(key)))
    ]


def is_listed(folder, path):
    """Whether the manifest of a folder lists a file, whatever its content."""
    return Path(folder, NAME).exists() and _key(folder, path) in read(folder)


def _problem(path, entry):
    if entry is None and path.exists():
        return (
            f"{path} is not listed in {NAME}: no command stored it here. Delete it, or let the "
            f"command that it names enter it."
        )
    if entry is None:
        return None  # who wanted to read it will say so
    if not path.exists():
        return f"{path} is listed in {NAME} but missing. {ADVICE} {entry['command']}"
    digest = storage.sha256(path.read_bytes())
    if digest != entry["sha256"]:
        return (
            f"{path} should have the checksum {entry['sha256'][:12]} that {NAME} lists, but has "
            f"{digest[:12]}: one of the two was edited. {ADVICE} {entry['command']} --force"
        )
    return None


def _key(folder, path):
    return Path(path).resolve().relative_to(Path(folder).resolve()).as_posix()
