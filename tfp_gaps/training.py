"""Fit parameters by stochastic gradients: schedule, clipping, selection, checkpoints, exact resume.

`fit` knows neither model nor data. It is given a loss per replica and data that lie in memory, and
runs Adam on it; every replica has its own batches, noise and gradient clipping, so that R replicas
in one run end where R runs of one replica would.

A batch is cut into shards whose gradients are computed side by side: on the cores of a CPU, where
a recurrence keeps only one of them busy, or on several devices through `tf.distribute`. The result
is the same wherever the shards are computed, up to rounding.

How long to train can be left to the validation loss (schedule "plateau"): the rate falls where the
loss no longer does, and a replica is done where it stays at the lowest rate; see `plateaus`.

All randomness is a function of (seed, step, shard). A run that is killed and started again
continues from its last checkpoint and ends at the bit-identical result on the same machine.
"""

import contextlib
import math
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks, storage
from tfp_gaps._tensorflow import on_gpu, tf, tfk
from tfp_gaps.networks import replica_seeds

SCHEDULES = ("cosine", "stages", "plateau")
_NUM_STAGES = 8
LEAST_GAIN, GAIN_SHARE = 0.1, 0.1
"""A plateau: the validation loss falls by less than .1 (nats) in a tenth of the steps."""
_NUM_RATES, _RATE_FACTOR = 4, 10**-0.5


@dataclass(frozen=True)
class Settings:
    """How long and how fast to train.

    num_steps: optimiser steps; with the schedule "plateau" their limit.
    batch_size: data points per replica and step.
    learning_rate: Adam's initial rate.
    schedule: how the rate falls. "cosine": along a cosine to 5 % of itself. "stages": in eight
      stages, each three times as long as the one before and at 10^(-1/7) of its rate, so that the
      last two thirds run at a tenth (Burda, Grosse, Salakhutdinov 2016; Cremer et al. 2018).
      "plateau": where a replica's validation loss fell by less than 0.1 in a tenth of num_steps,
      its rate is divided by the root of ten, and at the fourth time its training ends. A loss at
      the first rate alone would not tell: it falls again where the rate does.
    epsilon: Adam's, added to the root of the second moment.
    kl_warmup_steps: the divergence is weighted by step / kl_warmup_steps until it reaches one.
    clip_norm: largest norm of a replica's gradient, in units of the loss; None for no clipping.
    steps_per_call: steps between returns to Python.
    validate_every: steps between two looks at the validation loss, a multiple of steps_per_call;
      the parameters with the smallest one are kept, for each replica its own. 0 for none: the last
      parameters are the result.
    num_shards: parts of a batch whose gradients are computed side by side; divides batch_size. By
      default two on a CPU, which recurrences keep busy by halves, and one on a GPU.
    jit_compile: compile the step with XLA. It doubles the speed of a recurrence on a CPU, and on a
      GPU spares a kernel launch per operation and time step.

    >>> Settings(num_steps=1000, batch_size=128, learning_rate=3e-3, kl_warmup_steps=200).num_steps
    1000
    """

    num_steps: int
    batch_size: int
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    epsilon: float = 1e-7
    kl_warmup_steps: int = 0
    clip_norm: float | None = None
    steps_per_call: int = 20
    validate_every: int = 0
    num_shards: int = field(default_factory=lambda: 1 if on_gpu() else 2)
    jit_compile: bool = True

    def __post_init__(self):
        _checks.integer(self.num_steps, "num_steps", minimum=1)
        _checks.integer(self.batch_size, "batch_size", minimum=1)
        _checks.integer(self.kl_warmup_steps, "kl_warmup_steps", minimum=0)
        _checks.integer(self.steps_per_call, "steps_per_call", minimum=1)
        _checks.integer(self.validate_every, "validate_every", minimum=0)
        _checks.integer(self.num_shards, "num_shards", minimum=1)
        for name, whole, part in (
            ("batch_size", self.batch_size, self.num_shards),
            ("validate_every", self.validate_every, self.steps_per_call),
        ):
            if whole % part:
                divisor = "num_shards" if name == "batch_size" else "steps_per_call"
                raise ValueError(
                    f"{name} must be a multiple of {divisor}, which is {part}, but is {whole}. "
                    f"Choose {whole - whole % part + part}, for instance."
                )
        _checks.positive_float(self.learning_rate, "learning_rate")
        _checks.positive_float(self.epsilon, "epsilon")
        _checks.one_of(self.schedule, "schedule", SCHEDULES)
        if self.schedule == "plateau" and not 0 < self.validate_every <= self.window:
            raise ValueError(
                f'the schedule "plateau" looks at the validation loss at least once in a tenth of '
                f"num_steps, {self.window:g}, but validate_every is {self.validate_every}. Lower "
                f"validate_every, or raise num_steps."
            )
        if self.clip_norm is not None:
            _checks.positive_float(self.clip_norm, "clip_norm")

    @property
    def window(self):
        """Steps in which the validation loss must fall to be no plateau."""
        return GAIN_SHARE * self.num_steps


