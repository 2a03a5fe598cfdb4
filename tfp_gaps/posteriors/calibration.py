"""Whether a posterior is calibrated: simulation-based calibration (Talts et al. 2018).

    z ~ p(z), x ~ p(x | z), z_1 .. z_L ~ q(z | x):    rank of z among z_1 .. z_L

is uniform on 0 .. L for each number of z if q is the posterior. A q that is too narrow has too many
ranks at both ends, one that is too wide too few, one that is shifted has them at one end. Draws
that equal z, such as all of a constant entry, count as below it or above at random. What it does
not see: that q leaves out what x says (the prior itself passes), and how parts depend on each
other. The gaps of `measure` see both.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from scipy import stats

from tfp_gaps import _checks
from tfp_gaps.estimate import Estimate
from tfp_gaps.models import posterior_checks
from tfp_gaps.models.joint import Model
from tfp_gaps.tables import Table

LEVELS = (0.5, 0.8, 0.9)
"""Of central intervals: ends are ranks, exact with 199 draws."""

_FEWEST_PER_BIN = 5
_MOST_BINS = 20
_NUMBERS_AT_ONCE = 4_000_000


@dataclass(frozen=True, eq=False)
class Calibration:
    """Ranks of the latents that made the data among draws of q.

    ranks: {"part" or "part[i, j]": int [data]}, from 0 to num_draws.
    num_draws: L, draws of q per datum.
    """

    ranks: dict
    num_draws: int

    @property
    def num_bins(self):
        """Bins of as many ranks each, with five data or more expected in each."""
        most = min(_MOST_BINS, len(next(iter(self.ranks.values()))) // _FEWEST_PER_BIN)
        return max(n for n in range(1, most + 1) if (self.num_draws + 1) % n == 0)

    def counts(self, name):
        """Data per bin of ranks: int [num_bins]."""
        width = (self.num_draws + 1) // self.num_bins
        return np.bincount(self.ranks[name] // width, minlength=self.num_bins)

    def p_value(self, name):
        """Of uniform ranks, by the chi-square test over bins."""
        return float(stats.chisquare(self.counts(name)).pvalue)

    def coverage(self, name, level):
        """Share of data whose latent lies in the central interval of that level: `Estimate`."""
        cut = round((self.num_draws + 1) * (1 - _checks.level(level)) / 2)
        inside = (self.ranks[name] >= cut) & (self.ranks[name] <= self.num_draws - cut)
        return Estimate.from_share(int(inside.sum()), len(inside))

    def passes(self, level=0.01):
        """Whether no number's ranks are other than uniform, at that level over all (Bonferroni)."""
        least = min(self.p_value(name) for name in self.ranks)
        return bool(least * len(self.ranks) > _checks.level(level))

    def table(self):
        """A `Table` with a row for each number: p value, and coverage of central intervals."""
        rows = [
            [name, f"{self.p_value(name):.2g}", *(self.coverage(name, level) for level in LEVELS)]
            for name in self.ranks
        ]
        return Table(["latent", "p (uniform ranks)", *(f"in {a:.0%}" for a in LEVELS)], rows)

    def figure(self):
        """Histograms of ranks as a Matplotlib `Figure`, with the band that holds 99 % of a bin."""
        from matplotlib.figure import Figure  # takes a second that few need

        columns = min(4, len(self.ranks))
        rows = -(-len(self.ranks) // columns)
        figure = Figure(figsize=(2.4 * columns, 1.9 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
        num_data = len(next(iter(self.ranks.values())))
        band = stats.binom.interval(0.99, num_data, 1 / self.num_bins)
        edges = np.linspace(0, self.num_draws + 1, self.num_bins + 1)
        for axis, name in zip(axes, self.ranks, strict=False):
            axis.axhspan(*band, color="0.85")
            axis.stairs(self.counts(name), edges, fill=False, color="C0")
            axis.set_title(name)
        for axis in itertools.islice(figure.axes, len(self.ranks), None):
            axis.set_visible(False)
        figure.supxlabel(f"rank among {self.num_draws} draws")
        figure.supylabel("number of data")
        return figure


def calibrate(model, posterior, *, num_data, seed, num_draws=199):
    """Simulate data and rank what made them among draws of the posterior.

    Args:
      model: `Model`.
      posterior: callable (x [data, *event]) -> a distribution over the latent parts with a batch
        axis over data.
      num_data: data to simulate, 20 at least; 500 see a scale that is wrong by a tenth.
      seed: int. Data that do not fit come in batches, each with a seed of its own.
      num_draws: L; 199 makes the ends of intervals exact.

    Returns:
      `Calibration`.

    Raises:
      ValueError: for a posterior that is no function of the data, whose density changes from call
        to call or with the data beside a datum, or whose draws lie outside the model's support; and
        as `Model.draw`.

    >>> from tfp_gaps._tensorflow import tfp
    >>> tfd = tfp.distributions
    >>> joint = tfd.JointDistributionNamedAutoBatched(
    ...     {"z": tfd.Normal(0.0, 1.0), "x": lambda z: tfd.Normal(z, 1.0)})
    >>> model = Model(joint, "x", example=0.0)
    >>> calibrate(model, lambda x: tfd.Normal(x / 2, 0.5**0.5), num_data=500, seed=0).passes()
    True
    >>> calibrate(model, lambda x: tfd.Normal(x / 2, 0.5), num_data=500, seed=0).passes()
    False
    """
    if not isinstance(model, Model):
        raise ValueError(f"model must be a tfp_gaps.Model, but is a {type(model).__name__}.")
    _checks.integer(num_data, "num_data", minimum=20, advice="Use 500.")
    _checks.integer(num_draws, "num_draws", minimum=9, advice="Use 199.")
    if hasattr(posterior, "log_prob") or not callable(posterior):
        raise ValueError(
            f"posterior must be a function of the data that returns a distribution, but is a "
            f"{type(posterior).__name__}: data are simulated here. Pass lambda x: ..."
        )
    latents, x = model.simulate(num_data, seed=seed)
    x = model.data(x)
    at_once = max(1, _NUMBERS_AT_ONCE // (num_draws * model.size))
    posterior_checks.steady(posterior, model.select(x, slice(0, max(at_once, 8))))
    batches = []
    for first in range(0, num_data, at_once):
        own = np.random.SeedSequence([abs(seed), first, 1]).generate_state(1)[0] % 2**30
        ties = np.random.default_rng([abs(seed), first, 2])
        part = model.select(x, slice(first, first + at_once))
        parts, _ = model.draw(posterior, part, num_draws, int(own))
        posterior_checks.on_support(model, parts)
        made = {name: value[:, first : first + at_once] for name, value in latents.items()}
        batches.append({name: _ranks(parts[name], made[name], ties) for name in parts})
    return Calibration(
        {
            label: values
            for name in batches[0]
            for label, values in _numbers(name, np.concatenate([b[name] for b in batches]))
        },
        num_draws,
    )


def _ranks(draws, made, ties):
    """Draws below what made the data, and a random number of its equals: int [data, *event]."""
    draws, made = np.asarray(draws), np.asarray(made)
    if not np.isfinite(draws).all():
        raise ValueError(
            "draws of the posterior must be finite, but some are not. Look for NaN in q."
        )
    below, equal = np.sum(draws < made, axis=0), np.sum(draws == made, axis=0)
    # Uniform again: what made the data has any place among its equals.
    return below + ties.integers(equal, endpoint=True)


def _numbers(name, ranks):
    """(label, int [data]) of each entry of a part."""
    for index in np.ndindex(*ranks.shape[1:]):
        label = f"{name}[{', '.join(map(str, index))}]" if index else name
        yield label, ranks[(slice(None), *index)]
