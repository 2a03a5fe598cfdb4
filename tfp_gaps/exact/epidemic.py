"""A stochastic epidemic, of which an embedding keeps the final size and the likelihood needs more.

In a population of N = num_susceptible + 1, of which one is ill at the start,

    infection  (S, I) -> (S - 1, I + 1)  at rate  contact * S I / N,
    recovery   (S, I) -> (S, I - 1)      at rate  recovery * I,        until nobody is ill.

Of an outbreak x the likelihood needs the number of infections n, the exposure A = int S I / N dt
and the burden B = int I dt (Andersson and Britton 2000),

    ln p(x | rates) = n ln contact - contact A + (n + 1) ln recovery - recovery B + const(x),

so that under Gamma priors the full posterior is a product of Gammas. The final size n depends on
the ratio of the rates alone. Given n, the geometric mean of the full posteriors is a product of
Gammas too, and their mixture is the prior times P(n | ratio): both are known without simulation.
"""

from typing import NamedTuple

import numpy as np
from scipy import special

from tfp_gaps import _checks
from tfp_gaps._tensorflow import tfp

tfd = tfp.distributions
_LOG_RATIOS = np.linspace(-10.0, 10.0, 2001)  # beyond, priors of shape 3 have less than 1e-10
_STEP = _LOG_RATIOS[1] - _LOG_RATIOS[0]


class Outbreaks(NamedTuple):
    """Simulated outbreaks.

    rates: [outbreaks, 2], contact and recovery, per week.
    cases: int [outbreaks], n, infections after the first case.
    exposure, burden: [outbreaks], A and B, in weeks.
    """

    rates: np.ndarray
    cases: np.ndarray
    exposure: np.ndarray
    burden: np.ndarray


