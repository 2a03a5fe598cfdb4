"""Per-datum optimisation against the closed forms of a linear-Gaussian model."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tfp_gaps._tensorflow import tf
from tfp_gaps.bounds import evaluate_static
from tfp_gaps.models.vae import VAE
from tfp_gaps.networks import replica_seeds
from tfp_gaps.posteriors import families, local
from tfp_gaps.posteriors.local import Search

RNG = np.random.default_rng(0)
WORLD = SimpleNamespace(
    loadings=np.array([[1.0, 0.9], [0.8, 0.2], [-0.5, -0.9], [0.3, 0.6]]),
    noise=np.array([0.5, 0.7, 0.8, 1.0]),
    offset=np.array([0.3, 0.0, -0.2, 1.0]),
)
MODEL = VAE.from_factor_analysis(WORLD)
COUNT = 5
X = WORLD.offset + RNG.normal(size=[COUNT, 2]) @ WORLD.loadings.T
X = (X + WORLD.noise * RNG.normal(size=X.shape))[np.newaxis]
FLOW = {"num_steps": 1, "num_hidden": 8, "context_size": 1}
SPLINE = FLOW | {"num_bins": 4}
THOROUGH = Search(learning_rates=(5e-2, 5e-3), check_every=50, max_steps=400, num_samples=32)

SCALED = WORLD.loadings / WORLD.noise[:, None]
PRECISION = np.eye(2) + SCALED.T @ SCALED
MEANS = np.linalg.solve(PRECISION, (SCALED / WORLD.noise[:, None]).T @ (X[0] - WORLD.offset).T).T
FACTORISED_GAP = 0.5 * (np.log(np.diag(PRECISION)).sum() - np.linalg.slogdet(PRECISION)[1])


def divergence(mean, covariance):
    """KL(N(mean, covariance) || posterior) for each datum, nats: the gap of a Gaussian q."""
    covariance = np.broadcast_to(covariance, [len(mean), 2, 2])
    miss = np.einsum("ni,ij,nj->n", mean - MEANS, PRECISION, mean - MEANS)
    trace = np.trace(PRECISION @ covariance, axis1=1, axis2=2)
    log_ratio = np.linalg.slogdet(PRECISION)[1] + np.linalg.slogdet(covariance)[1]
    return 0.5 * (miss + trace - 2 - log_ratio)


def start(family, mean=0.0, log_scale=0.0, count=COUNT, replicas=1):
    mean, log_scale = (
        tf.fill([replicas, count, 2], tf.cast(value, tf.float32)) for value in (mean, log_scale)
    )
    return families.gaussian_start(family, mean, log_scale, replica_seeds(range(replicas), "start"))


def make(name):
    return families.make(name, 2, **(SPLINE if name == "spline flow" else FLOW))


def optimise(family, begin, x=X, search=THOROUGH, seed=0):
    return local.optimise(MODEL, family, begin, x, search, seed=seed)


def fixed(num_steps, **options):
    """A search of exactly so many steps."""
    return Search((1e-2,), check_every=num_steps, max_steps=num_steps, num_samples=8, **options)


# --- optima ---------------------------------------------------------------------------------------


def test_factorised_optimum_is_the_closed_form():
    # A lower rate at the end than elsewhere: after one of 5e-3 it depends on the draws, which are
    # other ones in a compiled search, whether the loss is within the last tolerance below.
    search = replace(THOROUGH, learning_rates=(5e-2, 5e-3, 1e-3))
    found = optimise(make("factorised"), start(make("factorised")), search=search)
    mean, log_scale = np.split(found.parameters.outputs.numpy()[0], 2, -1)
    expected = -0.5 * np.log(np.diag(PRECISION))
    # Adam on noisy gradients wanders by a few rates around the optimum.
    np.testing.assert_allclose(mean, MEANS, atol=0.03)
    np.testing.assert_allclose(log_scale, np.tile(expected, [COUNT, 1]), atol=0.03)
    gap = divergence(mean, np.exp(2 * log_scale)[:, :, None] * np.eye(2))
    assert FACTORISED_GAP > 0.2
    # No q is better than the best; what is lost is of the order of the square of that.
    assert (gap > FACTORISED_GAP - 1e-5).all()
    np.testing.assert_allclose(gap, FACTORISED_GAP, atol=4e-3)


def test_full_covariance_reaches_the_posterior():
    family = make("full covariance")
    found = optimise(family, start(family))
    outputs = found.parameters.outputs
    cholesky = family._cholesky(outputs).numpy()[0]
    gap = divergence(outputs.numpy()[0, :, :2], cholesky @ cholesky.transpose(0, 2, 1))
    assert (gap > -1e-5).all()  # float32
    np.testing.assert_allclose(gap, 0.0, atol=4e-3)


@pytest.mark.parametrize("name", families.NAMES[2:])
def test_flows_pass_the_factorised_optimum(name):
    family = make(name)
    # Few steps for the sake of time: a flow takes long to its best, but not to pass another.
    max_steps = 400 if name == "auxiliary flow" else 150
    search = Search((5e-2, 5e-3), check_every=50, max_steps=max_steps, num_samples=16)
    found = optimise(family, start(family), search=search)
    assert not found.diverged.any()
    bounds = evaluate_static(MODEL, family, found.parameters, X, num_samples=2000, seed=1)
    gap = log_evidence() - bounds.elbo[0]
    assert (gap > -4 * bounds.elbo_error[0]).all()
    assert (gap < FACTORISED_GAP + 4 * bounds.elbo_error[0]).all()
    # The posterior is a sheared Gaussian, which one pair of coupling layers comes close to.
    assert gap.mean() < 0.5 * FACTORISED_GAP


def log_evidence():
    covariance = WORLD.loadings @ WORLD.loadings.T + np.diag(WORLD.noise**2)
    centred = X[0] - WORLD.offset
    quadratic = np.einsum("ni,ij,nj->n", centred, np.linalg.inv(covariance), centred)
    return -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * covariance)[1])


def test_a_short_search_from_a_good_start_does_not_lose():
    # Near the optimum, where an encoder would put q: each datum gains, or loses less than the
    # noise of a step at the last rate can cost it.
    rng = np.random.default_rng(1)
    family = make("factorised")
    mean = MEANS + 0.1 * rng.normal(size=MEANS.shape)
    log_scale = -0.5 * np.log(np.diag(PRECISION)) + 0.1 * rng.normal(size=MEANS.shape)
    begin = families.Parameters(
        tf.constant(np.concatenate([mean, log_scale], -1)[None], tf.float32), [], False
    )
    found = optimise(family, begin, search=Search(max_steps=100, num_samples=32))
    after = found.parameters.outputs.numpy()[0]
    gains = divergence(mean, np.exp(2 * log_scale)[:, :, None] * np.eye(2)) - divergence(
        after[:, :2], np.exp(2 * after[:, 2:])[:, :, None] * np.eye(2)
    )
    assert gains.min() > -2e-3 and gains.mean() > 5e-3


# --- data are independent -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["full covariance", "affine flow"])
def test_a_datum_does_not_depend_on_its_neighbours(name):
    family = make(name)
    expected = optimise(family, start(family), search=fixed(20)).parameters
    other = X.copy()
    other[:, 2:] *= -3.0
    found = optimise(family, start(family), other, search=fixed(20)).parameters
    for array, wanted in zip(
        [found.outputs, *found.weights], [expected.outputs, *expected.weights], strict=True
    ):
        np.testing.assert_allclose(array[:, :2], wanted[:, :2], atol=1e-6)
    assert np.abs(found.outputs - expected.outputs)[:, 2:].max() > 1e-2


def test_a_datum_alone_reaches_the_same_optimum():
    family = make("factorised")
    together = optimise(family, start(family)).parameters.outputs[:, 3:4]
    alone = optimise(family, start(family, count=1), X[:, 3:4]).parameters.outputs
    # Other noise: twice the tolerance of the optimum.
    np.testing.assert_allclose(alone, together, atol=0.06)


def test_batches_that_do_not_divide_the_data():
    family = make("factorised")
    found = optimise(family, start(family), search=fixed(20, batch_size=2))
    assert found.steps.tolist() == [20, 20, 20]
    assert [np.shape(trace) for trace in found.trace] == [(1, 1)] * 3
    assert found.diverged.shape == (1, COUNT)
    assert found.parameters.per_datum and found.parameters.outputs.shape[:2] == [1, COUNT]
    # A batch that fits is the whole search of its data; the last one holds one datum.
    first = optimise(family, start(family, count=2), X[:, :2], search=fixed(20)).parameters
    np.testing.assert_allclose(found.parameters.outputs[:, :2], first.outputs, atol=1e-6)
    single = optimise(family, start(family), search=fixed(20, batch_size=COUNT)).parameters
    # Other noise, after 20 steps of .01 each.
    np.testing.assert_allclose(found.parameters.outputs, single.outputs, atol=0.15)


def test_a_batch_leaves_nothing_behind_for_the_next(monkeypatch):
    # Reused variables and optimisers (their moments, their count of steps) against new ones.
    family = make("affine flow")
    search = Search((1e-2, 1e-3), check_every=10, max_steps=20, num_samples=8, batch_size=2)
    begin, x = start(family, count=4), X[:, :4]
    reused = optimise(family, begin, x, search=search).parameters
    assert all(weight.shape[:2] == [1, 4] for weight in reused.weights)

    class Fresh(local._Batch):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.size = None  # fits no batch

    monkeypatch.setattr(local, "_Batch", Fresh)
    fresh = optimise(family, begin, x, search=search).parameters
    np.testing.assert_array_equal(reused.outputs, fresh.outputs)
    for weight, expected in zip(reused.weights, fresh.weights, strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_replicas_search_side_by_side():
    # Two replicas of the model: the one above, and one that decodes to noise.
    both = VAE(
        observation_size=4,
        latent_size=2,
        hidden=(),
        emission="normal",
        seeds=replica_seeds([0, 1], "model"),
    )
    for ours, theirs in zip(both.trainable_variables, MODEL.trainable_variables, strict=True):
        ours.assign(tf.concat([theirs, tf.zeros_like(theirs)], 0))
    family = make("affine flow")
    begin = start(family, replicas=2)
    found = local.optimise(both, family, begin, X, fixed(20), seed=0)
    assert found.parameters.outputs.shape[:2] == [2, COUNT]
    assert found.trace[0].shape == (1, 2) and found.diverged.shape == (2, COUNT)
    one = families.Parameters(begin.outputs[:1], [weight[:1] for weight in begin.weights], False)
    alone = optimise(family, one, search=fixed(20))
    np.testing.assert_allclose(found.parameters.outputs[:1], alone.parameters.outputs, atol=1e-5)
    assert found.trace[0][0, 0] == pytest.approx(alone.trace[0][0, 0], abs=1e-4)
    assert found.looks[0].shape == (1, 2, COUNT)
    np.testing.assert_allclose(found.looks[0].mean(-1), found.trace[0], rtol=1e-6)
    # Where x says nothing of z, q stays at the prior but for the steps of Adam.
    assert np.abs(found.parameters.outputs[1, :, :2]).max() < 0.2
    assert np.abs(found.parameters.outputs[0, :, :2]).max() > 0.15


# --- rule -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "looks"),
    [
        # The first look always gains; then so many without a gain of 100 nats end a rate.
        ({"tolerance": 100.0, "patience": 2, "max_steps": 1000}, [3, 3]),
        ({"tolerance": 100.0, "patience": 1, "max_steps": 1000}, [2, 2]),
        # Every look gains more than minus 100 nats.
        ({"tolerance": -100.0, "patience": 1, "max_steps": 20}, [4, 4]),
    ],
)
def test_the_rule_ends_a_rate(options, looks):
    family = make("factorised")
    search = Search((1e-2, 1e-3), check_every=5, num_samples=4, **options)
    found = optimise(family, start(family), search=search)
    assert found.steps.tolist() == [5 * sum(looks)]
    assert np.shape(found.trace[0]) == (sum(looks), 1)


def test_no_rate_takes_more_than_max_steps():
    family = make("factorised")
    search = Search((1e-2, 1e-3), check_every=8, max_steps=20, num_samples=4, tolerance=-100.0)
    assert optimise(family, start(family), search=search).steps.tolist() == [40]


def test_the_trace_is_the_mean_bound():
    # At a rate too small to move, the trace is the ELBO of the start.
    family = make("factorised")
    search = Search((1e-12,), check_every=200, max_steps=200, num_samples=64)
    found = optimise(family, start(family, log_scale=-1.0), search=search)
    gap = divergence(np.zeros([COUNT, 2]), np.exp(-2.0) * np.eye(2))
    bounds = evaluate_static(
        MODEL, family, start(family, log_scale=-1.0), X, num_samples=1000, seed=0
    )
    # 12800 draws per datum, five data.
    error = np.sqrt(np.sum(bounds.elbo_error**2)) / COUNT * np.sqrt(1000 / 12_800)
    assert found.trace[0][0, 0] == pytest.approx((log_evidence() - gap).mean(), abs=4 * error)
    assert error < 0.02


def test_a_search_depends_on_its_seed_alone():
    family = make("factorised")
    first, again, other = (
        optimise(family, start(family), search=fixed(10), seed=seed).parameters.outputs.numpy()
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-4


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["factorised", "full covariance", "affine flow"])
def test_a_datum_that_diverges_is_flagged_and_harms_no_other(name):
    family = make(name)
    begin = start(family)
    expected = optimise(family, begin, search=fixed(20))
    assert not expected.diverged.any()
    outputs = begin.outputs.numpy()
    outputs[0, 1, 2:4] = 1e3  # log scales
    found = optimise(family, begin._replace(outputs=tf.constant(outputs)), search=fixed(20))
    assert found.diverged.tolist() == [[False, True, False, False, False]]
    others = [0, 2, 3, 4]
    np.testing.assert_array_equal(
        found.parameters.outputs.numpy()[:, others], expected.parameters.outputs.numpy()[:, others]
    )
    for weight, wanted in zip(found.parameters.weights, expected.parameters.weights, strict=True):
        assert np.isfinite(weight.numpy()).all()
        np.testing.assert_array_equal(weight.numpy()[:, others], wanted.numpy()[:, others])
    # Its start is kept: no step was taken.
    np.testing.assert_array_equal(found.parameters.outputs[:, 1], outputs[:, 1])
    # The trace is that of the others.
    assert np.isnan(found.looks[0][0, 0]).tolist() == [False, True, False, False, False]
    mean = found.looks[0][0, 0, others].mean()
    assert found.trace[0][0, 0] == pytest.approx(mean, rel=1e-6)


def test_a_batch_of_which_all_diverge_is_flagged():
    family = make("factorised")
    search = Search(check_every=5, max_steps=100, patience=2, num_samples=4)
    found = optimise(family, start(family, log_scale=1e3), search=search)
    assert found.diverged.all() and np.isnan(found.trace[0]).all()
    assert found.steps.tolist() == [20]  # two looks without a gain at each of two rates


def test_a_replica_that_diverges_does_not_end_the_search_of_the_others():
    seeds = replica_seeds([0, 1], "model")
    sizes = {"observation_size": 4, "latent_size": 2, "hidden": (), "emission": "normal"}
    family = make("factorised")
    begin = start(family, replicas=2)
    outputs = begin.outputs.numpy()
    outputs[1, :, 2:] = 1e3  # log scales
    begin = begin._replace(outputs=tf.constant(outputs))
    search = Search((1e-2,), check_every=5, max_steps=40, patience=1, tolerance=-100.0)
    found = local.optimise(VAE(**sizes, seeds=seeds), family, begin, X, search, seed=0)
    assert found.steps.tolist() == [40]
    assert not found.diverged[0].any() and found.diverged[1].all()


def test_nan_in_the_data_is_refused():
    x = X.copy()
    x[0, 2, 1] = np.nan
    family = make("factorised")
    with pytest.raises(ValueError, match="observations must be finite, but 1 of its 20 entries"):
        optimise(family, start(family), x)


@pytest.mark.parametrize("x", [X[:, :3], X[..., :2], np.repeat(X, 3, axis=0)])
def test_data_that_do_not_fit_are_refused(x):
    family = make("factorised")
    with pytest.raises(ValueError, match="observations must be .1 or 1 replicas, 5 data, 4 pixels"):
        optimise(family, start(family), x)


def test_a_q_of_another_model_is_refused():
    family = families.make("factorised", 3)
    begin = families.Parameters(tf.zeros([1, COUNT, 6]), [], False)
    with pytest.raises(ValueError, match="'factorised' has 3 and the model 2"):
        optimise(family, begin)
    with pytest.raises(ValueError, match="as many replicas as the model, which are 1, but has 2"):
        optimise(make("factorised"), start(make("factorised"), replicas=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rates": (1e-2, 0.0)}, "learning rate must be greater"),
        ({"learning_rates": ()}, "learning_rates must hold"),
        ({"check_every": 0}, "check_every must be an integer and >= 1"),
        ({"num_samples": 2.5}, "num_samples must be an integer"),
        ({"patience": 0}, "patience must be an integer and >= 1"),
        ({"tolerance": float("nan")}, "tolerance must be finite"),
    ],
)
def test_bad_searches_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Search(**options)
