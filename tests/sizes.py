"""Sizes of modules, functions, signatures, cells and notebooks, and those beyond the limits.

`python tests/sizes.py` writes the exceptions to sizes.json; it refuses new and larger ones without --force.
"""

import ast
import functools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXCEPTIONS = ROOT / "tests" / "sizes.json"
LIMITS = {"module": 420, "function": 50, "parameters": 10, "cell": 80, "notebook": 60}
MODULES = sorted(p for p in (ROOT / "ebwm").rglob("*.py") if p.name != "_modidx.py")
NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
parsed = functools.cache(ast.parse)


def functions(tree: ast.AST) -> list[ast.FunctionDef]:
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def arguments(function: ast.FunctionDef) -> list[ast.arg]:
    found = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [a for a in found if a.arg not in ("self", "cls")]


def of_module(source: str, name: str) -> Iterator[tuple[str, str, int]]:
    """Kind, name and size of a module and its functions."""
    yield "module", name, len(source.splitlines())
    for function in functions(parsed(source)):
        yield "function", f"{name}: {function.name}", function.end_lineno - function.lineno + 1
        yield "parameters", f"{name}: {function.name}", len(arguments(function))


def of_notebook(cells: list[dict], name: str) -> Iterator[tuple[str, str, int]]:
    """Kind, name and size of a notebook and its code cells."""
    yield "notebook", name, len(cells)
    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        yield "cell", f"{name}: {cell['id']}", len("".join(cell["source"]).splitlines())


def beyond(sizes: Iterator[tuple[str, str, int]]) -> dict[str, int]:
    """The sizes beyond their limits, by kind and name; the largest of equal names."""
    found: dict[str, int] = {}
    for kind, name, size in sizes:
        if size > LIMITS[kind]:
            found[f"{kind} {name}"] = max(size, found.get(f"{kind} {name}", 0))
    return found


def offenders() -> dict[str, int]:
    found = {}
    for path in MODULES:
        found |= beyond(of_module(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()))
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        found |= beyond(of_notebook(cells, path.relative_to(ROOT).as_posix()))
    return found


def main(words: list[str]) -> int:
    known, now = json.loads(EXCEPTIONS.read_text()) if EXCEPTIONS.is_file() else {}, offenders()
    grown = {name: size for name, size in now.items() if size > known.get(name, 0)}
    for name, size in grown.items():
        print(f"{name}: {size} lines, cells or parameters; was {known.get(name, 'within the limit')}")
    if grown and words != ["--force"]:
        return 1
    EXCEPTIONS.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
