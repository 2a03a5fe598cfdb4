"""Names of the arrays in the structures that TFP takes and returns.

A joint distribution returns a dictionary, a named tuple or a list, and, where one of its parts is a
joint distribution of its own, the same again inside: that part's arrays have dotted names.
"""

from collections.abc import Mapping

from tfp_gaps._tensorflow import tf


def names(structure, top=(), prefix=""):
    """Names of the arrays of a structure, in the order of `tf.nest.flatten`.

    Args:
      structure: of arrays, or of anything that TensorFlow does not take for nested.
      top: names of the entries of a plain list or tuple, or of a single array.

    >>> names({"z": {"b": 1.0, "a": 2.0}, "y": 3.0})
    ['y', 'z.a', 'z.b']
    """
    return [prefix + name for name, _ in _items(structure, top)]


def _items(structure, top):
    if not tf.nest.is_nested(structure):
        yield (top[0] if top else ""), structure
        return
    if isinstance(structure, Mapping):
        entries = [(key, structure[key]) for key in sorted(structure)]
    elif hasattr(structure, "_fields"):
        entries = list(zip(structure._fields, structure, strict=True))
    else:
        entries = list(zip(top or map(str, range(len(structure))), structure, strict=True))
    for key, value in entries:
        for name, leaf in _items(value, ()):
            yield f"{key}.{name}".rstrip("."), leaf


def by_name(structure, top=()):
    """{dotted name: array} of a structure.

    >>> by_name([1.0, {"a": 2.0}], ("y", "z"))
    {'y': 1.0, 'z.a': 2.0}
    """
    return dict(_items(structure, top))


def entries(structure, top):
    """{name: entry} of the outermost level alone."""
    if isinstance(structure, Mapping):
        return dict(structure)
    if hasattr(structure, "_asdict"):
        return dict(structure._asdict())
    if not isinstance(structure, list | tuple):
        structure = [structure]
    return dict(zip(top, structure, strict=True))


class Parts:
    """The arrays of one structure, by name.

    Args:
      structure: of event shapes.
      top: names of its outermost entries, in the order of the model.
    """

    def __init__(self, structure, top):
        self.structure, self.top = structure, tuple(top)
        self.flat = names(structure, self.top)
        self.names = tuple(sorted(self.flat, key=lambda name: self.top.index(self._outer(name))))

    def _outer(self, name):
        return next(top for top in self.top if name == top or name.startswith(f"{top}."))

    def by_name(self, structure):
        """{name: array}, in the order of the model."""
        found = by_name(structure, self.top)
        return {name: found[name] for name in self.names}

    def pack(self, values):
        """The structure of the model from {name: array}."""
        return tf.nest.pack_sequence_as(self.structure, [values[name] for name in self.flat])

    def keywords(self, values):
        """{outermost name: array or structure}, as `log_prob` takes them."""
        return entries(self.pack(values), self.top)
