"""Learn the model of a controlled chain by the population-exact ELBO of an inference network.

Data: T steps under white controls u ~ N(0, S) that model and network know. A network with
look-ahead k sees x_{1:t+k} and u_{1:t+k-1} when it infers z_t: every control that has acted on
what it sees, and no later one. For k = 0 that is x_{1:t}, u_{1:t-1}. The objective is

    E ln p(x_{1:T} | u_{1:T-1}) - sum_t 1/2 tr( V_t Cov_data(eta_t | x_{1:t+k}, u_{1:t+k-1}) )

with V_t and eta_t as in `tfp_gaps.exact.linear_gaussian`, whose recursions compute it. Partial
conditions reward models in which the future says nothing more about the state, and several optima
compete: (i) R = 0, an autoregression; (ii) Q = P_0 = 0, output error: only controls move the
state; (iii) one between. They differ little in the bound and much in what they cost in control.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks
from tfp_gaps.exact import chain, lqg
from tfp_gaps.exact import linear_gaussian_learning as learning
from tfp_gaps.exact import linear_gaussian_recursions as recursions
from tfp_gaps.exact._numerics import algebra, bfgs

# A variance below this share of the data's is set to zero if the bound does not mind.
SMALL_VARIANCE = 1e-4
# Rounding of the bound, nats: a loss below it is none.
ROUNDING = 1e-11


class LearnedSystem(NamedTuple):
    """One end point of the search, and what acting on it costs.

    model: a `System`; a variance that went to zero is exactly zero.
    elbo: its expected ELBO with the best q, nats per sequence.
    cost: of certainty-equivalent control with it on the true system.
    start: name of the start that led there.
    """

    model: lqg.System
    elbo: float
    cost: float
    start: str

    @property
    def kind(self):
        """Which noise vanished: "autoregressive", "output error", "interior", or "no noise".

        With hidden states "autoregressive" (no sensor noise) includes the innovations form.
        """
        no_sensor_noise = not np.any(self.model.emission_cov)
        no_state_noise = not np.any(self.model.transition_cov)
        names = ("interior", "output error"), ("autoregressive", "no noise")
        return names[no_sensor_noise][no_state_noise]


def population_elbo(system, model, num_timesteps, lookahead, *, exploration_cov):
    """Expected ELBO per sequence of `model` given the controls, with the best q of a look-ahead.

    Args:
      system: the true `System`, which generates x.
      model: the `System` that is judged; its state may have another size.
      num_timesteps: T.
      lookahead: k; q infers z_t from x_{1:t+k} and u_{1:t+k-1}. None for everything.
      exploration_cov: S, covariance of the white controls, [control, control] or a scalar.

    Returns:
      nats per sequence.

    Raises:
      ValueError: for models whose x or u have other sizes, a bad T, or a negative look-ahead.

    >>> system = lqg.System(0.95, 0.5, 0.1, 1.0, 1.0, 1.6667, state_cost=1.0, control_cost=0.1)
    >>> elbo = [
    ...     population_elbo(system, system, 20, k, exploration_cov=0.25) / 20 for k in (0, 1, None)
    ... ]
    >>> [round(value - elbo[2], 4) for value in elbo]
    [-0.1401, -0.0659, 0.0]
    """
    k = _checks.look_ahead(lookahead, num_timesteps)
    chain.check_same_data(system, model)
    root = exploration_root(system, exploration_cov)
    data, judged = as_matrices(system, root), as_matrices(model, root)
    return recursions.population_elbo(data, judged, num_timesteps, k)


def log_likelihood(system, model, num_timesteps, *, exploration_cov):
    """E ln p_model(x_{1:T} | u_{1:T-1}) under the law of `system`, nats per sequence.

    Args:
      system, model, num_timesteps, exploration_cov: as in `population_elbo`.

    Returns:
      nats per sequence.

    Raises:
      ValueError: as `population_elbo`.

    >>> system = lqg.System(0.95, 0.5, 0.1, 1.0, 1.0, 1.6667, state_cost=1.0, control_cost=0.1)
    >>> round(log_likelihood(system, system, 20, exploration_cov=0.25) / 20, 4)
    -1.5854
    """
    return population_elbo(system, model, num_timesteps, None, exploration_cov=exploration_cov)


# Learning -----------------------------------------------------------------------------------------


def learn(system, num_timesteps, lookahead, **options):
    """The best of `local_optima`: what infinite data and a perfect q of that look-ahead teach.

    Args:
      system, num_timesteps, lookahead, **options: as in `local_optima`.

    Returns:
      A `LearnedSystem`.

    Raises:
      ValueError: as `local_optima`.

    >>> system = lqg.System.stationary(
    ...     transition=0.95, control=0.5, transition_cov=0.1, emission=1.0, emission_cov=1.0,
    ...     state_cost=1.0, control_cost=0.1, exploration_cov=0.25)
    >>> learned = learn(system, 5, lookahead=0, exploration_cov=0.25)
    >>> learned.kind, round(learned.model.transition.item(), 4)
    ('autoregressive', 0.5938)
    """
    return local_optima(system, num_timesteps, lookahead, **options)[0]


def local_optima(
    system,
    num_timesteps,
    lookahead,
    *,
    exploration_cov,
    seed=0,
    state_size=None,
    num_starts=7,
    from_truth=True,
):
    """Distinct end points of maximising `population_elbo` over A, B, Q, R, P_0, best first.

    Starts: the truth, the truth with hardly any R, Q, or Q and P_0, the best autoregression, with
    spare states the innovations form, and random ones. All climb together.
    Coordinates of the state are arbitrary: C stays that of `system` where this costs nothing.

    Args:
      system: the true `System`; R positive definite.
      num_timesteps: T of the training sequences.
      lookahead: k of the inference network; None for all.
      exploration_cov: S, covariance of the white controls.
      seed: of the random starts.
      state_size: size of the learned state; None for the true size.
      num_starts: number of random starts.
      from_truth: False leaves out the truth and its two neighbours.

    Returns:
      A list of `LearnedSystem`, by falling `elbo`; end points within 1e-6 nats count as one.

    Raises:
      ValueError: for bad sizes or look-ahead, a singular R, a cost that hidden states enter, or if
        no start gives a finite bound.

    >>> system = lqg.System(1.0, 0.5, 0.1, 1.0, 1.0, 1.0, state_cost=1.0, control_cost=0.1)
    >>> for optimum in local_optima(system, 20, 0, exploration_cov=0.25)[:2]:
    ...     print(optimum.kind, round(optimum.model.transition.item(), 3))
    interior 0.891
    autoregressive 0.711
    """
    if np.min(np.linalg.eigvalsh(system.emission_cov)) <= 0:
        raise ValueError(
            "Learning needs a positive definite emission_cov, but that of system is singular: the "
            "density of x would not exist. Use a small value such as 1e-9."
        )
    weight = _cost_of_observation(system)
    root = exploration_root(system, exploration_cov)
    starts = learning.Starts(state_size, num_starts, seed, from_truth)
    data, learned = as_matrices(system, root), []
    for optimum in learning.maximise(data, num_timesteps, lookahead, starts, SEARCH):
        matrices = _with_unit_hidden_states(optimum.model, num_timesteps)
        model = _system(matrices, root, weight, system.control_cost)
        cost = lqg.closed_loop_cost(system, lqg.certainty_equivalent(model))
        learned.append(LearnedSystem(model, optimum.elbo, cost, optimum.start))
    return learned


def autoregression(system, num_timesteps, *, exploration_cov):
    """Candidate (i) in closed form: the best first-order autoregression of x with input.

        a' = sum Cov(x_{t+1}, x_t) / sum Var x_t,   b' = C B,   R' = 0

    and Q' the variance that is left; in a stationary scalar chain a' = a P_0 / (P_0 + R). As the
    state is seen exactly its bound is tight: the ELBO equals the log-likelihood.

    Args:
      system: the true `System`; the emission is square and regular.
      num_timesteps: T >= 2.
      exploration_cov: S, covariance of the white controls.

    Returns:
      A `LearnedSystem`.

    Raises:
      ValueError: for T < 2, an emission that is not invertible.

    >>> system = lqg.System.stationary(
    ...     transition=0.95, control=0.5, transition_cov=0.1, emission=1.0, emission_cov=1.0,
    ...     state_cost=1.0, control_cost=0.1, exploration_cov=0.25)
    >>> fit = autoregression(system, 20, exploration_cov=0.25)
    >>> round(fit.model.transition.item(), 4), round(fit.model.transition_cov.item(), 4)
    (0.5938, 1.6641)
    >>> round(fit.cost, 4)
    0.5
    """
    _checks.integer(num_timesteps, "num_timesteps", minimum=2, advice="A regression needs pairs.")
    size = system.state_size
    if system.emission.shape != (size, size) or np.linalg.matrix_rank(system.emission) < size:
        raise ValueError(
            "The first-order autoregression is a model of the state only if the emission can be "
            f"inverted, but it has shape {system.emission.shape} and rank "
            f"{np.linalg.matrix_rank(system.emission)}. Use local_optima."
        )
    data = as_matrices(system, exploration_root(system, exploration_cov))
    coefficients, innovation, initial = learning.pooled_regression(data, num_timesteps, order=1)
    back = np.linalg.inv(system.emission)
    model = dataclasses.replace(
        system,
        transition=back @ coefficients @ system.emission,
        transition_cov=algebra.congruence(back, innovation),
        emission_cov=np.zeros((size, size)),
        initial_cov=algebra.congruence(back, initial),
    )
    elbo = log_likelihood(system, model, num_timesteps, exploration_cov=exploration_cov)
    cost = lqg.closed_loop_cost(system, lqg.certainty_equivalent(model))
    return LearnedSystem(model, elbo, cost, "closed form")


# Search, and what is private ----------------------------------------------------------------------


def _with_unit_hidden_states(model, num_timesteps):
    """Scale what the emission does not see, and nothing else fixes, to mean variance one."""
    scale, _ = learning.scales(model, num_timesteps)
    hidden = ~np.any(model.emission, axis=0)
    unit = np.where(hidden, 1.0 / scale, 1.0)
    return learning.rescaled(model, unit, np.ones(len(model.emission)))


def _with_zeros(bound, model):
    """Set the small variances of Q, R and P_0 to zero where the bound does not fall."""
    for name in ("transition_cov", "emission_cov", "initial_cov"):
        values, vectors = np.linalg.eigh(getattr(model, name))
        kept = np.where(values < SMALL_VARIANCE, 0.0, values)
        corner = model._replace(**{name: (vectors * kept) @ vectors.T})
        with np.errstate(all="ignore"):
            try:
                fell = not bound(corner) >= bound(model) - ROUNDING
            except np.linalg.LinAlgError:
                fell = True
        model = model if fell else corner
    return model


# All starts climb together. Forgetting the curvature helps in the long valleys towards a corner.
STAGES = (1e-3, 1e-4, 200), (1e-6, 1e-6, 400), (1e-7, 1e-6, 800)
SEARCH = learning.Search(bfgs.minimise, STAGES, most=5, finish=_with_zeros)


def as_matrices(system, root):
    """A `System` as `Matrices`, in units in which the controls have unit variance."""
    shared = (getattr(system, name) for name in recursions.Matrices._fields[:-1])
    return recursions.Matrices(*shared, system.control @ root)


def _system(judged, root, weight, control_cost):
    back = judged._replace(control=judged.control @ np.linalg.inv(root))
    state_cost = algebra.congruence(judged.emission.T, weight)
    return lqg.System(**back._asdict(), state_cost=state_cost, control_cost=control_cost)


def exploration_root(system, exploration_cov):
    """Cholesky factor of S; a control that never moves teaches nothing about B."""
    covariance = chain.as_covariance(exploration_cov, "exploration_cov", system.control_size)
    smallest = np.min(np.linalg.eigvalsh(covariance))
    if smallest <= 0:
        raise ValueError(
            "exploration_cov must be positive definite, so that B can be learned, but its smallest "
            f"eigenvalue is {smallest:g}. Explore with every control."
        )
    return np.linalg.cholesky(covariance)


def _cost_of_observation(system):
    """w with W = C' w C: what a learned model knows of the cost of its own coordinates."""
    inverse = np.linalg.pinv(system.emission)
    weight = algebra.symmetric(algebra.congruence(inverse.T, system.state_cost))
    again = algebra.congruence(system.emission.T, weight)
    if not np.allclose(again, system.state_cost, atol=1e-9 * np.max(np.abs(system.state_cost))):
        raise ValueError(
            "state_cost must be a cost of the noise-free observation C z, W = C' w C, because the "
            f"coordinates of a learned state are arbitrary, but is {system.state_cost.tolist()} "
            f"with emission {system.emission.tolist()}. Give hidden states no cost."
        )
    return weight
