"""Runs in the kernel of a chapter before its first cell: note what it reads of the stored results.

Python tells an audit hook of every file that is opened and every pattern that is globbed, whoever
asks, so that a chapter cannot read a result unseen. Only what other processes, or libraries without
Python, open escapes. `reads` puts this file into the profile of the kernel.
"""


def _watch():
    import json
    import os
    import sys

    log, folder = os.environ["TFP_GAPS_READS"], os.environ["TFP_GAPS_RESULTS"]
    names = {
        "open": lambda path, *_: path,
        "glob.glob": lambda pattern, *_: pattern,
        "pathlib.Path.glob": os.path.join,
        "pathlib.Path.rglob": lambda path, pattern: os.path.join(path, "**", pattern),
    }

    def watch(event, arguments):
        if event in names and isinstance(arguments[0], str | bytes | os.PathLike):
            path = os.path.abspath(os.fsdecode(names[event](*arguments)))
            if path.startswith(folder + os.sep):
                line = json.dumps([event, path]) + "\n"
                descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
                os.write(descriptor, line.encode())
                os.close(descriptor)

    sys.addaudithook(watch)


_watch()
del _watch
