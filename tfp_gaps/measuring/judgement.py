"""What `measure` says of its bounds: which stands for the evidence, and what not to trust.

Said per datum: a search that two starts end differently, a second mode, bounds that contradict each
other, slack between bounds from below and above, a gap far above the others.
"""

import warnings
from typing import NamedTuple

import numpy as np

from tfp_gaps.bounds import note
from tfp_gaps.estimate import Estimate
from tfp_gaps.gaps import GapReport, carriers, split
from tfp_gaps.measuring.found import LEAST_SHARE, MIXED
from tfp_gaps.posteriors.search import FAMILIES

_ERRORS = 4.0
"""Differences count from so many errors on: among thousands of data few cross it by chance."""

_NATS = 0.05
"""What a datum may be off by without a word."""

_APART = 3.0
"""Two ends are different modes if so many standard deviations lie between them."""

_SLACK = 0.5
"""Nats between upper and lower bound above which chains are not to be trusted."""


class SearchDiagnostics(NamedTuple):
    """Whether the search for the best q found it, datum by datum.

    other: ELBO where the search from the second start ended, minus that of the first; NaN without
      a second start, or if it diverged. The better end is taken.
    other_error: its standard error over draws.
    apart: distance of the two ends, in standard deviations of q.
    drift: rise of the ELBO in the last tenth of the steps; NaN for fewer than twenty.
    drift_error: its standard error over steps.
    reliable: bool [data]: nothing speaks against it.
    doubts: {what speaks against it: bool [data]}: "two starts" end with different ELBOs, "another
      mode" of a notable share, "still rising".
    """

    other: np.ndarray
    other_error: np.ndarray
    apart: np.ndarray
    drift: np.ndarray
    drift_error: np.ndarray
    reliable: np.ndarray
    doubts: dict

    def note(self):
        """`", unreliable"`, with the count of data and the reasons, or nothing."""
        return note(self.doubts)


def of_one_start(ended):
    """`SearchDiagnostics` of a search from one start."""
    unknown = np.full(len(ended.drift), np.nan)
    rising = _rising(ended.drift, ended.drift_error)
    doubts = {"still rising": rising}
    return SearchDiagnostics(
        unknown, unknown, unknown, ended.drift, ended.drift_error, ~rising, doubts
    )


def of_two_starts(gain, gain_error, apart, drift, drift_error):
    """`SearchDiagnostics` of a search from two starts, whose fields these are."""
    differ = np.abs(gain) > _ERRORS * gain_error + _NATS
    share = np.exp(-np.abs(gain))  # of the lesser mode against the other
    modes = (apart > _APART) & (share > LEAST_SHARE)
    doubts = {"two starts": differ, "another mode": modes}
    doubts |= {"still rising": _rising(drift, drift_error)}
    reliable = ~np.any(list(doubts.values()), axis=0)
    return SearchDiagnostics(gain, gain_error, apart, drift, drift_error, reliable, doubts)


def _rising(drift, error):
    return drift > _ERRORS * error + _NATS


def contradictions(found, slack):
    """Doubt bounds that others show to be loose: a higher bound, a second mode, or slack."""
    bounds, errors, trust = found.bounds, found.errors, found.diagnostics
    own, *others = candidates = [name for name in trust if not name.startswith("ELBO")]

    def is_higher(other, name):
        limit = _ERRORS * np.hypot(errors[other], errors[name]) + 2 * _NATS
        return bounds[other] - bounds[name] > limit

    searches = [t for t in trust.values() if "another mode" in t.doubts]
    modes = [t.doubts["another mode"] for t in searches]
    if MIXED not in trust:  # without draws of a prior, how much the lesser end holds is not known
        modes += [t.doubts["two starts"] & (t.apart > _APART) for t in searches]
    for name in others:
        if modes and name != MIXED:  # chains start at the best q
            trust[name] = trust[name].doubting("another mode", np.any(modes, axis=0))
        for other in candidates:
            trust[name] = trust[name].doubting(f"{other} is higher", is_higher(other, name))
    if modes and MIXED not in trust:  # the posterior may hold more, but then it is higher
        missed = np.any(modes, axis=0) & ~is_higher(own, "IWAE, best q")
        trust[own] = trust[own].doubting("another mode", missed)
    if slack is not None and "annealed" in trust and slack.interval()[0] > _SLACK:
        everywhere = np.ones(len(bounds["annealed"]), bool)
        trust["annealed"] = trust["annealed"].doubting("slack of bounds", everywhere)


