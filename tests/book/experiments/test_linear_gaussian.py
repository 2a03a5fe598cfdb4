"""Networks on the linear-Gaussian chain: what they see, where they land, how they are measured."""

import numpy as np
import pytest

from tfp_gaps import training
from tfp_gaps._tensorflow import tf
from tfp_gaps.book.experiments import linear_gaussian as experiment
from tfp_gaps.exact import linear_gaussian as exact
from tfp_gaps.posteriors.conditions import FULL, LookAhead
from tfp_gaps.sequences import Batch

WORLD = exact.LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
CONDITIONS = [LookAhead(0), LookAhead(1), FULL]
QUICK = training.Settings(400, 256, learning_rate=3e-2, steps_per_call=100)


@pytest.fixture(scope="module")
def trained():
    return experiment.train(
        WORLD,
        "linear",
        num_timesteps=4,
        conditions=CONDITIONS,
        seed=0,
        settings=QUICK,
        num_data=20_000,
    )


def test_linear_networks_land_on_the_closed_forms(trained):
    for conditions, found in zip(CONDITIONS, experiment.exact_gaps(trained), strict=True):
        closed = exact.conditioning_gap(WORLD, 4, conditions.lookahead)
        # It is the best of its family; 400 steps leave about .001.
        assert closed <= found < closed + 0.01


def test_measured_gaps_agree_with_the_exact_ones(trained):
    measured = experiment.measured_gaps(trained, num_timesteps=4, num_sequences=4000, seed=3)
    for found, expected in zip(measured, experiment.exact_gaps(trained), strict=True):
        assert found.standard_error < 0.02
        assert abs(found.value - expected) < 4 * found.standard_error


def test_trained_factors_approach_the_closed_form(trained):
    found = trained.network.factors(0)
    best = exact.shared_factors(WORLD, WORLD, 4, 0)
    # Training leaves a few percent on weights of order .1 to 1.
    np.testing.assert_allclose(found.covariance, best.covariance, rtol=0.15)
    np.testing.assert_allclose(found.transition, best.transition, atol=0.1)
    np.testing.assert_allclose(found.observation_weights, best.observation_weights, atol=0.05)


def test_linear_network_sees_what_it_may():
    def alone(num_timesteps):
        return np.eye(num_timesteps, dtype=bool)

    network = experiment.LinearNetwork(
        conditions=[*CONDITIONS, alone], num_timesteps=4, observation_size=2, latent_size=1
    )
    network.weights.assign(tf.ones_like(network.weights))
    observations = np.zeros((4, 4, 1, 2), np.float32)
    before = network.context(Batch(tf.constant(observations))).numpy()
    for s in range(4):
        moved = observations.copy()
        moved[s] = 1.0
        after = network.context(Batch(tf.constant(moved))).numpy()
        changed = (after != before)[:, :, 0, 0].T.tolist()
        for replica, k in enumerate((0, 1, 3)):
            assert changed[replica] == [s <= t + k for t in range(4)]
        assert changed[3] == [s == t for t in range(4)]


def test_linear_network_draws_with_its_own_density():
    """Its divergence and log weight against the formulas of the normal density."""
    model = experiment.LinearGaussianStateSpace(WORLD)
    network = experiment.LinearNetwork(
        conditions=[FULL], num_timesteps=2, observation_size=1, latent_size=1
    )
    network.log_scale.assign(tf.reshape([-0.5, 0.25], [1, 2, 1]))
    network.transition.assign(tf.reshape([0.0, 0.3], [1, 2, 1, 1]))
    context, noise = (np.random.default_rng(i).standard_normal((2, 1, 3, 1)) for i in (0, 1))
    path = network.sample_path(model, tf.cast(context, tf.float32), tf.cast(noise, tf.float32))
    z = path.latents.numpy()[..., 0]
    mean = [context[0, ..., 0], context[1, ..., 0] + 0.3 * z[0]]
    prior_mean, prior_scale = [0.0, 0.9 * z[0]], [np.sqrt(0.1 / 0.19), np.sqrt(0.1)]
    for t, scale in enumerate(np.exp([-0.5, 0.25])):
        np.testing.assert_allclose(z[t], mean[t] + scale * noise[t, ..., 0], rtol=1e-5)
        ratio = scale / prior_scale[t]
        offset = (mean[t] - prior_mean[t]) / prior_scale[t]
        divergence = 0.5 * (ratio**2 + offset**2 - 1) - np.log(ratio)
        np.testing.assert_allclose(path.divergence[t], divergence, rtol=1e-4)
        log_p = -0.5 * ((z[t] - prior_mean[t]) / prior_scale[t]) ** 2 - np.log(prior_scale[t])
        log_q = -0.5 * ((z[t] - mean[t]) / scale) ** 2 - np.log(scale)
        np.testing.assert_allclose(path.log_weight[t], log_p - log_q, rtol=1e-4, atol=1e-4)


def test_recurrent_network_is_measured_above_the_closed_form():
    settings = training.Settings(200, 128, learning_rate=4e-3, steps_per_call=100)
    trained = experiment.train(
        WORLD, "recurrent", num_timesteps=3, conditions=[LookAhead(1)], seed=0, settings=settings
    )
    [measured] = experiment.measured_gaps(trained, num_timesteps=3, num_sequences=2000, seed=1)
    closed = exact.conditioning_gap(WORLD, 3, 1)
    assert closed - 4 * measured.standard_error < measured.value < closed + 0.5


def test_online_coverage_matches_the_closed_form():
    found = experiment.online_coverage(
        WORLD, num_timesteps=12, nominal=0.9, num_sequences=4000, seed=0
    )
    expected = exact.online_filter(WORLD, 12).coverage(0.9)[:, 0]
    for partial, filtered, closed in zip(found.partial, found.filtered, expected, strict=True):
        assert abs(partial.value - closed) < 4 * partial.standard_error
        assert abs(filtered.value - 0.9) < 4 * filtered.standard_error


def test_learning_curve_reports_per_step():
    curve = experiment.learning_curve(WORLD, num_timesteps=4, lookaheads=[0, None], num_starts=0)
    assert [row.lookahead for row in curve] == [0, None]
    partial, full = curve
    assert partial.gap_at_truth == pytest.approx(exact.conditioning_gap(WORLD, 4, 0) / 4)
    truth = exact.log_likelihood(WORLD, WORLD, 4) / 4
    assert partial.loss == pytest.approx(truth - partial.log_likelihood)
    assert partial.slack == pytest.approx(0.0, abs=1e-7)
    assert full.loss == pytest.approx(0.0, abs=1e-9)


def test_bad_input_is_refused(trained):
    with pytest.raises(ValueError, match="Unknown network 'cubic'"):
        experiment.train(WORLD, "cubic", num_timesteps=4, conditions=[FULL], seed=0)
    with pytest.raises(ValueError, match="one look-ahead at a time"):
        experiment.train(WORLD, "recurrent", num_timesteps=4, conditions=CONDITIONS, seed=0)
    with pytest.raises(ValueError, match="made for 4 time steps"):
        experiment.measured_gaps(trained, num_timesteps=5, num_sequences=10, seed=0)
