"""What q may see, that it costs the same under all conditions, and that its costs are right."""

import numpy as np
import pytest

from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.models.state_space import DiagonalNormal, StateSpace
from tfp_gaps.networks import replica_normal, replica_seeds
from tfp_gaps.posteriors.conditions import FULL, LookAhead
from tfp_gaps.posteriors.look_ahead import LookAheadNetwork, block_resets
from tfp_gaps.sequences import Batch

tfd = tfp.distributions
TIME, BATCH, CHANNELS, LATENT = 7, 3, 4, 2
PARTIAL = LookAhead(0)


def build(conditions=PARTIAL, seeds=(0,), control_size=0):
    sizes = {"observation_size": CHANNELS, "latent_size": LATENT, "hidden_size": 8}
    sizes["control_size"] = control_size
    network = LookAheadNetwork(
        **sizes, conditions=conditions, seeds=replica_seeds(seeds, "network")
    )
    model = StateSpace(**sizes, emission="bernoulli", seeds=replica_seeds(seeds, "model"))
    return model, network


def observed(seeds=(0,)):
    return Batch(replica_normal([TIME, BATCH, CHANNELS], replica_seeds(seeds, "x"), axis=1))


def noise(seeds=(0,)):
    return replica_normal([TIME, BATCH, LATENT], replica_seeds(seeds, "noise"), axis=1)


@pytest.mark.parametrize("k", [0, 1, 2, 3, 5, 6, 99, np.inf])
def test_sees_exactly_the_next_k_observations(k):
    _, network = build(LookAhead(k))
    x = observed()
    # The context of step t must move with x_s for s <= t + k, and not at all for s > t + k.
    base = network.context(x).numpy()
    for s in range(TIME):
        moved = x.observations.numpy().copy()
        moved[s] += 1.0
        change = np.abs(network.context(Batch(tf.constant(moved))).numpy() - base)
        reaction = change.max(axis=(1, 2, 3))
        for t in range(TIME):
            if s <= t + k:
                assert reaction[t] > 1e-6, (s, t)
            else:
                assert reaction[t] == 0.0, (s, t)


@pytest.mark.parametrize("conditions", [PARTIAL, LookAhead(2), FULL], ids=str)
def test_every_parameter_is_used_under_all_conditions(conditions):
    model, network = build(conditions)
    with tf.GradientTape() as tape:
        path = network.sample_path(model, network.context(observed()), noise())
        total = tf.reduce_sum(path.divergence)
    for variable, gradient in zip(
        network.trainable_variables, tape.gradient(total, network.trainable_variables), strict=True
    ):
        # The backward recurrence is reset in every step for k = 0: its recurrent kernel then
        # multiplies zeros. It is the one part whose gradient may vanish, in the rows of one
        # direction only.
        assert np.abs(gradient).max() > 0, variable.name


def test_other_conditions_of_a_network_share_its_variables():
    _, network = build(PARTIAL)
    other = network.with_conditions(LookAhead(2))
    assert (network.conditions, other.conditions) == (PARTIAL, LookAhead(2))
    pairs = zip(network.trainable_variables, other.trainable_variables, strict=True)
    assert all(one is two for one, two in pairs)
    network._join.bias.assign_add(tf.ones_like(network._join.bias))
    fresh = build(LookAhead(2))[1]
    fresh._join.bias.assign(network._join.bias)
    np.testing.assert_array_equal(other.context(observed()), fresh.context(observed()))


def test_full_conditions_do_not_forget_and_partial_ones_do():
    np.testing.assert_array_equal(block_resets(5, 4), [1, 1, 1, 1, 0])
    np.testing.assert_array_equal(block_resets(5, 0), [0, 0, 0, 0, 0])
    np.testing.assert_array_equal(block_resets(5, 1), [1, 0, 1, 0, 1])


