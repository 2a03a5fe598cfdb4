"""Many simulated flights of a quadrotor at once, closed-loop or excited from outside.

The dynamics and parameters are those of the Hummingbird in the simulator rotorpy (Folk, Paulos,
Kumar 2023), which flies one vehicle at a time; here an array holds thousands of them:

    m v' = R (sum_i T_i e_3 + H_i - |a| C a) - m g e_3,   a = R^T (v - wind),
    I w' = sum_i r_i x (T_i e_3 + H_i) + k_m sum_i d_i s_i^2 e_3 - w x I w,
    T_i = k_eta s_i^2 + k_h |a_i|_xy^2,   H_i = -s_i K a_i,   a_i = a + w x r_i,

with rotor speeds s that follow their commands with a lag of 5 ms, by steps of fourth order.

"closed-loop": the controller of Lee, Leok, McClamroch (2010), which knows the true state, tracks
three-dimensional Lissajous curves as in the set of 140. What it commands tells what it knows:
later controls carry information about the state. "open-loop": commands are drawn beforehand, normal
around hovering, constant during a slot and independent from slot to slot. Given the state and the
control of a step, all later controls are independent of what is hidden, so that they leak nothing.
"""

import numpy as np

RATE, SLOT = 100, 10  # steps per second, and per slot
SPLIT = (1500, 100, 400)  # training, validation and test flights, in order
NUM_FLIGHTS = sum(SPLIT)
SEEDS = {"closed-loop": 20261201, "open-loop": 20261202}
WIND_SD = 1.5  # m/s, each axis
SLOTS = {"closed-loop": 100, "open-loop": 50}  # kept of each flight
WARM_UP = {
    "closed-loop": 2.0,
    "open-loop": 0.0,
}  # seconds, for the start transient of the controller
DECIMALS = 4  # kept, so that another machine's last bits do not matter

# The Hummingbird, in SI units; rotors front left, front right, back right, back left.
MASS, GRAVITY = 0.5, 9.81
INERTIA = np.array([0.00365, 0.00368, 0.00703])
ROTORS = 0.12020815 * np.array([[1, 1, 0], [1, -1, 0], [-1, -1, 0], [-1, 1, 0]])
DIRECTIONS = np.array([1, -1, 1, -1])
DRAG = np.array([0.005, 0.005, 0.01])
ROTOR_DRAG = np.array([0.000119, 0.000119, 0.000232])
K_ETA, K_M, K_H = 5.57e-6, 1.36e-7, 0.00339
MOTOR_LAG, FASTEST = 0.005, 1500.0
HOVER = np.sqrt(MASS * GRAVITY / (4 * K_ETA))  # rad/s
# Total thrust and moments from the thrusts of the rotors, and back.
ALLOCATION = np.stack([np.ones(4), ROTORS[:, 1], -ROTORS[:, 0], K_M / K_ETA * DIRECTIONS])
TO_ROTORS = np.linalg.inv(ALLOCATION)
KP_POSITION, KD_POSITION = np.array([6.5, 6.5, 15.0]), np.array([4.0, 4.0, 9.0])
KP_ATTITUDE, KD_ATTITUDE = 544.0, 46.64
# Noise of one sample: rotorpy's sensors at this rate.
ACCEL_SD, GYRO_SD = 0.038**2 * np.sqrt(RATE / 2), 0.01**2 * np.sqrt(RATE / 2)
MOCAP_SD = 0.0035  # m
# Open loop. Moments drive a random walk of the rates: after 5 s a vehicle tilts by .1 radian, by
# .25 at most, and flies at 2.6 m/s.
EXCITED_LIFT = 0.5  # m/s^2
EXCITED_TURN = 0.1  # rad/s^2, each axis
START_SD = {"position": 0.5, "velocity": 1.0, "tilt": 0.05, "rates": 0.03}  # SI units


def simulate(kind, *, num_flights=NUM_FLIGHTS, at_once=250):
    """Fly all flights of a kind; a few of them are the same as the first of many.

    Args:
      kind: "closed-loop" or "open-loop".
      num_flights: how many.
      at_once: how many in one array; changes the memory it takes, and nothing else.

    Returns:
      dict of float32 arrays [flights, slots, columns] as tools/simulate_flights.py keeps them, and
      "wind" [flights, 3]; in "open-loop" flights "rotor_speeds" are the commands.
    """
    flown = []
    for first in range(0, num_flights, at_once):
        numbers = range(first, min(first + at_once, num_flights))
        flown.append(_simulate(kind, [np.random.default_rng([SEEDS[kind], n]) for n in numbers]))
    return {name: np.concatenate([part[name] for part in flown]) for name in flown[0]}


