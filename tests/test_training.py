"""Optimisation, clipping, checkpoints and exact resume."""

import subprocess
import sys
import time

import numpy as np
import pytest

from tfp_gaps import storage, training
from tfp_gaps._tensorflow import tf
from tfp_gaps.networks import replica_normal, replica_seeds
from tfp_gaps.training import Settings


def quadratic(seeds, noise_scale=0.1):
    """Variables w [replicas, 3] and a noisy loss whose minimum is the mean of the data."""
    w = tf.Variable(tf.zeros([len(seeds), 3]))

    def loss(batch, seeds, kl_weight):
        noise = noise_scale * replica_normal([3], seeds)
        distance = tf.reduce_sum((w[:, tf.newaxis] - batch - noise[:, tf.newaxis]) ** 2, -1)
        return tf.reduce_mean(distance, -1) + 0.0 * kl_weight

    return w, loss


@pytest.fixture
def data():
    return np.random.default_rng(0).normal(loc=[1.0, -2.0, 0.5], size=[200, 3]).astype(np.float32)


def test_converges_to_the_minimum(data):
    w, loss = quadratic([0, 1])
    settings = Settings(num_steps=600, batch_size=50, learning_rate=0.05)
    history = training.fit(loss, [w], data, settings, seeds=[0, 1])
    # The mean of the data, up to the noise of the last steps: their rate is 5 % of 0.05.
    np.testing.assert_allclose(w, np.tile(data.mean(0), [2, 1]), atol=0.05)
    assert history.steps[-1] == 600 and not history.diverged.any()


def test_replicas_equal_separate_runs(data):
    settings = Settings(num_steps=60, batch_size=20, learning_rate=0.05, clip_norm=1.0)
    both, loss = quadratic([3, 7])
    training.fit(loss, [both], data, settings, seeds=[3, 7])
    for r, seed in enumerate([3, 7]):
        alone, loss = quadratic([seed])
        training.fit(loss, [alone], data, settings, seeds=[seed])
        np.testing.assert_allclose(both[r], alone[0], rtol=1e-5, atol=1e-6)
    assert np.abs(both[0] - both[1]).max() > 1e-4  # and the seeds matter


class Killed(Exception):
    pass


def test_resumes_to_the_identical_result(data, tmp_path):
    settings = Settings(num_steps=100, batch_size=20, learning_rate=0.05, steps_per_call=10)
    straight, loss = quadratic([0])
    expected = training.fit(loss, [straight], data, settings, seeds=[0])

    path = tmp_path / "run.npz"
    for stop in (20, 50, 60):
        w, loss = quadratic([0])

        def kill(step, losses, stop=stop):
            if step == stop:
                raise Killed

        options = {"seeds": [0], "checkpoint": path, "checkpoint_seconds": 0.0}
        with pytest.raises(Killed):
            training.fit(loss, [w], data, settings, progress=kill, **options)
    w, loss = quadratic([0])
    history = training.fit(loss, [w], data, settings, **options)
    np.testing.assert_array_equal(w.numpy(), straight.numpy())
    np.testing.assert_array_equal(history.losses, expected.losses)
    np.testing.assert_array_equal(history.steps, expected.steps)


def finished(data, path, **changes):
    w, loss = quadratic([0])
    settings = Settings(num_steps=20, batch_size=20, steps_per_call=10, **changes)
    training.fit(loss, [w], data, settings, seeds=[0], checkpoint=path, checkpoint_seconds=0.0)
    return w


def test_corrupt_checkpoint_falls_back_to_the_one_before(data, tmp_path, capsys):
    path = tmp_path / "run.npz"
    expected = finished(data, path).numpy()
    path.write_bytes(path.read_bytes()[:-40])
    np.testing.assert_array_equal(finished(data, path).numpy(), expected)
    assert "Trying the checkpoint before it" in capsys.readouterr().err


