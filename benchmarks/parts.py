"""Where the time of this package's training step goes: its parts, each timed alone.

Every part is compiled and cut into shards as in `training.build_step`. The parts that end in
"alone" hold nothing but matrix products, of the shapes and in the order that the recurrence and
the path need: a recurrence waits for each product before it can start the next. What they reach is
the rate that this machine gives to such products, and no arrangement of the same step beats it.

What was tried on the recurrences, in CPU seconds of one thread relative to `networks.gru_scan`,
medians of 12 rounds in turn, on a loaded machine; where two are given, of two runs:

    |                                                      | large    | small    |
    |------------------------------------------------------|----------|----------|
    | the products alone                                   | .58, .61 | .57, .63 |
    | `gru_scan` once more: what differs by chance         | 1.0, 1.0 | .99, 1.0 |
    | gradients of the inputs put together after the loop  | .95, .97 | .92, .91 |
    | and the states before each step not stored twice     | .97      | .91      |
    | kernel transposed before the backward loop           | .99      | .99      |
    | a product for each gate in the backward loop         | .99      | 1.03     |
    | `tf.while_loop` that carries the state alone forward | 1.19     | 1.28     |
    | and backward                                         | 1.38     | 1.55     |

The third row is worth less than 5 % of a step, and its sums come in another order.
"""

from typing import NamedTuple

from benchmarks.sizes import CLIP_NORM, LEARNING_RATE
from tfp_gaps._tensorflow import tf, tfk
from tfp_gaps.models.state_space import StateSpace, log_likelihood
from tfp_gaps.networks import gru_scan, replica_normal, replica_seeds
from tfp_gaps.posteriors.conditions import FULL
from tfp_gaps.posteriors.look_ahead import LookAheadNetwork
from tfp_gaps.training import clip_by_replica_norm


class Part(NamedTuple):
    """A piece of the step. run: callable, waits for the result; flops: of its products."""

    run: object
    flops: float


class _Shapes:
    """Sizes of one shard, and stateless random tensors of given shapes."""

    def __init__(self, size, num_shards):
        self.size, self.num_shards = size, num_shards
        self.time, self.seeds = size.num_timesteps, size.num_seeds
        self.batch = size.batch_size // num_shards
        self.rows = self.time * self.seeds * size.batch_size

    def normal(self, *shape):
        return 0.1 * tf.random.stateless_normal(shape, [len(shape), shape[-1]])


def build(size, num_shards):
    """Compile the parts of a step that is cut into `num_shards`: {name: `Part`}."""
    shapes = _Shapes(size, num_shards)
    seeds = replica_seeds(range(size.num_seeds), "parts")
    widths = {
        "observation_size": size.observation_size,
        "latent_size": size.latent_size,
        "hidden_size": size.hidden_size,
        "seeds": seeds,
    }
    model = StateSpace(**widths, emission=size.emission)
    network = LookAheadNetwork(**widths, conditions=FULL)
    x, z, h = size.observation_size, size.latent_size, size.hidden_size
    weights = {
        "recurrences": 2 * h * 3 * h,
        "path": z * h + h * 2 * z + z * h + h * 3 * z,
        "layers": 2 * x * 3 * h + 2 * h * h + z * h + h * x,
    }
    flops = {name: 6.0 * number * shapes.rows for name, number in weights.items()}
    return {
        "recurrences: products alone": Part(
            _sharded(_recurrent_products(shapes), num_shards), flops["recurrences"]
        ),
        "recurrences": Part(_sharded(_recurrences(shapes), num_shards), flops["recurrences"]),
        "path of z: products alone": Part(
            _sharded(_path_products(shapes), num_shards), flops["path"]
        ),
        "path of z": Part(_sharded(_path(shapes, model, network), num_shards), flops["path"]),
        "layers outside the loops": Part(
            _sharded(_layers(shapes, model, network), num_shards), flops["layers"]
        ),
        "noise": Part(_sharded(_noise(shapes, seeds), num_shards), 0.0),
        "clipping and Adam": Part(_update(model, network), 0.0),
    }


def _sharded(part, num_shards):
    """Run a part once for every shard, side by side, and wait."""
    compiled = tf.function(part, jit_compile=True)

    @tf.function
    def run():
        return tf.add_n([compiled(tf.constant(1.0 + 1e-3 * i)) for i in range(num_shards)])

    return lambda: run().numpy()


