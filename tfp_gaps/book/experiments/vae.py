"""Images without time: the gaps of variational auto-encoders (Cremer, Li, Duvenaud 2018).

A model is trained with an amortised posterior of one family and then held fixed. On the same
training and test images, before and after:

    L[q_phi]    the trained posterior,
    L[q*]       the best q of each family for each image alone, found from where q_phi stands,
    ln p(x)     bounded from below by IWAE with each of these q and by annealed importance sampling.

Each variant names the data, the family and what else is changed. Values are nats per image.
"""

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks, annealing, bounds, storage, training
from tfp_gaps._tensorflow import on_gpu, tf
from tfp_gaps.book import data, results, scales
from tfp_gaps.book.data.images import flatten
from tfp_gaps.estimate import INDEPENDENT, Estimate
from tfp_gaps.models.vae import VAE
from tfp_gaps.networks import replica_normal, replica_seeds
from tfp_gaps.posteriors import families, local
from tfp_gaps.posteriors.encoder import Posterior

NUM_PIXELS = 784
FAMILIES = {"factorised": "factorised", "flow": "auxiliary flow"}
"""Short names, as in variants and stored results."""

ALL_FAMILIES = FAMILIES | {"coupling": "affine flow", "full": "full covariance"}
"""The same, with two that need no auxiliary variable."""

PARTS = ("train", "test")


@dataclass(frozen=True)
class Size:
    """How large a model is, how long it is trained, and on how many images it is measured.

    family: short name of the trained posterior's, one of `ALL_FAMILIES`.
    flow: options of flows, see `families.make`.
    latent_size, encoder, decoder, activation: of the networks; widths of hidden layers.
    training: settings of the joint training.
    search: how the best q of an image is found.
    searched: short names of the families for which each image's best q is found.
    snapshots: steps at which the gaps are measured during training.
    num_points: first so many training and test images on which everything is measured.
    num_samples: K of the bounds.
    num_annealed: first so many of the points for annealed importance sampling, 0 for none.
    annealed: num_chains, num_steps, num_leapfrog_steps of it.
    data: name of the data set and options of its loader.
    """

    family: str
    flow: dict
    latent_size: int
    encoder: tuple[int, ...]
    decoder: tuple[int, ...]
    activation: str
    training: training.Settings
    search: local.Search
    searched: tuple[str, ...]
    snapshots: tuple[int, ...]
    num_points: int
    num_samples: int
    num_annealed: int
    annealed: dict
    data: dict


class Fitted(NamedTuple):
    """A model with its amortised posterior, and how the training went."""

    model: VAE
    posterior: Posterior
    history: training.History


def joint_settings(num_steps, batch_size=100, **options):
    """Settings of a joint training; the KL term is warmed up for an eighth of the steps."""
    return training.Settings(
        num_steps,
        batch_size,
        kl_warmup_steps=num_steps // 8,
        epsilon=1e-4,
        steps_per_call=min(100, num_steps),
        num_shards=1,
        jit_compile=False,
        **options,
    )


