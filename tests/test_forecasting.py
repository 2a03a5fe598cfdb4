"""Forecasts and their scores against closed forms of normal distributions."""

import math

import numpy as np
import pytest
import scipy.stats

from tfp_gaps import forecasting
from tfp_gaps.estimate import Estimate
from tfp_gaps.forecasting import Forecast
from tfp_gaps.models.state_space import DiagonalNormal, LinearGaussianStateSpace, StateSpace
from tfp_gaps.networks import replica_seeds
from tfp_gaps.sequences import Sequences

START, HORIZON = 4, 3


def normal_crps(mean, scale, truth):
    """CRPS of N(mean, scale^2) (Gneiting and Raftery 2007, eq. 21)."""
    z = (truth - mean) / scale
    phi, cdf = scipy.stats.norm.pdf(z), scipy.stats.norm.cdf(z)
    return scale * (z * (2 * cdf - 1) + 2 * phi - 1 / math.sqrt(math.pi))


def ensembles(rng, count, num_sequences, *, scale=1.0, levels=None):
    """A forecast of one step and one channel, whose members and truth are standard normal."""
    samples = scale * rng.normal(size=[1, count, 1, num_sequences, 1])
    truth = rng.normal(size=[1, num_sequences, 1])
    if levels is not None:
        samples, truth = (np.floor(levels * scipy.stats.norm.cdf(v)) for v in (samples, truth))
    return Forecast(samples, truth)


def assert_mean_is(values, expected):
    """The mean of independent values is the expected one to four standard errors."""
    estimate = Estimate.from_samples(np.ravel(values))
    assert abs(estimate.value - expected) < 4 * estimate.standard_error


@pytest.fixture(scope="module")
def simulated(linear_chain):
    """400 sequences of the chain, and the exact predictive moments, each [horizon, sequences]."""
    kalman = linear_chain.kalman(START + HORIZON)
    x = kalman.sample(400, seed=[0, 3])
    filtered = kalman.forward_filter(x)
    mean = filtered.filtered_means.numpy()[:, START - 1, 0]
    variance = filtered.filtered_covs.numpy()[START - 1, 0, 0]
    means, variances = [], []
    for _ in range(HORIZON):
        mean, variance = 0.9 * mean, 0.81 * variance + 0.5
        means.append(mean)
        variances.append(variance + 1.0)
    scales = np.sqrt(variances)[:, np.newaxis]
    return x.numpy().transpose(1, 0, 2), np.stack(means), scales


def test_ensemble_has_the_predictive_moments(simulated, linear_chain):
    x, means, scales = simulated
    predicted = forecasting.forecast(
        linear_chain.model(2), x[:, :20], start=START, horizon=HORIZON, num_particles=4000, seed=0
    )
    assert predicted.samples.shape == (HORIZON, 4000, 2, 20, 1)
    np.testing.assert_array_equal(predicted.truth, x[START:, :20].astype(np.float32))
    samples = predicted.samples[..., 0]
    # The filter leaves an effective size of 1000 at least; 5 errors for the largest of 120.
    standardised = (samples.mean(1) - means[:, np.newaxis, :20]) / scales[:, np.newaxis]
    assert np.abs(standardised).max() < 5 / math.sqrt(1000)
    # The sd of a sd of 4000 draws is 1 / sqrt(8000) = 1.1 %, averaged over 40 ensembles less.
    ratio = samples.std(1).mean((1, 2)) / scales[:, 0]
    np.testing.assert_allclose(ratio, 1.0, atol=0.02)


def test_scores_of_the_true_model_are_the_closed_forms(simulated, linear_chain):
    x, means, scales = simulated
    scores = forecasting.evaluate(
        linear_chain.model(), x, start=START, horizon=HORIZON, num_particles=500, seed=0
    )
    truth = x[START:, :, 0]
    for h in range(HORIZON):
        # Sequence by sequence, so that what the truth contributes cancels.
        assert_mean_is(scores.crps[h, 0] - normal_crps(means[h], scales[h], truth[h]), 0.0)
        assert_mean_is(scores.squared_error[h, 0] - (truth[h] - means[h]) ** 2, 0.0)
        for level in (0.5, 0.9):
            share = scores.coverage[level][h, 0].mean()
            # Binomial error of 400 sequences.
            assert abs(share - level) < 4 * math.sqrt(level * (1 - level) / 400)
    # Not on average alone: a CRPS moves at most as far as the mean of its ensemble, whose error is
    # 1.6 / sqrt(500) = 0.07 from the draws and about as much from the filter.
    error = scores.crps[:, 0] - normal_crps(means, scales, truth)
    assert math.sqrt((error**2).mean()) < 0.1


