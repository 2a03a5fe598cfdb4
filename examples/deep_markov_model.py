"""A deep Markov model whose network sees the past, one step ahead, or the whole sequence."""

import numpy as np
import tensorflow as tf

from tfp_gaps import LookAhead, LookAheadNetwork, Settings, StateSpace, elbo, fit, particle_filter
from tfp_gaps.bounds import elbo_terms
from tfp_gaps.networks import replica_normal, replica_seeds
from tfp_gaps.posteriors.conditions import FULL
from tfp_gaps.sequences import Batch
from tfp_gaps.tables import Table


def main(steps=1500, particles=500):
    rng = np.random.default_rng(0)
    phase = rng.uniform(0, 6.28, 300) + 0.5 * np.arange(20)[:, None]  # noisy sines, 20 steps
    x = (np.sin(phase) + 0.3 * rng.normal(size=phase.shape))[..., None].astype(np.float32)
    sizes = {"observation_size": 1, "latent_size": 3, "hidden_size": 16}
    rows = []
    for seen in (LookAhead(0), LookAhead(1), FULL):
        model = StateSpace(**sizes, emission="normal", seeds=replica_seeds([0], "model"))
        q = LookAheadNetwork(conditions=seen, **sizes, seeds=replica_seeds([0], "q"))

        def loss(batch, seeds, kl_weight, model=model, q=q):
            noise = replica_normal([20, batch.observations.shape[2], 3], seeds, axis=1)
            fits, divergence = elbo_terms(model, q, batch, noise)
            return tf.reduce_mean(tf.reduce_sum(kl_weight * divergence - fits, 0), -1)

        variables = [*model.trainable_variables, *q.trainable_variables]
        fit(loss, variables, Batch(x[:, :200]), Settings(steps, 50), seeds=[0], axis=1)
        bound = elbo(model, q, x[:, 200:], seed=1, repetitions=10).bound.estimate()
        found = particle_filter(model, x[:, 200:], num_particles=particles, seed=2)
        evidence = found.log_increments.sum(0).mean()
        rows.append([q.conditions.label, bound, f"{evidence:.2f}", f"{evidence - bound.value:.2f}"])
    print(Table(["q sees", "ELBO, nats per sequence", "ln p(x), particle filter", "gap"], rows))


if __name__ == "__main__":
    main()
