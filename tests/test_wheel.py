"""The wheel: whole, and fit for measuring where there is no checkout and none of the extras."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Of the dependencies these are the book's alone: figures, data, lists.
BOOK = ("matplotlib", "h5py", "pooch", "yaml")
USE = """
import sys
for name in {missing!r}:
    sys.modules[name] = None  # as if it were not installed
import numpy as np
import tfp_gaps
from tfp_gaps._tensorflow import tfp
tfd = tfp.distributions
assert tfp_gaps.__file__.startswith({site!r}), tfp_gaps.__file__
joint = tfd.JointDistributionNamed({{"z": tfd.Normal(0.0, 1.0), "x": lambda z: tfd.Normal(z, 1.0)}})
model = tfp_gaps.Model(joint, "x", example=0.0)
effort = tfp_gaps.Effort(num_samples=50, search_steps=200, num_chains=2, num_temperatures=5)
found = tfp_gaps.measure(
    model, lambda x: tfd.Normal(x / 2, 0.5**0.5), [0.0, 2.0], seed=0, effort=effort)
print(*found.bounds["ELBO"])
"""


def without_caches(folder, names):
    return {name for name in names if name == "__pycache__"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of the checkout; nothing is fetched."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT / "tfp_gaps", source / "tfp_gaps", ignore=without_caches)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_holds_every_file_of_the_package(wheel):
    with zipfile.ZipFile(wheel) as file:
        packed = {name for name in file.namelist() if name.startswith("tfp_gaps/")}
    there = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tfp_gaps").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == there and len(there) > 50


def importable(requirement):
    """The modules of an installed distribution; none of one that is not there."""
    name = re.match(r"[\w.-]+", requirement).group().lower().replace("_", "-")
    modules = importlib.metadata.packages_distributions().items()
    return [module for module, owners in modules if name in {o.lower() for o in owners}]


def test_the_wheel_measures_without_a_checkout_and_without_extras(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path / "site")
    extras = {item for items in PROJECT["optional-dependencies"].values() for item in items}
    extras = {item for item in extras if not item.startswith(("setuptools", "tensorflow"))}
    missing = sorted({*BOOK, *(name for item in extras for name in importable(item))})
    assert {"pandas", "arviz_base", "jupyter_book", "pytest"} <= set(missing)
    site = str(tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-c", USE.format(missing=missing, site=site)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": site},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    first, second = map(float, done.stdout.split())
    assert abs(first + 1.2655) < 1e-3 and abs(second + 2.2655) < 1e-3  # ln N(x; 0, 2)
