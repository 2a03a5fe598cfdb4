"""Motorways of Amsterdam: chunks, masks, slowdowns, the split by evening, and planted faults.

The evenings here are made up; two tests at the end read the real ones where they are at hand.
"""

import builtins
import dataclasses
import json

import numpy as np
import pytest

from tfp_gaps import storage
from tfp_gaps.book import data
from tfp_gaps.book.data import amsterdam, store

numcodecs = pytest.importorskip("numcodecs", reason="the package that unpacks chunks is missing")

CODEC = numcodecs.Blosc(cname="lz4", clevel=5, shuffle=1)
CHUNKS = (3, 100, 120)  # none divides its axis
META = {
    "zarr_format": 2,
    "dtype": "<f8",
    "order": "C",
    "filters": None,
    "fill_value": 0.0,
    "chunks": list(CHUNKS),
    "compressor": CODEC.get_config(),
}
YEARS = {2018: 4, 2019: 7}


def made_up():
    """Free flow at 100 to 110 km/h; on even evenings segment 8 is slow around step 60."""
    rng = np.random.default_rng(0)
    evenings = {}
    for year, count in YEARS.items():
        speeds = rng.integers(100, 111, [count, 193, 210]).astype(np.uint8)
        speeds[::2, 8, 55:66] = 79
        speeds[:, 12, 100:103] = 255
        speeds[1] = 255 if year == 2019 else speeds[1]  # an evening without any value
        evenings[f"speed_{year}"] = speeds
    return evenings


