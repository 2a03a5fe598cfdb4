"""Coverage against its nominal level: dots and bars where the shares and their errors are."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import stats

from tfp_gaps.book import figures
from tfp_gaps.book.figures import calibration
from tfp_gaps.estimate import Estimate

SHARES = [Estimate(0.3, 0.02, 5, "seeds"), Estimate.exact(0.6)]


@pytest.fixture
def drawn():
    groups = {
        "hike": {"partial q": ("partial", SHARES), "filter": ("truth", SHARES[::-1])},
        "pendulum": {"full q": ("full", SHARES)},
    }
    yield calibration.nominal_dots(groups)
    plt.close("all")


def test_dots_are_at_the_shares_and_bars_are_95_percent_intervals(drawn):
    fig, _ = drawn
    half, ring, ninety, dot = fig.axes[0].lines[2:6]
    width = 2 * 100 * 0.02 * stats.t.ppf(0.975, 4)  # five seeds
    assert np.ptp(half.get_xdata()) == pytest.approx(width)
    assert ring.get_xdata() == pytest.approx([30.0]) and dot.get_xdata() == pytest.approx([60.0])
    assert np.ptp(ninety.get_xdata()) == 0
    assert ring.get_markerfacecolor() != dot.get_markerfacecolor()
    assert {line.get_color() for line in (half, ring, ninety, dot)} == {figures.COLOURS["partial"]}


def test_lines_are_at_the_nominal_levels_and_rows_have_their_names(drawn):
    fig, alt = drawn
    for axis in fig.axes:
        assert [line.get_xdata()[0] for line in axis.lines[:2]] == [50, 90]
    names = [label.get_text() for label in fig.axes[0].get_yticklabels()]
    heights = [line.get_ydata()[0] for line in fig.axes[0].lines[2::4]]
    assert names == ["partial q", "filter"] and heights[0] > heights[1]
    assert "hike: partial q 30 and 60 %; filter 60 and 30 %. pendulum: full q 30 and 60 %." in alt
