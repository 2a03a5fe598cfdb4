"""The particle filters against Kalman filters, and prediction against closed forms."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from tfp_gaps import filtering
from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.exact.linear_gaussian import LinearGaussian
from tfp_gaps.models.state_space import DiagonalNormal, LinearGaussianStateSpace
from tfp_gaps.networks import replica_seeds
from tfp_gaps.posteriors.conditions import FULL, LookAhead
from tfp_gaps.posteriors.look_ahead import LookAheadNetwork
from tfp_gaps.sequences import Sequences

TIME, SEQUENCES, PARTICLES = 6, 50, 2000


def kalman_filter(exact, x, mask):
    """ln p(x_t | x_{1:t-1}) [time] of one sequence, and the last mean and covariance, in NumPy."""
    mean, cov, increments = np.zeros(exact.state_size), exact.initial_cov, []
    for t in range(len(x)):
        if t > 0:
            mean = exact.transition @ mean
            cov = exact.transition @ cov @ exact.transition.T + exact.transition_cov
        emission = exact.emission[mask[t]]
        noise = exact.emission_cov[np.ix_(mask[t], mask[t])]
        innovation = x[t][mask[t]] - emission @ mean
        total = emission @ cov @ emission.T + noise
        log_det = np.linalg.slogdet(2 * np.pi * total)[1]
        increments.append(-0.5 * (log_det + innovation @ np.linalg.solve(total, innovation)))
        gain = np.linalg.solve(total, emission @ cov).T
        mean, cov = mean + gain @ innovation, cov - gain @ emission @ cov
    return np.array(increments), mean, cov


class OptimalProposal:
    """q(z_t | z_{t-1}, x_{t:t+k}) of a scalar chain, by the backward information filter.

    The likelihood of x_{t:t+k} given z_t is exp(-1/2 L z^2 + n z) up to a factor; (L, n) of step t
    follow from those of step t + 1.
    """

    def __init__(self, exact, conditions):
        self.conditions = conditions
        parts = (exact.transition, exact.transition_cov, exact.emission, exact.emission_cov)
        self.transition, self.noise, self.emission, self.emission_noise = map(np.squeeze, parts)

    def context(self, batch):
        observations, controls, mask = batch
        assert controls is None and mask is None
        last, rows = observations.shape[0] - 1, []
        k = self.conditions.reach(last + 1)
        for t in range(last + 1):
            precision, weighted = 0.0, tf.zeros_like(observations[0])
            for s in range(min(t + k, last), t - 1, -1):
                shrink = 1.0 + self.noise * precision
                precision = self.transition**2 * precision / shrink
                precision += self.emission**2 / self.emission_noise
                weighted = self.transition * weighted / shrink
                weighted += self.emission * observations[s] / self.emission_noise
            rows.append(tf.concat([precision * tf.ones_like(weighted), weighted], -1))
        return tf.stack(rows)

    def factor(self, prior, latent, context):
        del latent
        precision, weighted = tf.split(context, 2, axis=-1)
        variance = 1.0 / (1.0 / prior.scale**2 + precision)
        mean = variance * (prior.mean / prior.scale**2 + weighted)
        return DiagonalNormal(mean, tf.sqrt(variance) * tf.ones_like(mean))


class WideProposal:
    """The prior, displaced and widened: far from optimal, with bounded weights."""

    def context(self, batch):
        return batch.observations

    def factor(self, prior, latent, context):
        return DiagonalNormal(prior.mean + 0.5, 1.5 * prior.scale)


class ControlledChain(LinearGaussianStateSpace):
    """z_t ~ N(A z_{t-1} + u_t, Q)."""

    def __init__(self, exact, **options):
        super().__init__(exact, **options)
        self.control_size = exact.state_size

    def transition(self, latent, control=None):
        prior = super().transition(latent)
        return DiagonalNormal(prior.mean + control, prior.scale)


def response(exact, controls):
    """What the controls add to the observations: r_t = A r_{t-1} + u_t."""
    state, rows = np.zeros(controls.shape[1:]), []
    for t in range(len(controls)):
        state = state @ exact.transition.T + (controls[t] if t > 0 else 0.0)
        rows.append(state @ exact.emission.T)
    return np.stack(rows)


@pytest.fixture(scope="module")
def world(linear_chain):
    kalman = linear_chain.kalman(TIME)
    x = kalman.sample(SEQUENCES, seed=[0, 2])
    model = linear_chain.model(num_replicas=2)
    observations = x.numpy().transpose(1, 0, 2)
    filtered = filtering.particle_filter(
        model, observations, num_particles=PARTICLES, seed=0, particles_at_once=40_000
    )
    return SimpleNamespace(
        exact=linear_chain.exact,
        model=model,
        observations=observations,
        filtered=filtered,
        kalman=kalman.forward_filter(x),
        evidence=kalman.log_prob(x).numpy(),
    )


@pytest.fixture(scope="module")
def plane():
    """A chain with two states and two channels."""
    return LinearGaussian(
        transition=[[0.9, 0.3], [-0.2, 0.7]],
        transition_cov=np.diag([0.3, 0.5]),
        emission=[[1.0, 0.0], [0.5, 1.0]],
        emission_cov=np.diag([0.5, 1.0]),
        initial_cov=np.diag([1.0, 2.0]),
    )


def test_log_likelihood_equals_the_kalman_filter(world):
    exact = world.kalman.log_likelihoods.numpy().T  # [time, sequences]
    difference = world.filtered.log_increments - exact[:, np.newaxis]
    # Over sequences the errors are independent; the bias of the logarithm, var / 2, is below 1e-3.
    total = difference.sum(0)
    error = total.std(axis=1, ddof=1) / math.sqrt(SEQUENCES)
    assert np.all(np.abs(total.mean(1)) < 4 * error + 1e-3)
    assert np.all(error < 0.02)


def test_particles_have_the_filtered_moments(world):
    mean = world.kalman.filtered_means.numpy()[:, -1, 0]
    deviation = math.sqrt(world.kalman.filtered_covs.numpy()[-1, 0, 0])  # the same for every x
    particles = world.filtered.particles.numpy()[..., 0]
    # Weights that differ by a factor of a few leave an effective size of 500 of the 2000 at least,
    # hence a mean to 1 / sqrt(500) = 4.5 % of the deviation; 5 of those for the largest of 100.
    standardised = (particles.mean(0) - mean) / deviation
    assert np.abs(standardised).max() < 5 / math.sqrt(500)
    assert abs((particles.std(0) / deviation).mean() - 1.0) < 0.02


@pytest.mark.parametrize("proposal", ["prior", "wide", "network"])
def test_exponential_is_unbiased_for_any_proposal(world, linear_chain, proposal):
    # With 4 particles everything that is right only for many shows: E exp(sum of increments) is
    # p(x) all the same. 20,000 filters of 3 steps, 400 for each of 50 sequences.
    posteriors = {"prior": None, "wide": WideProposal(), "network": _untrained_network()}
    x = world.observations[:3]
    filtered = filtering.particle_filter(
        linear_chain.model(),
        np.tile(x, [1, 400, 1]),
        num_particles=4,
        seed=0,
        particles_at_once=100_000,
        posterior=posteriors[proposal],
    )
    evidence = linear_chain.kalman(3).log_prob(x.transpose(1, 0, 2)).numpy()
    ratios = np.exp(filtered.log_increments.sum(0)[0].reshape(400, SEQUENCES) - evidence)
    error = ratios.mean(1).std(ddof=1) / math.sqrt(400)
    assert error < 0.01
    assert abs(ratios.mean() - 1.0) < 4 * error


def _untrained_network():
    network = LookAheadNetwork(
        conditions=LookAhead(1),
        observation_size=1,
        latent_size=1,
        hidden_size=8,
        seeds=replica_seeds([0], "network"),
    )
    # Wider than the prior (sd 1.3 against 0.7 and 1.4), so that the weights have a variance.
    network._output.bias.assign([[[0.0, 2.0]]])
    return network


def test_full_look_ahead_makes_the_bound_tight(linear_chain):
    # The weights of a path multiply to p(x) whatever the path, if q(z_t | z_{t-1}, x_{t:T}) is
    # exact and nothing is resampled: here the state forgets fast, so that weights stay even.
    exact = LinearGaussian(0.4, 0.5, 1.0, 2.0, 0.5)
    x = np.random.default_rng(0).normal(size=[TIME, 5, 1]).astype(np.float32)
    filtered = filtering.particle_filter(
        LinearGaussianStateSpace(exact),
        x,
        num_particles=10,
        seed=0,
        posterior=OptimalProposal(exact, FULL),
    )
    assert filtered.effective_sizes.min() > 5, "choose another chain: this one was resampled"
    seen = np.ones([TIME, 1], bool)
    evidence = [kalman_filter(exact, x[:, i], seen)[0].sum() for i in range(5)]
    # Float32 over six steps.
    np.testing.assert_allclose(filtered.log_increments.sum(0)[0], evidence, atol=1e-4)


def test_a_better_proposal_keeps_more_particles_alive(world, linear_chain):
    options = {"num_particles": 100, "seed": 0}
    x, model = world.observations, linear_chain.model()
    bootstrap = filtering.particle_filter(model, x, **options)
    proposal = OptimalProposal(world.exact, LookAhead(0))
    local = filtering.particle_filter(model, x, posterior=proposal, **options)
    # With look-ahead 0 the first weights are all p(x_1): looking further would spread them.
    np.testing.assert_allclose(local.effective_sizes[0], 100, rtol=1e-3)
    # Given z_{t-1} the best q(z_t | z_{t-1}, x_t) leaves weights p(x_t | z_{t-1}), which vary less
    # than p(x_t | z_t) in each step; the bound is tighter accordingly.
    assert local.effective_sizes.mean() > 1.1 * bootstrap.effective_sizes.mean()
    errors = [np.std(run.log_increments.sum(0)[0] - world.evidence) for run in (local, bootstrap)]
    assert errors[0] < errors[1]


def test_effective_size_of_one_step(world, linear_chain):
    # (E w)^2 / E w^2 for w = N(x; z, r) and z ~ N(0, p): squares of normals are normals again.
    x = np.array([[[0.0], [2.0]]])
    filtered = filtering.particle_filter(linear_chain.model(), x, num_particles=20_000, seed=0)
    variance, noise = world.exact.initial_cov.item(), world.exact.emission_cov.item()

    def density(v):
        return np.exp(-0.5 * x[0, :, 0] ** 2 / v) / math.sqrt(2 * math.pi * v)

    square = density(variance + noise / 2) / (2 * math.sqrt(math.pi * noise))
    expected = density(variance + noise) ** 2 / square
    # A ratio of two means over 20,000 draws of weights that vary by about their mean: 1 % each.
    np.testing.assert_allclose(filtered.effective_sizes[0, 0] / 20_000, expected, rtol=0.03)


@pytest.mark.parametrize("proposal", ["prior", "network"])
def test_missing_values_do_not_count(plane, proposal):
    # A masked channel, a masked step and a masked last step, each in sequences of its own.
    rng = np.random.default_rng(0)
    x = rng.normal(size=[5, 4, 2]).astype(np.float32)
    mask = np.ones([5, 4, 2], bool)
    mask[2, 1, 0] = mask[0, 1, 1] = False
    mask[1:3, 2] = False
    mask[-1, 3] = False
    network = LookAheadNetwork(
        conditions=LookAhead(1),
        observation_size=2,
        latent_size=2,
        hidden_size=8,
        masked=True,
        seeds=replica_seeds([0, 1], "network"),
    )
    # As wide as the prior, about.
    network._output.bias.assign([[[0.0, 0.0, 1.5, 1.5]]] * 2)
    filtered = filtering.particle_filter(
        LinearGaussianStateSpace(plane, num_replicas=2),
        Sequences(x, mask=mask),
        num_particles=20_000,
        seed=0,
        particles_at_once=80_000,
        posterior=None if proposal == "prior" else network,
    )
    particles = filtered.particles.numpy()
    for i in range(4):
        increments, mean, cov = kalman_filter(plane, x[:, i], mask[:, i])
        # sd of a sum of 5 increments from 20,000 particles: sqrt(5 var(w) / 20000) < 0.03 for a
        # relative variance of the weights below 3; four of those.
        total = filtered.log_increments[:, :, i].sum(0)
        np.testing.assert_allclose(total, increments.sum(), atol=0.12)
        # Moments to 5 errors at an effective size of a fifth.
        standardised = (particles[:, :, i].mean(0) - mean) / np.sqrt(np.diag(cov))
        np.testing.assert_allclose(standardised, 0.0, atol=5 / math.sqrt(4000))
        np.testing.assert_allclose(np.cov(particles[:, 0, i].T), cov, atol=0.1)
    if proposal == "prior":
        # Nothing observed, nothing learned; float32 sums over 20,000 weights.
        np.testing.assert_allclose(filtered.log_increments[1:3, :, 2], 0.0, atol=1e-5)


def test_particles_are_equally_weighted_after_a_step_without_observation(world, linear_chain):
    # x_1 leaves the weights even enough to go on without resampling, x_2 is missing: whoever took
    # the last particles as they are would get the prior's mean 0.
    x = np.array([[[1.0]], [[0.0]]])
    mask = np.array([[[True]], [[False]]])
    filtered = filtering.particle_filter(
        linear_chain.model(), Sequences(x, mask=mask), num_particles=20_000, seed=0
    )
    np.testing.assert_allclose(filtered.effective_sizes[1], filtered.effective_sizes[0], rtol=1e-5)
    assert filtered.effective_sizes[0, 0, 0] > 10_000
    # 0.9 * 2 / 3; four errors of a sd of 1.1 at an effective size of 10,000.
    assert filtered.particles.numpy().mean() == pytest.approx(0.6, abs=0.045)


def test_the_first_particles_are_a_sample(linear_chain):
    # A sharp look at the state leaves few ancestors. In resampling order neighbours are copies of
    # one another; in random order as often as any two are, about 1 in 20.
    sharp = LinearGaussian(0.9, 0.5, 1.0, 0.01, 2.0)
    filtered = filtering.particle_filter(
        LinearGaussianStateSpace(sharp), np.zeros([1, 3, 1]), num_particles=500, seed=0
    )
    particles = filtered.particles.numpy()[:, 0, :, 0]
    copies = (particles[1:] == particles[:-1]).mean()
    assert len(np.unique(particles[:, 0])) < 100
    assert copies < 0.15


def test_controls_act_into_their_step(plane):
    # A controlled chain is the free one displaced by a known response, particle by particle.
    rng = np.random.default_rng(1)
    controls = rng.normal(size=[5, 3, 2]).astype(np.float32)
    controls[0] = 0.0
    x = rng.normal(size=[5, 3, 2]).astype(np.float32)
    options = {"num_particles": 50, "seed": 3}
    free = filtering.particle_filter(LinearGaussianStateSpace(plane), x, **options)
    moved = filtering.particle_filter(
        ControlledChain(plane), Sequences(x + response(plane, controls), controls), **options
    )
    # Float32; the draws are the same.
    np.testing.assert_allclose(moved.log_increments, free.log_increments, atol=1e-4)
    ahead = rng.normal(size=[2, 3, 2])
    predicted = filtering.continue_from(
        ControlledChain(plane), moved.particles, num_steps=2, seed=0, controls=ahead
    )
    unmoved = filtering.continue_from(
        LinearGaussianStateSpace(plane), free.particles, num_steps=2, seed=0
    )
    added = response(plane, np.concatenate([controls, ahead]))[5:]
    np.testing.assert_allclose(predicted, unmoved + added[:, np.newaxis, np.newaxis], atol=1e-4)


def test_controls_that_act_out_of_their_step_are_refused(plane):
    acting = np.random.default_rng(0).normal(size=[5, 3, 2])
    shifted = np.concatenate([np.zeros_like(acting[:1]), acting[:-1]])
    x, options = response(plane, shifted), {"num_particles": 20, "seed": 0}
    found = filtering.particle_filter(ControlledChain(plane), Sequences(x, shifted), **options)
    assert np.isfinite(found.log_increments).all()
    acting[0, 0] = 0.0
    for call in (
        lambda both: filtering.particle_filter(ControlledChain(plane), both, **options),
        lambda both: filtering.made_sequences(ControlledChain(plane), both, seed=0),
    ):
        with pytest.raises(ValueError, match=r"zero in row 0, .* in 2 of 3 .* shift them: np\.con"):
            call(Sequences(x, acting))


def test_batches_keep_the_order_of_sequences(world, linear_chain):
    # Five sequences in batches of two, the last filled up: each has its own level.
    x = np.broadcast_to(np.arange(5.0)[:, np.newaxis], [3, 5, 1])
    filtered = filtering.particle_filter(
        linear_chain.model(2), x, num_particles=4000, seed=1, particles_at_once=8000
    )
    assert filtered.particles.shape == (4000, 2, 5, 1)
    assert filtered.log_increments.shape == filtered.effective_sizes.shape == (3, 2, 5)
    for i in range(5):
        increments, mean, _ = kalman_filter(world.exact, x[:, i], np.ones([3, 1], bool))
        # The level 4 leaves an effective size of about a tenth: 400, 5 % of a sd of 0.7.
        assert filtered.particles.numpy()[:, :, i].mean() == pytest.approx(mean.item(), abs=0.15)
        assert filtered.log_increments[:, :, i].sum(0) == pytest.approx(increments.sum(), abs=0.4)


def test_the_seed_decides(linear_chain):
    def run(seed):
        return filtering.particle_filter(
            linear_chain.model(), np.ones([3, 2, 1]), num_particles=10, seed=seed
        )

    first, again, other = run(0), run(0), run(1)
    np.testing.assert_array_equal(first.log_increments, again.log_increments)
    np.testing.assert_array_equal(first.particles, again.particles)
    assert np.all(first.log_increments != other.log_increments)


def test_compiled_filter_follows_the_same_law(world, linear_chain, monkeypatch):
    # As on a GPU. XLA has its own random numbers for resampling, and lacks some operations.
    monkeypatch.setenv("TFP_GAPS_ACT_AS_GPU", "1")
    x = np.ones([3, 2, 1])
    filtered = filtering.particle_filter(linear_chain.model(), x, num_particles=1000, seed=0)
    increments, mean, _ = kalman_filter(world.exact, x[:, 0], np.ones([3, 1], bool))
    # Four errors of 1 / sqrt(1000) per step at an effective size of half.
    np.testing.assert_allclose(filtered.log_increments[:, 0].sum(0), increments.sum(), atol=0.3)
    np.testing.assert_allclose(filtered.particles.numpy().mean(0), mean.item(), atol=0.15)


def test_prediction_follows_the_transition(world):
    particles = tf.ones([3000, 2, 4, 1])
    means = filtering.continue_from(world.model, particles, num_steps=3, seed=0).numpy()
    assert means.shape == (3, 3000, 2, 4, 1)
    # From z = 1 the mean decays as 0.9^h; 24000 paths of sd at most 1.1 give 0.03 as 4 errors.
    np.testing.assert_allclose(means.mean(axis=(1, 2, 3, 4)), [0.9, 0.81, 0.729], atol=0.03)
    variances = means.var(axis=(1, 2, 3, 4))
    np.testing.assert_allclose(variances, [0.5, 0.905, 1.23305], rtol=0.05)
    one = filtering.continue_from(world.model, particles, num_steps=1, seed=0).numpy()
    np.testing.assert_array_equal(one, means[:1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sequences": np.zeros([3, 5])}, r"shape \[time, sequences, channels\]"),
        ({"sequences": np.full([3, 5, 1], np.inf)}, "finite"),
        ({"sequences": np.full([3, 5, 1], np.nan)}, "NaN"),
        ({"sequences": np.zeros([3, 5, 2])}, "model's 1 channel"),
        ({"sequences": np.zeros([3, 0, 1])}, "at least one sequence"),
        ({"sequences": Sequences(np.zeros([3, 5, 1]), np.zeros([3, 5, 2]))}, "0 control channel"),
        ({"num_particles": 1}, "num_particles must be an integer and >= 2"),
        ({"particles_at_once": 0}, "particles_at_once"),
    ],
)
def test_bad_input(world, change, message):
    options = {"sequences": np.zeros([3, 5, 1]), "num_particles": 10, "seed": 0} | change
    with pytest.raises(ValueError, match=message):
        filtering.particle_filter(world.model, options.pop("sequences"), **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": 0}, "num_steps"),
        ({"controls": None}, "2 control channel"),
        ({"controls": np.zeros([2, 5, 2])}, r"\(3, 5, 2\)"),
        ({"controls": np.full([3, 5, 2], np.nan)}, "finite"),
    ],
)
def test_bad_input_of_prediction(plane, change, message):
    options = {"num_steps": 3, "seed": 0, "controls": np.zeros([3, 5, 2])} | change
    with pytest.raises(ValueError, match=message):
        filtering.continue_from(ControlledChain(plane), tf.zeros([4, 1, 5, 2]), **options)


# --- from above -----------------------------------------------------------------------------------


def evidence(linear_chain, x, controls=None):
    """ln p(x) of sequences [time, sequences, 1] by TFP's Kalman filter, float64 [sequences]."""
    rest = x if controls is None else x - response(linear_chain.exact, controls)
    log_prob = linear_chain.kalman(len(x)).log_prob(np.float32(rest).transpose(1, 0, 2))
    return log_prob.numpy().astype(np.float64)


