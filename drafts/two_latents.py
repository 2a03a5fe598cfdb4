"""Auto-encoders with two latent dimensions, whose evidence and posteriors are sums over a grid.

    ln p(x) = ln sum_i p(x, z_i) h^2,    KL(q || p(z | x)) = ln p(x) - L[q](x),

with nodes z_i at distance h. For a smooth density that falls to zero, such sums converge faster
than any power of h (Trefethen and Weideman 2014); `zoom` checks them on a finer grid. So every
variational family can be set against the exact posterior, and generators that were trained with
different families can be compared by their evidence rather than by a bound.

Latents are [..., 2], log densities in nats, log joints ln p(x, z) at the nodes of a grid.
"""

import functools
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy import ndimage, optimize

from tfp_gaps import _checks, static_bounds
from tfp_gaps._tensorflow import tf
from tfp_gaps.data.images import flatten
from tfp_gaps.experiments import vae
from tfp_gaps.inference import families, local
from tfp_gaps.models.vae import VAE
from tfp_gaps.networks import replica_normal, replica_seeds

GENERATORS = {"factorised": "factorised", "flow": "coupling"}
"""Families that the generators are trained with: our name to that of `experiments.vae`."""

FLOW = {"num_steps": 2, "num_hidden": 30, "context_size": 10}
"""Options of all flows."""

GAUSSIANS = {"factorised": False, "full covariance": True}
"""Families whose best member is found by quadrature: name to whether it has a correlation."""

_LOG_2PI = np.log(2 * np.pi)
_NODES_AT_ONCE = 4000
_WINDOW = 20.0  # nats below the highest node; what lies lower carries less than 1e-6 of the mass
_MODE = np.log(100.0)  # a mode counts if its density is at least a hundredth of the highest one


def size_of(generator, num_steps=3000):
    """The `vae.Size` of a model with two latent dimensions.

    Args:
      generator: one of `GENERATORS`.
      num_steps: of the joint training.
    """
    _checks.one_of(generator, "generator", GENERATORS)
    return replace(
        vae.size_of("book", "digits-factorised"),
        family=GENERATORS[generator],
        flow=FLOW,
        latent_size=2,
        encoder=(64, 64),
        decoder=(64, 64),
        training=vae.joint_settings(num_steps, learning_rate=5e-3),
        data={
            "name": "digits",
            "num_train": 10_000,
            "num_test": 1000,
            "binarisation": "threshold",
        },
    )


def select_replica(fitted, size, replica):
    """A `vae.Fitted` of one replica alone, with copies of its weights."""
    model = VAE(
        observation_size=vae.NUM_PIXELS,
        latent_size=2,
        hidden=size.decoder,
        activation=size.activation,
        seeds=replica_seeds([0], "copy"),
    )
    posterior = vae.new_posterior(size, [0])
    for new, old in ((model, fitted.model), (posterior, fitted.posterior)):
        for target, source in zip(new.variables, old.variables, strict=True):
            target.assign(source[replica : replica + 1])
    return vae.Fitted(model, posterior, None)


# --- grids ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grid:
    """A square of nodes.

    first, second: float64 [n], equally spaced nodes along the two latent axes.

    >>> Grid.square(2.0, 5).cell
    1.0
    """

    first: np.ndarray
    second: np.ndarray

    @classmethod
    def square(cls, half_width, num):
        """`num` by `num` nodes on (-half_width, half_width)^2."""
        _checks.positive_float(half_width, "half_width")
        _checks.integer(num, "num", minimum=3)
        nodes = np.linspace(-half_width, half_width, num)
        return cls(nodes, nodes)

    @property
    def cell(self):
        """Area that belongs to a node."""
        return float((self.first[1] - self.first[0]) * (self.second[1] - self.second[0]))

    @functools.cached_property
    def points(self):
        """All nodes, [n * n, 2], the second axis fastest."""
        return np.stack(np.meshgrid(self.first, self.second, indexing="ij"), -1).reshape(-1, 2)


