"""One network under many conditions: it sees what it may, and comes near the best that may."""

import numpy as np
import pytest

from tfp_gaps import training
from tfp_gaps._tensorflow import tf
from tfp_gaps.book import literature
from tfp_gaps.book.experiments import literature as experiment
from tfp_gaps.exact import linear_gaussian as exact
from tfp_gaps.exact.conditions import conditions
from tfp_gaps.models.state_space import DiagonalNormal
from tfp_gaps.networks import replica_seeds
from tfp_gaps.sequences import Batch

T = 4
WORLD = exact.LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
SCHEMES = ["all", "past, no latents", "start, then present"]


@pytest.fixture(scope="module")
def network():
    seen = [literature.scheme(name, T) for name in SCHEMES]
    seeds = replica_seeds([0] * len(seen), "initial network")
    return experiment.ConditionsNetwork(conditions=seen, hidden_size=4, seeds=seeds)


def test_what_is_hidden_changes_nothing(network):
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=[T, len(SCHEMES), 1, 1]), tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        context = network.context(Batch(x))
        sums = [[tf.reduce_sum(context[t, r]) for t in range(T)] for r in range(len(SCHEMES))]
    for r, name in enumerate(SCHEMES):
        seen = literature.scheme(name, T).observations
        for t in range(T):
            slope = tape.gradient(sums[r][t], x)[:, r, 0, 0].numpy()
            np.testing.assert_array_equal(slope != 0, seen[t])


def test_latents_reach_those_who_see_them(network):
    class Still:
        latent_size = 1

        def initial(self):
            return self.transition(tf.zeros([len(SCHEMES), 1, 1]))

        def transition(self, latent):
            return DiagonalNormal(tf.zeros_like(latent), tf.ones_like(latent))

    context = network.context(Batch(tf.zeros([T, len(SCHEMES), 1, 1])))
    noise = np.zeros([T, len(SCHEMES), 1, 1], np.float32)
    still = network.sample_path(Still(), context, tf.constant(noise)).latents
    noise[0] = 1
    moved = network.sample_path(Still(), context, tf.constant(noise)).latents
    changed = (moved != still).numpy()[1, :, 0, 0]
    np.testing.assert_array_equal(
        changed, [literature.scheme(name, T).latents.any() for name in SCHEMES]
    )


def test_trained_gaps_come_near_the_exact_ones():
    settings = training.Settings(600, 256, learning_rate=2e-2, steps_per_call=200)
    trained = experiment.trained_gaps(
        WORLD, num_timesteps=T, schemes=SCHEMES, seeds=[0, 1], settings=settings, num_sequences=4000
    )
    for row in experiment.measure(WORLD, num_timesteps=T, schemes=SCHEMES, trained=trained):
        # A network cannot beat the best q by more than the error of 4,000 draws, .002; after this
        # training it is within .02, a quarter of what tells the schemes apart.
        assert -0.006 < row.trained.value - row.gap < 0.02


def test_a_gap_of_a_diverged_network_is_not_reported():
    settings = training.Settings(6, 16, learning_rate=1e30, steps_per_call=2)
    with pytest.raises(FloatingPointError, match=f"diverged under .*{SCHEMES[0]}"):
        experiment.trained_gaps(
            WORLD, num_timesteps=T, schemes=SCHEMES, seeds=[0], settings=settings, num_sequences=10
        )


def test_rows_agree_with_the_closed_form():
    row, partial = experiment.measure(WORLD, num_timesteps=T, schemes=["all", "past and present"])
    assert (row.gap, row.loss) == pytest.approx((0, 0), abs=1e-8) and row.trained is None
    assert partial.gap * T == pytest.approx(exact.conditioning_gap(WORLD, T, 0), abs=1e-9)
    assert partial.loss > 0.005


def test_bad_input(network):
    with pytest.raises(ValueError, match="lengths"):
        experiment.ConditionsNetwork(
            conditions=[conditions(3), conditions(4)],
            hidden_size=2,
            seeds=replica_seeds([0, 1], "x"),
        )
    x = tf.zeros([T, len(SCHEMES), 1, 1])
    with pytest.raises(ValueError, match="neither controls nor missing values"):
        network.context(Batch(x, mask=tf.ones_like(x)))
