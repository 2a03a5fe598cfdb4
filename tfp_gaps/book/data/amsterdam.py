"""Motorways around Amsterdam: the speeds of two years' evenings.

193 stretches of motorway ("segments"), every 2 minutes, whole km/h; an evening has 210 steps, from
about 14:00, and there are 363 of 2018 and 364 of 2019. The measurements are open data of the Dutch
NDW (free for reuse), but the repository that prepared them states no licence: they are fetched, as
256 chunks of two zarr arrays (32.6 MB), and never part of this package.

Neighbouring segments were partly interpolated from each other, so every fourth is used. A sequence
is a window in which a speed falls below 80 km/h: free flow has nothing to tell. The unit of error
is the evening, since the segments of one share their jams; `Splits.groups` numbers the evening of
each window. 2018 is for training; evenings of 2019, drawn with a fixed seed, are for validation or
for test. The first trials with these data looked at test windows of 41 evenings of 2019. The split
here is drawn again, with a seed of its own; some of the 41 may be in its test part too.
"""

import json
from pathlib import Path

import numpy as np

from tfp_gaps import _checks, storage
from tfp_gaps.book.data import store
from tfp_gaps.book.data.splits import PARTS, Splits, Windows, windows_within
from tfp_gaps.sequences import Sequences

YEARS = {2018: 363, 2019: 364}  # evenings of each
SEGMENTS, STEPS = 193, 210
MISSING = 255
FASTEST = 200  # km/h; nothing measured comes near
TABLE = Path(__file__).parent / "files" / "amsterdam.tsv"
PIECES = store.read_table(
    TABLE,
    data_set="amsterdam",
    url="https://raw.githubusercontent.com/RomainLITUD/NL_Traffic_Prediction_Demo/"
    "02805b74ee2c7b34b4b362229b2a70c08bb27448",
    folder="amsterdam",
)
REDUCED = store.Reduced(
    "amsterdam",
    "amsterdam/evenings.npz",
    {
        "speed_2018": "3e2b5eac90e0782af9659c061fa671de3cd4b837ed75dddc9f70a6a22a372b0e",
        "speed_2019": "c0457c3f56223729112791cff9b8822d612d6160010ac6c5171680bc0df635e4",
    },
)
EVERY = 4  # segments
SLOWDOWN = 80  # km/h
NUM_VALIDATION = 120  # evenings of 2019; the other 244 are for test
SPLIT_SEED = 20261130
# First of eight neighbours, counting every fourth segment. In these three stretches the deviations
# of neighbours from their mean at that time of day correlate by .4 or more in 2018; elsewhere one
# motorway ends and another begins within eight.
STRETCHES = (2, 10, 25)
SENSORS = ("one", "eight")


