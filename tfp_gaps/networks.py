"""Dense and recurrent layers that train several replicas of a network in one step.

A replica is one training run (usually: one seed). Every parameter carries a leading axis of length
`num_replicas`, every activation an axis of that length before its batch axis, so that replica r
sees its own weights, data and noise and the gradients never mix. Small sequential models are bound
by the overhead of each operation, not by arithmetic: replicas make error bars over seeds cheap.

The recurrence is the gated recurrent unit of Cho et al. (2014) in the form that cuDNN computes,

    r, u = sigmoid(x W_ru + h U_ru + b),   n = tanh(x W_n + r * (h U_n + c)),
    h' = u h + (1 - u) n.
"""

import copy
import math
import zlib
from typing import NamedTuple

from tfp_gaps import _checks
from tfp_gaps._tensorflow import tf

MANY_ROWS = 8
"""Above so many replicas, products are batched rather than written out one by one."""

ACTIVATIONS = {"relu": tf.nn.relu, "elu": tf.nn.elu, "tanh": tf.tanh}


def replica(module, index):
    """Replica `index` of a module alone, with values of its own.

    Args:
      module: `tf.Module` whose variables have the replica axis first; None stays None.
      index: of the replica.

    Returns:
      A copy with one replica; what was no variable is shared.

    >>> layer = Dense(2, 3, seeds=replica_seeds([0, 1], "layer"), name="layer")
    >>> alone = replica(layer, 1)
    >>> alone.kernel.shape.as_list(), bool(tf.reduce_all(alone.kernel[0] == layer.kernel[1]))
    ([1, 2, 3], True)
    """

    def alone(value):
        if isinstance(value, tf.Variable):
            return tf.Variable(value[index : index + 1], name=value.name.split(":")[0])
        if isinstance(value, tf.Module):
            return replica(value, index)
        return [alone(part) for part in value] if isinstance(value, list) else value

    if module is None:
        return None
    one = copy.copy(module)
    for name, value in list(vars(module).items()):
        if not name.startswith("_self_"):  # TensorFlow's own bookkeeping
            setattr(one, name, alone(value))
    if hasattr(one, "num_replicas"):
        one.num_replicas = 1
    return one


def replica_seeds(seeds, purpose, index=0):
    """Stateless seeds for one use of randomness, one per replica.

    Replica r's seed depends on `seeds[r]`, the purpose and the index alone, so a run that trains
    several replicas draws for each what a run of that replica alone would draw.

    Args:
      seeds: sequence of non-negative ints, one per replica.
      purpose: str, what the randomness is for ("initial", "noise", ...).
      index: int or scalar int tensor, e.g. the training step.

    Returns:
      int32 [num_replicas, 2].
    """
    stream = zlib.crc32(purpose.encode()) & 0x7FFFFFFF
    return tf.stack(
        [tf.random.fold_in(tf.constant([seed, stream], tf.int32), index) for seed in seeds]
    )


def split_seeds(seeds, num):
    """Split stateless seeds [num_replicas, 2] into `num` independent arrays of the same shape."""
    return [
        tf.stack([tf.random.fold_in(seed, i) for seed in tf.unstack(seeds)]) for i in range(num)
    ]


def replica_normal(shape, seeds, axis=0):
    """Standard normal noise [num_replicas, *shape]; row r is drawn from seeds[r] alone.

    `axis` is where the replicas stand: 1 for noise [time, num_replicas, ...].
    """
    # The generator is named, because the default differs between devices and compilers. Of its
    # bits XLA makes other normal numbers than TensorFlow: what is compiled is another draw.
    draws = [tf.random.stateless_normal(shape, seed, alg="philox") for seed in tf.unstack(seeds)]
    return tf.stack(draws, axis)


def for_replicas(batch, num_replicas):
    """Show every replica the same.

    Args:
      batch: `Batch` of arrays [time, sequences, channels].

    Returns:
      `Batch` of float32 tensors [time, num_replicas, sequences, channels].
    """

    def repeated(part):
        return tf.repeat(tf.cast(part, tf.float32)[:, tf.newaxis], num_replicas, axis=1)

    return batch.map(repeated)


