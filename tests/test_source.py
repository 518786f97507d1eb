"""Rules of the source that a program can check: imports, sizes, annotations and notebooks."""

import ast
import json
import re
from pathlib import Path

import pytest
import sizes
from sizes import MODULES, NOTEBOOKS, ROOT

# A module imports from floors below it, or from a module named before it on its own floor.
FLOORS = (
    ("checks", "parameters", "usage", "sizes", "settings", "files", "compat", "states", "saving", "randomness",
     "energy", "evaluation", "evaluation.cost", "evaluation.statistics", "evaluation.uncertainty"),
    ("sampler", "modifiers", "schedules", "stopping", "replay", "diagnostics", "blocks"),
    ("attention", "gradient", "gradient.triton_kernels", "gradient.kernels", "gradient.attention",
     "gradient.sweeps", "kv_cache", "context", "landscape", "ebt", "joint", "baselines", "diffusion"),
    ("gradient.vocabulary", "walk", "objective", "thinking", "generation", "interop"),
    ("data", "data.configs", "data.cache", "data.task", "data.video", "data.digits", "data.encoders", "data.forks",
     "data.documents", "data.tokenizer", "data.text", "data.ngram", "data.questions", "data.grammars",
     "data.arrays", "data.states", "data.pairs", "data.tasks"),
    ("training", "training.checkpoint", "training.distributed", "training.signals", "training.configuration",
     "training.presets", "training.faults", "training.learner", "training.optimiser", "training.trainer",
     "training.folder", "training.run", "training.history", "training.reports"),
    ("figures.errors", "figures.manifest", "figures.notebook", "figures.registry", "figures.style", "figures.inputs",
     "figures.curves", "figures.plan", "figures.record", "figures.execution", "figures.job", "figures.local",
     "figures.progress", "figures.batch",
     "figures.claims", "figures.findings", "figures.ledger", "figures.comparison", "figures.table", "figures.summary",
     "figures.tune",
     "figures", "figures.experiment", "figures.experiment.tables", "figures.experiment.tuning",
     "figures.experiment.panels", "figures.experiment.runs", "figures.experiment.walks", "figures.experiment.densities",
     "figures.experiment.forks", "figures.experiment.probes", "figures.experiment.scaling", "figures.experiment.text",
     "figures.experiment.variants", "figures.experiment.contexts", "figures.experiment.ranking",
     "figures.experiment.row_space", "figures.experiment.tokens", "figures.pictures",
     "figures.pictures.ablation", "figures.pictures.downstream", "figures.pictures.facets",
     "figures.pictures.initial_condition", "figures.pictures.known_landscapes", "figures.pictures.next_frame",
     "figures.pictures.objectives", "figures.pictures.percent_faster", "figures.pictures.step_size",
     "figures.pictures.text_scaling", "figures.pictures.text_thinking", "figures.pictures.thinking",
     "figures.pictures.token_energy", "figures.pictures.uncertainty", "figures.pictures.update_rule",
     "figures.pictures.width",
     "figures.commands", "figures.__main__", "explore", "explore.scenes", "explore.walks", "explore.plots",
     "explore.controls", "explore.landscape", "writing", "cli", "__main__"),
)
ORDER = [name for floor in FLOORS for name in floor]


