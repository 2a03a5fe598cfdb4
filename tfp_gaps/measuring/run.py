"""One measurement: draws of q, the search for the best q, annealing, batch by batch of the data."""

import contextlib
import functools
from typing import NamedTuple

import numpy as np

from tfp_gaps import annealing
from tfp_gaps._tensorflow import tf
from tfp_gaps.bounds import Bounds, diagnose, interval_factor
from tfp_gaps.estimate import paired_difference
from tfp_gaps.measuring.found import Found
from tfp_gaps.measuring.judgement import of_one_start, of_two_starts
from tfp_gaps.models import data_checks, density_checks, posterior_checks
from tfp_gaps.models.observations import num_data, select
from tfp_gaps.models.users_code import supported
from tfp_gaps.posteriors.search import Prior, Search, families_for

_FEWEST_CHECKED = 8
"""Data, as long as there are so many."""


class Draws(NamedTuple):
    """What q drew for its ELBO.

    parts: {name: [draws, data, *event]}, in the model's dtypes.
    log_weights: ln p(x, z) - ln q(z), [draws, data].
    observed: {name: [data, *event]}.
    """

    parts: dict
    log_weights: np.ndarray
    observed: dict


class Run:
    """One measurement: what its batches share."""

    def __init__(self, model, effort, seed, progress=None):
        self.model, self.effort, self.seed, self.progress = model, effort, seed, progress
        self.found, self.draws = Found(), None
        self.families = families_for(effort.families, model.num_numbers)
        self._searches = {}
        # One datum in one draw, in numbers: what log p sees of it, or what a family keeps of it.
        self._size = model.size
        draws = max(effort.search_samples, effort.num_chains)
        kept = max(family.size for family in self.families.values())
        per_datum = max(effort.num_samples, draws * self._size, kept)
        self._data_at_once = max(1, effort.numbers_at_once // per_datum)

    def _in_batches(self, count, label, work):
        """[work(first, end)] for the data of each batch."""
        found = []
        for first in range(0, count, self._data_at_once):
            end = min(count, first + self._data_at_once)
            with _counted_from(first, end):
                found.append(work(first, end))
            self._report(label, end, count)
        return found

    def _draws_at_once(self, num_data):
        return max(1, self.effort.numbers_at_once // (num_data * self._size))

    def _report(self, label, done, total):
        if self.progress is not None:
            self.progress(label, done, total)

    def check_posterior(self, posterior, x, completions=None):
        """Refuse a q that is not one density for each datum, or that sees what completions change.

        Enough data to see whether they are mixed, however few come in a batch.
        """
        posterior_checks.steady(
            posterior, select(x, slice(0, max(self._data_at_once, _FEWEST_CHECKED)))
        )
        if completions is None:
            return
        for first in range(0, num_data(x), self._data_at_once):
            end = min(num_data(x), first + self._data_at_once)
            with _counted_from(first, end):
                posterior_checks.completing(
                    posterior,
                    select(x, slice(first, end)),
                    tf.nest.map_structure(lambda v, a=first, b=end: v[:, a:b], completions),
                )

    def bound_posterior(self, posterior, x):
        """ELBO and IWAE of q: (moments of its draws, each [data, numbers]; rounding, nats)."""

        def work(first, end):
            data_checks.same_support(self.model, select(x, slice(first, end)))
            q = _part_of(posterior, first, end, num_data(x))
            draw = functools.partial(self.model.draw, q, select(x, slice(first, end)))
            weights, rounded, parts = self._weights(
                draw,
                select(x, slice(first, end)),
                _seed(self.seed, first),
                "the posterior",
                of_model=False,
            )
            if first == 0:
                density_checks.unmixed(self.model, parts, select(x, slice(first, end)))
            if len(weights) == len(parts[self.model.latents[0]]) and end - first == num_data(x):
                self.draws = Draws(
                    {name: part.numpy() for name, part in parts.items()},
                    weights,
                    self.model.named(x),
                )
            self.found.add_weights("", weights, rounded)
            return *_moments(self.model, parts), rounded

        parts = self._in_batches(num_data(x), "draws of the posterior", work)
        means, sds, rounded = zip(*parts, strict=True)
        return [np.concatenate(means), np.concatenate(sds)], max(rounded)

    def _weights(self, draw, x, seed, name, of_model=True):
        """(ln p - ln q in the model's dtype [draws, data], rounding in nats, the first parts).

        of_model: whether the draws were made by the model's own bijector.
        """
        count, at_once = self.effort.num_samples, self._draws_at_once(num_data(x))
        found, largest, start = [], 0.0, None
        for first in range(0, count, at_once):
            parts, log_q = draw(min(at_once, count - first), _seed(seed, first))
            weights, rounded = _weights(self.model, parts, log_q, x, name, of_model)
            found.append(weights)
            largest, start = max(largest, rounded), parts if start is None else start
        return np.concatenate(found), largest, start

    def _member_weights(self, member, x, seed, name):
        def draw(count, seed):
            return member.draw(count, tf.constant([seed, 0], tf.int32))

        return self._weights(draw, x, seed, name)[:2]

    def _search(self, name, num_data):
        if (name, num_data) not in self._searches:
            self._searches[name, num_data] = Search(
                self.model,
                self.families[name],
                num_data,
                num_steps=self.effort.search_steps,
                learning_rate=self.effort.learning_rate,
                num_samples=self.effort.search_samples,
            )
        return self._searches[name, num_data]

    def _steps(self, label, first, end, total):
        """`progress` of a search over the data from `first` to `end`."""
        steps = self.effort.search_steps

        def taken(number):
            if number % max(1, steps // 10) == 0:
                self._report(label, (first * steps + (end - first) * number) // steps, total)

        return taken if self.progress is not None else None

    def search_and_anneal(self, x, starts, completions):
        """The best q of each family, chains from the best of these, and the best shared q."""
        prior = Prior(self.model, self.effort.num_samples // 2, self.seed)

        def work(first, end):
            part, seed = select(x, slice(first, end)), _seed(self.seed, first)
            start = [moment[first:end] for moment in starts]
            best, trust = self._best_of_families(
                start, part, prior, seed, (first, end, num_data(x))
            )
            if self.model.has_prior:
                mixed = self._mixture(best, prior, part, _seed(seed, 0, "mixture"))
                self.found.add_mixture(*mixed)
            if self.effort.num_chains:
                annealed = self._anneal(best, part, seed + 3)
                _check_chains(annealed)
                self.found.add_chains(annealed, trust)
            if completions is not None:
                self._share(
                    start,
                    tf.nest.map_structure(lambda v: v[:, first:end], completions),
                    part,
                    seed + 4,
                )

        self._in_batches(num_data(x), "best q and annealing", work)

    def _best_of_families(self, start, x, prior, seed, place):
        """(the `Member` with the highest mean ELBO, `Diagnostics` of its weights)."""
        found = []
        for index, name in enumerate(self.families):
            label = _best_q(name, self.effort)
            search = self._search(name, num_data(x))
            own = seed if index == 0 else _seed(seed, index, "family")
            taken = self._steps(f"search among {name}", *place)
            ended = search.run(start, _single(x), own + 1, progress=taken)
            member, trust = ended.member, of_one_start(ended)
            if self.effort.num_starts == 2 and len(prior.numbers) > 1:
                member, trust = self._second(search, ended, x, prior, own)
            weights, rounded = self._member_weights(member, x, own + 2, "the best q")
            self.found.add_weights(label, weights, rounded, trust)
            found.append((weights.mean(), index, member, diagnose(weights)))
        return max(found)[2:]

    def _second(self, search, ended, x, prior, seed):
        """Search from a second start: (the better `Member` of each datum, `SearchDiagnostics`)."""
        first = ended.member
        own = _seed(seed, 0, "second start")
        start = search.second_start(first, x, prior, own, self._draws_at_once(num_data(x)))
        other = search.run(start, _single(x), own, must_end=False)
        value, error = self._elbo(first, x, own + 1)
        other_value, other_error = self._elbo(other.member, x, own + 1)
        (means, sds), (other_means, other_sds) = first.moments(own), other.member.moments(own)
        gain, gain_error = other_value - value, np.hypot(error, other_error)
        better = gain > 3 * gain_error
        apart = (np.abs(other_means - means) / np.hypot(sds, other_sds)).max(-1)
        drift = np.where(better, other.drift, ended.drift)
        drift_error = np.where(better, other.drift_error, ended.drift_error)
        trust = of_two_starts(gain, gain_error, apart, drift, drift_error)
        return first.where(better, other.member), trust

    def _elbo(self, member, x, seed):
        """(ELBO, its error), each [data].

        From draws of their own: the choice between two ends must not favour the reported bound.
        """
        values, at_once = [], self._draws_at_once(num_data(x))
        for first in range(0, self.effort.num_samples, at_once):
            key = tf.constant([_seed(seed, first), 0], tf.int32)
            parts, log_q = member.draw(min(at_once, self.effort.num_samples - first), key)
            values.append((self.model.log_joint(parts, x) - log_q).numpy())
        summary = Bounds.from_log_weights(np.concatenate(values))
        return summary.elbo, summary.elbo_error

    def _mixture(self, member, prior, x, seed):
        """ln w of as many draws of q as of the prior, under the mixture of both: two [draws, data].

            w = p(x, z) / (q(z) / 2 + p(z) / 2)  <=  2 p(x | z)

        Bounded where the likelihood is, however narrow q, and it sees what q does not reach, if the
        prior does ("defensive" importance sampling: Hesterberg 1995; Owen and Zhou 2000). Draws at
        which something is no number count for nothing, which keeps the bound a lower one.
        """
        count = max(2, self.effort.num_samples // 2)
        at_once, found = max(1, self._draws_at_once(num_data(x)) // 2), []
        for first in range(0, count, at_once):
            end = min(count, first + at_once)
            key = tf.constant([_seed(seed, first), 0], tf.int32)
            of_q, _ = member.draw(end - first, key)
            of_prior = prior.parts(first, end, num_data(x))
            both = {name: tf.concat([of_q[name], of_prior[name]], 0) for name in of_q}
            found.append(np.split(_against_mixture(self.model, member, both, x), 2))
        return np.concatenate(found, axis=1)

    def _share(self, start, completions, x, seed):
        ended = self._search(self.effort.families[0], num_data(x)).run(start, completions, seed)
        weights, rounded = self._member_weights(ended.member, x, seed + 1, "the best shared q")
        self.found.add_weights(
            ", best shared q", weights, rounded, of_one_start(ended), with_iwae=False
        )

    def _anneal(self, best, x, seed, draws=None):
        """From the best q, not from the prior: the path is shorter. Backwards from `draws`."""
        effort, density = self.effort, _density(self.model, x)
        options = {"initial": best.q, "dtype": self.model._dtype, "seed": seed}
        options |= {"num_steps": effort.num_temperatures, "jit_compile": effort.jit_compile}
        if draws is not None:
            return annealing.reverse(density, draws, **options)
        return annealing.forward(
            density,
            batch_shape=(num_data(x),),
            latent_size=self.model.num_numbers,
            num_chains=effort.num_chains,
            **options,
        )

    def bound_above(self, latents, x, with_lower=False):
        """(upper bound, its error, lower bound of the same q or nothing), each [data].

        Where the path starts must not depend on the posterior draw, or the bound would be none: the
        search for q begins at the prior.
        """
        prior = Prior(self.model, 0, self.seed).numbers

        def work(first, end):
            part, seed = select(x, slice(first, end)), _seed(self.seed, first)
            data_checks.same_support(self.model, part)
            start = [
                np.repeat(m[np.newaxis], num_data(part), 0) for m in (prior.mean(0), prior.std(0))
            ]
            search = self._search(self.effort.families[0], num_data(part))
            best = search.run(start, _single(part), seed + 2).member
            made = {name: value[:, first:end] for name, value in latents.items()}
            draws = np.repeat(self.model.unconstrain(made).numpy(), self.effort.num_chains, 0)
            above = self._anneal(best, part, seed + 1, draws)
            error = above.careful_error() * interval_factor(self.effort.num_chains)
            below = self._anneal(best, part, seed + 3).log_evidence() if with_lower else []
            return above.log_evidence(), error, below

        found = self._in_batches(num_data(x), "bound from above", work)
        return [np.concatenate(part) for part in zip(*found, strict=True)]

    def slack(self):
        """Upper minus lower bound on data that the model made, an `Estimate`."""
        seed = _seed(self.seed, 0, "slack")
        latents, x = self.model.simulate(self.effort.num_simulated, seed=seed)
        run = Run(self.model, self.effort, seed, self.progress)
        upper, _, lower = run.bound_above(latents, x, with_lower=True)
        return paired_difference(upper, lower)


def _best_q(name, effort):
    return ", best q" if name == effort.families[0] else f", best {name} q"


def _moments(model, parts):
    """Mean and standard deviation of q's draws as unconstrained numbers, each [data, numbers]."""
    numbers = model.unconstrain(parts)
    return tf.reduce_mean(numbers, 0), tf.math.reduce_std(numbers, 0) + 1e-6


def _weights(model, parts, log_q, x, name, of_model):
    """(ln p(x, z) - ln q(z) in the model's dtype [draws, data], its rounding in nats)."""
    with supported(f"the model's densities at draws of {name}"):
        terms = model.log_terms(parts, x)
    density_checks.finite(parts, log_q, terms, name)
    if not of_model:
        posterior_checks.on_support(model, parts)
    rounded = density_checks.rounding(model, parts, log_q, terms, name)
    log_weights = (model.log_joint(parts, x) - log_q).numpy()
    if log_weights.shape != tuple(log_q.shape) or not np.isfinite(log_weights).all():
        raise ValueError(
            f"ln p(x, z) - ln q(z) must be a finite number for each of {tuple(log_q.shape)} draws "
            f"and data of {name}, but is not. Look for parts that overflow."
        )
    return log_weights, rounded


def _against_mixture(model, member, parts, x):
    """ln p(x, z) - ln (q / 2 + p / 2), float64 [draws, data]; -inf for what is no number."""
    found = model.log_prior_and_likelihood(parts, x)
    prior, likelihood = (term.astype(np.float64) for term in found)
    numbers = model.unconstrain(parts)
    _, log_det = model.constrain(numbers)
    log_q = (member.q.log_prob(numbers) - log_det).numpy().astype(np.float64)
    with np.errstate(invalid="ignore"):
        ratio = np.nan_to_num(log_q - prior, nan=-np.inf, neginf=-np.inf)
        log_weights = np.log(2.0) + likelihood - np.logaddexp(ratio, 0.0)
    return np.where(np.isfinite(log_weights), log_weights, -np.inf)


def _density(model, x):
    def log_joint(numbers):
        parts, log_det = model.constrain(numbers)
        return model.log_joint(parts, x) + log_det

    return log_joint


def _single(x):
    """x as the only completion of itself, [1, data, *event]."""
    return tf.nest.map_structure(lambda values: values[np.newaxis], x)


@contextlib.contextmanager
def _counted_from(first, end):
    """Errors name a datum within its batch."""
    try:
        yield
    except ValueError as error:
        if not first:
            raise
        raise ValueError(f"{error} (Data are counted from {first} here, up to {end}.)") from error


def _seed(seed, index, purpose="batch"):
    """`seed` for the first batch; for others one that depends on seed, purpose and place."""
    if not index and purpose == "batch":
        return seed
    words = [abs(seed), index, *purpose.encode()]
    return int(np.random.SeedSequence(words).generate_state(1)[0] % 2**30)


def _part_of(posterior, first, end, count):
    """The posterior of the data of a batch."""
    if not hasattr(posterior, "log_prob") or (first == 0 and end == count):
        return posterior
    try:
        return posterior[first:end]
    except Exception as error:
        raise ValueError(
            f"{count} data come in batches, but this posterior ({type(posterior).__name__}) cannot "
            f"be cut into the same. Give a function of the data that returns it, or raise "
            f"numbers_at_once in Effort."
        ) from error


def _check_chains(annealed):
    failed = annealed.num_failed()
    if failed.any():
        datum = int(np.argmax(failed))
        raise ValueError(
            f"annealing must give a weight for each chain, but {int(failed[datum])} of "
            f"{len(annealed.log_weights)} of datum {datum} have none. Use float64, more "
            f"temperatures, or no chains."
        )
