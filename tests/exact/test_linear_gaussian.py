"""The linear-Gaussian chain against brute force on the joint Gaussian, TFP and printed tables.

Two independent oracles: `Joint` writes the covariance of (z_{1:T}, x_{1:T}) down as one matrix and
conditions it with generic linear algebra; `tfd.LinearGaussianStateSpaceModel` filters and smooths.
"""

import functools
import itertools
from fractions import Fraction

import numpy as np
import pytest
import scipy.optimize

from tfp_gaps.exact import linear_gaussian as lg
from tfp_gaps.exact import linear_gaussian_learning as learning
from tfp_gaps.exact import linear_gaussian_recursions as recursions
from tfp_gaps.exact._numerics import bfgs
from tfp_gaps.exact.linear_gaussian import LinearGaussian

# Float64 with condition numbers below about 1e6: what is left of 1e-16 is 1e-10 or better.
EXACT = 1e-8

SHAPES = [(1, 1), (1, 3), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3)]


def random_model(state_size, observation_size, seed):
    """A stable chain with correlated noises and an initial law that is not the stationary one."""
    rng = np.random.default_rng([state_size, observation_size, seed])

    def covariance(size):
        root = rng.standard_normal((size, size))
        return 0.3 * root @ root.T + 0.2 * np.eye(size)

    transition = rng.standard_normal((state_size, state_size))
    transition *= rng.uniform(0.5, 0.98) / np.max(np.abs(np.linalg.eigvals(transition)))
    return LinearGaussian(
        transition,
        covariance(state_size),
        rng.standard_normal((observation_size, state_size)),
        covariance(observation_size),
        covariance(state_size),
    )


def condition(covariance, target, given):
    """Regression weights of `target` on `given` (index lists) and the residual covariance."""
    cross = covariance[np.ix_(target, given)]
    weights = np.linalg.solve(covariance[np.ix_(given, given)], cross.T).T
    return weights, covariance[np.ix_(target, target)] - weights @ cross.T


class Joint:
    """Covariance of (z_1, ..., z_T, x_1, ..., x_T) as one matrix, and what follows from it."""

    def __init__(self, model, num_timesteps):
        n, m, self.length = model.state_size, model.observation_size, num_timesteps
        powers = [np.linalg.matrix_power(model.transition, i) for i in range(num_timesteps)]
        paths = np.zeros((num_timesteps * n, num_timesteps * n))
        noise = np.zeros_like(paths)
        for t in range(num_timesteps):
            rows = slice(t * n, (t + 1) * n)
            noise[rows, rows] = model.transition_cov if t else model.initial_cov
            for s in range(t + 1):
                paths[rows, s * n : (s + 1) * n] = powers[t - s]
        states = paths @ noise @ paths.T
        emission = np.kron(np.eye(num_timesteps), model.emission)
        observations = emission @ states @ emission.T
        observations += np.kron(np.eye(num_timesteps), model.emission_cov)
        cross = states @ emission.T
        self.covariance = np.block([[states, cross], [cross.T, observations]])
        self.observed = observations
        self.n, self.m = n, m

    def z(self, t):
        return list(range(t * self.n, (t + 1) * self.n))

    def x(self, start, stop):
        offset = self.length * self.n
        return list(range(offset + start * self.m, offset + stop * self.m))

    def full_factor(self, t):
        """p(z_t | z_{t-1}, x_{t:T}): weights of z_{t-1}, weights of x_{t:T}, covariance."""
        previous = self.z(t - 1) if t else []
        given = previous + self.x(t, self.length)
        weights, covariance = condition(self.covariance, self.z(t), given)
        return weights[:, : len(previous)], weights[:, len(previous) :], covariance

    def gap_profile(self, data, lookahead):
        """1/2 tr(V_t^-1 Cov(mean of the full factor | x_{1:t+k})), x from the joint `data`."""
        profile = []
        for t in range(self.length):
            _, weights, covariance = self.full_factor(t)
            seen = data.x(0, min(t + lookahead + 1, self.length))
            _, unknown = condition(data.covariance, data.x(t, self.length), seen)
            spread = weights @ unknown @ weights.T
            profile.append(0.5 * np.trace(np.linalg.solve(covariance, spread)))
        return np.array(profile)

    def log_likelihood(self, data):
        """E ln p(x_{1:T}) with x from the joint `data`."""
        sign, log_det = np.linalg.slogdet(2 * np.pi * self.observed)
        assert sign == 1
        return -0.5 * (log_det + np.trace(np.linalg.solve(self.observed, data.observed)))


def elbo_of_linear_q(model, data, transitions, weights, covariances):
    """E ELBO of q(z_t | z_{t-1}, x) = N(transitions_t z_{t-1} + sum_s weights_{t,s} x_s, cov_t)."""
    num_timesteps, n = transitions.shape[:2]
    size = num_timesteps * n
    chain, noise = np.eye(size), np.zeros((size, size))
    for t in range(num_timesteps):
        rows = slice(t * n, (t + 1) * n)
        noise[rows, rows] = covariances[t]
        if t:
            chain[rows, (t - 1) * n : t * n] = -transitions[t]
    inverse = np.linalg.inv(chain)
    regression = inverse @ weights.reshape(size, -1)
    states = regression @ data.observed @ regression.T + inverse @ noise @ inverse.T
    cross = regression @ data.observed
    second_moment = np.block([[states, cross], [cross.T, data.observed]])
    joint = Joint(model, num_timesteps).covariance
    log_p = -0.5 * (
        np.linalg.slogdet(2 * np.pi * joint)[1] + np.trace(np.linalg.solve(joint, second_moment))
    )
    log_q = -0.5 * (np.linalg.slogdet(2 * np.pi * noise)[1] + size)
    return log_p - log_q


# Brute force ----------------------------------------------------------------------------------


@pytest.mark.parametrize("num_timesteps", [1, 2, 5, 12])
@pytest.mark.parametrize(("state_size", "observation_size"), SHAPES)
def test_gap_profile_matches_joint_gaussian(state_size, observation_size, num_timesteps):
    model = random_model(state_size, observation_size, seed=num_timesteps)
    joint = Joint(model, num_timesteps)
    for lookahead in range(num_timesteps):
        expected = joint.gap_profile(joint, lookahead)
        found = lg.gap_profile(model, num_timesteps, lookahead)
        np.testing.assert_allclose(found, expected, atol=EXACT)
        total = lg.conditioning_gap(model, num_timesteps, lookahead)
        np.testing.assert_allclose(total, expected.sum(), atol=EXACT)


