"""Policies as LeRobot takes them: the contract of its `PreTrainedPolicy` (version 0.6), without depending on it."""

import importlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..checks import one_of, refusal
from ..settings import generator
from ..usage import UsageError
from .lerobot_data import STATES

__all__ = ["ACTION", "IMAGES", "STATE", "LeRobotConfig", "LeRobotPolicy", "observation_of"]

STATE, IMAGES, ACTION = "observation.state", "observation.images.", "action"
LANGUAGE = {"language": "observation.language", "language_mask": "observation.language.attention_mask"}


@dataclass
class LeRobotConfig:
    """The part of LeRobot's `PreTrainedConfig` that a policy of ebwm defines."""

    run: str = ""  # folder of a trained policy, which holds its sizes and normalisation
    camera: str = ""  # of the images that the policy sees, if it sees any and there are several
    n_obs_steps: int = 2  # observations of a context, as in the run
    horizon: int = 16  # actions of a chunk, as in the run
    n_action_steps: int = 8  # actions that are executed, as in the run
    optimizer_lr: float = 1e-4
    optimizer_weight_decay: float = 1e-6

    @property
    def observation_delta_indices(self) -> list[int]:
        """Steps of the observations of a batch, relative to the present."""
        return list(range(1 - self.n_obs_steps, 1))

    @property
    def action_delta_indices(self) -> list[int]:
        """Steps of the actions of a batch."""
        return list(range(self.horizon))

    @property
    def reward_delta_indices(self) -> None:
        """No rewards."""
        return None

    def get_optimizer_preset(self) -> Any:  # lerobot.optim.AdamWConfig
        """AdamW."""
        optim = importlib.import_module("lerobot.optim")
        return optim.AdamWConfig(lr=self.optimizer_lr, weight_decay=self.optimizer_weight_decay)

    def get_scheduler_preset(self) -> None:
        """A constant learning rate."""
        return None

    def validate_features(self) -> None:
        """Refuse data without a state and images, or without actions."""
        inputs, outputs = getattr(self, "input_features", None), getattr(self, "output_features", None)
        if inputs and not any(key in STATES or key.startswith(IMAGES) for key in inputs):
            raise refusal("input_features", sorted(inputs), f"must hold {STATE} or {IMAGES}CAMERA", error=UsageError)
        if outputs and ACTION not in outputs:
            raise refusal("output_features", sorted(outputs), f"must hold {ACTION}", error=UsageError)


