"""Fit q to draws instead of maximising its bound: half of an image, and a chain run backwards.

* "images": a generator with two latent dimensions, whose posterior p(z | C) given the upper half C
  of an image is a sum over a grid. Three encoders see C: one maximises the ELBO, one is matched to
  draws of an encoder that sees the whole image (Strauss and Oliva 2022), and one is fitted to the
  latents that made the images, which are exact draws.
* "chain": a linear-Gaussian chain, whose smoother is known. Two posteriors that factorise backwards
  in time: one maximises the ELBO, one the likelihood of paths that were simulated with their
  observations.

In both, the ELBO minimises KL(q || p) and likelihood KL(p || q); both divergences from the exact
posterior are measured, in nats per image or per sequence.
"""

from dataclasses import asdict, dataclass, replace

import numpy as np

from tfp_gaps import _checks, storage, training
from tfp_gaps._tensorflow import tf
from tfp_gaps.book import results
from tfp_gaps.book.data.images import flatten
from tfp_gaps.book.distillation import backward, matching
from tfp_gaps.book.experiments import blind, filters, two_latents, vae
from tfp_gaps.exact import linear_gaussian as exact
from tfp_gaps.exact.joint_gaussian import JointGaussian
from tfp_gaps.models.state_space import LinearGaussianStateSpace
from tfp_gaps.models.vae import VAE
from tfp_gaps.networks import for_replicas, replica_normal, replica_seeds
from tfp_gaps.sequences import Batch

VARIANTS = ("images", "chain")
TRAINED = ("elbo", "matched")
"""How a q was trained."""

ENCODERS = (*TRAINED, "simulated")
"""The same of encoders of the upper half; the last is fitted to what made the images."""

SEEDS = "--seeds 0 1 2 3 4"
_DRAWS = 20


@dataclass(frozen=True)
class Images:
    """Sizes of the variant "images".

    generator: `vae.Size` of the model, with two latent dimensions.
    encoder: how each encoder is trained on the frozen model.
    num_simulated, num_points: images to train encoders on, and to measure them on.
    num_rows: how many rows an encoder of a part sees.
    half_width, num_nodes: of the grid, see `two_latents.Grid.square`.
    """

    generator: vae.Size
    encoder: training.Settings
    num_simulated: int
    num_points: int
    num_rows: int
    half_width: float
    num_nodes: int

    @property
    def grid(self):
        """The `two_latents.Grid` of all posteriors."""
        return two_latents.Grid.square(self.half_width, self.num_nodes)

    @property
    def posterior(self):
        """The `vae.Size` of all encoders on the frozen model: Gaussians with a covariance."""
        return replace(self.generator, family="full", training=self.encoder)


@dataclass(frozen=True)
class Chain:
    """Sizes of the variant "chain".

    network: how each posterior is trained.
    num_timesteps, num_train, num_test: of the sequences.
    num_rounds: of twenty draws of q each, for each test sequence.
    hidden_size: of the networks.
    """

    network: training.Settings
    num_timesteps: int
    num_train: int
    num_test: int
    num_rounds: int
    hidden_size: int = 32


def _sizes():
    def encoder(num_steps, batch_size):
        return training.Settings(
            num_steps,
            batch_size,
            learning_rate=2e-3,
            steps_per_call=min(100, num_steps),
            num_shards=1,
            jit_compile=False,
        )

    def network(num_steps, batch_size, compiled):
        return training.Settings(
            num_steps,
            batch_size,
            learning_rate=5e-3,
            clip_norm=200.0,
            num_shards=1,
            jit_compile=compiled,
        )

    smoke, book = (two_latents.SIZES[scale].generators["factorised"] for scale in ("smoke", "book"))
    return {
        "smoke": {
            "images": Images(smoke, encoder(20, 32), 200, 4, 14, 6.0, 61),
            "chain": Chain(network(20, 32, False), 6, 500, 10, 1, hidden_size=8),
        },
        "book": {
            "images": Images(book, encoder(2500, 100), 30_000, 100, 14, 7.0, 281),
            "chain": Chain(network(1000, 128, True), 12, 100_000, 200, 10),
        },
    }


SIZES = _sizes()
"""Sizes by scale and variant."""


