"""Mistakes that everybody makes, each answered with one sentence that names what to change."""

import numpy as np
import pytest

from tfp_gaps import (
    LookAhead,
    LookAheadNetwork,
    Model,
    StateSpace,
    elbo,
    iwae,
    measure,
    particle_filter,
    upper_bound,
)
from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.filtering import reverse_filter
from tfp_gaps.networks import replica_seeds

tfd = tfp.distributions
Q = tfd.JointDistributionNamed({"mean": tfd.Normal(0.0, 1.0), "scale": tfd.HalfNormal(1.0)})
SEQUENCES = np.zeros([4, 2, 3])


def joint():
    return tfd.JointDistributionNamedAutoBatched(
        {
            "mean": tfd.Normal(0.0, 1.0),
            "scale": tfd.HalfNormal(1.0),
            "x": lambda mean, scale: tfd.Normal(mean, scale),
        }
    )


@pytest.fixture(scope="module")
def model():
    return Model(joint(), "x", example=0.0)


@pytest.fixture(scope="module")
def chain():
    """A state-space model and its network."""
    sizes = {"observation_size": 3, "latent_size": 2, "hidden_size": 4}
    space = StateSpace(**sizes, emission="normal", seeds=replica_seeds([0], "model"))
    q = LookAheadNetwork(conditions=LookAhead(0), **sizes, seeds=replica_seeds([0], "q"))
    return space, q


def one_sentence_and_what_to_do(error):
    text = str(error.value)
    assert len(text) < 500 and "\n" not in text and text.endswith((".", "?")), text


@pytest.mark.parametrize("seed", [0.5, None, True, -1, 2**31, tf.constant(1), "a", [0, 1]])
def test_seeds_of_another_kind(model, chain, seed):
    space, q = chain
    latents = np.zeros([4, 2, 2])
    parts = {"mean": np.zeros([1, 1]), "scale": np.ones([1, 1])}
    for call in (
        lambda: measure(model, Q, 0.0, seed=seed),
        lambda: upper_bound(model, parts, 0.0, seed=seed),
        lambda: model.simulate(1, seed=seed),
        lambda: elbo(space, q, SEQUENCES, seed=seed),
        lambda: iwae(space, q, SEQUENCES, num_samples=2, seed=seed),
        lambda: particle_filter(space, SEQUENCES, num_particles=2, seed=seed),
        lambda: reverse_filter(space, SEQUENCES, latents, num_particles=2, seed=seed),
    ):
        with pytest.raises(ValueError, match="seed must be an integer") as error:
            call()
        one_sentence_and_what_to_do(error)


def test_a_seed_of_numpy_is_the_same_seed(model, chain):
    space, q = chain
    first, second = model.simulate(2, seed=3)[1], model.simulate(2, seed=np.int64(3))[1]
    np.testing.assert_array_equal(first, second)
    first, second = (elbo(space, q, SEQUENCES, seed=s) for s in (3, np.uint8(3)))
    np.testing.assert_array_equal(first.values, second.values)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: measure(Q, m, 0.0, seed=0), "model must be a tfp_gaps.Model"),
        (lambda m: measure(joint(), Q, 0.0, seed=0), "model must be a tfp_gaps.Model"),
        (lambda m: measure(m, 0.0, Q, seed=0), "posterior must be a distribution"),
        (lambda m: measure(m, np.zeros(3), Q, seed=0), "posterior must be .* but is a ndarray"),
        (lambda m: measure(m, tf.zeros(3), Q, seed=0), "posterior must be a distribution"),
        (lambda m: measure(m, m, 0.0, seed=0), "posterior must be a distribution"),
        (lambda m: measure(m, Q, Q, seed=0), "data must be an array"),
    ],
)
def test_arguments_of_measure_in_each_others_place(model, call, message):
    with pytest.raises(ValueError, match=message) as error:
        call(model)
    assert "measure(model, posterior, data)" in str(error.value)
    one_sentence_and_what_to_do(error)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, q: elbo(q, s, SEQUENCES, seed=0), "model must offer .* the LookAheadNetwork"),
        (lambda s, q: elbo(s, SEQUENCES, q, seed=0), "posterior must offer .* the ndarray"),
        (lambda s, q: iwae(q, s, SEQUENCES, num_samples=2, seed=0), "model must offer"),
        (lambda s, q: particle_filter(SEQUENCES, s, num_particles=2, seed=0), "model must offer"),
        (
            lambda s, q: particle_filter(s, SEQUENCES, num_particles=2, seed=0, posterior=s),
            "posterior must offer context, factor",
        ),
        (lambda s, q: elbo(s, q, s, seed=0), "observations must be an array"),
    ],
)
def test_arguments_of_sequential_bounds_in_each_others_place(chain, call, message):
    with pytest.raises(ValueError, match=message) as error:
        call(*chain)
    one_sentence_and_what_to_do(error)


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (lambda m: Model(joint(), "X", example=0.0), "x"),
        (
            lambda m: measure(
                m,
                tfd.JointDistributionNamed({"mean": Q.model["mean"], "scael": Q.model["scale"]}),
                0.0,
                seed=0,
            ),
            "scale",
        ),
    ],
)
def test_a_name_that_is_nearly_right(model, call, meant):
    with pytest.raises(ValueError, match=f"Did you mean '{meant}'") as error:
        call(model)
    one_sentence_and_what_to_do(error)


def test_float32_beside_float64(model):
    wide = tfd.JointDistributionNamed(
        {"mean": tfd.Normal(np.float64(0), 1.0), "scale": tfd.HalfNormal(np.float64(1))}
    )
    with pytest.raises(
        ValueError, match="must draw 'scale' as float32, .* but draws float64"
    ) as error:
        measure(model, wide, 0.0, seed=0)
    one_sentence_and_what_to_do(error)
    # Data are converted, where they are not changed by more than rounding.
    assert model.data(np.float64([0.1, 0.2])).dtype == np.float32
