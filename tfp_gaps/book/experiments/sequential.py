"""Train a state-space model under given conditions, and measure model and inference apart.

The joint ELBO of (p, q) mixes two effects of what q may see: how tight the bound is, and how good
the generative model became. To tell them apart the model is frozen and a *fresh, fully conditioned*
network is trained on it: what remains between two models, each under its own full q, is the
models'.
"""

from dataclasses import dataclass
from typing import NamedTuple

from tfp_gaps import training
from tfp_gaps._tensorflow import tf
from tfp_gaps.models.state_space import StateSpace
from tfp_gaps.networks import replica_normal, replica_seeds
from tfp_gaps.posteriors.look_ahead import LookAheadNetwork
from tfp_gaps.sequential.fitting import negative_elbo, validation_loss


@dataclass(frozen=True)
class Design:
    """Sizes of a sequential experiment; the same for all conditions.

    latent_size, hidden_size: of the model and of the inference network.
    emission: of the model, see `models.state_space.StateSpace`.
    joint: how model and network are trained together.
    refit: how a fresh network is trained on a frozen model.
    """

    latent_size: int
    hidden_size: int
    emission: str
    joint: training.Settings
    refit: training.Settings


class Fitted(NamedTuple):
    """A model, an inference network with its conditions, and how the training went."""

    model: tf.Module
    network: LookAheadNetwork
    history: training.History


def fit_jointly(splits, design, *, conditions, seeds, **options):
    """Train model and inference network together on the ELBO.

    Args:
      splits: `Splits`; the validation part chooses the parameters if the settings say so.
      design: `Design`.
      conditions: `LookAhead`, what the network may see.
      seeds: one int per replica; initial parameters, batches and noise follow from it.
      **options: checkpoint, progress, strategy: as in `training.fit`.

    Returns:
      `Fitted`.
    """
    model = StateSpace(
        **sizes(splits, design),
        emission=design.emission,
        seeds=replica_seeds(seeds, "initial model"),
    )
    return _fit(model, splits, design, conditions, seeds, True, options)


def fit_network(model, splits, design, *, conditions, seeds, start=None, limit=None, **options):
    """Train a fresh inference network on a frozen model.

    Args:
      model, splits, design, conditions, seeds, options: as in `fit_jointly`.
      start: network of the same conditions from whose values training starts; None for afresh.
      limit: of the network, see `LookAheadNetwork`.

    Raises:
      ValueError: for a start under other conditions.
    """
    if start is not None and start.conditions != conditions:
        raise ValueError(
            f"a network under conditions {conditions} can start from one under the same, but start "
            f"has {start.conditions}. Leave start out."
        )
    return _fit(model, splits, design, conditions, seeds, False, options, start, limit)


def sizes(splits, design):
    """The sizes that data and design give to a model and to its network."""
    controls = splits.train.controls
    return {
        "observation_size": splits.train.observations.shape[-1],
        "control_size": 0 if controls is None else controls.shape[-1],
        "latent_size": design.latent_size,
        "hidden_size": design.hidden_size,
    }


def _fit(model, splits, design, conditions, seeds, learn_model, options, start=None, limit=None):
    parts = (splits.train, splits.validation, splits.test)
    network = LookAheadNetwork(
        **sizes(splits, design),
        conditions=conditions,
        masked=any(part.mask is not None for part in parts),
        seeds=replica_seeds(seeds, "initial network"),
        limit=limit,
    )
    described = f"lookahead={conditions.lookahead} learn_model={learn_model}"
    if limit is not None:
        described += f" limit={limit}"
    if start is not None:
        described += " from a start"
        for variable, value in zip(
            network.trainable_variables, start.trainable_variables, strict=True
        ):
            variable.assign(value)
    return fit(
        model,
        network,
        splits,
        design.joint if learn_model else design.refit,
        seeds=seeds,
        learn_model=learn_model,
        fingerprint=f"{design} {splits.source} {described}",
        **options,
    )


def fit(model, network, splits, settings, *, seeds, learn_model, **options):
    """Train a network, and its model if `learn_model`, on the ELBO; returns `Fitted`.

    Args:
      model, network: with one replica per seed.
      settings: `training.Settings`.
      splits, seeds: as in `fit_jointly`.
      **options: checkpoint, fingerprint, progress, strategy: as in `training.fit`.
    """
    variables = list(network.trainable_variables)
    if learn_model:
        variables += model.trainable_variables
    validate = None
    if settings.validate_every:
        validate = validation_loss(model, network, splits.validation)
    history = training.fit(
        negative_elbo(model, network),
        variables,
        splits.train.batch,
        settings,
        axis=1,
        seeds=seeds,
        validate=validate,
        **options,
    )
    return Fitted(model, network, history)


def draw_paths(fitted, batch, seeds):
    """Draw z_{1:T} ~ q(z_{1:T} | x, u) of a trained network; for TensorFlow functions.

    Args:
      fitted: `Fitted`.
      batch: `Batch` of tensors [time, replicas, batch, channels].
      seeds: one seed per replica, as from `networks.replica_seeds`.

    Returns:
      [time, replicas, batch, latent], one path for each sequence.
    """
    time, _, size, _ = batch.observations.shape
    noise = replica_normal([time, size, fitted.model.latent_size], seeds, axis=1)
    context = fitted.network.context(batch)
    return fitted.network.sample_path(fitted.model, context, noise, controls=batch.controls).latents
