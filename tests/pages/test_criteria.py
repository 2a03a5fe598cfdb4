"""A criterion that is replaced leaves a trace: the history of claims.yml is compared with it."""

import subprocess

import pytest
import yaml

import criteria

CRITERION = {
    "name": "wetness",
    "rule": "at_least",
    "bound": 1.0,
    "margin": 0.5,
    "why": "wet is wet",
    "set": "2026-01-01 01234567",
}
FORMER = {
    "name": "wetness",
    "rule": "at_least",
    "bound": 1.0,
    "found": "0.9",
    "outcome": "failed",
    "until": "2026-01-02",
    "why": "too strict",
}


@pytest.fixture
def commit(tmp_path):
    """Commit a claims file of one claim with one criterion, on a date."""
    (tmp_path / "book").mkdir()

    def git(*arguments):
        names = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", tmp_path, *names, *arguments], check=True)

    git("init", "--quiet")

    def commit(date, criterion, *, was=(), key="criteria"):
        entry = {"id": "C01", "statement": "Water is wet.", "source": ["somebody2020"]}
        entry |= {"kind": "qualitative", "chapter": "water", "criteria": [CRITERION]}
        entry |= {"was": list(was), key: [criterion]}
        (tmp_path / "book/claims.yml").write_text(yaml.safe_dump([entry]))
        git("add", ".")
        git("commit", "--quiet", "--message", "x", f"--date={date}T12:00:00+0000")
        return list(criteria.problems(tmp_path))

    return commit


def test_what_was_replaced_must_be_kept(commit):
    assert commit("2026-01-01", CRITERION) == []
    lower = CRITERION | {"bound": 0.5, "set": "2026-01-02 01234567"}
    (problem,) = commit("2026-01-02", lower)
    assert "C01: 'wetness' (margin {0.5}) is gone or changed" in problem
    assert commit("2026-01-03", lower, was=[FORMER]) == []


def test_a_margin_that_changes_must_be_kept(commit):
    commit("2026-01-01", CRITERION)
    (problem,) = commit("2026-01-02", CRITERION | {"margin": 2.0})
    assert "(margin {0.5})" in problem
    assert commit("2026-01-03", CRITERION | {"margin": 2.0}, was=[FORMER | {"margin": 0.5}]) == []


def test_a_caveat_that_changes_its_words_must_be_kept(commit):
    dry = CRITERION | {"name": "dryness", "text": "Not dry."}
    commit("2026-01-01", dry, key="caveats")
    damp = dry | {"text": "A little damp.", "set": "2026-01-02 01234567"}
    (problem,) = commit("2026-01-02", damp, key="caveats")
    assert "(Not dry.) (margin {0.5}) is gone or changed" in problem
    former = [FORMER | {"name": "dryness", "margin": 0.5, "text": "Not dry."}]
    assert commit("2026-01-03", damp, key="caveats", was=former) == []


def test_dates_are_those_of_the_first_commit(commit):
    (problem,) = commit("2026-01-05", CRITERION)
    assert problem == "C01: 'wetness' was set on 2026-01-05, not on 2026-01-01."
    (problem,) = commit("2026-01-06", CRITERION | {"set": "2026-01-06 01234567"})
    assert "was set on 2026-01-05" in problem
