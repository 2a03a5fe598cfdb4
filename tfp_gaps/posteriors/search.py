"""The best q of a family for each datum of a model that somebody brings, and whether it was found.

    q*_x = argmax_{q in Q} E_q [ln p(x, z) - ln q(z)]

by Adam on numbers that belong to one datum only; q is a distribution over the model's unconstrained
numbers. Whether a search ended at the best shows from two starts: where both end with the same ELBO
at the same place, and no longer rise, the end can be believed. The second start is where the end of
the first lacks most, the draw of the prior with the largest p(x, z) / q(z), as in boosted
variational inference (Guo et al. 2016): a mode that the first search missed is found there.
"""

from typing import NamedTuple

import numpy as np

from tfp_gaps import _checks
from tfp_gaps._tensorflow import tf, tfk, tfp
from tfp_gaps.models import density_checks
from tfp_gaps.models.observations import num_data
from tfp_gaps.networks import replica_seeds
from tfp_gaps.posteriors import families

tfd = tfp.distributions

_LARGEST_RANK = 5
_FLOW = {"num_steps": 2, "num_hidden": 32, "context_size": 1}
_NUM_PRIOR = 200
"""Draws from which the moments of the prior are taken, and second starts: they need no more."""

_WIDE = 3.0
"""Unconstrained numbers of a target without a prior are looked for within a few times as much."""

_NUM_MOMENTS = 100
_REACH = 0.25
"""A second start lies no further than a quarter of the way that Adam can go."""


# --- families -------------------------------------------------------------------------------------


class MeanField:
    """Independent normals; parameters are means and logarithms of scales, [data, numbers] each."""

    label = "independent normals"
    num_fast = 2  # parameters that take the full learning rate: weights of flows take a tenth

    def __init__(self, num_numbers):
        self.size = 2 * num_numbers  # parameters per datum

    def start(self, means, scales, seed):
        """Parameters of, or near, independent normals; `seed` for what must not be equal."""
        return [means, tf.math.log(scales)]

    def q(self, parameters):
        """The member: `sample`, `log_prob` and both at once, as TFP's, over [data, numbers]."""
        means, log_scales = parameters
        return tfd.MultivariateNormalDiag(means, tf.exp(log_scales))


class LowRank:
    """Normals whose covariance is diagonal but for a matrix of rank five at most."""

    label = "normals with a covariance of low rank beside the diagonal"
    num_fast = 3

    def __init__(self, num_numbers):
        self._rank = min(num_numbers, _LARGEST_RANK)
        self.size = (2 + self._rank) * num_numbers

    def start(self, means, scales, seed):
        """As `MeanField.start`: the factor starts at a tenth of the scales, with random signs."""
        shape = [means.shape[-1], self._rank]
        signs = 2 * tf.random.stateless_uniform(shape, [seed, 7], 0, 2, tf.int32) - 1
        factor = 0.1 * scales[..., tf.newaxis] * tf.cast(signs, means.dtype)
        return [means, tf.math.log(scales), factor]

    def q(self, parameters):
        """As `MeanField.q`."""
        means, log_scales, factor = parameters
        return tfd.MultivariateNormalDiagPlusLowRankCovariance(
            means, tf.exp(2 * log_scales), factor
        )


class Full:
    """Normals with any covariance, by `families.FullCovariance`."""

    label = "normals with any covariance"
    num_fast = 1

    def __init__(self, num_numbers):
        self._family = self._make(num_numbers)
        self._num_numbers = num_numbers
        weights = self._family.make_weights(replica_seeds([0], "flow"))
        self.size = self._family.num_outputs + sum(int(np.prod(w.shape)) for w in weights)

    def _make(self, num_numbers):
        return families.FullCovariance(num_numbers)

    def start(self, means, scales, seed):
        """As `MeanField.start`."""
        num_data = means.shape[0]
        rest = tf.zeros([num_data, self._family.num_outputs - 2 * self._num_numbers], means.dtype)
        outputs = tf.concat([means, tf.math.log(scales), rest], -1)[:, tf.newaxis]
        weights = self._family.make_weights(replica_seeds([seed], "flow"))
        return [outputs, *(tf.repeat(tf.cast(w, means.dtype), num_data, 0) for w in weights)]

    def q(self, parameters):
        """As `MeanField.q`."""
        return _OfDraws(self._family, parameters[0], list(parameters[1:]))


