"""Variational families: how q(z) is drawn, and with which density, from numbers per datum.

A family turns standard normal noise into latents. What it needs for each datum (means, scales, a
feature that conditions a flow) are `outputs` [rows, batch, num_outputs]; what data share are its
`weights`, each with the leading axis `rows`. One code path thus serves both uses:

* amortised: a row is a replica, its batch are the data, and an encoder gives the outputs;
* per datum: a row is a datum with a batch of one, and outputs and weights are both free.

The families, from the poorest to the richest:

    factorised       z = m + s e
    full covariance  z = m + L e
    affine flow      z = m + s f(e),   f: coupling layers with affine maps (Dinh et al. 2017)
    spline flow      z = m + s f(e),   f: coupling layers with splines (Durkan et al. 2019)
    inverse autoregressive flow        f: each dimension given those before it (Kingma et al. 2016)
    planar flow      z = m + s f(e),   f: maps e + u tanh(w'e + b) (Rezende and Mohamed 2015)
    auxiliary flow   (z, v) = f(m + s e, v_0): affine coupling between z and an auxiliary v
                     (Ranganath et al. 2016, Cremer et al. 2018)

All flows start at the identity, hence at the factorised Gaussian of the same outputs. The density
of the auxiliary flow is that of (z, v); a reverse model r(v | z) makes it comparable:
E[ln p(x, z) + ln r(v | z) - ln q(z, v)] is still a lower bound on the evidence, and `log_density`
is ln q(z, v) - ln r(v | z).
"""

from typing import NamedTuple

from tfp_gaps import _checks
from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.models.vae import standard_normal_log_prob
from tfp_gaps.networks import Dense, linear, split_seeds

tfb = tfp.bijectors

NAMES = (
    "factorised",
    "full covariance",
    "affine flow",
    "spline flow",
    "auxiliary flow",
    "inverse autoregressive flow",
    "planar flow",
)
_SPLINE_RANGE = 6.0
"""Splines act on (-6, 6), in standard deviations of the base; beyond they are the identity."""

_SMALLEST_BIN = 1e-2
_UNIT_SOFTPLUS = 0.5413248546129181
"""Where softplus is one: ln(e - 1)."""


class Draw(NamedTuple):
    """Draws from q.

    latents: [samples, rows, batch, latent].
    log_density: ln q(z), or its stand-in for the auxiliary flow, [samples, rows, batch], nats.
    """

    latents: tf.Tensor
    log_density: tf.Tensor


def make(name, latent_size, **options):
    """Make a family by its name.

    Args:
      name: one of `NAMES`.
      latent_size: dimensions of z.
      **options: of flows: num_steps, num_hidden, context_size, num_bins (spline flow only); a
        Gaussian has none and leaves them aside, and a planar flow has the first alone.

    >>> make("full covariance", 3).num_outputs
    9
    """
    _checks.one_of(name, "family", NAMES)
    _checks.integer(latent_size, "latent_size", minimum=1)
    if name == "factorised":
        return Factorised(latent_size)
    if name == "full covariance":
        return FullCovariance(latent_size)
    if name == "auxiliary flow":
        return AuxiliaryFlow(latent_size, **options)
    if name == "inverse autoregressive flow":
        return InverseAutoregressiveFlow(latent_size, **options)
    if name == "planar flow":
        own = {"num_steps": options["num_steps"]} if "num_steps" in options else {}
        return PlanarFlow(latent_size, **own)
    return CouplingFlow(latent_size, kind=name.split()[0], **options)


class Factorised:
    """N(m, diag s^2); outputs are m and ln s."""

    name = "factorised"

    def __init__(self, latent_size):
        self.latent_size = self.num_noise = latent_size
        self.num_outputs = 2 * latent_size

    def make_weights(self, seeds):
        """Weights that data share: none."""
        return []

    def draw(self, outputs, weights, noise):
        """Draw from q.

        Args:
          outputs: [rows, batch, num_outputs].
          weights: list of tensors [rows, ...], as `make_weights` returns.
          noise: standard normal [samples, rows, batch, num_noise].

        Returns:
          `Draw`.
        """
        mean, log_scale = _moments(self, outputs)
        log_density = standard_normal_log_prob(noise) - tf.reduce_sum(log_scale, -1)
        return Draw(mean + tf.exp(log_scale) * noise, log_density)

    def log_prob(self, outputs, weights, latents):
        """ln q at given latents [samples, rows, batch, latent], nats."""
        mean, log_scale = _moments(self, outputs)
        noise = (latents - mean) * tf.exp(-log_scale)
        return standard_normal_log_prob(noise) - tf.reduce_sum(log_scale, -1)


