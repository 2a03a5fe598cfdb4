"""Bounds against the exact evidence of a linear-Gaussian chain."""

import math

import numpy as np
import pytest

from tfp_gaps import bounds
from tfp_gaps._tensorflow import tf
from tfp_gaps.networks import replica_seeds
from tfp_gaps.posteriors.conditions import FULL, LookAhead
from tfp_gaps.posteriors.look_ahead import LookAheadNetwork
from tfp_gaps.sequences import as_sequences

TIME, SEQUENCES = 6, 64


@pytest.fixture(scope="module")
def world(linear_chain):
    """Model, an untrained partial q, sequences and their exact log-likelihood by TFP's Kalman
    filter."""
    kalman = linear_chain.kalman(TIME)
    x = kalman.sample(SEQUENCES, seed=[0, 1])
    posterior = LookAheadNetwork(
        conditions=LookAhead(0),
        observation_size=1,
        latent_size=1,
        hidden_size=8,
        seeds=replica_seeds([0], "network"),
    )
    # Wider than the posterior (sd 1.3 against 0.6), so that importance weights have a variance.
    posterior._output.bias.assign([[[0.0, 2.0]]])
    evidence = kalman.log_prob(x).numpy()
    return linear_chain.model(), posterior, x.numpy().transpose(1, 0, 2), evidence


@pytest.mark.parametrize("num_samples", [1, 50])
def test_exponential_of_the_bound_is_unbiased(world, num_samples):
    # E exp(IWAE-K) = p(x) for any q and any K: its ratio to the exact p(x) has mean one, here over
    # sequences and 2000 paths of each; 4 standard errors over repetitions.
    model, posterior, x, evidence = world
    repetitions = 2000 // num_samples
    bound = bounds.iwae(
        model, posterior, x, num_samples=num_samples, seed=0, repetitions=repetitions
    )
    ratios = np.exp(bound.values[:, 0] - evidence).mean(1)
    error = ratios.std(ddof=1) / math.sqrt(repetitions)
    assert error < 0.05
    assert abs(ratios.mean() - 1.0) < 4 * error


def test_bounds_are_ordered_below_the_evidence(world):
    model, partial, x, evidence = world
    posterior = partial.with_conditions(FULL)
    elbo = bounds.elbo(model, posterior, x, seed=0, repetitions=50).bound
    gaps = [float(np.mean(evidence - elbo.per_sequence()[0]))]
    for k in (10, 100, 3000):
        bound = bounds.iwae(model, posterior, x, num_samples=k, seed=0)
        gaps.append(float(np.mean(evidence - bound.per_sequence()[0])))
    assert gaps[0] > gaps[1] > gaps[2] > gaps[3]
    # IWAE-K is biased by about var(w) / 2K: with 3000 paths a hundredth of a nat.
    assert abs(gaps[3]) < 0.05


def test_one_path_iwae_has_the_mean_of_the_elbo(world):
    model, partial, x, _ = world
    posterior = partial.with_conditions(LookAhead(1))
    elbo = bounds.elbo(model, posterior, x, seed=0, repetitions=400).bound
    one = bounds.iwae(model, posterior, x, num_samples=1, seed=1, repetitions=400)
    difference = elbo.values[:, 0].mean() - one.values[:, 0].mean()
    error = math.hypot(elbo.monte_carlo_error(), one.monte_carlo_error())
    assert abs(difference) < 4 * error
    # Summing the divergence exactly in each step is worth its trouble: less noise, same mean.
    assert elbo.monte_carlo_error() < one.monte_carlo_error()


def test_profile_adds_up_and_batches_do_not_matter(world):
    model, posterior, x, _ = world
    whole = bounds.elbo(model, posterior, x, seed=0, repetitions=2)
    total = (whole.log_likelihood - whole.divergence).sum(0)
    np.testing.assert_allclose(whole.bound.per_sequence(), total, atol=1e-9)
    assert np.all(whole.divergence >= 0)
    parts = bounds.elbo(model, posterior, x, seed=0, repetitions=200, batch_size=17)
    same = bounds.elbo(model, posterior, x, seed=5, repetitions=200)
    error = math.hypot(parts.bound.monte_carlo_error(), same.bound.monte_carlo_error())
    assert abs(parts.bound.estimate().value - same.bound.estimate().value) < 4 * error


