"""The frames explorer: walks of the included models, its widgets, and its page in a browser."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import lab
import pytest
import torch

from benchmarks import ship_frames
from ebwm.data.tasks import ClipsConfig
from ebwm.explore.frame_plots import images_figure, shown_steps, static_figure
from ebwm.explore.frame_walks import summary_lines, warning
from ebwm.explore.frames import FramesExplorer, Settings, compute, included_models, run_models
from ebwm.training.configuration import Config, ModelConfig, OptimiserConfig
from ebwm.training.presets import load_config
from ebwm.training.run import train
from ebwm.writing import INCLUDED

ROOT = Path(__file__).parents[1]
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
    settings = Settings(clip=clip, position=position)
    result = compute(MODELS, settings)
    assert (result.errors[-1] < result.errors[0]).all() and (result.energies[-1] < result.energies[0]).all()
    assert (result.errors[-1] < result.last_error).all() and result.baseline_error < result.last_error
    frames = MODELS.clips.clips[clip] / 255
    assert torch.allclose(result.context, torch.from_numpy(frames[:position]).float(), atol=1e-5)
    assert torch.allclose(result.truth, torch.from_numpy(frames[position]).float(), atol=1e-5)
    again, other = (compute(MODELS, replace(settings, seed=seed)).candidates for seed in (0, 1))
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


@pytest.fixture
def page(tmp_path):
    """The page of the site in a browser, without the site around it; requests of other hosts fail the test."""
    reason = "playwright is not installed: pip install 'ebwm[dev]'"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    sys.path.insert(0, str(ROOT / "docs"))
    import explore_frames
    import explorers

    scripts, requests = tmp_path / "_static/explore", []
    explore_frames.write(scripts)
    assert (scripts / "frames_data.js").stat().st_size < 300_000
    style = (explorers.SCRIPTS / "frames.css").read_text(encoding="utf-8")
    (tmp_path / "explorers").mkdir()
    body = explorers.place("<!-- explorer: frames -->")
    (tmp_path / "explorers/page.html").write_text(f"<!doctype html><style>{style}</style>{body}", encoding="utf-8")
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=lab.chromium(), args=["--no-sandbox", "--disable-dev-shm-usage"])
        opened = browser.new_page(viewport=dict(width=360, height=800))
        opened.on("request", lambda request: requests.append(request.url))
        opened.on("pageerror", lambda error: requests.append(str(error)))
        opened.goto((tmp_path / "explorers/page.html").as_uri())
        yield opened
        browser.close()
    assert requests and all(url.startswith("file://") for url in requests)


@pytest.mark.skipif(not lab.chromium(), reason="no chromium on the PATH: apt-get install chromium")
@pytest.mark.slow
def test_the_page_plays_and_restores_a_pasted_state(page):
    pixels = lambda: page.evaluate("document.querySelectorAll('.explore-frames canvas')[1].toDataURL()")
    state = lambda: json.loads(page.get_by_label("state as JSON").input_value())
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    end = pixels()
    page.get_by_label("step", exact=True).fill("0")
    start = pixels()
    assert state()["step"] == 0 and start != end
    page.get_by_role("button", name="Play").click()
    lab.wait_until(lambda: state()["step"] == 8, page)
    assert pixels() == end and page.get_by_role("button", name="Play").is_visible()
    page.get_by_label("state as JSON").fill('{"clip": 3, "position": 7, "walk": 2, "step": 1}')
    page.get_by_label("state as JSON").press("Enter")
    assert page.get_by_label("Clip").input_value() == "3"
    assert page.locator(".explore-step").inner_text() == "step 1 of 8"
    other = pixels()
    page.reload()
    assert pixels() == other and state() == {"clip": 3, "position": 7, "walk": 2, "step": 1}
    page.get_by_label("state as JSON").fill('{"clip": 77}')
    page.get_by_label("state as JSON").press("Enter")
    assert "clip=77" in page.get_by_role("status").inner_text() and pixels() == other
