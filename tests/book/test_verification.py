"""Forged results, and code that has changed: what `tfp-gaps verify` finds of them."""

import json
import shutil
import sys
import types

import numpy as np
import pytest

from tfp_gaps import storage
from tfp_gaps.book import command_line, experiments, manifest, results, runs, verification
from tfp_gaps.book.runs import Run
from tfp_gaps.estimate import Estimate

SMALL, LARGE = Run("digits", "smoke", 0, (0, 1)), Run("digits", "paper", 0, (0, 1))
RISE = 0.3
"""Nats by which a forger raises a bound."""


@pytest.fixture
def toy(monkeypatch):
    """In place of an experiment, one whose bound is that of four given sequences."""
    module = types.ModuleType("toy")
    module.VARIANTS, module.offset = (), 0.0

    def run(*, scale, conditions, seeds, variant, **_):
        steps = np.arange(12.0).reshape(4, 3) + module.offset  # [sequences, steps]
        elbo = [steps.sum(1) / 7 + seed for seed in seeds]
        return {
            "experiment": "digits",
            "scale": scale,
            "variant": variant,
            "lookahead": conditions.lookahead,
            "seeds": list(seeds),
            "data": "made up, SHA-256 741c988805d0",
            "estimates": {
                "elbo": [Estimate.from_samples(row).as_dict() for row in elbo],
                "elbo_train": [Estimate.from_samples(row - 1).as_dict() for row in elbo],
            },
            "per_sequence": {"elbo": np.round(elbo, 3).tolist()},
            "per_step": {
                "log_likelihood": [(steps.mean(0) / 7 + seed / 3 + 1).tolist() for seed in seeds],
                "divergence": [[1.0, 1.0, 1.0] for _ in seeds],
            },
        }

    module.run = run
    monkeypatch.setitem(sys.modules, "tfp_gaps.book.experiments.digits", module)
    return module


@pytest.fixture
def folder(tmp_path, monkeypatch, toy):
    """A checkout's results/ with a small and a large run."""
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    for run in (SMALL, LARGE):
        assert runs.perform(run) == "written"
    return results.FOLDER


def verify(capsys, *arguments):
    """Exit status, and the sentences about what is wrong."""
    status = command_line.main(["verify", "--json", *arguments])
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return status, [record["error"] for record in records if not record["ok"]]


def forge(path, change, *, digest=True, listed=True):
    """Change the content of a stored result, and whatever would tell."""
    content = json.loads(path.read_text())
    change(content)
    if digest:
        del content["digest"]
        content["digest"] = storage.sha256(json.dumps(content, sort_keys=True).encode())
    path.write_text(json.dumps(content, sort_keys=True))
    if listed:
        manifest.record(results.FOLDER, path, content["provenance"])


def raise_value(content, name="elbo"):
    content["estimates"][name][1]["value"] += RISE


def raise_per_sequence(content):
    content["per_sequence"]["elbo"][1] = [x + RISE for x in content["per_sequence"]["elbo"][1]]


def raise_steps(content):
    content["per_step"]["log_likelihood"][1][0] += RISE


def raise_everything(content):
    for change in (raise_value, raise_per_sequence, raise_steps):
        change(content)


def test_what_a_run_has_stored_is_sound(folder, capsys):
    assert verify(capsys) == (0, [])
    assert set(manifest.read(folder)) == {
        "digits/paper/k0-seeds0-1.json",
        "digits/smoke/k0-seeds0-1.json",
    }


@pytest.mark.parametrize("digest", [False, True])
def test_an_edited_result_is_caught_with_and_without_a_new_digest(folder, capsys, digest):
    forge(LARGE.path(), raise_everything, digest=digest, listed=False)
    status, [said] = verify(capsys)
    assert status == 1
    assert f"{LARGE.path()} should have the checksum" in said and "was edited" in said
    with pytest.raises(results.ResultError, match="was edited"):
        results.stored("digits", "paper", options="--lookahead 0")
    with pytest.raises(results.ResultError, match="was edited"):
        runs.perform(LARGE)
    assert runs.perform(LARGE, force=True) == "written"
    assert verify(capsys) == (0, [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (raise_value, "elbo, replica 1: the value is"),
        (raise_per_sequence, "elbo, replica 1: the value is"),
        (raise_steps, "elbo, replica 1: the value is"),
        (lambda c: c["estimates"]["elbo"][0].update(standard_error=0.1), "the standard error is"),
        (lambda c: c.update(lookahead=None), "its settings are those of «tfp-gaps run digits"),
        (lambda c: c.update(seeds=[0, 2]), "its settings are those of «tfp-gaps run digits"),
        (lambda c: c.update(scale="huge"), "its settings are those of no run"),
    ],
)
def test_a_forger_of_digest_and_manifest_is_caught_by_what_is_said_twice(
    folder, capsys, change, message
):
    forge(LARGE.path(), change)
    status, [said] = verify(capsys)
    assert status == 1 and message in said


