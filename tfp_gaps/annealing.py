"""Annealed importance sampling: bounds on ln p(x) that need no good q, from below and from above.

Between a distribution pi_0 that can be sampled (the prior) and p(z | x) lies the geometric path
f_b(z) = pi_0(z)^(1 - b) p(x, z)^b. A chain starts at pi_0, moves by Hamiltonian Monte Carlo that
leaves f_b invariant at 0 < b_1 < b_2 < ... < b_n = 1, and collects

    ln w = sum_i (b_{i+1} - b_i) (ln p(x, z_i) - ln pi_0(z_i)),      E w = p(x)      (Neal 2001),

so that E ln mean w <= ln p(x). Where an exact draw of the posterior is known, because the model
made x itself, the same chain run backwards has E w' = 1 / p(x), and -ln mean w' bounds ln p(x) from
above (Grosse, Ghahramani, Adams 2015): the two sandwich the evidence. That the backward chains
share one posterior draw costs accuracy, not validity.

The transitions are those of `tfp.mcmc.sample_annealed_importance_chain`, whose path is geometric
and evenly spaced between its two ends. Between two knots b < c of another schedule that path is

    f_b(z)^(1 - t) f_c(z)^t = pi_0(z)^(1 - s) p(x, z)^s      with   s = (1 - t) b + t c,

a stretch of the whole path; neighbouring stretches meet in the same unnormalised f. So one call per
segment, each starting where the last one ended, is one chain on a piecewise linear schedule, and
the ln w of the segments add up. Two things differ from the plain use of that function. It hands the
kernel's results of one temperature to the next, where the log density and gradient they hold are
those of the temperature before, and the chain then leaves no f_b invariant; here every step starts
its kernel afresh. And step sizes are tuned in a pilot run of chains of its own and then frozen,
because a step size that depends on the chain's own past makes E w = p(x) inexact.

All values are nats per datum.
"""

from collections import namedtuple
from typing import NamedTuple

import numpy as np
from scipy import special

from tfp_gaps import _checks
from tfp_gaps._tensorflow import tf, tfp
from tfp_gaps.networks import replica_seeds

SCHEDULES = ("linear", "sigmoid")
TARGET_ACCEPTANCE = 0.65
"""Where the cost of an accepted move is lowest in many dimensions (Beskos et al. 2013)."""

_SIGMOID_WIDTH = 4.0
# Passes a third as long as the run, of a quarter of its chains. Were they shorter, the chains would
# lag so far behind the path that large steps go downhill there, and are too large for the run.
_PILOT_PASSES = 6
_PILOT_SPEED = 3
_PILOT_SHARE = 4
_PILOT_GAIN = 1.5
_PILOT_START, _PILOT_RANGE = 0.2, (1e-4, 2.0)
_Results = namedtuple("_Results", ["inner_results", "accepted"])


class Annealed(NamedTuple):
    """What the chains collected.

    log_weights: float64 [chains, *batch], ln w; of the backward chains ln w'.
    sign: 1 forwards, -1 backwards.
    acceptance: float64 [segments, *batch], mean acceptance probability, from b = 0 to 1.
    step_sizes: float64 [segments, *batch], as used, in the same order.

    A weight of zero (ln w = -inf) is a weight like any other. A chain whose ln w is NaN or +inf has
    failed: `num_failed` counts it, and its datum has NaN in everything computed from the weights,
    because a mean without it would be no bound. A move that leads to a log density of NaN or
    infinity is rejected, which keeps the weights exact, and shows in the acceptance.
    """

    log_weights: np.ndarray
    sign: int
    acceptance: np.ndarray
    step_sizes: np.ndarray

    def log_evidence(self):
        """The bound on ln p(x), ln mean w or -ln mean w': float64 [*batch]."""
        weights = self._counted()
        return self.sign * (special.logsumexp(weights, axis=0) - np.log(len(weights)))

    def effective_size(self):
        """1 / sum of squared normalised weights: float64 [*batch], between 1 and the chains."""
        scaled = _relative(self._counted())
        with np.errstate(invalid="ignore"):  # NaN where all weights are zero
            return scaled.sum(0) ** 2 / (scaled**2).sum(0)

    def standard_error(self):
        """Of `log_evidence` over chains, by the delta method: float64 [*batch].

            sd(w) / (mean w sqrt K) = sqrt((K / ESS - 1) / (K - 1))

        NaN for a single chain. Too small where the effective size is a few: at 4 of 16 by a third
        for log-normal weights, of which `jackknife_error` is right. Neither knows of regions that
        no chain met, nor of the error that backward chains with a common posterior draw share.
        """
        count = len(self.log_weights)
        if count == 1:
            return np.full(self.log_weights.shape[1:], np.nan)
        return np.sqrt(np.maximum(count / self.effective_size() - 1, 0.0) / (count - 1))

    def jackknife_error(self):
        """Of `log_evidence` over chains, by `jackknife_error`: float64 [*batch]."""
        return jackknife_error(self._counted())

    def careful_error(self):
        """Of `log_evidence` over few chains: float64 [*batch].

        The larger of `jackknife_error` and of what normal ln w of the same variance s^2 have,
        sqrt((exp(s^2) - 1) / K). The first is too small where the largest weights were not met,
        the second where ln w is skewed to the right.
        """
        weights = self._counted()
        if len(weights) == 1:
            return np.full(weights.shape[1:], np.nan)
        with np.errstate(over="ignore", invalid="ignore"):
            normal = np.sqrt(np.expm1(np.var(weights, axis=0, ddof=1)) / len(weights))
        return np.fmax(self.jackknife_error(), normal)

    def num_failed(self):
        """Chains whose ln w is NaN or +inf: int [*batch]."""
        return np.sum(np.isnan(self.log_weights) | (self.log_weights == np.inf), axis=0)

    def _counted(self):
        """ln w, NaN for every chain of a datum with a failed one."""
        return np.where(self.num_failed() > 0, np.nan, self.log_weights)


