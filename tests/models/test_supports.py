"""Data outside of the support of what is observed: refused where TFP gives a density, and only
there."""

import warnings

import numpy as np
import pytest

from tfp_gaps import Effort, Model, StateSpace, measure, particle_filter
from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.models import supports
from tfp_gaps.models.own import with_sequences
from tfp_gaps.networks import replica_seeds
from tfp_gaps.sequences import Sequences

tfd, tfb = tfp.distributions, tfp.bijectors
Batched = tfd.JointDistributionNamedAutoBatched
LOGITS = np.float32([-1.0, 0.0, 1.0])

# Name: distribution, what it allows, what it does not although TFP gives a density there.
CASES = {
    "Bernoulli": (tfd.Bernoulli(0.3, dtype=tf.float32), [0, 1], [-1, 2]),
    "ProbitBernoulli": (tfd.ProbitBernoulli(probs=0.3, dtype=tf.float32), [0, 1], [-1, 2]),
    "Poisson": (tfd.Poisson(2.0), [0, 7], [2.5]),
    "PoissonLogNormal": (tfd.PoissonLogNormalQuadratureCompound(0.0, 1.0), [0, 7], [2.5]),
    "NegativeBinomial": (tfd.NegativeBinomial(3.0, 0.3), [0, 7], [2.5]),
    "Geometric": (tfd.Geometric(probs=0.3), [0, 7], [1.5, -1]),
    "Categorical": (tfd.Categorical(logits=LOGITS, dtype=tf.float32), [0, 2], [0.5]),
    "OrderedLogistic": (tfd.OrderedLogistic([-1.0, 1.0], 0.0, dtype=tf.float32), [0, 2], [0.5]),
    "Stopping": (tfd.StoppingRatioLogistic([-1.0, 1.0], 0.0, dtype=tf.float32), [0, 2], [0.5]),
    "Binomial": (tfd.Binomial(10.0, probs=0.3), [0, 10], [2.5, 10.5]),
    "BetaBinomial": (tfd.BetaBinomial(10.0, 2.0, 3.0), [0, 10], [2.5, 10.5]),
    "Zipf": (tfd.Zipf(2.0, dtype=tf.float32), [1, 7], [1.5]),
    "Skellam": (tfd.Skellam(1.0, 2.0), [-3, 2], [0.5]),
    "Quantized": (tfd.QuantizedDistribution(tfd.Normal(0.0, 2.0), -3.0, 3.0), [-2, 3], [0.5]),
    "Multinomial": (
        tfd.Multinomial(10.0, logits=LOGITS),
        [[2, 3, 5], [0, 10, 0]],
        [[2, 3, 1], [2.5, 2.5, 5]],
    ),
    "DirichletMultinomial": (
        tfd.DirichletMultinomial(10.0, [1.0, 2.0, 3.0]),
        [[2, 3, 5], [0, 10, 0]],
        [[2, 3, 1], [2.5, 2.5, 5]],
    ),
    "OneHot": (
        tfd.OneHotCategorical(logits=LOGITS, dtype=tf.float32),
        [[1, 0, 0]],
        [[1, 1, 0], [0, 0, 0], [0.5, 0.5, 0], [2, -1, 0]],
    ),
    "PlackettLuce": (tfd.PlackettLuce(np.exp(LOGITS)), [[2, 0, 1]], [[0, 0, 1]]),
    "Exponential": (tfd.Exponential(2.0), [0, 7], [-1]),
    "Gamma": (tfd.Gamma(1.0, 2.0), [0, 7], [-1]),
    "Chi2": (tfd.Chi2(2.0), [0.5, 7], [-1]),
    "GeneralizedPareto": (tfd.GeneralizedPareto(1.0, 1.0, 0.3), [1, 7], [0.5]),
    "Beta": (tfd.Beta(1.0, 1.0), [0, 1], [-0.5, 1.5]),
    "Dirichlet": (tfd.Dirichlet([2.0, 2.0, 2.0]), [[0.2, 0.3, 0.5]], [[0.2, 0.3, 0.4]]),
    "flat": (tfd.Dirichlet([1.0, 1.0, 1.0]), [[0.2, 0.3, 0.5]], [[-0.2, 0.7, 0.5]]),
    "relaxed": (
        tfd.RelaxedOneHotCategorical(0.5, logits=LOGITS),
        [[0.2, 0.3, 0.5]],
        [[0.2, 0.3, 0.4]],
    ),
    "von Mises-Fisher": (tfd.VonMisesFisher([1.0, 0.0, 0.0], 2.0), [[0.6, 0, 0.8]], [[1, 1, 0]]),
    "LKJ": (
        tfd.LKJ(2, 2.0),
        [[[1, 0.3], [0.3, 1]]],
        [[[1, 0.3], [0.4, 1]], [[2, 0.3], [0.3, 1]], [[1, 1.5], [1.5, 1]]],
    ),
    "CholeskyLKJ": (
        tfd.CholeskyLKJ(2, 2.0),
        [[[1, 0], [0.6, 0.8]]],
        [[[1, 0], [0.4, 1]], [[1, 0.5], [0.6, 0.8]]],
    ),
    "Wishart": (tfd.WishartTriL(4.0, tf.eye(2)), [[[2, 0.3], [0.3, 1]]], [[[1, 0.3], [0.9, 1]]]),
}