class FullCovariance:
    """N(m, L L'); outputs are m, ln of L's diagonal, and what lies below it."""

    name = "full covariance"

    def __init__(self, latent_size):
        self.latent_size = self.num_noise = latent_size
        self.num_outputs = 2 * latent_size + latent_size * (latent_size - 1) // 2

    def make_weights(self, seeds):
        """Weights that data share: none."""
        return []

    def draw(self, outputs, weights, noise):
        """As `Factorised.draw`."""
        mean, log_scale = _moments(self, outputs)
        # [rows, batch, latent, samples]: one product per datum, of operands of equal rank.
        columns = tf.transpose(noise, [1, 2, 3, 0])
        moved = tf.transpose(tf.matmul(self._cholesky(outputs), columns), [3, 0, 1, 2])
        log_density = standard_normal_log_prob(noise) - tf.reduce_sum(log_scale, -1)
        return Draw(mean + moved, log_density)

    def log_prob(self, outputs, weights, latents):
        """ln q at given latents [samples, rows, batch, latent], nats."""
        mean, log_scale = _moments(self, outputs)
        columns = tf.transpose(latents - mean, [1, 2, 3, 0])
        noise = tf.linalg.triangular_solve(self._cholesky(outputs), columns)
        log_density = standard_normal_log_prob(tf.transpose(noise, [3, 0, 1, 2]))
        return log_density - tf.reduce_sum(log_scale, -1)

    def _cholesky(self, outputs):
        size = self.latent_size
        diagonal = tf.exp(outputs[..., size : 2 * size])
        if size == 1:
            return diagonal[..., tf.newaxis]
        below = tfp.math.fill_triangular(outputs[..., 2 * size :])
        padding = [[0, 0]] * (outputs.shape.rank - 1)
        below = tf.pad(below, [*padding, [1, 0], [0, 1]])
        return tf.linalg.set_diag(below, diagonal)


class CouplingFlow:
    """m + s f(e), with f a chain of TFP coupling layers; outputs are m, ln s and a context.

    Args:
      latent_size: dimensions of z, two at least.
      kind: "affine" or "spline".
      num_steps: pairs of coupling layers; each pair transforms every dimension once.
      num_hidden: width of the networks inside the layers.
      context_size: numbers per datum that enter these networks.
      num_bins: of the splines.
    """

    def __init__(
        self, latent_size, kind, *, num_steps=2, num_hidden=50, context_size=20, num_bins=8
    ):
        _check_parts("a coupling flow", latent_size)
        self.name = f"{kind} flow"
        self.latent_size = self.num_noise = latent_size
        self.num_outputs = 2 * latent_size + context_size
        self._layers = _CouplingLayers(
            latent_size, latent_size // 2, kind, num_steps, num_hidden, context_size, num_bins
        )

    def make_weights(self, seeds):
        """Weights of the networks inside the layers: list of tf.Variable [rows, ...]."""
        return self._layers.make_weights(seeds)

    def draw(self, outputs, weights, noise):
        """As `Factorised.draw`."""
        mean, log_scale = _moments(self, outputs)
        context = outputs[..., 2 * self.latent_size :]
        moved, log_determinant = self._layers.forward(noise, context, weights)
        log_density = standard_normal_log_prob(noise) - log_determinant
        return Draw(mean + tf.exp(log_scale) * moved, log_density - tf.reduce_sum(log_scale, -1))

    def log_prob(self, outputs, weights, latents):
        """ln q at given latents [samples, rows, batch, latent], nats."""
        mean, log_scale = _moments(self, outputs)
        context = outputs[..., 2 * self.latent_size :]
        moved = (latents - mean) * tf.exp(-log_scale)
        noise, log_determinant = self._layers.inverse(moved, context, weights)
        return standard_normal_log_prob(noise) - log_determinant - tf.reduce_sum(log_scale, -1)


