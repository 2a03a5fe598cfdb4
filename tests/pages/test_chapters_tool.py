"""tools/chapters.py on tiny projects: what goes stale, what a run leaves, what is refused."""

import base64
import io
import json
import time

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

import chapters
import execution
import finishing
import outputs
import staleness
from execution import Cost
from notebooks import CLAIM_MIME, ChapterError, Project
from tfp_gaps.book import manifest

ALT = "A line that rises from 0 to 2 while x goes from 0 to 1."
# A white picture of one pixel.
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4//8/AAX+Av4N70a4AAAAAElFTkSuQmCC"
)
TITLE = "# A tiny chapter\n\n<!-- cost -->\n<!-- /cost -->\n\nText."
CHECKED = '# NBVAL_CHECK_OUTPUT\nprint("T01 reproduced")'


@pytest.fixture
def project(tmp_path):
    """A checkout with a package of five modules, a lock and a README."""
    files = {
        "tfp_gaps/__init__.py": '_MODULES = {"Bit": "exact.bit"}\n',
        "tfp_gaps/estimate.py": "VALUE = 1\n",
        "tfp_gaps/exact/__init__.py": "",
        "tfp_gaps/exact/bit.py": "from tfp_gaps.estimate import VALUE\nfrom . import helper\n",
        "tfp_gaps/exact/helper.py": "",
        "tfp_gaps/unrelated.py": "",
        "tfp_gaps/book/ledger/claims.py": "",
        "tfp_gaps/book/literature.py": "",
        "tfp_gaps/book/figures/page.py": "",
        "tfp_gaps/book/figures/scripts/widgets.js": "",
        "tfp_gaps/book/figures/widgets/drift.json": "",
        "requirements.lock": "# made by make lock\nnumpy==2.0.2 \\\n    --hash=sha256:aa\n",
        "README.md": "# Read me\n\n<!-- chapters -->\n<!-- /chapters -->\n",
        "_toc.yml": "root: second\nparts:\n- chapters:\n  - file: first\n  - file: absent\n",
        "book/claims.yml": "- {id: C01, chapter: first}\n- {id: C02, chapter: second}\n",
        "book/literature.yml": "- {name: SRNN}\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return Project(tmp_path)


def save(project, name, *sources, title=TITLE, **metadata):
    cells = [new_markdown_cell(title), *(new_code_cell(source) for source in sources)]
    notebook = new_notebook(cells=cells, metadata={"tfp_gaps": metadata} if metadata else {})
    nbformat.write(notebook, project.path(name))
    return notebook


def load(project, name):
    return nbformat.read(project.path(name), as_version=4)


def stamp(project, name):
    """Mark a chapter as executed on what it now rests on, without a kernel."""
    notebook = load(project, name)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, cell in enumerate(cells, start=1):
        cell.execution_count = count
    own = notebook.metadata.setdefault("tfp_gaps", {})
    own["inputs"] = staleness.inputs(project, name, notebook)
    own["outputs"] = outputs.digests(notebook)
    nbformat.write(notebook, project.path(name))


def reasons(project, name):
    return staleness.reasons(project, name, load(project, name))


def command(project, *arguments):
    return chapters.main(list(arguments), root=project.root)


# --- staleness -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("tfp_gaps/exact/bit.py", "import math\n", ["tfp_gaps/exact/bit.py changed"]),
        ("tfp_gaps/estimate.py", "VALUE = 2\n", ["tfp_gaps/estimate.py changed"]),
        ("tfp_gaps/exact/helper.py", "X = 1\n", ["tfp_gaps/exact/helper.py changed"]),
        ("tfp_gaps/exact/__init__.py", "X = 1\n", ["tfp_gaps/exact/__init__.py changed"]),
        ("tfp_gaps/unrelated.py", "X = 1\n", []),
        ("tfp_gaps/estimate.py", '"""Why."""\nVALUE = 1  # one\n# two\n', []),
        ("tfp_gaps/estimate.py", 'VALUE = "# 1"\n', ["tfp_gaps/estimate.py changed"]),
        ("requirements.lock", "numpy==2.0.3\n", ["requirements.lock changed"]),
        ("requirements.lock", "numpy==2.0.2 \\\n    --hash=sha256:bb\n", []),
        ("book/claims.yml", "- {id: C01, chapter: first}\n", []),  # the chapter has no claims
    ],
)
def test_a_chapter_is_stale_when_what_it_imports_changes(project, path, text, expected):
    save(project, "first", "from tfp_gaps.exact import bit")
    stamp(project, "first")
    assert reasons(project, "first") == []
    (project.root / path).write_text(text)
    found = reasons(project, "first")
    assert [reason for reason in found if not reason.endswith("is gone")] == expected


