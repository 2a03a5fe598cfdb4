"""Training with what it is given: masks, warm-up, validation data, and a known end."""

import math

import numpy as np
import pytest

from tfp_gaps._tensorflow import tf
from tfp_gaps.book.data.splits import Splits
from tfp_gaps.book.experiments import sequential
from tfp_gaps.book.experiments.sequential import Design
from tfp_gaps.exact.linear_gaussian import LinearGaussian
from tfp_gaps.models.state_space import DiagonalNormal, LinearGaussianStateSpace, StateSpace
from tfp_gaps.networks import replica_seeds
from tfp_gaps.posteriors.conditions import FULL, LookAhead
from tfp_gaps.posteriors.look_ahead import LookAheadNetwork, Path
from tfp_gaps.sequences import Batch, Sequences
from tfp_gaps.sequential import fitting
from tfp_gaps.training import Settings

TIME, COUNT = 4, 16
HALF_LOG = 0.5 * math.log(2 * math.pi)
OPTIONS = {"num_shards": 1, "jit_compile": False}


class Level(tf.Module):
    """A q whose draws all lie at one learned level w, each step at a given cost.

    Of a model with x_t ~ N(z_t, 1) the loss is sum_t kl_weight * cost + (ln 2 pi + (x_t - w)^2) / 2
    over what was observed.
    """

    def __init__(self, cost=0.0):
        super().__init__()
        self.level = tf.Variable(tf.zeros([1, 1, 1]))
        self.cost = cost

    def context(self, batch):
        return batch.observations

    def sample_path(self, model, context, noise, *, controls=None):
        assert noise.shape[:3] == context.shape[:3]
        cost = tf.fill(noise.shape[:3], self.cost)
        return Path(self.level + tf.zeros_like(noise), cost, -cost)


@pytest.fixture(scope="module")
def model():
    return LinearGaussianStateSpace(LinearGaussian(0.9, 0.5, 1.0, 1.0, 2.0))


def constant(level, *, missing=False):
    """Sequences at a level, every other step of them missing."""
    x = np.full([TIME, COUNT, 1], level, np.float32)
    mask = np.ones(x.shape, bool)
    mask[::2] = not missing
    return Sequences(x, mask=mask)


def fit_level(model, splits, settings, **options):
    network = Level(**options)
    fitted = sequential.fit(model, network, splits, settings, seeds=[0], learn_model=False)
    return network.level.numpy().item(), fitted.history


def test_missing_values_do_not_count_in_training(model):
    # What was observed lies at 2. Zeros in the place of what was not would pull w to 1, and add to
    # the loss.
    splits = Splits(constant(2.0, missing=True), constant(0.0), constant(0.0), "levels")
    settings = Settings(150, 8, learning_rate=0.1, steps_per_call=50, **OPTIONS)
    level, history = fit_level(model, splits, settings)
    # Adam at the end of a cosine, in float32.
    assert level == pytest.approx(2.0, abs=0.01)
    assert history.losses[-1, 0] == pytest.approx(TIME / 2 * HALF_LOG, abs=0.01)


def test_parameters_are_chosen_on_the_validation_part(model):
    # On its way from 0 to the training level 3 w passes the validation level 1, and never comes
    # near the test level -2. Half of the validation values are missing: counted as zeros they
    # would choose w = 1/2.
    splits = Splits(constant(3.0), constant(1.0, missing=True), constant(-2.0), "levels")
    settings = Settings(
        60, 8, learning_rate=0.1, steps_per_call=1, validate_every=1, clip_norm=1.0, **OPTIONS
    )
    level, history = fit_level(model, splits, settings)
    # Steps of at most 0.1, hence w to 0.05.
    assert level == pytest.approx(1.0, abs=0.05)
    assert history.validation_losses.min() == pytest.approx(TIME / 2 * HALF_LOG, abs=0.01)
    assert 5 < history.best_steps[0] < 30


def test_the_warm_up_of_the_settings_weighs_the_divergence(model):
    # Observations at w = 0 have no gradient: the cost alone changes, by its weight.
    splits = Splits(*[constant(0.0)] * 3, "zeros")
    for num_warmup, weights in ((0, [1, 1, 1, 1, 1]), (4, [0.25, 0.5, 0.75, 1, 1])):
        settings = Settings(5, 8, kl_warmup_steps=num_warmup, steps_per_call=1, **OPTIONS)
        _, history = fit_level(model, splits, settings, cost=3.0)
        expected = TIME * (HALF_LOG + 3.0 * np.array(weights))
        np.testing.assert_allclose(history.losses[:, 0], expected, rtol=1e-5)


def test_the_validation_loss_weighs_the_divergence_by_one_for_every_replica():
    # At w = 0 zeros cost TIME (ln 2 pi / 2 + cost), whatever the noise.
    model = LinearGaussianStateSpace(LinearGaussian(0.9, 0.5, 1.0, 1.0, 2.0), num_replicas=2)
    loss = fitting.validation_loss(model, Level(cost=3.0), constant(0.0))
    np.testing.assert_allclose(loss(), [TIME * (HALF_LOG + 3.0)] * 2, rtol=1e-5)


# With networks that learn -------------------------------------------------------------------------

NOISE = Sequences(np.random.default_rng(0).normal(size=[TIME, COUNT, 2]))
SPLITS = Splits(*[NOISE] * 3, "noise")


def design(num_warmup):
    joint = Settings(1, 8, kl_warmup_steps=num_warmup, learning_rate=0.01, **OPTIONS)
    return Design(2, 4, "normal", joint, Settings(2, 8, learning_rate=0.01, **OPTIONS))


