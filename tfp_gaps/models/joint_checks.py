"""What a joint distribution must be for `tfp_gaps.measure` to give a number.

A bound on ln p(x) is one only if densities have the shape [draws, data] and if the Jacobian belongs
to the measure of the density. What cannot be told apart from a wrong number is refused, here for
the model, in `data_checks` for its data, and in `density_checks` for densities at draws of q.
"""

import numpy as np

from tfp_gaps._tensorflow import faulty_product, tf, tfp
from tfp_gaps.models import coordinates
from tfp_gaps.models.users_code import TRANSFORM, users_code

tfd = tfp.distributions

_PRIMES = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)
_NUM_DRAWS, _NUM_CHECKED = 4000, 8
_MOST = 4_000_000
"""Numbers that a check holds at once."""
_STEPS = np.outer(np.geomspace(0.03, 30.0, 25), [-1.0, 1.0]).ravel()
"""Changes of an observed value, in standard deviations."""

_SHAPES = (
    "Densities must have the shape [draws, data]: use an AutoBatched joint distribution, or "
    "tfd.Independent or tfd.Sample for plates and a trailing axis ([..., tf.newaxis]) for what a "
    "plate shares."
)


def joint(distribution):
    """Refuse what is no joint distribution of named parts."""
    if not isinstance(distribution, tfd.JointDistribution):
        raise ValueError(
            f"the model must be a tfd.JointDistribution*, but is a {type(distribution).__name__}. "
            f"Put the latent and the observed part into one joint distribution."
        )


def missing(how):
    """Whether NaN is data."""
    if how not in (None, "marginalise"):
        raise ValueError(
            f"missing must be None or 'marginalise', but is {how!r}. Impute missing values "
            f"yourself, or make them latent parts."
        )
    return how is not None


def example_shape(name, found, shapes):
    """Refuse an example whose shape is none of those of a draw, the first of which is said."""
    if not any(shape.is_compatible_with(found) for shape in shapes):
        raise ValueError(
            f"the example of {name!r} must have the shape of one draw of it, {shapes[0]}, but has "
            f"{found}: values would be counted several times, or not at all. Give a value of the "
            f"whole part, or write the part so that it has the shape of the data."
        )


def target(prior, is_distribution, log_likelihood):
    """Refuse what has no density, or a density for each member of a batch."""
    needed = ("event_shape", "dtype", "unnormalized_log_prob")
    if not is_distribution and not all(hasattr(prior, name) for name in needed):
        raise ValueError(
            f"the prior must be a tfd.Distribution or have {', '.join(needed)} and a default "
            f"event-space bijector, but is a {type(prior).__name__}. Write a class with these."
        )
    if is_distribution and any(shape.rank for shape in tf.nest.flatten(prior.batch_shape)):
        raise ValueError(
            f"the prior must be of one datum, but has batch shape {prior.batch_shape}. Use "
            f"tfd.Independent, or an AutoBatched joint distribution."
        )
    if log_likelihood is not None and not callable(log_likelihood):
        raise ValueError(
            f"log_likelihood must be a function, but is a {type(log_likelihood).__name__}. Give "
            f"ln p(x | z), not the distribution of x."
        )


def some_continuous(latents, discrete):
    """Refuse a model in which nothing is left for q."""
    if not latents:
        raise ValueError(
            f"a latent part must be continuous, but all of them ({', '.join(discrete)}) are "
            f"discrete: ln p(x) is a finite sum, and no gap is left to measure."
        )


def latents(density):
    """Refuse latent parts without a known shape, discrete, or without a default bijector."""
    shapes = density.parts.by_name(density.parts.structure)
    for name, shape in shapes.items():
        made, dtype = density.made.get(name), tf.as_dtype(density.dtypes[name])
        if not shape.is_fully_defined():
            raise ValueError(
                f"latent parts must have a known event shape, but that of {name!r} is {shape}. "
                f"Give its distribution the sizes as Python integers."
            )
        if isinstance(made, coordinates.SPHERES):
            raise ValueError(
                f"latent part {name!r} ({type(made).__name__}) lies on a sphere, a surface of "
                f"which TFP has no coordinates. Write it as a normal part over its norm."
            )
        if getattr(made, "input_output_cholesky", False):
            raise ValueError(
                f"latent part {name!r} ({type(made).__name__}) is a Cholesky factor with the "
                f"density of a matrix, another surface. Use tfd.CholeskyLKJ, or "
                f"input_output_cholesky=False."
            )
        if not dtype.is_floating:
            _refuse_part(name, f"has dtype {dtype.name}")
        if made is not None and _part_bijector(made) is None:
            _refuse_part(name, f"({type(made).__name__}) has no default bijector")


