"""KL balancing for networks: the loss of a sequence model that weighs q and p apart.

World models split the divergence of the ELBO into two terms with gradients stopped on one side
each (Hafner et al. 2023),

    KL(stop(q) || p) + beta KL(q || stop(p)),

of which the first teaches p and the second q. So q ascends E_q ln p(x | z) - beta KL(q || p) at a
fixed p, and p ascends E_q ln p(x, z) at a fixed q. With beta = 1 both climb the ELBO, provided that
q does not contain parameters of p. A `LookAheadNetwork` does: it corrects the prediction of p, so
that an update of p moves q too, and no gradient says so. What balancing does to a model in closed
form is in `tfp_gaps.exact.kl_balancing`.
"""

from tfp_gaps import _checks
from tfp_gaps._tensorflow import tf
from tfp_gaps.models.state_space import DiagonalNormal, log_likelihood
from tfp_gaps.networks import replica_normal


def balanced_loss(model, posterior, weight, *, through_samples=False):
    """The loss (batch, seeds, kl_weight) -> [replicas], nats per sequence; see `training.fit`.

    Its value is minus the ELBO. Its gradient is that of the objective of q for the variables of the
    posterior, and that of the objective of p for the variables of the model, so that it cannot be
    had by differences of the value.

    Args:
      model: a state-space model, which may be trained or not.
      posterior: q with the methods `context`, `sample_path` and `factor` of `LookAheadNetwork`;
        best one whose factor does not depend on the parameters of p, see above.
      weight: beta, positive: the share of the divergence that teaches q.
      through_samples: whether the full divergence teaches earlier steps of q, through the draws
        that p and q are given. Gradients then stop at the distributions of each step alone, as in
        the code of DreamerV3; those of p stop at the draws as before.

    Raises:
      ValueError: for a weight that is not positive.
    """
    weight = _checks.positive_float(weight, "weight")
    own = list(posterior.trainable_variables)

    def loss(batch, seeds, kl_weight):
        time, _, size, _ = batch.observations.shape
        noise = replica_normal([time, size, model.latent_size], seeds, axis=1)
        batch = batch.map(lambda part: tf.cast(part, tf.float32))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(own)
            context = posterior.context(batch)
            path = posterior.sample_path(model, context, noise, controls=batch.controls)
            fit = log_likelihood(model, path.latents, batch.observations, batch.mask)
            divergence = weight * path.divergence
            if through_samples:
                factor, prior = factors(model, posterior, path.latents, context, batch.controls)
                divergence = _divergence(_stopped(factor), prior)
                divergence += weight * _divergence(factor, _stopped(prior))
            objective = tf.reduce_sum(kl_weight * divergence - fit) / size
        gradients = tape.gradient(objective, own, unconnected_gradients="zero")
        latents = tf.stop_gradient(path.latents)
        factor, prior = factors(model, posterior, latents, context, batch.controls)
        divergence = _divergence(_stopped(factor), prior)
        fit = log_likelihood(model, latents, batch.observations, batch.mask)
        of_model = tf.reduce_mean(tf.reduce_sum(kl_weight * divergence - fit, 0), -1)
        return of_model + _carry(gradients, own)

    return loss


def factors(model, posterior, latents, context, controls=None):
    """q(z_t | z_{t-1}, C_t) and p(z_t | z_{t-1}, u_{t-1}) along given paths.

    Args:
      model, posterior: as in `balanced_loss`.
      latents: z_{1:T}, [time, replicas, batch, latent].
      context: of the posterior, [time, replicas, batch, hidden_size].
      controls: [time, replicas, batch, channels], or None.

    Returns:
      Two `DiagonalNormal`, [time, replicas, batch, latent].
    """
    initial = model.initial()
    later = model.transition(latents[:-1], *([] if controls is None else [controls[1:]]))
    pairs = (
        (posterior.factor(initial, None, context[0]), initial),
        (posterior.factor(later, latents[:-1], context[1:]), later),
    )
    shape = tf.shape(latents[0])
    return tuple(
        DiagonalNormal(
            *(
                tf.concat([tf.broadcast_to(first, shape)[tf.newaxis], rest], 0)
                for first, rest in zip(*each, strict=True)
            )
        )
        for each in zip(*pairs, strict=True)
    )


def _divergence(q, p):
    """KL(q || p) of diagonal normals, nats: [..., batch]."""
    ratio, offset = q.scale / p.scale, (q.mean - p.mean) / p.scale
    return tf.reduce_sum(0.5 * (ratio**2 + offset**2 - 1.0) - tf.math.log(ratio), -1)


def _stopped(normal):
    return DiagonalNormal(*map(tf.stop_gradient, normal))


def _carry(gradients, variables):
    """Nothing, [replicas], whose gradient for each variable is the one given for it."""
    return tf.add_n(
        [
            tf.reduce_sum(
                tf.stop_gradient(gradient) * (variable - tf.stop_gradient(variable)),
                range(1, len(variable.shape)),
            )
            for gradient, variable in zip(gradients, variables, strict=True)
        ]
    )
