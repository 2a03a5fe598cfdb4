"""The evidence ln p(x) of a trained sequence model: the best of all lower bounds, and its slack.

ELBO and IWAE under the model's own q, IWAE under a fresh full q, the bootstrap filter, and SMC
guided by either q bound ln p(x) from below. Which of them stands for a model is chosen on
validation sequences, the same candidates for every model, and then applied to the test sequences:
the maximum of noise is not selected. Particles or samples are doubled until two doublings together
move the mean by less than a tenth of a nat.

How much is missing is seen on sequences that the model made itself, where
`filtering.reverse_filter` bounds ln p(x) from above:

    slack = upper - lower >= ln p(x) - lower.

A difference "full minus partial" of lower bounds within [L, U] is one of evidences within
[L - slack of partial, U + slack of full], if slack is alike on made and on real sequences.

All values are nats per sequence, of one replica (`networks.replica`).
"""

import functools
import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks, bounds, filtering
from tfp_gaps.estimate import INDEPENDENT, Estimate
from tfp_gaps.sequences import Sequences

TOLERANCE = 0.1
"""Nats by which two doublings together may move the mean of what is settled."""
LEVEL = 0.99
_ELBO_DRAWS = 8
_FAR = 10
"""Nats (and robust standard deviations) below a reference: q has diverged there."""


@dataclass(frozen=True)
class Effort:
    """How hard the evidence is looked for.

    num_choice: validation sequences on which the estimator is chosen.
    num_test: test sequences to which it is applied.
    num_made: sequences that the model makes: half of them choose the bound from above, on the other
      half slack is measured.
    fewest, most: particles or samples, at the first look and at the last that is allowed.
    most_choice: the same limit while estimators are chosen and slack is measured: a bound that has
      not settled there is a looser one, and still a bound.
    reference: particles of the bootstrap filter beside which the divergence of a q is seen.
    num_restarts: how often a fresh network that diverged on validation sequences is trained again.

    >>> Effort(num_choice=100, num_test=200, num_made=200).most
    16384
    """

    num_choice: int
    num_test: int
    num_made: int
    fewest: int = 256
    most: int = 16_384
    most_choice: int = 4096
    reference: int = 1024
    num_restarts: int = 2

    def __post_init__(self):
        for name, least in (("num_choice", 2), ("num_test", 2), ("num_made", 4), ("fewest", 2)):
            _checks.integer(getattr(self, name), name, minimum=least)
        _checks.integer(self.num_restarts, "num_restarts", minimum=0)
        _checks.integer(self.reference, "reference", minimum=2)
        advice = "Two doublings must fit between them and fewest."
        for name in ("most", "most_choice"):
            _checks.integer(getattr(self, name), name, minimum=4 * self.fewest, advice=advice)


class Settled(NamedTuple):
    """A bound whose particles were doubled until its mean settled.

    values: float64 [sequences], with the last count.
    counts, means: particles and mean of each evaluation.
    converged: the last two doublings together moved the mean by less than `TOLERANCE`; otherwise
      the largest count that was allowed ended it.
    diverged: bool [sequences], where the bound of a q was replaced by the bootstrap filter's.
    """

    values: np.ndarray
    counts: tuple[int, ...]
    means: tuple[float, ...]
    converged: bool
    diverged: np.ndarray

    def as_dict(self):
        """Everything but the values, of JSON types."""
        return {
            "counts": list(self.counts),
            "means": [round(mean, 4) if math.isfinite(mean) else None for mean in self.means],
            "converged": bool(self.converged),
            "num_diverged": int(self.diverged.sum()),
        }


def settle(evaluate, *, fewest, most):
    """Double particles until two doublings together move the mean by less than .1 nat.

    Args:
      evaluate: callable (count, look) -> [sequences], nats; looks are numbered, to draw afresh.
      fewest, most: first and largest count.

    Returns:
      `Settled`.

    >>> found = settle(lambda count, look: np.full(3, -8.0 / count), fewest=2, most=1000)
    >>> found.counts, found.means[-1], found.converged
    ((2, 4, 8, 16, 32, 64, 128, 256), -0.03125, True)
    """
    counts, means, converged = [], [], False
    count = fewest
    while not converged and count <= most:
        values = np.asarray(evaluate(count, len(counts)), np.float64)
        counts.append(count)
        means.append(float(values.mean()))
        converged = len(means) > 2 and abs(means[-1] - means[-3]) < TOLERANCE
        count *= 2
    nothing = np.zeros(len(values), bool)
    return Settled(values, tuple(counts), tuple(means), converged, nothing)


