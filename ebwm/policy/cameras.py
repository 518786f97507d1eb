"""Images of observations as features of a frozen encoder, which become part of the state."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ebwm.checks import refusal
from ebwm.policy.demonstrations import Demonstrations, Episode
from ebwm.usage import UsageError

if TYPE_CHECKING:
    from ebwm.data.features import FrameEncoder

__all__ = ["IMAGES", "frozen_encoder", "part_of", "prepared", "with_features"]

IMAGES = ("cnn", "none")  # ways to treat images, beside the names of frozen encoders


def frozen_encoder(
    images: str,  # one of IMAGES, or a name as for `ebwm.data.features.frame_encoder`
) -> "FrameEncoder | None":
    """The frozen encoder of a name; None for "cnn", which is trained with the policy, and "none"."""
    if images in IMAGES:
        return None
    from ebwm.data.features import frame_encoder

    return frame_encoder(images)


def with_features(
    observations: dict[str, np.ndarray],  # "image" [*steps size size 3], alone or with "state" [*steps state_dim]
    encoder: "FrameEncoder",
) -> dict[str, Float[np.ndarray, "*steps features"]]:  # "state" alone: features of the images, behind the state if any
    """Observations whose images are part of the state."""
    if "image" not in observations:
        raise refusal("images", encoder.name, "needs observations with images", "record them with the option image=84")
    images = observations["image"]
    features = np.asarray(encoder.encode(images.reshape(-1, *images.shape[-3:])), dtype=np.float32)
    parts = [observations["state"]] if "state" in observations else []
    return {"state": np.concatenate([*parts, features.reshape(*images.shape[:-3], -1)], -1)}


def prepared(
    demonstrations: Demonstrations,  # with or without images
    images: str,  # one of IMAGES, or the name of a frozen encoder
    encoder: "FrameEncoder | None" = None,  # of that name
    state: bool = True,  # whether the policy sees the state
) -> Demonstrations:
    """Demonstrations as a policy sees them."""
    if images == "cnn" and state:
        return demonstrations
    unseen = {*([] if state else ["state"]), *(["image"] if images == "none" else [])}
    plain = lambda seen: {name: part for name, part in seen.items() if name not in unseen}
    change = plain if encoder is None else lambda seen: with_features(plain(seen), encoder)
    episodes = [Episode(change(one.observations), *one[1:]) for one in demonstrations.episodes]
    if not all(one.observations for one in episodes):
        remedy = "record images with the option image=84, and train with images='cnn'; or let it see the state"
        raise refusal("demonstrations", sorted(demonstrations.episodes[0].observations),
                      f"leave a policy nothing to observe with state={state} and images={images!r}", remedy)
    return Demonstrations(demonstrations.simulator, episodes)


def part_of(
    observation: dict[str, Tensor],
    name: str,  # such as "state"
) -> Tensor:
    """A part of an observation."""
    if name not in observation:
        remedy = "observe images: option image of a simulator, --image of commands" if name == "image" else ""
        rule = f"must hold {name!r}, which this policy was trained with"
        raise refusal("observation", sorted(observation), rule, remedy, UsageError)
    return observation[name]
