"""Acting on learned models: the scalar table, simulation, beliefs, the innovations form."""

import numpy as np
import pytest

from tfp_gaps.book.experiments import lqg as experiment
from tfp_gaps.exact import lqg

NOISES = (0.01, 0.1, 1.0, 10.0)
# Half a unit of the last printed digit, and a little for printed halves.
FOUR_DIGITS, THREE_DIGITS = 5.1e-5, 5.1e-4


def parameters(model):
    names = ("transition", "control", "transition_cov", "emission_cov")
    return [getattr(model, name).item() for name in names]


@pytest.fixture(scope="module")
def table():
    """The stable scalar system for each sensor, look-aheads 0, 1, 2, 4."""
    return {
        noise: experiment.learn(experiment.scalar(0.95, noise), [0, 1, 2, 4], num_starts=1)
        for noise in NOISES
    }


# Learning and acting ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noise", "optimum", "gap", "ratios"),
    [
        (0.01, 0.1355, 0.0359, (1.005, 1.000, 1.000, 1.000)),
        (0.1, 0.1807, 0.1406, (1.135, 1.011, 1.001, 1.000)),
        (1.0, 0.3385, 0.1401, (1.477, 1.098, 1.046, 1.010)),
        (10.0, 0.6650, 0.0439, (1.542, 1.091, 1.064, 1.042)),
    ],
)
def test_cost_ratios_of_the_stable_system(table, noise, optimum, gap, ratios):
    outcomes = table[noise]
    assert outcomes[0].optimal_cost == pytest.approx(optimum, abs=FOUR_DIGITS)
    assert outcomes[0].gap_at_truth == pytest.approx(gap, abs=FOUR_DIGITS)
    found = [outcomes[k].ratio for k in (0, 1, 2, 4)]
    assert found == pytest.approx(list(ratios), abs=THREE_DIGITS)


def test_which_optimum_wins_without_look_ahead(table):
    kinds = ["autoregressive"] * 3 + ["output error"]
    assert [table[noise][0].learned.kind for noise in NOISES] == kinds
    np.testing.assert_allclose(
        parameters(table[1.0][0].learned.model), (0.5937, 0.5, 1.6641, 0.0), atol=FOUR_DIGITS
    )
    # Where the controls alone move the learned state, the agent ignores the sensor.
    system = experiment.scalar(0.95, 10.0).system
    open_loop = lqg.closed_loop_cost(system, lqg.no_control(system))
    assert table[10.0][0].learned.cost == pytest.approx(open_loop, rel=1e-4)


def test_the_gap_that_is_left_is_no_sign_of_the_damage(table):
    outcome = table[1.0][0]
    assert outcome.slack == pytest.approx(0.0, abs=1e-9)
    # Loss and slack are what the bound lacks to the truth.
    world = experiment.scalar(0.95, 1.0)
    truth = experiment.bound(world, world.system, None)
    assert truth - outcome.learned.elbo == pytest.approx(20 * (outcome.loss + outcome.slack))
    assert outcome.loss == pytest.approx(0.1000, abs=FOUR_DIGITS)


@pytest.mark.parametrize("transition", [1.0, 1.05])
def test_unstable_systems(transition):
    world = experiment.scalar(transition, 10.0)
    assert world.system.initial_cov.item() == 1.0
    outcomes = experiment.learn(world, [0, 1], num_starts=1)
    expected = {1.0: (np.inf, 1.071), 1.05: (1.008, 1.093)}[transition]
    found = [outcomes[k].ratio for k in (0, 1)]
    assert found == pytest.approx(list(expected), abs=THREE_DIGITS)


@pytest.mark.parametrize(
    "world", [experiment.scalar(0.95, 1.0), experiment.position_velocity(0.1)], ids=["1", "2"]
)
def test_full_conditions_find_the_best_agent_from_blind_starts(world):
    outcome = experiment.learn(world, [None], from_truth=False)[None]
    assert outcome.ratio == pytest.approx(1.0, abs=1e-4)
    assert outcome.loss == pytest.approx(0.0, abs=1e-6)
    assert outcome.gap_at_truth == pytest.approx(0.0, abs=1e-10)


def test_the_closed_form_is_where_the_search_ends(table):
    found, expected = table[1.0][0].learned, experiment.autoregression(experiment.scalar(0.95, 1.0))
    assert found.cost == pytest.approx(expected.cost, rel=1e-5)
    assert found.elbo == pytest.approx(expected.elbo, abs=1e-8)


