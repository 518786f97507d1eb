"""Whether a command on figures is used where there are none."""

from collections.abc import Sequence

from ebwm.figures.notebook import registry_path

__all__ = ["no_checkout"]


def no_checkout(
    words: Sequence[str],  # command line after `ebwm`
) -> str | None:  # one line; None for other commands, and inside a checkout
    """The message to a user of `ebwm figures` or `ebwm bundle` without a checkout, whom no package would help."""
    if words[:1] not in (["figures"], ["bundle"]):
        return None
    path = registry_path()
    return None if path.is_file() else f"no figures.yaml in {path.parent}; run this inside a checkout of ebwm"
