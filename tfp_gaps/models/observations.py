"""What is observed: one array for all data, or one for each of several observed parts.

    x: [data, *event], or {name: [data, *event]}

Data are never converted with loss: what the dtype of the model does not hold is refused. A value
that is missing is NaN, and counts only where the model was told what to do with it.
"""

import numpy as np

from tfp_gaps import _checks
from tfp_gaps._tensorflow import tf


class Observations:
    """Shapes and dtypes of the observed parts of one datum, with which data are read.

    Args:
      example: a value, or {name: value} of several parts; None if nothing is left to observe.
      dtypes: {name: numpy dtype of the model, or None to take that of the example}.
      missing: whether NaN is data.
    """

    def __init__(self, example, dtypes, *, missing=False):
        self.is_single = not isinstance(example, dict)
        self.missing = missing
        if example is None:
            example = np.zeros(0, np.float32)
        example = example if isinstance(example, dict) else {next(iter(dtypes)): example}
        if set(example) != set(dtypes):
            raise ValueError(
                f"example must hold the observed part(s) {', '.join(dtypes)}, but holds "
                f"{', '.join(map(str, example)) or 'none'}. Give one value of each."
            )
        self.example = {
            name: _example(example[name], dtype, "example" if self.is_single else name)
            for name, dtype in dtypes.items()
        }

    def data(self, x):
        """`x` with one leading axis over data, checked; as `tfp_gaps.Model.data`."""
        if self.is_single:
            name = next(iter(self.example))
            if x is None and not self.example[name].size:
                x = np.zeros([1, 0])
            return self._part(name, x, "data")
        if not isinstance(x, dict) or set(x) != set(self.example):
            raise ValueError(
                f"data must be {{name: values}} of {', '.join(self.example)}, but are "
                f"{', '.join(map(str, x)) if isinstance(x, dict) else type(x).__name__}. Give one "
                f"array for each observed part, with the same number of rows."
            )
        found = {name: self._part(name, x[name], f"data of {name!r}") for name in self.example}
        counts = {name: len(values) for name, values in found.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(
                f"data must have the same number of rows in each part, but have {counts}. Give one "
                f"row of each part for each datum."
            )
        return found

    def _part(self, name, x, what):
        shape, dtype = self.example[name].shape, self.example[name].dtype
        x = real_array(x, what, missing=self.missing)
        if x.shape == shape:
            x = x[np.newaxis]
        if x.ndim != len(shape) + 1 or x.shape[1:] != shape:
            raise ValueError(
                f"{what} must have shape [data, *{shape}], as the example of {name!r} has {shape}, "
                f"but have shape {x.shape}."
            )
        if not len(x):
            raise ValueError(f"{what} must hold at least one datum, but hold none.")
        bad = np.isinf(x) if self.missing else ~np.isfinite(x)
        if bad.any():
            count = int(bad.sum())
            found = "1 value is not" if count == 1 else f"{count} values are not"
            raise ValueError(
                f"{what} must be finite, but {found}. Leave such data "
                f"out, or write NaN for missing values and Model(..., missing='marginalise')."
            )
        return converted(x, dtype, what)

    def by_name(self, x):
        """{name: values} of data in either form."""
        return {next(iter(self.example)): x} if self.is_single else x


def num_data(x):
    """Number of data in x.

    >>> num_data({"x": np.zeros([3, 2]), "y": np.zeros(3)})
    3
    """
    return len(tf.nest.flatten(x)[0])


def select(x, indices):
    """The data of x at these indices of the first axis: an int, a slice, or integers.

    >>> select({"x": np.array([1.0, 2.0]), "y": np.array([3, 4])}, [1])
    {'x': array([2.]), 'y': array([4])}
    """

    def take(values):
        if isinstance(indices, slice) or not (tf.is_tensor(values) or tf.is_tensor(indices)):
            return values[indices]
        return tf.gather(values, indices)

    return tf.nest.map_structure(take, x)


def _example(value, dtype, name):
    """The example in the model's dtype where that is real, in its own where it is not."""
    array = real_array(value, "example" if name == "example" else f"example of {name!r}")
    if dtype is not None and np.issubdtype(dtype, np.floating):
        return converted(array, dtype, "example")
    return tf.convert_to_tensor(array if hasattr(value, "dtype") else value).numpy()


def real_array(values, name, *, missing=False):
    """`values` as an array of real numbers or booleans; masked entries only as NaN, by consent."""
    if hasattr(values, "log_prob") or callable(values):
        raise ValueError(
            f"{name} must be an array, but is a {type(values).__name__}. The order is "
            f"measure(model, posterior, data)."
        )
    hidden = _checks.num_masked(values)
    if hidden:
        if missing and np.ma.isMaskedArray(values) and values.dtype.kind in "biuf":
            return values.astype(np.result_type(values.dtype, np.float32)).filled(np.nan)
        raise ValueError(
            f"{name} must hold no masked values, but {hidden} are masked. Leave these data out, or "
            f"model what is missing."
        )
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(
            f"{name} must be an array of real numbers, but could not be read as one ({error}). "
            f"Give every datum the same shape."
        ) from error
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} must be real numbers, but have dtype {array.dtype}. Convert them yourself, "
            f"so that nothing is lost unseen."
        )
    return array


def converted(array, dtype, name="data"):
    """`array` as `dtype`; refuse what changes by more than the rounding of a float."""
    dtype = np.dtype(dtype)
    with np.errstate(all="ignore"):
        result = array.astype(dtype)
        changed = (result != array) & ~(np.isnan(array) & (dtype.kind == "f"))
        if array.dtype.kind == dtype.kind == "f":
            changed &= (result == 0) | ~np.isfinite(result) | _is_coarse(array, result)
        if array.dtype.kind in "iu" and dtype.kind in "iu":
            limits = np.iinfo(dtype)
            changed = (array < limits.min) | (array > limits.max)
    if changed.any():
        first = array[changed].flat[0]
        raise ValueError(
            f"{name} must be held by the dtype {dtype} of model and example, but "
            f"{int(changed.sum())} of {array.size} values change, such as {first}. Use "
            f"{array.dtype} for model and example, or subtract an offset from the data."
        )
    return result


def _is_coarse(array, result):
    """Whether rounding to float32 moves a value by a notable part of the spread over data."""
    if array.ndim == 0:
        return np.zeros([], bool)
    spread = np.nanstd(array, axis=0) if len(array) > 1 else np.zeros([])
    if len(array):
        # What is constant but for the rounding of float64 has no spread either.
        spread = np.where(spread > 1e-12 * np.fmax.reduce(np.abs(array), axis=0), spread, 0.0)
    moved = np.abs(result.astype(array.dtype) - array)
    return (moved > 1e-2 * spread) & (np.broadcast_to(spread, array.shape) > 0)


def observed_names(observed, names):
    """`observed`, one name or several, as a tuple of names that the model has."""
    observed = (observed,) if isinstance(observed, str) else tuple(observed)
    if not observed or len(set(observed)) < len(observed):
        raise ValueError(
            f"observed must name one part or several different ones, but is {observed}. The parts "
            f"are {', '.join(names)}."
        )
    for name in observed:
        _checks.one_of(name, "observed part", names)
    return observed