def test_monte_carlo_error_is_the_spread_of_repetitions():
    rng = np.random.default_rng(0)
    bound = bounds.Bound(rng.normal(size=[500, 1, 40]) + np.arange(40))
    # 500 repetitions of a mean of 40 standard normals: sd of the mean 1 / sqrt(20000), known to
    # 1 / sqrt(2 * 499) = 3 %; 4 of those.
    assert bound.monte_carlo_error() == pytest.approx(1 / math.sqrt(20_000), rel=0.13)
    # Over data points the spread of 0..39 dominates: sd 11.7 / sqrt(40).
    assert bound.estimate().standard_error == pytest.approx(11.69 / math.sqrt(40), rel=0.02)
    with pytest.raises(ValueError, match="at least 2 repetitions"):
        bounds.Bound(bound.values[:1]).monte_carlo_error()


def test_log_mean_exp_does_not_overflow():
    values = tf.constant([[1000.0, -1000.0], [1000.0, -1000.0]])
    np.testing.assert_allclose(bounds.log_mean_exp(values), [1000.0, -1000.0], rtol=1e-6)
    halves = tf.constant([0.0, math.log(3.0)])
    np.testing.assert_allclose(bounds.log_mean_exp(halves), math.log(2.0), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_samples": 0}, "num_samples must be an integer and >= 1"),
        ({"repetitions": 0}, "repetitions"),
        ({"observations": np.zeros([TIME, 4])}, "time, sequences, channels"),
        ({"observations": np.full([TIME, 4, 1], np.nan)}, "NaN"),
    ],
)
def test_bad_input(world, change, message):
    model, posterior, x, _ = world
    options = {"observations": x, "num_samples": 2, "seed": 0} | change
    with pytest.raises(ValueError, match=message):
        bounds.iwae(model, posterior, options.pop("observations"), **options)


def test_every_replica_is_given_every_sequence():
    x = np.arange(10.0).reshape(2, 5, 1)
    parts = list(bounds.batches(as_sequences(x), 3, 2))
    assert [tuple(part.observations.shape) for part in parts] == [
        (2, 3, 2, 1),
        (2, 3, 2, 1),
        (2, 3, 1, 1),
    ]
    together = np.concatenate([part.observations.numpy() for part in parts], 2)
    for replica in range(3):
        np.testing.assert_array_equal(together[:, replica], x)


def test_one_repetition_unless_more_are_asked_for(world):
    model, posterior, x, _ = world
    assert bounds.iwae(model, posterior, x, num_samples=2, seed=0).values.shape == (1, 1, 64)
    assert bounds.elbo(model, posterior, x, seed=0).bound.values.shape == (1, 1, 64)


def test_the_monte_carlo_error_is_that_of_the_mean_over_repetitions():
    bound = bounds.Bound(np.array([[[1.0, 3.0]], [[2.0, 6.0]]]))
    # Means 2 and 4: their standard deviation is the root of two, and there are two of them.
    assert bound.monte_carlo_error() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="at least 2 repetitions"):
        bounds.Bound(bound.values[:1]).monte_carlo_error()


@pytest.mark.parametrize(("num_samples", "most"), [(10, 200), (300, 300), (1601, 534)])
def test_no_more_paths_at_once_than_allowed(world, monkeypatch, num_samples, most):
    # What is at once in memory is what the documentation promises: 200, or 800 of one sequence.
    model, posterior, x, _ = world
    paths, weights = [], bounds.importance_log_weights

    def watched(model, posterior, batch, noise):
        paths.append(noise.shape[2])
        return weights(model, posterior, batch, noise)

    monkeypatch.setattr(bounds, "importance_log_weights", watched)
    options = {"num_samples": num_samples, "seed": 0}
    bound = bounds.iwae(model, posterior, x[:, :25], paths_at_once=200, **options)
    assert max(paths) == most and bound.values.shape == (1, 1, 25)
    if num_samples > 200:  # one sequence at a time, in parts or not, from the same draws
        whole = bounds.iwae(model, posterior, x[:, :25], paths_at_once=num_samples, **options)
        # Float32 sums over six steps, in products of other sizes.
        np.testing.assert_allclose(bound.values, whole.values, atol=1e-5)


def test_an_elbo_needs_a_repetition(world):
    model, posterior, x, _ = world
    with pytest.raises(ValueError, match="repetitions must be an integer and >= 1"):
        bounds.elbo(model, posterior, x, seed=0, repetitions=0)
