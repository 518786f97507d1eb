"""Rules of the source that a program can check: imports, sizes, annotations and notebooks."""

import ast
import functools
import importlib.util
import json
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import sizes
from sizes import MODULES, NOTEBOOKS, ROOT, parsed

# A module imports from floors below it, and on its own floor without a cycle. "data." stands for every module in it.
FLOORS = [floor.split() for floor in (
    "checks entries tensor_checks parameters usage sizes settings files allocator compat states saving randomness"
    " energy evaluation evaluation.",
    "sampler modifiers schedules stopping replay diagnostics blocks",
    "attention gradient gradient. kv_cache context landscape ebt joint baselines diffusion denoising",
    "gradient.vocabulary walk objective thinking generation onnx_export interop",
    "data data.",
    "training training. evaluation.actions evaluation.rollouts",
    "policy policy.",
    "figures.errors figures.trials figures.manifest figures.notebook figures.checkout figures.registry figures.style"
    " figures.inputs figures.curves figures.packages figures.plan",
    "figures.record",
    "figures.carried figures.execution figures.job figures.local figures.progress figures.batch figures.claims"
    " figures.findings"
    " figures.ledger figures.comparison figures.table figures.summary figures.tune figures.offline figures.wheels"
    " figures.ends figures.bundle figures.adopt figures.identical figures.rejoin figures.rekey"
    " figures.report",
    "figures",
    "figures.experiment figures.experiment. figures.pictures figures.pictures.",
    "figures.commands figures.__main__ explore explore. writing",
    "cli __main__",
)]


def floor_of(name: str) -> int:
    """The number of a module's floor; -1 for an unknown module."""
    places = {entry: number for number, floor in enumerate(FLOORS) for entry in floor}
    return places.get(name, places.get(f"{name.rpartition('.')[0]}.", -1))


def name_of(path: Path) -> str:
    """The dotted name of a module without the package's, as in `figures.batch`."""
    parts = path.relative_to(ROOT / "ebwm").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path): path for path in MODULES if path.parent != ROOT / "ebwm" or path.stem != "__init__"}


@functools.cache
def imported(name: str, source: str) -> set[str]:
    """The modules of ebwm that a module imports anywhere."""
    package = f"ebwm.{name}" if name in NAMES and NAMES[name].stem == "__init__" else f"ebwm.{name}".rpartition(".")[0]
    found = set()
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names = {alias.name for alias in node.names if f"{module}.{alias.name}".removeprefix("ebwm.") in NAMES}
            found |= {f"{module}.{alias}" for alias in names} | ({module} if len(names) < len(node.names) else set())
    return {other.removeprefix("ebwm.") for other in found if other.startswith("ebwm.")} - {name}


def upward(name: str, source: str) -> list[str]:
    """The imports of a module from a floor above its own."""
    return sorted(other for other in imported(name, source) if not 0 <= floor_of(other) <= floor_of(name))


@pytest.mark.parametrize("name, source, offenders", [
    ("sampler", "from .training import fit", ["training"]),
    ("sampler", "def f():\n    from ebwm.data import video", ["data.video"]),
    ("sampler", "import ebwm.attention, ebwm.blocks", ["attention"]),
    ("sampler", "from ebwm.figures import style", ["figures.style"]),
    ("sampler", "from ebwm.figures import Record", ["figures"]),
    ("sampler", "from . import settings, joint\nfrom ebwm import __version__\nfrom ebwm.nothing import x",
     ["joint", "nothing"]),
    ("data.video", "from ..compat import require\nfrom .forks import x\nfrom ..training import trainer",
     ["training.trainer"]),
])
def test_an_upward_import_is_noticed(name, source, offenders):
    assert upward(name, source) == offenders


def test_modules_import_from_below_and_not_in_cycles():
    sources = {name: path.read_text(encoding="utf-8") for name, path in NAMES.items()}
    assert [name for name in NAMES if floor_of(name) < 0] == [], "a module without a floor"
    found = {name: upward(name, source) for name, source in sources.items()}
    assert {name: imports for name, imports in found.items() if imports} == {}
    TopologicalSorter({name: imported(name, source) for name, source in sources.items()}).prepare()


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
    public = [f for f in sizes.functions(parsed(source)) if f.name[0] != "_" or f.name in ("__init__", "__call__")]
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
        body = parsed(path.read_text(encoding="utf-8")).body
        defined = [n.name.lower() for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
        names = [name for name in defined if name[0] != "_"]
        assert [name for name in names if names.count(name) > 1] == [], path


def test_notebooks_start_with_a_title_and_a_subtitle():
    """Nbdev drops other text of the first cell."""
    cells = {path: json.loads(path.read_text(encoding="utf-8"))["cells"] for path in NOTEBOOKS}
    first = {path: "".join(found[0]["source"]) for path, found in cells.items()}
    assert [str(path) for path, text in first.items() if not re.fullmatch(r"# \S.*\n\n> \S.*", text)] == []
