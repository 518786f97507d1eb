"""Policies: act on observations with a predictor of chunks, save and load."""

import json
import time
from collections import deque
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ebwm import checks, settings
from ebwm.entries import Amount, Count, Fraction, Positive, from_value
from ebwm.policy.cameras import frozen_encoder, part_of, with_features
from ebwm.policy.chunks import Normaliser
from ebwm.policy.models import LEVELS, ChunkModel
from ebwm.policy.predictors import PREDICTORS, Predictor, make_predictor
from ebwm.policy.trunks import ChunkShape
from ebwm.policy.walk import PRESETS, PolicyWalk
from ebwm.usage import UsageError

if TYPE_CHECKING:
    from ebwm.data.features import FrameEncoder

__all__ = ["Policy", "PolicySettings", "load_policy"]

OF_KINDS = {"samples": ("ebt",), "walk": ("ebt",), "output": ("diffusion",), "steps": ("ebt", "diffusion"),
            **dict.fromkeys(["preset", *PolicyWalk.__dataclass_fields__], ("ebt",))}  # settings that other kinds do not have
FILE = "policy.json"  # settings and normalisation, in the folder of a policy
INSTRUCTION = ("language", "language_mask")  # parts of an observation that have no axis of time


@dataclass(frozen=True)
class PolicySettings:
    """A policy and its training."""

    kind: str = "ebt"  # in PREDICTORS
    walk: PolicyWalk | str = field(default_factory=PolicyWalk)  # of an EBT; or a name in `walk.PRESETS`
    output: str | None = None  # of a diffusion policy: "clean" | "noise"
    steps: Count | None = None  # of a prediction; None: those of the walk, or 16 of a diffusion policy
    samples: Count = 1  # EBT: walks of a prediction, of which the one with the lowest energy is taken
    observe: Count = 2  # observations of a context
    predict: Count = 16  # actions of a chunk
    execute: Count = 8  # actions that are executed before the next prediction
    state: bool = True  # whether the policy sees the state, if observations have one; False: images alone
    images: str = "cnn"  # of observations that have any: "cnn", "none", or the name of a frozen encoder
    trunk: Literal["mlp", "transformer"] = "mlp"  # "mlp" | "transformer"
    dim: Count = 128  # width
    depth: Count = 3  # layers
    heads: Count = 4  # attention heads of a transformer
    updates: Count = 3000  # of training
    batch: Count = 64  # windows of a batch
    learning_rate: Positive = 1e-3  # peak
    weight_decay: Amount = 1e-6
    average: Fraction = 0.995  # decay of the moving average of the weights, which predicts

    def __post_init__(self):
        for entry in fields(PolicySettings):
            if entry.name != "walk":
                from_value(entry.name, getattr(self, entry.name), entry.type, UsageError)
        checks.one_of("kind", self.kind, PREDICTORS, UsageError)
        object.__setattr__(self, "walk", _walk(self.walk))
        if self.execute > self.predict:
            rule = f"must be at most {self.predict}, the actions of a chunk"
            raise checks.refusal("execute", self.execute, rule, "or raise predict", UsageError)
        if self.kind == "diffusion" and (self.steps or 0) > LEVELS:
            raise checks.refusal("steps", self.steps, f"must be at most {LEVELS}", error=UsageError)
        if not self.state and self.images == "none":
            rule = "leaves nothing to observe with images='none'"
            raise checks.refusal("state", False, rule, "use images='cnn'", UsageError)

    @classmethod
    def named(
        cls,
        kind: str,  # in PREDICTORS
        preset: str = "ours",  # of an EBT's walk, in `walk.PRESETS`
        **changes: Any,  # of the settings, or of the walk
    ) -> "PolicySettings":
        """Settings by name, with changes by name."""
        checks.one_of("preset", preset, PRESETS, UsageError)
        known = {**cls.__dataclass_fields__, **PolicyWalk.__dataclass_fields__}.keys() - {"kind"}
        for name in changes:
            checks.one_of("setting", name, sorted(known), UsageError)
        _check_kind(kind, changes | ({"preset": preset} if preset != "ours" else {}))
        named = isinstance(changes.get("walk"), str)  # then it is a preset, which other settings may change
        walk = _walk(changes.pop("walk")) if named else PRESETS[preset]
        own = {name: value for name, value in changes.items() if name in cls.__dataclass_fields__}
        walk = replace(walk, **{name: value for name, value in changes.items() if name not in own})
        return cls(**{"kind": kind, "walk": walk} | own)

    def shape(
        self,
        window: dict[str, Tensor],  # of demonstrations: "action", and "state", "image" and "language" if there are any
    ) -> ChunkShape:
        """Sizes of the model."""
        names = ("observe", "predict", "trunk", "dim", "depth", "heads")
        size = lambda name, axis, none: window[name].shape[axis] if name in window else none
        return ChunkShape(size("state", -1, 0), size("action", -1, None), image=size("image", -2, None),
                          language_dim=size("language", -1, None), **{name: getattr(self, name) for name in names})

    def predictor(
        self,
        shape: ChunkShape,  # sizes of the model
        seed: int = 0,  # fixes the initial weights
    ) -> Predictor:
        """The untrained predictor."""
        return make_predictor(self.kind, shape, settings.generator(seed, "weights"), self.output, **self.of_predictor)

    @property
    def of_predictor(self) -> dict[str, Any]:
        """Settings of the predictor."""
        return {"walk": self.walk, "samples": self.samples} if self.kind == "ebt" else {}


