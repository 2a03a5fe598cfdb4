"""Images of 28 x 28 grey values in IDX files: what the loaders of digits and of clothes share.

An IDX file of images is a header of 16 bytes and then one byte per pixel, row by row. A set of
images is two such files, perhaps gzipped, or one npz file with the arrays `train` and `test`.
Images are made binary by one of two rules: "threshold" (a grey value of 128 or more), or
"bernoulli" (each pixel drawn once with its grey value as probability). As sequences they are read
row by row, x_t in {0, 1}^28, T = 28; `flatten` gives the same pixels as one vector per image.
"""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfp_gaps import _checks, storage
from tfp_gaps.book.data import store
from tfp_gaps.book.data.splits import Splits
from tfp_gaps.sequences import Sequences

SIDE = 28
HEADER = 16  # bytes before the pixels of an IDX file of images
BINARISATIONS = ("threshold", "bernoulli")


@dataclass(frozen=True)
class ImageSet:
    """A set of training and test images.

    name: for `tfp-gaps data fetch`.
    title: how its results call it.
    npz: name of a file with the arrays `train` and `test`, looked for in TFP_GAPS_DATA.
    raw_files: {path below a folder: SHA-256 of the unpacked file}, training images first; each may
      lie there as it is or with ".gz" behind its name.
    pixel_digests: {"train", "test": SHA-256 of the pixel bytes alone}.
    num_train, num_test: numbers of images.
    """

    name: str
    title: str
    npz: str
    raw_files: dict[str, str]
    pixel_digests: dict[str, str]
    num_train: int = 60_000
    num_test: int = 10_000


def load(kind, fetch, *, num_train, num_validation, num_test, binarisation, seed):
    """Load a set of images, binarised, rows as time.

    Args:
      kind: an `ImageSet`.
      fetch: function without arguments that returns the paths `pixels` takes.
      num_train: the first so many of the training images.
      num_validation: the last so many of them; they may not overlap with `num_train`.
      num_test: the first so many of the test images.
      binarisation: "threshold" or "bernoulli".
      seed: of the draw, for "bernoulli".

    Returns:
      `Splits` of uint8 observations [28, images, 28]; an empty validation split if none is asked.

    Raises:
      ValueError: for impossible sizes or an unknown binarisation.
      DataError: if the files are missing and cannot be fetched, or are corrupt.
    """
    _checks.one_of(binarisation, "binarisation", BINARISATIONS)
    _checks.integer(num_train, "num_train", minimum=1, maximum=kind.num_train)
    room = kind.num_train - num_train
    advice = f"Of {kind.num_train} training images {num_train} are used for training."
    _checks.integer(num_validation, "num_validation", minimum=0, maximum=room, advice=advice)
    _checks.integer(num_test, "num_test", minimum=1, maximum=kind.num_test)
    train, test = pixels(kind, fetch())
    parts = (train[:num_train], train[kind.num_train - num_validation :], test[:num_test])
    rng = np.random.default_rng(seed)
    source = (
        f"{kind.title} ({num_train} train, {num_validation} validation, {num_test} test), "
        f"{binarisation} binarisation, pixel SHA-256 {kind.pixel_digests['train'][:12]}"
    )
    return Splits(*(_rows(_binarise(part, binarisation, rng)) for part in parts), source)


def _binarise(images, binarisation, rng):
    if binarisation == "threshold":
        return (images >= 128).astype(np.uint8)
    return (rng.random(images.shape, np.float32) < images / np.float32(255)).astype(np.uint8)


def _rows(images):
    return Sequences(np.ascontiguousarray(images.transpose(1, 0, 2)))


def flatten(sequences):
    """Images as vectors, for models without time: the steps of each sequence one after another.

    Args:
      sequences: `Sequences` without controls and with nothing missing, [rows, images, columns].

    Returns:
      array [images, rows * columns] of the same type; pixel (r, c) is entry r * columns + c.

    >>> flatten(Sequences(np.arange(12, dtype=np.uint8).reshape(2, 3, 2)))
    array([[ 0,  1,  6,  7],
           [ 2,  3,  8,  9],
           [ 4,  5, 10, 11]], dtype=uint8)
    """
    found = [name for name in ("controls", "mask") if getattr(sequences, name) is not None]
    if found:
        raise ValueError(
            f"flatten expects images, that is sequences of which everything is observed and "
            f"nothing is controlled, but these have {' and '.join(found)}. Use them as sequences."
        )
    rows = sequences.observations
    return rows.transpose(1, 0, 2).reshape(rows.shape[1], rows.shape[0] * rows.shape[2])


