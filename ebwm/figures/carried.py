"""The entry `carried` of a manifest: the changes of code over which a record was carried without a new run."""

from typing import Any

__all__ = ["carried"]


def carried(
    manifest: dict[str, Any],  # content of a manifest
) -> str:  # as in "carried over 2 changes of code, last to 1f3a9c2"; empty without any
    """How often a record was carried by `ebwm figures rekey`, in words."""
    entries = manifest.get("carried") or []
    if not entries:
        return ""
    count = "a change" if len(entries) == 1 else f"{len(entries)} changes"
    return f"carried over {count} of code, last to {entries[-1]['to'][:7]}"
