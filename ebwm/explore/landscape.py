"""The landscape explorer: an energy, samplers and a start to choose, and the walks that follow."""

import html
import math
from dataclasses import replace
from typing import Any

from ..compat import require
from .controls import (
    NARROW,
    Explorer,
    dropdown,
    integer_box,
    integer_slider,
    log_slider,
    one_at_a_time,
    set_range,
    slider,
)
from .plots import figure_parts, frames_figure
from .presets import FREE, preset_of, presets
from .scenes import MAX_WALKS, Scene, Settings
from .walks import MAX_STEPS, NONE, SAMPLERS, THERMAL, Trajectories, compute, summary_lines, walk, warning

__all__ = ["POINT", "LandscapeExplorer"]

REMEMBERED = 16  # walks of one sampler
POINT = "a point"  # start at a point of the plane that was chosen with x and y or by a click


def _controls(scenes: dict[str, Scene]) -> dict[str, Any]:
    """One widget for each setting, and the presets."""
    first = {
        "preset": dropdown("preset", [FREE, *presets(scenes)], "settings that show one idea"),
        "energy": dropdown("energy", scenes, "the energy that is plotted"),
        **_sampler_controls(""),
        "noise": slider("noise", 0, 1, tip="standard deviation of the noise before each step of a descent method"),
    }
    last = {
        "steps": integer_slider("steps", 1, MAX_STEPS, "steps of each walk"),
        "step": integer_slider("step", 0, MAX_STEPS, "the step that is shown"),
        "walks": integer_slider("walks", 1, MAX_WALKS, "walks of each sampler, with separate random numbers"),
        "start": dropdown("start", ["noise"], "initial candidates"),
        "x": slider("start x", -1, 1, digits=".2f", tip="start on the horizontal axis; or click on the map"),
        "y": slider("start y", -1, 1, digits=".2f", tip="start on the vertical axis; or click on the map"),
        "angle": slider("turn plane", 0, 90, 1, ".0f", "degrees by which the vertical axis is turned from the truth "
                        "to a random direction"),
        "seed": integer_box("seed", 9999, "of the initial candidates, the noise and the random direction"),
    }
    return {**first, **_sampler_controls("_2"), **_sampler_controls("_3"), **last}


def _sampler_controls(end: str) -> dict[str, Any]:
    """Controls of the first sampler, or of one beside it."""
    number, names = end.replace("_", " "), SAMPLERS if not end else (NONE, *SAMPLERS)
    return {
        f"sampler{end}": dropdown(f"sampler{number}", names, "a sampler of the library" if not end else
                                  "another sampler from the same start"),
        f"step_size{end}": log_slider(f"step size{number}", -4, 3, 0.1, "step size of the sampler"),
        f"temperature{end}": log_slider(f"temperature{number}", -5, 1,
                                        tip="T of the density exp(-E / T); Langevin, MALA and HMC only"),
    }


