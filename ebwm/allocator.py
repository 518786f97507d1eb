"""Keep the memory of freed tensors in the process instead of returning it to the system."""

import ctypes
import os

__all__ = ["keep_freed_memory"]

KEPT = 2**30, 2**25  # bytes, the first that is accepted: glibc before 2.35 maps blocks of 32 MiB or more by themselves
OPTIONS = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3}  # variables of glibc, and numbers in malloc.h


def keep_freed_memory() -> bool:  # whether this C library can
    """Let this process and its children keep up to a gibibyte of freed memory.

    The default of glibc gives freed memory back to the system, so that each step of a small model on a CPU asks for the
    same pages again (mallopt(3)). Variables that are set already are left alone.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    accepted = {name: next((value for value in KEPT if mallopt(option, value)), 0)
                for name, option in OPTIONS.items() if name not in os.environ}
    os.environ |= {name: str(value) for name, value in accepted.items() if value}
    return all(accepted.values())
