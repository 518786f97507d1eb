"""Figure notebooks: parameters, code cells, and the cell at which the job over one item ends."""

import ast
import copy
import functools
import json
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from ebwm import settings
from ebwm.compat import require
from ebwm.figures.errors import FigureError
from ebwm.settings import Settings

__all__ = ["PARAMETERS", "PARTS", "cells_of", "code_of", "fits", "own_data", "parameter_defaults", "plain",
           "read_registry", "registry_path"]

PARAMETERS, PARTS = "parameters", "parts"  # tags of cells
MAX_NESTING = 100  # levels of the registry
STAND_INS = ("python", "packages")  # sources of text that stand in for the papers'


def registry_path(
    config: Settings | None = None,  # default: the settings in effect
) -> Path:
    """The path of figures.yaml: in the figures folder, or in the checkout's if the setting names another folder."""
    config = config or settings.load()
    places = [config.figures / "figures.yaml", config.root / "figures" / "figures.yaml"]
    return next((path for path in places if path.is_file()), places[0])


def read_registry(
    path: Path,  # figures.yaml
) -> Any:
    """The content of figures.yaml, not validated."""
    yaml = require("yaml", "figures")
    try:
        return copy.deepcopy(_yaml(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise FigureError(f"no figures.yaml in {path.parent}; run this inside a checkout of ebwm") from None
    except yaml.YAMLError as error:
        raise FigureError(f"{path.name}: {' '.join(str(error).split())}") from None


@functools.cache
def _yaml(text: str) -> Any:
    """Parsed YAML, cached: a listing reads the registry for each figure."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # the one in C takes a tenth of the time
        """Refuses a key that occurs twice in a mapping, of which YAML keeps the last."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            names = [key.value for key, _ in node.value]
            for place, (key, _) in enumerate(node.value):
                if key.value in names[:place]:
                    line = key.start_mark.line + 1
                    raise yaml.YAMLError(f"line {line}: the key {key.value!r} occurs twice in one mapping; keep one")
            return super().construct_mapping(node, deep)

    started, ended = yaml.CollectionStartEvent, yaml.CollectionEndEvent
    levels = accumulate(isinstance(event, started) - isinstance(event, ended) for event in yaml.parse(text, Loader))
    if any(level > MAX_NESTING for level in levels):  # the loader in C crashes the process at great depths
        raise yaml.YAMLError(f"collections are nested more than {MAX_NESTING} deep; reduce the nesting")
    return yaml.load(text, Loader)


def cells_of(
    notebook: Path,  # a notebook
    part: bool = False,  # return only the cells up to that tagged `parts`
) -> list[dict[str, Any]]:
    """The cells of a notebook, or those of the job over one item."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise FigureError(f"{notebook.name} is not a notebook: its JSON cannot be read") from None
    if not isinstance(cells, list) or not all(map(_is_cell, cells)):
        raise FigureError(f"{notebook.name} is not a notebook: each cell needs a type, a source and valid tags")
    return cells[:_only(cells, PARTS, notebook.name) + 1] if part else cells


def _is_cell(cell: Any) -> bool:
    """Whether a value has the entries of a cell that are read here."""
    if not (isinstance(cell, dict) and "cell_type" in cell and isinstance(cell.get("metadata", {}), dict)):
        return False
    source, tags = cell.get("source"), cell.get("metadata", {}).get("tags", [])
    return (isinstance(source, str) or _texts(source)) and _texts(tags)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _only(cells: list[dict[str, Any]], tag: str, where: str) -> int:
    """The index of the one cell with a tag."""
    places = [i for i, c in enumerate(cells) if tag in c.get("metadata", {}).get("tags", [])]
    if len(places) != 1:
        raise FigureError(f"{where} has {len(places)} cells tagged {tag!r}; exactly one is required")
    return places[0]


def code_of(
    cells: list[dict[str, Any]],  # cells of a notebook
) -> list[str]:
    """The sources of the code cells."""
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def parameter_defaults(
    notebook: Path,  # a figure notebook
) -> dict[str, Any]:  # default by name
    """The parameters of a notebook: the assignments in its cell tagged `parameters`."""
    cells = cells_of(notebook)
    source = "".join(cells[_only(cells, PARAMETERS, notebook.name)]["source"])
    try:
        return dict(_assignment(statement) for statement in ast.parse(source).body)
    except (ValueError, SyntaxError) as error:
        line = getattr(error, "lineno", None) or error.args[-1]
        where = f"{notebook.name}: line {line} of the cell tagged 'parameters'"
        raise FigureError(f"{where} must be an assignment of a literal to a name") from None


def _assignment(statement: ast.stmt) -> tuple[str, Any]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    if len(targets) != 1 or not isinstance(targets[0], ast.Name):
        raise ValueError(statement.lineno)
    try:
        return targets[0].id, plain(ast.literal_eval(statement.value))
    except (ValueError, TypeError):
        raise ValueError(statement.lineno) from None


def own_data(
    parameters: Mapping[str, Any],  # of a figure
) -> bool:
    """Whether a figure shows data that the user named, by the parameter `video_dir` or `source`."""
    return parameters.get("video_dir") is not None or parameters.get("source", "python") not in STAND_INS


def plain(
    value: Any,  # a literal
) -> Any:
    """The value with lists instead of tuples, as in JSON."""
    return [plain(v) for v in value] if isinstance(value, tuple | list) else value


def fits(
    value: Any,  # a value
    default: Any,  # a value of the required type
) -> bool:
    """Whether a value has the type of its default: integers are valid numbers; the default None allows a string."""
    if default is None:
        return value is None or isinstance(value, str)
    if isinstance(value, bool) or isinstance(default, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, list):
        return isinstance(value, list) and all(any(fits(v, d) for d in default or [v]) for v in value)
    return isinstance(value, int | float if isinstance(default, float) else type(default))
