"""A batch of sequences as it travels from the loader to the bound: time-major, with its mask.

A sequence is x_1, ..., x_T with, where there are any, controls u_1, ..., u_{T-1}; u_t acts between
x_t and x_{t+1}. Missing values are marked in a mask and never filled: the likelihood sums over
observed values alone. Time is the first axis everywhere.
"""

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks

_LARGEST_ROUNDING = 0.01
"""Of a value, as a share of the standard deviation of its channel."""


class Batch(NamedTuple):
    """What models and posteriors take together: arrays or tensors [time, ..., channels], unchecked.

    In the middle stand the sequences, for a network [replicas, batch].

    observations: x_{1:T}; any finite value where the mask says missing.
    controls: row t acts into step t, or None.
    mask: 1 or True where observed, of the shape of `observations`, or None if everything is.

    >>> Batch(np.zeros([28, 100, 3])).map(lambda part: part[:14, :5]).observations.shape
    (14, 5, 3)
    """

    observations: object
    controls: object = None
    mask: object = None

    def map(self, function):
        """Apply a function to each part that there is."""
        return Batch(*(None if part is None else function(part) for part in self))


@dataclass(frozen=True, eq=False)
class Sequences:
    """Sequences of one length.

    observations: [time, sequences, channels], float32 or uint8; 0 where the mask says missing.
    controls: float32 [time, sequences, control channels] or None; row t holds the control that acts
      into step t, that is u_{t-1}. Nothing acts into the first step: its row is zero, or bounds and
      filters refuse it. Rows that act out of step t are to be shifted by one.
    mask: bool [time, sequences, channels], True where observed; None if everything is.

    >>> x = Sequences(np.zeros([28, 100, 3]))
    >>> len(x), x.num_timesteps, x.observations.dtype, x.first(2).observations.shape
    (100, 28, dtype('float32'), (28, 2, 3))

    Raises:
      ValueError: for shapes that do not agree, for NaN or infinite values that are not masked, and
        for values that float32 rounds by more than a hundredth of the spread of their channel.
    """

    observations: np.ndarray
    controls: np.ndarray | None = None
    mask: np.ndarray | None = None

    def __post_init__(self):
        observations = _rank_three(self.observations, "observations")
        mask = None if self.mask is None else _mask(self.mask, observations.shape)
        if mask is not None:
            # Whatever stood in the place of a missing value must not matter to anybody.
            observations = np.where(mask, observations, np.zeros([], observations.dtype))
        advice = "Mask missing values: `Sequences.from_missing(x)`."
        observations = _in_single(observations, "observations", advice, mask)
        # The dataclass is frozen; these are its own fields, brought into their one form.
        object.__setattr__(self, "observations", observations)
        object.__setattr__(self, "mask", None if mask is None or mask.all() else mask)
        if self.controls is not None:
            object.__setattr__(self, "controls", _controls(self.controls, observations.shape))

    @classmethod
    def from_missing(cls, observations, controls=None):
        """Sequences from an array, not a masked one, in which NaN stands for a missing value.

        >>> x = Sequences.from_missing(np.array([[[1.0]], [[np.nan]]]))
        >>> x.observations.ravel(), x.mask.ravel()
        (array([1., 0.], dtype=float32), array([ True, False]))
        """
        advice = "Pass x.filled(np.nan)."
        _checks.unmasked(observations, "observations", advice=advice)
        observations = np.asarray(observations)
        return cls(observations, controls, ~np.isnan(observations))

    @property
    def batch(self):
        """The same arrays as a `Batch`, [time, sequences, channels]."""
        return Batch(self.observations, self.controls, self.mask)

    @property
    def num_timesteps(self):
        return self.observations.shape[0]

    def __len__(self):
        return self.observations.shape[1]

    def first(self, count):
        """The first `count` sequences, or all if there are fewer."""
        return self.select(slice(_checks.integer(count, "count", minimum=0)))

    def select(self, indices):
        """The sequences at `indices` (integers, booleans or a slice), in that order.

        >>> Sequences(np.arange(3.0).reshape(1, 3, 1)).select([2, 0]).observations.ravel()
        array([2., 0.], dtype=float32)
        """
        if not isinstance(indices, slice):
            indices = np.atleast_1d(np.asarray(indices))
            if indices.size == 0:
                indices = indices.astype(int)
        return Sequences(*self.batch.map(lambda part: part[:, indices]))