class Flow(Full):
    """Affine coupling layers over independent normals, each datum with weights of its own."""

    label = "affine coupling flows"

    def _make(self, num_numbers):
        return families.CouplingFlow(num_numbers, "affine", **_FLOW)


class _OfDraws:
    """A member of a family of `posteriors.families`, one datum a row, with TFP's methods."""

    def __init__(self, family, outputs, weights):
        self._family, self._outputs, self._weights = family, outputs, weights

    def experimental_sample_and_log_prob(self, num, seed):
        shape = [num, self._outputs.shape[0], 1, self._family.num_noise]
        noise = tf.random.stateless_normal(shape, seed, dtype=self._outputs.dtype, alg="philox")
        drawn = self._family.draw(self._outputs, self._weights, noise)
        return drawn.latents[:, :, 0], drawn.log_density[:, :, 0]

    def sample(self, num, seed):
        return self.experimental_sample_and_log_prob(num, seed)[0]

    def log_prob(self, numbers):
        latents = numbers[:, :, tf.newaxis]
        return self._family.log_prob(self._outputs, self._weights, latents)[:, :, 0]


FAMILIES = {"mean_field": MeanField, "low_rank": LowRank, "full": Full, "flow": Flow}
"""By the names that `Effort(family=...)` takes, all over the unconstrained numbers."""


class Member:
    """One q per datum over the model's parts: a family and its parameters [data, ...]."""

    def __init__(self, model, family, parameters):
        self.model, self.family, self.parameters = model, family, parameters

    @property
    def q(self):
        """Over the unconstrained numbers, with TFP's methods."""
        return self.family.q(self.parameters)

    def draw(self, num_samples, seed):
        """Parts {name: [draws, data, ...]} and ln q, [draws, data]."""
        numbers, log_q = self.q.experimental_sample_and_log_prob(num_samples, seed=seed)
        parts, log_det = self.model.constrain(numbers)
        return parts, log_q - log_det

    def moments(self, seed):
        """Means and standard deviations of the numbers, float64 [data, numbers] each."""
        numbers = self.q.sample(_NUM_MOMENTS, seed=tf.constant([seed, 3], tf.int32)).numpy()
        return numbers.mean(0, dtype=np.float64), numbers.std(0, dtype=np.float64)

    def where(self, mask, other):
        """`other` for the data where `mask` [data] is true, and this elsewhere."""
        chosen = [
            tf.where(tf.reshape(mask, [-1] + [1] * (a.shape.rank - 1)), b, a)
            for a, b in zip(self.parameters, other.parameters, strict=True)
        ]
        return Member(self.model, self.family, chosen)


# --- the search -----------------------------------------------------------------------------------


class Ended(NamedTuple):
    """Where a search ended.

    member: `Member`.
    drift: rise of the ELBO from the last tenth but one of the steps to the last tenth, float64
      [data], nats; NaN for fewer than twenty steps.
    drift_error: its standard error over steps.
    """

    member: Member
    drift: np.ndarray
    drift_error: np.ndarray


