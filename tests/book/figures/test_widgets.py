"""Widgets in a real browser: moved by mouse, finger and keys, right, seen by day and by night."""

import json
import re

import numpy as np
import pytest

from tfp_gaps._tensorflow import tfp
from tfp_gaps.book.figures import COLOURS, drawing, page, sliders, widgets
from tfp_gaps.book.figures.widgets import chain, drift_data
from tfp_gaps.exact import linear_gaussian as exact
from tfp_gaps.exact.bit import Bit

tfd = tfp.distributions
SEPARATED = Bit([-2.0, 2.0], [0.5, 0.5], [0.5, 0.5])
UNEVEN = Bit([-1.0, 1.5], [1.0, 0.4], [0.3, 0.7])
SLOW = exact.LinearGaussian.stationary(0.99, 0.01, 1.0, 1.0)
MAKERS = {
    "be-the-network": lambda: widgets.be_the_network().data,
    "swap-log-and-expectation": lambda: widgets.swap_log_and_expectation().data,
    "scrub-filter": lambda: widgets.scrub_filter().data,
    "learning-drift": lambda: widgets.learning_drift().data,
    "bit-slider": sliders.bit_slider,
}


@pytest.fixture(scope="module", params=MAKERS)
def each(request):
    """(identifier, HTML) of every widget."""
    return request.param, MAKERS[request.param]()


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_lines_stand_out_from_the_night():
    """WCAG asks for 3 : 1 from graphics, and the ground is #121212; a filler may be less."""
    assert set(COLOURS.values()) <= set(page.NIGHT)
    for day, light in page.NIGHT.items():
        contrast = (luminance(light) + 0.05) / (luminance("#121212") + 0.05)
        assert contrast > (3 if day in COLOURS.values() else 2), day


# --- every widget --------------------------------------------------------------------------------

_OUTSIDE = """Array.from(document.querySelectorAll(".picture > svg text")).filter((text) => {
  const box = text.getBoundingClientRect();
  const frame = text.closest(".picture").getBoundingClientRect();
  return box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1;
}).map((text) => text.textContent)"""


_RIGHT = """Math.max(...Array.from(document.querySelectorAll(".tale, .tale :not(svg *)")).map(
  (part) => part.getBoundingClientRect().right))"""


def test_a_widget_is_small_loads_nothing_and_never_complains(show, each):
    name, content = each
    assert len(content.encode()) < page.MAXIMUM_BYTES
    assert not re.search(r"https?:|\bsrc=|@import|url\(", content)
    browser = show(content)
    said = browser.until(f"document.querySelector('#{name} .state').textContent")
    assert len(said) > 40
    assert browser.complaints == []
    assert not [url for url in browser.requests if not url.startswith(("file:", "data:"))]
    # Every control has a name, and every picture its words.
    assert browser.ask(
        "Array.from(document.querySelectorAll('.tale input')).every((e) => e.labels.length === 1)"
    )
    assert browser.ask(
        "Array.from(document.querySelectorAll('.picture > svg')).every("
        "(e) => e.getAttribute('aria-label').length > 40)"
    )


def test_a_widget_fits_a_phone(show, each):
    browser = show(each[1], width=390)
    assert browser.ask("document.documentElement.scrollWidth") <= 390
    assert browser.ask(_RIGHT) <= 390  # what is wider would scroll inside of its cell
    assert browser.ask(_OUTSIDE) == []
    assert browser.ask(
        "document.querySelector('.tale .picture > svg text').getClientRects().length"
    )
    # Letters of 24 units on 600: at least 11 pixels.
    size = browser.ask("document.querySelector('.picture > svg').clientWidth") * 24 / 600
    assert size > 11


def test_a_widget_changes_its_colours_at_night(show, each):
    seen = {}
    for theme in ("light", "dark"):
        browser = show(each[1], theme=theme)
        seen[theme] = browser.ask(
            "['.axis', '.line', 'svg text'].map((part) => {"
            "const style = getComputedStyle(document.querySelector('.picture ' + part));"
            "return part === 'svg text' ? style.fill : style.stroke;})"
        )
    assert all(day != night for day, night in zip(seen["light"], seen["dark"], strict=True))


