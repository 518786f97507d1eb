"""A small project with two figures, for tests of the figure engine and of the command line."""

import json
from pathlib import Path

import pytest

from ebwm.figures.errors import FigureError
from ebwm.figures.manifest import sealed

YAML = "figures/figures.yaml"
NOTEBOOKS = ("nbs/figures/tiny.ipynb", "nbs/figures/fan.ipynb")

PARAMETERS = """
scale = "cpu"
seeds = [0, 1, 2]
out = None
updates = 2
rate: float = 0.5  # a number
folder = None
clips_dir = None
fast = False
""".strip()

BODY = """
import sys

import pandas as pd
from tqdm.std import tqdm

from ebwm.figures.record import Record

record = Record("tiny", globals())
walk = [(seed, update) for seed in seeds for update in range(updates)]
rows = [dict(seed=seed, update=update, loss=rate**update) for seed, update in tqdm(walk, desc="walking")]
record.data("losses", pd.DataFrame(rows))
"""

DRAW = """
def draw():
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(1, 1))
    ax.set_axis_off()  # texts take most of the time
    ax.plot([row["loss"] for row in rows])
    return fig


record.picture("losses", draw)
record.close(dataset_digest="0" * 64, executable=sys.executable, least=min(row["loss"] for row in rows))
"""

FAN_PARAMETERS = """
scale = "cpu"
seeds = [0, 1]
sizes = [8, 16]
out = None
power = 1.0
""".strip()

REGISTRY = """
figures:
  - id: tiny
    title: "A tiny figure"
    notebook: nbs/figures/tiny.ipynb
    headline: true
    seeds: {smoke: [0, 1]}
    parameters:
      smoke: {updates: 4, rate: 1}
    minutes: {smoke: 0.1, cpu: 3}
    claims: [{name: something, says: "It falls", source: "EBT, Figure 0"}]
  - id: fan
    title: "A figure over seeds and sizes"
    notebook: nbs/figures/fan.ipynb
    each: [seeds, sizes]
    seeds: {smoke: [0, 1]}
    minutes: {smoke: 0.1}
planned:
  - {id: later, title: "A planned figure", paper: EBT}
"""


def code(source: str, *tags: str, id: str = "cell") -> dict:
    """A code cell of a notebook."""
    metadata = {"tags": list(tags)} if tags else {}
    return {"cell_type": "code", "id": id, "metadata": metadata, "source": source.strip(), "outputs": [],
            "execution_count": None}


def write_notebook(path: Path, *cells: dict) -> Path:
    """A notebook file of some cells."""
    kernel = {"display_name": "python3", "language": "python", "name": "python3"}
    content = {"cells": list(cells), "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return path


def write_project(root: Path) -> Path:
    """A folder with settings, a registry and figures."""
    (root / "settings.ini").write_text("[figures]\nscale = smoke\n[compute]\ndevice = cpu\nthreads = 1\n")
    (root / "figures").mkdir()
    (root / YAML).write_text(REGISTRY)
    tiny, fan = (root / name for name in NOTEBOOKS)
    write_notebook(tiny, code(PARAMETERS, "parameters", id="p"), code(BODY, id="c"), code(DRAW, id="d"))
    parts = code(FAN_PARAMETERS, "parameters", id="p"), code("made = 1", "parts", id="a")
    write_notebook(fan, *parts, code("made", id="j"))
    return root


def write_manifest(folder: Path, **content) -> Path:
    """Write a sealed manifest with this content."""
    empty = {"scale": "smoke", "seeds": [], "results": {}, "data": {}, "pictures": {}, "parameters": {"effective": {}}}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "manifest.json"
    path.write_text(json.dumps(sealed(empty | content)))
    return path


def defaults_of(**changed) -> dict:
    """The globals of the notebook of `tiny`: defaults of its parameters, except those changed."""
    values = {}
    exec(PARAMETERS, {}, values)
    return {name: value for name, value in values.items() if name != "__annotations__"} | changed


def rewrite(path: Path, old: str, new: str) -> None:
    """Replace a string in a file."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def refusal(act, *arguments, **named) -> str:
    """The message of a FigureError, which must be one line."""
    with pytest.raises(FigureError) as caught:
        act(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)