def test_a_corrupt_checkpoint_never_takes_the_place_of_the_good_one(data, tmp_path, monkeypatch):
    """The run is killed while it writes the first checkpoint after it fell back."""
    path = tmp_path / "run.npz"
    expected = finished(data, path).numpy()
    path.write_bytes(path.read_bytes()[:-40])

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.storage, "write_arrays", killed)
        with pytest.raises(KeyboardInterrupt):
            finished(data, path)
    np.testing.assert_array_equal(finished(data, path).numpy(), expected)


def test_two_corrupt_checkpoints_are_an_error(data, tmp_path):
    path = tmp_path / "run.npz"
    finished(data, path)
    for file in tmp_path.iterdir():
        file.write_bytes(b"nothing")
    with pytest.raises(storage.CorruptFileError, match="delete it"):
        finished(data, path)


def test_checkpoint_of_another_run_is_refused(data, tmp_path):
    path = tmp_path / "run.npz"
    finished(data, path)
    with pytest.raises(ValueError, match="belongs to another run"):
        finished(data, path, learning_rate=0.5)


def test_non_finite_gradients_are_skipped_and_reported(data):
    data = data.copy()
    data[17] = np.nan
    w, loss = quadratic([0])
    settings = Settings(num_steps=20, batch_size=20, steps_per_call=5)
    history = training.fit(loss, [w], data, settings, seeds=[0])
    # One batch in ten holds the bad point: two epochs of ten batches.
    assert history.skipped_steps.tolist() == [2]
    assert history.diverged.all()
    assert np.isfinite(w.numpy()).all()


