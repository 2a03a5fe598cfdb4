"""The gaps of a model that somebody brings: any joint distribution, and any approximation of it.

    ln p(x) >= IWAE-K >= ELBO = E_q [ln p(x, z) - ln q(z)],      gap = ln p(x) - ELBO

The model is a `tfd.JointDistribution*` with one observed part; its other parts are z. The
approximation q is a distribution over these parts, such as the surrogate posteriors of
`tfp.experimental.vi`, or, for amortised inference, a callable that is given the data and returns
one with a batch axis over data. Where parts are constrained, the search for the best q and annealed
importance sampling work on unconstrained numbers, through the model's own default bijector; the
density changes by the Jacobian, the bounds do not.

What cannot be trusted is said per datum: heavy tails and few effective weights, chains that hardly
move, a search that two starts end differently, a second mode, bounds that contradict each other.

Values are nats per datum. A whole data set that is one observation counts as one datum.
"""

import contextlib
import dataclasses
import functools
import warnings
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks, annealing, storage, tables
from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.bounds import Bounds, Diagnostics, diagnose, interval_factor, note, tail_factor
from tfp_gaps.estimate import Estimate, paired_difference
from tfp_gaps.gaps import GapReport, decompose
from tfp_gaps.models import joint_checks
from tfp_gaps.models.joint import Model
from tfp_gaps.models.observations import num_data, select
from tfp_gaps.posteriors.search import FAMILIES, Prior, Search, families_for
from tfp_gaps.tables import Table

tfd = tfp.distributions

_ERRORS = 4.0
"""Differences count from so many errors on: among thousands of data few cross it by chance."""

_NATS = 0.05
"""What a datum may be off by without a word."""

_LEAST_SHARE = 0.05
"""Of the evidence, from which on a second mode is reported."""

_APART = 3.0
"""Two ends are different modes if so many standard deviations lie between them."""

_SLACK = 0.5
"""Nats between upper and lower bound above which chains are not to be trusted."""

_LEAST_ACCEPTANCE = 0.3
_MIXED = "IWAE, best q and prior"


@dataclass(frozen=True)
class Effort:
    """How much is spent on each bound.

    num_samples: K draws of q for ELBO and IWAE-K.
    search_steps: of Adam, for the best q; learning_rate falls along a cosine to a twentieth.
    search_samples: draws per step.
    num_chains, num_temperatures: of annealed importance sampling; 0 chains for none.
    jit_compile: compile the chains with XLA, as in `annealing.forward`.
    family: of the best q, over unconstrained numbers: "mean_field" (independent normals),
      "low_rank" or "full" (normals), "flow" (affine coupling), or several of them. The
      approximation gap is counted in the first; the others give bounds on the evidence.
    num_starts: 2 to search twice, from q and from where the first search lacks most, and compare
      the ends; 1 to save the time, and not to know.
    num_simulated: data that the model is asked for, to measure how far upper and lower bounds of
      annealing are apart; 0 for none.
    numbers_at_once: of the largest tensor asked of log p: draws x data x (latent numbers and
      observed values, or parameters of q). Bounds the memory: 4 million take below 1 GB in all.

    >>> Effort(num_chains=0).num_samples  # no annealing
    1000
    """

    num_samples: int = 1000
    search_steps: int = 1000
    learning_rate: float = 5e-2
    search_samples: int = 16
    num_chains: int = 16
    num_temperatures: int = 300
    jit_compile: bool = False
    family: str | tuple = "mean_field"
    num_starts: int = 2
    num_simulated: int = 0
    numbers_at_once: int = 4_000_000

    def __post_init__(self):
        _checks.integer(self.num_samples, "num_samples", minimum=2, advice="Use 1000 for tables.")
        for name in ("search_steps", "search_samples", "num_temperatures", "numbers_at_once"):
            _checks.integer(getattr(self, name), name, minimum=1)
        _checks.positive_float(self.learning_rate, "learning_rate")
        _checks.integer(self.num_starts, "num_starts", minimum=1, maximum=2)
        for name, advice in (
            ("num_chains", "Give 0 for none, or 16: a single one has no error."),
            ("num_simulated", "Give 0 for none, or 20: a single datum has no error."),
        ):
            if _checks.integer(getattr(self, name), name, minimum=0) == 1:
                raise ValueError(f"{name} must be 0 or at least 2, but is 1. {advice}")
        if self.num_simulated and not self.num_chains:
            raise ValueError(
                "num_simulated needs chains for its two bounds, but num_chains is 0. Use 16."
            )
        names = (self.family,) if isinstance(self.family, str) else tuple(self.family)
        for name in names:
            _checks.one_of(name, "family", FAMILIES)
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"family must be one or several different ones of {', '.join(FAMILIES)}, but is "
                f"{self.family!r}."
            )

    @property
    def families(self):
        """The names of the families, a tuple."""
        return (self.family,) if isinstance(self.family, str) else tuple(self.family)


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


