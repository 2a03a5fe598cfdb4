"""The loss that weighs q and p apart: its gradients by the ELBO's, and in closed form."""

import numpy as np
import pytest

from tfp_gaps._tensorflow import tf
from tfp_gaps.exact.linear_gaussian import LinearGaussian
from tfp_gaps.models.state_space import DiagonalNormal, LinearGaussianStateSpace, StateSpace
from tfp_gaps.networks import replica_normal, replica_seeds
from tfp_gaps.posteriors.conditions import FULL
from tfp_gaps.posteriors.look_ahead import LookAheadNetwork, sample_path
from tfp_gaps.sequences import Batch
from tfp_gaps.sequential.balancing import balanced_loss, factors
from tfp_gaps.sequential.fitting import negative_elbo

SEEDS = replica_seeds([3, 4], "noise")
SIZES = {"observation_size": 2, "latent_size": 3, "hidden_size": 8, "control_size": 1}


class Free(tf.Module):
    """q(z_t) = N(m_t, .5^2) of free means: it knows neither p nor z_{t-1}."""

    def __init__(self, means):
        super().__init__()
        self.means = tf.Variable(means)  # [replicas, time, 1, latent]

    def context(self, batch):
        return tf.transpose(self.means, [1, 0, 2, 3]) + 0.0 * tf.reduce_sum(
            batch.observations, -1, keepdims=True
        )

    def factor(self, prior, latent, context):
        return DiagonalNormal(context, 0.5 * tf.ones_like(context))

    def sample_path(self, model, context, noise, *, controls=None):
        return sample_path(self, model, context, noise, controls)


@pytest.fixture(scope="module")
def pair():
    model = StateSpace(**SIZES, emission="normal", seeds=replica_seeds([0, 1], "model"))
    network = LookAheadNetwork(
        **SIZES, conditions=FULL, masked=True, relative=True, seeds=replica_seeds([0, 1], "q")
    )
    rng = np.random.default_rng(0)
    shape = [5, 2, 4]
    batch = Batch(
        tf.constant(rng.normal(size=[*shape, 2]), tf.float32),
        tf.constant(rng.normal(size=[*shape, 1]), tf.float32),
        tf.constant(rng.uniform(size=[*shape, 2]) < 0.8),
    )
    return model, network, batch


def gradients(loss, batch, variables, kl_weight=1.0):
    """Losses, and the gradient of their sum for each variable."""
    with tf.GradientTape() as tape:
        losses = loss(batch, SEEDS, kl_weight)
    found = tape.gradient(losses, variables, unconnected_gradients="zero")
    return losses.numpy(), [gradient.numpy() for gradient in found]