def test_clipping_is_per_replica():
    gradients = [tf.constant([[3.0, 0.0], [0.3, 0.0]]), tf.constant([[[4.0]], [[0.4]]])]
    clipped, is_finite = training.clip_by_replica_norm(gradients, 1.0)
    # Norms 5 and 0.5: the first is scaled to one, the second left alone.
    np.testing.assert_allclose(clipped[0], [[0.6, 0.0], [0.3, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(clipped[1], [[[0.8]], [[0.4]]], rtol=1e-6)
    assert is_finite.numpy().all()


def test_batches_are_permutations_per_epoch():
    indices = training.batch_indices(10, 3, seed=1, first_step=0, num_steps=6)
    for epoch in (indices[:3], indices[3:]):
        assert len(set(epoch.ravel().tolist())) == 9
    assert indices[:3].tolist() != indices[3:].tolist()
    later = training.batch_indices(10, 3, seed=1, first_step=4, num_steps=2)
    np.testing.assert_array_equal(later, indices[4:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": 0}, "num_steps"),
        ({"batch_size": 1.5}, "batch_size"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"kl_warmup_steps": -1}, "kl_warmup_steps"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"steps_per_call": 0}, "steps_per_call"),
        ({"validate_every": -20}, "validate_every must be an integer and >= 0"),
        ({"num_shards": 0}, "num_shards"),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(ValueError, match=message):
        Settings(**({"num_steps": 1, "batch_size": 2} | change))


def test_too_few_data_and_missing_replica_axis(data):
    w, loss = quadratic([0])
    with pytest.raises(ValueError, match="at least one batch of 500"):
        training.fit(loss, [w], data, Settings(1, 500), seeds=[0])
    with pytest.raises(ValueError, match="replica axis of length 2"):
        training.fit(loss, [w], data, Settings(1, 6), seeds=[0, 1])


def test_progress_bar_is_silent_unless_on_a_terminal(capsys):
    class Terminal:
        def __init__(self):
            self.text = ""

        def isatty(self):
            return True

        def write(self, text):
            self.text += text

        def flush(self):
            pass

    terminal = Terminal()
    training.progress_bar("run", 10, stream=terminal)(10, np.array([1.5]))
    assert "run 10/10" in terminal.text and "1.500" in terminal.text
    training.progress_bar("run", 10)(10, np.array([1.5]))
    assert capsys.readouterr().err == ""


def test_shards_average_to_the_whole_batch(data):
    # Without noise the gradient of the batch is the mean of the shards' gradients.
    found = []
    for num_shards in (1, 2, 4):
        w, loss = quadratic([0], noise_scale=0.0)
        settings = Settings(40, 20, learning_rate=0.05, clip_norm=1.0, num_shards=num_shards)
        training.fit(loss, [w], data, settings, seeds=[0])
        found.append(w.numpy())
    # Float32 sums in another order, over 40 steps of Adam.
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)
    np.testing.assert_allclose(found[2], found[0], atol=1e-5)


def test_every_shard_of_every_step_has_noise_of_its_own(data):
    # The loss is a mean of the shard's data times a draw, and is averaged over the shards.
    w = tf.Variable(tf.zeros([1, 2]))

    def loss(batch, seeds, kl_weight):
        values = tf.reduce_mean(batch, [1, 2]) * replica_normal([], seeds)
        return values + 0.0 * kl_weight * tf.reduce_sum(w, -1)

    settings = Settings(5, 12, num_shards=3, steps_per_call=1, jit_compile=False)
    history = training.fit(loss, [w], data, settings, seeds=[7])
    rows = data[training.batch_indices(len(data), 12, 7, 0, 5)].reshape(5, 3, 4 * 3).mean(-1)
    draws = [
        replica_normal([], replica_seeds([7], "training noise", index))[0] for index in range(15)
    ]
    expected = (rows * np.reshape(draws, [5, 3])).mean(1)
    np.testing.assert_allclose(history.losses[:, 0], expected, rtol=1e-4, atol=1e-6)


def test_the_seconds_of_all_parts_of_a_run_add_up(data, tmp_path):
    w, loss = quadratic([0])
    options = {"seeds": [0], "checkpoint": tmp_path / "run.npz", "checkpoint_seconds": 0.0}
    settings = Settings(20, 20, steps_per_call=10, jit_compile=False)

    def kill(step, losses):
        time.sleep(0.2)
        if step == 20:
            raise Killed

    started = time.monotonic()
    with pytest.raises(Killed):
        training.fit(loss, [w], data, settings, progress=kill, **options)
    # The first call is in the checkpoint; it traced the step, which takes tens of milliseconds.
    saved = storage.read_arrays(options["checkpoint"])[1]["seconds"]
    history = training.fit(loss, [w], data, settings, **options)
    assert 0.01 < saved < history.seconds < time.monotonic() - started


def test_keeps_what_was_best_on_validation_data(data, tmp_path):
    # The training loss pulls w to the data's mean at (1, -2, .5); the validation loss of replica 0
    # is smallest near the origin, that of replica 1 at that mean.
    w, loss = quadratic([0, 1])
    target = np.array([[0.3, -0.3, 0.1], data.mean(0)])

    def validate():
        return np.sum((w.numpy() - target) ** 2, -1)

    settings = Settings(200, 20, learning_rate=0.02, steps_per_call=5, validate_every=10)
    options = {"seeds": [0, 1], "checkpoint": tmp_path / "run.npz", "checkpoint_seconds": 0.0}
    history = training.fit(loss, [w], data, settings, validate=validate, **options)
    first, second = history.best_steps
    assert 10 <= first < 60 and second > 100
    assert history.validation_losses.shape == (20, 2)
    # What is returned is what was best, replica by replica, not what came last.
    np.testing.assert_allclose(validate(), history.validation_losses.min(0), rtol=1e-12)
    kept = w.numpy().copy()
    again, loss = quadratic([0, 1])
    training.fit(loss, [again], data, settings, validate=lambda: np.zeros(2), **options)
    np.testing.assert_array_equal(again, kept)  # read back from the checkpoint


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 9}, "batch_size must be a multiple of num_shards"),
        ({"validate_every": 30}, "validate_every must be a multiple of steps_per_call"),
    ],
)
def test_settings_that_do_not_divide(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**({"num_steps": 10, "batch_size": 8, "num_shards": 2} | settings))


