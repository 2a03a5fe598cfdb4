"""Write the parts of pages that are made of data, before the build: book/_generated/*.md.

Pages include them, that on reproducibility most of them. They hold what the chapters stored when
they ran (cost, machine, verdicts), what the ledger asks, what the lock pins, and how to cite; no
number is typed. They are not committed, so they cannot fall behind, nor can what is written beside
the pages: the scripts of the chapters and the data of their figures.
"""

import collections
import importlib.metadata
import json
import re
import textwrap

import yaml

import address
import api
import experiments
import figure_data
import mutation
import notebooks
import staleness
import variants
from checks import MAXIMUM_GIGABYTES, MAXIMUM_SECONDS
from finishing import title
from notebooks import Project, write_text
from tfp_gaps.book.ledger import claims, scorecard

FOLDER = "_generated"
SOURCES = ("soelch2021tale", "bayer2021mind", "cremer2018inference", "kayalibay2021less")
"""Keys of the texts that the book recomputes, in references.bib."""

# The packages that a result can depend on, or a page; the lock holds the others.
PACKAGES = (
    "tensorflow",
    "tf-keras",
    "tensorflow-probability",
    "numpy",
    "scipy",
    "matplotlib",
    "jupyter-book",
    "nbval",
)


def write(root):
    """Write all generated parts of the checkout `root`; a book without a ledger has none."""
    project = Project(root)
    if not (project.book / "claims.yml").is_file():
        return
    rows = scorecard.rows(project.book)
    parts = {
        "verdicts": verdicts(project, rows),
        "held": held(rows),
        "different": listed(rows, claims.DIFFERENT),
        "undecided": listed(rows, claims.UNDECIDED),
        "pending": pending(rows),
        "costs": costs(project),
        "versions": versions(project),
        "licences": licences(project),
        "mutation": mutants(project),
        "faults": faults(project),
        "variants": circumstances(project),
        "coverage": checked(project, "coverage"),
        "targets": checked(project, "targets"),
        "api": api.lines(project.root),
        "citation": citation(project),
        "changelog": changelog(project),
    }
    folder = project.book / FOLDER
    folder.mkdir(exist_ok=True)
    for name, lines in parts.items():
        write_text(folder / f"{name}.md", "\n".join(lines) + "\n")
    experiments.write(project)
    figure_data.write(project)


