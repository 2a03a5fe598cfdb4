"""Maps of states: cubic ones are found, the rest has the right spread, bad input."""

import numpy as np
import pytest

from tfp_gaps._tensorflow import tf
from tfp_gaps.book.control import state_map

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=[2, 2000, 2]) * np.array([2.0, 0.1]) + np.array([5.0, 0.0])


def cubic(x):
    first, second = x[..., 0] - 5.0, 10 * x[..., 1]
    return np.stack([first * second**2, 1.0 + first - second**3], -1)


def test_a_cubic_map_is_found():
    fitted = state_map.fit(INPUTS, cubic(INPUTS))
    np.testing.assert_allclose(fitted.explained, 1.0, atol=1e-4)
    fresh = RNG.normal(size=[2, 3, 7, 2]) * np.array([2.0, 0.1]) + np.array([5.0, 0.0])
    found = fitted(tf.constant(fresh, tf.float32), tf.constant([0, 1]))
    assert found.shape == (2, 3, 7, 2)
    # The ridge, 1e-6 of the features' mean square, and float32.
    np.testing.assert_allclose(found, cubic(fresh), atol=0.02)


def test_what_is_not_explained_is_drawn():
    noise = RNG.normal(size=[2, 2000, 2]) @ np.array([[0.5, 0.3], [0.0, 0.4]])
    fitted = state_map.fit(INPUTS, cubic(INPUTS) + noise)
    inputs = tf.repeat(tf.constant(INPUTS[:, :1], tf.float32), 5000, 1)
    drawn = fitted(inputs, tf.constant([0, 1])).numpy()
    for replica in range(2):
        found, expected = (np.cov(draws[replica].T) for draws in (drawn, noise))
        # 2,000 and 5,000 draws: relative errors of 3 % and 2 %.
        np.testing.assert_allclose(found, expected, atol=0.04)


def test_replicas_have_their_own_maps():
    outputs = INPUTS[..., :1] * np.array([1.0, -2.0])[:, np.newaxis, np.newaxis]
    fitted = state_map.fit(INPUTS, outputs)
    found = fitted(tf.constant(INPUTS, tf.float32), tf.constant([0, 1]))
    np.testing.assert_allclose(found, outputs, atol=1e-3)


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        (INPUTS, cubic(INPUTS)[:, 1:], "the shapes"),
        (INPUTS[0], cubic(INPUTS), "the shapes"),
        (INPUTS[:, :15], cubic(INPUTS[:, :15]), "10 polynomials needs twice as many"),
    ],
)
def test_bad_input(inputs, outputs, message):
    with pytest.raises(ValueError, match=message):
        state_map.fit(inputs, outputs)
