"""A state-space model to act on: its first latents are what the sensor shows.

    z_1 ~ N(m_1, diag s_1^2)
    z_t ~ N(A z_{t-1} + B u_{t-1} + MLP(z_{t-1}, u_{t-1}), diag s^2)
    x_t ~ N(z_t[:channels], diag r^2)

All of m_1, s_1, A, B, s, r and the network are learned. That the emission is fixed up to its noise
has two uses: a reward that is known for what the sensor shows is known for the latents too, and the
particle filter below can propose from p(z_t | z_{t-1}, x_t) in closed form. A bootstrap filter
starves on a model that was learned under partial conditions, because that believes its sensor.

Shapes as in `models.state_space`.
"""

import math

from tfp_gaps import _checks
from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.models.state_space import DiagonalNormal
from tfp_gaps.networks import MLP, Dense, split_seeds

tfd = tfp.distributions

# Where the scales of transition and sensor start: the data are of order one.
_MOVE, _SENSOR = 0.1, 0.2


class WorldModel(tf.Module):
    """The model above.

    Args:
      observation_size: channels of x_t.
      latent_size: components of z_t, at least as many.
      control_size: channels of u_t.
      hidden_size: width of the hidden layer (tanh).
      seeds: int32 [num_replicas, 2], stateless seeds of the initial parameters.
      first_scale: where s_1 starts. A hidden dimension with little room at the start may never be
        used: where it should vary by several s, give it that.
      minimum_scale: lower bound on s_1, s and r.

    Raises:
      ValueError: for sizes below one, fewer latents than channels, or a scale that is not positive.
    """

    def __init__(
        self,
        *,
        observation_size,
        latent_size,
        control_size,
        hidden_size,
        seeds,
        first_scale=0.7,
        minimum_scale=2e-3,
        name="world_model",
    ):
        super().__init__(name=name)
        self.observation_size = _checks.integer(observation_size, "observation_size", minimum=1)
        self.latent_size = _checks.integer(latent_size, "latent_size", minimum=observation_size)
        self.control_size = _checks.integer(control_size, "control_size", minimum=1)
        hidden_size = _checks.integer(hidden_size, "hidden_size", minimum=1)
        self.minimum_scale = _checks.positive_float(minimum_scale, "minimum_scale")
        self.num_replicas = int(seeds.shape[0])
        linear_seeds, network_seeds = split_seeds(seeds, 2)
        inputs = latent_size + control_size
        # The identity is added below: at the start the state stays where it is.
        self._linear = Dense(inputs, latent_size, seeds=linear_seeds, scale=0.1, name="linear")
        self._network = MLP(
            inputs,
            hidden_size,
            latent_size,
            seeds=network_seeds,
            activation="tanh",
            output_scale=0.1,
            name="transition",
        )
        self._first_mean = tf.Variable(self._filled(latent_size, 0.0), name="first_mean")
        self._log_first, self._log_move, self._log_sensor = (
            tf.Variable(self._filled(size, math.log(scale)), name=name)
            for size, scale, name in (
                (latent_size, _checks.positive_float(first_scale, "first_scale"), "first_scale"),
                (latent_size, _MOVE, "transition_scale"),
                (observation_size, _SENSOR, "observation_noise"),
            )
        )

    def _filled(self, size, value):
        return tf.fill([self.num_replicas, 1, size], float(value))

    def set_parameters(self, *, linear, first_scale, transition_scale, observation_noise):
        """Make it linear and known: all replicas alike, first state around zero.

        Args:
          linear: rows of states, then of controls, [latent + control, latent]; what is added to
            the state.
          first_scale, transition_scale, observation_noise: s_1, s and r, at least the minimum.
        """
        self._linear.kernel.assign(tf.repeat(tf.constant(linear)[tf.newaxis], self.num_replicas, 0))
        self._linear.bias.assign(tf.zeros_like(self._linear.bias))
        for parameter in (self._network.output.kernel, self._network.output.bias):
            parameter.assign(tf.zeros_like(parameter))
        self._first_mean.assign(tf.zeros_like(self._first_mean))
        for variable, scale in (
            (self._log_first, first_scale),
            (self._log_move, transition_scale),
            (self._log_sensor, observation_noise),
        ):
            variable.assign(tf.fill(variable.shape, math.log(scale - self.minimum_scale)))

    def initial(self):
        """Return p(z_1) as a DiagonalNormal of shape [replicas, 1, latent]."""
        return DiagonalNormal(self._first_mean, tf.exp(self._log_first) + self.minimum_scale)

    def transition(self, latent, control):
        """Return p(z_t | z_{t-1}, u_{t-1}) for z_{t-1} [..., replicas, batch, latent]."""
        inputs = tf.concat([latent, control], -1)
        mean = latent + self._linear(inputs) + self._network(inputs)
        return DiagonalNormal(mean, self.transition_scale * tf.ones_like(mean))

    def emission(self, latent):
        """Return p(x_t | z_t) as a distribution: batch [..., replicas, batch], event [channels]."""
        mean = self.shown(latent)
        return tfd.Independent(tfd.Normal(mean, self.observation_noise * tf.ones_like(mean)), 1)

    def shown(self, latent):
        """The part of the state that the sensor shows, [..., channels]."""
        return latent[..., : self.observation_size]

    @property
    def transition_scale(self):
        """s, [replicas, 1, latent]."""
        return tf.exp(self._log_move) + self.minimum_scale

    @property
    def observation_noise(self):
        """r, [replicas, 1, channels]."""
        return tf.exp(self._log_sensor) + self.minimum_scale


def adapted(model, prior, observation):
    """Condition one step of the model on what is observed at its end, in closed form.

    Args:
      model: `WorldModel`.
      prior: p(z_t | z_{t-1}, u_{t-1}), a DiagonalNormal [..., replicas, batch, latent].
      observation: x_t, broadcastable to [..., replicas, batch, channels].

    Returns:
      posterior: p(z_t | z_{t-1}, u_{t-1}, x_t), a DiagonalNormal.
      log_predictive: ln p(x_t | z_{t-1}, u_{t-1}), [..., replicas, batch], nats.
    """
    size = model.observation_size
    mean, scale = prior.mean[..., :size], prior.scale[..., :size]
    error = observation - mean
    variance = scale**2 + model.observation_noise**2
    gain = scale**2 / variance
    narrowed = scale * model.observation_noise / tf.sqrt(variance)
    log_predictive = -0.5 * tf.reduce_sum(
        error**2 / variance + tf.math.log(2 * math.pi * variance), -1
    )
    hidden_mean, hidden_scale = prior.mean[..., size:], prior.scale[..., size:]
    posterior = DiagonalNormal(
        tf.concat([mean + gain * error, tf.broadcast_to(hidden_mean, _as(error, hidden_mean))], -1),
        tf.concat(
            [
                tf.broadcast_to(narrowed, tf.shape(error)),
                tf.broadcast_to(hidden_scale, _as(error, hidden_scale)),
            ],
            -1,
        ),
    )
    return posterior, log_predictive


def _as(leading, last):
    """The shape of `leading` with the last axis of `last`."""
    return tf.concat([tf.shape(leading)[:-1], [last.shape[-1]]], 0)
