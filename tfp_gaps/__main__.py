"""The command line: list, run, verify, data.

Progress goes to standard error; with --json each line on standard output is one JSON object. The
exit status is 0 on success, 1 if something that was asked for is wrong or missing, 2 on bad use.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

from tfp_gaps import __version__, scales
from tfp_gaps.experiments import BENCHMARKS as EXPERIMENTS

DATA_SETS = ("digits",)


def parser():
    """Build the argument parser."""
    main_parser = argparse.ArgumentParser(prog="tfp-gaps", description=__doc__.split("\n")[0])
    main_parser.add_argument("--version", action="version", version=__version__)
    commands = main_parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    listing = commands.add_parser("list", help="experiments, scales and stored results")
    run = commands.add_parser("run", help="train and evaluate, then store the result")
    run.add_argument("experiment", choices=EXPERIMENTS)
    run.add_argument("--scale", choices=scales.SCALES, default="smoke")
    run.add_argument(
        "--lookahead", type=_lookahead, default=0, metavar="K", help="0, 1, 2, ... or full"
    )
    run.add_argument("--seeds", type=_seed, nargs="+", default=[0], metavar="SEED")
    run.add_argument("--output", type=Path, default=None, help="folder of the result")
    run.add_argument("--force", action="store_true", help="replace a stored result")
    verify = commands.add_parser("verify", help="check stored results")
    verify.add_argument("paths", type=Path, nargs="*", help="default: all of results/")
    data = commands.add_parser("data", help="fetch data, or say where they are")
    data.add_argument("action", choices=("fetch", "path"))
    data.add_argument("name", choices=DATA_SETS)
    for sub in (listing, run, verify, data):
        sub.add_argument("--json", action="store_true", help="one JSON object per line")
    return main_parser


def _lookahead(text):
    if text == "full":
        return None
    if text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"expected 0, 1, 2, ... or full, found {text!r}")


def _seed(text):
    if text.isdecimal() and int(text) < 2**31:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected an integer from 0 to 2**31 - 1, found {text!r}")


def result_name(lookahead, seeds):
    """File name of a run: `k0-seeds0-1-2.json`, `kfull-seed0.json`.

    >>> result_name(None, [0, 1])
    'kfull-seeds0-1.json'
    """
    label = "full" if lookahead is None else str(lookahead)
    plural = "seed" if len(seeds) == 1 else "seeds"
    return f"k{label}-{plural}{'-'.join(str(seed) for seed in seeds)}.json"


def command_list(arguments):
    """Print the experiments and the stored results."""
    from tfp_gaps import results

    for name in EXPERIMENTS:
        _emit(
            arguments,
            {"experiment": name, "scales": list(scales.SCALES)},
            f"{name}: --scale "
            f"{' | '.join(scales.SCALES)}, --lookahead 0 | 1 | ... | full, --seeds 0 1 ...",
        )
    for path in sorted(results.FOLDER.glob("*/*/*.json")):
        command = results.load(path)["provenance"]["command"]
        shown = path.relative_to(results.ROOT)
        _emit(arguments, {"result": str(shown), "command": command}, f"{shown}: {command}")
    return 0


def command_run(arguments):
    """Train, evaluate, store."""
    from tfp_gaps import results, storage, training
    from tfp_gaps.experiments import digits

    if len(set(arguments.seeds)) != len(arguments.seeds):
        raise ValueError(f"seeds must differ, but are {arguments.seeds}. Name each once.")
    folder = arguments.output or results.FOLDER / arguments.experiment
    name = result_name(arguments.lookahead, arguments.seeds)
    path = folder / arguments.scale / name
    if path.exists() and not arguments.force:
        results.load(path)
        _emit(arguments, {"result": str(path), "status": "already there"}, f"{path}: already there")
        return 0
    storage.check_writable(path.parent)
    checkpoints = folder / ".checkpoints" / arguments.scale / path.stem
    started = time.monotonic()
    result = digits.run(
        scale=arguments.scale,
        lookahead=arguments.lookahead,
        seeds=arguments.seeds,
        checkpoint_folder=checkpoints,
        progress=lambda phase, steps: training.progress_bar(f"{path.stem} {phase}", steps),
    )
    origin = results.provenance(
        command=_command(arguments),
        data=result["data"],
        seeds=arguments.seeds,
        seconds=time.monotonic() - started,
    )
    results.save(path, result, origin)
    shutil.rmtree(checkpoints, ignore_errors=True)
    _emit(arguments, {"result": str(path), "status": "written"}, f"{path}: written")
    return 0


def _command(arguments):
    label = "full" if arguments.lookahead is None else arguments.lookahead
    seeds = " ".join(str(seed) for seed in arguments.seeds)
    return (
        f"tfp-gaps run {arguments.experiment} --scale {arguments.scale} --lookahead {label} "
        f"--seeds {seeds}"
    )


def command_verify(arguments):
    """Check digests and provenance of stored results."""
    from tfp_gaps import results

    paths = arguments.paths or sorted(results.FOLDER.glob("*/*/*.json"))
    if not paths:
        raise ValueError(f"expected stored results under {results.FOLDER}, but found none.")
    status = 0
    for path in paths:
        try:
            results.load(path)
            _emit(arguments, {"result": str(path), "ok": True}, f"{path}: ok")
        except results.ResultError as error:
            status = 1
            _emit(arguments, {"result": str(path), "ok": False, "error": str(error)}, str(error))
    return status


def command_data(arguments):
    """Fetch a data set, or print where its files are."""
    from tfp_gaps import data

    for path in data.fetch(arguments.name):
        _emit(arguments, {"data": arguments.name, "path": str(path)}, str(path))
    return 0


def _emit(arguments, record, text):
    print(json.dumps(record) if arguments.json else text, flush=True)


COMMANDS = {
    "list": command_list,
    "run": command_run,
    "verify": command_verify,
    "data": command_data,
}


def main(argv=None):
    """Entry point; returns the exit status."""
    arguments = parser().parse_args(argv)
    try:
        return COMMANDS[arguments.command](arguments)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"tfp-gaps: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("tfp-gaps: stopped; the same command continues from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
