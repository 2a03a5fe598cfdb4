"""Models learned for control: the tables, a chain without controls as oracle, beliefs.

The oracle of the bound: a chain that *observes* its last control through a tiny noise is a chain
without inputs, and a network that sees (x_s, u_{s-1}) up to s = t + k sees what the module says.
"""

import dataclasses
import functools

import numpy as np
import pytest
import scipy.linalg

from tfp_gaps.exact import linear_gaussian as lg
from tfp_gaps.exact import linear_gaussian_learning, lqg, lqg_belief
from tfp_gaps.exact import lqg_learning as learning
from tfp_gaps.exact._numerics import riccati
from tfp_gaps.exact.lqg import System

TABLE_NOISES = (0.01, 0.1, 1.0, 10.0)
EXPLORATION = 0.25
# Half a unit of the last printed digit, and a little for printed halves.
FOUR_DIGITS, THREE_DIGITS = 5.1e-5, 5.1e-4


def table_system(transition, emission_cov):
    """The systems of the three tables: T = 20, b = .5, start 1.6667 or 1."""
    initial = 1 / 0.6 if transition == 0.95 else 1.0
    return System(
        transition, 0.5, 0.1, 1.0, emission_cov, initial, state_cost=1.0, control_cost=0.1
    )


def loud_system(emission_cov):
    """b = 1, T = 10: more of the cost is at stake."""
    return System.stationary(
        transition=0.95,
        control=1.0,
        transition_cov=0.1,
        emission=1.0,
        emission_cov=emission_cov,
        state_cost=1.0,
        control_cost=0.1,
        exploration_cov=EXPLORATION,
    )


def position_velocity(emission_cov):
    return System.stationary(
        transition=[[1.0, 0.3], [-0.1, 0.95]],
        control=[[0.0], [0.3]],
        transition_cov=np.diag([1e-4, 0.04]),
        emission=[[1.0, 0.0]],
        emission_cov=emission_cov,
        state_cost=np.diag([1.0, 0.0]),
        control_cost=0.1,
        exploration_cov=1.0,
    )


@pytest.fixture(scope="module")
def optima():
    """`local_optima` of a table's entry, computed once."""

    @functools.cache
    def fit(transition, emission_cov, lookahead):
        system = table_system(transition, emission_cov)
        return learning.local_optima(
            system, 20, lookahead, exploration_cov=EXPLORATION, num_starts=3
        )

    return fit


def parameters(model):
    return [
        getattr(model, name).item()
        for name in ("transition", "control", "transition_cov", "emission_cov")
    ]


def random_system(state_size, seed, *, channels=2, controls=2):
    rng = np.random.default_rng([state_size, seed])

    def covariance(size):
        root = rng.standard_normal((size, size))
        return 0.3 * root @ root.T + 0.2 * np.eye(size)

    transition = rng.standard_normal((state_size, state_size))
    emission = rng.standard_normal((channels, state_size))
    return System(
        transition=transition * 0.9 / riccati.spectral_radius(transition),
        control=rng.standard_normal((state_size, controls)),
        transition_cov=covariance(state_size),
        emission=emission,
        emission_cov=covariance(channels),
        initial_cov=covariance(state_size),
        state_cost=emission.T @ emission,
        control_cost=np.eye(controls),
    )


# The bound --------------------------------------------------------------------------------------


def without_inputs(system, exploration_cov, noise):
    """Chain of (z_t, u_{t-1}) that emits (x_t, u_{t-1} + noise); u_0 exists and does nothing."""
    n, controls = system.control.shape
    spread = np.vstack([system.control, np.eye(controls)])
    driven = scipy.linalg.block_diag(system.transition_cov, np.zeros((controls, controls)))
    return lg.LinearGaussian(
        np.block(
            [
                [system.transition, np.zeros((n, controls))],
                [np.zeros((controls, n + controls))],
            ]
        ),
        driven + spread @ exploration_cov @ spread.T,
        scipy.linalg.block_diag(system.emission, np.eye(controls)),
        scipy.linalg.block_diag(system.emission_cov, noise * np.eye(controls)),
        scipy.linalg.block_diag(system.initial_cov, exploration_cov),
    )