def log_joint(model, points, images):
    """ln p(x, z) of every pair of an image and a node.

    Args:
      model: `models.vae.VAE` with two latent dimensions.
      points: [nodes, 2].
      images: float32 [images, pixels].

    Returns:
      float32 [replicas, nodes, images], nats.
    """
    points = tf.cast(points, tf.float32)
    repeated = tf.repeat(points[tf.newaxis], model.num_replicas, axis=0)
    outputs = model.decoder(repeated)
    columns = tf.repeat(tf.transpose(images)[tf.newaxis], model.num_replicas, axis=0)
    prior = model.log_prior(points)[:, tf.newaxis]
    if model.emission_name == "bernoulli":
        rest = tf.reduce_sum(tf.nn.softplus(outputs), -1, keepdims=True)
        return tf.matmul(outputs, columns) - rest + prior
    # The square of (x - f) / s written out, so that images and nodes meet in one product.
    precision = tf.exp(-2 * model.log_noise)
    square = tf.reduce_sum(columns**2 * tf.transpose(precision, [0, 2, 1]), 1, keepdims=True)
    own = tf.reduce_sum(outputs**2 * precision + 2 * model.log_noise + _LOG_2PI, -1, keepdims=True)
    return tf.matmul(outputs * precision, columns) - 0.5 * (own + square) + prior


class Table(NamedTuple):
    """The joint density of images on a grid.

    grid: `Grid`.
    log_evidence: ln p(x), float64 [replicas, images], nats.
    outer_share: largest share of a posterior on the outermost eighth of the grid, [replicas].
    log_joint: float32 [replicas, kept images, nodes], nats.
    """

    grid: Grid
    log_evidence: np.ndarray
    outer_share: np.ndarray
    log_joint: np.ndarray


def tabulate(model, images, grid, num_kept):
    """Evidence of all images, and the whole table of the first `num_kept`.

    Args:
      model: `models.vae.VAE` with two latent dimensions.
      images: [images, pixels].
      grid: `Grid`.
      num_kept: int.

    Returns:
      `Table`.

    Raises:
      ValueError: for a model with another number of latent dimensions, or images that do not fit.
    """
    images, points = _check(model, images), grid.points
    edge = 7 / 8 * np.array([np.abs(grid.first).max(), np.abs(grid.second).max()])
    outside = (np.abs(points) > edge).any(1)
    total, outer = -np.inf, -np.inf
    kept = np.empty([model.num_replicas, num_kept, len(points)], np.float32)

    @tf.function
    def table_of(part, is_outside):
        values = log_joint(model, part, images)
        masses = values, tf.boolean_mask(values, is_outside, axis=1)
        sums = [tf.reduce_logsumexp(mass, 1) for mass in masses]
        return *sums, tf.transpose(values[..., :num_kept], [0, 2, 1])

    for start in range(0, len(points), _NODES_AT_ONCE):
        own = slice(start, start + _NODES_AT_ONCE)
        part = table_of(tf.constant(points[own], tf.float32), tf.constant(outside[own]))
        total = np.logaddexp(total, part[0].numpy().astype(np.float64))
        outer = np.logaddexp(outer, part[1].numpy().astype(np.float64))
        kept[..., own] = part[2].numpy()
    share = np.exp(outer - total).max(1)
    return Table(grid, total + np.log(grid.cell), share, kept)


def _check(model, images):
    if model.latent_size != 2:
        raise ValueError(
            f"a posterior on a grid needs 2 latent dimensions, but the model has "
            f"{model.latent_size}. Bound its evidence instead: static_bounds, annealing."
        )
    array = _checks.finite_array(images, "images", ndim=2)
    if array.shape[1] != model.observation_size:
        raise ValueError(
            f"images must be [images, {model.observation_size} pixels], but have shape "
            f"{array.shape}. Flatten them: data.images.flatten."
        )
    return tf.constant(array, tf.float32)