class History(NamedTuple):
    """What happened during a fit.

    steps: int [calls], the step after each call.
    losses: float [calls, replicas], mean loss over the call, in the units of the loss.
    skipped_steps: int [replicas], steps whose gradient was not finite and was left out.
    seconds: wall time spent, all parts of an interrupted run together.
    validation_steps: int [looks], the steps at which the validation loss was measured.
    validation_losses: float [looks, replicas].
    """

    steps: np.ndarray
    losses: np.ndarray
    skipped_steps: np.ndarray
    seconds: float
    validation_steps: np.ndarray
    validation_losses: np.ndarray

    @property
    def best_steps(self):
        """int [replicas]: the step whose parameters were kept."""
        if len(self.validation_steps) == 0:
            return np.repeat(self.steps[-1:], self.losses.shape[1])
        return self.validation_steps[np.argmin(self.validation_losses, 0)]

    @property
    def diverged(self):
        """bool [replicas]: a step was skipped, or the last loss is not finite."""
        return (self.skipped_steps > 0) | ~np.isfinite(self.losses[-1])

    def converged(self, settings):
        """bool [replicas]: the loss stopped falling; False where the limit of steps ended it."""
        return plateaus(self.validation_steps, self.validation_losses, settings) == _NUM_RATES


def fit(
    loss,
    variables,
    data,
    settings,
    *,
    seeds,
    validate=None,
    checkpoint=None,
    checkpoint_seconds=None,
    fingerprint="",
    progress=None,
    strategy=None,
    axis=0,
):
    """Minimise `loss` over `variables`; they hold the result on return.

    Args:
      loss: callable (batch, seeds, kl_weight) -> [replicas], the mean loss of each replica. `batch`
        is [replicas, batch_size, ...] of `data`'s dtype, after the axes of `data` before `axis`;
        `seeds` is int32 [replicas, 2], fresh in each step.
      variables: list of tf.Variable, each with the replica axis first.
      data: array [data points, ...], or a structure of arrays, where None stands for one that is
        not there; moved to the device once. `batch` has the same structure.
      settings: `Settings`.
      seeds: one int per replica.
      validate: callable () -> [replicas], the loss on held-out data at the present parameters, to
        choose them by; None to keep the last ones.
      checkpoint: path of an npz file, or None to run without.
      checkpoint_seconds: least time between two checkpoints; None for the environment variable
        TFP_GAPS_CHECKPOINT_SECONDS, or 60.
      fingerprint: text that identifies the run (model, data); a checkpoint of another run is
        refused.
      progress: callable (step, losses) after each call, e.g. `progress_bar`, or None.
      strategy: a `tf.distribute.Strategy` over whose devices the shards are spread, or None. The
        variables must have been made within its scope.
      axis: of `data` that counts its points; 1 for sequences, whose first axis is time.

    Returns:
      A `History`.

    Raises:
      ValueError: if the data are fewer than a batch, a variable lacks the replica axis, the
        checkpoint belongs to another run, or the schedule "plateau" has no validation loss.
      storage.CorruptFileError: if both checkpoints are unreadable.

    >>> level = tf.Variable([[0.0]])  # one replica
    >>> def loss(batch, seeds, kl_weight):
    ...     return tf.reduce_mean((batch - level) ** 2, -1)
    >>> data = np.full([10], 2.0, np.float32)
    >>> settings = Settings(num_steps=200, batch_size=4, learning_rate=0.1)
    >>> history = fit(loss, [level], data, settings, seeds=[0])
    >>> bool(abs(level[0, 0] - 2.0) < 0.01), history.diverged
    (True, array([False]))
    """
    if checkpoint_seconds is None:
        checkpoint_seconds = float(os.environ.get("TFP_GAPS_CHECKPOINT_SECONDS", "60"))
    run = _Run(loss, variables, data, settings, seeds, fingerprint, validate, strategy, axis)
    if checkpoint is not None:
        run.restore(Path(checkpoint))
    run.begin()
    last_saved = time.monotonic()
    while not run.is_done():
        losses = run.advance()
        if progress is not None:
            progress(run.step, losses)
        due = time.monotonic() - last_saved >= checkpoint_seconds
        if checkpoint is not None and (due or run.is_done()):
            run.save(Path(checkpoint))
            last_saved = time.monotonic()
    run.take_best()
    return run.history()


