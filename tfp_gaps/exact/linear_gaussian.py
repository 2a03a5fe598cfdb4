"""The linear-Gaussian state-space model: every gap of a sequence in closed form.

    z_1 ~ N(0, P_0),  z_t = A z_{t-1} + N(0, Q),  x_t = C z_t + N(0, R),   t = 1..T

An approximate posterior with look-ahead k is q(z_t | z_{t-1}, x_{1:t+k}). Its optimum has the
covariances V_t of the full factors p(z_t | z_{t-1}, x_{t:T}) and their expected means given what q
sees, so that its conditioning gap (Bayer et al. 2021) is

    gap_k = sum_t 1/2 tr( V_t Cov(eta_t | x_{1:t+k}) ),

with eta_t the precision-weighted mean of the message of x_{t:T} to z_t. Learning a model with that
q maximises expected log-likelihood minus this gap. The recursions are in
`tfp_gaps.exact.linear_gaussian_recursions`, the optimiser in `linear_gaussian_learning`.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.stats

from tfp_gaps import _checks
from tfp_gaps.exact import chain
from tfp_gaps.exact import linear_gaussian_learning as learning
from tfp_gaps.exact import linear_gaussian_recursions as recursions
from tfp_gaps.exact._numerics import algebra


@dataclasses.dataclass(frozen=True, eq=False)
class LinearGaussian(chain.Chain):
    """A linear-Gaussian chain of state size n and observation size m, float64.

        z_1 ~ N(0, initial_cov)
        z_t ~ N(transition z_{t-1}, transition_cov)
        x_t ~ N(emission z_t, emission_cov)

    Args:
      transition: A, [n, n]; a scalar stands for [1, 1], here and below.
      transition_cov: Q, [n, n], positive semi-definite (zero: deterministic dynamics).
      emission: C, [m, n]; a vector is not accepted, because it could be a row or a column.
      emission_cov: R, [m, m], positive definite; 1e-12 is fine, 0 is not.
      initial_cov: P_0, [n, n], positive semi-definite.

    Raises:
      ValueError: for shapes that do not fit each other, NaN or infinite entries, or a covariance
        that is not symmetric, or not positive (semi-)definite.

    >>> model = LinearGaussian(0.9, 0.1, 1.0, 1.0, 0.1 / (1 - 0.9**2))
    >>> model.state_size, model.observation_size, model.transition.shape
    (1, 1, (1, 1))
    """

    transition: np.ndarray
    transition_cov: np.ndarray
    emission: np.ndarray
    emission_cov: np.ndarray
    initial_cov: np.ndarray

    _definite = ("emission_cov",)

    @classmethod
    def stationary(cls, transition, transition_cov, emission, emission_cov):
        """Start the chain in its stationary law: P_0 = A P_0 A' + Q.

        Args:
          transition, transition_cov, emission, emission_cov: as for the class.

        Returns:
          A `LinearGaussian`.

        Raises:
          ValueError: as for the class, and if `transition` is not stable (spectral radius >= 1),
            because then no stationary law exists.

        >>> LinearGaussian.stationary(0.9, 0.19, 1.0, 1.0).initial_cov.round(6).tolist()
        [[1.0]]
        """
        size = len(chain.as_matrix(transition, "transition"))
        checked = cls(transition, transition_cov, emission, emission_cov, np.zeros((size, size)))
        checked._check_stable()
        initial = _lyapunov(checked.transition, checked.transition_cov)
        return dataclasses.replace(checked, initial_cov=initial)

    @property
    def control(self):
        """B of the recursions, [n, 0]: this chain has no inputs (`tfp_gaps.exact.lqg` has)."""
        return np.zeros((self.state_size, 0))


# The gap ------------------------------------------------------------------------------------------


def gap_profile(model, num_timesteps, lookahead):
    """Conditioning gap of each step at the model's own parameters.

    1/2 tr(V_t Cov(eta_t | x_{1:t+k})), eta_t as in the module's description.

    Args:
      model: a `LinearGaussian`.
      num_timesteps: length T of the sequence.
      lookahead: k, how many future observations q sees; None for all.

    Returns:
      profile: [T], nats per step; the last k + 1 entries are zero.

    Raises:
      ValueError: for a bad `num_timesteps` or a negative `lookahead`.

    References: Bayer et al. 2021, arXiv 2101.07046; closed form derived for this book.

    >>> chain = LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    >>> gap_profile(chain, 8, 0).round(4).tolist()
    [0.2975, 0.0987, 0.0928, 0.0867, 0.0776, 0.062, 0.0364, 0.0]
    """
    k = _checks.look_ahead(lookahead, num_timesteps)
    messages = recursions.backward(model, num_timesteps)
    predicted, _ = recursions.forward(model, num_timesteps)
    covariance = recursions.message_covariance(messages, model, model, predicted)
    return recursions.gap_profile(model, messages, covariance, k)


def conditioning_gap(model, num_timesteps, lookahead):
    """Conditioning gap of a whole sequence at the model's own parameters.

    Args:
      model, num_timesteps, lookahead: as in `gap_profile`.

    Returns:
      gap: nats per sequence, >= 0; zero for full conditions.

    Raises:
      ValueError: as `gap_profile`.

    >>> chain = LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    >>> [round(conditioning_gap(chain, 8, k) / 8, 4) for k in (0, 1, 2, None)]
    [0.094, 0.0401, 0.0169, 0.0]
    """
    return float(np.sum(gap_profile(model, num_timesteps, lookahead)))


class SteadyState(NamedTuple):
    """Limits far from both ends of a long sequence; in one dimension with Lambda, V, F, P-.

    message_precision: Lambda, precision of the message of x_{t:T} to z_t.
    factor_cov: V = (Q^-1 + Lambda)^-1, covariance of a full factor.
    message_transition: F = A' (I + Lambda Q)^-1, carries a message one step back.
    predicted_cov: P-, of z_t given x_{1:t-1}.
    filtered_cov: of z_t given x_{1:t}.
    smoothed_cov: of z_t given everything.
    """

    message_precision: np.ndarray
    factor_cov: np.ndarray
    message_transition: np.ndarray
    predicted_cov: np.ndarray
    filtered_cov: np.ndarray
    smoothed_cov: np.ndarray


def steady_state(model):
    """Limits of the filter and of the messages in the middle of a long sequence.

    Both solve a discrete algebraic Riccati equation.

    Args:
      model: a `LinearGaussian` whose states are seen or decay (detectable), and driven or decaying.

    Returns:
      A `SteadyState`, each [state, state].

    Raises:
      ValueError: if the model has no steady state.

    >>> limits = steady_state(LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0))
    >>> [round(float(value.item()), 4) for value in limits[:4]]
    [2.7441, 0.0785, 0.7062, 0.2744]
    """
    predicted, messages = _steady_recursions(model)
    filtered = recursions.update(predicted, model.emission, model.emission_cov).covariance
    observed = model.emission.T @ np.linalg.solve(model.emission_cov, model.emission)
    smoothed = _lyapunov(messages.weight, messages.covariance)
    return SteadyState(
        message_precision=observed + model.transition.T @ messages.precision @ model.transition,
        factor_cov=messages.covariance,
        message_transition=messages.weight.T,
        predicted_cov=predicted,
        filtered_cov=filtered,
        smoothed_cov=smoothed,
    )


def gap_rate(model, lookahead):
    """Conditioning gap per step in the middle of a long sequence.

    In one dimension 1/2 V F^(2k+2) Lambda (1 + Lambda P-): each step of look-ahead multiplies it by
    F^2.

    Args:
      model: a `LinearGaussian` that has a steady state.
      lookahead: k >= 0 (full conditions have rate zero by definition and are not asked here).

    Returns:
      rate: nats per step.

    Raises:
      ValueError: for a negative `lookahead`, or if there is no steady state.

    >>> chain = LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    >>> [round(gap_rate(chain, k), 4) for k in range(5)]
    [0.0941, 0.0469, 0.0234, 0.0117, 0.0058]
    """
    k = _checks.integer(lookahead, "lookahead", minimum=0)
    predicted, messages = _steady_recursions(model)
    # Cov(zeta | past) = Psi + Psi (P- - Q) Psi, since the message has precision Lambda about z.
    known = algebra.congruence(messages.precision, predicted - model.transition_cov)
    back = model.transition.T @ np.linalg.matrix_power(messages.carry, k)
    unknown = algebra.congruence(back, messages.precision + known)
    return float(0.5 * np.trace(messages.covariance @ unknown))


# Bounds -------------------------------------------------------------------------------------------


def log_likelihood(data_model, model, num_timesteps):
    """Expected exact log-likelihood of `model` on sequences of `data_model`, E ln p_model(x_{1:T}).

    Args:
      data_model: the `LinearGaussian` that generates x.
      model: the `LinearGaussian` that is judged; its state may have another size.
      num_timesteps: T.

    Returns:
      nats per sequence.

    Raises:
      ValueError: if the observation sizes differ or T is not a positive integer.

    >>> chain = LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    >>> round(log_likelihood(chain, chain, 8) / 8, 4)
    -1.5609
    """
    chain.check_same_data(data_model, model)
    _checks.integer(num_timesteps, "num_timesteps", minimum=1)
    data, judged = recursions.same_size(data_model, model)
    return float(recursions.log_likelihood(data, judged, num_timesteps))


def population_elbo(data_model, model, num_timesteps, lookahead):
    """Expected ELBO of `model` under the law of `data_model`, with the best q of that look-ahead.

        max_q E L = E ln p(x_{1:T}) - sum_t 1/2 tr(V_t Cov_data(eta_t | x_{1:t+k})),

    V and eta from `model`, expectations and the covariance from `data_model`.

    Args:
      data_model, model, num_timesteps: as in `log_likelihood`.
      lookahead: k, how many future observations q sees; None for all.

    Returns:
      nats per sequence.

    Raises:
      ValueError: as `log_likelihood`, and for a negative `lookahead`.

    >>> chain = LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    >>> gap = log_likelihood(chain, chain, 8) - population_elbo(chain, chain, 8, lookahead=0)
    >>> round(gap / 8, 4)
    0.094
    """
    chain.check_same_data(data_model, model)
    k = _checks.look_ahead(lookahead, num_timesteps)
    return recursions.population_elbo(data_model, model, num_timesteps, k)


# Learning -----------------------------------------------------------------------------------------


def learn(data_model, num_timesteps, lookahead, **options):
    """Maximise `population_elbo` over the model: what an infinite data set and a perfect q teach.

    Args:
      data_model, num_timesteps, lookahead, **options: as in `local_optima`: `seed`, `state_size`,
        `num_starts`, `from_truth`.

    Returns:
      model: the `LinearGaussian` of the highest objective found.

    Raises:
      ValueError: as `local_optima`.

    >>> chain = LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    >>> learned = learn(chain, 8, lookahead=0)
    >>> round(learned.transition.item(), 3), round(learned.transition_cov.item(), 3)
    (0.31, 1.379)
    >>> bool(learned.emission_cov.item() < 1e-6)
    True
    """
    return local_optima(data_model, num_timesteps, lookahead, **options)[0].model


def local_optima(
    data_model, num_timesteps, lookahead, *, seed=0, state_size=None, num_starts=2, from_truth=True
):
    """Distinct end points of maximising `population_elbo`, best first: competing optima show here.

    BFGS from several starts (the truth, autoregressions with little R, nearly deterministic states,
    random ones). Coordinates of the state are arbitrary: the emission stays that of `data_model`
    where this costs nothing.

    Args:
      data_model: the `LinearGaussian` that generates the data.
      num_timesteps: T of the training sequences.
      lookahead: k of the inference network during learning; None for all.
      seed: of the random starts.
      state_size: size of the learned state; None for that of `data_model`.
      num_starts: number of random starts beside the structured ones.
      from_truth: start from `data_model` too, as it is and with one of its noises made small; False
        to see whether learning finds it.

    Returns:
      A list of `linear_gaussian_learning.Optimum`, by falling `elbo`; end points within 1e-6 nats
      count as one. Variances end at 1e-14 of the data's: an optimum at R = 0 has a tiny R.

    Raises:
      ValueError: for bad sizes, a negative `lookahead`, or if no start gives a finite bound.

    >>> chain = LinearGaussian.stationary(0.99, 0.02, 1.0, 1.0)
    >>> optima = local_optima(chain, 20, lookahead=0)
    >>> best = {o.model.emission_cov.item() > 0.1: o.elbo / 20 for o in reversed(optima)}
    >>> {interior: round(-elbo, 4) for interior, elbo in sorted(best.items())}
    {False: 1.6325, True: 1.6292}
    """
    starts = learning.Starts(state_size, num_starts, seed, from_truth)
    found = learning.maximise(data_model, num_timesteps, lookahead, starts)
    # The last of the matrices belongs to inputs, which this chain does not have.
    return [optimum._replace(model=LinearGaussian(*optimum.model[:-1])) for optimum in found]


class Autoregression(NamedTuple):
    """x_1 ~ N(0, initial_cov), x_t ~ N(transition x_{t-1}, innovation_cov).

    log_likelihood: its expectation under the data, nats per sequence.
    """

    transition: np.ndarray
    innovation_cov: np.ndarray
    initial_cov: np.ndarray
    log_likelihood: float


def best_autoregression(data_model, num_timesteps):
    """First-order autoregression of the observations with the highest expected likelihood.

    The pooled regression sum_t Cov(x_{t+1}, x_t) (sum_t Var x_t)^-1; for a stationary scalar chain
    a P_0 / (P_0 + R). It is what learning with partial conditions often ends in, with R -> 0.

    Args:
      data_model: the `LinearGaussian` that generates the data.
      num_timesteps: T >= 2.

    Returns:
      An `Autoregression`, arrays [observation, observation].

    Raises:
      ValueError: for T < 2, where there is nothing to regress.

    >>> fit = best_autoregression(LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0), 8)
    >>> round(fit.transition.item(), 3), round(fit.innovation_cov.item(), 4)
    (0.31, 1.3793)
    >>> round(fit.log_likelihood / 8, 4)
    -1.5861
    """
    _checks.integer(num_timesteps, "num_timesteps", minimum=2, advice="A regression needs pairs.")
    transition, innovation, initial = learning.pooled_regression(data_model, num_timesteps, order=1)
    size = len(initial)
    log_dets = np.linalg.slogdet([initial, innovation])[1] @ [1, num_timesteps - 1]
    # At the maximiser the mean squared standardised residual equals the number of channels.
    constant = num_timesteps * size * (np.log(2 * np.pi) + 1.0)
    return Autoregression(transition, innovation, initial, float(-0.5 * (log_dets + constant)))


# The factors, and samples -------------------------------------------------------------------------


class SharedFactors(NamedTuple):
    """The best q, q(z_t | z_{t-1}, x_{1:t+k}) = N(F_{t-1}' z_{t-1} + sum_s W_{t,s} x_s, V_t).

    covariance: V_t, [time, state, state].
    transition: F_{t-1}', [time, state, state]; zero at t = 1.
    observation_weights: W, [time, state, time, observation]; zero for x_s that q does not see.
    """

    covariance: np.ndarray
    transition: np.ndarray
    observation_weights: np.ndarray


def shared_factors(data_model, model, num_timesteps, lookahead):
    """The best q of a look-ahead for `model` on data of `data_model`.

    With full conditions these are the factors of the exact posterior of `model`, whatever the data.

    Args:
      data_model, model, num_timesteps, lookahead: as in `population_elbo`.

    Returns:
      A `SharedFactors`.

    Raises:
      ValueError: as `population_elbo`.

    >>> chain = LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    >>> q = shared_factors(chain, chain, 3, lookahead=0)
    >>> q.observation_weights[1, 0, :, 0].round(3).tolist()  # the mean of z_2 uses x_1 and x_2
    [0.014, 0.102, 0.0]
    """
    chain.check_same_data(data_model, model)
    k = _checks.look_ahead(lookahead, num_timesteps)
    messages = recursions.backward(model, num_timesteps)
    expected = _expected_messages(data_model, messages, k)
    weights = np.einsum("tij,tjso->tiso", messages.prior_cov, expected)
    return SharedFactors(messages.covariance, messages.weight, weights)


def factors_elbo(data_model, model, factors):
    """Expected ELBO of any linear-Gaussian q, not only of the best one.

        E ln p(x) - sum_t E KL(q(z_t | z_{t-1}, x) || p(z_t | z_{t-1}, x_{t:T})),   z_{t-1} from q

    A trained network of this form is measured with it exactly, without sampling.

    Args:
      data_model, model: as in `population_elbo`.
      factors: `SharedFactors` of any values; covariances positive definite.

    Returns:
      nats per sequence.

    Raises:
      ValueError: if the sizes do not fit, or a covariance of q is singular.

    >>> chain = LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    >>> best = shared_factors(chain, chain, 8, lookahead=0)
    >>> gap = log_likelihood(chain, chain, 8) - factors_elbo(chain, chain, best)
    >>> too_wide = best._replace(covariance=1.5 * best.covariance)
    >>> cost = log_likelihood(chain, chain, 8) - factors_elbo(chain, chain, too_wide)
    >>> round(gap, 4), round(cost, 4)
    (0.7518, 1.1299)
    """
    chain.check_same_data(data_model, model)
    num_timesteps, size, *_ = factors.observation_weights.shape
    if (size, factors.observation_weights.shape[3]) != (model.state_size, model.observation_size):
        raise ValueError(
            f"factors are made for a state of size {size} and "
            f"{factors.observation_weights.shape[3]} channel(s), but model has "
            f"{model.state_size} and {model.observation_size}. Build them for this model."
        )
    full = shared_factors(model, model, num_timesteps, None)
    observed = learning.observation_covariance(data_model, num_timesteps)
    of_x, noise = np.zeros((size, len(observed))), np.zeros((size, size))
    divergence = 0.0
    for t in range(num_timesteps):
        covariance = factors.covariance[t]
        weights = factors.observation_weights[t].reshape(size, -1)
        off_state = factors.transition[t] - full.transition[t]
        off_x = weights - full.observation_weights[t].reshape(size, -1) + off_state @ of_x
        off = algebra.congruence(off_x, observed) + algebra.congruence(off_state, noise)
        divergence += _gaussian_divergence(covariance, full.covariance[t], off)
        of_x = factors.transition[t] @ of_x + weights
        noise = algebra.congruence(factors.transition[t], noise) + covariance
    return log_likelihood(data_model, model, num_timesteps) - divergence


class Marginals(NamedTuple):
    """Normal marginals in time: means [time, batch, state], covariances [time, state, state]."""

    means: np.ndarray
    covariances: np.ndarray


def factor_marginals(factors, observations):
    """Marginals q(z_t | x_{1:t+k}) of a product of factors; with full conditions the smoother.

    Args:
      factors: `SharedFactors`.
      observations: x_{1:T}, [time, batch, observation].

    Returns:
      `Marginals`.

    Raises:
      ValueError: if `observations` do not fit the factors.

    >>> chain = LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    >>> _, x = sample(chain, 3, 2, seed=0)
    >>> factor_marginals(shared_factors(chain, chain, 3, None), x).means.shape
    (3, 2, 1)
    """
    inputs = _weighted_observations(factors, observations)
    mean = np.zeros_like(inputs[0])
    covariance = np.zeros_like(factors.covariance[0])
    means, covariances = [], []
    for step, transition, noise in zip(inputs, factors.transition, factors.covariance, strict=True):
        mean = mean @ transition.T + step
        covariance = algebra.congruence(transition, covariance) + noise
        means.append(mean)
        covariances.append(covariance)
    return Marginals(np.stack(means), np.stack(covariances))


def sample_factors(factors, observations, seed):
    """Draw z_{1:T} from q, one path per observed sequence.

    Args:
      factors: `SharedFactors`.
      observations: x_{1:T}, [time, batch, observation].
      seed: for `numpy.random.default_rng`.

    Returns:
      states: [time, batch, state].

    Raises:
      ValueError: if `observations` do not fit the factors.

    >>> chain = LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    >>> _, x = sample(chain, 3, 2, seed=0)
    >>> sample_factors(shared_factors(chain, chain, 3, 0), x, seed=1).shape
    (3, 2, 1)
    """
    inputs = _weighted_observations(factors, observations)
    noise = np.random.default_rng(seed).standard_normal(inputs.shape)
    state, path = np.zeros_like(inputs[0]), []
    for step, draw, transition, covariance in zip(
        inputs, noise, factors.transition, factors.covariance, strict=True
    ):
        state = state @ transition.T + step + draw @ algebra.root(covariance).T
        path.append(state)
    return np.stack(path)


def sample(model, num_timesteps, num_sequences, seed):
    """Draw states and observations.

    Args:
      model: a `LinearGaussian`.
      num_timesteps: T.
      num_sequences: how many independent sequences.
      seed: for `numpy.random.default_rng`.

    Returns:
      states: [time, sequences, state].
      observations: [time, sequences, observation].

    Raises:
      ValueError: for counts below one.

    >>> z, x = sample(LinearGaussian.stationary(0.9, 0.1, [[1.0], [0.5]], np.eye(2)), 4, 3, seed=0)
    >>> z.shape, x.shape
    ((4, 3, 1), (4, 3, 2))
    """
    _checks.integer(num_timesteps, "num_timesteps", minimum=1)
    _checks.integer(num_sequences, "num_sequences", minimum=1)
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((num_timesteps, num_sequences, model.state_size))
    steps = noise @ algebra.root(model.transition_cov).T
    states = [noise[0] @ algebra.root(model.initial_cov).T]
    for step in steps[1:]:
        states.append(states[-1] @ model.transition.T + step)
    states = np.stack(states)
    draws = rng.standard_normal((num_timesteps, num_sequences, model.observation_size))
    return states, states @ model.emission.T + draws @ algebra.root(model.emission_cov).T


class Filtered(NamedTuple):
    """What the Kalman filter returns.

    log_likelihood: ln p(x_{1:T}) of each sequence, [batch], nats per sequence.
    means, covariances: of z_t given x_{1:t}, [time, batch, state] and [time, state, state].
    """

    log_likelihood: np.ndarray
    means: np.ndarray
    covariances: np.ndarray


def kalman_filter(model, observations):
    """Exact filter p(z_t | x_{1:t}) and evidence of given sequences.

    Args:
      model: a `LinearGaussian`.
      observations: [time, batch, observation].

    Returns:
      `Filtered`.

    Raises:
      ValueError: if `observations` have the wrong rank or channels, or are not finite.

    References: Kalman 1960. Tested against `tfd.LinearGaussianStateSpaceModel`.

    >>> chain = LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    >>> kalman_filter(chain, np.zeros([3, 1, 1])).log_likelihood.round(4).tolist()
    [-3.2689]
    """
    x = _observations(observations, model.observation_size)
    _, updates = recursions.forward(model, len(x))
    mean, log_prob, means = np.zeros((x.shape[1], model.state_size)), 0.0, []
    for value, gain, innovation_cov in zip(x, updates.gain, updates.innovation_cov, strict=True):
        prediction = mean @ model.transition.T
        error = value - prediction @ model.emission.T
        log_prob = log_prob + _log_normal(error, innovation_cov)
        mean = prediction + error @ gain.T
        means.append(mean)
    return Filtered(log_prob, np.stack(means), updates.covariance)


def sampled_gap(model, factors, observations, seed):
    """ln p(x) - [ln p(x, z) - ln q(z | x)] of given sequences, at one draw of z from q for each.

    Its mean is the divergence of q from the posterior. Where q is the posterior it is zero for
    every draw, not only on average.

    Args:
      model: a `LinearGaussian` whose covariances are positive definite.
      factors: `SharedFactors`, the q.
      observations: x_{1:T}, [time, batch, observation].
      seed: for `numpy.random.default_rng`.

    Returns:
      gap: [batch], nats per sequence.

    Raises:
      ValueError: if the observations do not fit, or a covariance is singular.

    >>> chain = LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    >>> _, x = sample(chain, 8, 1000, seed=0)
    >>> full, partial = (shared_factors(chain, chain, 8, k) for k in (None, 0))
    >>> bool(np.max(np.abs(sampled_gap(chain, full, x, seed=1))) < 1e-10)
    True
    >>> round(float(np.mean(sampled_gap(chain, partial, x, seed=1))), 1)
    0.8
    """
    z = sample_factors(factors, observations, seed)
    inputs = _weighted_observations(factors, observations)
    log_prob = _log_normal(z[0], model.initial_cov)
    log_prob += np.sum(_log_normal(z[1:] - z[:-1] @ model.transition.T, model.transition_cov), 0)
    log_prob += np.sum(_log_normal(observations - z @ model.emission.T, model.emission_cov), 0)
    for t, covariance in enumerate(factors.covariance):
        before = z[t - 1] @ factors.transition[t].T if t else 0.0
        log_prob -= _log_normal(z[t] - before - inputs[t], covariance)
    return kalman_filter(model, observations).log_likelihood - log_prob


# Consequences -------------------------------------------------------------------------------------


class OnlineFilter(NamedTuple):
    """The partial q used as a filter, beside the filter that it should be; [..., state, state].

    filtered_cov: of z_t given x_{1:t}, the right answer.
    claimed_cov: of z_t under q: the covariance of the *smoother*.
    error_cov: mean squared error of q's mean.
    """

    filtered_cov: np.ndarray
    claimed_cov: np.ndarray
    error_cov: np.ndarray

    def coverage(self, level):
        """How often q's central interval of probability `level` holds the state, per component.

            2 Phi( Phi^-1((1 + level)/2) sqrt(claimed / error) ) - 1

        Args:
          level: probability between 0 and 1.

        Returns:
          coverage: [..., state].

        Raises:
          ValueError: if `level` is not strictly between 0 and 1.
        """
        claimed = np.diagonal(self.claimed_cov, axis1=-2, axis2=-1)
        actual = np.diagonal(self.error_cov, axis1=-2, axis2=-1)
        quantile = scipy.stats.norm.ppf(0.5 + 0.5 * _checks.level(level))
        return 2 * scipy.stats.norm.cdf(quantile * np.sqrt(claimed / actual)) - 1


def online_filter(model, num_timesteps=None):
    """What the best partial q claims, and how wrong it is, when it runs online as a filter.

    Its mean differs from the filter's by d_t = J_t' A (d_{t-1} - B_t e_t), where e_t is the
    innovation and B_t e_t what x_t teaches about z_{t-1}: the chain's own z_{t-1} missed it.

    Args:
      model: a `LinearGaussian`; q is optimal at these parameters.
      num_timesteps: T of the sequences q was made for, or None for the steady state.

    Returns:
      `OnlineFilter`, [T, state, state], or [state, state] for the steady state.

    Raises:
      ValueError: for a bad T, or if there is no steady state.

    >>> steady = online_filter(LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0))
    >>> [round(value.item(), 4) for value in steady]
    [0.2153, 0.1565, 0.2446]
    >>> steady.coverage(0.9).round(3).tolist()
    [0.812]
    """
    if num_timesteps is None:
        return _steady_online_filter(model)
    _checks.integer(num_timesteps, "num_timesteps", minimum=1)
    messages = recursions.backward(model, num_timesteps)
    predicted, updates = recursions.forward(model, num_timesteps)
    claimed = miss = np.zeros_like(model.transition_cov)
    rows = []
    for t in range(num_timesteps):
        weight = messages.weight[t]
        if t > 0:
            learned = _learned_about_previous(model, updates.covariance[t - 1], predicted[t])
            miss = algebra.congruence(weight, miss + learned)
        claimed = algebra.congruence(weight, claimed) + messages.covariance[t]
        rows.append((updates.covariance[t], claimed, updates.covariance[t] + miss))
    return OnlineFilter(*(np.stack(values) for values in zip(*rows, strict=True)))


class Prediction(NamedTuple):
    """h-step predictions from a context, per horizon and channel: both [horizons, observation].

    rmse: root mean squared error under the law of the data.
    claimed: standard deviation that the model itself states.
    """

    rmse: np.ndarray
    claimed: np.ndarray


def prediction(data_model, model, context, horizons):
    """Predict x_{c+h} from x_{1:c} with the exact filter of `model`, on data of `data_model`.

    Args:
      data_model, model: as in `log_likelihood`.
      context: c, number of observations that the filter sees.
      horizons: positive integers h.

    Returns:
      `Prediction`.

    Raises:
      ValueError: if the observation sizes differ, or a count is not a positive integer.

    >>> chain = LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    >>> prediction(chain, chain, 8, [1, 4, 8]).rmse[:, 0].round(4).tolist()
    [1.1292, 1.1802, 1.212]
    """
    chain.check_same_data(data_model, model)
    _checks.integer(context, "context", minimum=1)
    wanted = [_checks.integer(h, "horizon", minimum=1) for h in np.atleast_1d(horizons).tolist()]
    data, judged = recursions.same_size(data_model, model)
    system = recursions.joint(data, judged)
    _, updates, error = recursions.joint_filter(data, judged, context)
    claimed = updates.covariance[-1]
    rows = []
    for _ in range(max(wanted)):
        error = algebra.congruence(system.advance, error) + system.advance_cov
        claimed = algebra.congruence(judged.transition, claimed) + judged.transition_cov
        actual = algebra.congruence(system.difference, error) + data.emission_cov
        stated = algebra.congruence(judged.emission, claimed) + judged.emission_cov
        rows.append((np.sqrt(np.diagonal(actual)), np.sqrt(np.diagonal(stated))))
    return Prediction(*np.stack([rows[h - 1] for h in wanted], axis=1))


# Checks, and what is private ----------------------------------------------------------------------


def _observations(value, size):
    x = _checks.finite_array(value, "observations", ndim=3, advice="Use [time, batch, channels].")
    if x.shape[2] != size or len(x) == 0:
        raise ValueError(
            f"observations must have shape [time, batch, {size}] with at least one time step, but "
            f"have shape {x.shape}. Put time first and the channels last."
        )
    return x


def _weighted_observations(factors, observations):
    """Part of each factor's mean that comes from x: [time, batch, state]."""
    num_timesteps, _, _, size = factors.observation_weights.shape
    x = _observations(observations, size)
    if len(x) != num_timesteps:
        raise ValueError(
            f"The factors are made for {num_timesteps} time steps, but observations have {len(x)}. "
            "Build the factors with num_timesteps=len(observations)."
        )
    return np.einsum("tiso,sbo->tbi", factors.observation_weights, x)