@pytest.fixture(scope="module")
def fitted():
    return sequential.fit_jointly(SPLITS, design(4), conditions=LookAhead(1), seeds=[0])


def test_the_warm_up_of_a_design_reaches_joint_training(fitted):
    # The same first step from the same initial values; the weight of the divergence is 1 or 1/4.
    # An untrained q is not the prior: lost, the warm-up would leave the two losses equal.
    other = sequential.fit_jointly(SPLITS, design(1), conditions=LookAhead(1), seeds=[0])
    assert other.history.losses[0, 0] - fitted.history.losses[0, 0] > 0.1


def test_joint_training_moves_the_model_and_a_fresh_network_leaves_it_alone(fitted):
    start = StateSpace(
        **sequential.sizes(SPLITS, design(4)),
        emission="normal",
        seeds=replica_seeds([0], "initial model"),
    )
    values = [variable.numpy().copy() for variable in fitted.model.trainable_variables]
    for value, variable in zip(values, start.trainable_variables, strict=True):
        # Adam's first step is the learning rate wherever there is a gradient.
        assert np.abs(value - variable.numpy()).max() == pytest.approx(0.01, rel=0.01)
    refit = sequential.fit_network(fitted.model, SPLITS, design(4), conditions=FULL, seeds=[0])
    assert refit.model is fitted.model and refit.network is not fitted.network
    for value, variable in zip(values, fitted.model.trainable_variables, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert (fitted.history.steps[-1], refit.history.steps[-1]) == (1, 2)
    assert (fitted.network.conditions, refit.network.conditions) == (LookAhead(1), FULL)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_network_is_told_of_missing_values_wherever_there_are_any(part, monkeypatch):
    parts = {"train": NOISE, "validation": NOISE, "test": NOISE}
    monkeypatch.setattr(sequential, "fit", lambda model, network, *_, **__: network)

    def network(parts):
        splits = Splits(**parts, source="noise")
        return sequential.fit_network(None, splits, design(1), conditions=LookAhead(0), seeds=[0])

    assert not network(parts).masked
    missing = Sequences(NOISE.observations, mask=NOISE.observations > 0)
    assert network(parts | {part: missing}).masked


def fresh_network(monkeypatch, **options):
    """A fresh network under `LookAhead(1)` before its training, and the fingerprint of the run."""
    monkeypatch.setattr(sequential, "fit", lambda _, network, *__, **kept: (network, kept))
    options = {"conditions": LookAhead(1), "seeds": [0]} | options
    network, kept = sequential.fit_network(None, SPLITS, design(1), **options)
    return network, kept["fingerprint"]


def test_a_network_starts_from_the_values_of_another_under_the_same_conditions(monkeypatch):
    start, _ = fresh_network(monkeypatch, seeds=[1])
    values = [variable.numpy() for variable in start.trainable_variables]
    found, _ = fresh_network(monkeypatch, start=start)
    afresh, _ = fresh_network(monkeypatch)
    assert found is not start
    for variable, value in zip(found.trainable_variables, values, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert any(
        (a.numpy() != b).any() for a, b in zip(afresh.trainable_variables, values, strict=True)
    )
    with pytest.raises(ValueError, match="Leave start out"):
        fresh_network(monkeypatch, start=start, conditions=FULL)


def test_runs_that_start_or_are_limited_differently_share_no_checkpoint(monkeypatch):
    start, _ = fresh_network(monkeypatch)
    prints = {
        fresh_network(monkeypatch, start=network, limit=limit)[1]
        for network in (None, start)
        for limit in (None, 2.0, 5.0)
    }
    assert len(prints) == 6


def test_sizes_count_the_channels_of_the_controls():
    driven = Sequences(NOISE.observations, controls=np.zeros([TIME, COUNT, 3]))
    found = sequential.sizes(Splits(*[driven] * 3, "driven"), design(1))
    assert (found["observation_size"], found["control_size"]) == (2, 3)
    assert sequential.sizes(SPLITS, design(1))["control_size"] == 0


class Follower:
    """q(z_t | .) = N(x_t, 0.1^2) under full conditions, and around zero under any other."""

    def __init__(self, conditions):
        self.conditions = conditions

    sample_path = LookAheadNetwork.sample_path

    def context(self, batch):
        seen = batch.observations
        return seen if self.conditions == FULL else tf.zeros_like(seen)

    def factor(self, prior, latent, context):
        return DiagonalNormal(context, 0.1 * tf.ones_like(context))


def test_paths_are_drawn_for_each_sequence_from_its_own_q(linear_chain):
    levels = np.arange(TIME * 2 * 200.0, dtype=np.float32).reshape(TIME, 2, 200, 1)
    model, seeds = linear_chain.model(2), replica_seeds([0, 1], "draw")
    paths, others = (
        sequential.draw_paths(
            sequential.Fitted(model, Follower(conditions), None), Batch(levels), seeds
        ).numpy()
        for conditions in (FULL, LookAhead(0))
    )
    noise = (paths - levels) / 0.1
    # 1600 draws: four errors of the mean and of the standard deviation, and some float32.
    assert abs(noise.mean()) < 4 / 40 and abs(noise.std() - 1) < 4 / math.sqrt(3200)
    assert np.abs(others).max() < 1.0
    flat = (others / 0.1).reshape(TIME * 2, 200)
    # Every step and replica has its own: correlations of 200 pairs vary by 1 / sqrt(200).
    assert np.abs(np.corrcoef(flat) - np.eye(TIME * 2)).max() < 4.5 / math.sqrt(200)