@pytest.mark.parametrize("lookahead", [0, 1, 3, None])
@pytest.mark.parametrize("sizes", [(1, 1), (2, 2), (2, 1), (1, 3)])
def test_bound_matches_a_chain_that_observes_its_controls(sizes, lookahead):
    system, model = (random_system(size, seed) for seed, size in enumerate(sizes))
    exploration_cov = np.array([[0.5, 0.2], [0.2, 0.3]])
    found = learning.population_elbo(system, model, 5, lookahead, exploration_cov=exploration_cov)
    noise = 1e-9
    chains = [without_inputs(s, exploration_cov, noise) for s in (system, model)]
    # The chain also models the controls: 5 draws of N(0, S + noise).
    of_controls = (
        2.5 * np.linalg.slogdet(2 * np.pi * np.e * (exploration_cov + noise * np.eye(2)))[1]
    )
    expected = lg.population_elbo(*chains, 5, lookahead) + of_controls
    # The tiny noise shifts the bound by its share of what controls explain: 1e-9 times 1e2.
    assert found == pytest.approx(expected, abs=1e-6)


def test_controls_change_nothing_at_the_truth_and_cost_where_the_model_mistakes_them():
    system = random_system(2, 3)
    chain = lg.LinearGaussian(
        *(
            getattr(system, name)
            for name in (
                "transition", "transition_cov", "emission", "emission_cov", "initial_cov"
            )
        )
    )  # fmt: skip
    for lookahead in (0, 2, None):
        found = learning.population_elbo(system, system, 6, lookahead, exploration_cov=np.eye(2))
        expected = lg.population_elbo(chain, chain, 6, lookahead)
        assert found == pytest.approx(expected, rel=1e-10)
    truth = learning.log_likelihood(system, system, 6, exploration_cov=np.eye(2))
    doubled = dataclasses.replace(system, control=2 * system.control)
    assert learning.log_likelihood(system, doubled, 6, exploration_cov=np.eye(2)) < truth - 1


# The tables -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("emission_cov", "kind", "learned", "gap", "cost"),
    [
        (0.01, "autoregressive", (0.9443, 0.5, 0.1190, 0.0), 0.0359, 0.1361),
        (0.1, "autoregressive", (0.8962, 0.5, 0.2851, 0.0), 0.1406, 0.2050),
        (1.0, "autoregressive", (0.5937, 0.5, 1.6641, 0.0), 0.1401, 0.5000),
        (10.0, "output error", (0.95, 0.5, 0.0, 11.312), 0.0439, 1.0256),
    ],
)
def test_partial_learning_table(optima, emission_cov, kind, learned, gap, cost):
    best = optima(0.95, emission_cov, 0)[0]
    assert best.kind == kind
    np.testing.assert_allclose(parameters(best.model), learned, atol=FOUR_DIGITS, rtol=5e-5)
    assert best.cost == pytest.approx(cost, abs=FOUR_DIGITS)
    system = table_system(0.95, emission_cov)
    bounds = [
        learning.population_elbo(system, system, 20, k, exploration_cov=EXPLORATION)
        for k in (None, 0)
    ]
    assert (bounds[0] - bounds[1]) / 20 == pytest.approx(gap, abs=FOUR_DIGITS)


@pytest.mark.parametrize(
    ("transition", "lookahead", "ratios"),
    [
        (0.95, 0, (1.005, 1.135, 1.477, 1.542)),
        (0.95, 1, (1.000, 1.011, 1.098, 1.091)),
        (0.95, 2, (1.000, 1.001, 1.046, 1.064)),
        (0.95, 4, (1.000, 1.000, 1.010, 1.042)),
        (1.0, 0, (1.005, 1.156, 1.160, np.inf)),
        (1.0, 1, (1.000, 1.013, 1.121, 1.071)),
        (1.0, 2, (1.000, 1.001, 1.059, 1.051)),
        (1.05, 0, (1.006, 1.184, 1.222, 1.008)),
        (1.05, 1, (1.000, 1.016, 1.161, 1.093)),
        (1.05, 2, (1.000, 1.002, 1.080, 1.086)),
    ],
)
def test_cost_ratios_table(optima, transition, lookahead, ratios):
    for emission_cov, ratio in zip(TABLE_NOISES, ratios, strict=True):
        best = optima(transition, emission_cov, lookahead)[0]
        optimum = lqg.optimal_cost(table_system(transition, emission_cov))
        assert best.cost / optimum == pytest.approx(ratio, abs=THREE_DIGITS)


