"""Decision problems whose dynamics are known, in batches: two hikes and a pendulum.

    s_1 ~ p(s_1),   s_{t+1} = f(s_t, a_t, w_t),   x_t = g(s_t) + N(0, sigma^2),   w_t ~ N(0, I)

The state is hidden, the observation noise sigma is the dial that makes it hard to estimate, and the
return is the sum of rewards. Because f is known, an agent that plans with the truth and filters
with many particles shows what a learned model could reach at best.

Shapes: states are [..., state], actions [..., action], for any leading axes; everything is float32.
The methods are TensorFlow operations that check nothing, for use in compiled loops; `step` and
`explore` check what they are given.

References: Igl et al. (2018) for the terrain of the hike, Gymnasium's Pendulum-v1 for the pendulum.
The hike with momentum is a choice of this book.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks
from tfp_gaps._tensorflow import tf
from tfp_gaps.networks import replica_seeds
from tfp_gaps.sequences import Sequences

# The three ridges: height, centre, width (standard deviations).
_RIDGES = (
    (1.0, (0.5, 0.5), (0.75, 0.1)),
    (0.8, (0.0, 0.2), (0.1, 0.75)),
    (0.55, (-0.375, -0.5), (0.75, 0.1)),
)
_OUTSIDE = -6.0
_START = -0.85


class Step(NamedTuple):
    """What an action leads to.

    state: s_{t+1}, [..., state].
    observation: x_{t+1}, [..., observation].
    reward: of the move, [...].
    """

    state: tf.Tensor
    observation: tf.Tensor
    reward: tf.Tensor


class Episodes(NamedTuple):
    """Exploration: what an agent that acts at random has seen.

    sequences: `Sequences` with x_t, and in row t of its controls the action that led there.
    states: float32 [time, episodes, state], hidden from the learner.
    rewards: float32 [time - 1, episodes], of the moves.
    """

    sequences: Sequences
    states: np.ndarray
    rewards: np.ndarray


class _Environment:
    """What hikes and pendulum share."""

    def observe(self, state, noise):
        """x = g(s) + sigma * noise for standard normal noise [..., observation]."""
        return self.emission(state) + self.observation_noise * noise

    def observation_log_prob(self, state, observation):
        """ln p(x | s), [...]."""
        standardised = (observation - self.emission(state)) / self.observation_noise
        constant = math.log(self.observation_noise) + 0.5 * math.log(2 * math.pi)
        return -tf.reduce_sum(0.5 * standardised**2 + constant, -1)

    def visible(self, shown):
        """The part of the state that the sensor shows, from what it shows without noise."""
        return shown

    def hidden(self, state):
        """The rest of the state, which comes after it."""
        return state[..., self.observation_size :]

    def edge(self, shown):
        """What to take off the reward of a place so that its gradient knows of edges, [...].

        Args:
          shown: [..., observation], what the sensor shows of it without noise.
        """
        return tf.zeros(tf.shape(shown)[:-1])

    def deviation(self, cloud, points):
        """How far points lie from the mean of a cloud, in what the sensor shows of both.

        Args:
          cloud: [..., particles, observation].
          points: [..., number, observation].

        Returns:
          deviation: [..., number, coordinates].
        """
        return points - cloud.mean(-2, keepdims=True)


class _Hike(_Environment):
    """What the hikes share: where they start, what is seen, what it is worth."""

    action_size = observation_size = 2

    def __post_init__(self):
        _check_environment(self)

    def limit(self, action):
        """Rescale to the largest norm that is allowed."""
        return _within_norm(action, self.action_bound)

    def emission(self, state):
        """The position."""
        return state[..., :2]

    def reward(self, state, action, next_state):
        """Of the place reached, less the effort."""
        return self.shown_reward(state[..., :2], action, next_state[..., :2])

    def edge(self, shown):
        """What smoothing the fall to -6, which has no slope, over a width of .05 takes off."""
        inside = tf.reduce_prod(tf.sigmoid((1.0 - tf.abs(shown)) / 0.05), -1)
        return terrain(shown) - (inside * _height(shown) + (1.0 - inside) * _OUTSIDE)

    def shown_reward(self, shown, action, next_shown):
        """The reward from what the sensor shows, without its noise, before and after."""
        del shown
        return terrain(next_shown) - self.action_cost * _norm(self.limit(action))


@dataclasses.dataclass(frozen=True)
class Hike(_Hike):
    """A hike in the box [-1, 1]^2, whose position is seen through noise.

        s' = s + a + N(0, .025^2 I),   |a| <= .05,   x = s + N(0, sigma^2 I)

    It starts at N((-.85, -.85), .1^2 I); ridges lead to the summit at the upper right. The reward
    is that of the place reached, -6 outside the box, less .1 |a|.

    Args:
      observation_noise: sigma > 0.
      horizon: moves of an episode.

    Raises:
      ValueError: if sigma is not a positive number, or the horizon is below one.

    >>> hike = Hike(0.2)
    >>> hike.state_size, hike.action_size, hike.observation_size
    (2, 2, 2)
    """

    observation_noise: float
    horizon: int = 75

    state_size = noise_size = 2
    action_bound = 0.05
    action_cost = 0.1
    transition_noise = 0.025

    def initial(self, noise):
        """s_1 for standard normal noise [..., 2]."""
        return _START + 0.1 * noise

    def exploration_start(self, noise):
        """s_1 for exploration: uniform in the box, for standard normal noise [..., 2]."""
        return _uniform(noise)

    def advance(self, state, action, noise):
        """s' for standard normal noise [..., 2]."""
        return state + self.limit(action) + self.transition_noise * noise


