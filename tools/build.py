"""Build the pages: python tools/build.py FOLDER writes FOLDER/_build/html.

Warnings are errors, missing references are warnings, and a build that ends without a page is a
failure. No chapter is executed: see _config.yml. What pages take from data is written first, by
tools/pages.py, and what the theme gets wrong mended afterwards, by tools/polish.py.
"""

import pathlib
import subprocess
import sys

import pages
import polish

ROOT = pathlib.Path(__file__).resolve().parent.parent


def build(folder, root=ROOT, builder="html"):
    """Build the book of the checkout `root` below `folder` and return the exit status."""
    folder = pathlib.Path(folder).resolve()
    pages.write(root)
    program = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", program, "build", str(root / "book")]
    command += ["--config", str(root / "_config.yml"), "--toc", str(root / "_toc.yml")]
    command += ["--path-output", str(folder), "--builder", builder]
    # -W: warnings are errors; -n: also references without a target; --all: nothing from last time.
    command += ["-W", "-n", "--keep-going", "--all", "--quiet"]
    status = subprocess.run(command, cwd=root).returncode
    page = folder / "_build" / "html" / "index.html"
    if status == 0 and builder == "html" and not page.is_file():
        print(f"The build ended well but left no {page}.", file=sys.stderr)
        return 1
    polish.polish_pages(page.parent)
    return status


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        print("usage: python tools/build.py FOLDER [html|linkcheck]", file=sys.stderr)
        sys.exit(2)
    sys.exit(build(*sys.argv[1:2], builder=(sys.argv[2:] or ["html"])[0]))
