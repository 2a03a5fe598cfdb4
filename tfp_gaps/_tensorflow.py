"""The one place where TensorFlow is imported and configured.

Six settings matter to results, speed or stored outputs, so they are made once, here:

* native log lines at import (factory registration, missing drivers) would land in the chapters;
* memory growth lets several kernels share one GPU;
* on a CPU the compiler's older runtime is three times as fast on the element-wise parts of a loop
  as the newer one that TensorFlow 2.18 chooses, and runs two compiled calls at once on two cores;
* TensorFloat-32 keeps 10 bits of mantissa, with which exact identities fail at 1e-3;
* on a CPU, oneDNN's uncompiled product of a rank-4 with a rank-2 or rank-3 tensor, as `z @ W` in a
  user's own model, overwrites memory in TensorFlow 2.18 to 2.21, and its `einsum` with an ellipsis
  gives wrong numbers, "...i,ij->...j" of two matrices too: such products are rewritten, and those
  out of reach are refused before they run (`faulty_product`).
  (Without oneDNN, TF_ENABLE_ONEDNN_OPTS=0, training a VAE takes 10 to 25 % longer, an uncompiled
  training step of a state-space model 0 to 10 %, a filter that proposes from a network 10 to 18 %.)
* `tf.vectorized_map`, and so every AutoBatched joint distribution, pads with zeros whatever the
  value in `tf.pad(..., constant_values=...)`, and shifts `tf.roll(..., axis=-1)` along another
  axis: draws of `tfd.LKJ` and `tfd.CholeskyLKJ` were wrong there, and so was whatever a user's own
  model pads or rolls. Both are converted anew.

TensorFlow Probability 0.25 is written for Keras 2, hence ``tf_keras``.
"""

import contextlib
import functools
import os
import string
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
    from tensorflow.python.framework.function_def_to_graph import function_def_to_graph
    from tensorflow.python.ops import gen_linalg_ops, gen_math_ops
    from tensorflow.python.ops.parallel_for import pfor
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


_REWRITTEN = "rewritten_product"
"""Name scope of products whose operands were brought to one rank that no graph knows."""


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
        with tf.name_scope(_REWRITTEN):
            return product(x, y, *args, **options)

    return safe


def _without_ellipsis(einsum):
    """An Einsum op whose ellipsis is spelt out; of an unknown rank it stays as it is."""

    @functools.wraps(einsum)
    def safe(inputs, equation, *args, **options):
        inputs = [tf.convert_to_tensor(part) for part in inputs]
        if "..." in equation and None not in [part.shape.rank for part in inputs]:
            inputs, equation = _spelt_out(inputs, equation)
        return einsum(inputs, equation, *args, **options)

    return safe


def _spelt_out(inputs, equation):
    """The same sum with a label for each axis of the ellipsis; axes of one entry are dropped where
    another operand has more."""
    left, output = equation.split("->")
    labels = left.split(",")
    ranks = [
        part.shape.rank - len(label) + 3 if "..." in label else 0
        for part, label in zip(inputs, labels, strict=True)
    ]
    names = [letter for letter in string.ascii_letters if letter not in equation][: max(ranks)]
    axes = [
        dict(zip(names[len(names) - rank :], range(label.find("."), label.find(".") + rank)))
        for label, rank in zip(labels, ranks, strict=True)
    ]
    inputs = _of_known_sizes(inputs, axes)
    for index, (part, own) in enumerate(zip(inputs, axes, strict=True)):
        others = [(inputs[i], a) for i, a in enumerate(axes) if i != index]
        shared = [n for n in own if part.shape[own[n]] == 1 and any(n in a for _, a in others)]
        drop = [n for n in shared if any(n in a and p.shape[a[n]] != 1 for p, a in others)]
        kept = "".join(name for name in own if name not in drop)
        inputs[index] = tf.squeeze(part, [own[n] for n in drop]) if drop else part
        labels[index] = labels[index].replace("...", kept)
    return inputs, ",".join(labels) + "->" + output.replace("...", "".join(names))


