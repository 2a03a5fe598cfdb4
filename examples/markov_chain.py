"""A Markov chain seen through noise: what does a q lose that is independent over time?"""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_gaps import Effort, Model, measure

tfd = tfp.distributions
EFFORT = Effort(num_chains=0)
STEPS, DECAY, INNOVATION, NOISE = 10, 0.9, 0.5, 1.0


def main(num_data=50, effort=EFFORT):
    chain = tfd.MarkovChain(
        tfd.Normal(0.0, 1.0), lambda _, z: tfd.Normal(DECAY * z, INNOVATION), num_steps=STEPS
    )
    joint = tfd.JointDistributionNamed(
        {"z": chain, "x": lambda z: tfd.Independent(tfd.Normal(z, NOISE), 1)}
    )
    model = Model(joint, "x", example=np.zeros(STEPS, np.float32))
    _, x = model.simulate(num_data, seed=0)

    kalman = tfd.LinearGaussianStateSpaceModel(
        num_timesteps=STEPS,
        transition_matrix=[[DECAY]],
        transition_noise=tfd.MultivariateNormalDiag(scale_diag=[INNOVATION]),
        observation_matrix=[[1.0]],
        observation_noise=tfd.MultivariateNormalDiag(scale_diag=[NOISE]),
        initial_state_prior=tfd.MultivariateNormalDiag(scale_diag=[1.0]),
    )
    means, covariances = kalman.posterior_marginals(x[..., tf.newaxis])
    smoother = tfd.Independent(tfd.Normal(means[..., 0], tf.sqrt(covariances[..., 0, 0])), 1)
    evidence = kalman.log_prob(x[..., tf.newaxis])
    print(measure(model, smoother, x, seed=1, evidence=evidence, effort=effort).report)


if __name__ == "__main__":
    main()
