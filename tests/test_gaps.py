"""The decomposition: exact arithmetic, and gaps that are planted one by one and measured."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from tfp_gaps import bounds, gaps, networks, training
from tfp_gaps._tensorflow import tf
from tfp_gaps.estimate import Estimate
from tfp_gaps.exact.four_gaps import FourGaps
from tfp_gaps.models.vae import VAE
from tfp_gaps.networks import replica_seeds
from tfp_gaps.posteriors import families, local
from tfp_gaps.posteriors.encoder import Posterior

NAMES = ("evidence", "best_per_datum", "best_shared", "best_network", "elbo")


def levels(count=40, seed=0):
    """Five bounds over the same data, which share most of their spread."""
    rng = np.random.default_rng(seed)
    common = 10 * rng.normal(size=count) - 100
    steps = np.cumsum(0.5 + 0.1 * rng.normal(size=[5, count]), 0)
    return dict(zip(NAMES, common - steps, strict=True))


# --- arithmetic -----------------------------------------------------------------------------------


def test_parts_are_means_of_differences_and_sum_to_the_total():
    given = levels()
    report = gaps.decompose(**given)
    for (first, second), part in zip(itertools.pairwise(NAMES), report.parts.values(), strict=True):
        difference = given[first] - given[second]
        assert part.value == pytest.approx(difference.mean(), abs=1e-12)
        assert part.standard_error == pytest.approx(difference.std(ddof=1) / np.sqrt(40), rel=1e-9)
        assert part.kind == "data points" and part.num_samples == 40
    assert list(report.parts) == ["approximation", "conditioning", "capacity", "optimisation"]
    assert abs(report.residual()) < 1e-12
    assert report.total.value == pytest.approx(report.evidence.value - report.elbo.value, abs=1e-12)


def test_errors_are_paired():
    given = levels()
    report = gaps.decompose(**given)
    assert report.evidence.standard_error > 1  # the data differ by far more than the bounds
    assert max(part.standard_error for part in report.parts.values()) < 0.05
    shuffled = given | {"elbo": given["elbo"][::-1]}
    assert gaps.decompose(**shuffled).optimisation.standard_error > 1


@pytest.mark.parametrize(
    ("left_out", "zero", "carrier"),
    [
        ("best_per_datum", "approximation", "conditioning"),
        ("best_shared", "conditioning", "capacity"),
        ("best_network", "capacity", "optimisation"),
    ],
)
def test_what_is_left_out_is_exactly_zero_and_its_part_goes_to_the_next(left_out, zero, carrier):
    given = levels()
    whole = gaps.decompose(**given)
    report = gaps.decompose(**{k: v for k, v in given.items() if k != left_out})
    assert getattr(report, zero) == Estimate(0.0, kind="exact")
    both = getattr(whole, zero).value + getattr(whole, carrier).value
    assert getattr(report, carrier).value == pytest.approx(both, abs=1e-12)
    assert abs(report.residual()) < 1e-12 and report.total == whole.total
    assert whole.counted_as == {} and report.counted_as == {zero: carrier}
    assert f"− {zero} gap" in str(report.table()) and "not measured" not in str(whole.table())
    assert report.in_words(zero) == f"not measured (counted as {carrier})"


def test_evidence_and_elbo_alone_are_one_gap():
    report = gaps.decompose(evidence=[-1.0, -2.0, -3.0], elbo=[-2.0, -2.5, -4.5])
    assert [part.value for part in report.parts.values()] == [0, 0, 0, 1.0]
    assert report.optimisation == report.total
    assert set(report.counted_as.values()) == {"optimisation"} and len(report.counted_as) == 3


def test_parts_below_zero_are_not_clipped():
    report = gaps.decompose(evidence=-3.0, best_per_datum=-2.5, elbo=-3.5)
    assert report.approximation.value == -0.5 and report.total.value == 0.5


def test_an_elbo_above_the_evidence_is_no_gap():
    with pytest.raises(ValueError, match="evidence must not be below the ELBO, but .* is -2.000"):
        gaps.decompose(evidence=-3.0, elbo=-1.0)
    noise = np.random.default_rng(0).normal(size=40)
    with pytest.warns(
        RuntimeWarning, match=r"should not be below the ELBO, but .* is -1.94 ± 0.13"
    ):
        gaps.decompose(evidence=np.full(40, -3.0), elbo=-1.0 + noise)
    # Within its errors, by rounding, or of two data that agree by chance, it may be above.
    assert gaps.decompose(evidence=np.full(40, -1.3), elbo=-1.0 + noise).total.value < 0
    gaps.decompose(evidence=-1000.001, elbo=-1000.0)
    gaps.decompose(evidence=[-1.02, -1.02], elbo=[-1.0, -1.0001])


def test_a_number_has_no_error_and_mixes_with_vectors():
    given = levels()
    report = gaps.decompose(**given | {"evidence": -99.0, "best_per_datum": -99.5})
    assert report.approximation == Estimate(0.5, kind="exact")
    assert report.evidence.standard_error == 0
    shared = given["best_shared"]
    error = shared.std(ddof=1) / np.sqrt(40)
    assert report.conditioning.standard_error == pytest.approx(error)
    assert report.conditioning.value == pytest.approx(-99.5 - shared.mean())
    assert abs(report.residual()) < 1e-12


@pytest.mark.parametrize("family", ["factorised", "full covariance"])
def test_terms_of_the_exact_world_give_its_parts(family):
    world = FourGaps([[1.0, 0.6], [0.2, 1.0]], [0.7, 1.0], [[1.0, 1.0]], [0.6])
    parts = world.decompose(1, 15, family=family)
    report = gaps.decompose(
        evidence=world.expected_evidence(),
        best_per_datum=world.expected_elbo(world.best_per_datum(family)),
        best_shared=world.expected_elbo(world.best_shared(family)),
        best_network=world.expected_elbo(world.best_network(1, family)),
        elbo=parts.elbo,
    )
    for name in gaps.PARTS:
        found = getattr(report, name)
        assert found.value == pytest.approx(getattr(parts, name), abs=1e-11)
        assert found.standard_error == 0 and found.kind == "exact"


def test_sequences_are_decomposed_alike_and_the_table_names_all_parts():
    # Nats per sequence, from a filter: q sees what came before, no capacity of its own is measured.
    given = levels(count=12)
    del given["best_network"]
    report = gaps.decompose(**given, kind="sequences", basis={"evidence": "Kalman filter"})
    assert report.conditioning.kind == "sequences" and report.conditioning.num_samples == 12
    assert report.basis == {"evidence": "Kalman filter"}
    text = str(report.table())
    for name in ("evidence", "approximation", "conditioning", "capacity", "optimisation", "ELBO"):
        assert name in text
    assert str(report.conditioning) in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"elbo": np.zeros(39)}, r"over the same data, but their lengths are \[39, 40\]"),
        ({"best_shared": np.full(40, np.nan)}, "best_shared must be finite.*do not drop it"),
        ({"elbo": np.zeros([2, 40])}, "one replica at a time"),
        ({"elbo": Estimate(-1.0, 0.1)}, "elbo must be one number per datum, or a number, but is"),
        ({"basis": {"bound": "IWAE"}}, "Unknown entry of basis 'bound'. Known: evidence, best_per"),
    ],
)
def test_bad_input_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        gaps.decompose(**levels() | change)


# --- planted gaps ---------------------------------------------------------------------------------
# A linear-Gaussian model with three latents and six pixels. Everything is measured as on images:
# a trained posterior, a search per datum, long training; the truth is that of `FourGaps`.

SEEN = [[1.2, 0.4, 0.0], [0.0, 1.0, 0.5], [0.5, -0.4, 1.1]]
UNSEEN = [[0.9, 0.0, 0.6], [0.0, -0.8, 0.7], [0.6, 0.6, 0.6]]
WORLD = FourGaps(SEEN, [0.7, 0.8, 0.7], UNSEEN, [0.9, 0.8, 0.9])
LOADINGS, NOISE = np.array(SEEN + UNSEEN), np.array([0.7, 0.8, 0.7, 0.9, 0.8, 0.9])
BLIND = np.array([1, 1, 1, 0, 0, 0])
COUNT = 200
SHORT, LONG = 60, 1500


def sample(count, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=[count, 3]) @ LOADINGS.T + NOISE * rng.normal(size=[count, 6])
    return x.astype(np.float32)


TRAIN, X = sample(20_000, 0), sample(COUNT, 1)[np.newaxis]


def model(num_replicas):
    """The world as a model to be held fixed, so many times."""
    one = VAE.from_factor_analysis(
        SimpleNamespace(loadings=LOADINGS, noise=NOISE, offset=np.zeros(6))
    )
    seeds = replica_seeds(range(num_replicas), "model")
    sizes = {"observation_size": 6, "latent_size": 3, "hidden": (), "emission": "normal"}
    many = VAE(**sizes, seeds=seeds)
    for ours, theirs in zip(many.trainable_variables, one.trainable_variables, strict=True):
        ours.assign(tf.repeat(theirs, num_replicas, axis=0))
    return many


def train(name, num_steps, hidden=(), visible=None):
    """Two trained posteriors from two seeds; a hidden layer is linear, as in `FourGaps`."""
    posterior = Posterior(
        families.make(name, 3),
        observation_size=6,
        hidden=hidden,
        activation="identity" if hidden else "elu",
        visible=visible,
        seeds=replica_seeds([0, 1], "posterior"),
    )
    settings = training.Settings(
        num_steps, 100, learning_rate=1e-2, steps_per_call=50, num_shards=1, jit_compile=False
    )
    loss = bounds.negative_elbo(model(2), posterior)
    history = training.fit(loss, posterior.trainable_variables, TRAIN, settings, seeds=[0, 1])
    assert not history.diverged.any()
    return posterior


def bound(family, own):
    """The ELBO of each datum on the true x, [replicas, data]. The draws are the same each time."""
    return bounds.evaluate_static(
        model(own.outputs.shape[0]),
        family,
        own,
        X,
        num_samples=500,
        seed=2,
        data_at_once=COUNT,
        draws_at_once=COUNT * 500,
    ).elbo


def search(posterior, x):
    """The best q of each x alone, from where the first posterior stands: its ELBO on the true x."""
    own = posterior.parameters(X)
    start = families.Parameters(own.outputs[:1], [], False)
    rule = local.Search(max_steps=300, num_samples=16, batch_size=COUNT)
    found = local.optimise(model(1), posterior.family, start, x, rule, seed=3)
    assert not found.diverged.any()
    return bound(posterior.family, found.parameters)[0]


def fill_in(x):
    """x with the expectation of the unseen pixels given the seen ones.

    ln p(x | z) is quadratic in the unseen pixels with a curvature that z does not change, so the
    q that is best for this x is the best that knows the seen pixels alone.
    """
    gain = WORLD.best_shared("full covariance").weights_seen
    return np.concatenate([x[..., :3], x[..., :3] @ gain.T @ np.array(UNSEEN).T], -1)


def log_evidence():
    covariance = LOADINGS @ LOADINGS.T + np.diag(NOISE**2)
    return stats.multivariate_normal(np.zeros(6), covariance).logpdf(X[0])


def measure(trained, long, *, blind=False):
    """`GapReport` of the first replica of `trained`; the second of `long` is q_best."""
    family = trained.family
    return gaps.decompose(
        evidence=log_evidence(),
        best_per_datum=search(trained, X),
        best_shared=search(trained, fill_in(X)) if blind else None,
        best_network=bound(family, long.parameters(X))[1],
        elbo=bound(family, trained.parameters(X))[0],
    )


@pytest.fixture(scope="module", autouse=True)
def linear_units():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.ACTIVATIONS, "identity", tf.identity)
        yield


@pytest.fixture(scope="module")
def healthy():
    """Nothing is planted: the family holds the posterior, an affine encoder sees all, trained."""
    return train("full covariance", LONG)


def check(report, **planted):
    """Parts against their population values, all others against zero.

    Within four standard errors and .015 nat, which is what the last steps of training and of the
    search leave undone.
    """
    assert abs(report.residual()) < 1e-12
    for name, part in report.parts.items():
        expected = planted.get(name, 0.0)
        assert part.value == pytest.approx(expected, abs=4 * part.standard_error + 0.015), name
        if expected:
            assert expected > 0.1 and part.standard_error < expected / 5


def closed_form(name, width=3, world=WORLD):
    return world.decompose(width, 0, family=name)


def test_nothing_planted_nothing_found(healthy):
    check(measure(healthy, healthy))


def test_a_family_that_is_too_small_is_found_as_approximation():
    posterior = train("factorised", LONG)
    expected = closed_form("factorised").approximation
    check(measure(posterior, posterior), approximation=expected)


def test_an_encoder_with_one_unit_is_found_as_capacity():
    posterior = train("full covariance", LONG, hidden=(1,))
    expected = WORLD.with_all_conditions().decompose(1, 0, family="full covariance").capacity
    check(measure(posterior, posterior), capacity=expected)


def test_an_encoder_stopped_early_is_found_as_optimisation(healthy):
    stopped = train("full covariance", SHORT)
    # Its gap in closed form: the divergence from the exact posterior, on the same data.
    expected = divergence(stopped)[0].mean() - divergence(healthy)[1].mean()
    report = measure(stopped, healthy)
    check(report, optimisation=expected)
    assert report.optimisation.value == pytest.approx(expected, abs=0.02)


def divergence(posterior):
    """KL(q || p(z | x)) of each datum, full covariance: [replicas, data], nats."""
    outputs = posterior.parameters(X).outputs
    best = WORLD.best_per_datum("full covariance")
    miss = outputs[..., :3] - X @ np.concatenate([best.weights_seen, best.weights_unseen], 1).T
    precision = WORLD.posterior_precision()
    cholesky = posterior.family._cholesky(outputs).numpy()
    covariance = cholesky @ np.swapaxes(cholesky, -1, -2)
    log_ratio = np.linalg.slogdet(precision)[1] + np.linalg.slogdet(covariance)[1]
    trace = np.trace(precision @ covariance, axis1=-2, axis2=-1)
    return 0.5 * (np.einsum("rni,ij,rnj->rn", miss, precision, miss) + trace - 3 - log_ratio)


def test_an_encoder_blind_to_half_of_the_input_is_found_as_conditioning():
    posterior = train("full covariance", LONG, visible=BLIND)
    expected = closed_form("full covariance").conditioning
    check(measure(posterior, posterior, blind=True), conditioning=expected)


def test_all_four_at_once_are_told_apart():
    options = {"hidden": (1,), "visible": BLIND}
    long = train("factorised", LONG, **options)
    stopped = train("factorised", SHORT, **options)
    report = measure(stopped, long, blind=True)
    expected = closed_form("factorised", width=1)
    for name in ("approximation", "conditioning", "capacity"):
        part = getattr(report, name)
        assert part.value == pytest.approx(
            getattr(expected, name), abs=4 * part.standard_error + 0.015
        )
        assert getattr(expected, name) > 0.1
    assert report.optimisation.value > 0.1 + 4 * report.optimisation.standard_error
    assert abs(report.residual()) < 1e-12
