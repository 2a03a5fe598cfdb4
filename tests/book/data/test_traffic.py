"""Traffic: known facts of the counts, masks, splits, and files that are not what they should be."""

import builtins
import dataclasses
import io

import numpy as np
import pytest

import make_traffic
from tfp_gaps import storage
from tfp_gaps.book import data
from tfp_gaps.book.data import store, traffic

DAYS, STEPS, COUNT = (2, 1, 1), 24, 10


@pytest.fixture
def speeds():
    """Four days of 24 steps at 10 sensors, noisy; sensor 3 has a gap drawn as a straight line."""
    rng = np.random.default_rng(0)
    speeds = (55 + 8 * rng.standard_normal([sum(DAYS) * STEPS, COUNT])).clip(1, 70).round(6)
    speeds[60:64, 3] = np.linspace(40, 50, 6)[1:5]
    speeds[[59, 64], 3] = 40, 50
    return speeds


def csv(speeds):
    lines = [",".join(f"s{i}" for i in range(speeds.shape[1]))]
    return "\n".join(lines + [",".join(f"{v:.6f}" for v in row) for row in speeds]).encode()


@pytest.fixture
def give(monkeypatch, tmp_path):
    """A function that makes a small file stand for a source's file, checksum included."""
    monkeypatch.setenv("TFP_GAPS_DATA", str(tmp_path))
    monkeypatch.setattr(store, "cache_folder", lambda: tmp_path / "cache")

    def put(source, content):
        kind = traffic.SOURCES[source]
        raw = dataclasses.replace(kind.raw, digest="sha256:" + storage.sha256(content))
        small = dataclasses.replace(
            kind, days=DAYS, steps_per_day=STEPS, raw=raw, num_sensors=COUNT, stride=1
        )
        monkeypatch.setitem(traffic.SOURCES, source, small)
        (tmp_path / raw.names[0]).write_bytes(content)
        return tmp_path / raw.names[0]

    return put


def test_counts_have_the_known_facts():
    arrays = store.read_own(traffic.COUNTS, traffic.COUNTS_DIGEST)
    counts = arrays["counts"]
    assert counts.shape == (2496, 22) and counts.max() == 174
    missing = counts < 0
    np.testing.assert_array_equal(missing.all(1), missing.any(1))
    np.testing.assert_array_equal(np.flatnonzero(missing.all(1)), [18, 19, 20, 1843])
    assert counts[~missing].size == 54_824
    means = np.where(missing, np.nan, counts)
    assert np.sum(np.nanmean(means, axis=0) < 3) == 5
    # The busiest quarter of an hour is in the day, the quietest at night.
    daily = np.nanmean(means.sum(1).reshape(26, 96), axis=0)
    assert 28 < daily.argmax() < 76 and daily.argmin() < 20


def test_many_detectors_are_read_jointly():
    splits = data.load("traffic")
    assert splits.train.observations.shape == (36, 18 * 96 - 35, 17)
    assert splits.validation.observations.shape == splits.test.observations.shape == (36, 10, 17)
    assert len(splits.channels) == 17 and "sqrt(vehicles per 15 min)" in splits.channels[0]
    # Steps 18 to 20 are missing at every detector; window i starts at step i.
    missing = ~splits.train.mask[:, :21, :].all(-1)
    expected = np.isin(np.arange(36)[:, np.newaxis] + np.arange(21), [18, 19, 20])
    np.testing.assert_array_equal(missing, expected)
    assert (splits.train.observations[~splits.train.mask] == 0).all()
    assert splits.test.mask is None


def test_original_counts_come_back():
    values, _ = traffic.series()
    for sensors in ("one", "many", "eight", "all"):
        splits = traffic.load(sensors=sensors, num_timesteps=32)
        windows = splits.windows["test"]
        back = splits.in_units(splits.test.observations) ** 2
        assert np.abs(back - back.round()).max() < 1e-3
        if sensors == "all":
            np.testing.assert_allclose(back[:, 1], values[windows.starts[1] :][:32] ** 2, atol=1e-3)
        if sensors == "one":
            assert len(windows) == 17 * 12
            chosen = traffic._usable(values, "counts")[windows.series[50]]
            np.testing.assert_allclose(
                back[:, 50, 0], values[windows.starts[50] :, chosen][:32] ** 2, atol=1e-3
            )


