"""A state-space model in a user's own words: checked before it is run, and brought into one form.

    p(z_1) prod_{t>1} p(z_t | z_{t-1}, u_{t-1}) prod_t p(x_t | z_t)

What is asked of it: integers `num_replicas` and `latent_size`, and `initial()`, `transition(z, u)`
with u None where there are no controls, and `emission(z)`, for z [..., replicas, batch, latent] of
any leading axes. Normals are a `DiagonalNormal`, any pair of `mean` and `scale`, or a `tfd.Normal`,
`tfd.Independent` of one, or `tfd.MultivariateNormalDiag`. `observation_size` follows from the
emission, and `control_size` is 0 where it is not said.
"""

import contextlib
import itertools
import warnings
import weakref
from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks
from tfp_gaps._tensorflow import faulty_product, tf, tfp
from tfp_gaps.exact.linear_gaussian import LinearGaussian
from tfp_gaps.models import supports
from tfp_gaps.models.state_space import (
    MODEL,
    DiagonalNormal,
    LinearGaussianStateSpace,
    StateSpace,
    check_channels,
    check_sizes,
)
from tfp_gaps.models.users_code import users_code
from tfp_gaps.sequences import as_sequences

tfd = tfp.distributions

_DRAWS, _BATCH = 5, 3
"""Leading axes of the trial, which are told apart from each other."""

_TRIED, _NUMBERS_AT_ONCE = 2, 2**22
"""Draws of z at which the support of the emission is looked at, and numbers of x at once."""

_CHECKED = weakref.WeakKeyDictionary()


class _Sizes(NamedTuple):
    num_replicas: int
    latent_size: int
    observation_size: int
    control_size: int


class OwnStateSpace:
    """A user's model with the sizes and the normals that the library expects."""

    def __init__(self, model, sizes):
        self.model = model
        self.num_replicas, self.latent_size, self.observation_size, self.control_size = sizes

    def initial(self):
        """p(z_1) as a `DiagonalNormal`, [replicas, 1, latent]."""
        shape = [self.num_replicas, 1, self.latent_size]
        return diagonal_normal(self.model.initial(), "model.initial()", shape)

    def transition(self, latent, control=None):
        """p(z_t | z_{t-1}, u_{t-1}) as a `DiagonalNormal` of the shape of `latent`."""
        found = self.model.transition(latent, control)
        return diagonal_normal(found, "model.transition(z, u)", latent.shape)

    def emission(self, latent):
        """p(x_t | z_t), a distribution."""
        return self.model.emission(latent)


def with_sequences(model, sequences, order):
    """A model and its data as the library uses them: the model, and `Sequences`.

    Args:
      model, order: as in `as_state_space`.
      sequences: `Sequences`, or an array [time, sequences, channels].

    Raises:
      ValueError: as `as_state_space`; for no sequences, or other channels or controls than the
        model's, or controls into the first step; for missing values where its channels are not
        independent; for observations outside of the support of the emission.

    Warns:
      RuntimeWarning: for means of binary values in their place, and angles beyond a full turn.
    """
    model, sequences = as_state_space(model, order), as_sequences(sequences)
    check_sizes(model, sequences)
    if sequences.mask is not None:
        check_channels(model.emission(tf.zeros([model.num_replicas, 1, model.latent_size])))
    _check_support(model, sequences)
    return model, sequences


def _check_support(model, sequences):
    """Refuse observations to which the emission gives a density outside of its support."""
    rows = max(
        1, _NUMBERS_AT_ONCE // max(1, model.num_replicas * sequences.observations[:, 0].size)
    )
    # A first sequence alone tells whether there is anything to look for.
    ends = sorted({0, 1, *range(1, len(sequences), rows), len(sequences)})
    doubts = ""
    for first, last in itertools.pairwise(ends):
        some = sequences.select(slice(first, last)).batch
        for draw in range(_TRIED):
            shape = [1, model.num_replicas, 1, model.latent_size]
            latent = tf.random.stateless_normal(shape, (0, draw))

            def describe(outside, some=some, first=first):
                t, _, sequence = np.argwhere(outside)[0]
                values = np.array2string(some.observations[t, sequence], precision=3, threshold=3)
                return f"step {t + 1} of sequence {first + sequence} is {values}"

            def evaluate(latent=latent, some=some):
                with users_code("ln p(x | z)", "Look for data that the emission does not allow."):
                    return _log_likelihoods(model, latent, some)

            limited, doubtful = supports.check(evaluate, "observations", describe)
            if not limited:
                return
            doubts = doubts or doubtful
    if doubts:
        warnings.warn(doubts, RuntimeWarning, stacklevel=5)


