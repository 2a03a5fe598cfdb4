"""A variational auto-encoder as tutorials train it, in Keras: what does its encoder lack?"""

import random

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras as tfk

from tfp_gaps import Effort, Model, measure

tfd, EFFORT = tfp.distributions, Effort(num_chains=0)


def main(steps=1000, effort=EFFORT):
    rows, columns, noise = np.split(np.random.default_rng(0).random([600, 8, 6]), [1, 2], axis=1)
    images = ((rows.swapaxes(1, 2) < 0.2) | (columns < 0.2)) ^ (noise < 0.05)  # noisy bars
    train, test = np.split(images.reshape(600, 36).astype(np.float32), [550])
    random.seed(1)  # from which Keras draws the seeds of its layers
    encoder = tfk.Sequential([tfk.layers.Dense(64, "relu", input_shape=[36]), tfk.layers.Dense(8)])
    decoder = tfk.Sequential([tfk.layers.Dense(64, "relu", input_shape=[4]), tfk.layers.Dense(36)])

    def q(x):
        mean, raw = tf.split(encoder(x), 2, -1)
        return tfd.MultivariateNormalDiag(mean, tf.nn.softplus(raw) + 1e-3)

    # Keras takes one axis over data: draws and data share it.
    decode = lambda z: tf.reshape(decoder(tf.reshape(z, [-1, 4])), [*z.shape[:-1], 36])  # noqa: E731
    pixels = lambda z: tfd.Independent(tfd.Bernoulli(logits=decode(z)), 1)  # noqa: E731
    joint = tfd.JointDistributionNamed({"z": tfd.Sample(tfd.Normal(0.0, 1.0), 4), "x": pixels})
    log_joint = lambda z: joint.log_prob(z=z, x=train)  # noqa: E731
    negative_elbo = tfp.vi.monte_carlo_variational_loss
    loss = lambda: tf.reduce_mean(negative_elbo(log_joint, q(train), seed=1))  # noqa: E731
    tfp.math.minimize(loss, steps, tfk.optimizers.Adam(3e-3), return_full_length_trace=False)
    print(measure(Model(joint, "x", example=test[0]), q, test, seed=0, effort=effort).report)


if __name__ == "__main__":
    main()
