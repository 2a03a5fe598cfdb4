"""Training with what it is given: masks, warm-up, validation data, and a known end."""

import math

import numpy as np
import pytest

from tfp_gaps._tensorflow import tf
from tfp_gaps.data.sequences import Sequences, Splits
from tfp_gaps.exact.linear_gaussian import LinearGaussian
from tfp_gaps.experiments import sequential
from tfp_gaps.experiments.sequential import Design
from tfp_gaps.inference.look_ahead import Path
from tfp_gaps.models.state_space import LinearGaussianStateSpace
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

    def context(self, observations, *, lookahead, controls=None, mask=None):
        return observations

    def sample_path(self, model, context, noise, *, controls=None):
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
    fitted = sequential.fit(
        model, network, splits, settings, lookahead=0, seeds=[0], learn_model=False
    )
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


def test_the_warm_up_of_a_design_reaches_joint_training():
    # The same first step from the same initial values; the weight of the divergence is 1 or 1/4.
    # An untrained q is not the prior: lost, the warm-up would leave the two losses equal.
    x = np.random.default_rng(0).normal(size=[TIME, COUNT, 2])
    splits = Splits(*[Sequences(x)] * 3, "noise")

    def first_loss(num_warmup):
        joint = Settings(1, 8, kl_warmup_steps=num_warmup, **OPTIONS)
        design = Design(2, 4, "normal", joint, Settings(2, 8, **OPTIONS))
        return sequential.fit_jointly(splits, design, lookahead=1, seeds=[0]).history.losses[0, 0]

    assert first_loss(1) - first_loss(4) > 0.1