def _log_normal(error, covariance):
    """ln N(error; 0, covariance) over the last axis."""
    sign, log_det = np.linalg.slogdet(2 * np.pi * covariance)
    if sign <= 0:
        raise ValueError(
            "A density was asked for, but a covariance is singular. Use positive variances."
        )
    solved = np.linalg.solve(covariance, error[..., np.newaxis])[..., 0]
    return -0.5 * (log_det + np.sum(error * solved, axis=-1))


def _gaussian_divergence(covariance, reference_cov, mean_offset):
    """E KL(N(m, covariance) || N(n, reference_cov)), given E (m - n)(m - n)'."""
    sign, log_dets = np.linalg.slogdet([covariance, reference_cov])
    if np.any(sign <= 0):
        raise ValueError(
            "Each covariance of q and of the posterior must be positive definite, but one is "
            "singular: the divergence is infinite or undefined. Use positive variances."
        )
    ratio = np.linalg.solve(reference_cov, covariance + mean_offset)
    return float(0.5 * (np.trace(ratio) - len(covariance) + log_dets[1] - log_dets[0]))


def _expected_messages(data, messages, lookahead):
    """Weights of x_{1:t+k} in E[zeta_t | x_{1:t+k}]: [time, state, time, observation]."""
    num_timesteps, size, channels = messages.gain.shape
    weights = np.zeros((num_timesteps, size, num_timesteps, channels))
    later = weights[0]
    for t in reversed(range(num_timesteps)):
        later = np.tensordot(messages.carry[t], later, axes=1)
        later[:, t] += messages.gain[t]
        weights[t] = later
    steps = np.arange(num_timesteps)
    unseen = steps > steps[:, np.newaxis] + lookahead
    weights[np.broadcast_to(unseen[:, np.newaxis, :], weights.shape[:3])] = 0.0
    # What follows x_{1:t+k} enters through its prediction, carried back to t.
    open_steps = max(num_timesteps - 1 - lookahead, 0)
    regression = recursions.message_regression(messages, data)[lookahead + 1 :]
    predictions = _prediction_weights(data, num_timesteps)[lookahead + 1 :]
    expected = np.einsum("tij,tjso->tiso", regression, predictions)
    for lag in range(lookahead, -1, -1):
        carry = messages.carry[lag : lag + open_steps]
        expected = np.einsum("tij,tjso->tiso", carry, expected)
    weights[:open_steps] += expected
    return weights


