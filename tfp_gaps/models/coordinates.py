"""Coordinates of constrained parts, in which density and Jacobian have one measure.

    ln p(u) = ln p(z) + ln |dz / du|,   u free numbers, dz the measure of the density of z

A part on a surface has more entries than free numbers, and dz must be said. TFP's densities take
the first n - 1 entries of a simplex, the entries below the diagonal of a correlation matrix or of
its Cholesky factor, and the lower triangle of a covariance; some of its default bijectors take
others. `measured` replaces those while a density or Jacobian is evaluated, in the model and in q,
and a density that has lost its leading axes.
"""

import contextlib

import numpy as np
from scipy import stats

from tfp_gaps._tensorflow import tf, tfp

tfd, tfb = tfp.distributions, tfp.bijectors

SPHERES = (tfd.VonMisesFisher, tfd.PowerSpherical, tfd.SphericalUniform)
_KNOWN = (
    tfd.Dirichlet,
    tfd.FlatDirichlet,
    tfd.ExpRelaxedOneHotCategorical,
    tfd.RelaxedOneHotCategorical,
    tfd.CholeskyLKJ,
    tfd.LKJ,
    tfd.WishartLinearOperator,
)
_FEWEST_DRAWS = 50
"""In each half: what fewer leave out may be a notable share."""
_INNER = ("distribution", "components_distribution")
_simplex_forward = tfb.SoftmaxCentered._forward_log_det_jacobian
_simplex_inverse = tfb.SoftmaxCentered._inverse_log_det_jacobian
_flat_log_prob = tfd.FlatDirichlet._log_prob


def _first_entries_forward(self, x):
    """With y = softmax(x, 0), det d y[:n-1] / d x = prod y; TFP adds sqrt(n), the volume on the
    simplex itself, because the lift y[:n-1] -> y has Gram matrix I + 11', with determinant n."""
    return _simplex_forward(self, x) - 0.5 * tf.math.log(tf.cast(tf.shape(x)[-1] + 1, x.dtype))


def _first_entries_inverse(self, y):
    return _simplex_inverse(self, y) + 0.5 * tf.math.log(tf.cast(tf.shape(y)[-1], y.dtype))


class _CorrelationProduct(tfb.CholeskyOuterProduct):
    """L -> A = L L' for rows of unit length, between entries below the diagonals.

    dA_ij / dL_ij = L_jj for i > j, and the matrix of derivatives is triangular row by row: its
    determinant is prod_j L_jj^(p-1-j), j from 0. TFP's, 2^p prod_j L_jj^(p-j), is that of a
    covariance, whose diagonal is free.
    """

    def _forward_log_det_jacobian(self, x):
        diagonal = tf.linalg.diag_part(x)
        exponents = tf.range(tf.shape(diagonal)[-1] - 1, -1, -1)
        return tf.reduce_sum(tf.cast(exponents, x.dtype) * tf.math.log(diagonal), -1)


def _correlation(self):
    if self.input_output_cholesky:  # the density of A at L, without the Jacobian between them
        raise NotImplementedError("use CholeskyLKJ")
    return tfb.Chain([_CorrelationProduct(), tfb.CorrelationCholesky()])


def _covariance(self):
    """TFP's applies softplus to the diagonal twice, and so leaves out what is below ln 2."""
    if self.input_output_cholesky:
        raise NotImplementedError("use input_output_cholesky=False")
    return tfb.Chain([tfb.CholeskyOuterProduct(), tfb.FillScaleTriL(diag_shift=None)])


def _flat(self, x):
    """TFP's is one number, whatever the leading axes of x."""
    return tf.broadcast_to(_flat_log_prob(self, x), tf.shape(x)[:-1])


def _sphere(self):
    """The square root of a simplex reaches positive entries only."""
    raise NotImplementedError("a sphere has no coordinates that reach all of it")


_OURS = (
    (tfb.SoftmaxCentered, "_forward_log_det_jacobian", _first_entries_forward),
    (tfb.SoftmaxCentered, "_inverse_log_det_jacobian", _first_entries_inverse),
    (tfd.FlatDirichlet, "_log_prob", _flat),
    (tfd.LKJ, "_default_event_space_bijector", _correlation),
    (tfd.WishartLinearOperator, "_default_event_space_bijector", _covariance),
    *((sphere, "_default_event_space_bijector", _sphere) for sphere in SPHERES),
)


_THEIRS = tuple((owner, name, owner.__dict__[name]) for owner, name, _ in _OURS)


@contextlib.contextmanager
def _with(methods):
    before = [(owner, name, owner.__dict__[name]) for owner, name, _ in methods]
    for owner, name, method in methods:
        setattr(owner, name, method)
    try:
        yield
    finally:
        for owner, name, method in before:
            setattr(owner, name, method)


def measured():
    """Let TFP's bijectors have the measure of its densities, for all threads of the process."""
    return _with(_OURS)


