"""Small worlds for experiments that learn a model and act on it."""

import dataclasses

import pytest


@pytest.fixture
def eagerly():
    """No graphs: few steps take less time than a graph takes to trace, or XLA to compile."""
    from tfp_gaps._tensorflow import tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def small_tasks(monkeypatch, eagerly):
    """Shrink the named tasks: two steps of training, episodes of three moves, few plans, no graphs.

    A callable (*names) -> the `Size` of the scale "smoke" that they have then.
    """
    from tfp_gaps.book.experiments import world_models

    def shrink(*names):
        size = world_models.SIZES["smoke"]
        joint = dataclasses.replace(size.joint, num_steps=2, steps_per_call=2, jit_compile=False)
        shrunk = dataclasses.replace(size, joint=joint, num_train=40, num_test=4, num_timesteps=8)
        monkeypatch.setitem(world_models.SIZES, "smoke", shrunk)
        for name in names:
            task = world_models.TASKS[name]
            planner = dataclasses.replace(
                task.planner, horizon=2, num_candidates=4, num_elite=2, num_iterations=1
            )
            environment = dataclasses.replace(task.environment, horizon=3)
            changed = dataclasses.replace(task, planner=planner, environment=environment)
            monkeypatch.setitem(world_models.TASKS, name, changed)
        return shrunk

    return shrink
