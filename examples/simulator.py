"""A simulator with a likelihood in plain Python: an epidemic, seen in daily counts of cases."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_gaps import Effort, Model, measure

tfd = tfp.distributions
EFFORT = Effort(family=("mean_field", "full"), search_steps=500)
CASES = np.float32([0, 1, 1, 4, 9, 4, 15, 24, 33, 30, 63, 59, 62, 43, 42, 34, 19, 9, 12, 9])


def log_likelihood(z):
    """Of susceptible, infected, recovered among 1000; a fraction of the new cases is counted."""
    contact, recovery, reported = tf.exp(z["contact"]), tf.exp(z["recovery"]), z["reported"]
    susceptible, infected, total = 998.0, 2.0, 0.0
    for cases in CASES:
        new = susceptible * (1 - tf.exp(-contact * infected / 1000))
        susceptible, infected = susceptible - new, infected * tf.exp(-recovery) + new
        total += tfd.Poisson(reported * new + 0.1).log_prob(cases)
    return total


def main(effort=EFFORT):
    rates = {"contact": tfd.Normal(-0.2, 0.5), "recovery": tfd.Normal(-1.2, 0.5)}
    prior = tfd.JointDistributionNamed({**rates, "reported": tfd.Beta(4.0, 4.0)})
    model = Model.from_log_density(prior, log_likelihood)
    rates = {"contact": tfd.Normal(-0.1, 0.1), "recovery": tfd.Normal(-1.1, 0.2)}
    q = tfd.JointDistributionNamed({**rates, "reported": tfd.Beta(20.0, 20.0)})
    print(measure(model, q, None, seed=0, effort=effort))


if __name__ == "__main__":
    main()
