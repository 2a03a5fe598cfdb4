"""Discrete latent parts with few values, summed out exactly.

ln p(x, z) = ln sum_k p(x, k, z),   k over all values of the discrete parts together
"""

import itertools

import numpy as np

from tfp_gaps._tensorflow import tf, tfp

tfd = tfp.distributions

LIMIT = 128
"""Largest number of values that are summed over."""


def _count(distribution):
    """Values of one draw: 0 ... n - 1, for the kinds that count."""
    kinds = {
        tfd.Bernoulli: lambda d: 2,
        tfd.ProbitBernoulli: lambda d: 2,
        tfd.Categorical: lambda d: (d.logits if d.probs is None else d.probs).shape[-1],
        tfd.OrderedLogistic: lambda d: d.cutpoints.shape[-1] + 1,
        tfd.StoppingRatioLogistic: lambda d: d.cutpoints.shape[-1] + 1,
        tfd.Binomial: lambda d: int(np.max(d.total_count)) + 1,
        tfd.BetaBinomial: lambda d: int(np.max(d.total_count)) + 1,
    }
    return next(
        (count(distribution) for kind, count in kinds.items() if type(distribution) is kind), 0
    )


def support(distribution):
    """All values of a discrete distribution, [values, *event]; None if it is no known finite one.

    >>> support(tfd.Sample(tfd.Bernoulli(0.3), 2)).tolist()
    [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    inner = getattr(distribution, "distribution", None)
    if isinstance(distribution, tfd.MarkovChain):
        inner = distribution.initial_state_prior
    elif not isinstance(distribution, tfd.Sample | tfd.Independent):
        return _own_support(distribution)
    values = support(inner)
    if values is None:
        return None
    event = tuple(distribution.event_shape)
    repeats = int(np.prod(event)) // max(int(np.prod(values.shape[1:])), 1)
    if len(values) ** repeats > LIMIT:
        return np.zeros([LIMIT + 1, *event], values.dtype)  # too many, whichever they are
    rows = itertools.product(values, repeat=repeats)
    return np.stack([np.reshape(row, event) for row in rows])


def _own_support(distribution):
    if isinstance(distribution, tfd.OneHotCategorical):
        values = np.eye(distribution.event_shape[-1])
    elif isinstance(distribution, tfd.FiniteDiscrete):
        values = np.asarray(distribution.outcomes)
    elif _count(distribution):
        values = np.arange(_count(distribution))
    else:
        return None
    return values.astype(distribution.dtype.as_numpy_dtype)


class Sum:
    """The values of all discrete parts together.

    Args:
      supports: {name: [values, *event]}.
    """

    def __init__(self, supports):
        self.names = tuple(supports)
        counts = [len(values) for values in supports.values()]
        self.count = int(np.prod(counts, dtype=np.float64))
        if self.count > LIMIT:
            raise ValueError(
                f"discrete latent parts must have at most {LIMIT} values together, but "
                f"{', '.join(self.names)} have more. Sum them out in the model, for instance with "
                f"tfd.MixtureSameFamily or tfd.HiddenMarkovModel as the observed part."
            )
        indices = list(itertools.product(*map(range, counts)))
        columns = zip(*indices, strict=True) if supports else ()
        self.values = {
            name: values[list(column)]
            for (name, values), column in zip(supports.items(), columns, strict=True)
        }

    def spread(self, parts):
        """Parts [draws, data, *event] for each value, with that value: [values * draws, ...]."""
        draws, data = tf.unstack(tf.shape(tf.nest.flatten(parts)[0])[:2])
        found = tf.nest.map_structure(
            lambda part: tf.tile(
                part, tf.concat([[self.count], tf.ones(part.shape.rank - 1, tf.int32)], 0)
            ),
            parts,
        )
        for name, values in self.values.items():
            rows = tf.repeat(tf.constant(values), draws, axis=0)[:, tf.newaxis]
            found[name] = tf.repeat(rows, data, axis=1)
        return found

    def total(self, log_probs):
        """ln of the sum over values: [values * draws, data] -> [draws, data]."""
        shape = tf.concat([[self.count, -1], tf.shape(log_probs)[1:]], 0)
        return tf.reduce_logsumexp(tf.reshape(log_probs, shape), 0)
