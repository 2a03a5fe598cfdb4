"""Inference networks trained on two sensors, of which they see one, and measured exactly.

Where does a trained network land? On N(alpha c, S), says the closed form: with the variance of the
full posterior it never sees the condition for, and not on the filter N(alpha c, S_F). Trained on
samples of the posterior instead of the ELBO (the forward divergence), the same network becomes the
filter. The gap of a trained network is an integral over c that is done by quadrature, so that what
training left over is not drowned in Monte Carlo noise.
"""

import itertools
from typing import NamedTuple

import numpy as np
from scipy import stats

from tfp_gaps import _checks, networks, training
from tfp_gaps._tensorflow import tf
from tfp_gaps.estimate import Estimate

CONDITIONS = ("partial", "full")
OBJECTIVES = ("elbo", "forward")


class Network(tf.Module):
    """q(z | conditions) = N(mean, exp(log_variance)), a chain of tanh layers per replica.

    Args:
        hidden: sizes of the hidden layers, e.g. (16,); () is an affine map.
        conditions: "partial" (c) or "full" (c and c').
        seeds: one int per replica.
    """

    def __init__(self, hidden, conditions, seeds):
        super().__init__(name="q")
        self.conditions = _checks.one_of(conditions, "conditions", CONDITIONS)
        sizes = [1 if conditions == "partial" else 2, *hidden, 2]
        # A small last layer starts near q = N(0, 1); a log variance that is steep in c at the start
        # costs the first thousand steps.
        scales = [1.0] * len(hidden) + [0.1]
        self.layers = [
            networks.Dense(
                num_inputs,
                num_outputs,
                seeds=networks.replica_seeds(seeds, "initial", index),
                scale=scales[index],
                name=f"layer_{index}",
            )
            for index, (num_inputs, num_outputs) in enumerate(itertools.pairwise(sizes))
        ]

    @property
    def num_parameters(self):
        """Number of parameters of one replica."""
        return sum(int(np.prod(variable.shape[1:])) for variable in self.trainable_variables)

    def __call__(self, seen, unseen):
        """Mean and log variance, [replicas, batch], for readings of that shape.

        A partial network takes `unseen` and drops it: it cannot know what it is not shown.
        """
        kept = [seen] if self.conditions == "partial" else [seen, unseen]
        activations = tf.stack(kept, axis=-1)
        for layer in self.layers[:-1]:
            activations = tf.tanh(layer(activations))
        mean, log_variance = tf.unstack(self.layers[-1](activations), axis=-1)
        return mean, log_variance

    def moments(self, seen, unseen):
        """Mean and variance for readings of shape [batch]: float64 arrays [replicas, batch]."""
        num_replicas = self.layers[0].kernel.shape[0]
        rows = [
            tf.constant(np.tile(np.asarray(reading, np.float32), (num_replicas, 1)))
            for reading in (seen, unseen)
        ]
        mean, log_variance = self(*rows)
        return mean.numpy().astype(np.float64), np.exp(log_variance.numpy().astype(np.float64))


class Measured(NamedTuple):
    """What trained networks learned; each an `Estimate` over seeds, population averages.

    gap: E KL(q || full posterior), nats per datum, by quadrature over c.
    slope: regression coefficient of the network's mean on c; the closed form is alpha.
    variance: average variance of q; the closed form of the ELBO is S, of the filter S_F.
    held_out_gap: as `gap`, from fresh data; its error is over data points.
    coverage: share of fresh data whose z falls in the central 90 % interval of q; likewise.
    """

    gap: Estimate
    slope: Estimate
    variance: Estimate
    held_out_gap: Estimate
    coverage: Estimate


