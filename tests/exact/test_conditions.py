"""Conditions of any kind: against the closed forms of look-ahead and mean field, and other code."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfp_gaps.exact import conditions, linear_gaussian
from tfp_gaps.exact.conditions import Conditions
from tfp_gaps.exact.linear_gaussian import LinearGaussian

T = 6
WORLDS = {
    "slow": LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0),
    "well seen": LinearGaussian.stationary(-0.5, 0.5, 2.0, 0.05),
    "nearly still": LinearGaussian(0.9, 0.001, 1.0, 1.0, 1.0),
}
START = conditions.conditions(T, first=0, last=0, start=3)


@pytest.fixture(params=WORLDS)
def world(request):
    return WORLDS[request.param]


@pytest.mark.parametrize("k", [0, 1, 3, None])
@pytest.mark.parametrize("latents", ["previous", "earlier"])
def test_look_ahead_is_a_special_case(world, k, latents):
    # More than z_{t-1} is no use where each step sees at least what the one before has seen.
    found = conditions.gap(world, conditions.conditions(T, last=k, latents=latents))
    # Rounding of ln det for a posterior whose precision is 1e3.
    assert found == pytest.approx(linear_gaussian.conditioning_gap(world, T, k), abs=1e-11)


def test_the_past_is_no_use_beside_the_previous_latent_and_the_whole_future(world):
    assert conditions.gap(world, conditions.conditions(T, first=0, last=None)) < 1e-11


def test_without_latents_it_is_mean_field(world):
    seen = conditions.conditions(T, last=None, latents="none")
    states, observed, cross = _joint(world)
    posterior = states - cross @ np.linalg.solve(observed, cross.T)
    precision = np.linalg.inv(posterior)
    best = 0.5 * (np.sum(np.log(np.diag(precision))) + np.linalg.slogdet(posterior)[1])
    # Relative to the inverse of a nearly singular covariance.
    assert conditions.gap(world, seen) == pytest.approx(best, rel=1e-8)
    assert conditions.parts(world, seen).observations == pytest.approx(0, abs=1e-11)


def _joint(world):
    """Cov(z), Cov(x), Cov(z, x) of a scalar chain from its definition, by unrolling it."""
    a, c = world.transition.item(), world.emission.item()
    noise = np.full(T, world.transition_cov.item())
    noise[0] = world.initial_cov.item()
    unrolled = np.array([[a ** (t - s) if s <= t else 0.0 for s in range(T)] for t in range(T)])
    states = (unrolled * noise) @ unrolled.T
    return states, c**2 * states + world.emission_cov.item() * np.eye(T), c * states


def _factors(found):
    """A q with at most the previous latent, as the other module writes it."""
    transition = np.r_[0.0, np.diag(found.latent_weights, -1)]
    return linear_gaussian.SharedFactors(
        found.variances[:, np.newaxis, np.newaxis],
        transition[:, np.newaxis, np.newaxis],
        found.observation_weights[:, np.newaxis, :, np.newaxis],
    )


@pytest.mark.parametrize("judged", WORLDS)
def test_divergence_agrees_with_the_bound_of_its_factors(world, judged):
    model = WORLDS[judged]
    found = conditions.best(world, model, START)
    evidence = linear_gaussian.log_likelihood(world, model, T)
    bound = linear_gaussian.factors_elbo(world, model, _factors(found))
    # Of a divergence of up to some thousand nats where a sharp model is judged on other data.
    assert found.divergence == pytest.approx(evidence - bound, rel=1e-8)


def test_no_neighbour_that_keeps_the_conditions_is_better(world):
    found = conditions.best(world, world, START)
    best = linear_gaussian.factors_elbo(world, world, _factors(found))
    rng = np.random.default_rng(0)
    for _ in range(50):
        moved = found._replace(
            latent_weights=found.latent_weights + START.latents * rng.normal(0, 0.01, (T, T)),
            observation_weights=found.observation_weights
            + START.observations * rng.normal(0, 0.01, (T, T)),
            variances=found.variances * np.exp(rng.normal(0, 0.01, T)),
        )
        assert linear_gaussian.factors_elbo(world, world, _factors(moved)) < best


def test_hidden_inputs_have_no_weight(world):
    found = conditions.best(world, world, START)
    assert not found.observation_weights[~START.observations].any()
    assert not found.latent_weights[~START.latents].any()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(WORLDS)))
def test_to_see_more_never_costs(seed, name):
    rng = np.random.default_rng(seed)
    observations, latents = (rng.random((4, 4)) < 0.5 for _ in range(2))
    less = Conditions(observations, np.tril(latents, -1))
    more = Conditions(
        observations | (rng.random((4, 4)) < 0.3),
        less.latents | np.tril(rng.random((4, 4)) < 0.3, -1),
    )
    gaps = [conditions.gap(WORLDS[name], seen) for seen in (less, more)]
    # The search over A stops at gradients of 1e-9.
    assert gaps[0] >= gaps[1] - 1e-9 and gaps[1] > -1e-9


@pytest.mark.parametrize("k", [0, 1])
def test_learning_agrees_with_the_other_search(k):
    world = WORLDS["slow"]
    ours = conditions.learn(world, conditions.conditions(T, last=k))
    other = linear_gaussian.learn(world, T, k)
    bounds = [linear_gaussian.population_elbo(world, model, T, k) for model in (ours, other)]
    # Both approach R = 0, from which the bound differs by less than this.
    assert bounds[0] == pytest.approx(bounds[1], abs=1e-5)


def test_full_conditions_learn_the_truth_from_elsewhere():
    world, seen = WORLDS["slow"], conditions.conditions(T, last=None)
    end, _ = conditions._climb(world, seen, (0.3, 1.0, 0.1, 2.0), np.log([1e-9, 1e3]))
    for name in ("transition", "transition_cov", "emission_cov", "initial_cov"):
        assert getattr(end, name).item() == pytest.approx(getattr(world, name).item(), rel=1e-4)


def test_gradient_of_learning_is_that_of_the_bound():
    world, seen = WORLDS["slow"], START
    at = np.array([0.7, *np.log([0.3, 0.6, 0.8])])
    model = conditions._chain(world, at)
    gradient = conditions._score(world, model, conditions.best(world, model, seen))
    for i, slope in enumerate(gradient):
        step = 1e-5 * np.eye(4)[i]
        up, down = (
            conditions.elbo(world, conditions._chain(world, at + sign * step), seen)
            for sign in (1, -1)
        )
        # Of a second-order difference: the third derivative is of order one, and rounding 1e-9.
        assert (up - down) / 2e-5 == pytest.approx(slope, abs=1e-6)


def test_the_start_decides_where_the_gap_sits_there():
    world = WORLDS["nearly still"]
    blind = conditions.gap(world, conditions.conditions(T, first=0, last=0))
    assert conditions.gap(world, START) < 0.5 * blind


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conditions.conditions(0), "num_timesteps"),
        (lambda: conditions.conditions(3, first=1, last=0), "empty"),
        (lambda: conditions.conditions(3, latents="some"), "latents"),
        (lambda: conditions.conditions(3, start=0), "start"),
        (
            lambda: conditions.gap(
                LinearGaussian(0.5 * np.eye(2), np.eye(2), np.eye(2), np.eye(2), np.eye(2)), START
            ),
            "scalar",
        ),
        (
            lambda: conditions.gap(WORLDS["slow"], START._replace(latents=np.eye(T, dtype=bool))),
            "diagonal",
        ),
        (
            lambda: conditions.gap(WORLDS["slow"], START._replace(latents=np.zeros((2, 2), bool))),
            r"\[T, T\]",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_closed_form_of_a_look_ahead_is_what_the_search_finds(world):
    for k in (0, 2, None):
        closed = conditions.look_ahead(world, T, k)
        searched = conditions.best(world, world, conditions.conditions(T, last=k))
        for one, other in zip(closed, searched, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-8)


def test_additive_errors_of_mean_field_are_the_covariances_that_it_lacks(world):
    states, observed, cross = _joint(world)
    posterior = states - cross @ np.linalg.solve(observed, cross.T)
    seen = conditions.conditions(T, last=None, latents="none")
    errors = conditions.additive_errors(world, conditions.best(world, world, seen))
    assert errors.states == pytest.approx(0.0, abs=1e-9)
    assert errors.products == pytest.approx(-np.trace(posterior, offset=1), abs=1e-10)


def test_the_error_of_a_sum_is_that_of_the_marginals_means(world):
    """Root mean square over data, from the marginals of the factors at unit observations."""
    unit = np.eye(T)[:, :, np.newaxis]
    means = [
        linear_gaussian.factor_marginals(
            linear_gaussian.shared_factors(world, world, T, k), unit
        ).means[..., 0]
        for k in (0, None)
    ]
    off = (means[0] - means[1]).sum(0)
    _, observed, _ = _joint(world)
    errors = conditions.additive_errors(world, conditions.look_ahead(world, T, 0))
    assert errors.states == pytest.approx(np.sqrt(off @ observed @ off), rel=1e-9)