def test_a_result_under_the_name_of_another_run_is_caught(folder, capsys):
    other = LARGE.path().with_name("k1-seeds0-1.json")
    shutil.copy(LARGE.path(), other)
    manifest.record(folder, other, {"command": "tfp-gaps run digits", "commit": ""})
    status, [said] = verify(capsys)
    assert status == 1 and f"it should lie in {LARGE.path()}" in said


@pytest.mark.parametrize("change", [raise_everything, lambda c: raise_value(c, "elbo_train")])
def test_who_forges_all_that_is_said_is_caught_by_repeating_the_run_alone(folder, capsys, change):
    """The limit of what files can show: a large run is not repeated, a small one is."""
    for run in (SMALL, LARGE):
        forge(run.path(), change)
    assert verify(capsys) == (0, [])
    status, [said] = verify(capsys, "--recompute")
    assert status == 1
    assert f"{SMALL.path()}, estimates/elbo" in said and "stored" in said


def test_added_and_removed_results_are_named(folder, capsys):
    added = LARGE.path().with_name("kfull-seeds0-1.json")
    LARGE.path().rename(added)
    (folder / "digits/notes.txt").write_text("")
    status, said = verify(capsys)
    assert status == 1 and len(said) == 3
    assert f"{folder}/digits/notes.txt is not listed in MANIFEST.json" in said[0]
    assert f"{LARGE.path()} is listed in MANIFEST.json but missing" in said[1]
    assert f"{added} is not listed in MANIFEST.json" in said[2]
    with pytest.raises(results.ResultError, match="k0-seeds0-1.json is listed .* but missing"):
        results.stored("digits", "paper", options="--lookahead 0")


def test_a_result_that_was_computed_elsewhere_is_entered_by_its_command(folder, capsys, tmp_path):
    run = Run("digits", "paper", 1, (0, 1))
    runs.perform(run, folder=tmp_path / "elsewhere")
    shutil.copy(run.path(tmp_path / "elsewhere"), run.path())
    assert verify(capsys)[0] == 1
    assert runs.perform(run) == "already there"
    assert verify(capsys) == (0, [])


def test_the_manifest_speaks_of_the_checkout_alone(folder, tmp_path):
    before = (folder / manifest.NAME).read_bytes()
    runs.perform(LARGE, folder=tmp_path / "elsewhere")
    assert (folder / manifest.NAME).read_bytes() == before
    assert not (tmp_path / "elsewhere" / manifest.NAME).exists()


def test_a_change_of_the_code_is_seen_by_repeating_a_small_run(folder, capsys, toy):
    assert verify(capsys, "--recompute") == (0, [])
    toy.offset = 1e-4
    assert verify(capsys) == (0, [])
    status, [said] = verify(capsys, "--recompute", "1", "--seed", "3")
    assert status == 1 and f"{SMALL.path()}, estimates/elbo/value" in said


def test_the_sample_is_random_and_seeded(folder):
    for lookahead in range(1, 9):
        runs.perform(Run("digits", "smoke", lookahead, (0,)))

    def drawn(number, seed):
        return [p for p, said in verification.recompute(runs.stored_paths(), number, seed)]

    assert drawn(3, 0) == drawn(3, 0) != drawn(3, 1)
    assert len(drawn(100, 0)) == 9 and LARGE.path() not in drawn(100, 0)


def test_without_small_runs_there_is_nothing_to_repeat(folder, capsys):
    with pytest.raises(results.ResultError, match="tfp-gaps run digits --scale smoke"):
        list(verification.recompute([LARGE.path()], 1, 0))


# The committed results ----------------------------------------------------------------------------


def test_committed_results_are_sound():
    paths = verification.everything()
    assert len(paths) > 80
    assert [said for path in paths for said in verification.problems(path)] == []


def test_every_stored_experiment_and_variant_has_a_small_run_to_repeat():
    found = {True: set(), False: set()}
    for path in runs.stored_paths():
        content = results.load(path)
        small = content["scale"] == verification.SCALE
        found[small].add((content["experiment"], content["variant"]))
    # The data of these need the network, which nobody should need to verify.
    fetched = {("traffic", "eight"), ("traffic", "amsterdam")}
    fetched |= {(name, variant) for name, variant in found[False] if "nanobench" in variant}
    assert found[False] - found[True] == fetched
    assert {name for name, _ in found[True]} <= {*experiments.NAMES, *runs.FURTHER}


def test_a_committed_small_run_is_found_again(capsys):
    path = Run("two_latents", "smoke", None, (0,)).path()
    assert verify(capsys, str(path), "--recompute") == (0, [])