def linear(inputs, kernel):
    """Multiply [..., num_replicas, batch, in] by [num_replicas, in, out], replica by replica.

    Each replica's product is one over all its leading axes and its batch together. A batched
    product over replicas would first transpose them to the front.
    """
    axis = inputs.shape.rank - 3
    if kernel.shape[0] > MANY_ROWS:
        return _batched_linear(inputs, kernel, axis)
    products = [
        flat_matmul(part, matrix)
        for part, matrix in zip(tf.unstack(inputs, axis=axis), tf.unstack(kernel), strict=True)
    ]
    return tf.stack(products, axis)


def _batched_linear(inputs, kernel, axis):
    """The same for many replicas, as when every datum has a network of its own."""
    order = [axis, *range(axis), axis + 1, axis + 2]
    moved = tf.transpose(inputs, order)
    flat = tf.reshape(moved, [kernel.shape[0], -1, kernel.shape[1]])
    shape = tf.concat([tf.shape(moved)[:-1], [kernel.shape[2]]], 0)
    return tf.transpose(
        tf.reshape(tf.matmul(flat, kernel), shape), [*range(1, axis + 1), 0, axis + 1, axis + 2]
    )


def flat_matmul(inputs, matrix):
    """Multiply [..., in] by [in, out] as one product of two matrices.

    Not by a broadcasting `tf.matmul` or `tf.einsum`: uncompiled on a CPU, products of a rank-4 with
    a rank-2 tensor can come out wrong in TensorFlow 2.18 to 2.21 (a fault of its oneDNN kernels).
    """
    product = tf.matmul(tf.reshape(inputs, [-1, inputs.shape[-1]]), matrix)
    leading = [tf.shape(inputs)[i] if n is None else n for i, n in enumerate(inputs.shape[:-1])]
    return tf.reshape(product, [*leading, matrix.shape[-1]])


class Dense(tf.Module):
    """Affine map with one kernel [in, out] and one bias [out] per replica.

    Args:
      num_inputs, num_outputs: sizes.
      seeds: int32 [num_replicas, 2], stateless seeds of the initial kernels (Glorot uniform).
      scale: factor on the initial kernel. Last layers of residual chains use 0.1: with 1 the
        latent state grows along the chain and the first gradients are of order 1e8.
      bias: initial value of the bias.
      use_bias: leave the bias out where another layer adds one.
    """

    def __init__(self, num_inputs, num_outputs, *, seeds, scale=1.0, bias=0.0, use_bias=True, name):
        super().__init__(name=name)
        limit = scale * math.sqrt(6.0 / (num_inputs + num_outputs))
        draws = [
            tf.random.stateless_uniform([num_inputs, num_outputs], seed, -limit, limit)
            for seed in tf.unstack(seeds)
        ]
        self.kernel = tf.Variable(tf.stack(draws), name="kernel")
        self.bias = None
        if use_bias:
            shape = [len(draws), 1, num_outputs]
            self.bias = tf.Variable(tf.fill(shape, tf.cast(bias, tf.float32)), name="bias")

    def __call__(self, inputs):
        outputs = linear(inputs, self.kernel)
        return outputs if self.bias is None else outputs + self.bias


class MLP(tf.Module):
    """Hidden layers, then an affine one: [..., num_replicas, batch, in] to [..., batch, out].

    Args:
      num_inputs, num_outputs: sizes.
      num_hidden: width of the hidden layer, or a sequence of widths; empty for an affine map.
      seeds: int32 [num_replicas, 2].
      activation: one of `ACTIVATIONS`.
      output_scale: factor on the initial kernel of the last layer.
    """

    def __init__(
        self,
        num_inputs,
        num_hidden,
        num_outputs,
        *,
        seeds,
        activation="relu",
        output_scale=1.0,
        name,
    ):
        super().__init__(name=name)
        self._activation = ACTIVATIONS[_checks.one_of(activation, "activation", ACTIVATIONS)]
        widths = (num_hidden,) if isinstance(num_hidden, int) else tuple(num_hidden)
        *hidden_seeds, output_seeds = split_seeds(seeds, len(widths) + 1)
        sizes = (num_inputs, *widths)
        self.hidden = [
            Dense(size, width, seeds=seed, name="hidden")
            for size, width, seed in zip(sizes[:-1], widths, hidden_seeds, strict=True)
        ]
        self.output = Dense(
            sizes[-1], num_outputs, seeds=output_seeds, scale=output_scale, name="output"
        )

    def __call__(self, inputs):
        for layer in self.hidden:
            inputs = self._activation(layer(inputs))
        return self.output(inputs)


