"""Choices make walks, walks make pictures, and hands on the widgets make choices; once in a browser."""

import dataclasses
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import lab
import pytest
import torch

from ebwm.ebt import EBT
from ebwm.explore.landscape import (
    MOST_STEPS,
    MOST_WALKS,
    SAMPLERS,
    SMALL,
    THERMAL,
    Choices,
    LandscapeExplorer,
    analytic_scenes,
    figure,
    frames_figure,
    next_frame,
    numbers,
    plane_axes,
    run_scene,
    still,
    trained_scene,
    true_candidate,
    walk_on,
    warning,
)
from ebwm.figures.style import COLOURS
from ebwm.settings import generator
from ebwm.training.trainer import Config, DataConfig, ModelConfig, OptimiserConfig, train

ROOT = Path(__file__).parents[1]
SCENES = analytic_scenes()
TINY = Config(
    model=ModelConfig(dim=16, depth=1, heads=2, candidates="latent"),
    data=DataConfig(frames=3, train_clips=8, eval_clips=4),
    optimiser=OptimiserConfig(updates=1, batch=4, warmup=1),
    eval_every=1,
)


@pytest.fixture(scope="module")
def scenes():
    return SCENES | {"next-frame EBT": trained_scene(TINY)}


@pytest.fixture
def explorer(scenes):
    pytest.importorskip("anywidget", reason="anywidget is not installed: pip install 'ebwm[figures]'")
    return LandscapeExplorer(scenes)


# Walks


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", [*SCENES, "next-frame EBT"])
def test_every_sampler_walks_on_every_energy(scenes, name, sampler):
    choices = replace(scenes[name].choices, sampler=sampler, steps=3, walks=2, step_size=1e-3)
    walked = walk_on(scenes, choices)
    assert walked.places.shape[:2] == (4, 2) and walked.energies.shape == (4, 2) and walked.finite.all()
    asked = {"guarded descent": 4, "MALA": 4, "HMC": 1 + 3 * 8, "Nesterov": 4}.get(sampler, 4)
    assert walked.evaluations == asked
    where = walked.slice
    assert torch.allclose(walked.energies, where.energy(walked.places.flatten(0, 1)).reshape(4, 2), atol=1e-4)
    assert torch.equal(walk_on(scenes, choices).places, walked.places)


def test_noise_shakes_descents_and_temperature_the_others():
    for sampler in SAMPLERS:
        walks = [walk_on(SCENES, Choices(sampler=sampler, steps=2, **changed)).places
                 for changed in ({}, {"noise": 0.3}, {"temperature": 0.2})]
        assert torch.equal(walks[0], walks[1]) == (sampler in THERMAL)
        assert torch.equal(walks[0], walks[2]) == (sampler not in THERMAL)


def test_guarded_descent_never_climbs_even_when_shaken():
    walked = walk_on(SCENES, Choices(sampler="guarded descent", noise=0.5, step_size=0.2, walks=4))
    assert (walked.energies.diff(dim=0) <= 0).all() and not walked.accepted.all()


def test_a_chosen_point_is_where_all_walks_begin(scenes):
    for name in scenes:
        walked = walk_on(scenes, replace(scenes[name].choices, steps=1, walks=3, x=0.25, y=-0.5))
        wanted = torch.tensor([0.25, -0.5]).expand(3, 2)
        assert torch.allclose(walked.points[0], wanted, atol=1e-4)


def test_walks_from_noise_begin_apart_and_more_walks_change_none_of_the_first():
    one, eight = (walk_on(SCENES, Choices(steps=2, walks=walks)) for walks in (1, MOST_WALKS))
    assert torch.equal(one.places[:, 0], eight.places[:, 0])
    assert len(eight.places[0].unique(dim=0)) == MOST_WALKS
    assert not torch.equal(one.places[0], walk_on(SCENES, Choices(steps=2, seed=1)).places[0])


def test_choices_survive_json():
    choices = Choices("mixture", "HMC", 0.02, x=1.0, y=-1.0)
    assert Choices(**json.loads(json.dumps(dataclasses.asdict(choices)))) == choices


