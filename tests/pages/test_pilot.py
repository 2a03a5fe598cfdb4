"""The pilot: one grid for both arms, nothing trained twice, and the smallest loss is chosen."""

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest

import pilot


@pytest.fixture
def tried(tmp_path, monkeypatch):
    """What is trained, in a pilot of made-up losses: the larger the rate, the smaller."""
    calls = []

    def trial(splits, design, conditions, *, rate, warm_up, steps, seeds):
        calls.append((conditions.label, rate, warm_up))
        return np.array([1.0, 3.0]) - rate + 1e-4 * warm_up

    nothing = SimpleNamespace(load=lambda *_: None, size=lambda *_: SimpleNamespace(design=None))
    monkeypatch.setattr(pilot, "trial", trial)
    monkeypatch.setattr(pilot, "BENCHMARKS", {"uav": SimpleNamespace(BENCHMARK=nothing)})
    monkeypatch.setattr(pilot, "STORED", tmp_path / "pilots.json")
    return calls


def test_both_arms_are_trained_on_the_same_grid_once(tried, capsys):
    pilot.main(["uav", "nanobench", "--arm", "full"])
    pilot.main(["uav", "nanobench"])
    wanted = itertools.product(("full", "partial"), pilot.RATES, pilot.WARM_UPS)
    assert sorted(tried) == sorted(wanted)  # each once, though the command ran twice
    rate, warm_up = max(pilot.RATES), min(pilot.WARM_UPS)
    assert f"partial: rate {rate}, warm-up {warm_up}" in capsys.readouterr().out


def test_what_is_stored_names_its_seeds_and_steps(tried):
    pilot.main(["uav", "nanobench", "--steps", "7"])
    rows = json.loads(pilot.STORED.read_text())["uav nanobench"]
    assert len(rows) == 2 * len(pilot.RATES) * len(pilot.WARM_UPS)
    assert all(row["steps"] == 7 and tuple(row["seeds"]) == pilot.SEEDS for row in rows)
    pilot.main(["uav", "nanobench", "--steps", "8"])  # of another length: trained again
    assert len(tried) == 2 * len(rows)
