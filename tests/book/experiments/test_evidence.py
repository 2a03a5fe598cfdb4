"""Estimators of the evidence against Kalman filters: chosen, settled, repaired, bracketed."""

import dataclasses
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from tfp_gaps import training
from tfp_gaps._tensorflow import tf
from tfp_gaps.book.data.splits import Splits
from tfp_gaps.book.experiments import benchmark, evidence
from tfp_gaps.book.experiments.evidence import Effort
from tfp_gaps.book.experiments.sequential import Design, Fitted
from tfp_gaps.estimate import Estimate
from tfp_gaps.models.state_space import DiagonalNormal
from tfp_gaps.posteriors.look_ahead import LookAheadNetwork
from tfp_gaps.sequences import Sequences

TIME = 5


def test_two_doublings_must_move_the_mean_by_less_than_a_tenth():
    looks = []

    def evaluate(count, look):
        looks.append((count, look))
        return np.array([0.0, -6.4 / count])  # mean -3.2 / count

    # From 8 to 32 the mean moves by .3, from 16 to 64 by .15, from 32 to 128 by .075.
    found = evidence.settle(evaluate, fewest=8, most=1000)
    assert looks == [(8, 0), (16, 1), (32, 2), (64, 3), (128, 4)]
    assert found.counts == (8, 16, 32, 64, 128) and found.converged
    np.testing.assert_allclose(found.values, [0.0, -0.05])
    assert not evidence.settle(evaluate, fewest=8, most=127).converged
    assert evidence.settle(evaluate, fewest=8, most=127).counts[-1] == 64


def test_one_far_window_has_diverged_and_a_poor_bound_has_not():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=100)
    poor = reference - 30 + rng.normal(size=100)  # worse everywhere alike
    assert not evidence.has_diverged(poor, reference).any()
    close = reference + 0.1 * rng.normal(size=100)
    close[7] -= 9.0  # ninety deviations, but no ten nats
    assert not evidence.has_diverged(close, reference).any()
    close[7], close[8] = -1042.0, np.nan
    np.testing.assert_array_equal(np.flatnonzero(evidence.has_diverged(close, reference)), [7, 8])
    # It cuts one way: far above is no divergence.
    assert not evidence.has_diverged(reference + np.eye(100)[3] * 500, reference).any()


def history(losses, skipped):
    """Of a training whose validation losses, nats per sequence, are [looks, replicas]."""
    losses = np.asarray(losses, np.float64)
    steps = np.arange(len(losses))
    return training.History(steps, losses, np.asarray(skipped), 1.0, steps, losses)


def test_a_network_that_diverged_everywhere_is_seen_in_its_training():
    own = history([[9.0] * 6, [0.0] * 6], [0] * 6)
    # Better; worse, but close; far off in the end alone; never near; never finite; eight skipped.
    fresh = history(
        [
            [-2.0, 11.0, 1.0, 900.0, np.nan, -2.0],
            [-3.0, 9.9, 800.0, 10.1, np.inf, -3.0],
        ],
        [0, 0, 0, 0, 0, 8],
    )
    expected = [False, False, False, True, True]
    np.testing.assert_array_equal(evidence.has_failed(fresh, own, 800), [*expected, False])
    np.testing.assert_array_equal(evidence.has_failed(fresh, own, 799), [*expected, True])
    # Without a validation loss, its steps alone.
    blind = fresh._replace(validation_losses=np.empty([0, 6]))
    np.testing.assert_array_equal(evidence.has_failed(blind, own, 700), [False] * 5 + [True])


def test_a_model_is_lost_whose_networks_all_diverged_and_one_that_a_restart_saved_is_not():
    rows = [([0], 0), ([3, 2], 1), ([8, 0], 1), ([0], 0), ([0], 0)]
    skipped = [0, 0, 700, 8, 9]  # of 800 steps: eight are one in a hundred
    result = {
        "size": {"design": {"refit": {"num_steps": 800}}},
        "history": {"refit": {"skipped_steps": skipped}},
        "evidence": {"restarts": [{"num_diverged": row, "used": used} for row, used in rows]},
    }
    assert evidence.num_lost(result) == 2  # the second and the last
    assert evidence.num_lost(result, first=True) == 3  # and the third
    result["history"]["refit"]["skipped_steps"] = skipped[:4]
    with pytest.raises(ValueError, match="shorter"):
        evidence.num_lost(result)


def stored(values, slack, groups=(0, 0, 1, 1)):
    """Evidence as a result holds it: of two seeds, four test and three made sequences."""
    replicas = [
        {"test": {"values": row}, "slack": {"values": made}} for row, made in zip(values, slack)
    ]
    found = {"replicas": replicas, "groups": list(groups), "slack_groups": [0, 1, 2]}
    return {"evidence": found}


