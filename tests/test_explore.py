"""Explorers: walks from settings, planes, summaries, plots, widgets; the landscape explorer in JupyterLab."""

import asyncio
import json
import math
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import lab
import pytest
import torch
from tiny_run import SHAPE

from ebwm.data.tasks import ClipsConfig
from ebwm.ebt import EBT
from ebwm.energy import as_landscape, gradient_by_autograd
from ebwm.explore import scenes as module
from ebwm.explore.landscape import LandscapeExplorer
from ebwm.explore.marks import marginal
from ebwm.explore.moves import LEAPFROGS
from ebwm.explore.plots import figure, frames_figure, static_figure
from ebwm.explore.scenes import MAX_WALKS, Settings, analytic_scenes, trained_scene
from ebwm.explore.walks import MAX_STEPS, SAMPLERS, THERMAL, compute, share_in_plane, summary_lines, walk, warning
from ebwm.figures.style import COLOURS
from ebwm.sampler import evaluate, leapfrog
from ebwm.settings import generator
from ebwm.training.configuration import Config, ModelConfig, OptimiserConfig
from ebwm.training.run import train

ROOT = Path(__file__).parents[1]
SCENES = analytic_scenes()
MODEL = "next-frame EBT"
TINY = Config(model=ModelConfig(dim=16, depth=1, heads=2, candidates="latent"), eval_every=1,
              data=ClipsConfig(frames=3, train_clips=8, eval_clips=4),
              optimiser=OptimiserConfig(updates=1, batch=4, warmup=1))


@pytest.fixture(scope="module")
def scenes():
    return SCENES | {MODEL: trained_scene(TINY)}


@pytest.fixture
def explorer(scenes):
    pytest.importorskip("anywidget", reason="anywidget is not installed: pip install 'ebwm[figures]'")
    return LandscapeExplorer(scenes)


def walks_of(scenes=SCENES, name="double well", **changes):
    """Walks on an energy, with its settings but for some changes."""
    return compute(scenes, replace(scenes[name].settings, **changes))


# Walks


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", ["double well", MODEL])
def test_every_sampler_runs_on_both_kinds_of_energies(scenes, name, sampler):
    """Noise affects the descent methods, and temperature the other samplers."""
    options = dict(sampler=sampler, steps=3, walks=2, step_size=1e-3)
    walks = walks_of(scenes, name, **options)
    assert walks.candidates.shape[:2] == (4, 2) and walks.finite.all()
    assert walks.evaluations == (1 + 3 * 8 if sampler == "HMC" else 4)
    energies = walks.slice.energy(walks.candidates.flatten(0, 1)).reshape(4, 2)
    assert torch.allclose(walks.energies, energies, atol=1e-4)
    again, noisy, cold = (walks_of(scenes, name, **options | changes).candidates
                          for changes in ({}, {"noise": 0.3}, {"temperature": 0.2}))
    assert torch.equal(again, walks.candidates)
    assert torch.equal(again, noisy) == (sampler in THERMAL)
    assert torch.equal(again, cold) == (sampler not in THERMAL)


@pytest.mark.parametrize("name, noise", [("banana", 0.3), (MODEL, 0.0)])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_parts_of_a_step_are_those_of_the_walk(scenes, sampler, name, noise):
    """Accepted proposals are the next candidates, the others are not; the first gradient is that of the energy."""
    walks = walks_of(scenes, name, sampler=sampler, noise=noise, steps=12, walks=3, step_size=0.02)
    before, after, moves = walks.candidates[:-1], walks.candidates[1:], walks.moves
    assert torch.equal(torch.where(walks.accepted[..., None], moves.proposals, before), after)
    parts = moves.gradient + moves.noise + moves.momentum
    assert torch.allclose(before + parts, moves.proposals, atol=1e-5)
    random = sampler in THERMAL or noise > 0
    assert bool(moves.noise.abs().max() > 1e-3) == random and bool(moves.momentum.any()) == (sampler == "Nesterov")
    where = before[0] + (0 if sampler in THERMAL else moves.noise[0])
    grad = as_landscape(walks.slice.energy).value_and_grad(where)[1]
    if sampler != "HMC":
        assert torch.allclose(moves.gradient[0], -0.02 * grad, atol=1e-5)