@pytest.mark.parametrize("num_timesteps", [1, 4, 12])
@pytest.mark.parametrize(("state_size", "observation_size"), SHAPES)
def test_bounds_at_wrong_parameters_match_joint_gaussian(
    state_size, observation_size, num_timesteps
):
    data = random_model(max(1, 3 - state_size), observation_size, seed=100)
    model = random_model(state_size, observation_size, seed=200)
    joint, truth = Joint(model, num_timesteps), Joint(data, num_timesteps)
    evidence = joint.log_likelihood(truth)
    found = lg.log_likelihood(data, model, num_timesteps)
    np.testing.assert_allclose(found, evidence, rtol=EXACT)
    for lookahead in range(num_timesteps):
        expected = evidence - joint.gap_profile(truth, lookahead).sum()
        found = lg.population_elbo(data, model, num_timesteps, lookahead)
        np.testing.assert_allclose(found, expected, rtol=EXACT)


@pytest.mark.parametrize("lookahead", [0, 1, 3, None])
@pytest.mark.parametrize(("state_size", "observation_size"), SHAPES)
def test_shared_factors_attain_the_bound_and_nothing_near_is_better(
    state_size, observation_size, lookahead
):
    num_timesteps = 5
    data = random_model(2, observation_size, seed=300)
    model = random_model(state_size, observation_size, seed=400)
    truth = Joint(data, num_timesteps)
    q = lg.shared_factors(data, model, num_timesteps, lookahead)
    best = lg.population_elbo(data, model, num_timesteps, lookahead)

    def elbo(transition, weights, covariance):
        return elbo_of_linear_q(model, truth, transition, weights, covariance)

    found = elbo(q.transition, q.observation_weights, q.covariance)
    np.testing.assert_allclose(found, best, rtol=EXACT)
    np.testing.assert_allclose(lg.factors_elbo(data, model, q), best, rtol=EXACT)
    rng = np.random.default_rng(0)
    last = np.arange(num_timesteps) + (num_timesteps if lookahead is None else lookahead)
    seen = np.arange(num_timesteps) <= last[:, np.newaxis]
    for size in (1e-3, 0.1):
        moved = size * rng.standard_normal(q.observation_weights.shape)
        weights = q.observation_weights + moved * seen[:, np.newaxis, :, np.newaxis]
        transition = q.transition + size * rng.standard_normal(q.transition.shape)
        assert elbo(transition, q.observation_weights, q.covariance) < best
        assert elbo(q.transition, weights, q.covariance) < best
        found = lg.factors_elbo(data, model, lg.SharedFactors(q.covariance, transition, weights))
        expected = elbo(transition, weights, q.covariance)
        np.testing.assert_allclose(found, expected, rtol=EXACT)
        for factor in (1 - size, 1 + size):
            assert elbo(q.transition, q.observation_weights, factor * q.covariance) < best


def test_shared_factors_see_what_the_look_ahead_allows():
    model = random_model(2, 2, seed=5)
    for lookahead in range(6):
        weights = lg.shared_factors(model, model, 6, lookahead).observation_weights
        for t in range(6):
            used = np.any(weights[t] != 0, axis=(0, 2)).tolist()
            # Once q sees the end, z_{t-1} and x_{t:T} suffice, and the past is ignored.
            complete = t + lookahead >= 5
            assert used == [s <= t + lookahead and not (complete and s < t) for s in range(6)]


@pytest.mark.parametrize("lookahead", [0, 1])
def test_direct_optimisation_of_q_lands_on_the_closed_form(lookahead):
    """Numerical maximisation over every weight and variance of q, with no theory in between."""
    num_timesteps, model = 3, LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    data = LinearGaussian(0.7, 0.4, 1.0, 0.5, 1.2)
    truth = Joint(data, num_timesteps)
    seen = np.arange(num_timesteps) <= np.arange(num_timesteps)[:, np.newaxis] + lookahead

    def loss(parameters):
        transition, log_scale, rest = np.split(parameters, [num_timesteps, 2 * num_timesteps])
        weights = np.zeros((num_timesteps, num_timesteps))
        weights[seen] = rest
        covariance = np.exp(2 * log_scale)[:, np.newaxis, np.newaxis]
        transition = transition[:, np.newaxis, np.newaxis]
        return -elbo_of_linear_q(model, truth, transition, weights, covariance)

    start = np.zeros(2 * num_timesteps + seen.sum())
    result = scipy.optimize.minimize(loss, start, method="BFGS", options={"gtol": 1e-6})
    expected = lg.population_elbo(data, model, num_timesteps, lookahead)
    # BFGS with numerical gradients stops at gradients of 1e-6: the value is then off by 1e-10.
    np.testing.assert_allclose(-result.fun, expected, atol=1e-7)


def test_full_factors_are_those_of_the_posterior():
    model, num_timesteps = random_model(3, 2, seed=7), 6
    joint = Joint(model, num_timesteps)
    # Full factors do not depend on the data's law: use another one.
    q = lg.shared_factors(random_model(2, 2, seed=8), model, num_timesteps, None)
    for t in range(num_timesteps):
        of_previous, of_future, covariance = joint.full_factor(t)
        np.testing.assert_allclose(q.covariance[t], covariance, atol=EXACT)
        future = q.observation_weights[t].reshape(3, -1)
        np.testing.assert_allclose(future[:, 2 * t :], of_future, atol=EXACT)
        np.testing.assert_allclose(future[:, : 2 * t], 0.0, atol=EXACT)
        if t:
            np.testing.assert_allclose(q.transition[t], of_previous, atol=EXACT)


@pytest.mark.parametrize(("state_size", "observation_size"), [(1, 1), (3, 2)])
def test_marginals_of_factors_match_joint_gaussian(state_size, observation_size):
    model, num_timesteps = random_model(state_size, observation_size, seed=9), 5
    joint = Joint(model, num_timesteps)
    _, x = lg.sample(model, num_timesteps, 4, seed=1)
    flat = np.moveaxis(x, 1, 0).reshape(4, -1)
    smoothed = lg.factor_marginals(lg.shared_factors(model, model, num_timesteps, None), x)
    filtered = lg.kalman_filter(model, x)
    for t in range(num_timesteps):
        everything = joint.x(0, num_timesteps)
        weights, covariance = condition(joint.covariance, joint.z(t), everything)
        np.testing.assert_allclose(smoothed.means[t], flat @ weights.T, atol=EXACT)
        np.testing.assert_allclose(smoothed.covariances[t], covariance, atol=EXACT)
        weights, covariance = condition(joint.covariance, joint.z(t), joint.x(0, t + 1))
        past = flat[:, : (t + 1) * observation_size]
        np.testing.assert_allclose(filtered.means[t], past @ weights.T, atol=EXACT)
        np.testing.assert_allclose(filtered.covariances[t], covariance, atol=EXACT)


