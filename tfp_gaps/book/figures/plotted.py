"""What a figure plots, in a few numbers: the part of a picture that can be compared.

Pixels differ between machines by fonts and rounding, and say nothing when they differ. The data of
the artists do: lines and bars by their points, clouds by their places, images by their values.
"""

import hashlib

import matplotlib.axes
import numpy as np

RESIDUE = 1e-9
"""Below this part of the largest value in its column, a value is what rounding left of zero."""


def plotted(fig):
    """Return what a drawn figure plots, by artist (of three dimensions, their projection).

    Args:
      fig: the `matplotlib.figure.Figure`.

    Returns:
      dict from names such as "axes 1, line 2 (full)" to texts: the shape; for each column the first
      and last finite value, minimum, maximum and mean; a digest of all values. Numbers have six
      significant digits. Titles and texts within the axes are in it as they are.

    >>> from matplotlib.figure import Figure
    >>> fig = Figure()
    >>> _ = fig.add_subplot().plot([0, 1, 2], [0, 3, 1], label="gap")
    >>> plotted(fig)
    {'axes 1, line 1 (gap)': '3 x 2 | 0 2 0 2 1 | 0 1 0 3 1.33333 | 8e427dad93195711'}
    """
    found = {}
    for number, axes in enumerate(fig.findobj(matplotlib.axes.Axes), start=1):
        for kind, artists, values in (
            ("line", axes.lines, lambda line: line.get_xydata()),
            ("patch", axes.patches, _outline),
            ("collection", axes.collections, _places),
            ("image", axes.images, lambda image: np.ravel(image.get_array())[:, None]),
        ):
            for index, artist in enumerate(artists, start=1):
                label = str(artist.get_label())
                shown = "" if label.startswith("_") or not label else f" ({label})"
                found[f"axes {number}, {kind} {index}{shown}"] = _summary(values(artist))
        written = [axes.get_title(place) for place in ("left", "center", "right")]
        written = list(filter(None, [*written, *(text.get_text() for text in axes.texts)]))
        if written:
            found[f"axes {number}, texts"] = " | ".join(written)
    return found


def _outline(patch):
    """The corners of a bar or another shape, in its own coordinates."""
    return patch.get_patch_transform().transform(patch.get_path().vertices)


def _places(collection):
    """Where the members of a collection lie; their colours too, where these stand for values."""
    shapes = [path.vertices for path in collection.get_paths() if len(path.vertices)]
    parts = [np.ma.filled(collection.get_offsets(), np.nan), *shapes]
    if collection.get_array() is not None:
        values = np.ma.filled(np.asarray(collection.get_array(), float), np.nan).ravel()
        parts.append(np.stack([values, values], axis=1))
    return np.concatenate(parts)


def _summary(values):
    values = np.ma.filled(np.ma.asarray(values, float), np.nan)
    sizes = np.where(np.isfinite(values), np.abs(values), 0.0)
    values = np.where(sizes < RESIDUE * sizes.max(axis=0, initial=0.0), 0.0, values)
    digits = np.char.mod("%.6g", values)
    columns = []
    for column in values.T:
        known = column[np.isfinite(column)]
        if not known.size:
            columns.append("")
            continue
        numbers = (known[0], known[-1], known.min(), known.max(), known.mean())
        columns.append(" ".join(f"{number:.6g}" for number in numbers))
    sha = hashlib.sha256(" ".join(digits.ravel()).encode()).hexdigest()[:16]
    return " | ".join([" x ".join(map(str, values.shape)), *columns, sha])
