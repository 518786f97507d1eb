"""Base class of the explorers: controls, figures, a message line, a summary and settings as JSON."""

import asyncio
import dataclasses
import functools
import html
import math
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from ..compat import require
from ..usage import UsageError
from .state import settings_from, state_text

__all__ = ["NARROW", "Explorer", "dropdown", "integer_box", "integer_slider", "is_rounding", "labelled", "log_slider",
           "one_at_a_time", "player", "set_range", "slider", "update_figure"]

NARROW = "max-width:330px;line-height:1.4"  # style of texts in the column of controls
MESSAGE = "600px"  # width of the message line
WARNING = {"light": "#c2410c", "dark": "#fb923c"}  # its colour on the background of a theme
LONG = 36  # characters of a value that has lines
COLUMNS = "0 1 345px", "0 1 610px"  # flex layout of controls and figures


MINUS = re.compile(r"(?<![\w.-])-(?=[\d.])")  # of a number


# Widgets


def labelled(
    kind: str,  # class of ipywidgets
    label: str,  # beside the control
    tip: str,  # tooltip; "": the label
    **options: Any,  # of the class
) -> Any:  # widget
    """A control with a label at its left, as wide as the column of controls."""
    widgets = require("ipywidgets", "figures")
    style, layout = dict(description_width="100px"), dict(width="330px", max_width="100%")
    return getattr(widgets, kind)(description=label, tooltip=tip or label, layout=layout, style=style, **options)


def dropdown(
    label: str,  # beside the control
    options: Any,  # names to choose from
    tip: str = "",  # tooltip; "": the label
) -> Any:  # widget
    """A list to choose from."""
    return labelled("Dropdown", label, tip, options=list(options))


def slider(
    label: str,  # beside the control
    low: float,  # least value
    high: float,  # greatest value
    step: float = 0.01,  # between values
    digits: str = ".3g",  # format of the value
    tip: str = "",  # tooltip; "": the label
) -> Any:  # widget
    """A slider of numbers."""
    return labelled("FloatSlider", label, tip, min=low, max=high, step=step, value=low, readout_format=digits)


def log_slider(
    label: str,  # beside the control
    low: float,  # least exponent of 10
    high: float,  # greatest exponent of 10
    value: float = 1.0,  # initial value
    tip: str = "",  # tooltip; "": the label
) -> Any:  # widget
    """A slider of positive numbers on a logarithmic scale."""
    return labelled("FloatLogSlider", label, tip, min=low, max=high, step=0.01, value=value, readout_format=".3g")


def integer_slider(
    label: str,  # beside the control
    low: int,  # least value
    high: int,  # greatest value
    tip: str = "",  # tooltip; "": the label
) -> Any:  # widget
    """A slider of integers."""
    return labelled("IntSlider", label, tip, min=low, max=high, step=1, value=low, readout_format="d")


def integer_box(
    label: str,  # beside the control
    high: int,  # greatest value; the least is 0
    tip: str = "",  # tooltip; "": the label
) -> Any:  # widget
    """A box for an integer."""
    return labelled("BoundedIntText", label, tip, min=0, max=high)


def player(
    step: Any,  # the slider of the shown step
    interval: int,  # milliseconds between steps
) -> Any:  # widget
    """Buttons that move a slider from its least to its greatest value."""
    widgets = require("ipywidgets", "figures")
    play = widgets.Play(min=step.min, max=step.max, value=step.value, interval=interval,
                        tooltip="play the steps, go back to the first one, repeat", layout=dict(margin="2px 0 2px 98px"))
    for name in ("min", "max"):
        widgets.dlink((step, name), (play, name))
    widgets.link((step, "value"), (play, "value"))
    return play


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
    return abs(math.log(value / sent, widget.base) if logarithmic else value - sent) < 0.51 * widget.step


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


def one_at_a_time(
    method: Callable,  # of an explorer, which reads and changes its settings
) -> Callable:
    """A method that waits while another thread is in such a method of the same explorer.

    ipykernel answers a widget in the thread from which the widget last sent anything, so the messages of two controls
    may arrive in two threads.
    """
    @functools.wraps(method)
    def locked(self: "Explorer", *args: Any, **options: Any) -> Any:
        with self._lock:
            return method(self, *args, **options)

    return locked


