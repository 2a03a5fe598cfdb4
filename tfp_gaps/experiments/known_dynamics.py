"""What can be earned when the dynamics are known, and what inference alone costs.

The reference for `experiments.world_models`: the same planner with the true dynamics, in the same
episodes, by an agent that knows the state and by one that has a particle filter; below both, one
that acts at random. Replicas differ by the noise of planner and filter alone.

In the plain hike the true dynamics are a `WorldModel` with known parameters. There inference
networks are trained, the model is not, and agents plan with the truth and believe what the networks
say. Likelihoods are nats per step, returns sums of rewards.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from tfp_gaps import _checks, results, scales
from tfp_gaps.control.acting import LearnedSimulator
from tfp_gaps.control.beliefs import BootstrapFilter, ExactState
from tfp_gaps.control.environments import Hike
from tfp_gaps.experiments import sequential, world_models
from tfp_gaps.inference.look_ahead import LookAheadNetwork
from tfp_gaps.models.world_model import WorldModel
from tfp_gaps.networks import replica_seeds

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
    watching = BootstrapFilter(environment, 4 * size.num_filter, exploring=True)
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
    splits = world_models.splits_of(task, explored)

    def options(name, steps):
        return {
            "checkpoint": None if folder is None else Path(folder) / f"{name}.npz",
            "progress": None if progress is None else progress(name, steps),
        }

    beliefs, elbo = {}, {}
    for name, lookahead in (("partial", 0), ("full", None)):
        network = LookAheadNetwork(
            observation_size=2,
            latent_size=2,
            control_size=2,
            hidden_size=size.hidden_size,
            relative=True,
            seeds=replica_seeds(seeds, "initial network"),
        )
        fitted = sequential.fit(
            model,
            network,
            splits,
            size.joint,
            lookahead=lookahead,
            seeds=seeds,
            learn_model=False,
            fingerprint=f"known {task} {size} lookahead={lookahead}",
            **options(name, size.joint.num_steps),
        )
        loss = sequential.validation_loss(model, network, lookahead, splits.validation)()
        elbo[name] = (-np.asarray(loss) / size.num_timesteps).tolist()
        distilled = None
        if lookahead is None:
            steps = size.distil.num_steps
            distilled, _ = world_models.distil(
                fitted, task, size, explored, seeds=seeds, **options("distil", steps)
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
    folder = results.FOLDER / "known_dynamics" / scales.check(scale) / variant
    found = sorted(folder.glob("seed*.json"))
    if not found:
        raise results.ResultError(
            f"expected a stored result in {folder}, but found none. Make it: tfp-gaps run "
            f"known_dynamics --scale {scale} --seeds 0 1 2 3 4 --variant {variant}"
        )
    return results.load(found[0])
