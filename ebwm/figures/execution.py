"""Execution of a notebook: by papermill, or as a script where papermill or Jupyter is not installed."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ebwm.compat import installed, require
from ebwm.figures.errors import FigureError
from ebwm.figures.inputs import PACKAGE
from ebwm.figures.notebook import PARAMETERS
from ebwm.files import write_json

__all__ = ["execute_cells", "execute_script", "has_jupyter", "kernel_manager", "python_path"]


def has_jupyter() -> bool:
    """Whether papermill can run notebooks here."""
    return all(map(installed, ("papermill", "ipykernel", "nbformat")))


# With Jupyter


def execute_cells(
    notebook: Path,  # to read
    count: int,  # number of cells to execute, from the first
    folder: Path,  # of the executed notebook
    parameters: dict[str, Any],  # of the notebook
    root: Path,  # working directory
    manager: type,  # of the kernel, from jupyter_client
    output: Any = None,  # receives the output of the cells; None: stderr
) -> None:
    """Execute the first cells of a notebook with papermill."""
    sys.modules.setdefault("rfc3987_syntax", None)  # optional in jsonschema, and slow to import
    papermill, nbformat = require("papermill", "figures"), require("nbformat", "figures")
    content = nbformat.read(notebook, as_version=4)
    content.cells = content.cells[:count]
    output = output or sys.stderr
    papermill.execute_notebook(
        content, folder / notebook.name, parameters=parameters, kernel_name="python3", kernel_manager_class=manager,
        cwd=root, progress_bar=False, stdout_file=output, stderr_file=output)


def kernel_manager(
    **environment: str,  # variables of the kernel
) -> type:
    """Kernels of the running interpreter that import this ebwm, independent of the installed kernel specs."""
    client, kernel = require("jupyter_client", "figures"), require("ipykernel.kernelspec", "figures")
    spec = client.kernelspec.KernelSpec(**kernel.get_kernel_dict())
    spec.argv = [sys.executable, *spec.argv[1:]]
    spec.env = {"PYTHONPATH": python_path(), **environment}
    return type("KernelManager", (client.AsyncKernelManager,), {"kernel_spec": spec})


def python_path() -> str:
    """PYTHONPATH of a process that imports this ebwm."""
    return os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]))


# Without Jupyter


def execute_script(
    notebook: Path,  # to read
    count: int,  # number of cells to execute, from the first
    folder: Path,  # receives the notebook with its parameters, without outputs
    parameters: Mapping[str, Any],  # of the notebook
    root: Path,  # working directory
    watch: Any,  # its `pid` is set, its `write` receives the output
    **environment: str,  # variables of the process
) -> None:
    """Execute the first code cells of a notebook in one process."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    content["cells"] = list(_with_parameters(content["cells"][:count], parameters))
    write_json(folder / notebook.name, content)
    source = "\n\n".join(f"# cell {index}\n{''.join(cell['source'])}" for index, cell in enumerate(content["cells"])
                         if cell["cell_type"] == "code")
    script = folder / f".{notebook.stem}.py"
    script.write_text(source, encoding="utf-8")
    process = subprocess.Popen([sys.executable, "-u", str(script.absolute())], cwd=root, env=os.environ | environment,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8")
    watch.pid, last = process.pid, ""
    try:
        with process.stdout as lines:
            for line in lines:
                watch.write(line)
                last = line.strip() or last
        if process.wait():
            raise FigureError(last or f"its process ended with status {process.returncode}")
    finally:
        process.kill()
        script.unlink()


def _with_parameters(cells: Sequence[dict[str, Any]], parameters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The cells, with one that sets the parameters after the cell tagged `parameters`, as papermill has it."""
    text = "\n".join(["# Parameters", *(f"{name} = {value!r}" for name, value in parameters.items())])
    added = {"cell_type": "code", "execution_count": None, "id": "injected", "outputs": [], "source": text,
             "metadata": {"tags": ["injected-parameters"]}}
    for cell in cells:
        yield cell
        if PARAMETERS in cell.get("metadata", {}).get("tags", []):
            yield added
