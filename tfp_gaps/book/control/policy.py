"""A policy that remembers, optimised inside a simulator by gradients through its roll-outs.

    h_t = GRU(h_{t-1}, x_t, a_{t-1}),   a_t = MLP(h_t, x_t),   max E sum_t r(s_t, a_t, s_{t+1})

It reads observations alone and needs no filter, so that it can act in the true environment as it
stands: two policies differ by the simulator that they were optimised in, and by nothing else. A
`Dream` makes an environment of a learned model, so that any agent can act in either.

References: Heess et al. (2015), Learning Continuous Control Policies by Stochastic Value Gradients;
Hafner et al. (2020), Dream to Control, for the same in learned simulators.
"""

from typing import NamedTuple

from tfp_gaps import _checks
from tfp_gaps._tensorflow import tf
from tfp_gaps.networks import MLP, Dense, gru_step, replica_normal, split_seeds


class Dream:
    """A learned model as an environment: its moves, its sensor, and rewards of what that shows.

    Episodes start where those of the environment do: its first states, translated.

    Args:
      model: `WorldModel`.
      environment: whose starts, bounds, length and reward hold.
      to_latents: (states [replicas, ..., state], seed) -> latents, as `StateMaps.to_latents`.
      seed: int32 [2], of the translation in `initial`.
    """

    def __init__(self, model, environment, to_latents, seed):
        self.model, self.environment, self.to_latents = model, environment, to_latents
        self._seed = seed
        self.horizon, self.limit = environment.horizon, environment.limit
        self.action_size, self.action_bound = environment.action_size, environment.action_bound
        self.observation_size, self.noise_size = environment.observation_size, model.latent_size
        # A first state is drawn in the environment, and takes that much noise.
        self.state_size = environment.state_size

    def initial(self, noise):
        """z_1 for standard normal noise [replicas, episodes, state]."""
        return self.to_latents(self.environment.initial(noise), self._seed)

    def advance(self, state, action, noise):
        """z' for standard normal noise [replicas, episodes, latent]."""
        prior = self.model.transition(state, action)
        return prior.mean + prior.scale * noise

    def emission(self, state):
        """What the model's sensor would show without noise."""
        return self.model.shown(state)

    def observe(self, state, noise):
        """x for standard normal noise [replicas, episodes, observation]."""
        return self.emission(state) + self.model.observation_noise * noise

    def reward(self, state, action, next_state):
        """Of the move, as it shows."""
        shown = self.emission
        return self.environment.shown_reward(shown(state), action, shown(next_state))


class Policy(tf.Module):
    """The network above; its actions are brought within the bounds by the world it acts in.

    Args:
      observation_size, action_size: channels of x_t and a_t.
      action_bound: largest action; the network's outputs are multiples of it.
      hidden_size: width of the recurrent state and of the head's hidden layer.
      seeds: int32 [num_replicas, 2], stateless seeds of the initial parameters.

    Raises:
      ValueError: for sizes below one, or a bound that is not positive.
    """

    def __init__(
        self, *, observation_size, action_size, action_bound, hidden_size, seeds, name="policy"
    ):
        super().__init__(name=name)
        self._bound = _checks.positive_float(action_bound, "action_bound")
        self.action_size = _checks.integer(action_size, "action_size", minimum=1)
        self.hidden_size = _checks.integer(hidden_size, "hidden_size", minimum=1)
        self.num_replicas = int(seeds.shape[0])
        read_seeds, recurrent_seeds, head_seeds = split_seeds(seeds, 3)
        inputs, width = observation_size + action_size, hidden_size
        self._read = Dense(inputs, 3 * width, seeds=read_seeds, name="read")
        self._recurrent = Dense(width, 3 * width, seeds=recurrent_seeds, name="recurrent")
        self._head = MLP(
            width + observation_size,
            width,
            action_size,
            seeds=head_seeds,
            activation="tanh",
            output_scale=0.1,
            name="head",
        )

    def begin(self, batch):
        """Memory and last action before anything was seen."""
        sizes = self.hidden_size, self.action_size
        return tuple(tf.zeros([self.num_replicas, batch, size]) for size in sizes)

    def step(self, memory, action, observation):
        """Read x_t and a_{t-1}, each [replicas, episodes, ...]; returns (memory, a_t)."""
        read = self._read(tf.concat([observation, action], -1))
        memory = gru_step(read, memory, self._recurrent.kernel, self._recurrent.bias)
        return memory, self._bound * self._head(tf.concat([memory, observation], -1))


class Path(NamedTuple):
    """What a policy did.

    states: the first, and after each move, [time + 1, replicas, episodes, state].
    actions: [time, replicas, episodes, action].
    rewards: [time, replicas, episodes].
    """

    states: tf.Tensor
    actions: tf.Tensor
    rewards: tf.Tensor


def roll_out(world, policy, state, moves, sensor):
    """Let a policy act; differentiable in its parameters.

    Args:
      world: an environment, or a `Dream`.
      policy: `Policy`.
      state: first states, [replicas, episodes, state].
      moves: standard normal [time, replicas, episodes, world.noise_size].
      sensor: standard normal [time, replicas, episodes, observation].

    Returns:
      A `Path`.
    """

    def advance(carry, noises):
        state, memory, action, _ = carry
        move, noise = noises
        memory, action = policy.step(memory, action, world.observe(state, noise))
        action = world.limit(action)
        after = world.advance(state, action, move)
        return after, memory, action, world.reward(state, action, after)

    initial = (state, *policy.begin(state.shape[1]), tf.zeros(state.shape[:2]))
    states, _, actions, rewards = tf.scan(advance, (moves, sensor), initializer=initial)
    return Path(tf.concat([state[tf.newaxis], states], 0), actions, rewards)


def negative_return(world_of, policy, penalty):
    """The loss (starts, seeds, kl_weight) -> [replicas] of `training.fit`: - E sum r + penalty.

    Args:
      world_of: seed int32 [2] -> an environment, or a `Dream` whose starts have that seed.
      policy: `Policy`.
      penalty: what the sensor shows [..., observation] -> [...], a cost of training alone, for
        what the gradient of the reward does not tell.

    `starts` are standard normal [replicas, episodes, state]; the world makes first states of them.
    """

    def loss(starts, seeds, kl_weight):
        del kl_weight
        world = world_of(seeds[0])
        shape = [world.horizon, starts.shape[1]]
        move_seeds, sensor_seeds = split_seeds(seeds, 2)
        moves = replica_normal([*shape, world.noise_size], move_seeds, axis=1)
        sensor = replica_normal([*shape, world.observation_size], sensor_seeds, axis=1)
        path = roll_out(world, policy, world.initial(starts), moves, sensor)
        costs = tf.reduce_sum(penalty(world.emission(path.states)), 0) - tf.reduce_sum(
            path.rewards, 0
        )
        return tf.reduce_mean(costs, -1)

    return loss
