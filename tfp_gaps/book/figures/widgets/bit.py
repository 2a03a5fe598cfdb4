"""The missing bit, to touch: two full posteriors p_0 and p_1, and what one q pays for both.

The ELBO asks for the q with the least average of KL(q || p_i), the normalised geometric mean of the
two; the other direction, the average of KL(p_i || q), asks for the Gaussian with the mean and the
variance of their mixture. See `tfp_gaps.exact.bit`. All formulas are closed;
`formulas.js` has them.
"""

import math

import numpy as np
from IPython.display import HTML

from tfp_gaps._tensorflow import tfp
from tfp_gaps.book.figures import drawing, page
from tfp_gaps.exact.bit import Bit

tfd = tfp.distributions

_POSTERIORS = (
    ("posterior_a", "posterior if bit = 0: p₀"),
    ("posterior_b", "posterior if bit = 1: p₁"),
)


def be_the_network(world=None):
    """Drag a Gaussian q over the two full posteriors, and read what it pays for each of them.

    Args:
      world: a `Bit` with two full posteriors; None for N(-2, .5^2) and N(2, .5^2), equally likely.

    Returns:
      `IPython.display.HTML`. Divergences in nats per datum.

    Raises:
      ValueError: if the world has not two full posteriors that both occur.

    >>> "KL(q" in be_the_network().data
    True
    """
    world = _two(world)
    # Round numbers, off both optima, of which none is given away.
    start = {"mean": float(world.locs.mean()) + 1.0, "sd": 1.0}
    axes = drawing.Axes(_reach(world), (0.0, 1.3 * _peak(world)))
    content = (
        drawing.picture(_network_picture(world, axes, start) + _handle(axes))
        + page.legend(
            [
                *_POSTERIORS,
                ("marginal", "right without the bit: their mixture", "7 5"),
                ("shared", "your q (orange when KL(p ‖ q) is asked for)"),
            ]
        )
        + _network_controls(world, axes, start)
        + page.state(
            "The controls need JavaScript. The picture shows the two posteriors, their mixture and "
            "one q between them."
        )
    )
    script = page.own_script("formulas") + page.own_script("network")
    data = {
        "world": _lists(world),
        "start": start,
        "best": _optima(world),
        "colours": [page.paint("shared"), page.paint("moment_matched")],
    }
    return HTML(page.widget("be-the-network", content, script, data=data))


def swap_log_and_expectation(world=None):
    """Switch between the average of p and the average of ln p: a mixture, or a geometric mean.

    Args:
      world: as for `be_the_network`.

    Returns:
      `IPython.display.HTML`. Log densities in nats.

    Raises:
      ValueError: as `be_the_network`.

    >>> swap_log_and_expectation().data.count('type="radio"')
    2
    """
    world = _two(world)
    place = float(world.locs[1] - world.scales[1])
    reach = _reach(world)
    content = (
        drawing.picture(_densities(world, reach) + _log_densities(world, reach))
        + page.legend(
            [
                *_POSTERIORS,
                ("marginal", "average of p: the mixture"),
                ("shared", "average of ln p (dashed), as a density (solid)", ""),
            ]
        )
        + page.controls(
            page.choice(
                "swap-average",
                "Average",
                [("p", "p, the densities"), ("log", "ln p, their logarithms")],
            )
            + page.slide("swap-place", "Look at z", *reach, 0.01, place, f"{place:.2f}")
        )
        + page.state(
            "The switch needs JavaScript. The picture shows both averages: of p, and of ln p."
        )
    )
    script = page.own_script("formulas") + page.own_script("swap")
    data = {
        "world": _lists(world),
        "scale": world.conditioning_gap(),
        "colours": [page.paint("marginal"), page.paint("shared")],
    }
    return HTML(page.widget("swap-log-and-expectation", content, script, data=data))


# --- pictures ------------------------------------------------------------------------------------


def _network_picture(world, axes, start):
    z = np.linspace(*axes.across, 401)
    density = tfd.Normal(np.float64(start["mean"]), np.float64(start["sd"])).prob(z).numpy()
    content = (
        axes.band(z, np.zeros_like(z), density, "shared", key="q-ground", opacity=0.2)
        + axes.line(z, world.marginal_posterior().prob(z), "marginal", dash="7 5", width=2.5)
        + _full(world, axes, z, np.exp)
        + axes.line(z, density, "shared", key="q", width=4.5)
    )
    drawn = axes.frame("latent z", "density", content)
    (first, second), (left, right) = world.locs, world.scales
    spoken = (
        f"Densities over z. The posterior has mean {first:g} and width {left:g} if the bit is 0, "
        f"mean {second:g} and width {right:g} if it is 1. A Gaussian q, which can be moved, begins "
        f"with mean {start['mean']:g} and width {start['sd']:g}."
    )
    return drawing.svg(axes.bottom, drawn, spoken)


def _densities(world, reach):
    axes = drawing.Axes(reach, (0.0, 1.15 * _peak(world)), height=190)
    z = np.linspace(*reach, 401)
    content = (
        _full(world, axes, z, np.exp)
        + _averages(
            axes.line(z, world.marginal_posterior().prob(z), "marginal"),
            axes.line(z, world.shared_posterior().prob(z), "shared"),
        )
        + _probe(axes, "above")
    )
    spoken = (
        "Densities over z: the two full posteriors, their mixture with a peak at each, and the "
        "shared posterior, a single peak between them."
    )
    return drawing.svg(axes.bottom, axes.frame("latent z", "density p", content), spoken)


