"""The gap between evidence and ELBO, split into its four parts.

    ln p - L[q_phi] = (ln p - L[q*_x])          approximation: the family
                    + (L[q*_x] - L[q*_C])       conditioning:  what q may not see
                    + (L[q*_C] - L[q_best])     capacity:      the network
                    + (L[q_best] - L[q_phi])    optimisation:  its training

q*_x is the best member of the family for each datum, q*_C the best that depends on the included
conditions C alone, q_best the best that the network can express, q_phi the trained one. This is the
order "approximation first" of the book; capacity and optimisation together are the amortisation gap
(Soelch 2021; Cremer et al. 2018).

Every part is a difference of means over the same data, so its error is that of the paired
difference. Parts are never clipped: bounds are estimates, and a part may come out below zero within
its error. Values are nats per datum, or per sequence.
"""

import itertools
import warnings
from dataclasses import dataclass, field

import numpy as np

from tfp_gaps import _checks
from tfp_gaps.estimate import Estimate, paired_difference
from tfp_gaps.tables import Table

PARTS = ("approximation", "conditioning", "capacity", "optimisation")
_FOUR_ERRORS = 1 - 6.3e-5
"""Level of a normal interval of four errors to each side."""
_STEPS = ("evidence", "best_per_datum", "best_shared", "best_network", "elbo")


@dataclass(frozen=True, repr=False)
class GapReport:
    """evidence - elbo = approximation + conditioning + capacity + optimisation, each an `Estimate`.

    basis: {"evidence" | "best_per_datum" | "best_shared" | "best_network" | "elbo": which bound
      or formula it rests on}; what is missing there was not told.
    counted_as: {part that was not measured: part that holds it}. Its estimate is exactly zero, and
      tables say so in words.

    >>> report = decompose(evidence=-1.0, best_per_datum=-1.25, elbo=-2.0)
    >>> {name: part.value for name, part in report.parts.items() if part.value}
    {'approximation': 0.25, 'optimisation': 0.75}
    """

    evidence: Estimate
    approximation: Estimate
    conditioning: Estimate
    capacity: Estimate
    optimisation: Estimate
    elbo: Estimate
    total: Estimate
    basis: dict = field(default_factory=dict)
    counted_as: dict = field(default_factory=dict)

    @property
    def parts(self):
        """{name: `Estimate`} of the four parts, in order."""
        return {name: getattr(self, name) for name in PARTS}

    def __repr__(self):
        return str(self.table())

    def residual(self):
        """total - sum of the parts, nats: rounding alone."""
        return self.total.value - sum(part.value for part in self.parts.values())

    def _doubt(self, step):
        """What `basis` says from ", unreliable" on, or nothing."""
        return "".join(self.basis.get(step, "").partition(", unreliable")[1:])

    def in_words(self, name):
        """A part as tables show it: its estimate, or where it was counted if not measured."""
        carrier = self.counted_as.get(name)
        return f"not measured (counted as {carrier})" if carrier else str(self.parts[name])

    def table(self):
        """The report as a `Table`, one row per part."""
        rows = [[f"evidence{self._doubt('evidence')}", self.evidence]]
        for name, part in self.parts.items():
            doubt = self._doubt("best_per_datum") if name == "approximation" else ""
            better = self.basis.get("elbo", "").startswith("better")
            if name == "optimisation" and better and part.value < 0:
                doubt = f": q is {self.basis['elbo']}"
            rows.append([f"− {name} gap{doubt}", self.in_words(name)])
        return Table(["nats", "mean ± standard error"], [*rows, ["= ELBO", self.elbo]])


