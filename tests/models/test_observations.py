"""Several observed parts, dtypes, and missing values against the model without them."""

import numpy as np
import pytest
from scipy import stats

from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.models import observations
from tfp_gaps.models.joint import Model

tfd = tfp.distributions
Named, Batched = tfd.JointDistributionNamed, tfd.JointDistributionNamedAutoBatched


def several():
    joint = Batched(
        {
            "z": tfd.Normal(0.0, 1.0),
            "x": lambda z: tfd.Normal(z, 1.0),
            "y": lambda z: tfd.Sample(tfd.Normal(z, 1.0), 2),
            "n": lambda z: tfd.Poisson(tf.exp(z)),
        }
    )
    example = {"x": 0.0, "y": np.zeros(2), "n": 0}
    return Model(joint, ("x", "y", "n"), example=example)


def test_several_observed_parts_are_one_observation():
    model = several()
    x = model.data({"n": [0, 3], "y": [[0.0, 1.0], [2.0, -1.0]], "x": [0.5, 1.5]})
    assert model.num_data(x) == 2 and model.num_data(model.select(x, slice(0, 1))) == 1
    np.testing.assert_array_equal(model.select(x, np.array([1]))["y"], [[2.0, -1.0]])
    np.testing.assert_array_equal(model.select(x, tf.constant(1))["y"], [2.0, -1.0])
    z = np.float32([[0.2, -0.3], [1.0, 0.0], [0.0, 0.5]])
    exact = stats.norm.logpdf(z) + stats.norm(z).logpdf(x["x"])
    exact += stats.norm(z[..., np.newaxis]).logpdf(x["y"]).sum(-1)
    exact += stats.poisson(np.exp(z)).logpmf(x["n"])
    parts = {"z": tf.constant(z)}
    np.testing.assert_allclose(model.log_joint(parts, x), exact, atol=1e-5)
    assert set(model.log_terms(parts, x)) == {"z", "x", "y", "n"}
    drawn, log_q = model.draw(lambda x: tfd.Normal(x["x"] + x["y"][:, 0], 1.0), x, 5, 0)
    assert drawn["z"].shape == log_q.shape == (5, 2)
    latents, again = model.simulate(4, seed=0)
    assert latents["z"].shape == (1, 4) and again["y"].shape == (4, 2)
    assert model.num_data(model.data(again)) == 4


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"x": [0.0], "y": [[0.0, 1.0]]}, "must be .* of x, y, n, but are x, y"),
        ([0.0, 1.0], "must be .* of x, y, n, but are list"),
        ({"x": [0.0, 1.0], "y": [[0.0, 1.0]], "n": [1, 2]}, "same number of rows"),
        ({"x": [0.0], "y": [0.0], "n": [1]}, r"data of 'y' must have shape \[data, \*\(2,\)\]"),
        ({"x": [0.0], "y": [[0.0, np.nan]], "n": [1]}, "data of 'y' must be finite.*missing="),
    ],
)
def test_data_of_several_parts_that_do_not_fit_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        several().data(data)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda j: Model(j, ("x", "x"), example={"x": 0.0}), "several different ones"),
        (lambda j: Model(j, (), example={}), "must name one part"),
        (lambda j: Model(j, ("x", "w"), example={"x": 0.0}), "observed part"),
        (lambda j: Model(j, ("x", "y"), example={"x": 0.0}), "example must hold .* x, y"),
        (lambda j: Model(j, ("x", "y", "z"), example={}), "must have a latent part"),
        (lambda j: Model(j, "x", example=0.0, missing="drop"), "must be None or 'marginalise'"),
    ],
)
def test_names_that_do_not_fit_are_refused(call, message):
    joint = Batched({name: tfd.Normal(0.0, 1.0) for name in "xyz"})
    with pytest.raises(ValueError, match=message):
        call(joint)


def test_the_dtype_is_that_of_the_model():
    one = np.float64(1.0)
    joint = Batched({"z": tfd.Normal(0.0 * one, one), "x": lambda z: tfd.Normal(z, one)})
    for example in (0, 0.0, np.float32(0), np.int64(0)):
        model = Model(joint, "x", example=example)
        assert model.data([0.1, 0.7]).dtype == np.float64 and model.dtype == tf.float64
        assert model.data([0.1])[0] == 0.1
    joint = Batched({"z": tfd.Normal(0.0, 1.0), "x": lambda z: tfd.Normal(z, 1.0)})
    np.testing.assert_array_equal(
        Model(joint, "x", example=0).data([0.6, 1.7]), np.float32([0.6, 1.7])
    )


def test_a_constant_has_no_spread_that_float32_could_spoil():
    x = np.full(3, 0.1)  # whose standard deviation is 1e-17 in float64
    assert x.std() > 0
    np.testing.assert_array_equal(observations.converted(x, np.float32), np.float32(x))
    with pytest.raises(ValueError, match="values change"):
        observations.converted(np.float64([np.nan, 1e8, 1e8 + 1]), np.float32)


# --- missing --------------------------------------------------------------------------------------

X = np.float32([0.4, 1.1, -0.3, 0.8])
GAPS = np.where([False, True, False, True], np.float32(np.nan), X)


def missing(x, kind=Batched):
    joint = kind({"z": tfd.Normal(0.0, 1.0), "x": x})
    return Model(joint, "x", example=X, missing="marginalise")


