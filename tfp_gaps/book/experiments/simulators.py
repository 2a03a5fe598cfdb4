"""Networks that infer the rates of an epidemic through an embedding, and where they should land.

q(log contact, log recovery | embedding) is trained by the ELBO, or as a neural posterior estimator
on the rates that made the data. What the embedding keeps is a mask over the three numbers that the
likelihood needs. A q that sees the final size is judged on a grid, without sampling: against the
product and the mixture of the full posteriors, so that what family and network leave undone is told
apart from what the objective asks for. See `exact.epidemic` and `exact.embedding`.
"""

from typing import NamedTuple

import numpy as np
from scipy import special, stats

from tfp_gaps import _checks, networks, training
from tfp_gaps._tensorflow import tf
from tfp_gaps.estimate import INDEPENDENT, Estimate
from tfp_gaps.exact import embedding
from tfp_gaps.exact.embedding import OBJECTIVES
from tfp_gaps.posteriors import families
from tfp_gaps.posteriors.encoder import Posterior

EMBEDDINGS = {
    "final size": [1.0, 0.0, 0.0],
    "final size and burden": [1.0, 0.0, 1.0],
    "all": [1.0, 1.0, 1.0],
}
"""What q is shown of (n, ln A, ln B)."""

_STEP = 0.1
_LOG_CONTACT = np.arange(-60, 36) * _STEP  # the narrowest density has a width of 0.13
_LOG_RECOVERY = np.arange(-65, 31) * _STEP
LOG_RATES = np.stack(np.meshgrid(_LOG_CONTACT, _LOG_RECOVERY, indexing="ij"), -1)
"""Nodes [contact, recovery, 2] on which densities of the log rates are compared."""


# --- in closed form ------------------------------------------------------------------------------


def sensors_on_grid(world, num_nodes=241, order=32):
    """Full posteriors of `TwoSensors` that share the reading c = 0, over Gauss-Hermite nodes of c'.

    Args:
      world: a `TwoSensors`. Another reading shifts everything by the same amount.
      num_nodes: of the grid, within six standard deviations of the filter.
      order: number of unseen readings.

    Returns:
      Log masses [order, num_nodes] and the probabilities of the unseen readings, [order].
    """
    unseen, weights = np.polynomial.hermite_e.hermegauss(order)
    unseen = unseen * np.sqrt(world.filter_variance() + world.noise_unseen**2)
    mean, variance = world.full_posterior(0.0, unseen)
    nodes = 6 * np.sqrt(world.filter_variance()) * np.linspace(-1, 1, num_nodes)
    log_full = -0.5 * (nodes - mean[:, np.newaxis]) ** 2 / variance
    return special.log_softmax(log_full, axis=-1), weights / weights.sum()


def bit_on_grid(world, num_nodes=241):
    """Full posteriors of a `Bit` on a grid: log masses [K, num_nodes] and probabilities [K]."""
    reach = np.abs(world.locs).max() + 6 * world.scales.max()
    nodes = reach * np.linspace(-1, 1, num_nodes)
    log_full = world.full_posteriors().log_prob(nodes[:, np.newaxis]).numpy().T
    return special.log_softmax(log_full, axis=-1), world.probs


# --- on a grid -----------------------------------------------------------------------------------


def log_masses(gammas):
    """Log masses of Gamma distributed rates on `LOG_RATES`, [batch, contact, recovery]."""
    parts = [
        gammas[..., i, np.newaxis].log_prob(np.exp(nodes)).numpy() + nodes
        for i, nodes in enumerate((_LOG_CONTACT, _LOG_RECOVERY))
    ]
    return parts[0][..., :, np.newaxis] + parts[1][..., np.newaxis, :] + 2 * np.log(_STEP)


class Reference(NamedTuple):
    """Both targets given the final size, on the grid and exactly.

    size_probs: P(n), [sizes].
    log_product, log_mixture: log masses on `LOG_RATES`, [sizes, contact, recovery].
    distance: E KL(mixture || product), nats.
    """

    size_probs: np.ndarray
    log_product: np.ndarray
    log_mixture: np.ndarray
    distance: float


def reference(world):
    """The `Reference` of an `Epidemic`."""
    probs = world.size_probs()
    log_product = log_masses(world.product())
    log_mixture = world.log_mixture(LOG_RATES) + 2 * np.log(_STEP)
    return Reference(
        probs, log_product, log_mixture, float(probs @ _divergence(log_mixture, log_product))
    )


def _divergence(log_p, log_q):
    """KL(p || q) of each final size, over both rates: [..., sizes]."""
    rows = [np.reshape(log, [*log.shape[:-2], -1]) for log in (log_p, log_q)]
    return embedding.kl(*rows)


