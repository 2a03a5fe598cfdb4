"""Measured numbers with their standard error.

Every number that the book reports is an `Estimate`: a value, the standard error of that value with
its degrees of freedom, how many samples it rests on, and which error it is (Monte Carlo, data
points, seeds, or none because the number is exact). Independent estimates add in quadrature, their
degrees of freedom by Satterthwaite (1946),

    se(a + b)^2 = se(a)^2 + se(b)^2,
    df(a + b) = (se(a)^2 + se(b)^2)^2 / (se(a)^4 / df(a) + se(b)^4 / df(b)),

which is wrong for two quantities measured on the same data; `paired_difference` is for those.
"""

import dataclasses
import math
import numbers

import numpy as np
from scipy import stats

from tfp_gaps import _checks

INDEPENDENT = "independent"
"""Groups of data that have none: each datum, such as an image, is a unit of its own."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number and the standard error that belongs to it.

    Args:
        value: the estimate; finite. Gaps and bounds are in nats (per sequence or per datum; the
            function that returns the estimate says which).
        standard_error: standard deviation of `value` under repetition; 0 for an exact number.
        num_samples: how many independent samples the error rests on, or `None`.
        kind: which repetition the error speaks of: "exact", "Monte Carlo", "data points", "seeds".
        degrees_of_freedom: of the error's t distribution; `None` stands for `num_samples` - 1, and
            for infinity where that is not known.
        slack: how far what is meant may lie (below, above) the value for a reason that no
            repetition shows, such as bounds that are not tight; it widens `confidence_interval`.

    Raises:
        ValueError: if `value` or `standard_error` is not finite, if the error is negative, the
            degrees of freedom are not positive, or a slack is negative. A run that diverged has no
            estimate: report it as diverged instead.

    >>> print(Estimate(-90.2812, 0.1234, num_samples=10_000, kind="data points"))
    -90.28 ± 0.12
    """

    value: float
    standard_error: float = 0.0
    num_samples: int | None = None
    kind: str = ""
    degrees_of_freedom: float | None = None
    slack: tuple[float, float] = (0.0, 0.0)

    # NumPy scalars and arrays hand arithmetic over to this class instead of making object arrays.
    __array_ufunc__ = None

    def __post_init__(self):
        advice = "A diverged run has no estimate: report it as diverged."
        value = float(_checks.finite_array(self.value, "value", ndim=0, advice=advice))
        error = float(_checks.finite_array(self.standard_error, "standard_error", ndim=0))
        if error < 0:
            raise ValueError(
                f"standard_error must be zero (exact) or positive, but is {error:g}. Pass a "
                "standard deviation of the mean, not a difference."
            )
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "standard_error", error)
        if self.num_samples is not None:
            count = _checks.integer(self.num_samples, "num_samples", minimum=1)
            object.__setattr__(self, "num_samples", count)
        degrees = self.degrees_of_freedom
        degrees = self._usual_degrees() if degrees is None else float(degrees)
        if not degrees > 0:
            raise ValueError(
                f"degrees_of_freedom must be positive, but is {degrees:g}. Leave it out for "
                "num_samples - 1."
            )
        object.__setattr__(self, "degrees_of_freedom", degrees)
        slack = _checks.finite_array(self.slack, "slack", ndim=1)
        if slack.shape != (2,) or slack.min() < 0:
            raise ValueError(
                f"slack must be two numbers of at least 0, limits of how far the truth may lie "
                f"below and above the value, but is {slack.tolist()}."
            )
        object.__setattr__(self, "slack", tuple(slack.tolist()))

    def _usual_degrees(self):
        return math.inf if self.num_samples is None else float(max(1, self.num_samples - 1))

    @classmethod
    def exact(cls, value):
        """A number that was computed or counted without sampling: it has no error.

        >>> print(Estimate.exact(0.25), Estimate(3.5, 0.5) - Estimate.exact(0.25))
        0.2500 3.25 ± 0.50
        """
        return cls(float(value), kind="exact")

    @classmethod
    def from_samples(cls, samples, kind="Monte Carlo"):
        """Mean of independent samples and the standard error of that mean.

        se = sqrt( sum_i (s_i - mean)^2 / (n - 1) / n ).

        Args:
            samples: shape [n], n >= 2, independent; no NaN, no infinity.
            kind: which repetition the samples are.

        Returns:
            The `Estimate`.

        Raises:
            ValueError: if the samples are not a vector, fewer than two, masked, not real or not
                finite.

        >>> print(Estimate.from_samples([1.0, 2.0, 3.0], kind="seeds"))
        2.00 ± 0.58
        """
        samples = _sample_vector(samples, "samples")
        # Scaling first keeps the squares of very large or very small samples within range.
        scale = float(np.max(np.abs(samples))) or 1.0
        scaled = samples / scale
        error = np.std(scaled, ddof=1) / math.sqrt(samples.size)
        return cls(float(np.mean(scaled)) * scale, float(error) * scale, samples.size, kind)

    @classmethod
    def from_share(cls, count, num_samples, kind="data points"):
        """Share of independent units, with an error even if all of them agree.

        The interval of Agresti and Coull (1998, The American Statistician 52, 119-126) at 99 %:
        with z = 2.576,

            p = (count + z^2 / 2) / (n + z^2),   se^2 = p (1 - p) / (n + z^2).

        Args:
            count: of how many of the units it is true; or the sum of shares, one of each unit, of
                which none can spread more than yes and no.
            num_samples: n, the number of units.
            kind: which repetition the units are.

        Returns:
            The `Estimate`; its value lies nearer to one half than the share itself.

        Raises:
            ValueError: if there is no unit, or `count` is not within 0 and their number.

        >>> print(Estimate.from_share(50, 50))
        0.941 ± 0.031
        """
        total = _checks.integer(num_samples, "num_samples", minimum=1)
        if not 0 <= count <= total:
            raise ValueError(
                f"count must be between 0 and num_samples, but {count:g} of {total} were passed."
            )
        square = float(stats.norm.isf(0.005)) ** 2
        share = (count + square / 2) / (total + square)
        error = math.sqrt(share * (1 - share) / (total + square))
        return cls(share, error, total, kind)

    @classmethod
    def from_crossed(cls, samples, groups, kind="seeds and data points"):
        """Mean over two crossed repetitions, such as seeds and the data that all are measured on.

            se^2 = s^2(means of the rows) / rows + s^2(means of the groups) / groups

        The sum counts their interaction twice, which errs on the careful side. Degrees of freedom
        are Satterthwaite's, at least those of the smaller factor. With a single row (one seed) the
        error is over groups alone. The error holds for this training set and this split.

        Args:
            samples: shape [rows, columns]; no NaN, no infinity.
            groups: shape [columns], a label each; columns of one group (windows of a flight,
                sensors in the same hours) depend on each other, so that the error is over groups. A
                large group counts for more, as its columns do in the mean. `INDEPENDENT` where
                each column is a unit of its own.
            kind: which repetitions rows and groups are.

        Returns:
            The `Estimate`; `num_samples` counts the rows, or the groups where there is one row.

        Raises:
            ValueError: if the samples are not such a matrix or not finite, there is not one label
                for each column, None and NaN being none, or there are fewer than two groups.

        >>> print(Estimate.from_crossed([[1.0, 2.0], [3.0, 4.0]], INDEPENDENT))
        2.5 ± 1.1
        """
        advice = "What diverged has no estimate: report it as diverged."
        samples = _checks.finite_array(samples, "samples", ndim=2, advice=advice)
        over_groups = cls.from_samples(_unit_means(samples.mean(axis=0), groups), "data points")
        if len(samples) == 1:
            return over_groups
        over_rows = cls.from_samples(samples.mean(axis=1))
        both = over_rows + dataclasses.replace(over_groups, value=0.0)
        return dataclasses.replace(both, num_samples=len(samples), kind=kind)

    def __add__(self, other):
        """Sum with an independent estimate or an exact number."""
        other = _as_estimate(other)
        if other is None:
            return NotImplemented
        counts = [e.num_samples for e in (self, other) if e.num_samples is not None]
        return Estimate(
            self.value + other.value,
            math.hypot(self.standard_error, other.standard_error),
            min(counts, default=None),
            _joint_kind(self, other),
            _satterthwaite(self, other),
            tuple(a + b for a, b in zip(self.slack, other.slack)),
        )

    __radd__ = __add__

    def __neg__(self):
        return dataclasses.replace(self, value=-self.value, slack=self.slack[::-1])

    def __sub__(self, other):
        """Difference from an independent estimate; see `paired_difference` for dependent ones."""
        other = _as_estimate(other)
        return NotImplemented if other is None else self + (-other)

    def __rsub__(self, other):
        return -self + other

    def __mul__(self, factor):
        """Multiple by an exact number, for instance nats to bits."""
        if not isinstance(factor, numbers.Real):
            return NotImplemented
        if factor < 0:
            return (-self) * -factor
        return dataclasses.replace(
            self,
            value=self.value * float(factor),
            standard_error=self.standard_error * float(factor),
            slack=tuple(float(factor) * each for each in self.slack),
        )

    __rmul__ = __mul__

    def __truediv__(self, divisor):
        """Quotient by an exact number, for instance nats per sequence to nats per step."""
        return self * (1.0 / divisor) if isinstance(divisor, numbers.Real) else NotImplemented

    def __float__(self):
        return self.value

    def interval(self, z=1.96):
        """Return `(value - z standard errors, value + z standard errors)`.

        >>> Estimate(1.0, 0.5).interval(z=2)
        (0.0, 2.0)
        """
        half_width = z * self.standard_error
        return self.value - half_width, self.value + half_width

    def confidence_interval(self, level=0.99):
        """Return the two-sided t interval `(low, high)`, widened by `slack`.

        An exact number has no width.

        >>> low, high = Estimate(1.0, 0.5, num_samples=3).confidence_interval()
        >>> print(f"{low:.2f} to {high:.2f}")
        -3.96 to 5.96
        """
        low = high = self.value
        if self.standard_error:
            quantile = float(stats.t.isf((1 - level) / 2, self.degrees_of_freedom))
            low, high = self.interval(quantile)
        return low - self.slack[0], high + self.slack[1]

    def as_dict(self):
        """Return the fields as JSON types; usual degrees of freedom and no slack are left out."""
        fields = dataclasses.asdict(self) | {"slack": list(self.slack)}
        if self.degrees_of_freedom == self._usual_degrees():
            del fields["degrees_of_freedom"]
        if not any(self.slack):
            del fields["slack"]
        return fields

    @classmethod
    def from_dict(cls, fields):
        """Inverse of `as_dict`.

        >>> e = Estimate(1.5, 0.1, 20, "seeds")
        >>> Estimate.from_dict(e.as_dict()) == e
        True
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(fields, dict) or set(fields) - names or "value" not in fields:
            raise ValueError(
                f"An estimate is a dictionary with 'value' and optionally "
                f"{sorted(names - {'value'})}, but found {fields!r}. Write it with as_dict()."
            )
        return cls(**fields)

    def __str__(self):
        """Two significant digits of the error; four of the value if it is exact.

        >>> print(Estimate(0.0312345, 0.00962), Estimate(1234.5, 210.0), sep=" and ")
        0.0312 ± 0.0096 and 1230 ± 210
        """
        if self.standard_error == 0:
            return _four_digits(self.value)
        largest = max(abs(self.value), self.standard_error)
        if not 1e-4 <= largest < 1e7:
            exponent = math.floor(math.log10(largest))
            return f"({_with_error(self.value, self.standard_error, exponent)})e{exponent:+03d}"
        return _with_error(self.value, self.standard_error, 0)


def over_seeds(samples):
    """Mean over seeds, and the standard error of that mean.

    Args:
        samples: [seeds, ...], at least two seeds; everything after the first axis is averaged.

    Returns:
        The `Estimate`, of kind "seeds".

    Raises:
        ValueError: for fewer than two seeds, and for samples that are masked, not real, or not
            finite.

    >>> print(over_seeds([[1.0, 3.0], [2.0, 4.0], [3.0, 5.0]]))
    3.00 ± 0.58
    """
    _checks.finite_array(samples, "samples")  # a mean over a mask would leave numbers out
    by_seed = np.mean(np.reshape(samples, [len(samples), -1]), axis=1)
    return Estimate.from_samples(by_seed, kind="seeds")


def ratio_of_means(numerators, denominators, groups, kind="seeds and data points"):
    """Ratio of two means over the same repetitions, with the error of its linearisation.

        a / b has the error of the mean of (a_i - (a / b) b_i) / b.

    Args:
        numerators: shape [rows, columns], as for `Estimate.from_crossed`.
        denominators: shape [rows, columns]; their mean must be far from zero in units of its error.
        groups: shape [columns], or `INDEPENDENT`; as for `Estimate.from_crossed`.
        kind: which repetitions rows and groups are.

    Returns:
        The `Estimate`.

    Raises:
        ValueError: as for `Estimate.from_crossed`, and for denominators whose mean is zero.

    >>> print(ratio_of_means([[1.0, 2.0, 3.0]], [[2.0, 4.0, 7.0]], INDEPENDENT))
    0.462 ± 0.027
    """
    advice = "What diverged has no estimate: report it as diverged."
    numerators = _checks.finite_array(numerators, "numerators", ndim=2, advice=advice)
    denominators = _checks.finite_array(denominators, "denominators", ndim=2, advice=advice)
    if abs(denominators.mean()) <= 1e-12 * np.max(np.abs(denominators), initial=0.0):
        raise ValueError(
            f"denominators must have a mean far from zero in units of its error, but their mean is "
            f"{denominators.mean():.3g}. There is no such ratio: report the two means."
        )
    ratio = numerators.mean() / denominators.mean()
    residual = (numerators - ratio * denominators) / denominators.mean()
    return Estimate.from_crossed(residual, groups, kind) + ratio


def paired_difference(a_samples, b_samples, kind="data points"):
    """Mean of a_i - b_i and its standard error, for two quantities measured on the same data.

    Args:
        a_samples: shape [n]; entry i belongs to the same datum (or seed) as `b_samples[i]`.
        b_samples: shape [n].
        kind: which repetition the pairs are.

    Returns:
        `Estimate` of the mean of a - b.

    Raises:
        ValueError: if the two differ in length, are not vectors, or are not finite.

    >>> print(paired_difference([10.0, 20.0, 30.0], [9.0, 19.5, 28.5]))
    1.00 ± 0.29
    """
    a_samples = _sample_vector(a_samples, "a_samples")
    b_samples = _sample_vector(b_samples, "b_samples")
    if a_samples.shape != b_samples.shape:
        raise ValueError(
            f"Paired samples must have the same length, but a_samples has {a_samples.size} and "
            f"b_samples has {b_samples.size}. Evaluate both on the same data, in the same order."
        )
    return Estimate.from_samples(a_samples - b_samples, kind=kind)


def _sample_vector(samples, name):
    """Return `samples` as a finite float64 vector of at least two entries."""
    advice = "Pass one number per independent repetition, and drop or report diverged ones."
    samples = _checks.finite_array(samples, name, ndim=1, advice=advice)
    if samples.size < 2:
        raise ValueError(
            f"{name} must hold at least 2 entries to have a standard error, but holds "
            f"{samples.size}. Draw more, or write Estimate(value) for an exact number."
        )
    return samples


def _unit_means(columns, groups):
    """Return one number for each group, with the mean of `columns` and the spread of the groups.

    A group's deviation from the mean is weighted by its size over the average size.
    """
    if isinstance(groups, str) and groups == INDEPENDENT:
        return columns
    index = _indices(groups, columns.size)
    mean = columns.mean()
    sums = np.bincount(index, weights=columns - mean)
    return mean + sums * len(sums) / columns.size


def _indices(groups, count):
    """Return the number of its group for each of `count` labels."""
    _checks.unmasked(groups, "groups", advice="Give every sequence a label.")
    groups = np.asarray(groups)
    if groups.shape != (count,):
        raise ValueError(
            f"groups must have one label for each of the {count} sequences, but has {groups.size} "
            f"of shape {groups.shape}. Take those of the sequences that were measured, or "
            f"INDEPENDENT."
        )
    labels = groups.tolist()
    unknown = sum(label is None or label != label for label in labels)  # NaN differs from itself
    kinds = sorted({type(label).__name__ for label in labels})
    if unknown or (groups.dtype == object and len(kinds) > 1):
        found = f"{unknown} are None or NaN" if unknown else f"they mix {' and '.join(kinds)}"
        raise ValueError(
            f"groups must be labels of one kind, numbers or strings, but {found}. Give a sequence "
            f"that belongs to no group a label of its own."
        )
    return np.unique(groups, return_inverse=True)[1]


def _satterthwaite(a, b):
    """Return the degrees of freedom of a sum of two independent estimates."""
    if not (a.standard_error and b.standard_error):
        return (a if a.standard_error else b).degrees_of_freedom
    total = math.hypot(a.standard_error, b.standard_error)
    inverse = sum((e.standard_error / total) ** 4 / e.degrees_of_freedom for e in (a, b))
    return 1 / inverse if inverse else math.inf


def _as_estimate(other):
    """Return an `Estimate`, exact if `other` is a plain number, or None."""
    if isinstance(other, Estimate):
        return other
    return Estimate.exact(other) if isinstance(other, numbers.Real) else None


def _joint_kind(a, b):
    """Name the error of a sum; an exact part adds none."""
    kinds = [e.kind for e in (a, b) if e.standard_error > 0] or [a.kind, b.kind]
    return " and ".join(dict.fromkeys(kind for kind in kinds if kind))


def _four_digits(value):
    """Print four significant digits without losing digits before the decimal point."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.3e}".split("e")
    exponent = int(exponent)
    if not -4 <= exponent < 7:
        return f"{mantissa}e{exponent:+03d}"
    return f"{value:.{max(0, 3 - exponent)}f}"


def _with_error(value, error, exponent):
    """Print value ± error in units of 10^exponent, with two significant digits of the error."""
    value, error = value / 10.0**exponent, error / 10.0**exponent
    # The exponent of the rounded error: 0.0996 rounds to 0.10, which has two decimals.
    last_digit = int(f"{error:.1e}".split("e")[1]) - 1
    decimals = max(0, -last_digit)
    value, error = round(value, -last_digit), round(error, -last_digit)
    return f"{value + 0.0:.{decimals}f} ± {error:.{decimals}f}"
