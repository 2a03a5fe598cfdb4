"""Sweeps: what is there, what is missing, and what a kill -9 leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tfp_gaps.book import command_line, results, runs, sweep
from tfp_gaps.book.runs import Declared, Run

ROOT = Path(__file__).resolve().parent.parents[1]
DATA = "made up, SHA-256 741c988805d0"
WANTED = [Declared(Run("digits", "smoke", k, (0,)), 2.0) for k in (0, 1, 2, None)]


def store(run, folder, *, seconds=30.0, data=DATA, command=None):
    path = run.path(folder)
    origin = {
        **dict.fromkeys(results.REQUIRED, "unknown"),
        "command": command or run.command,
        "data": data,
        "seconds": seconds,
    }
    results.save(path, {"value": 1.0}, origin)
    return path


STATIC = Run("vae", "smoke", None, (0,), "digits-flow")


def write_list(path, lookaheads, *, with_static=False):
    entry = {"experiment": "digits", "scale": "smoke", "seeds": [0], "minutes": 0.5}
    entries = [entry | {"lookaheads": lookaheads}]
    if with_static:
        entries.append(entry | {"experiment": "vae", "variants": ["digits-flow"]})
    path.write_text(json.dumps(entries))
    return path


def test_what_is_missing_is_judged_by_what_is_stored(tmp_path):
    assert {(s.status, s.seconds, s.basis) for s in sweep.examine(WANTED, tmp_path)} == {
        ("missing", 120.0, "declared")
    }
    store(WANTED[0].run, tmp_path, seconds=30.0)
    store(WANTED[1].run, tmp_path, seconds=50.0)
    kept = WANTED[3].run.checkpoints(tmp_path / ".checkpoints")
    kept.mkdir(parents=True)
    (kept / "joint.npz").write_bytes(b"")
    states = sweep.examine(WANTED, tmp_path)
    assert [s.status for s in states] == ["present", "present", "missing", "missing"]
    assert [s.seconds for s in states] == [30.0, 50.0, 40.0, 40.0]
    assert [s.is_begun for s in states] == [False, False, False, True]
    assert sweep.describe(states[3], tmp_path) == (
        "missing  digits/smoke/kfull-seed0.json  40 s (2 stored runs, begun)"
    )
    summary = sweep.summarise(states)
    assert summary["missing"] == 2 and summary["seconds"] == 80.0
    assert summary["seconds_declared"] == 0.0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:40]), "could not be read"),
        (lambda path: path.write_text(path.read_text().replace("1.0", "2.0")), "it was edited"),
        (lambda path: store(WANTED[0].run, path.parents[2], data="SHA-256 " + 16 * "ab"), "other"),
        (lambda path: store(WANTED[0].run, path.parents[2], data="some"), "name the checksum"),
        (lambda path: store(WANTED[0].run, path.parents[2], command="x"), "under a wrong name"),
    ],
)
def test_an_invalid_result_is_named_and_stops_a_sweep(tmp_path, capsys, damage, message):
    message = "no data set has that checksum" if message == "other" else message
    damage(store(WANTED[0].run, tmp_path))
    (state, *_) = sweep.examine(WANTED, tmp_path)
    assert state.status == "invalid" and message in state.problem
    file = write_list(tmp_path / "list.yml", [0, 1])
    options = ["--file", str(file), "--output", str(tmp_path)]
    assert command_line.main(["sweep", "--dry-run", *options]) == 1
    shown = capsys.readouterr().out
    assert message in shown and "0 present, 1 missing, 1 invalid" in shown
    assert command_line.main(["sweep", *options]) == 1
    assert "Delete them" in capsys.readouterr().err
    if message != "under a wrong name":
        assert command_line.main(["verify", str(state.path)]) == 1
        assert message in capsys.readouterr().out


def test_a_dry_run_speaks_json_and_does_not_load_tensorflow(tmp_path):
    store(WANTED[0].run, tmp_path)
    file = write_list(tmp_path / "list.yml", [0, 1, "full"], with_static=True)
    code = (
        "import sys; from tfp_gaps.book.command_line import main; status = main(sys.argv[1:]);"
        "sys.exit('TensorFlow was loaded' if 'tensorflow' in sys.modules else status)"
    )
    options = ["--dry-run", "--json", "--file", str(file), "--output", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", code, "sweep", *options],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    *lines, summary = map(json.loads, done.stdout.splitlines())
    assert [line["status"] for line in lines] == ["present", *["missing"] * 3]
    assert lines[1]["command"] == "tfp-gaps run digits --scale smoke --lookahead 1 --seeds 0"
    assert lines[3]["command"] == STATIC.command
    assert lines[3]["result"] == str(tmp_path / "vae/smoke/digits-flow/seed0.json")
    # Two runs like the stored one of 30 s, and one of half a minute that only its entry knows.
    assert summary == {
        "present": 1,
        "missing": 3,
        "invalid": 0,
        "seconds": 90.0,
        "seconds_declared": 30.0,
    }


def test_a_sweep_with_nothing_to_do_starts_nothing(tmp_path, capsys):
    for declared in WANTED[:2]:
        store(declared.run, tmp_path)
    file = write_list(tmp_path / "list.yml", [0, 1])
    assert command_line.main(["sweep", "--file", str(file), "--output", str(tmp_path)]) == 0
    assert "2 present, 0 missing" in capsys.readouterr().err


def test_what_a_sweep_cannot_start_from(tmp_path, capsys, monkeypatch):
    file = write_list(tmp_path / "list.yml", [0])
    options = ["--file", str(file), "--output", str(tmp_path)]
    assert command_line.main(["sweep", *options, "--profile", "moon"]) == 1
    assert "profiles/moon/config.yaml, but there is no such file" in capsys.readouterr().err
    with runs.exclusive(tmp_path / ".checkpoints/sweep.lock", "tfp-gaps sweep"):
        assert command_line.main(["sweep", *options]) == 1
    assert "is at work on it" in capsys.readouterr().err
    monkeypatch.setattr(sweep.importlib.util, "find_spec", lambda name: None)
    assert command_line.main(["sweep", *options]) == 1
    assert "make paper" in capsys.readouterr().err


# --- with the engine, and real runs at smoke scale ------------------------------------------------


def environment():
    return os.environ | {"PYTHONPATH": str(ROOT), "TFP_GAPS_CHECKPOINT_SECONDS": "0"}


def start(file, folder, log, *extra):
    """Start a sweep in a process group of its own, as a terminal would."""
    command = [sys.executable, "-m", "tfp_gaps", "sweep", "--file", str(file)]
    with open(log, "w") as stream:
        return subprocess.Popen(
            [*command, "--output", str(folder), *extra],
            env=environment(),
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def finish(process, log):
    assert process.wait(timeout=600) == 0, log.read_text()
    return log.read_text()


def kill_when(condition, process, log):
    """Kill the whole process group as soon as the condition holds."""
    deadline = time.monotonic() + 600
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def identity(path):
    return path.read_bytes(), path.stat().st_mtime_ns


def test_kill_9_during_a_sweep_loses_nothing_and_repeats_nothing(tmp_path):
    """Two runs; the sweep is killed in the training of the later one, and started again.

    The engine promises no order of runs that do not depend on each other.
    """
    folder, log = tmp_path / "results", tmp_path / "log"
    file = write_list(tmp_path / "list.yml", [0, 1])
    both = [entry.run for entry in runs.read_declared(file)]

    def in_the_later_one():
        stored = [run.path(folder).exists() for run in both]
        begun = [(r.checkpoints(folder / ".checkpoints") / "joint.npz").exists() for r in both]
        return any(stored) and not all(stored) and all(begun)

    process = start(file, folder, log)
    kill_when(in_the_later_one, process, log)
    first, second = sorted(both, key=lambda run: not run.path(folder).exists())
    assert {s.run.path(): s.status for s in examine(file, folder)} == {
        first.path(): "present",
        second.path(): "missing",
    }
    assert not list(second.path(folder).parent.glob(f"*{second.path().name}*"))
    before = identity(first.path(folder))
    # Locks end with their processes: nothing has to be unlocked.
    text = finish(start(file, folder, log), log)
    assert text.count(": written") == 1 and f"{second.path('results')}: written" in text
    assert identity(first.path(folder)) == before
    assert [s.status for s in examine(file, folder)] == ["present", "present"]

    # The run that was killed ends where a run without interruption ends, and so does an evaluation
    # from the checkpoints that were kept.
    after = stored(second, folder)
    assert runs.perform(second, folder=tmp_path / "straight") == "written"
    assert stored(second, tmp_path / "straight") == after
    assert runs.perform(second, folder=tmp_path / "straight", force=True) == "written"
    assert stored(second, tmp_path / "straight") == after


def examine(file, folder):
    return sweep.examine(runs.read_declared(file), folder)


def stored(run, folder):
    """The content of a result, without what differs from one time to the next."""
    content = sweep.load(run.path(folder))
    del content["provenance"]
    for history in content["history"].values():
        history.pop("seconds", None)
    return content


def test_the_engine_wants_exactly_what_is_missing(tmp_path):
    """Whatever the age of the results, and whatever a killed job has left."""
    folder, log = tmp_path / "results", tmp_path / "log"
    file = write_list(tmp_path / "list.yml", [0, 1, 2, "full"], with_static=True)
    for entry in WANTED[:3]:
        path = store(entry.run, folder)
        os.utime(path, (0, 0))
    WANTED[1].run.path(folder).unlink()
    text = finish(start(file, folder, log, "--", "--dry-run"), log)
    wanted = {line.split(": ")[1] for line in text.splitlines() if ": tfp-gaps run" in line}
    assert wanted == {WANTED[1].run.command, WANTED[3].run.command, STATIC.command}
