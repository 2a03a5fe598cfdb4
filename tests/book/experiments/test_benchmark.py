"""What the three benchmarks store, at smoke scale, and what is made of it."""

import copy
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from tfp_gaps._tensorflow import tf
from tfp_gaps.book import experiments, results, runs
from tfp_gaps.book.data.splits import Splits, Windows
from tfp_gaps.book.experiments import benchmark, digits, evidence, traffic, uav
from tfp_gaps.book.experiments.evidence import Effort
from tfp_gaps.book.experiments.sequential import Design, Fitted
from tfp_gaps.estimate import INDEPENDENT
from tfp_gaps.exact.linear_gaussian import LinearGaussian
from tfp_gaps.models.state_space import DiagonalNormal, LinearGaussianStateSpace
from tfp_gaps.networks import replica_seeds
from tfp_gaps.posteriors import conditions
from tfp_gaps.posteriors.look_ahead import LookAheadNetwork
from tfp_gaps.sequences import Sequences
from tfp_gaps.training import History, Settings

MODULES = {"digits": digits, "traffic": traffic, "uav": uav}


@pytest.fixture(scope="module", params=["digits", "uav"])
def result(request):
    seen = conditions.LookAhead(1)
    return MODULES[request.param].run(scale="smoke", conditions=seen, seeds=[0, 1])


def test_a_result_holds_what_the_chapters_read(result):
    json.dumps(result, allow_nan=False)
    for quantity in ("elbo", "iwae_fresh_full", "smc_fresh_full", "log_likelihood_rest"):
        estimate = benchmark.over_seeds(result, quantity)
        assert estimate.kind == "seeds" and estimate.num_samples == 2
    assert benchmark.difference_over_seeds(result, result, "elbo").value == 0.0
    num_timesteps = np.shape(result["per_step"]["divergence"])[1]
    assert num_timesteps == {"digits": 28, "uav": 40}[result["experiment"]]
    # The bound is the sum of its steps.
    steps = np.sum(result["per_step"]["log_likelihood"], 1)
    steps -= np.sum(result["per_step"]["divergence"], 1)
    values = [entry["value"] for entry in result["estimates"]["elbo"]]
    np.testing.assert_allclose(steps, values, atol=1e-6)
    assert ("forecast" in result) == (result["experiment"] == "uav")
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
    result = uav.run(scale="smoke", conditions=conditions.LookAhead(0), seeds=[0, 1])
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
    """Experiment, scale and variant of every stored run of a benchmark that the book reads."""
    found = set()
    for path in runs.stored_paths():
        content = results.load(path)
        if content["experiment"] not in experiments.BENCHMARKS or content["scale"] == "smoke":
            continue  # small runs are stored one by one, to be repeated
        if content["variant"] == "converged-equal-rate":
            continue  # one arm, which stands beside the looks of another set: see below
        found.add((content["experiment"], content["scale"], content["variant"]))
    return sorted(found)


@pytest.mark.parametrize("stored_set", stored_sets(), ids="-".join)
def test_stored_runs_of_a_set_differ_in_their_look_ahead_alone(stored_set):
    name, scale, variant = stored_set
    stored = MODULES[name].stored(scale, variant)
    assert stored[0]["lookahead"] == 0 and stored[-1]["lookahead"] is None
    for key in ("num_parameters", "data"):
        assert len({json.dumps(result[key], sort_keys=True) for result in stored}) == 1, key
    # Looks in between may have fewer seeds, which are among those of both ends.
    assert stored[0]["seeds"] == stored[-1]["seeds"]
    assert all(set(result["seeds"]) <= set(stored[0]["seeds"]) for result in stored)
    assert len({json.dumps(size_but_what_was_chosen(result)) for result in stored}) == 1
    assert len(stored[0]["seeds"]) >= 3


def test_partial_conditions_at_one_rate_have_the_settings_of_the_looks_beside_them():
    (least,) = digits.stored("paper", "converged-equal-rate")
    chosen, *looks = digits.stored("paper", "converged")
    assert least["lookahead"] == chosen["lookahead"] == 0
    assert set(least["seeds"]) <= set(chosen["seeds"])
    for result in looks:
        assert all(least[key] == result[key] for key in ("data", "num_parameters"))
        # The rate included: the choice from the grid changed partial conditions alone.
        own, other = (r["size"] | {"chosen": {}} for r in (least, result))
        assert own == other
    assert chosen["size"]["design"]["joint"] != least["size"]["design"]["joint"]


