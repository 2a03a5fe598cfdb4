"""State-space models p(z_{1:T}, x_{1:T} | u_{1:T-1}) as densities, with learned or fixed
parameters.

    p(z_1) prod_{t>1} p(z_t | z_{t-1}, u_{t-1}) prod_t p(x_t | z_t),   all p(z_t | .) diagonal
    normal.

There is no connection from x_{t-1} to x_t: it would let the observations explain each other past
the latent state and hide the conditioning gap (Bayer et al. 2021 study exactly this class).

Shapes: latents are [time, replicas, batch, latent], or [replicas, batch, latent] for a single step.
A model is anything that offers `num_replicas`, `latent_size`, `initial()`, `transition(z, u)` and
`emission(z)` as here; `models.own` checks and takes those in other words.
"""

from typing import NamedTuple

import numpy as np

from tfp_gaps._checks import integer, one_of
from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.networks import MLP, flat_matmul, split_seeds

tfd = tfp.distributions

MODEL = ("num_replicas", "latent_size", "initial", "transition", "emission")
"""What a state-space model offers."""

EMISSIONS = ("bernoulli", "normal", "student_t", "heteroscedastic")
MINIMUM_NOISE = 0.05


class DiagonalNormal(NamedTuple):
    """Mean and standard deviation of a normal with independent components, [..., latent]."""

    mean: tf.Tensor
    scale: tf.Tensor


def positive(raw, minimum):
    """Softplus, shifted so that 0 maps to about 0.31, bounded below by `minimum`."""
    return tf.nn.softplus(raw - 1.0) + minimum


class StateSpace(tf.Module):
    """A deep state-space model: gated residual transition, one-hidden-layer emission.

        z_1 ~ N(m, diag s^2)
        z_t ~ N((1 - g) z_{t-1} + g f, diag s^2),   (g, f, s) = MLP(z_{t-1}, u_{t-1})

    and one of four emissions, the channels independent given z_t:

        bernoulli        x_t ~ Bernoulli(sigmoid(MLP(z_t)))
        normal           x_t ~ N(MLP(z_t), diag r^2),            r learned per channel
        student_t        x_t ~ Student-t(n, MLP(z_t), diag r^2), r and n > 2 learned per channel
        heteroscedastic  x_t ~ N(m, diag r^2),                   (m, r) = MLP(z_t)

    Args:
      observation_size: number of channels of x_t.
      latent_size: number of components of z_t.
      hidden_size: width of both hidden layers.
      emission: "bernoulli", "normal", "student_t" or "heteroscedastic".
      seeds: int32 [num_replicas, 2], stateless seeds of the initial parameters.
      control_size: number of channels of u_t; 0 for none.
      minimum_scale: lower bound on the standard deviations of p(z_t | .). The divergence from q
        divides by the prior's variance: at 1e-3 gradients of 1e8 were seen, at 2e-2 of 1e5.

    Raises:
      ValueError: for sizes below one or an unknown emission.

    >>> from tfp_gaps.networks import replica_seeds
    >>> model = StateSpace(observation_size=3, latent_size=2, hidden_size=8, emission="normal",
    ...                    seeds=replica_seeds([0, 1], "model"))
    >>> sample_latents(model, tf.zeros([5, 2, 4, 2])).shape  # [time, replicas, batch, latent]
    TensorShape([5, 2, 4, 2])
    """

    def __init__(
        self,
        *,
        observation_size,
        latent_size,
        hidden_size,
        emission,
        seeds,
        control_size=0,
        minimum_scale=0.02,
        name="state_space",
    ):
        super().__init__(name=name)
        self.observation_size = integer(observation_size, "observation_size", minimum=1)
        self.latent_size = integer(latent_size, "latent_size", minimum=1)
        hidden_size = integer(hidden_size, "hidden_size", minimum=1)
        self.control_size = integer(control_size, "control_size", minimum=0)
        self.emission_family = one_of(emission, "emission", EMISSIONS)
        self.num_replicas = int(seeds.shape[0])
        self.minimum_scale = minimum_scale
        transition_seeds, emission_seeds = split_seeds(seeds, 2)
        self._initial_mean = tf.Variable(tf.zeros([self.num_replicas, 1, latent_size]), name="mean")
        # softplus(0.5413 + 1 - 1) = 1: the first state starts as a standard normal.
        self._initial_raw = tf.Variable(
            tf.fill([self.num_replicas, 1, latent_size], 1.5413), name="scale"
        )
        self._transition = MLP(
            latent_size + self.control_size,
            hidden_size,
            3 * latent_size,
            seeds=transition_seeds,
            output_scale=0.1,
            name="transition",
        )
        outputs = (2 if emission == "heteroscedastic" else 1) * self.observation_size
        self._emission = MLP(
            latent_size, hidden_size, outputs, seeds=emission_seeds, name="emission"
        )
        shape = [self.num_replicas, 1, self.observation_size]
        if emission in ("normal", "student_t"):
            self._noise_raw = tf.Variable(tf.fill(shape, 1.0), name="observation_noise")
        if emission == "student_t":
            # Six degrees of freedom at the start: outliers are allowed for, the variance exists.
            self._tail_raw = tf.Variable(tf.fill(shape, 4.0), name="degrees_of_freedom")

    def initial(self):
        """Return p(z_1) as a DiagonalNormal of shape [replicas, 1, latent]."""
        return DiagonalNormal(self._initial_mean, positive(self._initial_raw, self.minimum_scale))

    def transition(self, latent, control=None):
        """Return p(z_t | z_{t-1}, u_{t-1}) for z_{t-1} [..., replicas, batch, latent]."""
        inputs = latent if control is None else tf.concat([latent, control], -1)
        gate, proposal, raw = tf.split(self._transition(inputs), 3, axis=-1)
        gate = tf.sigmoid(gate)
        return DiagonalNormal(
            (1.0 - gate) * latent + gate * proposal, positive(raw, self.minimum_scale)
        )

    def emission(self, latent):
        """Return p(x_t | z_t) as a distribution: batch [..., replicas, batch], event [channels]."""
        outputs = self._emission(latent)
        if self.emission_family == "bernoulli":
            return tfd.Independent(tfd.Bernoulli(logits=outputs), 1)
        if self.emission_family == "heteroscedastic":
            mean, raw = tf.split(outputs, 2, axis=-1)
            return tfd.Independent(tfd.Normal(mean, positive(raw, MINIMUM_NOISE)), 1)
        scale = positive(self._noise_raw, MINIMUM_NOISE) * tf.ones_like(outputs)
        if self.emission_family == "student_t":
            tail = 2.0 + tf.nn.softplus(self._tail_raw) * tf.ones_like(outputs)
            return tfd.Independent(tfd.StudentT(tail, outputs, scale), 1)
        return tfd.Independent(tfd.Normal(outputs, scale), 1)


