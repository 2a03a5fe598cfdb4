"""What is mended in built pages: reachable by keyboard, named by what is shown, and only once."""

import polish

PAGE = """<body><summary aria-label="Toggle hidden content"><p>Show code cell source</p></summary>
<div class="highlight"><pre><span></span>code</pre></div><pre>free</pre>
<table class="table"><tr><td>1</td></tr></table>
<div role="list" class="citation-list"></div><div class="math notranslate nohighlight" id="e">
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
