"""The gaps of a state-space model and a posterior that somebody brings.

    ln p(x) - ELBO = sum_t E_q KL(q(z_t | z_{t-1}, C_t) || p(z_t | z_{t-1}, x_{1:T}))

The model is frozen. Fresh networks that see less or more of the future show what the conditions
cost; the factors of the fully conditioned one, or of the exact smoother where the model is
linear-Gaussian, stand for p(z_t | z_{t-1}, x_{1:T}) in the gap per step. The evidence is the Kalman
filter's, or the bound that gains most on the ELBO, less its error, lest a noisy one win. Values are
nats per sequence, and per step.
"""

import warnings
from dataclasses import dataclass, field

import numpy as np

from tfp_gaps import _checks, bounds, forecasting
from tfp_gaps._tensorflow import tf
from tfp_gaps.estimate import Estimate
from tfp_gaps.exact import linear_gaussian
from tfp_gaps.filtering import particle_filter
from tfp_gaps.gaps import GapReport, decompose
from tfp_gaps.models.own import as_linear_gaussian
from tfp_gaps.networks import for_replicas, replica_normal, replica_seeds
from tfp_gaps.posteriors.conditions import FULL, LookAhead
from tfp_gaps.posteriors.own import factors, with_posterior
from tfp_gaps.posteriors.seeing import Seen, conditions_of
from tfp_gaps.sequential.fitting import fresh_network
from tfp_gaps.tables import Table
from tfp_gaps.training import Settings


@dataclass(frozen=True)
class SequenceEffort:
    """How much is spent on each part.

    num_paths: draws of q per sequence, for the ELBO and the gap per step.
    num_samples: K of IWAE.
    num_particles: of each particle filter; 1000 for tables.
    lookaheads: of the fresh networks beside the full one and that of the posterior's conditions.
    hidden_size, training: of the fresh networks; `training.Settings`.
    horizon: steps at the end that are forecast; 0 for none.

    >>> SequenceEffort(num_particles=500).lookaheads
    (0,)
    """

    num_paths: int = 8
    num_samples: int = 100
    num_particles: int = 1000
    lookaheads: tuple = (0,)
    hidden_size: int = 32
    training: Settings = field(
        default_factory=lambda: Settings(
            num_steps=1500, batch_size=32, learning_rate=1e-2, clip_norm=100.0
        )
    )
    horizon: int = 0

    def __post_init__(self):
        _checks.integer(self.num_paths, "num_paths", minimum=2)
        _checks.integer(self.num_samples, "num_samples", minimum=1)
        _checks.integer(self.num_particles, "num_particles", minimum=2)
        _checks.integer(self.hidden_size, "hidden_size", minimum=1)
        _checks.integer(self.horizon, "horizon", minimum=0)
        for k in self.lookaheads:
            LookAhead.of(k)


@dataclass(frozen=True, eq=False)
class MeasuredSequence:
    """What was found.

    report: `gaps.GapReport`, nats per sequence.
    bounds: {name: float64 [sequences]}, lower bounds on ln p(x), and ln p(x) where it is known.
    per_step: {name: float64 [time, sequences]}, E_q KL(q_t || full_t) of the posterior and of each
      fresh network, nats per step.
    seen: `posteriors.seeing.Seen`, what the posterior sees.
    networks: {label: `LookAheadNetwork`}, the fresh ones.
    scores: `forecasting.Scores` of the last steps, or None.

    >>> measure_sequence.__name__  # see its example
    'measure_sequence'
    """

    report: GapReport
    bounds: dict
    per_step: dict
    seen: Seen
    networks: dict
    scores: forecasting.Scores | None

    def table(self):
        """The bounds, mean over sequences with the error over sequences."""
        rows = [[name, _mean(values)] for name, values in self.bounds.items()]
        return Table(["nats per sequence", "mean ± standard error"], rows)

    def steps(self):
        """The gap per step: one row per step, nats."""
        header = ["step", *self.per_step]
        rows = [
            [t + 1, *(_mean(values[t]) for values in self.per_step.values())]
            for t in range(len(self.seen.observations))
        ]
        return Table(header, rows)