def size_but_what_was_chosen(result):
    """The size of a stored run without the settings that its arm chose from the common grid."""
    size = json.loads(json.dumps(result["size"], sort_keys=True))
    label = conditions.LookAhead.of(result["lookahead"]).label
    for chosen in size.get("chosen", {}).values():
        for key in chosen:
            value = size["design"]["joint"].pop(key, None)
            assert value == size["chosen"].get(label, {}).get(key, value)
    return size


def test_each_arm_has_the_settings_that_were_chosen_for_it():
    size = benchmark.Size(
        design=uav.BENCHMARK.size("smoke").design,
        num_bound=8, num_iwae=8, num_samples=2, num_filter=8, num_particles=8, start=2,
        chosen={"partial": {"kl_warmup_steps": 7}},
    )  # fmt: skip
    before = size.design.joint.kl_warmup_steps
    assert before != 7
    assert size.under(conditions.LookAhead(0)).design.joint.kl_warmup_steps == 7
    assert size.under(conditions.LookAhead(1)) == size.under(conditions.FULL) == size
    assert size.under(conditions.LookAhead(0)).design.refit == size.design.refit


# Known answers ------------------------------------------------------------------------------------

# States that forget at once, z_t ~ N(0, S), x_t ~ N(z_t, R): ln p(x) is a sum of normal densities.
S, R = 0.5, 2.0
START, HORIZON = 3, 2
SIZE = benchmark.Size(
    design=None,
    num_bound=60,
    num_iwae=40,
    num_samples=5,
    num_filter=20,
    num_particles=2000,
    start=START,
    horizon=HORIZON,
)


class Shifted:
    """q(z_t | .) = N(m + 1, s^2) beside p(z_t | .) = N(m, s^2): each step costs 1 / (2 S) nats."""

    sample_path = LookAheadNetwork.sample_path

    def context(self, batch):
        return batch.observations

    def factor(self, prior, latent, context):
        ones = tf.ones_like(context)
        return DiagonalNormal(prior.mean + ones, prior.scale * ones)


class Exact(Shifted):
    """q(z_t | .) = p(z_t | x_t), which is p(z_t | z_{t-1}, x_{1:T}) where states forget."""

    def factor(self, prior, latent, context):
        variance = 1.0 / (1.0 / S + 1.0 / R)
        scale = math.sqrt(variance) * tf.ones_like(context)
        return DiagonalNormal(variance * context / R, scale)


@pytest.fixture(scope="module")
def evaluated():
    """A poor joint q and an exact fresh one, on parts of the data with levels of their own."""
    rng = np.random.default_rng(0)
    parts = [
        rng.normal(level, math.sqrt(S + R), size=[START + HORIZON, 80, 1]) for level in (6, -3, 0)
    ]
    model = LinearGaussianStateSpace(LinearGaussian(0.0, S, 1.0, R, S), num_replicas=2)
    joint, refit = (Fitted(model, q(), None) for q in (Shifted, Exact))
    splits = Splits(*(Sequences(part) for part in parts), "levels")
    names = ("train", "validation", "test")
    return SimpleNamespace(
        content=benchmark.evaluate(joint, refit, splits, SIZE),
        increments=scipy.stats.norm(0, math.sqrt(S + R)).logpdf(parts[2][..., 0]),
        elbos={name: shifted_elbo(part) for name, part in zip(names, parts, strict=True)},
        test=parts[2][..., 0],
    )


def shifted_elbo(x):
    """The ELBO of `Shifted`, [time, sequences]: E ln N(x; z, R) - KL."""
    return -0.5 * (np.log(2 * np.pi * R) + ((x[..., 0] - 1.0) ** 2 + S) / R) - 0.5 / S


def test_bounds_of_the_fresh_network_are_those_of_its_own_q(evaluated):
    # With the exact posterior every weight is p(x_t), whatever the draws: IWAE and SMC equal the
    # evidence, up to float32 and the three decimals that are stored. From the shifted q SMC would
    # have the error of weights that vary, and IWAE-5 a gap of about a nat.
    evidence = evaluated.increments.sum(0)
    for quantity, count in (("iwae_fresh_full", SIZE.num_iwae), ("smc_fresh_full", 20)):
        found = evaluated.content["per_sequence"][quantity]
        np.testing.assert_allclose(found, [evidence[:count]] * 2, atol=1e-3)
        for entry in evaluated.content["estimates"][quantity]:
            assert entry["num_samples"] == count
            assert entry["value"] == pytest.approx(evidence[:count].mean(), abs=1e-4)
    own = np.array(evaluated.content["per_sequence"]["iwae"])
    assert (own.mean(1) < evidence[: SIZE.num_iwae].mean() - 0.5).all()


