"""The package's own training step, behind the interface that all workers share.

The one place that knows how model, network and step of this package are put together.
"""

import numpy as np

from benchmarks import parts
from benchmarks.sizes import CLIP_NORM, LEARNING_RATE, observations
from tfp_gaps._tensorflow import tf, tfk
from tfp_gaps.bounds import elbo_terms
from tfp_gaps.models.state_space import StateSpace
from tfp_gaps.networks import replica_seeds
from tfp_gaps.posteriors.conditions import LookAhead
from tfp_gaps.posteriors.look_ahead import LookAheadNetwork
from tfp_gaps.sequences import Batch
from tfp_gaps.sequential.fitting import negative_elbo
from tfp_gaps.training import Settings, build_step

VARIANTS = {"XLA": {}, "no XLA": {"jit_compile": False}, "one shard": {"num_shards": 1}}


class Trainer:
    """Model, network and compiled step at one size."""

    def __init__(self, size, variant, initial=None):
        del initial  # the others start from what this one exports
        self.size = size
        self.seeds = list(range(size.num_seeds))
        widths = {
            "observation_size": size.observation_size,
            "latent_size": size.latent_size,
            "hidden_size": size.hidden_size,
        }
        self.model = StateSpace(
            **widths, emission=size.emission, seeds=replica_seeds(self.seeds, "model")
        )
        self.network = LookAheadNetwork(
            **widths,
            conditions=LookAhead.of(size.lookahead),
            seeds=replica_seeds(self.seeds, "network"),
        )
        self.variables = [*self.model.trainable_variables, *self.network.trainable_variables]
        self.initial = [variable.numpy() for variable in self.variables]
        self.parameters = self._export()
        x = observations(size).transpose(1, 0, 2)
        self.data = Batch(tf.constant(np.ascontiguousarray(x)))
        one_step = self._step(negative_elbo(self.model, self.network), **VARIANTS[variant])

        @tf.function
        def train(indices):
            losses = tf.zeros([size.num_seeds])
            for i in tf.range(tf.shape(indices)[0]):
                losses, _ = one_step(indices[i], i)
            return losses

        self._train = train

    def _step(self, loss, **options):
        settings = Settings(
            num_steps=1, batch_size=self.size.batch_size, clip_norm=CLIP_NORM, **options
        )
        optimizer = tfk.optimizers.Adam(LEARNING_RATE)
        optimizer.build(self.variables)
        return build_step(loss, self.variables, self.data, optimizer, settings, self.seeds, axis=1)

    def train(self, indices):
        """Take one step for each row of `indices` and wait; return the last losses, [seeds]."""
        return self._train(tf.constant(indices)).numpy()

    def losses_with(self, indices, noise):
        """Return the losses before and after one step with given noise, [2, seeds]."""

        def loss(batch, seeds, kl_weight):
            del seeds
            floats = batch.map(lambda part: tf.cast(part, tf.float32))
            draws = tf.transpose(tf.constant(noise), [1, 0, 2, 3])
            log_likelihood, divergence = elbo_terms(self.model, self.network, floats, draws)
            return tf.reduce_mean(tf.reduce_sum(kl_weight * divergence - log_likelihood, 0), -1)

        trained = [variable.numpy() for variable in self.variables]
        self._assign(self.initial)
        # One shard: the given noise is that of the whole batch.
        step = self._step(loss, num_shards=1)
        losses = [step(tf.constant(indices), tf.constant(i))[0].numpy() for i in (0, 1)]
        self._assign(trained)
        return np.stack(losses)

    def _assign(self, values):
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)

    def _export(self):
        """Return the initial parameters by the names that the peers know, seeds first."""
        model, network = self.model, self.network
        arrays = {
            "initial_mean": model._initial_mean[:, 0],
            "initial_raw": model._initial_raw[:, 0],
            **_dense("transition/hidden", model._transition.hidden[0]),
            **_dense("transition/output", model._transition.output),
            **_dense("emission/hidden", model._emission.hidden[0]),
            **_dense("emission/output", model._emission.output),
            **_dense("join", network._join),
            **_dense("output", network._output),
            "latent/kernel": network._latent.kernel,
        }
        if model.emission_family == "normal":
            arrays["noise_raw"] = model._noise_raw[:, 0]
        for i, direction in enumerate(("forward", "backward")):
            arrays |= _dense(f"{direction}/read", network._read[i])
            arrays[f"{direction}/recurrent/kernel"] = network._recurrent_kernel[:, i]
            arrays[f"{direction}/recurrent/bias"] = network._recurrent_bias[:, i, 0]
        return {name: array.numpy() for name, array in arrays.items()}


def _dense(name, layer):
    return {f"{name}/kernel": layer.kernel, f"{name}/bias": layer.bias[:, 0]}


def build_parts(size):
    """Return the parts of a step at the shards that training takes by default; see `parts`."""
    return parts.build(size, Settings(num_steps=1, batch_size=size.batch_size).num_shards)


def build_matmul(width):
    """Return a function that multiplies two square float32 matrices and waits."""
    a = tf.random.stateless_normal([width, width], [0, 1])
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(a, a)))
    return lambda: product().numpy()
