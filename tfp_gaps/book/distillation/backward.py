"""A variational posterior that runs backwards in time, so that it holds a filter and no gap.

    q(z_{1:s} | x_{1:s}) = f(z_s | x_{1:s}) prod_{t<s} b(z_t | z_{t+1}, x_{1:t})

Given z_{t+1} the future has no more to say about z_t, so each kernel b needs the past alone, and f
at the last step is by definition a filter. Nothing that the true posterior depends on is left out:
the bound on ln p(x_{1:s}) can be tight for every s at once, and f is then p(z_s | x_{1:s})
(Campbell et al. 2021, whose recursions are online; here networks read x_{1:t}, and the last step s
is drawn anew for each sequence). It is trained by the ELBO, or by likelihood on paths drawn from p.

Shapes: [time, replicas, batch, channels].
"""

from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.book.distillation.filter_network import FilterNetwork
from tfp_gaps.models.state_space import DiagonalNormal, log_likelihood, positive
from tfp_gaps.models.vae import standard_normal_log_prob
from tfp_gaps.networks import MLP, replica_normal, split_seeds

tfd = tfp.distributions


class BackwardNetwork(tf.Module):
    """A Gaussian filter and the kernels that lead back from it.

    Args:
      observation_size, latent_size: channels of x_t, z_t.
      hidden_size: width of the recurrent state and of the hidden layers.
      seeds: int32 [num_replicas, 2], stateless seeds of the initial parameters.
      minimum_scale: lower bound on the kernels' standard deviations.

    Attributes:
      filter: `FilterNetwork` with one component.
    """

    def __init__(
        self,
        *,
        observation_size,
        latent_size,
        hidden_size,
        seeds,
        minimum_scale=1e-3,
        name="backward_network",
    ):
        super().__init__(name=name)
        filter_seeds, kernel_seeds = split_seeds(seeds, 2)
        self.filter = FilterNetwork(
            observation_size=observation_size,
            latent_size=latent_size,
            hidden_size=hidden_size,
            num_components=1,
            seeds=filter_seeds,
        )
        self._kernel = MLP(
            hidden_size + 2 * latent_size,
            hidden_size,
            3 * latent_size,
            seeds=kernel_seeds,
            output_scale=0.1,
            name="kernel",
        )
        self.minimum_scale = minimum_scale

    @property
    def trainable_variables(self):
        """Those of the filter and of the kernels."""
        return (*self.filter.trainable_variables, *self._kernel.trainable_variables)

    def filtered(self, context):
        """f(z_t | x_{1:t}) as a `tfd.MultivariateNormalTriL` with the batch shape of `context`."""
        return self.filter.mixture(context).components_distribution[..., 0]

    def kernel(self, later, context, mean):
        """b(z_t | z_{t+1}, x_{1:t}) as a DiagonalNormal: between the filter's mean and z_{t+1}.

        Args:
          later: z_{t+1}, [..., replicas, batch, latent].
          context: of x_{1:t}, [..., replicas, batch, hidden_size].
          mean: of f(z_t | x_{1:t}), [..., replicas, batch, latent].
        """
        gate, shift, raw = tf.split(self._kernel(tf.concat([context, later, mean], -1)), 3, axis=-1)
        between = mean + tf.sigmoid(gate) * (later - mean)
        return DiagonalNormal(between + shift, positive(raw, self.minimum_scale))

    def sample_path(self, context, last, noise):
        """Draw z_{1:s} by running backwards from step s.

        Args:
          context: from `filter.context`, [time, replicas, batch, hidden_size].
          last: index of step s, counted from 0, int32 [replicas, batch].
          noise: standard normal [time, replicas, batch, latent].

        Returns:
          latents: [time, replicas, batch, latent]; after step s they mean nothing.
          log_prob: ln q of each step's draw, [time, replicas, batch]; 0 after step s.
        """
        filtered = self.filtered(context)
        mean, factor = filtered.loc, filtered.scale_tril
        starts = mean + tf.linalg.matvec(factor, noise)
        steps = tf.range(context.shape[0])
        at_end = (steps[:, tf.newaxis, tf.newaxis] == last)[..., tf.newaxis]

        def advance(carry, time_slice):
            start, context_now, mean_now, noise_now, ends = time_slice
            kernel = self.kernel(carry[0], context_now, mean_now)
            latent = tf.where(ends, start, kernel.mean + kernel.scale * noise_now)
            return latent, kernel.scale

        blank = tf.zeros_like(starts[0]), tf.ones_like(starts[0])
        elements = starts, context, mean, noise, at_end
        latents, scales = tf.scan(advance, elements, initializer=blank, reverse=True)
        logdet = tf.reduce_sum(tf.math.log(tf.linalg.diag_part(factor)), -1)
        log_scale = tf.where(at_end[..., 0], logdet, tf.reduce_sum(tf.math.log(scales), -1))
        log_prob = standard_normal_log_prob(noise) - log_scale
        inside = tf.cast(steps[:, tf.newaxis, tf.newaxis] <= last, log_prob.dtype)
        return latents, inside * log_prob


