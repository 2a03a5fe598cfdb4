"""Settings of the whole test suite."""

import os

import matplotlib
from hypothesis import settings

# No window, whatever the machine; kernels that tests start inherit it.
matplotlib.use("agg")
os.environ.setdefault("MPLBACKEND", "agg")

# The same examples on every run; no deadline, because a shared machine stalls now and then.
settings.register_profile("book", derandomize=True, deadline=None, max_examples=30)
settings.load_profile("book")