def plateaus(steps, losses, settings):
    """How many plateaus of the validation loss each replica has behind it: int [replicas], 0 to 4.

    A plateau ends at the first look at which the smallest loss is less than 0.1 below what it was a
    tenth of the steps before; looks before the end of the warm-up, or less than a tenth of the
    steps after the last plateau, do not count.

    Args:
      steps: [looks], the steps at which the validation loss was measured.
      losses: [looks, replicas].
      settings: `Settings`.

    >>> settings = Settings(100, 4, schedule="plateau", steps_per_call=5, validate_every=5)
    >>> plateaus(np.arange(0, 105, 5), np.zeros([21, 1]), settings)  # at 10, 20, 30, 40
    array([4])
    >>> plateaus(np.arange(0, 105, 5), -np.arange(21.0)[:, np.newaxis], settings)
    array([0])
    """
    first = np.searchsorted(steps, settings.kl_warmup_steps)
    steps, losses = np.asarray(steps)[first:], np.asarray(losses)[first:]
    found = []
    for row in np.minimum.accumulate(losses, axis=0).T:
        count, since = 0, steps[0] if len(steps) else 0
        for best, step in zip(row, steps, strict=True):
            if count == _NUM_RATES or step - since < settings.window:
                continue
            before = row[np.searchsorted(steps, step - settings.window, side="right") - 1]
            if not best < before - LEAST_GAIN:  # nor is one infinite loss below another
                count, since = count + 1, step
        found.append(count)
    return np.array(found, int)


def learning_rate_schedule(settings):
    """Adam's rate as a function of the step, as `Settings.schedule` says.

    On a plateau it is `build_step` that lowers it, for each replica its own.
    """
    if settings.schedule == "plateau":
        return settings.learning_rate
    if settings.schedule == "cosine":
        return tfk.optimizers.schedules.CosineDecay(
            settings.learning_rate, settings.num_steps, alpha=0.05
        )
    lengths = 3.0 ** np.arange(_NUM_STAGES)
    ends = np.round(settings.num_steps * np.cumsum(lengths) / lengths.sum())[:-1]
    rates = settings.learning_rate * 10.0 ** (-np.arange(_NUM_STAGES) / (_NUM_STAGES - 1))
    return tfk.optimizers.schedules.PiecewiseConstantDecay(
        [int(end) for end in ends], [float(rate) for rate in rates]
    )


def batch_indices(num_data, batch_size, seed, first_step, num_steps):
    """Indices of the batches of a replica: int32 [num_steps, batch_size].

    Each epoch is a fresh permutation that depends on (seed, epoch) alone; the remainder of the data
    that fills no batch is left out in that epoch.
    """
    per_epoch = num_data // batch_size
    rows, order, epoch = [], None, None
    for step in range(first_step, first_step + num_steps):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = np.random.default_rng([seed, epoch]).permutation(num_data)
        start = (step % per_epoch) * batch_size
        rows.append(order[start : start + batch_size])
    return np.asarray(rows, np.int32)


