"""Beliefs of the best q against dense algebra that knows nothing of messages and recursions."""

import numpy as np
import pytest

from tfp_gaps.exact import lqg_belief
from tfp_gaps.exact._numerics import riccati
from tfp_gaps.exact.lqg import System

T = 5


def random_system(rng, states, channels, controls):
    def covariance(size):
        root = rng.standard_normal((size, size))
        return root @ root.T / size + 0.3 * np.eye(size)

    transition = rng.standard_normal((states, states))
    return System(
        transition=transition * 0.8 / riccati.spectral_radius(transition),
        control=rng.standard_normal((states, controls)),
        transition_cov=covariance(states),
        emission=rng.standard_normal((channels, states)),
        emission_cov=covariance(channels),
        initial_cov=covariance(states),
        state_cost=np.eye(states),
        control_cost=np.eye(controls),
    )


def powers(matrix, count):
    return [np.linalg.matrix_power(matrix, i) for i in range(count)]


def sampled(system, exploration_cov):
    """z, x, u of the data as linear functions of independent unit noises, lists over t."""
    n, m = system.state_size, system.observation_size
    noises = np.eye(T * (n + m + system.control_size)).reshape(T, n + m + system.control_size, -1)
    root = np.linalg.cholesky
    z, x, u = [], [], []
    for t, noise in enumerate(noises):
        own = root(system.transition_cov if t else system.initial_cov) @ noise[:n]
        moved = system.transition @ z[-1] + system.control @ u[-1] if t else 0.0
        z.append(moved + own)
        x.append(system.emission @ z[-1] + root(system.emission_cov) @ noise[n : n + m])
        u.append(root(exploration_cov) @ noise[n + m :])
    return z, x, u


def future_given_state(model, length):
    """x_{t:T} = H z_t + sum_j D_j u_{t+j} + noise: H, the D_j and the noise's covariance."""
    steps, m = powers(model.transition, length), model.observation_size
    moves = [model.emission @ step for step in steps]
    weights = np.concatenate(moves)
    inputs, covariance = [], np.kron(np.eye(length), model.emission_cov)
    for j in range(1, length):
        late = np.concatenate([np.zeros((j * m, model.state_size)), *moves[: length - j]])
        inputs.append(late @ model.control)
        covariance = covariance + late @ model.transition_cov @ late.T
    return weights, inputs, covariance


def expected(target, given):
    """E[target | given], both linear in unit noises."""
    return np.linalg.solve(given @ given.T, given @ target.T).T @ given


def oracle(system, model, k, exploration_cov):
    """Mean squared error of q's mean and the variance that q claims, step by step."""
    z, x, u = sampled(system, exploration_cov)
    mean, claimed = np.zeros_like(z[0]), np.zeros_like(system.transition_cov)
    errors, claims = [], []
    for t in range(T):
        weights, inputs, covariance = future_given_state(model, T - t)
        explained = sum((d @ u[t + j] for j, d in enumerate(inputs)), np.zeros_like(mean[:1]))
        gain = weights.T @ np.linalg.inv(covariance)
        message = gain @ (np.concatenate(x[t:]) - explained)
        last = min(t + k, T - 1)
        message = expected(message, np.concatenate([*x[: last + 1], *u[:last]]))
        prior = np.linalg.inv(model.transition_cov if t else model.initial_cov)
        own = np.linalg.inv(prior + gain @ weights)
        moved = model.transition @ mean + model.control @ u[t - 1] if t else np.zeros_like(mean)
        mean = own @ (prior @ moved + message)
        kept = own @ prior @ model.transition
        claimed = kept @ claimed @ kept.T + own
        errors.append((mean - z[t]) @ (mean - z[t]).T)
        claims.append(claimed)
    return np.stack(errors), np.stack(claims)


@pytest.mark.parametrize("lookahead", [0, 1, None])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 1, 1), (2, 2, 2), (3, 1, 2)])
def test_a_wrong_model_believes_what_dense_algebra_says(sizes, lookahead):
    rng = np.random.default_rng(sizes)
    system, model = random_system(rng, *sizes), random_system(rng, *sizes)
    exploration = 0.4 * np.eye(sizes[-1]) + 0.1
    found = lqg_belief.belief(system, model, T, lookahead, exploration_cov=exploration)
    ahead = T - 1 if lookahead is None else lookahead
    errors, claims = oracle(system, model, ahead, exploration)
    # Float64, five steps, good condition: both agree to 1e-13, and a wrong sign costs 1e-2.
    np.testing.assert_allclose(found[2], errors, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found[1], claims, rtol=1e-9, atol=1e-11)


def test_at_full_conditions_error_and_claim_of_the_truth_agree():
    system = random_system(np.random.default_rng(7), 2, 1, 1)
    found = lqg_belief.belief(system, system, T, None, exploration_cov=np.eye(1))
    np.testing.assert_allclose(found[1], found[2], rtol=1e-9)
    # Who sees the future knows more than the filter; at the last step they are one, to rounding.
    assert np.all(np.linalg.eigvalsh(found[0] - found[1]) > -1e-12)
