"""What a posterior sees is read off it: every look-ahead is recovered, planted leaks are named."""

import numpy as np
import pytest

from tfp_gaps import conditions_of
from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.exact import conditions as exact
from tfp_gaps.exact import linear_gaussian
from tfp_gaps.models.joint import Model
from tfp_gaps.models.state_space import DiagonalNormal, LinearGaussianStateSpace, StateSpace
from tfp_gaps.networks import replica_seeds
from tfp_gaps.posteriors import seeing
from tfp_gaps.posteriors.conditions import LookAhead
from tfp_gaps.posteriors.look_ahead import LookAheadNetwork
from tfp_gaps.sequences import Sequences

tfd = tfp.distributions

TIME, CHANNELS = 6, 2
RNG = np.random.default_rng(0)
X = RNG.normal(size=[TIME, 5, CHANNELS])
U = np.concatenate([np.zeros([1, 5, 1]), RNG.normal(size=[TIME - 1, 5, 1])])
SIZES = {"observation_size": CHANNELS, "latent_size": 2, "hidden_size": 8}


def model(control_size=0):
    seeds = replica_seeds([0], "model")
    return StateSpace(**SIZES, emission="normal", seeds=seeds, control_size=control_size)


def network(k, **options):
    return LookAheadNetwork(
        **SIZES, conditions=LookAhead.of(k), seeds=replica_seeds([0], "q"), **options
    )


class Summed:
    """q whose context is the sum of what a mask shows, plus what `leak` adds."""

    def __init__(self, shown, leak=None):
        self.shown, self.leak = tf.constant(shown, tf.float32), leak

    def context(self, batch):
        found = tf.einsum("ts,srbc->trbc", self.shown, batch.observations)[..., :1]
        return found if self.leak is None else found + self.leak(batch)

    def factor(self, prior, latent, context):
        return DiagonalNormal(prior.mean + context, prior.scale * tf.ones_like(context))


def at(step, values):
    """[time, replicas, batch, 1] that is `values` at one step and 0 at the others."""
    return tf.one_hot(step, TIME)[:, None, None, None] * values[None]


@pytest.mark.parametrize("k", [*range(TIME - 1), None])
def test_every_look_ahead_is_recovered(k):
    seen = conditions_of(network(k), model(), X)
    assert seen.conditions == LookAhead.of(k) and seen.label == LookAhead.of(k).label
    np.testing.assert_array_equal(seen.observations, LookAhead.of(k)(TIME))
    assert seen.channels.all(-1)[seen.observations].all() and not seen.leaks + seen.blind
    assert seen.latents.sum() == TIME - 1 and seen.latents[1, 0]


@pytest.mark.parametrize("k", [0, 2, None])
def test_and_with_controls_missing_values_and_binary_data(k):
    mask = np.ones(X.shape, bool)
    mask[2, :, 0] = mask[4] = False
    binary = (X > 0).astype(np.uint8)
    sequences = Sequences(binary, U, mask)
    q = network(k, control_size=1, masked=True)
    seen = conditions_of(q, model(1), sequences)
    assert seen.conditions == LookAhead.of(k)
    np.testing.assert_array_equal(seen.controls[:, 1:], LookAhead.of(k)(TIME)[:, 1:])


@pytest.mark.parametrize(
    ("leak", "message"),
    [
        (lambda b: at(2, b.observations[3, ..., 1:]), "q(z_3) sees x_4, which partial"),
        (lambda b: at(2, tf.nn.relu(b.observations[3, ..., :1] - 6.0)), "q(z_3) sees x_4, which"),
        (lambda b: 1e-4 * at(0, b.observations[5, ..., :1]), "q(z_1) sees x_6, which partial"),
        (lambda b: at(1, b.controls[3]), "q(z_2) sees the control into step 4, which partial"),
    ],
    ids=["one step", "a unit silent at the data", "faint and far", "a control"],
)
def test_a_leak_at_one_step_is_named(leak, message):
    q = Summed(np.tri(TIME), leak)
    q.conditions = LookAhead(0)
    seen = conditions_of(q, model(1), Sequences(X, U))
    assert len(seen.leaks) == 1 and seen.leaks[0].startswith(message)
    assert seen.label == "neither" and message in str(seen)


def missing_at_the_end(num_sequences, which):
    """How many observations are still to come is in the mask, and q(z_1) may not know it."""
    mask = np.ones([TIME, num_sequences, CHANNELS], bool)
    mask[4:, which] = False
    return mask


def still_to_come(batch):
    if batch.mask is None:
        return 0.0
    return at(0, 0.01 * tf.reduce_sum(tf.cast(batch.mask, tf.float32), 0)[..., :1])


def after_a_gap(batch):
    """Silent wherever x_5 is observed."""
    if batch.mask is None:
        return 0.0
    observed = tf.cast(batch.mask, tf.float32)[..., :1]
    return at(0, (1.0 - observed[4]) * (1.0 - observed[5]))


