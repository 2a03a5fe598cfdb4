"""Write the stored numbers anew, or compare them: `python -m tests.golden write|check [CASE ...]`.

`write` leaves a file alone whose numbers this machine finds again to the last stored digit.
"""

import argparse
import sys
import time

from tests.golden import numbers
from tests.golden.cases import CASES, DECIDING, SEED
from tfp_gaps.book import comparison


def main(arguments=None):
    """Carry out a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("command", choices=("write", "check"))
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.cases) - CASES.keys():
        parser.error(f"cases should be of {', '.join(CASES)}, but found {', '.join(unknown)}")
    status = 0
    for name in chosen.cases or CASES:
        started = time.process_time()
        found = comparison.summaries(CASES[name]())
        said = write(name, found) if chosen.command == "write" else check(name, found)
        status |= bool(said) and chosen.command == "check"
        print(f"{name}: {time.process_time() - started:.1f} CPU seconds", *said, sep="\n  ")
        sys.stdout.flush()
    return int(status)


def write(name, found):
    """Store numbers unless they are there already; returns what was done, as lines."""
    path = numbers.FOLDER / f"{name}.json"
    if path.exists() and numbers.read(name)["numbers"] == found:
        return ["as stored"]
    numbers.write(name, found, SEED)
    return [f"written, {len(found)} vectors"]


def check(name, found):
    """Return the differences from what is stored, as lines."""
    return comparison.differences(name, numbers.read(name), found, decides=name in DECIDING)


if __name__ == "__main__":
    sys.exit(main())
