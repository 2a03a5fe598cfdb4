"""What the best inference network claims about the state of a controlled chain, and its error.

    q(z_t | z_{t-1}, C_t) = N( J_t' (A z_{t-1} + B u_{t-1}) + Q E[zeta_t | C_t], V_t ),
    C_t = (x_{1:t+k}, u_{1:t+k-1})

with the symbols of `tfp_gaps.exact.linear_gaussian_recursions`, A to V of the model, the mean
under the data. The claimed covariance follows from the V_t. The mean is linear in the noises and
controls of the data, so that its error is a calculation with their coefficients: cubic in T, and
exact.
"""

import numpy as np

from tfp_gaps import _checks
from tfp_gaps.exact import chain, linear_gaussian, lqg_learning
from tfp_gaps.exact import linear_gaussian_recursions as recursions
from tfp_gaps.exact._numerics import algebra


def belief(system, model, num_timesteps, lookahead, *, exploration_cov):
    """What the best q of a model claims about the true state, and how wrong it is.

    The chain q(z_t | z_{t-1}, C_t) is run on data of `system`. All means are linear in the noises,
    which makes this a calculation with their coefficients.

    Args:
      system, model, num_timesteps, lookahead, exploration_cov: as in `population_elbo`; the states
        of both have one size and the same coordinates.

    Returns:
      `linear_gaussian.OnlineFilter`, [T, state, state]: the true filter's covariance, the claimed
      one of z_t, the mean squared error of q's mean; `.coverage(0.9)` follows.

    Raises:
      ValueError: as `population_elbo`, and if the state sizes differ.

    >>> from tfp_gaps.exact import lqg
    >>> system = lqg.System.stationary(
    ...     transition=0.95, control=1.0, transition_cov=0.1, emission=1.0, emission_cov=1.0,
    ...     state_cost=1.0, control_cost=0.1, exploration_cov=0.25)
    >>> sixth = [m[5].item() for m in belief(system, system, 10, 0, exploration_cov=0.25)]
    >>> [round(variance**0.5, 4) for variance in sixth]
    [0.5028, 0.4118, 0.5713]
    """
    k = _checks.look_ahead(lookahead, num_timesteps)
    if model.state_size != system.state_size:
        raise ValueError(
            f"Beliefs about the true state need a model with as many states ({system.state_size}), "
            f"but it has {model.state_size}. Learn with state_size=None."
        )
    chain.check_same_data(system, model)
    root = lqg_learning.exploration_root(system, exploration_cov)
    data, judged = (lqg_learning.as_matrices(world, root) for world in (system, model))
    states, seen, controls = _coefficients(data, num_timesteps)
    messages = recursions.backward(judged, num_timesteps)
    future = _message_coefficients(messages, judged.control, seen, controls)
    mean, claimed = np.zeros_like(states[0]), np.zeros_like(judged.transition_cov)
    errors, claims = [], []
    for t in range(num_timesteps):
        last = min(t + k, num_timesteps - 1)
        given = np.concatenate([*seen[: last + 1], *controls[:last]])
        pushed = judged.control @ controls[t - 1] if t else np.zeros_like(mean)
        prior_cov, precision = messages.prior_cov[t], messages.precision[t]
        mean = messages.weight[t] @ mean + pushed - prior_cov @ precision @ pushed
        mean = mean + prior_cov @ _projected(future[t], given)
        claimed = algebra.congruence(messages.weight[t], claimed) + messages.covariance[t]
        # A variance that is zero may come out as minus its rounding, which has no root.
        claimed = algebra.congruence(algebra.root(claimed), np.eye(len(claimed)))
        errors.append((mean - states[t]) @ (mean - states[t]).T)
        claims.append(claimed)
    filtered = recursions.forward(data, num_timesteps)[1].covariance
    return linear_gaussian.OnlineFilter(filtered, np.stack(claims), np.stack(errors))


def _coefficients(data, num_timesteps):
    """States, observations, controls as combinations of independent unit noises, lists over t."""
    roots = [algebra.root(c) for c in (data.initial_cov, data.transition_cov, data.emission_cov)]
    n, channels, inputs = len(data.transition), len(data.emission), data.control.shape[1]
    per_step = n + channels + inputs
    noises = np.eye(num_timesteps * per_step).reshape(num_timesteps, per_step, -1)
    states, seen, controls = [], [], []
    for t, noise in enumerate(noises):
        moved = data.transition @ states[-1] + data.control @ controls[-1] if t else 0.0
        states.append(moved + roots[min(t, 1)] @ noise[:n])
        seen.append(data.emission @ states[-1] + roots[2] @ noise[n : n + channels])
        controls.append(noise[n + channels :])
    return states, seen, controls


def _message_coefficients(messages, control, seen, controls):
    """zeta_t = gain x_t + carry (zeta_{t+1} - Psi_{t+1} B u_t) in the same noises, over t."""
    later, rows = np.zeros((len(control), seen[0].shape[1])), []
    for t in reversed(range(len(seen))):
        rows.append(messages.gain[t] @ seen[t] + messages.carry[t] @ later)
        if t > 0:
            later = rows[-1] - messages.precision[t] @ control @ controls[t - 1]
    return rows[::-1]


def _projected(target, given):
    """Coefficients of E[target | given]."""
    weights = np.linalg.lstsq(given.T, target.T, rcond=None)[0]
    return weights.T @ given