@pytest.mark.parametrize("sampler", ["MALA", "HMC"])
def test_proposals_are_accepted_by_the_rule_of_metropolis(sampler):
    """A twin that draws the same random numbers moves and decides in the same way."""
    walks = walks_of(name="banana", sampler=sampler, step_size={"MALA": 0.05, "HMC": 0.2}[sampler], walks=4)
    energy, source, alpha = walks.slice.energy, generator(walks.settings.seed, "walk"), walks.settings.step_size
    for step, y in enumerate(walks.candidates[:-1]):
        noise, there = torch.randn(y.shape, generator=source), walks.moves.proposals[step]
        chance, grads = torch.rand(4, generator=source).log(), [energy.value_and_grad(at)[1] for at in (y, there)]
        if sampler == "MALA":
            assert torch.allclose(there, y - alpha * grads[0] + (2 * alpha) ** 0.5 * noise, atol=1e-5)
            back, forth = (begin - end + alpha * grad for begin, end, grad in
                           ((y, there, grads[1]), (there, y, grads[0])))
            kinetic = (forth.square() - back.square()).sum(-1) / (4 * alpha)
        else:
            end, velocity = leapfrog(energy, evaluate(energy, y), noise, alpha, LEAPFROGS)
            assert torch.allclose(there, end.y, atol=1e-5, equal_nan=True)
            assert torch.allclose(walks.moves.noise[step], LEAPFROGS * alpha * noise, atol=1e-3)
            kinetic = (noise.square() - velocity.square()).sum(-1) / 2
        ratio = energy(y) - energy(there) + kinetic
        assert torch.equal(walks.accepted[step], chance < ratio), step
    assert 0 < walks.accepted.float().mean() < 1


def test_several_samplers_walk_as_each_would_alone():
    """The second has settings of its own, the third those of the first."""
    changes = dict(sampler_2="MALA", step_size_2=0.01, temperature_2=0.5, sampler_3="HMC")
    first, second, third = walks_of(walks=2, step=3, **changes).runs
    for run, own in ((first, {}), (second, dict(sampler="MALA", step_size=0.01, temperature=0.5)),
                     (third, dict(sampler="HMC"))):
        assert torch.equal(run.candidates, walks_of(walks=2, **own).candidates)
    assert [run.slot for run in (first, second, third)] == [0, 1, 2]
    lines = summary_lines(walks_of(**changes))
    assert lines["Sampler"] == ("gradient descent", "MALA", "HMC") and {len(row) for row in lines.values()} == {3}
    diverged = walks_of(**changes | {"sampler_3": "gradient descent", "step_size_3": 5.0})
    assert warning(diverged).startswith("gradient descent: walk 1 diverged")


@pytest.mark.parametrize("name", SCENES)
def test_closed_gradients_and_minima_agree_with_autograd(name):
    where = SCENES[name].slice("noise", 0)
    y = torch.randn(50, 2, generator=generator(0))
    energies, grad = where.energy.value_and_grad(y)
    wanted = gradient_by_autograd(where.energy.energy, y)
    assert torch.equal(energies, wanted[0]) and torch.allclose(grad, wanted[1], atol=1e-4)
    exact = gradient_by_autograd(where.energy.energy, y.double())[1]
    torch.testing.assert_close(where.energy.gradient(y.double()), exact, rtol=1e-12, atol=1e-12)
    assert where.energy.value_and_grad(where.known)[1].abs().max() < 0.1


def test_guarded_descent_never_increases_the_energy_even_with_noise():
    walks = walks_of(sampler="guarded descent", noise=0.5, step_size=0.2, walks=4)
    assert (walks.energies.diff(dim=0) <= 0).all() and not walks.accepted.all()


def test_walks_start_at_a_chosen_point_or_at_separate_points(scenes):
    for name in scenes:
        walks = walks_of(scenes, name, steps=1, walks=3, x=0.25, y=-0.5)
        assert torch.allclose(walks.points[0], torch.tensor([0.25, -0.5]).expand(3, 2), atol=1e-4)
    one, eight, other = (compute(SCENES, Settings(steps=2, **changes)).candidates
                         for changes in ({}, {"walks": MAX_WALKS}, {"seed": 1}))
    assert torch.equal(one[:, 0], eight[:, 0]) and not torch.equal(one[0], other[0])
    assert len(eight[0].unique(dim=0)) == MAX_WALKS


# Planes


@pytest.mark.parametrize("second", [[0.5, -1.0, 2.0], [2.0, 4.0, -2.0], [0.0, 0.0, 0.0]])
def test_axes_of_a_plane_are_orthonormal_and_span_its_points(second):
    first, second = torch.tensor([1.0, 2.0, -1.0]), torch.tensor(second)
    axes = module.plane_axes(first, second)
    assert torch.allclose(axes @ axes.T, torch.eye(2), atol=1e-6)
    assert (axes @ first)[0] > 0 and (axes @ second)[1] > -1e-6
    assert torch.allclose(axes @ second @ axes, second, atol=1e-6)


