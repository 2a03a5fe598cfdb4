"""The one place where TensorFlow is imported and configured.

Five settings matter to results, speed or stored outputs, so they are made once, here:

* native log lines at import (factory registration, missing drivers) would land in the chapters;
* memory growth lets several kernels share one GPU;
* on a CPU the compiler's older runtime is three times as fast on the element-wise parts of a loop
  as the newer one that TensorFlow 2.18 chooses, and runs two compiled calls at once on two cores;
* TensorFloat-32 keeps 10 bits of mantissa, with which exact identities fail at 1e-3;
* on a CPU, oneDNN's uncompiled product of a rank-4 with a rank-2 or rank-3 tensor, as `z @ W` in a
  user's own model, overwrites memory in TensorFlow 2.18 to 2.21: such products are rewritten.
  (Without oneDNN, TF_ENABLE_ONEDNN_OPTS=0, training a VAE takes 10 to 25 % longer.)

TensorFlow Probability 0.25 is written for Keras 2, hence ``tf_keras``.
"""

import contextlib
import functools
import os
import sys


@contextlib.contextmanager
def _native_stderr_silenced():
    """Send file descriptor 2 elsewhere; Python's own exceptions still surface.

    It goes to the file that TFP_GAPS_NATIVE_LOG names, where whoever set it finds the last words of
    a process that died here (an unfit processor, no memory), or else to the null device.
    """
    log = os.environ.get("TFP_GAPS_NATIVE_LOG") or os.devnull
    sys.stderr.flush()
    saved, silent = os.dup(2), os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.dup2(silent, 2)
        yield
        if log != os.devnull:
            os.truncate(log, 0)  # nobody died: these were greetings
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(silent)


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
    from tensorflow.python.ops import gen_math_ops
    from tensorflow.python.util import _pywrap_util_port

    # Listing devices and compiling once start the runtimes, whose greetings belong to the same
    # silence.
    _HAS_GPU = bool(tf.config.list_physical_devices("GPU"))
    tf.function(lambda: tf.zeros([]), jit_compile=True)()


def on_gpu():
    """Whether to go the ways of a GPU: the one question about devices that the package asks.

    A GPU is there, or TFP_GAPS_ACT_AS_GPU=1, by which a CPU goes the same ways: what they compute
    can then be checked without one.

    Raises:
      ValueError: for another value of the variable than 0 or 1.
    """
    asked = os.environ.get("TFP_GAPS_ACT_AS_GPU", "")
    if asked not in ("", "0", "1"):
        raise ValueError(
            f"TFP_GAPS_ACT_AS_GPU must be 0 or 1, but is {asked!r}. Set it to 1 to go the ways of "
            "a GPU, or unset it."
        )
    return _HAS_GPU or asked == "1"


def compiles(jit_compile):
    """Whether XLA compiles: as a caller asked, and where nobody did (None), on a GPU."""
    return on_gpu() if jit_compile is None else jit_compile


def _without_broadcasting(product):
    """A batched product whose right factor is never spread over the left one's leading axes.

    Every `tf.matmul`, `@` and `tf.linalg` product ends in one, gradients too. What was traced into
    a `tf.function` before this import is out of reach.
    """

    @functools.wraps(product)
    def safe(x, y, *args, **options):
        x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
        rank, other = x.shape.rank, y.shape.rank
        if None not in (rank, other) and (
            rank < 4 or x.shape[:-2].is_compatible_with(y.shape[:-2])
        ):
            return product(x, y, *args, **options)
        if other == 2 and not options.get("adj_x"):
            flat = product(tf.reshape(x, [1, -1, tf.shape(x)[-1]]), y[tf.newaxis], *args, **options)
            return tf.reshape(flat, tf.concat([tf.shape(x)[:-1], tf.shape(flat)[-1:]], 0))
        leading = tf.broadcast_dynamic_shape(tf.shape(x)[:-2], tf.shape(y)[:-2])
        x, y = (tf.broadcast_to(a, tf.concat([leading, tf.shape(a)[-2:]], 0)) for a in (x, y))
        return product(x, y, *args, **options)

    return safe


if _pywrap_util_port.IsMklEnabled():
    for _name in ("batch_mat_mul_v2", "batch_mat_mul_v3"):
        setattr(gen_math_ops, _name, _without_broadcasting(getattr(gen_math_ops, _name)))

tf.config.experimental.enable_tensor_float_32_execution(False)
# Bounds compile anew for each model and network they are given, which is meant; TensorFlow's
# advice against it would land in the chapters.
tf.get_logger().setLevel("ERROR")

__all__ = ["compiles", "on_gpu", "tf", "tfk", "tfp"]
