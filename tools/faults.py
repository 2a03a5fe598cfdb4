"""Do to a run what machines do, and see that nothing is lost and nothing wrong accepted.

    python tools/faults.py [--kills 30] [--only checkpoints] [--output tools/faults.json]

* kill -9 at random moments of one paper-scale run, which is started again each time; its result
  must be that of a run without interruption, number by number;
* a file system that is full when the result is to be written;
* a checkpoint, a stored result and a downloaded file with one changed byte, or cut short.

Every fault is done to real files by real processes in a folder of its own. The outcome is stored,
with `--only` beside the stored outcome of all others; `book/reproducibility.md` shows it.
"""

import argparse
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULT = ROOT / "tools" / "faults.json"
RUN = ("world_models", "--scale", "paper", "--lookahead", "0", "--variant", "momentum-010")
KINDS = ["disk", "checkpoints", "result", "downloads", "kills"]
SMALL = ("world_models", "--scale", "smoke", "--lookahead", "0", "--variant", "momentum-010")


class Faults:
    """What was done, and what came of it; `rows` is what is stored.

    Args:
      folder: a new, empty one for everything that is written.
    """

    def __init__(self, folder):
        self.folder, self.rows = pathlib.Path(folder), []

    def report(self, fault, outcome, holds):
        self.rows.append({"fault": fault, "outcome": outcome, "holds": bool(holds)})
        print(f"{'holds' if holds else 'FAILS'}: {fault}: {outcome}", flush=True)

    def start(self, run, name, *, limit=None, home=None):
        """Start a run with results below `name`, in a process group of its own."""

        def narrow():
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
                # Without this the kernel ends the process instead of refusing the write.
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

        changes = {"PYTHONPATH": str(ROOT), "TFP_GAPS_CHECKPOINT_SECONDS": "1"}
        if home is not None:
            changes["XDG_CACHE_HOME"] = str(home)
        return subprocess.Popen(
            [sys.executable, "-m", "tfp_gaps", *self.command(run, name)],
            cwd=ROOT,
            env=os.environ | changes,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=narrow,
        )

    def command(self, run, name):
        return ["run", *run, "--seeds", "0", "--output", str(self.folder / name)]

    def finish(self, run, name, **options):
        """Let a run end; returns its status and what it said."""
        process = self.start(run, name, **options)
        said, _ = process.communicate()
        return process.returncode, said.strip()

    def results(self, name):
        """Stored results below `name`, without checkpoints: whole files only."""
        return [
            path
            for path in (self.folder / name).rglob("*.json")
            if ".checkpoints" not in path.parts
        ]

    def checkpoints(self, name):
        """The newest checkpoints below `name`; the ones before end in .previous."""
        return sorted((self.folder / name).rglob("*.npz"))

    def content(self, name):
        """The numbers of the one result below `name`."""
        (path,) = self.results(name)
        found = json.loads(path.read_text(encoding="utf-8"))
        del found["provenance"], found["digest"]
        return found

    # --- faults ----------------------------------------------------------------------------------

    def kills(self, count, seed=0):
        """Kill one run again and again, then let it end, and compare."""
        status, said = self.finish(RUN, "straight")
        if status:
            raise SystemExit(f"The run should work before anything is done to it:\n{said}")
        moments, ended, partial = random.Random(seed), 0, 0
        for _ in range(count):
            process = self.start(RUN, "killed")
            try:
                process.wait(moments.uniform(0, 25))
                ended += 1
                # Finished: begin the evaluation again from the kept checkpoints.
                for path in self.results("killed"):
                    path.unlink()
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                partial += bool(self.results("killed"))
            process.stdout.close()
        status, said = self.finish(RUN, "killed")
        same = status == 0 and self.content("killed") == self.content("straight")
        self.report(
            f"kill -9 at {count} random moments of a paper-scale run",
            f"{count - ended} kills met a running process, {partial} left a result behind; the end "
            + ("equals an uninterrupted run, number by number" if same else f"differs: {said}"),
            same and partial == 0,
        )

    def full_disk(self):
        """Nothing larger than 20 kB can be written: no checkpoint and no result."""
        status, said = self.finish(SMALL, "full", limit=20_000)
        left = self.results("full")
        self.report(
            "no space for checkpoint or result",
            f"status {status}, {len(left)} results; says: {last_line(said)}",
            status != 0 and not left and "Traceback" not in said,
        )
        status, _ = self.finish(SMALL, "full")
        self.report(
            "the same run when there is space again",
            f"status {status}, {len(self.results('full'))} result",
            status == 0 and len(self.results("full")) == 1,
        )

    def corrupt_checkpoint(self):
        """Checkpoints with a changed byte: the one before is taken; without any, the run stops."""
        self.finish(SMALL, "corrupt")
        expected = self.content("corrupt")
        for path in self.results("corrupt"):
            path.unlink()
        for path in self.checkpoints("corrupt"):
            flip(path)
        status, _ = self.finish(SMALL, "corrupt")
        same = status == 0 and self.content("corrupt") == expected
        self.report(
            "the newest checkpoint with a changed byte",
            "continues from the one before, to the same numbers" if same else f"status {status}",
            same,
        )
        shutil.rmtree(self.folder / "corrupt")
        self.finish(SMALL, "corrupt")
        for path in self.results("corrupt"):
            path.unlink()
        for path in self.checkpoints("corrupt"):
            flip(path)
            flip(path.with_name(path.name + ".previous"))
        status, said = self.finish(SMALL, "corrupt")
        self.report(
            "both checkpoints with a changed byte",
            f"status {status}, {len(self.results('corrupt'))} results; says: {last_line(said)}",
            status != 0 and not self.results("corrupt") and "Traceback" not in said,
        )

    def changed_result(self):
        """A stored result in which one digit was changed."""
        self.finish(SMALL, "changed")
        (path,) = self.results("changed")
        text = path.read_text(encoding="utf-8")
        place = text.index("elbo")
        place = next(i for i in range(place, len(text)) if text[i].isdigit())
        path.write_text(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :])
        command = [sys.executable, "-c", LOAD, str(path)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        self.report(
            "a stored result with one changed digit",
            f"says: {last_line(done.stdout + done.stderr)}",
            done.returncode == 3,
        )

    def broken_downloads(self):
        for what in ("with a changed byte", "cut short"):
            self.broken_download(what)

    def broken_download(self, what):
        """The cached digits with a changed byte, or cut short: fetched anew or refused."""
        home = self.folder / f"cache-{what.replace(' ', '-')}"
        fetch = [sys.executable, "-m", "tfp_gaps", "data", "fetch", "digits"]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(home)}
        environment.pop("TFP_GAPS_DATA", None)
        options = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True}
        done = subprocess.run(fetch, **options)
        files = [path for path in home.rglob("*") if path.is_file() and path.stat().st_size > 1e5]
        if done.returncode or not files:
            self.report(f"a cached file {what}", f"no digits here: {last_line(done.stderr)}", False)
            return
        for path in files:
            if what == "cut short":
                os.truncate(path, path.stat().st_size // 2)
            else:
                flip(path)
        use = subprocess.run([sys.executable, "-c", USE], **options)
        good = "whole" in use.stdout
        self.report(
            f"a cached file {what}",
            "noticed and fetched again" if good else f"says: {last_line(use.stdout + use.stderr)}",
            good or use.returncode == 3,
        )


LOAD = """
import sys
from tfp_gaps.book import results
try:
    results.load(sys.argv[1])
except results.ResultError as error:
    print(error)
    sys.exit(3)
"""

USE = """
import sys
from tfp_gaps.book import data
try:
    data.load("digits")
except Exception as error:
    print(type(error).__name__, error)
    sys.exit(3)
print("whole")
"""


def flip(path):
    """Change one bit in the middle of a file; of an archive of arrays, in that of the largest.

    Between the arrays of an archive there are bytes that mean nothing.
    """
    content = bytearray(path.read_bytes())
    place = len(content) // 2
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            largest = max(archive.infolist(), key=lambda member: member.file_size)
        place = largest.header_offset + largest.compress_size // 2
    content[place] ^= 1
    path.write_bytes(content)


def last_line(text):
    """The last thing that was said, without the folder of this machine."""
    lines = [line for line in text.strip().splitlines() if line.strip()] or ["nothing"]
    words = lines[-1].split()
    return " ".join(word.rpartition("/")[2] if word.startswith("/") else word for word in words)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--output", type=pathlib.Path, default=RESULT)
    arguments = parser.parse_args()
    start, folder = time.monotonic(), tempfile.mkdtemp(prefix="faults-")
    faults = Faults(folder)
    kinds = {
        "disk": faults.full_disk,
        "checkpoints": faults.corrupt_checkpoint,
        "result": faults.changed_result,
        "downloads": faults.broken_downloads,
        "kills": lambda: faults.kills(arguments.kills),
    }
    try:
        for kind in arguments.only:
            kinds[kind]()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    commit = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    rows = {row["fault"]: row | {"commit": commit} for row in faults.rows}
    seconds = round(time.monotonic() - start)
    if arguments.only != KINDS:
        stored = json.loads(arguments.output.read_text(encoding="utf-8"))
        rows = {row["fault"]: row for row in stored["rows"]} | rows
        seconds = stored["seconds"]  # of all
    stored = {"seconds": seconds, "rows": list(rows.values())}
    temporary = arguments.output.with_suffix(".tmp")
    temporary.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    temporary.replace(arguments.output)
    sys.exit(not all(row["holds"] for row in faults.rows))


if __name__ == "__main__":
    main()
