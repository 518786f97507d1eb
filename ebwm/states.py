"""The states of a context: vectors or tokens, alone or with the actions that were taken in them."""

from collections.abc import Callable, Sequence

from torch import Tensor

__all__ = ["States", "context_of", "each_part", "parts_of", "states_of"]

States = Tensor | tuple[Tensor, Tensor]  # states [b s d] or tokens [b s]; or with actions [b s a]


def states_of(
    context: States,  # states, or states with actions
) -> Tensor:
    """The states of a context."""
    return context[0] if isinstance(context, tuple) else context


def parts_of(
    context: States | None,  # states, or states with actions; None: there is no context
) -> tuple[Tensor, ...]:  # two tensors, one, or none
    """The tensors of a context."""
    if context is None:
        return ()
    return context if isinstance(context, tuple) else (context,)


def context_of(
    parts: Sequence[Tensor],  # as from `parts_of`
    like: States | None,  # a context with as many tensors
) -> States | None:
    """The inverse of `parts_of`: a context of other tensors, in the form of a given one."""
    if like is None:
        return None
    return tuple(parts) if isinstance(like, tuple) else parts[0]


def each_part(
    function: Callable[[Tensor], Tensor],  # of states, or of actions
    context: States,  # states, or states with actions
) -> States:
    """Apply a function to the states, and to the actions if there are any."""
    return context_of([function(part) for part in parts_of(context)], context)
