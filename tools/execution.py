"""Execute a chapter from top to bottom in a fresh kernel, and measure what it costs."""

import contextlib
import dataclasses
import os
import pathlib
import platform
import re
import tempfile
import time

import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_output

import reads
from notebooks import ChapterError
from tfp_gaps.book import endings

TIMEOUT = 600
"""Seconds that one cell may take."""

BEHIND = "tfp_gaps.book.figures.behind"
"""The module that knows the data behind a figure."""

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one execution took, from the start of the kernel on."""

    seconds: float
    cpu_seconds: float
    peak_gigabytes: float
    cores: int

    def __str__(self):
        """Time and peak memory in words, for the reader."""
        whole = round(self.seconds)
        time_taken = f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60} s"
        cores = "1 CPU core" if self.cores == 1 else f"{self.cores} CPU cores"
        return f"{time_taken} and {self.peak_gigabytes:.1f} GB on {cores}"


def machine():
    """Return what a reader must know of this machine to judge a time: nothing that names it."""
    cpus, gpus = pathlib.Path("/proc/cpuinfo"), pathlib.Path("/proc/driver/nvidia/gpus")
    models = re.findall(r"^model name\s*: (.+)$", _text(cpus), re.MULTILINE)
    cards = [_text(path) for path in sorted(gpus.glob("*/information"))]
    return {
        "processor": models[0].strip() if models else platform.machine(),
        "memory_gigabytes": round(psutil.virtual_memory().total / 1e9),
        "gpus": [
            name.strip() for card in cards for name in re.findall(r"^Model:(.+)$", card, re.M)
        ],
        "system": platform.system(),
    }


def _text(path):
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def execute(project, name, notebook, timeout=TIMEOUT, environment=None):
    """Execute `notebook` in place, and note in its metadata which stored results it reads.

    Args:
      project, name, notebook: the chapter.
      timeout: seconds that one cell may take.
      environment: dict of variables that the kernel has beside those of this process.

    Returns:
        The `Cost`.

    Raises:
        ChapterError: if a cell fails or runs into the limit, or the kernel dies; the message holds
            the cell and its traceback. Or if it reads a result that the manifest does not list.
    """
    clear(notebook)
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(project.book)}},
        # What native code prints goes to a file (`_kernel`): a dying kernel could not pass it on.
        extra_arguments=["--IPKernelApp.capture_fd_output=False"],
        force_raise_errors=True,
        record_timing=False,
        coalesce_streams=True,
    )
    started, index = time.perf_counter(), 0
    try:
        with _kernel(client, project, environment or {}) as settings:
            for index, cell in enumerate(notebook.cells):
                client.execute_cell(cell, index)
            cost = _cost(client, time.perf_counter() - started)
            notebook.metadata.setdefault("tfp_gaps", {})["reads"] = reads.collect(
                project, name, settings
            )
            return cost
    except CellExecutionError as error:
        raise ChapterError(f"{name}, cell {index + 1}: {_ANSI.sub('', str(error))}") from None
    except CellTimeoutError:
        raise ChapterError(
            f"{name}, cell {index + 1} took more than {timeout} s:\n{cell.source}\n"
            "Make it smaller; paper-scale work belongs to `make paper`."
        ) from None
    except DeadKernelError as error:
        raise ChapterError(
            f"{name}, cell {index + 1}: the kernel died, most likely for want of memory ({error}). "
            f"Give it more memory, or make the cell smaller:\n{notebook.cells[index].source}"
        ) from None


def clear(notebook):
    """Remove what an earlier execution left."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata.pop("widgets", None)


@contextlib.contextmanager
def _kernel(client, project, environment):
    """Start a kernel that sees this checkout and nobody's personal IPython settings.

    Yields:
        The folder of its own settings.

    Raises:
        DeadKernelError: if it dies; the message says how, and the last that native code said.
    """
    paths = [str(project.root), os.environ.get("PYTHONPATH", "")]
    with tempfile.TemporaryDirectory() as settings:
        manager = client.create_kernel_manager()
        # Local files instead of network ports, which others on the machine could listen to.
        manager.transport, manager.connection_file = "ipc", f"{settings}/kernel.json"
        log, silent = pathlib.Path(settings, "native.log"), pathlib.Path(settings, "silent.log")
        whole = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PYTHONNOUSERSITE": "1",
            "IPYTHONDIR": settings,
            **reads.watch(project, settings),
            **_hooks(project, settings),
            endings.NATIVE_LOG: str(silent),
        }
        try:
            with (
                log.open("a") as file,
                client.setup_kernel(env=whole | environment, stdout=file, stderr=file),
            ):
                client.nb.metadata["language_info"] = _language(client)
                log.write_text("")  # what the kernel says of itself at its start
                yield settings
                _keep(client.nb, log.read_text(errors="replace"))
        except RuntimeError as error:
            process = getattr(manager.provisioner, "process", None)
            if process is None or process.poll() is None:
                raise
            said = [path.read_text(errors="replace") for path in (silent, log) if path.is_file()]
            ending = endings.describe(process.poll()) + endings.last_words(*said)
            raise DeadKernelError(ending) from error


def _hooks(project, settings):
    """Variables with which Matplotlib has the data of a figure published beside it."""
    if not (project.root / f"{BEHIND.replace('.', '/')}.py").is_file():
        return {}
    path = pathlib.Path(settings, "matplotlibrc")
    path.write_text(f"figure.hooks: {BEHIND}:watch\n")
    return {"MATPLOTLIBRC": str(path)}


def _keep(notebook, printed):
    """Show what native code printed at the end of the chapter, where `check` refuses it."""
    if printed.strip():
        cell = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
        cell.outputs.append(new_output("stream", name="stderr", text=printed))


def _language(client):
    reply = client.wait_for_reply(client.kc.kernel_info())
    return NotebookNode(reply["content"]["language_info"])


def _cost(client, seconds):
    """Read the kernel's own account from the system while it is still alive."""
    process = psutil.Process(client.km.provisioner.pid)
    times = process.cpu_times()
    return Cost(
        seconds=round(seconds, 1),
        cpu_seconds=round(times.user + times.system, 1),
        peak_gigabytes=round(_peak_bytes(process) / 1e9, 2),
        cores=len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else os.cpu_count(),
    )


def _peak_bytes(process):
    """Peak resident memory; where the system keeps no such record, what is resident at the end."""
    status = pathlib.Path(f"/proc/{process.pid}/status")
    if status.exists():
        [kibibytes] = re.findall(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
        return int(kibibytes) * 1024
    return process.memory_info().rss