def run(*, scale, seeds, variant, checkpoint_folder=None, progress=None):
    """Train both posteriors of a variant for each seed, and compare them with the exact one.

    Args: as in `experiments.vae.run`, with a variant of `VARIANTS`; scale "smoke" or "book".

    Returns:
      A JSON-serialisable dict. "found": for each seed, what `measure_images` or, for each of
      `TRAINED`, what `measure_chain` returns.
    """
    _checks.one_of(variant, "variant", VARIANTS)
    size = SIZES[_checks.one_of(scale, "scale of matching", SIZES)][variant]
    find = {"images": _images, "chain": _chain}[variant]
    found, source = find(size, seeds, checkpoint_folder, progress)
    return {
        "experiment": "matching",
        "scale": scale,
        "variant": variant,
        "seeds": list(seeds),
        "size": asdict(size),
        "data": source,
        **found,
    }


# --- half of an image -----------------------------------------------------------------------------


def _images(size, seeds, folder, progress):
    splits, found = vae.load(size.generator), []
    for seed in seeds:

        def options(name, seed=seed):
            steps = (size.generator.training if name == "generator" else size.encoder).num_steps
            return results.training_options(folder, progress, f"{name}-{seed}", steps)

        model, encoders, points = fit_images(splits, size, seed, options)
        found.append(measure_images(model, encoders, points, size))
    return {"found": found}, splits.source


def fit_images(splits, size, seed, options=lambda name: {}):
    """Train a generator, and on images drawn from it encoders of all and of the upper half.

    Args:
      splits: binary images, `data.splits.Splits`.
      size: `Images`.
      seed: int.
      options: callable name -> what `training.fit` is told besides.

    Returns:
      model: `models.vae.VAE`.
      encoders: {"full" and each of `ENCODERS`: `Posterior`}.
      points: `blind.Simulated` images that no encoder was trained on.
    """
    model = vae.fit(splits, size.generator, seeds=[seed], **options("generator")).model
    drawn = blind.simulate(model, size.num_simulated + size.num_points, seed=seed)
    own = drawn.as_splits(size.num_simulated, f"simulated by {splits.source}, seed {seed}")
    points = blind.Simulated(*(part[size.num_simulated :] for part in drawn))
    upper = blind.visible_pixels(size.num_rows)

    def by_elbo(name, visible):
        given = {"seeds": [seed], "visible": visible, **options(name)}
        return vae.fit_posterior(model, own, size.posterior, **given).posterior

    encoders = {"full": by_elbo("full", None), "elbo": by_elbo("elbo", upper)}
    images, latents = flatten(own.train), drawn.latents[: size.num_simulated]
    draw = matching.draws_of(encoders["full"])
    for name, given, data in (("matched", draw, images), ("simulated", None, (images, latents))):
        encoders[name] = vae.new_posterior(size.posterior, [seed], visible=upper)
        training.fit(
            matching.negative_log_likelihood(encoders[name], given),
            list(encoders[name].trainable_variables),
            data,
            size.encoder,
            seeds=[seed],
            fingerprint=f"{name} encoder of {size.generator} on {own.source}",
            **options(name),
        )
    return model, encoders, points


def model_of(model, size, visible):
    """The model of the visible pixels alone, with copies of the weights of one replica.

    Args:
      model: `models.vae.VAE` with one replica and Bernoulli pixels.
      size: its `vae.Size`.
      visible: 0/1 array [pixels].
    """
    pixels = np.flatnonzero(visible)
    part = VAE(
        observation_size=len(pixels),
        latent_size=model.latent_size,
        hidden=size.decoder,
        activation=size.activation,
        seeds=replica_seeds([0], "copy"),
    )
    for target, source in zip(part.variables, model.variables, strict=True):
        is_last = source.shape[-1] == model.observation_size
        target.assign(tf.gather(source, pixels, axis=-1) if is_last else source)
    return part


