"""The joint Gaussian against samples, and the residuals against deliberate damage."""

import numpy as np
import pytest

from tfp_gaps.exact import linear_gaussian as lg
from tfp_gaps.exact.joint_gaussian import JointGaussian, residuals

TWO_STATES = lg.LinearGaussian(
    [[0.8, 0.3], [-0.2, 0.7]],
    [[0.3, 0.1], [0.1, 0.2]],
    [[1.0, 0.5], [0.0, 1.0], [1.0, -1.0]],
    np.diag([0.5, 1.0, 2.0]),
    np.eye(2),
)
MODELS = [lg.LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0), TWO_STATES]


@pytest.mark.parametrize("model", MODELS)
def test_covariance_is_that_of_samples(model):
    num_timesteps, count = 3, 40_000
    samples = lg.sample(model, num_timesteps, count, seed=1)
    flat = np.concatenate([np.moveaxis(s, 1, 0).reshape(count, -1) for s in samples], axis=1)
    exact = JointGaussian(model, num_timesteps).covariance
    variances = np.diag(exact)
    error = np.sqrt((np.outer(variances, variances) + exact**2) / count)
    # At most 120 different entries: the largest of as many standard normals stays below 5.
    assert np.max(np.abs(flat.T @ flat / count - exact) / error) < 5


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("num_timesteps", [1, 2, 10])
def test_both_routes_agree(model, num_timesteps):
    # Float64 and matrices of up to 50 rows with condition numbers below 1e3.
    assert max(residuals(model, num_timesteps)) < 1e-11


@pytest.mark.parametrize(
    ("field", "residual"), [("covariance", "product"), ("observation_weights", "product")]
)
def test_residuals_notice_wrong_factors(field, residual, monkeypatch):
    right = lg.shared_factors

    def wrong(*arguments):
        factors = right(*arguments)
        return factors._replace(**{field: 1.001 * getattr(factors, field)})

    monkeypatch.setattr(lg, "shared_factors", wrong)
    found = residuals(TWO_STATES, 5)
    assert getattr(found, residual) > 1e-4
    assert max(found.shielded, found.mixture) < 1e-11


def test_conditioning_of_two_variables_is_the_textbook_formula():
    joint = JointGaussian(lg.LinearGaussian(0.9, 0.1, 2.0, 0.5, 3.0), 1)
    weights, covariance = joint.condition(joint.state(0), joint.seen_until(0))
    assert weights.item() == pytest.approx(3.0 * 2.0 / (4 * 3.0 + 0.5))
    assert covariance.item() == pytest.approx(1 / (1 / 3.0 + 4 / 0.5))


def test_length_must_be_positive():
    with pytest.raises(ValueError, match="num_timesteps must be an integer"):
        JointGaussian(MODELS[0], 0)
