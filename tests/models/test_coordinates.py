"""Densities on surfaces: they integrate to one over free numbers, and q has the same measure."""

import numpy as np
import pytest
from scipy import special

from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.models import coordinates
from tfp_gaps.models.joint import Model

tfd, tfb = tfp.distributions, tfp.bijectors
Batched = tfd.JointDistributionNamedAutoBatched

SURFACES = {
    "Dirichlet": lambda: tfd.Dirichlet([0.7, 2.0, 5.0]),
    "Dirichlet of two": lambda: tfd.Dirichlet([3.0, 3.0]),
    "plate": lambda: tfd.Independent(tfd.Dirichlet([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]), 1),
    "sample": lambda: tfd.Sample(tfd.Dirichlet([1.0, 2.0]), [2, 2]),
    "softmax of normals": lambda: tfd.TransformedDistribution(
        tfd.MultivariateNormalDiag([0.5, -1.0], [1.0, 2.0]), tfb.SoftmaxCentered()
    ),
    "relaxed": lambda: tfd.RelaxedOneHotCategorical(0.8, [0.0, 1.0, -1.0]),
    "relaxed, logarithm": lambda: tfd.ExpRelaxedOneHotCategorical(0.8, [0.0, 1.0, -1.0]),
    "LKJ of two": lambda: tfd.LKJ(2, 1.5),
    "LKJ": lambda: tfd.LKJ(4, 2.0),
    "CholeskyLKJ": lambda: tfd.CholeskyLKJ(3, 1.5),
    "LKJ plate": lambda: tfd.Sample(tfd.LKJ(3, 1.5), 2),
    "Wishart": lambda: tfd.WishartTriL(6.0, tf.linalg.diag([1.0, 2.0, 0.3])),
    "Wishart below ln 2": lambda: tfd.WishartTriL(4.0, 0.01 * tf.eye(2)),
}


def integral(distribution):
    draws = distribution.sample(8000, seed=tf.constant([1, 2]))
    bijector = distribution.experimental_default_event_space_bijector()
    # Copies: bijectors remember what they were applied to, and with which Jacobian.
    numbers = tf.constant(bijector.inverse(tf.constant(draws.numpy())).numpy())
    log_det = bijector.forward_log_det_jacobian(numbers, event_ndims=numbers.shape.rank - 1)
    log_density = distribution.log_prob(tf.constant(draws.numpy())) + log_det
    return coordinates.excess(tf.reshape(numbers, [8000, -1]), log_density)


@pytest.mark.parametrize("name", SURFACES)
def test_a_density_on_a_surface_integrates_to_one_over_free_numbers(name):
    with coordinates.measured():
        estimate, error = integral(SURFACES[name]())
    assert error < 0.03  # the smallest factor that is wrong is a square root of two
    assert abs(estimate - 1) < 5 * error


@pytest.mark.parametrize(
    ("name", "factor"), [("Dirichlet", 3**0.5), ("Dirichlet of two", 2**0.5), ("relaxed", 3**0.5)]
)
def test_tfp_alone_measures_a_simplex_by_its_own_volume(name, factor):
    estimate, error = integral(SURFACES[name]())
    assert estimate == pytest.approx(1 / factor, abs=5 * error)


@pytest.mark.parametrize(
    ("prior", "limits"), [(tfd.Dirichlet([2.0, 3.0]), 12), (tfd.LKJ(2, 1.5), 500)]
)
def test_quadrature_over_the_one_number_of_a_surface(prior, limits):
    """Against SciPy's: a Beta density has tails of exp(-2 u), a correlation those of u^-4."""
    joint = Batched({"z": prior, "x": tfd.Normal(0.0, 1.0)})
    model = Model(joint, "x", example=0.0)
    u = np.sinh(np.linspace(-np.arcsinh(limits), np.arcsinh(limits), 4001)).astype(np.float32)
    parts, log_det = model.constrain(tf.constant(u[:, np.newaxis, np.newaxis]))
    log_p = model.log_joint(parts, model.data(0.0)) + log_det
    total = np.trapezoid(np.exp(np.float64(log_p[:, 0])), u)
    assert total == pytest.approx((2 * np.pi) ** -0.5, rel=1e-3)


A, COUNTS = np.float32([0.7, 2.0, 5.0]), np.float32([3.0, 0.0, 2.0])


def multinomial():
    joint = Batched({"p": tfd.Dirichlet(A), "x": lambda p: tfd.Multinomial(5.0, probs=p)})

    def log_beta(a):
        return special.gammaln(a).sum() - special.gammaln(a.sum())

    exact = log_beta(A + COUNTS) - log_beta(A) + np.log(10.0)
    return Model(joint, "x", example=COUNTS), exact


def weights(model, q, x, draws=4000):
    parts, log_q = model.draw(q, model.data(x), draws, 0)
    return np.float64(model.log_joint(parts, model.data(x)) - log_q)[:, 0]


def test_the_posterior_of_a_simplex_has_no_gap():
    model, exact = multinomial()
    np.testing.assert_allclose(weights(model, tfd.Dirichlet(A + COUNTS), COUNTS), exact, atol=1e-4)