class LinearGaussianStateSpace(tf.Module):
    """The linear-Gaussian chain with fixed parameters, as a model that networks can be tested on.

        z_1 ~ N(0, P_0),  z_t ~ N(A z_{t-1}, Q),  x_t ~ N(C z_t, R),   P_0, Q, R diagonal.

    The exact evidence and gaps are in `tfp_gaps.exact.linear_gaussian`.

    Args:
      exact: a `tfp_gaps.exact.linear_gaussian.LinearGaussian` (its arrays are read).
      num_replicas: number of replicas; all share these parameters.

    Raises:
      ValueError: if a covariance is not diagonal.

    >>> from tfp_gaps.exact.linear_gaussian import LinearGaussian
    >>> model = LinearGaussianStateSpace(LinearGaussian(0.9, 0.1, 1.0, 1.0, 0.5))
    >>> float(model.transition(tf.ones([1, 1, 1])).mean)
    0.8999999761581421
    """

    def __init__(self, exact, *, num_replicas=1, name="linear_gaussian_state_space"):
        super().__init__(name=name)
        self.num_replicas = integer(num_replicas, "num_replicas", minimum=1)
        self.exact = exact
        # Transposed: states are rows.
        self._transition = tf.constant(exact.transition.T, tf.float32)
        self._emission = tf.constant(exact.emission.T, tf.float32)
        self.observation_size, self.latent_size = exact.emission.shape
        self.control_size = 0
        self._initial_scale = _diagonal_scale(exact.initial_cov, "initial_cov")
        self._transition_scale = _diagonal_scale(exact.transition_cov, "transition_cov")
        self._emission_scale = _diagonal_scale(exact.emission_cov, "emission_cov")

    def initial(self):
        """Return p(z_1) as a DiagonalNormal of shape [replicas, 1, latent]."""
        scale = tf.broadcast_to(self._initial_scale, [self.num_replicas, 1, self.latent_size])
        return DiagonalNormal(tf.zeros_like(scale), scale)

    def transition(self, latent, control=None):
        """Return p(z_t | z_{t-1}) for z_{t-1} [..., replicas, batch, latent]."""
        del control
        mean = flat_matmul(latent, self._transition)
        return DiagonalNormal(mean, self._transition_scale * tf.ones_like(mean))

    def emission(self, latent):
        """Return p(x_t | z_t) as a distribution: batch [..., replicas, batch], event [channels]."""
        mean = flat_matmul(latent, self._emission)
        return tfd.Independent(tfd.Normal(mean, self._emission_scale * tf.ones_like(mean)), 1)


