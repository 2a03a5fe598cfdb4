"""Missing values, marginalised where the density is a product over entries.

    p(x without x_i) = integral of prod_j p(x_j) over x_i = product over j other than i

A scalar distribution that is asked for its density at NaN gives ln 1. So do products and mixtures
of scalar ones, and hidden Markov models with scalar emissions, and they are then exact; in all
others NaN stays NaN, and the model is refused.
"""

import contextlib

import numpy as np

from tfp_gaps._tensorflow import tf, tfp

tfd = tfp.distributions
_log_prob = tfd.Distribution._call_log_prob
# These hand values on as they are; whatever transforms them must not meet ln 1 inside.
_HAND_ON = (
    tfd.JointDistribution,
    tfd.Independent,
    tfd.Sample,
    tfd.Mixture,
    tfd.MixtureSameFamily,
    tfd.HiddenMarkovModel,
    tfd.BatchReshape,
    tfd.BatchBroadcast,
)


def _or_one(self, value, name, **kwargs):
    if isinstance(self, tfd.JointDistribution) or self.event_shape.rank != 0:
        inside = _or_one if isinstance(self, _HAND_ON) else _log_prob
        with _asked(inside):
            return _log_prob(self, value, name, **kwargs)
    value = tf.convert_to_tensor(value, dtype_hint=self.dtype)
    with _asked(_log_prob):
        if not value.dtype.is_floating:
            return _log_prob(self, value, name, **kwargs)
        missing = tf.math.is_nan(value)
        # Not used, but its gradient must be finite: a draw lies where the density is.
        filler = tf.stop_gradient(self.sample(seed=tf.zeros([2], tf.int32)))
        filled = tf.where(missing, tf.cast(filler, value.dtype), value)
        found = _log_prob(self, filled, name, **kwargs)
    return tf.where(missing, tf.zeros([], found.dtype), found)


@contextlib.contextmanager
def _asked(method):
    before, tfd.Distribution._call_log_prob = tfd.Distribution._call_log_prob, method
    try:
        yield
    finally:
        tfd.Distribution._call_log_prob = before


@contextlib.contextmanager
def asking(method):
    """Let `method` (distribution, value, name) give the densities of all values that are not
    missing, for all threads of the process."""
    global _log_prob
    before, _log_prob = _log_prob, method
    try:
        with _asked(method):
            yield
    finally:
        _log_prob = before


def marginalised():
    """Let scalar distributions take NaN for a missing value, for all threads of the process."""
    return _asked(_or_one)


def where_finite(parts, log_probs):
    """NaN where a latent part is NaN: that is an error, and nothing missing."""
    for part in tf.nest.flatten(parts):
        rest = list(range(2, part.shape.rank))
        fine = tf.reduce_all(tf.math.is_finite(part), rest)
        log_probs = tf.where(fine, log_probs, tf.cast(np.nan, log_probs.dtype))
    return log_probs
