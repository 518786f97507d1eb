"""The house rules that a program can check: floors, lengths, annotations, notebooks."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(p for p in (ROOT / "ebwm").rglob("*.py") if p.stem not in ("_modidx",))
NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)

# A module imports from floors below it, or from a module named before it on its own floor.
FLOORS = (
    ("checks", "settings", "files", "compat", "evaluation", "energy", "evaluation.cost", "evaluation.statistics",
     "evaluation.uncertainty"),
    ("sampler", "schedules", "stopping", "replay", "diagnostics", "blocks"),
    ("attention", "gradient", "gradient.triton_kernels", "gradient.kernels", "gradient.attention",
     "gradient.sweeps", "kv_cache", "context", "landscape", "ebt", "joint", "baselines"),
    ("gradient.vocabulary", "walk", "objective", "thinking", "generation", "interop"),
    ("data", "data.video", "data.encoders", "data.forks", "data.documents", "data.tokenizer", "data.text",
     "data.ngram", "data.downstream"),
    ("training", "training.checkpoint", "training.distributed", "training.configuration", "training.faults",
     "training.learner", "training.trainer", "training.history"),
    ("figures.errors", "figures.notebook", "figures.registry", "figures.style", "figures.inputs",
     "figures.curves", "figures.plan", "figures.record", "figures.job", "figures.progress", "figures.batch",
     "figures.claims", "figures.ledger", "figures.table", "figures", "figures.__main__",
     "explore", "explore.landscape", "writing", "cli", "__main__"),
)
ORDER = [name for floor in FLOORS for name in floor]
LONGEST, MOST_CELLS = 60, 60


def name_of(path: Path) -> str:
    """The dotted name of a module without the package's: `figures.batch`; a package has its own name."""
    parts = path.relative_to(ROOT / "ebwm").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str) -> set[str]:
    """The modules of ebwm that a module's source names in its imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {a.name.removeprefix("ebwm.") for a in node.names if a.name.startswith("ebwm.")}
        elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "ebwm"):
            path = (node.module or "").removeprefix("ebwm").strip(".")
            names = {f"{path}.{alias.name}".strip(".") for alias in node.names}
            found |= {name if name in ORDER else path for name in names}
    return found - {""}


def upward(name: str, source: str) -> list[str]:
    return sorted(other for other in imported(source) if ORDER.index(other) >= ORDER.index(name))


@pytest.mark.parametrize("source, found", [
    ("from .training import fit", ["training"]),
    ("def f():\n    from ebwm.data import video", ["video"]),
    ("import ebwm.blocks", ["blocks"]),
    ("from ebwm.figures import style", ["figures.style"]),
    ("from ebwm.figures import Record", ["figures"]),
    ("from . import settings\nfrom ebwm import __version__\nfrom ebwm.energy import Energy", []),
])
def test_an_import_that_goes_up_is_noticed(source, found):
    assert upward("sampler", source) == found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_import_from_below(path):
    if name := name_of(path):
        assert name in ORDER, f"{name} has no floor"
        assert upward(name, path.read_text(encoding="utf-8")) == []


def functions(tree: ast.AST) -> list[ast.FunctionDef]:
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def too_long(source: str) -> list[str]:
    return [f.name for f in functions(ast.parse(source)) if f.end_lineno - f.lineno + 1 > LONGEST]


def unannotated(source: str) -> list[str]:
    """Parameters without a type, of public functions and of the public methods of public classes."""
    body = ast.parse(source).body
    owners = [node for node in body if isinstance(node, ast.ClassDef) and node.name[0] != "_"]
    called = [(f, 0) for f in body if isinstance(f, ast.FunctionDef)]
    called += [(f, not _static(f)) for owner in owners for f in owner.body if isinstance(f, ast.FunctionDef)]
    public = [(f, own) for f, own in called if f.name[0] != "_" or f.name in ("__init__", "__call__")]
    return [f"{f.name}: {a.arg}" for f, own in public for a in _arguments(f)[own:] if a.annotation is None]


def _static(function: ast.FunctionDef) -> bool:
    return any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in function.decorator_list)


def _arguments(function: ast.FunctionDef) -> list[ast.arg]:
    return [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]


def test_a_long_function_and_a_bare_parameter_are_noticed():
    assert too_long("def f():\n" + "    x = 1\n" * LONGEST) == ["f"]
    assert too_long("def f():\n" + "    x = 1\n" * (LONGEST - 1)) == []
    methods = "class A:\n    def __init__(self, a, *, b: int): ...\n    def _g(self, d): ...\n"
    assert unannotated(methods + "def f(c): ...\ndef _g(d): ...") == ["f: c", "__init__: a"]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_functions_are_short_and_parameters_annotated(path):
    source = path.read_text(encoding="utf-8")
    assert too_long(source) == []
    assert unannotated(source) == []


@pytest.mark.parametrize("path", [p for p in MODULES if "AUTOGENERATED" in p.read_text()], ids=name_of)
def test_names_that_a_notebook_exports_differ_in_more_than_case(path):
    defined = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    names = [node.name.lower() for node in defined if node.name[0] != "_"]
    assert len(names) == len(set(names)), "their addresses on the pages would be the same"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_small(path):
    assert len(json.loads(path.read_text(encoding="utf-8"))["cells"]) <= MOST_CELLS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_begin_with_a_title_and_a_subtitle_alone(path):
    first = json.loads(path.read_text(encoding="utf-8"))["cells"][0]
    alone = re.fullmatch(r"# \S.*\n\n> \S.*", "".join(first["source"]))
    assert alone, "nbdev drops other text of the first cell"


def test_cleaning_keeps_the_parameters_tag(tmp_path):
    tagged = {"cell_type": "code", "id": "a", "source": "x = 1", "outputs": [], "execution_count": None,
              "metadata": {"tags": ["parameters"], "scrolled": True}}
    sample = {"cells": [tagged], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    shutil.copytree(ROOT / "nbs" / "figures", tmp_path / "nbs")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "nbs" / "sample.ipynb").write_text(json.dumps(sample))
    program = Path(sys.executable).parent / "nbdev-clean"
    subprocess.run([program], cwd=tmp_path, check=True, capture_output=True)
    for path in (tmp_path / "nbs").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert sum("parameters" in cell["metadata"].get("tags", []) for cell in cells) == 1, path.name
    assert "scrolled" not in (tmp_path / "nbs" / "sample.ipynb").read_text()