class Search:
    """Searches over batches of as many data each; the step is traced once.

    Args:
      model: `models.joint.Model`.
      family: one of `FAMILIES`, made for the model's numbers.
      num_data: data at once.
      num_steps, learning_rate, num_samples: of Adam, and draws per step.
    """

    def __init__(self, model, family, num_data, *, num_steps, learning_rate, num_samples):
        self.model, self.family, self._num_samples = model, family, num_samples
        self.num_steps, self._reach = num_steps, _REACH * learning_rate * num_steps
        still = tf.zeros([num_data, model.num_numbers], model._dtype)
        self._variables = [tf.Variable(v) for v in family.start(still, still + 1, 0)]
        self._member = Member(model, family, self._variables)
        fast, slow = self._variables[: family.num_fast], self._variables[family.num_fast :]
        self._groups = [
            (self._adam(rate, group), group)
            for rate, group in ((learning_rate, fast), (0.1 * learning_rate, slow))
            if group
        ]
        self._step = tf.function(self._take_step)

    def _adam(self, rate, variables):
        schedule = tfk.optimizers.schedules.CosineDecay(rate, self.num_steps, alpha=0.05)
        optimiser = tfk.optimizers.Adam(schedule)
        optimiser.build(variables)
        return optimiser

    def run(self, start, completions, seed, *, progress=None, watched=False, must_end=True):
        """Search from independent normals.

        Args:
          start: means and scales, [data, numbers] each.
          completions: what is observed, [completions, data, *event]; a step sees one of them.
          seed: int.
          progress: None, or a function of the steps that were taken.
          watched: name the step at which something is not finite.
          must_end: raise if the last ELBO is not finite; False for a search that may fail.

        Returns:
          `Ended`.

        Raises:
          ValueError: if the search ends without a finite ELBO. It is then run again, `watched`.
        """
        self._reset(start, seed)
        x, kept = tf.nest.map_structure(tf.constant, completions), []
        for number in range(self.num_steps):
            key = tf.constant([seed, number], tf.int32)
            if watched:
                self._look(key, x, f"step {number} of the search for the best q")
            elbo = self._step(key, x)
            if number >= self.num_steps - 2 * (self.num_steps // 10):
                kept.append(elbo)
            if progress is not None:
                progress(number + 1)
        if must_end and not np.isfinite(tf.reduce_sum(elbo).numpy()):
            if not watched:
                self.run(start, completions, seed, watched=True)
            raise ValueError("the search for the best q diverged. Lower learning_rate in Effort.")
        found = Member(self.model, self.family, [tf.constant(v.numpy()) for v in self._variables])
        return Ended(found, *_drift(kept, len(elbo)))

    def _reset(self, start, seed):
        means, scales = (tf.cast(moment, self.model._dtype) for moment in start)
        parameters = self.family.start(means, scales, seed)
        for variable, value in zip(self._variables, parameters, strict=True):
            variable.assign(value)
        for optimiser, _ in self._groups:
            for variable in optimiser.variables:
                variable.assign(tf.zeros_like(variable))

    def _seeds(self, key, x):
        draw_seed, choice_seed = tf.unstack(tfp.random.split_seed(key, 2))
        count = tf.nest.flatten(x)[0].shape[0]
        return draw_seed, tf.random.stateless_uniform([], choice_seed, 0, count, tf.int32)

    def _take_step(self, key, x):
        draw_seed, choice = self._seeds(key, x)
        with tf.GradientTape() as tape:
            parts, log_q = self._member.draw(self._num_samples, draw_seed)
            lost = tf.reduce_mean(log_q - self.model.log_joint(parts, _at(x, choice)), 0)
            loss = tf.reduce_sum(lost)
        found = tape.gradient(loss, [group for _, group in self._groups])
        for (optimiser, group), gradients in zip(self._groups, found, strict=True):
            optimiser.apply_gradients(zip(gradients, group, strict=True))
        return -lost

    def _look(self, key, x, where):
        draw_seed, choice = self._seeds(key, x)
        bad = np.zeros(tf.nest.flatten(x)[0].shape[1], bool)
        for value in self._variables:
            bad |= ~np.isfinite(value.numpy()).reshape(len(bad), -1).all(1)
        if bad.any():
            raise ValueError(
                f"before {where}, the gradient of ln p - ln q is not finite for datum "
                f"{int(np.argmax(bad))}. Look for functions without a derivative, or use float64."
            )
        parts, log_q = self._member.draw(self._num_samples, draw_seed)
        density_checks.finite(parts, log_q, self.model.log_terms(parts, _at(x, choice)), where)

    def second_start(self, first, x, prior, seed, draws_at_once):
        """Means and scales where `first` lacks most, [data, numbers] each.

        Args:
          first: `Member`, the end of the first search.
          x: [data, *event].
          prior: `Prior`.
          seed: int.
          draws_at_once: of the prior; bounds the memory.

        The draw of the prior with the largest p(x, z) / q(z), no further from the mean of `first`
        than Adam can go; scales between those of `first` and of the prior.
        """
        (means, sds), prior = first.moments(seed), prior.numbers[:_NUM_PRIOR]
        lack = []
        for index in range(0, len(prior), draws_at_once):
            draws = tf.constant(prior[index : index + draws_at_once])
            numbers = tf.repeat(draws[:, tf.newaxis], num_data(x), 1)
            parts, log_det = self.model.constrain(numbers)
            log_p = self.model.log_joint(parts, x) + log_det
            lack.append((log_p - first.q.log_prob(numbers)).numpy())
        lack = np.nan_to_num(np.concatenate(lack), nan=-np.inf, posinf=-np.inf)
        moved = np.clip(prior[np.argmax(lack, 0)] - means, -self._reach, self._reach)
        return means + moved, np.sqrt(sds * prior.std(0)) + 1e-6


def _at(completions, choice):
    return tf.nest.map_structure(lambda values: values[choice], completions)


def _drift(kept, num_data):
    """(last tenth minus the one before, its error) of ELBO per step, a list of [data]."""
    half = len(kept) // 2
    if half < 2:
        return np.full(num_data, np.nan), np.full(num_data, np.nan)
    halves = np.stack(kept).astype(np.float64)[-2 * half :].reshape(2, half, num_data)
    (before, last), spread = halves.mean(1), halves.var(1, ddof=1) / half
    return last - before, np.sqrt(spread.sum(0))


class Prior:
    """Draws of the prior, made once for all data.

    Args:
      model: `models.joint.Model`.
      num_draws: at least; never fewer than 200, for the moments.
      seed: int.

    Attributes:
      numbers: unconstrained, [draws, numbers]; those that are finite. Of a model without a prior
        to draw from they are wide normals, good for nothing but a second start.
    """

    def __init__(self, model, num_draws, seed):
        if not model.has_prior:
            wide = _WIDE * np.random.default_rng(seed).normal(size=[_NUM_PRIOR, model.num_numbers])
            self.numbers = wide.astype(tf.as_dtype(model.dtype).as_numpy_dtype)
            return
        self._drawn = model.draw_prior(max(_NUM_PRIOR, num_draws), seed=seed)
        numbers = model.unconstrain(self._drawn)[0].numpy()
        self.numbers = numbers[np.isfinite(numbers).all(-1)]

    def parts(self, first, end, num_data):
        """Draws from `first` to `end`, the same for all data: {name: [draws, data, *event]}."""
        return {
            name: tf.repeat(value[0, first:end, tf.newaxis], num_data, 1)
            for name, value in self._drawn.items()
        }


def families_for(names, num_numbers):
    """{name: family} for a model with so many numbers.

    Raises:
      ValueError: for an unknown name, or a flow on a single number.
    """
    for name in names:
        _checks.one_of(name, "family", FAMILIES)
    if "flow" in names and num_numbers < 2:
        raise ValueError(
            "family 'flow' needs two unconstrained numbers at least, of which one transforms the "
            "other, but the model has one. Use 'mean_field'."
        )
    return {name: FAMILIES[name](num_numbers) for name in names}
