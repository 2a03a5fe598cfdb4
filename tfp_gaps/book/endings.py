"""How a process ended, in words: its status, or the signal that killed it, and its last words.

A process that dies inside native code, or that the system kills for want of memory, raises nothing
in Python: whoever started it reads the status (negative: a signal, see wait(2)) and has to say so.
What native code printed while TensorFlow was loaded in silence (`tfp_gaps._tensorflow`) lies in the
file that the variable `NATIVE_LOG` names.
"""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

NATIVE_LOG = "TFP_GAPS_NATIVE_LOG"
_MEANINGS = {
    signal.SIGKILL: "which is how the system ends what takes too much memory",
    signal.SIGABRT: "native code gave up, often for want of memory",
    signal.SIGSEGV: "native code used memory that is not its own",
    signal.SIGBUS: "native code used memory or a file that is not there",
    signal.SIGILL: "native code was built for another processor",
    signal.SIGXFSZ: "a file grew beyond what is allowed",
}
_STACK_TRACE = re.compile(r"\s*(@ |\*\*\*|$)")


def describe(status):
    """Say how a process ended; `status` is negative for a signal, None if nobody knows.

    >>> describe(1), describe(-15), describe(None)
    ('exit status 1', 'signal SIGTERM', 'unknown exit status')
    >>> describe(-9)
    'signal SIGKILL, which is how the system ends what takes too much memory'
    """
    if status is None:
        return "unknown exit status"
    if status >= 0:
        return f"exit status {status}"
    if -status not in set(signal.Signals):
        return f"signal {-status}"
    known = signal.Signals(-status)
    return ", ".join(filter(None, [f"signal {known.name}", _MEANINGS.get(known)]))


def last_words(*texts):
    r"""Quote the last line that says anything, stack traces left out; "" if there is none.

    >>> last_words("F0 bfc.cc:3] Check failed: x\n*** Check failure stack trace: ***\n    @ 0x7f")
    '; its last words were «F0 bfc.cc:3] Check failed: x»'
    """
    lines = [line for text in texts for line in text.splitlines() if not _STACK_TRACE.match(line)]
    return f"; its last words were «{lines[-1].strip()[-300:]}»" if lines else ""


def supervise(command, advice):
    """Run a command; if a signal kills it, say so on standard error, with `advice`.

    Signals that ask to stop are the command's own business: it gets them, and is waited for.

    Returns:
      Its exit status; for a signal 128 and its number, as in a shell.
    """
    with _folder_of_logs() as folder:
        log = pathlib.Path(folder, "native.log") if folder else pathlib.Path(os.devnull)
        process = subprocess.Popen(command, env=os.environ | {NATIVE_LOG: str(log)})
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both
        signal.signal(signal.SIGTERM, lambda number, frame: process.send_signal(number))
        status = process.wait()
        said = last_words(log.read_text(errors="replace")) if log.is_file() else ""
    if status >= 0:
        return status
    print(f"tfp-gaps: killed by {describe(status)}{said}. {advice}", file=sys.stderr)
    return 128 - status


def _folder_of_logs():
    try:
        return tempfile.TemporaryDirectory()
    except OSError:  # a full disk: the work itself will say so, or need none
        return contextlib.nullcontext()