def _summed_gradients(value, sources):
    """Differentiate the sum of `value()`, and reduce all gradients to one number to wait for."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(sources)
        total = tf.reduce_sum(value())
    gradients = tape.gradient(total, sources, unconnected_gradients="zero")
    return total + tf.add_n([tf.reduce_sum(gradient) for gradient in gradients])


def _recurrent_products(shapes):
    rows, width = 2 * shapes.seeds, shapes.size.hidden_size
    kernel = shapes.normal(rows, width, 3 * width)
    states = shapes.normal(shapes.time, rows, shapes.batch, width)
    wide = shapes.normal(shapes.time, rows, shapes.batch, 3 * width)

    def forward(state, _):
        return tf.matmul(state, kernel)[..., :width]

    def backward(state, gates):
        return tf.matmul(gates + tf.tile(state, [1, 1, 3]), kernel, transpose_b=True)

    def part(scale):
        ahead = tf.foldl(forward, wide, scale * states[0])
        back = tf.foldl(backward, wide, scale * states[0])
        product = tf.einsum("trbi,trbo->rio", scale * states, wide)
        return tf.reduce_sum(ahead) + tf.reduce_sum(back) + tf.reduce_sum(product)

    return part


def _recurrences(shapes):
    rows, width = 2 * shapes.seeds, shapes.size.hidden_size
    kernel = shapes.normal(rows, width, 3 * width)
    bias = shapes.normal(rows, 1, 3 * width)
    inputs = shapes.normal(shapes.time, rows, shapes.batch, 3 * width)
    keep = tf.ones([shapes.time, rows, 1, 1])

    def part(scale):
        scaled = scale * inputs
        return _summed_gradients(
            lambda: gru_scan(scaled, kernel, bias, keep), [scaled, kernel, bias]
        )

    return part


def _path_products(shapes):
    seeds, width, latent = shapes.seeds, shapes.size.hidden_size, shapes.size.latent_size
    # Posterior and prior read z in one product here, and write in one each.
    read = shapes.normal(seeds, latent, 2 * width)
    write = [shapes.normal(seeds, width, n * latent) for n in (2, 3)]
    steps = tf.zeros([shapes.time])
    hidden = shapes.normal(shapes.time * shapes.batch, seeds, 2 * width)
    narrow = shapes.normal(shapes.time * shapes.batch, seeds, 5 * latent)
    latents = shapes.normal(shapes.time * shapes.batch, seeds, latent)

    def forward(state, _):
        inner = tf.matmul(state, read)
        first = tf.matmul(inner[..., :width], write[0])
        return first[..., :latent] + tf.matmul(inner[..., width:], write[1])[..., :latent]

    def backward(state, _):
        sides = [
            tf.matmul(tf.tile(state, [1, 1, n]), matrix, transpose_b=True)
            for n, matrix in zip((2, 3), write, strict=True)
        ]
        return tf.matmul(tf.concat(sides, -1), read, transpose_b=True)

    def part(scale):
        start = scale * shapes.normal(seeds, shapes.batch, latent)
        ahead, back = tf.foldl(forward, steps, start), tf.foldl(backward, steps, start)
        products = [
            tf.einsum("nsi,nso->sio", scale * latents, hidden),
            tf.einsum("nsi,nso->sio", hidden[..., :width], narrow[..., : 2 * latent]),
            tf.einsum("nsi,nso->sio", hidden[..., width:], narrow[..., 2 * latent :]),
        ]
        return tf.add_n([tf.reduce_sum(p) for p in (ahead, back, *products)])

    return part


def _path(shapes, model, network):
    size, leading = shapes.size, (shapes.time, shapes.seeds, shapes.batch)
    context = shapes.normal(*leading, size.hidden_size)
    noise = shapes.normal(*leading, size.latent_size)
    variables = [*model.trainable_variables, *network.trainable_variables]

    def part(scale):
        scaled = scale * context

        def value():
            path = network.sample_path(model, scaled, noise)
            return tf.reduce_sum(path.divergence) + tf.reduce_sum(path.latents)

        return _summed_gradients(value, [scaled, *variables])

    return part


def _layers(shapes, model, network):
    """Input and join layers of the network, and the emission with its log-likelihood."""
    size, leading = shapes.size, (shapes.time, shapes.seeds, shapes.batch)
    observed = tf.cast(shapes.normal(*leading, size.observation_size) > 0, tf.float32)
    latents = shapes.normal(*leading, size.latent_size)
    states = shapes.normal(*leading, 2 * size.hidden_size)
    variables = [*model.trainable_variables, *network.trainable_variables]

    def part(scale):
        scaled, joined = scale * latents, scale * states

        def value():
            outputs = [read(observed) for read in network._read] + [network._join(joined)]
            fit = tf.reduce_sum(log_likelihood(model, scaled, observed, None))
            return fit + tf.add_n([tf.reduce_sum(output) for output in outputs])

        return _summed_gradients(value, [scaled, joined, *variables])

    return part


def _noise(shapes, seeds):
    shape = [shapes.time, shapes.batch, shapes.size.latent_size]
    return lambda scale: scale * tf.reduce_sum(replica_normal(shape, seeds))


def _update(model, network):
    variables = [*model.trainable_variables, *network.trainable_variables]
    gradients = [tf.ones_like(variable) for variable in variables]
    optimizer = tfk.optimizers.Adam(LEARNING_RATE)
    optimizer.build(variables)

    @tf.function
    def run():
        clipped, is_finite = clip_by_replica_norm(gradients, CLIP_NORM)
        pairs = zip(clipped, variables, strict=True)
        optimizer.apply_gradients(pairs, skip_gradients_aggregation=True)
        return is_finite

    return lambda: run().numpy()
