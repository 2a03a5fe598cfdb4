"""Real flights: the reduction of a log, the split by flight, and logs that are not as they should.

The logs here are made up, so that every value of a slot is known; two tests at the end read the
real ones where they are at hand.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tfp_gaps import storage
from tfp_gaps.book import data
from tfp_gaps.book.data import nanobench, store

COLUMNS = ("t", *nanobench._READ, *nanobench._AVERAGED)
START = 1_772_422_003.76  # s: a double there resolves .24 microseconds
NAMES = [f"B{i}_{figure}_slow_rep{i}" for figure in ("oval", "star", "helix") for i in range(8)]


def log(seconds=3.0, *, rate=100, seed=0):
    """A log whose states are linear in time, above the ground from .505 s on, in `COLUMNS`.

    At time s since `START` column k of the states is .1 (k + 1) s; the others are random.
    """
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    table = np.empty([len(time), len(COLUMNS)])
    table[:, 0] = START + time
    table[:, 1:7] = 0.1 * np.arange(1, 7) * time[:, np.newaxis]
    table[:, 3] = 0.5 * (time > 0.501)
    table[:, 7:11] = [0.0, 0.6, 0.0, 0.8]
    table[:, 11:17] = rng.normal(size=[len(time), 6])
    table[:, 17:] = rng.integers(0, 65536, [len(time), 4])
    return table


def csv(table, columns=COLUMNS):
    """A file with the columns in another order, and one that nobody reads and that holds words."""
    order = [*reversed(range(len(columns)))]
    lines = [",".join(["note", *(columns[i] for i in order)])]
    lines += [",".join(["word", *(f"{row[i]:.9f}" for i in order)]) for row in table]
    return ("\n".join(lines) + "\n").encode()


def read(content):
    return nanobench.read_csv(content, "log.csv")


def test_a_log_is_read_by_the_names_of_its_columns():
    table = log()
    np.testing.assert_allclose(read(csv(table)), table, rtol=0, atol=5e-7)


def test_slots_are_means_and_end_where_states_are_read():
    table = log(seconds=2.0)
    rows = nanobench.reduce_flight(table)
    # Above the ground from row 51 to row 199, 1.48 s: 29 whole slots.
    assert rows.shape == (29, 20) and rows.dtype == np.float32
    ends = 0.51 + 0.05 * np.arange(1, 30)
    for column in (0, 1, 3, 4, 5):
        np.testing.assert_allclose(rows[:, column], 0.1 * (column + 1) * ends, atol=1e-6)
    np.testing.assert_allclose(rows[:, 6:10], np.tile([0.0, 0.6, 0.0, 0.8], (29, 1)), atol=1e-7)
    since = table[:, 0] - table[51, 0]
    for slot in range(29):
        inside = (since >= slot / 20) & (since < (slot + 1) / 20)
        assert 4 <= inside.sum() <= 6  # rows at a boundary fall to either side
        mean = table[inside, 11:].mean(0)
        np.testing.assert_allclose(rows[slot, 10:13], 9.81 * mean[:3], atol=1e-5)
        np.testing.assert_allclose(rows[slot, 13:16], mean[3:6], atol=1e-6)
        np.testing.assert_allclose(rows[slot, 16:], mean[6:] / 65535, atol=1e-6)


def test_the_longest_stretch_above_the_ground_is_the_flight():
    table = log(seconds=4.0)
    table[120:150, 3] = 0.1  # a landing after .7 s; the second flight lasts 2.5 s
    rows = nanobench.reduce_flight(table)
    assert len(rows) == 49
    np.testing.assert_allclose(rows[0, 0], 0.1 * (1.5 + 0.05), atol=1e-6)
    table[:, 3] = 0.2
    assert nanobench.reduce_flight(table).shape == (0, 20)


def test_signs_of_quaternions_do_not_matter():
    table = log()
    expected = nanobench.reduce_flight(table)
    table[::3, 7:11] *= -1
    found = nanobench.reduce_flight(table)[:, 6:10]
    sign = np.sign(found[0] @ expected[0, 6:10])
    np.testing.assert_allclose(sign * found, expected[:, 6:10], atol=1e-7)


def test_slots_without_rows_lie_between_their_neighbours():
    # At 10 Hz every other slot has no row of its own.
    rows = nanobench.reduce_flight(log(rate=10))
    means = rows[:, 10:]
    np.testing.assert_allclose(means[1:-1:2], (means[:-2:2] + means[2::2]) / 2, atol=1e-6)
    assert np.isfinite(rows).all()


def test_motors_are_mixed_without_loss():
    np.testing.assert_allclose(4 * nanobench.MIX @ nanobench.MIX.T, np.eye(4))
    # Motors front right, back right, back left, front left; roll lifts the left, pitch the front.
    np.testing.assert_array_equal(4 * nanobench.MIX @ [0, 0, 1, 1], [2, 2, 0, 0])
    np.testing.assert_array_equal(4 * nanobench.MIX @ [1, 0, 0, 1], [2, 0, 2, 0])


def spoil(row, column, value):
    table = log()
    table[row, column] = value
    return csv(table)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "could not be read .it lacks t, px"),
        (csv(log()[:, :-1], COLUMNS[:-1]), "it lacks motor_motor_m4"),
        (csv(log())[:-200], "log.csv should hold rows of numbers below one line of names"),
        (csv(log()).replace(b"0.6000", b"fast.", 1), "could not be read .*fast"),
        (spoil(4, 2, np.nan), "1 of its 300 rows, the first of them row 5, hold NaN"),
        (spoil(7, 12, np.inf), "the first of them row 8, hold NaN or infinite"),
        (spoil(9, 0, START), "the first of them row 10, hold a time before"),
        (spoil(2, 18, 70_000), "the first of them row 3, hold duty cycles outside 0 to 65535"),
        (spoil(2, 17, -1), "duty cycles outside"),
    ],
)
def test_bad_logs_are_refused(content, message):
    with pytest.raises(data.DataError, match=message):
        read(content)


@pytest.fixture
def published(cache, server, monkeypatch, tmp_path):
    """24 made-up flights on a server, with a table of their own."""
    logs = [log(2.6 + 0.1 * i, seed=i) for i in range(len(NAMES))]
    contents = {f"{name}.csv": csv(table) for name, table in zip(NAMES, logs, strict=True)}
    reduced = [nanobench.reduce_flight(read(content)) for content in contents.values()]
    server.files.update(contents)
    lines = [
        f"{name}\t{len(content)}\t{storage.sha256(content)}\t{len(rows)}"
        for (name, content), rows in zip(contents.items(), reduced, strict=True)
    ]
    (tmp_path / "table.tsv").write_text("\n".join(["file\tbytes\tsha256\tslots", *lines]))
    monkeypatch.setattr(nanobench, "TABLE", tmp_path / "table.tsv")
    pieces = store.read_table(
        nanobench.TABLE, data_set="nanobench", url=server.url, folder="nanobench"
    )
    monkeypatch.setattr(nanobench, "PIECES", pieces)
    digest = storage.sha256(np.concatenate(reduced).tobytes())
    known = dataclasses.replace(nanobench.REDUCED, digests={"rows": digest})
    monkeypatch.setattr(nanobench, "REDUCED", known)
    return reduced


def test_flights_are_fetched_reduced_and_kept(published, cache, server):
    assert data.fetch("nanobench") == [cache / "nanobench/flights.npz"]
    rows, lengths, names = nanobench.flights()
    np.testing.assert_array_equal(rows, np.concatenate(published))
    assert names == NAMES and lengths.tolist() == [len(flight) for flight in published]
    assert len(server.asked) == len(NAMES)  # each file once


def test_a_flight_of_another_length_is_refused(published, monkeypatch, tmp_path):
    path = nanobench.TABLE
    path.write_text(path.read_text().replace(f"\t{len(published[3])}\n", "\t7\n"))
    with pytest.raises(data.DataError, match="rep3.csv should have 7 slots of 1/20 s .* report it"):
        data.load("nanobench")


def test_a_missing_log_without_network_says_what_to_do(published, server):
    server.files.clear()
    with pytest.raises(data.DataError, match="needs nanobench/B0_oval_.*data fetch nanobench"):
        data.load("nanobench")


@pytest.mark.parametrize(
    ("split", "counts"), [("flight", (15, 3, 6)), ("figure", (14, 2, 8))], ids=["flight", "figure"]
)
def test_no_flight_is_in_two_parts(published, split, counts):
    splits = data.load("nanobench", split=split, num_timesteps=10)
    assert splits.train.controls.shape[2] == 4
    seen = [set(splits.groups[part].tolist()) for part in ("train", "validation", "test")]
    assert tuple(map(len, seen)) == counts and set.union(*seen) == set(range(24))
    if split == "figure":
        assert seen[2] == set(range(8, 16))  # the stars
    else:
        assert [sum(8 * f <= i < 8 * f + 8 for i in seen[2]) for f in range(3)] == [2, 2, 2]
    for part in ("train", "validation", "test"):
        windows = splits.windows[part]
        last = [len(published[i]) - 10 for i in windows.series]
        assert (windows.starts >= 0).all() and (windows.starts <= last).all()
        np.testing.assert_array_equal(splits.groups[part], windows.series)
    assert np.diff(splits.windows["test"].starts[:2]) == 10  # no overlap


def test_values_of_a_window_are_those_of_its_flight(published):
    splits = data.load("nanobench", observe="imu+position", num_timesteps=10, noise=0.05)
    windows = splits.windows["test"]
    w = len(windows) - 1
    flight = published[windows.series[w]][windows.starts[w] :][:10]
    found = splits.in_units(splits.test.observations)
    np.testing.assert_allclose(found[:, w, :6], flight[:, 10:16], atol=1e-4)
    mixed = np.concatenate(published)[:, 16:] @ nanobench.MIX.T
    trained = np.concatenate([published[i] for i in np.unique(splits.groups["train"])])
    trained = trained[:, 16:] @ nanobench.MIX.T
    expected = (flight[:, 16:] @ nanobench.MIX.T - trained.mean(0)) / trained.std(0)
    np.testing.assert_allclose(splits.test.controls[1:, w], expected[1:], atol=1e-4)
    assert (splits.test.controls[0] == 0).all() and mixed.std(0).min() > 0
    # Over 6 flights of 40 or more slots: 720 draws, so 2.6 % of its standard deviation.
    cut = np.stack(
        [published[i][s : s + 10, :3] for i, s in zip(windows.series, windows.starts)], 1
    )
    noise = found[..., 6:] - cut
    assert noise.std() == pytest.approx(0.05, rel=0.1)
    # The same noise whatever else is observed.
    alone = data.load("nanobench", num_timesteps=10)
    np.testing.assert_array_equal(alone.test.observations, splits.test.observations[..., 6:])
    assert "position with noise of 0.05 m" in alone.source and "15/3/6 flights" in alone.source


def test_test_flights_do_not_standardise(published, monkeypatch):
    before = data.load("nanobench", num_timesteps=10)
    rows, lengths, names = nanobench.flights()
    changed = rows.copy()
    numbers = np.repeat(np.arange(24), lengths)
    changed[np.isin(numbers, np.unique(before.groups["test"]))] *= 3
    monkeypatch.setattr(nanobench, "flights", lambda: (changed, lengths, names))
    after = data.load("nanobench", num_timesteps=10)
    np.testing.assert_array_equal(after.train.observations, before.train.observations)
    np.testing.assert_array_equal(after.train.controls, before.train.controls)
    assert not np.allclose(after.test.observations, before.test.observations)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"observe": "velocity"}, "Known: position, imu, imu.position"),
        ({"split": "window"}, "Known: flight, figure"),
        ({"noise": 0.0}, "noise must be"),
        ({"num_timesteps": 700}, "num_timesteps must be an integer and >= 2 and <= "),
        ({"stride": 0}, "stride must be an integer and >= 1"),
    ],
)
def test_bad_options(published, options, message):
    with pytest.raises(ValueError, match=message):
        data.load("nanobench", **options)


def test_the_registered_table_is_whole():
    assert len(nanobench.PIECES) == 71 and sum(nanobench._slots()) == 42_828
    assert all(len(raw.digest) == 71 for raw in nanobench.PIECES.values())


def at_hand(*names):
    """The folder that holds these files; skips without one."""
    for folder in filter(None, (store.given_folder(), store.cache_folder())):
        if all((folder / name).is_file() for name in names):
            return Path(folder)
    pytest.skip(f"{names[0]} is neither in the folder TFP_GAPS_DATA nor in the cache")


def test_real_logs_give_the_registered_flights():
    """Runs where logs and flights are at hand; the made-up ones test the same code everywhere."""
    names = ("B2_circle_slow_rep1", "B8_star_fast_rep1")
    at_hand(*(f"nanobench/{name}.csv" for name in names), "nanobench/flights.npz")
    rows, lengths, known = nanobench.flights()
    begins = np.cumsum(lengths) - lengths
    for name in names:
        path, content = store.read(nanobench.PIECES[f"{name}.csv"])
        i = known.index(name)
        flight = rows[begins[i] : begins[i] + lengths[i]]
        np.testing.assert_array_equal(
            nanobench.reduce_flight(nanobench.read_csv(content, path)), flight
        )


def test_real_flights_have_the_known_facts():
    at_hand("nanobench/flights.npz")
    rows, lengths, names = nanobench.flights()
    assert rows.shape == (42_828, 20) and (lengths.min(), lengths.max()) == (335, 695)
    assert [f"{name}.csv" for name in names] == list(nanobench.PIECES)
    np.testing.assert_allclose(np.linalg.norm(rows[:, 6:10], axis=1), 1, atol=1e-6)
    splits = data.load("nanobench")
    assert splits.test.observations.shape == (40, 240, 3)
    assert [len(np.unique(splits.groups[p])) for p in ("train", "validation", "test")] == [
        47,
        8,
        16,
    ]
    star = data.load("nanobench", split="figure")
    assert all("_star_" in names[i] for i in star.groups["test"])
    assert not any("_star_" in names[i] for i in star.groups["train"])