@dataclasses.dataclass(frozen=True)
class MomentumHike(_Hike):
    """The hike of somebody who cannot stop at once: the velocity v is hidden.

        v' = .9 v + .015 a + N(0, .01^2 I),   s' = s + v' + N(0, .005^2 I),   |a| <= 1

    x = s + N(0, sigma^2 I); the state is (s, v). It starts at N((-.85, -.85), .1^2 I), at rest. The
    reward is that of the place reached, -6 outside the box, less .005 |a|.

    Args:
      observation_noise: sigma > 0.
      horizon: moves of an episode.

    Raises:
      ValueError: if sigma is not a positive number, or the horizon is below one.

    >>> MomentumHike(0.1).state_size
    4
    """

    observation_noise: float
    horizon: int = 60

    state_size = noise_size = 4
    action_bound = 1.0
    action_cost = 0.005
    drag, thrust = 0.9, 0.015
    velocity_noise, position_noise = 0.01, 0.005

    def initial(self, noise):
        """s_1 for standard normal noise [..., 4]; its second half is not used."""
        return tf.concat([_START + 0.1 * noise[..., :2], tf.zeros_like(noise[..., 2:])], -1)

    def exploration_start(self, noise):
        """Uniform in the box, velocity N(0, .06^2 I), for standard normal noise [..., 4]."""
        return tf.concat([_uniform(noise[..., :2]), 0.06 * noise[..., 2:]], -1)

    def advance(self, state, action, noise):
        """s' for standard normal noise [..., 4]: two for the position, two for the velocity."""
        velocity = self.drag * state[..., 2:] + self.thrust * self.limit(action)
        velocity += self.velocity_noise * noise[..., 2:]
        position = state[..., :2] + velocity + self.position_noise * noise[..., :2]
        return tf.concat([position, velocity], -1)