@pytest.mark.parametrize(("state_size", "observation_size"), [(1, 1), (2, 1), (3, 2)])
def test_online_filter_matches_joint_gaussian(state_size, observation_size):
    """The mean of the partial q is linear in x: read its weights off and let the joint judge it."""
    model, num_timesteps = random_model(state_size, observation_size, seed=11), 6
    joint, online = Joint(model, num_timesteps), lg.online_filter(model, num_timesteps)
    channels = num_timesteps * observation_size
    basis = np.moveaxis(np.eye(channels).reshape(channels, num_timesteps, -1), 0, 1)
    q = lg.shared_factors(model, model, num_timesteps, 0)
    means = lg.factor_marginals(q, basis).means
    for t in range(num_timesteps):
        error = np.zeros((state_size, len(joint.covariance)))
        error[:, joint.z(t)] = np.eye(state_size)
        error[:, joint.x(0, num_timesteps)] = -means[t].T
        actual = error @ joint.covariance @ error.T
        np.testing.assert_allclose(online.error_cov[t], actual, atol=EXACT)
        _, filtered = condition(joint.covariance, joint.z(t), joint.x(0, t + 1))
        np.testing.assert_allclose(online.filtered_cov[t], filtered, atol=EXACT)
        _, smoothed = condition(joint.covariance, joint.z(t), joint.x(0, num_timesteps))
        np.testing.assert_allclose(online.claimed_cov[t], smoothed, atol=EXACT)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 1, 1), (1, 2, 2), (3, 2, 2)])
def test_prediction_matches_joint_gaussian(sizes):
    data_size, state_size, observation_size = sizes
    data = random_model(data_size, observation_size, seed=13)
    model = random_model(state_size, observation_size, seed=14)
    context, horizons = 3, [1, 4]
    joint, truth = Joint(model, 7), Joint(data, 7)
    found = lg.prediction(data, model, context, horizons)
    for row, h in enumerate(horizons):
        target = slice(context + h - 1, context + h)
        past, future = joint.x(0, context), joint.x(target.start, target.stop)
        weights, claimed = condition(joint.covariance, future, past)
        past, future = truth.x(0, context), truth.x(target.start, target.stop)
        error = np.hstack([np.eye(observation_size), -weights])
        actual = error @ truth.covariance[np.ix_(future + past, future + past)] @ error.T
        np.testing.assert_allclose(found.rmse[row], np.sqrt(np.diag(actual)), atol=EXACT)
        np.testing.assert_allclose(found.claimed[row], np.sqrt(np.diag(claimed)), atol=EXACT)


# Another library ------------------------------------------------------------------------------


def test_filter_and_smoother_match_tfp():
    from tfp_gaps._tensorflow import tf, tfp

    model, num_timesteps = random_model(3, 2, seed=17), 5
    _, x = lg.sample(model, num_timesteps, 5, seed=2)

    def normal(covariance):
        return tfp.distributions.MultivariateNormalTriL(
            scale_tril=tf.constant(np.linalg.cholesky(covariance))
        )

    reference = tfp.distributions.LinearGaussianStateSpaceModel(
        num_timesteps=num_timesteps,
        transition_matrix=tf.constant(model.transition),
        transition_noise=normal(model.transition_cov),
        observation_matrix=tf.constant(model.emission),
        observation_noise=normal(model.emission_cov),
        initial_state_prior=normal(model.initial_cov),
    )
    batch_major = tf.constant(np.moveaxis(x, 1, 0))
    log_likelihoods, means, covariances, *_ = reference.forward_filter(batch_major)
    found = lg.kalman_filter(model, x)
    total = tf.reduce_sum(log_likelihoods, -1).numpy()
    np.testing.assert_allclose(found.log_likelihood, total, atol=EXACT)
    np.testing.assert_allclose(found.means, np.moveaxis(means.numpy(), 1, 0), atol=EXACT)
    np.testing.assert_allclose(found.covariances, covariances.numpy(), atol=EXACT)
    smoothed_means, smoothed_covs = reference.posterior_marginals(batch_major)
    marginals = lg.factor_marginals(lg.shared_factors(model, model, num_timesteps, None), x)
    np.testing.assert_allclose(marginals.means, np.moveaxis(smoothed_means, 1, 0), atol=EXACT)
    np.testing.assert_allclose(marginals.covariances, smoothed_covs, atol=EXACT)


# Samples --------------------------------------------------------------------------------------


def log_density(value, mean, covariance):
    """ln N(value; mean, covariance) for [..., n]."""
    error = value - mean
    solved = np.linalg.solve(covariance, error[..., np.newaxis])[..., 0]
    return -0.5 * (np.linalg.slogdet(2 * np.pi * covariance)[1] + np.sum(error * solved, -1))


def log_joint(model, z, x):
    first = log_density(z[0], 0.0, model.initial_cov)
    later = log_density(z[1:], z[:-1] @ model.transition.T, model.transition_cov).sum(0)
    return first + later + log_density(x, z @ model.emission.T, model.emission_cov).sum(0)


def log_factors(factors, z, x):
    """ln q(z_{1:T} | x_{1:T}) per sequence."""
    means = np.einsum("tiso,sbo->tbi", factors.observation_weights, x)
    means[1:] += np.einsum("tij,tbj->tbi", factors.transition[1:], z[:-1])
    return sum(
        log_density(z[t], means[t], factors.covariance[t]) for t in range(len(factors.covariance))
    )


def test_samples_from_the_shared_factors_give_the_bound():
    model, data, num_timesteps = random_model(2, 1, seed=19), random_model(1, 1, seed=20), 6
    _, x = lg.sample(data, num_timesteps, 20_000, seed=3)
    q = lg.shared_factors(data, model, num_timesteps, 1)
    z = lg.sample_factors(q, x, seed=4)
    elbos = log_joint(model, z, x) - log_factors(q, z, x)
    error = elbos.std(ddof=1) / np.sqrt(elbos.size)
    expected = lg.population_elbo(data, model, num_timesteps, 1)
    # Four standard errors; the seed is fixed, so that this passes or fails for ever.
    assert abs(elbos.mean() - expected) < 4 * error
    assert error < 0.05
    found = lg.sampled_gap(model, q, x, seed=4)
    np.testing.assert_allclose(found, lg.kalman_filter(model, x).log_likelihood - elbos, atol=EXACT)


def test_the_posterior_has_no_gap_at_any_draw():
    model = random_model(3, 2, seed=43)
    _, x = lg.sample(model, 12, 100, seed=8)
    full = lg.shared_factors(model, model, 12, None)
    assert np.max(np.abs(lg.sampled_gap(model, full, x, seed=9))) < EXACT
    partial = lg.shared_factors(model, model, 12, 0)
    assert np.max(np.abs(lg.sampled_gap(model, partial, x, seed=9))) > 0.1