@pytest.mark.parametrize("count", [2, 3, 20])
def test_scores_do_not_depend_on_the_size_of_the_ensemble(count):
    rng = np.random.default_rng(count)
    forecast = ensembles(rng, count, 40_000)
    scores, truth = forecasting.score(forecast), forecast.truth[0, :, 0]
    assert_mean_is(scores.crps[0, 0] - normal_crps(0.0, 1.0, truth), 0.0)
    assert_mean_is(scores.squared_error[0, 0] - truth**2, 0.0)


@pytest.mark.parametrize("count", [2, 9, 250])
@pytest.mark.parametrize("levels", [None, 2, 5])
def test_coverage_is_nominal_for_any_ensemble(count, levels):
    # Continuous, binary and five-valued data: members and truth are exchangeable in all.
    forecast = ensembles(np.random.default_rng(0), count, 10_000, levels=levels)
    scores = forecasting.score(forecast, levels=(0.2, 0.5, 0.9))
    for level, values in scores.coverage.items():
        assert_mean_is(values, level)
        assert values.min() >= 0.0 and values.max() <= 1.0


def test_overconfident_ensembles_cover_too_little():
    forecast = ensembles(np.random.default_rng(0), 500, 20_000, scale=0.5)
    scores = forecasting.score(forecast)
    # 2 Phi(z / 2) - 1 with z the quantile of the level.
    for level in (0.5, 0.9):
        expected = 2 * scipy.stats.norm.cdf(scipy.stats.norm.ppf(0.5 + level / 2) / 2) - 1
        # Four binomial errors, and 1 / 501 for the size of the ensemble.
        assert scores.coverage[level].mean() == pytest.approx(expected, abs=0.014 + 0.002)


def test_fair_crps_equals_the_sum_over_pairs():
    rng = np.random.default_rng(0)
    samples, truth = rng.normal(size=[7, 3, 2]), rng.normal(size=[3, 2])
    samples[1] = samples[2]  # ties
    spread = np.abs(samples[:, np.newaxis] - samples).sum((0, 1)) / (2 * 7 * 6)
    expected = np.abs(samples - truth).mean(0) - spread
    np.testing.assert_allclose(forecasting.fair_crps(samples, truth), expected, rtol=1e-12)


def test_masked_channels_do_not_count():
    rng = np.random.default_rng(0)
    samples, truth = rng.normal(size=[2, 9, 1, 4, 3]), rng.normal(size=[2, 4, 3])
    mask = np.ones([2, 4, 3], bool)
    mask[0, 1, 2] = False
    mask[1, 3] = False
    scores = forecasting.score(Forecast(samples, np.where(mask, truth, 1e6), mask))
    some = forecasting.score(Forecast(samples[..., :2], truth[..., :2]))
    every = forecasting.score(Forecast(samples, truth))
    chosen = forecasting.score(Forecast(samples, truth), channels=[0, 1])
    for name in ("squared_error", "crps"):
        masked, partial, full = (getattr(s, name) for s in (scores, some, every))
        np.testing.assert_allclose(masked[0, 0, 1], partial[0, 0, 1])
        np.testing.assert_allclose(masked[0, 0, [0, 2, 3]], full[0, 0, [0, 2, 3]])
        np.testing.assert_array_equal(getattr(chosen, name), partial)
        # Nothing observed: zero here, and left out of the means.
        assert masked[1, 0, 3] == 0.0
        mean = scores.per_horizon(masked)[0][1]
        assert mean.num_samples == 3 and mean.value == pytest.approx(full[1, 0, :3].mean())
    assert scores.observed.tolist() == [[True] * 4, [True, True, True, False]]
    lonely = np.zeros([2, 4, 3], bool)
    lonely[:, 0] = True
    with pytest.raises(ValueError, match="at least 2"):
        forecasting.score(Forecast(samples, truth, lonely)).rmse()


