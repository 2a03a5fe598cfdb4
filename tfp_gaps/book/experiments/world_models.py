"""World models of hikes and a pendulum, learned under given conditions, and what they are worth.

A run explores an environment at random, learns a model and an inference network with look-ahead k
side by side, and then measures, for each seed:

* the model: held-out likelihood and prediction,
* the beliefs that can be had with it: the adapted particle filter on the model; with k = 0 the
  partial network run as a filter; with full conditions a filter distilled from the smoother,
* what an agent earns that plans with it: with each of these beliefs, and with {true, learned}
  model x {true, learned} belief.

Every agent has the same planner and meets the same episodes. `experiments.known_dynamics` holds
the reference, and what inference alone costs. Likelihoods are nats per step, returns sums of
rewards.
"""

import functools
from dataclasses import asdict, dataclass, replace

import numpy as np

from tfp_gaps import _checks, training
from tfp_gaps._tensorflow import tf
from tfp_gaps.book import results, scales
from tfp_gaps.book.control import environments, scoring, state_map
from tfp_gaps.book.control.acting import LearnedSimulator, act
from tfp_gaps.book.control.beliefs import (
    AdaptedFilter,
    BootstrapFilter,
    DistilledFilter,
    MappedBelief,
    PartialPosterior,
)
from tfp_gaps.book.control.planning import Planner
from tfp_gaps.book.control.world_model import WorldModel
from tfp_gaps.book.data.splits import Splits
from tfp_gaps.book.data.store import digest_of_arrays
from tfp_gaps.book.distillation.filter_network import FilterNetwork, negative_log_likelihood
from tfp_gaps.book.experiments import sequential
from tfp_gaps.networks import for_replicas, replica_seeds
from tfp_gaps.posteriors.conditions import FULL, LookAhead
from tfp_gaps.posteriors.look_ahead import LookAheadNetwork
from tfp_gaps.sequential import fitting

HORIZONS = (1, 3, 6, 12)
PARTS = {"train": 0, "validation": 1, "test": 2}


@dataclass(frozen=True)
class Task:
    """An environment, and what is given to all who learn or plan in it.

    environment: one of `control.environments`.
    latent_size: of the model; the size that the true state needs, unless a variant says otherwise.
    planner: for every agent.
    num_particles: of the belief, that a plan must suit.
    first_scale: where the standard deviation of the model's first state starts.
    warms_up: whether the divergence gets its full weight only after some steps.
    """

    environment: object
    latent_size: int
    planner: Planner
    num_particles: int = 4
    first_scale: float = 0.7
    warms_up: bool = True


@dataclass(frozen=True)
class Size:
    """How much is explored, trained and measured.

    joint: training of model and inference network.
    distil: training of the distilled filter.
    hidden_size: of all networks.
    num_train, num_test: episodes of exploration to learn from, and to validate and test on each.
    num_timesteps: of an exploring episode.
    num_episodes: that an agent acts in, per seed.
    num_filter: particles of the filters.
    """

    joint: training.Settings
    distil: training.Settings
    hidden_size: int = 32
    num_train: int = 1000
    num_test: int = 200
    num_timesteps: int = 30
    num_episodes: int = 20
    num_filter: int = 500


_HIKE_PLANNER = Planner(horizon=12, num_candidates=48, num_elite=6, num_iterations=3, memory=0.6)
# Longer plans are worse under noise: they fix all torques before anything is seen, and an unstable
# pendulum leaves them. From upright, sigma = .05: -8 +- 3 over 8 decisions, -86 +- 10 over 15.
_PENDULUM_PLANNER = Planner(horizon=8, num_candidates=64, num_elite=8, num_iterations=4, memory=0.6)


def _task(name, noise):
    if name == "hike":
        return Task(environments.Hike(noise), 2, replace(_HIKE_PLANNER, horizon=15))
    if name == "momentum":
        return Task(environments.MomentumHike(noise), 4, _HIKE_PLANNER)
    torque = {"pendulum": 0.3, "calm": 0.0}[name]
    environment = environments.Pendulum(noise, torque_noise=torque)
    # Velocities reach 8. From .7, or with a warm-up, which lets q copy the data before there is a
    # reason to predict, most seeds make nothing of the hidden dimension even under full conditions.
    return Task(environment, 3, _PENDULUM_PLANNER, first_scale=4.0, warms_up=False)