def test_without_scripts_there_is_a_picture_with_words(show, each):
    browser = show(each[1], scripts=False)
    assert browser.ask("document.querySelector('.picture > svg').clientHeight") > 150
    live = "Array.from(document.querySelectorAll('[data-live]'))"
    assert browser.ask(f"{live}.length") > 0
    assert browser.ask(f"{live}.every((e) => e.offsetHeight === 0)")
    assert "JavaScript" in browser.ask("document.querySelector('noscript').textContent")


# --- be the network ------------------------------------------------------------------------------

_Q = """(() => { const d = document.querySelector("#be-the-network").dataset;
  return ["mean", "sd", "first", "second", "both"].map((name) => Number(d[name])); })()"""


def said(browser, words):
    """Wait for the words of a widget to hold these, and return them."""
    state = "document.querySelector('.state').textContent"
    browser.until(f"{state}.includes({json.dumps(words)})")
    return browser.ask(state)


def assert_right(found, world, forward=False):
    """What the page computed is what the package computes."""
    mean, sd, *shown = found
    q, full = tfd.Normal(np.float64(mean), np.float64(sd)), world.full_posteriors()
    pairs = (full, q) if forward else (q, full)
    expected = tfd.kl_divergence(*pairs).numpy()
    expected = [*expected, world.probs @ expected]
    np.testing.assert_allclose(shown, expected, rtol=0, atol=1e-6)
    if not forward:  # by quadrature
        assert shown[2] == pytest.approx(world.cost_of(q), abs=1e-6)


@pytest.mark.parametrize("touch", [False, True])
def test_a_drag_takes_the_peak_of_q_along(show, touch):
    browser = show(widgets.be_the_network().data, width=390 if touch else 1000)
    before = browser.ask(_Q)
    assert_right(before, SEPARATED)
    start = browser.middle(".handle")
    # Pixels of a unit of z and of a unit of density.
    unit = browser.ask("document.querySelector('.picture > svg').clientWidth") / 600
    across, up = 520 * unit / 10, 260 * unit / (1.3 * 2 / np.sqrt(2 * np.pi))
    browser.drag(start, (start[0] - 2 * across, start[1] - 0.3 * up), touch=touch)
    mean, sd, *_ = after = browser.ask(_Q)
    assert_right(after, SEPARATED)
    # One pixel is .03 of z and .006 of the density on the phone.
    assert mean == pytest.approx(before[0] - 2, abs=0.05)
    height = 1 / (np.sqrt(2 * np.pi) * np.array([before[1], sd]))
    assert height[1] - height[0] == pytest.approx(0.3, abs=0.02)
    assert f"width {sd:.2f}" in said(browser, f"mean {mean:.2f}".replace("-", "−"))


def test_keys_move_q(show):
    browser = show(widgets.be_the_network(UNEVEN).data)
    before = browser.ask(_Q)
    browser.ask("document.querySelector('.handle').focus()")
    for key in ("ArrowLeft", "ArrowLeft", "ArrowUp"):
        browser.press(key)
    after = browser.ask(_Q)
    assert_right(after, UNEVEN)
    assert after[0] == pytest.approx(before[0] - 0.2) and after[1] < before[1]
    browser.ask("document.querySelector('#network-sd').focus()")
    browser.press("ArrowRight")
    assert browser.ask(_Q)[1] > after[1]
    assert_right(browser.ask(_Q), UNEVEN)
    words = browser.ask("document.querySelector('.handle').getAttribute('aria-valuetext')")
    assert words == f"mean {after[0]:.2f}, width {browser.ask(_Q)[1]:.2f}".replace("-", "−")


