"""What q(z_t | z_{t-1}, C_t) may see of the observations: C_t = x_{1:min(t+k, T)}.

k = 0 is a filter (partial conditions), every k >= T - 1 a smoother (full), between them semi-k
(Bayer et al. 2021). Conditions belong to a posterior, which is built with them and tells their
label. They are callable, num_timesteps -> what is seen; a posterior that can follow any mask takes
any such callable.

No TensorFlow here: the command line and stored results speak of conditions too.
"""

import math
import re
from dataclasses import dataclass

import numpy as np

from tfp_gaps import _checks


@dataclass(frozen=True, order=True)
class LookAhead:
    """The past, the present and the next k observations; they are ordered by k, `FULL` last.

    steps: k >= 0; infinite in `FULL`.

    >>> LookAhead(1)(3).astype(int)
    array([[1, 1, 0],
           [1, 1, 1],
           [1, 1, 1]])
    >>> [conditions.label for conditions in (LookAhead(0), LookAhead(2), FULL)]
    ['partial', '2 ahead', 'full']

    Raises:
      ValueError: if k is no integer, or negative.
    """

    steps: float

    def __post_init__(self):
        if self.steps != math.inf:
            advice = "Use 0 for a filter (partial), k > 0 for k future steps, FULL for all of them."
            _checks.integer(self.steps, "the look-ahead k", minimum=0, advice=advice)

    @classmethod
    def of(cls, lookahead):
        """Conditions from k, or from None for full ones; the inverse of `lookahead`."""
        return FULL if lookahead is None else cls(lookahead)

    @classmethod
    def parse(cls, text):
        """Conditions from 0, 1, 2, ... or full, as people write them; the inverse of `str`.

        >>> LookAhead.parse("4") == LookAhead(4), LookAhead.parse("full") == FULL
        (True, True)
        """
        if text == "full":
            return FULL
        if re.fullmatch("[0-9]+", str(text)):
            return cls(int(text))
        raise ValueError(f"expected 0, 1, 2, ... or full, found {text!r}")

    @property
    def lookahead(self):
        """k, or None for full conditions: how stored results and `exact` write it."""
        return None if self == FULL else self.steps

    @property
    def label(self):
        """How texts and figures name the conditions."""
        return {0: "partial", math.inf: "full"}.get(self.steps, f"{self.steps} ahead")

    def __str__(self):
        return "full" if self == FULL else str(self.steps)

    def reach(self, num_timesteps):
        """How many of T observations lie ahead at most: min(k, T - 1)."""
        return min(self.steps, num_timesteps - 1)

    def __call__(self, num_timesteps):
        """What is seen at each step, bool [time, time]: row t is True at s <= t + k."""
        return np.tri(num_timesteps, k=self.reach(num_timesteps), dtype=bool)


FULL = LookAhead(math.inf)
"""All observations, as a smoother sees them."""