def test_full_conditions_recover_the_truth():
    system = table_system(1.05, 1.0)
    for from_truth in (True, False):
        best = learning.learn(
            system, 20, None, exploration_cov=EXPLORATION, num_starts=2, from_truth=from_truth
        )
        np.testing.assert_allclose(parameters(best.model), parameters(system), rtol=1e-3)
        assert best.cost == pytest.approx(lqg.optimal_cost(system), rel=1e-5)


def test_competing_optima_differ_little_in_the_bound_and_much_in_cost(optima):
    interior, autoregressive = optima(1.0, 1.0, 0)[:2]
    assert [o.kind for o in (interior, autoregressive)] == ["interior", "autoregressive"]
    np.testing.assert_allclose(
        parameters(interior.model), (0.891, 0.534, 0.632, 0.830), atol=THREE_DIGITS
    )
    assert (interior.elbo - autoregressive.elbo) / 20 == pytest.approx(0.0006, abs=FOUR_DIGITS)
    optimum = lqg.optimal_cost(table_system(1.0, 1.0))
    assert autoregressive.cost / optimum == pytest.approx(1.629, abs=THREE_DIGITS)
    # High noise: the open loop wins the bound, the autoregression would have cost less.
    best, second = optima(0.95, 10.0, 0)[:2]
    assert (best.kind, second.kind) == ("output error", "autoregressive")
    assert [-o.elbo / 20 for o in (best, second)] == pytest.approx(
        [2.6319, 2.6359], abs=FOUR_DIGITS
    )
    assert second.model.transition.item() == pytest.approx(0.1357, abs=FOUR_DIGITS)
    assert second.cost / lqg.optimal_cost(table_system(0.95, 10.0)) == pytest.approx(
        1.132, abs=THREE_DIGITS
    )


def test_more_look_ahead_is_not_always_better_after_learning(optima):
    system = table_system(1.05, 10.0)
    truth = learning.log_likelihood(system, system, 20, exploration_cov=EXPLORATION)
    losses = []
    for lookahead in (0, 1, 2):
        model = optima(1.05, 10.0, lookahead)[0].model
        found = learning.log_likelihood(system, model, 20, exploration_cov=EXPLORATION)
        losses.append((truth - found) / 20)
    assert losses == pytest.approx([0.0167, 0.0252, 0.0174], abs=FOUR_DIGITS)


def test_controls_look_stronger_under_semi_conditions(optima):
    ratios = [
        optima(a, r, k)[0].model.control.item() / 0.5
        for a in (0.95, 1.0, 1.05)
        for r in TABLE_NOISES
        for k in (1, 2)
    ]
    assert min(ratios) > 1 - 1e-5
    # The largest of the three tables is a = 1, R = 10, k = 1.
    assert max(ratios) == pytest.approx(1.28, abs=5e-3)


def test_the_closed_form_is_the_optimum_that_the_search_finds(optima):
    for transition, emission_cov in ((0.95, 0.1), (0.95, 1.0), (1.0, 1.0), (1.05, 0.1)):
        system = table_system(transition, emission_cov)
        exact = learning.autoregression(system, 20, exploration_cov=EXPLORATION)
        found = next(o for o in optima(transition, emission_cov, 0) if o.kind == "autoregressive")
        assert found.elbo == pytest.approx(exact.elbo, abs=1e-8)
        assert found.cost == pytest.approx(exact.cost, rel=1e-5)
        np.testing.assert_allclose(parameters(found.model), parameters(exact.model), atol=1e-5)
        tight = learning.population_elbo(system, exact.model, 20, 0, exploration_cov=EXPLORATION)
        assert tight == pytest.approx(exact.elbo, abs=1e-10)


