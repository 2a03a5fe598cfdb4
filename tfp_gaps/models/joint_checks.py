"""What a joint distribution and data must be for `tfp_gaps.measure` to give a number.

A bound on ln p(x) is one only if densities have the shape [draws, data], if the Jacobian belongs to
the measure of the density, and if rounding is small against the gap. What cannot be told apart from
a wrong number is refused here.
"""

import contextlib
import warnings

import numpy as np

from tfp_gaps._tensorflow import faulty_product, tf, tfp

tfd = tfp.distributions

_PRIMES = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)
_LARGEST_ROUNDING, _NOTABLE_ROUNDING = 0.1, 0.01  # nats

_SHAPES = (
    "Densities must have the shape [draws, data]: use an AutoBatched joint distribution, or "
    "tfd.Independent or tfd.Sample for plates and a trailing axis ([..., tf.newaxis]) for what a "
    "plate shares."
)

TRANSFORM = "Write the part as a transform of unconstrained ones, such as tf.exp of a normal part."


# --- data -----------------------------------------------------------------------------------------


def real_array(values, name):
    """`values` as an array of real numbers or booleans, without masked entries."""
    if np.ma.isMaskedArray(values) and np.ma.getmaskarray(values).any():
        hidden = int(np.ma.getmaskarray(values).sum())
        raise ValueError(
            f"{name} must hold no masked values, but {hidden} are masked. Leave these data out, or "
            f"model what is missing."
        )
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(
            f"{name} must be an array of real numbers, but could not be read as one ({error}). "
            f"Give every datum the same shape."
        ) from error
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} must be real numbers, but have dtype {array.dtype}. Convert them yourself, "
            f"so that nothing is lost unseen."
        )
    return array


def converted(array, dtype):
    """`array` as `dtype`; refuse what changes by more than the rounding of a float."""
    dtype = np.dtype(dtype)
    with np.errstate(all="ignore"):
        result = array.astype(dtype)
        changed = result != array
        if array.dtype.kind == dtype.kind == "f":
            changed &= (result == 0) | ~np.isfinite(result) | _is_coarse(array, result)
        if array.dtype.kind in "iu" and dtype.kind in "iu":
            limits = np.iinfo(dtype)
            changed = (array < limits.min) | (array > limits.max)
    if changed.any():
        first = array[changed].flat[0]
        raise ValueError(
            f"data must be held by the example's dtype {dtype}, but {int(changed.sum())} of "
            f"{array.size} values change, such as {first}. Give an example of dtype {array.dtype}, "
            f"or subtract an offset from the data."
        )
    return result


def _is_coarse(array, result):
    """Whether rounding to float32 moves a value by a notable part of the spread over data."""
    spread = np.std(array, axis=0) if len(array) > 1 else 0.0
    moved = np.abs(result.astype(array.dtype) - array)
    return (moved > 1e-2 * spread) & (np.broadcast_to(spread, array.shape) > 0)


# --- the model ------------------------------------------------------------------------------------


def joint(distribution):
    """Refuse what is no joint distribution of named parts."""
    if not isinstance(distribution, tfd.JointDistribution):
        raise ValueError(
            f"the model must be a tfd.JointDistribution*, but is a {type(distribution).__name__}. "
            f"Put the latent and the observed part into one joint distribution."
        )


@contextlib.contextmanager
def users_code(what, advice):
    """Say in one sentence what failed where the model's own code runs, whatever it raises."""
    try:
        yield
    except Exception as error:
        text = str(error).strip().splitlines()
        found = f"{type(error).__name__}: {text[0][:200] if text else ''}".rstrip(" .:")
        raise ValueError(f"{what} could not be evaluated ({found}). {advice}") from error


