"""Flights: known facts, alignment of controls, splits, and files that are not as they should be."""

import dataclasses
import io

import h5py
import numpy as np
import pytest

import simulate_flights
from tfp_gaps import storage
from tfp_gaps.book import data
from tfp_gaps.book.data import store, uav

ROWS = {"train": 451, "val": 226, "test": 231}  # at 100 Hz


@pytest.fixture(scope="module")
def flights():
    return store.read_own(uav.FLIGHTS, uav.FLIGHTS_DIGEST)


def test_flights_have_the_described_arrays(flights):
    shapes = {name: (140, 100, count) for name, count in simulate_flights.FIELDS.items()}
    assert {name: array.shape for name, array in flights.items()} == shapes | {"wind": (140, 3)}
    assert all(array.dtype == np.float32 for array in flights.values())
    assert uav.FLIGHTS.stat().st_size < 3_000_000


def test_flights_obey_physics(flights):
    # Positions at the ends of slots are integrals of velocity: trapezoids leave O(dt^3) = 1e-3.
    steps = np.diff(flights["position"].astype(float), axis=1)
    trapezoid = 0.05 * (flights["velocity"][:, 1:] + flights["velocity"][:, :-1])
    assert np.abs(steps - trapezoid).max() < 1e-3
    np.testing.assert_allclose(np.linalg.norm(flights["attitude"], axis=-1), 1, atol=1e-6)
    noise = flights["mocap"] - flights["position"]
    assert noise.std() == pytest.approx(0.0035, rel=0.05)
    # The start transient is dropped: rotors stay far from their limits, and flights are gentle.
    assert flights["rotor_speeds"].min() > 300 and flights["rotor_speeds"].max() < 600
    assert np.linalg.norm(flights["velocity"], axis=-1).max() < 4
    assert flights["wind"].std() == pytest.approx(1.5, rel=0.1)
    # Altitude is a signal, not noise.
    assert flights["position"][..., 2].std(1).min() > 0.1


def test_wind_and_curve_are_drawn_again(flights):
    for index in (0, 77, 139):
        curve, wind, _ = simulate_flights.draw_flight(index)
        np.testing.assert_allclose(flights["wind"][index], wind, rtol=1e-6)
        # The controller lags and the wind pushes, by half a metre or so of some metres.
        wanted = np.array([curve.update(2.1 + 0.1 * slot)["x"] for slot in range(100)])
        assert np.abs(wanted - flights["position"][index]).max() < 1.2


def test_derivatives_of_the_curve():
    curve, _, _ = simulate_flights.draw_flight(5)
    before, at, after = (curve.update(1.0 + h) for h in (-1e-4, 0.0, 1e-4))
    for lower, upper in (("x", "x_dot"), ("x_dot", "x_ddot"), ("x_ddot", "x_dddot")):
        slope = (after[lower] - before[lower]) / 2e-4
        np.testing.assert_allclose(slope, at[upper], atol=1e-6)  # central differences, O(h^2)


def test_first_seconds_are_simulated_again(flights):
    pytest.importorskip("rotorpy", reason="the simulator is not installed")
    for index in (0, 139):
        again = simulate_flights.simulate_flight(index, duration=1.0)
        for name in simulate_flights.FIELDS:
            # Bit for bit on the machine that made the file; elsewhere libraries round differently.
            np.testing.assert_allclose(again[name], flights[name][index, :10], atol=1e-3)


def test_simulation_resumes_after_an_interruption(monkeypatch, tmp_path):
    flown = []

    def fly(index):
        if len(flown) == 2:
            raise KeyboardInterrupt
        flown.append(index)
        return {"position": np.full([2, 3], index, np.float32), "wind": np.zeros(3, np.float32)}

    monkeypatch.setattr(simulate_flights, "simulate_flight", fly)
    with pytest.raises(KeyboardInterrupt):
        simulate_flights.simulate(tmp_path, num_flights=3)
    (tmp_path / "flight-000.npz").write_bytes(b"half a file")
    flown.clear()
    arrays = simulate_flights.simulate(tmp_path, num_flights=3)
    assert flown == [0, 2]
    np.testing.assert_array_equal(arrays["position"][:, 0, 0], [0, 1, 2])


