"""Road traffic: vehicle counts at one intersection, or speeds at the detectors of a city.

Three sources. "counts" is part of this package: vehicles per 15 minutes at 22 detectors of one
intersection, 26 days, from the package `traffic-anomaly`. "metr-la" is a week of speeds at 207
sensors in Los Angeles every 5 minutes (Zhao et al. 2019), "seattle" four weeks and "seattle-year"
a year of speeds at 323 places around Seattle; these are fetched, or given in a folder.

x_t is the square root of the counts (which makes their noise nearly constant), or a speed; shifted
and scaled by mean and standard deviation of the training days. Days are split in order. Missing
values are masked, and so are stretches that the publisher interpolated.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfp_gaps import _checks
from tfp_gaps.book.data import store
from tfp_gaps.book.data.splits import PARTS, Splits, windows_within
from tfp_gaps.sequences import Sequences

FOLDER = Path(__file__).parent / "files"
COUNTS = FOLDER / "traffic-counts.npz"
COUNTS_DIGEST = "226ab3d8720d2edc9856502017655cf1127d627b1533029fac6d4f5ceb1cd21d"
MIN_MEAN_COUNT = 3  # vehicles per 15 minutes; five detectors see fewer
MAX_MISSING = 0.05  # share of missing and interpolated values of a usable sensor
STRAIGHT = 3  # interior points of a straight line that noise does not draw
SENSORS = ("one", "eight", "many", "all")


@dataclass(frozen=True)
class Source:
    """A source of traffic data.

    days: of training, validation and test, in order.
    steps_per_day: 96 or 288.
    unit: of a channel.
    sensors: what is modelled if nothing is asked for.
    stride: between training windows of one sensor that are pooled.
    raw: the file that is fetched, or None.
    num_sensors: in the file.
    """

    days: tuple[int, int, int]
    steps_per_day: int
    unit: str
    sensors: str
    stride: int
    raw: store.RawFile | None
    num_sensors: int


SPEED = "speed (mph)"
SOURCES = {
    "counts": Source((18, 4, 4), 96, "sqrt(vehicles per 15 min)", "many", 4, None, 22),
    "metr-la": Source(
        (5, 1, 1),
        288,
        SPEED,
        "one",
        4,
        store.RawFile(
            "metr-la",
            ("metr_la_week.csv", "los_speed.csv"),
            "sha256:7b732d86ae32b2930595becba28aff39dacbfb2197e250fc0332e1744ce2cbf4",
            "https://raw.githubusercontent.com/lehaifeng/T-GCN/"
            "219a2346f5bf68d54d91a948e7a41a08f9edc46b/data/los_speed.csv",
        ),
        207,
    ),
    "seattle": Source(
        (20, 4, 4),
        288,
        SPEED,
        "one",
        12,
        store.RawFile(
            "seattle",
            ("seattle_28_days.npz", "seattle/tensor.npz", "tensor.npz"),
            "git:42e3370f5fc82afc2ac3a7a0d2b7366eff0d1eed",
            "https://raw.githubusercontent.com/xinychen/transdim/"
            "99a31275f12504f59b0c3d3debd50fea92b2e973/datasets/Seattle-data-set/tensor.npz",
        ),
        323,
    ),
    "seattle-year": Source(
        (255, 55, 55),
        288,
        SPEED,
        "one",
        36,
        store.RawFile(
            "seattle-year",
            ("seattle_year.parquet", "train-00000-of-00001.parquet"),
            "sha256:fcf531408c45ba5cdc335b034ea92d96ea0249fb3e58c89ffc22604dfc47609a",
            "https://huggingface.co/datasets/autogluon/fev_datasets/resolve/"
            "1726b264fe47b4f3d7bd7bfd791eff1d1854b49d/LOOP_SEATTLE/5T/train-00000-of-00001.parquet",
        ),
        323,
    ),
}


def load(
    *,
    source="counts",
    sensors=None,
    num_timesteps=36,
    stride=None,
    evaluation_stride=None,
    standardise=None,
):
    """Load traffic as windows of equal length.

    Args:
      source: "counts", "metr-la", "seattle" or "seattle-year".
      sensors: "one": each sensor alone, windows of all usable sensors pooled, one channel; "eight":
        the eight that vary most on the training days, jointly; "many": all usable ones jointly;
        "all": all in the file jointly. Default: "many" for counts, else "one".
      num_timesteps: length of a window: 36 steps are 9 hours of counts, or 3 hours of speeds.
      stride: steps between neighbouring training windows. Default: 1 for joint windows, more for
        pooled ones.
      evaluation_stride: the same for validation and test. Default: no overlap.
      standardise: "sensor": by each sensor's own mean and standard deviation; "pooled": one of each
        for all. Default: "pooled" for the speeds of "one", else "sensor".

    Returns:
      `Splits` of [num_timesteps, windows, channels]. No window crosses from one split into another.

    Raises:
      ValueError: for unknown options, or windows longer than a split.
      DataError: if a file is missing and cannot be fetched, or is not what it should be.

    >>> splits = load(sensors="one")
    >>> splits.train.observations.shape, len(splits.test)
    ((36, 7208, 1), 170)
    """
    kind = SOURCES[_checks.one_of(source, "traffic source", tuple(SOURCES))]
    sensors = _checks.one_of(sensors or kind.sensors, "choice of sensors", SENSORS)
    pooled = sensors == "one"
    standardise = standardise or ("pooled" if pooled and source != "counts" else "sensor")
    _checks.one_of(standardise, "way to standardise", ("sensor", "pooled"))
    longest = min(kind.days) * kind.steps_per_day
    advice = "A window must fit into the days of the smallest split."
    _checks.integer(num_timesteps, "num_timesteps", minimum=2, maximum=longest, advice=advice)
    stride = _checks.integer(stride or (kind.stride if pooled else 1), "stride", minimum=1)
    evaluation_stride = _checks.integer(
        evaluation_stride or num_timesteps, "evaluation_stride", minimum=1
    )
    values, names = series(source)
    train_steps = kind.days[0] * kind.steps_per_day
    chosen = _choose(values, sensors, train_steps, _usable(values, source))
    values, names = values[:, chosen], [names[i] for i in chosen]
    shift, scale = _scaling(values[:train_steps], standardise)
    table = ((values - shift) / scale).astype(np.float32)
    cube = table.T[..., np.newaxis] if pooled else table[np.newaxis]
    windows, parts = {}, {}
    for part, (begin, end) in _stretches(kind).items():
        step = stride if part == "train" else evaluation_stride
        stretches = [(i, begin, end) for i in range(len(cube))]
        windows[part], parts[part] = _cut(cube, windows_within(stretches, num_timesteps, step))
    scaling = (shift[:, np.newaxis], scale[:, np.newaxis]) if pooled else (shift, scale)
    channels = (kind.unit,) if pooled else tuple(f"{kind.unit}, sensor {n}" for n in names)
    return Splits(
        **parts,
        source=_describe(source, sensors, names, num_timesteps, standardise),
        channels=channels,
        scaling=scaling,
        windows=windows,
    )


def fetch(source="counts"):
    """Make sure that the file of a source is at hand; return its path in a list."""
    raw = SOURCES[_checks.one_of(source, "traffic source", tuple(SOURCES))].raw
    return [COUNTS if raw is None else store.fetch(raw)]


def hours(windows, source="counts"):
    """Hour of the day at each step of windows: float [time, windows], 0 <= hour < 24."""
    steps_per_day = SOURCES[_checks.one_of(source, "traffic source", tuple(SOURCES))].steps_per_day
    steps = windows.starts + np.arange(windows.num_timesteps)[:, np.newaxis]
    return steps % steps_per_day * (24 / steps_per_day)


def series(source="counts"):
    """The whole series of a source, before it is standardised.

    Args:
      source: as in `load`.

    Returns:
      values: float64 [steps, sensors]: square roots of counts, or mph; NaN where missing or
        interpolated.
      names: the sensors' names.
    """
    kind = SOURCES[source]
    if kind.raw is None:
        arrays = store.read_own(COUNTS, COUNTS_DIGEST)
        counts = arrays["counts"].astype(float)
        return np.sqrt(np.where(counts < 0, np.nan, counts)), arrays["detectors"].tolist()
    path, content = store.read(kind.raw)
    values, names = READERS[source](content, path)
    expected = (sum(kind.days) * kind.steps_per_day, kind.num_sensors)
    if values.shape != expected:
        raise store.DataError(
            f"{path} should hold {expected[0]} steps of {expected[1]} sensors, but holds "
            f"{values.shape[0]} of {values.shape[1]}. Delete it and run "
            f"`tfp-gaps data fetch {source}`."
        )
    # A speed of zero stands for a missing one in these files.
    values = np.where(values > 0, values, np.nan)
    values[interpolated(values)] = np.nan
    return values, names


def read_csv(content, path):
    """Speeds from a CSV file: a line of sensor names, then one line for each time step.

    Raises:
      DataError: if a line has more or fewer values than there are names, or one is not a number.
    """
    lines = content.decode("utf-8", "replace").splitlines()
    names = lines[0].split(",") if lines else []
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split(",")
        if len(cells) != len(names):
            raise store.DataError(
                f"{path} should have {len(names)} columns, as its first line has, but line "
                f"{number} has {len(cells)}. A column is missing or the file is cut short: get it "
                f"again."
            )
        rows.append(cells)
    try:
        values = np.array(rows, dtype=float).reshape(len(rows), len(names))
    except ValueError as error:
        raise store.DataError(
            f"{path} should hold numbers below its first line, but does not: {error}. Get it again."
        ) from error
    bad = np.flatnonzero(~np.isfinite(values).all(1))
    if len(bad):
        raise store.DataError(
            f"{path} should hold a speed for every sensor and step, but {len(bad)} of its lines, "
            f"the first of them line {bad[0] + 2}, hold NaN or infinite values. Get it again."
        )
    return values, names


def read_npz(content, path):
    """Speeds from an npz file with one array `arr_0` [sensors, days, steps of a day]."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            tensor = file["arr_0"].astype(float)
        sensors, days, steps = tensor.shape
    except Exception as error:
        raise store.DataError(
            f"{path} should be an npz file with an array arr_0 [sensors, days, steps], but could "
            f"not be read ({type(error).__name__}: {error}). Get it again."
        ) from error
    return tensor.reshape(sensors, days * steps).T, list(range(sensors))


