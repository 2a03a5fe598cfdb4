"""Map states of the true system to latents of a learned model, and the other way around.

A model's spare latents have no meaning of their own: any invertible map of them is as good. To plan
with a learned model from the true belief, or the other way around, a regression is fitted on
episodes of which both are known: cubic polynomials by least squares, with Gaussian residuals. What
the sensor shows means the same in both, and is not mapped.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

from tfp_gaps._tensorflow import tf

_DEGREE = 3
_RIDGE = 1e-6


class StateMap(NamedTuple):
    """A fitted map, for one or several replicas.

    shift, scale: of the inputs, [replicas, 1, inputs].
    weights: [replicas, features, outputs].
    spread: Cholesky factor of the residual's covariance, [replicas, outputs, outputs].
    explained: share of the outputs' variance that the polynomials explain, [replicas, outputs].
    """

    shift: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    spread: np.ndarray
    explained: np.ndarray

    def __call__(self, inputs, seed):
        """Draw outputs for inputs [replicas, ..., inputs]: [replicas, ..., outputs]."""
        replicas, *leading, size = inputs.shape
        flat = tf.reshape(inputs, [replicas, -1, size])
        features = _features((flat - self.shift) / self.scale, tf)
        outputs = tf.matmul(features, tf.constant(self.weights, tf.float32))
        noise = tf.random.stateless_normal(tf.shape(outputs), seed, alg="philox")
        outputs += tf.matmul(noise, tf.constant(self.spread, tf.float32), transpose_b=True)
        return tf.reshape(outputs, [replicas, *leading, outputs.shape[-1]])


def fit(inputs, outputs):
    """Fit a map by least squares.

    Args:
      inputs: [replicas, points, inputs].
      outputs: [replicas, points, outputs].

    Returns:
      `StateMap`.

    Raises:
      ValueError: for arrays that do not agree, or fewer points than twice the polynomials' number.
    """
    inputs, outputs = (np.asarray(a, np.float64) for a in (inputs, outputs))
    if inputs.ndim != 3 or outputs.ndim != 3 or inputs.shape[:2] != outputs.shape[:2]:
        raise ValueError(
            f"inputs and outputs must have shape [replicas, points, ...], with equal replicas and "
            f"points, but have the shapes {inputs.shape} and {outputs.shape}."
        )
    shift = inputs.mean(1, keepdims=True)
    scale = inputs.std(1, keepdims=True) + 1e-8
    features = _features((inputs - shift) / scale, np)
    if features.shape[1] < 2 * features.shape[2]:
        raise ValueError(
            f"a fit of {features.shape[2]} polynomials needs twice as many points, but there are "
            f"{features.shape[1]}. Give more episodes."
        )
    gram = np.einsum("rni,rnj->rij", features, features) / features.shape[1]
    right = np.einsum("rni,rno->rio", features, outputs) / features.shape[1]
    weights = np.linalg.solve(gram + _RIDGE * np.eye(gram.shape[1]), right)
    residual = outputs - features @ weights
    covariance = np.einsum("rni,rnj->rij", residual, residual) / residual.shape[1]
    spread = np.linalg.cholesky(covariance + 1e-12 * np.eye(covariance.shape[1]))
    explained = 1.0 - residual.var(1) / np.maximum(outputs.var(1), 1e-12)
    shift, scale = shift.astype(np.float32), scale.astype(np.float32)
    return StateMap(shift, scale, weights, spread, explained)


def _features(inputs, library):
    """All monomials up to the third degree, [..., features]."""
    gather = (
        (lambda i: tf.gather(inputs, i, axis=-1)) if library is tf else (lambda i: inputs[..., i])
    )
    columns = [library.ones_like(inputs[..., :1])]
    for degree in range(1, _DEGREE + 1):
        chosen = itertools.combinations_with_replacement(range(inputs.shape[-1]), degree)
        factors = [gather(np.array(index)) for index in zip(*chosen, strict=True)]
        columns.append(math.prod(factors[1:], start=factors[0]))
    return library.concat(columns, -1) if library is tf else np.concatenate(columns, -1)