def one_dtype(density):
    """The one dtype of all latent parts."""
    found = {name: tf.as_dtype(dtype) for name, dtype in density.dtypes.items()}
    if len(set(found.values())) > 1:
        kinds = ", ".join(f"{name} {dtype.name}" for name, dtype in found.items())
        raise ValueError(
            f"latent parts must have one dtype, but have {kinds}. Use float64 for all of them."
        )
    return next(iter(found.values()))


def _part_bijector(distribution):
    try:
        return distribution.experimental_default_event_space_bijector()
    except (NotImplementedError, AttributeError, TypeError):
        return None


def _refuse_part(name, found):
    raise ValueError(
        f"latent parts must be continuous and have a default bijector, or be discrete with few "
        f"values, but {name!r} {found}. Sum discrete parts out, for instance with "
        f"tfd.MixtureSameFamily or tfd.HiddenMarkovModel as the observed part; write others as "
        f"transforms of normal parts."
    )


def prepared(model):
    """Refuse a model whose unconstrained densities would not be [draws, data], or no densities."""
    support(model)
    shapes(model)
    if hasattr(model._density, "all_terms"):  # of a joint distribution
        _drawn_shapes(model)
        _whole_sums(model)
        _data_measure(model)
        _left_out(model)


def events(model):
    """The event shapes of the latent parts, by name."""
    return model._parts.by_name(model._structure)


def support(model):
    """Refuse parts whose unconstrained numbers are no coordinates of the measure of the density.

    Where there are as many numbers as entries, an injective map covers an open set, and the
    Jacobian is that of Lebesgue measure. A part with fewer numbers lies on a surface: its density
    must be one that `coordinates` knows, or integrate to one over the numbers.
    """
    free = dict(zip(model._parts.flat, model._free_shapes, strict=True))
    for name, shape in events(model).items():
        size, count = int(np.prod(shape)), int(np.prod(free[name]))
        if size != count:
            _surface(name, model._density.made.get(name), size, count)
    numbers = probe_numbers(model, 7, 1)
    with users_code("the model's default bijector", TRANSFORM):
        again = model.unconstrain(copies(model.constrain(numbers)[0]))
        again = model.unconstrain(copies(model.constrain(again)[0]))
    if not np.allclose(again, numbers, rtol=1e-2, atol=1e-2):
        raise ValueError(
            f"the default bijector of {', '.join(model.latents)} must be one to one, but draws do "
            f"not come back from it. {TRANSFORM}"
        )


def _surface(name, distribution, size, count):
    estimate, error = _integral(distribution)
    known = distribution is not None and coordinates.is_known(distribution)
    wrong = abs(estimate - 1) > 5 * error + 0.05
    if wrong or not (known or error < 0.05):
        found = f"integrates to {1 / estimate:.2g}" if wrong else "could not be integrated"
        raise ValueError(
            f"latent part {name!r} has {size} entries but {count} free numbers: it lies on a "
            f"surface, and its density {found} over these numbers. Write it as a transform of "
            f"unconstrained parts, such as tf.nn.softmax of a normal part."
        )


def _integral(distribution):
    """Of the density over unconstrained numbers: (inverse, standard error)."""
    if distribution is None:
        return 1.0, np.inf
    draws = distribution.sample(_NUM_DRAWS, seed=tf.constant([0, 0], tf.int32))
    bijector = _part_bijector(distribution)
    numbers = bijector.inverse(tf.constant(draws.numpy()))
    free = tf.constant(numbers.numpy())
    log_det = bijector.forward_log_det_jacobian(free, event_ndims=free.shape.rank - 1)
    log_density = distribution.log_prob(tf.constant(draws.numpy())) + log_det
    return coordinates.excess(tf.reshape(free, [_NUM_DRAWS, -1]), log_density)


