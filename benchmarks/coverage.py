"""Do the intervals of `tfp_gaps.measure` hold what they should? In worlds of known evidence.

    python -m benchmarks.coverage [--worlds 102] [--json book/coverage.json]

A world is a model with random parameters, twenty data drawn from it, and a posterior that is not
quite right. An interval is value ± 1.96 standard errors of the bound that `measure` takes for
ln p(x), of one datum. About 95 % of the reliable ones should hold ln p(x), and no bound may lie
above it by more than five of its errors. ln p(x) is a formula, or an integral on a grid.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.book import results
from tfp_gaps.measuring import Effort, measure
from tfp_gaps.models.joint import Model
from tfp_gaps.tables import Table

tfd = tfp.distributions
NUM_DATA = 20
EFFORT = Effort(num_samples=1000, search_steps=300, search_samples=8, num_temperatures=100)
WIDTH = 1.96  # standard errors, of a normal that holds 95 %
TOO_HIGH = 5.0  # standard errors: one draw of a normal in three million
ROUNDING = 1e-6  # nats, of densities in float64 beside an error of zero


@dataclass(frozen=True)
class World:
    """A model of one datum, twenty data of it, a posterior to measure, and the truth.

    joint: with latent part "z" and observed part "x".
    x: [data, *event].
    posterior: as `measure` takes it.
    evidence: ln p(x), [data].
    """

    joint: object
    x: np.ndarray
    posterior: Callable
    evidence: np.ndarray


# --- worlds ---------------------------------------------------------------------------------------


def conjugate_normal(rng):
    """z ~ N(m, s²), four noisy readings of it."""
    mean, scale, noise = rng.normal(0, 2), rng.uniform(0.5, 2), rng.uniform(0.3, 2)
    return _linear(rng, np.full(1, mean), np.eye(1) * scale**2, np.ones([4, 1]), noise)


def regression(rng):
    """Three weights with a standard normal prior, eight responses; columns of X correlated."""
    mixing = rng.normal(size=[3, 3])
    design = rng.normal(size=[8, 3]) @ (mixing + 2 * np.eye(3)) / 2
    return _linear(rng, np.zeros(3), np.eye(3), design, rng.uniform(0.5, 2))


def kalman_chain(rng):
    """An autoregressive state over five steps, seen through noise at each."""
    steps = np.arange(5)
    decay, scale = rng.uniform(0.2, 0.9), rng.uniform(0.5, 1.5)
    prior = scale**2 * decay ** np.abs(steps[:, np.newaxis] - steps)
    return _linear(rng, np.zeros(5), prior, np.eye(5), rng.uniform(0.5, 2))


def _linear(rng, mean, prior, loadings, noise):
    """z ~ N(mean, prior), x = loadings z + noise; q has the wrong mean and independent parts."""
    root = np.linalg.cholesky(prior)
    joint = tfd.JointDistributionNamed(
        {
            "z": tfd.MultivariateNormalTriL(mean, root),
            "x": lambda z: tfd.MultivariateNormalDiag(
                tf.linalg.matvec(loadings, z), np.full(len(loadings), noise)
            ),
        }
    )
    z = mean + rng.normal(size=[NUM_DATA, len(mean)]) @ root.T
    x = z @ loadings.T + noise * rng.normal(size=[NUM_DATA, len(loadings)])
    covariance = np.linalg.inv(np.linalg.inv(prior) + loadings.T @ loadings / noise**2)
    right = mean + (x - loadings @ mean) @ loadings @ covariance / noise**2
    sds = np.sqrt(np.diag(covariance))
    moved = right + rng.normal(0, 0.3, size=right.shape) * sds
    widths = sds * rng.uniform(0.9, 1.3, size=right.shape)
    marginal = loadings @ prior @ loadings.T + noise**2 * np.eye(len(loadings))
    evidence = stats.multivariate_normal(loadings @ mean, marginal).logpdf(x)
    return World(joint, x, lambda x: tfd.MultivariateNormalDiag(moved, widths), evidence)


def beta_binomial(rng):
    """z ~ Beta(a, b), successes among n trials."""
    a, b = rng.uniform(0.7, 4, size=2)
    trials = float(rng.integers(3, 30))
    joint = tfd.JointDistributionNamed(
        {
            "z": tfd.Beta(np.float64(a), np.float64(b)),
            "x": lambda z: tfd.Binomial(np.float64(trials), probs=z),
        }
    )
    x = rng.binomial(int(trials), rng.beta(a, b, NUM_DATA)).astype(np.float64)
    evidence = stats.betabinom(int(trials), a, b).logpmf(x)
    off = rng.uniform(0.8, 1.0, size=NUM_DATA)
    return World(joint, x, lambda x: tfd.Beta(off * (a + x), off * (b + trials - x)), evidence)


def gamma_poisson(rng):
    """z ~ Gamma(a, b), three counts with this rate."""
    a, b = rng.uniform(1, 5), rng.uniform(0.3, 2)
    joint = tfd.JointDistributionNamed(
        {
            "z": tfd.Gamma(np.float64(a), np.float64(b)),
            "x": lambda z: tfd.Independent(
                tfd.Poisson(z[..., tf.newaxis] * tf.ones(3, tf.float64)), 1
            ),
        }
    )
    x = rng.poisson(rng.gamma(a, 1 / b, NUM_DATA)[:, np.newaxis], [NUM_DATA, 3]).astype(float)
    total = x.sum(-1)
    evidence = special.gammaln(a + total) - special.gammaln(a) + a * np.log(b)
    evidence -= (a + total) * np.log(b + 3) + special.gammaln(x + 1).sum(-1)
    off = rng.uniform(0.8, 1.0, size=NUM_DATA)
    return World(joint, x, lambda x: tfd.Gamma(off * (a + total), off * (b + 3)), evidence)


def outliers(rng):
    """z ~ N(0, s²), two readings, each of them an outlier now and then; ln p(x) on a grid."""
    scale, noise, share = rng.uniform(1, 3), rng.uniform(0.3, 1), rng.uniform(0.05, 0.3)
    shares, widths = np.array([1 - share, share]), np.array([noise, 6 * noise])

    def readings(z):
        components = tfd.Normal(
            z[..., tf.newaxis, tf.newaxis] * tf.ones([2, 1], tf.float64), widths
        )
        each = tfd.MixtureSameFamily(tfd.Categorical(probs=shares), components)
        return tfd.Independent(each, 1)

    joint = tfd.JointDistributionNamed({"z": tfd.Normal(np.float64(0), scale), "x": readings})
    z = scale * rng.normal(size=NUM_DATA)
    drawn = widths[rng.binomial(1, share, [NUM_DATA, 2])]
    x = z[:, np.newaxis] + drawn * rng.normal(size=[NUM_DATA, 2])
    grid = np.linspace(-8 * scale, 8 * scale, 8001)
    log_p = np.logaddexp.reduce(
        stats.norm(grid[:, np.newaxis, np.newaxis, np.newaxis], widths).logpdf(x[..., np.newaxis])
        + np.log(shares),
        axis=-1,
    ).sum(-1)
    log_p += stats.norm(0, scale).logpdf(grid)[:, np.newaxis]
    evidence = special.logsumexp(log_p, axis=0) + np.log(grid[1] - grid[0])
    p = np.exp(log_p - special.logsumexp(log_p, axis=0))
    mean = grid @ p
    sd = np.sqrt(grid**2 @ p - mean**2)
    return World(joint, x, lambda x: tfd.Normal(mean, 1.3 * sd), evidence)


FAMILIES = {
    "conjugate normal": conjugate_normal,
    "beta-binomial": beta_binomial,
    "gamma-Poisson": gamma_poisson,
    "linear regression": regression,
    "outliers, on a grid": outliers,
    "Kalman chain": kalman_chain,
}


# --- counting -------------------------------------------------------------------------------------


@dataclass
class Count:
    """What a family of worlds gave; intervals are those of the evidence that `measure` reports.

    reliable, held: intervals not flagged, and those of them that hold ln p(x).
    flagged, flagged_held: the same of those that were.
    bounds, too_high: bounds of all kinds, and those above ln p(x) by more than five errors.
    """

    worlds: int = 0
    reliable: int = 0
    held: int = 0
    flagged: int = 0
    flagged_held: int = 0
    bounds: int = 0
    too_high: int = 0

    def add(self, found, evidence):
        """Count one world's `Measured`."""
        name = _chosen(found)
        holds = np.abs(found.bounds[name] - evidence) <= WIDTH * found.errors[name] + ROUNDING
        reliable = found.diagnostics[name].reliable
        self.worlds += 1
        self.reliable += int(reliable.sum())
        self.held += int(holds[reliable].sum())
        self.flagged += int((~reliable).sum())
        self.flagged_held += int(holds[~reliable].sum())
        for bound, values in found.bounds.items():
            limit = TOO_HIGH * found.errors[bound] + ROUNDING
            self.bounds += len(values)
            self.too_high += int((values - evidence > limit).sum())

    def __add__(self, other):
        return Count(*(getattr(self, name) + getattr(other, name) for name in vars(self)))

    def coverage(self):
        """(share of reliable intervals that hold ln p(x), its standard error)."""
        share = self.held / max(self.reliable, 1)
        return share, np.sqrt(share * (1 - share) / max(self.reliable, 1))


