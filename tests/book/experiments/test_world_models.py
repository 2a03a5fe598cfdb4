"""World models and their agents at smoke scale, known dynamics, stored results, bad input."""

import json

import numpy as np
import pytest

from tfp_gaps._tensorflow import tf
from tfp_gaps.book import results
from tfp_gaps.book.control.environments import Hike, Pendulum
from tfp_gaps.book.experiments import known_dynamics, world_models
from tfp_gaps.posteriors.conditions import FULL, LookAhead


@pytest.fixture(scope="module")
def result():
    return world_models.run(
        scale="smoke", conditions=LookAhead(0), seeds=[0, 1], variant="hike-020"
    )


def test_a_result_holds_what_the_chapter_reads(result):
    json.dumps(result, allow_nan=False)
    size = world_models.size_of("smoke")
    agents = {"model + filter", "model + partial q", "model + true filter", "truth + filter"}
    assert set(result["returns"]) == agents
    for returns in result["returns"].values():
        assert np.shape(returns) == (2, size.num_episodes)
    assert np.shape(result["log_evidence"]) == (2, size.num_test)
    for name in ("filter", "partial q"):
        assert np.shape(result["calibration"][name]["coverage"]) == (2, 2)
        assert np.shape(result["prediction"][name]) == (len(world_models.HORIZONS), 2)
    assert "SHA-256" in result["data"]


def test_seeds_are_models_of_their_own(result):
    noise = np.array(result["observation_noise"])
    assert np.abs(noise[0] - noise[1]).max() > 1e-6


def test_the_known_hike_is_the_hike():
    hike = Hike(0.2)
    model = known_dynamics.known_hike(hike, [0, 1])
    rng = np.random.default_rng(0)
    state, action = (tf.constant(rng.uniform(-0.03, 0.03, [2, 5, 2]), tf.float32) for _ in "su")
    prior = model.transition(state, action)
    np.testing.assert_allclose(prior.mean, hike.advance(state, action, 0.0), atol=1e-6)
    np.testing.assert_allclose(prior.scale, 0.025, rtol=1e-5)
    np.testing.assert_allclose(model.observation_noise, 0.2, rtol=1e-5)
    with pytest.raises(ValueError, match="only the plain hike"):
        known_dynamics.known_hike(Pendulum(0.1), [0])


def test_state_maps_hand_over_what_the_sensor_shows():

    task, size = world_models.task_of("momentum-010"), world_models.size_of("smoke")
    explored = world_models.explore(task, size)
    fitted = world_models.learn(task, size, explored, conditions=LookAhead(0), seeds=[0])
    state_maps = world_models.StateMaps(fitted, task, explored, [0])
    assert set(state_maps.explained) == {"latents", "states"}
    states = tf.constant(explored["test"].states[:1])
    latents = state_maps.to_latents(states[:, :, tf.newaxis], tf.constant([0, 1]))
    np.testing.assert_array_equal(latents[..., :2], states[:, :, tf.newaxis, :2])
    back = state_maps.to_states(latents, tf.constant([0, 2]))
    np.testing.assert_array_equal(back[..., :2], latents[..., :2])
    assert back.shape[-1] == 4 and np.isfinite(back).all()


@pytest.mark.parametrize(
    ("variant", "scale", "warms_up"), [("pendulum-005", 4.0, False), ("momentum-010", 0.7, True)]
)
def test_training_starts_as_the_task_says(monkeypatch, variant, scale, warms_up):
    given = {}

    def fit(model, network, splits, settings, **options):
        given.update(scale=model.initial().scale.numpy(), settings=settings)

    monkeypatch.setattr(world_models.sequential, "fit", fit)
    task, size = world_models.task_of(variant), world_models.size_of("smoke")
    explored = world_models.explore(task, size)
    world_models.learn(task, size, explored, conditions=LookAhead(0), seeds=[0])
    np.testing.assert_allclose(given["scale"], scale + 2e-3, rtol=1e-5)
    assert (given["settings"].kl_warmup_steps > 0) is warms_up


def test_the_stored_results_agree_with_their_names():
    for variant, scale in (("momentum-010", "paper"), ("momentum-040", "book")):
        for conditions in (LookAhead(0), FULL):
            found = world_models.stored(scale, variant, conditions)
            assert (found["variant"], found["lookahead"]) == (variant, conditions.lookahead)
            assert not any(found["diverged"]) and len(found["seeds"]) == 5
        assert known_dynamics.stored(scale, variant)["variant"] == variant


def test_bad_input(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="variant"):
        world_models.task_of("swamp-010")
    with pytest.raises(ValueError, match="variant"):
        known_dynamics.run(scale="smoke", seeds=[0], variant="momentum-010-latent6")
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    with pytest.raises(results.ResultError, match="tfp-gaps run world_models --scale paper"):
        world_models.stored("paper", "momentum-010", FULL)
    with pytest.raises(results.ResultError, match="tfp-gaps run known_dynamics --scale book"):
        known_dynamics.stored("book", "momentum-010")