def jackknife_error(log_weights):
    """Standard error of ln mean w over independent weights, by leaving out one after another.

        sqrt((K - 1) / K sum_k (l_k - mean l)^2),    l_k = ln mean w without w_k

    Args:
      log_weights: ln w, [K, *batch].

    Returns:
      float64 [*batch]; NaN for a single weight, infinite where one holds all of the sum.

    >>> jackknife_error(np.log([1.0, 2.0, 3.0])).round(3).item()
    0.296
    """
    count, scaled = len(log_weights), _relative(_checks.real_array(log_weights, "log weights"))
    if count == 1:
        return np.full(scaled.shape[1:], np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.log(scaled.sum(0) - scaled)
        error = np.sqrt((count - 1) * np.var(values, axis=0))
    return np.where(np.any(values == -np.inf, axis=0), np.inf, error)


def _relative(log_weights):
    """w relative to the largest of its datum."""
    largest = np.max(log_weights, axis=0)
    return np.exp(log_weights - np.where(largest == -np.inf, 0.0, largest))


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
    dtype=tf.float32,
    step_sizes=None,
    jit_compile=False,
):
    """Bound ln p(x) from below.

    Args:
      log_joint: function of latents [chains, *batch, latent] to ln p(x, z), of shape
        [chains, *batch] and the same dtype.
      batch_shape: of the data, of any rank.
      latent_size: dimensions of z.
      num_chains: independent chains per datum.
      num_steps: temperatures, rounded up to a multiple of the segments.
      seed: non-negative int.
      num_leapfrog_steps: of each Hamiltonian move.
      schedule: "linear", "sigmoid" (slow at both ends), or knots that increase from 0 to 1.
      num_segments: pieces of a named schedule.
      initial: pi_0, anything with `sample(chains, seed=)` to [chains, *batch, latent] and a
        normalised `log_prob`, such as a TFP distribution of batch `batch_shape` (a Gaussian q, for
        instance); None for the standard normal prior.
      dtype: of the latents.
      step_sizes: [segments, *batch], from an earlier run; None to tune them in a pilot run, which
        takes about half of the run's own time.
      jit_compile: compile with XLA, which pays on a GPU. For plain densities: XLA does not end over
        a joint distribution that batches automatically (JointDistribution*AutoBatched).

    Returns:
      `Annealed`, whose `log_evidence` is a lower bound in expectation.

    Raises:
      ValueError: for counts below one, a schedule that does not rise from 0 to 1, shapes that do
        not fit, or a log density that is not finite where the chains start.

    >>> def log_joint(z):  # z ~ N(0, 1), x | z ~ N(z, 1), and x = 1
    ...     normal = tfp.distributions.Normal(0.0, 1.0)
    ...     return tf.reduce_sum(normal.log_prob(z) + normal.log_prob(1.0 - z), -1)
    >>> found = forward(log_joint, batch_shape=(), latent_size=1, num_chains=64, num_steps=20,
    ...                 num_segments=2, num_leapfrog_steps=3, seed=0)
    >>> truth = tfp.distributions.Normal(0.0, 2.0 ** 0.5).log_prob(1.0)
    >>> bool(abs(found.log_evidence() - truth) < 4 * found.standard_error())
    True
    """
    chains = _Chains(
        log_joint, batch_shape, latent_size, initial, dtype, num_leapfrog_steps, num_steps,
        knots(schedule, num_segments), jit_compile,
    )  # fmt: skip
    num_chains = _checks.integer(num_chains, "num_chains", minimum=1)
    if step_sizes is None:
        step_sizes = chains.tune(num_chains, seed)
    return chains.run(chains.start(num_chains, seed, "annealing start"), step_sizes, seed, 1)


