"""What the chains of `linear_gaussian` and `lqg` have in common: checked matrices, and their sizes.

    z_t ~ N(A z_{t-1} + B u_{t-1}, Q),   x_t ~ N(C z_t, R)

Both are frozen dataclasses whose fields are matrices; sizes follow from A [state, state], B
[state, control] and C [observation, state].
"""

import dataclasses

import numpy as np

from tfp_gaps import _checks
from tfp_gaps.exact._numerics import algebra, riccati

# Matrices that are no covariances or costs: the axis that counts states, and what it must do.
_MATRICES = {
    "transition": (1, "be square, [state, state]"),
    "control": (0, "have one row per state, [state, control]"),
    "emission": (1, "have one column per state, [observation, state]"),
}


class Chain:
    """Base of `linear_gaussian.LinearGaussian` and `lqg.System`: checks the fields, freezes them.

    Raises:
      ValueError: for shapes that do not fit each other, NaN or infinite entries, or a covariance or
        cost that is not symmetric, or not positive (semi-)definite.
    """

    # Fields that must be positive definite; the other covariances may be singular.
    _definite = ()

    def __post_init__(self):
        names = [field.name for field in dataclasses.fields(self)]
        arrays = {n: as_matrix(getattr(self, n), n) for n in _MATRICES if n in names}
        states = len(arrays["transition"])
        for name, array in arrays.items():
            axis, wanted = _MATRICES[name]
            if array.shape[axis] != states:
                raise ValueError(
                    f"{name} must {wanted}, but has shape {array.shape} where transition has "
                    f"{states} row(s). Pass A, B and C of z_t = A z_{{t-1}} + B u_{{t-1}} + noise, "
                    "x_t = C z_t + noise."
                )
        sizes = {"emission_cov": len(arrays["emission"])}
        if "control" in arrays:
            sizes["control_cost"] = arrays["control"].shape[1]
        for name in names:
            if name not in arrays:
                size, definite = sizes.get(name, states), name in self._definite
                arrays[name] = as_covariance(getattr(self, name), name, size, definite=definite)
            arrays[name].setflags(write=False)
            object.__setattr__(self, name, arrays[name])

    @property
    def state_size(self):
        """Number n of components of z_t."""
        return self.transition.shape[0]

    @property
    def observation_size(self):
        """Number m of channels of x_t."""
        return self.emission.shape[0]

    @property
    def control_size(self):
        """Number c of components of u_t."""
        return self.control.shape[1]

    def _check_stable(self):
        radius = riccati.spectral_radius(self.transition)
        if radius >= 1.0:
            raise ValueError(
                "A stationary start needs a stable transition, all eigenvalues inside the unit "
                f"circle, but the largest has modulus {radius:g}. Use "
                f"{type(self).__name__}(..., initial_cov=...) and say how the chain starts."
            )


def check_same_data(data_model, model):
    """Raise if two chains differ in the sizes of x or u."""
    sizes = [(c.observation_size, c.control_size) for c in (data_model, model)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            "Both models must emit the same x under the same u, but that of the data has "
            f"{sizes[0][0]} channel(s) and {sizes[0][1]} control(s), and the judged one "
            f"{sizes[1][0]} and {sizes[1][1]}. Change rows of `emission` or columns of `control`."
        )


def as_matrix(value, name):
    """Return `value` as a matrix; a scalar becomes [1, 1]."""
    array = _checks.finite_array(value, name)
    if array.ndim == 0:
        array = array.reshape(1, 1)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"{name} must be a matrix (or a scalar, for one dimension), but has shape "
            f"{array.shape}. Write a vector as [1, n] or [n, 1]."
        )
    return np.array(array)


def as_covariance(value, name, size, *, definite=False):
    """Check a covariance and return it exactly symmetric."""
    array = as_matrix(value, name)
    if array.shape != (size, size):
        raise ValueError(
            f"{name} must have shape ({size}, {size}), but has shape {array.shape}. Sizes follow "
            "from transition [state, state] and emission [observation, state]."
        )
    # Units may differ between components: compare correlations, to rounding.
    scale = np.sqrt(np.maximum(np.diagonal(array), 0.0))
    unit = np.outer(scale, scale)
    tolerance = 1e-10
    if np.any(np.abs(array - array.T) > tolerance * unit):
        worst = np.max(np.abs(array - array.T))
        raise ValueError(
            f"{name} must be symmetric, but differs from its transpose by {worst:g}. Pass a "
            "covariance, not a factor of it."
        )
    array = algebra.symmetric(array)
    correlation = array / np.where(unit > 0, unit, 1.0)
    smallest = np.min(np.linalg.eigvalsh(correlation))
    if np.any(np.diagonal(array) < 0) or smallest < -tolerance * size:
        raise ValueError(
            f"{name} must be positive semi-definite, but its smallest eigenvalue is "
            f"{np.min(np.linalg.eigvalsh(array)):g}. Variances are squares: pass s**2, not s."
        )
    if definite and (np.any(np.diagonal(array) == 0) or smallest <= 0):
        raise ValueError(
            f"{name} must be positive definite, but is singular (smallest eigenvalue "
            f"{np.min(np.linalg.eigvalsh(array)):g}): without noise the density of x does not "
            "exist. Use a small value such as 1e-12."
        )
    return array