def test_samples_from_factors_have_their_marginals():
    model, num_timesteps = random_model(2, 1, seed=41), 3
    _, one = lg.sample(model, num_timesteps, 1, seed=6)
    x = np.repeat(one, 20_000, axis=1)
    q = lg.shared_factors(model, model, num_timesteps, 0)
    z, marginals = lg.sample_factors(q, x, seed=7), lg.factor_marginals(q, x)
    for t in range(num_timesteps):
        error = z[t] - marginals.means[t]
        exact = marginals.covariances[t]
        variances = np.diag(exact)
        noise = np.sqrt((np.outer(variances, variances) + exact**2) / 20_000)
        assert np.max(np.abs(error.T @ error / 20_000 - exact) / noise) < 4.5
        assert np.max(np.abs(error.mean(0)) / np.sqrt(variances / 20_000)) < 4.5


def test_samples_are_reproducible_and_have_the_joint_covariance():
    model, num_timesteps = random_model(2, 2, seed=21), 3
    z, x = lg.sample(model, num_timesteps, 40_000, seed=5)
    again, _ = lg.sample(model, num_timesteps, 40_000, seed=5)
    np.testing.assert_array_equal(z, again)
    flat = np.concatenate([np.moveaxis(v, 1, 0).reshape(40_000, -1) for v in (z, x)], 1)
    exact = Joint(model, num_timesteps).covariance
    variances = np.diag(exact)
    error = np.sqrt((np.outer(variances, variances) + exact**2) / 40_000)
    # 12 x 12 entries: the largest of 78 standard normals stays below 5.
    assert np.max(np.abs(flat.T @ flat / 40_000 - exact) / error) < 5


# Printed tables -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "limits", "rates"),
    [
        ((0.9, 0.1, 1), (2.7441, 0.0785, 0.4987, 0.2744), (0.0941, 0.0469, 0.0234, 0.0117, 0.0058)),
        ((0.9, 0.5, 1), (1.7578, 0.2661, 0.2294, 0.8789), (0.1366, 0.0313, 0.0072, 0.0016, 0.0004)),
        ((0.9, 0.5, 0.05), (21.482, 0.0426, 0.0059, 0.5371), (0.0337, 0.0002, 0, 0, 0)),
        ((0.9, 0.001, 1), (5.1506, 0.001, 0.8017, 0.0052), (0.0021, 0.0017, 0.0014, 0.0011, 9e-4)),
    ],
)
def test_steady_state_table(parameters, limits, rates):
    a, q, r = parameters
    model = LinearGaussian.stationary(a, q, 1.0, r)
    steady = lg.steady_state(model)
    found = [
        steady.message_precision,
        steady.factor_cov,
        steady.message_transition**2,
        steady.predicted_cov,
    ]
    # Four decimals are printed; five digits of 21.482.
    np.testing.assert_allclose(np.ravel(found), limits, atol=6e-5, rtol=1e-5)
    found = [lg.gap_rate(model, k) for k in range(5)]
    np.testing.assert_allclose(found, rates, atol=5e-5)
    ratios = np.array(found[1:]) / np.array(found[:-1])
    # Rounding at the smallest rate, 1e-11, leaves seven digits of the ratio.
    np.testing.assert_allclose(ratios, steady.message_transition.item() ** 2, rtol=1e-6)


def test_profiles_table():
    model = LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    expected = [0.2975, 0.0987, 0.0928, 0.0867, 0.0776, 0.0620, 0.0364, 0.0]
    np.testing.assert_allclose(lg.gap_profile(model, 8, 0), expected, atol=5e-5)
    nearly_deterministic = LinearGaussian(0.9, 0.001, 1.0, 1.0, 1.0)
    found = lg.gap_profile(nearly_deterministic, 8, 0)[:3]
    np.testing.assert_allclose(found, [0.8131, 0.0028, 0.0021], atol=5e-5)


# true (a, Q, R), P0 or None for stationary; k; gap at truth; log-likelihood loss; a, Q, R, P0.
LEARNED = [
    ((0.9, 0.1, 1.0), 0, 0.0940, 0.0252, (0.310, 1.3793, 0.0, 1.526)),
    ((0.9, 0.1, 1.0), 1, 0.0401, 0.0094, (0.633, 0.4735, 0.7345, 0.798)),
    ((0.9, 0.1, 1.0), 2, 0.0169, 0.0035, (0.762, 0.2749, 0.8660, 0.670)),
    ((0.9, 0.1, 1.0), 3, 0.0069, 0.0014, (0.821, 0.1964, 0.9203, 0.614)),
    ((0.9, 0.5, 1.0), 0, 0.1306, 0.0376, (0.652, 2.0870, 0.0, 3.632)),
    ((0.9, 0.5, 1.0), 1, 0.0254, 0.0059, (0.826, 0.9210, 0.7243, 2.913)),
    ((0.9, 0.5, 1.0), 2, 0.0049, 0.0010, (0.874, 0.6460, 0.8957, 2.740)),
    ((0.9, 0.5, 0.05), 0, 0.0298, 0.0017, (0.883, 0.5897, 0.0, 2.682)),
    ((0.9, 0.5, 0.05), 1, 0.0002, 0.0000, (0.898, 0.5090, 0.0449, 2.637)),
    ((0.9, 0.001, 1.0, 1.0), 0, 0.1028, 0.0529, (0.331, 1.2990, 0.0, 2.000)),
    ((0.9, 0.001, 1.0, 1.0), 1, 0.0550, 0.0152, (0.733, 0.2243, 0.8333, 1.291)),
    ((0.9, 0.001, 1.0, 1.0), 2, 0.0326, 0.0070, (0.807, 0.1206, 0.8921, 1.207)),
    ((0.9, 0.001, 1.0, 1.0), 3, 0.0199, 0.0039, (0.837, 0.0806, 0.9180, 1.158)),
]


def chain(a, q, r, initial=None):
    if initial is None:
        return LinearGaussian.stationary(a, q, 1.0, r)
    return LinearGaussian(a, q, 1.0, r, initial)


@functools.cache
def learned_chain(true, num_timesteps, lookahead):
    return lg.learn(chain(*true), num_timesteps, lookahead)


@pytest.mark.parametrize(("true", "lookahead", "gap", "loss", "learned"), LEARNED)
def test_learning_table(true, lookahead, gap, loss, learned):
    data = chain(*true)
    found = learned_chain(true, 8, lookahead)
    evidence = lg.log_likelihood(data, data, 8)
    # Half a unit of the fourth (third: a, P0) decimal, and a little for values at its edge.
    assert lg.conditioning_gap(data, 8, lookahead) / 8 == pytest.approx(gap, abs=5.1e-5)
    lost = (evidence - lg.log_likelihood(data, found, 8)) / 8
    assert lost == pytest.approx(loss, abs=5.1e-5)
    parameters = (found.transition, found.transition_cov, found.emission_cov, found.initial_cov)
    errors = np.abs(np.ravel(parameters) - learned)
    assert np.all(errors < [5.1e-4, 5.1e-5, 5.1e-5, 5.1e-4]), parameters


