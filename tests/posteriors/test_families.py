"""Families of posteriors: draws and densities against Jacobians, quadrature and each other."""

import numpy as np
import pytest
from scipy import stats

from tfp_gaps._tensorflow import tf
from tfp_gaps.networks import replica_seeds
from tfp_gaps.posteriors import families

SMALL = {"num_steps": 2, "num_hidden": 7, "context_size": 3}
FLOWS = families.NAMES[2:]
WITH_LOG_PROB = (*families.NAMES[:4], "inverse autoregressive flow")


def make(name, latent_size=2):
    return families.make(name, latent_size, **SMALL)


def parameters(family, *, replicas=1, count=3, seed=0, moved=True):
    """Parameters away from the start: the last layers of flows, zero there, are drawn.

    Not far away: a steep spline has densities that no grid of ours resolves.
    """
    rng = np.random.default_rng(seed)
    seeds = replica_seeds([seed + r for r in range(replicas)], "family")
    weights = [weight.numpy() for weight in family.make_weights(seeds)]
    if moved:
        weights = [w + 0.15 * rng.normal(size=w.shape) for w in weights]
    outputs = 0.4 * rng.normal(size=[replicas, count, family.num_outputs])
    return families.Parameters(
        tf.constant(outputs, tf.float32), [tf.constant(w, tf.float32) for w in weights], False
    )


def noise(family, *, samples=5, replicas=1, count=3, seed=0):
    shape = [samples, replicas, count, family.num_noise]
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)


def grid(low, high, num):
    """Points of a plane [num^2, 2] and the area of each."""
    line = np.linspace(low, high, num)
    points = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    return points.astype(np.float32), (line[1] - line[0]) ** 2


def at(points, count):
    """The same points for every datum, [points, 1, count, 2]."""
    return tf.constant(np.tile(points[:, None, None], [1, 1, count, 1]))


# --- densities ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_LOG_PROB)
def test_densities_integrate_to_one_and_are_those_of_the_draws(name):
    family = make(name)
    own = parameters(family)
    # The density over a grid of z, beyond which nothing is left. Sums converge exponentially but
    # for the spline, whose density has kinks at its knots: there as the square of the step, .07.
    z, area = grid(-10, 10, 287)
    density = np.exp(family.log_prob(own.outputs, own.weights, at(z, 3)).numpy()[:, 0]) * area
    np.testing.assert_allclose(density.sum(0), 1.0, atol=1e-3 if "spline" in name else 1e-5)
    # Its moments against those of the draws, weighted over a grid of noise.
    e, area = grid(-7, 7, 141)
    drawn = families.draw(family, own, at(e, 3)).latents.numpy()[:, 0]
    mass = stats.norm.pdf(e).prod(-1) * area
    for moment in (lambda v: v, lambda v: v**2, lambda v: v[..., :1] * v[..., 1:], np.sin):
        from_draws = np.einsum("n,nbk->bk", mass, moment(drawn))
        from_density = np.einsum("nb,nk->bk", density, moment(z))
        np.testing.assert_allclose(from_density, from_draws, atol=2e-3)


