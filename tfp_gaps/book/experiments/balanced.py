"""World models whose q and p are weighed apart, by networks: KL balancing with stopped gradients.

Under partial and under full conditions, and with several weights beta, the same model and network
are trained from the same seeds by `sequential.balancing.balanced_loss`. Each model is then measured
on held-out sequences by the adapted particle filter, which needs no q, and where there is a task to
act in, by what its planner earns. Variants:

* "chain": the slow chain of the closed form, eight steps, observed with standard deviation one;
* a task of `experiments.world_models`; its model has a state for each channel that the sensor
  shows, and others that are hidden;
* NAME-held: the sensor noise is held at its true value instead of learned;
* NAME-samples: the divergence teaches earlier steps of q through their draws, too.

A last training has full conditions and the smallest weight, but starts from what full conditions
learned with weight one: does balancing lead away from there?

All likelihoods are nats per step.
"""

import copy
import functools
from dataclasses import asdict, dataclass, replace

import numpy as np
import scipy.stats

from tfp_gaps import _checks, training
from tfp_gaps._tensorflow import tf
from tfp_gaps.book import results, scales
from tfp_gaps.book.control import scoring
from tfp_gaps.book.control.acting import LearnedSimulator
from tfp_gaps.book.control.beliefs import AdaptedFilter
from tfp_gaps.book.control.world_model import WorldModel
from tfp_gaps.book.data.store import digest_of_arrays
from tfp_gaps.book.experiments import world_models
from tfp_gaps.estimate import INDEPENDENT, Estimate
from tfp_gaps.exact import linear_gaussian
from tfp_gaps.models.state_space import DiagonalNormal
from tfp_gaps.networks import replica_seeds
from tfp_gaps.posteriors.conditions import FULL, LookAhead
from tfp_gaps.posteriors.look_ahead import LookAheadNetwork
from tfp_gaps.sequences import Sequences
from tfp_gaps.sequential import fitting
from tfp_gaps.sequential.balancing import balanced_loss

CONDITIONS = {"partial": LookAhead(0), "full": FULL}
CHAIN = linear_gaussian.LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
CHAIN_STEPS = 8
_FIRST_SCALE = 0.1  # where standard deviations of q start, as the process noise of p does
NUM_CHAINS = {"smoke": 200, "book": 20_000, "paper": 20_000}
_NUM_TEST = {"smoke": 50, "book": 2000, "paper": 2000}


@dataclass(frozen=True)
class Variant:
    """What is trained.

    world: "chain", or the name of a task of `world_models`.
    weights: beta of each training.
    held: whether the sensor noise is held at its true value.
    through_samples: see `balancing.balanced_loss`.
    """

    world: str
    weights: tuple = (1.0, 0.1)
    held: bool = False
    through_samples: bool = False


def _variants():
    known = {}
    for base in (
        Variant("chain", (1.0, 0.5, 0.1)),
        Variant("momentum-010"),
        Variant("momentum-010-latent6"),
    ):
        known[base.world] = base
        known[f"{base.world}-held"] = replace(base, held=True)
        known[f"{base.world}-samples"] = replace(base, through_samples=True)
    return known


KNOWN = _variants()
VARIANTS = tuple(KNOWN)


class HeldNoise(WorldModel):
    """A `WorldModel` whose sensor noise is not learned.

    Args:
      noise: r, its standard deviation, the same for all channels.
      **options: as for `WorldModel`.
    """

    def __init__(self, *, noise, **options):
        super().__init__(**options)
        noise = _checks.positive_float(noise, "noise")
        self._held = tf.fill([self.num_replicas, 1, self.observation_size], noise)

    def with_noise(self, share):
        """This model with a share of its sensor noise: a copy with the same variables."""
        other = copy.copy(self)
        other._held = share * self._held
        return other

    @property
    def observation_noise(self):
        return self._held