def _prediction_weights(data, num_timesteps):
    """Weights of x in E[z_t | x_{1:t-1}]: [time, state, time, observation]."""
    _, updates = recursions.forward(data, num_timesteps)
    weights = np.zeros((num_timesteps, data.state_size, num_timesteps, data.observation_size))
    for t in range(1, num_timesteps):
        gain = updates.gain[t - 1]
        shrink = np.eye(data.state_size) - gain @ data.emission
        filtered = np.tensordot(shrink, weights[t - 1], axes=1)
        filtered[:, t - 1] += gain
        weights[t] = np.tensordot(data.transition, filtered, axes=1)
    return weights


def _learned_about_previous(model, filtered_cov, predicted_cov):
    """Covariance of E[z_{t-1} | x_{1:t}] - E[z_{t-1} | x_{1:t-1}]: B S B', B = P A' C' S^-1."""
    emission = model.emission
    innovation_cov = algebra.congruence(emission, predicted_cov) + model.emission_cov
    cross = filtered_cov @ model.transition.T @ emission.T
    return cross @ np.linalg.solve(innovation_cov, cross.T)


def _steady_online_filter(model):
    steady = steady_state(model)
    weight, filtered = steady.message_transition.T, steady.filtered_cov
    learned = _learned_about_previous(model, filtered, steady.predicted_cov)
    miss = _lyapunov(weight, algebra.congruence(weight, learned))
    return OnlineFilter(filtered, steady.smoothed_cov, filtered + miss)


