"""One decoder, several encoders: the smoke run, and what is read from it."""

import json

import numpy as np
import pytest

from tfp_gaps.book import results
from tfp_gaps.book.experiments import encoders


@pytest.fixture(scope="module")
def content():
    found = encoders.run(scale="smoke", seeds=[0, 1], variant="digits")
    return json.loads(json.dumps(found))


def test_every_posterior_is_measured_on_the_same_points(content):
    points = content["points"]
    for part in ("train", "test"):
        shapes = {name: np.shape(values) for name, values in points[part].items()}
        assert set(shapes.values()) == {(2, 8)}
        assert len(shapes) == len(encoders.ENCODERS) * len(encoders.FAMILIES) + 3


def test_a_larger_encoder_has_more_parameters(content):
    counts = content["num_parameters"]
    assert counts["linear-factorised"] == 784 * 8 + 8
    assert counts["linear-factorised"] < counts["small-factorised"] < counts["regular-factorised"]
    assert counts["linear-coupling"] > counts["linear-factorised"]


def test_the_evidence_is_above_every_bound(content):
    points = content["points"]["train"]
    evidence = np.mean(points["evidence"])
    for name, values in points.items():
        # IWAE with 20 draws and bounds with 20 draws on 8 images: noise of about a nat.
        assert evidence > np.mean(values) - 1.0, name


def test_amortisation_gap_pairs_family_and_encoder():
    part = {"best_coupling": [[3.0, 5.0]], "small-coupling": [[1.0, 4.0]]}
    gap = encoders.amortisation_gap({"points": {"test": part}}, "small", "coupling")
    np.testing.assert_array_equal(gap, [[2.0, 1.0]])


def test_unknown_variants_and_missing_results_are_refused(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="variant"):
        encoders.run(scale="smoke", seeds=[0], variant="faces")
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    with pytest.raises(results.ResultError, match="tfp-gaps run encoders"):
        encoders.stored("book", "digits")
