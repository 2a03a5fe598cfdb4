"""Data outside of the support of what is observed: TFP gives many of them a finite density.

    ln Bernoulli(2) = 2 ln p - ln (1 - p)

Its checks (`validate_args`) are off unless asked for, and a formula then goes on where there is no
density. Here densities are asked once more, and are NaN for what lies outside. Any distribution on
the way is reached that is asked for its density: inside of products, mixtures, transforms, masks,
hidden Markov models and joint distributions. Densities that are zero or NaN there by themselves
are left to those who use them.

Two kinds of such data have a meaning, and are named in a warning alone: the mean of a binary value
in its place, and an angle beyond a full turn.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.models import missing

tfd = tfp.distributions
_log_prob = tfd.Distribution._call_log_prob

_NEAR = 1e-3
"""How far sums, norms and the entries of a matrix may be off by rounding."""


class Support(NamedTuple):
    """What some distributions allow.

    classes: of the distributions.
    words: what it is, for the message.
    outside: (distribution, float value [..., *event]) -> bool [...].
    doubtful: the same for values which have a meaning that `meaning` says, or None.
    """

    classes: tuple
    words: str
    outside: Callable
    doubtful: Callable | None = None
    meaning: str = ""


def _fractional(x):
    return tf.math.floor(x) != x


def _below(x, limit):
    """In comparisons NaN, a missing value, is nowhere outside."""
    return x < tf.cast(limit, x.dtype)


def _beyond(x, limit):
    return x > tf.cast(limit, x.dtype)


def _not_counts(distribution, x):
    return _fractional(x) | _below(x, 0)


def _not_counts_of_total(distribution, x):
    return _not_counts(distribution, x) | _beyond(x, distribution.total_count)


def _not_split_of_total(distribution, x):
    total = tf.cast(distribution.total_count, x.dtype)
    # Whole numbers differ by one at least, and sums of large ones are rounded.
    off = tf.abs(tf.reduce_sum(x, -1) - total) > 0.5 + 1e-6 * total
    return _any(_not_counts(distribution, x)) | off


def _not_one_hot(distribution, x):
    return _any((x != 0) & (x != 1)) | (tf.reduce_sum(x, -1) != 1)


def _not_permutation(distribution, x):
    return _any(tf.sort(x, -1) != tf.range(tf.shape(x)[-1], dtype=x.dtype))


def _not_on_simplex(distribution, x):
    return _any(_below(x, 0)) | _off(tf.reduce_sum(x, -1), 1)


def _not_correlation(distribution, x):
    # Only half of the matrix is read by some decompositions: a lack of symmetry is asked for first.
    unsymmetric = _any(_off(x, tf.linalg.matrix_transpose(x)), 2)
    indefinite = _below(tf.linalg.eigvalsh(x)[..., 0], -_NEAR)
    return unsymmetric | indefinite | _any(_off(tf.linalg.diag_part(x), 1))


def _not_correlation_root(distribution, x):
    above = _any(_off(tf.linalg.band_part(x, -1, 0), x), 2)
    return above | _any(_below(tf.linalg.diag_part(x), 0)) | _any(_off(tf.norm(x, axis=-1), 1))


def _not_symmetric(distribution, x):
    scale = tf.reduce_max(tf.abs(x), [-2, -1], keepdims=True)
    return _any(_off(x / scale, tf.linalg.matrix_transpose(x) / scale), 2)


def _off(x, wanted):
    return _beyond(tf.abs(x - wanted), _NEAR)


def _any(outside, axes=1):
    """Whether any entry of the last axes is."""
    return tf.reduce_any(outside, list(range(-axes, 0))) if axes else outside


_SUPPORTS = (
    Support(
        (tfd.Bernoulli, tfd.ProbitBernoulli),
        "0 or 1",
        lambda d, x: _below(x, 0) | _beyond(x, 1),
        lambda d, x: _fractional(x),
        "They are taken for the means of binary values, and ln p(x | z) is its expectation over "
        "these: what is bounded lies below the mean of ln p(x) over such x. Draw binary data for "
        "ln p(x) itself.",
    ),
    Support((tfd.Binomial, tfd.BetaBinomial), "counts up to the total", _not_counts_of_total),
    Support(
        (
            tfd.Poisson,
            tfd.PoissonLogNormalQuadratureCompound,
            tfd.NegativeBinomial,
            tfd.Geometric,
            tfd.Categorical,
            tfd.OrderedLogistic,
            tfd.StoppingRatioLogistic,
        ),
        "0, 1, 2, ...",
        _not_counts,
    ),
    Support((tfd.Zipf,), "1, 2, ...", lambda d, x: _fractional(x) | _below(x, 1)),
    Support((tfd.Skellam, tfd.QuantizedDistribution), "integers", lambda d, x: _fractional(x)),
    Support(
        (tfd.Multinomial, tfd.DirichletMultinomial),
        "counts that add up to the total",
        _not_split_of_total,
    ),
    Support((tfd.OneHotCategorical,), "one 1 among zeros", _not_one_hot),
    Support((tfd.PlackettLuce,), "permutations of 0, 1, 2, ...", _not_permutation),
    Support(
        (tfd.Exponential, tfd.Gamma, tfd.Chi2, tfd.NoncentralChi2),
        "positive numbers",
        lambda d, x: _below(x, 0),
    ),
    Support((tfd.GeneralizedPareto,), "numbers from its loc on", lambda d, x: _below(x, d.loc)),
    Support(
        (tfd.Beta, tfd.Kumaraswamy),
        "numbers between 0 and 1",
        lambda d, x: _below(x, 0) | _beyond(x, 1),
    ),
    Support(
        (tfd.Dirichlet, tfd.FlatDirichlet), "positive numbers that add up to 1", _not_on_simplex
    ),
    Support(
        (tfd.ExpRelaxedOneHotCategorical,),
        "logarithms of positive numbers that add up to 1",
        lambda d, x: _off(tf.reduce_logsumexp(x, -1), 0),
    ),
    Support(
        (tfd.VonMisesFisher, tfd.PowerSpherical, tfd.SphericalUniform),
        "vectors of length 1",
        lambda d, x: _off(tf.norm(x, axis=-1), 1),
    ),
    Support((tfd.LKJ,), "correlation matrices", _not_correlation),
    Support((tfd.CholeskyLKJ,), "Cholesky factors of correlations", _not_correlation_root),
    Support((tfd.WishartLinearOperator,), "covariance matrices", _not_symmetric),
    Support(
        (tfd.VonMises,),
        "angles in radians",
        lambda d, x: tf.zeros_like(x, bool),
        lambda d, x: _beyond(tf.abs(x), 2 * math.pi),
        "They are taken modulo a full turn. Convert degrees to radians, and wrap what is larger.",
    ),
)


def support_of(distribution):
    """The `Support` outside of which TFP gives a density, or None.

    >>> support_of(tfd.Poisson(1.0)).words
    '0, 1, 2, ...'
    """
    if getattr(distribution, "input_output_cholesky", False):
        return None
    return next((found for found in _SUPPORTS if isinstance(distribution, found.classes)), None)


def _marking(met, doubtful, only=None):
    """Let densities be NaN outside of their supports, for all threads of the process.

    Args:
      met: {class: `Support`}, to which what is met is added.
      doubtful: whether what has a meaning counts as outside too.
      only: a class, or None for all.
    """

    def marked(self, value, name, **kwargs):
        found, support = _log_prob(self, value, name, **kwargs), support_of(self)
        if support is None or only not in (None, type(self)):
            return found
        met[type(self)] = support
        x = tf.convert_to_tensor(value, dtype_hint=self.dtype)
        x = x if x.dtype.is_floating else tf.cast(x, found.dtype)
        outside = support.outside(self, x)
        if doubtful and support.doubtful is not None:
            outside |= support.doubtful(self, x)
        # A missing value, NaN, is outside of nothing.
        outside &= ~_any(tf.math.is_nan(x), self.event_shape.rank)
        return tf.where(outside & tf.math.is_finite(found), tf.cast(np.nan, found.dtype), found)

    return missing.asking(marked)


def check(evaluate, what, describe):
    """Refuse data to which a distribution gives a density that it does not have.

    Args:
      evaluate: () -> ln p of the data, an array of any shape, computed anew in each call.
      what: the data, for the message.
      describe: (bool array of that shape, True where data are outside) -> the first of them.

    Returns:
      Whether a distribution was met that gives one to any data, and a sentence for a warning where
      such data have a meaning, else "".

    Raises:
      ValueError: for such data without a meaning, with the first of them and the support.

    >>> x = tf.constant([-1.0, 2.0])
    >>> check(lambda: tfd.Normal(0.0, 1.0).log_prob(x), "data", np.argmax)
    (False, '')
    """
    met = {}

    def outside(doubtful, only=None):
        with _marking(met, doubtful, only):
            return np.isnan(evaluate())

    suspect = outside(True)
    if not suspect.any():
        return bool(met), ""
    suspect &= np.isfinite(evaluate())
    doubts = ""
    for kind, support in met.copy().items():
        wrong = suspect & outside(False, kind)
        if wrong.any():
            raise ValueError(
                f"{what} must lie in the support of {kind.__name__} ({support.words}), but some do "
                f"not ({describe(wrong)}), and TFP gives a number there that is no density. Recode "
                f"such data, or observe another distribution."
            )
        doubtful = suspect & outside(True, kind)
        if doubtful.any():
            doubts = (
                f"{what} should lie in the support of {kind.__name__} ({support.words}), but some "
                f"do not ({describe(doubtful)}). {support.meaning}"
            )
    return True, doubts
