"""`tfp_gaps.measure` on the targets of the Inference Gym, against references of another kind.

    pip install "tfp-gaps[targets]"
    python -m benchmarks.targets [--only NAME ...] [--json book/targets.json]

The Inference Gym (Sountsov, Radul et al. 2020) publishes models for those who write samplers. Each
goes into `Model.from_log_density` as it is, and its q is TFP's own factored surrogate, untrained:
what it finds is due to the search and to annealing. The references are formulas, quadrature and a
particle filter in NumPy. A row agrees within three combined errors, is flagged by `measure` itself,
or is refused by it.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from scipy import special, stats

from benchmarks import resuming
from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.book import results
from tfp_gaps.estimate import Estimate
from tfp_gaps.measuring import Effort, measure
from tfp_gaps.models.joint import Model
from tfp_gaps.tables import Table

EFFORT = Effort(num_samples=2000, search_steps=500, num_chains=32, family=("mean_field", "full"))
SEED = 0


@dataclass(frozen=True)
class Target:
    """A target of the Gym, made of its `targets` module, and where its reference comes from."""

    make: Callable
    reference: Callable
    kind: str


@dataclass(frozen=True)
class Row:
    """ln Z of a target, nats: as measured, as the reference has it, and what is to be thought."""

    target: str
    numbers: int
    measured: float | None
    error: float | None
    reference: float
    reference_error: float
    kind: str
    basis: str
    verdict: str
    seconds: float


# --- references -----------------------------------------------------------------------------------


def normalised(gym):
    """ln Z of a density that integrates to one."""
    return 0.0, 0.0


def quartic(gym):
    """Two dimensions on a grid."""
    grid = np.linspace(-5, 5, 4001)
    first, second = np.meshgrid(grid, grid, indexing="ij")
    seen = second**2 + 3 * first**2 * (first**2 - 1)
    log_p = stats.norm.logpdf(first) + stats.norm.logpdf(second) + stats.norm.logpdf(1, seen, 0.1)
    return special.logsumexp(log_p) + 2 * np.log(grid[1] - grid[0]), 0.0


def eight_schools(gym):
    """The effects in closed form, mean and ln spread on a grid."""
    effects = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
    errors = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
    mean, log_spread = np.linspace(-80, 80, 1601), np.linspace(-5, 11, 1601)
    sd = np.sqrt(np.exp(2 * log_spread)[:, np.newaxis] + errors**2)
    log_p = stats.norm.logpdf(effects, mean[:, np.newaxis, np.newaxis], sd).sum(-1)
    log_p += stats.norm.logpdf(mean, 0, 10)[:, np.newaxis] + stats.norm.logpdf(log_spread, 5, 1)
    area = (mean[1] - mean[0]) * (log_spread[1] - log_spread[0])
    return special.logsumexp(log_p) + np.log(area), 0.0


def _brownian(data, innovation, noise):
    """ln p of what is seen of a Brownian motion from 0: a normal with covariances min(s, t)."""
    seen = np.flatnonzero(~np.isnan(data))
    covariance = innovation**2 * (1 + np.minimum(seen[:, np.newaxis], seen))
    return stats.multivariate_normal(cov=covariance + noise**2 * np.eye(len(seen))).logpdf(
        data[seen]
    )


def brownian_motion(gym):
    """All is normal."""
    made = gym.internal.data.brownian_motion_missing_middle_observations()
    scales = float(made["innovation_noise_scale"]), float(made["observation_noise_scale"])
    return _brownian(np.asarray(made["observed_locs"], np.float64), *scales), 0.0


def brownian_motion_unknown_scales(gym):
    """The path in closed form, the logarithms of both scales on a grid."""
    made = gym.internal.data.brownian_motion_missing_middle_observations()
    data = np.asarray(made["observed_locs"], np.float64)
    grid = np.linspace(-7, 3, 121)
    log_p = np.array(
        [[_brownian(data, np.exp(first), np.exp(second)) for second in grid] for first in grid]
    )
    prior = stats.norm.logpdf(grid, 0, 2)
    log_p += prior[:, np.newaxis] + prior
    return special.logsumexp(log_p) + 2 * np.log(grid[1] - grid[0]), 0.0


def lorenz_bridge(gym, num_particles=20_000, repetitions=40):
    """A bootstrap particle filter."""
    made = gym.internal.data.convection_lorenz_bridge()
    seen = np.asarray(made["observation_mask"], bool)
    values = np.asarray(made["observed_values"], np.float64)
    step, innovation, noise = (
        float(made[name]) for name in ("step_size", "innovation_scale", "observation_scale")
    )
    rng, found = np.random.default_rng(SEED), []
    for _ in range(repetitions):
        state, total = rng.normal(size=[3, num_particles]), 0.0
        for t, (value, is_seen) in enumerate(zip(values, seen)):
            if t:
                x, y, z = state
                drift = np.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])
                noises = np.sqrt(step) * innovation * rng.normal(size=state.shape)
                state = state + step * drift + noises
            if is_seen:
                log_w = stats.norm.logpdf(value, state[made["observation_index"]], noise)
                total += special.logsumexp(log_w) - np.log(num_particles)
                p = np.exp(log_w - special.logsumexp(log_w))
                state = state[:, rng.choice(num_particles, num_particles, p=p)]
        found.append(total)
    return _log_mean(np.array(found))


def _log_mean(values):
    """ln of the mean of exp(values) and its standard error."""
    w = np.exp(values - values.max())
    return values.max() + np.log(w.mean()), stats.sem(w) / w.mean()


TARGETS = {
    "Banana": Target(lambda t: t.Banana(), normalised, "normalised"),
    "Neal's funnel": Target(lambda t: t.NealsFunnel(), normalised, "normalised"),
    "Ill-conditioned Gaussian": Target(
        lambda t: t.IllConditionedGaussian(), normalised, "normalised"
    ),
    "Non-identifiable quartic": Target(
        lambda t: t.NonIdentifiableQuarticMeasurementModel(), quartic, "grid"
    ),
    "Eight schools": Target(lambda t: t.EightSchools(), eight_schools, "grid"),
    "Eight schools, as a vector": Target(
        lambda t: t.VectorModel(t.EightSchools()), eight_schools, "grid"
    ),
    "Brownian motion, missing middle": Target(
        lambda t: t.BrownianMotionMissingMiddleObservations(use_markov_chain=True),
        brownian_motion,
        "formula",
    ),
    "Brownian motion, unknown scales": Target(
        lambda t: t.BrownianMotionUnknownScalesMissingMiddleObservations(use_markov_chain=True),
        brownian_motion_unknown_scales,
        "grid",
    ),
    "Lorenz bridge": Target(
        lambda t: t.ConvectionLorenzBridge(use_markov_chain=True), lorenz_bridge, "particle filter"
    ),
}


# --- measuring ------------------------------------------------------------------------------------


def examine(name, gym, effort=EFFORT):
    """Measure one target: a `Row`."""
    entry, started = TARGETS[name], time.monotonic()
    target = entry.make(gym.targets)
    reference, reference_error = map(float, entry.reference(gym))
    common = {"reference": reference, "reference_error": reference_error, "kind": entry.kind}
    try:
        model = Model.from_log_density(target)
        found = _measured(model, target, effort)
    except ValueError as error:
        return Row(
            target=name,
            numbers=_num_entries(target),
            measured=None,
            error=None,
            basis="",
            verdict=f"refused: {error}",
            seconds=round(time.monotonic() - started, 1),
            **common,
        )
    evidence, basis = found.report.evidence, found.report.basis["evidence"]
    off = abs(evidence.value - reference)
    agrees = off <= 3 * np.hypot(evidence.standard_error, reference_error)
    flagged = "unreliable" in basis
    verdict = "agrees" if agrees else "does not agree"
    return Row(
        target=name,
        numbers=model.num_numbers,
        measured=evidence.value,
        error=evidence.standard_error,
        basis=basis,
        verdict=f"flagged, {verdict}" if flagged else verdict,
        seconds=round(time.monotonic() - started, 1),
        **common,
    )


def _num_entries(target):
    shapes = [tf.TensorShape(shape) for shape in tf.nest.flatten(target.event_shape)]
    return sum(shape.num_elements() for shape in shapes)


def _measured(model, target, effort):
    q = tfp.experimental.vi.build_factored_surrogate_posterior(
        event_shape=target.event_shape, bijector=target.default_event_space_bijector, seed=SEED
    )
    with warnings.catch_warnings():  # what cannot be trusted is in the table
        warnings.simplefilter("ignore", RuntimeWarning)
        return measure(model, q, None, seed=SEED, effort=effort)


def table(rows):
    """The rows as a `Table`."""
    cells = []
    for row in rows:
        known = Estimate(row.reference, row.reference_error)
        value = "" if row.measured is None else Estimate(row.measured, row.error)
        cells.append([row.target, row.numbers, value, known, row.kind, row.verdict])
    header = ["target", "numbers", "measured ln Z", "reference", "by", "verdict"]
    return Table(header, cells)


def _gym():
    try:
        import inference_gym.internal.data  # a submodule that holds the data of the targets
        from inference_gym import using_tensorflow

        using_tensorflow.internal = inference_gym.internal
    except ImportError as error:
        raise SystemExit(
            f"The targets come from the package inference-gym, which could not be imported "
            f'({error}). Install it: pip install "tfp-gaps[targets]".'
        ) from error
    return using_tensorflow


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.targets", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument(
        "--json",
        metavar="PATH",
        help="write the rows to this file, after each target; those of the same command and "
        "commit that it holds already are kept",
    )
    options = parser.parse_args(arguments)
    gym, started = _gym(), time.monotonic()
    origin = results.provenance(
        command=_command(options), data="inference-gym 0.0.5", seeds=[SEED], seconds=0
    )
    stored, before = resuming.stored(options.json, origin)
    rows = [Row(**row) for row in stored.get("targets", [])]
    for name in options.only[len(rows) :]:
        rows.append(examine(name, gym))
        print(rows[-1], file=sys.stderr, flush=True)
        if options.json:
            shown = table(rows)
            cells = {"header": shown.header, "rows": shown.rows}
            found = {"table": cells, "targets": [asdict(row) for row in rows]}
            spent = round(before + time.monotonic() - started, 1)
            results.save(options.json, found, origin | {"seconds": spent})
    print(table(rows))
    return 0


def _command(options):
    only = "" if options.only == list(TARGETS) else " --only " + " ".join(map(repr, options.only))
    return f"python -m benchmarks.targets{only} --json {options.json}"


if __name__ == "__main__":
    sys.exit(main())
