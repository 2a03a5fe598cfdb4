"""A static blind spot: an encoder that sees only the upper rows of an image.

The post's own example of an inference network that is given half of the pixels. The generator is
trained on digits with an encoder that sees everything, and then held fixed; the images on which
gaps are measured are drawn from it, so that the law of the hidden rows given the visible ones is
known and the decomposition means what it says. For visible rows C and hidden rows C',

    q*_C = argmax_q E_{C'|C} L[q](C, C'),

and since ln p(x | z) is linear in binary pixels, the expectation over C' puts each hidden pixel's
mean E[C' | C] in its place. These means come from Hamiltonian Monte Carlo on p(z | C), started at
the latent that made the image, which is an exact draw from p(z | C). Values are nats per image.
"""

from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks, annealing, bounds, gaps, training
from tfp_gaps._tensorflow import compiles, on_gpu, tf, tfp
from tfp_gaps.book import results, scales
from tfp_gaps.book.data.images import flatten
from tfp_gaps.book.data.splits import Splits
from tfp_gaps.book.experiments import vae
from tfp_gaps.networks import replica_normal, replica_seeds
from tfp_gaps.posteriors import local
from tfp_gaps.sequences import Sequences

NUM_ROWS = NUM_COLUMNS = 28


@dataclass(frozen=True)
class Size:
    """How large the experiment is.

    generator: sizes and training of the model, with an encoder that sees everything.
    encoder: training of an encoder on the frozen model, on images drawn from it.
    long_encoder: the same, long: what an encoder can reach.
    num_simulated: images to train encoders on.
    num_points: images on which gaps are measured.
    rows: how many rows the encoders see.
    num_chains, num_steps, num_leapfrog_steps: of the Monte Carlo for hidden pixels; half of the
      steps tune the step size and are left out.
    widths: of further encoders, trained long, for half of the rows.
    num_annealed: images whose evidence is bounded from both sides by annealing.
    annealed: num_chains, num_steps, num_leapfrog_steps of it.
    """

    generator: vae.Size
    encoder: training.Settings
    long_encoder: training.Settings
    num_simulated: int
    num_points: int
    rows: tuple[int, ...]
    num_chains: int
    num_steps: int
    num_leapfrog_steps: int
    widths: tuple[int, ...]
    num_annealed: int
    annealed: dict


def _sizes():
    def settings(num_steps, batch_size):
        return training.Settings(
            num_steps,
            batch_size,
            learning_rate=2e-3,
            steps_per_call=min(100, num_steps),
            num_shards=1,
            jit_compile=False,
        )

    smoke, book = (vae.size_of(scale, "digits-factorised") for scale in ("smoke", "book"))
    return {
        "smoke": Size(
            generator=smoke,
            encoder=settings(20, 32),
            long_encoder=settings(40, 32),
            num_simulated=64,
            num_points=8,
            rows=(14,),
            num_chains=2,
            num_steps=20,
            num_leapfrog_steps=3,
            widths=(8,),
            num_annealed=2,
            annealed={"num_chains": 4, "num_steps": 20, "num_leapfrog_steps": 2},
        ),
        "book": Size(
            generator=replace(
                book, latent_size=10, training=vae.joint_settings(4000, learning_rate=2e-3)
            ),
            encoder=settings(1500, 100),
            long_encoder=settings(6000, 100),
            num_simulated=30_000,
            num_points=200,
            rows=(28, 21, 14, 7, 0),
            num_chains=8,
            num_steps=200,
            num_leapfrog_steps=8,
            widths=(50, 500),
            num_annealed=40,
            annealed={"num_chains": 16, "num_steps": 500, "num_leapfrog_steps": 8},
        ),
    }


SIZES = _sizes()


class Simulated(NamedTuple):
    """Images drawn from a model.

    images: uint8 [images, pixels].
    latents: float32 [images, latent], the latent that made each image.
    """

    images: np.ndarray
    latents: np.ndarray

    def as_splits(self, num_train, source):
        """The first images for training and the others for testing, as `data.splits.Splits`."""

        def rows(images):
            return Sequences(
                np.ascontiguousarray(images.reshape(-1, NUM_ROWS, NUM_COLUMNS).transpose(1, 0, 2))
            )

        train, test = self.images[:num_train], self.images[num_train:]
        return Splits(rows(train), rows(test[:0]), rows(test), source)


def visible_pixels(num_rows):
    """1 for the pixels of the upper `num_rows` rows, else 0: float64 [784].

    >>> int(visible_pixels(14).sum())
    392
    """
    _checks.integer(num_rows, "num_rows", minimum=0, maximum=NUM_ROWS)
    return np.repeat(np.arange(NUM_ROWS) < num_rows, NUM_COLUMNS).astype(float)


