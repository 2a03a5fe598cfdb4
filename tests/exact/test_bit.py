"""The bit against its printed table, quadrature, Monte Carlo, other optimisers and hypothesis."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, optimize, special, stats

from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.exact.bit import Bit

tfd = tfp.distributions

# (m1, s1), (m2, s2), w1 | q_C mean, sd | moment-matched mean, sd | gap | I | cost of moment-matched
# | cost of mixture | KL(q_C, mixture) | mixture at the mean of q_C over its peak
# fmt: off
TABLE = [
    ((-1, 1), (1, 1), 0.5, 0, 1.000, 0, 1.414, 0.5000, 0.3368, 0.6534, 0.6632, 0.1254, 1.0000),
    ((-2, 1), (2, 1), 0.5, 0, 1.000, 0, 2.236, 2.0000, 0.6327, 3.1953, 3.3673, 0.9433, 0.2706),
    ((-3, 1), (3, 1), 0.5, 0, 1.000, 0, 3.162, 4.5000, 0.6893, 7.8487, 8.3107, 2.6934, 0.0222),
    ((-2, 0.5), (2, 0.5), 0.5, 0, 0.500, 0, 2.062, 8.0, 0.6931, 14.5834, 15.3069, 5.4210, 0.0007),
    ((-2, 0.3), (2, 0.3), 0.5, 0, 0.3, 0, 2.022, 22.2222, 0.6931, 42.5362, 43.7513, 17.5472, 0.0),
    ((-2, 1), (2, 0.5), 0.5, 1.2, 0.6325, 0, 2.151, 3.3116, 0.6819, 9.1689, 9.5994, 1.4573, 0.2810),
    ((-2, 1), (2, 0.5), 0.8, 0, 0.7906, -1.2, 1.847, 3.2964, 0.4897, 5.828, 6.0903, 1.7269, 0.1355),
    ((-1, 2), (1, 0.3), 0.3, 0.9809, 0.3569, .4, 1.45, .5442, .416, 8.2242, 8.8147, .2543, .9984),
]
# fmt: on
PARTS = {5: (3.2000, 0.1116), 6: (3.2000, 0.0964), 7: (0.1486, 0.3956)}
HALF_A_DIGIT = 0.5e-4 * 1.001  # numbers are printed to four decimals
THREE_DIGITS = 0.5e-3 * 1.001  # columns that are printed to three


def _world(row):
    (m1, s1), (m2, s2), w1 = row[:3]
    return Bit([m1, m2], [s1, s2], [w1, 1 - w1])


@pytest.mark.parametrize("row", TABLE, ids=lambda row: str(row[:3]))
def test_every_number_of_the_table(row):
    world, printed = _world(row), row[3:]
    shared, matched = world.shared_posterior(), world.moment_matched()
    mixture = world.marginal_posterior()
    peak = mixture.prob(world.marginal_modes()).numpy().max()
    measured = [
        float(shared.loc),
        float(shared.scale),
        float(matched.loc),
        float(matched.scale),
        world.conditioning_gap(),
        world.mutual_information(),
        world.cost_of(matched),
        world.cost_of(mixture),
        world.kl_to_marginal(shared),
        float(mixture.prob(shared.loc)) / peak,
    ]
    tolerance = [HALF_A_DIGIT, HALF_A_DIGIT, THREE_DIGITS, THREE_DIGITS, *[HALF_A_DIGIT] * 6]
    np.testing.assert_array_less(np.abs(np.subtract(measured, printed)), tolerance)


@pytest.mark.parametrize(("index", "parts"), PARTS.items())
def test_parts_of_the_gap(index, parts):
    world = _world(TABLE[index])
    np.testing.assert_allclose(world.conditioning_gap_parts(), parts, atol=HALF_A_DIGIT)
    assert sum(world.conditioning_gap_parts()) == world.conditioning_gap()


LOCS = st.floats(-30, 30)
SCALES = st.floats(0.03, 30)
WORLDS = st.integers(1, 4).flatmap(
    lambda k: st.tuples(
        st.lists(LOCS, min_size=k, max_size=k),
        st.lists(SCALES, min_size=k, max_size=k),
        st.lists(st.floats(0.01, 1), min_size=k, max_size=k),
    )
)


def _random_world(drawn):
    locs, scales, weights = drawn
    return Bit(locs, scales, np.array(weights) / np.sum(weights))


@given(WORLDS)
def test_gap_is_minus_log_normaliser_for_any_number_of_posteriors(drawn):
    world = _random_world(drawn)
    gap = world.conditioning_gap()
    assert gap >= 0
    # Round-off of quadrature relative to the largest log densities involved.
    assert -world.log_normaliser() == pytest.approx(gap, abs=1e-11, rel=1e-11)


@given(WORLDS, LOCS, SCALES)
def test_identity_five_for_any_gaussian(drawn, loc, scale):
    world = _random_world(drawn)
    q = tfd.Normal(np.float64(loc), np.float64(scale))
    cost = world.cost_of(q)
    assert abs(world.identity_residual(q)) <= 1e-10 * max(1.0, cost)
    assert cost >= world.conditioning_gap() - 1e-12 * max(1.0, cost)


@pytest.mark.parametrize(
    "q",
    [
        tfd.Laplace(np.float64(0.3), np.float64(0.7)),
        tfd.StudentT(np.float64(5.0), np.float64(-1.0), np.float64(0.5)),
        tfd.Logistic(np.float64(0.0), np.float64(0.4)),
        Bit([-1, 4], [0.5, 2], [0.3, 0.7]).marginal_posterior(),
    ],
    ids=lambda q: q.name,
)
def test_identity_five_for_other_families(q):
    world = Bit([-2, 1, 3], [1, 0.5, 2], [0.2, 0.5, 0.3])
    assert abs(world.identity_residual(q)) < 1e-10


@given(WORLDS)
def test_mixture_costs_mean_pairwise_kl_minus_information(drawn):
    world = _random_world(drawn)
    cost = world.cost_of(world.marginal_posterior())
    expected = world.mean_pairwise_kl() - world.mutual_information()
    assert cost == pytest.approx(expected, rel=1e-10, abs=1e-10)
    entropy = -np.sum(world.probs * np.log(world.probs))
    # Information is not negative and at most the entropy of the excluded condition; round-off.
    assert -1e-12 <= world.mutual_information() <= entropy + 1e-12


@given(st.floats(0, 20), st.floats(0.1, 10))
def test_equal_widths_have_mean_pairwise_kl_of_twice_the_gap(distance, scale):
    world = Bit([0, distance], [scale, scale], [0.5, 0.5])
    gap = distance**2 / (8 * scale**2)
    assert world.conditioning_gap() == pytest.approx(gap, rel=1e-12, abs=1e-15)
    assert world.mean_pairwise_kl() == pytest.approx(2 * gap, rel=1e-12, abs=1e-15)
    overlap = 2 * stats.norm.cdf(-distance / (2 * scale))
    assert world.overlap() == pytest.approx(overlap, rel=1e-10, abs=1e-15)


@given(WORLDS, st.sampled_from([1e-6, 1e6]), st.floats(-1e3, 1e3))
def test_units_and_origin_do_not_matter(drawn, unit, shift):
    world = _random_world(drawn)
    moved = Bit(unit * (world.locs + shift), unit * world.scales, world.probs)
    # Shifting by 1e3 loses 1e-13 of a location, against scales down to .03.
    for name in ("conditioning_gap", "mutual_information", "overlap"):
        expected = getattr(world, name)()
        assert getattr(moved, name)() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_a_thousand_standard_deviations_apart(unit):
    world = Bit([-500 * unit, 500 * unit], [unit, unit], [0.5, 0.5])
    assert world.conditioning_gap() == pytest.approx(125_000, rel=1e-14)
    assert -world.log_normaliser() == pytest.approx(125_000, rel=1e-12)
    assert world.mutual_information() == pytest.approx(math.log(2), abs=1e-12)
    cost = 250_000 - math.log(2)
    assert world.cost_of(world.marginal_posterior()) == pytest.approx(cost, rel=1e-12)
    # KL to a mixture whose logarithm has a kink a thousandth of a standard deviation wide: the
    # integral of the kink alone, the mean of |z| under the matched Gaussian, is known.
    matched = world.moment_matched()
    sd = math.sqrt(500**2 + 1)
    cross = (sd**2 + 500**2) / 2 - 500 * sd * math.sqrt(2 / math.pi)
    expected = -0.5 - math.log(sd) + cross + math.log(2)
    # Neglected: ln(1 + e^-2|..|) at the kink, of the order of 1 / (sd * slope).
    assert world.kl_to_marginal(matched) == pytest.approx(expected, abs=1e-5)
    seeking = world.mode_seeking(seed=0)
    assert abs(float(seeking.loc)) / unit == pytest.approx(500, abs=1e-6)
    assert float(seeking.scale) / unit == pytest.approx(1, abs=1e-6)


def test_scales_a_trillion_apart():
    world = Bit([0, 1.0], [1e-6, 1e6], [0.5, 0.5])
    assert -world.log_normaliser() == pytest.approx(world.conditioning_gap(), rel=1e-12)
    assert world.mutual_information() == pytest.approx(math.log(2), abs=1e-9)
    assert world.kl_to_marginal(world.mode_seeking()) == pytest.approx(math.log(2), abs=1e-9)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: str(row[:3]))
def test_costs_agree_with_another_quadrature(row):
    world = _world(row)
    matched = world.moment_matched()
    densities = [
        (matched, stats.norm(float(matched.loc), float(matched.scale)).logpdf),
        (
            world.marginal_posterior(),
            lambda z: special.logsumexp(
                stats.norm.logpdf(z, world.locs, world.scales), b=world.probs
            ),
        ),
    ]
    for q, log_density in densities:

        def integrand(z, log_density=log_density):
            log_q = log_density(z)
            full = stats.norm.logpdf(z, world.locs, world.scales)
            return np.exp(log_q) * (log_q - world.probs @ full)

        cuts = sorted({*world.locs, float(matched.loc)})
        expected, _ = integrate.quad(integrand, -25, 25, points=cuts, limit=400, epsabs=1e-9)
        assert world.cost_of(q) == pytest.approx(expected, abs=1e-7)


def test_information_agrees_with_monte_carlo():
    world = Bit([-1, 1, 4], [2, 0.3, 1], [0.3, 0.5, 0.2])
    rng = np.random.default_rng(0)
    which = rng.choice(3, p=world.probs, size=200_000)
    z = rng.normal(world.locs[which], world.scales[which])
    full = stats.norm.logpdf(z, world.locs[which], world.scales[which])
    ratio = full - world.marginal_posterior().log_prob(z).numpy()
    error = ratio.std() / math.sqrt(ratio.size)
    assert world.mutual_information() == pytest.approx(ratio.mean(), abs=4 * error)


def test_moment_matching_is_the_forward_optimum():
    world = Bit([-2, 2, 3], [1, 0.5, 0.2], [0.5, 0.2, 0.3])
    mixture, matched = world.marginal_posterior(), world.moment_matched()
    z = mixture.sample(200_000, seed=3).numpy()
    # Maximum likelihood on samples; standard errors of mean and sd are below sd / sqrt(n) each.
    error = float(matched.scale) / math.sqrt(z.size)
    assert float(matched.loc) == pytest.approx(z.mean(), abs=4 * error)
    assert float(matched.scale) == pytest.approx(z.std(), abs=4 * error)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: str(row[:3]))
def test_mode_seeking_beats_a_search_by_brute_force(row):
    world = _world(row)
    grid = np.linspace(-15, 15, 3001)
    log_full = stats.norm.logpdf(grid[:, None], world.locs, world.scales)
    log_p = special.logsumexp(log_full, b=world.probs, axis=1)

    def kl(parameters):
        if abs(parameters[0]) > 3 or abs(parameters[1]) > 1.3:
            return np.inf  # off the grid
        log_q = stats.norm.logpdf(grid, parameters[0], math.exp(parameters[1]))
        return float(np.sum(np.exp(log_q) * (log_q - log_p)) * (grid[1] - grid[0]))

    corners = [(m, ln_s) for m in (-2.5, -1, 0, 1, 2.5) for ln_s in (-1, 0.5)]
    found = [optimize.minimize(kl, corner, method="Nelder-Mead") for corner in corners]
    best = min(result.fun for result in found)
    seeking = world.mode_seeking(seed=1)
    # The simplex stops within 1e-4 of its optimum, which costs its square.
    assert world.kl_to_marginal(seeking) == pytest.approx(best, abs=1e-6)
    assert world.kl_to_marginal(seeking) <= best + 1e-9


def test_mode_seeking_does_not_depend_on_the_seed_and_breaks_ties_by_order():
    world = Bit([2, -2], [0.5, 0.5], [0.5, 0.5])
    found = {round(float(world.mode_seeking(seed=seed).loc), 6) for seed in range(4)}
    assert len(found) == 1 and found.pop() == pytest.approx(2, abs=1e-3)


def test_modes_appear_when_the_means_are_more_than_two_widths_apart():
    counts = [
        len(Bit([-m, m], [1, 1], [0.5, 0.5]).marginal_modes()) for m in (0.5, 0.99, 1.0, 1.01, 2)
    ]
    assert counts == [1, 1, 1, 2, 2]


@pytest.mark.parametrize("index", range(len(TABLE)))
def test_no_density_at_all_does_better_than_the_shared_posterior(index):
    world = _world(TABLE[index])
    grid, density, cost = world.minimise_over_densities(seed=index)
    # Trapezoid sums of Gaussians that fit the grid are exact to round-off; at 12 moment-matched
    # standard deviations per 401 points all of them do.
    assert cost == pytest.approx(world.conditioning_gap(), abs=1e-8)
    np.testing.assert_allclose(density, world.shared_posterior().prob(grid), atol=1e-8)


def test_the_same_optimum_by_an_optimiser_that_knows_no_mirror():
    world = Bit([-1, 1], [1, 0.7], [0.6, 0.4])
    grid = np.linspace(-4, 4, 41)
    spacing = grid[1] - grid[0]
    target = stats.norm.logpdf(grid[:, None], world.locs, world.scales) @ world.probs

    def cost(mass):
        return mass @ (np.log(mass / spacing) - target)

    found = optimize.minimize(
        cost,
        np.full(41, 1 / 41),
        jac=lambda mass: np.log(mass / spacing) + 1 - target,
        method="SLSQP",
        bounds=[(1e-12, 1)] * 41,
        constraints={"type": "eq", "fun": lambda m: m.sum() - 1, "jac": lambda m: np.ones(41)},
        options={"maxiter": 2000, "ftol": 1e-13},
    )
    # The cut at -4 and 4 costs 2e-6; an objective good to 1e-6 fixes densities to about 1e-3.
    assert found.fun == pytest.approx(world.conditioning_gap(), abs=1e-5)
    density = world.shared_posterior().prob(grid).numpy()
    np.testing.assert_allclose(found.x / spacing, density, atol=1e-3)


def test_marginal_is_the_average_and_shared_the_geometric_mean():
    world = Bit([-2, 1, 3], [1, 0.5, 2], [0.2, 0.5, 0.3])
    z = np.linspace(-8, 10, 37)
    full = world.full_posteriors().prob(z[:, None]).numpy()
    np.testing.assert_allclose(world.marginal_posterior().prob(z), full @ world.probs, rtol=1e-12)
    geometric = np.exp(np.log(full) @ world.probs + world.conditioning_gap())
    np.testing.assert_allclose(world.shared_posterior().prob(z), geometric, rtol=1e-11)


def test_distributions_are_float64_and_scalar():
    world = Bit([-1, 1], [1, 1], [0.5, 0.5])
    assert world.full_posteriors().batch_shape == [2]
    for q in (
        world.marginal_posterior(),
        world.shared_posterior(),
        world.moment_matched(),
        world.mode_seeking(),
    ):
        assert q.dtype == tf.float64 and q.batch_shape == [] and q.event_shape == []


def test_gap_vanishes_only_where_the_condition_does_not_matter():
    assert Bit([1, 1], [2, 2], [0.3, 0.7]).conditioning_gap() == 0
    assert Bit([1], [2], [1]).conditioning_gap() == 0
    # What never occurs does not count.
    assert Bit([1, 9], [2, 1], [1, 0]).conditioning_gap() == 0
    assert Bit([1, 1.001], [2, 2], [0.3, 0.7]).conditioning_gap() > 0
    assert Bit([1, 1], [2, 2.001], [0.3, 0.7]).conditioning_gap() > 0


def test_what_never_occurs_changes_no_number():
    two, three = Bit([-2, 2], [1, 0.5], [0.8, 0.2]), Bit([-2, 2, 9], [1, 0.5, 0.1], [0.8, 0.2, 0])
    for name in ("conditioning_gap", "mutual_information", "overlap", "log_normaliser"):
        assert getattr(three, name)() == pytest.approx(getattr(two, name)(), abs=1e-12)
    assert three.cost_of(two.moment_matched()) == pytest.approx(two.cost_of(two.moment_matched()))
    np.testing.assert_allclose(three.marginal_modes(), two.marginal_modes())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1], [1, 1], [0.5, 0.6]), "sum 1.1"),
        (([0, 1], [1, 1], [1.5, -0.5]), "non-negative"),
        (([0, 1], [1, 1], [0.5, float("nan")]), "probs must be finite"),
        (([0, 1], [1, 0], [0.5, 0.5]), "scales must be greater than zero"),
        (([0, 1], [1, -1], [0.5, 0.5]), "scales must be greater than zero"),
        (([0, 1], [1, float("inf")], [0.5, 0.5]), "scales must be finite"),
        (([0, float("nan")], [1, 1], [0.5, 0.5]), "locs must be finite"),
        (([0, 1, 2], [1, 1], [0.5, 0.5]), "same length"),
        ((0.0, 1.0, 1.0), "1 dimension"),
        (([], [], []), "sum to one"),
        ((["a", "b"], [1, 1], [0.5, 0.5]), "real numbers"),
    ],
)
def test_bad_worlds_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Bit(*arguments)


@pytest.mark.parametrize(
    ("q", "message"),
    [
        (tfd.Normal(0.0, 1.0), "float32"),
        (tfd.Normal(np.zeros(2), np.ones(2)), r"shapes \(2,\)"),
        (tfd.MultivariateNormalDiag(np.zeros(1)), "shapes"),
        (tfd.Cauchy(np.float64(0), np.float64(1)), "finite mean"),
        (stats.norm(), "type"),
        # Fifty spikes that no panel resolves: refused rather than integrated wrongly.
        (
            tfd.MixtureSameFamily(
                tfd.Categorical(probs=np.full(50, 0.02)),
                tfd.Normal(np.linspace(-3.3, 3.7, 50), np.full(50, 1e-5)),
            ),
            "integrates to",
        ),
    ],
    ids=["float32", "batch", "vector", "no moments", "not tfd", "too fine"],
)
def test_distributions_that_cannot_be_integrated_are_refused(q, message):
    with pytest.raises(ValueError, match=message):
        Bit([-1, 1], [1, 1], [0.5, 0.5]).cost_of(q)


@pytest.mark.parametrize(
    "call",
    [
        lambda world: world.minimise_over_densities(num_points=2),
        lambda world: world.minimise_over_densities(half_width=0),
        lambda world: world.minimise_over_densities(num_steps=0),
        lambda world: world.mode_seeking(num_random_starts=-1),
    ],
)
def test_bad_options_are_refused(call):
    with pytest.raises(ValueError, match="must be"):
        call(Bit([-1, 1], [1, 1], [0.5, 0.5]))