_BINARISATION = {"digits": "bernoulli", "fashion": "threshold"}
_SIZES = {
    "smoke": Size(
        family="factorised",
        flow={"num_steps": 1, "num_hidden": 8, "context_size": 4},
        latent_size=4,
        encoder=(16,),
        decoder=(16,),
        activation="elu",
        training=joint_settings(80, batch_size=32),
        search=local.Search(check_every=10, patience=1, max_steps=20, num_samples=4, batch_size=8),
        searched=("factorised", "flow"),
        snapshots=(),
        num_points=8,
        num_samples=20,
        num_annealed=4,
        annealed={"num_chains": 4, "num_steps": 20, "num_leapfrog_steps": 2},
        data={"num_train": 256, "num_test": 16},
    ),
    "book": Size(
        family="factorised",
        flow={"num_steps": 2, "num_hidden": 50, "context_size": 20},
        latent_size=20,
        encoder=(200, 200),
        decoder=(200, 200),
        activation="elu",
        training=joint_settings(6000, learning_rate=2e-3),
        search=local.Search(num_samples=16, max_steps=800),
        searched=("factorised", "flow"),
        snapshots=(),
        num_points=50,
        num_samples=1000,
        num_annealed=0,
        annealed={"num_chains": 16, "num_steps": 500, "num_leapfrog_steps": 5},
        data={"num_train": 10_000, "num_test": 2000},
    ),
    "paper": Size(
        family="factorised",
        flow={"num_steps": 2, "num_hidden": 100, "context_size": 50},
        latent_size=50,
        encoder=(200, 200),
        decoder=(200, 200),
        activation="elu",
        training=joint_settings(328 * 600, schedule="stages"),
        search=local.Search(num_samples=16, max_steps=1000),
        searched=("factorised", "flow"),
        snapshots=(),
        num_points=100,
        num_samples=5000,
        num_annealed=50,
        annealed={"num_chains": 16, "num_steps": 1000, "num_leapfrog_steps": 10},
        data={"num_train": 60_000, "num_test": 10_000},
    ),
}


def _change(**fields):
    """A change of a size that is measured with the trained family alone."""

    def apply(size):
        return replace(size, searched=(size.family,), **fields)

    return apply


def _without_warm_up(size):
    return _change(training=replace(size.training, kl_warmup_steps=0))(size)


def _long(size):
    """Four times the steps, with snapshots on the way."""
    num_steps = 4 * size.training.num_steps
    first = num_steps // 40  # every snapshot ends a call
    settings = replace(size.training, num_steps=num_steps, steps_per_call=first)
    snapshots = tuple(first * factor for factor in (1, 2, 4, 10, 20, 40))
    return _change(training=settings, snapshots=snapshots)(size)


# What a variant changes beside data and family; the sizes of Cremer et al.'s public code.
CHANGES = {
    "": lambda size: size,
    "wide": _change(encoder=(500, 500)),
    "linear": _change(encoder=()),
    "decoder0": _change(decoder=()),
    "decoder4": _change(decoder=(200,) * 4),
    "cold": _without_warm_up,
    "long": _long,
    "longwide": lambda size: _long(replace(size, encoder=(500, 500))),
}
VARIANTS = tuple(
    "-".join(filter(None, (data_set, family, change)))
    for data_set in _BINARISATION
    for family in FAMILIES
    for change in CHANGES
)


def size_of(scale, variant):
    """The `Size` of a scale under a variant.

    >>> size_of("book", "fashion-flow-wide").encoder
    (500, 500)
    """
    scales.check(scale)
    data_set, family, *change = _checks.one_of(variant, "variant", VARIANTS).split("-")
    size = _SIZES[scale]
    options = {"name": data_set, "binarisation": _BINARISATION[data_set], **size.data}
    return CHANGES[change[0] if change else ""](replace(size, family=family, data=options))


def load(size):
    """Load the images of a size: `data.splits.Splits`."""
    return data.load(**size.data)


def fit(splits, size, *, seeds, visible=None, watch=None, progress=None, **options):
    """Train model and posterior together on the ELBO.

    Args:
      splits: `data.splits.Splits` of binary images.
      size: `Size`.
      seeds: one int per replica.
      visible: pixels that the posterior may see, see `Posterior`.
      watch: callable (model, posterior, step) during the training, or None.
      progress, **options: checkpoint: as in `training.fit`.

    Returns:
      `Fitted`.
    """
    model = VAE(
        observation_size=NUM_PIXELS,
        latent_size=size.latent_size,
        hidden=size.decoder,
        activation=size.activation,
        seeds=replica_seeds(seeds, "initial model"),
    )
    posterior = new_posterior(size, seeds, visible=visible)
    variables = [*model.trainable_variables, *posterior.trainable_variables]

    def report(step, losses):
        if progress is not None:
            progress(step, losses)
        if watch is not None:
            watch(model, posterior, step)

    options["progress"] = report
    return _fit(model, posterior, variables, splits, size, seeds, "joint", options)