@pytest.mark.parametrize("posterior", [None, WideProposal()], ids=["bootstrap", "guided"])
def test_the_inverse_of_the_reverse_filter_is_unbiased(linear_chain, posterior):
    # E p(x) / Z' = 1, for any number of particles and any q; with 16 of them ln Z' lies .2 to .4
    # above ln p(x). A path that is not carried through resampling is off by .1 under this q.
    model, count = linear_chain.model(), 20_000
    made, latents = filtering.made_sequences(model, np.zeros([TIME, count, 1]), seed=3)
    found = filtering.reverse_filter(
        model, made, latents, num_particles=16, seed=1, posterior=posterior
    )
    exact = evidence(linear_chain, made.observations)
    ratios = np.exp(exact - found[0])
    assert abs(ratios.mean() - 1) < 4 * ratios.std() / math.sqrt(count)
    assert ratios.std() / math.sqrt(count) < 0.01
    assert np.mean(found[0] - exact) > 0.15


@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0])
def test_parents_are_those_of_tfp(spread):
    # The same draws, of which TFP's functions find the parents by sorting. The two replicas and
    # three sequences are told apart; with a spread of 30 most particles have no weight at all.
    smc, seed = tfp.experimental.mcmc, [3, 5]
    draws = np.random.default_rng(0).normal(scale=spread, size=[1000, 2, 3])
    log_probs = tf.nn.log_softmax(tf.constant(draws, tf.float32), 0)
    expected = smc.resample_systematic(log_probs, 1000, (), seed=seed)
    np.testing.assert_array_equal(filtering._systematic(log_probs, seed), expected)
    others = smc.resample_independent(log_probs, 999, (), seed=seed)
    np.testing.assert_array_equal(filtering._others(log_probs, seed)[1:], others)