class FreeNetwork(LookAheadNetwork):
    """A `LookAheadNetwork` that does not know p: its mean is a step from z_{t-1}.

    Where q is a correction of the prior, p moves q with every update, and no gradient tells it so.
    With one gradient for both that does no harm. With stops it does: on the slow chain such a pair
    drove the process noise to zero even where q had the full weight and full conditions.

    Args:
      smallest: lower bound on the standard deviations.
      **options: as for `LookAheadNetwork`.
    """

    def __init__(self, *, smallest, **options):
        super().__init__(**options)
        self.smallest = _checks.positive_float(smallest, "smallest")

    def factor(self, prior, latent, context):
        """q(z_t | z_{t-1}, C_t); see `LookAheadNetwork.factor`."""
        del prior
        hidden = context if latent is None else context + self._latent(latent)
        step, raw = tf.split(self._output(tf.nn.relu(hidden)), 2, axis=-1)
        mean = step if latent is None else latent + step
        return DiagonalNormal(mean, _FIRST_SCALE * tf.exp(raw) + self.smallest)


class World:
    """What is learned: sequences, sizes, training, and the true sensor noise."""

    def __init__(self, variant, scale):
        size = world_models.size_of(scale)
        # With a warm-up q copies the data before there is a reason to predict: on the chain three
        # of three networks with weight 1 and full conditions were still in the copy after 3,000
        # steps, and none without.
        self.size = replace(size, joint=replace(size.joint, kl_warmup_steps=0))
        if variant.world == "chain":
            self.task, self.noise = None, float(CHAIN.emission_cov.item()) ** 0.5
            counts = {"train": NUM_CHAINS[scale], "test": _NUM_TEST[scale]}
            seeds = {part: world_models.PARTS[part] for part in counts}
            self.sequences = {part: _chain(count, seeds[part]) for part, count in counts.items()}
            arrays = {part: each.observations for part, each in self.sequences.items()}
            self.source = (
                f"simulated: the slow chain, {CHAIN_STEPS} steps, {counts} sequences, seeds "
                f"{seeds}, arrays SHA-256 {digest_of_arrays(arrays)[:12]}"
            )
            self.latent_size, self.control_size, self.first_scale = 1, 1, 0.7
        else:
            self.task = world_models.task_of(variant.world)
            self.noise = self.task.environment.observation_noise
            explored = world_models.explore(self.task, self.size)
            self.source = world_models.splits_of(self.task, explored).source
            self.sequences = {part: explored[part].sequences for part in ("train", "test")}
            self.latent_size, self.first_scale = self.task.latent_size, self.task.first_scale
            self.control_size = self.task.environment.action_size

    def true_log_likelihood(self):
        """Of the test sequences under the chain, nats per step; None for another world."""
        if self.task is not None:
            return None
        times = np.arange(CHAIN_STEPS)
        covariance = CHAIN.initial_cov.item() * CHAIN.transition.item() ** np.abs(
            times[:, np.newaxis] - times
        ) + CHAIN.emission_cov.item() * np.eye(CHAIN_STEPS)
        x = self.sequences["test"].observations[..., 0].T.astype(np.float64)
        return scipy.stats.multivariate_normal(cov=covariance).logpdf(x) / CHAIN_STEPS


def _chain(count, seed):
    observations = linear_gaussian.sample(CHAIN, CHAIN_STEPS, count, seed)[1]
    # The model of the other worlds takes an action; here nothing acts.
    return Sequences(observations, np.zeros_like(observations))