def as_sequences(x):
    """`x` if it is `Sequences` already, else a bare array [time, sequences, channels] wrapped."""
    return x if isinstance(x, Sequences) else Sequences(x)


def _rank_three(value, name):
    hidden = _checks.num_masked(value)
    if hidden:
        raise ValueError(
            f"{name} must be a bare array, but {hidden} values of it are "
            f"masked and would lose their mask. Pass x.filled(0) and mask=~np.ma.getmaskarray(x)."
        )
    array = np.asarray(value)
    if array.dtype.kind not in "buif":
        raise ValueError(
            f"{name} must be an array of real numbers, but have the type {array.dtype}. Convert "
            f"them first."
        )
    if array.ndim != 3:
        raise ValueError(
            f"{name} must have shape [time, sequences, channels], but have shape "
            f"{array.shape}. Transpose to time-major."
        )
    if 0 in (array.shape[0], array.shape[2]):
        raise ValueError(
            f"{name} must have at least one time step and one channel, but have shape "
            f"{array.shape}. An empty set of sequences has shape [time, 0, channels]."
        )
    return array.astype(np.uint8) if array.dtype == np.bool_ else array


def _mask(value, shape):
    _checks.unmasked(value, "mask", advice="Give True where a value was observed, else False.")
    mask = np.asarray(value)
    if mask.shape != shape or mask.dtype != np.bool_:
        raise ValueError(
            f"mask must be an array of booleans of the observations' shape {shape}, but has type "
            f"{mask.dtype} and shape {mask.shape}. Give True where a value was observed."
        )
    return mask


def _controls(value, shape):
    controls = _rank_three(value, "controls")
    if controls.shape[:2] != shape[:2]:
        raise ValueError(
            f"controls must have the observations' {shape[0]} steps and {shape[1]} sequences, but "
            f"have shape {controls.shape}. Row t holds the control that acts into step t, with "
            f"zeros in row 0."
        )
    advice = "Leave out sequences whose controls are unknown."
    return _in_single(controls, "controls", advice).astype(np.float32, copy=False)


def _in_single(array, name, advice, mask=None):
    """As float32, or uint8 if it is that; refuse values that it does not hold."""
    if array.dtype == np.uint8:
        return array
    with np.errstate(over="ignore"):
        result = array.astype(np.float32, copy=False)
    _finite(result, name, advice)
    if np.can_cast(array.dtype, np.float32) or not array.size:
        return result
    array = array.astype(np.float64)
    where = True if mask is None else mask
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a channel without any value has no spread
        spread = array.std((0, 1), where=where)
    # What is constant but for the rounding of float64 has no spread either.
    spread[spread <= 1e-12 * np.abs(array).max((0, 1))] = 0.0
    changed = (np.abs(result - array) > _LARGEST_ROUNDING * spread) & (spread > 0)
    if changed.any():
        channel = int(np.argmax(changed.any((0, 1))))
        raise ValueError(
            f"{name} must be held by float32, in which sequences are computed, but "
            f"{int(changed.sum())} of {array.size} values are rounded by more than "
            f"{_LARGEST_ROUNDING:.0%} of the spread of their channel, such as "
            f"{array[..., channel][changed[..., channel]][0]} in channel {channel} with a standard "
            f"deviation of {spread[channel]:.3g}. Subtract an offset from data and model."
        )
    return result


def _finite(array, name, advice):
    bad = ~np.isfinite(array)
    if bad.any():
        raise ValueError(
            f"{name} must be finite, but {int(bad.sum())} of {array.size} values, in "
            f"{int(bad.any((0, 2)).sum())} of {array.shape[1]} sequences, are NaN or infinite. "
            f"{advice}"
        )
