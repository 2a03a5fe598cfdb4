"""Write the data behind the figures as CSV files beside the pages, where the build links to them.

The data come from the outputs of the chapters (`tfp_gaps.book.figures.behind`): every execution
stores them. A chapter that was executed before that has none until it runs again.
"""

import notebooks
from tfp_gaps.book.figures import behind

FOLDER = "figures"


def write(project):
    """Write book/_extra/figures/NAME.csv of each figure whose output holds data."""
    folder = project.book / "_extra" / FOLDER
    for path in folder.glob("*.csv"):
        path.unlink()
    for name in project.chapters():
        for cell in notebooks.code_cells(notebooks.read(project.path(name))):
            figure = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
            for output in cell.outputs:
                entries = output.get("metadata", {}).get("tfp_gaps", {}).get("data")
                if figure and entries:
                    notebooks.write_text(folder / f"{figure}.csv", behind.table(entries))
