"""Lists for the command line: presets, and the entries of a configuration with their meaning."""

import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

from ebwm.parameters import comments
from ebwm.training.configuration import ENERGY_MODELS, Config
from ebwm.training.presets import load_config, presets

__all__ = ["entries_listing", "presets_listing"]


def presets_listing() -> str:
    """Presets, one a line; those of a family, FAMILY-SIZE-RECIPE, share a line."""
    families: dict[str, list[str]] = {}
    for name in presets():
        family = f"{name.partition('-')[0]}-SIZE-RECIPE" if name.count("-") == 2 else name
        families.setdefault(family, []).append(name)
    rows = {name: _about(name) if name in members else _family(members) for name, members in families.items()}
    width = 2 + max(map(len, rows))
    fill = partial(textwrap.fill, width=100, subsequent_indent=" " * width)
    return "\n".join(fill(about, initial_indent=f"{name:<{width}}") for name, about in rows.items())


def _about(name: str) -> str:
    config = load_config(name)
    model = config.model
    recipe = f" by {config.recipe.name}" if model.kind in ENERGY_MODELS else ""
    return f"{model.kind} {model.depth}x{model.dim}{recipe}, {_length(config)}"


def _length(config: Config) -> str:
    optimiser = config.optimiser
    return f"{optimiser.updates:,} updates of {optimiser.batch} {config.data.items}"


def _family(names: list[str]) -> str:
    """Description of the presets of a family, and the parts of their names."""
    recipes = dict.fromkeys(name.split("-")[2] for name in names)
    sizes = {name.split("-")[1]: load_config(name).model for name in names}
    shapes = ", ".join(f"{size}={model.depth}x{model.dim}" for size, model in sizes.items())
    return f"{_length(load_config(names[0]))}. RECIPE: {', '.join(recipes)}. SIZE, layers x width: {shapes}"


def entries_listing(
    config: Config,  # to be listed
) -> str:
    """All entries of a configuration, one a line, as KEY=VALUE with a comment."""
    rows = list(_entries(config))
    width = min(36, max(len(entry) for entry, _ in rows))
    return "\n".join(f"{entry:<{width}}  # {comment}" if comment else entry for entry, comment in rows)


def _entries(section: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """KEY=VALUE and comment of each entry."""
    about = comments(type(section))
    for field in fields(section):
        value = getattr(section, field.name)
        if is_dataclass(value):
            yield from _entries(value, f"{prefix}{field.name}.")
        else:
            text = str(value).lower() if value is None or isinstance(value, bool) else str(value)
            yield f"{prefix}{field.name}={shlex.quote(text)}", about.get(field.name, "")