def measure_images(model, encoders, points, size):
    """Compare the encoders of the upper half with the posterior given that half, on a grid.

    Args: as `fit_images` returns them, and the `Images`.

    Returns:
      {"evidence": ln p(x); "teacher": KL(q || p) of the encoder that sees all, given all;
      each of `ENCODERS`: {"bound": the ELBO of the whole image; "to_exact": KL(q || p(z | C));
      "from_exact": KL(p(z | C) || q); "covered": share of p(z | C) in the 90 % set of q}}, each
      [points], nats; "example": see `_example`.
    """
    upper = blind.visible_pixels(size.num_rows)
    part, seen = model_of(model, size.generator, upper), points.images[:, upper == 1]
    whole = two_latents.tabulate(model, points.images, size.grid)
    nodes = two_latents.tabulate(part, seen, size.grid)
    observed = tf.constant(points.images[np.newaxis], tf.float32)
    own = {name: encoder.parameters(observed) for name, encoder in encoders.items()}
    family = encoders["full"].family
    teacher = two_latents.evaluate(model, family, own["full"], whole, points.images)
    found = {
        "evidence": vae.listed([each.log_evidence for each in whole]),
        "teacher": vae.listed(teacher.gap),
    }
    for name in ENCODERS:
        gap = two_latents.evaluate(part, family, own[name], nodes, seen).gap
        bound = two_latents.exact_elbo(model, family, own[name], points.images)
        inside = [_inside(family, own[name], i, each) for i, each in enumerate(nodes)]
        from_exact, covered = np.transpose(inside)
        values = {"bound": bound, "to_exact": gap, "from_exact": from_exact, "covered": covered}
        found[name] = {key: vae.listed(value) for key, value in values.items()}
    return found | {"example": _example(part, seen, own, found)}


def _inside(family, parameters, image, nodes):
    """KL(p || q), nats, and the share of p in the 90 % set of a Gaussian q in two dimensions."""
    log_q = two_latents.log_density(family, parameters, image, nodes.points)
    centre = parameters.outputs.numpy()[:1, image, :2]
    highest = two_latents.log_density(family, parameters, image, centre)
    gain = nodes.log_joint - nodes.log_evidence - log_q
    # Nine tenths of a Gaussian in a plane lie where its density is above a tenth of the highest.
    return nodes.weights @ gain, nodes.weights[log_q > highest - np.log(10)].sum()


