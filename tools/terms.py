"""Link the words of the glossary where a chapter uses them first: python tools/terms.py [NAME...].

Only prose is touched: no heading, table, formula, link, role, or fenced block, and no code cell, so
that no chapter becomes stale. A word that a chapter links already is left alone: running it twice
changes nothing. What is written is the role `{term}`, which the build refuses without an entry.
"""

import pathlib
import re
import sys

import notebooks
from notebooks import ChapterError, Project

ROOT = pathlib.Path(__file__).resolve().parent.parent
# How a word of the glossary may stand in a sentence, where that is not the entry itself.
FORMS = {
    "evidence": r"evidence(?! lower)",
    "ELBO": r"ELBO|evidence lower bounds?",
    "variational family": r"variational family|variational families",
    "normalising flow": r"normalising flows?|(?<=[Aa] )flow|[Ff]lows",
    "inference network": r"inference networks?",
    "amortised inference": r"amortised (?:variational )?inference",
    "full posterior": r"full posteriors?",
    "shared posterior": r"shared posteriors?",
    "partial conditions": r"partial conditions|partial conditioning",
    "state-space model": r"state-space models?",
    "filter": r"(?<=[Aa] )filter|(?<=[Tt]he )filter",
    "smoother": r"smoothers?|smoothing",
    "Kalman filter": r"Kalman filters?",
    "distilled filter": r"distilled filters?|distilled from it",
    "belief": r"beliefs?",
    "world model": r"world models?",
    "IWAE": r"IWAE|importance-weighted bounds?",
    "annealed importance sampling": r"[Aa]nnealed importance sampling",
    "particle filter": r"particle filters?",
    "effective sample size": r"effective sample sizes?",
    "calibration": r"calibration|calibrated",
    "replica": r"replicas?|replicated",
}
# Too common to be looked up where they stand by chance: linked by hand if at all.
BY_HAND = {"capacity", "optimisation", "Estimate", "seed", "scale", "claim", "verdict"}
_FENCE = re.compile(r"^(`{3,}|~{3,}|:{3,})")
_SKIPPED = re.compile(
    r"<!--.*?-->"  # comments
    r"|\$\$.*?\$\$|\$[^$\n]+\$"  # formulas, set off or within a sentence
    r"|\{[a-z:]+\}`[^`]*`|`[^`]*`"  # roles and code
    r"|\[[^\]]*\](?:\([^)]*\))?"  # links
    r"|^(?:#|\||<).*?$",  # headings, tables, HTML
    re.DOTALL | re.MULTILINE,
)


def entries(text):
    """Return the words that the glossary in Markdown explains, in their order."""
    found, inside = [], False
    for line in text.splitlines():
        inside = line.startswith("```{glossary}") or (inside and not line.startswith("```"))
        if inside and line.strip() and not line.startswith((" ", "`")):
            found.append(line.strip())
    return found


def linked(text):
    """Return the words that the Markdown links, as they stand in the glossary."""
    roles = re.findall(r"\{term\}`([^`]+)`", text)
    return [re.sub(r".*<(.+)>", r"\1", " ".join(role.split())) for role in roles]


def add_links(cells, words):
    """Return the Markdown cells with each word linked where it stands first.

    Args:
      cells: texts in reading order.
      words: entries of the glossary. Longer ones come first, so that "Kalman filter" is not taken
        for "filter".
    """
    cells = list(cells)
    present = {word.lower() for cell in cells for word in linked(cell)}
    for word in sorted(words, key=len, reverse=True):
        if word.lower() in present:
            continue
        for index, cell in enumerate(cells):
            changed = _link_first(cell, word)
            if changed != cell:
                cells[index] = changed
                break
    return cells


def _link_first(text, word):
    form = re.compile(rf"(?<![\w-])(?:{FORMS.get(word, re.escape(word))})(?![\w-])")
    for start, end in _prose(text):
        found = form.search(text, start, end)
        if found:
            said = found.group()
            role = f"{{term}}`{said}`" if said == word else f"{{term}}`{said} <{word}>`"
            return text[: found.start()] + role + text[found.end() :]
    return text


def _prose(text):
    """Yield the spans of the text in which a word may become a link."""
    skipped = [match.span() for match in _SKIPPED.finditer(text)] + list(_fences(text))
    position = 0
    for start, end in sorted(skipped):
        if start > position:
            yield position, start
        position = max(position, end)
    yield position, len(text)


def _fences(text):
    position, opened = 0, None
    for line in text.splitlines(keepends=True):
        mark = _FENCE.match(line)
        if opened is None and mark:
            opened = (position, mark.group())
        elif opened and line.strip() == opened[1]:
            yield opened[0], position + len(line)
            opened = None
        position += len(line)
    if opened:
        yield opened[0], len(text)


def link_chapter(project, name):
    """Link the words of the glossary in one chapter; return those that it links afterwards."""
    notebook = notebooks.read(project.path(name))
    words = entries((project.book / "glossary.md").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    texts = [cell.source for cell in cells]
    changed = add_links(texts, [word for word in words if word not in BY_HAND])
    if changed != texts:
        for cell, text in zip(cells, changed, strict=True):
            cell.source = text
        notebooks.write(project.path(name), notebook)
    return [word for text in changed for word in linked(text)]


def main(names, root=ROOT):
    """Link the words in the named chapters, or in all, and return the exit status."""
    project = Project(root)
    try:
        for name in names or project.chapters():
            print(f"{name}: {', '.join(link_chapter(project, name))}")
    except ChapterError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
