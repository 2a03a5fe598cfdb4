"""Static latent-variable models: variational auto-encoders without their encoder.

    z ~ N(0, I),   x | z ~ Bernoulli(sigmoid(f(z)))   or   x | z ~ N(f(z), diag s^2)

with f a network of 0, 1, 2, ... hidden layers (Kingma and Welling 2014; the sizes of Cremer et al.
2018 are the defaults). Without a hidden layer and with normal observations the model is factor
analysis, whose evidence and posterior are known (`tfp_gaps.exact.factor_analysis`).

Latents are [samples, replicas, data, latent], observations [replicas or 1, data, observations], log
densities [samples, replicas, data], in nats per datum.
"""

import math

from tfp_gaps import _checks
from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.networks import MLP

tfd = tfp.distributions

EMISSIONS = ("bernoulli", "normal")
_LOG_2PI = math.log(2 * math.pi)


class VAE(tf.Module):
    """The generative half of a variational auto-encoder, one per replica.

    Args:
      observation_size, latent_size: numbers of pixels and of latent dimensions.
      hidden: widths of the decoder's hidden layers; empty for a linear decoder.
      emission: "bernoulli", or "normal" with one learned standard deviation per pixel.
      activation: of the hidden layers, one of `networks.ACTIVATIONS`.
      seeds: int32 [num_replicas, 2].

    Raises:
      ValueError: for an unknown emission or activation, or sizes below one.

    >>> from tfp_gaps.networks import replica_seeds
    >>> model = VAE(observation_size=4, latent_size=2, seeds=replica_seeds([0], "model"))
    >>> latents, images = tf.zeros([5, 1, 3, 2]), tf.ones([1, 3, 4])
    >>> model.log_likelihood(latents, images).shape  # [draws, replicas, data]
    TensorShape([5, 1, 3])
    """

    def __init__(
        self,
        *,
        observation_size,
        latent_size,
        hidden=(200, 200),
        emission="bernoulli",
        activation="elu",
        seeds,
    ):
        super().__init__(name="vae")
        _checks.integer(observation_size, "observation_size", minimum=1)
        self.latent_size = _checks.integer(latent_size, "latent_size", minimum=1)
        self.observation_size = observation_size
        self.emission_name = _checks.one_of(emission, "emission", EMISSIONS)
        self.num_replicas = int(seeds.shape[0])
        self.decoder = MLP(
            latent_size,
            hidden,
            observation_size,
            seeds=seeds,
            activation=activation,
            name="decoder",
        )
        if emission == "normal":
            shape = [self.num_replicas, 1, observation_size]
            self.log_noise = tf.Variable(tf.zeros(shape), name="log_noise")

    @classmethod
    def from_factor_analysis(cls, world):
        """The linear-Gaussian model with the parameters of an `exact.factor_analysis` world."""
        size, latent_size = world.loadings.shape
        model = cls(
            observation_size=size,
            latent_size=latent_size,
            hidden=(),
            emission="normal",
            seeds=tf.zeros([1, 2], tf.int32),
        )
        model.decoder.output.kernel.assign(world.loadings.T[None])
        model.decoder.output.bias.assign(tf.cast(world.offset, tf.float32)[None, None])
        model.log_noise.assign(tf.math.log(tf.cast(world.noise, tf.float32))[None, None])
        return model

    def emission(self, latents):
        """p(x | z): batch [samples, replicas, data], event [observations]."""
        outputs = self.decoder(latents)
        if self.emission_name == "bernoulli":
            return tfd.Independent(tfd.Bernoulli(logits=outputs), 1)
        return tfd.Independent(tfd.Normal(outputs, tf.exp(self.log_noise)), 1)

    def log_prior(self, latents):
        """ln p(z), nats."""
        return standard_normal_log_prob(latents)

    def log_likelihood(self, latents, observations):
        """ln p(x | z), nats per datum.

        Linear in x for Bernoulli pixels, so that a pixel's mean in place of its value gives the
        expectation over that pixel.
        """
        outputs = self.decoder(latents)
        if self.emission_name == "bernoulli":
            # x f - softplus(f), with half the passes of the generic Bernoulli.
            return tf.reduce_sum(observations * outputs - tf.nn.softplus(outputs), -1)
        scaled = (observations - outputs) * tf.exp(-self.log_noise)
        log_scale = tf.reduce_sum(self.log_noise, -1)
        return -0.5 * tf.reduce_sum(scaled**2 + _LOG_2PI, -1) - log_scale

    def log_joint(self, latents, observations):
        """ln p(x, z), nats per datum."""
        return self.log_prior(latents) + self.log_likelihood(latents, observations)


def standard_normal_log_prob(values):
    """ln N(values; 0, I) over the last axis, nats."""
    return -0.5 * tf.reduce_sum(values**2 + _LOG_2PI, -1)
