"""The epidemic against dense Markov chains, its own simulations, and TFP's divergences."""

import numpy as np
import pytest
from scipy import integrate, stats

from tfp_gaps._tensorflow import tfp
from tfp_gaps.exact.epidemic import Epidemic, Outbreaks

tfd = tfp.distributions
WORLD = Epidemic(4)
OUTBREAKS = WORLD.sample(40_000, seed=0)


def select(outbreaks, index):
    return Outbreaks(*(part[index] for part in outbreaks))


def chain(ratio, num_susceptible):
    """P(n), and E of exposure and burden where n, at recovery rate one: by inverting the chain."""
    states = [(s, i) for s in range(num_susceptible + 1) for i in range(1, num_susceptible - s + 2)]
    place = {state: index for index, state in enumerate(states)}
    moves = np.zeros([len(states)] * 2)
    ends = np.zeros([len(states), num_susceptible + 1])
    spent = np.zeros([2, len(states)])
    for (s, i), index in place.items():
        hazards = np.array([ratio * s * i / (num_susceptible + 1), i])
        infection, recovery = hazards / hazards.sum()
        spent[:, index] = np.array([s * i / (num_susceptible + 1), i]) / hazards.sum()
        if s:
            moves[index, place[s - 1, i + 1]] = infection
        if i > 1:
            moves[index, place[s, i - 1]] = recovery
        else:
            ends[index, num_susceptible - s] = recovery
    visits = np.linalg.inv(np.eye(len(states)) - moves)
    start, absorbed = place[num_susceptible, 1], visits @ ends
    times = [(visits[start] * row) @ absorbed for row in spent]
    return np.stack([absorbed[start], *times])


def test_sizes_and_expected_times_against_the_dense_chain():
    """Over the prior: the ratio is beta-prime, and 1 / recovery given it has the mean below."""
    (a, b), (c, d) = WORLD.shapes, WORLD.prior_rates

    def integrand(y):  # the quantile of the ratio
        ratio = stats.betaprime.ppf(y, a, b) * d / c
        return chain(ratio, 4) * np.array([[1.0], *[[(c * ratio + d) / (a + b - 1)]] * 2])

    probs, exposure, burden = integrate.quad_vec(integrand, 0, 1, epsabs=1e-7)[0]
    np.testing.assert_allclose(WORLD.size_probs(), probs, atol=1e-6)
    np.testing.assert_allclose(WORLD.expected_statistics()[0], exposure / probs, rtol=1e-5)
    np.testing.assert_allclose(WORLD.expected_statistics()[1], burden / probs, rtol=1e-5)


def test_simulated_outbreaks_have_these_sizes_and_times():
    counts = np.bincount(OUTBREAKS.cases, minlength=5)
    assert stats.chisquare(counts, counts.sum() * WORLD.size_probs()).pvalue > 1e-3
    for n in WORLD.sizes:
        own = select(OUTBREAKS, OUTBREAKS.cases == n)
        for found, expected in zip(own[2:], WORLD.expected_statistics()[:, n], strict=True):
            assert abs(found.mean() - expected) < 4 * found.std() / np.sqrt(found.size)


def test_the_full_posterior_is_calibrated():
    """Where the true rates lie in it is uniform only if simulator and likelihood agree."""
    below = WORLD.full_posterior(OUTBREAKS).cdf(OUTBREAKS.rates).numpy()
    for column in below.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    # One digit of the exposure wrong is seen.
    wrong = OUTBREAKS._replace(exposure=1.1 * OUTBREAKS.exposure)
    moved = WORLD.full_posterior(wrong).cdf(OUTBREAKS.rates).numpy()[:, 0]
    assert stats.kstest(moved, "uniform").pvalue < 1e-6


@pytest.mark.parametrize("n", [0, 2, 4])
def test_the_mixture_is_the_average_of_simulated_full_posteriors(n):
    own = select(OUTBREAKS, np.flatnonzero(OUTBREAKS.cases == n)[:2000])
    contact, recovery = np.meshgrid(np.arange(-5, 3, 0.1), np.arange(-5, 3, 0.1), indexing="ij")
    nodes = np.stack([contact, recovery], axis=-1)
    full = WORLD.full_posterior(own)
    log_density = [
        full[:, i].log_prob(np.exp(x)[..., None]).numpy() for i, x in enumerate((contact, recovery))
    ]
    mean = np.mean(np.exp(sum(log_density)), axis=-1) * np.exp(nodes.sum(-1)) * 0.01
    mixture = np.exp(WORLD.log_mixture(nodes)[n]) * 0.01
    assert mixture.sum() == pytest.approx(1, abs=1e-3)
    # Total variation of a mean of 2000 densities: a percent or two; of other sizes, over a tenth.
    assert 0.5 * np.abs(mean - mixture).sum() < 0.03


@pytest.mark.parametrize("name", ["log_recovery", "log_ratio"])
def test_distribution_functions_of_the_mixture(name):
    log_contact, log_recovery = np.log(OUTBREAKS.rates).T
    drawn = log_recovery if name == "log_recovery" else log_contact - log_recovery
    values = np.tile([-1.0, 0.0, 0.7], [5, 1])
    below = WORLD.mixture_below(**{name: values})
    for n in WORLD.sizes:
        own = drawn[OUTBREAKS.cases == n]
        shares = np.mean(own[:, np.newaxis] < values[n], axis=0)
        error = np.sqrt(below[n] * (1 - below[n]) / own.size) + 1e-4
        assert np.all(np.abs(shares - below[n]) < 4 * error)


def test_the_product_has_the_gap_of_tfps_divergence_and_no_other_gamma_a_smaller_one():
    product, full = WORLD.product(), WORLD.full_posterior(OUTBREAKS)
    shapes, rates = (p.numpy()[OUTBREAKS.cases] for p in (product.concentration, product.rate))

    def cost(factor):
        q = tfd.Gamma(shapes, rates * np.asarray(factor))
        return tfd.kl_divergence(q, full).numpy().sum(-1)

    np.testing.assert_allclose(WORLD.product_gap(OUTBREAKS), cost(1.0), rtol=1e-6, atol=1e-9)
    for factor in ([1.1, 1], [1 / 1.1, 1], [1, 1.1], [1, 1 / 1.1]):
        worse = cost(factor) - cost(1.0)
        assert worse.mean() > 3 * worse.std() / np.sqrt(worse.size)


def test_one_person_by_hand():
    """P(nobody is infected | ratio R) = 1 / (1 + R / 2)."""
    world = Epidemic(1)
    density = stats.betaprime(3, 3, scale=2)
    expected = density.expect(lambda ratio: 1 / (1 + ratio / 2))
    assert world.size_probs()[0] == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0,), "num_susceptible"), ((5, (1.0, 3.0)), "at least 2"), ((5, (3.0,)), "a number each")],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        Epidemic(*arguments)
