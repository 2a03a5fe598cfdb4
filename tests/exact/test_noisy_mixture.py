"""Evidence, posterior and ELBO of the noisy mixture against quadrature of the joint."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from tfp_gaps._tensorflow import tfp
from tfp_gaps.exact.noisy_mixture import NoisyMixture

tfd = tfp.distributions
WORLD = NoisyMixture([-2, 1.5], [1, 0.4], [0.3, 0.7], noise=0.8)


def _joint(world, z, x):
    prior = stats.norm.pdf(z, world.prior.locs, world.prior.scales) @ world.prior.probs
    return prior * stats.norm.pdf(x, z, world.noise)


@pytest.mark.parametrize("x", [-3.0, 0.2, 5.0])
def test_evidence_and_posterior_by_quadrature(x):
    evidence = integrate.quad(lambda z: _joint(WORLD, z, x), -12, 12, points=[-2, 1.5], limit=200)
    assert WORLD.log_evidence(x) == pytest.approx(math.log(evidence[0]), abs=1e-8)
    posterior = WORLD.posterior(x).marginal_posterior()
    for z in (-2.5, 0.0, 1.4):
        expected = _joint(WORLD, z, x) / math.exp(WORLD.log_evidence(x))
        assert float(posterior.prob(np.float64(z))) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("x", [-3.0, 0.2, 5.0])
def test_elbo_by_quadrature(x):
    q = stats.norm(0.4, 0.9)
    expected = integrate.quad(
        lambda z: q.pdf(z) * (math.log(_joint(WORLD, z, x)) - q.logpdf(z)),
        -7,
        8,
        points=[-2, 1.5],
        limit=200,
    )[0]
    measured = WORLD.elbo(x, tfd.Normal(np.float64(0.4), np.float64(0.9)))
    assert measured == pytest.approx(expected, abs=1e-8)


@given(st.floats(-6, 6), st.floats(-4, 4), st.floats(0.05, 5), st.floats(0.1, 5))
def test_evidence_is_elbo_plus_divergence(x, mean, sd, noise):
    world = NoisyMixture([-2, 1.5, 3], [1, 0.4, 2], [0.3, 0.5, 0.2], noise)
    q = tfd.Normal(np.float64(mean), np.float64(sd))
    total = world.elbo(x, q) + world.posterior(x).kl_to_marginal(q)
    # Terms as large as (x / noise)^2 cancel: relative round-off.
    assert total == pytest.approx(world.log_evidence(x), abs=1e-10)


def test_a_component_that_never_occurs_stays_out():
    world = NoisyMixture([-2, 2, 0], [1, 1, 1], [0.5, 0.5, 0], noise=1.0)
    assert world.posterior(0.1).probs[2] == 0
    expected = NoisyMixture([-2, 2], [1, 1], [0.5, 0.5], noise=1.0).log_evidence(0.1)
    assert world.log_evidence(0.1) == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("noise", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_noise_is_refused(noise):
    with pytest.raises(ValueError, match="noise must be"):
        NoisyMixture([-2, 2], [1, 1], [0.5, 0.5], noise)


@pytest.mark.parametrize("reading", [float("nan"), [1.0, 2.0], "x"])
def test_bad_readings_are_refused(reading):
    with pytest.raises(ValueError, match="reading must"):
        WORLD.log_evidence(reading)