class Nodes(NamedTuple):
    """One image's joint density where its posterior has mass.

    points: float64 [n, 2].
    log_joint: float64 [n], nats.
    cell: area of a node.
    """

    points: np.ndarray
    log_joint: np.ndarray
    cell: float

    @property
    def log_evidence(self):
        """ln p(x), nats."""
        return float(np.logaddexp.reduce(self.log_joint) + np.log(self.cell))

    @property
    def weights(self):
        """Posterior mass of each node, [n], sums to one."""
        weights = np.exp(self.log_joint - self.log_joint.max())
        return weights / weights.sum()

    def moments(self):
        """Posterior mean [2] and covariance [2, 2]."""
        weights = self.weights
        mean = weights @ self.points
        centred = self.points - mean
        return mean, (weights[:, np.newaxis] * centred).T @ centred

    def non_gaussianity(self):
        """KL(p || N) to the Gaussian N with the posterior's moments, nats."""
        weights = self.weights
        log_posterior = self.log_joint - self.log_evidence
        entropy = 1 + _LOG_2PI + 0.5 * np.log(np.linalg.det(self.moments()[1]))
        return float(entropy + weights @ log_posterior)

    def kl(self, log_density):
        """KL(q || p) of ln q at the nodes, [n], by quadrature, nats."""
        density = np.exp(log_density)
        gain = log_density - self.log_joint + self.log_evidence
        return float(np.sum(density * gain) * self.cell)


def nodes_of(table, replica, image, window=_WINDOW):
    """The `Nodes` of one image: all within `window` nats of the highest; infinity for all."""
    values = table.log_joint[replica, image].astype(np.float64)
    if np.isinf(window):
        return Nodes(table.grid.points, values, table.grid.cell)  # no copy of the points
    near = values > values.max() - window
    return Nodes(table.grid.points[near], values[near], table.grid.cell)


def mass_levels(density, masses=(0.99, 0.9, 0.5)):
    """Densities above which the given shares of the mass on a regular grid lie.

    >>> mass_levels(np.array([4.0, 3.0, 2.0, 1.0]), (0.9, 0.5)).tolist()
    [2.0, 3.0]
    """
    values = np.sort(np.ravel(density))[::-1]
    share = np.cumsum(values) / values.sum()
    return values[np.searchsorted(share, np.asarray(masses) - 1e-12)]


def num_modes(table, replica, image):
    """Number of local maxima of at least a hundredth of the highest density."""
    shape = (len(table.grid.first), len(table.grid.second))
    values = table.log_joint[replica, image].reshape(shape)
    is_peak = values == ndimage.maximum_filter(values, size=3)
    return int(np.sum(is_peak & (values > values.max() - _MODE)))


def zoom(model, image, nodes, *, num=200, depth=16.0, margin=0.1):
    """One image's posterior on a finer grid around where it has mass.

    Args:
      model: `models.vae.VAE` with one replica.
      image: [pixels].
      nodes: `Nodes` of the image on a coarser grid.
      num: nodes along each axis.
      depth: nats below the highest node down to which the coarser nodes lie inside.
      margin: by which share of its width the box is enlarged on either side.

    Returns:
      `Grid`, `Nodes` with all of its points in order.
    """
    inside = nodes.points[nodes.log_joint > nodes.log_joint.max() - depth]
    low, high = inside.min(0), inside.max(0)
    pad = margin * (high - low) + np.sqrt(nodes.cell)
    grid = Grid(*(np.linspace(a, b, num) for a, b in zip(low - pad, high + pad, strict=True)))
    found = tabulate(model, np.asarray(image)[np.newaxis], grid, 1)
    return grid, Nodes(grid.points, found.log_joint[0, 0].astype(np.float64), grid.cell)


