"""The tokens explorer: a context, the walks of an EBT to the next token, and a Transformer beside it."""

from dataclasses import replace
from typing import Any

from .boxes import text_box
from .controls import Explorer, integer_box, integer_slider, one_at_a_time, set_range, slider
from .next_token import (
    EXAMPLES,
    MAX_SEED,
    MAX_STEPS,
    MAX_WALKS,
    TEMPERATURES,
    Models,
    TokensResult,
    TokensSettings,
    compute,
    included,
    note,
    summary_lines,
)
from .token_plots import context_figure, next_figure, walks_figure

__all__ = ["TokensExplorer", "TokensResult", "TokensSettings", "compute"]

FIGURES = {"next": next_figure, "walks": walks_figure, "context": context_figure}


def _controls() -> dict[str, Any]:
    """One widget for each setting."""
    return {
        "example": integer_slider("example", 1, len(EXAMPLES)),
        "text": text_box("context", 4, "a text to continue; leave the box to use it"),
        "steps": integer_slider("steps", 1, MAX_STEPS),
        "walks": integer_slider("walks", 1, MAX_WALKS),
        "step": integer_slider("step", 0, 1),
        "temperature": slider("temperature", *TEMPERATURES, 0.05, ".2f"),
        "seed": integer_box("seed", MAX_SEED),
    }


class TokensExplorer(Explorer):
    """Explorer of predictions of the next token; `view` displays it, a click on a token appends it to the context."""

    def __init__(
        self,
        settings: TokensSettings | None = None,  # initial settings; None: the defaults
        theme: str = "light",  # or "dark"
        models: Models | None = None,  # an EBT and a Transformer of the same tokens; None: the included ones
    ):
        self.models = models or included()
        super().__init__(settings or TokensSettings(), _controls(), theme)
        for bars in self.figure("next").data:
            bars.on_click(self._clicked)

    def compute(
        self,
        settings: TokensSettings,  # context and walks
    ) -> TokensResult:
        """Predict the token after the context."""
        return compute(settings, self.models)

    def draw(
        self,
        result: TokensResult,  # of `compute`
        theme: str,  # "light" or "dark"
    ) -> dict[str, dict[str, Any] | None]:
        """The next tokens, the walks, and the tokens of the context."""
        return {name: plot(result, theme).to_dict() for name, plot in FIGURES.items()}

    def summary(
        self,
        result: TokensResult,  # of `compute`
    ) -> tuple[dict[str, str], str]:
        """Tokens, energies, entropies and costs, and what the text is."""
        return summary_lines(result), note(result)

    def shown_value(
        self,
        name: str,  # of a control
    ) -> Any:
        """The value that a control should have."""
        if name == "text":
            return self.result.text
        return getattr(self.settings, name)

    def set_controls(self) -> None:
        """Set the values, and the range of the shown step."""
        set_range(self.controls["step"], 0, self.settings.steps, self.settings.step)
        super().set_controls()

    def settings_after(
        self,
        name: str,  # of the control that was changed
        value: Any,  # its new value
    ) -> TokensSettings:
        """The settings after a change: an example replaces the own text, and more steps are shown to their end."""
        if name == "example":
            return replace(self.settings, example=value, text="")
        if name == "steps":
            return replace(self.settings, steps=value, step=value)
        return super().settings_after(name, value)

    @one_at_a_time
    def _clicked(self, trace: Any, points: Any, selector: Any) -> None:
        """Append the token of a bar."""
        if points.point_inds:
            token = int(self.result.top()[points.point_inds[0]])
            self.show(replace(self.settings, text=self.result.text + self.models.ebt.tokenizer.decode([token])))
