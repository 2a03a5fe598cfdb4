"""What can be earned when the dynamics are known, and what inference alone costs.

The reference for `experiments.world_models`: the same planner with the true dynamics, in the same
episodes, by an agent that knows the state and by one that has a particle filter; below both, one
that acts at random. Replicas differ by the noise of planner and filter alone.

In the plain hike the true dynamics are a `WorldModel` with known parameters. There inference
networks are trained, the model is not, and agents plan with the truth and believe what the networks
say. Likelihoods are nats per step, returns sums of rewards.
"""

import functools
from dataclasses import asdict

import numpy as np

from tfp_gaps import _checks
from tfp_gaps.book import results
from tfp_gaps.book.control.acting import LearnedSimulator
from tfp_gaps.book.control.beliefs import BootstrapFilter, ExactState
from tfp_gaps.book.control.environments import Hike
from tfp_gaps.book.control.world_model import WorldModel
from tfp_gaps.book.experiments import world_models
from tfp_gaps.networks import replica_seeds
from tfp_gaps.posteriors.conditions import FULL, LookAhead

VARIANTS = tuple(name for name in world_models.VARIANTS if "latent" not in name)


def known_hike(environment, seeds):
    """The plain hike as a `WorldModel`, one replica per seed, all alike.

    The first state of exploration is uniform in [-1, 1]; the model's is normal with its variance.

    Args:
      environment: `Hike`.
      seeds: ints.

    Raises:
      ValueError: for another environment.
    """
    if not isinstance(environment, Hike):
        raise ValueError(
            f"only the plain hike is a world model with known parameters, but got {environment}."
        )
    model = WorldModel(
        observation_size=2,
        latent_size=2,
        control_size=2,
        hidden_size=1,
        seeds=replica_seeds(seeds, "known"),
    )
    move = np.concatenate([np.zeros([2, 2]), np.eye(2)]).astype(np.float32)
    model.set_parameters(
        linear=move,
        first_scale=1 / np.sqrt(3.0),
        transition_scale=0.025,
        observation_noise=environment.observation_noise,
    )
    return model


def run(*, scale, seeds, variant, checkpoint_folder=None, progress=None):
    """Act with known dynamics; see the module.

    Args:
      scale: "smoke", "book" or "paper".
      seeds: list of ints, one per replica.
      variant: one of `VARIANTS`.
      checkpoint_folder, progress: as in `world_models.run`.

    Returns:
      A JSON-serialisable dict: "returns" {agent: [seeds][episodes]}; "calibration", "prediction"
      and "log_evidence" as in `world_models.run`; "elbo" {network: [seeds]}.
    """
    task = world_models.task_of(_checks.one_of(variant, "variant", VARIANTS))
    size, environment = world_models.size_of(scale), task.environment
    wide = BootstrapFilter(environment, 2 * size.num_filter)
    wanted = {
        "random": (None, None),
        "exact state": (environment, ExactState()),
        "particle filter": (environment, wide),
    }
    # Exploration starts anywhere, which takes more particles.
    watching = BootstrapFilter(environment, 10 * size.num_filter, exploring=True)
    measured = world_models.measure(
        task, size, {"particle filter": watching}, environment, seeds, particle_filter=watching
    )
    elbo = {}
    if isinstance(environment, Hike):
        model = known_hike(environment, seeds)
        beliefs, elbo = _trained(task, size, model, seeds, checkpoint_folder, progress)
        simulator = LearnedSimulator(model, environment)
        wanted |= {name: (simulator, belief) for name, belief in beliefs.items()}
        networks = world_models.measure(
            task, size, beliefs, simulator, seeds, particle_filter=watching
        )
        for key in ("prediction", "calibration"):
            measured[key] |= networks[key]
    returns = {
        name: world_models.play(task, size, *parts, len(seeds)).returns.tolist()
        for name, parts in wanted.items()
    }
    return {
        "experiment": "known_dynamics",
        "scale": scale,
        "variant": variant,
        "seeds": list(seeds),
        "size": asdict(size),
        "task": str(task),
        "data": world_models.splits_of(task, world_models.explore(task, size)).source,
        "elbo": elbo,
        **measured,
        "returns": returns,
    }


def _trained(task, size, model, seeds, folder, progress):
    """Beliefs {name: belief} of networks that were trained on the known model, and their ELBOs."""
    explored = world_models.explore(task, size)
    options = functools.partial(results.training_options, folder, progress)
    beliefs, elbo = {}, {}
    for conditions in (LookAhead(0), FULL):
        name = conditions.label
        fitted = world_models.learn(
            task,
            size,
            explored,
            conditions=conditions,
            seeds=seeds,
            known=model,
            **options(name, size.joint.num_steps),
        )
        elbo[name] = world_models.elbo_of(fitted, explored, size)
        distilled = None
        if conditions == FULL:
            distilled, _ = world_models.distil(
                fitted,
                task,
                size,
                explored,
                seeds=seeds,
                **options("distil", size.distil.num_steps),
            )
        found = world_models.beliefs_of(fitted, task, size, distilled)
        del found["filter"]
        beliefs |= found
    return beliefs, elbo


def stored(scale, variant):
    """Read the committed result.

    Raises:
      ResultError: if there is none, or it is incomplete or altered.
    """
    return results.stored("known_dynamics", scale, variant, options="--seeds 0 1 2 3 4")[0]
