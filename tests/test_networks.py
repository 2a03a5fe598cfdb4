"""Replicated layers against one replica at a time, and the recurrence against plain autodiff."""

import numpy as np
import pytest

from tfp_gaps import networks
from tfp_gaps._tensorflow import tf, tfk
from tfp_gaps.bounds import elbo_terms
from tfp_gaps.models.state_space import StateSpace
from tfp_gaps.networks import (
    MLP,
    Dense,
    gru_scan,
    replica,
    replica_normal,
    replica_seeds,
    split_seeds,
)
from tfp_gaps.posteriors.conditions import FULL
from tfp_gaps.posteriors.look_ahead import LookAheadNetwork
from tfp_gaps.sequences import Batch


def plain_gru(inputs, kernel, bias, keep):
    """The same recurrence written step by step, differentiated by the framework."""
    width = inputs.shape[3] // 3
    state = tf.zeros([*inputs.shape[1:3], width], inputs.dtype)
    states = []
    for t in range(inputs.shape[0]):
        state = state * keep[t]
        hidden = tf.matmul(state, kernel) + bias
        reset, update = (
            tf.sigmoid(
                inputs[t, ..., i * width : (i + 1) * width]
                + hidden[..., i * width : (i + 1) * width]
            )
            for i in (0, 1)
        )
        candidate = tf.tanh(inputs[t, ..., 2 * width :] + reset * hidden[..., 2 * width :])
        state = update * state + (1 - update) * candidate
        states.append(state)
    return tf.stack(states)


@pytest.fixture
def recurrence():
    rng = np.random.default_rng(0)
    time, rows, batch, width = 7, 4, 3, 5
    keep = np.ones([time, rows, 1, 1])
    keep[[2, 5], 2:] = 0.0
    return [
        tf.constant(rng.normal(size=shape))
        for shape in (
            [time, rows, batch, 3 * width],
            [rows, width, 3 * width],
            [rows, 1, 3 * width],
        )
    ] + [tf.constant(keep)]


def gradients(function, arguments):
    weights = tf.constant(np.random.default_rng(1).normal(size=[7, 4, 3, 5]))
    with tf.GradientTape() as tape:
        tape.watch(arguments[:3])
        total = tf.reduce_sum(weights * function(*arguments))
    return tape.gradient(total, arguments[:3])


def test_recurrence_and_its_gradient_equal_plain_autodiff(recurrence):
    # float64 throughout: the two differ by rounding alone.
    np.testing.assert_allclose(gru_scan(*recurrence), plain_gru(*recurrence), atol=1e-12)
    for ours, theirs in zip(
        gradients(gru_scan, recurrence), gradients(plain_gru, recurrence), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_recurrence_equals_the_gru_of_keras():
    rng = np.random.default_rng(2)
    time, batch, channels, width = 6, 3, 4, 5
    layer = tfk.layers.GRU(width, return_sequences=True, reset_after=True, dtype="float64")
    x = rng.normal(size=[batch, time, channels])
    layer.build(x.shape)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    expected = layer(x).numpy().transpose(1, 0, 2)
    kernel, recurrent, bias = layer.get_weights()

    def reorder(weights):  # Keras orders the gates update, reset, candidate
        update, reset, candidate = np.split(weights, 3, axis=-1)
        return np.concatenate([reset, update, candidate], axis=-1)

    inputs = np.einsum("bti,io->tbo", x, reorder(kernel)) + reorder(bias[0])
    states = gru_scan(
        tf.constant(inputs[:, np.newaxis]),
        tf.constant(reorder(recurrent)[np.newaxis]),
        tf.constant(reorder(bias[1])[np.newaxis, np.newaxis]),
        tf.ones([time, 1, 1, 1], tf.float64),
    )
    np.testing.assert_allclose(states[:, 0], expected, atol=1e-12)


@pytest.mark.parametrize("leading", [(), (5,)])
def test_replicas_are_independent_networks(leading):
    seeds = [3, 8]
    both = MLP(4, 6, 2, seeds=replica_seeds(seeds, "test"), name="both")
    x = np.random.default_rng(0).normal(size=[*leading, 2, 7, 4]).astype(np.float32)
    for r, seed in enumerate(seeds):
        alone = MLP(4, 6, 2, seeds=replica_seeds([seed], "test"), name="alone")
        expected = alone(tf.constant(x[..., r : r + 1, :, :]))
        # Same arithmetic in another blocking: a few units in the last place of float32.
        np.testing.assert_allclose(both(tf.constant(x))[..., r : r + 1, :, :], expected, atol=1e-5)


def test_randomness_depends_on_seed_purpose_and_index():
    draws = [
        replica_normal([100], replica_seeds([seed], purpose, index)).numpy()[0]
        for seed, purpose, index in [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1)]
    ]
    correlations = np.corrcoef(draws) - np.eye(4)
    assert np.abs(correlations).max() < 0.4  # 4 standard errors of a correlation of 100 pairs
    again = replica_normal([100], replica_seeds([5, 0], "a", 0)).numpy()[1]
    np.testing.assert_array_equal(again, draws[0])


