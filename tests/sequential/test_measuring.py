"""The gaps of a sequential model and posterior against the linear-Gaussian closed forms."""

import dataclasses

import numpy as np
import pytest

from tfp_gaps import measure_sequence
from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.exact import linear_gaussian
from tfp_gaps.filtering import particle_filter
from tfp_gaps.models.state_space import DiagonalNormal, LinearGaussianStateSpace, StateSpace
from tfp_gaps.networks import replica_seeds
from tfp_gaps.sequences import Sequences
from tfp_gaps.sequential.measuring import SequenceEffort
from tfp_gaps.training import Settings

tfd = tfp.distributions

TIME, SIZE = 6, 400
CHAIN = linear_gaussian.LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
_, X = linear_gaussian.sample(CHAIN, TIME, SIZE, seed=0)
SMALL = SequenceEffort(
    num_particles=200,
    lookaheads=(0,),
    hidden_size=16,
    training=Settings(num_steps=600, batch_size=50, learning_rate=1e-2, clip_norm=100.0),
    horizon=2,
)
UNTRAINED = Settings(num_steps=2, batch_size=20, num_shards=1, jit_compile=False)
"""For what does not depend on fresh networks; nothing is compiled."""


class Best:
    """The best q of a look-ahead, from the closed forms."""

    def __init__(self, chain, k, num_timesteps=TIME):
        found = linear_gaussian.shared_factors(chain, chain, num_timesteps, k)
        self.weights = tf.constant(found.observation_weights, tf.float32)
        self.slope = tf.constant(found.transition[:, 0, 0], tf.float32)
        self.scale = tf.constant(found.covariance[:, 0, 0] ** 0.5, tf.float32)

    def context(self, batch):
        mean = tf.einsum("tiso,srbo->trbi", self.weights, batch.observations)
        rows = [tf.ones_like(mean) * part[:, None, None, None] for part in (self.slope, self.scale)]
        return tf.concat([mean, *rows], -1)

    def factor(self, prior, latent, context):
        mean, slope, scale = tf.split(context, 3, -1)
        return DiagonalNormal(mean if latent is None else mean + slope * latent, scale)


class Own:
    """The chain as somebody's own model, of which nothing is known in closed form."""

    num_replicas = latent_size = 1

    def initial(self):
        return tfd.Normal(tf.zeros(1), np.float32(CHAIN.initial_cov[0, 0] ** 0.5))

    def transition(self, z, u):
        return tfd.Normal(0.9 * z, np.float32(0.1**0.5))

    def emission(self, z):
        return tfd.Independent(tfd.Normal(z, 1.0), 1)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("model", [LinearGaussianStateSpace(CHAIN), Own()], ids=["known", "own"])
def test_the_gap_of_the_best_filter_is_found_step_by_step(model):
    found = measure_sequence(model, Best(CHAIN, 0), X, seed=0, effort=SMALL)
    assert found.seen.label == "partial"
    exact = linear_gaussian.gap_profile(CHAIN, TIME, 0)
    profile = found.per_step["posterior"]
    error = profile.std(-1, ddof=1) / SIZE**0.5
    # A fresh network is not quite the smoother: hence the hundredth.
    np.testing.assert_allclose(profile.mean(-1), exact, atol=4 * error.max() + 0.01)
    total = exact.sum()
    assert abs(found.report.total.value - total) < 4 * found.report.total.standard_error + 0.02
    conditioning = found.report.conditioning
    assert abs(conditioning.value - total) < 4 * conditioning.standard_error + 0.04
    # Best of its kind, and its family holds the posterior: nothing else is left.
    for part in (found.report.approximation, found.report.optimisation):
        assert abs(part.value) < 4 * part.standard_error + 0.04
    evidence = linear_gaussian.kalman_filter(CHAIN, X).log_likelihood
    for name, values in found.bounds.items():
        gap = evidence - values
        assert gap.mean() > -4 * gap.std(ddof=1) / SIZE**0.5 - 1e-3, name
    assert found.scores.crps.shape == (2, 1, SIZE)
    assert "SMC, fresh full" in str(found.table()) and "posterior" in str(found.steps())


