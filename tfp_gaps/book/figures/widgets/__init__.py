"""Figures that explain by being touched: each is one call in a cell with its input hidden.

`be_the_network` and `swap_log_and_expectation` show why a network that is not shown a bit settles
between the posteriors; `scrub_filter` shows what that does to a filter, and `learning_drift` what
learning makes of it. All return `IPython.display.HTML` that loads nothing and needs no kernel.
"""

from tfp_gaps.book.figures.widgets.bit import be_the_network, swap_log_and_expectation
from tfp_gaps.book.figures.widgets.chain import learning_drift, scrub_filter

__all__ = ["be_the_network", "learning_drift", "scrub_filter", "swap_log_and_expectation"]
