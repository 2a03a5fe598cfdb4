"""What `measure` refuses in densities at draws of q, and that what it says of the rest is right."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.measuring import Effort, measure, upper_bound
from tfp_gaps.models import density_checks
from tfp_gaps.models.joint import Model

tfd = tfp.distributions
FEW = Effort(num_samples=1000, search_steps=50, num_chains=0)
Named, Batched = tfd.JointDistributionNamed, tfd.JointDistributionNamedAutoBatched
PRIOR = tfd.Normal(0.0, 1.0)


# --- each datum alone -----------------------------------------------------------------------------

MIXING = {
    "centres": lambda z, x: -((x - tf.reduce_mean(x, 1, keepdims=True) - z) ** 2),
    "reads the first": lambda z, x: -((x[0, 0] - z) ** 2),
    "reverses": lambda z, x: -((tf.reverse(x, [1]) - z) ** 2),
    "spoils one": lambda z, x: -((x + tf.one_hot(1, tf.shape(x)[1]) * x[:, -1:] - z) ** 2),
}


@pytest.mark.parametrize("name", MIXING)
def test_a_model_that_mixes_data_is_refused_though_its_example_does_not_show_it(name):
    """In a measurement, and in a bound from above."""
    model, x = Model.from_log_density(PRIOR, MIXING[name], example=0.3), [-2.0, 0.0, 2.0, 5.0]
    with pytest.raises(ValueError, match=r"of datum \d must be the same whatever .* mixes them"):
        measure(model, lambda x: tfd.Normal(0.5 * x, 0.7), x, seed=0, effort=FEW)
    effort = Effort(search_steps=5, num_chains=2, num_temperatures=2)
    with pytest.raises(ValueError, match="mixes them"):
        upper_bound(model, {"z": tf.zeros([1, 4])}, x, seed=0, effort=effort)


def test_a_norm_over_observed_values_of_all_data_is_refused():
    def normed(u):
        axes = list(range(u.shape.rank))
        spread = tf.sqrt(tf.math.reduce_variance(u, axes, keepdims=True) + 1e-3)
        return (u - tf.reduce_mean(u, axes, keepdims=True)) / spread

    joint = Named({"u": PRIOR, "z": lambda u: tfd.Normal(normed(u), 1.0), "x": PRIOR})
    x = {"u": np.float32([3.0, 4.0, 5.0, 6.0]), "x": np.zeros(4, np.float32)}
    q = lambda x: tfd.Normal(0.5 * x["u"], 0.7)  # noqa: E731
    with pytest.raises(ValueError, match="datum 0 must be the same whatever .* mixes them"):
        measure(Model(joint, ("u", "x"), example={"u": 0.3, "x": 0.5}), q, x, seed=0, effort=FEW)


def test_a_posterior_with_another_event_shape_is_refused():
    joint = Batched({"z": tfd.Sample(tfd.Normal(0.0, 1.0), 2), "x": tfd.Normal(0.0, 1.0)})
    with pytest.raises(ValueError, match=r"draw 'z' with shape .* = \(1000, 3, 2\)"):
        measure(
            Model(joint, "x", example=0.0),
            lambda x: tfd.Normal(tf.zeros(3), 1.0),
            np.zeros(3),
            seed=0,
            effort=FEW,
        )


# --- numbers --------------------------------------------------------------------------------------


def conjugate(dtype=np.float32, loc=0.0, scale=1.0):
    """z ~ N(loc, 1), x ~ N(z, scale^2): model, posterior and evidence."""
    loc, scale = dtype(loc), dtype(scale)
    joint = Batched({"z": tfd.Normal(loc, dtype(1)), "x": lambda z: tfd.Normal(z, scale)})
    gain = dtype(1 / (1 + scale**2))
    spread = dtype(scale * np.sqrt(gain))
    return (
        Model(joint, "x", example=dtype(0)),
        lambda x: tfd.Normal(loc + gain * (x - loc), spread),
        stats.norm(loc, np.sqrt(1 + np.float64(scale) ** 2)).logpdf,
    )


@pytest.mark.parametrize(
    ("x", "loc", "scale"), [(1e6, 0.0, 1.0), (3e3, 0.0, 1.0), (0.0, 1e7, 1.0), (3.0, 0.0, 1e-7)]
)
# Five steps do not follow a scale of 1e-7, and `measure` says so; the ELBO is what is looked at.
@pytest.mark.filterwarnings("ignore:the posterior's ELBO is:RuntimeWarning")
def test_what_float32_cannot_resolve_is_refused_and_float64_is_right(x, loc, scale):
    model, q, _ = conjugate(np.float32, loc, scale)
    with pytest.raises(ValueError, match="float32 rounds the bounds of .* Use float64"):
        measure(model, q, [x], seed=0, effort=FEW)
    model, q, exact = conjugate(np.float64, loc, scale)
    found = measure(model, q, [x], seed=0, effort=Effort(search_steps=5, num_chains=0))
    assert found.bounds["ELBO"][0] == pytest.approx(exact(x), rel=1e-12, abs=1e-3)


def test_rounding_that_can_be_seen_is_announced():
    model, q, exact = conjugate()
    with pytest.warns(RuntimeWarning, match="float32 rounds"):
        found = measure(model, q, [1000.0], seed=0, effort=FEW)
    assert found.bounds["ELBO"][0] == pytest.approx(exact(1000.0), abs=0.1)


@pytest.mark.parametrize(
    ("evidence", "message"),
    [
        ([-10.0, -10.0], "below a lower bound, but that of datum 0 is -10"),
        ([0.0, -1.6], "datum 1 is -1.6"),
        ([0.0], "for each of 2 data"),
        (0.0, "for each of 2 data"),
        ([0.0, np.nan], "evidence must be finite"),
        (np.ma.masked_array([0.0, 0.0], [False, True]), "1 are masked"),
    ],
)
def test_evidence_that_cannot_be_is_refused(evidence, message):
    model, q, _ = conjugate()
    with pytest.raises(ValueError, match=message):
        measure(model, q, [0.0, 1.0], seed=0, evidence=evidence, effort=FEW)


def test_evidence_below_another_bound_is_refused_where_that_is_reliable():
    """A q of twice the spread lacks 3 / 2 - ln 2 = .81 nats; its weights nearly close the gap."""
    model, _, evidence = conjugate()
    x = np.float32([0.0, 1.0])

    def wide(x):
        return tfd.Normal(x / 2, np.float32(2 * 0.5**0.5))

    given = evidence(x)
    measure(model, wide, x, seed=0, evidence=given, effort=FEW)
    given[1] -= 0.4
    with pytest.raises(ValueError, match=r"that of datum 1 is -1\.9.* and its IWAE -1\.5"):
        measure(model, wide, x, seed=0, evidence=given, effort=FEW)
    bounds = {"ELBO": np.array([-9.0]), "annealed": np.array([-1.0])}
    errors = {name: np.array([0.01]) for name in bounds}
    for reliable in (False, True):
        trust = SimpleNamespace(reliable=np.array([reliable]))
        given = ([-2.0], bounds, errors, {"annealed": trust}, 1, 0.0)
        if reliable:
            with pytest.raises(ValueError, match="its annealed -1 ± 0.01"):
                density_checks.known_evidence(*given)
        else:
            np.testing.assert_array_equal(density_checks.known_evidence(*given), [-2.0])


@pytest.mark.parametrize(
    ("posterior", "message"),
    [
        (lambda x: tfd.Normal([0.0, np.nan], 0.7), "draw of 'z'.* draws of datum 1. .*NaN"),
        (lambda x: tfd.Normal(0.0, [0.7, np.inf]), "draw of 'z' .* draws of datum 1"),
        (
            lambda x: tfd.Uniform([0.0, -2.0], 0.5),
            "ln p of 'z' .* -inf at z = -.*datum 1.*restrict",
        ),
    ],
)
def test_what_is_not_finite_is_named(posterior, message):
    joint = Batched({"z": tfd.HalfNormal(1.0), "x": lambda z: tfd.Normal(z, 1.0)})
    with pytest.raises(ValueError, match=message):
        measure(Model(joint, "x", example=0.0), posterior, [0.0, 1.0], seed=0, effort=FEW)


def test_a_search_that_underflows_names_step_part_and_datum_and_keeps_what_was_found():
    joint = Batched({"r": tfd.Gamma(0.01, 0.01), "x": lambda r: tfd.Poisson(r)})
    with pytest.raises(ValueError) as caught:
        measure(
            Model(joint, "x", example=0.0),
            lambda x: tfd.Gamma(0.01 + x, 1.01),
            [2, 0],
            seed=0,
            effort=FEW,
        )
    text = str(caught.value)
    assert "ln p of 'r'" in text and "step 0 of the search" in text and "of datum 1" in text
    exact = stats.nbinom(0.01, 0.01 / 1.01).logpmf([2, 0]).mean()
    assert f"ELBO {exact:.3f}" in text and "learning_rate" not in text


# --- trust ----------------------------------------------------------------------------------------


def funnel(spread=3.0):
    joint = Named(
        {
            "v": tfd.Normal(0.0, spread),
            "w": lambda v: tfd.Sample(tfd.Normal(0.0, tf.exp(v / 2)), 9),
            "x": tfd.Normal(0.0, 1.0),
        }
    )
    q = Named({"v": tfd.Normal(1.0, 1.5), "w": tfd.Sample(tfd.Normal(0.0, 1.0), 9)})
    return Model(joint, "x", example=0.0), q


@pytest.mark.parametrize("seed", [3, 4])
def test_chains_in_a_funnel_are_called_unreliable_and_the_evidence_is_right(seed):
    found = measure(*funnel(), 0.0, seed=seed)
    assert "annealed, unreliable: k-hat" in str(found.table())
    assert not found.diagnostics["annealed"].reliable.any()
    assert abs(found.report.evidence.value - stats.norm.logpdf(0.0)) < 0.1  # x is independent
    for name, values in found.bounds.items():
        assert values[0] < stats.norm.logpdf(0.0) + 5 * found.errors[name][0]


def test_a_good_q_is_not_called_unreliable():
    model, q, _ = conjugate()
    effort = Effort(search_steps=200, num_chains=16, num_temperatures=60)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measure(
            model, lambda x: tfd.Normal(q(x).loc, 0.8), [0.0, 1.0], seed=0, effort=effort
        )
    assert all(trust.reliable.all() for trust in found.diagnostics.values())
    assert "unreliable" not in str(found.table()) + str(found.report.table())


def test_a_narrow_q_is_called_unreliable():
    """The weights of N(0, 1) under N(0, s^2) have the tail index 1 - s^2."""
    model, q, _ = conjugate()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = measure(
            model, lambda x: tfd.Normal(q(x).loc, 0.3 * 0.5**0.5), [0.0], seed=0, effort=FEW
        )
    assert found.diagnostics["IWAE"].k_hat[0] == pytest.approx(1 - 0.3**2, abs=0.25)
    assert "IWAE, unreliable" in str(found.table())
