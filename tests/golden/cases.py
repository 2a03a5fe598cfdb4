"""Small runs whose numbers are stored: every call into the package that `tests/golden` makes.

One function per experiment; each returns a nested dict of numbers, arrays, `Estimate` and named
tuples, which `comparison.flatten` turns into vectors. Where an interface of the package changes,
the call is changed here and the stored numbers stay. Sizes are those of smoke runs or less: a
number need not mean anything, only depend on all that happened before it.
"""

import contextlib
from dataclasses import replace
from unittest import mock

import numpy as np

from tfp_gaps import bounds, filtering, forecasting, measuring, training
from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.book.data.splits import Splits
from tfp_gaps.book.experiments import (
    blind,
    coverage,
    digits,
    elbo,
    encoders,
    filters,
    known_dynamics,
    linear_gaussian,
    literature,
    lqg,
    remedies,
    sequential,
    traffic,
    two_latents,
    two_sensors,
    uav,
    vae,
    world_models,
)
from tfp_gaps.exact import linear_gaussian as exact
from tfp_gaps.exact.noisy_mixture import NoisyMixture
from tfp_gaps.exact.two_sensors import TwoSensors
from tfp_gaps.models.joint import Model
from tfp_gaps.models.state_space import StateSpace
from tfp_gaps.models.vae import VAE
from tfp_gaps.networks import replica_seeds
from tfp_gaps.posteriors import families
from tfp_gaps.posteriors.conditions import FULL, LookAhead
from tfp_gaps.posteriors.look_ahead import LookAheadNetwork
from tfp_gaps.sequences import Sequences

tfd = tfp.distributions

CHAIN = exact.LinearGaussian.stationary(0.9, 0.1, 1.0, 1.0)
SEED = 0
"""Of every draw, and of the first replica."""
SEEDS = [SEED, SEED + 1]
CONDITIONS = {"partial": LookAhead(0), "two": LookAhead(2), "full": FULL}
"""What is seen, by the names under which the numbers are stored."""


# Benchmarks ---------------------------------------------------------------------------------------


def _benchmark(module, conditions, *, steps=20, variant="", compiled=False, **changes):
    """A smoke run of one seed, with fewer steps."""
    size = module.BENCHMARK.sizes["smoke"]
    joint = replace(size.design.joint, num_steps=steps, jit_compile=compiled)
    refit = replace(size.design.refit, num_steps=steps, jit_compile=compiled)
    small = replace(size, design=replace(size.design, joint=joint, refit=refit), **changes)
    with mock.patch.dict(module.BENCHMARK.sizes, smoke=small):
        return module.run(scale="smoke", conditions=conditions, seeds=SEEDS[:1], variant=variant)


def digits_partial():
    """Binary rows, look-ahead 0, compiled."""
    return _benchmark(digits, LookAhead(0), compiled=True)


def digits_full():
    """Binary rows, full conditions."""
    return _benchmark(digits, FULL)


def traffic_masked():
    """Counts with missing values, look-ahead 0, selection on validation windows, a forecast."""
    return _benchmark(traffic, LookAhead(0), num_bound=40, num_iwae=40, num_filter=40, horizon=4)


def uav_controlled():
    """Simulated flights with rotor speeds as controls, look-ahead 2, a forecast."""
    return _benchmark(uav, LookAhead(2), num_bound=40, num_iwae=40, num_filter=40, horizon=4)


# Images -------------------------------------------------------------------------------------------


def vae_flow():
    """An auxiliary flow, and the best q of two families for each image."""
    with _smaller_vae(num_points=4, num_annealed=0):
        return vae.run(scale="smoke", seeds=SEEDS[:1], variant="digits-flow")


def blind_encoder():
    """Encoders that see the upper half."""
    return blind.run(scale="smoke", seeds=SEEDS[:1])


def one_decoder_many_encoders():
    """All encoders and families on one decoder."""
    with _smaller_vae(num_points=4):
        return encoders.run(scale="smoke", seeds=SEEDS[:1], variant="digits")


def two_latents_on_a_grid():
    """Exact evidence and best Gaussians of two generators."""
    return two_latents.run(scale="smoke", seeds=SEEDS[:1])


@contextlib.contextmanager
def _smaller_vae(**changes):
    size = vae._SIZES["smoke"]
    small = replace(size, training=replace(size.training, num_steps=20, steps_per_call=20))
    with mock.patch.dict(vae._SIZES, smoke=replace(small, **changes)):
        yield