DISTRIBUTED = """
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tfp_gaps import training
from tfp_gaps.sequences import Sequences
from tfp_gaps.book.data.splits import Splits
from tfp_gaps.book.experiments.sequential import Design, fit_jointly
from tfp_gaps.posteriors.conditions import LookAhead
x = np.random.default_rng(0).normal(size=[6, 64, 2]).astype("float32")
splits = Splits(*[Sequences(x)] * 3, "noise")
options = {"clip_norm": 50.0, "steps_per_call": 4, "learning_rate": 1e-2}
settings = training.Settings(12, 16, num_shards=2, **options)
design = Design(2, 8, "normal", settings, settings)
alone = fit_jointly(splits, design, conditions=LookAhead(1), seeds=[0, 1])
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    both = fit_jointly(splits, design, conditions=LookAhead(1), seeds=[0, 1], strategy=strategy)
assert strategy.num_replicas_in_sync == 2
np.testing.assert_allclose(both.history.losses, alone.history.losses, rtol=1e-4)
for a, b in zip(alone.model.trainable_variables, both.model.trainable_variables):
    np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-3, atol=1e-5)
print("the same")
"""


def test_two_devices_give_the_result_of_one():
    # Logical devices must be made before TensorFlow starts its runtime: a process of its own. The
    # shards are the same on one device and on two; only the order of sums differs, which twelve
    # steps of Adam can amplify to about 1e-5.
    done = subprocess.run(
        [sys.executable, "-c", DISTRIBUTED], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "the same" in done.stdout


def test_rates_fall_in_stages_to_a_tenth():
    settings = Settings(3280, 10, learning_rate=1e-3, schedule="stages")
    rate = training.learning_rate_schedule(settings)
    found = np.array([float(rate(step)) for step in range(3280)])
    # Eight stages of 3^i passes at .001 * 10^(-i/7): 1 + 3 + ... + 3^7 = 3280 steps.
    expected = np.concatenate([np.full(3**i, 1e-3 * 10 ** (-i / 7)) for i in range(8)])
    # A boundary belongs to the stage before it, so each stage but the first begins a step late.
    late = np.concatenate([expected[:1], expected[:-1]])
    np.testing.assert_allclose(found, late, rtol=1e-5)
    np.testing.assert_allclose(found[-1], 1e-4, rtol=1e-5)
    assert np.mean(found < 1.001e-4) == pytest.approx(2 / 3, abs=2e-3)


@pytest.mark.parametrize("num_steps", [1, 20, 80, 1000, 196_800])
def test_stages_fit_into_any_number_of_steps(num_steps):
    settings = Settings(num_steps, 10, learning_rate=0.02, schedule="stages")
    rate = training.learning_rate_schedule(settings)
    steps = np.unique(np.linspace(0, num_steps, 50).astype(int))
    found = np.array([float(rate(step)) for step in steps])
    assert (np.diff(found) <= 0).all() and found.max() <= 0.02 * (1 + 1e-6)
    assert found[-1] == pytest.approx(0.002 if num_steps > 1 else found[-1], rel=1e-5)


def test_cosine_falls_to_a_twentieth():
    rate = training.learning_rate_schedule(Settings(100, 10, learning_rate=0.1))
    expected = [0.1 * (0.05 + 0.95 * (1 + np.cos(np.pi * step / 100)) / 2) for step in (0, 30, 100)]
    np.testing.assert_allclose([float(rate(step)) for step in (0, 30, 100)], expected, rtol=1e-5)


def constant_slope(slope):
    """A loss whose gradient is the same everywhere."""
    w = tf.Variable(tf.zeros([1, 2]))
    return w, lambda batch, seeds, kl_weight: slope * tf.reduce_sum(w, -1)


@pytest.mark.parametrize("schedule", ["cosine", "stages"])
@pytest.mark.parametrize(("slope", "epsilon"), [(1.0, 1e-7), (1e-4, 1e-4), (1e-4, 1e-7)])
def test_schedule_and_epsilon_reach_the_optimiser(data, schedule, slope, epsilon):
    w, loss = constant_slope(slope)
    settings = Settings(40, 10, learning_rate=0.01, schedule=schedule, epsilon=epsilon)
    training.fit(loss, [w], data, settings, seeds=[0])
    # Of a constant gradient g Adam makes steps of rate * g / (|g| + epsilon), but for epsilon
    # weighed by its bias correction sqrt(1 - .999^t).
    rate = training.learning_rate_schedule(settings)
    steps = [
        float(rate(t)) * slope / (slope + epsilon / np.sqrt(1 - 0.999 ** (t + 1)))
        for t in range(40)
    ]
    np.testing.assert_allclose(w, np.full([1, 2], -np.sum(steps)), rtol=1e-3)


def test_the_divergence_is_warmed_up_step_by_step(data, tmp_path):
    # The loss is the weight itself; it goes on after an interruption where it was.
    w = tf.Variable(tf.zeros([1, 2]))

    def fit(num_warmup, **options):
        def loss(batch, seeds, kl_weight):
            return kl_weight + 0.0 * tf.reduce_sum(w, -1)

        settings = Settings(6, 10, kl_warmup_steps=num_warmup, steps_per_call=1)
        return training.fit(loss, [w], data, settings, seeds=[0], **options).losses[:, 0]

    def kill(step, losses):
        if step == 2:
            raise Killed

    np.testing.assert_allclose(fit(0), np.ones(6))
    options = {"checkpoint": tmp_path / "run.npz", "checkpoint_seconds": 0.0}
    with pytest.raises(Killed):
        fit(4, progress=kill, **options)
    np.testing.assert_allclose(fit(4, **options), [0.25, 0.5, 0.75, 1.0, 1.0, 1.0])


def test_a_checkpoint_of_another_schedule_is_refused(data, tmp_path):
    path = tmp_path / "run.npz"
    finished(data, path)
    with pytest.raises(ValueError, match="belongs to another run"):
        finished(data, path, schedule="stages")
    with pytest.raises(ValueError, match="belongs to another run"):
        finished(data, path, epsilon=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": "linear"}, "Unknown schedule 'linear'. Known: cosine, stages"),
        ({"epsilon": 0.0}, "epsilon must be greater than zero"),
        ({"epsilon": float("inf")}, "epsilon must be finite"),
    ],
)
def test_bad_schedules(change, message):
    with pytest.raises(ValueError, match=message):
        Settings(1, 2, num_shards=1, **change)


