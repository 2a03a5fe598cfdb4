"""The hosted workflows: pinned actions, least rights, limits, and commands that exist."""

import pathlib
import re
import subprocess
import tomllib
from types import SimpleNamespace

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import device

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATHS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
# Rights that write, and the one job that may have each.
WRITERS = {
    "pages": ("pages", "deploy"),
    "id-token": ("pages", "deploy"),
    "issues": ("links", "links"),
    "contents": ("release", "archive"),
}


@pytest.fixture(params=PATHS, ids=[path.stem for path in PATHS])
def workflow(request):
    return request.param.stem, yaml.safe_load(request.param.read_text()), request.param.read_text()


def steps(content):
    return [step for job in content["jobs"].values() for step in job["steps"]]


def test_all_of_them_are_there():
    assert {path.stem for path in PATHS} == {
        "ci",
        "gpu",
        "pages",
        "links",
        "release",
        "versions",
    }


def test_actions_are_pinned_by_commit_with_their_version_beside(workflow):
    _, content, text = workflow
    used = re.findall(r"uses: (.+)", text)
    assert len(used) == len([step for step in steps(content) if "uses" in step]) > 0
    for line in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_an_action_has_one_version_everywhere():
    pins = {pin for path in PATHS for pin in re.findall(r"uses: (.+)", path.read_text())}
    assert len({pin.split("@")[0] for pin in pins}) == len(pins)


def test_rights_are_the_least(workflow):
    name, content, _ = workflow
    assert content["permissions"] == {"contents": "read"}
    for job, body in content["jobs"].items():
        for scope, right in body.get("permissions", {}).items():
            assert right == "read" or WRITERS[scope] == (name, job), (job, scope)


def test_every_job_has_a_limit_and_runs_one_at_a_time(workflow):
    _, content, _ = workflow
    assert all(0 < job["timeout-minutes"] <= 180 for job in content["jobs"].values())
    assert "group" in content["concurrency"]


def test_no_text_from_outside_reaches_a_shell(workflow):
    # Titles and branch names are written by strangers; into a script they come by `env` alone.
    _, content, text = workflow
    assert not [step for step in steps(content) if "${{" in step.get("run", "")]
    assert "pull_request_target" not in text and "secrets." not in text
    for step in steps(content):
        if "actions/checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False


def test_every_command_exists(workflow):
    _, content, _ = workflow
    scripts = "\n".join(step.get("run", "") for step in steps(content))
    assert set(re.findall(r"^make ([a-z]+)", scripts, re.MULTILINE)) <= TARGETS


def test_the_versions_tried_are_those_allowed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [tensorflow] = [
        requirement
        for requirement in map(Requirement, project["dependencies"])
        if requirement.name == "tensorflow"
    ]
    content = yaml.safe_load((ROOT / ".github/workflows/versions.yml").read_text())
    matrix = content["jobs"]["light"]["strategy"]["matrix"]
    more = matrix["include"]
    pythons = {*matrix["python"], *(pair["python"] for pair in more)}
    minors = {*matrix["tensorflow"], *(pair["tensorflow"] for pair in more)}
    everything = [f"{2 + i // 100}.{i % 100}" for i in range(200)]
    assert minors == {minor for minor in everything if f"{minor}.0" in tensorflow.specifier}
    allowed = SpecifierSet(project["requires-python"])
    assert pythons == {f"3.{minor}" for minor in range(100) if f"3.{minor}.0" in allowed}


def gpu_jobs():
    content = yaml.safe_load((ROOT / ".github/workflows/gpu.yml").read_text())
    # YAML 1.1 reads the key `on` as true.
    assert content[True]["pull_request"] == {"types": ["labeled"]} and "schedule" in content[True]
    return content["jobs"]["chapters"], content["jobs"]["acting"]


def runs(job):
    return [step["run"] for step in job["steps"] if "run" in step]


def test_the_gpu_comes_before_the_tests_and_what_it_computed_is_kept():
    job, _ = gpu_jobs()
    assert runs(job)[:3] == ["make gpu", "make unit", "make verdicts"]
    table, paper = runs(job)[3:]
    assert "variants.py --variants as-it-is" in table and "--scale paper" in paper
    assert re.findall(r"--(?:output|keep) (\S+)", table + paper) == [
        "_build/gpu/variants.json", "_build/gpu/chapters", "_build/gpu",
    ]  # fmt: skip
    assert job["steps"][-1]["with"]["path"] == "_build/gpu"
    # A chapter that differs fails the job, and is what one wants to look at.
    late = [step for step in job["steps"] if "variants.py" in step.get("run", "")]
    assert all(step["if"] == "${{ !cancelled() }}" for step in [*late, job["steps"][-1]])
    assert job["env"] == {
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "NVIDIA_TF32_OVERRIDE": "0",
        "TFP_GAPS_COMPARE": "numbers",
    }


def test_the_runner_is_named_by_a_variable_of_the_repository():
    job, acting = gpu_jobs()
    assert job["runs-on"] == "${{ vars.GPU_RUNNER || 'gpu' }}"
    assert acting["runs-on"] == "ubuntu-24.04"


def holds(condition, event, label=None, repository=None):
    """Evaluate the condition of a job, whose operators Python spells otherwise."""
    for theirs, ours in (("||", " or "), ("&&", " and "), ("github.", "")):
        condition = condition.replace(theirs, ours)
    head = SimpleNamespace(repo=SimpleNamespace(full_name=repository))
    given = SimpleNamespace(
        label=SimpleNamespace(name=label), pull_request=SimpleNamespace(head=head)
    )
    names = {"event_name": event, "event": given, "repository": "tale-of-gaps/tale-of-gaps"}
    return eval(condition, {}, names)