def clip_by_replica_norm(gradients, clip_norm):
    """Scale each replica's gradients to a joint norm of at most `clip_norm`; drop non-finite ones.

    Args:
      gradients: list of tensors with the replica axis first.
      clip_norm: float or None.

    Returns:
      gradients: as given, scaled; zero for a replica whose norm is not finite.
      is_finite: bool [replicas].
    """
    squares = [tf.reduce_sum(g**2, axis=list(range(1, g.shape.rank))) for g in gradients]
    norm = tf.sqrt(tf.add_n(squares))
    is_finite = tf.math.is_finite(norm)
    scale = tf.ones_like(norm) if clip_norm is None else clip_norm / tf.maximum(norm, clip_norm)

    def apply(gradient):
        shape = [-1] + [1] * (gradient.shape.rank - 1)
        kept = tf.reshape(is_finite, shape)
        return tf.where(kept, gradient * tf.reshape(scale, shape), tf.zeros_like(gradient))

    return [apply(g) for g in gradients], is_finite


def build_step(loss, variables, data, optimizer, settings, seeds, strategy=None, axis=0):
    """Build one training step.

    Args:
      data: tensor [data points, ...], or a structure of them.
      others: as in `fit`.

    Returns:
      A function (indices [replicas, batch_size], step [], factors=None) -> (losses, is_finite),
      both [replicas]. Factors [replicas] multiply the learning rate.
    """
    num_devices = 1 if strategy is None else strategy.num_replicas_in_sync
    if settings.num_shards % num_devices:
        raise ValueError(
            f"num_shards must be a multiple of the number of devices, which is {num_devices}, but "
            f"is {settings.num_shards}. Every device computes the same number of shards."
        )

    @tf.function(jit_compile=settings.jit_compile)
    def shard_gradients(indices, step, shard):
        batch = _each(lambda array: tf.gather(array, indices, axis=axis), data)
        warmup = float(max(settings.kl_warmup_steps, 1))
        kl_weight = tf.minimum(1.0, (tf.cast(step, tf.float32) + 1.0) / warmup)
        noise_seeds = replica_seeds(seeds, "training noise", step * settings.num_shards + shard)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            losses = loss(batch, noise_seeds, kl_weight) / settings.num_shards
            total = tf.reduce_sum(losses)
        return [losses, *tape.gradient(total, variables, unconnected_gradients="zero")]

    def device_step(indices, step):
        shards = tf.split(indices, settings.num_shards, axis=1)
        per_device = settings.num_shards // num_devices
        first = 0 if strategy is None else per_device * _device_index()
        # Independent calls, which the runtime spreads over the cores. Their number is a tensor, so
        # that all of them are one compiled program.
        parts = [
            shard_gradients(shards[first + i], step, tf.constant(first + i))
            for i in range(per_device)
        ]
        sums = [tf.add_n(part) for part in zip(*parts, strict=True)]
        if strategy is not None:
            sums = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, sums)
        losses, *gradients = sums
        gradients, is_finite = clip_by_replica_norm(gradients, settings.clip_norm)
        pairs = zip(gradients, variables, strict=True)
        optimizer.apply_gradients(pairs, skip_gradients_aggregation=True)
        return losses, is_finite

    def one_step(indices, step, factors=None):
        if factors is not None:
            return _scaled(device_step, variables, factors)(indices, step)
        if strategy is None:
            return device_step(indices, step)
        results = strategy.run(device_step, (indices, step))
        return tf.nest.map_structure(lambda x: strategy.experimental_local_results(x)[0], results)

    return tf.function(one_step)


def _scaled(step, variables, factors):
    """A step that goes a replica's share of the way only: Adam's update is linear in its rate."""

    def run(*arguments):
        before = [tf.identity(variable) for variable in variables]
        results = step(*arguments)
        for variable, start in zip(variables, before, strict=True):
            share = tf.reshape(factors, [-1] + [1] * (variable.shape.rank - 1))
            variable.assign(start + share * (variable - start))
        return results

    return run


def _each(function, data):
    """Apply a function to each array of a structure; None stays None."""
    return tf.nest.map_structure(lambda array: None if array is None else function(array), data)


def _device_index():
    """Which of a strategy's devices this code is traced for."""
    index = tf.distribute.get_replica_context().replica_id_in_sync_group
    return int(index) if isinstance(index, int) else int(tf.get_static_value(index))