@pytest.mark.parametrize("control_size", [0, 2])
def test_divergence_and_weight_equal_tfp_distributions(control_size):
    """Recompute q's mean and scale from the parts of the network, then ask TFP for the
    densities."""
    model, network = build(LookAhead(1), control_size=control_size)
    controls = None
    if control_size:
        controls = replica_normal([TIME, BATCH, control_size], replica_seeds([0], "u"), axis=1)
    context = network.context(observed()._replace(controls=controls))
    path = network.sample_path(model, context, noise(), controls=controls)
    first = model.initial()
    later = model.transition(path.latents[:-1], None if controls is None else controls[1:])
    prior = [
        tf.concat([tf.broadcast_to(a, [1, 1, BATCH, LATENT]), b], 0)
        for a, b in zip(first, later, strict=True)
    ]
    hidden = tf.concat([context[:1], context[1:] + network._latent(path.latents[:-1])], 0)
    correction, raw = tf.split(network._output(tf.nn.relu(hidden)), 2, axis=-1)
    posterior = tfd.Normal(prior[0] + correction, tf.nn.softplus(raw - 1.0) + 0.02)
    prior = tfd.Normal(*prior)
    # float32: sums of a few terms of order one to ten.
    np.testing.assert_allclose(
        path.divergence, tf.reduce_sum(posterior.kl_divergence(prior), -1), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        path.log_weight,
        tf.reduce_sum(prior.log_prob(path.latents) - posterior.log_prob(path.latents), -1),
        rtol=1e-4,
        atol=1e-4,
    )


def test_replicas_equal_separate_runs():
    seeds = [4, 9]
    model, network = build(LookAhead(2), seeds)
    context = network.context(observed(seeds))
    path = network.sample_path(model, context, noise(seeds))
    for r, seed in enumerate(seeds):
        model_alone, network_alone = build(LookAhead(2), [seed])
        context_alone = network_alone.context(observed([seed]))
        alone = network_alone.sample_path(model_alone, context_alone, noise([seed]))
        np.testing.assert_allclose(path.latents[:, r], alone.latents[:, 0], atol=1e-5)
        np.testing.assert_allclose(path.divergence[:, r], alone.divergence[:, 0], rtol=1e-4)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([TIME, BATCH, CHANNELS], "time, replicas, batch, channels"),
        ([TIME, 2, BATCH, CHANNELS], "1 replica"),
        ([TIME, 1, BATCH, CHANNELS + 1], r"4 channel\(s\)"),
    ],
)
def test_wrong_shapes(shape, message):
    _, network = build()
    with pytest.raises(ValueError, match=message):
        network.context(Batch(tf.zeros(shape)))


@pytest.mark.parametrize("conditions", [None, 0, "full"])
def test_wrong_conditions(conditions):
    with pytest.raises(TypeError, match="should be a LookAhead"):
        build(conditions)
    with pytest.raises(TypeError, match="should be a LookAhead"):
        build()[1].with_conditions(conditions)


def test_missing_controls():
    _, network = build(control_size=2)
    with pytest.raises(ValueError, match="2 control channel"):
        network.context(observed())


def test_a_masked_network_tells_missing_from_zero_and_ignores_what_is_missing():
    sizes = {"observation_size": CHANNELS, "latent_size": LATENT, "hidden_size": 8}
    sizes |= {"conditions": LookAhead(1), "seeds": replica_seeds([0], "network")}
    network = LookAheadNetwork(**sizes, masked=True)
    x = observed().observations.numpy()
    mask = np.ones_like(x)
    mask[3, :, :, 1] = 0.0
    filled, other = x.copy(), x.copy()
    filled[3, :, :, 1], other[3, :, :, 1] = 0.0, 7.0
    hidden = network.context(Batch(tf.constant(other), mask=mask)).numpy()
    filled = Batch(tf.constant(filled))
    np.testing.assert_array_equal(network.context(filled._replace(mask=mask)), hidden)
    assert np.abs(network.context(filled) - hidden).max() > 1e-4
    plain = LookAheadNetwork(**sizes)
    with pytest.raises(ValueError, match="built without masked=True"):
        plain.context(Batch(tf.constant(x), mask=mask))


