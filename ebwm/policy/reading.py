"""Checks of demonstrations that come from files: each refusal names the file, the entry, its value and a remedy."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ebwm.checks import refusal
from ebwm.policy.demonstrations import Demonstrations, Episode
from ebwm.usage import UsageError

__all__ = ["Source", "check_demonstrations", "check_layout", "state_dim_of"]

TOLERANCE = 1e-6  # of actions beyond -1 and 1, from rounding


@dataclass(frozen=True)
class Source:
    """A file or folder of demonstrations, for the messages about its entries."""

    path: Path
    bounded: bool = True  # refuse actions outside of [-1, 1]
    name: str = "source"  # of the argument

    def refused(
        self,
        entry: str,  # name of the bad entry in the file, with its value
        remedy: str,
    ) -> Exception:  # to be raised
        """A refusal of an entry."""
        return refusal(self.name, str(self.path), entry, remedy, UsageError)

    def unreadable(
        self,
        error: Exception,  # of the library that reads the file
        name: str = "",  # of the file, if the source is a folder
    ) -> Exception:  # to be raised
        """A refusal of a file that is truncated, or of another format."""
        reason = str(error).partition("\n")[0] or type(error).__name__
        remedy = "the file may be truncated: copy or record it again"
        return self.refused(f"{name or 'the file'} cannot be read ({reason})", remedy)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Refuse a file whose content fails in any other way, such as an attribute of a wrong type."""
        try:
            yield
        except UsageError:
            raise
        except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
            raise self.unreadable(error) from None

    def numbers(
        self,
        entry: str,  # name in the file
        values: Any,  # array
        size: int | None = None,  # features of a step; None: any number
    ) -> Float[np.ndarray, "steps features"]:  # float32
        """Finite vectors, one for each step."""
        array = np.asarray(values)
        if array.dtype.kind not in "fiub":
            raise self.refused(f"{entry} has the type {array.dtype}", "it must be an array of numbers")
        array = array[:, None] if array.ndim == 1 else array
        if array.ndim != 2 or 0 in array.shape or size not in (None, array.shape[1]):
            wanted = f"[steps, {'features' if size is None else size}]"
            raise self.refused(f"{entry} has the shape {list(array.shape)}", f"it must be {wanted}")
        with np.errstate(over="ignore"):
            single = array.astype(np.float32)
        bad = ~np.isfinite(single)
        if bad.any():
            step, place = np.argwhere(bad)[0]
            raise self.refused(f"{entry} has {bad.sum()} values that are not finite in float32, the first is "
                               f"{array[step, place]:g} at step {step}", "remove the episode or record it again")
        return single

    def actions(
        self,
        entry: str,  # name in the file
        values: Any,  # array
        size: int | None = None,  # features of an action; None: any number
    ) -> Float[np.ndarray, "steps action_dim"]:  # float32
        """Actions in [-1, 1], or any finite actions of a source that is not bounded."""
        array = self.numbers(entry, values, size)
        if not self.bounded:
            return array
        if (most := np.abs(array).max()) > 1 + TOLERANCE:
            step, place = np.argwhere(np.abs(array) == most)[0]
            raise self.refused(f"{entry} has {array[step, place]:g} at step {step}, which is outside of [-1, 1]",
                               "scale the actions, or read them as they are: bounded=False, on the command line --unbounded")
        return array.clip(-1, 1)

    def instruction(
        self,
        entry: str,  # name in the file
        values: Any,  # array; None: there is no instruction
    ) -> Float[np.ndarray, "vectors features"] | None:  # float32
        """The finite vectors of an instruction; [features] is one vector."""
        if values is None:
            return None
        array = np.asarray(values)
        return self.numbers(entry, array[None] if array.ndim == 1 else array)

    def episode(
        self,
        name: str,  # of the episode in the file
        observations: dict[str, np.ndarray],  # "state": [steps state_dim], "image": [steps size size 3] uint8; or one
        actions: Float[np.ndarray, "steps action_dim"],
        success: bool = True,
        seed: int = 0,
        language: Any = None,  # vectors of the instruction, [vectors features], or one of them
    ) -> Episode:
        """An episode whose observations and actions have one number of steps."""
        if not observations.keys() & {"state", "image"}:
            raise self.refused(f"{name} has the observations {sorted(observations)}", "it must have state or image")
        if "language" in observations:
            raise self.refused(f"{name} has language among its observations",
                               "give the vectors of its instruction as Episode.language, [vectors, features]")
        for part, array in observations.items():
            if len(array) != len(actions):
                raise self.refused(f"{name} has {len(array)} steps of {part} and {len(actions)} actions",
                                   "each action must have the observation before it")
        image = observations.get("image")
        if image is not None and (image.dtype != np.uint8 or image.shape[1:] != (image.shape[1], image.shape[1], 3)):
            raise self.refused(f"the image of {name} has the shape {list(image.shape)} and type {image.dtype}",
                               "it must be square, [steps size size 3] of uint8; camera='' reads the state alone")
        return Episode(observations, actions, success, seed, self.instruction(f"language of {name}", language))

    def demonstrations(
        self,
        simulator: str,  # name, as for `make_simulator`
        episodes: Sequence[Episode],
    ) -> Demonstrations:
        """At least one episode, all of one shape."""
        if not episodes:
            raise self.refused("holds 0 episodes", "record at least one")
        first = _sizes(episodes[0])
        for number, episode in enumerate(episodes):
            if (found := _sizes(episode)) != first:
                raise self.refused(f"episode {number} has the sizes {found}, episode 0 has {first}",
                                   "all episodes must have the same")
        return Demonstrations(simulator, list(episodes))


def _sizes(episode: Episode) -> dict[str, Any]:
    """Sizes of observations and actions, without the number of steps."""
    arrays = episode.observations | {"action": episode.actions}
    arrays |= {} if episode.language is None else {"language": episode.language}
    return {name: array.shape[1 if name == "image" else -1] for name, array in arrays.items()}


def check_demonstrations(
    demonstrations: Demonstrations,  # in memory
) -> None:
    """Refuse demonstrations without an episode, with values that are not finite, or with different shapes."""
    source = Source(Path(demonstrations.simulator), name="demonstrations")
    for number, episode in enumerate(demonstrations.episodes):
        if "state" in episode.observations:
            source.numbers(f"state of episode {number}", episode.observations["state"])
        source.numbers(f"actions of episode {number}", episode.actions)
        source.episode(f"episode {number}", *episode)
    source.demonstrations(demonstrations.simulator, demonstrations.episodes)


def state_dim_of(
    demonstrations: Demonstrations,
) -> int:  # 0: no state
    """Features of an observed state."""
    state = demonstrations.episodes[0].observations.get("state")
    return 0 if state is None else state.shape[1]


def check_layout(
    layout: dict[str, int] | None,  # sizes of the parts of a state by name, in their order; None: one part, "state"
    state_dim: int,  # features of a state; 0: there is none
) -> dict[str, int]:
    """The layout of a state; its sizes add up to those of the state."""
    if not state_dim:
        return {}
    layout = {"state": state_dim} if layout is None else layout
    if sum(layout.values()) != state_dim:
        raise refusal("layout", layout, f"must add up to {state_dim}, the features of a state", error=UsageError)
    return layout
