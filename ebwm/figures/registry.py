"""The registry: every figure with its settings at each scale, and the papers' claims that it tests."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from ebwm import checks, settings
from ebwm.compat import extras, require
from ebwm.figures.errors import FigureError
from ebwm.figures.notebook import read_registry, registry_path
from ebwm.settings import SCALES, Settings

require("pydantic", "figures")
from pydantic import (  # noqa: E402
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    ValidationError,
    field_validator,
    model_validator,
)

__all__ = ["ANY", "Claim", "Counter", "Figure", "Finding", "Gate", "Lesson", "Paper", "PaperItem", "Planned", "Registry",
           "StandIn", "Statement", "Step", "registry"]

RESERVED = ("scale", "out")  # parameters that only the runner sets
ANY = "any"  # tolerance of values that differ in every run, such as seconds
FIRST_MINUTES, STEP_MINUTES = 25, 10  # limits of the first steps of the GPU plan together, and of each step
EXPECTATIONS = ({"equals", "within"}, {"below"}, {"above"})


def _tolerance(value: Any) -> Any:
    if value != ANY and not (isinstance(value, int | float) and not isinstance(value, bool) and value >= 0):
        raise ValueError(f"must be a number of at least 0, or {ANY}")
    return value


def _extra(name: str) -> str:
    if name not in extras():
        raise ValueError(f"must be an extra of pyproject.toml: {', '.join(extras())}")
    return name


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Scale = Literal[SCALES]
Count = Annotated[StrictInt, Field(gt=0, le=1024)]  # of processes or threads
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]


class _Entry(BaseModel):
    """An entry of the registry: unknown keys are refused, numbers are accepted as strings."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class Statement(_Entry):
    """Sentences with statistics on record, and what must be true of these."""

    found: str  # {path} or {path:.2f} stands for a statistic of the manifest, with its interval
    holds: tuple[str, ...] = ()  # comparisons of statistics that the sentences imply, as in "gain.low > 0"


class MainAnswer(Statement):
    """The answer of a figure in two sentences or so, and what belongs to it."""

    detail: str = ""  # further sentences, which follow as a paragraph of their own


class Gate(_Entry):
    """What must be true of a record, so that its statistic says something of a claim."""

    needs: Annotated[tuple[str, ...], Field(min_length=1)]  # comparisons of statistics, as of a `Statement`
    otherwise: str  # reason why the claim is undecided where one is false; with statistics, as of a `Statement`


class Claim(_Entry):
    """A sentence of a paper, and the statistic that decides it."""

    name: Name  # unique in the registry
    says: str  # statement of the paper
    source: str  # place of the statement in the paper, which it begins with
    about: Literal["models", "arithmetic"] = "models"  # arithmetic: on points that the paper prints
    statistic: str = ""  # path of our statistic in the manifest's `results`, as in "percent.data"
    measures: str = ""  # the statistic in words, as the page of results names it; default: its path
    expect: dict[str, Number] = {}  # {equals, within}, {below} or {above}
    also: tuple[str, ...] = ()  # paths of other intervals of the same quantity; all must agree for a decision
    gate: Gate | None = None  # without which the claim is undecided
    alike: tuple[str, ...] = ()  # paths of the same quantity where both models are trained alike, unlike in the paper
    printed: Number | None = None  # the paper's value of the same quantity
    unmeasured: str = ""  # reason why no statistic of the figure answers the claim
    note: Statement | None = None  # what a reader must know about the verdict
    revised: str = ""  # how the rule of the verdict was changed after a result was seen, and the verdict before
    command: str = ""  # run that comes closest to the paper's setting

    @model_validator(mode="after")
    def _expectation(self) -> "Claim":
        if bool(self.statistic) != bool(self.expect):
            raise ValueError("a claim needs both statistic and expect, or neither")
        if self.expect and set(self.expect) not in EXPECTATIONS:
            raise ValueError("expect must be {equals, within}, {below} or {above}")
        if self.statistic and self.unmeasured:
            raise ValueError("a claim with a statistic is not unmeasured; remove one of the two")
        if not self.statistic and (self.measures or self.also or self.gate or self.alike or self.revised
                                   or self.printed is not None):
            raise ValueError("measures, also, gate, alike, revised and printed need a statistic")
        return self


class StandIn(_Entry):
    """How far a figure is from the paper's setting, in which it decides nothing."""

    here: str  # what is run here; {run.updates:.0f} stands for a parameter on record, {run.a*run.b} for a product
    paper: str  # the paper's setting, and where it is described
    missing: str  # data set, weights or machine without which that setting cannot be tested here


class Finding(_Entry):
    """A question of the README, and its answer."""

    asks: str  # question
    found: str = ""  # answer, as in `Statement`; default: the answer of the figure
    holds: tuple[str, ...] = ()  # comparisons of statistics that the answer implies


