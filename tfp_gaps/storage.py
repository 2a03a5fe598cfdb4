"""Files that are either whole or absent: atomic writes, checksums, no pickles."""

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import os
import tempfile
from pathlib import Path

import numpy as np


class CorruptFileError(ValueError):
    """A file's content does not match its checksum, or cannot be read at all."""


def write_atomically(path, content):
    """Write bytes to `path` so that a reader sees the old file or the new one, never a part.

    Args:
      path: target; its folder is made if needed.
      content: bytes.

    Raises:
      OSError: if the folder cannot be written or the disk is full; the old file is untouched.
    """
    path = Path(path)
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.chmod(partial, 0o644)  # mkstemp makes files for their owner alone
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        if partial is not None:
            with contextlib.suppress(OSError):
                os.unlink(partial)
        raise OSError(
            error.errno,
            f"expected to write {len(content)} bytes to {path}, but the system said: "
            f"{error.strerror}. Nothing was changed. Choose a folder that can be written (and has "
            f"room), then run the same command again",
        ) from error


def check_writable(folder):
    """Raise now, not after hours of work, if files cannot be written to `folder`."""
    probe = Path(folder) / ".writable"
    write_atomically(probe, b"")
    probe.unlink(missing_ok=True)  # another run may have probed the same folder


def sha256(content):
    """Hexadecimal SHA-256 of bytes.

    >>> sha256(b"")[:12]
    'e3b0c44298fc'
    """
    return hashlib.sha256(content).hexdigest()


def write_arrays(path, arrays, *, description):
    """Store named arrays with a JSON description and a checksum over both, atomically.

    Args:
      path: target, an npz file without pickles.
      arrays: dict of name to numerical array.
      description: a JSON-serialisable dict.
    """
    text = json.dumps(description, sort_keys=True)
    buffer = io.BytesIO()
    np.savez(buffer, __description__=text, __digest__=_digest(arrays, text), **arrays)
    write_atomically(path, buffer.getvalue())


def read_arrays(path):
    """Read what `write_arrays` wrote.

    Returns:
      arrays: dict of name to array.
      description: dict.

    Raises:
      CorruptFileError: if the file is truncated, altered or of another kind.
    """
    content = Path(path).read_bytes()
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        text, digest = str(arrays.pop("__description__")), str(arrays.pop("__digest__"))
        description = json.loads(text)
    except Exception as error:
        raise CorruptFileError(
            f"{path} should be a checkpoint of named arrays, but could not be read "
            f"({type(error).__name__}: {error}). It was cut short or overwritten: delete it."
        ) from error
    if _digest(arrays, text) != digest:
        raise CorruptFileError(
            f"{path} should have the checksum {digest[:12]}, but its content gives "
            f"{_digest(arrays, text)[:12]}. It was altered after it was written: delete it."
        )
    return arrays, description


def _digest(arrays, text):
    total = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name}{array.dtype}{array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


# --- records as JSON ------------------------------------------------------------------------------


def to_json(record):
    """Write a record, a dataclass or NamedTuple of numbers, arrays and other records, as JSON.

    JSON knows no NaN, no infinity and no array: floats that are not finite are strings, and arrays
    name their dtype. Every float comes back bit for bit.
    """
    return json.dumps(_encoded(record), allow_nan=False)


def from_json(text, types):
    """Read what `to_json` wrote.

    Args:
      text: JSON.
      types: the classes that a record may be made of, the first of them what is expected.

    Raises:
      ValueError: for text that is no JSON, or not of these records.
    """
    known = {kind.__name__: kind for kind in types}
    expected = types[0].__name__
    try:
        record = _decoded(json.loads(text), known)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"the text must be what {expected}.to_json wrote, but could not be read "
            f"({type(error).__name__}: {error}). Write it again with this version of the package."
        ) from error
    if type(record) is not types[0]:
        raise ValueError(
            f"the text must hold a {expected}, but holds a {type(record).__name__}. Read it with "
            f"the class that wrote it."
        )
    return record


def _encoded(value):
    if dataclasses.is_dataclass(value) or hasattr(value, "_fields"):
        names = getattr(value, "_fields", None) or [f.name for f in dataclasses.fields(value)]
        return {"record": type(value).__name__} | {
            name: _encoded(getattr(value, name)) for name in names
        }
    if isinstance(value, dict):
        return {"entries": [[key, _encoded(entry)] for key, entry in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_encoded(entry) for entry in value]}
    if isinstance(value, np.ndarray):
        return {"dtype": str(value.dtype), "values": _finite(value.tolist())}
    if isinstance(value, np.generic):
        value = value.item()
    return {"float": repr(value)} if value != _finite(value) else value


def _finite(value):
    """Nested lists with strings for floats that are not finite."""
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return value if not isinstance(value, float) or math.isfinite(value) else repr(value)


def _decoded(value, types):
    if not isinstance(value, dict):
        return value
    if "record" in value:
        fields = {name: _decoded(entry, types) for name, entry in value.items() if name != "record"}
        return types[value["record"]](**fields)
    if "entries" in value:
        return {key: _decoded(entry, types) for key, entry in value["entries"]}
    if "float" in value:
        return float(value["float"])
    for kind in (list, tuple):
        if kind.__name__ in value:
            return kind(_decoded(entry, types) for entry in value[kind.__name__])
    return np.array(value["values"], np.dtype(value["dtype"]))