def measure_sequence(model, posterior, sequences, *, seed, effort=None):
    """Bound ln p(x) of a state-space model, split what the ELBO of a posterior lacks, by step too.

    Args:
      model: as `models.own` describes, of one replica, or `tfd.LinearGaussianStateSpaceModel`.
      posterior: as `posteriors.own` describes.
      sequences: `Sequences`, or an array [time, sequences, channels]; two at least. Fresh networks
        are trained on them: for a frozen model their bounds stay bounds.
      seed: int.
      effort: `SequenceEffort`, or None for its defaults.

    Returns:
      `MeasuredSequence`. In its report, approximation is what the best full network found lacks,
      conditioning the difference to a fresh network of the posterior's own conditions, and
      optimisation the rest: also what factors that do not use z_{t-1} lack, as the fresh ones do
      not. Where the posterior has no look-ahead, conditioning counts as optimisation.

    Raises:
      ValueError: as `models.own`, `posteriors.own` and `SequenceEffort`; for a model of several
        replicas, fewer sequences than two, and bounds that are not finite.

    Warns:
      RuntimeWarning: where the gap per step does not add up to the total within 10 %, because the
        full network is not the posterior, or the evidence not reached.

    >>> from tensorflow_probability import distributions as tfd
    >>> from tfp_gaps import LinearGaussianStateSpace
    >>> model = LinearGaussianStateSpace(
    ...     linear_gaussian.LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0))
    >>> x = np.random.default_rng(0).normal(size=[4, 40, 1])
    >>> small = SequenceEffort(num_particles=100, lookaheads=(),
    ...                        training=Settings(num_steps=20, batch_size=20))
    >>> found = measure_sequence(model, lambda x: tfd.Normal(0.1 * x, 0.5), x, seed=0, effort=small)
    >>> found.seen.label, found.per_step["posterior"].shape
    ('neither', (4, 40))
    """
    effort = SequenceEffort() if effort is None else effort
    _checks.seed(seed)
    order, known = "measure_sequence(model, posterior, sequences)", as_linear_gaussian(model)
    model, own, sequences = with_posterior(model, posterior, sequences, order)
    _check(model, sequences, effort)
    seen = conditions_of(own, model, sequences)
    networks = _fresh(model, sequences, seen, effort, seed)
    exact = None if known is None or sequences.mask is not None else known
    found = _bounds(model, own, networks, sequences, effort, seed)
    evidence, basis = _evidence(found, exact, sequences)
    if exact is not None:
        found = {"ln p(x), Kalman filter": evidence, **found}
    reference = networks["full"] if exact is None else _Smoother(exact, sequences.num_timesteps)
    per_step = {
        name: _per_step(model, q, reference, sequences, effort.num_paths, seed)
        for name, q in {"posterior": own, **networks}.items()
        if q is not reference
    }
    report = _report(found, evidence, basis, seen, exact)
    _compare(report, per_step["posterior"])
    return MeasuredSequence(
        report, found, per_step, seen, networks, _forecast(model, sequences, effort, seed)
    )


def _check(model, sequences, effort):
    if model.num_replicas != 1:
        raise ValueError(
            f"measure_sequence takes a model of one replica, but this one has "
            f"{model.num_replicas}. Take one out: tfp_gaps.networks.replica(model, 0)."
        )
    if len(sequences) < 2:
        raise ValueError(
            f"sequences must be at least two, for errors over sequences, but are {len(sequences)}. "
            f"Pass more, or bound one alone: tfp_gaps.elbo, tfp_gaps.particle_filter."
        )
    if effort.horizon >= sequences.num_timesteps:
        raise ValueError(
            f"horizon must leave a step to filter, but is {effort.horizon} of "
            f"{sequences.num_timesteps} steps. Choose a smaller one."
        )
    if effort.training.batch_size > len(sequences):
        raise ValueError(
            f"fresh networks are trained on batches of {effort.training.batch_size} sequences, but "
            f"there are {len(sequences)}. Give SequenceEffort(training=Settings(...)) a smaller "
            f"batch_size, or more sequences."
        )


def _fresh(model, sequences, seen, effort, seed):
    """{label: network}, the full one last."""
    last = sequences.num_timesteps - 1
    wanted = {LookAhead.of(k) for k in effort.lookaheads} | {FULL}
    wanted |= {seen.conditions} - {None}
    conditions = sorted(c for c in wanted if c == FULL or c.steps < last)
    networks = {}
    for number, c in enumerate(conditions):
        networks[c.label], history = fresh_network(
            model,
            sequences,
            c,
            effort.training,
            hidden_size=effort.hidden_size,
            seed=seed + number,
        )
        if history.diverged.any():
            warnings.warn(
                f"the fresh network under {c.label} conditions diverged in training. Lower the "
                f"learning rate in SequenceEffort(training=...).",
                RuntimeWarning,
                stacklevel=3,
            )
    return networks


def _bounds(model, own, networks, sequences, effort, seed):
    found = {}
    for name, q in {"": own, **{f", fresh {label}": q for label, q in networks.items()}}.items():
        options = {"seed": seed, "jit_compile": None}
        profile = bounds.elbo(model, q, sequences, repetitions=effort.num_paths, **options)
        found[f"ELBO{name}"] = profile.bound.per_sequence()[0]
        if name in ("", ", fresh full"):
            iwae = bounds.iwae(model, q, sequences, num_samples=effort.num_samples, **options)
            found[f"IWAE-{effort.num_samples}{name}"] = iwae.per_sequence()[0]
            found[f"SMC{name}"] = _smc(model, sequences, effort, seed, q)
    found["SMC, bootstrap"] = _smc(model, sequences, effort, seed, None)
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise ValueError(
                f"{name} must be finite, but is not for sequence "
                f"{int(np.argmax(~np.isfinite(values)))}. Look for scales that vanish, or for "
                f"observations outside the emission's support."
            )
    return found