def test_stationary_closed_form():
    system, variance = table_system(0.95, 0.3), 1 / 0.6
    model = learning.autoregression(system, 20, exploration_cov=EXPLORATION).model
    shrunk = 0.95 * variance / (variance + 0.3)
    noise = 0.95**2 * variance + 0.1 + 0.3 - shrunk**2 * (variance + 0.3)
    # The start is the stationary law to the digits of 1.6667.
    np.testing.assert_allclose(parameters(model), (shrunk, 0.5, noise, 0.0), atol=1e-12)


# More of the cost at stake ----------------------------------------------------------------------


def test_closed_form_ratios_rise_and_fall():
    noises = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    ratios = (1.001, 1.006, 1.037, 1.187, 1.540, 2.096, 2.330, 2.061, 1.664, 1.317)
    for emission_cov, ratio in zip(noises, ratios, strict=True):
        system = loud_system(emission_cov)
        found = learning.autoregression(system, 10, exploration_cov=EXPLORATION)
        assert found.cost / lqg.optimal_cost(system) == pytest.approx(ratio, abs=THREE_DIGITS)


@pytest.mark.parametrize(
    ("emission_cov", "learned", "without_filter", "wrong_dynamics"),
    [
        (0.1, 1.187, 1.216, 1.001),
        (0.3, 1.540, 1.716, 1.012),
        (1.0, 2.096, 3.097, 1.173),
        (3.0, 2.330, 6.005, 1.590),
        (10.0, 2.061, 13.77, 1.490),
    ],
)
def test_decomposition_table(emission_cov, learned, without_filter, wrong_dynamics):
    system = loud_system(emission_cov)
    model = learning.autoregression(system, 10, exploration_cov=EXPLORATION).model
    parts = lqg.decompose(system, model)
    found = [p / parts.optimal for p in (parts.learned, parts.without_filter, parts.wrong_dynamics)]
    expected = [learned, without_filter, wrong_dynamics]
    assert found == pytest.approx(expected, abs=THREE_DIGITS, rel=4e-4)


@pytest.mark.parametrize(
    ("emission_cov", "lookahead", "ratio"), [(1.0, 1, 1.189), (3.0, 2, 1.229), (0.3, 4, 1.001)]
)
def test_semi_conditions_cost_less(emission_cov, lookahead, ratio):
    system = loud_system(emission_cov)
    best = learning.learn(system, 10, lookahead, exploration_cov=EXPLORATION, num_starts=1)
    assert best.cost / lqg.optimal_cost(system) == pytest.approx(ratio, abs=THREE_DIGITS)


def test_the_best_bound_at_high_noise_is_autoregressive_although_it_costs_more():
    system = loud_system(10.0)
    best, second = learning.local_optima(system, 10, 0, exploration_cov=EXPLORATION)[:2]
    assert (best.kind, second.kind) == ("autoregressive", "output error")
    assert [o.elbo / 10 for o in (best, second)] == pytest.approx(
        [-2.6854, -2.6902], abs=FOUR_DIGITS
    )
    optimum = lqg.optimal_cost(system)
    assert [o.cost / optimum for o in (best, second)] == pytest.approx(
        [2.061, 1.560], abs=THREE_DIGITS
    )


# Position and velocity --------------------------------------------------------------------------


def test_hidden_velocity_makes_partial_learning_expensive():
    system = position_velocity(0.1)
    optimum = lqg.optimal_cost(system)
    assert optimum == pytest.approx(0.2585, abs=FOUR_DIGITS)
    partial, full = (
        learning.learn(system, 8, k, exploration_cov=1.0, num_starts=2) for k in (0, None)
    )
    truth = learning.log_likelihood(system, system, 8, exploration_cov=1.0)
    assert full.cost / optimum == pytest.approx(1.0, abs=1e-4)
    assert full.elbo == pytest.approx(truth, abs=1e-6)
    loss = truth - learning.log_likelihood(system, partial.model, 8, exploration_cov=1.0)
    assert loss / 8 == pytest.approx(0.0905, abs=FOUR_DIGITS)
    assert partial.cost / optimum == pytest.approx(1.914, abs=2e-3)
    # Nothing in the bound shows it: it is tight.
    assert partial.elbo == pytest.approx(truth - loss, abs=1e-5)


