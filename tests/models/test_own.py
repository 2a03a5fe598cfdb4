"""Models in a user's own words: what they must return, and the same numbers as ours."""

import subprocess
import sys

import numpy as np
import pytest

from tfp_gaps import bounds, filtering
from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.exact.linear_gaussian import LinearGaussian, kalman_filter
from tfp_gaps.models.own import as_state_space
from tfp_gaps.models.state_space import DiagonalNormal, LinearGaussianStateSpace
from tfp_gaps.sequences import Sequences

tfd = tfp.distributions

A = np.float32([[0.9, 0.2], [-0.1, 0.7]])
C = np.float32([[1.0, 0.5], [0.0, 1.0], [1.0, -1.0]])
CHAIN = LinearGaussian(A, 0.3 * np.eye(2), C, 0.5 * np.eye(3), np.eye(2))
X = np.random.default_rng(0).normal(size=[5, 4, 3]).astype(np.float32)


class Mine:
    """The chain in the words of somebody who writes z @ W and TFP's distributions."""

    num_replicas, latent_size = 1, 2

    def initial(self):
        return tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2))

    def transition(self, z, u):
        return tfd.MultivariateNormalDiag(z @ A.T, 0.3**0.5 * tf.ones(2))

    def emission(self, z):
        return tfd.Independent(tfd.Normal(tf.einsum("...i,ji->...j", z, C), 0.5**0.5), 1)


def test_it_gives_the_numbers_of_ours():
    options = {"num_particles": 500, "seed": 1}
    found = filtering.particle_filter(Mine(), X, **options).log_increments
    ours = filtering.particle_filter(LinearGaussianStateSpace(CHAIN), X, **options).log_increments
    np.testing.assert_allclose(found[0], ours[0], atol=1e-5)
    # Later a rounding can let one of the two resample: another draw of the same estimate, whose
    # spread over seeds is .15 nats.
    np.testing.assert_allclose(found.sum(0), ours.sum(0), atol=0.5)
    exact = kalman_filter(CHAIN, X.astype(float)).log_likelihood
    np.testing.assert_allclose(found.sum(0)[0], exact, atol=0.5)


def test_a_kalman_filter_of_tfp_is_taken_as_it_is():
    normal = [tfd.MultivariateNormalTriL(scale_tril=np.linalg.cholesky(c).astype("f")) for c in
              (CHAIN.transition_cov, CHAIN.emission_cov, CHAIN.initial_cov)]  # fmt: skip
    kalman = tfd.LinearGaussianStateSpaceModel(5, A, normal[0], C, normal[1], normal[2])
    exact = as_state_space(kalman, "f(model)").exact
    expected = kalman.log_prob(np.swapaxes(X, 0, 1)).numpy()
    np.testing.assert_allclose(
        kalman_filter(exact, X.astype(float)).log_likelihood, expected, rtol=1e-5
    )
    moved = tfd.MultivariateNormalDiag(tf.ones(2), tf.ones(2))
    kalman = tfd.LinearGaussianStateSpaceModel(5, A, normal[0], C, normal[1], moved)
    with pytest.raises(ValueError, match="an initial state whose mean is not zero"):
        as_state_space(kalman, "f(model)")


def changed(**methods):
    return type("Changed", (Mine,), methods)()


def normal(mean, scale):
    return DiagonalNormal(mean, scale)


