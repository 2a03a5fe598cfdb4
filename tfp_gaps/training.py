"""Fit parameters by stochastic gradients: schedule, clipping, checkpoints, exact resume.

`fit` knows neither model nor data. It is given a loss per replica and data that lie in memory, and
runs Adam on it; every replica has its own batches, noise and gradient clipping, so that R replicas
in one run end where R runs of one replica would.

All randomness is a function of (seed, step). A run that is killed and started again continues from
its last checkpoint and ends at the bit-identical result on the same machine.
"""

import math
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks, storage
from tfp_gaps._tensorflow import tf, tfk
from tfp_gaps.networks import replica_seeds


@dataclass(frozen=True)
class Settings:
    """How long and how fast to train.

    num_steps: optimiser steps.
    batch_size: data points per replica and step.
    learning_rate: Adam's initial rate; it falls along a cosine to 5 % of itself.
    kl_warmup_steps: the divergence is weighted by step / kl_warmup_steps until it reaches one.
    clip_norm: largest norm of a replica's gradient, in units of the loss; None for no clipping.
    steps_per_call: steps between returns to Python.
    jit_compile: compile the step with XLA. It doubles the speed of a recurrence on a CPU, and on a
      GPU spares a kernel launch per operation and time step.
    """

    num_steps: int
    batch_size: int
    learning_rate: float = 1e-3
    kl_warmup_steps: int = 0
    clip_norm: float | None = None
    steps_per_call: int = 20
    jit_compile: bool = True

    def __post_init__(self):
        _checks.integer(self.num_steps, "num_steps", minimum=1)
        _checks.integer(self.batch_size, "batch_size", minimum=1)
        _checks.integer(self.kl_warmup_steps, "kl_warmup_steps", minimum=0)
        _checks.integer(self.steps_per_call, "steps_per_call", minimum=1)
        _checks.positive_float(self.learning_rate, "learning_rate")
        if self.clip_norm is not None:
            _checks.positive_float(self.clip_norm, "clip_norm")


class History(NamedTuple):
    """What happened during a fit.

    steps: int [calls], the step after each call.
    losses: float [calls, replicas], mean loss over the call, in the units of the loss.
    skipped_steps: int [replicas], steps whose gradient was not finite and was left out.
    seconds: wall time spent, all sessions together.
    """

    steps: np.ndarray
    losses: np.ndarray
    skipped_steps: np.ndarray
    seconds: float

    @property
    def diverged(self):
        """bool [replicas]: a step was skipped, or the last loss is not finite."""
        return (self.skipped_steps > 0) | ~np.isfinite(self.losses[-1])


def fit(
    loss,
    variables,
    data,
    settings,
    *,
    seeds,
    checkpoint=None,
    checkpoint_seconds=None,
    fingerprint="",
    progress=None,
):
    """Minimise `loss` over `variables`; they hold the result on return.

    Args:
      loss: callable (batch, seeds, kl_weight) -> [replicas], the mean loss of each replica. `batch`
        is [replicas, batch_size, ...] of `data`'s dtype; `seeds` is int32 [replicas, 2], fresh in
        each step.
      variables: list of tf.Variable, each with the replica axis first.
      data: array [data points, ...]; it is moved to the device once.
      settings: `Settings`.
      seeds: one int per replica.
      checkpoint: path of an npz file, or None to run without.
      checkpoint_seconds: least time between two checkpoints; None for the environment variable
        TFP_GAPS_CHECKPOINT_SECONDS, or 60.
      fingerprint: text that identifies the run (model, data); a checkpoint of another run is
        refused.
      progress: callable (step, losses) after each call, e.g. `progress_bar`, or None.

    Returns:
      A `History`.

    Raises:
      ValueError: if the data are fewer than a batch, a variable lacks the replica axis, or the
        checkpoint belongs to another run.
      storage.CorruptFileError: if both checkpoints are unreadable.
    """
    if checkpoint_seconds is None:
        checkpoint_seconds = float(os.environ.get("TFP_GAPS_CHECKPOINT_SECONDS", "60"))
    run = _Run(loss, variables, data, settings, seeds, fingerprint)
    if checkpoint is not None:
        run.restore(Path(checkpoint))
    last_saved = time.monotonic()
    while run.step < settings.num_steps:
        losses = run.advance()
        if progress is not None:
            progress(run.step, losses)
        due = time.monotonic() - last_saved >= checkpoint_seconds
        if checkpoint is not None and (due or run.step == settings.num_steps):
            run.save(Path(checkpoint))
            last_saved = time.monotonic()
    return run.history()


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