@pytest.mark.parametrize(
    "source",
    [
        "import tfp_gaps.exact.bit",
        "from tfp_gaps.exact.bit import VALUE as v",
        "def late():\n    from tfp_gaps.exact import bit",
        "import importlib\nimportlib.import_module('tfp_gaps.exact.bit')",
        "%matplotlib inline\nfrom tfp_gaps.exact import bit",
        "from tfp_gaps import Bit",
        "import tfp_gaps\ntfp_gaps.Bit()",
    ],
)
def test_every_way_of_importing_is_seen(project, source):
    save(project, "first", source)
    found = staleness.inputs(project, "first", load(project, "first"))
    assert {"tfp_gaps/__init__.py", "tfp_gaps/exact/bit.py", "tfp_gaps/estimate.py"} <= set(found)
    assert "tfp_gaps/unrelated.py" not in found


def test_edited_cells_are_stale_and_edited_text_is_not(project):
    save(project, "first", "1 + 1")
    stamp(project, "first")
    notebook = load(project, "first")
    notebook.cells[0].source += " More text."
    nbformat.write(notebook, project.path("first"))
    assert reasons(project, "first") == []
    notebook.cells[1].source = "1 + 2"
    nbformat.write(notebook, project.path("first"))
    assert reasons(project, "first") == ["code cells changed"]
    notebook.cells[1].execution_count = 7
    nbformat.write(notebook, project.path("first"))
    assert reasons(project, "first") == ["not executed from top to bottom"]


def test_only_the_chapters_own_claims_count(project):
    save(project, "first", "from tfp_gaps.book.ledger import claims")
    save(project, "overview", "1", depends_on=["book/claims.yml"])
    for name in ("first", "overview"):
        stamp(project, name)
    claims = project.book / "claims.yml"
    claims.write_text(claims.read_text().replace("id: C02", "id: C03"))
    assert reasons(project, "first") == []
    # A page that shows the claims of all chapters says so.
    assert reasons(project, "overview") == ["book/claims.yml changed"]
    claims.write_text(claims.read_text().replace("id: C01", "id: C04"))
    assert reasons(project, "first") == ["book/claims.yml, entries of first changed"]


def test_the_list_of_models_counts_where_its_module_is_imported(project):
    save(project, "first", "from tfp_gaps.exact import bit")
    save(project, "second", "from tfp_gaps.book import literature")
    for name in ("first", "second"):
        stamp(project, name)
    (project.book / "literature.yml").write_text("- {name: VRNN}\n")
    assert reasons(project, "first") == []
    assert reasons(project, "second") == ["book/literature.yml changed"]


def test_scripts_and_data_of_the_widgets_count_where_they_are_shown(project):
    save(project, "first", "from tfp_gaps.exact import bit")
    save(project, "second", "from tfp_gaps.book.figures import page")
    for name in ("first", "second"):
        stamp(project, name)
    folder = project.root / "tfp_gaps/book/figures"
    (folder / "scripts/widgets.js").write_text("const root = 1;")
    (folder / "widgets/drift.json").write_text("{}")
    assert reasons(project, "first") == []
    assert reasons(project, "second") == [
        "tfp_gaps/book/figures/scripts/widgets.js changed",
        "tfp_gaps/book/figures/widgets/drift.json changed",
    ]


