"""The page to print: all articles in order, identifiers apart, links within it."""

import pytest
from bs4 import BeautifulSoup

import print_page

PAGE = (
    '<html><head><title>{name}</title></head><body><nav id="menu">x</nav>{body}'
    '<div class="bd-sidebar-secondary"><a href="#gap">s</a></div></body></html>'
)


@pytest.fixture
def printed(tmp_path):
    """The page made of a landing page and a chapter that use the same identifiers."""
    bodies = {
        "index": '<a href="elbo.html#gap">a</a><a href="#gap">b</a><p id="gap">First.</p>'
        '<a href="elbo.html">c</a><a href="api.html#x">d</a><a href="https://a.org/elbo.html">e</a>',
        "elbo": '<p id="gap">Second.</p>'
        '<svg aria-labelledby="gap top"><g fill="url(#gap)"></g></svg>'
        '<details class="sd-dropdown sd"><p>Proof.</p></details><details class="hide"></details>'
        "<script>1</script><form></form>",
        "api": "<p>Docstrings.</p>",
    }
    for name, body in bodies.items():
        text = PAGE.format(name=name, body=f'<article class="bd">{body}</article>')
        (tmp_path / f"{name}.html").write_text(text, encoding="utf-8")
    print_page.write(tmp_path, list(bodies))
    return BeautifulSoup((tmp_path / print_page.NAME).read_text(encoding="utf-8"), "html.parser")


def test_articles_follow_each_other_in_the_frame_of_the_first(printed):
    assert [part["id"] for part in printed.select("article > div")] == ["index", "elbo"]
    assert printed.title.text == "index" and printed.find(id="menu")
    assert "Docstrings" not in printed.text and not printed.find(["script", "form"])


def test_links_and_identifiers_are_those_of_the_one_page(printed):
    assert [link["href"] for link in printed.find_all("a")] == [
        "#elbo--gap",
        "#index--gap",
        "#elbo",
        "api.html#x",
        "https://a.org/elbo.html",
    ]
    assert printed.find(id="elbo--gap").text == "Second."
    assert printed.svg["aria-labelledby"] == "elbo--gap elbo--top"
    assert printed.g["fill"] == "url(#elbo--gap)"


def test_folded_text_is_open_and_folded_code_is_not(printed):
    assert [fold.has_attr("open") for fold in printed.find_all("details")] == [True, False]