def _drawn_shapes(model):
    """Refuse latent parts whose draws have axes that their densities broadcast away.

    AutoBatched joint distributions take them for axes of the event.
    """
    if model.joint.use_vectorized_map:
        return
    try:
        parts, _ = model._density.simulate(_NUM_CHECKED, 0)
    except Exception:  # whatever the user's code raises, it raises again where draws are needed
        return
    for name, event in events(model).items():
        expected = (1, _NUM_CHECKED, *event)
        if tuple(parts[name].shape) != expected:
            raise ValueError(
                f"latent part {name!r} must be drawn with shape [1, draws, *event] = {expected}, "
                f"but is drawn with {tuple(parts[name].shape)}: its parameters have axes that "
                f"belong to no event. Leave these out, such as 0.0 for [0.0], or use an "
                f"AutoBatched joint distribution."
            )


def _whole_sums(model):
    """Refuse discrete parts whose values were not all found."""
    discrete = model._density.sum
    if not discrete.names:
        return
    parts, x = _probe(model, 2, 3)
    terms = model._density.all_terms(parts, model._density.observations.by_name(x))
    total = np.exp(discrete.total(sum(terms[name] for name in discrete.names)))
    if not np.allclose(total, 1.0, atol=1e-3):
        raise ValueError(
            f"the values of {', '.join(discrete.names)} must have probabilities that sum to one, "
            f"but they sum to {total.flat[0]:.4g}: what they can be depends on other parts. Sum "
            f"them out in the model."
        )


def _data_measure(model):
    """Refuse data on a simplex with the density that TFP gives to its volume: ours would differ."""
    parts, x = _probe(model, 2, 3)
    given = model._density.observations.by_name(x)
    ours = model._density.all_terms(parts, given)
    with coordinates.as_tfp():
        theirs = model._density.all_terms(parts, given)
    for name in given:
        if not np.allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-4, equal_nan=True):
            raise ValueError(
                f"observed part {name!r} must have its density in coordinates, but has one on a "
                f"simplex. Observe log ratios, tfb.SoftmaxCentered().inverse of the data."
            )


def _left_out(model):
    """Refuse missing values where the density cannot leave them out."""
    density = model._density
    if not density.missing:
        return
    parts, given = density.simulate(_NUM_CHECKED, 0)
    if any(value.dtype.kind != "f" for value in given.values()):
        raise ValueError(
            "missing values need data of a floating dtype, which can hold NaN. Give the observed "
            "distribution such a dtype."
        )
    terms = density.all_terms(parts, given)
    for name, value in given.items():
        other = density.all_terms(parts, {**given, name: np.full_like(value, np.nan)})
        some = np.where(np.arange(value[0].size).reshape(value[0].shape) % 2, value, np.nan)
        rest = density.all_terms(parts, {**given, name: some.astype(value.dtype)})
        if not np.allclose(other[name], 0.0, atol=1e-3) or not np.isfinite(rest[name]).all():
            raise ValueError(
                f"observed part {name!r} must be a product, mixture or hidden Markov model of "
                f"scalar distributions to leave missing values out, but gives no density without "
                f"them. Impute them, or make them latent parts."
            )
        for part in set(terms) - {name}:
            if not np.allclose(other[part], terms[part], rtol=1e-4, atol=1e-4):
                _refuse_needed(name, part)
    _rarely_needed(model, parts, given)


