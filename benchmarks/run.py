"""Speed and memory of a training step, in this package, in PyTorch and in JAX, in one run.

    make bench                                     all of it
    make bench BENCH="--json speed.json"           and keep the numbers
    python -m benchmarks.run --frameworks ours     without the peers' environments

The same state-space model with the same initial parameters, batches, loss and optimiser; that all
compute the same loss before and after a step is checked first. "ms/step" is the median over the
quieter half of the rounds, "fastest" the best round, "other load" the share of the CPUs that other
processes took: with more than a few per cent of it, run again on a quiet machine. "sequences/s"
counts trained sequences per model: seeds x batch / time of a step. "of matmul" is the rate of the
model's matrix products (see `sizes.Size.flops_per_step`) over the best rate of a large float32
product in this run. PyTorch trains several seeds one after the other: `torch.func.vmap` has no rule
for `nn.GRU`.
"""

import argparse
import json
import sys
from dataclasses import replace

from benchmarks import measure, report
from benchmarks.sizes import SIZES

TINY = {"num_timesteps": 4, "batch_size": 8, "hidden_size": 8, "latent_size": 2}
CURVES = {
    "large": {
        "num_timesteps": (14, 28, 56, 112),
        "batch_size": (32, 64, 128, 256),
        "latent_size": (4, 8, 16, 32),
        "lookahead": (None, 0, 1, 3),
    },
    "small": {"num_seeds": (1, 2, 3, 6), "lookahead": (None, 0, 1, 3)},
}
TINY_CURVES = {"small": {"num_timesteps": (2, 4)}}


def parse(arguments):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--frameworks", nargs="+", default=["torch", "jax"], help="peers to run")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=12, help="rounds per table")
    parser.add_argument("--threads", type=int, default=2, help="cores for each worker")
    parser.add_argument("--curves", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--json", metavar="PATH", help="also write the numbers to this file")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all?")
    return parser.parse_args(arguments)


def compare(size, options, effort):
    """Time one size, print its table; return what the JSON file keeps."""
    frameworks = {"ours", *options.frameworks}
    rows = [row for row in measure.ROWS if row.framework in frameworks]
    timings, failures = measure.compare(size, rows, effort, options.threads)
    print(report.comparison(timings))
    for label, reason in failures.items():
        print(f"{label}: not measured. {reason}")
    warning = report.warning(timings)
    if warning:
        print(warning)
    difference = measure.largest_difference(timings)
    print(f"Best large float32 product: {report.best_matmul(timings) / 1e9:.0f} GFLOP/s.")
    print(f"Losses before and after a step differ by {difference:.1e} of their value at most.")
    parts = measure.parts(size, effort.rounds, options.threads)
    print("\nWhere this package's time goes, each part alone")
    print(report.parts(parts, report.best_matmul(timings)))
    return {
        "parts": parts,
        "rows": [timing.as_dict() for timing in timings],
        "failures": failures,
        "warning": warning,
        "largest_relative_difference_of_losses": difference,
        "flops_per_step": size.flops_per_step,
    }


def curves(name, size, options, effort):
    """Time the curves of one size, print their tables; return what the JSON file keeps."""
    chosen = TINY_CURVES if options.quick else CURVES
    kept = {}
    for field, timings in measure.curves(
        size, chosen.get(name, {}), effort, options.threads
    ).items():
        print(f"\nThis package, {name} but for {field}")
        print(report.curve(field, timings))
        kept[field] = [timing.as_dict() for timing in timings]
    return kept


def main(arguments=None):
    options = parse(arguments)
    effort = measure.Effort(rounds=options.rounds)
    if options.quick:
        effort = measure.Effort(rounds=2, seconds=0.0, matmul_width=256)
    result = {"machine": report.machine(options.threads), "sizes": {}}
    print(", ".join(f"{key} {value}" for key, value in result["machine"].items()))
    for name in options.sizes:
        size = replace(SIZES[name], **TINY) if options.quick else SIZES[name]
        print(f"\n{name}: {size.describe()}", flush=True)
        result["sizes"][name] = compare(size, options, effort)
        if options.curves:
            light = replace(effort, rounds=max(2, effort.rounds // 2), matmul_width=0)
            result["sizes"][name]["curves"] = curves(name, size, options, light)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(result, file, indent=1)
    worst = max(s["largest_relative_difference_of_losses"] for s in result["sizes"].values())
    if not worst <= measure.RELATIVE_TOLERANCE:
        return (
            f"The losses of the rows must agree to {measure.RELATIVE_TOLERANCE}, but differ by "
            f"{worst:.1e}: they do not compute the same step. Compare benchmarks/peers with the "
            f"package's model."
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
