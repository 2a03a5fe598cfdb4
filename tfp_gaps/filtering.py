"""Particle filters: the evidence, the filtered state and the future under a generative model.

    p(x_t | x_{1:t-1}) ~ sum_i W_{t-1}^i w_t^i,
    w_t^i = p(x_t | z_t^i) p(z_t^i | z_{t-1}^i) / q(z_t^i | z_{t-1}^i, C_t),     z_t^i ~ q

A bootstrap filter proposes from p itself. It needs no q, and so treats models that
were trained with different conditions alike. With q as proposal the same product is the
Monte Carlo objective of Maddison et al. (2017), Le et al. (2018) and Naesseth et al. (2018). Its
expectation is p(x_{1:T}) for any q and any number of particles; the logarithm is therefore biased
downwards, by about half its variance.

Where an exact draw of p(z_{1:T} | x_{1:T}) is known, because the model made x itself, the same
filter with this path among its particles (`reverse_filter`, conditional SMC) bounds ln p(x) from
above: E 1/Z' = 1 / p(x) (Andrieu, Doucet, Holenstein 2010; Grosse, Ghahramani, Adams 2015).

Not by TFP's `particle_filter`: it normalises the ratios p / q over the particles in each step,
which makes the estimate biased as soon as q is not p. Nor by its kernel `SequentialMonteCarlo`,
which resamples in every step, by sorting, and then chooses: the same draws in more time.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks
from tfp_gaps._tensorflow import on_gpu, tf, tfp
from tfp_gaps.models.own import as_state_space, with_sequences
from tfp_gaps.models.state_space import check_controls, log_likelihood, sample_latents, step
from tfp_gaps.networks import for_replicas, replica_normal, replica_seeds
from tfp_gaps.posteriors.own import with_posterior
from tfp_gaps.sequences import Sequences

tfd = tfp.distributions


class Filtered(NamedTuple):
    """What a particle filter returns.

    log_increments: ln p(x_t | x_{1:t-1}), float64 [time, replicas, sequences], nats per step. Their
      sum over time is the logarithm of an unbiased estimate; an increment alone is not, if q looked
      ahead.
    particles: an equally weighted sample of p(z_T | x_{1:T}), in random order, so that its first
      few are a sample too: [particles, replicas, sequences, latent].
    effective_sizes: 1 / sum_i W_i^2 before resampling, as a number of particles, float64 [time,
      replicas, sequences].
    """

    log_increments: np.ndarray
    particles: tf.Tensor
    effective_sizes: np.ndarray


def particle_filter(
    model,
    sequences,
    *,
    num_particles,
    seed,
    posterior=None,
    particles_at_once=None,
):
    """Run a particle filter over x_{1:T}, resampling where fewer than half are effective.

    Args:
      model: state-space model, also in a user's own words; see `models.own`.
      sequences: `Sequences`, or a bare array [time, sequences, channels]; every replica sees the
        same. Values that are masked do not count; where all are, the filter predicts.
      num_particles: at least 2; 1000 for tables.
      seed: int.
      posterior: proposes from its factors q(z_t | z_{t-1}, C_t); a `LookAheadNetwork`, or what has
        its methods `context` and `factor`, see `posteriors.own`. None proposes from p (bootstrap).
      particles_at_once: particles of all sequences of a replica together; bounds the memory. None
        for 10,000, or for 100,000 on a GPU.

    Returns:
      `Filtered`.

    Raises:
      ValueError: for wrong shapes, NaN that are not masked, fewer than 2 particles, or controls
        that the model does not expect.

    References:
      Maddison et al. (2017), Le et al. (2018), Naesseth et al. (2018): the bound.

    >>> from tfp_gaps.exact.linear_gaussian import LinearGaussian
    >>> from tfp_gaps.models.state_space import LinearGaussianStateSpace
    >>> model = LinearGaussianStateSpace(LinearGaussian(0.9, 0.1, 1.0, 1.0, 0.5))
    >>> filtered = particle_filter(model, np.zeros([3, 2, 1]), num_particles=100, seed=0)
    >>> filtered.log_increments.shape, filtered.particles.shape.as_list()
    ((3, 1, 2), [100, 1, 2, 1])
    """
    return _run(model, posterior, sequences, num_particles, seed, particles_at_once)


def reverse_filter(
    model,
    sequences,
    latents,
    *,
    num_particles,
    seed,
    posterior=None,
    particles_at_once=None,
):
    """Bound ln p(x_{1:T}) from above: a particle filter that keeps a path from the posterior.

        E ln Z' >= -ln E 1/Z' = ln p(x),   Z' with z_{1:T} ~ p(z_{1:T} | x_{1:T}) as a particle

    The other particles are drawn, weighted and resampled as in any filter, independently of each
    other (multinomially), as they must be for the expectation to hold. The bound falls to the
    evidence as particles are added, and is tightest under the q under which the filter is.

    Args:
      latents: an exact draw of the posterior for each sequence, float [time, sequences, latent]:
        the path from which the model made x, see `made_sequences`.
      model, sequences, num_particles, seed, posterior, particles_at_once: as in `particle_filter`.

    Returns:
      ln Z', float64 [replicas, sequences], nats per sequence: upper bounds in expectation.

    Raises:
      ValueError: as `particle_filter`, and for latents of another shape or that are not finite.

    >>> from tfp_gaps.exact.linear_gaussian import LinearGaussian
    >>> from tfp_gaps.models.state_space import LinearGaussianStateSpace
    >>> model = LinearGaussianStateSpace(LinearGaussian(0.9, 0.1, 1.0, 1.0, 0.5))
    >>> made, latents = made_sequences(model, np.zeros([3, 5, 1]), seed=0)
    >>> reverse_filter(model, made, latents, num_particles=100, seed=0).shape
    (1, 5)
    """
    order = "reverse_filter(model, sequences, latents)"
    model, sequences = with_sequences(model, sequences, order)
    wanted = (*sequences.observations.shape[:2], model.latent_size)
    latents = _checks.finite_array(latents, "latents")
    if latents.shape != wanted:
        raise ValueError(
            f"latents must have shape [time, sequences, latent] = {wanted}, but have shape "
            f"{latents.shape}. Give the path from which each sequence was made."
        )
    filtered = _run(model, posterior, sequences, num_particles, seed, particles_at_once, latents)
    return filtered.log_increments.sum(0)


def made_sequences(model, like, *, seed):
    """Draw sequences from a model, with the latents that they were made from.

    Args:
      model: state-space model of one replica; see `networks.replica`.
      like: `Sequences`, or a bare array [time, sequences, channels], whose number, steps, controls
        and mask the made ones have.
      seed: int.

    Returns:
      `Sequences`, and float32 latents [time, sequences, latent], a draw of the posterior of each.
    """
    model, like = with_sequences(model, like, "made_sequences(model, like)")
    keys = [replica_seeds([seed], purpose) for purpose in ("made latents", "made observations")]
    shape = [like.num_timesteps, len(like), model.latent_size]
    # Row t of these controls acts into step t; `sample_latents` takes those out of it.
    controls = None if like.controls is None else tf.constant(like.controls[1:, np.newaxis])
    latents = sample_latents(model, replica_normal(shape, keys[0], axis=1), controls)
    observations = model.emission(latents).sample(seed=keys[1][0])[:, 0].numpy()
    made = Sequences(observations.astype(like.observations.dtype), like.controls, like.mask)
    return made, latents[:, 0].numpy()


def _run(model, posterior, sequences, num_particles, seed, particles_at_once, latents=None):
    """Filter all sequences in batches: `Filtered`; `latents` are paths to keep, or None."""
    _checks.seed(seed)
    order = "particle_filter(model, sequences, posterior=...)"
    if posterior is None:
        model, sequences = with_sequences(model, sequences, order)
    else:
        model, posterior, sequences = with_posterior(model, posterior, sequences, order)
        _checks.offers(posterior, "posterior", ("context", "factor"), order=order)
    _checks.integer(num_particles, "num_particles", minimum=2)
    if particles_at_once is None:
        # On a CPU the speed is the same from 2,500 to 25,000; a GPU starves on so few.
        particles_at_once = 100_000 if on_gpu() else 10_000
    _checks.integer(particles_at_once, "particles_at_once", minimum=1)
    run = tf.function(_filter, jit_compile=on_gpu())
    total = len(sequences)
    num_batches = math.ceil(total * num_particles / max(particles_at_once, num_particles))
    size = math.ceil(total / num_batches)

    def batch(index):
        # All batches have one size, or another would be traced: the last is filled up from the
        # beginning.
        now = np.arange(index * size, (index + 1) * size) % total
        seeds = tf.constant([seed, index], tf.int32)
        tensors = for_replicas(sequences.select(now).batch, model.num_replicas)
        kept = None if latents is None else tf.constant(latents[:, np.newaxis, now], tf.float32)
        return run(model, posterior, num_particles, seeds, tensors, kept)

    # Two at a time, or one core would wait: the operations of one are too short to be shared.
    with ThreadPoolExecutor(1 if on_gpu() else 2) as pool:
        parts = pool.map(batch, range(math.ceil(total / size)))
        increments, particles, sizes = (tf.concat(part, 2)[:, :, :total] for part in zip(*parts))
    return Filtered(
        increments.numpy().astype(np.float64), particles, sizes.numpy().astype(np.float64)
    )


def continue_from(model, particles, *, num_steps, seed, controls=None):
    """Roll the model forward from filtered particles.

    Args:
      model: state-space model.
      particles: sample of p(z_t | x_{1:t}), [particles, replicas, sequences, latent].
      num_steps: how many steps to predict.
      seed: int.
      controls: [num_steps, sequences, control]; row h acts into the h-th predicted step. None for a
        model without controls.

    Returns:
      mean: E[x_{t+h} | z_{t+h}] along each path, [num_steps, particles, replicas, sequences,
      channels].

    Raises:
      ValueError: for fewer than one step, or controls of another size.
    """
    model = as_state_space(model, "continue_from(model, particles)")
    paths = roll_out(model, particles, num_steps=num_steps, seed=seed, controls=controls)
    return tf.stack([model.emission(latent).mean() for latent in paths])


def roll_out(model, particles, *, num_steps, seed, controls=None):
    """Yield z_{t+1}, ..., z_{t+num_steps} along each path; arguments as in `continue_from`."""
    _checks.integer(num_steps, "num_steps", minimum=1)
    model = as_state_space(model, "roll_out(model, particles)")
    size = 0 if controls is None else np.shape(controls)[-1]
    check_controls(model, size)
    if controls is not None:
        wanted = (num_steps, particles.shape[2], size)
        if np.shape(controls) != wanted:
            raise ValueError(
                f"controls must have shape [num_steps, sequences, control] = {wanted}, but have "
                f"shape {np.shape(controls)}. Pass one row for each predicted step."
            )
        controls = tf.cast(_checks.finite_array(controls, "controls"), tf.float32)
    latent = particles
    for h in range(num_steps):
        key = replica_seeds([seed], "prediction", h)[0]
        noise = tf.random.stateless_normal(tf.shape(latent), key, alg="philox")
        control = None if controls is None else _beside(controls[h][tf.newaxis], latent)
        latent = step(model, latent, noise, control)
        yield latent


class _Chain:
    """Proposal and weight of each step of one batch: particles [particles, replicas, batch, latent]
    and their log weights.

    `kept` is the path of the first particle, [time, replicas or 1, batch, latent], or None.
    """

    def __init__(self, model, posterior, num_particles, batch, kept=None):
        self.model, self.posterior, self.batch, self.kept = model, posterior, batch, kept
        self.shape = [num_particles, *batch.observations.shape[1:3]]
        self.uniform = tf.fill(self.shape, -math.log(num_particles))
        if posterior is not None:
            self.context = posterior.context(batch)

    def start(self, seed):
        """Particles at the first step, weighted by x_1."""
        return self._propose(0, self.model.initial(), None, self.uniform, seed)

    def advance(self, t, latent, log_weights, seed):
        """Particles at step t from those at the step before, weighted by x_t too."""
        controls = self.batch.controls
        control = None if controls is None else _beside(controls[t], latent)
        return self._propose(t, self.model.transition(latent, control), latent, log_weights, seed)

    def resample(self, latent, log_weights, effective_sizes, seed):
        """Resample the sequences of which fewer than half of the particles are effective."""
        poor = effective_sizes < self.shape[0] / 2
        draw = _systematic if self.kept is None else _others
        own = tf.broadcast_to(tf.range(self.shape[0])[:, tf.newaxis, tf.newaxis], self.shape)
        parents = tf.cond(
            tf.reduce_any(poor),
            lambda: tf.where(poor, draw(log_weights, seed), own),
            lambda: own,
        )
        return _take(latent, parents), tf.where(poor, self.uniform, log_weights)

    def _propose(self, t, prior, latent, log_weights, seed):
        noise = tf.random.stateless_normal(
            [*self.shape, self.model.latent_size], seed, alg="philox"
        )
        proposal = prior
        if self.posterior is not None:
            proposal = self.posterior.factor(prior, latent, self.context[t])
        draw = proposal.mean + proposal.scale * noise
        if self.kept is not None:
            draw = _with_first(draw, self.kept[t])
            noise = (draw - proposal.mean) / proposal.scale
        if self.posterior is not None:
            log_weights += _log_ratio(prior, proposal, draw, noise)
        now = self.batch.map(lambda part: part[t])
        return draw, log_weights + log_likelihood(self.model, draw, now.observations, now.mask)


def _filter(model, posterior, num_particles, seed, batch, kept=None):
    """Filter one batch; returns increments, particles and effective sizes."""
    chain = _Chain(model, posterior, num_particles, batch, kept)
    num_timesteps = batch.observations.shape[0]
    start_seed, loop_seed, *end_seeds = tfp.random.split_seed(seed, 4)
    seeds = tf.stack(tfp.random.split_seed(loop_seed, num_timesteps))
    traces = [tf.TensorArray(tf.float32, num_timesteps) for _ in range(2)]

    def settle(t, latent, log_weights, increments, sizes, seed):
        """Take the evidence of step t out of the weights, and resample."""
        normalised = tf.nn.log_softmax(log_weights, 0)
        effective_sizes = tf.exp(-tf.reduce_logsumexp(2 * normalised, 0))
        increments = increments.write(t, log_weights[0] - normalised[0])
        latent, log_weights = chain.resample(latent, normalised, effective_sizes, seed)
        return latent, log_weights, increments, sizes.write(t, effective_sizes)

    def advance(t, latent, log_weights, increments, sizes):
        propose_seed, resample_seed = tfp.random.split_seed(seeds[t])
        state = chain.advance(t, latent, log_weights, propose_seed)
        return t + 1, *settle(t, *state, increments, sizes, resample_seed)

    first = settle(0, *chain.start(start_seed), *traces, tfp.random.split_seed(seeds[0])[1])
    _, latent, log_weights, increments, sizes = tf.while_loop(
        lambda t, *_: t < num_timesteps, advance, (tf.constant(1), *first)
    )
    particles = _equally_weighted(latent, log_weights, end_seeds)
    return increments.stack(), particles, sizes.stack()


def _with_first(draw, kept):
    """`draw` [particles, replicas, sequences, latent] with another first particle."""
    return tf.concat([tf.broadcast_to(kept, draw.shape[1:])[tf.newaxis], draw[1:]], 0)


def _systematic(log_probs, seed):
    """Parents of all particles, drawn at even distances from one random start."""
    count = log_probs.shape[0]
    width = np.float32(1 / count)
    offsets = tfd.Uniform(np.float32(0), width).sample(log_probs.shape[1:], seed=seed)
    spaced = np.linspace(0, 1 - width, count, dtype=np.float32)
    return _parents(log_probs, tf.math.log(spaced + offsets[..., tf.newaxis]))


def _others(log_probs, seed):
    """Parents of all particles: the first is its own, the others are drawn independently."""
    count, *batch = log_probs.shape
    points = -tfd.Exponential(1.0).sample([*batch, count - 1], seed=seed)
    others = _parents(log_probs, tf.sort(points))
    return tf.concat([tf.zeros_like(others[:1]), others], 0)


def _parents(log_probs, log_points):
    """Invert the distribution function of [particles, ...] at points of the unit interval, [...,
    draws]: int [draws, ...], the same as by TFP's `resample_*`, which sort to find them."""
    markers = tf.math.cumulative_logsumexp(tf.transpose(log_probs, [1, 2, 0]), -1)
    found = tf.searchsorted(markers, log_points, side="right")
    # By rounding, the last marker may lie below 1.
    return tf.transpose(tf.minimum(found, log_probs.shape[0] - 1), [2, 0, 1])


def _take(latent, parents):
    """Particles [parents, replicas, sequences, latent] by their numbers, in each sequence."""
    _, *batch, size = latent.shape
    columns = tf.reshape(tf.range(math.prod(batch)), batch)
    rows = parents * math.prod(batch) + columns
    return tf.gather(tf.reshape(latent, [-1, size]), rows)


def _equally_weighted(latent, log_weights, seeds):
    """Resample, in random order: neighbours descend from the same particle otherwise."""
    parents = _systematic(log_weights, seeds[0])
    # Not `stateless_shuffle`, which XLA does not know.
    order = tf.argsort(tf.random.stateless_uniform([len(parents)], seeds[1], alg="philox"))
    return _take(latent, tf.gather(parents, order))


def _log_ratio(prior, proposal, draw, noise):
    """ln p - ln q at draw = proposal.mean + proposal.scale * noise."""
    standardised = (draw - prior.mean) / prior.scale
    terms = tf.math.log(proposal.scale / prior.scale) + 0.5 * (noise**2 - standardised**2)
    return tf.reduce_sum(terms, -1)


def _beside(control, latent):
    """Repeat a control [..., sequences, control] for each particle of `latent`."""
    return tf.broadcast_to(control, [*latent.shape[:-1], control.shape[-1]])