@pytest.mark.parametrize("changed, said", [
    ({"energy": "hill"}, "energy is 'hill'; it must be one of double well, quadratic, mixture"),
    ({"sampler": "luck"}, "sampler is 'luck'; it must be one of gradient descent,"),
    ({"start": "last"}, "start is 'last'; it must be one of noise, zeros"),
    ({"steps": 0}, f"steps is 0; it must be from 1 to {MOST_STEPS}"),
    ({"walks": 9}, f"walks is 9; it must be from 1 to {MOST_WALKS}"),
    ({"x": 1.0}, "x is 1.0 and y is None; give both, or neither"),
    ({"step_size": -1.0}, "step_size is -1; it must be 0 or more"),
    ({"sampler": "MALA", "temperature": 0.0}, "temperature is 0.0; it must be above 0"),
    ({"x": math.inf, "y": 0.0}, "start holds 2 values that are not finite"),
])
def test_what_cannot_be_done_is_refused_in_one_line(changed, said):
    with pytest.raises(ValueError) as caught:
        walk_on(SCENES, replace(Choices(), **changed))
    assert said in str(caught.value) and "\n" not in str(caught.value)


# Planes


def test_a_plane_has_axes_of_length_one_at_a_right_angle_that_lead_to_its_points(draw):
    first, second = draw(2, 5)
    axes = plane_axes(first, second)
    assert torch.allclose(axes @ axes.T, torch.eye(2, dtype=axes.dtype))
    x, y = axes @ first, axes @ second
    assert x[0] > 0 and abs(x[1]) < 1e-12 and y[1] > 0
    assert torch.allclose(y @ axes, second)


