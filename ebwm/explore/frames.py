"""The frames explorer: an EBT predicts the next frame of a clip, step by step and several times."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from .controls import Explorer, integer_box, integer_slider, log_slider
from .frame_plots import curves_figure, images_figure
from .frame_walks import (
    MAX_STEPS,
    FrameModels,
    FramesResult,
    Settings,
    compute,
    included_models,
    run_models,
    summary_lines,
    warning,
)
from .scenes import MAX_WALKS

__all__ = ["FrameModels", "FramesExplorer", "FramesResult", "Settings", "compute", "included_models", "run_models"]


def _controls(models: FrameModels) -> dict[str, Any]:
    return {
        "clip": integer_slider("clip", 0, len(models.clips) - 1),
        "position": integer_slider("frames seen", 1, models.clips.frames - 1),
        "steps": integer_slider("steps", 1, MAX_STEPS),
        "step": integer_slider("step", 0, 1),
        "walks": integer_slider("walks", 1, MAX_WALKS),
        "factor": log_slider("step size ×", -1, 1),
        "seed": integer_box("seed", 9999),
    }


class FramesExplorer(Explorer):
    """Explorer of the prediction of a frame; `view` displays it."""

    def __init__(
        self,
        models: FrameModels | None = None,  # to predict with; None: the included ones
        settings: Settings | None = None,  # initial settings; None: the defaults
        theme: str = "light",  # or "dark"
    ):
        self.models = models or included_models()
        settings = settings or Settings(position=min(Settings.position, self.models.clips.frames - 1))
        super().__init__(settings, _controls(self.models), theme)

    @classmethod
    def from_run(
        cls,
        folder: Path | str,  # of a finished run of an EBT on clips
        baseline: Path | str | None = None,  # of a finished run of a Transformer++ on the same data
        theme: str = "light",  # or "dark"
    ) -> "FramesExplorer":
        """An explorer of the models of finished runs."""
        return cls(run_models(folder, baseline), theme=theme)

    def compute(
        self,
        settings: Settings,  # of the walks
    ) -> FramesResult:
        """Run the walks."""
        return compute(self.models, settings)

    def draw(
        self,
        result: FramesResult,  # of `compute`
        theme: str,  # "light" or "dark"
    ) -> dict[str, dict[str, Any] | None]:
        """The images, and energies and errors by step."""
        return {"images": images_figure(result, theme), "curves": curves_figure(result, theme)}

    def summary(
        self,
        result: FramesResult,  # of `compute`
    ) -> tuple[dict[str, str], str]:
        """Energies, errors and spread, and the description of the models."""
        return summary_lines(result), result.note

    def warning(
        self,
        result: FramesResult,  # of `compute`
    ) -> str:
        """Walks that diverged or increased the energy."""
        return warning(result)

    def set_controls(self) -> None:
        """Set the controls to the values of the settings; the shown step is at most the number of steps."""
        self.controls["step"].max = max(self.settings.steps, self.controls["step"].value)
        super().set_controls()
        self.controls["step"].max = self.settings.steps

    def settings_after(
        self,
        name: str,  # of the control that was changed
        value: Any,  # its new value
    ) -> Settings:
        """The settings after a change; after a change of the number of steps, the last one is shown."""
        return replace(self.settings, **{name: value}, **({"step": value} if name == "steps" else {}))
