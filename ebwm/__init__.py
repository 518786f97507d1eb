"""Energy-Based World Models and Energy-Based Transformers in PyTorch"""

import importlib
from typing import Any

__version__ = "0.2.0"

EXPORTS = {  # public name: the module that defines it, imported on first use
    "EBT": "ebwm.ebt",
    "JointEBT": "ebwm.joint",
    "Transformer": "ebwm.baselines",
    "S1": "ebwm.objective",
    "S2": "ebwm.objective",
    "Replay": "ebwm.replay",
    "Walk": "ebwm.walk",
    "predict": "ebwm.thinking",
    "generate": "ebwm.thinking",
    "train": "ebwm.training.run",
}
__all__ = [*EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ebwm.parameters import with_parameters

    value = with_parameters(getattr(importlib.import_module(EXPORTS[name]), name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *EXPORTS})