class InverseAutoregressiveFlow:
    """m + s f(e), with f a chain of TFP inverse autoregressive layers, the order reversed between.

    A layer moves every dimension at once, z_i = (e_i - t(e_<i)) s(e_<i); with two dimensions it is
    an affine coupling layer that also shifts and scales the first one. Arguments as in
    `CouplingFlow`; there are two layers for each of `num_steps`.
    """

    name = "inverse autoregressive flow"

    def __init__(self, latent_size, *, num_steps=2, num_hidden=50, context_size=20):
        _check_parts("an autoregressive flow", latent_size)
        _checks.integer(num_steps, "num_steps", minimum=1)
        self.latent_size = self.num_noise = latent_size
        self.num_outputs = 2 * latent_size + context_size
        self._num_layers = 2 * num_steps
        self._conditioner = _Conditioner(latent_size, context_size, num_hidden, 2 * latent_size)
        # A hidden unit of degree k sees the first k dimensions, and is seen by those after them.
        degrees = 1 + tf.range(num_hidden) % (latent_size - 1)
        places = tf.range(latent_size)
        self._sees = tf.cast(places[:, tf.newaxis] < degrees, tf.float32)
        seen = tf.cast(degrees[:, tf.newaxis] <= places, tf.float32)
        self._seen = tf.concat([seen, seen], -1)  # by shifts and by scales

    def make_weights(self, seeds):
        """Weights of the networks inside the layers, masked ones included."""
        parts = split_seeds(seeds, self._num_layers)
        return [weight for own in parts for weight in self._conditioner.make_weights(own)]

    def draw(self, outputs, weights, noise):
        """As `Factorised.draw`."""
        mean, log_scale = _moments(self, outputs)
        moved, total = noise, 0.0
        for layer in self._layers(outputs, weights):
            total += layer.forward_log_det_jacobian(moved, event_ndims=1)
            moved = layer.forward(moved)[..., ::-1]
        log_density = standard_normal_log_prob(noise) - total - tf.reduce_sum(log_scale, -1)
        return Draw(mean + tf.exp(log_scale) * moved, log_density)

    def log_prob(self, outputs, weights, latents):
        """ln q at given latents [samples, rows, batch, latent], nats; dimension by dimension."""
        mean, log_scale = _moments(self, outputs)
        moved, total = (latents - mean) * tf.exp(-log_scale), 0.0
        for layer in reversed(self._layers(outputs, weights)):
            moved = moved[..., ::-1]
            total += layer.inverse_log_det_jacobian(moved, event_ndims=1)
            moved = layer.inverse(moved)
        return standard_normal_log_prob(moved) + total - tf.reduce_sum(log_scale, -1)

    def _layers(self, outputs, weights):
        context, count = outputs[..., 2 * self.latent_size :], _Conditioner.COUNT
        parts = [weights[first : first + count] for first in range(0, len(weights), count)]
        return [self._layer(context, own) for own in parts]

    def _layer(self, context, weights):
        from_inputs, from_context, bias, kernel, last_bias = weights
        masked = [from_inputs * self._sees, from_context, bias, kernel * self._seen, last_bias]

        def shift_and_log_scale(values):
            shift, raw_scale = tf.split(self._conditioner(values, context, masked), 2, axis=-1)
            return shift, -_log_scale(raw_scale)

        return tfb.Invert(tfb.MaskedAutoregressiveFlow(shift_and_log_scale, unroll_loop=True))


class PlanarFlow:
    """m + s f(e), with f a chain of maps e + u tanh(w'e + b); outputs are m, ln s and all w, u, b.

    What multiplies the hyperbolic tangent is u moved along w until w'u > -1, so that every map is
    invertible (Rezende and Mohamed 2015, appendix A). The inverse has no closed form, hence there
    is no `log_prob`. To the w of a datum shared ones are added, which are not zero at the start.

    Args:
      latent_size: dimensions of z.
      num_steps: pairs of maps.
    """

    name = "planar flow"

    def __init__(self, latent_size, *, num_steps=2):
        _checks.integer(num_steps, "num_steps", minimum=1)
        self.latent_size = self.num_noise = latent_size
        self._num_maps = 2 * num_steps
        self.num_outputs = 2 * latent_size + self._num_maps * (2 * latent_size + 1)

    def make_weights(self, seeds):
        """The w that data share, [rows, latent, maps]."""
        return [Dense(self.latent_size, self._num_maps, seeds=seeds, name="directions").kernel]

    def draw(self, outputs, weights, noise):
        """As `Factorised.draw`."""
        mean, log_scale = _moments(self, outputs)
        moved, total = noise, 0.0
        for direction, along, offset in self._maps(outputs, weights[0]):
            inner = tf.reduce_sum(direction * along, -1, keepdims=True)
            # w'u of the map: as given near zero, and never below minus one.
            allowed = tf.nn.softplus(inner + _UNIT_SOFTPLUS) - 1.0
            square = tf.reduce_sum(direction**2, -1, keepdims=True)
            along += (allowed - inner) * direction / square
            bent = tf.tanh(tf.reduce_sum(direction * moved, -1, keepdims=True) + offset)
            moved += along * bent
            total += tf.math.log1p((1.0 - bent**2) * allowed)[..., 0]
        log_density = standard_normal_log_prob(noise) - total - tf.reduce_sum(log_scale, -1)
        return Draw(mean + tf.exp(log_scale) * moved, log_density)

    def _maps(self, outputs, shared):
        """w, u [rows, batch, latent] and b [rows, batch, 1] of each map."""
        size = self.latent_size
        parts = tf.split(outputs[..., 2 * size :], self._num_maps, axis=-1)
        for part, direction in zip(parts, tf.unstack(shared, axis=-1), strict=True):
            own, along, offset = tf.split(part, [size, size, 1], axis=-1)
            yield own + direction[:, tf.newaxis], along, offset


