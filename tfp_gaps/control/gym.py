"""The environments of `tfp_gaps.control.environments` as Gymnasium knows them, one at a time.

    environment = GymEnvironment(MomentumHike(0.1))
    observation, info = environment.reset(seed=0)
    observation, reward, terminated, truncated, info = environment.step(action)

Gymnasium is not among the requirements of the package: `pip install "tfp-gaps[gym]"`.
"""

import numpy as np

from tfp_gaps import _checks
from tfp_gaps._tensorflow import tf
from tfp_gaps.control import environments

try:
    import gymnasium
except ImportError as error:
    raise ImportError(
        'tfp_gaps.control.gym needs Gymnasium, which is not installed. Run: pip install "gymnasium"'
    ) from error


class GymEnvironment(gymnasium.Env):
    """A `gymnasium.Env` around one of the environments.

    Observations are x_t, actions are brought within the bounds by the environment. An episode never
    terminates, and is truncated after `horizon` actions. The hidden state is in `info["state"]`,
    and is not part of the observation.

    Args:
      environment: a `Hike`, `MomentumHike` or `Pendulum`.

    >>> wrapped = GymEnvironment(environments.Pendulum(0.1, horizon=3))
    >>> wrapped.observation_space.shape, wrapped.action_space.shape
    ((2,), (1,))
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (the name and the kind are Gymnasium's)

    def __init__(self, environment):
        self.environment = environment
        bound = environment.action_bound
        self.observation_space = gymnasium.spaces.Box(
            -np.inf, np.inf, [environment.observation_size], np.float32
        )
        self.action_space = gymnasium.spaces.Box(
            -bound, bound, [environment.action_size], np.float32
        )
        self._state, self._steps = None, 0

    def reset(self, *, seed=None, options=None):
        """Start an episode; see `gymnasium.Env.reset`. `options` knows "state", to start there."""
        super().reset(seed=seed)
        given = (options or {}).get("state")
        if given is None:
            self._state = self.environment.initial(self._normal(self.environment.state_size))
        else:
            state = _checks.finite_array(given, "the state in options", ndim=1)
            if len(state) != self.environment.state_size:
                raise ValueError(
                    f"the state in options must have {self.environment.state_size} components, "
                    f"but has {len(state)}."
                )
            self._state = tf.constant(state, tf.float32)
        self._steps = 0
        noise = self._normal(self.environment.observation_size)
        return self.environment.observe(self._state, noise).numpy(), self._info()

    def step(self, action):
        """Carry out one action; see `gymnasium.Env.step`.

        Raises:
          RuntimeError: if there is no episode, or it has ended.
          ValueError: for an action of another shape, NaN or infinite.
        """
        if self._state is None or self._steps >= self.environment.horizon:
            raise RuntimeError(
                "step needs a running episode, but none was started or the last one has ended "
                f"after {self.environment.horizon} actions. Call reset first."
            )
        moved = environments.step(
            self.environment,
            self._state.numpy(),
            action,
            seed=int(self.np_random.integers(2**31)),
        )
        self._state, self._steps = moved.state, self._steps + 1
        truncated = self._steps == self.environment.horizon
        return moved.observation.numpy(), float(moved.reward), False, truncated, self._info()

    def _info(self):
        return {"state": self._state.numpy()}

    def _normal(self, size):
        return tf.constant(self.np_random.standard_normal(size), tf.float32)
