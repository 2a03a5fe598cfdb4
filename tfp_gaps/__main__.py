"""`python -m tfp_gaps`: the command line of the book."""

import sys

from tfp_gaps.book.command_line import main

if __name__ == "__main__":
    sys.exit(main())
