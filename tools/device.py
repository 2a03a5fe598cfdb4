"""Say whether TensorFlow sees a GPU that is fit for the chapters: python tools/device.py.

Fit means: a GPU is there and computes; its memory grows with use, so that kernels can share it; a
product of float32 matrices is one of float32; and XLA compiles what recurrences are made of, a
while loop with exp and tanh, for which it needs CUDA's libdevice and ptxas. TensorFloat-32 keeps 10
bits of the mantissa, with which exact identities fail at 1e-3. Exit status 1 and one line for each
fault otherwise.
"""

import os
import sys

import numpy as np

from tfp_gaps._tensorflow import tf

MAXIMUM_ERROR = 1e-4
"""Between float32 (about 1e-6 for sums of 512 products) and TensorFloat-32 (about 1e-3)."""


def product_error(device, size=512):
    """Return the largest error of a float32 matrix product, relative to its largest entry."""
    left, right = np.random.default_rng(0).standard_normal((2, size, size)).astype(np.float32)
    with tf.device(device):
        found = tf.matmul(tf.constant(left), tf.constant(right)).numpy()
    exact = left.astype(np.float64) @ right.astype(np.float64)
    return float(np.abs(found - exact).max() / np.abs(exact).max())


def loop_error(device, size=256, steps=20):
    """Return the largest error of a compiled while loop with exp and tanh, whose values are near 1.

    Raises:
      tf.errors.OpError: where it does not compile or run.
    """
    start = np.random.default_rng(0).standard_normal(size).astype(np.float32)

    @tf.function(jit_compile=True)
    def loop(x):
        return tf.while_loop(
            lambda i, x: i < steps,
            lambda i, x: (i + 1, tf.tanh(x) + 0.5 * tf.exp(-x * x)),
            (tf.constant(0), x),
        )[1]

    with tf.device(device):
        found = loop(tf.constant(start)).numpy()
    exact = start.astype(np.float64)
    for _ in range(steps):
        exact = np.tanh(exact) + 0.5 * np.exp(-exact * exact)
    return float(np.abs(found - exact).max())


def faults(devices, environment, error_of=product_error, loop_error_of=loop_error):
    """Return what makes the devices unfit, one line each; an empty list if nothing does.

    Args:
      devices: names such as "GPU:0".
      environment: mapping of environment variables.
      error_of: function from a device's name to the relative error of a product there.
      loop_error_of: function from a device's name to the error of a compiled loop there.
    """
    if not devices:
        return ["TensorFlow sees no GPU: look at the driver (nvidia-smi), then run `make gpu`."]
    found = []
    if environment.get("TF_FORCE_GPU_ALLOW_GROWTH") != "true":
        found.append("TF_FORCE_GPU_ALLOW_GROWTH is not true: one kernel would take all memory.")
    for device in devices:
        error = error_of(device)
        if not error < MAXIMUM_ERROR:
            found.append(
                f"{device}: a float32 product is wrong by {error:.1e}, more than "
                f"{MAXIMUM_ERROR:.0e}: TensorFloat-32 seems to be on (NVIDIA_TF32_OVERRIDE=0 "
                "switches it off)."
            )
        found += _loop_faults(device, loop_error_of)
    return found


def _loop_faults(device, error_of):
    """Yield what is wrong with a compiled loop, in one line."""
    try:
        error = error_of(device)
    except tf.errors.OpError as failure:
        reason = (str(failure).splitlines() or [type(failure).__name__])[0]
        yield (
            f"{device}: XLA must compile a while loop with exp and tanh, but fails: {reason} If it "
            "misses libdevice or ptxas, run `make gpu`, or name a CUDA folder that holds both: "
            "XLA_FLAGS=--xla_gpu_cuda_data_dir=FOLDER."
        )
        return
    if not error < MAXIMUM_ERROR:
        yield (
            f"{device}: a compiled loop of exp and tanh is wrong by {error:.1e}, more than "
            f"{MAXIMUM_ERROR:.0e}: compare versions of driver and CUDA with requirements-gpu.lock."
        )


def main():
    """Print the devices and their faults, and return the exit status."""
    listed = tf.config.list_physical_devices("GPU")
    for device in listed:
        details = tf.config.experimental.get_device_details(device)
        print(device.name, details.get("device_name"), details.get("compute_capability"))
    found = faults([device.name.removeprefix("/physical_device:") for device in listed], os.environ)
    for fault in found:
        print(fault, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
