"""The sizes at which training steps are timed, their cost by formula, and the data of a timing run.

Imported by every worker, in environments that share nothing but NumPy.
"""

from dataclasses import dataclass

import numpy as np

NUM_SEQUENCES = 1024
LEARNING_RATE = 1e-3
CLIP_NORM = 50.0


@dataclass(frozen=True)
class Size:
    """One state-space model and its batch.

    num_timesteps, batch_size: length and number of the sequences in a step, per model.
    observation_size, latent_size, hidden_size: channels of x_t and z_t, width of all layers.
    emission: "bernoulli" or "normal".
    num_seeds: models that are trained in one step.
    lookahead: steps that q sees beyond its own; None for full conditions.
    """

    num_timesteps: int
    observation_size: int
    emission: str
    batch_size: int
    hidden_size: int
    latent_size: int
    num_seeds: int = 1
    lookahead: int | None = None

    @property
    def sequences_per_step(self):
        """Trained sequences in one step, counted per model."""
        return self.num_seeds * self.batch_size

    def describe(self):
        """All sizes in one line."""
        seeds = "one seed" if self.num_seeds == 1 else f"{self.num_seeds} seeds at once"
        return (
            f"T {self.num_timesteps}, {self.observation_size} {self.emission} channels, batch "
            f"{self.batch_size}, hidden {self.hidden_size}, latent {self.latent_size}, "
            f"{'full conditions' if self.lookahead is None else f'look-ahead {self.lookahead}'}, "
            f"{seeds}"
        )

    @property
    def flops_per_step(self):
        """Floating point operations of the matrix products in one training step.

        A product costs two operations per weight, row and time step; its two gradients cost as much
        each: three times the forward pass. (The gradient with respect to the observations is
        counted though nobody needs it, 4 % at the large size; everything that is no matrix product
        is not counted.)
        """
        x, z, h = self.observation_size, self.latent_size, self.hidden_size
        recurrences = 2 * (x * 3 * h + h * 3 * h)
        posterior = 2 * h * h + z * h + h * 2 * z
        transition = z * h + h * 3 * z
        emission = z * h + h * x
        weights = recurrences + posterior + transition + emission
        return 3 * 2 * weights * self.num_timesteps * self.sequences_per_step


SIZES = {
    "large": Size(28, 28, "bernoulli", 128, 128, 16),
    "small": Size(32, 4, "normal", 64, 48, 8, num_seeds=3),
}


def observations(size):
    """Return the data of a timing run, [sequences, time, channels]: uint8 or float32."""
    generator = np.random.default_rng(0)
    shape = [NUM_SEQUENCES, size.num_timesteps, size.observation_size]
    if size.emission == "bernoulli":
        return (generator.random(shape) < 0.13).astype(np.uint8)
    return generator.standard_normal(shape).astype(np.float32)


def batches(size, num_steps, seed):
    """Return the indices of the batches, int32 [steps, seeds, batch]."""
    generator = np.random.default_rng(seed)
    shape = [num_steps, size.num_seeds, size.batch_size]
    return generator.integers(NUM_SEQUENCES, size=shape, dtype=np.int32)


def fixed_noise(size):
    """Return the noise with which losses are compared, float32 [seeds, time, batch, latent]."""
    shape = [size.num_seeds, size.num_timesteps, size.batch_size, size.latent_size]
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)
