"""An inference network for sequences, whose look-ahead k says what it may see.

    q(z_{1:T} | x_{1:T}) = prod_t q(z_t | z_{t-1}, C_t),     C_t = x_{1:min(t+k, T)}

The conditions are a `conditions.LookAhead`. Two gated recurrent units read the observations, for
every k at the same cost and with the same parameters:

* the forward state after x_{1:min(t+k, T)}, read k steps ahead;
* the backward state at t, reset at the ends of blocks of k + 1 steps, which has read x_{t:e} with e
  the end of t's block, e <= t + k.

Together they have read exactly C_t. With k = 0 the backward unit sees x_t alone; with k = T - 1 it
is never reset and is the reverse recurrence of a smoother.

The mean of the posterior is a correction of the prior's,

    q(z_t | z_{t-1}, C_t) = N(m + d, diag v^2),   N(m, diag s^2) = p(z_t | z_{t-1}, u_{t-1}),

which starts near d = 0: an untrained q follows the prior's dynamics. Where the prior's noise is far
below the scale of the data, d and v are better taken as multiples of s (`relative`): steps of one
size then suit all components, and q follows when the prior narrows.
"""

import copy
from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks
from tfp_gaps._tensorflow import tf
from tfp_gaps.models.state_space import DiagonalNormal, positive
from tfp_gaps.networks import Dense, gru_scan, gru_step, split_seeds
from tfp_gaps.posteriors.conditions import LookAhead
from tfp_gaps.sequences import Batch


class Path(NamedTuple):
    """A draw of z_{1:T} from q and what it cost, in nats per step.

    latents: [time, replicas, batch, latent].
    divergence: KL(q(z_t | z_{t-1}, C_t) || p(z_t | z_{t-1})), [time, replicas, batch].
    log_weight: ln p(z_t | z_{t-1}) - ln q(z_t | z_{t-1}, C_t) at the draw, [time, replicas, batch].
    """

    latents: tf.Tensor
    divergence: tf.Tensor
    log_weight: tf.Tensor


def block_resets(num_timesteps, reach):
    """Return 0 where the backward recurrence must forget, else 1: float32 [time].

    The backward state at t starts afresh if t is the last step of its block of `reach` + 1.

    >>> block_resets(6, 1)
    array([1., 0., 1., 0., 1., 0.], dtype=float32)
    """
    steps = np.arange(num_timesteps)
    return ((steps + 1) % (reach + 1) != 0).astype(np.float32)


