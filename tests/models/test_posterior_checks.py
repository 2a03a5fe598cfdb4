"""A q that is not one density for each datum, or not one over the model's support, is refused."""

import functools
import re

import numpy as np
import pytest
from scipy import stats

from tfp_gaps import Effort, Model, calibrate, measure
from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.models import posterior_checks

tfd, tfb = tfp.distributions, tfp.bijectors
Batched = tfd.JointDistributionNamedAutoBatched
FEW = Effort(search_steps=5, num_chains=0, num_starts=1)
SIZE = 30
X = np.random.default_rng(0).normal(size=[5, SIZE]).astype(np.float32)


def near(z):
    return tfd.Independent(tfd.Normal(z, 1.0), 1)


@pytest.fixture(scope="module")
def normal():
    """z ~ N(0, I), x ~ N(z, I), of thirty numbers: too many for the check of the integral."""
    parts = {
        "z": tfd.Sample(tfd.Normal(0.0, 1.0), SIZE),
        "x": near,
    }
    return Model(Batched(parts), "x", example=X[0])


def half(mean):
    return tfd.Independent(tfd.Normal(mean / 2, np.float32(0.5**0.5)), 1, name="z")


class AskedAnew:
    """A q whose layers run in each of its methods."""

    def __init__(self, mean):
        self.mean = mean

    def sample(self, shape, seed=None):
        return half(self.mean()).sample(shape, seed=seed)

    def log_prob(self, z):
        return half(self.mean()).log_prob(z)


def drop_at_each_call(training, rate=0.05):
    drop = tf.keras.layers.Dropout(rate)
    return lambda x: AskedAnew(lambda: drop(tf.constant(x), training=training))


def drop_in_a_coroutine(training):
    drop = tf.keras.layers.Dropout(0.02)

    def q(x):
        def parts():
            mean = drop(tf.constant(x), training=training)
            yield tfd.JointDistributionCoroutine.Root(half(mean))

        return tfd.JointDistributionCoroutine(parts)

    return q


def drop_once(training):
    drop = tf.keras.layers.Dropout(0.05)
    return lambda x: half(drop(tf.constant(x), training=training))


def drop_without_data(training):
    return drop_at_each_call(training)(X[:1])


DROPS = [drop_at_each_call, drop_in_a_coroutine, drop_once, drop_without_data]
EXACT = stats.norm(0.0, 2**0.5).logpdf(X).sum(-1)


@pytest.mark.parametrize("build", DROPS)
def test_a_q_with_dropout_is_refused_and_exact_without(normal, build):
    x = X[:1] if build is drop_without_data else X
    with pytest.raises(ValueError, match="same density for the same data, .* twice.*Switch drop"):
        measure(normal, build(training=True), x, seed=0, effort=FEW)
    q = build(training=False)
    posterior_checks.steady(q, x)
    parts, log_q = normal.draw(q, x, 10, seed=0)
    elbo = np.mean(normal.log_joint(parts, x) - log_q, 0)
    np.testing.assert_allclose(elbo, EXACT[: len(x)], atol=1e-3)


def test_calibration_refuses_the_same(normal):
    with pytest.raises(ValueError, match="when asked twice"):
        calibrate(normal, drop_once(training=True), num_data=20, seed=0)
    with pytest.raises(ValueError, match="must treat each datum alone"):
        calibrate(normal, batch_norm(training=True), num_data=20, seed=0)
    outside = lambda x: tfd.Independent(tfd.Normal(x / 2, 1.0), 1)  # noqa: E731
    positive = Batched({"z": tfd.Sample(tfd.Exponential(1.0), SIZE), "x": near})
    with pytest.raises(ValueError, match="must draw 'z' where .*Sample"):
        calibrate(Model(positive, "x", example=X[0]), outside, num_data=20, seed=0)


def batch_norm(training):
    layer = tf.keras.layers.BatchNormalization()
    return lambda x: half(layer(tf.constant(x), training=training))


def lower(x):
    return half(x + 0.1 * tf.cumsum(x, exclusive=True))


def upper(x):
    return half(x + 0.1 * tf.cumsum(x, exclusive=True, reverse=True))


@pytest.mark.parametrize("q", [batch_norm(True), lower, upper], ids=["norm", "lower", "upper"])
@pytest.mark.parametrize("at_once", [10**6, 100])  # all data in a batch, or one
def test_a_q_that_mixes_data_is_refused(normal, q, at_once):
    effort = Effort(search_steps=5, num_chains=0, num_starts=1, numbers_at_once=at_once)
    with pytest.raises(ValueError, match=r"must treat each datum alone, .* datum (0|4) changes"):
        measure(normal, q, X, seed=0, effort=effort)


def test_a_q_of_running_averages_or_of_parameters_per_datum_is_not_refused(normal):
    posterior_checks.steady(batch_norm(training=False), X)
    own = tf.constant(X)
    posterior_checks.steady(lambda x: half(own), X)  # five data, whatever is asked
    posterior_checks.steady(half(own), X)
    posterior_checks.steady(lambda x: half(own[0]), X[:1])  # without an axis over data


