"""The JAX step behind the interface that all workers share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.peers import jax_step, jax_tricks
from benchmarks.sizes import CLIP_NORM, LEARNING_RATE, observations

VARIANTS = {"plain": jax_step.sample_path, "tricks": jax_tricks.sample_path}


def nested(arrays):
    """Turn names with slashes into nested dicts."""
    params = {}
    for name, array in arrays.items():
        *path, leaf = name.split("/")
        functools.reduce(lambda d, key: d.setdefault(key, {}), path, params)[leaf] = array
    return jax.tree.map(jnp.asarray, params)


class Trainer:
    """All seeds in one compiled step."""

    def __init__(self, size, variant, initial):
        self.size = size
        self.initial = nested(initial)
        self.loss = functools.partial(
            jax_step.negative_elbo, emission=size.emission, sample_path=VARIANTS[variant]
        )
        self.optimizer = optax.chain(
            optax.clip_by_global_norm(CLIP_NORM), optax.adam(LEARNING_RATE, eps=1e-7)
        )
        shape = [size.num_seeds, size.num_timesteps, size.batch_size, size.latent_size]
        self.data = jnp.asarray(observations(size))
        self.step = jax_step.build_step(self.loss, self.optimizer, self.data, shape)
        self.params = jax.tree.map(jnp.copy, self.initial)
        self.state = jax.vmap(self.optimizer.init)(self.params)
        self.key = jax.random.key(0)

    def train(self, indices):
        """Take one step for each row of `indices` and wait; return the last losses, [seeds]."""
        self.key, key = jax.random.split(self.key)
        for step_indices, step_key in zip(indices, jax.random.split(key, len(indices))):
            self.params, self.state, losses = self.step(
                self.params, self.state, step_indices, step_key
            )
        return np.asarray(losses)

    def losses_with(self, indices, noise):
        """Return the losses before and after one step with given noise, [2, seeds]."""
        update = jax.jit(jax.vmap(jax_step.build_update(self.loss, self.optimizer)))
        batch = self.data[indices].swapaxes(1, 2).astype(jnp.float32)
        params, state = self.initial, jax.vmap(self.optimizer.init)(self.initial)
        values = []
        for _ in range(2):
            params, state, losses = update(params, state, batch, noise)
            values.append(np.asarray(losses))
        return np.stack(values)


def build_matmul(width):
    """Return a function that multiplies two square float32 matrices and waits."""
    a = jax.random.normal(jax.random.key(0), [width, width])
    product = jax.jit(lambda a: (a @ a).sum())
    return lambda: product(a).block_until_ready()
