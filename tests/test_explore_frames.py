"""The frames explorer: walks of the included models, games with another action, and its widgets."""

import base64
import io
import json
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread

from benchmarks import ship_frames
from ebwm.data.configs import FramesConfig, GameConfig, StatesConfig
from ebwm.data.games import make_game
from ebwm.data.tasks import ClipsConfig
from ebwm.explore.frame_plots import images_figure, shown_steps, static_figure
from ebwm.explore.frame_walks import OWN, SOURCES, summary_lines, warning
from ebwm.explore.frames import FramesExplorer, Settings, compute, included_models, run_models
from ebwm.figures.style import COLOURS
from ebwm.training.configuration import Config, ModelConfig, OptimiserConfig
from ebwm.training.presets import load_config
from ebwm.training.run import train
from ebwm.writing import INCLUDED

TINY = Config(model=ModelConfig(dim=16, depth=1, heads=2, candidates="latent"), eval_every=1,
              data=ClipsConfig(frames=3, train_clips=8, eval_clips=4),
              optimiser=OptimiserConfig(updates=1, batch=4, warmup=1))


def needs_photographs(source):
    if source.startswith("camera"):
        pytest.importorskip("skimage", reason="scikit-image is not installed: pip install 'ebwm[features]'")


def walked(settings):
    """Walks of the included models of a source."""
    return compute(included_models(settings.source), settings)


def picture(trace):
    """Pixels of a trace of a figure."""
    content = base64.b64decode(trace["source"].partition(",")[2])
    return torch.from_numpy(imread(io.BytesIO(content), "png"))[..., :3]


@pytest.fixture
def explorer():
    pytest.importorskip("anywidget", reason="anywidget is not installed: pip install 'ebwm[figures]'")
    return FramesExplorer()


@pytest.mark.parametrize("source", SOURCES)
def test_the_last_candidates_of_an_included_model_are_nearer_to_the_truth_than_the_first(source):
    needs_photographs(source)
    models = included_models(source)
    for clip in range(0, len(models.clips), 4):
        result = compute(models, Settings(source, clip))
        assert (result.errors[-1] < result.errors[0]).all() and (result.energies[-1] < result.energies[0]).all(), clip
        assert result.truth.shape == result.candidates.shape[2:] == result.baseline.shape == result.context.shape[1:]
        assert result.spread[-1].mean() < result.spread[0].mean()


@pytest.mark.parametrize("clip, position", [(0, 3), (2, 5), (4, 7)])
def test_the_walks_of_the_included_model_end_nearer_to_the_truth_than_they_start(clip, position):
    chosen = Settings(clip=clip, position=position)
    result = walked(chosen)
    assert (result.errors[-1] < result.errors[0]).all() and (result.energies[-1] < result.energies[0]).all()
    assert (result.errors[-1] < result.last_error).all() and result.baseline_error < result.last_error
    frames = included_models().clips.clips[clip] / 255
    assert torch.allclose(result.context, torch.from_numpy(frames[:position]).float(), atol=1e-5)
    assert torch.allclose(result.truth, torch.from_numpy(frames[position]).float(), atol=1e-5)
    again, other = (walked(replace(chosen, seed=seed)).candidates for seed in (0, 1))
    assert torch.equal(again, result.candidates) and not torch.equal(other, again)


def test_more_walks_and_steps_leave_the_first_ones_unchanged_and_a_small_step_moves_less():
    few, many = (walked(Settings(steps=steps, step=0, walks=walks)) for steps, walks in ((2, 1), (5, 4)))
    assert torch.allclose(many.candidates[:3, :1], few.candidates, atol=1e-4)
    slow = walked(Settings(steps=2, step=0, walks=1, factor=0.01))
    moved = [(result.candidates[1] - result.candidates[0]).abs().max() for result in (slow, few)]
    assert moved[0] < moved[1] and few.spread.max() == 0 < many.spread.max()
    assert warning(many) == "" and "4 of 4 walks" in warning(many._replace(energies=many.energies.flip(0)))
    lost = many.errors.index_fill(0, torch.tensor(2), torch.nan)
    assert "Not finite from step 2" in warning(many._replace(errors=lost))


@pytest.mark.parametrize("name, value", [("clip", 64), ("position", 0), ("position", 8), ("steps", 41), ("step", 9),
                                         ("walks", 9), ("factor", 0.0), ("seed", -1)])
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name}={value:g}: must"):
        walked(Settings(**{name: value}))


