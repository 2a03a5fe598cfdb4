"""What was measured, as pandas, ArviZ and JSON have it, and as a terminal shows it."""

import json
import sys
import warnings

import numpy as np
import pytest
from scipy import stats

from tfp_gaps import Effort, Measured, Model, measure
from tfp_gaps._tensorflow import tf, tfp

tfd = tfp.distributions
X = np.float32([0.0, 2.0, -1.0])


@pytest.fixture(scope="module")
def model():
    """z ~ N(0, 1) for two coordinates, x their sum and noise."""
    joint = tfd.JointDistributionNamedAutoBatched(
        {
            "z": tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2)),
            "x": lambda z: tfd.Normal(tf.reduce_sum(z, -1), 1.0),
        }
    )
    return Model(joint, "x", example=X[0])


@pytest.fixture(scope="module")
def found(model):
    def q(x):
        return tfd.MultivariateNormalDiag(tf.stack([x / 3, x / 3], -1), [0.7, 0.9])

    effort = Effort(num_samples=200, search_steps=5, num_chains=2, num_temperatures=5)
    evidence = stats.norm(0, 3**0.5).logpdf(X)
    with warnings.catch_warnings():  # at this effort bounds are loose, and `measure` says so
        warnings.simplefilter("ignore", RuntimeWarning)
        return measure(model, q, X, seed=0, evidence=evidence, effort=effort)


def test_a_data_frame_has_a_row_for_each_bound_and_datum(found):
    frame = found.to_dataframe()
    assert list(frame.columns[:4]) == ["bound", "datum", "value", "error"]
    wide = frame.pivot(index="datum", columns="bound", values="value")
    for name, values in found.bounds.items():
        np.testing.assert_array_equal(wide[name], values)
    iwae = frame[frame.bound == "IWAE"]
    np.testing.assert_array_equal(iwae.error, found.errors["IWAE"])
    np.testing.assert_array_equal(iwae.k_hat, found.diagnostics["IWAE"].k_hat)
    assert iwae.reliable.tolist() == found.diagnostics["IWAE"].reliable.tolist()
    assert frame[frame.bound == "ELBO"].k_hat.isna().all()
    doubtful = frame[frame.reliable.isin([False])]
    assert set(doubtful.datum) == set(found.flagged) and (doubtful.doubts != "").all()


def test_arviz_gets_draws_of_q_with_their_weights(found):
    """From the tree alone: the bounds, and ln p(x, z) - ln q(z) by SciPy."""
    tree = found.to_inference_data()
    log_weight = tree["sample_stats"]["log_weight"]
    assert log_weight.dims == ("chain", "draw", "datum")
    np.testing.assert_allclose(log_weight.mean(["chain", "draw"]), found.bounds["ELBO"], rtol=1e-6)
    z, x = tree["posterior"]["z"].values[0], tree["observed_data"]["x"].values
    assert z.shape == (200, 3, 2) and x.tolist() == X.tolist()
    expected = stats.norm.logpdf(z).sum(-1) + stats.norm.logpdf(x, z.sum(-1), 1)
    mean = np.stack([X / 3, X / 3], -1)
    expected -= stats.norm.logpdf(z, mean, [0.7, 0.9]).sum(-1)
    np.testing.assert_allclose(log_weight.values[0], expected, atol=1e-4)  # float32


def test_json_gives_back_every_bit(found):
    text = found.to_json()
    again = Measured.from_json(text)
    assert again.report == found.report and again.to_json() == text
    for field in ("bounds", "errors"):
        for name, values in getattr(found, field).items():
            np.testing.assert_array_equal(getattr(again, field)[name], values)
    for name, old in found.diagnostics.items():
        for a, b in zip(old, again.diagnostics[name], strict=True):
            np.testing.assert_equal(a, b)
            assert getattr(a, "dtype", None) == getattr(b, "dtype", None)
    assert again.flagged == found.flagged and found.flagged
    assert str(again.table()) == str(found.table())


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