class AuxiliaryFlow:
    """Affine coupling between z and an auxiliary v of the same size, with a reverse model r(v | z).

    Arguments as in `CouplingFlow`; outputs are m, ln s and a context.
    """

    name = "auxiliary flow"

    def __init__(self, latent_size, *, num_steps=2, num_hidden=50, context_size=20):
        self.latent_size, self.num_noise = latent_size, 2 * latent_size
        self.num_outputs = 2 * latent_size + context_size
        self._layers = _CouplingLayers(
            2 * latent_size, latent_size, "affine", num_steps, num_hidden, context_size
        )
        self._reverse = _Conditioner(latent_size, context_size, num_hidden, 2 * latent_size)

    def make_weights(self, seeds):
        """Weights of the layers, then those of the reverse model."""
        first, second = split_seeds(seeds, 2)
        return [*self._layers.make_weights(first), *self._reverse.make_weights(second)]

    def draw(self, outputs, weights, noise):
        """As `Factorised.draw`; `log_density` is ln q(z, v) - ln r(v | z)."""
        size = self.latent_size
        mean, log_scale = _moments(self, outputs)
        context = outputs[..., 2 * size :]
        start = tf.concat([mean + tf.exp(log_scale) * noise[..., :size], noise[..., size:]], -1)
        end, log_determinant = self._layers.forward(start, context, weights[: -_Conditioner.COUNT])
        latents, auxiliary = end[..., :size], end[..., size:]
        log_density = standard_normal_log_prob(noise) - tf.reduce_sum(log_scale, -1)
        raw = self._reverse(latents, context, weights[-_Conditioner.COUNT :])
        reverse_mean, reverse_log_scale = raw[..., :size], raw[..., size:]
        reverse = standard_normal_log_prob(
            (auxiliary - reverse_mean) * tf.exp(-reverse_log_scale)
        ) - tf.reduce_sum(reverse_log_scale, -1)
        return Draw(latents, log_density - log_determinant - reverse)


def _check_parts(what, latent_size):
    """Refuse a single dimension where one part of z transforms the other."""
    if latent_size < 2:
        raise ValueError(
            f"{what} needs latent_size of at least 2, but it is {latent_size}: one "
            f"part of z transforms the other. Use the auxiliary flow, or another family."
        )


def _log_scale(raw):
    """Log of a scale between 0 and 2, which is 1 where raw is zero."""
    return tf.cast(tf.math.log(2.0), raw.dtype) + tf.math.log_sigmoid(raw)


def _moments(family, outputs):
    """Split off mean and log scale, and check the shape."""
    if outputs.shape[-1] != family.num_outputs:
        raise ValueError(
            f"the family {family.name!r} with {family.latent_size} latent dimensions needs "
            f"{family.num_outputs} outputs per datum, but was given {outputs.shape[-1]}. Build "
            f"encoder and family for the same latent_size."
        )
    size = family.latent_size
    return outputs[..., :size], outputs[..., size : 2 * size]