def _check_kind(kind: str, changes: dict[str, Any]) -> None:
    """Refuse settings that would have no effect on a policy of this kind."""
    checks.one_of("kind", kind, PREDICTORS, UsageError)
    for name, value in changes.items():
        if kind not in (kinds := OF_KINDS.get(name, (kind,))):
            raise checks.refusal(name, value, f"is a setting of {' and '.join(kinds)}, not of {kind}", error=UsageError)


def _walk(walk: Any) -> PolicyWalk:
    """The settings of a walk, or those of a preset by its name."""
    if isinstance(walk, PolicyWalk):
        return walk
    checks.one_of("walk", walk, PRESETS, UsageError)
    return PRESETS[walk]


class Policy:
    """A predictor that acts: it remembers observations, predicts chunks, and executes their first actions."""

    def __init__(
        self,
        predictor: Predictor,  # trained
        normaliser: Normaliser,  # of observations and actions
        options: PolicySettings,  # how many actions are executed, and how many steps a prediction takes
        encoder: "FrameEncoder | None" = None,  # frozen, of images
        instruction: Float[Tensor, "vectors l"] | None = None,  # of a model that takes one; observations with their own win
    ):
        self.predictor, self.normaliser, self.options, self.encoder = predictor, normaliser, options, encoder
        self.instruction = instruction
        self.reset()

    @property
    def observe(self) -> int:
        """Observations of a context."""
        return self.options.observe

    @property
    def predict(self) -> int:
        """Actions of a predicted chunk."""
        return self.options.predict

    @property
    def model(self) -> ChunkModel:
        """The model of chunks."""
        return self.predictor.model

    @property
    def device(self) -> torch.device:
        """Device of the model; observations are moved to it, and actions come back to the CPU."""
        return next(self.model.parameters()).device

    @property
    def execute(self) -> int:
        """Actions that are executed before the next prediction."""
        return self.options.execute

    def reset(
        self,
        generator: torch.Generator | None = None,  # noise of the predictions, on the device of the policy; None: a fixed one
    ) -> None:
        """Start an episode: forget observations and actions."""
        self.generator = generator or settings.generator(0, "policy", self.device)
        self.seen: deque[dict[str, Tensor]] = deque(maxlen=self.options.observe)
        self.waiting: deque[Tensor] = deque()
        self.facts: list[dict[str, Any]] = []

    def select_action(
        self,
        observation: dict[str, Tensor],  # "state" [b state_dim] in the simulator's units, "image" [b size size 3] uint8
    ) -> Tensor:  # [b action_dim], in the simulator's units
        """The next action; predicts a chunk if none is waiting.

        A model of instructions also takes "language" [b vectors l], or [b l] for one vector each, and for different
        numbers of vectors "language_mask" [b vectors], true where a vector is there.
        """
        if self.waiting:
            self.add_observation(observation)
        else:
            self.waiting.extend(self.predict_action_chunk(observation).unbind(1))
        return self.waiting.popleft()

    def predict_action_chunk(
        self,
        observation: dict[str, Tensor],  # as for `select_action`
    ) -> Tensor:  # [b execute action_dim], in the simulator's units
        """The actions to execute from here; the facts about the prediction are appended to `facts`.

        Steps, evaluations and energy are means over the batch, in which episodes that have ended stay; the seconds
        are those of the whole batch, from the observation on, so that its encoder counts once.
        """
        start = _time(self.device)
        self.add_observation(observation)
        found = self.predictor.predict(self.context(), self.generator, self.options.steps)
        seconds = _time(self.device) - start
        mean = lambda values: None if values is None else values.float().mean().item()
        numbers = {name: mean(getattr(found, name)) for name in ("steps", "evaluations", "energy")}
        self.facts.append(numbers | {"seconds": seconds})
        return self.normaliser.restore(found.value[:, : self.execute].cpu())

    def context(self) -> dict[str, Tensor]:
        """The last observations, the first one repeated at the start of an episode, and the last instruction."""
        seen = [self.seen[0]] * (self.options.observe - len(self.seen)) + [*self.seen]
        last = {name: part for name, part in seen[-1].items() if name in INSTRUCTION}
        return {name: torch.stack([one[name] for one in seen], 1) for name in seen[-1].keys() - last.keys()} | last

    def add_observation(
        self,
        observation: dict[str, Tensor],  # as for `select_action`
    ) -> None:
        """Take an observation without acting."""
        self.seen.append(self._normalised(observation))

    def loss(
        self,
        observation: dict[str, Tensor],  # as for `select_action`, with an axis of time after the batch
        actions: Tensor,  # [b predict action_dim], in the simulator's units
        generator: torch.Generator,  # noise of training
    ) -> Tensor:
        """The training loss of windows of demonstrations."""
        target = self.normaliser.action(actions.to(self.device))
        return self.predictor.loss(self._normalised(observation), target, generator)

    @property
    def sees_images(self) -> bool:
        """Whether the policy sees images, by its own network or by a frozen encoder."""
        return self.encoder is not None or self.model.shape.image is not None

    @property
    def state_std(self) -> list[float] | None:
        """Standard deviation of each feature of the state, or none if the policy does not see the state."""
        sees = self.options.state and self.model.shape.state_dim
        return self.normaliser.states.std if sees else None

    def _normalised(self, observation: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the model sees of an observation, normalised and on its device."""
        shape = self.model.shape
        parts = {name: torch.as_tensor(part) for name, part in observation.items()}
        if self.encoder is not None:
            names = ("state", "image") if self.options.state else ("image",)
            made = with_features({name: part_of(parts, name).cpu().numpy() for name in names}, self.encoder)
            parts["state"] = torch.from_numpy(made["state"])
        found = {}
        if shape.state_dim:
            found["state"] = self.normaliser.state(part_of(parts, "state").to(self.device).float())
        if shape.image:
            found["image"] = part_of(parts, "image").to(self.device)
        if shape.language_dim:
            found |= self._language(parts, len(next(iter(found.values()))))
        return found

    def _language(self, parts: dict[str, Tensor], batch: int) -> dict[str, Tensor]:
        """The instruction of observations, or that of the policy."""
        own = {name: parts[name].to(self.device) for name in INSTRUCTION if name in parts}
        if "language" in own:
            return own | {"language": own["language"].float()}
        if self.instruction is None:
            rule, remedy = "must hold 'language', which this policy was trained with", "or give the policy an instruction"
            raise checks.refusal("observation", sorted(parts), rule, remedy, UsageError)
        vectors = torch.as_tensor(self.instruction).float().to(self.device)
        vectors = vectors.unsqueeze(0) if vectors.ndim == 1 else vectors
        return {"language": vectors.expand(batch, *vectors.shape)}


def _time(device: torch.device) -> float:
    """Seconds of a clock, read when the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


CHANGEABLE = ("steps", "samples", "execute", "walk")  # settings of a trained policy that its weights do not depend on
BEFORE_TRAINING = ("step_size", "factor")  # settings of a walk that only say where the training of the step size begins


def load_policy(
    folder: Path | str,  # written by `train_policy`
    instruction: Float[Tensor, "vectors l"] | None = None,  # of a policy that takes one, in every observation without its own
    **changes: Any,  # of the settings in CHANGEABLE, such as steps=2
) -> Policy:  # on the device of the settings
    """A trained policy; no code in the folder is executed.

    Its step size is that after training, whatever the walk.
    """
    for name in changes:
        checks.one_of("setting", name, CHANGEABLE, UsageError)
    path = Path(folder) / FILE
    if not path.is_file():
        remedy = "give a folder written by `ebwm policy train`"
        raise checks.refusal("folder", str(folder), f"contains no {FILE}", remedy, UsageError)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        options = _settings(values["settings"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        rule = f"holds a {FILE} that cannot be read ({error})"
        raise checks.refusal("folder", str(folder), rule, "train again", UsageError) from None
    _check_kind(options.kind, changes)
    if isinstance(walk := changes.get("walk"), PolicyWalk):
        _check_step_size(walk, options.walk)
    options = replace(options, **changes)
    normaliser, _ = Normaliser.load(Path(folder))
    predictor = PREDICTORS[options.kind](ChunkModel.load(folder).to(settings.device()), **options.of_predictor)
    return Policy(predictor, normaliser, options, frozen_encoder(options.images), instruction)


def _check_step_size(walk: PolicyWalk, trained: PolicyWalk) -> None:
    """Refuse a step size that would have no effect, as it is a weight of the trained policy."""
    for name in BEFORE_TRAINING:
        if (value := getattr(walk, name)) not in (getattr(trained, name), getattr(PolicyWalk, name)):
            rule = "has no effect after training, in which the step size is a weight"
            raise checks.refusal(name, value, rule, "leave it out, and change policy.model.step_size", UsageError)


def _settings(values: dict[str, Any]) -> PolicySettings:
    """Settings from JSON."""
    walk = values["walk"]
    return PolicySettings(**values | {"walk": PolicyWalk(**walk | {"noise": tuple(walk["noise"])})})
