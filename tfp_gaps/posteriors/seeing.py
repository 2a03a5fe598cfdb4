"""Which observations an approximate posterior uses: read off its factors, whatever is said of it.

    q(z_t | z_{t-1}, C_t) uses x_s   if another x_s gives it another mean or scale

Gradients would miss a unit that is silent at these data: x_s is changed by finite amounts of
several sizes and both signs, at several sequences, all channels together and each alone, with
z_{t-1} held fixed. All changes are computed in one call, beside unchanged copies in the same rows
of another, so that what is not used does not change in a single bit. That a use was found is
certain; that none was found, for what was tried. What the conditions cost is known exactly where
the model is linear-Gaussian (`exact.conditions`).
"""

import math
from dataclasses import dataclass, field

import numpy as np

from tfp_gaps._tensorflow import tf
from tfp_gaps.exact import conditions as exact
from tfp_gaps.exact import linear_gaussian
from tfp_gaps.models.joint import Model
from tfp_gaps.models.own import as_linear_gaussian
from tfp_gaps.networks import for_replicas
from tfp_gaps.posteriors.conditions import FULL, LookAhead
from tfp_gaps.posteriors.own import factors, with_posterior
from tfp_gaps.sequences import Sequences

_SIZES = (-30.0, -3.0, -0.3, 0.3, 3.0, 30.0)
"""Changes of a value, in standard deviations of its channel over the data."""
_MOST = 8
"""Sequences at which q is asked."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What q(z_t | ...) was found to use.

    observations: bool [time of z, time of x].
    channels: bool [time of z, time of x, channel].
    controls: bool [time of z, row of controls], or None; row s acts into step s, and the prior that
      q is relative to counts as q's.
    latents: bool [time of z, time of z], true where z_{t-1} is used.
    changes: float [time of z, time of x], the largest change of a mean found, or of the logarithm
      of a standard deviation, in units of q's standard deviation.
    declared: `LookAhead` that the posterior says it has, or None.
    """

    observations: np.ndarray
    channels: np.ndarray
    controls: np.ndarray | None
    latents: np.ndarray
    changes: np.ndarray = field(repr=False)
    declared: LookAhead | None = None

    @property
    def conditions(self):
        """The `LookAhead` that shows exactly this, or None if there is none.

        Where all of the future is shown, the past counts as seen if z_{t-1} is: given it, the
        posterior's own factors do not depend on x_{1:t-1}.
        """
        size = len(self.observations)
        for k in (*range(size - 1), math.inf):
            shown = LookAhead(k)(size)
            used = self.observations | self._beside_the_point(shown)
            if np.array_equal(shown, used) and not self._controls_beyond(shown).any():
                return LookAhead(k)
        return None

    @property
    def label(self):
        """ "partial", "2 ahead" or "full", or "neither" where some step sees more or less."""
        return "neither" if self.conditions is None else self.conditions.label

    @property
    def meant(self):
        """`LookAhead` to compare with: the declared one, that found, or that of most steps."""
        if self.declared is not None:
            return self.declared
        if self.conditions is not None:
            return self.conditions
        size = len(self.observations)
        reach = [
            int(np.flatnonzero(row).max(initial=t)) - t for t, row in enumerate(self.observations)
        ]
        ends = [t + k >= size - 1 and k > 0 for t, k in enumerate(reach)]
        inner = [max(k, 0) for k, end in zip(reach, ends, strict=True) if not end]
        return LookAhead(int(np.median(inner))) if len(inner) > size / 2 else FULL

    @property
    def leaks(self):
        """What q sees and `meant` hides, one sentence for each step."""
        shown = self.meant(len(self.observations))
        found = []
        for what, extra in (
            ("x_{}", self.observations & ~shown),
            ("the control into step {}", self._controls_beyond(shown)),
        ):
            found += [
                f"q(z_{t + 1}) sees {what.format(s + 1)}, which {self.meant.label} conditions hide"
                for t, s in zip(*np.nonzero(extra), strict=True)
            ]
        return found

    @property
    def blind(self):
        """What `meant` shows and q does not use, one sentence for each."""
        shown = self.meant(len(self.observations))
        missing = shown & ~self.observations & ~self._beside_the_point(shown)
        return [
            f"q(z_{t + 1}) does not use x_{s + 1}, which {self.meant.label} conditions show"
            for t, s in zip(*np.nonzero(missing), strict=True)
        ]

    def _beside_the_point(self, shown):
        """The past at steps to which all of the future is shown and which use z_{t-1}."""
        size = len(shown)
        rows = self.latents.any(1) & shown[:, -1]
        return np.tri(size, k=-1, dtype=bool) & rows[:, np.newaxis]

    def _controls_beyond(self, shown):
        return np.zeros_like(shown) if self.controls is None else self.controls & ~shown

    def __str__(self):
        """The mask as text, one row per factor, and what differs from the conditions meant."""
        size = len(self.observations)
        width = len(str(size)) + 4
        marks = ["".join(" ■" if use else " ·" for use in row) for row in self.observations]
        lines = [f"{'':{width}} x_1 ... x_{size}: {self.label}"]
        lines += [f"z_{t + 1:<{width - 2}}{row}" for t, row in enumerate(marks)]
        differing = self.leaks + self.blind
        lines += differing[:8]
        if len(differing) > 8:
            lines.append(f"and {len(differing) - 8} more")
        return "\n".join(lines)

    def figure(self):
        """The mask as a Matplotlib figure: what is used filled, what `meant` shows outlined."""
        from matplotlib.figure import Figure  # takes a second that few need

        size = len(self.observations)
        figure = Figure(figsize=(4.5, 4.0), layout="constrained")
        axes = figure.subplots()
        extent = (0.5, size + 0.5, size + 0.5, 0.5)
        axes.imshow(self.observations, cmap="Greys", vmin=0, vmax=1.4, extent=extent)
        for t, s in zip(*np.nonzero(self.meant(size)), strict=True):
            axes.plot(s + 1, t + 1, ".", color="#009e8e", markersize=4)
        axes.set_xlabel("time of x")
        axes.set_ylabel("time of z")
        axes.set_title(f"{self.label}; dots: {self.meant.label}")
        return figure

    def price(self, model):
        """What these conditions cost the best q of a linear-Gaussian model.

        Args:
          model: `exact.linear_gaussian.LinearGaussian`, `LinearGaussianStateSpace` or
            `tfd.LinearGaussianStateSpaceModel`; of any size for a look-ahead under which q sees
            z_{t-1}, else scalar.

        Returns:
          `exact.conditions.Parts`.
          `latents`: nats per sequence for hidden earlier latents, an approximation gap;
          `observations`: for hidden observations, the conditioning gap.

        Raises:
          ValueError: for a model that is not linear-Gaussian, or a larger one under other
            conditions.
        """
        chain = as_linear_gaussian(model)
        if chain is None:
            raise ValueError(
                f"only a linear-Gaussian model has a price in closed form, but this is a "
                f"{type(model).__name__}. Measure it: tfp_gaps.measure_sequence."
            )
        size = len(self.observations)
        previous = np.eye(size, k=-1, dtype=bool)
        if self.conditions is not None and np.array_equal(self.latents, previous):
            k = self.conditions.lookahead
            return exact.Parts(0.0, linear_gaussian.conditioning_gap(chain, size, k))
        return exact.parts(chain, exact.Conditions(self.observations, self.latents))


