"""A hidden Markov chain with few states: the conditioning gap by enumeration, and its tilt.

    p(z_1) = initial,  p(z_t | z_{t-1}) = transition,  p(x_t | z_t) = emission,  all categorical

With q(z_t | z_{t-1}, C_t), C_t = x_{1:t+k}, the best q follows by a recursion from the end,

    q_t ~ exp E[ ln p(z_t | z_{t-1}, x_{t:T}) - R_{t+1}(z_t, C_{t+1}) | C_t ], R_t = -ln normaliser,

where R_{T+1} = 0, and the gap is E R_1. Without R_{t+1} it is the product of smoothing posteriors,
factor by factor (Bayer et al. 2021). Both agree where R_{t+1} does not depend on z_t, as in
linear-Gaussian chains; here it does, and q is tilted towards states with a small later gap.
"""

import itertools
from typing import NamedTuple

import numpy as np
from scipy import special

from tfp_gaps import _checks


class HiddenMarkov(NamedTuple):
    """Probabilities of a hidden Markov chain; positive, each row sums to one.

    initial: [state].
    transition: [previous state, state].
    emission: [state, symbol].
    """

    initial: np.ndarray
    transition: np.ndarray
    emission: np.ndarray


class Gaps(NamedTuple):
    """Gaps of two choices of q, nats per sequence.

    best: of the best q, the conditioning gap.
    plain: of the product of smoothing posteriors, factor by factor; at least `best`.
    """

    best: float
    plain: float


def random_chain(num_states, num_symbols, seed):
    """Draw every row uniformly from the probability simplex.

    Args:
      num_states, num_symbols: sizes.
      seed: for `numpy.random.default_rng`.

    Returns:
      A `HiddenMarkov`.

    Raises:
      ValueError: for sizes below one.

    >>> random_chain(2, 2, seed=0).transition.sum(axis=1)
    array([1., 1.])
    """
    _checks.integer(num_states, "num_states", minimum=1)
    _checks.integer(num_symbols, "num_symbols", minimum=1)
    rng = np.random.default_rng(seed)
    return HiddenMarkov(
        rng.dirichlet(np.ones(num_states)),
        rng.dirichlet(np.ones(num_states), size=num_states),
        rng.dirichlet(np.ones(num_symbols), size=num_states),
    )


def conditioning_gaps(chain, num_timesteps, lookahead):
    """Enumerate all sequences and return both gaps.

    Args:
      chain: a `HiddenMarkov`.
      num_timesteps: T; the number of sequences is symbols ** T.
      lookahead: k, how many future symbols q sees; None for all.

    Returns:
      `Gaps`.

    Raises:
      ValueError: for probabilities that are not positive or do not sum to one, wrong shapes, a bad
        T or a negative look-ahead.

    >>> chain = HiddenMarkov([0.5, 0.5], [[0.9, 0.1], [0.3, 0.7]], [[0.8, 0.2], [0.1, 0.9]])
    >>> gaps = conditioning_gaps(chain, 4, lookahead=0)
    >>> 0 < gaps.best < gaps.plain < 1.01 * gaps.best
    True
    >>> abs(conditioning_gaps(chain, 4, lookahead=None).best) < 1e-12
    True
    """
    k = _checks.look_ahead(lookahead, num_timesteps)
    chain = _validated(chain)
    symbols = chain.emission.shape[1]
    x = np.array(list(itertools.product(range(symbols), repeat=num_timesteps)))
    factors, probabilities = _full_factors(chain, x)
    cost = {"best": np.zeros((1, 1)), "plain": np.zeros((1, 1))}
    for t in reversed(range(num_timesteps)):
        seen = min(t + k + 1, num_timesteps)
        log_full = _given(np.log(factors[t]), probabilities, symbols**seen)
        # The later cost may depend on one more symbol than q_t sees.
        later = {name: _given_more(c, probabilities, symbols**seen) for name, c in cost.items()}
        log_q = log_full - special.logsumexp(log_full, axis=-1, keepdims=True)
        plain = np.exp(log_q) * (log_q - log_full + later["plain"][:, np.newaxis])
        best = -special.logsumexp(log_full - later["best"][:, np.newaxis], axis=-1)
        cost = {"best": best, "plain": plain.sum(axis=-1)}
    return Gaps(*(_expectation(cost[name], probabilities) for name in Gaps._fields))


def _full_factors(chain, x):
    """p(z_t | z_{t-1}, x_{t:T}) for each t, [sequences, previous, state], and p(x)."""
    message = np.ones((len(x), len(chain.initial)))
    factors = []
    for t in reversed(range(x.shape[1])):
        prior = chain.transition if t else chain.initial[np.newaxis]
        joint = prior * (chain.emission[:, x[:, t]].T * message)[:, np.newaxis]
        message = joint.sum(axis=-1)
        factors.append(joint / message[..., np.newaxis])
    return factors[::-1], message[:, 0]


def _given(values, probabilities, num_prefixes):
    """E[values | prefix of x]: sequences in order of their digits, so a prefix is a block."""
    weights = probabilities.reshape(num_prefixes, -1)
    weights = weights / weights.sum(axis=1, keepdims=True)
    blocks = values.reshape(num_prefixes, weights.shape[1], *values.shape[1:])
    return np.einsum("ps,ps...->p...", weights, blocks)


def _given_more(values, probabilities, num_prefixes):
    """E[values | prefix], for values that are themselves given a longer prefix, or the same."""
    longer = probabilities.reshape(len(values), -1).sum(axis=1)
    return _given(values, longer, num_prefixes) if len(values) > 1 else values


def _expectation(values, probabilities):
    return float(probabilities.reshape(len(values), -1).sum(axis=1) @ values[:, 0])


def _validated(chain):
    arrays = [
        _checks.positive_array(array, name, ndim=ndim)
        for array, name, ndim in zip(chain, HiddenMarkov._fields, (1, 2, 2), strict=True)
    ]
    states = len(arrays[0])
    if arrays[1].shape != (states, states) or arrays[2].shape[0] != states:
        raise ValueError(
            f"initial has {states} state(s), so that transition must have shape "
            f"({states}, {states}) and emission {states} row(s), but they have shapes "
            f"{arrays[1].shape} and {arrays[2].shape}."
        )
    for array, name in zip(arrays, HiddenMarkov._fields, strict=True):
        worst = np.max(np.abs(array.sum(axis=-1) - 1.0))
        if worst > 1e-8:
            raise ValueError(
                f"Each row of {name} must sum to one, but one is off by {worst:g}. Divide each "
                "row by its sum."
            )
    return HiddenMarkov(*arrays)
