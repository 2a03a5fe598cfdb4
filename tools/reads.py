"""What an execution reads of the stored results: recorded in the kernel, kept with the chapter.

The chapter's metadata hold it under `tfp_gaps.reads`: the patterns that were globbed, and the files
that were opened and match none of them. A file that such a pattern finds later counts as well.
"""

import json
import pathlib
import shutil

from notebooks import ChapterError
from tfp_gaps.book import manifest

FOLDER = "results"
STARTUP = pathlib.Path(__file__).with_name("kernel_startup.py")
LOG = "reads.jsonl"


def watch(project, settings):
    """Let a kernel log what it reads into its settings (IPYTHONDIR); returns its variables."""
    startup = pathlib.Path(settings, "profile_default", "startup")
    startup.mkdir(parents=True)
    shutil.copy(STARTUP, startup)
    return {
        "TFP_GAPS_READS": str(pathlib.Path(settings, LOG)),
        "TFP_GAPS_RESULTS": str(project.root.resolve() / FOLDER),
    }


def collect(project, name, settings):
    """Return the patterns and files, below the root, that the kernel has logged.

    Raises:
        ChapterError: if it has opened a result that is not what the manifest lists.
    """
    log, folder = pathlib.Path(settings, LOG), project.root.resolve() / FOLDER
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    logged = {(event == "open", path) for event, path in map(json.loads, lines)}
    patterns = {path for is_file, path in logged if not is_file}
    files = {path for is_file, path in logged if is_file and pathlib.Path(path).is_file()}
    files.discard(str(folder / manifest.NAME))
    try:
        problems = manifest.problems(folder, files) if files else []
    except manifest.ManifestError as error:
        problems = [str(error)]
    if problems:
        raise ChapterError(f"{name} reads a result that it cannot rest on: {problems[0]}")
    found = {
        str(path)
        for pattern in patterns
        for path in folder.glob(pathlib.Path(pattern).relative_to(folder).as_posix())
    }
    root = project.root.resolve()
    return sorted(pathlib.Path(p).relative_to(root).as_posix() for p in patterns | (files - found))
