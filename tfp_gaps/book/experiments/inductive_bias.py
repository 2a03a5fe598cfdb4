"""One decoder, four architectures: does a network that fits the data amortise better?

A model of digits is trained with a fully connected encoder and held fixed. Then factorised
posteriors are trained on it, whose encoders have nearly as many parameters and differ in how these
are spent: a convolution of the image, which shares its weights between places (LeCun et al. 1998);
the same on pixels in a fixed random order, where neighbours mean nothing; one wide layer; three
narrower ones. A fifth encoder is fully connected and has six times as many parameters.

    amortisation gap = L[q*_x] - L[q_phi](x),   q*_x the best factorised Gaussian of each image,

on training and on test images. Values are nats per image.
"""

from dataclasses import asdict, replace

import numpy as np

from tfp_gaps import _checks, bounds
from tfp_gaps._tensorflow import tf
from tfp_gaps.book import results
from tfp_gaps.book.data.images import flatten
from tfp_gaps.book.experiments import vae
from tfp_gaps.networks import ACTIVATIONS, Dense, replica_seeds, split_seeds
from tfp_gaps.posteriors import local

CHANNELS = (8, 16)
KERNEL = 5
SIDE = 28
"""Of the convolutions: channels, width and height of a kernel and of an image; strides are 2."""

WIDTHS = {"wide": (43,), "deep": (39, 39, 39), "large": (200, 200)}
"""Of the fully connected encoders; the first two have as many parameters as the convolutions."""

ENCODERS = ("convolution", "shuffled", *WIDTHS)
VARIANTS = ("",)


class Convolution(tf.Module):
    """Two convolutions with strides of 2, then an affine map; replicas side by side.

    Args:
      num_outputs: what is returned for each image.
      activation: of the convolutions, one of `networks.ACTIVATIONS`.
      order: permutation of the pixels that is applied first, or None.
      seeds: int32 [num_replicas, 2].
    """

    def __init__(self, num_outputs, *, activation, order=None, seeds):
        super().__init__(name="convolution" if order is None else "convolution_of_shuffled_pixels")
        self._activation, self._order = ACTIVATIONS[activation], order
        *own, last = split_seeds(seeds, len(CHANNELS) + 1)
        sizes = (1, *CHANNELS)
        # A convolution is an affine map of each patch, the same for all of them.
        self.layers = [
            Dense(KERNEL**2 * before, after, seeds=seed, name="patches")
            for before, after, seed in zip(sizes[:-1], CHANNELS, own, strict=True)
        ]
        num_features = (SIDE // 2 ** len(CHANNELS)) ** 2 * CHANNELS[-1]
        self.output = Dense(num_features, num_outputs, seeds=last, scale=0.1, name="output")

    def __call__(self, images):
        """[replicas, batch, pixels] to [replicas, batch, num_outputs]."""
        if self._order is not None:
            images = tf.gather(images, self._order, axis=-1)
        count = tf.shape(images)[1]
        parts = [
            self._features(tf.reshape(own, [count, SIDE, SIDE, 1]), replica)
            for replica, own in enumerate(tf.unstack(images))
        ]
        return self.output(tf.stack(parts))

    def _features(self, maps, replica):
        for layer in self.layers:
            kernel = layer.kernel[replica]
            patch = tf.reshape(kernel, [KERNEL, KERNEL, maps.shape[-1], kernel.shape[-1]])
            maps = tf.nn.conv2d(maps, patch, strides=2, padding="SAME")
            maps = self._activation(maps + layer.bias[replica, 0])
        return tf.reshape(maps, [-1, self.output.kernel.shape[1]])


def size_of(scale):
    """The `vae.Size` of the model and of all that the posteriors share."""
    size = vae.size_of(scale, "digits-factorised")
    size = replace(size, searched=("factorised",), num_annealed=0)
    if scale == "smoke":
        return size
    return replace(
        size,
        decoder=(100,),
        training=vae.joint_settings(1500, learning_rate=2e-3),
        search=local.Search(num_samples=8, max_steps=200),
        num_points=32,
        num_samples=500,
    )


def new_posterior(name, size, seeds):
    """An untrained posterior with one of `ENCODERS`."""
    if name in WIDTHS:
        return vae.new_posterior(replace(size, encoder=WIDTHS[name]), seeds)
    posterior = vae.new_posterior(replace(size, encoder=()), seeds)
    order = np.random.default_rng(0).permutation(SIDE**2) if name == "shuffled" else None
    posterior.encoder = Convolution(
        posterior.family.num_outputs,
        activation=size.activation,
        order=order,
        seeds=replica_seeds(seeds, "initial convolution"),
    )
    return posterior


def run(*, scale, seeds, variant="", checkpoint_folder=None, progress=None):
    """Train one model, then every posterior on it; arguments as in `experiments.vae.run`.

    Returns:
      A JSON-serialisable dict. "points": per part, {"best", "evidence", ENCODER: [seeds][points]};
      "num_parameters" of each encoder.
    """
    _checks.one_of(variant, "variant", VARIANTS)
    size = size_of(scale)
    splits = vae.load(size)

    def options(name):
        steps = size.training.num_steps
        own = results.training_options(checkpoint_folder, progress, name, steps)
        return {"seeds": seeds} | own

    model = vae.fit(splits, size, **options("model")).model
    fitted = {
        name: vae.fit_posterior(
            model, splits, size, posterior=new_posterior(name, size, seeds), **options(name)
        )
        for name in ENCODERS
    }
    return {
        "experiment": "inductive_bias",
        "scale": scale,
        "variant": variant,
        "seeds": list(seeds),
        "size": asdict(size),
        "data": splits.source,
        "diverged": {name: own.history.diverged.tolist() for name, own in fitted.items()},
        "num_parameters": {name: count(own.posterior) for name, own in fitted.items()},
        "points": {
            part: _measure(fitted, flatten(getattr(splits, part))[: size.num_points], size)
            for part in vae.PARTS
        },
    }


def count(posterior):
    """Number of parameters of each replica."""
    return sum(int(np.prod(v.shape[1:])) for v in posterior.trainable_variables)


def _measure(fitted, images, size):
    """Bounds of all posteriors on the same images: {name: [seeds][points]}."""
    observations = images[np.newaxis].astype(np.float32)
    values = {}
    for name, (model, posterior, _) in fitted.items():
        own = posterior.parameters(tf.constant(observations))
        values[name] = bounds.evaluate_static(
            model, posterior.family, own, observations, num_samples=size.num_samples, seed=1
        ).elbo
    closest = max(ENCODERS, key=lambda name: values[name].mean())
    found, _ = vae.measure(fitted[closest], images, size, seed=2)
    values["best"] = found["elbo_best_factorised"]
    values["evidence"] = found["iwae_best_factorised"]
    return {name: vae.listed(array) for name, array in values.items()}


def stored(scale="book"):
    """Read the committed result.

    Raises:
      ResultError: if there is none, or it is incomplete or altered.
    """
    return results.stored("inductive_bias", scale, options="--seeds 0 1 2 3 4")[0]


def amortisation_gap(result, encoder, part="test"):
    """L[q*_x] - L[q_phi] of each image: float64 [seeds, points], nats.

    >>> points = {"best": [[-1.0, -2.0]], "wide": [[-3.0, -2.5]]}
    >>> amortisation_gap({"points": {"test": points}}, "wide")
    array([[2. , 0.5]])
    """
    points = result["points"][part]
    best, own = (np.asarray(points[name], float) for name in ("best", encoder))
    return best - own