@pytest.mark.parametrize("start", ["noise", "last", "zeros"])
def test_start_end_and_truth_lie_in_the_plane_of_a_model(scenes, start):
    walks = walks_of(scenes, MODEL, start=start)
    where = walks.slice
    for there in (walks.candidates[0], walks.candidates[-1], where.known):
        assert torch.allclose(where.candidates(where.points(there)), there, atol=1e-3)
    assert torch.allclose(walks.points[0, 0], torch.zeros(2)) and abs(float(walks.points[-1, 0, 1])) < 1e-3
    assert (where.points(where.known)[0] - torch.tensor(where.centre)).abs().max() < where.half_width


def test_the_grid_has_the_energies_of_its_points(scenes):
    for scene in scenes.values():
        where = scene.slice("noise", 0)
        x, y, energies = where.grid
        at = where.candidates(torch.stack([x[7], y[40]])[None])
        assert torch.allclose(energies[40, 7], where.energy(at)[0], atol=1e-5)


@pytest.mark.parametrize("kind", ["state", "latent"])
def test_scenes_of_models_have_the_truth_and_images_if_there_are_any(kind):
    model = EBT(12, 1, 2, state_dim=12, candidates=kind, generator=generator(0))
    clip, settings = torch.rand(3, 12, generator=generator(1)), Settings("own", steps=1)
    assert torch.allclose(model.decode(module.true_candidate(model, clip[-1])), clip[-1], atol=1e-2)
    frames = module.next_frame(model, clip, settings, lambda s: s.reshape(-1, 2, 2, 3)).slice("last", 0).frames
    assert torch.allclose(frames.truth, clip[-1].reshape(2, 2, 3).mean(-1))
    assert frames.image(clip).shape == (3, 2, 2)
    where = module.next_frame(model, clip, settings).slice("last", 0)
    error = lambda state: torch.nn.functional.smooth_l1_loss(state, clip[-1]).item()
    assert where.frames is None and where.last_loss == pytest.approx(error(clip[-2]))
    assert where.loss(where.starts[:1]).item() == pytest.approx(error(model.decode(where.starts[0])))


def test_the_scene_of_a_run_uses_its_data_and_describes_it(tmp_path):
    folder = train(TINY, tmp_path, progress=False)
    scene = module.run_scene(folder, clip=3)
    assert scene.note.startswith(f"run {folder.name}, trained for 1 updates on clips, 16x16 pixels, width 16")
    assert walks_of({MODEL: scene}, MODEL).finite.all()
    seeded = module.run_scene(train(replace(TINY, seed=1), tmp_path, progress=False), clip=3)
    truths = [one.slice("last", 0).frames.truth for one in (scene, seeded)]
    assert torch.equal(*truths), "the data of a run do not depend on its seed"
    other = train(replace(TINY, model=replace(TINY.model, kind="transformer")), tmp_path, progress=False)
    small = ["data.game=push:5", "data.encoder=pixels", "data.size=none", "data.train_episodes=6", "data.frames=4",
             *SHAPE, "model.candidates=latent", "optimiser.updates=1", "optimiser.batch=4", "eval_every=1"]
    game = train("game-xxs", tmp_path, progress=False, overrides=small)
    for arguments, named in (((folder, 4), "clip=4"), ((other,), "folder="), ((game,), "without actions")):
        with pytest.raises(ValueError, match=named):
            module.run_scene(*arguments)


def test_a_plane_turns_from_the_truth_to_a_random_direction(scenes):
    """The walk's direction stays in it; the truth leaves it, and the summary says how far."""
    for angle in (0.0, 30.0, 90.0):
        walks = walks_of(scenes, MODEL, angle=angle)
        where, way = walks.slice, walks.slice.known[0] - walks.slice.starts[0]
        assert torch.allclose(where.axes @ where.axes.T, torch.eye(2), atol=1e-5)
        assert abs(float(walks.points[-1, 0, 1])) < 1e-3 < share_in_plane(walks) <= 1
        share = ((way @ where.axes[0]).square() + (where.axes[1] @ way).square()).sqrt() / way.norm()
        assert summary_lines(walks)["Way to the truth in the plane"] == f"{float(share):.0%}"
        assert (share < 0.999) == (angle > 0) and where.grid[2].isfinite().all()
    assert share_in_plane(walks_of(scenes, MODEL, sampler="Langevin", temperature=1.0)) < 0.9
    moved = walks_of(scenes, MODEL, angle=45.0, x=1.0, y=0.5)
    assert moved.points[0, 0].tolist() == pytest.approx([1.0, 0.5], abs=1e-4)


# Summaries and warnings


