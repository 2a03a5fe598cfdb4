"""Closed forms against the joint normal, quadrature and direct search."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, special, stats

from tfp_gaps.exact.factor_analysis import FactorAnalysis

WORLD = FactorAnalysis(
    [[1.0, 0.9], [0.8, 0.2], [-0.5, -0.9], [0.3, 0.6]], [0.5, 0.7, 0.8, 1.0], [0.3, 0.0, -0.2, 1.0]
)
X = WORLD.sample(6, seed=1)[1]
SIZES = st.integers(1, 5)


def joint(world):
    """Mean and covariance of (z, x)."""
    cross = world.loadings.T
    data = world.loadings @ world.loadings.T + np.diag(world.noise**2)
    covariance = np.block([[np.eye(world.num_latents), cross], [cross.T, data]])
    return np.concatenate([np.zeros(world.num_latents), world.offset]), covariance


def conditioned(world, x):
    """Mean [data, latents] and covariance of z given x, by regression within the joint normal."""
    mean, covariance = joint(world)
    d = world.num_latents
    weights = np.linalg.solve(covariance[d:, d:], covariance[d:, :d]).T
    return (x - mean[d:]) @ weights.T, covariance[:d, :d] - weights @ covariance[d:, :d]


def kl(mean, covariance, other_mean, other_covariance):
    """KL between two normal distributions, one datum."""
    inverse = np.linalg.inv(other_covariance)
    miss = other_mean - mean
    log_ratio = np.linalg.slogdet(other_covariance)[1] - np.linalg.slogdet(covariance)[1]
    return 0.5 * (np.trace(inverse @ covariance) + miss @ inverse @ miss - len(mean) + log_ratio)


@given(st.integers(0, 10**6), SIZES, SIZES)
def test_evidence_and_posterior_are_those_of_the_joint_normal(seed, observations, latents):
    world = FactorAnalysis.random(observations, latents, seed)
    x = world.sample(3, seed)[1]
    mean, covariance = joint(world)
    data = stats.multivariate_normal(mean[latents:], covariance[latents:, latents:])
    # float64; eigenvalues of these models span three orders of magnitude.
    np.testing.assert_allclose(world.log_evidence(x), np.atleast_1d(data.logpdf(x)), atol=1e-9)
    means, posterior = conditioned(world, x)
    np.testing.assert_allclose(world.posterior_mean(x), means, atol=1e-10)
    np.testing.assert_allclose(world.posterior_covariance(), posterior, atol=1e-10)
    np.testing.assert_allclose(
        world.posterior_precision() @ world.posterior_covariance(), np.eye(latents), atol=1e-10
    )


def test_evidence_by_quadrature():
    grid = np.linspace(-7, 7, 141)
    z = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 1, 2)
    log_joint = stats.norm.logpdf(z).sum(-1)
    means = z @ WORLD.loadings.T + WORLD.offset
    log_joint = log_joint + stats.norm.logpdf(X, means, WORLD.noise).sum(-1)
    # Sums on a grid converge exponentially for a smooth function that falls to zero.
    found = special.logsumexp(log_joint, axis=0) + 2 * np.log(grid[1] - grid[0])
    np.testing.assert_allclose(WORLD.log_evidence(X), found, atol=1e-10)


@given(st.integers(0, 10**6), SIZES, SIZES)
def test_elbo_is_evidence_minus_divergence(seed, observations, latents):
    world = FactorAnalysis.random(observations, latents, seed)
    x = world.sample(2, seed)[1]
    rng = np.random.default_rng(seed)
    means, roots = rng.normal(size=(2, latents)), rng.normal(size=(2, latents, latents + 2))
    covariances = roots @ np.swapaxes(roots, 1, 2)
    sds = rng.uniform(0.1, 2, size=(2, latents))
    exact, posterior = conditioned(world, x)
    full = world.elbo(x, means, covariance=covariances)
    narrow = world.elbo(x, means, sds=sds)
    for n in range(2):
        gap = kl(means[n], covariances[n], exact[n], posterior)
        assert world.log_evidence(x)[n] - full[n] == pytest.approx(gap, rel=1e-9, abs=1e-9)
        gap = kl(means[n], np.diag(sds[n] ** 2), exact[n], posterior)
        assert world.log_evidence(x)[n] - narrow[n] == pytest.approx(gap, rel=1e-9, abs=1e-9)
    one = world.elbo(x, means, covariance=covariances[0])
    assert one[0] == pytest.approx(full[0], abs=1e-12)


def test_elbo_of_the_posterior_is_the_evidence():
    found = WORLD.elbo(X, WORLD.posterior_mean(X), covariance=WORLD.posterior_covariance())
    np.testing.assert_allclose(found, WORLD.log_evidence(X), atol=1e-12)


def test_elbo_agrees_with_monte_carlo():
    n = 100_000
    rng = np.random.default_rng(3)
    mean, sds = np.array([0.4, -0.3]), np.array([0.6, 0.9])
    draws = mean + sds * rng.normal(size=(n, 2))
    fit = stats.norm.logpdf(X[0], draws @ WORLD.loadings.T + WORLD.offset, WORLD.noise).sum(-1)
    samples = fit + (stats.norm.logpdf(draws) - stats.norm.logpdf(draws, mean, sds)).sum(-1)
    found = WORLD.elbo(X[:1], mean[None], sds=sds[None])[0]
    assert samples.mean() == pytest.approx(found, abs=4 * samples.std() / np.sqrt(n))


@pytest.mark.parametrize("seed", range(3))
def test_best_factorised_q_by_direct_search(seed):
    world = FactorAnalysis.random(4, 3, seed)
    x = world.sample(1, seed)[1]

    def loss(values):
        return -world.elbo(x, values[None, :3], sds=np.exp(values[None, 3:]))[0]

    found = optimize.minimize(loss, np.zeros(6))
    means, sds = world.best_factorised(x)
    # Finite differences stop within 1e-5 of the optimum, which costs its square.
    assert -found.fun == pytest.approx(world.elbo(x, means, sds=sds)[0], abs=1e-8)
    np.testing.assert_allclose(found.x, np.concatenate([means[0], np.log(sds[0])]), atol=1e-4)
    gap = world.log_evidence(x)[0] + found.fun
    assert gap == pytest.approx(world.approximation_gap(), abs=1e-8)


def test_the_approximation_gap_vanishes_with_the_correlation():
    apart = FactorAnalysis([[1.0, 0.0], [0.0, 2.0], [0.5, 0.0]], [0.5, 0.7, 1.0])
    assert apart.approximation_gap() == pytest.approx(0, abs=1e-14)
    assert FactorAnalysis([[2.0]], [0.3]).approximation_gap() == pytest.approx(0, abs=1e-14)
    # By hand: L = [[2, 1], [1, 2]].
    one = FactorAnalysis([[1.0, 1.0]], [1.0])
    assert one.approximation_gap() == pytest.approx(0.5 * np.log(4 / 3), abs=1e-14)


def test_samples_have_the_moments_of_the_joint():
    n = 100_000
    latents, observations = WORLD.sample(n, seed=2)
    both = np.concatenate([latents, observations], axis=1)
    mean, covariance = joint(WORLD)
    spread = np.sqrt(np.diag(covariance))
    assert (np.abs(both.mean(0) - mean) < 4.5 * spread / np.sqrt(n)).all()
    # The error of a sample covariance: sqrt((c_ii c_jj + c_ij^2) / n).
    error = np.sqrt((np.outer(spread, spread) ** 2 + covariance**2) / n)
    assert (np.abs(np.cov(both.T) - covariance) < 4.5 * error).all()


def test_posterior_samples_have_the_moments_of_the_posterior():
    n = 50_000
    draws = WORLD.sample_posterior(X, n, seed=4)
    assert draws.shape == (n, 6, 2)
    means, covariance = conditioned(WORLD, X)
    spread = np.sqrt(np.diag(covariance))
    assert (np.abs(draws.mean(0) - means) < 4.5 * spread / np.sqrt(n)).all()
    error = np.sqrt((np.outer(spread, spread) ** 2 + covariance**2) / n)
    for datum in range(6):
        assert (np.abs(np.cov(draws[:, datum].T) - covariance) < 4.5 * error).all()
    # Draws of different data are independent.
    assert abs(np.corrcoef(draws[:, 0, 0], draws[:, 1, 0])[0, 1]) < 4.5 / np.sqrt(n)


def test_seeds_repeat_and_differ():
    first, again = (FactorAnalysis.random(3, 2, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.loadings, again.loadings)
    np.testing.assert_array_equal(first.noise, again.noise)
    assert np.abs(first.loadings - FactorAnalysis.random(3, 2, seed=6).loadings).min() > 0
    np.testing.assert_array_equal(first.sample(4, 1)[1], again.sample(4, 1)[1])
    assert np.abs(first.sample(4, 1)[1] - first.sample(4, 2)[1]).min() > 0


def test_an_offset_for_all_observations():
    world = FactorAnalysis(WORLD.loadings, WORLD.noise, 0.7)
    plain = FactorAnalysis(WORLD.loadings, WORLD.noise)
    np.testing.assert_allclose(world.log_evidence(X), plain.log_evidence(X - 0.7), atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], [1.0]), "loadings must have 2 dimension"),
        (([[np.nan]], [1.0]), "loadings must be finite"),
        (([[1.0]], [0.0]), "noise must be greater than zero"),
        (([[1.0]], [1.0, 2.0]), "one row per entry of noise"),
        ((np.zeros((1, 0)), [1.0]), "one row per entry of noise"),
        (([[1.0], [2.0]], [1.0, 2.0], [1.0, 2.0, 3.0]), r"offset must be a number or have shape"),
        (([[1.0]], [1.0], np.inf), "offset must be finite"),
    ],
)
def test_bad_worlds_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        FactorAnalysis(*arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: w.log_evidence(X[:, 1:]), r"x must have shape \(6, 4\), but has \(6, 3\)"),
        (lambda w: w.posterior_mean(X[0]), "x must have 2 dimension"),
        (lambda w: w.log_evidence(np.full((1, 4), np.nan)), "x must be finite"),
        (lambda w: w.elbo(X, np.zeros((6, 2))), "neither was"),
        (
            lambda w: w.elbo(X, np.zeros((6, 2)), sds=np.ones((6, 2)), covariance=np.eye(2)),
            "both was",
        ),
        (lambda w: w.elbo(X, np.zeros((5, 2)), covariance=np.eye(2)), "means must have shape"),
        (lambda w: w.elbo(X, np.zeros((6, 2)), sds=np.ones((6, 1))), "sds must have shape"),
        (lambda w: w.elbo(X, np.zeros((6, 2)), sds=np.zeros((6, 2))), "sds must be greater"),
        (lambda w: w.elbo(X, np.zeros((6, 2)), covariance=np.eye(3)), "covariance must have shape"),
        (lambda w: w.elbo(X, np.zeros((6, 2)), covariance=-np.eye(2)), "positive definite"),
        (
            lambda w: w.elbo(X, np.zeros((6, 2)), covariance=[[1.0, 0.5], [0.0, 1.0]]),
            "symmetric",
        ),
        (lambda w: w.sample(0, 1), "num_data must be an integer and >= 1"),
        (lambda w: w.sample_posterior(X, 0, 1), "num_samples must be an integer and >= 1"),
        (lambda w: w.random(0, 1, 0), "num_observations must be an integer"),
        (lambda w: w.random(1, 0, 0), "num_latents must be an integer"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(WORLD)
