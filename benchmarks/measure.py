"""Time training steps in turn, so that a machine's noise falls on all alike.

Each row has its own worker process. A round asks every worker, one after the other, for a few steps
and for one large matrix product. The summary takes the medians over the quieter half of the rounds,
ranked by the share of the CPUs that other processes took; that share is reported.
"""

import contextlib
import statistics
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks import client, environments

RELATIVE_TOLERANCE = 1e-5  # of losses in float32, before and after a step; 2e-6 was seen


@dataclass(frozen=True)
class Row:
    """What is compared: a framework and a way to write the step in it."""

    label: str
    framework: str
    variant: str


OURS = Row("this package", "ours", "XLA")
ROWS = (
    OURS,
    Row("PyTorch, eager", "torch", "eager"),
    Row("PyTorch, torch.compile", "torch", "compiled"),
    Row("JAX, scan and jit", "jax", "plain"),
    Row("JAX with our tricks", "jax", "tricks"),
)


@dataclass(frozen=True)
class Effort:
    """How long to measure: rounds, least seconds per round and row, width of the large product."""

    rounds: int = 12
    seconds: float = 0.25
    matmul_width: int = 2048


@dataclass
class Timing:
    """Measurements of one row, and their summaries."""

    label: str
    size: object
    facts: dict = field(default_factory=dict)
    losses: list = field(default_factory=list)
    seconds: list = field(default_factory=list)
    other_load: list = field(default_factory=list)
    matmul: list = field(default_factory=list)

    @property
    def quiet(self):
        """The rounds of the quieter half."""
        order = np.argsort(self.other_load, kind="stable")
        return order[: (len(order) + 1) // 2]

    @property
    def median_seconds(self):
        return statistics.median(self.seconds[i] for i in self.quiet)

    @property
    def median_load(self):
        return statistics.median(self.other_load[i] for i in self.quiet)

    @property
    def sequences_per_second(self):
        return self.size.sequences_per_step / self.median_seconds

    @property
    def flops_per_second(self):
        return self.size.flops_per_step / self.median_seconds

    def as_dict(self):
        return {
            "label": self.label,
            "seconds_per_step": self.median_seconds,
            "fastest_seconds_per_step": min(self.seconds),
            "sequences_per_second": self.sequences_per_second,
            "flops_per_second": self.flops_per_second,
            "other_load": self.median_load,
            "matmul_flops_per_second": max(self.matmul, default=None),
            "losses": self.losses,
            **self.facts,
        }


def compare(size, rows, effort, threads):
    """Time all rows at one size.

    Args:
      size: `sizes.Size`.
      rows: list of `Row`; the first must be this package's, whose initial parameters all share.
      effort: `Effort`.
      threads: CPU cores and threads per worker.

    Returns:
      timings: list of `Timing`, without the rows that could not run.
      failures: {label: reason}.
    """
    timings, failures, workers = [], {}, []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        for row in rows:
            try:
                worker = stack.enter_context(_start(row.framework, threads))
                timings.append(_build(worker, row, size, folder / "parameters.npz"))
                workers.append(worker)
            except (client.WorkerError, environments.PeerError) as error:
                if row is OURS:
                    raise
                failures[row.label] = str(error)
        _rounds([(worker, "step") for worker in workers], timings, effort)
        for worker, timing in zip(workers, timings, strict=True):
            timing.facts |= worker.ask("memory")
    return timings, failures


def curves(base, variations, effort, threads):
    """Time this package's step while one number of the size varies.

    Args:
      base: `sizes.Size`.
      variations: {field of Size: values}.

    Returns:
      {field: list of `Timing`}.
    """
    results = {}
    for name, values in variations.items():
        with TemporaryDirectory() as folder, _start("ours", threads) as worker:
            timings = []
            for value in values:
                size = replace(base, **{name: value})
                worker.build(str(value), size, OURS.variant, Path(folder) / f"{value}.npz")
                timings.append(Timing("full" if value is None else str(value), size))
            _rounds([(worker, str(value)) for value in values], timings, effort)
            results[name] = timings
    return results


def parts(size, rounds, threads):
    """Time the parts of this package's step: {name: {"seconds": ..., "flops": ...}}."""
    with _start("ours", threads) as worker:
        return worker.ask("parts", size=asdict(size), rounds=rounds)


def largest_difference(timings):
    """The largest relative difference of a row's losses from the first row's."""
    reference = np.array(timings[0].losses)
    return max(
        float(np.max(np.abs(np.array(timing.losses) - reference) / np.abs(reference)))
        for timing in timings
    )


def _start(framework, threads):
    python = sys.executable if framework == "ours" else environments.python_of(framework)
    return client.Client(framework, python, threads)


def _build(worker, row, size, parameters):
    compiled = worker.build("step", size, row.variant, parameters)
    facts = {"import_peak_mb": worker.facts["peak_mb"], **worker.facts, **compiled}
    return Timing(row.label, size, facts, worker.ask("losses", name="step")["losses"])


def _rounds(runs, timings, effort):
    """Fill the timings; `runs` are pairs of a worker and the name of its trainer."""
    steps = [_num_steps(worker, name, effort.seconds) for worker, name in runs]
    for _ in range(effort.rounds):
        for (worker, name), timing, num_steps in zip(runs, timings, steps, strict=True):
            seconds, load = worker.timed_run(name, num_steps)
            timing.seconds.append(seconds)
            timing.other_load.append(load)
            if effort.matmul_width:
                timing.matmul.append(worker.ask("matmul", width=effort.matmul_width)["flops"])


def _num_steps(worker, name, seconds):
    return max(1, round(seconds / worker.ask("run", name=name, steps=1)["seconds"]))