def simulate(model, num_images, *, seed):
    """Draw images and their latents from a model of one replica: `Simulated`."""
    seeds = replica_seeds([seed], "simulated latents")
    latents = replica_normal([num_images, model.latent_size], seeds)
    uniforms = np.random.default_rng(seed).random((num_images, model.observation_size))
    means = tf.sigmoid(model.decoder(latents))[0].numpy()
    return Simulated((uniforms < means).astype(np.uint8), latents[0].numpy())


class HiddenMeans(NamedTuple):
    """Means of the hidden pixels given the visible ones.

    pixels: float64 [images, pixels]; the image itself where it is visible.
    error: standard error over chains, averaged over hidden pixels and images.
    acceptance: share of accepted proposals.
    """

    pixels: np.ndarray
    error: float
    acceptance: float


def conditional_draws(model, simulated, visible, size, *, seed, jit_compile=None):
    """Draw from p(z | C) for images drawn from the model itself.

    Args:
      model: `models.vae.VAE` of one replica with Bernoulli pixels.
      simulated: `Simulated`.
      visible: 0/1 array [pixels].
      size: `Size`.
      seed: int.
      jit_compile: compile with XLA; None where there is a GPU.

    Returns:
      latents: [steps, chains, images, latent].
      acceptance: share of accepted proposals.
    """
    images = tf.constant(simulated.images, tf.float32)
    mask = tf.constant(visible, tf.float32)
    start = tf.repeat(tf.constant(simulated.latents)[tf.newaxis], size.num_chains, axis=0)

    def log_posterior(latents):
        outputs = model.decoder(latents[:, tf.newaxis])[:, 0]
        seen = mask * (images * outputs - tf.nn.softplus(outputs))
        return tf.reduce_sum(seen, -1) - 0.5 * tf.reduce_sum(latents**2, -1)

    @tf.function(jit_compile=compiles(jit_compile))
    def chains(chain_seed):
        kernel = tfp.mcmc.HamiltonianMonteCarlo(
            log_posterior,
            step_size=tf.fill([1, images.shape[0], 1], 0.1),
            num_leapfrog_steps=size.num_leapfrog_steps,
        )
        tuned = tfp.mcmc.DualAveragingStepSizeAdaptation(
            kernel, num_adaptation_steps=size.num_steps // 2, target_accept_prob=0.75
        )
        return tfp.mcmc.sample_chain(
            num_results=size.num_steps // 2,
            num_burnin_steps=size.num_steps // 2,
            current_state=start,
            kernel=tuned,
            trace_fn=lambda _, results: results.inner_results.is_accepted,
            seed=chain_seed,
        )

    latents, accepted = chains(tf.constant([seed, 1], tf.int32))
    return latents, float(np.mean(accepted))


def hidden_means(model, simulated, visible, size, *, seed):
    """E[C' | C] for images drawn from the model itself: `HiddenMeans`.

    Args: as in `conditional_draws`.
    """
    latents, acceptance = conditional_draws(model, simulated, visible, size, seed=seed)
    total = tf.zeros([size.num_chains, *simulated.images.shape])
    for draw in latents:
        total += _pixel_means(model, draw)
    means = total.numpy().astype(np.float64) / len(latents)
    hidden = np.asarray(visible) == 0
    error = 0.0
    if hidden.any():
        error = float((means[..., hidden].std(0, ddof=1) / np.sqrt(size.num_chains)).mean())
    pixels = np.where(hidden, means.mean(0), simulated.images)
    return HiddenMeans(pixels, error, acceptance)


def completions(model, simulated, visible, size, *, seed, count):
    """Images whose hidden pixels are drawn anew from p(C' | C): uint8 [count, images, pixels].

    Args: as in `conditional_draws`; `count` is at most the number of chains, one of each.
    """
    _checks.integer(count, "count", minimum=1, maximum=size.num_chains)
    latents, _ = conditional_draws(model, simulated, visible, size, seed=seed)
    means = _pixel_means(model, latents[-1])[:count].numpy()
    drawn = np.random.default_rng(seed).random(means.shape) < means
    return np.where(np.asarray(visible) == 0, drawn, simulated.images).astype(np.uint8)


def _pixel_means(model, latents):
    """Pixel means [chains, images, pixels] of latents [chains, images, latent], one replica."""
    return tf.sigmoid(model.decoder(latents[:, tf.newaxis])[:, 0])


