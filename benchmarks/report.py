"""Tables and JSON of a timing run."""

import os
import platform
import subprocess
from pathlib import Path

from benchmarks.client import ROOT

QUIET_LOAD = 0.05


def table(header, rows):
    """Format rows of cells in columns: the first to the left, the others to the right.

    >>> print(table(["what", "ms"], [["step", "5.0"], ["a longer one", "12.5"]]))
    what            ms
    ------------  ----
    step           5.0
    a longer one  12.5
    """
    rows = [list(map(str, row)) for row in rows]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells):
        first = [cells[0].ljust(widths[0])]
        return "  ".join(
            first + [cell.rjust(w) for cell, w in zip(cells[1:], widths[1:], strict=True)]
        )

    return "\n".join(map(line, [header, ["-" * width for width in widths], *rows]))


def comparison(timings):
    """The table of one size: rates, their ratio to this package's, share of the matmul rate."""
    ours, roofline = timings[0], best_matmul(timings)
    header = [
        "",
        "ms/step",
        "fastest",
        "sequences/s",
        "ours is",
        "GFLOP/s",
        "of matmul",
        "its matmul",
    ]
    header += ["peak MB", "compile s", "import s", "other load"]
    rows = []
    for timing in timings:
        ratio = ours.sequences_per_second / timing.sequences_per_second
        rows.append(
            [
                timing.label,
                f"{1e3 * timing.median_seconds:.1f}",
                f"{1e3 * min(timing.seconds):.1f}",
                f"{timing.sequences_per_second:.0f}",
                "" if timing is ours else f"{ratio:.2f} x",
                f"{timing.flops_per_second / 1e9:.1f}",
                f"{timing.flops_per_second / roofline:.0%}",
                f"{max(timing.matmul) / 1e9:.0f}",
                f"{timing.facts['peak_mb']:.0f}",
                f"{timing.facts['compile_seconds']:.0f}",
                f"{timing.facts['import_seconds']:.1f}",
                f"{timing.median_load:.0%}",
            ]
        )
    return table(header, rows)


def warning(timings):
    """Say so if other processes took so much of the CPUs that the ratios mean nothing; else None.

    The frameworks suffer differently: threads that wait for each other in every product (OpenMP)
    lose a multiple of what is taken.
    """
    load = max(timing.median_load for timing in timings)
    if load <= QUIET_LOAD:
        return None
    return (
        f"Other processes took up to {load:.0%} of the CPUs: quote no ratio from this run, but "
        f"repeat it on a quiet machine."
    )


def curve(name, timings):
    """The table of one curve: cost per step, relative to the first value, and per sequence."""
    first = timings[0].median_seconds
    rows = [
        [
            timing.label,
            f"{1e3 * timing.median_seconds:.1f}",
            f"{timing.median_seconds / first:.2f}",
            f"{timing.sequences_per_second:.0f}",
            f"{timing.flops_per_second / 1e9:.1f}",
            f"{timing.median_load:.0%}",
        ]
        for timing in timings
    ]
    header = [name, "ms/step", "relative", "sequences/s", "GFLOP/s", "other load"]
    return table(header, rows)


def parts(timed, roofline):
    """The table of a step's parts: time, rate of their products, share of the matmul rate."""
    rows = [
        [
            name,
            f"{1e3 * part['seconds']:.1f}",
            f"{part['flops'] / part['seconds'] / 1e9:.0f}" if part["flops"] else "",
            f"{part['flops'] / part['seconds'] / roofline:.0%}" if part["flops"] else "",
        ]
        for name, part in timed.items()
    ]
    return table(["part of a step", "ms", "GFLOP/s", "of matmul"], rows)


def best_matmul(timings):
    """The largest rate of the large float32 product in any framework and round."""
    return max(rate for timing in timings for rate in timing.matmul)


def machine(threads):
    """Describe the machine: processor, cores, memory, system, commit of the code."""
    info = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (info.read_text().splitlines() if info.exists() else [])
        if line.startswith("model name")
    ]
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    )
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "commit": commit.stdout.strip() or None,
    }