def train(
    world,
    *,
    hidden=(16,),
    conditions="partial",
    objective="elbo",
    num_data=100_000,
    num_steps=2000,
    batch_size=512,
    seeds=(0, 1, 2, 3),
):
    """Train one network per seed on data of the world.

    elbo: maximise E[ ln p(z, c, c') + entropy of q ], z = mean + sd * noise;
    forward: maximise E ln q(z | conditions), z drawn with the data: the distilled filter.

    Args:
        world: a `TwoSensors`.
        hidden: sizes of the hidden layers.
        conditions: "partial" or "full".
        objective: "elbo" or "forward".
        num_data: size of the training set, drawn from the world once per seed.
        num_steps, batch_size: of Adam, with a learning rate that falls from 0.01 along a cosine.
        seeds: one int per replica; each draws its own data, start, batches and noise.

    Returns:
        The trained `Network`.

    Raises:
        ValueError: if an option is unknown, a number is out of range, or training diverged.
    """
    _checks.one_of(objective, "objective", OBJECTIVES)
    network = Network(hidden, conditions, seeds)
    draws = [np.stack(world.sample(num_data, seed=seed), axis=-1) for seed in seeds]
    data = np.stack(draws, axis=1).astype(np.float32)
    settings = training.Settings(
        num_steps,
        min(batch_size, num_data),
        learning_rate=1e-2,
        clip_norm=100.0,
        steps_per_call=100,
        jit_compile=False,  # nothing recurs: compiling gains no time here and costs memory
    )

    def loss(batch, noise_seeds, kl_weight):
        del kl_weight  # no warm-up: the problem has one optimum
        # The batch holds the data of all seeds, [replica, batch, seed, 3]: each keeps its own.
        own = [batch[replica, :, replica] for replica in range(len(seeds))]
        z, seen, unseen = tf.unstack(tf.stack(own), axis=-1)
        mean, log_variance = network(seen, unseen)
        if objective == "forward":
            return 0.5 * tf.reduce_mean(log_variance + (z - mean) ** 2 / tf.exp(log_variance), -1)
        noise = networks.replica_normal(batch.shape[1:2], noise_seeds)
        z = mean + tf.exp(0.5 * log_variance) * noise
        energy = z**2 + ((seen - z) / world.noise_seen) ** 2
        energy += ((unseen - z) / world.noise_unseen) ** 2
        return 0.5 * tf.reduce_mean(energy - log_variance, -1)

    history = training.fit(loss, list(network.trainable_variables), data, settings, seeds=seeds)
    if np.any(history.diverged):
        raise ValueError(
            f"Training diverged for {int(np.sum(history.diverged))} of {len(seeds)} seeds at "
            f"noise ({world.noise_seen:g}, {world.noise_unseen:g}), where gradients are largest. "
            "Use a larger noise or more steps."
        )
    return network


def measure(world, network, *, num_held_out=20_000, seed=1_000_003):
    """Measure trained networks against the world's closed forms.

    Args:
        world: the `TwoSensors` that the network was trained on.
        network: a trained `Network` with at least two replicas.
        num_held_out: fresh data for `held_out_gap` and `coverage`.
        seed: of these data.

    Returns:
        `Measured`.
    """
    seen, unseen, weights = _population(world)
    mean, variance = network.moments(seen, unseen)
    kl = world.kl_to_full_posterior(seen, unseen, mean, variance)
    slope = (mean * seen) @ weights / (1 + world.noise_seen**2)
    z, seen, unseen = world.sample(num_held_out, seed)
    mean_held_out, variance_held_out = network.moments(seen, unseen)
    held_out = world.kl_to_full_posterior(seen, unseen, mean_held_out, variance_held_out)
    inside = np.abs(z - mean_held_out) < stats.norm.ppf(0.95) * np.sqrt(variance_held_out)
    return Measured(
        gap=Estimate.from_samples(kl @ weights, kind="seeds"),
        slope=Estimate.from_samples(slope, kind="seeds"),
        variance=Estimate.from_samples(variance @ weights, kind="seeds"),
        held_out_gap=Estimate.from_samples(held_out.mean(axis=0), kind="data points"),
        coverage=Estimate.from_samples(inside.mean(axis=0), kind="data points"),
    )


def _population(world, order=48):
    """Gauss-Hermite nodes of the joint law of (c, c') and their weights, shape [order^2] each."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(order)
    weights = weights / weights.sum()
    first, second = (grid.ravel() for grid in np.meshgrid(nodes, nodes, indexing="ij"))
    seen = np.sqrt(1 + world.noise_seen**2) * first
    # c' given c: the filter's mean, and its variance plus the noise of the unseen sensor.
    spread = np.sqrt(world.filter_variance() + world.noise_unseen**2)
    unseen = world.filter().slope * seen + spread * second
    return seen, unseen, np.outer(weights, weights).ravel()
