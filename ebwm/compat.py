"""Messages for missing packages and programs, and a workaround for mismatched torchvision wheels."""

import functools
import importlib
import importlib.metadata
import re
import shutil
import sys
import tomllib
from pathlib import Path
from types import ModuleType

__all__ = ["MissingPart", "extras", "import_timm", "installed", "lacking", "require", "system_part"]

_declared = []  # keeps the library object alive: torch drops its operator schemas with it


class MissingPart(RuntimeError):
    """Missing program of the operating system; the message says how to install it."""


def require(
    package: str,  # module to import, such as "av"
    extra: str,  # extra of ebwm that installs it, such as "video"
) -> ModuleType:  # the imported module
    """Import a package of one of ebwm's extras, or raise an error that says how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        reason = str(error).partition("\n")[0]
        message = f"{package!r} cannot be imported ({reason}): pip install 'ebwm[{extra}]'"
        raise ImportError(message) from error


def import_timm() -> ModuleType:  # the timm package
    """Import timm, including beside a torchvision wheel built for CUDA and a CPU build of torch."""
    try:
        return require("timm", "features")
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
        _declare_torchvision_operators()
        return require("timm", "features")


def _declare_torchvision_operators() -> None:
    import torch

    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    if not _declared:
        _declared.append(torch.library.Library("torchvision", "FRAGMENT"))
        for operator in ("nms", "qnms"):
            _declared[0].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def system_part(
    command: str,  # program to find on the PATH, such as "chromium"
    package: str,  # Debian package, or the address of a website if there is none
    purpose: str,  # use of the program, as in "drawing plotly figures"
) -> str:  # path of the program
    """Find a program of the operating system, or raise an error that says how to install it."""
    if path := shutil.which(command):
        return path
    remedy = f"get it from {package}" if "://" in package else f"apt-get install {package}"
    raise MissingPart(f"{command!r}, needed for {purpose}, is not on the PATH: {remedy}")


def extras() -> dict[str, list[str]]:
    """The packages of each extra of ebwm."""
    found: dict[str, list[str]] = {}
    for line in _declared_extras(Path(__file__).parents[1]) or importlib.metadata.requires("ebwm") or []:
        extra = re.search(r"""extra == ["'](\w+)["']""", line)
        package = re.match(r"[\w.-]+", line)[0]
        if extra and package != "ebwm":
            found.setdefault(extra[1], []).append(package)
    return found


@functools.cache
def _declared_extras(checkout: Path) -> list[str]:
    path = checkout / "pyproject.toml"
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"] if path.is_file() else {}
    groups = project.get("optional-dependencies", {})
    return [f'{package}; extra == "{extra}"' for extra, packages in groups.items() for package in packages]


def lacking(
    extra: str,  # name, such as "video"
) -> list[str]:
    """The packages of an extra that are not installed."""
    return [package for package in extras().get(extra, []) if not installed(package)]


def installed(
    package: str,  # name on the package index
) -> bool:
    """Whether a package is installed."""
    return next(iter(importlib.metadata.distributions(name=package)), None) is not None