class Draws(NamedTuple):
    """What q drew for its ELBO.

    parts: {name: [draws, data, *event]}, in the model's dtypes.
    log_weights: ln p(x, z) - ln q(z), [draws, data].
    observed: {name: [data, *event]}.
    """

    parts: dict
    log_weights: np.ndarray
    observed: dict


@dataclass(frozen=True, repr=False)
class Measured:
    """What was found.

    report: `gaps.GapReport`.
    bounds: {name: float64 [data]}, lower bounds on ln p(x).
    errors: {name: float64 [data]}, their standard errors over draws or chains, with rounding, and
      wider where there are few chains or the weights have a heavy tail, so that value ± 1.96
      errors is an interval of 95 %.
    diagnostics: {name: `bounds.Diagnostics`} of the bounds that rest on importance weights, and
      {"ELBO, best q": `SearchDiagnostics`} of searches.
    flagged: {index of a datum: reasons}: what is unreliable, and gaps far above the others.
    slack: upper minus lower bound on data that the model made, an `Estimate`, or None.
    draws: `Draws` of q, or None where they did not fit into one batch of `numbers_at_once`.

    >>> joint = tfd.JointDistributionNamedAutoBatched(
    ...     {"z": tfd.Normal(0.0, 1.0), "x": lambda z: tfd.Normal(z, 1.0)})
    >>> found = measure(Model(joint, "x", example=0.0), tfd.Normal(0.5, 0.5**0.5), 1.0, seed=0,
    ...                 effort=Effort(search_steps=200, num_chains=0))
    >>> print(found.bounds["ELBO"].round(3), sorted(found.diagnostics))  # ln N(1; 0, 2)
    [-1.516] ['ELBO, best q', 'IWAE', 'IWAE, best q', 'IWAE, best q and prior']
    >>> found.flagged
    {}
    """

    report: GapReport
    bounds: dict
    errors: dict
    diagnostics: dict
    flagged: dict = field(default_factory=dict)
    slack: Estimate | None = None
    draws: Draws | None = None

    def __repr__(self):
        count = len(self.bounds["ELBO"])
        data = "a single datum" if count == 1 else f"{count} data"
        return f"Measured of {data}\n{self.table()}\n\n{self.report!r}"

    def table(self):
        """The bounds as a `Table`: mean over data with the error over data, or, for a single
        datum, its value with the error over draws."""
        rows = [
            [name + _note(self.diagnostics, name), _mean(values, self.errors[name])]
            for name, values in self.bounds.items()
        ]
        if self.slack is not None:
            rows.append(["upper minus lower bound, on simulated data", self.slack])
        return Table(["nats per datum", "mean ± standard error"], rows)

    def to_dataframe(self):
        """A `pandas.DataFrame`, one row per bound and datum, in nats per datum.

        Columns: bound, datum, value, error; reliable and doubts (reasons in one string) where there
        are diagnostics, and k_hat and effective_size where the bound rests on importance weights;
        missing elsewhere.

        Raises:
          ImportError: without pandas.
        """
        return tables.data_frame(self.bounds, self.errors, self.diagnostics)

    def to_inference_data(self):
        """The draws of q as ArviZ reads them, an `xarray.DataTree`.

        posterior: each part, [chain, draw, datum, *event], with a single chain; draws of q, not of
        p(z | x): weight them. sample_stats: log_weight, ln p(x, z) - ln q(z), [chain, draw, datum].
        observed_data: [datum, *event].

        Raises:
          ImportError: without arviz-base.
          ValueError: where the draws were not kept.
        """
        if self.draws is None:
            raise ValueError(
                "to_inference_data needs the draws of q, but JSON does not keep them, nor does "
                "measure where they come in batches. Call it on what measure returned, of fewer "
                "data, or with more numbers_at_once in Effort."
            )
        groups = {
            "posterior": self.draws.parts,
            "sample_stats": {"log_weight": self.draws.log_weights},
            "observed_data": self.draws.observed,
        }
        return tables.data_tree(
            groups, {name: ["datum"] for part in groups.values() for name in part}
        )

    def to_json(self):
        """All but the draws of q as a JSON string; every number comes back bit for bit."""
        return storage.to_json(dataclasses.replace(self, draws=None))

    @classmethod
    def from_json(cls, text):
        """Read what `to_json` wrote; no code in it is run.

        Raises:
          ValueError: for text that is not of `to_json`.
        """
        return storage.from_json(text, (cls, GapReport, Estimate, Diagnostics, SearchDiagnostics))


