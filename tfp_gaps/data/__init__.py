"""Data sets: one loader each, one registry of checksums, time-major sequences out.

    data.load("digits", num_train=20_000)

looks for the raw files in the folder named by the environment variable TFP_GAPS_DATA, then in the
user's cache, then fetches them; whatever is found is compared with its checksum before it is used.
"""

from tfp_gaps import _checks
from tfp_gaps.data import digits
from tfp_gaps.data.sequences import Sequences, Splits
from tfp_gaps.data.store import DataError

LOADERS = {"digits": digits}

__all__ = ["LOADERS", "DataError", "Sequences", "Splits", "fetch", "load"]


def load(name, **options):
    """Load a data set as `Splits` of time-major `Sequences`.

    Args:
      name: "digits".
      **options: passed to the loader, see `tfp_gaps.data.digits.load`.

    Raises:
      ValueError: for an unknown name or impossible sizes.
      DataError: if the files are missing and cannot be fetched, or are corrupt.
    """
    return LOADERS[_checks.one_of(name, "data set", sorted(LOADERS))].load(**options)


def fetch(name):
    """Make sure that the raw files of a data set are at hand and whole; return their paths."""
    return LOADERS[_checks.one_of(name, "data set", sorted(LOADERS))].fetch()