def test_a_game_continues_with_another_action_as_the_simulator_does():
    clips, game, seen = included_models("game").clips, make_game("push:7"), []
    for clip, position in ((0, 1), (1, 4), (2, 7)):
        for action, name in enumerate(game.actions):
            result = walked(Settings("game", clip, position, name))
            game.reset(clips.seeds[clip])
            for taken in clips.taken[clip, :position - 1]:
                game.step(int(taken))
            expected = torch.from_numpy(game.step(action).frame) / 255
            assert torch.allclose(result.truth, expected, atol=1e-3)
            assert torch.allclose(result.context, torch.from_numpy(clips.clips[clip, :position]) / 255, atol=1e-3)
            seen.append(result)
        played = walked(Settings("game", clip, position))
        assert torch.equal(played.truth, seen[clips.taken[clip, position - 1] - 5].truth)
        assert torch.equal(played.candidates, seen[clips.taken[clip, position - 1] - 5].candidates)
        assert "as played" in played.facts["Action"] and "Action" in summary_lines(played)
    ends = torch.stack([result.candidates[-1, 0] for result in seen]).view(3, 5, -1)
    assert all(torch.pdist(found).max() > 0.5 for found in ends)
    still = np.mean([result.last_error for result in seen if result.last_error > 0])
    assert np.mean([float(result.errors[-1].mean()) for result in seen if result.last_error > 0]) < still
    with pytest.raises(ValueError, match=r"^action='jump': must be one of as played, stay"):
        walked(Settings("game", action="jump"))
    with pytest.raises(ValueError, match=r"^action='left': must be"):
        walked(Settings(action="left"))
    with pytest.raises(ValueError, match=r"^source='game': must be"):
        compute(included_models(), Settings("game"))


def test_a_walk_of_the_game_takes_less_than_a_second_of_one_core():
    walked(Settings("game"))
    began = time.process_time()
    walked(Settings("game"))
    assert time.process_time() - began < 1


def test_a_run_on_a_moving_camera_needs_scikit_image_and_has_new_movements(runs):
    needs_photographs("camera")
    data = FramesConfig(frames=3, size=8, encoder="pixels", train_clips=8, eval_clips=4)
    models = run_models(train(replace(TINY, data=data), runs, progress=False))
    seen = [compute(models, Settings(OWN, clip, 2)) for clip in (0, 31)]
    assert [" (in training)" in result.facts["Photograph"] for result in seen] == [True, False]
    assert seen[0].truth.shape == (8, 8, 3) and len(models.clips) == 32
    expected = torch.from_numpy(models.clips.clips[31, 2]) / 255
    assert torch.allclose(seen[1].truth, expected, atol=1e-3)


def test_a_source_changes_the_picture_and_an_action_the_prediction(explorer):
    shown = lambda: explorer.figure("images").to_dict()["data"][0]["source"]
    digits, action = shown(), explorer.controls["action"]
    assert action.layout.display == "none"
    explorer.controls["source"].value = "game"
    game = shown()
    assert game != digits and action.layout.display is None and action.options[:2] == ("as played", "stay")
    action.value = "right"
    right, saved = shown(), explorer.to_json()
    action.value = "left"
    assert len({game, right, shown()}) == 3 - (included_models("game").clips.action(0, 4, "as played") in (3, 4))
    explorer.controls["source"].value = "digits"
    assert shown() == digits and explorer.settings.action == "as played"
    explorer.show_json(saved)
    assert shown() == right and action.value == "right" and explorer.controls["source"].value == "game"


def test_the_camera_shows_other_movements_and_says_what_is_missing_without_photographs(explorer, monkeypatch):
    source, saved = explorer.controls["source"], explorer.to_json()
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "skimage.data", None)
        included_models.cache_clear()
        source.value = "camera"
    assert "ebwm[features]" in explorer.message.value and explorer.to_json() == saved
    source.value = "digits"
    needs_photographs("camera")
    source.value = "camera"
    assert explorer.message.value == "" and "(in training)" in explorer.result.facts["Photograph"]
    seen = [walked(Settings("camera", clip)) for clip in range(32)]
    known = [result for result in seen if "(in training)" in result.facts["Photograph"]]
    ends = [float(result.errors[-1].mean()) for result in seen]
    assert len(known) == 24 and np.mean(ends[:24]) < np.mean([result.last_error for result in known])
    assert np.mean(ends[:24]) < np.mean(ends[24:])