def fit_posterior(model, splits, size, *, seeds, visible=None, posterior=None, **options):
    """Train a fresh posterior on a model that is held fixed; arguments as in `fit`.

    `posterior` is trained in place of one that has the sizes given, all of which it shares but
    the encoder; its encoder's name tells checkpoints apart.
    """
    what = "posterior"
    if posterior is None:
        posterior = new_posterior(size, seeds, visible=visible)
    else:
        what += f" with {posterior.encoder.name}"
    variables = list(posterior.trainable_variables)
    return _fit(model, posterior, variables, splits, size, seeds, what, options)


def new_posterior(size, seeds, visible=None):
    """An untrained posterior of the sizes given."""
    family = families.make(ALL_FAMILIES[size.family], size.latent_size, **size.flow)
    return Posterior(
        family,
        observation_size=NUM_PIXELS,
        hidden=size.encoder,
        activation=size.activation,
        visible=visible,
        seeds=replica_seeds(seeds, "initial posterior"),
    )


def _fit(model, posterior, variables, splits, size, seeds, what, options):
    seen = "all" if posterior.visible is None else f"pixels {_digest([posterior.visible])}"
    identity = f"{_networks(size)} {splits.source} trains {what}, sees {seen}"
    if what != "joint":
        identity += f", of model {_digest(model.variables)}"
    history = training.fit(
        bounds.negative_elbo(model, posterior),
        variables,
        flatten(splits.train),
        size.training,
        seeds=seeds,
        fingerprint=identity,
        **options,
    )
    return Fitted(model, posterior, history)


def _digest(arrays):
    """Twelve digits that tell arrays apart, which a checkpoint's fingerprint can carry."""
    content = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
    return storage.sha256(content)[:12]


def _networks(size):
    """What of a size the training depends on, beside its settings."""
    names = ("family", "flow", "latent_size", "encoder", "decoder", "activation")
    return {name: getattr(size, name) for name in names}


# --- measuring ------------------------------------------------------------------------------------


def measure(fitted, images, size, *, seed):
    """All bounds on the same images.

    Args:
      fitted: `Fitted`.
      images: [images, pixels].
      size: `Size`.
      seed: int.

    Returns:
      values: {quantity: float64 [replicas, images]}, nats per image: "elbo" and "iwae" of the
        trained posterior; "elbo_best_FAMILY" and "iwae_best_FAMILY" of each image's best q, for the
        families searched; "annealed" on the first images.
      details: {"seconds": wall time by part, "steps": of each search, "diverged": count}.
    """
    model, posterior = fitted.model, fitted.posterior
    observations = np.asarray(images, np.float32)[np.newaxis]
    bound = {"num_samples": size.num_samples, "seed": seed}
    clock = {"amortised": _time_amortised(posterior, observations)}
    own = posterior.parameters(tf.constant(observations))
    found = bounds.evaluate_static(model, posterior.family, own, observations, **bound)
    values = {"elbo": found.elbo, "iwae": found.iwae}
    steps, diverged = {}, 0
    for short in size.searched:
        # A flow that was not trained has no use for a context.
        options = size.flow if short == size.family else {**size.flow, "context_size": 1}
        family = families.make(ALL_FAMILIES[short], size.latent_size, **options)
        start = starting_point(fitted, own, family, seed)
        started = time.monotonic()
        best = local.optimise(model, family, start, observations, size.search, seed=seed)
        clock[short] = time.monotonic() - started
        found = bounds.evaluate_static(model, family, best.parameters, observations, **bound)
        values |= {f"elbo_best_{short}": found.elbo, f"iwae_best_{short}": found.iwae}
        steps[short] = best.steps.tolist()
        diverged += int(best.diverged.sum())
    if size.num_annealed:
        started = time.monotonic()
        values["annealed"] = anneal(model, observations[:, : size.num_annealed], size, seed)
        clock["annealed"] = time.monotonic() - started
    return values, {"seconds": clock, "steps": steps, "diverged": diverged}


