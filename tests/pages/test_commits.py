"""A stored result names a commit that a clone has."""

import subprocess

import commits


def test_a_commit_that_a_rewritten_branch_left_behind_is_found(tmp_path, monkeypatch):
    def git(*arguments):
        names = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", tmp_path, *names, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    made_by = {}
    for name in ("kept", "lost"):
        git("commit", "--quiet", "--allow-empty", "--message", name)
        made_by[tmp_path / f"{name}.json"] = git("rev-parse", "HEAD")
    monkeypatch.setattr(commits.runs, "stored_paths", lambda folder: list(made_by))
    monkeypatch.setattr(
        commits.results, "load", lambda path: {"provenance": {"commit": made_by[path]}}
    )
    assert list(commits.missing(tmp_path)) == []

    git("reset", "--quiet", "--hard", "HEAD~")
    lost = tmp_path / "lost.json"
    assert list(commits.missing(tmp_path)) == [(lost, made_by[lost])]

    # A merge that takes no file of it brings the commit back.
    git("merge", "--quiet", "-s", "ours", "--no-ff", "-m", "keep", made_by[lost])
    assert list(commits.missing(tmp_path)) == []