@dataclass(frozen=True, eq=False)
class SeenColumns:
    """Which values of x a static q(z | x) was found to use: bool, of the shape of one datum."""

    columns: np.ndarray

    @property
    def label(self):
        """ "full", or "partial" where some are not used."""
        return "full" if self.columns.all() else "partial"

    def __str__(self):
        marks = " ".join("■" if use else "·" for use in self.columns.ravel())
        return f"x: {marks} ({self.label}, {int(self.columns.sum())} of {self.columns.size} used)"


def conditions_of(posterior, model, data):
    """Which observations, controls and earlier latents the factors of q use.

    Args:
      posterior: of a state-space model, as `posteriors.own` describes; of a `tfp_gaps.Model`, a
        callable x [data, *event] -> distribution.
      model: state-space model, as `models.own` describes, or `tfp_gaps.Model`.
      data: `Sequences`, or an array [time, sequences, channels]; of a `Model` [data, *event]. The
        first eight are used; the more they differ, the harder for a use to hide. Where only later
        sequences have missing values, up to four of these take the places of the last.

    Returns:
      `Seen`, or `SeenColumns` for a `Model`.

    Raises:
      ValueError: for a q that answers the same question twice differently, and as `models.own`
        and `posteriors.own`.

    >>> from tfp_gaps import LinearGaussianStateSpace
    >>> chain = linear_gaussian.LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    >>> model = LinearGaussianStateSpace(chain)
    >>> from tensorflow_probability import distributions as tfd
    >>> def q(x):
    ...     return tfd.Normal(0.5 * tf.cumsum(x), 1.0)
    >>> seen = conditions_of(q, model, np.random.default_rng(0).normal(size=[4, 3, 1]))
    >>> print(seen)
           x_1 ... x_4: partial
    z_1    ■ · · ·
    z_2    ■ ■ · ·
    z_3    ■ ■ ■ ·
    z_4    ■ ■ ■ ■
    """
    if isinstance(model, Model):
        return _columns(posterior, model, data)
    order = "conditions_of(posterior, model, data)"
    model, posterior, sequences = with_posterior(model, posterior, data, order)
    return _Probe(posterior, model, sequences).run()


