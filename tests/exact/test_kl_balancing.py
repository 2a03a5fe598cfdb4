"""KL balancing against dense Gaussian algebra, finite differences and numbers found before."""

import dataclasses

import numpy as np
import pytest

from tfp_gaps.exact import kl_balancing as kb
from tfp_gaps.exact import linear_gaussian as lg
from tfp_gaps.exact.conditions import conditions
from tfp_gaps.exact.linear_gaussian_learning import observation_covariance

SLOW = lg.LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
T = 8


def scalars(model):
    return [getattr(model, field.name).item() for field in dataclasses.fields(model)]


def with_noise(model, noise):
    return dataclasses.replace(model, emission_cov=np.array([[noise]]))


# Known numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("lookahead", [0, None])
@pytest.mark.parametrize("beta", [0.5, 0.1])
@pytest.mark.parametrize("start", [(0.9, 0.1, 1.0), (0.3, 1.0, 0.3), (0.99, 0.01, 4.0)])
def test_every_start_ends_in_the_copy(lookahead, beta, start):
    """The first-order autoregression: a = .9 P / (P + 1), Q = (P + 1)(1 - a^2), P = .1 / .19."""
    memory, process, sensor = start
    first = lg.LinearGaussian(memory, process, 1.0, sensor, 1.0)
    end = kb.alternate(SLOW, T, lookahead, beta, start=first)
    power = 0.1 / 0.19
    a = 0.9 * power / (power + 1)
    found = np.ravel(scalars(end.model))
    expected = [a, (power + 1) * (1 - a**2), 1.0, 0.0, power + 1]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert end.loss == pytest.approx(0.0252, abs=5e-5)


@pytest.mark.parametrize(
    ("lookahead", "beta", "expected"),
    [(0, 0.5, 0.0535), (None, 0.5, 0.0361), (0, 0.1, 0.0843), (None, 0.1, 0.0822)],
)
def test_losses_with_the_noise_held(lookahead, beta, expected):
    assert kb.fixed_noise(SLOW, T, lookahead, beta).loss == pytest.approx(expected, abs=5e-5)


def test_without_balancing_the_truth_stays():
    end = kb.alternate(SLOW, T, None, 1.0)
    np.testing.assert_allclose(scalars(end.model), scalars(SLOW), rtol=1e-9)


# The equation of the fixed points -----------------------------------------------------------------


def dense_log_likelihood(memory, process, sensor, initial):
    """E ln p(x) on the slow chain, per step, from covariance matrices alone."""
    t = np.arange(T)
    variances = [initial]
    for _ in t[1:]:
        variances.append(memory**2 * variances[-1] + process)
    shared = np.minimum.outer(t, t)
    model = np.array(variances)[shared] * memory ** np.abs(np.subtract.outer(t, t))
    model += sensor * np.eye(T)
    data = 0.1 / 0.19 * 0.9 ** np.abs(np.subtract.outer(t, t)) + np.eye(T)
    log_det = np.linalg.slogdet(2 * np.pi * model)[1]
    return -0.5 * (log_det + np.trace(np.linalg.solve(model, data))) / T


def test_an_inner_fixed_point_solves_the_scalar_equation():
    beta = 0.97  # above the critical weight of this chain
    end = kb.alternate(SLOW, T, None, beta, tolerance=1e-12)
    memory, process, _, sensor, initial = scalars(end.model)
    assert sensor > 0.3

    def at(change):
        a, q, r, p = np.array([memory, process, beta * sensor, initial]) * np.exp(change)
        return dense_log_likelihood(a, q, r, p)

    step = 1e-5
    slopes = [(at(step * e) - at(-step * e)) / (2 * step) for e in np.eye(4)]
    # Central differences err by 1e-10; the rest is how far the alternation came.
    np.testing.assert_allclose(slopes, [0, 0, (1 - beta) / (2 * beta), 0], atol=1e-7)


def test_alternation_climbs_the_common_function():
    """J rises at every update, for an intermediate look-ahead too."""
    beta, model, values = 0.5, lg.LinearGaussian(0.5, 0.7, 1.0, 1.5, 1.0), []
    for _ in range(6):
        r = beta * model.emission_cov.item()
        bound = lg.population_elbo(SLOW, with_noise(model, r), T, 1)
        values.append(bound - T * (1 - beta) / (2 * beta) * np.log(r))
        model = kb.alternate(SLOW, T, 1, beta, start=model, max_steps=1).model
    assert np.all(np.diff(values) > 0)


@pytest.mark.parametrize("lookahead", [0, 2, None])
def test_the_slope_is_the_derivative_of_the_best_bound(lookahead):
    low, middle, high = (kb.profile(SLOW, T, lookahead, 0.5 * e) for e in (0.999, 1.0, 1.001))
    by_difference = (high.elbo - low.elbo) / np.log(1.001 / 0.999)
    assert middle.slope == pytest.approx(by_difference, abs=1e-6)
    assert middle.elbo == pytest.approx(
        lg.population_elbo(SLOW, middle.model, T, lookahead) / T, abs=1e-12
    )


