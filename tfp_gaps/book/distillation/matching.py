"""An encoder of part of a datum that is fitted to draws of one that sees it all.

    minimise  E_x E_{z ~ q(z | x)} - ln f(z | C),    C a part of x

The full posterior, averaged over what is not in C, is p(z | C). Maximum likelihood on draws of q
therefore aims at the posterior given C, where the ELBO of an encoder that sees C alone aims at the
normalised geometric mean of the full posteriors. This is Posterior Matching (Strauss and Oliva
2022), and the static twin of `filter_network`. Where x was drawn from the model, the latent that
made it is an exact draw of p(z | x), and needs no q.
"""

from tfp_gaps._tensorflow import tf
from tfp_gaps.networks import replica_normal


def draws_of(teacher):
    """Draws to match: callable (x, seeds) -> z [1, replicas, data, latent].

    Args:
      teacher: `posteriors.encoder.Posterior` that sees all of x; it does not learn.
    """

    def draw(x, seeds):
        noise = replica_normal([x.shape[1], teacher.family.num_noise], seeds)
        return tf.stop_gradient(teacher.draw(x, noise[tf.newaxis]).latents)

    return draw


def negative_log_likelihood(student, draw=None):
    """The loss (batch, seeds, kl_weight) -> [replicas], nats per datum; see `training.fit`.

    `batch` is x [replicas, data, pixels]; without `draw`, the pair of x and the latents that made
    it [replicas, data, latent].

    Args:
      student: `posteriors.encoder.Posterior` that sees C; its family has a density.
      draw: from `draws_of`, or None.
    """

    def loss(batch, seeds, kl_weight):
        del kl_weight
        x = tf.cast(batch if draw else batch[0], tf.float32)
        latents = draw(x, seeds) if draw else batch[1][tf.newaxis]
        own = student.parameters(x)
        return -tf.reduce_mean(student.family.log_prob(own.outputs, own.weights, latents), [0, 2])

    return loss
