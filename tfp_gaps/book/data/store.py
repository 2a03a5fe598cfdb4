"""Where raw files lie, and whether they are what they should be.

A file is looked for in the folder that TFP_GAPS_DATA names, then in the user's cache, then fetched
from its URL; its checksum is compared before anything is read from it. A fetched file reaches the
cache whole or not at all.

Some data sets come in many pieces, of which a table in this package holds the checksums. They are
fetched one by one, so that a fetch that was killed goes on where it stopped, and then reduced to a
few arrays, which are kept in the cache with a checksum of their own.
"""

import errno
import gzip
import hashlib
import io
import os
import sys
import tempfile
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

with warnings.catch_warnings():
    # Where tqdm is installed, pooch imports its bar for notebooks, which complains without
    # ipywidgets; no bar is drawn here.
    warnings.filterwarnings("ignore", message="IProgress not found")
    import pooch

from tfp_gaps import storage

FOLDER_VARIABLE = "TFP_GAPS_DATA"
TIMEOUT = 20  # seconds without an answer


class DataError(RuntimeError):
    """Data are missing, unreachable, or do not match their checksum."""


@dataclass(frozen=True)
class RawFile:
    """A file that others publish.

    data_set: its name for `tfp-gaps data fetch`.
    names: paths inside a folder, tried in this order; the first one is used in the cache.
    digest: "sha256:..." or, where the publisher states no other, "git:..." (a git blob's SHA-1).
    url: where it is fetched from.
    """

    data_set: str
    names: tuple[str, ...]
    digest: str
    url: str


def cache_folder():
    """The user's cache folder for fetched files."""
    return Path(pooch.os_cache("tfp_gaps"))


def given_folder():
    """The folder named by TFP_GAPS_DATA, or None.

    Raises:
      DataError: if the variable names something that is not a folder.
    """
    value = os.environ.get(FOLDER_VARIABLE)
    if not value:
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"{FOLDER_VARIABLE} should name a folder with data files, but {folder} is not one. "
            f"Correct the variable, or unset it to have the files fetched."
        )
    return folder


def fetch(raw):
    """Return the path of a raw file, verified; it is fetched if it is nowhere yet.

    Raises:
      DataError: if it is missing and cannot be fetched, or is not what it should be.
      OSError: if it cannot be written to the cache; nothing is left behind.
    """
    for folder in filter(None, (given_folder(), cache_folder())):
        for name in raw.names:
            if (folder / name).is_file():
                read_verified(folder / name, raw.digest, data_set=raw.data_set)
                return folder / name
    try:
        content = download(raw.url)
    except DataError as error:
        raise DataError(
            f"the data set {raw.data_set} needs {raw.names[0]}, which is neither in the folder "
            f"{FOLDER_VARIABLE} nor in the cache {cache_folder()}, and {error}. Check the network "
            f"and run `tfp-gaps data fetch {raw.data_set}` again, or set {FOLDER_VARIABLE} to a "
            f"folder that holds {raw.names[0]}."
        ) from error
    if digest_like(raw.digest, content) != raw.digest:
        raise DataError(
            f"{raw.url} should have {_short(raw.digest)}, but what came has "
            f"{_short(digest_like(raw.digest, content))} ({len(content)} bytes). It was cut short "
            f"or changed at the source: run `tfp-gaps data fetch {raw.data_set}` again, and report "
            f"it if it persists."
        )
    path = cache_folder() / raw.names[0]
    storage.write_atomically(path, content)
    return path


def read(raw):
    """Return the path and the verified bytes of a raw file, fetched if it is nowhere yet.

    Raises:
      DataError, OSError: as `fetch`.
    """
    path = fetch(raw)
    return path, read_verified(path, raw.digest, data_set=raw.data_set)


