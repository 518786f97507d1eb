"""The frames explorer as a page: its models equal the Python; sources, actions and the state in a browser."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import lab
import pytest
import torch
from explorer_page import PHONE, fits_a_phone, pages, paste, recorded, settings_of

from ebwm.explore.frames import Settings, included_models

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
import explore_assets
import explore_frames as assets

pytestmark = pytest.mark.slow
PHOTOGRAPHS = "scikit-image is not installed: pip install 'ebwm[features]'"
PREDICTED = """async ([source, chosen]) => {
    const {FrameModels, bytesOf} = await import('/_static/explore/frames_model.js');
    const data = window.ebwmFrames[source];
    const models = await FrameModels.load(new URL(`/_static/explore/${data.folder}/`, location.href), data);
    const made = [];
    for (const [settings, truth, actions] of chosen) {
        const frames = bytesOf(data.clips, truth.length).slice(data.frames * settings.clip);
        const found = await models.predict(frames.slice(0, settings.position), truth, settings, actions);
        const candidates = found.candidates.map((image) => [...image]);
        made.push({...found, candidates, baseline: [...found.baseline]});
    }
    return made;
}"""
CHOSEN = {
    "digits": [{}, dict(clip=23, position=2, seed=9999, steps=16, walks=4, factor=0.5)],
    "game": [dict(position=5), dict(clip=9, position=3, action="left", seed=7, steps=12)],
    "camera": [dict(position=6), dict(clip=30, position=3, seed=5, steps=12)],
}


@pytest.fixture(scope="module")
def data():
    return recorded("frames", assets.recorded)


@pytest.fixture(scope="module")
def files(page_files, data):
    found = {}
    for source in data:
        found |= page_files(assets.FOLDERS[source], assets.files_of(source), assets.load)
    return found


@pytest.fixture
def site(browser, data):
    """A function that opens the page; with a size of the models, it computes walks."""
    with pages(browser, "frames", sheets=("frames.css",)) as opened:
        def open_page(size=1, **options):
            values = {name: part | {"bytes": size} for name, part in data.items()}
            return opened(width=PHONE, script=f"window.ebwmFrames = {json.dumps(values)}", **options)

        yield open_page


def pixels(page):
    return page.evaluate("document.querySelectorAll('.explore-frames canvas')[1].toDataURL()")


def shown_in(page):
    """The large pictures."""
    return page.evaluate("[...document.querySelectorAll('.explore-frames canvas')].map((canvas) => canvas.toDataURL())")


def reload(page):
    """Open the page again as soon as its address has the settings."""
    settings = page.get_by_label("Settings as JSON").input_value()
    lab.wait_until(lambda: unquote(page.url).endswith(f"#frames={settings}"), page)
    page.reload()


def enter(page, label, text):
    page.get_by_label(label).fill(text)
    page.get_by_label(label).press("Enter")


def test_the_data_of_the_page_are_small_and_written_without_the_models(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(assets, "recorded", lambda: {source: {**part} for source, part in data.items()})
    monkeypatch.setattr(explore_assets.shutil, "which", lambda name: None)
    assets.write(tmp_path, tmp_path / "cache")
    limit = 900_000 if "camera" in data else 650_000
    assert (tmp_path / "frames_data.js").stat().st_size < limit and not (tmp_path / "frames").exists()
    assert "the page of the frames explorer has only recorded walks: 'npm' is not" in capsys.readouterr().err


@pytest.mark.parametrize("source", CHOSEN)
def test_the_browser_computes_the_walks_of_pytorch(site, data, files, source):
    if source == "camera":
        pytest.importorskip("skimage", reason=PHOTOGRAPHS)
    usual = Settings(source, steps=assets.STEPS, step=0, walks=assets.WALKS)
    chosen, models = [replace(usual, **changes) for changes in CHOSEN[source]], included_models(source)
    expected = [assets.walks(models, settings) for settings in chosen]
    truths = [(255 * walks.truth).round().int().flatten().tolist() for walks in expected]
    given = [[vars(settings), truth, actions_of(models, settings)]
             for settings, truth in zip(chosen, truths, strict=True)]
    found = site(served=files).evaluate(PREDICTED, [source, given])
    for settings, made, walks in zip(chosen, found, expected, strict=True):
        for name in ("energies", "errors"):
            assert torch.allclose(torch.tensor(made[name]).T, getattr(walks, name), atol=2e-4), name
        for name in ("candidates", "baseline"):
            images = 255 * getattr(walks, name)
            assert (torch.tensor(made[name]).view(images.shape) - images).abs().max() < 0.6, name
        assert made["lastError"] == pytest.approx(walks.last_error, abs=1e-5)
        assert made["baselineError"] == pytest.approx(walks.baseline_error, abs=1e-4)
        key = settings.clip, settings.position, settings.action
        known = [one for one in data[source]["states"] if (one["clip"], one["position"], one["action"]) == key]
        assert len(known) == (settings.seed == 0)
        for name in ("energies", "errors") if known else ():
            assert torch.allclose(torch.tensor(made[name]), torch.tensor(known[0][name]), atol=2e-4), name


def actions_of(models, settings):
    """The actions of a game up to the predicted frame, with the chosen one as the last."""
    if not models.actions[1:]:
        return []
    taken = models.clips.taken[settings.clip, :settings.position - 1].tolist()
    return [*taken, models.clips.action(settings.clip, settings.position, settings.action)]


def test_the_source_changes_the_picture_and_an_action_the_prediction(site):
    page = site(size=0)
    digits, action = pixels(page), page.get_by_label("Action")
    assert not action.is_visible()
    page.get_by_label("Source").select_option("game")
    game, state = pixels(page), settings_of(page)
    assert game != digits and action.is_visible() and state["source"] == "game" and state["action"] == "as played"
    played, seen = shown_in(page), {}
    for name in ("stay", "up", "down", "left", "right"):
        action.select_option(name)
        seen[name] = shown_in(page)
    assert all(len({pictures[place] for pictures in seen.values()}) > 1 for place in (1, 2, 3))
    assert len({pictures[0] for pictures in seen.values()}) == 1 and played in seen.values()
    assert fits_a_phone(page)
    last, state = pixels(page), settings_of(page)
    reload(page)
    assert pixels(page) == last and settings_of(page) == state and action.input_value() == "right"
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
    assert fits_a_phone(page)


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
    models, found, position = included_models("game"), [], settings_of(page)["position"]
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
        assert setting in settings_of(page).values()
    assert page.locator(".explore-step").inner_text() == "step 16 of 16"
    assert page.locator(".explore-walks tr").count() == 6
    assert fits_a_phone(page)
    enter(page, "Seed", "-1")
    assert "seed=-1: must be an integer from 0 to 9999" in page.get_by_role("status").inner_text()
    page.get_by_label("Clip").select_option("0")
    paste(page, '{"clip": 0, "seed": 0, "walks": 3, "steps": 8, "step": 8, "factor": 1}')
    assert "Recorded" in note.inner_text()


def test_models_that_cannot_load_leave_the_record_and_one_line(site):
    page = site()
    before, state = pixels(page), settings_of(page)
    page.get_by_label("Clip").select_option("9")
    lab.wait_until(lambda: "The models cannot run here" in page.get_by_role("status").inner_text(), page)
    assert pixels(page) == before and settings_of(page) == state


def test_the_page_plays_and_restores_a_pasted_state(site):
    page = site(size=0)
    assert fits_a_phone(page)
    end = pixels(page)
    page.get_by_label("step", exact=True).fill("0")
    start = pixels(page)
    assert settings_of(page)["step"] == 0 and start != end
    page.get_by_role("button", name="Play").click()
    lab.wait_until(lambda: settings_of(page)["step"] == 8, page)
    assert pixels(page) == end and page.get_by_role("button", name="Play").is_visible()
    paste(page, '{"clip": 3, "position": 7, "walk": 2, "step": 1}')
    assert page.get_by_label("Clip").input_value() == "3"
    assert page.locator(".explore-step").inner_text() == "step 1 of 8"
    other, state = pixels(page), settings_of(page)
    reload(page)
    assert pixels(page) == other and settings_of(page) == state
    for text, message in (('{"clip": 77}', "clip=77: must be one of 0, 1"), ('{"seed": 1}', "seed=1: must be one of 0"),
                          ('{"steps": 2, "step": 3}', "step=3: must be at most steps=2"), ("{", "must be JSON")):
        paste(page, text)
        assert message in page.get_by_role("status").inner_text() and pixels(page) == other