@pytest.mark.parametrize("world", [SEPARATED, UNEVEN])
def test_the_button_descends_to_teal_and_to_orange(show, world):
    reduced = [("prefers-reduced-motion", "reduce")] if world is UNEVEN else []
    browser = show(widgets.be_the_network(world).data, media=reduced)
    for forward, best in ((False, world.shared_posterior()), (True, world.moment_matched())):
        if forward:
            browser.click("input[value=forward]")
        assert "more than the least" in said(browser, "KL(p₀" if forward else "KL(q")
        browser.click("button.descend")
        words = said(browser, "on average: the least possible")
        last = None
        while last != (last := browser.ask(_Q)):
            browser.call("Runtime.evaluate", expression=_PAUSE, awaitPromise=True)
        assert_right(last, world, forward)
        np.testing.assert_allclose(last[:2], [best.loc, best.scale], rtol=0, atol=1e-3)
        assert ("the mean and the variance of the mixture" in words) == forward
        stroke = browser.ask("getComputedStyle(document.querySelector('[data-key=q]')).stroke")
        colour = COLOURS["moment_matched" if forward else "shared"]
        assert stroke == "rgb({}, {}, {})".format(*(int(colour[i : i + 2], 16) for i in (1, 3, 5)))
    assert browser.complaints == []


_PAUSE = "new Promise((done) => setTimeout(done, 200))"


@pytest.mark.parametrize("make", [widgets.be_the_network, widgets.swap_log_and_expectation])
def test_one_posterior_is_refused(make):
    with pytest.raises(ValueError, match="two full posteriors"):
        make(Bit([0.0], [1.0], [1.0]))


# --- swap log and expectation --------------------------------------------------------------------


@pytest.mark.parametrize("world", [SEPARATED, UNEVEN])
def test_both_averages_are_those_of_the_package(show, world):
    browser = show(widgets.swap_log_and_expectation(world).data)
    numbers = (
        "(() => { const d = document.querySelector('.tale').dataset;"
        "return ['mixture', 'meanLog', 'shown'].map((name) => Number(d[name])); })()"
    )
    for switch, law in ((None, world.marginal_posterior()), ("log", world.shared_posterior())):
        if switch:
            browser.click(f"input[value={switch}]")
        browser.ask("document.querySelector('#swap-place').focus()")
        browser.press("ArrowLeft")
        z = browser.ask("Number(document.querySelector('#swap-place').value)")
        mixture, mean_log, shown = browser.ask(numbers)
        assert mixture == pytest.approx(float(world.marginal_posterior().prob(z)), rel=1e-9)
        assert mean_log == pytest.approx(world.probs @ world.full_posteriors().log_prob(z).numpy())
        assert shown == pytest.approx(float(law.prob(z)), rel=1e-9)
    assert "the shared posterior" in said(browser, "The average of ln p")
    hidden = "getComputedStyle(document.querySelector('[data-average=p]')).display"
    assert browser.ask(hidden) == "none"


# --- the chain -----------------------------------------------------------------------------------


def test_bands_are_those_of_the_joint_gaussian():
    """z given any x is a regression in the joint Gaussian of a sequence."""
    data = chain.revealed(SLOW, 12, seed=3)
    steps = np.arange(12)
    prior = 0.99 ** np.abs(steps[:, None] - steps) * SLOW.initial_cov.item()
    for stop in (1, 5, 12):
        gain = prior[:stop, :stop] @ np.linalg.inv(prior[:stop, :stop] + np.eye(stop))
        half = 1.959964 * np.sqrt(np.diag(prior[:stop, :stop] - gain @ prior[:stop, :stop]))
        mean = gain @ np.array(data["observations"][:stop])
        # Four decimals are stored, of the observations too.
        np.testing.assert_allclose(data["smoothed"][stop - 1], [mean, half], atol=3e-4)
        now = np.array(data["bands"]["filter"])[:, stop - 1]
        np.testing.assert_allclose(now, [mean[-1], half[-1]], atol=3e-4)
    claimed = exact.online_filter(SLOW, 12).claimed_cov[:, 0, 0]
    np.testing.assert_allclose(data["bands"]["partial"][1], 1.959964 * claimed**0.5, atol=1e-4)