def _simulate(kind, rngs):
    """The flights that these generators draw, one each."""
    wind = np.stack([WIND_SD * rng.standard_normal(3) for rng in rngs])
    if kind == "closed-loop":
        curves = _stack(draw_curve(rng) for rng in rngs)
        state, plans = start_of(*curves), None
    else:
        state = _stack(_draw_start(rng) for rng in rngs)
        plans = np.stack([_draw_commands(rng) for rng in rngs])

    def command(step, now):
        if plans is None:
            return track(now, lissajous(*curves, step / RATE))
        return plans[:, min(step // SLOT, plans.shape[1] - 1)]

    warm_up = round(WARM_UP[kind] * RATE)
    samples = fly(state, command, wind, warm_up + SLOTS[kind] * SLOT)
    flights = _reduce(samples, warm_up, SLOTS[kind])
    flights |= _sensors(flights, rngs) | {"wind": wind}
    if plans is not None:
        flights["rotor_speeds"] = plans
    return {name: np.round(a, DECIMALS).astype(np.float32) for name, a in flights.items()}


def fly(state, command, wind, num_steps):
    """Integrate flights with commands that are constant during a step.

    Args:
      state: position, velocity, quaternion x y z w, rates, rotor speeds: [flights, 3], ..., [4].
      command: (number of the step, state) -> commanded rotor speeds [flights, 4].
      wind: [flights, 3].
      num_steps: how many.

    Returns:
      position, velocity, attitude, rotor speeds, accelerometer and gyroscope without noise, at the
      steps 0, ..., num_steps: a dict of arrays [num_steps + 1, flights, columns].
    """
    history, dt = [], 1 / RATE
    for step in range(num_steps + 1):
        *rigid, rotors = state
        commanded = np.clip(command(step, state), 0.0, FASTEST)
        slope = _slope(rigid, rotors, wind)
        specific = np.einsum("nji,nj->ni", rotation(rigid[2]), slope[1] + [0, 0, GRAVITY])
        history.append((rigid[0], rigid[1], rigid[2], rotors, specific, rigid[3]))
        # The lag's equation is linear: its solution in the middle and at the end of the step.
        half, end = (
            commanded + (rotors - commanded) * np.exp(-t / MOTOR_LAG) for t in (dt / 2, dt)
        )
        second = _slope(_moved(rigid, slope, dt / 2), half, wind)
        third = _slope(_moved(rigid, second, dt / 2), half, wind)
        fourth = _slope(_moved(rigid, third, dt), end, wind)
        total = [a + 2 * b + 2 * c + d for a, b, c, d in zip(slope, second, third, fourth)]
        rigid = _moved(rigid, total, dt / 6)
        rigid[2] = rigid[2] / np.linalg.norm(rigid[2], axis=1, keepdims=True)
        state = (*rigid, end)
    names = ("position", "velocity", "attitude", "rotor_speeds", "accel", "gyro")
    return {name: np.stack(values) for name, values in zip(names, zip(*history), strict=True)}


def _moved(state, slope, dt):
    return [part + dt * change for part, change in zip(state, slope, strict=True)]


def _slope(state, rotors, wind):
    """Derivatives of position, velocity, quaternion and rates."""
    _, velocity, attitude, rates = state
    turn = rotation(attitude)
    air = np.einsum("nji,nj->ni", turn, velocity - wind)
    local = air[:, np.newaxis] + np.cross(rates[:, np.newaxis], ROTORS)
    forces = -rotors[..., np.newaxis] * ROTOR_DRAG * local
    forces[..., 2] += K_ETA * rotors**2 + K_H * (local[..., :2] ** 2).sum(-1)
    total = forces.sum(1) - np.linalg.norm(air, axis=1, keepdims=True) * DRAG * air
    moment = np.cross(ROTORS, forces).sum(1)
    moment[:, 2] += K_M * (rotors**2 * DIRECTIONS).sum(1)
    acceleration = np.einsum("nij,nj->ni", turn, total) / MASS - [0, 0, GRAVITY]
    vector, scalar = attitude[:, :3], attitude[:, 3:]
    turning = np.concatenate(
        [scalar * rates + np.cross(vector, rates), -(vector * rates).sum(1, keepdims=True)], axis=1
    )
    return (
        velocity,
        acceleration,
        turning / 2,
        (moment - np.cross(rates, INERTIA * rates)) / INERTIA,
    )


def rotation(attitude):
    """Rotation matrices [flights, 3, 3] of quaternions x y z w, from body to world.

    >>> rotation(np.array([[0.0, 0.0, 1.0, 0.0]]))[0]
    array([[-1.,  0.,  0.],
           [ 0., -1.,  0.],
           [ 0.,  0.,  1.]])
    """
    x, y, z, w = (attitude / np.linalg.norm(attitude, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


# --- closed loop ----------------------------------------------------------------------------------


def draw_curve(rng):
    """Amplitudes (m), frequencies (rad/s) and phases of a curve, [3] each; as for the 140."""
    return (
        rng.uniform([1.0, 1.0, 0.5], [2.5, 2.5, 1.0]),
        rng.uniform(0.5, 1.2, 3),
        rng.uniform(0.0, 2 * np.pi, 3),
    )


def lissajous(amplitudes, frequencies, phases, time):
    """Position amplitude sin(frequency t + phase), velocity and acceleration: [flights, 3] each."""
    return tuple(
        amplitudes * frequencies**order * np.sin(frequencies * time + phases + order * np.pi / 2)
        for order in range(3)
    )


def start_of(amplitudes, frequencies, phases):
    """State on the curves, level and hovering."""
    position, velocity, _ = lissajous(amplitudes, frequencies, phases, 0.0)
    count = len(position)
    level = np.tile([0.0, 0.0, 0.0, 1.0], (count, 1))
    return position, velocity, level, np.zeros([count, 3]), np.full([count, 4], HOVER)


def track(state, wanted):
    """Rotor speeds that the controller commands, [flights, 4]; the heading is held at zero."""
    position, velocity, attitude, rates, _ = state
    force = MASS * (
        KP_POSITION * (wanted[0] - position)
        + KD_POSITION * (wanted[1] - velocity)
        + wanted[2]
        + [0, 0, GRAVITY]
    )
    turn = rotation(attitude)
    thrust = (force * turn[..., 2]).sum(1, keepdims=True)
    up = _unit(force)
    left = _unit(np.cross(up, [1.0, 0.0, 0.0]))
    aim = np.stack([np.cross(left, up), left, up], axis=2)
    error = np.einsum("nki,nkj->nij", aim, turn)
    error = (error - error.transpose(0, 2, 1)) / 2
    vee = np.stack([-error[:, 1, 2], error[:, 0, 2], -error[:, 0, 1]], axis=1)
    moment = INERTIA * (-KP_ATTITUDE * vee - KD_ATTITUDE * rates)
    moment = moment + np.cross(rates, INERTIA * rates)
    return _speeds(np.concatenate([thrust, moment], axis=1))


def _speeds(wrench):
    """Rotor speeds that give total thrusts and moments [..., 4]."""
    squares = wrench @ TO_ROTORS.T / K_ETA
    return np.sign(squares) * np.sqrt(np.abs(squares))


def _unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# --- open loop ------------------------------------------------------------------------------------


def _draw_start(rng):
    """State of one flight at its start: near hovering, drawn apart from all commands."""
    position, velocity, tilt, rates = (sd * rng.standard_normal(3) for sd in START_SD.values())
    attitude = _unit(np.append(tilt / 2, 1.0)[np.newaxis])[0]
    return position, velocity, attitude, rates, np.full(4, HOVER)


def _draw_commands(rng):
    """Rotor speeds of each slot, [slots, 4]."""
    scales = np.array([MASS * EXCITED_LIFT, *(INERTIA * EXCITED_TURN)])
    wrench = scales * rng.standard_normal([SLOTS["open-loop"], 4])
    wrench[:, 0] += MASS * GRAVITY
    return _speeds(wrench)


def _stack(states):
    return tuple(np.stack(parts) for parts in zip(*states, strict=True))


# --- what is kept ---------------------------------------------------------------------------------


def _reduce(samples, warm_up, num_slots):
    """Means over slots of 1/10 s, and values at their ends: [flights, slots, columns]."""
    end = warm_up + num_slots * SLOT
    kept = {}
    for name, values in samples.items():
        if name in ("rotor_speeds", "accel", "gyro"):
            part = values[warm_up:end]
            part = part.reshape(num_slots, SLOT, *part.shape[1:]).mean(1)
        else:
            part = values[warm_up + SLOT : end + 1 : SLOT]
        kept[name] = part.transpose(1, 0, 2)
    return kept


def _sensors(flights, rngs):
    """What the sensors read: a slot's mean has the noise of as many samples."""

    def noisy(name, sd):
        shape = flights[name].shape[1:]
        return flights[name] + sd * np.stack([rng.standard_normal(shape) for rng in rngs])

    return {
        "accel": noisy("accel", ACCEL_SD / np.sqrt(SLOT)),
        "gyro": noisy("gyro", GYRO_SD / np.sqrt(SLOT)),
        "mocap": noisy("position", MOCAP_SD),
    }
