"""A worker process: holds one framework's training step and does what it is told, line by line.

    python -m benchmarks.worker MODULE

Each line on standard input is a JSON object with the key "do"; each answer is one line of JSON.
Frameworks print to standard output now and then: answers go to the descriptor that was standard
output at the start, everything else to standard error.
"""

import importlib
import json
import os
import resource
import sys
import time
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from benchmarks import sizes

PACKAGES = ("tensorflow", "torch", "jax", "jaxlib", "numpy")


class Worker:
    """The commands: each method but `__init__` is one, its arguments come from the line."""

    def __init__(self, module):
        started = time.perf_counter()
        self._module = importlib.import_module(module)
        self._import_seconds = time.perf_counter() - started
        self._trainers, self._products = {}, {}

    def facts(self):
        """Time and memory that the import took, and versions."""
        versions = {}
        for package in PACKAGES:
            try:
                versions[package] = version(package)
            except PackageNotFoundError:
                continue
        return {"import_seconds": self._import_seconds, "versions": versions, **self.memory()}

    def memory(self):
        """Peak resident memory of this process so far, in MB."""
        return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}

    def build(self, name, size, variant, parameters):
        """Build a trainer and run two steps, so that everything is compiled.

        The initial parameters come from the file `parameters`; if it is missing, this trainer makes
        them and writes the file.
        """
        started = time.perf_counter()
        initial = dict(np.load(parameters)) if os.path.exists(parameters) else None
        trainer = self._module.Trainer(sizes.Size(**size), variant, initial)
        if initial is None:
            np.savez(parameters, **trainer.parameters)
        self._trainers[name] = trainer
        self.run(name, 2)
        return {"compile_seconds": time.perf_counter() - started}

    def losses(self, name):
        """Losses before and after one step with given batch and noise, [2, seeds]."""
        trainer = self._trainers[name]
        indices = sizes.batches(trainer.size, 1, seed=2)[0]
        return {"losses": trainer.losses_with(indices, sizes.fixed_noise(trainer.size)).tolist()}

    def run(self, name, steps):
        """Take training steps; return the average of their seconds."""
        trainer = self._trainers[name]
        indices = sizes.batches(trainer.size, steps, seed=3)
        started = time.perf_counter()
        trainer.train(indices)
        return {"seconds": (time.perf_counter() - started) / steps}

    def parts(self, size, rounds, runs=4):
        """Median seconds of each part of a step, timed in turn, and the flops of its products."""
        built = self._module.build_parts(sizes.Size(**size))
        seconds = {name: [] for name in built}
        for part in built.values():
            part.run()
        for _ in range(rounds):
            for name, part in built.items():
                started = time.perf_counter()
                for _ in range(runs):
                    part.run()
                seconds[name].append((time.perf_counter() - started) / runs)
        return {
            name: {"seconds": float(np.median(seconds[name])), "flops": part.flops}
            for name, part in built.items()
        }

    def matmul(self, width):
        """Rate of one large square product, in floating point operations per second."""
        if width not in self._products:
            self._products[width] = self._module.build_matmul(width)
            self._products[width]()
        started = time.perf_counter()
        self._products[width]()
        return {"flops": 2 * width**3 / (time.perf_counter() - started)}


def main():
    threads = int(os.environ["BENCH_THREADS"])
    if hasattr(os, "sched_setaffinity"):  # Linux: the runtimes size their pools by it
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = Worker(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(getattr(worker, request.pop("do"))(**request)), file=answers)


if __name__ == "__main__":
    main()