class LookAheadNetwork(tf.Module):
    """q(z_t | z_{t-1}, x_{1:t+k}, u_{1:t+k-1}) for any k, with one set of parameters.

    Args:
      conditions: `LookAhead`, what q may see.
      observation_size, latent_size, control_size: channels of x_t, z_t, u_t.
      hidden_size: width of the recurrent states and of the layer that joins them with z_{t-1}.
      seeds: int32 [num_replicas, 2], stateless seeds of the initial parameters.
      masked: whether observations can be missing. The network then also reads which are: a zero
        that stands for a missing value is not an observed zero.
      minimum_scale: lower bound on the standard deviations v.
      relative: whether correction, standard deviation and its bound are in units of the prior's
        standard deviation; the network then reads the prior's mean beside z_{t-1}.
      limit: largest correction and standard deviation, in units of the prior's standard deviation;
        None for none. Where the prior is narrow, a context unlike those of training can otherwise
        lead hundreds of standard deviations away.

    Raises:
      TypeError: for conditions that are no `LookAhead`.
      ValueError: for sizes below one.

    >>> from tfp_gaps.networks import replica_seeds
    >>> q = LookAheadNetwork(conditions=LookAhead(1), observation_size=3, latent_size=2,
    ...                      hidden_size=8, seeds=replica_seeds([0], "q"))
    >>> q.conditions.label, q.context(Batch(tf.zeros([5, 1, 4, 3]))).shape
    ('1 ahead', TensorShape([5, 1, 4, 8]))
    """

    def __init__(
        self,
        *,
        conditions,
        observation_size,
        latent_size,
        hidden_size,
        seeds,
        control_size=0,
        masked=False,
        minimum_scale=0.02,
        relative=False,
        limit=None,
        name="look_ahead_network",
    ):
        super().__init__(name=name)
        self.conditions = _look_ahead(conditions)
        self.observation_size = _checks.integer(observation_size, "observation_size", minimum=1)
        self.latent_size = _checks.integer(latent_size, "latent_size", minimum=1)
        self.hidden_size = _checks.integer(hidden_size, "hidden_size", minimum=1)
        self.control_size = _checks.integer(control_size, "control_size", minimum=0)
        self.masked = bool(masked)
        self.minimum_scale = _checks.positive_float(minimum_scale, "minimum_scale")
        self.relative = bool(relative)
        self.limit = None if limit is None else _checks.positive_float(limit, "limit")
        self.num_replicas = int(seeds.shape[0])
        keys = split_seeds(seeds, 7)
        inputs = (2 if masked else 1) * self.observation_size + self.control_size
        width = self.hidden_size
        self._read = [Dense(inputs, 3 * width, seeds=keys[i], name=f"read_{i}") for i in (0, 1)]
        # One variable for both directions: rows 0..S-1 run forward, S..2S-1 backward.
        recurrent = [Dense(width, 3 * width, seeds=keys[i], name="recurrent") for i in (2, 3)]
        self._recurrent_kernel = tf.Variable(
            tf.stack([layer.kernel for layer in recurrent], 1), name="recurrent_kernel"
        )
        self._recurrent_bias = tf.Variable(
            tf.stack([layer.bias for layer in recurrent], 1), name="recurrent_bias"
        )
        self._join = Dense(2 * width, width, seeds=keys[4], name="join")
        states = (2 if self.relative else 1) * self.latent_size
        self._latent = Dense(states, width, seeds=keys[5], use_bias=False, name="latent")
        # Small at the start: q begins close to the prior.
        self._output = Dense(width, 2 * self.latent_size, seeds=keys[6], scale=0.1, name="output")

    @property
    def path_variables(self):
        """Variables that draw paths from contexts, and are of no use to contexts alone."""
        return (*self._latent.trainable_variables, *self._output.trainable_variables)

    def with_conditions(self, conditions):
        """This network under other conditions: a copy that shares its variables."""
        other = copy.copy(self)
        other.conditions = _look_ahead(conditions)
        return other

    def context(self, batch):
        """Summarise C_t for every t.

        Args:
          batch: `Batch` of tensors [time, replicas, batch, channels]. Row t of its controls holds
            u_{t-1} (zero at t = 1), so that x_{1:t+k} brings u_{1:t+k-1}. A network built with
            `masked=True` takes no mask for all observed.

        Returns:
          context: [time, replicas, batch, hidden_size].

        Raises:
          ValueError: for a wrong rank, wrong channels, or a mask that it was not built for.
        """
        self._check(batch)
        num_timesteps = batch.observations.shape[0]
        k = self.conditions.reach(num_timesteps)
        inputs = self._inputs(batch)
        forward, backward = self._recur(
            self._read[0](inputs), self._read[1](inputs), block_resets(num_timesteps, k)
        )
        ahead = np.minimum(np.arange(num_timesteps) + k, num_timesteps - 1)
        return self._join(tf.concat([tf.gather(forward, ahead), backward], -1))

    def begin(self, batch):
        """What `step` starts from, [replicas, batch, hidden_size]."""
        return tf.zeros([self.num_replicas, batch, self.hidden_size])

    def step(self, state, observation, control=None):
        """Go on by one observation, for a filter that is asked as it goes: `context` with
        look-ahead 0, row by row, whatever the conditions.

        Args:
          state: from `begin`, or from the step before.
          observation: x_t, [replicas, batch, channels].
          control: u_{t-1} (zero at t = 1), [replicas, batch, control_size].

        Returns:
          context: summary of C_t = x_{1:t}, [replicas, batch, hidden_size].
          state: [replicas, batch, hidden_size].
        """
        inputs = self._inputs(Batch(observation, control))
        # Without look-ahead the backward direction reads x_t alone, from a blank state.
        states = gru_step(
            tf.concat([read(inputs) for read in self._read], 0),
            tf.concat([state, tf.zeros_like(state)], 0),
            *self._recurrent(),
        )
        forward, backward = tf.split(states, 2)
        return self._join(tf.concat([forward, backward], -1)), forward

    def sample_path(self, model, context, noise, *, controls=None):
        """Draw z_{1:T} from q by running through time.

        Args:
          model: the state-space model whose prior q is relative to.
          context: from `context`, [time, replicas, batch, hidden_size].
          noise: standard normal [time, replicas, batch, latent_size].
          controls: of the batch, or None.

        Returns:
          A `Path`.
        """
        return sample_path(self, model, context, noise, controls)

    def factor(self, prior, latent, context):
        """Return the factor q(z_t | z_{t-1}, C_t) as a DiagonalNormal.

        Args:
          prior: p(z_t | z_{t-1}, u_{t-1}), or p(z_1).
          latent: z_{t-1}, [..., replicas, batch, latent], or None for the first step.
          context: summary of C_t, [..., replicas, batch, hidden_size].
        """
        hidden = context
        if latent is not None:
            # A correction in units of a narrow prior must know where that prior is.
            states = tf.concat([latent, prior.mean], -1) if self.relative else latent
            hidden += self._latent(states)
        correction, raw = tf.split(self._output(tf.nn.relu(hidden)), 2, axis=-1)
        if self.relative:
            # softplus(.5413) = 1: an untrained q is the prior.
            correction *= prior.scale
            scale = prior.scale * positive(raw + 1.5413, self.minimum_scale)
        else:
            scale = positive(raw, self.minimum_scale)
        if self.limit is not None:
            largest = self.limit * prior.scale
            correction = largest * tf.tanh(correction / largest)
            scale = tf.minimum(scale, largest)
        return DiagonalNormal(prior.mean + correction, scale)

    def _inputs(self, batch):
        observations, controls, mask = batch
        parts = [observations]
        if self.masked:
            seen = tf.ones_like(observations) if mask is None else tf.cast(mask, tf.float32)
            parts = [observations * seen, seen]
        return tf.concat(parts + ([] if controls is None else [controls]), -1)

    def _recur(self, forward_inputs, backward_inputs, keep):
        """Run both directions in one loop and return their states, each [time, replicas, batch,
        h]."""
        s, width = self.num_replicas, self.hidden_size
        rows = tf.concat([forward_inputs, tf.reverse(backward_inputs, [0])], 1)
        reset = np.repeat(
            np.stack([np.ones_like(keep), keep[::-1]], 1)[:, :, np.newaxis, np.newaxis], s, axis=1
        )
        states = gru_scan(rows, *self._recurrent(), tf.constant(reset, rows.dtype))
        states = tf.ensure_shape(states, [None, 2 * s, None, width])
        return states[:, :s], tf.reverse(states[:, s:], [0])

    def _recurrent(self):
        """Kernel and bias of both directions, the rows of the forward one first."""
        return (
            tf.concat(tf.unstack(parameter, axis=1), 0)
            for parameter in (self._recurrent_kernel, self._recurrent_bias)
        )

    def _check(self, batch):
        expected = (self.num_replicas, self.observation_size)
        shape = batch.observations.shape
        if shape.rank != 4 or (shape[1], shape[3]) != expected:
            raise ValueError(
                f"observations must have shape [time, replicas, batch, channels] with "
                f"{expected[0]} replica(s) and {expected[1]} channel(s), but have shape "
                f"{tuple(shape)}. Transpose to time-major and add the replica axis."
            )
        if batch.mask is not None and not self.masked:
            raise ValueError(
                "these observations have missing values, but the network was built without "
                "masked=True and would take them for zeros. Build it with masked=True."
            )
        given = 0 if batch.controls is None else batch.controls.shape[-1]
        if given != self.control_size:
            raise ValueError(
                f"this network was built for {self.control_size} control channel(s), but got "
                f"{given}. Pass controls of the size it was built with."
            )


