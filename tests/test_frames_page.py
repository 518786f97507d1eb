"""The frames explorer as a page: its models equal the Python; sources, actions and the state in a browser."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import lab
import pytest
import torch

from ebwm.explore.frames import Settings, included_models

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
import explore_assets
import explore_frames as assets
import explorers

pytestmark = pytest.mark.slow
SITE = "/_static/explore/"
PHOTOGRAPHS = "scikit-image is not installed: pip install 'ebwm[features]'"
PREDICTED = """async ([settings, truth, actions]) => {
    const {FrameModels, bytesOf} = await import('/_static/explore/frames_model.js');
    const data = window.ebwmFrames[settings.source];
    const frames = bytesOf(data.clips, truth.length).slice(data.frames * settings.clip);
    const models = await FrameModels.load(new URL(`/_static/explore/${data.folder}/`, location.href), data);
    const found = await models.predict(frames.slice(0, settings.position), truth, settings, actions);
    return {...found, candidates: found.candidates.map((image) => [...image]), baseline: [...found.baseline]};
}"""


@pytest.fixture(scope="module")
def data():
    return assets.recorded()


@pytest.fixture(scope="module")
def files(page_files, data):
    found = {}
    for source in data:
        found |= page_files(assets.FOLDERS[source], assets.files_of(source), assets.load)
    return found


@pytest.fixture
def site(browser, data):
    """A function that opens the page without the site around it; no other host is asked and no error is raised."""
    style = (explorers.SCRIPTS / "frames.css").read_text(encoding="utf-8")
    body = explorers.place("<!-- explorer: frames -->").replace(explorers.DATA.format("frames"), "")
    scripts = {f"{SITE}{file.name}": file for file in explorers.SCRIPTS.glob("*.js")}

    def opened(path="", served=(), size=1, width=360):
        script = f"window.ebwmFrames = {json.dumps({name: part | {'bytes': size} for name, part in data.items()})}"
        text = f"{lab.HEAD}<style>{style}</style><body><script>{script}</script>{body}"
        return visit({"/": text} | scripts | dict(served), path, viewport=dict(width=width, height=800))

    with lab.visiting(browser) as visit:
        yield opened


def pixels(page):
    return page.evaluate("document.querySelectorAll('.explore-frames canvas')[1].toDataURL()")


def shown_in(page):
    """The large pictures."""
    return page.evaluate("[...document.querySelectorAll('.explore-frames canvas')].map((canvas) => canvas.toDataURL())")


def state_of(page):
    return json.loads(page.get_by_label("Settings as JSON").input_value())


def paste(page, text):
    if not page.locator("details[open]").count():
        page.locator("summary").click()
    page.get_by_label("Settings as JSON").fill(text)
    page.get_by_role("button", name="Apply").click()


def reload(page):
    """Open the page again as soon as its address has the settings."""
    settings = page.get_by_label("Settings as JSON").input_value()
    lab.wait_until(lambda: unquote(page.url).endswith(f"#frames={settings}"), page)
    page.reload()


def enter(page, label, text):
    page.get_by_label(label).fill(text)
    page.get_by_label(label).press("Enter")


def test_the_data_of_the_page_are_small_and_written_without_the_models(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(explore_assets.shutil, "which", lambda name: None)
    assets.write(tmp_path, tmp_path / "cache")
    limit = 650_000 if assets.sources() == ["digits", "game"] else 900_000
    assert (tmp_path / "frames_data.js").stat().st_size < limit and not (tmp_path / "frames").exists()
    assert "the page of the frames explorer has only recorded walks: 'npm' is not" in capsys.readouterr().err


@pytest.mark.parametrize("changes", [
    {}, dict(clip=23, position=2, seed=9999, steps=16, walks=4, factor=0.5), dict(source="game", position=5),
    dict(source="game", clip=9, position=3, action="left", seed=7, steps=12), dict(source="camera", position=6),
    dict(source="camera", clip=30, position=3, seed=5, steps=12)])
def test_the_browser_computes_the_walks_of_pytorch(site, data, files, changes):
    if changes.get("source") == "camera":
        pytest.importorskip("skimage", reason=PHOTOGRAPHS)
    chosen = replace(Settings(steps=assets.STEPS, walks=assets.WALKS), step=0, **changes)
    models = included_models(chosen.source)
    expected, actions = assets.walks(models, chosen), []
    if models.actions[1:]:
        actions = models.clips.taken[chosen.clip, :chosen.position].tolist()
        actions[-1] = models.clips.action(chosen.clip, chosen.position, chosen.action)
    truth = (255 * expected.truth).round().int().flatten().tolist()
    found = site(served=files).evaluate(PREDICTED, [vars(chosen), truth, actions])
    for name in ("energies", "errors"):
        assert torch.allclose(torch.tensor(found[name]).T, getattr(expected, name), atol=2e-4), name
    images = torch.tensor(found["candidates"]).view(expected.candidates.shape)
    assert (images - 255 * expected.candidates).abs().max() < 0.6
    assert (torch.tensor(found["baseline"]).view(expected.baseline.shape) - 255 * expected.baseline).abs().max() < 0.6
    assert found["lastError"] == pytest.approx(expected.last_error, abs=1e-5)
    assert found["baselineError"] == pytest.approx(expected.baseline_error, abs=1e-4)
    key = chosen.clip, chosen.position, chosen.action
    states = data[chosen.source]["states"]
    recorded = [one for one in states if (one["clip"], one["position"], one["action"]) == key and chosen.seed == 0]
    assert len(recorded) == (chosen.seed == 0)
    for one in recorded:
        for name in ("energies", "errors"):
            assert torch.allclose(torch.tensor(found[name]), torch.tensor(one[name]), atol=2e-4), name


def test_the_source_changes_the_picture_and_an_action_the_prediction(site):
    page = site(size=0)
    digits, action = pixels(page), page.get_by_label("Action")
    assert not action.is_visible()
    page.get_by_label("Source").select_option("game")
    game, state = pixels(page), state_of(page)
    assert game != digits and action.is_visible() and state["source"] == "game" and state["action"] == "as played"
    played, seen = shown_in(page), {}
    for name in ("stay", "up", "down", "left", "right"):
        action.select_option(name)
        seen[name] = shown_in(page)
    assert all(len({pictures[place] for pictures in seen.values()}) > 1 for place in (1, 2, 3))
    assert len({pictures[0] for pictures in seen.values()}) == 1 and played in seen.values()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    last, state = pixels(page), state_of(page)
    reload(page)
    assert pixels(page) == last and state_of(page) == state and action.input_value() == "right"
    paste(page, '{"source": "digits"}')
    assert pixels(page) == digits and not action.is_visible()
    for text, message in (('{"action": "left"}', 'action="left": must be one of as played.'),
                          ('{"source": "film"}', 'source="film": must be one of digits, game')):
        paste(page, text)
        assert message in page.get_by_role("status").inner_text() and pixels(page) == digits
    page.evaluate("(state) => { location.hash = `frames=${encodeURIComponent(state)}`; }", json.dumps(state))
    lab.wait_until(lambda: pixels(page) == last, page)


def test_the_camera_says_which_photograph_it_shows(site, data):
    pytest.importorskip("skimage", reason=PHOTOGRAPHS)
    page = site(size=0)
    digits = pixels(page)
    page.get_by_label("Source").select_option("camera")
    captions = page.locator(".explore-caption")
    names = [text for text in captions.all_inner_texts() if text.startswith("Photograph: ")]
    assert pixels(page) != digits and [data["camera"]["about"][0]] == [text.partition(". ")[0] for text in names]
    assert "(in training)" in names[0] and not page.get_by_label("Action").is_visible()
    page.get_by_label("Clip").select_option("24")
    assert any("(not in training)" in text for text in captions.all_inner_texts())
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_without_photographs_the_page_has_no_camera(monkeypatch, capsys):
    monkeypatch.setattr(assets.importlib.util, "find_spec", lambda name: None)
    assert assets.sources() == ["digits", "game"]
    assert "no camera: pip install 'ebwm[features]'" in capsys.readouterr().err


def test_another_action_is_computed_in_the_page(site, files):
    page = site(served=files)
    page.get_by_label("Source").select_option("game")
    page.get_by_label("Clip").select_option("9")
    note = page.locator(".explore-note")
    lab.wait_until(lambda: "Computed in this browser" in note.inner_text(), page)
    models, found, position = included_models("game"), [], state_of(page)["position"]
    played = models.clips.actions[models.clips.taken[9, position - 1]]
    for name in [action for action in models.clips.actions if action != played][:2]:
        before = page.locator(".explore-plots").inner_html()
        page.get_by_label("Action").select_option(name)
        lab.wait_until(lambda: page.locator(".explore-plots").inner_html() != before, page)  # noqa: B023
        error = float(assets.walks(models, Settings("game", 9, position, name, walks=assets.WALKS)).errors[8, 0])
        caption = page.locator(".explore-frames figcaption").nth(1).inner_text()
        assert float(caption.removeprefix("walk 1, step 8: ")) == pytest.approx(error, rel=0.01)
        found.append(shown_in(page))
    assert found[0][1] != found[1][1] and found[0][0] == found[1][0]


def test_other_walks_are_computed_in_the_page(site, files):
    page = site(served=files)
    before, note = pixels(page), page.locator(".explore-note")
    assert "Recorded with PyTorch" in note.inner_text()
    page.get_by_label("Clip").select_option("20")
    lab.wait_until(lambda: "Computed in this browser" in note.inner_text(), page)
    changes = ("Seed", "7", 7), ("Walks", "4", 4), ("think longer", "16", 16), ("Step size", "-1", 0.5)
    for label, value, setting in changes:
        before = page.locator(".explore-plots").inner_html()
        enter(page, label, value)
        lab.wait_until(lambda: page.locator(".explore-plots").inner_html() != before, page)  # noqa: B023
        assert setting in state_of(page).values()
    assert page.locator(".explore-step").inner_text() == "step 16 of 16"
    assert page.locator(".explore-walks tr").count() == 6
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    enter(page, "Seed", "-1")
    assert "seed=-1: must be an integer from 0 to 9999" in page.get_by_role("status").inner_text()
    page.get_by_label("Clip").select_option("0")
    paste(page, '{"clip": 0, "seed": 0, "walks": 3, "steps": 8, "step": 8, "factor": 1}')
    assert "Recorded" in note.inner_text()


def test_models_that_cannot_load_leave_the_record_and_one_line(site):
    page = site()
    before, state = pixels(page), state_of(page)
    page.get_by_label("Clip").select_option("9")
    lab.wait_until(lambda: "The models cannot run here" in page.get_by_role("status").inner_text(), page)
    assert pixels(page) == before and state_of(page) == state


def test_the_page_plays_and_restores_a_pasted_state(site):
    page = site(size=0)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    end = pixels(page)
    page.get_by_label("step", exact=True).fill("0")
    start = pixels(page)
    assert state_of(page)["step"] == 0 and start != end
    page.get_by_role("button", name="Play").click()
    lab.wait_until(lambda: state_of(page)["step"] == 8, page)
    assert pixels(page) == end and page.get_by_role("button", name="Play").is_visible()
    paste(page, '{"clip": 3, "position": 7, "walk": 2, "step": 1}')
    assert page.get_by_label("Clip").input_value() == "3"
    assert page.locator(".explore-step").inner_text() == "step 1 of 8"
    other, state = pixels(page), state_of(page)
    reload(page)
    assert pixels(page) == other and state_of(page) == state
    for text, message in (('{"clip": 77}', "clip=77: must be one of 0, 1"), ('{"seed": 1}', "seed=1: must be one of 0"),
                          ('{"steps": 2, "step": 3}', "step=3: must be at most steps=2"), ("{", "must be JSON")):
        paste(page, text)
        assert message in page.get_by_role("status").inner_text() and pixels(page) == other