def test_bounds_are_measured_on_the_part_that_they_name(evaluated):
    # The parts differ by levels of 6, -3 and 0, which is tens of nats.
    found = evaluated.content["estimates"]
    for quantity, part in (("elbo", "test"), ("elbo_train", "train")) + (
        ("elbo_validation", "validation"),
    ):
        expected = evaluated.elbos[part].sum(0)[: SIZE.num_bound].mean()
        for entry in found[quantity]:
            # One draw for each sequence: ln N(x; z, R) has a standard deviation of at most
            # 2 nats, |x - 1| sqrt(S) / R at the level 6; 60 sequences of 5 steps, four errors.
            assert entry["value"] == pytest.approx(expected, abs=4 * 2 * math.sqrt(5 / 60))
            assert entry["num_samples"] == SIZE.num_bound
    divergence = evaluated.content["per_step"]["divergence"]
    np.testing.assert_allclose(divergence, np.full([2, START + HORIZON], 0.5 / S), rtol=1e-5)


def test_the_particle_filter_needs_no_network(evaluated):
    # 2000 particles whose weights vary by less than their mean: 0.03 nats a step; four errors.
    exact = evaluated.increments[:, : SIZE.num_filter]
    for quantity, increments in (
        ("log_likelihood_filter", exact),
        ("log_likelihood_rest", exact[START:]),
    ):
        found = evaluated.content["per_sequence"][quantity]
        np.testing.assert_allclose(found, [increments.sum(0)] * 2, atol=0.12 * math.sqrt(5))
    shares = np.array(evaluated.content["per_step"]["effective_share"])
    assert shares.shape == (2, START + HORIZON) and (shares > 0.5).all() and (shares <= 1.0).all()


def test_the_forecast_of_an_evaluation_is_of_the_test_part(evaluated):
    # Without memory the prediction is 0: the squared error is x^2, 2.5 here and 38 in training. The
    # mean of 500 members is off by 1.6 / sqrt(500), which leaves 2 |x| times that in one error and
    # four of those in a mean over 40.
    found = np.mean(evaluated.content["forecast"]["squared_error_mean"], 1)
    truth = np.mean(evaluated.test[START:, : SIZE.num_filter] ** 2)
    error = 2 * math.sqrt(truth) * 1.6 / math.sqrt(500) / math.sqrt(40)
    np.testing.assert_allclose(found, truth, atol=4 * error)


def test_a_forecast_is_scored_against_the_steps_after_the_start(linear_chain):
    # The filter reads zeros until x_START = 4, and the truth climbs by 10 a step: one step off, and
    # either the state is still at zero or the errors are those of a neighbour.
    x = np.zeros([START + HORIZON + 1, 3, 1], np.float32)
    x[START - 1] = 4.0
    x[START:, :, 0] = 10.0 * np.arange(1, HORIZON + 2)[:, np.newaxis]
    filtered = linear_chain.kalman(START).forward_filter(x[:START].transpose(1, 0, 2))
    mean = filtered.filtered_means.numpy()[0, -1, 0]
    assert mean > 1.5
    scores = benchmark.predict(linear_chain.model(2), Sequences(x), SIZE, seed=0)
    summary = benchmark.forecast_summary(scores)
    for replica in range(2):
        for h in range(HORIZON):
            expected = 10.0 * (h + 1) - mean * 0.9 ** (h + 1)
            # The mean of 500 members of a scale of about 1.6, from 2000 particles: four errors.
            found = summary["rmse"][replica][h]["value"]
            assert found == pytest.approx(expected, abs=4 * 1.6 / math.sqrt(500))
            # Far from the truth the CRPS is the distance less half the spread of two members.
            assert summary["crps"][replica][h]["value"] == pytest.approx(expected, abs=1.5)
            assert summary["coverage_90"][replica][h]["value"] == 0.0
    mean_error = np.mean(np.square([[e["value"] for e in row] for row in summary["rmse"]]), 1)
    np.testing.assert_allclose(
        summary["squared_error_mean"], np.repeat(mean_error[:, np.newaxis], 3, 1), rtol=0.02
    )


