"""The policy explorer as a page: its JavaScript equals the Python; motion, pushes and settings in a browser."""

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from explorer_page import PHONE, fits_a_phone, pages, paste, picture, settings_of

from ebwm.explore.policy import POLICIES, shipped_policies
from ebwm.policy.reach import Reach

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
import explore_policy

pytestmark = pytest.mark.slow
STATES = [[0.05, -0.7, -0.1, 0.8], [0.1, -0.6, -0.1, 0.8]]
PREDICT = """async ([name, states, noise, steps]) => {
    const {Policy} = await import('/_static/explore/policy.js');
    const policy = new Policy(window.ebwmPolicy.policies[name]);
    return policy.predict(states, noise, steps);
}"""
MOVE = """async (moves) => {
    const {displaced} = await import('/_static/explore/policy.js');
    let point = {place: [0.05, -0.7], touched: false};
    return moves.map((move) => { point = displaced(point, move); return [...point.place, Number(point.touched)]; });
}"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    explore_policy.write(folder)
    return (folder / "policy_data.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def module(browser, data):
    """A page that can import the modules."""
    with pages(browser, "policy", data) as opened:
        yield opened()


@pytest.fixture
def site(browser, data):
    with pages(browser, "policy", data) as opened:
        yield opened


@pytest.fixture
def page(site):
    return site()


@pytest.mark.parametrize("name, steps", [(name, steps) for name in POLICIES for steps in (2, 16)])
def test_predictions_equal_those_in_python_with_the_same_noise(module, name, steps):
    policy = shipped_policies()[name]
    model = policy.predictor.model = copy.deepcopy(policy.model)
    rounded = {key: value.half().float() for key, value in model.state_dict().items() if value.ndim}
    model.load_state_dict(model.state_dict() | rounded)
    noise = torch.randn(1, 16, 2, generator=torch.Generator().manual_seed(0))
    policy.add_observation({"state": torch.tensor(STATES[:1])})
    policy.add_observation({"state": torch.tensor(STATES[1:])})
    context, same = policy.context(), torch.Generator().manual_seed(0)
    expected = policy.predictor.predict(context, same, steps).value
    found = module.evaluate(PREDICT, [name, STATES, noise.flatten().tolist(), steps])
    assert np.allclose(found["actions"], policy.normaliser.restore(expected)[0], atol=1e-4)
    if name == "EBT-Policy":
        energy = model.landscape(context)(expected).item()
        assert found["energy"] == pytest.approx(energy, abs=1e-4)
    else:
        assert found["energy"] is None


def test_the_point_moves_and_touches_the_obstacle_as_in_the_simulator(module):
    simulator, moves, expected = Reach(), [[0.06, 0.05], [-0.05, 0.06]] * 6 + [[0.0, 0.06]] * 3, []
    simulator.reset(0)
    simulator.x, simulator.y = 0.05, -0.7
    for move in moves:
        simulator._move(*move)
        expected.append([simulator.x, simulator.y, float(simulator.touched)])
    assert expected[-1][2] == 1.0
    assert np.allclose(module.evaluate(MOVE, moves), expected, atol=1e-9)


def test_a_step_moves_the_point_and_a_drag_pushes_it(page):
    first = picture(page, ".ex-task")
    page.get_by_role("button", name="One step").click()
    page.wait_for_function("(before) => document.querySelector('.ex-task').toDataURL() !== before", arg=first)
    assert page.locator(".ex-facts").inner_text().startswith("Step 1")
    assert settings_of(page)["pushes"] == []
    box = page.locator(".ex-task").bounding_box()
    page.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + 0.8 * box["height"])
    [[at, dx, dy]] = settings_of(page)["pushes"]
    assert at == 1 and dx > 0.3 and np.hypot(dx, dy) <= 0.5
    page.wait_for_function("() => document.querySelector('.ex-facts').textContent.startsWith('Step 2')")


TOUCHED = """([x, y]) => {
    const canvas = document.querySelector('.ex-task'), {left, top, width} = canvas.getBoundingClientRect();
    const touch = new Touch({identifier: 1, target: canvas, clientX: left + x * width, clientY: top + y * width});
    const event = new TouchEvent('touchstart', {touches: [touch], cancelable: true, bubbles: true});
    return !canvas.dispatchEvent(event);
}"""  # whether the page keeps a touch for itself, so that the browser does not scroll


def test_a_finger_pushes_from_the_point_and_scrolls_elsewhere(page):
    x, y = page.evaluate("() => ebwmPolicy.tasks[0].start.slice(0, 2)")
    assert page.evaluate(TOUCHED, [0.5 + x / 2.12, 0.5 - y / 2.12])  # the picture shows 1.06 to each side
    assert not page.evaluate(TOUCHED, [0.95, 0.05])
    assert page.locator(".ex-task").evaluate("(canvas) => getComputedStyle(canvas).touchAction") == "manipulation"


INKED = """() => {
    const canvas = document.querySelector('.ex-energies'), {width, height} = canvas;
    const {data} = canvas.getContext('2d').getImageData(0, 0, width, height);
    const isBlue = (i) => data[4 * i + 3] > 40 && data[4 * i + 2] > data[4 * i] + 60;
    const blue = [...Array(width * height).keys()].filter(isBlue);
    return [Math.min, Math.max].map((end) => end(...blue.map((i) => i % width)) / width);
}"""  # the range across the picture of what has the colour of the executed chunks, faint or not


def test_the_energies_of_the_whole_episode_are_there_at_the_first_step(page):
    page.wait_for_function(f"() => {{ const [low, high] = ({INKED})(); return low < 0.25 && high > 0.9; }}")
    assert page.locator(".ex-facts").inner_text().startswith("Step 0.")
    last = int(page.get_by_label("time").get_attribute("max"))
    page.get_by_label("time").press("End")
    shown = "(last) => document.querySelector('.ex-facts').textContent.startsWith(`Step ${last}: `)"
    page.wait_for_function(shown, arg=last)


def test_pasted_settings_are_restored_or_refused(page):
    facts, message = page.locator(".ex-facts").inner_text(), page.locator(".ex-message")
    for text, line in (('{"steps": 99}', "steps=99: must be an integer from 1 to 20"), ("{", "settings: must be JSON"),
                       ('{"pushes": [[5, 2, 0]]}', "pushes="), ('{"magic": 1}', "magic=1: unknown")):
        paste(page, text)
        assert message.inner_text().startswith(line) and page.locator(".ex-facts").inner_text() == facts
    wanted = {"policy": "Diffusion Policy", "seed": 3, "steps": 16, "samples": 4, "pushes": [[5, -0.2, 0.1]]}
    paste(page, wanted)
    assert settings_of(page) == wanted and message.inner_text() == ""
    assert page.locator(".ex-facts").inner_text().startswith("Step 5")


def test_it_moves_at_once_and_fits_a_phone(site):
    page = site(width=PHONE, reduced_motion="no-preference")
    page.wait_for_function("() => !document.querySelector('.ex-facts').textContent.startsWith('Step 0')")
    assert fits_a_phone(page)
