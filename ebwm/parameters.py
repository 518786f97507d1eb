"""Parameter descriptions for `help()`, from the comments beside parameters and fields in the source."""

import ast
import inspect
import io
import textwrap
import tokenize
from collections.abc import Iterator
from types import FunctionType
from typing import Any

__all__ = ["comments", "describe", "with_parameters"]


def with_parameters(
    value: Any,  # a class or function
) -> Any:  # the same object
    """Add the parameter descriptions to the docstrings of a function, or of a class and its public methods."""
    if isinstance(value, type):
        methods = [m for name, m in vars(value).items() if isinstance(m, FunctionType) and name[0] != "_"]
        _extend(value, _source(value))
        for method in methods:
            _extend(method, _source(method))
    elif isinstance(value, FunctionType):
        _extend(value, _source(value))
    return value


def _source(value: Any) -> str:
    try:
        return textwrap.dedent(inspect.getsource(value))
    except (OSError, TypeError):  # no source, as in a frozen application
        return ""


def _extend(value: Any, source: str) -> None:
    text, doc = describe(source), value.__doc__ or ""
    if text and text not in doc:
        value.__doc__ = f"{doc}\n\n{text}" if doc else text


def comments(
    value: Any,  # a class or function
) -> dict[str, str]:  # by name of a parameter or field
    """The comments beside the parameters of a function, or of a class: those of its `__init__`, else its fields."""
    source = _source(value)
    return dict(_described(ast.parse(source).body[0], _by_line(source))) if source else {}


def describe(
    source: str,  # of one function or class
) -> str:  # numpy style; empty without comments
    """The sections `Parameters` and `Returns` of a docstring, from the comments of a source."""
    nodes, by_line = ast.parse(source).body, _by_line(source)
    if not nodes:
        return ""
    parameters = list(_described(nodes[0], by_line))
    sections = []
    if parameters:
        entries = [f"{name}\n    {comment}" for name, comment in parameters]
        sections.append("\n".join(["Parameters", "----------", *entries]))
    if isinstance(nodes[0], ast.FunctionDef) and (returned := _returned(nodes[0], by_line)):
        sections.append(f"Returns\n-------\n{returned}")
    return "\n\n".join(sections)


def _by_line(source: str) -> dict[int, str]:
    """The comment of each line that has one."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


def _described(node: ast.AST, by_line: dict[int, str]) -> Iterator[tuple[str, str]]:
    """Names and comments of a function's parameters, or of those of a class: its `__init__`, else its fields."""
    if isinstance(node, ast.ClassDef):
        inits = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
        if not inits:
            fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
            yield from _with_comments([(part.target.id, part.end_lineno) for part in fields], by_line)
            return
        node = inits[0]
    if isinstance(node, ast.FunctionDef):
        arguments = node.args
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        rest = [part for part in (arguments.vararg, arguments.kwarg) if part]
        ends = [(part.arg, part.end_lineno) for part in (*named, *rest) if part.arg not in ("self", "cls")]
        yield from _with_comments(ends, by_line)


def _with_comments(ends: list[tuple[str, int]], by_line: dict[int, str]) -> Iterator[tuple[str, str]]:
    for name, line in ends:
        if line in by_line:
            yield name, by_line[line]


def _returned(node: ast.FunctionDef, by_line: dict[int, str]) -> str:
    """Annotation and comment of the returned value."""
    if node.returns is None:
        return ""
    comment = by_line.get(node.returns.end_lineno)
    return ast.unparse(node.returns) + (f"\n    {comment}" if comment else "")
