#!/usr/bin/env bash
# Make .venv hold exactly requirements.lock, requirements-tools.lock and this package, nothing else.
# With the argument "uv": only the environment and its installer, for writing the lock.
set -euo pipefail
cd "$(dirname "$0")/.."

is_python_311() {
    "$@" -c 'import sys, venv; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null
}

find_python() {
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3 python; do
        if is_python_311 "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "Python 3.11 is needed, but neither python3.11 nor python3 is that version (or its venv" \
        "module is missing: on Debian install python3.11-venv). Install it, or name it:" \
        "make PYTHON=/path/to/python3.11 ..." >&2
    exit 1
}

if ! is_python_311 .venv/bin/python || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    echo "Creating .venv with $("$python" --version)" >&2
    rm -rf .venv
    "$python" -m venv .venv
fi
rm -f .venv/.installed

# uv installs the lock in seconds where pip takes minutes; pip installs uv itself, by hash.
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
    --only-binary :all: -r requirements-uv.lock
if [[ "${1:-}" == uv ]]; then
    exit
fi
echo "Installing requirements.lock and requirements-tools.lock into .venv" >&2
export VIRTUAL_ENV="$PWD/.venv"
.venv/bin/uv --no-config pip sync --quiet --require-hashes --build-constraints requirements.lock \
    requirements.lock requirements-tools.lock
# Built with the setuptools of the lock, so that nothing else is fetched.
.venv/bin/uv --no-config pip install --quiet --no-deps --no-build-isolation --editable .
touch .venv/.installed
