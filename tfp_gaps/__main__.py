"""`python -m tfp_gaps` and `tfp-gaps`: the command line of the book.

A run works in a process of its own, so that somebody is left to say that it was killed.
"""

import sys

from tfp_gaps.book import endings

ADVICE = (
    "Nothing is lost but the minute since the last checkpoint: the same command continues from "
    "there, with more memory or at a smaller --scale if that was missing."
)


def main():
    """Entry point; returns the exit status."""
    if sys.argv[1:2] == ["run"]:
        command = [sys.executable, "-m", "tfp_gaps.book.command_line", *sys.argv[1:]]
        return endings.supervise(command, ADVICE)
    from tfp_gaps.book import command_line

    return command_line.main()


if __name__ == "__main__":
    sys.exit(main())
