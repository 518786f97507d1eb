"""Exceptions of the figure engine."""

from ebwm.usage import Failure, UsageError

__all__ = ["FigureError", "NotebookError"]


class FigureError(UsageError):
    """Invalid request about figures; the message is one line and says what is allowed."""


class NotebookError(Failure):
    """Failed notebook of a figure; the message is one line and names the partial notebook."""
