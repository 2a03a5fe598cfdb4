"""Recursions of the linear-Gaussian chain, forwards (Kalman) and backwards (messages).

    z_1 ~ N(0, P_0),  z_t = A z_{t-1} + B u_{t-1} + N(0, Q),  x_t = C z_t + N(0, R)

with known inputs u, white and of unit variance; a chain without inputs has a B without columns. A
full factor of the posterior, p(z_t | z_{t-1}, x_{t:T}) given all inputs, is

    N(J_t' (A z_{t-1} + B u_{t-1}) + Q zeta_t, V_t),
    J_t = (I + Lambda_t Q)^-1,  V_t = Q J_t,  zeta_t = J_t eta_t,   P_0 in place of Q at t = 1,

where (Lambda_t, eta_t) are precision and precision-weighted mean of the message of x_{t:T} to z_t
(Rauch, Tung and Striebel 1965, in information form). Everything is written in the gain form, which
never divides by Q, P_0 or R: singular Q and P_0 are allowed, and tiny R loses no digits. All
functions accept leading batch axes and are analytic in the model's entries (no conjugates, no
Cholesky factors), so that a complex step differentiates them exactly.
"""

from typing import NamedTuple

import numpy as np

from tfp_gaps.exact._numerics.algebra import congruence, symmetric, trace, transpose


class Matrices(NamedTuple):
    """The arrays of a chain, each with the same leading batch axes.

    control: B, [..., state, input].
    """

    transition: np.ndarray
    transition_cov: np.ndarray
    emission: np.ndarray
    emission_cov: np.ndarray
    initial_cov: np.ndarray
    control: np.ndarray


class Messages(NamedTuple):
    """What the future says about z_t, time first: zeta_t = gain_t x_t + carry_t zeta_{t+1}.

    With inputs zeta_{t+1} - Psi_{t+1} B u_t takes the place of zeta_{t+1}.

    gain: [time, ..., state, observation].
    carry: J_t A', [time, ..., state, state].
    weight: J_t' A, what z_{t-1} contributes to the mean of the full factor; zero at t = 1.
    prior_cov: Q, at t = 1 P_0; it maps zeta_t into the mean of the full factor.
    covariance: V_t.
    precision: Psi_t = J_t Lambda_t, the message passed on to z_{t-1} is A' Psi_t A.
    """

    gain: np.ndarray
    carry: np.ndarray
    weight: np.ndarray
    prior_cov: np.ndarray
    covariance: np.ndarray
    precision: np.ndarray


class Update(NamedTuple):
    """Kalman's update: gain K, covariance S of the innovation, covariance after it."""

    gain: np.ndarray
    innovation_cov: np.ndarray
    covariance: np.ndarray


def update(covariance, emission, emission_cov):
    """Condition a state on one observation; Joseph's form keeps the result accurate for tiny R."""
    innovation_cov = symmetric(congruence(emission, covariance)) + emission_cov
    gain = transpose(np.linalg.solve(innovation_cov, emission @ covariance))
    shrink = np.eye(covariance.shape[-1]) - gain @ emission
    posterior = congruence(shrink, covariance) + congruence(gain, emission_cov)
    return Update(gain, innovation_cov, symmetric(posterior))


def backward_step(model, future_precision, prior_cov):
    """One step of the messages: from Psi_{t+1} and the prior covariance of z_t to time t.

    First the future, Pi = A' Psi_{t+1} A, is absorbed by J_0 = (I + Pi Q)^-1, then x_t.

    Returns:
      gain, carry, weight, covariance, precision: as the fields of `Messages`.
    """
    emission = model.emission
    future = congruence(transpose(model.transition), future_precision)
    shrink = np.linalg.inv(np.eye(future.shape[-1]) + future @ prior_cov)
    without_x = symmetric(prior_cov @ shrink)
    _, innovation_cov, covariance = update(without_x, emission, model.emission_cov)
    gain = transpose(np.linalg.solve(innovation_cov, emission @ transpose(shrink)))
    factor = shrink - gain @ emission @ without_x
    precision = symmetric(shrink @ future + gain @ emission @ transpose(shrink))
    carry = factor @ transpose(model.transition)
    return gain, carry, transpose(factor) @ model.transition, covariance, precision