@pytest.mark.parametrize("conditions", [LookAhead(0), LookAhead(1), FULL], ids=str)
def test_a_mask_lets_no_later_observation_into_q(conditions):
    # Neither what was observed after t + k nor whether it was may move q(z_t | z_{t-1}, C_t): the
    # derivative is exactly zero. What was observed until then moves it, what is missing does not.
    sizes = {"observation_size": CHANNELS, "latent_size": LATENT, "hidden_size": 8}
    seeds = replica_seeds([0], "network")
    network = LookAheadNetwork(**sizes, conditions=conditions, masked=True, seeds=seeds)
    model, _ = build()
    x = observed().observations
    seen = np.ones(x.shape, np.float32)
    seen[2, :, :, 1] = seen[5, :, 0] = 0.0
    mask = tf.constant(seen)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([x, mask])
        context = network.context(Batch(x, mask=mask))
        path = network.sample_path(model, context, noise())
        steps = tf.unstack(tf.reduce_sum(path.latents, [1, 2, 3]))
        costs = tf.unstack(tf.reduce_sum(path.divergence, [1, 2]))
    k = conditions.reach(TIME)
    for t in range(TIME):
        for target in (steps[t], costs[t]):
            by_value, by_mask = (gradient.numpy() for gradient in tape.gradient(target, [x, mask]))
            assert not by_value[t + k + 1 :].any() and not by_mask[t + k + 1 :].any()
            assert by_value[: t + k + 1][seen[: t + k + 1] == 1.0].all()
            assert not by_value[seen == 0.0].any()


# Run as a filter, and relative to the prior -------------------------------------------------------


def test_steps_give_the_context_without_look_ahead():
    _, network = build(PARTIAL, (0, 1), control_size=2)
    x = observed((0, 1)).observations
    controls = replica_normal([TIME, BATCH, 2], replica_seeds((0, 1), "u"), axis=1)
    expected = network.context(Batch(x, controls))
    state = network.begin(BATCH)
    for t in range(TIME):
        context, state = network.step(state, x[t], controls[t])
        np.testing.assert_allclose(context, expected[t], rtol=1e-5, atol=1e-6)


def test_a_relative_posterior_scales_with_the_prior():
    network = LookAheadNetwork(
        conditions=PARTIAL,
        observation_size=CHANNELS,
        latent_size=LATENT,
        hidden_size=8,
        seeds=replica_seeds((0,), "network"),
        relative=True,
    )
    context = network.context(observed())[0]
    latent, mean = tf.ones([1, BATCH, LATENT]), tf.fill([1, BATCH, LATENT], 0.3)
    scale = np.array([1.0, 0.01], np.float32)
    factors = [
        network.factor(DiagonalNormal(mean, tf.fill(mean.shape, s)), latent, context) for s in scale
    ]
    for factor, s in zip(factors, scale, strict=True):
        np.testing.assert_allclose(
            (factor.mean - mean) / s, factors[0].mean - mean, rtol=1e-3, atol=1e-5
        )
        np.testing.assert_allclose(factor.scale / s, factors[0].scale, rtol=1e-5)
    # Before training q is close to the prior.
    np.testing.assert_allclose(factors[0].scale, 1.0, atol=0.2)
    moved = network.factor(DiagonalNormal(mean + 1.0, tf.ones(mean.shape)), latent, context)
    assert np.abs(moved.mean - mean - 1.0 - (factors[0].mean - mean)).max() > 1e-4


@pytest.mark.parametrize("relative", [False, True])
def test_a_limited_posterior_stays_near_the_prior(relative):
    free, limited = (
        LookAheadNetwork(
            conditions=PARTIAL,
            observation_size=CHANNELS,
            latent_size=LATENT,
            hidden_size=8,
            seeds=replica_seeds((0,), "network"),
            relative=relative,
            limit=limit,
        )
        for limit in (None, 4.0)
    )
    prior = DiagonalNormal(tf.ones([1, 50, LATENT]), tf.fill([1, 50, LATENT], 0.1))
    context = replica_normal([50, 8], replica_seeds((0,), "context"))
    far, kept = (q.factor(prior, None, 1e4 * context) for q in (free, limited))
    assert np.abs(far.mean - prior.mean).max() > 100 and np.max(far.scale) > 100
    assert np.abs(kept.mean - prior.mean).max() <= 0.4001 and np.max(kept.scale) <= 0.4001
    # Where the free one goes a hundredth of the limit, tanh takes 1/3 of its square, 3e-5.
    near, kept = (q.factor(prior, None, 1e-2 * context) for q in (free, limited))
    small = np.abs(near.mean - prior.mean) < 0.004
    assert small.any()
    np.testing.assert_allclose(
        (kept.mean - prior.mean)[small], (near.mean - prior.mean)[small], rtol=1e-3, atol=1e-6
    )
