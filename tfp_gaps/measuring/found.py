"""Bounds on ln p(x) as `measure` finds them, with errors that make intervals of 95 %.

    value ± 1.96 errors,    error = sample error x Student's t / 1.96 x factor of the tail

The factors are those of `bounds`: few draws or chains know their spread badly, and heavy tails have
errors that fall more slowly than the sample variance says.
"""

import numpy as np

from tfp_gaps.bounds import Bounds, Diagnostics, diagnose, interval_factor, tail_factor

MIXED = "IWAE, best q and prior"

LEAST_SHARE = 0.05
"""Of the evidence, from which on a second mode is reported."""

_LEAST_ACCEPTANCE = 0.3


class Found:
    """Bounds as they are found, with errors and diagnostics; batches are put side by side."""

    def __init__(self):
        self.bounds, self.errors, self.diagnostics = {}, {}, {}

    def add(self, name, values, errors, diagnostics=None):
        """Append the data of a batch."""
        self.bounds[name] = _joined(self.bounds.get(name), np.asarray(values, np.float64))
        self.errors[name] = _joined(self.errors.get(name), np.asarray(errors, np.float64))
        if diagnostics is not None:
            self.diagnostics[name] = _joined(self.diagnostics.get(name), diagnostics)

    def add_weights(self, of, log_weights, rounded, search=None, with_iwae=True):
        """Add ELBO and IWAE-K of ln w [draws, data] that are rounded by so many nats."""
        summary = Bounds.from_log_weights(log_weights)
        wider = interval_factor(summary.num_samples)
        self.add(f"ELBO{of}", summary.elbo, np.hypot(wider * summary.elbo_error, rounded), search)
        if with_iwae:
            trust = diagnose(log_weights)
            error = wider * summary.iwae_error * tail_factor(trust.k_hat, summary.num_samples)
            self.add(f"IWAE{of}", summary.iwae, np.hypot(error, rounded), trust)

    def add_mixture(self, of_q, of_prior):
        """Add the bound of ln w from two strata of equal size, [draws, data] each.

        The error is that of two means. The tail of w is that of the draws of q; draws of the prior,
        of which few may count, need an effective size of their own where their share is notable.
        """
        both = np.stack([of_q, of_prior])
        both = np.fmax(both, both.max((0, 1)) - 700.0)  # zero, but a number
        tail, count = diagnose(both[0]), both.shape[1]
        scaled, own = np.exp(both - both.max((0, 1))), np.exp(both - both.max(1, keepdims=True))
        means, sizes = scaled.mean(1), own.sum(1) ** 2 / (own**2).sum(1)
        shares = means / means.sum(0)
        wider = interval_factor(np.clip(sizes, 2.0, count))
        wider[0] *= tail_factor(tail.k_hat, count)
        spread = np.sqrt(np.sum((wider * scaled.std(1, ddof=1)) ** 2, 0) / count) / means.sum(0)
        matters = shares > LEAST_SHARE
        few = np.any(matters & (sizes < min(10, count / 2)), 0)
        heavy = matters[0] & tail.doubts["k-hat"]
        bound = Bounds.from_log_weights(np.concatenate(both))
        trust = Diagnostics(
            tail.k_hat,
            bound.effective_size,
            ~(heavy | few),
            {"k-hat": heavy, "effective size": few},
        )
        self.add(MIXED, bound.iwae, spread, trust)

    def add_chains(self, annealed, start):
        """Add the bound of chains that started at a q with the `Diagnostics` start."""
        trust = diagnose(annealed.log_weights, start=start)
        acceptance = annealed.acceptance.mean(0)
        trust = trust._replace(acceptance=acceptance)
        trust = trust.doubting("acceptance", acceptance < _LEAST_ACCEPTANCE)
        count = len(annealed.log_weights)
        heavy = np.where(trust.doubts["k-hat"], trust.k_hat, 0.0)
        error = annealed.careful_error() * interval_factor(count) * tail_factor(heavy, count)
        self.add("annealed", annealed.log_evidence(), error, trust)


def _joined(before, new):
    """Arrays, named tuples and dictionaries of arrays over data, put together."""
    if before is None:
        return new
    if isinstance(new, dict):
        return {key: _joined(before[key], new[key]) for key in new}
    if isinstance(new, tuple):
        return type(new)(*(_joined(a, b) for a, b in zip(before, new, strict=True)))
    return None if new is None else np.concatenate([before, new])