def test_the_counter_counts_the_misses_of_what_is_revealed(show):
    browser = show(widgets.scrub_filter(num_timesteps=24, seed=3).data)
    data = chain.revealed(SLOW, 24, seed=3)
    counts = (
        "(() => { const d = document.querySelector('.tale').dataset;"
        "return ['filter', 'partial', 'smoother'].map((name) => Number(d[name])); })()"
    )
    start = browser.ask("Number(document.querySelector('#scrub-step').value)")
    browser.click("button.next")
    browser.ask("document.querySelector('#scrub-step').focus()")
    for step in (start + 1, start + 2):
        bands = [data["bands"][name] for name in ("filter", "partial")]
        bands.append(data["smoothed"][step - 1])
        states = np.array(data["states"][:step])
        expected = [
            int(np.sum(np.abs(states - middle[:step]) > half[:step])) for middle, half in bands
        ]
        assert browser.ask(counts) == expected
        outputs = "Array.from(document.querySelectorAll('.meter output'))"
        shown = browser.ask(f"{outputs}.map((output) => output.textContent)")
        # A bar that would leave its axis says so.
        assert shown == [
            f"{'› ' if count > 0.4 * step else ''}{count} of {step}" for count in expected
        ]
        said(browser, f"After {step} steps")
        browser.press("ArrowRight")
    browser.click("button.play")
    said(browser, "After 24 steps")
    browser.click("input[value=smoother]")
    assert browser.ask("document.querySelector('[data-key=smoother]').getAttribute('d')") == ""


def test_a_chain_of_two_states_is_refused():
    with pytest.raises(ValueError, match="one state"):
        widgets.scrub_filter(
            exact.LinearGaussian.stationary(0.5 * np.eye(2), np.eye(2), np.eye(2), np.eye(2))
        )


def stored():
    return json.loads(drift_data.PATH.read_text(encoding="utf-8"))


def test_the_stored_heights_are_those_of_the_package():
    found = stored()
    for row, column in ((0, 3), (13, 11), (26, 23)):
        place = drift_data.MEMORIES[column], drift_data.NOISES[row]
        heights = [bound[row][column] for bound in found["elbo"]]
        expected = [drift_data.elbo(*place, k) for k in drift_data.LOOK_AHEADS[:-1]]
        np.testing.assert_allclose(heights, expected, rtol=0, atol=6e-6)  # five decimals
        assert found["likelihood"][row][column] == pytest.approx(
            drift_data.likelihood(*place), abs=6e-6
        )


def test_learning_ends_on_top_of_the_plane():
    for k, (memory, noise) in zip(drift_data.LOOK_AHEADS, stored()["learned"], strict=True):
        noise = max(noise, drift_data.NOISES[0])
        top = drift_data.elbo(memory, noise, k)
        for a, r in ((0.02, 0), (-0.02, 0), (0, 0.02), (0, -0.02)):
            if noise + r > 0:
                assert drift_data.elbo(memory + a, noise + r, k) < top
    learned = exact.learn(drift_data.WORLD, drift_data.NUM_TIMESTEPS, 1)
    ours = [learned.transition.item(), learned.emission_cov.item()]
    np.testing.assert_allclose(ours, stored()["learned"][1], atol=1e-3)
    free = exact.population_elbo(drift_data.WORLD, learned, drift_data.NUM_TIMESTEPS, 1)
    plane = drift_data.elbo(*ours, 1)
    assert -1e-9 < free / drift_data.NUM_TIMESTEPS - plane < 1e-5


def test_look_ahead_leads_from_the_drift_to_the_truth(show):
    browser = show(widgets.learning_drift().data)
    said(browser, "Look-ahead 0")
    browser.ask("document.querySelector('#learning-drift-0').focus()")
    for _ in drift_data.LOOK_AHEADS[1:]:
        browser.press("ArrowRight")
    assert "a = 0.90 and sensor noise R = 1.00" in said(browser, "Look-ahead all")
    numbers = "Array.from(document.querySelectorAll('dd')).map((e) => e.textContent)"
    assert browser.ask(numbers) == ["0.90", "1.00", "0.0000"]


def test_limits_are_in_order():
    with pytest.raises(ValueError, match="low < high"):
        drawing.limits((1, 0), "limits")