def test_a_q_without_an_inverse_is_not_asked():
    class Forward(tfb.Bijector):
        def __init__(self):
            super().__init__(forward_min_event_ndims=0, is_constant_jacobian=True)

        def _forward(self, x):
            return x + 1.0

        def _forward_log_det_jacobian(self, x):
            return tf.zeros([])

    joint = Batched({"z": tfd.Normal(0.0, 1.0), "x": lambda z: tfd.Normal(z, 1.0)})
    q = lambda x: tfd.TransformedDistribution(tfd.Normal(x / 2 - 1, 0.5**0.5), Forward())  # noqa: E731
    x = np.float32([0.0, 1.0])
    found = measure(Model(joint, "x", example=0.0), q, x, seed=0, effort=FEW)
    np.testing.assert_allclose(found.bounds["ELBO"], stats.norm(0, 2**0.5).logpdf(x), atol=1e-4)


# --- support --------------------------------------------------------------------------------------


@functools.cache
def of(name):
    """A model of one latent part whose data say nothing of it."""
    joint = Batched({"z": PRIORS[name], "x": tfd.Normal(0.0, 1.0)})
    return Model(joint, "x", example=0.0)


PRIORS = {
    "exponential": tfd.Exponential(1.0),
    "half": tfd.HalfNormal(1.0),
    "share": tfd.Beta(1.0, 1.0),
    "wide": tfd.Uniform(-1e6, 1e6),
    "angle": tfd.VonMises(0.0, 1.0),
    "simplex": tfd.Dirichlet([1.0] * 3),
    "covariance": tfd.WishartTriL(5.0, tf.eye(2)),
}


@pytest.mark.parametrize(
    ("name", "q", "share"),
    [
        ("exponential", tfd.Normal(0.5, 0.7), stats.norm.cdf(-0.5 / 0.7)),
        ("angle", tfd.Normal(2.0, 1.0), stats.norm.cdf(2 - np.pi)),
    ],
)
def test_a_q_beyond_an_end_is_refused_with_its_share(name, q, share):
    with pytest.raises(ValueError, match="must draw 'z' where .* support, but .* outside") as error:
        measure(of(name), q, 0.0, seed=0, effort=FEW)
    found = float(re.search(r"but (\S+) of its draws", str(error.value)).group(1))
    assert abs(found - share) < 4 * (share * (1 - share) / 1000) ** 0.5


@pytest.mark.parametrize("scale", [0.3, 0.02, 5e-4])
def test_a_density_next_to_a_simplex_is_refused(scale):
    """One in three dimensions: where it is narrow, its ELBO is nats below, and a number."""
    q = tfd.Independent(tfd.LogNormal(tf.math.log([1 / 3] * 3), scale), 1)
    with pytest.raises(ValueError, match=r"must draw 'z' where the model's part \(Dirichlet\)"):
        measure(of("simplex"), q, 0.0, seed=0, effort=FEW)
    narrow = tfd.Dirichlet([1 / scale**2] * 3)  # on it, and no wider
    parts, _ = of("simplex").draw(narrow, np.zeros(1, np.float32), 1000, seed=0)
    posterior_checks.on_support(of("simplex"), parts)


def test_matrices_that_are_not_symmetric_are_refused():
    q = tfd.Independent(tfd.Normal([[5.0, 0.0], [0.0, 5.0]], 0.1), 2)
    with pytest.raises(ValueError, match="must draw 'z' where .*WishartTriL"):
        measure(of("covariance"), q, 0.0, seed=0, effort=FEW)


@pytest.mark.parametrize(
    ("name", "draws"),
    [
        # On the edge, where a coordinate is infinite.
        ("share", [0.0, 1e-38, 0.5, 1.0]),
        ("half", [0.0, 1e-38, 1.0, 1e6]),
        ("simplex", [[0.0, 0.4, 0.6], [0.5, 0.5, 0.0], [1e-30, 0.0, 1.0]]),
        # A coordinate of float32 resolves this interval by a tenth.
        ("wide", [-1.3, -0.2, 0.4, 1.1]),
        # Draws that are no numbers are named by another check.
        ("half", [np.nan, 1.0, np.inf]),
        # An inverse in float32 is symmetric to six digits only.
        ("covariance", np.linalg.inv(np.float32([[[1.3, 0.7], [0.7, 2.1]]]))),
    ],
)
def test_draws_on_the_edge_and_rounded_ones_are_not_refused(name, draws):
    posterior_checks.on_support(of(name), {"z": tf.constant(draws, tf.float32)[:, tf.newaxis]})


def test_the_part_and_the_datum_outside_are_named():
    joint = Batched(
        {
            "a": tfd.Uniform(0.0, 1.0),
            "b": lambda a: tfd.Uniform(0.0, a),
            "c": tfd.Normal(0.0, 1.0),
            "x": tfd.Normal(0.0, 1.0),
        }
    )
    model = Model(joint, "x", example=0.0)
    parts = {"a": [[0.5, 0.5]], "b": [[0.4, 0.6]], "c": [[9.0, -9.0]]}
    with pytest.raises(
        ValueError, match=r"'b' where .* \(Uniform\).* but 0.5 of .* 0.6 for datum 1"
    ):
        posterior_checks.on_support(model, {k: tf.constant(v) for k, v in parts.items()})