def read_table(path, *, data_set, url, folder):
    """The pieces of a data set, from a table with the columns path, bytes and sha256 in this order.

    Args:
      path: of the table, one line for each piece below a line of names, separated by tabs.
      data_set: its name for `tfp-gaps data fetch`.
      url: address of the folder that holds the pieces.
      folder: in which they lie in the cache, or a given folder.

    Returns:
      {path in the table: `RawFile`}, in order.
    """
    pieces = {}
    for line in Path(path).read_text(encoding="utf-8").splitlines()[1:]:
        name, _, digest = line.split("\t")[:3]
        pieces[name] = RawFile(data_set, (f"{folder}/{name}",), f"sha256:{digest}", f"{url}/{name}")
    return pieces


def fetch_pieces(pieces):
    """Fetch what is missing of a list of `RawFile`, showing on a terminal how far it is.

    Raises:
      DataError, OSError: as `fetch`; what has come stays, and the same call goes on from there.
    """
    for count, raw in enumerate(pieces, start=1):
        fetch(raw)
        if sys.stderr.isatty():
            end = "\n" if count == len(pieces) else ""
            print(f"\r{raw.data_set}: file {count} of {len(pieces)}", end=end, file=sys.stderr)


@dataclass(frozen=True)
class Reduced:
    """A few arrays that stand for a data set in many pieces.

    data_set: its name for `tfp-gaps data fetch`.
    name: path of an npz file inside a folder, or the cache.
    digests: {array: SHA-256 of its bytes} that a file in a given folder must have.
    """

    data_set: str
    name: str
    digests: dict[str, str]


def find_reduced(reduced):
    """Path of the reduced arrays in the given folder or in the cache, or None."""
    for folder in filter(None, (given_folder(), cache_folder())):
        if (folder / reduced.name).is_file():
            return folder / reduced.name
    return None


def fetch_reduced(reduced, pieces, make):
    """Return the path of reduced arrays, which are made if they are nowhere yet.

    Args:
      reduced: `Reduced`.
      pieces: list of `RawFile`, fetched first.
      make: called without arguments; returns the dict of arrays.

    Raises:
      DataError: if a piece is missing and cannot be fetched, or is not what it should be.
      OSError: if something cannot be written to the cache; no part of a file is left behind.
    """
    path = find_reduced(reduced)
    if path is None:
        fetch_pieces(pieces)
        path = cache_folder() / reduced.name
        storage.write_arrays(path, make(), description={"data_set": reduced.data_set})
    return path


def read_reduced(reduced, path):
    """Read reduced arrays, and compare a given file with the checksums of `reduced`.

    A file that was made here holds a checksum of its own. If it is intact but differs from those of
    `reduced`, in the last bit of some value, there is a warning.

    Raises:
      DataError: if the file cannot be read or was altered.
    """
    advice = f"Delete it and run `tfp-gaps data fetch {reduced.data_set}`."
    try:
        with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        made_here = "__digest__" in arrays
        if made_here:
            arrays = storage.read_arrays(path)[0]
        found = {name: storage.sha256(arrays[name].tobytes()) for name in reduced.digests}
    except Exception as error:
        raise DataError(
            f"{path} should be an npz file with the arrays of {reduced.data_set}, but could not be "
            f"read ({type(error).__name__}: {error}). {advice}"
        ) from error
    for name, digest in reduced.digests.items():
        if found[name] != digest and made_here:
            warn_of_rounding(reduced.data_set)
        elif found[name] != digest:
            raise DataError(
                f"the array {name} of {path} should have SHA-256 {digest[:16]}…, but has "
                f"{found[name][:16]}…: it was altered, or is another one. {advice}"
            )
    return arrays


def warn_of_rounding(data_set):
    """Warn that arrays that were made here are not bit for bit those of the stored results."""
    warnings.warn(
        f"the data set {data_set} should be the same wherever it is made, but this machine "
        f"rounded some values differently. Results that are computed from it name another "
        f"checksum than the stored ones, and `tfp-gaps verify` refuses them.",
        stacklevel=3,
    )