def _of_known_sizes(inputs, axes):
    """Axes of the ellipsis that may or may not have one entry, brought to their common size."""
    if len(inputs) < 2:
        return inputs
    for name in set(axes[0]) & set(axes[1]):
        sizes = [part.shape[own[name]] for part, own in zip(inputs, axes, strict=True)]
        if None in sizes and 1 not in sizes:
            size = functools.reduce(
                tf.maximum,
                [tf.shape(part)[own[name]] for part, own in zip(inputs, axes, strict=True)],
            )
            inputs = [
                tf.broadcast_to(
                    part, tf.tensor_scatter_nd_update(tf.shape(part), [[own[name]]], [size])
                )
                for part, own in zip(inputs, axes, strict=True)
            ]
    return inputs


_SPOILS = _pywrap_util_port.IsMklEnabled()
if _SPOILS:
    for _name in ("batch_mat_mul_v2", "batch_mat_mul_v3"):
        setattr(gen_math_ops, _name, _without_broadcasting(getattr(gen_math_ops, _name)))
    gen_linalg_ops.einsum = _without_ellipsis(gen_linalg_ops.einsum)


def faulty_product(function, *arguments):
    """The first product in a user's code that oneDNN spoils, as half a sentence, or None.

    What was traced before this package was imported, or loaded from a file, holds products that
    are no longer rewritten. The code is traced, not run, and its graph with all functions searched.

    Args:
      function: callable of tensors, or of structures of them, that returns such.
      arguments: tensors or `tf.TensorSpec`, or structures of them; only shapes and types count.
    """
    if not _SPOILS:
        return None
    graph = tf.function(function, autograph=False).get_concrete_function(*arguments).graph
    library = graph.as_graph_def().library.function
    for part in (graph, *(function_def_to_graph(traced) for traced in library)):
        for operation in part.get_operations():
            if _is_spoilt(operation):
                shapes = " by ".join(str(value.shape) for value in operation.inputs)
                return (
                    f"reaches a {operation.type} of {shapes}, which oneDNN's kernels compute "
                    f"wrongly or in foreign memory, and which was traced before tfp_gaps could "
                    f"rewrite it. Import tfp_gaps first, use tfp_gaps.networks.flat_matmul, or set "
                    f"TF_ENABLE_ONEDNN_OPTS=0 before TensorFlow is imported."
                )
    return None


def _is_spoilt(operation):
    """Whether the operands' ranks are, or may be, those of the fault."""
    if operation.type == "Einsum":
        return b"..." in operation.get_attr("equation")
    if operation.type not in ("BatchMatMulV2", "BatchMatMulV3"):
        return False
    left, right = (value.shape.rank for value in operation.inputs)
    if None in (left, right):
        return _REWRITTEN not in operation.name
    return left >= 4 and left > right


def _padded(rows):
    """`tf.pad` of all rows of a `tf.vectorized_map`, with its value, which TensorFlow leaves out.

    `unstacked_input` refuses a value for each row, of which TensorFlow then makes a loop.
    """
    values, paddings, value = rows.stacked_input(0), *map(rows.unstacked_input, (1, 2))
    paddings = tf.pad(paddings, [[1, 0], [0, 0]])
    return pfor.wrap(tf.pad(values, paddings, constant_values=value), True)


def _rolled(rows):
    """`tf.roll` of all rows: an axis that counts from the end is the same with one more in front,
    but TensorFlow moves it too."""
    values, shift, axis = rows.stacked_input(0), *map(rows.unstacked_input, (1, 2))
    return pfor.wrap(tf.roll(values, shift, tf.where(axis < 0, axis, axis + 1)), True)


pfor._pfor_converter_registry |= {"PadV2": _padded, "Roll": _rolled}

tf.config.experimental.enable_tensor_float_32_execution(False)
# Bounds compile anew for each model and network they are given, which is meant; TensorFlow's
# advice against it would land in the chapters.
tf.get_logger().setLevel("ERROR")

__all__ = ["compiles", "faulty_product", "on_gpu", "tf", "tfk", "tfp"]
