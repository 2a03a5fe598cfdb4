"""A filter without the gap: train with full conditions, then obtain the filter one needs.

The generative model p is fixed: known (a linear-Gaussian chain) or learned under full conditions
(traffic). On it p(z_t | x_{1:t}) is approximated by

* the partial network, trained by the ELBO with look-ahead 0 and run online as if it were a filter;
* networks distilled from the smoother by maximum likelihood (`inference.filter_network`), with a
  Gaussian and with a mixture for a head;
* the filter inside a posterior that runs backwards (`inference.backward`);
* particle filters: of the model alone, and with the partial network as proposal.

All are compared with a particle filter of many particles. Scores: ln p(x_{t+1} | x_{1:t}) as each
belief predicts it, nats per step; on sequences drawn from p, where the state is known, coverage of
50 and 90 % sets; the energy distance to the reference (Szekely and Rizzo 2013), normalised; and the
time that a step takes.
"""

import functools
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks, filtering, storage, training
from tfp_gaps._tensorflow import tf
from tfp_gaps.book import results
from tfp_gaps.book.control import scoring
from tfp_gaps.book.control.beliefs import BootstrapFilter, DistilledFilter, PartialPosterior
from tfp_gaps.book.control.scoring import Watch
from tfp_gaps.book.control.watching import (
    ModelWorld,
    coverage,
    energy_coefficients,
    next_step,
    simulate,
)
from tfp_gaps.book.distillation import backward
from tfp_gaps.book.distillation.filter_network import FilterNetwork, negative_log_likelihood
from tfp_gaps.book.experiments import sequential, traffic
from tfp_gaps.estimate import Estimate
from tfp_gaps.exact import linear_gaussian as exact
from tfp_gaps.exact.joint_gaussian import JointGaussian
from tfp_gaps.models.state_space import LinearGaussianStateSpace
from tfp_gaps.networks import for_replicas, replica_normal, replica_seeds
from tfp_gaps.posteriors.conditions import FULL, LookAhead
from tfp_gaps.posteriors.look_ahead import LookAheadNetwork
from tfp_gaps.sequences import Batch, Sequences
from tfp_gaps.sequential import fitting
from tfp_gaps.training import Settings

VARIANTS = ("linear-gaussian", "traffic")
CHAIN = exact.LinearGaussian.stationary(0.9, 0.5, 0.25, 0.0625)
"""The chain (.9, .5, 1) with its sensor in units of four: networks want inputs below one."""
REFERENCE = "many particles"
FILTERS = (
    "partial q",
    "distilled Gaussian",
    "distilled mixture",
    "backward",
    "few particles",
    "few particles, guided",
)
"""What is compared with the reference; the last two have as many particles as the others draws."""


@dataclass(frozen=True)
class Size:
    """How long is trained, how much is measured.

    joint: how a model that has to be learned is trained with its network.
    network: how each filter is trained on the fixed model.
    polish: how the distilled ones are trained on, with less noise in the gradients; None for not.
    num_timesteps, num_train: of the chain's sequences.
    num_test: sequences that are scored, and as many that are simulated.
    num_particles: draws that a belief is judged by; num_reference: of the reference.
    first: first step that is predicted.
    """

    joint: Settings
    network: Settings
    num_timesteps: int
    num_train: int
    num_test: int
    num_particles: int
    num_reference: int
    hidden_size: int = 32
    first: int = 5
    polish: Settings | None = None