def test_the_fresh_network_is_trained_under_full_conditions(tmp_path):
    # Without look-ahead the backward direction starts afresh in every step, and its recurrent
    # kernel multiplies zeros: what has no gradient does not move.
    x = np.random.default_rng(0).normal(size=[4, 16, 2]).astype(np.float32)
    splits = Splits(*[Sequences(x)] * 3, "noise")
    options = {"num_shards": 1, "steps_per_call": 1, "jit_compile": False}
    design = Design(2, 4, "normal", Settings(1, 8, **options), Settings(2, 8, **options))
    joint, refit = benchmark.train(splits, design, conditions.LookAhead(0), [0], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"joint.npz", "refit.npz"}
    start = LookAheadNetwork(
        conditions=conditions.FULL,
        observation_size=2,
        latent_size=2,
        hidden_size=4,
        seeds=replica_seeds([0], "initial network"),
    )
    moved = [
        np.abs((fitted.network._recurrent_kernel - start._recurrent_kernel)[0]).max((1, 2))
        for fitted in (joint, refit)
    ]
    assert moved[0][0] > 0 and moved[0][1] == 0.0
    assert moved[1][0] > 0 and moved[1][1] > 0
    seen = (joint.network.conditions, refit.network.conditions)
    assert seen == (conditions.LookAhead(0), conditions.FULL)
    assert refit.model is joint.model and refit.network is not joint.network
    # Each phase as long as its own settings say.
    assert (joint.history.steps[-1], refit.history.steps[-1]) == (1, 2)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_joint_training_of_every_size_warms_up_and_a_refit_does_not(name):
    known = MODULES[name].BENCHMARK
    designs = [known.size(scale, v).design for scale in known.sizes for v in known.variants]
    for design in designs:
        assert 1 < design.joint.kl_warmup_steps <= design.joint.num_steps / 2
        assert design.refit.kl_warmup_steps == 0


# With evidence ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    """Splits of six flights, and a design whose steps gain nothing."""
    rng = np.random.default_rng(0)
    x, controls = rng.normal(size=[4, 24, 2]), rng.normal(size=[4, 24, 1])
    controls[0] = 0.0
    part = Sequences(x, controls)
    windows = Windows(np.repeat(np.arange(6), 4), np.zeros(24, int), 4)
    named = dict.fromkeys(("validation", "test"), windows)
    options = {"num_shards": 1, "jit_compile": False, "steps_per_call": 2, "validate_every": 2}
    settings = Settings(20, 8, schedule="plateau", learning_rate=1e-4, **options)
    return Splits(part, part, part, "noise", windows=named), Design(
        2, 4, "normal", settings, settings
    )


@pytest.fixture
def noise(small, monkeypatch):
    """A benchmark of these, at smoke scale with an `Effort` and at book scale without."""
    splits, design = small
    size = benchmark.Size(
        design=design,
        num_bound=8, num_iwae=8, num_samples=2, num_filter=8, num_particles=8, start=2, horizon=2,
        effort=Effort(8, 16, 12, fewest=4, most=16, most_choice=16, reference=8),
    )  # fmt: skip
    known = benchmark.Benchmark("noise", {"smoke": size, "book": replace(size, effort=None)})
    monkeypatch.setattr(known, "load", lambda *_: splits)
    return known


def test_fresh_networks_start_warm_where_evidence_is_looked_for(noise, monkeypatch):
    found = []

    def train(*_, warm, **__):
        found.append(warm)
        raise InterruptedError

    monkeypatch.setattr(benchmark, "train", train)
    for scale in ("smoke", "book"):
        with pytest.raises(InterruptedError):
            noise.run(scale=scale, conditions=conditions.FULL, seeds=[0])
    assert found == [True, False]


def test_a_benchmark_stores_evidence_with_groups(noise):
    result = noise.run(scale="smoke", conditions=conditions.LookAhead(0), seeds=[0])
    json.dumps(result, allow_nan=False)
    found = result["evidence"]
    assert found["groups"] == np.repeat(np.arange(4), 4).tolist()
    assert result["groups"] == found["groups"][:8]  # of the sequences of "per_sequence"
    assert found["slack_groups"] == [1, 1, 2, 2, 2, 2]
    (replica,) = found["replicas"]
    assert len(replica["test"]["values"]) == 16 and len(replica["slack"]["values"]) == 6
    assert set(replica["validation"]) == {
        "bootstrap", "elbo", "iwae", "iwae_fresh_full", "smc", "smc_fresh_full"
    }  # fmt: skip
    assert replica["filter_slack"]["particles"] == 8
    # Steps of 1e-4 gain nothing: four windows of two steps each.
    histories = result["history"]
    assert histories["joint"]["converged"] == histories["refit"]["converged"] == [True]
    assert histories["joint"]["steps"][-1] == 8