def as_tfp():
    """Undo `measured` inside it: densities of data stay what TFP says."""
    return _with(_THEIRS)


def is_known(distribution):
    """Whether the coordinates of a distribution on a surface are those of its density.

    A transform of normal numbers brings its own Jacobian, which its default bijector undoes.
    """
    while not isinstance(distribution, _KNOWN):
        if isinstance(distribution, tfd.TransformedDistribution):
            return _is_open(distribution.distribution)
        inner = [getattr(distribution, name, None) for name in _INNER]
        inner = [value for value in inner if isinstance(value, tfd.Distribution)]
        if not inner:
            return False
        distribution = inner[0]
    return True


def _is_open(distribution):
    """Whether a distribution has as many free numbers as entries."""
    bijector = distribution.experimental_default_event_space_bijector()
    if bijector is None or tf.nest.is_nested(distribution.event_shape):
        return False
    free = bijector.inverse_event_shape(distribution.event_shape)
    return free.num_elements() == distribution.event_shape.num_elements()


def least_excess(numbers, log_density):
    """A lower limit of minus ln of a density's integral, from draws that it made, of many numbers.

        E_q [ln g(u) - ln q(u)] = -KL(q || g) <= 0 for a normalised q, whatever g is

    The mean of a logarithm is known where that of g / q is not, and g needs to fit less well: it is
    a normal with the means and variances, and where there are draws enough the covariance, of the
    first half. What q lacks beyond KL(q || g) is seen.

    Args:
      numbers: [draws, num_numbers].
      log_density: [draws].

    Returns:
      The largest such mean less 5 standard errors, nats; -inf where the draws do not tell.

    >>> u = np.random.default_rng(0).normal(size=[1000, 40])
    >>> least_excess(u, stats.norm.logpdf(u).sum(-1) - 3.0) > 2.5
    True
    """
    numbers = np.asarray(numbers, np.float64)
    half, size = len(numbers) // 2, numbers.shape[-1]
    log_density = np.asarray(log_density, np.float64)[half:]
    spread = numbers[:half].std(0)
    finite = np.isfinite(numbers).all() and np.isfinite(log_density).all()
    if half < _FEWEST_DRAWS or not (finite and spread.all()):
        return -np.inf
    standard = (numbers - numbers[:half].mean(0)) / spread
    log_gs = [stats.norm.logpdf(standard[half:]).sum(-1)]
    if half >= 3 * size:  # a share of the unit matrix makes every covariance invertible
        factor = np.linalg.cholesky(0.99 * np.cov(standard[:half].T) + 0.01 * np.eye(size))
        whitened = np.linalg.solve(factor, standard[half:].T)
        log_gs.append(stats.norm.logpdf(whitened).sum(0) - np.log(np.diag(factor)).sum())
    gains = np.stack(log_gs) - np.log(spread).sum() - log_density
    return float(np.max(gains.mean(1) - 5 * gains.std(1, ddof=1) / np.sqrt(gains.shape[1])))


def excess(numbers, log_density):
    """An estimate of the inverse of a density's integral, from draws that it made.

        E_q [g(u) / q(u)] = integral of g where q > 0, over the integral of q

    For a normalised q it is at most one, whatever g is: more says that q is too small. g is a
    normal, fitted to the first half of the draws.

    Args:
      numbers: [draws, num_numbers].
      log_density: [draws].

    Returns:
      (estimate, standard error), or (1, inf) where the draws do not tell.

    >>> u = np.random.default_rng(0).normal(size=[4000, 1])
    >>> estimate, error = excess(u, -0.5 * u[:, 0] ** 2 - 3.0)  # exact: e^3 / sqrt(2 pi) = 8.01
    >>> round(estimate, 1), error < 0.1
    (8.0, True)
    """
    numbers = np.asarray(numbers, np.float64)
    half, size = len(numbers) // 2, numbers.shape[-1]
    first, second = numbers[:half], numbers[half:]
    log_density = np.asarray(log_density, np.float64)[half:]
    if not (np.isfinite(numbers).all() and np.isfinite(log_density).all()) or half < 20 * size:
        return 1.0, np.inf
    covariance = 0.8 * np.atleast_2d(np.cov(first.T))
    sign, log_volume = np.linalg.slogdet(covariance)
    if sign <= 0 or not np.isfinite(log_volume):
        return 1.0, np.inf
    away = second - first.mean(0)
    square = np.sum(away * np.linalg.solve(covariance, away.T).T, -1)
    log_g = -0.5 * (square + log_volume + size * np.log(2 * np.pi))
    with np.errstate(over="ignore", invalid="ignore"):
        ratio = np.exp(log_g - log_density)
        estimate, error = ratio.mean(), ratio.std(ddof=1) / np.sqrt(len(ratio))
    return (float(estimate), float(error)) if np.isfinite(error) else (1.0, np.inf)
