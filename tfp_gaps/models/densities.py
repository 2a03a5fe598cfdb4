"""Densities of a model, from a joint distribution or from a prior and a likelihood.

    ln p(x, z) = sum over parts,    or    ln p(z) + ln p(x | z)

Both take parts {name: [draws, data, *event]} and x {name: [data, *event]}, and say what is latent:
its structure, dtypes and bijector to unconstrained numbers.
"""

import contextlib
import warnings

import numpy as np

from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.models import coordinates, discrete, joint_checks, missing, observations
from tfp_gaps.models.parts import Parts, by_name, entries, names
from tfp_gaps.models.users_code import LIKELIHOOD, NESTED, SAMPLE, TRANSFORM, users_code

tfd, tfb = tfp.distributions, tfp.bijectors


def sample(distribution, shape, seed):
    """Draw the same whenever it is asked: TFP takes an int for a seed that counts its uses.

    Joint distributions that batch automatically warn that such draws are made one by one.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Saw Tensor seed")
        return distribution.sample(shape, seed=tf.constant([seed, 0], tf.int32))


def tiled(x, draws):
    """x [data, *event] for each draw."""
    x = tf.convert_to_tensor(x)
    return tf.broadcast_to(x, tf.concat([[draws], tf.shape(x)], 0))


def _num_draws(parts):
    return tf.shape(tf.nest.flatten(parts)[0])[0]


def _made(distribution, top, given=()):
    """{dotted name: distribution} of one draw of a joint distribution; of others, themselves.

    Args:
      distribution: `tfd.Distribution`.
      top: names of its parts.
      given: {name: value} of parts that are not drawn.
    """
    if not isinstance(distribution, tfd.JointDistribution):
        return {top[0]: distribution}
    with users_code("a draw of the model", SAMPLE):
        made = entries(distribution.sample_distributions(seed=(0, 0), **dict(given))[0], top)
    found = {}
    for name, part in made.items():
        inner = isinstance(part, tfd.JointDistribution)
        below = _made(part, tuple(part._flat_resolve_names())) if inner else {"": part}
        found.update({f"{name}.{key}".rstrip("."): value for key, value in below.items()})
    return found


class JointDensity:
    """A joint distribution with some parts observed.

    Args:
      joint: `tfd.JointDistribution*`.
      observed: one name or several.
      example: value of the observed part, or {name: value}.
      missing: None, or "marginalise".
    """

    def __init__(self, joint, observed, example, missing):
        joint_checks.joint(joint)
        self.joint = joint
        # In the order of the model; TFP resolves the names of all kinds of joint distributions.
        self.names = tuple(joint._flat_resolve_names())
        self.observed = observations.observed_names(observed, self.names)
        latents = tuple(name for name in self.names if name not in self.observed)
        if not latents:
            raise ValueError(
                f"the joint distribution must have a latent part beside "
                f"{', '.join(map(repr, self.observed))}, but has none."
            )
        self.missing = joint_checks.missing(missing)
        self.observations = observations.Observations(
            example, self._observed_dtypes(), missing=self.missing
        )
        self.made = _made(joint, self.names)
        self._check_examples()
        supports = {
            name: discrete.support(self.made[name]) for name in latents if name in self.made
        }
        self.sum = discrete.Sum({k: v for k, v in supports.items() if v is not None})
        self._pin(tuple(name for name in latents if name not in self.sum.names))

    def _observed_dtypes(self):
        with users_code("the model", SAMPLE):
            dtypes = entries(self.joint.dtype, self.names)
        for name in self.observed:
            if tf.nest.is_nested(dtypes[name]):
                raise ValueError(
                    f"observed parts must be arrays, but {name!r} is a joint distribution of its "
                    f"own. Write its parts into the outer one."
                )
        return {name: tf.as_dtype(dtypes[name]).as_numpy_dtype for name in self.observed}

    def _check_examples(self):
        """Refuse values of another shape than a draw has, which densities would broadcast."""
        example = {name: tf.constant(value) for name, value in self.observations.example.items()}
        for name, value in example.items():
            shapes = self._draw_shapes(self.made[name])
            if not any(shape.is_compatible_with(value.shape) for shape in shapes):
                # The sizes may follow from other observed parts.
                others = {other: example[other] for other in example if other != name}
                shapes = self._draw_shapes(_made(self.joint, self.names, others)[name])
                joint_checks.example_shape(name, tuple(value.shape), shapes)

    def _draw_shapes(self, distribution):
        """Of a value of one draw: with the batch shape where that is a plate, and where it is not,
        as the event alone too; whether it can be none is seen by the densities."""
        event, batch = distribution.event_shape, distribution.batch_shape
        shapes = [batch.concatenate(event)]
        return shapes if self.joint.use_vectorized_map else [event, *shapes]

    def _pin(self, latents):
        joint_checks.some_continuous(latents, self.sum.names)
        example = {name: tf.constant(value) for name, value in self.observations.example.items()}
        advice = NESTED if self._has_inner() else SAMPLE
        with users_code("the model", advice):
            pinned = self._pinned(example)
            self.parts = Parts(pinned.event_shape, latents)
            self.dtypes = by_name(pinned.dtype, latents)
        joint_checks.latents(self)
        with users_code("the default bijector", TRANSFORM):
            self.bijector = pinned.experimental_default_event_space_bijector()

    def _pinned(self, x):
        """What is left of the joint distribution for q, at x of one datum."""
        discrete = {name: tf.constant(values[0]) for name, values in self.sum.values.items()}
        return self.joint.experimental_pin(**x, **discrete)

    def bijector_at(self, x):
        """The default bijector at x of one datum, {name: tensor [*event]}."""
        return self._pinned(x).experimental_default_event_space_bijector()

    def _has_inner(self):
        return any(map(tf.nest.is_nested, entries(self.joint.dtype, self.names).values()))

    def _values(self, parts, x):
        x = {name: tiled(value, _num_draws(parts)) for name, value in x.items()}
        both = {**self.parts.keywords(parts), **x}
        return self.sum.spread(both) if self.sum.names else both

    def log_prob(self, parts, x):
        """ln p(x, z), [draws, data]."""
        with self._consent():
            found = self.joint.log_prob(**self._values(parts, x))
            found = self.sum.total(found) if self.sum.names else found
        return missing.where_finite(parts, found) if self.missing else found

    def terms(self, parts, x):
        """{name: ln p of the part, [draws, data]}; one for all where discrete parts are summed."""
        if self.sum.names:
            return {", ".join(self.names): self.log_prob(parts, x)}
        return self.all_terms(parts, x)

    def all_terms(self, parts, x):
        """{name: ln p of the part}, for each value of discrete parts, [values * draws, data]."""
        with self._consent():
            return entries(self.joint.log_prob_parts(**self._values(parts, x)), self.names)

    @property
    def is_conditional(self):
        """Whether some z comes after some x, on which it may depend."""
        return bool(set(self.names[: -len(self.observed)]) & set(self.observed))

    @property
    def has_prior(self):
        """Whether p(z) stands apart from p(x | z): nothing is summed, and no z comes after x."""
        return not self.sum.names and not self.is_conditional

    def draw_prior(self, num_draws, seed):
        """Draws of z, {name: [1, draws, *event]}."""
        return self.simulate(num_draws, seed)[0]

    def split(self, parts, x):
        """ln p(z) and ln p(x | z), [draws, data] each."""
        terms = self.terms(parts, x)
        return tuple(
            sum(term for name, term in terms.items() if (name in self.observed) is is_observed)
            for is_observed in (False, True)
        )

    def _consent(self):
        return missing.marginalised() if self.missing else contextlib.nullcontext()

    def simulate(self, num_data, seed):
        """(parts {name: [1, data, ...]}, x {name: [data, ...]})."""
        drawn = entries(sample(self.joint, [1, num_data], seed), self.names)
        x = {name: drawn.pop(name)[0].numpy() for name in self.observed}
        return {k: v for k, v in by_name(drawn).items() if k in self.parts.names}, x


class LikelihoodDensity:
    """A prior, or any unnormalised log density, and a log likelihood.

    Args:
      prior: `tfd.Distribution`, or an object with `event_shape`, `dtype`, `unnormalized_log_prob`
        and a default event-space bijector.
      log_likelihood: (z) or, with an example, (z, x) -> [draws, data], or of a single draw and
        datum -> []; z in the structure of the prior. None for nothing.
      example: value of x of one datum, or {name: value}; None if the likelihood holds its data.
    """

    missing = is_conditional = False

    def __init__(self, prior, log_likelihood, example):
        self.joint, self._likelihood = prior, log_likelihood
        self._has_data = example is not None
        self._is_distribution = isinstance(prior, tfd.Distribution)
        joint_checks.target(prior, self._is_distribution, log_likelihood)
        self.observations = observations.Observations(example, self._observed_dtypes(example))
        self.observed, self.sum = tuple(self.observations.example), discrete.Sum({})
        top = self._top()
        self.parts, self.dtypes = Parts(prior.event_shape, top), by_name(prior.dtype, top)
        self.made = _made(prior, top) if self._is_distribution else {}
        joint_checks.latents(self)
        with users_code("the default bijector", TRANSFORM):
            self.bijector = _bijector(prior)
        self._log_prior = prior.log_prob if self._is_distribution else prior.unnormalized_log_prob

    def _top(self):
        if isinstance(self.joint, tfd.JointDistribution):
            return tuple(self.joint._flat_resolve_names())
        shape = self.joint.event_shape
        if not tf.nest.is_nested(shape):
            return ("z",)
        return tuple(dict.fromkeys(name.split(".")[0] for name in names(shape)))

    def _observed_dtypes(self, example):
        """Reals have the dtype of the prior, as TensorFlow wants it; whole numbers their own."""
        dtype = tf.as_dtype(tf.nest.flatten(self.joint.dtype)[0]).as_numpy_dtype
        examples = example if isinstance(example, dict) else {"x": example}
        return {
            name: dtype if np.asarray(value).dtype.kind == "f" else None
            for name, value in examples.items()
        }

    def vectorise(self, parts, x, shape):
        """Map what handles a single draw only; `shape` is that of draws and data of a probe."""
        z = self.parts.pack(parts)
        self._log_prior = _vectorised(self._log_prior, (z,), shape, "the prior")
        if self._likelihood is not None:
            self._likelihood = _vectorised(
                self._likelihood, self._arguments(z, x, shape[0]), shape, "the log likelihood"
            )

    def _arguments(self, z, x, draws):
        if not self._has_data:
            return (z,)
        x = {name: tiled(value, draws) for name, value in x.items()}
        return z, (x["x"] if self.observations.is_single else x)

    def terms(self, parts, x):
        """{"prior" and "likelihood": [draws, data]}."""
        z = self.parts.pack(parts)
        found = {"prior": self._log_prior(z)}
        if self._likelihood is not None:
            with coordinates.as_tfp():
                found["likelihood"] = self._likelihood(*self._arguments(z, x, _num_draws(parts)))
        return found

    def log_prob(self, parts, x):
        """ln p(x, z), [draws, data]."""
        return sum(self.terms(parts, x).values())

    @property
    def has_prior(self):
        """Whether z can be drawn, and something follows from it."""
        return self._is_distribution and self._likelihood is not None

    def draw_prior(self, num_draws, seed):
        """Draws of z, {name: [1, draws, *event]}."""
        return self.parts.by_name(sample(self.joint, [1, num_draws], seed))

    def split(self, parts, x):
        """ln p(z) and ln p(x | z), [draws, data] each."""
        return tuple(self.terms(parts, x).values())

    def simulate(self, num_data, seed):
        """Refused: a likelihood has no sampler."""
        raise ValueError(
            "a model with a log likelihood alone cannot draw data. Write it as a joint "
            "distribution with an observed part."
        )


def _bijector(target):
    if hasattr(target, "experimental_default_event_space_bijector"):
        return target.experimental_default_event_space_bijector()
    bijector = target.default_event_space_bijector
    if not isinstance(bijector, tfb.Bijector) and callable(bijector):
        bijector = bijector()
    return tfb.JointMap(bijector) if tf.nest.is_nested(bijector) else bijector


def _vectorised(function, arguments, shape, what):
    """`function` if it gives one number for each of [draws, data], else its map over both."""
    try:
        if tuple(function(*arguments).shape) == shape:
            return function
    except Exception:  # whatever the user's code raises at a shape that it was not made for
        pass

    def mapped(*arguments):
        leading = tf.shape(tf.nest.flatten(arguments)[0])[:2]
        rows = tf.nest.map_structure(
            lambda value: tf.reshape(value, tf.concat([[-1], tf.shape(value)[2:]], 0)), arguments
        )
        return tf.reshape(tf.vectorized_map(lambda row: function(*row), rows), leading)

    with users_code(what, LIKELIHOOD):
        one = tf.nest.map_structure(lambda value: value[0, 0], arguments)
        found = tf.convert_to_tensor(function(*one))
        if found.shape.rank != 0:
            raise ValueError(f"shape {tuple(found.shape)} of one draw and datum")
        mapped(*arguments)
    return mapped