def _smc(model, sequences, effort, seed, q):
    options = {"num_particles": effort.num_particles, "seed": seed, "posterior": q}
    return particle_filter(model, sequences, **options).log_increments.sum(0)[0]


def _evidence(found, exact, sequences):
    if exact is not None:
        filtered = linear_gaussian.kalman_filter(exact, sequences.observations.astype(np.float64))
        return filtered.log_likelihood, "Kalman filter"
    others = {name: values for name, values in found.items() if name != "ELBO"}
    gains = {name: _mean(values - found["ELBO"]) for name, values in others.items()}
    best = max(gains, key=lambda name: gains[name].value - gains[name].standard_error)
    return found[best], f"{best}, a lower bound"


def _report(found, evidence, basis, seen, exact):
    given, told = {}, {"evidence": basis, "elbo": "ELBO"}
    given["best_per_datum"] = found["ELBO, fresh full"]
    told["best_per_datum"] = "ELBO, fresh full"
    if seen.conditions is not None:
        name = f"ELBO, fresh {seen.label}"
        given["best_shared"], told["best_shared"] = found[name], name
    return decompose(evidence=evidence, elbo=found["ELBO"], **given, basis=told)


class _Smoother:
    """The exact factors p(z_t | z_{t-1}, x_{t:T}) as a posterior: `DiagonalNormal` or more."""

    def __init__(self, chain, num_timesteps):
        factors = linear_gaussian.shared_factors(chain, chain, num_timesteps, None)
        self.covariance, self.transition, self.weights = factors

    def divergence(self, q, observations, latents):
        """KL(q_t || p(z_t | z_{t-1}, x)), nats [time, sequences].

        q_t is a `DiagonalNormal` [time, sequences, latent] at a path of latents of that shape.
        """
        steps = zip(*q, self.covariance, strict=True)
        means = np.einsum("tiso,sbo->tbi", self.weights, observations)
        means[1:] += np.einsum("tij,tbj->tbi", self.transition[1:], latents[:-1])
        found = []
        for mean, (q_mean, q_scale, covariance) in zip(means, steps, strict=True):
            precision, off = np.linalg.inv(covariance), mean - q_mean
            log_dets = np.linalg.slogdet(covariance)[1] - 2 * np.log(q_scale).sum(-1)
            spread = q_scale**2 @ np.diag(precision)
            spread += np.einsum("bi,ij,bj->b", off, precision, off)
            found.append(0.5 * (log_dets + spread - len(precision)))
        return np.stack(found)


def _per_step(model, q, reference, sequences, num_paths, seed):
    """E_q KL(q_t || reference_t), float64 [time, sequences], over `num_paths` paths of q."""
    batch = for_replicas(sequences.batch, 1)
    time, _, size, _ = batch.observations.shape
    is_exact = isinstance(reference, _Smoother)

    @tf.function
    def draw(seeds):
        noise = replica_normal([time, size, model.latent_size], seeds, axis=1)
        path = q.sample_path(model, q.context(batch), noise, controls=batch.controls).latents
        both = [q] if is_exact else [q, reference]
        return path, [factors(posterior, model, batch, path) for posterior in both]

    observations = sequences.observations.astype(np.float64)
    total = np.zeros([time, size])
    for number in range(num_paths):
        found = draw(replica_seeds([seed], "gap per step", number))
        path, both = tf.nest.map_structure(lambda part: part.numpy().astype(float)[:, 0], found)
        if is_exact:
            total += reference.divergence(both[0], observations, path)
        else:
            total += _divergence(*both)
    return total / num_paths


def _divergence(q, p):
    """KL of two normals with independent components, nats."""
    ratio, offset = q.scale / p.scale, (q.mean - p.mean) / p.scale
    return (0.5 * (ratio**2 + offset**2 - 1.0) - np.log(ratio)).sum(-1)


def _compare(report, per_step):
    added, total = _mean(per_step.sum(0)), report.total
    error = 3 * np.hypot(added.standard_error, total.standard_error)
    if abs(added.value - total.value) > error + 0.1 * abs(total.value) + 0.01:
        warnings.warn(
            f"the gap per step adds up to {added} nats, but the evidence is {total} above the "
            f"ELBO. The full network is not the posterior, or the evidence is not reached: train "
            f"longer and take more particles.",
            RuntimeWarning,
            stacklevel=3,
        )


def _forecast(model, sequences, effort, seed):
    if not effort.horizon:
        return None
    return forecasting.evaluate(
        model,
        sequences,
        start=sequences.num_timesteps - effort.horizon,
        horizon=effort.horizon,
        num_particles=effort.num_particles,
        seed=seed,
    )


def _mean(values):
    return Estimate.from_samples(values, kind="data points")
