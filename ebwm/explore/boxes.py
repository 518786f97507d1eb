"""Controls for texts, several choices, and yes or no."""

from collections.abc import Iterable
from typing import Any

from .controls import labelled

__all__ = ["choices", "set_choices", "text_box", "tick_box"]


def text_box(
    label: str,  # beside the control
    rows: int = 1,  # lines
    tip: str = "",  # tooltip; "": the label
) -> Any:  # widget
    """A box for a text; it reports a change when it loses the focus."""
    kind, size = ("Text", {}) if rows == 1 else ("Textarea", {"rows": rows})
    return labelled(kind, label, tip, continuous_update=False, **size)


def tick_box(
    label: str,  # beside the control
    tip: str = "",  # tooltip; "": the label
) -> Any:  # widget
    """A box to tick."""
    return labelled("Checkbox", label, tip)


def choices(
    label: str,  # beside the control
    rows: int,  # lines
    tip: str = "",  # tooltip; "": the label
) -> Any:  # widget
    """A list of which several entries can be chosen; `set_choices` fills it."""
    return labelled("SelectMultiple", label, tip, rows=rows)


def set_choices(
    widget: Any,  # of `choices`
    options: Iterable[str],  # all entries
    chosen: Iterable[str],  # some of them
) -> None:
    """Set entries and choice; unchanged entries are not sent again."""
    options = tuple(options)
    if tuple(widget.options) != options:
        widget.options = options
    widget.value = tuple(name for name in options if name in set(chosen))