class _Run:
    """The state of a fit between two calls of its compiled steps."""

    def __init__(
        self, loss, variables, data, settings, seeds, fingerprint, validate, strategy, axis
    ):
        self.settings, self.seeds, self.variables = settings, list(seeds), list(variables)
        self._num_data = self._check(data, axis)
        with contextlib.nullcontext() if strategy is None else strategy.scope():
            self.optimizer = tfk.optimizers.Adam(
                learning_rate_schedule(settings), epsilon=settings.epsilon
            )
            self.optimizer.build(self.variables)
        self.fingerprint = f"{fingerprint} {asdict(settings)} seeds={self.seeds}"
        self.step, self.seconds = 0, 0.0
        self.skipped = np.zeros(len(self.seeds), np.int64)
        self.steps, self.losses = [], []
        self._validate = validate if settings.validate_every else None
        self._plateaus = settings.schedule == "plateau"
        if self._plateaus and (validate is None or strategy is not None):
            raise ValueError(
                'the schedule "plateau" needs a validation loss, and one device, but validate is '
                f"{validate} and strategy {strategy}. Pass validate, or choose another schedule."
            )
        self.validation_steps, self.validation_losses = [], []
        self.best = [variable.numpy() for variable in self.variables]
        self._call = self._build_call(loss, _each(tf.constant, data), strategy, axis)

    def _check(self, data, axis):
        """Check data and variables; return the number of data points."""
        sizes = {array.shape[axis] for array in tf.nest.flatten(data) if array is not None}
        if len(sizes) != 1:
            raise ValueError(
                f"all arrays of data must have the same number of data points, but have "
                f"{sorted(sizes)}. Axis {axis} counts them."
            )
        size = sizes.pop()
        if size < self.settings.batch_size:
            raise ValueError(
                f"data must hold at least one batch of {self.settings.batch_size}, but holds "
                f"{size} data points. Use a smaller batch_size or more data."
            )
        for variable in self.variables:
            if variable.shape.rank < 2 or variable.shape[0] != len(self.seeds):
                raise ValueError(
                    f"every variable must have the replica axis of length {len(self.seeds)} "
                    f"first, but {variable.name} has shape {tuple(variable.shape)}. Build the "
                    f"networks with one seed per replica."
                )
        return size

    def _build_call(self, loss, data, strategy, axis):
        one_step = build_step(
            loss, self.variables, data, self.optimizer, self.settings, self.seeds, strategy, axis
        )
        num_replicas = len(self.seeds)

        @tf.function
        def call(indices, first_step, factors):
            total = tf.zeros([num_replicas])
            skipped = tf.zeros([num_replicas], tf.int64)
            for i in tf.range(tf.shape(indices)[0]):
                losses, is_finite = one_step(indices[i], first_step + i, factors)
                total += losses
                skipped += tf.cast(~is_finite, tf.int64)
            return total, skipped

        return call

    def begin(self):
        """Look at what training starts from: it may be a network that was trained before."""
        if self._plateaus and self.step == 0:
            self._look()

    def advance(self):
        """Run the next few steps and return their mean loss, [replicas]."""
        started = time.monotonic()
        settings = self.settings
        # Calls end at fixed steps, wherever the run was resumed, so that histories agree.
        num_steps = min(settings.steps_per_call, settings.num_steps - self.step)
        indices = np.stack(
            [
                batch_indices(self._num_data, settings.batch_size, seed, self.step, num_steps)
                for seed in self.seeds
            ],
            axis=1,
        )
        total, skipped = self._call(
            tf.constant(indices), tf.constant(self.step), self._rate_factors()
        )
        losses = total.numpy() / num_steps
        self.step += num_steps
        self.skipped += skipped.numpy()
        self.steps.append(self.step)
        self.losses.append(losses)
        if self._validate is not None and self._is_look():
            self._look()
        self.seconds += time.monotonic() - started
        return losses

    def is_done(self):
        """Whether the steps are used up, or all replicas stopped before."""
        return self.step >= self.settings.num_steps or (
            self._plateaus and bool((self._count_plateaus() == _NUM_RATES).all())
        )

    def _count_plateaus(self):
        losses = np.reshape(self.validation_losses, [-1, len(self.seeds)])
        return plateaus(self.validation_steps, losses, self.settings)

    def _rate_factors(self):
        """What each replica's learning rate is multiplied by, 0 where it has stopped, or None."""
        if not self._plateaus:
            return None
        count = self._count_plateaus()
        return tf.constant(np.where(count < _NUM_RATES, _RATE_FACTOR**count, 0.0), tf.float32)

    def _is_look(self):
        return self.step % self.settings.validate_every == 0 or self.step == self.settings.num_steps

    def _look(self):
        """Measure the validation loss; keep the parameters of the replicas that improved."""
        losses = np.asarray(self._validate(), np.float64)
        losses = np.where(np.isfinite(losses), losses, np.inf)
        best = np.min(self.validation_losses, axis=0) if self.validation_losses else np.inf
        for replica in np.flatnonzero(losses < best):
            for kept, variable in zip(self.best, self.variables, strict=True):
                kept[replica] = variable.numpy()[replica]
        self.validation_steps.append(self.step)
        self.validation_losses.append(losses)

    def take_best(self):
        """Give the variables the values that were best on the validation data."""
        if self._validate is not None:
            for kept, variable in zip(self.best, self.variables, strict=True):
                variable.assign(kept)

    def history(self):
        return History(
            np.asarray(self.steps),
            np.asarray(self.losses),
            self.skipped.copy(),
            self.seconds,
            np.asarray(self.validation_steps, int),
            np.asarray(self.validation_losses).reshape(-1, len(self.seeds)),
        )

    def save(self, path):
        """Write the state; the checkpoint before stays beside it until the next one."""
        state = [*self.variables, *self.optimizer.variables]
        arrays = {f"state_{i:03d}": variable.numpy() for i, variable in enumerate(state)}
        arrays |= {"steps": np.asarray(self.steps), "losses": np.asarray(self.losses)}
        arrays |= {"skipped": self.skipped}
        arrays |= {
            "validation_steps": np.asarray(self.validation_steps, int),
            "validation_losses": np.asarray(self.validation_losses).reshape(-1, len(self.seeds)),
        }
        if self._validate is not None:
            arrays |= {f"best_{i:03d}": kept for i, kept in enumerate(self.best)}
        description = {
            "fingerprint": self.fingerprint,
            "step": self.step,
            "seconds": self.seconds,
        }
        if path.exists():
            path.replace(_previous(path))
        storage.write_arrays(path, arrays, description=description)

    def restore(self, path):
        """Continue from the newest readable checkpoint, if there is one."""
        broken = None
        for candidate in (path, _previous(path)):
            if not candidate.exists():
                continue
            try:
                arrays, description = storage.read_arrays(candidate)
            except storage.CorruptFileError as error:
                broken = error
                print(f"{error} Trying the checkpoint before it.", file=sys.stderr)
                continue
            if broken is not None:
                # `save` would put the broken one in the place of the one that is good.
                path.replace(path.with_name(path.name + ".corrupt"))
            return self._load(candidate, arrays, description)
        if broken is not None:
            raise broken
        return None

    def _load(self, path, arrays, description):
        if description["fingerprint"] != self.fingerprint:
            raise ValueError(
                f"the checkpoint {path} belongs to another run: expected "
                f"«{self.fingerprint}», found «{description['fingerprint']}». Delete it to start "
                f"afresh, or give the settings it was made with."
            )
        for i, variable in enumerate([*self.variables, *self.optimizer.variables]):
            variable.assign(arrays[f"state_{i:03d}"])
        self.step, self.seconds = description["step"], description["seconds"]
        self.skipped = arrays["skipped"].copy()
        self.steps, self.losses = list(arrays["steps"]), list(arrays["losses"])
        self.validation_steps = list(arrays["validation_steps"])
        self.validation_losses = list(arrays["validation_losses"])
        if self._validate is not None:
            self.best = [arrays[f"best_{i:03d}"].copy() for i in range(len(self.variables))]


def _previous(path):
    return path.with_name(path.name + ".previous")


def progress_bar(label, num_steps, *, stream=None, every_seconds=1.0):
    """Return a progress callback that redraws one line on standard error.

    It draws only on a terminal: in a chapter, whose outputs are stored, it stays silent.
    """
    stream = sys.stderr if stream is None else stream
    started, last = time.monotonic(), -math.inf

    def report(step, losses):
        nonlocal last
        now = time.monotonic()
        if not stream.isatty() or (now - last < every_seconds and step < num_steps):
            return
        last = now
        values = " ".join(f"{value:.3f}" for value in losses)
        left = (now - started) * (num_steps - step) / max(step, 1)
        end = "\n" if step >= num_steps else ""
        stream.write(f"\r{label} {step}/{num_steps}  loss {values}  {left:.0f} s left   {end}")
        stream.flush()

    return report
