"""Refusals of the figure engine, the settings and the command line of figures, each in a small project."""

import contextlib
import math
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import pandas as pd
from tiny_figure import (
    NOTEBOOKS,
    YAML,
    code,
    defaults_of,
    rewrite,
    write_manifest,
    write_notebook,
    write_project,
)

from ebwm import cli, compat, figures, settings
from ebwm.figures.claims import verdict
from ebwm.figures.errors import FigureError
from ebwm.figures.registry import Claim
from ebwm.figures.report import ledger
from ebwm.figures.style import colour, style
from ebwm.settings import SettingsError
from ebwm.training.history import UnknownRun

ROOT = Path(__file__).parents[2]
KEPT = {name: value for name, value in os.environ.items() if not name.startswith("EBWM_")}
WITHOUT_SETTINGS = mock.patch.dict(os.environ, KEPT, clear=True)


def within(act: Callable, *arguments, edit: tuple = (), files: dict | None = None, **named) -> Callable:
    """Call `act` in a new project, after a replacement (path, old, new) and with other contents of files."""
    def call():
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), WITHOUT_SETTINGS:
            write_project(Path(folder))
            if edit:
                rewrite(Path(edit[0]), *edit[1:])
            for path, content in (files or {}).items():
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                Path(path).write_text(content, encoding="utf-8")
            act(*arguments, **named)
    return call


def command(*words: str) -> None:
    """Run a command without the translation of errors to exit codes."""
    options = cli._parser(list(words)).parse_args(words)
    options.run(options)