@dataclasses.dataclass(frozen=True)
class Pendulum(_Environment):
    """Swing a pendulum up and hold it; its angle is seen through noise, its velocity not at all.

        velocity' = velocity + (15 sin(angle) + 3 (a + N(0, torque_noise^2))) dt,   |a| <= 2
        angle' = angle + velocity' dt,                   dt = .05,  |velocity| <= 8

    `substeps` times for each decision, with the same torque. The sensor shows x = (cos, sin)(angle)
    + N(0, sigma^2 I); the state is (angle, velocity), angle 0 is upright. The reward of a decision
    is that of the state in which it is taken, -(angle^2 + .1 velocity^2 + .001 a^2) with the angle
    in [-pi, pi). With one substep and no torque noise the dynamics are those of Gymnasium's
    Pendulum-v1.

    Args:
      observation_noise: sigma > 0.
      horizon: decisions of an episode.
      torque_noise: standard deviation of the disturbance of a decision.
      substeps: simulated steps per decision.

    Raises:
      ValueError: if sigma is not a positive number, the torque noise is negative, or horizon or
        substeps are below one.

    >>> Pendulum(0.05).decision_seconds
    0.1
    """

    observation_noise: float
    horizon: int = 100
    torque_noise: float = 0.3
    substeps: int = 2

    state_size = observation_size = 2
    action_size = noise_size = 1
    action_bound = 2.0
    fastest = 8.0
    seconds = 0.05

    def __post_init__(self):
        _check_environment(self)
        _checks.integer(self.substeps, "substeps", minimum=1)
        if not (math.isfinite(self.torque_noise) and self.torque_noise >= 0):
            raise ValueError(
                f"torque_noise must be a number, zero or more, but is {self.torque_noise!r}. It is "
                f"a standard deviation."
            )

    @property
    def decision_seconds(self):
        """Time between two decisions."""
        return self.seconds * self.substeps

    def limit(self, action):
        """Cut to the torques that are allowed."""
        return tf.clip_by_value(action, -self.action_bound, self.action_bound)

    def initial(self, noise):
        """Any angle, velocity uniform in [-1, 1], for standard normal noise [..., 2]."""
        return _uniform(noise) * tf.constant([math.pi, 1.0])

    def exploration_start(self, noise):
        """Any angle, velocity uniform in [-6, 6], for standard normal noise [..., 2]."""
        return _uniform(noise) * tf.constant([math.pi, 6.0])

    def advance(self, state, action, noise):
        """s' for standard normal noise [..., 1]."""
        angle, velocity = state[..., :1], state[..., 1:]
        torque = self.limit(action) + self.torque_noise * noise
        for _ in range(self.substeps):
            velocity += (15.0 * tf.sin(angle) + 3.0 * torque) * self.seconds
            velocity = tf.clip_by_value(velocity, -self.fastest, self.fastest)
            angle += velocity * self.seconds
        return tf.concat([angle, velocity], -1)

    def emission(self, state):
        """Cosine and sine of the angle."""
        return tf.concat([tf.cos(state[..., :1]), tf.sin(state[..., :1])], -1)

    def reward(self, state, action, next_state):
        """Of the state in which the decision is taken."""
        del next_state
        angle = wrap(state[..., 0])
        return self._reward(angle, state[..., 1], action)

    def shown_reward(self, shown, action, next_shown):
        """The reward from what the sensor shows, without its noise, before and after.

        The velocity is then the mean one of the decision, so that the reward agrees with `reward`
        up to what the velocity changes in that time.
        """
        before, after = (tf.atan2(x[..., 1], x[..., 0]) for x in (shown, next_shown))
        velocity = wrap(after - before) / self.decision_seconds
        return self._reward(before, velocity, action)

    def visible(self, shown):
        """The angle, [..., 1]."""
        return tf.atan2(shown[..., 1:], shown[..., :1])

    def hidden(self, state):
        """The velocity, [..., 1]."""
        return state[..., 1:]

    def deviation(self, cloud, points):
        """The shorter way around from the circular mean of the angles, [..., number, 1]."""
        centre = np.arctan2(*np.moveaxis(cloud[..., ::-1].mean(-2, keepdims=True), -1, 0))
        angle = np.arctan2(points[..., 1], points[..., 0]) - centre
        return wrap(tf.constant(angle)).numpy()[..., np.newaxis]

    def _reward(self, angle, velocity, action):
        effort = tf.reduce_sum(self.limit(action) ** 2, -1)
        return -(angle**2 + 0.1 * velocity**2 + 0.001 * effort)


def terrain(position):
    """Height of the hike's landscape, [...], for positions [..., 2]; -6 outside of the box.

        4 (1 - (1 - Z)^4) - 4.5 + (x + y) / 4,   Z = 1/3 max_i f_i N(position; m_i, diag sd_i^2)

    >>> print(f"{terrain(tf.constant([0.5, 0.5])):.3f} {terrain(tf.constant([1.1, 0.0])):.3f}")
    -0.279 -6.000
    """
    return tf.where(tf.reduce_all(tf.abs(position) <= 1.0, -1), _height(position), _OUTSIDE)


def _height(position):
    heights = []
    for factor, centre, width in _RIDGES:
        standardised = (position - tf.constant(centre)) / tf.constant(width)
        density = tf.exp(-0.5 * tf.reduce_sum(standardised**2, -1))
        heights.append(factor * density / (2 * math.pi * width[0] * width[1]))
    ridge = tf.reduce_max(tf.stack(heights), 0) / 3.0
    return 4.0 * (1.0 - (1.0 - ridge) ** 4) - 4.5 + tf.reduce_sum(position, -1) / 4.0


def wrap(angle):
    """The same angle in [-pi, pi).

    >>> print(f"{wrap(tf.constant(4.0)):.4f}")
    -2.2832
    """
    return tf.math.floormod(angle + math.pi, 2 * math.pi) - math.pi