@pytest.mark.parametrize(
    ("event", "label", "repository", "on_gpu", "acting"),
    [
        ("schedule", None, None, True, True),
        ("workflow_dispatch", None, None, True, True),
        ("release", None, None, True, False),
        ("pull_request", "gpu", "tale-of-gaps/tale-of-gaps", True, False),
        ("pull_request", "typo", "tale-of-gaps/tale-of-gaps", False, False),
        ("pull_request", "gpu", "stranger/tale-of-gaps", False, False),
    ],
)
def test_no_fork_reaches_a_machine_of_ours(event, label, repository, on_gpu, acting):
    job, other = gpu_jobs()
    assert holds(job["if"], event, label, repository) is on_gpu
    assert holds(other["if"], event, label, repository) is acting


def test_every_other_job_runs_on_a_hosted_machine():
    for path in PATHS:
        for name, job in yaml.safe_load(path.read_text())["jobs"].items():
            hosted = job["runs-on"] == "ubuntu-24.04"
            assert hosted or (path.stem, name) == ("gpu", "chapters"), (path.stem, name)


def test_a_cpu_goes_the_ways_of_a_gpu_at_night():
    _, job = gpu_jobs()
    assert job["env"] == {"TFP_GAPS_ACT_AS_GPU": "1", "TFP_GAPS_COMPARE": "numbers"}
    unit, verdicts = runs(job)
    assert unit == "make unit"
    chapters = re.fullmatch(r'make verdicts CHAPTERS="(.+)"', verdicts)[1].split()
    assert len(chapters) == 3 and all((ROOT / f"book/{name}.ipynb").exists() for name in chapters)
    asked = subprocess.run(
        ["make", "--dry-run", "--assume-old=env", "--assume-old=data", "verdicts", "CHAPTERS=a b"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "book/a.ipynb book/b.ipynb" in asked


def test_a_release_is_built_without_caches():
    text = (ROOT / ".github/workflows/release.yml").read_text()
    [job] = yaml.safe_load(text)["jobs"].values()
    assert job["env"] == {"PIP_NO_CACHE_DIR": "1", "UV_NO_CACHE": "1"}
    options = [step.get("with", {}) for step in job["steps"]]
    assert not [given for given in options if "cache" in given] and "actions/cache" not in text
    # From version 5 on it keeps a cache of npm unless told not to.
    nodes = [step for step in job["steps"] if "setup-node" in step.get("uses", "")]
    assert [step["with"]["package-manager-cache"] for step in nodes] == [False]


@pytest.mark.parametrize(
    ("devices", "growth", "error", "found"),
    [
        ([], "true", 0.0, "sees no GPU"),
        (["GPU:0"], None, 1e-6, "TF_FORCE_GPU_ALLOW_GROWTH is not true"),
        (["GPU:0"], "true", 1e-3, "TensorFloat-32 seems to be on"),
        (["GPU:0"], "true", float("nan"), "TensorFloat-32 seems to be on"),
    ],
)
def test_an_unfit_device_is_named(devices, growth, error, found):
    environment = {} if growth is None else {"TF_FORCE_GPU_ALLOW_GROWTH": growth}
    fine = {"error_of": lambda _: error, "loop_error_of": lambda _: 1e-6}
    [fault] = device.faults(devices, environment, **fine)
    assert found in fault


def test_a_loop_that_does_not_compile_is_reported_as_that():
    def no_libdevice(device_name):
        raise device.tf.errors.InternalError(None, None, "libdevice not found at ./libdevice.10.bc")

    grows, fine = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}, lambda _: 1e-6
    [fault] = device.faults(["GPU:1"], grows, error_of=fine, loop_error_of=no_libdevice)
    assert fault.startswith(
        "GPU:1: XLA must compile a while loop with exp and tanh, but fails: lib"
    )
    assert "run `make gpu`" in fault and "\n" not in fault
    for wrong in (1e-3, float("nan")):
        [fault] = device.faults(["GPU:1"], grows, error_of=fine, loop_error_of=lambda _, w=wrong: w)
        assert "a compiled loop of exp and tanh is wrong by" in fault


def test_the_compiled_loop_is_that_of_float64(monkeypatch):
    assert device.loop_error("CPU:0") < device.MAXIMUM_ERROR / 10
    exact = device.tf.exp
    monkeypatch.setattr(device.tf, "exp", lambda x: exact(x) + 1e-3)
    assert device.loop_error("CPU:0") > device.MAXIMUM_ERROR


def test_the_product_tells_float32_from_what_keeps_ten_bits(monkeypatch):
    assert device.product_error("CPU:0") < device.MAXIMUM_ERROR / 10
    exact = device.tf.matmul
    # What TensorFloat-32 does to its inputs: 13 of the 23 bits of the mantissa are dropped.
    mask = device.tf.constant(-(1 << 13), device.tf.int32)

    def coarse(left, right):
        cut = [
            device.tf.bitcast(device.tf.bitcast(each, device.tf.int32) & mask, device.tf.float32)
            for each in (left, right)
        ]
        return exact(*cut)

    monkeypatch.setattr(device.tf, "matmul", coarse)
    assert device.product_error("CPU:0") > device.MAXIMUM_ERROR
