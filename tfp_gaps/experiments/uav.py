"""Aerial vehicles: what does the conditioning gap cost where the observations hide the state?

Book scale: simulated flights, x_t is the position with noise, u_t the four rotor speeds; variants
change what is observed, and the number of latent dimensions. Paper scale: one real flight of the
Blackbird data, x_t the inertial sensors, u_t the collective thrust (Bayer et al. 2021, section on
aerial vehicles; data sets, split and sizes are choices of this book). Values are nats per window.
"""

from dataclasses import replace

from tfp_gaps.experiments.benchmark import Benchmark, Size, latent_variants
from tfp_gaps.experiments.sequential import Design
from tfp_gaps.training import Settings


def _design(latent, hidden, joint_steps, refit_steps, batch, validate_every, rate=3e-3):
    common = {"batch_size": batch, "clip_norm": 200.0, "learning_rate": rate}
    common["validate_every"] = validate_every
    joint = Settings(joint_steps, kl_warmup_steps=min(200, joint_steps // 4), **common)
    return Design(latent, hidden, "normal", joint, Settings(refit_steps, **common))


_EVALUATION = {"num_samples": 100, "num_particles": 1000, "start": 20, "horizon": 20}
_SIMULATED = Size(
    design=_design(16, 48, 1200, 400, 32, 60),
    num_bound=1000,
    num_iwae=1000,
    num_filter=1000,
    **_EVALUATION,
)
_BLACKBIRD = replace(
    _SIMULATED,
    design=_design(16, 48, 2000, 1000, 64, 100),
    data={"source": "blackbird"},
)
SIZES = {
    "smoke": replace(
        _SIMULATED, design=_design(3, 16, 40, 20, 32, 20), num_samples=5, num_particles=50
    ),
    "book": _SIMULATED,
    "paper": _BLACKBIRD,
}


def _observe(name):
    return lambda size: replace(size, data=size.data | {"observe": name})


BENCHMARK = Benchmark(
    "uav",
    SIZES,
    {
        "imu": _observe("imu"),
        "imu-position": _observe("imu+position"),
        "accurate": _observe("accurate"),
    }
    | latent_variants((4, 6, 8, 16, 32)),
)
VARIANTS = tuple(BENCHMARK.variants)
load, run, stored = BENCHMARK.load, BENCHMARK.run, BENCHMARK.stored
