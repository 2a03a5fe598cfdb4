"""Auto-encoders with two latent dimensions, whose evidence and posteriors are sums over a grid.

    ln p(x) = ln sum_i p(x, z_i) h^2,    KL(q || p(z | x)) = ln p(x) - L[q](x),

with nodes z_i at distance h. For a smooth density that falls to zero, such sums converge faster
than any power of h (Trefethen and Weideman 2014); `zoom` checks them on a finer grid. The bound of
a q that maps standard normal noise to latents is the same kind of sum, over nodes of the noise
(`exact_elbo`). So every variational family can be set against the exact posterior, and generators
that were trained with different families can be compared by their evidence rather than by a bound.

Latents are [..., 2], log densities and gaps in nats, per image.
"""

import functools
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy import ndimage, optimize

from tfp_gaps import _checks, bounds
from tfp_gaps._tensorflow import tf
from tfp_gaps.book import results
from tfp_gaps.book.data.images import flatten
from tfp_gaps.book.experiments import vae
from tfp_gaps.models.vae import VAE
from tfp_gaps.networks import replica_normal, replica_seeds
from tfp_gaps.posteriors import families, local

FLOW = {"num_steps": 2, "num_hidden": 30, "context_size": 10}
"""Options of all flows."""

GAUSSIANS = {"factorised": False, "full covariance": True}
"""Families whose best member is found by quadrature: name to whether it has a correlation."""

_LOG_2PI = np.log(2 * np.pi)
_NODES_AT_ONCE = 4000
_IMAGES_AT_ONCE = 300
_WINDOW = 20.0  # nats below the highest node; what lies lower carries less than 1e-6 of the mass
_INSIDE = 0.9  # of a q, on the nodes: what lies beyond them costs twenty nats at least
_MODE = np.log(100.0)  # a mode counts if its density is at least a hundredth of the highest one


@dataclass(frozen=True)
class Size:
    """How large the experiment is.

    generators: `vae.Size` of each model, by the family it is trained with.
    half_width, num_nodes: of the grid, see `Grid.square`.
    num_images: test images whose evidence is measured.
    num_points: first so many of them for which the best Gaussians are found.
    """

    generators: dict
    half_width: float
    num_nodes: int
    num_images: int
    num_points: int

    @property
    def grid(self):
        """The `Grid` of all posteriors."""
        return Grid.square(self.half_width, self.num_nodes)


def _generators(num_steps, widths, num_train, num_test):
    common = replace(
        vae.size_of("book", "digits-factorised"),
        flow=FLOW,
        latent_size=2,
        encoder=widths,
        decoder=widths,
        training=vae.joint_settings(num_steps, learning_rate=5e-3),
        data={
            "name": "digits",
            "num_train": num_train,
            "num_test": num_test,
            "binarisation": "threshold",
        },
    )
    return {"factorised": common, "flow": replace(common, family="coupling")}


SIZES = {
    "smoke": Size(_generators(20, (8,), 200, 100), 6.0, 61, num_images=6, num_points=2),
    "book": Size(_generators(3000, (64, 64), 10_000, 1000), 7.0, 281, 300, 20),
}
"""Sizes by scale."""


def select_replica(fitted, size, replica):
    """A `vae.Fitted` of one replica alone, with copies of its weights.

    Args:
      fitted: `vae.Fitted` of any number of replicas.
      size: its `vae.Size`.
      replica: index.
    """
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

    @functools.cached_property
    def is_outer(self):
        """Which nodes lie on the outermost eighth along either axis: bool [n * n]."""
        ends = np.array([[nodes[0], nodes[-1]] for nodes in (self.first, self.second)])
        return (np.abs(self.points - ends.mean(1)) > 7 / 16 * np.ptp(ends, axis=1)).any(1)


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


