"""What becomes of a generator that is trained with a richer family (Cremer, Li, Duvenaud 2018)?

Auto-encoders with 50 latent dimensions are trained on all images, once with a Gaussian that
factorises and once with a flow, and held fixed. With L[q*] the bound of the best Gaussian for each
test image,

    adaptation  = (ln p(x) - L[q*]) of the flow-trained - of the Gaussian-trained generator,
    improvement = ln p(x) of the flow-trained - of the Gaussian-trained generator.

Sizes, training and bounds are those of `vae` at paper scale, of which there is one seed; here a run
is one seed or several, without annealing and without the training images, which neither needs.
Values are nats per image, with errors over seeds and images.
"""

from dataclasses import asdict, replace

import numpy as np

from tfp_gaps import _checks
from tfp_gaps.book import results
from tfp_gaps.book.data.images import flatten
from tfp_gaps.book.experiments import vae

VARIANTS = ("digits", "fashion")


def size_of(scale, variant, family):
    """The `vae.Size` with which a generator is trained and measured."""
    _checks.one_of(variant, "variant", VARIANTS)
    return replace(vae.size_of(scale, f"{variant}-{family}"), num_annealed=0)


def run(*, scale, seeds, variant, checkpoint_folder=None, progress=None):
    """Train and measure both generators; arguments as in `vae.run`, variant one of `VARIANTS`.

    Returns:
      A JSON-serialisable dict. "generators": per family, "points" as `vae.run` has them, of the
      test images alone, whether a seed "diverged", and how long training and measuring took.
    """
    sizes = {family: size_of(scale, variant, family) for family in vae.FAMILIES}
    splits = vae.load(sizes["factorised"])
    generators = {}
    for family, size in sizes.items():
        steps = size.training.num_steps
        options = results.training_options(checkpoint_folder, progress, family, steps)
        generators[family] = _measured(vae.fit(splits, size, seeds=seeds, **options), splits, size)
    return {
        "experiment": "generators",
        "scale": scale,
        "variant": variant,
        "seeds": list(seeds),
        "sizes": {family: asdict(size) for family, size in sizes.items()},
        "data": splits.source,
        "generators": generators,
    }


def _measured(fitted, splits, size):
    # The same draws as those of the test images in `vae.run`.
    seed = 1 + vae.PARTS.index("test")
    values, details = vae.measure(fitted, flatten(splits.test)[: size.num_points], size, seed=seed)
    return {
        "points": {"test": {name: vae.listed(array) for name, array in values.items()}},
        "details": details,
        "diverged": [bool(flag) for flag in fitted.history.diverged],
        "training_seconds": round(fitted.history.seconds, 1),
    }


def stored(variant, scale="paper"):
    """Read the committed runs of a data set and put their seeds together, in order.

    Returns:
      dict with "seeds" and "generators": per family, "points" of all seeds.

    Raises:
      ResultError: if there are none, one is incomplete or altered, or they differ in more than
        their seeds, or share one.
    """
    _checks.one_of(variant, "variant", VARIANTS)
    found = results.stored("generators", scale, variant, options="--seeds 1")
    found = sorted(found, key=lambda result: result["seeds"])
    seeds = [seed for result in found for seed in result["seeds"]]
    alike = all((r["sizes"], r["data"]) == (found[0]["sizes"], found[0]["data"]) for r in found)
    if not alike or len(set(seeds)) < len(seeds):
        raise results.ResultError(
            f"expected runs of generators, {variant}, of equal sizes and data and different seeds, "
            f"but found seeds {seeds}{'' if alike else ' of different sizes or data'}. Remove what "
            "does not belong, and make the others again."
        )
    return {
        "seeds": seeds,
        "generators": {family: _together(found, family) for family in vae.FAMILIES},
    }


def _together(found, family):
    own = [result["generators"][family] for result in found]
    points = {
        name: [row for each in own for row in each["points"]["test"][name]]
        for name in own[0]["points"]["test"]
    }
    return {
        "points": {"test": points},
        "diverged": [flag for each in own for flag in each["diverged"]],
    }


def adaptation(found):
    """How much worse the best Gaussian fits the flow-trained generator: `Estimate`, nats.

    Args:
      found: as from `stored`.
    """
    return _difference(found, lambda own: _evidence(own) - vae.values_of(own, _GAUSSIAN))


def improvement(found):
    """How much higher the evidence of the flow-trained generator is: `Estimate`, nats.

    Args:
      found: as from `stored`.
    """
    return _difference(found, _evidence)


_GAUSSIAN = "elbo_best_factorised"


def _evidence(own):
    return vae.values_of(own, "evidence")


def _difference(found, values):
    """Flow-trained minus Gaussian-trained, over seeds and images."""
    own = found["generators"]
    return vae.over_images(np.subtract(values(own["flow"]), values(own["factorised"])))
