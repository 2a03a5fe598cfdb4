"""One network under the conditions of published models, trained side by side on one chain.

`ConditionsNetwork` has the same parameters whatever it may see: inputs that the conditions hide are
multiplied by zero. So one run trains all schemes at once, a replica for each scheme and seed, and
what differs in the end is what they were shown.
"""

from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks, bounds, training
from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.book import literature
from tfp_gaps.estimate import Estimate
from tfp_gaps.exact import conditions as exact_conditions
from tfp_gaps.exact import linear_gaussian as exact
from tfp_gaps.models.state_space import LinearGaussianStateSpace
from tfp_gaps.networks import Dense, replica_seeds, split_seeds
from tfp_gaps.posteriors.look_ahead import Path
from tfp_gaps.sequences import Batch
from tfp_gaps.sequential.fitting import negative_elbo

tfd = tfp.distributions

SETTINGS = training.Settings(2000, 256, learning_rate=1e-2, steps_per_call=200)


class ConditionsNetwork(tf.Module):
    """q(z_t | what the conditions show) of a scalar chain: a small network for each step.

    Args:
      conditions: `exact.conditions.Conditions` of each replica, all of the same length.
      hidden_size: width of the hidden layer.
      seeds: int32 [num_replicas, 2].

    Raises:
      ValueError: if lengths differ, or there are not as many conditions as seeds.
    """

    def __init__(self, *, conditions, hidden_size, seeds):
        super().__init__(name="conditions_network")
        lengths = {each.num_timesteps for each in conditions}
        if len(lengths) != 1 or len(conditions) != seeds.shape[0]:
            raise ValueError(
                f"There should be one set of conditions for each of {seeds.shape[0]} replicas, all "
                f"of the same length, but got {len(conditions)} of lengths {sorted(lengths)}."
            )
        (self.num_timesteps,) = lengths
        steps, width = self.num_timesteps, _checks.integer(hidden_size, "hidden_size", minimum=1)
        self._observations, self._latents = (
            tf.constant(np.stack([getattr(each, part) for each in conditions], 1), tf.float32)
            for part in ("observations", "latents")
        )
        keys = [split_seeds(key, 3) for key in split_seeds(seeds, steps)]
        self._read = [Dense(steps, width, seeds=key[0], name="read") for key in keys]
        self._recall = [
            Dense(steps, width, seeds=key[1], use_bias=False, name="recall") for key in keys
        ]
        self._output = [Dense(width, 2, seeds=key[2], name="output") for key in keys]

    def context(self, batch):
        """What the observations say, [time, replicas, batch, hidden]; see `LookAheadNetwork`."""
        if batch.controls is not None or batch.mask is not None:
            raise ValueError(
                "ConditionsNetwork knows neither controls nor missing values, but was given some. "
                "Leave them out."
            )
        inputs = tf.transpose(batch.observations[..., 0], [1, 2, 0])
        return tf.stack(
            [
                read(inputs * self._observations[t][:, tf.newaxis])
                for t, read in enumerate(self._read)
            ]
        )

    def sample_path(self, model, context, noise, *, controls=None):
        """Draw z_{1:T}; arguments and result as for `LookAheadNetwork.sample_path`."""
        del controls
        latents = tf.zeros_like(noise[0])
        path, divergences, log_weights = [], [], []
        for t in range(self.num_timesteps):
            prior = model.initial() if t == 0 else model.transition(latents)
            earlier = tf.concat([*path, *[tf.zeros_like(noise[0])] * (self.num_timesteps - t)], -1)
            hidden = context[t] + self._recall[t](earlier * self._latents[t][:, tf.newaxis])
            mean, raw = tf.split(self._output[t](tf.nn.tanh(hidden)), 2, -1)
            posterior = tfd.Normal(mean, tf.nn.softplus(raw) + 1e-3)
            before = tfd.Normal(prior.mean, prior.scale)
            latents = posterior.loc + posterior.scale * noise[t]
            path.append(latents)
            divergences.append(tfd.kl_divergence(posterior, before)[..., 0])
            log_weight = before.log_prob(latents) - posterior.log_prob(latents)
            log_weights.append(log_weight[..., 0])
        return Path(tf.stack(path), tf.stack(divergences), tf.stack(log_weights))