def name_of(path: Path) -> str:
    """The dotted name of a module without the package's, as in `figures.batch`."""
    parts = path.relative_to(ROOT / "ebwm").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str, within: str = "") -> set[str]:
    """The modules of ebwm that a source imports anywhere; `within` is its package."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {a.name.removeprefix("ebwm.") for a in node.names if a.name.startswith("ebwm.")}
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".") if node.module else []
            if node.level:
                parents = ["ebwm", *within.split(".")] if within else ["ebwm"]
                module = [*parents[:len(parents) - node.level + 1], *module]
            if module[:1] == ["ebwm"]:
                path = ".".join(module[1:])
                names = {f"{path}.{alias.name}".strip(".") for alias in node.names}
                found |= {name if name in ORDER else path for name in names}
    return found - {""}


def upward(name: str, source: str, package: bool = False) -> list[str]:
    """The imports of a module that do not come from below it."""
    within = name if package else name.rpartition(".")[0]
    known = [other for other in imported(source, within) if other != name]
    return sorted(other for other in known if other not in ORDER or ORDER.index(other) >= ORDER.index(name))


@pytest.mark.parametrize("name, source, offenders", [
    ("sampler", "from .training import fit", ["training"]),
    ("sampler", "def f():\n    from ebwm.data import video", ["data.video"]),
    ("sampler", "import ebwm.blocks", ["blocks"]),
    ("sampler", "from ebwm.figures import style", ["figures.style"]),
    ("sampler", "from ebwm.figures import Record", ["figures"]),
    ("sampler", "from . import settings\nfrom ebwm import __version__\nfrom ebwm.energy import Energy", []),
    ("data.video", "from ..compat import require\nfrom .forks import x\nfrom ..training import trainer",
     ["data.forks", "training.trainer"]),
    ("data.forks", "from . import video\nfrom .video import x", []),
])
def test_an_upward_import_is_noticed(name, source, offenders):
    assert upward(name, source) == offenders


def test_modules_import_from_below():
    names = {name_of(path): path for path in MODULES}
    assert [name for name in names if name and name not in ORDER] == [], "a module without a floor"
    found = {name: upward(name, path.read_text(encoding="utf-8"), path.name == "__init__.py")
             for name, path in names.items() if name}
    assert {name: imports for name, imports in found.items() if imports} == {}


# Sizes


def test_sizes_beyond_the_limits_are_noticed():
    lines = lambda count: "def f():\n" + "    x = 1\n" * (count - 1)
    assert sizes.beyond(sizes.of_module(lines(51), "m")) == {"function m: f": 51}
    assert sizes.beyond(sizes.of_module(lines(50), "m")) == {}
    assert sizes.beyond(sizes.of_module("x = 1\n" * 421, "m")) == {"module m": 421}
    many = "class A:\n    def f(self, a, b, c, d, e, f, g, h, i, j, *, k): ..."
    assert sizes.beyond(sizes.of_module(many, "m")) == {"parameters m: f": 11}
    cells = [{"cell_type": "code", "id": "a", "source": ["x\n"] * 81}] * 61
    assert sizes.beyond(sizes.of_notebook(cells, "n")) == {"notebook n": 61, "cell n: a": 81}


def test_sizes_are_within_the_limits_but_for_exceptions_that_only_shrink():
    known = json.loads(sizes.EXCEPTIONS.read_text())
    assert sizes.offenders() == known, "split what has grown; if it has shrunk: python tests/sizes.py"


# Annotations and names


def unannotated(source: str) -> list[str]:
    """Parameters without a type, of functions with public names: also of methods and of nested functions."""
    public = [f for f in sizes.functions(ast.parse(source)) if f.name[0] != "_" or f.name in ("__init__", "__call__")]
    return [f"{f.name}: {a.arg}" for f in public for a in sizes.arguments(f) if a.annotation is None]


def test_public_parameters_are_annotated():
    methods = "class A:\n    def __init__(self, a, *, b: int): ...\n    def _g(self, d): ...\n"
    assert unannotated(methods + "def f(c): ...\ndef _g(d): ...") == ["f: c", "__init__: a"]
    assert unannotated("def _f(x):\n    def g(y, z: int): ...") == ["g: y"]
    found = {name_of(path): unannotated(path.read_text(encoding="utf-8")) for path in MODULES}
    assert {name: parameters for name, parameters in found.items() if parameters} == {}


def test_names_that_a_notebook_exports_differ_in_more_than_case():
    """Their addresses on the pages would be equal."""
    for path in (p for p in MODULES if "AUTOGENERATED" in p.read_text(encoding="utf-8")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        defined = [n.name.lower() for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
        names = [name for name in defined if name[0] != "_"]
        assert [name for name in names if names.count(name) > 1] == [], path


def test_notebooks_start_with_a_title_and_a_subtitle():
    """Nbdev drops other text of the first cell."""
    cells = {path: json.loads(path.read_text(encoding="utf-8"))["cells"] for path in NOTEBOOKS}
    first = {path: "".join(found[0]["source"]) for path, found in cells.items()}
    assert [str(path) for path, text in first.items() if not re.fullmatch(r"# \S.*\n\n> \S.*", text)] == []