# --- plateaus -------------------------------------------------------------------------------------

PLATEAU = {"schedule": "plateau", "steps_per_call": 5, "validate_every": 5}


def test_a_plateau_is_a_tenth_of_the_steps_without_a_tenth_of_a_nat():
    settings = Settings(200, 4, kl_warmup_steps=20, **PLATEAU)
    steps = np.arange(5, 205, 5)
    falling = -0.0051 * steps  # .102 in 20 steps
    assert training.plateaus(steps, falling[:, np.newaxis], settings) == [0]
    assert training.plateaus(steps, 0.97 * falling[:, np.newaxis], settings) == [4]
    # Falls until 60; the first looks without a gain of .1 in 20 steps are those at 80, 100, ...
    ends = -1.0 * np.minimum(steps, 60)
    counts = [training.plateaus(steps[:n], ends[:n, np.newaxis], settings)[0] for n in range(1, 41)]
    first = [int(steps[counts.index(count)]) for count in (1, 2, 3, 4)]
    assert first == [80, 100, 120, 140]
    # During the warm-up a loss of its own may be lower than any after it.
    early = np.where(steps < 20, -100.0, falling)
    assert training.plateaus(steps, early[:, np.newaxis], settings) == [0]
    # What diverged is no gain.
    assert training.plateaus(steps, np.full([40, 1], np.inf), settings) == [4]
    np.testing.assert_array_equal(
        training.plateaus(steps, np.stack([falling, ends], 1), settings), [0, 4]
    )


def fit_to_plateau(data, seeds, num_steps=2000, **options):
    """Fit levels to the mean of the data; the validation loss is their distance from it."""
    w, loss = quadratic(seeds)

    def validate():
        return np.sum((w.numpy() - data.mean(0)) ** 2, -1)

    settings = Settings(num_steps, 20, learning_rate=0.02, **PLATEAU)
    history = training.fit(loss, [w], data, settings, seeds=seeds, validate=validate, **options)
    return w.numpy(), history, settings


