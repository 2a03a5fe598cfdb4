"""The four parts against their definitions: direct optimisation and Monte Carlo at every level."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from tfp_gaps.exact import four_gaps
from tfp_gaps.exact.four_gaps import FAMILIES, FourGaps, GaussianQ

WORLD = FourGaps([[1.0, 0.6], [0.2, 1.0]], [0.7, 1.0], [[1.0, 1.0]], [0.6])


def _random_world(seed, num_latents=2, num_seen=2, num_unseen=2):
    rng = np.random.default_rng(seed)
    return FourGaps(
        rng.normal(size=(num_seen, num_latents)),
        rng.uniform(0.3, 2, num_seen),
        rng.normal(size=(num_unseen, num_latents)),
        rng.uniform(0.3, 2, num_unseen),
    )


SIZES = st.integers(1, 3)


@given(st.integers(0, 10**6), SIZES, SIZES, SIZES, st.sampled_from(FAMILIES), st.integers(0, 3))
def test_parts_are_nonnegative_and_sum_to_the_total(seed, latents, seen, unseen, family, width):
    world = _random_world(seed, latents, seen, unseen)
    parts = world.decompose(width, 5, learning_rate=1e-3, family=family, seed=seed)
    total = parts.evidence - parts.elbo
    # Evidence and ELBO come from the joint, three of the parts from the posterior's precision.
    assert sum(parts[1:5]) == pytest.approx(total, abs=1e-10 * max(1, total))
    assert min(parts[1:5]) >= -1e-10


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(3))
def test_closed_forms_are_differences_of_elbos(family, seed):
    world = _random_world(seed)
    parts = world.decompose(1, 10, learning_rate=1e-3, family=family)
    levels = [
        world.expected_evidence(),
        world.expected_elbo(world.best_per_datum(family)),
        world.expected_elbo(world.best_shared(family)),
        world.expected_elbo(world.best_network(1, family)),
        parts.elbo,
    ]
    np.testing.assert_allclose(-np.diff(levels), parts[1:5], atol=1e-11)


def _unpack_blind(x, num_latents, num_seen, num_unseen):
    weights = x[: num_latents * num_seen].reshape(num_latents, num_seen)
    variances = np.exp(x[num_latents * num_seen :])
    return GaussianQ(weights, np.zeros((num_latents, num_unseen)), np.diag(variances))


@pytest.mark.parametrize("seed", range(3))
def test_best_shared_q_by_direct_search(seed):
    world = _random_world(seed)
    found = optimize.minimize(
        lambda x: -world.expected_elbo(_unpack_blind(x, 2, 2, 2)), np.zeros(6)
    )
    # Finite differences stop within 1e-5 of the optimum, which costs its square.
    assert -found.fun == pytest.approx(world.expected_elbo(world.best_shared()), abs=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_best_per_datum_q_by_direct_search(seed):
    world = _random_world(seed)

    def loss(x):
        weights = x[:8].reshape(2, 4)
        return -world.expected_elbo(
            GaussianQ(weights[:, :2], weights[:, 2:], np.diag(np.exp(x[8:])))
        )

    found = optimize.minimize(loss, np.zeros(10))
    assert -found.fun == pytest.approx(world.expected_elbo(world.best_per_datum()), abs=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_best_narrow_network_by_direct_search(seed):
    world = _random_world(seed)

    def loss(x):
        covariance = np.diag(np.exp(x[4:]))
        return -world.expected_elbo(
            GaussianQ(np.outer(x[:2], x[2:4]), np.zeros((2, 2)), covariance)
        )

    rng = np.random.default_rng(seed)
    best = min(optimize.minimize(loss, rng.normal(size=6)).fun for _ in range(5))
    assert -best == pytest.approx(world.expected_elbo(world.best_network(1)), abs=1e-8)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("width", [0, 1, 2])
def test_long_training_reaches_the_best_network(family, width):
    parts = WORLD.decompose(width, 4000, family=family)
    assert parts.optimisation == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_follows_the_gradient_of_the_elbo(family):
    rng = np.random.default_rng(3)
    mask = np.eye(2) if family == "factorised" else np.tri(2)
    cholesky = mask * np.array([[0.7, 0.0], [0.3, 1.2]])
    start = np.concatenate([rng.normal(size=4), cholesky[mask > 0]])
    is_diagonal = np.concatenate([np.zeros(4, bool), np.eye(2)[mask > 0] > 0])

    def unpack(x):
        factor = np.zeros((2, 2))
        factor[mask > 0] = x[4:]
        return x[:2, None], x[None, 2:4], factor

    def loss(x):
        decoder, encoder, factor = unpack(x)
        q = GaussianQ(decoder @ encoder, np.zeros((2, 1)), factor @ factor.T)
        return -WORLD.expected_elbo(q)

    gradient = optimize.approx_fprime(start, loss, 1e-7)
    # The diagonal of the factor moves in its logarithm, which scales its gradient twice.
    gradient[is_diagonal] *= start[is_diagonal] ** 2
    precision, gain = WORLD.posterior_precision(), WORLD._filter_gain()
    problem = precision, gain, WORLD._seen_covariance(), mask
    rate = 1e-6
    moved = four_gaps._step(*unpack(start), problem, rate)
    moved = np.concatenate([moved[0].ravel(), moved[1].ravel(), moved[2][mask > 0]])
    # One-sided differences are good to the step of 1e-7 times the curvature.
    np.testing.assert_allclose((start - moved) / rate, gradient, atol=1e-4)


def test_elbo_agrees_with_monte_carlo():
    rng = np.random.default_rng(7)
    n = 200_000
    z = rng.normal(size=(n, 2))
    seen = z @ WORLD.emission_seen.T + WORLD.noise_seen * rng.normal(size=(n, 2))
    unseen = z @ WORLD.emission_unseen.T + WORLD.noise_unseen * rng.normal(size=(n, 1))
    q = WORLD.train_network(2, 15)
    noise = rng.multivariate_normal(np.zeros(2), q.covariance, size=n)
    draw = seen @ q.weights_seen.T + unseen @ q.weights_unseen.T + noise
    samples = (
        stats.norm.logpdf(draw).sum(axis=1)
        + stats.norm.logpdf(seen, draw @ WORLD.emission_seen.T, WORLD.noise_seen).sum(axis=1)
        + stats.norm.logpdf(unseen, draw @ WORLD.emission_unseen.T, WORLD.noise_unseen).sum(axis=1)
        - stats.multivariate_normal(cov=q.covariance).logpdf(noise)
    )
    error = samples.std() / math.sqrt(n)
    assert samples.mean() == pytest.approx(WORLD.expected_elbo(q), abs=4 * error)
    readings = np.concatenate([seen, unseen], axis=1)
    log_evidence = stats.multivariate_normal(cov=np.cov(readings.T)).logpdf(readings)
    error = log_evidence.std() / math.sqrt(n)
    assert log_evidence.mean() == pytest.approx(WORLD.expected_evidence(), abs=4 * error)


def test_each_remedy_removes_its_own_part():
    assert WORLD.decompose(1, 15, family="full covariance").approximation == 0
    complete = WORLD.with_all_conditions()
    assert complete.decompose(1, 15).conditioning < 1e-12
    assert complete.expected_evidence() == pytest.approx(WORLD.expected_evidence(), abs=1e-12)
    assert WORLD.decompose(2, 15).capacity < 1e-12
    exact = complete.decompose(2, 6000, family="full covariance")
    assert exact.elbo == pytest.approx(exact.evidence, abs=1e-9)


def test_wider_is_never_worse_and_stops_mattering():
    capacity = [WORLD.decompose(width, 0).capacity for width in range(5)]
    assert capacity[0] > capacity[1] > capacity[2] == capacity[3] == capacity[4] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1.0]], [0.0], [[1.0]], [1.0]), "noise_seen must be greater"),
        (([[1.0]], [1.0], [[1.0]], [-1.0]), "noise_unseen must be greater"),
        (([[float("nan")]], [1.0], [[1.0]], [1.0]), "emission_seen must be finite"),
        (([1.0], [1.0], [[1.0]], [1.0]), "2 dimension"),
        (([[1.0]], [1.0, 2.0], [[1.0]], [1.0]), "one row per entry of noise_seen"),
        (([[1.0]], [1.0], [[1.0, 2.0]], [1.0]), "same latent vector"),
    ],
)
def test_bad_worlds_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        FourGaps(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": -1, "num_steps": 1}, "width must be an integer"),
        ({"width": 1, "num_steps": -1}, "num_steps must be an integer"),
        ({"width": 1.5, "num_steps": 1}, "width must be an integer"),
        ({"width": 1, "num_steps": 1, "learning_rate": 0.0}, "learning_rate must be greater"),
        ({"width": 1, "num_steps": 1, "family": "flow"}, "Unknown family 'flow'"),
        ({"width": 2, "num_steps": 500, "learning_rate": 5.0}, "diverged"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        WORLD.decompose(**options)
