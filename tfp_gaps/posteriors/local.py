"""Variational inference without a network: the best member of a family for each datum alone.

    q*_x = argmax_{q in Q} L[q](x)

by stochastic gradients (Adam) on numbers that belong to one datum only. The search starts where it
is told to, usually at the encoder's output, so that the amortisation gap L[q*_x] - L[q_phi](x) is
not negative but for noise. Data are independent of each other: what a batch shares is the moment at
which its learning rate falls, and at which it ends.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks
from tfp_gaps._tensorflow import compiles, tf, tfk
from tfp_gaps.networks import replica_normal, replica_seeds
from tfp_gaps.posteriors import families


@dataclass(frozen=True)
class Search:
    """How a search for the best q goes, and when it ends.

    learning_rates: Adam's rates for the outputs, one after another. Weights of flows take a tenth.
    check_every: steps between two looks at the batch's mean ELBO (over these steps).
    patience: a rate ends after so many looks without a gain of `tolerance`.
    max_steps: per rate.
    num_samples: draws per step and datum.
    tolerance: nats.
    batch_size: data at once.
    """

    learning_rates: tuple[float, ...] = (1e-2, 1e-3)
    check_every: int = 50
    patience: int = 3
    max_steps: int = 2000
    num_samples: int = 32
    tolerance: float = 1e-3
    batch_size: int = 100

    def __post_init__(self):
        if not self.learning_rates:
            raise ValueError(
                "learning_rates must hold at least one rate, but is empty. Without one the search "
                "would return its start."
            )
        for rate in self.learning_rates:
            _checks.positive_float(rate, "learning rate")
        for name in ("check_every", "patience", "max_steps", "num_samples", "batch_size"):
            _checks.integer(getattr(self, name), name, minimum=1)
        _checks.finite_array(self.tolerance, "tolerance", ndim=0)


class SearchResult(NamedTuple):
    """What a search found.

    parameters: `families.Parameters`, one q per datum.
    steps: int [batches], steps until the rule ended the search.
    trace: list of float [looks, replicas], mean ELBO of each batch at its looks, nats per datum;
      without the data that diverged in these steps, NaN if none is left.
    diverged: bool [replicas, data]: a step without a finite gradient, which was not taken.
    looks: list of float [looks, replicas, data], what the trace is the mean of; NaN for a datum
      that diverged in these steps.
    """

    parameters: families.Parameters
    steps: np.ndarray
    trace: list
    diverged: np.ndarray
    looks: list


def optimise(model, family, start, observations, search, *, seed, jit_compile=None):
    """Maximise the ELBO of each datum over its own q.

    Args:
      model: `models.vae.VAE`, held fixed.
      family: of `posteriors.families`.
      start: `families.Parameters` of all data; shared weights are copied for each datum.
      observations: [replicas or 1, data, pixels].
      search: `Search`.
      seed: int, of the draws.
      jit_compile: compile a step with XLA; None where there is a GPU.

    Returns:
      `SearchResult`.

    Raises:
      ValueError: for NaN observations or shapes that do not fit.
    """
    observations = families.check_observations(observations, model, start)
    replicas, count = start.outputs.shape[:2]
    observations = tf.broadcast_to(observations, [replicas, count, observations.shape[-1]])
    batch, parts = None, []
    for first in range(0, count, search.batch_size):
        own = start.select(first, first + search.batch_size).own()
        part = observations[:, first : first + search.batch_size]
        if batch is None or batch.size != part.shape[1]:
            batch = _Batch(model, family, own, part, search, jit_compile)
        batch.reset(own, part)
        parts.append(batch.run(replica_seeds([seed] * replicas, "local search", first)))
    found, steps, looks, diverged = zip(*parts, strict=True)
    return SearchResult(
        families.Parameters(
            tf.concat([p.outputs for p in found], 1),
            [tf.concat(w, 1) for w in zip(*(p.weights for p in found), strict=True)],
            True,
        ),
        np.asarray(steps),
        [np.stack([_mean_of_numbers(look) for look in batch]) for batch in looks],
        np.concatenate(diverged, axis=1),
        list(looks),
    )


class _Batch:
    """The variables of one batch of data and the step that moves them."""

    def __init__(self, model, family, own, part, search, jit_compile):
        self.size, self._search = part.shape[1], search
        self._outputs = tf.Variable(own.outputs)
        self._weights = [tf.Variable(weight) for weight in own.weights]
        self._part = tf.Variable(part)
        self._bad = tf.Variable(tf.zeros(part.shape[:2], tf.bool))
        self._optimizers = [tfk.optimizers.Adam(1e-2), tfk.optimizers.Adam(1e-3)]
        self._optimizers[0].build([self._outputs])
        self._optimizers[1].build(self._weights)
        self._advance = self._build(model, family, jit_compile)

    def reset(self, own, part):
        """Start anew from the given parameters."""
        self._part.assign(part)
        self._bad.assign(tf.zeros_like(self._bad))
        for variable, value in zip(self._variables(), [own.outputs, *own.weights], strict=True):
            variable.assign(value)
        for optimizer in self._optimizers:
            for variable in optimizer.variables:
                if variable.name.split("/")[-1].split(":")[0] != "learning_rate":
                    variable.assign(tf.zeros_like(variable))

    def _variables(self):
        return [self._outputs, *self._weights]

    def _build(self, model, family, jit_compile):
        replicas, size = self._part.shape[:2]
        shape = [self._search.num_samples, size, family.num_noise]

        @tf.function(jit_compile=compiles(jit_compile))
        def gradients(seeds):
            noise = tf.transpose(replica_normal(shape, seeds), [1, 0, 2, 3])
            variables = self._variables()
            with tf.GradientTape() as tape:
                own = families.Parameters(self._outputs, list(self._weights), True)
                elbo = tf.reduce_mean(
                    families.log_weights(model, family, own, self._part, noise), 0
                )
                total = -tf.reduce_sum(elbo)
            found = tape.gradient(total, variables, unconnected_gradients="zero")
            finite = tf.math.is_finite(elbo)
            for gradient in found:
                axes = list(range(2, gradient.shape.rank))
                finite &= tf.reduce_all(tf.math.is_finite(gradient), axes)
            return elbo, finite, [_keep(gradient, finite) for gradient in found]

        @tf.function
        def advance(seeds, first, num_steps):
            total = tf.zeros([replicas, size])
            for step in tf.range(first, first + num_steps):
                row = [tf.random.fold_in(seed, step) for seed in tf.unstack(seeds)]
                elbo, finite, found = gradients(tf.stack(row))
                self._bad.assign(self._bad | ~finite)
                total += tf.where(finite, elbo, float("nan"))
                self._optimizers[0].apply_gradients([(found[0], self._outputs)])
                if self._weights:
                    pairs = zip(found[1:], self._weights, strict=True)
                    self._optimizers[1].apply_gradients(list(pairs))
            return total / tf.cast(num_steps, tf.float32)

        return advance

    def run(self, seeds):
        """Search until the rule ends it: parameters, steps, looks, diverged."""
        search, step, looks = self._search, 0, []
        for rate in search.learning_rates:
            for optimizer, factor in zip(self._optimizers, (1.0, 0.1), strict=True):
                optimizer.learning_rate = rate * factor
            best, waited, taken = -np.inf, 0, 0
            while taken < search.max_steps and waited < search.patience:
                count = min(search.check_every, search.max_steps - taken)
                means = self._advance(seeds, tf.constant(step), tf.constant(count))
                step, taken = step + count, taken + count
                looks.append(means.numpy())
                # Over replicas alike: one that diverged does not end the search of the others.
                mean = _mean_of_numbers(_mean_of_numbers(looks[-1])[np.newaxis])[0]
                gained = mean > best + search.tolerance
                best, waited = max(best, mean), 0 if gained else waited + 1
        own = families.Parameters(
            tf.identity(self._outputs), [tf.identity(w) for w in self._weights], True
        )
        return own, step, np.asarray(looks), self._bad.numpy()


def _mean_of_numbers(values):
    """Mean over the last axis without what diverged; NaN where nothing is left."""
    count = np.isfinite(values).sum(1)
    total = np.where(np.isfinite(values), values, 0.0).sum(1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _keep(gradient, finite):
    """Zero the gradient of the data whose step is not finite."""
    shape = tf.concat([tf.shape(finite), tf.ones([gradient.shape.rank - 2], tf.int32)], 0)
    return tf.where(tf.reshape(finite, shape), gradient, tf.zeros_like(gradient))