def test_split_seeds_differ():
    parts = [part.numpy().tolist() for part in split_seeds(replica_seeds([0, 1], "x"), 3)]
    assert len({tuple(row) for part in parts for row in part}) == 6


def test_dense_without_bias_maps_zero_to_zero():
    layer = Dense(3, 2, seeds=replica_seeds([0], "x"), use_bias=False, name="layer")
    assert layer.bias is None
    np.testing.assert_array_equal(layer(tf.zeros([1, 4, 3])), np.zeros([1, 4, 2]))


@pytest.mark.parametrize("shape", [(1, 1, 20, 2), (5, 2, 40, 3), (7, 3, 1, 2), (100, 1, 30, 8)])
def test_products_of_many_axes_are_right(shape):
    # NumPy in float64. The broadcasting products of TensorFlow are not, for some of these shapes.
    rng = np.random.default_rng(0)
    inputs, matrix = rng.normal(size=shape), rng.normal(size=[shape[-1], 4])
    found = networks.flat_matmul(tf.constant(inputs, tf.float32), tf.constant(matrix, tf.float32))
    np.testing.assert_allclose(found, inputs @ matrix, rtol=1e-4, atol=1e-5)
    kernels = rng.normal(size=[shape[1], shape[-1], 4])
    found = networks.linear(tf.constant(inputs, tf.float32), tf.constant(kernels, tf.float32))
    expected = np.stack([inputs[:, r] @ kernels[r] for r in range(shape[1])], 1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def plain_mlp(network, values, replica, activation):
    """The same network in NumPy, float64."""
    for layer in network.hidden:
        values = activation(values @ layer.kernel[replica].numpy() + layer.bias[replica].numpy())
    return values @ network.output.kernel[replica].numpy() + network.output.bias[replica].numpy()


@pytest.mark.parametrize("widths", [(), 6, (6,), (6, 5), (6, 5, 4, 3)])
@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("relu", lambda x: np.maximum(x, 0)),
        ("elu", lambda x: np.where(x > 0, x, np.expm1(x))),
        ("tanh", np.tanh),
    ],
)
def test_layers_and_activations_are_those_asked_for(widths, name, activation):
    seeds = replica_seeds([0, 1], "test")
    network = MLP(4, widths, 2, seeds=seeds, activation=name, name="network")
    assert len(network.hidden) == (1 if isinstance(widths, int) else len(widths))
    for index, layer in enumerate(network.hidden):
        layer.bias.assign_add(tf.ones_like(layer.bias) * 0.1 * (index + 1))
    x = np.random.default_rng(0).normal(size=[3, 2, 7, 4])
    found = network(tf.constant(x, tf.float32))
    for r in range(2):
        expected = plain_mlp(network, x[:, r], r, activation)
        np.testing.assert_allclose(found[:, r], expected, atol=1e-5)  # float32