def starting_point(fitted, own, family, seed, num_draws=200):
    """Where the search for the best q of a family starts: at q_phi, or as near as the family gets.

    A family other than the trained one starts at the factorised Gaussian with q_phi's mean and
    standard deviation, which are measured by draws unless q_phi is Gaussian itself.
    """
    trained = fitted.posterior.family
    if trained.name == family.name:
        return own
    size, (replicas, count) = family.latent_size, own.outputs.shape[:2]
    if trained.name == "factorised":
        mean, log_scale = own.outputs[..., :size], own.outputs[..., size:]
    else:
        seeds = replica_seeds([seed] * replicas, "moments")
        noise = replica_normal([num_draws, count, trained.num_noise], seeds)
        latents = families.draw(trained, own, tf.transpose(noise, [1, 0, 2, 3])).latents
        mean = tf.reduce_mean(latents, 0)
        log_scale = tf.math.log(tf.math.reduce_std(latents, 0))
    return families.gaussian_start(
        family, mean, log_scale, replica_seeds([seed] * replicas, "flow start")
    )


def anneal(model, observations, size, seed):
    """Annealed importance sampling of ln p(x): float64 [replicas, images], nats."""
    observations = tf.constant(observations)
    found = annealing.forward(
        lambda latents: model.log_joint(latents, observations),
        batch_shape=(model.num_replicas, observations.shape[1]),
        latent_size=model.latent_size,
        seed=seed,
        jit_compile=on_gpu(),
        **size.annealed,
    )
    return found.log_evidence()


def _time_amortised(posterior, observations, repetitions=5):
    """Seconds of one pass of the encoder over all images, the median of a few."""
    observations = tf.constant(observations)
    outputs = tf.function(posterior.outputs)
    outputs(observations)
    taken = []
    for _ in range(repetitions):
        started = time.perf_counter()
        outputs(observations).numpy()
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))


# --- runs -----------------------------------------------------------------------------------------


def run(*, scale, seeds, variant, checkpoint_folder=None, progress=None):
    """Train and measure one variant.

    Args:
      scale: "smoke", "book" or "paper".
      seeds: list of ints, trained side by side.
      variant: one of `VARIANTS`.
      checkpoint_folder: where the training state is kept, or None.
      progress: callable (label, num_steps) -> progress callback of `training.fit`, or None.

    Returns:
      A JSON-serialisable dict: settings, and per quantity [seeds][points] for both parts.
    """
    size = size_of(scale, variant)
    splits = load(size)
    fitted, snapshots = _trained(splits, size, seeds, checkpoint_folder, progress)
    content = {
        "experiment": "vae",
        "scale": scale,
        "variant": variant,
        "seeds": list(seeds),
        "size": asdict(size),
        "data": splits.source,
        "epochs": size.training.num_steps * size.training.batch_size / len(splits.train),
        "diverged": [bool(flag) for flag in fitted.history.diverged],
        "training_seconds": round(fitted.history.seconds, 1),
        "snapshots": snapshots,
        "whole_set": {part: whole_set(fitted, getattr(splits, part)) for part in PARTS},
        "points": {},
        "details": {},
    }
    for seed, part in enumerate(PARTS, start=1):
        values, content["details"][part] = _measure_part(fitted, splits, part, size, seed)
        content["points"][part] = values
    return content


def _measure_part(fitted, splits, part, size, seed):
    images = flatten(getattr(splits, part))[: size.num_points]
    values, details = measure(fitted, images, size, seed=seed)
    return {name: listed(array) for name, array in values.items()}, details


def listed(values):
    """Values as nested lists for JSON, rounded; None where a datum has no number (it diverged)."""
    rounded = np.round(np.asarray(values, float), 3)
    return np.where(np.isfinite(rounded), rounded, None).tolist()


