"""What the three benchmarks store, at smoke scale, and what is made of it."""

import json

import numpy as np
import pytest

from tfp_gaps.book import experiments, results, runs
from tfp_gaps.book.experiments import benchmark, digits, traffic, uav
from tfp_gaps.posteriors.conditions import LookAhead

MODULES = {"digits": digits, "traffic": traffic, "uav": uav}


@pytest.fixture(scope="module", params=["digits", "uav"])
def result(request):
    return MODULES[request.param].run(scale="smoke", conditions=LookAhead(1), seeds=[0, 1])


def test_a_result_holds_what_the_chapters_read(result):
    json.dumps(result, allow_nan=False)
    for quantity in ("elbo", "iwae_fresh_full", "smc_fresh_full", "log_likelihood_rest"):
        estimate = benchmark.over_seeds(result, quantity)
        assert estimate.kind == "seeds" and estimate.num_samples == 2
    assert benchmark.difference_over_seeds(result, result, "elbo").value == 0.0
    assert benchmark.difference_over_sequences(result, result, "elbo").kind == "data points"
    num_timesteps = np.shape(result["per_step"]["divergence"])[1]
    assert num_timesteps == {"digits": 28, "uav": 40}[result["experiment"]]
    # The bound is the sum of its steps.
    steps = np.sum(result["per_step"]["log_likelihood"], 1)
    steps -= np.sum(result["per_step"]["divergence"], 1)
    values = [entry["value"] for entry in result["estimates"]["elbo"]]
    np.testing.assert_allclose(steps, values, atol=1e-6)
    table = str(benchmark.paper_table([result]))
    assert table.splitlines()[1].startswith("1 ") and "±" in table


def test_the_tighter_estimators_of_the_evidence_lie_above_the_elbo(result):
    # In expectation IWAE and SMC with the same network exceed its ELBO; means over 32 images or 40
    # windows and 5 paths, hence three joint errors.
    for seed in range(2):
        fresh, iwae = (result["estimates"][q][seed] for q in ("elbo_fresh_full", "iwae_fresh_full"))
        shared = len(result["per_sequence"]["elbo_fresh_full"][seed])
        paired = np.subtract(
            result["per_sequence"]["iwae_fresh_full"][seed][:shared],
            result["per_sequence"]["elbo_fresh_full"][seed][:shared],
        )
        assert paired.mean() > -3 * paired.std(ddof=1) / np.sqrt(len(paired))
        assert np.isfinite([fresh["value"], iwae["value"]]).all()


def test_a_forecast_is_stored_per_horizon_and_per_sequence():
    result = uav.run(scale="smoke", conditions=LookAhead(0), seeds=[0, 1])
    horizon = uav.SIZES["smoke"].horizon
    for quantity in ("rmse", "crps", "coverage_50", "coverage_90"):
        assert np.shape(result["forecast"][quantity]) == (2, horizon)
        assert all(entry["kind"] == "data points" for entry in result["forecast"][quantity][0])
    mean = np.mean(result["forecast"]["crps_mean"], 1)
    per_horizon = [np.mean([entry["value"] for entry in row]) for row in result["forecast"]["crps"]]
    np.testing.assert_allclose(mean, per_horizon, atol=1e-4)  # rounded to five decimals


@pytest.mark.parametrize("name", sorted(MODULES))
def test_variants_change_what_they_name(name):
    module = MODULES[name]
    assert "" in module.VARIANTS
    for variant in module.VARIANTS:
        size = module.BENCHMARK.size("book", variant)
        if variant.startswith("latent"):
            assert size.design.latent_size == int(variant.removeprefix("latent"))
    with pytest.raises(ValueError, match="variant"):
        module.BENCHMARK.size("book", "unheard-of")
    with pytest.raises(ValueError, match="Known: smoke, book, paper"):
        module.load("huge")
    assert tuple(sorted(MODULES)) == experiments.BENCHMARKS


def test_missing_results_name_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    with pytest.raises(results.ResultError, match="tfp-gaps run uav --scale paper"):
        uav.stored("paper")


def stored_sets():
    """Experiment, scale and variant of every stored run of a benchmark."""
    found = set()
    for path in runs.stored_paths():
        content = results.load(path)
        if content["experiment"] not in experiments.BENCHMARKS:
            continue
        found.add((content["experiment"], content["scale"], content["variant"]))
    return sorted(found)


@pytest.mark.parametrize("stored_set", stored_sets(), ids="-".join)
def test_stored_runs_of_a_set_differ_in_their_look_ahead_alone(stored_set):
    name, scale, variant = stored_set
    stored = MODULES[name].stored(scale, variant)
    assert stored[0]["lookahead"] == 0 and stored[-1]["lookahead"] is None
    for key in ("num_parameters", "seeds", "size", "data"):
        assert len({json.dumps(result[key], sort_keys=True) for result in stored}) == 1, key
    assert len(stored[0]["seeds"]) >= 3
