"""Execute, refresh and check the chapters of the book.

    python tools/chapters.py run NAME...      execute these
    python tools/chapters.py rerun [NAME...]  execute these, or all
    python tools/chapters.py stale            list what has to be executed again, and why
    python tools/chapters.py refresh          execute what is stale
    python tools/chapters.py check            exit 1 unless every chapter is fit to be committed
    python tools/chapters.py summary          print how many claims the stored chapters reproduce

A chapter is replaced only after it has run to its end: one that fails stays as it was. Exit status
1 means that a chapter failed or is unfit, 2 that the command was used wrongly.
"""

import argparse
import pathlib
import sys

import checks
import execution
import finishing
import notebooks
import outputs
import staleness
from notebooks import ChapterError, Project
from tfp_gaps.book.ledger import claims, scorecard

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main(arguments=None, root=ROOT):
    """Run one command and return the exit status."""
    project = Project(root)
    options = _parser().parse_args(arguments)
    known = project.chapters()
    unknown = [name for name in getattr(options, "names", []) if name not in known]
    if unknown:
        listed = ", ".join(known) or "none yet"
        print(f"Unknown chapter {', '.join(unknown)}. Known: {listed}.", file=sys.stderr)
        return 2
    try:
        return options.command(project, options)
    except ChapterError as error:
        print(error, file=sys.stderr)
        return 1


def _parser():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, names, text in (
        ("run", _run, "+", "execute the named chapters"),
        ("rerun", _run, "*", "execute the named chapters, or all"),
        ("stale", _stale, None, "list what has to be executed again, and why"),
        ("refresh", _refresh, None, "execute what is stale"),
        ("check", _check, None, "exit 1 unless every chapter is fit to be committed"),
        ("summary", _summary, None, "print how many claims the stored chapters reproduce"),
    ):
        sub = commands.add_parser(name, help=text)
        sub.set_defaults(command=command)
        if names:
            sub.add_argument("names", nargs=names, metavar="NAME", help="page name, such as elbo")
        if name == "stale":
            sub.add_argument(
                "--using", metavar="FILE", help="only those that import this file of tfp_gaps"
            )
    return parser


def run(project, name):
    """Execute one chapter and replace its notebook.

    Raises:
        ChapterError: if it fails; its notebook is then untouched.
    """
    path = project.path(name)
    notebook = notebooks.read(path)
    print(f"{name}: running", file=sys.stderr, flush=True)
    cost = execution.execute(project, name, notebook)
    finishing.finish(project, name, notebook, cost, execution.machine())
    notebooks.write(path, notebook)
    finishing.fill_readme(project)
    print(f"{name}: {cost}, {cost.cpu_seconds:.0f} CPU seconds", flush=True)


def in_order(project, names):
    """Return the names with those last that read the records of other chapters."""
    return sorted(
        names,
        key=lambda name: staleness.depends_on_chapters(notebooks.read(project.path(name))),
    )


def stale(project):
    """Return a dict from each stale chapter to the reasons, in the order of execution."""
    found = {}
    for name in in_order(project, project.chapters()):
        notebook = notebooks.read(project.path(name))
        reasons = staleness.reasons(project, name, notebook) + outputs.problems(name, notebook)
        if reasons:
            found[name] = reasons
    return found


def _run(project, options):
    for name in in_order(project, options.names or project.chapters()):
        run(project, name)
    return 0


def _refresh(project, options):
    # A chapter that has just run can make one stale that reads its records: look again each time.
    done = []
    while waiting := [name for name in stale(project) if name not in done]:
        run(project, waiting[0])
        done.append(waiting[0])
    finishing.fill_readme(project)
    return 0


def _stale(project, options):
    for name, reasons in stale(project).items():
        notebook = notebooks.read(project.path(name))
        if options.using is None or options.using in staleness.inputs(project, name, notebook):
            print(f"{name}: {'; '.join(reasons)}")
    return 0


def _check(project, options):
    found = {name: checks.problems(project, name) for name in project.chapters()}
    for name, problems in found.items():
        for problem in problems:
            print(f"{name}: {problem}")
    return 1 if any(found.values()) else 0


def _summary(project, options):
    try:
        rows = scorecard.rows(project.book)
    except claims.ClaimsError as error:
        raise ChapterError(str(error)) from error
    print(scorecard.summary_line(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