def reverse(
    log_joint,
    posterior_draws,
    *,
    num_steps,
    seed,
    num_leapfrog_steps=10,
    schedule="sigmoid",
    num_segments=20,
    initial=None,
    dtype=tf.float32,
    step_sizes=None,
    jit_compile=False,
):
    """Bound ln p(x) from above, from exact draws of the posterior.

    Args:
      log_joint: as in `forward`.
      posterior_draws: [chains, *batch, latent]; each an exact draw of p(z | x), though chains of
        one datum may share it.
      step_sizes: in the order of the forward run, whose own can be given; None to tune them in a
        pilot run, which goes forwards and sees no posterior draw: step sizes that depend on where
        the chains start would make the weights inexact.
      num_steps, seed, num_leapfrog_steps, schedule, num_segments, initial, dtype, jit_compile: as
        in `forward`.

    Returns:
      `Annealed`, whose `log_evidence` is an upper bound in expectation over the posterior draws.

    Raises:
      ValueError: as `forward`, and for posterior draws that are not finite or have no chains.
    """
    draws = _checks.finite_array(posterior_draws, "posterior_draws")
    if draws.ndim < 2 or not draws.size:
        raise ValueError(
            f"posterior_draws must be [chains, *batch, latent], but have shape {draws.shape}. Give "
            f"one draw of p(z | x) per chain, or the same one to all: np.tile(z, [chains, 1, 1])."
        )
    chains = _Chains(
        log_joint, draws.shape[1:-1], draws.shape[-1], initial, dtype, num_leapfrog_steps,
        num_steps, knots(schedule, num_segments), jit_compile,
    )  # fmt: skip
    if step_sizes is None:
        step_sizes = chains.tune(len(draws), seed)
    return chains.run(tf.constant(draws, dtype), step_sizes, seed, -1)


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
        # A proposal without a finite log density has a ratio of -inf.
        accepted = tf.exp(tf.minimum(inner.log_accept_ratio, 0.0))
        return state, _Results(inner, previous_kernel_results.accepted + accepted)