def test_declared_files_and_other_chapters_count(project):
    (project.root / "results").mkdir()
    result = project.root / "results/a.json"
    result.write_text("1")
    save(project, "first", "1")
    save(project, "overview", "1", depends_on=["results/*.json", "book/*.ipynb"])
    for name in ("first", "overview"):
        stamp(project, name)
    notebook = load(project, "first")
    notebook.cells[0].source = "other words"
    nbformat.write(notebook, project.path("first"))
    assert reasons(project, "overview") == []
    notebook.cells[1].outputs = [new_output("display_data", data={CLAIM_MIME: {"id": "C01"}})]
    nbformat.write(notebook, project.path("first"))
    assert reasons(project, "overview") == ["book/first.ipynb, claim records changed"]
    assert "book/overview.ipynb, claim records" not in staleness.inputs(
        project, "overview", load(project, "overview")
    )
    result.write_text("2")
    (project.root / "results/b.json").write_text("3")
    assert "results/a.json changed" in reasons(project, "overview")
    assert "results/b.json is new" in reasons(project, "overview")


def test_a_declared_file_that_is_missing_is_an_error(project):
    save(project, "first", "1", depends_on=["results/none.json"])
    with pytest.raises(ChapterError, match=r"depends on results/none.json, which does not exist"):
        staleness.inputs(project, "first", load(project, "first"))


def test_chapters_come_in_reading_order_and_readers_of_records_last(project, capsys):
    save(project, "first", "import tfp_gaps.estimate")
    save(project, "second", "1", depends_on=["book/*.ipynb"])
    save(project, "another", "1")
    assert project.chapters() == ["second", "first", "another"]
    assert command(project, "stale") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["first", "another", "second"]
    assert command(project, "stale", "--using", "tfp_gaps/estimate.py") == 0
    assert capsys.readouterr().out == "first: never executed by this tool\n"


# --- execution -----------------------------------------------------------------------------------


def test_a_run_leaves_a_finished_chapter(project, capsys):
    figure = (
        "import base64\n"
        "from IPython.display import display\n"
        'words = {"name": "fig-a", "caption": "Two.", "alt": "' + ALT + '", "plotted": {}}\n'
        f'png = {{"image/png": base64.b64decode("{PIXEL}"), "text/plain": "a"}}\n'
        'display(png, raw=True, metadata={"tfp_gaps": words, "image/png": {"width": 600}})'
    )
    where = "import os, tfp_gaps\nprint(os.path.basename(os.getcwd()), tfp_gaps.__file__)"
    save(project, "first", "big = bytearray(200_000_000)", where, figure, CHECKED, "")
    notebook = load(project, "first")
    notebook.metadata["jupytext"] = {"text_representation": {"extension": ".py"}}
    nbformat.write(notebook, project.path("first"))
    assert command(project, "run", "first") == 0
    text = project.path("first").read_text()
    notebook = load(project, "first")
    cells = notebook.cells
    assert [cell.execution_count for cell in cells[1:]] == [1, 2, 3, 4, None]
    assert cells[2].outputs[0].text == f"book {project.root}/tfp_gaps/__init__.py\n"
    assert cells[3].metadata.mystnb == {
        "figure": {"name": "fig-a", "caption": "Two."},
        "image": {"alt": ALT},
    }
    assert cells[3].outputs[0].metadata == {
        "image/png": {"width": 600},
        "tfp_gaps": {"plotted": {}},
    }
    own = notebook.metadata.tfp_gaps
    assert 0.2 < own.cost.peak_gigabytes < 1
    assert own.cost.cpu_seconds > 0
    assert cells[0].source.startswith("# A tiny chapter\n\n<!-- cost -->\n\n**Cost:** ")
    assert set(notebook.metadata) == {"kernelspec", "language_info", "tfp_gaps"}
    assert notebook.metadata.language_info.version.count(".") == 1
    assert reasons(project, "first") == []
    assert command(project, "check") == 0
    assert "| [A tiny chapter](book/first.ipynb) |  |" in project.readme.read_text()
    assert not list(project.book.glob(".*"))
    # Nothing but the cost may change when the same chapter runs again.
    assert command(project, "rerun") == 0
    again = load(project, "first")
    again.cells[0].source, again.metadata.tfp_gaps.cost = cells[0].source, own.cost
    assert json.loads(nbformat.writes(again)) == json.loads(text)
    assert command(project, "refresh") == 0
    assert capsys.readouterr().err.count("first: running") == 2  # refresh found nothing to do


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["1", "x = 3\n1 / 0"], "ZeroDivisionError"),
        (
            ["1", "import os\nos._exit(1)"],
            "the kernel died, most likely for want of memory (exit status 1). Give it more memory",
        ),
        (
            ["import os", "os.write(2, b'Check failed: no room\\n  @ 0x7f\\n'); os.abort()"],
            "(signal SIGABRT, native code gave up, often for want of memory; its last words were "
            "«Check failed: no room»)",
        ),
    ],
)
def test_a_failing_cell_leaves_the_chapter_as_it_was(project, capsys, sources, message):
    save(project, "first", *sources)
    before = project.path("first").read_bytes()
    assert command(project, "run", "first") == 1
    assert project.path("first").read_bytes() == before
    assert not list(project.book.glob(".*"))
    err = capsys.readouterr().err
    assert message in err
    assert f"first, cell {len(sources) + 1}" in err
    assert sources[-1] in err
    assert "\x1b" not in err


