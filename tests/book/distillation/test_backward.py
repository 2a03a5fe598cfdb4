"""The posterior that runs backwards: its density, what it may see, and where learning leads."""

import numpy as np
from scipy import stats

from tfp_gaps import training
from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.book.distillation import backward
from tfp_gaps.exact import linear_gaussian as exact
from tfp_gaps.models.state_space import LinearGaussianStateSpace
from tfp_gaps.networks import replica_normal, replica_seeds
from tfp_gaps.sequences import Batch

tfd = tfp.distributions
WORLD = exact.LinearGaussian.stationary(0.9, 0.5, 0.25, 0.0625)
SEEDS = (0, 1)


def build(latent_size=2, hidden_size=8, seeds=SEEDS):
    network = backward.BackwardNetwork(
        observation_size=1,
        latent_size=latent_size,
        hidden_size=hidden_size,
        seeds=replica_seeds(seeds, "backward"),
    )
    # Away from the small initial outputs, or a wrong term would hardly show.
    for variable in network.trainable_variables:
        variable.assign_add(0.3 * tf.random.stateless_normal(variable.shape, [1, 2]))
    return network


def normal(time, batch, channels, purpose="x", seeds=SEEDS):
    return replica_normal([time, batch, channels], replica_seeds(seeds, purpose), axis=1)


def test_the_density_of_a_path_is_that_of_its_parts():
    network, x, noise = build(), normal(5, 3, 1), normal(5, 3, 2, "noise")
    last = tf.constant([[4, 2, 0], [1, 3, 4]])
    context = network.filter.context(Batch(x))
    latents, found = network.sample_path(context, last, noise)
    for r, b in np.ndindex(2, 3):
        end = int(last[r, b])
        at = (slice(r, r + 1), slice(b, b + 1))
        end_of_path = network.filter.mixture(context[end]).log_prob(latents[end])[r, b]
        np.testing.assert_allclose(found[end, r, b], end_of_path, rtol=1e-4, atol=1e-4)
        for t in range(end):
            mean = network.filtered(context[t]).loc
            kernel = network.kernel(latents[t + 1], context[t], mean)
            step = tfd.MultivariateNormalDiag(*(part[at][0, 0] for part in kernel))
            expected = step.log_prob(latents[t, r, b])
            np.testing.assert_allclose(found[t, r, b], expected, rtol=1e-4, atol=1e-4)
        assert (found[end + 1 :, r, b].numpy() == 0).all()


def test_the_weight_is_the_joint_density_over_that_of_q_up_to_the_last_step():
    model, network = LinearGaussianStateSpace(WORLD, num_replicas=2), build(1)
    x, noise = normal(4, 2, 1), normal(4, 2, 1, "noise")
    last = tf.constant([[3, 1], [0, 2]])
    found = backward.log_weights(model, network, Batch(x), noise, last).numpy()
    latents, log_q = network.sample_path(network.filter.context(Batch(x)), last, noise)
    z, x = latents.numpy()[..., 0], x.numpy()[..., 0]
    root = np.sqrt(WORLD.initial_cov.item())
    for r, b in np.ndindex(2, 2):
        s = int(last[r, b]) + 1
        path, seen = z[:s, r, b], x[:s, r, b]
        log_p = stats.norm(0.0, root).logpdf(path[0])
        log_p += stats.norm(0.9 * path[:-1], np.sqrt(0.5)).logpdf(path[1:]).sum()
        log_p += stats.norm(0.25 * path, 0.25).logpdf(seen).sum()
        expected = log_p - log_q.numpy()[:s, r, b].sum()
        np.testing.assert_allclose(found[r, b], expected, rtol=1e-4, atol=1e-3)


def test_nothing_after_a_step_moves_its_filter_or_the_kernel_that_leads_to_it():
    network, x = build(), normal(5, 3, 1)
    changed = tf.concat([x[:3], x[3:] + 1.0], 0)
    contexts = [network.filter.context(Batch(part)) for part in (x, changed)]
    np.testing.assert_array_equal(contexts[0][:3], contexts[1][:3])
    assert np.abs(contexts[0][3] - contexts[1][3]).max() > 1e-3