def _log_likelihoods(model, latent, batch):
    """ln p(x_t | z) of all steps at one z for each replica, [time, replicas, sequences]."""
    x = tf.cast(batch.observations, tf.float32)[:, tf.newaxis]
    emission = model.emission(latent)
    if not isinstance(emission, tfd.Independent):  # not all of them broadcast
        latent = tf.broadcast_to(latent, [len(x), model.num_replicas, x.shape[2], latent.shape[-1]])
        x = tf.broadcast_to(x, [len(x), model.num_replicas, *x.shape[2:]])
        return model.emission(latent).log_prob(x).numpy()
    if batch.mask is None:
        return emission.log_prob(x).numpy()
    per_channel = emission.distribution.log_prob(x)
    return tf.reduce_sum(tf.where(batch.mask[:, np.newaxis], per_channel, 0.0), -1).numpy()


def as_state_space(model, order):
    """The model as the library uses it, after a check of what its methods return.

    Args:
      model: what the module's description asks for, or `tfd.LinearGaussianStateSpaceModel` with
        constant matrices, noises of mean zero and diagonal covariances.
      order: how the function is called that was given the model, for the message.

    Raises:
      ValueError: for anything else, named; for a method that returns a wrong shape or type, mixes
        the rows of a batch, or reaches a product that is wrong (`faulty_product`).

    >>> normal = tfd.MultivariateNormalDiag(scale_diag=[1.0])
    >>> kalman = tfd.LinearGaussianStateSpaceModel(3, [[0.9]], normal, [[1.0]], normal, normal)
    >>> as_state_space(kalman, "f(model)").latent_size
    1
    """
    if isinstance(model, StateSpace | LinearGaussianStateSpace | OwnStateSpace):
        return model
    if isinstance(model, tfd.LinearGaussianStateSpaceModel):
        return LinearGaussianStateSpace(as_linear_gaussian(model))
    _checks.offers(model, "model", MODEL, order=order)
    return OwnStateSpace(model, _sizes(model))


def _sizes(model):
    """Those of a model that was checked before, or is now."""
    try:
        sizes = _CHECKED.get(model)
    except TypeError:  # neither hashable nor weakly referable: checked anew
        return _check(model)
    if sizes is None:
        sizes = _CHECKED[model] = _check(model)
    return sizes


def as_linear_gaussian(model):
    """The parameters of a linear-Gaussian model as `exact.linear_gaussian.LinearGaussian`, or None
    if the model is no linear-Gaussian one.

    Raises:
      ValueError: for a `tfd.LinearGaussianStateSpaceModel` that changes over time, has a batch
        shape, or noises whose mean is not zero.
    """
    if isinstance(model, LinearGaussian):
        return model
    if isinstance(model, LinearGaussianStateSpace):
        return model.exact
    if not isinstance(model, tfd.LinearGaussianStateSpaceModel):
        return None
    noises = (model.transition_noise, model.observation_noise, model.initial_state_prior)
    parts = (model.transition_matrix, model.observation_matrix, *noises[:2])
    found = None
    if any(callable(part) and not hasattr(part, "to_dense") for part in parts):
        found = "matrices or noises that are functions of the step"
    elif model.batch_shape.rank:
        found = f"the batch shape {model.batch_shape}"
    elif any(np.any(noise.mean().numpy() != 0.0) for noise in noises):
        found = "a noise or an initial state whose mean is not zero"
    if found:
        raise ValueError(
            f"a tfd.LinearGaussianStateSpaceModel must have constant matrices, no batch shape and "
            f"means of zero, but this one has {found}. Write it as a model with initial(), "
            f"transition(z, u) and emission(z)."
        )
    matrices = [
        np.asarray(part.to_dense() if hasattr(part, "to_dense") else part) for part in parts[:2]
    ]
    covariances = [noise.covariance().numpy() for noise in noises]
    return LinearGaussian(matrices[0], covariances[0], matrices[1], *covariances[1:])


@contextlib.contextmanager
def own_words(what):
    """Say in one sentence what failed in code that somebody brought, as `users_code` does, and
    leave sentences about it as they are."""
    try:
        with users_code(what, "Write it in TensorFlow, for z [..., replicas, batch, latent]."):
            yield
    except ValueError as error:
        if what in str(error.__cause__):
            raise error.__cause__ from None
        raise


def diagonal_normal(found, what, shape):
    """What a method returned as a `DiagonalNormal` of a shape [..., latent].

    Raises:
      ValueError: for another kind of distribution, another shape or another type than float32.
    """
    if isinstance(found, tfd.Distribution):
        inner = found.distribution if isinstance(found, tfd.Independent) else found
        if not isinstance(inner, tfd.Normal | tfd.MultivariateNormalDiag):
            raise ValueError(
                f"{what} must return a normal with independent components, but returns a "
                f"{type(inner).__name__}. Return tfd.Normal, tfd.MultivariateNormalDiag, or a "
                f"DiagonalNormal(mean, scale)."
            )
        found = DiagonalNormal(found.mean(), found.stddev())
    if not (hasattr(found, "mean") and hasattr(found, "scale")):
        raise ValueError(
            f"{what} must return a DiagonalNormal(mean, scale) or a tfd.Normal, but returns a "
            f"{type(found).__name__}. Name the standard deviation too."
        )
    parts = {"mean": found.mean, "scale": found.scale}
    return DiagonalNormal(
        *(_part(value, f"the {n} of {what}", shape) for n, value in parts.items())
    )


