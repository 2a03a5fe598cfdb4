"""Digits, row by row: what does an inference network lose that may not look at the rows to come?

Binarised MNIST, x_t in {0, 1}^28 is image row t, T = 28 (Bayer et al. 2021, section on handwritten
digits; sizes and data split are choices of this book). All values are nats per image.
"""

from dataclasses import replace

import numpy as np

from tfp_gaps import filtering
from tfp_gaps.book.experiments.benchmark import Benchmark, Size
from tfp_gaps.book.experiments.evidence import Effort
from tfp_gaps.book.experiments.sequential import Design
from tfp_gaps.models.state_space import sample_latents
from tfp_gaps.networks import replica_normal, replica_seeds
from tfp_gaps.training import Settings

NUM_ROWS = 28


def _design(
    latent, hidden, joint_steps, refit_steps, batch, warmup, rate, validate_every=0, **settings
):
    common = {"batch_size": batch, "clip_norm": 200.0, "learning_rate": rate} | settings
    common["validate_every"] = validate_every
    joint = Settings(joint_steps, kl_warmup_steps=warmup, **common)
    return Design(latent, hidden, "bernoulli", joint, Settings(refit_steps, **common))


SIZES = {
    "smoke": Size(
        design=_design(4, 16, 60, 40, 32, 20, 4e-3),
        num_bound=64,
        num_iwae=32,
        num_samples=5,
        num_filter=16,
        num_particles=50,
        start=NUM_ROWS // 2,
        data={"num_train": 512, "num_test": 64},
    ),
    "book": Size(
        design=_design(16, 64, 400, 250, 128, 100, 4e-3),
        num_bound=1000,
        num_iwae=250,
        num_samples=50,
        num_filter=200,
        num_particles=400,
        start=NUM_ROWS // 2,
        data={"num_train": 20_000, "num_test": 1000},
    ),
    "paper": Size(
        design=_design(16, 64, 2500, 1000, 128, 300, 3e-3, validate_every=500),
        num_bound=10_000,
        num_iwae=500,
        num_samples=200,
        num_filter=500,
        num_particles=2000,
        start=NUM_ROWS // 2,
        data={"num_train": 58_000, "num_validation": 2000, "num_test": 10_000},
    ),
}
# Up to 40 epochs of 453 batches; the 2,500 steps of the default are not six, and its validation
# loss was still falling by a nat in 500. Rates and warm-up were chosen from the grid in
# workflow/pilots.json. One shard: the two arms keep a core each busy.
_CONVERGED = replace(
    SIZES["paper"],
    design=_design(
        16, 64, 18_000, 9000, 128, 200, 1e-2, validate_every=300, schedule="plateau", num_shards=1
    ),
    num_particles=4000,
    effort=Effort(num_choice=64, num_test=400, num_made=128),
    chosen={"partial": {"learning_rate": 2e-2}},
)


def _converged(size):
    """Trained until the validation bound stops rising; at smoke scale as that scale."""
    return size if size is SIZES["smoke"] else _CONVERGED


def _equal_rate(size):
    """The same learning rate in both arms: what the choice of partial conditions' own is worth."""
    return replace(_converged(size), chosen={})


def _latent(number):
    """Another number of latent dimensions, and half as many steps at most."""

    def change(size):
        found = replace(
            _converged(size), design=replace(_converged(size).design, latent_size=number)
        )
        if size is SIZES["smoke"]:
            return found
        joint, refit = (
            replace(settings, num_steps=settings.num_steps // 2)
            for settings in (found.design.joint, found.design.refit)
        )
        return replace(found, design=replace(found.design, joint=joint, refit=refit))

    return change


BENCHMARK = Benchmark(
    "digits",
    SIZES,
    {"converged": _converged, "converged-equal-rate": _equal_rate}
    | {f"converged-latent{number}": _latent(number) for number in (8, 32)},
)
VARIANTS = tuple(BENCHMARK.variants)
load, run, stored = BENCHMARK.load, BENCHMARK.run, BENCHMARK.stored


def complete(model, upper_half, *, num_completions, num_particles, seed):
    """Draw lower halves of images given their upper halves, by the model alone.

    Args:
      model: a trained model.
      upper_half: rows 1..14, [14, images, 28].
      num_completions: how many lower halves per image; at most num_particles.
      num_particles: of the particle filter that infers z_14.
      seed: int.

    Returns:
      pixel means of whole images, float32 [num_completions, replicas, images, 28, 28]; the upper
      half is the given one.
    """
    filtered = filtering.particle_filter(model, upper_half, num_particles=num_particles, seed=seed)
    lower = filtering.continue_from(
        model,
        filtered.particles[:num_completions],
        num_steps=NUM_ROWS - len(upper_half),
        seed=seed,
    ).numpy()
    upper = np.broadcast_to(
        np.asarray(upper_half, np.float32)[:, np.newaxis, np.newaxis],
        (len(upper_half), *lower.shape[1:]),
    )
    return np.concatenate([upper, lower]).transpose(1, 2, 3, 0, 4)


def sample(model, *, num_images, seed):
    """Draw images from the prior: pixel means, float32 [replicas, images, 28, 28]."""
    seeds = replica_seeds([seed] * model.num_replicas, "samples")
    noise = replica_normal([NUM_ROWS, num_images, model.latent_size], seeds, axis=1)
    latents = sample_latents(model, noise)
    return model.emission(latents).mean().numpy().transpose(1, 2, 0, 3)
