"""The training explorer: curves of runs, also while they are trained."""

import asyncio
from dataclasses import replace
from typing import Any

from ..checks import positive
from ..compat import require
from .boxes import choices, set_choices, text_box, tick_box
from .controls import Explorer, slider
from .run_plots import quantity_figure
from .runs import MAX_SHOWN, SMOOTHEST, TrainingResult, TrainingSettings, compute, summary_lines, warning

__all__ = ["TrainingExplorer", "TrainingResult", "TrainingSettings", "compute"]

SECONDS = 2.0  # between readings of a live explorer
NOTE = ("Faint lines are values without smoothing, diamonds validation losses, crosses faults. Energy gap, inner gradient "
        "norm and the share of walks that rise are medians over a few walks, every run.monitor_every updates.")


def _controls() -> dict[str, Any]:
    """One widget for each setting."""
    return {
        "folder": text_box("folder", tip="folder of runs"),
        "runs": choices("runs", 6, "hold Ctrl or Shift to choose several; none: the last ones"),
        "shown": choices("quantities", 10, "hold Ctrl or Shift to choose several"),
        "smoothing": slider("smoothing", 0, SMOOTHEST, digits=".2f"),
        "log": tick_box("logarithmic"),
    }


class TrainingExplorer(Explorer):
    """Explorer of training runs; `view` displays it, `watch` keeps it up to date."""

    def __init__(
        self,
        settings: TrainingSettings | None = None,  # initial settings; None: the last runs of the machine's settings
        theme: str = "light",  # or "dark"
    ):
        self._watching, self.seconds = None, SECONDS
        self.live = require("ipywidgets", "figures").ToggleButton(
            description="live", tooltip=f"read the logs again every {SECONDS:g} seconds", layout=dict(width="90px"))
        super().__init__(settings or TrainingSettings(), _controls(), theme)
        left = self.view.children[0]
        place = left.children.index(self.dark)
        left.children = (*left.children[:place], self.live, *left.children[place:])
        self.live.observe(lambda change: self._switched(change["new"]), "value")

    def compute(
        self,
        settings: TrainingSettings,  # runs and quantities
    ) -> TrainingResult:
        """Read the curves."""
        return compute(settings)

    def draw(
        self,
        result: TrainingResult,  # of `compute`
        theme: str,  # "light" or "dark"
    ) -> dict[str, dict[str, Any] | None]:
        """A figure for each quantity that is shown."""
        slots = [*result.shown, *[None] * (MAX_SHOWN - len(result.shown))]
        return {f"figure {number + 1}": None if label is None else
                quantity_figure(result, label, theme, legend=not number) for number, label in enumerate(slots)}

    def summary(
        self,
        result: TrainingResult,  # of `compute`
    ) -> tuple[dict[str, str], str]:
        """State and losses of each run, and what the marks mean."""
        return summary_lines(result), NOTE

    def warning(
        self,
        result: TrainingResult,  # of `compute`
    ) -> str:
        """A folder without runs, or the last faults."""
        return warning(result)

    def shown_value(
        self,
        name: str,  # of a control
    ) -> Any:
        """The value that a control should have."""
        values = {"folder": str(self.result.folder), "runs": tuple(one.name for one in self.result.runs),
                  "shown": self.result.shown}
        return values.get(name, getattr(self.settings, name))

    def set_controls(self) -> None:
        """Set the values, and the runs and quantities to choose from."""
        set_choices(self.controls["runs"], self.result.known, self.shown_value("runs"))
        set_choices(self.controls["shown"], self.result.available, self.shown_value("shown"))
        for name in ("folder", "smoothing", "log"):
            self.controls[name].value = self.shown_value(name)

    def settings_after(
        self,
        name: str,  # of the control that was changed
        value: Any,  # its new value
    ) -> TrainingSettings:
        """The settings after a change; another folder has other runs."""
        if name == "folder":
            return replace(self.settings, folder=value.strip(), runs=())
        return super().settings_after(name, value)

    # Runs that are being trained

    def watch(
        self,
        seconds: float = SECONDS,  # between readings
    ) -> None:
        """Read the logs again and again, as the button "live" does; needs an event loop, which a notebook has."""
        positive("seconds", seconds)
        self.seconds, self.live.value = seconds, True

    def _switched(self, live: bool) -> None:
        """Start or stop to read."""
        if self._watching:
            self._watching.get_loop().call_soon_threadsafe(self._watching.cancel)
        self._watching = asyncio.get_running_loop().create_task(self._watch()) if live else None

    async def _watch(self) -> None:
        while True:
            self.refresh()
            await asyncio.sleep(self.seconds)
