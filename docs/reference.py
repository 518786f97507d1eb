"""Reference by package: the public names of every module, with links to the notebook that explains them."""

import ast
from collections.abc import Container
from pathlib import Path

from symbols import DEFINITIONS

OMITTED = ("_modidx", "__main__")


def pages(
    package: Path,  # folder of the package
    sections: Container[str],  # names with a section on a page, such as ebwm.sampler.run
) -> dict[str, str]:  # Markdown by the path of the page
    """A page for the modules at the top of a package, and one for each package in it."""
    found: dict[str, list[str]] = {}
    for path in sorted(package.rglob("*.py")):
        if path.stem not in OMITTED and (text := _module(path, package, sections)):
            inside = path.relative_to(package).parts[:-1]
            found.setdefault(".".join([package.name, *inside[:1]]), []).append(text)
    return {f"reference/{name}.md": "\n\n".join([f"# Reference: `{name}`", LEAD.format(name), *texts]) + "\n"
            for name, texts in found.items()}


LEAD = ("Public names of the modules of `{}`, with their purpose; a name with a link leads to its arguments, on the "
        "page that explains it.")


def plain_index(
    package: Path,  # folder of the package
    lead: str,  # what it is
) -> str:
    """Every module that has a purpose, as plain text for programs that read the repository."""
    purposes = {_name(path, package): _purpose(ast.parse(path.read_text(encoding="utf-8")))
                for path in sorted(package.rglob("*.py")) if path.stem not in OMITTED}
    lines = [f"- `{name}`: {purpose}" for name, purpose in purposes.items() if purpose]
    return "\n".join([f"# {package.name}\n\n> {lead}\n\n## Modules\n", *lines]) + "\n"


def _name(path: Path, package: Path) -> str:
    return ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")


def _module(path: Path, package: Path, sections: Container[str]) -> str:
    """Heading, purpose and names of a module; empty if it defines none."""
    tree, module = ast.parse(path.read_text(encoding="utf-8")), _name(path, package)
    nodes = [node for node in tree.body if isinstance(node, DEFINITIONS) and node.name in _public(tree)]
    names = [f"- {_linked(f'{module}.{node.name}', sections)}: {_purpose(node)}".removesuffix(": ") for node in nodes]
    return "\n\n".join([f"## `{module}`", _purpose(tree), "\n".join(names)]) if names else ""


def _public(tree: ast.Module) -> set[str]:
    """The names in `__all__`, or those without an underscore."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return {part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)}
    return {node.name for node in tree.body if isinstance(node, DEFINITIONS) and node.name[0] != "_"}


def _linked(name: str, sections: Container[str]) -> str:
    short = f"`{name.rpartition('.')[2]}`"
    return f"[{short}](#{name})" if name in sections else short


def _purpose(node: ast.Module | ast.stmt) -> str:
    """The first paragraph of a docstring, in one line."""
    return " ".join((ast.get_docstring(node) or "").partition("\n\n")[0].split())