def test_a_cell_that_hangs_or_a_kernel_that_dies_ends_the_wait(project):
    for source, limit, message in (
        ("while True: 1", 3, "first, cell 2 took more than 3 s"),
        ("import os; os.kill(os.getpid(), 9)", 600, "the kernel died.*SIGKILL"),
    ):
        notebook, started = save(project, "first", source), time.monotonic()
        with pytest.raises(ChapterError, match=message):
            execution.execute(project, "first", notebook, timeout=limit)
        assert time.monotonic() - started < 15 + 10  # 15 s from the death, 10 s for the start


def test_what_native_code_prints_is_kept_for_the_check(project, capsys):
    save(project, "first", "import os\nsize = os.write(2, b'W0 no GPU\\n')", CHECKED)
    assert command(project, "run", "first") == 0
    assert command(project, "check") == 1
    assert "prints to stderr: 'W0 no GPU" in capsys.readouterr().out


def test_refresh_runs_readers_of_records_after_those_they_read(project, capsys):
    record = f'display({{"{CLAIM_MIME}": {{"id": "C01"}}, "text/plain": ""}}, raw=True)'
    save(project, "first", record)
    save(project, "second", "1", depends_on=["book/first.ipynb"])
    assert command(project, "refresh") == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "first",
        "second",
    ]
    assert command(project, "stale") == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("source", "title", "message"),
    [
        ("1", "# No markers", "must hold <!-- cost -->"),
        (
            "import base64\n"
            "from IPython.display import display\n"
            "w = {'name': 'fig-a', 'caption': 'c', 'alt': '', 'plotted': {}}\n"
            "for _ in 'ab':\n    display({'text/plain': ''}, raw=True, metadata={'tfp_gaps': w})",
            TITLE,
            "one figure per cell",
        ),
    ],
)
def test_a_chapter_that_cannot_be_finished_stays_as_it_was(project, capsys, source, title, message):
    save(project, "first", source, title=title)
    before = project.path("first").read_bytes()
    assert command(project, "run", "first") == 1
    assert message in capsys.readouterr().err
    assert project.path("first").read_bytes() == before


# --- stored results ------------------------------------------------------------------------------

SEED0 = "results/toy/book/k0-seed0.json"


@pytest.fixture
def stored(project):
    """Two stored results that the manifest lists, of which chapters read the first."""
    for name in ("toy/book/k0-seed0", "toy/book/kfull-seed0"):
        path = project.root / f"results/{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"value": 1}')
        list_in_manifest(path, project)
    return project.root / SEED0


def list_in_manifest(path, project):
    manifest.record(project.root / "results", path, {"command": "tfp-gaps run toy", "commit": "0"})


IMPORTS = "import glob\nfrom pathlib import Path\nimport numpy as np\n"
READERS = {
    "Path.glob": "[p] = Path('../results/toy/book').glob('k0-*.json')\np.read_text()",
    "Path.rglob": "[p] = Path('../results/toy').rglob('k0-*.json')\np.read_bytes()",
    "glob.glob": "[p] = glob.glob('../results/toy/book/k0-*')\nopen(p).read()",
    "open": "open('../results/toy/book/k0-seed0.json').read()",
    "np.loadtxt": "np.loadtxt(Path.cwd().parent / 'results/toy/book/k0-seed0.json', str)",
}


