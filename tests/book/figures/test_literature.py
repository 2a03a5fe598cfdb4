"""Pictures of conditions: the cells say what the masks say, and the chooser needs nothing."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pytest

from tfp_gaps.book import literature
from tfp_gaps.book.experiments.literature import Row
from tfp_gaps.book.figures import literature as literature_figures
from tfp_gaps.exact.linear_gaussian import LinearGaussian

WORLD = LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
ROWS = [
    Row(name, 0.25 * i, 0.0625, None, WORLD, 0.01 * i) for i, name in enumerate(literature.SCHEMES)
]


def test_nothing_is_hidden_from_a_smoother():
    found = literature_figures.cells(literature.scheme("all", 5))
    assert not np.any(found == literature_figures.HIDDEN)
    # z_{t-1} for all but the first, and x_{t:T}.
    assert np.sum(found == literature_figures.USED) == 4 + 15


def test_a_filter_lacks_the_future_and_a_mean_field_the_latents():
    filtering = literature_figures.cells(literature.scheme("present", 5))
    rows, columns = np.nonzero(filtering == literature_figures.HIDDEN)
    assert len(rows) == 10 and np.all(columns - 5 > rows)
    mean_field = literature_figures.cells(literature.scheme("all, no latents", 5))
    rows, columns = np.nonzero(mean_field == literature_figures.HIDDEN)
    np.testing.assert_array_equal(columns, rows - 1)


def test_figure_has_a_grid_for_each_scheme():
    fig = literature_figures.grids(4)
    for axes, name in zip(fig.axes, literature.SCHEMES, strict=True):
        found = literature_figures.cells(literature.scheme(name, 4))
        assert len(axes.patches) == np.sum(found != literature_figures.NEITHER)
    plt.close(fig)


def test_chooser_holds_every_model_and_loads_nothing():
    page = literature_figures.chooser({"a chain": ROWS}, "SRNN")
    assert page.count("<option") == page.count("<section") == len(literature.MODELS)
    assert len(re.findall(r"<option[^>]* selected>SRNN, 2016", page)) == 1
    assert not re.search(r"\bsrc=|@import|url\(", page)
    assert len(page.encode()) < 100_000
    dreamer = page[page.index("Dreamer (RSSM)</strong>") :]
    # The fifth scheme: 4 * .25 + .0625.
    assert dreamer.index("1.0625 nats") < dreamer.index("0.0400 nats") < dreamer.index("</section>")
    labelled = re.search(r'<label for="([^"]+)"', page)[1]
    assert f'<select id="{labelled}"' in page


def test_bad_input():
    with pytest.raises(ValueError, match="model"):
        literature_figures.chooser({"a chain": ROWS}, "GRU")
    with pytest.raises(ValueError, match="present"):
        literature_figures.chooser({"a chain": [r for r in ROWS if r.scheme != "present"]}, "SRNN")