@pytest.mark.parametrize(("horizon", "steps"), [(2, 2), (0, 4)])
def test_slack_of_the_filter_is_that_of_the_steps_it_judges(noise, monkeypatch, horizon, steps):
    # A forecast starts from a filter of the first two steps; without one all four are predicted.
    asked = []

    def measure(*_, filter_steps, **__):
        asked.append(filter_steps)
        raise InterruptedError

    monkeypatch.setattr(evidence, "measure", measure)
    size = replace(noise.sizes["smoke"], horizon=horizon)
    monkeypatch.setitem(noise.sizes, "smoke", size)
    with pytest.raises(InterruptedError):
        noise.run(scale="smoke", conditions=conditions.FULL, seeds=[0])
    assert asked == [steps]


def test_the_history_of_a_replica_that_diverged_can_be_stored():
    losses = np.array([[1.23456, np.inf], [1.0, np.nan]])
    steps = np.array([1, 2])
    history = History(steps, losses, np.array([0, 2]), 1.0, steps, losses)
    stored = json.loads(json.dumps(benchmark._thin(history), allow_nan=False))
    assert stored["losses"] == stored["validation_losses"] == [[1.235, None], [1.0, None]]


def test_evidence_that_was_found_is_not_looked_for_again(tmp_path):
    asked = []

    def compute():
        asked.append(1)
        return {"mean": -1.5, "values": [-1.0, -2.0]}

    first = benchmark._kept(tmp_path, "evidence-0", ["size 1"], compute)
    assert benchmark._kept(tmp_path, "evidence-0", ["size 1"], compute) == first == compute()
    asked.clear()
    # Another size, another replica and a run without a folder are computed.
    benchmark._kept(tmp_path, "evidence-0", ["size 2"], compute)
    benchmark._kept(tmp_path, "evidence-1", ["size 2"], compute)
    benchmark._kept(None, "evidence-1", ["size 2"], compute)
    assert len(asked) == 3


def test_what_was_kept_of_other_weights_is_not_taken():
    size = uav.BENCHMARK.size("smoke")
    modules = [tf.Module(), tf.Module()]
    modules[0].weight = tf.Variable([1.0, 2.0])
    modules[1].weight = tf.Variable([3.0])
    first = benchmark._digest(size, *modules)
    assert benchmark._digest(size, *modules) == first
    modules[1].weight.assign([3.1])
    assert benchmark._digest(size, *modules) != first
    modules[1].weight.assign([3.0])
    assert benchmark._digest(uav.BENCHMARK.size("book"), *modules) != first


@pytest.mark.parametrize("seen", [conditions.LookAhead(0), conditions.FULL], ids=str)
def test_under_full_conditions_the_fresh_network_starts_where_the_pairs_own_ended(small, seen):
    joint, refit = benchmark.train(*small, seen, [0], warm=True)
    start, reached = refit.history.validation_losses[0, 0], joint.history.validation_losses.min()
    assert (start == reached) == (seen == conditions.FULL)
    cold = benchmark.train(*small, seen, [0])[1]
    assert cold.history.validation_losses[0, 0] != reached


