"""The command line: list, run, sweep, verify, data.

Progress goes to standard error; with --json each line on standard output is one JSON object. The
exit status is 0 on success, 1 if something that was asked for is wrong or missing, 2 on bad use.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from tfp_gaps import __version__
from tfp_gaps.book import data as data_sets
from tfp_gaps.book import results, runs, scales, sweep, verification


def parser():
    """Build the argument parser."""
    main_parser = argparse.ArgumentParser(prog="tfp-gaps", description=__doc__.split("\n")[0])
    main_parser.add_argument("--version", action="version", version=__version__)
    commands = main_parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    parts = [
        commands.add_parser("list", help="experiments, scales and stored results"),
        _run_parser(commands),
        _sweep_parser(commands),
        _verify_parser(commands),
    ]
    data = commands.add_parser("data", help="fetch data, or say where they are")
    data.add_argument("action", choices=("fetch", "path"))
    data.add_argument("name", choices=data_sets.FILES)
    for part in (*parts, data):
        part.add_argument("--json", action="store_true", help="one JSON object per line")
    return main_parser


def _run_parser(commands):
    run = commands.add_parser("run", help="train and evaluate, then store the result")
    run.add_argument("experiment", choices=runs.NAMES)
    run.add_argument("--scale", choices=scales.SCALES, default="smoke")
    # Left out of the arguments unless given: an experiment without time accepts none, not even 0.
    run.add_argument(
        "--lookahead",
        type=_lookahead,
        default=argparse.SUPPRESS,
        metavar="K",
        help=f"0 (default), 1, 2, ... or full; not for {', '.join(runs.STATIC)}",
    )
    run.add_argument("--seeds", type=_seed, nargs="+", default=[0], metavar="SEED")
    run.add_argument("--variant", default="", metavar="NAME", help="one that the experiment knows")
    _add_output(run)
    run.add_argument("--checkpoints", type=Path, help="default: .checkpoints beside the results")
    run.add_argument(
        "--force",
        action="store_true",
        help="replace a stored result; finished training is not repeated",
    )
    run.add_argument(
        "--wait", action="store_true", help="wait for another process at work on the same run"
    )
    return run


def _sweep_parser(commands):
    part = commands.add_parser(
        "sweep",
        help="compute the declared results that are missing",
        epilog="What follows -- is passed on to Snakemake.",
    )
    part.add_argument("--file", type=Path, default=sweep.DECLARED, help="the declared runs")
    part.add_argument("--dry-run", action="store_true", help="list what is missing, and its cost")
    part.add_argument("--profile", default="local", help="local, slurm, kubernetes or a path")
    part.add_argument("--cores", type=_count, help="cores for all runs; each takes two")
    part.add_argument("snakemake", nargs="*", metavar="-- ARGUMENT", help=argparse.SUPPRESS)
    _add_output(part)
    return part


def _verify_parser(commands):
    part = commands.add_parser("verify", help="check stored results")
    part.add_argument("paths", type=Path, nargs="*", help="default: all of results/")
    part.add_argument(
        "--recompute",
        type=_count,
        nargs="?",
        const=3,
        default=0,
        metavar="N",
        help=f"repeat N (default 3) of the stored {verification.SCALE} runs, drawn at random",
    )
    part.add_argument("--seed", type=_seed, default=0, help="of the draw; default 0")
    return part


def _add_output(part):
    part.add_argument(
        "--output", type=Path, default=results.FOLDER, help="folder of all results, not results/"
    )


def _lookahead(text):
    try:
        return runs.parse_lookahead(text)
    except runs.RunError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _seed(text):
    if text.isdecimal() and int(text) < 2**31:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected an integer from 0 to 2**31 - 1, found {text!r}")


def _count(text):
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a number, 1 or more, found {text!r}")


def command_list(arguments):
    """Print the experiments and the stored results."""
    for name in runs.NAMES:
        has_time = name not in runs.STATIC
        options = "--lookahead 0 | 1 | ... | full" if has_time else "--variant NAME"
        _emit(
            arguments,
            {"experiment": name, "scales": list(scales.SCALES)},
            f"{name}: --scale {' | '.join(scales.SCALES)}, {options}, --seeds 0 1 ...",
        )
    for path in runs.stored_paths():
        command = results.load(path)["provenance"]["command"]
        shown = path.relative_to(results.ROOT)
        _emit(arguments, {"result": str(shown), "command": command}, f"{shown}: {command}")
    return 0


def command_run(arguments):
    """Train, evaluate, store."""
    run = runs.Run(
        arguments.experiment,
        arguments.scale,
        _chosen_lookahead(arguments),
        arguments.seeds,
        arguments.variant,
    )
    status = runs.perform(
        run,
        folder=arguments.output,
        checkpoints=arguments.checkpoints,
        force=arguments.force,
        wait=arguments.wait,
    )
    path = run.path(arguments.output)
    _emit(arguments, {"result": str(path), "status": status}, f"{path}: {status}")
    return 0


def _chosen_lookahead(arguments):
    if arguments.experiment not in runs.STATIC:
        return getattr(arguments, "lookahead", 0)
    if hasattr(arguments, "lookahead"):
        raise runs.RunError(
            f"{arguments.experiment} has no time and so no look-ahead, but --lookahead was given. "
            f"Leave it out."
        )
    return None


def command_sweep(arguments):
    """List the declared runs, or compute those that are missing."""
    states = sweep.examine(runs.read_declared(arguments.file), arguments.output)
    summary = sweep.summarise(states)
    if arguments.dry_run:
        for state in states:
            record = {"result": str(state.path), "command": state.run.command}
            values = {k: v for k, v in asdict(state).items() if k not in ("run", "path")}
            _emit(arguments, record | values, sweep.describe(state, Path.cwd()))
        _emit(arguments, summary, sweep.describe_summary(summary))
        return 1 if summary["invalid"] else 0
    extra = [] if arguments.cores is None else ["--cores", str(arguments.cores)]
    print(sweep.describe_summary(summary), file=sys.stderr, flush=True)
    sweep.start(
        states,
        declared=arguments.file,
        folder=arguments.output,
        profile=arguments.profile,
        arguments=[*extra, *arguments.snakemake],
    )
    return 0


def command_verify(arguments):
    """Check stored results: digests, manifest, data, consistency; and repeat small runs."""
    paths = arguments.paths or verification.everything()
    if not paths:
        raise ValueError(f"expected stored results under {results.FOLDER}, but found none.")
    found = {path: verification.problems(path) for path in paths}
    for path, problems in found.items():
        _report(arguments, path, problems, "ok")
    if arguments.recompute:
        sound = [path for path, problems in found.items() if not problems]
        for path, problems in verification.recompute(sound, arguments.recompute, arguments.seed):
            found[path] = problems
            _report(arguments, path, problems, "computed again, the same")
    return int(any(found.values()))


def _report(arguments, path, problems, verdict):
    record = {"result": str(path), "ok": not problems}
    if problems:
        record["error"] = "\n".join(problems)
    _emit(arguments, record, record.get("error", f"{path}: {verdict}"))


def command_data(arguments):
    """Fetch a data set, or print where its files are."""
    try:
        paths = data_sets.fetch(arguments.name)
    except OSError as error:
        raise OSError(
            f"{error.strerror or error}. Fetched files lie in the folder that XDG_CACHE_HOME "
            f"names, or else in ~/.cache: set it to one that can be written."
        ) from error
    for path in paths:
        _emit(arguments, {"data": arguments.name, "path": str(path)}, str(path))
    return 0


def _emit(arguments, record, text):
    print(json.dumps(record) if arguments.json else text, flush=True)


COMMANDS = {
    "list": command_list,
    "run": command_run,
    "sweep": command_sweep,
    "verify": command_verify,
    "data": command_data,
}


def main(argv=None):
    """Entry point; returns the exit status."""
    arguments = parser().parse_args(argv)
    try:
        return COMMANDS[arguments.command](arguments)
    except runs.RunError as error:
        print(f"tfp-gaps: {error}", file=sys.stderr)
        return 2
    except (ValueError, RuntimeError, OSError) as error:
        print(f"tfp-gaps: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("tfp-gaps: stopped; the same command continues from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
