"""Conditions: what they show, how they are written, stored, ordered and refused."""

import numpy as np
import pytest

from tfp_gaps.exact import conditions as exact
from tfp_gaps.posteriors.conditions import FULL, LookAhead

WRITTEN = {"0": (0, "partial"), "1": (1, "1 ahead"), "12": (12, "12 ahead"), "full": (None, "full")}


@pytest.mark.parametrize("text", WRITTEN)
def test_conditions_are_written_stored_and_named(text):
    stored, label = WRITTEN[text]
    conditions = LookAhead.parse(text)
    assert conditions == LookAhead.of(stored) and hash(conditions) == hash(LookAhead.of(stored))
    assert (str(conditions), conditions.lookahead, conditions.label) == (text, stored, label)


@pytest.mark.parametrize("k", [0, 1, 2, 3, 99, None])
def test_they_show_what_the_closed_forms_take_them_to_show(k):
    expected = exact.conditions(4, last=k).observations
    np.testing.assert_array_equal(LookAhead.of(k)(4), expected)


def test_full_conditions_come_last():
    shuffled = [LookAhead(2), FULL, LookAhead(10), LookAhead(0)]
    assert [str(conditions) for conditions in sorted(shuffled)] == ["0", "2", "10", "full"]


@pytest.mark.parametrize("steps", [-1, 1.5, True, None, "full"])
def test_impossible_steps(steps):
    with pytest.raises(ValueError, match="the look-ahead k must be an integer and >= 0"):
        LookAhead(steps)


@pytest.mark.parametrize("text", ["most", "-1", "", "1.0", True, None])
def test_unreadable_conditions(text):
    with pytest.raises(ValueError, match="expected 0, 1, 2, ... or full, found"):
        LookAhead.parse(text)