class Explorer(ABC):
    """Widgets that show a pure function of some settings; `view` displays all of them.

    Settings are a frozen dataclass of plain values. A change of a control makes new settings; result, figures,
    message and summary follow from the settings alone. If the new settings cannot be computed, the message line
    contains the error, and everything else remains. The field `state` has the settings as JSON; a state that is
    pasted there is restored. An integer control named `step` has buttons that play it.

    While a control moves, `coarse` is true if `settle` is not 0: `draw` may then draw a coarser picture, and the fine
    one follows `settle` seconds after the last change.
    """

    settle = 0.0  # seconds
    interval = 120  # milliseconds between two steps while they are played

    def __init__(
        self,
        settings: Any,  # initial settings
        controls: dict[str, Any],  # widgets by name; by default the name of a setting
        theme: str = "light",  # or "dark"
    ):
        widgets = require("ipywidgets", "figures")
        require("anywidget", "figures")
        self.settings, self.controls, self.theme, self._updating = settings, controls, theme, False
        self.coarse, self._timer, self._lock = False, None, threading.RLock()
        self.dark = widgets.ToggleButton(value=theme == "dark", description="dark", tooltip="dark figures",
                                         layout=dict(width="90px"))
        self.message, self.table = widgets.HTML(layout=dict(min_height="28px")), widgets.HTML()
        self.state = labelled("Textarea", "state", "the whole state: copy it, or paste one and leave the field",
                             rows=4, continuous_update=False)
        self.play = player(controls["step"], self.interval) if "step" in controls else None
        self.result = self.compute(settings)
        drawn = self.draw(self.result, theme)
        self._drawn = {}
        self._boxes = {name: widgets.Box(layout=dict(flex="0 0 auto", overflow="auto")) for name in drawn}
        left = widgets.VBox([*self.rows(), self.dark, self.table, self.state])
        right = widgets.VBox([self.message, *self._boxes.values()])
        for column, flex in zip((left, right), COLUMNS, strict=True):
            column.layout = dict(flex=flex, min_width="0", max_width="100%")
        self.view = widgets.HBox([left, right], layout=dict(flex_flow="row wrap"))
        self._update(drawn)
        self._observe()

    def _observe(self) -> None:
        for name, control in self.controls.items():
            control.observe(lambda change, name=name: self._changed(name, change["new"]), "value")
        self.dark.observe(lambda change: self._paint(("light", "dark")[change["new"]]), "value")
        self.state.observe(lambda change: self._pasted(change["new"]), "value")

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
    ) -> tuple[dict[str, str | tuple[str, ...]], str]:
        """Rows of the summary table with one value or several, and a note below it."""

    def warning(
        self,
        result: Any,  # of `compute`
    ) -> str:
        """One line for the message line; empty if there is no problem."""
        return ""

    def rows(self) -> list[Any]:
        """Widgets of the left column from the top; here, the controls, and below `step` the buttons that play it."""
        found = []
        for name, control in self.controls.items():
            found += [control, self.play] if name == "step" else [control]
        return found

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

    @one_at_a_time
    def show(
        self,
        settings: Any,  # to show
        theme: str | None = None,  # "light" or "dark"; None: unchanged
    ) -> bool:  # whether they are shown
        """Compute and show new settings; an error is shown in the message line."""
        theme = theme or self.theme
        try:
            result = self.compute(settings)
            drawn = self.draw(result, theme)
        except Exception as error:  # of any type: shown as a line and not as a traceback
            self._show_error(error)
            return False
        self.settings, self.result, self.theme = settings, result, theme
        self._update(drawn)
        return True

    @one_at_a_time
    def refresh(self) -> None:
        """Compute and show the same settings again."""
        self.show(self.settings)

    def figure(
        self,
        name: str,  # as in `draw`
    ) -> Any | None:  # None if it has not been shown yet
        """A figure widget."""
        return next(iter(self._boxes[name].children), None)

    def to_json(self) -> str:
        """The settings as JSON."""
        return state_text(self.settings)

    @one_at_a_time
    def show_json(
        self,
        text: str,  # of `to_json`
    ) -> None:
        """Show settings that were saved as JSON; if they are not valid, the message line says why."""
        try:
            settings = settings_from(type(self.settings), text)
        except UsageError as error:
            self._show_message(str(error))
            return
        self.show(settings)

    @one_at_a_time
    def _paint(self, theme: str) -> None:
        self.show(self.settings, theme)

    @one_at_a_time
    def _pasted(self, text: str) -> None:
        if not self._updating:
            self.show_json(text)

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
            self.state.value = self.to_json()
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

    @one_at_a_time
    def _changed(self, name: str, value: Any) -> None:
        """React to a change by the user; ignore those that `_update` caused."""
        if self._updating:
            return
        control, sent = self.controls[name], self.shown_value(name)
        if hasattr(control, "step") and is_rounding(control, value, sent):
            return  # a slider in the browser reports the rounded value
        try:
            settings = self.settings_after(name, value)
        except Exception as error:  # such as that of a missing package
            self._show_error(error)
        else:
            self._show_soon(settings)

    def _show_soon(self, settings: Any) -> None:
        """Show settings; coarse at first, where an event loop can show the fine picture later."""
        try:
            loop = asyncio.get_running_loop() if self.settle else None
        except RuntimeError:
            loop = None
        if loop is None:
            self.show(settings)
            return
        waiting, self._timer = self._timer, None
        if waiting:
            waiting.cancel()
        self.coarse = True
        try:
            shown = self.show(settings)
        finally:
            self.coarse = False
        if shown or waiting:
            self._timer = loop.call_later(self.settle, self.refresh if shown else self._refine)

    def _refine(self) -> None:
        """Show the fine picture of the present settings, and keep the message that refused others."""
        message = self.message.value
        self.refresh()
        self.message.value = message

    def _show_error(self, error: Exception) -> None:
        self._show_message(str(error).partition("\n")[0] or repr(error))

    def _show_message(self, line: str) -> None:
        line = html.escape(line)
        style = f"max-width:{MESSAGE};line-height:1.4;color:{WARNING[self.theme]}"
        self.message.value = f'<div style="{style}"><b>{line}</b></div>' if line else ""


def _table(lines: dict[str, str | tuple[str, ...]], note: str) -> str:
    """A row for each quantity, with one value or several beside each other."""
    cell = '<td style="padding-right:12px;vertical-align:top{}">{}</td>'
    rows = ""
    for name, values in lines.items():
        values = (values,) if isinstance(values, str) else values
        wrap = ";white-space:nowrap" if len(values) == 1 and len(values[0]) < LONG else ""
        cells = "".join(cell.format(wrap, f"<b>{html.escape(MINUS.sub('−', value))}</b>") for value in values)
        rows += f'<tr>{cell.format("", html.escape(name))}{cells}</tr>'
    return f'<div style="{NARROW}"><table>{rows}</table><p><i>{html.escape(note)}</i></p></div>'
