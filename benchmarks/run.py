"""Speed and memory of a training step, side by side in one run.

    make bench

One step of the state-space model with its inference network is timed compiled and not compiled, for
each look-ahead, in turn, so that a machine's noise falls on all alike. Rates are medians; on shared
machines read the ratios.
"""

import resource
import statistics
import subprocess
import sys
import time

NUM_TIMESTEPS = 28
SIZES = {
    # name: replicas, batch, hidden, latent
    "book": (1, 128, 64, 16),
    "large": (1, 128, 128, 16),
    "small, three seeds": (3, 64, 48, 8),
}
ROUNDS, STEPS = 5, 5


def build(size, lookahead, jit_compile):
    """Return a function that runs `STEPS` training steps and waits for them."""
    from tfp_gaps._tensorflow import tf, tfk
    from tfp_gaps.experiments.sequential import negative_elbo
    from tfp_gaps.inference.look_ahead import LookAheadNetwork
    from tfp_gaps.models.state_space import StateSpace
    from tfp_gaps.networks import replica_seeds
    from tfp_gaps.training import Settings, build_step

    replicas, batch, hidden, latent = SIZES[size]
    seeds = list(range(replicas))
    sizes = {"observation_size": 28, "latent_size": latent, "hidden_size": hidden}
    model = StateSpace(**sizes, emission="bernoulli", seeds=replica_seeds(seeds, "model"))
    network = LookAheadNetwork(**sizes, seeds=replica_seeds(seeds, "network"))
    variables = [*model.trainable_variables, *network.trainable_variables]
    optimizer = tfk.optimizers.Adam(1e-3)
    optimizer.build(variables)
    data = tf.cast(tf.random.stateless_uniform([batch, NUM_TIMESTEPS, 28], [0, 1]) < 0.13, tf.uint8)
    settings = Settings(num_steps=1, batch_size=batch, jit_compile=jit_compile)
    loss = negative_elbo(model, network, lookahead)
    step = build_step(loss, variables, data, optimizer, settings, seeds)
    indices = tf.tile(tf.range(batch)[tf.newaxis], [replicas, 1])

    def run():
        for i in range(STEPS):
            losses, _ = step(indices, tf.constant(i))
        losses.numpy()

    return run


def measure(size):
    """Print trained sequences per second of each variant, and its ratio to the first."""
    variants = {
        f"look-ahead {'full' if k is None else k}, {'XLA' if jit else 'no XLA'}": (k, jit)
        for k, jit in [(None, True), (None, False), (0, True), (3, True)]
    }
    runs = {name: build(size, k, jit) for name, (k, jit) in variants.items()}
    for run in runs.values():
        run()  # compile
    seconds = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    replicas, batch = SIZES[size][:2]
    rates = {n: STEPS * replicas * batch / statistics.median(s) for n, s in seconds.items()}
    first = next(iter(rates.values()))
    for name, rate in rates.items():
        print(f"{size:20s} {name:26s} {rate:8.0f} sequences/s   ratio {rate / first:.2f}")


def measure_import():
    """Print what importing the package's TensorFlow costs in a fresh process."""
    code = (
        "import resource, time; started = time.perf_counter(); import tfp_gaps._tensorflow; "
        "print(time.perf_counter() - started, "
        "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, megabytes = map(float, done.stdout.split())
    print(f"import of TensorFlow and TFP: {seconds:.1f} s, {megabytes:.0f} MB resident")


def main():
    measure_import()
    for size in SIZES:
        measure(size)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak resident memory of this run: {peak:.0f} MB")


if __name__ == "__main__":
    main()
