"""An approximate posterior of sequences in a user's own words.

    q(z_{1:T} | x_{1:T}) = prod_t q(z_t | z_{t-1}, C_t)

Either an object with two methods, as `look_ahead.LookAheadNetwork` has them:

* `context(batch)`: a summary of C_t for each t, [time, replicas, batch, features], from a
  `sequences.Batch` of tensors [time, replicas, batch, channels];
* `factor(prior, latent, context)`: the factor q(z_t | z_{t-1}, C_t) from p(z_t | z_{t-1}), z_{t-1}
  [..., replicas, batch, latent] (None at the first step) and row t of the context;

or a callable, x [time, sequences, channels] -> normal over z [time, sequences, latent], whose
factors are independent over time. Where there are controls it is called with (x, controls).
Normals may be written as `models.own` takes them.
"""

import numpy as np

from tfp_gaps._tensorflow import faulty_product, tf, tfp
from tfp_gaps.models.own import as_state_space, diagonal_normal, own_words, with_sequences
from tfp_gaps.models.state_space import DiagonalNormal
from tfp_gaps.networks import for_replicas
from tfp_gaps.posteriors import look_ahead

tfd = tfp.distributions

_MOST = 8
"""Sequences at which q is tried."""
_TOLERANCE = 1e-3
"""Of q's standard deviation; a gap sees a change of the mean by its square."""


class OwnPosterior:
    """A posterior that offers `context` and `factor`, with checks, and with paths drawn from it."""

    def __init__(self, posterior):
        self.posterior = posterior
        self.conditions = getattr(posterior, "conditions", None)

    def context(self, batch):
        """As the posterior's own, checked: [time, replicas, batch, features]."""
        found = tf.convert_to_tensor(self.posterior.context(batch))
        wanted = batch.observations.shape[:3]
        if found.shape.rank != 4 or not found.shape[:3].is_compatible_with(wanted):
            raise ValueError(
                f"posterior.context(batch) must have shape [time, replicas, batch, features] with "
                f"{tuple(wanted)} first, but has {found.shape}. Give one row per step and sequence."
            )
        return found

    def factor(self, prior, latent, context):
        """As the posterior's own: `DiagonalNormal` [..., replicas, batch, latent]."""
        leading = tf.broadcast_static_shape(prior.mean.shape[:-1], context.shape[:-1])
        found = self.posterior.factor(prior, latent, context)
        shape = [*leading, prior.mean.shape[-1]]
        return diagonal_normal(found, "posterior.factor(prior, z, context)", shape)

    def sample_path(self, model, context, noise, *, controls=None):
        """As `LookAheadNetwork.sample_path`."""
        return look_ahead.sample_path(self, model, context, noise, controls)


class IndependentOverTime:
    """A callable x -> normal over z_{1:T} as a posterior: the context is its mean and scale."""

    def __init__(self, function, latent_size):
        self.function, self.latent_size = function, latent_size
        self.conditions = getattr(function, "conditions", None)

    def context(self, batch):
        observations, controls, mask = batch
        if mask is not None or observations.shape[1] != 1:
            raise ValueError(
                "a callable posterior takes x [time, sequences, channels] of one replica without "
                "missing values. Give an object with context(batch) and factor(prior, z, context)."
            )
        arguments = [part[:, 0] for part in (observations, controls) if part is not None]
        shape = [*observations.shape[:1], observations.shape[2], self.latent_size]
        found = diagonal_normal(self.function(*arguments), "posterior(x)", shape)
        return tf.concat(found, -1)[:, tf.newaxis]

    def factor(self, prior, latent, context):
        return DiagonalNormal(*tf.split(context, 2, axis=-1))


def with_posterior(model, posterior, sequences, order):
    """A model, a posterior and data that somebody brings, as the library uses them, in that order.

    Args:
      model, sequences, order: as in `models.own.with_sequences`.
      posterior: what the module's description asks for; it is tried at the data's shapes.

    Raises:
      ValueError: as `models.own.with_sequences`; for another posterior, named, and for one that
        reaches a product which is wrong (`faulty_product`), answers the same question twice
        differently, or mixes sequences.
    """
    model = as_state_space(model, order)
    is_ours = hasattr(posterior, "context") and hasattr(posterior, "sample_path")
    has_factors = hasattr(posterior, "context") and hasattr(posterior, "factor")
    is_function = callable(posterior) and not isinstance(posterior, tfd.Distribution)
    if not (is_ours or has_factors or is_function):
        raise ValueError(
            f"posterior must offer context, factor, or be a callable of x [time, sequences, "
            f"channels], but the {type(posterior).__name__} that was given does neither. The order "
            f"is {order}."
        )
    model, sequences = with_sequences(model, sequences, order)
    if is_ours:
        return model, posterior, sequences
    if not has_factors:
        posterior = IndependentOverTime(posterior, model.latent_size)
    return model, _checked(OwnPosterior(posterior), model, sequences), sequences


