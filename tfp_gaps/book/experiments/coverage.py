"""How often bounds bracket the truth, over many random models whose evidence is known.

Each model is a random factor analysis, or a random pair of sensors, with one datum of its own. Each
bound is computed by the code that measures images, with all models side by side as replicas of one
linear variational auto-encoder: ELBO and IWAE-K with a q that falls short, annealed importance
sampling forwards and backwards. The q of a factor analysis is factorised, which leaves an
approximation gap; that of two sensors sees one of them, which leaves a conditioning gap.

A bound with standard error s that is normally distributed around the truth is on the right side of
it up to 2 s in 97.7 % of all models and up to 3 s in 99.9 %, and more often where it is not tight;
the share that is found has a binomial error.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks, annealing, bounds
from tfp_gaps._tensorflow import on_gpu, tf
from tfp_gaps.exact.factor_analysis import FactorAnalysis
from tfp_gaps.exact.two_sensors import TwoSensors
from tfp_gaps.models.vae import VAE
from tfp_gaps.networks import replica_normal, replica_seeds
from tfp_gaps.posteriors import families
from tfp_gaps.tables import Table

Z = (1, 2, 3)
"""Numbers of standard errors at which shares are counted."""

NOMINAL = {z: 0.5 * (1 + math.erf(z / math.sqrt(2))) for z in Z}
"""Share of a normal variable that is at most z standard errors above its mean."""


@dataclass(frozen=True)
class Size:
    """How many models, how large, and how much effort goes into each bound.

    num_observations, num_latents: of factor analysis; two sensors have two and one.
    num_samples: K of ELBO and IWAE.
    annealed: num_chains, num_steps and other options of `annealing.forward`.
    """

    num_models: int = 100
    num_observations: int = 6
    num_latents: int = 3
    num_samples: int = 100
    annealed: dict = field(
        default_factory=lambda: {"num_chains": 64, "num_steps": 1000, "num_leapfrog_steps": 5}
    )


QUICK = Size(annealed={"num_chains": 16, "num_steps": 100, "num_leapfrog_steps": 5})
"""Every model, with less effort for each."""


class Row(NamedTuple):
    """A bound of every model.

    errors: bound - truth, float64 [models], nats.
    standard_errors: float64 [models].
    sign: 1 for a lower bound, -1 for an upper bound, 0 for an estimate without a right side.
    """

    errors: np.ndarray
    standard_errors: np.ndarray
    sign: int

    def right_side(self, z):
        """Number of models whose bound is on the right side of the truth, up to z errors."""
        return int(np.sum(self.sign * self.errors <= z * self.standard_errors))

    def within(self, z):
        """Number of models whose bound is within z errors of the truth."""
        return int(np.sum(np.abs(self.errors) <= z * self.standard_errors))


class Worlds(NamedTuple):
    """Models with a datum each, and the q whose ELBO is measured.

    models: list of `FactorAnalysis`.
    latents: that made the datum, [models, 1, latents].
    observations: [models, 1, observations].
    truth: ln p(x), [models], nats.
    means, sds: of q, [models, 1, latents].
    """

    models: list
    latents: np.ndarray
    observations: np.ndarray
    truth: np.ndarray
    means: np.ndarray
    sds: np.ndarray


def factor_analyses(size, seed=0):
    """Random factor analyses, each with its best factorised q: `Worlds`."""
    models = [
        FactorAnalysis.random(size.num_observations, size.num_latents, 1000 * seed + m)
        for m in range(size.num_models)
    ]
    parts = []
    for m, model in enumerate(models):
        z, x = model.sample(1, [seed, m])
        parts.append((z, x, model.log_evidence(x)[0], *model.best_factorised(x)))
    return Worlds(models, *map(np.stack, zip(*parts, strict=True)))


def two_sensors(size, seed=0):
    """Two sensors with random noises, each with the best q that sees one of them: `Worlds`.

    Evidence and q are those of `TwoSensors`; the model of the bounds is a factor analysis of one
    latent with loadings of 1.
    """
    noises = np.random.default_rng([seed, 4]).uniform(0.4, 1.2, size=(size.num_models, 2))
    parts = []
    for m, (noise_seen, noise_unseen) in enumerate(noises):
        world = TwoSensors(noise_seen=noise_seen, noise_unseen=noise_unseen)
        z, *readings = world.sample(1, [seed, m])
        q = world.best_partial()
        mean, sd = q.slope * readings[0], np.full(1, math.sqrt(q.variance))
        truth = np.reshape(world.log_evidence(*readings), ())
        parts.append((z[None], np.stack(readings, -1), truth, mean[None], sd[None]))
    models = [FactorAnalysis([[1.0], [1.0]], pair) for pair in noises]
    return Worlds(models, *map(np.stack, zip(*parts, strict=True)))


WORLDS = {"factor analysis": factor_analyses, "two sensors": two_sensors}
"""Kinds of models, by name."""


def run(kind="factor analysis", size=None, seed=0):
    """Bound the evidence of random models.

    Args:
      kind: of the models, one of `WORLDS`.
      size: `Size`; None for the default.
      seed: int, of models, data and draws.

    Returns:
      {name of the bound: `Row`}.

    Raises:
      ValueError: for an unknown kind or fewer than two models.
    """
    _checks.one_of(kind, "kind", WORLDS)
    size = Size() if size is None else size
    _checks.integer(size.num_models, "num_models", minimum=2)
    worlds = WORLDS[kind](size, seed)
    model = _side_by_side(worlds.models)
    return _from_draws(model, worlds, size, seed) | _from_chains(model, worlds, size, seed)


def table(rows):
    """Shares of models by bound, with binomial errors, as a `Table`."""
    header = ["bound", "mean - truth", "right side"]
    header += [f"right side up to {z} s" for z in Z] + [f"within {z} s" for z in Z]
    lines = []
    for name, row in rows.items():
        count = len(row.errors)
        one_sided = [row.right_side(z) if row.sign else None for z in (0, *Z)]
        shares = [*one_sided, *(row.within(z) for z in Z)]
        lines.append(
            [name, f"{row.errors.mean():+.3f}"]
            + ["" if number is None else share(number, count) for number in shares]
        )
    nominal = [f"{100 * NOMINAL[z]:.1f} %" for z in Z]
    nominal += [f"{100 * (2 * NOMINAL[z] - 1):.1f} %" for z in Z]
    return Table(header, [*lines, ["normal, unbiased", "0", "50.0 %", *nominal]])


def share(number, count):
    """A share in per cent with its binomial error, of which there is one even at 0 and at 100 %.

    >>> share(97, 100), share(100, 100)
    ('97.0 ± 1.8 %', '100.0 ± 0.5 %')
    """
    p = number / count
    # Half the width of Wilson's interval at one standard error.
    error = math.sqrt(p * (1 - p) / count + 1 / (4 * count**2)) / (1 + 1 / count)
    return f"{100 * p:.1f} ± {100 * error:.1f} %"


def failures(rows, num_errors=3):
    """What falls short of the stated coverage by more than so many binomial errors.

    Returns:
      list of sentences; empty if every bound is on the right side as often as a normal estimate of
      the truth itself would be, or more often.
    """
    found = []
    for name, row in rows.items():
        count = len(row.errors)
        for z in Z:
            number, nominal = row.right_side(z), NOMINAL[z]
            allowed = num_errors * math.sqrt(nominal * (1 - nominal) * count)
            # Counts are whole: one more than expected is within the error of a rare event.
            if row.sign and not number >= math.floor(nominal * count - allowed):
                found.append(
                    f"{name} is on the right side up to {z} standard errors in {number} of {count} "
                    f"models, but should be in {100 * nominal:.1f} %."
                )
    return found


def _from_draws(model, worlds, size, seed):
    """ELBO and IWAE-K with the q of each datum."""
    q = tf.constant(np.concatenate([worlds.means, np.log(worlds.sds)], axis=-1), tf.float32)
    # One stream for all models: replicas with a seed each would all draw the same.
    shape = [size.num_samples, *worlds.means.shape]
    noise = replica_normal(shape, replica_seeds([seed], "coverage"))[0]
    log_weights = families.log_weights(
        model,
        families.make("factorised", model.latent_size),
        families.Parameters(q, [], False),
        tf.constant(worlds.observations, tf.float32),
        noise,
    )
    found = bounds.Bounds.from_log_weights(log_weights.numpy())
    fields = (found.elbo, found.elbo_error, found.iwae, found.iwae_error)
    elbo, elbo_error, iwae, iwae_error = (values[:, 0] for values in fields)
    each = zip(worlds.models, worlds.observations, worlds.means, worlds.sds, strict=True)
    closed = np.array([world.elbo(x, mean, sds=sd)[0] for world, x, mean, sd in each])
    return {
        "ELBO as an estimate of its closed form": Row(elbo - closed, elbo_error, 0),
        "ELBO": Row(elbo - worlds.truth, elbo_error, 1),
        f"IWAE-{size.num_samples}": Row(iwae - worlds.truth, iwae_error, 1),
    }


def _from_chains(model, worlds, size, seed):
    """Annealed importance sampling and its reverse."""
    data = tf.constant(worlds.observations, tf.float32)

    def log_joint(z):
        return model.log_joint(z, data)

    options = size.annealed | {"jit_compile": on_gpu()}
    num_chains = options.pop("num_chains")
    lower = annealing.forward(
        log_joint,
        batch_shape=worlds.latents.shape[:-1],
        latent_size=model.latent_size,
        num_chains=num_chains,
        seed=seed,
        **options,
    )
    options |= {"step_sizes": lower.step_sizes, "seed": seed}
    each = [
        world.sample_posterior(x, num_chains, [seed, 2, m])
        for m, (world, x) in enumerate(zip(worlds.models, worlds.observations, strict=True))
    ]
    upper = annealing.reverse(log_joint, np.stack(each, axis=1), **options)
    one = np.tile(worlds.latents, [num_chains, 1, 1, 1])
    shared = annealing.reverse(log_joint, one, **options)
    rows = {
        "AIS": lower,
        "reverse AIS, a posterior draw per chain": upper,
        "reverse AIS, one posterior draw": shared,
    }
    return {name: _row(found, worlds.truth) for name, found in rows.items()}


def _row(annealed, truth):
    errors, spread = annealed.log_evidence()[:, 0] - truth, annealed.jackknife_error()[:, 0]
    return Row(errors, spread, annealed.sign)


def _side_by_side(models):
    """The linear models as replicas of one."""
    first = models[0]
    model = VAE(
        observation_size=first.num_observations,
        latent_size=first.num_latents,
        hidden=(),
        emission="normal",
        seeds=replica_seeds([0] * len(models), "replaced"),
    )
    model.decoder.output.kernel.assign(np.stack([w.loadings.T for w in models]))
    model.decoder.output.bias.assign(np.stack([w.offset for w in models])[:, None])
    model.log_noise.assign(np.log(np.stack([w.noise for w in models]))[:, None])
    return model