def _log_densities(world, reach):
    log_full = world.full_posteriors().log_prob(world.locs[::-1]).numpy()
    axes = drawing.Axes(reach, (5 * math.floor(log_full.min() / 5), 3.0), height=230)
    z = np.linspace(*reach, 401)
    shared = world.shared_posterior().log_prob(z).numpy()
    content = (
        _full(world, axes, z, lambda log_density: log_density)
        + _averages(
            axes.line(z, world.marginal_posterior().log_prob(z), "marginal"),
            axes.line(z, shared, "shared")
            + axes.line(z, shared - world.conditioning_gap(), "shared", dash="8 5"),
        )
        + _probe(axes, "below")
    )
    spoken = (
        "Logarithms of the same densities: two parabolas, their average, and the logarithm of the "
        f"mixture. The average of ln p lies {world.conditioning_gap():.2f} nats below a density."
    )
    return drawing.svg(axes.bottom, axes.frame("latent z", "ln p, nats", content), spoken)


def _full(world, axes, z, change):
    """The two full posteriors, as densities or as their logarithms."""
    log_full = world.full_posteriors().log_prob(z[:, np.newaxis]).numpy().T
    return "".join(
        axes.line(z, change(row), colour)
        for row, (colour, _) in zip(log_full, _POSTERIORS, strict=True)
    )


def _averages(of_p, of_log_p):
    """Two groups, of which a script shows one."""
    return f'<g data-average="p">{of_p}</g><g data-average="log">{of_log_p}</g>'


def _probe(axes, name):
    """What a script moves: a line at one z, and a dot on each curve."""
    nowhere = axes.across[0] - 1.0
    colours = ("posterior_a", "posterior_b", "marginal")
    return axes.line([nowhere] * 2, axes.up, "marginal", width=1.2, key=f"probe-{name}") + "".join(
        axes.dots([nowhere], [axes.up[0]], colour, size=13, key=f"{name}-{i}")
        for i, colour in enumerate(colours)
    )


# --- controls ------------------------------------------------------------------------------------


def _handle(axes):
    low, high = axes.across
    return (
        '<div class="handle" data-live hidden tabindex="0" role="slider" '
        f'aria-valuemin="{low}" aria-valuemax="{high}" aria-label="Your q: drag '
        'its peak, or press left and right for the mean, up and down for the width"></div>'
    )


def _network_controls(world, axes, start):
    narrow, wide = 0.3 * world.scales.min(), 1.5 * float(world.moment_matched().scale)
    top = 5 * math.ceil(1.2 * world.cost_of(world.full_posteriors()[0]) / 5)
    return page.controls(
        page.slide(
            "network-mean", "Mean of q", *axes.across, 0.01, start["mean"], f"{start['mean']:.2f}"
        )
        + page.slide(
            "network-sd",
            "Width of q (standard deviation)",
            round(narrow, 2),
            round(wide, 2),
            0.01,
            start["sd"],
            f"{start['sd']:.2f}",
        )
        + page.choice(
            "network-direction",
            "Divergence",
            [("reverse", "KL(q ‖ p), that of the ELBO"), ("forward", "KL(p ‖ q)")],
        )
        + '<button type="button" class="descend">Descend to the least average</button>'
    ) + page.meters(
        [
            ("first", "if bit = 0", "posterior_a"),
            ("second", "if bit = 1", "posterior_b"),
            ("both", "on average", "shared"),
        ],
        top,
        "divergence in nats (mark: the least possible average)",
    )


# --- numbers -------------------------------------------------------------------------------------


def _two(world):
    """The world, or the separated example of the post."""
    if world is None:
        return Bit(locs=[-2.0, 2.0], scales=[0.5, 0.5], probs=[0.5, 0.5])
    if len(world.locs) != 2 or world.probs.min() <= 0:
        raise ValueError(
            "world must have two full posteriors that both occur, but has "
            f"{len(world.locs)} with probabilities {world.probs.tolist()}. Use another `Bit`."
        )
    return world


def _reach(world):
    """What both pictures show of z: six widths around the means, in whole numbers."""
    margin = 6 * world.scales.max()
    return math.floor(world.locs.min() - margin), math.ceil(world.locs.max() + margin)


def _peak(world):
    """Highest density of a full posterior."""
    return 1 / (world.scales.min() * math.sqrt(2 * math.pi))


def _lists(world):
    return {name: getattr(world, name).tolist() for name in ("locs", "scales", "probs")}


def _optima(world):
    """The least average of each direction, and the words for having found it."""
    matched = world.moment_matched()
    forward = world.probs @ tfd.kl_divergence(world.full_posteriors(), matched).numpy()
    return {
        "reverse": {
            "cost": world.conditioning_gap(),
            "words": "the least possible, for every network that does not see the bit. It is the "
            "conditioning gap, and q the shared posterior.",
        },
        "forward": {
            "cost": float(forward),
            "words": "the least possible. q has the mean and the variance of the mixture.",
        },
    }