def test_root_mean_squared_error_has_the_error_of_the_derivative():
    # Errors of about 3, so that a factor stands out from a quotient.
    made = ensembles(np.random.default_rng(0), 50, 1000)
    scores = forecasting.score(Forecast(3.0 * made.samples, 3.0 * made.truth))
    [[rmse]] = scores.rmse()
    values = scores.squared_error[0, 0]
    assert rmse.value == pytest.approx(math.sqrt(values.mean()))
    rng = np.random.default_rng(1)
    roots = [math.sqrt(rng.choice(values, 1000).mean()) for _ in range(2000)]
    # A bootstrap of 2000 knows its sd to 1.6 %; four of those.
    assert rmse.standard_error == pytest.approx(np.std(roots), rel=0.065)
    assert rmse.kind == "data points"


def test_a_perfect_prediction_has_no_error():
    truth = np.arange(3.0).reshape(1, 3, 1)
    samples = np.broadcast_to(truth[:, np.newaxis, np.newaxis], [1, 5, 1, 3, 1])
    scores = forecasting.score(Forecast(samples, truth))
    assert scores.rmse()[0][0] == Estimate(0.0, 0.0, 3, "data points")
    assert np.all(scores.crps == 0.0)


class ControlledChain(LinearGaussianStateSpace):
    """z_t ~ N(a z_{t-1} + u_t, q)."""

    def __init__(self, exact):
        super().__init__(exact)
        self.control_size = 1

    def transition(self, latent, control=None):
        prior = super().transition(latent)
        return DiagonalNormal(prior.mean + control, prior.scale)


def test_controls_move_the_forecast(linear_chain):
    # The controlled chain is the free one displaced by a known response, before and after START.
    rng = np.random.default_rng(0)
    x, controls = rng.normal(size=[2, 6, 3, 1])
    controls[0] = 0.0
    state, moved = np.zeros([3, 1]), []
    for t in range(6):
        state = 0.9 * state + (controls[t] if t > 0 else 0.0)
        moved.append(state)
    options = {"start": 4, "horizon": 2, "num_particles": 50, "seed": 0}
    free = forecasting.forecast(linear_chain.model(), x, **options)
    steered = forecasting.forecast(
        ControlledChain(linear_chain.exact), Sequences(x + np.stack(moved), controls), **options
    )
    added = np.stack(moved)[4:, np.newaxis, np.newaxis]
    # The same draws, in float32.
    np.testing.assert_allclose(steered.samples, free.samples + added, atol=1e-4)


def test_mask_reaches_the_filter_and_the_scores(linear_chain):
    x = np.zeros([6, 3, 1])
    x[:4] = 5.0
    mask = np.ones([6, 3, 1], bool)
    mask[:4, 1:] = False
    mask[4, 2] = False
    predicted = forecasting.forecast(
        linear_chain.model(),
        Sequences(x, mask=mask),
        start=4,
        horizon=2,
        num_particles=2000,
        seed=0,
    )
    means = predicted.samples.mean((0, 1, 2))[:, 0]
    # Who saw x = 5 predicts about 4; who saw nothing predicts 0, to 1.9 / sqrt(4000) * 4 = 0.12.
    assert means[0] > 2.5 and np.all(np.abs(means[1:]) < 0.15)
    assert forecasting.score(predicted).observed.tolist() == [[True, True, False], [True] * 3]


def test_evaluating_in_batches_gives_the_same_law(simulated, linear_chain):
    x = simulated[0][:, :30]
    options = {"start": START, "horizon": HORIZON, "num_particles": 400, "seed": 0}
    whole = forecasting.score(forecasting.forecast(linear_chain.model(2), x, **options))
    same = forecasting.evaluate(linear_chain.model(2), x, **options)
    batches = forecasting.evaluate(linear_chain.model(2), x, paths_at_once=6000, **options)
    np.testing.assert_array_equal(whole.crps, same.crps)
    np.testing.assert_array_equal(whole.coverage[0.9], same.coverage[0.9])
    # Other draws: a CRPS of about 0.7 from 400 members is known to some 5 %.
    np.testing.assert_allclose(whole.crps, batches.crps, atol=0.3)
    other = forecasting.evaluate(linear_chain.model(2), x, **options | {"seed": 1})
    assert np.all(whole.crps != other.crps)


def test_batches_draw_their_own_noise(linear_chain):
    # Two sequences with the same past, one to a batch.
    parts = forecasting._predict(
        linear_chain.model(),
        np.zeros([10, 1, 2, 1], np.float32),
        Sequences(np.zeros([2, 2, 1])),
        0,
        10,
    )
    first, second = (part.samples for part in parts)
    assert first.shape == (2, 10, 1, 1, 1)
    assert np.all(first != second)


