"""The built pages: nothing broken, unlabelled, unrendered, or fetched from elsewhere."""

import collections
import functools
import pathlib
import re
import shutil
import urllib.parse

import pytest
from bs4 import BeautifulSoup, NavigableString

import build
import mathjax
import notebooks
import print_page
from tfp_gaps.book.figures import overview

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = notebooks.toc_pages(ROOT / "_toc.yml")
MAXIMUM_BYTES = 1_500_000
MINIMUM_ALT_LENGTH = 40
# What a browser fetches by itself, as opposed to what a reader may follow.
FETCHED = (("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"))
FETCHING_LINKS = {"stylesheet", "preload", "icon", "modulepreload", "prefetch", "manifest"}
NOT_PROSE = {"script", "style", "code", "pre", "textarea", "mjx-container"}


@functools.cache
def parsed(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def article(path):
    """The part of a page that the book wrote; the theme's frame is around it."""
    return parsed(path).find("article") or parsed(path)


def broken_links(path):
    """Links to files or anchors of the site that do not exist."""
    for tag in parsed(path).find_all(href=True):
        address = urllib.parse.urlsplit(tag["href"])
        if address.scheme or address.netloc:
            continue
        target = path
        if address.path:
            target = (path.parent / urllib.parse.unquote(address.path)).resolve()
        if not target.is_file():
            yield tag["href"]
        elif address.fragment and target.suffix == ".html":
            name = urllib.parse.unquote(address.fragment)
            if not parsed(target).find(attrs={"id": name}) and name != "top":
                yield tag["href"]


def broken_files(path):
    """Scripts and images of the site that do not exist."""
    for tag, attribute in FETCHED:
        for found in parsed(path).find_all(tag, attrs={attribute: True}):
            address = urllib.parse.urlsplit(found[attribute])
            target = (path.parent / urllib.parse.unquote(address.path)).resolve()
            if not (address.scheme or address.netloc or target.is_file()):
                yield found[attribute]


def unlabelled_images(path):
    """Images whose alternative text is missing, short, or a file name."""
    for image in article(path).find_all("img"):
        alt = image.get("alt", "")
        if len(alt) < MINIMUM_ALT_LENGTH or re.fullmatch(r"\S+", alt):
            yield str(image)[:200]


def unrendered(path):
    """Pieces of TeX, of MyST roles or of tables in the text that a reader sees."""
    for text in article(path).find_all(string=True):
        outside = not any(
            parent.name in NOT_PROSE or "math" in parent.get("class", []) for parent in text.parents
        )
        if type(text) is NavigableString and outside:
            yield from re.findall(
                r"\$\$|\\begin\{|\\\(|\\\[|\{[a-z:]+\}`|\$[^$\s][^$]*\$|\| *[-—]+ *\|", text
            )


def foreign_requests(path):
    """Addresses of other hosts that the browser would ask on its own."""
    page = parsed(path)
    fetched = [tag[key] for name, key in FETCHED for tag in page.find_all(name, attrs={key: True})]
    for tag in page.find_all("link", href=True):
        if FETCHING_LINKS & set(tag.get("rel", [])):
            fetched.append(tag["href"])
    for styles in page.find_all("style"):
        fetched += re.findall(r"url\([\"']?([^\"')]+)", styles.string or "")
    return [address for address in fetched if re.match(r"(https?:)?//", address)]


def repeated_names(path):
    """Identifiers that stand for more than one element, so that links lead to the first only."""
    count = collections.Counter(each["id"] for each in parsed(path).find_all(id=True))
    return [name for name, times in count.items() if times > 1]


CHECKS = [
    broken_links,
    broken_files,
    unlabelled_images,
    unrendered,
    foreign_requests,
    repeated_names,
]


# --- the checks themselves -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "body", "found"),
    [
        (broken_links, '<a href="none.html">x</a>', ["none.html"]),
        (broken_links, '<a href="other.html#none">x</a>', ["other.html#none"]),
        (broken_links, '<a href="#none">x</a>', ["#none"]),
        (broken_links, '<p id="a%b"><a href="other.html#here">x</a><a href="#a%25b">y</a>', []),
        (broken_links, '<a href="https://example.org/none">x</a>', []),
        (broken_files, '<img src="none.png">', ["none.png"]),
        (broken_files, '<script src="other.html?v=1"></script>', []),
        (unlabelled_images, '<img src="a.png">', ['<img src="a.png"/>']),
        (unlabelled_images, f'<img alt="{"a" * 50}.png">', [f'<img alt="{"a" * 50}.png"/>']),
        (unlabelled_images, f'<img alt="{"Line up. " * 6}">', []),
        (unrendered, "<p>so $$x$$ is</p>", ["$$", "$$"]),
        (unrendered, r"<p>\begin{align}</p>", [r"\begin{"]),
        (unrendered, "<p>{glue:text}`gap` and {eq}`a`</p>", ["{glue:text}`", "{eq}`"]),
        (unrendered, "<p>that $q_C$ is</p>", ["$q_C$"]),
        (unrendered, "<p>| n | gap | | — | — | | 1 | 2 |</p>", ["| — |"]),
        (unrendered, r'<code>$a$</code><span class="math">\(a\)</span><!-- $$ -->', []),
        (foreign_requests, '<script src="//cdn.org/a.js"></script>', ["//cdn.org/a.js"]),
        (foreign_requests, '<link rel="icon" href="http://b.org/i">', ["http://b.org/i"]),
        (foreign_requests, "<style>p {background: url('https://c')}</style>", ["https://c"]),
        (repeated_names, '<p id="a"><p id="b"><p id="a">', ["a"]),
        (foreign_requests, '<a href="https://d.org">d</a><img src="e.png">', []),
    ],
)
def test_each_check_finds_its_fault(tmp_path, check, body, found):
    (tmp_path / "other.html").write_text('<p id="here">Here.</p>')
    page = tmp_path / "page.html"
    page.write_text(f"<html><body>{body}</body></html>")
    assert list(check(page)) == found


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("Well.", True),
        ("See {numref}`fig-none`.", False),
        ("The gap is {glue:text}`none`.", False),
        ("See [there](none.md#none).", False),
    ],
)
def test_the_build_stops_at_what_is_missing(tmp_path, text, passes):
    (tmp_path / "book/_extra").mkdir(parents=True)
    (tmp_path / "book/index.md").write_text(f"# Title\n\n{text}\n")
    (tmp_path / "book/references.bib").write_text("")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: index\n")
    shutil.copytree(ROOT / "book/_static", tmp_path / "book/_static")
    shutil.copy(ROOT / "_config.yml", tmp_path)
    status = build.build(tmp_path / "out", root=tmp_path)
    assert (status == 0) is passes
    if passes:  # without an address no button leads to one
        page = (tmp_path / "out/_build/html/index.html").read_text()
        assert not re.search("mybinder|colab|launch|source repository|open issue", page, re.I)


