"""Inputs of a figure, and the key that identifies them: a figure whose inputs are unchanged need not run."""

import ast
import functools
import hashlib
import io
import json
import sys
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ebwm.figures.errors import FigureError
from ebwm.figures.packages import distribution, pins
from ebwm.files import sha256

__all__ = ["PACKAGE", "bare", "changed", "digest_of_folder", "inputs", "key_of", "modules", "packages"]

PACKAGE = Path(__file__).parents[1]


def inputs(
    code: list[str],  # sources of the executed code cells
    parameters: dict[str, Any],  # parameters of the notebook
    device: str,  # kind of device: "cpu" or "cuda"
    root: Path,  # root of the repository
    data: Iterable[str] = (),  # files that the notebook reads, relative to the root
) -> dict[str, Any]:
    """The inputs of a run, by digest."""
    used = modules(code)
    folders = [value for name, value in parameters.items() if name.endswith("_dir") and value]
    return {
        "notebook": _digest([bare(source, cell=True) for source in code]),
        "modules": {name: _digest(bare(path.read_text(encoding="utf-8"))) for name, path in used.items()},
        "packages": packages(code, used, root),
        "data": {name: sha256(root / name) for name in data}
        | {folder: digest_of_folder(Path(folder)) for folder in folders},
        "parameters": parameters,
        "device": device,
    }


def key_of(
    inputs: dict[str, Any],  # from `inputs`
) -> str:  # 64 hexadecimal digits
    """The key of these inputs: equal keys mean equal inputs."""
    return _digest(inputs)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@functools.lru_cache(maxsize=1024)
def bare(
    source: str,  # Python; source that cannot be parsed, such as a cell with magics, is returned unchanged
    cell: bool = False,  # whether it is a notebook cell, which displays a leading string
) -> str:
    """Source without comments, docstrings, empty lines and trailing blanks."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except SyntaxError:
        return source
    lines, texts = source.split("\n"), set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in nodes:
        if isinstance(node, ast.Constant | ast.JoinedStr) and node.end_lineno > node.lineno:
            texts |= {*range(node.lineno - 1, node.end_lineno - 1)}
    for text, instead in _docstrings(nodes[cell:]):
        first, last = text.lineno - 1, text.end_lineno - 1
        before, after = lines[first].encode()[:text.col_offset], lines[last].encode()[text.end_col_offset:]
        lines[first:last + 1] = [before.decode() + instead + after.decode(), *[""] * (last - first)]
        texts -= {*range(first, last + 1)}
    kept = ((row, line) for row, line in enumerate(lines) if row in texts or line.strip())
    return "\n".join(line if row in texts else line.rstrip() for row, line in kept)


def _docstrings(nodes: Iterable[ast.AST]) -> Iterator[tuple[ast.Constant, str]]:
    """Each docstring, and its replacement."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in nodes:
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            alone = len(node.body) == 1 and not isinstance(node, ast.Module)
            yield node.body[0].value, "..." if alone else ""


