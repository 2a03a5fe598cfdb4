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
from tfp_gaps.models.state_space import LinearGaussianStateSpace
from tfp_gaps.networks import replica_seeds
from tfp_gaps.posteriors.look_ahead import LookAheadNetwork, Path
from tfp_gaps.sequences import Batch
from tfp_gaps.sequential.fitting import negative_elbo

NETWORKS = ("linear", "recurrent")


class LinearNetwork(tf.Module):
    """q(z_t | z_{t-1}, x) = N(F_t z_{t-1} + sum_{s <= t+k} W_{t,s} x_s, diag(s_t)^2).

    The same parameters under all conditions: weights of observations that q may not see are masked.
    Replicas may differ in what they see, so that one run trains them all.

    Args:
      conditions: for each replica what it may see, a callable num_timesteps -> bool [time, time],
        such as `LookAhead`.
      num_timesteps: T of every sequence.
      observation_size, latent_size: channels of x_t and z_t.
    """

    def __init__(self, *, conditions, num_timesteps, observation_size, latent_size):
        super().__init__(name="linear_network")
        visible = np.stack([seen(num_timesteps) for seen in conditions]).astype(np.float32)
        self._visible = visible[:, :, np.newaxis, :, np.newaxis]
        self.shape = (num_timesteps, latent_size, num_timesteps, observation_size)
        steps, replicas = num_timesteps, len(conditions)
        self.weights = tf.Variable(tf.zeros([replicas, *self.shape]), name="weights")
        self.transition = tf.Variable(
            tf.zeros([replicas, steps, latent_size, latent_size]), name="transition"
        )
        self.log_scale = tf.Variable(tf.zeros([replicas, steps, latent_size]), name="log_scale")

    @property
    def masked_weights(self):
        """W with zeros for what is hidden: [replicas, time, latent, time, channels]."""
        return self.weights * self._visible

    def context(self, batch):
        """sum_s W_{t,s} x_s for each t: [time, replicas, batch, latent]."""
        observations, controls, mask = batch
        if controls is not None or mask is not None or observations.shape[0] != self.shape[0]:
            extra = "".join(
                f" and {name}"
                for name, given in (("controls", controls), ("a mask", mask))
                if given is not None
            )
            raise ValueError(
                f"LinearNetwork is made for {self.shape[0]} time steps without controls or missing "
                f"values, but got {observations.shape[0]} steps{extra}."
            )
        return tf.einsum("rtiso,srbo->trbi", self.masked_weights, observations)

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

    def factors(self, replica):
        """The trained q as `exact.SharedFactors`, float64."""
        transition = self.transition[replica].numpy().astype(np.float64)
        transition[0] = 0.0
        scale = np.exp(self.log_scale[replica].numpy().astype(np.float64))
        covariance = scale[..., np.newaxis] ** 2 * np.eye(self.shape[1])
        weights = self.masked_weights[replica].numpy().astype(np.float64)
        return exact.SharedFactors(covariance, transition, weights)


class Trained(NamedTuple):
    """Networks that were trained side by side on a fixed chain, a replica for each conditions.

    world: the `exact.LinearGaussian` that made the data and is the model.
    model: the same as a TensorFlow model.
    network: the inference network.
    history: of the training.
    """

    world: exact.LinearGaussian
    model: LinearGaussianStateSpace
    network: tf.Module
    history: training.History


# At these the linear network is left about .001 nats above its optimum.
SETTINGS = {
    "linear": training.Settings(1000, 256, learning_rate=2e-2, steps_per_call=200),
    "recurrent": training.Settings(1000, 128, learning_rate=5e-3, steps_per_call=200),
}


def train(world, kind, *, num_timesteps, conditions, seed, settings=None, num_data=50_000):
    """Train inference networks on the ELBO while the model stays the truth.

    Args:
      world: `exact.LinearGaussian` with diagonal covariances.
      kind: "linear" or "recurrent".
      num_timesteps: T.
      conditions: sequence of `LookAhead`, one for each replica; the recurrent network takes one.
      seed: of data, initial parameters, batches and noise; the same for each replica.
      settings: `training.Settings`, or None for those of the book.
      num_data: sequences drawn for training.

    Returns:
      `Trained`.

    Raises:
      ValueError: for an unknown kind, several look-aheads of a recurrent network, or bad counts.
    """
    _checks.one_of(kind, "network", NETWORKS)
    if kind == "recurrent" and len(conditions) != 1:
        raise ValueError(
            f"The recurrent network is trained for one look-ahead at a time, but got "
            f"{len(conditions)}. Call train once for each."
        )
    _, x = exact.sample(world, num_timesteps, num_data, seed=[seed, 1])
    seeds = [seed] * len(conditions)
    model = LinearGaussianStateSpace(world, num_replicas=len(seeds))
    sizes = {"observation_size": world.observation_size, "latent_size": world.state_size}
    if kind == "linear":
        network = LinearNetwork(conditions=conditions, num_timesteps=num_timesteps, **sizes)
    else:
        initial = replica_seeds(seeds, "initial network")
        network = LookAheadNetwork(conditions=conditions[0], hidden_size=32, seeds=initial, **sizes)
    history = training.fit(
        negative_elbo(model, network),
        list(network.trainable_variables),
        Batch(x.astype(np.float32)),
        SETTINGS[kind] if settings is None else settings,
        axis=1,
        seeds=seeds,
    )
    return Trained(world, model, network, history)


def measured_gaps(trained, *, num_timesteps, num_sequences, seed):
    """Gaps of trained networks on fresh sequences, whatever their form.

    Args:
      trained: `Trained`.
      num_timesteps: T, as in training.
      num_sequences: fresh sequences, one draw of z for each; the same for every replica.
      seed: of the sequences and of the draws.

    Returns:
      E KL(q || p(z | x)) for each replica, nats per sequence, each an `Estimate` over sequences and
      draws.
    """
    _, x = exact.sample(trained.world, num_timesteps, num_sequences, seed=[seed, 2])
    evidence = exact.kalman_filter(trained.world, x).log_likelihood
    drawn = bounds.iwae(trained.model, trained.network, x, num_samples=1, seed=seed)
    return [
        Estimate.from_samples(evidence - row, kind="Monte Carlo") for row in drawn.per_sequence()
    ]


def exact_gaps(trained):
    """Gaps of trained linear networks by their closed form, nats per sequence, per replica."""
    world, gaps = trained.world, []
    for replica in range(trained.model.num_replicas):
        factors = trained.network.factors(replica)
        evidence = exact.log_likelihood(world, world, len(factors.covariance))
        gaps.append(evidence - exact.factors_elbo(world, world, factors))
    return gaps


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
