"""Weights against evidences that are known: their mean, their spread, and what breaks them."""

import numpy as np
import pytest
from scipy import special

from tfp_gaps import annealing
from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.annealing import Annealed
from tfp_gaps.exact.factor_analysis import FactorAnalysis
from tfp_gaps.exact.two_sensors import TwoSensors
from tfp_gaps.models.vae import VAE

LOG_2PI = np.log(2 * np.pi)
WORLDS = [FactorAnalysis.random(5, 2, seed=m) for m in range(4)]
DRAWN = [world.sample(3, seed=m) for m, world in enumerate(WORLDS)]
LATENTS, X = (np.stack(part) for part in zip(*DRAWN, strict=True))  # [4 worlds, 3 data, ...]
TRUTH = np.stack([world.log_evidence(x) for world, x in zip(WORLDS, X, strict=True)])

ONE = FactorAnalysis([[1.0, 0.9], [0.8, 0.2], [-0.5, -0.9]], [0.5, 0.7, 0.8])
ONE_X = np.array([[1.0, 0.3, -0.8]])
ONE_TRUTH = ONE.log_evidence(ONE_X)[0]


def log_joint_of(worlds, observations, dtype=tf.float32):
    """ln p(x, z) of latents [..., worlds, data, latent], in sums over axes alone."""

    def stacked(name):
        return tf.constant(np.stack([getattr(w, name) for w in worlds])[:, None], dtype)

    loadings, noise, offset = (stacked(name) for name in ("loadings", "noise", "offset"))
    x = tf.constant(observations, dtype)

    def log_joint(z):
        means = tf.reduce_sum(z[..., None, :] * loadings, -1) + offset
        fit = ((x - means) / noise) ** 2 + 2 * tf.math.log(noise) + LOG_2PI
        return -0.5 * (tf.reduce_sum(z**2 + LOG_2PI, -1) + tf.reduce_sum(fit, -1))

    return log_joint


def one_log_joint(dtype=tf.float32):
    """Of the world `ONE` and its datum, without batch axes."""
    of_batch = log_joint_of([ONE], ONE_X[None], dtype)
    return lambda z: of_batch(z[:, None, None])[:, 0, 0]


FIXED = np.full((5, 4, 3), 0.3)
"""Step sizes for the options below, where it does not matter how they were found."""


def forward(log_joint=None, **options):
    options = {
        "batch_shape": (4, 3), "latent_size": 2, "num_chains": 8, "num_steps": 20,
        "num_leapfrog_steps": 3, "num_segments": 5, "seed": 0,
    } | options  # fmt: skip
    return annealing.forward(log_joint or log_joint_of(WORLDS, X), **options)


@pytest.fixture(scope="module")
def tuned():
    """A run with a pilot of its own."""
    return forward()


@pytest.fixture(scope="module")
def fixed():
    """A run without."""
    return forward(step_sizes=FIXED)


def one_forward(**options):
    """Many chains for the datum of `ONE`, at step sizes that are fixed: E w is what counts."""
    dtype = options.get("dtype", tf.float32)
    num_segments = options.get("num_segments", 4)
    options = {
        "batch_shape": (), "num_chains": 20_000, "num_steps": 8, "num_leapfrog_steps": 2,
        "num_segments": num_segments, "step_sizes": np.full(num_segments, 0.4),
    } | options  # fmt: skip
    return forward(one_log_joint(dtype), **options)


def assert_unbiased(log_ratios):
    """The mean of w / p(x), or of w' p(x), is 1."""
    ratios = np.exp(log_ratios)
    error = ratios.std() / np.sqrt(len(ratios))
    assert error < 0.03
    assert ratios.mean() == pytest.approx(1.0, abs=4 * error)


# --- exactness ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": "sigmoid"},
        {"schedule": [0.0, 0.02, 0.1, 0.4, 1.0]},
        {"num_segments": 1, "num_steps": 5, "dtype": tf.float64},
        {"jit_compile": True},
    ],
)
def test_forward_weights_are_unbiased(options):
    found = one_forward(**options)
    assert found.log_weights.shape == (20_000,) and found.sign == 1
    assert_unbiased(found.log_weights - ONE_TRUTH)


