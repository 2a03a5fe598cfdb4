"""The hosted workflows: pinned actions, least rights, limits, and commands that exist."""

import pathlib
import re
import tomllib

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


def test_the_gpu_comes_before_the_chapters_and_needs_a_label_on_pull_requests():
    content = yaml.safe_load((ROOT / ".github/workflows/gpu.yml").read_text())
    # YAML 1.1 reads the key `on` as true.
    assert content[True]["pull_request"] == {"types": ["labeled"]}
    [job] = content["jobs"].values()
    assert "label.name == 'gpu'" in job["if"]
    runs = [step["run"] for step in job["steps"] if "run" in step]
    assert runs[:2] == ["make gpu", "make verdicts"] and "--scale paper" in runs[2]
    assert job["env"] == {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "NVIDIA_TF32_OVERRIDE": "0"}


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
    [fault] = device.faults(devices, environment, error_of=lambda _: error)
    assert found in fault


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