def table(head, rows):
    """Return the lines of a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(str(cell) for cell in line)} |" for line in lines]


def link(project, name):
    """Return a link to a chapter, under its title."""
    return f"[{title(notebooks.read(project.path(name)))}]({name}.ipynb)"


# --- the ledger ----------------------------------------------------------------------------------


def verdicts(project, rows):
    """Return the line that a rerun is compared with, and the verdicts of each chapter."""
    by_chapter = collections.defaultdict(list)
    for row in rows:
        by_chapter[row.claim.chapter].append(row)
    names = [name for name in project.chapters() if name in by_chapter]
    cells = [[link(project, name), *_counts(by_chapter[name])] for name in names]
    others = [row for row in rows if row.claim.chapter not in names]
    if others:
        cells.append(["no chapter", *_counts(others)])
    cells.append(["**all**", *_counts(rows)])
    return [
        f"> **{scorecard.summary_line(rows)}**",
        "",
        *table(["chapter", *claims.VERDICTS], cells),
    ]


def _counts(rows):
    return list(scorecard.verdict_totals(rows).values())


def held(rows):
    """Return how many claims held, in total and by kind."""
    kinds = [kind for kind in claims.KINDS if any(row.claim.kind == kind for row in rows)]
    cells = [
        [kind, *_counts([row for row in rows if row.claim.kind == kind]), _number(rows, kind)]
        for kind in kinds
    ]
    return table(["kind of claim", *claims.VERDICTS, "all"], cells)


def _number(rows, kind):
    return sum(row.claim.kind == kind for row in rows)


def listed(rows, verdict):
    """Return the claims with a verdict, each with the criteria behind it."""
    lines = [line for row in rows if row.verdict == verdict for line in _criteria(row, verdict)]
    return lines or [f"No claim that was measured came out {verdict}."]


def _criteria(row, verdict):
    """Yield one claim as a list item, and below it the criteria that gave its verdict."""
    page, anchor = row.link.split("#")
    yield f'- <a href="{page}#{anchor}">{row.claim.id}</a>: {row.claim.statement}'
    for criterion in row.claim.criteria:
        if row.record.outcome(criterion) == verdict:
            estimate = row.record.estimates[criterion.name]
            asked = f"where {criterion.requirement()} was asked"
            lacks = f"; {criterion.shortfall(estimate)}" if verdict == claims.UNDECIDED else ""
            yield f"  - {criterion.name}: **{estimate}**, {asked}{lacks}"


def pending(rows):
    """Return the claims that no chapter has measured, with the plan."""
    found = [row for row in rows if row.verdict == claims.NOT_TESTED]
    lines = [f"- {row.claim.id}: {row.claim.statement} Plan: {row.note}" for row in found]
    return lines or ["None: every claim of the ledger has been measured."]


# --- the chapters --------------------------------------------------------------------------------


def costs(project):
    """Return time, memory, machine and state of every chapter, and the sums."""
    found = {name: notebooks.read(project.path(name)) for name in project.chapters()}
    own = {name: notebook.metadata.get("tfp_gaps", {}) for name, notebook in found.items()}
    cells = [_cost_row(project, name, found[name], own[name]) for name in found]
    spent = [entry["cost"] for entry in own.values() if "cost" in entry]
    seconds = sum(cost["seconds"] for cost in spent)
    cpu = sum(cost["cpu_seconds"] for cost in spent)
    peak = max(cost["peak_gigabytes"] for cost in spent)
    cells.append(["**all, one after the other**", f"{seconds:.0f}", f"{cpu:.0f}", peak, "", "", ""])
    head = ["chapter", "time, s", "CPU time, s", "peak memory, GB", "cores", "machine", "state"]
    return [
        f"Allowed: {MAXIMUM_SECONDS} s and {MAXIMUM_GIGABYTES} GB a chapter.",
        "",
        *table(head, cells),
    ]


def _cost_row(project, name, notebook, own):
    reasons = staleness.reasons(project, name, notebook)
    state = "fresh" if not reasons else "stale: " + "; ".join(reasons[:2])
    cost = own.get("cost")
    if cost is None:
        return [link(project, name), "", "", "", "", "", state]
    return [
        link(project, name),
        f"{cost['seconds']:.0f}",
        f"{cost['cpu_seconds']:.0f}",
        f"{cost['peak_gigabytes']:.2f}",
        cost["cores"],
        _machine(own.get("machine")),
        state,
    ]


def _machine(machine):
    """Say on which machine a chapter ran; chapters of before it was stored do not know."""
    if machine is None:
        return "not recorded"
    accelerator = ", ".join(machine["gpus"]) or "no GPU"
    return f"{machine['processor']}, {machine['memory_gigabytes']} GB, {accelerator}"


# --- the packages --------------------------------------------------------------------------------


def versions(project):
    """Return the pinned versions of the packages that matter, and the digest of the whole lock."""
    pinned = dict(pin.split("==") for pin in staleness.pins(project.lock))
    python = {
        notebooks.read(project.path(name)).metadata.get("language_info", {}).get("version", "?")
        for name in project.chapters()
    }
    cells = [["Python", " and ".join(sorted(python))]]
    cells += [[name, pinned[name]] for name in PACKAGES if name in pinned]
    digest = staleness.digest(*staleness.pins(project.lock))
    cells.append([f"all {len(pinned)} packages of requirements.lock, digest", f"`{digest}`"])
    return table(["package", "version"], cells)


def licences(project):
    """Return how often each licence occurs among the locked packages, and where."""
    by_licence = collections.defaultdict(list)
    for pin in staleness.pins(project.lock):
        name = pin.split("==")[0]
        by_licence[licence_of(name)].append(name)
    ordered = sorted(by_licence.items(), key=lambda item: (-len(item[1]), item[0]))
    return table(["licence", "packages", "which"], [[k, len(v), ", ".join(v)] for k, v in ordered])


def licence_of(name):
    """The licence that an installed package states, on one line."""
    try:
        found = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed here"
    classifiers = [
        entry.rpartition(" :: ")[2]
        for entry in found.get_all("Classifier") or []
        if entry.startswith("License :: OSI Approved :: ")
    ]
    stated = found.get("License-Expression") or " and ".join(classifiers)
    short = (found.get("License") or "").strip().splitlines()
    return stated or (short[0][:40] if short else "not stated")


# --- how to cite ---------------------------------------------------------------------------------


def citation(project):
    """Return the BibTeX entries of the book and of its sources, as one block.

    The book's comes from CITATION.cff, with the address of this checkout where it has one.
    """
    own = yaml.safe_load((project.root / "CITATION.cff").read_text(encoding="utf-8"))
    fields = {
        "author": "{" + own["authors"][0]["name"] + "}",
        "title": own["title"],
        "year": own["date-released"][:4],
        "version": own["version"],
    }
    if (where := address.repository(project.root)) is not None:
        fields["url"] = where
    lines = ["@misc{tale-of-gaps,", *(f"  {key} = {{{v}}}," for key, v in fields.items()), "}"]
    entries = (project.book / "references.bib").read_text(encoding="utf-8")
    for key in SOURCES:
        found = re.search(rf"^@\w+{{{key},\n.*?^}}$", entries, re.DOTALL | re.MULTILINE)
        if found is None:
            raise notebooks.ChapterError(f"references.bib must have an entry {key}, but has none.")
        lines += ["", *found[0].splitlines()]
    return ["```bibtex", *(part for line in lines for part in _narrow(line)), "```"]


def _narrow(line):
    """The line in pieces that fit a page without scrolling; BibTeX reads a break as a space."""
    pieces = textwrap.wrap(
        line, 72, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
    return pieces or [line]


def changelog(project):
    """Return the changelog without its title; files of the checkout are named, not linked."""
    text = (project.root / "CHANGELOG.md").read_text(encoding="utf-8")
    return re.sub(r"\[[^]]*\]\((?!https?:)([^)]+)\)", r"`\1`", text).splitlines()[1:]


# --- what was broken on purpose ------------------------------------------------------------------


def mutants(project):
    """Return how many mutants the tests caught, by group, and the survivors with their reasons."""
    stored = _stored(project, "mutation.json")
    if stored is None:
        return ["Not run yet: `python tools/mutation.py`."]
    cells, left = [], []
    for group, found in stored.items():
        share, error = mutation.score(found)
        whys = [
            mutation.reason_of(survivor, project.root / "tools" / "mutation.yml")
            for survivor in found["survivors"]
        ]
        cells.append(
            [
                group,
                f"{found['tried']} of {found['mutants']}",
                f"{100 * share:.1f} ± {100 * error:.1f}",
                f"{sum(map(bool, whys))} of {len(whys)}",
                f"`{found['commit']}`",
            ]
        )
        left += zip(found["survivors"], whys, strict=True)
    header = ["modules", "mutants tried", "caught, %", "survivors that do no harm", "commit"]
    lines = [*table(header, cells), "", "```{dropdown} Every survivor, and why"]
    for survivor, why in left:
        change = f"`{_one_line(survivor['before'])}` to `{_one_line(survivor['after'])}`"
        place = f"{survivor['path']}, line {survivor['line']}"
        lines.append(f"- {place}, {change}: {why or 'a gap in the tests'}")
    return [*lines, "```"]


def _one_line(code):
    short = " ".join(code.split())
    return short if len(short) < 60 else short[:57] + "..."


def faults(project):
    """Return what was done to runs and files, and what came of it."""
    stored = _stored(project, "faults.json")
    if stored is None:
        return ["Not run yet: `python tools/faults.py`."]
    cells = [
        [row["fault"], row["outcome"].replace("|", "/"), "yes" if row["holds"] else "**no**"]
        for row in stored["rows"]
    ]
    head = ["what was done", "what came of it", "nothing lost, nothing wrong accepted"]
    commits = ", ".join(f"`{commit}`" for commit in sorted({r["commit"] for r in stored["rows"]}))
    return [*table(head, cells), "", f"Commit {commits}, {stored['seconds']} s."]


# --- what was executed under other circumstances -------------------------------------------------


def circumstances(project):
    """Return what differed from the stored chapters, for each chapter and variant."""
    stored = _stored(project, "variants.json")
    if stored is None:
        return ["Not run yet: `python tools/variants.py`."]
    lines = table(*variants.table(stored))
    commits = ", ".join(f"`{commit}`" for commit in sorted({row["commit"] for row in stored}))
    machines = ", ".join(sorted({_machine(row["machine"]) for row in stored}))
    return [*lines, "", f"Commit {commits}, {machines}."]


def checked(project, name):
    """Return the table that a command of benchmarks/ stored in the book, and where it is from."""
    path = project.book / f"{name}.json"
    if not path.is_file():
        return [f"Not run yet: `python -m benchmarks.{name} --json book/{name}.json`."]
    stored = json.loads(path.read_text(encoding="utf-8"))
    origin = stored["provenance"]
    versions = ", ".join(f"{key} {value}" for key, value in sorted(origin["versions"].items()))
    return [
        *table(stored["table"]["header"], stored["table"]["rows"]),
        "",
        f"`{origin['command']}`, commit `{origin['commit']}`, {origin['date']}, "
        f"{origin['seconds'] / 60:.0f} min on {origin['device']}; {versions}.",
    ]


def _stored(project, name):
    path = project.root / "tools" / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
