"""Stored results: digest, provenance, refusal of edits."""

import json

import pytest

from tfp_gaps.book import results, runs


@pytest.fixture
def origin():
    return results.provenance(command="tfp-gaps run x", data="made up", seeds=[0], seconds=1.0)


def test_round_trip_with_provenance(tmp_path, origin):
    results.save(tmp_path / "r.json", {"value": [1.5, 2.0]}, origin)
    loaded = results.load(tmp_path / "r.json")
    assert loaded["value"] == [1.5, 2.0]
    assert set(results.REQUIRED) <= set(loaded["provenance"])
    assert len(loaded["provenance"]["commit"]) >= 7


def test_an_edited_result_is_refused(tmp_path, origin):
    path = tmp_path / "r.json"
    results.save(path, {"value": 1.5}, origin)
    path.write_text(path.read_text().replace("1.5", "2.5"))
    with pytest.raises(results.ResultError, match="it was edited"):
        results.load(path)


def test_missing_provenance_is_refused(tmp_path, origin):
    path = tmp_path / "r.json"
    results.save(path, {}, {key: origin[key] for key in origin if key != "commit"})
    with pytest.raises(results.ResultError, match="lacks commit"):
        results.load(path)


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', "not json"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(results.ResultError, match="should be a stored result"):
        results.load(tmp_path / "r.json")
    with pytest.raises(results.ResultError, match="should be a stored result"):
        results.load(tmp_path / "absent.json")


def test_nan_is_never_stored(tmp_path, origin):
    with pytest.raises(ValueError, match="not JSON compliant"):
        results.save(tmp_path / "r.json", {"value": float("nan")}, origin)
    assert not (tmp_path / "r.json").exists()


def test_the_results_of_a_variant_are_found_in_the_order_of_their_names(
    tmp_path, origin, monkeypatch
):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    folder = tmp_path / "vae/book/digits-flow"
    for name in ("seed1", "seed0", "other"):
        results.save(folder / f"{name}.json", {"name": name}, origin)
    found = results.stored("vae", "book", "digits-flow", names="seed*.json", options="--seeds 0")
    assert [result["name"] for result in found] == ["seed0", "seed1"]
    with pytest.raises(results.ResultError, match="run vae --scale paper --seeds 0 --variant x$"):
        results.stored("vae", "paper", "x", options="--seeds 0")
    with pytest.raises(ValueError, match="scale"):
        results.stored("vae", "huge", options="--seeds 0")


def test_a_phase_is_told_its_checkpoint_and_its_bar(tmp_path):
    options = results.training_options(str(tmp_path), lambda *phase: phase, "joint", 30)
    assert options == {"checkpoint": tmp_path / "joint.npz", "progress": ("joint", 30)}
    none = {"checkpoint": None, "progress": None}
    assert results.training_options(None, None, "joint", 30) == none


def test_committed_results_are_whole():
    paths = runs.stored_paths()
    assert paths
    for path in paths:
        loaded = results.load(path)
        assert "with changes" not in loaded["provenance"]["commit"], path
        json.dumps(loaded, allow_nan=False)
