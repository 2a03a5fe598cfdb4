"""Widgets in a real browser, under the styles of the built pages."""

import importlib.util
import pathlib

import pytest

import browser as chromium

BOOK = pathlib.Path(__file__).resolve().parents[3] / "book"
STYLES = {
    "pydata_sphinx_theme": ("pydata-sphinx-theme.css",),
    "sphinx_book_theme": ("sphinx-book-theme.css",),
}


def _links():
    """The style sheets of the theme, in the order of the pages, and the book's own."""
    paths = []
    for name, files in STYLES.items():
        package = pathlib.Path(importlib.util.find_spec(name).origin).parent
        paths += [package / "theme" / name / "static" / "styles" / file for file in files]
    paths.append(BOOK / "_static" / "book.css")
    assert all(path.is_file() for path in paths)
    return "".join(f'<link rel="stylesheet" href="{path.as_uri()}">' for path in paths)


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium; a bare machine has none."""
    if chromium.path() is None:
        pytest.skip("needs a Chromium to show the widget")
    with chromium.Browser() as running:
        yield running


@pytest.fixture
def show(browser, tmp_path):
    """Open HTML as the output of a cell; returns the browser."""

    def shown(content, *, theme="light", **options):
        page = tmp_path / "page.html"
        page.write_text(
            f'<!DOCTYPE html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<link rel="icon" href="data:,">{_links()}</head><body><main class="bd-content">'
            '<article class="bd-article"><div class="cell_output"><div class="output text_html">'
            f"{content}</div></div></article></main></body></html>",
            encoding="utf-8",
        )
        browser.open(page.as_uri(), **options)
        return browser

    return shown