def _rarely_needed(model, parts, given):
    """Refuse a part that depends on missing values only where these are rare, such as x > 4.

    What does not depend on x is the same at any x: draws are moved by up to 30 standard deviations.
    """
    density = model._density
    steps = _STEPS[:: max(1, len(_STEPS) * _NUM_CHECKED * model.size // _MOST)]
    parts = tf.nest.map_structure(lambda part: tf.concat([part] * len(steps), 1), parts)
    many = {name: np.concatenate([value] * len(steps)) for name, value in given.items()}
    for name, value in given.items():
        later = density.names[density.names.index(name) + 1 :]
        if not later:
            continue
        spread = np.where(value.std(0) > 0, value.std(0), 1.0)
        moved = np.concatenate([value + step * spread for step in steps]).astype(value.dtype)
        without = density.all_terms(parts, {**many, name: np.full_like(moved, np.nan)})
        try:
            terms = density.all_terms(parts, {**many, name: moved})
        except tf.errors.InvalidArgumentError:
            continue  # x has a smaller range, and the model looks at it
        for part in set(later) & set(terms):
            if not np.allclose(terms[part], without[part], rtol=1e-4, atol=1e-4, equal_nan=True):
                _refuse_needed(name, part)


def _refuse_needed(name, part):
    raise ValueError(
        f"missing values of {name!r} must not be needed by other parts, but {part!r} depends on "
        f"it. Make what is missing a latent part."
    )


def _probe(model, draws, data):
    """Parts and data of a probe: the example, for each of `data`."""

    def repeated(value):
        return np.broadcast_to(value, [data, *value.shape])

    observations = model._density.observations
    x = {name: repeated(value) for name, value in observations.example.items()}
    parts, _ = model.constrain(probe_numbers(model, draws, data))
    return parts, next(iter(x.values())) if observations.is_single else x


def copies(parts):
    """Tensors that TFP's bijectors, which remember what they were applied to, do not know."""
    return {name: tf.constant(value.numpy()) for name, value in parts.items()}


def probe_numbers(model, draws, data):
    """Unconstrained numbers of a look at the model, always the same: [draws, data, numbers]."""
    values = np.random.default_rng(0).normal(size=[draws, data, model.num_numbers])
    return tf.constant(values, model._dtype)


def shapes(model):
    """Refuse densities that are not [draws, data], or mix draws or data.

    Counts of draws and data that occur in no event shape keep broadcasting from hiding it; a single
    datum is what a plate without an axis of its own takes for one.
    """
    _products(model)
    examples = model._density.observations.example.values()
    taken = {size for example in examples for size in example.shape}
    taken |= {size for shape in model._free_shapes for size in shape}
    taken |= {size for shape in events(model).values() for size in shape}
    draws, data = [prime for prime in _PRIMES if prime not in taken][:2]
    if hasattr(model._density, "vectorise"):
        parts, x = _probe(model, draws, data)
        model._density.vectorise(parts, model._density.observations.by_name(x), (draws, data))
    for count in (1, data):
        _check_shapes(model, draws, count)


def _check_shapes(model, draws, count):
    parts, x = _probe(model, draws, count)
    with users_code(f"the model at {draws} draws of {count} data", _SHAPES):
        terms = model.log_terms(parts, x)
        total = model.log_joint(parts, x).numpy()
        last = {name: value[-1:, -1:] for name, value in parts.items()}
        alone = model.log_joint(last, model.select(x, slice(-1, None))).numpy()
    for name, term in terms.items():
        if term.shape != (draws, count):
            raise ValueError(
                f"ln p of part {name!r} has shape {term.shape} for {draws} draws of "
                f"{'a single datum' if count == 1 else f'{count} data'}. {_SHAPES}"
            )
    if total.shape != (draws, count) or alone.shape != (1, 1):
        raise ValueError(f"ln p(x, z) has shape {total.shape}. {_SHAPES}")
    if np.isfinite(alone).all() and not np.allclose(alone, total[-1:, -1:], rtol=1e-3, atol=1e-3):
        raise ValueError(
            f"ln p(x, z) of one draw is {float(alone[0, 0]):.6g} alone, but "
            f"{float(total[-1, -1]):.6g} beside others: draws or data are mixed. {_SHAPES}"
        )


def _products(model):
    """Refuse products that TensorFlow gets wrong, before one is run."""
    parts, x = _probe(model, 2, 2)
    try:
        fault = faulty_product(lambda parts: model.log_joint(parts, x), parts)
    except Exception:  # whatever the user's code raises, it raises again where it is run
        return
    if fault:
        raise ValueError(f"the model {fault}")
