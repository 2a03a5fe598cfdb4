"""A model that somebody brings, with what is observed of it.

    ln p(x, z),   x the observed parts, z the others

Bounds need its density at draws [draws, data], and, where parts are constrained, the same on
unconstrained numbers: there the density changes by the Jacobian, the bounds do not. What cannot
give a right number is refused by `joint_checks`, `data_checks` and `density_checks`.
"""

import numpy as np

from tfp_gaps import _checks
from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.models import coordinates, data_checks, density_checks, joint_checks, observations
from tfp_gaps.models.densities import JointDensity, LikelihoodDensity, sample
from tfp_gaps.models.parts import by_name
from tfp_gaps.models.users_code import TRANSFORM, users_code

tfd = tfp.distributions


class Model:
    """A joint distribution, some parts of which are observed.

    Latent parts may be constrained (positive, a simplex, a covariance or correlation, but no
    sphere) and nested: arrays of a joint distribution `z` inside have the names `z.a`. Discrete
    ones with at most 128 values together are summed out exactly, and q covers the others alone.

    Args:
      joint: `tfd.JointDistribution*` of one datum, whose parts have names. It must accept two
        leading axes, [draws, data]: the AutoBatched classes do; others do if their batch shape is
        empty and their parts broadcast.
      observed: name of the observed part, or several; x is then {name: [data, *event]}.
      example: a value of the observed part of one datum, from which the shapes are read, or
        {name: value} of several parts.
      missing: "marginalise" to take NaN for values that are missing, which products, mixtures and
        hidden Markov models of scalar distributions allow.

    Raises:
      ValueError: for a name that the joint distribution does not have, no part beside it, an
        example of another shape than a draw, latent parts that are discrete with many values or on
        a surface without coordinates, densities whose shape is not [draws, data], and missing
        values that the density cannot leave out.

    >>> normal = tfd.JointDistributionNamedAutoBatched(
    ...     {"z": tfd.Normal(0.0, 1.0), "x": lambda z: tfd.Normal(z, 1.0)})
    >>> model = Model(normal, "x", example=0.3)
    >>> model.latents, model.num_numbers
    (('z',), 1)
    """

    def __init__(self, joint, observed, *, example, missing=None):
        with coordinates.measured():
            self._prepare(JointDensity(joint, observed, example, missing))

    @classmethod
    def from_log_density(cls, prior, log_likelihood=None, *, example=None):
        """A model of a prior and a log likelihood, or of an unnormalised log density alone.

        Args:
          prior: `tfd.Distribution` or `tfd.JointDistribution*` without batch shape; or a target as
            in inference_gym or a pinned joint distribution: `event_shape`, `dtype`,
            `unnormalized_log_prob` and a default event-space bijector.
          log_likelihood: z -> ln p(x | z) of data that it holds; with an example, (z, x) -> the
            same. z has the structure of the prior. Given z [draws, data, *event] and x [draws,
            data, *event], it returns [draws, data]; one that handles a single z and x only, and
            returns a scalar, is mapped over both by `tf.vectorized_map`.
          example: a value of x of one datum, or {name: value}; None if the likelihood holds its
            data, which are then one datum: `tfp_gaps.measure(model, q, None, seed=0)`.

        Returns:
          `Model`, which cannot `simulate`. The arrays of a prior that is no joint distribution are
          named after its structure, a single one "z".

        Raises:
          ValueError: as `Model`, and where neither form of the likelihood gives a number.

        >>> model = Model.from_log_density(
        ...     tfd.Normal(0.0, 1.0), lambda z, x: -0.5 * (x - z) ** 2, example=0.0)
        >>> model.log_joint({"z": tf.zeros([3, 2])}, model.data([0.0, 1.0])).shape
        TensorShape([3, 2])
        """
        model = cls.__new__(cls)
        with coordinates.measured():
            model._prepare(LikelihoodDensity(prior, log_likelihood, example))
        return model

    def _prepare(self, density):
        self._density, self._parts = density, density.parts
        self._bijector, self._structure = density.bijector, density.parts.structure
        self.joint, self.latents = density.joint, density.parts.names
        self.observed = density.observed[0] if len(density.observed) == 1 else density.observed
        self.dtype = self._dtype = joint_checks.one_dtype(density)
        with users_code("the default bijector", TRANSFORM):
            free = self._bijector.inverse_event_shape(self._structure)
        self._free_shapes = [shape.as_list() for shape in tf.nest.flatten(free)]
        self.num_numbers = sum(int(np.prod(shape)) for shape in self._free_shapes)
        joint_checks.prepared(self)
        # What a log likelihood allows is its author's to say.
        self._limits_data = hasattr(density, "all_terms")

    def __repr__(self):
        examples = self._density.observations.example
        observed = ", ".join(f"{name} {list(value.shape)}" for name, value in examples.items())
        return (
            f"Model(observed {observed}, latent {', '.join(self.latents)}; {self.num_numbers} "
            f"unconstrained numbers of {tf.as_dtype(self.dtype).name})"
        )

    def data(self, x):
        """`x` with one leading axis over data, checked: [data, *event], or {name: the same}.

        Raises:
          ValueError: for another shape, no data, values that are not finite, not real, masked, or
            not held by the dtype of the model, and for values outside of the support of an observed
            distribution, where TFP gives a density to them.

        Warns:
          RuntimeWarning: for means of binary values in their place, and angles beyond a full turn.
        """
        x = self._density.observations.data(x)
        if self._limits_data:
            with coordinates.measured():
                self._limits_data = data_checks.inside(self, x)
        return x

    @property
    def size(self):
        """Numbers of one datum in one draw: the latent ones and the observed values."""
        return self.num_numbers + sum(v.size for v in self._density.observations.example.values())

    def named(self, x):
        """{name: values} of data in either form, as `data` returns them."""
        return self._density.observations.by_name(x)

    def num_data(self, x):
        """Number of data in x, as `data` returns it."""
        return observations.num_data(x)

    def select(self, x, indices):
        """Some of the data, in the same form: indices of the first axis."""
        return observations.select(x, indices)

    def log_joint(self, parts, x):
        """ln p(x, z) for parts {name: [draws, data, *event]} and x [data, *event]."""
        with coordinates.measured():
            return self._density.log_prob(parts, self._density.observations.by_name(x))

    def log_terms(self, parts, x):
        """ln p of each part, {name: float [draws, data]}, whose sum is `log_joint`."""
        with coordinates.measured():
            terms = self._density.terms(parts, self._density.observations.by_name(x))
        return {name: term.numpy() for name, term in terms.items()}

    def constrain(self, numbers):
        """Turn unconstrained numbers into parts.

        Args:
          numbers: [draws, data, num_numbers].

        Returns:
          parts: {name: [draws, data, *event]}.
          log_det: logarithm of the Jacobian determinant, [draws, data].
        """
        free = self._free(numbers)
        ranks = [len(shape) for shape in self._free_shapes]
        with coordinates.measured():
            log_det = self._bijector.forward_log_det_jacobian(
                free, event_ndims=tf.nest.pack_sequence_as(self._structure, ranks)
            )
            return self._parts.by_name(self._bijector.forward(free)), log_det

    def _free(self, numbers):
        """Unconstrained numbers in the structure of the bijector."""
        sizes = [int(np.prod(shape)) for shape in self._free_shapes]
        leading = tf.shape(numbers)[:2]
        flat = [
            tf.reshape(piece, tf.concat([leading, tf.constant(shape, tf.int32)], 0))
            for piece, shape in zip(tf.split(numbers, sizes, -1), self._free_shapes, strict=True)
        ]
        return tf.nest.pack_sequence_as(self._structure, flat)

    def unconstrain(self, parts):
        """Turn parts {name: [draws, data, *event]} into numbers [draws, data, num_numbers]."""
        with coordinates.measured():
            flat = tf.nest.flatten(self._bijector.inverse(self._parts.pack(parts)))
        leading = tf.shape(flat[0])[:2]
        rows = [tf.reshape(value, tf.concat([leading, [-1]], 0)) for value in flat]
        return tf.concat(rows, -1)

    def simulate(self, num_data, *, seed):
        """Draw data with the latents that made them: (parts {name: [1, data, ...]}, x)."""
        _checks.seed(seed)
        with coordinates.measured():
            parts, x = self._density.simulate(num_data, seed)
        return parts, x[self.observed] if isinstance(self.observed, str) else x

    @property
    def has_prior(self):
        """Whether z can be drawn without x, and p(z) and p(x | z) are known apart."""
        return self._density.has_prior

    def draw_prior(self, num_draws, *, seed):
        """Draws of p(z), {name: [1, draws, *event]}, where the model has one."""
        with coordinates.measured():
            return self._density.draw_prior(num_draws, seed)

    def log_prior_and_likelihood(self, parts, x):
        """ln p(z) and ln p(x | z), float [draws, data] each, for parts and x as in `log_joint`."""
        with coordinates.measured():
            found = self._density.split(parts, self._density.observations.by_name(x))
        return tuple(term.numpy() for term in found)

    def draw(self, posterior, x, num_samples, seed):
        """Draw from q: parts {name: [draws, data, ...]} and ln q, [draws, data].

        Raises:
          ValueError: if q has other parts than the model, or no number for each datum, or a density
            that is too small at its own draws.
        """
        with coordinates.measured():
            # Surrogates with deferred parameters are callable in name only.
            q = posterior if hasattr(posterior, "log_prob") else posterior(x)
            drawn = sample(q, num_samples, seed)
            log_q = q.log_prob(drawn)
        count = len(tf.nest.flatten(drawn))
        if count != len(self.latents):
            raise ValueError(
                f"the posterior must draw the latent part(s) {', '.join(self.latents)}, but its "
                f"draws have {count} part(s). Build it over the joint distribution's latents."
            )
        parts = self._drawn_parts(drawn)
        num_data = self.num_data(x)
        if log_q.shape.rank == 1:  # a surrogate without a data axis
            parts = {name: value[:, tf.newaxis] for name, value in parts.items()}
            log_q = log_q[:, tf.newaxis]
        if tuple(log_q.shape) != (num_samples, num_data):
            raise ValueError(
                f"the posterior must have one distribution for each of {num_data} data, but its "
                f"densities have shape {tuple(log_q.shape)} for {num_samples} draws. Return a "
                f"batch of distributions, one for each row of the data."
            )
        density_checks.part_shapes(self, parts, num_samples, num_data)
        density_checks.normalised(self, parts, log_q)
        return parts, log_q

    def _drawn_parts(self, drawn):
        """{name: array} of a draw of q, whose parts may be in a plain list or nested."""
        if len(self.latents) == 1 and not isinstance(drawn, dict) and not hasattr(drawn, "_fields"):
            return {self.latents[0]: tf.nest.flatten(drawn)[0]}
        top = self._parts.top if isinstance(drawn, list | tuple) else ()
        if isinstance(drawn, list | tuple) and len(drawn) == len(self.latents):
            top = self.latents
        parts = by_name(drawn, top if not top or len(top) == len(drawn) else ())
        if set(parts) != set(self.latents):
            wrong = [name for name in parts if name not in self.latents]
            meant = " ".join(filter(None, (_checks.meant(name, self.latents) for name in wrong)))
            raise ValueError(
                f"the posterior must draw {', '.join(self.latents)}, but draws {', '.join(parts)}. "
                f"{meant or 'Name its parts as the joint distribution does.'}"
            )
        return {name: parts[name] for name in self.latents}
