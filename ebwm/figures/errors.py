"""Exceptions of the figure engine."""

__all__ = ["FigureError", "NotebookError"]


class FigureError(ValueError):
    """Invalid request about figures; the message is one line and says what is allowed."""


class NotebookError(RuntimeError):
    """Failed notebook of a figure; the message is one line and names the partial notebook."""