WRONG = {
    "a row for a column": (
        {"transition": lambda self, z, u: normal(z[..., :1], tf.ones(2))},
        r"the mean of model.transition\(z, u\) must have shape .*\(5, 1, 3, 2\), but has \(5, 1, 3",
    ),
    "one scale for two": (
        {"transition": lambda self, z, u: normal(z, tf.ones([1]))},
        r"the scale of model.transition\(z, u\) must have shape",
    ),
    "draws lost": (
        {"transition": lambda self, z, u: normal(z[0], tf.ones(2))},
        r"the mean of model.transition\(z, u\)|treat each draw",
    ),
    "mixed": (
        {"transition": lambda self, z, u: normal(z - tf.reduce_mean(z, 0), tf.ones(2))},
        r"model.transition\(z, u\) must treat each draw and sequence alone",
    ),
    "mixed but for the last of both": (
        {
            "transition": lambda self, z, u: normal(
                tf.concat([tf.reduce_sum(z, -2, keepdims=True), z[..., 1:, :]], -2), tf.ones(2)
            )
        },
        r"model.transition\(z, u\) must treat each draw and sequence alone",
    ),
    "float64": (
        {"initial": lambda self: normal(tf.zeros(2, tf.float64), tf.ones(2, tf.float64))},
        r"the mean of model.initial\(\) must be float32, but is float64",
    ),
    "a logarithm for a scale": (
        {"initial": lambda self: normal(tf.zeros(2), -tf.ones(2))},
        r"model.initial\(\) must have finite means and scales above zero.*-1",
    ),
    "another family": (
        {"transition": lambda self, z, u: tfd.StudentT(4.0, z, 1.0)},
        r"model.transition\(z, u\) must return a normal .* returns a StudentT",
    ),
    "channels not independent": (
        {"emission": lambda self, z: tfd.Normal(z, 1.0)},
        r"model.emission\(z\) must have one event axis",
    ),
    "no distribution": (
        {"emission": lambda self, z: z},
        r"model.emission\(z\) must return a distribution over x, but returns a .*Tensor",
    ),
    "float64 emission": (
        {"emission": lambda self, z: tfd.Independent(tfd.Normal(tf.cast(z, tf.float64), 1.0), 1)},
        r"model.emission\(z\) must give float32 densities|could not be evaluated",
    ),
    "fails": (
        {"transition": lambda self, z, u: normal(z @ tf.ones([3, 2]), 1.0)},
        r"model.transition\(z, u\) could not be evaluated \(",
    ),
    "sizes that disagree": (
        {"observation_size": 4},
        r"must have the model's observation_size of 4 channel\(s\), but has the event shape \[3\]",
    ),
    "no size": ({"latent_size": 0}, "model.latent_size must be an integer and >= 1, but is 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_sentence(case):
    methods, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        filtering.particle_filter(changed(**methods), X, num_particles=10, seed=0)


def test_what_is_no_model_is_refused_by_name():
    state, moves = tfd.Categorical([0.0]), tfd.Categorical([[0.0]])
    hidden = tfd.HiddenMarkovModel(state, moves, tfd.Normal([0.0], 1.0), 3)
    with pytest.raises(ValueError, match="the HiddenMarkovModel that was given lacks num_rep"):
        filtering.particle_filter(hidden, X, num_particles=10, seed=0)
    with pytest.raises(ValueError, match="posterior must offer .* but the NoneType .* elbo.model"):
        bounds.elbo(Mine(), None, X, seed=0)


def test_data_of_other_channels_or_controls_are_refused_where_they_would_broadcast():
    with pytest.raises(ValueError, match=r"the model's 3 channel\(s\), but hold 4 with 1"):
        bounds.elbo(Mine(), lambda x: tfd.Normal(tf.repeat(x, 2, -1), 1.0), X[..., :1], seed=0)
    with pytest.raises(ValueError, match=r"built for 0 control channel\(s\), but got 1"):
        bounds.elbo(
            Mine(), lambda x, u: tfd.Normal(x[..., :2], 1.0), Sequences(X, X[..., :1]), seed=0
        )


def test_missing_values_need_channels_that_can_be_left_out():
    mask = np.ones(X.shape, bool)
    mask[2, :, 1] = mask[3] = False
    dense = changed(emission=lambda self, z: tfd.MultivariateNormalDiag(
        tf.einsum("...i,ji->...j", z, C), 0.5**0.5 * tf.ones(3)))  # fmt: skip
    options = {"num_particles": 500, "seed": 1}
    with pytest.raises(
        ValueError, match="must be tfd.Independent over its channels, but is a Mult"
    ):
        filtering.particle_filter(dense, Sequences(X, mask=mask), **options)
    found = filtering.particle_filter(Mine(), Sequences(X, mask=mask), **options)
    ours = filtering.particle_filter(
        LinearGaussianStateSpace(CHAIN), Sequences(X, mask=mask), **options
    )
    np.testing.assert_allclose(found.log_increments[0], ours.log_increments[0], atol=1e-5)
    np.testing.assert_allclose(found.log_increments.sum(0), ours.log_increments.sum(0), atol=0.5)
    assert np.all(found.log_increments[3] == 0.0)
    with pytest.raises(ValueError, match="4 values of it are masked and would lose their mask"):
        bounds.elbo(Mine(), lambda x: x, np.ma.masked_array(X, np.sort(X.ravel())[-5] < X), seed=0)


EARLY = """
import numpy as np, tensorflow as tf
W = tf.constant(np.ones([2, 3], "f"))
names = [[tf.TensorSpec([None] * 4)], [tf.TensorSpec(None)]]
products = [lambda z: z @ W, lambda z: tf.einsum("...i,ij->...j", z, W)]
early = [tf.function(p, input_signature=n) for p in products for n in names]
[f.get_concrete_function() for f in early]
from tfp_gaps import Model, particle_filter
from tests.models.test_own import Mine, tfd
for f in early:
    Mine.emission = lambda self, z: tfd.Independent(tfd.Normal(f(z), 1.0), 1)
    def x(z):
        return tfd.Independent(tfd.Normal(f(z[..., None, :])[..., 0, :], 1.0), 1)
    def joint():
        z = yield tfd.JointDistributionCoroutine.Root(tfd.Sample(tfd.Normal(0., 1.), 2, name="z"))
        yield x(z)
    joint = tfd.JointDistributionNamed({"z": tfd.Sample(tfd.Normal(0., 1.), 2), "x": x})
    runs = [
        lambda: particle_filter(Mine(), np.zeros([3, 2, 3]), num_particles=2000, seed=0),
        lambda: Model(joint, "x", example=np.zeros(3, "f")),
    ]
    for run in runs if f in early[1::2] else runs[:1]:  # the joint one asks at other ranks too
        try:
            run()
        except ValueError as error:
            assert "reaches a" in str(error) and "flat_matmul" in str(error), error
        else:
            raise SystemExit("not refused")
"""


def test_products_traced_before_the_import_are_refused_and_not_run():
    """Run in a process of its own, which the fault would end."""
    subprocess.run([sys.executable, "-c", EARLY], check=True, timeout=300)


SUMS = {
    "...i,ij->...j": [((60, 7), (7, 3)), ((60, 1, 3, 7), (7, 3))],
    "...bi,...ij->...bj": [((60, 2, 3, 7), (1, 1, 7, 3)), ((60, 1, 3, 7), (5, 7, 3))],
    "...i,...i->...": [((60, 1, 3, 7), (7,)), ((60, 1, 3, 7), (60, 1, 1, 7)), ((1, 7), (60, 7))],
    "...ij->...ji": [((3, 4, 5),)],
    "a...b,b->a...": [((3, 4, 2, 5), (5,))],
    "i...,...i->...": [((7, 3), (5, 3, 7))],
}


@pytest.mark.parametrize("known", [True, False], ids=["shapes known", "shapes unknown"])
@pytest.mark.parametrize("equation", SUMS)
def test_einsum_with_an_ellipsis_is_right(equation, known):
    """Wrong numbers come from oneDNN for most of these."""
    rng = np.random.default_rng(0)
    for shapes in SUMS[equation]:
        parts = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
        signature = None if known else [tf.TensorSpec([None] * len(shape)) for shape in shapes]
        sums = tf.function(lambda *p: tf.einsum(equation, *p), input_signature=signature)
        expected = np.einsum(equation, *(part.astype(float) for part in parts))
        np.testing.assert_allclose(sums(*parts), expected, atol=1e-4, strict=False)
        if known:
            np.testing.assert_allclose(tf.einsum(equation, *parts), expected, atol=1e-4)
