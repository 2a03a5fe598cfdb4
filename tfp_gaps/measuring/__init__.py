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

import dataclasses
from dataclasses import dataclass, field

import numpy as np

from tfp_gaps import _checks, storage, tables
from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.bounds import Diagnostics
from tfp_gaps.estimate import Estimate
from tfp_gaps.gaps import GapReport
from tfp_gaps.measuring import judgement
from tfp_gaps.measuring.judgement import SearchDiagnostics
from tfp_gaps.measuring.run import Draws, Run
from tfp_gaps.models import density_checks
from tfp_gaps.models.joint import Model
from tfp_gaps.models.observations import num_data, real_array, select
from tfp_gaps.posteriors.search import FAMILIES
from tfp_gaps.tables import Table

tfd = tfp.distributions


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
            [name + judgement.note_of(self.diagnostics, name), _mean(values, self.errors[name])]
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
        what q sees) otherwise, [completions, data, *event]; gives the conditioning gap, which K of
        them leave off by a K-th of it on average: two at least, 64 for tables. That q is the same
        for them as for the data is checked where it is a function of the data. None if q sees
        everything, or if that gap is to be counted as amortisation.
      evidence: ln p(x), [data], where it is known; None to take a lower bound: among those within
        their errors of the one with the highest value minus 1.96 errors, the one with the fewest
        unreliable data, then with the smallest error.
      effort: `Effort`.
      progress: None, or a function that is called with a label, what is done, and of how much.

    Returns:
      `Measured`. Approximation counts against the first of `Effort.family`, which
      `report.basis["best_per_datum"]` names.

    Raises:
      ValueError: as `Model.data`, `Model.draw` and `Effort`; for a q whose density changes from
        call to call or with the data beside a datum, or whose draws lie outside the model's
        support; for a single completion, completions equal to the data, and those that change q;
        for densities that are not finite, are rounded by more than 0.1 nats or mix data, for data
        that change the support of a latent part, and for evidence of another length, below an ELBO,
        or below another bound where that is reliable.

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
    run = Run(model, effort, seed, progress)
    run.check_posterior(posterior, x, completions)
    starts, rounded = run.bound_posterior(posterior, x)
    found, known = run.found, None
    if evidence is not None:
        known = _known(evidence, found, x, rounded)
    try:
        run.search_and_anneal(x, starts, completions)
        slack = run.slack() if effort.num_simulated else None
    except ValueError as error:
        own = ", ".join(f"{name} {found.bounds[name].mean():.6g}" for name in ("ELBO", "IWAE"))
        raise ValueError(f"{error} The bounds found before are {own} nats per datum.") from error
    if evidence is not None:
        _known(evidence, found, x, rounded)
    judgement.contradictions(found, slack)
    values, errors, basis = judgement.evidence(found, known)
    basis |= judgement.basis_of_search(found, effort)
    report = judgement.report(
        found.bounds, found.errors, (values, errors), completions is not None, basis
    )
    flagged = judgement.flagged(found, values)
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

    Raises:
      ValueError: as `Model.data`, for densities that mix data, and for data that change the support
        of a latent part.

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
    run, x = Run(model, effort, seed), model.data(data)
    bound = run.bound_above(latents, x)[:2]
    density_checks.unmixed(model, latents, x)
    return bound


def _known(evidence, found, x, rounded):
    return density_checks.known_evidence(
        evidence, found.bounds, found.errors, found.diagnostics, num_data(x), rounded
    )


def _completions(model, completions, x):
    if not isinstance(completions, dict | np.ma.MaskedArray):  # masks are for the model to judge
        completions = real_array(completions, "completions")
    count = num_data(completions)
    read = model._density.observations.data
    each = [read(select(completions, index)) for index in range(count)]
    found = tf.nest.map_structure(lambda *values: np.stack(values), *each)
    for values, wanted in zip(tf.nest.flatten(found), tf.nest.flatten(x)):
        if values.shape[1:] != wanted.shape:
            raise ValueError(
                f"completions must have shape [completions, *{wanted.shape}], but have shape "
                f"{values.shape}. Give several completions of each datum."
            )
    if count < 2:
        raise ValueError(
            "completions must be several of each datum, [completions, data, *event], but are one: "
            "what it happens to show would count as a condition of q. Draw 64 of them."
        )
    if all(
        np.array_equal(
            values, np.broadcast_to(given, values.shape), equal_nan=given.dtype.kind == "f"
        )
        for values, given in zip(tf.nest.flatten(found), tf.nest.flatten(x), strict=True)
    ):
        raise ValueError(
            f"completions must differ from the data in what q does not see, but all {count} are "
            f"equal to them. Draw the rest from the model, or leave completions out if q sees all."
        )
    # All of them at once, as it is their values that are looked at.
    model.data(tf.nest.map_structure(lambda v: v.reshape(-1, *v.shape[2:]), found))
    return found


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


def _mean(values, errors):
    if len(values) == 1:
        return Estimate(float(values[0]), float(errors[0]), kind="Monte Carlo")
    return Estimate.from_samples(values, kind="data points")
