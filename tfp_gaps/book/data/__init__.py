"""Data sets: one loader each, checksums beside them, time-major sequences out.

    data.load("digits", num_train=20_000)
    data.images.flatten(data.load("fashion").test)    # [images, 784], for models without time
    data.load("traffic", source="metr-la")

What the package does not carry itself is looked for in the folder that the environment variable
TFP_GAPS_DATA names, then in the user's cache, then fetched; whatever is found is compared with its
checksum before it is used.
"""

import functools

from tfp_gaps import _checks
from tfp_gaps.book.data import amsterdam, images, nanobench, traffic, uav
from tfp_gaps.book.data.splits import Splits, Windows
from tfp_gaps.book.data.store import DataError
from tfp_gaps.sequences import Sequences, as_sequences

LOADERS = {
    **{name: functools.partial(images.load, name) for name in images.SETS},
    "traffic": traffic.load,
    "uav": uav.load,
    "nanobench": nanobench.load,
    "amsterdam": amsterdam.load,
}
FILES = {  # what can be fetched: the data sets, and sources that a loader names
    **{name: functools.partial(images.fetch, name) for name in images.SETS},
    "traffic": traffic.fetch,
    **{
        name: functools.partial(traffic.fetch, name) for name in traffic.SOURCES if name != "counts"
    },
    "uav": uav.fetch,
    **{name: functools.partial(uav.fetch, name) for name in (*uav.MADE, "blackbird")},
    "nanobench": nanobench.fetch,
    "amsterdam": amsterdam.fetch,
}

__all__ = [
    "FILES",
    "LOADERS",
    "DataError",
    "Sequences",
    "Splits",
    "Windows",
    "as_sequences",
    "fetch",
    "images",
    "load",
]


def load(name, **options):
    """Load a data set as `Splits` of time-major `Sequences`.

    Args:
      name: "digits", "fashion", "traffic", "amsterdam", "uav" or "nanobench".
      **options: passed to the loader, see `load` of `tfp_gaps.book.data.images`, `.traffic`,
        `.amsterdam`, `.uav`, `.nanobench`.

    Raises:
      ValueError: for an unknown name or impossible options.
      DataError: if the files are missing and cannot be fetched, or are corrupt.

    >>> load("uav").test.observations.shape
    (40, 40, 3)
    """
    return LOADERS[_checks.one_of(name, "data set", sorted(LOADERS))](**options)


def fetch(name):
    """Make sure that the raw files of a data set are at hand; return their paths.

    Args:
      name: one of `FILES`: a data set (its default source), or "metr-la", "seattle",
        "seattle-year", "closed-loop", "open-loop", "blackbird".
    """
    return FILES[_checks.one_of(name, "data set", sorted(FILES))]()