def test_a_surrogate_in_tfps_own_coordinates_gets_the_measure_of_the_model():
    """E_q w = p(x) for every q: with the other measure it would be sqrt(3) p(x)."""
    model, exact = multinomial()
    pinned = model.joint.experimental_pin(x=COUNTS)
    bijector = pinned.experimental_default_event_space_bijector()
    q = tfd.TransformedDistribution(
        tfd.JointDistributionNamed({"p": tfd.MultivariateNormalDiag([-0.5, -1.0], [1.3, 1.3])}),
        bijector,
    )
    ratio = np.exp(weights(model, q, COUNTS) - exact)
    error = ratio.std() / np.sqrt(len(ratio))
    assert error < 0.05 and ratio.mean() == pytest.approx(1.0, abs=5 * error)


def test_a_q_with_the_measure_of_a_covariance_is_refused_for_a_correlation():
    theirs = tfd.LKJ(2, 1.5).experimental_default_event_space_bijector()
    q = tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 0.3), 1), theirs)
    model = Model(Batched({"z": tfd.LKJ(2, 1.5), "x": tfd.Normal(0.0, 1.0)}), "x", example=0.0)
    with pytest.raises(ValueError, match="must be normalised, but its density .* about 0.2"):
        weights(model, q, 0.0)


class Shifted(tfd.Normal):
    def _log_prob(self, x):
        return super()._log_prob(x) - 0.2


def real():
    joint = Batched({"z": tfd.Normal(0.0, 1.0), "x": lambda z: tfd.Normal(z, 1.0)})
    return Model(joint, "x", example=0.0)


def test_a_q_that_is_not_normalised_is_refused():
    with pytest.raises(ValueError, match="integrates to about 0.82 for datum 0"):
        weights(real(), Shifted(0.0, 1.0), 0.0)


@pytest.mark.parametrize(
    "q",
    [
        tfd.Uniform(-1.0, 1.0),
        tfd.Cauchy(0.0, 1.0),
        tfd.Normal(1e-3, 1e-5),
        tfd.MixtureSameFamily(tfd.Categorical([0.0, 0.0]), tfd.Normal([-9.0, 9.0], [0.1, 3.0])),
    ],
)
def test_any_normalised_q_is_taken(q):
    weights(real(), q, 0.0)


def test_data_on_a_simplex_with_the_density_of_its_volume_are_refused():
    softmax = SURFACES["softmax of normals"]()
    with pytest.raises(ValueError, match="'x' must have its density in coordinates"):
        Model(Batched({"z": tfd.Normal(0.0, 1.0), "x": softmax}), "x", example=[0.2, 0.3, 0.5])
    model = Model(
        Batched({"z": tfd.Normal(0.0, 1.0), "x": tfd.Dirichlet([1.0, 1.0])}),
        "x",
        example=[0.4, 0.6],
    )
    assert model.log_terms({"z": tf.zeros([1, 1])}, model.data([0.4, 0.6]))["x"] == 0.0


def test_outside_tfp_is_as_it_was():
    before = [owner.__dict__[name] for owner, name, _ in coordinates._OURS]
    multinomial()
    with pytest.raises(ZeroDivisionError), coordinates.measured(), coordinates.measured():
        _ = 1 / 0
    assert before == [owner.__dict__[name] for owner, name, _ in coordinates._OURS]


class Lacking(tfd.MultivariateNormalTriL):
    """Of which a constant of two nats is left out."""

    def _log_prob(self, x):
        return super()._log_prob(x) - 2.0


def many(size):
    joint = Batched(
        {
            "z": tfd.Sample(tfd.Normal(0.0, 1.0), size),
            "x": lambda z: tfd.Independent(tfd.Normal(z, 1.0), 1),
        }
    )
    return Model(joint, "x", example=np.zeros(size, np.float32))


def correlated(size, rho):
    return np.linalg.cholesky((1 - rho) * np.eye(size) + rho).astype(np.float32)


@pytest.mark.parametrize(("size", "rho"), [(30, 0.0), (30, 0.9), (300, 0.0)])
def test_a_q_of_many_numbers_that_is_not_normalised_is_refused(size, rho):
    q = Lacking(tf.zeros([1, size]), correlated(size, rho))
    with pytest.raises(ValueError, match=r"integrates to at most 0\.[1-7]\d* for datum 0"):
        weights(many(size), q, np.zeros([1, size]), draws=1000)


@pytest.mark.parametrize(
    "scalar",
    [
        tfd.Uniform(-1.0, 1.0),
        tfd.Cauchy(0.0, 1.0),
        tfd.MixtureSameFamily(tfd.Categorical([0.0, 3.0]), tfd.Normal([-9.0, 9.0], [0.1, 3.0])),
    ],
)
def test_any_normalised_q_of_many_numbers_is_taken(scalar):
    for q in (
        tfd.Sample(scalar, [30]),
        tfd.MultivariateNormalTriL(tf.zeros(30), correlated(30, 0.999)),
    ):
        weights(many(30), q, np.zeros(30), draws=1000)