SOURCE = ', source: "EBT, Figure 0"'
PAPER = "papers: [{name: EBT, arxiv: 1, items: [{item: F1, shows: xEXTRA}]}]\nplanned:"
PLAN = "gpu_plan: [{name: a, EXTRA}]\nplanned:"
FIRST = "figure: tiny, minutes: 10, first: true"
REGISTRY = [  # text of figures.yaml, its replacement, named in the message
    ("id: later", "id: tiny", "id='tiny'"),
    ("headline:", "headlin:", "tiny: key='headlin'"),
    ("tiny.ipynb", "tinny.ipynb", "tinny.ipynb"),
    ("claims:", "data: [data/none.csv]\n    claims:", "data/none.csv"),
    ("    title: \"A tiny figure\"\n", "", "tiny: the key 'title'"),
    ("{smoke: 0.1,", "{smok: 0.1,", "tiny: minutes: smok"),
    ("claims:", "memory: {cpu: lots}\n    claims:", "tiny: memory: cpu='lots'"),
    ("claims:", "timeout: {cpu: 0}\n    claims:", "tiny: timeout: cpu=0"),
    ("claims:", "processes: {cpu: 100000}\n    claims:", "tiny: processes: cpu=100000"),
    ("claims:", "processes: {cpu: 0.5}\n    claims:", "tiny: processes: cpu=0.5"),
    ("claims:", "tolerances: {a: -1}\n    claims:", "tiny: tolerances: a=-1"),
    ("claims:", "each: seeds\n    claims:", "tiny: each='seeds'"),
    ("claims:", "device: {gpu: tpu}\n    claims:", "tiny: device: gpu='tpu'"),
    ("name: something", "nam: something", "tiny: claims: entry 1"),
    (SOURCE, "", "something: the key 'source'"),
    (SOURCE, f"{SOURCE}, statistic: least", "tiny: claims: something"),
    (SOURCE, f"{SOURCE}, statistic: least, expect: {{equals: 1}}", "tiny: claims: something"),
    (SOURCE, f"{SOURCE}, statistic: least, expect: {{below: x}}", "below='x'"),
    (SOURCE, f"{SOURCE}, printed: 1", "something: measures, also, gate, alike, revised and printed need a statistic"),
    (SOURCE, f"{SOURCE}, alike: [a]", "something: measures, also, gate, alike, revised and printed need a statistic"),
    (SOURCE, f"{SOURCE}, gate: {{needs: [a]}}", "something: gate: the key 'otherwise'"),
    (SOURCE, f"{SOURCE}, gate: {{needs: [], otherwise: a}}", "something: gate: needs=[]"),
    (SOURCE, f"{SOURCE}, statistic: least, expect: {{below: 1}}, unmeasured: a", "something: a claim with a statistic"),
    (SOURCE, f"{SOURCE}, about: robots", "something: about='robots'"),
    ("claims:", "stand_in: {here: a, paper: b, missing: c}\n    claims:", "tiny: claim 'something' of a stand-in"),
    ("claims:", "stand_in: {here: a, paper: b}\n    claims:", "tiny: stand_in: the key 'missing'"),
    ("planned:", "counter_evidence: [{claims: [some], found: a, source: b, link: c}]\nplanned:", "claim='some'"),
    ("planned:", "learned: [{group: Undecided, figure: tin, found: a}]\nplanned:", "learned: figure='tin'"),
    ("paper: EBT}", "paper: EBT, claims: [{name: something, says: a, source: b}]}", "claim='something'"),
    ("planned:", PAPER.replace("EXTRA", ""), "F1"),
    ("planned:", PAPER.replace("EXTRA", ", figure: tin"), "EBT: F1: figure='tin'"),
    ("planned:", PAPER.replace("EXTRA", ", reason: a}, {item: F1, shows: y, reason: b"), "EBT: item='F1'"),
    ("[0, 1]", "[]", "tiny: seeds: smoke=[]"),
    ("{updates: 4,", "{out: here,", "tiny: parameters"),
    ("claims:", "extras: [vido]\n    claims:", "extras: entry 1='vido'"),
    ("claims:", "findings: [{asks: Why}]\n    claims:", "tiny: a finding without found"),
    ("planned:", "planed:", "key='planed'"),
    ("id: tiny", "id: Tiny figure", "id='Tiny figure'"),
    ("planned:", PLAN.replace("EXTRA", "figure: tin, minutes: 1"), "gpu_plan: a: figure='tin'"),
    ("planned:", PLAN.replace("EXTRA", "figure: tiny, minutes: 11"), "a: minutes=11"),
    ("planned:", PLAN.replace("EXTRA", "figure: tiny, minutes: 1, command: {gpu: ls}"), "either figure or command"),
    ("planned:", PLAN.replace("EXTRA", "command: {gpu: ls}, part: b, minutes: 1"), "part and parameters need a figure"),
    ("planned:", PLAN.replace("EXTRA", "figure: tiny, minutes: 1}, {name: b, figure: tiny, minutes: 1, first: true"),
     "marked first must come before"),
    ("planned:", PLAN.replace("EXTRA", f"{FIRST}}}, {{name: b, {FIRST}}}, {{name: c, {FIRST}"),
     "minutes of the first steps=30"),
    ("planned:\n", "planned: [\n", "figures.yaml: while parsing"),
    ("  - {id: later", "    {id: later", "planned"),
    ("headline: true", "headline: true\n    headline: false", "the key 'headline' occurs twice"),
]
PARAMETERS = {  # of a run: value, named in the message
    "updtes": 3, "updates": 1.5, "rate": "high", "seeds": 3, "fast": 1, "folder": 3, "scale": "cpu",
    "out": "here", "clips_dir": "nowhere",
}
CELLS = {  # sources of the cells tagged `parameters`, and the place in the message
    "no tag": ([code("a = 1")], "0 cells"),
    "two tags": ([code("a = 1", "parameters"), code("b = 1", "parameters")], "2 cells"),
    "expression": ([code("a = 1\nb = 2 * 3", "parameters")], "line 2"),
    "two targets": ([code("a = b = 1", "parameters")], "line 1"),
    "annotation": ([code("a: int", "parameters")], "line 1"),
    "import": ([code("import os", "parameters")], "line 1"),
    "syntax": ([code("a = 1\nb = = 2", "parameters")], "line 2"),
}
SETTINGS = [  # content of settings.ini, named in the message
    ("[figures]\nscale = big\n", "scale='big'"),
    ("[figures]\nseeds = 0 -1\n", "seeds='0 -1'"),
    ("[figures]\nseeds = 1 1\n", "seeds='1 1'"),
    ("[figures]\nscale = cpu\n[compute]\nscale = gpu\n", "'scale'"),
    ("[compute]\nthreads = 1.5\n", "threads='1.5'"),
    ("[compute]\ndevice = tpu9\n", "device='tpu9'"),
    ("[figures]\nscael = cpu\n", "did you mean 'scale'"),
    ("scale = cpu\n", "section headers"),
]
COMMANDS = [  # words after `ebwm`, type of the error, named in the message
    ([], cli.UsageError, "command is missing"),
    (["figures"], cli.UsageError, "figures command"),
    (["figures", "lst"], cli.UsageError, "did you mean 'list'"),
    (["figures", "list", "--scale", "cpo"], cli.UsageError, "scale='cpo'"),
    (["figures", "list", "--scal", "cpu"], cli.UsageError, "--scal"),
    (["figures", "run"], cli.UsageError, "ID"),
    (["figures", "run", "tiny", "--all"], cli.UsageError, "ID"),
    (["figures", "run", "tiny", "later"], FigureError, "figure='later'"),
    (["figures", "run", "tiny", "-p", "updates"], cli.UsageError, "-p='updates'"),
    (["figures", "run", "tiny", "--cores", "0"], cli.UsageError, "--cores"),
    (["figures", "run", "tiny", "--profile", "nowhere"], cli.UsageError, "--profile='nowhere'"),
    (["figures", "replay", "tiny"], FigureError, "figure 'tiny'"),
    (["figures", "promote"], cli.UsageError, "ID"),
    (["figures", "promote", "tiny"], FigureError, "figure 'tiny'"),
    (["train"], cli.UsageError, "CONFIG"),
    (["train", "smoke", "--changed"], cli.UsageError, "--changed"),
    (["train", "smoke", "--print-config", "--changed"], cli.UsageError, "--changed"),
    (["train", "--resume"], cli.UsageError, "--resume"),
    (["train", "--resume", "001"], UnknownRun, "RUN='001'"),
    (["figures", "report", "--out", "nbs"], cli.UsageError, "--out='nbs'"),
    (["generate", "--times", "100000000"], cli.UsageError, "--times=100000000"),
    (["runs"], cli.UsageError, "runs command"),
    (["runs", "show"], cli.UsageError, "RUN"),
    (["runs", "show", "001"], UnknownRun, "RUN='001'"),
    (["runs", "compare", "001", "--out", "x.gif"], cli.UsageError, "--out='x.gif'"),
]


