"""The digits experiment at smoke scale: structure and fairness."""

import dataclasses

import numpy as np
import pytest

from tfp_gaps.book.experiments import benchmark, digits
from tfp_gaps.book.experiments.sequential import fit_jointly, fit_network
from tfp_gaps.posteriors.conditions import FULL, LookAhead

SIZE = digits.SIZES["smoke"]
PARTIAL = LookAhead(0)


@pytest.fixture(scope="module")
def splits():
    return digits.load("smoke")


@pytest.fixture(scope="module")
def fitted(splits):
    return {c: fit_jointly(splits, SIZE.design, conditions=c, seeds=[0]) for c in (PARTIAL, FULL)}


def test_all_conditions_have_the_same_parameters_and_start(fitted, splits):
    assert benchmark.count_parameters(fitted[PARTIAL]) == benchmark.count_parameters(fitted[FULL])
    # Same initial weights: with one step of zero effect the two would be equal; after training
    # they differ, because q saw something else.
    short = dataclasses.replace(
        SIZE.design, joint=dataclasses.replace(SIZE.design.joint, num_steps=1, learning_rate=1e-12)
    )
    starts = [fit_jointly(splits, short, conditions=c, seeds=[0]) for c in fitted]
    for a, b in zip(*(s.network.trainable_variables for s in starts), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)


def test_training_improves_the_bound(fitted):
    for fit in fitted.values():
        # Without a model a pixel costs ln 2: 28 * 28 * 0.693 = 543 nats at the start.
        assert fit.history.losses[0, 0] > 480
        assert fit.history.losses[-1, 0] < 450
        assert not fit.history.diverged.any()


def test_refitting_leaves_the_model_alone(fitted, splits):
    model = fitted[PARTIAL].model
    before = [variable.numpy().copy() for variable in model.trainable_variables]
    refit = fit_network(model, splits, SIZE.design, conditions=FULL, seeds=[0])
    assert refit.model is model and refit.network.conditions == FULL
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_completions_keep_the_upper_half(fitted, splits):
    upper = splits.test.observations[:14, :3]
    images = digits.complete(
        fitted[PARTIAL].model, upper, num_completions=4, num_particles=20, seed=0
    )
    assert images.shape == (4, 1, 3, 28, 28)
    np.testing.assert_array_equal(images[2, 0, :, :14], upper.transpose(1, 0, 2))
    assert np.all((images >= 0) & (images <= 1))
    assert digits.sample(fitted[PARTIAL].model, num_images=5, seed=0).shape == (1, 5, 28, 28)
