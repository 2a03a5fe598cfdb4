"""The amortised posterior of a static model: one network that reads x and returns q(z | x).

What the network may see is a choice (`visible`): a posterior that sees part of the pixels is the
static counterpart of a filter, and pays a conditioning gap.
"""

from tfp_gaps import _checks
from tfp_gaps._tensorflow import tf
from tfp_gaps.networks import MLP, split_seeds
from tfp_gaps.posteriors import families


class Posterior(tf.Module):
    """q(z | C) with C the visible pixels of x.

    Args:
      family: of `posteriors.families`.
      observation_size: number of pixels.
      hidden: widths of the encoder's hidden layers; empty for an affine encoder.
      activation: of the hidden layers.
      visible: 0/1 array [observation_size], or None for all; the network reads zero elsewhere.
      seeds: int32 [num_replicas, 2].

    Raises:
      ValueError: if `visible` is not a vector of zeros and ones, one per pixel.

    >>> from tfp_gaps.networks import replica_seeds
    >>> from tfp_gaps.posteriors import families
    >>> q = Posterior(families.make("factorised", 2), observation_size=4, visible=[1, 1, 0, 0],
    ...               seeds=replica_seeds([0], "posterior"))
    >>> drawn = q.draw(tf.ones([1, 3, 4]), tf.zeros([5, 1, 3, 2]))
    >>> drawn.latents.shape, drawn.log_density.shape  # [draws, replicas, data, ...]
    (TensorShape([5, 1, 3, 2]), TensorShape([5, 1, 3]))
    """

    def __init__(
        self,
        family,
        *,
        observation_size,
        hidden=(200, 200),
        activation="elu",
        visible=None,
        seeds,
    ):
        super().__init__(name="posterior")
        self.family = family
        self.visible = None if visible is None else _mask(visible, observation_size)
        first, second = split_seeds(seeds, 2)
        self.encoder = MLP(
            observation_size,
            hidden,
            family.num_outputs,
            seeds=first,
            activation=activation,
            output_scale=0.1,
            name="encoder",
        )
        self.weights = family.make_weights(second)

    def outputs(self, observations):
        """What the family needs for each datum: [replicas, data, num_outputs].

        Args:
          observations: [replicas, data, pixels], or [1, data, pixels] for all replicas alike.
        """
        observations = tf.cast(observations, tf.float32)
        replicas = self.encoder.output.kernel.shape[0]
        if observations.shape[0] != replicas:
            observations = tf.repeat(observations, replicas, axis=0)
        if self.visible is not None:
            observations = observations * self.visible
        return self.encoder(observations)

    def parameters(self, observations):
        """The q of each datum as `families.Parameters`; the family's weights are shared."""
        weights = [tf.convert_to_tensor(weight) for weight in self.weights]
        return families.Parameters(self.outputs(observations), weights, False)

    def draw(self, observations, noise):
        """Draw from q(z | C): `families.Draw` with rows = replicas, batch = data.

        Args:
          observations: as in `outputs`.
          noise: standard normal [samples, replicas, data, family.num_noise].
        """
        return families.draw(self.family, self.parameters(observations), noise)


def _mask(visible, size):
    array = _checks.finite_array(visible, "visible", ndim=1)
    if array.shape != (size,) or not set(array.tolist()) <= {0.0, 1.0}:
        raise ValueError(
            f"visible must hold a 0 or a 1 for each of {size} pixels, but has shape {array.shape} "
            f"and values from {array.min():g} to {array.max():g}. Flatten the mask of the image."
        )
    return tf.constant(array, tf.float32)