@pytest.mark.parametrize("schedule", ["sigmoid", [0.0, 0.02, 0.1, 0.4, 1.0]])
def test_reverse_weights_are_unbiased(schedule):
    draws = ONE.sample_posterior(ONE_X, 20_000, seed=1)[:, 0]
    found = annealing.reverse(
        one_log_joint(), draws, num_steps=12, num_segments=4, num_leapfrog_steps=2, seed=0,
        schedule=schedule, step_sizes=np.full(4, 0.4),
    )  # fmt: skip
    assert found.sign == -1
    assert_unbiased(found.log_weights + ONE_TRUTH)


def normal_q(scale, dtype=tf.float32):
    """A normal with the posterior's mean, and its covariance times scale^2."""
    root = scale * np.linalg.cholesky(ONE.posterior_covariance())
    return tfp.distributions.MultivariateNormalTriL(
        tf.constant(ONE.posterior_mean(ONE_X)[0], dtype), tf.constant(root, dtype)
    )


def test_weights_from_another_start_are_unbiased():
    assert_unbiased(one_forward(initial=normal_q(1.5)).log_weights - ONE_TRUTH)


def test_a_start_at_the_posterior_gives_the_evidence_from_every_chain():
    found = one_forward(initial=normal_q(1.0, tf.float64), dtype=tf.float64, num_chains=50)
    np.testing.assert_allclose(found.log_weights, ONE_TRUTH, atol=1e-10)
    # Then no move changes any weight, and the spread is rounding alone.
    assert found.standard_error() < 1e-6 and found.jackknife_error() < 1e-6


def test_a_kernel_that_is_not_started_afresh_is_biased():
    # What the plain use of TFP's function does: 10 % too low at 16 temperatures and this step size,
    # and 7 % too high, above the evidence that it should bound, at 64 and a step size of 0.8.
    num_steps, step_size = 16, 0.3
    log_joint = one_log_joint(tf.float64)
    prior = tfp.distributions.MultivariateNormalDiag(tf.zeros(2, tf.float64))

    @tf.function
    def plain():
        return tfp.mcmc.sample_annealed_importance_chain(
            num_steps=num_steps,
            proposal_log_prob_fn=prior.log_prob,
            target_log_prob_fn=log_joint,
            current_state=prior.sample(20_000, seed=(1, 2)),
            make_kernel_fn=lambda target: tfp.mcmc.HamiltonianMonteCarlo(
                target, step_size=tf.constant(step_size, tf.float64), num_leapfrog_steps=2
            ),
            seed=(3, 4),
        )[1]

    ratios = np.exp(plain().numpy() - ONE_TRUTH)
    assert abs(ratios.mean() - 1) > 8 * ratios.std() / np.sqrt(20_000)
    found = one_forward(
        num_steps=num_steps, num_segments=1, step_sizes=[step_size], dtype=tf.float64
    )
    assert_unbiased(found.log_weights - ONE_TRUTH)


def test_segments_of_a_linear_schedule_are_the_linear_schedule():
    # A chain that hardly moves adds up ln p(x, z) - ln p(z) at its start, whatever the segments.
    options = {"num_chains": 500, "num_steps": 12, "schedule": "linear", "dtype": tf.float64}
    still = [
        one_forward(num_segments=n, step_sizes=np.full(n, 1e-9), **options).log_weights
        for n in (1, 4)
    ]
    np.testing.assert_allclose(still[0], still[1], atol=1e-5)
    # And with moves the weights spread alike: a standard deviation is known to 1 % or so.
    options["num_chains"] = 20_000
    spread = [one_forward(num_segments=n, **options).log_weights.std() for n in (1, 4)]
    assert spread[1] == pytest.approx(spread[0], rel=0.05)
    # Not so for another schedule with the same number of steps.
    late = one_forward(**options | {"schedule": [0, 0.5, 0.9, 0.95, 1.0]})
    assert late.log_weights.std() > 1.1 * spread[0]