def evidence(found, given):
    """The known evidence, or a lower bound: (values, errors, basis).

    Of the bounds that cannot be told from the one whose interval has the highest lower end, the one
    with the fewest unreliable data, and then with the smallest error: were it the highest value,
    the maximum of several noisy numbers would be taken, which lies too high.
    """
    if given is not None:
        return given, np.zeros(len(given)), {"evidence": "known"}
    names = [name for name in found.diagnostics if not name.startswith("ELBO")]
    value = {name: found.bounds[name].mean() for name in names}
    error = {name: _error_of_mean(name, found.errors[name]) for name in names}
    score = {name: value[name] - 1.96 * error[name] for name in names}
    top = max(names, key=score.get)
    near = [
        name
        for name in names
        if value[name] + 1.96 * np.hypot(error[name], error[top]) >= value[top]
    ]
    best = min(near, key=lambda name: (np.sum(~found.diagnostics[name].reliable), error[name]))
    said = note_of(found.diagnostics, best)
    if said:
        k_hat, sizes = found.diagnostics[best][:2]
        warnings.warn(
            f"the evidence, {best}, is{said[1:]}. k-hat is up to {np.max(k_hat):.2f} (0.7 is the "
            f"limit), the effective size down to {sizes.min():.1f}. Neither its value nor its "
            f"standard error can be trusted: find a wider q, or give ln p(x).",
            RuntimeWarning,
            stacklevel=3,
        )
    basis = {"evidence": f"{best}, a lower bound{said}"}
    return found.bounds[best], found.errors[best], basis


def _error_of_mean(name, errors):
    """Of draws that are independent over data, or, where draws of the prior are shared, not."""
    if name == MIXED:
        return errors.mean()
    return np.sqrt(np.sum(errors**2)) / len(errors)


def basis_of_search(found, effort):
    """In which family the approximation gap counts, and whether q is richer; {step: words}."""
    name = effort.families[0]
    said = note_of(found.diagnostics, "ELBO, best q")
    basis = {"best_per_datum": f"the best of {name}, {FAMILIES[name].label}{said}"}
    above = found.bounds["ELBO"] - found.bounds["ELBO, best q"]
    errors = np.hypot(found.errors["ELBO"], found.errors["ELBO, best q"])
    error = _error_of_mean("ELBO", errors)
    if above.mean() > _ERRORS * error + 1e-3:
        basis["elbo"] = f"better than the best of {name}"
        warnings.warn(
            f"the posterior's ELBO is {above.mean():.3g} ± {error:.2g} nats above that of the best "
            f"{name} q: the posterior is richer than this family, the search ended too early, or "
            f"the posterior's ln q lacks a term. "
            f"The approximation gap is that of {name}, and the amortisation part is negative. "
            f"Name the posterior's own family, Effort(family=...), one of {', '.join(FAMILIES)}.",
            RuntimeWarning,
            stacklevel=3,
        )
    return basis


def flagged(found, evidence):
    """{index: reasons} of data with an unreliable bound or a gap far above the others."""
    reasons = {}
    for name, trust in found.diagnostics.items():
        for reason, where in trust.doubts.items():
            for index in np.flatnonzero(where):
                reasons.setdefault(int(index), []).append(f"{name}: {reason}")
    gaps = evidence - found.bounds["ELBO"]
    middle = np.median(gaps)
    spread = np.median(np.abs(gaps - middle)) + found.errors["ELBO"]
    for index in np.flatnonzero(gaps - middle > 10 * spread + 1.0):
        reasons.setdefault(int(index), []).append(
            f"the gap is {gaps[index]:.3g} nats, its median {middle:.2g}"
        )
    return {index: tuple(reasons[index]) for index in sorted(reasons)}


def note_of(diagnostics, name):
    """What speaks against a bound, as `bounds.note`; nothing where nothing was looked at."""
    return diagnostics[name].note() if name in diagnostics else ""


def report(bounds, errors, evidence, is_shared, basis):
    """Paired over data; of a single datum, with the errors over draws, taken for independent."""
    names = {"elbo": "ELBO", "best_per_datum": "ELBO, best q"}
    if is_shared:
        names["best_shared"] = "ELBO, best shared q"
    if len(bounds["ELBO"]) > 1:
        given = {key: bounds[name] for key, name in names.items()}
        return split({"evidence": evidence[0], **given}, basis=basis)
    given = {
        key: Estimate(float(bounds[name][0]), float(errors[name][0]), kind="Monte Carlo")
        for key, name in names.items()
    }
    top = Estimate(float(evidence[0][0]), float(evidence[1][0]), kind="Monte Carlo")
    nothing = Estimate.exact(0.0)
    last = given.get("best_shared", given["best_per_datum"])
    return GapReport(
        top,
        approximation=top - given["best_per_datum"],
        conditioning=given["best_per_datum"] - last if is_shared else nothing,
        capacity=nothing,
        optimisation=last - given["elbo"],
        elbo=given["elbo"],
        total=top - given["elbo"],
        basis=basis,
        counted_as=carriers(given),
    )
