"""Build the pages: python tools/build.py FOLDER writes FOLDER/_build/html.

Warnings are errors, missing references are warnings, and a build that ends without a page is a
failure. No chapter is executed: see _config.yml. What pages take from data is written first, by
tools/pages.py, and what the theme gets wrong mended afterwards, by tools/polish.py; at last all
pages are put on one, to print (tools/print_page.py). The buttons lead to the remote of this
checkout (tools/address.py). One build at a time works in a folder.
"""

import os
import pathlib
import shutil
import subprocess
import sys

import yaml

import address
import mathjax
import pages
import polish
import print_page
from notebooks import ChapterError, toc_pages, write_text
from tfp_gaps.book import endings, runs
from tfp_gaps.book.data import packages

ROOT = pathlib.Path(__file__).resolve().parent.parent
NEEDED = 200_000_000
"""Bytes that a build takes, and a little more."""


class BuildError(RuntimeError):
    """The pages cannot be built; the message says what to do."""


def build(folder, root=ROOT, builder="html", repository=None):
    """Build the book of the checkout `root` below `folder` and return the exit status.

    Args:
        repository: its public address, None for pages without buttons that lead there.
    """
    folder = pathlib.Path(folder).resolve()
    pages.write(root)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    command += ["build", str(root / "book"), "--config", str(_config(folder, root, repository))]
    command += ["--toc", str(root / "_toc.yml"), "--path-output", str(folder)]
    # -W: warnings are errors; -n: also references without a target; --all: nothing from last time.
    command += ["--builder", builder, "-W", "-n", "--keep-going", "--all", "--quiet"]
    # Sphinx finds the book's own extension beside this file.
    known = [str(pathlib.Path(__file__).parent), os.environ.get("PYTHONPATH")]
    own = {"PYTHONPATH": os.pathsep.join(filter(None, known))}
    status = subprocess.run(command, cwd=root, env=os.environ | own).returncode
    page = folder / "_build" / "html" / "index.html"
    if status < 0:
        raise BuildError(f"The build was killed by {endings.describe(status)}. Start it again.")
    if status == 0 and builder == "html" and not page.is_file():
        print(f"The build ended well but left no {page}.", file=sys.stderr)
        return 1
    polish.polish_pages(page.parent)
    if page.is_file():
        print_page.write(page.parent, toc_pages(root / "_toc.yml"))
    return status


def _config(folder, root, repository):
    """Write the settings of the book with the address filled in; return their path."""
    settings = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    if repository is None:
        del settings["repository"]
        settings["html"] |= {"use_repository_button": False, "use_issues_button": False}
    else:
        settings["repository"]["url"] = repository
    if not address.has_launchers(repository):
        del settings["launch_buttons"]
    path = folder / "_build" / "_config.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, yaml.safe_dump(settings, allow_unicode=True))
    return path


def _build_alone(folder, builder):
    """Build when no other build works in the folder and there is room; return the exit status."""
    target = pathlib.Path(folder).resolve() / "_build"
    with runs.exclusive(target / "build.lock", "building the pages", wait=True):
        free = shutil.disk_usage(target).free
        if free < NEEDED:
            raise BuildError(
                f"The pages need {NEEDED // 10**6} MB, but only {free // 10**6} MB are free where "
                f"{target} lies. Make room, and start again."
            )
        mathjax.provide()
        # A second build after a failed one would skip the pages that carry the warnings.
        for name in ("html", ".doctrees", "jupyter_execute"):
            if (target / name).exists():
                shutil.rmtree(target / name)
        return build(folder, builder=builder, repository=address.repository())


def main(folder, builder="html"):
    """Build, and return the exit status; what stands in the way is said in a sentence."""
    try:
        return _build_alone(folder, builder)
    except packages.FetchError as error:
        print(f"The pages need MathJax for their formulas: {error}", file=sys.stderr)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print(
            f"The pages cannot be built: {error.strerror or error}{where}. They need a checkout "
            f"that can be written, with room for {NEEDED // 10**6} MB.",
            file=sys.stderr,
        )
    except (BuildError, ChapterError, ValueError) as error:
        print(f"The pages cannot be built: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        print("usage: python tools/build.py FOLDER [html|linkcheck]", file=sys.stderr)
        sys.exit(2)
    sys.exit(main(*sys.argv[1:]))