def test_windows_do_not_cross_from_one_split_into_another():
    splits = traffic.load(sensors="one", num_timesteps=40, evaluation_stride=1)
    bounds = {"train": (0, 18), "validation": (18, 22), "test": (22, 26)}
    for part, (begin, end) in bounds.items():
        starts = splits.windows[part].starts
        assert starts.min() >= begin * 96 and starts.max() + 40 <= end * 96
        if part != "train":  # and with stride 1 the whole split is used
            assert starts.min() == begin * 96 and starts.max() + 40 == end * 96


def test_evaluation_windows_do_not_overlap_by_default():
    splits = traffic.load(num_timesteps=32)
    np.testing.assert_array_equal(np.diff(splits.windows["test"].starts), 32)
    assert len(splits.test) == 12
    hours = traffic.hours(splits.windows["test"])
    assert hours.shape == (32, 12)
    np.testing.assert_allclose(hours[:2, :3], [[0, 8, 16], [0.25, 8.25, 16.25]])


def test_standardisation_knows_the_training_days_alone(monkeypatch):
    before = traffic.load(sensors="all")
    observed = before.train.observations[before.train.mask]
    # Overlapping windows weigh the first and the last hours less: not exactly 0 and 1.
    assert abs(observed.mean()) < 0.03 and abs(observed.std() - 1) < 0.03
    values, names = traffic.series()
    values[18 * 96 :] += 5
    monkeypatch.setattr(traffic, "series", lambda source: (values, names))
    after = traffic.load(sensors="all")
    np.testing.assert_array_equal(after.train.observations, before.train.observations)
    assert not np.allclose(after.test.observations, before.test.observations)


def test_speeds_of_one_sensor_are_pooled_with_one_scale(give, speeds):
    give("metr-la", csv(speeds))
    splits = data.load("traffic", source="metr-la", num_timesteps=8)
    # Sensor 3 misses 4 of 96 values, less than 5 %: it stays, with a mask.
    assert splits.train.observations.shape == (8, COUNT * 41, 1)
    assert splits.test.observations.shape == (8, COUNT * 3, 1)
    shift, scale = splits.scaling
    np.testing.assert_allclose(shift, speeds[:48].mean())
    np.testing.assert_allclose(scale, speeds[:48].std())
    windows = splits.windows["validation"]
    gap = np.flatnonzero((windows.series == 3) & (windows.starts == 56))
    np.testing.assert_array_equal(
        splits.validation.mask[:, gap[0], 0], ~np.isin(np.arange(8), [4, 5, 6, 7])
    )
    assert splits.validation.mask[:, windows.series != 3].all()
    assert "10 sensors pooled" in splits.source and "(pooled)" in splits.source


def test_sensors_with_long_straight_lines_are_left_out(give, speeds):
    speeds[60:66, 3] = np.linspace(40, 50, 6)
    speeds[70:78, 5] = 70.0
    speeds[80, 6] = 0
    give("metr-la", csv(speeds))
    splits = traffic.load(source="metr-la", sensors="many", num_timesteps=8)
    # 6 values of sensor 5 lie inside its plateau, more than 5 % of 96; 4 of sensor 3 do.
    assert [name.split()[-1] for name in splits.channels] == [f"s{i}" for i in range(10) if i != 5]
    everything = traffic.load(source="metr-la", sensors="all", num_timesteps=8)
    assert everything.test.observations.shape[2] == COUNT
    assert (~everything.test.mask).sum() == 1 + 5  # the zero, and steps 71 to 76 but for the split


def test_gaps_of_the_whole_network_are_found_however_short(speeds):
    speeds[20] = (speeds[19] + speeds[21]) / 2
    speeds[40, :3] = (speeds[39, :3] + speeds[41, :3]) / 2
    found = traffic.interpolated(speeds)
    assert found[20].all() and not found[40].any() and found.sum() == COUNT + 4


