"""Act on models that were learned with and without the future, where everything is exact.

A `World` is a controlled linear-Gaussian system together with the data that models of it are
learned from. `learn` finds, for each look-ahead k, the model that infinite data and the best q of
that look-ahead lead to, and what certainty-equivalent control with it costs on the true system,

    ratio = J(agent of the learned model) / J*,

where J* is the least cost of any agent that sees what the sensor shows. The agent filters with the
Kalman gain of its model in every case, so that it is causal whatever q saw in training.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks
from tfp_gaps.estimate import Estimate
from tfp_gaps.exact import linear_gaussian, lqg, lqg_belief, lqg_learning, lqg_policy
from tfp_gaps.exact._numerics import riccati


class World(NamedTuple):
    """A system, and the exploration that its models are learned from.

    system: the true `lqg.System`.
    num_timesteps: T of the training sequences.
    exploration_cov: variance of the white controls in them, known to model and q.
    """

    system: lqg.System
    num_timesteps: int
    exploration_cov: float


def scalar(transition, emission_cov, *, control=0.5):
    """One state behind a noisy sensor: z' = a z + b u + N(0, .1), x = z + N(0, R).

    Its cost is z^2 + .1 u^2; T = 20, u ~ N(0, .25). It starts in the stationary law of exploration
    if a < 1, and in N(0, 1) otherwise.

    Args:
      transition: a.
      emission_cov: R.
      control: b.

    Returns:
      A `World`.

    >>> world = scalar(0.95, 1.0)
    >>> round(lqg.optimal_cost(world.system), 4), world.system.initial_cov.round(4).item()
    (0.3385, 1.6667)
    """
    matrices = {
        "transition": transition,
        "control": control,
        "transition_cov": 0.1,
        "emission": 1.0,
        "emission_cov": emission_cov,
        "state_cost": 1.0,
        "control_cost": 0.1,
    }
    if abs(transition) < 1:
        system = lqg.System.stationary(**matrices, exploration_cov=0.25)
    else:
        system = lqg.System(**matrices, initial_cov=1.0)
    return World(system, 20, 0.25)


def position_velocity(emission_cov):
    """A swinging mass that is pushed; the sensor shows its position and hides its velocity.

    A = [[1, .3], [-.1, .95]], B = (0, .3), Q = diag(.0001, .04), x = position + N(0, R), cost
    position^2 + .1 u^2; T = 8, u ~ N(0, 1), stationary start.

    Args:
      emission_cov: R.

    Returns:
      A `World`.

    >>> round(lqg.optimal_cost(position_velocity(0.1).system), 4)
    0.2585
    """
    system = lqg.System.stationary(
        transition=[[1.0, 0.3], [-0.1, 0.95]],
        control=[[0.0], [0.3]],
        transition_cov=np.diag([1e-4, 0.04]),
        emission=[[1.0, 0.0]],
        emission_cov=emission_cov,
        state_cost=np.diag([1.0, 0.0]),
        control_cost=0.1,
        exploration_cov=1.0,
    )
    return World(system, 8, 1.0)


def settled(world):
    """The same world, started where the filter has converged: P_0 is its steady P before updates.

    Args:
      world: a `World`.

    Returns:
      A `World`.

    >>> settled(scalar(0.95, 1.0)).system.initial_cov.round(4).item()
    0.3175
    """
    return world._replace(
        system=dataclasses.replace(world.system, initial_cov=_steady_prediction(world.system))
    )


# Learning and acting ------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """What learning with one look-ahead leads to, and what acting on it costs.

    lookahead: k, or None for all conditions.
    optima: distinct end points of the search, the best bound first: `lqg_learning.LearnedSystem`.
    optimal_cost: J* of the true system.
    gap_at_truth: conditioning gap at the parameters of the data, nats per step.
    loss: log-likelihood of the truth minus that of the learned model, nats per step.
    slack: gap that is left at the learned model, nats per step.
    """

    lookahead: int | None
    optima: list
    optimal_cost: float
    gap_at_truth: float
    loss: float
    slack: float

    @property
    def learned(self):
        """The optimum with the best bound."""
        return self.optima[0]

    @property
    def ratio(self):
        """Cost of the learned agent over that of the best one; `inf` if its loop is unstable."""
        return self.learned.cost / self.optimal_cost


def learn(world, lookaheads, *, state_size=None, num_starts=3, from_truth=True, seed=0):
    """Learn a model for each look-ahead, and act on it.

    Args:
      world: a `World`.
      lookaheads: sequence of k; None for all conditions.
      state_size: size of the learned state; None for the true one.
      num_starts: random starts besides the structured ones.
      from_truth: False leaves out the truth and its neighbours as starts.
      seed: of the random starts.

    Returns:
      A dict from k to its `Outcome`.

    Raises:
      ValueError: as `lqg_learning.local_optima`.

    >>> outcomes = learn(scalar(0.95, 1.0), [0, None], num_starts=0)
    >>> {k: round(outcome.ratio, 3) for k, outcome in outcomes.items()}
    {0: 1.477, None: 1.0}
    """
    best = lqg.optimal_cost(world.system)
    truth = _log_likelihood(world, world.system)
    outcomes = {}
    for k in lookaheads:
        optima = lqg_learning.local_optima(
            world.system,
            world.num_timesteps,
            k,
            exploration_cov=world.exploration_cov,
            state_size=state_size,
            num_starts=num_starts,
            from_truth=from_truth,
            seed=seed,
        )
        reached = _log_likelihood(world, optima[0].model)
        gap = truth - bound(world, world.system, k)
        nats = gap, truth - reached, reached - optima[0].elbo
        outcomes[k] = Outcome(k, optima, best, *(value / world.num_timesteps for value in nats))
    return outcomes


def autoregression(world):
    """The best model without sensor noise, in closed form: where k = 0 mostly ends.

    Args:
      world: a `World` whose sensor shows every state.

    Returns:
      A `lqg_learning.LearnedSystem`.

    >>> round(autoregression(scalar(0.95, 1.0)).model.transition.item(), 4)
    0.5938
    """
    return lqg_learning.autoregression(
        world.system, world.num_timesteps, exploration_cov=world.exploration_cov
    )


def bound(world, model, lookahead):
    """Expected ELBO of a model with the best q of a look-ahead, nats per sequence.

    Args:
      world: a `World`.
      model: an `lqg.System`, whose state may have another size.
      lookahead: k, or None.

    >>> world = scalar(0.95, 1.0)
    >>> round(bound(world, world.system, None) / 20, 4)
    -1.5854
    """
    return lqg_learning.population_elbo(
        world.system,
        model,
        world.num_timesteps,
        lookahead,
        exploration_cov=world.exploration_cov,
    )


def simulated_cost(system, model, *, seed, num_chains=4000, num_timesteps=400):
    """Cost per step of the agent of `model` by simulation, without the first half of each run.

    Args:
      system: the true `lqg.System`.
      model: the `lqg.System` that the agent takes for it.
      seed: of all noises.
      num_chains: independent runs.
      num_timesteps: steps of each.

    Returns:
      An `Estimate` over runs.

    >>> system = scalar(0.95, 1.0).system
    >>> print(simulated_cost(system, system, seed=0, num_chains=1000))
    0.3398 ± 0.0020
    """
    costs = lqg.simulate(
        system,
        lqg.certainty_equivalent(model),
        num_timesteps=num_timesteps,
        num_chains=num_chains,
        seed=seed,
    )
    # Steps of a run depend on each other, runs do not: the error is over the means of runs.
    return Estimate.from_samples(costs[num_timesteps // 2 :].mean(axis=0), kind="Monte Carlo")


class Optimised(NamedTuple):
    """A linear policy that was optimised inside a model by gradients.

    expected: what it costs in that model, per step.
    cost: what it costs on the true system; `inf` if it is unstable there.
    """

    expected: float
    cost: float


def optimise(world, model, memory_size, *, num_starts=4):
    """Optimise a policy inside a model, and let it act on the true system.

    Args:
      world: a `World`.
      model: the `lqg.System` that it is optimised in.
      memory_size: numbers that it remembers; 0 for u_t = -K x_t.
      num_starts: of the search.

    Returns:
      `Optimised`.

    Raises:
      ValueError: as `lqg_policy.optimise`.

    >>> world = scalar(0.95, 1.0)
    >>> best = lqg.optimal_cost(world.system)
    >>> costs = [optimise(world, world.system, size).cost for size in (0, 1)]
    >>> [round(cost / best, 3) for cost in costs]
    [1.008, 1.0]
    """
    policy = lqg_policy.optimise(model, memory_size, num_starts=num_starts)
    return Optimised(*(lqg.closed_loop_cost(each, policy) for each in (model, world.system)))


# What the agent believes, and what it may see -----------------------------------------------------


class Belief(NamedTuple):
    """What q claims about one state component at one step, and what is true.

    filtered: standard deviation of the exact filter, the least error possible online.
    claimed: standard deviation of q.
    error: root mean squared error of q's mean.
    half, ninety: how often q's central 50 % and 90 % intervals hold the state.
    """

    filtered: float
    claimed: float
    error: float
    half: float
    ninety: float


def belief(world, model, lookahead, *, step=None, component=0):
    """Run the best q of a model over data of the world.

    Args:
      world: a `World`.
      model: an `lqg.System` with the world's state size and coordinates.
      lookahead: k, or None.
      step: time step, from 1; None for the middle of the sequence.
      component: of the state.

    Returns:
      A `Belief`.

    Raises:
      ValueError: as `lqg_belief.belief`, and if there is no such step.

    >>> world = scalar(0.95, 1.0)
    >>> found = belief(world, world.system, 0)
    >>> f"{found.claimed:.4f} {found.error:.4f} {found.ninety:.3f}"
    '0.3982 0.5357 0.778'
    """
    step = world.num_timesteps // 2 if step is None else _checks.integer(step, "step", minimum=1)
    if step > world.num_timesteps:
        raise ValueError(f"step must be at most T = {world.num_timesteps}, but is {step}.")
    found = lqg_belief.belief(
        world.system,
        model,
        world.num_timesteps,
        lookahead,
        exploration_cov=world.exploration_cov,
    )
    deviations = (np.sqrt(matrix[step - 1, component, component]) for matrix in found)
    coverages = (found.coverage(nominal)[step - 1, component] for nominal in (0.5, 0.9))
    return Belief(*map(float, (*deviations, *coverages)))


def later_share(world, lookahead):
    """Share of the weights in q's mean that lies on later observations; zero if q works online.

    Taken at step T / 2.

    Args:
      world: a `World`; q is the best one of the true system.
      lookahead: k, or None.

    Returns:
      sum_{s > t} |W_ts| / sum_s |W_ts|, between 0 and 1.

    >>> later_share(scalar(0.95, 1.0), 0)
    0.0
    """
    system = world.system
    # Controls are known, and move the mean; the weights of the observations are those without.
    chain = linear_gaussian.LinearGaussian(
        system.transition,
        system.transition_cov,
        system.emission,
        system.emission_cov,
        system.initial_cov,
    )
    factors = linear_gaussian.shared_factors(chain, chain, world.num_timesteps, lookahead)
    middle = world.num_timesteps // 2
    weights = np.abs(factors.observation_weights[middle - 1]).sum(axis=(0, 2))
    return float(weights[middle:].sum() / weights.sum())


# The way out that a larger state offers -----------------------------------------------------------


def innovations_form(system):
    """The steady filter of a system, written as a model of the data: nothing is hidden in it.

        m_{t+1} = A (m_t + L e_t) + B u_t,   x_t = C m_t + e_t,   e_t ~ N(0, C P C' + R)

    Its state (m, e), the prediction and its error, is a function of past and present observations;
    n + m states for a system with n and m channels. It has the law of x of the system once the
    filter has settled, and the same best agent.

    Args:
      system: an `lqg.System`.

    Returns:
      An `lqg.System` with emission_cov zero.

    >>> system = scalar(0.95, 1.0).system
    >>> form = innovations_form(system)
    >>> form.state_size, form.transition.round(4).tolist()
    (2, [[0.95, 0.2289], [0.0, 0.0]])
    >>> cost = lqg.closed_loop_cost(system, lqg.certainty_equivalent(form))
    >>> round(cost / lqg.optimal_cost(system), 6)
    1.0
    """
    predicted = _steady_prediction(system)
    gain = riccati.gain(predicted, system.emission, system.emission_cov)
    spread = system.emission @ predicted @ system.emission.T + system.emission_cov
    n, channels = system.state_size, system.observation_size
    driven = np.zeros((n + channels, n + channels))
    driven[n:, n:] = spread
    filtered = np.hstack([np.eye(n), gain])
    silent = np.zeros((channels, n + channels))
    return lqg.System(
        transition=np.vstack([system.transition @ filtered, silent]),
        control=np.vstack([system.control, np.zeros((channels, system.control_size))]),
        transition_cov=driven,
        emission=np.hstack([system.emission, np.eye(channels)]),
        emission_cov=np.zeros((channels, channels)),
        initial_cov=driven,
        state_cost=filtered.T @ system.state_cost @ filtered,
        control_cost=system.control_cost,
    )


def _steady_prediction(system):
    return riccati.riccati(
        system.transition, system.emission, system.transition_cov, system.emission_cov
    )


def _log_likelihood(world, model):
    return bound(world, model, None)