class Epidemic:
    """The epidemic with its priors, and both posteriors given the final size.

    Args:
        num_susceptible: people who can be infected at the start, >= 1.
        shapes: of the Gamma priors of contact and recovery rate, two numbers of at least 2: below,
            times have no mean.
        prior_rates: of the same priors, in weeks.

    Raises:
        ValueError: if a number is out of range.

    >>> world = Epidemic(20)
    >>> world.sample(3, seed=0).cases
    array([6, 0, 6])
    """

    def __init__(self, num_susceptible, shapes=(3.0, 3.0), prior_rates=(1.5, 3.0)):
        self.num_susceptible = _checks.integer(num_susceptible, "num_susceptible", minimum=1)
        self.shapes = _checks.positive_array(shapes, "shapes", ndim=1)
        self.prior_rates = _checks.positive_array(prior_rates, "prior_rates", ndim=1)
        if self.shapes.shape != (2,) or self.prior_rates.shape != (2,) or self.shapes.min() < 2:
            raise ValueError(
                f"shapes and prior_rates must hold a number each for contact and recovery, shapes "
                f"of at least 2, but are {self.shapes.tolist()} and {self.prior_rates.tolist()}."
            )

    @property
    def sizes(self):
        """All values of n: int [num_susceptible + 1]."""
        return np.arange(self.num_susceptible + 1)

    def sample(self, num_samples, seed):
        """Draw rates from the prior and simulate an outbreak with each: `Outbreaks`."""
        num_samples = _checks.integer(num_samples, "num_samples", minimum=1)
        rng = np.random.default_rng(seed)
        rates = rng.gamma(self.shapes, 1 / self.prior_rates, [num_samples, 2])
        susceptible = np.full(num_samples, self.num_susceptible)
        ill = np.ones(num_samples, int)
        exposure, burden = np.zeros([2, num_samples])
        for _ in range(2 * self.num_susceptible + 1):  # more events there cannot be
            pressure = susceptible * ill / (self.num_susceptible + 1)
            hazards = rates * np.stack([pressure, ill], axis=-1)
            total = np.maximum(hazards.sum(-1), 1e-300)  # zero where all is over
            wait = np.where(ill > 0, rng.exponential(size=num_samples) / total, 0.0)
            exposure += pressure * wait
            burden += ill * wait
            infection = rng.uniform(size=num_samples) * total < hazards[:, 0]
            susceptible -= infection
            ill += np.where(infection, 1, 0 - (ill > 0))
        return Outbreaks(rates, self.num_susceptible - susceptible, exposure, burden)

    def full_posterior(self, outbreaks):
        """p(rates | x): `tfd.Gamma`, batch shape [outbreaks, 2]."""
        return self._gammas(outbreaks.cases, outbreaks.exposure, outbreaks.burden)

    def product(self):
        """The normalised geometric mean of the full posteriors given n: `tfd.Gamma`, [sizes, 2].

        Full posteriors that share n have the shapes in common; their rates are averaged.
        """
        return self._gammas(self.sizes, *self.expected_statistics())

    def product_gap(self, outbreaks):
        """KL from the product to each outbreak's full posterior, nats, [outbreaks].

        Its mean is the conditioning gap: what the ELBO of a q that sees n must lose.
        """
        q, p = self.product(), self.full_posterior(outbreaks)
        ratio = p.rate.numpy() / q.rate.numpy()[outbreaks.cases]
        return np.sum(p.concentration.numpy() * (ratio - 1 - np.log(ratio)), axis=-1)

    def log_mixture(self, log_rates):
        """ln p(log rates | n), the mixture of the full posteriors, at [..., 2]: [sizes, ...]."""
        log_rates = _checks.finite_array(log_rates, "log_rates")
        prior = tfd.Gamma(self.shapes, self.prior_rates).log_prob(np.exp(log_rates)).numpy()
        ratios, places = np.unique(
            np.round(log_rates[..., 0] - log_rates[..., 1], 9), return_inverse=True
        )
        log_probs = _log(self._walk(ratios)[0])[:, places.reshape(log_rates.shape[:-1])]
        evidence = np.log(self.size_probs()).reshape([-1] + [1] * (log_rates.ndim - 1))
        return np.sum(prior + log_rates, axis=-1) + log_probs - evidence

    def size_probs(self):
        """P(n), [sizes]: how often the prior makes each final size."""
        return self._log_ratio_masses().sum(-1)

    def mixture_below(self, log_recovery=None, log_ratio=None):
        """P(log rate <= value | n) of the mixture, for values [sizes, values]: the same shape.

        Args:
            log_recovery: values of the log recovery rate, or None.
            log_ratio: values of the log of contact over recovery rate, where the former is None.
        """
        masses = self._log_ratio_masses() / self.size_probs()[:, np.newaxis]
        if log_recovery is None:
            edges = np.append(_LOG_RATIOS, _LOG_RATIOS[-1] + _STEP) - _STEP / 2
            sums = np.pad(np.cumsum(masses, axis=1), [(0, 0), (1, 0)])
            rows = zip(np.asarray(log_ratio), sums, strict=True)
            return np.stack([np.interp(values, edges, row) for values, row in rows])
        scales = self._joint_rate(_LOG_RATIOS)
        rows = zip(np.exp(log_recovery), masses, strict=True)  # each by itself: all take too much
        return np.stack(
            [
                special.gammainc(self.shapes.sum(), np.outer(values, scales)) @ row
                for values, row in rows
            ]
        )

    def expected_statistics(self):
        """E[A | n] and E[B | n], weeks, [sizes] each."""
        weights = self._log_ratio_masses() / self._walk(_LOG_RATIOS)[0]
        # Times scale with 1 / recovery, whose mean given the ratio is that of an inverse Gamma.
        times = (
            self._walk(_LOG_RATIOS)[1:] * self._joint_rate(_LOG_RATIOS) / (self.shapes.sum() - 1)
        )
        return np.sum(times * weights, axis=-1) / self.size_probs()

    def _gammas(self, cases, exposure, burden):
        """Gamma posteriors of both rates after so many events in so much time."""
        events = np.stack([cases, cases + 1], axis=-1)
        return tfd.Gamma(self.shapes + events, self.prior_rates + np.stack([exposure, burden], -1))

    def _joint_rate(self, log_ratio):
        """Given the ratio, recovery is Gamma(sum of shapes, this)."""
        return self.prior_rates[0] * np.exp(log_ratio) + self.prior_rates[1]

    def _log_ratio_masses(self):
        """P(n and the cell of a log ratio), [sizes, nodes]."""
        logit = _LOG_RATIOS + np.log(self.prior_rates[0] / self.prior_rates[1])
        log_prior = self.shapes @ special.log_expit([logit, -logit])
        prior = np.exp(log_prior - special.betaln(*self.shapes)) * _STEP
        return prior * self._walk(_LOG_RATIOS)[0]

    def _walk(self, log_ratio):
        """P(n), E[A; n] and E[B; n] at recovery rate one: [3, sizes, ratios].

        With S left, an event is an infection with probability p = ratio S / N / (1 + ratio S / N),
        whatever I is, and I times the wait for it is exponential with mean 1 / (1 + ratio S / N).
        `reach` holds probability and expected times so far, [3, ill, ratios], of being at (S, I).
        """
        found = np.empty([3, self.num_susceptible + 1, len(log_ratio)])
        reach = np.zeros([3, self.num_susceptible + 3, len(log_ratio)])
        reach[0, 1] = 1.0
        for cases in self.sizes:
            share = (self.num_susceptible - cases) / (self.num_susceptible + 1)
            wait = 1 / (1 + share * np.exp(log_ratio))
            spent = np.array([0, share, 1])[:, np.newaxis] * wait
            for ill in range(cases + 1, 0, -1):  # cases + 1 is the most that can be ill
                reach[:, ill] += reach[0, ill] * spent
                reach[:, ill - 1] += reach[:, ill] * wait
                reach[:, ill] *= 1 - wait
            found[:, cases] = reach[:, 0]
            reach[:, 0] = 0.0
            reach = np.roll(reach, 1, axis=1)  # the others were infected: one more is ill
        return found


def _log(values):
    """Logarithm; minus infinity of zero."""
    with np.errstate(divide="ignore"):
        return np.log(values)