def factors(posterior, model, batch, latents):
    """The factors q(z_t | z_{t-1}, C_t) along given paths.

    Args:
      posterior, model: as from `with_posterior`.
      batch: `Batch` of tensors [time, replicas, batch, channels].
      latents: [time, replicas, batch, latent]; those of the last step are not used.

    Returns:
      `DiagonalNormal`, [time, replicas, batch, latent].
    """
    context = posterior.context(batch)
    found, latent = [], None
    for t in range(batch.observations.shape[0]):
        prior = model.initial()
        if t:
            latent = latents[t - 1]
            control = None if batch.controls is None else batch.controls[t]
            prior = model.transition(latent, control)
        found.append(posterior.factor(prior, latent, context[t]))
    return DiagonalNormal(
        *(
            tf.stack([tf.broadcast_to(factor[i], latents.shape[1:]) for factor in found])
            for i in (0, 1)
        )
    )


def _checked(own, model, sequences, size=2):
    """Trace context and factors for sequences of these shapes; run them at few of them."""
    shape = [sequences.num_timesteps, model.num_replicas, size]

    def factors(noise, batch):
        return own.sample_path(model, own.context(batch), noise, controls=batch.controls)

    noise = tf.TensorSpec([*shape, model.latent_size])
    batch = sequences.batch.map(lambda part: tf.TensorSpec([*shape, part.shape[-1]]))
    with own_words("posterior"):
        tf.function(factors, autograph=False).get_concrete_function(noise, batch)
        fault = faulty_product(factors, noise, batch)
    if fault:
        raise ValueError(f"the posterior {fault}")
    with own_words("posterior"):
        _check_factors(own, model, sequences.first(_MOST))
    return own


def _check_factors(own, model, sequences):
    """Refuse factors that change from one call to the next, or with the sequences beside one."""
    batch, count = for_replicas(sequences.batch, model.num_replicas), len(sequences)
    shape = [model.num_replicas, count, model.latent_size]
    latents = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    once, again = (_ends(own, model, batch, latents) for _ in range(2))
    if _moved(once, again).any():
        raise ValueError(
            "the posterior must give the same factors for the same data, but gave others when "
            "asked twice. Switch dropout off, or fix its seed."
        )
    for number in {0, count - 1} if count > 1 else ():
        alike = np.full(count, number)
        among = batch.map(lambda part, alike=alike: tf.gather(part, alike, axis=2))
        if _moved(once, _ends(own, model, among, latents[:, alike]))[..., number].any():
            raise ValueError(
                f"the posterior must treat each sequence alone, but its factors for sequence "
                f"{number} change when the sequences beside it do. Switch batch normalisation to "
                f"inference, or reduce over the axes of one sequence only."
            )


def _ends(own, model, batch, latents):
    """Mean and scale of the first and the last factor, [2, factors, replicas, batch, latent].

    All steps would take long where there are many, and each sees the whole context.

    Args:
      batch: `Batch` of tensors [time, replicas, batch, channels].
      latents: z of the step before the last, [replicas, batch, latent].
    """
    context, found = own.context(batch), []
    for step in sorted({0, len(context) - 1}):
        prior, latent = model.initial(), None
        if step:
            latent = tf.constant(latents)
            control = None if batch.controls is None else batch.controls[step]
            prior = model.transition(latent, control)
        found.append(own.factor(prior, latent, context[step]))
    return np.stack([[np.broadcast_to(part, latents.shape) for part in f] for f in found], 1)


def _moved(one, other):
    """Whether factors differ by more than rounding: bool [factors, replicas, batch]."""
    (mean, scale), (other_mean, other_scale) = one, other
    limit = _TOLERANCE * np.abs(scale) + 100 * np.finfo(np.float32).eps * np.abs(mean)
    same = np.isclose(other_scale, scale, rtol=_TOLERANCE, atol=0.0, equal_nan=True)
    same &= (np.abs(other_mean - mean) <= limit) | (np.isnan(mean) & np.isnan(other_mean))
    return ~same.all(-1)