def latents(model, pinned):
    """Refuse latent parts that are nested or discrete, or have no default bijector."""
    for name, shape, dtype in zip(
        model.latents,
        _values(model, pinned.event_shape),
        _values(model, pinned.dtype),
        strict=True,
    ):
        if not isinstance(shape, tf.TensorShape) or tf.nest.is_nested(dtype):
            raise ValueError(
                f"latent parts must be arrays, but {name!r} is a joint distribution of its own. "
                f"Write its parts into the outer one."
            )
        if not shape.is_fully_defined():
            raise ValueError(
                f"latent parts must have a known event shape, but that of {name!r} is {shape}. "
                f"Give its distribution the sizes as Python integers."
            )
        if not tf.as_dtype(dtype).is_floating:
            _refuse_part(name, f"has dtype {tf.as_dtype(dtype).name}")
    with users_code("a draw of the model", "Sample the joint distribution alone until it works."):
        made = model.joint.sample_distributions(seed=(0, 0))[0]
    made = model._by_name(made, model._names)
    for name in model.latents:
        try:
            bijector = made[name].experimental_default_event_space_bijector()
        except (NotImplementedError, AttributeError, TypeError):
            bijector = None
        if bijector is None:
            _refuse_part(name, f"({type(made[name]).__name__}) has no default bijector")


def _refuse_part(name, found):
    raise ValueError(
        f"latent parts must be continuous and have a default bijector, but {name!r} {found}. Sum "
        f"discrete parts out, for instance with tfd.MixtureSameFamily or tfd.HiddenMarkovModel as "
        f"the observed part; write others as transforms of normal parts."
    )


def _values(model, structure):
    found = model._by_name(structure, model.latents)
    return [found[name] for name in model.latents]


def support(model, free_shapes):
    """Refuse parts whose unconstrained numbers are no coordinates of the whole space.

    The default bijectors of simplices, spheres and correlation matrices have fewer numbers than the
    part has entries: the density's own measure is then another than the Jacobian's. Where the
    counts agree, an injective map covers an open set, and the Jacobian is that of Lebesgue measure.
    """
    for name, shape, free in zip(
        model.latents, _values(model, model._structure), free_shapes, strict=True
    ):
        size, count = int(np.prod(shape)), int(np.prod(free))
        if size != count:
            raise ValueError(
                f"latent part {name!r} has {size} entries but {count} free numbers: it lies on a "
                f"surface, where density and Jacobian may have different measures. Write it as a "
                f"transform of unconstrained parts, such as tf.nn.softmax of a normal part."
            )
    numbers = _probe_numbers(model, 7, 1)
    with users_code("the model's default bijector", TRANSFORM):
        again = model.unconstrain(_copies(model.constrain(numbers)[0]))
        again = model.unconstrain(_copies(model.constrain(again)[0]))
    if not np.allclose(again, numbers, rtol=1e-2, atol=1e-2):
        raise ValueError(
            f"the default bijector of {', '.join(model.latents)} must be one to one, but draws do "
            f"not come back from it. {TRANSFORM}"
        )


def _copies(parts):
    """Tensors that TFP's bijectors, which remember what they were applied to, do not know."""
    return {name: tf.constant(value.numpy()) for name, value in parts.items()}


def _probe_numbers(model, draws, data):
    values = np.random.default_rng(0).normal(size=[draws, data, model.num_numbers])
    return tf.constant(values, model._dtype)


def shapes(model, example):
    """Refuse a joint distribution whose densities are not [draws, data], or mix draws or data.

    Counts of draws and data that occur in no event shape keep broadcasting from hiding it; a single
    datum is what a plate without an axis of its own takes for one.
    """
    _products(model, example)
    taken = {*np.shape(example), *(size for shape in model._free_shapes for size in shape)}
    taken |= {size for shape in _values(model, model._structure) for size in shape}
    draws, data = [prime for prime in _PRIMES if prime not in taken][:2]
    for count in (1, data):
        x = np.broadcast_to(example, [count, *np.shape(example)])
        parts, _ = model.constrain(_probe_numbers(model, draws, count))
        with users_code(f"the model at {draws} draws of {count} data", _SHAPES):
            terms = model.log_terms(parts, x)
            total = model.log_joint(parts, x).numpy()
            last = {name: value[-1:, -1:] for name, value in parts.items()}
            alone = model.log_joint(last, x[-1:]).numpy()
        for name, term in terms.items():
            if term.shape != (draws, count):
                raise ValueError(
                    f"ln p of part {name!r} has shape {term.shape} for {draws} draws and {count} "
                    f"datum/data. {_SHAPES}"
                )
        if total.shape != (draws, count) or alone.shape != (1, 1):
            raise ValueError(f"ln p(x, z) has shape {total.shape}. {_SHAPES}")
        if np.isfinite(alone).all() and not np.allclose(
            alone, total[-1:, -1:], rtol=1e-3, atol=1e-3
        ):
            raise ValueError(
                f"ln p(x, z) of one draw is {float(alone[0, 0]):.6g} alone, but "
                f"{float(total[-1, -1]):.6g} beside others: draws or data are mixed. {_SHAPES}"
            )