@pytest.mark.parametrize("second", [[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
def test_a_plane_through_points_on_a_line_is_still_a_plane(second):
    axes = plane_axes(torch.tensor([1.0, 0.0, 0.0]), torch.tensor(second))
    assert torch.allclose(axes @ axes.T, torch.eye(2), atol=1e-6)


@pytest.mark.parametrize("start", ["noise", "last", "zeros"])
def test_start_own_end_and_truth_lie_in_the_plane_of_a_model(scenes, start):
    scene = scenes["next-frame EBT"]
    walked = walk_on(scenes, replace(scene.choices, start=start))
    where = walked.slice
    for there in (walked.places[0], walked.places[-1], where.known):
        assert torch.allclose(where.candidates(where.points(there)), there, atol=1e-3)
    assert torch.allclose(walked.points[0, 0], torch.zeros(2))
    assert abs(float(walked.points[-1, 0, 1])) < 1e-3
    assert (where.points(where.known)[0] - torch.tensor(where.centre)).abs().max() < where.reach


def test_the_grid_holds_the_energies_of_its_points(scenes):
    for scene in scenes.values():
        where = scene.cut("noise", 0)
        x, y, energies = where.grid
        at = where.candidates(torch.stack([x[7], y[40]])[None])
        assert torch.allclose(energies[40, 7], where.energy(at)[0], atol=1e-5)


@pytest.mark.parametrize("kind", ["state", "latent"])
def test_the_true_candidate_decodes_as_near_to_the_truth_as_can_be(kind):
    model = EBT(16, 1, 2, state_dim=16, candidates=kind, generator=generator(0))
    target = torch.randn(16, generator=generator(1))
    assert torch.allclose(model.decode(true_candidate(model, target)), target, atol=1e-2)


def test_colour_frames_are_shown_in_grey():
    model = EBT(12, 1, 2, state_dim=12, generator=generator(0))
    clip = torch.rand(3, 12, generator=generator(1))
    scene = next_frame(model, clip, lambda s: s.reshape(-1, 2, 2, 3), Choices("own", steps=1))
    frames = scene.cut("last", 0).frames
    assert torch.allclose(frames.truth, clip[-1].reshape(2, 2, 3).mean(-1))
    assert frames.picture(clip).shape == (3, 2, 2)


def test_a_run_is_looked_at_with_its_own_data_and_says_what_it_is(tmp_path):
    folder = train(TINY, tmp_path, progress=False)
    scene = run_scene(folder, clip=3)
    assert scene.note.startswith(f"run {folder.name}, trained for 1 updates on moving digits, width 16")
    assert walk_on({"own": scene}, replace(scene.choices, energy="own")).finite.all()
    with pytest.raises(ValueError, match="clip is 4; the validation split has the clips 0 to 3"):
        run_scene(folder, clip=4)
    with pytest.raises(ValueError, match="it must be a finished run's"):
        run_scene(tmp_path)
    other = train(replace(TINY, model=replace(TINY.model, kind="transformer")), tmp_path, progress=False)
    with pytest.raises(ValueError, match="only an 'ebt' has an energy"):
        run_scene(other)


def test_a_model_of_text_is_no_scene_of_clips():
    shipped = Path(__file__).parent.parent / "data" / "checkpoints" / "text"
    with pytest.raises(ValueError, match="a model of text, and here are clips; write with it: ebwm generate"):
        run_scene(shipped)


# Numbers and warnings


def test_numbers_tell_energies_distances_and_costs():
    walked = walk_on(SCENES, Choices("quadratic", step_size=0.1, steps=MOST_STEPS))
    told = numbers(walked)
    assert told["Evaluations of each walk"] == str(MOST_STEPS + 1)
    assert told["Steps taken"] == "100%" and told["Walks that stayed finite"] == "1 of 1"
    assert float(told["Distance to the minimum"]) < 1e-3 and not warning(walked)
    assert told["Energy, start → end"].startswith(f"{float(walked.energies[0]):.4g} → ")


def test_numbers_of_frames_compare_with_repeating_the_last(scenes):
    choices = scenes["next-frame EBT"].choices
    one, two = (numbers(walk_on(scenes, replace(choices, walks=walks))) for walks in (1, 2))
    frames = scenes["next-frame EBT"].cut("noise", 0).frames
    assert one["… of repeating the last"] == f"{frames.floor:.4g}" and frames.floor > 0
    assert "→" in one["SmoothL1 of the frame"] and "→" not in two["SmoothL1 of the frame"]
    assert float(one["Distance from the plane"]) < 1e-2 < float(two["Distance from the plane"])


def test_the_walks_that_diverged_are_named():
    walked = walk_on(SCENES, Choices(step_size=0.3, walks=3, steps=30, seed=0))
    lost = (~walked.finite.all(0)).nonzero().flatten().tolist()
    assert lost, "a step of 0.3 is too large for these wells"
    line = warning(walked)
    names = ", ".join(str(walk + 1) for walk in lost)
    assert line.startswith(f"Walk {names} diverged: not finite from step ")
    assert numbers(walked)["Walks that stayed finite"] == f"{3 - len(lost)} of 3"
    assert "\n" not in line


def test_a_walk_that_ends_higher_is_named_where_it_ought_to_descend():
    high = Choices("quadratic", step_size=0.2, steps=4, x=0.5, y=0.0)
    assert warning(walk_on(SCENES, high)) == "Walk 1 ended higher than it began. Lower the step size."
    assert warning(walk_on(SCENES, replace(high, sampler="guarded descent"))) == ""
    assert warning(walk_on(SCENES, replace(high, sampler="Langevin", step_size=0.1))) == ""


# Pictures


@pytest.mark.parametrize("theme", COLOURS)
@pytest.mark.parametrize("name", [*SCENES, "next-frame EBT"])
def test_the_picture_shows_landscape_walks_marks_and_energies(scenes, name, theme):
    pytest.importorskip("plotly")
    walked = walk_on(scenes, replace(scenes[name].choices, walks=2, steps=5))
    drawn = figure(walked, theme)
    energy, walk, known, start, end, trace = drawn.data
    assert energy.type == "contour"
    assert [trace.name for trace in drawn.data[1:5]] == ["walk", walked.slice.mark, "start", "end"]
    assert len(walk.x) == 2 * 7 and walk.x[6] is None and trace.x[:6] == (0, 1, 2, 3, 4, 5)
    assert trace.y[:6] == pytest.approx(walked.energies[:, 0].tolist())
    assert (start.x[0], start.y[0]) == pytest.approx(tuple(walked.points[0, 0].tolist()), abs=1e-6)
    assert (end.x[1], end.y[1]) == pytest.approx(tuple(walked.points[-1, 1].tolist()), abs=1e-6)
    assert len(known.x) == len(walked.slice.known)
    axes = drawn.layout
    assert (axes.xaxis.title.text, axes.yaxis.title.text) == walked.slice.names
    assert (axes.xaxis2.title.text, axes.yaxis2.title.text) == ("step", "energy")
    assert axes.paper_bgcolor == COLOURS[theme]["background"]
    assert json.loads(drawn.to_json())["layout"]["width"] == 600


def test_a_walk_that_diverges_is_drawn_as_far_as_it_can_be():
    pytest.importorskip("plotly")
    walked = walk_on(SCENES, Choices(step_size=0.5, steps=30, x=0.2, y=1.7))
    drawn = figure(walked)
    energies = [value for value in drawn.data[5].y if value is not None]
    assert 1 < len(energies) < 30 and all(map(math.isfinite, energies))
    low, high = drawn.layout.yaxis2.range
    assert low < high < 1e3


def test_frames_are_named_and_stand_side_by_side(scenes):
    pytest.importorskip("plotly")
    walked = walk_on(scenes, scenes["next-frame EBT"].choices)
    drawn = frames_figure(walked, "dark")
    assert [heat.name for heat in drawn.data] == ["last frame seen", "start", "end", "frame that came"]
    assert torch.allclose(torch.tensor(drawn.data[3].z), walked.slice.frames.truth, atol=1e-6)
    with pytest.raises(ValueError, match="theme is 'blue'; it must be one of light, dark"):
        figure(walked, "blue")


def test_the_still_picture_has_the_same_marks():
    page = still(walk_on(SCENES, Choices(walks=2, steps=3)), "dark")
    ax = page.axes[0]
    assert ax.get_legend_handles_labels()[1] == ["start", "end", "minimum"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("y[0]", "y[1]") and len(ax.lines) == 5


# Widgets


def test_a_change_of_any_control_is_followed(explorer):
    hands = {"sampler": "Nesterov", "step_size": 0.02, "noise": 0.1, "steps": 7, "walks": 3, "start": "zeros",
             "seed": 5, "x": 0.5, "y": -0.25}
    for name, value in hands.items():
        before = explorer.figure.data[1].x, explorer.figure.data[1].y
        explorer.controls[name].value = value
        assert getattr(explorer.choices, name) == value, name
        assert torch.equal(explorer.walked.places, walk_on(explorer.scenes, explorer.choices).places)
        after = explorer.figure.data[1].x, explorer.figure.data[1].y
        assert before != after, name
    assert explorer.controls["start"].value == "a point" and explorer.choices.start == "zeros"
    explorer.controls["start"].value = "noise"
    assert explorer.choices.x is None and explorer.choices.start == "noise"
    explorer.controls["start"].value = "a point"
    assert explorer.choices.x == explorer.controls["x"].value


def test_a_slider_that_rounds_what_it_was_given_changes_nothing(explorer):
    before = explorer.choices
    for name in ("x", "y", "noise"):
        explorer.controls[name].value += 0.6 * explorer.controls[name].step
        assert explorer.choices is before, name
    for name in ("step_size", "temperature"):
        explorer.controls[name].value *= 10 ** (0.6 * explorer.controls[name].step)
        assert explorer.choices is before, name
    explorer.controls["x"].value = before.x + explorer.controls["x"].step
    assert explorer.choices.x == before.x + explorer.controls["x"].step


def test_another_energy_comes_with_what_suits_it(explorer, scenes):
    for name in scenes:
        explorer.controls["energy"].value = name
        assert explorer.choices == scenes[name].choices
        for control in ("sampler", "step_size", "steps"):
            assert explorer.controls[control].value == getattr(explorer.choices, control)
        low, high = explorer.figure.layout.xaxis.range
        assert (explorer.controls["x"].min, explorer.controls["x"].max) == pytest.approx((low, high))
        assert (explorer.frames.layout.display == "flex") == (name == "next-frame EBT")
    assert explorer.walked.note in explorer.table.value
    explorer.controls["start"].value = "last"
    assert explorer.choices.start == "last"


def test_only_settings_that_a_sampler_takes_can_be_moved(explorer):
    for sampler in SAMPLERS:
        explorer.controls["sampler"].value = sampler
        disabled = [explorer.controls[name].disabled for name in ("temperature", "noise")]
        assert disabled == [sampler not in THERMAL, sampler in THERMAL]


def test_a_click_begins_the_walk_there(explorer):
    clicked = type("Points", (), {"xs": [0.7], "ys": [-1.2]})()
    explorer._clicked(None, clicked, None)
    assert (explorer.choices.x, explorer.choices.y) == (0.7, -1.2)
    assert explorer.controls["x"].value == pytest.approx(0.7)
    before = explorer.choices
    explorer._clicked(None, type("Points", (), {"xs": [], "ys": []})(), None)
    assert explorer.choices is before


def test_what_goes_wrong_is_one_line_and_the_picture_stays(explorer):
    before = explorer.choices
    explorer.show(replace(before, temperature=-1.0, sampler="Langevin"))
    assert "temperature is -1.0; it must be 0 or more" in explorer.message.value
    assert explorer.choices is before
    explorer.controls["step_size"].value = 1.0
    assert "Walk 1 diverged" in explorer.message.value
    explorer.controls["step_size"].value = 0.01
    assert explorer.message.value == ""


def test_dark_and_light_change_the_picture_alone(explorer):
    explorer.controls["energy"].value, before = "next-frame EBT", explorer.choices
    before = explorer.choices
    explorer.dark.value = True
    assert explorer.figure.layout.paper_bgcolor == COLOURS["dark"]["background"]
    assert explorer.frames.children[0].layout.paper_bgcolor == COLOURS["dark"]["background"]
    explorer.dark.value = False
    assert explorer.figure.layout.paper_bgcolor == COLOURS["light"]["background"]
    assert explorer.choices is before


# In JupyterLab


@pytest.fixture
def notebook(tmp_path):
    """The explorer's notebook with a model that is trained for a moment only."""
    path = Path(shutil.copy(ROOT / "nbs" / "explorers" / "landscape.ipynb", tmp_path))
    text = path.read_text(encoding="utf-8")
    short = "trained_scene(replace(SMALL, optimiser=replace(SMALL.optimiser, updates=20)))"
    assert text.count("trained_scene()}") == 1
    saved = json.loads(text.replace("trained_scene()}", f"{short}}}"))
    first = next(cell for cell in saved["cells"] if cell["cell_type"] == "code")
    first["source"] = [*first["source"], "\nfrom dataclasses import replace",
                       "\nfrom ebwm.explore.landscape import SMALL"]
    path.write_text(json.dumps(saved), encoding="utf-8")
    return path


@pytest.mark.skipif(not lab.chromium(), reason="no chromium on the PATH: apt-get install chromium")
@pytest.mark.slow
def test_the_notebook_can_be_touched_in_jupyterlab(notebook):
    for package in ("playwright", "jupyterlab", "anywidget"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'ebwm[dev]'")
    assert SMALL.optimiser.updates > 20
    with lab.opened(notebook, lab.chromium()) as page:
        plot, choose = page.locator(".js-plotly-plot").first, page.locator(".widget-dropdown select")
        walk = plot.locator(".scatterlayer .trace").first.locator("path.js-line")
        table = page.locator(".widget-html table")
        plot.locator(".contourlayer .contour").wait_for(state="attached")
        assert choose.count() == 3 and page.locator(".widget-slider").count() == 7
        path, told = walk.get_attribute("d"), table.inner_text()
        assert "Evaluations of each walk\t41" in told and told.startswith("Energy, start → end")
        choose.nth(1).select_option("Nesterov")
        lab.wait_until(lambda: walk.get_attribute("d") != path and table.inner_text() != told, page)
        path = walk.get_attribute("d")
        plot.scroll_into_view_if_needed()
        box = plot.locator(".contourlayer").bounding_box()
        page.mouse.click(box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
        lab.wait_until(lambda: choose.nth(2).input_value() == "a point", page)
        lab.wait_until(lambda: walk.get_attribute("d") != path, page)
        choose.nth(0).select_option("next-frame EBT")
        page.locator(".js-plotly-plot .heatmaplayer image").nth(3).wait_for(state="attached")
        lab.wait_until(lambda: "SmoothL1 of the frame" in table.inner_text(), page)
        assert choose.nth(2).input_value() == "noise" and choose.nth(1).input_value() == "gradient descent"
        assert page.locator("[data-mime-type$='stderr'], [data-mime-type$='error']").count() == 0