# --- bounds ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_runs():
    """Forward and reverse runs of all worlds, with an effort that leaves no visible bias."""
    options = {"num_steps": 300, "num_segments": 10}
    lower = forward(num_chains=64, **options)
    draws = [w.sample_posterior(x, 64, seed=9) for w, x in zip(WORLDS, X, strict=True)]
    upper = annealing.reverse(
        log_joint_of(WORLDS, X), np.stack(draws, 1), seed=1, num_leapfrog_steps=3,
        step_sizes=lower.step_sizes, **options,
    )  # fmt: skip
    return lower, upper


def test_bounds_are_within_three_errors_of_the_evidence(long_runs):
    for found in long_runs:
        error = found.jackknife_error()
        assert error.max() < 0.25
        # Each of the 12 data; and their mean, of which the bias would show first.
        scores = (found.log_evidence() - TRUTH) / error
        assert np.abs(scores).max() < 3
        together = np.sqrt(np.sum(error**2)) / TRUTH.size
        assert (found.log_evidence() - TRUTH).mean() == pytest.approx(0, abs=3 * together)


def test_bounds_sandwich_the_evidence(long_runs):
    lower, upper = long_runs
    low = lower.log_evidence() - 3 * lower.jackknife_error()
    high = upper.log_evidence() + 3 * upper.jackknife_error()
    assert (low < TRUTH).all() and (high > TRUTH).all()
    assert (high - low).mean() < 0.7


def test_more_temperatures_tighten_the_sandwich(long_runs):
    few = {"num_steps": 10, "num_segments": 10, "step_sizes": long_runs[0].step_sizes}
    draws = [w.sample_posterior(x, 64, seed=5) for w, x in zip(WORLDS, X, strict=True)]
    lower = forward(num_chains=64, **few)
    upper = annealing.reverse(
        log_joint_of(WORLDS, X), np.stack(draws, 1), seed=1, num_leapfrog_steps=3, **few
    )
    gaps = []
    for below, above in (long_runs, (lower, upper)):
        # The mean of ln w itself, a bound for K = 1: its slack does not hide behind the maximum.
        slack = [(f.sign * TRUTH - f.log_weights.mean(0)).mean() for f in (below, above)]
        assert min(slack) > 0
        gaps.append(sum(slack))
    assert gaps[0] < gaps[1] / 3


def test_one_posterior_draw_for_all_chains_still_bounds_from_above():
    # Over many data with the latents that made them: the bound holds in expectation over both.
    latents, x = ONE.sample(400, seed=3)
    found = annealing.reverse(
        log_joint_of([ONE], x[None]), np.tile(latents[None, None], [4, 1, 1, 1]), seed=0,
        num_steps=20, num_segments=5, num_leapfrog_steps=3, step_sizes=np.full((5, 1, 400), 0.4),
    )  # fmt: skip
    miss = found.log_evidence()[0] - ONE.log_evidence(x)
    error = miss.std() / np.sqrt(400)
    assert miss.mean() > 3 * error  # few steps: visibly above
    # And unbiased where it should be, in the mean of w'.
    ratios = np.exp(found.log_weights[:, 0] + ONE.log_evidence(x)).mean(0)
    assert ratios.mean() == pytest.approx(1, abs=4 * ratios.std() / np.sqrt(400))


def test_linear_gaussian_auto_encoder_is_sandwiched(tuned):
    model = VAE.from_factor_analysis(WORLDS[0])
    x = tf.constant(X[:1], tf.float32)
    draws = WORLDS[0].sample_posterior(X[0], 64, seed=2)[:, None]
    options = {
        "num_steps": 200, "num_segments": 5, "num_leapfrog_steps": 3,
        "step_sizes": tuned.step_sizes[:, :1],
    }  # fmt: skip

    def log_joint(z):
        return model.log_joint(z, x)

    lower = forward(log_joint, batch_shape=(1, 3), num_chains=64, **options)
    upper = annealing.reverse(log_joint, draws, seed=0, **options)
    for found in (lower, upper):
        assert (np.abs(found.log_evidence()[0] - TRUTH[0]) < 3 * found.jackknife_error()).all()


