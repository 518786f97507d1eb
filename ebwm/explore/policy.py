"""The policy explorer: episodes of the task `reach`, the chunks that a policy chooses among, and a push."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..policy.policies import Policy
from ..policy.reach import Reach
from .controls import Explorer, dropdown, integer_box, integer_slider, one_at_a_time, set_range, slider
from .episodes import (
    MAX_PUSH,
    MAX_SAMPLES,
    MAX_STEPS,
    POLICIES,
    Episode,
    EpisodeSettings,
    compute,
    shipped_policies,
    summary_lines,
)
from .policy_plots import chunks_figure, energy_figure

__all__ = ["POLICIES", "EpisodeSettings", "PolicyExplorer", "compute", "shipped_policies", "summary_lines"]


class PolicyExplorer(Explorer):
    """Explorer of episodes of `reach`; a click on the picture pushes the point from the step that is shown."""

    def __init__(
        self,
        policies: Mapping[str, Policy] | None = None,  # by name; None: the included ones
        settings: EpisodeSettings | None = None,  # initial settings; None: the defaults with the first policy
        theme: str = "light",  # or "dark"
    ):
        self.policies = shipped_policies() if policies is None else dict(policies)
        controls = {
            "policy": dropdown("policy", self.policies),
            "seed": integer_box("seed", 9999),
            "steps": integer_slider("think steps", 1, MAX_STEPS),
            "samples": integer_slider("candidates", 1, MAX_SAMPLES),
            "step": integer_slider("step", 0, Reach.limit),
            "push_at": integer_slider("push at", 0, Reach.limit),
            "push_x": slider("push x", -MAX_PUSH, MAX_PUSH, digits=".2f"),
            "push_y": slider("push y", -MAX_PUSH, MAX_PUSH, digits=".2f"),
        }
        super().__init__(settings or EpisodeSettings(next(iter(self.policies))), controls, theme)
        self.figure("episode").data[0].on_click(self._clicked)

    def compute(
        self,
        settings: EpisodeSettings,  # of the episode
    ) -> Episode:
        """Run the episode."""
        return compute(self.policies, settings)

    def draw(
        self,
        result: Episode,  # of `compute`
        theme: str,  # "light" or "dark"
    ) -> dict[str, dict[str, Any] | None]:
        """The episode with candidate chunks, and the energy by time."""
        energies = result.choice.energies is not None
        return {"episode": chunks_figure(result, theme), "energy": energy_figure(result, theme) if energies else None}

    def summary(
        self,
        result: Episode,  # of `compute`
    ) -> tuple[dict[str, str], str]:
        """Outcome and costs."""
        note = ("Lines are candidate chunks from other noise, and the wide one is that which is executed up to the next "
                "prediction. Click to push the point at the step that is shown.")
        return summary_lines(result), note

    def set_controls(self) -> None:
        """Set the values; the time step ends with the episode."""
        set_range(self.controls["step"], 0, len(self.result.path) - 1, self.result.step)
        for name, control in self.controls.items():
            if name != "step":
                control.value = self.shown_value(name)

    def shown_value(
        self,
        name: str,  # of a control
    ) -> Any:
        """The value that a control should have."""
        return self.result.step if name == "step" else getattr(self.settings, name)

    @one_at_a_time
    def _clicked(self, trace: Any, points: Any, selector: Any) -> None:
        """Push the point from where it is towards a place."""
        if not points.xs:
            return
        here = self.result.path[self.result.step].tolist()
        dx, dy = float(points.xs[0]) - here[0], float(points.ys[0]) - here[1]
        scale = min(1.0, MAX_PUSH / max(math.hypot(dx, dy), 1e-9))
        at = max(1, self.result.step)
        self.show(replace(self.settings, push_at=at, push_x=round(scale * dx, 3), push_y=round(scale * dy, 3)))
