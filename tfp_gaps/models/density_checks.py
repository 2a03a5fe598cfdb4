"""What densities at draws of q must be for a bound to be one.

They have the shape [draws, data], belong to one datum each, are finite, and are rounded by less
than could be seen in a gap; and q integrates to one. What is known of ln p(x) is compared, too.
"""

import warnings

import numpy as np

from tfp_gaps._tensorflow import tf
from tfp_gaps.models import coordinates
from tfp_gaps.models.joint_checks import copies, events
from tfp_gaps.models.observations import num_data, real_array
from tfp_gaps.models.users_code import short

_LARGEST_ROUNDING, _NOTABLE_ROUNDING = 0.1, 0.01  # nats
_NUM_CHECKED, _NUM_ALONE = 8, 5


def part_shapes(model, parts, draws, data):
    """Refuse draws of q whose shape is not [draws, data, *event] of the model's part."""
    for name, event in events(model).items():
        _same_precision(name, parts[name].dtype, tf.as_dtype(model.dtype))
        expected = (draws, data, *event)
        if tuple(parts[name].shape) != expected:
            raise ValueError(
                f"the posterior must draw {name!r} with shape [draws, data, *event] = {expected}, "
                f"but drew {tuple(parts[name].shape)}. Give it the event shape of the model's "
                f"part, with tfd.Independent or tfd.Sample where that has axes."
            )


def unmixed(model, parts, x):
    """Refuse densities of a draw and datum that change with what stands beside them.

    A model is made with one example, which is the same for all data: only data that differ tell,
    of which a handful is looked at, each alone with one draw.
    """
    data = np.unique(np.linspace(0, num_data(x) - 1, _NUM_ALONE).astype(int))
    parts = {name: tf.gather(part[:_NUM_ALONE], data, axis=1) for name, part in parts.items()}
    x = model.select(x, data)
    beside, sizes = _total(model, parts, x)
    for index, datum in enumerate(data):
        draw = index % len(beside)
        one = {n: part[draw : draw + 1, index : index + 1] for n, part in parts.items()}
        alone, _ = _total(model, one, model.select(x, slice(index, index + 1)))
        limit = 1e-3 * (1.0 + sizes[draw, index])  # solvers with adaptive steps differ by as much
        if not abs(alone[0, 0] - beside[draw, index]) < limit:
            raise ValueError(
                f"ln p(x, z) of datum {datum} must be the same whatever stands beside it, but is "
                f"{alone[0, 0]:.6g} alone, and {beside[draw, index]:.6g} beside other draws and "
                f"data: the model mixes them. Reduce over axes of the event only, and normalise by "
                f"constants, not by averages over the data."
            )


def _total(model, parts, x):
    """ln p(x, z), and the sum of the sizes of its terms, by which it is rounded: [draws, data]."""
    terms = [np.asarray(t, np.float64) for t in model.log_terms(parts, x).values()]
    return sum(terms), sum(map(np.abs, terms))


def _same_precision(name, found, expected):
    """Refuse a floating dtype beside another one: TFP would fail far from here."""
    if found.is_floating and found != expected:
        raise ValueError(
            f"the posterior must draw {name!r} as {expected.name}, as the model does, but draws "
            f"{found.name}. Convert the parameters of one of them: NumPy makes float64, TensorFlow "
            f"float32."
        )


def normalised(model, parts, log_q):
    """Refuse a q whose density is too small at its own draws, which puts bounds above ln p(x).

    It integrates to less than one over the model's unconstrained numbers, as a density in other
    coordinates of a surface does. Draws of few data tell: of few numbers how much is missing, of
    many that something is, if it is more than a normal q lacks.
    """
    parts = {name: value[:, :_NUM_CHECKED] for name, value in parts.items()}
    numbers = copies({"": model.unconstrain(parts)})[""]
    log_density = (log_q[:, :_NUM_CHECKED] + model.constrain(numbers)[1]).numpy()
    numbers = numbers.numpy().astype(np.float64)
    eps = np.finfo(log_density.dtype).eps
    for datum in range(numbers.shape[1]):
        free, log_u = numbers[:, datum], log_density[:, datum]
        if len(np.unique(free, axis=0)) < 0.99 * len(free):
            continue  # the sampler ran into the smallest number of its precision
        spread = np.maximum(free.std(0), np.finfo(np.float64).tiny)
        if eps * max(np.max(np.abs(free).mean(0) / spread), np.abs(log_u).max()) > 1e-3:
            continue  # rounding, which is looked at elsewhere
        estimate, error = coordinates.excess(free, log_u)
        lack, about = np.log(max(estimate - 5 * error, 1.0)), "about"
        if np.isinf(error):  # of many numbers
            lack, about = coordinates.least_excess(free, log_u), "at most"
            estimate = np.exp(lack)
        if lack > np.log(1.05):
            raise ValueError(
                f"the posterior must be normalised, but its density integrates to {about} "
                f"{1 / estimate:.2g} for datum {datum} over the model's unconstrained numbers: "
                f"bounds would lie above ln p(x). Look for a term left out of ln q, or for a "
                f"bijector with other coordinates than the model's part."
            )


