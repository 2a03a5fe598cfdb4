"""The gaps of a model that somebody brings: any joint distribution, and any approximation of it.

    ln p(x) >= IWAE-K >= ELBO = E_q [ln p(x, z) - ln q(z)],      gap = ln p(x) - ELBO

The model is a `tfd.JointDistribution*` with one observed part; its other parts are z. The
approximation q is a distribution over these parts, such as the surrogate posteriors of
`tfp.experimental.vi`, or, for amortised inference, a callable that is given the data and returns
one with a batch axis over data. Where parts are constrained, the search for the best q and annealed
importance sampling work on unconstrained numbers, through the model's own default bijector; the
density changes by the Jacobian, the bounds do not.

Values are nats per datum. A whole data set that is one observation counts as one datum.
"""

import dataclasses
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks, annealing, storage, tables
from tfp_gaps._tensorflow import tf, tfk, tfp
from tfp_gaps.bounds import Bounds, Diagnostics, diagnose
from tfp_gaps.estimate import Estimate
from tfp_gaps.gaps import GapReport, decompose
from tfp_gaps.models import joint_checks
from tfp_gaps.models.joint import Model
from tfp_gaps.tables import Table

tfd = tfp.distributions

_NUM_PRIOR = 200
"""Draws from which the moments of the prior are taken: a start needs no more."""


class MeanField:
    """The family of independent normals over the unconstrained numbers, one member per datum.

    Args:
      model: `Model`.
      means, scales: starting point, [data, num_numbers].
    """

    def __init__(self, model, means, scales):
        self.model = model
        self.means = tf.Variable(tf.cast(means, model._dtype))
        self.log_scales = tf.Variable(tf.math.log(tf.cast(scales, model._dtype)))
        self.trainable_variables = (self.means, self.log_scales)

    def draw(self, num_samples, seed):
        """Parts {name: [draws, data, ...]} and ln q, [draws, data]."""
        normal = tfd.MultivariateNormalDiag(self.means, tf.exp(self.log_scales))
        numbers = normal.sample(num_samples, seed=seed)
        parts, log_det = self.model.constrain(numbers)
        return parts, normal.log_prob(numbers) - log_det