def test_training_stops_where_it_gains_no_more(data):
    w, history, settings = fit_to_plateau(data, [0, 5])
    # From (0, 0, 0) to (1, -2, .5) at steps of .02 takes 100 to 200 steps, and then four windows.
    assert 900 <= history.steps[-1] <= 1100
    np.testing.assert_array_equal(history.converged(settings), [True, True])
    np.testing.assert_allclose(w, np.tile(data.mean(0), [2, 1]), atol=0.02)
    _, short, settings = fit_to_plateau(data, [0, 5], num_steps=150)
    assert short.steps[-1] == 150 and not short.converged(settings).any()


def test_a_replica_stops_on_its_own(data):
    """Together they end where each ends alone, though they stop at different steps."""
    both, history, _ = fit_to_plateau(data, [3, 7])
    for r, seed in enumerate([3, 7]):
        alone, own, _ = fit_to_plateau(data, [seed])
        np.testing.assert_allclose(both[r], alone[0], rtol=1e-5, atol=1e-6)
        shared = len(own.validation_losses)
        np.testing.assert_allclose(
            history.validation_losses[:shared, r], own.validation_losses[:, 0], atol=1e-5
        )
        # Where it has stopped nothing moves.
        assert np.ptp(history.validation_losses[shared - 1 :, r]) == 0.0


def test_rates_fall_by_the_root_of_ten(data):
    w, loss = constant_slope(1.0)
    moved = []

    def progress(step, losses):
        moved.append(w.numpy()[0, 0])

    settings = Settings(100, 10, learning_rate=0.01, **PLATEAU)
    training.fit(loss, [w], data, settings, seeds=[0], validate=lambda: [0.0], progress=progress)
    # Looks at 0, 5, ...: plateaus at 10, 20, 30, 40. Of a constant gradient Adam's steps are the
    # rate.
    steps = -np.diff(np.concatenate([[0.0], moved])) / 5
    falls = 10 ** (-0.5 * np.array([0, 0, 1, 1, 2, 2, 3, 3]))
    np.testing.assert_allclose(steps, 0.01 * falls, rtol=1e-4)


def test_a_killed_run_finds_its_plateaus_again(data, tmp_path):
    expected, straight, _ = fit_to_plateau(data, [0, 5])
    options = {"checkpoint": tmp_path / "run.npz", "checkpoint_seconds": 0.0}
    for stop in (200, 500):

        def kill(step, losses, stop=stop):
            if step == stop:
                raise Killed

        with pytest.raises(Killed):
            fit_to_plateau(data, [0, 5], progress=kill, **options)
    found, history, _ = fit_to_plateau(data, [0, 5], **options)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(history.validation_losses, straight.validation_losses)
    # And once it has ended, it is not taken up again.
    again, history, _ = fit_to_plateau(data, [0, 5], **options)
    np.testing.assert_array_equal(again, expected)
    np.testing.assert_array_equal(history.steps, straight.steps)


def test_plateaus_need_looks(data):
    with pytest.raises(ValueError, match="validate_every is 0"):
        Settings(100, 4, schedule="plateau")
    with pytest.raises(ValueError, match="a tenth of num_steps, 10, but validate_every is 20"):
        Settings(100, 4, schedule="plateau", validate_every=20)
    w, loss = quadratic([0])
    with pytest.raises(ValueError, match="needs a validation loss"):
        training.fit(loss, [w], data, Settings(100, 10, **PLATEAU), seeds=[0])


def test_a_start_that_is_better_than_all_that_follows_is_kept(data):
    w, loss = quadratic([0])
    settings = Settings(50, 20, learning_rate=0.02, **PLATEAU)
    options = {"seeds": [0], "validate": lambda: np.sum(w.numpy() ** 2, -1)}
    training.fit(loss, [w], data, settings, **options)
    np.testing.assert_array_equal(w, np.zeros([1, 3]))
