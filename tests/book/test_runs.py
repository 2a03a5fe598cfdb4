"""Runs: identity, paths, the lock, and the list that declares them."""

import importlib
import itertools
import json
import sys
import types

import pytest

from tfp_gaps import storage
from tfp_gaps.book import experiments, results, runs, sweep
from tfp_gaps.book.runs import Run
from tfp_gaps.posteriors.conditions import LookAhead

RUN = Run("digits", "smoke", 1, (0,), "wide")
STATIC = Run("vae", "smoke", None, (0,), "wide")


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    """In place of two experiments, one that costs nothing and counts how often it is run."""
    module = types.ModuleType("toy")
    module.VARIANTS, module.calls = ("wide",), []

    def run(**options):
        module.calls.append(options)
        return {"data": "made up, SHA-256 741c988805d0", "value": 1.5}

    module.run = run
    for name in ("digits", "vae"):
        monkeypatch.setitem(sys.modules, f"tfp_gaps.book.experiments.{name}", module)
    return module


def test_different_runs_never_share_a_file():
    options = (
        (*experiments.BENCHMARKS, *experiments.CONTROL),
        ("smoke", "book", "paper"),
        (0, 1, 10, None),
        ((0,), (1,), (0, 1), (1, 0), (10,)),
        ("", "latent4", "imu"),
    )
    every = [Run(*values) for values in itertools.product(*options)]
    static = (runs.STATIC, options[1], (None,), *options[3:])
    every += [Run(*values) for values in itertools.product(*static)]
    for place in (Run.path, Run.checkpoints, lambda run: run.command):
        assert len({place(run) for run in every}) == len(every)


def test_paths_of_a_run(tmp_path):
    assert RUN.path(tmp_path) == tmp_path / "digits/smoke/wide/k1-seed0.json"
    assert RUN.checkpoints(tmp_path) == tmp_path / "digits/smoke/wide/k1-seed0"
    assert RUN.path().is_relative_to(results.FOLDER)
    assert RUN.checkpoints().is_relative_to(results.FOLDER / ".checkpoints")
    assert RUN.command == "tfp-gaps run digits --scale smoke --lookahead 1 --seeds 0 --variant wide"
    assert Run("digits", "smoke", None, [0, 1]) == Run("digits", "smoke", None, (0, 1))


def test_a_run_without_time_has_no_look_ahead(tmp_path, toy):
    assert STATIC.path(tmp_path) == tmp_path / "vae/smoke/wide/seed0.json"
    assert STATIC.checkpoints(tmp_path) == tmp_path / "vae/smoke/wide/seed0"
    assert STATIC.command == "tfp-gaps run vae --scale smoke --seeds 0 --variant wide"
    assert Run("vae", "book", None, [0, 1]).path(tmp_path).name == "seeds0-1.json"
    assert runs.perform(STATIC, folder=tmp_path) == "written"
    (options,) = toy.calls
    assert set(options) == {"scale", "seeds", "variant", "checkpoint_folder", "progress"}
    assert results.load(STATIC.path(tmp_path))["provenance"]["command"] == STATIC.command
    assert runs.stored_paths(tmp_path) == [STATIC.path(tmp_path)]
    assert runs.perform(STATIC, folder=tmp_path) == "already there"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("vae", "smoke", 0, (0,)), "vae has no time and so no look-ahead, but is given 0"),
        (("faces", "smoke", 0, (0,)), "Unknown experiment 'faces'"),
        (("digits", "huge", 0, (0,)), "Unknown scale 'huge'"),
        (("digits", "smoke", -1, (0,)), "lookahead must be"),
        (("digits", "smoke", 0, ()), "one at least"),
        (("digits", "smoke", 0, (1, 1)), "seeds must differ"),
        (("digits", "smoke", 0, 3), "list of integers"),
        (("digits", "smoke", 0, (0,), "../x"), "small letters"),
        (("digits", "smoke", 0, (0,), "default"), "Leave it empty"),
    ],
)
def test_impossible_runs_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Run(*values)


def test_a_run_is_performed_once_unless_forced(tmp_path, toy):
    assert runs.perform(RUN, folder=tmp_path) == "written"
    stored = results.load(RUN.path(tmp_path))
    assert stored["value"] == 1.5 and stored["provenance"]["command"] == RUN.command
    (options,) = toy.calls
    del options["progress"]
    assert options == {
        "scale": "smoke",
        "conditions": LookAhead(1),
        "seeds": [0],
        "variant": "wide",
        "checkpoint_folder": tmp_path / ".checkpoints/digits/smoke/wide/k1-seed0",
    }
    assert runs.perform(RUN, folder=tmp_path) == "already there"
    assert len(toy.calls) == 1
    assert runs.perform(RUN, folder=tmp_path, force=True) == "written"
    assert len(toy.calls) == 2
    assert runs.stored_paths(tmp_path) == [RUN.path(tmp_path)]


def test_training_that_checkpoints_hold_counts_as_time(tmp_path, toy):
    kept = RUN.checkpoints(tmp_path / "kept")
    for name in ("joint", "refit"):
        storage.write_arrays(kept / f"{name}.npz", {}, description={"seconds": 1000.0})
    (kept / "other.npz").write_bytes(b"cut short")
    runs.perform(RUN, folder=tmp_path, checkpoints=tmp_path / "kept")
    seconds = results.load(RUN.path(tmp_path))["provenance"]["seconds"]
    assert 2000 <= seconds < 2060


