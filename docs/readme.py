"""README.md from nbs/index.ipynb: text, code and tables, with links relative to the root."""

import posixpath
import re
from pathlib import Path

import nbformat
import records
from nbconvert import MarkdownExporter
from nbformat import NotebookNode

DIRECTIVE = re.compile(r"^\s*#\|\s*(\w+).*\n?", re.MULTILINE)
HIDDEN = {"hide", "default_exp"}
OF_SITE = re.compile(r"\n?<!-- site: .+? -->")
LINK = re.compile(r"(\]\()(?!\w+:|#)([^)\s]+)")


def render(
    root: Path,  # root of the repository
) -> str:  # text of the README
    """The text of the home page as Markdown."""
    notebook = nbformat.read(root / "nbs" / "index.ipynb", as_version=4)
    notebook.cells = _joined([_plain(cell, root) for cell in notebook.cells if not _hidden(cell)])
    notebook.metadata.language_info = {"name": "python"}
    text, _ = MarkdownExporter().from_notebook_node(notebook)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _hidden(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(HIDDEN & set(DIRECTIVE.findall(cell.source)))


def _plain(cell: NotebookNode, root: Path) -> NotebookNode:
    if cell.cell_type == "code":
        cell.source = DIRECTIVE.sub("", cell.source)
    else:
        source = records.place_tables(OF_SITE.sub("", cell.source), root)
        cell.source = LINK.sub(lambda m: m[1] + posixpath.normpath(f"nbs/{m[2]}"), source)
    return cell


def _joined(cells: list[NotebookNode]) -> list[NotebookNode]:
    """Consecutive code cells as one block, if only the last shows a value."""
    result: list[NotebookNode] = []
    for cell in cells:
        before = result[-1] if result else None
        if before and before.cell_type == cell.cell_type == "code" and not before.outputs:
            cell.source = f"{before.source}\n\n{cell.source}"
            result.pop()
        result.append(cell)
    return result