def test_the_summary_has_energies_distances_and_costs(scenes):
    walks = walks_of(name="quadratic", step_size=0.1, steps=MAX_STEPS, x=None, y=None)
    lines = summary_lines(walks)
    assert lines["Evaluations of each walk"] == str(MAX_STEPS + 1)
    assert lines["Accepted steps"] == "100%" and lines["Finite walks"] == "1 of 1"
    assert float(lines["Distance to the minimum"]) < 1e-3 and not warning(walks)
    assert lines["Energy, start → end"].startswith(f"{float(walks.energies[0]):.4g} → ")
    one, two = (summary_lines(walks_of(scenes, MODEL, walks=count)) for count in (1, 2))
    assert one["SmoothL1 of the last state"] == f"{scenes[MODEL].slice('noise', 0).last_loss:.4g}"
    assert "→" in one["SmoothL1 to the truth"] and "→" not in two["SmoothL1 to the truth"]
    assert float(one["Distance from the plane"]) < 1e-2 < float(two["Distance from the plane"])


def test_walks_that_diverge_or_increase_the_energy_are_named():
    walks = compute(SCENES, Settings(step_size=0.3, walks=3, steps=30, seed=0))
    lost = (~walks.finite.all(0)).nonzero().flatten().tolist()
    assert lost, "a step size of 0.3 is too large for the double well"
    names = ", ".join(str(walk + 1) for walk in lost)
    assert warning(walks).startswith(f"Walk {names} diverged: not finite from step ")
    assert summary_lines(walks)["Finite walks"] == f"{3 - len(lost)} of 3"
    high = dict(name="quadratic", step_size=0.2, steps=4, x=0.5, y=0.0)
    for changes, line in (({}, "Walk 1 increased the energy"), ({"sampler": "guarded descent"}, ""),
                          ({"sampler": "Langevin", "step_size": 0.1}, "")):
        assert warning(walks_of(**high | changes)).partition(".")[0] == line


# Plots


@pytest.mark.parametrize("name, theme", [("double well", "light"), (MODEL, "dark")])
def test_the_figure_shows_the_walks_the_known_candidates_and_the_energies(scenes, name, theme):
    pytest.importorskip("plotly")
    walks = walks_of(scenes, name, walks=2, steps=5)
    drawn = figure(walks, theme)
    contour, walk, _, _, known, start, _ = drawn.data[:7]
    end, trace = drawn.data[13:15]
    assert contour.type == "contour" and known.name.startswith(walks.slice.known_name)
    assert len(walk.x) == 2 * 7 and walk.x[6] is None and trace.x[:6] == (0, 1, 2, 3, 4, 5)
    assert trace.y[:6] == pytest.approx(walks.energies[:, 0].tolist())
    for shown, points in ((start, walks.points[0]), (end, walks.points[-1])):
        assert torch.allclose(torch.tensor([shown.x, shown.y]).T, points, atol=1e-6)
    assert drawn.layout.paper_bgcolor == COLOURS[theme]["background"]
    ax = static_figure(walks, theme).axes[0]
    assert ax.get_legend_handles_labels()[1] == ["end", "start", walks.slice.known_name]
    assert (ax.get_xlabel(), ax.get_ylabel()) == walks.slice.axis_names
    assert drawn.layout.xaxis.title.text == walks.slice.axis_names[0]


def test_a_diverging_walk_is_plotted_up_to_a_limit_and_candidates_as_images(scenes):
    pytest.importorskip("plotly")
    drawn = figure(walks_of(step_size=0.5, steps=30, x=0.2, y=1.7))
    energies = [value for value in drawn.data[14].y if value is not None]
    assert 1 < len(energies) < 30 and all(map(math.isfinite, energies))
    low, high = drawn.layout.yaxis2.range
    assert low < high < 1e3
    walks = walks_of(scenes, MODEL)
    images, frames = frames_figure(walks, "dark").data, walks.slice.frames
    assert [image.name for image in images] == ["last frame", "start", "end", "true next frame"]
    expected = [frames.last, *frames.image(walks.candidates[[0, -1], 0]), frames.truth]
    assert torch.allclose(torch.tensor([image.z for image in images]), torch.stack(expected), atol=1e-6)


