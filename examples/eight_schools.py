"""Eight schools with the surrogate of TFP: what is lost to independence, and what to training?"""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_gaps import Effort, Model, measure

tfd = tfp.distributions
EFFORT = Effort(search_steps=500)
EFFECTS = np.float32([28, 8, -3, 7, -1, 1, 18, 12])
ERRORS = np.float32([15, 10, 16, 11, 9, 11, 10, 18])


@tfd.JointDistributionCoroutineAutoBatched
def schools():
    """Effects around a common mean, each measured with a known error."""
    mean = yield tfd.Normal(0.0, 10.0, name="mean")
    spread = yield tfd.HalfNormal(10.0, name="spread")
    effect = yield tfd.Sample(tfd.Normal(mean, spread), 8, name="effect")
    yield tfd.Independent(tfd.Normal(effect, ERRORS), 1, name="x")


def main(steps=300, effort=EFFORT):
    pinned = schools.experimental_pin(x=EFFECTS)
    surrogate = tfp.experimental.vi.build_factored_surrogate_posterior(
        event_shape=pinned.event_shape,
        bijector=pinned.experimental_default_event_space_bijector(),
        seed=1,
    )
    optimizer = tf.optimizers.legacy.Adam(0.05)
    tfp.vi.fit_surrogate_posterior(
        pinned.unnormalized_log_prob, surrogate, optimizer, num_steps=steps, seed=2
    )
    print(measure(Model(schools, "x", example=EFFECTS), surrogate, EFFECTS, seed=3, effort=effort))


if __name__ == "__main__":
    main()