def build_step(loss, variables, data, optimizer, settings, seeds):
    """Build one training step.

    Args:
      data: tensor [data points, ...].
      others: as in `fit`.

    Returns:
      A function (indices [replicas, batch_size], step []) -> (losses, is_finite), both [replicas].
    """

    def one_step(indices, step):
        batch = tf.gather(data, indices)
        warmup = float(max(settings.kl_warmup_steps, 1))
        kl_weight = tf.minimum(1.0, (tf.cast(step, tf.float32) + 1.0) / warmup)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            losses = loss(batch, replica_seeds(seeds, "training noise", step), kl_weight)
            total = tf.reduce_sum(losses)
        gradients = tape.gradient(total, variables, unconnected_gradients="zero")
        gradients, is_finite = clip_by_replica_norm(gradients, settings.clip_norm)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return losses, is_finite

    return tf.function(one_step, jit_compile=settings.jit_compile)


class _Run:
    """The state of a fit between two calls of its compiled steps."""

    def __init__(self, loss, variables, data, settings, seeds, fingerprint):
        self.settings, self.seeds, self.variables = settings, list(seeds), list(variables)
        self._validate(data)
        schedule = tfk.optimizers.schedules.CosineDecay(
            settings.learning_rate, settings.num_steps, alpha=0.05
        )
        self.optimizer = tfk.optimizers.Adam(schedule)
        self.optimizer.build(self.variables)
        self.fingerprint = f"{fingerprint} {asdict(settings)} seeds={self.seeds}"
        self.step, self.seconds = 0, 0.0
        self.skipped = np.zeros(len(self.seeds), np.int64)
        self.steps, self.losses = [], []
        self._num_data = len(data)
        self._call = self._build_call(loss, tf.constant(data))

    def _validate(self, data):
        if len(data) < self.settings.batch_size:
            raise ValueError(
                f"data must hold at least one batch of {self.settings.batch_size}, but holds "
                f"{len(data)} data points. Use a smaller batch_size or more data."
            )
        for variable in self.variables:
            if variable.shape.rank < 2 or variable.shape[0] != len(self.seeds):
                raise ValueError(
                    f"every variable must have the replica axis of length {len(self.seeds)} "
                    f"first, but {variable.name} has shape {tuple(variable.shape)}. Build the "
                    f"networks with one seed per replica."
                )

    def _build_call(self, loss, data):
        one_step = build_step(loss, self.variables, data, self.optimizer, self.settings, self.seeds)
        num_replicas = len(self.seeds)

        @tf.function
        def call(indices, first_step):
            total = tf.zeros([num_replicas])
            skipped = tf.zeros([num_replicas], tf.int64)
            for i in tf.range(tf.shape(indices)[0]):
                losses, is_finite = one_step(indices[i], first_step + i)
                total += losses
                skipped += tf.cast(~is_finite, tf.int64)
            return total, skipped

        return call

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
        total, skipped = self._call(tf.constant(indices), tf.constant(self.step))
        losses = total.numpy() / num_steps
        self.step += num_steps
        self.skipped += skipped.numpy()
        self.steps.append(self.step)
        self.losses.append(losses)
        self.seconds += time.monotonic() - started
        return losses

    def history(self):
        return History(
            np.asarray(self.steps), np.asarray(self.losses), self.skipped.copy(), self.seconds
        )

    def save(self, path):
        """Write the state; the checkpoint before stays beside it until the next one."""
        state = [*self.variables, *self.optimizer.variables]
        arrays = {f"state_{i:03d}": variable.numpy() for i, variable in enumerate(state)}
        arrays |= {"steps": np.asarray(self.steps), "losses": np.asarray(self.losses)}
        arrays |= {"skipped": self.skipped}
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