def test_the_shown_step_has_a_trail_arrows_and_crosses():
    """The arrows end at the proposal, and only the proposals that were rejected so far have a cross."""
    walks = walks_of(name="banana", sampler="HMC", step_size=0.2, step=20, sampler_2="Nesterov", step_size_2=0.002)
    drawn = {trace.name: trace for trace in figure(walks).data if trace.name and trace.showlegend is not False}
    proposals = [run.moves.proposals[20, 0].tolist() for run in walks.runs]
    trail, sums = drawn["HMC"], [trace for trace in figure(walks).data[7:9]]
    assert len(trail.x) == 22 and trail.x[20] == pytest.approx(float(walks.candidates[20, 0, 0]))
    assert [(trace.x[1], trace.y[1]) for trace in sums] == [pytest.approx(place) for place in proposals]
    assert drawn["noise"].x[0] == drawn["gradient"].x[1] and drawn["noise"].x[1] == pytest.approx(proposals[0][0])
    assert drawn["gradient"].x[4] == pytest.approx(proposals[1][0]) and len(drawn["momentum"].x) == 3
    assert len(drawn["rejected"].x) == int((~walks.accepted[:20]).sum()) > 0
    ended = {trace.name for trace in figure(walks._replace(settings=replace(walks.settings, step=None))).data}
    assert {"gradient", "noise"} <= ended and "wide" not in ended


def test_the_histogram_of_the_states_approaches_the_density():
    """The marginal density of the banana is normal, but for what is outside the plotted square."""
    walks = walks_of(name="banana", sampler="HMC", step_size=0.12, steps=MAX_STEPS, walks=MAX_WALKS)
    x, density = map(torch.tensor, marginal(walks.slice.grid, 1.0))
    assert float(density.sum() * (x[1] - x[0])) == pytest.approx(1, abs=1e-4)
    assert torch.allclose(density[x < 2], (-(x[x < 2] - 1).square() / 2).exp() / 2.4, atol=0.03)
    bars = figure(walks).data[18]
    found, centres = torch.tensor(bars.y), torch.tensor(bars.x)
    assert float(found.sum() * (centres[1] - centres[0])) == pytest.approx(1, abs=1e-4)
    mean = lambda places, weights: float((places * weights).sum() / weights.sum())
    assert mean(centres, found) == pytest.approx(mean(x, density), abs=0.25)
    assert not len(figure(walks_of()).data[18].x or ())


# Widgets


def test_every_control_changes_its_setting_and_the_figure(explorer):
    """A click chooses the start."""
    changes = {"sampler": "Nesterov", "step_size": 0.02, "noise": 0.1, "steps": 7, "walks": 3,
               "start": "zeros", "seed": 5, "x": 0.5, "y": -0.25}
    for name, value in changes.items():
        trace = explorer.figure("landscape").data[1]
        before = trace.x, trace.y
        explorer.controls[name].value = value
        assert getattr(explorer.settings, name) == value, name
        assert torch.equal(explorer.result.candidates, compute(explorer.scenes, explorer.settings).candidates)
        assert before != (trace.x, trace.y), name
    assert explorer.controls["start"].value == "a point" and explorer.settings.start == "zeros"
    explorer.controls["start"].value = "noise"
    assert explorer.settings.x is None and explorer.settings.start == "noise"
    explorer.controls["start"].value = "a point"
    assert explorer.settings.x == explorer.controls["x"].value
    for xs, ys in (([0.7], [-1.2]), ([], [])):
        explorer._clicked(None, SimpleNamespace(xs=xs, ys=ys), None)
        assert (explorer.settings.x, explorer.settings.y) == (0.7, -1.2)
    assert explorer.controls["x"].value == pytest.approx(0.7)


def test_changes_in_two_threads_are_made_one_after_the_other(explorer, monkeypatch):
    """The second one starts from the settings that the first one made, although it came before they were shown."""
    computing, go, compute = threading.Event(), threading.Event(), explorer.compute

    def slow(settings):
        computing.set()
        assert go.wait(60)
        return compute(settings)

    monkeypatch.setattr(explorer, "compute", slow)
    change = lambda name, value: threading.Thread(target=setattr, args=(explorer.controls[name], "value", value))
    threads = [change("walks", 3), change("seed", 5)]
    threads[0].start()
    assert computing.wait(60)
    threads[1].start()
    while explorer.controls["seed"].value != 5:
        time.sleep(0.01)
    time.sleep(0.1)
    go.set()
    for thread in threads:
        thread.join(60)
    assert (explorer.settings.walks, explorer.settings.seed) == (3, 5)
    assert (explorer.controls["walks"].value, explorer.controls["seed"].value) == (3, 5)
    assert json.loads(explorer.state.value) == json.loads(explorer.to_json())


