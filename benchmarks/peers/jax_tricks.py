"""The JAX step of `jax_step`, given what this package does to make its own step fast.

* Both directions of the recurrent unit run in one loop, stacked along an axis.
* Only what depends on the state is in the loop; inputs are projected for all time steps at once.
* Both recurrences (observations, latent states) have their own gradient: the loop backwards through
  time forms the gradients of the pre-activations alone, and the weights' gradients follow in one
  product over time and batch together. Plain autodiff adds to them in every step.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.peers.jax_step import MINIMUM_SCALE, dense, positive


def gru_states(inputs, kernel, bias):
    """Run gated recurrent units over time; also return what the gradient needs.

    Args: inputs [time, 2, batch, 3h], kernel [2, h, 3h], bias [2, 1, 3h].
    """

    def cell(previous, x):
        reset_x, update_x, candidate_x = jnp.split(x, 3, -1)
        reset_h, update_h, projected = jnp.split(previous @ kernel + bias, 3, -1)
        # Not one sigmoid over both gates: the compiler then fuses worse.
        reset, update = jax.nn.sigmoid(reset_x + reset_h), jax.nn.sigmoid(update_x + update_h)
        candidate = jnp.tanh(candidate_x + reset * projected)
        state = update * previous + (1.0 - update) * candidate
        return state, (state, (previous, reset, update, candidate, projected))

    blank = jnp.zeros([2, inputs.shape[2], kernel.shape[1]])
    return lax.scan(cell, blank, inputs)[1]


@jax.custom_vjp
def gru(inputs, kernel, bias):
    return gru_states(inputs, kernel, bias)[0]


def gru_forward(inputs, kernel, bias):
    states, saved = gru_states(inputs, kernel, bias)
    return states, (saved, kernel)


def gru_backward(residuals, upstream):
    saved, kernel = residuals

    def chain(d_state, inputs):
        outer, (previous, reset, update, candidate, projected) = inputs
        d_state = d_state + outer
        d_candidate = d_state * (1.0 - update) * (1.0 - candidate**2)
        d_update = d_state * (previous - candidate) * update * (1.0 - update)
        d_reset = d_candidate * projected * reset * (1.0 - reset)
        d_hidden = jnp.concatenate([d_reset, d_update, d_candidate * reset], -1)
        d_previous = d_state * update + d_hidden @ kernel.swapaxes(1, 2)
        return d_previous, (d_hidden, jnp.concatenate([d_reset, d_update, d_candidate], -1))

    blank = jnp.zeros_like(upstream[0])
    _, (d_hidden, d_inputs) = lax.scan(chain, blank, (upstream, saved), reverse=True)
    d_kernel = jnp.einsum("trbi,trbo->rio", saved[0], d_hidden)
    return d_inputs, d_kernel, d_hidden.sum([0, 2])[:, jnp.newaxis]


gru.defvjp(gru_forward, gru_backward)


def read(params, observations):
    """The last forward state beside all backward states, [time, batch, 2h]."""
    forward, backward = params["forward"], params["backward"]
    projected = [
        dense(forward["read"], observations),
        dense(backward["read"], observations)[::-1],
    ]
    kernel, bias = (
        jnp.stack([layers["recurrent"][name] for layers in (forward, backward)])
        for name in ("kernel", "bias")
    )
    states = gru(jnp.stack(projected, 1), kernel, bias[:, jnp.newaxis])
    last = jnp.broadcast_to(states[-1, 0], states[:, 0].shape)
    return jnp.concatenate([last, states[::-1, 1]], -1)


def draw(outputs, latent, noise):
    """Draw z_t from the outputs of the transition's and the posterior's network."""
    gate, proposal, _, correction, raw = jnp.split(outputs, 5, -1)
    gate, scale = jax.nn.sigmoid(gate), positive(raw, MINIMUM_SCALE)
    return (1.0 - gate) * latent + gate * proposal + correction + scale * noise


def path_states(first, context, noise, inner, outer, outer_bias):
    """Run the latent recurrence; return latents, hidden layers and outputs, [time, batch, ...].

    `inner` maps z_{t-1} to the hidden layers of both networks, side by side, `outer` (two kernels)
    the hidden layers to (gate, proposal, raw scale) and (correction, raw scale).
    """
    width = inner.shape[1] // 2

    def advance(latent, inputs):
        context_now, noise_now = inputs
        hidden = jax.nn.relu(latent @ inner + context_now)
        outputs = [hidden[:, :width] @ outer[0], hidden[:, width:] @ outer[1]]
        outputs = jnp.concatenate(outputs, -1) + outer_bias
        new = draw(outputs, latent, noise_now)
        return new, (new, hidden, outputs)

    return lax.scan(advance, first, (context, noise))[1]


@jax.custom_vjp
def path(first, context, noise, inner, outer, outer_bias):
    latents, _, outputs = path_states(first, context, noise, inner, outer, outer_bias)
    return latents, outputs


def path_forward(first, context, noise, inner, outer, outer_bias):
    latents, hidden, outputs = path_states(first, context, noise, inner, outer, outer_bias)
    previous = jnp.concatenate([first[jnp.newaxis], latents[:-1]])
    return (latents, outputs), (previous, hidden, outputs, noise, inner, outer)


def path_backward(residuals, upstream):
    previous, hidden, outputs, noise, inner, outer = residuals
    width = inner.shape[1] // 2
    split = outer[0].shape[1]

    def chain(d_latent, inputs):
        (outer_latent, outer_outputs), hidden, outputs, latent, noise_now = inputs
        _, pull_back = jax.vjp(lambda o, z: draw(o, z, noise_now), outputs, latent)
        d_outputs, d_previous = pull_back(d_latent + outer_latent)
        d_outputs = d_outputs + outer_outputs
        d_hidden = [d_outputs[:, :split] @ outer[0].T, d_outputs[:, split:] @ outer[1].T]
        d_hidden = jnp.where(hidden > 0, jnp.concatenate(d_hidden, -1), 0.0)
        return d_previous + d_hidden @ inner.T, (d_hidden, d_outputs)

    d_first, (d_hidden, d_outputs) = lax.scan(
        chain,
        jnp.zeros_like(previous[0]),
        (upstream, hidden, outputs, previous, noise),
        reverse=True,
    )
    d_inner = jnp.einsum("tbi,tbo->io", previous, d_hidden)
    d_outer = (
        jnp.einsum("tbi,tbo->io", hidden[..., :width], d_outputs[..., :split]),
        jnp.einsum("tbi,tbo->io", hidden[..., width:], d_outputs[..., split:]),
    )
    return d_first, d_hidden, jnp.zeros_like(noise), d_inner, d_outer, d_outputs.sum([0, 1])


path.defvjp(path_forward, path_backward)


def sample_path(params, observations, noise):
    """As `jax_step.sample_path`."""
    context = dense(params["join"], read(params, observations))
    initial_scale = positive(params["initial_raw"], MINIMUM_SCALE)
    correction, raw = jnp.split(dense(params["output"], jax.nn.relu(context[0])), 2, -1)
    scale = positive(raw, MINIMUM_SCALE)
    first = params["initial_mean"] + correction + scale * noise[0]
    hidden, output, posterior = (
        params["transition"]["hidden"],
        params["transition"]["output"],
        params["output"],
    )
    bias = jnp.broadcast_to(hidden["bias"], context[1:].shape)
    latents, outputs = path(
        first,
        jnp.concatenate([bias, context[1:]], -1),
        noise[1:],
        jnp.concatenate([hidden["kernel"], params["latent"]["kernel"]], 1),
        (output["kernel"], posterior["kernel"]),
        jnp.concatenate([output["bias"], posterior["bias"]]),
    )
    _, _, prior_raw, later_correction, later_raw = jnp.split(outputs, 5, -1)
    prior_scale = positive(prior_raw, MINIMUM_SCALE)
    join = functools.partial(lambda a, b: jnp.concatenate([a[jnp.newaxis], b]))
    return join(first, latents), (
        join(correction / initial_scale, later_correction / prior_scale),
        join(scale / initial_scale, positive(later_raw, MINIMUM_SCALE) / prior_scale),
    )
