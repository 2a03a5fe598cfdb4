"""tools/build.py and tools/address.py: whose buttons, one build at a time, what stops a build."""

import os
import pathlib
import resource
import shutil
import subprocess
import sys
import threading
import time

import pytest
import yaml

import address
import build
from tfp_gaps.book import runs

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        ("https://github.com/owner/name", "https://github.com/owner/name"),
        ("https://github.com/owner/na.me.git", "https://github.com/owner/na.me"),
        ("http://user:secret@GitHub.com:8080/owner/name.git/", "https://github.com/owner/name"),
        ("git@github.com:owner/name.git", "https://github.com/owner/name"),
        ("ssh://git@gitlab.com:22/group/part/name.git", "https://gitlab.com/group/part/name"),
        ("git://codeberg.org/owner/name", "https://codeberg.org/owner/name"),
        ("/srv/mirrors/name.git", None),
        ("../name", None),
        ("file:///srv/mirrors/name.git", None),
        ("https://localhost/owner/name", None),
        ("https://github.com/name", None),
        ("", None),
    ],
)
def test_a_remote_becomes_a_public_address_or_none(remote, expected):
    assert address.normalise(remote) == expected


def test_the_address_is_that_of_origin(tmp_path):
    assert address.repository(tmp_path) is None
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "remote", "add", "upstream", "https://github.com/a/b"], check=True)
    assert address.repository(tmp_path) is None
    subprocess.run([*git, "remote", "add", "origin", "git@github.com:owner/fork.git"], check=True)
    assert address.repository(tmp_path) == "https://github.com/owner/fork"


@pytest.mark.parametrize(
    ("repository", "launchers", "buttons"),
    [
        ("https://github.com/owner/fork", True, True),
        ("https://codeberg.org/owner/fork", False, True),
        (None, False, False),
    ],
)
def test_buttons_lead_to_the_address_or_are_not_there(tmp_path, repository, launchers, buttons):
    settings = yaml.safe_load(build._config(tmp_path, ROOT, repository).read_text())
    assert ("launch_buttons" in settings) is launchers
    assert settings["html"]["use_repository_button"] is buttons
    assert settings.get("repository", {}).get("url") == repository
    # The rest is what stands in the file.
    stored = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert "url" not in stored["repository"]
    assert settings["sphinx"] == stored["sphinx"] and settings["parse"] == stored["parse"]


@pytest.fixture
def no_work(monkeypatch):
    """Replace what a build fetches and computes; the list of builds that were begun."""
    begun = []
    monkeypatch.setattr(build.mathjax, "provide", lambda: None)
    monkeypatch.setattr(build, "build", lambda *_, **options: begun.append(options) or 0)
    return begun


def test_a_second_build_says_that_the_first_is_at_work_and_waits(tmp_path, no_work, capsys):
    with runs.exclusive(tmp_path / "_build/build.lock", "building the pages"):
        second = threading.Thread(target=build.main, args=(tmp_path,))
        second.start()
        limit, said = time.monotonic() + 20, ""
        while "waiting" not in said and time.monotonic() < limit:
            said += capsys.readouterr().err
            time.sleep(0.02)
        assert f"waiting for process {os.getpid()}" in said
        assert "at work on «building the pages»" in said and no_work == []
    second.join(timeout=20)
    assert len(no_work) == 1


def test_without_room_a_build_does_not_begin(tmp_path, no_work, monkeypatch, capsys):
    usage = shutil.disk_usage(tmp_path)._replace(free=5_000_000)
    monkeypatch.setattr(build.shutil, "disk_usage", lambda path: usage)
    assert build.main(tmp_path) == 1 and no_work == []
    said = capsys.readouterr().err
    assert "need 200 MB, but only 5 MB are free" in said and "Make room" in said


def test_a_tree_that_cannot_be_written_is_named(tmp_path, no_work, capsys):
    (tmp_path / "_build").write_text("no folder")
    assert build.main(tmp_path) == 1 and no_work == []
    said = capsys.readouterr().err
    assert "Choose a folder that can be written" in said and str(tmp_path / "_build") in said
    assert said.count("\n") == 1


def test_a_full_disk_is_named(tmp_path):
    def no_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    command = [sys.executable, "tools/build.py", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, preexec_fn=no_room)
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"The pages cannot be built: expected to write the lock file {tmp_path}/_build/build.lock, "
        f"but the system said: File too large."
    )
    assert done.stderr.count("\n") == 1


def test_a_build_that_a_signal_ends_is_no_success(tmp_path, monkeypatch):
    monkeypatch.setattr(build.pages, "write", lambda root: None)
    monkeypatch.setattr(
        build.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, -9)
    )
    with pytest.raises(build.BuildError, match="killed by signal SIGKILL, which is how the system"):
        build.build(tmp_path)
