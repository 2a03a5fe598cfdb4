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
from tfp_gaps.exact import linear_gaussian_learning as learning
from tfp_gaps.exact import linear_gaussian_recursions as recursions
from tfp_gaps.exact import lqg
from tfp_gaps.exact._numerics import batched_bfgs

# Stages of a climb: ends whose losses agree to the first number (nats, and relative) count as one
# afterwards; largest entry of the gradient, in nats per unit of a parameter; most evaluations. Each
# stage forgets the curvature of the one before, which helps in the long valleys towards a corner.
STAGES = (1e-4, 1e-3, 200), (1e-6, 1e-6, 400), (1e-6, 1e-7, 800)
MOST_OPTIMA = 5
# A variance below this share of the data's is set to zero if the bound does not mind.
SMALL_VARIANCE = 1e-4
# Rounding of the bound, nats: a loss below it is none.
ROUNDING = 1e-11


class Optimum(NamedTuple):
    """One end point of the search.

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
    root = exploration_root(system, exploration_cov)
    data, judged = as_matrices(system, root), as_matrices(same_interface(system, model), root)
    return _bound(data, judged, num_timesteps, k)


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
      An `Optimum`.

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
      A list of `Optimum`, by falling `elbo`; end points within 1e-6 nats count as one.

    Raises:
      ValueError: for bad sizes or look-ahead, a singular R, a cost that hidden states enter, or if
        no start gives a finite bound.

    >>> system = lqg.System(1.0, 0.5, 0.1, 1.0, 1.0, 1.0, state_cost=1.0, control_cost=0.1)
    >>> for optimum in local_optima(system, 20, 0, exploration_cov=0.25)[:2]:
    ...     print(optimum.kind, round(optimum.model.transition.item(), 3))
    interior 0.891
    autoregressive 0.711
    """
    k = _checks.look_ahead(lookahead, num_timesteps)
    size = system.state_size if state_size is None else state_size
    size = _checks.integer(size, "state_size", minimum=1)
    _checks.integer(num_starts, "num_starts", minimum=0)
    if np.min(np.linalg.eigvalsh(system.emission_cov)) <= 0:
        raise ValueError(
            "Learning needs a positive definite emission_cov, but that of system is singular: the "
            "density of x would not exist. Use a small value such as 1e-9."
        )
    weight = _cost_of_observation(system)
    root = exploration_root(system, exploration_cov)
    found = _maximise(
        as_matrices(system, root),
        num_timesteps,
        k,
        learning.Starts(size, num_starts, seed, from_truth),
    )
    optima = []
    for name, elbo, matrices in found:
        model = _system(matrices, root, weight, system.control_cost)
        cost = lqg.closed_loop_cost(system, lqg.certainty_equivalent(model))
        optima.append(Optimum(model, elbo, cost, name))
    return optima


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
      An `Optimum`.

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
        transition_cov=recursions.congruence(back, innovation),
        emission_cov=np.zeros((size, size)),
        initial_cov=recursions.congruence(back, initial),
    )
    elbo = log_likelihood(system, model, num_timesteps, exploration_cov=exploration_cov)
    cost = lqg.closed_loop_cost(system, lqg.certainty_equivalent(model))
    return Optimum(model, elbo, cost, "closed form")


# Search, and what is private ----------------------------------------------------------------------


def _maximise(data, num_timesteps, lookahead, starts):
    """Climb from all starts; (name, elbo, `Matrices`) of each distinct end, best first."""
    state_scale, observation_scale = learning.scales(data, num_timesteps)
    unit = learning.rescaled(data, 1.0 / state_scale, 1.0 / observation_scale)
    size = max(starts.state_size, len(state_scale))
    target = recursions.padded(unit, size)
    predicted, _ = recursions.forward(target, num_timesteps)

    def bound(model):
        judged = recursions.padded(model, size)
        return recursions.bound(target, predicted, judged, num_timesteps, lookahead)

    ends = []
    for space, names, vectors in _grouped(_all_starts(unit, num_timesteps, starts)):
        for _, vector, name in _climb(
            lambda v, space=space: bound(space.matrices(v)), vectors, names
        ):
            corner = _with_zeros(bound, space.matrices(vector))
            ends.append((-float(bound(corner)), corner, name))
    if not ends:
        raise ValueError(
            "Nothing was learned: the expected ELBO is finite at no start, or there is none. Check "
            "that the variances of system stay finite over num_timesteps, and that num_starts is "
            "positive if from_truth is False."
        )
    back = np.append(state_scale, np.ones(max(starts.state_size - len(state_scale), 0)))
    found = []
    for _, model, name in learning.distinct(ends):
        model = learning.rescaled(model, back[: starts.state_size], observation_scale)
        model = _with_unit_hidden_states(model, num_timesteps)
        found.append((name, _bound(data, model, num_timesteps, lookahead), model))
    return found


def _with_unit_hidden_states(model, num_timesteps):
    """Scale what the emission does not see, and nothing else fixes, to mean variance one."""
    scale, _ = learning.scales(model, num_timesteps)
    hidden = ~np.any(model.emission, axis=0)
    return learning.rescaled(
        model, np.where(hidden, 1.0 / scale, 1.0), np.ones(len(model.emission))
    )