def decompose(
    *,
    evidence,
    elbo,
    best_per_datum=None,
    best_shared=None,
    best_network=None,
    kind="data points",
    basis=None,
):
    """Split evidence - ELBO into its four parts.

    Each argument is a vector over the same data in the same order (or over seeds, see `kind`), or a
    number where the expectation is known. What is not given is taken to be equal to its neighbour,
    which makes the part between them exactly zero, counts it as the next part that is measured, and
    is said in the table: without `best_network` capacity counts as optimisation. Where a part is
    zero because q sees everything, or the family holds the posterior, give its neighbour twice.

    Args:
      evidence: ln p(x), [data] or a number, nats.
      elbo: L[q_phi].
      best_per_datum: L[q*_x]; left out: equal to the evidence.
      best_shared: L[q*_C]; left out: equal to best_per_datum.
      best_network: L[q_best]; left out: equal to best_shared.
      kind: which repetition the entries of the vectors are, for the errors.
      basis: {argument: which bound it is}.

    Returns:
      `GapReport`.

    Raises:
      ValueError: for vectors of different lengths, NaN, unknown keys in `basis`, or numbers of
        which the ELBO lies above the evidence. A datum without a finite bound has no gap: find out
        why, or report it as diverged.

    Warns:
      RuntimeWarning: where the ELBO lies above the evidence by more than 4 errors, wider by
        Student's t for few data.

    >>> report = decompose(evidence=-1.0, best_per_datum=-1.25, elbo=-2.0)
    >>> print(report.approximation, report.conditioning, report.optimisation)
    0.2500 0 0.7500
    >>> report.in_words("capacity")
    'not measured (counted as optimisation)'
    """
    bounds = {
        "evidence": evidence,
        "best_per_datum": best_per_datum,
        "best_shared": best_shared,
        "best_network": best_network,
        "elbo": elbo,
    }
    report = split(bounds, kind=kind, basis=basis)
    _check_total(report)
    return report


def split(given, *, kind="data points", basis=None):
    """`decompose` of {argument: values}, without a word where the ELBO lies above the evidence.

    For bounds whose errors over draws are known and were looked at: errors over data do not hold
    what data share, such as draws of a prior.
    """
    for key in basis or {}:
        _checks.one_of(key, "entry of basis", _STEPS)
    values, last = [], given["evidence"]
    for name in _STEPS:
        last = last if given.get(name) is None else given[name]
        values.append(_values(last, name))
    _check_lengths(values)
    parts = [_difference(a, b, kind) for a, b in itertools.pairwise(values)]
    return GapReport(
        _mean(values[0], kind),
        *parts,
        elbo=_mean(values[-1], kind),
        total=_difference(values[0], values[-1], kind),
        basis=dict(basis or {}),
        counted_as=carriers(name for name in _STEPS if given.get(name) is not None),
    )


def _check_total(report):
    """Refuse numbers, and doubt vectors, of which the ELBO is above the evidence: no such gap."""
    total, said = report.total, f"but evidence - ELBO is {report.total} nats"
    why = (
        "The evidence lacks a term or is a bound that is not tight, the ELBO is of other data, or "
        "q is not normalised."
    )
    if total.kind == "exact" and total.value < -1e-3 - 1e-6 * abs(report.evidence.value):
        raise ValueError(f"evidence must not be below the ELBO, {said}. {why}")
    if total.kind != "exact" and total.confidence_interval(_FOUR_ERRORS)[1] < -1e-3:
        warnings.warn(
            f"the evidence should not be below the ELBO, {said}. {why}",
            RuntimeWarning,
            stacklevel=3,
        )


def carriers(given):
    """{part that was not measured: part that holds it}, by which bounds there are besides ELBO.

    >>> carriers(["evidence", "best_shared", "elbo"])
    {'approximation': 'conditioning', 'capacity': 'optimisation'}
    """
    given, found, carrier = set(given), {}, PARTS[-1]
    for name, step in reversed(list(zip(PARTS[:-1], _STEPS[1:-1], strict=True))):
        if step in given:
            carrier = name
        else:
            found[name] = carrier
    return dict(reversed(found.items()))


def _values(value, name):
    if isinstance(value, Estimate):
        raise ValueError(
            f"{name} must be one number per datum, or a number, but is the estimate {value}: "
            f"differences are paired over data. Pass the values that it was made from."
        )
    array = _checks.finite_array(
        value,
        name,
        advice="A datum without a finite bound has diverged: report it, do not drop it.",
    )
    if array.ndim > 1:
        raise ValueError(
            f"{name} must be a vector over data, or a number, but has shape {array.shape}. "
            f"Decompose one replica at a time."
        )
    return array


def _check_lengths(values):
    lengths = sorted({array.size for array in values if array.ndim})
    if len(lengths) > 1:
        raise ValueError(
            f"all bounds must be over the same data, but their lengths are {lengths}. Evaluate "
            f"each on the same points, in the same order."
        )


def _difference(first, second, kind):
    """Paired where both are vectors; a number has no error."""
    if first is second or (first.ndim == second.ndim == 0):
        return Estimate.exact(np.mean(first) - np.mean(second))
    if first.ndim == second.ndim:
        return paired_difference(first, second, kind=kind)
    return _mean(first, kind) - _mean(second, kind)


def _mean(values, kind):
    if values.ndim == 0:
        return Estimate.exact(values)
    return Estimate.from_samples(values, kind=kind)
