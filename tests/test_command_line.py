"""The command line as a person and a script meet it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tfp_gaps import __main__ as command_line
from tfp_gaps import results


def run(*arguments):
    return command_line.main(list(arguments))


def smoke(folder, *extra):
    return ["run", "digits", "--scale", "smoke", "--output", str(folder), *extra]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "faces"], "invalid choice: 'faces' (choose from 'digits')"),
        (["run", "digits", "--scale", "huge"], "invalid choice: 'huge'"),
        (["run", "digits", "--lookahead", "-1"], "argument --lookahead"),
        (["run", "digits", "--lookahead", "most"], "expected 0, 1, 2, ... or full"),
        (["run", "digits", "--seeds", "1.5"], "expected an integer"),
        (["data", "fetch", "faces"], "invalid choice"),
        ([], "required: COMMAND"),
    ],
)
def test_bad_use_ends_with_status_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.out == ""


def test_repeated_seeds_and_unwritable_folder(tmp_path, capsys):
    assert run(*smoke(tmp_path, "--seeds", "1", "1")) == 1
    assert "seeds must differ" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert run(*smoke(tmp_path / "file")) == 1
    assert "Choose a folder that can be written" in capsys.readouterr().err
    assert run("verify", str(tmp_path / "file")) == 1
    assert "should be a stored result" in capsys.readouterr().out


def test_list_and_verify_speak_json(capsys):
    assert run("list", "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == {"experiment": "digits", "scales": ["smoke", "book", "paper"]}
    assert run("verify", "--json") == 0
    assert all(json.loads(line)["ok"] for line in capsys.readouterr().out.splitlines())


def result_without_time(folder):
    (path,) = folder.glob("smoke/*.json")
    content = results.load(path)
    content.pop("provenance")
    return content


def test_a_killed_run_resumes_to_the_identical_result(tmp_path, capsys):
    assert run(*smoke(tmp_path / "straight", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "written"

    folder = tmp_path / "killed"
    environment = os.environ | {"TFP_GAPS_CHECKPOINT_SECONDS": "0"}
    command = [sys.executable, "-m", "tfp_gaps", *smoke(folder)]
    with subprocess.Popen(command, env=environment) as process:
        deadline = time.monotonic() + 120
        while not list(folder.glob(".checkpoints/*/*/joint.npz")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not list(folder.glob("smoke/*"))
    assert run(*smoke(folder)) == 0
    assert result_without_time(folder) == result_without_time(tmp_path / "straight")
    assert not list(folder.glob(".checkpoints/*/*"))

    capsys.readouterr()
    assert run(*smoke(folder)) == 0
    assert "already there" in capsys.readouterr().out