def test_two_sensors_are_sandwiched():
    world = TwoSensors(noise_seen=1.0, noise_unseen=0.5)
    seen, unseen = np.array([0.4, -1.5, 2.0]), np.array([1.0, 0.2, 1.8])
    truth = world.log_evidence(seen, unseen)
    mean, variance = world.full_posterior(seen, unseen)
    draws = mean + np.sqrt(variance) * np.random.default_rng(0).normal(size=(64, 3))

    def log_joint(z):
        z = z[..., 0]
        fit = (seen - z) ** 2 + (unseen - z) ** 2 / 0.25 + 2 * np.log(0.5)
        return -0.5 * (z**2 + fit + 3 * LOG_2PI)

    options = {
        "num_steps": 100, "num_segments": 5, "num_leapfrog_steps": 3, "dtype": tf.float64,
        "step_sizes": np.full((5, 3), 0.4),
    }  # fmt: skip
    lower = forward(log_joint, batch_shape=(3,), latent_size=1, num_chains=64, **options)
    upper = annealing.reverse(log_joint, draws[..., None], seed=0, **options)
    for found in (lower, upper):
        assert (np.abs(found.log_evidence() - truth) < 3 * found.jackknife_error()).all()
        assert found.jackknife_error().max() < 0.15


# --- step sizes -----------------------------------------------------------------------------------


def test_step_sizes_are_tuned_to_the_target():
    # One leapfrog step in twenty dimensions, where acceptance falls with the step size throughout.
    # With several in two dimensions it rises and falls, and the target has no single step size.
    noise = tf.constant([1.0, 0.3])

    def log_joint(z):
        fit = ((1.0 - z) / noise[:, tf.newaxis]) ** 2
        return -0.5 * tf.reduce_sum(z**2 + fit, -1)

    found = forward(
        log_joint, batch_shape=(2,), latent_size=20, num_leapfrog_steps=1, num_steps=300
    )
    assert found.acceptance.shape == found.step_sizes.shape == (5, 2)
    # The chains lag a little behind the path, most of all at its start: by up to 0.13 over six
    # seeds, and by 0.02 in the mean of all segments.
    np.testing.assert_allclose(found.acceptance, annealing.TARGET_ACCEPTANCE, atol=0.15)
    assert found.acceptance.mean() == pytest.approx(annealing.TARGET_ACCEPTANCE, abs=0.04)


def test_step_sizes_serve_both_directions(long_runs):
    lower, upper = long_runs
    assert lower.acceptance.shape == lower.step_sizes.shape == (10, 4, 3)
    assert lower.acceptance.min() > 0.4
    # Backwards, the same temperatures accept alike: both are in the same order.
    assert np.abs(upper.acceptance - lower.acceptance).mean() < 0.08


def test_a_narrower_posterior_gets_smaller_steps():
    noise = tf.constant([1.0, 0.1])

    def log_joint(z):
        fit = ((1.0 - z[..., 0]) / noise) ** 2 + 2 * tf.math.log(noise)
        return -0.5 * (z[..., 0] ** 2 + fit + 2 * LOG_2PI)

    found = forward(log_joint, batch_shape=(2,), latent_size=1, num_steps=100)
    first, last = found.step_sizes[0], found.step_sizes[-1]
    assert last[1] < 0.3 * last[0]  # standard deviations 0.71 and 0.0995
    assert last[1] < 0.5 * first[1]


def test_step_sizes_are_frozen_and_can_be_given(tuned, fixed):
    again = forward(step_sizes=tuned.step_sizes)
    # The run that counts draws the same, tuned or given: it does not depend on the pilot's chains.
    np.testing.assert_array_equal(again.log_weights, tuned.log_weights)
    np.testing.assert_array_equal(again.step_sizes, tuned.step_sizes)
    # With others it does not.
    assert np.abs(fixed.log_weights - tuned.log_weights).min() > 0


