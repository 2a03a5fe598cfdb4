"""The amortised posterior: what it sees, and that it is one network for all data."""

import numpy as np
import pytest

from tfp_gaps._tensorflow import tf
from tfp_gaps.networks import replica_seeds
from tfp_gaps.posteriors import families
from tfp_gaps.posteriors.encoder import Posterior

PIXELS = 6
VISIBLE = np.array([1, 0, 1, 1, 0, 0])


def build(name="factorised", seeds=(0,), **options):
    family = families.make(name, 2)
    options = {"observation_size": PIXELS, "hidden": (5,)} | options
    return Posterior(family, **options, seeds=replica_seeds(seeds, "posterior"))


def images(num_replicas=1, count=4):
    shape = [num_replicas, count, PIXELS]
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def noise(posterior, num_replicas=1, samples=3, count=4):
    shape = [samples, num_replicas, count, posterior.family.num_noise]
    return tf.constant(np.random.default_rng(1).normal(size=shape), tf.float32)


@pytest.mark.parametrize("name", families.NAMES)
def test_invisible_pixels_change_nothing_and_visible_ones_do(name):
    posterior, e = build(name, visible=VISIBLE), noise(build(name))
    expected = posterior.draw(images(), e)
    for pixel, visible in enumerate(VISIBLE):
        x = images()
        x[..., pixel] += 3.0
        outputs = posterior.outputs(x).numpy()
        drawn = posterior.draw(x, e)
        if visible:
            assert np.abs(outputs - posterior.outputs(images())).max(axis=(0, 2)).min() > 1e-4
            assert np.abs(drawn.latents - expected.latents).max() > 1e-4
        else:
            np.testing.assert_array_equal(outputs, posterior.outputs(images()))
            np.testing.assert_array_equal(drawn.latents, expected.latents)
            np.testing.assert_array_equal(drawn.log_density, expected.log_density)


def test_all_visible_is_the_posterior_without_a_mask():
    np.testing.assert_array_equal(
        build(visible=np.ones(PIXELS)).outputs(images()), build().outputs(images())
    )


def test_without_hidden_layers_it_is_affine():
    posterior, x = build(hidden=()), images()
    kernel, bias = (
        v.numpy()[0] for v in (posterior.encoder.output.kernel, posterior.encoder.output.bias)
    )
    np.testing.assert_allclose(posterior.outputs(x)[0], x[0] @ kernel + bias, atol=1e-6)


@pytest.mark.parametrize("name", ["factorised", "auxiliary flow"])
def test_replicas_are_separate_posteriors_of_the_same_data(name):
    both = build(name, seeds=[3, 8])
    e = noise(both, num_replicas=2)
    drawn = both.draw(images(), e)  # data for all replicas alike
    repeated = both.draw(np.repeat(images(), 2, axis=0), e)
    np.testing.assert_array_equal(repeated.latents, drawn.latents)
    for r, seed in enumerate([3, 8]):
        alone = build(name, seeds=[seed]).draw(images(), e[:, r : r + 1])
        np.testing.assert_allclose(alone.latents[:, 0], drawn.latents[:, r], atol=1e-5)
        np.testing.assert_allclose(alone.log_density[:, 0], drawn.log_density[:, r], atol=1e-5)
    assert np.abs(both.outputs(images())[0] - both.outputs(images())[1]).max() > 1e-3


@pytest.mark.parametrize("name", families.NAMES)
def test_draws_are_those_of_its_parameters(name):
    posterior = build(name)
    own = posterior.parameters(images())
    e = noise(posterior)
    assert not own.per_datum and own.outputs.shape == [1, 4, posterior.family.num_outputs]
    expected = families.draw(posterior.family, own, e)
    np.testing.assert_array_equal(posterior.draw(images(), e).latents, expected.latents)


def test_the_weights_of_a_flow_are_trained_with_the_encoder():
    posterior = build("affine flow")
    trained = {id(variable) for variable in posterior.trainable_variables}
    assert {id(weight) for weight in posterior.weights} <= trained
    with tf.GradientTape() as tape:
        drawn = posterior.draw(images(), noise(posterior))
        total = tf.reduce_sum(drawn.latents**2)
    found = tape.gradient(total, posterior.weights)
    # The last layers start at zero, so the layers before them have no gradient yet.
    assert all(gradient is not None for gradient in found)
    assert np.abs(found[3]).max() > 1e-3


@pytest.mark.parametrize(
    ("visible", "message"),
    [
        (np.ones(5), "a 0 or a 1 for each of 6 pixels, but has shape .5,."),
        ([1, 0, 0.5, 1, 1, 1], "a 0 or a 1 for each of 6 pixels"),
        ([1, 0, 2, 1, 1, 1], "values from 0 to 2"),
        ([1, 0, np.nan, 1, 1, 1], "visible must be finite"),
        (np.ones([2, 3]), "visible must have 1 dimension"),
    ],
)
def test_bad_masks_are_refused(visible, message):
    with pytest.raises(ValueError, match=message):
        build(visible=visible)