def test_the_difference_is_paired_and_widened_by_the_slack_of_each_side():
    rng = np.random.default_rng(0)
    partial, gain = rng.normal(size=[2, 4]) * 50, 1.0 + rng.normal(size=[2, 4])
    loose, tight = rng.uniform(2.0, 2.2, size=[2, 3]), np.full([2, 3], 0.5)
    full, baseline = stored(partial + gain, tight), stored(partial, loose)
    found = evidence.difference(full, baseline)
    alone = Estimate.from_crossed(gain, [0, 0, 1, 1])
    assert found.value == pytest.approx(alone.value)
    assert found.standard_error == pytest.approx(alone.standard_error)
    # One-sided 99 % of each seed's mean: t with two degrees of freedom is 6.965.
    limits = loose.mean(1) + 6.965 * loose.std(1, ddof=1) / 3**0.5
    assert found.slack == pytest.approx((limits.mean(), 0.5), rel=1e-4)
    low, high = alone.confidence_interval()
    assert found.confidence_interval() == pytest.approx((low - limits.mean(), high + 0.5), rel=1e-3)
    assert evidence.difference_of_bounds(full, baseline) == dataclasses.replace(found, slack=(0, 0))
    with pytest.raises(ValueError, match="or other groups"):
        evidence.difference(full, stored(partial, loose, groups=(0, 1, 1, 1)))


def test_a_difference_of_forecasts_is_widened_by_the_slack_of_their_filter():
    runs = [
        {
            "evidence": {
                "replicas": [{"filter_slack": {"values": [slack] * 3}}],
                "slack_groups": [0, 1, 2],
            }
        }
        for slack in (0.25, 1.5)
    ]
    found = evidence.widened(Estimate(2.0, 0.0), *runs, "filter_slack")
    assert found.slack == (1.5, 0.25)  # the baseline's below, the result's above
    assert found.confidence_interval() == (0.5, 2.25)


def test_slack_is_limited_over_what_the_sequences_were_made_like():
    # Two flights of three windows each, all alike in one flight: two numbers, not six.
    values = [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]
    limit = evidence.slack_limit(values, [7, 7, 7, 9, 9, 9])
    assert limit == pytest.approx(1.5 + 31.821 * 0.5, rel=1e-4)  # t of one degree at 99 %
    assert evidence.slack_limit(values) < 2.3


def test_the_filter_lies_below_the_bound_on_made_and_on_real_sequences():
    replicas = [
        {"test": {"values": [-5.0, -7.0]}, "slack": {"mean": 0.5}, "filter_slack": {"mean": 2.5}},
        {"test": {"values": [-6.0, -6.0]}, "slack": {"mean": 0.0}, "filter_slack": {"mean": 1.0}},
    ]
    result = {
        "size": {"horizon": 0, "start": 3},
        "evidence": {"replicas": replicas},
        # The third is filtered and has no measured evidence.
        "per_sequence": {"log_likelihood_filter": [[-8.0, -9.0, -99.0], [-6.0, -7.0, -99.0]]},
    }
    found = evidence.filter_below(result)
    assert found["made"].tolist() == [2.0, 1.0] and found["real"].tolist() == [2.5, 0.5]
    result["size"]["horizon"] = 2
    with pytest.raises(ValueError, match="whole sequences"):
        evidence.filter_below(result)


def test_effort_must_leave_room_for_two_doublings():
    with pytest.raises(ValueError, match="Two doublings"):
        Effort(10, 10, 10, fewest=100, most=300)


# On the linear-Gaussian chain --------------------------------------------------------------------


class Smoother:
    """q(z_t | z_{t-1}, x_{t:T}) of the chain by the backward information filter, displaced.

    Exact for `offset` 0. Where x_1 > `beyond` its mean is 30 off: it diverges on single sequences.
    """

    sample_path = LookAheadNetwork.sample_path

    def __init__(self, exact, offset=0.0, beyond=math.inf):
        parts = (exact.transition, exact.transition_cov, exact.emission, exact.emission_cov)
        self.a, self.q, self.c, self.r = (float(np.squeeze(part)) for part in parts)
        self.offset, self.beyond = offset, beyond

    def context(self, batch):
        x, rows = batch.observations, []
        precision, weighted = 0.0, tf.zeros_like(x[0])
        for t in reversed(range(x.shape[0])):
            shrink = 1.0 + self.q * precision
            precision = self.a**2 * precision / shrink + self.c**2 / self.r
            weighted = self.a * weighted / shrink + self.c * x[t] / self.r
            rows.append([precision * tf.ones_like(weighted), weighted])
        off = self.offset + 30.0 * tf.cast(x[0] > self.beyond, tf.float32)
        return tf.stack([tf.concat([*row, off], -1) for row in reversed(rows)])

    def factor(self, prior, latent, context):
        precision, weighted, off = tf.split(context, 3, axis=-1)
        variance = 1.0 / (1.0 / prior.scale**2 + precision)
        mean = variance * (prior.mean / prior.scale**2 + weighted) + off
        return DiagonalNormal(mean, tf.sqrt(variance) * tf.ones_like(mean))


