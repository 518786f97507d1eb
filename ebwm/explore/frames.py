"""The frames explorer: an EBT predicts the next frame of a clip or a game, step by step and several times."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data.shown import PLAYED
from .controls import Explorer, dropdown, integer_box, integer_slider, log_slider, set_range
from .frame_plots import curves_figure, images_figure
from .frame_walks import (
    MAX_STEPS,
    OWN,
    SOURCES,
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


def _controls(sources: list[str], models: FrameModels) -> dict[str, Any]:
    return {
        "source": dropdown("source", sources),
        "clip": integer_slider("clip", 0, len(models.clips) - 1),
        "position": integer_slider("frames seen", 1, models.clips.frames - 1),
        "action": dropdown("action", models.actions, "of a game, after the frames that are seen"),
        "steps": integer_slider("steps", 1, MAX_STEPS, "think longer"),
        "step": integer_slider("step", 0, 1),
        "walks": integer_slider("walks", 1, MAX_WALKS),
        "factor": log_slider("step size ×", -1, 1),
        "seed": integer_box("seed", 9999),
    }


class FramesExplorer(Explorer):
    """Explorer of the prediction of a frame; `view` displays it.

    The included models of digits and of a game are always to choose from, beside those that are given.
    """

    def __init__(
        self,
        models: FrameModels | None = None,  # to begin with; None: those of the settings
        settings: Settings | None = None,  # initial settings; None: the defaults
        theme: str = "light",  # or "dark"
    ):
        self.models = models or included_models((settings or Settings()).source)
        self.own = self.models if self.models.source == OWN else None
        settings = settings or _inside(self.models, Settings())
        sources = [*SOURCES, *([OWN] if self.own else [])]
        super().__init__(settings, _controls(sources, self.models), theme)

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
        """Run the walks; the models of the source are loaded when they are first used."""
        return compute(self.models_of(settings.source), settings)

    def models_of(
        self,
        source: str,  # of the clips
    ) -> FrameModels:
        """The models of a source."""
        return self.own if self.own and source == OWN else included_models(source)

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
        """Set ranges and values of the controls to those of the settings; the shown step is at most the number of steps."""
        models, controls = self.models_of(self.settings.source), self.controls
        set_range(controls["clip"], 0, len(models.clips) - 1, self.settings.clip)
        set_range(controls["position"], 1, models.clips.frames - 1, self.settings.position)
        set_range(controls["step"], 0, self.settings.steps, self.settings.step)
        if controls["action"].options != models.actions:
            controls["action"].options = models.actions
        controls["action"].layout.display = None if models.actions[1:] else "none"
        super().set_controls()

    def settings_after(
        self,
        name: str,  # of the control that was changed
        value: Any,  # its new value
    ) -> Settings:
        """The settings after a change: the last of a new number of steps, and what there is in a new source."""
        after = replace(self.settings, **{name: value}, **({"step": value} if name == "steps" else {}))
        return _inside(self.models_of(value), after) if name == "source" else after


def _inside(models: FrameModels, settings: Settings) -> Settings:
    """Settings of these models, with the recorded action, and with clip and position in their ranges."""
    clip, position = min(settings.clip, len(models.clips) - 1), min(settings.position, models.clips.frames - 1)
    return replace(settings, source=models.source, clip=clip, position=position, action=PLAYED)