def test_a_value_that_a_slider_rounded_changes_nothing(explorer):
    before = explorer.settings
    for name in ("x", "y", "noise", "step_size", "temperature"):
        control, logarithmic = explorer.controls[name], name in ("step_size", "temperature")
        change = 0.5 * control.step
        control.value = control.value * 10**change if logarithmic else control.value + change
        assert explorer.settings is before, name
    for share in (0.55, 1.0):
        changed = explorer.settings.x + share * explorer.controls["x"].step
        explorer.controls["x"].value = changed
        assert explorer.settings.x == changed


def test_an_energy_has_its_own_settings_ranges_and_figures_and_a_sampler_its_controls(explorer, scenes):
    explorer.show(replace(explorer.settings, walks=2, seed=3))
    for name in scenes:
        explorer.controls["energy"].value = name
        assert explorer.settings == replace(scenes[name].settings, walks=2, seed=3)
        for control in ("sampler", "step_size", "steps"):
            assert explorer.controls[control].value == getattr(explorer.settings, control)
        low, high = explorer.figure("landscape").layout.xaxis.range
        assert (explorer.controls["x"].min, explorer.controls["x"].max) == pytest.approx((low, high))
        assert explorer.figure("frames") is None or name == MODEL
    assert explorer.figure("frames") is not None and explorer.result.note in explorer.table.value
    explorer.controls["start"].value = "last"
    assert explorer.settings.start == "last"
    for sampler in SAMPLERS:
        explorer.controls["sampler"].value = sampler
        disabled = [explorer.controls[name].disabled for name in ("temperature", "noise")]
        assert disabled == [sampler not in THERMAL, sampler in THERMAL]
    explorer.controls["energy"].value = "quadratic"
    assert explorer._boxes["frames"].layout.display == "none"


def test_presets_run_without_a_warning_but_for_the_one_that_diverges(explorer, scenes):
    control = explorer.controls["preset"]
    for name in control.options[1:]:
        control.value = name
        assert (explorer.settings, control.value) == (explorer.presets[name].settings, name)
        assert ("increased" in explorer.message.value) == (name == "a step too large") != (not explorer.message.value)
        assert explorer.presets[name].lesson[:9] in explorer.lesson.value
    explorer.controls["seed"].value = 7
    assert control.value == "none" and explorer.lesson.value == ""
    assert {preset.settings.energy for preset in explorer.presets.values()} >= {"banana", MODEL}


def test_a_step_is_played_and_the_last_step_stays_the_last(explorer):
    step, steps, play = explorer.controls["step"], explorer.controls["steps"], explorer.play
    assert (step.value, step.max, play.max) == (40, 40, 40) and explorer.settings.step is None
    play.value = 7
    assert step.value == 7 and explorer.settings.step == 7 and len(explorer.figure("landscape").data[1].x) == 9
    steps.value = 60
    assert (step.value, step.max, play.max) == (7, 60, 60)
    steps.value = 5
    assert explorer.settings.step is None and step.value == step.max == 5


def test_samplers_can_be_added_and_have_settings_of_their_own(explorer):
    controls = explorer.controls
    assert controls["step_size_2"].layout.display == "none"
    controls["sampler_2"].value = "MALA"
    assert controls["step_size_2"].layout.display is None
    assert controls["step_size_2"].value == controls["step_size"].value
    controls["step_size_2"].value = 0.01
    controls["step_size"].value = 0.02
    assert [run.settings.step_size for run in explorer.result.runs] == [0.02, 0.01]
    controls["sampler_2"].value = "none"
    assert explorer.settings.step_size_2 is None and len(explorer.result.runs) == 1


def test_a_picture_is_coarse_while_a_control_moves(explorer):
    """The fine one follows, also if other settings are refused meanwhile, whose message stays."""
    async def turn():
        explorer.settle = 0.01
        explorer.controls["energy"].value = MODEL
        explorer.controls["angle"].value = 40.0
        sizes = [len(explorer.figure("landscape").data[0].x)]
        await asyncio.sleep(0.2)
        sizes.append(len(explorer.figure("landscape").data[0].x))
        explorer.controls["angle"].value = 50.0
        explorer._show_soon(replace(explorer.settings, start="none"))
        await asyncio.sleep(0.2)
        sizes.append(len(explorer.figure("landscape").data[0].x))
        return [*sizes, "start" in explorer.message.value]

    assert asyncio.run(turn()) == [24, 64, 64, True]