def choose(table, replica=0):
    """Four images, by their exact posteriors alone.

    Images are ranked by `Nodes.non_gaussianity`.

    Returns:
      {"median": the one in the middle, "ninth decile": the one that nine in ten lie below,
      "one mode": the highest with a single mode, "two modes": the highest with several}. Where no
      posterior has several modes, the last is left out.
    """
    count = table.log_joint.shape[1]
    ranks = np.array([nodes_of(table, replica, i).non_gaussianity() for i in range(count)])
    modes = np.array([num_modes(table, replica, i) for i in range(count)])
    order = np.argsort(ranks)
    chosen = {
        "median": order[count // 2],
        "ninth decile": order[9 * count // 10],
        "one mode": max(np.flatnonzero(modes == 1), key=lambda i: ranks[i]),
    }
    if (modes > 1).any():
        chosen["two modes"] = max(np.flatnonzero(modes > 1), key=lambda i: ranks[i])
    return {name: int(index) for name, index in chosen.items()}


# --- the best q -----------------------------------------------------------------------------------


class Gaussian(NamedTuple):
    """N(mean, (A'A)^-1), with A lower triangular, and its divergence.

    mean: [2].
    whitening: A, [2, 2].
    kl: KL(q || p(z | x)), nats.
    """

    mean: np.ndarray
    whitening: np.ndarray
    kl: float

    def log_prob(self, points):
        """ln q at points [n, 2], nats."""
        noise = (points - self.mean) @ self.whitening.T
        log_scale = -np.log(np.diag(self.whitening)).sum()
        return -0.5 * np.sum(noise**2, 1) - _LOG_2PI - log_scale


def gaussian_kl(nodes, mean, whitening):
    """KL(q || p(z | x)) of a Gaussian, with its entropy in closed form.

    The expectation of ln p(x, z) is taken under q normalised on the nodes, so that a q narrower
    than the grid gains nothing.
    """
    weights, _ = _weights(nodes.points, mean, whitening)
    entropy = 1 + _LOG_2PI - np.log(np.diag(whitening)).sum()
    return float(nodes.log_evidence - entropy - weights @ nodes.log_joint)


def best_gaussian(nodes, *, correlated):
    """The Gaussian with the smallest divergence from the posterior, by quadrature.

    Its gradient is a covariance under q, so that L-BFGS needs a few dozen sums over nodes. It
    starts at the posterior's mean with the width of the moments, and at the highest node with half
    of it; the better end is kept. Scales stay between half the distance of two nodes and twice the
    posterior's, where sums over the nodes are expectations.

    Args:
      nodes: `Nodes`.
      correlated: full covariance, or factorised.

    Returns:
      `Gaussian`.
    """
    mean, covariance = nodes.moments()
    unit = np.sqrt(np.diag(covariance))  # the search is in units of the posterior's deviations
    points = (nodes.points - mean) / unit
    log_joint = nodes.log_joint - nodes.log_evidence
    correlation = covariance / np.outer(unit, unit)
    shape = np.linalg.inv(np.linalg.cholesky(correlation))
    if not correlated:
        shape = np.diag(np.sqrt(np.diag(np.linalg.inv(correlation))))
    narrowest = 0.5 * np.sqrt(nodes.cell) / unit
    scales = [(-np.log(2.0), -np.log(low)) for low in narrowest]
    bounds = [*zip(points.min(0), points.max(0), strict=True), *scales, (None, None)]
    ends = []
    for centre, narrower in ((np.zeros(2), 1.0), (points[np.argmax(log_joint)], 2.0)):
        start = [*centre, *np.log(narrower * np.diag(shape)), narrower * shape[1, 0]]
        arguments = (points, log_joint, correlated)
        ends.append(_minimise(start, arguments, bounds))
    best = min(ends, key=lambda end: end.fun).x
    found, whitening = mean + unit * best[:2], _whitening(best) / unit
    return Gaussian(found, whitening, gaussian_kl(nodes, found, whitening))


def _minimise(start, arguments, bounds):
    options = {"ftol": 1e-7, "gtol": 1e-4}  # nats: gaps are reported to a thousandth
    return optimize.minimize(
        _objective, start, arguments, jac=True, method="L-BFGS-B", bounds=bounds, options=options
    )


def _whitening(parameters):
    scale = np.exp(parameters[2:4])
    return np.array([[scale[0], 0.0], [parameters[4], scale[1]]])


def _weights(points, mean, whitening):
    """q normalised on the points, and the noise that each point stands for."""
    noise = (points - mean) @ whitening.T
    exponent = -0.5 * np.sum(noise**2, 1)
    weights = np.exp(exponent - exponent.max())
    return weights / weights.sum(), noise


def _objective(parameters, points, log_joint, correlated):
    """-ELBO up to a constant, and its gradient: minus a covariance under q, minus that of H[q]."""
    mean, whitening = parameters[:2], _whitening(parameters)
    weights, noise = _weights(points, mean, whitening)
    expected = weights @ log_joint
    moved = points - mean
    # d ln q / d parameters at each node, without the part that normalises it.
    scores = np.stack(
        [
            *(noise @ whitening).T,
            -noise[:, 0] * moved[:, 0] * whitening[0, 0],
            -noise[:, 1] * moved[:, 1] * whitening[1, 1],
            -noise[:, 1] * moved[:, 0] * correlated,
        ]
    )
    gradient = -scores @ (weights * (log_joint - expected)) + np.array([0, 0, 1, 1, 0.0])
    return parameters[2:4].sum() - expected, gradient


def parameters_of(gaussians, *, correlated):
    """`families.Parameters` [1, images, ...] of a list of `Gaussian`."""
    rows = []
    for mean, whitening, _ in gaussians:
        factor = np.linalg.inv(whitening)
        below = [factor[1, 0]] if correlated else []
        rows.append([*mean, *np.log(np.diag(factor)), *below])
    return families.Parameters(tf.constant([rows], tf.float32), [], False)


class Best(NamedTuple):
    """The best q of a family for each image.

    family: of `inference.families`.
    parameters: `families.Parameters` [1, images, ...].
    elbo, elbo_error: of fresh draws, float64 [images], nats.
    steps: taken, summed over batches.
    diverged: number of images with a step whose gradient was not finite.
    """

    family: object
    parameters: families.Parameters
    elbo: np.ndarray
    elbo_error: np.ndarray
    steps: int
    diverged: int


def search(model, name, starts, images, settings, *, seed, num_samples=1000):
    """Search the best q of a family from several starts, and keep the best end for each image.

    The end is chosen by one set of draws and measured by another.

    Args:
      model: `models.vae.VAE` with one replica, held fixed.
      name: one of `families.NAMES`.
      starts: mean and log scale, float [starts, images, 2] each.
      images: [images, pixels].
      settings: `local.Search`.
      seed: int.
      num_samples: draws per image for choosing, and again for measuring.

    Returns:
      `Best`.
    """
    family = families.make(name, 2, **(FLOW | {"context_size": 1}))
    num_starts, count = starts[0].shape[:2]
    start = _own_start(family, *(np.reshape(part, [-1, 2]) for part in starts), seed)
    repeated = np.tile(np.asarray(images, np.float32), [num_starts, 1])[np.newaxis]
    found = local.optimise(model, family, start, repeated, settings, seed=seed)
    ends = static_bounds.evaluate(
        model, family, found.parameters, repeated, num_samples=num_samples, seed=seed + 1
    )
    chosen = np.argmax(ends.elbo.reshape(num_starts, count), 0) * count + np.arange(count)
    parameters = families.Parameters(
        *(tf.nest.map_structure(lambda t: tf.gather(t, chosen, axis=1), found.parameters[:2])), True
    )
    observations = np.asarray(images, np.float32)[np.newaxis]
    bounds = static_bounds.evaluate(
        model, family, parameters, observations, num_samples=num_samples, seed=seed + 2
    )
    diverged = int(found.diverged[0, chosen].sum())
    return Best(
        family, parameters, bounds.elbo[0], bounds.elbo_error[0], int(found.steps.sum()), diverged
    )


def _own_start(family, mean, log_scale, seed):
    """Every image its own q: the given Gaussian, with layers of its own seed."""
    count = len(mean)
    seeds = replica_seeds(range(count), "flow start", seed)
    shape = [count, 1, 2]
    start = families.gaussian_start(
        family,
        tf.reshape(tf.cast(mean, tf.float32), shape),
        tf.reshape(tf.cast(log_scale, tf.float32), shape),
        seeds,
    )
    weights = [weight[tf.newaxis] for weight in start.weights]
    return families.Parameters(tf.transpose(start.outputs, [1, 0, 2]), weights, True)


def starting_points(fitted, nodes, images):
    """Where searches start: the trained q's mean and scale, and those of the exact posterior.

    Args:
      fitted: `vae.Fitted` of one replica with a factorised posterior.
      nodes: list of `Nodes`, one per image.
      images: [images, pixels].

    Returns:
      mean, log_scale: float64 [2, images, 2].
    """
    outputs = fitted.posterior.outputs(np.asarray(images)[np.newaxis]).numpy()[0]
    moments = [own.moments() for own in nodes]
    mean = np.stack([outputs[:, :2], [m for m, _ in moments]])
    scale = np.stack([0.5 * np.log(np.diag(covariance)) for _, covariance in moments])
    return mean, np.stack([outputs[:, 2:], scale])


def log_density(family, parameters, image, points):
    """ln q of one image at points [n, 2]: float64 [n], nats.

    Args:
      family: of `inference.families`, with a density (not the auxiliary flow).
      parameters: `families.Parameters` [1, images, ...].
      image: index.
      points: [n, 2].
    """
    outputs = parameters.outputs[:, image : image + 1]
    weights = parameters.weights
    if parameters.per_datum:
        weights = [weight[:, image] for weight in weights]
    latents = tf.cast(points, tf.float32)[:, tf.newaxis, tf.newaxis]
    return family.log_prob(outputs, weights, latents).numpy()[:, 0, 0].astype(np.float64)


def fit_panels(fitted, nodes, images, settings, *, seed, num_samples=2000):
    """All families against the posteriors of a few images.

    Gaussians are found by quadrature; flows by `search`, from the trained q and from the moments of
    the exact posterior.

    Args:
      fitted: `vae.Fitted` of one replica with a factorised posterior.
      nodes: list of `Nodes`, one per image.
      images: [images, pixels].
      settings: `local.Search`.
      seed: int.
      num_samples: draws per image for the bounds.

    Returns:
      {"amortised" and every one of `families.NAMES`: `Best`}.
    """
    model, observations = fitted.model, np.asarray(images, np.float32)[np.newaxis]
    known = {"amortised": (fitted.posterior.family, fitted.posterior.parameters(observations))}
    for name, correlated in GAUSSIANS.items():
        found = [best_gaussian(own, correlated=correlated) for own in nodes]
        known[name] = families.make(name, 2), parameters_of(found, correlated=correlated)
    panels = {}
    for name, (family, parameters) in known.items():
        bound = static_bounds.evaluate(
            model, family, parameters, observations, num_samples=num_samples, seed=seed
        )
        panels[name] = Best(family, parameters, bound.elbo[0], bound.elbo_error[0], 0, 0)
    starts = starting_points(fitted, nodes, images)
    for name in families.NAMES[2:]:
        panels[name] = search(
            model, name, starts, images, settings, seed=seed, num_samples=num_samples
        )
    return panels


def plateau(fitted, table, starts, images, settings, *, seed):
    """Search the best factorised q for longer and longer.

    Args:
      fitted, images: as in `fit_panels`.
      table: `Table` that begins with these images.
      starts: mean and log scale, float [starts, images, 2] each.
      settings: list of `local.Search`, one after another; each goes on where the last one ended.
        Its batches should be of as many images as there are, so that each has its trace.
      seed: int.

    Returns:
      gaps: float64 [settings, starts, images], ln p(x) - L[q] by quadrature, nats.
      trace: mean ELBO at each look, float64 [starts, looks], nats per image.
    """
    family, num_starts = fitted.posterior.family, len(starts[0])
    repeated = np.tile(np.asarray(images, np.float32), [num_starts, 1])[np.newaxis]
    parameters = _own_start(family, *(np.reshape(part, [-1, 2]) for part in starts), seed)
    gaps, trace = [], []
    for index, own in enumerate(settings):
        found = local.optimise(fitted.model, family, parameters, repeated, own, seed=seed + index)
        parameters = found.parameters
        trace.append([part[:, 0] for part in found.trace])
        rows = parameters.outputs.numpy()[0].astype(np.float64)
        kls = [factorised_gap(table, i % len(images), row) for i, row in enumerate(rows)]
        gaps.append(np.reshape(kls, [num_starts, -1]))
    return np.array(gaps), np.concatenate(trace, axis=1)


def factorised_gap(table, image, outputs, width=7.0):
    """ln p(x) - L[q] of a factorised q anywhere on the grid, by quadrature, nats.

    Args:
      table: `Table` of one replica.
      image: index.
      outputs: mean and log scale, [4].
      width: standard deviations around q's mean on which the sum is taken.
    """
    mean, scale = outputs[:2], np.exp(outputs[2:])
    axes = (table.grid.first, table.grid.second)
    near = [
        slice(*np.searchsorted(nodes, [m - width * s, m + width * s]))
        for nodes, m, s in zip(axes, mean, scale, strict=True)
    ]
    part = Grid(*(nodes[own] for nodes, own in zip(axes, near, strict=True)))
    values = table.log_joint[0, image].reshape([len(nodes) for nodes in axes])[tuple(near)]
    nodes = Nodes(part.points, values.ravel().astype(np.float64), table.grid.cell)
    own = gaussian_kl(nodes, mean, np.diag(1 / scale))
    return own - nodes.log_evidence + float(table.log_evidence[0, image])


def draws(family, parameters, image, num, *, seed):
    """Draws from the q of one image: float [num, 2]."""
    own = parameters.select(image, image + 1)
    noise = replica_normal([num, 1, family.num_noise], replica_seeds([seed], "panel draws"))
    noise = tf.transpose(noise, [1, 0, 2, 3])
    return families.draw(family, own, noise).latents.numpy()[:, 0, 0]


# --- generators -----------------------------------------------------------------------------------


def compare(model, posterior, images, grid, num_points):
    """What became of a generator: evidence, bound, and how Gaussian its posteriors are.

    Args:
      model, posterior: trained, with any number of replicas.
      images: [images, pixels].
      grid: `Grid`.
      num_points: first so many images for which the best Gaussians are found.

    Returns:
      values: {"evidence", "elbo": float64 [replicas, images]; "factorised", "full covariance": the
        approximation gap of the best q, [replicas, points]; "outer share": [replicas]}, nats.
    """
    table = tabulate(model, images, grid, num_points)
    observations = np.asarray(images, np.float32)[np.newaxis]
    own = posterior.parameters(tf.constant(observations))
    bound = static_bounds.evaluate(
        model, posterior.family, own, observations, num_samples=100, seed=1
    )
    values = {"evidence": table.log_evidence, "elbo": bound.elbo, "outer share": table.outer_share}
    for name, correlated in GAUSSIANS.items():
        values[name] = np.array(
            [
                [
                    best_gaussian(nodes_of(table, replica, image), correlated=correlated).kl
                    for image in range(num_points)
                ]
                for replica in range(model.num_replicas)
            ]
        )
    return values


def load(size):
    """Binary digits of a size: training `data.Splits` and test images [images, pixels]."""
    splits = vae.load(size)
    return splits, flatten(splits.test)
