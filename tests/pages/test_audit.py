"""tools/audit.py: a lock is clean only if every package was looked at."""

import json
import sys

import pytest

import audit

LOCK = (
    "# made by make lock\nnumpy==2.0.2 \\\n    --hash=sha256:aa\nuv==0.1 \\\n    --hash=sha256:bb\n"
)
CLEAN = [{"name": "numpy", "version": "2.0.2", "vulns": []}]
BAD = {"name": "uv", "version": "0.1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["0.2"]}]}
SKIPPED = {"name": "uv", "skip_reason": "Dependency not found on PyPI and could not be audited"}


@pytest.fixture
def lock(tmp_path):
    path = tmp_path / "requirements.lock"
    path.write_text(LOCK)
    return path


def pip_audit(folder, dependencies, status=0, said=""):
    """A command that answers as pip-audit does; no dependencies, no JSON."""
    answer = "" if dependencies is None else json.dumps({"dependencies": dependencies, "fixes": []})
    script = folder / "pip_audit.py"
    script.write_text(
        f"import sys\nprint({answer!r})\nprint({said!r}, file=sys.stderr)\nsys.exit({status})\n"
    )
    return [sys.executable, str(script)]


@pytest.mark.parametrize(
    ("dependencies", "status", "said", "faults"),
    [
        ([*CLEAN, BAD | {"vulns": []}], 0, "No known vulnerabilities found", []),
        ([*CLEAN, BAD], 1, "", ["uv 0.1 has the known vulnerability PYSEC-1 (mended in 0.2)"]),
        # What pip-audit 2.9.0 answers without --strict when it cannot reach the service.
        ([*CLEAN, SKIPPED], 0, "No known vulnerabilities found", ["1 of 2 packages were not"]),
        ([], 0, "No known vulnerabilities found", ["2 of 2 packages were not looked at (numpy"]),
        (None, 1, "ERROR: uv: could not be audited", ["status 1 and said: ERROR: uv: could not"]),
        (None, 0, "", ["could not be audited: pip-audit ended with status 0 and said: nothing"]),
        ([*CLEAN, BAD | {"vulns": []}], 1, "", ["pip-audit ended with status 1"]),
    ],
)
def test_only_a_lock_that_was_looked_at_is_clean(
    tmp_path, lock, capsys, dependencies, status, said, faults
):
    command = pip_audit(tmp_path, dependencies, status, said)
    assert audit.main([lock], command) == (1 if faults else 0)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and str(lock) in lines[0]
    for fault in faults:
        assert fault in lines[0]
        assert "make lock" in lines[0] or "Check the network and run `make audit`" in lines[0]


def test_without_the_command_the_remedy_is_named(lock):
    [fault] = audit.audit(lock, ["/none/uv"])
    assert "could not be audited" in fault and "make env" in fault


def test_all_locks_are_audited():
    assert set(audit.LOCKS) == {path.name for path in audit.ROOT.glob("*.lock")}