@pytest.mark.parametrize("true", [(0.9, 0.1, 1.0), (0.9, 0.5, 0.05), (0.9, 0.001, 1.0, 1.0)])
def test_learning_with_full_conditions_recovers_the_truth(true):
    data = chain(*true)
    elbo = lg.population_elbo(data, data, 8, None)
    found = lg.learn(data, 8, None, from_truth=False)
    assert lg.population_elbo(data, found, 8, None) == pytest.approx(elbo, abs=1e-9)
    for name in ("transition", "transition_cov", "emission_cov", "initial_cov"):
        # The objective is flat to 1e-12 where parameters move by its square root.
        np.testing.assert_allclose(getattr(found, name), getattr(data, name), atol=1e-5)


@pytest.mark.parametrize(
    ("true", "elbo"),
    [
        ((0.9, 0.1, 1.0), -1.5861),
        ((0.9, 0.5, 1.0), -1.8214),
        ((0.9, 0.5, 0.05), -1.2496),
        ((0.9, 0.001, 1.0, 1.0), -1.5767),
    ],
)
def test_partial_learning_reaches_the_best_autoregression(true, elbo):
    data = chain(*true)
    found = learned_chain(true, 8, 0)
    fit = lg.best_autoregression(data, 8)
    reached = lg.population_elbo(data, found, 8, 0)
    # An emission noise of 1e-10 instead of zero costs about as much.
    assert reached == pytest.approx(fit.log_likelihood, abs=1e-7)
    assert reached == pytest.approx(lg.log_likelihood(data, found, 8), abs=1e-7)
    assert reached / 8 == pytest.approx(elbo, abs=5e-5)
    assert found.transition.item() == pytest.approx(fit.transition.item(), abs=1e-5)
    assert found.transition_cov.item() == pytest.approx(fit.innovation_cov.item(), abs=1e-5)
    assert found.initial_cov.item() == pytest.approx(fit.initial_cov.item(), abs=1e-5)
    assert found.emission_cov.item() < 1e-8


def test_best_autoregression_of_a_stationary_chain_has_its_closed_form():
    data = LinearGaussian.stationary(0.8, 0.3, 1.0, 0.7)
    variance = data.initial_cov.item() + 0.7
    fit = lg.best_autoregression(data, 6)
    coefficient = 0.8 * data.initial_cov.item() / variance
    assert fit.transition.item() == pytest.approx(coefficient, abs=1e-12)
    assert fit.innovation_cov.item() == pytest.approx(variance * (1 - coefficient**2), abs=1e-12)
    as_chain = LinearGaussian(fit.transition, fit.innovation_cov, 1.0, 1e-13, fit.initial_cov)
    expected = lg.log_likelihood(data, as_chain, 6)
    assert fit.log_likelihood == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("true", "num_timesteps", "learned", "slack"),
    [
        ((0.99, 0.1, 1.0), 20, (0.946, 0.540, 0.90), 0.094),
        ((0.999, 0.01, 1.0, 5.0), 16, (0.983, 0.189, 1.09), 0.106),
    ],
)
def test_the_autoregression_is_not_universal(true, num_timesteps, learned, slack):
    data = chain(*true)
    found = lg.learn(data, num_timesteps, 0)
    parameters = np.ravel((found.transition, found.transition_cov, found.emission_cov))
    assert np.all(np.abs(parameters - learned) < [5.1e-4, 5.1e-4, 5.1e-3]), parameters
    reached = lg.population_elbo(data, found, num_timesteps, 0)
    left = (lg.log_likelihood(data, found, num_timesteps) - reached) / num_timesteps
    assert left == pytest.approx(slack, abs=6e-4)
    assert reached > lg.best_autoregression(data, num_timesteps).log_likelihood + 0.1


@pytest.mark.parametrize(
    ("transition_cov", "interior", "autoregressive"),
    [(0.02, -1.6292, -1.6325), (0.01, -1.5771, -1.5674)],
)
def test_competing_optima_are_both_found(transition_cov, interior, autoregressive):
    data = LinearGaussian.stationary(0.99, transition_cov, 1.0, 1.0)
    optima = lg.local_optima(data, 20, 0)
    values = {o.model.emission_cov.item() > 0.1: o.elbo / 20 for o in reversed(optima)}
    assert values[True] == pytest.approx(interior, abs=5e-5)
    assert values[False] == pytest.approx(autoregressive, abs=5e-5)
    assert [o.elbo for o in optima] == sorted((o.elbo for o in optima), reverse=True)


@pytest.mark.parametrize(
    ("true", "lookahead", "rmse", "claimed"),
    [
        ((0.9, 0.1, 1.0), 0, (1.1744, 1.2329, 1.2354), (1.1744, 1.2354, 1.2354)),
        ((0.9, 0.1, 1.0), 1, (1.1484, 1.2106, 1.2325), (1.1580, 1.2299, 1.2346)),
        ((0.9, 0.1, 1.0), 2, (1.1372, 1.1932, 1.2244), (1.1454, 1.2169, 1.2319)),
        ((0.9, 0.1, 1.0), 3, (1.1327, 1.1857, 1.2182), (1.1387, 1.2053, 1.2278)),
        ((0.9, 0.1, 1.0), None, (1.1292, 1.1802, 1.2120), (1.1292, 1.1802, 1.2120)),
        ((0.9, 0.5, 1.0), 0, (1.4446, 1.7680, 1.8871), (1.4446, 1.8742, 1.9046)),
        ((0.9, 0.5, 1.0), 1, (1.3829, 1.6638, 1.8221), (1.3988, 1.7594, 1.8738)),
        ((0.9, 0.5, 1.0), None, (1.3707, 1.6432, 1.7974), (1.3707, 1.6432, 1.7974)),
    ],
)
def test_prediction_table(true, lookahead, rmse, claimed):
    data = chain(*true)
    found = lg.prediction(data, learned_chain(true, 8, lookahead), 8, [1, 4, 8])
    np.testing.assert_allclose(found.rmse[:, 0], rmse, atol=5.1e-5)
    np.testing.assert_allclose(found.claimed[:, 0], claimed, atol=5.1e-5)


