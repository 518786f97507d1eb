"""Images of observations as features of a frozen encoder, which become part of the state."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from ebwm.checks import refusal
from ebwm.policy.demonstrations import Demonstrations, Episode

if TYPE_CHECKING:
    from ebwm.data.features import FrameEncoder

__all__ = ["IMAGES", "frozen_encoder", "prepared", "with_features"]

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
    observations: dict[str, np.ndarray],  # "state" [steps state_dim] and "image" [steps size size 3]
    encoder: "FrameEncoder",
) -> dict[str, Float[np.ndarray, "steps features"]]:  # "state" alone, with the features of the images behind it
    """Observations whose images are part of the state."""
    if "image" not in observations:
        raise refusal("images", encoder.name, "needs observations with images", "record them with the option image=84")
    features = np.asarray(encoder.encode(observations["image"]), dtype=np.float32)
    return {"state": np.concatenate([observations["state"], features], 1)}


def prepared(
    demonstrations: Demonstrations,  # with or without images
    images: str,  # one of IMAGES, or the name of a frozen encoder
    encoder: "FrameEncoder | None" = None,  # of that name
) -> Demonstrations:
    """Demonstrations as a policy sees them."""
    if images == "cnn":
        return demonstrations
    plain = lambda seen: {name: part for name, part in seen.items() if name != "image"}
    change = plain if encoder is None else lambda seen: with_features(seen, encoder)
    episodes = [Episode(change(one.observations), *one[1:]) for one in demonstrations.episodes]
    return Demonstrations(demonstrations.simulator, episodes)
