"""Particle filters: the evidence, the filtered state and the future under a generative model.

    p(x_t | x_{1:t-1}) ~ sum_i W_{t-1}^i w_t^i,
    w_t^i = p(x_t | z_t^i) p(z_t^i | z_{t-1}^i) / q(z_t^i | z_{t-1}^i, C_t),     z_t^i ~ q

A bootstrap filter proposes from p itself. It needs no q, and so treats models that
were trained with different conditions alike. With q as proposal the same product is the
Monte Carlo objective of Maddison et al. (2017), Le et al. (2018) and Naesseth et al. (2018). Its
expectation is p(x_{1:T}) for any q and any number of particles; the logarithm is therefore biased
downwards, by about half its variance.

The kernel is TFP's. Its ready-made `particle_filter` would not do: it normalises the ratios p / q
over the particles in each step, which makes the estimate biased as soon as q is not p.
"""

import math
from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks
from tfp_gaps._tensorflow import on_gpu, tf, tfp
from tfp_gaps.models.state_space import log_likelihood, step
from tfp_gaps.networks import for_replicas, replica_seeds
from tfp_gaps.sequences import as_sequences

smc = tfp.experimental.mcmc


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
      model: state-space model.
      sequences: `Sequences`, or a bare array [time, sequences, channels]; every replica sees the
        same. Values that are masked do not count; where all are, the filter predicts.
      num_particles: at least 2; 1000 for tables.
      seed: int.
      posterior: proposes from its factors q(z_t | z_{t-1}, C_t); a `LookAheadNetwork`, or what has
        its methods `context` and `factor`. None proposes from p (bootstrap).
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
    _checks.integer(num_particles, "num_particles", minimum=2)
    if particles_at_once is None:
        # On a CPU the speed is the same from 2,500 to 25,000; a GPU starves on so few.
        particles_at_once = 100_000 if on_gpu() else 10_000
    _checks.integer(particles_at_once, "particles_at_once", minimum=1)
    sequences = as_sequences(sequences)
    _check(model, sequences)
    run = tf.function(_filter, jit_compile=on_gpu())
    total = len(sequences)
    num_batches = math.ceil(total * num_particles / max(particles_at_once, num_particles))
    size = math.ceil(total / num_batches)
    parts = []
    for index, start in enumerate(range(0, total, size)):
        # All batches have one size, or another would be traced: the last is filled up from the
        # beginning.
        batch = sequences.select(np.arange(start, start + size) % total)
        seeds = tf.constant([seed, index], tf.int32)
        tensors = for_replicas(batch.batch, model.num_replicas)
        parts.append(run(model, posterior, num_particles, seeds, tensors))
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
    paths = roll_out(model, particles, num_steps=num_steps, seed=seed, controls=controls)
    return tf.stack([model.emission(latent).mean() for latent in paths])


def roll_out(model, particles, *, num_steps, seed, controls=None):
    """Yield z_{t+1}, ..., z_{t+num_steps} along each path; arguments as in `continue_from`."""
    _checks.integer(num_steps, "num_steps", minimum=1)
    size = 0 if controls is None else np.shape(controls)[-1]
    _check_controls(model, size)
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
    """Proposal and weight of each step of one batch, as TFP's kernel asks for them."""

    def __init__(self, model, posterior, num_particles, batch):
        self.model, self.posterior, self.batch = model, posterior, batch
        self.shape = [num_particles, *batch.observations.shape[1:3]]
        self.last = batch.observations.shape[0] - 1
        if posterior is not None:
            self.context = posterior.context(batch)

    def start(self, seed):
        """Particles at the first step, weighted by x_1."""
        uniform = tf.fill(self.shape, -math.log(self.shape[0]))
        return self._propose(0, self.model.initial(), None, uniform, seed)

    def advance(self, from_step, state, seed=None):
        """Particles at the step after `from_step`, weighted by its observation too."""
        # TFP also calls this before the first step, and drops the result.
        t = tf.minimum(from_step + 1, self.last)
        latent = state.particles
        controls = self.batch.controls
        control = None if controls is None else _beside(controls[t], latent)
        return self._propose(
            t, self.model.transition(latent, control), latent, state.log_weights, seed
        )

    def _propose(self, t, prior, latent, log_weights, seed):
        noise = tf.random.stateless_normal(
            [*self.shape, self.model.latent_size], seed, alg="philox"
        )
        proposal = prior
        if self.posterior is not None:
            proposal = self.posterior.factor(prior, latent, self.context[t])
        draw = proposal.mean + proposal.scale * noise
        if self.posterior is not None:
            log_weights += _log_ratio(prior, proposal, draw, noise)
        now = self.batch.map(lambda part: part[t])
        log_weights += log_likelihood(self.model, draw, now.observations, now.mask)
        effective_size = tf.exp(smc.log_ess_from_log_weights(log_weights))
        return smc.WeightedParticles(draw, log_weights, effective_size)


