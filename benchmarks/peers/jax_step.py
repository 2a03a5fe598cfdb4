"""A training step of the state-space model in JAX, as its users would write it.

`lax.scan` runs the recurrences, `jax.grad` differentiates them, `jax.vmap` adds an axis for seeds.
`TRICKS` holds the same functions with what this package does to make its own step fast.
"""

import functools
import math

import jax
import jax.numpy as jnp
import optax
from jax import lax

MINIMUM_SCALE = 0.02


def positive(raw, minimum):
    return jax.nn.softplus(raw - 1.0) + minimum


def dense(layer, inputs):
    outputs = inputs @ layer["kernel"]
    return outputs + layer["bias"] if "bias" in layer else outputs


def mlp(layers, inputs):
    return dense(layers["output"], jax.nn.relu(dense(layers["hidden"], inputs)))


def gru(layers, inputs, *, reverse):
    """Run a gated recurrent unit over [time, batch, channels]; return its states."""

    def cell(previous, x):
        projected_x, projected_h = dense(layers["read"], x), dense(layers["recurrent"], previous)
        (r_x, u_x, n_x), (r_h, u_h, n_h) = (
            jnp.split(projected_x, 3, -1),
            jnp.split(projected_h, 3, -1),
        )
        reset, update = jax.nn.sigmoid(r_x + r_h), jax.nn.sigmoid(u_x + u_h)
        state = update * previous + (1.0 - update) * jnp.tanh(n_x + reset * n_h)
        return state, state

    width = layers["recurrent"]["kernel"].shape[0]
    return lax.scan(cell, jnp.zeros([inputs.shape[1], width]), inputs, reverse=reverse)[1]


def transition(outputs, latent):
    """Mean and scale of p(z_t | z_{t-1}) from the outputs of its network."""
    gate, proposal, raw = jnp.split(outputs, 3, -1)
    gate = jax.nn.sigmoid(gate)
    return (1.0 - gate) * latent + gate * proposal, positive(raw, MINIMUM_SCALE)


def posterior(outputs, prior_mean, prior_scale, noise):
    """Draw z_t from q; also its offset from the prior and its width, in units of the prior's."""
    correction, raw = jnp.split(outputs, 2, -1)
    scale = positive(raw, MINIMUM_SCALE)
    return prior_mean + correction + scale * noise, (correction / prior_scale, scale / prior_scale)


def sample_path(params, observations, noise):
    """Draw z_{1:T}; return the latents and the posterior's offsets and widths, all [time, batch,
    z]."""
    forward = gru(params["forward"], observations, reverse=False)
    backward = gru(params["backward"], observations, reverse=True)
    # Under full conditions every step sees all observations: the last state has read them.
    states = [jnp.broadcast_to(forward[-1], forward.shape), backward]
    context = dense(params["join"], jnp.concatenate(states, -1))
    initial_scale = positive(params["initial_raw"], MINIMUM_SCALE)
    first, first_cost = posterior(
        dense(params["output"], jax.nn.relu(context[0])),
        params["initial_mean"],
        initial_scale,
        noise[0],
    )

    def advance(latent, inputs):
        context_now, noise_now = inputs
        prior = transition(mlp(params["transition"], latent), latent)
        hidden = jax.nn.relu(context_now + dense(params["latent"], latent))
        latent, cost = posterior(dense(params["output"], hidden), *prior, noise_now)
        return latent, (latent, cost)

    _, later = lax.scan(advance, first, (context[1:], noise[1:]))
    join = functools.partial(jax.tree.map, lambda a, b: jnp.concatenate([a[jnp.newaxis], b]))
    return join((first, first_cost), later)


def log_likelihood(params, latents, observations, emission):
    outputs = mlp(params["emission"], latents)
    if emission == "bernoulli":
        return -optax.sigmoid_binary_cross_entropy(outputs, observations).sum()
    scale = positive(params["noise_raw"], 0.05)
    standardised = (observations - outputs) / scale
    return -(0.5 * (standardised**2 + math.log(2 * math.pi)) + jnp.log(scale)).sum()


def negative_elbo(params, observations, noise, *, emission, sample_path=sample_path):
    """The loss in nats per sequence, for observations [time, batch, x] and noise [time, batch,
    z]."""
    latents, (offset, ratio) = sample_path(params, observations, noise)
    divergence = (0.5 * (ratio**2 + offset**2 - 1.0) - jnp.log(ratio)).sum()
    evidence = log_likelihood(params, latents, observations, emission)
    return (divergence - evidence) / observations.shape[1]


def build_update(loss, optimizer):
    """Build (params, state, observations, noise) -> (params, state, loss) for one seed."""

    def update(params, state, observations, noise):
        value, gradients = jax.value_and_grad(loss)(params, observations, noise)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), state, value

    return update


def build_step(loss, optimizer, data, noise_shape):
    """Build the compiled step of all seeds: it gathers the batches, draws noise and updates."""
    update = jax.vmap(build_update(loss, optimizer))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, indices, key):
        observations = data[indices].swapaxes(1, 2).astype(jnp.float32)
        noise = jax.random.normal(key, noise_shape)
        return update(params, state, observations, noise)

    return step
