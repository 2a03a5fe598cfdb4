"""Real flights of a nano quadrotor: 71 of the NanoBench data set, along eight figures.

A Crazyflie under motion capture (arXiv:2603.09908; BSD 3-Clause), logged at 100 Hz or a little
less: position, velocity and attitude, accelerometer, gyroscope, and the duty cycles of four motors.
The files are fetched one by one, 182 MB in all, and reduced once to slots of 1/20 s of the longest
stretch above 25 cm. With slot t from s_{t-1} to s_t,

    x_t is read at s_t (position, plus noise of its own) or is a mean over slot t (accelerometer,
        gyroscope; the accelerometer's horizontal axes lag the motion capture by 80 to 90 ms);
    row t of the controls is the mean over slot t of what the motors did. A window's row 0 is zero.

The unit of error is the flight: no flight is in two parts, and `Splits.groups` numbers the flight
of each window. Flights of one figure and speed were repeated, so that a test flight has siblings in
training; the split "figure" holds out all nine stars, which have none. The first trials with these
data looked at test windows of 14 flights. The split here is drawn again, with a seed of its own,
and nothing but the names of the files was looked at; some of the 14 may be in its test part too.
"""

import io
from pathlib import Path

import numpy as np

from tfp_gaps import _checks, storage
from tfp_gaps.book.data import store
from tfp_gaps.book.data.splits import PARTS, Splits, windows_within
from tfp_gaps.sequences import Sequences

TABLE = Path(__file__).parent / "files" / "nanobench.tsv"
PIECES = store.read_table(
    TABLE,
    data_set="nanobench",
    url="https://raw.githubusercontent.com/syediu/nanobench-iros2026/"
    "0ae7d689749db174dc779ab2f7c416cc12e14e2b/datasets/dataset",
    folder="nanobench",
)
REDUCED = store.Reduced(
    "nanobench",
    "nanobench/flights.npz",
    {"rows": "312efb2e15227eb79ab49f688a40374339bcdbe805a1815390f4f6dbb66fb3e9"},
)
RATE = 20  # slots per second
GROUND = 0.25  # m: a flight is the longest stretch above it
GRAVITY = 9.81  # m/s^2: the accelerometer reads multiples of it
FULL_DUTY = 65535
NOISE = 0.05  # m, each axis
NOISE_SEED = 20261129  # the noise is part of the data set
SPLIT_SEED = 20261130
TEST_SHARE, VALIDATION_SHARE = 1 / 4, 1 / 8  # of the flights of each figure
HELD_OUT = "star"

_READ = ("px", "py", "pz", "vx", "vy", "vz", "qx", "qy", "qz", "qw")
_AVERAGED = (
    *(f"imu_{sensor}_{axis}" for sensor in ("acc", "gyro") for axis in "xyz"),
    *(f"motor_motor_m{number}" for number in (1, 2, 3, 4)),
)
_UNITS = np.array([GRAVITY] * 3 + [1.0] * 3 + [1 / FULL_DUTY] * 4)
SIGNALS = {  # name: columns of the reduced rows
    "position": slice(0, 3),
    "velocity": slice(3, 6),
    "attitude": slice(6, 10),
    "imu": slice(10, 16),
    "motors": slice(16, 20),
}
# Motors stand front right, back right, back left, front left. Rows: mean, roll, pitch, yaw: as for
# the simulated flights, four duty cycles would be four copies of their mean.
MIX = np.array([[1, 1, 1, 1], [-1, -1, 1, 1], [1, -1, -1, 1], [-1, 1, -1, 1]]) / 4
CONTROLS = tuple(f"duty cycles, {name}" for name in ("mean", "roll", "pitch", "yaw"))
_POSITION = tuple(f"position {axis} (m)" for axis in "xyz")
_IMU = (
    *(f"acceleration {axis} (m/s²)" for axis in "xyz"),
    *(f"rate {axis} (rad/s)" for axis in "xyz"),
)
CHANNELS = {"position": _POSITION, "imu": _IMU, "imu+position": _IMU + _POSITION}
SPLITS = ("flight", "figure")


