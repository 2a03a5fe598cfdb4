"""The command line as a person and a script meet it."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from tfp_gaps import storage
from tfp_gaps.book import command_line, results, runs
from tfp_gaps.book import data as data_sets

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments):
    return command_line.main(list(arguments))


def smoke(folder, *extra):
    return ["run", "digits", "--scale", "smoke", "--output", str(folder), *extra]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "faces"], "invalid choice: 'faces' (choose from 'digits'"),
        (["run", "digits", "--scale", "huge"], "invalid choice: 'huge'"),
        (["run", "digits", "--lookahead", "-1"], "argument --lookahead"),
        (["run", "digits", "--lookahead", "most"], "expected 0, 1, 2, ... or full"),
        (["run", "digits", "--seeds", "1.5"], "expected an integer"),
        (["data", "fetch", "faces"], "invalid choice"),
        (["sweep", "--cores", "0"], "expected a number, 1 or more"),
        (["verify", "--recompute", "none"], "expected a number, 1 or more"),
        ([], "required: COMMAND"),
    ],
)
def test_bad_use_ends_with_status_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.out == ""


def test_impossible_runs_end_with_status_2(tmp_path, capsys):
    assert run(*smoke(tmp_path, "--seeds", "1", "1")) == 2
    assert "seeds must differ" in capsys.readouterr().err
    assert run(*smoke(tmp_path, "--variant", "../x")) == 2
    assert "small letters" in capsys.readouterr().err
    assert run("sweep", "--file", str(tmp_path / "absent.yml"), "--dry-run") == 2
    assert "Name another file" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["0", "3", "full"])
def test_a_look_ahead_without_time_ends_with_status_2(tmp_path, capsys, value):
    assert run("run", "vae", "--output", str(tmp_path), "--lookahead", value) == 2
    assert "vae has no time and so no look-ahead" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "stem"),
    [
        (["vae", "--variant", "wide"], "vae/smoke/wide/seed0"),
        (["digits"], "digits/smoke/k0-seed0"),
        (["digits", "--lookahead", "full"], "digits/smoke/kfull-seed0"),
    ],
)
def test_a_run_is_stored_under_its_name(tmp_path, monkeypatch, capsys, arguments, stem):
    module = types.ModuleType("toy")
    module.VARIANTS, module.run = ("wide",), lambda **options: {"data": "made up"}
    monkeypatch.setitem(sys.modules, f"tfp_gaps.book.experiments.{arguments[0]}", module)
    assert run("run", *arguments, "--output", str(tmp_path)) == 0
    path = tmp_path / f"{stem}.json"
    assert capsys.readouterr().out == f"{path}: written\n"
    command = results.load(path)["provenance"]["command"]
    assert command.startswith(f"tfp-gaps run {arguments[0]} --scale smoke")
    assert ("--lookahead" in command) == (arguments[0] == "digits")


def test_unwritable_folder_and_foreign_files(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(*smoke(tmp_path / "file")) == 1
    assert "Choose a folder that can be written" in capsys.readouterr().err
    assert run("verify", str(tmp_path / "file")) == 1
    assert "should be a stored result" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("death", "status", "told"),
    [
        # Both while TensorFlow is loaded in silence.
        (
            "os.write(2, b'F0 cpu_feature_guard.cc: no AVX\\n'); os.abort()",
            134,
            "signal SIGABRT, native code gave up, often for want of memory; its last words were "
            "«F0 cpu_feature_guard.cc: no AVX»",
        ),
        ("os.kill(os.getpid(), 9)", 137, "signal SIGKILL, which is how the system ends what takes"),
    ],
)
def test_a_run_that_a_signal_kills_says_so(tmp_path, death, status, told):
    (tmp_path / "tensorflow.py").write_text(f"import os\n{death}\n")
    done = subprocess.run(
        [sys.executable, "-m", "tfp_gaps", *smoke(tmp_path / "results")],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status
    assert done.stderr.startswith(f"tfp-gaps: killed by {told}")
    assert "the same command continues from there" in done.stderr and done.stderr.count("\n") == 1


def test_a_run_is_asked_to_stop_through_the_process_that_watches_it(tmp_path):
    (tmp_path / "tensorflow.py").write_text("import time\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "tfp_gaps", *smoke(tmp_path / "results")],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        stderr=subprocess.PIPE,
        text=True,
    )
    lock = tmp_path / "results/.checkpoints/digits/smoke/k0-seed0.lock"
    while not (lock.is_file() and lock.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    _, said = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM and "signal SIGTERM" in said


def test_a_full_disk_and_a_cache_that_cannot_be_written_are_named(tmp_path, monkeypatch, capsys):
    done = subprocess.run(
        [sys.executable, "-m", "tfp_gaps", *smoke(tmp_path / "results")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert (
        f"the lock file {tmp_path}/results/.checkpoints/digits/smoke/k0-seed0.lock" in done.stderr
    )
    assert "File too large. Choose a folder that can be written (and has room)" in done.stderr
    # A file where the folder of the cache should be.
    (tmp_path / "cache").write_text("")
    monkeypatch.setitem(
        data_sets.FILES, "digits", lambda: storage.write_atomically(tmp_path / "cache/a", b"1")
    )
    assert run("data", "fetch", "digits") == 1
    said = capsys.readouterr().err
    assert f"{tmp_path}/cache/a, but the system said: " in said and "XDG_CACHE_HOME" in said


def test_a_run_that_another_process_works_on(tmp_path, capsys):
    lock = tmp_path / ".checkpoints/digits/smoke/k0-seed0.lock"
    with runs.exclusive(lock, "the same run"):
        assert run(*smoke(tmp_path)) == 1
    assert "is at work on it. Wait until that one has ended" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["list"], ["verify"], ["data", "path", "uav"]])
def test_commands_that_compute_nothing_do_not_load_tensorflow(arguments):
    code = (
        "import sys; from tfp_gaps.book.command_line import main; status = main(sys.argv[1:]);"
        "sys.exit('TensorFlow was loaded' if 'tensorflow' in sys.modules else status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_list_and_verify_speak_json(capsys):
    assert run("list", "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == {"experiment": "digits", "scales": ["smoke", "book", "paper"]}
    assert len(lines) == len(runs.NAMES) + len(runs.stored_paths())
    assert run("list") == 0
    shown = capsys.readouterr().out
    for name in runs.NAMES:
        (line,) = (line for line in shown.splitlines() if line.startswith(f"{name}: --scale"))
        assert ("--lookahead" in line) == (name not in runs.STATIC)
    assert run("verify", "--json") == 0
    assert all(json.loads(line)["ok"] for line in capsys.readouterr().out.splitlines())
