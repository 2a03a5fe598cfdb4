"""Bounds from draws against closed forms, their errors against repetition."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from tfp_gaps import bounds
from tfp_gaps._tensorflow import tf
from tfp_gaps.models.vae import VAE
from tfp_gaps.networks import replica_seeds
from tfp_gaps.posteriors import families
from tfp_gaps.posteriors.encoder import Posterior

WORLD = SimpleNamespace(
    loadings=np.array([[1.0, 0.9], [0.8, 0.2], [-0.5, -0.9], [0.3, 0.6]]),
    noise=np.array([0.5, 0.7, 0.8, 1.0]),
    offset=np.array([0.3, 0.0, -0.2, 1.0]),
)
MODEL = VAE.from_factor_analysis(WORLD)
COUNT = 20
RNG = np.random.default_rng(0)
X = WORLD.offset + RNG.normal(size=[COUNT, 2]) @ WORLD.loadings.T
X = (X + WORLD.noise * RNG.normal(size=X.shape))[np.newaxis]

SCALED = WORLD.loadings / WORLD.noise[:, None]
PRECISION = np.eye(2) + SCALED.T @ SCALED
COVARIANCE = np.linalg.inv(PRECISION)
FULL, FACTORISED = families.make("full covariance", 2), families.make("factorised", 2)


def posterior_means(x=X):
    return (x[0] - WORLD.offset) @ (SCALED / WORLD.noise[:, None]) @ COVARIANCE


def log_evidence(x=X):
    covariance = WORLD.loadings @ WORLD.loadings.T + np.diag(WORLD.noise**2)
    centred = x[0] - WORLD.offset
    quadratic = np.einsum("ni,ij,nj->n", centred, np.linalg.inv(covariance), centred)
    return -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * covariance)[1])


def gaussian(mean, cholesky):
    """`Parameters` of the full-covariance family for each datum."""
    outputs = [mean, np.log([cholesky[0, 0], cholesky[1, 1]]), [cholesky[1, 0]]]
    outputs = np.concatenate(
        [np.broadcast_to(o, [len(mean), np.shape(o)[-1]]) for o in outputs], -1
    )
    return families.Parameters(tf.constant(outputs[None], tf.float32), [], False)


def near_posterior(x=X, shift=(0.1, -0.2)):
    """A q that misses mean and covariance of the posterior by a little, and its ELBO."""
    mean = posterior_means(x) + np.array(shift)
    cholesky = 0.9 * np.linalg.cholesky(COVARIANCE)
    miss = mean - posterior_means(x)
    trace = np.trace(PRECISION @ cholesky @ cholesky.T)
    log_ratio = np.linalg.slogdet(PRECISION)[1] + 2 * np.log(np.diag(cholesky)).sum()
    gap = 0.5 * (np.einsum("ni,ij,nj->n", miss, PRECISION, miss) + trace - 2 - log_ratio)
    return gaussian(mean, cholesky), log_evidence(x) - gap


def repeated(num):
    """The same datum so many times: independent repetitions of the estimate."""
    return np.repeat(X[:, :1], num, axis=1)


def evaluate(parameters, x=X, family=FULL, model=MODEL, **options):
    options = {"num_samples": 1000, "seed": 0} | options
    return bounds.evaluate_static(model, family, parameters, x, **options)


def fields_of(found):
    """What `Bounds` says of each datum."""
    return found.elbo, found.elbo_error, found.iwae, found.iwae_error, found.effective_size


# --- values ---------------------------------------------------------------------------------------


def test_bounds_are_the_closed_forms():
    own, elbo = near_posterior()
    found = evaluate(own, num_samples=4000)
    assert found.num_samples == 4000
    assert all(np.shape(field) == (1, COUNT) for field in fields_of(found))
    assert np.abs((found.elbo[0] - elbo) / found.elbo_error[0]).max() < 4
    # The bias of IWAE is -1/2 (1 / ESS - 1 / K), far below its error here.
    score = (found.iwae[0] - log_evidence()) / found.iwae_error[0]
    assert np.abs(score).max() < 4
    assert found.iwae_error.max() < 0.02
    assert ((log_evidence() - elbo) > 4 * found.elbo_error[0]).all()  # it is not the evidence


def test_the_exact_posterior_gives_the_evidence_from_every_draw():
    own = gaussian(posterior_means(), np.linalg.cholesky(COVARIANCE))
    found = evaluate(own, num_samples=100)
    # All weights are equal, up to float32.
    for bound in (found.elbo, found.iwae):
        np.testing.assert_allclose(bound[0], log_evidence(), atol=1e-5)
    np.testing.assert_allclose(found.effective_size, 100, rtol=1e-5)
    assert found.elbo_error.max() < 1e-6 and found.iwae_error.max() < 1e-6


def test_iwae_rises_with_the_number_of_draws_and_stays_below_the_evidence():
    x = repeated(2000)
    own, elbo = near_posterior(x, shift=(0.3, -0.6))
    previous, values_of = elbo.mean(), {}
    for k in (2, 8, 32):
        values = evaluate(own, x, num_samples=k, seed=k).iwae[0]
        error = values.std(ddof=1) / np.sqrt(2000)
        assert previous + 3 * error < values.mean() < log_evidence(x).mean() + 3 * error
        previous = values_of[k] = values.mean()
    # The slack falls as 1 / K where K is large.
    slack = {k: log_evidence(x).mean() - values_of[k] for k in values_of}
    assert slack[8] < 0.5 * slack[2]


def test_pixel_means_are_data_of_a_bernoulli_model():
    model = VAE(observation_size=4, latent_size=2, hidden=(3,), seeds=replica_seeds([0], "m"))
    own = families.Parameters(tf.zeros([1, 1, 4]), [], False)
    x = np.array([[[0.0, 1.0, 0.0, 1.0]]])
    options = {"family": FACTORISED, "model": model}
    low, high = (evaluate(own, x + [0, 0, v, 0], **options).elbo for v in (0, 1))
    mean = evaluate(own, x + [0, 0, 0.3, 0], **options).elbo
    np.testing.assert_allclose(mean, 0.7 * low + 0.3 * high, atol=1e-5)  # the same draws


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("draws_at_once", [5000, 40])
def test_errors_are_the_spread_over_repetitions(draws_at_once):
    # 40 draws at once cut K = 200 into 100 parts: draws that returned would widen the spread.
    x = repeated(600)
    own, elbo = near_posterior(x)
    found = evaluate(own, x, num_samples=200, data_at_once=20, draws_at_once=draws_at_once)
    for bound, error in ((found.elbo, found.elbo_error), (found.iwae, found.iwae_error)):
        spread = bound[0].std(ddof=1)
        typical = np.sqrt(np.mean(error**2))
        # A standard deviation over 600 is known to 3 %, and K = 200 adds a little of its own.
        assert spread == pytest.approx(typical, rel=0.12)
    assert found.elbo.mean() == pytest.approx(elbo[0], abs=4 * found.elbo[0].std() / np.sqrt(600))
    # And the data of a batch are independent of each other and of the next batch.
    values = found.elbo[0].reshape(30, 20)
    assert len(set(np.round(found.elbo[0], 7))) > 590
    assert values.mean(1).std(ddof=1) == pytest.approx(values.std() / np.sqrt(20), rel=0.5)


def test_effective_size_lies_between_one_and_k():
    for width in (0.3, 1.0, 3.0):
        own = gaussian(posterior_means(), width * np.linalg.cholesky(COVARIANCE))
        found = evaluate(own, num_samples=50)
        assert (found.effective_size >= 1).all()
        assert (found.effective_size <= 50 * (1 + 1e-6)).all()
    # So far off that one draw outweighs all others.
    found = evaluate(gaussian(posterior_means() + 30.0, np.eye(2)), num_samples=50)
    assert found.effective_size.max() < 3
    # By hand: weights 1, 1, 2 of equal data.
    fields = fields_of(bounds.Bounds.from_log_weights(np.log([1.0, 1.0, 2.0])[:, None, None]))
    assert fields[4].item() == pytest.approx(16 / 6)
    assert fields[2].item() == pytest.approx(np.log(4 / 3))
    # The delta method by hand: sd (with 1 / K) over mean and sqrt(K).
    assert fields[3].item() == pytest.approx(np.std([1, 1, 2]) / (4 / 3) / np.sqrt(3))
    assert fields[1].item() == pytest.approx(np.std(np.log([1, 1, 2]), ddof=1) / np.sqrt(3))


@pytest.mark.parametrize("draws_at_once", [2 * COUNT, 3 * COUNT, 1000])
def test_all_draws_are_taken_and_no_more(draws_at_once):
    exact = gaussian(posterior_means(), np.linalg.cholesky(COVARIANCE))
    found = evaluate(exact, num_samples=7, draws_at_once=draws_at_once)
    # Under the posterior all weights are alike, so that the effective size counts the draws.
    np.testing.assert_allclose(found.effective_size, 7, rtol=1e-4)


@pytest.mark.parametrize(("draws_at_once", "most"), [(100, 100), (10, COUNT)])
def test_no_more_draws_at_once_than_allowed(monkeypatch, draws_at_once, most):
    # What is at once in memory is what the documentation promises; one draw of each is the least.
    drawn, weights = [], families.log_weights

    def watched(model, family, parameters, observations, noise):
        drawn.append(noise.shape[0] * noise.shape[2])
        return weights(model, family, parameters, observations, noise)

    monkeypatch.setattr(families, "log_weights", watched)
    bound = evaluate(near_posterior()[0], num_samples=12, draws_at_once=draws_at_once)
    assert max(drawn) == most and bound.elbo.shape == (1, COUNT)


def test_very_unlikely_data_do_not_underflow():
    fields = fields_of(bounds.Bounds.from_log_weights(np.array([-5000.0, -5001.0])[:, None, None]))
    assert fields[2].item() == pytest.approx(-5000 + np.log((1 + np.exp(-1)) / 2))


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.9])
def test_k_hat_is_the_shape_of_the_tail(shape):
    # Weights of a generalised Pareto distribution, whose tail has this shape everywhere. The fit
    # shrinks k towards 0.5 by ten draws' worth (of 300 in the tail), and spreads by (1 + k) / 17.
    draws = scipy.stats.genpareto.rvs(shape, size=[10_000, 100], random_state=0)
    found = bounds.Bounds.from_log_weights(np.log(draws)).pareto_k
    assert found.shape == (100,)
    assert found.std(ddof=1) == pytest.approx((1 + shape) / 300**0.5, rel=0.3)
    assert found.mean() == pytest.approx(shape, abs=0.05)


def test_k_hat_where_there_is_no_tail():
    values = np.zeros([1000, 5])
    values[:, 1] += 1e-6 * np.arange(1000) / 1000  # equal up to single precision
    values[0, 2] = 2000.0  # one draw outweighs all
    values[0, 3] = np.nan
    values[:, 4] = np.random.default_rng(0).normal(size=1000)
    k = bounds.Bounds.from_log_weights(values).pareto_k
    assert (k[:2] == -np.inf).all() and k[2] == np.inf and np.isnan(k[3]) and 0 < k[4] < 0.7
    assert np.isnan(bounds.Bounds.from_log_weights(values[:24, 4]).pareto_k)


def test_one_draw_is_refused():
    with pytest.raises(ValueError, match=r"at least 2 draws, but have shape \(1, 3\)"):
        bounds.Bounds.from_log_weights(np.zeros([1, 3]))


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data_at_once", "draws_at_once"), [(7, 5000), (COUNT, 50), (3, 1), (1, 10**6)]
)
def test_batches_change_draws_but_not_what_is_estimated(data_at_once, draws_at_once):
    own, elbo = near_posterior()
    found = evaluate(own, num_samples=50, data_at_once=data_at_once, draws_at_once=draws_at_once)
    assert (
        all(np.shape(field) == (1, COUNT) for field in fields_of(found)) and found.num_samples == 50
    )
    # All data together: 50 draws are few for the error of one.
    error = np.sqrt(np.sum(found.elbo_error**2)) / COUNT
    assert found.elbo.mean() == pytest.approx(elbo.mean(), abs=4 * error)
    assert (found.effective_size <= 50 * (1 + 1e-6)).all()


def test_own_weights_per_datum_are_selected_with_their_datum():
    family = families.make("affine flow", 2, num_steps=1, num_hidden=3, context_size=1)
    weights = [w.numpy() for w in family.make_weights(replica_seeds([0], "x"))]
    rng = np.random.default_rng(0)
    # Each datum's flow shifts by another amount: the last layers' biases, log_scale zero.
    own = families.Parameters(
        tf.zeros([1, COUNT, family.num_outputs]),
        [np.repeat(w[:, None], COUNT, 1) for w in weights],
        True,
    )
    for index in (4, 9):
        own.weights[index][..., 0] = rng.normal(size=[1, COUNT, 1])
    own = own._replace(weights=[tf.constant(w) for w in own.weights])
    whole = evaluate(own, family=family, num_samples=400)
    parts = evaluate(own, family=family, num_samples=400, data_at_once=3)
    error = np.hypot(whole.elbo_error, parts.elbo_error)
    assert np.abs((whole.elbo - parts.elbo) / error).max() < 4
    assert whole.elbo.std() > 10 * error.max() / np.sqrt(COUNT)


def test_replicas_are_bounded_by_their_own_model_and_seed_alone():
    seeds = replica_seeds([0, 1], "model")
    sizes = {"observation_size": 4, "latent_size": 2, "hidden": (3,), "emission": "normal"}
    own = families.Parameters(tf.zeros([2, COUNT, 4]), [], False)
    both = evaluate(own, model=VAE(**sizes, seeds=seeds), family=FACTORISED, num_samples=20)
    assert both.elbo.shape == (2, COUNT)
    for r in (0, 1):
        alone = evaluate(
            families.Parameters(own.outputs[:1], [], False),
            model=VAE(**sizes, seeds=seeds[r : r + 1]),
            family=FACTORISED,
            num_samples=20,
        )
        np.testing.assert_allclose(alone.iwae[0], both.iwae[r], atol=1e-4)
    assert np.abs(both.iwae[0] - both.iwae[1]).min() > 1e-4


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_draw_without_a_number_gives_nan_for_its_datum_alone():
    own, _ = near_posterior()
    expected = evaluate(own, num_samples=20)
    outputs = own.outputs.numpy()
    outputs[0, 3, 2:4] = 1e3  # log scales
    found = evaluate(own._replace(outputs=tf.constant(outputs)), num_samples=20)
    for field, wanted in zip(fields_of(found), fields_of(expected), strict=True):
        assert np.isnan(field[0, 3])
        np.testing.assert_array_equal(np.delete(field, 3, 1), np.delete(wanted, 3, 1))
    # One draw of many is enough, and minus infinity is no number either.
    values = np.zeros([5, 1, 2])
    for bad in (np.nan, -np.inf, np.inf):
        values[2, 0, 1] = bad
        fields = np.array(fields_of(bounds.Bounds.from_log_weights(values)))
        assert np.isnan(fields[:, 0, 1]).all() and np.isfinite(fields[:, 0, 0]).all()


def test_pixels_of_a_bernoulli_model_are_binary_or_means():
    model = VAE(observation_size=4, latent_size=2, seeds=replica_seeds([0], "model"))
    own, _ = near_posterior()
    for value in (1.0, 0.3):
        found = evaluate(own, np.full(X.shape, value), model=model, num_samples=2)
        assert np.isfinite(found.elbo).all()
    for value in (-1.0, 255.0):
        x = np.zeros(X.shape)
        x[0, 3, 1] = value
        with pytest.raises(ValueError, match=r"0 or 1, or means between them, but lie between"):
            evaluate(own, x, model=model, num_samples=2)


@pytest.mark.parametrize("k", [1, 0, 2.5])
def test_fewer_than_two_draws_are_refused(k):
    with pytest.raises(ValueError, match="num_samples must be an integer and >= 2"):
        evaluate(near_posterior()[0], num_samples=k)


def test_bad_data_are_refused():
    own, _ = near_posterior()
    x = X.copy()
    x[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="observations must be finite"):
        evaluate(own, x)
    with pytest.raises(ValueError, match=r"20 data, 4 pixels\], but have shape \(1, 19, 4\)"):
        evaluate(own, X[:, 1:])
    wrong = families.Parameters(tf.zeros([1, COUNT, 6]), [], False)
    with pytest.raises(ValueError, match="has 3 and the model 2"):
        evaluate(wrong, family=families.make("factorised", 3))


# --- loss -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", families.NAMES)
def test_the_loss_is_the_negative_bound(name):
    family = families.make(name, 2)
    posterior = Posterior(
        family, observation_size=4, hidden=(3,), seeds=replica_seeds([0], "posterior")
    )
    loss = bounds.negative_elbo(MODEL, posterior)
    x = np.repeat(X, 100, axis=1).astype(np.float32)  # 100 draws per datum
    values = [loss(x, replica_seeds([0], "noise", index), 1.0).numpy() for index in range(4)]
    assert values[0].shape == (1,)
    own = posterior.parameters(X)
    found = evaluate(own, family=family, num_samples=400)
    # Both have 400 draws per datum.
    error = np.sqrt(2 * np.sum(found.elbo_error**2)) / COUNT
    assert np.mean(values) == pytest.approx(-found.elbo.mean(), abs=4 * error)


def test_the_divergence_counts_by_its_weight_and_replicas_are_apart():
    posterior = Posterior(
        FACTORISED, observation_size=4, hidden=(3,), seeds=replica_seeds([0, 1], "posterior")
    )
    sizes = {"observation_size": 4, "latent_size": 2, "hidden": (3,), "emission": "normal"}
    model = VAE(**sizes, seeds=replica_seeds([0, 1], "model"))
    loss = bounds.negative_elbo(model, posterior)
    x = np.repeat(X, 2, axis=0)
    seeds = replica_seeds([0, 1], "noise")
    fit, half, whole = (loss(x, seeds, weight).numpy() for weight in (0.0, 0.5, 1.0))
    np.testing.assert_allclose(half, (fit + whole) / 2, rtol=1e-5)
    # Without the divergence: the mean of -ln p(x | z) over the same draws.
    noise = tf.stack([tf.random.stateless_normal([COUNT, 2], s, alg="philox") for s in seeds])
    drawn = posterior.draw(x, noise[None])
    expected = -tf.reduce_mean(model.log_likelihood(drawn.latents, X.astype(np.float32)), [0, 2])
    np.testing.assert_allclose(fit, expected, rtol=1e-5)
    x[1] += 1.0
    changed = loss(x, seeds, 1.0).numpy()
    assert changed[0] == pytest.approx(whole[0], rel=1e-6) and abs(changed[1] - whole[1]) > 0.1