@pytest.mark.parametrize(
    ("true", "variances", "coverages"),
    [
        ((0.9, 0.1, 1.0), (0.2153, 0.1565, 0.2446), (0.812, 0.410)),
        ((0.9, 0.5, 1.0), (0.4678, 0.3454, 0.4959), (0.830, 0.426)),
        ((0.9, 0.5, 0.05), (0.0457, 0.0428, 0.0458), (0.889, 0.486)),
        ((0.99, 0.01, 1.0), (0.0869, 0.0499, 0.1171), (0.717, 0.340)),
    ],
)
def test_online_filter_table(true, variances, coverages):
    steady = lg.online_filter(chain(*true))
    np.testing.assert_allclose(np.ravel(steady), variances, atol=5.1e-5)
    found = [steady.coverage(p).item() for p in (0.9, 0.5)]
    np.testing.assert_allclose(found, coverages, atol=5.1e-4)


# Limits, invariances, extremes ----------------------------------------------------------------


@pytest.mark.parametrize(("state_size", "observation_size"), [(1, 1), (2, 1), (3, 2)])
def test_steady_state_is_the_middle_of_a_long_sequence(state_size, observation_size):
    model, middle = random_model(state_size, observation_size, seed=23), 200
    steady, messages = lg.steady_state(model), recursions.backward(model, 2 * middle)
    predicted, updates = recursions.forward(model, 2 * middle)
    np.testing.assert_allclose(steady.factor_cov, messages.covariance[middle], atol=EXACT)
    np.testing.assert_allclose(steady.predicted_cov, predicted[middle], atol=EXACT)
    np.testing.assert_allclose(steady.filtered_cov, updates.covariance[middle], atol=EXACT)
    # V^-1 = Q^-1 + Lambda and F = A' Q^-1 V, by plain inverses.
    inverse = np.linalg.inv(model.transition_cov)
    precision = np.linalg.inv(steady.factor_cov) - inverse
    np.testing.assert_allclose(steady.message_precision, precision, atol=EXACT)
    np.testing.assert_allclose(
        steady.message_transition, model.transition.T @ inverse @ steady.factor_cov, atol=EXACT
    )
    for lookahead in (0, 1, 4):
        profile = lg.gap_profile(model, 2 * middle, lookahead)
        assert lg.gap_rate(model, lookahead) == pytest.approx(profile[middle], abs=EXACT)
    online, finite = lg.online_filter(model), lg.online_filter(model, 2 * middle)
    for limit, values in zip(online, finite, strict=True):
        np.testing.assert_allclose(limit, values[middle], atol=EXACT)
    np.testing.assert_allclose(steady.smoothed_cov, online.claimed_cov, atol=EXACT)


@pytest.mark.parametrize(("state_size", "observation_size"), [(1, 1), (2, 1), (2, 3)])
def test_gap_falls_with_look_ahead_and_is_zero_for_full_conditions(state_size, observation_size):
    model = random_model(state_size, observation_size, seed=25)
    gaps = [lg.conditioning_gap(model, 10, k) for k in range(10)]
    assert all(a > b for a, b in itertools.pairwise(gaps))
    assert gaps[-1] == 0.0 == lg.conditioning_gap(model, 10, None)
    assert lg.conditioning_gap(model, 10, 99) == 0.0


def test_gap_does_not_depend_on_units_or_coordinates():
    model, rng = random_model(3, 2, seed=27), np.random.default_rng(0)
    change, units = rng.standard_normal((3, 3)), np.diag([1e-3, 1e3])
    inverse = np.linalg.inv(change)
    other = LinearGaussian(
        change @ model.transition @ inverse,
        change @ model.transition_cov @ change.T,
        units @ model.emission @ inverse,
        units @ model.emission_cov @ units,
        change @ model.initial_cov @ change.T,
    )
    for lookahead in (0, 2):
        expected = lg.conditioning_gap(model, 7, lookahead)
        assert lg.conditioning_gap(other, 7, lookahead) == pytest.approx(expected, rel=EXACT)


def test_learning_does_not_depend_on_units():
    data = LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    scaled = LinearGaussian.stationary(0.9, 0.1 * 1e8, 1e-2, 1e4)
    found, other = lg.learn(data, 8, 1), lg.learn(scaled, 8, 1)
    assert other.transition.item() == pytest.approx(found.transition.item(), abs=1e-6)
    assert other.emission.item() == pytest.approx(1e-2)
    assert other.transition_cov.item() == pytest.approx(1e8 * found.transition_cov.item(), rel=1e-5)
    assert other.emission_cov.item() == pytest.approx(1e4 * found.emission_cov.item(), rel=1e-5)


def rational_gap(a, q, r, initial, num_timesteps, lookahead):
    """The scalar recursions of the closed form in exact rational arithmetic."""
    a, q, r, initial = (Fraction(v) for v in (a, q, r, initial))
    predicted = [initial]
    for _ in range(num_timesteps - 1):
        filtered = predicted[-1] * r / (predicted[-1] + r)
        predicted.append(a * a * filtered + q)
    precision = [1 / r] * num_timesteps
    carry = [Fraction(0)] * num_timesteps
    for t in range(num_timesteps - 2, -1, -1):
        carry[t] = a / (1 + q * precision[t + 1])
        precision[t] = 1 / r + a * carry[t] * precision[t + 1]
    total = Fraction(0)
    for t in range(num_timesteps - 1 - lookahead):
        unseen = t + lookahead + 1
        factor = 1
        for s in range(t, unseen):
            factor *= carry[s]
        prior = q if t else initial
        covariance = prior / (1 + prior * precision[t])
        spread = precision[unseen] * (1 + precision[unseen] * predicted[unseen])
        total += covariance * factor**2 * spread / 2
    return float(total)


EXTREMES = [
    (1e-6, 1e6, 1.0),
    (1e6, 1e-6, 1.0),
    (1e-12, 1e-12, 1e-12),
    (1e-6, 1e-6, 1e6),
    (1e6, 1e6, 1e-6),
    (1.0, 1e-12, 1.0),
    (1e-12, 1.0, 1.0),
    (0.0, 1.0, 1.0),
]


@pytest.mark.parametrize("transition", [0.5, 1.0, -1.05])
@pytest.mark.parametrize(("transition_cov", "emission_cov", "initial_cov"), EXTREMES)
def test_extreme_noises_match_rational_arithmetic(
    transition, transition_cov, emission_cov, initial_cov
):
    arguments = (transition, transition_cov, emission_cov, initial_cov)
    model = LinearGaussian(transition, transition_cov, 1.0, emission_cov, initial_cov)
    for lookahead in (0, 1, 3):
        expected = rational_gap(*arguments, 8, lookahead)
        found = lg.conditioning_gap(model, 8, lookahead)
        # With R = 1e-12 Q the carried message is a difference that keeps about four digits, of a
        # number of size R; the gap itself is then below 1e-9.
        assert found == pytest.approx(expected, rel=EXACT, abs=1e-15)
    # The evidence of a long sequence stays finite and below its bound at a wrong model.
    data = LinearGaussian(0.8, 1.0, 1.0, 1.0, 1.0)
    assert np.isfinite(lg.log_likelihood(model, model, 500))
    elbo = lg.population_elbo(data, model, 500, 0)
    evidence = lg.log_likelihood(data, model, 500)
    assert np.isfinite(elbo)
    # A gap of zero may come out as rounding of the evidence.
    assert elbo <= evidence + 1e-12 * abs(evidence)