# --- networks ------------------------------------------------------------------------------------


def features(world, outbreaks):
    """(n, ln A, ln B) of each outbreak, n scaled to (-1, 1): float32 [outbreaks, 3]."""
    cases = 2 * outbreaks.cases / world.num_susceptible - 1
    parts = [cases, np.log(outbreaks.exposure), np.log(outbreaks.burden)]
    return np.stack(parts, axis=-1).astype(np.float32)


def train(
    world,
    objective,
    *,
    shown="final size",
    num_data=20_000,
    num_steps=2000,
    batch_size=256,
    seeds=tuple(range(8)),
):
    """Train one network per seed on outbreaks that it simulates for itself.

    elbo: maximise E_q[ ln p(rates, x) - ln q(rates) ], rates drawn from q;
    posterior estimation: maximise ln q(rates that made x).

    Args:
      world: an `Epidemic`.
      objective: one of `OBJECTIVES`.
      shown: one of `EMBEDDINGS`.
      num_data: outbreaks per seed.
      num_steps, batch_size: of Adam, with a rate that falls from 0.005 along a cosine.
      seeds: one int per replica.

    Returns:
      The trained `Posterior` over the log rates.

    Raises:
      ValueError: if an option is unknown, or training diverged.
    """
    _checks.one_of(objective, "objective", OBJECTIVES)
    _checks.one_of(shown, "shown", tuple(EMBEDDINGS))
    posterior = Posterior(
        families.make("full covariance", 2),
        observation_size=3,
        hidden=(32, 32),
        visible=EMBEDDINGS[shown],
        seeds=networks.replica_seeds(seeds, "posterior"),
    )
    data = np.stack([_columns(world, world.sample(num_data, seed)) for seed in seeds], axis=1)
    settings = training.Settings(
        num_steps,
        batch_size,
        learning_rate=5e-3,
        clip_norm=100.0,
        steps_per_call=100,
        num_shards=1,
        jit_compile=False,  # nothing recurs
    )

    def loss(batch, noise_seeds, kl_weight):
        del kl_weight  # no warm-up: the problem has one optimum
        # The batch holds the data of all seeds: each keeps its own.
        own = tf.stack([batch[replica, :, replica] for replica in range(len(seeds))])
        seen, log_rates, events, times = tf.split(own, [3, 2, 2, 2], axis=-1)
        if objective == "posterior estimation":
            log_q = posterior.family.log_prob(
                posterior.outputs(seen), list(posterior.weights), log_rates[tf.newaxis]
            )
            return -tf.reduce_mean(log_q, [0, 2])
        noise = networks.replica_normal([2, batch_size, 2], noise_seeds, axis=1)
        drawn = posterior.draw(seen, noise)
        joint = events * drawn.latents - times * tf.exp(drawn.latents)  # up to what x alone decides
        return tf.reduce_mean(drawn.log_density - tf.reduce_sum(joint, -1), [0, 2])

    variables = list(posterior.trainable_variables)
    history = training.fit(loss, variables, data, settings, seeds=seeds)
    if np.any(history.diverged):
        raise ValueError(f"Training diverged for {int(np.sum(history.diverged))} seeds.")
    return posterior


def _columns(world, outbreaks):
    """What training needs of each outbreak: float32 [outbreaks, 9]."""
    gammas = world.full_posterior(outbreaks)
    parts = [features(world, outbreaks), np.log(outbreaks.rates)]
    parts += [gammas.concentration.numpy(), gammas.rate.numpy()]
    return np.concatenate(parts, axis=-1).astype(np.float32)


# --- judged --------------------------------------------------------------------------------------


class Judged(NamedTuple):
    """Networks that see the final size, averaged over P(n); arrays have one entry per seed.

    coverage, ratio_coverage: probability, given n, that the central 90 % interval of q holds the
      recovery rate, and the ratio of the rates.
    width: of that interval of the log recovery rate.
    log_density: E ln q(log rates that made x), nats.
    undone: KL from q to the product for the ELBO, from the mixture to q for posterior estimation,
      over KL from the mixture to the product.
    """

    coverage: np.ndarray
    ratio_coverage: np.ndarray
    width: np.ndarray
    log_density: np.ndarray
    undone: np.ndarray


