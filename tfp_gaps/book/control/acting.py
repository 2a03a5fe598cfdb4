"""Act: filter, plan, carry out the first action, and again until the episode ends.

What the agent plans with (its simulator) and what it believes can come from the truth or from a
learned model, each on its own. Noises depend on the seed and on the number of the episode alone, so
that two agents meet the same starts and the same weather.
"""

from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks
from tfp_gaps._tensorflow import tf
from tfp_gaps.book.control.beliefs import Observation
from tfp_gaps.book.control.planning import shifted
from tfp_gaps.networks import replica_seeds


class Rollout(NamedTuple):
    """Episodes in which an agent acted.

    returns: sum of rewards, float64 [replicas, episodes].
    states: float32 [time, replicas, episodes, state]; the first before any action.
    observations: float32 [time, replicas, episodes, observation].
    actions: float32 [time - 1, replicas, episodes, action].
    clouds: float32 [time - 1, replicas, episodes, particles, state], what the agent planned from.
    """

    returns: np.ndarray
    states: np.ndarray
    observations: np.ndarray
    actions: np.ndarray
    clouds: np.ndarray


class LearnedSimulator:
    """A world model as what a planner asks for; rewards are those of what the sensor shows.

    Args:
      model: `WorldModel`.
      environment: whose bounds and reward hold.
    """

    def __init__(self, model, environment):
        self.model, self.environment = model, environment
        self.action_size, self.action_bound = environment.action_size, environment.action_bound
        self.noise_size, self.state_size = model.latent_size, model.latent_size
        self.limit = environment.limit

    def advance(self, state, action, noise):
        """z' for z [..., replicas * episodes, particles, latent]."""
        prior = self.model.transition(self._by_replica(state), self._by_replica(action))
        drawn = prior.mean + prior.scale * self._by_replica(noise)
        return tf.reshape(drawn, tf.shape(state))

    def reward(self, state, action, next_state):
        """Of the move, as it shows."""
        shown = self.model.shown
        return self.environment.shown_reward(shown(state), action, shown(next_state))

    def _by_replica(self, tensor):
        """[..., replicas * episodes, particles, n] to [..., replicas, episodes * particles, n]."""
        *leading, batch, particles, size = tensor.shape
        rows = batch // self.model.num_replicas * particles
        return tf.reshape(tensor, [*leading, self.model.num_replicas, rows, size])


def weather(environment, *, num_replicas, num_episodes, seed):
    """The noises of episodes, standard normal and the same for all replicas.

    Args:
      environment, num_replicas, num_episodes, seed: as in `act`.

    Returns:
      start: [replicas, episodes, state].
      moves: [time, replicas, episodes, noise].
      sensor: [time + 1, replicas, episodes, observation].
    """

    def normal(purpose, last, *leading):
        # One draw for all replicas: they meet the same episodes.
        key = replica_seeds([seed], purpose)[0]
        drawn = tf.random.stateless_normal([*leading, num_episodes, last], key, alg="philox")
        return tf.repeat(drawn[..., tf.newaxis, :, :], num_replicas, -3)

    return (
        normal("start", environment.state_size),
        normal("move", environment.noise_size, environment.horizon),
        normal("sensor", environment.observation_size, environment.horizon + 1),
    )


def act(
    environment,
    simulator,
    belief,
    planner,
    *,
    num_replicas,
    num_episodes,
    seed,
    num_particles=4,
):
    """Let an agent act.

    Args:
      environment: one of `control.environments`.
      simulator: what it plans with: the environment, or a `LearnedSimulator`; None for one that
        acts at random.
      belief: one of `control.beliefs`, over the simulator's states.
      planner: `Planner`.
      num_replicas: of the learned models; without any, 1.
      num_episodes: of each.
      seed: int.
      num_particles: how many states of the belief a plan must suit.

    Returns:
      `Rollout`.

    Raises:
      ValueError: for counts below one.
    """
    for name, count in (
        ("num_replicas", num_replicas),
        ("num_episodes", num_episodes),
        ("num_particles", num_particles),
    ):
        _checks.integer(count, name, minimum=1)
    shape = [num_replicas, num_episodes]
    horizon, size = environment.horizon, environment.action_size
    start, moves, sensor = weather(
        environment, num_replicas=num_replicas, num_episodes=num_episodes, seed=seed
    )
    state = environment.initial(start)

    def choose(memory, plan, t):
        if simulator is None:
            key = replica_seeds([seed], "action", t)[0]
            drawn = tf.random.stateless_normal([*shape, size], key, alg="philox")
            return environment.limit(environment.action_bound * drawn), None, plan
        keys = [replica_seeds([seed], purpose, t)[0] for purpose in ("cloud", "plan")]
        cloud = belief.particles(memory, num_particles, keys[0])
        flat = tf.reshape(cloud, [-1, *cloud.shape[2:]])
        plan = planner.improve(simulator, flat, plan, keys[1])
        action = tf.reshape(simulator.limit(plan[:, 0]), [*shape, size])
        return action, cloud, shifted(plan)

    @tf.function(jit_compile=True)
    def begin(observed):
        return belief.start(observed, replica_seeds([seed], "belief", 0)[0])

    @tf.function(jit_compile=True)
    def advance(t, state, memory, plan, move, sensor_noise):
        action, cloud, plan = choose(memory, plan, t)
        after = environment.advance(state, action, move)
        observed = Observation(environment.observe(after, sensor_noise), after)
        reward = environment.reward(state, action, after)
        if belief is not None:
            key = replica_seeds([seed], "belief", t + 1)[0]
            memory = belief.update(memory, action, observed, key)
        kept = [reward, after, observed.sensor, action] + ([] if cloud is None else [cloud])
        return after, memory, plan, kept

    first = Observation(environment.observe(state, sensor[0]), state)
    memory = () if belief is None else begin(first)
    plan = () if simulator is None else planner.start(num_replicas * num_episodes, size)
    traces = []
    for t in range(horizon):
        state, memory, plan, kept = advance(
            tf.constant(t), state, memory, plan, moves[t], sensor[t + 1]
        )
        traces.append([part.numpy() for part in kept])
    rewards, states, observations, actions, *clouds = (np.stack(p) for p in zip(*traces))
    return Rollout(
        rewards.astype(np.float64).sum(0),
        np.concatenate([first.state.numpy()[np.newaxis], states]),
        np.concatenate([first.sensor.numpy()[np.newaxis], observations]),
        actions,
        clouds[0] if clouds else np.zeros([horizon, *shape, 0, 0], np.float32),
    )
