"""Put the whole book on one page, to print or to save as one PDF: print.html beside the pages.

The articles of all pages in reading order, in the frame of the first. Links between pages become
links within this one, so identifiers carry the name of their page. Text that is folded away is
open; code and verdicts stay folded, and what needs a script shows its first state.
"""

import re

from bs4 import BeautifulSoup

NAME = "print.html"
OMITTED = ("api", "changelog")
"""For the screen: the docstrings alone would be more than half of the paper."""

# Attributes that name elements of the same page.
_NAMING = ("id", "for", "aria-labelledby", "aria-describedby", "aria-controls")


def write(folder, pages):
    """Write the page.

    Args:
      folder: of the built pages.
      pages: their names in reading order; the first is the landing page. `OMITTED` stay out.
    """
    pages = [name for name in pages if name not in OMITTED]
    frame = _parsed(folder / f"{pages[0]}.html")
    for contents in frame.select(".bd-sidebar-secondary"):  # of the first page
        contents.decompose()
    whole = frame.find("article")
    whole.clear()
    for name in pages:
        article = _parsed(folder / f"{name}.html").find("article")
        _prefix(article, name, pages)
        for element in article.find_all(["script", "form"]):
            element.decompose()
        for fold in article.select("details.sd-dropdown"):
            fold["open"] = ""
        article.name, article.attrs = "div", {"id": name, "class": "printed"}
        whole.append(article)
    (folder / NAME).write_text(str(frame), encoding="utf-8")


def _parsed(path):
    text = path.read_text(encoding="utf-8")
    return BeautifulSoup(text, "html.parser", multi_valued_attributes=None)


def _prefix(article, name, pages):
    """Make the identifiers of an article unique, and its links those of the one page."""
    for element in article.find_all(True):
        for key in _NAMING:
            if element.get(key):
                element[key] = " ".join(f"{name}--{each}" for each in element[key].split())
        for key, value in element.attrs.items():
            if key in ("href", "xlink:href"):
                element[key] = _target(value, name, pages)
            elif isinstance(value, str) and "url(#" in value:
                element[key] = value.replace("url(#", f"url(#{name}--")


def _target(link, name, pages):
    """Where a link leads on the one page; links to other files and sites stay.

    >>> _target("elbo.html#gap", "index", ["index", "elbo"]), _target("elbo.html", "", ["elbo"])
    ('#elbo--gap', '#elbo')
    >>> _target("#gap", "index", ["index"]), _target("https://a.org/x.html", "", ["x"])
    ('#index--gap', 'https://a.org/x.html')
    """
    found = re.fullmatch(r"(?:([\w-]+)\.html)?(?:#(.*))?", link)
    if not found or (found[1] or name) not in pages:
        return link
    return f"#{found[1] or name}" + (f"--{found[2]}" if found[2] else "")