def test_a_pilot_never_sees_the_posterior_draws(tuned):
    found = annealing.reverse(
        log_joint_of(WORLDS, X), np.tile(LATENTS[None], [8, 1, 1, 1]), num_steps=20,
        num_segments=5, num_leapfrog_steps=3, seed=0,
    )  # fmt: skip
    # The step sizes of a run that has none.
    np.testing.assert_array_equal(found.step_sizes, tuned.step_sizes)


def test_the_run_that_counts_shares_no_draw_with_its_pilot(monkeypatch):
    # Step sizes of the pilot, at the seed of the pilot: were its chains those of the run, the mean
    # of the weights would lean to the chains that the step sizes suit.
    streams, plain = [], annealing._stream

    def recorded(*arguments):
        streams.append(tuple(plain(*arguments).numpy()))
        return plain(*arguments)

    monkeypatch.setattr(annealing, "_stream", recorded)
    forward()
    # Two starts, and every segment of every pass.
    assert len(streams) == 2 + 5 * (annealing._PILOT_PASSES + 1)
    draws = np.tile(LATENTS[None], [8, 1, 1, 1])
    annealing.reverse(
        log_joint_of(WORLDS, X), draws, num_steps=5, num_segments=5, seed=0, step_sizes=FIXED
    )
    assert len(set(streams)) == len(streams) == 2 + 5 * (annealing._PILOT_PASSES + 2)


# --- shapes, seeds, programs ----------------------------------------------------------------------


@pytest.mark.parametrize("batch_shape", [(), (2, 1, 3)])
def test_batches_of_any_rank(batch_shape):
    def log_joint(z):
        return -0.5 * tf.reduce_sum(z**2 + (1.0 - z) ** 2 + 2 * LOG_2PI, -1)

    sizes = np.full((5, *batch_shape), 0.3)
    found = forward(log_joint, batch_shape=batch_shape, num_chains=32, step_sizes=sizes)
    assert found.log_weights.shape == (32, *batch_shape)
    assert found.log_weights.dtype == np.float64
    for values in (found.log_evidence(), found.standard_error(), found.effective_size()):
        assert values.shape == batch_shape
    assert found.num_failed().shape == found.jackknife_error().shape == batch_shape
    assert found.acceptance.shape == found.step_sizes.shape == (5, *batch_shape)
    truth = 2 * (-0.5 * np.log(4 * np.pi) - 0.25)
    assert (np.abs(found.log_evidence() - truth) < 4 * found.jackknife_error()).all()
    draws = np.zeros((6, *batch_shape, 2))
    back = annealing.reverse(
        log_joint, draws, num_steps=5, num_segments=5, seed=0, step_sizes=sizes
    )
    assert back.log_weights.shape == (6, *batch_shape)


def test_data_do_not_touch_each_other(fixed):
    changed = X.copy()
    changed[1, 2] += 1.0
    found = fixed.log_weights
    other = forward(log_joint_of(WORLDS, changed), step_sizes=FIXED).log_weights
    same = np.ones((4, 3), bool)
    same[1, 2] = False
    np.testing.assert_array_equal(found[:, same], other[:, same])
    assert np.abs(found[:, 1, 2] - other[:, 1, 2]).min() > 1e-3


def test_seeds_repeat_and_differ(fixed):
    again, other = (forward(seed=n, step_sizes=FIXED).log_weights for n in (0, 1))
    np.testing.assert_array_equal(fixed.log_weights, again)
    assert np.abs(fixed.log_weights - other).min() > 0


def test_the_program_is_traced_once_for_all_segments():
    counts = []
    plain = log_joint_of(WORLDS, X)

    for num_segments in (2, 6):
        calls = []

        def log_joint(z, calls=calls):
            calls.append(tf.executing_eagerly())
            return plain(z)

        forward(log_joint, num_segments=num_segments, step_sizes=np.full((num_segments, 4, 3), 0.3))
        counts.append(calls.count(False))
        assert calls.count(True) == 1  # the check of the start
    # Weight and kernel, its gradient included: a few calls, not one or more for each segment.
    assert counts[0] == counts[1] <= 6


