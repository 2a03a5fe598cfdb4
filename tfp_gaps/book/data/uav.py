"""Flights of a quadrotor: what its sensors read, given what its rotors did.

"simulated" is part of this package: 140 flights of 10 s along three-dimensional curves in a
constant, hidden wind, made by tools/simulate_flights.py with rotorpy (Folk, Paulos, Kumar 2023).
"closed-loop" are 2000 such flights, and "open-loop" 2000 of 5 s whose rotors follow commands drawn
beforehand; `quadrotor` makes both on this machine, once, in less than a minute each. "blackbird" is
one real flight of 151 s from the Blackbird data set (Antonini et al. 2018), in three parts; it is
fetched, or given in a folder.

Time runs in slots (10 Hz simulated, 20 Hz real). With slot t from s_{t-1} to s_t,

    x_t is read at s_t (positions, velocities) or is a mean over slot t (accelerometer, gyroscope);
    row t of the controls is the mean over slot t of the rotor speeds (simulated) or of the thrust
        (real): what acts between s_{t-1} and s_t, that is into step t. A window's row 0 is zero.

The four rotor speeds enter as their mean and the three differences that turn the vehicle (roll,
pitch, yaw). That is the same information, but the mean varies by 37 rad/s and the differences by
.4: four standardised speeds would be four copies of the mean.

At s_t the row t is known to whoever flies. The rotors belong to a closed loop, except in
"open-loop": a controller that knows the true state sets them, so later controls carry information
about the state; the models treat them as given from outside. What is observed decides how hidden
the state is.
"""

import functools
import io
from pathlib import Path

import numpy as np

from tfp_gaps import _checks
from tfp_gaps.book.data import quadrotor, store
from tfp_gaps.book.data.splits import PARTS, Splits, windows_within
from tfp_gaps.sequences import Sequences

FOLDER = Path(__file__).parent / "files"
FLIGHTS = FOLDER / "flights.npz"
FLIGHTS_DIGEST = "e42b572f6467c10bd94d13b9422af4168cace6d06645b13a63da600f59f80359"
# Rows: mean, roll, pitch, yaw; the rotors stand front left, front right, back right, back left.
MIX = np.array([[1, 1, 1, 1], [1, -1, -1, 1], [1, 1, -1, -1], [1, -1, 1, -1]]) / 4
FLIGHT_SPLIT = (100, 20, 20)  # training, validation and test flights, in order
POSITION_NOISE = 0.25  # m, each axis
VELOCITY_NOISE = 0.25  # m/s, each axis
NOISE_SEED = 20210505  # the noise is part of the data set
BLACKBIRD_SLOT = 5  # rows at 100 Hz in a slot of 1/20 s

_URL = (
    "https://raw.githubusercontent.com/uzh-rpg/learned_inertial_model_odometry/"
    "d0d420f035493c73812c27f94f80e4765477f8f9/datasets/Blackbird/clover/yawForward/maxSpeed5p0/"
)
_DIGESTS = {
    "train": (
        "7df533a8ea854fa9963ad0162206702d9943a3d71f43ce15109cc4d6dccd26fc",
        "0044a2e46ec937886193f84fd664aa9a36768aca4833e25a960947fb963a3363",
    ),
    "val": (
        "27ff7bf6fa3169a2c1f52fb02e2a399bcbb6069ac3017beda2949aa2f0d02e7f",
        "535f1879ea9e09280efa428b032f7c41c80e7f8237f19dd2ad3693fe9aae051e",
    ),
    "test": (
        "2964c63e5f37a2db52707b25057a1b941f2885e153d3327768d3b8c1f5503ee1",
        "3cfa93f606ca689bcbcf5ed101b403262bcd321bb79cb6f781006d98af4653ad",
    ),
}


def _raw(name, url, digest):
    return store.RawFile("blackbird", (f"blackbird/{name}",), f"sha256:{digest}", url)


BLACKBIRD = {  # part: (sensors, poses)
    part: (
        _raw(f"{part}.hdf5", f"{_URL}{part}/data.hdf5", sensors),
        _raw(f"{part}.groundtruth.txt", f"{_URL}{part}/stamped_groundtruth_imu.txt", poses),
    )
    for part, (sensors, poses) in _DIGESTS.items()
}