def learn(world, variant, weight, *, conditions, seeds, start=None, **options):
    """Train a model and its network with one weight; returns model, network and `History`.

    Args:
      world: `World`.
      variant: `Variant`.
      weight: beta.
      conditions: `LookAhead`.
      seeds: one int per replica.
      start: model and network under the same conditions from whose values training starts; None
        for afresh.
      **options: checkpoint, progress: as in `training.fit`.
    """
    sizes = {
        "observation_size": world.sequences["train"].observations.shape[-1],
        "latent_size": world.latent_size,
        "control_size": world.control_size,
        "hidden_size": world.size.hidden_size,
    }
    own = {"first_scale": world.first_scale, "seeds": replica_seeds(seeds, "initial model")}
    if variant.held:
        model = HeldNoise(noise=world.noise, **sizes, **own)
    else:
        model = WorldModel(**sizes, **own)
    network = FreeNetwork(
        **sizes,
        conditions=conditions,
        smallest=model.minimum_scale,
        seeds=replica_seeds(seeds, "initial network"),
    )
    variables = [*network.trainable_variables, *model.trainable_variables]
    if start is not None:
        values = [variable for each in reversed(start) for variable in each.trainable_variables]
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
    described = f"{weight} {conditions.lookahead}" + ("" if start is None else " from a start")
    history = training.fit(
        balanced_loss(model, network, weight, through_samples=variant.through_samples),
        variables,
        world.sequences["train"].batch,
        world.size.joint,
        axis=1,
        seeds=seeds,
        fingerprint=f"{variant} {world.source} {world.size} {described}",
        **options,
    )
    return model, network, history


def run(*, scale, seeds, variant, checkpoint_folder=None, progress=None):
    """Learn with each weight under both conditions, measure, and act; see the module.

    Args:
      scale: "smoke", "book" or "paper".
      seeds: list of ints, one per replica.
      variant: one of `VARIANTS`.
      checkpoint_folder, progress: as in `world_models.run`.

    Returns:
      A JSON-serialisable dict. "trained" is a list with, for each training, "conditions", "weight",
      "from_one" (where it started), "log_evidence" [seeds][sequences] and "elbo" [seeds] of the
      test sequences, nats per step (None where q diverged), "observation_noise",
      "transition_scale" [seeds][components], "diverged" [seeds] and, with a task, "returns"
      [seeds][episodes]. Where the noise is held,
      "log_evidence_acted" is that of the same dynamics at the smaller noise that q acts on. "truth"
      has the log-likelihood of the test sequences under the chain.
    """
    scales.check(scale)
    known = KNOWN[_checks.one_of(variant, "variant", VARIANTS)]
    world = World(known, scale)
    options = functools.partial(results.training_options, checkpoint_folder, progress)
    trained, pairs = [], {}
    least = min(known.weights)
    plan = [(name, weight, None) for name in CONDITIONS for weight in known.weights]
    for name, weight, start in [*plan, ("full", least, ("full", 1.0))]:
        phase = f"{name}-{round(100 * weight):03d}" + ("" if start is None else "-from-one")
        pair = learn(
            world,
            known,
            weight,
            conditions=CONDITIONS[name],
            seeds=seeds,
            start=None if start is None else pairs[start],
            **options(phase, world.size.joint.num_steps),
        )
        pairs[name, weight] = pair[:2]
        row = {"conditions": name, "weight": weight, "from_one": start is not None}
        row |= measure(world, *pair[:2], seeds)
        if known.held:
            acted = pair[0].with_noise(weight**0.5)
            row["log_evidence_acted"] = evidence_of(world, acted, seeds)[1]
        trained.append(row | {"diverged": pair[2].diverged.tolist()})
    truth = world.true_log_likelihood()
    return {
        "experiment": "balanced",
        "scale": scale,
        "variant": variant,
        "seeds": list(seeds),
        "size": asdict(world.size),
        "task": str(known),
        "data": world.source,
        "true_noise": world.noise,
        "truth": None if truth is None else np.round(truth, 6).tolist(),
        "trained": trained,
    }


def measure(world, model, network, seeds):
    """Evidence, bound and parameters of a model, and what its planner earns; see `run`."""
    test = world.sequences["test"]
    loss = fitting.validation_loss(model, network, test)
    belief, evidence = evidence_of(world, model, seeds)
    elbo = -np.asarray(loss()) / test.num_timesteps
    found = {
        "elbo": [float(value) if np.isfinite(value) else None for value in elbo],
        "log_evidence": evidence,
        "observation_noise": model.observation_noise.numpy()[:, 0].tolist(),
        "transition_scale": model.transition_scale.numpy()[:, 0].tolist(),
    }
    if world.task is not None:
        simulator = LearnedSimulator(model, world.task.environment)
        rollout = world_models.play(world.task, world.size, simulator, belief, len(seeds))
        found["returns"] = rollout.returns.tolist()
    return found