class Nodes(NamedTuple):
    """One image's joint density where its posterior has mass.

    points: float64 [n, 2].
    log_joint: float64 [n], nats.
    cell: area of a node.
    modes: nodes that are local maxima, of at least a hundredth of the highest density, highest
      first, [modes, 2].
    outer_share: share of the posterior on the outermost eighth of the whole grid.
    """

    points: np.ndarray
    log_joint: np.ndarray
    cell: float
    modes: np.ndarray
    outer_share: float

    @property
    def log_evidence(self):
        """ln p(x), nats."""
        return float(np.logaddexp.reduce(self.log_joint) + np.log(self.cell))

    @property
    def weights(self):
        """Posterior mass of each node, [n], sums to one."""
        weights = np.exp(self.log_joint - self.log_joint.max())
        return weights / weights.sum()

    def moments(self, inside=slice(None)):
        """Posterior mean [2] and covariance [2, 2]; of the nodes `inside` alone, if given."""
        weights, points = self.weights[inside], self.points[inside]
        weights = weights / weights.sum()
        mean = weights @ points
        centred = points - mean
        return mean, (weights[:, np.newaxis] * centred).T @ centred

    def basins(self):
        """For each mode, which nodes lie nearer to it than to any other: bool [modes, n]."""
        distances = np.sum((self.points - self.modes[:, np.newaxis]) ** 2, -1)
        return distances.argmin(0) == np.arange(len(self.modes))[:, np.newaxis]

    def shares(self):
        """Posterior mass of each mode's basin, [modes], sums to one."""
        return self.basins() @ self.weights

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


def nodes_of(log_joint, grid, window=_WINDOW):
    """The `Nodes` of one image.

    Args:
      log_joint: [n * n] at the nodes of the grid, nats.
      grid: `Grid`.
      window: nodes within so many nats of the highest are kept.
    """
    values = np.asarray(log_joint, np.float64)
    relative = values - values.max()
    square = relative.reshape(len(grid.first), len(grid.second))
    is_peak = (square == ndimage.maximum_filter(square, size=3)) & (square > -_MODE)
    peaks = np.flatnonzero(is_peak)
    peaks = peaks[np.argsort(-relative[peaks])]
    mass = np.exp(relative)
    near = relative > -window
    outer = float(mass[grid.is_outer].sum() / mass.sum())
    return Nodes(grid.points[near], values[near], grid.cell, grid.points[peaks], outer)


def tabulate(model, images, grid):
    """The posterior of every image on a grid.

    Args:
      model: `models.vae.VAE` with two latent dimensions and one replica.
      images: [images, pixels].
      grid: `Grid`.

    Returns:
      list of `Nodes`, one per image.

    Raises:
      ValueError: for a model with another number of latent dimensions or several replicas, or
        images that do not fit.
    """
    images, found = _check(model, images), []
    table_of = tf.function(lambda part, own: log_joint(model, part, own)[0])
    for first in range(0, images.shape[0], _IMAGES_AT_ONCE):
        own = images[first : first + _IMAGES_AT_ONCE]
        table = np.empty([len(grid.points), own.shape[0]], np.float32)
        for start in range(0, len(grid.points), _NODES_AT_ONCE):
            part = slice(start, start + _NODES_AT_ONCE)
            table[part] = table_of(tf.constant(grid.points[part], tf.float32), own).numpy()
        found += [nodes_of(column, grid) for column in table.T]
    return found


def refine(model, images, nodes):
    """The same posteriors on nodes at half the distance: each node becomes four.

    Args:
      model: `models.vae.VAE` with one replica.
      images: [images, pixels].
      nodes: list of `Nodes`, one per image.

    Returns:
      list of `Nodes`; modes and shares at the edge are those of the coarser nodes.
    """
    images, found = _check(model, images), []
    for index, own in enumerate(nodes):
        offsets = np.sqrt(own.cell) / 4 * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
        points = (own.points[:, np.newaxis] + offsets).reshape(-1, 2)
        values = [
            log_joint(model, points[start : start + _NODES_AT_ONCE], images[index : index + 1])
            for start in range(0, len(points), _NODES_AT_ONCE)
        ]
        values = np.concatenate(values, axis=1)[0, :, 0].astype(np.float64)
        near = values > values.max() - _WINDOW
        found.append(own._replace(points=points[near], log_joint=values[near], cell=own.cell / 4))
    return found


def _check(model, images):
    if model.latent_size != 2 or model.num_replicas != 1:
        raise ValueError(
            f"a posterior on a grid needs a model with 2 latent dimensions and 1 replica, but this "
            f"one has {model.latent_size} and {model.num_replicas}. Pick a replica by "
            f"select_replica; with more dimensions, bound the evidence: bounds, annealing."
        )
    array = _checks.finite_array(images, "images", ndim=2)
    if array.shape[1] != model.observation_size:
        raise ValueError(
            f"images must be [images, {model.observation_size} pixels], but have shape "
            f"{array.shape}. Flatten them: data.images.flatten."
        )
    return tf.constant(array, tf.float32)


