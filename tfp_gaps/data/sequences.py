"""What a loader returns: time-major sequences, and their split."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sequences:
    """Sequences of one length.

    observations: [time, sequences, channels].
    controls: [time, sequences, channels] or None; row t holds the control that acts into step t.
    """

    observations: np.ndarray
    controls: np.ndarray | None = None

    def __post_init__(self):
        if self.observations.ndim != 3:
            raise ValueError(
                f"observations must have shape [time, sequences, channels], but have shape "
                f"{self.observations.shape}. Transpose to time-major."
            )

    @property
    def num_timesteps(self):
        return self.observations.shape[0]

    def __len__(self):
        return self.observations.shape[1]

    def first(self, count):
        """The first `count` sequences."""
        controls = None if self.controls is None else self.controls[:, :count]
        return Sequences(self.observations[:, :count], controls)


@dataclass(frozen=True)
class Splits:
    """Training, validation and test sequences, and where they come from.

    source: one line that names files, checksum and preprocessing.
    """

    train: Sequences
    validation: Sequences
    test: Sequences
    source: str
