"""BFGS on many rows at once against known minima and SciPy."""

import numpy as np
import scipy.optimize

from tfp_gaps.exact._numerics import bfgs


def rosenbrock(x):
    values = scipy.optimize.rosen(x.T)
    return values, scipy.optimize.rosen_der(x.T).T


def test_every_row_reaches_the_bottom_of_the_valley():
    starts = np.random.default_rng(0).standard_normal((20, 2)) * 2
    ends = bfgs.minimise(rosenbrock, starts, tolerance=1e-8)
    # A row may end when 1e-12 is left to gain: .4 distance^2 / 2, as the least curvature is .4.
    np.testing.assert_allclose(ends.values, 0.0, atol=2e-12)
    np.testing.assert_allclose(ends.vectors, 1.0, atol=5e-6)
    np.testing.assert_allclose(ends.gradients, rosenbrock(ends.vectors)[1], atol=1e-15)


def test_quadratic_of_bad_condition_matches_the_solution():
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    hessian = turn @ np.diag(10.0 ** np.arange(-2, 4)) @ turn.T
    target = rng.standard_normal(6)

    def bowl(x):
        gradient = (x - target) @ hessian
        return 0.5 * np.sum((x - target) * gradient, axis=1), gradient

    ends = bfgs.minimise(bowl, np.zeros((3, 6)), tolerance=1e-9)
    # It may also end by `PRECISION` = 1e-12 = curvature * distance^2 / 2, at curvature .01.
    np.testing.assert_allclose(ends.vectors, np.tile(target, (3, 1)), atol=2e-5)


def test_rows_do_not_disturb_each_other():
    starts = np.array([[-1.2, 1.0], [3.0, -2.0], [0.5, 0.5]])
    together = bfgs.minimise(rosenbrock, starts, tolerance=1e-6)
    for i, start in enumerate(starts):
        alone = bfgs.minimise(rosenbrock, start[np.newaxis], tolerance=1e-6)
        np.testing.assert_allclose(alone.vectors[0], together.vectors[i], atol=1e-12)


def test_regions_without_value_are_avoided_and_reported():
    def logarithmic(x):
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.sum(x - np.log(x), axis=1), 1.0 - 1.0 / x

    ends = bfgs.minimise(logarithmic, np.array([[20.0], [0.01], [-1.0]]), tolerance=1e-8)
    np.testing.assert_allclose(ends.vectors[:2], 1.0, atol=1e-6)
    assert ends.values[2] == np.inf and ends.vectors[2] == -1.0


def test_no_more_evaluations_than_allowed():
    calls = []

    def counted(x):
        calls.append(len(x))
        return rosenbrock(x)

    ends = bfgs.minimise(counted, np.array([[-1.2, 1.0]]), tolerance=0.0, max_steps=5)
    assert len(calls) == 6
    assert ends.values[0] < rosenbrock(np.array([[-1.2, 1.0]]))[0]


def test_a_singular_trial_does_not_spoil_its_neighbours():
    def objective(steps):
        if np.any(np.abs(steps.real) > 9):
            raise np.linalg.LinAlgError("singular")
        return -np.sum(steps**2, axis=-1)

    values, gradients = bfgs.complex_step(
        objective, np.array([[1.0, 2.0], [10.0, 0.0], [3.0, 0.0]])
    )
    np.testing.assert_allclose(values, [-5.0, np.inf, -9.0])
    np.testing.assert_allclose(gradients, [[-2.0, -4.0], [0.0, 0.0], [-6.0, 0.0]])