# --- files ----------------------------------------------------------------------------------------


def find(kind, *, elsewhere=()):
    """Return the path of the npz file, or of the two raw files; None if they are nowhere.

    Args:
      kind: an `ImageSet`.
      elsewhere: folders to look in after the one that TFP_GAPS_DATA names and the cache; raw files
        lie in them by their names alone.
    """
    given = store.given_folder()
    if given is not None and (given / kind.npz).exists():
        return [given / kind.npz]
    for folder in filter(None, (given, store.cache_folder())):
        paths = _in_folder(folder, kind.raw_files)
        if paths:
            return paths
    for folder in elsewhere:
        paths = _in_folder(Path(folder), [Path(name).name for name in kind.raw_files])
        if paths:
            return paths
    return None


def _in_folder(folder, names):
    """Paths of all the files, each as it is or gzipped; None unless all are there."""
    paths = []
    for name in names:
        found = [p for p in (folder / name, folder / f"{name}.gz") if p.exists()]
        if not found:
            return None
        paths.append(found[0])
    return paths


def keep(kind, contents):
    """Write fetched raw files to the cache, after comparing them with their checksums.

    Args:
      kind: an `ImageSet`.
      contents: {name: bytes, unpacked}, for each of `kind.raw_files`.

    Returns:
      their paths.

    Raises:
      DataError: if one of them is not what it should be; nothing is written then.
    """
    for name, digest in kind.raw_files.items():
        if storage.sha256(contents[name]) != digest:
            raise store.DataError(
                f"{name} should have SHA-256 {digest[:16]}…, but the fetched file has "
                f"{storage.sha256(contents[name])[:16]}…. The source has changed: report it."
            )
    paths = [store.cache_folder() / name for name in kind.raw_files]
    for path, name in zip(paths, kind.raw_files, strict=True):
        storage.write_atomically(path, contents[name])
    return paths


def pixels(kind, paths):
    """Grey values of all images, checked.

    Args:
      kind: an `ImageSet`.
      paths: of the npz file, or of the two raw files, gzipped or not.

    Returns:
      uint8 [kind.num_train, 28, 28] and [kind.num_test, 28, 28].

    Raises:
      DataError: if a file cannot be read, or is not what it should be.
    """
    if len(paths) == 1:
        return _from_npz(kind, paths[0])
    counts = (kind.num_train, kind.num_test)
    return tuple(
        _parse(_read(kind, path, f"sha256:{digest}"), count)
        for path, digest, count in zip(paths, kind.raw_files.values(), counts, strict=True)
    )


def _read(kind, path, digest):
    """Bytes of a raw file; what its checksum covers is the file as unpacked."""
    if path.suffix != ".gz":
        return store.read_verified(path, digest, data_set=kind.name)
    try:
        content = gzip.decompress(path.read_bytes())
        if store.digest_like(digest, content) == digest:
            return content
        found = f"other bytes ({len(content)})"
    except (OSError, EOFError, zlib.error) as error:
        found = f"what cannot be unpacked ({type(error).__name__}: {error})"
    raise store.DataError(
        f"{path} should hold, gzipped, a file with SHA-256 {digest.split(':')[1][:16]}…, but holds "
        f"{found}: it is truncated, altered, or another file. Delete it and run "
        f"`tfp-gaps data fetch {kind.name}`, or put the right file in its place."
    )


def _parse(content, count):
    return np.frombuffer(content, np.uint8, offset=HEADER).reshape(count, SIDE, SIDE)


def _from_npz(kind, path):
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = [np.ascontiguousarray(file[name]) for name in kind.pixel_digests]
    except Exception as error:
        raise store.DataError(
            f"{path} should be an npz file with the arrays train and test, but could not be read "
            f"({type(error).__name__}: {error}). Replace it, or unset {store.FOLDER_VARIABLE}."
        ) from error
    for array, (name, digest) in zip(arrays, kind.pixel_digests.items(), strict=True):
        if storage.sha256(array.tobytes()) != digest:
            raise store.DataError(
                f"the array {name} of {path} should have SHA-256 {digest[:16]}…, but has "
                f"{storage.sha256(array.tobytes())[:16]}… and shape {array.shape}. Replace the "
                f"file, or unset {store.FOLDER_VARIABLE}."
            )
    return tuple(arrays)