def log_weights(model, network, batch, noise, last):
    """ln p(x_{1:s}, z_{1:s}) - ln q(z_{1:s} | x_{1:s}) at a draw of q, nats per sequence.

    Its expectation is the ELBO of x_{1:s}.

    Args:
      model: state-space model without controls.
      network: `BackwardNetwork`.
      batch: `Batch` of tensors [time, replicas, batch, channels], without controls or mask.
      noise: standard normal [time, replicas, batch, latent].
      last: index of step s, counted from 0, int32 [replicas, batch].

    Returns:
      [replicas, batch].
    """
    latents, log_q = network.sample_path(network.filter.context(batch), last, noise)
    steps = tf.range(len(noise))[:, tf.newaxis, tf.newaxis]
    inside = tf.cast(steps <= last, log_q.dtype)
    return tf.reduce_sum(inside * _log_joint(model, latents, batch) - log_q, 0)


def path_log_prob(network, batch, latents):
    """ln of the parts of q at given paths: ln f(z_t | x_{1:t}) and ln b(z_t | z_{t+1}, x_{1:t}).

    Args:
      network: `BackwardNetwork`.
      batch: as in `log_weights`.
      latents: z_{1:T}, [time, replicas, batch, latent].

    Returns:
      filtered: [time, replicas, batch], nats.
      kernels: [time - 1, replicas, batch], nats.
    """
    context = network.filter.context(batch)
    filtered = network.filtered(context)
    kernel = network.kernel(latents[1:], context[:-1], filtered.loc[:-1])
    return filtered.log_prob(latents), _log_prob(kernel, latents[:-1])


def path_log_weights(model, network, batch, latents):
    """ln p(x_{1:T}, z_{1:T}) - ln q(z_{1:T} | x_{1:T}) at given paths, nats per sequence.

    At draws of p(z_{1:T} | x_{1:T}) its expectation is ln p(x_{1:T}) + KL(p || q).

    Args:
      model, network, batch: as in `log_weights`.
      latents: as in `path_log_prob`.

    Returns:
      [replicas, batch].
    """
    filtered, kernels = path_log_prob(network, batch, latents)
    joint = tf.reduce_sum(_log_joint(model, latents, batch), 0)
    return joint - filtered[-1] - tf.reduce_sum(kernels, 0)


def negative_elbo(model, network):
    """The loss (batch, seeds, kl_weight) -> [replicas], nats per sequence; see `training.fit`.

    The last step is drawn uniformly for each sequence, so that f learns to be the filter at every
    step.

    Args:
      model: state-space model without controls.
      network: `BackwardNetwork`.
    """

    def loss(batch, seeds, kl_weight):
        del kl_weight
        time, _, size, _ = batch.observations.shape
        noise_seeds, last_seeds = split_seeds(seeds, 2)
        noise = replica_normal([time, size, model.latent_size], noise_seeds, axis=1)
        last = tf.stack(
            [
                tf.random.stateless_uniform([size], seed, 0, time, tf.int32, alg="philox")
                for seed in tf.unstack(last_seeds)
            ]
        )
        return -tf.reduce_mean(log_weights(model, network, batch, noise, last), -1)

    return loss


def negative_log_likelihood(network):
    """The loss (batch, seeds, kl_weight) -> [replicas], nats per sequence; see `training.fit`.

    A path and the observations that it made, drawn from p, are a draw of the posterior. So

        E_{z, x ~ p} - ln q(z_{1:s} | x_{1:s})

    is KL(p || q), averaged over x, up to a constant. Its mean over a uniform s, which
    `negative_elbo` draws, is a sum here: f counts at every step, b where s is later.

    `batch` is the pair of a `Batch` and the latents that made its observations.

    Args:
      network: `BackwardNetwork`.
    """

    def loss(batch, seeds, kl_weight):
        del seeds, kl_weight
        filtered, kernels = path_log_prob(network, *batch)
        later = tf.range(len(kernels), 0, -1) / len(filtered)  # P(s > t)
        weighted = tf.cast(later, kernels.dtype)[:, tf.newaxis, tf.newaxis] * kernels
        total = tf.reduce_mean(filtered, 0) + tf.reduce_sum(weighted, 0)
        return -tf.reduce_mean(total, -1)

    return loss


def _log_joint(model, latents, batch):
    """ln p(z_t | z_{t-1}) + ln p(x_t | z_t) of each step, [time, replicas, batch]."""
    first, later = model.initial(), model.transition(latents[:-1])
    log_prior = tf.concat(
        [_log_prob(first, latents[0])[tf.newaxis], _log_prob(later, latents[1:])], 0
    )
    return log_likelihood(model, latents, batch.observations) + log_prior


def _log_prob(normal, value):
    return tfd.MultivariateNormalDiag(normal.mean, normal.scale).log_prob(value)
