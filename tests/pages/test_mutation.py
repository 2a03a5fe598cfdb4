"""The tools that break things: mutants are what they say, and reasons belong to survivors."""

import ast
import pathlib

import pytest
import yaml

import mutation

SOURCE = '''"""Doc 1 + 1."""
def area(width: int, height=2.0, *, flip=False):
    if width < 0 or not flip:
        raise ValueError("1 + 1" + str(2))
    check(width)
    return -width * height.T ** 2
'''


def test_each_kind_of_change_is_made_once_and_the_rest_is_left_alone():
    found = {(line, before, after) for line, before, after, _ in mutation.mutants(SOURCE)}
    assert found == {
        (2, "2.0", "3.0"),
        (2, "False", "True"),
        (3, "<", "<="),
        (3, "0", "1"),
        (3, "or", "and"),
        (3, "not flip", "flip"),
        (5, "check(width)", "pass"),
        (6, "-width", "width"),
        (6, "*", "/"),
        (6, "**", "*"),
        (6, "height.T", "height"),
        (6, "2", "3"),
    }


def test_a_mutant_differs_in_its_place_only():
    for line, before, after, changed in mutation.mutants(SOURCE):
        ast.parse(changed)
        old, new = (text.splitlines()[line - 1] for text in (SOURCE, changed))
        assert old != new and before in old and after in new
        rest = [text.splitlines() for text in (SOURCE, changed)]
        assert all(a == b for i, (a, b) in enumerate(zip(*rest, strict=True)) if i != line - 1)


def test_the_same_seed_draws_the_same_ones():
    assert mutation.draw("gaps", 5, 0) == mutation.draw("gaps", 5, 0)
    assert mutation.draw("gaps", 5, 0) != mutation.draw("gaps", 5, 1)


@pytest.mark.parametrize("group", mutation.GROUPS)
def test_every_module_of_a_group_has_tests(group):
    for path in mutation.GROUPS[group]:
        own, *files = mutation.tests_of(path)
        assert own == path and (mutation.ROOT / path).is_file()
        # None is dropped for a wrong name.
        assert len(files) >= max(1, len(mutation.ELSEWHERE.get(path, [])))


def test_what_stands_for_a_module_belongs_to_a_group():
    known = {path for paths in mutation.GROUPS.values() for path in paths}
    assert set(mutation.ELSEWHERE) <= known


def test_a_survivor_finds_its_reason(tmp_path):
    path = tmp_path / "reasons.yml"
    entry = {"path": "a.py", "before": "1", "after": "2", "line": 3, "reason": "memory"}
    path.write_text(yaml.safe_dump([entry]))
    survivor = {"path": "a.py", "before": "1", "after": "2", "line": 3}
    assert mutation.reason_of(survivor, path) == "memory"
    assert mutation.reason_of(survivor | {"line": 4}, path) == ""
    assert mutation.reason_of(survivor, tmp_path / "none.yml") == ""


def test_the_score_of_everything_has_no_error():
    share, error = mutation.score({"tried": 20, "mutants": 20, "survivors": [{}] * 2})
    assert (share, error) == (0.9, 0.0)
    assert mutation.score({"tried": 20, "mutants": 2000, "survivors": [{}] * 2})[1] > 0.06


def test_reasons_name_modules_that_exist():
    for entry in yaml.safe_load(mutation.REASONS.read_text(encoding="utf-8")):
        assert (pathlib.Path(mutation.ROOT) / entry["path"]).is_file()
        assert entry["reason"].strip()