def test_all_but_the_first_have_independent_parents():
    weights, count = np.array([0.5, 0.2, 0.3]), 40_000
    log_probs = tf.repeat(tf.math.log(tf.constant(weights, tf.float32))[:, tf.newaxis], count, 1)
    first, *others = filtering._others(log_probs[:, tf.newaxis], [0, 1]).numpy()[:, 0]
    assert np.all(first == 0)
    # Pairs, in whatever order they come: W_i W_j. The frequency of each is known to .0025.
    pairs = np.zeros([3, 3])
    np.add.at(pairs, tuple(np.stack(others)), 1 / count)
    expected = np.outer(weights, weights)
    np.testing.assert_allclose((pairs + pairs.T) / 2, expected, atol=4 * 0.0025)


@pytest.mark.parametrize("posterior", [None, WideProposal()], ids=["bootstrap", "guided"])
def test_the_filter_and_its_reverse_close_in_on_the_evidence(linear_chain, posterior):
    model, count = linear_chain.model(), 1000
    made, latents = filtering.made_sequences(model, np.zeros([TIME, count, 1]), seed=0)
    exact, gaps = evidence(linear_chain, made.observations), []
    for particles in (8, 32, 128):
        options = {"num_particles": particles, "seed": 0, "posterior": posterior}
        lower = filtering.particle_filter(model, made, **options).log_increments.sum(0)[0]
        upper = filtering.reverse_filter(model, made, latents, **options)[0]
        for difference in (upper - exact, exact - lower):
            error = difference.std(ddof=1) / math.sqrt(count)
            assert difference.mean() > -3 * error
        gaps.append(np.mean(upper - lower))
    # Bias and variance fall as one over the particles: by four each time.
    ratios = np.divide(gaps[:-1], gaps[1:])
    assert np.all((ratios > 2.5) & (ratios < 6)), gaps


