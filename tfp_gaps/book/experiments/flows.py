"""Flavours of normalising flows on the same posteriors: what each leaves of the approximation gap.

For each posterior the best member of every family is searched by stochastic gradients, from several
starts with falling rates, until no rate gains any more; the best end counts. All flows are of equal
depth: four maps, that is two pairs of coupling layers (affine or spline; Dinh et al. 2017, Durkan
et al. 2019), four inverse autoregressive layers (Kingma et al. 2016), four planar maps (Rezende and
Mohamed 2015), and, since these are small, sixteen of the latter.

    "two"      two latent dimensions: ln p(x) - L[q] by sums over a grid, of the posteriors that are
               farthest from Gaussian, with one mode and with several
    "twenty"   twenty: L[q] by draws, on test images in their order

Values are nats per image.
"""

from dataclasses import dataclass, replace

import numpy as np

from tfp_gaps import _checks, bounds
from tfp_gaps._tensorflow import tf
from tfp_gaps.book import results
from tfp_gaps.book.data.images import flatten
from tfp_gaps.book.experiments import two_latents, vae
from tfp_gaps.estimate import INDEPENDENT, paired_difference, ratio_of_means
from tfp_gaps.networks import replica_seeds
from tfp_gaps.posteriors import families, local

FLOWS = {
    "affine coupling": ("affine flow", 2),
    "spline coupling": ("spline flow", 2),
    "inverse autoregressive": ("inverse autoregressive flow", 2),
    "planar": ("planar flow", 2),
    "planar, sixteen": ("planar flow", 8),
}
"""By label: family, and pairs of maps."""

FLAVOURS = tuple(FLOWS)[:4]
"""Those of equal depth."""

KINDS = ("one mode", "several modes")
VARIANTS = ("two", "twenty")


@dataclass(frozen=True)
class Size:
    """How large the experiment is.

    images: of two latent dimensions: first and last test image that posteriors are chosen from.
    num_each: posteriors of each kind.
    num_images: of twenty latent dimensions.
    num_starts: seeds of a flow's layers, from each Gaussian that searches start at.
    stages: of a search, one after another.
    num_samples: of the bounds, where they are draws.
    """

    images: tuple[int, int]
    num_each: int
    num_images: int
    num_starts: int
    stages: tuple[local.Search, ...]
    num_samples: int


def _stages(max_steps, num_samples):
    common = {"max_steps": max_steps, "num_samples": num_samples, "batch_size": 200}
    return tuple(local.Search(learning_rates=(rate,), **common) for rate in (2e-2, 5e-3, 1e-3))


SIZES = {
    "smoke": Size((0, 30), 2, 2, 1, _stages(20, 4), 20),
    "book": Size((100, 700), 8, 16, 2, _stages(400, 8), 1000),
}
"""Sizes by scale."""


def run(*, scale, seeds, variant, checkpoint_folder=None, progress=None):
    """Train a model, then search every family on the same posteriors.

    Args: as in `experiments.vae.run`; the first seed alone is used.

    Returns:
      A JSON-serialisable dict. "num_parameters" by family; further, of "two", what `on_a_grid`
      returns, and of "twenty" what `by_draws` does.
    """
    _checks.one_of(variant, "variant", VARIANTS)
    size = SIZES[_checks.one_of(scale, "scale of flows", SIZES)]
    if variant == "two":
        own = two_latents.SIZES[scale].generators["factorised"]
        measured = on_a_grid
    else:
        own = replace(vae.size_of(scale, "digits-factorised"), searched=("factorised",))
        measured = by_draws
    splits = vae.load(own)
    steps = own.training.num_steps
    options = results.training_options(checkpoint_folder, progress, "model", steps)
    fitted = vae.fit(splits, own, seeds=seeds[:1], **options)
    latent_size = own.latent_size
    return {
        "experiment": "flows",
        "scale": scale,
        "variant": variant,
        "seeds": list(seeds),
        "data": splits.source,
        "diverged": fitted.history.diverged.tolist(),
        "num_parameters": {name: _count(_make(name, latent_size)) for name in FLOWS},
        **measured(fitted, splits, own, size, scale),
    }


def _make(label, latent_size):
    name, pairs = FLOWS[label]
    return families.make(name, latent_size, num_steps=pairs, num_hidden=30, context_size=1)