# Filters and control ------------------------------------------------------------------------------


def filters_on_the_chain():
    """Distilled, backward and particle filters on a linear-Gaussian chain."""
    size = replace(filters.size_of("smoke"), num_timesteps=6, num_test=10, hidden_size=8)
    with mock.patch.dict(filters._SIZES, smoke=size), _uncompiled():
        return filters.run(scale="smoke", seeds=SEEDS, variant="linear-gaussian")


def known_dynamics_of_the_hike():
    """Agents that know the dynamics of the hike, and networks that are trained on them."""
    with _smaller_control():
        return known_dynamics.run(scale="smoke", seeds=SEEDS[:1], variant="hike-020")


def world_model_full():
    """The pendulum, whose velocity is hidden, under full conditions, with a distilled filter."""
    with _smaller_control():
        return world_models.run(
            scale="smoke", conditions=FULL, seeds=SEEDS[:1], variant="pendulum-005"
        )


@contextlib.contextmanager
def _smaller_control():
    size, tasks = world_models.SIZES["smoke"], {}
    for name in ("hike-020", "pendulum-005"):
        task = world_models.TASKS[name]
        planner = replace(task.planner, horizon=3, num_iterations=1, num_candidates=8, num_elite=2)
        short = replace(task.environment, horizon=5)
        tasks[name] = replace(task, planner=planner, environment=short)
    joint, distil = (
        replace(part, num_steps=20, steps_per_call=20, kl_warmup_steps=5, jit_compile=False)
        for part in (size.joint, size.distil)
    )
    small = replace(size, joint=joint, distil=distil, num_train=32, num_test=8, num_timesteps=14)
    with (
        mock.patch.dict(world_models.SIZES, smoke=small),
        mock.patch.dict(world_models.TASKS, tasks),
        mock.patch.object(world_models, "HORIZONS", (1, 3)),
        _uncompiled(),
    ):
        yield


def _uncompiled():
    """Leave XLA out where compiling takes longer than the few steps that follow."""
    build = tf.function

    def function(*arguments, jit_compile=None, **options):
        del jit_compile
        return build(*arguments, **options)

    return mock.patch.object(tf, "function", function)


# Experiments that chapters run themselves ---------------------------------------------------------


def linear_gaussian_networks():
    """Trained gaps of linear networks and of a recurrent one, a curve, online coverage."""
    options = {"num_timesteps": 4, "seed": SEED, "num_data": 2000}
    quick = training.Settings(40, 64, learning_rate=2e-2, steps_per_call=40, jit_compile=False)
    trained = {
        kind: linear_gaussian.train(CHAIN, kind, conditions=seen, settings=quick, **options)
        for kind, seen in (("linear", list(CONDITIONS.values())), ("recurrent", [LookAhead(1)]))
    }
    return {
        "exact": linear_gaussian.exact_gaps(trained["linear"]),
        "measured": {
            kind: linear_gaussian.measured_gaps(each, num_timesteps=4, num_sequences=200, seed=SEED)
            for kind, each in trained.items()
        },
        "curve": linear_gaussian.learning_curve(
            CHAIN, num_timesteps=4, lookaheads=[0, 1, None], num_starts=1
        ),
        "online": linear_gaussian.online_coverage(
            CHAIN, num_timesteps=6, nominal=0.9, num_sequences=200, seed=SEED
        ),
    }


def literature_schemes():
    """Gaps of networks under published conditions."""
    return literature.trained_gaps(
        CHAIN,
        num_timesteps=4,
        schemes=["all", "past, no latents", "start, then present"],
        seeds=SEEDS,
        settings=training.Settings(40, 64, learning_rate=2e-2, steps_per_call=40),
        num_data=2000,
        num_sequences=200,
    )


def coverage_of_bounds():
    """ELBO, IWAE and annealing on random models."""
    annealed = {"num_chains": 4, "num_steps": 20, "num_leapfrog_steps": 3}
    size = coverage.Size(num_models=6, num_samples=20, annealed=annealed)
    return coverage.run("two sensors", size)


def elbo_landscapes():
    """ELBO and divergence over grids, and the optimum of a table."""
    means, sds = np.linspace(-1, 1, 4), np.array([0.3, 0.6, 1.0])
    sensors = TwoSensors(0.8, 0.6)
    return {
        "mixture": elbo.mixture_landscape(
            NoisyMixture([-1.0, 1.0], [0.3, 0.5], [0.4, 0.6], 0.7), 0.4, means, sds
        ),
        "sensors": elbo.sensors_landscape(sensors, 0.4, -0.3, means, sds),
        "table": elbo.tabular_optimum(sensors, np.array([0.5, -1.0]), np.array([0.2, 0.4])),
    }


