"""Inference networks trained on the linear-Gaussian chain, and measured against its closed forms.

Two networks see exactly x_{1:t+k} and are trained by Adam on the Monte Carlo ELBO. The linear one
has a weight for each visible observation at each time step, so that the best q is in its family and
what it lacks is the conditioning gap alone; the recurrent one is the network of the benchmarks,
whose excess over the closed form is its amortisation gap. The gap of a trained network is the mean
of ln p(x) - [ln p(x, z) - ln q(z | x)], z from q, with the exact evidence of each sequence: paired,
so that its error is small.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from tfp_gaps import _checks, bounds, training
from tfp_gaps._tensorflow import tf
from tfp_gaps.estimate import Estimate
from tfp_gaps.exact import linear_gaussian as exact
from tfp_gaps.experiments.sequential import negative_elbo
from tfp_gaps.inference.look_ahead import LookAheadNetwork, Path
from tfp_gaps.models.state_space import LinearGaussianStateSpace
from tfp_gaps.networks import replica_seeds

NETWORKS = ("linear", "recurrent")


class LinearNetwork(tf.Module):
    """q(z_t | z_{t-1}, x) = N(F_t z_{t-1} + sum_{s <= t+k} W_{t,s} x_s, diag(s_t)^2).

    The same parameters for every look-ahead: weights of observations that q may not see are masked.

    Args:
      num_timesteps: T of every sequence.
      observation_size, latent_size: channels of x_t and z_t.
      num_replicas: number of training runs side by side.
    """

    def __init__(self, *, num_timesteps, observation_size, latent_size, num_replicas):
        super().__init__(name="linear_network")
        self.shape = (num_timesteps, latent_size, num_timesteps, observation_size)
        steps, replicas = num_timesteps, num_replicas
        self.weights = tf.Variable(tf.zeros([replicas, *self.shape]), name="weights")
        self.transition = tf.Variable(
            tf.zeros([replicas, steps, latent_size, latent_size]), name="transition"
        )
        self.log_scale = tf.Variable(tf.zeros([replicas, steps, latent_size]), name="log_scale")

    def masked_weights(self, lookahead):
        """W with zeros for what look-ahead k hides: [replicas, time, latent, time, channels]."""
        steps = np.arange(self.shape[0])
        k = _checks.look_ahead(lookahead, self.shape[0])
        visible = (steps <= steps[:, np.newaxis] + k).astype(np.float32)
        return self.weights * visible[:, np.newaxis, :, np.newaxis]

    def context(self, observations, *, lookahead, controls=None):
        """sum_s W_{t,s} x_s for each t: [time, replicas, batch, latent]."""
        if controls is not None or observations.shape[0] != self.shape[0]:
            raise ValueError(
                f"LinearNetwork is made for {self.shape[0]} time steps without controls, but got "
                f"{observations.shape[0]} steps{'' if controls is None else ' and controls'}."
            )
        return tf.einsum("rtiso,srbo->trbi", self.masked_weights(lookahead), observations)

    def sample_path(self, model, context, noise, *, controls=None):
        """Draw z_{1:T}; arguments and result as for `LookAheadNetwork.sample_path`."""
        del controls
        latent = tf.zeros_like(noise[0])
        path, divergences, log_weights = [], [], []
        for t in range(self.shape[0]):
            prior = model.initial() if t == 0 else model.transition(latent)
            mean = context[t]
            if t > 0:
                mean += tf.matmul(latent, self.transition[:, t], transpose_b=True)
            log_scale = self.log_scale[:, tf.newaxis, t]
            latent = mean + tf.exp(log_scale) * noise[t]
            log_ratio = log_scale - tf.math.log(prior.scale)
            offset = (mean - prior.mean) / prior.scale
            standardised = (latent - prior.mean) / prior.scale
            quadratic = tf.exp(2.0 * log_ratio) + offset**2 - 1.0
            path.append(latent)
            divergences.append(tf.reduce_sum(0.5 * quadratic - log_ratio, -1))
            log_weight = log_ratio + 0.5 * (noise[t] ** 2 - standardised**2)
            log_weights.append(tf.reduce_sum(log_weight, -1))
        return Path(tf.stack(path), tf.stack(divergences), tf.stack(log_weights))

    def factors(self, lookahead, replica=0):
        """The trained q as `exact.SharedFactors`, float64."""
        transition = self.transition[replica].numpy().astype(np.float64)
        transition[0] = 0.0
        scale = np.exp(self.log_scale[replica].numpy().astype(np.float64))
        covariance = scale[..., np.newaxis] ** 2 * np.eye(self.shape[1])
        weights = self.masked_weights(lookahead)[replica].numpy().astype(np.float64)
        return exact.SharedFactors(covariance, transition, weights)


class Trained(NamedTuple):
    """A network that was trained on a fixed chain.

    world: the `exact.LinearGaussian` that made the data and is the model.
    model: the same as a TensorFlow model.
    network: the inference network.
    lookahead: k, or None.
    history: of the training.
    """

    world: exact.LinearGaussian
    model: LinearGaussianStateSpace
    network: tf.Module
    lookahead: int | None
    history: training.History


# Steps, batch size and rate at which the excess of the linear network is below .005 nats.
SETTINGS = {
    "linear": training.Settings(2000, 256, learning_rate=1e-2, steps_per_call=200),
    "recurrent": training.Settings(2000, 256, learning_rate=4e-3, steps_per_call=200),
}


def train(world, kind, *, num_timesteps, lookahead, seeds, settings=None, num_data=50_000):
    """Train an inference network on the ELBO while the model stays the truth.

    Args:
      world: `exact.LinearGaussian` with diagonal covariances.
      kind: "linear" or "recurrent".
      num_timesteps: T.
      lookahead: k >= 0 or None.
      seeds: one int per replica, for initial parameters, batches and noise.
      settings: `training.Settings`, or None for those of the book.
      num_data: sequences drawn for training, the same for every replica.

    Returns:
      `Trained`.

    Raises:
      ValueError: for an unknown kind or bad counts.
    """
    _checks.one_of(kind, "network", NETWORKS)
    _, x = exact.sample(world, num_timesteps, num_data, seed=[seeds[0], 1])
    model = LinearGaussianStateSpace(world, num_replicas=len(seeds))
    sizes = {"observation_size": world.observation_size, "latent_size": world.state_size}
    if kind == "linear":
        network = LinearNetwork(num_timesteps=num_timesteps, num_replicas=len(seeds), **sizes)
    else:
        network = LookAheadNetwork(
            hidden_size=32, seeds=replica_seeds(seeds, "initial network"), **sizes
        )
    history = training.fit(
        negative_elbo(model, network, lookahead),
        list(network.trainable_variables),
        x.transpose(1, 0, 2).astype(np.float32),
        SETTINGS[kind] if settings is None else settings,
        seeds=seeds,
    )
    return Trained(world, model, network, lookahead, history)


def measured_gap(trained, *, num_timesteps, num_sequences, seed, replica=0):
    """Gap of a trained network on fresh sequences, whatever its form.

    Args:
      trained: `Trained`.
      num_timesteps: T, as in training.
      num_sequences: fresh sequences, one draw of z for each.
      seed: of the sequences and of the draws.
      replica: which training run.

    Returns:
      E KL(q || p(z | x)), nats per sequence, an `Estimate` over sequences and draws.
    """
    _, x = exact.sample(trained.world, num_timesteps, num_sequences, seed=[seed, 2])
    evidence = exact.kalman_filter(trained.world, x).log_likelihood
    drawn = bounds.iwae(
        trained.model,
        trained.network,
        x,
        num_samples=1,
        lookahead=trained.lookahead,
        seed=seed,
    )
    return Estimate.from_samples(evidence - drawn.per_sequence()[replica], kind="Monte Carlo")


def exact_gap(trained, *, replica=0):
    """Gap of a trained linear network by its closed form, nats per sequence."""
    factors = trained.network.factors(trained.lookahead, replica)
    evidence = exact.log_likelihood(trained.world, trained.world, len(factors.covariance))
    return evidence - exact.factors_elbo(trained.world, trained.world, factors)


class Coverage(NamedTuple):
    """How often a central interval holds the state, per time step, first component of the state.

    partial: of the best partial q, run online; filtered: of the exact filter. `Estimate` each.
    """

    partial: list
    filtered: list


def online_coverage(world, *, num_timesteps, nominal, num_sequences, seed):
    """Run the best partial q and the exact filter on samples, and count.

    Args:
      world: `exact.LinearGaussian`.
      num_timesteps: T.
      nominal: probability of the interval.
      num_sequences: independent sequences.
      seed: of the sequences.

    Returns:
      `Coverage`; the errors are over sequences.
    """
    z, x = exact.sample(world, num_timesteps, num_sequences, seed)
    factors = exact.shared_factors(world, world, num_timesteps, 0)
    filtered = exact.kalman_filter(world, x)
    quantile = stats.norm.ppf(0.5 + 0.5 * nominal)

    def count(means, covariances):
        width = quantile * np.sqrt(covariances[:, 0, 0])
        inside = np.abs(z - means)[..., 0] <= width[:, np.newaxis]
        return [Estimate.from_samples(row.astype(float), kind="data points") for row in inside]

    partial = exact.factor_marginals(factors, x)
    return Coverage(count(*partial), count(filtered.means, filtered.covariances))


class Learned(NamedTuple):
    """What learning with one look-ahead leads to; nats per step.

    lookahead: k, or None.
    gap_at_truth: conditioning gap at the parameters of the data.
    model: the maximiser of the expected ELBO.
    elbo: its expected ELBO.
    log_likelihood: its expected log-likelihood.
    loss: log-likelihood of the truth minus that of `model`.
    """

    lookahead: int | None
    gap_at_truth: float
    model: exact.LinearGaussian
    elbo: float
    log_likelihood: float
    loss: float

    @property
    def slack(self):
        """Gap that is left at the learned model, nats per step."""
        return self.log_likelihood - self.elbo


def learning_curve(world, *, num_timesteps, lookaheads, state_size=None, num_starts=2, seed=0):
    """Learn a model for each look-ahead, with unlimited data and the best q.

    Args:
      world: `exact.LinearGaussian` of the data.
      num_timesteps: T.
      lookaheads: sequence of k; None for full conditions.
      state_size, num_starts, seed: as in `exact.learn`.

    Returns:
      A list of `Learned`.
    """
    truth = exact.log_likelihood(world, world, num_timesteps)
    curve = []
    for lookahead in lookaheads:
        best = exact.local_optima(
            world,
            num_timesteps,
            lookahead,
            state_size=state_size,
            num_starts=num_starts,
            seed=seed,
        )[0]
        reached = exact.log_likelihood(world, best.model, num_timesteps)
        values = best.elbo, reached, truth - reached
        gap = exact.conditioning_gap(world, num_timesteps, lookahead) / num_timesteps
        curve.append(Learned(lookahead, gap, best.model, *(v / num_timesteps for v in values)))
    return curve