class LandscapeExplorer(Explorer):
    """Explorer of walks on energies; `view` displays it."""

    settle = 0.3
    patience = 0.03  # seconds for the walks of each sampler while a control moves

    def __init__(
        self,
        scenes: dict[str, Scene],  # available energies, by name
        settings: Settings | None = None,  # initial settings; None: those of the first energy
        theme: str = "light",  # or "dark"
    ):
        self.scenes, self.presets = scenes, presets(scenes)
        self.lesson = require("ipywidgets", "figures").HTML()
        self._known: dict[Settings, Trajectories] = {}  # by the settings of one sampler
        super().__init__(settings or next(iter(scenes.values())).settings, _controls(scenes), theme)
        self.figure("landscape").data[0].on_click(self._clicked)

    def compute(
        self,
        settings: Settings,  # of the walks
    ) -> Trajectories:
        """Run the walks that have not been run just before; only their first steps while a control moves."""
        return compute(self.scenes, settings, self._walk)

    def _walk(self, alone: Settings) -> Trajectories:
        if alone in self._known:
            return self._known[alone]
        found = walk(self.scenes, alone, self.patience if self.coarse else math.inf)
        if len(found.accepted) == alone.steps:
            self._known[alone] = found
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        return found

    def draw(
        self,
        result: Trajectories,  # of `compute`
        theme: str,  # "light" or "dark"
    ) -> dict[str, dict[str, Any] | None]:
        """The landscape with the walks, and the images of candidates that are frames."""
        frames = frames_figure(result, theme).to_dict() if result.slice.frames else None
        return {"landscape": figure_parts(result, theme, self.coarse), "frames": frames}

    def summary(
        self,
        result: Trajectories,  # of `compute`
    ) -> tuple[dict[str, str | tuple[str, ...]], str]:
        """Energies, distances and costs, and the description of the energy."""
        return summary_lines(result), result.note

    def warning(
        self,
        result: Trajectories,  # of `compute`
    ) -> str:
        """Walks that diverged or increased the energy."""
        return warning(result)

    def rows(self) -> list[Any]:
        """The controls, and below the presets the idea of the chosen one."""
        preset, *others = super().rows()
        return [preset, self.lesson, *others]

    def shown_value(
        self,
        name: str,  # of a control
    ) -> Any:
        """The value that a control should have."""
        settings = self.settings
        if name in ("x", "y"):
            return float(self.result.points[0, 0, "xy".index(name)])
        if name == "start" and settings.x is not None:
            return POINT
        if name == "preset":
            return preset_of(self.presets, settings)
        if name == "step":
            return settings.shown
        value = getattr(settings, name)
        return getattr(settings, name[:-2]) if value is None else value  # a sampler without settings of its own

    def set_controls(self) -> None:
        """Set values and ranges, hide the settings without effect, and disable those that a sampler does not use."""
        controls, where, scene = self.controls, self.result.slice, self.scenes[self.settings.energy]
        controls["start"].options = (*scene.starts, POINT)
        for name in ("preset", "energy", "noise", "steps", "walks", "seed", "start", "angle"):
            controls[name].value = self.shown_value(name)
        set_range(controls["step"], 0, self.settings.steps, self.settings.shown)
        for end in ("", "_2", "_3"):
            self._set_sampler(end, scene.settings)
        for name, centre in zip("xy", where.centre, strict=True):
            controls[name].step = where.half_width / 200
            low, high = centre - where.half_width, centre + where.half_width
            set_range(controls[name], low, high, self.shown_value(name))
        _show(controls["angle"], scene.turns)
        controls["noise"].disabled = all(run.settings.sampler in THERMAL for run in self.result.runs)
        lesson = self.presets.get(controls["preset"].value)
        self.lesson.value = f'<div style="{NARROW}"><i>{html.escape(lesson.lesson)}</i></div>' if lesson else ""

    def _set_sampler(self, end: str, usual: Settings) -> None:
        """Set the controls of one sampler; `usual` are the settings that suit the energy."""
        sampler = getattr(self.settings, f"sampler{end}")
        self.controls[f"sampler{end}"].value = sampler
        for name in ("step_size", "temperature"):
            control, value = self.controls[name + end], self.shown_value(name + end)
            middle = round(math.log10(getattr(usual, name)))
            set_range(control, middle - 3, middle + 2, value)
            _show(control, sampler != NONE)
        self.controls[f"temperature{end}"].disabled = sampler not in THERMAL

    def settings_after(
        self,
        name: str,  # of the control that was changed
        value: Any,  # its new value
    ) -> Settings:
        """The settings after a change; each energy has settings that suit it."""
        settings = self.settings
        if name == "preset":
            return settings if value == FREE else self.presets[value].settings
        if name == "energy":
            return replace(self.scenes[value].settings, walks=settings.walks, seed=settings.seed)
        if name in ("x", "y") or value == POINT:
            return replace(settings, **{axis: self.controls[axis].value for axis in "xy"})
        if name == "start":
            return replace(settings, start=value, x=None, y=None)
        if name in ("step", "steps"):
            return _with_step(settings, **{name: value})
        if value == NONE:
            return replace(settings, **{name: value, f"step_size{name[-2:]}": None, f"temperature{name[-2:]}": None})
        return replace(settings, **{name: value})

    @one_at_a_time
    def _clicked(self, trace: Any, points: Any, selector: Any) -> None:
        if points.xs:
            self.show(replace(self.settings, x=float(points.xs[0]), y=float(points.ys[0])))


def _with_step(settings: Settings, step: int | None = None, steps: int | None = None) -> Settings:
    """Another shown step or number of steps; the last step stays the last one."""
    steps, step = steps or settings.steps, settings.step if step is None else step
    return replace(settings, steps=steps, step=None if step is None or step >= steps else step)


def _show(control: Any, shown: bool) -> None:
    control.layout.display = None if shown else "none"