_POSITION = tuple(f"position {axis} (m)" for axis in "xyz")
_VELOCITY = tuple(f"velocity {axis} (m/s)" for axis in "xyz")
_ACCEL = tuple(f"acceleration {axis} (m/s²)" for axis in "xyz")
_GYRO = tuple(f"rate {axis} (rad/s)" for axis in "xyz")
SIGNALS = {  # name: channels
    "noisy_position": _POSITION,
    "mocap": _POSITION,
    "noisy_velocity": _VELOCITY,
    "accel": _ACCEL,
    "gyro": _GYRO,
}
SIMULATED = {  # source: training, validation and test flights, in order
    "simulated": FLIGHT_SPLIT,
    "closed-loop": quadrotor.SPLIT,
    "open-loop": quadrotor.SPLIT,
}
MADE = {  # sources that are made on this machine
    name: store.Reduced(name, f"quadrotor/{name}.npz", {}) for name in ("closed-loop", "open-loop")
}
# Of their arrays, by which stored results name them.
MADE_DIGESTS = {
    "closed-loop": "0fb7364bf957a12e15d9fd15dabc5f500454237ec78c76b55f5323c29a749348",
    "open-loop": "337c6b9877ac205b4e23602933ece8604b17b0658b696721648dcde7f342ad39",
}
CONTROLS = {
    **dict.fromkeys(
        SIMULATED,
        tuple(f"rotor speeds, {name} (rad/s)" for name in ("mean", "roll", "pitch", "yaw")),
    ),
    "blackbird": ("thrust per mass (m/s²)",),
}
OBSERVE = {  # source: {choice: signals}
    **{
        source: {
            "position": ("noisy_position",),
            "imu": ("accel", "gyro"),
            "imu+position": ("accel", "gyro", "noisy_position"),
            "accurate": ("accel", "gyro", "mocap"),
        }
        for source in SIMULATED
    },
    "blackbird": {
        "imu": ("accel", "gyro"),
        "position": ("noisy_position",),
        "velocity": ("noisy_velocity",),
        "imu+velocity": ("accel", "gyro", "noisy_velocity"),
    },
}


def load(
    *, source="simulated", observe=None, num_timesteps=40, stride=None, evaluation_stride=None
):
    """Load flights as windows of equal length.

    Args:
      source: "simulated", "closed-loop", "open-loop" or "blackbird".
      observe: what x_t holds. Simulated: "position" (true position plus noise of .25 m, 3 channels,
        the default), "imu" (accelerometer and gyroscope, 6), "imu+position" (9), "accurate"
        (inertial sensors and motion capture with noise of 3.5 mm, 9). Blackbird: "imu" (6, the
        default), "position" or "velocity" (with noise of .25 m or .25 m/s, 3), "imu+velocity" (9).
      num_timesteps: length of a window: 40 steps are 4 s simulated, 2 s real.
      stride: slots between neighbouring training windows. Default: 5 simulated, 1 real.
      evaluation_stride: the same for validation and test. Default: no overlap.

    Returns:
      `Splits` of [num_timesteps, windows, channels] with controls: four combinations of the rotor
      speeds, or one thrust. Everything is standardised by mean and standard deviation of the
      training part. No window crosses from one flight, or one part, into another; `groups` numbers
      the simulated flights within their part.

    Raises:
      ValueError: for unknown options, or windows longer than a flight.
      DataError: if a file is missing and cannot be fetched, or is not what it should be.

    >>> splits = load()
    >>> splits.train.observations.shape, splits.train.controls.shape, len(splits.test)
    ((40, 1300, 3), (40, 1300, 4), 40)
    """
    variants = OBSERVE[_checks.one_of(source, "source of flights", tuple(OBSERVE))]
    observe = _checks.one_of(observe or next(iter(variants)), "choice of observe", tuple(variants))
    parts = _parts(source)
    longest = min(part["accel"].shape[1] for part in parts.values())
    advice = "A window must fit into a flight, or a part of it."
    _checks.integer(num_timesteps, "num_timesteps", minimum=2, maximum=longest, advice=advice)
    stride = _checks.integer(stride or (5 if source in SIMULATED else 1), "stride", minimum=1)
    evaluation_stride = _checks.integer(
        evaluation_stride or num_timesteps, "evaluation_stride", minimum=1
    )
    seen = {
        part: np.concatenate([signals[name] for name in variants[observe]], axis=-1)
        for part, signals in parts.items()
    }
    scaling = _scaling(seen["train"])
    control_scaling = _scaling(parts["train"]["controls"])
    windows, sequences = {}, {}
    for part in PARTS:
        count, length = seen[part].shape[:2]
        step = stride if part == "train" else evaluation_stride
        stretches = [(flight, 0, length) for flight in range(count)]
        windows[part] = windows_within(stretches, num_timesteps, step)
        controls = windows[part].cut(_standardise(parts[part]["controls"], control_scaling))
        controls[0] = 0.0  # nothing acts into the first step
        observed = windows[part].cut(_standardise(seen[part], scaling))
        sequences[part] = Sequences(observed, controls)
    return Splits(
        **sequences,
        source=_describe(source, observe, num_timesteps),
        channels=tuple(c for name in variants[observe] for c in SIGNALS[name]),
        scaling=scaling,
        windows=windows,
        control_channels=CONTROLS[source],
        groups={part: windows[part].series for part in PARTS} if source in SIMULATED else None,
    )