@pytest.mark.parametrize("emission_cov", [1e-12, 1e-6])
def test_nearly_exact_sensor_of_part_of_the_state(emission_cov):
    """One exact channel for two states: information form loses all digits here, gain form none."""
    transition = np.array([[0.9, 0.3], [-0.2, 0.8]])
    model = LinearGaussian(transition, np.eye(2), [[1.0, 0.4]], emission_cov, np.eye(2))
    limit = LinearGaussian(transition, np.eye(2), [[1.0, 0.4]], 1e-9, np.eye(2))
    expected = lg.conditioning_gap(limit, 10, 0)
    # The gap moves smoothly with R: by about R times a constant of order one to ten.
    assert lg.conditioning_gap(model, 10, 0) == pytest.approx(expected, abs=1e-4)
    tiny = LinearGaussian(transition, np.eye(2), [[1.0, 0.4]], 1e-15, np.eye(2))
    assert lg.conditioning_gap(tiny, 10, 0) == pytest.approx(expected, abs=1e-7)


def test_deterministic_chain_that_starts_known_has_no_gap():
    assert lg.conditioning_gap(LinearGaussian(0.9, 0.0, 1.0, 1.0, 0.0), 20, 0) == 0.0
    perfect = LinearGaussian.stationary(0.9, 0.1, 1.0, 1e-9)
    assert lg.conditioning_gap(perfect, 20, 0) < 1e-6


def test_long_sequences():
    model = random_model(3, 2, seed=29)
    for num_timesteps in (1, 500):
        evidence = lg.log_likelihood(model, model, num_timesteps)
        gap = lg.conditioning_gap(model, num_timesteps, 0)
        elbo = lg.population_elbo(model, model, num_timesteps, 0)
        assert elbo == pytest.approx(evidence - gap, rel=1e-12)
    assert lg.conditioning_gap(model, 1, 0) == 0.0
    profile = lg.gap_profile(model, 500, 2)
    assert profile[250] == pytest.approx(lg.gap_rate(model, 2), rel=EXACT)


# Learning in general --------------------------------------------------------------------------


@pytest.mark.parametrize(("state_size", "observation_size"), [(1, 1), (2, 1), (1, 3), (3, 2)])
def test_complex_step_gradient_matches_central_differences(state_size, observation_size):
    data = random_model(2, observation_size, seed=31)
    model = random_model(state_size, observation_size, seed=32)
    size = max(2, state_size)
    padded = recursions.padded(data, size)
    predicted, _ = recursions.forward(padded, 5)
    space = learning.ParameterSpace(model.emission, state_size)

    def objective(vectors):
        judged = recursions.padded(space.matrices(vectors), size)
        return recursions.bound(padded, predicted, judged, 5, 1)

    vector = space.vector(model)
    value, gradient = bfgs.complex_step(objective, vector)
    assert value == pytest.approx(lg.population_elbo(data, model, 5, 1), rel=1e-7)
    steps = 1e-5 * np.eye(len(vector))
    numerical = [(objective(vector + h) - objective(vector - h)) / 2e-5 for h in steps]
    # Central differences: rounding 1e-15 * 30 / 1e-5, truncation 1e-10 times third derivatives.
    np.testing.assert_allclose(gradient, numerical, atol=1e-6, rtol=1e-6)


def test_parameter_vectors_return_the_model():
    model = random_model(2, 3, seed=33)
    space = learning.ParameterSpace(model.emission, 2)
    back = space.matrices(space.vector(model))
    for name in recursions.Matrices._fields:
        # The floor of 1e-7 under the scales is subtracted and added again.
        np.testing.assert_allclose(getattr(back, name), getattr(model, name), atol=1e-12)


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize(("state_size", "observation_size"), [(2, 1), (1, 2)])
def test_learning_in_several_dimensions_beats_the_truth(state_size, observation_size, lookahead):
    data = random_model(state_size, observation_size, seed=35)
    found = lg.learn(data, 3, lookahead, num_starts=0)
    elbo = lg.population_elbo(data, found, 3, lookahead)
    assert elbo > lg.population_elbo(data, data, 3, lookahead)
    # No bound exceeds the negative entropy of the data.
    assert elbo <= lg.log_likelihood(data, data, 3) + 1e-9


def test_a_spare_state_repairs_most_of_the_damage():
    data = LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    evidence = lg.log_likelihood(data, data, 8)
    one = lg.learn(data, 8, 0, num_starts=0)
    two = lg.learn(data, 8, 0, state_size=2, num_starts=0)
    loss = [(evidence - lg.log_likelihood(data, m, 8)) / 8 for m in (one, two)]
    assert loss[0] == pytest.approx(0.0252, abs=5e-5)
    assert loss[1] == pytest.approx(0.0004, abs=5e-5)
    assert two.state_size == 2


def test_learning_with_fewer_states_than_the_data():
    data = random_model(2, 1, seed=37)
    found = lg.learn(data, 4, 0, state_size=1, num_starts=1)
    assert found.state_size == 1
    elbo = lg.population_elbo(data, found, 4, 0)
    # With one state and one channel the autoregression is in the class.
    assert elbo >= lg.best_autoregression(data, 4).log_likelihood - 1e-6


def test_learning_is_reproducible():
    data = LinearGaussian.stationary(0.9, 0.5, 1.0, 1.0)
    first, second = (lg.learn(data, 4, 1, seed=3) for _ in range(2))
    assert first.transition.item() == second.transition.item()


def test_learning_from_one_observation():
    data = LinearGaussian(0.9, 0.5, 1.0, 1.0, 2.0)
    found = lg.learn(data, 1, 0)
    variance = found.emission.item() ** 2 * found.initial_cov.item() + found.emission_cov.item()
    assert variance == pytest.approx(3.0, abs=1e-6)


# Bad input ------------------------------------------------------------------------------------

