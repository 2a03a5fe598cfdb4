"""A posterior of sequences must give the same factors for the same sequence, whatever is beside."""

import numpy as np
import pytest

from tfp_gaps import LookAhead, StateSpace, conditions_of, elbo, iwae, particle_filter
from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.models.state_space import DiagonalNormal
from tfp_gaps.networks import replica_seeds
from tfp_gaps.sequences import Sequences

tfd = tfp.distributions
X = np.random.default_rng(0).normal(size=[4, 6, 1]).astype(np.float32)


class Factors:
    """q whose mean is made of a context and z_{t-1}, each by a function."""

    conditions = LookAhead(0)

    def __init__(self, of_data=lambda x: x, of_latent=lambda z: z):
        self.of_data, self.of_latent = of_data, of_latent

    def context(self, batch):
        return self.of_data(batch.observations)

    def factor(self, prior, latent, context):
        mean = context if latent is None else context + 0.5 * self.of_latent(latent)
        return DiagonalNormal(0.5 * mean, 0.7 * tf.ones_like(mean))


def dropout(training):
    layer = tf.keras.layers.Dropout(0.5)
    return lambda values: layer(values, training=training)


def norm(training):
    layer = tf.keras.layers.BatchNormalization()
    return lambda values: layer(values, training=training)


def centred(values):
    return values - tf.reduce_mean(values, -2, keepdims=True)


STOCHASTIC = {
    "context": Factors(dropout(True)),
    "factor": Factors(of_latent=dropout(True)),
    "function": lambda x: tfd.Normal(dropout(True)(x), 1.0),
}
MIXED = {
    "batch normalisation": Factors(norm(True)),
    "factor": Factors(of_latent=centred),
    "function": lambda x: tfd.Normal(x - tf.reduce_mean(x, 1, keepdims=True), 1.0),
    "those before": lambda x: tfd.Normal(tf.cumsum(x, 1), 1.0),
    "those after": lambda x: tfd.Normal(tf.cumsum(x, 1, reverse=True), 1.0),
}
CALLS = {
    "elbo": lambda s, q: elbo(s, q, X, seed=0),
    "iwae": lambda s, q: iwae(s, q, X, num_samples=2, seed=0),
    "particle_filter": lambda s, q: particle_filter(s, X, num_particles=2, seed=0, posterior=q),
    "conditions_of": lambda s, q: conditions_of(q, s, X),
}


@pytest.fixture(scope="module")
def space():
    sizes = {"observation_size": 1, "latent_size": 1, "hidden_size": 4}
    return StateSpace(**sizes, emission="normal", seeds=replica_seeds([0, 1], "model"))


@pytest.fixture(scope="module")
def single():
    sizes = {"observation_size": 1, "latent_size": 1, "hidden_size": 4}
    return StateSpace(**sizes, emission="normal", seeds=replica_seeds([0], "model"))


@pytest.mark.parametrize("name", STOCHASTIC)
def test_factors_that_change_from_call_to_call_are_refused(single, name):
    for call in CALLS.values():
        with pytest.raises(ValueError, match="same factors for the same data.*Switch dropout off"):
            call(single, STOCHASTIC[name])


@pytest.mark.parametrize("name", MIXED)
def test_factors_that_change_with_the_sequences_beside_are_refused(single, name):
    for call in CALLS.values():
        with pytest.raises(ValueError, match=r"each sequence alone, .* sequence (0|5) change"):
            call(single, MIXED[name])


def test_batches_of_sequences_give_the_same_where_nothing_is_mixed(space):
    """Factors and context of several replicas, controls, missing values: nothing is refused."""
    q = Factors(norm(False), dropout(False))
    whole, parts = (
        elbo(space, q, X, seed=0, repetitions=50, batch_size=size).bound for size in (6, 2)
    )
    error = np.hypot(whole.monte_carlo_error(), parts.monte_carlo_error())
    assert abs(whole.estimate().value - parts.estimate().value) < 4 * error
    mask = np.random.default_rng(1).random(X.shape) < 0.7
    elbo(space, q, Sequences(X[:1], mask=mask[:1]), seed=0)  # a single step
    steered = StateSpace(
        observation_size=1,
        latent_size=1,
        hidden_size=4,
        control_size=1,
        emission="normal",
        seeds=replica_seeds([0], "model"),
    )
    controls = np.concatenate([np.zeros_like(X[:1, :1]), X[:-1, :1]])
    elbo(steered, q, Sequences(X[:, :1], controls), seed=0)  # a single sequence