@pytest.mark.parametrize(
    ("observe", "count"), [("position", 3), ("imu", 6), ("imu+position", 9), ("accurate", 9)]
)
def test_what_is_observed(observe, count):
    splits = data.load("uav", observe=observe)
    assert splits.train.observations.shape == (40, 100 * 13, count)
    assert splits.validation.observations.shape == splits.test.observations.shape == (40, 40, count)
    assert splits.train.controls.shape == (40, 1300, 4)
    assert len(splits.channels) == count and len(splits.control_channels) == 4
    assert observe in splits.source and "simulated" in splits.source


def test_noise_of_the_position_is_known_and_fixed():
    splits, again = uav.load(), uav.load(observe="imu+position")
    np.testing.assert_array_equal(splits.test.observations, again.test.observations[..., 6:])
    noise = splits.in_units(splits.test.observations) - uav.truth(splits)
    # 4800 draws: the relative error of a standard deviation is 1 / sqrt(9600) = 1 %.
    assert noise.std() == pytest.approx(uav.POSITION_NOISE, rel=0.04)
    assert abs(noise.mean()) < 4 * uav.POSITION_NOISE / np.sqrt(noise.size)


def test_controls_act_into_their_step(flights):
    splits = uav.load(num_timesteps=20, stride=7)
    windows, controls = splits.windows["train"], splits.train.controls
    assert (controls[0] == 0).all() and (splits.test.controls[0] == 0).all()
    w = 33
    flight, start = windows.series[w], windows.starts[w]
    mixed = flights["rotor_speeds"].astype(float) @ uav.MIX.T
    training = mixed[:100].reshape(-1, 4)
    expected = (mixed[flight, start : start + 20] - training.mean(0)) / training.std(0)
    np.testing.assert_allclose(controls[1:, w], expected[1:], atol=1e-5)


def test_slots_end_where_states_are_read(monkeypatch):
    # A run in which every signal is the number of its sample, 100 in a second.
    samples = np.arange(1201.0)[:, np.newaxis]
    signals = {
        "state": {"rotor_speeds": samples, "x": samples, "v": samples, "q": samples},
        "imu_measurements": {"accel": samples, "gyro": samples},
        "mocap_measurements": {"x": samples},
    }
    monkeypatch.setattr(simulate_flights, "_run", lambda *arguments: signals)
    flight = simulate_flights.simulate_flight(0)
    for name in ("rotor_speeds", "accel", "gyro"):  # samples 200 to 209, then 210 to 219, ...
        np.testing.assert_array_equal(flight[name][:, 0], 204.5 + 10 * np.arange(100))
    for name in ("mocap", "position", "velocity", "attitude"):
        np.testing.assert_array_equal(flight[name][:, 0], 210 + 10 * np.arange(100))


def test_the_acceleration_of_a_slot_moves_the_state_into_its_end(flights):
    # Vertical velocity changes by the mean of R a - g, with attitudes at the slot's two ends.
    x, y, z, w = np.moveaxis(flights["attitude"].astype(float), -1, 0)
    down = np.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x**2 + y**2)], axis=-1)
    change = np.diff(flights["velocity"][..., 2].astype(float), axis=1)

    def error(lag):
        middle = (down[:, :-1] + down[:, 1:]) / 2
        accel = flights["accel"].astype(float)[:, 1 + lag : 100 + lag]
        kept = slice(1, accel.shape[1] - 1)
        predicted = 0.1 * ((middle[:, : accel.shape[1]] * accel).sum(-1) - 9.81)
        return np.abs(predicted[:, kept] - change[:, : accel.shape[1]][:, kept]).mean()

    assert error(0) < 0.2 * min(error(-1), error(1))


def test_mixed_rotor_speeds_hold_the_same_information():
    assert np.linalg.matrix_rank(uav.MIX) == 4
    splits = uav.load()
    correlations = np.corrcoef(splits.train.controls[1:].reshape(-1, 4).T)
    assert np.abs(correlations - np.eye(4)).max() < 0.5  # of plain rotor speeds: .9995


def test_windows_stay_within_flights_and_flights_within_splits(flights):
    splits = uav.load(num_timesteps=30, stride=1)
    for part, first, count in (("train", 0, 100), ("validation", 100, 20), ("test", 120, 20)):
        windows = splits.windows[part]
        assert windows.starts.min() == 0 and windows.starts.max() <= 70
        np.testing.assert_array_equal(np.unique(windows.series), np.arange(count))
        truth = uav.truth(splits, part)
        w = len(windows) - 1
        flight, start = first + windows.series[w], windows.starts[w]
        np.testing.assert_array_equal(truth[:, w], flights["position"][flight, start : start + 30])
    assert uav.truth(splits, signal="wind").shape == (30, 60, 3)


