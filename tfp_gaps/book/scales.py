"""The three sizes at which an experiment runs: one code path, only sizes and steps differ.

smoke: seconds, for tests. book: a chapter in two minutes on two CPU cores. paper: as large as the
papers' experiments, hours on a CPU, resumable.
"""

from tfp_gaps import _checks

SCALES = ("smoke", "book", "paper")


def check(scale):
    """Return `scale` if it is one of the three.

    >>> check("book")
    'book'
    """
    return _checks.one_of(scale, "scale", SCALES)