class _Gates(NamedTuple):
    """What the backward pass of the recurrence needs from the forward pass, [time, rows, batch,
    ...]."""

    previous: tf.Tensor
    reset: tf.Tensor
    update: tf.Tensor
    candidate: tf.Tensor
    projected: tf.Tensor


def gru_step(inputs, state, kernel, bias):
    """One step of `gru_scan`, for inputs [rows, batch, 3 * width] and a state [rows, batch,
    width]."""
    return _gru_cell(inputs, state, kernel, bias)[0]


def _gru_cell(x, previous, kernel, bias):
    width = previous.shape[-1]
    hidden = tf.matmul(previous, kernel) + bias
    gates = tf.sigmoid(x[..., : 2 * width] + hidden[..., : 2 * width])
    reset, update = gates[..., :width], gates[..., width:]
    projected = hidden[..., 2 * width :]
    candidate = tf.tanh(x[..., 2 * width :] + reset * projected)
    state = update * previous + (1.0 - update) * candidate
    return state, _Gates(previous, reset, update, candidate, projected)


def _gru_forward(inputs, kernel, bias, keep):
    num_rows, batch, width = inputs.shape[1], tf.shape(inputs)[2], inputs.shape[3] // 3

    def step(carry, time_slice):
        x, keep_now = time_slice
        return _gru_cell(x, keep_now * carry[0], kernel, bias)

    blank = tf.zeros([num_rows, batch, width], inputs.dtype)
    return tf.scan(step, (inputs, keep), initializer=(blank, _Gates(*[blank] * 5)))


def _gru_backward(upstream, gates, kernel, keep):
    """Run the chain rule through time and return d loss / d pre-activations, [time, rows, batch,
    3w]."""

    def step(carry, time_slice):
        (previous, reset, update, candidate, projected), keep_now, outer = time_slice
        d_state = carry[0] + outer
        d_candidate = d_state * (1.0 - update) * (1.0 - candidate**2)
        d_update = d_state * (previous - candidate) * update * (1.0 - update)
        d_reset = d_candidate * projected * reset * (1.0 - reset)
        d_hidden = tf.concat([d_reset, d_update, d_candidate * reset], -1)
        d_previous = d_state * update + tf.matmul(d_hidden, kernel, transpose_b=True)
        return keep_now * d_previous, d_hidden, tf.concat([d_reset, d_update, d_candidate], -1)

    blank = tf.zeros_like(upstream[0])
    wide = tf.concat([blank] * 3, -1)
    return tf.scan(step, (gates, keep, upstream), initializer=(blank, wide, wide), reverse=True)[1:]


@tf.custom_gradient
def gru_scan(inputs, kernel, bias, keep):
    """Run gated recurrent units over the leading time axis.

    The backward loop keeps only the chain through time; the gradients of the kernel and the bias
    are formed after it, by one product over time and batch together. Plain autodiff adds to them in
    every step, which is what bounds its speed.

    Args:
      inputs: [time, rows, batch, 3 * width], the projected inputs x W + b; `rows` are independent
        recurrences (replicas, directions) that run in the same loop.
      kernel: [rows, width, 3 * width], the recurrent kernel U.
      bias: [rows, 1, 3 * width], the recurrent bias.
      keep: [time, rows, 1, 1], 0 where the state is reset before the step, else 1. No gradient.

    Returns:
      states: [time, rows, batch, width].
    """
    states, gates = _gru_forward(inputs, kernel, bias, keep)

    def gradient(upstream):
        d_hidden, d_inputs = _gru_backward(upstream, gates, kernel, keep)
        d_kernel = tf.einsum("trbi,trbo->rio", gates.previous, d_hidden)
        d_bias = tf.reduce_sum(d_hidden, [0, 2])[:, tf.newaxis]
        return d_inputs, d_kernel, d_bias, tf.zeros_like(keep)

    return states, gradient
