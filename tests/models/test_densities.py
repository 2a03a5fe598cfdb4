"""Likelihoods, nested parts, state-space parts and Keras posteriors, where the answer is known."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from scipy import stats

from tfp_gaps._tensorflow import tf, tfk, tfp
from tfp_gaps.models.joint import Model

tfd, tfb = tfp.distributions, tfp.bijectors
Named, Batched = tfd.JointDistributionNamed, tfd.JointDistributionNamedAutoBatched
PRIOR = tfd.Normal(0.0, 1.0)


def weights(model, q, x, draws=20):
    x = model.data(x)
    parts, log_q = model.draw(q, x, draws, 0)
    return np.float64(model.log_joint(parts, x) - log_q)


# --- likelihoods ----------------------------------------------------------------------------------


def one_draw(z, x):
    """Of one draw and datum: a sum over all axes."""
    return tf.reduce_sum(tfd.Normal(z, 1.0).log_prob(x))


@pytest.mark.parametrize(
    "log_likelihood",
    [
        lambda z, x: tf.reduce_sum(tfd.Normal(z[..., tf.newaxis], 1.0).log_prob(x), -1),
        one_draw,
    ],
)
def test_a_likelihood_of_draws_and_data_or_of_one_of_each(log_likelihood):
    model = Model.from_log_density(PRIOR, log_likelihood, example=np.zeros(3))
    x = np.float32([[0.3, -1.0, 2.0], [1.0, 1.5, 0.0]])
    q = tfd.Normal(x.sum(-1) / 4, 0.5)
    exact = stats.multivariate_normal(np.zeros(3), np.eye(3) + 1).logpdf(x)
    np.testing.assert_allclose(
        weights(model, q, x), np.broadcast_to(exact, (20, 2)), rtol=0, atol=1e-5
    )
    with pytest.raises(ValueError, match="cannot draw data. Write it as a joint"):
        model.simulate(2, seed=0)


def test_a_likelihood_of_several_observed_arrays():
    model = Model.from_log_density(
        Batched({"z": PRIOR}),
        lambda z, x: tfd.Normal(z["z"], 1.0).log_prob(x["a"]) - x["b"],
        example={"a": 0.0, "b": 0.0},
    )
    found = model.log_joint({"z": tf.zeros([3, 2])}, model.data({"a": [0.0, 1.0], "b": [1.0, 2.0]}))
    exact = 2 * stats.norm.logpdf(0) - np.array([1.0, 2.5])
    np.testing.assert_allclose(found, np.broadcast_to(exact, (3, 2)), atol=1e-5)


FIXED = np.float32([0.3, -1.0, 2.0])


def test_a_likelihood_that_holds_its_data_is_one_datum():
    model = Model.from_log_density(PRIOR, lambda z: one_draw(z, FIXED))
    exact = stats.multivariate_normal(np.zeros(3), np.eye(3) + 1).logpdf(FIXED)
    found = weights(model, tfd.Normal(FIXED.sum() / 4, 0.5), None)
    np.testing.assert_allclose(found, np.full([20, 1], exact), atol=1e-5)


def target():
    """As inference_gym has them: a structure of parts, a bijector for each, no sampler."""

    def unnormalized_log_prob(z):
        scale = tfd.LogNormal(0.0, 1.0).log_prob(z["scale"])
        loc = tfd.Normal(0.0, z["scale"][..., tf.newaxis]).log_prob(z["loc"])
        return scale + tf.reduce_sum(loc, -1) - 3.0

    return SimpleNamespace(
        event_shape={"scale": tf.TensorShape([]), "loc": tf.TensorShape([2])},
        dtype={"scale": tf.float32, "loc": tf.float32},
        default_event_space_bijector={"scale": tfb.Exp(), "loc": tfb.Identity()},
        unnormalized_log_prob=unnormalized_log_prob,
    )


def test_a_target_without_a_sampler():
    model = Model.from_log_density(target())
    assert model.latents == ("loc", "scale") and model.num_numbers == 3
    q = Named(
        {
            "scale": tfd.LogNormal(0.0, 1.0),
            "loc": lambda scale: tfd.Independent(
                tfd.Normal(tf.zeros(2), scale[..., tf.newaxis]), 1
            ),
        }
    )
    np.testing.assert_allclose(weights(model, q, None), np.full([20, 1], -3.0), atol=1e-5)
    numbers = tf.constant([[[0.1, 0.2, -0.7]]])
    parts, log_det = model.constrain(numbers)
    assert float(log_det[0, 0]) == pytest.approx(-0.7) and float(parts["scale"]) < 0.5


def test_a_pinned_joint_distribution_is_a_target():
    joint = Batched({"z": PRIOR, "x": lambda z: tfd.Normal(z, 1.0)})
    found = weights(
        Model.from_log_density(joint.experimental_pin(x=0.6)), tfd.Normal(0.3, 0.5**0.5), None
    )
    np.testing.assert_allclose(
        found, np.full([20, 1], stats.norm(0, 2**0.5).logpdf(0.6)), atol=1e-5
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Model.from_log_density(lambda z: z), "the prior must be a tfd.Distribution or"),
        (lambda: Model.from_log_density(tfd.Normal(tf.zeros(2), 1.0)), "batch shape"),
        (lambda: Model.from_log_density(PRIOR, 3.0), "log_likelihood must be a function"),
        (lambda: Model.from_log_density(PRIOR, lambda z: tf.stack([z, z], -1)), "the log likelih"),
        (lambda: Model.from_log_density(PRIOR, lambda z: z - tf.reduce_mean(z)), "mixed"),
        (lambda: Model.from_log_density(tfd.Bernoulli(0.5), lambda z: z), "'z' has dtype int32"),
        (lambda: Model.from_log_density(PRIOR, lambda z, x: 1 / 0, example=0.0), "ZeroDivision"),
    ],
)
def test_what_is_no_log_density_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- nested ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Named, Batched])
def test_arrays_of_a_joint_distribution_inside_have_dotted_names(kind):
    """z.b ~ N(0, 1), y ~ N(0, 1), x ~ N(b + y, 1), z.a free of all."""
    inner = kind({"a": tfd.Gamma(2.0, 1.0), "b": PRIOR})
    joint = kind({"z": inner, "y": PRIOR, "x": lambda z, y: tfd.Normal(z["b"] + y, 1.0)})
    model = Model(joint, "x", example=0.0)
    assert sorted(model.latents) == ["y", "z.a", "z.b"]
    parts = model.simulate(3, seed=0)[0]
    again, _ = model.constrain(model.unconstrain(parts))
    for name, value in parts.items():
        np.testing.assert_allclose(again[name], value, rtol=1e-4)
    # p(b | x) = N(x / 3, 2 / 3), p(y | b, x) = N((x - b) / 2, 1 / 2).
    q = Named(
        {
            "z": Named({"a": tfd.Gamma(2.0, 1.0), "b": tfd.Normal(0.1, (2 / 3) ** 0.5)}),
            "y": lambda z: tfd.Normal((0.3 - z["b"]) / 2, 0.5**0.5),
        }
    )
    exact = stats.norm(0, 3**0.5).logpdf(0.3)
    np.testing.assert_allclose(weights(model, q, 0.3), np.full([20, 1], exact), atol=1e-4)


def test_an_inner_joint_distribution_that_tfp_cannot_batch_is_refused_with_the_remedy():
    joint = Batched({"z": Named({"a": PRIOR}), "x": lambda z: tfd.Normal(z["a"], 1.0)})
    with pytest.raises(ValueError, match="Use an AutoBatched class"):
        Model(joint, "x", example=0.0)


# --- state space ----------------------------------------------------------------------------------

LEVELS = np.float32([0.3, 1.0, 0.2, -0.5])
WALK = 1.0 + np.minimum.outer(np.arange(4), np.arange(4))  # of z_1 ~ N(0, 1), z_t ~ N(z_{t-1}, 1)


def kalman(scale=1.0):
    def normal(scale):
        return tfd.MultivariateNormalDiag(scale_diag=tf.reshape(scale, [1]))

    return tfd.LinearGaussianStateSpaceModel(
        4, tf.eye(1), normal(1.0), tf.eye(1), normal(scale), normal(1.0)
    )


def test_a_latent_chain_agrees_with_the_kalman_filter():
    chain = tfd.MarkovChain(PRIOR, lambda _, z: tfd.Normal(z, 1.0), 4)
    joint = Named({"z": chain, "x": lambda z: tfd.Independent(tfd.Normal(z, 1.0), 1)})
    gain = WALK @ np.linalg.inv(WALK + np.eye(4))
    q = tfd.MultivariateNormalTriL(
        np.float32(gain @ LEVELS), np.float32(np.linalg.cholesky(WALK - gain @ WALK))
    )
    found = weights(Model(joint, "x", example=LEVELS), q, LEVELS)
    exact = float(kalman().log_prob(LEVELS[:, np.newaxis]))
    np.testing.assert_allclose(found, np.full([20, 1], exact), atol=1e-4)


def test_a_kalman_filter_as_the_observed_part():
    joint = Batched({"scale": tfd.LogNormal(0.0, 1.0), "x": lambda scale: kalman(scale)})
    model = Model(joint, "x", example=LEVELS[:, np.newaxis])
    found = model.log_joint(
        {"scale": tf.constant([[0.5], [2.0]])}, model.data(LEVELS[:, np.newaxis])
    )
    for value, scale in zip(found[:, 0], (0.5, 2.0), strict=True):
        exact = stats.multivariate_normal(np.zeros(4), WALK + scale**2 * np.eye(4)).logpdf(LEVELS)
        assert float(value) == pytest.approx(exact + stats.lognorm(1).logpdf(scale), abs=1e-4)


def test_a_structural_time_series():
    level = tfp.sts.LocalLevel(
        level_scale_prior=tfd.LogNormal(0.0, 1.0), initial_level_prior=tfd.Normal(0.0, 1.0)
    )
    both = tfp.sts.Sum(
        [level], observation_noise_scale_prior=tfd.LogNormal(0.0, 1.0), constant_offset=0.0
    )
    model = Model(
        both.joint_distribution(num_timesteps=4),
        "observed_time_series",
        example=LEVELS[:, np.newaxis],
    )
    parts = {"observation_noise_scale": 0.5, "LocalLevel/_level_scale": 2.0}
    assert set(model.latents) == set(parts)
    found = model.log_joint(
        {name: tf.fill([1, 1], value) for name, value in parts.items()},
        model.data(LEVELS[:, np.newaxis]),
    )
    steps = np.minimum.outer(np.arange(4), np.arange(4))
    covariance = 1.0 + 4.0 * steps + 0.25 * np.eye(4)
    exact = stats.multivariate_normal(np.zeros(4), covariance).logpdf(LEVELS)
    exact += stats.lognorm(1).logpdf([0.5, 2.0]).sum()
    assert float(found[0, 0]) == pytest.approx(exact, abs=1e-3)


# --- posteriors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("library", [tfk, keras], ids=["Keras 2", "Keras 3"])
def test_an_encoder_of_keras_is_a_posterior(library):
    assert library.__version__[0] == ("2" if library is tfk else "3")
    joint = Batched({"z": PRIOR, "x": lambda z: tfd.Normal(z, 1.0)})
    dense = library.layers.Dense(1, use_bias=False)
    network = library.Sequential([dense])
    network(np.zeros([1, 1], np.float32))
    dense.set_weights([np.float32([[0.5]])])

    def posterior(x):
        return tfd.Normal(network(x[:, np.newaxis])[:, 0], 0.5**0.5)

    x = np.float32([0.0, 1.0, -2.0])
    exact = stats.norm(0, 2**0.5).logpdf(x)
    found = weights(Model(joint, "x", example=0.0), posterior, x)
    np.testing.assert_allclose(found, np.broadcast_to(exact, (20, 3)), atol=1e-5)