def test_both_ends_of_a_segment_come_from_one_evaluation():
    calls = []

    def log_joint(z):
        calls.append(1)
        return one_log_joint()(z)

    chains = annealing._Chains(
        log_joint, (), 2, None, tf.float32, 2, 5, annealing.knots("linear", 1), False
    )
    first, second = chains._ends((0.25, 0.5))
    z, other = tf.constant([[0.3, -1.0]]), tf.constant([[2.0, 0.1]])
    prior, joint = -0.5 * tf.reduce_sum(z**2 + LOG_2PI, -1), one_log_joint()(z)
    np.testing.assert_allclose(first(z), 0.75 * prior + 0.25 * joint, rtol=1e-5)
    np.testing.assert_allclose(second(z), 0.5 * prior + 0.5 * joint, rtol=1e-5)
    assert len(calls) == 1
    # Asked elsewhere, or again, it evaluates there.
    first(z)
    away = second(other)
    np.testing.assert_array_equal(away, second(other))
    assert away.numpy() != second(z).numpy() and len(calls) == 5


def test_steps_are_rounded_up_to_whole_segments(fixed):
    rounded = forward(num_steps=16, step_sizes=FIXED)
    np.testing.assert_array_equal(rounded.log_weights, fixed.log_weights)  # of 20


# --- schedules ------------------------------------------------------------------------------------


def test_schedules():
    np.testing.assert_allclose(annealing.knots("linear", 5), np.arange(6) / 5, atol=1e-15)
    even = np.linspace(0, 1, 21)
    rising = special.expit(4 * (2 * even - 1))
    expected = (rising - rising[0]) / (rising[-1] - rising[0])
    np.testing.assert_allclose(annealing.knots("sigmoid", 20), expected, atol=1e-14)
    np.testing.assert_array_equal(annealing.knots([0, 0.1, 1]), [0, 0.1, 1])
    assert annealing.knots("sigmoid", 1).tolist() == [0, 1]


@pytest.mark.parametrize(
    "schedule",
    [[0, 0.5], [0, 0.5, 2.0], [0.1, 1], [0, 0.7, 0.5, 1], [0, 0.5, 0.5, 1], [1, 0.5, 0], [0], []],
)
def test_schedules_that_are_not_normalised_are_refused(schedule):
    with pytest.raises(ValueError, match=r"increase strictly from 0 \(the prior\) to 1"):
        forward(schedule=schedule)


# --- arithmetic -----------------------------------------------------------------------------------


def annealed(log_weights, sign=1):
    return Annealed(np.asarray(log_weights, float), sign, None, None)


def test_bound_effective_size_and_errors_by_hand():
    found = annealed(np.log([[1.0, 5.0], [1.0, 5.0], [2.0, 5.0]]))
    np.testing.assert_allclose(found.log_evidence(), np.log([4 / 3, 5.0]), atol=1e-14)
    np.testing.assert_allclose(found.effective_size(), [16 / 6, 3], atol=1e-14)
    delta = np.std([1, 1, 2], ddof=1) / (4 / 3) / np.sqrt(3)
    np.testing.assert_allclose(found.standard_error(), [delta, 0], atol=1e-14)
    without = np.log([1.5, 1.5, 1.0])
    jackknife = np.sqrt(2 / 3 * np.sum((without - without.mean()) ** 2))
    np.testing.assert_allclose(found.jackknife_error(), [jackknife, 0], atol=1e-14)
    upper = annealed(found.log_weights, sign=-1)
    np.testing.assert_allclose(upper.log_evidence(), -np.log([4 / 3, 5.0]), atol=1e-14)
    np.testing.assert_allclose(upper.jackknife_error(), [jackknife, 0], atol=1e-14)


def test_large_numbers_neither_overflow_nor_underflow():
    for shift in (-5000.0, 5000.0):
        found = annealed(np.array([[0.0], [np.log(3.0)]]) + shift)
        assert found.log_evidence().item() == pytest.approx(np.log(2.0) + shift, abs=1e-9)
        assert found.effective_size().item() == pytest.approx(1.6)


