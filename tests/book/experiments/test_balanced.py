"""Networks trained with q and p weighed apart: a small run, and what a run is made of."""

import json

import numpy as np
import pytest

from tfp_gaps._tensorflow import tf
from tfp_gaps.book import results, sweep
from tfp_gaps.book.experiments import balanced
from tfp_gaps.exact import linear_gaussian
from tfp_gaps.networks import replica_seeds
from tfp_gaps.sequences import Batch
from tfp_gaps.sequential.fitting import negative_elbo


@pytest.fixture
def small(small_tasks):
    return small_tasks("momentum-010")


@pytest.mark.parametrize("variant", ["chain", "momentum-010-held"])
def test_a_result_holds_what_the_chapter_reads(small, variant):
    found = balanced.run(scale="smoke", seeds=[0, 1], variant=variant)
    json.dumps(found, allow_nan=False)
    known = balanced.KNOWN[variant]
    assert found["size"]["joint"]["kl_warmup_steps"] == 0
    trained = [(row["conditions"], row["weight"], row["from_one"]) for row in found["trained"]]
    plan = [(name, weight, False) for name in ("partial", "full") for weight in known.weights]
    assert trained == [*plan, ("full", 0.1, True)]
    chain = variant == "chain"
    for row in found["trained"]:
        assert np.shape(row["log_evidence"]) == (2, 50 if chain else small.num_test)
        assert np.shape(row["observation_noise"]) == (2, 1 if chain else 2)
        assert ("returns" in row) == (not chain)
        if known.held:
            np.testing.assert_allclose(row["observation_noise"], 0.1)
            same = row["log_evidence_acted"] == row["log_evidence"]
            assert same == (row["weight"] == 1.0)
        assert row["diverged"] == [False, False]
    assert (found["truth"] is not None) == chain


@pytest.mark.parametrize("variant", ["chain", "chain-samples", "momentum-010-held"])
def test_training_has_the_weight_and_the_gradients_of_the_variant(small, monkeypatch, variant):
    known, asked, trained = balanced.KNOWN[variant], [], []
    monkeypatch.setattr(
        balanced, "balanced_loss", lambda *args, **options: asked.append((args, options))
    )
    monkeypatch.setattr(
        balanced.training, "fit", lambda loss, variables, *_, **__: trained.append(variables)
    )
    world = balanced.World(known, "smoke")
    for weight in known.weights:
        model, network, _ = balanced.learn(
            world, known, weight, conditions=balanced.CONDITIONS["partial"], seeds=[0]
        )
        (args, options), variables = asked.pop(), trained.pop()
        assert args == (model, network, weight)
        assert options == {"through_samples": variant.endswith("samples")}
        # Model and network are trained together.
        assert len(variables) == len(model.trainable_variables) + len(network.trainable_variables)
        assert isinstance(model, balanced.HeldNoise) == variant.endswith("held")


def test_a_start_is_where_training_starts(small, monkeypatch):
    known = balanced.KNOWN["chain"]
    world, taken = balanced.World(known, "smoke"), []
    monkeypatch.setattr(
        balanced.training,
        "fit",
        lambda _, variables, *__, **___: taken.append([v.numpy() for v in variables]),
    )
    options = {"conditions": balanced.CONDITIONS["full"]}
    pair = balanced.learn(world, known, 1.0, seeds=[0], **options)[:2]
    balanced.learn(world, known, 0.1, seeds=[1], **options)
    balanced.learn(world, known, 0.1, seeds=[1], start=pair, **options)
    first, other, started = taken
    for one, two in zip(first, started, strict=True):
        np.testing.assert_array_equal(one, two)
    assert any(np.any(one != two) for one, two in zip(first, other, strict=True))


def test_q_does_not_know_p_and_with_weight_one_both_follow_the_elbo():
    sizes = {"observation_size": 1, "latent_size": 2, "control_size": 1, "hidden_size": 8}
    model = balanced.WorldModel(**sizes, seeds=replica_seeds([0], "model"))
    network = balanced.FreeNetwork(
        **sizes,
        conditions=balanced.CONDITIONS["full"],
        smallest=0.01,
        seeds=replica_seeds([0], "q"),
    )
    rng = np.random.default_rng(0)
    arrays = [tf.constant(rng.normal(size=[5, 1, 6, 1]), tf.float32) for _ in range(2)]
    batch = Batch(*arrays)
    variables = [*network.trainable_variables, *model.trainable_variables]
    found = []
    for loss in (balanced.balanced_loss(model, network, 1.0), negative_elbo(model, network)):
        with tf.GradientTape() as tape:
            value = loss(batch, replica_seeds([7], "noise"), 1.0)
        found.append([value, *tape.gradient(value, variables)])
    # A network that is relative to p fails here: p would follow its own pull on q.
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_the_truth_of_the_chain_is_its_expected_log_likelihood():
    world = balanced.World(balanced.KNOWN["chain"], "paper")
    truth = world.true_log_likelihood()
    expected = linear_gaussian.log_likelihood(balanced.CHAIN, balanced.CHAIN, 8) / 8
    # 2,000 sequences.
    assert abs(truth.mean() - expected) < 4 * truth.std() / np.sqrt(len(truth))


