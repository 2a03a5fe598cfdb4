"""Time and memory of evaluating a model: the bootstrap filter and SMC guided by a full q.

    python -m benchmarks.evaluation                  16,000 particles on 200 windows
    python -m benchmarks.evaluation --windows 20     a tenth of it

The model is that of the flights: 40 steps, 13 channels, 4 controls, latent 12, hidden 48, at its
initial parameters. Tracing is part of the time. "CPU s" is that of
all threads: on two idle cores the wall time is half of it at best, and with other load it is what
can be compared.
"""

import argparse
import resource
import time

import numpy as np

from tfp_gaps import filtering
from tfp_gaps.models.state_space import StateSpace
from tfp_gaps.networks import replica_seeds
from tfp_gaps.posteriors.conditions import FULL
from tfp_gaps.posteriors.look_ahead import LookAheadNetwork
from tfp_gaps.sequences import Sequences

SIZES = {"observation_size": 13, "control_size": 4, "latent_size": 12, "hidden_size": 48}
NUM_TIMESTEPS = 40


def build():
    """Model and full q of one replica, untrained."""
    model = StateSpace(**SIZES, emission="normal", seeds=replica_seeds([0], "model"))
    network = LookAheadNetwork(**SIZES, conditions=FULL, seeds=replica_seeds([0], "network"))
    return model, network


def measure(num_particles, num_windows):
    """Yield (name, wall seconds, CPU seconds, peak memory in GB so far) of each filter."""
    model, network = build()
    draw = np.random.default_rng(0).standard_normal
    observations = draw([NUM_TIMESTEPS, num_windows, SIZES["observation_size"]])
    controls = draw([NUM_TIMESTEPS, num_windows, SIZES["control_size"]])
    controls[0] = 0.0  # nothing acts into the first step
    windows = Sequences(observations, controls)
    for name, posterior in (("bootstrap", None), ("guided", network)):
        wall, cpu = time.perf_counter(), time.process_time()
        filtering.particle_filter(
            model, windows, num_particles=num_particles, seed=0, posterior=posterior
        )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        yield name, time.perf_counter() - wall, time.process_time() - cpu, peak


def main(arguments=None):
    """Print a row for each filter."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--particles", type=int, default=16_000)
    parser.add_argument("--windows", type=int, default=200)
    options = parser.parse_args(arguments)
    print(f"{options.particles} particles, {options.windows} windows of {NUM_TIMESTEPS} steps")
    print(f"{'filter':<12}{'wall s':>10}{'CPU s':>10}{'peak GB':>10}")
    for name, wall, cpu, peak in measure(options.particles, options.windows):
        print(f"{name:<12}{wall:>10.1f}{cpu:>10.1f}{peak:>10.2f}", flush=True)


if __name__ == "__main__":
    main()