def best_shared(model, posterior, simulated, means, size, *, seed):
    """E[L[q*_C] | C] of each image: the best q among functions of the visible pixels.

    Args:
      posterior: where the search starts; it should see the visible pixels alone.
      means: float64 [images, pixels] with the hidden pixels' means, see `hidden_means`.
      others: as in `hidden_means`.

    Returns:
      float64 [images], nats.
    """
    start = posterior.parameters(tf.constant(simulated.images[np.newaxis].astype(np.float32)))
    found = local.optimise(
        model, posterior.family, start, means[np.newaxis], size.generator.search, seed=seed
    )
    return _bounds(model, posterior.family, found.parameters, means, size, seed).elbo[0]


def best_per_datum(model, posterior, images, size, *, seed):
    """L[q*_x] and the IWAE bound under it: two float64 [images], nats."""
    start = posterior.parameters(tf.constant(images[np.newaxis].astype(np.float32)))
    found = local.optimise(
        model, posterior.family, start, images[np.newaxis], size.generator.search, seed=seed
    )
    bound = _bounds(model, posterior.family, found.parameters, images, size, seed)
    return bound.elbo[0], bound.iwae[0]


def amortised(model, posterior, images, size, *, seed, means=None):
    """L[q_phi] of each image: float64 [images], nats.

    With `means` the ELBO is averaged over the hidden pixels given the visible ones, which is exact
    for a posterior that does not see them and spares their noise.
    """
    own = posterior.parameters(tf.constant(images[np.newaxis].astype(np.float32)))
    seen = images if means is None else means
    return _bounds(model, posterior.family, own, seen, size, seed).elbo[0]


def sandwich(model, simulated, size, *, seed):
    """Bound ln p(x) of the first images from below and from above by annealing.

    Args:
      model, simulated, seed: as in `hidden_means`.
      size: `Size`.

    Returns:
      {"lower", "upper", "lower_error", "upper_error": [images], nats, errors over chains;
      "acceptance": mean over temperatures}.
    """
    images = tf.constant(simulated.images[np.newaxis, : size.num_annealed], tf.float32)
    latents = simulated.latents[: size.num_annealed]

    def log_joint(z):
        return model.log_joint(z, images)

    lower = annealing.forward(
        log_joint,
        batch_shape=(1, len(latents)),
        latent_size=model.latent_size,
        seed=seed,
        jit_compile=on_gpu(),
        **size.annealed,
    )
    options = {k: v for k, v in size.annealed.items() if k != "num_chains"}
    options |= {"step_sizes": lower.step_sizes, "jit_compile": on_gpu()}
    draws = np.broadcast_to(latents, (size.annealed["num_chains"], 1, *latents.shape))
    upper = annealing.reverse(log_joint, draws, seed=seed + 1, **options)
    return {
        "lower": vae.listed(lower.log_evidence()[0]),
        "upper": vae.listed(upper.log_evidence()[0]),
        "lower_error": vae.listed(lower.standard_error()[0]),
        "upper_error": vae.listed(upper.standard_error()[0]),
        "acceptance": float(lower.acceptance.mean()),
    }


def _bounds(model, family, parameters, images, size, seed):
    return bounds.evaluate_static(
        model,
        family,
        parameters,
        np.asarray(images, np.float32)[np.newaxis],
        num_samples=size.generator.num_samples,
        seed=seed,
    )


# --- the stored run -------------------------------------------------------------------------------

VARIANTS = ("",)


def run(*, scale, seeds, variant="", checkpoint_folder=None, progress=None):
    """Decompose the gap of blind encoders on one frozen model; learn models with blind encoders.

    Args: as in `experiments.vae.run`, with one seed and no variant.

    Returns:
      A JSON-serialisable dict. "frozen": per number of visible rows the bounds on simulated images,
      [points], and at half the rows encoders of several widths. "joint": per number of rows the
      model that was learned with such an encoder, on test images.
    """
    _checks.one_of(variant, "variant", VARIANTS)
    if len(seeds) != 1:
        raise ValueError(
            f"this experiment runs one seed at a time, but seeds are {list(seeds)}. Start it once "
            f"for each."
        )
    size = SIZES[scales.check(scale)]
    work = _Work(size, seeds[0], checkpoint_folder, progress)
    return {
        "experiment": "blind",
        "scale": scale,
        "variant": variant,
        "seeds": list(seeds),
        "size": asdict(size),
        "data": work.splits.source,
        "frozen": work.frozen(),
        "joint": {str(rows): work.joint(rows) for rows in size.rows},
    }