@pytest.mark.parametrize("emission", ["bernoulli", "student_t"])
def test_every_emission_can_be_sampled(emission):
    model = StateSpace(
        observation_size=3,
        latent_size=2,
        hidden_size=4,
        emission=emission,
        seeds=replica_seeds([0, 1], "model"),
    )
    x = np.random.default_rng(0).integers(0, 2, size=[5, 4, 3])
    options = {"start": 3, "horizon": 2, "num_particles": 30, "seed": 0}
    predicted = forecasting.forecast(model, x, num_samples=10, **options)
    assert predicted.samples.shape == (2, 10, 2, 4, 3)
    values = np.unique(predicted.samples)
    assert values.tolist() == [0.0, 1.0] if emission == "bernoulli" else values.size == 480
    assert np.all(np.isfinite(forecasting.score(predicted).crps))


def test_fan_holds_quantiles():
    samples = np.arange(11.0)[np.newaxis, :, np.newaxis, np.newaxis, np.newaxis]
    fan = forecasting.fan(Forecast(samples, np.zeros([1, 1, 1])), quantiles=(0.1, 0.5))
    assert fan.shape == (2, 1, 1, 1, 1)
    np.testing.assert_allclose(fan.ravel(), [1.0, 5.0])
    every = forecasting.fan(Forecast(samples, np.zeros([1, 1, 1]))).ravel()
    np.testing.assert_allclose(every, [0.5, 2.5, 5.0, 7.5, 9.5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": 0}, "start must be an integer and >= 1 and <= 6"),
        ({"start": 7}, "start must be"),
        ({"horizon": 4}, "horizon must be an integer and >= 1 and <= 3.*filter reads 4"),
        ({"horizon": 0}, "horizon"),
        ({"num_particles": 1}, "num_particles"),
        ({"num_samples": 51}, "num_samples must be an integer and >= 2 and <= 50"),
        ({"sequences": np.full([7, 2, 1], np.nan)}, "NaN"),
        ({"sequences": np.zeros([7, 2])}, "time, sequences, channels"),
    ],
)
def test_bad_input_of_a_forecast(linear_chain, change, message):
    options = {
        "sequences": np.zeros([7, 2, 1]),
        "start": 4,
        "horizon": 3,
        "num_particles": 50,
        "seed": 0,
    } | change
    with pytest.raises(ValueError, match=message):
        forecasting.forecast(linear_chain.model(), options.pop("sequences"), **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": np.zeros([2, 1, 1, 4, 3])}, "at least 2 particles"),
        ({"samples": np.zeros([2, 5, 4, 3])}, r"\[horizon, particles, replicas"),
        (
            {"samples": np.full([2, 5, 1, 4, 3], np.nan)},
            "120 of 120 values of samples are NaN.*diverged",
        ),
        ({"truth": np.zeros([2, 4, 2])}, "truth"),
        ({"truth": np.full([2, 4, 3], np.inf)}, "24 of 24 values of truth"),
        ({"mask": np.ones([2, 4], bool)}, "mask must have the shape of truth"),
    ],
)
def test_bad_forecasts(change, message):
    parts = {"samples": np.zeros([2, 5, 1, 4, 3]), "truth": np.zeros([2, 4, 3])} | change
    with pytest.raises(ValueError, match=message):
        Forecast(**parts)


@pytest.mark.parametrize("level", [0.0, 1.0, 90])
def test_bad_level(level):
    forecast = Forecast(np.zeros([1, 2, 1, 2, 1]), np.zeros([1, 2, 1]))
    with pytest.raises(ValueError, match=r"levels must lie between 0 and 1"):
        forecasting.score(forecast, levels=[level])


def test_one_channel_is_an_index_and_no_channel_is_none():
    rng = np.random.default_rng(9)
    predicted = Forecast(rng.normal(size=[2, 50, 1, 6, 3]), rng.normal(size=[2, 6, 3]))
    expected = forecasting.fair_crps(
        predicted.samples[..., 1].swapaxes(0, 1), predicted.truth[..., 1][:, None]
    )
    for channels in (1, -2, np.int64(1), [1], slice(1, 2), np.array([False, True, False])):
        found = forecasting.score(predicted, channels=channels)
        np.testing.assert_allclose(found.crps, expected, atol=1e-12)
        assert found.observed.shape == (2, 6) and found.crps.shape == (2, 1, 6)
    for channels in (3, -4, [], slice(3, None), 0.0, [[0]], True, "x"):
        with pytest.raises(ValueError, match="a slice or indices of the 3 channels"):
            forecasting.score(predicted, channels=channels)