def backward(model, num_timesteps):
    """Run the messages from t = T to t = 1 and return `Messages`."""
    precision = np.zeros_like(model.transition_cov)
    steps = []
    for t in reversed(range(num_timesteps)):
        prior_cov = model.transition_cov if t > 0 else model.initial_cov
        gain, carry, weight, covariance, precision = backward_step(model, precision, prior_cov)
        if t == 0:
            weight = np.zeros_like(weight)
        steps.append((gain, carry, weight, prior_cov, covariance, precision))
    return Messages(*(np.stack(values) for values in zip(*reversed(steps), strict=True)))


def forward(model, num_timesteps):
    """Run the Kalman filter's covariances.

    Returns:
      predicted_cov: of z_t given x_{1:t-1}, [time, ..., state, state].
      updates: `Update` with a leading time axis.
    """
    predicted, updates = [model.initial_cov], []
    for _ in range(num_timesteps):
        updates.append(update(predicted[-1], model.emission, model.emission_cov))
        advanced = congruence(model.transition, updates[-1].covariance) + model.transition_cov
        predicted.append(symmetric(advanced))
    return np.stack(predicted[:-1]), Update(*(np.stack(u) for u in zip(*updates, strict=True)))


def message_covariance(messages, model, data, predicted_cov):
    """Cov(zeta_t - Psi_t B u_{t-1} | x_{1:t-1}, u_{1:t-2}), data's law: [time, ..., state, state].

    Given the data's state, zeta_t has mean M_t z_t and covariance N_t, both by backward recursion;
    `message_regression` gives M_t. The input u_{t-1} moves z_t by the data's B u, and the model
    takes off what its own B lets it expect: only the difference is surprising.

    Args:
      messages: of the model whose factors are shared.
      model: that model.
      data: the chain that generates x.
      predicted_cov: the data's own Kalman prediction covariances, [time, state, state].
    """
    regression = message_regression(messages, data)
    surprise = regression @ data.control - messages.precision @ model.control
    surprise_cov = surprise @ transpose(surprise)
    noise = np.zeros_like(messages.prior_cov[0])
    covariances = []
    for t in reversed(range(len(messages.gain))):
        gain, carry = messages.gain[t], messages.carry[t]
        if t + 1 < len(messages.gain):
            moved = congruence(regression[t + 1], data.transition_cov) + surprise_cov[t + 1]
            noise = noise + moved
        noise = symmetric(congruence(gain, data.emission_cov) + congruence(carry, noise))
        covariances.append(noise + congruence(regression[t], predicted_cov[t]) + surprise_cov[t])
    return np.stack(covariances[::-1])


def message_regression(messages, data):
    """M_t with E[zeta_t | z_t] = M_t z_t, z the data's state: [time, ..., state, data state]."""
    later = np.zeros_like(messages.gain[0] @ data.emission)
    regression = []
    for gain, carry in zip(messages.gain[::-1], messages.carry[::-1], strict=True):
        later = gain @ data.emission + carry @ later @ data.transition
        regression.append(later)
    return np.stack(regression[::-1])


def gap_profile(model, messages, covariance, lookahead):
    """KL divergence that the excluded future costs at each step, nats: [time, ...].

    1/2 tr(V_t A' Cov(zeta_{t+1} | x_{1:t+k}) A), and zeta_{t+1} depends on what x_{1:t+k} leaves
    open through zeta_{t+k+1} only, carried back by k steps. Of the inputs q sees u_{1:t+k-1}, all
    that acted on what it sees.
    """
    num_timesteps = len(messages.gain)
    open_steps = num_timesteps - 1 - lookahead
    profile = np.zeros(messages.gain.shape[:-2], dtype=messages.gain.dtype)
    if open_steps <= 0:
        return profile
    unknown = covariance[lookahead + 1 :]
    for lag in range(lookahead, 0, -1):
        unknown = congruence(messages.carry[lag : lag + open_steps], unknown)
    unknown = congruence(transpose(model.transition), unknown)
    profile[:open_steps] = 0.5 * trace(messages.covariance[:open_steps], unknown)
    return profile


