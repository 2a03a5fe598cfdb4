"""The loss by which models and networks of sequences are trained: minus the ELBO.

    -E_q sum_t ln p(x_t | z_t) - KL(q(z_t | z_{t-1}, C_t) || p(z_t | z_{t-1}))

With the model frozen, a fresh network under given conditions shows how tight the bound can be.
"""

from tfp_gaps import training
from tfp_gaps._tensorflow import tf
from tfp_gaps.bounds import elbo_terms
from tfp_gaps.networks import for_replicas, replica_normal, replica_seeds
from tfp_gaps.posteriors.look_ahead import LookAheadNetwork


def fresh_network(model, sequences, conditions, settings, *, hidden_size, seed):
    """Train a new `LookAheadNetwork` on a frozen model of one replica.

    It works in units of the prior's standard deviation, and so for models of any scale.

    Args:
      model: as from `models.own.as_state_space`.
      sequences: `Sequences`, on which it is trained, and chosen if the settings validate.
      conditions: `LookAhead`.
      settings: `training.Settings`.
      hidden_size: of the network.
      seed: int; initial parameters, batches and noise follow from it.

    Returns:
      The network, and the `training.History`.
    """
    network = LookAheadNetwork(
        conditions=conditions,
        observation_size=model.observation_size,
        latent_size=model.latent_size,
        control_size=model.control_size,
        hidden_size=hidden_size,
        masked=sequences.mask is not None,
        relative=True,
        seeds=replica_seeds([seed], "fresh network"),
    )
    history = training.fit(
        negative_elbo(model, network),
        list(network.trainable_variables),
        sequences.batch,
        settings,
        axis=1,
        seeds=[seed],
        validate=validation_loss(model, network, sequences) if settings.validate_every else None,
    )
    return network, history


def validation_loss(model, network, sequences, *, draws=2):
    """A function () -> [replicas]: minus the ELBO on held-out sequences, nats per sequence.

    The noise is the same in every call, so that two looks differ by the parameters alone.
    """
    data = sequences.batch.map(tf.constant)
    loss = negative_elbo(model, network)
    seeds = replica_seeds(range(draws), "validation")

    @tf.function
    def evaluate():
        batch = for_replicas(data, model.num_replicas)
        rows = [tf.repeat(seeds[i : i + 1], model.num_replicas, axis=0) for i in range(draws)]
        return tf.add_n([loss(batch, row, 1.0) for row in rows]) / draws

    return lambda: evaluate().numpy()


def negative_elbo(model, posterior):
    """The loss (batch, seeds, kl_weight) -> [replicas], nats per sequence; see `training.fit`.

    `batch` is a `Batch` of tensors [time, replicas, batch, channels] of any type.
    """

    def loss(batch, seeds, kl_weight):
        time, _, size, _ = batch.observations.shape
        noise = replica_normal([time, size, model.latent_size], seeds, axis=1)
        floats = batch.map(lambda part: tf.cast(part, tf.float32))
        log_likelihood, divergence = elbo_terms(model, posterior, floats, noise)
        per_sequence = tf.reduce_sum(kl_weight * divergence - log_likelihood, 0)
        return tf.reduce_mean(per_sequence, -1)

    return loss