def step(environment, state, action, *, seed):
    """Carry out one action, and observe what came of it.

    Args:
      environment: one of the classes above.
      state: s_t, [..., state].
      action: a_t, [..., action], with the same leading axes; brought within the bounds first.
      seed: int.

    Returns:
      A `Step`.

    Raises:
      ValueError: for shapes that do not fit, and for NaN or infinite values.

    >>> moved = step(Hike(0.2), np.zeros([3, 2]), np.ones([3, 2]), seed=0)
    >>> moved.observation.shape.as_list(), moved.reward.shape.as_list()
    ([3, 2], [3])
    """
    state = _check_vectors(state, "state", environment.state_size)
    action = _check_vectors(action, "action", environment.action_size)
    if state.shape[:-1] != action.shape[:-1]:
        raise ValueError(
            f"state and action must have the same leading axes, but have the shapes {state.shape} "
            f"and {action.shape}. Pass one action for each state."
        )
    noises = (
        _normal(seed, purpose, [*state.shape[:-1], size])
        for purpose, size in (
            ("move", environment.noise_size),
            ("sensor", environment.observation_size),
        )
    )
    state, action = tf.constant(state), tf.constant(action)
    return Step(*_move(environment, state, action, *noises))


def explore(environment, *, num_episodes, num_timesteps, seed, memory=0.8):
    """Act at random, with actions that keep their direction for a while.

        a_t = bound * b_t,   b_{t+1} = memory b_t + N(0, 1 - memory^2),   brought within the bounds

    Args:
      environment: one of the classes above; episodes start at its `exploration_start`.
      num_episodes: how many.
      num_timesteps: observations of each, at least 2.
      seed: int.
      memory: correlation of successive actions, from 0 to below 1.

    Returns:
      `Episodes`.

    Raises:
      ValueError: for counts that are too small, or a memory outside of its range.

    >>> episodes = explore(Pendulum(0.1), num_episodes=5, num_timesteps=4, seed=0)
    >>> episodes.sequences.observations.shape, episodes.states.shape, episodes.rewards.shape
    ((4, 5, 2), (4, 5, 2), (3, 5))
    """
    _checks.integer(num_episodes, "num_episodes", minimum=1)
    _checks.integer(num_timesteps, "num_timesteps", minimum=2)
    if not 0 <= memory < 1:
        raise ValueError(f"memory must be at least 0 and below 1, but is {memory!r}.")

    def draw(purpose, size):
        return _normal(seed, purpose, [num_timesteps, num_episodes, size])

    moves, sensor = (
        draw("move", environment.noise_size),
        draw("sensor", environment.observation_size),
    )
    impulses, fresh = draw("action", environment.action_size), math.sqrt(1 - memory**2)
    state = environment.exploration_start(draw("start", environment.state_size)[0])
    states, rewards = [state], []
    observations, actions = [environment.observe(state, sensor[0])], []
    direction = impulses[0]
    for t in range(1, num_timesteps):
        actions.append(environment.limit(environment.action_bound * direction))
        moved = Step(*_move(environment, state, actions[-1], moves[t], sensor[t]))
        state = moved.state
        for kept, part in zip((states, observations, rewards), moved, strict=True):
            kept.append(part)
        direction = memory * direction + fresh * impulses[t]
    controls = tf.stack([tf.zeros_like(actions[0]), *actions]).numpy()
    sequences = Sequences(tf.stack(observations).numpy(), controls)
    return Episodes(sequences, tf.stack(states).numpy(), tf.stack(rewards).numpy())


def _move(environment, state, action, move_noise, sensor_noise):
    after = environment.advance(state, action, move_noise)
    seen = environment.observe(after, sensor_noise)
    return after, seen, environment.reward(state, action, after)


def _check_environment(environment):
    _checks.positive_float(environment.observation_noise, "observation_noise")
    _checks.integer(environment.horizon, "horizon", minimum=1)


def _check_vectors(value, name, size):
    array = _checks.finite_array(value, name).astype(np.float32)
    if array.ndim == 0 or array.shape[-1] != size:
        raise ValueError(
            f"{name} must have shape [..., {size}] in this environment, but has shape "
            f"{array.shape}. Its last axis holds the components."
        )
    return array


def _normal(seed, purpose, shape):
    return tf.random.stateless_normal(shape, replica_seeds([seed], purpose)[0], alg="philox")


def _uniform(noise):
    """Standard normal to uniform in [-1, 1]."""
    return tf.math.erf(noise / math.sqrt(2.0))


def _norm(vector):
    # The square root has no gradient at zero.
    return tf.sqrt(tf.reduce_sum(vector**2, -1) + 1e-12)


def _within_norm(vector, bound):
    return vector * (bound / tf.maximum(_norm(vector), bound))[..., tf.newaxis]