def test_the_bound_of_a_hard_fit_is_what_the_oracle_says():
    """R = .03; no model that loses .160 nats in likelihood can have so high a bound."""
    system = position_velocity(0.03)
    best = learning.learn(system, 8, 0, exploration_cov=1.0, num_starts=1)
    assert best.cost / lqg.optimal_cost(system) == pytest.approx(1.585, abs=2e-3)
    noise, ones = 1e-8, np.eye(1)
    noisy = dataclasses.replace(best.model, emission_cov=noise)
    chains = [without_inputs(s, ones, noise) for s in (system, noisy)]
    of_controls = 4.0 * np.log(2 * np.pi * np.e * (1.0 + noise))
    oracle = (lg.population_elbo(*chains, 8, 0) + of_controls) / 8
    assert oracle == pytest.approx(best.elbo / 8, abs=1e-4)
    truth = learning.log_likelihood(system, system, 8, exploration_cov=1.0) / 8
    assert oracle > truth - 0.160


def test_one_time_step_and_controls_that_cannot_matter():
    system = table_system(0.95, 1.0)
    best = learning.learn(system, 1, 0, exploration_cov=EXPLORATION, num_starts=0)
    # x_1 alone: only its variance can be learned.
    variance = best.model.initial_cov.item() + best.model.emission_cov.item()
    assert variance == pytest.approx(1 / 0.6 + 1.0, rel=1e-5)


def test_a_spare_state_cures_most_of_the_damage():
    system = loud_system(1.0)
    optimum = lqg.optimal_cost(system)
    spare = learning.learn(system, 10, 0, exploration_cov=EXPLORATION, state_size=2, num_starts=1)
    assert spare.model.state_size == 2
    assert spare.cost / optimum < 1.1


# Beliefs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("emission_cov", "claimed", "rmse", "filtered", "half", "ninety"),
    [
        (0.1, 0.2135, 0.2507, 0.2465, 0.434, 0.839),
        (0.3, 0.2922, 0.3709, 0.3530, 0.405, 0.805),
        (1.0, 0.4118, 0.5713, 0.5028, 0.373, 0.764),
    ],
)
def test_belief_table(emission_cov, claimed, rmse, filtered, half, ninety):
    system = loud_system(emission_cov)
    chain = lqg_belief.belief(system, system, 10, 0, exploration_cov=EXPLORATION)
    found = [np.sqrt(matrix[5].item()) for matrix in chain]
    assert found == pytest.approx([filtered, claimed, rmse], abs=FOUR_DIGITS)
    assert chain.coverage(0.5)[5, 0] == pytest.approx(half, abs=THREE_DIGITS)
    assert chain.coverage(0.9)[5, 0] == pytest.approx(ninety, abs=THREE_DIGITS)


def test_belief_at_the_truth_matches_the_chain_without_controls():
    system = random_system(2, 8)
    chain = lg.LinearGaussian(
        system.transition,
        system.transition_cov,
        system.emission,
        system.emission_cov,
        system.initial_cov,
    )
    found = lqg_belief.belief(system, system, 6, 0, exploration_cov=np.eye(2))
    for ours, theirs in zip(found, lg.online_filter(chain, 6), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-9)


def test_full_conditions_are_calibrated_and_the_autoregression_is_not():
    system = loud_system(0.3)
    full = lqg_belief.belief(system, system, 10, None, exploration_cov=EXPLORATION)
    np.testing.assert_allclose(full.claimed_cov, full.error_cov, atol=1e-10)
    np.testing.assert_allclose(full.coverage(0.9), 0.9, atol=1e-9)
    model = learning.autoregression(system, 10, exploration_cov=EXPLORATION).model
    sure = lqg_belief.belief(system, model, 10, 0, exploration_cov=EXPLORATION)
    # It takes x for the state: no doubt, and all of the sensor's noise as error.
    np.testing.assert_allclose(sure.claimed_cov, 0.0, atol=1e-12)
    np.testing.assert_allclose(sure.error_cov, 0.3, atol=1e-9)


