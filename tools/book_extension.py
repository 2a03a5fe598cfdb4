"""What the book adds to Sphinx: drawings at the heads of chapters, badges of claims, graphs of q.

    {claim}`C20`                                    a badge with the verdict: to the cell that
                                                    measured it, and to its row of the scorecard
    ```{graphical-models} partial, full             small graphs of which arrows reach z_t, by the
    ```                                             names of tfp_gaps.book.figures.graphs
    ```{overview-of-gaps}                           the large drawing
    ```

No chapter asks for its small drawing: `overview.PLACES` says which parts it lights. Nor does it for
the link to its script (tools/experiments.py) or the key to its badges, nor a figure for the links
to its data and to the cell that drew it. So no cell changes when these do, and no chapter has to be
executed again.
"""

import pathlib

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.util.docutils import SphinxRole

import experiments
import figure_data
from tfp_gaps.book.figures import graphs, overview
from tfp_gaps.book.ledger import scorecard, view

_NIGHT = '<p class="night-key">What the text calls black in a figure is white at night.</p>'


def setup(app):
    """Register everything; called by Sphinx."""
    app.add_role("claim", ClaimRole())
    app.add_directive("graphical-models", GraphicalModels)
    app.add_directive("overview-of-gaps", Overview)
    app.connect("doctree-read", add_drawing)
    app.connect("doctree-read", add_key)
    app.connect("doctree-read", add_experiment)
    app.connect("doctree-read", add_sources)
    app.connect("html-page-context", add_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def add_drawing(app, doctree):
    """Put the small overview below the title of a chapter that `overview.PLACES` names."""
    lit = overview.PLACES.get(app.env.docname)
    title = next(doctree.findall(nodes.title), None)
    if lit and title is not None:
        where = title.parent.index(title) + 1
        title.parent.insert(where, _html(overview.here(lit)))


def add_key(app, doctree):
    """Say below the cost of a chapter with badges what their signs and, at night, black mean."""
    if not any('class="claim-badge"' in raw.astext() for raw in doctree.findall(nodes.raw)):
        return
    for paragraph in doctree.findall(nodes.paragraph):
        if paragraph.astext().startswith("Cost:"):
            meanings = ", ".join(f"{sign} {verdict}" for verdict, sign in view.SYMBOLS.items())
            where = paragraph.parent.index(paragraph) + 1
            words = f"Badges lead to how the verdict on a claim was decided: {meanings}."
            paragraph.parent.insert(where, _html(f'<p class="badge-key">{words}</p>{_NIGHT}'))
            return


def add_experiment(app, doctree):
    """Link at the end of a chapter the script that runs its experiment, where there is one."""
    name = app.env.docname
    folder = experiments.FOLDER
    path = pathlib.Path(app.env.srcdir, "_extra", folder, f"{name}.py")
    if path.is_file():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        doctree[0].append(
            _html(
                f'<p class="take-along"><a href="{folder}/{name}.py" download>Copy this experiment'
                f"</a>: the code that you have seen, and what it needs, in {lines} lines.</p>"
            )
        )


def add_sources(app, doctree):
    """Link below each figure of a chapter its data and the cell that drew it, if there are any."""
    folder = pathlib.Path(app.env.srcdir, "_extra", figure_data.FOLDER)
    for cell in doctree.findall(_is_part("cell_code")):
        code = next(iter(cell.findall(_is_part("cell_code_source"))), None)
        for figure in cell.findall(nodes.figure):
            links = []
            for name in figure["ids"][:1]:
                if (folder / f"{name}.csv").is_file():
                    links.append(f'<a href="{figure_data.FOLDER}/{name}.csv" download>Data</a>')
                if code is not None:
                    code["ids"].append(f"code-{name}")
                    links.append(f'<a href="#code-{name}">Code</a>')
            if links:
                figure.append(_html(f'<p class="figure-sources">{" ".join(links)}</p>'))


def _is_part(element):
    """Whether a node is such a part of a notebook's page, as a condition."""
    return lambda node: isinstance(node, nodes.container) and node.get("nb_element") == element


def add_scripts(app, pagename, templatename, context, doctree):
    """Load the scripts of the book where they have something to do."""
    app.add_js_file("book.js", loading_method="defer")
    if pagename == "scorecard":
        app.add_js_file("scorecard.js", loading_method="defer")


class ClaimRole(SphinxRole):
    """The badge of a claim; one that the ledger does not know is a warning, and ends the build."""

    def run(self):
        row = _rows(self.env).get(self.text)
        if row is None:
            message = self.inliner.reporter.error(
                f"{self.text!r} is no claim of claims.yml. Write one of its ids, as C20.",
                line=self.lineno,
            )
            return [], [message]
        page = self.env.docname
        return [_html(view.claim_link(self.text, row.verdict, row.link, page))], []


class GraphicalModels(Directive):
    """Graphs of q side by side, each over its name."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self):
        try:
            drawn = [(graphs.title(name), graphs.graph(name)) for name in _names(self.arguments[0])]
        except ValueError as error:
            return [self.state_machine.reporter.error(str(error), line=self.lineno)]
        figures = "".join(
            f"<figure>{graph}<figcaption>{words}</figcaption></figure>" for words, graph in drawn
        )
        return [_html(f'<div class="gaps-graphs">{figures}</div>')]


class Overview(Directive):
    """The large drawing."""

    def run(self):
        return [_html(overview.drawing())]


def _names(argument):
    """The names of an argument; those of schemes may hold commas, so the longest that fits counts.

    >>> _names("partial, all, no latents, full")
    ['partial', 'all, no latents', 'full']
    """
    pieces, names = [piece.strip() for piece in argument.split(",")], []
    while pieces:
        pair = ", ".join(pieces[:2])
        size = 2 if len(pieces) > 1 and pair in graphs.NAMES else 1
        names.append(pair if size == 2 else pieces[0])
        del pieces[:size]
    return names


def _rows(env):
    """The rows of the scorecard by claim, read once for each build; none in a book without claims.

    Nothing of it is stored with the pages, which Sphinx may keep for the next build.
    """
    folder = pathlib.Path(env.srcdir)
    if not hasattr(env.app, "tfp_gaps_rows"):
        known = (folder / "claims.yml").is_file()
        env.app.tfp_gaps_rows = {
            row.claim.id: row for row in (scorecard.rows(folder) if known else [])
        }
    return env.app.tfp_gaps_rows


def _html(text):
    return nodes.raw("", text, format="html")
