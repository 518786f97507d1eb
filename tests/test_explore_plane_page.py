"""The trained EBT on the landscape page: record and model equal the Python; turning, steps, starts, settings, width."""

import base64
import json
import sys
from dataclasses import replace
from pathlib import Path

import lab
import pytest
import torch
from explorer_page import PHONE, fits_a_phone, pages, paste, picture, recorded, settings_of

from ebwm.explore.walks import share_in_plane, walk

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
import explore_frames
import explore_plane

pytestmark = pytest.mark.slow
PLANE = ".ex-plane"
FACTS = """async ([clip, sampler, factor, turn, degrees]) => {
    const {fromPlane, planeEnergy, projected, shareInPlane} = await import('/_static/explore/plane.js');
    const data = window.ebwmPlane, walk = data.clips[clip].walks[sampler][factor];
    return {points: walk.places.map((place) => projected(place, degrees)), share: shareInPlane(walk, degrees),
            away: walk.places.map((place, i) => fromPlane(place, walk.rest[i], degrees)),
            truth: projected(data.clips[clip].truth, degrees), grid: planeEnergy(data, clip, turn).grid.values};
}"""


@pytest.fixture(scope="module")
def data():
    return recorded("plane", explore_plane.described)


@pytest.fixture(scope="module")
def files(page_files):
    return page_files(explore_plane.FOLDER, explore_frames.files_of("digits"), explore_frames.load)


@pytest.fixture
def site(browser, data):
    """A function that opens the page; with a size of the models, it computes walks."""
    with pages(browser, "plane") as opened:
        yield lambda path="", size=1, **options: opened(
            path, script=f"window.ebwmPlane = {json.dumps(data | {'bytes': size})}", **options)


@pytest.fixture
def page(site):
    return site(size=0)


def test_the_page_projects_walks_and_energies_as_the_explorer_in_jupyterlab(page):
    name, scene = "Langevin", explore_plane.scenes()[1][1]
    walks = explore_plane.walk_of(scene, name, 2.0)
    candidates, sampler = walks.candidates[:, 0], list(explore_plane.SHARES).index(name)
    near = lambda given, wanted, size=1.0: torch.testing.assert_close(
        torch.tensor(given), torch.as_tensor(wanted), rtol=1e-3, atol=1e-3 * size)
    for turn in (0, 3):
        degrees = explore_plane.TURNS[turn]
        found = page.evaluate(FACTS, [1, sampler, 2, turn, degrees])
        where = scene.slice(scene.settings.start, 0, float(degrees))
        turned, energies = walks._replace(slice=where), where.grid[2].flip(0)
        near(found["points"], turned.points[:, 0], where.half_width)
        near(found["truth"], where.points(where.known)[0], where.half_width)
        near(found["share"], share_in_plane(turned))
        near(found["away"], (candidates - where.candidates(where.points(candidates))).norm(dim=-1), where.half_width)
        near(found["grid"], energies.flatten(), float(energies.max() - energies.min()))


def test_turning_moves_the_star_out_of_the_plane_and_steps_move_the_candidate(page):
    lab.wait_until(lambda: "in the plane" in page.locator(".ex-facts").last.inner_text(), page)
    facts = lambda: page.locator(".ex-facts").last.inner_text()
    assert "The star is the truth, in the plane" in facts() and "100 %" not in facts()
    before = picture(page, PLANE)
    page.get_by_label("turn the axis (°)").fill("90")
    lab.wait_until(lambda: "The star is the truth, in the plane" not in facts(), page)
    assert "away from the plane" in facts() and picture(page, PLANE) != before
    end, frame = picture(page, PLANE), picture(page, ".ex-frame >> nth=1")
    page.get_by_label("step", exact=True).fill("0")
    lab.wait_until(lambda: page.locator(".ex-facts").first.inner_text().startswith("Step 0;"), page)
    assert picture(page, PLANE) != end and picture(page, ".ex-frame >> nth=1") != frame
    page.get_by_role("button", name="Play or pause the steps").click()
    lab.wait_until(lambda: settings_of(page)["step"] > 1, page)


