"""A joint distribution that somebody brings, with what is observed of it.

    ln p(x, z),   x the observed part, z the others

Bounds need its density at draws [draws, data], and, where parts are constrained, the same on
unconstrained numbers: there the density changes by the Jacobian, the bounds do not. What cannot
give a right number is refused by `joint_checks`.
"""

import warnings

import numpy as np

from tfp_gaps import _checks
from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.models import joint_checks

tfd = tfp.distributions


class Model:
    """A joint distribution, one part of which is observed.

    Args:
      joint: `tfd.JointDistribution*` of one datum, whose parts have names. It must accept two
        leading axes, [draws, data]: the AutoBatched classes do; others do if their batch shape is
        empty and their parts broadcast.
      observed: name of the observed part.
      example: a value of the observed part of one datum, from which the shapes are read.

    Raises:
      ValueError: for a name that the joint distribution does not have, no part beside it, latent
        parts that are discrete, nested, or on a surface such as the simplex, and densities whose
        shape is not [draws, data].

    >>> normal = tfd.JointDistributionNamedAutoBatched(
    ...     {"z": tfd.Normal(0.0, 1.0), "x": lambda z: tfd.Normal(z, 1.0)})
    >>> model = Model(normal, "x", example=0.3)
    >>> model.latents, model.num_numbers
    (('z',), 1)
    """

    def __init__(self, joint, observed, *, example):
        joint_checks.joint(joint)
        self.joint, self.observed = joint, observed
        # In the order of the model; TFP resolves the names of all kinds of joint distributions.
        self._names = tuple(joint._flat_resolve_names())
        _checks.one_of(observed, "observed part", self._names)
        self.latents = tuple(name for name in self._names if name != observed)
        if not self.latents:
            raise ValueError(
                f"the joint distribution must have a latent part beside {observed!r}, but has none."
            )
        joint_checks.real_array(example, "example")
        example = tf.convert_to_tensor(example)
        dtype = self._by_name(joint.dtype, self._names)[observed]
        joint_checks.same_precision(f"the example of {observed!r}", example.dtype, dtype)
        self._example_shape = tuple(example.shape)
        self._observed_dtype = example.dtype.as_numpy_dtype
        with joint_checks.users_code("the model", "Sample the joint distribution alone first."):
            pinned = joint.experimental_pin(**{observed: example})
            self._structure = pinned.event_shape
        joint_checks.latents(self, pinned)
        with joint_checks.users_code("the default bijector", joint_checks.TRANSFORM):
            self._bijector = pinned.experimental_default_event_space_bijector()
            free = self._bijector.inverse_event_shape(self._structure)
        self._free_shapes = [shape.as_list() for shape in tf.nest.flatten(free)]
        self._dtype = tf.nest.flatten(pinned.dtype)[0]
        self.num_numbers = sum(int(np.prod(shape)) for shape in self._free_shapes)
        free_of = self._by_name(free, self.latents)
        joint_checks.support(self, [free_of[name] for name in self.latents])
        joint_checks.shapes(self, example)

    def __repr__(self):
        latents = ", ".join(self.latents)
        return (
            f"Model(observed {self.observed} {list(self._example_shape)}, latent {latents}; "
            f"{self.num_numbers} unconstrained numbers of {tf.as_dtype(self._dtype).name})"
        )

    def data(self, x):
        """`x` with one leading axis over data, checked: [data, *event].

        Raises:
          ValueError: for another shape, no data, values that are not finite, not real, masked, or
            not held by the dtype of the example.
        """
        x = joint_checks.real_array(x, "data")
        if x.shape == self._example_shape:
            x = x[np.newaxis]
        if x.ndim != len(self._example_shape) + 1 or x.shape[1:] != self._example_shape:
            raise ValueError(
                f"data must have shape [data, *{self._example_shape}], as the example of "
                f"{self.observed!r} has {self._example_shape}, but have shape {x.shape}."
            )
        if not len(x):
            raise ValueError("data must hold at least one datum, but hold none.")
        if not np.isfinite(x).all():
            bad = int(np.sum(~np.isfinite(x)))
            raise ValueError(
                f"data must be finite, but {bad} values are not. Leave these data out, or model "
                f"what is missing."
            )
        return joint_checks.converted(x, self._observed_dtype)

    def log_joint(self, parts, x):
        """ln p(x, z) for parts {name: [draws, data, *event]} and x [data, *event]."""
        return self.joint.log_prob(**parts, **self._tiled(parts, x))

    def log_terms(self, parts, x):
        """ln p of each part, {name: float [draws, data]}, whose sum is `log_joint`."""
        terms = self.joint.log_prob_parts(**parts, **self._tiled(parts, x))
        return {name: term.numpy() for name, term in self._by_name(terms, self._names).items()}

    def _tiled(self, parts, x):
        """{observed: x for each draw}."""
        draws = tf.shape(tf.nest.flatten(parts)[0])[:1]
        x = tf.convert_to_tensor(x)
        return {self.observed: tf.broadcast_to(x, tf.concat([draws, tf.shape(x)], 0))}

    def constrain(self, numbers):
        """Turn unconstrained numbers into parts.

        Args:
          numbers: [draws, data, num_numbers].

        Returns:
          parts: {name: [draws, data, *event]}.
          log_det: logarithm of the Jacobian determinant, [draws, data].
        """
        sizes = [int(np.prod(shape)) for shape in self._free_shapes]
        leading = tf.shape(numbers)[:2]
        flat = [
            tf.reshape(piece, tf.concat([leading, tf.constant(shape, tf.int32)], 0))
            for piece, shape in zip(tf.split(numbers, sizes, -1), self._free_shapes, strict=True)
        ]
        free = tf.nest.pack_sequence_as(self._structure, flat)
        ranks = [len(shape) for shape in self._free_shapes]
        log_det = self._bijector.forward_log_det_jacobian(
            free, event_ndims=tf.nest.pack_sequence_as(self._structure, ranks)
        )
        return self._by_name(self._bijector.forward(free), self.latents), log_det

    def unconstrain(self, parts):
        """Turn parts {name: [draws, data, *event]} into numbers [draws, data, num_numbers]."""
        flat = tf.nest.flatten(self._bijector.inverse(self._structured(parts)))
        leading = tf.shape(flat[0])[:2]
        rows = [tf.reshape(value, tf.concat([leading, [-1]], 0)) for value in flat]
        return tf.concat(rows, -1)

    def simulate(self, num_data, *, seed):
        """Draw data with the latents that made them: (parts {name: [1, data, ...]}, x)."""
        _checks.seed(seed)
        drawn = self._by_name(sample(self.joint, [1, num_data], seed), self._names)
        x = drawn.pop(self.observed)[0]
        return drawn, x.numpy()

    def _by_name(self, structure, names):
        """A structure as TFP returns it, as {name: value}; `names` are those of a plain list."""
        if isinstance(structure, dict):
            return dict(structure)
        if hasattr(structure, "_asdict"):
            return dict(structure._asdict())
        if not isinstance(structure, list | tuple):
            structure = [structure]
        return dict(zip(names, structure, strict=True))

    def _structured(self, parts):
        """The opposite: {name: value} of the latents in the structure of the model."""
        if isinstance(self._structure, dict):
            return {name: parts[name] for name in self._structure}
        if hasattr(self._structure, "_fields"):
            return type(self._structure)(*(parts[name] for name in self._structure._fields))
        return type(self._structure)(parts[name] for name in self.latents)

    def draw(self, posterior, x, num_samples, seed):
        """Draw from q: parts {name: [draws, data, ...]} and ln q, [draws, data].

        Raises:
          ValueError: if q has other parts than the model, or no number for each datum.
        """
        # Surrogates with deferred parameters are callable in name only.
        q = posterior if hasattr(posterior, "log_prob") else posterior(x)
        drawn = sample(q, num_samples, seed)
        log_q = q.log_prob(drawn)
        count = len(drawn) if isinstance(drawn, dict | list | tuple) else 1
        if count != len(self.latents):
            raise ValueError(
                f"the posterior must draw the latent part(s) {', '.join(self.latents)}, but its "
                f"draws have {count} part(s). Build it over the joint distribution's latents."
            )
        parts = self._by_name(drawn, self.latents)
        if set(parts) != set(self.latents):
            wrong = [name for name in parts if name not in self.latents]
            questions = " ".join(filter(None, (_checks.meant(n, self.latents) for n in wrong)))
            raise ValueError(
                f"the posterior must draw {', '.join(self.latents)}, but draws {', '.join(parts)}. "
                f"{questions or 'Name its parts as the joint distribution does.'}"
            )
        if log_q.shape.rank == 1:  # a surrogate without a data axis
            parts = {name: value[:, tf.newaxis] for name, value in parts.items()}
            log_q = log_q[:, tf.newaxis]
        if tuple(log_q.shape) != (num_samples, len(x)):
            raise ValueError(
                f"the posterior must have one distribution for each of {len(x)} data, but its "
                f"densities have shape {tuple(log_q.shape)} for {num_samples} draws. Return a "
                f"batch of distributions, one for each row of the data."
            )
        joint_checks.part_shapes(self, parts, num_samples, len(x))
        return parts, log_q


def sample(distribution, shape, seed):
    """Draw the same whenever it is asked: TFP takes an int for a seed that counts its uses.

    Joint distributions that batch automatically warn that such draws are made one by one.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Saw Tensor seed")
        return distribution.sample(shape, seed=tf.constant([seed, 0], tf.int32))