def _products(model, example):
    """Refuse products that TensorFlow gets wrong, before one is run."""
    x = np.broadcast_to(example, [2, *np.shape(example)])
    with users_code("the model at 2 draws of 2 data", _SHAPES):
        fault = faulty_product(
            lambda numbers: model.log_joint(model.constrain(numbers)[0], x),
            _probe_numbers(model, 2, 2),
        )
    if fault:
        raise ValueError(f"the model {fault}")


# --- densities ------------------------------------------------------------------------------------


def part_shapes(model, parts, draws, data):
    """Refuse draws of q whose shape is not [draws, data, *event] of the model's part."""
    for name, event in zip(model.latents, _values(model, model._structure), strict=True):
        expected = (draws, data, *event)
        if tuple(parts[name].shape) != expected:
            raise ValueError(
                f"the posterior must draw {name!r} with shape [draws, data, *event] = {expected}, "
                f"but drew {tuple(parts[name].shape)}. Give it the event shape of the model's "
                f"part, with tfd.Independent or tfd.Sample where that has axes."
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
        at = ", ".join(f"{name} = {_short(value[draw, datum])}" for name, value in draws.items())
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


def _short(value):
    return np.array2string(np.asarray(value), precision=3, threshold=3)


def rounding(parts, log_q, terms, where):
    """Refuse densities whose rounding could be seen in a gap; warn where it is near.

    A density of size |ln p| is rounded by eps |ln p|, and a draw z by eps |z|, which moves ln q by
    about that over the standard deviation of q.
    """
    eps = np.finfo(np.asarray(log_q).dtype).eps
    largest = max(np.abs(np.asarray(term)).max() for term in (log_q, *terms.values()))
    size, cause = eps * float(largest), f"log densities of {largest:.2g} nats"
    for name, value in parts.items():
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


def known_evidence(evidence, bounds, errors, num_data, rounded):
    """`evidence` as float64 [data]; refuse another length, or one below the ELBO."""
    values = real_array(evidence, "evidence").astype(np.float64)
    if values.shape != (num_data,) and (num_data > 1 or values.shape != ()):
        raise ValueError(
            f"evidence must be one number for each of {num_data} data, but has shape "
            f"{values.shape}. Give ln p(x) of each datum, in the order of the data."
        )
    values = values.reshape(num_data)
    if not np.isfinite(values).all():
        raise ValueError("evidence must be finite. Leave out the data for which it is not known.")
    for name in [name for name in bounds if name.startswith("ELBO")]:
        excess = bounds[name] - values
        limit = 5 * errors[name] + 1e-3 + rounded
        whole = 5 * np.sqrt(np.sum(errors[name] ** 2)) / num_data + 1e-3 + rounded
        if np.any(excess > limit) or excess.mean() > whole:
            worst = int(np.argmax(excess - limit))
            raise ValueError(
                f"evidence must not be below a lower bound, but that of datum {worst} is "
                f"{values[worst]:.6g} and its {name} {bounds[name][worst]:.6g} ± "
                f"{errors[name][worst]:.2g}. Look for a term left out of ln p(x), or for an order "
                f"of the data that differs."
            )
    return values