# Simulation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("partial", [True, False])
def test_simulated_cost_of_the_learned_agents(table, partial):
    world = experiment.scalar(0.95, 1.0)
    model = table[1.0][0].learned.model if partial else world.system
    found = experiment.simulated_cost(world.system, model, seed=4)
    assert found.num_samples == 4000
    assert found.standard_error < 0.005
    expected = lqg.closed_loop_cost(world.system, lqg.certainty_equivalent(model))
    assert abs(found.value - expected) < 3 * found.standard_error


def test_simulation_of_the_hidden_velocity():
    world = experiment.position_velocity(0.1)
    found = experiment.simulated_cost(world.system, world.system, seed=5)
    assert abs(found.value - lqg.optimal_cost(world.system)) < 3 * found.standard_error


# Beliefs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.1, 1.0])
def test_beliefs_of_partial_and_full_conditions(noise):
    world = experiment.scalar(0.95, noise)
    partial, full = (experiment.belief(world, world.system, k) for k in (0, None))
    # The partial q claims what a smoother knows, and errs more than the filter.
    assert partial.claimed == pytest.approx(full.claimed, rel=1e-10)
    assert partial.claimed < partial.filtered < partial.error
    assert full.error == pytest.approx(full.claimed, rel=1e-10)
    assert (full.half, full.ninety) == pytest.approx((0.5, 0.9))
    assert partial.half < 0.45
    assert partial.ninety < 0.85


def test_belief_table():
    # b = .5 or 1: controls are known, so that they do not matter at the truth in the middle.
    found = experiment.belief(experiment.scalar(0.95, 0.1), experiment.scalar(0.95, 0.1).system, 0)
    assert found == pytest.approx((0.2465, 0.2135, 0.2507, 0.434, 0.839), abs=THREE_DIGITS)


def test_the_autoregression_takes_the_observation_for_the_state():
    world = experiment.scalar(0.95, 0.3)
    found = experiment.belief(world, experiment.autoregression(world).model, 0, step=3)
    assert found.claimed == pytest.approx(0.0, abs=1e-7)
    assert found.error == pytest.approx(0.3**0.5, rel=1e-6)
    assert found.ninety < 1e-6


def test_beliefs_about_a_step_that_does_not_exist():
    world = experiment.position_velocity(0.1)
    with pytest.raises(ValueError, match="at most T = 8"):
        experiment.belief(world, world.system, 0, step=9)
    with pytest.raises(ValueError, match="step must be an integer"):
        experiment.belief(world, world.system, 0, step=0)


@pytest.mark.parametrize(
    "world", [experiment.scalar(1.05, 1.0), experiment.position_velocity(0.1)], ids=["1", "2"]
)
def test_more_look_ahead_weighs_later_observations_more(world):
    shares = [experiment.later_share(world, k) for k in (0, 1, 2, None)]
    assert shares[0] == 0.0
    assert shares == sorted(shares)
    assert shares[-1] > 0.5


def test_a_perfect_sensor_leaves_no_weight_for_the_future():
    assert experiment.later_share(experiment.scalar(0.95, 1e-6), None) < 1e-4


# Innovations form ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "world",
    [
        experiment.scalar(0.95, 1.0),
        experiment.scalar(1.05, 10.0),
        experiment.position_velocity(0.03),
    ],
    ids=["stable", "unstable", "hidden velocity"],
)
def test_the_innovations_form_hides_nothing_and_loses_nothing(world):
    form = experiment.innovations_form(world.system)
    assert form.state_size == world.system.state_size + 1
    start = experiment.settled(world)
    truth = experiment.bound(start, start.system, None)
    for lookahead in (0, 1, None):
        assert experiment.bound(start, form, lookahead) == pytest.approx(truth, abs=1e-9)
    cost = lqg.closed_loop_cost(world.system, lqg.certainty_equivalent(form))
    assert cost == pytest.approx(lqg.optimal_cost(world.system), rel=1e-9)
    # Before the filter has settled its gain is another one: then the steady form does lose.
    assert experiment.bound(world, form, None) < experiment.bound(world, world.system, None) - 0.02


def test_a_spare_state_cures_most_of_the_damage():
    world = experiment.scalar(0.95, 1.0)
    spare = experiment.learn(world, [0], state_size=2, num_starts=1)[0]
    assert 1.0 <= spare.ratio < 1.01
    assert spare.slack == pytest.approx(0.0, abs=1e-6)
