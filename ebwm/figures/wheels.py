"""Wheels of the packages that a machine without a network lacks."""

import importlib.metadata
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from ebwm.compat import extras, require
from ebwm.figures.inputs import PACKAGE
from ebwm.figures.packages import canonical, pins
from ebwm.figures.plan import ENGINE
from ebwm.usage import Failure, UsageError

__all__ = ["HAS", "collect", "needed"]

# What compute nodes with a GPU have as a rule, with all that these packages need.
HAS = ("numpy", "torch", "triton", "timm", "pandas", "pyarrow", "matplotlib", "scikit-learn", "safetensors",
       "jaxtyping", "lightning", "tokenizers", "transformers")
REGISTRY = ("pydantic", "pyyaml")  # packages that the registry of figures needs
TESTS = ("pytest", "beartype")  # packages that the tests need
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux2014_x86_64")
CHECKOUT = PACKAGE.parent


def needed(
    chosen: Iterable[str],  # extras of the figures
    tests: bool,  # whether tests are run
    python: str,  # version, as in "3.12"
    has: Iterable[str] = (),  # packages that the machine has besides HAS
) -> list[str]:  # requirements with versions, as in "psutil==7.2.2"
    """The packages that the machine lacks: dependencies of the project and theirs, at the pinned versions."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    roots = [*project["dependencies"], *ENGINE, *REGISTRY, *(TESTS if tests else ())]
    roots += [package for extra in chosen for package in extras()[extra]]
    lacking = _closure(roots, python) - _closure([*HAS, *has], python)
    versions = pins(CHECKOUT)
    return sorted(f"{name}=={versions[name]}" if name in versions else name for name in lacking)


def _closure(requirements: Iterable[str], python: str) -> set[str]:
    """Names of packages and of all that they depend on, as far as these are installed here."""
    packaging = require("packaging.requirements", "figures")
    target = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux",
              "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix"}
    seen, waiting = set(), [packaging.Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        for extra in ("", *requirement.extras):
            if (key := (canonical(requirement.name), extra)) not in seen:
                seen.add(key)
                waiting += [found for found in map(packaging.Requirement, _requires(requirement.name))
                            if found.marker is None or found.marker.evaluate(target | {"extra": extra})]
    return {name for name, _ in seen}


def _requires(name: str) -> list[str]:
    try:
        return importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return []


def collect(
    requirements: list[str],  # from `needed`
    python: str,  # version, as in "3.12"
    folder: Path,  # receives the wheels
    given: Path | None = None,  # folder of wheels that take the place of a download
) -> None:
    """Put the wheels of these packages into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if given is not None:
        _copy(requirements, folder, given)
    elif requirements:
        _download(requirements, python, folder)


def _copy(requirements: list[str], folder: Path, given: Path) -> None:
    wheels = sorted(given.glob("*.whl"))
    have = {canonical(wheel.name.partition("-")[0]) for wheel in wheels}
    absent = [text for text in requirements if text.partition("==")[0] not in have]
    if absent:
        raise UsageError(f"--wheels={str(given)!r}: must hold the wheels that the machine lacks; "
                         f"add {' '.join(absent)}, or name what it has with --has")
    for wheel in wheels:
        shutil.copy(wheel, folder)


def _download(requirements: list[str], python: str, folder: Path) -> None:
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--no-deps",
           "--python-version", python, *platforms, "--dest", str(folder)]
    done = subprocess.run([*pip, *requirements], capture_output=True, text=True)
    if done.returncode:
        raise Failure(f"pip download failed: {_reason(done.stderr)}; give wheels with --wheels FOLDER")


def _reason(output: str) -> str:
    """The first error of pip."""
    errors: Iterator[str] = (line for line in output.splitlines() if line.startswith("ERROR"))
    return next(errors, output.strip().rpartition("\n")[2] or "no message").removeprefix("ERROR: ")