def judge(world, found, posterior, objective, *, num_draws=4000, seed=1_000_003):
    """Measure networks that see the final size against the `Reference` of their world: `Judged`."""
    seen = np.zeros([1, len(world.sizes), 3], np.float32)
    seen[0, :, 0] = 2 * world.sizes / world.num_susceptible - 1
    ends = quantiles(posterior, seen, num_draws, seed)  # [2, log recovery or ratio, seeds, sizes]
    below = [
        world.mixture_below(**{name: np.moveaxis(ends[:, i], -1, 0).reshape(len(world.sizes), -1)})
        for i, name in enumerate(("log_recovery", "log_ratio"))
    ]
    below = np.stack(below).reshape([2, len(world.sizes), 2, -1])
    inside = np.einsum("isr,s->ir", below[:, :, 1] - below[:, :, 0], found.size_probs)
    log_q = _on_grid(posterior, seen)
    if objective == "elbo":
        undone = _divergence(log_q, found.log_product)
    else:
        undone = _divergence(found.log_mixture, log_q)
    score = np.sum(np.exp(found.log_mixture) * log_q, axis=(-2, -1)) - 2 * np.log(_STEP)
    return Judged(
        coverage=inside[0],
        ratio_coverage=inside[1],
        width=(ends[1, 0] - ends[0, 0]) @ found.size_probs,
        log_density=score @ found.size_probs,
        undone=undone @ found.size_probs / found.distance,
    )


def targets(world, found):
    """What the product and the mixture themselves would be judged as: two `Judged` of one entry."""
    product, probs, levels = world.product(), found.size_probs, np.array([0.05, 0.95])
    shapes, rates = (
        np.moveaxis(each.numpy(), -1, 0) for each in (product.concentration, product.rate)
    )
    recovery = np.log(stats.gamma.ppf(levels, shapes[1][:, None], scale=1 / rates[1][:, None]))
    ratio = stats.betaprime.ppf(levels, shapes[0][:, None], shapes[1][:, None])
    ratio = np.log(ratio * (rates[1] / rates[0])[:, None])
    inside = [
        probs @ np.diff(below, axis=1)
        for below in (
            world.mixture_below(log_recovery=recovery),
            world.mixture_below(log_ratio=ratio),
        )
    ]
    nodes = np.linspace(-8, 6, 281)
    below = world.mixture_below(log_recovery=np.tile(nodes, [len(probs), 1]))
    wide = np.stack([np.interp(levels, row, nodes) for row in below])
    scores = [
        probs @ np.sum(np.exp(found.log_mixture) * log, axis=(-2, -1)) - 2 * np.log(_STEP)
        for log in (found.log_product, found.log_mixture)
    ]
    exact = np.array([0.9])
    return (
        Judged(*inside, probs @ np.diff(recovery), scores[:1], np.zeros(1)),
        Judged(exact, exact, probs @ np.diff(wide), scores[1:], np.zeros(1)),
    )


def quantiles(posterior, seen, num_draws, seed):
    """Ends of central 90 % intervals of q: [2, log recovery or log ratio, seeds, data].

    Args:
      posterior: over the log rates.
      seen: features, [1, data, 3].
      num_draws: draws per datum.
      seed: of the draws.
    """
    replicas = posterior.encoder.output.kernel.shape[0]
    noise = tf.random.stateless_normal([num_draws, replicas, seen.shape[1], 2], [seed, 0])
    drawn = posterior.draw(seen, noise).latents.numpy()
    both = np.stack([drawn[..., 1], drawn[..., 0] - drawn[..., 1]])
    # By ranks of (draws + 1): with others, intervals of few draws hold less than they should.
    return np.quantile(both, [0.05, 0.95], axis=1, method="weibull")


def held_out_coverage(world, posterior, *, num_data=10_000, seed=1_000_003, num_draws=400):
    """Share of fresh outbreaks whose recovery rate lies in the 90 % interval of q: `Estimate`."""
    inside = []
    for first in range(0, num_data, 1000):
        outbreaks = world.sample(1000, [seed, first])
        ends = quantiles(posterior, features(world, outbreaks)[np.newaxis], num_draws, seed + first)
        truth = np.log(outbreaks.rates[:, 1])
        inside.append((ends[0, 0] < truth) & (truth < ends[1, 0]))
    return Estimate.from_crossed(np.concatenate(inside, axis=1).astype(float), INDEPENDENT)


def _on_grid(posterior, seen):
    """Log masses of q on `LOG_RATES`: [seeds, data, contact, recovery]."""
    outputs, weights = posterior.outputs(seen), list(posterior.weights)
    nodes = tf.constant(LOG_RATES.reshape(-1, 1, 1, 2), tf.float32)
    nodes = tf.tile(nodes, [1, outputs.shape[0], 1, 1])
    rows = [
        posterior.family.log_prob(outputs[:, i : i + 1], weights, nodes).numpy()[..., 0].T
        for i in range(seen.shape[1])
    ]
    shape = [len(rows), outputs.shape[0], *LOG_RATES.shape[:2]]
    log_q = np.reshape(rows, shape).swapaxes(0, 1).astype(np.float64)
    return log_q + 2 * np.log(_STEP)
