"""Digits, row by row: what does an inference network lose that may not look at the rows to come?

Binarised MNIST, x_t in {0, 1}^28 is image row t, T = 28. For each look-ahead k a model and its
network are trained on the ELBO; the rest is measured on test images (science: Bayer et al. 2021,
section on handwritten digits; sizes and data split are choices of this book).
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tfp_gaps import bounds, data, filtering, results, scales
from tfp_gaps._tensorflow import tf
from tfp_gaps.estimate import Estimate, paired_difference
from tfp_gaps.experiments.sequential import Design, fit_jointly, fit_network
from tfp_gaps.models.state_space import sample_latents
from tfp_gaps.networks import replica_normal, replica_seeds
from tfp_gaps.tables import Table
from tfp_gaps.training import Settings

NUM_ROWS = 28


@dataclass(frozen=True)
class Size:
    """How much data, how long the training, how much is evaluated.

    num_bound: test images for the ELBO; num_iwae: the first so many of them for the IWAE bound with
    num_samples paths; num_filter: for the particle filter with num_particles.
    """

    num_train: int
    num_bound: int
    num_iwae: int
    num_samples: int
    num_filter: int
    num_particles: int
    design: Design


def _design(latent, hidden, joint_steps, refit_steps, batch, warmup, rate):
    common = {"batch_size": batch, "clip_norm": 200.0, "learning_rate": rate}
    joint = Settings(joint_steps, kl_warmup_steps=warmup, **common)
    return Design(latent, hidden, "bernoulli", joint, Settings(refit_steps, **common))


SIZES = {
    "smoke": Size(512, 64, 32, 5, 16, 50, _design(4, 16, 60, 40, 32, 20, 4e-3)),
    "book": Size(20_000, 1000, 250, 50, 200, 400, _design(16, 64, 400, 250, 128, 100, 4e-3)),
    "paper": Size(60_000, 10_000, 500, 100, 500, 1000, _design(16, 64, 2000, 1000, 128, 300, 3e-3)),
}


def load(scale):
    """Load the images of a scale."""
    size = SIZES[scales.check(scale)]
    return data.load("digits", num_train=size.num_train, num_test=size.num_bound)


def run(*, scale, lookahead, seeds, checkpoint_folder=None, progress=None):
    """Train and evaluate one look-ahead; the stored result of the paper scale.

    Args:
      scale: "smoke", "book" or "paper".
      lookahead: k >= 0 or None.
      seeds: one int per replica.
      checkpoint_folder: where to keep checkpoints, or None.
      progress: callable (label, num_steps) -> progress callback of `training.fit`, or None.

    Returns:
      A JSON-serialisable dict: settings, and for each quantity its estimates per seed, in nats per
      image unless named otherwise.
    """
    size, splits = SIZES[scales.check(scale)], load(scale)

    def options(phase, settings):
        path = None if checkpoint_folder is None else Path(checkpoint_folder) / f"{phase}.npz"
        bar = None if progress is None else progress(phase, settings.num_steps)
        return {"seeds": seeds, "checkpoint": path, "progress": bar}

    design = size.design
    joint = fit_jointly(splits.train, design, lookahead=lookahead, **options("joint", design.joint))
    refit = fit_network(
        joint.model, splits.train, design, lookahead=None, **options("refit", design.refit)
    )
    return {
        "experiment": "digits",
        "scale": scale,
        "lookahead": lookahead,
        "seeds": list(seeds),
        "size": asdict(size),
        "data": splits.source,
        "num_parameters": count_parameters(joint),
        "diverged": [bool(flag) for flag in joint.history.diverged | refit.history.diverged],
        "history": {
            "joint": _thin(joint.history),
            "refit": _thin(refit.history),
        },
        **evaluate(joint, refit, splits, size, seeds),
    }


def count_parameters(fitted):
    """Parameters of one replica: {"model": ..., "network": ...}."""
    return {
        name: sum(int(np.prod(v.shape[1:])) for v in module.trainable_variables)
        for name, module in (("model", fitted.model), ("network", fitted.network))
    }


def evaluate(joint, refit, splits, size, seeds):
    """Bounds of the joint pair, of the model under a fresh full network, and filtering.

    Returns:
      dict with "estimates" (per quantity, one estimate per seed), "per_row" (per quantity,
      [seeds][28]) and "per_image" (per quantity, [seeds][num_iwae], rounded to 1e-3).
    """
    test = splits.test.observations
    own = measure(joint, test, size, seed=1)
    fresh = measure(refit, test, size, seed=2)
    train = bounds.elbo(
        joint.model,
        joint.network,
        splits.train.first(size.num_bound).observations,
        lookahead=joint.lookahead,
        seed=3,
    ).bound
    filtered = filter_test_images(joint.model, splits, size, seed=4)
    lower_half = filtered.log_increments[NUM_ROWS // 2 :].sum(0)
    per_image = {
        "elbo": own["profile"].bound.per_sequence(),
        "iwae": own["iwae"].per_sequence(),
        "elbo_fresh_full": fresh["profile"].bound.per_sequence(),
        "iwae_fresh_full": fresh["iwae"].per_sequence(),
        "elbo_train": train.per_sequence(),
        "log_likelihood_filter": filtered.log_increments.sum(0),
        "log_likelihood_lower_half": lower_half,
    }
    return {
        "estimates": {
            name: [Estimate.from_samples(row, kind="data points").as_dict() for row in values]
            for name, values in per_image.items()
        },
        "per_row": {
            "divergence": own["profile"].divergence.mean(-1).T.tolist(),
            "log_likelihood": own["profile"].log_likelihood.mean(-1).T.tolist(),
        },
        "per_image": {
            name: np.round(values[:, : size.num_iwae], 3).tolist()
            for name, values in per_image.items()
            if name != "elbo_train"
        },
    }


def filter_test_images(model, splits, size, *, seed):
    """Run the particle filter over the first `size.num_filter` test images."""
    images = splits.test.observations[:, : size.num_filter]
    return filtering.particle_filter(model, images, num_particles=size.num_particles, seed=seed)


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
    noise = replica_normal([NUM_ROWS, num_images, model.latent_size], seeds)
    latents = sample_latents(model, tf.transpose(noise, [1, 0, 2, 3]))
    return model.emission(latents).mean().numpy().transpose(1, 2, 0, 3)


def measure(fitted, observations, size, *, seed):
    """ELBO profile over all, and IWAE over the first `size.num_iwae` images."""
    pair = (fitted.model, fitted.network)
    profile = bounds.elbo(
        *pair, observations[:, : size.num_bound], lookahead=fitted.lookahead, seed=seed
    )
    iwae = bounds.iwae(
        *pair,
        observations[:, : size.num_iwae],
        num_samples=size.num_samples,
        lookahead=fitted.lookahead,
        seed=seed,
    )
    return {"profile": profile, "iwae": iwae}


def _thin(history, points=200):
    """A history of at most `points` entries, for plotting."""
    every = max(1, len(history.steps) // points)
    return {
        "steps": history.steps[::every].tolist(),
        "losses": np.round(history.losses[::every], 3).tolist(),
        "skipped_steps": history.skipped_steps.tolist(),
    }


def stored(scale="paper"):
    """Read the committed results of a scale, in the order of their look-ahead.

    Returns:
      list of dicts, see `run`, smallest look-ahead first and full conditions last.

    Raises:
      ResultError: if there are none, or one is incomplete or altered.
    """
    folder = results.FOLDER / "digits" / scales.check(scale)
    found = [results.load(path) for path in sorted(folder.glob("*.json"))]
    if not found:
        raise results.ResultError(
            f"expected stored results in {folder}, but found none. Make them: "
            f"tfp-gaps run digits --scale {scale} --lookahead 0"
        )
    return sorted(found, key=lambda r: NUM_ROWS if r["lookahead"] is None else r["lookahead"])


def over_seeds(result, quantity):
    """Mean of a quantity over the seeds of a stored result, with its standard error over seeds."""
    values = [entry["value"] for entry in result["estimates"][quantity]]
    if len(values) == 1:
        return Estimate.from_dict(result["estimates"][quantity][0])
    return Estimate.from_samples(values, kind="seeds")


def difference_over_seeds(result, baseline, quantity):
    """Mean difference of two stored results, paired by seed, with its standard error over seeds."""
    values, others = (
        [entry["value"] for entry in r["estimates"][quantity]] for r in (result, baseline)
    )
    return paired_difference(values, others, kind="seeds")


def difference_of_advantages(result, baseline, quantity, other):
    """How much more `quantity` favours a result over the baseline than `other` does, over seeds."""
    advantages = [
        [a["value"] - b["value"] for a, b in zip(*entries, strict=True)]
        for entries in (
            (result["estimates"][name], baseline["estimates"][name]) for name in (quantity, other)
        )
    ]
    return paired_difference(*advantages, kind="seeds")


def paper_table(stored_results):
    """Table of stored results: one row per look-ahead, means over seeds in nats per image."""
    columns = {
        "ELBO": "elbo",
        "IWAE, own q": "iwae",
        "IWAE, fresh full q": "iwae_fresh_full",
        "particle filter": "log_likelihood_filter",
        "lower half given upper": "log_likelihood_lower_half",
        "ELBO, training images": "elbo_train",
    }
    rows = [
        ["full" if r["lookahead"] is None else r["lookahead"]]
        + [over_seeds(r, quantity) for quantity in columns.values()]
        for r in stored_results
    ]
    return Table(["look-ahead", *columns], rows)