def test_every_variable_learns_and_sequences_end_anywhere():
    model, network = LinearGaussianStateSpace(WORLD, num_replicas=2), build(1)
    loss = backward.negative_elbo(model, network)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(loss(Batch(normal(6, 64, 1)), replica_seeds(SEEDS, "step"), 1.0))
    for variable, gradient in zip(
        network.trainable_variables, tape.gradient(total, network.trainable_variables), strict=True
    ):
        assert gradient is not None and tf.reduce_any(gradient != 0), variable.name


def test_the_bound_becomes_nearly_tight_and_never_exceeds_the_evidence():
    """No condition is missing: what is left after a short training is far below the partial gap."""
    length, seeds = 6, (0,)
    model = LinearGaussianStateSpace(WORLD)
    network = backward.BackwardNetwork(
        observation_size=1, latent_size=1, hidden_size=16, seeds=replica_seeds(seeds, "backward")
    )
    x = exact.sample(WORLD, length, 5000, seed=0)[1].astype(np.float32)
    settings = training.Settings(300, 128, learning_rate=1e-2, num_shards=1)
    loss = backward.negative_elbo(model, network)
    training.fit(loss, list(network.trainable_variables), Batch(x), settings, axis=1, seeds=seeds)
    held_out = exact.sample(WORLD, length, 2000, seed=1)[1].astype(np.float32)
    noise = normal(length, 2000, 1, "held out", seeds)
    last = tf.fill([1, 2000], length - 1)
    weights = backward.log_weights(
        model, network, Batch(tf.constant(held_out[:, np.newaxis])), noise, last
    ).numpy()[0]
    lacking = exact.kalman_filter(WORLD, held_out).log_likelihood - weights
    error = lacking.std(ddof=1) / np.sqrt(len(lacking))
    partial = exact.conditioning_gap(WORLD, length, 0)
    assert -3 * error < lacking.mean() < 0.25 * partial


def given_paths(network, time=5, batch=3):
    x, noise = normal(time, batch, 1), normal(time, batch, 1, "noise")
    last = tf.fill([len(SEEDS), batch], time - 1)
    latents, log_q = network.sample_path(network.filter.context(Batch(x)), last, noise)
    return Batch(x), latents, noise, last, log_q


def test_the_density_of_a_given_path_is_that_with_which_it_was_drawn():
    model, network = LinearGaussianStateSpace(WORLD, num_replicas=2), build(1)
    batch, latents, noise, last, log_q = given_paths(network)
    filtered, kernels = backward.path_log_prob(network, batch, latents)
    np.testing.assert_allclose(kernels, log_q[:-1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(filtered[-1], log_q[-1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        backward.path_log_weights(model, network, batch, latents),
        backward.log_weights(model, network, batch, noise, last),
        rtol=1e-4,
        atol=1e-3,
    )


def test_the_likelihood_of_paths_is_averaged_over_where_they_end():
    network = build(1)
    batch, latents, *_ = given_paths(network)
    found = backward.negative_log_likelihood(network)((batch, latents), None, 1.0)
    expected = np.zeros(2)
    for end in range(5):  # each prefix as a sequence of its own
        prefix = batch.map(lambda part, end=end: part[: end + 1])
        filtered, kernels = backward.path_log_prob(network, prefix, latents[: end + 1])
        expected -= np.mean(filtered[-1] + np.sum(kernels, 0), -1) / 5
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_kernels_that_are_fitted_to_simulated_paths_approach_the_smoother():
    length, seeds = 6, (0,)
    network = build(1, hidden_size=16, seeds=seeds)
    z, x = (part.astype(np.float32) for part in exact.sample(WORLD, length, 5000, seed=0))
    settings = training.Settings(300, 128, learning_rate=1e-2, num_shards=1)
    loss = backward.negative_log_likelihood(network)
    data = (Batch(x), z)
    training.fit(loss, list(network.trainable_variables), data, settings, axis=1, seeds=seeds)
    z, x = (part.astype(np.float32) for part in exact.sample(WORLD, length, 2000, seed=1))
    batch, latents = Batch(tf.constant(x[:, np.newaxis])), tf.constant(z[:, np.newaxis])
    model = LinearGaussianStateSpace(WORLD)
    weights = backward.path_log_weights(model, network, batch, latents).numpy()[0]
    lacking = weights - exact.kalman_filter(WORLD, x).log_likelihood  # KL(p || q)
    error = lacking.std(ddof=1) / np.sqrt(len(lacking))
    partial = exact.conditioning_gap(WORLD, length, 0)
    assert -3 * error < lacking.mean() < 0.25 * partial