def load(
    *, sensors="one", num_timesteps=45, stride=15, evaluation_stride=None, num_validation=None
):
    """Load evenings as windows of equal length that contain a slowdown.

    Args:
      sensors: "one": each segment alone, windows of all 49 pooled, one channel; "eight": eight
        neighbours jointly, windows of three stretches of road pooled.
      num_timesteps: length of a window: 45 steps are an hour and a half.
      stride: steps between neighbouring windows of a training evening.
      evaluation_stride: the same for validation and test. Default: no overlap.
      num_validation: how many validation windows to keep, at most; they are drawn at random.
        Default: all.

    Returns:
      `Splits` of [num_timesteps, windows, channels], with missing speeds masked, and the evening of
      each window in `groups` (0 to 362 in 2018, from 363 in 2019). One mean and one standard
      deviation of 2018 standardise all. The windows of validation and test stand in a random,
      fixed order, so that the first so many of them come from many evenings.

    Raises:
      ValueError: for unknown options, or windows longer than an evening.
      DataError: if files are missing and cannot be fetched, or are not what they should be.
    """
    _checks.one_of(sensors, "choice of sensors", SENSORS)
    advice = "A window must fit into an evening."
    _checks.integer(num_timesteps, "num_timesteps", minimum=2, maximum=STEPS, advice=advice)
    strides = dict.fromkeys(PARTS, evaluation_stride or num_timesteps) | {"train": stride}
    if num_validation is not None:
        _checks.integer(num_validation, "num_validation", minimum=1)
    speeds = _speeds(sensors)
    roads = speeds.shape[1]
    shift, scale = (float(f(speeds[: YEARS[2018]])) for f in (np.nanmean, np.nanstd))
    cube = speeds.reshape(-1, STEPS, speeds.shape[-1])  # series: evening by evening
    standardised = ((cube - shift) / scale).astype(np.float32)
    windows, parts = {}, {}
    for part, evenings in split_evenings().items():
        step = _checks.integer(strides[part], "stride", minimum=1)
        series = (roads * evenings[:, np.newaxis] + np.arange(roads)).ravel()
        every = windows_within([(i, 0, STEPS) for i in series], num_timesteps, step)
        most = num_validation if part == "validation" else None
        windows[part] = _with_slowdown(every, cube, shuffled=part != "train", most=most)
        parts[part] = Sequences.from_missing(windows[part].cut(standardised))
    unit = "speed (km/h)"
    channels = (unit,) if sensors == "one" else tuple(f"{unit}, neighbour {i}" for i in range(8))
    return Splits(
        **parts,
        source=_describe(sensors, num_timesteps),
        channels=channels,
        scaling=(np.full(len(channels), shift), np.full(len(channels), scale)),
        windows=windows,
        groups={part: windows[part].series // roads for part in PARTS},
    )


def _speeds(sensors):
    """Speeds of both years, [evenings, roads, steps, channels], float32; NaN where missing."""
    arrays = evenings()
    speeds = np.concatenate([arrays[f"speed_{year}"][:, ::EVERY] for year in YEARS])
    speeds = np.where(speeds == MISSING, np.nan, speeds.astype(np.float32))
    if sensors == "one":
        return speeds[..., np.newaxis]
    return np.stack([speeds[:, i : i + 8].transpose(0, 2, 1) for i in STRETCHES], axis=1)


def _with_slowdown(windows, cube, *, shuffled, most=None):
    """Those windows in which some speed is below `SLOWDOWN`, or the first `most` of them; a missing
    speed is not below it."""
    kept = np.flatnonzero((windows.cut(cube) < SLOWDOWN).any((0, 2)))
    if shuffled:
        kept = np.random.default_rng(SPLIT_SEED).permutation(kept)
    kept = kept[:most]
    return Windows(windows.series[kept], windows.starts[kept], windows.num_timesteps)


def split_evenings():
    """{"train", "validation", "test": sorted numbers of evenings, from 363 in 2019}."""
    first = YEARS[2018]
    order = first + np.random.default_rng(SPLIT_SEED).permutation(YEARS[2019])
    parts = np.arange(first), np.sort(order[:NUM_VALIDATION]), np.sort(order[NUM_VALIDATION:])
    return dict(zip(PARTS, parts, strict=True))


def _describe(sensors, num_timesteps):
    what = {
        "one": "every fourth segment alone",
        "eight": f"eight neighbours jointly, {len(STRETCHES)} stretches",
    }[sensors]
    counts = "/".join(str(len(evenings)) for evenings in split_evenings().values())
    digests = " and ".join(digest[:12] for digest in REDUCED.digests.values())
    return (
        f"traffic, motorways of Amsterdam (sha256:{digests}), {what}: speeds, windows of "
        f"{num_timesteps} steps with a speed below {SLOWDOWN} km/h, within {counts} evenings, "
        f"standardised on 2018"
    )


# --- files ----------------------------------------------------------------------------------------


def fetch():
    """Make sure that the evenings are at hand; return the path of their arrays in a list."""
    return [store.fetch_reduced(REDUCED, list(PIECES.values()), _read_all)]


def evenings():
    """{"speed_2018", "speed_2019": uint8 [evenings, 193, 210]}, km/h; 255 where missing."""
    (path,) = fetch()
    return store.read_reduced(REDUCED, path)


def _read_all():
    arrays = {f"speed_{year}": _read_year(year) for year in YEARS}
    for name, digest in REDUCED.digests.items():
        # Whole numbers: whatever machine unpacks them, they are these or something is wrong.
        found = storage.sha256(arrays[name].tobytes())
        if found != digest:
            raise store.DataError(
                f"{name}, from chunks with the right checksums, should have SHA-256 "
                f"{digest[:16]}…, but has {found[:16]}…: they were unpacked wrongly. Report it, "
                f"with the version of numcodecs."
            )
    return arrays


def _read_year(year):
    folder = f"dataset/{year}.zarr/speed_evening"
    path, content = store.read(PIECES[f"{folder}/.zarray"])
    shape, chunks, codec = read_metadata(content, path)
    if shape != (YEARS[year], SEGMENTS, STEPS):
        raise store.DataError(
            f"{path} should describe {YEARS[year]} evenings of {SEGMENTS} segments and {STEPS} "
            f"steps, but describes {shape}. {_ADVICE}"
        )
    speeds = np.full(shape, MISSING, np.uint8)
    for indices in np.ndindex(*(-(-n // size) for n, size in zip(shape, chunks))):
        path, content = store.read(PIECES[f"{folder}/{'.'.join(map(str, indices))}"])
        chunk = read_chunk(content, path, chunks, codec)
        begin = [i * size for i, size in zip(indices, chunks)]
        place = tuple(slice(b, b + size) for b, size in zip(begin, chunks))
        # Chunks at the edge of the array are as large as the others, and filled up.
        speeds[place] = chunk[tuple(slice(n - b) for n, b in zip(shape, begin))]
    return speeds


def read_metadata(content, path):
    """Shape, shape of a chunk, and decoder of a zarr array, version 2.

    Raises:
      DataError: if it is an array of another kind, or the package numcodecs is missing.
    """
    try:
        import numcodecs
    except ImportError as error:
        raise store.DataError(
            "expected the package numcodecs, to unpack the motorways of Amsterdam, but found none. "
            "Run `pip install numcodecs`, then `tfp-gaps data fetch amsterdam` again."
        ) from error
    expected = {"zarr_format": 2, "dtype": "<f8", "order": "C", "filters": None}
    try:
        meta = json.loads(content)
        found = {name: meta[name] for name in expected}
        if found != expected:
            raise ValueError(f"it has {found}")
        if len(meta["shape"]) != 3 or len(meta["chunks"]) != 3:
            raise ValueError(f"its shape is {meta['shape']}")
        return tuple(meta["shape"]), tuple(meta["chunks"]), numcodecs.get_codec(meta["compressor"])
    except (ValueError, KeyError, TypeError) as error:
        raise store.DataError(
            f"{path} should describe a zarr array of three axes with {expected}, but does not "
            f"({type(error).__name__}: {error}). {_ADVICE}"
        ) from error


def read_chunk(content, path, shape, codec):
    """Speeds of a chunk in whole km/h, uint8, 255 where missing.

    Raises:
      DataError: if it cannot be unpacked, has another size, or holds what is no speed.
    """
    try:
        values = np.frombuffer(codec.decode(content), "<f8").reshape(shape)
    except (RuntimeError, ValueError) as error:
        raise store.DataError(
            f"{path} should be a chunk of {' x '.join(map(str, shape))} numbers, but could not be "
            f"unpacked ({type(error).__name__}: {error}). {_ADVICE}"
        ) from error
    missing = np.isnan(values) | (values == 0) | (values == MISSING)
    bad = ~missing & ~((values == np.rint(values)) & (values > 0) & (values < FASTEST))
    if bad.any():
        raise store.DataError(
            f"{path} should hold whole km/h between 1 and {FASTEST - 1}, with 0, {MISSING} or NaN "
            f"for missing ones, but {bad.sum()} of its {bad.size} numbers are others, such as "
            f"{values[bad][0]:g}. {_ADVICE}"
        )
    return np.where(missing, MISSING, values).astype(np.uint8)


_ADVICE = "Delete it and run `tfp-gaps data fetch amsterdam`."
