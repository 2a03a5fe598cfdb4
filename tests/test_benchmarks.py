"""The timing run: its arithmetic, its tables, and that all its steps are the same step.

The loss is written a third time here, in NumPy float64 straight from the equations, and compared
with what the package's worker exports and computes.
"""

import doctest
import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import client, environments, evaluation, measure, ours, parts, report, run, sizes

TINY = {name: replace(size, **run.TINY) for name, size in sizes.SIZES.items()}


@pytest.fixture(scope="module", params=list(TINY))
def trainer(request):
    return ours.Trainer(TINY[request.param], "no XLA")


def sigmoid(a):
    return 1.0 / (1.0 + np.exp(-a))


def positive(raw, minimum):
    return np.logaddexp(0.0, raw - 1.0) + minimum


class Reference:
    """The negative ELBO of one seed, one sequence at a time."""

    def __init__(self, arrays, seed):
        self.arrays = {name: array[seed].astype(np.float64) for name, array in arrays.items()}

    def dense(self, name, inputs):
        return inputs @ self.arrays[f"{name}/kernel"] + self.arrays.get(f"{name}/bias", 0.0)

    def mlp(self, name, inputs):
        return self.dense(f"{name}/output", np.maximum(self.dense(f"{name}/hidden", inputs), 0.0))

    def recur(self, name, observations):
        state, states = np.zeros(self.arrays[f"{name}/recurrent/kernel"].shape[0]), []
        for x in observations:
            reset_x, update_x, new_x = np.split(self.dense(f"{name}/read", x), 3)
            reset_h, update_h, new_h = np.split(self.dense(f"{name}/recurrent", state), 3)
            update = sigmoid(update_x + update_h)
            new = np.tanh(new_x + sigmoid(reset_x + reset_h) * new_h)
            state = update * state + (1.0 - update) * new
            states.append(state)
        return np.array(states)

    def loss(self, observations, noise):
        last = self.recur("forward", observations)[-1]
        backward = self.recur("backward", observations[::-1])[::-1]
        total, latent = 0.0, None
        for x, state, draw in zip(observations, backward, noise, strict=True):
            hidden = self.dense("join", np.concatenate([last, state]))
            if latent is None:
                mean, raw = self.arrays["initial_mean"], self.arrays["initial_raw"]
            else:
                hidden = hidden + self.dense("latent", latent)
                gate, proposal, raw = np.split(self.mlp("transition", latent), 3)
                mean = latent + sigmoid(gate) * (proposal - latent)
            prior_scale = positive(raw, 0.02)
            correction, raw = np.split(self.dense("output", np.maximum(hidden, 0.0)), 2)
            scale = positive(raw, 0.02)
            latent = mean + correction + scale * draw
            ratio, offset = scale / prior_scale, correction / prior_scale
            total += np.sum(0.5 * (ratio**2 + offset**2 - 1.0) - np.log(ratio))
            total -= self.log_likelihood(self.mlp("emission", latent), x)
        return total

    def log_likelihood(self, outputs, x):
        if "noise_raw" not in self.arrays:
            return np.sum(x * outputs - np.logaddexp(0.0, outputs))
        scale = positive(self.arrays["noise_raw"], 0.05)
        return np.sum(-0.5 * ((x - outputs) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi))


def test_exported_parameters_and_noise_give_the_same_loss_in_numpy(trainer):
    size = trainer.size
    indices = sizes.batches(size, 1, seed=2)[0]
    noise = sizes.fixed_noise(size)
    data = sizes.observations(size).astype(np.float64)
    expected = [
        np.mean(
            [
                Reference(trainer.parameters, seed).loss(data[index], noise[seed, :, row])
                for row, index in enumerate(indices[seed])
            ]
        )
        for seed in range(size.num_seeds)
    ]
    before, after = trainer.losses_with(indices, noise)
    np.testing.assert_allclose(before, expected, rtol=2e-6)  # float32 against float64
    assert np.all(after < before)


def test_parts_hold_every_product_of_a_step_once(trainer):
    built = parts.build(trainer.size, num_shards=2)
    flops = sum(part.flops for name, part in built.items() if "alone" not in name)
    assert flops == trainer.size.flops_per_step


def test_flops_follow_from_the_exported_kernels(trainer):
    kernels = [a[0].size for name, a in trainer.parameters.items() if name.endswith("kernel")]
    size = trainer.size
    per_seed = 3 * 2 * sum(kernels) * size.num_timesteps * size.batch_size
    assert size.flops_per_step == per_seed * size.num_seeds


