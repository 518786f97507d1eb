"""README.md from nbs/index.ipynb: the same text and code, with links that hold from the root."""

import posixpath
import re
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from nbformat import NotebookNode

DIRECTIVE = re.compile(r"^\s*#\|\s*(\w+).*\n?", re.MULTILINE)
HIDDEN = {"hide", "default_exp"}
LINK = re.compile(r"(\]\()(?!\w+:|#)([^)\s]+)")


def render(
    root: Path,  # the repository
) -> str:  # the README's text
    """What the home page says, for a reader of the repository."""
    notebook = nbformat.read(root / "nbs" / "index.ipynb", as_version=4)
    notebook.cells = _joined([_plain(cell) for cell in notebook.cells if not _hidden(cell)])
    notebook.metadata.language_info = {"name": "python"}
    text, _ = MarkdownExporter().from_notebook_node(notebook)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _hidden(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(HIDDEN & set(DIRECTIVE.findall(cell.source)))


def _plain(cell: NotebookNode) -> NotebookNode:
    if cell.cell_type == "code":
        cell.source = DIRECTIVE.sub("", cell.source)
    else:
        cell.source = LINK.sub(lambda m: m[1] + posixpath.normpath(f"nbs/{m[2]}"), cell.source)
    return cell


def _joined(cells: list[NotebookNode]) -> list[NotebookNode]:
    """Code cells that follow one another make one block, as long as none but the last shows a value."""
    result: list[NotebookNode] = []
    for cell in cells:
        before = result[-1] if result else None
        if before and before.cell_type == cell.cell_type == "code" and not before.outputs:
            cell.source = f"{before.source}\n\n{cell.source}"
            result.pop()
        result.append(cell)
    return result