def _diagonal_scale(covariance, name):
    covariance = np.asarray(covariance)
    variances = np.diagonal(covariance)
    if not np.allclose(covariance, np.diag(variances), atol=0.0):
        raise ValueError(
            f"{name} must be diagonal, because q and p are compared component by component, but "
            f"has entries off the diagonal: {covariance.tolist()}. Rotate the state first."
        )
    return tf.constant(np.sqrt(variances), tf.float32)


def step(model, latent, noise, control=None):
    """Draw z_t given z_{t-1}: mean + scale * noise, all [..., replicas, batch, latent]."""
    prior = model.transition(latent, control)
    return prior.mean + prior.scale * noise


def check_sizes(model, sequences):
    """Refuse sequences of other channels or controls than the model's: some would broadcast; and
    controls into the first step, which are those of another step where rows are shifted."""
    channels = sequences.observations.shape[-1]
    if len(sequences) == 0 or channels != model.observation_size:
        raise ValueError(
            f"sequences must hold at least one sequence with the model's {model.observation_size} "
            f"channel(s), but hold {len(sequences)} with {channels}. Pass the data that the model "
            f"was built for."
        )
    check_controls(model, 0 if sequences.controls is None else sequences.controls.shape[-1])
    if sequences.controls is None:
        return
    acting = np.any(sequences.controls[0] != 0.0, axis=-1)
    if acting.any():
        raise ValueError(
            f"controls must be zero in row 0, as row t acts into step t and nothing acts into the "
            f"first, but in {int(acting.sum())} of {len(acting)} sequences they are not. Where row "
            f"t acts out of step t, shift them: np.concatenate([np.zeros_like(u[:1]), u[:-1]]). "
            f"Where sequences are cut from longer ones, set row 0 to zero."
        )


def check_controls(model, size):
    """Refuse controls of another size than the model's."""
    if size != model.control_size:
        raise ValueError(
            f"this model was built for {model.control_size} control channel(s), but got {size}. "
            f"Pass the controls that it was trained with."
        )


def check_channels(emission):
    """Refuse an emission whose channels cannot be left out one by one, where values are missing."""
    if not isinstance(emission, tfd.Independent) or emission.distribution.event_shape.rank != 0:
        raise ValueError(
            f"where values are missing the emission must be tfd.Independent over its channels, but "
            f"is a {type(emission).__name__}: a channel could not be left out. Return "
            f"tfd.Independent(tfd.Normal(mean, scale), 1), for instance."
        )


def log_likelihood(model, latents, observations, mask=None):
    """Evaluate ln p(x_t | z_t) over the observed channels, in nats per step.

    Args:
      model: a state-space model.
      latents: [..., replicas, batch, latent].
      observations: [..., replicas, batch, channels]; any finite value where missing.
      mask: 1 where observed, 0 where missing, of the shape of `observations`; None for all
        observed.

    Returns:
      log_likelihood: [..., replicas, batch]. A step without any observation adds zero: missing
      values are integrated out, which for independent channels means left out.

    Raises:
      ValueError: for a mask where the emission does not say that its channels are independent.
    """
    emission = model.emission(latents)
    if mask is None:
        return emission.log_prob(observations)
    check_channels(emission)
    per_channel = emission.distribution.log_prob(observations)
    return tf.reduce_sum(tf.cast(mask, per_channel.dtype) * per_channel, -1)


def sample_latents(model, noise, controls=None):
    """Draw z_{1:T} from the prior.

    Args:
      model: a state-space model.
      noise: standard normal [time, replicas, batch, latent].
      controls: [time, replicas, batch, control] or None; u_t acts between t and t + 1.

    Returns:
      latents: [time, replicas, batch, latent].
    """
    first = model.initial()
    path = [first.mean + first.scale * noise[0]]
    for t in range(1, noise.shape[0]):
        path.append(step(model, path[-1], noise[t], None if controls is None else controls[t - 1]))
    return tf.stack(path)