def measure(
    model, posterior, data, *, seed, completions=None, evidence=None, effort=Effort(), progress=None
):
    """Bound ln p(x) and split what the ELBO of a posterior lacks.

    Args:
      model: `Model`.
      posterior: a distribution over the model's latent parts, or a callable (x [data, *event]) ->
        such a distribution with a batch axis over data.
      data: observed values, [data, *event], or a single one.
      seed: int. Data and draws that do not fit into `Effort.numbers_at_once` come in batches; the
        first batch has this seed, each other one of its own, made of this seed and its place.
      completions: data that agree with each datum in all that q sees, and are drawn from p(rest |
        what q sees) otherwise, [completions, data, *event]; gives the conditioning gap. None if q
        sees everything, or if that gap is to be counted as amortisation.
      evidence: ln p(x), [data], where it is known; None to take a lower bound: the one with the
        highest value minus 1.96 errors, or, among those within their errors of it, the one with
        the fewest unreliable data.
      effort: `Effort`.
      progress: None, or a function that is called with a label, what is done, and of how much.

    Returns:
      `Measured`. Approximation counts against the first of `Effort.family`, which
      `report.basis["best_per_datum"]` names.

    Raises:
      ValueError: as `Model.data`, `Model.draw` and `Effort`, for densities that are not finite or
        are rounded by more than 0.1 nats, and for evidence of another length or below the ELBO.

    Warns:
      RuntimeWarning: where the evidence cannot be trusted by its `Diagnostics`, is rounded by more
        than 0.01 nats, or the posterior is better than the best q of the family.

    >>> joint = tfd.JointDistributionNamedAutoBatched(
    ...     {"z": tfd.Normal(0.0, 1.0), "x": lambda z: tfd.Normal(z, 1.0)})
    >>> model = Model(joint, "x", example=0.0)
    >>> found = measure(model, lambda x: tfd.Normal(0.5 * x, 0.5**0.5), [0.0, 2.0], seed=0,
    ...                 effort=Effort(search_steps=200, num_chains=0))
    >>> bool(abs(found.report.total.value) < 0.01)  # the posterior is exact
    True
    """
    _check_model(model)
    _check_posterior(posterior)
    _checks.seed(seed)
    x = model.data(data)
    if completions is not None:
        completions = _completions(model, completions, x)
    run = _Run(model, effort, seed, progress)
    starts, rounded = run.bound_posterior(posterior, x)
    found, known = run.found, None
    if evidence is not None:
        known = joint_checks.known_evidence(
            evidence, found.bounds, found.errors, num_data(x), rounded
        )
    try:
        run.search_and_anneal(x, starts, completions)
        slack = run.slack() if effort.num_simulated else None
    except ValueError as error:
        own = ", ".join(f"{name} {found.bounds[name].mean():.6g}" for name in ("ELBO", "IWAE"))
        raise ValueError(f"{error} The bounds found before are {own} nats per datum.") from error
    if evidence is not None:
        joint_checks.known_evidence(evidence, found.bounds, found.errors, num_data(x), rounded)
    _contradictions(found, slack)
    values, errors, basis = _evidence(found, known)
    basis |= _basis_of_search(found, effort)
    report = _report(found.bounds, found.errors, (values, errors), completions is not None, basis)
    flagged = _flagged(found, values)
    return Measured(
        report, found.bounds, found.errors, found.diagnostics, flagged, slack, run.draws
    )


