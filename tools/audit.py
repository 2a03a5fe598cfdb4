"""Compare the packages of all lock files with the known vulnerabilities: python tools/audit.py

pip-audit ends well, with "no known vulnerabilities", also when it could look at nothing. Here a
lock is clean only if every one of its packages was looked at.
"""

import json
import pathlib
import subprocess
import sys

import staleness

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOCKS = (
    "requirements.lock",
    "requirements-tools.lock",
    "requirements-gpu.lock",
    "requirements-uv.lock",
)
PIP_AUDIT = (
    ".venv/bin/uv",
    "--no-config",
    "tool",
    "run",
    "--from",
    "pip-audit==2.9.0",
    "pip-audit",
)
OPTIONS = ("--strict", "--require-hashes", "--disable-pip", "--progress-spinner", "off")
REMEDY = "Check the network and run `make audit` again; until then nothing is known of this lock."


def audit(lock, pip_audit=PIP_AUDIT):
    """Return what is wrong with a lock, as sentences; none if every package was found clean."""
    command = [*pip_audit, *OPTIONS, "--format", "json", "--requirement", str(lock)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError as error:
        return [f"{lock} could not be audited: {error}. Run `make env`, then `make audit`."]
    try:
        found = {entry["name"]: entry for entry in json.loads(done.stdout)["dependencies"]}
    except (ValueError, KeyError):
        said = " ".join(done.stderr.split())[-300:] or "nothing"
        return [
            f"{lock} could not be audited: pip-audit ended with status {done.returncode} and said: "
            f"{said}. {REMEDY}"
        ]
    faults = [
        f"{lock}: {name} {entry['version']} has the known vulnerability {each['id']} (mended in "
        f"{', '.join(each['fix_versions']) or 'no version yet'}). Run `make lock`."
        for name, entry in found.items()
        for each in entry.get("vulns", [])
    ]
    pinned = [pin.split("==")[0] for pin in staleness.pins(lock)]
    missed = [name for name in pinned if "vulns" not in found.get(name, {})]
    if missed or not pinned:
        faults.append(
            f"{lock}: {len(missed)} of {len(pinned)} packages were not looked at "
            f"({', '.join(missed[:3])}{', …' if missed[3:] else ''}). {REMEDY}"
        )
    elif done.returncode and not faults:
        faults.append(f"{lock}: pip-audit ended with status {done.returncode}. {REMEDY}")
    return faults


def main(locks=LOCKS, pip_audit=PIP_AUDIT):
    """Audit each lock and return the exit status: 0 only if all were looked at and are clean."""
    faults = []
    for lock in locks:
        found = audit(ROOT / lock, pip_audit)
        print("\n".join(found) or f"{lock}: every package was looked at, none is known to be bad")
        faults += found
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
