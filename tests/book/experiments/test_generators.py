"""Generators of several seeds: against `vae.run`, and against differences known beforehand."""

import json

import numpy as np
import pytest

from tfp_gaps.book import results
from tfp_gaps.book.experiments import generators, vae


@pytest.fixture(scope="module")
def content():
    return json.loads(json.dumps(generators.run(scale="smoke", seeds=[3], variant="digits")))


def test_a_run_has_the_numbers_of_the_same_autoencoders(content):
    for family, own in content["generators"].items():
        expected = vae.run(scale="smoke", seeds=[3], variant=f"digits-{family}")
        points = expected["points"]["test"]
        points.pop("annealed")
        assert own["points"] == {"test": points}
        assert own["diverged"] == [False]
    assert list(content["generators"]) == list(vae.FAMILIES)


def made(evidence, gap, count=4):
    """A generator whose evidence is that of the flow's bound, and whose best Gaussian has a gap."""
    evidence = np.array(evidence)[:, np.newaxis] + np.arange(count)
    points = {
        "elbo": evidence - 9.0,
        "iwae": evidence - 3.0,
        "elbo_best_factorised": evidence - np.array(gap)[:, np.newaxis],
        "iwae_best_factorised": evidence - 0.5,
        "iwae_best_flow": evidence,
    }
    points = {name: values.tolist() for name, values in points.items()}
    return {"points": {"test": points}, "diverged": [False] * len(evidence)}


def test_differences_are_those_of_the_best_bounds():
    pair = {
        "factorised": made([-90.0, -91.0], [2.0, 2.0]),
        "flow": made([-89.0, -89.0], [6.5, 5.5]),
    }
    found = {"seeds": [1, 2], "generators": pair}
    adapted, improved = generators.adaptation(found), generators.improvement(found)
    # Alike on all images: the error is that of two seeds, half their difference.
    assert adapted.value == pytest.approx(4.0) and improved.value == pytest.approx(1.5)
    assert adapted.standard_error == pytest.approx(0.5) == improved.standard_error


def test_runs_of_other_seeds_are_put_together(monkeypatch):
    def result(seeds, **others):
        pair = {name: made(-90.0 - np.array(seeds), np.ones(len(seeds))) for name in vae.FAMILIES}
        return {"seeds": seeds, "sizes": 1, "data": "digits", "generators": pair} | others

    def serve(*found):
        monkeypatch.setattr(results, "stored", lambda *_, **__: list(found))

    serve(result([4]), result([1, 2]))
    found = generators.stored("digits")
    assert found["seeds"] == [1, 2, 4]
    bounds = vae.values_of(found["generators"]["flow"], "iwae_best_flow")
    np.testing.assert_array_equal(bounds[:, 0], [-91.0, -92.0, -94.0])
    serve(result([1]), result([2, 1]))
    with pytest.raises(results.ResultError, match=r"found seeds \[1, 2, 1\]\. Remove"):
        generators.stored("digits")
    serve(result([1]), result([2], sizes=2))
    with pytest.raises(results.ResultError, match="of different sizes or data"):
        generators.stored("digits")


def test_unknown_variants_and_missing_results_are_refused(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="variant"):
        generators.run(scale="smoke", seeds=[0], variant="faces")
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    with pytest.raises(results.ResultError, match="tfp-gaps run generators"):
        generators.stored("fashion")
