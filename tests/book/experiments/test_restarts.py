"""Encoders from many starts: the bound against quadrature, the searches against SciPy."""

import numpy as np
import pytest
from scipy import integrate, optimize, stats

from tfp_gaps.book.experiments import restarts

X = np.array([-0.4, 0.3, 1.7, 5.2])


def log_joint(z, x):
    """ln p(x, z), by SciPy."""
    prior = stats.norm.logpdf(z, restarts.MEAN)
    return prior + stats.norm.logpdf(x, z**2, restarts.NOISE)


def by_quadrature(mean, log_scale, x):
    q = stats.norm(mean, np.exp(log_scale))
    ends = mean - 10 * q.std(), mean + 10 * q.std()
    return integrate.quad(lambda z: q.pdf(z) * (log_joint(z, x) - q.logpdf(z)), *ends)[0]


@pytest.mark.parametrize(("mean", "log_scale"), [(0.7, -0.3), (-1.9, -2.0), (0.0, 0.2)])
def test_the_bound_is_that_by_quadrature(mean, log_scale):
    expected = [by_quadrature(mean, log_scale, x) for x in X]
    np.testing.assert_allclose(restarts.elbo(mean, log_scale, X), expected, rtol=1e-6)


def test_the_best_q_is_the_best_of_a_grid_of_starts_by_scipy():
    mean, log_scale, value = restarts.best(X)
    np.testing.assert_allclose(restarts.elbo(mean, log_scale, X), value, rtol=1e-12)
    for index, x in enumerate(X):
        ends = [
            optimize.minimize(lambda p, x=x: -restarts.elbo(*p, x), [m, s], method="Powell")
            for m in (-2.0, -0.5, 0.5, 2.0)
            for s in (-2.0, -0.5)
        ]
        # Both stop where the bound is flat to about a millionth of a nat.
        assert value[index] == pytest.approx(-min(end.fun for end in ends), abs=1e-5)
    assert (mean[2:] > 1.0).all()  # the mode that holds more


def test_observations_are_those_of_the_model():
    x = restarts.observations(50_000, seed=0)
    assert (np.diff(x) >= 0).all()
    # E[z^2] = 1 + mu^2 and Var[z^2] = 2 + 4 mu^2; four standard errors.
    variance = 2 + 4 * restarts.MEAN**2 + restarts.NOISE**2
    assert x.mean() == pytest.approx(1 + restarts.MEAN**2, abs=4 * np.sqrt(variance / 50_000))
    with pytest.raises(ValueError, match="num"):
        restarts.observations(1, seed=0)


def test_ends_are_stationary_and_no_better_than_the_best_q():
    x = restarts.observations(6, seed=1)
    ends = restarts.train(x, width=4, num_starts=5, seed=0)
    assert ends.gap.shape == ends.slope.shape == ends.after.shape == (5,)
    assert ends.means.shape == (5, 6)
    assert (ends.slope < 1e-3).all()
    assert (ends.gap > -1e-6).all() and (ends.after <= ends.gap + 1e-9).all()
    assert np.ptp(ends.gap) > 0.01  # ends differ


def test_the_network_is_the_formula():
    parameters = np.random.default_rng(0).normal(size=[2, 14])
    inputs = np.linspace(-1, 1, 4)
    outputs, _ = restarts._network(parameters, inputs, 3)
    for row, own in enumerate(parameters):
        hidden = np.tanh(inputs[:, None] * own[:3] + own[3:6])
        expected = hidden @ own[6:12].reshape(3, 2) + own[12:]
        np.testing.assert_allclose(outputs[row], expected, atol=1e-12)


def test_gradients_are_those_of_finite_differences():
    inputs, upstream = np.linspace(-1, 1, 4), np.random.default_rng(1).normal(size=[1, 4, 2])
    start = np.random.default_rng(0).normal(size=14)

    def total(own):
        return np.sum(restarts._network(own[None], inputs, 3)[0] * upstream)

    _, pull_back = restarts._network(start[None], inputs, 3)
    expected = optimize.approx_fprime(start, total, 1e-7)
    np.testing.assert_allclose(pull_back(upstream)[0], expected, atol=1e-5)
    for x in X:
        _, *found = restarts._elbo(0.7, -0.4, x)
        expected = optimize.approx_fprime([0.7, -0.4], lambda p, x=x: restarts.elbo(*p, x), 1e-7)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
