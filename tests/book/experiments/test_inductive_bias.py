"""Convolutional and other encoders on one decoder: the layer against SciPy, and the smoke run."""

import json

import numpy as np
import pytest
from scipy import signal

from tfp_gaps._tensorflow import tf
from tfp_gaps.book import results
from tfp_gaps.book.experiments import inductive_bias as bias
from tfp_gaps.networks import replica_seeds

SEEDS = [0, 1]


@pytest.fixture(scope="module")
def content():
    return json.loads(json.dumps(bias.run(scale="smoke", seeds=SEEDS)))


def by_scipy(layer, replica, image, channels):
    """Elu of a correlation in two dimensions, zero outside of the image, every second place."""
    kernel = layer.kernel.numpy()[replica].reshape(bias.KERNEL, bias.KERNEL, channels, -1)
    maps = []
    for index in range(kernel.shape[-1]):
        total = sum(
            signal.correlate2d(image[..., c], kernel[:, :, c, index], "same")
            for c in range(channels)
        )
        # An even image is padded by one before and two after: the first place is row 1.
        maps.append(total[1::2, 1::2] + layer.bias.numpy()[replica, 0, index])
    stacked = np.stack(maps, -1)
    return np.where(stacked > 0, stacked, np.expm1(stacked))


@pytest.mark.parametrize("shuffled", [False, True])
def test_convolutions_are_those_of_scipy(shuffled):
    order = np.random.default_rng(1).permutation(784) if shuffled else None
    network = bias.Convolution(
        3, activation="elu", order=order, seeds=replica_seeds(SEEDS, "convolution")
    )
    for layer in network.layers:  # biases are zero at the start, where none would be missed
        layer.bias.assign_add(0.1 * tf.ones_like(layer.bias))
    images = np.random.default_rng(0).normal(size=[2, 1, 784]).astype(np.float32)
    found = network(tf.constant(images)).numpy()
    for replica in range(2):
        pixels = images[replica, 0] if order is None else images[replica, 0][order]
        maps = pixels.reshape(28, 28, 1)
        for layer, channels in zip(network.layers, (1, bias.CHANNELS[0]), strict=True):
            maps = by_scipy(layer, replica, maps, channels)
        expected = maps.ravel() @ network.output.kernel.numpy()[replica]
        # Sums of a few hundred products in float32.
        np.testing.assert_allclose(found[replica, 0], expected, rtol=1e-3, atol=1e-5)


def test_encoders_have_as_many_parameters():
    size = bias.size_of("book")
    counts = {name: bias.count(bias.new_posterior(name, size, [0])) for name in bias.ENCODERS}
    assert counts["convolution"] == counts["shuffled"] == 208 + 3216 + 784 * 40 + 40
    for name in ("wide", "deep"):  # more rather than fewer, by three percent at most
        assert 1.0 <= counts[name] / counts["convolution"] < 1.03
    assert counts["large"] > 5.5 * counts["convolution"]


def test_every_encoder_is_trained_and_measured_on_the_same_points(content):
    for part in ("train", "test"):
        shapes = {name: np.shape(v) for name, v in content["points"][part].items()}
        assert set(shapes.values()) == {(2, 8)}
        assert set(shapes) == {*bias.ENCODERS, "best", "evidence"}
        # Bounds with 20 draws on 16 points: noise of about a nat.
        for name in bias.ENCODERS:
            assert bias.amortisation_gap(content, name, part).mean() > -1.0
    assert not np.any(list(content["diverged"].values()))
    gaps = [bias.amortisation_gap(content, name).mean() for name in bias.ENCODERS]
    assert len(set(np.round(gaps, 3))) == len(gaps)


def test_unknown_variants_and_missing_results_are_refused(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="variant"):
        bias.run(scale="smoke", seeds=[0], variant="faces")
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    with pytest.raises(results.ResultError, match="tfp-gaps run inductive_bias"):
        bias.stored()
