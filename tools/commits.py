"""Say which stored results name a commit that a clone would not have.

    python tools/commits.py

A result names the commit whose code made it, so that it can be made again. A branch that is
rewritten afterwards leaves the name behind without the commit; a merge with `-s ours` brings such a
commit back into the history and changes no file. Exit status 1 if any is missing.
"""

import pathlib
import subprocess
import sys

from tfp_gaps.book import results, runs


def missing(root):
    """Yield (path of a result, its commit) where the commit is no ancestor of HEAD."""
    log = ["git", "-C", str(root), "rev-list", "HEAD"]
    known = set(subprocess.run(log, check=True, capture_output=True, text=True).stdout.split())
    for path in runs.stored_paths(root / "results"):
        commit = results.load(path)["provenance"]["commit"]
        if commit not in known:
            yield path, commit


def main():
    """Print what is missing from this checkout; 1 if anything is."""
    root = pathlib.Path(__file__).resolve().parents[1]
    found = [f"{path.relative_to(root)}: {commit}" for path, commit in missing(root)]
    print("\n".join(found) or "The history holds the commit of every stored result.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
