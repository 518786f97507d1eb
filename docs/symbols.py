"""Exported names on a page: heading, signature, description and source."""

import ast
import re
import textwrap

EXPORT = re.compile(r"^\s*#\|\s*exports?\b", re.MULTILINE)
MODULE = re.compile(r"^\s*#\|\s*default_exp\s+(\S+)", re.MULTILINE)
DIRECTIVES = re.compile(r"^\s*#\|.*\n?", re.MULTILINE)
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def defined(
    cell: dict,  # cell of a notebook
) -> dict[str, ast.stmt]:
    """The public functions and classes that a cell exports."""
    nodes = ast.parse(_source(cell)).body if _exported(cell) else []
    return {node.name: node for node in nodes if isinstance(node, DEFINITIONS) and node.name[0] != "_"}


def target(
    name: str,  # exported name, such as run
    cells: list[dict],  # cells of its notebook
) -> str:  # such as ebwm.sampler.run
    """The target of links to a name."""
    modules = (MODULE.search("".join(cell["source"])) for cell in cells if cell["cell_type"] == "code")
    return f"ebwm.{next((m[1] for m in modules if m), 'nowhere')}.{name}"


def fold(
    cell: dict,  # cell of a notebook
) -> str:  # empty for a cell that exports only imports
    """The source of an exported cell in a folded block."""
    statements = ast.parse(_source(cell)).body if _exported(cell) else []
    if all(isinstance(node, ast.Import | ast.ImportFrom) for node in statements):
        return ""
    title = "Source" if defined(cell) else f"Source: {', '.join(_names(statements))}"
    code = f"```python\n{_source(cell).strip()}\n```"
    return f'<details class="source"><summary>{title}</summary>\n\n{code}\n\n</details>'


def _names(statements: list[ast.stmt]) -> list[str]:
    """The constants and private helpers of a cell without public definitions."""
    assigned = [t for node in statements for t in getattr(node, "targets", [getattr(node, "target", None)])]
    names = [t.id for t in assigned if isinstance(t, ast.Name)]
    return [*names, *(node.name for node in statements if isinstance(node, DEFINITIONS))]


def section(
    name: str,  # exported name, such as run or EBT.landscape
    cell: dict,  # nbdev's `show_doc` cell of the name, with its output
    original: list[dict],  # cells of the notebook
) -> str:
    """The documentation of one exported name."""
    owner, _, member = name.partition(".")
    places = [index for index, other in enumerate(original) if owner in defined(other)]
    if not places:
        return _rendered(cell)
    node = defined(original[places[0]])[owner]
    source = _source(original[places[0]])
    if member:
        node = next(n for n in node.body if getattr(n, "name", "") == member)
    level = "###" if _below_heading(original[: places[0]]) else "##"
    signature = f"```python\n{_signature(node, source)}\n```"
    heading = f"({target(name, original)})=\n{level} `{name}`"
    parts = [heading, signature, _description(cell), _methods(node, source)]
    return "\n\n".join(part for part in parts if part)


def _source(cell: dict) -> str:
    return DIRECTIVES.sub("", "".join(cell["source"]))


def _exported(cell: dict) -> bool:
    return cell["cell_type"] == "code" and bool(EXPORT.search("".join(cell["source"])))


def _below_heading(cells: list[dict]) -> bool:
    return any(c["cell_type"] == "markdown" and "".join(c["source"]).startswith("## ") for c in cells)


def _rendered(cell: dict) -> str:
    outputs = (output.get("data", {}).get("text/markdown", "") for output in cell.get("outputs", []))
    return "".join(next(filter(None, outputs), ""))


def _description(cell: dict) -> str:
    """The docstring with nbdev's links, without italics."""
    text = _rendered(cell).rpartition("```")[2].strip()
    return re.sub(r"\A\*(.+)\*$", r"\1", text, count=1, flags=re.MULTILINE)


def _signature(node: ast.stmt, source: str) -> str:
    """The signature of a function or constructor, or the fields of a class."""
    if not isinstance(node, ast.ClassDef):
        return _head(node, source)
    made = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
    if made:
        head = re.sub(r"def __init__\(\s*self,?\s*", f"{node.name}(\n    ", _head(made[0], source), count=1)
        return re.sub(r"\s*\)( -> None)?:\s*$", "\n)", head)
    fields = [n for n in node.body if isinstance(n, ast.AnnAssign)]
    lines = [line for n in fields for line in source.splitlines()[n.lineno - 1 : n.end_lineno]]
    return "\n".join([_head(node, source), *lines])


def _head(node: ast.stmt, source: str) -> str:
    """The lines from the first decorator to the body."""
    lines, body = source.splitlines(), node.body[0]
    first = min([d.lineno for d in node.decorator_list] + [node.lineno])
    last = body.lineno - (not lines[body.lineno - 1][: body.col_offset].strip())
    return textwrap.dedent("\n".join(lines[first - 1 : last]))


def _methods(node: ast.stmt, source: str) -> str:
    functions = [n for n in node.body if isinstance(n, ast.FunctionDef)]
    methods = [n for n in functions if n.name == "__call__" or n.name[0] != "_"]
    lines = (f"- `{_call(n)}`: {ast.get_docstring(n) or _returns(n, source)}" for n in methods)
    return "\n".join(line.removesuffix(": ") for line in lines) if isinstance(node, ast.ClassDef) else ""


def _call(method: ast.FunctionDef) -> str:
    plain = [a.arg for a in method.args.args[1:] + method.args.kwonlyargs]
    rest = [f"{star}{a.arg}" for star, a in (("*", method.args.vararg), ("**", method.args.kwarg)) if a]
    is_property = any("property" in ast.unparse(decorator) for decorator in method.decorator_list)
    return f".{method.name}" + ("" if is_property else f"({', '.join(plain + rest)})")


def _returns(method: ast.FunctionDef, source: str) -> str:
    """The comment on the returned value in the last line of a signature."""
    last = _head(method, source).splitlines()[-1]
    return last.partition("#")[2].strip() if last.lstrip().startswith(("def", ")")) else ""
