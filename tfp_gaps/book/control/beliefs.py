"""What an agent holds for possible, given what it has seen and done: beliefs to plan from.

A belief is anything with three methods,

    start(observed, seed)                    after the first observation
    update(memory, action, observed, seed)   after one more action and observation
    particles(memory, num, seed)             an equally weighted sample

where `memory` is its recurrent state, a structure of tensors, and `observed` an `Observation`. All
of it can be compiled. Shapes: actions [replicas, episodes, action], observations likewise, samples
[replicas, episodes, num, state].

* `ExactState` knows the state: no filter can do better.
* `BootstrapFilter` filters with the true dynamics and many particles.
* `AdaptedFilter` filters with a learned model, proposing from p(z_t | z_{t-1}, x_t).
* `PartialPosterior` runs the inference network that was trained to see x_{1:t} as if it were a
  filter, which is what practitioners do.
* `DistilledFilter` runs a network that was trained to be one.
* `MappedBelief` maps the states of another belief to those of a planner's model.
"""

import math
from typing import NamedTuple

from tfp_gaps import _checks
from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.book.control.world_model import adapted
from tfp_gaps.networks import split_seeds

smc = tfp.experimental.mcmc


class Observation(NamedTuple):
    """What comes in at a step.

    sensor: x_t, [replicas, episodes, observation].
    state: s_t, [replicas, episodes, state]; hidden, for `ExactState` alone.
    """

    sensor: tf.Tensor
    state: tf.Tensor


class ExactState:
    """The state itself."""

    def start(self, observed, seed):
        """See the module."""
        del seed
        return observed.state

    def update(self, memory, action, observed, seed):
        """See the module."""
        del memory, action, seed
        return observed.state

    def particles(self, memory, num, seed):
        """The state, `num` times."""
        del seed
        return tf.repeat(memory[:, :, tf.newaxis], num, 2)


class _Filter:
    """What particle filters share: their memory is an equally weighted sample in random order,
    [particles, replicas, episodes, state]."""

    def __init__(self, num_particles):
        self.num_particles = _checks.integer(num_particles, "num_particles", minimum=2)

    def particles(self, memory, num, seed):
        """The first `num` of them, or as many as there are; their order is random."""
        del seed
        return tf.transpose(memory[:num], [1, 2, 0, 3])

    def start(self, observed, seed):
        """See the module."""
        return self.first(observed.sensor, seed)[0]

    def update(self, memory, action, observed, seed):
        """See the module."""
        return self.next(memory, action, observed.sensor, seed)[0]

    def _noise(self, seed, like, size):
        shape = [self.num_particles, *like.shape[:2], size]
        return tf.random.stateless_normal(shape, seed, alg="philox")


class BootstrapFilter(_Filter):
    """A particle filter on an environment's true dynamics.

    Args:
      environment: one of `control.environments`.
      num_particles: at least 2.
      exploring: whether episodes start as in exploration.
    """

    def __init__(self, environment, num_particles, *, exploring=False):
        super().__init__(num_particles)
        self.environment, self.exploring = environment, exploring

    def first(self, observation, seed):
        """Particles given x_1, and an estimate of ln p(x_1), [replicas, episodes]."""
        world = self.environment
        noise_seed, choice_seed = _two(seed)
        draw = world.exploration_start if self.exploring else world.initial
        state = draw(self._noise(noise_seed, observation, world.state_size))
        return self._weigh(state, observation, choice_seed)

    def next(self, memory, action, observation, seed):
        """Particles given one more observation, and an estimate of ln p(x_t | x_{1:t-1})."""
        world = self.environment
        noise_seed, choice_seed = _two(seed)
        action = tf.repeat(action[tf.newaxis], self.num_particles, 0)
        noise = self._noise(noise_seed, observation, world.noise_size)
        return self._weigh(world.advance(memory, action, noise), observation, choice_seed)

    def _weigh(self, state, observation, seed):
        log_weights = self.environment.observation_log_prob(state, observation)
        return resample(state, log_weights, seed), _log_mean(log_weights)


class AdaptedFilter(_Filter):
    """The fully adapted particle filter on a learned model: chosen by p(x_t | z_{t-1}), moved by
    p(z_t | z_{t-1}, x_t) (Pitt and Shephard 1999).

    Args:
      model: `WorldModel`.
      num_particles: at least 2.
    """

    def __init__(self, model, num_particles):
        super().__init__(num_particles)
        self.model = model

    def first(self, observation, seed):
        """Particles given x_1, and ln p(x_1), [replicas, episodes]."""
        posterior, log_evidence = adapted(self.model, self.model.initial(), observation)
        noise = self._noise(seed, observation, self.model.latent_size)
        return posterior.mean + posterior.scale * noise, log_evidence

    def next(self, memory, action, observation, seed):
        """Particles given one more observation, and an estimate of ln p(x_t | x_{1:t-1})."""
        noise_seed, choice_seed = _two(seed)
        action = tf.repeat(action[tf.newaxis], self.num_particles, 0)
        posterior, log_weights = adapted(
            self.model, self.model.transition(memory, action), observation
        )
        noise = self._noise(noise_seed, observation, self.model.latent_size)
        moved = posterior.mean + posterior.scale * noise
        # Each particle has its own normal posterior: to move all and choose then is the same.
        return resample(moved, log_weights, choice_seed), _log_mean(log_weights)