def test_networks_that_diverge_are_trained_again_until_none_does(monkeypatch):
    # Diverged sequences by attempt, of three replicas: the second has none, the last one is not
    # helped by its second attempt, and a third one is not needed.
    counts = {0: [1, 0, 2], 1: [0, 9, 3], 2: [9, 9, 0], 3: [9, 9, 9]}
    trained = []

    def history(num_replicas):
        losses = np.zeros([1, num_replicas])
        return History(np.array([4]), losses, np.zeros(num_replicas), 1.0, np.array([4]), losses)

    def fit_limited(model, splits, design, again, options):
        trained.append((model, again))
        (seed,), (_, r) = again, model
        return Fitted(model, (seed // 1000, r), history(1))

    monkeypatch.setattr(benchmark, "replica", lambda module, r: (module, r))
    monkeypatch.setattr(benchmark, "_fit_limited", fit_limited)
    monkeypatch.setattr(benchmark, "count_diverged", lambda model, q, *_: counts[q[0]][q[1]])
    monkeypatch.setattr(benchmark.evidence, "measure", lambda model, own, fresh, *_, **__: fresh)
    settings = Settings(4, 4)
    size = benchmark.Size(
        design=Design(1, 4, "normal", settings, settings),
        num_bound=1, num_iwae=1, num_samples=1, num_filter=1, num_particles=1, start=1,
        effort=Effort(8, 16, 12, num_restarts=3),
    )  # fmt: skip
    joint, refit = Fitted("model", "own", history(3)), Fitted("model", 0, history(3))
    splits = SimpleNamespace(test=Sequences(np.zeros([4, 2, 1])))
    found = benchmark.find_evidence(joint, refit, splits, size, [5, 6, 7])
    assert found["replicas"] == [(1, 0), (0, 1), (2, 2)]
    assert found["restarts"] == [
        {"num_diverged": [1, 0], "used": 1},
        {"num_diverged": [0], "used": 0},
        {"num_diverged": [2, 3, 0], "used": 2},
    ]
    # Each is trained on the model of its replica, and nobody else's again.
    assert trained == [
        (("model", 0), [1005]),
        (("model", 2), [1007]),
        (("model", 2), [2007]),
    ]


def test_sequences_diverge_by_the_sum_of_their_steps(monkeypatch):
    # Two steps of one replica and ten sequences; the second step of two of them is far below.
    close = np.random.default_rng(0).normal(size=[2, 1, 10])
    far = close.copy()
    far[1, 0, [2, 7]] -= 1000.0

    def particle_filter(*_, posterior, **__):
        return SimpleNamespace(log_increments=close if posterior is None else far)

    monkeypatch.setattr(benchmark.filtering, "particle_filter", particle_filter)
    part = Sequences(np.zeros([2, 10, 1]))
    count = benchmark.count_diverged(None, "q", Splits(part, part, part, ""), Effort(10, 10, 10))
    assert count == 2


def test_parameters_are_counted_for_one_replica():
    model, network = tf.Module(), tf.Module()
    model.kernel, model.bias = tf.Variable(tf.zeros([5, 2, 3])), tf.Variable(tf.zeros([5, 3]))
    network.kernel = tf.Variable(tf.zeros([5, 4]))
    found = benchmark.count_parameters(Fitted(model, network, None))
    assert found == {"model": 9, "network": 4}


# What is made of results --------------------------------------------------------------------------


def stored_like(lookahead, **quantities):
    """A result with these values per seed, and on three sequences that spread around them."""
    spread = np.array([-1.0, 0.0, 1.0])
    return {
        "lookahead": lookahead,
        "estimates": {
            name: [{"value": v, "standard_error": 9.0, "num_samples": 3, "kind": ""} for v in row]
            for name, row in quantities.items()
        },
        "per_sequence": {
            name: [(value + spread).tolist() for value in row] for name, row in quantities.items()
        },
    }


PARTIAL = stored_like(0, elbo=[-10.0, -13.0], smc_fresh_full=[-6.0, -7.0], elbo_train=[-8.0, -8.5])
FULL = stored_like(None, elbo=[-4.0, -5.0], smc_fresh_full=[-3.0, -3.0], elbo_train=[-2.0, -2.5])


def test_differences_are_a_result_less_its_baseline():
    # Per seed 6 and 8: mean 7, error sqrt(2) / sqrt(2).
    found = benchmark.difference_over_seeds(FULL, PARTIAL, "elbo")
    assert (found.value, found.standard_error, found.kind) == (7.0, pytest.approx(1.0), "seeds")


def test_the_advantage_of_the_first_quantity_is_less_that_of_the_other():
    # By the ELBO full leads by 6 and 8, by SMC by 3 and 4: 3 and 4 more, 3.5 with an error of .5
    # over seeds. Sequences that spread by -1, 0 and 1 add one of 1 / sqrt(3).
    quantities = ("elbo", "smc_fresh_full")
    found = benchmark.difference_of_advantages(FULL, PARTIAL, *quantities, groups=INDEPENDENT)
    assert found.value == 3.5 and found.standard_error == pytest.approx(0.5)
    uneven = copy.deepcopy(FULL)
    uneven["per_sequence"]["elbo"] = np.add(FULL["per_sequence"]["elbo"], [-1, 0, 1]).tolist()
    found = benchmark.difference_of_advantages(uneven, PARTIAL, *quantities, groups=INDEPENDENT)
    assert found.value == 3.5
    assert found.standard_error == pytest.approx((0.5**2 + 1 / 3) ** 0.5)


def lists_of(content, length):
    """Paths in a JSON-like value to the lists of a length."""
    if isinstance(content, dict):
        return [(k, *path) for k, value in content.items() for path in lists_of(value, length)]
    if not isinstance(content, list):
        return []
    inner = [("", *path) for value in content for path in lists_of(value, length)]
    return inner + ([()] if len(content) == length else [])


def test_seeds_of_a_result_are_taken_wherever_it_has_one_entry_for_each():
    run = uav.stored("paper", "nanobench")[0]
    assert len(run["seeds"]) == 8
    every = {path for path in lists_of(run, 8) if path[0] != "provenance"}
    assert {path[0] for path in every} > {"history", "estimates", "evidence", "forecast"}
    found = benchmark.of_seeds(run, [5, 1, 2])
    assert set(lists_of(found, 8)) <= {("provenance", "seeds")}
    assert every <= set(lists_of(found, 3))
    assert found["seeds"] == [5, 1, 2]
    for one, other in ((0, 5), (1, 1), (2, 2)):
        assert found["per_sequence"]["elbo"][one] == run["per_sequence"]["elbo"][other]
        replica = found["evidence"]["replicas"][one]
        assert replica == run["evidence"]["replicas"][other]
        losses = [row[one] for row in found["history"]["joint"]["validation_losses"]]
        assert losses == [row[other] for row in run["history"]["joint"]["validation_losses"]]
    kept = ("groups", "lookahead", "provenance", "size")
    assert all(found[key] == run[key] for key in kept)
    assert found["evidence"]["groups"] == run["evidence"]["groups"]
    with pytest.raises(ValueError, match=r"found \[8\]"):
        benchmark.of_seeds(run, [0, 8])


def test_one_seed_keeps_its_error_over_the_data():
    # Three seeds say what their spread is; one alone cannot.
    found = benchmark.over_seeds(stored_like(0, elbo=[-10.0]), "elbo")
    assert (found.value, found.standard_error, found.num_samples) == (-10.0, 9.0, 3)
    assert benchmark.over_seeds(PARTIAL, "elbo").standard_error == pytest.approx(1.5)


@pytest.mark.parametrize(("count", "kept"), [(3, 3), (200, 200), (400, 200)])
def test_a_long_history_is_thinned_and_a_short_one_kept(count, kept):
    steps, losses = np.arange(1, count + 1), np.zeros([count, 1])
    history = History(steps, losses, np.zeros(1, int), 1.0, np.zeros(0, int), np.zeros([0, 1]))
    found = benchmark._thin(history)
    assert len(found["steps"]) == len(found["losses"]) == kept
    assert found["steps"][:2] == [1, 1 + count // kept] and found["best_steps"] == [count]


def test_rows_of_the_table_carry_the_look_ahead_of_their_numbers():
    columns = {"ELBO": "elbo", "SMC": "smc_fresh_full"}
    table = benchmark.paper_table([PARTIAL, FULL], columns)
    assert table.header == ["look-ahead", "ELBO", "SMC"]
    assert table.rows == [["0", "-11.5 ± 1.5", "-6.50 ± 0.50"], ["full", "-4.50 ± 0.50", "-3.000"]]
    assert [benchmark.stored_label(r) for r in (PARTIAL, FULL)] == ["partial", "full"]


def test_windows_of_the_same_hours_or_the_same_flight_are_one_group():
    pooled = {"scale": "paper", "per_sequence": {"elbo": [[0.0] * 20]}}
    assert traffic.groups_of(pooled)[[0, 8, 16]].tolist() == [0, 0, 0]
    assert len(np.unique(traffic.groups_of(pooled))) == 8
    assert traffic.groups_of(pooled | {"scale": "book"}) == INDEPENDENT
    flights = uav.groups_of({"scale": "book"})
    assert len(flights) == 40 and len(np.unique(flights)) == 20  # two windows of each test flight
    assert uav.groups_of({"scale": "paper"}) == INDEPENDENT
    assert uav.groups_of({"scale": "paper", "groups": [3, 3, 4]}) == [3, 3, 4]
    assert traffic.groups_of(pooled | {"groups": [7] * 20}) == [7] * 20