def two_sensors_networks():
    """Networks of both objectives, and of full conditions."""
    world = TwoSensors(0.8, 0.6)
    options = {"num_data": 2000, "num_steps": 100, "batch_size": 128, "seeds": SEEDS}
    return {
        f"{objective} {seen}": two_sensors.measure(
            world,
            two_sensors.train(world, objective=objective, conditions=seen, **options),
            num_held_out=500,
        )
        for objective, seen in (("elbo", "partial"), ("forward", "partial"), ("elbo", "full"))
    }


def remedies_in_closed_form():
    """Refinement, the map of gaps, and beliefs about the signal."""
    options = {"num_timesteps": 8, "num_sequences": 200}
    return {
        "refinement": remedies.refinement(num_steps=3, num_data=20, seed=SEED),
        "map": remedies.gap_map([0.1, 0.5], [0.05, 1.0], memory=0.9, num_timesteps=8),
        "belief": {
            name: remedies.signal_belief(CHAIN, CHAIN, lookahead=seen.lookahead, **options)
            for name, seen in CONDITIONS.items()
        },
    }


def lqg_agents():
    """Learned models and what acting on them costs, beliefs, simulated costs."""
    world = lqg.scalar(0.95, 1.0)
    outcomes = lqg.learn(world, [0, 2, None], num_starts=1)
    velocity = lqg.position_velocity(0.1)
    by_name = {name: outcomes[seen.lookahead] for name, seen in CONDITIONS.items()}
    return {
        "optimal": outcomes[0].optimal_cost,
        "outcomes": {
            name: {
                **{part: getattr(outcome, part) for part in ("ratio", "gap_at_truth", "loss")},
                "cost": outcome.learned.cost,
                "elbo": outcome.learned.elbo,
            }
            for name, outcome in by_name.items()
        },
        "belief": [list(lqg.belief(velocity, velocity.system, k)) for k in (0, 1, None)],
        "later": [lqg.later_share(velocity, k) for k in (0, 1, None)],
        "simulated": lqg.simulated_cost(
            world.system, outcomes[0].learned.model, seed=SEED, num_chains=50, num_timesteps=60
        ),
    }


# The library --------------------------------------------------------------------------------------


def _controlled_pair():
    """A model and a network of two replicas, and sequences with controls and missing values."""
    sizes = {"observation_size": 3, "latent_size": 2, "hidden_size": 6, "control_size": 2}
    model = StateSpace(**sizes, emission="student_t", seeds=replica_seeds(SEEDS, "golden model"))
    network = LookAheadNetwork(
        conditions=FULL, **sizes, masked=True, seeds=replica_seeds(SEEDS, "golden network")
    )
    rng = np.random.default_rng(SEED)
    x, u = rng.normal(size=[8, 12, 3]), rng.normal(size=[8, 12, 2])
    u[0] = 0.0  # nothing acts into the first step
    return model, network, Sequences(x, u, rng.random(x.shape) > 0.3)


def bounds_of_sequences():
    """ELBO, step by step, and IWAE with controls and a mask."""
    model, network, sequences = _controlled_pair()
    found, options = {}, {"seed": SEED, "repetitions": 2}
    for name, seen in CONDITIONS.items():
        pair = (model, network.with_conditions(seen), sequences)
        profile = bounds.elbo(*pair, batch_size=8, **options)
        iwae = bounds.iwae(*pair, num_samples=5, paths_at_once=30, **options)
        found[name] = {"elbo": vars(profile), "iwae": iwae.values}
    return found


def particle_filters():
    """Proposals from the model and from the network."""
    model, network, sequences = _controlled_pair()
    guides = {"bootstrap": {}} | {
        name: {"posterior": network.with_conditions(seen)} for name, seen in CONDITIONS.items()
    }
    options = {"num_particles": 20, "particles_at_once": 120, "seed": SEED}
    return {
        name: filtering.particle_filter(model, sequences, **options, **guide)._asdict()
        for name, guide in guides.items()
    }


