"""Errors of the user's own code in one sentence, whatever it raises, with what to do about them."""

import contextlib

import numpy as np

from tfp_gaps._tensorflow import tf

TRANSFORM = "Write the part as a transform of unconstrained ones, such as tf.exp of a normal part."
SAMPLE = "Sample the joint distribution alone until it works."
NESTED = "Use an AutoBatched class for the joint distributions inside as for the outer one."
SUPPORT = "Give the example, and data, only values that the observed distribution can have."
LIKELIHOOD = (
    "It must give [draws, data] for z [draws, data, *event], or a scalar for one draw and datum."
)


@contextlib.contextmanager
def users_code(what, advice):
    """Say in one sentence what failed where the model's own code runs, whatever it raises."""
    try:
        yield
    except Exception as error:
        advice = SUPPORT if _is_support(error) else advice
        raise ValueError(f"{what} could not be evaluated ({_found(error)}). {advice}") from error


@contextlib.contextmanager
def supported(what):
    """Say in one sentence that TensorFlow refuses a value, which it does without a density."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        if not _is_support(error):
            raise
        raise ValueError(f"{what} could not be evaluated ({_found(error)}). {SUPPORT}") from error


def _is_support(error):
    return "outside the valid range" in str(error)


def _found(error):
    """The kind of an error and the sentence that says what was wrong."""
    text = str(error).strip().splitlines() or [""]
    line = text[0]
    if line.startswith("in user code"):  # AutoGraph puts the message last, behind a traceback
        line = text[-1]
    elif line.startswith("Graph execution error"):  # so do graphs, before the name of an operation
        line = [line, *(row for row in text[1:] if row.strip() and not row[0].isspace())][-1]
    line = line.partition("Label values:")[0].strip()
    return f"{type(error).__name__}: {line[:200]}".rstrip(" .:")


def short(value):
    """A value as a message shows it."""
    return np.array2string(np.asarray(value), precision=3, threshold=3)
