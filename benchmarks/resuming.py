"""What an interrupted run of a benchmark has stored, for the next one to go on with."""

from pathlib import Path

from tfp_gaps.book import results

_SAME = ("command", "commit", "versions")


def stored(path, origin):
    """(result, seconds it took) that a run of the same code left at `path`; ({}, 0.0) without one.

    Args:
      path: of a file that `results.save` wrote, or where none is yet; None for no file.
      origin: `results.provenance` of the run that starts.
    """
    if path is None or not Path(path).is_file():
        return {}, 0.0
    found = results.load(path)
    if any(found["provenance"][key] != origin[key] for key in _SAME):
        return {}, 0.0
    return found, found["provenance"]["seconds"]