@dataclass(frozen=True)
class Effort:
    """How much is spent on each bound.

    num_samples: K draws of q for ELBO and IWAE-K.
    search_steps: of Adam, for the best q; learning_rate falls along a cosine to a twentieth.
    search_samples: draws per step.
    num_chains, num_temperatures: of annealed importance sampling; 0 chains for none.
    jit_compile: compile the chains with XLA, as in `annealing.forward`.

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

    def __post_init__(self):
        _checks.integer(self.num_samples, "num_samples", minimum=2, advice="Use 1000 for tables.")
        for name in ("search_steps", "search_samples", "num_temperatures"):
            _checks.integer(getattr(self, name), name, minimum=1)
        _checks.integer(self.num_chains, "num_chains", minimum=0)
        _checks.positive_float(self.learning_rate, "learning_rate")


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
    errors: {name: float64 [data]}, their standard errors over draws or chains.
    diagnostics: {name: `Diagnostics`} of the bounds that rest on importance weights.
    draws: `Draws` of q, or None where they were not stored.

    >>> joint = tfd.JointDistributionNamedAutoBatched(
    ...     {"z": tfd.Normal(0.0, 1.0), "x": lambda z: tfd.Normal(z, 1.0)})
    >>> found = measure(Model(joint, "x", example=0.0), tfd.Normal(0.5, 0.5**0.5), 1.0, seed=0,
    ...                 effort=Effort(search_steps=100, num_chains=0))
    >>> print(found.bounds["ELBO"].round(3), sorted(found.diagnostics))  # ln N(1; 0, 2)
    [-1.516] ['IWAE', 'IWAE, best q']
    """

    report: GapReport
    bounds: dict
    errors: dict
    diagnostics: dict
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
        return Table(["nats per datum", "mean ± standard error"], rows)

    def to_dataframe(self):
        """A `pandas.DataFrame`, one row per bound and datum, in nats per datum.

        Columns: bound, datum, value, error, and where the bound rests on importance weights k_hat,
        effective_size and reliable, which are missing elsewhere.

        Raises:
          ImportError: without pandas.
        """
        columns = {name: [] for name in ("bound", "datum", "value", "error")}
        columns |= {name: [] for name in Diagnostics._fields}
        for name, values in self.bounds.items():
            missing = [None] * len(values)
            diagnostics = self.diagnostics.get(name, Diagnostics(missing, missing, missing))
            row = [[name] * len(values), range(len(values)), values, self.errors[name]]
            for column, entries in zip(columns.values(), [*row, *diagnostics], strict=True):
                column.extend(entries)
        return tables.data_frame(columns)

    def to_inference_data(self):
        """The draws of q as ArviZ reads them, an `xarray.DataTree`.

        posterior: each part, [chain, draw, datum, *event], with a single chain; draws of q, not of
        p(z | x): weight them. sample_stats: log_weight, ln p(x, z) - ln q(z), [chain, draw, datum].
        observed_data: [datum, *event].

        Raises:
          ImportError: without arviz-base.
          ValueError: where the draws were not stored.
        """
        if self.draws is None:
            raise ValueError(
                "to_inference_data needs the draws of q, but JSON does not keep them. Call it on "
                "what measure returned, and store that with its to_netcdf."
            )
        groups = {
            "posterior": self.draws.parts,
            "sample_stats": {"log_weight": self.draws.log_weights},
            "observed_data": self.draws.observed,
        }
        return tables.data_tree(groups, {name: ["datum"] for part in groups.values() for name in part})

    def to_json(self):
        """All but the draws of q as a JSON string; every number comes back bit for bit."""
        return storage.to_json(dataclasses.replace(self, draws=None))

    @classmethod
    def from_json(cls, text):
        """Read what `to_json` wrote; no code in it is run.

        Raises:
          ValueError: for text that is not of `to_json`.
        """
        return storage.from_json(text, (cls, GapReport, Estimate, Diagnostics))


