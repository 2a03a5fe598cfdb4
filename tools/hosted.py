"""Add the packages that the book needs and a hosted notebook lacks, and check that they work.

The first cell of every chapter runs this on Colab, with the notebook's own Python and before
anything of the book is installed. What is there keeps its version, since the running kernel may
have imported it already: pip adds what is missing, to fit; what is there and does not fit is said.
"""

import pathlib
import subprocess
import sys
import tomllib
from importlib import metadata

from packaging.requirements import Requirement

ROOT = pathlib.Path(__file__).resolve().parent.parent
OTHER_RUNTIME = (
    "Choose another version under Runtime > Change runtime type, or open the chapter on Binder."
)
# The parts that only work together: TensorFlow, its Keras 2, and TensorFlow Probability.
TRY = """from tfp_gaps._tensorflow import tf, tfp
tfp.distributions.Normal(0.0, 1.0).log_prob(tf.ones([]))"""


def main(root=ROOT, installed=None):
    """Install and check; ends with one sentence if the book cannot be used here."""
    installed = _installed if installed is None else installed
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = requirements(project, installed)
    _run("pip could not add what the book needs", "-m", "pip", "install", "--quiet", *wanted)
    _run("TensorFlow does not work together with this book", "-c", TRY, cwd=root)


def requirements(project, installed):
    """What to ask pip for: the dependencies, each at the version that is there already.

    Args:
      project: the table of that name in pyproject.toml.
      installed: function from the name of a package to its version, None if it is not there.

    Raises:
      SystemExit: if Python or a package is there in a version that the book does not work with.
    """
    python = Requirement(f"python {project['requires-python']}")
    wanted, unfit = [], []
    for requirement in [python, *map(Requirement, project["dependencies"])]:
        version = installed(requirement.name)
        if version is None:
            wanted.append(str(requirement))
        elif requirement.specifier.contains(version):
            wanted.append(f"{requirement.name}=={version}")
        else:
            unfit.append(f"{requirement}, but finds {version}")
    if unfit:
        raise SystemExit(f"The book needs {'; '.join(unfit)}. {OTHER_RUNTIME}")
    return wanted[1:]


def _installed(name):
    if name == "python":
        return ".".join(map(str, sys.version_info[:3]))
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _run(failure, *arguments, cwd=None):
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd)
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())[-400:] or "nothing"
        raise SystemExit(f"{failure}; the last that it said: {said}. {OTHER_RUNTIME}")


if __name__ == "__main__":
    main()
