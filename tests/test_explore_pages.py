"""The landscape explorer as a page: JavaScript equal to the Python; play, start, settings, theme and width."""

import math

import lab
import pytest
import torch
from explorer_page import PHONE, fits_a_phone, pages, paste, picture, settings_of

from ebwm.explore.scenes import Settings, analytic_scenes
from ebwm.explore.walks import SAMPLERS
from ebwm.randomness import SubsetNoise
from ebwm.sampler import State, evaluate
from ebwm.settings import generator

pytestmark = pytest.mark.slow
PANEL = ".ex-panel canvas"
STARTS = {"double well": (0.3, 1.2), "quadratic": (-2.0, 1.0), "mixture": (-0.3, 0.2), "banana": (-1.0, 1.2)}
STEPS, SIZES = 40, {"double well": 0.04, "quadratic": 0.1, "mixture": 0.3, "banana": 0.02}
WALKS = """async ({name, sampler, settings, numbers, start, steps}) => {
    const {ENERGIES, SAMPLERS, recordedStream} = await import('/_static/explore/landscape.js');
    const energy = ENERGIES[name], stream = recordedStream(numbers), made = [];
    let state = {y: start, velocity: [0, 0]};
    for (let i = 0; i < steps; i++) {
        state = SAMPLERS[sampler](energy, state, settings, stream);
        made.push([...state.y, state.energy, ...energy.gradient(state.y), Number(state.accepted)]);
    }
    return made;
}"""
BINS = """async ([name, temperature]) => {
    const {ENERGIES, marginalBins} = await import('/_static/explore/landscape.js');
    const {centre: [x, y], halfWidth} = ENERGIES[name];
    return [x - halfWidth, x + halfWidth, marginalBins(ENERGIES[name], temperature, 40)];
}"""
HEIGHTS = """async ([energies, low, high]) => {
    const {drawEnergies} = await import('/_static/explore/landscape_draw.js');
    const canvas = document.createElement('canvas');
    Object.assign(canvas.style, {width: '300px', height: '120px', display: 'block'});
    document.body.append(canvas);
    const walk = {energy: {grid: {low, high}}, energies, steps: energies.length - 1};
    drawEnergies(canvas, [walk], {theme: 'light', colours: ['#ff0000']});
    const {width, height} = canvas, {data} = canvas.getContext('2d').getImageData(0, 0, width, height);
    const red = [...Array(width * height).keys()].filter((i) => data[4 * i] > 200 && data[4 * i + 1] < 100);
    canvas.remove();
    return red.map((i) => [i % width, Math.floor(i / width) * 120 / height]);
}"""  # x, and y from the top in pixels, of the points of the curve
NUMBERS = """async ([seed, count]) => {
    const stream = (await import('/_static/explore/landscape.js')).randomStream(seed);
    return Array.from({length: count}, () => [stream.uniform(), stream.normal()]);
}"""

ENERGIES = {name: scene.slice("zeros", 0).energy for name, scene in analytic_scenes().items()}


class Recorded(SubsetNoise):
    """Random numbers that are recorded in the order in which they were drawn."""

    def __init__(self, seed):
        super().__init__(generator(seed, "walk"), 1, torch.zeros(1, dtype=torch.long))
        self.numbers = []

    def draw(self, draw, like):
        values = draw(like.shape, generator=self.generator, dtype=like.dtype)
        self.numbers += values.flatten().tolist()
        return values


@pytest.fixture(scope="module")
def module(browser):
    """A page that can import the modules."""
    with pages(browser, "landscape") as opened:
        yield opened()


@pytest.fixture
def site(browser):
    with pages(browser, "landscape") as opened:
        yield opened


@pytest.fixture
def explorer(site):
    return site()


def step_of(page, panel=0):
    """The number of steps that a panel states."""
    return int(page.locator(".ex-facts").nth(panel).inner_text().split()[1])


