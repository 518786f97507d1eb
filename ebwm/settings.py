"""Where things are, at which scale, with which seeds, on which device: `settings.ini` and its overrides."""

import configparser
import hashlib
import os
from dataclasses import dataclass, fields
from pathlib import Path

import torch

__all__ = ["SCALES", "Settings", "SettingsError", "device", "generator", "load"]

SCALES = ("smoke", "cpu", "gpu")
PATHS = ("data", "cache", "runs", "figures", "notebooks")


class SettingsError(ValueError):
    """A setting that cannot be used; the message names it, its value and what is allowed."""


@dataclass(frozen=True)
class Settings:
    """What a person may change. Each field can be overridden by the environment variable `EBWM_<FIELD>`."""

    root: Path  # folder that holds settings.ini, or the working folder where there is none
    data: Path = Path("data")
    cache: Path = Path("data/cache")
    runs: Path = Path("runs")
    figures: Path = Path("figures")
    notebooks: Path = Path("nbs")
    scale: str = "cpu"  # default scale of figures, one of SCALES
    seeds: tuple[int, ...] = (0, 1, 2)  # default seeds of figures
    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1", ...
    threads: int = 0  # torch threads; 0 leaves torch's own choice


def find_root(start: Path) -> Path | None:
    """The nearest folder at or above `start` that holds the project's settings.ini, if any."""
    return next((folder for folder in (start, *start.parents) if _is_root(folder)), None)


def _is_root(folder: Path) -> bool:
    return (folder / "settings.ini").is_file() and (folder / "nbs").is_dir()


def load(start: Path | None = None) -> Settings:
    """Read settings.ini at or above `start` (the working folder by default), then the environment."""
    start = (start or Path.cwd()).resolve()
    root = find_root(start) or start
    values = _read_file(root / "settings.ini") | _read_environment()
    return _build(root, values)


def _read_file(path: Path) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {str(error).splitlines()[0]}") from None
    entries = [entry for section in parser.sections() for entry in parser[section].items()]
    keys = [key for key, _ in entries]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise SettingsError(f"{path}: entry {twice!r} stands in two sections; keep one")
    return dict(entries)


def _read_environment() -> dict[str, str]:
    names = [f.name for f in fields(Settings) if f.name != "root"]
    return {n: os.environ[f"EBWM_{n.upper()}"] for n in names if f"EBWM_{n.upper()}" in os.environ}


def _build(root: Path, values: dict[str, str]) -> Settings:
    known = {f.name for f in fields(Settings)} - {"root"}
    if unknown := sorted(values.keys() - known):
        raise SettingsError(
            f"settings.ini: unknown entry {unknown[0]!r}; allowed: {', '.join(sorted(known))}"
        )
    paths = {name: root / Path(values.get(name) or getattr(Settings, name)).expanduser() for name in PATHS}
    rest = {name: _parse(name, value) for name, value in values.items() if name not in PATHS}
    return Settings(root=root, **paths, **rest)


def _parse(name: str, value: str) -> str | int | tuple[int, ...]:
    try:
        if name == "threads":
            return _natural(value)
        if name == "seeds":
            seeds = tuple(_natural(v) for v in value.replace(",", " ").split())
            return seeds if seeds and len(set(seeds)) == len(seeds) else _fail()
        if name == "scale":
            return SCALES[SCALES.index(value)]
        if name == "device" and value != "auto" and torch.device(value).type not in ("cpu", "cuda"):
            _fail()
        return value
    except (ValueError, RuntimeError):
        allowed = {
            "threads": "a whole number from 0",
            "seeds": "different whole numbers from 0, as in '0 1 2'",
            "scale": f"one of {', '.join(SCALES)}",
            "device": "auto, cpu, cuda or cuda:N",
        }[name]
        raise SettingsError(f"setting {name!r} is {value!r}; it must be {allowed}") from None


def _natural(value: str) -> int:
    return int(value) if int(value) >= 0 else _fail()


def _fail() -> int:
    raise ValueError


def device(name: str | None = None) -> torch.device:
    """The device to compute on: `name`, or the one in settings; 'auto' takes a GPU where there is one."""
    name = _parse("device", name or load().device)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = torch.device(name)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise SettingsError(f"setting 'device' is {name!r}, but torch finds no GPU here; use 'cpu' or 'auto'")
    return chosen


def generator(
    seed: int,  # any whole number from 0
    stream: str = "",  # a name for this use of the seed: streams of one seed are independent
    device: torch.device | str = "cpu",
) -> torch.Generator:
    """A random generator for one purpose, so that data order, initialisation and noise can be fixed apart."""
    digest = hashlib.sha256(f"{stream}:{seed}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)