def upper_bound(model, latents, data, *, seed, effort=Effort()):
    """Bound ln p(x) from above for data that the model made, by annealing backwards from z.

    Args:
      model: `Model`.
      latents: {name: [1, data, *event]}, what made the data: an exact draw of their posterior, as
        from `Model.simulate`.
      data: [data, *event].
      seed: int.
      effort: `Effort` with at least one chain. Batches as in `measure`.

    Returns:
      (float64 [data], standard errors over chains [data]).

    >>> joint = tfd.JointDistributionNamedAutoBatched(
    ...     {"z": tfd.Normal(0.0, 1.0), "x": lambda z: tfd.Normal(z, 1.0)})
    >>> model = Model(joint, "x", example=0.0)
    >>> latents, x = model.simulate(3, seed=0)
    >>> effort = Effort(search_steps=100, num_chains=4, num_temperatures=20)
    >>> bound, error = upper_bound(model, latents, x, seed=0, effort=effort)
    >>> bound.shape, error.shape
    ((3,), (3,))
    """
    _check_model(model)
    _checks.seed(seed)
    _checks.integer(effort.num_chains, "num_chains", minimum=1)
    run = _Run(model, effort, seed)
    return run.bound_above(latents, model.data(data))[:2]


class _Found:
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
        scaled = np.exp(both - both.max((0, 1)))
        means, sizes = scaled.mean(1), scaled.sum(1) ** 2 / (scaled**2).sum(1)
        shares = means / means.sum(0)
        wider = interval_factor(np.clip(sizes, 2.0, count))
        wider[0] *= tail_factor(tail.k_hat, count)
        spread = np.sqrt(np.sum((wider * scaled.std(1, ddof=1)) ** 2, 0) / count) / means.sum(0)
        matters = shares > _LEAST_SHARE
        few = np.any(matters & (sizes < min(10, count / 2)), 0)
        heavy = matters[0] & tail.doubts["k-hat"]
        bound = Bounds.from_log_weights(np.concatenate(both))
        trust = Diagnostics(
            tail.k_hat,
            bound.effective_size,
            ~(heavy | few),
            {"k-hat": heavy, "effective size": few},
        )
        self.add(_MIXED, bound.iwae, spread, trust)

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


