"""What a loader returns: time-major sequences, what is known of them, and their split.

A sequence is x_1, ..., x_T with, where there are any, controls u_1, ..., u_{T-1}; u_t acts between
x_t and x_{t+1}. Missing values are marked in a mask and never filled: the likelihood sums over
observed values alone.
"""

from dataclasses import dataclass

import numpy as np

from tfp_gaps import _checks

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Sequences:
    """Sequences of one length.

    observations: [time, sequences, channels], float32 or uint8; 0 where the mask says missing.
    controls: float32 [time, sequences, control channels] or None; row t holds the control that acts
      into step t, that is u_{t-1}. Nothing acts into the first step: its row is zero.
    mask: bool [time, sequences, channels], True where observed; None if everything is.

    >>> x = Sequences(np.zeros([28, 100, 3]))
    >>> len(x), x.num_timesteps, x.observations.dtype, x.first(2).observations.shape
    (100, 28, dtype('float32'), (28, 2, 3))

    Raises:
      ValueError: for shapes that do not agree, and for NaN or infinite values that are not masked.
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
        _finite(observations, "observations", "Mask missing values: `Sequences.from_missing(x)`.")
        # The dataclass is frozen; these are its own fields, brought into their one form.
        object.__setattr__(self, "observations", observations)
        object.__setattr__(self, "mask", None if mask is None or mask.all() else mask)
        if self.controls is not None:
            object.__setattr__(self, "controls", _controls(self.controls, observations.shape))

    @classmethod
    def from_missing(cls, observations, controls=None):
        """Sequences from an array in which NaN stands for a missing value.

        >>> x = Sequences.from_missing(np.array([[[1.0]], [[np.nan]]]))
        >>> x.observations.ravel(), x.mask.ravel()
        (array([1., 0.], dtype=float32), array([ True, False]))
        """
        observations = np.asarray(observations)
        return cls(observations, controls, ~np.isnan(observations))

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
        parts = (self.observations, self.controls, self.mask)
        return Sequences(*(None if part is None else part[:, indices] for part in parts))


def as_sequences(x):
    """`x` if it is `Sequences` already, else a bare array [time, sequences, channels] wrapped."""
    return x if isinstance(x, Sequences) else Sequences(x)


def _rank_three(value, name):
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
    binary = array.dtype in (np.uint8, np.bool_)
    return array.astype(np.uint8 if binary else np.float32, copy=False)


def _mask(value, shape):
    mask = np.asarray(value)
    if mask.shape != shape or mask.dtype != np.bool_:
        raise ValueError(
            f"mask must be an array of booleans of the observations' shape {shape}, but has type "
            f"{mask.dtype} and shape {mask.shape}. Give True where a value was observed."
        )
    return mask


def _controls(value, shape):
    controls = _rank_three(value, "controls").astype(np.float32, copy=False)
    if controls.shape[:2] != shape[:2]:
        raise ValueError(
            f"controls must have the observations' {shape[0]} steps and {shape[1]} sequences, but "
            f"have shape {controls.shape}. Row t holds the control that acts into step t, with "
            f"zeros in row 0."
        )
    _finite(controls, "controls", "Leave out sequences whose controls are unknown.")
    return controls


def _finite(array, name, advice):
    if array.dtype == np.uint8:
        return
    bad = ~np.isfinite(array)
    if bad.any():
        raise ValueError(
            f"{name} must be finite, but {int(bad.sum())} of {array.size} values, in "
            f"{int(bad.any((0, 2)).sum())} of {array.shape[1]} sequences, are NaN or infinite. "
            f"{advice}"
        )


@dataclass(frozen=True, eq=False)
class Windows:
    """Where sequences were cut from: window i starts at step `starts[i]` of series `series[i]`.

    A series is a sensor, a flight, or the one series of a data set that is read jointly.
    """

    series: np.ndarray
    starts: np.ndarray
    num_timesteps: int

    def __len__(self):
        return len(self.starts)

    def cut(self, values):
        """Cut these windows from other values of the same series.

        Args:
          values: [series, steps, channels].

        Returns:
          [time, windows, channels].

        >>> w = Windows(np.array([0, 1]), np.array([0, 2]), 2)
        >>> w.cut(np.arange(8).reshape(2, 4, 1))[..., 0]
        array([[0, 6],
               [1, 7]])
        """
        steps = self.starts + np.arange(self.num_timesteps)[:, np.newaxis]
        return values[self.series, steps]


def windows_within(stretches, num_timesteps, stride):
    """All windows that lie within stretches of series, one every `stride` steps.

    Args:
      stretches: list of (series, begin, end): steps begin, ..., end - 1 of a series. No window
        crosses from one stretch into another.
      num_timesteps: length of a window.
      stride: steps between the starts of neighbouring windows of a stretch.

    >>> windows_within([(0, 0, 5), (1, 2, 6)], 3, 2).starts
    array([0, 2, 2])
    """
    pairs = [
        (series, start)
        for series, begin, end in stretches
        for start in range(begin, end - num_timesteps + 1, stride)
    ]
    array = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return Windows(array[:, 0], array[:, 1], num_timesteps)


@dataclass(frozen=True, eq=False)
class Splits:
    """Training, validation and test sequences, and where they come from.

    source: one line that names files, checksum and preprocessing.
    channels: names of the channels, with units of the values before they were standardised.
    scaling: (shift, scale), each [channels] or, where the sequences are of different sensors,
      [series, channels]: x before it was standardised is x * scale + shift.
    windows: dict from "train", "validation", "test" to the `Windows` they are cut from.
    control_channels: names of the controls, with units.
    """

    train: Sequences
    validation: Sequences
    test: Sequences
    source: str
    channels: tuple[str, ...] = ()
    scaling: tuple[np.ndarray, np.ndarray] | None = None
    windows: dict[str, Windows] | None = None
    control_channels: tuple[str, ...] = ()

    def in_units(self, values, part="test", sequences=slice(None)):
        """Values in the units that `channels` names.

        Args:
          values: [..., sequences, channels], standardised like the observations: these, or
            predictions of them.
          part: "train", "validation" or "test"; matters where sensors have scalings of their own.
          sequences: which of the part's sequences the values belong to.
        """
        _checks.one_of(part, "part", PARTS)
        if self.scaling is None:
            return np.asarray(values)
        shift, scale = self.scaling
        if np.ndim(shift) == 2:
            series = self.windows[part].series[sequences]
            shift, scale = shift[series], scale[series]
        return np.asarray(values) * scale + shift