def chunks_of(speeds):
    """{name: content} of a zarr array; missing values are NaN, chunks at the edge are filled up."""
    whole = np.pad(
        np.where(speeds == 255, np.nan, speeds.astype(float)),
        [(0, -n % size) for n, size in zip(speeds.shape, CHUNKS)],
    )
    files = {".zarray": json.dumps(META | {"shape": speeds.shape}).encode()}
    for indices in np.ndindex(*(n // size for n, size in zip(whole.shape, CHUNKS))):
        place = tuple(slice(i * size, (i + 1) * size) for i, size in zip(indices, CHUNKS))
        content = CODEC.encode(np.ascontiguousarray(whole[place]))
        files[".".join(map(str, indices))] = content
    return files


@pytest.fixture
def published(cache, server, monkeypatch, tmp_path):
    """Made-up evenings on a server, with a table of their own."""
    evenings = made_up()
    for year in YEARS:
        for name, content in chunks_of(evenings[f"speed_{year}"]).items():
            server.files[f"dataset/{year}.zarr/speed_evening/{name}"] = content
    lines = [f"{n}\t{len(c)}\t{storage.sha256(c)}" for n, c in server.files.items()]
    (tmp_path / "table.tsv").write_text("\n".join(["path\tbytes\tsha256", *lines]))
    register(monkeypatch, tmp_path / "table.tsv", server.url)
    digests = {name: storage.sha256(array.tobytes()) for name, array in evenings.items()}
    known = dataclasses.replace(amsterdam.REDUCED, digests=digests)
    monkeypatch.setattr(amsterdam, "REDUCED", known)
    monkeypatch.setattr(amsterdam, "YEARS", YEARS)
    monkeypatch.setattr(amsterdam, "NUM_VALIDATION", 3)
    return evenings


def register(monkeypatch, table, url):
    pieces = store.read_table(table, data_set="amsterdam", url=url, folder="amsterdam")
    monkeypatch.setattr(amsterdam, "PIECES", pieces)


def test_chunks_are_fetched_unpacked_and_kept(published, cache, server):
    assert data.fetch("amsterdam") == [cache / "amsterdam/evenings.npz"]
    found = amsterdam.evenings()
    for name, speeds in published.items():
        np.testing.assert_array_equal(found[name], speeds)
    assert sorted(server.asked) == sorted(server.files)


def test_windows_hold_a_slowdown_and_their_evening(published):
    splits = data.load("amsterdam")
    # Every fourth segment: 8 is number 2 of 49. Starts 15, 30, 45 (and 60) reach steps 55 to 65.
    windows = splits.windows["train"]
    assert set(zip(windows.series % 49, windows.starts)) == {(2, s) for s in (15, 30, 45, 60)}
    assert sorted(set(splits.groups["train"])) == [0, 2]
    assert len(splits.train) == 8 and splits.train.mask is None
    speeds = splits.in_units(splits.train.observations, "train")
    for w in range(len(windows)):
        evening, start = splits.groups["train"][w], windows.starts[w]
        expected = published["speed_2018"][evening, 8, start : start + 45]
        np.testing.assert_allclose(speeds[:, w, 0], expected, atol=1e-4)
    # Evenings of 2019 with a slowdown: 0, 2, 4, 6, which are numbers 4, 6, 8, 10 of all.
    held = [set(splits.groups[part].tolist()) for part in ("validation", "test")]
    assert held[0] | held[1] == {4, 6, 8, 10} and not held[0] & held[1]
    for part in ("validation", "test"):
        assert set(splits.windows[part].starts) == {45}  # of 0, 45, 90, 135


def test_missing_speeds_are_masked_and_no_slowdown(published, monkeypatch):
    monkeypatch.setattr(amsterdam, "SLOWDOWN", 120)  # now every window with a value counts
    splits = data.load("amsterdam")
    windows, mask = splits.windows["train"], splits.train.mask
    assert 5 not in splits.groups["validation"] and 5 not in splits.groups["test"]
    steps = windows.starts + np.arange(45)[:, np.newaxis]
    missing = (windows.series % 49 == 3) & (steps >= 100) & (steps < 103)
    np.testing.assert_array_equal(mask[..., 0], ~missing)
    assert (splits.train.observations[~mask] == 0).all() and (~mask).any()


def test_eight_neighbours_stand_side_by_side(published, monkeypatch):
    splits = data.load("amsterdam", sensors="eight", num_timesteps=30, stride=30)
    # Segment 8 is number 2, the first of the first stretch: segments 8, 12, ..., 36.
    assert set(splits.windows["train"].series % 3) == {0}
    speeds = splits.in_units(splits.train.observations, "train")
    evening, start = splits.groups["train"][0], splits.windows["train"].starts[0]
    expected = published["speed_2018"][evening, 8:37:4, start : start + 30].T
    np.testing.assert_allclose(speeds[:, 0], expected, atol=1e-4)
    assert len(splits.channels) == 8 and "eight neighbours jointly" in splits.source


def test_the_second_year_does_not_standardise(published, monkeypatch):
    before = data.load("amsterdam")
    later = np.where(published["speed_2019"] == 255, 255, published["speed_2019"] // 2)
    monkeypatch.setattr(amsterdam, "evenings", lambda: published | {"speed_2019": later})
    after = data.load("amsterdam")
    np.testing.assert_array_equal(after.train.observations, before.train.observations)
    used = published["speed_2018"][:, ::4]
    used = used[used != 255].astype(float)
    np.testing.assert_allclose(after.scaling, [[used.mean()], [used.std()]], rtol=1e-5)


def test_parts_are_disjoint_evenings():
    parts = amsterdam.split_evenings()
    assert {name: len(evenings) for name, evenings in parts.items()} == {
        "train": 363,
        "validation": 120,
        "test": 244,
    }
    np.testing.assert_array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(727))
    assert parts["train"].max() == 362
    # Drawn over the year: the mean of 244 of 364 numbers has a standard error of 3.9.
    assert abs(parts["test"].mean() - 363 - 181.5) < 12


def test_evaluation_windows_come_from_many_evenings_first(published, monkeypatch):
    monkeypatch.setattr(amsterdam, "SLOWDOWN", 120)
    splits = data.load("amsterdam")
    assert set(splits.groups["test"][:60]) == set(splits.groups["test"])
    again = data.load("amsterdam")
    np.testing.assert_array_equal(again.test.observations, splits.test.observations)


def test_fewer_validation_windows_are_the_first_of_all(published, monkeypatch):
    monkeypatch.setattr(amsterdam, "SLOWDOWN", 120)
    every, few = data.load("amsterdam"), data.load("amsterdam", num_validation=7)
    np.testing.assert_array_equal(few.validation.observations, every.validation.observations[:, :7])
    np.testing.assert_array_equal(few.groups["validation"], every.groups["validation"][:7])
    assert (len(few.train), len(few.test)) == (len(every.train), len(every.test))


def test_a_corrupt_chunk_is_refused_when_fetched_and_when_read(published, server, cache):
    name = "dataset/2019.zarr/speed_evening/0.1.1"
    good = server.files[name]
    server.files[name] = good[:-1] + bytes([good[-1] ^ 1])
    with pytest.raises(data.DataError, match=f"{name} should have SHA-256.*fetch amsterdam"):
        data.load("amsterdam")
    server.files[name] = good
    store.fetch_pieces(list(amsterdam.PIECES.values()))
    (cache / "amsterdam" / name).write_bytes(good[:50])
    with pytest.raises(data.DataError, match=f"{name} should have SHA-256.*Delete it"):
        data.load("amsterdam")


def test_chunks_that_unpack_to_something_else_are_refused(published, monkeypatch):
    digests = amsterdam.REDUCED.digests | {"speed_2019": "0" * 64}
    changed = dataclasses.replace(amsterdam.REDUCED, digests=digests)
    monkeypatch.setattr(amsterdam, "REDUCED", changed)
    with pytest.raises(data.DataError, match="speed_2019, from chunks .* were unpacked wrongly"):
        data.load("amsterdam")


def test_missing_chunks_without_network_say_what_to_do(published, server):
    server.files.clear()
    with pytest.raises(data.DataError, match=r"needs amsterdam/dataset/2018.zarr.*data fetch ams"):
        data.load("amsterdam")


def test_a_missing_package_is_named(published, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name == "numcodecs":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(data.DataError, match="numcodecs.*found none. Run `pip install numcodecs`"):
        data.load("amsterdam")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"zarr_format": 3}, "'zarr_format': 3"),
        ({"dtype": "<f4"}, "'dtype': '<f4'"),
        ({"filters": [{"id": "delta"}]}, "delta"),
        ({"shape": [3, 4]}, "its shape is"),
        ({"compressor": {"id": "unheard-of"}}, "unheard-of"),
    ],
)
def test_arrays_of_another_kind_are_refused(change, message):
    content = json.dumps(META | {"shape": [4, 193, 210]} | change).encode()
    with pytest.raises(data.DataError, match=f"should describe a zarr array .*{message}"):
        amsterdam.read_metadata(content, ".zarray")


