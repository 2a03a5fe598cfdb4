"""A network that is a filter: p(z_t | x_{1:t}, u_{1:t-1}), fitted by maximum likelihood.

    minimise  E_{x} E_{z ~ smoother(x_{1:T})} sum_t - ln f(z_t | x_{1:t}, u_{1:t-1})

The smoother's marginal, averaged over the future x_{t+1:T}, is the filter. Maximum likelihood on
its samples therefore aims at the mixture that the filter is, where the ELBO under partial
conditions aims at the product of smoothers (`exact.bit`). f is a mixture of Gaussians with full
covariances whose parameters a recurrent network reads off x_{1:t}.

Shapes: [time, replicas, batch, channels].
"""

from tfp_gaps import _checks
from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.networks import MLP, split_seeds
from tfp_gaps.posteriors.conditions import LookAhead
from tfp_gaps.posteriors.look_ahead import LookAheadNetwork

tfd = tfp.distributions
tfb = tfp.bijectors


class FilterNetwork(tf.Module):
    """A mixture density network on a gated recurrent unit.

    Args:
      observation_size, latent_size, control_size: channels of x_t, z_t, u_t.
      hidden_size: width of the recurrent state and of the head's hidden layer.
      seeds: int32 [num_replicas, 2], stateless seeds of the initial parameters.
      num_components: of the mixture; 1 for a Gaussian.
      minimum_scale: lower bound on the diagonal of the components' Cholesky factors.

    Raises:
      ValueError: for sizes below one.
    """

    def __init__(
        self,
        *,
        observation_size,
        latent_size,
        hidden_size,
        seeds,
        control_size=0,
        num_components=5,
        minimum_scale=1e-3,
        name="filter_network",
    ):
        super().__init__(name=name)
        self.latent_size = _checks.integer(latent_size, "latent_size", minimum=1)
        self.control_size = _checks.integer(control_size, "control_size", minimum=0)
        self.num_components = _checks.integer(num_components, "num_components", minimum=1)
        self.num_replicas = int(seeds.shape[0])
        reader_seeds, head_seeds = split_seeds(seeds, 2)
        # The recurrence is that of the inference network; with look-ahead 0 it reads x_{1:t}.
        self._reader = LookAheadNetwork(
            conditions=LookAhead(0),
            observation_size=observation_size,
            latent_size=latent_size,
            hidden_size=hidden_size,
            control_size=control_size,
            seeds=reader_seeds,
        )
        triangle = latent_size * (latent_size + 1) // 2
        self._head = MLP(
            hidden_size,
            hidden_size,
            self.num_components * (1 + latent_size + triangle),
            seeds=head_seeds,
            name="head",
        )
        # softplus(-1.7) = .17: components start narrower than the data, which are of order one.
        self._factor = tfb.FillScaleTriL(
            diag_bijector=tfb.Chain([tfb.Softplus(low=minimum_scale), tfb.Shift(-1.7)])
        )

    @property
    def trainable_variables(self):
        """Those of the recurrence and the head; what the reader has to draw paths is not used."""
        unused = {id(v) for v in self._reader.path_variables}
        return tuple(v for v in super().trainable_variables if id(v) not in unused)

    def context(self, batch):
        """Summarise x_{1:t}, u_{1:t-1} for every t: [time, replicas, batch, hidden_size]."""
        return tf.nn.relu(self._reader.context(batch))

    def begin(self, batch):
        """What `step` starts from, [replicas, batch, hidden_size]."""
        return self._reader.begin(batch)

    def step(self, state, observation, control=None):
        """Go on by one observation: (context [replicas, batch, hidden_size], state)."""
        context, state = self._reader.step(state, observation, control)
        return tf.nn.relu(context), state

    def mixture(self, context):
        """Return f(z_t | x_{1:t}, u_{1:t-1}) as a distribution with the batch shape of `context`.

        Args:
          context: [..., replicas, batch, hidden_size].
        """
        outputs = self._head(context)
        count, size = self.num_components, self.latent_size
        leading = _static(outputs, outputs.shape[:-1])
        rest = tf.reshape(outputs[..., count:], [*leading, count, -1])
        return tfd.MixtureSameFamily(
            tfd.Categorical(logits=outputs[..., :count]),
            tfd.MultivariateNormalTriL(rest[..., :size], self._factor(rest[..., size:])),
        )


def negative_log_likelihood(network, smoother):
    """The loss (batch, seeds, kl_weight) -> [replicas], nats per sequence; see `training.fit`.

    Args:
      network: `FilterNetwork`.
      smoother: callable (batch, seeds) -> latents [time, replicas, batch, latent], a fresh draw
        from p(z_{1:T} | x_{1:T}) or its approximation.
    """

    def loss(batch, seeds, kl_weight):
        del kl_weight
        latents = tf.stop_gradient(smoother(batch, seeds))
        log_prob = network.mixture(network.context(batch)).log_prob(latents)
        return -tf.reduce_mean(tf.reduce_sum(log_prob, 0), -1)

    return loss


def _static(tensor, leading):
    dynamic = tf.shape(tensor)
    return [dynamic[i] if n is None else n for i, n in enumerate(leading)]