def test_settings_are_restored_from_the_address_and_from_a_paste(site, page):
    wanted = {"clip": 2, "sampler": "HMC", "factor": 0.5, "turn": 45, "step": 7, "x": None, "y": None}
    paste(page, wanted)
    assert settings_of(page) == wanted and page.get_by_label("sampler").input_value() == "HMC"
    lab.wait_until(lambda: "#plane=" in page.url, page)
    assert settings_of(site(page.url.removeprefix(lab.SITE), size=0)) == wanted
    for given, message in (({"turn": 44}, "turn=44: must be one of 0, 15"),
                           ({"step": 1.5}, "step=1.5: must be an integer"), ({"z": 1}, 'setting="z": must be'),
                           ({"sampler": "ULA"}, 'sampler="ULA": must be one of'),
                           ({"x": 0, "y": 0}, "x=0: must be null"), ({"x": 0}, "y=null: must be from")):
        paste(page, given)
        assert page.get_by_role("status").inner_text().startswith(message)
        assert page.get_by_label("clip").input_value() == "3"


def test_nothing_is_wider_than_a_phone_and_the_theme_changes_the_map(site):
    page = site(size=0, width=PHONE)
    page.locator(PLANE).scroll_into_view_if_needed()
    assert fits_a_phone(page)
    light = picture(page, PLANE)
    page.evaluate("document.body.dataset.theme = 'dark'")
    lab.wait_until(lambda: picture(page, PLANE) != light, page)


# Walks by the model in the page

WALKED = """async ([clip, point, turn, factor]) => {
    const {PlaneModel} = await import('/_static/explore/plane_model.js'), data = window.ebwmPlane;
    const model = await PlaneModel.load(new URL(`/_static/explore/${data.folder}/`, location.href), data);
    const walk = await model.walk(clip, point, turn, factor);
    return {...walk, images: walk.images.map((image) => [...image])};
}"""


def test_a_walk_from_a_chosen_start_is_that_of_pytorch(site, files):
    page = site(served=files)
    for clip, turn, factor in ((0, 0, 1.0), (2, 45, 0.5)):
        scene = explore_plane.scenes()[1][clip]
        where = scene.slice(scene.settings.start, 0, float(turn))
        x, y = where.centre[0] + 0.4 * where.half_width, where.centre[1] - 0.3 * where.half_width
        chosen = replace(scene.settings, x=x, y=y, angle=turn, step_size=factor * scene.settings.step_size, walks=1,
                         steps=explore_plane.STEPS)
        axes = explore_plane.all_axes(scene.slice(chosen.start, 0))
        expected = explore_plane.recorded(walk({"EBT": scene}, chosen), axes)
        found = page.evaluate(WALKED, [clip, [x, y], turn, factor])
        for name in ("places", "rest", "lengths", "energies", "errors"):
            wanted = torch.tensor(expected[name])
            size = float(wanted.abs().max())
            torch.testing.assert_close(torch.tensor(found[name]), wanted, rtol=1e-3, atol=1e-3 * size)
        images = torch.tensor(list(base64.b64decode(expected["images"])))
        assert (torch.tensor(found["images"]).flatten() - images).abs().max() <= 1
        assert found["accepted"] == expected["accepted"] and found["size"] == pytest.approx(expected["size"])


def test_a_click_on_the_map_starts_a_walk_there_and_the_address_keeps_it(site, files):
    page = site(served=files)
    facts, before = page.locator(".ex-facts").last, picture(page, PLANE)
    lab.wait_until(lambda: "This walk is recorded" in facts.inner_text(), page)
    page.get_by_label("sampler").select_option("HMC")
    page.locator(PLANE).click(position=dict(x=130, y=90))
    lab.wait_until(lambda: "computed in this browser" in facts.inner_text(), page)
    found, shown = settings_of(page), picture(page, PLANE)
    assert found["sampler"] == "gradient descent" and found["step"] == explore_plane.STEPS and shown != before
    page.get_by_label("step size").select_option("× 0.5")
    lab.wait_until(lambda: picture(page, PLANE) != shown and settings_of(page)["factor"] == 0.5, page)
    lab.wait_until(lambda: "#plane=" in page.url and "0.5" in page.url, page)
    other = site(page.url.removeprefix(lab.SITE), served=files)
    lab.wait_until(lambda: picture(other, PLANE) == picture(page, PLANE), other)
    page.get_by_role("button", name="Walk from the recorded start again").click()
    lab.wait_until(lambda: "This walk is recorded" in facts.inner_text(), page)
    assert settings_of(page)["x"] is None


def test_a_model_that_cannot_load_leaves_the_record(site):
    page = site()
    before = picture(page, PLANE)
    page.locator(PLANE).click(position=dict(x=130, y=90))
    lab.wait_until(lambda: "The model cannot run here" in page.get_by_role("status").inner_text(), page)
    lab.wait_until(lambda: picture(page, PLANE) == before, page)
    assert settings_of(page)["x"] is None