def test_unreadable_metadata_are_refused():
    with pytest.raises(data.DataError, match="should describe a zarr array"):
        amsterdam.read_metadata(b"{}", ".zarray")
    with pytest.raises(data.DataError, match="should describe a zarr array"):
        amsterdam.read_metadata(b"no json", ".zarray")


def test_missing_codes_and_what_is_no_speed():
    def chunk(*values):
        content = CODEC.encode(np.array(values))
        return amsterdam.read_chunk(content, "0.0.0", (1, 1, len(values)), CODEC).ravel().tolist()

    assert chunk(1.0, 99.0, np.nan, 0.0, 255.0) == [1, 99, 255, 255, 255]
    for value, shown in ((-3.0, "-3"), (90.5, "90.5"), (200.0, "200"), (np.inf, "inf")):
        with pytest.raises(data.DataError, match=f"1 of its 2 numbers are others, such as {shown}"):
            chunk(80.0, value)
    with pytest.raises(data.DataError, match="should be a chunk of 2 x 2 x 2 numbers"):
        amsterdam.read_chunk(CODEC.encode(np.zeros(7)), "0.0.0", (2, 2, 2), CODEC)
    with pytest.raises(data.DataError, match="could not be unpacked"):
        amsterdam.read_chunk(b"\x02\x01 cut short", "0.0.0", (2, 2, 2), CODEC)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sensors": "many"}, "Known: one, eight"),
        ({"num_timesteps": 211}, "num_timesteps must be an integer and >= 2 and <= 210"),
        ({"evaluation_stride": 2.5}, "stride must be an integer"),
        ({"num_validation": 0}, "num_validation must be an integer and >= 1"),
    ],
)
def test_bad_options(published, options, message):
    with pytest.raises(ValueError, match=message):
        data.load("amsterdam", **options)


def test_the_registered_table_is_whole():
    assert len(amsterdam.PIECES) == 2 * (8 * 4 * 4 + 1)


def at_hand(*names):
    """The first folder that holds these files; skips without one."""
    for folder in filter(None, (store.given_folder(), store.cache_folder())):
        if all((folder / name).is_file() for name in names):
            return folder
    pytest.skip(f"{names[0]} is neither in the folder TFP_GAPS_DATA nor in the cache")


def test_real_chunks_give_the_registered_evenings():
    """Runs where chunks and evenings are at hand; the made-up ones test the same everywhere."""
    raw = [f"amsterdam/raw/2018.speed_evening.{name}" for name in (".zarray", "0.0.0", "7.3.3")]
    folder = at_hand(*raw, "amsterdam/evenings.npz")
    contents = [
        store.read_verified(folder / path, piece.digest, data_set="amsterdam")
        for path, piece in (
            (path, amsterdam.PIECES["dataset/2018.zarr/speed_evening/" + path.split("evening.")[1]])
            for path in raw
        )
    ]
    shape, chunks, codec = amsterdam.read_metadata(contents[0], raw[0])
    assert shape == (363, 193, 210)
    known = amsterdam.evenings()["speed_2018"]
    first, last = (amsterdam.read_chunk(c, "chunk", chunks, codec) for c in contents[1:])
    np.testing.assert_array_equal(first, known[:46, :49, :53])
    np.testing.assert_array_equal(last[:41, :46, :51], known[322:, 147:, 159:])


def test_real_evenings_have_the_known_facts():
    at_hand("amsterdam/evenings.npz")
    evenings = amsterdam.evenings()
    missing = [(evenings[f"speed_{year}"] == 255).mean() for year in (2018, 2019)]
    np.testing.assert_allclose(missing, [0.0074, 0.0384], atol=5e-5)
    # Neighbours of the chosen stretches share their jams, and roads end just before them.
    speeds = evenings["speed_2018"][:, ::4].astype(float)
    speeds[speeds == 255] = np.nan
    deviations = (speeds - np.nanmean(speeds, 0)).transpose(1, 0, 2).reshape(49, -1)
    pairs = [np.ma.masked_invalid(deviations[i : i + 2]) for i in range(48)]
    shared = np.array([np.ma.corrcoef(pair)[0, 1] for pair in pairs])
    for first in amsterdam.STRETCHES:
        assert shared[first : first + 7].min() > 0.395 and shared[first - 1] < 0.31
    splits = data.load("amsterdam")
    assert splits.test.observations.shape == (45, 12_936, 1)
    assert len(np.unique(splits.groups["test"])) == 236
    assert len(np.unique(splits.groups["test"][:1000])) > 200