class Row(NamedTuple):
    """What the conditions of one scheme cost on a chain, nats per step.

    scheme: one of `literature.SCHEMES`.
    latents: what hidden latents cost the best q, exact.
    observations: what hidden observations add, exact.
    trained: gap of trained networks, `Estimate` over seeds, or None if none was trained.
    learned: the `LinearGaussian` that learning under these conditions ends in.
    loss: log-likelihood that it lacks, exact.
    """

    scheme: str
    latents: float
    observations: float
    trained: Estimate | None
    learned: exact.LinearGaussian
    loss: float

    @property
    def gap(self):
        """Of the best q, nats per step."""
        return self.latents + self.observations


def train(world, *, num_timesteps, schemes, seeds, settings=SETTINGS, num_data=50_000):
    """Train a network for each scheme and seed while the model stays the truth.

    Args:
      world: scalar `exact.LinearGaussian`.
      num_timesteps: T.
      schemes: names in `literature.SCHEMES`.
      seeds: ints, of initial parameters, batches and noise; data are the same for all.
      settings: `training.Settings`.
      num_data: training sequences.

    Returns:
      model, network, history of the training; replicas run over seeds fastest.
    """
    pairs = [(scheme, seed) for scheme in schemes for seed in seeds]
    each = [seed for _, seed in pairs]
    _, x = exact.sample(world, num_timesteps, num_data, seed=1)
    model = LinearGaussianStateSpace(world, num_replicas=len(pairs))
    network = ConditionsNetwork(
        conditions=[literature.scheme(scheme, num_timesteps) for scheme, _ in pairs],
        hidden_size=16,
        seeds=replica_seeds(each, "initial network"),
    )
    history = training.fit(
        negative_elbo(model, network),
        list(network.trainable_variables),
        Batch(x.astype(np.float32)),
        settings,
        axis=1,
        seeds=each,
    )
    return model, network, history


def trained_gaps(world, *, num_timesteps, schemes, seeds, num_sequences=20_000, **options):
    """Gaps of networks trained under each scheme, on fresh sequences.

    Args:
      world, num_timesteps, schemes, seeds, options: as `train`.
      num_sequences: fresh sequences with one draw of z each.

    Returns:
      dict from scheme to float64 [seeds], nats per step.

    Raises:
      FloatingPointError: if a network diverged.
    """
    model, network, history = train(
        world, num_timesteps=num_timesteps, schemes=schemes, seeds=seeds, **options
    )
    if history.diverged.any():
        names = [scheme for scheme in schemes for _ in seeds]
        failed = ", ".join(sorted({names[i] for i in np.flatnonzero(history.diverged)}))
        raise FloatingPointError(
            f"training diverged under {failed}; a gap of such a network says nothing about its "
            "conditions. Use a smaller learning rate."
        )
    _, x = exact.sample(world, num_timesteps, num_sequences, seed=2)
    evidence = exact.kalman_filter(world, x).log_likelihood
    drawn = bounds.iwae(model, network, x, num_samples=1, seed=0)
    gaps = np.mean(evidence - drawn.per_sequence(), -1) / num_timesteps
    return dict(zip(schemes, gaps.reshape(len(schemes), len(seeds)), strict=True))


def measure(world, *, num_timesteps, schemes=None, trained=None):
    """Exact costs of each scheme on a chain, beside what trained networks reached.

    Args:
      world: scalar `exact.LinearGaussian`.
      num_timesteps: T.
      schemes: names in `literature.SCHEMES`; None for all.
      trained: result of `trained_gaps`, or None.

    Returns:
      list of `Row`.
    """
    truth, rows = exact.log_likelihood(world, world, num_timesteps), []
    for scheme in literature.SCHEMES if schemes is None else schemes:
        seen = literature.scheme(scheme, num_timesteps)
        cost = exact_conditions.parts(world, seen)
        learned = exact_conditions.learn(world, seen)
        loss = truth - exact.log_likelihood(world, learned, num_timesteps)
        found = None
        if trained is not None and scheme in trained:
            found = Estimate.from_samples(trained[scheme], kind="seeds")
        rows.append(
            Row(
                scheme,
                cost.latents / num_timesteps,
                cost.observations / num_timesteps,
                found,
                learned,
                loss / num_timesteps,
            )
        )
    return rows
