"""The trained EBT on the landscape page: record and model equal the Python; turning, steps, starts, settings, width."""

import base64
import json
import sys
from dataclasses import replace
from pathlib import Path

import lab
import pytest
import torch
from test_explore_pages import ADDRESS, opened, paused

from ebwm.explore.walks import share_in_plane, walk

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
import explore_frames
import explore_plane
import explorers

FACTS = """async ([clip, sampler, factor, turn, degrees]) => {
    const {fromPlane, planeEnergy, projected, shareInPlane} = await import('/explore/plane.js');
    const data = window.ebwmPlane, walk = data.clips[clip].walks[sampler][factor];
    return {points: walk.places.map((place) => projected(place, degrees)), share: shareInPlane(walk, degrees),
            away: walk.places.map((place, i) => fromPlane(place, walk.rest[i], degrees)),
            truth: projected(data.clips[clip].truth, degrees), grid: planeEnergy(data, clip, turn).grid.values};
}"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    explore_plane.write(folder)
    return (folder / "plane_data.js").read_text(encoding="utf-8")


@pytest.fixture
def page(browser, data):
    with paused(browser, "plane", script=data) as shown:
        yield shown


def settings_of(page):
    return json.loads(page.locator("textarea").input_value())


def image(page, selector=".ex-plane"):
    return page.locator(selector).first.evaluate("canvas => canvas.toDataURL()")


@pytest.mark.slow
@pytest.mark.parametrize("turn", [0, 3])
def test_the_page_projects_walks_and_energies_as_the_explorer_in_jupyterlab(page, turn):
    name, degrees = "Langevin", explore_plane.TURNS[turn]
    scene = explore_plane.scenes()[1][1]
    found = page.evaluate(FACTS, [1, list(explore_plane.SHARES).index(name), 2, turn, degrees])
    where, walks = scene.slice(scene.settings.start, 0, float(degrees)), explore_plane.walk_of(scene, name, 2.0)
    walks = walks._replace(slice=where)
    near = lambda given, wanted, size=1.0: torch.testing.assert_close(
        torch.tensor(given), torch.as_tensor(wanted), rtol=1e-3, atol=1e-3 * size)
    near(found["points"], walks.points[:, 0], where.half_width)
    near(found["truth"], where.points(where.known)[0], where.half_width)
    near(found["share"], share_in_plane(walks))
    candidates = walks.candidates[:, 0]
    near(found["away"], (candidates - where.candidates(where.points(candidates))).norm(dim=-1), where.half_width)
    energies = where.grid[2].flip(0)
    near(found["grid"], energies.flatten(), float(energies.max() - energies.min()))


@pytest.mark.slow
def test_turning_moves_the_star_out_of_the_plane_and_steps_move_the_candidate(page):
    lab.wait_until(lambda: "in the plane" in page.locator(".ex-facts").last.inner_text(), page)
    facts = lambda: page.locator(".ex-facts").last.inner_text()
    assert "The star is the truth, in the plane" in facts() and "100 %" not in facts()
    before = image(page)
    page.get_by_label("turn the axis (°)").fill("90")
    lab.wait_until(lambda: "The star is the truth, in the plane" not in facts(), page)
    assert "away from the plane" in facts() and image(page) != before
    end, frame = image(page), image(page, ".ex-frame >> nth=1")
    page.get_by_label("step", exact=True).fill("0")
    lab.wait_until(lambda: page.locator(".ex-facts").first.inner_text().startswith("Step 0;"), page)
    assert image(page) != end and image(page, ".ex-frame >> nth=1") != frame
    page.get_by_role("button", name="Play or pause the steps").click()
    lab.wait_until(lambda: settings_of(page)["step"] > 1, page)


@pytest.mark.slow
def test_settings_are_restored_from_the_address_and_from_a_paste(browser, data, page):
    wanted = {"clip": 2, "sampler": "HMC", "factor": 0.5, "turn": 45, "step": 7, "x": None, "y": None}
    page.locator("summary").click()
    page.locator("textarea").fill(json.dumps(wanted))
    page.get_by_role("button", name="Apply the pasted settings").click()
    assert settings_of(page) == wanted and page.get_by_label("sampler").input_value() == "HMC"
    lab.wait_until(lambda: "#plane=" in page.url, page)
    other, problems = opened(browser, "plane", page.url.removeprefix(ADDRESS), script=data)
    assert settings_of(other) == wanted and problems == []
    other.context.close()
    for given, message in (({"turn": 44}, "turn=44: must be one of 0, 15"),
                           ({"step": 1.5}, "step=1.5: must be an integer"), ({"z": 1}, 'setting="z": must be'),
                           ({"sampler": "ULA"}, 'sampler="ULA": must be one of'),
                           ({"x": 0, "y": 0}, "x=0: must be null"), ({"x": 0}, "y=null: must be from")):
        page.locator("textarea").fill(json.dumps(given))
        page.get_by_role("button", name="Apply the pasted settings").click()
        assert page.get_by_role("status").inner_text().startswith(message)
        assert page.get_by_label("clip").input_value() == "3"


@pytest.mark.slow
def test_nothing_is_wider_than_a_phone_and_the_theme_changes_the_map(browser, data):
    with paused(browser, "plane", width=360, script=data) as page:
        page.locator(".ex-plane").scroll_into_view_if_needed()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        light = image(page)
        page.evaluate("document.body.dataset.theme = 'dark'")
        lab.wait_until(lambda: image(page) != light, page)


# Walks by the model in the page

WALKED = """async ([clip, point, turn, factor]) => {
    const {PlaneModel} = await import('/_static/explore/plane_model.js'), data = window.ebwmPlane;
    const model = await PlaneModel.load(new URL(`/_static/explore/${data.folder}/`, location.href), data);
    const walk = await model.walk(clip, point, turn, factor);
    return {...walk, images: walk.images.map((image) => [...image])};
}"""


@pytest.fixture(scope="module")
def files(page_files):
    needed = {"digits": explore_frames.files_of("digits")["digits"]}
    return page_files(explore_plane.FOLDER, needed, explore_frames.load)


@pytest.fixture
def live(browser, data):
    """A function that opens the page with some files of the site."""
    style = (explorers.SCRIPTS / "explore.css").read_text(encoding="utf-8")
    body = explorers.place("<!-- explorer: plane -->").replace(explorers.DATA.format("plane"), "")
    scripts = {f"/_static/explore/{file.name}": file for file in explorers.SCRIPTS.glob("*.js")}
    script = f"<body data-theme='light'><script>{data}; ebwmPlane.bytes = 1</script>"
    files = {"/": f"{lab.HEAD}<style>{style}</style>{script}{body}"} | scripts

    with lab.visiting(browser) as visit:
        yield lambda served=(), path="": visit(files | dict(served), path, viewport=dict(width=900, height=900))


@pytest.mark.slow
@pytest.mark.parametrize("clip, turn, factor", [(0, 0, 1.0), (2, 45, 0.5)])
def test_a_walk_from_a_chosen_start_is_that_of_pytorch(live, files, clip, turn, factor):
    scene = explore_plane.scenes()[1][clip]
    where = scene.slice(scene.settings.start, 0, float(turn))
    x, y = where.centre[0] + 0.4 * where.half_width, where.centre[1] - 0.3 * where.half_width
    chosen = replace(scene.settings, x=x, y=y, angle=turn, step_size=factor * scene.settings.step_size, walks=1,
                     steps=explore_plane.STEPS)
    axes = explore_plane.all_axes(scene.slice(chosen.start, 0))
    expected = explore_plane.recorded(walk({"EBT": scene}, chosen), axes)
    found = live(files).evaluate(WALKED, [clip, [x, y], turn, factor])
    for name in ("places", "rest", "lengths", "energies", "errors"):
        wanted = torch.tensor(expected[name])
        torch.testing.assert_close(torch.tensor(found[name]), wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))
    images = torch.tensor(list(base64.b64decode(expected["images"])))
    assert (torch.tensor(found["images"]).flatten() - images).abs().max() <= 1
    assert found["accepted"] == expected["accepted"] and found["size"] == pytest.approx(expected["size"])


@pytest.mark.slow
def test_a_click_on_the_map_starts_a_walk_there_and_the_address_keeps_it(live, files):
    page = live(files)
    facts, before = page.locator(".ex-facts").last, image(page)
    lab.wait_until(lambda: "This walk is recorded" in facts.inner_text(), page)
    page.get_by_label("sampler").select_option("HMC")
    page.locator(".ex-plane").click(position=dict(x=130, y=90))
    lab.wait_until(lambda: "computed in this browser" in facts.inner_text(), page)
    found, shown = settings_of(page), image(page)
    assert found["sampler"] == "gradient descent" and found["step"] == explore_plane.STEPS and shown != before
    page.get_by_label("step size").select_option("× 0.5")
    lab.wait_until(lambda: image(page) != shown and settings_of(page)["factor"] == 0.5, page)
    lab.wait_until(lambda: "#plane=" in page.url and "0.5" in page.url, page)
    other = live(files, page.url.removeprefix(lab.SITE))
    lab.wait_until(lambda: image(other) == image(page), other)
    page.get_by_role("button", name="Walk from the recorded start again").click()
    lab.wait_until(lambda: "This walk is recorded" in facts.inner_text(), page)
    assert settings_of(page)["x"] is None


@pytest.mark.slow
def test_a_model_that_cannot_load_leaves_the_record(live):
    page = live()
    before = image(page)
    page.locator(".ex-plane").click(position=dict(x=130, y=90))
    lab.wait_until(lambda: "The model cannot run here" in page.get_by_role("status").inner_text(), page)
    lab.wait_until(lambda: image(page) == before, page)
    assert settings_of(page)["x"] is None
