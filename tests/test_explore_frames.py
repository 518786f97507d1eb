"""The frames explorer: walks of the included models, its widgets, and its page in a browser."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import lab
import pytest
import torch

from benchmarks import ship_frames
from ebwm import settings
from ebwm.data.tasks import ClipsConfig
from ebwm.explore.frame_plots import images_figure, shown_steps, static_figure
from ebwm.explore.frame_walks import summary_lines, warning
from ebwm.explore.frames import FramesExplorer, Settings, compute, included_models, run_models
from ebwm.training.configuration import Config, ModelConfig, OptimiserConfig
from ebwm.training.presets import load_config
from ebwm.training.run import train
from ebwm.writing import INCLUDED

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
import explore_assets
import explore_frames as assets
import explorers

TINY = Config(model=ModelConfig(dim=16, depth=1, heads=2, candidates="latent"), eval_every=1,
              data=ClipsConfig(frames=3, train_clips=8, eval_clips=4),
              optimiser=OptimiserConfig(updates=1, batch=4, warmup=1))
MODELS = included_models()


@pytest.fixture
def explorer():
    pytest.importorskip("anywidget", reason="anywidget is not installed: pip install 'ebwm[figures]'")
    return FramesExplorer()


@pytest.mark.parametrize("clip, position", [(0, 3), (1, 4), (2, 5), (3, 6), (4, 7), (5, 4)])
def test_the_walks_of_the_included_model_end_nearer_to_the_truth_than_they_start(clip, position):
    chosen = Settings(clip=clip, position=position)
    result = compute(MODELS, chosen)
    assert (result.errors[-1] < result.errors[0]).all() and (result.energies[-1] < result.energies[0]).all()
    assert (result.errors[-1] < result.last_error).all() and result.baseline_error < result.last_error
    frames = MODELS.clips.clips[clip] / 255
    assert torch.allclose(result.context, torch.from_numpy(frames[:position]).float(), atol=1e-5)
    assert torch.allclose(result.truth, torch.from_numpy(frames[position]).float(), atol=1e-5)
    again, other = (compute(MODELS, replace(chosen, seed=seed)).candidates for seed in (0, 1))
    assert torch.equal(again, result.candidates) and not torch.equal(other, again)


def test_more_walks_and_steps_leave_the_first_ones_unchanged_and_a_small_step_moves_less():
    few, many = (compute(MODELS, Settings(steps=steps, step=0, walks=walks)) for steps, walks in ((2, 1), (5, 4)))
    assert torch.allclose(many.candidates[:3, :1], few.candidates, atol=1e-4)
    slow = compute(MODELS, Settings(steps=2, step=0, walks=1, factor=0.01))
    moved = [(result.candidates[1] - result.candidates[0]).abs().max() for result in (slow, few)]
    assert moved[0] < moved[1] and few.spread.max() == 0 < many.spread.max()
    assert warning(many) == "" and "4 of 4 walks" in warning(many._replace(energies=many.energies.flip(0)))
    lost = many.errors.index_fill(0, torch.tensor(2), torch.nan)
    assert "Not finite from step 2" in warning(many._replace(errors=lost))


@pytest.mark.parametrize("name, value", [("clip", 64), ("position", 0), ("position", 8), ("steps", 41), ("step", 9),
                                         ("walks", 9), ("factor", 0.0), ("seed", -1)])
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name}={value:g}: must"):
        compute(MODELS, Settings(**{name: value}))


def test_models_of_runs_are_explored_and_others_refused(runs, explorer):
    other = replace(TINY, model=replace(TINY.model, kind="transformer"))
    folder, baseline = (train(config, runs, progress=False) for config in (TINY, other))
    alone = FramesExplorer.from_run(folder)
    assert alone.settings.position == 2 and alone.result.baseline is None
    assert len(images_figure(alone.result)["layout"]["xaxis1"]["ticktext"]) == 3
    assert "Transformer++" in str(FramesExplorer.from_run(folder, baseline).figure("images").layout)
    longer = train(replace(other, data=replace(TINY.data, frames=4)), runs, progress=False)
    for arguments, message in (((baseline,), "folder="), ((folder, folder), "baseline="),
                               ((folder, longer), "same data")):
        with pytest.raises(ValueError, match=message):
            run_models(*arguments)


def test_the_figures_show_the_walks_at_evenly_spaced_steps():
    result = compute(MODELS, Settings(steps=40, step=20, walks=2))
    assert shown_steps(result) == [0, 5, 10, 15, 20, 25, 30, 35, 40]
    z = images_figure(result, "dark")["data"][1]["z"]
    assert z[0][16] is None and torch.allclose(torch.tensor(z[17][17:33]), result.candidates[5, 1, 0], atol=1e-3)
    assert len(static_figure(result).axes) == 4 + 2 * 9 + 1
    assert "→" in summary_lines(result)["Energy, start → end"]


def test_every_control_changes_its_setting_and_the_figures(explorer):
    changes = {"step": 3, "clip": 2, "position": 6, "walks": 5, "seed": 4, "factor": 0.5, "steps": 12}
    for name, value in changes.items():
        before = [explorer.figure(figure).to_dict() for figure in ("images", "curves")]
        explorer.controls[name].value = value
        assert getattr(explorer.settings, name) == value and explorer.message.value == ""
        assert before != [explorer.figure(figure).to_dict() for figure in ("images", "curves")], name
    assert explorer.settings.step == explorer.controls["step"].max == 12
    explorer.controls["steps"].value = 4
    assert explorer.settings.step == explorer.controls["step"].value == explorer.controls["step"].max == 4
    saved = explorer.to_json()
    explorer.show(replace(explorer.settings, clip=99))
    assert "clip=99" in explorer.message.value and explorer.to_json() == saved
    explorer.show_json(json.dumps(json.loads(saved) | {"step": 1}))
    assert explorer.controls["step"].value == 1 and explorer.message.value == ""


# The included models


@pytest.mark.parametrize("name", ["digits", "digits_transformer"])
def test_an_included_model_is_small_and_has_its_card(name):
    folder = INCLUDED / name
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert {*files} == {"model.safetensors", "config.json", "log.jsonl", "card.json"}
    assert sum(files.values()) < 1.5 * 2**20
    card = json.loads((folder / "card.json").read_text())
    for measure, value in ship_frames.scored(folder).items():
        assert card[measure] == pytest.approx(value, rel=1e-3), measure


def test_an_ebt_is_not_included_if_it_is_no_better_than_the_last_frame_or_worse_after_more_steps():
    config = load_config(str(INCLUDED / "digits/config.json"))
    card = json.loads((INCLUDED / "digits/card.json").read_text())
    assert config.walk.steps == 4 and ship_frames.check(card, config) is None
    for losses, last in (({"4": 0.2, "8": 0.2}, 0.3), ({"4": 0.1, "8": 0.2}, 0.3)):
        with pytest.raises(SystemExit, match="nothing is shipped"):
            ship_frames.check({"loss_by_steps": losses, "last_frame": last}, config)


# The page

PREDICTED = """async ([settings, clip]) => {
    const {FrameModels, bytesOf} = await import('/_static/explore/frames_model.js');
    const data = window.ebwmFrames, frames = bytesOf(data.clips, 256).slice(data.frames * clip);
    const models = await FrameModels.load(new URL('/_static/explore/frames/', location.href), data);
    const found = await models.predict(frames.slice(0, settings.position), frames[settings.position], settings);
    return {...found, candidates: found.candidates.map((image) => [...image]), baseline: [...found.baseline]};
}"""


@pytest.fixture(scope="module")
def data():
    return assets.recorded()


@pytest.fixture(scope="module")
def files():
    """Models and runtime by path; skips if they cannot be made here."""
    cache = settings.load(explore_assets.ROOT).cache
    try:
        runtime = explore_assets.package_files(explore_assets.RUNTIME, cache)
        models = explore_assets.model_files(assets.MODELS, assets.load, cache)
    except (explore_assets.AssetError, ImportError) as error:
        pytest.skip(str(error))
    return {f"/_static/explore/{name}/{path.name}": path
            for name, paths in (("runtime", runtime), ("frames", models)) for path in paths}


@pytest.fixture
def site(data):
    """A function that opens the page without the site around it; no other host is asked and no error is raised."""
    reason, problems = "playwright is not installed: pip install 'ebwm[dev]'", []
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    if not lab.chromium():
        pytest.skip("no chromium on the PATH: apt-get install chromium")
    style = (explorers.SCRIPTS / "frames.css").read_text(encoding="utf-8")
    body = explorers.place("<!-- explorer: frames -->").replace(explorers.DATA.format("frames"), "")
    scripts = {f"/_static/explore/{file.name}": file for file in explorers.SCRIPTS.glob("*.js")}
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=lab.chromium(), args=["--no-sandbox", "--disable-dev-shm-usage"])

        def opened(path="", served=(), size=1, width=360):
            script = f"window.ebwmFrames = {json.dumps(data | {'bytes': size})}"
            text = f"{lab.HEAD}<style>{style}</style><body><script>{script}</script>{body}"
            return lab.open_site(browser, {"/": text} | scripts | dict(served), problems, path,
                                 viewport=dict(width=width, height=800))

        yield opened
        browser.close()
    assert problems == []


def pixels(page):
    return page.evaluate("document.querySelectorAll('.explore-frames canvas')[1].toDataURL()")


def state_of(page):
    return json.loads(page.get_by_label("state as JSON").input_value())


def enter(page, label, text):
    page.get_by_label(label).fill(text)
    page.get_by_label(label).press("Enter")


@pytest.mark.slow
def test_the_data_of_the_page_are_small_and_written_without_the_models(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(explore_assets.shutil, "which", lambda name: None)
    assets.write(tmp_path, tmp_path / "cache")
    assert (tmp_path / "frames_data.js").stat().st_size < 300_000 and not (tmp_path / "frames").exists()
    assert "the page of the frames explorer has only recorded walks: 'npm' is not" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("clip, changes", [(0, {}), (23, dict(position=2, seed=9999, steps=16, walks=4, factor=0.5))])
def test_the_browser_computes_the_walks_of_pytorch(site, data, files, clip, changes):
    chosen = replace(Settings(clip, 4, steps=assets.STEPS, walks=assets.WALKS), step=0, **changes)
    found, expected = site(served=files).evaluate(PREDICTED, [vars(chosen), clip]), assets.walks(MODELS, chosen)
    for name in ("energies", "errors"):
        assert torch.allclose(torch.tensor(found[name]).T, getattr(expected, name), atol=1e-4), name
    images = torch.tensor(found["candidates"]).view(expected.candidates.shape)
    assert (images - 255 * expected.candidates).abs().max() < 0.6
    assert (torch.tensor(found["baseline"]).view(16, 16) - 255 * expected.baseline).abs().max() < 0.6
    assert found["lastError"] == pytest.approx(expected.last_error, abs=1e-5)
    assert found["baselineError"] == pytest.approx(expected.baseline_error, abs=1e-4)
    if not changes:
        recorded = next(state for state in data["states"] if (state["clip"], state["position"]) == (0, 4))
        for name in ("energies", "errors"):
            assert torch.allclose(torch.tensor(found[name]), torch.tensor(recorded[name]), atol=1e-4), name


@pytest.mark.slow
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
    enter(page, "state as JSON", '{"clip": 0, "seed": 0, "walks": 3, "steps": 8, "step": 8, "factor": 1}')
    assert "Recorded" in note.inner_text()


@pytest.mark.slow
def test_models_that_cannot_load_leave_the_record_and_one_line(site):
    page = site()
    before, state = pixels(page), state_of(page)
    page.get_by_label("Clip").select_option("9")
    lab.wait_until(lambda: "The models cannot run here" in page.get_by_role("status").inner_text(), page)
    assert pixels(page) == before and state_of(page) == state


@pytest.mark.slow
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
    enter(page, "state as JSON", '{"clip": 3, "position": 7, "walk": 2, "step": 1}')
    assert page.get_by_label("Clip").input_value() == "3"
    assert page.locator(".explore-step").inner_text() == "step 1 of 8"
    other, state = pixels(page), state_of(page)
    page.reload()
    assert pixels(page) == other and state_of(page) == state
    for text, message in (('{"clip": 77}', "clip=77: must be one of 0, 1"), ('{"seed": 1}', "seed=1: must be one of 0"),
                          ('{"steps": 2, "step": 3}', "step=3: must be at most steps=2"), ("{", "must be JSON")):
        enter(page, "state as JSON", text)
        assert message in page.get_by_role("status").inner_text() and pixels(page) == other
