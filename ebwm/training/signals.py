"""Signals that stop a run between two updates."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["CHILD_SIGNALS", "recorded_signals", "set_handler"]

CHILD_SIGNALS = [signal.SIGCHLD] if hasattr(signal, "SIGCHLD") else []  # sent when a child process ends


@contextlib.contextmanager
def recorded_signals() -> Iterator[list[str]]:  # names of the received signals
    """Record SIGTERM and SIGINT instead of exiting; a second SIGINT interrupts at once."""
    received = []

    def record(number: int, frame: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(signal.Signals(number).name)

    before = {number: set_handler(number, record) for number in (signal.SIGTERM, signal.SIGINT)}
    before |= {number: signal.getsignal(number) for number in CHILD_SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            set_handler(number, handler)


def set_handler(
    number: int,  # of a signal
    handler: Any,  # as for `signal.signal`; None: no change
) -> Any:  # the handler before
    """Set the handler of a signal in the main thread; do nothing in other threads."""
    main = threading.current_thread() is threading.main_thread()
    return signal.signal(number, handler) if main and handler is not None else None
