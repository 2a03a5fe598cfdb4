"""Choose learning rate and warm-up of a benchmark on its validation data: the same grid for all.

    python tools/pilot.py uav nanobench --steps 2000
    python tools/pilot.py digits converged --steps 1000 --seeds 100 101

Each arm, partial and full conditions, is trained with every pair of the grid, with seeds that no
stored run has; the test part is not looked at. The smallest validation losses go to
workflow/pilots.json after each training, with the number of trials: started again, the command goes
on where it ended. What is chosen has the smallest mean loss over seeds, and is written into the
benchmark's `Size` by hand.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from tfp_gaps import storage
from tfp_gaps.book import results
from tfp_gaps.book.experiments import digits, traffic, uav
from tfp_gaps.book.experiments.sequential import fit_jointly
from tfp_gaps.posteriors.conditions import FULL, LookAhead

STORED = Path(results.ROOT) / "workflow" / "pilots.json"
RATES = (0.003, 0.01, 0.02)
WARM_UPS = (200, 1000)
SEEDS = (100, 101, 102, 103)
BENCHMARKS = {"digits": digits, "traffic": traffic, "uav": uav}
ARMS = {"partial": LookAhead(0), "full": FULL}


def trial(splits, design, conditions, *, rate, warm_up, steps, seeds):
    """Smallest validation losses of one pair of the grid, nats per sequence: one per seed."""
    settings = replace(
        design.joint,
        learning_rate=rate,
        kl_warmup_steps=warm_up,
        num_steps=steps,
        schedule="cosine",
        validate_every=max(design.joint.steps_per_call, steps // 10),
    )
    fitted = fit_jointly(
        splits, replace(design, joint=settings), conditions=conditions, seeds=seeds
    )
    return fitted.history.validation_losses.min(0)


def chosen(rows):
    """{arm: the row with the smallest mean loss}.

    >>> rows = [{"arm": "full", "losses": [3.0, 4.0]}, {"arm": "full", "losses": [1.0, 2.0]}]
    >>> chosen(rows)["full"]["losses"]
    [1.0, 2.0]
    """
    arms = {row["arm"]: None for row in rows}
    return {
        arm: min((row for row in rows if row["arm"] == arm), key=lambda row: np.mean(row["losses"]))
        for arm in arms
    }


def read():
    """{"experiment variant": [row]}, as stored; empty before the first."""
    return json.loads(STORED.read_text(encoding="utf-8")) if STORED.exists() else {}


def main(arguments=None):
    """Run what is missing of the grid, and print what each arm would choose."""
    parser = argparse.ArgumentParser(prog="python tools/pilot.py", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("experiment", choices=list(BENCHMARKS))
    parser.add_argument("variant", nargs="?", default="")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--arm", choices=list(ARMS), action="append", help="default: both")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    options = parser.parse_args(arguments)
    benchmark = BENCHMARKS[options.experiment].BENCHMARK
    name = f"{options.experiment} {options.variant}".strip()
    splits = benchmark.load("paper", options.variant)
    design = benchmark.size("paper", options.variant).design
    for arm in options.arm or ARMS:
        for rate in RATES:
            for warm_up in WARM_UPS:
                row = {"arm": arm, "rate": rate, "warm_up": warm_up, "steps": options.steps}
                if any(row.items() <= old.items() for old in read().get(name, [])):
                    continue
                started = time.monotonic()
                how = {"rate": rate, "warm_up": warm_up, "steps": options.steps}
                losses = trial(splits, design, ARMS[arm], seeds=options.seeds, **how)
                row |= {"seeds": options.seeds, "losses": np.round(losses, 3).tolist()}
                row |= {"minutes": round((time.monotonic() - started) / 60, 1)}
                # Read again: the other arm may have been stored meanwhile.
                stored = read()
                stored.setdefault(name, []).append(row)
                text = json.dumps(stored, indent=1, sort_keys=True) + "\n"
                storage.write_atomically(STORED, text.encode())
                print(row, flush=True)
    for arm, row in chosen(read()[name]).items():
        print(f"{arm}: rate {row['rate']}, warm-up {row['warm_up']} (mean of {row['losses']})")


if __name__ == "__main__":
    main()