NOISES = {
    "hike": (0.2,),
    "momentum": (0.05, 0.1, 0.2, 0.4),
    "pendulum": (0.02, 0.05, 0.1),
    "calm": (0.05,),
}
SPARE = {"momentum": (0.1, (6, 8)), "pendulum": (0.05, (4, 6))}


def _name(name, noise, latent=None):
    label = f"{name}-{round(100 * noise):03d}"
    return label if latent is None else f"{label}-latent{latent}"


def _tasks():
    tasks = {
        _name(name, noise): _task(name, noise)
        for name, levels in NOISES.items()
        for noise in levels
    }
    for name, (noise, sizes) in SPARE.items():
        for latent in sizes:
            tasks[_name(name, noise, latent)] = replace(_task(name, noise), latent_size=latent)
    return tasks


TASKS = _tasks()
"""All tasks by the name of their variant, such as momentum-010 for a noise of .10."""

VARIANTS = tuple(TASKS)


def _size(joint_steps, distil_steps, **options):
    common = {"batch_size": 32, "learning_rate": 1e-2, "clip_norm": 200.0, "steps_per_call": 50}
    warmup = min(300, joint_steps // 4)
    joint = training.Settings(joint_steps, kl_warmup_steps=warmup, **common)
    distil = training.Settings(distil_steps, **(common | {"learning_rate": 3e-3}))
    return Size(joint, distil, **options)


SIZES = {
    "smoke": _size(60, 60, hidden_size=8, num_train=64, num_test=16, num_episodes=2, num_filter=50),
    "book": _size(3000, 1500),
    "paper": _size(8000, 3000),
}


def size_of(scale):
    """The `Size` at a scale."""
    return SIZES[scales.check(scale)]


def task_of(variant):
    """The `Task` of a variant.

    Raises:
      ValueError: for a name that is not known.
    """
    return TASKS[_checks.one_of(variant, "variant", VARIANTS)]


def explore(task, size):
    """Exploring episodes to learn from, to validate and to test on: {part: `Episodes`}."""
    counts = {"train": size.num_train, "validation": size.num_test, "test": size.num_test}
    return {
        part: environments.explore(
            task.environment, num_episodes=count, num_timesteps=size.num_timesteps, seed=PARTS[part]
        )
        for part, count in counts.items()
    }


def splits_of(task, explored):
    """The sequences of explored episodes as `Splits`; their source names the checksum."""
    parts = {name: explored[name].sequences for name in PARTS}
    arrays = {
        f"{name}/{field}": getattr(part, field)
        for name, part in parts.items()
        for field in ("observations", "controls")
    }
    seeds = ", ".join(map(str, PARTS.values()))
    source = (
        f"simulated: {task.environment}, explored at random, seeds {seeds}, arrays SHA-256 "
        f"{digest_of_arrays(arrays)[:12]}"
    )
    return Splits(*parts.values(), source=source)


def learn(task, size, explored, *, conditions, seeds, known=None, **options):
    """Train a world model and its inference network; returns `sequential.Fitted`.

    Args:
      task, size: `Task`, `Size`.
      explored: from `explore`.
      conditions: `LookAhead`, what the network may see.
      seeds: one int per replica.
      known: a model that is not trained, in place of a new one that is.
      **options: checkpoint, progress: as in `training.fit`.
    """
    sizes = _network_sizes(task, size)
    model = known
    if known is None:
        model = WorldModel(
            **sizes, first_scale=task.first_scale, seeds=replica_seeds(seeds, "initial model")
        )
    network = LookAheadNetwork(
        **sizes,
        conditions=conditions,
        relative=True,
        seeds=replica_seeds(seeds, "initial network"),
    )
    return sequential.fit(
        model,
        network,
        splits_of(task, explored),
        size.joint if task.warms_up else replace(size.joint, kl_warmup_steps=0),
        seeds=seeds,
        learn_model=known is None,
        fingerprint=f"{task} {size} lookahead={conditions.lookahead} known={known is not None}",
        **options,
    )


def elbo_of(fitted, explored, size):
    """On the validation episodes, nats per step: one float per seed."""
    held_out = explored["validation"].sequences
    loss = fitting.validation_loss(fitted.model, fitted.network, held_out)
    return (-np.asarray(loss()) / size.num_timesteps).tolist()


def distil(fitted, task, size, explored, *, seeds, num_components=5, **options):
    """Train a filter on samples of the fitted smoother; returns (`FilterNetwork`, `History`)."""
    network = FilterNetwork(
        **_network_sizes(task, size, fitted.model.latent_size),
        num_components=num_components,
        seeds=replica_seeds(seeds, "initial filter"),
    )
    history = training.fit(
        negative_log_likelihood(network, functools.partial(sequential.draw_paths, fitted)),
        list(network.trainable_variables),
        explored["train"].sequences.batch,
        size.distil,
        axis=1,
        seeds=seeds,
        fingerprint=f"distilled {task} {size} components={num_components}",
        **options,
    )
    return network, history


def _network_sizes(task, size, latent=None):
    return {
        "observation_size": task.environment.observation_size,
        "latent_size": task.latent_size if latent is None else latent,
        "control_size": task.environment.action_size,
        "hidden_size": size.hidden_size,
    }


def beliefs_of(fitted, task, size, distilled=None):
    """The beliefs that can be had with a fitted model: {name: belief}."""
    found = {"filter": AdaptedFilter(fitted.model, size.num_filter)}
    if fitted.network.conditions == LookAhead(0):
        found["partial q"] = PartialPosterior(fitted.model, fitted.network, size.num_filter)
    if distilled is not None:
        found["distilled"] = DistilledFilter(distilled)
    return found


class StateMaps:
    """Between the true states and a model's latents, fitted on training episodes.

    to_latents, to_states: for `beliefs.MappedBelief`.
    explained: {"latents", "states": [replicas, outputs]}; empty where nothing is hidden.
    """

    def __init__(self, fitted, task, explored, seeds):
        self._environment, self._size = task.environment, task.environment.observation_size
        sequences, replicas = explored["train"].sequences, fitted.model.num_replicas

        @tf.function
        def draw(batch):
            return sequential.draw_paths(fitted, batch, replica_seeds(seeds, "translation"))

        latents = draw(for_replicas(sequences.batch, replicas)).numpy()
        states = np.repeat(explored["train"].states[:, np.newaxis], replicas, 1)
        # The first steps of an episode, where little is known yet, would blur the relation.
        latents, states = (
            np.moveaxis(array[5:], 1, 0).reshape(replicas, -1, array.shape[-1])
            for array in (latents, states)
        )
        shown = task.environment.emission(tf.constant(states)).numpy()
        hidden = task.environment.hidden(states)
        self._to_latents = self._to_hidden = None
        self.explained = {}
        if latents.shape[-1] > self._size:
            known = np.concatenate([shown, hidden], -1)
            self._to_latents = state_map.fit(known, latents[..., self._size :])
            self.explained["latents"] = self._to_latents.explained
        if hidden.shape[-1]:
            self._to_hidden = state_map.fit(latents, hidden)
            self.explained["states"] = self._to_hidden.explained

    def to_latents(self, states, seed):
        """Draw latents for true states."""
        shown = self._environment.emission(states)
        if self._to_latents is None:
            return shown
        known = tf.concat([shown, self._environment.hidden(states)], -1)
        return tf.concat([shown, self._to_latents(known, seed)], -1)

    def to_states(self, latents, seed):
        """Draw true states for latents."""
        shown = self._environment.visible(latents[..., : self._size])
        if self._to_hidden is None:
            return shown
        return tf.concat([shown, self._to_hidden(latents, seed)], -1)


def run(*, scale, conditions, seeds, variant, checkpoint_folder=None, progress=None):
    """Learn, measure and act; see the module.

    Args:
      scale: "smoke", "book" or "paper".
      conditions: `LookAhead`.
      seeds: list of ints, one per replica.
      variant: name of a task, one of `VARIANTS`.
      checkpoint_folder: where training keeps its checkpoints, or None.
      progress: callable (phase, steps) -> callback for `training.fit`, or None.

    Returns:
      A JSON-serialisable dict. Arrays have the seeds first: "log_evidence" [seeds][episodes] per
      step; "prediction" {belief: [horizons][seeds]}; "calibration" {belief: fields of
      `scoring.Calibration`}; "returns" {agent: [seeds][episodes]}.
    """
    task, size = task_of(variant), size_of(scale)
    explored = explore(task, size)
    options = functools.partial(results.training_options, checkpoint_folder, progress)
    fitted = learn(
        task,
        size,
        explored,
        conditions=conditions,
        seeds=seeds,
        **options("joint", size.joint.num_steps),
    )
    distilled = None
    if conditions == FULL:
        distilled, _ = distil(
            fitted, task, size, explored, seeds=seeds, **options("distil", size.distil.num_steps)
        )
    beliefs = beliefs_of(fitted, task, size, distilled)
    state_maps = StateMaps(fitted, task, explored, seeds)
    measured = measure(task, size, beliefs, LearnedSimulator(fitted.model, task.environment), seeds)
    returns = {
        name: rollout.returns.tolist()
        for name, rollout in agents(task, size, fitted, beliefs, state_maps, seeds).items()
    }
    return {
        "experiment": "world_models",
        "scale": scale,
        "variant": variant,
        "lookahead": conditions.lookahead,
        "seeds": list(seeds),
        "size": asdict(size),
        "task": str(task),
        "data": splits_of(task, explored).source,
        "diverged": fitted.history.diverged.tolist(),
        "elbo": elbo_of(fitted, explored, size),
        "observation_noise": fitted.model.observation_noise.numpy()[:, 0].tolist(),
        "transition_scale": fitted.model.transition_scale.numpy()[:, 0].tolist(),
        "explained": {name: share.tolist() for name, share in state_maps.explained.items()},
        **measured,
        "returns": returns,
    }


def measure(task, size, beliefs, simulator, seeds, *, particle_filter=None):
    """Likelihood, prediction and calibration on held-out exploration.

    Args:
      task, size: `Task`, `Size`.
      beliefs: {name: belief}, over the simulator's states.
      simulator: the environment, or a `LearnedSimulator`.
      seeds: of the replicas.
      particle_filter: for the likelihood; the belief "filter" by default.

    Returns:
      {"log_evidence", "prediction", "calibration"}, see `run`.
    """
    environment, test = task.environment, explore(task, size)["test"]
    emission = environment.emission if simulator is environment else simulator.model.shown
    particle_filter = beliefs["filter"] if particle_filter is None else particle_filter
    evidence = scoring.log_evidence(
        particle_filter, test.sequences, num_replicas=len(seeds), seed=11
    )
    prediction, calibration = {}, {}
    for name, belief in beliefs.items():
        clouds = scoring.follow(
            belief, test.sequences, num_replicas=len(seeds), num_particles=200, seed=12
        )
        shown = emission(tf.constant(clouds)).numpy()
        scores = scoring.calibrate(environment, shown, test.states)
        calibration[name] = {key: value.tolist() for key, value in scores._asdict().items()}
        errors = scoring.prediction_errors(
            environment, simulator, clouds, test, start=10, horizons=HORIZONS, seed=13
        )
        prediction[name] = errors.tolist()
    return {
        "log_evidence": evidence.mean(0).tolist(),
        "prediction": prediction,
        "calibration": calibration,
    }


def agents(task, size, fitted, beliefs, state_maps, seeds, *, names=None):
    """Let agents act with a learned model, a learned belief, or both.

    Args:
      names: which agents; None for all.

    Returns:
      {name: `Rollout`}. "model + BELIEF" plans with the learned model, "truth + BELIEF" with the
      true one; "model + true filter" has the learned model and the true belief.
    """
    environment = task.environment
    simulator = LearnedSimulator(fitted.model, environment)
    truth = BootstrapFilter(environment, 2 * size.num_filter)
    wanted = {f"model + {name}": (simulator, belief) for name, belief in beliefs.items()}
    wanted["model + true filter"] = (simulator, MappedBelief(truth, state_maps.to_latents))
    learned = MappedBelief(beliefs["filter"], state_maps.to_states)
    wanted["truth + filter"] = (environment, learned)
    return {
        name: play(task, size, *parts, len(seeds))
        for name, parts in wanted.items()
        if names is None or name in names
    }


def play(task, size, simulator, belief, num_replicas, *, num_episodes=None):
    """Let one agent act in the task's episodes; returns `Rollout`."""
    return act(
        task.environment,
        simulator,
        belief,
        task.planner,
        num_replicas=num_replicas,
        num_episodes=size.num_episodes if num_episodes is None else num_episodes,
        seed=14,
        num_particles=task.num_particles,
    )


def stored(scale, variant, conditions):
    """Read the committed result.

    Raises:
      ResultError: if there is none, or it is incomplete or altered.
    """
    options = f"--lookahead {conditions} --seeds 0 1 2 3 4"
    found = results.stored(
        "world_models", scale, variant, names=f"k{conditions}-*.json", options=options
    )
    return found[0]
