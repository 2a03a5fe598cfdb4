"""Discrete latent parts summed out: against mixtures in closed form and the forward algorithm."""

import numpy as np
import pytest
from scipy import stats

from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.models import discrete
from tfp_gaps.models.joint import Model

tfd = tfp.distributions
Named, Batched = tfd.JointDistributionNamed, tfd.JointDistributionNamedAutoBatched


@pytest.mark.parametrize(
    ("distribution", "count"),
    [
        (tfd.Bernoulli(0.3), 2),
        (tfd.Bernoulli(0.3, dtype=tf.float32), 2),
        (tfd.ProbitBernoulli(0.3), 2),
        (tfd.Categorical(probs=[0.2, 0.3, 0.5]), 3),
        (tfd.Categorical(logits=[0.0, 1.0]), 2),
        (tfd.OneHotCategorical([0.0, 1.0, 2.0]), 3),
        (tfd.OrderedLogistic([0.0, 1.0], 0.3), 3),
        (tfd.StoppingRatioLogistic([0.0, 1.0], 0.3), 3),
        (tfd.Binomial(5.0, probs=0.3), 6),
        (tfd.BetaBinomial(4.0, 2.0, 3.0), 5),
        (tfd.FiniteDiscrete([-1.0, 0.5], probs=[0.4, 0.6]), 2),
        (tfd.Sample(tfd.Bernoulli(0.3), [2, 2]), 16),
        (tfd.Independent(tfd.Categorical(probs=[[0.2, 0.8], [0.5, 0.5]]), 1), 4),
        (tfd.Sample(tfd.OneHotCategorical([0.0, 1.0]), 3), 8),
    ],
)
def test_all_values_of_a_distribution_are_found(distribution, count):
    values = discrete.support(distribution)
    assert values.shape == (count, *distribution.event_shape)
    assert len(np.unique(values, axis=0)) == count
    assert np.sum(np.exp(distribution.log_prob(values))) == pytest.approx(1.0, abs=1e-5)


P = np.float32([0.2, 0.3, 0.5])


@pytest.mark.parametrize("kind", [Named, Batched])
@pytest.mark.parametrize(
    "k", [tfd.Categorical(probs=P), tfd.FiniteDiscrete([0.0, 1.0, 2.0], probs=P)]
)
def test_a_mixture_is_summed_out_and_its_posterior_has_no_gap(kind, k):
    """z ~ N(0, 1), k ~ P, x ~ N(z + k, 1): p(x) and p(z | x) are mixtures."""
    joint = kind(
        {
            "k": k,
            "z": tfd.Normal(0.0, 1.0),
            "x": lambda k, z: tfd.Normal(z + tf.cast(k, tf.float32), 1.0),
        }
    )
    model = Model(joint, "x", example=0.0)
    assert model.latents == ("z",) and list(model.simulate(2, seed=0)[0]) == ["z"]
    x = model.data([0.3, -1.0])
    each = np.log(P) + stats.norm(np.arange(3), 2**0.5).logpdf(x[:, np.newaxis])

    def posterior(x):
        means = 0.5 * (x[:, np.newaxis] - np.arange(3, dtype=np.float32))
        return tfd.MixtureSameFamily(
            tfd.Categorical(logits=each.astype(np.float32)), tfd.Normal(means, 0.5**0.5)
        )

    parts, log_q = model.draw(posterior, x, 50, 0)
    exact = np.log(np.exp(each).sum(-1))
    np.testing.assert_allclose(
        model.log_joint(parts, x) - log_q, np.broadcast_to(exact, (50, 2)), atol=1e-5
    )
    assert set(model.log_terms(parts, x)) == {", ".join(joint._flat_resolve_names())}


def test_two_discrete_parts_of_which_one_depends_on_the_other():
    joint = Batched(
        {
            "a": tfd.Bernoulli(probs=0.3),
            "b": lambda a: tfd.Bernoulli(probs=0.2 + 0.6 * tf.cast(a, tf.float32)),
            "z": tfd.Normal(0.0, 1.0),
            "x": lambda a, b, z: tfd.Normal(z + tf.cast(a + 3 * b, tf.float32), 1.0),
        }
    )
    model = Model(joint, "x", example=0.0)
    found = model.log_joint({"z": tf.zeros([1, 1])}, model.data(1.0))
    pairs = {(0, 0): 0.7 * 0.8, (0, 1): 0.7 * 0.2, (1, 0): 0.3 * 0.2, (1, 1): 0.3 * 0.8}
    total = sum(p * stats.norm(a + 3 * b).pdf(1.0) for (a, b), p in pairs.items())
    assert float(found[0, 0]) == pytest.approx(np.log(total) + stats.norm.logpdf(0.0), abs=1e-5)


START, STEP = np.float32([0.3, 0.7]), np.float32([[0.9, 0.1], [0.2, 0.8]])


def test_a_chain_of_states_agrees_with_the_forward_algorithm():
    def chain():
        return tfd.MarkovChain(
            tfd.Categorical(probs=START),
            lambda _, state: tfd.Categorical(probs=tf.gather(tf.constant(STEP), state)),
            5,
        )

    joint = Batched(
        {
            "k": chain(),
            "z": tfd.Normal(0.0, 1.0),
            "x": lambda k, z: tfd.Independent(tfd.Normal(z + 2.0 * tf.cast(k, tf.float32), 1.0), 1),
        }
    )
    x = np.float32([0.1, 2.2, -0.4, 1.8, 2.0])
    model = Model(joint, "x", example=x)
    forward = tfd.HiddenMarkovModel(
        tfd.Categorical(probs=START), tfd.Categorical(probs=STEP), tfd.Normal([0.5, 2.5], 1.0), 5
    )
    found = model.log_joint({"z": 0.5 * tf.ones([1, 1])}, model.data(x))
    exact = float(forward.log_prob(x)) + stats.norm.logpdf(0.5)
    assert float(found[0, 0]) == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"k": tfd.Sample(tfd.Bernoulli(0.3), 10)}, "at most 128 values together, but k have more"),
        ({f"k{i}": tfd.Bernoulli(0.3) for i in range(8)}, "at most 128 values"),
        (
            {
                "n": tfd.Binomial(2.0, probs=0.9),
                "k": lambda n: tfd.Binomial(n, probs=0.5),
            },
            "probabilities that sum to one, but they sum to",
        ),
    ],
)
def test_what_cannot_be_summed_is_refused(parts, message):
    joint = Batched({**parts, "z": tfd.Normal(0.0, 1.0), "x": tfd.Normal(0.0, 1.0)})
    with pytest.raises(ValueError, match=message):
        Model(joint, "x", example=0.0)