def _filter(model, posterior, num_particles, seed, batch):
    """Filter one batch; returns increments, particles and effective sizes."""
    chain = _Chain(model, posterior, num_particles, batch)
    num_timesteps = chain.last + 1
    start_seed, loop_seed, *end_seeds = tfp.random.split_seed(seed, 4)
    kernel = smc.SequentialMonteCarlo(
        chain.advance,
        resample_criterion_fn=lambda state, _: state.extra[tf.newaxis] < num_particles / 2,
        unbiased_gradients=False,
    )
    seeds = tf.stack(tfp.random.split_seed(loop_seed, num_timesteps))

    def advance(t, state, results, increments, sizes):
        # The kernel hands `extra` through as it was before resampling.
        state, results = kernel.one_step(state, results, seed=seeds[t])
        increments = increments.write(t, results.incremental_log_marginal_likelihood)
        return t + 1, state, results, increments, sizes.write(t, state.extra)

    state = chain.start(start_seed)
    results = kernel.bootstrap_results(state)._replace(steps=tf.constant(0))
    traces = [tf.TensorArray(tf.float32, num_timesteps) for _ in range(2)]
    _, state, _, increments, sizes = tf.while_loop(
        lambda t, *_: t < num_timesteps, advance, (tf.constant(0), state, results, *traces)
    )
    return increments.stack(), _equally_weighted(state, end_seeds), sizes.stack()


def _equally_weighted(state, seeds):
    """Resample, in random order: neighbours descend from the same particle otherwise."""
    count = state.log_weights.shape[0]
    parents = smc.resample_systematic(state.log_weights, count, (), seed=seeds[0])
    # Not `stateless_shuffle`, which XLA does not know.
    order = tf.argsort(tf.random.stateless_uniform([count], seeds[1], alg="philox"))
    parents = tf.gather(parents, order)
    index = tf.broadcast_to(parents[..., tf.newaxis], state.particles.shape)
    return tf.experimental.numpy.take_along_axis(state.particles, index, axis=0)


def _log_ratio(prior, proposal, draw, noise):
    """ln p - ln q at draw = proposal.mean + proposal.scale * noise."""
    standardised = (draw - prior.mean) / prior.scale
    terms = tf.math.log(proposal.scale / prior.scale) + 0.5 * (noise**2 - standardised**2)
    return tf.reduce_sum(terms, -1)


def _beside(control, latent):
    """Repeat a control [..., sequences, control] for each particle of `latent`."""
    return tf.broadcast_to(control, [*latent.shape[:-1], control.shape[-1]])


def _check(model, sequences):
    channels = sequences.observations.shape[-1]
    if len(sequences) == 0 or channels != model.observation_size:
        raise ValueError(
            f"sequences must hold at least one sequence with the model's {model.observation_size} "
            f"channel(s), but hold {len(sequences)} with {channels}. Pass the data that the model "
            f"was built for."
        )
    _check_controls(model, 0 if sequences.controls is None else sequences.controls.shape[-1])


def _check_controls(model, size):
    if size != model.control_size:
        raise ValueError(
            f"this model was built for {model.control_size} control channel(s), but got {size}. "
            f"Pass the controls that it was trained with."
        )