class _Chains:
    """A path and the ways along it; the program of a segment is traced once."""

    def __init__(
        self, log_joint, batch_shape, latent_size, initial, dtype, num_leapfrog, num_steps, path,
        jit_compile,
    ):  # fmt: skip
        _checks.integer(num_steps, "num_steps", minimum=1)
        self._leapfrog = _checks.integer(num_leapfrog, "num_leapfrog_steps", minimum=1)
        _checks.integer(latent_size, "latent_size", minimum=1)
        self._log_joint, self._path, self._dtype = log_joint, path, tf.as_dtype(dtype)
        self._batch_shape = tuple(int(size) for size in batch_shape)
        self._state_shape = (*self._batch_shape, latent_size)
        self._initial = initial
        if initial is None:
            self._initial = tfp.distributions.MultivariateNormalDiag(
                tf.zeros(self._state_shape, self._dtype)
            )
        self._steps = -(-num_steps // (len(path) - 1))
        self._segment = tf.function(self._run_segment, autograph=False, jit_compile=jit_compile)

    def start(self, num_chains, seed, purpose):
        """Draws of pi_0, [chains, *batch, latent]."""
        return self._initial.sample(num_chains, seed=_stream(seed, purpose))

    def _ends(self, ends):
        """ln f_b at both ends of a segment.

        The transitions ask for the second end right after the first, at the same point: both follow
        from one evaluation, which halves the cost of a gradient.
        """
        kept = []

        def densities(z):
            return self._initial.log_prob(z), self._log_joint(z)

        def mixed(b, prior, joint):
            return (1.0 - b) * prior + b * joint

        def first(z):
            kept[:] = [(z, densities(z))]
            return mixed(ends[0], *kept[0][1])

        def second(z):
            where, values = kept.pop() if kept else (None, None)
            return mixed(ends[1], *(values if where is z else densities(z)))

        return first, second

    def _run_segment(self, state, ends, num_steps, step_size, seed):
        def kernel(target):
            return _Afresh(
                tfp.mcmc.HamiltonianMonteCarlo(
                    target, step_size=step_size[..., tf.newaxis], num_leapfrog_steps=self._leapfrog
                )
            )

        first, second = self._ends(ends)
        state, weights, results = tfp.mcmc.sample_annealed_importance_chain(
            num_steps=num_steps,
            proposal_log_prob_fn=first,
            target_log_prob_fn=second,
            current_state=state,
            make_kernel_fn=kernel,
            seed=seed,
        )
        accepted = results.inner_results.accepted / tf.cast(num_steps, self._dtype)
        return state, weights, tf.reduce_mean(accepted, 0)

    def _pass(self, state, num_steps, step_size_of, seed, purpose, sign=1):
        """Go through all segments; `step_size_of` (segment, last acceptance) gives step sizes."""
        total, accepted = 0.0, []
        stretches = list(enumerate(zip(self._path[:-1], self._path[1:], strict=True)))
        for index, ends in stretches[::sign]:
            state, weights, acceptance = self._segment(
                state,
                tf.constant(ends[::sign], self._dtype),
                tf.constant(num_steps),
                tf.constant(step_size_of(index, accepted[-1] if accepted else None), self._dtype),
                _stream(seed, purpose, index),
            )
            total = total + weights.numpy().astype(np.float64)
            accepted.append(acceptance.numpy().astype(np.float64))
        return total, np.stack(accepted[::sign])

    def tune(self, num_chains, seed):
        """Step sizes [segments, *batch] with an acceptance near the target.

        Stochastic approximation of ln step size, by several quick passes with falling gains, and
        the mean over the later half of them.
        """
        state = self.start(max(2, num_chains // _PILOT_SHARE), seed, "annealing pilot start")
        self._check_start(state)
        log_sizes = np.full((len(self._path) - 1, *self._batch_shape), np.log(_PILOT_START))
        steps, kept = max(1, self._steps // _PILOT_SPEED), []

        def carried(index, last):
            if last is not None:  # neighbouring temperatures need similar steps
                log_sizes[index] = log_sizes[index - 1] + _PILOT_GAIN * (last - TARGET_ACCEPTANCE)
            return np.exp(log_sizes[index])

        for number in range(_PILOT_PASSES):
            sizes_of = carried if number == 0 else (lambda i, _, now=log_sizes: np.exp(now[i]))
            _, accepted = self._pass(state, steps, sizes_of, seed, f"annealing pilot {number}")
            gain = _PILOT_GAIN / np.sqrt(number + 1)
            log_sizes = log_sizes + gain * (accepted - TARGET_ACCEPTANCE)
            log_sizes = np.clip(log_sizes, *np.log(_PILOT_RANGE))
            kept.append(log_sizes)
        return np.exp(np.mean(kept[_PILOT_PASSES // 2 :], axis=0))

    def run(self, state, step_sizes, seed, sign):
        """The pass that counts, with frozen step sizes: `Annealed`."""
        self._check_start(state)
        expected = (len(self._path) - 1, *self._batch_shape)
        sizes = _checks.positive_array(step_sizes, "step_sizes")
        if sizes.shape != expected:
            raise ValueError(
                f"step_sizes must have the shape [segments, *batch] = {expected}, but have "
                f"{sizes.shape}. Take them from a run with the same schedule and data."
            )
        weights, acceptance = self._pass(
            state, self._steps, lambda index, _: sizes[index], seed, f"annealing run {sign}", sign
        )
        return Annealed(weights, sign, acceptance, sizes)

    def _check_start(self, state):
        if tuple(state.shape[1:]) != self._state_shape:
            raise ValueError(
                f"the initial distribution must draw [chains, *batch, latent] with *batch, latent "
                f"= {self._state_shape}, but drew {tuple(state.shape)}. Give it that batch shape."
            )
        expected = tuple(state.shape[:-1])
        values = {"log_joint": self._log_joint(state), "initial": self._initial.log_prob(state)}
        for name, found in values.items():
            if tuple(found.shape) != expected or found.dtype != self._dtype:
                raise ValueError(
                    f"{name} must give {self._dtype.name} of shape [chains, *batch] = {expected} "
                    f"for latents of shape {tuple(state.shape)}, but gave {found.dtype.name} of "
                    f"shape {tuple(found.shape)}."
                )
            bad = int(np.sum(~np.isfinite(found.numpy())))
            if bad:
                raise ValueError(
                    f"{name} must be finite where the chains start, but {bad} of "
                    f"{found.numpy().size} values are not. Look for NaN in observations or "
                    f"parameters."
                )


def _stream(seed, purpose, index=0):
    return replica_seeds([seed], purpose, index)[0]
