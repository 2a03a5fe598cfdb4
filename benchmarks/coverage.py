"""Do the intervals of `tfp_gaps.measure` hold what they should? In worlds of known evidence.

    python -m benchmarks.coverage [--worlds 2040] [--json book/coverage.json]

A world is a model with random parameters, a datum drawn from it, and a posterior that is not quite
right. Those of a family are measured together: a datum carries the parameters of its world. An
interval is value ± 1.96 standard errors of the bound that `measure` takes for ln p(x). Of the
reliable ones about 95 % should hold ln p(x), and no bound may lie above it by more than five of its
errors. ln p(x) is a formula, or an integral on a grid.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from benchmarks import resuming
from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.book import results
from tfp_gaps.measuring import Effort, measure
from tfp_gaps.models.joint import Model
from tfp_gaps.tables import Table

tfd = tfp.distributions
NUM_WORLDS = 2040
EFFORT = Effort(num_samples=1000, search_steps=300, search_samples=8, num_temperatures=100)
WIDTH = 1.96  # standard errors, of a normal that holds 95 %
TOO_HIGH = 5.0  # standard errors: one draw of a normal in three million
ROUNDING = 1e-6  # nats, of densities in float64 beside an error of zero


@dataclass(frozen=True)
class Worlds:
    """A family of worlds, one datum each.

    prior: of z, the same in all; what differs is in the likelihood.
    log_likelihood: (z, columns) -> ln p(x | z).
    posterior: columns -> q.
    columns: {name: float64 [worlds, size]}: "x", the parameters of the world, and those of q.
    evidence: ln p(x), [worlds].
    """

    prior: object
    log_likelihood: Callable
    posterior: Callable
    columns: dict
    evidence: np.ndarray

    def split(self, rows):
        """{name: [..., size]} of rows [..., sum of the sizes]."""
        sizes = [values.shape[-1] for values in self.columns.values()]
        return dict(zip(self.columns, tf.split(tf.convert_to_tensor(rows), sizes, -1)))

    def measured(self, seed, effort):
        """What `measure` finds."""
        rows = np.concatenate(list(self.columns.values()), -1)
        model = Model.from_log_density(
            self.prior, lambda z, row: self.log_likelihood(z, self.split(row)), example=rows[0]
        )
        with warnings.catch_warnings():  # what is unreliable is counted
            warnings.filterwarnings("ignore", message="the (evidence|posterior's ELBO)")
            q = lambda row: self.posterior(self.split(row))  # noqa: E731
            return measure(model, q, rows, seed=seed, effort=effort)


# --- families of worlds ---------------------------------------------------------------------------


def conjugate_normal(rng, count):
    """z ~ N(m, s²), four noisy readings of it."""
    mean, scale = rng.normal(0, 2, count), rng.uniform(0.5, 2, count)
    loadings = np.repeat(scale[:, np.newaxis, np.newaxis], 4, axis=1)
    return _linear(rng, np.repeat(mean[:, np.newaxis], 4, 1), loadings, rng.uniform(0.3, 2, count))


def regression(rng, count):
    """Three weights with a standard normal prior, eight responses, correlated columns."""
    mixing = (rng.normal(size=[count, 3, 3]) + 2 * np.eye(3)) / 2
    design = rng.normal(size=[count, 8, 3]) @ mixing
    return _linear(rng, np.zeros([count, 8]), design, rng.uniform(0.5, 2, count))


def kalman_chain(rng, count):
    """An autoregressive state over five steps, seen through noise at each."""
    lag = np.abs(np.arange(5)[:, np.newaxis] - np.arange(5))
    decay, scale = rng.uniform(0.2, 0.9, [count, 1, 1]), rng.uniform(0.5, 1.5, [count, 1, 1])
    root = np.linalg.cholesky(scale**2 * decay**lag)
    return _linear(rng, np.zeros([count, 5]), root, rng.uniform(0.5, 2, count))


def _linear(rng, offset, loadings, noise):
    """z ~ N(0, I), x = offset + loadings z + noise; q has independent parts, and errs."""
    count, seen, size = loadings.shape
    x = offset + np.einsum("nij,nj->ni", loadings, rng.normal(size=[count, size]))
    x += noise[:, np.newaxis] * rng.normal(size=[count, seen])
    outer = loadings.swapaxes(1, 2)
    covariance = np.linalg.inv(
        np.eye(size) + outer @ loadings / noise[:, np.newaxis, np.newaxis] ** 2
    )
    right = np.einsum("nij,njk,nk->ni", covariance, outer, (x - offset) / noise[:, np.newaxis] ** 2)
    sds = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    marginal = loadings @ outer + noise[:, np.newaxis, np.newaxis] ** 2 * np.eye(seen)
    evidence = [
        stats.multivariate_normal(mean, cov).logpdf(row)
        for mean, cov, row in zip(offset, marginal, x)
    ]

    def log_likelihood(z, c):
        shape = tf.concat([tf.shape(c["x"]), [size]], 0)
        mean = c["offset"] + tf.linalg.matvec(tf.reshape(c["loadings"], shape), z)
        return tf.reduce_sum(tfd.Normal(mean, c["noise"]).log_prob(c["x"]), -1)

    columns = {"x": x, "offset": offset, "loadings": loadings.reshape(count, -1)}
    columns |= {"noise": noise[:, np.newaxis], "sd": sds * rng.uniform(0.9, 1.3, sds.shape)}
    columns |= {"mean": right + rng.normal(0, 0.3, sds.shape) * sds}
    prior = tfd.MultivariateNormalDiag(tf.zeros(size, tf.float64), tf.ones(size, tf.float64))
    q = lambda c: tfd.MultivariateNormalDiag(c["mean"], c["sd"])  # noqa: E731
    return Worlds(prior, log_likelihood, q, columns, np.array(evidence))


def beta_binomial(rng, count):
    """z ~ Beta(a, b), successes among n trials."""
    (a, b), trials = rng.uniform(0.7, 4, [2, count]), rng.integers(3, 30, count)
    x = rng.binomial(trials, rng.beta(a, b))
    evidence = stats.betabinom(trials, a, b).logpmf(x)

    def log_likelihood(z, c):
        x, a, b, trials = (c[name][..., 0] for name in ("x", "a", "b", "trials"))
        return tfd.Beta(a, b).log_prob(z) + tfd.Binomial(trials, probs=z).log_prob(x)

    off = rng.uniform(0.8, 1.0, count)
    columns = _columns(x=x, a=a, b=b, trials=trials, qa=off * (a + x), qb=off * (b + trials - x))
    q = lambda c: tfd.Beta(c["qa"][..., 0], c["qb"][..., 0])  # noqa: E731
    flat = tfd.Beta(np.float64(1), np.float64(1))
    return Worlds(flat, log_likelihood, q, columns, evidence)


def gamma_poisson(rng, count):
    """z ~ Gamma(a, b), three counts with this rate."""
    a, b = rng.uniform(1, 5, count), rng.uniform(0.3, 2, count)
    x = rng.poisson(rng.gamma(a, 1 / b)[:, np.newaxis], [count, 3]).astype(np.float64)
    total = x.sum(-1)
    evidence = special.gammaln(a + total) - special.gammaln(a) + a * np.log(b)
    evidence -= (a + total) * np.log(b + 3) + special.gammaln(x + 1).sum(-1)
    prior = tfd.Gamma(np.float64(1), np.float64(1))

    def log_likelihood(z, c):
        counts = tf.reduce_sum(tfd.Poisson(z[..., tf.newaxis]).log_prob(c["x"]), -1)
        own = tfd.Gamma(c["a"][..., 0], c["b"][..., 0])
        return own.log_prob(z) - prior.log_prob(z) + counts

    off = rng.uniform(0.8, 1.0, count)
    columns = {"x": x, **_columns(a=a, b=b, qa=off * (a + total), qb=off * (b + 3))}
    q = lambda c: tfd.Gamma(c["qa"][..., 0], c["qb"][..., 0])  # noqa: E731
    return Worlds(prior, log_likelihood, q, columns, evidence)


def outliers(rng, count):
    """z ~ N(0, 1), two readings of s z, each of them an outlier now and then; on a grid."""
    scale, noise = rng.uniform(1, 3, count), rng.uniform(0.3, 1, count)
    share = rng.uniform(0.05, 0.3, count)
    is_off = rng.random([2, count]) < share
    x = scale * rng.normal(size=count) + np.where(is_off, 6, 1) * noise * rng.normal(
        size=[2, count]
    )
    grid = np.linspace(-8, 8, 8001)[:, np.newaxis]
    log_p = stats.norm.logpdf(grid) + sum(
        np.logaddexp(
            np.log1p(-share) + stats.norm.logpdf(reading, scale * grid, noise),
            np.log(share) + stats.norm.logpdf(reading, scale * grid, 6 * noise),
        )
        for reading in x
    )
    evidence = special.logsumexp(log_p, axis=0) + np.log(grid[1, 0] - grid[0, 0])
    p = np.exp(log_p - special.logsumexp(log_p, axis=0))
    mean = (grid * p).sum(0)
    sd = np.sqrt((grid**2 * p).sum(0) - mean**2)

    def log_likelihood(z, c):
        centre = (z * c["scale"][..., 0])[..., tf.newaxis]
        usual = tf.math.log1p(-c["share"]) + tfd.Normal(centre, c["noise"]).log_prob(c["x"])
        off = tf.math.log(c["share"]) + tfd.Normal(centre, 6 * c["noise"]).log_prob(c["x"])
        return tf.reduce_sum(tf.reduce_logsumexp([usual, off], 0), -1)

    columns = {"x": x.T, **_columns(scale=scale, noise=noise, share=share, mean=mean, sd=1.3 * sd)}
    q = lambda c: tfd.Normal(c["mean"][..., 0], c["sd"][..., 0])  # noqa: E731
    prior = tfd.Normal(np.float64(0), np.float64(1))
    return Worlds(prior, log_likelihood, q, columns, evidence)


def _columns(**vectors):
    return {name: np.asarray(v, np.float64)[:, np.newaxis] for name, v in vectors.items()}


FAMILIES = {
    "conjugate normal": conjugate_normal,
    "beta-binomial": beta_binomial,
    "gamma-Poisson": gamma_poisson,
    "linear regression": regression,
    "outliers, on a grid": outliers,
    "Kalman chain": kalman_chain,
}


# --- counting -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Count:
    """What a family gave; intervals are those of the bound that stands for the evidence.

    reliable, held: intervals not flagged, and those of them that hold ln p(x).
    flagged, flagged_held: the same of those that were.
    bounds, too_high: bounds of all kinds, and those above ln p(x) by more than five errors.
    """

    reliable: int = 0
    held: int = 0
    flagged: int = 0
    flagged_held: int = 0
    bounds: int = 0
    too_high: int = 0

    @classmethod
    def of(cls, found, evidence):
        """Count what `measure` found where ln p(x) is known, [data]."""
        name = _chosen(found)
        holds = np.abs(found.bounds[name] - evidence) <= WIDTH * found.errors[name] + ROUNDING
        reliable = found.diagnostics[name].reliable
        over = {
            bound: values - evidence > TOO_HIGH * found.errors[bound] + ROUNDING
            for bound, values in found.bounds.items()
        }
        counted = (reliable, holds & reliable, ~reliable, holds & ~reliable)
        sums = [int(np.sum(which)) for which in counted]
        return cls(*sums, len(over) * len(evidence), int(sum(map(np.sum, over.values()))))

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


def count(num_worlds=NUM_WORLDS, *, seed=0, effort=EFFORT, counted=(), progress=None):
    """Measure worlds of all families, in equal numbers: {family: `Count`}.

    Args:
      num_worlds: of all families together.
      seed: int; each family has draws of its own.
      effort: `Effort`.
      counted: {family: `Count`} that need not be measured again.
      progress: None, or a function of what is counted so far, called after each family.
    """
    counts = dict(counted)
    for index, (name, family) in enumerate(FAMILIES.items()):
        if name not in counts:
            rng = np.random.default_rng([seed, index])
            worlds = family(rng, num_worlds // len(FAMILIES))
            counts[name] = Count.of(worlds.measured(seed + index, effort), worlds.evidence)
            if progress is not None:
                progress(counts)
    return counts


def table(counts):
    """The counts as a `Table`, all families last."""
    rows = []
    for name, found in [*counts.items(), ("all", sum(counts.values(), Count()))]:
        share, error = found.coverage()
        held = f"{100 * share:.1f} ± {100 * error:.1f} %"
        flagged = f"{found.flagged_held} of {found.flagged}"
        too_high = f"{found.too_high} of {found.bounds}"
        rows.append([name, found.reliable, held, flagged, too_high])
    header = ["worlds", "reliable intervals", "hold ln p(x)", "flagged, hold it", "bounds too high"]
    return Table(header, rows)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--worlds", type=int, default=NUM_WORLDS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--json",
        metavar="PATH",
        help="write the counts to this file, after each family; those of the same command and "
        "commit that it holds already are kept",
    )
    options = parser.parse_args(arguments)
    command = f"python -m benchmarks.coverage --worlds {options.worlds} --seed {options.seed}"
    command += f" --json {options.json}" if options.json else ""
    started = time.monotonic()
    origin = results.provenance(command=command, data="simulated", seeds=[options.seed], seconds=0)
    stored, before = resuming.stored(options.json, origin)
    counted = {name: Count(**found) for name, found in stored.get("families", {}).items()}

    def progress(counts):
        print(f"{len(counts)} of {len(FAMILIES)} families", file=sys.stderr, flush=True)
        if options.json:
            shown = table(counts)
            found = {
                "table": {"header": shown.header, "rows": shown.rows},
                "families": {name: vars(count) for name, count in counts.items()},
            }
            spent = round(before + time.monotonic() - started, 1)
            results.save(options.json, found, origin | {"seconds": spent})

    print(table(count(options.worlds, seed=options.seed, counted=counted, progress=progress)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