def _chosen(found):
    """The name of the bound that stands for the evidence."""
    basis = found.report.basis["evidence"]
    return next(name for name in found.diagnostics if basis.startswith(f"{name}, a lower bound"))


def count(num_worlds, *, seed=0, effort=EFFORT, progress=None):
    """Measure worlds in turn over the families: {family: `Count`}."""
    counts = {name: Count() for name in FAMILIES}
    for index in range(num_worlds):
        name = list(FAMILIES)[index % len(FAMILIES)]
        world = FAMILIES[name](np.random.default_rng([seed, index]))
        model = Model(world.joint, "x", example=world.x[0])
        with warnings.catch_warnings():  # what is unreliable is counted
            warnings.filterwarnings("ignore", message="the evidence", category=RuntimeWarning)
            found = measure(model, world.posterior, world.x, seed=seed + index, effort=effort)
        counts[name].add(found, world.evidence)
        if progress is not None:
            progress(index, name, counts[name])
    return counts


def table(counts):
    """The counts as a `Table`, all families last."""
    rows = []
    total = sum(counts.values(), Count())
    for name, found in [*counts.items(), ("all", total)]:
        share, error = found.coverage()
        cells = [name, found.worlds, found.reliable, f"{100 * share:.1f} ± {100 * error:.1f} %"]
        flagged = f"{found.flagged_held} of {found.flagged}"
        rows.append([*cells, flagged, f"{found.too_high} of {found.bounds}"])
    return Table(
        ["worlds", "number", "intervals", "hold ln p(x)", "flagged, hold it", "too high"], rows
    )


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--worlds", type=int, default=102, help="of twenty data each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", metavar="PATH", help="also write the counts to this file")
    options = parser.parse_args(arguments)
    started = time.monotonic()

    def progress(index, name, found):
        print(f"{index + 1}/{options.worlds} {name} {found}", file=sys.stderr, flush=True)

    counts = count(options.worlds, seed=options.seed, progress=progress)
    shown = table(counts)
    print(shown)
    if options.json:
        origin = results.provenance(
            command=f"python -m benchmarks.coverage --worlds {options.worlds} --seed "
            f"{options.seed} --json {options.json}",
            data="simulated",
            seeds=[options.seed],
            seconds=time.monotonic() - started,
        )
        rows = {name: vars(found) for name, found in counts.items()}
        cells = {"header": shown.header, "rows": shown.rows}
        results.save(options.json, {"table": cells, "families": rows}, origin)
    return 0


if __name__ == "__main__":
    sys.exit(main())