class _Work:
    """One seed of the experiment."""

    def __init__(self, size, seed, folder, progress):
        self.size, self.seed, self._folder, self._progress = size, seed, folder, progress
        self.splits = vae.load(size.generator)

    def _options(self, name, num_steps):
        own = results.training_options(self._folder, self._progress, name, num_steps)
        return {"seeds": [self.seed]} | own

    def _encoder(self, model, splits, name, settings, visible, hidden=None):
        size = replace(
            self.size.generator,
            training=settings,
            encoder=self.size.generator.encoder if hidden is None else hidden,
        )
        options = self._options(name, settings.num_steps)
        return vae.fit_posterior(model, splits, size, visible=visible, **options).posterior

    def frozen(self):
        """Gaps on images of the frozen generator."""
        size, settings = self.size, self.size.generator.training
        options = self._options("generator", settings.num_steps)
        model = vae.fit(self.splits, size.generator, **options).model
        drawn = simulate(model, size.num_simulated + size.num_points, seed=self.seed)
        splits = drawn.as_splits(size.num_simulated, f"simulated by {self.splits.source}")
        points = Simulated(drawn.images[size.num_simulated :], drawn.latents[size.num_simulated :])
        full = self._encoder(model, splits, "full", size.encoder, None)
        best, evidence = best_per_datum(model, full, points.images, size, seed=1)
        content = {"evidence": vae.listed(evidence), "best_per_datum": vae.listed(best), "rows": {}}
        content["annealed"] = sandwich(model, points, size, seed=7)
        for rows in size.rows:
            content["rows"][str(rows)] = self._blind(model, splits, points, rows)
        return content

    def _blind(self, model, splits, points, rows):
        """Bounds of encoders that see so many rows."""
        size, visible = self.size, visible_pixels(rows)
        found = hidden_means(model, points, visible, size, seed=2)
        widths = size.widths if rows == NUM_ROWS // 2 else ()
        values = {}
        for name, settings, hidden in (
            ("elbo", size.encoder, None),
            ("best_network", size.long_encoder, None),
            *((f"width{w}", size.long_encoder, (w, w)) for w in widths),
        ):
            posterior = self._encoder(
                model, splits, f"rows{rows}-{name}", settings, visible, hidden
            )
            values[name] = amortised(
                model, posterior, points.images, size, seed=3, means=found.pixels
            )
            if name == "best_network":
                values["best_shared"] = best_shared(
                    model, posterior, points, found.pixels, size, seed=4
                )
        return {name: vae.listed(value) for name, value in values.items()} | {
            "error_of_hidden_means": found.error,
            "acceptance": found.acceptance,
        }

    def joint(self, rows):
        """Learn a model with a blind encoder, and measure it on test images."""
        size, visible = self.size, visible_pixels(rows)
        options = self._options(f"joint{rows}", size.generator.training.num_steps)
        fitted = vae.fit(self.splits, size.generator, visible=visible, **options)
        images = flatten(self.splits.test)[: size.num_points]
        full = self._encoder(fitted.model, self.splits, f"joint{rows}-full", size.encoder, None)
        best, evidence = best_per_datum(fitted.model, full, images, size, seed=5)
        return {
            "elbo": vae.listed(amortised(fitted.model, fitted.posterior, images, size, seed=6)),
            "divergence": vae.listed(_divergence(fitted, images)),
            "best_per_datum": vae.listed(best),
            "evidence": vae.listed(evidence),
        }


def _divergence(fitted, images):
    """KL(q_phi || p(z)) of a factorised q in closed form: float64 [images], nats."""
    own = fitted.posterior.parameters(tf.constant(images[np.newaxis].astype(np.float32)))
    mean, log_scale = (t.numpy()[0].astype(np.float64) for t in tf.split(own.outputs, 2, -1))
    return 0.5 * np.sum(mean**2 + np.exp(2 * log_scale) - 1 - 2 * log_scale, -1)


def stored(scale="book"):
    """Read the committed results, one per seed, smallest seed first.

    Raises:
      ResultError: if there are none, or one is incomplete or altered.
    """
    return results.stored("blind", scale, options="--seeds 0")


def decompose(result, rows):
    """The four parts for encoders that see so many rows: a `gaps.GapReport`, nats per image."""
    frozen = result["frozen"]
    blind = frozen["rows"][str(rows)]
    return gaps.decompose(
        evidence=frozen["evidence"],
        best_per_datum=frozen["best_per_datum"],
        best_shared=blind["best_shared"],
        best_network=blind["best_network"],
        elbo=blind["elbo"],
        basis={
            "evidence": f"IWAE-{result['size']['generator']['num_samples']} under q*_x",
            "best_per_datum": "search for each image",
            "best_shared": "search with the hidden pixels' means",
            "best_network": "long training, one start",
            "elbo": "as trained",
        },
    )