def test_the_critical_weight_parts_two_kinds_of_ends():
    beta, profiles = kb.critical_beta(SLOW, T, None, num_noises=5)
    assert all(p.slope <= (1 / beta - 1) / 2 + 1e-12 for p in profiles)
    start = with_noise(SLOW, 0.8)
    above, below = (
        kb.alternate(SLOW, T, None, beta + shift, start=start) for shift in (0.01, -0.01)
    )
    assert above.model.emission_cov.item() > 0.3
    assert below.model.emission_cov.item() < 1e-7


def test_held_noise_is_the_plain_bound_at_beta_times_it():
    world = lg.LinearGaussian(0.8, 0.3, 1.0, 0.5, 1.0)
    end = kb.alternate(world, 6, 1, 0.3, learn_noise=False)
    by_bound = kb.fixed_noise(world, 6, 1, 0.3)
    np.testing.assert_allclose(scalars(end.model), scalars(by_bound.model), rtol=1e-5)


def test_a_noise_held_at_the_truth_over_beta_leaves_the_truth():
    found = kb.fixed_noise(SLOW, T, None, 0.25, noise=4.0).model
    np.testing.assert_allclose(scalars(found), [0.9, 0.1, 1.0, 4.0, 0.1 / 0.19], rtol=1e-5)


def test_free_nats_act_as_the_weight_that_spends_them():
    weight = 0.3
    found = kb.fixed_noise(SLOW, T, None, weight).model
    q = lg.shared_factors(SLOW, with_noise(found, weight), T, None)
    spent = kb.divergence(found, q, observation_covariance(SLOW, T))
    end = kb.alternate(SLOW, T, None, 1.0, learn_noise=False, free_nats=spent)
    np.testing.assert_allclose(scalars(end.model), scalars(found), rtol=1e-4)


def test_the_divergence_from_the_prior_closes_the_bound():
    """E ln p(x | z) less the divergence is the expected ELBO."""
    model = lg.LinearGaussian(0.6, 0.4, 1.0, 0.8, 1.2)
    q = lg.shared_factors(SLOW, model, T, 1)
    moments = kb._moments(q, observation_covariance(SLOW, T))
    error = kb._squared_error(model, moments)
    fit = -0.5 * (T * np.log(2 * np.pi * 0.8) + error / 0.8)
    bound = fit - T * kb.divergence(model, q, observation_covariance(SLOW, T))
    assert bound == pytest.approx(lg.factors_elbo(SLOW, model, q), abs=1e-10)


# More room in the state ---------------------------------------------------------------------------


def test_a_deterministic_path_is_a_filter_of_fixed_gain():
    found = kb.profile(SLOW, T, 0, 1e-9, family="path")
    (gain, forget), _ = found.model.transition
    process, initial = found.model.transition_cov[0, 0], found.model.initial_cov[0, 0]
    # x_t - h_t with h_t = g x_{t-1} + f h_{t-1}, h_1 = 0, as weights of x.
    weights = np.zeros((T, T))
    for t in range(1, T):
        weights[t] = forget * weights[t - 1]
        weights[t, t - 1] += gain
    errors = np.eye(T) - weights
    variances = np.append(initial, np.full(T - 1, process))
    squares = np.diag(errors @ observation_covariance(SLOW, T) @ errors.T)
    expected = -0.5 * np.mean(np.log(2 * np.pi * variances) + squares / variances)
    assert found.elbo == pytest.approx(expected, abs=1e-6)
    assert found.loss < kb.profile(SLOW, T, 0, 1e-9).loss / 5


def test_a_spare_component_makes_the_copy_as_good_as_the_truth():
    assert kb.profile(SLOW, T, None, 0.2, family="spare").loss == pytest.approx(0.0, abs=1e-6)


# Gradients ----------------------------------------------------------------------------------------


def unpacked(flow, values):
    latents, weights, log_scales, (a, *logs) = np.split(values, flow.cuts)
    full = np.zeros((flow.size, flow.size))
    full[flow.seen] = weights
    return np.diag(latents, -1), full, np.exp(log_scales), a, *np.exp(logs)


def expected_log_joint(flow, values, model_values):
    """E_q ln p(x | z) and E_q KL_t for each t; q and p may come from different values."""
    latents, weights, scales, *_ = unpacked(flow, values)
    *_, a, q, r, p = unpacked(flow, model_values)
    reach = np.linalg.inv(np.eye(flow.size) - latents)
    mean, root = reach @ weights, reach * np.sqrt(scales)
    observed = flow.covariance[: flow.size, : flow.size]
    error = np.eye(flow.size) - mean
    squares = np.trace(error @ observed @ error.T) + np.sum(root**2)
    fit = -0.5 * (flow.size * np.log(2 * np.pi * r) + squares / r)
    priors = np.append(p, np.full(flow.size - 1, q))
    apart = np.hstack(
        [
            weights + (latents - a * np.eye(flow.size, k=-1)) @ mean,
            (latents - a * np.eye(flow.size, k=-1)) @ root,
        ]
    )
    moves = np.diag(apart @ flow.covariance @ apart.T)
    kl = 0.5 * ((scales + moves) / priors - 1 - np.log(scales / priors))
    return fit, kl


