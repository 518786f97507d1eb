"""The registry: every figure, what each scale changes in it, and the claims of the papers that it bears on."""

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ebwm import settings
from ebwm.compat import extras
from ebwm.figures.errors import FigureError, suggest
from ebwm.figures.notebook import fits, read_registry, registry_path
from ebwm.settings import SCALES, Settings

__all__ = ["ANY", "Claim", "Figure", "Paper", "PaperItem", "Planned", "Registry", "registry"]

NAME = re.compile(r"[a-z][a-z0-9_]*")
RESERVED = ("scale", "out")  # parameters that only the runner sets
ANY = "any"  # the tolerance of what no run repeats, such as seconds


@dataclass(frozen=True)
class Claim:
    """One sentence of a paper, and what would decide it."""

    name: str  # unique in the registry
    says: str  # what the paper says
    source: str  # where it says so
    statistic: str = ""  # ours: where it stands in the manifest's `results`, as in "percent.data"
    expect: dict[str, float] = field(default_factory=dict)  # {equals, within}, {below} or {above}
    not_tested: str = ""  # why the figure, as it can be made here, doesn't decide it
    command: str = ""  # what would


@dataclass(frozen=True)
class Figure:
    """One entry of the registry: a notebook and what each scale changes in it."""

    id: str
    title: str
    notebook: Path  # absolute
    headline: bool = False  # whether it belongs to the few that a visitor makes first
    each: tuple[str, ...] = ()  # parameters, lists, whose items are jobs of their own
    device: dict[str, str] = field(default_factory=dict)  # by scale: "any" or "cuda"
    processes: dict[str, int] = field(default_factory=dict)  # by scale: more than 1 for torchrun
    threads: dict[str, int] = field(default_factory=dict)  # by scale, of each process
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)  # by scale
    seeds: dict[str, list[int]] = field(default_factory=dict)  # by scale, before the settings' seeds
    minutes: dict[str, int | float] = field(default_factory=dict)  # by scale, expected
    timeout: dict[str, int | float] = field(default_factory=dict)  # by scale, minutes a job may take
    memory: dict[str, int | float] = field(default_factory=dict)  # by scale, GiB that a job may take
    extras: tuple[str, ...] = ()
    data: tuple[str, ...] = ()  # files that the notebook reads, from the root of the repository
    tolerances: dict[str, float | str] = field(default_factory=dict)  # of a replay, by pattern of FILE.COLUMN
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class Planned:
    """A figure that is named but has no notebook yet."""

    id: str
    title: str
    paper: str
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class PaperItem:
    """A figure or a table of a paper: the figure of ours that answers it, or the reason why none does."""

    item: str
    shows: str
    figure: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Paper:
    """A paper and what it shows."""

    name: str
    arxiv: str
    items: tuple[PaperItem, ...]


@dataclass(frozen=True)
class Registry:
    """All figures of the repository, by id."""

    figures: dict[str, Figure]
    planned: dict[str, Planned] = field(default_factory=dict)
    papers: tuple[Paper, ...] = ()

    def __getitem__(self, id: str) -> Figure:
        if id in self.planned:
            raise FigureError(f"figure {id!r} is planned, it has no notebook yet; "
                              f"allowed: {', '.join(sorted(self.figures))}")
        if id not in self.figures:
            raise FigureError(f"unknown figure {id!r}; {suggest(id, self.figures)}")
        return self.figures[id]


def registry(
    config: Settings | None = None,  # settings in effect by default
) -> Registry:
    """Read and check figures.yaml."""
    config = config or settings.load()
    path = registry_path(config)
    where, content = path.name, _mapping(read_registry(path), path.name)
    _check_keys(content, {"figures", "planned", "papers"}, set(), where)
    figures = [_figure(entry, config.root, where) for entry in _entries(content, "figures", where)]
    planned = [_planned(entry, where) for entry in _entries(content, "planned", where)]
    _check_unique([entry.id for entry in (*figures, *planned)], "id", where)
    _check_unique([claim.name for entry in (*figures, *planned) for claim in entry.claims], "claim", where)
    known = {entry.id for entry in (*figures, *planned)}
    papers = [_paper(entry, known, where) for entry in _entries(content, "papers", where)]
    return Registry({f.id: f for f in figures}, {p.id: p for p in planned}, tuple(papers))


def _mapping(value: Any, where: str) -> dict:
    if not isinstance(value, dict):
        raise FigureError(f"{where}: {value!r} is given where names and values are needed")
    return value


def _entries(content: dict, key: str, where: str) -> list[dict]:
    entries = content.get(key) or []
    if not isinstance(entries, list):
        raise FigureError(f"{where}: {key!r} must be a list of entries")
    return [_mapping(entry, f"{where}: {key}") for entry in entries]


def _check_keys(entry: dict, allowed: set[str], required: set[str], where: str) -> None:
    if unknown := sorted(entry.keys() - allowed, key=str):
        raise FigureError(f"{where}: unknown key {unknown[0]!r}; {suggest(str(unknown[0]), allowed)}")
    if missing := sorted(required - entry.keys()):
        raise FigureError(f"{where}: the key {missing[0]!r} is missing")


def _check_unique(names: list[str], what: str, where: str) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise FigureError(f"{where}: two entries have the {what} {twice[0]!r}; they must differ")


def _checked_name(entry: dict, key: str, where: str) -> str:
    name = entry.get(key)
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise FigureError(f"{where}: {key} {name!r} must be of lower-case letters, digits and underscores")
    return name


def _texts(entry: dict, cls: type) -> dict[str, Any]:
    """The entry with text wherever the class has text."""
    return {f.name: str(entry[f.name]) if f.type is str else entry[f.name]
            for f in dataclasses.fields(cls) if f.name in entry}