def check(distribution, x):
    x = tf.constant(x, distribution.dtype)
    return supports.check(
        lambda: np.asarray(distribution.log_prob(x)), "data", lambda bad: np.argmax(bad)
    )


@pytest.mark.parametrize("name", CASES)
def test_only_what_lies_outside_is_refused(name):
    distribution, good, bad = CASES[name]
    assert check(distribution, good) == (True, "")
    for seed in range(2):
        assert check(distribution, distribution.sample(50, seed=(seed, 0))) == (True, "")
    for value in bad:
        # Here TFP gives a number, which is why it must be refused.
        assert np.isfinite(distribution.log_prob(np.asarray(value, np.float32)))
        with pytest.raises(ValueError, match=r"data must lie in the support of .* \(1\)"):
            check(distribution, [good[0], value])


@pytest.mark.parametrize(
    ("distribution", "x"),
    [
        (tfd.Normal(0.0, 1.0), [-1e9]),
        (tfd.HalfNormal(1.0), [-1.0]),  # no density: the bounds say so
        (tfd.Poisson(2.0, force_probs_to_zero_outside_support=True), [-1.0, 2.5]),
        (tfd.Multinomial(2**24 + 1.0, logits=np.zeros(3)), [[2**23, 2**22, 2**22 + 1.0]]),
        # The part that has no density there says so itself.
        (tfd.Mixture(tfd.Categorical(probs=[0.5, 0.5]), [tfd.Deterministic(0.0), tfd.Poisson(1.0)]),
         [0.0, 3.0]),
    ],
)  # fmt: skip
def test_what_has_no_density_or_a_right_one_is_left_alone(distribution, x):
    assert check(distribution, x)[1] == ""


def test_means_of_binary_values_and_angles_beyond_a_turn_are_doubtful_alone():
    limited, doubts = check(tfd.Bernoulli(0.3, dtype=tf.float32), [0.0, 0.4, 1.0])
    assert limited and "support of Bernoulli (0 or 1), but some do not (1). They are" in doubts
    assert "radians" in check(tfd.VonMises(0.0, 2.0), [3.0, 90.0])[1]
    assert check(tfd.VonMises(0.0, 2.0), [-3.1, 6.2])[1] == ""


# --- wherever they stand --------------------------------------------------------------------------


def binary(z):
    return tfd.Bernoulli(logits=z, dtype=tf.float32)


NESTED = {
    "Sample": lambda z: tfd.Sample(binary(z), 3),
    "Independent": lambda z: tfd.Independent(binary(z * tf.ones(3)), 1),
    "mixture": lambda z: tfd.Sample(
        tfd.MixtureSameFamily(tfd.Categorical(probs=[0.5, 0.5]), binary(tf.stack([z, -z]))), 3
    ),
    "two kinds": lambda z: tfd.Sample(
        tfd.Mixture(tfd.Categorical(probs=[0.5, 0.5]), [binary(z), tfd.Normal(z, 1.0)]), 3
    ),
    "shifted": lambda z: tfd.TransformedDistribution(tfd.Sample(binary(z), 3), tfb.Reshape([3])),
    "hidden Markov": lambda z: tfd.HiddenMarkovModel(
        tfd.Categorical(probs=[0.5, 0.5]),
        tfd.Categorical(probs=[[0.9, 0.1], [0.1, 0.9]]),
        binary(tf.stack([z, -z])),
        3,
    ),
    "blocks": lambda z: tfd.Blockwise([tfd.Sample(binary(z), 2), tfd.Sample(binary(z), 1)]),
}


@pytest.mark.parametrize("name", NESTED)
def test_data_are_reached_inside_of_other_distributions(name):
    distribution = NESTED[name](tf.constant(0.3))
    assert check(distribution, [[0, 1, 1], [1, 0, 0]]) == (True, "")
    with pytest.raises(ValueError, match=r"of Bernoulli .*\(1\)"):
        check(distribution, [[0, 1, 1], [0, 1, 2]])


def test_entries_behind_a_mask_count_only_where_they_are_asked_for():
    masked = tfd.Masked(tfd.Bernoulli([0.3, 0.3], dtype=tf.float32), [True, False])
    assert check(masked, [1.0, 2.0]) == (True, "")
    with pytest.raises(ValueError, match="of Bernoulli"):
        check(masked, [2.0, 1.0])