def _steady_recursions(model):
    """P- and the messages far from both ends.

    SciPy solves the two Riccati equations; a few steps of our own recursions then restore the
    digits that it loses when Q and R differ by many orders of magnitude.
    """
    a, c, q, r = model.transition, model.emission, model.transition_cov, model.emission_cov
    observed = c.T @ np.linalg.solve(r, c)
    try:
        predicted = scipy.linalg.solve_discrete_are(a.T, c.T, q, r)
        root = algebra.root(q)
        precision = scipy.linalg.solve_discrete_are(a, root, observed, np.eye(len(a)))
    except (np.linalg.LinAlgError, ValueError) as error:
        raise ValueError(
            "This model has no steady state that could be found: each state must be seen or decay, "
            f"and be driven by noise or decay (SciPy says: {error}). Use the finite-T functions."
        ) from error
    passed_on = precision @ np.linalg.inv(np.eye(len(a)) + q @ precision)
    for _ in range(10):
        filtered = recursions.update(predicted, c, r).covariance
        predicted = algebra.symmetric(algebra.congruence(a, filtered)) + q
        step = recursions.backward_step(model, passed_on, q)
        passed_on = step[-1]
    gain, carry, weight, covariance, precision = step
    return predicted, recursions.Messages(gain, carry, weight, q, covariance, precision)


def _lyapunov(transition, noise):
    return algebra.symmetric(scipy.linalg.solve_discrete_lyapunov(transition, noise))
