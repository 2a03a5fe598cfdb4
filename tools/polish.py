"""Mend in the built pages what the theme leaves to mend, for keyboards and screen readers.

What scrolls can be reached by keyboard: code, outputs, tables. The name of a control is what it
shows: the theme calls every folded cell "Toggle hidden content", and its buttons by other names
than those beside their icons.
"""

import re

_MENDED = (
    (r'(<div class="highlight"><pre)>', r'\1 tabindex="0">'),
    (r"<table(?! tabindex)\b", '<table tabindex="0"'),
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    (r'(<button class="btn search-button-field[^>]*?) aria-label="Search"', r"\1"),
    (
        r'(<button class="[^"]*theme-switch-button[^>]*?) aria-label="Color mode"',
        r'\1 title="Color mode"',
    ),
)


def polish(text):
    """The HTML of a page with these changes; doing it twice changes nothing more.

    >>> polish('<div class="highlight"><pre><span>')
    '<div class="highlight"><pre tabindex="0"><span>'
    """
    for pattern, replacement in _MENDED:
        text = re.sub(pattern, replacement, text)
    return text


def polish_pages(folder):
    """Change all pages of a folder in place."""
    for page in sorted(folder.glob("*.html")):
        text = page.read_text(encoding="utf-8")
        if (mended := polish(text)) != text:
            page.write_text(mended, encoding="utf-8")