@pytest.mark.parametrize("how", READERS)
def test_what_is_read_of_the_results_is_a_dependency_however_it_is_read(project, stored, how):
    """Nobody declares it; exactly the chapter that reads a file goes stale with it."""
    save(
        project,
        "first",
        f"import glob\nimport numpy as np\nfrom pathlib import Path\n{READERS[how]}",
    )
    save(project, "second", "1")
    assert command(project, "run", "first", "second") == 0
    inputs = load(project, "first").metadata.tfp_gaps.inputs
    assert [key for key in inputs if key.startswith("results/")] == [SEED0]
    assert reasons(project, "first") == reasons(project, "second") == []
    (project.root / "results/toy/book/kfull-seed0.json").write_text("2")
    assert reasons(project, "first") == []
    stored.write_text('{"value": 1.3}')
    assert reasons(project, "first") == [f"{SEED0} changed"]
    assert reasons(project, "second") == []
    stored.unlink()
    assert reasons(project, "first") == [f"{SEED0} is gone"]


@pytest.mark.parametrize("how", ["Path.glob", "Path.rglob", "glob.glob"])
def test_a_new_file_that_the_pattern_finds_makes_the_chapter_stale(project, stored, how):
    save(project, "first", f"{IMPORTS}{READERS[how]}")
    assert command(project, "run", "first") == 0
    new = stored.with_name("k0-seed1.json")
    new.write_text("3")
    assert reasons(project, "first") == [f"{project.relative(new)} is new"]
    new.rename(stored.with_name("k1-seed1.json"))
    assert reasons(project, "first") == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_text("2"), "one of the two was edited"),
        (lambda path: path.rename(path.with_name("k0-seed9.json")), "k0-seed9.json is not listed"),
        (lambda path: path.parents[2].joinpath("MANIFEST.json").unlink(), "could not be read"),
    ],
)
def test_a_chapter_cannot_rest_on_a_result_outside_the_manifest(
    project, stored, capsys, damage, message
):
    save(project, "first", f"{IMPORTS}{READERS['Path.glob']}")
    before = project.path("first").read_bytes()
    damage(stored)
    assert command(project, "run", "first") == 1
    assert message in capsys.readouterr().err
    assert project.path("first").read_bytes() == before


# --- bad use -------------------------------------------------------------------------------------


def test_an_unknown_chapter_exits_2_with_the_known_ones(project, capsys):
    save(project, "first", "1")
    assert command(project, "run", "frist") == 2
    assert capsys.readouterr().err == "Unknown chapter frist. Known: first.\n"


@pytest.mark.parametrize("arguments", [[], ["run"], ["polish"]])
def test_a_wrong_command_exits_2(project, arguments, capsys):
    with pytest.raises(SystemExit) as exit_info:
        command(project, *arguments)
    assert exit_info.value.code == 2


@pytest.mark.parametrize("content", ["", "[]", "{}", "{", "\0"])
def test_a_file_that_is_no_notebook_is_an_error(project, capsys, content):
    project.path("first").write_text(content)
    assert command(project, "stale") == 1
    assert "first.ipynb should be a Jupyter notebook" in capsys.readouterr().err


def test_code_that_does_not_parse_is_an_error(project, capsys):
    save(project, "first", "from tfp_gaps import estimate")
    stamp(project, "first")
    (project.root / "tfp_gaps/estimate.py").write_text("VALUE = ")
    assert command(project, "stale") == 1
    assert "estimate.py is not valid Python" in capsys.readouterr().err


# --- check ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cell, _: cell.update(execution_count=4), "not executed from top to bottom"),
        (lambda cell, _: cell.update(source="print(2)"), "no cell starts with '# NBVAL"),
        (
            lambda cell, _: cell.outputs.append(new_output("error", ename="E", evalue="")),
            "cell 2: holds an error: E",
        ),
        (
            lambda cell, _: cell.outputs.append(new_output("stream", name="stderr", text="W!")),
            "cell 2: prints to stderr: 'W!'",
        ),
        (
            lambda cell, _: cell.outputs.append(new_output("display_data", {"image/png": "aa"})),
            "cell 2: figure with an alt text of 0 characters",
        ),
        (
            lambda cell, _: cell.outputs.append(
                new_output("display_data", {"application/vnd.plotly.v1+json": {}})
            ),
            "cell 2: holds an output of the kind application/vnd.plotly.v1+json",
        ),
        (lambda _, first: first.update(source="# Title"), "no <!-- cost --> markers"),
        (lambda _, first: first.update(source=TITLE + "\n\nIt is 1.25 nats."), "1.25 are typed"),
        (lambda _, first: first.update(source=TITLE + "x" * 2_000_000), "use smaller figures"),
    ],
)
def test_check_names_what_is_wrong(project, capsys, change, message):
    save(project, "first", CHECKED)
    stamp(project, "first")
    assert command(project, "check") == 0
    notebook = load(project, "first")
    change(notebook.cells[1], notebook.cells[0])
    nbformat.write(notebook, project.path("first"))
    assert command(project, "check") == 1
    assert message in capsys.readouterr().out