class _Conditioner:
    """One hidden layer of tanh units over (inputs, context); the last layer starts at zero."""

    COUNT = 5  # weights: inputs, context and bias of the hidden layer; kernel and bias of the last

    def __init__(self, num_inputs, context_size, num_hidden, num_outputs):
        self._sizes = (num_inputs, context_size, num_hidden, num_outputs)

    def make_weights(self, seeds):
        num_inputs, context_size, num_hidden, num_outputs = self._sizes
        first, second, third = split_seeds(seeds, 3)
        inner = Dense(num_inputs, num_hidden, seeds=first, name="inputs")
        outer = Dense(context_size, num_hidden, seeds=second, use_bias=False, name="context")
        last = Dense(num_hidden, num_outputs, seeds=third, scale=0.0, name="output")
        return [inner.kernel, outer.kernel, inner.bias, last.kernel, last.bias]

    def __call__(self, inputs, context, weights):
        from_inputs, from_context, bias, kernel, last_bias = weights
        hidden = linear(inputs, from_inputs) + linear(context, from_context) + bias
        return linear(tf.tanh(hidden), kernel) + last_bias


class _CouplingLayers:
    """Pairs of TFP coupling layers on an event of `size`, of which the first `num_first` and the
    others take turns."""

    def __init__(self, size, num_first, kind, num_steps, num_hidden, context_size, num_bins=8):
        _checks.integer(num_steps, "num_steps", minimum=1)
        _checks.one_of(kind, "kind of coupling", ("affine", "spline"))
        self._kind, self._num_bins = kind, num_bins
        per_dimension = 2 if kind == "affine" else 3 * num_bins - 1
        # The first layer of a pair moves the last dimensions, the second the first ones, which
        # stand last after the halves have been swapped.
        self._masked = [num_first, size - num_first] * num_steps
        self._conditioners = [
            _Conditioner(masked, context_size, num_hidden, per_dimension * (size - masked))
            for masked in self._masked
        ]

    def make_weights(self, seeds):
        parts = split_seeds(seeds, len(self._conditioners))
        made = [c.make_weights(s) for c, s in zip(self._conditioners, parts, strict=True)]
        return [weight for weights in made for weight in weights]

    def forward(self, values, context, weights):
        """Return moved values and ln |det| of the map, summed over layers."""
        total = 0.0
        for index, masked in enumerate(self._masked):
            bijector = self._bijector(index, values[..., :masked], context, weights)
            total += bijector.forward_log_det_jacobian(values, event_ndims=1)
            values = _swap(bijector.forward(values), masked)
        return values, total

    def inverse(self, values, context, weights):
        """Return the values that `forward` moves to these, and ln |det| of `forward` there."""
        total = 0.0
        for index, masked in reversed(list(enumerate(self._masked))):
            values = _swap(values, values.shape[-1] - masked)
            bijector = self._bijector(index, values[..., :masked], context, weights)
            total -= bijector.inverse_log_det_jacobian(values, event_ndims=1)
            values = bijector.inverse(values)
        return values, total

    def _bijector(self, index, fixed, context, weights):
        """The layer as TFP's coupling bijector; its network is run once, here."""
        count = _Conditioner.COUNT
        raw = self._conditioners[index](
            fixed, context, weights[index * count : (index + 1) * count]
        )
        masked = self._masked[index]
        if self._kind == "affine":
            shift, raw_scale = tf.split(raw, 2, axis=-1)
            log_scale = _log_scale(raw_scale)
            return tfb.RealNVP(
                num_masked=masked, shift_and_log_scale_fn=lambda *_, **__: (shift, log_scale)
            )
        return tfb.RealNVP(
            num_masked=masked, bijector_fn=lambda *_, **__: _spline(raw, self._num_bins)
        )


def _swap(values, count):
    """Move the first `count` entries of the last axis to its end."""
    return tf.concat([values[..., count:], values[..., :count]], -1)


def _spline(raw, num_bins):
    """Monotone rational-quadratic splines; the identity where raw is zero."""
    shape = tf.concat([tf.shape(raw)[:-1], [-1, 3 * num_bins - 1]], 0)
    raw = tf.reshape(raw, shape)
    room = 2 * _SPLINE_RANGE - num_bins * _SMALLEST_BIN

    def sizes(part):
        return _SMALLEST_BIN + room * tf.nn.softmax(part)

    offset = tf.math.log(tf.math.expm1(1.0 - _SMALLEST_BIN))
    slopes = _SMALLEST_BIN + tf.nn.softplus(raw[..., 2 * num_bins :] + offset)
    return tfb.RationalQuadraticSpline(
        bin_widths=sizes(raw[..., :num_bins]),
        bin_heights=sizes(raw[..., num_bins : 2 * num_bins]),
        knot_slopes=slopes,
        range_min=-_SPLINE_RANGE,
    )