def fetch(source="simulated"):
    """Make sure that the files of a source are at hand; return their paths."""
    if _checks.one_of(source, "source of flights", tuple(OBSERVE)) == "simulated":
        return [FLIGHTS]
    if source in MADE:
        make = functools.partial(quadrotor.simulate, source)
        return [store.fetch_reduced(MADE[source], [], make)]
    return [store.fetch(raw) for pair in BLACKBIRD.values() for raw in pair]


def truth(splits, part="test", *, source="simulated", signal="position"):
    """True states along the windows of a part, for figures.

    Args:
      splits: what `load` returned.
      part: "train", "validation" or "test".
      source: the source it was loaded from.
      signal: "position" (m), "velocity" (m/s), "attitude" (quaternion x, y, z, w), "wind" (m/s,
        simulated alone).

    Returns:
      float32 [time, windows, columns].
    """
    _checks.one_of(part, "part", PARTS)
    signals = _parts(_checks.one_of(source, "source of flights", tuple(OBSERVE)))[part]
    known = [name for name in ("position", "velocity", "attitude", "wind") if name in signals]
    return splits.windows[part].cut(signals[_checks.one_of(signal, "signal", known)])


def _parts(source):
    """Signals of each part: dict of dicts of arrays [flights, slots, columns]."""
    return _simulated(source) if source in SIMULATED else _blackbird()


def _simulated(source):
    arrays = _flights(source)
    arrays["controls"] = arrays.pop("rotor_speeds").astype(float) @ MIX.T
    arrays["wind"] = np.repeat(arrays["wind"][:, np.newaxis], arrays["accel"].shape[1], axis=1)
    noise = np.random.default_rng(NOISE_SEED).standard_normal(arrays["position"].shape)
    arrays["noisy_position"] = arrays["position"] + POSITION_NOISE * noise
    ends = np.cumsum(SIMULATED[source])
    return {
        part: {name: array[end - count : end] for name, array in arrays.items()}
        for part, count, end in zip(PARTS, SIMULATED[source], ends, strict=True)
    }


def _flights(source):
    if source == "simulated":
        return dict(store.read_own(FLIGHTS, FLIGHTS_DIGEST))
    arrays = store.read_reduced(MADE[source], *fetch(source))
    if store.digest_of_arrays(arrays) != MADE_DIGESTS[source]:
        store.warn_of_rounding(source)
    return arrays


def _blackbird():
    parts = {}
    for index, (part, name) in enumerate(zip(PARTS, BLACKBIRD, strict=True)):
        sensors, poses = BLACKBIRD[name]
        hdf5_path, hdf5 = store.read(sensors)
        text_path, text = store.read(poses)
        signals = read_hdf5(hdf5, hdf5_path)
        poses = read_poses(text, text_path)
        if len(poses) != len(signals["ts"]) or not np.allclose(poses[:, 0], signals["ts"], rtol=0):
            raise store.DataError(
                f"{text_path} and {hdf5_path} should have the same time stamps, but have "
                f"{len(poses)} and {len(signals['ts'])} rows that differ. Delete both and run "
                f"`tfp-gaps data fetch blackbird`."
            )
        parts[part] = _slots(signals, poses, np.random.default_rng([NOISE_SEED, index]))
    return parts


