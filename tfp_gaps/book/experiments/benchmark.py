"""What the sequential benchmarks share: train under given conditions, measure model and inference.

A benchmark is a data set, a design for each scale, and variants of it. For one look-ahead k

1. model and network are trained together on the ELBO;
2. the model is frozen and a fresh, fully conditioned network is trained on it;
3. the model is measured by three lower bounds on ln p(x) that need no look-ahead of its own: IWAE
   and SMC with the fresh network, and a bootstrap particle filter without any network;
4. it predicts several steps ahead, started from that same particle filter.

Sizes with an `evidence.Effort` go further: bounds are chosen and driven until they converge, fresh
networks that diverged are trained again, and the slack of what stands is measured.

The parameters that are kept, and the settings, are chosen on validation sequences. The test
sequences are used once, by `evaluate`.
"""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from tfp_gaps import _checks, bounds, filtering, forecasting, storage
from tfp_gaps.book import data, results, scales
from tfp_gaps.book.experiments import evidence
from tfp_gaps.book.experiments.sequential import Design, fit_jointly, fit_network
from tfp_gaps.estimate import Estimate, paired_difference
from tfp_gaps.networks import replica
from tfp_gaps.posteriors.conditions import FULL, LookAhead
from tfp_gaps.tables import Table

LEVELS = (0.5, 0.9)
NUM_MEMBERS = 500
"""Members of a forecast's ensemble: the scores are unbiased for any number."""
BOUNDS = {
    "ELBO": "elbo",
    "IWAE, own q": "iwae",
    "IWAE, fresh full q": "iwae_fresh_full",
    "SMC, fresh full q": "smc_fresh_full",
    "particle filter": "log_likelihood_filter",
}
_RESTART_LIMIT = 5.0
"""Prior standard deviations that a network trained anew may lead away from the prior's mean."""


@dataclass(frozen=True)
class Size:
    """How much data, how long the training, how much is evaluated.

    design: sizes and training of model and network.
    data: options of the loader; "name" among them takes another data set than the benchmark's.
    num_bound: test sequences for the ELBO; the first num_iwae of them for the IWAE bound with
      num_samples paths; the first num_filter for particle filters with num_particles.
    start: first step that is predicted; the filter reads the steps before it.
    horizon: how many steps ahead; 0 for none.
    effort: how hard the evidence is looked for beyond these bounds; None for not.
    chosen: {label of a `LookAhead`: settings of joint training that differ from the design's},
      chosen for each arm from one grid on validation data.
    """

    design: Design
    num_bound: int
    num_iwae: int
    num_samples: int
    num_filter: int
    num_particles: int
    start: int
    horizon: int = 0
    data: dict = field(default_factory=dict)
    effort: evidence.Effort | None = None
    chosen: dict = field(default_factory=dict)

    def under(self, conditions):
        """The size with what was chosen for these conditions."""
        joint = replace(self.design.joint, **self.chosen.get(conditions.label, {}))
        return replace(self, design=replace(self.design, joint=joint))