class Joint(NamedTuple):
    """The data's state together with the model's prediction error, s_t = (z_t, z_t - prediction).

    When the model is the truth its error does not feel z_t, so that nothing cancels.

    advance, advance_cov: s_{t+1} = advance s_t + noise and inputs, without looking at x.
    difference: e_t = difference s_t + noise of covariance R (data), the innovation of the model.
    """

    advance: np.ndarray
    advance_cov: np.ndarray
    difference: np.ndarray


def joint(data, model):
    """Build `Joint`; both chains have the same state size (see `same_size`)."""
    zero = np.zeros_like(model.transition)
    first = np.broadcast_to(data.transition, zero.shape) + zero
    pushed = np.broadcast_to(data.control, model.control.shape)
    # The model knows the inputs: its error feels them only as far as its B is wrong.
    moved = np.concatenate([pushed, pushed - model.control], -2)
    return Joint(
        advance=np.block([[first, zero], [first - model.transition, model.transition]]),
        advance_cov=np.kron(np.ones((2, 2)), data.transition_cov) + moved @ transpose(moved),
        difference=np.concatenate([data.emission - model.emission, model.emission], -1),
    )


def joint_filter(data, model, num_timesteps):
    """Run the model's filter on the data's law.

    Returns:
      errors: E e_t e_t' of the model's innovations under the data, [time, ..., obs, obs].
      updates: the model's own `Update`, time first.
      after: covariance of (z_T, z_T - filtered mean), [..., 2 state, 2 state].
    """
    system = joint(data, model)
    _, updates = forward(model, num_timesteps)
    covariance = np.kron(np.ones((2, 2)), data.initial_cov)
    errors = []
    for t, gain in enumerate(updates.gain):
        if t > 0:
            covariance = congruence(system.advance, covariance) + system.advance_cov
        errors.append(congruence(system.difference, covariance) + data.emission_cov)
        lower = np.concatenate([np.zeros_like(gain), gain], -2)
        shrink = np.eye(covariance.shape[-1]) - lower @ system.difference
        covariance = congruence(shrink, covariance) + congruence(lower, data.emission_cov)
    return np.stack(errors), updates, covariance


def log_likelihood(data, model, num_timesteps):
    """E ln p_model(x_{1:T}) under the law of the data, nats per sequence: [...]."""
    errors, updates, _ = joint_filter(data, model, num_timesteps)
    sign, log_modulus = np.linalg.slogdet(updates.innovation_cov)
    # For complex entries the phase is the imaginary part of the logarithm.
    log_det = log_modulus + (1j * np.angle(sign) if np.iscomplexobj(sign) else 0.0)
    solved = np.einsum("...ii->...", np.linalg.solve(updates.innovation_cov, errors))
    size = model.emission.shape[-2]
    return -0.5 * np.sum(log_det + solved + size * np.log(2 * np.pi), axis=0)


def bound(data, data_predicted_cov, model, num_timesteps, lookahead):
    """max_q E ELBO under the data: log-likelihood minus gap, nats per sequence, [...]."""
    messages = backward(model, num_timesteps)
    covariance = message_covariance(messages, model, data, data_predicted_cov)
    gap = gap_profile(model, messages, covariance, lookahead)
    return log_likelihood(data, model, num_timesteps) - np.sum(gap, axis=0)


def population_elbo(data, model, num_timesteps, lookahead):
    """`bound` of two chains whose state sizes may differ, as a float."""
    data, judged = same_size(data, model)
    predicted, _ = forward(data, num_timesteps)
    return float(bound(data, predicted, judged, num_timesteps, lookahead))


def same_size(data, model):
    """Pad the smaller state of two chains with components that are zero for ever."""
    size = max(data.transition.shape[-1], model.transition.shape[-1])
    return padded(data, size), padded(model, size)


def padded(model, size):
    """Return `model` as `Matrices` with a state of `size` components, the new ones zero."""
    extra = size - model.transition.shape[-1]
    square = [(0, 0)] * (model.transition.ndim - 2) + [(0, extra)] * 2
    columns = square[:-2] + [(0, 0), (0, extra)]
    return Matrices(
        np.pad(model.transition, square),
        np.pad(model.transition_cov, square),
        np.pad(model.emission, columns),
        np.asarray(model.emission_cov),
        np.pad(model.initial_cov, square),
        np.pad(model.control, square[:-1] + [(0, 0)]),
    )