def digest_of_folder(
    folder: Path,  # folder of data of any size
) -> str:
    """A digest of the files' names, sizes and modification times, without reading them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    found = [(path.relative_to(folder).as_posix(), path.stat()) for path in files]
    return _digest([(name, stat.st_size, stat.st_mtime_ns) for name, stat in found])


def changed(
    then: dict[str, Any],  # inputs of a run
    now: dict[str, Any],  # inputs of the same run at present
) -> list[str]:  # names, such as "module ebwm.sampler"
    """The names of the inputs that differ."""
    pairs = [(kind, then.get(kind), value) for kind, value in now.items()]
    flat = [(what, a, b) for kind, a, b in pairs for what, a, b in _flat(kind, a, b)]
    return [what for what, a, b in flat if a != b]


def _flat(kind: str, then: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    if not isinstance(now, dict):
        yield kind, then, now
        return
    then = then if isinstance(then, dict) else {}
    for name in sorted(then.keys() | now.keys()):
        yield f"{kind.removesuffix('s')} {name}", then.get(name), now.get(name)


def modules(
    code: Iterable[str],  # sources of the cells of one notebook
    package: Path = PACKAGE,  # folder of the package ebwm
) -> dict[str, Path]:  # dotted name to file
    """The modules of ebwm that code imports, directly or indirectly, at the top level or inside functions.

    The `__init__` of a module's parent package does not count: only an import from the package itself does.
    """
    found: dict[str, Path] = {}
    _file.cache_clear()
    waiting = list(_imported("\n".join(code), "", package))
    while waiting:
        name = waiting.pop()
        if name in found or name == package.name:
            continue
        found[name] = path = _file(name, package)
        waiting += _imported(path.read_text(encoding="utf-8"), _within(name, path), package)
    return dict(sorted(found.items()))


def packages(
    code: Iterable[str],  # sources of the cells of one notebook
    used: Mapping[str, Path],  # its modules, from `modules`
    root: Path,  # root of the repository
    package: Path = PACKAGE,  # folder of the package ebwm
) -> dict[str, str | None]:  # name to pinned version; None without a pin
    """The third-party packages that code and its modules import, at the top level or inside functions."""
    sources = [("\n".join(code), ""),
               *((path.read_text(encoding="utf-8"), _within(name, path)) for name, path in used.items())]
    names = {module.partition(".")[0] for source, within in sources
             for module, _ in _imports(source, within, package.name)}
    pinned = pins(root)
    foreign = names - sys.stdlib_module_names - {package.name, ""}
    return {name: pinned.get(name) for name in sorted(map(distribution, foreign))}


def _within(name: str, path: Path) -> str:
    """The package to which the relative imports of a module refer."""
    return name if path.name == "__init__.py" else name.rpartition(".")[0]


@functools.cache
def _file(name: str, package: Path) -> Path | None:
    """The file of a module; None if there is no such module."""
    path = package.parent.joinpath(*name.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def _imported(source: str, within: str, package: Path) -> Iterator[str]:
    """The modules that a source imports; a name imported from a module counts as that module."""
    for module, name in _imports(source, within, package.name):
        if module.partition(".")[0] != package.name or module.endswith("."):
            continue
        if name and _file(f"{module}.{name}", package):
            yield f"{module}.{name}"
        elif path := _file(module, package):
            yield module
            text = path.read_text(encoding="utf-8")
            lazy = _exports(text) if path.name == "__init__.py" else _tasks(text)
            yield from lazy.values() if name == "*" else filter(None, [lazy.get(name)])


@functools.lru_cache(maxsize=1024)
def _exports(source: str) -> dict[str, str]:
    """The names that a package imports on first use, and their modules: its dictionary EXPORTS."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXPORTS":
            return ast.literal_eval(node.value)
    return {}


@functools.lru_cache(maxsize=1024)
def _tasks(source: str) -> dict[str, str]:
    """The modules that classes import by name on first use: of `task = "ebwm.data.states:States"` in a configuration."""
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    return {part.name: line.value.value.partition(":")[0] for part in classes for line in part.body
            if isinstance(line, ast.AnnAssign) and ast.unparse(line.target) == "task" and line.value}


@functools.lru_cache(maxsize=1024)
def _imports(source: str, within: str, package: str) -> list[tuple[str, str]]:
    """Modules that a source imports, and the names that it uses of each, "" for the module itself."""
    lines = [line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))]
    nodes = list(ast.walk(_parsed("\n".join(lines))))
    found, bound = [], {}
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
            bound |= {alias.asname or alias.name.partition(".")[0]: alias.name if alias.asname else package
                      for alias in node.names if alias.name.partition(".")[0] == package}
        elif isinstance(node, ast.ImportFrom):
            found += [(_origin(node, within), alias.name) for alias in node.names]
        elif isinstance(node, ast.Call):
            found += [(name, "") for name in _imported_by_call(node, nodes)]
    found += [(bound[node.value.id], node.attr) for node in nodes if isinstance(node, ast.Attribute)
              and isinstance(node.value, ast.Name) and node.value.id in bound]
    return list(dict.fromkeys(found))


def _imported_by_call(call: ast.Call, nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The module in `require("av", "video")`; of an f-string its beginning, alone and with each text of the source."""
    function = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if function not in ("require", "import_module") or not call.args:
        return
    first = call.args[0]
    yield from _texts(first.values[:1] if isinstance(first, ast.JoinedStr) else [first])
    if isinstance(first, ast.JoinedStr):
        yield from (begin + text for begin in _texts(first.values[:1]) for text in _texts(nodes) if text.isidentifier())


def _texts(nodes: Iterable[ast.AST]) -> Iterator[str]:
    return (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


def _parsed(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise FigureError(f"{line!r} is not Python ({error.msg}); its imports cannot be determined") from None


def _origin(node: ast.ImportFrom, within: str) -> str:
    """The absolute name of the module of a `from` import."""
    parents = within.split(".")[:len(within.split(".")) - node.level + 1] if node.level else []
    return ".".join([*parents, *([node.module] if node.module else [])])