def test_the_smoother_has_no_gap_at_any_step():
    model = LinearGaussianStateSpace(CHAIN)
    tiny = SequenceEffort(num_particles=50, lookaheads=(), training=UNTRAINED)
    with np.errstate(all="raise"):
        found = measure_sequence(model, Best(CHAIN, None), X[:, :50], seed=0, effort=tiny)
    assert found.seen.label == "full"
    np.testing.assert_allclose(found.per_step["posterior"], 0.0, atol=1e-5)
    evidence = found.bounds["ln p(x), Kalman filter"]
    # Every whole path has the weight p(x), up to the rounding of some forty terms of a few nats.
    np.testing.assert_allclose(found.bounds["IWAE-100"], evidence, atol=1e-5)
    # So have those of a filter that never resampled. Half-way the weights differ, by
    # p(x_{t+1:T} | z_t): where these were resampled, the estimate is random, right on average.
    options = {"num_particles": 50, "seed": 0, "posterior": Best(CHAIN, None)}
    filtered = particle_filter(model, X[:, :50], **options)
    kept = (filtered.effective_sizes[:-1, 0] >= 25).all(0)
    np.testing.assert_allclose(found.bounds["SMC"][kept], evidence[kept], atol=1e-5)
    assert 10 < kept.sum() < 40  # both kinds are here
    ratio = np.exp(found.bounds["SMC"] - evidence)[~kept]
    assert abs(ratio.mean() - 1.0) < 4 * ratio.std(ddof=1) / len(ratio) ** 0.5
    assert abs(found.report.total.value) < 4 * found.report.total.standard_error


def test_the_steps_add_up_where_the_smoother_has_two_states_that_depend_on_each_other():
    """To ln p(x), which the Kalman filter knows, minus the ELBO, and not step by step alone."""
    chain = linear_gaussian.LinearGaussian(
        [[0.7, 0.6], [-0.2, 0.8]], 0.3 * np.eye(2), [[1.0, 0.5]], [[1.0]], np.eye(2)
    )
    _, x = linear_gaussian.sample(chain, TIME, 50, seed=0)
    tiny = SequenceEffort(
        num_paths=50, num_samples=2, num_particles=50, lookaheads=(),
        training=UNTRAINED,
    )  # fmt: skip

    def q(x):
        return tfd.Normal(tf.concat([0.4 * x, tf.zeros_like(x)], -1), 0.4)

    found = measure_sequence(LinearGaussianStateSpace(chain), q, x, seed=0, effort=tiny)
    total = found.bounds["ln p(x), Kalman filter"] - found.bounds["ELBO"]
    off = found.per_step["posterior"].sum(0) - total
    # Sequence by sequence the same: what is left is the noise of the paths.
    assert abs(off.mean()) < 4 * off.std(ddof=1) / len(off) ** 0.5
    assert off.std() < 0.1 * total.mean()


def test_missing_values_and_controls_of_a_network_of_ours():
    sizes = {"observation_size": 2, "latent_size": 2, "hidden_size": 8, "control_size": 1}
    model = StateSpace(**sizes, emission="bernoulli", seeds=replica_seeds([0], "model"))
    rng = np.random.default_rng(0)
    x = (rng.random([4, 20, 2]) < 0.5).astype(np.uint8)
    controls = rng.normal(size=[4, 20, 1])
    controls[0] = 0.0
    mask = rng.random(x.shape) < 0.8
    tiny = SequenceEffort(num_particles=50, lookaheads=(1,), training=UNTRAINED)

    class Filter:
        def context(self, batch):
            return tf.cumsum(batch.observations * batch.mask)

        def factor(self, prior, latent, context):
            return DiagonalNormal(prior.mean + 0.1 * context, prior.scale)

    found = measure_sequence(model, Filter(), Sequences(x, controls, mask), seed=0, effort=tiny)
    assert found.seen.label == "partial" and list(found.networks) == ["partial", "1 ahead", "full"]
    assert all(np.isfinite(values).all() for values in found.bounds.values())


def test_what_does_not_fit_is_said():
    model = LinearGaussianStateSpace(CHAIN)
    q = Best(CHAIN, 0)
    cases = [
        (LinearGaussianStateSpace(CHAIN, num_replicas=2), X, SMALL, "takes a model of one replica"),
        (model, X[:, :1], SMALL, "must be at least two"),
        (model, X[:, :20], SMALL, "batches of 50 sequences, but there are 20"),
        (model, X, dataclasses.replace(SMALL, horizon=TIME), "horizon must leave a step"),
        (model, np.where(X > 2, np.nan, X), SMALL, "Mask missing values"),
        (object(), X, SMALL, "the object that was given lacks num_replicas"),
    ]
    for wrong, x, effort, message in cases:
        with pytest.raises(ValueError, match=message):
            measure_sequence(wrong, q, x, seed=0, effort=effort)
