"""What a figure plots: any change of the data shows, nothing else does."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from tfp_gaps.book.figures.plotted import plotted

X = np.linspace(0.0, 1.0, 5)
NOISE = np.random.default_rng(0).standard_normal((5, 5))


def draw(axes_of, factor=1.0, **style):
    """A drawn figure of data times a factor."""
    fig = Figure(**style)
    axes_of(fig, factor)
    fig.savefig("/dev/null", format="png")
    return plotted(fig)


def flat(method, *arguments, **options):
    """Draw by a method of axes; the data come last."""

    def axes_of(fig, factor):
        axes = fig.add_subplot()
        data = arguments[-1] * factor
        getattr(axes, method)(*arguments[:-1], data, **options)

    return axes_of


def in_space(fig, factor):
    axes = fig.add_subplot(projection="3d")
    axes.plot(X, X, factor * X**2)
    axes.scatter(X, X, factor * X**3)
    axes.quiver(0.5, 0.5, 0.5, 0.1, 0.1, 0.2 * factor)


def words(fig, factor):
    axes = fig.add_subplot(title="gap")
    axes.text(0, 0, f"{factor:.2f} nats")


KINDS = {
    "lines": flat("plot", X, X),
    "bars": flat("bar", X, X),
    "histograms": flat("hist", NOISE[0]),
    "error bars": flat("errorbar", X, X, 0.1 + X),
    "bands": flat("fill_between", X, X**2),
    "points": flat("scatter", X, X),
    "contours": flat("contourf", X, X, NOISE, levels=[-9.0, 0.0, 0.5, 9.0]),
    "meshes": flat("pcolormesh", NOISE),
    "images": flat("imshow", NOISE),
    "space": in_space,
    "words": words,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_of_the_data_shows_and_one_of_the_looks_does_not(kind):
    before = draw(KINDS[kind])
    assert before and before == draw(KINDS[kind], figsize=(3, 2), dpi=50)
    # Six digits: more is the rounding of another machine.
    assert before == draw(KINDS[kind], 1 + 1e-12)
    changed = draw(KINDS[kind], 1.01)
    assert changed.keys() == before.keys()
    assert changed != before


def test_one_changed_point_of_many_shows():
    values = np.zeros(1001)
    values[[0, -1]] = 1.0
    other = values.copy()
    other[500], other[501] = 0.5, -0.5
    values[500], values[501] = -0.5, 0.5
    first, second = (draw(flat("plot", np.arange(1001.0), y)) for y in (values, other))
    [before], [after] = first.values(), second.values()
    # First, last, extremes and mean are the same; the digest is not.
    assert before.rpartition(" | ")[0] == after.rpartition(" | ")[0] and before != after


def test_missing_values_and_empty_artists_need_no_numbers():
    [text] = draw(flat("plot", X, np.full(5, np.nan))).values()
    assert text.startswith("5 x 2 | 0 1 0 1 0.5 |  | ")
    assert draw(flat("plot", X[:0], X[:0]))["axes 1, line 1"].startswith("0 x 2 | ")


def test_artists_are_named_by_axes_and_label():
    fig = Figure()
    first, second = fig.subplots(1, 2)
    first.plot(X, label="full")
    second.plot(X)
    inset = second.inset_axes([0.5, 0.5, 0.4, 0.4])
    inset.plot(X)
    assert list(plotted(fig)) == [
        "axes 1, line 1 (full)",
        "axes 2, line 1",
        "axes 3, line 1",
    ]
