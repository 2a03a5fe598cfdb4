"""One question about devices, asked where it is needed, and what follows from its answer."""

import ast
import inspect
import pathlib

import numpy as np
import pytest

from tfp_gaps import _tensorflow, annealing, filtering
from tfp_gaps._tensorflow import compiles, on_gpu
from tfp_gaps.measuring import Effort
from tfp_gaps.training import Settings

ROOT = pathlib.Path(__file__).resolve().parents[1]
CODE = [
    path
    for folder in ("tfp_gaps", "tools", "benchmarks")
    for path in ROOT.glob(f"{folder}/**/*.py")
]
# What TensorFlow answers a question about devices with.
QUESTIONS = {
    "list_physical_devices", "get_visible_devices", "list_logical_devices", "is_gpu_available",
    "gpu_device_name", "is_built_with_cuda", "is_built_with_gpu_support", "_HAS_GPU",
}  # fmt: skip
# The one that decides, and two that name the device to the reader and decide nothing about it.
ASKERS = {"tfp_gaps/_tensorflow.py", "tfp_gaps/book/results.py", "tools/device.py"}
VARIABLE = "TFP_GAPS_ACT_AS_GPU"


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(node):
    return getattr(node, "attr", getattr(node, "id", None))


def test_nothing_else_asks_for_devices():
    asking = {
        path.relative_to(ROOT).as_posix()
        for path in CODE
        for node in ast.walk(tree_of(path))
        if name_of(node) in QUESTIONS
    }
    assert asking == ASKERS


def at_import(node):
    """Yield what runs when a module is imported: everything but the bodies of functions."""
    yield node
    if isinstance(node, ast.FunctionDef | ast.Lambda):
        parts = [*node.args.defaults, *node.args.kw_defaults, *getattr(node, "decorator_list", [])]
        children = [part for part in parts if part is not None]
    else:
        children = ast.iter_child_nodes(node)
    for child in children:
        yield from at_import(child)


def test_the_question_is_asked_at_each_use():
    # Of an answer at import, the variable could no longer change anything.
    early = [
        (path.name, node.lineno)
        for path in CODE
        for node in at_import(tree_of(path))
        if isinstance(node, ast.Call) and name_of(node.func) in ("on_gpu", "compiles")
    ]
    assert not early


def test_whoever_leaves_compiling_open_asks():
    # None left as it is would mean "no" to TensorFlow, on a GPU too.
    found = {
        (path.stem, ast.unparse(keyword.value))
        for path in ROOT.glob("tfp_gaps/**/*.py")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and name_of(node.func) == "function"
        for keyword in node.keywords
        if keyword.arg == "jit_compile" and ast.unparse(keyword.value) not in ("True", "on_gpu()")
    }
    assert found == {
        *((name, "compiles(jit_compile)") for name in ("bounds", "local", "blind")),
        ("training", "settings.jit_compile"),  # yes, unless a size says no
        ("annealing", "jit_compile"),  # no, unless a caller says yes: models in their own words
    }
    for function in (annealing.forward, annealing.reverse, Effort):
        assert inspect.signature(function).parameters["jit_compile"].default is False


@pytest.mark.parametrize(
    ("value", "answer"), [("1", True), ("0", False), ("", False), (None, False)]
)
def test_the_question_obeys_the_variable(monkeypatch, value, answer):
    monkeypatch.setattr(_tensorflow, "_HAS_GPU", False)
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    assert on_gpu() is answer
    assert compiles(None) is answer
    assert compiles(True) is True and compiles(False) is False
    assert Settings(10, 8).num_shards == (1 if answer else 2)
    monkeypatch.setattr(_tensorflow, "_HAS_GPU", True)
    assert on_gpu() is True


def test_a_variable_that_says_neither_yes_nor_no(monkeypatch):
    monkeypatch.setenv(VARIABLE, "yes")
    with pytest.raises(ValueError, match="TFP_GAPS_ACT_AS_GPU must be 0 or 1, but is 'yes'. Set"):
        on_gpu()


@pytest.mark.parametrize(("value", "batches"), [("0", 3), ("1", 1)])
def test_a_gpu_filters_more_particles_at_once(linear_chain, monkeypatch, value, batches):
    monkeypatch.setattr(_tensorflow, "_HAS_GPU", False)
    monkeypatch.setenv(VARIABLE, value)
    calls, inner = [], filtering._filter

    def counted(*arguments):
        calls.append(arguments)
        return inner(*arguments)

    monkeypatch.setattr(filtering.tf, "function", lambda of, jit_compile: counted)
    filtering.particle_filter(
        linear_chain.model(), np.zeros([1, 30, 1]), num_particles=1000, seed=0
    )
    assert len(calls) == batches
