"""What agents expect in the model that they learned, and what they get.

For partial and for full conditions a world model is learned as in `experiments.world_models`, from
the same data with the same seeds. Two agents of each model then act twice, in the model itself (the
"dream") and in the true environment ("real"):

* the planner of that experiment with the particle filter of its model,
* a `Policy`: a recurrent network, optimised by gradients through roll-outs of the model.

A third policy is optimised in the true simulator. Dreamt minus real return is what an agent expects
too much. Rewards are those of what the sensor shows, in both worlds; returns are sums of rewards.
"""

import functools
from dataclasses import asdict

import numpy as np

from tfp_gaps import training
from tfp_gaps._tensorflow import tf
from tfp_gaps.book import results
from tfp_gaps.book.control.acting import LearnedSimulator, act, weather
from tfp_gaps.book.control.beliefs import AdaptedFilter
from tfp_gaps.book.control.policy import Dream, Policy, negative_return, roll_out
from tfp_gaps.book.experiments import world_models
from tfp_gaps.networks import replica_seeds
from tfp_gaps.posteriors.conditions import FULL, LookAhead

VARIANTS = world_models.VARIANTS
CONDITIONS = {"partial": LookAhead(0), "full": FULL}
NUM_STEPS = {"smoke": 20, "book": 600, "paper": 600}
"""Optimiser steps of a policy: on the true simulator of the momentum hike the loss of 300 steps was
within one of that of 600."""
EPISODES = 10
"""A policy is scored on so many times the planner's episodes: it costs little."""
_SEED, _NUM_STARTS = 14, 4096
_OPTIMISER = {"batch_size": 64, "learning_rate": 5e-3, "clip_norm": 50.0}


def run(*, scale, seeds, variant, checkpoint_folder=None, progress=None):
    """Learn models, optimise policies in them, and let all agents act; see the module.

    Args:
      scale: "smoke", "book" or "paper".
      seeds: list of ints, one per replica.
      variant: one of `VARIANTS`.
      checkpoint_folder, progress: as in `world_models.run`.

    Returns:
      A JSON-serialisable dict: "returns" {"planner", "policy": {conditions: {"dream", "real":
      [seeds][episodes]}}}, for the policy also under "truth", with "real" alone; "elbo" of the
      models, {conditions: [seeds]}, nats per step.
    """
    task, size = world_models.task_of(variant), world_models.size_of(scale)
    explored = world_models.explore(task, size)
    options = functools.partial(results.training_options, checkpoint_folder, progress)
    elbo, returns = {}, {"planner": {}, "policy": {}}

    def optimised(world_of, name):
        num_steps = NUM_STEPS[scale]
        phase = f"policy-{name}"
        return optimise(world_of, phase, task, size, seeds, num_steps, **options(phase, num_steps))

    for name, conditions in CONDITIONS.items():
        fitted = world_models.learn(
            task,
            size,
            explored,
            conditions=conditions,
            seeds=seeds,
            **options(name, size.joint.num_steps),
        )
        elbo[name] = world_models.elbo_of(fitted, explored, size)
        dream_of = dreams(fitted, task, explored, seeds)
        worlds = {"dream": dream_of(replica_seeds([_SEED], "dream")[0]), "real": task.environment}
        policy = optimised(dream_of, name)
        returns["planner"][name] = {
            key: planned(world, fitted.model, task, size) for key, world in worlds.items()
        }
        returns["policy"][name] = {
            key: score(world, policy, task, size) for key, world in worlds.items()
        }
    policy = optimised(lambda seed: task.environment, "truth")
    returns["policy"]["truth"] = {"real": score(task.environment, policy, task, size)}
    return {
        "experiment": "imagined",
        "scale": scale,
        "variant": variant,
        "seeds": list(seeds),
        "size": asdict(size),
        "task": str(task),
        "data": world_models.splits_of(task, explored).source,
        "elbo": elbo,
        "returns": returns,
    }


def dreams(fitted, task, explored, seeds):
    """Make environments of a fitted model: seed int32 [2] -> `Dream`."""
    state_maps = world_models.StateMaps(fitted, task, explored, seeds)
    return functools.partial(Dream, fitted.model, task.environment, state_maps.to_latents)


def planned(world, model, task, size):
    """Returns of the planner with the filter of a model, in a world: [replicas][episodes]."""
    rollout = act(
        world,
        LearnedSimulator(model, task.environment),
        AdaptedFilter(model, size.num_filter),
        task.planner,
        num_replicas=model.num_replicas,
        num_episodes=size.num_episodes,
        seed=_SEED,
        num_particles=task.num_particles,
    )
    return shown_return(task.environment, world, rollout.states, rollout.actions)


def optimise(world_of, name, task, size, seeds, num_steps, **options):
    """Optimise a policy in a simulator; returns `Policy`.

    Args:
      world_of: seed -> an environment, or a `Dream`.
      name: of the simulator, for the checkpoint.
      task, size, seeds: as in `world_models.learn`.
      num_steps: of the optimiser.
      **options: checkpoint, progress: as in `training.fit`.
    """
    environment = task.environment
    policy = Policy(
        observation_size=environment.observation_size,
        action_size=environment.action_size,
        action_bound=environment.action_bound,
        hidden_size=size.hidden_size,
        seeds=replica_seeds(seeds, "initial policy"),
    )
    starts = np.random.default_rng(0).standard_normal((_NUM_STARTS, environment.state_size))
    training.fit(
        negative_return(world_of, policy, environment.edge),
        list(policy.trainable_variables),
        starts.astype(np.float32),
        training.Settings(num_steps, **_OPTIMISER),
        seeds=seeds,
        fingerprint=f"{name} {task} {size}",
        **options,
    )
    return policy


def score(world, policy, task, size):
    """Returns of a policy in a world, [replicas][episodes]."""
    start, moves, sensor = weather(
        world,
        num_replicas=policy.num_replicas,
        num_episodes=EPISODES * size.num_episodes,
        seed=_SEED,
    )
    act_out = tf.function(functools.partial(roll_out, world, policy), jit_compile=True)
    path = act_out(world.initial(start), moves, sensor[:-1])
    return shown_return(task.environment, world, path.states, path.actions)


def shown_return(environment, world, states, actions):
    """Sum of the rewards of what the sensor shows, [replicas][episodes].

    Args:
      environment: whose reward it is.
      world: it, or a `Dream` of it.
      states: [time + 1, replicas, episodes, state] of the world.
      actions: [time, replicas, episodes, action].
    """
    shown = world.emission(tf.constant(states))
    rewards = environment.shown_reward(shown[:-1], tf.constant(actions), shown[1:])
    return rewards.numpy().astype(np.float64).sum(0).tolist()


def stored(scale, variant):
    """Read the committed result.

    Raises:
      ResultError: if there is none, or it is incomplete or altered.
    """
    return results.stored("imagined", scale, variant, options="--seeds 0 1 2 3 4")[0]
