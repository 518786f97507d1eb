"""Project settings: paths, scale, seeds and device from `settings.ini`, overridden by environment variables."""

import configparser
import ctypes
import hashlib
import os
import re
import sys
from dataclasses import dataclass, fields
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebwm import checks

if TYPE_CHECKING:  # imported where a device or a generator is made: torch takes a second
    import torch

__all__ = ["SCALES", "Settings", "SettingsError", "device", "device_kind", "generator", "load", "user_cache"]

SCALES = ("smoke", "cpu", "long", "gpu")
PATHS = ("data", "cache", "runs", "figures", "notebooks")
MAX_THREADS = 1024  # OpenMP fails with far more
DEVICE = re.compile(r"auto|(cpu|cuda)(:\d{1,2})?")


class SettingsError(ValueError):
    """Invalid setting; the message names it, its value and the rule."""


@dataclass(frozen=True)
class Settings:
    """Settings of the project. The environment variable `EBWM_<FIELD>` overrides a field."""

    root: Path  # folder of settings.ini, or the working folder if there is none
    data: Path = Path("data")  # data sets and shipped checkpoints
    cache: Path = Path("data/cache")  # files that can be made again; without settings.ini, `user_cache()`
    runs: Path = Path("runs")  # training runs
    figures: Path = Path("figures")  # recorded figures and their runs
    notebooks: Path = Path("nbs")  # notebooks
    scale: str = "cpu"  # default scale of figures, one of SCALES
    seeds: tuple[int, ...] = (0, 1, 2)  # default seeds of figures
    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1", ...
    threads: int = 0  # torch threads; 0: 1 for jobs of figures, else torch's default


def find_root(
    start: Path,  # a folder
) -> Path | None:
    """The nearest folder at or above `start` that holds the project's settings.ini."""
    return next((folder for folder in (start, *start.parents) if _is_root(folder)), None)


def _is_root(folder: Path) -> bool:
    return (folder / "settings.ini").is_file() and (folder / "nbs").is_dir()


def load(
    start: Path | None = None,  # folder at which the search begins; default: the working folder
) -> Settings:
    """Read settings.ini at or above `start`, then the environment; without a file, the cache is that of the user."""
    start = (start or Path.cwd()).resolve()
    root = find_root(start) or start
    alone = {} if (root / "settings.ini").is_file() else {"cache": str(user_cache())}
    return _build(root, alone | _read_file(root / "settings.ini") | _read_environment())


def user_cache() -> Path:
    """The folder of the user for files that can be made again: that of the system's convention, such as ~/.cache/ebwm."""
    place = {"darwin": "~/Library/Caches", "win32": os.environ.get("LOCALAPPDATA", "~/AppData/Local")}
    named = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(place.get(sys.platform) or (named if Path(named).is_absolute() else "~/.cache"))
    return _expanded("cache", base) / "ebwm"


def _expanded(name: str, path: Path) -> Path:
    """A path without `~`; an unknown user is refused."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise checks.refusal(name, str(path), f"is no path ({error})", "write it in full", SettingsError) from None


def _read_file(path: Path) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {str(error).splitlines()[0]}") from None
    entries = [entry for section in parser.sections() for entry in parser[section].items()]
    keys = [key for key, _ in entries]
    if repeated := next((key for key in keys if keys.count(key) > 1), None):
        raise SettingsError(f"{path}: entry {repeated!r} is in two sections; keep one")
    return dict(entries)


def _read_environment() -> dict[str, str]:
    names = [f.name for f in fields(Settings) if f.name != "root"]
    return {n: os.environ[f"EBWM_{n.upper()}"] for n in names if f"EBWM_{n.upper()}" in os.environ}


def _build(root: Path, values: dict[str, str]) -> Settings:
    known = sorted({f.name for f in fields(Settings)} - {"root"})
    for name in sorted(values.keys() - set(known)):
        checks.one_of("settings.ini entry", name, known, SettingsError)
    paths = {name: root / _expanded(name, Path(values.get(name) or getattr(Settings, name))) for name in PATHS}
    rest = {name: _parsed(name, value) for name, value in values.items() if name not in PATHS}
    return Settings(root=root, **paths, **rest)


def _parsed(name: str, value: str) -> Any:
    """The value of a setting that is not a path."""
    parse, rule = PARSERS[name]
    try:
        return parse(value)
    except ValueError:
        raise checks.refusal(name, value, f"must be {rule}", error=SettingsError) from None


def _natural(value: str) -> int:
    if (number := int(value)) < 0:
        raise ValueError(value)
    return number


def _threads(value: str) -> int:
    if (number := _natural(value)) > MAX_THREADS:
        raise ValueError(value)
    return number


def _seeds(value: str) -> tuple[int, ...]:
    seeds = tuple(_natural(v) for v in value.replace(",", " ").split())
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(value)
    return seeds


def _device(value: str) -> str:
    if not DEVICE.fullmatch(value):
        raise ValueError(value)
    return value


PARSERS = {
    "threads": (_threads, f"an integer from 0 to {MAX_THREADS}"),
    "seeds": (_seeds, "different integers of at least 0, as in '0 1 2'"),
    "scale": (lambda value: SCALES[SCALES.index(value)], f"one of {', '.join(SCALES)}"),
    "device": (_device, "auto, cpu, cuda or cuda:N"),
}


def device_kind(
    name: str | None = None,  # "auto", "cpu", "cuda", ...; default: the setting
) -> str:  # "cpu" or "cuda"
    """The kind of device that `device` returns; imports torch only if the machine may have a GPU."""
    name = _parsed("device", name or load().device)
    if name.startswith("cpu") or (name == "auto" and not _has_gpu_driver()):
        return "cpu"
    return device(name).type


def _has_gpu_driver() -> bool:
    """Whether a driver that torch's device type `cuda` needs may be installed."""
    if sys.platform != "linux":
        return sys.platform != "darwin"
    try:
        return bool(ctypes.CDLL("libcuda.so.1"))
    except OSError:
        return Path("/dev/kfd").exists()


def device(
    name: str | None = None,  # "auto", "cpu", "cuda", ...; default: the setting
) -> "torch.device":
    """The device to compute on; "auto" selects a GPU if there is one."""
    import torch

    name = _parsed("device", name or load().device)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = torch.device(name)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise checks.refusal("device", name, "torch finds no GPU", "use 'cpu' or 'auto'", SettingsError)
    if chosen.type == "cuda" and chosen.index and chosen.index >= (count := torch.cuda.device_count()):
        raise checks.refusal("device", name, f"torch finds {count} GPUs, numbered from 0", error=SettingsError)
    return chosen


def generator(
    seed: int,  # an integer of at least 0
    stream: str = "",  # name of this use of the seed: streams of one seed are independent
    device: "torch.device | str" = "cpu",  # device of the generator
) -> "torch.Generator":
    """A random generator for one purpose: data order, initialisation and noise have separate streams."""
    import torch

    if not isinstance(seed, Integral):
        raise checks.refusal("seed", seed, "must be an integer", error=TypeError)
    digest = hashlib.sha256(f"{stream}:{seed}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)
