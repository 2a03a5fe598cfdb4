"""Train a state-space model under given conditions, and measure model and inference apart.

The joint ELBO of (p_k, q_k) mixes two effects of look-ahead k: how tight the bound is, and how good
the generative model became. To tell them apart the model is frozen and a *fresh, fully conditioned*
network is trained on it: what remains between two models, each under its own full q, is the
models'.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from tfp_gaps import training
from tfp_gaps._tensorflow import tf
from tfp_gaps.bounds import elbo_terms
from tfp_gaps.inference.look_ahead import LookAheadNetwork
from tfp_gaps.models.state_space import StateSpace
from tfp_gaps.networks import replica_normal, replica_seeds


@dataclass(frozen=True)
class Design:
    """Sizes of a sequential experiment; the same for every look-ahead.

    latent_size, hidden_size: of the model and of the inference network.
    emission: "bernoulli" or "normal".
    joint: how model and network are trained together.
    refit: how a fresh network is trained on a frozen model.
    """

    latent_size: int
    hidden_size: int
    emission: str
    joint: training.Settings
    refit: training.Settings


class Fitted(NamedTuple):
    """A model, an inference network with its look-ahead, and how the training went."""

    model: tf.Module
    network: LookAheadNetwork
    lookahead: int | None
    history: training.History


def fit_jointly(train, design, *, lookahead, seeds, checkpoint=None, progress=None):
    """Train model and inference network together on the ELBO with look-ahead k.

    Args:
      train: `data.Sequences`.
      design: `Design`.
      lookahead: k >= 0 or None.
      seeds: one int per replica; initial parameters, batches and noise follow from it.
      checkpoint, progress: as in `training.fit`.

    Returns:
      `Fitted`.
    """
    model = StateSpace(
        observation_size=train.observations.shape[-1],
        latent_size=design.latent_size,
        hidden_size=design.hidden_size,
        emission=design.emission,
        seeds=replica_seeds(seeds, "initial model"),
    )
    return _fit(model, train, design, design.joint, lookahead, seeds, checkpoint, progress, True)


def fit_network(model, train, design, *, lookahead, seeds, checkpoint=None, progress=None):
    """Train a fresh inference network on a frozen model; arguments as in `fit_jointly`."""
    return _fit(model, train, design, design.refit, lookahead, seeds, checkpoint, progress, False)


def _fit(model, train, design, settings, lookahead, seeds, checkpoint, progress, learn_model):
    network = LookAheadNetwork(
        observation_size=train.observations.shape[-1],
        latent_size=design.latent_size,
        hidden_size=design.hidden_size,
        seeds=replica_seeds(seeds, "initial network"),
    )
    variables = list(network.trainable_variables)
    if learn_model:
        variables += model.trainable_variables
    history = training.fit(
        negative_elbo(model, network, lookahead),
        variables,
        train.observations.transpose(1, 0, 2),
        settings,
        seeds=seeds,
        checkpoint=checkpoint,
        fingerprint=f"{design} lookahead={lookahead} learn_model={learn_model}",
        progress=progress,
    )
    return Fitted(model, network, lookahead, history)


def side_by_side(fit, items, num_threads=2):
    """Run independent fits in threads: {item: fit(item)}.

    One small recurrence keeps one core busy; the second would stand idle. No fit shares state or
    random numbers with another; results may still differ in rounding, as the cores are shared out
    otherwise.
    """
    items = list(items)
    with ThreadPoolExecutor(num_threads) as pool:
        return dict(zip(items, pool.map(fit, items), strict=True))


def negative_elbo(model, network, lookahead):
    """The loss (batch, seeds, kl_weight) -> [replicas], nats per sequence; see `training.fit`."""

    def loss(batch, seeds, kl_weight):
        observations = tf.cast(tf.transpose(batch, [2, 0, 1, 3]), tf.float32)
        time, _, size, _ = observations.shape
        noise = replica_normal([time, size, model.latent_size], seeds)
        noise = tf.transpose(noise, [1, 0, 2, 3])
        log_likelihood, divergence = elbo_terms(
            model, network, observations, noise, lookahead=lookahead
        )
        per_sequence = tf.reduce_sum(kl_weight * divergence - log_likelihood, 0)
        return tf.reduce_mean(per_sequence, -1)

    return loss