def test_the_layers_of_a_network_differ_and_the_last_is_scaled():
    seeds = replica_seeds([0], "test")
    network = MLP(5, (5, 5), 5, seeds=seeds, output_scale=0.1, name="network")
    kernels = [layer.kernel.numpy().ravel() for layer in (*network.hidden, network.output)]
    limit = np.sqrt(6 / 10)
    assert [np.abs(k).max() > 0.5 * limit for k in kernels] == [True, True, False]
    assert np.abs(kernels[2]).max() <= 0.1 * limit
    # Five times five independent numbers: correlations within four errors.
    assert np.abs(np.corrcoef(kernels) - np.eye(3)).max() < 4 / 5
    full = MLP(5, (5, 5), 5, seeds=seeds, name="network")
    np.testing.assert_allclose(0.1 * full.output.kernel, network.output.kernel, atol=1e-7)


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="Unknown activation 'sine'. Known: relu, elu, tanh"):
        MLP(4, 6, 2, seeds=replica_seeds([0], "test"), activation="sine", name="network")


@pytest.mark.parametrize("num_rows", [networks.MANY_ROWS, networks.MANY_ROWS + 1, 40])
@pytest.mark.parametrize("leading", [(), (5,), (2, 3)])
def test_many_rows_are_multiplied_like_few(num_rows, leading, monkeypatch):
    rng = np.random.default_rng(0)
    inputs, kernels = rng.normal(size=[*leading, num_rows, 7, 3]), rng.normal(size=[num_rows, 3, 4])
    expected = np.einsum("...rbi,rio->...rbo", inputs, kernels)
    x, k = tf.constant(inputs, tf.float32), tf.constant(kernels, tf.float32)
    found = networks.linear(x, k)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(networks, "MANY_ROWS", 1000)
    np.testing.assert_allclose(networks.linear(x, k), found, rtol=1e-5, atol=1e-5)


def test_many_rows_with_a_batch_of_unknown_size():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=[2, 12, 5, 3]).astype(np.float32)
    kernels = tf.constant(rng.normal(size=[12, 3, 4]), tf.float32)
    signature = [tf.TensorSpec([None, 12, None, 3])]
    product = tf.function(lambda x: networks.linear(x, kernels), input_signature=signature)
    expected = np.einsum("srbi,rio->srbo", inputs, kernels)
    np.testing.assert_allclose(product(tf.constant(inputs)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("emission", ["student_t", "bernoulli"])
def test_a_replica_alone_computes_what_it_did_among_others(emission):
    sizes = {"observation_size": 3, "latent_size": 2, "hidden_size": 8, "control_size": 1}
    model = StateSpace(**sizes, emission=emission, seeds=replica_seeds([0, 1, 2], "model"))
    q = LookAheadNetwork(**sizes, conditions=FULL, seeds=replica_seeds([0, 1, 2], "q"))
    x = tf.random.stateless_normal([5, 3, 4, 3], [0, 0])
    noise = tf.random.stateless_normal([5, 3, 4, 2], [0, 1])
    controls = tf.random.stateless_normal([5, 3, 4, 1], [0, 2])
    together = elbo_terms(model, q, Batch(x, controls), noise)
    one = Batch(x[:, 1:2], controls[:, 1:2])
    alone = elbo_terms(replica(model, 1), replica(q, 1), one, noise[:, 1:2])
    for part, whole in zip(alone, together, strict=True):
        np.testing.assert_allclose(part[:, 0], whole[:, 1], rtol=1e-5, atol=1e-5)
    # Values of its own, and the same ones to train.
    assert len(replica(q, 1).trainable_variables) == len(q.trainable_variables)
    kept = q.trainable_variables[0].numpy()
    replica(q, 1).trainable_variables[0].assign_add(tf.ones([1, *kept.shape[1:]]))
    np.testing.assert_array_equal(q.trainable_variables[0], kept)