def test_a_model_that_is_the_truth_has_its_evidence():
    """The filter's estimate against the density, on the chain, where the model can be the truth."""
    world = balanced.World(balanced.KNOWN["chain"], "smoke")
    model = balanced.HeldNoise(
        noise=1.0,
        observation_size=1,
        latent_size=1,
        control_size=1,
        hidden_size=4,
        seeds=replica_seeds([0], "model"),
    )
    a, q, p = 0.9, 0.1, balanced.CHAIN.initial_cov.item()
    linear = np.array([[a - 1.0], [0.0]], np.float32)
    model.set_parameters(
        linear=linear, first_scale=p**0.5, transition_scale=q**0.5, observation_noise=1.0
    )
    network = balanced.FreeNetwork(
        observation_size=1,
        latent_size=1,
        control_size=1,
        hidden_size=4,
        conditions=balanced.CONDITIONS["full"],
        smallest=0.01,
        seeds=replica_seeds([0], "q"),
    )
    measured = balanced.measure(world, model, network, [0])
    found = np.mean(measured["log_evidence"])
    assert measured["elbo"][0] < found
    # 50 particles: the filter lies below by about a hundredth.
    assert abs(found - world.true_log_likelihood().mean()) < 0.02


def test_unknown_variants_and_missing_results_are_refused(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="variant"):
        balanced.run(scale="smoke", seeds=[0], variant="chains")
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    with pytest.raises(results.ResultError, match="tfp-gaps run balanced --scale paper"):
        balanced.stored("paper", "chain")


def test_seeds_that_diverged_are_left_out_and_counted():
    def row(weight, values, diverged):
        return {
            "conditions": "full", "weight": weight, "from_one": False, "diverged": diverged,
            "log_evidence": values, "observation_noise": [[0.1], [0.3], [9.0]],
        }  # fmt: skip

    one = row(1.0, [[3.0, 4.0], [4.0, 5.0], [99.0, 9.0]], [False, False, True])
    other = row(0.1, [[1.0, 3.0], [3.0, 3.0], [0.0, 0.0]], [False, False, False])
    result = {"trained": [one, other], "true_noise": 0.2, "truth": [5.0, 5.0]}
    found = balanced.difference(result, ("full", 1.0), ("full", 0.1))
    assert found.value == 1.5 and found.num_samples == 2
    assert balanced.lost(result, "full", 1.0).value == 1.0
    assert balanced.mean(result, "log_evidence", "full", 1.0).value == 4.0
    assert balanced.relative_noise(result, "full", 1.0).value == pytest.approx(1.0)
    assert balanced.num_diverged(result) == 1


def test_what_is_left_over_is_a_difference_of_differences():
    def row(conditions, weight, values):
        return {
            "conditions": conditions,
            "weight": weight,
            "from_one": False,
            "diverged": [False, False],
            "log_evidence": values,
        }

    result = {
        "trained": [
            row("partial", 1.0, [[1.0, 2.0], [2.0, 3.0]]),
            row("full", 1.0, [[5.0, 6.0], [6.0, 7.0]]),
            row("partial", 0.1, [[0.0, 1.0], [0.0, 1.0]]),
            row("full", 0.1, [[1.0, 2.0], [2.0, 3.0]]),
        ]
    }
    # Worth 1 and 2 at 0.1, and 4 at one.
    assert balanced.left_over(result, 0.1, 0.5).value == pytest.approx(1.5 - 0.5 * 4.0)


@pytest.mark.parametrize("scale", ["smoke", "paper"])
def test_the_sequences_of_the_chain_are_those_that_are_registered(scale):
    source = balanced.World(balanced.KNOWN["chain"], scale).source
    assert source.rsplit(" ", 1)[1] in sweep._registered()