class LeRobotPolicy(nn.Module):
    """A policy of ebwm with the methods of LeRobot's `PreTrainedPolicy`.

    Batches have the keys observation.state [b state_dim] or observation.images.CAMERA [b 3 height width] from 0 to 1 or
    both, as the run observes, in training with an axis of time after b, and action [b horizon action_dim]. Features of
    observation.environment_state follow those of observation.state, as in `read_lerobot`. All are in the
    units of the data: the policy normalises by itself. A run with instructions also takes observation.language
    [b vectors features] and observation.language.attention_mask [b vectors], or has one instruction. Actions beyond
    the end of an episode count in the loss, as in ebwm's own training, where they repeat the last one as they do in
    LeRobot.

    LeRobot finds plug-ins as packages named `lerobot_policy_NAME`. One for policies of ebwm is a module of a few lines,
    `lerobot_policy_ebwm/__init__.py`, in an environment that has both packages (tried with lerobot 0.4.4):

        from dataclasses import dataclass
        from lerobot.configs.policies import PreTrainedConfig
        from lerobot.policies.pretrained import PreTrainedPolicy
        from lerobot.processor import AddBatchDimensionProcessorStep, DeviceProcessorStep, PolicyProcessorPipeline
        from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action
        from lerobot.utils.constants import POLICY_POSTPROCESSOR_DEFAULT_NAME, POLICY_PREPROCESSOR_DEFAULT_NAME
        from ebwm.policy.lerobot import LeRobotConfig, LeRobotPolicy

        @PreTrainedConfig.register_subclass("ebwm")
        @dataclass
        class EbwmConfig(LeRobotConfig, PreTrainedConfig):
            pass

        class EbwmPolicy(LeRobotPolicy, PreTrainedPolicy):
            config_class = EbwmConfig

        def make_ebwm_pre_post_processors(config, dataset_stats=None):  # a policy of ebwm normalises by itself
            before = [AddBatchDimensionProcessorStep(), DeviceProcessorStep(device=config.device)]
            action = dict(to_transition=policy_action_to_transition, to_output=transition_to_policy_action)
            after = [DeviceProcessorStep(device="cpu")]
            return (PolicyProcessorPipeline(before, name=POLICY_PREPROCESSOR_DEFAULT_NAME),
                    PolicyProcessorPipeline(after, name=POLICY_POSTPROCESSOR_DEFAULT_NAME, **action))
    """

    config_class: ClassVar[type] = LeRobotConfig
    name: ClassVar[str] = "ebwm"

    def __init__(
        self,
        config: LeRobotConfig,  # names the run
        policy: Any = None,  # the policy; None: load it from the run
        **unused: Any,  # statistics and features of the data, which LeRobot adds
    ):
        nn.Module.__init__(self)  # in a plug-in the next class is LeRobot's, which would only check the configuration
        if policy is None:
            from .policies import load_policy

            policy = load_policy(config.run)
        for name, own in (("n_obs_steps", "observe"), ("horizon", "predict"), ("n_action_steps", "execute")):
            if getattr(config, name) != getattr(policy, own):
                rule = f"must be that of the run, {getattr(policy, own)}"
                raise refusal(name, getattr(config, name), rule, error=UsageError)
        config.validate_features()
        self.config, self.policy, self.model = config, policy, policy.model
        self.reset()

    @property
    def _device(self) -> torch.device | str:
        """Where the policy is now: LeRobot moves it after it was made."""
        return getattr(self.policy, "device", "cpu")

    def reset(self) -> None:
        """Start an episode."""
        self.policy.reset(generator(int(torch.randint(2**31, ())), "policy", self._device))
        self._action_queue: deque[Tensor] = deque()  # the name under which LeRobot drops queued actions

    @torch.no_grad()
    def select_action(
        self,
        batch: dict[str, Tensor],  # of one step
        **options: Any,  # "noise": must be None
    ) -> Float[Tensor, "b action_dim"]:
        """The next action of each environment; predicts a chunk if none is queued."""
        if self._action_queue:
            self.policy.add_observation(self._observation(batch))
        else:
            self._action_queue.extend(self.predict_action_chunk(batch, **options).unbind(1))
        return self._action_queue.popleft()

    @torch.no_grad()
    def predict_action_chunk(
        self,
        batch: dict[str, Tensor],  # of one step, or with an axis of time: then earlier observations are forgotten
        **options: Any,  # "noise": must be None
    ) -> Float[Tensor, "b execute action_dim"]:
        """The actions to execute from here."""
        if options.get("noise") is not None:
            raise refusal("noise", list(options["noise"].shape), "must be None", "set the seed of torch", UsageError)
        observation = self._observation(batch)
        seen = {name: value for name, value in observation.items() if name not in LANGUAGE}
        if next(iter(seen.values())).ndim == (3 if "state" in seen else 5):
            self.reset()
            spoken = {name: observation[name] for name in observation.keys() - seen.keys()}
            steps = [dict(zip(seen, parts, strict=True)) | spoken
                     for parts in zip(*(value.unbind(1) for value in seen.values()), strict=True)]
            for step in steps[:-1]:
                self.policy.add_observation(step)
            observation = steps[-1]
        return self.policy.predict_action_chunk(observation)

    def forward(
        self,
        batch: dict[str, Tensor],  # of windows, with an axis of time
        reduction: str = "mean",  # the only one there is
    ) -> tuple[Tensor, dict[str, float]]:  # the loss, and its value for logs
        """The training loss."""
        one_of("reduction", reduction, ["mean"], UsageError)
        noise = generator(int(torch.randint(2**31, ())), "training", self._device)
        loss = self.policy.loss(self._observation(batch), _entry(batch, ACTION), noise)
        return loss, {"loss": loss.item()}

    def _observation(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the policy is given of a batch; without images if it sees none, as then no camera is to be chosen."""
        if not getattr(self.policy, "sees_images", True):
            batch = {key: part for key, part in batch.items() if not key.startswith(IMAGES)}
        return observation_of(batch, self.config.camera)

    def get_optim_params(self) -> Iterator[nn.Parameter]:
        """The parameters to train."""
        return self.parameters()


def observation_of(
    batch: dict[str, Tensor],  # of LeRobot
    camera: str = "",  # whose images to take; "": the only one, if there are images
) -> dict[str, Tensor]:  # "state" [b *time state_dim], "image" [b *time height width 3] uint8, and "language"; those there are
    """Observations of a batch as the policies of ebwm take them."""
    states = [batch[key] for key in STATES if key in batch]
    found = {"state": torch.cat(states, -1)} if states else {}
    cameras = [key.removeprefix(IMAGES) for key in batch if key.startswith(IMAGES) and not key.endswith("_is_pad")]
    if camera or len(cameras) > 1:
        one_of("camera", camera, cameras, UsageError)
    if cameras:
        image = batch[IMAGES + (camera or cameras[0])]
        image = image if image.dtype == torch.uint8 else (255 * image.clamp(0, 1)).round().byte()
        found["image"] = image.movedim(-3, -1)
    if not found:
        raise refusal("batch", sorted(batch), f"must hold {STATE} or {IMAGES}CAMERA", error=UsageError)
    return found | {name: batch[key] for name, key in LANGUAGE.items() if key in batch}


def _entry(batch: dict[str, Tensor], key: str) -> Tensor:
    if key not in batch:
        raise refusal("batch", sorted(batch), f"must hold {key}", error=UsageError)
    return batch[key]
