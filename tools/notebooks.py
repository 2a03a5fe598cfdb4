"""Where the chapters are, in which order, and how they are read and written."""

import dataclasses
import json
import pathlib

import nbformat
import yaml

from tfp_gaps import storage

CLAIM_MIME = "application/vnd.tfp-gaps.claim+json"


class ChapterError(Exception):
    """A chapter cannot be used as it is; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Project:
    """The files of a checkout, by the folder that holds them."""

    root: pathlib.Path

    @property
    def book(self):
        """The folder of the chapters."""
        return self.root / "book"

    @property
    def lock(self):
        """The locked environment in which chapters are executed."""
        return self.root / "requirements.lock"

    @property
    def readme(self):
        """The page that lists the chapters with their cost."""
        return self.root / "README.md"

    def path(self, name):
        """The notebook of the chapter `name`."""
        return self.book / f"{name}.ipynb"

    def relative(self, path):
        """The path below the root, with forward slashes on every system."""
        return path.relative_to(self.root).as_posix()

    def chapters(self):
        """Names of all notebooks: in the order of the table of contents, then the others."""
        found = {path.stem for path in self.book.glob("*.ipynb")}
        listed = [name for name in toc_pages(self.root / "_toc.yml") if name in found]
        return listed + sorted(found.difference(listed))


def toc_pages(path):
    """Return the pages that a table of contents lists, in reading order; none if it is missing."""
    if not path.is_file():
        return []
    return list(_pages(yaml.safe_load(path.read_text(encoding="utf-8"))))


def _pages(node):
    if isinstance(node, list):
        for entry in node:
            yield from _pages(entry)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in ("root", "file"):
                yield value
            else:
                yield from _pages(value)


def read(path):
    """Return the notebook at `path`, checked against the notebook format.

    Raises:
        ChapterError: if it cannot be read or is not a notebook of format 4.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if not isinstance(json.loads(text).get("nbformat"), int):
            raise ValueError("it has no nbformat")
        return nbformat.reads(text, as_version=4)
    except (OSError, ValueError, AttributeError, nbformat.ValidationError) as error:
        raise ChapterError(
            f"{path} should be a Jupyter notebook of format 4, but cannot be read: {error}. "
            "Restore it from version control."
        ) from error


def write_bytes(path, content):
    """Replace the file at `path` in one step: readers see the old or the new file.

    Raises:
        ChapterError: if it cannot be written; the old file is untouched.
    """
    try:
        storage.write_atomically(path, content)
    except OSError as error:
        raise ChapterError(error.strerror) from error


def write_text(path, text):
    """Replace the file at `path` by `text` in one step."""
    write_bytes(path, text.encode())


def write(path, notebook):
    """Replace the notebook at `path` in one step."""
    nbformat.validate(notebook)
    write_text(path, nbformat.writes(notebook).rstrip("\n") + "\n")


def code_cells(notebook):
    """Return the code cells that hold code; the kernel does not count empty ones."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def claim_records(notebook):
    """Return the claim records among the outputs, in order."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return [output.data[CLAIM_MIME] for output in outputs if CLAIM_MIME in output.get("data", {})]
