"""Linear-quadratic-Gaussian control: what a model costs when one acts on it, in closed form.

    z_t = A z_{t-1} + B u_{t-1} + N(0, Q),   x_t = C z_t + N(0, R),   J = lim E[z' W z + u' U u]

An agent that takes a model for the truth filters with the model's Kalman gain L and acts by the
model's regulator K (certainty equivalence: optimal if the model is the truth, Astrom 1970):

    u_t = -K y_t,   y_{t+1} = (I - L C)(A y_t + B u_t) + L x_{t+1}.

True state and belief mean y together are a linear system, so that the cost on the *true* system
follows from one Lyapunov equation. `tfp_gaps.exact.lqg_learning` learns the models.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import scipy.linalg

from tfp_gaps import _checks
from tfp_gaps.exact import chain
from tfp_gaps.exact._numerics import algebra, riccati


@dataclasses.dataclass(frozen=True, eq=False)
class System(chain.Chain):
    """A controlled linear-Gaussian chain with a quadratic cost; also what an agent takes for it.

        z_1 ~ N(0, initial_cov)
        z_t ~ N(transition z_{t-1} + control u_{t-1}, transition_cov)
        x_t ~ N(emission z_t, emission_cov)
        cost per step: z' state_cost z + u' control_cost u

    n states, m channels, c controls; everything is float64.

    Args:
      transition: A, [n, n]; a scalar stands for [1, 1], here and below.
      control: B, [n, c].
      transition_cov: Q, [n, n], positive semi-definite.
      emission: C, [m, n].
      emission_cov: R, [m, m], positive semi-definite; zero means that C z is seen exactly.
      initial_cov: P_0, [n, n], positive semi-definite; long-run costs do not depend on it.
      state_cost: W, [n, n], positive semi-definite.
      control_cost: U, [c, c], positive semi-definite.

    Raises:
      ValueError: for shapes that do not fit each other, NaN or infinite entries, or a covariance or
        cost that is not symmetric, or not positive semi-definite.

    >>> system = System(1.05, 0.5, 0.1, 1.0, 1.0, 1.0, state_cost=1.0, control_cost=0.1)
    >>> system.state_size, system.observation_size, system.control_size
    (1, 1, 1)
    """

    transition: np.ndarray
    control: np.ndarray
    transition_cov: np.ndarray
    emission: np.ndarray
    emission_cov: np.ndarray
    initial_cov: np.ndarray
    state_cost: np.ndarray
    control_cost: np.ndarray

    @classmethod
    def stationary(cls, *, exploration_cov, **matrices):
        """Start in the stationary law under white controls: P_0 = A P_0 A' + B S B' + Q.

        Args:
          exploration_cov: S, [c, c], covariance of the controls.
          **matrices: the other arguments of the class, without `initial_cov`.

        Returns:
          A `System`.

        Raises:
          ValueError: as for the class, and if the transition is not stable.

        >>> stable = System.stationary(
        ...     transition=0.95, control=0.5, transition_cov=0.1, emission=1.0, emission_cov=1.0,
        ...     state_cost=1.0, control_cost=0.1, exploration_cov=0.25)
        >>> stable.initial_cov.round(4).tolist()
        [[1.6667]]
        """
        size = len(chain.as_matrix(matrices["transition"], "transition"))
        system = cls(**matrices, initial_cov=np.zeros((size, size)))
        system._check_stable()
        exploration = chain.as_covariance(exploration_cov, "exploration_cov", system.control_size)
        driven = system.transition_cov + algebra.congruence(system.control, exploration)
        return dataclasses.replace(system, initial_cov=riccati.lyapunov(system.transition, driven))


# Controllers --------------------------------------------------------------------------------------


class Controller(NamedTuple):
    """A linear agent with memory y: u_t = -feedback y_t, y_{t+1} = memory y_t + gain x_{t+1}.

    feedback: K, [control, memory].
    memory: [memory, memory]; for a filter (I - L C)(A - B K).
    gain: [memory, observation]; for a filter L.
    """

    feedback: np.ndarray
    memory: np.ndarray
    gain: np.ndarray


def certainty_equivalent(model):
    """Optimal agent for a system that is exactly `model`: steady Kalman filter and regulator.

    Both gains come from Riccati equations, S = A'S A - ... + W and its dual. Q, R, W or U may be
    zero. Two cases have no infinite horizon: a model with an unstable part that no control reaches,
    and one with an unstable part that no observation shows. There the agent discounts: A is scaled
    to the spectral radius `riccati.DISCOUNT` in that equation (for B = 0 this gives K = 0).

    Args:
      model: a `System`, learned or true.

    Returns:
      A `Controller` whose memory is the filtered mean.

    References: Astrom 1970, Introduction to Stochastic Control Theory, chapter 8.

    >>> system = System(1.0, 0.5, 0.1, 1.0, 1.0, 1.0, state_cost=1.0, control_cost=0.1)
    >>> agent = certainty_equivalent(system)
    >>> agent.feedback.round(4).tolist(), agent.gain.round(4).tolist()
    ([[1.5311]], [[0.2702]])
    """
    return _agent(model, _steady_filter(model)[1], _regulator(model)[1])


def raw_observation(model):
    """Agent without a filter: the regulator of `model` on C^+ x, as if x had no noise.

    Args:
      model: a `System`.

    Returns:
      A `Controller` that keeps nothing in memory.

    >>> system = System(1.0, 0.5, 0.1, 2.0, 1.0, 1.0, state_cost=1.0, control_cost=0.1)
    >>> raw_observation(system).gain.tolist()
    [[0.5]]
    """
    size = model.state_size
    return Controller(_regulator(model)[1], np.zeros((size, size)), np.linalg.pinv(model.emission))


def no_control(system):
    """Agent that does nothing: u = 0.

    >>> system = System(0.95, 0.5, 0.1, 1.0, 1.0, 1.0, state_cost=1.0, control_cost=0.1)
    >>> round(closed_loop_cost(system, no_control(system)), 4)
    1.0256
    """
    size = system.state_size
    return Controller(
        np.zeros((system.control_size, size)),
        np.zeros((size, size)),
        np.zeros((size, system.observation_size)),
    )


# Costs --------------------------------------------------------------------------------------------


def closed_loop_cost(system, controller):
    """Average cost per step in the long run of an agent on the true system.

        X = M X M' + G diag(Q, R) G',   J = tr(W X_zz) + tr(U K X_yy K'),   s = (z, y)

    Args:
      system: the true `System`.
      controller: a `Controller`, from whatever model.

    Returns:
      cost: J >= 0; `inf` if the closed loop is not stable (spectral radius of M >= 1).

    Raises:
      ValueError: if the controller's sizes do not fit, or it has entries that are not finite.

    >>> system = System(1.0, 0.5, 0.1, 1.0, 1.0, 1.0, state_cost=1.0, control_cost=0.1)
    >>> round(closed_loop_cost(system, certainty_equivalent(system)), 4)
    0.4008
    >>> closed_loop_cost(system, no_control(system))
    inf
    """
    loop, spread = closed_loop(system, controller)
    if riccati.spectral_radius(loop) >= 1.0 - riccati.ROUNDING:
        return float("inf")
    noise = scipy.linalg.block_diag(system.transition_cov, system.emission_cov)
    second_moment = riccati.lyapunov(loop, algebra.congruence(spread, noise))
    states, n = second_moment, system.state_size
    effort = algebra.congruence(controller.feedback, states[n:, n:])
    of_state = algebra.trace(system.state_cost, states[:n, :n])
    return float(of_state + algebra.trace(system.control_cost, effort))


def optimal_cost(system):
    """Smallest average cost per step that any agent reaches which sees only x.

        J* = tr(S Q) + tr((A'S A + W - S) P),   S of the regulator, P the filtered covariance

    Args:
      system: a `System`.

    Returns:
      cost: J*; `inf` if no agent stabilises the system.

    >>> system = System(1.05, 0.5, 0.1, 1.0, 1.0, 1.0, state_cost=1.0, control_cost=0.1)
    >>> round(optimal_cost(system), 4)
    0.4778
    """
    predicted, gain = _steady_filter(system)
    value, feedback = _regulator(system)
    if not np.isfinite(closed_loop_cost(system, _agent(system, gain, feedback))):
        return float("inf")
    filtered = riccati.filtered(predicted, system.emission, system.emission_cov)
    regret = algebra.congruence(system.transition.T, value) + system.state_cost - value
    return float(algebra.trace(value, system.transition_cov) + algebra.trace(regret, filtered))


def closed_loop(system, controller):
    """State and memory as one system: M and G of s_{t+1} = M s_t + G (w_t, v_{t+1}), s = (z, y).

    Args:
      system: the `System` that is acted on.
      controller: a `Controller`.

    Returns:
      loop: M, [state + memory, state + memory].
      spread: G, [state + memory, state + observation].

    Raises:
      ValueError: if the controller's sizes do not fit, or it has entries that are not finite.

    >>> system = System(0.95, 0.5, 0.1, 1.0, 1.0, 1.0, state_cost=1.0, control_cost=0.1)
    >>> closed_loop(system, Controller(np.eye(1), np.zeros((1, 1)), np.eye(1)))[0].tolist()
    [[0.95, -0.5], [0.95, -0.5]]
    """
    _check_controller(system, controller)
    acted = system.control @ controller.feedback
    seen = controller.gain @ system.emission
    loop = np.block(
        [[system.transition, -acted], [seen @ system.transition, controller.memory - seen @ acted]]
    )
    zero = np.zeros((system.state_size, system.observation_size))
    return loop, np.block([[np.eye(system.state_size), zero], [seen, controller.gain]])


class Decomposition(NamedTuple):
    """What a learned model costs, and what each of its faults costs alone; costs per step.

    optimal: J*.
    learned: certainty equivalence with the learned model.
    without_filter: the true model's regulator on the raw observation.
    wrong_dynamics: learned A and B, but the true Q and R, so that the filter is kept.
    open_loop: no control.
    """

    optimal: float
    learned: float
    without_filter: float
    wrong_dynamics: float
    open_loop: float


def decompose(system, model):
    """Separate the damage of a learned model into the lost filter and the wrong dynamics.

    Args:
      system: the true `System`; every state is observed (C has full column rank), so that the
        coordinates of the learned state have a meaning.
      model: a learned `System` with the same emission.

    Returns:
      A `Decomposition`.

    Raises:
      ValueError: if the emissions differ, or hide a part of the state.

    >>> system = System.stationary(
    ...     transition=0.95, control=1.0, transition_cov=0.1, emission=1.0, emission_cov=1.0,
    ...     state_cost=1.0, control_cost=0.1, exploration_cov=0.25)
    >>> costs = decompose(system, dataclasses.replace(system, transition=0.743))
    >>> round(costs.without_filter / costs.optimal, 3)
    3.097
    """
    same = model.emission.shape == system.emission.shape
    if not same or not np.allclose(model.emission, system.emission):
        raise ValueError(
            f"model must have the emission of system, {system.emission.tolist()}, but has "
            f"{model.emission.tolist()}. Bring the learned state into these coordinates first."
        )
    if np.linalg.matrix_rank(system.emission) < system.state_size:
        raise ValueError(
            f"system must show every state, but its emission of shape {system.emission.shape} "
            f"hides some of the {system.state_size}. Decompose systems without hidden states only."
        )
    mixed = dataclasses.replace(system, transition=model.transition, control=model.control)
    agents = (certainty_equivalent(model), raw_observation(system), certainty_equivalent(mixed))
    return Decomposition(
        optimal_cost(system),
        *(closed_loop_cost(system, agent) for agent in (*agents, no_control(system))),
    )


def simulate(system, controller, *, num_timesteps, num_chains, seed):
    """Run the closed loop from z_1 ~ N(0, P_0), y_0 = 0.

    Args:
      system: the true `System`.
      controller: a `Controller`.
      num_timesteps: T.
      num_chains: how many independent runs.
      seed: for `numpy.random.default_rng`.

    Returns:
      costs: z'W z + u'U u, [time, chain]. An unstable loop grows and may overflow to infinity.

    Raises:
      ValueError: for counts below one, or a controller that does not fit.

    >>> system = System(0.95, 0.5, 0.1, 1.0, 1.0, 1.0, state_cost=1.0, control_cost=0.1)
    >>> agent = certainty_equivalent(system)
    >>> simulate(system, agent, num_timesteps=5, num_chains=3, seed=0).shape
    (5, 3)
    """
    _check_controller(system, controller)
    _checks.integer(num_timesteps, "num_timesteps", minimum=1)
    _checks.integer(num_chains, "num_chains", minimum=1)
    rng = np.random.default_rng(seed)

    def noise(covariance):
        return rng.standard_normal((num_chains, len(covariance))) @ algebra.root(covariance).T

    state, costs = noise(system.initial_cov), []
    memory = np.zeros((num_chains, len(controller.memory)))
    for _ in range(num_timesteps):
        seen = state @ system.emission.T + noise(system.emission_cov)
        memory = memory @ controller.memory.T + seen @ controller.gain.T
        controls = -memory @ controller.feedback.T
        costs.append(_quadratic(state, system.state_cost))
        costs[-1] += _quadratic(controls, system.control_cost)
        moved = state @ system.transition.T + controls @ system.control.T
        state = moved + noise(system.transition_cov)
    return np.stack(costs)


# Checks, and what is private ----------------------------------------------------------------------


def _check_controller(system, controller):
    size = len(chain.as_matrix(controller.memory, "memory"))
    wanted = {
        "feedback": (system.control_size, size),
        "memory": (size, size),
        "gain": (size, system.observation_size),
    }
    for name, shape in wanted.items():
        found = chain.as_matrix(getattr(controller, name), name).shape
        if found != shape:
            raise ValueError(
                f"The controller's {name} must have shape {shape} for this system, but has shape "
                f"{found}. Build the controller from a model with the same x and u."
            )


def _agent(model, gain, feedback):
    seen = np.eye(model.state_size) - gain @ model.emission
    return Controller(feedback, seen @ (model.transition - model.control @ feedback), gain)


def _steady_filter(model):
    """Covariance before the update, and the gain, of the steady Kalman filter."""
    covariance = riccati.riccati(
        model.transition, model.emission, model.transition_cov, model.emission_cov
    )
    return covariance, riccati.gain(covariance, model.emission, model.emission_cov)


def _regulator(model):
    """S and K; the regulator is the filter of the transposed system."""
    value = riccati.riccati(
        model.transition.T, model.control.T, model.state_cost, model.control_cost
    )
    gain = riccati.gain(value, model.control.T, model.control_cost)
    return value, gain.T @ model.transition


def _quadratic(vectors, weight):
    return np.einsum("bi,ij,bj->b", vectors, weight, vectors)
