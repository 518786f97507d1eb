"""Base class of the explorers: controls, figures, a message line, a summary and settings as JSON."""

import dataclasses
import html
import json
import math
from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import Any

from ..compat import require

__all__ = ["Explorer", "dropdown", "integer_box", "integer_slider", "is_rounding", "log_slider", "set_range", "slider",
           "update_figure"]

WIDTH = "width:330px;line-height:1.4"
COLUMNS = "0 0 345px", "0 0 610px"  # flex layout of controls and figures


# Widgets


def _widget(kind: str, **options: Any) -> Any:
    widgets = require("ipywidgets", "figures")
    style, layout = dict(description_width="86px"), dict(width="330px")
    return getattr(widgets, kind)(layout=layout, style=style, **options)


def dropdown(
    label: str,  # beside the control
    options: Any,  # names to choose from
) -> Any:  # widget
    """A list to choose from."""
    return _widget("Dropdown", options=list(options), description=label)


def slider(
    label: str,  # beside the control
    low: float,  # least value
    high: float,  # greatest value
    step: float = 0.01,  # between values
    digits: str = ".3g",  # format of the value
) -> Any:  # widget
    """A slider of numbers."""
    return _widget("FloatSlider", min=low, max=high, step=step, value=low, description=label, readout_format=digits)


def log_slider(
    label: str,  # beside the control
    low: float,  # least exponent of 10
    high: float,  # greatest exponent of 10
    value: float = 1.0,  # initial value
) -> Any:  # widget
    """A slider of positive numbers on a logarithmic scale."""
    return _widget("FloatLogSlider", min=low, max=high, step=0.01, value=value, description=label,
                   readout_format=".3g")


def integer_slider(
    label: str,  # beside the control
    low: int,  # least value
    high: int,  # greatest value
) -> Any:  # widget
    """A slider of integers."""
    return _widget("IntSlider", min=low, max=high, step=1, value=low, description=label, readout_format="d")


def integer_box(
    label: str,  # beside the control
    high: int,  # greatest value; the least is 0
) -> Any:  # widget
    """A box for an integer."""
    return _widget("BoundedIntText", min=0, max=high, description=label)


def set_range(
    widget: Any,  # a slider
    low: float,  # new least value
    high: float,  # new greatest value
    value: float,  # new value
) -> None:
    """Change range and value of a slider, in an order in which the value is always in the range."""
    widget.min, widget.max = min(widget.min, low), max(widget.max, high)
    widget.value = value
    widget.min, widget.max = low, high


def is_rounding(
    widget: Any,  # a slider of numbers
    value: float,  # reported by the slider
    sent: float,  # sent to the slider
) -> bool:
    """Whether a value differs from the one that was sent only by rounding to the slider's steps."""
    logarithmic = hasattr(widget, "base") and min(value, sent) > 0
    return abs(math.log(value / sent, widget.base) if logarithmic else value - sent) < 0.75 * widget.step


def update_figure(
    shown: Any,  # plotly FigureWidget
    before: dict[str, Any],  # the figure that it shows, as a dictionary
    wanted: dict[str, Any],  # a figure with traces of the same types, as a dictionary
) -> None:
    """Change a figure in place; only the differences are sent to the browser."""
    differences = lambda old, new: {name: value for name, value in new.items() if old.get(name) != value}
    with shown.batch_update():
        for trace, old, new in zip(shown.data, before["data"], wanted["data"], strict=True):
            trace.update(differences(old, new))
        shown.layout.update(differences(before["layout"], wanted["layout"]))


# Explorers