# --- outputs that are not those of the execution --------------------------------------------------


def glued(name, value):
    data = {"application/papermill.record/text/plain": repr(value)}
    return new_output("display_data", data, metadata={"scrapbook": {"name": name}})


@pytest.fixture
def shown(project):
    """A chapter that is fit to be committed and shows one output of every kind."""
    save(project, "first", "gap, time", "table, record, figure", CHECKED)
    notebook = load(project, "first")
    _, numbers, others, verdict = notebook.cells
    numbers.outputs = [glued("first-gap", "1.23 ± 0.10"), glued("first-time", "12,000")]
    record = {"id": "C01", "estimates": {"gap": {"value": 1.234}}, "verdict": "reproduced"}
    others.outputs = [
        new_output("execute_result", {"text/html": "<td>4.56</td>", "text/plain": "4.56"}),
        new_output("display_data", {CLAIM_MIME: record, "text/plain": "C01 reproduced"}),
        new_output("display_data", {"image/png": PIXEL, "text/plain": ALT}),
    ]
    others.metadata.mystnb = {
        "figure": {"name": "fig-a", "caption": "Two."},
        "image": {"alt": ALT},
    }
    verdict.outputs = [new_output("stream", name="stdout", text="C01 reproduced\n")]
    nbformat.write(notebook, project.path("first"))
    stamp(project, "first")
    return project


def change_data(cell, output, kind, value):
    notebook_data = cell.outputs[output].data
    assert notebook_data[kind] != value
    notebook_data[kind] = value


def strip(*cells):
    for cell in cells:
        cell.outputs = []


PLANTED = {
    "a cell of a table": (
        lambda c: change_data(c[2], 0, "text/html", "<td>4.57</td>"),
        "cell 3: output 1 (text/html) was altered",
    ),
    "a glued number": (
        lambda c: change_data(c[1], 0, outputs.GLUED + "text/plain", "'1.24 ± 0.10'"),
        "cell 2: first-gap was altered",
    ),
    "a glued name": (
        lambda c: c[1].outputs[0].metadata.scrapbook.update(name="first-gain"),
        "cell 2: first-gain was altered",
    ),
    "a record": (
        lambda c: c[2].outputs[1].data[CLAIM_MIME]["estimates"]["gap"].update(value=1.2341),
        "cell 3: C01 was altered",
    ),
    "a verdict": (
        lambda c: c[3].outputs[0].update(text="C01 different\n"),
        "cell 4: output 1 (stdout) was altered",
    ),
    "a picture": (
        lambda c: change_data(c[2], 2, "image/png", PIXEL.replace("Av4N", "Av4M")),
        "cell 3: output 3 (image/png) was altered",
    ),
    "an alt text": (
        lambda c: c[2].metadata.mystnb.image.update(alt=ALT.replace("2", "3")),
        "cell 3: name, caption or alt text of its figure was altered",
    ),
    "a caption": (
        lambda c: c[2].metadata.mystnb.figure.update(caption="Three."),
        "cell 3: name, caption or alt text of its figure was altered",
    ),
    "one output removed": (
        lambda c: c[2].outputs.pop(1),
        "cell 3: it shows 2 outputs, and its execution gave 3",
    ),
    "one cell stripped": (lambda c: strip(c[1]), "cell 2: its outputs are stripped, 2 of them"),
    "all but one stripped": (lambda c: strip(c[1], c[2]), "cell 3: its outputs are stripped, 3"),
    "all stripped": (lambda c: strip(*c[1:]), "all outputs are stripped"),
    "other code": (lambda c: c[1].update(source="gap"), "cell 2: its outputs belong to other code"),
    "outputs exchanged": (
        lambda c: c[1].outputs.reverse(),
        "cell 2: first-time was altered",
    ),
    "a cell removed": (lambda c: c.pop(1), "of its execution is gone"),
    "a cell added": (lambda c: c.append(new_code_cell("")), "its execution had no such cell"),
}