def test_standardisation_knows_the_training_flights_alone(monkeypatch, flights):
    before = uav.load()
    changed = {name: array.copy() for name, array in flights.items()}
    for name in ("position", "rotor_speeds"):
        changed[name][100:] *= 3
    monkeypatch.setattr(store, "read_own", lambda path, digest: changed)
    after = uav.load()
    np.testing.assert_array_equal(after.train.observations, before.train.observations)
    np.testing.assert_array_equal(after.train.controls, before.train.controls)
    assert not np.allclose(after.test.observations, before.test.observations)


def hdf5(signals):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in signals.items():
            file[name] = array
    return buffer.getvalue()


def text(table):
    buffer = io.StringIO()
    np.savetxt(buffer, table, header="ts x y z qx qy qz qw vx vy vz", fmt="%.10f")
    return buffer.getvalue().encode()


@pytest.fixture
def give(monkeypatch, tmp_path):
    """Small files in the format of the excerpt; returns what they hold and a way to replace one."""
    rng = np.random.default_rng(1)
    monkeypatch.setenv("TFP_GAPS_DATA", str(tmp_path))
    monkeypatch.setattr(store, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(uav, "BLACKBIRD", dict(uav.BLACKBIRD))
    (tmp_path / "blackbird").mkdir()

    def put(part, index, content):
        pair = list(uav.BLACKBIRD[part])
        pair[index] = dataclasses.replace(pair[index], digest="sha256:" + storage.sha256(content))
        uav.BLACKBIRD[part] = tuple(pair)
        path = tmp_path / pair[index].names[0]
        path.write_bytes(content)
        return path

    held = {}
    for part, rows in ROWS.items():
        ts = 1000 + 0.01 * np.arange(rows)
        names = ("gyro_raw", "accel_raw", "thrust")
        signals = {"ts": ts} | {name: rng.normal(size=[rows, 3]) for name in names}
        signals["thrust"][:, :2] = 0
        poses = np.column_stack([ts, rng.normal(size=[rows, 10])])
        put(part, 0, hdf5(signals))
        put(part, 1, text(poses))
        held[part] = signals, poses
    return held, put


def test_blackbird_slots_and_controls(give):
    splits = data.load("uav", source="blackbird", num_timesteps=8)
    signals, _ = give[0]["train"]
    assert splits.train.observations.shape == (8, 90 - 7, 6)
    assert splits.validation.observations.shape == (8, 5, 6)  # 45 slots
    assert splits.test.observations.shape == (8, 5, 6)  # 46 slots
    window, step = 11, 3
    rows = slice(5 * (window + step), 5 * (window + step) + 5)
    np.testing.assert_allclose(
        splits.in_units(splits.train.observations, "train")[step, window],
        np.concatenate([signals["accel_raw"][rows].mean(0), signals["gyro_raw"][rows].mean(0)]),
        atol=1e-6,
    )
    thrust = signals["thrust"][:450, 2].reshape(90, 5).mean(1)
    expected = (thrust[window + step] - thrust.mean()) / thrust.std()
    np.testing.assert_allclose(splits.train.controls[step, window, 0], expected, atol=1e-5)
    assert (splits.train.controls[0] == 0).all()


@pytest.mark.parametrize(("observe", "columns"), [("position", 1), ("velocity", 8)])
def test_blackbird_poses_are_read_at_the_end_of_a_slot(give, observe, columns):
    splits = uav.load(source="blackbird", observe=observe, num_timesteps=8)
    poses = give[0]["val"][1]
    truth = uav.truth(splits, "validation", source="blackbird", signal=observe)
    start = splits.windows["validation"].starts[2]
    rows = 5 * (start + np.arange(8)) + 5
    np.testing.assert_allclose(truth[:, 2], poses[rows, columns : columns + 3], atol=1e-9)
    noise = splits.in_units(splits.validation.observations, "validation") - truth
    assert noise.std() == pytest.approx(0.25, rel=0.3)  # 120 draws
    assert uav.load(source="blackbird", observe="imu+velocity").train.observations.shape[2] == 9


def test_truncated_hdf5_is_refused(give):
    signals, _ = give[0]["val"]
    path = give[1]("val", 0, hdf5(signals))
    path.write_bytes(hdf5(signals)[:5000])
    with pytest.raises(data.DataError, match="val.hdf5 should have SHA-256.*fetch blackbird"):
        data.load("uav", source="blackbird", num_timesteps=8)
    give[1]("val", 0, hdf5(signals)[:5000])  # even if somebody registered its checksum
    with pytest.raises(data.DataError, match="an HDF5 file with the signals ts, gyro_raw"):
        data.load("uav", source="blackbird", num_timesteps=8)


def test_missing_signal_column_and_rows_are_refused(give):
    (signals, poses), put = give[0]["test"], give[1]

    def refuses(message):
        with pytest.raises(data.DataError, match=message):
            data.load("uav", source="blackbird", num_timesteps=8)

    put("test", 0, hdf5({name: signals[name] for name in ("ts", "gyro_raw", "thrust")}))
    refuses("test.hdf5 should be an HDF5 file with the signals.*accel_raw")
    put("test", 0, hdf5(signals | {"thrust": signals["thrust"][:, 2]}))
    refuses("test.hdf5 should hold ts")
    broken = signals["accel_raw"].copy()
    broken[[7, 9]] = np.nan
    put("test", 0, hdf5(signals | {"accel_raw": broken}))
    refuses("2 of its 231 rows, the first of them row 8, hold NaN")
    put("test", 0, hdf5(signals))
    put("test", 1, text(poses[:, :-1]))
    refuses("test.groundtruth.txt should hold rows of 11 numbers.*it has 10 columns")
    put("test", 1, text(poses)[:-30])
    refuses("test.groundtruth.txt should hold rows of 11 numbers")
    put("test", 1, text(np.where(np.arange(231)[:, np.newaxis] == 4, np.nan, poses)))
    refuses("the first of them row 5, hold NaN")
    put("test", 1, text(poses[:-1]))
    refuses("should have the same time stamps")


def test_missing_files_and_no_network(give, monkeypatch, tmp_path):
    (tmp_path / "blackbird" / "val.groundtruth.txt").unlink()

    def fail(self, url, target, pooch):
        raise ConnectionError("no route")

    monkeypatch.setattr(store.pooch.HTTPDownloader, "__call__", fail)
    with pytest.raises(data.DataError, match=r"blackbird/val.groundtruth.txt.*val/stamped_ground"):
        data.fetch("blackbird")


def test_files_of_the_package_need_no_network(monkeypatch):
    monkeypatch.delenv("TFP_GAPS_DATA", raising=False)
    assert data.fetch("uav") == [uav.FLIGHTS]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "euroc"}, "Known: simulated, closed-loop, open-loop, blackbird"),
        ({"observe": "velocity"}, "Known: position, imu, imu.position, accurate"),
        ({"num_timesteps": 101}, "num_timesteps must be an integer and >= 2 and <= 100"),
        ({"stride": 2.5}, "stride must be an integer"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        data.load("uav", **options)


def test_real_excerpt_has_the_known_facts():
    """Runs where the excerpt is at hand; the small files above test the same code everywhere."""
    folders = [folder for folder in (store.given_folder(), store.cache_folder()) if folder]
    names = [raw.names[0] for pair in uav.BLACKBIRD.values() for raw in pair]
    if not any(all((folder / name).is_file() for name in names) for folder in folders):
        pytest.skip("the excerpt is neither in the folder TFP_GAPS_DATA nor in the cache")
    rows = {}
    for part, (sensors, poses) in uav.BLACKBIRD.items():
        signals = uav.read_hdf5(*reversed(store.read(sensors)))
        table = uav.read_poses(*reversed(store.read(poses)))
        rows[part] = len(table)
        np.testing.assert_allclose(np.linalg.norm(table[:, 4:8], axis=1), 1, atol=1e-6)
        if part == "train":
            assert np.linalg.norm(table[:, 8:], axis=1).max() == pytest.approx(5.09, abs=0.005)
            correlation = np.corrcoef(signals["thrust"][:, 2], signals["accel"][:, 2])[0, 1]
            assert correlation == pytest.approx(0.93, abs=0.005)
    assert rows == {"train": 9100, "val": 3000, "test": 3000}
    splits = data.load("uav", source="blackbird")
    assert splits.train.observations.shape == (40, 1780, 6)
    assert splits.validation.observations.shape == splits.test.observations.shape == (40, 14, 6)
