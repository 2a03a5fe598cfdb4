"""For `make verdicts`: a kernel that dies fails its cell within seconds, and says so.

nbval waits for a reply until the cell's time is over, also when the kernel has died, and never says
that it has. This pytest plugin looks once a second whether the kernel is alive. After a cell that
did not run to its end the chapter is in an unknown state: its other cells are skipped, instead of
failing one after the other for want of a name. The first failure of each chapter is told once more
at the end. Cells are counted from 1, text included, as the other tools do; the names of nbval's
tests count code cells from 0.
"""

import os
import pathlib
import queue
import re
import tempfile
import time

import nbval.plugin
import pytest
from nbval.kernel import RunningKernel, start_new_kernel

from tfp_gaps.book import endings

INTERVAL = 1.0
"""Seconds between two looks at the kernel."""

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class KernelDied(Exception):
    """The kernel's process has ended, and nobody asked for it; the message says how."""


class WatchedKernel(RunningKernel):
    """A kernel whose death ends every wait for its messages."""

    def __init__(self, kernel_name, cwd=None, startup_timeout=60):
        # What native code prints would be lost with the kernel: it goes to a file. So does what it
        # prints while TensorFlow is loaded in silence.
        self.folder = tempfile.TemporaryDirectory()
        self.log, silent = pathlib.Path(self.folder.name, "log"), f"{self.folder.name}/silent"
        try:
            with self.log.open("a") as log:
                self.km, self.kc = start_new_kernel(
                    startup_timeout,
                    kernel_name,
                    cwd=cwd,
                    stdout=log,
                    stderr=log,
                    env=os.environ | {endings.NATIVE_LOG: silent},
                    extra_arguments=["--IPKernelApp.capture_fd_output=False"],
                )
            self._ensure_iopub_up()
        except RuntimeError as error:
            raise RuntimeError(f"{error}{self.last_words()}") from error
        os.truncate(self.log, 0)  # what the kernel says of itself at its start

    def get_message(self, stream, timeout=None):
        """Wait for a message.

        Raises:
            queue.Empty: if none has come after `timeout` seconds.
            KernelDied: if none can come any more.
        """
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        while True:
            # Looked at before the wait: what the kernel sent last is still read.
            alive = self.is_alive()
            wait = min(max(deadline - time.monotonic(), 0), INTERVAL)
            try:
                return super().get_message(stream, timeout=wait)
            except queue.Empty:
                if not alive:
                    raise KernelDied(self.ending()) from None
                if time.monotonic() >= deadline:
                    raise

    def ending(self):
        """How the process ended, and the last that native code said."""
        process = getattr(self.km.provisioner, "process", None)
        return endings.describe(process and process.poll()) + self.last_words()

    def last_words(self):
        """The last that native code said, or the kernel's own process."""
        texts = [path.read_text(errors="replace") for path in sorted(self.log.parent.glob("*"))]
        return endings.last_words(*texts)


nbval.plugin.RunningKernel = WatchedKernel


def is_cell(item):
    """Whether a test is a cell of a chapter."""
    return isinstance(item, nbval.plugin.IPyNbCell)


def _where(item):
    cells = item.parent.nb.cells
    return f"{item.path.stem}, cell {1 + [cell is item.cell for cell in cells].index(True)}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    """Skip the cells after one that did not run to its end, or whose kernel did not start."""
    if is_cell(item) and (culprit := getattr(item.parent, "culprit", None)):
        pytest.skip(f"not executed, since {culprit} did not run to its end")
    try:
        return (yield)
    except Exception as error:
        if is_cell(item):
            item.parent.culprit = _where(item)
            text = f"{item.parent.culprit} could not start: {error}"
            item.user_properties.append(("failure", text))
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Run a test; the failure of a cell names chapter, cell and cause."""
    try:
        return (yield)
    except Exception as error:
        if not is_cell(item):
            raise
        where = _where(item)
        told = _told(item, error)
        failed = any(output.output_type == "error" for output in item.test_outputs or [])
        if told or failed:
            item.parent.culprit = where
        text = f"{where} {told or _ANSI.sub('', _cause(error))}"
        item.user_properties.append(("failure", text))
        if not told:
            raise
        raise nbval.plugin.NbCellError(
            item.cell_num, text, item.cell.source, getattr(error, "inner_traceback", None)
        ) from None


def _told(item, error):
    """Say that the kernel died or the cell's time was over; None for other failures."""
    kernel = item.parent.kernel
    if isinstance(error, KernelDied) or (hasattr(kernel, "km") and not kernel.is_alive()):
        return (
            f"ended with its kernel: the kernel died, most likely for want of memory "
            f"({kernel.ending()}). Give it more memory, stop what else takes some (WORKERS=1 "
            f"runs one chapter at a time), or make the cell smaller."
        )
    if item.parent.timed_out:
        limit = item.config.option.nbval_cell_timeout
        return (
            f"hung: it ran for more than {limit:g} s, or its output stayed out. Make it smaller, "
            f"or raise --nbval-cell-timeout in tools/nbval.ini."
        )
    return None


def _cause(error):
    """The message of a failure, and the last line of its traceback: the name of the exception."""
    last = (getattr(error, "inner_traceback", None) or "").strip().rpartition("\n")[2]
    return f"failed: {error}" + (f": {last}" if last else "")


def pytest_terminal_summary(terminalreporter):
    """Tell the first failure of each chapter: what comes after it may follow from it."""
    first = {}
    stats = terminalreporter.stats
    for report in [*stats.get("error", []), *stats.get("failed", [])]:
        for name, text in report.user_properties:
            if name == "failure":
                first.setdefault(report.nodeid.partition("::")[0], text)
    if first:
        terminalreporter.section("what failed first in each chapter")
        for text in first.values():
            terminalreporter.line(text)