def test_an_invalid_result_is_not_taken_for_done(tmp_path, toy):
    runs.perform(RUN, folder=tmp_path)
    path = RUN.path(tmp_path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(results.ResultError, match="delete it or add --force"):
        runs.perform(RUN, folder=tmp_path)
    assert runs.perform(RUN, folder=tmp_path, force=True) == "written"


def test_unknown_variants_name_the_known_ones(tmp_path, toy):
    with pytest.raises(runs.RunError, match=r"one that digits knows \(wide\), but is 'broad'"):
        runs.perform(Run("digits", "smoke", 1, (0,), "broad"), folder=tmp_path)
    assert not toy.calls


def test_two_processes_never_work_on_the_same_run(tmp_path, toy, capsys):
    lock = tmp_path / ".checkpoints/digits/smoke/wide/k1-seed0.lock"
    with runs.exclusive(lock, RUN.command):
        with pytest.raises(runs.BusyError, match=r"process \d+ on .* is at work on it"):
            runs.perform(RUN, folder=tmp_path)
        other = Run("digits", "smoke", 2, (0,))
        assert runs.perform(other, folder=tmp_path) == "written"
    assert len(toy.calls) == 1
    assert runs.perform(RUN, folder=tmp_path) == "written"


def declare(tmp_path, text):
    path = tmp_path / "declared.yml"
    path.write_text(text)
    return path


def entry(**changes):
    values = {
        "experiment": "digits",
        "scale": "paper",
        "lookaheads": [0, "full"],
        "seeds": [0, 1],
        "minutes": 3,
    } | changes
    return {key: value for key, value in values.items() if value is not None}


def test_declared_runs_are_all_combinations_in_order(tmp_path):
    text = json.dumps([entry(variants=["default", "wide"]), entry(scale="book")])
    declared = runs.read_declared(declare(tmp_path, text))
    assert [(d.run.scale, d.run.variant, d.run.lookahead) for d in declared] == [
        ("paper", "", 0),
        ("paper", "", None),
        ("paper", "wide", 0),
        ("paper", "wide", None),
        ("book", "", 0),
        ("book", "", None),
    ]
    assert {d.minutes for d in declared} == {3.0} and declared[0].run.seeds == (0, 1)


def test_declared_runs_without_time(tmp_path):
    text = json.dumps([entry(experiment="vae", lookaheads=None, variants=["default", "wide"])])
    declared = runs.read_declared(declare(tmp_path, text))
    assert [d.run for d in declared] == [
        Run("vae", "paper", None, (0, 1)),
        Run("vae", "paper", None, (0, 1), "wide"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "cannot be read"),
        ("", "should be a list of entries"),
        ("[]", "should be a list of entries"),
        ("[1]", "entry 1 should have the keys experiment, scale"),
        ([entry(seeds=None)], "entry 1 lacks seeds. The keys are"),
        ([entry(), entry(lookahead=[0])], "entry 2 should not have lookahead"),
        ([entry(lookaheads=None)], "entry 1 lacks lookaheads. The keys are"),
        ([entry(experiment="vae")], "should not have lookaheads. The keys are .*variants, seeds"),
        ([entry(experiment="faces")], "entry 1: Unknown experiment 'faces'"),
        ([entry(scale="huge")], "entry 1: Unknown scale 'huge'"),
        ([entry(lookaheads=[0, "most"])], "expected 0, 1, 2, ... or full, found 'most'"),
        ([entry(lookaheads=[True])], "found True"),
        ([entry(lookaheads=3)], "lookaheads should be a list such as"),
        ([entry(seeds=3)], "seeds should be a list of integers"),
        ([entry(seeds=[0, 0.5])], "each seed must be"),
        ([entry(variants=[4])], "each variant should be a word"),
        ([entry(variants=["A B"])], "small letters"),
        ([entry(minutes=0)], "minutes must be greater than zero"),
        ([entry(minutes="long")], "minutes must be"),
        ([entry(), entry(minutes=5)], "entry 2: each run should be declared once, .* in entry 1"),
    ],
)
def test_a_bad_list_names_entry_and_key(tmp_path, content, message):
    text = content if isinstance(content, str) else json.dumps(content)
    with pytest.raises(runs.RunError, match=message):
        runs.read_declared(declare(tmp_path, text))
    with pytest.raises(runs.RunError, match="Name another file"):
        runs.read_declared(tmp_path / "absent.yml")


def test_the_committed_list_holds_every_table_of_the_book(monkeypatch):
    monkeypatch.undo()  # the real experiments
    declared = [entry.run for entry in runs.read_declared(sweep.DECLARED)]
    for name in experiments.BENCHMARKS:
        known = importlib.import_module(f"tfp_gaps.book.experiments.{name}").VARIANTS
        own = [run for run in declared if run.experiment == name]
        assert {run.variant for run in own} <= {"", *known}
        table = [run for run in own if run.scale == "paper" and not run.variant]
        assert len({run.lookahead for run in table}) >= 4
        assert {0, None} < {run.lookahead for run in table}
        assert all(len(run.seeds) >= 3 for run in table)
    for name in {run.experiment for run in declared} - set(experiments.BENCHMARKS):
        known = importlib.import_module(f"tfp_gaps.book.experiments.{name}").VARIANTS
        assert {run.variant for run in declared if run.experiment == name} <= {"", *known}