def test_the_eight_most_variable_sensors_are_chosen_on_the_training_days(give, speeds):
    speeds[:, [2, 7]] = 55 + 0.5 * (speeds[:, [2, 7]] - 55)
    speeds[72:, 2] = 35 + 3 * (speeds[72:, 2] - 55)  # on the test day it varies most
    give("metr-la", csv(speeds))
    splits = traffic.load(source="metr-la", sensors="eight", num_timesteps=8)
    names = [channel.split()[-1] for channel in splits.channels]
    assert names == [f"s{i}" for i in range(10) if i not in (2, 7)]


def test_windows_without_any_observation_are_dropped(give, speeds):
    speeds[48:52, 1] = 0
    give("metr-la", csv(speeds))
    splits = traffic.load(source="metr-la", num_timesteps=4)
    assert len(splits.validation) == COUNT * 6 - 2  # sensor 1, first window; sensor 3, 60 to 63
    assert splits.validation.mask is None


def test_seattle_tensor_has_days_and_zeros_are_missing(give, speeds):
    speeds[50, 4] = 0
    tensor = speeds.T.reshape(COUNT, sum(DAYS), STEPS)
    buffer = io.BytesIO()
    np.savez(buffer, tensor)
    give("seattle", buffer.getvalue())
    splits = traffic.load(source="seattle", sensors="many", num_timesteps=8)
    np.testing.assert_array_equal(
        np.argwhere(~splits.validation.mask)[:, [0, 2]],
        [[2, 4], [4, 3], [5, 3], [6, 3], [7, 3]],
    )
    window = splits.windows["train"].starts[5]
    np.testing.assert_allclose(
        splits.in_units(splits.train.observations, "train")[:, 5],
        speeds[window : window + 8],
        rtol=1e-5,
    )


def test_seattle_year_needs_pyarrow_and_says_so(give, monkeypatch):
    give("seattle-year", b"PAR1")
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(data.DataError, match="expected the package pyarrow.*source 'seattle'"):
        traffic.series("seattle-year")


def test_seattle_year_is_a_row_for_each_sensor(give, speeds):
    pytest.importorskip("pyarrow")
    import pyarrow.parquet

    columns = {"id": [f"d{i}" for i in range(COUNT)], "target": list(speeds.T)}
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    give("seattle-year", buffer.getvalue())
    values, names = traffic.series("seattle-year")
    assert names == columns["id"] and np.isnan(values).sum() == 4
    np.testing.assert_array_equal(values[:60], speeds[:60])
    give("seattle-year", buffer.getvalue()[:-9])
    with pytest.raises(data.DataError, match="a parquet file with columns id and target"):
        traffic.series("seattle-year")


def test_a_csv_with_a_missing_column_is_refused(give, speeds):
    lines = csv(speeds).split(b"\n")
    lines[4] = lines[4].rsplit(b",", 1)[0]
    path = give("metr-la", b"\n".join(lines))
    with pytest.raises(data.DataError, match=r"should have 10 columns.*line 5 has 9") as info:
        traffic.series("metr-la")
    assert str(path) in str(info.value)
    give("metr-la", csv(speeds[:, 1:]))
    with pytest.raises(data.DataError, match="96 steps of 10 sensors, but holds 96 of 9"):
        traffic.series("metr-la")


def test_nan_rows_and_words_are_refused(give, speeds):
    speeds[5:7] = np.nan
    give("metr-la", csv(speeds))
    with pytest.raises(data.DataError, match="2 of its lines, the first of them line 7, hold NaN"):
        traffic.series("metr-la")
    give("metr-la", csv(speeds).replace(b"nan", b"fast"))
    with pytest.raises(data.DataError, match="should hold numbers below its first line"):
        traffic.series("metr-la")


def test_altered_and_broken_files_are_refused(give, speeds):
    path = give("metr-la", csv(speeds))
    path.write_bytes(csv(speeds)[:-1])
    with pytest.raises(data.DataError, match="should have SHA-256.*data fetch metr-la"):
        traffic.series("metr-la")
    give("metr-la", b"")
    with pytest.raises(data.DataError, match="96 steps of 10 sensors"):
        traffic.series("metr-la")
    give("seattle", b"PK\x03\x04 cut short")
    with pytest.raises(data.DataError, match="an npz file with an array arr_0"):
        traffic.series("seattle")