def measure(model, posterior, data, *, seed, completions=None, evidence=None, effort=Effort()):
    """Bound ln p(x) and split what the ELBO of a posterior lacks.

    Args:
      model: `Model`.
      posterior: a distribution over the model's latent parts, or a callable (x [data, *event]) ->
        such a distribution with a batch axis over data.
      data: observed values, [data, *event], or a single one.
      seed: int.
      completions: data that agree with each datum in all that q sees, and are drawn from p(rest |
        what q sees) otherwise, [completions, data, *event]; gives the conditioning gap. None if q
        sees everything, or if that gap is to be counted as amortisation.
      evidence: ln p(x), [data], where it is known; None to take the largest lower bound.
      effort: `Effort`.

    Returns:
      `Measured`. Approximation counts against the independent normals over unconstrained numbers;
      a q of a richer family can come out with a negative amortisation part.

    Raises:
      ValueError: as `Model.data`, `Model.draw` and `Effort`, for densities that are not finite or
        are rounded by more than 0.1 nats, and for evidence of another length or below the ELBO.

    Warns:
      RuntimeWarning: where the evidence cannot be trusted by its `Diagnostics`, or is rounded by
        more than 0.01 nats.

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
    parts, log_q = model.draw(posterior, x, effort.num_samples, seed)
    found = _Found()
    weights = _weights(model, parts, log_q, x, "the posterior")
    rounded = found.add("", weights)
    given = None
    if evidence is not None:
        given = joint_checks.known_evidence(evidence, found.bounds, found.errors, len(x), rounded)
    try:
        _search_and_anneal(found, model, _moments(model, parts), x, completions, effort, seed)
    except ValueError as error:
        own = ", ".join(f"{name} {values.mean():.6g}" for name, values in found.bounds.items())
        raise ValueError(f"{error} The bounds found before are {own} nats per datum.") from error
    if evidence is not None:
        joint_checks.known_evidence(evidence, found.bounds, found.errors, len(x), rounded)
    known, basis = _evidence(found, given, len(x))
    report = _report(found.bounds, found.errors, known, completions is not None, basis)
    drawn = {name: value.numpy() for name, value in parts.items()}
    draws = Draws(drawn, weights[0], {model.observed: x})
    return Measured(report, found.bounds, found.errors, found.diagnostics, draws)


class _Found:
    """Bounds as they are found, with errors and diagnostics."""

    def __init__(self):
        self.bounds, self.errors, self.diagnostics = {}, {}, {}

    def add(self, of, weights, with_iwae=True):
        """Add ELBO and IWAE-K of ln w [draws, data]; returns the rounding, nats."""
        log_weights, rounded = weights
        summary = Bounds.from_log_weights(log_weights)
        self.bounds[f"ELBO{of}"], self.errors[f"ELBO{of}"] = summary.elbo, summary.elbo_error
        if with_iwae:
            name = f"IWAE{of}"
            self.bounds[name], self.errors[name] = summary.iwae, summary.iwae_error
            self.diagnostics[name] = diagnose(log_weights)
        return rounded


def _search_and_anneal(found, model, start, x, completions, effort, seed):
    best = _search(model, start, x[np.newaxis], effort, seed + 1)
    found.add(", best q", _family_weights(model, best, x, effort, seed + 2, "the best q"))
    if effort.num_chains:
        annealed = _anneal(model, best, x, effort, seed + 3)
        _check_chains(annealed)
        found.bounds["annealed"] = annealed.log_evidence()
        found.errors["annealed"] = annealed.standard_error()
        found.diagnostics["annealed"] = diagnose(
            annealed.log_weights, start=found.diagnostics["IWAE, best q"]
        )
    if completions is not None:
        q = _search(model, start, completions, effort, seed + 4)
        weights = _family_weights(model, q, x, effort, seed + 5, "the best shared q")
        found.add(", best shared q", weights, with_iwae=False)


def _check_chains(annealed):
    failed = annealed.num_failed()
    if failed.any():
        datum = int(np.argmax(failed))
        raise ValueError(
            f"annealing must give a weight for each chain, but {int(failed[datum])} of "
            f"{len(annealed.log_weights)} of datum {datum} have none. Use float64, more "
            f"temperatures, or no chains."
        )


def upper_bound(model, latents, data, *, seed, effort=Effort()):
    """Bound ln p(x) from above for data that the model made, by annealing backwards from z.

    Args:
      model: `Model`.
      latents: {name: [1, data, *event]}, what made the data: an exact draw of their posterior, as
        from `Model.simulate`.
      data: [data, *event].
      seed: int.
      effort: `Effort` with at least one chain.

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
    x = model.data(data)
    _checks.integer(effort.num_chains, "num_chains", minimum=1)
    draws = np.repeat(model.unconstrain(latents).numpy(), effort.num_chains, 0)
    # Where the path starts must not depend on the posterior draw, or the bound would be none: the
    # search for q begins at the prior.
    prior, _ = model.simulate(_NUM_PRIOR, seed=seed)
    numbers = model.unconstrain(prior)[0]
    moments = tf.reduce_mean(numbers, 0), tf.math.reduce_std(numbers, 0)
    start = [tf.repeat(moment[tf.newaxis], len(x), 0) for moment in moments]
    best = _search(model, start, x[np.newaxis], effort, seed + 2)
    found = annealing.reverse(
        _density(model, x),
        draws,
        num_steps=effort.num_temperatures,
        seed=seed + 1,
        initial=_initial(best),
        dtype=model._dtype,
        jit_compile=effort.jit_compile,
    )
    return found.log_evidence(), found.standard_error()


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


def _evidence(found, given, num_data):
    """The known evidence, or the lower bound with the largest mean: ((values, errors), basis)."""
    if given is not None:
        return (given, np.zeros(num_data)), {"evidence": "known"}
    best = max(found.diagnostics, key=lambda name: found.bounds[name].mean())
    note = _note(found.diagnostics, best)
    if note:
        k_hat, sizes, _ = found.diagnostics[best]
        k_hat = f"k-hat is up to {k_hat.max():.2f} (0.7 is the limit)"
        warnings.warn(
            f"the evidence, {best}, is{note[1:]}: {k_hat}, the effective size down to "
            f"{sizes.min():.1f}. Neither its value nor its standard error can be trusted: find a "
            f"wider q, or give ln p(x).",
            RuntimeWarning,
            stacklevel=3,
        )
    basis = {"evidence": f"{best}, a lower bound{note}"}
    return (found.bounds[best], found.errors[best]), basis


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