class PartialPosterior:
    """q(z_t | z_{t-1}, x_{1:t}, u_{1:t-1}), run through time as if it were a filter.

    Every particle is a path that q draws; none is ever weighted.

    Args:
      model: the model whose prior q is relative to.
      network: `LookAheadNetwork`, trained with `LookAhead(0)`.
      num_particles: at least 2.
    """

    def __init__(self, model, network, num_particles):
        self.model, self.network = model, network
        self.num_particles = _checks.integer(num_particles, "num_particles", minimum=2)

    def start(self, observed, seed):
        """See the module."""
        context, recurrent = _read_first(self.network, observed.sensor)
        return self._draw(self.model.initial(), None, context, seed), recurrent

    def update(self, memory, action, observed, seed):
        """See the module."""
        latent, recurrent = memory
        context, recurrent = self.network.step(recurrent, observed.sensor, action)
        prior = self.model.transition(latent, tf.repeat(action[tf.newaxis], self.num_particles, 0))
        return self._draw(prior, latent, context, seed), recurrent

    def particles(self, memory, num, seed):
        """The first `num` paths."""
        del seed
        return tf.transpose(memory[0][:num], [1, 2, 0, 3])

    def _draw(self, prior, latent, context, seed):
        factor = self.network.factor(prior, latent, context)
        shape = [self.num_particles, *context.shape[:2], self.model.latent_size]
        noise = tf.random.stateless_normal(shape, seed, alg="philox")
        return factor.mean + factor.scale * noise


class DistilledFilter:
    """A network's own p(z_t | x_{1:t}, u_{1:t-1}).

    Args:
      network: `distillation.filter_network.FilterNetwork`.
    """

    def __init__(self, network):
        self.network = network

    def start(self, observed, seed):
        """See the module."""
        del seed
        return _read_first(self.network, observed.sensor)

    def update(self, memory, action, observed, seed):
        """See the module."""
        del seed
        return self.network.step(memory[1], observed.sensor, action)

    def particles(self, memory, num, seed):
        """Drawn afresh from the network's mixture."""
        return tf.transpose(self.network.mixture(memory[0]).sample(num, seed=seed), [1, 2, 0, 3])


def _read_first(network, observation):
    """(context, recurrent state) after x_1, before which nothing was done."""
    batch = observation.shape[1]
    nothing = tf.zeros([*observation.shape[:2], network.control_size])
    return network.step(network.begin(batch), observation, nothing)


class MappedBelief:
    """Another belief, mapped to the states of another model.

    Args:
      belief: any belief.
      state_map: (particles [replicas, episodes, num, state], seed) -> [..., other state].
    """

    def __init__(self, belief, state_map):
        self.belief, self.state_map = belief, state_map
        self.start, self.update = belief.start, belief.update

    def particles(self, memory, num, seed):
        """A sample of the belief, mapped."""
        draw_seed, map_seed = _two(seed)
        return self.state_map(self.belief.particles(memory, num, draw_seed), map_seed)


def resample(particles, log_weights, seed):
    """Draw an equally weighted sample, in random order.

    Where no particle has a finite weight, as when a model meets what it holds for impossible, all
    are kept: a filter that has lost the state goes on with what it believed.

    Args:
      particles: [particles, ..., state].
      log_weights: [particles, ...].
      seed: int32 [2].

    Returns:
      particles: [particles, ..., state].
    """
    count = log_weights.shape[0]
    choice_seed, order_seed = _two(seed)
    usable = tf.where(tf.math.is_finite(log_weights), log_weights, -1e30)
    # TFP's resampling takes weights that sum to one for granted.
    parents = smc.resample_systematic(tf.nn.log_softmax(usable, 0), count, (), seed=choice_seed)
    # Neighbours descend from the same particle.
    order = tf.argsort(tf.random.stateless_uniform([count], order_seed, alg="philox"))
    parents = tf.gather(parents, order)
    index = tf.broadcast_to(parents[..., tf.newaxis], particles.shape)
    return tf.experimental.numpy.take_along_axis(particles, index, axis=0)


def _log_mean(log_weights):
    return tf.reduce_logsumexp(log_weights, 0) - math.log(log_weights.shape[0])


def _two(seed):
    return [part[0] for part in split_seeds(seed[tf.newaxis], 2)]