def test_models_of_runs_are_explored_and_others_refused(runs, explorer):
    other = replace(TINY, model=replace(TINY.model, kind="transformer"))
    folder, baseline = (train(config, runs, progress=False) for config in (TINY, other))
    alone = FramesExplorer.from_run(folder)
    assert alone.settings.position == 2 and alone.result.baseline is None
    assert len(images_figure(alone.result)["layout"]["xaxis1"]["ticktext"]) == 3
    assert "Transformer++" in str(FramesExplorer.from_run(folder, baseline).figure("images").layout)
    played = replace(TINY, data=GameConfig(game="push:5", frames=3, train_episodes=8, eval_episodes=4))
    acted = FramesExplorer.from_run(train(played, runs, progress=False))
    assert acted.settings.source == OWN and acted.controls["source"].options[-1] == OWN
    acted.controls["action"].value = "up"
    assert acted.settings.action == "up" and acted.result.truth.shape == (5, 5, 3) and acted.message.value == ""
    acted.controls["source"].value = "game"
    acted.controls["position"].value = 7
    acted.controls["source"].value = OWN
    assert acted.settings.position == 2 and acted.message.value == ""
    longer = train(replace(other, data=replace(TINY.data, frames=4)), runs, progress=False)
    for arguments, message in (((baseline,), "folder="), ((folder, folder), "baseline="),
                               ((folder, longer), "same data")):
        with pytest.raises(ValueError, match=message):
            run_models(*arguments)


@pytest.mark.parametrize("task, message", [
    (StatesConfig(), "data.kind='states': has no images to show; choose a run on clips"),
    (FramesConfig(encoder="principal:4", frames=3, size=8, train_clips=8, eval_clips=4),
     "data.source='camera with data.encoder=principal:4': has no images to show"),
    (GameConfig(game="push:5", encoder="principal:4", frames=3, train_episodes=8, eval_episodes=4),
     "data.encoder='principal:4': has no pixels to show")])
def test_a_task_whose_states_are_no_images_is_refused(task, message, runs):
    data = torch.randn(8, 3, 4) if isinstance(task, StatesConfig) else None
    with pytest.raises(ValueError, match=f"^{message}"):
        run_models(train(replace(TINY, data=task), runs, progress=False, data=data))


def test_clips_of_principal_components_are_shown(runs):
    needed = replace(TINY, data=replace(TINY.data, features=4))
    result = compute(run_models(train(needed, runs, progress=False)), Settings(OWN, 3, 2))
    assert result.truth.shape == (16, 16)


def test_the_figures_show_the_walks_at_evenly_spaced_steps():
    result = walked(Settings(steps=40, step=20, walks=2))
    assert shown_steps(result) == [0, 5, 10, 15, 20, 25, 30, 35, 40]
    pixels = picture(images_figure(result, "dark")["data"][1])
    gap = torch.tensor([int(COLOURS["dark"]["background"][place:place + 2], 16) for place in (1, 3, 5)]) / 255
    assert pixels.shape == (33, 9 * 17 - 1, 3) and torch.allclose(pixels[0, 16], gap)
    assert torch.allclose(pixels[17, 17:33], result.candidates[5, 1, 0, :, None].expand(-1, 3), atol=2e-3)
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


@pytest.mark.slow
@pytest.mark.parametrize("name", [f"{source}{kind}" for source in SOURCES for kind in ("", "_transformer")])
def test_an_included_model_is_small_and_has_its_card(name):
    folder = INCLUDED / name
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    scale = set() if name.startswith("digits") else {"task.json", "encoder.json"}
    assert {*files} == {"model.safetensors", "config.json", "log.jsonl", "card.json"} | scale
    assert sum(files.values()) < 1.1 * 2**20
    needs_photographs(name)
    card = json.loads((folder / "card.json").read_text())
    found = pd.json_normalize(ship_frames.scored(folder)).iloc[0]
    expected = pd.json_normalize(card).iloc[0]
    for measure, value in found.items():
        assert expected[measure] == pytest.approx(value, rel=1e-3), measure


def test_an_ebt_is_not_included_if_it_is_no_better_than_the_last_frame_or_worse_after_more_steps():
    config = load_config(str(INCLUDED / "digits/config.json"))
    card = json.loads((INCLUDED / "digits/card.json").read_text())
    assert config.walk.steps == 4 and ship_frames.check("digits", card, config) is None
    for losses, last in (({"4": 0.2, "8": 0.2}, 0.3), ({"4": 0.1, "8": 0.2}, 0.3)):
        with pytest.raises(SystemExit, match="nothing is shipped"):
            ship_frames.check("digits", {"loss_by_steps": losses, "last_frame": last}, config)
