"""The data behind a figure: what its artists plot, listed, so that readers can plot it themselves.

Where a chapter is executed, Matplotlib tells `watch` of each new figure (its setting figure.hooks;
tools/execution.py makes it), and the data of the figure that was drawn last join the metadata of
the output that shows it. So no chapter has code for it, no picture changes, and what is compared of
a figure when a chapter is executed again stays what `plotted` says.
"""

import csv
import io
import re

import matplotlib.axes
import numpy as np
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.patches import Rectangle

from tfp_gaps.book.figures.plotted import plotted

MAXIMUM = 20_000
"""Points of one artist; more are no data for a reader, but a picture."""

HEADER = ["panel", "artist", "label", "x", "y", "value"]
_drawn = []


def watch(fig):
    """Have the data of `fig` published with it once it is shown in a notebook."""
    from IPython import get_ipython

    def remember(event):
        _drawn[:] = [event.canvas.figure]

    fig.canvas.mpl_connect("draw_event", remember)
    publisher = getattr(get_ipython(), "display_pub", None)
    if publisher is not None and publish not in getattr(publisher, "_hooks", [publish]):
        publisher.register_hook(publish)


def publish(message):
    """Add the data of the figure drawn last to a message of the kernel that shows this figure."""
    own = message["content"].get("metadata", {}).get("tfp_gaps", {})
    # One made without pyplot is not told of: the figure drawn last may be another.
    if _drawn and own.get("plotted") == plotted(_drawn[0]):
        own["data"] = data(_drawn[0])
    return message


def data(fig):
    """What a drawn figure plots, as a list of dicts that JSON can hold.

    Returns:
      One entry for each axis with a label or with words for ticks, and for each artist: its panel
      (from 1, with the title), its kind and number, its label, and lists x and y, with value where
      colours stand for values. Bars are their two corners, error bars and bands their vertices.
      Numbers have six significant digits; what is not finite is None. Pictures, which are images in
      panels without ticks, are left out.

    >>> from matplotlib.figure import Figure
    >>> fig = Figure()
    >>> _ = fig.add_subplot(title="gap").plot([0, 1], [0.5, float("nan")], label="full")
    >>> data(fig)
    [{'panel': '1: gap', 'artist': 'line 1', 'label': 'full', 'x': [0.0, 1.0], 'y': [0.5, None]}]
    """
    found = []
    for number, axes in enumerate(fig.findobj(matplotlib.axes.Axes), start=1):
        titles = filter(None, map(axes.get_title, ("left", "center", "right")))
        panel = ": ".join([str(number), *titles])
        for entry in (*_axes(axes), *_artists(axes)):
            if len(entry["x"]) <= MAXIMUM:
                found.append({"panel": panel} | entry)
    return found


def _axes(axes):
    """Labels and, where they are words, ticks of both axes."""
    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        if axis.get_label_text():
            yield _entry(f"{name} axis", axis.get_label_text(), [], [])
        words = [tick.get_text().replace("mathdefault", "") for tick in axis.get_ticklabels()]
        if any(re.search("[A-Za-z]", word) for word in words):
            for place, word in zip(axis.get_ticklocs(), words):
                places = ([place], [None]) if name == "x" else ([None], [place])
                yield _entry(f"{name} tick", word, *places)


def _artists(axes):
    for number, line in enumerate(axes.lines, start=1):
        yield _entry(f"line {number}", line.get_label(), *line.get_xydata().T)
    for number, patch in enumerate(axes.patches, start=1):
        yield _entry(f"patch {number}", patch.get_label(), *_corners(patch).T)
    for number, each in enumerate(axes.collections, start=1):
        places, values = _places(each), each.get_array()
        coloured = values is not None and np.size(values) == len(places)
        yield _entry(
            f"collection {number}", each.get_label(), *places.T, values if coloured else None
        )
    for number, image in enumerate(axes.images, start=1):
        values = np.asarray(image.get_array(), float)
        # Three axes are colours; a panel without ticks shows a picture, not a map.
        if values.ndim == 2 and axes.get_xticks().size:
            rows, columns = np.indices(values.shape)
            yield _entry(f"image {number}", image.get_label(), columns, rows, values)


def _corners(patch):
    if isinstance(patch, Rectangle):
        (x, y), width, height = patch.get_xy(), patch.get_width(), patch.get_height()
        return np.array([[x, y], [x + width, y + height]])
    return patch.get_patch_transform().transform(patch.get_path().vertices)


def _places(collection):
    """Vertices of lines and bands; of markers and whatever else, where they are."""
    if isinstance(collection, LineCollection | PolyCollection):
        paths = [path.vertices for path in collection.get_paths()]
        return np.concatenate(paths) if paths else np.empty((0, 2))
    return np.ma.filled(np.ma.asarray(collection.get_offsets(), float), np.nan).reshape(-1, 2)


def _entry(artist, label, x, y, value=None):
    """An entry of `data`; labels that Matplotlib gives by itself are left out."""
    entry = {"artist": artist, "label": "" if str(label).startswith("_") else str(label)}
    entry |= {"x": _listed(x), "y": _listed(y)}
    return entry if value is None else entry | {"value": _listed(value)}


def _listed(values):
    flat = np.ma.filled(np.ma.asarray(values, float), np.nan).ravel()
    return [float(f"{each:.6g}") if np.isfinite(each) else None for each in flat]


def table(entries):
    """The text of a CSV file of what `data` returned: a row for each point, or for each label.

    >>> print(table([{"panel": "1", "artist": "x axis", "label": "nats", "x": [], "y": []}]))
    panel,artist,label,x,y,value
    1,x axis,nats,,,
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for entry in entries:
        start = [entry[key] for key in HEADER[:3]]
        points = zip(entry["x"], entry["y"], entry.get("value") or [None] * len(entry["x"]))
        for point in list(points) or [[None] * 3]:
            writer.writerow([*start, *("" if each is None else f"{each:g}" for each in point)])
    return text.getvalue()