def _planned(entry: dict, where: str) -> Planned:
    where = f"{where}: {_checked_name(entry, 'id', where)}"
    _check_keys(entry, {"id", "title", "paper", "claims"}, {"id", "title", "paper"}, where)
    return Planned(**_texts({**entry, "claims": _claims(entry, where)}, Planned))


def _claims(entry: dict, where: str) -> tuple[Claim, ...]:
    return tuple(_claim(claim, where) for claim in _entries(entry, "claims", where))


EXPECTATIONS = ({"equals", "within"}, {"below"}, {"above"})


def _claim(entry: dict, where: str) -> Claim:
    where = f"{where}: {_checked_name(entry, 'name', f'{where}: claims')}"
    _check_keys(entry, {f.name for f in dataclasses.fields(Claim)}, {"name", "says", "source"}, where)
    expect = _mapping(entry.get("expect", {}), f"{where}: expect")
    if bool(entry.get("statistic")) != bool(expect):
        raise FigureError(f"{where}: a claim has both a statistic and what to expect of it, or neither")
    if expect and (set(expect) not in EXPECTATIONS or not _numbers(expect)):
        raise FigureError(f"{where}: expect is {expect}; it must be {{equals, within}}, {{below}} or {{above}}, "
                          "each a number")
    return Claim(**_texts(entry, Claim))


def _paper(entry: dict, known: set[str], where: str) -> Paper:
    _check_keys(entry, {"name", "arxiv", "items"}, {"name", "arxiv", "items"}, f"{where}: papers")
    where = f"{where}: papers: {entry['name']}"
    items = tuple(_item(item, known, where) for item in _entries(entry, "items", where))
    _check_unique([item.item for item in items], "item", where)
    return Paper(str(entry["name"]), str(entry["arxiv"]), items)


def _item(entry: dict, known: set[str], where: str) -> PaperItem:
    _check_keys(entry, {"item", "shows", "figure", "reason"}, {"item", "shows"}, where)
    item = PaperItem(**_texts(entry, PaperItem))
    if bool(item.figure) == bool(item.reason):
        raise FigureError(f"{where}: {item.item}: name the figure that answers it, or the reason why none does")
    if item.figure and item.figure not in known:
        raise FigureError(f"{where}: {item.item}: unknown figure {item.figure!r}; {suggest(item.figure, known)}")
    return item


def _figure(entry: dict, root: Path, where: str) -> Figure:
    where = f"{where}: {_checked_name(entry, 'id', where)}"
    _check_keys(entry, {f.name for f in dataclasses.fields(Figure)}, {"id", "title", "notebook"}, where)
    values = {key: _by_scale(entry[key], f"{where}: {key}") for key in BY_SCALE if key in entry}
    values |= {key: _listed(entry[key], f"{where}: {key}") for key in LISTED if key in entry}
    values |= {"title": str(entry["title"]), "claims": _claims(entry, where)}
    _check_parameters(entry.get("parameters", {}), f"{where}: parameters")
    for key, (right, allowed) in CHECKS.items():
        if key in entry and not right(entry[key]):
            raise FigureError(f"{where}: {key} is {entry[key]!r}; it must be {allowed}")
    for path in (entry["notebook"], *values.get("data", ())):
        if not (root / str(path)).is_file():
            raise FigureError(f"{where}: its file {path} does not exist under {root}")
    return Figure(**{**entry, **values, "notebook": root / str(entry["notebook"])})


BY_SCALE = ("device", "processes", "threads", "parameters", "seeds", "minutes", "timeout", "memory")
LISTED = ("each", "extras", "data")


def _by_scale(value: Any, where: str) -> dict:
    _check_keys(_mapping(value, where), set(SCALES), set(), where)
    return value


def _listed(value: Any, where: str) -> tuple[str, ...]:
    if not fits(value, [""]):
        raise FigureError(f"{where} is {value!r}; it must be a list of texts")
    return tuple(value)


def _check_parameters(parameters: dict[str, Any], where: str) -> None:
    for scale, names in parameters.items():
        if set_by_runner := sorted(_mapping(names, f"{where}: {scale}").keys() & {"seeds", *RESERVED}):
            raise FigureError(f"{where}: {scale}: {set_by_runner[0]!r} is set by the runner")


def _numbers(values: dict[str, Any]) -> bool:
    return all(fits(value, 0.0) for value in values.values())


def _counts(values: dict[str, Any]) -> bool:
    return all(fits(value, 0) and value > 0 for value in values.values())


def _positive(values: dict[str, Any]) -> bool:
    return _numbers(values) and all(value > 0 for value in values.values())


def _tolerances(values: Any) -> bool:
    return isinstance(values, dict) and all(v == ANY or (fits(v, 0.0) and v >= 0) for v in values.values())


CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "headline": (lambda value: isinstance(value, bool), "true or false"),
    "device": (lambda value: all(v in (ANY, "cuda") for v in value.values()), "any or cuda for each scale"),
    "processes": (_counts, "a count for each scale"),
    "threads": (_counts, "a count for each scale"),
    "seeds": (lambda value: all(v and fits(v, [0]) for v in value.values()), "whole numbers for each scale"),
    "minutes": (_positive, "a number for each scale"),
    "timeout": (_positive, "a number of minutes for each scale"),
    "memory": (_positive, "a number of GiB for each scale"),
    "extras": (lambda value: set(value) <= extras().keys(), "among the extras of pyproject.toml"),
    "tolerances": (_tolerances, "a number from 0, or any, for each pattern of FILE.COLUMN"),
}