def differences(function, values):
    steps = 1e-5 * np.eye(len(values))
    return np.array([(function(values + e) - function(values - e)) / 2e-5 for e in steps])


@pytest.fixture
def flow_and_point():
    flow = kb._Flow(SLOW, 4, 1, 0.3, through=False)
    rng = np.random.default_rng(0)
    values = flow.vector(lg.LinearGaussian(0.5, 0.7, 1.0, 0.6, 0.9))
    return flow, values + 0.2 * rng.standard_normal(len(values))


def test_the_flow_sees_what_its_look_ahead_shows():
    for lookahead in (0, 2, None):
        seen = kb._Flow(SLOW, 4, lookahead, 0.3, through=False).seen
        shown = conditions(4, last=lookahead).observations
        np.testing.assert_array_equal(seen, shown)


def test_both_gradients_are_those_of_their_own_objectives(flow_and_point):
    flow, point = flow_and_point

    def of_q(values):
        fit, kl = expected_log_joint(flow, values, point)
        return fit - flow.beta * kl.sum()

    def of_p(values):
        fit, kl = expected_log_joint(flow, point, values)
        return fit - kl.sum()

    found = flow.gradient(point)
    np.testing.assert_allclose(found[:-4], differences(of_q, point)[:-4], atol=1e-6)
    np.testing.assert_allclose(found[-4:], differences(of_p, point)[-4:], atol=1e-6)


def test_gradient_through_the_samples_that_p_is_given(flow_and_point):
    """KL(stop(q) || p) with z_{t-1} free and q at t frozen, and beta KL(q || stop(p)) with the mean
    of p frozen: written out path by path with a frozen copy of every mean."""
    _, point = flow_and_point
    flow = kb._Flow(SLOW, 4, 1, 0.3, through=True)
    *_, a, q, _, p = unpacked(flow, point)
    r = np.exp(point[-2])
    priors = np.append(p, np.full(flow.size - 1, q))

    def rows(values):
        latents, weights, scales, *_ = unpacked(flow, values)
        means, states, before = [], [], np.zeros(2 * flow.size)
        for t in range(flow.size):
            mean = np.append(weights[t], np.zeros(flow.size))
            mean = mean + (latents[t, t - 1] * before if t else 0.0)
            before = mean + np.sqrt(scales[t]) * np.eye(2 * flow.size)[flow.size + t]
            means.append(mean)
            states.append(before)
        prior_means = np.vstack([np.zeros(2 * flow.size), a * np.array(states[:-1])])
        return np.array(means), np.array(states), prior_means, scales

    frozen = rows(point)

    def power(weights):
        return np.einsum("ti,ij,tj->t", weights, flow.covariance, weights)

    def objective(values):
        means, states, prior_means, scales = rows(values)
        fit = -0.5 * power(np.eye(flow.size, 2 * flow.size) - states).sum() / r
        dyn = 0.5 * power(frozen[0] - prior_means) / priors
        rep = 0.5 * ((power(means - frozen[2]) + scales) / priors - np.log(scales))
        return fit - dyn.sum() - flow.beta * rep.sum()

    expected = differences(objective, point)[:-4]
    np.testing.assert_allclose(flow.gradient(point)[:-4], expected, atol=1e-6)


@pytest.mark.parametrize("start", [(0.9, 0.1, 1.0), (0.3, 1.0, 0.3), (0.6, 0.4, 2.0)])
def test_stopped_gradients_end_where_alternation_ends(start):
    memory, process, sensor = start
    end = kb.climb(SLOW, T, None, 0.5, lg.LinearGaussian(memory, process, 1.0, sensor, 1.0))
    assert end.model.emission_cov.item() < 1e-5
    assert end.loss == pytest.approx(kb.alternate(SLOW, T, None, 0.5).loss, abs=1e-5)


# Bad input ----------------------------------------------------------------------------------------


def test_bad_input():
    for beta in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="beta must be above 0 and at most 1"):
            kb.alternate(SLOW, T, None, beta)
    two = lg.LinearGaussian.stationary(0.9, 0.1, [[1.0], [1.0]], np.eye(2))
    with pytest.raises(ValueError, match="one observed channel, but the data have 2"):
        kb.alternate(two, T, None, 0.5)
    with pytest.raises(ValueError, match="num_timesteps"):
        kb.alternate(SLOW, 1, None, 0.5)
    with pytest.raises(ValueError, match="family"):
        kb.profile(SLOW, T, None, 0.5, family="tree")
    scaled = lg.LinearGaussian.stationary(0.9, 0.1, 2.0, 1.0)
    with pytest.raises(ValueError, match="emission 1"):
        kb.climb(scaled, T, None, 0.5, scaled)