def has_diverged(bound, reference):
    """Where a bound under q lies far below the bootstrap filter's: bool [sequences].

    Far is more than ten nats, and more than ten robust standard deviations (1.4826 of the median
    absolute deviation) beyond the median of the differences; what is no number has diverged too.

    >>> has_diverged([-1.0, -2.0, -900.0, -1.5], [-1.1, -1.8, -1.0, -1.6])
    array([False, False,  True, False])
    """
    below = np.asarray(reference, np.float64) - np.asarray(bound, np.float64)
    finite = np.isfinite(below)
    if not finite.any():
        return ~finite
    centre = np.median(below[finite])
    deviation = 1.4826 * np.median(np.abs(below[finite] - centre))
    return ~finite | ((below > _FAR) & (below - centre > _FAR * deviation))


def has_failed(fresh, own, num_steps):
    """Which fresh full networks diverged as a whole, on all sequences alike: bool [replicas].

    `has_diverged` compares a network's sequences with one another and cannot see that. Training
    can: steps without a finite gradient, more than one in a hundred, or a validation bound more
    than ten nats per sequence below that of the model's own q, which sees no more.

    Args:
      fresh, own: `training.History` of the fresh network and of the pair; without a validation loss
        the skipped steps alone decide.
      num_steps: of the fresh network's training.
    """
    failed = np.asarray(fresh.skipped_steps) > num_steps / 100
    if len(fresh.validation_losses) and len(own.validation_losses):
        best, reached = (
            np.where(np.isfinite(losses), losses, np.inf).min(0)
            for losses in (fresh.validation_losses, own.validation_losses)
        )
        failed |= ~np.isfinite(best) | (best > reached + _FAR)
    return failed


def num_lost(result, *, first=False):
    """Number of models of a stored result for which no fresh full network was left: int.

    Either each of them, restarts included, diverged on some of the sequences on which one was
    chosen, or the one in use is the first and its training had more than one step in a hundred
    without a finite gradient, which results of an earlier rule did not count among the diverged.
    With `first`: for which the first one diverged, whatever became of the next.
    """
    limit = result["size"]["design"]["refit"]["num_steps"] / 100
    skipped, restarts = result["history"]["refit"]["skipped_steps"], result["evidence"]["restarts"]
    return sum(
        min(row["num_diverged"][: 1 if first else None]) > 0
        or (steps > limit and (first or row["used"] == 0))
        for row, steps in zip(restarts, skipped, strict=True)
    )


def repaired(found, reference):
    """`Settled` with the bootstrap filter's bound where q has diverged: a lower bound as well."""
    diverged = has_diverged(found.values, reference)
    return found._replace(values=np.where(diverged, reference, found.values), diverged=diverged)


def lower_bounds(model, own, fresh):
    """The candidates: {name: callable (sequences, count, seed) -> [sequences]}.

    Args:
      model: of one replica.
      own: its network, of one replica.
      fresh: network under full conditions, trained on the frozen model.
    """

    def elbo(sequences, count, seed):  # no bound that rises with the count
        found = bounds.elbo(model, own, sequences, seed=seed, repetitions=_ELBO_DRAWS)
        return found.bound.per_sequence()[0]

    def iwae(posterior, sequences, count, seed):
        found = bounds.iwae(model, posterior, sequences, num_samples=count, seed=seed)
        return found.per_sequence()[0]

    def smc(posterior, sequences, count, seed):
        found = filtering.particle_filter(
            model, sequences, num_particles=count, seed=seed, posterior=posterior
        )
        return found.log_increments.sum(0)[0]

    return {
        "bootstrap": functools.partial(smc, None),
        "elbo": elbo,
        "iwae": functools.partial(iwae, own),
        "iwae_fresh_full": functools.partial(iwae, fresh),
        "smc": functools.partial(smc, own),
        "smc_fresh_full": functools.partial(smc, fresh),
    }