@pytest.fixture(scope="module")
def world(linear_chain):
    """Sequences of the chain, and their exact evidence by TFP's Kalman filter."""
    kalman = linear_chain.kalman(TIME)
    draw = kalman.sample(400, seed=[0, 5])
    x = Sequences(draw.numpy().transpose(1, 0, 2))
    parts = [x.select(slice(0, 50)), x.select(slice(50, 200)), x.select(slice(200, 400))]
    return SimpleNamespace(
        model=linear_chain.model(),
        exact=linear_chain.exact,
        splits=Splits(*parts, "chain"),
        evidence=kalman.log_prob(draw).numpy().astype(np.float64)[200:],
        kalman=linear_chain.kalman,
    )


EFFORT = Effort(
    num_choice=100,
    num_test=200,
    num_made=400,
    fewest=64,
    most=4096,
    most_choice=2048,
    reference=4096,
)


@pytest.fixture(scope="module")
def measured(world):
    """A model whose own q is 2 standard deviations off, and with no fresh q that is better."""
    own, fresh = Smoother(world.exact, offset=1.0), Smoother(world.exact, offset=-1.5)
    return evidence.measure(
        world.model, own, fresh, world.splits, EFFORT, seed=1, filter_steps=3, filter_particles=64
    )


def test_what_stands_for_a_model_is_its_evidence(world, measured):
    found = np.array(measured["test"]["values"])
    missing = world.evidence - found
    # What settled within .1 nat lies at most about that below; never above, beyond its noise.
    error = missing.std(ddof=1) / math.sqrt(len(missing))
    assert measured["test"]["converged"]
    assert -3 * error < missing.mean() < 0.15
    # Of one q that is off the ELBO is far below (a nat and more a step), and not chosen.
    means = {name: entry["mean"] for name, entry in measured["validation"].items()}
    assert measured["estimator"] == max(means, key=means.get) != "elbo"
    assert means["elbo"] < max(means.values()) - 2
    # Independent of the other: kalman - bootstrap is its own slack.
    assert abs(np.mean(world.evidence - measured["bootstrap"]["values"])) < 0.15


def test_slack_holds_what_is_missing(world, measured):
    missing = world.evidence - measured["test"]["values"]
    slack = np.array(measured["slack"]["values"])
    assert len(slack) == EFFORT.num_made // 2
    error = math.hypot(missing.std(), slack.std()) / math.sqrt(len(missing))
    assert slack.mean() > missing.mean() - 3 * error
    assert 0 < measured["slack"]["upper_limit"] < 0.4
    assert measured["slack"]["mean"] < measured["slack"]["upper_limit"]
    # The forecast's filter has 64 particles over three steps, and more slack.
    assert measured["filter_slack"]["particles"] == 64
    assert 0.0 < measured["filter_slack"]["mean"] < 0.3


def measure_made_up(world, monkeypatch, candidates):
    """`evidence.measure` with bounds that are given: {name: (on validation, on test)}."""
    validation = world.splits.validation.observations

    def candidate(levels):
        def bound(sequences, count, seed):
            x = sequences.observations
            known = x.shape == validation.shape and np.array_equal(x, validation)
            return np.broadcast_to(levels[0 if known else 1], [len(sequences)])

        return bound

    made_up = {name: candidate(levels) for name, levels in candidates.items()}
    monkeypatch.setattr(evidence, "lower_bounds", lambda *_: made_up)
    nothing = SimpleNamespace(slack=lambda *_, **__: {})
    monkeypatch.setattr(evidence, "_Above", lambda *_: nothing)
    effort = Effort(150, 200, 8, fewest=2, most=8, most_choice=8)
    return evidence.measure(world.model, None, None, world.splits, effort, seed=0)


def test_the_estimator_is_chosen_on_validation_sequences(world, monkeypatch):
    candidates = {"bootstrap": (-10.0, -10.0), "smc": (-1.0, -15.0), "iwae": (-5.0, 0.0)}
    found = measure_made_up(world, monkeypatch, candidates)
    assert found["estimator"] == "smc"
    assert found["test"]["values"] == [-15.0] * 200
    assert found["validation"]["iwae"]["mean"] == -5.0


