"""The landscape explorer: an energy, a sampler and a start to choose, and the walks that follow."""

import math
from dataclasses import replace
from typing import Any

from .controls import Explorer, dropdown, integer_box, integer_slider, log_slider, set_range, slider
from .plots import figure, frames_figure
from .scenes import MAX_WALKS, Scene, Settings
from .walks import MAX_STEPS, SAMPLERS, THERMAL, Trajectories, compute, summary_lines, warning

__all__ = ["POINT", "LandscapeExplorer"]

POINT = "a point"  # start at a point of the plane that was chosen with x and y or by a click


def _controls(scenes: dict[str, Scene]) -> dict[str, Any]:
    """One widget for each setting."""
    return {
        "energy": dropdown("energy", scenes),
        "sampler": dropdown("sampler", SAMPLERS),
        "step_size": log_slider("step size", -4, 3, 0.1),
        "temperature": log_slider("temperature", -5, 1),
        "noise": slider("noise", 0, 1),
        "steps": integer_slider("steps", 1, MAX_STEPS),
        "walks": integer_slider("walks", 1, MAX_WALKS),
        "start": dropdown("start", ["noise"]),
        "x": slider("start x", -1, 1, digits=".2f"),
        "y": slider("start y", -1, 1, digits=".2f"),
        "seed": integer_box("seed", 9999),
    }


class LandscapeExplorer(Explorer):
    """Explorer of walks on energies; `view` displays it."""

    def __init__(
        self,
        scenes: dict[str, Scene],  # available energies, by name
        settings: Settings | None = None,  # initial settings; None: those of the first energy
        theme: str = "light",  # or "dark"
    ):
        self.scenes = scenes
        super().__init__(settings or next(iter(scenes.values())).settings, _controls(scenes), theme)
        self.figure("landscape").data[0].on_click(self._clicked)

    def compute(
        self,
        settings: Settings,  # of the walks
    ) -> Trajectories:
        """Run the walks."""
        return compute(self.scenes, settings)

    def draw(
        self,
        result: Trajectories,  # of `compute`
        theme: str,  # "light" or "dark"
    ) -> dict[str, dict[str, Any] | None]:
        """The landscape with the walks, and the images of candidates that are frames."""
        frames = frames_figure(result, theme).to_dict() if result.slice.frames else None
        return {"landscape": figure(result, theme).to_dict(), "frames": frames}

    def summary(
        self,
        result: Trajectories,  # of `compute`
    ) -> tuple[dict[str, str], str]:
        """Energies, distances and costs, and the description of the energy."""
        return summary_lines(result), result.note

    def warning(
        self,
        result: Trajectories,  # of `compute`
    ) -> str:
        """Walks that diverged or increased the energy."""
        return warning(result)

    def shown_value(
        self,
        name: str,  # of a control
    ) -> Any:
        """The value that a control should have."""
        if name in ("x", "y"):
            return float(self.result.points[0, 0, "xy".index(name)])
        if name == "start" and self.settings.x is not None:
            return POINT
        return getattr(self.settings, name)

    def set_controls(self) -> None:
        """Set values and ranges, and disable the settings that the sampler does not use."""
        controls, where, scene = self.controls, self.result.slice, self.scenes[self.settings.energy]
        controls["start"].options = (*scene.starts, POINT)
        for name in ("energy", "sampler", "noise", "steps", "walks", "seed", "start"):
            controls[name].value = self.shown_value(name)
        for name in ("step_size", "temperature"):
            middle = round(math.log10(getattr(scene.settings, name)))
            set_range(controls[name], middle - 3, middle + 2, self.shown_value(name))
        for name, centre in zip("xy", where.centre, strict=True):
            controls[name].step = where.half_width / 200
            low, high = centre - where.half_width, centre + where.half_width
            set_range(controls[name], low, high, self.shown_value(name))
        controls["temperature"].disabled = self.settings.sampler not in THERMAL
        controls["noise"].disabled = self.settings.sampler in THERMAL

    def settings_after(
        self,
        name: str,  # of the control that was changed
        value: Any,  # its new value
    ) -> Settings:
        """The settings after a change; each energy has settings that suit it."""
        if name == "energy":
            return replace(self.scenes[value].settings, walks=self.settings.walks, seed=self.settings.seed)
        if name in ("x", "y") or value == POINT:
            return replace(self.settings, **{axis: self.controls[axis].value for axis in "xy"})
        if name == "start":
            return replace(self.settings, start=value, x=None, y=None)
        return replace(self.settings, **{name: value})

    def _clicked(self, trace: Any, points: Any, selector: Any) -> None:
        if points.xs:
            self.show(replace(self.settings, x=float(points.xs[0]), y=float(points.ys[0])))