def _part(value, what, shape):
    value, wanted = tf.convert_to_tensor(value), tf.TensorShape(shape)
    if value.dtype != tf.float32:
        raise ValueError(
            f"{what} must be float32, but is {value.dtype.name}. Cast the model's parameters; "
            f"sequences are computed in single precision."
        )
    if value.shape.is_fully_defined() and value.shape == wanted:
        return value
    fits = value.shape.rank == 0 or (
        value.shape.rank is not None
        and value.shape.rank <= wanted.rank
        and value.shape[-1] in (None, wanted[-1])
        and all(
            a in (1, None) or b in (None, a)
            for a, b in zip(value.shape[::-1], wanted[::-1], strict=False)
        )
    )
    if not fits:
        raise ValueError(
            f"{what} must have shape [..., replicas, batch, latent], here {tuple(wanted)}, but has "
            f"{value.shape}. Keep all axes of z, the last of {wanted[-1]} latent component(s)."
        )
    return tf.broadcast_to(value, wanted) if wanted.is_fully_defined() else value


def _check(model):
    """Trace the methods, look for faulty products, run them at a trial: `_Sizes`."""
    replicas = _checks.integer(model.num_replicas, "model.num_replicas", minimum=1)
    latent = _checks.integer(model.latent_size, "model.latent_size", minimum=1)
    controls = _checks.integer(getattr(model, "control_size", 0), "model.control_size", minimum=0)
    own = OwnStateSpace(model, (replicas, latent, None, controls))
    shape = [_DRAWS, replicas, _BATCH]
    z, *u = (
        tf.random.stateless_normal([*shape, size], (0, size)) for size in (latent, controls) if size
    )
    functions = {
        "model.initial()": (lambda: tuple(own.initial()), ()),
        "model.transition(z, u)": (lambda z, *u: tuple(own.transition(z, *u)), (z, *u)),
        "model.emission(z)": (lambda z: _emitted(model, z), (z,)),
    }
    for what, (function, arguments) in functions.items():
        with own_words(what):
            fault = faulty_product(function, *arguments)
            found = None if fault else function(*arguments)
        if fault:
            raise ValueError(f"{what} {fault}")
        _check_rows(what, function, arguments, found)
    size = model.emission(z).event_shape[-1]
    said = getattr(model, "observation_size", size)
    if said != size:
        raise ValueError(
            f"model.emission(z) must have the model's observation_size of {said} channel(s), but "
            f"has the event shape [{size}]. Correct one of them."
        )
    return _Sizes(replicas, latent, size, controls)


def _emitted(model, latent):
    """ln p(x | z) at x = 0 or 1, after a check of the emission's shapes: a tuple of one."""
    emission = model.emission(latent)
    if not isinstance(emission, tfd.Distribution):
        raise ValueError(
            f"model.emission(z) must return a distribution over x, but returns a "
            f"{type(emission).__name__}. Return tfd.Independent(..., 1) over the channels."
        )
    batch, event = emission.batch_shape, emission.event_shape
    if event.rank != 1 or batch != latent.shape[:-1]:
        raise ValueError(
            f"model.emission(z) must have one event axis, the channels, and the batch shape of z, "
            f"{tuple(latent.shape[:-1])}, but has the event shape {event} and the batch shape "
            f"{batch}. Use tfd.Independent(..., 1) over the channels."
        )
    log_prob = emission.log_prob(tf.ones([*batch, *event], emission.dtype))
    if log_prob.dtype != tf.float32:
        raise ValueError(
            f"model.emission(z) must give float32 densities, but gives {log_prob.dtype.name}. Cast "
            f"the model's parameters; sequences are computed in single precision."
        )
    return (log_prob,)


def _check_rows(what, function, arguments, found):
    """Refuse a scale that is not positive, and methods that mix draws or sequences."""
    if len(found) == 2 and not (np.isfinite(found[0]).all() and np.all(np.asarray(found[1]) > 0)):
        raise ValueError(
            f"{what} must have finite means and scales above zero, but at a trial the smallest "
            f"scale is {np.min(found[1]):g}. Give standard deviations, not their logarithms."
        )
    if not arguments:
        return
    for draw, row in itertools.product(range(_DRAWS), range(_BATCH)):
        one = (slice(draw, draw + 1), slice(None), slice(row, row + 1))
        with own_words(what):
            alone = function(*(value[one] for value in arguments))
        for value, own in zip(found, alone, strict=True):
            if not np.allclose(value[one], own, rtol=1e-3, atol=1e-4, equal_nan=True):
                raise ValueError(
                    f"{what} must treat each draw and sequence alone, but returns something else "
                    f"for one alone than for the same one beside others. Reduce over the last axis "
                    f"only."
                )