class Benchmark:
    """A data set with its designs.

    Args:
      name: of the data set, as in `data.load`.
      sizes: {scale: `Size`}.
      variants: {name: callable (Size) -> Size}; how a variant differs from the default.
      groups: callable (Size, `Windows`) -> [windows], the flight or day of each window; by default
        the series that it is cut from.
    """

    def __init__(self, name, sizes, variants=None, groups=lambda size, windows: windows.series):
        self.name, self.sizes, self.groups = name, sizes, groups
        self.variants = {"": lambda size: size} | (variants or {})

    def size(self, scale, variant=""):
        """The `Size` of a scale under a variant."""
        _checks.one_of(variant, "variant", sorted(self.variants))
        return self.variants[variant](self.sizes[scales.check(scale)])

    def load(self, scale, variant=""):
        """Load the data of a scale as `data.splits.Splits`."""
        return data.load(**({"name": self.name} | self.size(scale, variant).data))

    def run(self, *, scale, conditions, seeds, variant="", checkpoint_folder=None, progress=None):
        """Train and evaluate under given conditions; what is stored at paper scale.

        Args:
          scale: "smoke", "book" or "paper".
          conditions: `LookAhead`.
          seeds: one int per replica.
          variant: see `variants`.
          checkpoint_folder: where to keep checkpoints, or None.
          progress: callable (label, num_steps) -> progress callback of `training.fit`, or None.

        Returns:
          A JSON-serialisable dict: settings, and for each quantity its estimates per seed; with
          "groups", the flight or day of each sequence of "per_sequence", where the data have them
          or evidence is measured.
        """
        size, splits = self.size(scale, variant).under(conditions), self.load(scale, variant)
        options = {"checkpoint_folder": checkpoint_folder, "progress": progress}
        joint, refit = train(
            splits, size.design, conditions, seeds, warm=size.effort is not None, **options
        )
        result = {
            "experiment": self.name,
            "scale": scale,
            "variant": variant,
            "lookahead": conditions.lookahead,
            "seeds": list(seeds),
            "size": asdict(size),
            "data": splits.source,
            "num_parameters": count_parameters(joint),
            "diverged": [bool(flag) for flag in joint.history.diverged | refit.history.diverged],
            "history": {
                "joint": _thin(joint.history, size.design.joint),
                "refit": _thin(refit.history, size.design.refit),
            },
            **_kept(
                checkpoint_folder,
                "evaluation",
                (size, joint.model, joint.network, refit.network),
                lambda: evaluate(joint, refit, splits, size),
            ),
        }
        if splits.groups or size.effort is not None:
            result["groups"] = self._labels(splits, size, "test")[: size.num_iwae].tolist()
        if size.effort is not None:
            result["evidence"] = find_evidence(joint, refit, splits, size, seeds, **options)
            result["evidence"] |= self._groups(splits, size)
        return result

    def _groups(self, splits, size):
        """Labels of the test sequences whose evidence is measured, and of what each made sequence
        on which slack is measured was made like."""
        made = np.resize(self._labels(splits, size, "validation"), size.effort.num_made)
        return {
            "groups": self._labels(splits, size, "test")[: size.effort.num_test].tolist(),
            "slack_groups": made[size.effort.num_made // 2 :].tolist(),
        }

    def _labels(self, splits, size, part):
        """Flight or day of each sequence; where the data have none every sequence is its own."""
        if splits.groups:
            return splits.groups[part]
        if splits.windows:
            return np.asarray(self.groups(size, splits.windows[part]))
        return np.arange(len(getattr(splits, part)))

    def stored(self, scale="paper", variant=""):
        """Read the committed results of a scale, smallest look-ahead first, full conditions last.

        Raises:
          ResultError: if there are none, or one is incomplete or altered.
        """
        found = results.stored(self.name, scale, variant, options="--lookahead 0")
        return sorted(found, key=conditions_of)


def latent_variants(sizes):
    """Variants "latentN" that change the number of latent dimensions alone."""

    def change(latent_size):
        return lambda size: replace(size, design=replace(size.design, latent_size=latent_size))

    return {f"latent{number}": change(number) for number in sizes}


def train(splits, design, conditions, seeds, checkpoint_folder=None, progress=None, *, warm=False):
    """Train the pair, then a fresh full network on the frozen model: two `Fitted`.

    With `warm` the fresh network starts from the pair's own, where that is under full conditions.
    """

    def options(phase, settings):
        own = results.training_options(checkpoint_folder, progress, phase, settings.num_steps)
        return {"seeds": seeds} | own

    joint = fit_jointly(splits, design, conditions=conditions, **options("joint", design.joint))
    refit = fit_network(
        joint.model,
        splits,
        design,
        conditions=FULL,
        start=joint.network if warm and conditions == FULL else None,
        **options("refit", design.refit),
    )
    return joint, refit


def find_evidence(joint, refit, splits, size, seeds, checkpoint_folder=None, progress=None):
    """The evidence of each replica's model, see `evidence.measure`; and what was trained again.

    Only the replicas whose fresh network diverged have another one trained.

    Returns:
      dict with "replicas" (one dict per seed) and "restarts" (per seed, diverged validation
      sequences of each fresh network that was trained, all of them where it failed as a whole, and
      which network is used).
    """
    numbers = range(len(seeds))
    steps = size.design.refit.num_steps

    def num_diverged(r, fresh, failed):
        if failed:
            return size.effort.num_choice
        return count_diverged(models[r], fresh, splits, size.effort)

    models, own, fresh = (
        [replica(module, r) for r in numbers]
        for module in (joint.model, joint.network, refit.network)
    )
    failed = evidence.has_failed(refit.history, joint.history, steps)
    counts = [[num_diverged(r, fresh[r], failed[r])] for r in numbers]
    for attempt in range(1, size.effort.num_restarts + 1):
        for r in [r for r in numbers if min(counts[r]) > 0]:
            options = results.training_options(
                checkpoint_folder, progress, f"refit-{attempt}-{r}", steps
            )
            other = _fit_limited(
                models[r], splits, size.design, [seeds[r] + 1000 * attempt], options
            )
            failed = evidence.has_failed(other.history, _of_replica(joint.history, r), steps)
            counts[r].append(num_diverged(r, other.network, failed[0]))
            if counts[r][-1] < min(counts[r][:-1]):
                fresh[r] = other.network

    def measured(r):
        return evidence.measure(
            models[r],
            own[r],
            fresh[r],
            splits,
            size.effort,
            seed=1000 * (r + 1),
            filter_steps=size.start if size.horizon else splits.test.observations.shape[0],
            filter_particles=size.num_particles,
        )

    return {
        "replicas": [
            _kept(
                checkpoint_folder,
                f"evidence-{r}",
                (size, models[r], own[r], fresh[r]),
                lambda r=r: measured(r),
            )
            for r in numbers
        ],
        "restarts": [{"num_diverged": row, "used": int(np.argmin(row))} for row in counts],
    }


def _kept(folder, name, measured, compute):
    """A JSON-serialisable dict that a run which was killed need not compute again.

    It is taken only if the size and the modules in `measured` are those it was computed of.
    """
    if folder is None:
        return compute()
    fingerprint = _digest(*measured)
    path = Path(folder) / f"{name}.npz"
    if path.exists():
        kept = storage.read_arrays(path)[1]
        if kept["fingerprint"] == fingerprint:
            return kept["content"]
    content = compute()
    description = {"fingerprint": fingerprint, "content": content}
    storage.write_arrays(path, {}, description=description)
    return content


def _digest(size, *modules):
    """Of a size and of the weights that are measured: other weights are not what was kept."""
    weights = [variable.numpy().tobytes() for m in modules for variable in m.variables]
    return storage.sha256(b"".join([repr(size).encode(), *weights]))


def _of_replica(history, r):
    """A history with the validation losses of one replica, which `evidence.has_failed` reads."""
    return history._replace(validation_losses=history.validation_losses[..., r : r + 1])


def _fit_limited(model, splits, design, seeds, options):
    """Another fresh full network on the frozen model, which cannot lead far from it: `Fitted`."""
    limited = {"conditions": FULL, "limit": _RESTART_LIMIT, "seeds": seeds}
    return fit_network(model, splits, design, **limited, **options)


def count_diverged(model, network, splits, effort):
    """Validation sequences on which SMC under a fresh network of one replica has diverged."""
    sequences = splits.validation.first(effort.num_choice)
    bound, reference = (
        filtering.particle_filter(
            model, sequences, num_particles=effort.fewest, seed=7, posterior=posterior
        ).log_increments.sum(0)[0]
        for posterior in (network, None)
    )
    return int(evidence.has_diverged(bound, reference).sum())


def count_parameters(fitted):
    """Parameters of one replica: {"model": ..., "network": ...}."""
    return {
        name: sum(int(np.prod(v.shape[1:])) for v in module.trainable_variables)
        for name, module in (("model", fitted.model), ("network", fitted.network))
    }


def evaluate(joint, refit, splits, size):
    """Bounds of the joint pair, of the model under a fresh full network, filtering, prediction.

    Returns:
      dict with "estimates" (per quantity, one estimate over sequences per seed), "per_step" (per
      quantity, [seeds][time]), "per_sequence" (per quantity, [seeds][sequences], rounded) and, with
      a horizon, "forecast" (see `forecast_summary`).
    """
    own, fresh = (
        measure(joint, splits.test, size, seed=1),
        measure(refit, splits.test, size, seed=2),
    )
    filtered = filter_test(joint.model, splits.test, size, seed=4)
    guided = filter_test(joint.model, splits.test, size, seed=5, posterior=refit.network)
    elbo_of = {
        part: bounds.elbo(
            joint.model,
            joint.network,
            getattr(splits, part).first(size.num_bound),
            seed=3,
        ).bound.per_sequence()
        for part in ("train", "validation")
        if len(getattr(splits, part))
    }
    per_sequence = {
        "elbo": own["profile"].bound.per_sequence(),
        "iwae": own["iwae"].per_sequence(),
        "elbo_fresh_full": fresh["profile"].bound.per_sequence(),
        "iwae_fresh_full": fresh["iwae"].per_sequence(),
        "smc_fresh_full": guided.log_increments.sum(0),
        "log_likelihood_filter": filtered.log_increments.sum(0),
        "log_likelihood_rest": filtered.log_increments[size.start :].sum(0),
    }
    content = {
        "estimates": {
            name: [_estimate(row) for row in values]
            for name, values in (
                per_sequence | {f"elbo_{part}": values for part, values in elbo_of.items()}
            ).items()
        },
        "per_step": {
            "divergence": own["profile"].divergence.mean(-1).T.tolist(),
            "log_likelihood": own["profile"].log_likelihood.mean(-1).T.tolist(),
            "effective_share": (filtered.effective_sizes.mean(-1).T / size.num_particles).tolist(),
        },
        "per_sequence": {
            name: np.round(values[:, : size.num_iwae], 3).tolist()
            for name, values in per_sequence.items()
        },
    }
    if size.horizon:
        content["forecast"] = forecast_summary(predict(joint.model, splits.test, size, seed=6))
    return content


def _estimate(values):
    return Estimate.from_samples(values, kind="data points").as_dict()


def measure(fitted, sequences, size, *, seed):
    """ELBO profile over the first `size.num_bound`, IWAE over the first `size.num_iwae`."""
    pair = (fitted.model, fitted.network)
    profile = bounds.elbo(*pair, sequences.first(size.num_bound), seed=seed)
    iwae = bounds.iwae(
        *pair, sequences.first(size.num_iwae), num_samples=size.num_samples, seed=seed
    )
    return {"profile": profile, "iwae": iwae}


def filter_test(model, sequences, size, *, seed, posterior=None):
    """Run a particle filter over the first `size.num_filter` sequences; see `particle_filter`."""
    return filtering.particle_filter(
        model,
        sequences.first(size.num_filter),
        num_particles=size.num_particles,
        seed=seed,
        posterior=posterior,
    )


def predict(model, sequences, size, *, seed):
    """Forecast `size.horizon` steps after `size.start`, and score them: `forecasting.Scores`."""
    return forecasting.evaluate(
        model,
        sequences.first(size.num_filter),
        start=size.start,
        horizon=size.horizon,
        num_particles=size.num_particles,
        num_samples=min(size.num_particles, NUM_MEMBERS),
        seed=seed,
        levels=LEVELS,
    )


def forecast_summary(scores):
    """What is stored of scores: per quantity [seeds][horizon] estimates over sequences.

    "crps_mean" and "squared_error_mean" average over the horizon, for differences between models
    that are paired by sequence: [seeds][sequences].
    """
    measured = {"rmse": scores.rmse(), "crps": scores.per_horizon(scores.crps)} | {
        f"coverage_{100 * level:.0f}": scores.per_horizon(scores.coverage[level])
        for level in scores.coverage
    }
    return {
        name: [[estimate.as_dict() for estimate in row] for row in rows]
        for name, rows in measured.items()
    } | {
        f"{name}_mean": np.round(getattr(scores, name).mean(0), 5).tolist()
        for name in ("crps", "squared_error")
    }


def conditions_of(result):
    """The `LookAhead` of a stored result."""
    return LookAhead.of(result["lookahead"])


def of_seeds(result, seeds):
    """Some seeds of a stored result, for a comparison with a run that has fewer.

    Args:
      result: as from `Benchmark.stored`.
      seeds: which of its seeds, in the order wanted.

    Returns:
      A result whose entries for each seed are those of `seeds`; provenance and the rest as before.

    Raises:
      ValueError: if the result lacks one of the seeds.

    >>> entries = [{"value": 1.0}, {"value": 2.0}]
    >>> of_seeds({"seeds": [0, 1], "estimates": {"elbo": entries}}, [1])
    {'seeds': [1], 'estimates': {'elbo': [{'value': 2.0}]}}
    """
    lacking = [seed for seed in seeds if seed not in result["seeds"]]
    if lacking:
        raise ValueError(
            f"expected seeds of the result, which has {result['seeds']}, but found {lacking}. "
            "Take seeds that it has."
        )
    places = [result["seeds"].index(seed) for seed in seeds]

    def pick(name, rows):
        if name in _OF_RESULT or not isinstance(rows, list):
            return rows
        if name in ("losses", "validation_losses"):  # [steps, seeds]
            return [pick("", row) for row in rows]
        return [rows[place] for place in places]

    def pick_each(table):
        return {name: pick(name, rows) for name, rows in table.items()}

    chosen = pick_each({name: result[name] for name in ("seeds", "diverged") if name in result})
    for name in ("estimates", "per_step", "per_sequence", "forecast", "evidence"):
        if name in result:
            chosen[name] = pick_each(result[name])
    if "history" in result:
        chosen["history"] = {phase: pick_each(table) for phase, table in result["history"].items()}
    return result | chosen


_OF_RESULT = ("steps", "validation_steps", "groups", "slack_groups")
"""Lists in a stored result that have no entry for each seed."""


def stored_label(result):
    """How an axis of look-aheads names that of a result: without saying that it is ahead.

    >>> [stored_label({"lookahead": k}) for k in (0, 1, None)]
    ['partial', '1', 'full']
    """
    return conditions_of(result).label.removesuffix(" ahead")


def over_seeds(result, quantity):
    """Mean of a quantity over the seeds of a stored result, with its standard error over seeds."""
    values = [entry["value"] for entry in result["estimates"][quantity]]
    if len(values) == 1:
        return Estimate.from_dict(result["estimates"][quantity][0])
    return Estimate.from_samples(values, kind="seeds")


def with_highest_bound(result):
    """A stored result with "highest" in `per_sequence`: of `BOUNDS`, each seed's highest.

    That with the highest mean over the test sequences which all bounds share. It is picked on the
    sequences that it is then reported for, so that a little noise is picked with it.

    >>> values = {name: [[0.0, 1.0], [0.0, 1.0]] for name in BOUNDS.values()}
    >>> values["iwae"] = [[2.0, 2.0, 9.0], [0.0, 0.5, 9.0]]
    >>> with_highest_bound({"per_sequence": values})["per_sequence"]["highest"]
    [[2.0, 2.0], [0.0, 1.0]]
    """
    found = [result["per_sequence"][quantity] for quantity in BOUNDS.values()]
    shared = min(len(seed) for bound in found for seed in bound)
    by_seed = zip(*([seed[:shared] for seed in bound] for bound in found), strict=True)
    highest = [max(of_one, key=np.mean) for of_one in by_seed]
    return result | {"per_sequence": result["per_sequence"] | {"highest": highest}}


def difference_over_seeds(result, baseline, quantity):
    """Mean difference of two stored results, paired by seed, with its standard error over seeds."""
    values, others = (
        [entry["value"] for entry in r["estimates"][quantity]] for r in (result, baseline)
    )
    return paired_difference(values, others, kind="seeds")


def difference_of_advantages(result, baseline, quantity, other, *, groups):
    """How much more `quantity` favours a result over the baseline than `other` does.

    Args:
      result, baseline: stored; paired by seed and by sequence.
      quantity, other: in `per_sequence`, of the same sequences.
      groups: [sequences], labels, or `estimate.INDEPENDENT`; see `Estimate.from_crossed`.

    Returns:
      `Estimate` over seeds and groups, nats per sequence.
    """
    favoured, less = (
        np.subtract(result["per_sequence"][name], baseline["per_sequence"][name])
        for name in (quantity, other)
    )
    return Estimate.from_crossed(favoured - less, groups)


def converged(result):
    """Per seed of a stored result, whether joint training ended since the bound stopped rising.

    A run that diverged has no finite bound at its end and does not count, whatever is stored: its
    bound did stop rising.

    >>> joint = {"converged": [True, True, False], "validation_losses": [[1.0, None, 1.0]]}
    >>> converged({"history": {"joint": joint}})
    [True, False, False]
    """
    joint = result["history"]["joint"]
    last = joint["validation_losses"][-1]
    return [ended and loss is not None for ended, loss in zip(joint["converged"], last)]


def paper_table(stored_results, columns=None):
    """Table of stored results: one row per look-ahead, means over seeds in nats per sequence."""
    columns = columns or (BOUNDS | {"ELBO, training": "elbo_train"})
    rows = [
        [conditions_of(r), *(over_seeds(r, quantity) for quantity in columns.values())]
        for r in stored_results
    ]
    return Table(["look-ahead", *columns], rows)


def _thin(history, settings=None, points=200):
    """A history of at most `points` entries, for plotting; "converged" where that ended it.

    A loss that is not finite, of a replica that diverged, is None: JSON has no infinity.
    """
    every = max(1, len(history.steps) // points)
    ended = {}
    if settings is not None and settings.schedule == "plateau":
        ended = {"converged": history.converged(settings).tolist()}
    return ended | {
        "steps": history.steps[::every].tolist(),
        "losses": _finite_or_none(history.losses[::every]),
        "skipped_steps": history.skipped_steps.tolist(),
        "validation_steps": history.validation_steps.tolist(),
        "validation_losses": _finite_or_none(history.validation_losses),
        "best_steps": np.asarray(history.best_steps).tolist(),
        "seconds": round(history.seconds, 1),
    }


def _finite_or_none(values):
    return np.where(np.isfinite(values), np.round(values, 3), None).tolist()
