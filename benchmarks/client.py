"""The parent's side of a worker, and what other processes do to the machine meanwhile."""

import contextlib
import json
import os
import subprocess
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULES = {
    "ours": "benchmarks.ours",
    "torch": "benchmarks.peers.torch_trainer",
    "jax": "benchmarks.peers.jax_trainer",
}


class WorkerError(RuntimeError):
    """A worker ended or answered with an error."""


class Client:
    """A worker process that holds one framework; use as a context manager.

    Args:
      framework: key of `MODULES`.
      python: interpreter of its environment.
      threads: number of CPU cores and threads that it may use.
    """

    def __init__(self, framework, python, threads):
        environment = dict(
            os.environ,
            BENCH_THREADS=str(threads),
            OMP_NUM_THREADS=str(threads),
            PYTHONPATH=str(ROOT),
        )
        # A file, not a pipe: it is read only if the worker dies, and a full pipe would block it.
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 closed on exit
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.worker", MODULES[framework]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        self.framework, self.threads = framework, threads
        self.facts = self.ask("facts")

    def ask(self, command, **arguments):
        """Send a command and wait for the answer, a dict."""
        with contextlib.suppress(BrokenPipeError):  # the missing answer tells
            print(json.dumps({"do": command, **arguments}), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            self._log.seek(0)
            reason = "\n".join(self._log.read().strip().splitlines()[-3:])
            raise WorkerError(f"the worker of {self.framework} ended at «{command}»: {reason}")
        return json.loads(answer)

    def build(self, name, size, variant, parameters):
        return self.ask(
            "build", name=name, size=asdict(size), variant=variant, parameters=str(parameters)
        )

    def timed_run(self, name, steps):
        """Return seconds per step, and the share of the CPUs that other processes took."""
        before, own_before, started = _busy_seconds(), self._cpu_seconds(), time.perf_counter()
        seconds = self.ask("run", name=name, steps=steps)["seconds"]
        elapsed = time.perf_counter() - started
        others = _busy_seconds() - before - (self._cpu_seconds() - own_before)
        return seconds, max(0.0, others) / (elapsed * self.threads)

    def _cpu_seconds(self):
        path = Path(f"/proc/{self._process.pid}/stat")
        if not path.exists():
            return 0.0
        fields = path.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()


def _busy_seconds():
    """Seconds that all CPUs of this machine have been busy since it started (Linux; else 0)."""
    path = Path("/proc/stat")
    if not path.exists():
        return 0.0
    user, nice, system, _, _, irq, softirq, steal = map(int, path.read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
