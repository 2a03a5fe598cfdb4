"""Annealed importance sampling: bounds on ln p(x) that need no good q, from below and from above.

Between a distribution pi_0 that can be sampled (the prior) and pi_1 = p(z | x) lies the geometric
path pi_b(z) ~ pi_0(z)^(1 - b) p(x, z)^b. A chain starts at pi_0, moves by Hamiltonian Monte Carlo
at b_1 < b_2 < ... < b_n = 1, and collects

    ln w = sum_i (b_{i+1} - b_i) (ln p(x, z_i) - ln pi_0(z_i)),      E w = p(x)      (Neal 2001),

so that E ln mean w <= ln p(x). Where an exact draw of the posterior is known, because the model
made x itself, the same chain run backwards has E w' = 1 / p(x), and -ln mean w' bounds ln p(x) from
above (Grosse, Ghahramani, Adams 2015): the two sandwich the evidence. That the backward chains
share one posterior draw costs accuracy, not validity.

The transitions are those of `tfp.mcmc.sample_annealed_importance_chain`, whose path is linear in b
between its two ends. Other schedules are piecewise linear here: one call for each segment between
two knots, whose weights add up. Two things differ from its plain use. It hands the kernel's results
of one temperature to the next, where the log density they hold is that of another target and biases
the acceptance; here every step starts its kernel afresh. And step sizes are tuned in a pilot run
and then frozen, because a step size that depends on the chain's own past makes the weights inexact.

All values are nats per datum.
"""

from collections import namedtuple
from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks
from tfp_gaps._tensorflow import HAS_GPU, tf, tfp

SCHEDULES = ("linear", "sigmoid")
_SIGMOID_WIDTH = 4.0
_PILOT_PASSES = 4
_PILOT_RATE = 3.0
_Results = namedtuple("_Results", ["inner_results", "accepted"])


class Annealed(NamedTuple):
    """What the chains collected.

    log_weights: float64 [chains, *batch], ln w; of the backward chains ln w'.
    sign: 1 forwards, -1 backwards.
    acceptance: float64 [segments, *batch], mean acceptance probability.
    step_sizes: float64 [segments, *batch], as used.
    """

    log_weights: np.ndarray
    sign: int
    acceptance: np.ndarray
    step_sizes: np.ndarray

    def log_evidence(self):
        """The bound on ln p(x): float64 [*batch]; NaN where a chain gave no number."""
        largest = np.max(self.log_weights, axis=0)
        return self.sign * (largest + np.log(np.mean(np.exp(self.log_weights - largest), axis=0)))

    def effective_size(self):
        """1 / sum of squared normalised weights: float64 [*batch], between 1 and the chains."""
        scaled = np.exp(self.log_weights - np.max(self.log_weights, axis=0))
        return scaled.sum(0) ** 2 / (scaled**2).sum(0)

    def standard_error(self):
        """Of `log_evidence` over chains, by the delta method: float64 [*batch]."""
        return np.sqrt(np.maximum(1 / self.effective_size() - 1 / len(self.log_weights), 0.0))

    def num_failed(self):
        """Chains whose weight is NaN or infinite, per datum: int [*batch]."""
        return np.sum(~np.isfinite(self.log_weights), axis=0)


