"""Keep the memory of freed tensors in the process instead of returning it to the system."""

import ctypes
import os

__all__ = ["keep_freed_memory"]

KEPT = 2**30  # bytes
OPTIONS = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3}  # variables of glibc, and numbers in malloc.h


def keep_freed_memory() -> bool:  # whether this C library can
    """Let this process and its children keep up to a gibibyte of freed memory.

    The default of glibc gives freed memory back to the system, so that each step of a small model on a CPU asks for the
    same pages again (mallopt(3)). Variables that are set already are left alone.
    """
    chosen = [name for name in OPTIONS if name not in os.environ]
    os.environ |= dict.fromkeys(chosen, str(KEPT))
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all([mallopt(OPTIONS[name], KEPT) for name in chosen])
