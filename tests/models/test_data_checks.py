"""What data a model refuses, and that where it does not the evidence is right."""

import numpy as np
import pytest
from scipy import stats

from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.measuring import Effort, measure
from tfp_gaps.models import data_checks
from tfp_gaps.models.joint import Model

tfd, tfb = tfp.distributions, tfp.bijectors
FEW = Effort(num_samples=1000, search_steps=50, num_chains=0)
Named, Batched = tfd.JointDistributionNamed, tfd.JointDistributionNamedAutoBatched
PRIOR = tfd.Normal(0.0, 1.0)


def plain():
    return Model(Batched({"z": PRIOR, "x": lambda z: tfd.Normal(z, 1.0)}), "x", example=0.0)


# --- supports -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Named, Batched])
@pytest.mark.parametrize(
    ("part", "u"),
    [
        (lambda u: tfd.Uniform(0.0, u), 4.0),
        (lambda u: tfd.Uniform(0.0, u), 0.99),
        (lambda u: tfd.Uniform(u, 9.0), 0.9),
        (lambda u: tfd.Pareto(2.0, u), 2.0),
    ],
)
def test_a_support_that_observed_values_move_is_refused_and_that_of_the_example_is_right(
    kind, part, u
):
    joint = kind({"u": tfd.Gamma(2.0, 1.0), "z": part, "x": lambda z: tfd.Normal(z, 0.5)})
    model = Model(joint, ("u", "x"), example={"u": 1.0, "x": 0.0})
    q = lambda x: tfd.Uniform(tf.fill([len(x["u"])], 0.1), 0.9)  # noqa: E731
    x = {"u": np.float32([1.0, u, 1.0]), "x": np.zeros(3, np.float32)}
    with pytest.raises(ValueError, match="'z' must have the same support .* at datum 1 is not"):
        measure(model, q, x, seed=0, effort=FEW)
    data_checks.same_support(model, model.select(x, [0, 2]))


def test_the_evidence_is_right_where_the_support_is_that_of_the_example():
    """ln p(u, x) = ln p(u) + ln [F(2 (1 - x)) - F(-2 x)] for z ~ U(0, u), x ~ N(z, 1 / 4), u = 1"""
    parts = {"z": lambda u: tfd.Uniform(0.0, u), "x": lambda z: tfd.Normal(z, 0.5)}
    joint = Named({"u": tfd.Gamma(2.0, 1.0), **parts})
    model = Model(joint, ("u", "x"), example={"u": 1.0, "x": 0.0})
    x = {"u": np.float32([1.0]), "x": np.float32([0.3])}
    found = measure(model, lambda x: tfd.Uniform(0.0, x["u"]), x, seed=0, effort=FEW)
    exact = stats.gamma(2).logpdf(1.0) + np.log(np.diff(stats.norm.cdf([-0.6, 1.4])))[0]
    assert abs(found.bounds["IWAE"][0] - exact) < 5 * found.errors["IWAE"][0] + 1e-3


MOVED = {
    "a normal": lambda u: tfd.Normal(u, 1.0),
    "a scale": lambda u: tfd.Gamma(u, 1.0),
    "a bijector, not its range": lambda u: tfd.TransformedDistribution(
        tfd.Normal(0.0, 1.0), tfb.Chain([tfb.Exp(), tfb.Shift(u)])
    ),
    "a covariance that rounding spoils": lambda u: tfd.WishartTriL(4.0 + u, tf.eye(2)),
}


@pytest.mark.parametrize("name", MOVED)
def test_a_part_that_observed_values_move_within_its_support_is_not_refused(name):
    joint = Named({"u": tfd.Gamma(2.0, 1.0), "z": MOVED[name], "x": PRIOR})
    model = Model(joint, ("u", "x"), example={"u": 1.0, "x": 0.0})
    data_checks.same_support(model, {"u": np.float32([0.5, 4.0]), "x": np.zeros(2, np.float32)})


def test_categories_that_there_are_not_are_named():
    joint = Batched(
        {"z": tfd.Normal(0.0, 1.0), "x": lambda z: tfd.Categorical(tf.stack([z, 0.0, 1.0]))}
    )
    advice = r"value of {} which is outside the valid range of \[0, 3\)\)\. Give the example"
    with pytest.raises(ValueError, match=advice.format(5)):
        Model(joint, "x", example=5)
    model = Model(joint, "x", example=1)
    with pytest.raises(ValueError, match=advice.format(7)) as error:
        measure(model, tfd.Normal(0.0, 1.0), [7], seed=0, effort=FEW)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.ma.masked_array([0.0, 9.0], [False, True]), "1 are masked"),
        (np.array([1j, 0]), "dtype complex"),
        (np.array(["a", "b"]), "dtype <U1"),
        (np.array([0.0, None]), "dtype object"),
        ([[0.0], [1.0, 2.0]], "same shape"),
        (np.zeros(0), "at least one datum"),
        ([0.0, 1e300], "1 of 2 values change"),
        ([1e-300, 0.0], "1 of 2 values change"),
        ([1e9 + 0.1, 1e9 + 0.7], "2 of 2 values change"),
        (np.array([2**24 + 1]), "values change"),
        (np.array([np.inf]), "must be finite"),
    ],
)
def test_data_that_would_lose_something_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        plain().data(data)


@pytest.mark.parametrize(
    ("dtype", "good", "bad"),
    [
        (np.int32, [0.0, 3.0], [0.6, 1.7]),
        (np.uint8, [0, 255], [-1, 3]),
        (np.uint8, [1.0], [256.0]),
        (np.int32, np.array([2**31 - 1]), np.array([2**31])),
        (np.int64, [True, False], np.array([2**63], np.uint64)),
    ],
)
def test_whole_numbers_stay_what_they_are(dtype, good, bad):
    numbers = tfd.FiniteDiscrete(np.arange(2, dtype=dtype), probs=[0.5, 0.5])
    joint = Batched({"z": tfd.Normal(0.0, 1.0), "x": numbers})
    model = Model(joint, "x", example=dtype(0))
    np.testing.assert_array_equal(model.data(good), np.asarray(good, np.float64))
    with pytest.raises(ValueError, match="values change"):
        model.data(bad)


def test_unmasked_arrays_and_whole_numbers_are_data():
    model = plain()
    np.testing.assert_array_equal(model.data(np.ma.masked_array([0.0, 9.0])), [0, 9])
    np.testing.assert_array_equal(model.data([1, 2]), [1, 2])
    np.testing.assert_array_equal(model.data([0.1, 0.7]), np.float32([0.1, 0.7]))
