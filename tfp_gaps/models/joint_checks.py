"""What a joint distribution and data must be for `tfp_gaps.measure` to give a number.

A bound on ln p(x) is one only if densities have the shape [draws, data], if the Jacobian belongs to
the measure of the density, and if rounding is small against the gap. What cannot be told apart from
a wrong number is refused here.
"""

import contextlib
import warnings

import numpy as np

from tfp_gaps._tensorflow import faulty_product, tf, tfp
from tfp_gaps.models import coordinates, supports
from tfp_gaps.models.observations import num_data, real_array

tfd = tfp.distributions

_PRIMES = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)
_LARGEST_ROUNDING, _NOTABLE_ROUNDING = 0.1, 0.01  # nats
_NUM_DRAWS, _NUM_CHECKED, _NUM_ALONE = 4000, 8, 5
_NUM_TRIED, _NUMBERS_AT_ONCE = 2, 2**20
_MOST = 4_000_000
"""Numbers that a check holds at once."""
_ENDS = np.float64([[[-8.0]], [[-3.0]], [[3.0]], [[8.0]]])  # unconstrained numbers
_STEPS = np.outer(np.geomspace(0.03, 30.0, 25), [-1.0, 1.0]).ravel()
"""Changes of an observed value, in standard deviations."""

_SHAPES = (
    "Densities must have the shape [draws, data]: use an AutoBatched joint distribution, or "
    "tfd.Independent or tfd.Sample for plates and a trailing axis ([..., tf.newaxis]) for what a "
    "plate shares."
)

TRANSFORM = "Write the part as a transform of unconstrained ones, such as tf.exp of a normal part."
SAMPLE = "Sample the joint distribution alone until it works."
_SUPPORT = "Look for data that the observed distribution does not allow."
NESTED = "Use an AutoBatched class for the joint distributions inside as for the outer one."
SUPPORT = "Give the example, and data, only values that the observed distribution can have."
LIKELIHOOD = (
    "It must give [draws, data] for z [draws, data, *event], or a scalar for one draw and datum."
)


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
        advice = SUPPORT if _is_support(error) else advice
        raise ValueError(f"{what} could not be evaluated ({_found(error)}). {advice}") from error


@contextlib.contextmanager
def supported(what):
    """Say in one sentence that TensorFlow refuses a value, which it does without a density."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        if not _is_support(error):
            raise
        raise ValueError(f"{what} could not be evaluated ({_found(error)}). {SUPPORT}") from error


def _is_support(error):
    return "outside the valid range" in str(error)


def _found(error):
    """The kind of an error and the sentence that says what was wrong."""
    text = str(error).strip().splitlines() or [""]
    line = text[0]
    if line.startswith("in user code"):  # AutoGraph puts the message last, behind a traceback
        line = text[-1]
    elif line.startswith("Graph execution error"):  # so do graphs, before the name of an operation
        line = [line, *(row for row in text[1:] if row.strip() and not row[0].isspace())][-1]
    line = line.partition("Label values:")[0].strip()
    return f"{type(error).__name__}: {line[:200]}".rstrip(" .:")


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


def _events(model):
    return model._parts.by_name(model._structure)


def support(model):
    """Refuse parts whose unconstrained numbers are no coordinates of the measure of the density.

    Where there are as many numbers as entries, an injective map covers an open set, and the
    Jacobian is that of Lebesgue measure. A part with fewer numbers lies on a surface: its density
    must be one that `coordinates` knows, or integrate to one over the numbers.
    """
    free = dict(zip(model._parts.flat, model._free_shapes, strict=True))
    for name, shape in _events(model).items():
        size, count = int(np.prod(shape)), int(np.prod(free[name]))
        if size != count:
            _surface(name, model._density.made.get(name), size, count)
    numbers = _probe_numbers(model, 7, 1)
    with users_code("the model's default bijector", TRANSFORM):
        again = model.unconstrain(_copies(model.constrain(numbers)[0]))
        again = model.unconstrain(_copies(model.constrain(again)[0]))
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
    for name, event in _events(model).items():
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
    parts, _ = model.constrain(_probe_numbers(model, draws, data))
    return parts, next(iter(x.values())) if observations.is_single else x


def _copies(parts):
    """Tensors that TFP's bijectors, which remember what they were applied to, do not know."""
    return {name: tf.constant(value.numpy()) for name, value in parts.items()}