def load(
    *,
    observe="position",
    split="flight",
    noise=NOISE,
    num_timesteps=40,
    stride=5,
    evaluation_stride=None,
):
    """Load flights as windows of equal length.

    Args:
      observe: what x_t holds: "position" (3 channels), "imu" (accelerometer and gyroscope, 6) or
        "imu+position" (9).
      split: "flight": a quarter of the flights of each figure for test and an eighth for
        validation, drawn with a fixed seed (both flights of the two rarest figures are for
        training); "figure": all stars for test, an eighth of the others for validation.
      noise: standard deviation in metres of the normal noise, drawn with a fixed seed, that is
        added to each axis of the position.
      num_timesteps: length of a window: 40 slots are 2 s.
      stride: slots between neighbouring training windows.
      evaluation_stride: the same for validation and test. Default: no overlap.

    Returns:
      `Splits` of [num_timesteps, windows, channels] with four controls, combinations of the duty
      cycles, and the flight of each window in `groups`. Everything is standardised by mean and
      standard deviation of the training flights. No window crosses from one flight into another.

    Raises:
      ValueError: for unknown options, or windows longer than a flight.
      DataError: if files are missing and cannot be fetched, or are not what they should be.
    """
    channels = CHANNELS[_checks.one_of(observe, "choice of observe", tuple(CHANNELS))]
    _checks.one_of(split, "split", SPLITS)
    noise = _checks.positive_float(noise, "noise")
    rows, lengths, names = flights()
    advice = "A window must fit into every flight."
    _checks.integer(
        num_timesteps, "num_timesteps", minimum=2, maximum=int(lengths.min()), advice=advice
    )
    strides = dict.fromkeys(PARTS, evaluation_stride or num_timesteps) | {"train": stride}
    numbers = split_flights(names, split)
    seen, moved = _observed(rows, observe, noise), rows[:, SIGNALS["motors"]] @ MIX.T
    flight_of_row = np.repeat(np.arange(len(lengths)), lengths)
    of_training = np.isin(flight_of_row, numbers["train"])
    scaling = seen[of_training].mean(0), seen[of_training].std(0)
    observed = _padded(_standardise(seen, *scaling), lengths)
    of_controls = moved[of_training].mean(0), moved[of_training].std(0)
    controlled = _padded(_standardise(moved, *of_controls), lengths)
    windows, sequences = {}, {}
    for part in PARTS:
        step = _checks.integer(strides[part], "stride", minimum=1)
        stretches = [(flight, 0, lengths[flight]) for flight in numbers[part]]
        windows[part] = windows_within(stretches, num_timesteps, step)
        controls = windows[part].cut(controlled)
        controls[0] = 0.0  # nothing acts into the first step
        sequences[part] = Sequences(windows[part].cut(observed), controls)
    return Splits(
        **sequences,
        source=_describe(rows, observe, noise, num_timesteps, split, numbers),
        channels=channels,
        scaling=scaling,
        windows=windows,
        control_channels=CONTROLS,
        groups={part: windows[part].series for part in PARTS},
    )


def _observed(rows, observe, noise):
    """[rows, channels] before they are standardised; float64."""
    draws = np.random.default_rng(NOISE_SEED).standard_normal([len(rows), 3])
    parts = {
        "imu": rows[:, SIGNALS["imu"]].astype(float),
        "position": rows[:, SIGNALS["position"]] + noise * draws,
    }
    return np.concatenate([parts[name] for name in observe.split("+")], axis=1)


def _standardise(values, shift, scale):
    return ((values - shift) / scale).astype(np.float32)


def _padded(rows, lengths):
    """[all rows, columns] as [flights, longest flight, columns], with zeros behind the shorter."""
    cube = np.zeros([len(lengths), lengths.max(), rows.shape[1]], rows.dtype)
    cube[np.arange(lengths.max()) < lengths[:, np.newaxis]] = rows
    return cube


def split_flights(names, split):
    """Which flights are for training, validation and test.

    Args:
      names: of the files; the second word is the figure.
      split: "flight" or "figure", see `load`.

    Returns:
      {"train", "validation", "test": sorted numbers of flights}.

    >>> numbers = split_flights([f"B8_star_{i}" for i in range(8)] + ["B2_oval_0"] * 8, "figure")
    >>> numbers["test"].tolist(), len(numbers["validation"]), len(numbers["train"])
    ([0, 1, 2, 3, 4, 5, 6, 7], 1, 7)
    """
    rng = np.random.default_rng(SPLIT_SEED)
    figures = np.array([name.split("_")[1] for name in names])
    found = {part: [] for part in PARTS}
    for figure in np.unique(figures):
        order = rng.permutation(np.flatnonzero(figures == figure))
        num_test = round(TEST_SHARE * len(order))
        num_validation = round(VALIDATION_SHARE * len(order))
        if split == "figure":
            num_test = len(order) if figure == HELD_OUT else 0
        found["test"].extend(order[:num_test])
        found["validation"].extend(order[num_test : num_test + num_validation])
        found["train"].extend(order[num_test + num_validation :])
    return {part: np.sort(numbers) for part, numbers in found.items()}


def _describe(rows, observe, noise, num_timesteps, split, numbers):
    counts = "/".join(str(len(numbers[part])) for part in PARTS)
    disturbed = f" with noise of {noise:g} m" if "position" in observe else ""
    return (
        f"UAV, NanoBench flights (sha256:{storage.sha256(rows.tobytes())[:12]}), observing "
        f"{observe}{disturbed}, windows of {num_timesteps} steps within {counts} flights, by "
        f"{split}, {RATE} Hz, standardised on the training part"
    )


# --- files ----------------------------------------------------------------------------------------