def _count(family):
    """Numbers of a single q: outputs and weights, those that masks hide left in."""
    weights = family.make_weights(replica_seeds([0], "count"))
    return family.num_outputs + sum(int(np.prod(w.shape[1:])) for w in weights)


def search(model, family, start, images, stages, *, seed):
    """The q of each image after each of the stages: list of `families.Parameters`.

    Args:
      model, family, images: as in `two_latents.exact_elbo`.
      start: `families.Parameters` [1, images, ...], each image's own.
      stages: `local.Search`, one after another.
      seed: int, of the draws.
    """
    observations, found = np.asarray(images, np.float32)[np.newaxis], []
    for index, stage in enumerate(stages):
        done = local.optimise(model, family, start, observations, stage, seed=seed + index)
        start = done.parameters
        found.append(start)
    return found


# --- two latent dimensions ------------------------------------------------------------------------


def on_a_grid(fitted, splits, own, size, scale):
    """Exact gaps of all families.

    Returns:
      {"images": by kind, indices of the test images; "gaps": by family, [posteriors] for Gaussians,
      [stages][starts][posteriors] for flows; "finer": the last of the best start's on four times as
      many nodes of the noise, by flow}; posteriors are those of one mode, then those of several.
    """
    del own
    first, last = size.images
    images = flatten(splits.test)[first:last]
    coarse = two_latents.tabulate(fitted.model, images, two_latents.SIZES[scale].grid)
    chosen = choose(coarse, size.num_each)
    picked = [index for kind in KINDS for index in chosen[kind]]
    images = images[picked]
    nodes = two_latents.refine(fitted.model, images, [coarse[i] for i in picked])
    best = {
        name: two_latents.best_gaussians(fitted.model, name, nodes, images)
        for name in two_latents.GAUSSIANS
    }
    evidence = np.array([each.log_evidence for each in nodes])
    moments = [each.moments() for each in nodes]
    broad = [[*mean, *0.5 * np.log(np.diag(covariance))] for mean, covariance in moments]
    starts = np.stack([best["factorised"].parameters.outputs.numpy()[0], broad])
    gaps = {name: vae.listed(found.gap) for name, found in best.items()}
    finer = {}
    for name in FLOWS:
        found, finer[name] = _exact_gaps(
            fitted.model, _make(name, 2), starts, images, evidence, size
        )
        gaps[name] = vae.listed(found)
    places = {kind: [first + i for i in chosen[kind]] for kind in KINDS}
    return {"images": places, "gaps": gaps, "finer": finer}


def choose(nodes, num):
    """The posteriors farthest from Gaussian, by the exact posteriors alone.

    Args:
      nodes: list of `two_latents.Nodes`.
      num: of each kind.

    Returns:
      {"one mode", "several modes": indices}; of the latter, the second basin holds a twentieth of
      the mass or more.
    """
    ranked = sorted(range(len(nodes)), key=lambda i: -nodes[i].non_gaussianity())
    single = [i for i in ranked if len(nodes[i].modes) == 1]
    several = [
        i for i in ranked if len(nodes[i].modes) > 1 and np.sort(nodes[i].shares())[-2] > 0.05
    ]
    return {"one mode": single[:num], "several modes": several[:num]}


def _exact_gaps(model, family, starts, images, evidence, size):
    """Gaps of a flow [stages, starts, posteriors], and the last of the best on finer nodes."""
    rows = np.concatenate([starts] * size.num_starts)
    count = len(rows)
    flat = rows.reshape(-1, 4)
    repeated = np.tile(images, [count, 1])
    own = two_latents.own_start(family, flat[:, :2], flat[:, 2:], 0)
    stages = search(model, family, own, repeated, size.stages, seed=0)
    shape = (count, len(images))
    gaps = [
        evidence - two_latents.exact_elbo(model, family, each, repeated).reshape(shape)
        for each in stages
    ]
    rows = np.argmin(gaps[-1], 0) * len(images) + np.arange(len(images))
    best = families.Parameters(
        tf.gather(stages[-1].outputs, rows, axis=1),
        [tf.gather(weight, rows, axis=1) for weight in stages[-1].weights],
        True,
    )
    finer = two_latents.exact_elbo(model, family, best, images, num_nodes=81)
    return gaps, vae.listed(evidence - finer)


