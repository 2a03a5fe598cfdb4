"""Planted effects through the whole rule: crossed seeds and groups, interval, bound and margin."""

import numpy as np
import pytest
from scipy import stats

from tfp_gaps.book.ledger.claims import DIFFERENT, REPRODUCED, SMALL, Criterion
from tfp_gaps.estimate import Estimate

MARGIN = 1.0
GAIN = Criterion("gain", "at_least", 0.0, why="a sign", margin=MARGIN)
REPEATS = 4000
HALF_LEVEL = 0.005
ERROR = (HALF_LEVEL / REPEATS) ** 0.5  # of a share of that size


def outcomes(effect, *, seeds, groups, sd_seeds, sd_groups, sd_inside=1.0, rng):
    """Outcomes of repeated experiments: rows are seeds, columns four windows of each group."""
    labels = np.repeat(np.arange(groups), 4)
    found = []
    for _ in range(REPEATS):
        samples = (
            effect
            + rng.normal(0, sd_seeds, [seeds, 1])
            + rng.normal(0, sd_groups, groups)[labels]
            + rng.normal(0, sd_inside, len(labels))
        )
        found.append(GAIN.outcome(Estimate.from_crossed(samples, labels)))
    return np.array(found)


def share(found, *words):
    return np.mean(np.isin(found, words))


DESIGNS = [
    {"seeds": 3, "groups": 8, "sd_seeds": 0.5, "sd_groups": 0.5},
    {"seeds": 8, "groups": 20, "sd_seeds": 0.58, "sd_groups": 0.1},
    {"seeds": 8, "groups": 12, "sd_seeds": 0.2, "sd_groups": 1.0},
    {"seeds": 5, "groups": 100, "sd_seeds": 0.0, "sd_groups": 2.0},
]


@pytest.mark.parametrize("design", DESIGNS)
def test_without_an_effect_few_are_reproduced(design):
    found = outcomes(0.0, **design, rng=np.random.default_rng(0))
    # Half the level, and what chance adds to a share of so many repetitions.
    assert share(found, REPRODUCED, SMALL) <= HALF_LEVEL + 3 * ERROR


@pytest.mark.parametrize("design", DESIGNS)
def test_an_effect_that_matters_is_seldom_called_different(design):
    found = outcomes(MARGIN, **design, rng=np.random.default_rng(1))
    assert share(found, DIFFERENT) <= HALF_LEVEL + 3 * ERROR


def test_eight_seeds_find_an_effect_that_matters():
    """A standard deviation over seeds of .55 margins, with little besides, gives a power of .90.

    It is that of a noncentral t with seven degrees of freedom; .58, from adding two quantiles of
    the central one, would give .86.
    """
    design = {"seeds": 8, "groups": 200, "sd_seeds": 0.55, "sd_groups": 0.0, "sd_inside": 0.01}
    power = stats.nct.sf(stats.t.isf(HALF_LEVEL, 7), 7, MARGIN * 8**0.5 / design["sd_seeds"])
    assert power > 0.9
    found = outcomes(MARGIN, **design, rng=np.random.default_rng(2))
    # Of 4000 a share of .9 is known to .005.
    assert share(found, REPRODUCED, SMALL) == pytest.approx(power, abs=3 * 0.005)


def test_eight_seeds_find_it_beside_an_effect_of_the_groups():
    """Where groups differ, too, the variances add; so do they in the power, of two factors."""
    design = {"seeds": 8, "groups": 100, "sd_seeds": 0.45, "sd_groups": 1.5}
    variances = np.array([0.45**2 / 8, (1.5**2 + 1.0 / 4) / 100])  # with the noise inside groups
    degrees = variances.sum() ** 2 / (variances**2 / [7, 99]).sum()
    power = stats.nct.sf(stats.t.isf(HALF_LEVEL, degrees), degrees, MARGIN / variances.sum() ** 0.5)
    assert power > 0.9
    found = outcomes(MARGIN, **design, rng=np.random.default_rng(3))
    # The degrees of freedom are estimated from the same noise, which costs a little.
    assert share(found, REPRODUCED, SMALL) == pytest.approx(power, abs=0.02)
    assert share(found, REPRODUCED, SMALL) > 0.9
