"""What agents expect and get: a small run, and a model that is the truth."""

import json

import numpy as np
import pytest

from tfp_gaps.book.experiments import imagined, known_dynamics, world_models


@pytest.fixture
def small(small_tasks, monkeypatch):
    monkeypatch.setitem(imagined.NUM_STEPS, "smoke", 2)
    monkeypatch.setitem(imagined._OPTIMISER, "jit_compile", False)
    return small_tasks("hike-020", "pendulum-005")


def test_a_result_holds_what_the_chapter_reads(small):
    found = imagined.run(scale="smoke", seeds=[0, 1], variant="pendulum-005")
    json.dumps(found, allow_nan=False)
    planner, policy = found["returns"]["planner"], found["returns"]["policy"]
    assert set(planner) == {"partial", "full"} and set(policy) == {"partial", "full", "truth"}
    for agents, episodes in ((planner, 1), (policy, imagined.EPISODES)):
        for returns in agents.values():
            for name, values in returns.items():
                assert name in ("dream", "real")
                assert np.shape(values) == (2, episodes * small.num_episodes)
    assert set(policy["truth"]) == {"real"} and "SHA-256" in found["data"]
    for returns in (planner["partial"], policy["partial"]):
        assert np.abs(np.subtract(returns["dream"], returns["real"])).max() > 1e-3


def test_who_dreams_of_the_true_world_expects_what_she_gets(small):
    """Planner and policy of the known hike: the dream is the environment, noise for noise."""
    task = world_models.task_of("hike-020")
    model = known_dynamics.known_hike(task.environment, [0, 1])
    dream = imagined.Dream(model, task.environment, lambda states, seed: states, None)
    planned = [imagined.planned(w, model, task, small) for w in (dream, task.environment)]
    np.testing.assert_allclose(*planned, atol=1e-4)
    policy = imagined.optimise(lambda seed: dream, "known", task, small, [0, 1], 2)
    scores = [imagined.score(w, policy, task, small) for w in (dream, task.environment)]
    np.testing.assert_allclose(*scores, atol=1e-4)
    assert np.ptp(scores[0]) > 1e-2
