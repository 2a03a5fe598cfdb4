"""When `measure` is not to be trusted, and that it says so: planted modes, tails, batches."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from tfp_gaps import annealing
from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.bounds import Diagnostics
from tfp_gaps.estimate import Estimate
from tfp_gaps.measuring import Effort, judgement, measure
from tfp_gaps.measuring.found import Found
from tfp_gaps.models.joint import Model

tfd = tfp.distributions
Named = tfd.JointDistributionNamed
RNG = np.random.default_rng(0)


# --- intervals ------------------------------------------------------------------------------------


def covered(found, name, truth=0.0):
    """Share of data whose interval holds the truth; none may be 5 errors too high."""
    z = (found.bounds[name] - truth) / found.errors[name]
    assert z.max() < 5
    return np.mean(np.abs(z) < 1.96)


@pytest.mark.parametrize("variance", [0.8, 0.6, 0.5, 0.4])
def test_intervals_of_importance_weights_cover(variance):
    """Posterior N(0, 1), q N(0, v): weights have the tail index 1 - v, the evidence is 0 nats.

    Without the factor for tails 0.4 covers 88 %. 1000 data: a binomial error of .7 %.
    """
    z = RNG.normal(0, variance**0.5, [1000, 1000])
    found = Found()
    log_weights = stats.norm.logpdf(z) - stats.norm.logpdf(z, 0, variance**0.5)
    found.add_weights("", log_weights, 0.0)
    assert 0.93 - 0.015 < covered(found, "IWAE") < 0.97 + 0.015
    truth = np.log(variance) / 2 + (1 - variance) / 2
    assert 0.93 - 0.015 < covered(found, "ELBO", truth) < 0.97 + 0.015


@pytest.mark.parametrize(("chains", "spread"), [(8, 0.3), (16, 0.1), (16, 0.6), (32, 0.6)])
def test_intervals_of_few_chains_cover(chains, spread):
    """Log-normal weights of mean one. By the normal interval of the jackknife alone, 91 %."""
    log_weights = RNG.normal(-(spread**2) / 2, spread, [chains, 4000])
    start = Diagnostics(np.zeros(4000), np.full(4000, 500.0), np.ones(4000, bool), {})
    moved = np.full([3, 4000], 0.65)
    found = Found()
    found.add_chains(annealing.Annealed(log_weights, 1, moved, moved), start)
    assert 0.94 - 0.01 < covered(found, "annealed") < 0.96 + 0.01


def test_draws_of_a_prior_that_reach_nothing_leave_the_bound_to_those_of_q():
    """Their weights vanish in double precision, and so do the squares of much larger ones."""
    found = Found()
    of_q = RNG.normal(-1000.0, 0.1, [500, 3])
    found.add_mixture(of_q, np.stack([of_q[:, 0] - 300, of_q[:, 1] - 400, of_q[:, 2] - np.inf], 1))
    [name] = found.bounds
    np.testing.assert_allclose(found.bounds[name], -1000.0 - np.log(2) + 0.1**2 / 2, atol=0.02)
    np.testing.assert_allclose(found.errors[name], 0.1 / 500**0.5, rtol=0.2)
    assert found.diagnostics[name].reliable.all()


def test_rounding_belongs_to_the_error():
    found = Found()
    found.add_weights("", np.full([10, 3], -1.0), 1e-3)
    np.testing.assert_allclose(found.errors["IWAE"], 1e-3)


def test_chains_that_hardly_move_are_named():
    found, moved = Found(), np.array([[0.6, 0.1], [0.7, 0.2]])
    start = Diagnostics(np.zeros(2), np.full(2, 500.0), np.ones(2, bool), {})
    found.add_chains(annealing.Annealed(np.zeros([16, 2]), 1, moved, moved), start)
    np.testing.assert_allclose(found.diagnostics["annealed"].acceptance, [0.65, 0.15])
    assert found.diagnostics["annealed"].note() == ", unreliable for 1 of 2 data: acceptance"


# --- which bound is the evidence ------------------------------------------------------------------


def chosen(*bounds):
    """The name that is chosen among (name, value, error, reliable) of ten data."""
    found = Found()
    for name, value, error, reliable in bounds:
        doubt = np.full(10, not reliable)
        trust = Diagnostics(np.zeros(10), np.full(10, 99.0), ~doubt, {"k-hat": doubt})
        found.add(name, np.full(10, value), np.full(10, error), trust)
    with np.testing.suppress_warnings() as quiet:
        quiet.filter(RuntimeWarning)
        return judgement.evidence(found, None)[2]["evidence"].split(", a lower")[0]


def test_the_largest_noisy_bound_does_not_win():
    assert chosen(("IWAE", -1.0, 0.01, True), ("annealed", -0.9, 0.5, True)) == "IWAE"
    assert chosen(("IWAE", -1.0, 0.01, True), ("annealed", -0.9, 0.01, True)) == "annealed"


def test_an_unreliable_bound_stands_back_where_errors_do_not_tell():
    # Errors of the mean of ten: .032 and .003.
    assert chosen(("IWAE", -1.0, 0.1, True), ("annealed", -0.98, 0.01, False)) == "IWAE"
    assert chosen(("IWAE", -1.2, 0.1, True), ("annealed", -0.98, 0.01, False)) == "annealed"


def test_the_choice_among_equal_bounds_does_not_favour_high_ones():
    """Three bounds of a single datum, exact but for their noise. By the highest value, 92.6 %."""
    values, errors = RNG.normal(0, 0.1, [4000, 3]), RNG.uniform(0.099, 0.101, [4000, 3])
    trust = Diagnostics(np.zeros(1), np.full(1, 99.0), np.ones(1, bool), {})
    held = 0
    for row, error_row in zip(values, errors):
        found = Found()
        for name, value, error in zip(("IWAE", "IWAE, best q", "annealed"), row, error_row):
            found.add(name, [value], [error], trust)
        value, error, _ = judgement.evidence(found, None)
        held += abs(value[0]) < 1.96 * error[0]
    assert abs(held / 4000 - 0.95) < 3 * (0.05 * 0.95 / 4000) ** 0.5


# --- several modes, and searches that do not end --------------------------------------------------


def squared(noise=0.3):
    """z ~ N(0, 1), x ~ N(z^2, noise): two modes."""
    joint = Named({"z": tfd.Normal(0.0, 1.0), "x": lambda z: tfd.Normal(z**2, noise)})
    return Model(joint, "x", example=0.0)


def of_squared(x, noise=0.3):
    grid = np.linspace(-6, 6, 40_001)
    density = stats.norm.pdf(grid) * stats.norm.pdf(np.reshape(x, [-1, 1]), grid**2, noise)
    return np.log(np.trapezoid(density, grid))


def on_one_side(x):
    return tfd.Normal(tf.sqrt(tf.constant(x)), 0.2)


def test_a_mode_that_the_best_q_misses_is_reported_and_the_evidence_holds_it():
    x = np.float32([1.0, 1.5])
    effort = Effort(search_steps=200, num_temperatures=40)
    found = measure(squared(), on_one_side, x, seed=0, effort=effort)
    assert all(found.diagnostics["ELBO, best q"].doubts["another mode"])
    assert "annealed, unreliable" in str(found.table()) and set(found.flagged) == {0, 1}
    assert any("another mode" in reason for reason in found.flagged[1])
    # Half of the evidence lies in each mode.
    truth = of_squared(x)
    np.testing.assert_allclose(found.bounds["IWAE, best q"], truth - np.log(2), atol=0.1)
    mixed = "IWAE, best q and prior"
    assert found.report.basis["evidence"].startswith(mixed)
    assert np.all(np.abs(found.bounds[mixed] - truth) < 4 * found.errors[mixed])


def test_a_mode_of_a_target_without_a_prior_is_reported():
    """z^2 ~ N(4, .5): modes at 2 and -2, and nothing to draw z from."""
    target = SimpleNamespace(
        event_shape=tf.TensorShape([]),
        dtype=tf.float32,
        default_event_space_bijector=tfp.bijectors.Identity(),
        unnormalized_log_prob=lambda z: -2.0 * (z**2 - 4.0) ** 2,
    )
    effort = Effort(search_steps=200, num_temperatures=40)
    q = tfd.Normal(2.0, 0.2)
    with pytest.warns(RuntimeWarning, match="another mode"):
        found = measure(Model.from_log_density(target), q, None, seed=0, effort=effort)
    assert all(found.diagnostics["ELBO, best q"].doubts["another mode"])
    assert not found.diagnostics["annealed"].reliable.any() and set(found.flagged) == {0}


def shifted(x, by=0.0):
    return tfd.Normal(tf.constant(x) / 2 + by, 0.5**0.5)


def conjugate(dtype=np.float32):
    joint = Named({"z": tfd.Normal(dtype(0), dtype(1)), "x": lambda z: tfd.Normal(z, dtype(1))})
    return Model(joint, "x", example=dtype(0))


def of_conjugate(x):
    return stats.norm(0, 2**0.5).logpdf(x)


@pytest.mark.parametrize(("steps", "ends"), [(40, False), (400, True)])
def test_a_search_that_ends_too_early_is_reported(steps, ends):
    """From two units off, forty steps of .05 and less do not arrive."""
    x = np.float32([0.0, 1.0])
    effort = Effort(search_steps=steps, num_chains=0)
    found = measure(conjugate(), lambda x: shifted(x, 2.0), x, seed=0, effort=effort)
    trust = found.diagnostics["ELBO, best q"]
    assert np.all(trust.reliable == ends)
    assert ("approximation gap, unreliable" in str(found.report.table())) == (not ends)
    if ends:
        np.testing.assert_allclose(found.bounds["ELBO, best q"], of_conjugate(x), atol=0.01)
        assert np.all(np.abs(trust.other) < 0.05) and np.all(trust.apart < 1)


def test_a_single_datum_that_is_far_off_is_named():
    x = np.zeros(20, np.float32)
    moved = np.where(np.arange(20) == 7, 4.0, 0.1).astype(np.float32)
    effort = Effort(search_steps=200, num_chains=0)
    found = measure(conjugate(), lambda x: shifted(x, moved), x, seed=0, effort=effort)
    assert any("the gap is" in reason for reason in found.flagged[7])
    others = [reason for i, reasons in found.flagged.items() if i != 7 for reason in reasons]
    assert not any("gap" in reason for reason in others)


def test_the_slack_of_bounds_on_simulated_data():
    effort = Effort(
        num_samples=100, search_steps=200, num_chains=8, num_temperatures=40, num_simulated=5
    )
    found = measure(conjugate(), shifted, np.float32([0.0]), seed=0, effort=effort)
    assert abs(found.slack.value) < 0.1 and "on simulated data" in str(found.table())
    assert found.diagnostics["annealed"].reliable.all()


def test_slack_makes_chains_unreliable():
    found, one = Found(), np.zeros(1)
    trust = Diagnostics(one, one + 99, np.ones(1, bool), {})
    found.add("IWAE", one, one + 0.1, trust)
    found.add("annealed", one, one + 0.1, trust)
    judgement.contradictions(found, Estimate(2.0, 0.1))
    assert found.diagnostics["annealed"].note() == ", unreliable: slack of bounds"


# --- families -------------------------------------------------------------------------------------

CORRELATED = np.array([[1.0, 0.9], [0.9, 1.0]])


def correlated(dtype=np.float32):
    """The posterior is N(0, CORRELATED) whatever x: independent normals lack -ln(1 - .9^2) / 2."""
    root = np.linalg.cholesky(CORRELATED).astype(dtype)
    joint = Named(
        {
            "z": tfd.MultivariateNormalTriL(np.zeros(2, dtype), root),
            "x": tfd.Normal(dtype(0), dtype(1)),
        }
    )
    model = Model(joint, "x", example=dtype(0))
    return model, lambda x: tfd.MultivariateNormalTriL(np.zeros([len(x), 2], dtype), root)


@pytest.mark.parametrize(
    ("family", "gap", "dtype"),
    [
        ("mean_field", -0.5 * np.log(1 - 0.9**2), np.float32),
        ("low_rank", 0.0, np.float32),
        ("full", 0.0, np.float64),
        ("flow", 0.0, np.float64),
    ],
)
@pytest.mark.filterwarnings("ignore:the posterior's ELBO is:RuntimeWarning")
def test_the_approximation_gap_is_that_of_the_family(family, gap, dtype):
    model, q = correlated(dtype)
    x = np.zeros(3, dtype)
    effort = Effort(num_chains=0, family=family, search_steps=600, num_starts=1)
    found = measure(model, q, x, seed=0, effort=effort, evidence=stats.norm.logpdf(x))
    assert found.report.approximation.value == pytest.approx(gap, abs=0.03)
    assert found.report.basis["best_per_datum"].startswith(f"the best of {family}, ")


def test_several_families_and_the_first_counts():
    model, q = correlated()
    effort = Effort(
        num_samples=200, search_steps=50, num_chains=2, num_temperatures=20,
        family=["mean_field", "full"],
    )  # fmt: skip
    with pytest.warns(RuntimeWarning, match=r"richer than this family"):
        found = measure(model, q, np.float32([0.0]), seed=0, effort=effort)
    assert "the best of mean_field" in found.report.basis["best_per_datum"]
    assert found.bounds["ELBO, best full q"] > found.bounds["ELBO, best q"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "normal"}, "Known: mean_field, low_rank, full, flow"),
        ({"family": []}, "one or several different ones"),
        ({"family": ("full", "full")}, "one or several different ones"),
        ({"num_chains": 1}, "0 or at least 2"),
        ({"num_simulated": 5, "num_chains": 0}, "needs chains"),
        ({"num_starts": 3}, "num_starts"),
    ],
)
def test_efforts_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        Effort(**options)


def test_a_flow_needs_two_numbers():
    with pytest.raises(ValueError, match="two unconstrained numbers"):
        measure(conjugate(), shifted, [0.0], seed=0, effort=Effort(family="flow"))


# --- batches --------------------------------------------------------------------------------------


def test_batches_bound_memory_and_keep_what_is_estimated(monkeypatch):
    model, x = conjugate(np.float64), np.linspace(-2, 2, 50)
    sizes, seen, log_prob = [], [], model.joint.log_prob

    def spy(*args, **parts):
        sizes.append(sum(int(np.prod(part.shape)) for part in parts.values()))
        assert all(part.dtype == np.float64 for part in parts.values())
        return log_prob(*args, **parts)

    monkeypatch.setattr(model.joint, "log_prob", spy)
    effort = Effort(
        num_samples=400, search_steps=150, num_chains=4, num_temperatures=20,
        numbers_at_once=8000,
    )  # fmt: skip
    found = measure(
        model, lambda x: shifted(x, 0.3), x, seed=0, effort=effort,
        progress=lambda *what: seen.append(what),
    )  # fmt: skip
    assert max(sizes) <= 8000  # 40,000 in one batch
    assert len({what for what in seen if what[0] == "draws of the posterior"}) == 3
    assert all(done == total for done, total in [seen[-1][1:]])
    for name, values in found.bounds.items():
        assert values.dtype == np.float64 and len(values) == 50
        if not name.startswith("ELBO"):
            z = (values - of_conjugate(x)) / found.errors[name]
            assert np.mean(np.abs(z) < 1.96) > 0.8
            assert np.abs(np.corrcoef(z[:20], z[20:40])[0, 1]) < 0.8  # other draws in each batch


def test_one_batch_or_more_chunks_of_draws_agree_within_errors():
    model, x = conjugate(), np.float32([0.0, 1.0])
    few = {"num_samples": 1000, "search_steps": 100, "num_chains": 0, "num_starts": 1}
    one, more = (
        measure(model, lambda x: shifted(x, 0.3), x, seed=0, effort=Effort(**few, **options))
        for options in ({}, {"numbers_at_once": 2000})
    )
    for name in one.bounds:
        error = np.hypot(one.errors[name], more.errors[name])
        assert np.all(np.abs(one.bounds[name] - more.bounds[name]) < 5 * error)


def test_a_posterior_that_cannot_be_cut_is_refused():
    model, x = conjugate(), np.zeros(10, np.float32)

    class Whole:
        """What has a density, but no part."""

        def __init__(self, q):
            self.sample, self.log_prob = q.sample, q.log_prob

    q = Whole(tfd.Normal(np.zeros(10, np.float32), 0.7))
    effort = Effort(num_samples=100, search_steps=5, num_chains=0, numbers_at_once=200)
    with pytest.raises(ValueError, match="cannot be cut into the same"):
        measure(model, q, x, seed=0, effort=effort)
