"""What the book adds to Sphinx: drawings at the heads of chapters, badges of claims, graphs of q.

    {claim}`C20`                                    a badge with the verdict: to the cell that
                                                    measured it, and to its row of the scorecard
    ```{graphical-models} partial, full             small graphs of which arrows reach z_t, by the
    ```                                             names of tfp_gaps.book.figures.graphs
    ```{overview-of-gaps}                           the large drawing
    ```

No chapter asks for its small drawing: `overview.PLACES` says which parts it lights. So no cell
changes when a drawing does, and no chapter has to be executed again.
"""

import pathlib

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.util.docutils import SphinxRole

from tfp_gaps.book.figures import graphs, overview
from tfp_gaps.book.ledger import scorecard, view


def setup(app):
    """Register everything; called by Sphinx."""
    app.add_role("claim", ClaimRole())
    app.add_directive("graphical-models", GraphicalModels)
    app.add_directive("overview-of-gaps", Overview)
    app.connect("doctree-read", add_drawing)
    app.connect("html-page-context", add_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def add_drawing(app, doctree):
    """Put the small overview below the title of a chapter that `overview.PLACES` names."""
    lit = overview.PLACES.get(app.env.docname)
    title = next(doctree.findall(nodes.title), None)
    if lit and title is not None:
        where = title.parent.index(title) + 1
        title.parent.insert(where, _html(overview.here(lit)))


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
            drawn = [(name, graphs.graph(name)) for name in _names(self.arguments[0])]
        except ValueError as error:
            return [self.state_machine.reporter.error(str(error), line=self.lineno)]
        figures = "".join(
            f"<figure>{graph}<figcaption>{name}</figcaption></figure>" for name, graph in drawn
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