def evidence_of(world, model, seeds):
    """The filter of a model, and ln p of each test sequence by it, [seeds][sequences] per step."""
    belief = AdaptedFilter(model, world.size.num_filter)
    values = scoring.log_evidence(belief, world.sequences["test"], num_replicas=len(seeds), seed=11)
    return belief, np.round(values.mean(0), 6).tolist()


def stored(scale, variant):
    """Read the committed result.

    Raises:
      ResultError: if there is none, or it is incomplete or altered.
    """
    return results.stored("balanced", scale, variant, options="--seeds 0 1 2 3 4")[0]


def trained(result, conditions, weight, from_one=False):
    """What a stored result has of one training.

    Args:
      result: from `stored`.
      conditions: "partial" or "full".
      weight: beta.
      from_one: whether it started where weight one ended.
    """
    keys = ("conditions", "weight", "from_one")
    wanted = (conditions, weight, from_one)
    (found,) = [row for row in result["trained"] if tuple(row[key] for key in keys) == wanted]
    return found


def difference(result, one, other, quantity="log_evidence"):
    """One training minus another, over seeds and test sequences, or episodes, together.

    Seeds of which one of the two diverged are left out: what remains of such a training is where
    it was before. `num_diverged` counts them.

    Args:
      result: from `stored`.
      one, other: of the trainings, what `trained` takes.
      quantity: "log_evidence" or "log_evidence_acted", nats per step, or "returns".

    Returns:
      `Estimate`.
    """
    kept = _kept(result, one, other)
    values, others = (np.array(trained(result, *each)[quantity])[kept] for each in (one, other))
    return Estimate.from_crossed(values - others, INDEPENDENT, kind="seeds and sequences")


def left_over(result, weight, share):
    """What full conditions are worth at a weight, less a share of what they are worth at one.

    Args:
      result: from `stored`.
      weight: beta.
      share: of full minus partial at weight one.

    Returns:
      `Estimate`, nats per step, over seeds and test sequences together.
    """
    trainings = [(name, each) for each in (weight, 1.0) for name in ("full", "partial")]
    kept = _kept(result, *trainings)
    full, partial, full_one, partial_one = (
        np.array(trained(result, *each)["log_evidence"])[kept] for each in trainings
    )
    values = full - partial - share * (full_one - partial_one)
    return Estimate.from_crossed(values, INDEPENDENT, kind="seeds and sequences")


def lost(result, *training):
    """What the truth of the chain has more of log-likelihood than a model, nats per step."""
    values = np.array(trained(result, *training)["log_evidence"])[_kept(result, training)]
    kind = "seeds and sequences"
    return Estimate.from_crossed(np.array(result["truth"]) - values, INDEPENDENT, kind=kind)


def mean(result, quantity, *training):
    """Mean of a quantity over the seeds whose training did not diverge, and over sequences.

    Args:
      result: from `stored`.
      quantity: "log_evidence" or "log_evidence_acted", nats per step, or "returns".
      training: what `trained` takes.

    Returns:
      `Estimate`.
    """
    values = np.array(trained(result, *training)[quantity])[_kept(result, training)]
    return Estimate.from_crossed(values, INDEPENDENT, kind="seeds and sequences")


def relative_noise(result, *training):
    """Learned over true standard deviation of the sensor, mean over channels, over seeds."""
    learned = np.array(trained(result, *training)["observation_noise"])[_kept(result, training)]
    return Estimate.from_samples(learned.mean(axis=1) / result["true_noise"], kind="seeds")


def num_diverged(result):
    """How many of all trainings and seeds diverged."""
    return int(sum(sum(row["diverged"]) for row in result["trained"]))


def _kept(result, *trainings):
    """bool [seeds]: none of the trainings diverged."""
    return ~np.any([trained(result, *each)["diverged"] for each in trainings], axis=0)
