"""Two sensors against their printed tables, Monte Carlo, and direct optimisation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from tfp_gaps.exact.two_sensors import TwoSensors

# sc, sb | alpha | S | S_F | gap | I | cost of the true filter | coverage of a nominal 90 %
TABLE = [
    (1, 2, 0.5, 0.4444, 0.5, 0.0625, 0.0589, 0.0661, 0.879),
    (1, 1, 0.5, 0.3333, 0.5, 0.2500, 0.2027, 0.2973, 0.821),
    (1, 0.5, 0.5, 0.1667, 0.5, 1.0000, 0.5493, 1.4507, 0.658),
    (1, 0.25, 0.5, 0.0556, 0.5, 4.0000, 1.0986, 6.9014, 0.417),
    (0.5, 0.5, 0.8, 0.1111, 0.2, 0.4000, 0.2939, 0.5061, 0.780),
    (2, 0.5, 0.2, 0.1905, 0.8, 1.6000, 0.7175, 2.4825, 0.578),
]
# sb | gap at truth | learned variances | log-likelihood loss | gap left (sc = 1, loadings fixed)
LEARNED = [
    (0.5, 1.0000, 0.6307, 1.0460, 0.1055, 0.0968),
    (1, 0.2500, 0.7106, 1.8487, 0.0467, 0.0744),
    (2, 0.0625, 0.8454, 4.9220, 0.0095, 0.0389),
]
HALF_A_DIGIT = 0.5e-4 * 1.001  # numbers are printed to four decimals
NOISES = st.floats(0.05, 20)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: str(row[:2]))
def test_every_number_of_the_table(row):
    world = TwoSensors(*row[:2])
    partial = world.best_partial()
    measured = [
        partial.slope,
        world.full_posterior_variance(),
        world.filter_variance(),
        world.conditioning_gap(),
        world.mutual_information(),
        world.gap_of_true_filter(),
        world.coverage(0.9),
    ]
    np.testing.assert_array_less(
        np.abs(np.subtract(measured, row[2:])), [HALF_A_DIGIT] * 6 + [0.5e-3]
    )
    assert partial.variance == world.full_posterior_variance()


@pytest.mark.parametrize("row", LEARNED, ids=lambda row: f"noise {row[0]}")
def test_learning_with_fixed_loadings(row):
    world = TwoSensors(1.0, row[0])
    learned = world.learn()
    measured = [
        world.conditioning_gap(),
        learned.variance_seen,
        learned.variance_unseen,
        learned.log_likelihood_loss,
        learned.gap,
    ]
    np.testing.assert_array_less(np.abs(np.subtract(measured, row[1:])), HALF_A_DIGIT)
    assert (learned.loading_seen, learned.loading_unseen) == (1, 1)


@pytest.mark.parametrize("noise", [0.5, 1.0, 2.0])
def test_learning_with_free_loadings_turns_z_into_the_seen_sensor(noise):
    learned = TwoSensors(1.0, noise).learn(free_loadings=True)
    # Var(c) = 2 in the loading, Cov(c, c') / sqrt 2, and Var(c' | c); the noise of c is driven to
    # the edge of the search, and the optimum is flat in what is left of it.
    assert learned.loading_seen == pytest.approx(math.sqrt(2), abs=1e-5)
    assert learned.loading_unseen == pytest.approx(1 / math.sqrt(2), abs=1e-5)
    assert learned.variance_unseen == pytest.approx(noise**2 + 0.5, abs=1e-5)
    assert learned.variance_seen < 1e-8
    assert learned.log_likelihood_loss == pytest.approx(0, abs=1e-9)
    assert learned.gap == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("row", TABLE[1:4], ids=lambda row: str(row[:2]))
def test_learned_objective_by_direct_search_over_model_and_q(row):
    # Nothing profiled: the four numbers (v, v', slope, variance of q) are searched together, and
    # the ELBO is written out under the law of the data.
    sc, sb = row[:2]
    data = np.array([[1 + sc**2, 1], [1, 1 + sb**2]])

    def loss(parameters):
        v, v_unseen, variance = np.exp(parameters[:3])
        slope = parameters[3]
        second = slope**2 * data[0, 0] + variance
        miss = data[0, 0] * (1 - slope) ** 2 + variance
        miss_unseen = data[1, 1] - 2 * slope * data[0, 1] + second
        return 0.5 * (
            2 * math.log(2 * math.pi)
            + np.log(v * v_unseen)
            + second
            + miss / v
            + miss_unseen / v_unseen
            - np.log(variance)
            - 1
        )

    found = optimize.minimize(loss, [0.0, 0.0, -1.0, 0.5], options={"gtol": 1e-9})
    # The objective is quadratic at its optimum: parameters good to 1e-6 fix it to 1e-11.
    assert TwoSensors(sc, sb).learn().elbo == pytest.approx(-found.fun, abs=1e-9)


@given(NOISES, NOISES)
def test_gap_exceeds_information_and_elbo_knows_both(seen, unseen):
    world = TwoSensors(seen, unseen)
    gap, information = world.conditioning_gap(), world.mutual_information()
    assert gap >= information > 0
    scale = max(1.0, gap)
    # The ELBO is summed from terms of the size of the gap: relative round-off.
    missing = world.expected_evidence() - world.expected_elbo(*world.best_partial())
    assert missing == pytest.approx(gap, abs=1e-12 * scale)
    missing = world.expected_evidence() - world.expected_elbo(*world.filter())
    assert missing == pytest.approx(world.gap_of_true_filter(), abs=1e-12 * scale)


@given(NOISES, NOISES, st.floats(-2, 2), st.floats(0.01, 10))
def test_no_linear_q_beats_the_closed_form(seen, unseen, slope, variance):
    world = TwoSensors(seen, unseen)
    best = world.expected_elbo(*world.best_partial())
    assert world.expected_elbo(slope, variance) <= best + 1e-10 * max(1.0, abs(best))


@pytest.mark.parametrize("row", TABLE, ids=lambda row: str(row[:2]))
def test_best_partial_by_direct_search(row):
    world = TwoSensors(*row[:2])
    found = optimize.minimize(
        lambda x: -world.expected_elbo(x[0], math.exp(x[1])), [0.0, 0.0], options={"gtol": 1e-10}
    )
    # A central quantity of a quadratic optimum found with finite differences: about 1e-6.
    assert found.x[0] == pytest.approx(world.best_partial().slope, abs=1e-5)
    assert math.exp(found.x[1]) == pytest.approx(world.best_partial().variance, abs=1e-5)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: str(row[:2]))
def test_expectations_agree_with_monte_carlo(row):
    world = TwoSensors(*row[:2])
    z, seen, unseen = world.sample(400_000, seed=5)
    for q, expected in (
        (world.best_partial(), world.conditioning_gap()),
        (world.filter(), world.gap_of_true_filter()),
    ):
        kl = world.kl_to_full_posterior(seen, unseen, q.slope * seen, q.variance)
        error = kl.std() / math.sqrt(kl.size)
        assert kl.mean() == pytest.approx(expected, abs=4 * error)
        elbo = world.elbo(seen, unseen, q.slope * seen, q.variance)
        error = elbo.std() / math.sqrt(elbo.size)
        assert elbo.mean() == pytest.approx(world.expected_elbo(*q), abs=4 * error)
    inside = np.abs(z - world.best_partial().slope * seen) < stats.norm.ppf(0.95) * math.sqrt(
        world.full_posterior_variance()
    )
    error = math.sqrt(inside.mean() * (1 - inside.mean()) / inside.size)
    assert inside.mean() == pytest.approx(world.coverage(0.9), abs=4 * error)


def test_samples_have_the_moments_of_the_model():
    world = TwoSensors(0.7, 2.0)
    moments = np.cov(world.sample(200_000, seed=6))
    expected = [[1, 1, 1], [1, 1.49, 1], [1, 1, 5]]
    # Standard errors of covariances are below 5 sqrt(2 / n) = .016.
    np.testing.assert_allclose(moments, expected, atol=0.06)
    assert np.array_equal(world.sample(5, seed=6)[0], world.sample(5, seed=6)[0])


@given(NOISES, NOISES, st.floats(-5, 5), st.floats(-5, 5), st.floats(-3, 3), st.floats(0.01, 5))
def test_evidence_is_elbo_plus_divergence_for_each_datum(seen, unseen, c, c_unseen, mean, variance):
    world = TwoSensors(seen, unseen)
    total = world.elbo(c, c_unseen, mean, variance)
    total += world.kl_to_full_posterior(c, c_unseen, mean, variance)
    evidence = world.log_evidence(c, c_unseen)
    # Terms of the size of (reading / noise)^2 cancel: relative round-off.
    assert total == pytest.approx(evidence, abs=1e-13 * (1 + 100 / min(seen, unseen) ** 2))


def test_per_datum_quantities_by_quadrature():
    world, c, c_unseen = TwoSensors(0.8, 0.3), 0.4, -1.1

    def joint(z):
        return (
            stats.norm.pdf(z)
            * stats.norm.pdf(c, z, world.noise_seen)
            * stats.norm.pdf(c_unseen, z, world.noise_unseen)
        )

    evidence, mean, square = (
        integrate.quad(lambda z, k=k: joint(z) * z**k, -8, 8, epsabs=1e-14)[0] for k in range(3)
    )
    assert math.log(evidence) == pytest.approx(world.log_evidence(c, c_unseen), abs=1e-9)
    posterior_mean, variance = world.full_posterior(c, c_unseen)
    assert mean / evidence == pytest.approx(posterior_mean, abs=1e-9)
    assert square / evidence - (mean / evidence) ** 2 == pytest.approx(variance, abs=1e-9)
    q = stats.norm(0.2, 0.5)
    elbo = integrate.quad(
        lambda z: q.pdf(z) * (math.log(joint(z)) - q.logpdf(z)), -4, 4, epsabs=1e-12
    )[0]
    assert world.elbo(c, c_unseen, 0.2, 0.25) == pytest.approx(elbo, abs=1e-9)


def test_the_filter_is_the_average_of_the_full_posteriors():
    world, c = TwoSensors(1.0, 0.5), 0.8
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    spread = math.sqrt(world.filter_variance() + world.noise_unseen**2)
    unseen = world.filter().slope * c + spread * nodes
    mean, variance = world.full_posterior(c, unseen)
    z = np.linspace(-3, 4, 29)
    average = stats.norm.pdf(z[:, None], mean, math.sqrt(variance)) @ (weights / weights.sum())
    expected = stats.norm.pdf(z, world.filter().slope * c, math.sqrt(world.filter_variance()))
    np.testing.assert_allclose(average, expected, atol=1e-12)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.999])
def test_a_calibrated_variance_covers_what_it_says(level):
    world = TwoSensors(1.0, 0.25)
    assert world.coverage(level, world.filter_variance()) == pytest.approx(level, abs=1e-14)
    assert world.coverage(level) < level


def test_shapes_broadcast():
    world = TwoSensors(1.0, 0.5)
    c = np.zeros((3, 1))
    assert world.elbo(c, 0.0, np.zeros(4), 1.0).shape == (3, 4)
    assert world.log_evidence(c, np.zeros(4)).shape == (3, 4)
    assert np.shape(world.full_posterior(0.0, 0.0)[0]) == ()


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf"), [1.0, 2.0], "one"])
@pytest.mark.parametrize("which", [0, 1])
def test_bad_noises_are_refused(bad, which):
    noises = [1.0, 1.0]
    noises[which] = bad
    with pytest.raises(ValueError, match=("noise_seen", "noise_unseen")[which]):
        TwoSensors(*noises)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: w.coverage(1.0), "level must lie between 0 and 1"),
        (lambda w: w.coverage(0.0), "level must be greater"),
        (lambda w: w.coverage(0.9, -1.0), "variance must be greater"),
        (lambda w: w.expected_elbo(float("nan"), 1.0), "slope must be finite"),
        (lambda w: w.expected_elbo(0.0, 0.0), "variance must be greater"),
        (lambda w: w.elbo(0.0, float("nan"), 0.0, 1.0), "unseen must be finite"),
        (lambda w: w.elbo(0.0, 0.0, 0.0, [1.0, -1.0]), "variance must be greater"),
        (lambda w: w.kl_to_full_posterior(0.0, 0.0, float("nan"), 1.0), "mean must be finite"),
        (lambda w: w.sample(0, seed=0), "num_samples"),
        (lambda w: w.learn(num_starts=0), "num_starts"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(TwoSensors(1.0, 0.5))


@pytest.mark.parametrize("noises", [(1.0, 0.5), (0.5, 2.0)])
def test_wake_and_sleep_take_turns_until_neither_moves(noises):
    """From far away, with exact steps written out under the law of the data."""
    world = TwoSensors(*noises)
    data = np.eye(2) * np.square(noises) + 1
    v, v_unseen = 5.0, 7.0
    for _ in range(2000):
        slope, variance = 1 / (1 + v), v / (1 + v)  # p_theta(z | c), what q learns asleep
        v = (1 - slope) ** 2 * data[0, 0] + variance
        v_unseen = data[1, 1] - 2 * slope * data[0, 1] + slope**2 * data[0, 0] + variance
    learned = world.learn_wake_sleep()
    np.testing.assert_allclose(
        [learned.variance_seen, learned.variance_unseen], [v, v_unseen], rtol=1e-6
    )
    rest = TwoSensors(math.sqrt(v), math.sqrt(v_unseen))
    model = stats.multivariate_normal(cov=np.eye(2) * [v, v_unseen] + 1)
    # E ln p over data, from the entropy of the data and a divergence of Gaussians.
    inverse = np.linalg.inv(model.cov)
    kl = 0.5 * (
        np.trace(inverse @ data) - 2 + np.log(np.linalg.det(model.cov) / np.linalg.det(data))
    )
    assert learned.log_likelihood_loss == pytest.approx(kl, abs=1e-6)
    # The bound of that q: on data of the law, per datum, averaged by quadrature over both readings.
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    weights = np.outer(weights, weights) / weights.sum() ** 2
    seen, unseen = np.einsum(
        "ij,jab->iab", np.linalg.cholesky(data), np.stack(np.meshgrid(nodes, nodes, indexing="ij"))
    )
    elbo = rest.elbo(seen, unseen, seen / (1 + v), v / (1 + v))
    assert learned.elbo == pytest.approx(np.sum(weights * elbo), abs=1e-6)
