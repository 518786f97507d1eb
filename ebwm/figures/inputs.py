"""What a figure is made from, and the key that names it: when no input has changed, nothing needs to run."""

import ast
import functools
import hashlib
import io
import json
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ebwm.figures.errors import FigureError
from ebwm.files import sha256

__all__ = ["PACKAGE", "bare", "changed", "digest_of_folder", "inputs", "key_of", "modules"]

PACKAGE = Path(__file__).parents[1]
LOCK = "constraints.txt"


def inputs(
    code: list[str],  # sources of the notebook's code cells that are executed
    parameters: dict[str, Any],  # all that the notebook is given
    device: str,  # kind of device: "cpu" or "cuda"
    root: Path,  # of the repository
    data: Iterable[str] = (),  # files that the notebook reads, from the root
) -> dict[str, Any]:
    """Everything that a run depends on, by digest."""
    lock = root / LOCK
    folders = [value for name, value in parameters.items() if name.endswith("_dir") and value]
    return {
        "notebook": _digest([bare(source, cell=True) for source in code]),
        "modules": {name: _digest(bare(path.read_text(encoding="utf-8")))
                    for name, path in modules(code).items()},
        "lock": sha256(lock) if lock.is_file() else None,
        "data": {name: sha256(root / name) for name in data}
        | {folder: digest_of_folder(Path(folder)) for folder in folders},
        "parameters": parameters,
        "device": device,
    }


def key_of(
    inputs: dict[str, Any],  # from `inputs`
) -> str:  # 64 hexadecimal digits
    """The name of these inputs: equal keys mean that the same thing would be made."""
    return _digest(inputs)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@functools.lru_cache(maxsize=1024)
def bare(
    source: str,  # Python; what cannot be parsed, such as a cell with magics, stays as it is
    cell: bool = False,  # whether it is a notebook's cell: it shows a text that it begins with
) -> str:
    """Source without comments, docstrings, empty lines and blanks at the ends of lines."""
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
    """Each docstring, and what must stand for it."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in nodes:
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            alone = len(node.body) == 1 and not isinstance(node, ast.Module)
            yield node.body[0].value, "..." if alone else ""


def digest_of_folder(
    folder: Path,  # of data, as large as may be
) -> str:
    """A digest of the files' names, sizes and times of change, without reading them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    found = [(path.relative_to(folder).as_posix(), path.stat()) for path in files]
    return _digest([(name, stat.st_size, stat.st_mtime_ns) for name, stat in found])


def changed(
    then: dict[str, Any],  # inputs of a run
    now: dict[str, Any],  # inputs of the same run, were it made today
) -> list[str]:  # names, such as "module ebwm.sampler"
    """Which inputs differ."""
    pairs = [(kind, then.get(kind), value) for kind, value in now.items()]
    flat = [(what, a, b) for kind, a, b in pairs for what, a, b in _flat(kind, a, b)]
    return [what for what, a, b in flat if a != b]


def _flat(kind: str, then: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    if not isinstance(now, dict):
        yield kind, then, now
        return
    then = then or {}
    for name in sorted(then.keys() | now.keys()):
        yield f"{kind.removesuffix('s')} {name}", then.get(name), now.get(name)


def modules(
    code: Iterable[str],  # Python sources
    package: Path = PACKAGE,  # folder of the package ebwm
) -> dict[str, Path]:  # dotted name to file
    """The modules of ebwm that code imports, at once or through others, at the top or inside functions."""
    found: dict[str, Path] = {}
    waiting = [name for source in code for name in _imported(source, "", package)]
    while waiting:
        name = waiting.pop()
        if name in found or name == package.name:
            continue
        found[name] = path = _file(name, package)
        within = name if path.name == "__init__.py" else name.rpartition(".")[0]
        waiting += _imported(path.read_text(encoding="utf-8"), within, package)
    return dict(sorted(found.items()))


def _file(name: str, package: Path) -> Path | None:
    """The file of a module, or nothing where there is no such module."""
    path = package.parent.joinpath(*name.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def _imported(source: str, within: str, package: Path) -> Iterator[str]:
    """The modules that a source names; names taken from a module count for the module."""
    for node in _imports(source):
        if isinstance(node, ast.Import):
            names = [(alias.name, None) for alias in node.names]
        else:
            origin = _origin(node, within)
            names = [(f"{origin}.{alias.name}", origin) for alias in node.names]
        for name, origin in names:
            if name.partition(".")[0] == package.name:
                yield from [n for n in (name, origin) if n and _file(n, package)][:1]


@functools.lru_cache(maxsize=1024)
def _imports(source: str) -> list[ast.Import | ast.ImportFrom]:
    """The import statements of a source, wherever they stand; each job asks for those of every module."""
    lines = [line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))]
    nodes = ast.walk(_parsed("\n".join(lines)))
    return [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]


def _parsed(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise FigureError(f"{line!r} is no Python ({error.msg}), so what it imports cannot be told") from None


def _origin(node: ast.ImportFrom, within: str) -> str:
    up = within.split(".")[:len(within.split(".")) - node.level + 1] if node.level else []
    return ".".join([*up, *([node.module] if node.module else [])])