def test_what_diverged_is_never_averaged_in(world, monkeypatch):
    poor = np.full(200, -1.0)
    poor[[3, 8]] = -1042.0, np.nan
    candidates = {"bootstrap": (-10.0, -9.0), "smc": (-1.0, poor)}
    found = measure_made_up(world, monkeypatch, candidates)
    assert found["estimator"] == "smc" and found["test"]["num_diverged"] == 2
    values = np.array(found["test"]["values"])
    np.testing.assert_array_equal(values[[3, 8]], -9.0)
    assert np.all(np.delete(values, [3, 8]) == -1.0)
    json.dumps(found, allow_nan=False)


def test_there_must_be_validation_sequences(world):
    none = world.splits.validation.first(0)
    splits = Splits(world.splits.train, none, world.splits.test, "none held out")
    with pytest.raises(ValueError, match="at least 2, but are 0"):
        evidence.measure(world.model, None, None, splits, EFFORT, seed=0)


# Networks that diverge ---------------------------------------------------------------------------

BEYOND = 3.0
"""Of a scale of sqrt(3): the first value of some four sequences in a hundred."""


def find(world, fresh, num_restarts, monkeypatch, other=None, skipped=(0, 0)):
    """Restarts of one replica; `skipped` steps of four, of the first network and of the other."""
    trained = []
    first, second = (history([[0.0]], [count]) for count in skipped)

    def fit_network(model, *_, **options):
        trained.append(options)
        return Fitted(model, other, second)

    monkeypatch.setattr(benchmark, "fit_network", fit_network)
    refit = training.Settings(4, 4)
    size = benchmark.Size(
        design=Design(1, 4, "normal", refit, refit),
        num_bound=1, num_iwae=1, num_samples=1, num_filter=1, num_particles=1, start=1,
        effort=Effort(100, 200, 8, fewest=32, most=256, most_choice=256, num_restarts=num_restarts),
    )  # fmt: skip
    joint = Fitted(world.model, Smoother(world.exact, offset=1.5), history([[0.0]], [0]))
    found = benchmark.find_evidence(
        joint, Fitted(world.model, fresh, first), world.splits, size, seeds=[3]
    )
    return found, trained


def test_a_network_that_diverges_on_single_sequences_is_trained_again(world, monkeypatch):
    poor = Smoother(world.exact, beyond=BEYOND)
    validation = world.splits.validation.observations[0, :100, 0]
    count = int(np.sum(validation > BEYOND))
    assert 0 < count < 20
    good = Smoother(world.exact)
    monkeypatch.setattr(evidence, "measure", lambda model, own, fresh, *_, **__: fresh)
    found, trained = find(world, poor, 2, monkeypatch, other=good)
    assert found["restarts"] == [{"num_diverged": [count, 0], "used": 1}]
    assert [(o["seeds"], o["limit"]) for o in trained] == [([1003], 5.0)]
    # And the model is measured with the one that did not.
    assert [used.beyond for used in found["replicas"]] == [good.beyond]


def test_a_network_that_diverged_everywhere_is_trained_again(world, monkeypatch):
    # Far below the truth on every sequence alike, which no comparison among them shows.
    off, good = Smoother(world.exact, offset=40.0), Smoother(world.exact)
    monkeypatch.setattr(evidence, "measure", lambda model, own, fresh, *_, **__: fresh)
    found, _ = find(world, off, 2, monkeypatch, other=good)
    assert found["restarts"] == [{"num_diverged": [0], "used": 0}]
    found, trained = find(world, off, 2, monkeypatch, other=good, skipped=(3, 0))
    assert found["restarts"] == [{"num_diverged": [100, 0], "used": 1}] and len(trained) == 1
    assert found["replicas"][0].offset == good.offset
    # One that fails as well is no better: the first stays, and the count says what it is.
    found, trained = find(world, off, 2, monkeypatch, other=good, skipped=(3, 3))
    assert found["restarts"] == [{"num_diverged": [100, 100, 100], "used": 0}]
    assert len(trained) == 2 and found["replicas"][0].offset == off.offset


def test_choosing_ends_before_measuring(world, monkeypatch):
    counts = {"choice": [], "test": []}

    def bound(sequences, count, seed):
        part = "test" if len(sequences) == 200 else "choice"
        counts[part].append(count)
        return np.full(len(sequences), -1000.0 / count)  # never settles

    monkeypatch.setattr(evidence, "lower_bounds", lambda *_: {"bootstrap": bound})
    monkeypatch.setattr(evidence, "_Above", lambda *_: SimpleNamespace(slack=lambda *_, **__: {}))
    effort = Effort(150, 200, 8, fewest=2, most=64, most_choice=16, reference=5)
    found = evidence.measure(world.model, None, None, world.splits, effort, seed=0)
    assert counts["choice"] == [2, 4, 8, 16]
    # The last three counts again, on to the limit; and once for the reference.
    assert counts["test"] == [4, 8, 16, 32, 64, 5]
    assert not found["test"]["converged"] and found["bootstrap"]["count"] == 5