def test_json_is_json_also_where_a_number_is_not_finite(found):
    k_hat = np.array([np.inf, np.nan, -np.inf])
    old = found.diagnostics["IWAE"]._replace(k_hat=k_hat)
    odd = Measured(found.report, found.bounds, found.errors, {"IWAE": old})
    json.loads(odd.to_json(), parse_constant=refuse)
    read = Measured.from_json(odd.to_json()).diagnostics["IWAE"].k_hat
    np.testing.assert_array_equal(read, k_hat)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be what Measured.to_json wrote"),
        ("[]", "must hold a Measured, but holds a list"),
        ('{"record": "os.system"}', "must be what Measured.to_json wrote"),
        ('{"record": "Measured", "bounds": 1}', "must be what Measured.to_json wrote"),
        (
            '{"record": "Estimate", "value": 1.0}',
            "must hold a Measured, but holds a Estimate",
        ),
    ],
)
def test_other_text_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        Measured.from_json(text)


def test_draws_are_not_in_json_and_this_is_said(found):
    with pytest.raises(ValueError, match="JSON does not keep them"):
        Measured.from_json(found.to_json()).to_inference_data()


@pytest.mark.parametrize(
    ("package", "method", "name"),
    [("pandas", "to_dataframe", "pandas"), ("arviz_base", "to_inference_data", "arviz-base")],
)
def test_a_package_that_is_missing_is_named(found, monkeypatch, package, method, name):
    monkeypatch.setitem(sys.modules, package, None)  # Python's own way to say that it is not there
    with pytest.raises(ImportError, match=f"needs the package {name}, .* pip install {name}"):
        getattr(found, method)()


def test_what_a_terminal_shows_fits_on_a_screen(model, found):
    for shown in (model, found, found.report, Effort(), Effort(num_chains=0)):
        text = repr(shown)
        rows = sum(1 + len(line) // 100 for line in text.splitlines())
        assert rows <= 24, text
    assert "observed x []" in repr(model) and "latent z" in repr(model)
    assert "Measured of 3 data" in repr(found) and "IWAE, best q" in repr(found)
    assert "approximation gap" in repr(found.report)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_several_observed_parts_are_measured_and_handed_on():
    """x and y of one z, as two parts: the evidence of both stacked, and both are in the tree."""
    two = tfd.JointDistributionNamedAutoBatched(
        {
            "z": tfd.Normal(0.0, 1.0),
            "x": lambda z: tfd.Normal(z, 1.0),
            "y": lambda z: tfd.Normal(z, 2.0),
        }
    )
    model = Model(two, ("x", "y"), example={"x": 0.0, "y": 0.0})
    data = {"x": X, "y": X[::-1].copy()}
    covariance = np.ones([2, 2]) + np.diag([1.0, 4.0])
    evidence = stats.multivariate_normal(np.zeros(2), covariance).logpdf(
        np.stack([*data.values()], 1)
    )

    def q(x):
        return tfd.Normal((x["x"] + x["y"] / 4) / 2.25, 1 / 1.5)  # the posterior

    effort = Effort(num_samples=50, search_steps=5, num_chains=0, num_starts=1)
    found = measure(model, q, data, seed=0, evidence=evidence, effort=effort)
    np.testing.assert_allclose(found.bounds["ELBO"], evidence, atol=1e-4)
    observed = found.to_inference_data()["observed_data"]
    assert observed["x"].values.tolist() == X.tolist() and "y" in observed
    assert "observed x [], y []" in repr(model)
    # A q that sees x alone, and another y beside it.
    rest = {"x": np.stack([X, X]), "y": np.stack([X, -X])}
    half = measure(
        model,
        lambda x: tfd.Normal(x["x"] / 2, 0.5**0.5),
        data,
        seed=0,
        completions=rest,
        evidence=evidence,
        effort=effort,
    )
    assert "ELBO, best shared q" in half.bounds
