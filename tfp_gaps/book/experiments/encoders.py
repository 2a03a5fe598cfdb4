"""One decoder, many encoders: which parameters help an inference network to generalise?

A model is trained with a factorised posterior and held fixed; its evidence and the best q of each
image are then common to all posteriors that are trained on it afterwards. These differ in their
encoder (affine, one hidden layer, two) and in their family (factorised Gaussian, affine coupling
flow without auxiliary variable), as in the study of Cremer et al. (2018) with a fixed decoder. For
each of them

    amortisation gap = L[q*_x] - L[q_phi](x),   q*_x the best of the posterior's own family,

on training and on test images. Values are nats per image.
"""

from dataclasses import asdict, replace

import numpy as np

from tfp_gaps import _checks, bounds
from tfp_gaps._tensorflow import tf
from tfp_gaps.book import results
from tfp_gaps.book.data.images import flatten
from tfp_gaps.book.experiments import vae

ENCODERS = {"linear": (), "small": (100,), "regular": (200, 200)}
FAMILIES = ("factorised", "coupling")
VARIANTS = ("digits", "fashion")


def size_of(scale, variant):
    """The `vae.Size` of model and posteriors."""
    _checks.one_of(variant, "variant", VARIANTS)
    return replace(vae.size_of(scale, f"{variant}-factorised"), num_annealed=0)


def run(*, scale, seeds, variant, checkpoint_folder=None, progress=None):
    """Train one model, then every posterior on it; arguments as in `experiments.vae.run`.

    Returns:
      A JSON-serialisable dict. "points": per part, {"evidence", "best_factorised",
      "best_coupling", "ENCODER-FAMILY": [seeds][points]}; "num_parameters" of each posterior.
    """
    size = size_of(scale, variant)
    splits = vae.load(size)

    def options(name):
        steps = size.training.num_steps
        own = results.training_options(checkpoint_folder, progress, name, steps)
        return {"seeds": seeds} | own

    model = vae.fit(splits, size, **options("model")).model
    posteriors = {}
    for encoder, widths in ENCODERS.items():
        for family in FAMILIES:
            name = f"{encoder}-{family}"
            own = replace(size, encoder=widths, family=family)
            posteriors[name] = vae.fit_posterior(model, splits, own, **options(name))
    return {
        "experiment": "encoders",
        "scale": scale,
        "variant": variant,
        "seeds": list(seeds),
        "size": asdict(size),
        "data": splits.source,
        "diverged": {name: fitted.history.diverged.tolist() for name, fitted in posteriors.items()},
        "num_parameters": {
            name: sum(int(np.prod(v.shape[1:])) for v in fitted.posterior.trainable_variables)
            for name, fitted in posteriors.items()
        },
        "points": {
            part: _measure(posteriors, flatten(getattr(splits, part))[: size.num_points], size)
            for part in vae.PARTS
        },
    }


def _measure(posteriors, images, size):
    """Bounds of all posteriors on the same images: {name: [seeds][points]}."""
    observations = images[np.newaxis].astype(np.float32)
    values = {}
    for name, fitted in posteriors.items():
        own = fitted.posterior.parameters(tf.constant(observations))
        found = bounds.evaluate_static(
            fitted.model,
            fitted.posterior.family,
            own,
            observations,
            num_samples=size.num_samples,
            seed=1,
        )
        values[name] = found.elbo
    evidence = []
    for family in FAMILIES:
        # The search starts from the encoder of the same family that came closest.
        start = max((f"{e}-{family}" for e in ENCODERS), key=lambda name: values[name].mean())
        searched = replace(size, searched=(family,), family=family)
        found, _ = vae.measure(posteriors[start], images, searched, seed=2)
        values[f"best_{family}"] = found[f"elbo_best_{family}"]
        evidence.append(found[f"iwae_best_{family}"])
    values["evidence"] = max(evidence, key=np.mean)
    return {name: vae.listed(array) for name, array in values.items()}


def stored(scale, variant):
    """Read the committed result.

    Raises:
      ResultError: if there is none, or it is incomplete or altered.
    """
    return results.stored("encoders", scale, variant, options="--seeds 0 1 2")[0]


def amortisation_gap(result, encoder, family, part="test"):
    """L[q*_x] - L[q_phi] of each image: float64 [seeds, points], nats."""
    points = result["points"][part]
    best, own = (np.asarray(points[n]) for n in (f"best_{family}", f"{encoder}-{family}"))
    return best - own
