"""What a posterior of a `Model` must be for its bounds to be those of one density.

The density that `log_prob` gives must be that of the draws, belong to the datum and not to the
batch that it comes in, and live where the model's does. Each check evaluates q at few draws, with a
seed of its own: what is measured draws the same numbers with it or without.
"""

import numpy as np

from tfp_gaps._tensorflow import tf
from tfp_gaps.models import coordinates
from tfp_gaps.models.densities import sample
from tfp_gaps.models.observations import num_data, select

_NUM_DRAWS, _NUM_COMPLETIONS = 8, 8
_TOLERANCE = 0.01
"""Nats; below it, a difference cannot be told from rounding that is allowed elsewhere."""


def steady(posterior, x):
    """Refuse a q that answers the same question twice differently, or mixes data.

    A q without an inverse knows the density of draws that it just made alone, and is not asked.

    Args:
      posterior: a distribution, or a function of the data.
      x: data, as `Model.data` returns them.

    Raises:
      ValueError: for a q whose density changes from one call to the next, and for one whose density
        of the first or the last datum changes when all other data are replaced by that one.
    """
    with coordinates.measured():
        drawn = sample(_of(posterior, x), _NUM_DRAWS, 0)
        try:
            once, again = (_densities(_of(posterior, x), drawn) for _ in range(2))
        except NotImplementedError:
            return
        if _differ(once, again).any():
            raise ValueError(
                f"the posterior must give the same density for the same data, but gave another "
                f"when asked twice, by up to {_largest(once, again):.2g} nats. Switch dropout off, "
                f"or fix its seed."
            )
        count = num_data(x)
        if hasattr(posterior, "log_prob") or once.shape != (_NUM_DRAWS, count):
            return
        for datum in {0, count - 1} if count > 1 else ():
            # As many rows as before, for a q that holds parameters of each of these data.
            among = _densities(posterior(select(x, np.full(count, datum))), drawn)
            if among.shape == once.shape and _differ(once, among)[:, datum].any():
                raise ValueError(
                    f"the posterior must treat each datum alone, but its density for datum {datum} "
                    f"changes by up to {_largest(once[:, datum], among[:, datum]):.2g} nats when "
                    f"the data beside it change. Switch batch normalisation to inference, or "
                    f"reduce over the axes of one datum only."
                )


def completing(posterior, x, completions):
    """Refuse completions that do not agree with the data in what q sees.

    A function of the data can be asked: q of a completion must be q of the datum. Of a distribution
    nobody knows what it sees.

    Args:
      posterior: a distribution, or a function of the data.
      x: data, [data, *event].
      completions: [completions, data, *event]; eight of them are looked at.

    Raises:
      ValueError: where q of a completion has another density than q of its datum.
    """
    if hasattr(posterior, "log_prob"):
        return
    last = num_data(completions) - 1
    with coordinates.measured():
        q = posterior(x)
        drawn = sample(q, _NUM_DRAWS, 0)
        try:
            given = _densities(q, drawn)
        except NotImplementedError:
            return
        for number in np.unique(np.linspace(0, last, _NUM_COMPLETIONS).astype(int)):
            found = _densities(posterior(select(completions, int(number))), drawn)
            wrong = _differ(given, found)
            if wrong.any():
                datum = int(np.argmax(wrong.any(0))) if wrong.ndim > 1 else 0
                raise ValueError(
                    f"completions must agree with the data in all that the posterior sees, but its "
                    f"density changes by up to {_largest(given, found):.2g} nats from the data to "
                    f"completion {number}, first for datum {datum}. Keep what it sees, in the "
                    f"order [completions, data, *event]; leave completions out if it sees all."
                )


def on_support(model, parts):
    """Refuse draws of q that the model's own bijector does not give back.

    Off its support the density of a part may still be a finite number, as that of TFP's exponential
    below zero, and next to a surface one of another dimension than q's.

    Args:
      model: `Model`.
      parts: {name: [draws, data, *event]}; what is not finite is left to others.

    Raises:
      ValueError: with the part, the share of its draws outside, and one of them.
    """
    numbers = model.unconstrain(parts)
    # A tensor that TFP's bijectors, which remember what they were applied to, do not know.
    back, _ = model.constrain(tf.constant(numbers.numpy()))
    sizes = [int(np.prod(shape)) for shape in model._free_shapes]
    pieces = np.split(numbers.numpy(), np.cumsum(sizes)[:-1], axis=-1)
    free = dict(zip(model._parts.flat, pieces, strict=True))
    for name in model.latents:
        value = np.asarray(parts[name])
        value = value.reshape([*value.shape[:2], -1])
        outside = _outside(value, np.asarray(back[name]).reshape(value.shape), free[name])
        if outside.any():
            draw, datum = np.argwhere(outside)[0]
            made = model._density.made.get(name)
            kind = f" ({type(made).__name__})" if made is not None else ""
            at = np.array2string(np.asarray(parts[name])[draw, datum], precision=3, threshold=4)
            raise ValueError(
                f"the posterior must draw {name!r} where the model's part{kind} has its support, "
                f"but {outside.mean():.2g} of its draws lie outside, such as "
                f"{' '.join(at.split())} for datum {datum}. Restrict it: transform normal numbers "
                f"by the part's default bijector."
            )


def _outside(value, back, free):
    """Whether a draw has no coordinates, or moves when it is made of them again: [draws, data].

    Args:
      value, back: [draws, data, entries].
      free: [draws, data, numbers]. Infinite ones are of the edge, from which not all maps return.
    """
    value, back = value.astype(np.float64), back.astype(np.float64)
    finite = np.isfinite(value).all(-1)
    if free.shape[-1] == value.shape[-1]:
        # Rounding may move draws of a narrow q far inside of a wide interval, yet less than q does.
        spread = np.where(finite[..., np.newaxis], value, 0.0).std((0, 1)).max(initial=0.0)
        limit = 0.5 * spread if spread > 0 else np.inf
    else:
        eps = np.finfo(free.dtype).eps
        size = np.abs(value).max(-1)
        spread = value.std(0).max(-1)
        limit = np.maximum(100 * eps * size, 0.1 * spread)
        limit = np.minimum(limit, max(1e4 * eps, 1e-6) * size)
    with np.errstate(invalid="ignore"):
        moved = (np.abs(back - value) > np.expand_dims(limit, -1)).any(-1)
    return finite & (np.isnan(free).any(-1) | moved)


def _of(posterior, x):
    # Surrogates with deferred parameters are callable in name only.
    return posterior if hasattr(posterior, "log_prob") else posterior(x)


def _densities(q, drawn):
    """ln q as an array, at tensors that its bijectors do not remember from drawing them."""
    copies = tf.nest.map_structure(lambda part: tf.constant(np.asarray(part)), drawn)
    return np.asarray(q.log_prob(copies))


def _differ(one, other):
    """Where two densities differ by more than rounding, bool."""
    if one.shape != other.shape:
        return np.ones(one.shape, bool)
    relative = 100 * np.finfo(one.dtype).eps
    return ~np.isclose(one, other, rtol=relative, atol=_TOLERANCE, equal_nan=True)


def _largest(one, other):
    """The largest difference of two densities, nats; infinite where there is no number."""
    if one.shape != other.shape:
        return np.inf
    with np.errstate(invalid="ignore"):
        return np.max(np.nan_to_num(np.abs(one - other), nan=np.inf))
