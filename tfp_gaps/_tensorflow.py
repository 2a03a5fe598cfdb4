"""The one place where TensorFlow is imported and configured.

Four settings matter to results, speed or stored outputs, so they are made once, here:

* native log lines at import (factory registration, missing drivers) would land in the chapters;
* memory growth lets several kernels share one GPU;
* on a CPU the compiler's older runtime is three times as fast on the element-wise parts of a loop
  as the newer one that TensorFlow 2.18 chooses, and runs two compiled calls at once on two cores;
* TensorFloat-32 keeps 10 bits of mantissa, with which exact identities fail at 1e-3.

TensorFlow Probability 0.25 is written for Keras 2, hence ``tf_keras``.
"""

import contextlib
import os
import sys


@contextlib.contextmanager
def _native_stderr_silenced():
    """Send file descriptor 2 to the null device; Python's own exceptions still surface."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
if "xla_cpu_use_thunk_runtime" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_cpu_use_thunk_runtime=false"
    ).strip()

with _native_stderr_silenced():
    import tensorflow as tf
    import tensorflow_probability as tfp
    import tf_keras as tfk

    # Listing devices and compiling once start the runtimes, whose greetings belong to the same
    # silence.
    HAS_GPU = bool(tf.config.list_physical_devices("GPU"))
    tf.function(lambda: tf.zeros([]), jit_compile=True)()

tf.config.experimental.enable_tensor_float_32_execution(False)
# Bounds compile anew for each model and network they are given, which is meant; TensorFlow's
# advice against it would land in the chapters.
tf.get_logger().setLevel("ERROR")

__all__ = ["HAS_GPU", "tf", "tfk", "tfp"]