GOOD = (0.9, 0.1, 1.0, 1.0, 0.5)


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, [[0.9, 0.1]], "transition must be square"),
        (0, np.nan, "transition must be finite"),
        (0, "fast", "transition must be an array of real numbers"),
        (0, [0.9], "transition must be a matrix"),
        (0, np.zeros((0, 0)), "transition must be a matrix"),
        (1, -0.1, "transition_cov must be positive semi-definite"),
        (1, np.eye(2), r"transition_cov must have shape \(1, 1\)"),
        (1, np.inf, "transition_cov must be finite"),
        (2, [[1.0, 0.0]], "emission must have one column per state"),
        (2, [1.0], "emission must be a matrix"),
        (3, 0.0, "emission_cov must be positive definite"),
        (3, -1.0, "emission_cov must be positive semi-definite"),
        (3, np.nan, "emission_cov must be finite"),
        (3, np.eye(2), r"emission_cov must have shape \(1, 1\)"),
        (4, -0.5, "initial_cov must be positive semi-definite"),
        (4, [[1.0, 2.0]], "initial_cov must have shape"),
    ],
)
def test_bad_models_are_refused(position, value, message):
    arguments = list(GOOD)
    arguments[position] = value
    with pytest.raises(ValueError, match=message):
        LinearGaussian(*arguments)


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        ([[1.0, 0.5], [0.4, 1.0]], "symmetric"),
        ([[1.0, 2.0], [2.0, 1.0]], "positive semi-definite"),
        ([[1.0, 1.0], [1.0, 1.0]], "positive definite"),
        ([[1.0, 0.0], [0.0, 0.0]], "positive definite"),
        ([[0.0, 1.0], [1.0, 0.0]], "positive semi-definite"),
    ],
)
def test_bad_covariances_are_refused(covariance, message):
    with pytest.raises(ValueError, match=f"emission_cov must be {message}"):
        LinearGaussian(0.9, 0.1, [[1.0], [1.0]], covariance, 0.5)


@pytest.mark.parametrize("transition", [1.0, -1.2, [[0.5, 0.0], [0.3, 1.0]]])
def test_stationary_start_needs_a_stable_transition(transition):
    size = len(np.atleast_2d(transition))
    with pytest.raises(ValueError, match="stable transition"):
        LinearGaussian.stationary(transition, np.eye(size), np.ones((1, size)), 1.0)


def test_models_cannot_be_changed():
    model = LinearGaussian(*GOOD)
    with pytest.raises(ValueError, match="read-only"):
        model.transition[0, 0] = 2.0


MODEL = LinearGaussian(*GOOD)
TWO_CHANNELS = LinearGaussian(0.9, 0.1, [[1.0], [1.0]], np.eye(2), 0.5)
TWO_STATES = LinearGaussian(0.5 * np.eye(2), np.eye(2), [[1.0, 1.0]], 1.0, np.eye(2))
KNOWN = LinearGaussian(0.9, 0.1, 1.0, 1.0, 0.0)
UNDETECTABLE = LinearGaussian(1.1, 0.1, 0.0, 1.0, 0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lg.conditioning_gap(MODEL, 0, 0), "num_timesteps must be an integer and >= 1"),
        (lambda: lg.conditioning_gap(MODEL, 2.5, 0), "num_timesteps must be an integer"),
        (lambda: lg.conditioning_gap(MODEL, 8, -1), "lookahead must be an integer and >= 0"),
        (lambda: lg.gap_profile(MODEL, 8, 0.5), "lookahead must be an integer"),
        (lambda: lg.gap_rate(MODEL, -1), "lookahead must be an integer and >= 0"),
        (lambda: lg.gap_rate(MODEL, None), "lookahead must be an integer"),
        (lambda: lg.gap_rate(UNDETECTABLE, 0), "no steady state"),
        (lambda: lg.online_filter(UNDETECTABLE), "no steady state"),
        (lambda: lg.population_elbo(MODEL, TWO_CHANNELS, 8, 0), "emit the same x"),
        (lambda: lg.population_elbo(MODEL, MODEL, 8, -2), "lookahead"),
        (lambda: lg.log_likelihood(TWO_CHANNELS, MODEL, 8), "emit the same x"),
        (lambda: lg.log_likelihood(MODEL, MODEL, 0), "num_timesteps"),
        (lambda: lg.learn(MODEL, 8, -1), "lookahead"),
        (lambda: lg.learn(MODEL, 0, 0), "num_timesteps"),
        (lambda: lg.learn(MODEL, 8, 0, state_size=0), "state_size"),
        (lambda: lg.learn(MODEL, 8, 0, num_starts=-1), "num_starts"),
        (
            lambda: lg.learn(MODEL, 1, 0, num_starts=0, from_truth=False),
            "Nothing was learned",
        ),
        (lambda: lg.best_autoregression(MODEL, 1), "A regression needs pairs"),
        (lambda: lg.shared_factors(MODEL, TWO_CHANNELS, 8, 0), "emit the same x"),
        (lambda: lg.sample(MODEL, 8, 0, seed=0), "num_sequences"),
        (lambda: lg.kalman_filter(MODEL, np.zeros((3, 2))), "observations must have 3 dim"),
        (lambda: lg.kalman_filter(MODEL, np.zeros((3, 2, 2))), r"shape \[time, batch, 1\]"),
        (lambda: lg.kalman_filter(MODEL, np.full((3, 2, 1), np.nan)), "finite"),
        (
            lambda: lg.factor_marginals(lg.shared_factors(MODEL, MODEL, 4, 0), np.zeros((3, 2, 1))),
            "made for 4 time steps",
        ),
        (
            lambda: lg.factors_elbo(MODEL, MODEL, lg.shared_factors(MODEL, TWO_STATES, 4, 0)),
            "made for a state of size 2",
        ),
        (
            lambda: lg.factors_elbo(KNOWN, KNOWN, lg.shared_factors(KNOWN, KNOWN, 4, 0)),
            "must be positive definite",
        ),
        (
            lambda: lg.sampled_gap(
                KNOWN, lg.shared_factors(KNOWN, KNOWN, 4, 0), np.zeros((4, 1, 1)), seed=0
            ),
            "a covariance is singular",
        ),
        (lambda: lg.online_filter(MODEL).coverage(1.0), "level must lie between 0 and 1"),
        (lambda: lg.online_filter(MODEL).coverage(0.0), "level must be greater than zero"),
        (lambda: lg.online_filter(MODEL, 0), "num_timesteps"),
        (lambda: lg.prediction(MODEL, MODEL, 0, [1]), "context"),
        (lambda: lg.prediction(MODEL, MODEL, 3, [0]), "horizon"),
        (lambda: lg.prediction(MODEL, MODEL, 3, [1.5]), "horizon"),
    ],
)
def test_bad_calls_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_two_steps_are_enough_for_an_autoregression():
    chain = LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    fit = lg.best_autoregression(chain, 2)
    # a P_0 / (P_0 + R) with P_0 = .1 / .19, whatever the length.
    first = 0.1 / (1 - 0.9**2)
    assert fit.transition.item() == pytest.approx(0.9 * first / (first + 1), rel=1e-12)
