"""Sequences: what is accepted, what is refused, and what windows may hold."""

import numpy as np
import pytest

from tfp_gaps.book.data.splits import Splits, Windows, windows_within
from tfp_gaps.sequences import Sequences, as_sequences


def some(**changes):
    rng = np.random.default_rng(0)
    fields = {
        "observations": rng.normal(size=[5, 4, 3]),
        "controls": rng.normal(size=[5, 4, 2]),
        "mask": rng.random([5, 4, 3]) < 0.7,
    }
    return Sequences(**(fields | changes))


def test_types_are_the_two_agreed_ones():
    x = some()
    assert (x.observations.dtype, x.controls.dtype, x.mask.dtype) == ("float32", "float32", "bool")
    assert Sequences(np.zeros([2, 1, 1], bool)).observations.dtype == np.uint8
    assert Sequences(np.zeros([2, 1, 1], np.int64)).observations.dtype == np.float32


def test_values_that_the_mask_calls_missing_are_zero_whatever_they_were():
    mask = np.array([[[True, False]], [[False, True]]])
    x = Sequences(np.array([[[1.0, np.nan]], [[7.0, 2.0]]]), mask=mask)
    np.testing.assert_array_equal(x.observations[:, 0], [[1, 0], [0, 2]])
    np.testing.assert_array_equal(x.mask, mask)


def test_a_mask_without_gaps_is_none():
    assert some(mask=np.ones([5, 4, 3], bool)).mask is None
    assert Sequences.from_missing(np.ones([5, 4, 3])).mask is None


def test_selection_takes_controls_and_mask_along():
    x = some()
    y = x.select([3, 0, 3])
    assert len(y) == 3
    for name in ("observations", "controls"):
        np.testing.assert_array_equal(getattr(y, name), getattr(x, name)[:, [3, 0, 3]])
    np.testing.assert_array_equal(y.mask, x.mask[:, [3, 0, 3]])
    np.testing.assert_array_equal(x.first(2).controls, x.controls[:, :2])
    assert len(x.first(99)) == 4 and len(x.select([])) == 0 and len(x.select(x.mask[0, :, 0])) < 5


def test_selection_of_complete_sequences_drops_the_mask():
    mask = np.ones([5, 4, 3], bool)
    mask[2, 1, 0] = False
    assert some(mask=mask).mask is not None
    assert some(mask=mask).select([0, 2]).mask is None


def test_bare_arrays_are_wrapped_and_sequences_left_alone():
    x = some()
    assert as_sequences(x) is x
    assert as_sequences(np.zeros([2, 3, 1])).controls is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observations": np.zeros([5, 4])}, r"must have shape \[time, sequences, channels\]"),
        ({"observations": np.zeros([0, 4, 3])}, "at least one time step"),
        ({"observations": np.full([5, 4, 3], "a")}, "array of real numbers"),
        ({"mask": np.ones([5, 4, 1], bool)}, "mask must be an array of booleans"),
        ({"mask": np.ones([5, 4, 3])}, "mask must be an array of booleans"),
        ({"controls": np.zeros([4, 4, 2])}, "controls must have the observations' 5 steps and 4"),
        ({"controls": np.full([5, 4, 2], np.nan)}, "controls must be finite, but 40 of 40"),
    ],
)
def test_bad_fields_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        some(**changes)


def test_nan_is_counted_and_the_way_out_named():
    x = np.zeros([5, 4, 3])
    x[1:3, 2, 0] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"2 of 60 values, in 1 of 4 sequences.*from_missing"):
        Sequences(x)


def test_values_that_float32_would_round_are_refused():
    x = np.random.default_rng(0).normal(size=[5, 4, 3])
    for offset in (0.0, 1e3):  # its numbers lie 6e-5 apart
        shifted = x + [0.0, offset, 0.0]
        np.testing.assert_array_equal(Sequences(shifted).observations, np.float32(shifted))
    # Here they lie 1 / 2 apart.
    far = x + [0.0, 5.8e6, 0.0]
    with pytest.raises(ValueError, match=r"observations must be held by float32.* in channel 1"):
        Sequences(far)
    with pytest.raises(ValueError, match=r"controls must be held by float32.* in channel 1"):
        some(controls=far)
    whole = np.full(x.shape, 2**24)
    whole[0, 0, 0] += 1  # to an even number
    with pytest.raises(ValueError, match="1 of 60 values .* such as 16777217.0 in channel 0"):
        Sequences(whole)


def test_values_that_float32_holds_or_nobody_reads_are_not():
    counts = np.full([5, 4, 1], 2**24 + 2)
    np.testing.assert_array_equal(Sequences(counts).observations, counts)
    assert Sequences(np.full([5, 4, 1], 0.1)).observations[0, 0, 0] == np.float32(0.1)
    x = np.random.default_rng(0).normal(size=[5, 4, 1])
    mask = np.ones(x.shape, bool)
    x[2, 1], mask[2, 1] = 5.8e6 + 0.1, False
    assert Sequences(x, mask=mask).observations[2, 1, 0] == 0
    assert len(Sequences(np.zeros([5, 0, 1]))) == 0
    assert Sequences(x, mask=np.zeros(x.shape, bool)).observations.max() == 0


def test_windows_stay_within_their_stretch_and_use_all_of_it():
    windows = windows_within([(0, 3, 10), (1, 0, 2), (2, 5, 9)], 4, 1)
    pairs = list(zip(windows.series.tolist(), windows.starts.tolist(), strict=True))
    assert pairs == [(0, 3), (0, 4), (0, 5), (0, 6), (2, 5)]
    assert len(windows_within([(0, 0, 3)], 4, 1)) == 0


def test_units_are_restored_per_channel_and_per_series():
    x = some(mask=None)
    scaling = np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 30.0])
    splits = Splits(x, x, x, "made up", scaling=scaling)
    expected = x.observations * scaling[1] + scaling[0]
    np.testing.assert_allclose(splits.in_units(x.observations), expected)
    one = x.observations[:, :, :1]
    windows = {"test": Windows(np.array([1, 0, 2, 1]), np.arange(4), 5)}
    columns = tuple(part[:, np.newaxis] for part in scaling)
    splits = Splits(x, x, x, "made up", scaling=columns, windows=windows)
    got = splits.in_units(one[:, 1:3], "test", sequences=slice(1, 3))
    np.testing.assert_allclose(got[:, 0], one[:, 1] * 10 + 1)
    np.testing.assert_allclose(got[:, 1], one[:, 2] * 30 + 3)
    np.testing.assert_array_equal(Splits(x, x, x, "made up").in_units(one), one)
