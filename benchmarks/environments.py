"""Make the environments of the peers: .bench/torch and .bench/jax, each from its own lock.

    python -m benchmarks.environments lock     resolve the peers' dependencies anew

The package's own environment stays untouched: the frameworks agree on no version of NumPy, and each
brings its own runtime. PyTorch comes without CUDA: from the folder named by UV_FIND_LINKS or
PIP_FIND_LINKS if there is one, else through uv's own list of PyTorch's builds for the CPU.
"""

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / ".bench"
REQUIREMENTS = {
    "torch": ("torch==2.13.0", "numpy"),
    "jax": ("jax[cpu]", "optax"),
}


class PeerError(RuntimeError):
    """A peer's environment could not be made; the message says why."""


def lock_path(name):
    """Return the path of the hashed requirements of the peer `name`."""
    return Path(__file__).with_name(f"requirements-{name}.lock")


def python_of(name):
    """Return the interpreter of the peer `name`, whose environment is made if it is missing.

    Raises:
      PeerError: if the environment cannot be made.
    """
    python, stamp = FOLDER / name / "bin" / "python", FOLDER / name / "lock"
    lock = lock_path(name).read_text()
    if not (stamp.exists() and stamp.read_text() == lock):
        print(f"Installing {lock_path(name).name} into .bench/{name}", file=sys.stderr)
        _make_folder()
        _uv("venv", "--quiet", "--clear", "--python", sys.executable, str(FOLDER / name))
        install = ["pip", "sync", "--quiet", "--require-hashes", "--python", str(python)]
        _uv(*install, *_torch_source(name), str(lock_path(name)))
        stamp.write_text(lock)
    return python


def _make_folder():
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / ".gitignore").write_text("*\n")


def _torch_source(name):
    folders = [Path(folder) for folder in _find_links().split(",")]
    has_wheel = any(folder.is_dir() and any(folder.glob("torch-*.whl")) for folder in folders)
    return ["--torch-backend", "cpu"] if name == "torch" and not has_wheel else []


def _find_links():
    """The folders of wheels that the environment names, in uv's notation."""
    return os.environ.get("UV_FIND_LINKS") or ",".join(os.environ.get("PIP_FIND_LINKS", "").split())


def _uv(*arguments):
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        raise PeerError(f"expected the installer {uv}, found none. Run `make env` first.")
    environment = dict(os.environ)
    if _find_links():
        environment["UV_FIND_LINKS"] = _find_links()
    done = subprocess.run(
        [uv, "--no-config", *arguments], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise PeerError(f"`uv {' '.join(arguments[:2])}` failed: {done.stderr.strip()[-600:]}")
    return done.stdout


def lock(name):
    """Resolve the requirements of the peer `name` and write its lock."""
    options = ["--python-version", "3.11", "--python-platform", "linux", "--generate-hashes"]
    header = ["--no-annotate", "--no-emit-index-url", "--no-header", "--upgrade"]
    source = FOLDER / f"requirements-{name}.in"
    _make_folder()
    source.write_text("\n".join(REQUIREMENTS[name]) + "\n")
    text = _uv("pip", "compile", *options, *header, *_torch_source(name), str(source))
    note = "# Written by: python -m benchmarks.environments lock\n"
    lock_path(name).write_text(note + text)


if __name__ == "__main__":
    if sys.argv[1:] != ["lock"]:
        sys.exit(__doc__)
    for peer in REQUIREMENTS:
        lock(peer)