def _chosen(mask, count):
    """Indices of the sequences at which q is asked, incomplete ones among them if there are any."""
    first = np.arange(min(_MOST, count))
    if mask is None:
        return first
    incomplete = np.flatnonzero(~mask.all((0, 2)))
    if incomplete[0] < _MOST:
        return first
    some = incomplete[: _MOST // 2]
    return np.concatenate([first[: _MOST - len(some)], some])


class _Probe:
    """Asks q for its factors at changed data."""

    def __init__(self, posterior, model, sequences):
        self.posterior, self.model = posterior, model
        self.is_masked = sequences.mask is not None
        sequences = sequences.select(_chosen(sequences.mask, len(sequences)))
        x = sequences.observations
        self.is_binary = x.dtype == np.uint8
        x = x.astype(np.float32)
        if not self.is_binary:
            # Far from the data too: gates that are shut there may open.
            x = np.concatenate([x, 3 * x], 1)
        self.scale = np.where(x.std((0, 1)) > 0, x.std((0, 1)), 1.0)
        self.controls = _twice(sequences.controls, x)
        self.mask = _twice(sequences.mask, x)
        self.x = x
        self.latents = self._latents()
        self.factors = tf.function(
            lambda batch, latents: factors(posterior, model, batch, latents), autograph=False
        )

    def run(self):
        time, _, channels = self.x.shape
        # [time, changes * sequences, channels]: all channels together, then each alone.
        which = (
            np.concatenate([np.ones([1, channels]), np.eye(channels)])
            if channels > 1
            else (np.ones([1, 1]))
        )
        found = [self._changes(s, which) for s in range(time)]
        by_group = np.stack(found, 1)  # [time of z, time of x, groups]
        alone = by_group[..., 1:] if channels > 1 else by_group
        of_latents = self._of_latents()
        latents = np.zeros([time, time], bool)
        latents[np.arange(1, time), np.arange(time - 1)] = of_latents[1:] > 0
        controls = None
        if self.controls is not None:
            rows = [np.zeros(time), *(self._of_controls(s) for s in range(1, time))]
            controls = np.stack(rows, 1) > 0
        declared = getattr(self.posterior, "conditions", None)
        return Seen(
            observations=(by_group > 0).any(-1),
            channels=alone > 0,
            controls=controls,
            latents=latents,
            changes=by_group.max(-1),
            declared=declared if isinstance(declared, LookAhead) else None,
        )

    def _changes(self, step, which):
        """Largest changes of each factor when x at one step changes: [time, groups], the rest."""
        rows = []
        for group in which:
            now = self.x[step]
            if self.is_binary:
                rows += [np.where(group > 0, 1 - now, now)]
            else:
                rows += [now + size * self.scale * group for size in _SIZES]
            rows += [np.where(group > 0, np.roll(now, 1, axis=0), now)]
        base = np.tile(self.x, [1, len(rows), 1])
        changed = base.copy()
        changed[step] = np.concatenate(rows)
        change = self._compare(base, changed, len(rows))
        if self.is_masked:
            change = np.maximum(change, self._compare_masks(step, base, len(rows)))
        change = change.reshape(len(self.x), len(which), -1)
        return change.max(-1)

    def _compare(self, base, changed, copies, controls=None):
        """Largest change of each factor per row of the batch, in standard deviations of q."""
        latents = np.tile(self.latents, [1, 1, copies, 1])
        first = None if self.controls is None else np.tile(self.controls, [1, copies, 1])
        second = first if controls is None else controls
        return self._differ((base, first, latents), (changed, second, latents))

    def _differ(self, one, other, masks=None):
        before, after = masks or ([np.ones_like(one[0])] * 2 if self.is_masked else [None] * 2)
        (mean, scale), again = (self._ask(*one, before) for _ in range(2))
        after = self._ask(*other, after)
        if not (np.isfinite(mean).all() and np.all(scale > 0)):
            raise ValueError(
                "the posterior's factors must have finite means and scales above zero, but have "
                "others at these data. Standardise the data, or bound the scales."
            )
        if not (np.array_equal(mean, again[0]) and np.array_equal(scale, again[1])):
            raise ValueError(
                "the posterior must give the same factors for the same data, but gave others when "
                "asked twice. Switch dropout off, or fix its seed."
            )
        moved = np.abs(after[0] - mean) / scale + np.abs(np.log(after[1] / scale))
        return np.nan_to_num(moved, nan=np.inf).max((1, 3))  # over replicas and latents

    def _compare_masks(self, step, base, copies):
        """The same, when it is marked as missing, or, where it is missing, as observed."""
        latents = np.tile(self.latents, [1, 1, copies, 1])
        controls = None if self.controls is None else np.tile(self.controls, [1, copies, 1])
        given = (base, controls, latents)
        own = np.tile(self.mask, [1, copies, 1]).astype(base.dtype)
        found = []
        for before in (np.ones_like(base), own):
            after = before.copy()
            after[step] = 1.0 - before[step]
            found.append(self._differ(given, given, (before, after)))
        return np.maximum(*found)

    def _of_controls(self, step):
        copies = len(_SIZES)
        base = np.tile(self.x, [1, copies, 1])
        controls = np.tile(self.controls, [1, copies, 1])
        scale = self.controls.std((0, 1))
        sizes = np.repeat(_SIZES, self.x.shape[1])[:, np.newaxis]
        controls[step] += (sizes * np.where(scale > 0, scale, 1.0)).astype(np.float32)
        return self._compare(base, base, copies, controls).max(-1)

    def _of_latents(self):
        """Largest change of each factor when the latent before changes: [time]."""
        given = (self.x, self.controls, self.latents)
        moved = [
            self._differ(given, (self.x, self.controls, self.latents + np.float32(size)))
            for size in _SIZES
        ]
        return np.max(moved, (0, 2))

    def _latents(self):
        """A path of the prior's means, to be held fixed: [time, replicas, sequences, latent]."""
        time, size, _ = self.x.shape
        shape = [self.model.num_replicas, size, self.model.latent_size]
        noise = np.random.default_rng(0).normal(size=[time, *shape])
        return noise.astype(np.float32)

    def _ask(self, x, controls, latents, mask):
        """Means and scales of all factors, float64 [time, replicas, sequences, latent]."""
        batch = for_replicas(
            Sequences(x, controls).batch._replace(mask=mask), self.model.num_replicas
        )
        return [
            part.numpy().astype(np.float64) for part in self.factors(batch, tf.constant(latents))
        ]


def _twice(part, x):
    """Controls or mask for the rows of x, which may hold each sequence twice."""
    if part is None:
        return None
    return np.tile(part, [1, x.shape[1] // part.shape[1], 1])


def _columns(posterior, model, data):
    """Change each value of x in turn; compare ln q at draws of the q before."""
    x = model.data(data)[:_MOST]
    is_float = x.dtype.kind == "f"
    if is_float:
        x = np.concatenate([x, 3 * x])
    q = posterior(x)
    draws = q.sample(8, seed=(0, 1))
    before = np.asarray(q.log_prob(draws))
    if not np.array_equal(before, np.asarray(posterior(x).log_prob(draws))):
        raise ValueError(
            "the posterior must give the same density for the same data, but gave another when "
            "asked twice. Switch dropout off, or fix its seed."
        )
    used = np.zeros(x.shape[1:], bool)
    for index in np.ndindex(used.shape):
        column = x[(slice(None), *index)]
        others = [np.roll(column, 1), x.max() + x.min() - column]
        if is_float:
            scale = column.std() or 1.0
            others = [np.roll(column, 1), *(column + size * scale for size in _SIZES)]
        for other in others:
            changed = x.copy()
            changed[(slice(None), *index)] = other
            after = np.asarray(posterior(changed).log_prob(draws))
            used[index] |= not np.array_equal(before, after, equal_nan=True)
    return SeenColumns(used)