class Parameters(NamedTuple):
    """All numbers that one q per datum needs.

    outputs: [replicas, data, num_outputs].
    weights: list of tensors; shared by all data, [replicas, ...], or each datum's own,
      [replicas, data, ...].
    per_datum: whether the weights are each datum's own.
    """

    outputs: tf.Tensor
    weights: list
    per_datum: bool

    def select(self, start, stop):
        """The parameters of the data from `start` up to `stop`."""
        weights = [w[:, start:stop] for w in self.weights] if self.per_datum else self.weights
        return Parameters(self.outputs[:, start:stop], weights, self.per_datum)

    def own(self):
        """The same q, with a copy of the weights for each datum."""
        if self.per_datum:
            return self
        count = self.outputs.shape[1]
        weights = [tf.repeat(weight[:, tf.newaxis], count, axis=1) for weight in self.weights]
        return Parameters(self.outputs, weights, True)


def gaussian_start(family, mean, log_scale, seeds):
    """`Parameters` at which a family is the factorised Gaussian N(mean, exp(log_scale)^2).

    Args:
      family: of this module.
      mean, log_scale: [replicas, data, latent].
      seeds: int32 [replicas, 2], of the first layers of flows, which do not matter at the start.
    """
    rest = family.num_outputs - 2 * family.latent_size
    blank = tf.zeros([*mean.shape[:2], rest])
    weights = [tf.convert_to_tensor(weight) for weight in family.make_weights(seeds)]
    return Parameters(tf.concat([mean, log_scale, blank], -1), weights, False)


def draw(family, parameters, noise):
    """Draw from one q per datum.

    Args:
      family: of this module.
      parameters: `Parameters`.
      noise: standard normal [samples, replicas, data, family.num_noise].

    Returns:
      `Draw` with rows = replicas, batch = data.
    """
    outputs, weights, per_datum = parameters
    if not per_datum:
        return family.draw(outputs, weights, noise)
    replicas, count = outputs.shape[:2]
    rows = replicas * count

    def flat(tensor):
        return tf.reshape(tensor, [rows, *tensor.shape[2:]])

    drawn = family.draw(
        flat(outputs)[:, tf.newaxis],
        [flat(weight) for weight in weights],
        tf.reshape(noise, [-1, rows, 1, family.num_noise]),
    )
    return Draw(
        tf.reshape(drawn.latents, [-1, replicas, count, family.latent_size]),
        tf.reshape(drawn.log_density, [-1, replicas, count]),
    )


def log_weights(model, family, parameters, observations, noise):
    """ln p(x, z) - ln q(z) of draws: [samples, replicas, data], nats.

    Args:
      model: `models.vae.VAE`.
      family, parameters: q, see `posteriors.families`.
      observations: float32 [replicas or 1, data, pixels].
      noise: standard normal [samples, replicas, data, family.num_noise].

    Raises:
      ValueError: if family and model differ in their latent dimensions.
    """
    if family.latent_size != model.latent_size:
        raise ValueError(
            f"family and model must have the same latent dimensions, but the family "
            f"{family.name!r} has {family.latent_size} and the model {model.latent_size}. Build "
            f"both for the same latent_size."
        )
    drawn = draw(family, parameters, noise)
    return model.log_joint(drawn.latents, observations) - drawn.log_density


def check_observations(observations, model, parameters):
    """Observations as a finite float32 tensor [replicas or 1, data, pixels] that fits model and q.

    Raises:
      ValueError: saying what was expected and found.
    """
    array = _checks.finite_array(observations, "observations", ndim=3)
    replicas, count = parameters.outputs.shape[:2]
    if replicas != model.num_replicas:
        raise ValueError(
            f"q must have as many replicas as the model, which are {model.num_replicas}, but has "
            f"{replicas}. Give each replica of the model a q of its own."
        )
    if array.shape[0] not in (1, replicas) or array.shape[1:] != (count, model.observation_size):
        raise ValueError(
            f"observations must be [{replicas} or 1 replicas, {count} data, "
            f"{model.observation_size} pixels], but have shape {array.shape}. Give q and model the "
            f"same data."
        )
    is_binary = getattr(model, "emission_name", None) == "bernoulli"
    if is_binary and not ((array >= 0) & (array <= 1)).all():
        raise ValueError(
            f"pixels of a Bernoulli model must be 0 or 1, or means between them, but lie between "
            f"{array.min():g} and {array.max():g}. Divide grey levels by the largest."
        )
    return tf.constant(array, tf.float32)
