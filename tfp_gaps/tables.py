"""Tables: small ones, readable as HTML, as text and on a phone, and those of other libraries.

`data_frame` is for pandas, `data_tree` for ArviZ. Both packages are optional: the extra `interop`.
"""

import html
import importlib
import re

import numpy as np


class Table:
    """A table whose cells are shown as `str` shows them; on a page, with a true minus.

    Args:
      header: column titles.
      rows: sequences of as many cells; the first names the row.

    Raises:
      ValueError: if a row has another number of cells than the header.

    >>> print(Table(["k", "ELBO"], [[0, "-120.8 ± 0.9"]]))
    k  ELBO
    0  -120.8 ± 0.9
    """

    def __init__(self, header, rows):
        self.header = [str(cell) for cell in header]
        self.rows = [[str(cell) for cell in row] for row in rows]
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(
                    f"every row must have {len(self.header)} cells, one for each of "
                    f"{', '.join(self.header)}, but one has {len(row)}: {row}."
                )

    def __str__(self):
        lines = [self.header, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]
        padded = (
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            for line in lines
        )
        return "\n".join(line.rstrip() for line in padded)

    __repr__ = __str__

    def _repr_html_(self):
        head, *body = (
            [html.escape(true_minus(cell)) for cell in line] for line in (self.header, *self.rows)
        )
        head = "".join(f'<th scope="col">{cell}</th>' for cell in head)
        body = "".join(
            f'<tr><th scope="row">{name}</th>'
            + "".join(f"<td>{cell}</td>" for cell in cells)
            + "</tr>"
            for name, *cells in body
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def show_markdown(header, rows):
    """Show a table whose cells are strings of Markdown, such as mathematics, in a notebook."""
    from IPython.display import Markdown, display

    lines = [header, ["---"] * len(header), *rows]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    display(Markdown(true_minus(text)))


def true_minus(text):
    """`text` with a typographic minus before each negative number.

    >>> true_minus("-0.5 from t-1 on")
    '−0.5 from t-1 on'
    """
    return re.sub(r"(?<![\w.])-(?=\d)", "\N{MINUS SIGN}", text)


def percent(share):
    """A share as a text writes it.

    >>> percent(0.254)
    '25 %'
    """
    return f"{100 * share:.0f} %"


def data_frame(bounds, errors, diagnostics):
    """A `pandas.DataFrame` of {bound: [data]}, see `measuring.Measured.to_dataframe`."""
    rows = []
    for name, values in bounds.items():
        trust = diagnostics.get(name)
        doubts = getattr(trust, "doubts", {})
        for datum, value in enumerate(values):
            row = {"bound": name, "datum": datum, "value": value, "error": errors[name][datum]}
            for column in ("k_hat", "effective_size", "reliable"):
                found = getattr(trust, column, None)
                row[column] = None if found is None else found[datum]
            said = ", ".join(reason for reason, where in doubts.items() if where[datum])
            rows.append({**row, "doubts": None if trust is None else said})
    return _optional("pandas", "to_dataframe").DataFrame(rows)


def data_tree(groups, axes):
    """An `xarray.DataTree` as ArviZ reads it, its InferenceData.

    Args:
      groups: {group: {name: array}}; those of the posterior and its statistics are [draws, ...], a
        single chain.
      axes: {name: names of the axes behind the draws}; axes without a name are numbered.
    """
    drawn = ("posterior", "sample_stats")
    content = {
        group: {
            name: np.asarray(a)[np.newaxis] if group in drawn else a for name, a in part.items()
        }
        for group, part in groups.items()
    }
    return _optional("arviz_base", "to_inference_data").from_dict(content, dims=axes)


def _optional(package, asked_by):
    try:
        return importlib.import_module(package)
    except ImportError as error:
        name = package.replace("_", "-")
        raise ImportError(
            f"{asked_by} needs the package {name}, which could not be imported ({error}). Install "
            f'it: pip install {name}, or "tfp-gaps[interop]".'
        ) from error
