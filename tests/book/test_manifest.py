"""The manifest of the stored results: written with them, and compared with what is there."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tfp_gaps.book import manifest

ORIGIN = {"command": "tfp-gaps run toy", "commit": "abc", "seconds": 1.0}
NAMES = ["toy/book/a.json", "toy/book/b.json", "toy/paper/a.json"]


@pytest.fixture
def folder(tmp_path):
    for name in NAMES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        manifest.record(tmp_path, path, ORIGIN)
    return tmp_path


def all_problems(folder):
    return manifest.problems(folder, folder.glob("*/*/*.json"), ["*"])


def test_what_is_listed_and_unchanged_is_no_problem(folder):
    entries = manifest.read(folder)
    assert list(entries) == NAMES
    # The SHA-256 of "toy/book/a.json", from sha256sum.
    assert entries[NAMES[0]] == {
        "sha256": "8e0fdb7d1aa87845a6f0a13cb2cbe4b33af9bf67d6046ade9c8bb1cf7ddbae9a",
        "command": "tfp-gaps run toy",
        "commit": "abc",
    }
    assert all_problems(folder) == []


def test_edited_added_and_removed_files_are_named(folder):
    (folder / NAMES[0]).write_text("other")
    (folder / NAMES[1]).unlink()
    (folder / "toy/book/c.json").write_text("new")
    edited, missing, added = all_problems(folder)
    assert "toy/book/a.json should have the checksum" in edited and "was edited" in edited
    assert "toy/book/b.json is listed in MANIFEST.json but missing" in missing
    assert "make it again: tfp-gaps run toy" in missing
    assert "toy/book/c.json is not listed in MANIFEST.json" in added


def test_only_what_is_expected_must_be_there(folder):
    (folder / NAMES[2]).unlink()
    present = [folder / name for name in NAMES[:2]]
    assert manifest.problems(folder, present, ["toy/book/*.json"]) == []
    assert manifest.problems(folder, present[:1]) == []
    [said] = manifest.problems(folder, present[:1], ["toy/paper/*.json"])
    assert "toy/paper/a.json is listed" in said


def test_a_result_that_is_stored_again_replaces_its_entry(folder):
    path = folder / NAMES[0]
    path.write_text("again")
    manifest.record(folder, path, ORIGIN | {"commit": "def"})
    assert all_problems(folder) == []
    assert manifest.read(folder)[NAMES[0]]["commit"] == "def" and len(manifest.read(folder)) == 3


def test_runs_that_end_at_once_lose_no_entry(folder):
    paths = [folder / f"toy/book/run{number}.json" for number in range(40)]
    for path in paths:
        path.write_text(path.name)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda path: manifest.record(folder, path, ORIGIN), paths))
    assert all_problems(folder) == [] and len(manifest.read(folder)) == 43


@pytest.mark.parametrize("content", [None, "", "[]", '{"a": 1}', '{"a": {"sha256": ""}}'])
def test_an_unreadable_manifest_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / manifest.NAME).write_text(content)
    with pytest.raises(manifest.ManifestError, match=r"MANIFEST\.json should list the stored"):
        manifest.read(tmp_path)


def test_the_manifest_is_written_a_line_per_result(folder):
    lines = (folder / manifest.NAME).read_text().splitlines()
    assert len(lines) == len(NAMES) + 2
    assert all(json.loads(f"{{{line.rstrip(',')}}}") for line in lines[1:-1])