def _probe_numbers(model, draws, data):
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
    taken |= {size for shape in _events(model).values() for size in shape}
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


# --- data -----------------------------------------------------------------------------------------


def data(model, x):
    """Refuse data outside of the support of an observed part, to which TFP gives a density.

    A support may depend on other parts, so that some are drawn for each datum. Where there is no
    density at them, nothing is said.

    Returns:
      Whether the model has distributions that give a density to such data.
    """
    density, rows = model._density, max(1, _NUMBERS_AT_ONCE // model.size)
    limited, doubts = False, ""
    for first in range(0, model.num_data(x), rows):
        given = density.observations.by_name(model.select(x, slice(first, first + rows)))
        count = len(next(iter(given.values())))
        parts, _ = model.constrain(_probe_numbers(model, _NUM_TRIED, count))

        def evaluate(parts=parts, given=given):
            with users_code("ln p of the data", _SUPPORT):
                terms = density.all_terms(parts, given)
                return np.stack([terms[name].numpy() for name in given])

        def first_outside(outside, given=given, first=first):
            part, _, datum = np.argwhere(outside)[0]
            name = list(given)[part]
            return f"datum {first + datum} of {name!r} is {_short(given[name][datum])}"

        limited, doubtful = supports.check(evaluate, "data", first_outside)
        doubts = doubts or doubtful
    if doubts:
        warnings.warn(doubts, RuntimeWarning, stacklevel=4)
    return limited


def same_support(model, x):
    """Refuse data at which a latent part has another support than at the example.

    The unconstrained numbers are those of the example. What one bijector gives near the ends of
    its range must be in the range of the other; they may differ otherwise.
    """
    density = model._density
    if not density.is_conditional:
        return
    numbers = np.concatenate([np.repeat(_ENDS, model.num_numbers, -1), _probe_numbers(model, 4, 1)])
    free, at_example = model._free(tf.constant(numbers, model._dtype)), density.bijector

    def agrees(row):
        at_datum = density.bijector_at(row)
        return tf.logical_and(
            _reaches(at_example, at_datum.forward(free), at_datum),
            _reaches(at_datum, at_example.forward(free), at_example),
        )

    rows = {name: tf.constant(value) for name, value in density.observations.by_name(x).items()}
    with users_code("the default bijector at the data", TRANSFORM), coordinates.measured():
        found = tf.vectorized_map(agrees, rows).numpy()
    if not found.all():
        datum, part = np.argwhere(~found)[0]
        raise ValueError(
            f"latent part {model._parts.flat[part]!r} must have the same support for all data, but "
            f"that at datum {datum} is not that at the example: unconstrained numbers would not "
            f"reach all of it. Write it as a transform of a part whose support is fixed, such as "
            f"u * a with a between 0 and 1."
        )


def _reaches(bijector, values, own):
    """Whether values [draws, 1, *event] are in a bijector's range, bool [arrays].

    Values that the bijector which made them, `own`, does not give again are lost to rounding.
    """
    found = _gives_again(bijector, values) | ~_gives_again(own, values)
    return tf.reduce_all(found, 0)


def _gives_again(bijector, values):
    """Whether values are those of their own unconstrained numbers, bool [draws, arrays]."""

    def unknown(values):  # to the bijector, which remembers tensors
        return tf.nest.map_structure(tf.identity, values)

    again = bijector.forward(unknown(bijector.inverse(unknown(values))))
    columns = []
    for one, other in zip(tf.nest.flatten(again), tf.nest.flatten(values), strict=True):
        rest = list(range(1, other.shape.rank))
        limit = 1e-2 * (1e-3 + tf.reduce_max(tf.abs(other), rest))
        columns.append(tf.reduce_max(tf.abs(one - other), rest) <= limit)
    return tf.stack(columns, -1)


# --- densities ------------------------------------------------------------------------------------


def part_shapes(model, parts, draws, data):
    """Refuse draws of q whose shape is not [draws, data, *event] of the model's part."""
    for name, event in _events(model).items():
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
    numbers = _copies({"": model.unconstrain(parts)})[""]
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


def _varying(model, parts):
    """Parts, those on surfaces as unconstrained numbers."""
    sizes = {name: int(np.prod(shape)) for name, shape in _events(model).items()}
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