# --- twenty ---------------------------------------------------------------------------------------


def by_draws(fitted, splits, own, size, scale):
    """Bounds of all families.

    Returns:
      {"elbo": by family, L[q] of each image's best q [images]; "iwae": the same of the
      importance-weighted bound; "stages": by family, the mean L[q] after each stage}.
    """
    del scale
    images = flatten(splits.test)[: size.num_images]
    model, posterior = fitted.model, fitted.posterior
    rates = size.stages[::2]  # with draws for bounds, a middle one would not be seen
    encoded = posterior.parameters(tf.constant(images[np.newaxis].astype(np.float32)))
    plain = posterior.family
    factorised = search(model, plain, encoded.own(), images, rates, seed=0)
    mean, log_scale = tf.split(factorised[-1].outputs[0], 2, axis=-1)
    found = {"factorised": _by_draws(model, plain, factorised, images, size)}
    full = families.make("full covariance", own.latent_size)
    others = {"full covariance": full} | {name: _make(name, own.latent_size) for name in FLAVOURS}
    for name, family in others.items():
        repeats = 1 if name in two_latents.GAUSSIANS else size.num_starts
        start = two_latents.own_start(
            family, tf.tile(mean, [repeats, 1]), tf.tile(log_scale, [repeats, 1]), 0
        )
        repeated = np.tile(images, [repeats, 1])
        stages = search(model, family, start, repeated, rates, seed=0)
        found[name] = _by_draws(model, family, stages, repeated, size)
    return {
        key: {name: vae.listed(values[key]) for name, values in found.items()}
        for key in ("elbo", "iwae", "stages")
    }


def _by_draws(model, family, stages, images, size):
    """Bounds of the start that some draws prefer, measured by others."""
    options = {"num_samples": size.num_samples}

    def evaluate(parameters, seed):
        observations = np.asarray(images, np.float32)[np.newaxis]
        return bounds.evaluate_static(model, family, parameters, observations, seed=seed, **options)

    first = [evaluate(each, 1).elbo[0] for each in stages]
    preferred = first[-1].reshape(-1, size.num_images).argmax(0)
    rows = preferred * size.num_images + np.arange(size.num_images)
    last = evaluate(stages[-1], 2)
    return {
        "elbo": last.elbo[0][rows],
        "iwae": last.iwae[0][rows],
        "stages": [each.mean() for each in first],
    }


# --- reading --------------------------------------------------------------------------------------


def stored(variant, scale="book"):
    """Read the committed result of a variant.

    Raises:
      ResultError: if there is none, or it is incomplete or altered.
    """
    _checks.one_of(variant, "variant", VARIANTS)
    return results.stored("flows", scale, variant, options="--seeds 0")[0]


def gaps(result, kind):
    """Gaps of the best ends, of one kind of posteriors: {family: float64 [posteriors]}.

    >>> flow = [[[0.5, 0.5], [0.2, 0.9]]]  # [stages][starts][posteriors]
    >>> content = {"images": {"one mode": [3], "several modes": [4]}, "gaps": {"planar": flow}}
    >>> {name: own.tolist() for name, own in gaps(content, "one mode").items()}
    {'planar': [0.2]}
    """
    count = len(result["images"][KINDS[0]])
    part = slice(count) if kind == KINDS[0] else slice(count, None)
    found = {name: np.array(values, float) for name, values in result["gaps"].items()}
    return {
        name: (values[-1].min(0) if values.ndim == 3 else values)[part]
        for name, values in found.items()
    }


def share_left(own, names):
    """Of the full covariance's gap, what flows leave, the best of them for each posterior.

    Args:
      own: gaps by family, as from `gaps`.
      names: of flows.

    Returns:
      `Estimate`, with errors over posteriors.
    """
    best = np.min([own[name] for name in names], axis=0)
    return ratio_of_means(best[np.newaxis], own["full covariance"][np.newaxis], INDEPENDENT)


def gain(result, name, other):
    """Mean L[q] of a family minus that of another, on twenty latent dimensions: an `Estimate`."""
    return paired_difference(result["elbo"][name], result["elbo"][other])