def test_missing_values_are_outside_of_nothing():
    pixels = lambda z: tfd.Independent(binary(z[..., tf.newaxis] * tf.ones(3)), 1)  # noqa: E731
    joint = tfd.JointDistributionNamed({"z": tfd.Normal(0.0, 1.0), "x": pixels})
    model = Model(joint, "x", example=np.zeros(3), missing="marginalise")
    assert np.isnan(model.data([np.nan, 1, 0])[0, 0])
    with pytest.raises(ValueError, match="support of Bernoulli"):
        model.data([np.nan, 1, 2])


def test_a_support_may_depend_on_another_observed_part():
    joint = tfd.JointDistributionNamed(
        {
            "z": tfd.Normal(0.0, 1.0),
            "n": tfd.Poisson(5.0),
            "k": lambda z, n: tfd.Binomial(n, logits=z),
        }
    )
    model = Model(joint, ("n", "k"), example={"n": 3.0, "k": 1.0})
    assert model.data({"n": [3, 7], "k": [2, 6]})["k"].tolist() == [2, 6]
    with pytest.raises(ValueError, match="datum 0 of 'k' is 2.5"):
        model.data({"n": [3, 7], "k": [2.5, 6]})


def test_labels_of_one_and_two_are_refused_where_they_are_measured():
    joint = Batched({"z": tfd.Normal(0.0, 1.0), "x": lambda z: tfd.Sample(binary(z), 8)})
    model, y = Model(joint, "x", example=np.zeros(8)), np.float32([1, 2, 2, 1, 2, 2, 1, 2])
    small = Effort(search_steps=20, num_chains=0, num_starts=1)
    with pytest.raises(ValueError, match="support of Bernoulli"):
        measure(model, tfd.Normal(0.0, 1.0), y, seed=0, effort=small)
    completions = np.stack([np.stack([y - 1]), np.stack([y])])
    with pytest.raises(ValueError, match=r"support of Bernoulli .*datum 1"):
        measure(model, tfd.Normal(0.0, 1.0), y - 1, seed=0, completions=completions, effort=small)
    with pytest.warns(RuntimeWarning, match="taken for the means of binary values"):
        np.testing.assert_allclose(model.data((y - 1) / 2)[0], (y - 1) / 2)


# --- sequences ------------------------------------------------------------------------------------


class Chain:
    """A chain with an emission."""

    num_replicas = latent_size = 1

    def __init__(self, emission):
        self.emission = emission

    def initial(self):
        return tfd.Normal(tf.zeros(1), 1.0)

    def transition(self, latent, control):
        return tfd.Normal(0.9 * latent, 0.5)


BINARY = Chain(lambda z: tfd.Independent(binary(z), 1))
ONE_HOT = Chain(
    lambda z: tfd.OneHotCategorical(logits=tf.concat([z, -z], -1), dtype=tf.float32)
)  # fmt: skip


@pytest.mark.parametrize(
    ("model", "good", "bad"),
    [
        (BINARY, [0, 1, 1], [0, 1, 2]),
        (BINARY, np.uint8([0, 1, 1]), np.uint8([0, 1, 2])),
        (Chain(lambda z: tfd.Independent(tfd.Poisson(tf.exp(z)), 1)), [0, 1, 7], [0, 1, 0.5]),
        (ONE_HOT, [[0, 1], [0, 1], [1, 0]], [[0, 1], [0, 1], [1, 1]]),
    ],
)
def test_observations_outside_of_the_support_of_the_emission_are_refused(model, good, bad):
    good, bad = (np.reshape(x, [3, 1, -1]) for x in (good, bad))
    x = np.concatenate([good] * 3, 1).astype(bad.dtype)
    with_sequences(model, x, "")
    x[:, 2] = bad[:, 0]
    with pytest.raises(ValueError, match="observations must .*step 3 of sequence 2 is"):
        particle_filter(model, x, num_particles=20, seed=0)


def test_masked_observations_are_outside_of_nothing_and_means_are_named():
    x = np.reshape([0, 1, 2.0], [3, 1, 1])
    with_sequences(BINARY, Sequences(x, mask=x < 2), "")
    positive = Chain(lambda z: tfd.Independent(tfd.Zipf(2.0 + z**2, dtype=tf.float32), 1))
    with_sequences(positive, Sequences(x, mask=x > 0), "")
    with pytest.warns(RuntimeWarning, match="step 3 of sequence 0 is .* means of binary"):
        with_sequences(BINARY, x / 4 * (x > 1), "")


def test_all_sequences_of_many_are_looked_at():
    model = StateSpace(
        observation_size=2,
        latent_size=1,
        hidden_size=2,
        emission="bernoulli",
        seeds=replica_seeds([0, 1], "model"),
    )
    x = np.zeros([2, 300, 2], np.uint8)
    x[1, 299, 1] = 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"step 2 of sequence 299 is \[0 2\]"):
            with_sequences(model, x, "")
