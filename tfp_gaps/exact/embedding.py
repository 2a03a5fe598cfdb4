"""Two ways to learn parameters through an embedding of the data, on a grid where both can be seen.

Data x that share an embedding c get one q(theta | c). With E over p(x | c), each objective has its
own best density:

    ELBO:                   min_q E KL(q || p(theta | x))   at  q ~ exp E ln p(theta | x),
    posterior estimation:   min_q E KL(p(theta | x) || q)   at  q = E p(theta | x) = p(theta | c),

the product of the full posteriors (their geometric mean) and their mixture. Everything here is a
distribution over the nodes of a grid, given by its log masses. The second objective is that of
Papamakarios and Murray (2016) and Greenberg et al. (2019).
"""

import numpy as np
from scipy import optimize, special

from tfp_gaps import _checks

OBJECTIVES = ("elbo", "posterior estimation")


def product(log_full, weights):
    """Log masses of the normalised geometric mean of the full posteriors, [nodes].

    Args:
        log_full: [full posteriors, nodes], log masses.
        weights: [full posteriors], their probabilities given the embedding.
    """
    return special.log_softmax(weights @ log_full)


def mixture(log_full, weights):
    """Log masses of the arithmetic mean of the full posteriors, [nodes]; arguments as `product`."""
    return special.logsumexp(log_full, b=np.asarray(weights)[:, np.newaxis], axis=0)


def best(log_full, weights, objective):
    """Log masses of the best q over all densities, found by descent on the objective: [nodes].

    Args:
        log_full: [full posteriors, nodes], log masses, all finite.
        weights: [full posteriors], their probabilities given the embedding.
        objective: one of `OBJECTIVES`.

    >>> full = np.log([[0.9, 0.1], [0.1, 0.9]])
    >>> np.exp(best(full, np.array([0.8, 0.2]), "posterior estimation")).round(4)
    array([0.74, 0.26])
    >>> np.exp(best(full, np.array([0.8, 0.2]), "elbo")).round(4)
    array([0.7889, 0.2111])
    """
    _checks.one_of(objective, "objective", OBJECTIVES)
    full = np.exp(log_full)

    def average(logits):
        """The objective, averaged over the full posteriors, and its slope in the logits."""
        log_q = special.log_softmax(logits)
        q = np.exp(log_q)
        if objective == "elbo":
            cost = log_q - log_full  # [full posteriors, nodes]
            slope = q * (weights @ (cost - cost @ q[:, np.newaxis]))
            return weights @ (cost @ q), slope
        value = weights @ np.sum(full * (log_full - log_q), axis=1)
        return value, q - weights @ full

    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-14, "gtol": 1e-9, "maxcor": 30}
    start = np.zeros(log_full.shape[1])
    found = optimize.minimize(average, start, jac=True, method="L-BFGS-B", options=options)
    return special.log_softmax(found.x)


def kl(log_p, log_q):
    """KL(p || q) of finite log masses on the same nodes, over the last axis, in nats.

    >>> print(f"{kl(np.log([0.5, 0.5]), np.log([0.25, 0.75])):.4f}")
    0.1438
    """
    mass = np.exp(log_p)
    return np.sum(np.where(mass > 0, mass * (log_p - log_q), 0.0), axis=-1)


def coverage(log_claimed, log_truth, level=0.9):
    """Probability under the truth of the central interval that the claimed distribution gives.

    Args:
        log_claimed, log_truth: [nodes], log masses on equally spaced nodes. Each node's mass is
            spread evenly over its cell.
        level: nominal probability, in (0, 1).

    >>> nodes = np.linspace(-8, 8, 801)
    >>> wide, narrow = (special.log_softmax(-0.5 * (nodes / s) ** 2) for s in (1.0, 0.5))
    >>> print(f"{coverage(wide, wide):.3f} {coverage(narrow, wide):.3f}")
    0.900 0.589
    """
    tail = (1 - _checks.level(level)) / 2
    edges = np.arange(len(log_claimed) + 1)
    claimed, truth = (np.append(0, np.cumsum(np.exp(log))) for log in (log_claimed, log_truth))
    ends = np.interp([tail, 1 - tail], claimed / claimed[-1], edges)
    below = np.interp(ends, edges, truth / truth[-1])
    return float(below[1] - below[0])