# The JavaScript equals the Python


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", STARTS)
def test_steps_equal_those_in_python_with_the_same_random_numbers(module, name, sampler):
    settings, energy, random = dict(step_size=SIZES[name], temperature=0.7, noise=0.05), ENERGIES[name], Recorded(3)
    kernel, state, expected = SAMPLERS[sampler](Settings(**settings)), State(torch.tensor(STARTS[name]).double()), []
    for _ in range(STEPS):
        state, info = kernel(energy, state, generator=random)
        there = evaluate(energy, state.y)
        expected.append([*there.y.tolist(), float(there.energy), *there.grad.tolist(), float(info.accepted)])
    found = module.evaluate(WALKS, dict(name=name, sampler=sampler, settings=settings, numbers=random.numbers,
                                        start=STARTS[name], steps=STEPS))
    assert torch.tensor(expected).isfinite().all() and len({row[0] for row in expected}) > 3
    torch.testing.assert_close(torch.tensor(found).double(), torch.tensor(expected).double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", STARTS)
def test_the_marginal_density_is_that_of_the_energy(module, name):
    low, high, bins = module.evaluate(BINS, [name, 0.7])
    x = torch.linspace(2 * low - high, 2 * high - low, 1200 + 1).double()[:-1] + (high - low) / 800
    y = torch.linspace(-12, 40, 1500).double()
    mass = torch.exp(-ENERGIES[name](torch.cartesian_prod(x, y)) / 0.7).reshape(1200, 1500).sum(1)
    expected = (mass / mass.sum()).reshape(3, 40, 10).sum(-1)[1]
    torch.testing.assert_close(torch.tensor(bins).double(), expected, rtol=0, atol=1e-3)


def test_random_numbers_follow_from_the_seed_and_have_the_right_law(module):
    first, again, other = (module.evaluate(NUMBERS, [seed, 5000]) for seed in (1, 1, 2))
    assert first == again != other
    uniform, normal = torch.tensor(first).double().T
    assert 0 <= float(uniform.min()) < 0.01 and 0.99 < float(uniform.max()) < 1
    assert abs(float(uniform.mean()) - 0.5) < 0.02 and abs(float(uniform.var()) - 1 / 12) < 0.005
    assert abs(float(normal.mean())) < 0.05 and abs(float(normal.var()) - 1) < 0.08
    assert abs(float((normal.abs() < 1).double().mean()) - math.erf(2**-0.5)) < 0.02


# In a browser


def test_it_moves_at_once_unless_motion_is_reduced_and_obeys_buttons_and_keys(site, explorer):
    moving = site(reduced_motion="no-preference")
    lab.wait_until(lambda: step_of(moving) > 1, moving)
    assert step_of(explorer) == 0
    explorer.get_by_role("button", name="Play or pause").click()
    lab.wait_until(lambda: step_of(explorer) > 1, explorer)
    before = picture(explorer, PANEL)
    lab.wait_until(lambda: step_of(explorer) > 3, explorer)
    assert picture(explorer, PANEL) != before
    explorer.get_by_role("button", name="Play or pause").click()
    explorer.get_by_role("button", name="Start again").click()
    explorer.locator(".ex-lesson").click()
    for key, steps in (("ArrowRight", 1), ("ArrowRight", 2), ("r", 0)):
        explorer.keyboard.press(key)
        lab.wait_until(lambda steps=steps: step_of(explorer) == steps, explorer)
    explorer.keyboard.press(" ")
    lab.wait_until(lambda: step_of(explorer) > 0, explorer)


def test_a_click_places_the_start_and_the_walk_follows(explorer):
    explorer.get_by_role("button", name="One step").click()
    canvas = explorer.locator(PANEL).last
    box = canvas.bounding_box()
    side = box["width"] - 29  # without the labels of the axis
    canvas.click(position=dict(x=26 + side / 4, y=3 + side / 2))
    found = settings_of(explorer)
    assert (found["x"], found["y"]) == pytest.approx((-2, 0), abs=0.05)
    assert explorer.get_by_label("start x").input_value() == str(found["x"]) and step_of(explorer, 1) == 1


def test_settings_are_restored_from_a_paste_and_from_the_address(site, explorer):
    second = dict(sampler="Nesterov", step_size=0.5, temperature=1, noise=0.1)
    wanted = dict(energy="quadratic", x=-1, y=1.5, seed=7, speed=20, linked=True, walks=[
        dict(sampler="HMC", step_size=0.1, temperature=0.5, noise=0), second])
    paste(explorer, wanted)
    assert settings_of(explorer) == wanted and explorer.get_by_label("Sampler 2").input_value() == "Nesterov"
    lab.wait_until(lambda: "quadratic" in explorer.url, explorer)
    assert settings_of(site(explorer.url.removeprefix(lab.SITE))) == wanted
    for given, message in (("{", "settings: must be JSON"),
                           (wanted | dict(energy="hill"), 'energy="hill": must be one of'),
                           (wanted | dict(x=None), "x=null: must be from -20 to 20"),
                           (wanted | dict(z=1), 'setting="z": must be')):
        paste(explorer, given)
        shown = explorer.get_by_role("status").inner_text()
        assert shown.startswith(message) and "\n" not in shown
        assert explorer.get_by_label("energy", exact=True).input_value() == "quadratic"


def test_samplers_are_added_removed_and_linked_and_divergence_is_named(explorer):
    explorer.get_by_role("button", name="A step too large").click()
    assert explorer.locator(".ex-panel").count() == 4
    assert explorer.get_by_role("button", name="Add a sampler").is_disabled()
    explorer.get_by_label("Remove gradient descent").first.click()
    assert explorer.locator(".ex-panel").count() == 3
    chosen = explorer.get_by_label("Sampler 2")
    chosen.focus()
    chosen.select_option("Nesterov")
    assert chosen.evaluate("(select) => select === document.activeElement")
    chosen.select_option("gradient descent")
    explorer.get_by_label("same settings for all").check()
    explorer.get_by_label("step size").first.press("End")
    assert {walk["step_size"] for walk in settings_of(explorer)["walks"]} == {2}
    assert explorer.locator("[data-name=step_size] .ex-value").all_inner_texts() == ["2"] * 3
    explorer.get_by_role("button", name="One step").click(click_count=8)
    message = "step_size=2: gradient descent diverged at step "
    lab.wait_until(lambda: explorer.get_by_role("status").inner_text().startswith(message), explorer)


@pytest.mark.parametrize("shift", [0, -30])
def test_the_curve_of_energies_is_drawn_whatever_their_sign(module, shift):
    """As high for energies below 0 as for the same ones above; one that is far too high leaves the picture upwards."""
    low, high = shift + 2, shift + 10
    points = module.evaluate(HEIGHTS, [[value + shift for value in (10, 8, 6, 4, 3)], low, high])
    heights = [y for _, y in sorted(points)]
    assert heights[0] < 20 and 75 < heights[-1] < 100
    diverged = module.evaluate(HEIGHTS, [[value + shift for value in (6, 8, 10, 1e7)], low, high])
    assert min(y for _, y in diverged) < 8


def test_the_dark_theme_has_other_colours(explorer):
    pixel = """canvas => [...canvas.getContext('2d').getImageData(canvas.width - 9, 9, 1, 1).data]"""
    corner = lambda: sum(explorer.locator(PANEL).first.evaluate(pixel)[:3])
    lab.wait_until(lambda: corner() > 500, explorer)
    explorer.evaluate("document.body.dataset.theme = 'dark'")
    lab.wait_until(lambda: corner() < 250, explorer)
    explorer.evaluate("document.body.dataset.theme = 'auto'")
    lab.wait_until(lambda: corner() > 500, explorer)
    explorer.emulate_media(color_scheme="dark")
    lab.wait_until(lambda: corner() < 250, explorer)


@pytest.mark.parametrize("name", ["landscape", "home"])
def test_nothing_is_wider_than_a_phone(browser, name):
    with pages(browser, name) as opened:
        page = opened(width=PHONE, reduced_motion="no-preference")
        for press in [example.click for example in page.locator(".ex-presets button").all()] or [lambda: None]:
            press()
            page.evaluate("() => new Promise(requestAnimationFrame)")
            assert fits_a_phone(page) and page.locator(PANEL).count() > 1