def _climb(objective, vectors, names):
    """Loosely from everywhere, then tightly from the best distinct ends: [(loss, vector, name)]."""
    ends = list(zip(np.full(len(names), np.inf), vectors, names, strict=True))
    for same, tolerance, max_steps in STAGES:
        climbed = batched_bfgs.minimise(
            lambda rows: _loss(objective, rows),
            np.stack([vector for _, vector, _ in ends]),
            tolerance=tolerance,
            max_steps=max_steps,
        )
        names = [name for *_, name in ends]
        ends = list(zip(climbed.values, climbed.vectors, names, strict=True))
        ends = learning.distinct(ends, same)[:MOST_OPTIMA]
        if not ends:
            break
    return ends


def _bound(data, judged, num_timesteps, lookahead):
    data, judged = recursions.same_size(data, judged)
    predicted, _ = recursions.forward(data, num_timesteps)
    return float(recursions.bound(data, predicted, judged, num_timesteps, lookahead))


def _loss(objective, rows):
    """Minus the objective and its gradient by complex steps: [rows], [rows, size]."""
    steps = rows[:, np.newaxis] + 1j * learning.COMPLEX_STEP * np.eye(rows.shape[1])
    # A trial step may overflow or be singular: it counts as infinitely bad, and is shortened.
    with np.errstate(all="ignore"):
        try:
            values = objective(steps)
        except np.linalg.LinAlgError:
            if len(rows) == 1:
                return np.array([np.inf]), np.zeros_like(rows)
            parts = [_loss(objective, row[np.newaxis]) for row in rows]
            return tuple(np.concatenate(values) for values in zip(*parts, strict=True))
    return -values[:, 0].real, -values.imag / learning.COMPLEX_STEP


def _all_starts(data, num_timesteps, wanted):
    """The starts of a chain without inputs, and the output error: hardly any Q and P_0."""
    starts = learning.structured_starts(data, num_timesteps, wanted)
    if "small transition noise" in starts:
        start = starts["small transition noise"]
        little = learning.LITTLE_NOISE * start.initial_cov
        starts["output error"] = start._replace(initial_cov=little)
    return starts


def _grouped(starts):
    """Starts with the same emission share one `ParameterSpace` and climb together."""
    groups = {}
    for name, start in starts.items():
        groups.setdefault(start.emission.tobytes(), []).append((name, start))
    for members in groups.values():
        first = members[0][1]
        space = learning.ParameterSpace(first.emission, *first.control.shape)
        names, models = zip(*members, strict=True)
        yield space, names, np.stack([space.vector(model) for model in models])


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


def as_matrices(system, root):
    """A `System` as `Matrices`, in units in which the controls have unit variance."""
    return recursions.Matrices(
        system.transition,
        system.transition_cov,
        system.emission,
        system.emission_cov,
        system.initial_cov,
        system.control @ root,
    )


def _system(judged, root, weight, control_cost):
    return lqg.System(
        transition=judged.transition,
        control=judged.control @ np.linalg.inv(root),
        transition_cov=judged.transition_cov,
        emission=judged.emission,
        emission_cov=judged.emission_cov,
        initial_cov=judged.initial_cov,
        state_cost=recursions.congruence(judged.emission.T, weight),
        control_cost=control_cost,
    )


def exploration_root(system, exploration_cov):
    """Cholesky factor of S; a control that never moves teaches nothing about B."""
    covariance = lqg.exploration_covariance(system, exploration_cov)
    smallest = np.min(np.linalg.eigvalsh(covariance))
    if smallest <= 0:
        raise ValueError(
            "exploration_cov must be positive definite, so that B can be learned, but its smallest "
            f"eigenvalue is {smallest:g}. Explore with every control."
        )
    return np.linalg.cholesky(covariance)


def same_interface(system, model):
    """Return `model`; raise if it has other observations or controls than `system`."""
    wanted = system.observation_size, system.control_size
    if (model.observation_size, model.control_size) != wanted:
        raise ValueError(
            f"model must have {wanted[0]} channel(s) and {wanted[1]} control(s) as system, but has "
            f"{model.observation_size} and {model.control_size}. Compare models of the same data."
        )
    return model


def _cost_of_observation(system):
    """w with W = C' w C: what a learned model knows of the cost of its own coordinates."""
    inverse = np.linalg.pinv(system.emission)
    weight = recursions.symmetric(recursions.congruence(inverse.T, system.state_cost))
    again = recursions.congruence(system.emission.T, weight)
    if not np.allclose(again, system.state_cost, atol=1e-9 * np.max(np.abs(system.state_cost))):
        raise ValueError(
            "state_cost must be a cost of the noise-free observation C z, W = C' w C, because the "
            f"coordinates of a learned state are arbitrary, but is {system.state_cost.tolist()} "
            f"with emission {system.emission.tolist()}. Give hidden states no cost."
        )
    return weight