def predictions():
    """Scores of forecasts, started from the model's filter and from a guided one."""
    model, network, sequences = _controlled_pair()
    options = {"start": 5, "horizon": 3, "num_particles": 40, "num_samples": 20, "seed": SEED}
    guides = {"bootstrap": {}, "two": {"posterior": network.with_conditions(LookAhead(2))}}
    return {
        name: vars(forecasting.evaluate(model, sequences, **options, **guide))
        for name, guide in guides.items()
    }


def fitted_parameters():
    """A few steps of joint training with controls, a mask and selection on validation data."""
    model, network, sequences = _controlled_pair()
    parts = [sequences.select(np.arange(*ends)) for ends in ((0, 8), (8, 12), (8, 12))]
    settings = training.Settings(
        12, 4, learning_rate=1e-2, clip_norm=5.0, kl_warmup_steps=4, steps_per_call=4,
        validate_every=4, jit_compile=False,
    )  # fmt: skip
    fitted = sequential.fit(
        model, network.with_conditions(LookAhead(1)), Splits(*parts, source="drawn"), settings,
        seeds=SEEDS, learn_model=True,
    )  # fmt: skip
    parameters = {
        variable.name: variable.numpy()
        for variable in (*model.trainable_variables, *network.trainable_variables)
    }
    return {"history": fitted.history._asdict(), "parameters": parameters}


def _fields(found):
    """What `Bounds` holds, as a dictionary."""
    names = ("elbo", "elbo_error", "iwae", "iwae_error", "effective_size", "num_samples")
    return {name: getattr(found, name) for name in names}


def bounds_of_images():
    """ELBO and IWAE of every family, amortised by an untrained flow and encoder."""
    model = VAE(
        observation_size=6, latent_size=2, hidden=(5,), seeds=replica_seeds(SEEDS, "golden model")
    )
    x = np.random.default_rng(SEED).integers(0, 2, [1, 7, 6]).astype(np.float32)
    found = {}
    for name in families.NAMES:
        family = families.make(name, 2, num_hidden=4, context_size=3)
        outputs = np.random.default_rng(SEED).normal(size=[2, 7, family.num_outputs]) / 2
        weights = family.make_weights(replica_seeds(SEEDS, "golden flow"))
        own = families.Parameters(tf.constant(outputs, tf.float32), weights, False)
        options = {"num_samples": 9, "seed": SEED, "data_at_once": 4, "draws_at_once": 16}
        found[name] = _fields(bounds.evaluate_static(model, family, own, x, **options))
    return found


def own_conjugate_model():
    """The gaps of a model that is brought along: posterior off its mean, completions, chains."""
    joint = tfd.JointDistributionNamedAutoBatched(
        {"z": tfd.Normal(0.0, 1.0), "x": lambda z: tfd.Normal(z, 1.0)}
    )
    model = Model(joint, "x", example=0.0)
    x = np.array([0.0, 1.0, 2.0], np.float32)
    effort = measuring.Effort(
        num_samples=50, search_steps=30, search_samples=4, num_chains=4, num_temperatures=10
    )
    found = measuring.measure(
        model,
        tfd.Normal(0.5 * x + 0.2, 0.6),
        x,
        seed=SEED,
        completions=np.stack([x - 0.5, x, x + 0.5]),
        effort=effort,
    )
    return {"report": vars(found.report), "bounds": found.bounds, "errors": found.errors}


CASES = {
    case.__name__: case
    for case in (
        digits_partial,
        digits_full,
        traffic_masked,
        uav_controlled,
        vae_flow,
        blind_encoder,
        one_decoder_many_encoders,
        two_latents_on_a_grid,
        filters_on_the_chain,
        known_dynamics_of_the_hike,
        world_model_full,
        linear_gaussian_networks,
        literature_schemes,
        coverage_of_bounds,
        elbo_landscapes,
        two_sensors_networks,
        remedies_in_closed_form,
        lqg_agents,
        bounds_of_sequences,
        particle_filters,
        predictions,
        fitted_parameters,
        bounds_of_images,
        own_conjugate_model,
    )
}
"""Every case by its name, which is also that of its file."""
DECIDING = {
    "digits_partial",
    "digits_full",
    "traffic_masked",
    "uav_controlled",
    "blind_encoder",
    "filters_on_the_chain",
    "known_dynamics_of_the_hike",
    "world_model_full",
    "coverage_of_bounds",
    "particle_filters",
    "predictions",
    "own_conjugate_model",
}
"""Cases in which particles are resampled, proposals accepted or actions chosen."""