def assert_alike(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("through_samples", [False, True])
def test_with_weight_one_q_follows_the_elbo(pair, through_samples):
    model, network, batch = pair
    own = network.trainable_variables
    loss = balanced_loss(model, network, 1.0, through_samples=through_samples)
    # Missing values, controls, two replicas, and a warm-up on its way.
    values, found = gradients(loss, batch, own, 0.7)
    expected, of_elbo = gradients(negative_elbo(model, network), batch, own, 0.7)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    assert_alike(found, of_elbo)


@pytest.mark.parametrize("through_samples", [False, True])
def test_a_graph_has_the_gradients_of_the_loss_without_one(pair, through_samples):
    """As training has it: the loss takes gradients of its own, through loops over time."""
    model, network, batch = pair
    variables = [*model.trainable_variables, *network.trainable_variables]
    loss = balanced_loss(model, network, 0.1, through_samples=through_samples)

    @tf.function
    def compiled(batch):
        with tf.GradientTape() as tape:
            losses = loss(batch, SEEDS, 0.7)
        return losses, tape.gradient(losses, variables, unconnected_gradients="zero")

    values, found = compiled(batch)
    expected, plain = gradients(loss, batch, variables, 0.7)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    assert_alike(found, plain)


def test_q_follows_the_bound_whose_divergence_is_weighed(pair):
    model, network, batch = pair
    own = network.trainable_variables
    _, found = gradients(balanced_loss(model, network, 0.1), batch, own)
    _, expected = gradients(negative_elbo(model, network), batch, own, 0.1)
    assert_alike(found, expected)
    _, whole = gradients(negative_elbo(model, network), batch, own)
    assert max(np.abs(a - b).max() for a, b in zip(found, whole, strict=True)) > 0.1


def test_p_follows_the_elbo_at_a_fixed_q_whatever_the_weight(pair):
    # A q that does not know p: the gradient of the ELBO is that at a fixed q.
    model, _, batch = pair
    means = replica_normal([5, 1, 3], SEEDS)
    posterior, variables = Free(means), model.trainable_variables
    _, expected = gradients(negative_elbo(model, posterior), batch, variables)
    for weight, through_samples in ((1.0, False), (0.1, False), (0.1, True)):
        loss = balanced_loss(model, posterior, weight, through_samples=through_samples)
        assert_alike(gradients(loss, batch, variables)[1], expected)


def test_p_does_not_move_a_q_that_is_relative_to_it(pair):
    # The factor of q follows the prior; its gradient must not reach p through q.
    model, network, batch = pair
    variables = model.trainable_variables
    _, found = gradients(balanced_loss(model, network, 0.1), batch, variables)
    time, _, size, _ = batch.observations.shape
    noise = replica_normal([time, size, 3], SEEDS, axis=1)
    context = network.context(batch)
    latents = network.sample_path(model, context, noise, controls=batch.controls).latents
    fixed, _ = factors(model, network, latents, context, batch.controls)
    fixed = DiagonalNormal(fixed.mean.numpy(), fixed.scale.numpy())
    latents = tf.constant(latents.numpy())
    observed = tf.cast(batch.mask, tf.float32)

    def of_model():
        """Minus E_q ln p(x, z), with the cross entropy of normals for E_q ln p(z)."""
        first, later = model.initial(), model.transition(latents[:-1], batch.controls[1:])
        total = 0.0
        for p, now in ((first, slice(1)), (later, slice(1, None))):
            error = (fixed.mean[now] - p.mean) ** 2 + fixed.scale[now] ** 2
            total += tf.reduce_sum(tf.math.log(p.scale) + 0.5 * error / p.scale**2)
        fit = model.emission(latents).distribution.log_prob(batch.observations)
        return (total - tf.reduce_sum(observed * fit)) / size

    with tf.GradientTape() as tape:
        value = of_model()
    assert_alike(found, [g.numpy() for g in tape.gradient(value, variables)])


@pytest.mark.parametrize("through_samples", [False, True])
def test_gradients_through_samples_in_closed_form(through_samples):
    """Two steps of a chain; q with free means, so that z_t = m_t + .5 e_t."""
    a, Q, R, P, beta = 0.8, 0.3, 0.6, 1.2, 0.1
    model = LinearGaussianStateSpace(LinearGaussian(a, Q, 1.0, R, P))
    m = np.array([0.7, -0.4])
    posterior = Free(tf.constant(m.reshape(1, 2, 1, 1), tf.float32))
    x = np.array([1.1, 0.2])
    batch = Batch(tf.constant(x.reshape(2, 1, 1, 1), tf.float32))
    seeds = SEEDS[:1]
    z = m + 0.5 * replica_normal([2, 1, 1], seeds, axis=1).numpy().ravel()
    with tf.GradientTape() as tape:
        loss = balanced_loss(model, posterior, beta, through_samples=through_samples)(
            batch, seeds, 1.0
        )
    found = tape.gradient(loss, posterior.means).numpy().ravel()
    offset = (m[1] - a * z[0]) / Q
    share = 1.0 if through_samples else beta  # of what z_1 does to the second divergence
    expected = [
        (z[0] - x[0]) / R + beta * m[0] / P - share * a * offset,
        (z[1] - x[1]) / R + beta * offset,
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_a_weight_that_is_not_positive_is_refused(pair, weight):
    with pytest.raises(ValueError, match="weight"):
        balanced_loss(*pair[:2], weight)
