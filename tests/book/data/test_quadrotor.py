"""Simulated flights by the thousand: against another simulator, and what commands tell."""

import numpy as np
import pytest

import simulate_flights
from tfp_gaps.book import data
from tfp_gaps.book.data import quadrotor, store, uav


def test_a_flight_is_that_of_rotorpy():
    """The 140 flights were made by rotorpy, one at a time and with steps of its own."""
    stored = store.read_own(uav.FLIGHTS, uav.FLIGHTS_DIGEST)
    drawn = [simulate_flights.draw_flight(i) for i in (0, 77, 139)]
    curves = [
        np.stack([getattr(curve, name) for curve, _, _ in drawn])
        for name in ("amplitudes", "frequencies", "phases")
    ]
    wind = np.stack([wind for _, wind, _ in drawn])

    def command(step, state):
        return quadrotor.track(state, quadrotor.lissajous(*curves, step / quadrotor.RATE))

    samples = quadrotor.fly(quadrotor.start_of(*curves), command, wind, 1200)
    flown = quadrotor._reduce(samples, 200, 100)
    # Of the state, 10 micrometres after 12 s; a mistake in any coefficient moves it by millimetres.
    tolerances = {"position": 1e-5, "velocity": 2e-5, "attitude": 1e-6, "rotor_speeds": 0.05}
    # The stored sensors carry noise; five of its standard deviations in a slot's mean.
    tolerances |= {
        "accel": 5 * quadrotor.ACCEL_SD / np.sqrt(10),
        "gyro": 5 * quadrotor.GYRO_SD / np.sqrt(10),
    }
    for name, tolerance in tolerances.items():
        np.testing.assert_allclose(
            flown[name], stored[name][[0, 77, 139]], rtol=0, atol=tolerance, err_msg=name
        )


@pytest.mark.parametrize("kind", list(quadrotor.SEEDS))
def test_few_flights_are_the_first_of_many(kind, monkeypatch):
    monkeypatch.setitem(quadrotor.SLOTS, kind, 5)
    many = quadrotor.simulate(kind, num_flights=5, at_once=2)
    few = quadrotor.simulate(kind, num_flights=3)
    for name, array in few.items():
        np.testing.assert_array_equal(array, many[name][:3], err_msg=name)
        assert array.dtype == np.float32 and not (array[0] == array[1]).all()
    shapes = {name: (3, 5, count) for name, count in simulate_flights.FIELDS.items()}
    assert {name: array.shape for name, array in few.items()} == shapes | {"wind": (3, 3)}


@pytest.fixture(scope="module")
def opened():
    """300 open-loop flights."""
    return quadrotor.simulate("open-loop", num_flights=300)


def test_commands_of_open_flights_tell_nothing_of_what_is_hidden(opened):
    """Correlations of independent numbers over 300 flights: 4.5 / sqrt(300) = .26 at most."""
    controls = opened["rotor_speeds"].astype(float) @ uav.MIX.T
    controls = (controls - controls.mean((0, 1))) / controls.std((0, 1))

    def correlate(values, others):
        values = (values - values.mean(0)) / values.std(0)
        others = (others - others.mean(0)) / others.std(0)
        return np.abs(values.T @ others).max() / len(values)

    for t in (5, 20, 40):
        hidden = [opened[name][:, t] for name in ("position", "velocity", "attitude", "gyro")]
        hidden = np.concatenate([*hidden, opened["wind"], controls[:, t]], axis=1)
        assert correlate(hidden.astype(float), controls[:, t + 1]) < 0.26
    # Nor of each other: 15,000 pairs, while a slot's mean of speeds that lag would give .05.
    before, after = controls[:, :-1].reshape(-1, 4), controls[:, 1:].reshape(-1, 4)
    assert np.abs((before * after).mean(0)).max() < 4.5 / np.sqrt(len(before))
    # Earlier commands do move the state: this would be seen.
    velocity = opened["velocity"][:, 20, 2] - opened["velocity"][:, 19, 2]
    assert correlate(velocity[:, np.newaxis].astype(float), controls[:, 20]) > 0.5


def test_commands_of_closed_flights_tell_of_the_wind():
    flights = quadrotor.simulate("closed-loop", num_flights=60)
    controls = flights["rotor_speeds"].astype(float) @ uav.MIX.T
    # The rotors lift more where the air comes from above.
    found = np.corrcoef(controls[:, :, 0].mean(1), flights["wind"][:, 2])[0, 1]
    assert abs(found) > 0.5


def test_open_flights_stay_gentle(opened):
    up = quadrotor.rotation(opened["attitude"][:, -1].astype(float))[:, 2, 2]
    assert np.arccos(up).mean() == pytest.approx(0.081, abs=0.015)
    assert np.arccos(up).max() < 0.35
    speed = np.linalg.norm(opened["velocity"][:, -1], axis=1)
    assert speed.mean() == pytest.approx(2.63, rel=0.1)
    np.testing.assert_allclose(np.linalg.norm(opened["attitude"], axis=-1), 1, atol=2e-4)


def test_many_flights_are_made_once_and_loaded(cache, monkeypatch):
    made = []

    def simulate(kind):
        made.append(kind)
        slots = quadrotor.SLOTS[kind]
        rng = np.random.default_rng(0)
        fields = {name: (slots, count) for name, count in simulate_flights.FIELDS.items()}
        shapes = fields | {"wind": (3,)}
        return {n: rng.normal(size=[2000, *s]).astype(np.float32) for n, s in shapes.items()}

    monkeypatch.setattr(quadrotor, "simulate", simulate)
    for name in ("closed-loop", "open-loop"):
        monkeypatch.setitem(uav.MADE_DIGESTS, name, store.digest_of_arrays(simulate(name)))
    del made[:]
    assert data.fetch("open-loop") == [cache / "quadrotor/open-loop.npz"]
    splits = data.load("uav", source="open-loop")
    assert made == ["open-loop"]
    assert splits.train.observations.shape == (40, 1500 * 3, 3)
    assert len(splits.validation) == 100 and len(splits.test) == 400
    np.testing.assert_array_equal(splits.groups["test"], np.arange(400))
    assert "simulated open-loop flights" in splits.source and "1500/100/400" in splits.source
    assert len(data.load("uav", source="closed-loop").test) == 800
    monkeypatch.setitem(uav.MADE_DIGESTS, "open-loop", "0" * 64)
    with pytest.warns(UserWarning, match="open-loop should be the same wherever it is made"):
        data.load("uav", source="open-loop")