def _example(part, seen, own, found, half_width=4.0, num=81):
    """The image whose gain in coverage is the median: ln p(z | C) on a grid, and both q.

    Returns:
      {"image": index; "half_width", "num": of the grid; "log_density": [num * num]; each of
      `ENCODERS`: mean, logarithms of L's diagonal and what lies below it, LL' the covariance}.
    """
    gain = np.subtract(found["matched"]["covered"], found["elbo"]["covered"])
    image = int(np.argsort(gain)[len(gain) // 2])
    grid = two_latents.Grid.square(half_width, num)
    pixels = tf.constant(seen[image : image + 1], tf.float32)
    joint = two_latents.log_joint(part, grid.points, pixels)[0, :, 0].numpy().astype(float)
    evidence = np.logaddexp.reduce(joint) + np.log(grid.cell)
    return {
        "image": image,
        "half_width": half_width,
        "num": num,
        "log_density": np.round(joint - evidence, 2).tolist(),
        **{name: vae.listed(own[name].outputs[0, image]) for name in ENCODERS},
    }


# --- a chain, run backwards -----------------------------------------------------------------------


def _chain(size, seeds, folder, progress):
    world, found = filters.CHAIN, {}
    train, test = (
        [part.astype(np.float32) for part in exact.sample(world, size.num_timesteps, number, seed)]
        for number, seed in ((size.num_train, 0), (size.num_test, 1))
    )
    checksum = storage.sha256(b"".join(part.tobytes() for part in (*train, *test)))[:12]
    source = f"simulated: linear-Gaussian chain, seeds 0 and 1, arrays SHA-256 {checksum}"
    for name in TRAINED:
        options = results.training_options(folder, progress, name, size.network.num_steps)
        network = fit_backward(world, *train, size, seeds, name, source, **options)
        found[name] = measure_chain(network, world, *test, size.num_rounds)
    partial = exact.conditioning_gap(world, size.num_timesteps, 0)
    return {"found": found, "partial_gap": float(partial)}, source


def fit_backward(world, latents, observations, size, seeds, trained, source="", **options):
    """Train a posterior that runs backwards.

    Args:
      world: `exact.LinearGaussian`, scalar.
      latents, observations: [time, sequences, 1], simulated; the ELBO reads no latents.
      size: `Chain`.
      seeds: one int per replica.
      trained: one of `TRAINED`.
      source: of the data, for the checkpoint.
      **options: as in `training.fit`.

    Returns:
      `BackwardNetwork`.
    """
    network = backward.BackwardNetwork(
        observation_size=1,
        latent_size=1,
        hidden_size=size.hidden_size,
        seeds=replica_seeds(seeds, "initial backward"),
    )
    if trained == "elbo":
        model = LinearGaussianStateSpace(world, num_replicas=len(seeds))
        loss, data = backward.negative_elbo(model, network), Batch(observations)
    else:
        loss, data = backward.negative_log_likelihood(network), (Batch(observations), latents)
    training.fit(
        loss,
        list(network.trainable_variables),
        data,
        size.network,
        axis=1,
        seeds=seeds,
        fingerprint=f"{trained} {size.hidden_size} {source}",
        **options,
    )
    return network


def measure_chain(network, world, latents, observations, num_rounds):
    """Compare a posterior that runs backwards with the exact smoother and filter of the chain.

    Args:
      network: `BackwardNetwork`.
      world: `exact.LinearGaussian`, scalar.
      latents, observations: [time, sequences, 1], simulated.
      num_rounds: of twenty draws of q each, for each sequence.

    Returns:
      Per replica: {"to_exact": KL(q || p), "from_exact": KL(p || q), nats per sequence; "variance":
      of z at the middle step over the smoother's; "filter": `filters.Distance` as a list}.
    """
    replicas, middle = network.filter.num_replicas, len(observations) // 2
    model = LinearGaussianStateSpace(world, num_replicas=replicas)
    evidence = exact.kalman_filter(world, observations).log_likelihood
    given = for_replicas(Batch(observations), replicas)
    paths = tf.repeat(tf.constant(latents)[:, tf.newaxis], replicas, axis=1)
    at_paths = backward.path_log_weights(model, network, given, paths).numpy()
    weights, states = zip(*_draws(model, network, given, num_rounds, middle), strict=True)
    spread = np.concatenate(states, 1).var(1, ddof=1).mean(-1)
    joint = JointGaussian(world, len(observations))
    smoothed = joint.condition(joint.state(middle), joint.observations)[1][0, 0]
    distances = [
        filters.kalman_distance(network.filter, observations, world, r) for r in range(replicas)
    ]
    return {
        "to_exact": (evidence.mean() - np.mean(weights, (0, 2, 3))).tolist(),
        "from_exact": (at_paths.mean(-1) - evidence.mean()).tolist(),
        "variance": (spread / smoothed).tolist(),
        "filter": [list(each) for each in distances],
    }


def _draws(model, network, given, num_rounds, middle):
    """By round, log weights and z_middle of q's draws: two [replicas, draws, sequences]."""
    time, replicas, count, _ = given.observations.shape
    many = given.map(lambda part: tf.repeat(part[:, :, tf.newaxis], _DRAWS, axis=2))
    many = many.map(lambda part: tf.reshape(part, [time, replicas, _DRAWS * count, -1]))
    last = tf.fill([replicas, _DRAWS * count], time - 1)
    for index in range(num_rounds):
        seeds = replica_seeds(range(replicas), "draws of q", index)
        noise = replica_normal([time, _DRAWS * count, 1], seeds, axis=1)
        weights = backward.log_weights(model, network, many, noise, last)
        path, _ = network.sample_path(network.filter.context(many), last, noise)
        shape = [replicas, _DRAWS, count]
        yield tuple(tf.reshape(part, shape).numpy() for part in (weights, path[middle, ..., 0]))


# --- stored results -------------------------------------------------------------------------------


def stored(variant, scale="book"):
    """Read the committed result of a variant.

    Raises:
      ResultError: if there is none, or it is incomplete or altered.
    """
    return results.stored("matching", scale, variant, options=SEEDS)[0]


def means(result, trained, quantity):
    """Mean over images of a quantity of the variant "images": float64 [seeds]."""
    return np.array([np.mean(found[trained][quantity]) for found in result["found"]])
