"""The particle filter against TFP's Kalman filter, and prediction against closed forms."""

import math

import numpy as np
import pytest

from tfp_gaps import filtering
from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.exact.linear_gaussian import LinearGaussian
from tfp_gaps.models.state_space import LinearGaussianStateSpace

tfd = tfp.distributions
TIME, SEQUENCES, PARTICLES = 6, 50, 2000


@pytest.fixture(scope="module")
def world():
    exact = LinearGaussian(
        transition=0.9, transition_cov=0.5, emission=1.0, emission_cov=1.0, initial_cov=2.0
    )
    kalman = tfd.LinearGaussianStateSpaceModel(
        TIME,
        tf.constant([[0.9]]),
        tfd.MultivariateNormalDiag(scale_diag=[math.sqrt(0.5)]),
        tf.constant([[1.0]]),
        tfd.MultivariateNormalDiag(scale_diag=[1.0]),
        tfd.MultivariateNormalDiag(scale_diag=[math.sqrt(2.0)]),
    )
    x = kalman.sample(SEQUENCES, seed=[0, 2])
    model = LinearGaussianStateSpace(exact, num_replicas=2)
    filtered = filtering.particle_filter(
        model, x.numpy().transpose(1, 0, 2), num_particles=PARTICLES, seed=0
    )
    return model, filtered, kalman.forward_filter(x)


def test_log_likelihood_equals_the_kalman_filter(world):
    _, filtered, kalman = world
    exact = kalman.log_likelihoods.numpy().T  # [time, sequences]
    difference = filtered.log_increments - exact[:, np.newaxis]
    # Over sequences the errors are independent; the bias of the logarithm, var / 2, is below 1e-3.
    total = difference.sum(0)
    error = total.std(axis=1, ddof=1) / math.sqrt(SEQUENCES)
    assert np.all(np.abs(total.mean(1)) < 4 * error + 1e-3)
    assert np.all(error < 0.02)


def test_particles_have_the_filtered_moments(world):
    _, filtered, kalman = world
    mean = kalman.filtered_means.numpy()[:, -1, 0]
    deviation = math.sqrt(kalman.filtered_covs.numpy()[-1, 0, 0])  # the same for every x
    particles = filtered.particles.numpy()[..., 0]
    # Weights that differ by a factor of a few leave an effective size of 500 of the 2000 at least,
    # hence a mean to 1 / sqrt(500) = 4.5 % of the deviation; 5 of those for the largest of 100.
    standardised = (particles.mean(0) - mean) / deviation
    assert np.abs(standardised).max() < 5 / math.sqrt(500)
    assert abs((particles.std(0) / deviation).mean() - 1.0) < 0.02


def test_particles_do_not_depend_on_the_batching(world):
    model, _, _ = world
    x = np.ones([3, 5, 1])
    options = {"num_particles": 4000, "seed": 1}
    together = filtering.particle_filter(model, x, **options)
    apart = filtering.particle_filter(model, x, particles_at_once=4000, **options)
    assert together.particles.shape == apart.particles.shape == (4000, 2, 5, 1)
    # Other draws, same law: each log-likelihood has an error of about 1 / sqrt(4000) per step.
    np.testing.assert_allclose(
        together.log_increments.sum(0), apart.log_increments.sum(0), atol=0.15
    )


def test_prediction_follows_the_transition(world):
    model, _, _ = world
    particles = tf.ones([3000, 2, 4, 1])
    means = filtering.continue_from(model, particles, num_steps=3, seed=0).numpy()
    assert means.shape == (3, 3000, 2, 4, 1)
    # From z = 1 the mean decays as 0.9^h; 24000 paths of sd at most 1.1 give 0.03 as 4 errors.
    np.testing.assert_allclose(means.mean(axis=(1, 2, 3, 4)), [0.9, 0.81, 0.729], atol=0.03)
    variances = means.var(axis=(1, 2, 3, 4))
    np.testing.assert_allclose(variances, [0.5, 0.905, 1.23305], rtol=0.05)


@pytest.mark.parametrize(
    ("x", "num_particles", "message"),
    [
        (np.zeros([3, 5]), 10, "3 dimension"),
        (np.full([3, 5, 1], np.inf), 10, "finite"),
        (np.zeros([3, 5, 1]), 1, "num_particles must be an integer and >= 2"),
    ],
)
def test_bad_input(world, x, num_particles, message):
    with pytest.raises(ValueError, match=message):
        filtering.particle_filter(world[0], x, num_particles=num_particles, seed=0)