def mass_levels(density, masses=(0.99, 0.9, 0.5)):
    """Densities above which the given shares of the mass on a regular grid lie.

    >>> mass_levels(np.array([4.0, 3.0, 2.0, 1.0]), (0.9, 0.5)).tolist()
    [2.0, 3.0]
    """
    values = np.sort(np.ravel(density))[::-1]
    share = np.cumsum(values) / values.sum()
    return values[np.searchsorted(share, np.asarray(masses) - 1e-12)]


def zoom(model, image, nodes, *, num=100, depth=16.0, margin=0.1):
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
    values = log_joint(model, grid.points, _check(model, np.asarray(image)[np.newaxis]))
    return grid, nodes_of(values.numpy()[0, :, 0], grid, np.inf)


def choose(nodes):
    """A few images, by their exact posteriors alone.

    Images are ranked by `Nodes.non_gaussianity`.

    Args:
      nodes: list of `Nodes`.

    Returns:
      {"median": the one in the middle, "ninth decile": the one that nine in ten lie below,
      "one mode": the highest with a single mode, "two modes": of those whose second basin holds a
      twentieth or more, the one whose two highest modes lie farthest apart}. A kind of which there
      is none is left out.
    """
    ranks = np.array([own.non_gaussianity() for own in nodes])
    apart = np.array([_distance_of_modes(own) for own in nodes])
    single = np.array([len(own.modes) == 1 for own in nodes])
    order = np.argsort(ranks)
    chosen = {"median": order[len(nodes) // 2], "ninth decile": order[9 * len(nodes) // 10]}
    if single.any():
        chosen["one mode"] = max(np.flatnonzero(single), key=lambda i: ranks[i])
    if apart.max() > 0:
        chosen["two modes"] = np.argmax(apart)
    return {name: int(index) for name, index in chosen.items()}


def _distance_of_modes(nodes, smallest_share=0.05):
    """Between the two highest modes; zero if there is one, or the second basin holds too little."""
    if len(nodes.modes) == 1 or np.sort(nodes.shares())[-2] < smallest_share:
        return 0.0
    return float(np.linalg.norm(nodes.modes[0] - nodes.modes[1]))


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

    Its gradient is a covariance under q, so that L-BFGS needs a few dozen sums over nodes. The
    objective has as many valleys as the posterior has modes, and more; the search starts with the
    moments of the posterior, with those of each mode's basin, and narrowly at the highest node, and
    the best end is kept. Scales stay between half the distance of two nodes and twice the
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
    narrowest = 0.5 * np.sqrt(nodes.cell) / unit
    scales = [(-np.log(2.0), -np.log(low)) for low in narrowest]
    bounds = [*zip(points.min(0), points.max(0), strict=True), *scales, (None, None)]
    ends = [
        _minimise([*(centre - mean) / unit, *shape], (points, log_joint, correlated), bounds)
        for centre, shape in _starts(nodes, unit, correlated)
    ]
    # Of a long thin q most may lie beyond the nodes, where the objective does not see it.
    inside = [end for end in ends if _mass(points, end.x, nodes.cell / unit.prod()) > _INSIDE]
    best = min(inside or ends, key=lambda end: end.fun).x
    found, whitening = mean + unit * best[:2], _whitening(best) / unit
    return Gaussian(found, whitening, gaussian_kl(nodes, found, whitening))


def _starts(nodes, unit, correlated):
    """Where searches begin: centre, and parameters of the whitening in units of `unit`."""
    moments = [nodes.moments()]
    if len(nodes.modes) > 1:
        moments += [nodes.moments(inside) for inside in nodes.basins()]
    moments.append((nodes.modes[0], moments[0][1] / 4))
    for centre, covariance in moments:
        # A mode may be narrower than the nodes are apart.
        scaled = (covariance + nodes.cell * np.eye(2) / 4) / np.outer(unit, unit)
        shape = np.linalg.inv(np.linalg.cholesky(scaled))
        if not correlated:
            shape = np.diag(np.sqrt(np.diag(np.linalg.inv(scaled))))
        yield centre, [*np.log(np.diag(shape)), shape[1, 0]]


def _minimise(start, arguments, bounds):
    options = {"ftol": 1e-7, "gtol": 1e-4}  # nats: gaps are reported to a thousandth
    return optimize.minimize(
        _objective, start, arguments, jac=True, method="L-BFGS-B", bounds=bounds, options=options
    )


def _whitening(parameters):
    scale = np.exp(parameters[2:4])
    return np.array([[scale[0], 0.0], [parameters[4], scale[1]]])


def _mass(points, parameters, cell):
    """How much of a Gaussian lies on the points."""
    whitening = _whitening(parameters)
    noise = (points - parameters[:2]) @ whitening.T
    density = np.exp(-0.5 * np.sum(noise**2, 1) - _LOG_2PI) * np.linalg.det(whitening)
    return float(density.sum() * cell)


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


def own_start(family, mean, log_scale, seed):
    """Every image its own q: the given Gaussian [images, latent], with layers of its own seed."""
    count = len(mean)
    seeds = replica_seeds(range(count), "flow start", seed)
    shape = [count, 1, family.latent_size]
    start = families.gaussian_start(
        family,
        tf.reshape(tf.cast(mean, tf.float32), shape),
        tf.reshape(tf.cast(log_scale, tf.float32), shape),
        seeds,
    )
    weights = [weight[tf.newaxis] for weight in start.weights]
    return families.Parameters(tf.transpose(start.outputs, [1, 0, 2]), weights, True)


def log_density(family, parameters, image, points):
    """ln q of one image at points [n, 2]: float64 [n], nats.

    Args:
      family: of `posteriors.families`, with a density (not the auxiliary flow).
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


def draws(family, parameters, image, num, *, seed):
    """Draws from the q of one image: float [num, 2]."""
    own = parameters.select(image, image + 1)
    noise = replica_normal([num, 1, family.num_noise], replica_seeds([seed], "panel draws"))
    noise = tf.transpose(noise, [1, 0, 2, 3])
    return families.draw(family, own, noise).latents.numpy()[:, 0, 0]


def _noise_nodes(num, half_width=5.0):
    """Nodes of the noise [num * num, 2] and their share of a standard normal, sums to one."""
    points = Grid.square(half_width, num).points
    weights = np.exp(-0.5 * np.sum(points**2, 1))
    return points.astype(np.float32), weights / weights.sum()


def exact_elbo(model, family, parameters, images, images_at_once=2, num_nodes=41):
    """L[q](x) of one q per image, by quadrature over the noise that q transforms.

    Where q's map is a flow this takes no inverse, and where q has mass does not matter.

    Args:
      model: `models.vae.VAE` with one replica.
      family: of `posteriors.families`, with two dimensions of noise (not the auxiliary flow).
      parameters: `families.Parameters` [1, images, ...].
      images: [images, pixels].
      images_at_once: images per call, bounds the memory.
      num_nodes: of the noise, along each axis.

    Returns:
      float64 [images], nats.

    Raises:
      ValueError: for a family with an auxiliary variable, or a model or images that do not fit.
    """
    images = _check(model, images)
    if family.num_noise != 2:
        raise ValueError(
            f"a bound by quadrature needs a family with 2 dimensions of noise, but {family.name!r} "
            f"has {family.num_noise}. Estimate its bound from draws: bounds.evaluate_static."
        )
    points, weights = _noise_nodes(num_nodes)

    @tf.function
    def log_weights(own, part):
        noise = tf.tile(points[:, np.newaxis, np.newaxis], [1, 1, part.shape[1], 1])
        return families.log_weights(model, family, own, part, noise)[:, 0]

    parts = []
    for first in range(0, images.shape[0], images_at_once):
        part = images[tf.newaxis, first : first + images_at_once]
        own = parameters.select(first, first + images_at_once)
        parts.append(weights @ log_weights(own, part).numpy().astype(np.float64))
    return np.concatenate(parts)


class Best(NamedTuple):
    """The best q of a family for each image, as far as it was found.

    family: of `posteriors.families`.
    parameters: `families.Parameters` [1, images, ...].
    gap: ln p(x) - L[q](x), float64 [images], nats; of the auxiliary flow, an upper bound.
    gap_error: standard error over draws, [images]; zero where the bound is a quadrature.
    """

    family: object
    parameters: families.Parameters
    gap: np.ndarray
    gap_error: np.ndarray

    def select(self, images):
        """The same for some of the images, given by their indices."""
        outputs, weights, per_datum = self.parameters
        if per_datum:
            weights = [tf.gather(weight, images, axis=1) for weight in weights]
        parameters = families.Parameters(tf.gather(outputs, images, axis=1), weights, per_datum)
        return Best(self.family, parameters, self.gap[images], self.gap_error[images])


def evaluate(model, family, parameters, nodes, images, *, seed=0, num_samples=4000):
    """What one q per image lacks: by quadrature, or by draws if the family has no density.

    Args:
      model, family, parameters, images: as in `exact_elbo`.
      nodes: list of `Nodes` of these images.
      seed, num_samples: of the draws for the auxiliary flow.

    Returns:
      `Best`.
    """
    evidence = np.array([own.log_evidence for own in nodes])
    if family.num_noise == 2:
        bound, error = exact_elbo(model, family, parameters, images), np.zeros(len(nodes))
    else:
        observations = np.asarray(images, np.float32)[np.newaxis]
        options = {"num_samples": num_samples, "seed": seed}
        found = bounds.evaluate_static(model, family, parameters, observations, **options)
        bound, error = found.elbo[0], found.elbo_error[0]
    return Best(family, parameters, evidence - bound, error)


def best_gaussians(model, name, nodes, images):
    """The `Best` of a Gaussian family, found on the nodes and evaluated in its own noise.

    Args:
      model: `models.vae.VAE` with one replica.
      name: one of `GAUSSIANS`.
      nodes: list of `Nodes`, one per image.
      images: [images, pixels].
    """
    correlated = GAUSSIANS[_checks.one_of(name, "family", GAUSSIANS)]
    found = [best_gaussian(own, correlated=correlated) for own in nodes]
    parameters = parameters_of(found, correlated=correlated)
    return evaluate(model, families.make(name, 2), parameters, nodes, images)


def amortised(fitted, nodes, images):
    """The encoder's answers as a `Best`; arguments as in `search_stages`."""
    observations = tf.constant(np.asarray(images, np.float32)[np.newaxis])
    parameters = fitted.posterior.parameters(observations)
    return evaluate(fitted.model, fitted.posterior.family, parameters, nodes, images)


def best_flows(model, name, starts, nodes, images, settings, *, seed):
    """Search a flow for each image from several starts, and keep the best end.

    A start is a factorised Gaussian. To those given, one is added that covers all modes: with the
    mean and the variances of the whole posterior.

    Args:
      model: `models.vae.VAE` with one replica.
      name: of a flow, one of `families.NAMES`.
      starts: list of `Best` of factorised Gaussians for these images.
      nodes: list of `Nodes`, one per image.
      images: [images, pixels].
      settings: `local.Search`.
      seed: int.

    Returns:
      `Best`, and the gap at every end, that from the added start last: [starts + 1, images], nats.
    """
    family = families.make(name, 2, **(FLOW | {"context_size": 1}))
    outputs = [start.parameters.outputs.numpy()[0] for start in starts]
    moments = [own.moments() for own in nodes]
    outputs.append([[*mean, *0.5 * np.log(np.diag(covariance))] for mean, covariance in moments])
    num_starts, rows = len(outputs), np.concatenate(outputs)
    start = own_start(family, rows[:, :2], rows[:, 2:], seed)
    repeated = np.tile(np.asarray(images, np.float32), [num_starts, 1])
    found = local.optimise(model, family, start, repeated[np.newaxis], settings, seed=seed)
    ends = evaluate(model, family, found.parameters, [*nodes] * num_starts, repeated, seed=seed)
    gaps = ends.gap.reshape(num_starts, -1)
    return ends.select(np.argmin(gaps, 0) * len(nodes) + np.arange(len(nodes))), gaps


def search_stages(fitted, nodes, images, settings, *, seed):
    """Search the best factorised q from the encoder's answer, for longer and longer.

    Args:
      fitted: `vae.Fitted` of one replica with a factorised posterior.
      nodes: list of `Nodes`, one per image.
      images: [images, pixels].
      settings: list of `local.Search`, one after another; each goes on where the last one ended.
      seed: int.

    Returns:
      The gap of the encoder's answers, then after each of the settings, by quadrature: float64
      [1 + settings, images], nats.
    """
    model, family = fitted.model, fitted.posterior.family
    observations = np.asarray(images, np.float32)[np.newaxis]
    _, parameters, gap, _ = amortised(fitted, nodes, images)
    gaps = [gap]
    for index, own in enumerate(settings):
        found = local.optimise(model, family, parameters, observations, own, seed=seed + index)
        parameters = found.parameters
        gaps.append(evaluate(model, family, parameters, nodes, images).gap)
    return np.array(gaps)


# --- generators -----------------------------------------------------------------------------------

VARIANTS = ("",)


def run(*, scale, seeds, variant="", checkpoint_folder=None, progress=None):
    """Train a generator with each family, and measure the evidence of both.

    Args: as in `experiments.vae.run`, without variants.

    Returns:
      A JSON-serialisable dict. "generators": by family, what `measure` returns for each seed.
    """
    _checks.one_of(variant, "variant", VARIANTS)
    size, fitted, content = SIZES[_checks.one_of(scale, "scale of two_latents", SIZES)], {}, {}
    for name, own in size.generators.items():
        steps = own.training.num_steps
        options = results.training_options(checkpoint_folder, progress, name, steps)
        splits, images = load(own, size.num_images)
        fitted[name] = vae.fit(splits, own, seeds=seeds, **options)
    for name, own in size.generators.items():
        diverged = fitted[name].history.diverged.tolist()
        measured = measure(fitted[name], own, images, size.grid, size.num_points)
        content[name] = {"diverged": diverged} | {
            key: vae.listed(values) for key, values in measured.items()
        }
    return {
        "experiment": "two_latents",
        "scale": scale,
        "variant": variant,
        "seeds": list(seeds),
        "size": asdict(size),
        "data": splits.source,
        "generators": content,
    }


def measure(fitted, size, images, grid, num_points):
    """What became of a generator: evidence, bound, and how far Gaussians stay from its posteriors.

    Args:
      fitted: `vae.Fitted` of any number of replicas.
      size: its `vae.Size`.
      images: [images, pixels].
      grid: `Grid`.
      num_points: first so many images for which the best Gaussians are found.

    Returns:
      {"evidence", "elbo": float64 [replicas, images]; "factorised", "full covariance": the
      approximation gap of the best q, [replicas, points]; "modes": number of them, [replicas,
      images]; "outer_share": largest over images, [replicas]}, nats.
    """
    observations = np.asarray(images, np.float32)[np.newaxis]
    own = fitted.posterior.parameters(tf.constant(observations))
    bound = bounds.evaluate_static(
        fitted.model, fitted.posterior.family, own, observations, num_samples=100, seed=1
    )
    replicas = range(fitted.model.num_replicas)
    models = [select_replica(fitted, size, replica).model for replica in replicas]
    found = [_measure_one(model, images, grid, num_points) for model in models]
    return {"elbo": bound.elbo} | {name: np.array([v[name] for v in found]) for name in found[0]}


def _measure_one(model, images, grid, num_points):
    nodes = tabulate(model, images, grid)
    finer = refine(model, images[:num_points], nodes[:num_points])
    return {
        "evidence": [own.log_evidence for own in nodes],
        "modes": [len(own.modes) for own in nodes],
        "outer_share": max(own.outer_share for own in nodes),
    } | {
        name: [best_gaussian(own, correlated=correlated).kl for own in finer]
        for name, correlated in GAUSSIANS.items()
    }


def load(size, num_images=None):
    """Binary digits of a `vae.Size`: `Splits`, and its first test images [images, pixels]."""
    splits = vae.load(size)
    return splits, flatten(splits.test)[:num_images]


def stored(scale="book"):
    """Read the committed result.

    Raises:
      ResultError: if there is none, or it is incomplete or altered.
    """
    _checks.one_of(scale, "scale of two_latents", SIZES)
    return results.stored("two_latents", scale, options="--seeds 0 1 2")[0]


def means_over_images(result, quantity):
    """Means of a stored quantity over its images: {family: float64 [seeds]}, nats."""
    generators = result["generators"]
    return {name: np.mean(values[quantity], axis=1) for name, values in generators.items()}
