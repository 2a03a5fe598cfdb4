"""Pieces of clothing (Fashion-MNIST), binarised: the same format as the digits.

60,000 training and 10,000 test images of 28 x 28 grey values (Xiao, Rasul, Vollgraf 2017; MIT
licence). No Python or npm package that we know of carries them as they are. They are looked for in
the folder that TFP_GAPS_DATA names (fashion-mnist/train-images-idx3-ubyte and
fashion-mnist/t10k-images-idx3-ubyte, each perhaps with .gz, or `fashion_mnist.npz` with the arrays
`train` and `test`), in the cache, and where the Debian package `dataset-fashion-mnist` installs
them. Then they are fetched: that package is downloaded and unpacked, which needs no rights, where
there is apt; else, the files are downloaded from where Keras has its copies. Publishers compress
them differently, so that the checksums are those of the unpacked files.

The download from Keras' address was never tried against the real host: we had no network to it.
"""

import gzip
import shutil
import subprocess
import tempfile
import zlib
from pathlib import Path

from tfp_gaps.book.data import images, store

IMAGES = images.ImageSet(
    name="fashion",
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
)
PACKAGE = "dataset-fashion-mnist"
INSTALLED = Path("/usr/share/datasets/fashion-mnist")
URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets"
TIMEOUT = 300  # seconds for one command


class _NotFetchedError(RuntimeError):
    """One way to fetch the files did not succeed."""


def load(
    *,
    num_train=IMAGES.num_train,
    num_validation=0,
    num_test=IMAGES.num_test,
    binarisation="threshold",
    seed=0,
):
    """Load binarised pieces of clothing, rows as time; `images.flatten` makes vectors of them.

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
    return images.load(
        IMAGES,
        fetch,
        num_train=num_train,
        num_validation=num_validation,
        num_test=num_test,
        binarisation=binarisation,
        seed=seed,
    )


def pixels():
    """Grey values of all images: uint8 [60000, 28, 28] and [10000, 28, 28], checked."""
    return images.pixels(IMAGES, fetch())


def fetch():
    """Return the path of `fashion_mnist.npz`, or of the two raw files, fetched if needed.

    Raises:
      DataError: if they are missing and cannot be fetched; it lists all that was tried.
    """
    found = images.find(IMAGES, elsewhere=[INSTALLED])
    if found:
        return found
    tried = []
    for bring in (_from_debian, _from_url):
        try:
            return images.keep(IMAGES, bring())
        except (_NotFetchedError, store.DataError) as error:
            tried.append(str(error).rstrip("."))
    raise store.DataError(
        f"the data set fashion needs {' and '.join(IMAGES.raw_files)} (or these with .gz), but "
        f"they are neither in the folder that {store.FOLDER_VARIABLE} names "
        f"({store.given_folder() or 'not set'}; {IMAGES.npz} would do as well), nor in the cache "
        f"{store.cache_folder()}, nor, by their names alone, in {INSTALLED}; and they could not be "
        f"fetched: {'; '.join(tried)}. Install the Debian package {PACKAGE}, or put the files into "
        f"a folder and set {store.FOLDER_VARIABLE} to it, or connect to the network and run "
        f"`tfp-gaps data fetch fashion`."
    )


def _from_debian():
    """Unpacked raw files from the Debian package, {name: bytes}; nothing is installed."""
    missing = [name for name in ("apt-get", "dpkg-deb") if shutil.which(name) is None]
    if missing:
        raise _NotFetchedError(f"there is no command {' and no '.join(missing)} for {PACKAGE}")
    with tempfile.TemporaryDirectory() as folder:
        _call(["apt-get", "download", PACKAGE], folder)
        archives = list(Path(folder).glob("*.deb"))
        if len(archives) != 1:
            raise _NotFetchedError(f"apt-get download {PACKAGE} left {len(archives)} archives")
        _call(["dpkg-deb", "-x", archives[0].name, "unpacked"], folder)
        below = Path(folder, "unpacked", INSTALLED.relative_to("/"))
        paths = {name: below / f"{Path(name).name}.gz" for name in IMAGES.raw_files}
        try:
            return {name: _unpacked(path.read_bytes(), path) for name, path in paths.items()}
        except OSError as error:
            raise _NotFetchedError(f"the package {PACKAGE} has other contents: {error}") from error


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
        raise _NotFetchedError(f"{shown}: {error}") from error
    if done.returncode != 0:
        said = " ".join(done.stderr.split())[-200:] or "nothing"
        raise _NotFetchedError(f"{shown} ended with status {done.returncode} and said: {said}")


def _from_url():
    """Unpacked raw files from where Keras has its copies, {name: bytes}."""
    contents = {}
    for name, digest in IMAGES.raw_files.items():
        url = f"{URL}/{Path(name).name}.gz"
        raw = store.RawFile(IMAGES.name, (name,), f"sha256:{digest}", url)
        try:
            contents[name] = _unpacked(store.download(raw), url)
        except store.DataError as error:
            reason = " ".join(str(error.__cause__).split())[-200:]
            raise _NotFetchedError(f"{url} could not be fetched ({reason})") from error
    return contents


def _unpacked(content, origin):
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise _NotFetchedError(
            f"{origin} is no gzipped file ({type(error).__name__}: {error})"
        ) from error