@pytest.mark.parametrize("which", [[0], [9, 11]], ids=["first", "beyond the first eight"])
@pytest.mark.parametrize(
    ("leak", "steps"), [(still_to_come, range(1, 6)), (after_a_gap, (4, 5))], ids=["count", "gap"]
)
def test_a_leak_through_the_mask_is_found_wherever_sequences_are_incomplete(which, leak, steps):
    mask = missing_at_the_end(12, which)
    x = np.random.default_rng(1).normal(size=mask.shape)
    q = Summed(np.tri(TIME), leak)
    q.conditions = LookAhead(0)
    seen = conditions_of(q, model(), Sequences(x, None, mask))
    assert np.flatnonzero(seen.observations[0]).tolist() == [0, *steps]
    assert len(seen.leaks) == len(steps)
    assert not conditions_of(q, model(), x).leaks  # without missing values there is none


def test_of_complete_sequences_the_first_eight_are_asked():
    assert seeing._chosen(None, 12).tolist() == list(range(8))
    assert seeing._chosen(None, 3).tolist() == [0, 1, 2]
    chosen = seeing._chosen(missing_at_the_end(20, slice(9, None)), 20)
    assert chosen.tolist() == [0, 1, 2, 3, 9, 10, 11, 12]


def test_a_leak_is_named_without_a_declaration_and_what_is_not_used_too():
    shown = np.tri(TIME)
    shown[4, 1], shown[1, 2] = 0, 1
    seen = conditions_of(Summed(shown), model(), X)
    np.testing.assert_array_equal(seen.observations, shown > 0)
    assert seen.leaks == ["q(z_2) sees x_3, which partial conditions hide"]
    assert seen.blind == ["q(z_5) does not use x_2, which partial conditions show"]
    assert not seen.channels[..., 1].any()  # it reads the first channel alone


def test_the_price_is_that_of_the_closed_forms():
    chain = linear_gaussian.LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
    world = LinearGaussianStateSpace(chain)
    x = X[..., :1]
    for k in (0, 1, None):
        seen = conditions_of(Summed(LookAhead.of(k)(TIME)), world, x)
        expected = linear_gaussian.conditioning_gap(chain, TIME, k)
        np.testing.assert_allclose(seen.price(world), (0.0, expected), atol=1e-12)
    # No z_{t-1}, a window of three observations: the general search over linear q.
    window = np.tri(TIME, k=1) - np.tri(TIME, k=-2)
    seen = conditions_of(
        lambda x: tfd.Normal(tf.einsum("ts,sbc->tbc", window.astype("f"), x), 1.0), world, x
    )
    rule = exact.conditions(TIME, first=-1, last=1, latents="none")
    np.testing.assert_array_equal(seen.observations, rule.observations)
    assert not seen.latents.any()
    np.testing.assert_allclose(seen.price(chain), exact.parts(chain, rule), rtol=1e-9)
    with pytest.raises(ValueError, match="only a linear-Gaussian model has a price.*StateSpace"):
        seen.price(model())


def test_columns_that_a_static_q_ignores():
    joint = tfd.JointDistributionNamedAutoBatched(
        {
            "z": tfd.Normal(0.0, 1.0),
            "x": lambda z: tfd.Sample(tfd.Normal(z, 1.0), 4),
        }
    )
    joint = Model(joint, "x", example=np.zeros(4, np.float32))
    x = RNG.normal(size=[6, 4]).astype(np.float32)

    def q(x):  # a unit that is silent at all data reads the last column
        return tfd.Normal(0.3 * x[:, 0] + tf.nn.relu(x[:, 3] - 20.0), tf.exp(0.1 * x[:, 1]))

    seen = conditions_of(q, joint, x)
    assert seen.columns.tolist() == [True, True, False, True] and seen.label == "partial"
    assert str(seen) == "x: ■ ■ · ■ (partial, 3 of 4 used)"


def test_drawings_agree_with_the_mask():
    seen = conditions_of(network(1), model(), X)
    rows = str(seen).splitlines()[1:]
    drawn = [[mark == "■" for mark in row.split()[1:]] for row in rows]
    np.testing.assert_array_equal(drawn, seen.observations)
    image = seen.figure().axes[0].images[0].get_array()
    np.testing.assert_array_equal(image, seen.observations)


def test_a_q_that_answers_differently_when_asked_twice_is_refused():
    q = Summed(np.tri(TIME), lambda b: tf.random.normal([TIME, 1, b.observations.shape[2], 1]))
    with pytest.raises(ValueError, match="same factors for the same data"):
        conditions_of(q, model(), X)
    with pytest.raises(ValueError, match="posterior must offer .* the int .* conditions_of.post"):
        conditions_of(3, model(), X)