@pytest.mark.parametrize(("spread", "agrees"), [(0.5, True), (2.0, False)])
def test_errors_against_repetition(spread, agrees):
    weights = spread * np.random.default_rng(0).normal(size=(16, 4000))
    found = annealed(weights)
    actual = found.log_evidence().std()
    delta, jackknife = (
        np.sqrt(np.mean(error**2)) for error in (found.standard_error(), found.jackknife_error())
    )
    # A standard deviation over 4000 is known to about 2 %.
    assert jackknife == pytest.approx(actual, rel=0.08)
    if agrees:
        assert delta == pytest.approx(actual, rel=0.08)
    else:
        # Effective sizes of 4 in 16: the delta method is a third too optimistic.
        assert found.effective_size().mean() == pytest.approx(4, abs=0.5)
        assert 0.5 < delta / actual < 0.8


def test_weights_of_zero_count():
    found = annealed([[0.0], [-np.inf]])
    assert found.log_evidence().item() == pytest.approx(np.log(0.5))
    assert found.effective_size().item() == 1 and found.num_failed().item() == 0
    assert found.standard_error().item() == pytest.approx(1.0)
    # Without the one that holds all the weight nothing is left.
    assert found.jackknife_error().item() == np.inf
    nothing = annealed([[-np.inf], [-np.inf]])
    assert nothing.log_evidence().item() == -np.inf and nothing.num_failed().item() == 0
    assert np.isnan(nothing.effective_size().item())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_failed_chains_are_counted_and_never_left_out(bad):
    weights = np.zeros((5, 2))
    weights[1, 0] = bad
    found = annealed(weights)
    assert found.num_failed().tolist() == [1, 0]
    for values in (
        found.log_evidence(),
        found.effective_size(),
        found.standard_error(),
        found.jackknife_error(),
    ):
        assert np.isnan(values[0]) and np.isfinite(values[1])


def test_a_single_chain_has_no_error():
    found = forward(num_chains=1, step_sizes=FIXED)
    assert np.isfinite(found.log_evidence()).all() and (found.effective_size() == 1).all()
    assert np.isnan(found.standard_error()).all() and np.isnan(found.jackknife_error()).all()


# --- what goes wrong ------------------------------------------------------------------------------


def test_moves_that_diverge_are_rejected_and_seen_in_the_acceptance():
    sizes = FIXED.copy()
    sizes[2, 1, 0] = 1e20
    found = forward(step_sizes=sizes, num_chains=400)
    assert np.isfinite(found.log_weights).all() and not found.num_failed().any()
    assert found.acceptance[2, 1, 0] == 0
    assert np.delete(found.acceptance[:, 1, 0], 2).min() > 0.1
    # The weights stay exact, with more spread.
    ratios = np.exp(found.log_weights[:, 1, 0] - TRUTH[1, 0])
    assert ratios.mean() == pytest.approx(1, abs=4 * ratios.std() / 20)


def test_a_density_that_is_no_number_beyond_a_wall_is_never_entered():
    # Chains start well inside, at the posterior's mean; ln p(x, z) is NaN where z_0 > its mean.
    start = tfp.distributions.MultivariateNormalDiag([-3.0, 0.0], [0.3, 1.0])
    plain = one_log_joint()

    def log_joint(z):
        return tf.where(z[..., 0] > 0.0, np.nan, plain(z))

    found = one_forward(num_chains=2000, num_steps=200, step_sizes=np.full(4, 0.3))
    inside = forward(
        log_joint, batch_shape=(), num_chains=2000, num_steps=200, initial=start, num_segments=4,
        step_sizes=np.full(4, 0.3),
    )  # fmt: skip
    assert np.isfinite(inside.log_weights).all()
    # ln of the posterior's mass on the allowed side, of which E w falls short.
    mean, sd = ONE.posterior_mean(ONE_X)[0, 0], np.sqrt(ONE.posterior_covariance()[0, 0])
    share = special.ndtr(-mean / sd)
    error = np.hypot(inside.jackknife_error(), found.jackknife_error())
    difference = inside.log_evidence() - found.log_evidence()
    assert difference == pytest.approx(np.log(share), abs=4 * error)
    assert error < 0.1


