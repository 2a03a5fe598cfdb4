"""Figures of the four parts: what is drawn is what the report says."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from tfp_gaps import gaps
from tfp_gaps.book.figures import gaps as gap_figures


@pytest.fixture
def report():
    rng = np.random.default_rng(0)
    evidence = rng.normal(-100, 5, size=50)
    levels = [evidence - cost + rng.normal(0, 0.1, size=50) for cost in (0.5, 3.0, 4.0, 5.0)]
    return gaps.decompose(
        evidence=evidence,
        best_per_datum=levels[0],
        best_shared=levels[1],
        best_network=levels[2],
        elbo=levels[3],
    )


def test_bars_have_the_widths_of_the_parts_and_join(report):
    fig, _ = gap_figures.staircase(report)
    bars = fig.axes[0].patches
    widths = [bar.get_width() for bar in bars]
    np.testing.assert_allclose(widths, [part.value for part in report.parts.values()])
    # Each bar begins where the next one ends; the last ends at the ELBO.
    lefts = [bar.get_x() for bar in bars]
    np.testing.assert_allclose(lefts[:-1], np.add(lefts, widths)[1:])
    assert lefts[-1] == pytest.approx(report.elbo.value)
    plt.close(fig)


def test_alt_text_and_labels_carry_the_errors(report):
    fig, alt = gap_figures.staircase(report)
    texts = " ".join(text.get_text() for text in fig.axes[0].texts)
    for name, part in report.parts.items():
        assert f"{name} {part}" in alt
        assert f"{name} {part}" in texts
    plt.close(fig)


def test_exact_parts_are_shown_without_an_error():
    report = gaps.decompose(evidence=-1.0, best_per_datum=-1.25, elbo=-2.0)
    fig, alt = gap_figures.staircase(report)
    assert "approximation 0.25," in alt and "±" not in alt
    assert "conditioning not measured, capacity not measured, optimisation 0.75." in alt
    plt.close(fig)


def test_every_part_has_a_colour_of_its_own():
    assert tuple(gap_figures.COLOURS) == gaps.PARTS
    assert len(set(gap_figures.COLOURS.values())) == len(gaps.PARTS)
