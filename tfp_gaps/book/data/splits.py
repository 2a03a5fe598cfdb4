"""What a loader returns: training, validation and test sequences, and where they were cut from."""

from dataclasses import dataclass

import numpy as np

from tfp_gaps import _checks
from tfp_gaps.sequences import Sequences

PARTS = ("train", "validation", "test")


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
    groups: dict from each part to [sequences] integers, the flight or day that a sequence is from:
      sequences of one group are not independent, and errors are over groups. None: not recorded.
    """

    train: Sequences
    validation: Sequences
    test: Sequences
    source: str
    channels: tuple[str, ...] = ()
    scaling: tuple[np.ndarray, np.ndarray] | None = None
    windows: dict[str, Windows] | None = None
    control_channels: tuple[str, ...] = ()
    groups: dict[str, np.ndarray] | None = None

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