def sample_path(posterior, model, context, noise, controls=None):
    """`LookAheadNetwork.sample_path` of any posterior that has its method `factor`."""
    initial = model.initial()

    def draw(prior, latent, context_now, noise_now):
        factor = posterior.factor(prior, latent, context_now)
        # Offset and width in units of the prior's scale are all that the cost needs.
        offset = (factor.mean - prior.mean) / prior.scale
        drawn = factor.mean + factor.scale * noise_now
        return drawn, offset, factor.scale / prior.scale

    def advance(carry, time_slice):
        context_now, noise_now, *control = time_slice
        return draw(model.transition(carry[0], *control), carry[0], context_now, noise_now)

    first = draw(initial, None, context[0], noise[0])
    elements = [context[1:], noise[1:]] + ([] if controls is None else [controls[1:]])
    later = tf.scan(advance, tuple(elements), initializer=first)
    latents, offset, ratio = (
        tf.concat([start[tf.newaxis], rest], 0) for start, rest in zip(first, later, strict=True)
    )
    return Path(latents, *_cost(offset, ratio, noise))


def _look_ahead(conditions):
    if not isinstance(conditions, LookAhead):
        raise TypeError(
            f"conditions should be a LookAhead, but are {conditions!r}. Give LookAhead(k), or FULL."
        )
    return conditions


def _cost(offset, ratio, noise):
    """KL(q || p) and ln p - ln q at the draw, for N(offset, ratio^2) against N(0, 1)."""
    log_ratio = tf.math.log(ratio)
    divergence = tf.reduce_sum(0.5 * (ratio**2 + offset**2 - 1.0) - log_ratio, -1)
    standardised = offset + ratio * noise
    log_weight = tf.reduce_sum(log_ratio + 0.5 * (noise**2 - standardised**2), -1)
    return divergence, log_weight