def test_no_doubt_is_a_claimed_variance_of_zero_and_not_below():
    # R = 0 and noise of rank one: x and the past determine the state. Learning ends in such models.
    system, rng = position_velocity(0.1), np.random.default_rng(0)
    for _ in range(20):
        noise = rng.standard_normal((2, 1))
        model = dataclasses.replace(
            system,
            transition_cov=noise @ noise.T,
            emission_cov=0.0,
            initial_cov=noise @ noise.T,
        )
        found = lqg_belief.belief(system, model, 8, 0, exploration_cov=1.0)
        # Rounding alone made some of these negative, and their square root not a number.
        assert np.all(np.diagonal(found.claimed_cov, axis1=1, axis2=2) >= 0.0)
        np.testing.assert_allclose(found.claimed_cov[:, 0, 0], 0.0, atol=1e-12)
        np.testing.assert_allclose(found.error_cov[:, 0, 0], 0.1, atol=1e-9)
        np.testing.assert_allclose(found.coverage(0.9)[:, 0], 0.0, atol=1e-6)


# Bad input --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lookahead": -1}, "lookahead"),
        ({"num_timesteps": 0}, "num_timesteps"),
        ({"exploration_cov": 0.0}, "exploration_cov must be positive definite"),
        ({"exploration_cov": np.eye(2)}, "exploration_cov must have shape"),
        ({"state_size": 0}, "state_size"),
        ({"num_starts": -1}, "num_starts"),
    ],
)
def test_bad_arguments_of_learning(changes, message):
    arguments = {"num_timesteps": 5, "lookahead": 0, "exploration_cov": 0.25, **changes}
    with pytest.raises(ValueError, match=message):
        learning.local_optima(table_system(0.95, 1.0), **arguments)


def test_learning_names_what_it_cannot_do():
    exact_sensor = dataclasses.replace(table_system(0.95, 1.0), emission_cov=0.0)
    with pytest.raises(ValueError, match="positive definite emission_cov"):
        learning.learn(exact_sensor, 5, 0, exploration_cov=0.25)
    hidden_cost = dataclasses.replace(position_velocity(0.1), state_cost=np.eye(2))
    with pytest.raises(ValueError, match="must be a cost of the noise-free observation"):
        learning.learn(hidden_cost, 5, 0, exploration_cov=1.0)
    with pytest.raises(ValueError, match="only if the emission can be inverted"):
        learning.autoregression(position_velocity(0.1), 5, exploration_cov=1.0)
    with pytest.raises(ValueError, match="num_timesteps must be an integer and >= 2"):
        learning.autoregression(table_system(0.95, 1.0), 1, exploration_cov=0.25)


def test_models_must_share_observations_and_controls():
    system = table_system(0.95, 1.0)
    other = random_system(1, 0, channels=1, controls=2)
    with pytest.raises(ValueError, match="1 channel"):
        learning.population_elbo(system, other, 5, 0, exploration_cov=0.25)
    bigger = random_system(2, 0, channels=1, controls=1)
    with pytest.raises(ValueError, match="as many states"):
        lqg_belief.belief(system, bigger, 5, 0, exploration_cov=0.25)


# The search ---------------------------------------------------------------------------------------


def test_starts_are_what_their_names_say():
    system = random_system(2, 3)
    data = learning.as_matrices(system, learning.exploration_root(system, np.eye(2)))
    wanted = linear_gaussian_learning.Starts(2, 1, 0, True)
    starts = linear_gaussian_learning.structured_starts(data, 6, wanted)
    little, truth = linear_gaussian_learning.LITTLE_NOISE, starts["truth"]
    assert little < 0.01
    np.testing.assert_allclose(
        starts["small observation noise"].emission_cov, little * truth.emission_cov
    )
    quiet = starts["small transition noise"]
    np.testing.assert_allclose(quiet.transition_cov, little * truth.transition_cov)
    moved = truth.initial_cov + truth.transition_cov
    np.testing.assert_allclose(
        quiet.emission_cov - truth.emission_cov, truth.emission @ moved @ truth.emission.T
    )
    _, innovation, _ = linear_gaussian_learning.pooled_regression(data, 6, order=1)
    np.testing.assert_allclose(starts["autoregression"].emission_cov, little * innovation)
    assert not np.allclose(starts["random 1"].transition, truth.transition)
