"""Put MathJax beside the pages, so that formulas show without a network.

Fetches the npm package once, compares its checksum, and copies the one script that the pages load
(all TeX extensions, formulas as SVG, hence no font files) and its licence into book/_extra, which
the build copies to the root of the pages.
"""

import pathlib
import sys

from notebooks import ChapterError, write_bytes
from tfp_gaps.book.data import packages

PACKAGE = ("mathjax", "3.2.2")
DIGEST = "1b9c0a1c44df864e915690558e72adb9cc5203360daefd385084ced3b6c64c09"
FILES = {
    "package/es5/tex-svg-full.js": "tex-svg-full.js",
    "package/LICENSE": "LICENSE",
}
FOLDER = pathlib.Path(__file__).resolve().parent.parent / "book" / "_extra" / "mathjax"


def provide(folder=FOLDER, *, fetch=packages.fetch_archive):
    """Make sure that `folder` holds the files of the pinned version; return the folder.

    Raises:
        FetchError: if they have to be fetched, and npm or the network is missing or the archive is
            not the expected one. Nothing is then written.
        ChapterError: if they cannot be written.
    """
    marker, wanted = folder / "version", "@".join(PACKAGE)
    present = all((folder / name).is_file() for name in [*FILES.values(), marker.name])
    if present and marker.read_text() == wanted:
        return folder
    archive = fetch(*PACKAGE, digest=DIGEST)
    contents = {name: packages.read_member(archive, path) for path, name in FILES.items()}
    for name, content in contents.items():
        write_bytes(folder / name, content)
    write_bytes(marker, wanted.encode())
    return folder


def main(folder=FOLDER):
    """Provide the files and return the exit status."""
    try:
        provide(folder)
    except (packages.FetchError, ChapterError) as error:
        print(f"The pages need MathJax for their formulas: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