def test_the_first_steps_of_a_walk_are_shown_while_a_control_moves(explorer):
    """They equal those of the whole walk, which follows."""
    wanted = replace(explorer.settings, sampler="HMC", sampler_2="MALA", steps=MAX_STEPS, walks=MAX_WALKS, step=150)

    async def turn():
        explorer.settle, explorer.patience = 0.01, 0.0
        explorer._show_soon(wanted)
        first = explorer.result
        await asyncio.sleep(0.02)
        return first, explorer.result

    first, whole = asyncio.run(turn())
    assert explorer.settings == wanted and explorer.controls["step"].value == 150
    assert (first.settings.step, whole.settings.step) == (0, 150)
    assert "the first 1 of 200 steps so far" in first.note and "so far" not in whole.note
    for one, other in zip(first.runs, whole.runs, strict=True):
        assert (len(one.accepted), len(other.accepted)) == (1, MAX_STEPS)
        torch.testing.assert_close(one.candidates, other.candidates[:2], rtol=0, atol=0)
        torch.testing.assert_close(one.energies, other.energies[:2], rtol=0, atol=0)
        assert all(torch.equal(part, full[:1]) for part, full in zip(one.moves, other.moves, strict=True))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_walk_stops_when_its_time_is_up(scenes, sampler):
    settings = replace(scenes[MODEL].settings, energy=MODEL, sampler=sampler, steps=MAX_STEPS, walks=2)
    began = time.monotonic()
    cut = walk(scenes, settings, 0.02)
    assert 1 <= len(cut.accepted) < MAX_STEPS and time.monotonic() - began < 3
    whole = walk(scenes, replace(settings, steps=len(cut.accepted)))
    torch.testing.assert_close(cut.candidates, whole.candidates, rtol=0, atol=0)


def test_a_pasted_state_is_restored_and_a_wrong_one_named(explorer):
    before = explorer.to_json()
    assert explorer.state.value == before
    explorer.controls["preset"].value = "HMC against MALA"
    assert json.loads(explorer.state.value)["sampler"] == "HMC"
    explorer.state.value = before
    assert explorer.to_json() == before and explorer.controls["sampler"].value == "gradient descent"
    for wrong, line in (("{", "must be JSON"), (before.replace("steps", "paces", 1), "is not a setting"),
                        (before.replace("40", '"many"'), "steps=&#x27;many&#x27;: must be an integer"),
                        (before.replace("40", "0"), "steps=0")):
        explorer.state.value = wrong
        assert line in explorer.message.value and explorer.to_json() == before, wrong


def test_an_error_is_shown_in_one_line_and_the_settings_remain(explorer):
    before = explorer.settings
    explorer.show(replace(before, temperature=-1.0, sampler="Langevin"))
    assert "temperature" in explorer.message.value and explorer.settings is before
    explorer.show(replace(before, energy="a <b>"))
    assert "&lt;b&gt;" in explorer.message.value
    for step_size, message in ((1.0, "Walk 1 diverged"), (0.01, "")):
        explorer.controls["step_size"].value = step_size
        assert message in explorer.message.value and bool(message) == bool(explorer.message.value)


def test_the_theme_changes_only_the_figures_and_settings_are_saved_as_json(explorer, scenes):
    explorer.controls["energy"].value = MODEL
    before = explorer.settings
    for theme in ("dark", "light"):
        explorer.dark.value = theme == "dark"
        shown = {explorer.figure(name).layout.paper_bgcolor for name in ("landscape", "frames")}
        assert shown == {COLOURS[theme]["background"]} and explorer.settings is before
    explorer.show(Settings("mixture", "HMC", 0.02, x=1.0, y=-1.0))
    other = LandscapeExplorer(scenes)
    other.show_json(explorer.to_json())
    assert other.settings == explorer.settings == Settings("mixture", "HMC", 0.02, x=1.0, y=-1.0)


# In JupyterLab


QUICKER = {"landscape": """
from ebwm.explore import scenes
train = scenes.trained_scene
scenes.trained_scene = lambda updates: train(updates=20)
"""}  # a first cell for notebooks that train a model
DATA = """() => [...document.querySelectorAll('.js-plotly-plot')].map(
    plot => JSON.stringify(plot.data, (name, value) => name.startsWith('_') ? undefined : value))"""
DRAWN = """() => {
    const boxes = [...document.querySelectorAll('.widget-hbox > .widget-vbox:last-child > .widget-box')];
    const shown = boxes.filter(box => box.style.display !== 'none');
    return shown.length && shown.every(box => box.querySelector('.js-plotly-plot .main-svg'));
}"""


def views():
    """The notebooks that show an explorer, up to the cell that does."""
    for path in sorted((ROOT / "nbs/explorers").glob("*.ipynb")):
        saved = json.loads(path.read_text(encoding="utf-8"))
        sources = ["".join(cell["source"]) for cell in saved["cells"]]
        end = next((index for index, source in enumerate(sources) if source.endswith("\nexplorer.view")), None)
        if end is not None:
            first = {"cell_type": "code", "id": "first", "metadata": {}, "outputs": [], "execution_count": None,
                     "source": QUICKER.get(path.stem, "pass")}
            yield path.stem, saved | {"cells": [first, *saved["cells"][: end + 1]]}


