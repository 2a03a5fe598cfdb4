"""Simulate the flights of the UAV data set with rotorpy, once, from fixed seeds.

    python tools/simulate_flights.py

A Hummingbird quadrotor (0.5 kg, motor lag, drag) tracks a three-dimensional Lissajous curve in a
wind that is constant during the flight and hidden from the model. The simulator runs at 100 Hz, the
file keeps 10 Hz: with s the start of the kept part, slot t covers [s + t/10, s + (t+1)/10) seconds;

    rotor_speeds, accel, gyro                     means over slot t,
    mocap, position, velocity, attitude           values at the end of slot t.

Only this command needs rotorpy (`pip install rotorpy==3.0.0`); readers get the file it wrote. Each
flight is stored as soon as it is flown, so a command that was interrupted goes on where it stopped.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from tfp_gaps import storage

NUM_FLIGHTS = 140
SEED = 20210504
RATE, SLOT = 100, 10  # simulator steps per second, and per slot
WARM_UP, DURATION = 2.0, 10.0  # seconds: the start transient is dropped, the rest is kept
WIND_SD = 1.5  # m/s, each axis
GRAVITY = 9.81
FIELDS = {  # name: number of columns
    "rotor_speeds": 4,  # rad/s
    "accel": 3,  # m/s^2, body frame, with the simulator's default noise
    "gyro": 3,  # rad/s
    "mocap": 3,  # m, motion capture, noise of 3.5 mm
    "position": 3,  # m, true
    "velocity": 3,  # m/s, true
    "attitude": 4,  # unit quaternion x, y, z, w, true
}


class Lissajous:
    """position_i(t) = amplitude_i sin(frequency_i t + phase_i), with yaw held at zero."""

    def __init__(self, amplitudes, frequencies, phases):
        self.amplitudes, self.frequencies, self.phases = amplitudes, frequencies, phases

    def update(self, t):
        """Position and its first four derivatives at time t, in the simulator's dictionary."""
        names = ("x", "x_dot", "x_ddot", "x_dddot", "x_ddddot")
        # Each derivative multiplies by the frequency and moves the phase on by a quarter turn.
        values = {
            name: self.amplitudes
            * self.frequencies**order
            * np.sin(self.frequencies * t + self.phases + order * np.pi / 2)
            for order, name in enumerate(names)
        }
        return {**values, "yaw": 0.0, "yaw_dot": 0.0, "yaw_ddot": 0.0}


def draw_flight(index):
    """Trajectory and wind of one flight.

    Amplitudes are 1 to 2.5 m (vertical: .5 to 1 m) and frequencies .5 to 1.2 rad/s, because gentler
    figures hardly move the rotors.

    Returns:
      a `Lissajous`, the wind [3] in m/s, and the seed of the sensors' noise.
    """
    rng = np.random.default_rng([SEED, index])
    amplitudes = rng.uniform([1.0, 1.0, 0.5], [2.5, 2.5, 1.0])
    frequencies = rng.uniform(0.5, 1.2, 3)
    phases = rng.uniform(0.0, 2 * np.pi, 3)
    wind = WIND_SD * rng.standard_normal(3)
    return Lissajous(amplitudes, frequencies, phases), wind, int(rng.integers(2**31))


def simulate_flight(index, *, duration=DURATION):
    """Fly one flight and reduce it to 10 Hz.

    Args:
      index: 0, 1, ...; the same index gives the same flight.
      duration: seconds that are kept; a shorter flight is the beginning of a longer one.

    Returns:
      dict of `FIELDS`, float32 [slots, columns], and "wind" [3].
    """
    trajectory, wind, noise_seed = draw_flight(index)
    # The simulator draws its sensors' noise from the global generator: there is no other way in.
    np.random.seed(noise_seed)  # noqa: NPY002
    result = _run(trajectory, wind, WARM_UP + duration)
    start, num_slots = round(WARM_UP * RATE), round(duration * RATE / SLOT)
    state, imu, mocap = result["state"], result["imu_measurements"], result["mocap_measurements"]

    def means(values):
        kept = values[start : start + num_slots * SLOT]
        return kept.reshape(num_slots, SLOT, -1).mean(1).astype(np.float32)

    def ends(values):
        return values[start + SLOT :: SLOT][:num_slots].astype(np.float32)

    return {
        "rotor_speeds": means(state["rotor_speeds"]),
        "accel": means(imu["accel"]),
        "gyro": means(imu["gyro"]),
        "mocap": ends(mocap["x"]),
        "position": ends(state["x"]),
        "velocity": ends(state["v"]),
        "attitude": ends(state["q"]),
        "wind": wind.astype(np.float32),
    }


def _run(trajectory, wind, duration):
    from rotorpy.controllers.quadrotor_control import SE3Control
    from rotorpy.environments import Environment
    from rotorpy.vehicles.hummingbird_params import quad_params
    from rotorpy.vehicles.multirotor import Multirotor
    from rotorpy.wind.default_winds import ConstantWind

    first = trajectory.update(0.0)
    hover = np.sqrt(quad_params["mass"] * GRAVITY / (4 * quad_params["k_eta"]))
    initial_state = {
        "x": first["x"],
        "v": first["x_dot"],
        "q": np.array([0.0, 0.0, 0.0, 1.0]),
        "w": np.zeros(3),
        "wind": wind,
        "rotor_speeds": np.full(4, hover),
    }
    environment = Environment(
        Multirotor(quad_params, initial_state=initial_state),
        SE3Control(quad_params),
        trajectory,
        wind_profile=ConstantWind(*wind),
        sim_rate=RATE,
    )
    options = {"terminate": False, "plot": False, "animate_bool": False, "verbose": False}
    # One simulator step more than the duration: the last slot ends on a sample of its own.
    return environment.run(t_final=duration + 1.5 / RATE, **options)


def simulate(folder, *, num_flights=NUM_FLIGHTS, progress=None):
    """Simulate the flights that `folder` does not hold yet.

    Args:
      folder: holds one file for each flight; files that cannot be read are made again.
      num_flights: how many.
      progress: called with a line of text for each flight, or None.

    Returns:
      dict of float32 arrays [flights, slots, columns], and "wind" [flights, 3].
    """
    flights = []
    for index in range(num_flights):
        path = Path(folder) / f"flight-{index:03d}.npz"
        try:
            flight, _ = storage.read_arrays(path)
        except (FileNotFoundError, storage.CorruptFileError):
            flight = simulate_flight(index)
            storage.write_arrays(path, flight, description={"flight": index, "seed": SEED})
        flights.append(flight)
        if progress is not None:
            progress(f"flight {index + 1} of {num_flights}")
    return {name: np.stack([flight[name] for flight in flights]) for name in flights[0]}


def main(arguments=None):
    """Simulate all flights and write the file that the loader reads."""
    from tfp_gaps.book.data import store, uav

    parser = argparse.ArgumentParser(description="Simulate the flights of the UAV data set.")
    parser.add_argument("--parts", type=Path, default=store.cache_folder() / "flights")
    parser.add_argument("--output", type=Path, default=uav.FLIGHTS)
    options = parser.parse_args(arguments)
    arrays = simulate(options.parts, progress=lambda line: print(line, file=sys.stderr))
    storage.write_atomically(options.output, store.compress(arrays))
    print(f"{options.output}: array bytes have SHA-256 {store.digest_of_arrays(arrays)}")


if __name__ == "__main__":
    main()
