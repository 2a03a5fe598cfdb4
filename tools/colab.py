"""The first cell of every chapter, which fetches the book on Colab, and its trial without Colab.

    python tools/colab.py write                                  put the cell into all chapters
    python tools/colab.py try --python 3.13 --tensorflow 2.20    run a chapter as Colab would

A trial makes an environment that holds what Colab brings and nothing of this book, without npm,
and executes the chapter there, unchanged, in an empty folder: its first cell, which believes to be
on Colab, clones the last commit of this checkout in place of the public address. It fails unless
every checked cell prints what the stored chapter printed. What Colab adds to Python and its
packages (its kernel, its patches, a GPU) is not part of the trial.
"""

import argparse
import copy
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import tomllib

import nbformat

import checks
import finishing
import notebooks
from notebooks import ChapterError, Project

ROOT = pathlib.Path(__file__).resolve().parent.parent
CELL = """\
# On Colab the book is not there yet; everywhere else this cell does nothing.
import importlib.util
import os
import subprocess
import sys

if "google.colab" in sys.modules and importlib.util.find_spec("tfp_gaps") is None:
    folder = os.path.abspath("tale-of-gaps")
    commands = [[sys.executable, f"{folder}/tools/hosted.py"]]
    if not os.path.isdir(folder):
        address = "{address}"
        commands.insert(0, ["git", "clone", "--quiet", "--depth", "1", address, folder])
    for command in commands:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"The book is not ready: {done.stdout} Run this cell again.")
    sys.path.insert(0, folder)
    os.chdir(f"{folder}/book")"""
# What Colab has of what the book needs. Not arviz-stats, nor what builds pages.
BROUGHT = (
    "tensorflow-probability==0.25.* numpy scipy matplotlib h5py pooch pyyaml pip ipykernel nbclient"
)
STAND_IN = """import sys, types
sys.modules["google.colab"] = types.ModuleType("google.colab")"""
VERSIONS = """import importlib.metadata, sys
print("Python", sys.version.split()[0])
for name in ("tensorflow", "tf-keras", "tensorflow-probability", "numpy", "arviz-stats"):
    print(name, importlib.metadata.version(name))"""


def cell(root=ROOT):
    """Return the source of the cell, with the address that pyproject.toml gives."""
    return CELL.replace("{address}", repository(root))


def repository(root=ROOT):
    """Return the public address of the project."""
    content = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return content["project"]["urls"]["Repository"]


def write(project, _options):
    """Put the cell into all chapters; they have to be executed afterwards."""
    for name in project.chapters():
        notebook = notebooks.read(project.path(name))
        notebooks.code_cells(notebook)[0].source = cell(project.root)
        finishing.tidy(notebook)
        notebooks.write(project.path(name), notebook)


def attempt(project, options):
    """Run a chapter as Colab would, in a fresh environment.

    Raises:
        ChapterError: if the environment cannot be made, a cell fails, or a checked cell prints
            something else than is stored.
    """
    stored = notebooks.read(project.path(options.chapter))
    with tempfile.TemporaryDirectory() as folder:
        environment = pathlib.Path(folder) / "environment"
        _make_environment(environment, options.python, options.tensorflow)
        content = pathlib.Path(folder) / "content"
        content.mkdir()
        executed, versions = _execute(project, environment, content, stored)
    if _printed(executed) != _printed(stored):
        raise ChapterError(
            f"{options.chapter} should print {_printed(stored)}, but with {versions} it prints "
            f"{_printed(executed)}."
        )
    print(f"{options.chapter} prints what is stored, with {versions}.")


def _make_environment(environment, python, tensorflow):
    """Make what Colab brings, with this Python and this TensorFlow, and git, which Colab has."""
    uv = [ROOT / ".venv/bin/uv", "--no-config"]
    packages = [f"tensorflow=={tensorflow}.*", f"tf-keras=={tensorflow}.*", *BROUGHT.split()]
    _run([*uv, "venv", "--quiet", "--python", python, environment])
    _run([*uv, "pip", "install", "--quiet", "--python", environment / "bin/python", *packages])
    (environment / "bin/git").symlink_to(shutil.which("git"))


def _execute(project, environment, content, stored):
    """Execute a copy of the chapter; return it without the two cells around it, and versions."""
    trial = copy.deepcopy(stored)
    cells = [nbformat.v4.new_code_cell(source) for source in (STAND_IN, VERSIONS)]
    trial.cells = [cells[0], *trial.cells, cells[1]]
    path = content / f"{environment.name}.ipynb"
    notebooks.write(path, trial)
    # Neither npm nor this checkout is to be found; git takes the checkout for the public address.
    settings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "PATH": str(environment / "bin"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{project.root.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": repository(project.root),
    }
    command = [environment / "bin/jupyter-execute", "--inplace", "--timeout", "600", path]
    _run(command, cwd=content, env=settings)
    executed = notebooks.read(path)
    *executed.cells, last = executed.cells[1:]
    return executed, ", ".join(last.outputs[0].text.splitlines())


def _run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        shown = " ".join(map(str, command))
        raise ChapterError(f"{shown} ended with status {done.returncode}:\n{done.stderr[-3000:]}")


def _printed(notebook):
    """What the checked cells print."""
    return [
        output.text
        for cell in notebooks.code_cells(notebook)
        if cell.source.startswith(checks.CHECKED)
        for output in cell.outputs
        if output.output_type == "stream"
    ]


def main(arguments=None, root=ROOT):
    """Run one command and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    writing = commands.add_parser("write", help="put the cell into all chapters")
    writing.set_defaults(command=write)
    trying = commands.add_parser("try", help="run a chapter as Colab would")
    trying.set_defaults(command=attempt)
    trying.add_argument("--python", required=True, help="a version, or the path of one")
    trying.add_argument("--tensorflow", required=True, help="a minor version, such as 2.20")
    trying.add_argument("--chapter", default="elbo", help="page name; elbo by default")
    options = parser.parse_args(arguments)
    try:
        options.command(Project(root), options)
    except ChapterError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
