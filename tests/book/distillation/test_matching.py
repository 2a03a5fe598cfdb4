"""Matching an encoder of a part to draws of an encoder of the whole."""

import numpy as np

from tfp_gaps._tensorflow import tf
from tfp_gaps.book.distillation import matching
from tfp_gaps.networks import replica_seeds
from tfp_gaps.posteriors import families
from tfp_gaps.posteriors.encoder import Posterior

SEEDS = (0, 1)


def build(purpose, visible=None):
    network = Posterior(
        families.make("factorised", 2),
        observation_size=4,
        hidden=(),
        visible=visible,
        seeds=replica_seeds(SEEDS, purpose),
    )
    for variable in network.trainable_variables:
        variable.assign_add(0.3 * tf.random.stateless_normal(variable.shape, [1, 2]))
    return network


def test_the_loss_is_the_cross_entropy_of_two_gaussians_and_teaches_the_student_alone():
    student, teacher = build("student", visible=[1, 1, 0, 0]), build("teacher")
    # 20,000 rows of one image: their mean is an expectation over the teacher's draws.
    image = np.array([1, 0, 1, 1], np.uint8)
    batch = tf.constant(np.tile(image, [2, 20_000, 1]))
    with tf.GradientTape() as tape:
        draw = matching.draws_of(teacher)
        found = matching.negative_log_likelihood(student, draw)(
            batch, replica_seeds(SEEDS, "step"), 1.0
        )
    variables = [*student.trainable_variables, *teacher.trainable_variables]
    learned, *_, taught = tape.gradient(found, [*variables])
    assert learned is not None and taught is None
    seen = {name: q.outputs(batch[:, :1]).numpy()[:, 0] for name, q in
            (("student", student), ("teacher", teacher))}  # fmt: skip
    (m, s), (n, t) = ((v[:, :2], np.exp(v[:, 2:])) for v in seen.values())
    expected = 0.5 * (np.log(2 * np.pi * s**2) + (t**2 + (m - n) ** 2) / s**2).sum(-1)
    # The integrand has a spread of about two nats: an error of .015.
    np.testing.assert_allclose(found, expected, atol=0.06)
    # Hidden pixels reach the loss by way of the teacher's draws, and the student not at all.
    changed = tf.constant(np.array([[[1, 0, 0, 0]]] * 2, np.uint8))
    np.testing.assert_array_equal(student.outputs(changed)[:, 0], seen["student"])
    assert np.abs(teacher.outputs(changed)[:, 0] - seen["teacher"]).max(-1).min() > 1e-2


def test_latents_that_made_the_data_are_matched_as_draws_are():
    student, teacher = build("student", visible=[1, 1, 0, 0]), build("teacher")
    batch = tf.constant(np.random.default_rng(0).integers(0, 2, [2, 50, 4]), tf.uint8)
    seeds = replica_seeds(SEEDS, "step")
    draw = matching.draws_of(teacher)
    drawn = matching.negative_log_likelihood(student, draw)(batch, seeds, 1.0)
    pairs = batch, draw(tf.cast(batch, tf.float32), seeds)[0]
    given = matching.negative_log_likelihood(student)(pairs, seeds, 1.0)
    np.testing.assert_allclose(given, drawn, rtol=1e-6)
