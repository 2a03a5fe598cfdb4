"""What any set of conditions costs on a scalar chain: which observations and which earlier latents
q may see at each step.

    q(z_t | z_{<t}, x_{1:T}) = N(sum_s A_ts z_s + sum_s W_ts x_s, D_t),

with A and W zero wherever the conditions hide something. A look-ahead is the special case where
z_{t-1} and x_{1:t+k} are seen (`linear_gaussian.conditioning_gap`); published models also start
from a few observations and then see only x_t, or do without the earlier latents.

The posterior of the chain is normal with precision L and mean M x. With B = I - A and
K = B^-T L B^-1 the divergence from q is

    KL = 1/2 [tr K D - ln det D - ln det L - T + tr K (W - B M) S (W - B M)'],    S = Cov(x).

Given A, the best D_t is 1 / K_tt and the best W solves linear equations. What is left is a search
over A, which starts at the posterior's own a V_t / Q: where each step sees at least what the step
before has seen, this start is the answer, because z_{t-1} then says nothing new about the future.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from scipy import optimize

from tfp_gaps import _checks
from tfp_gaps.exact import linear_gaussian


class Conditions(NamedTuple):
    """What q(z_t | ...) may see.

    observations: bool [T, T], row t true at s if it sees x_s.
    latents: bool [T, T], row t true at s < t if it sees z_s.
    """

    observations: np.ndarray
    latents: np.ndarray

    @property
    def num_timesteps(self):
        """T."""
        return len(self.observations)

    def seeing_all_observations(self):
        """The same latents, and every observation."""
        return self._replace(observations=np.ones_like(self.observations))

    @property
    def is_blind_to_the_future(self):
        """Whether some step lacks a later observation."""
        return not np.all(np.triu(self.observations) == np.triu(np.ones_like(self.observations)))


def conditions(num_timesteps, *, first=None, last=0, latents="previous", start=None):
    """Conditions that are the same at every step.

    Args:
      num_timesteps: T.
      first: q at t sees x from t + first on; None from x_1 on.
      last: and up to x_{t + last}; None to the end.
      latents: "none", "previous" (z_{t-1}) or "earlier" (z_{1:t-1}).
      start: how many observations q(z_1) sees, x_{1:start}; None for what the rule says.

    Returns:
      `Conditions`.

    Raises:
      ValueError: for sizes below one, an unknown rule for latents, or a window that is empty.

    >>> filtering = conditions(3)
    >>> filtering.observations.astype(int).tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    >>> filtering.latents.astype(int).tolist()
    [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    """
    size = _checks.integer(num_timesteps, "num_timesteps", minimum=1)
    _checks.one_of(latents, "latents", ("none", "previous", "earlier"))
    if first is not None and last is not None and first > last:
        raise ValueError(
            f"The window must not be empty, but first is {first} and last is {last}. Choose "
            "first <= last."
        )
    step, other = np.arange(size)[:, np.newaxis], np.arange(size)
    seen = np.ones([size, size], bool)
    if first is not None:
        seen &= other >= step + first
    if last is not None:
        seen &= other <= step + last
    if start is not None:
        seen[0] = other < _checks.integer(start, "start", minimum=1)
    reach = {"none": 0, "previous": 1, "earlier": size}[latents]
    return Conditions(seen, (other < step) & (other >= step - reach))


class ConditionedQ(NamedTuple):
    """The best q under some conditions.

    latent_weights: A, [T, T].
    observation_weights: W, [T, T].
    variances: D, [T].
    divergence: KL(q || posterior), expected under the data, nats per sequence.
    """

    latent_weights: np.ndarray
    observation_weights: np.ndarray
    variances: np.ndarray
    divergence: float


def best(data_model, model, seen, start=None):
    """The q of the highest expected ELBO that keeps to the conditions.

    Args:
      data_model: scalar `LinearGaussian` that generates x.
      model: scalar `LinearGaussian` whose posterior is approximated.
      seen: `Conditions`.
      start: A to start the search from, [T, T]; None for the posterior's own.

    Returns:
      `ConditionedQ`.

    Raises:
      ValueError: if a model is not scalar, or the conditions do not fit together.

    >>> chain = linear_gaussian.LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    >>> round(best(chain, chain, conditions(8)).divergence / 8, 4)
    0.094
    """
    _check(data_model, model, seen)
    world = _World.of(data_model, model, seen.num_timesteps)
    if start is None:
        start = np.diag(world.gain[1:], -1)
    where = np.nonzero(seen.latents)
    if not where[0].size:
        return _profile(world, seen, np.zeros_like(start))[0]

    def objective(values):
        weights = np.zeros_like(start)
        weights[where] = values
        found, gradient = _profile(world, seen, weights)
        return found.divergence, gradient[where]

    end = optimize.minimize(
        objective, start[where], jac=True, method="BFGS", options={"gtol": 1e-9}
    )
    weights = np.zeros_like(start)
    weights[where] = end.x
    return _profile(world, seen, weights)[0]


def gap(model, seen):
    """KL(q || posterior) of the best q at the true parameters, nats per sequence.

    >>> chain = linear_gaussian.LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    >>> round(gap(chain, conditions(8, last=None)), 9)
    0.0
    """
    return best(model, model, seen).divergence


class Parts(NamedTuple):
    """Where a gap comes from, nats per sequence.

    latents: what hiding earlier latents costs a q that sees all observations: it cannot have the
      posterior's correlations over time, an approximation gap.
    observations: what hiding observations adds, the conditioning gap.
    """

    latents: float
    observations: float


def parts(model, seen):
    """Split `gap` into what hidden latents and what hidden observations cost: `Parts`.

    >>> chain = linear_gaussian.LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    >>> mean_field = parts(chain, conditions(8, last=None, latents="none"))
    >>> bool(mean_field.latents > 1), round(mean_field.observations, 9)
    (True, 0.0)
    """
    latents = gap(model, seen.seeing_all_observations())
    return Parts(latents, gap(model, seen) - latents)


def look_ahead(model, num_timesteps, lookahead):
    """`best` for a look-ahead at the true parameters, in closed form: for long sequences.

    Args:
      model: scalar `LinearGaussian`.
      num_timesteps: T.
      lookahead: k, how many later observations q sees beside z_{t-1} and x_{1:t}; None for all.

    Returns:
      `ConditionedQ`.

    Raises:
      ValueError: if the model is not scalar, or for bad sizes.

    >>> chain = linear_gaussian.LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    >>> round(look_ahead(chain, 8, 0).divergence / 8, 4)
    0.094
    """
    _check(model, model, conditions(num_timesteps))
    factors = linear_gaussian.shared_factors(model, model, num_timesteps, lookahead)
    return ConditionedQ(
        np.diag(factors.transition[1:, 0, 0], -1),
        factors.observation_weights[:, 0, :, 0],
        factors.covariance[:, 0, 0],
        linear_gaussian.conditioning_gap(model, num_timesteps, lookahead),
    )


class AdditiveErrors(NamedTuple):
    """How wrong sums over a sequence are under q, at the true parameters.

    states: root mean squared error, over data, of E_q sum_t z_t.
    products: mean error, over data, of E_q sum_t z_t z_{t+1}.
    """

    states: float
    products: float


def additive_errors(model, found):
    """Errors of two sums over the states, E_q against the posterior: `AdditiveErrors`.

    Args:
      model: scalar `LinearGaussian`, of the data too.
      found: `ConditionedQ`.

    >>> chain = linear_gaussian.LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    >>> full = additive_errors(chain, look_ahead(chain, 8, None))
    >>> abs(full.states) < 1e-9, abs(full.products) < 1e-9
    (True, True)
    """
    size = len(found.variances)
    world = _World.of(model, model, size)
    reach = np.linalg.inv(np.eye(size) - found.latent_weights)
    mean = reach @ found.observation_weights
    spread = (reach * found.variances) @ reach.T - np.linalg.inv(world.precision)
    off = np.sum(mean - world.mean, axis=0)
    second = spread + mean @ world.observed @ mean.T - world.mean @ world.observed @ world.mean.T
    return AdditiveErrors(
        float(np.sqrt(off @ world.observed @ off)), float(np.trace(second, offset=1))
    )


def elbo(data_model, model, seen):
    """Expected ELBO of `model` with the best q under the conditions, nats per sequence."""
    evidence = linear_gaussian.log_likelihood(data_model, model, seen.num_timesteps)
    return evidence - best(data_model, model, seen).divergence


def learn(data_model, seen):
    """Maximise `elbo` over a, Q, R and P_0 of a scalar chain: what this q would teach it.

    BFGS over logarithms of the variances from the truth, from nearly no sensor noise with a short
    memory, and from nearly no process noise. The gradient is that of E_q ln p(x, z) at the best q.

    Args:
      data_model: scalar `LinearGaussian`; the emission of the learned model is the same.
      seen: `Conditions`.

    Returns:
      `LinearGaussian`. Variances stop at 1e-9 and at 1e3 of the data's.

    Raises:
      ValueError: as `best`.

    >>> chain = linear_gaussian.LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    >>> learned = learn(chain, conditions(8))
    >>> round(learned.transition.item(), 2), bool(learned.emission_cov.item() < 1e-4)
    (0.31, True)
    """
    _check(data_model, data_model, seen)
    memory, process, _, sensor, initial = _scalars(data_model)
    starts = (
        (memory, process, sensor, initial),
        (memory / 2, process + sensor, 1e-3 * sensor, initial + sensor),
        (memory, 1e-2 * process, sensor, initial),
    )
    # Wide limits, for the search's first steps can be far too long.
    limits = np.log(np.array([1e-9, 1e3]) * (process + sensor + initial))
    ends = [_climb(data_model, seen, start, limits) for start in starts]
    return min(ends, key=lambda end: end[1])[0]


def _climb(data_model, seen, start, limits):
    """From (a, Q, R, P_0) to the optimum nearby: the model and its negative ELBO."""
    weights = None

    def objective(parameters):
        nonlocal weights
        model = _chain(data_model, parameters)
        found = best(data_model, model, seen, start=weights)
        weights = found.latent_weights
        evidence = linear_gaussian.log_likelihood(data_model, model, seen.num_timesteps)
        return found.divergence - evidence, -_score(data_model, model, found)

    far = 2 + abs(start[0])
    bounds = [(-far, far), *[tuple(limits)] * 3]
    values = np.array([start[0], *np.log(start[1:])])
    end = optimize.minimize(
        objective,
        values,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"ftol": 1e-13, "gtol": 1e-8, "maxiter": 500},
    )
    return _chain(data_model, end.x), end.fun


def _scalars(model):
    """a, Q, c, R, P_0."""
    return (getattr(model, field.name).item() for field in dataclasses.fields(model))


def _chain(data_model, parameters):
    memory, *logs = parameters
    process, sensor, initial = np.exp(logs)
    return linear_gaussian.LinearGaussian(
        memory, process, data_model.emission.item(), sensor, initial
    )


def _score(data_model, model, found):
    """Gradient of E_q ln p(x, z) with respect to a and the logarithms of Q, R and P_0."""
    size = len(found.variances)
    reach = np.linalg.inv(np.eye(size) - found.latent_weights)
    mean = reach @ found.observation_weights
    observed = _observation_covariance(data_model, size)
    second = (reach * found.variances) @ reach.T + mean @ observed @ mean.T
    memory, process, emission, sensor, initial = _scalars(model)
    power = np.trace(second[:-1, :-1])
    lagged = np.trace(second[1:, :-1])
    moves = np.trace(second[1:, 1:]) - 2 * memory * lagged + memory**2 * power
    errors = (
        np.trace(observed)
        - 2 * emission * np.trace(mean @ observed)
        + emission**2 * np.trace(second)
    )
    return np.array(
        [
            (lagged - memory * power) / process,
            0.5 * (moves / process - (size - 1)),
            0.5 * (errors / sensor - size),
            0.5 * (second[0, 0] / initial - 1),
        ]
    )


class _World(NamedTuple):
    """Posterior precision [T, T], its mean's map M [T, T], Cov(x) [T, T], and a V_t / Q [T]."""

    precision: np.ndarray
    mean: np.ndarray
    observed: np.ndarray
    gain: np.ndarray

    @classmethod
    def of(cls, data_model, model, size):
        memory, process, emission, sensor, initial = _scalars(model)
        diagonal = np.full(size, emission**2 / sensor + 1 / process)
        diagonal[0] += 1 / initial - 1 / process
        diagonal[:-1] += memory**2 / process
        beside = np.full(size - 1, -memory / process)
        precision = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
        mean = np.linalg.inv(precision) * (emission / sensor)
        factors = linear_gaussian.shared_factors(model, model, size, None)
        observed = _observation_covariance(data_model, size)
        return cls(precision, mean, observed, factors.transition[:, 0, 0])


def _observation_covariance(model, size):
    """Cov(x_{1:T}), [T, T]."""
    memory, process, emission, sensor, initial = _scalars(model)
    variances = [initial]
    for _ in range(size - 1):
        variances.append(memory**2 * variances[-1] + process)
    step = np.arange(size)
    ago = np.abs(step[:, np.newaxis] - step)
    states = np.array(variances)[np.minimum(step[:, np.newaxis], step)] * memory**ago
    return emission**2 * states + sensor * np.eye(size)


def _profile(world, seen, weights):
    """The best D and W for a given A, and the gradient of the divergence with respect to A."""
    size = len(weights)
    back = np.eye(size) - weights
    reach = np.linalg.inv(back)
    kept = reach.T @ world.precision @ reach
    target = back @ world.mean
    row, column = np.nonzero(seen.observations)
    system = kept[np.ix_(row, row)] * world.observed[np.ix_(column, column)]
    wanted = (kept @ target @ world.observed)[row, column]
    observation_weights = np.zeros_like(weights)
    observation_weights[row, column] = np.linalg.solve(system, wanted)
    variances = 1 / np.diag(kept)
    off = observation_weights - target
    spread = np.diag(variances) + observation_weights @ world.observed @ observation_weights.T
    log_dets = np.sum(np.log(np.diag(kept))) - np.linalg.slogdet(world.precision)[1]
    divergence = 0.5 * (log_dets + np.trace(kept @ off @ world.observed @ off.T))
    gradient = kept @ (spread - target @ world.observed @ observation_weights.T) @ reach.T
    return ConditionedQ(weights, observation_weights, variances, float(divergence)), gradient


def _check(data_model, model, seen):
    for name, chain in (("data_model", data_model), ("model", model)):
        if (chain.state_size, chain.observation_size) != (1, 1):
            raise ValueError(
                f"{name} should be scalar, but has a state of size {chain.state_size} and "
                f"{chain.observation_size} observation(s). Use a `LinearGaussian` of scalars."
            )
    observations, latents = (np.asarray(part) for part in seen)
    size = len(observations)
    if observations.shape != (size, size) or latents.shape != (size, size):
        raise ValueError(
            f"Both parts of the conditions should be [T, T], but are {observations.shape} and "
            f"{latents.shape}. Build them with `conditions`."
        )
    if np.triu(latents).any():
        raise ValueError(
            "q at step t may see latents of earlier steps only, but `latents` is true on or above "
            "its diagonal. Build it with `conditions`."
        )