def _search(model, start, completions, effort, seed, watched=False):
    """The member of `MeanField` with the largest mean ELBO over completions, for each datum.

    A search that ends without a finite ELBO is run again, `watched`, for the step that failed.
    """
    family = MeanField(model, *start)
    rate = tfk.optimizers.schedules.CosineDecay(
        effort.learning_rate, effort.search_steps, alpha=0.05
    )
    optimiser = tfk.optimizers.Adam(rate)
    x = tf.constant(completions)

    def seeds(key):
        draw_seed, choice_seed = tf.unstack(tfp.random.split_seed(key, 2))
        return draw_seed, tf.random.stateless_uniform(
            [], choice_seed, 0, len(completions), tf.int32
        )

    @tf.function
    def step(key):
        draw_seed, choice = seeds(key)
        with tf.GradientTape() as tape:
            parts, log_q = family.draw(effort.search_samples, draw_seed)
            loss = tf.reduce_sum(tf.reduce_mean(log_q - model.log_joint(parts, x[choice]), 0))
        gradients = tape.gradient(loss, family.trainable_variables)
        optimiser.apply_gradients(zip(gradients, family.trainable_variables, strict=True))
        return loss

    for number in range(effort.search_steps):
        key = tf.constant([seed, number], tf.int32)
        if watched:
            draw_seed, choice = seeds(key)
            where = f"step {number} of the search for the best q"
            _check_step(model, family, effort.search_samples, draw_seed, x[choice], where)
        loss = step(key)
    if np.isfinite(loss.numpy()):
        return family
    if not watched:
        _search(model, start, completions, effort, seed, watched=True)
    raise ValueError("the search for the best q diverged. Lower learning_rate in Effort.")


def _check_step(model, family, num_samples, seed, x, where):
    bad = ~np.isfinite(tf.reduce_sum(family.means + family.log_scales, -1).numpy())
    if bad.any():
        raise ValueError(
            f"before {where}, the gradient of ln p - ln q is not finite for datum "
            f"{int(np.argmax(bad))}. Look for functions without a derivative, or use float64."
        )
    parts, log_q = family.draw(num_samples, seed)
    joint_checks.finite(parts, log_q, model.log_terms(parts, x), where)


def _family_weights(model, family, x, effort, seed, name):
    parts, log_q = family.draw(effort.num_samples, tf.constant([seed, 0], tf.int32))
    return _weights(model, parts, log_q, x, name)


def _weights(model, parts, log_q, x, name):
    """(ln p(x, z) - ln q(z) in the model's dtype [draws, data], its rounding in nats)."""
    terms = model.log_terms(parts, x)
    joint_checks.finite(parts, log_q, terms, name)
    rounded = joint_checks.rounding(parts, log_q, terms, name)
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


def _initial(family):
    return tfd.MultivariateNormalDiag(
        tf.constant(family.means.numpy()), tf.constant(np.exp(family.log_scales.numpy()))
    )


def _anneal(model, best, x, effort, seed):
    """From the best q, not from the prior: the path is shorter."""
    return annealing.forward(
        _density(model, x),
        batch_shape=(len(x),),
        latent_size=model.num_numbers,
        num_chains=effort.num_chains,
        num_steps=effort.num_temperatures,
        seed=seed,
        initial=_initial(best),
        dtype=model._dtype,
        jit_compile=effort.jit_compile,
    )


def _completions(model, completions, x):
    found = np.stack([model.data(part) for part in completions])
    if found.shape[1:] != x.shape:
        raise ValueError(
            f"completions must have shape [completions, *{x.shape}], but have shape {found.shape}. "
            f"Give several completions of each datum."
        )
    return found


def _mean(values, errors):
    if len(values) == 1:
        return Estimate(float(values[0]), float(errors[0]), kind="Monte Carlo")
    return Estimate.from_samples(values, kind="data points")