class Explorer(ABC):
    """Widgets that show a pure function of some settings; `view` displays all of them.

    Settings are a frozen dataclass of plain values. A change of a control makes new settings; result, figures,
    message and summary follow from the settings alone. If the new settings cannot be computed, the message line
    contains the error, and everything else remains.
    """

    def __init__(
        self,
        settings: Any,  # initial settings
        controls: dict[str, Any],  # widgets by name; by default the name of a setting
        theme: str = "light",  # or "dark"
    ):
        widgets = require("ipywidgets", "figures")
        require("anywidget", "figures")
        self.settings, self.controls, self.theme, self._updating = settings, controls, theme, False
        self.dark = widgets.ToggleButton(value=theme == "dark", description="dark", layout=dict(width="90px"))
        self.message, self.table = widgets.HTML(), widgets.HTML()
        self.result = self.compute(settings)
        drawn = self.draw(self.result, theme)
        self._drawn = {}
        self._boxes = {name: widgets.Box(layout=dict(flex="0 0 auto")) for name in drawn}
        left = widgets.VBox([*controls.values(), self.dark, self.message, self.table])
        right = widgets.VBox(list(self._boxes.values()))
        left.layout.flex, right.layout.flex = COLUMNS
        self.view = widgets.HBox([left, right])
        self._update(drawn)
        for name, control in controls.items():
            control.observe(lambda change, name=name: self._changed(name, change["new"]), "value")
        self.dark.observe(lambda change: self.show(self.settings, ("light", "dark")[change["new"]]), "value")

    # A subclass defines these

    @abstractmethod
    def compute(
        self,
        settings: Any,  # of the class of the initial settings
    ) -> Any:
        """Compute the result that the figures show; the settings are checked here."""

    @abstractmethod
    def draw(
        self,
        result: Any,  # of `compute`
        theme: str,  # "light" or "dark"
    ) -> dict[str, dict[str, Any] | None]:
        """Figures by name, as dictionaries of plotly; None hides a figure."""

    @abstractmethod
    def summary(
        self,
        result: Any,  # of `compute`
    ) -> tuple[dict[str, str], str]:
        """Rows of the summary table, and a note below it."""

    def warning(
        self,
        result: Any,  # of `compute`
    ) -> str:
        """One line for the message line; empty if there is no problem."""
        return ""

    def set_controls(self) -> None:
        """Set the controls to the values of the settings; here, those with the name of a setting."""
        for name, control in self.controls.items():
            control.value = self.shown_value(name)

    def shown_value(
        self,
        name: str,  # of a control
    ) -> Any:
        """The value that a control should have."""
        return getattr(self.settings, name)

    def settings_after(
        self,
        name: str,  # of the control that was changed
        value: Any,  # its new value
    ) -> Any:
        """The settings after a change of a control."""
        return dataclasses.replace(self.settings, **{name: value})

    # The rest is the same for all explorers

    def show(
        self,
        settings: Any,  # to show
        theme: str | None = None,  # "light" or "dark"; None: unchanged
    ) -> None:
        """Compute and show new settings; an error is shown in the message line."""
        theme = theme or self.theme
        try:
            result = self.compute(settings)
            drawn = self.draw(result, theme)
        except Exception as error:  # of any type: shown as a line and not as a traceback
            self._show_message(str(error).partition("\n")[0] or repr(error))
            return
        self.settings, self.result, self.theme = settings, result, theme
        self._update(drawn)

    def figure(
        self,
        name: str,  # as in `draw`
    ) -> Any | None:  # None if it has not been shown yet
        """A figure widget."""
        return next(iter(self._boxes[name].children), None)

    def to_json(self) -> str:
        """The settings as JSON."""
        return json.dumps(dataclasses.asdict(self.settings))

    def show_json(
        self,
        text: str,  # of `to_json`
    ) -> None:
        """Show settings that were saved as JSON."""
        self.show(type(self.settings)(**json.loads(text)))

    def _update(self, drawn: dict[str, dict[str, Any] | None]) -> None:
        """Set figures, controls, message and table; each control sends its changes at once."""
        self._updating = True
        try:
            for name, wanted in drawn.items():
                self._set_figure(name, wanted)
            with ExitStack() as held:
                for control in self.controls.values():
                    held.enter_context(control.hold_sync())
                self.set_controls()
            self._show_message(self.warning(self.result))
            self.table.value = _table(*self.summary(self.result))
        finally:
            self._updating = False

    def _set_figure(self, name: str, wanted: dict[str, Any] | None) -> None:
        box = self._boxes[name]
        box.layout.display = "none" if wanted is None else "flex"
        if wanted is None:
            return
        if box.children:
            update_figure(box.children[0], self._drawn[name], wanted)
        else:
            box.children = (require("plotly.graph_objects", "figures").FigureWidget(wanted),)
        self._drawn[name] = wanted

    def _changed(self, name: str, value: Any) -> None:
        """React to a change by the user; ignore those that `_update` caused."""
        if self._updating:
            return
        control, sent = self.controls[name], self.shown_value(name)
        if hasattr(control, "step") and is_rounding(control, value, sent):
            return  # a slider in the browser reports the rounded value
        self.show(self.settings_after(name, value))

    def _show_message(self, line: str) -> None:
        line = html.escape(line)
        self.message.value = f'<div style="{WIDTH};color:#c2410c"><b>{line}</b></div>' if line else ""


def _table(lines: dict[str, str], note: str) -> str:
    row = '<tr style="white-space:nowrap"><td style="padding-right:12px">{}</td><td><b>{}</b></td></tr>'
    rows = "".join(row.format(*map(html.escape, pair)) for pair in lines.items())
    return f'<div style="{WIDTH}"><table>{rows}</table><p><i>{html.escape(note)}</i></p></div>'
