"""The environments as Gymnasium knows them."""

import gymnasium.utils.env_checker
import numpy as np
import pytest

from tfp_gaps.control.environments import Hike, MomentumHike, Pendulum
from tfp_gaps.control.gym import GymEnvironment

each = pytest.mark.parametrize(
    "environment", [Hike(0.2, 5), MomentumHike(0.1, 5), Pendulum(0.1, 5)], ids=["h", "m", "p"]
)


@each
@pytest.mark.filterwarnings("ignore::UserWarning:gymnasium")
def test_gymnasium_accepts_it(environment):
    # It warns of unbounded observations, which noisy ones are.
    gymnasium.utils.env_checker.check_env(GymEnvironment(environment), skip_render_check=True)


@each
def test_an_episode(environment):
    wrapped = GymEnvironment(environment)
    observation, info = wrapped.reset(seed=3)
    ends = []
    for _ in range(5):
        action = wrapped.action_space.low
        before = info["state"]
        observation, reward, terminated, truncated, info = wrapped.step(action)
        assert wrapped.observation_space.contains(observation)
        assert reward == pytest.approx(
            float(environment.reward(before, action, info["state"])), rel=1e-5
        )
        assert not terminated
        ends.append(truncated)
    assert ends == [False] * 4 + [True]
    with pytest.raises(RuntimeError, match="Call reset first"):
        wrapped.step(action)


def test_it_can_start_anywhere():
    wrapped = GymEnvironment(Pendulum(1e-3))
    observation, info = wrapped.reset(seed=0, options={"state": [0.5, -1.0]})
    np.testing.assert_allclose(info["state"], [0.5, -1.0])
    np.testing.assert_allclose(observation, [np.cos(0.5), np.sin(0.5)], atol=5e-3)
    with pytest.raises(ValueError, match="must have 2 components"):
        wrapped.reset(options={"state": [0.5]})


def test_bad_actions():
    wrapped = GymEnvironment(Hike(0.2))
    with pytest.raises(RuntimeError, match="none was started"):
        wrapped.step(np.zeros(2))
    wrapped.reset(seed=0)
    for action, message in ((np.zeros(3), "shape"), ([np.nan, 0.0], "finite")):
        with pytest.raises(ValueError, match=message):
            wrapped.step(action)
