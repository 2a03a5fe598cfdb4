"""The first cell and what it runs on Colab: it succeeds, or says in a sentence what is wrong."""

import os
import subprocess
import sys

import pytest

import colab
import hosted

PROJECT = {
    "requires-python": ">=3.11,<3.14",
    "dependencies": ["tensorflow>=2.18,<2.21", "arviz-stats>=0.6"],
}


def run_cell(folder, before="", after=""):
    """Run the cell in a Python of its own, in which nothing of the book is installed."""
    (folder / "cell.py").write_text(f"{before}\n{colab.cell()}\n{after}")
    return subprocess.run(
        [sys.executable, "-I", "-S", "cell.py"],
        cwd=folder,
        env=os.environ | {"PATH": str(folder)},
        capture_output=True,
        text=True,
    )


def fake_git(folder, script):
    (folder / "git").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "git").chmod(0o755)


def fake_clone(folder, script):
    """A git that makes the folder it is asked for, with `script` as the tool that adds packages."""
    (folder / "hosted.py").write_text(script)
    fake_git(
        folder,
        'for target; do :; done; /bin/mkdir -p "$target/tools" "$target/book" "$target/tfp_gaps"\n'
        f'/bin/cp {folder}/hosted.py "$target/tools"; : > "$target/tfp_gaps/__init__.py"',
    )


def test_elsewhere_the_cell_does_nothing(tmp_path):
    done = run_cell(tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["cell.py"]


def test_on_colab_the_running_python_finds_the_clone(tmp_path):
    fake_clone(tmp_path, "")
    after = "import tfp_gaps\nprint(tfp_gaps.__file__, os.getcwd())"
    done = run_cell(tmp_path, colab.STAND_IN, after)
    clone = tmp_path / "tale-of-gaps"
    assert done.stdout.split() == [f"{clone}/tfp_gaps/__init__.py", f"{clone}/book"], done.stderr


@pytest.mark.parametrize("what", ["git", "packages"])
def test_a_failure_stops_the_cell_with_what_was_said(tmp_path, what):
    if what == "git":
        fake_git(tmp_path, "echo fatal: no network >&2; exit 128")
    else:
        fake_clone(tmp_path, "raise SystemExit('fatal: no network')")
    done = run_cell(tmp_path, colab.STAND_IN, "print('went on')")
    assert done.returncode == 1 and done.stdout == ""
    assert "RuntimeError: The book is not ready: fatal: no network" in done.stderr


@pytest.mark.parametrize(
    ("there", "asked"),
    [
        ({"python": "3.13.0"}, ["tensorflow<2.21,>=2.18", "arviz-stats>=0.6"]),
        (
            {"python": "3.12.1", "tensorflow": "2.19.1"},
            ["tensorflow==2.19.1", "arviz-stats>=0.6"],
        ),
    ],
)
def test_what_is_there_keeps_its_version(there, asked):
    assert hosted.requirements(PROJECT, there.get) == asked


def test_what_does_not_fit_is_said_before_anything_changes():
    there = {"python": "3.14.0", "tensorflow": "2.22.1"}
    with pytest.raises(SystemExit) as stopped:
        hosted.requirements(PROJECT, there.get)
    for words in ("python<3.14,>=3.11, but finds 3.14.0", "but finds 2.22.1", "Change runtime"):
        assert words in str(stopped.value)


def test_a_command_that_fails_says_why():
    with pytest.raises(SystemExit, match="no bread; the last that it said: .*ovens"):
        hosted._run("no bread", "-c", "raise SystemExit('no ovens')")