PRODUCTS = {
    "Sample": (lambda z: tfd.Sample(tfd.Normal(z, 2.0), 4), lambda z: stats.norm(z, 2)),
    "Independent": (
        lambda z: tfd.Independent(tfd.StudentT(4.0, z * tf.ones(4), 1.0), 1),
        lambda z: stats.t(4, z),
    ),
    "mixture": (
        lambda z: tfd.Sample(
            tfd.MixtureSameFamily(
                tfd.Categorical(probs=[0.5, 0.5]), tfd.Normal(tf.stack([z, z]), 2.0)
            ),
            4,
        ),
        lambda z: stats.norm(z, 2),
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_missing_entries_of_a_product_do_not_count(name):
    build, scalar = PRODUCTS[name]
    model = missing(build)
    x = model.data([GAPS, X, np.full(4, np.nan)])
    z = np.float32([[0.3, -0.2, 1.0], [0.0, 2.0, -1.0]])
    entries = scalar(z[..., np.newaxis]).logpdf(np.nan_to_num(x))
    exact = stats.norm.logpdf(z) + np.where(np.isnan(x), 0.0, entries).sum(-1)
    with tf.GradientTape() as tape:
        numbers = tf.constant(z)
        tape.watch(numbers)
        found = model.log_joint({"z": numbers}, x)
    np.testing.assert_allclose(found, exact, atol=1e-4)
    assert np.isfinite(tape.gradient(found, numbers)).all()
    assert np.isnan(model.log_joint({"z": numbers * np.nan}, x)).all()
    masked = np.ma.masked_array([X], [np.isnan(GAPS)])
    np.testing.assert_array_equal(model.data(masked), [GAPS])


def test_missing_entries_under_classes_are_marginalised_within_each():
    """A mixture of products couples its entries: here the class is known from what is left."""
    model = missing(
        lambda z: tfd.MixtureSameFamily(
            tfd.Categorical(probs=[0.3, 0.7]),
            tfd.Independent(tfd.Normal(z + tf.constant([[0.0] * 4, [3.0] * 4]), 1.0), 1),
        )
    )
    seen = X[~np.isnan(GAPS)]
    total = [p * np.prod(stats.norm(m).pdf(seen)) for p, m in ((0.3, 0), (0.7, 3))]
    found = model.log_joint({"z": tf.zeros([1, 1])}, model.data(GAPS))
    assert float(found[0, 0]) == pytest.approx(np.log(sum(total)) + stats.norm.logpdf(0), abs=1e-5)


def test_missing_steps_of_a_hidden_markov_model_are_marginalised():
    start, step = np.float32([0.3, 0.7]), np.float32([[0.9, 0.1], [0.2, 0.8]])
    model = missing(
        lambda z: tfd.HiddenMarkovModel(
            tfd.Categorical(probs=start),
            tfd.Categorical(probs=step),
            tfd.Normal(tf.stack([z, z + 2.0]), 1.0),
            4,
        )
    )
    alpha = start.astype(float)
    for i, value in enumerate(GAPS):
        alpha = alpha if i == 0 else alpha @ step
        if not np.isnan(value):
            alpha = alpha * stats.norm([0, 2]).pdf(value)
    found = model.log_joint({"z": tf.zeros([1, 1])}, model.data(GAPS))
    exact = np.log(alpha.sum()) + stats.norm.logpdf(0)
    assert float(found[0, 0]) == pytest.approx(exact, abs=1e-5)


ROOT = np.linalg.cholesky(0.5 * np.eye(4) + 0.5).astype(np.float32)


@pytest.mark.parametrize(
    "x",
    [
        lambda z: tfd.MultivariateNormalTriL(z * tf.ones(4), ROOT),
        lambda z: tfd.MultivariateNormalTriL(z * tf.ones(4), tf.eye(4)),
        lambda z: tfd.MarkovChain(tfd.Normal(z, 1.0), lambda _, s: tfd.Normal(s, 1.0), 4),
    ],
)
def test_missing_entries_that_others_depend_on_are_refused(x):
    with pytest.raises(ValueError, match="'x' must be a product, mixture or hidden Markov"):
        missing(x)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"x": tfd.Normal(0.0, 1.0), "y": lambda x: tfd.Normal(tf.where(x > 0, 1.0, -1.0), 1.0)},
            "'x' must not be needed by other parts, but 'y'",
        ),
        (
            {"x": tfd.Normal(0.0, 1.0), "y": lambda x: tfd.Normal(x, 1.0)},
            "'x' must not be needed by other parts, but 'y'",
        ),
        (
            {
                "x": tfd.Normal(0.0, 1.0),  # beyond 4 in 3 of 100 000 draws
                "y": lambda x: tfd.Normal(tf.where(x > 4, 3.0, 0.0), 1.0),
            },
            "'x' must not be needed by other parts, but 'y'",
        ),
        ({"x": tfd.Normal(0.0, 1.0), "y": tfd.Bernoulli(0.5)}, "floating dtype"),
    ],
)
def test_missing_values_that_cannot_be_left_out_are_refused(parts, message):
    joint = Batched({"z": tfd.Normal(0.0, 1.0), **parts})
    with pytest.raises(ValueError, match=message):
        Model(joint, ("x", "y"), example={"x": 0.5, "y": 0}, missing="marginalise")
