"""Mend in the built pages what the theme leaves to mend, for keyboards and screen readers.

What scrolls can be reached by keyboard: code, outputs, tables. The name of a control is what it
shows: the theme calls every folded cell "Toggle hidden content", and its buttons by other names
than those beside their icons. Where a chapter imports from the package, the names lead to the page
on the package; what it takes from TensorFlow Probability leads to the documentation of that. A link
to the glossary carries the meaning of its term, and no number is parted from its error.
"""

import html
import re

import api

_MENDED = (
    (r'(<div class="highlight"><pre)>', r'\1 tabindex="0">'),
    (r'(<div class="math notranslate nohighlight")(?! tabindex)', r'\1 tabindex="0"'),
    (r"<table(?! tabindex)\b", '<table tabindex="0"'),
    (r'<th class="head"><p></p></th>', '<td class="head"></td>'),
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    (r'(<button class="btn search-button-field[^>]*?) aria-label="Search"', r"\1"),
    (
        r'(<button class="[^"]*theme-switch-button[^>]*?) aria-label="Color mode"',
        r'\1 title="Color mode"',
    ),
    (r'<div role="list" class="citation-list">', '<div class="citation-list">'),
    (r'(<div class="citation"[^>]*?) role="doc-biblioentry"', r"\1"),
    (
        r'<div class="sidebar-primary-item">(\s*<a class="navbar-brand)',
        r'<div class="sidebar-primary-item" role="navigation" aria-label="Home">\1',
    ),
    (r'(<i class="theme-switch [^>]*?)\s+title="[^"]*"', r"\1"),
)


def polish(text):
    """The HTML of a page with these changes; doing it twice changes nothing more.

    >>> polish('<div class="highlight"><pre><span>')
    '<div class="highlight"><pre tabindex="0"><span>'
    """
    for pattern, replacement in _MENDED:
        text = re.sub(pattern, replacement, text)
    return text


_IMPORT = re.compile(
    r'(?P<start><span class="kn">from</span><span class="w"> </span><span class="nn">)'
    r'(?P<module>tfp_gaps[\w.]*)(?P<middle></span><span class="w"> </span>'
    r'<span class="kn">import</span>)'
    r'(?P<names> ?<span class="p">\(</span>.*?<span class="p">\)</span>|[^\n]*)',
    re.DOTALL,
)
_NAME = re.compile(r'<span class="n">(\w+)</span>')


def link_imports(text, anchors):
    """Link what is imported from the package to where the page on it explains that.

    Args:
      text: HTML of a page.
      anchors: identifiers of the page on the package.
    """

    def name(module):
        def linked(found):
            target = api.anchor(f"{module}.{found[1]}")
            inside = f'<a class="code" href="api.html#{target}">{found[1]}</a>'
            return f'<span class="n">{inside if target in anchors else found[1]}</span>'

        return linked

    def statement(found):
        names = _NAME.sub(name(found["module"]), found["names"])
        return found["start"] + found["module"] + found["middle"] + names

    return _IMPORT.sub(statement, text)


# tfd.Normal or tfp.vi.fit_surrogate_posterior, as the highlighter writes it; no module alone.
_TFP = re.compile(
    r'(?<!<span class="o">\.</span>)<span class="nd?">@?(?P<root>tf[pd])</span>'
    r'(?P<path>(?:<span class="o">\.</span><span class="n">\w+</span>)+)'
)
_TFP_PAGES = "https://www.tensorflow.org/probability/api_docs/python/tfp"
_ROOTS = {"tfp": "", "tfd": "/distributions"}
_MODULES = {"distributions", "experimental", "vi"}


def link_tfp(text):
    """Link names of TensorFlow Probability in the code of a page to their documentation.

    A method of a distribution, such as `tfd.Normal.sample`, is not linked, nor is a module.
    """

    def linked(found):
        parts = _NAME.findall(found["path"])
        if parts[-1] in _MODULES or not set(parts[:-1]) <= _MODULES:
            return found[0]
        target = "/".join([_TFP_PAGES + _ROOTS[found["root"]], *parts])
        return f'<a class="code" href="{target}">{found[0]}</a>'

    # A second run must not link what is linked already.
    pieces = re.split(r'(<a class="code".*?</a>)', text, flags=re.DOTALL)
    return "".join(
        piece if piece.startswith("<a ") else _TFP.sub(linked, piece) for piece in pieces
    )


_ENTRY = re.compile(r'((?:<dt id="term-[^"]+">.*?</dt>\s*)+)<dd>(.*?)</dd>', re.DOTALL)


def definitions(glossary):
    """The terms of the glossary's page, as a dict from anchor to text, formulas as TeX.

    >>> definitions('<dt id="term-q">q<a>#</a></dt><dd><p>An <em>answer</em>  to x.</p></dd>')
    {'term-q': 'An answer to x.'}
    """
    found = {}
    for terms, words in _ENTRY.findall(glossary):
        text = " ".join(html.unescape(re.sub(r"<[^>]+>", "", words)).split())
        found |= dict.fromkeys(re.findall(r'<dt id="(term-[^"]+)"', terms), text)
    return found


def preview_terms(text, meanings):
    """Give each link to the glossary the meaning of its term, which book.js shows beside it."""

    def shown(link):
        meaning = meanings.get(link[2])
        return f'{link[1]} data-preview="{html.escape(meaning)}">' if meaning else link[0]

    return re.sub(r'(<a class="reference internal" href="glossary\.html#([^"]+)")>', shown, text)


def keep_errors(text):
    """Keep a number and its error on one line: no-break spaces around the sign.

    >>> keep_errors("5.0 ± 0.5 nats") == "5.0\\u00a0±\\u00a00.5 nats"
    True
    """
    return text.replace(" ± ", "\u00a0±\u00a0")


def polish_pages(folder):
    """Change all pages of a folder in place."""
    terms = folder / "glossary.html"
    meanings = definitions(terms.read_text(encoding="utf-8")) if terms.is_file() else {}
    package = folder / "api.html"
    source = package.read_text(encoding="utf-8") if package.is_file() else ""
    anchors = set(re.findall(r'\bid="(api-[a-z0-9-]+)"', source))
    for page in sorted(folder.glob("*.html")):
        text = page.read_text(encoding="utf-8")
        mended = link_tfp(link_imports(polish(text), anchors))
        mended = keep_errors(preview_terms(mended, meanings))
        if mended != text:
            page.write_text(mended, encoding="utf-8")