def _trained(splits, size, seeds, folder, progress):
    """Train, and measure at the snapshots: `Fitted`, {step: {part: values}}.

    A snapshot is kept beside the checkpoint, so that a run that was killed does not lack it.
    """
    options = results.training_options(folder, progress, "joint", size.training.num_steps)
    found = {}

    def watch(model, posterior, step):
        if step in size.snapshots:
            content = _snapshot(Fitted(model, posterior, None), splits, size)
            found[str(step)] = content
            if folder is not None:
                text = json.dumps(content).encode()
                storage.write_atomically(Path(folder) / f"snapshot-{step}.json", text)

    fitted = fit(splits, size, seeds=seeds, watch=watch, **options)
    for step in size.snapshots:
        if str(step) not in found:
            kept = Path(folder) / f"snapshot-{step}.json"
            found[str(step)] = json.loads(kept.read_text(encoding="utf-8"))
    return fitted, {str(step): found[str(step)] for step in sorted(size.snapshots)}


def _snapshot(fitted, splits, size):
    quick = replace(size, num_annealed=0)
    return {
        part: _measure_part(fitted, splits, part, quick, seed)[0]
        for seed, part in enumerate(PARTS, start=1)
    }


def whole_set(fitted, sequences, num_samples=2):
    """L[q_phi] over a whole split, one estimate over images per seed, as dicts."""
    images = flatten(sequences)
    parts = []
    for start in range(0, len(images), 1000):
        part = images[np.newaxis, start : start + 1000].astype(np.float32)
        own = fitted.posterior.parameters(tf.constant(part))
        found = bounds.evaluate_static(
            fitted.model,
            fitted.posterior.family,
            own,
            part,
            num_samples=num_samples,
            seed=start,
            data_at_once=1000,
        )
        parts.append(found.elbo)
    values = np.concatenate(parts, axis=1)
    return [Estimate.from_samples(row, kind="data points").as_dict() for row in values]


def stored(scale, variant):
    """Read the committed result of a variant.

    Raises:
      ResultError: if there is none, or it is incomplete or altered.
    """
    _checks.one_of(variant, "variant", VARIANTS)
    return results.stored("vae", scale, variant, options="--seeds 0")[0]


EVIDENCE = ("annealed", "iwae", *(f"iwae_best_{short}" for short in FAMILIES))


def evidence_of(result, part="test"):
    """The lower bound on ln p(x) with the largest mean over seeds and images.

    Choosing by the mean, not for each image, keeps the noise of many bounds from adding up. A bound
    on some of the images only (annealing) is compared on these and not chosen.

    Returns:
      name of the bound, float64 [seeds, points].
    """
    points = {name: np.array(v, float) for name, v in result["points"][part].items()}
    whole = [name for name in EVIDENCE if name in points and name != "annealed"]
    best = max(whole, key=lambda name: np.nan_to_num(points[name].mean(), nan=-np.inf))
    return best, points[best]


def values_of(result, name, part="test"):
    """A quantity as float64 [seeds, points]; "evidence" is the bound that `evidence_of` chooses.

    A datum that diverged is NaN, from which no `Estimate` can be made: report it as diverged.
    """
    if name == "evidence":
        return evidence_of(result, part)[1]
    return np.array(result["points"][part][name], float)


def over_images(values):
    """Mean of float64 [seeds, images]; images are independent, so that each is its own group."""
    return Estimate.from_crossed(values, INDEPENDENT)


def difference(result, minuend, subtrahend, part="test"):
    """Mean difference of two quantities of one result, paired, with errors over seeds and images.

    >>> points = {"elbo": [[-3.0, -2.0]], "elbo_best_flow": [[-2.5, -1.0]]}
    >>> print(difference({"points": {"test": points}}, "elbo_best_flow", "elbo"))
    0.75 ± 0.25
    """
    pair = (values_of(result, name, part) for name in (minuend, subtrahend))
    return over_images(np.subtract(*pair))