def test_a_datum_without_numbers_is_reported_and_leaves_the_others_alone(fixed):
    # The start is fine, and the program gives NaN for one chain of one datum.
    plain = log_joint_of(WORLDS, X)
    broken = np.zeros((8, 4, 3), np.float32)
    broken[5, 2, 1] = np.nan

    def log_joint(z):
        return plain(z) if tf.executing_eagerly() else plain(z) + broken

    found = forward(log_joint, step_sizes=FIXED)
    assert found.num_failed().sum() == found.num_failed()[2, 1] == 1
    assert np.isnan(found.log_evidence()[2, 1]) and np.isnan(found.log_evidence()).sum() == 1
    others = np.ones((4, 3), bool)
    others[2, 1] = False
    np.testing.assert_allclose(
        found.log_evidence()[others], fixed.log_evidence()[others], atol=1e-4
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_log_density_must_be_finite_where_chains_start(bad):
    x = X.copy()
    plain = log_joint_of(WORLDS, X)
    with pytest.raises(
        ValueError, match="log_joint must be finite where the chains start, but 2 of 24"
    ):
        forward(lambda z: plain(z) + np.where(np.arange(12).reshape(4, 3) == 5, np.float32(bad), 0))
    x[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="Look for NaN in observations"):
        forward(log_joint_of(WORLDS, x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_chains": 0}, "num_chains must be an integer and >= 1"),
        ({"num_steps": 0}, "num_steps must be an integer and >= 1"),
        ({"num_steps": 2.5}, "num_steps must be an integer"),
        ({"num_leapfrog_steps": 0}, "num_leapfrog_steps must be an integer and >= 1"),
        ({"num_segments": 0}, "num_segments must be an integer and >= 1"),
        ({"latent_size": 0}, "latent_size must be an integer and >= 1"),
        ({"schedule": "cosine"}, "Unknown schedule 'cosine'. Known: linear, sigmoid"),
        ({"schedule": [[0, 1]]}, "schedule must have 1 dimension"),
        ({"schedule": [0, np.nan, 1]}, "schedule must be finite"),
        ({"step_sizes": np.ones((4, 4, 3))}, r"step_sizes must have the shape .* \(5, 4, 3\)"),
        ({"step_sizes": np.zeros((5, 4, 3))}, "step_sizes must be greater than zero"),
        ({"batch_shape": (3, 4)}, "."),
        ({"dtype": tf.float64}, "."),
        (
            {"initial": tfp.distributions.MultivariateNormalDiag(np.zeros(2, np.float32))},
            r"the initial distribution must draw .* \(4, 3, 2\), but drew \(\d+, 2\)",
        ),
        (
            {"initial": tfp.distributions.Normal(np.zeros((4, 3, 2), np.float32), 1.0)},
            r"initial must give float32 of shape \[chains, \*batch\] = \(\d+, 4, 3\)",
        ),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=message):
        forward(**options)


def test_a_log_density_of_another_shape_or_type_is_refused():
    plain = log_joint_of(WORLDS, X)
    with pytest.raises(
        ValueError, match=r"= \(\d+, 4, 3\) for latents .* but gave float32 of shape"
    ):
        forward(lambda z: tf.reduce_sum(plain(z), -1))
    with pytest.raises(ValueError, match="log_joint must give float32 .* but gave float64"):
        forward(lambda z: tf.cast(plain(z), tf.float64))


@pytest.mark.parametrize(
    ("draws", "message"),
    [
        (
            np.zeros(3),
            r"posterior_draws must be \[chains, \*batch, latent\], but have shape \(3,\)",
        ),
        (np.zeros((0, 4, 3, 2)), "posterior_draws must be"),
        (np.full((2, 4, 3, 2), np.nan), "posterior_draws must be finite"),
    ],
)
def test_bad_posterior_draws_are_refused(draws, message):
    with pytest.raises(ValueError, match=message):
        annealing.reverse(log_joint_of(WORLDS, X), draws, num_steps=5, seed=0)
