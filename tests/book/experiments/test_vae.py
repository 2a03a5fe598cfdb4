"""What the study of auto-encoders stores, at smoke scale, and what is made of it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tfp_gaps import bounds, training
from tfp_gaps._tensorflow import tf
from tfp_gaps.book import results
from tfp_gaps.book.experiments import vae
from tfp_gaps.models.vae import VAE
from tfp_gaps.networks import replica_seeds
from tfp_gaps.posteriors import families


@pytest.fixture(scope="module", params=["digits-factorised", "fashion-flow-linear"])
def first(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        # Annealing once, for the sake of time.
        num_annealed = 2 if "digits" in request.param else 0
        small = replace(vae._SIZES["smoke"], num_annealed=num_annealed)
        patch.setitem(vae._SIZES, "smoke", small)
        options = {"scale": "smoke", "seeds": [0, 1], "variant": request.param}
        return vae.run(**options, checkpoint_folder=folder), options, folder


def test_a_result_holds_every_quantity_for_each_seed_and_point(first):
    result, options, _ = first
    json.dumps(result, allow_nan=False)
    assert result["variant"] == options["variant"] and result["seeds"] == [0, 1]
    assert result["diverged"] == [False, False]
    size = vae.size_of("smoke", options["variant"])
    searched = {f"{bound}_best_{short}" for bound in ("elbo", "iwae") for short in size.searched}
    for part in vae.PARTS:
        points = result["points"][part]
        annealed = {"annealed"} if "digits" in options["variant"] else set()
        assert set(points) == {"elbo", "iwae"} | annealed | searched
        for name, values in points.items():
            expected = 2 if name == "annealed" else size.num_points
            assert np.shape(values) == (2, expected), name
            assert np.isfinite(values).all() and np.max(values) < 0
        assert result["details"][part]["diverged"] == 0
        assert set(result["details"][part]["seconds"]) >= {"amortised", *size.searched}
        whole = result["whole_set"][part]
        assert [entry["kind"] for entry in whole] == ["data points"] * 2
    # 80 steps of 32 images, of 256.
    assert result["epochs"] == 10 and result["size"]["latent_size"] == 4


def test_the_bounds_are_in_order(first):
    result, options, _ = first
    trained = options["variant"].split("-")[1]
    searched = vae.size_of("smoke", options["variant"]).searched
    for part in vae.PARTS:
        points = {name: np.array(values) for name, values in result["points"][part].items()}
        # The search starts at q_phi; 20 draws per image, paired over two seeds and eight images.
        for low, high in (
            ("elbo", f"elbo_best_{trained}"),
            ("elbo", "iwae"),
            *((f"elbo_best_{short}", f"iwae_best_{short}") for short in searched),
        ):
            gain = (points[high] - points[low]).ravel()
            assert gain.mean() > -3 * gain.std(ddof=1) / np.sqrt(gain.size), (low, high)
        # And training has raised the bound above that of 784 fair coins, -543 nats.
        assert points["elbo"].mean() > -500


def test_a_finished_run_is_not_trained_again(first, monkeypatch):
    result, options, folder = first
    calls = []
    advance = training._Run.advance
    monkeypatch.setattr(training._Run, "advance", lambda run: calls.append(1) or advance(run))
    monkeypatch.setattr(vae, "measure", lambda fitted, images, size, seed: ({}, {}))
    again = vae.run(**options, checkpoint_folder=folder)
    assert calls == []
    assert again["whole_set"] == result["whole_set"]  # from the same draws
    assert again["training_seconds"] == result["training_seconds"]


def test_a_checkpoint_of_another_variant_is_refused(first):
    _, options, folder = first
    other = options["variant"].split("-")[0] + "-flow-cold"
    with pytest.raises(ValueError, match="belongs to another run"):
        vae.run(**options | {"variant": other}, checkpoint_folder=folder)


def test_snapshots_are_kept_beside_the_checkpoint(tmp_path, monkeypatch):
    size = vae.size_of("smoke", "digits-factorised-long")
    num_steps = size.training.num_steps
    assert num_steps == 4 * 80 and size.snapshots[-1] == num_steps
    assert all(step % size.training.steps_per_call == 0 for step in size.snapshots)
    settings = replace(size.training, num_steps=8, steps_per_call=2)
    size = replace(size, training=settings, snapshots=(2, 8))
    seen = []

    def measure(fitted, images, size, *, seed):
        seen.append(fitted.posterior.trainable_variables[0].numpy())
        return {"elbo": np.full([1, len(images)], float(len(seen)))}, {}

    monkeypatch.setattr(vae, "measure", measure)
    splits = vae.load(size)
    _, found = vae._trained(splits, size, [0], tmp_path / "folder", None)
    assert list(found) == ["2", "8"] and set(found["2"]) == set(vae.PARTS)
    assert len(seen) == 4 and np.abs(seen[0] - seen[2]).max() > 1e-5
    _, again = vae._trained(splits, size, [0], tmp_path / "folder", None)
    assert again == found and len(seen) == 4


def test_a_posterior_alone_leaves_the_model_as_it_is():
    size = vae.size_of("smoke", "digits-factorised")
    size = replace(size, training=replace(size.training, num_steps=4, steps_per_call=4))
    splits = vae.load(size)
    joint = vae.fit(splits, size, seeds=[0])
    before = [variable.numpy() for variable in joint.model.trainable_variables]
    visible = np.arange(784) < 392
    alone = vae.fit_posterior(joint.model, splits, size, seeds=[0], visible=visible)
    for variable, expected in zip(joint.model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, expected)
    fresh = vae.new_posterior(size, [0], visible=visible)
    assert np.abs(alone.posterior.encoder.output.kernel - fresh.encoder.output.kernel).max() > 1e-4
    x = np.zeros([1, 2, 784], np.float32)
    x[0, 1, 392:] = 1.0
    outputs = alone.posterior.outputs(tf.constant(x)).numpy()
    np.testing.assert_array_equal(outputs[:, 0], outputs[:, 1])


def test_a_checkpoint_belongs_to_one_model_and_one_choice_of_pixels(tmp_path):
    size = vae.size_of("smoke", "digits-factorised")
    size = replace(size, training=replace(size.training, num_steps=2, steps_per_call=2))
    splits, path = vae.load(size), tmp_path / "posterior.npz"
    model = vae.fit(splits, size, seeds=[0]).model
    options = {"seeds": [0], "checkpoint": path}
    upper = np.arange(784) < 392
    vae.fit_posterior(model, splits, size, visible=upper, **options)
    vae.fit_posterior(model, splits, size, visible=upper, **options)  # and is taken up again
    with pytest.raises(ValueError, match="belongs to another run"):
        vae.fit_posterior(model, splits, size, visible=~upper, **options)  # as many pixels
    model.trainable_variables[0].assign_add(tf.ones_like(model.trainable_variables[0]))
    with pytest.raises(ValueError, match="belongs to another run"):
        vae.fit_posterior(model, splits, size, visible=upper, **options)


@pytest.mark.parametrize("name", families.NAMES)
def test_the_search_starts_at_the_trained_posterior_or_its_moments(name):
    size = replace(vae.size_of("smoke", "digits-flow"), latent_size=3)
    for short in vae.FAMILIES:
        posterior = vae.new_posterior(replace(size, family=short), [0, 1])
        fitted = vae.Fitted(None, posterior, None)
        x = np.random.default_rng(0).integers(0, 2, [1, 5, 784])
        own = posterior.parameters(tf.constant(x, tf.float32))
        family = families.make(name, 3, **size.flow)
        start = vae.starting_point(fitted, own, family, 0)
        if family.name == posterior.family.name:
            assert start is own
            continue
        # An untrained flow is the Gaussian of its outputs. 200 draws know a mean to s / sqrt(200)
        # and ln s to 1 / sqrt(400), each within five errors for thirty numbers.
        exact = short == "factorised"
        scale = np.exp(own.outputs[..., 3:6])
        miss = np.abs(start.outputs[..., :3] - own.outputs[..., :3]) / scale
        assert miss.max() <= (1e-6 if exact else 5 / np.sqrt(200))
        miss = np.abs(start.outputs[..., 3:6] - own.outputs[..., 3:6])
        assert miss.max() <= (1e-6 if exact else 5 / np.sqrt(400))
        assert start.outputs.shape == [2, 5, family.num_outputs]
        made = family.make_weights(replica_seeds([0, 0], "flow start"))
        assert len(start.weights) == len(made)


def test_variants_change_what_they_name():
    for variant in vae.VARIANTS:
        size = vae.size_of("book", variant)
        assert size.data["name"] == variant.split("-")[0]
        assert size.family == variant.split("-")[1]
    plain = vae.size_of("book", "digits-factorised")
    assert plain.encoder == plain.decoder == (200, 200)
    assert vae.size_of("book", "digits-flow-linear").encoder == ()
    assert vae.size_of("book", "digits-flow-decoder4").decoder == (200,) * 4
    assert vae.size_of("book", "digits-flow-cold").training.kl_warmup_steps == 0
    assert plain.training.kl_warmup_steps == plain.training.num_steps // 8


@pytest.mark.parametrize("variant", ["digits", "", "digits-factorised-huge", "traffic-flow"])
def test_unknown_variants_are_refused(variant):
    with pytest.raises(ValueError, match="Unknown variant.*Known: digits-factorised"):
        vae.run(scale="smoke", seeds=[0], variant=variant)
    with pytest.raises(ValueError, match="Unknown variant"):
        vae.stored("smoke", variant)


def test_missing_results_name_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    with pytest.raises(results.ResultError, match="run vae --scale book.*--variant digits-flow"):
        vae.stored("book", "digits-flow")


# --- what is made of a result ---------------------------------------------------------------------


def made_up(num_seeds=3):
    rng = np.random.default_rng(0)
    common = -100 + 10 * rng.normal(size=[num_seeds, 50])

    def below(slack):
        return (common - slack + 0.1 * rng.normal(size=common.shape)).tolist()

    points = {
        "elbo": below(5.0),
        "iwae": below(2.0),
        "iwae_best_factorised": below(1.5),
        "iwae_best_flow": below(1.0),
        "elbo_best_factorised": below(3.0),
        "elbo_best_flow": below(2.5),
        "annealed": (common[:, :5] + 50).tolist(),
    }
    return {"points": {"test": points, "train": points | {"iwae": below(0.0)}}}


def test_the_evidence_is_the_bound_with_the_largest_mean():
    result = made_up()
    name, values = vae.evidence_of(result)
    assert name == "iwae_best_flow" and values.shape == (3, 50)
    np.testing.assert_array_equal(values, result["points"]["test"]["iwae_best_flow"])
    assert vae.evidence_of(result, "train")[0] == "iwae"
    # Chosen by the mean over all, not for each image.
    result["points"]["test"]["iwae"][0][0] = 0.0
    assert vae.evidence_of(result)[0] == "iwae_best_flow"


def test_differences_are_paired_by_seed_and_image():
    result = made_up()
    found = vae.difference(result, "elbo_best_factorised", "elbo")
    points = {name: np.array(values) for name, values in result["points"]["test"].items()}
    pairs = points["elbo_best_factorised"] - points["elbo"]
    assert found.value == pytest.approx(pairs.mean())
    over_seeds, over_images = pairs.mean(1).var(ddof=1) / 3, pairs.mean(0).var(ddof=1) / 50
    assert found.standard_error == pytest.approx(np.sqrt(over_seeds + over_images))
    assert found.num_samples == 3 and found.kind == "seeds and data points"
    assert found.standard_error < 0.05  # the images' own spread of 10 nats cancels
    gap = vae.difference(result, "evidence", "elbo")
    assert gap.value == pytest.approx(4.0, abs=0.1)
    assert vae.difference(result, "evidence", "elbo", "train").value == pytest.approx(5.0, abs=0.1)


def test_the_difference_of_one_seed_is_paired_over_points():
    result = made_up(num_seeds=1)
    found = vae.difference(result, "iwae", "elbo")
    points = {k: np.array(v[0]) for k, v in result["points"]["test"].items()}
    pairs = points["iwae"] - points["elbo"]
    assert found.kind == "data points" and found.num_samples == 50
    assert found.standard_error == pytest.approx(pairs.std(ddof=1) / np.sqrt(50))


def test_the_two_gaps_sum_to_evidence_minus_elbo():
    result = made_up() | {"size": {"family": "factorised"}}
    whole = vae.difference(result, "evidence", "elbo")
    for family, approximation in ((None, 2.0), ("factorised", 2.0), ("flow", 1.5)):
        found = vae.gaps_of(result, family=family)
        assert found["approximation"].value == pytest.approx(approximation, abs=0.1)
        total = sum(estimate.value for estimate in found.values())
        assert total == pytest.approx(whole.value, abs=1e-9)


def test_a_change_of_a_gap_is_against_the_same_seeds_and_images():
    baseline = made_up() | {"size": {"family": "factorised"}}
    points = baseline["points"]["test"]
    better = {**points, "elbo": (np.array(points["elbo"]) + 0.7).tolist()}
    result = {**baseline, "points": {"test": better}}
    found = vae.change_of_gap(result, baseline, "amortisation")
    assert found.value == pytest.approx(-0.7) and found.standard_error < 1e-9
    assert vae.change_of_gap(result, baseline, "approximation").value == pytest.approx(0.0)


def test_snapshots_are_results_in_the_order_of_steps():
    result = made_up() | {"seeds": [0, 1, 2], "snapshots": {}}
    for step in (400, 80, 1000):
        result["snapshots"][str(step)] = {"test": {"elbo": [[float(step)]]}}
    found = vae.snapshots_of(result)
    assert list(found) == [80, 400, 1000]
    for step, one in found.items():
        assert one["points"]["test"]["elbo"] == [[float(step)]] and one["seeds"] == [0, 1, 2]


def test_a_refinement_is_the_mean_bound_on_its_way():
    size = vae.size_of("smoke", "digits-factorised")
    model = VAE(
        observation_size=784,
        latent_size=size.latent_size,
        hidden=size.decoder,
        seeds=replica_seeds([0], "model"),
    )
    fitted = vae.Fitted(model, vae.new_posterior(size, [0]), None)
    images = np.random.default_rng(0).integers(0, 2, [3, 784])
    best = np.array([-500.0, -510.0, -520.0])
    options = {"num_steps": 4, "every": 2}
    own = fitted.posterior.parameters(images[np.newaxis])
    starts = {"encoder": own, "prior": own._replace(outputs=tf.zeros_like(own.outputs))}
    for start, parameters in starts.items():
        found = vae.refinement(fitted, images, size, best, start=start, **options)
        assert found.steps.tolist() == [2, 4] and found.lacking.shape == (2, 3)
        # Four steps of .01 change little: within four errors of eight draws a look, and a nat.
        at_start = bounds.evaluate_static(
            model, fitted.posterior.family, parameters, images[None], num_samples=400, seed=0
        )
        error = 4 * np.max(at_start.elbo_error) * np.sqrt(400 / 8) + 1
        np.testing.assert_allclose(found.lacking, [best - at_start.elbo[0]] * 2, atol=error)
    with pytest.raises(ValueError, match="Unknown start 'posterior'. Known: encoder, prior"):
        vae.refinement(fitted, images, size, best, start="posterior", **options)


def test_a_diverged_datum_is_stored_as_none_and_has_no_estimate():
    stored = json.loads(json.dumps(vae.listed([[1.23456, float("nan"), float("-inf")]])))
    assert stored == [[1.235, None, None]]
    result = {"points": {"test": {"elbo": stored, "elbo_best_flow": [[2.0, 2.0, 2.0]]}}}
    assert np.isnan(vae.values_of(result, "elbo")).sum() == 2
    with pytest.raises(ValueError, match="diverged"):
        vae.difference(result, "elbo_best_flow", "elbo")