# --- the book ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages, built anew with warnings as errors."""
    mathjax.provide()
    folder = tmp_path_factory.mktemp("site")
    assert build.build(folder, repository="https://github.com/owner/fork") == 0
    return folder / "_build" / "html"


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("check", CHECKS)
def test_page_has_no_fault(site, name, check):
    assert list(check(site / f"{name}.html")) == []


@pytest.mark.parametrize("name", PAGES)
def test_page_is_small(site, name):
    assert (site / f"{name}.html").stat().st_size < MAXIMUM_BYTES


def test_a_doubted_claim_is_three_clicks_away(site):
    """From the index: the scorecard, the claim with its value, the button that runs its chapter."""
    assert parsed(site / "index.html").find("a", href="scorecard.html")
    decided = 0
    for row in parsed(site / "scorecard.html").find_all("tr"):
        link = row.find("a", href=re.compile(r"^[a-z-]+\.html#claim-C\d+$"))
        if link is None:
            continue
        decided += 1
        name, anchor = link["href"].split("#")
        assert re.search(r"\d", row.get_text().replace(link.get_text(), "")), anchor
        page = parsed(site / name)
        cell = page.find(id=anchor)
        assert cell is not None and cell.find_parent(class_="cell") is not None, anchor
        chapter = name.removesuffix(".html")
        buttons = [a["href"] for a in page.find_all("a", href=True)]
        for host in ("mybinder.org", "colab.research.google.com"):
            wanted = (host, "owner/fork", f"{chapter}.ipynb")
            assert any(all(part in url for part in wanted) for url in buttons), (name, host)
    assert decided > 50


@pytest.mark.parametrize("name", overview.PLACES)
def test_a_chapter_leads_to_its_folded_verdicts_and_back(site, name):
    page, rows = parsed(site / f"{name}.html"), parsed(site / "scorecard.html")
    assert page.select("article h1 ~ svg.gaps-small"), "no drawing below the title"
    badges = [[link["href"] for link in badge("a")] for badge in page.select(".claim-badge")]
    assert badges
    for verdict, row in badges:
        claim = row.removeprefix("scorecard.html#")
        entry = rows.find(id=claim)
        if verdict.startswith("#"):
            record = page.find(id=verdict[1:])
            assert record.find_parent("details"), f"{verdict} is not folded"
            assert record.find("a", href=row), f"{verdict} does not lead to the scorecard"
            assert entry.find("a", href=f"{name}.html{verdict}"), f"{claim} does not lead back"
        else:  # measured in another chapter, or not yet
            assert entry


def test_the_page_to_print_holds_the_others(site):
    path = site / print_page.NAME
    page = parsed(path)
    found = [each["id"] for each in page.select("article > .printed")]
    assert found == [name for name in PAGES if name not in print_page.OMITTED]
    assert [list(check(path)) for check in (repeated_names, broken_links, broken_files)] == [[]] * 3
    assert not page.select("article script")
    assert all(fold.has_attr("open") for fold in page.select("details.sd-dropdown"))


def test_what_scrolls_is_reached_by_keyboard(site):
    page = parsed(site / "index.html")
    blocks = page.select("div.highlight > pre")
    assert blocks and all(block.get("tabindex") == "0" for block in blocks)


def test_formulas_are_rendered_by_the_copy_beside_the_pages(site):
    script = parsed(site / "index.html").find("script", src=re.compile("mathjax"))
    path = (site / urllib.parse.urlsplit(script["src"]).path).resolve()
    assert path.is_relative_to(site)
    assert path.stat().st_size > 1_000_000


def test_styles_ask_no_other_host(site):
    for path in site.rglob("*.css"):
        addresses = re.findall(
            r"(?:url\(|@import )[\"']?((?:https?:)?//[^\"')]+)", path.read_text()
        )
        assert addresses == [], path