def test_missing_file_and_no_network(give, monkeypatch, speeds):
    give("metr-la", csv(speeds)).unlink()

    def fail(self, url, target, pooch):
        raise ConnectionError("no route")

    monkeypatch.setattr(store.pooch.HTTPDownloader, "__call__", fail)
    with pytest.raises(data.DataError, match=r"metr_la_week.csv.*los_speed.csv.*no route"):
        data.fetch("metr-la")


def test_files_of_the_package_need_no_network(monkeypatch):
    monkeypatch.delenv("TFP_GAPS_DATA", raising=False)
    assert data.fetch("traffic") == [traffic.COUNTS] and traffic.COUNTS.is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "pems"}, "Unknown traffic source 'pems'. Known: counts, metr-la, seattle"),
        ({"sensors": "two"}, "Known: one, eight, many, all"),
        ({"standardise": "day"}, "Known: sensor, pooled"),
        ({"num_timesteps": 385}, "num_timesteps must be an integer and >= 2 and <= 384"),
        ({"stride": -1}, "stride must be an integer and >= 1"),
        ({"evaluation_stride": 0.5}, "evaluation_stride must be an integer"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        data.load("traffic", **options)


def rows():
    start = make_traffic.START.astype("datetime64[us]")
    stamps = start + np.array([0, 0, 2, 2, 2]) * make_traffic.STEP
    return stamps, np.array([7, 5, 5, 7, 5]), np.array([1, 2, 3, 4, 3])


def test_rows_become_a_table_with_gaps():
    table = make_traffic.tabulate(*rows(), num_steps=3)
    np.testing.assert_array_equal(table["detectors"], [5, 7])
    np.testing.assert_array_equal(table["counts"], [[2, 1], [-1, -1], [3, 4]])


def test_contradicting_and_misplaced_rows_are_refused():
    stamps, detectors, counts = rows()
    with pytest.raises(ValueError, match="1 rows contradict"):
        make_traffic.tabulate(stamps, detectors, np.array([1, 2, 3, 4, 9]), num_steps=3)
    with pytest.raises(ValueError, match="must not be negative"):
        make_traffic.tabulate(stamps, detectors, -counts, num_steps=3)
    with pytest.raises(ValueError, match="time stamps must lie on the 2 steps"):
        make_traffic.tabulate(stamps, detectors, counts, num_steps=2)
    with pytest.raises(ValueError, match="time stamps must lie"):
        make_traffic.tabulate(stamps + np.timedelta64(1, "m"), detectors, counts, num_steps=3)


def test_another_wheel_is_refused(tmp_path):
    (tmp_path / "other.whl").write_bytes(b"PK")
    with pytest.raises(ValueError, match="other.whl should have SHA-256 050f7801e329990c"):
        make_traffic.read_wheel(tmp_path / "other.whl")


def test_real_week_has_the_known_facts():
    """Runs where the week is at hand; the small files above test the same code everywhere."""
    path, content = real("metr-la")
    speeds, names = traffic.read_csv(content, path)
    assert speeds.shape == (2016, 207) and len(set(names)) == 207
    assert (speeds.min(), speeds.max()) == (1.0, 70.0)
    assert speeds.mean() == pytest.approx(58.9, abs=0.05)
    straight = traffic.interpolated(speeds)
    # A gap of the whole network, 17 steps long, is drawn as straight lines at every sensor.
    np.testing.assert_array_equal(np.flatnonzero(straight.all(1))[3:20], np.arange(1314, 1331))
    assert straight.mean() == pytest.approx(0.0443, abs=5e-5)
    assert np.sum(straight.mean(0) > traffic.MAX_MISSING) == 32


def real(source):
    """Path and content of a source's file in the given folder or the cache; skips without one."""
    raw = traffic.SOURCES[source].raw
    for folder in filter(None, (store.given_folder(), store.cache_folder())):
        if (folder / raw.names[0]).is_file():
            return store.read(raw)
    pytest.skip(f"{raw.names[0]} is neither in the folder TFP_GAPS_DATA nor in the cache")