@pytest.fixture(scope="module")
def jupyterlab(tmp_path_factory):
    for package in ("playwright", "jupyterlab", "anywidget"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'ebwm[dev]'")
    folder = tmp_path_factory.mktemp("lab")
    for name, saved in views():
        (folder / f"{name}.ipynb").write_text(json.dumps(saved), encoding="utf-8")
    with lab.started(folder, lab.chromium()) as opened:
        yield opened


def slider(page, label=""):
    """The slider with a label, or the first one that can be moved and is no step."""
    found = page.locator("div.widget-slider:visible").filter(has=page.locator(".noUi-target:not([disabled])"))
    label = page.locator(f"label:text-is('{label}')" if label else "label:not(:text-is('step'))")
    return found.filter(has=label).first


@pytest.mark.skipif(not lab.chromium(), reason="no chromium on the PATH: apt-get install chromium")
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, _ in views()])
def test_an_explorer_works_in_jupyterlab(jupyterlab, name):
    """A slider changes the picture, a saved state restores it, and the steps are played."""
    page = jupyterlab(f"{name}.ipynb")
    page.wait_for_function(DRAWN, polling=lab.POLL)
    state, shown = page.locator(".widget-textarea textarea").last, page.evaluate(DATA)
    before = state.input_value()
    slider(page).locator(".noUi-handle").first.press("ArrowRight")
    lab.wait_until(lambda: state.input_value() != before and page.evaluate(DATA) != shown, page)
    state.fill(before)
    state.press("Tab")
    lab.wait_until(lambda: state.input_value() == before and page.evaluate(DATA) == shown, page)
    if page.locator(".widget-play:visible").count():
        step, buttons = slider(page, "step").locator(".widget-readout"), page.locator(".widget-play:visible button")
        buttons.nth(1).click()
        lab.wait_until(lambda: step.inner_text() == "0", page)
        buttons.nth(0).click()
        lab.wait_until(lambda: step.inner_text() not in "01", page)
        buttons.nth(0).click()
    if name in (checks := {"landscape": check_landscape, "frames": check_frames}):
        checks[name](page, state)
    page.set_viewport_size(dict(width=390, height=844))
    box = page.locator(".widget-hbox").last
    lab.wait_until(lambda: box.evaluate("box => box.getBoundingClientRect().right < innerWidth"), page)
    assert box.evaluate("box => box.scrollWidth <= box.clientWidth")
    page.set_viewport_size(lab.WINDOW)
    assert page.locator("[data-mime-type$='stderr'], [data-mime-type$='error']").all_inner_texts() == []


def changed(page, before):
    """Wait until the data of every figure have changed, and return them: figures arrive in messages of their own."""
    lab.wait_until(lambda: all(new != old for new, old in zip(page.evaluate(DATA), before, strict=True)), page)
    return page.evaluate(DATA)


def check_landscape(page, state):
    """A click places the start, and a model's energy has its frames."""
    choose, plot = (lambda label: page.get_by_label(label, exact=True)), page.locator(".js-plotly-plot").first
    box = plot.locator(".contourlayer").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
    lab.wait_until(lambda: json.loads(state.input_value())["x"] < 0, page)
    assert choose("start").input_value() == "a point"
    choose("energy").select_option(MODEL)
    page.locator(".js-plotly-plot .heatmaplayer image").nth(3).wait_for(state="attached")
    table = page.locator(".widget-html table")
    lab.wait_until(lambda: "SmoothL1 to the truth" in table.inner_text(), page)
    assert choose("start").input_value() == "noise" and choose("sampler").input_value() == "gradient descent"


def check_frames(page, state):
    """The source changes the picture, an action the prediction, and a state restores both."""
    choose, digits = (lambda label: page.get_by_label(label, exact=True)), page.evaluate(DATA)
    assert not choose("action").is_visible()
    choose("source").select_option("game")
    game = changed(page, digits)
    choose("action").wait_for()
    choose("action").select_option("right")
    right = changed(page, game)
    action = lambda: json.loads(state.input_value())["action"]  # the last of all to change
    lab.wait_until(lambda: action() == "right", page)
    saved = state.input_value()
    choose("action").select_option("left")
    changed(page, right)
    lab.wait_until(lambda: action() == "left", page)
    state.fill(saved)
    state.press("Tab")
    lab.wait_until(lambda: page.evaluate(DATA) == right, page)
    assert choose("source").input_value() == "game" and choose("action").input_value() == "right"