def _size(joint_steps, network_steps, *, batch=256, compiled=True, **fields):
    joint = Settings(
        joint_steps,
        32,
        learning_rate=1e-2,
        clip_norm=200.0,
        kl_warmup_steps=max(1, min(200, joint_steps // 4)),
        num_shards=1,
        jit_compile=compiled,
    )
    network = replace(
        joint, num_steps=network_steps, batch_size=batch, learning_rate=5e-3, kl_warmup_steps=0
    )
    return Size(joint, network, **fields)


_SIZES = {
    "smoke": _size(
        20,
        20,
        batch=32,
        # To compile would take longer than to train.
        compiled=False,
        num_timesteps=8,
        num_train=500,
        num_test=20,
        num_particles=20,
        num_reference=100,
    ),
    "book": _size(
        400,
        400,
        num_timesteps=12,
        num_train=20_000,
        num_test=200,
        num_particles=100,
        num_reference=2000,
    ),
    "paper": _size(
        1500,
        1500,
        batch=128,
        num_timesteps=12,
        num_train=100_000,
        num_test=170,
        num_particles=200,
        num_reference=2000,
    ),
}


def size_of(scale, variant="linear-gaussian"):
    """The `Size` of a scale: "smoke", "book" or "paper"."""
    _checks.one_of(variant, "variant", VARIANTS)
    size = _SIZES[_checks.one_of(scale, "scale", sorted(_SIZES))]
    if variant == "linear-gaussian" and scale == "paper":
        longer = replace(size.network, num_steps=3000, batch_size=512)
        polish = replace(longer, num_steps=400, batch_size=1024, learning_rate=1e-3)
        return replace(size, network=longer, polish=polish, num_test=500)
    return size


class Problem(NamedTuple):
    """A fixed model with what is known about it.

    model: state-space model, one replica per seed.
    smoother: callable (batch, seeds) -> z_{1:T}, a draw for each sequence of the batch, see
      `distillation.filter_network.negative_log_likelihood`.
    train, test: `Sequences` without missing values.
    groups: [test sequences], labels; sequences of a group are not independent.
    source: of the data.
    """

    model: tf.Module
    smoother: object
    train: Sequences
    test: Sequences
    groups: np.ndarray
    source: str


def chain_problem(size, seeds, world=CHAIN):
    """The linear-Gaussian chain, whose smoother is known: a `Problem`."""
    train, test = (
        exact.sample(world, size.num_timesteps, number, seed)[1].astype(np.float32)
        for number, seed in ((size.num_train, 0), (size.num_test, 1))
    )
    checksum = storage.sha256(train.tobytes() + test.tobytes())[:12]
    return Problem(
        LinearGaussianStateSpace(world, num_replicas=len(seeds)),
        exact_smoother(world, size.num_timesteps),
        Sequences(train),
        Sequences(test),
        np.arange(size.num_test),
        f"simulated: linear-Gaussian chain, seeds 0 and 1, arrays SHA-256 {checksum}",
    )


def first(problem, count):
    """The same problem with the first test sequences only."""
    return problem._replace(test=problem.test.first(count), groups=problem.groups[:count])


def exact_smoother(world, num_timesteps):
    """Draws from p(z_{1:T} | x_{1:T}) of a chain with a single state: see `Problem.smoother`.

    Args:
      world: `exact.LinearGaussian` with one component of state and of observation.
      num_timesteps: T.

    Returns:
      callable (batch, seeds) -> [time, replicas, batch, 1].
    """
    joint = JointGaussian(world, num_timesteps)
    weights, covariance = joint.condition(joint.states, joint.observations)
    root = np.linalg.cholesky(covariance)
    weights, root = (tf.constant(part.T, tf.float32) for part in (weights, root))

    def draw(batch, seeds):
        x = tf.transpose(batch.observations[..., 0], [1, 2, 0])
        noise = replica_normal(x.shape[1:], seeds)
        flat = [tf.reshape(part, [-1, num_timesteps]) for part in (x, noise)]
        paths = tf.reshape(flat[0] @ weights + flat[1] @ root, x.shape)
        return tf.transpose(paths, [2, 0, 1])[..., tf.newaxis]

    return draw


def traffic_problem(size, seeds, folder=None, progress=None):
    """Counts of single detectors, and a model learned under full conditions.

    Windows with missing counts are left out: the filters here read none.

    Returns:
      `Problem`, and the splits and the design that it was made with.
    """
    splits = complete(traffic.load("book", "one"))
    design = replace(traffic.BENCHMARK.size("book", "one").design, joint=size.joint)
    options = results.training_options(folder, progress, "joint-full", size.joint.num_steps)
    full = sequential.fit_jointly(splits, design, conditions=FULL, seeds=seeds, **options)
    problem = Problem(
        full.model,
        functools.partial(sequential.draw_paths, full),
        splits.train,
        splits.test,
        splits.windows["test"].starts,
        splits.source,
    )
    return problem, splits, design


def complete(splits):
    """Splits without the sequences that have missing values."""

    parts, windows = {}, {}
    for part, cut in splits.windows.items():
        sequences = getattr(splits, part)
        mask = sequences.mask
        kept = np.ones(len(sequences), bool) if mask is None else mask.all((0, 2))
        parts[part] = sequences.select(kept)
        windows[part] = replace(cut, series=cut.series[kept], starts=cut.starts[kept])
    return replace(splits, **parts, windows=windows)


# Training -----------------------------------------------------------------------------------------


def distil(problem, size, *, seeds, num_components, **options):
    """Fit a filter to draws of the smoother by maximum likelihood.

    Args:
      problem: `Problem`.
      size: `Size`.
      seeds: one int per replica.
      num_components: of the mixture; 1 for a Gaussian.
      **options: checkpoint, progress: as in `training.fit`.

    Returns:
      (`FilterNetwork`, `training.History`).
    """
    network = FilterNetwork(
        **_sizes(problem, size),
        num_components=num_components,
        seeds=replica_seeds(seeds, "initial filter"),
    )

    loss = negative_log_likelihood(network, problem.smoother)
    name = f"distilled {num_components}"
    history = _fit(loss, network, problem, size, seeds, name, options)
    if size.polish is not None:
        path = options.get("checkpoint")
        if path is not None:
            options["checkpoint"] = path.with_name(f"{path.stem}-polish.npz")
        skipped = history.skipped_steps
        history = _fit(
            loss, network, problem, replace(size, network=size.polish), seeds, name, options
        )
        # A step that was left out before the polish counts as well.
        history = history._replace(skipped_steps=history.skipped_steps + skipped)
    return network, history


def fit_backward(problem, size, *, seeds, **options):
    """Fit a posterior that runs backwards, by the ELBO; returns (its filter, history)."""
    network = backward.BackwardNetwork(
        **_sizes(problem, size), seeds=replica_seeds(seeds, "initial backward")
    )
    loss = backward.negative_elbo(problem.model, network)
    history = _fit(loss, network, problem, size, seeds, "backward", options)
    return network.filter, history


def fit_partial(problem, size, *, seeds, **options):
    """Fit the partial network by the ELBO; returns (network, history)."""
    network = LookAheadNetwork(
        **_sizes(problem, size),
        conditions=LookAhead(0),
        seeds=replica_seeds(seeds, "initial network"),
    )
    loss = fitting.negative_elbo(problem.model, network)
    return network, _fit(loss, network, problem, size, seeds, "partial", options)


def _fit(loss, network, problem, size, seeds, name, options):
    return training.fit(
        loss,
        list(network.trainable_variables),
        problem.train.batch,
        size.network,
        axis=1,
        seeds=seeds,
        # The fixed model was trained with `joint`, or is known.
        fingerprint=f"{name} {size.hidden_size} {size.joint} {problem.source}",
        **options,
    )


def _sizes(problem, size):
    return {
        "observation_size": problem.model.observation_size,
        "latent_size": problem.model.latent_size,
        "hidden_size": size.hidden_size,
    }


# Beliefs ------------------------------------------------------------------------------------------


def beliefs_of(problem, size, partial, filters):
    """What each of `FILTERS` that has a cloud, and the reference, believes: {name: belief}."""
    world = ModelWorld(problem.model)
    return {
        REFERENCE: BootstrapFilter(world, size.num_reference),
        "partial q": PartialPosterior(problem.model, partial, size.num_particles),
        **{name: DistilledFilter(network) for name, network in filters.items()},
        "few particles": BootstrapFilter(world, size.num_particles),
    }


# Measuring ----------------------------------------------------------------------------------------


def measure(problem, size, beliefs, *, guided=None):
    """Score beliefs against the reference; see the module.

    Args:
      problem: `Problem`.
      size: `Size`.
      beliefs: {name: belief}, with `REFERENCE` among them.
      guided: the partial network, for a particle filter that proposes from it; or None.

    Returns:
      JSON-serialisable dict: "next_step" {name: [seeds][sequences]}, nats per step; "coverage"
      {name: [seeds][levels]}; "energy" {name: [seeds]}; "seconds" {name: float} for a step of all
      test sequences of all replicas.
    """
    model = problem.model
    test = np.repeat(problem.test.observations[:, np.newaxis], model.num_replicas, 1)
    states, simulated = simulate(model, len(test), test.shape[2], seed=3)
    watches = {name: Watch(belief, size.num_particles) for name, belief in beliefs.items()}
    clouds = {name: watch.follow(test, seed=5) for name, watch in watches.items()}
    found = {
        "next_step": {
            name: ahead[size.first - 1 :].mean(0)
            for name, ahead in next_step(model, clouds, test, seed=6).items()
        },
        "energy": energy_coefficients(clouds, watches[REFERENCE].follow(test, seed=4)),
        "coverage": {
            name: coverage(watch.follow(simulated, seed=7), states).T
            for name, watch in watches.items()
        },
        "seconds": {
            name: np.float64(watch.seconds_per_step(test)) for name, watch in watches.items()
        },
    }
    for name, proposal in (("few particles", None), ("few particles, guided", guided)):
        if name == "few particles" or guided is not None:
            increments = filtering.particle_filter(
                model,
                problem.test,
                num_particles=size.num_particles,
                seed=8,
                posterior=proposal,
            ).log_increments
            found["next_step"][name] = increments[size.first :].mean(0)
    return {key: {n: v.tolist() for n, v in part.items()} for key, part in found.items()}


def run(*, scale, seeds, variant, checkpoint_folder=None, progress=None):
    """Train all filters on one fixed model and score them.

    Args:
      scale: "smoke", "book" or "paper".
      seeds: list of ints, one per replica; at least 2 for errors over seeds.
      variant: one of `VARIANTS`.
      checkpoint_folder: where to keep checkpoints, or None.
      progress: callable (label, num_steps) -> progress callback of `training.fit`, or None.

    Returns:
      A JSON-serialisable dict; see `measure`. Of the chain also "kalman", see `from_kalman`. Of
      traffic also "own": the next-step log-likelihood of a model that was trained under partial
      conditions, as its own network and as a particle filter predict it.
    """
    size = size_of(scale, variant)
    options = {"folder": checkpoint_folder, "progress": progress}
    if variant == "traffic":
        problem, splits, design = traffic_problem(size, seeds, **options)
    else:
        problem = chain_problem(size, seeds)
    partial, filters, histories = train_all(problem, size, seeds, **options)
    # The scores take far longer than Kalman's distances, and the chain has those.
    scored = problem if variant == "traffic" else first(problem, 20)
    beliefs = beliefs_of(problem, size, partial, filters)
    content = {
        "experiment": "filters",
        "scale": scale,
        "variant": variant,
        "seeds": list(seeds),
        "size": asdict(size),
        "data": problem.source,
        "groups": np.asarray(scored.groups).tolist(),
        "diverged": np.any([h.diverged for h in histories], 0).tolist(),
        **measure(scored, size, beliefs, guided=partial),
    }
    if variant == "traffic":
        content["own"] = _own_partial_pair(problem, size, splits, design, seeds, **options)
    else:
        content["kalman"] = from_kalman(filters, partial, problem)
    return content


def train_all(problem, size, seeds, folder=None, progress=None):
    """Train the partial network and three filters.

    Returns:
      The partial network, {name: `FilterNetwork`}, and the four histories.
    """
    named = {
        name: results.training_options(
            folder, progress, name.replace(" ", "-"), size.network.num_steps
        )
        for name in ("partial q", "distilled Gaussian", "distilled mixture", "backward")
    }
    partial, history = fit_partial(problem, size, seeds=seeds, **named["partial q"])
    filters, histories = {}, [history]
    for name, count in (("distilled Gaussian", 1), ("distilled mixture", 5)):
        filters[name], history = distil(
            problem, size, seeds=seeds, num_components=count, **named[name]
        )
        histories.append(history)
    filters["backward"], history = fit_backward(problem, size, seeds=seeds, **named["backward"])
    return partial, filters, [*histories, history]


def _own_partial_pair(problem, size, splits, design, seeds, folder, progress):
    options = results.training_options(folder, progress, "joint-partial", size.joint.num_steps)
    pair = sequential.fit_jointly(splits, design, conditions=LookAhead(0), seeds=seeds, **options)
    test = np.repeat(problem.test.observations[:, np.newaxis], len(seeds), 1)
    beliefs = {
        "partial q": PartialPosterior(pair.model, pair.network, size.num_particles),
        REFERENCE: BootstrapFilter(ModelWorld(pair.model), size.num_reference),
    }
    clouds = {
        name: Watch(belief, size.num_particles).follow(test, seed=5)
        for name, belief in beliefs.items()
    }
    ahead = next_step(pair.model, clouds, test, seed=6)
    return {name: values[size.first - 1 :].mean(0).tolist() for name, values in ahead.items()}


class Distance(NamedTuple):
    """How far a filter is from the Kalman filter, on sequences of the chain.

    mean: root mean squared difference of the means, over the root mean square of Kalman's.
    variance: over Kalman's, averaged over sequences; the step where it is farthest from one.
    variance_spread: root mean squared relative difference of the variance over sequences and steps.
    """

    mean: float
    variance: float
    variance_spread: float


def moments(network, observations):
    """Mean and variance of a filter's belief, each [time, replicas, sequences, latent].

    Args:
      network: `FilterNetwork`.
      observations: [time, sequences, channels]; every replica sees the same.
    """
    batch = for_replicas(Batch(observations), network.num_replicas)
    belief = network.mixture(network.context(batch))
    return belief.mean().numpy(), belief.variance().numpy()


def kalman_distance(network, observations, world=CHAIN, replica=0):
    """Compare a filter's own moments with the Kalman filter's.

    Args:
      network: `FilterNetwork`.
      observations: [time, sequences, 1].
      world: `exact.LinearGaussian`.
      replica: which.

    Returns:
      `Distance`.
    """
    kalman = exact.kalman_filter(world, observations)
    mean, variance = (part[:, replica, :, 0] for part in moments(network, observations))
    known = kalman.means[..., 0]
    ratio = variance / kalman.covariances[:, :, 0]
    step = np.argmax(np.abs(ratio.mean(1) - 1))
    return Distance(
        float(np.sqrt(np.mean((mean - known) ** 2) / np.mean(known**2))),
        float(ratio.mean(1)[step]),
        float(np.sqrt(np.mean((ratio - 1) ** 2))),
    )


def from_kalman(filters, partial, problem, world=CHAIN):
    """Distances of all filters of all replicas; of the partial network the variance alone.

    Returns:
      {name: [seeds] of `Distance` as lists}; "partial q": [seeds], its variance at the middle step
      over that of the filter; "smoother": the same of the exact smoother.
    """
    x, replicas = problem.test.observations, problem.model.num_replicas
    found = {
        name: [list(kalman_distance(network, x, world, r)) for r in range(replicas)]
        for name, network in filters.items()
    }
    rows = np.repeat(x[:, np.newaxis], replicas, 1)
    watch = Watch(PartialPosterior(problem.model, partial, 1000), 1000)
    cloud = watch.follow(rows, seed=9)
    middle = len(x) // 2
    filtered = exact.kalman_filter(world, x).covariances[middle, 0, 0]
    joint = JointGaussian(world, len(x))
    smoothed = joint.condition(joint.state(middle), joint.observations)[1][0, 0]
    own = cloud[middle, ..., 0].var(-1, ddof=1).mean(-1)
    found["partial q"] = (own / filtered).tolist()
    found["smoother"] = float(smoothed / filtered)
    return found


# Stored results -----------------------------------------------------------------------------------


def stored(scale, variant):
    """Read the committed result of a variant.

    Raises:
      ResultError: if there is none, or it is incomplete or altered.
    """
    return results.stored("filters", scale, variant, options="--seeds 0 1 2")[0]


def coverage_of(result, name, level):
    """Share of simulated states inside the set of a level, over seeds, as an `Estimate`."""
    column = scoring.LEVELS.index(level)
    return Estimate.from_samples([row[column] for row in result["coverage"][name]], kind="seeds")