def test_made_sequences_follow_their_controls(linear_chain):
    model, count = ControlledChain(linear_chain.exact), 4000
    controls = np.random.default_rng(0).normal(scale=3.0, size=[TIME, count, 1])
    controls[0] = 0.0
    like = Sequences(np.zeros([TIME, count, 1]), controls)
    made, latents = filtering.made_sequences(model, like, seed=3)
    found = filtering.reverse_filter(model, made, latents, num_particles=50, seed=1)[0]
    # A control that acts a step too early or too late costs nats.
    ratios = np.exp(evidence(linear_chain, made.observations, made.controls) - found)
    assert abs(ratios.mean() - 1) < 4 * ratios.std() / math.sqrt(count)
    assert ratios.std() < 0.5


def test_latents_of_another_shape_are_refused(linear_chain):
    model = linear_chain.model()
    made, latents = filtering.made_sequences(model, np.zeros([TIME, 5, 1]), seed=0)
    with pytest.raises(ValueError, match=r"\[time, sequences, latent\] = \(6, 5, 1\)"):
        filtering.reverse_filter(model, made, latents[:, :4], num_particles=10, seed=0)
    with pytest.raises(ValueError, match="latents must be finite"):
        filtering.reverse_filter(model, made, latents * np.nan, num_particles=10, seed=0)
