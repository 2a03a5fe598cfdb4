"""Figures: colours that stay apart, words that travel with the picture, refusals."""

import itertools

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from tfp_gaps.book import figures

ALT = "A line that rises from 0 to 2 while x goes from 0 to 1."
WORDS = {"name": "fig-line", "caption": "A line.", "alt": ALT}

# Machado, Oliveira, Fernandes (2009), severity 1, applied to linear RGB.
VISION = {
    "typical": np.eye(3),
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(colour, vision="typical"):
    """CIE L*a*b* of a colour as seen with the given kind of vision."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(VISION[vision]) @ linear, 0, 1)
    ratio = XYZ @ seen / (XYZ @ np.ones(3))
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.fixture
def fig():
    with plt.rc_context():
        figures.style()
        fig, axes = plt.subplots()
        axes.plot([0, 1], [0, 2])
        yield fig
        plt.close(fig)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize(
    "keys",
    [
        ["posterior_a", "posterior_b", "marginal", "moment_matched", "shared", "mode_seeking"],
        ["partial", "semi", "full", "truth"],
    ],
)
def test_colours_differ_for_every_reader(vision, keys):
    # A distance of 20 is about nine just-noticeable differences: safe for 2-point lines on white.
    colours = [lab("white"), *(lab(figures.COLOURS[key], vision) for key in keys)]
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(colours, 2)]
    assert min(distances) > 20, dict(zip(itertools.combinations(["white", *keys], 2), distances))


def test_colours_carry_the_posts_names():
    red, blue = to_rgb(figures.COLOURS["posterior_a"]), to_rgb(figures.COLOURS["posterior_b"])
    orange, teal = to_rgb(figures.COLOURS["moment_matched"]), to_rgb(figures.COLOURS["shared"])
    assert np.argmax(red) == 0 and np.argmax(blue) == 2
    assert orange[0] > orange[1] > orange[2] and teal[1] >= teal[2] > teal[0]


def test_style_sets_size_and_font():
    with plt.rc_context():
        figures.style()
        assert matplotlib.rcParams["figure.figsize"] == [6.0, 3.7]
        assert matplotlib.rcParams["font.size"] == 12


def test_show_outside_a_notebook_prints_the_alt_text(fig, capsys):
    figures.show(fig, **WORDS)
    assert capsys.readouterr().out == ALT + "\n"
    assert not plt.fignum_exists(fig.number)


def test_show_in_a_notebook_sends_picture_and_words(fig, monkeypatch):
    import IPython
    import IPython.display

    sent = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: object())
    monkeypatch.setattr(
        IPython.display, "display", lambda data, **kwargs: sent.append((data, kwargs))
    )
    figures.show(fig, **WORDS | {"caption": "A line\n  with $x$."})
    [(data, kwargs)] = sent
    assert data["image/png"].startswith(b"\x89PNG") and data["text/plain"] == ALT
    assert int.from_bytes(data["image/png"][16:20], "big") == 1200  # 6 inches at 200 dpi
    assert kwargs["metadata"]["image/png"] == {"width": 600}
    assert kwargs["metadata"]["tfp_gaps"] == WORDS | {
        "caption": "A line with $x$.",
        "plotted": {"axes 1, line 1": "2 x 2 | 0 1 0 1 0.5 | 0 2 0 2 1 | 676b8927d77d2a73"},
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "bit"}, "must look like"),
        ({"name": "fig-Bit"}, "must look like"),
        ({"name": "fig-"}, "must look like"),
        ({"name": None}, "must look like"),
        ({"caption": " "}, "caption must be a non-empty string"),
        ({"caption": "The gap is nan nats."}, "'nan'"),
        ({"alt": None}, "alt must be a non-empty string"),
        ({"alt": "Too short."}, "at least 40"),
        ({"alt": ALT + " The end is at -inf."}, "'inf'"),
        ({"alt": ALT + " The peak is at None."}, "'None'"),
    ],
)
def test_show_refuses_missing_or_uncomputed_words(fig, change, message):
    with pytest.raises(ValueError, match=message):
        figures.show(fig, **WORDS | change)
    assert plt.fignum_exists(fig.number)  # refused before anything happened


def test_words_that_only_contain_nan_or_inf_are_fine(fig):
    figures.show(fig, **WORDS | {"caption": r"Infinity, finance, $\inf_q$, information."})


def test_show_refuses_what_is_no_figure():
    with pytest.raises(ValueError, match="must be a Matplotlib figure, but is a list"):
        figures.show([], **WORDS)
