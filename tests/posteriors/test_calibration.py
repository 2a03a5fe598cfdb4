"""Simulation-based calibration: exact posteriors pass, wrong ones fail by what is known of them."""

import numpy as np
import pytest
from scipy import stats

from tfp_gaps._tensorflow import tfp
from tfp_gaps.models.joint import Model
from tfp_gaps.posteriors import calibration
from tfp_gaps.posteriors.calibration import Calibration, calibrate

tfd = tfp.distributions
SD = 0.5**0.5


@pytest.fixture(scope="module")
def model():
    joint = tfd.JointDistributionNamed(
        {
            "z": tfd.Sample(tfd.Normal(0.0, 1.0), 2),
            "x": lambda z: tfd.Independent(tfd.Normal(z, 1.0), 1),
        }
    )
    return Model(joint, "x", example=np.zeros(2, np.float32))


def q(scale=1.0, shift=0.0):
    return lambda x: tfd.Independent(tfd.Normal(x / 2 + shift, np.float32(SD * scale)), 1)


def test_the_exact_posterior_passes_and_covers(model):
    found = calibrate(model, q(), num_data=2000, seed=0)
    assert found.passes() and set(found.ranks) == {"z[0]", "z[1]"}
    for level in calibration.LEVELS:
        share = found.coverage("z[1]", level)
        assert abs(share.value - level) < 3 * share.standard_error
    assert found.ranks["z[0]"].min() >= 0 and found.ranks["z[0]"].max() <= 199


@pytest.mark.parametrize(("scale", "shift"), [(0.8, 0.0), (1.25, 0.0), (1.0, 0.2)])
def test_a_wrong_posterior_fails_and_covers_what_it_must(model, scale, shift):
    found = calibrate(model, q(scale, shift), num_data=2000, seed=1)
    assert not found.passes()
    for level in calibration.LEVELS:
        ends = stats.norm.isf((1 - level) / 2) * np.array([-1, 1]) * scale + shift / SD
        expected = np.diff(stats.norm.cdf(ends))[0]
        share = found.coverage("z[0]", level)
        assert abs(share.value - expected) < 4 * share.standard_error


def test_batches_rank_each_datum_with_its_own_draws(model, monkeypatch):
    monkeypatch.setattr(calibration, "_NUMBERS_AT_ONCE", 100_000)
    found = calibrate(model, q(), num_data=500, seed=2)
    assert found.passes() and len(found.ranks["z[0]"]) == 500


@pytest.mark.parametrize("part", [tfd.LKJ(2, 2.0), tfd.CholeskyLKJ(2, 2.0)])
def test_constant_entries_do_not_fail_an_exact_posterior(part):
    joint = tfd.JointDistributionNamed(
        {"z": part, "x": lambda z: tfd.Normal(0.0 * z[..., 0, 0], 1.0)}
    )
    model = Model(joint, "x", example=0.0)
    found = calibrate(model, lambda x: tfd.BatchBroadcast(part, [len(x)]), num_data=1000, seed=0)
    assert found.passes()
    for level in calibration.LEVELS:  # z[0, 0] is 1 in all draws
        share = found.coverage("z[0, 0]", level)
        assert abs(share.value - level) < 4 * share.standard_error


def test_ties_are_broken_at_random_and_other_ranks_stay():
    rng = np.random.default_rng(0)
    draws = np.array([0.0, 1.0, 1.0, 2.0])[:, np.newaxis]
    tied = calibration._ranks(np.repeat(draws, 3000, 1), np.ones(3000), rng)
    counts = np.bincount(tied, minlength=5)
    assert counts[[0, 4]].sum() == 0 and stats.chisquare(counts[1:4]).pvalue > 0.001
    draws, made = rng.normal(size=[9, 50, 2]), rng.normal(size=[50, 2])
    np.testing.assert_array_equal(
        calibration._ranks(draws, made, rng), np.sum(draws < made, axis=0)
    )


def test_the_test_is_that_of_uniform_bins():
    ranks = np.repeat(np.arange(200), 5)
    found = Calibration({"z": ranks, "w": np.zeros(1000, int)}, 199)
    assert found.num_bins == 20 and np.all(found.counts("z") == 50)
    assert found.p_value("z") == 1.0 and found.p_value("w") < 1e-12 and not found.passes()
    assert str(found.table()).splitlines()[1].split()[:2] == ["z", "1"]
    assert Calibration({"z": ranks[:100]}, 199).num_bins == 20
    assert Calibration({"z": ranks[:22]}, 199).num_bins == 4


def test_the_picture_has_a_panel_and_a_band_for_each_number(model):
    found = calibrate(model, q(), num_data=200, seed=0)
    figure = found.figure()
    assert [axis.get_title() for axis in figure.axes] == ["z[0]", "z[1]"]
    low, high = stats.binom.interval(0.99, 200, 1 / found.num_bins)
    band = figure.axes[0].patches[0].get_extents()
    bottom, top = figure.axes[0].transData.inverted().transform([band.p0, band.p1])[:, 1]
    assert (bottom, top) == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"posterior": tfd.Normal(0.0, 1.0)}, "function of the data"),
        ({"num_data": 5}, "num_data must be an integer and >= 20"),
        ({"posterior": lambda x: tfd.Independent(tfd.Normal(x / 0.0, 1.0), 1)}, "finite"),
        ({"model": "z"}, "tfp_gaps.Model"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_bad_input(model, options, message):
    given = {"model": model, "posterior": q(), "num_data": 50, **options}
    with pytest.raises(ValueError, match=message):
        calibrate(given.pop("model"), given.pop("posterior"), **given, seed=0)