def forward(
    log_joint,
    *,
    batch_shape,
    latent_size,
    num_chains,
    num_steps,
    seed,
    num_leapfrog_steps=10,
    schedule="sigmoid",
    num_segments=20,
    initial=None,
    step_sizes=None,
    jit_compile=HAS_GPU,
):
    """Bound ln p(x) from below.

    Args:
      log_joint: function of float32 latents [chains, *batch, latent] to ln p(x, z), of shape
        [chains, *batch].
      batch_shape: of the data.
      latent_size: dimensions of z.
      num_chains: independent chains per datum.
      num_steps: temperatures, rounded up to a multiple of the segments.
      seed: int.
      num_leapfrog_steps: of each Hamiltonian move.
      schedule: "linear", "sigmoid" (slow at both ends), or knots that increase from 0 to 1.
      num_segments: pieces of a named schedule.
      initial: pi_0 as a TFP distribution of batch `batch_shape` and event [latent]; None for the
        standard normal prior.
      step_sizes: [segments, *batch], from an earlier run; None to tune them in a pilot run.
      jit_compile: compile with XLA.

    Returns:
      `Annealed`.

    Raises:
      ValueError: for counts below one, a schedule that does not rise from 0 to 1, or a log density
        that is not finite where the chains start.
    """
    chains = _Chains(
        log_joint, batch_shape, latent_size, initial, num_leapfrog_steps, num_steps,
        knots(schedule, num_segments), jit_compile,
    )  # fmt: skip
    _checks.integer(num_chains, "num_chains", minimum=1)

    def start(count, stream):
        return chains.initial.sample(count, seed=tf.constant([seed, stream], tf.int32))

    if step_sizes is None:
        step_sizes = chains.tune(start(max(1, num_chains // 2), 1), seed)
    weights, acceptance = chains.run(start(num_chains, 2), step_sizes, seed)
    return Annealed(weights, 1, acceptance, np.asarray(step_sizes))


def reverse(log_joint, posterior_draws, *, num_steps, seed, schedule="sigmoid", **options):
    """Bound ln p(x) from above, from exact draws of the posterior.

    Args:
      log_joint: as in `forward`.
      posterior_draws: [chains, *batch, latent]; each an exact draw of p(z | x), though chains of
        one datum may share it.
      num_steps, seed, schedule: as in `forward`.
      **options: num_leapfrog_steps, num_segments, initial, step_sizes, jit_compile as in `forward`;
        step sizes are in the order of the forward run.

    Returns:
      `Annealed`, whose `log_evidence` is an upper bound.
    """
    draws = _checks.finite_array(posterior_draws, "posterior_draws").astype(np.float32)
    if draws.ndim < 2:
        raise ValueError(
            f"posterior_draws must be [chains, *batch, latent], but have shape {draws.shape}."
        )
    options = {
        "num_leapfrog_steps": 10, "num_segments": 20, "initial": None, "step_sizes": None,
        "jit_compile": HAS_GPU,
    } | options  # fmt: skip
    chains = _Chains(
        log_joint, draws.shape[1:-1], draws.shape[-1], options["initial"],
        options["num_leapfrog_steps"], num_steps,
        knots(schedule, options["num_segments"])[::-1], options["jit_compile"],
    )  # fmt: skip
    given = options["step_sizes"]
    step_sizes = chains.tune(draws, seed) if given is None else np.asarray(given)[::-1]
    weights, acceptance = chains.run(tf.constant(draws), step_sizes, seed)
    return Annealed(weights, -1, acceptance[::-1], np.asarray(step_sizes)[::-1])


def knots(schedule, num_segments=20):
    """Knots of a schedule: float64 [segments + 1], from 0 to 1.

    >>> knots("linear", 4)
    array([0.  , 0.25, 0.5 , 0.75, 1.  ])
    """
    if isinstance(schedule, str):
        _checks.one_of(schedule, "schedule", SCHEDULES)
        _checks.integer(num_segments, "num_segments", minimum=1)
        even = np.linspace(0.0, 1.0, num_segments + 1)
        if schedule == "linear":
            return even
        rising = np.tanh(_SIGMOID_WIDTH / 2 * (2 * even - 1))
        return (rising - rising[0]) / (rising[-1] - rising[0])
    given = _checks.finite_array(schedule, "schedule", ndim=1)
    if given.size < 2 or given[0] != 0 or given[-1] != 1 or np.any(np.diff(given) <= 0):
        raise ValueError(
            f"schedule must increase strictly from 0 (the prior) to 1 (the posterior), but is "
            f"{given}. Divide by its last entry, start it at 0, or name one of {SCHEDULES}."
        )
    return given


class _Afresh(tfp.mcmc.TransitionKernel):
    """A kernel that recomputes its results at the state it is given, and adds up acceptance."""

    def __init__(self, inner):
        self._inner = inner

    @property
    def is_calibrated(self):
        return self._inner.is_calibrated

    def bootstrap_results(self, init_state):
        inner = self._inner.bootstrap_results(init_state)
        return _Results(inner, tf.zeros_like(inner.accepted_results.target_log_prob))

    def one_step(self, current_state, previous_kernel_results, seed=None):
        fresh = self._inner.bootstrap_results(current_state)
        state, inner = self._inner.one_step(current_state, fresh, seed=seed)
        accepted = tf.exp(tf.minimum(inner.log_accept_ratio, 0.0))
        accepted = tf.where(tf.math.is_finite(accepted), accepted, 0.0)
        return state, _Results(inner, previous_kernel_results.accepted + accepted)


class _Chains:
    """One way through the path; the program of a segment is traced once."""

    def __init__(
        self, log_joint, batch_shape, latent_size, initial, num_leapfrog, num_steps, path, jit
    ):
        _checks.integer(num_steps, "num_steps", minimum=1)
        _checks.integer(num_leapfrog, "num_leapfrog_steps", minimum=1)
        self._log_joint, self._path, self._leapfrog = log_joint, path, num_leapfrog
        self._batch_shape = tuple(int(size) for size in batch_shape)
        self.initial = initial or tfp.distributions.MultivariateNormalDiag(
            tf.zeros([*self._batch_shape, latent_size])
        )
        self._steps = -(-num_steps // (len(path) - 1))
        self._segment = tf.function(self._run_segment, jit_compile=jit)

    def _run_segment(self, state, ends, num_steps, step_size, seed):
        def log_density(b):
            return lambda z: (1.0 - b) * self.initial.log_prob(z) + b * self._log_joint(z)

        def kernel(target):
            return _Afresh(
                tfp.mcmc.HamiltonianMonteCarlo(
                    target, step_size=step_size[..., tf.newaxis], num_leapfrog_steps=self._leapfrog
                )
            )

        state, weights, results = tfp.mcmc.sample_annealed_importance_chain(
            num_steps=num_steps,
            proposal_log_prob_fn=log_density(ends[0]),
            target_log_prob_fn=log_density(ends[1]),
            current_state=state,
            make_kernel_fn=kernel,
            seed=seed,
        )
        accepted = results.inner_results.accepted / tf.cast(num_steps, tf.float32)
        return state, weights, tf.reduce_mean(accepted, 0)

    def _pass(self, state, num_steps, step_size_of, stream):
        """Go through all segments; `step_size_of` (segment, last acceptance) gives step sizes."""
        total, accepted = 0.0, []
        for index, ends in enumerate(zip(self._path[:-1], self._path[1:], strict=True)):
            step_size = step_size_of(index, accepted[-1] if accepted else None)
            state, weights, acceptance = self._segment(
                state,
                tf.constant(ends, tf.float32),
                tf.constant(num_steps),
                tf.constant(step_size, tf.float32),
                tf.constant([stream[0], stream[1] + index], tf.int32),
            )
            total = total + weights.numpy().astype(np.float64)
            accepted.append(acceptance.numpy().astype(np.float64))
        return total, np.stack(accepted)

    def tune(self, state, seed, target=0.65):
        """Step sizes [segments, *batch] with an acceptance near the target, from a few passes."""
        self._check_start(state)
        sizes = np.full((len(self._path) - 1, *self._batch_shape), 0.2)
        steps = max(1, self._steps // 4)

        def carried(index, last):
            if index > 0:  # neighbouring temperatures need similar steps
                sizes[index] = sizes[index - 1] * np.exp(_PILOT_RATE * (last - target))
            return sizes[index]

        for number in range(_PILOT_PASSES):
            step_size = carried if number == 0 else (lambda index, _, now=sizes: now[index])
            stream = (seed, 1000 * (number + 1))
            _, accepted = self._pass(tf.constant(state), steps, step_size, stream)
            sizes = np.clip(sizes * np.exp(_PILOT_RATE * (accepted - target)), 1e-4, 2.0)
        return sizes

    def run(self, state, step_sizes, seed):
        """The pass that counts: ln w float64 [chains, *batch], acceptance [segments, *batch]."""
        self._check_start(state)
        expected = (len(self._path) - 1, *self._batch_shape)
        step_sizes = _checks.positive_array(step_sizes, "step_sizes")
        if step_sizes.shape != expected:
            raise ValueError(
                f"step_sizes must have the shape [segments, *batch] = {expected}, but have "
                f"{step_sizes.shape}. Take them from a run with the same schedule and data."
            )
        return self._pass(state, self._steps, lambda index, _: step_sizes[index], (seed, 0))

    def _check_start(self, state):
        values = self._log_joint(tf.constant(state))
        expected = (*state.shape[:1], *self._batch_shape)
        if tuple(values.shape) != expected:
            raise ValueError(
                f"log_joint must return [chains, *batch] = {expected} for latents of shape "
                f"{tuple(state.shape)}, but returned {tuple(values.shape)}."
            )
        bad = int(np.sum(~np.isfinite(values.numpy())))
        if bad:
            raise ValueError(
                f"log_joint must be finite where the chains start, but {bad} of "
                f"{values.numpy().size} values are not. Look for NaN in observations or parameters."
            )