def read_parquet(content, path):
    """Speeds from a parquet file with a row for each sensor: `id` and a list `target`."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise store.DataError(
            f"expected the package pyarrow, to read {path}, but found none. Run "
            f"`pip install pyarrow`, or use the source 'seattle', which needs none."
        ) from error
    try:
        table = pyarrow.parquet.read_table(io.BytesIO(content), columns=["id", "target"])
        rows = [np.asarray(target.values, dtype=float) for target in table["target"]]
        return np.stack(rows, axis=1), table["id"].to_pylist()
    except Exception as error:
        raise store.DataError(
            f"{path} should be a parquet file with columns id and target, but could not be read "
            f"({type(error).__name__}: {error}). Get it again."
        ) from error


READERS = {
    "metr-la": read_csv,
    "seattle": read_npz,
    "seattle-year": read_parquet,
}


def interpolated(values):
    """Which values lie inside straight lines, as a publisher's interpolation leaves them.

    A measured speed carries noise, so a step whose second difference is zero is suspect: it counts
    as interpolated if it is one of at least three such steps in a row, or if at more than nine of
    ten sensors the same step is suspect. The ends of a line are kept.

    Args:
      values: [steps, sensors], NaN where missing.

    Returns:
      bool [steps, sensors].

    >>> x = np.array([[1.0, 2.5, 2.0, 3.0, 4.0, 5.0, 6.0, 4.5]]).T
    >>> np.flatnonzero(interpolated(x))
    array([3, 4, 5])
    """
    suspect = np.zeros(values.shape, bool)
    # Files keep at least seven digits; 1e-4 mph is far below any speed's resolution.
    suspect[1:-1] = np.abs(np.diff(values, n=2, axis=0)) < 1e-4
    runs = np.zeros(values.shape, int)  # length of the run of suspects that ends here
    for step in range(1, len(values)):
        runs[step] = np.where(suspect[step], runs[step - 1] + 1, 0)
    for step in range(len(values) - 2, -1, -1):  # carried back to the run's beginning
        runs[step] = np.where(suspect[step] & suspect[step + 1], runs[step + 1], runs[step])
    everywhere = suspect.mean(1) > 0.9 if values.shape[1] > 1 else np.zeros(len(values), bool)
    return suspect & ((runs >= STRAIGHT) | everywhere[:, np.newaxis])


def _usable(values, source):
    """Indices of the sensors that carry traffic (counts) or enough measured values (speeds).

    Judged on the whole file: this is about the sensors, not about any model.
    """
    if source == "counts":
        return np.flatnonzero(np.nanmean(values**2, axis=0) > MIN_MEAN_COUNT)
    return np.flatnonzero(np.isnan(values).mean(0) <= MAX_MISSING)


def _choose(values, sensors, train_steps, usable):
    if sensors == "all":
        return np.arange(values.shape[1])
    if sensors == "eight":
        spread = np.nanstd(values[:train_steps, usable], axis=0)
        return np.sort(usable[np.argsort(-spread, kind="stable")[:8]])
    return usable


def _scaling(values, standardise):
    """Shift and scale of each sensor, from its training days."""
    axis = 0 if standardise == "sensor" else None
    shift, scale = np.nanmean(values, axis=axis), np.nanstd(values, axis=axis)
    shape = values.shape[1:]
    return np.broadcast_to(shift, shape).copy(), np.broadcast_to(scale, shape).copy()


def _stretches(kind):
    ends = np.cumsum(kind.days) * kind.steps_per_day
    return dict(zip(PARTS, zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True), strict=True))


def _cut(cube, windows):
    """Cut windows, without those that hold no observed value at all."""
    keep = ~np.isnan(windows.cut(cube)).all((0, 2))
    windows = type(windows)(windows.series[keep], windows.starts[keep], windows.num_timesteps)
    return windows, Sequences.from_missing(windows.cut(cube))


def _describe(source, sensors, names, num_timesteps, standardise):
    kind = SOURCES[source]
    digest = f"sha256:{COUNTS_DIGEST}" if kind.raw is None else kind.raw.digest
    what = {
        "one": f"{len(names)} sensors pooled, each alone",
        "eight": "the 8 sensors that vary most, jointly",
    }.get(sensors, f"{len(names)} sensors jointly")
    unit = "square roots of counts" if source == "counts" else "speeds"
    split = "/".join(str(count) for count in kind.days)
    return (
        f"traffic, {source} ({digest[: digest.index(':') + 13]}), {what}: {unit}, windows of "
        f"{num_timesteps} steps within {split} days, standardised on the training days "
        f"({standardise})"
    )
