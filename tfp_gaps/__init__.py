"""Measure, reproduce and extend the gaps of amortised variational inference.

The evidence exceeds the evidence lower bound by a Kullback-Leibler divergence, which splits into an
approximation gap (the variational family), a conditioning gap (what the inference network is not
shown), and an amortisation gap (its capacity and its optimisation).

Submodules are imported on demand; importing the package alone does not load TensorFlow.
"""

__version__ = "0.1.0"