def finite(parts, log_q, terms, where):
    """Name the first of draw, ln q and ln p that is not finite, its part and datum.

    Args:
      parts: {name: [draws, data, *event]}.
      log_q: [draws, data].
      terms: {name: ln p of the part, [draws, data]}.
      where: what drew, such as "the posterior".
    """
    draws = {name: np.asarray(value) for name, value in parts.items()}
    checked = [
        (f"the draw of {name!r}", value.sum(tuple(range(2, value.ndim))))
        for name, value in draws.items()
    ]
    checked += [("ln q", log_q), *((f"ln p of {name!r}", term) for name, term in terms.items())]
    for what, values in checked:
        values = np.asarray(values)
        bad = ~np.isfinite(values)
        if not bad.any():
            continue
        datum = int(np.argmax(bad.any(0)))
        draw = int(np.argmax(bad[:, datum]))
        at = ", ".join(f"{name} = {short(value[draw, datum])}" for name, value in draws.items())
        raise ValueError(
            f"{what} must be finite at draws of {where}, but is {values[draw, datum]} at {at}, and "
            f"not finite for {int(bad[:, datum].sum())} of {len(bad)} draws of datum {datum}. "
            f"{_remedy(what, values[draw, datum])}"
        )


def _remedy(what, value):
    if what.startswith("ln p") and value == -np.inf:
        return "A q that reaches where the model has no density has an infinite gap: restrict it."
    if what.startswith("ln"):
        return "Look for parts that under- or overflow: use float64, or another parametrisation."
    return "Look for NaN in the parameters of q."


def _varying(model, parts):
    """Parts, those on surfaces as unconstrained numbers."""
    sizes = {name: int(np.prod(shape)) for name, shape in events(model).items()}
    counts = [int(np.prod(shape)) for shape in model._free_shapes]
    surfaces = [n for n, count in zip(model._parts.flat, counts, strict=True) if count < sizes[n]]
    if not surfaces:
        return parts
    pieces = tf.split(model.unconstrain(parts), counts, -1)
    free = dict(zip(model._parts.flat, pieces, strict=True))
    return {**parts, **{name: free[name] for name in surfaces}}


def rounding(model, parts, log_q, terms, where):
    """Refuse densities whose rounding could be seen in a gap; warn where it is near.

    A density of size |ln p| is rounded by eps |ln p|, and a draw z by eps |z|, which moves ln q by
    about that over the standard deviation of q. Parts on surfaces have entries that do not vary:
    there the unconstrained numbers count.
    """
    eps = np.finfo(np.asarray(log_q).dtype).eps
    largest = max(np.abs(np.asarray(term)).max() for term in (log_q, *terms.values()))
    size, cause = eps * float(largest), f"log densities of {largest:.2g} nats"
    for name, value in _varying(model, parts).items():
        value = np.asarray(value, np.float64)
        spread = np.maximum(value.std(0), np.finfo(np.float64).tiny)
        relative = eps * float(np.max(np.abs(value).mean(0) / spread))
        if relative > size:
            size, cause = relative, f"draws of {name!r} that are large against their spread"
    dtype = np.asarray(log_q).dtype.name
    remedy = "Use float64 for model, posterior and example, or subtract offsets."
    if size > _LARGEST_ROUNDING:
        raise ValueError(
            f"{dtype} rounds the bounds of {where} by about {size:.2g} nats ({cause}), more than "
            f"{_LARGEST_ROUNDING}: they would be no bounds. {remedy}"
        )
    if size > _NOTABLE_ROUNDING:
        warnings.warn(
            f"{dtype} rounds the bounds of {where} by about {size:.2g} nats ({cause}). {remedy}",
            RuntimeWarning,
            stacklevel=4,
        )
    return size


def known_evidence(evidence, bounds, errors, diagnostics, num_data, rounded):
    """`evidence` as float64 [data]; refuse another length, or one below a lower bound.

    Args:
      evidence: what was given.
      bounds, errors: {name: [data]} of lower bounds found; ELBO also count in the mean over data.
      diagnostics: {name: `bounds.Diagnostics`}; others than ELBO count where they are reliable.
      num_data: how many numbers there must be.
      rounded: of the bounds, nats.
    """
    values = real_array(evidence, "evidence").astype(np.float64)
    if values.shape != (num_data,) and (num_data > 1 or values.shape != ()):
        raise ValueError(
            f"evidence must be one number for each of {num_data} data, but has shape "
            f"{values.shape}. Give ln p(x) of each datum, in the order of the data."
        )
    values = values.reshape(num_data)
    if not np.isfinite(values).all():
        raise ValueError("evidence must be finite. Leave out the data for which it is not known.")
    for name in bounds:
        beyond = bounds[name] - values - 5 * errors[name] - 1e-3 - rounded
        whole = -np.inf
        if name.startswith("ELBO"):
            error = np.sqrt(np.sum(errors[name] ** 2)) / num_data
            whole = np.mean(bounds[name] - values) - 5 * error - 1e-3 - rounded
        else:  # draws of a prior are shared by all data: errors of a mean are not known
            beyond = np.where(diagnostics[name].reliable, beyond, -np.inf)
        if beyond.max() > 0 or whole > 0:
            worst = int(np.argmax(beyond))
            raise ValueError(
                f"evidence must not be below a lower bound, but that of datum {worst} is "
                f"{values[worst]:.6g} and its {name} {bounds[name][worst]:.6g} ± "
                f"{errors[name][worst]:.2g}. Look for a term left out of ln p(x), or for an order "
                f"of the data that differs."
            )
    return values