class _Run:
    """One measurement: what its batches share."""

    def __init__(self, model, effort, seed, progress=None):
        self.model, self.effort, self.seed, self.progress = model, effort, seed, progress
        self.found, self.draws = _Found(), None
        self.families = families_for(effort.families, model.num_numbers)
        self._searches = {}
        # One datum in one draw, in numbers: what log p sees of it, or what a family keeps of it.
        self._size = model.size
        draws = max(effort.search_samples, effort.num_chains)
        kept = max(family.size for family in self.families.values())
        per_datum = max(effort.num_samples, draws * self._size, kept)
        self._data_at_once = max(1, effort.numbers_at_once // per_datum)

    def _in_batches(self, count, label, work):
        """[work(first, end)] for the data of each batch."""
        found = []
        for first in range(0, count, self._data_at_once):
            end = min(count, first + self._data_at_once)
            with _counted_from(first, end):
                found.append(work(first, end))
            self._report(label, end, count)
        return found

    def _draws_at_once(self, num_data):
        return max(1, self.effort.numbers_at_once // (num_data * self._size))

    def _report(self, label, done, total):
        if self.progress is not None:
            self.progress(label, done, total)

    def bound_posterior(self, posterior, x):
        """ELBO and IWAE of q: (moments of its draws, each [data, numbers]; rounding, nats)."""

        def work(first, end):
            q = _part_of(posterior, first, end, num_data(x))
            draw = functools.partial(self.model.draw, q, select(x, slice(first, end)))
            weights, rounded, parts = self._weights(
                draw, select(x, slice(first, end)), _seed(self.seed, first), "the posterior"
            )
            if len(weights) == len(parts[self.model.latents[0]]) and end - first == num_data(x):
                self.draws = Draws(
                    {name: part.numpy() for name, part in parts.items()},
                    weights,
                    self.model.named(x),
                )
            self.found.add_weights("", weights, rounded)
            return *_moments(self.model, parts), rounded

        parts = self._in_batches(num_data(x), "draws of the posterior", work)
        means, sds, rounded = zip(*parts, strict=True)
        return [np.concatenate(means), np.concatenate(sds)], max(rounded)

    def _weights(self, draw, x, seed, name):
        """(ln p - ln q in the model's dtype [draws, data], rounding in nats, the first parts)."""
        count, at_once = self.effort.num_samples, self._draws_at_once(num_data(x))
        found, largest, start = [], 0.0, None
        for first in range(0, count, at_once):
            parts, log_q = draw(min(at_once, count - first), _seed(seed, first))
            weights, rounded = _weights(self.model, parts, log_q, x, name)
            found.append(weights)
            largest, start = max(largest, rounded), parts if start is None else start
        return np.concatenate(found), largest, start

    def _member_weights(self, member, x, seed, name):
        def draw(count, seed):
            return member.draw(count, tf.constant([seed, 0], tf.int32))

        return self._weights(draw, x, seed, name)[:2]

    def _search(self, name, num_data):
        if (name, num_data) not in self._searches:
            self._searches[name, num_data] = Search(
                self.model,
                self.families[name],
                num_data,
                num_steps=self.effort.search_steps,
                learning_rate=self.effort.learning_rate,
                num_samples=self.effort.search_samples,
            )
        return self._searches[name, num_data]

    def _steps(self, label, first, end, total):
        """`progress` of a search over the data from `first` to `end`."""
        steps = self.effort.search_steps

        def taken(number):
            if number % max(1, steps // 10) == 0:
                self._report(label, (first * steps + (end - first) * number) // steps, total)

        return taken if self.progress is not None else None

    def search_and_anneal(self, x, starts, completions):
        """The best q of each family, chains from the best of these, and the best shared q."""
        prior = Prior(self.model, self.effort.num_samples // 2, self.seed)

        def work(first, end):
            part, seed = select(x, slice(first, end)), _seed(self.seed, first)
            start = [moment[first:end] for moment in starts]
            best, trust = self._best_of_families(
                start, part, prior, seed, (first, end, num_data(x))
            )
            if self.model.has_prior:
                mixed = self._mixture(best, prior, part, _seed(seed, 0, "mixture"))
                self.found.add_mixture(*mixed)
            if self.effort.num_chains:
                annealed = self._anneal(best, part, seed + 3)
                _check_chains(annealed)
                self.found.add_chains(annealed, trust)
            if completions is not None:
                self._share(
                    start,
                    tf.nest.map_structure(lambda v: v[:, first:end], completions),
                    part,
                    seed + 4,
                )

        self._in_batches(num_data(x), "best q and annealing", work)

    def _best_of_families(self, start, x, prior, seed, place):
        """(the `Member` with the highest mean ELBO, `Diagnostics` of its weights)."""
        found = []
        for index, name in enumerate(self.families):
            label = _best_q(name, self.effort)
            search = self._search(name, num_data(x))
            own = seed if index == 0 else _seed(seed, index, "family")
            taken = self._steps(f"search among {name}", *place)
            ended = search.run(start, _single(x), own + 1, progress=taken)
            member, trust = ended.member, _alone(ended)
            if self.effort.num_starts == 2 and len(prior.numbers) > 1:
                member, trust = self._second(search, ended, x, prior, own)
            weights, rounded = self._member_weights(member, x, own + 2, "the best q")
            self.found.add_weights(label, weights, rounded, trust)
            found.append((weights.mean(), index, member, diagnose(weights)))
        return max(found)[2:]

    def _second(self, search, ended, x, prior, seed):
        """Search from a second start: (the better `Member` of each datum, `SearchDiagnostics`)."""
        first = ended.member
        own = _seed(seed, 0, "second start")
        start = search.second_start(first, x, prior, own, self._draws_at_once(num_data(x)))
        other = search.run(start, _single(x), own, must_end=False)
        value, error = self._elbo(first, x, own + 1)
        other_value, other_error = self._elbo(other.member, x, own + 1)
        (means, sds), (other_means, other_sds) = first.moments(own), other.member.moments(own)
        gain, gain_error = other_value - value, np.hypot(error, other_error)
        better = gain > 3 * gain_error
        apart = (np.abs(other_means - means) / np.hypot(sds, other_sds)).max(-1)
        drift = np.where(better, other.drift, ended.drift)
        drift_error = np.where(better, other.drift_error, ended.drift_error)
        differ = np.abs(gain) > _ERRORS * gain_error + _NATS
        share = np.exp(-np.abs(gain))  # of the lesser mode against the other
        modes = (apart > _APART) & (share > _LEAST_SHARE)
        doubts = {"two starts": differ, "another mode": modes}
        doubts |= {"still rising": drift > _ERRORS * drift_error + _NATS}
        reliable = ~np.any(list(doubts.values()), axis=0)
        trust = SearchDiagnostics(gain, gain_error, apart, drift, drift_error, reliable, doubts)
        return first.where(better, other.member), trust

    def _elbo(self, member, x, seed):
        """(ELBO, its error), each [data].

        From draws of their own: the choice between two ends must not favour the reported bound.
        """
        values, at_once = [], self._draws_at_once(num_data(x))
        for first in range(0, self.effort.num_samples, at_once):
            key = tf.constant([_seed(seed, first), 0], tf.int32)
            parts, log_q = member.draw(min(at_once, self.effort.num_samples - first), key)
            values.append((self.model.log_joint(parts, x) - log_q).numpy())
        summary = Bounds.from_log_weights(np.concatenate(values))
        return summary.elbo, summary.elbo_error

    def _mixture(self, member, prior, x, seed):
        """ln w of as many draws of q as of the prior, under the mixture of both: two [draws, data].

            w = p(x, z) / (q(z) / 2 + p(z) / 2)  <=  2 p(x | z)

        Bounded where the likelihood is, however narrow q, and it sees what q does not reach, if the
        prior does ("defensive" importance sampling: Hesterberg 1995; Owen and Zhou 2000). Draws at
        which something is no number count for nothing, which keeps the bound a lower one.
        """
        count = max(2, self.effort.num_samples // 2)
        at_once, found = max(1, self._draws_at_once(num_data(x)) // 2), []
        for first in range(0, count, at_once):
            end = min(count, first + at_once)
            key = tf.constant([_seed(seed, first), 0], tf.int32)
            of_q, _ = member.draw(end - first, key)
            of_prior = prior.parts(first, end, num_data(x))
            both = {name: tf.concat([of_q[name], of_prior[name]], 0) for name in of_q}
            found.append(np.split(_against_mixture(self.model, member, both, x), 2))
        return np.concatenate(found, axis=1)

    def _share(self, start, completions, x, seed):
        ended = self._search(self.effort.families[0], num_data(x)).run(start, completions, seed)
        weights, rounded = self._member_weights(ended.member, x, seed + 1, "the best shared q")
        self.found.add_weights(", best shared q", weights, rounded, _alone(ended), with_iwae=False)

    def _anneal(self, best, x, seed, draws=None):
        """From the best q, not from the prior: the path is shorter. Backwards from `draws`."""
        effort, density = self.effort, _density(self.model, x)
        options = {"initial": best.q, "dtype": self.model._dtype, "seed": seed}
        options |= {"num_steps": effort.num_temperatures, "jit_compile": effort.jit_compile}
        if draws is not None:
            return annealing.reverse(density, draws, **options)
        return annealing.forward(
            density,
            batch_shape=(num_data(x),),
            latent_size=self.model.num_numbers,
            num_chains=effort.num_chains,
            **options,
        )

    def bound_above(self, latents, x, with_lower=False):
        """(upper bound, its error, lower bound of the same q or nothing), each [data].

        Where the path starts must not depend on the posterior draw, or the bound would be none: the
        search for q begins at the prior.
        """
        prior = Prior(self.model, 0, self.seed).numbers

        def work(first, end):
            part, seed = select(x, slice(first, end)), _seed(self.seed, first)
            start = [
                np.repeat(m[np.newaxis], num_data(part), 0) for m in (prior.mean(0), prior.std(0))
            ]
            search = self._search(self.effort.families[0], num_data(part))
            best = search.run(start, _single(part), seed + 2).member
            made = {name: value[:, first:end] for name, value in latents.items()}
            draws = np.repeat(self.model.unconstrain(made).numpy(), self.effort.num_chains, 0)
            above = self._anneal(best, part, seed + 1, draws)
            error = above.careful_error() * interval_factor(self.effort.num_chains)
            below = self._anneal(best, part, seed + 3).log_evidence() if with_lower else []
            return above.log_evidence(), error, below

        found = self._in_batches(num_data(x), "bound from above", work)
        return [np.concatenate(part) for part in zip(*found, strict=True)]

    def slack(self):
        """Upper minus lower bound on data that the model made, an `Estimate`."""
        seed = _seed(self.seed, 0, "slack")
        latents, x = self.model.simulate(self.effort.num_simulated, seed=seed)
        run = _Run(self.model, self.effort, seed, self.progress)
        upper, _, lower = run.bound_above(latents, x, with_lower=True)
        return paired_difference(upper, lower)


def _against_mixture(model, member, parts, x):
    """ln p(x, z) - ln (q / 2 + p / 2), float64 [draws, data]; -inf for what is no number."""
    found = model.log_prior_and_likelihood(parts, x)
    prior, likelihood = (term.astype(np.float64) for term in found)
    numbers = model.unconstrain(parts)
    _, log_det = model.constrain(numbers)
    log_q = (member.q.log_prob(numbers) - log_det).numpy().astype(np.float64)
    with np.errstate(invalid="ignore"):
        ratio = np.nan_to_num(log_q - prior, nan=-np.inf, neginf=-np.inf)
        log_weights = np.log(2.0) + likelihood - np.logaddexp(ratio, 0.0)
    return np.where(np.isfinite(log_weights), log_weights, -np.inf)


@contextlib.contextmanager
def _counted_from(first, end):
    """Errors name a datum within its batch."""
    try:
        yield
    except ValueError as error:
        if not first:
            raise
        raise ValueError(f"{error} (Data are counted from {first} here, up to {end}.)") from error


def _seed(seed, index, purpose="batch"):
    """`seed` for the first batch; for others one that depends on seed, purpose and place."""
    if not index and purpose == "batch":
        return seed
    words = [abs(seed), index, *purpose.encode()]
    return int(np.random.SeedSequence(words).generate_state(1)[0] % 2**30)


def _part_of(posterior, first, end, count):
    """The posterior of the data of a batch."""
    if not hasattr(posterior, "log_prob") or (first == 0 and end == count):
        return posterior
    try:
        return posterior[first:end]
    except Exception as error:
        raise ValueError(
            f"{count} data come in batches, but this posterior ({type(posterior).__name__}) cannot "
            f"be cut into the same. Give a function of the data that returns it, or raise "
            f"numbers_at_once in Effort."
        ) from error


def _check_chains(annealed):
    failed = annealed.num_failed()
    if failed.any():
        datum = int(np.argmax(failed))
        raise ValueError(
            f"annealing must give a weight for each chain, but {int(failed[datum])} of "
            f"{len(annealed.log_weights)} of datum {datum} have none. Use float64, more "
            f"temperatures, or no chains."
        )


def _check_model(model):
    if not isinstance(model, Model):
        raise ValueError(
            f"model must be a tfp_gaps.Model, but is a {type(model).__name__}. Wrap a joint "
            f"distribution: Model(joint, observed, example=...). The order is measure(model, "
            f"posterior, data)."
        )


def _check_posterior(posterior):
    if isinstance(posterior, Model) or not (hasattr(posterior, "log_prob") or callable(posterior)):
        raise ValueError(
            f"posterior must be a distribution over the latent parts, or a function of the data "
            f"that returns one, but is a {type(posterior).__name__}. The order is measure(model, "
            f"posterior, data)."
        )


# --- judgement ------------------------------------------------------------------------------------


def _best_q(name, effort):
    return ", best q" if name == effort.families[0] else f", best {name} q"


def _alone(ended):
    """`SearchDiagnostics` of a search from one start."""
    unknown = np.full(len(ended.drift), np.nan)
    rising = ended.drift > _ERRORS * ended.drift_error + _NATS
    doubts = {"still rising": rising}
    return SearchDiagnostics(
        unknown, unknown, unknown, ended.drift, ended.drift_error, ~rising, doubts
    )


def _contradictions(found, slack):
    """Doubt bounds that others show to be loose: a higher bound, a second mode, or slack."""
    bounds, errors, trust = found.bounds, found.errors, found.diagnostics
    candidates = [name for name in trust if not name.startswith("ELBO")]
    modes = [t.doubts["another mode"] for t in trust.values() if "another mode" in t.doubts]
    for name in candidates[1:]:  # the first is the posterior's own
        if modes and name != _MIXED:  # chains start at the best q
            trust[name] = trust[name].doubting("another mode", np.any(modes, axis=0))
        for other in candidates:
            limit = _ERRORS * np.hypot(errors[other], errors[name]) + 2 * _NATS
            above = bounds[other] - bounds[name] > limit
            trust[name] = trust[name].doubting(f"{other} is higher", above)
    if slack is not None and "annealed" in trust and slack.interval()[0] > _SLACK:
        everywhere = np.ones(len(bounds["annealed"]), bool)
        trust["annealed"] = trust["annealed"].doubting("slack of bounds", everywhere)


def _evidence(found, given):
    """The known evidence, or a lower bound: (values, errors, basis).

    The bound with the highest lower end of its interval; of those that cannot be told from it, the
    one with the fewest unreliable data.
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
    best = min(near, key=lambda name: (np.sum(~found.diagnostics[name].reliable), -score[name]))
    said = _note(found.diagnostics, best)
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
    if name == _MIXED:
        return errors.mean()
    return np.sqrt(np.sum(errors**2)) / len(errors)


def _basis_of_search(found, effort):
    """In which family the approximation gap counts, and whether q is richer; {step: words}."""
    name = effort.families[0]
    said = _note(found.diagnostics, "ELBO, best q")
    basis = {"best_per_datum": f"the best of {name}, {FAMILIES[name].label}{said}"}
    above = found.bounds["ELBO"] - found.bounds["ELBO, best q"]
    errors = np.hypot(found.errors["ELBO"], found.errors["ELBO, best q"])
    error = _error_of_mean("ELBO", errors)
    if above.mean() > _ERRORS * error + 1e-3:
        basis["elbo"] = f"better than the best of {name}"
        warnings.warn(
            f"the posterior's ELBO is {above.mean():.3g} ± {error:.2g} nats above that of the best "
            f"{name} q: the posterior is richer than this family, or the search ended too early. "
            f"The approximation gap is that of {name}, and the amortisation part is negative. "
            f"Name the posterior's own family, Effort(family=...), one of {', '.join(FAMILIES)}.",
            RuntimeWarning,
            stacklevel=3,
        )
    return basis


def _flagged(found, evidence):
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


def _note(diagnostics, name):
    return diagnostics[name].note() if name in diagnostics else ""


def _report(bounds, errors, evidence, is_shared, basis):
    """Paired over data; of a single datum, with the errors over draws, taken for independent."""
    names = {"elbo": "ELBO", "best_per_datum": "ELBO, best q"}
    if is_shared:
        names["best_shared"] = "ELBO, best shared q"
    if len(bounds["ELBO"]) > 1:
        given = {key: bounds[name] for key, name in names.items()}
        return decompose(evidence=evidence[0], **given, basis=basis)
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
    )


def _moments(model, parts):
    """Mean and standard deviation of q's draws as unconstrained numbers, each [data, numbers]."""
    numbers = model.unconstrain(parts)
    return tf.reduce_mean(numbers, 0), tf.math.reduce_std(numbers, 0) + 1e-6


def _weights(model, parts, log_q, x, name):
    """(ln p(x, z) - ln q(z) in the model's dtype [draws, data], its rounding in nats)."""
    terms = model.log_terms(parts, x)
    joint_checks.finite(parts, log_q, terms, name)
    rounded = joint_checks.rounding(model, parts, log_q, terms, name)
    log_weights = (model.log_joint(parts, x) - log_q).numpy()
    if log_weights.shape != tuple(log_q.shape) or not np.isfinite(log_weights).all():
        raise ValueError(
            f"ln p(x, z) - ln q(z) must be a finite number for each of {tuple(log_q.shape)} draws "
            f"and data of {name}, but is not. Look for parts that overflow."
        )
    return log_weights, rounded


def _density(model, x):
    def log_joint(numbers):
        parts, log_det = model.constrain(numbers)
        return model.log_joint(parts, x) + log_det

    return log_joint


def _single(x):
    """x as the only completion of itself, [1, data, *event]."""
    return tf.nest.map_structure(lambda values: values[np.newaxis], x)


def _completions(model, completions, x):
    if not isinstance(completions, dict):
        completions = np.asarray(completions)
    count = num_data(completions)
    each = [model.data(select(completions, index)) for index in range(count)]
    found = tf.nest.map_structure(lambda *values: np.stack(values), *each)
    for values, wanted in zip(tf.nest.flatten(found), tf.nest.flatten(x)):
        if values.shape[1:] != wanted.shape:
            raise ValueError(
                f"completions must have shape [completions, *{wanted.shape}], but have shape "
                f"{values.shape}. Give several completions of each datum."
            )
    return found


def _mean(values, errors):
    if len(values) == 1:
        return Estimate(float(values[0]), float(errors[0]), kind="Monte Carlo")
    return Estimate.from_samples(values, kind="data points")