def choose(candidates, sequences, effort, *, seed):
    """Settle every candidate on validation sequences; the one with the highest mean stands.

    Returns:
      name of the chosen one, and {name: `Settled`}.

    Raises:
      ValueError: if there are fewer than two validation sequences.
    """
    sequences = sequences.first(effort.num_choice)
    if len(sequences) < 2:
        raise ValueError(
            f"estimators are chosen on validation sequences, of which there should be at least 2, "
            f"but are {len(sequences)}. Hold some out when the data are loaded."
        )
    limit = effort.most_choice
    found = {
        name: _settle(candidate, sequences, effort, seed, most=limit)
        for name, candidate in candidates.items()
    }
    reference = found["bootstrap"].values
    found = {name: repaired(settled, reference) for name, settled in found.items()}
    return max(found, key=lambda name: found[name].values.mean()), found


def measure(model, own, fresh, splits, effort, *, seed, filter_steps=0, filter_particles=0):
    """Choose the estimator of a model, apply it to the test sequences, and measure its slack.

    Args:
      model, own, fresh: as in `lower_bounds`.
      splits: `Splits`.
      effort: `Effort`.
      seed: int.
      filter_steps: steps over which the bootstrap filter that judges prediction runs; its slack is
        measured there, with `filter_particles`. 0 for no prediction.

    Returns:
      JSON-serialisable dict: "estimator", "test" and "slack" with values per sequence, what every
      candidate had on the validation sequences, the count and whether it converged.
    """
    candidates = lower_bounds(model, own, fresh)
    name, tried = choose(candidates, splits.validation, effort, seed=seed)
    test = splits.test.first(effort.num_test)
    # The last three counts of the validation sequences again: it should settle here too.
    first = max(effort.fewest, tried[name].counts[-1] // 4)
    found = _settle(candidates[name], test, effort, seed + 1, first)
    reference = np.asarray(candidates["bootstrap"](test, effort.reference, seed + 2), np.float64)
    if name != "bootstrap":
        found = repaired(found, reference)
    content = {
        "estimator": name,
        "seed": seed,
        "validation": {
            candidate: settled.as_dict() | {"mean": round(float(settled.values.mean()), 4)}
            for candidate, settled in tried.items()
        },
        "test": found.as_dict() | {"values": _rounded(found.values)},
        "bootstrap": {"count": effort.reference, "values": _rounded(reference)},
    }
    above = _Above(model, own, fresh, splits.validation, effort, seed + 3)
    content["slack"] = above.slack(candidates[name], found.counts[-1])
    if filter_steps:
        content["filter_slack"] = above.slack(
            candidates["bootstrap"], filter_particles, steps=filter_steps
        )
    return content


class _Above:
    """Sequences that the model made, and the bound from above that is tightest on half of them."""

    def __init__(self, model, own, fresh, validation, effort, seed):
        like = validation.select(np.arange(effort.num_made) % len(validation))
        self.made, self.latents = filtering.made_sequences(model, like, seed=seed)
        self.model, self.effort, self.seed = model, effort, seed
        proposals = {"bootstrap": None, "smc": own, "smc_fresh_full": fresh}
        half = effort.num_made // 2
        self.rest = slice(half, None)
        means = {
            name: self._upper(posterior, slice(half)).values.mean()
            for name, posterior in proposals.items()
        }
        self.name = min(means, key=means.get)
        self.posterior = proposals[self.name]

    def slack(self, lower, count, steps=None):
        """Slack of a lower bound with `count` particles over `steps` steps, on the other half."""
        upper = self._upper(self.posterior, self.rest, steps)
        made = _steps(self.made.select(self.rest), steps)
        values = upper.values - lower(made, count, self.seed + 1)
        return upper.as_dict() | {
            "proposal": self.name,
            "particles": count,
            "values": _rounded(values),
            "mean": round(float(values.mean()), 4),
            "upper_limit": round(slack_limit(values), 4),
        }

    def _upper(self, posterior, part, steps=None):
        made, latents = _steps(self.made.select(part), steps), self.latents[:steps, part]

        def upper(count, look):
            options = {"num_particles": count, "seed": self.seed + 100 * look}
            return filtering.reverse_filter(
                self.model, made, latents, posterior=posterior, **options
            )[0]

        return settle(upper, fewest=self.effort.fewest, most=self.effort.most_choice)


def slack_limit(values, groups=INDEPENDENT):
    """Upper 99 % limit of the mean slack by its t distribution; no less than zero.

    Args:
      values: upper - lower of made sequences, nats.
      groups: of what each was made like, such as the flight whose controls it has: given the model
        alone made sequences are independent, but few flights say little about others.

    >>> round(slack_limit([0.1, 0.2, 0.3, 0.2]), 3)
    0.385
    """
    values = _checks.finite_array(values, "slack", ndim=1)
    mean = Estimate.from_crossed(values[np.newaxis], groups)
    # Above the upper end lies half of what is outside of a two-sided interval.
    return max(0.0, mean.confidence_interval(2 * LEVEL - 1)[1])


def difference(result, baseline):
    """Evidence of the models of one stored result minus that of another's, nats per sequence.

    As `difference_of_bounds`, with the slack that the bounds may have: `slack_of` the baseline's
    below the value, and of the result's above it.
    """
    return widened(difference_of_bounds(result, baseline), result, baseline)


def difference_of_bounds(result, baseline):
    """Best lower bounds of the models of one stored result minus those of another's.

    Over seeds and groups, paired by sequence.

    Args:
      result, baseline: as from `Benchmark.stored`, with "evidence" of the same test sequences.

    Returns:
      `Estimate`, nats per sequence.

    Raises:
      ValueError: if the test sequences or seeds of the two are not as many, or grouped otherwise.
    """
    found, other = result["evidence"], baseline["evidence"]
    values, others = (
        np.array([replica["test"]["values"] for replica in each["replicas"]])
        for each in (found, other)
    )
    if values.shape != others.shape or found["groups"] != other["groups"]:
        raise ValueError(
            f"expected evidence of the same test sequences for as many seeds, but found "
            f"{values.shape} and {others.shape} (seeds, sequences), or other groups. Compare runs "
            f"of one variant with equal seeds."
        )
    return Estimate.from_crossed(values - others, found["groups"])


def widened(difference, result, baseline, name="slack"):
    """A difference of lower bounds, result minus baseline, widened by the slack of either.

    Args:
      difference: `Estimate` in nats per sequence.
      result, baseline: as from `Benchmark.stored`, with "evidence".
      name: "slack" of the bound that stands for the model, or "filter_slack"; see `slack_of`.

    Returns:
      `Estimate` that has the slack of the baseline below the value, and of the result above it.
    """
    return replace(difference, slack=(slack_of(baseline, name), slack_of(result, name)))


def slack_of(result, name="slack"):
    """How far a stored result's bounds lie below the evidence at most, nats per sequence.

    `slack_limit` of each seed's made sequences, over the groups of what they were made like,
    averaged over seeds: no less than the limit of the average. "filter_slack" is that of forecasts'
    filter.
    """
    found = result["evidence"]
    limits = [slack_limit(r[name]["values"], found["slack_groups"]) for r in found["replicas"]]
    return float(np.mean(limits))


def filter_below(result):
    """How far the bootstrap filter lies below the bound that stands for a model, nats per sequence.

    What can be seen of slack on real sequences, beside the made ones on which it is measured.

    Returns:
      {"made", "real"}: float [seeds], means over the sequences.

    Raises:
      ValueError: if the filter of the result reads a part of each sequence only.
    """
    if result["size"]["horizon"]:
        raise ValueError(
            "expected a result whose filter reads whole sequences, but found one with forecasts, "
            f"after {result['size']['start']} steps. Compare bounds of whole sequences."
        )
    replicas = result["evidence"]["replicas"]
    bounds_on_test = [r["test"]["values"] for r in replicas]
    filtered = result["per_sequence"]["log_likelihood_filter"]
    return {
        "made": np.array([r["filter_slack"]["mean"] - r["slack"]["mean"] for r in replicas]),
        "real": np.array(
            [
                np.mean(np.subtract(bound, whole[: len(bound)]))
                for bound, whole in zip(bounds_on_test, filtered, strict=True)
            ]
        ),
    }


def _settle(candidate, sequences, effort, seed, first=None, most=None):
    def evaluate(count, look):
        return candidate(sequences, count, seed + 100 * look)

    return settle(evaluate, fewest=first or effort.fewest, most=most or effort.most)


def _steps(sequences, steps):
    return Sequences(*sequences.batch.map(lambda part: part[:steps]))


def _rounded(values):
    return np.round(values, 3).tolist()
