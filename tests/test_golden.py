"""Small runs of every experiment give the stored numbers, whatever became of the code.

A change that is meant to move numbers stores them anew: `python -m tests.golden write CASE ...`.
"""

import json

import numpy as np
import pytest

from tests.golden import numbers
from tests.golden.__main__ import check
from tests.golden.cases import CASES
from tfp_gaps.book.comparison import differences, flatten, summaries, summarise
from tfp_gaps.estimate import Estimate


@pytest.mark.parametrize("name", CASES)
def test_a_small_run_gives_the_stored_numbers(name):
    said = check(name, summaries(CASES[name]()))
    assert not said, "\n".join(said)


def test_every_stored_file_belongs_to_a_case():
    assert {path.stem for path in numbers.FOLDER.glob("*.json")} == set(CASES)


def test_results_are_flattened_without_loss():
    long = np.arange(20.0)
    found = flatten(
        {"a": [[Estimate(1.0, 0.5)], [Estimate(2.0, 0.25)]], "b": {"c": long}, "seconds": 3.0}
    )
    np.testing.assert_array_equal(found["a/value"], [1.0, 2.0])
    np.testing.assert_array_equal(found["a/standard_error"], [0.5, 0.25])
    assert set(found) == {"a/value", "a/standard_error", "a/num_samples", "a/slack", "b/c"}
    assert summarise(found["b/c"]) != summarise(long[::-1])


@pytest.mark.parametrize(
    ("values", "same", "other"),
    [
        ([1.0, 2.0 * (1 + 5e-7)], 0, 0),  # within 1e-6 of the scale
        ([1.0, 2.0 * (1 + 2e-6)], 1, 0),  # a rounding of another machine, not of this one
        ([1.0, 2.2], 1, 1),  # within neither
        ([1.0, float("nan")], 1, 1),
        ([1.0], 1, 1),
    ],
)
def test_what_counts_as_a_difference(values, same, other):
    content = {
        "provenance": {"machine": "here"},
        "numbers": {"x": summarise([1.0, 2.0])},
    }
    found = {"x": summarise(values)}
    assert len(differences("case", content, found, "here")) == same
    assert len(differences("case", content, found, "there")) == other


def test_elsewhere_a_number_may_differ_by_its_standard_errors():
    def measured(value):
        return {
            "value": summarise([value]),
            "standard_error": summarise([0.1]),
        }

    content = {"provenance": {"machine": "here"}, "numbers": measured(1.0)}
    assert not differences("case", content, measured(1.5), "there")
    [said] = differences("case", content, measured(2.0), "there")
    assert all(part in said for part in ("case", "value", "stored 1.0", "found 2.0"))
    assert differences("case", content, measured(1.5), "here")


def test_elsewhere_a_draw_may_be_another_one_and_a_deterministic_number_may_not():
    content = {"provenance": {"machine": "here"}, "numbers": {"x": summarise([1, 2, 3])}}
    found = {"x": summarise([1, 2.5, 2])}
    assert not differences("case", content, found, "there", decides=True)
    assert len(differences("case", content, found, "there")) == 2
    found = {"x": summarise([7, 8, 9])}  # six away, with a combined error of .67
    assert len(differences("case", content, found, "there", decides=True)) == 1


def test_elsewhere_a_standard_error_of_draws_may_move_by_a_tenth_of_itself():
    def summaries(error):
        return {"a/value": summarise([9.0]), "a/standard_error": summarise([error])}

    content = {"provenance": {"machine": "here"}, "numbers": summaries(1.0)}
    assert not differences("case", content, summaries(1.09), "there", decides=True)
    for wrong in (2.0**0.5, 0.5**0.5):  # groups counted twice, or as half as many
        assert len(differences("case", content, summaries(wrong), "there", decides=True)) == 1
    assert len(differences("case", content, summaries(1.01), "there")) == 1


@pytest.mark.parametrize(("machine", "number"), [("a CPU", 3), ("b CPU", 2), ("b GPU", 0)])
def test_what_a_gpu_draws_is_compared_by_standard_errors_alone(machine, number):
    def summaries(value, error, loss):
        named = {"value": [value], "standard_error": [error], "losses": [loss] * 2}
        return {key: summarise(values) for key, values in named.items()}

    content = {"provenance": {"machine": "a CPU"}, "numbers": summaries(1.0, 0.1, 3.0)}
    found = summaries(1.5, 0.1, 3.1)
    assert len(differences("case", content, found, machine)) == number
    assert differences("case", content, summaries(2.0, 0.1, 3.0), machine)
    assert differences("case", content, {**found, "losses": found["value"]}, machine)


def test_numbers_are_stored_whole_with_their_origin(tmp_path, monkeypatch):
    monkeypatch.setattr(numbers, "FOLDER", tmp_path)
    numbers.write("case", {"x": summarise([1 / 3, np.inf])}, seed=0)
    content = numbers.read("case")
    assert content["numbers"] == {"x": {"all": [0.333333333, "inf"]}}
    assert set(content["provenance"]) == {"command", "commit", "machine", "seed"}
    json.dumps(content, allow_nan=False)
    with pytest.raises(FileNotFoundError, match="python -m tests.golden write other"):
        numbers.read("other")