def log_determinant(function, e):
    """ln |det d function / d e| datum by datum, by automatic differentiation; e is [n, size]."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(e)
        moved = function(e)
        rows = tf.unstack(moved, axis=1)
    jacobian = np.stack([tape.gradient(row, e) for row in rows], 1)
    return moved.numpy(), np.linalg.slogdet(jacobian.astype(np.float64))[1]


@pytest.mark.parametrize("name", [*WITH_LOG_PROB, "planar flow"])
@pytest.mark.parametrize("size", [2, 3])
def test_density_of_a_draw_is_the_change_of_variables(name, size):
    family = make(name, size)
    own = parameters(family, count=1)
    e = noise(family, samples=50, count=1)

    def move(flat):
        return families.draw(family, own, flat[:, None, None]).latents[:, 0, 0]

    _, determinant = log_determinant(move, e[:, 0, 0])
    expected = stats.norm.logpdf(e[:, 0, 0]).sum(-1) - determinant
    drawn = families.draw(family, own, e)
    # Float32 through four layers.
    np.testing.assert_allclose(drawn.log_density[:, 0, 0], expected, atol=2e-4)
    if name in WITH_LOG_PROB:
        again = family.log_prob(own.outputs, own.weights, drawn.latents)
        np.testing.assert_allclose(again, drawn.log_density, atol=5e-4)


def test_auxiliary_density_is_the_change_of_variables_less_the_reverse_model():
    family = make("auxiliary flow", 1)
    own = parameters(family, count=1)
    e = noise(family, samples=50, count=1)
    mean, log_scale, context = own.outputs[0, :, :1], own.outputs[0, :, 1:2], own.outputs[:, :, 2:]
    layers, reverse = own.weights[:-5], [weight.numpy()[0] for weight in own.weights[-5:]]

    def move(flat):
        start = tf.concat([mean + tf.exp(log_scale) * flat[:, :1], flat[:, 1:]], -1)
        return family._layers.forward(start[:, None, None], context, layers)[0][:, 0, 0]

    moved, determinant = log_determinant(move, e[:, 0, 0])
    z, v = moved[:, :1], moved[:, 1:]
    # The reverse model in NumPy: one hidden layer of tanh units over z and the context.
    hidden = np.tanh(z @ reverse[0] + context.numpy()[0] @ reverse[1] + reverse[2])
    reverse_mean, reverse_log_scale = np.split(hidden @ reverse[3] + reverse[4], 2, -1)
    log_reverse = stats.norm.logpdf(v, reverse_mean, np.exp(reverse_log_scale)).sum(-1)
    joint = stats.norm.logpdf(e[:, 0, 0]).sum(-1) - determinant
    drawn = families.draw(family, own, e)
    np.testing.assert_allclose(drawn.latents[:, 0, 0], z, atol=1e-6)
    np.testing.assert_allclose(drawn.log_density[:, 0, 0], joint - log_reverse, atol=2e-4)


@pytest.mark.parametrize(
    ("name", "size"), [*((n, 2) for n in (*WITH_LOG_PROB, FLOWS[4])), (FLOWS[2], 1)]
)
def test_draws_weigh_any_density_to_one(name, size):
    # E[p(z) / q(z)] = 1 for every density p, and with the auxiliary flow's stand-in
    # E[p(z) r(v | z) / q(z, v)] = 1: this makes IWAE a bound. The plane is that of the noise.
    family = make(name, size)
    own = parameters(family)
    e, area = grid(-7, 7, 201)
    drawn = families.draw(family, own, at(e, 3))
    # p is narrower than q, so that the weights are bounded.
    log_p = stats.norm.logpdf(drawn.latents, 0.1, 0.5).sum(-1)
    ratio = np.exp(log_p - drawn.log_density.numpy())[:, 0]
    mass = stats.norm.pdf(e).prod(-1) * area
    np.testing.assert_allclose(mass @ ratio, 1.0, atol=2e-3)


def test_an_autoregressive_layer_shows_a_dimension_those_before_it_alone():
    family = make("inverse autoregressive flow", 4)
    own = parameters(family, count=1)
    layer = family._layers(own.outputs, own.weights)[0]
    e = tf.constant(np.random.default_rng(0).normal(size=[1, 1, 1, 4]), tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(e)
        rows = tf.unstack(layer.forward(e), axis=-1)
    jacobian = np.stack([np.ravel(tape.gradient(row, e)) for row in rows])
    assert (np.triu(jacobian, 1) == 0).all() and (np.abs(jacobian[np.tril_indices(4)]) > 1e-4).all()


def test_an_autoregressive_layer_of_two_dimensions_is_affine_coupling():
    # Both with tanh units over the first dimension; the coupling layer leaves that one alone.
    family, coupling = make("inverse autoregressive flow"), make("affine flow")
    own = parameters(family, count=1)
    inputs, context, bias, kernel, last = own.weights[:5]
    kernel, last = kernel[..., 1::2], last[..., 1::2]
    layer = family._layers(own.outputs, own.weights)[0]
    weights = [inputs[:, :1], context, bias, kernel, last]
    e = noise(family, count=1)
    values = own.outputs[..., 4:]
    fixed = coupling._layers._bijector(0, e[..., :1], values, weights).forward(e)[..., 1]
    shift, raw = (tf.squeeze(part) for part in tf.split(_network(e, values, weights), 2, -1))
    # One adds the shift after it has scaled, the other subtracts it before.
    scale = 2 * tf.sigmoid(raw)
    moved = layer.forward(e)[..., 1]
    np.testing.assert_allclose(
        tf.squeeze(moved) / scale + shift, (tf.squeeze(fixed) - shift) / scale, atol=1e-5
    )


def _network(e, context, weights):
    inputs, from_context, bias, kernel, last = weights
    hidden = tf.tanh(e[..., :1] @ inputs + context @ from_context + bias)
    return hidden @ kernel + last


def test_planar_maps_are_those_of_the_paper_and_invertible():
    family = families.make("planar flow", 3, num_steps=1)
    rng = np.random.default_rng(0)
    outputs, shared = rng.normal(size=[1, 1, family.num_outputs]), rng.normal(size=[1, 3, 2])
    outputs[..., 9:12] = -20.0 * (shared[0, :, 0] + outputs[0, 0, 6:9])  # u against w
    own = families.Parameters(
        tf.constant(outputs, tf.float32), [tf.constant(shared, tf.float32)], False
    )
    e = noise(family, count=1)
    values = e.numpy()[:, 0, 0].astype(float)
    for first, direction in ((6, shared[0, :, 0]), (13, shared[0, :, 1])):
        w = outputs[0, 0, first : first + 3] + direction
        u, b = outputs[0, 0, first + 3 : first + 6], outputs[0, 0, first + 6]
        # m(x) = ln(1 + exp x) - 1, in the paper; moved so that m(0) = 0.
        m = np.log1p(np.exp(w @ u + np.log(np.e - 1))) - 1
        u = u + (m - w @ u) * w / (w @ w)
        assert w @ u > -1 - 1e-9
        values = values + np.tanh(values @ w + b)[:, None] * u
    expected = outputs[0, 0, :3] + np.exp(outputs[0, 0, 3:6]) * values
    drawn = families.draw(family, own, e)
    np.testing.assert_allclose(drawn.latents[:, 0, 0], expected, rtol=1e-4, atol=1e-4)


# --- start ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", families.NAMES[1:])
@pytest.mark.parametrize("size", [2, 3])
def test_every_family_starts_at_the_factorised_gaussian(name, size):
    rng = np.random.default_rng(1)
    mean, log_scale = (tf.constant(rng.normal(size=[2, 3, size]), tf.float32) for _ in range(2))
    seeds = replica_seeds([0, 1], "start")
    family, plain = make(name, size), make("factorised", size)
    own = families.gaussian_start(family, mean, log_scale, seeds)
    assert own.outputs.shape == [2, 3, family.num_outputs]
    e = noise(family, replicas=2)
    found = families.draw(family, own, e)
    expected = families.draw(
        plain, families.gaussian_start(plain, mean, log_scale, seeds), e[..., :size]
    )
    # The identity of a spline is rounded in float32; the auxiliary v and its reverse are both
    # standard normal and leave ln q(z) alone.
    np.testing.assert_allclose(found.latents, expected.latents, atol=2e-5)
    np.testing.assert_allclose(found.log_density, expected.log_density, atol=2e-5)


@pytest.mark.parametrize("name", FLOWS)
def test_context_and_weights_move_a_flow_and_have_gradients(name):
    family = make(name)
    own = parameters(family)
    e = noise(family)
    with tf.GradientTape() as tape:
        tape.watch([own.outputs, *own.weights])
        drawn = families.draw(family, own, e)
        total = tf.reduce_sum(drawn.latents**2) + tf.reduce_sum(drawn.log_density)
    found = tape.gradient(total, [own.outputs, *own.weights])
    for gradient in found:
        assert np.abs(gradient.numpy()).max() > 1e-6
    context = found[0].numpy()[..., 2 * family.latent_size :]
    assert (np.abs(context).max(axis=(0, 1)) > 1e-6).all()


def test_a_spline_leaves_what_is_far_out_alone():
    family = make("spline flow")
    own = parameters(family, count=1)._replace(outputs=tf.zeros([1, 1, family.num_outputs]))
    far = tf.constant([[7.0, -9.0], [-6.5, 30.0]])[:, None, None]
    np.testing.assert_allclose(families.draw(family, own, far).latents, far, rtol=1e-6)


# --- rows and data --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", families.NAMES)
@pytest.mark.parametrize("count", [3, 6])
def test_a_copy_of_the_weights_per_datum_gives_the_same_draws(name, count):
    # Twice 3 and twice 6 rows: products are written out for the former, batched for the latter.
    family = make(name)
    shared = parameters(family, replicas=2, count=count)
    own = shared.own()
    assert own.per_datum and own.own() is own
    assert all(weight.shape[:2] == [2, count] for weight in own.weights)
    e = noise(family, replicas=2, count=count)
    expected, found = families.draw(family, shared, e), families.draw(family, own, e)
    np.testing.assert_allclose(found.latents, expected.latents, atol=1e-5)
    np.testing.assert_allclose(found.log_density, expected.log_density, atol=1e-5)


@pytest.mark.parametrize("name", families.NAMES)
@pytest.mark.parametrize("per_datum", [False, True])
def test_selected_parameters_are_those_of_the_selected_data(name, per_datum):
    family = make(name)
    whole = parameters(family, replicas=2, count=5)
    if per_datum:  # copies, which are then made to differ
        factors = tf.reshape(tf.linspace(0.5, 1.5, 5), [1, 5, 1, 1])
        whole = whole.own()
        whole = whole._replace(weights=[weight * factors for weight in whole.weights])
    e = noise(family, replicas=2, count=5)
    part = families.draw(family, whole.select(1, 4), e[:, :, 1:4])
    expected = families.draw(family, whole, e)
    np.testing.assert_allclose(part.latents, expected.latents[:, :, 1:4], atol=1e-5)
    np.testing.assert_allclose(part.log_density, expected.log_density[:, :, 1:4], atol=1e-5)


@pytest.mark.parametrize("name", families.NAMES)
def test_replicas_are_independent(name):
    family = make(name, 3)
    both = parameters(family, replicas=2)
    e = noise(family, replicas=2)
    drawn = families.draw(family, both, e)
    for r in (0, 1):
        alone = families.Parameters(
            both.outputs[r : r + 1], [weight[r : r + 1] for weight in both.weights], False
        )
        found = families.draw(family, alone, e[:, r : r + 1])
        np.testing.assert_allclose(found.latents[:, 0], drawn.latents[:, r], atol=1e-5)
        np.testing.assert_allclose(
            found.log_density[:, 0], drawn.log_density[:, r], rtol=1e-5, atol=1e-5
        )
    # And a replica's weights are made from its own seed.
    if name in FLOWS:
        made = family.make_weights(replica_seeds([4, 5], "family"))
        alone = family.make_weights(replica_seeds([5], "family"))
        for weight, expected in zip(made, alone, strict=True):
            np.testing.assert_array_equal(weight[1], expected[0])
        assert np.abs(made[0][0] - made[0][1]).max() > 1e-3


def test_full_covariance_holds_every_covariance():
    # L by hand: its diagonal in logarithms, then what lies below, so that z has covariance L L'.
    family = make("full covariance", 3)
    own = parameters(family, count=1)
    z = families.draw(family, own, noise(family, samples=200_000, count=1)).latents[:, 0, 0]
    cholesky = family._cholesky(own.outputs)[0, 0].numpy()
    assert np.allclose(cholesky, np.tril(cholesky)) and np.count_nonzero(cholesky) == 6
    np.testing.assert_allclose(np.diag(cholesky), np.exp(own.outputs[0, 0, 3:6]), rtol=1e-6)
    covariance = cholesky @ cholesky.T
    # The error of a covariance over n draws is sqrt((C_ii C_jj + C_ij^2) / n).
    error = np.sqrt((np.outer(*[np.diag(covariance)] * 2) + covariance**2) / 200_000)
    assert (np.abs(np.cov(z.numpy().T) - covariance) < 4 * error).all()
    free = own._replace(outputs=tf.concat([own.outputs[..., :6], tf.ones([1, 1, 3])], -1))
    assert np.count_nonzero(family._cholesky(free.outputs)[0, 0].numpy() == 1.0) == 3


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", families.NAMES)
def test_outputs_for_another_size_are_refused(name):
    family, other = make(name, 2), make(name, 3)
    with pytest.raises(ValueError, match=f"needs {family.num_outputs} outputs per datum, but"):
        families.draw(family, parameters(other), noise(family))


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("affine flow", 1, "needs latent_size of at least 2"),
        ("spline flow", 1, "needs latent_size of at least 2"),
        ("inverse autoregressive flow", 1, "needs latent_size of at least 2"),
        ("mean field", 2, "Unknown family 'mean field'. Known: factorised, full covariance"),
        ("factorised", 0, "latent_size must be an integer and >= 1"),
    ],
)
def test_bad_families_are_refused(name, size, message):
    with pytest.raises(ValueError, match=message):
        make(name, size)


@pytest.mark.parametrize("name", ["affine flow", *FLOWS[3:]])
def test_a_flow_without_layers_is_refused(name):
    with pytest.raises(ValueError, match="num_steps must be an integer and >= 1"):
        families.make(name, 2, num_steps=0)


@pytest.mark.parametrize("name", ["factorised", "full covariance", "auxiliary flow", "planar flow"])
def test_one_dimension_is_enough_for_these(name):
    family = make(name, 1)
    drawn = families.draw(family, parameters(family), noise(family))
    assert drawn.latents.shape == [5, 1, 3, 1] and drawn.log_density.shape == [5, 1, 3]
