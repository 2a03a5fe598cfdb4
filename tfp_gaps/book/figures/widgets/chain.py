"""The linear-Gaussian chain, to touch: a filter step by step, and where learning drifts.

Everything is exact (`tfp_gaps.exact.linear_gaussian`): the filter, the smoother of what was seen so
far, and the best partial q, which has the filter's knowledge and claims the smoother's precision.
"""

import json

import numpy as np
from contourpy import contour_generator
from IPython.display import HTML
from scipy import interpolate, stats

from tfp_gaps import _checks
from tfp_gaps.book.figures import drawing, page, sliders
from tfp_gaps.book.figures.widgets import drift_data
from tfp_gaps.exact import linear_gaussian as exact

QUANTILE = stats.norm.ppf(0.975)
"""Half the width of a 95 % band, in standard deviations."""

BANDS = (
    ("filter", "filter", "#8a8a8a"),  # grey: the state itself is black
    ("partial", "best partial q", "partial"),
    ("smoother", "smoother of what is revealed", "full"),
)

LEVELS = (0.001, 0.003, 0.01, 0.03, 0.1)
"""How far below the top the contours of the drift lie, nats per step."""


def scrub_filter(model=None, num_timesteps=60, seed=73):
    """Reveal a sequence step by step, with three bands and a count of how often each misses.

    Args:
      model: a `LinearGaussian` with one state and one channel; None for the slow chain
        (a = .99, Q = .01, R = 1).
      num_timesteps: T.
      seed: of the sequence. With seed 73 filter, partial q and smoother miss 2, 10 and 2 of the 60
        steps, near what is expected: 3, 13 and 3.

    Returns:
      `IPython.display.HTML`.

    Raises:
      ValueError: for a model of another size, or a bad T.

    >>> scrub_filter(num_timesteps=4).data.count('type="checkbox"')
    3
    """
    if model is None:
        model = exact.LinearGaussian.stationary(0.99, 0.01, 1.0, 1.0)
    if (model.state_size, model.observation_size) != (1, 1):
        raise ValueError(
            f"model must have one state and one channel, but has {model.state_size} and "
            f"{model.observation_size}. A band of one line is drawn."
        )
    steps = _checks.integer(num_timesteps, "num_timesteps", minimum=2)
    data = revealed(model, steps, seed)
    content = (
        drawing.picture(_filter_picture(data))
        + page.legend(
            [
                ("truth", "state z (large dots: outside partial q)"),
                ("truth", "observations", "0 17"),
                *((colour, f"{label}: 95 % band") for _, label, colour in BANDS),
            ]
        )
        + _filter_controls(steps)
        + page.state("The controls need JavaScript. The picture shows the whole sequence.")
    )
    missed = 1 - exact.online_filter(model, steps).coverage(0.95).mean()
    shown = data | {"start": max(1, steps // 3), "expected": round(100 * missed)}
    return HTML(page.widget("scrub-filter", content, page.own_script("scrubber"), data=shown))


def revealed(model, num_timesteps, seed):
    """What the scrubber shows: a sequence, and the means and half widths of its bands.

    Returns:
      dict with `states` and `observations`, lists of T; `bands`, for "filter" and "partial" the
      means and the half widths; `smoothed`, the same of the smoother of x_{1:t} for each t.
    """
    states, x = exact.sample(model, num_timesteps, 1, seed)
    partial = exact.shared_factors(model, model, num_timesteps, 0)

    def band(found):
        half = QUANTILE * np.sqrt(found.covariances[:, 0, 0])
        return [_rounded(found.means[:, 0, 0]), _rounded(half)]

    def smoother(stop):
        factors = exact.shared_factors(model, model, stop, None)
        return exact.factor_marginals(factors, x[:stop])

    return {
        "states": _rounded(states[:, 0, 0]),
        "observations": _rounded(x[:, 0, 0]),
        "bands": {
            "filter": band(exact.kalman_filter(model, x)),
            "partial": band(exact.factor_marginals(partial, x)),
        },
        "smoothed": [band(smoother(stop)) for stop in range(1, num_timesteps + 1)],
    }


def _filter_picture(data):
    """The whole sequence, revealed."""
    steps = len(data["states"])
    bands = data["bands"] | {"smoother": data["smoothed"][-1]}
    ends = np.concatenate([np.add(m, s * np.array(h)) for m, h in bands.values() for s in (-1, 1)])
    room = 0.1 * np.ptp(ends)
    axes = drawing.Axes((0, steps + 1), (ends.min() - room, ends.max() + room), height=280)
    t, drawn = np.arange(1, steps + 1), ""
    # The smoother is an outline: three areas on top of one another could not be told apart.
    for (key, _, colour), opacity in zip(BANDS, (0.35, 0.4, None), strict=True):
        middle, half = np.array(bands[key])
        drawn += axes.band(t, middle - half, middle + half, colour, key=key, opacity=opacity)
    states = np.array(data["states"])
    missed = np.abs(states - bands["partial"][0]) > bands["partial"][1]
    drawn += axes.dots(t, data["observations"], "truth", size=5, opacity=0.5, key="observations")
    drawn += axes.line(t, states, "truth", width=3, key="states")
    drawn += axes.dots(t[missed], states[missed], "truth", size=11, key="missed")
    spoken = (
        f"A state over {steps} steps, its observations, and three 95 percent bands. The band of "
        f"the partial q is as narrow as a smoother's; the state leaves it at {missed.sum()} steps."
    )
    return drawing.svg(axes.bottom, axes.frame("time step t", "state z", drawn), spoken)


def _filter_controls(steps):
    """The steps, the bands that are shown, and the counters of misses."""
    boxes = "".join(
        f'<label><input type="checkbox" value="{key}" checked>{key.replace("partial", "partial q")}'
        "</label>"
        for key, *_ in BANDS
    )
    return page.controls(
        page.slide("scrub-step", "Steps revealed", 1, steps, 1, steps, f"{steps} of {steps}")
        + '<button type="button" class="next">Next step</button>'
        + '<button type="button" class="play">Play</button>'
        + f"<fieldset><legend>Show</legend>{boxes}</fieldset>"
    ) + page.meters(
        [(key, label.split(" of ")[0], colour) for key, label, colour in BANDS],
        40,
        "steps at which the state left the band, % (mark: 5 %)",
    )


def learning_drift():
    """Slide the look-ahead, and see where learning takes memory a and sensor noise R.

    The numbers are those of `drift_data`, for the standard chain (a = .9, Q = .1, R = 1), T = 8.

    Returns:
      `IPython.display.HTML`.

    >>> learning_drift().data.count('type="range"')
    1
    """
    stored = json.loads(drift_data.PATH.read_text(encoding="utf-8"))
    # With full conditions the bound is the likelihood.
    bounds = [*stored["elbo"], stored["likelihood"]]
    truth = drift_data.likelihood(0.9, 1.0)
    frames = []
    for place, (memory, noise) in enumerate(stored["learned"]):
        lost = truth - drift_data.likelihood(memory, max(noise, drift_data.NOISES[0]))
        picture = _drift_picture(stored, bounds[place], place)
        words = (f"{memory:.2f}", f"{max(noise, 0.0):.2f}", f"{max(lost, 0.0):.4f}")
        frames.append(sliders.Frame(picture, words))
    return HTML(
        sliders.slider(
            "learning-drift",
            [("Look-ahead k of q", [_name(k) for k in drift_data.LOOK_AHEADS])],
            ["learned memory a", "learned sensor noise R", "likelihood lost, nats per step"],
            frames,
            legend=[
                ("truth", "log-likelihood: contours, and its top, the truth"),
                ("partial", "ELBO: contours, and its top, what is learned"),
            ],
        )
    )


def _drift_picture(stored, bound, place):
    limits = [(0.0, 1.0), (-0.02, 1.3)]
    axes = drawing.Axes(*limits, height=340)
    content = _contours(axes, stored["likelihood"], "truth", dash="3 4", width=1.6)
    content += _contours(axes, bound, "partial", width=2.4)
    path = np.array(stored["learned"])
    content += axes.line(*path[: place + 1].T, "partial", width=1.6)
    content += axes.dots(*path[:place].T, "partial", size=7)
    content += axes.dots([0.9], [1.0], "truth", size=17)
    content += axes.dots(*path[[place]].T, "partial", size=13)
    memory, noise = path[place]
    spoken = (
        f"Look-ahead {_name(drift_data.LOOK_AHEADS[place])}: learning ends at memory a = "
        f"{memory:.2f} and sensor noise R = {max(noise, 0):.2f}; the truth is a = 0.90, R = 1.00. "
        f"Contours {', '.join(f'{level:g}' for level in LEVELS)} nats per step below the top."
    )
    drawn = axes.frame("memory a", "sensor noise R (variance)", content)
    return drawing.svg(axes.bottom, drawn, spoken)


def _contours(axes, heights, colour, **look):
    """Contours at `LEVELS` below the highest value on the grid."""
    rows, columns = drift_data.NOISES, drift_data.MEMORIES
    fine_rows, fine_columns = (np.linspace(each[0], each[-1], 60) for each in (rows, columns))
    heights = interpolate.RectBivariateSpline(rows, columns, heights)(fine_rows, fine_columns)
    generator = contour_generator(fine_columns, fine_rows, heights)
    return "".join(
        axes.line(*line.T, colour, **look)
        for level in LEVELS
        for line in generator.lines(heights.max() - level)
    )


def _name(lookahead):
    return "all" if lookahead is None else str(lookahead)


def _rounded(values):
    return np.round(values, 4).tolist()
