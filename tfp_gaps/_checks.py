"""Checks at the public boundary: what was expected, what was found, what to do."""

import difflib
import numbers

import numpy as np


def num_masked(value):
    """How many entries of an array, or of arrays in a list, are masked.

    >>> num_masked([np.ma.masked_greater([1, 9], 5), [2, 3]])
    1
    """
    if isinstance(value, np.ma.MaskedArray):
        return int(np.ma.count_masked(value))
    if isinstance(value, list | tuple):
        return sum(num_masked(v) for v in value if isinstance(v, np.ma.MaskedArray | list | tuple))
    return 0


def unmasked(value, name, *, advice=""):
    """Raise if `value` holds masked entries: NumPy would take what is under the mask."""
    hidden = num_masked(value)
    if hidden:
        advice = advice or "Fill them, or leave them out."
        raise ValueError(f"{name} must hold no masked values, but {hidden} are masked. {advice}")


def real_array(value, name, *, advice=""):
    """Return `value` as a float64 array, finite or not; raise if it is masked or not real.

    >>> real_array([1, np.inf], "log weights")
    array([ 1., inf])
    """
    unmasked(value, name, advice=advice)
    try:
        array = np.asarray(value)
        if array.dtype.kind == "c":
            raise TypeError("they are complex")
        return array.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must be an array of real numbers, but {value!r} could not be read as one "
            f"({error}). {advice}".rstrip()
        ) from error


def finite_array(value, name, *, ndim=None, advice=""):
    """Return `value` as a float64 array; raise as `real_array`, and if it is not finite or has the
    wrong rank.

    >>> finite_array([1, 2], "locs", ndim=1)
    array([1., 2.])
    """
    array = real_array(value, name, advice=advice)
    if ndim is not None and array.ndim != ndim:
        raise ValueError(
            f"{name} must have {ndim} dimension(s), but has shape {array.shape}. {advice}".rstrip()
        )
    if not np.all(np.isfinite(array)):
        bad = int(np.sum(~np.isfinite(array)))
        raise ValueError(
            f"{name} must be finite, but {bad} of its {array.size} entries are NaN or infinite. "
            f"{advice}".rstrip()
        )
    return array


def positive_array(value, name, *, ndim=None, advice=""):
    """As `finite_array`, and every entry must be greater than zero.

    >>> positive_array([0.5], "scales")
    array([0.5])
    """
    array = finite_array(value, name, ndim=ndim, advice=advice)
    if not np.all(array > 0):
        raise ValueError(
            f"{name} must be greater than zero everywhere, but its smallest entry is "
            f"{array.min():g}. {advice}".rstrip()
        )
    return array


def positive_float(value, name, *, advice=""):
    """Return `value` as a positive, finite Python float.

    >>> positive_float(2, "noise_seen")
    2.0
    """
    return float(positive_array(value, name, ndim=0, advice=advice))


def level(value):
    """Return the level of an interval as a float, strictly between 0 and 1.

    >>> level(0.9)
    0.9
    """
    probability = positive_float(value, "level")
    if probability >= 1:
        raise ValueError(f"level must lie between 0 and 1, but is {value!r}. Use 0.9 for 90 %.")
    return probability


def integer(value, name, *, minimum=None, maximum=None, advice=""):
    """Return `value` as an `int` within bounds; booleans and fractions are refused.

    >>> integer(3, "num_timesteps", minimum=1)
    3
    """
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    low = minimum is not None and is_integer and value < minimum
    high = maximum is not None and is_integer and value > maximum
    if not is_integer or low or high:
        bounds = [f">= {minimum}"] if minimum is not None else []
        bounds += [f"<= {maximum}"] if maximum is not None else []
        wanted = " and ".join(["an integer", *bounds]) if bounds else "an integer"
        raise ValueError(f"{name} must be {wanted}, but is {value!r}. {advice}".rstrip())
    return int(value)


def seed(value):
    """Return a seed as an `int`: the sums of it and a stream must be int32.

    >>> seed(np.int64(3))
    3
    """
    return integer(value, "seed", minimum=0, maximum=2**31 - 1000, advice="Use 0 or any other.")


def offers(value, name, attributes, *, order):
    """Refuse an argument that lacks what is asked of it, such as one in another's place.

    Args:
      order: how the function is called, for the message: "elbo(model, posterior, sequences)".
    """
    missing = [attribute for attribute in attributes if not hasattr(value, attribute)]
    if missing:
        raise ValueError(
            f"{name} must offer {', '.join(attributes)}, but the {type(value).__name__} that was "
            f"given lacks {', '.join(missing)}. The order is {order}."
        )


def look_ahead(value, num_timesteps):
    """Return the number of future steps that q may see, between 0 and `num_timesteps` - 1.

    `None` means all of them (full conditioning). A value beyond the end of the sequence sees the
    same observations as full conditioning and is reduced to it.

    >>> look_ahead(None, 8), look_ahead(2, 8), look_ahead(99, 8)
    (7, 2, 7)
    """
    full = integer(num_timesteps, "num_timesteps", minimum=1) - 1
    if value is None:
        return full
    advice = "Use 0 for a filter (partial), k > 0 for k future steps, None for all of them."
    return min(integer(value, "lookahead", minimum=0, advice=advice), full)


def one_of(value, name, choices):
    """Return `value` if it is among `choices`, else name the choices.

    >>> one_of("book", "scale", ["smoke", "book", "paper"])
    'book'
    """
    if value not in choices:
        listed = ", ".join(str(choice) for choice in choices)
        advice = meant(value, choices) or "Choose one of these."
        raise ValueError(f"Unknown {name} {value!r}. Known: {listed}. {advice}")
    return value


def meant(value, choices):
    """A question for a name that is nearly one of `choices`, or nothing.

    >>> meant("scael", ["mean", "scale"])
    "Did you mean 'scale'?"
    """
    names = {str(choice).lower(): str(choice) for choice in choices}
    close = difflib.get_close_matches(str(value).lower(), names, n=1)
    return f"Did you mean {names[close[0]]!r}?" if close else ""