def fetch():
    """Make sure that the reduced flights are at hand; return their path in a list."""
    return [store.fetch_reduced(REDUCED, list(PIECES.values()), _reduce_all)]


def flights():
    """All flights, one after another.

    Returns:
      rows: float32 [slots, 20], see `SIGNALS`: m, m/s, unit quaternion x y z w, m/s^2, rad/s, duty
        cycles between 0 and 1.
      lengths: [flights], slots of each.
      names: list of str.
    """
    (path,) = fetch()
    arrays = store.read_reduced(REDUCED, path)
    return arrays["rows"], arrays["lengths"], arrays["names"].tolist()


def _reduce_all():
    reduced = []
    for raw, slots in zip(PIECES.values(), _slots(), strict=True):
        path, content = store.read(raw)
        rows = reduce_flight(read_csv(content, path))
        if len(rows) != slots:
            raise store.DataError(
                f"the flight in {path} should have {slots} slots of 1/{RATE} s above {GROUND} m, "
                f"but has {len(rows)}. Its checksum is right: report it."
            )
        reduced.append(rows)
    return {
        "rows": np.concatenate(reduced),
        "lengths": np.array([len(rows) for rows in reduced]),
        "names": np.array([Path(name).stem for name in PIECES]),
    }


def _slots():
    return [int(line.split("\t")[3]) for line in TABLE.read_text().splitlines()[1:]]


def read_csv(content, path):
    """Columns of a log: time, what is read at the end of a slot, what is averaged.

    Returns:
      float64 [rows, 21]: seconds, m, m/s, quaternion x y z w, g, rad/s, duty cycles of 0 to 65535.

    Raises:
      DataError: if a column is missing, or a row is not what it should be.
    """
    names = content.split(b"\n", 1)[0].decode("utf-8", "replace").strip().split(",")
    wanted = ("t", *_READ, *_AVERAGED)
    missing = [name for name in wanted if name not in names]
    try:
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        columns = [names.index(name) for name in wanted]
        table = np.loadtxt(io.BytesIO(content), delimiter=",", skiprows=1, usecols=columns, ndmin=2)
    except (ValueError, IndexError) as error:
        raise store.DataError(
            f"{path} should hold rows of numbers below one line of names, but could not be read "
            f"({error}). {_ADVICE}"
        ) from error
    duty = table[:, -4:]
    for bad, what in (
        (~np.isfinite(table).all(1), "NaN or infinite values"),
        (np.diff(table[:, 0], prepend=-np.inf) < 0, "a time before that of the row above"),
        (((duty < 0) | (duty > FULL_DUTY)).any(1), f"duty cycles outside 0 to {FULL_DUTY}"),
    ):
        if bad.any():
            raise store.DataError(
                f"{path} should hold finite numbers in the order of time, but {bad.sum()} of its "
                f"{len(table)} rows, the first of them row {np.flatnonzero(bad)[0] + 1}, hold "
                f"{what}. {_ADVICE}"
            )
    return table


_ADVICE = "Delete it and run `tfp-gaps data fetch nanobench`."


def reduce_flight(table):
    """Reduce a log to slots of 1/20 s of its longest stretch above the ground.

    A slot without any row of its own, where a log ran slowly, takes its means from its neighbours'
    by linear interpolation.

    Args:
      table: as from `read_csv`.

    Returns:
      float32 [slots, 20], see `SIGNALS`.
    """
    edges = np.flatnonzero(np.diff(table[:, 3] > GROUND, prepend=False, append=False))
    begin, end = max(zip(edges[::2], edges[1::2]), key=lambda e: e[1] - e[0], default=(0, 0))
    if end - begin < 2:
        return np.zeros([0, 20], np.float32)
    time = table[:, 0] - table[begin, 0]
    num_slots = int(time[end - 1] * RATE)
    ends = np.arange(1, num_slots + 1) / RATE
    states = table[:, 1:11].copy()
    # q and -q are one attitude: interpolation needs the one that is nearer to the row before.
    turns = np.where((states[1:, 6:] * states[:-1, 6:]).sum(1) < 0, -1.0, 1.0)
    states[1:, 6:] *= np.cumprod(turns)[:, np.newaxis]
    states = np.column_stack([np.interp(ends, time, column) for column in states.T])
    states[:, 6:] /= np.linalg.norm(states[:, 6:], axis=1, keepdims=True)
    slot = np.floor(time[begin:end] * RATE).astype(int)
    counts = np.bincount(slot, minlength=num_slots)[:num_slots]
    filled = np.flatnonzero(counts)
    means = []
    for column in (table[begin:end, 11:] * _UNITS).T:
        sums = np.bincount(slot, column, minlength=num_slots)[:num_slots]
        means.append(np.interp(np.arange(num_slots), filled, sums[filled] / counts[filled]))
    return np.column_stack([states, *means]).astype(np.float32)
