"""Say whether TensorFlow sees a GPU that is fit for the chapters: python tools/device.py.

Fit means: a GPU is there and computes; its memory grows with use, so that kernels can share it; and
a product of float32 matrices is one of float32. TensorFloat-32 keeps 10 bits of the mantissa, with
which exact identities fail at 1e-3. Exit status 1 and one line for each fault otherwise.
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


def faults(devices, environment, error_of=product_error):
    """Return what makes the devices unfit, one line each; an empty list if nothing does.

    Args:
      devices: names such as "GPU:0".
      environment: mapping of environment variables.
      error_of: function from a device's name to the relative error of a product there.
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
    return found


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