def read_verified(path, digest, *, data_set):
    """Return the bytes of a file after comparing them with their checksum.

    Args:
      path: of the file; one that ends in .gz is unpacked first.
      digest: "sha256:..." or "git:...".
      data_set: its name for `tfp-gaps data fetch`, for the message.

    Raises:
      DataError: if they differ, or the file cannot be read.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(
            f"expected to read {path} of the data set {data_set}, but the system said: "
            f"{error.strerror}. Make it readable, or delete it and run "
            f"`tfp-gaps data fetch {data_set}`."
        ) from error
    wanted = f"have {_short(digest)}"
    try:
        if Path(path).suffix == ".gz":
            wanted = f"hold, gzipped, a file with {_short(digest)}"
            content = unpack(content, path)
        if digest_like(digest, content) == digest:
            return content
        found = f"what it has is {_short(digest_like(digest, content))} ({len(content)} bytes)"
    except DataError as error:
        found = str(error)
    raise DataError(
        f"{path} should {wanted}, but {found}: it is truncated, altered, or another file. Delete "
        f"it and run `tfp-gaps data fetch {data_set}`, or put the right file in its place."
    )


def unpack(content, origin):
    """Unpack the gzipped bytes that came from `origin`.

    Raises:
      DataError: if they are not gzipped.
    """
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{origin} is no gzipped file ({type(error).__name__}: {error})") from error


def digest_like(pattern, content):
    """Checksum of bytes, of the kind of the checksum `pattern`.

    >>> digest_like("sha256:", b"")[:19], digest_like("git:", b"")[:16]
    ('sha256:e3b0c44298fc', 'git:e69de29bb2d1')
    """
    kind = pattern.split(":")[0]
    if kind == "git":
        header = f"blob {len(content)}\0".encode()
        return "git:" + hashlib.sha1(header + content).hexdigest()
    return "sha256:" + storage.sha256(content)


def _short(digest):
    kind, value = digest.split(":")
    return f"{ {'sha256': 'SHA-256', 'git': 'git SHA-1'}[kind] } {value[:16]}…"


def download(url):
    """Fetch the bytes at an address, unchecked; a partial download is thrown away.

    Raises:
      DataError: if it cannot be fetched.
    """
    downloader = pooch.HTTPDownloader(timeout=TIMEOUT, progressbar=False)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "download"
        try:
            downloader(url, str(target), None)
            return target.read_bytes()
        # Whatever a library under the downloader raises means that there is no file.
        except Exception as error:
            if getattr(error, "errno", None) == errno.ENOSPC:
                raise
            raise DataError(f"could not be fetched from {url} ({_reason(error)})") from error


def _reason(error):
    """Why a download failed: the end of the message, since libraries wrap the cause in theirs."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {'…' if len(text) > 160 else ''}{text[-160:]}"


def digest_of_arrays(arrays):
    """SHA-256 over names, types, shapes and bytes of a dict of arrays.

    Archives written by different programs differ in their headers; this checksum does not.
    """
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype.str} {array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def compress(arrays):
    """The bytes of a compressed npz file of a dict of arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def read_own(path, digest):
    """Read a npz file that is part of this package.

    Args:
      path: of the file.
      digest: of its arrays, see `digest_of_arrays`.

    Returns:
      dict of arrays.

    Raises:
      DataError: if it is missing, cannot be read, or was altered.
    """
    advice = "It is part of this package: restore it with git, or install the package again."
    try:
        with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:
        raise DataError(
            f"expected arrays in {path}, but could not read them ({type(error).__name__}: "
            f"{error}). {advice}"
        ) from error
    if digest_of_arrays(arrays) != digest:
        raise DataError(
            f"the arrays of {path} should have SHA-256 {digest[:16]}…, but have "
            f"{digest_of_arrays(arrays)[:16]}…. {advice}"
        )
    return arrays