def test_large_step_costs_what_is_quoted():
    assert sizes.SIZES["large"].flops_per_step == pytest.approx(3.71e9, rel=1e-3)


def test_training_lowers_the_loss(trainer):
    indices = np.tile(sizes.batches(trainer.size, 1, seed=0), [40, 1, 1])
    first = trainer.train(indices[:1])
    assert np.all(trainer.train(indices) < first)


def timing(seconds, load, matmul=(2e9, 4e9), label="a", losses=((2.0,), (1.0,))):
    facts = {"peak_mb": 1.0, "compile_seconds": 1.0, "import_seconds": 1.0}
    size = sizes.SIZES["small"]
    return measure.Timing(label, size, facts, list(losses), list(seconds), list(load), matmul)


def test_summary_uses_the_quieter_half_of_the_rounds():
    measured = timing([1.0, 9.0, 3.0, 9.0], [0.0, 0.5, 0.1, 0.6])
    assert measured.median_seconds == 2.0
    assert measured.median_load == pytest.approx(0.05)
    assert measured.sequences_per_second == 3 * 64 / 2.0


def test_summary_of_a_single_round():
    assert timing([1.5], [0.9]).median_seconds == 1.5


def test_comparison_shows_ratios_to_the_first_row():
    text = report.comparison([timing([1.0], [0.0]), timing([2.5], [0.0], label="slower")])
    lines = text.splitlines()
    assert "2.50 x" in lines[3] and lines[3].startswith("slower")
    assert f"{sizes.SIZES['small'].flops_per_step / 4e9:.0%}" in lines[2]
    assert len(set(map(len, lines))) == 1


def test_a_busy_machine_is_warned_of():
    assert report.warning([timing([1.0], [0.01])]) is None
    assert "up to 40%" in report.warning([timing([1.0], [0.01]), timing([1.0], [0.4])])


def test_difference_of_losses_is_relative_to_the_first_row():
    rows = [timing([1.0], [0.0]), timing([1.0], [0.0], losses=((2.0,), (1.01,)))]
    assert measure.largest_difference(rows) == pytest.approx(0.01)


def test_examples_of_the_tables():
    assert doctest.testmod(report).failed == 0


@pytest.mark.parametrize("name", environments.REQUIREMENTS)
def test_peers_are_locked_with_hashes(name):
    lines = environments.lock_path(name).read_text().splitlines()
    pins = [line for line in lines if "==" in line]
    assert pins and all(line.endswith("\\") for line in pins)
    assert any(line.startswith(f"{name}==") for line in pins)


def test_a_worker_that_ends_says_why(tmp_path):
    with (
        client.Client("ours", sys.executable, 1) as worker,
        pytest.raises(client.WorkerError, match="KeyError"),
    ):
        worker.build("step", sizes.SIZES["small"], "no such variant", tmp_path / "p.npz")


def installed_rows():
    """This package's row and, where their environments have been made, the peers'."""
    return [
        row
        for row in measure.ROWS
        if row.framework == "ours"
        or ((environments.FOLDER / row.framework / "lock").exists() and row.variant != "compiled")
    ]


def test_all_installed_peers_take_the_same_step():
    rows = installed_rows()
    if len(rows) == 1:
        pytest.skip("no peer's environment has been made: `make bench` makes them")
    timings, failures = measure.compare(
        TINY["small"], rows, measure.Effort(rounds=1, seconds=0.0, matmul_width=64), threads=1
    )
    assert not failures
    assert measure.largest_difference(timings) < measure.RELATIVE_TOLERANCE


def test_quick_run_prints_tables_and_writes_json(tmp_path, capsys):
    path = tmp_path / "speed.json"
    status = run.main(["--quick", "--frameworks", "ours", "--sizes", "small", "--json", str(path)])
    assert status == 0
    printed = capsys.readouterr().out
    assert "this package" in printed and "num_timesteps" in printed
    assert "recurrences: products alone" in printed
    kept = json.loads(path.read_text())
    assert kept["machine"]["threads"] == 2
    assert kept["sizes"]["small"]["rows"][0]["sequences_per_second"] > 0
    assert all(part["seconds"] > 0 for part in kept["sizes"]["small"]["parts"].values())
    assert set(kept["sizes"]["small"]["curves"]) == {"num_timesteps"}


def test_the_filters_are_timed(capsys):
    evaluation.main(["--particles", "8", "--windows", "2"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["bootstrap", "guided"]
    assert all(float(value) > 0 for row in rows for value in row[1:])