def over_whole_set(result, name, part="test"):
    """Mean of a quantity over a whole split, of which it was measured on some images only.

    L[q_phi] is known on all images, and differs less from the other bounds on an image than they
    differ between images: its mean over the split plus the mean difference on the images measured
    has a far smaller error than the plain mean of these.

    Returns:
      `Estimate`, with errors over images of both parts, and over seeds if there are several.

    >>> points = {"elbo": [[-3.0, -2.0]], "iwae": [[-2.5, -1.0]]}
    >>> whole = [{"value": -4.0, "standard_error": 0.1, "num_samples": 9, "kind": "data points"}]
    >>> print(over_whole_set({"points": {"test": points}, "whole_set": {"test": whole}}, "iwae"))
    -3.25 ± 0.27
    """
    found = [Estimate.from_dict(entry) for entry in result["whole_set"][part]]
    values = [entry.value for entry in found]
    # Seeds share the images: the error over images is that of one seed.
    error = float(np.sqrt(np.mean([entry.standard_error**2 for entry in found])))
    base = replace(found[0], value=float(np.mean(values)), standard_error=error)
    if len(found) > 1:
        base = base + (Estimate.from_samples(values, "seeds") - base.value)
    return base if name == "elbo" else base + difference(result, name, "elbo", part)


def gap_values(result, part="test", family=None):
    """The two gaps of each image: {"approximation", "amortisation": float64 [seeds, points]}.

    Args:
      result: as from `run`, or a snapshot under "points".
      part: "train" or "test".
      family: short name of the family whose best member counts; None for the trained one.
    """
    family = family or result["size"]["family"]
    best = values_of(result, f"elbo_best_{family}", part)
    return {
        "approximation": values_of(result, "evidence", part) - best,
        "amortisation": best - values_of(result, "elbo", part),
    }


def gaps_of(result, part="test", family=None):
    """The means of `gap_values` as estimates over seeds and images."""
    return {name: over_images(values) for name, values in gap_values(result, part, family).items()}


def change_of_gap(result, baseline, gap, part="test"):
    """How much larger a gap is than under a baseline: paired by seed and image."""
    pair = (gap_values(r, part)[gap] for r in (result, baseline))
    return over_images(np.subtract(*pair))


def snapshots_of(result):
    """A result's snapshots, each in the form of a result: {step: result}, smallest step first."""
    found = {
        int(step): {**result, "points": points} for step, points in result["snapshots"].items()
    }
    return dict(sorted(found.items()))


class Refinement(NamedTuple):
    """A search for each image's best q, watched on its way.

    steps: int [looks], after which the ELBO was measured (as a mean over the steps of a look).
    lacking: float64 [looks, images], what the ELBO lacks to the best one found, nats.
    """

    steps: np.ndarray
    lacking: np.ndarray


def refinement(fitted, images, size, best, *, start, num_steps=400, every=10, seed=0):
    """Search for the best q of each image at a constant rate, and watch.

    Args:
      fitted: `Fitted` with a factorised posterior.
      images: [images, pixels].
      best: float64 [images], L[q*_x] from a search to its end.
      start: "encoder", or "prior" (no network: stochastic variational inference).
      num_steps, every: steps in all, and between looks.
      seed: int.

    Returns:
      `Refinement` of the first replica.
    """
    _checks.one_of(start, "start", ("encoder", "prior"))
    observations = np.asarray(images, np.float32)[np.newaxis]
    own = fitted.posterior.parameters(tf.constant(observations))
    if start == "prior":
        own = own._replace(outputs=tf.zeros_like(own.outputs))
    search = replace(
        size.search,
        learning_rates=(1e-2,),
        check_every=every,
        patience=num_steps,
        max_steps=num_steps,
        batch_size=len(images),
    )
    found = local.optimise(
        fitted.model, fitted.posterior.family, own, observations, search, seed=seed
    )
    looks = found.looks[0][:, 0].astype(np.float64)
    return Refinement(every * np.arange(1, len(looks) + 1), best - looks)
