"""What is mended in built pages: reachable by keyboard, named by what is shown, linked, once."""

import pathlib
import re

import pygments
import pygments.formatters
import pygments.lexers

import polish
from tfp_gaps._tensorflow import tfp

BOOK = pathlib.Path(__file__).resolve().parents[2] / "book"
PAGE = """<body><summary aria-label="Toggle hidden content"><p>Show code cell source</p></summary>
<div class="highlight"><pre><span></span>code</pre></div><pre>free</pre>
<table class="table"><tr><th class="head"><p></p></th><td>1</td></tr></table>
<div role="list" class="citation-list"><div class="citation" id="a" role="doc-biblioentry"></div>
</div><div class="math notranslate nohighlight" id="e">
<div class="sidebar-primary-item">
<a class="navbar-brand logo" href="#">x</a></div>
<button class="btn search-button-field x" aria-label="Search" title="s">Search Ctrl K</button>
<button class="btn theme-switch-button" aria-label="Color mode"><i title="Light"></i></button>
</body>"""


def test_every_fault_is_mended_and_nothing_else():
    mended = polish.polish(PAGE)
    assert '<div class="highlight"><pre tabindex="0"><span>' in mended
    assert '<table tabindex="0" class="table">' in mended
    assert "<pre>free</pre>" in mended
    assert '<td class="head"></td><td>1</td>' in mended
    assert '<div class="citation" id="a">' in mended
    assert 'role="list"' not in mended and 'nohighlight" tabindex="0" id="e"' in mended
    assert 'sidebar-primary-item" role="navigation" aria-label="Home">' in mended
    assert mended.count("aria-label") == 1
    assert 'title="Color mode"' in mended and 'title="s">Search Ctrl K' in mended


def test_twice_is_once():
    once = polish.polish(PAGE)
    assert polish.polish(once) == once


def test_pages_are_changed_in_place(tmp_path):
    (tmp_path / "a.html").write_text(PAGE, encoding="utf-8")
    (tmp_path / "b.html").write_text("<p>nothing to do</p>", encoding="utf-8")
    before = (tmp_path / "b.html").stat().st_mtime_ns
    polish.polish_pages(tmp_path)
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == polish.polish(PAGE)
    assert (tmp_path / "b.html").stat().st_mtime_ns == before


def _highlighted(code):
    lexer = pygments.lexers.get_lexer_by_name("ipython3")
    return pygments.highlight(code, lexer, pygments.formatters.HtmlFormatter())


def _targets(code):
    linked = polish.link_tfp(_highlighted(code))
    assert polish.link_tfp(linked) == linked
    return [path.split("/tfp/")[1] for path in re.findall(r'href="([^"]*)"', linked)]


def test_names_of_tfp_lead_to_its_documentation():
    assert _targets("tfd.Normal(0, 1); tfp.vi.fit_surrogate_posterior(f)") == [
        "distributions/Normal",
        "vi/fit_surrogate_posterior",
    ]
    assert _targets("@tfd.JointDistributionCoroutineAutoBatched\ndef f(): ...") == [
        "distributions/JointDistributionCoroutineAutoBatched"
    ]
    # Neither modules, nor what is not a page of its own, nor other libraries.
    assert _targets("tfd = tfp.distributions; tfd.Normal.sample; tf.zeros(2); x.tfd.Normal") == []


def test_what_is_linked_exists():
    """In the chapters: a name that TFP does not have would be a dead link."""
    names = set()
    for chapter in BOOK.glob("*.ipynb"):
        for line in re.findall(r"\btf[pd]\.[\w.]+", chapter.read_text(encoding="utf-8")):
            names.update(_targets(line))
    assert len(names) > 5
    for name in names:
        found = tfp
        for part in name.split("/"):
            found = getattr(found, part)


def test_links_to_terms_carry_their_meaning():
    glossary = (
        '<dl><dt id="term-ELBO">ELBO<a href="#">#</a></dt><dt id="term-bound">bound</dt>'
        '<dd><p>Below "all",\n<span class="math">\\(a &lt; b\\)</span>.</p></dd></dl>'
    )
    meanings = polish.definitions(glossary)
    assert meanings == dict.fromkeys(("term-ELBO", "term-bound"), 'Below "all", \\(a < b\\).')
    link = '<a class="reference internal" href="glossary.html#term-{}">x</a>'
    once = polish.preview_terms(link.format("ELBO") + link.format("none"), meanings)
    assert once.count("data-preview") == 1
    assert 'data-preview="Below &quot;all&quot;, \\(a &lt; b\\).">x' in once
    assert polish.preview_terms(once, meanings) == once