def parameter_cells(cells: list[dict]) -> None:
    figures.parameter_defaults(write_notebook(Path("x.ipynb"), *cells))


def jobs(*arguments, **named) -> None:
    figures.jobs_of(figures.plan(*arguments, **named))


def unknown_file_name() -> None:
    figures.Record("tiny", defaults_of(scale="smoke")).data("a/b", pd.DataFrame({"a": [1]}))


def changed_parameter() -> None:
    names = defaults_of(scale="smoke")
    record = figures.Record("tiny", names)
    names["updates"] = 7
    record.close()


def statistic(name: str, result: object) -> None:
    claim = Claim(name="c", says="says", source="source", statistic=name, expect={"below": 0})
    verdict(claim, figures.registry()["tiny"], {"scale": "cpu", "seeds": [0], "results": {"loss": result}})


def promote(**changes) -> None:
    """Promote a run with a changed manifest."""
    folder = Path("figures/tiny/runs/smoke")
    effective = {"seeds": [0, 1], "updates": 4, "rate": 1}
    write_manifest(folder, **{"parameters": {"effective": effective}, "git": None} | changes)
    figures.promote("tiny", "smoke")


TINY, FAN = NOTEBOOKS
GPU = (YAML, "claims:", "device: {gpu: cuda}\n    claims:")
BLOCK = "if True:\\n    %matplotlib inline\\n"
NO_PATH = mock.patch.dict(os.environ, PATH="")
FIGURES = [
    *((f"registry {new or old}", within(figures.registry, edit=(YAML, old, new)), named)
      for old, new, named in REGISTRY),
    ("registry, deep", within(figures.registry, files={YAML: "figures: " + "[" * 100_000}),
     "figures.yaml: collections are nested more than 100 deep"),
    ("registry, UTF-16", within(lambda: (Path(YAML).write_bytes(b"\xff\xfea"), figures.registry())), "must be YAML"),
    ("no registry", within(lambda: (Path(YAML).unlink(), figures.registry())), "figures.yaml"),
    *((f"parameter {name}", within(figures.run, "tiny", overrides={name: value}), name)
      for name, value in PARAMETERS.items()),
    *((f"seeds {value}", within(figures.plan, "tiny", overrides={"seeds": value}), "seeds=")
      for value in (["a"], [], [0, 0])),
    ("TMPDIR", within(mock.patch.dict(os.environ, TMPDIR="nowhere")(figures.plan), "tiny"), "TMPDIR='nowhere'"),
    ("infinite", within(figures.plan, "tiny", overrides={"rate": math.inf}), "rate=inf"),
    *((f"level {level}", partial(figures.plan, "percent_faster", "cpu", {"level": level}, settings.load(ROOT)), "level")
      for level in (0, 1, 2, -1, "x")),
    ("Boolean", within(figures.plan, "tiny", overrides={"updates": True}), "updates=True"),
    ("registry", within(figures.plan, "tiny", edit=(YAML, "updates: 4", "update: 4")), "parameter='update'"),
    ("GPU", within(figures.plan, "tiny", "gpu", edit=GPU), "GPU"),
    ("items with equal file names",
     within(figures.plan, "fan", edit=(FAN, "sizes = [8, 16]", 'sizes = [\\"a/b\\", \\"a_b\\"]')), "sizes="),
    ("no list", within(figures.plan, "fan", edit=(FAN, "sizes = [8, 16]", "sizes = 8")), "sizes=8"),
    ("no notebook", within(figures.parameter_defaults, Path("x.ipynb"), files={"x.ipynb": "import os"}), "x.ipynb"),
    ("plan: scale", within(figures.plan, "tiny", "smok"), "scale='smok'"),
    ("no tag parts", within(jobs, "fan", edit=(FAN, '"parts"', '"part"')), "'parts'"),
    ("no tag", within(figures.run, "tiny", edit=(TINY, '"parameters"', '"parametres"')), "'parameters'"),
    ("empty block", within(jobs, "tiny", edit=(TINY, "import sys\\n", BLOCK)), "is not Python"),
    *((f"cell: {name}", within(parameter_cells, cells), place) for name, (cells, place) in CELLS.items()),
    ("file name", within(unknown_file_name), "name='a/b'"),
    ("record: scale", within(lambda: figures.Record("tiny", defaults_of(scale="big"))), "scale='big'"),
    ("record: figure", within(lambda: figures.Record("tinny", defaults_of())), "figure='tinny'"),
    ("record: no parameters", within(lambda: figures.Record("tiny", {})), "'scale'"),
    ("record: changed parameter", within(changed_parameter), "'updates'"),
    ("promote: parameters", within(promote, parameters={"effective": {"updates": 99}}), "updates = 99"),
    *((f"manifest: {name}", within(promote, **{name: value}), f"manifest: its entry {name!r}") for name, value in {
        "parameters": {}, "results": [1], "data": {"../x": "0"}, "pictures": None, "scale": "huge", "seeds": "x",
        "inputs": 3, "threads": "x", "git": 3}.items()),
    *((f"notebook: {text[:60]}", within(figures.parameter_defaults, Path("x.ipynb"), files={"x.ipynb": text}),
       "x.ipynb is not a notebook") for text in ("[" * 10**5, *(f'{{"cells": {cells}}}' for cells in (
          "3", "[null]", '[{"cell_type": "code"}]', '[{"cell_type": "code", "source": 3}]',
          '[{"cell_type": "code", "source": "", "metadata": {"tags": 3}}]')))),
    ("promote: uncommitted changes", within(promote, git={"commit": "0", "dirty": True}), "'tiny'"),
    ("role", lambda: colour("ebtt"), "role='ebtt'"),
    ("theme", style("drak").__enter__, "theme='drak'"),
    ("no statistic", within(statistic, "loss.best", 3), "'loss.best'"),
    *((f"statistic {result}", within(statistic, "loss", result), "'loss'")
      for result in ("low", True, [1.0], {"value": 1.0})),
    *((f"manifest {text[:30]}", within(ledger, files={"figures/tiny/manifest.json": text}), "manifest.json")
      for text in ("{", "[" * 10**5, "[]", '{"scale": "cpu"}')),
]
CASES = [
    *((label, call, FigureError, named) for label, call, named in FIGURES),
    *((f"settings {text!r}", within(settings.load, files={"settings.ini": text}), SettingsError, named)
      for text, named in SETTINGS),
    *((" ".join(words), within(command, *words), kind, named) for words, kind, named in COMMANDS),
    ("device as output", within(lambda: (os.mkfifo("pipe"), command("figures", "report", "--out", "pipe"))),
     cli.UsageError, "--out='pipe'"),
    ("package", partial(compat.require, "no_such_package", "figures"), ImportError, "ebwm[figures]"),
    ("program", NO_PATH(partial(compat.system_part, "chromium", "chromium", "drawing")), compat.MissingPart,
     "apt-get install chromium"),
    ("website", NO_PATH(partial(compat.system_part, "quarto", "https://quarto.org", "x")), compat.MissingPart,
     "https://quarto"),
]