@pytest.mark.parametrize(("change", "message"), PLANTED.values(), ids=PLANTED)
def test_check_finds_what_was_altered_after_the_execution(shown, capsys, change, message):
    assert command(shown, "check") == 0
    notebook = load(shown, "first")
    change(notebook.cells)
    nbformat.write(notebook, shown.path("first"))
    assert command(shown, "check") == 1
    found = [line for line in capsys.readouterr().out.splitlines() if message in line]
    assert len(found) == 1
    assert found[0].startswith("first: ")
    assert found[0].endswith(". Execute the chapter again: make rerun CHAPTERS=first")
    assert "first" in chapters.stale(shown)


def test_check_finds_a_cost_that_was_typed(shown, capsys):
    notebook = load(shown, "first")
    notebook.metadata.tfp_gaps.cost = vars(Cost(41.3, 60.0, 0.912, 2))
    notebook.cells[0].source = TITLE.replace(
        "<!-- /", "\n**Cost:** 41 s and 0.9 GB on 2 CPU cores\n<!-- /"
    )
    nbformat.write(notebook, shown.path("first"))
    assert command(shown, "check") == 0
    notebook.cells[0].source = notebook.cells[0].source.replace("41 s", "40 s")
    nbformat.write(notebook, shown.path("first"))
    assert command(shown, "check") == 1
    assert "the cost in its first cell is not the measured one" in capsys.readouterr().out


@pytest.mark.parametrize("digests", [None, {}, {"a": 1}, []])
def test_a_chapter_without_digests_is_not_fit(shown, capsys, digests):
    notebook = load(shown, "first")
    notebook.metadata.tfp_gaps.outputs = digests
    nbformat.write(notebook, shown.path("first"))
    assert command(shown, "check") == 1
    assert "make rerun CHAPTERS=first" in capsys.readouterr().out


def test_ids_of_cells_depend_on_their_content_but_not_on_the_cost():
    def ids(*sources):
        notebook = new_notebook(cells=[new_markdown_cell(source) for source in sources])
        finishing.tidy(notebook)
        return [cell.id for cell in notebook.cells]

    fast, slow = TITLE.replace("<!-- /", "1 s\n<!-- /"), TITLE.replace("<!-- /", "9 s\n<!-- /")
    assert ids(fast, "a", "b") == ids(slow, "a", "b")
    assert ids("a", "b")[1] == ids("c", "b")[1]
    assert len(set(ids("a", "a", "b"))) == 3


def test_cost_in_words():
    assert str(Cost(41.3, 60.0, 0.912, 2)) == "41 s and 0.9 GB on 2 CPU cores"
    assert str(Cost(141.0, 60.0, 1.25, 1)) == "2 min 21 s and 1.2 GB on 1 CPU core"


def test_pictures_shrink_and_look_the_same():
    fig, axes = plt.subplots(figsize=(4, 3))
    for k in range(4):
        axes.fill_between(range(9), k, [k + (i % 3) for i in range(9)], alpha=0.3)
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=150)
    plt.close(fig)
    data = {"image/png": base64.b64encode(buffer.getvalue()).decode()}
    cell = new_code_cell(outputs=[new_output("display_data", dict(data))])
    finishing.shrink_pictures(cell)
    small = base64.b64decode(cell.outputs[0]["data"]["image/png"])
    assert len(small) < 0.6 * len(buffer.getvalue())
    before, after = (
        np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), float)
        for png in (buffer.getvalue(), small)
    )
    # A palette of 256 leaves large areas as they are; edges may move by a shade.
    assert after.shape == before.shape
    assert np.mean(np.abs(after - before)) < 0.5
    again = cell.outputs[0]["data"]["image/png"]
    finishing.shrink_pictures(cell)
    assert len(cell.outputs[0]["data"]["image/png"]) <= len(again)