def read_hdf5(content, path):
    """Time stamps, gyroscope, accelerometer and thrust of a part of the Blackbird excerpt.

    Raises:
      DataError: if the file is cut short, lacks a signal, or holds NaN.
    """
    import h5py

    names = {"ts": "ts", "gyro": "gyro_raw", "accel": "accel_raw", "thrust": "thrust"}
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            signals = {name: np.asarray(file[key], dtype=float) for name, key in names.items()}
    except Exception as error:
        raise store.DataError(
            f"{path} should be an HDF5 file with the signals {', '.join(names.values())}, but "
            f"could not be read ({type(error).__name__}: {error}). It is cut short or another "
            f"file: delete it and run `tfp-gaps data fetch blackbird`."
        ) from error
    shapes = {name: array.shape for name, array in signals.items()}
    rows = shapes["ts"][0] if shapes["ts"] else 0
    if shapes != {"ts": (rows,), "gyro": (rows, 3), "accel": (rows, 3), "thrust": (rows, 3)}:
        raise store.DataError(
            f"{path} should hold ts [n] and gyro_raw, accel_raw, thrust [n, 3], but their shapes "
            f"are {list(shapes.values())}. Delete it and run `tfp-gaps data fetch blackbird`."
        )
    table = np.column_stack(list(signals.values()))
    _refuse_bad_rows(table, path)
    return signals


def read_poses(content, path):
    """Ground truth: ts, position (3), quaternion x y z w, velocity (3); float64 [rows, 11].

    Raises:
      DataError: if a row lacks a column or holds NaN.
    """
    try:
        table = np.loadtxt(io.StringIO(content.decode()), ndmin=2)
        if table.shape[1] != 11:
            raise ValueError(f"it has {table.shape[1]} columns")
    except (ValueError, IndexError) as error:
        raise store.DataError(
            f"{path} should hold rows of 11 numbers below one line of comment, but could not be "
            f"read ({error}). A column is missing or the file is cut short: delete it and run "
            f"`tfp-gaps data fetch blackbird`."
        ) from error
    _refuse_bad_rows(table, path)
    return table


def _refuse_bad_rows(table, path):
    bad = np.flatnonzero(~np.isfinite(table).all(1))
    if len(bad):
        raise store.DataError(
            f"{path} should hold finite numbers, but {len(bad)} of its {len(table)} rows, the "
            f"first of them row {bad[0] + 1}, hold NaN or infinite values. Delete it and run "
            f"`tfp-gaps data fetch blackbird`."
        )


def _slots(signals, poses, rng):
    """Reduce rows at 100 Hz to slots at 20 Hz: one series [1, slots, columns] for each signal."""
    num_slots = (len(poses) - 1) // BLACKBIRD_SLOT

    def means(rows):
        # Slot t holds rows 5t, ..., 5t + 4 and ends where row 5t + 5 is read.
        kept = rows[: num_slots * BLACKBIRD_SLOT]
        return kept.reshape(1, num_slots, BLACKBIRD_SLOT, -1).mean(2)

    def ends(rows):
        return rows[np.newaxis, BLACKBIRD_SLOT::BLACKBIRD_SLOT][:, :num_slots]

    position, velocity = ends(poses[:, 1:4]), ends(poses[:, 8:11])
    return {
        "accel": means(signals["accel"]),
        "gyro": means(signals["gyro"]),
        # Thrust per mass along the body's z axis; the other two columns are zero.
        "controls": means(signals["thrust"][:, 2:3]),
        "position": position,
        "velocity": velocity,
        "attitude": ends(poses[:, 4:8]),
        "noisy_position": position + POSITION_NOISE * rng.standard_normal(position.shape),
        "noisy_velocity": velocity + VELOCITY_NOISE * rng.standard_normal(velocity.shape),
    }


def _scaling(values):
    return values.mean((0, 1), dtype=np.float64), values.std((0, 1), dtype=np.float64)


def _standardise(values, scaling):
    shift, scale = scaling
    return ((values - shift) / scale).astype(np.float32)


def _describe(source, observe, num_timesteps):
    if source in SIMULATED:
        digest = {"simulated": FLIGHTS_DIGEST}.get(source) or store.digest_of_arrays(
            _flights(source)
        )
        loop = "" if source == "simulated" else f" {source}"
        what = f"UAV, simulated{loop} flights (sha256:{digest[:12]})"
        counts = "/".join(str(count) for count in SIMULATED[source])
        split = f"{counts} flights, 10 Hz"
    else:
        what = f"UAV, Blackbird excerpt (sha256:{_DIGESTS['train'][0][:12]})"
        split = "the parts train/val/test of one flight, 20 Hz"
    return (
        f"{what}, observing {observe}, windows of {num_timesteps} steps within {split}, "
        f"standardised on the training part"
    )
