"""What data must be for a model to give ln p at them.

TFP gives a finite density to many data outside of a support, and the unconstrained numbers of the
example reach all of a latent part only where its support is the same for all data.
"""

import warnings

import numpy as np

from tfp_gaps._tensorflow import tf
from tfp_gaps.models import coordinates, supports
from tfp_gaps.models.joint_checks import probe_numbers
from tfp_gaps.models.users_code import TRANSFORM, short, users_code

_NUM_TRIED, _NUMBERS_AT_ONCE = 2, 2**20
_ENDS = np.float64([[[-8.0]], [[-3.0]], [[3.0]], [[8.0]]])  # unconstrained numbers
_SUPPORT = "Look for data that the observed distribution does not allow."


def inside(model, x):
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
        parts, _ = model.constrain(probe_numbers(model, _NUM_TRIED, count))

        def evaluate(parts=parts, given=given):
            with users_code("ln p of the data", _SUPPORT):
                terms = density.all_terms(parts, given)
                return np.stack([terms[name].numpy() for name in given])

        def first_outside(outside, given=given, first=first):
            part, _, datum = np.argwhere(outside)[0]
            name = list(given)[part]
            return f"datum {first + datum} of {name!r} is {short(given[name][datum])}"

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
    numbers = np.concatenate([np.repeat(_ENDS, model.num_numbers, -1), probe_numbers(model, 4, 1)])
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