class Figure(_Entry):
    """A notebook, and its settings at each scale."""

    id: Name  # name of the figure and of its folder
    title: str  # one line
    notebook: Path  # absolute path
    headline: StrictBool = False  # whether `--headline` selects it
    each: tuple[str, ...] = ()  # parameters, lists, whose items are separate jobs
    device: dict[Scale, Literal["any", "cuda"]] = {}  # kind of device
    processes: dict[Scale, Count] = {}  # number of processes; more than 1 for torchrun
    threads: dict[Scale, Count] = {}  # threads of each process
    parameters: dict[Scale, dict[str, Any]] = {}  # parameters of the notebook
    seeds: dict[Scale, Annotated[list[StrictInt], Field(min_length=1)]] = {}  # override the settings' seeds
    minutes: dict[Scale, Positive] = {}  # expected time
    timeout: dict[Scale, Positive] = {}  # minutes without output after which a job is stopped
    memory: dict[Scale, Positive] = {}  # limit of a job, GiB
    extras: tuple[Annotated[str, AfterValidator(_extra)], ...] = ()  # optional dependencies
    data: tuple[str, ...] = ()  # files that the notebook reads, relative to the root of the repository
    tolerances: dict[str, Annotated[Any, AfterValidator(_tolerance)]] = {}  # of a replay, by pattern FILE.COLUMN
    times: tuple[str, ...] = ()  # patterns of FILE.COLUMN or results.PATH: measured times without "seconds" in their name
    stand_in: StandIn | None = None  # distance from the papers' setting; without it the figure is in this setting
    claims: tuple[Claim, ...] = ()  # claims of the papers
    answer: MainAnswer | None = None  # answer to the question at the beginning of the notebook
    findings: tuple[Finding, ...] = ()  # answers in the README

    def has(self, scale: str) -> bool:
        """Whether the figure can be made at a scale: `long` is only where more data, training or seeds may matter."""
        return scale != "long" or scale in self.parameters

    @field_validator("notebook", "data")
    @classmethod
    def _exists(cls, value: Any, info: Any) -> Any:
        root = info.context["root"]
        for path in [value] if isinstance(value, Path) else value:
            if not (root / path).is_file():
                raise ValueError(f"the file {path} does not exist in {root}")
        return root / value if isinstance(value, Path) else value

    @model_validator(mode="after")
    def _answered(self) -> "Figure":
        if self.answer is None and not all(finding.found for finding in self.findings):
            raise ValueError("a finding without found needs the figure's answer")
        if self.stand_in and (open_ := [claim.name for claim in self.claims if not claim.command]):
            raise ValueError(f"claim {open_[0]!r} of a stand-in needs the command that comes closest to the paper's setting")
        return self

    @field_validator("parameters")
    @classmethod
    def _not_reserved(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for names in value.values():
            if reserved := sorted(names.keys() & {"seeds", *RESERVED}):
                raise ValueError(f"{reserved[0]!r} is set by the runner")
        return value


class Planned(_Entry):
    """A figure without a notebook."""

    id: Name  # name of the figure
    title: str  # one line
    paper: str  # name of the paper
    claims: tuple[Claim, ...] = ()  # claims of the papers


class PaperItem(_Entry):
    """A figure or table of a paper, and our figure for it or the reason why there is none."""

    item: str  # number in the paper
    shows: str  # its subject
    figure: str = ""  # id of our figure
    reason: str = ""  # reason why there is none

    @model_validator(mode="after")
    def _answered(self) -> "PaperItem":
        if bool(self.figure) == bool(self.reason):
            raise ValueError("either figure or reason is required")
        return self


class Paper(_Entry):
    """A paper, and its figures and tables."""

    name: str  # short name
    arxiv: str  # identifier on arXiv
    items: tuple[PaperItem, ...]  # figures and tables


class Counter(_Entry):
    """What others report against claims."""

    claims: Annotated[tuple[str, ...], Field(min_length=1)]  # names of the claims
    found: str  # what they report
    source: str  # where, with its identifier on arXiv or the commit of the code
    link: str  # address


class Lesson(Statement):
    """A sentence of the page "What we learned"."""

    group: Literal["In short", "Good for", "If you train one", "Not good for", "Mixed", "Undecided"]  # its heading
    figure: str  # id of the figure with the statistics
    home: str = ""  # shorter form for the home page; "": not shown there


class Step(_Entry):
    """A step of the GPU plan: a figure, a part of one, or a command."""

    name: Name  # unique in the plan
    figure: str = ""  # id of the figure
    part: str = ""  # job of one item only, as in "seeds-0"; the step that joins the parts has none
    parameters: dict[str, Any] = {}  # parameters of the notebook; they override those of scale gpu
    command: dict[Scale, str] = {}  # command by scale; its first word `python` is the interpreter in use
    minutes: Annotated[Positive, Field(le=STEP_MINUTES)]  # time after which the step is stopped
    first: StrictBool = False  # whether it belongs to the most valuable steps

    @model_validator(mode="after")
    def _one_kind(self) -> "Step":
        if bool(self.figure) == bool(self.command):
            raise ValueError("either figure or command is required")
        if self.command and (self.part or self.parameters):
            raise ValueError("part and parameters need a figure")
        return self


class _File(_Entry):
    """The content of figures.yaml."""

    figures: tuple[Figure, ...] = ()
    gpu_plan: tuple[Step, ...] = ()
    planned: tuple[Planned, ...] = ()
    papers: tuple[Paper, ...] = ()
    counter_evidence: tuple[Counter, ...] = ()
    learned: tuple[Lesson, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "_File":
        entries = (*self.figures, *self.planned)
        ids = [entry.id for entry in entries]
        _unique("id", ids)
        names = [claim.name for entry in entries for claim in entry.claims]
        _unique("claim", names)
        for counter in self.counter_evidence:
            for name in counter.claims:
                checks.one_of("counter_evidence: claim", name, names)
        for lesson in self.learned:
            checks.one_of("learned: figure", lesson.figure, [figure.id for figure in self.figures])
        for paper in self.papers:
            _unique(f"{paper.name}: item", [item.item for item in paper.items])
            for item in paper.items:
                if item.figure:
                    checks.one_of(f"{paper.name}: {item.item}: figure", item.figure, ids)
        _check_plan(self.gpu_plan, [figure.id for figure in self.figures])
        return self


def _check_plan(steps: Sequence[Step], ids: list[str]) -> None:
    _unique("gpu_plan", [step.name for step in steps])
    for step in steps:
        if step.figure:
            checks.one_of(f"gpu_plan: {step.name}: figure", step.figure, ids)
    first = [step.first for step in steps]
    if first != sorted(first, reverse=True):
        raise ValueError("gpu_plan: the steps marked first must come before the others")
    taken = sum(step.minutes for step in steps if step.first)
    if taken > FIRST_MINUTES:
        raise checks.refusal("gpu_plan: minutes of the first steps", taken, f"must be at most {FIRST_MINUTES}")


def _unique(name: str, values: list[str]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise checks.refusal(name, value, "two entries have this value; they must differ")


@dataclass(frozen=True)
class Registry:
    """All figures of the repository, by id."""

    figures: dict[str, Figure]
    planned: dict[str, Planned] = field(default_factory=dict)
    papers: tuple[Paper, ...] = ()
    counter_evidence: tuple[Counter, ...] = ()
    learned: tuple[Lesson, ...] = ()
    gpu_plan: tuple[Step, ...] = ()  # what a GPU is used for, in this order

    def __getitem__(self, id: str) -> Figure:
        if id in self.planned:
            raise checks.refusal("figure", id, "is planned and has no notebook", checks.allowed(self.figures), FigureError)
        checks.one_of("figure", id, self.figures, FigureError)
        return self.figures[id]


def registry(
    config: Settings | None = None,  # default: the settings in effect
) -> Registry:
    """Read and validate figures.yaml."""
    config = config or settings.load()
    path = registry_path(config)
    try:
        content = read_registry(path)
    except (UnicodeDecodeError, RecursionError) as error:
        raise FigureError(f"{path.name}: must be YAML in UTF-8 ({error})") from None
    if isinstance(content, dict):
        content = {name: value for name, value in content.items() if value is not None}
    try:
        file = _File.model_validate(content, context={"root": config.root})
    except ValidationError as error:
        raise FigureError(f"{path.name}: {_message(error.errors()[0], content)}") from None
    return Registry({f.id: f for f in file.figures}, {p.id: p for p in file.planned}, file.papers, file.counter_evidence,
                    file.learned, file.gpu_plan)


# Messages

ENTRIES = {"figures": Figure, "planned": Planned, "papers": Paper, "claims": Claim, "items": PaperItem,
           "answer": Statement, "note": Statement, "gate": Gate, "findings": Finding, "gpu_plan": Step, "stand_in": StandIn,
           "counter_evidence": Counter, "learned": Lesson}


def _message(error: Mapping[str, Any], content: Any) -> str:
    """One line with the entry, the value and the rule of a validation error."""
    *entry, last = error["loc"] or ("",)
    where = "".join(f"{name}: " for name in _names(entry, content))
    if error["type"] == "missing":
        return f"{where}the key {last!r} is missing"
    if error["type"] == "extra_forbidden":
        model = next((ENTRIES[key] for key in reversed(entry) if key in ENTRIES), _File)
        known = sorted(model.model_fields)
        return str(checks.refusal(f"{where}key", last, checks.allowed(known), checks.suggestion(last, known)))
    rule = re.sub(r"^(Value error, |\w+ (?=should))", "", error["msg"])
    rule = rule.replace("tuple", "list").replace("dictionary", "mapping")
    names = list(_names(error["loc"], content))
    if error["type"] == "value_error" and isinstance(error["input"], dict):
        return ": ".join([*names, rule])
    return str(checks.refusal(": ".join(names) or "content", error["input"], rule))


def _names(path: Sequence[str | int], content: Any) -> Iterator[str]:
    """The names of the entries on a path of keys and indices: id, name or item of an entry in a list."""
    for key in path:
        if key == "[key]":
            return
        try:
            content = content[key]
        except (KeyError, IndexError, TypeError):
            content = None
        if isinstance(key, int):
            named = content if isinstance(content, dict) else {}
            yield next((str(named[name]) for name in ("id", "name", "item") if name in named), f"entry {key + 1}")
        elif key not in ("figures", "planned"):
            yield str(key)
