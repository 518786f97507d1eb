"""Refusals of the figure engine, the settings and the command line of figures, each in a small project."""

import contextlib
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import pandas as pd
from tiny_figure import (
    NOTEBOOKS,
    REGISTRY_PATH,
    code,
    defaults_of,
    rewrite,
    write_manifest,
    write_notebook,
    write_project,
)

from ebwm import cli, compat, figures, settings
from ebwm.figures.claims import report, verdict
from ebwm.figures.errors import FigureError
from ebwm.figures.registry import Claim
from ebwm.figures.style import colour, style


def in_project(act: Callable, *arguments, edit: tuple = (), files: dict | None = None, **named) -> Callable:
    """Call `act` in a new project, after a replacement (path, old, new) and with other contents of files."""
    def call():
        known = {name: value for name, value in os.environ.items() if not name.startswith("EBWM_")}
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), mock.patch.dict(os.environ, known,
                                                                                              clear=True):
            write_project(Path(folder))
            if edit:
                rewrite(Path(edit[0]), *edit[1:])
            for path, content in (files or {}).items():
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                Path(path).write_text(content)
            act(*arguments, **named)
    return call


def command(*words: str) -> None:
    """Run a command without the translation of errors to exit codes."""
    options = cli._parser(list(words)).parse_args(words)
    options.run(options)


SOURCE = ', source: "EBT, Figure 0"'
PAPER = "papers: [{name: EBT, arxiv: 1, items: [{item: F1, shows: xEXTRA}]}]\nplanned:"
REGISTRY = [  # text of figures.yaml, its replacement, named in the message
    ("id: later", "id: tiny", "id='tiny'"),
    ("headline:", "headlin:", "tiny: key='headlin'"),
    ("tiny.ipynb", "tinny.ipynb", "tinny.ipynb"),
    ("claims:", "data: [data/none.csv]\n    claims:", "data/none.csv"),
    ("    title: \"A tiny figure\"\n", "", "tiny: the key 'title'"),
    ("{smoke: 0.1,", "{smok: 0.1,", "tiny: minutes: smok"),
    ("claims:", "memory: lots\n    claims:", "tiny: memory='lots'"),
    ("claims:", "memory: {cpu: lots}\n    claims:", "tiny: memory: cpu='lots'"),
    ("claims:", "timeout: {cpu: 0}\n    claims:", "tiny: timeout: cpu=0"),
    ("claims:", "timeout: {cpu: .inf}\n    claims:", "tiny: timeout: cpu=inf"),
    ("claims:", "processes: {cpu: 0.5}\n    claims:", "tiny: processes: cpu=0.5"),
    ("claims:", "threads: {cpu: true}\n    claims:", "tiny: threads: cpu=True"),
    ("claims:", "tolerances: {a: -1}\n    claims:", "tiny: tolerances: a=-1"),
    ("claims:", "tolerances: {a: some}\n    claims:", "tiny: tolerances: a='some'"),
    ("claims:", "each: seeds\n    claims:", "tiny: each='seeds'"),
    ("headline: true", "headline: maybe", "tiny: headline='maybe'"),
    ("name: something", "nam: something", "tiny: claims: entry 1"),
    ("says:", "sayss:", "something: the key 'says'"),
    (SOURCE, "", "something: the key 'source'"),
    (SOURCE, f"{SOURCE}, statistic: least", "tiny: claims: something"),
    (SOURCE, f"{SOURCE}, statistic: least, expect: {{equals: 1}}", "tiny: claims: something"),
    (SOURCE, f"{SOURCE}, statistic: least, expect: {{below: x}}", "expect: below='x'"),
    ("paper: EBT}", "paper: EBT, claims: [{name: something, says: a, source: b}]}", "claim='something'"),
    ("planned:", PAPER.replace("EXTRA", ""), "F1"),
    ("planned:", PAPER.replace("EXTRA", ", figure: tin"), "EBT: F1: figure='tin'"),
    ("{smoke: 0.1,", "{smoke: soon,", "tiny: minutes: smoke='soon'"),
    ("[0, 1]", "[]", "tiny: seeds: smoke=[]"),
    ("[0, 1]", "[a]", "tiny: seeds: smoke: entry 1='a'"),
    ("{updates: 4,", "{out: here,", "tiny: parameters"),
    ("{updates: 4, rate: 1}", "4", "tiny: parameters: smoke=4"),
    ("id: tiny", "id: Tiny figure", "id='Tiny figure'"),
    ("claims:", "device: {gpu: tpu}\n    claims:", "tiny: device: gpu='tpu'"),
    ("claims:", "extras: [vido]\n    claims:", "extras: entry 1='vido'"),
    ("planned:", "planed:", "key='planed'"),
    ("planned:\n", "planned: [\n", "figures.yaml: while parsing"),
    ("  - {id: later", "    {id: later", "planned"),
]
PARAMETERS = {  # of a run: value, named in the message
    "updtes": 3, "updates": 1.5, "rate": "high", "seeds": 3, "fast": 1, "folder": 3, "scale": "cpu", "out": "here",
    "clips_dir": "nowhere",
}
CELLS = {  # sources of the cells tagged `parameters`, and the place in the message
    "no tag": ([code("a = 1")], "0 cells"),
    "two tags": ([code("a = 1", "parameters"), code("b = 1", "parameters")], "2 cells"),
    "expression": ([code("a = 1\nb = 2 * 3", "parameters")], "line 2"),
    "two targets": ([code("a = b = 1", "parameters")], "line 1"),
    "import": ([code("import os", "parameters")], "line 1"),
    "annotation": ([code("a: int", "parameters")], "line 1"),
    "syntax": ([code("a = 1\nb = = 2", "parameters")], "line 2"),
}
SETTINGS = [  # content of settings.ini, named in the message
    ("[figures]\nscale = big\n", "scale='big'"),
    ("[figures]\nseeds =\n", "seeds=''"),
    ("[figures]\nseeds = 0 -1\n", "seeds='0 -1'"),
    ("[figures]\nseeds = 1 1\n", "seeds='1 1'"),
    ("[figures]\nseeds = 0 one\n", "seeds='0 one'"),
    ("[figures]\nscale = cpu\n[compute]\nscale = gpu\n", "'scale'"),
    ("[compute]\nthreads = 1.5\n", "threads='1.5'"),
    ("[compute]\ndevice = tpu9\n", "device='tpu9'"),
    ("[figures]\nscael = cpu\n", "did you mean 'scale'"),
    ("scale = cpu\n", "section headers"),
    ("[figures]\nscale = cpu\nscale = gpu\n", "'scale'"),
]
COMMANDS = [  # words after `ebwm`, type of the error, named in the message
    ([], cli.UsageError, "command is missing"),
    (["figures"], cli.UsageError, "figures command is missing"),
    (["figurs"], cli.UsageError, "command='figurs'"),
    (["figures", "lst"], cli.UsageError, "did you mean 'list'"),
    (["figures", "list", "--scale", "cpo"], cli.UsageError, "scale='cpo'"),
    (["figures", "list", "--scal", "cpu"], cli.UsageError, "--scal"),
    (["figures", "run"], cli.UsageError, "ID"),
    (["figures", "run", "tiny", "--all"], cli.UsageError, "ID"),
    (["figures", "run", "tinny"], FigureError, "did you mean 'tiny'"),
    (["figures", "run", "later"], FigureError, "figure='later'"),
    (["figures", "run", "tiny", "later"], FigureError, "figure='later'"),
    (["figures", "run", "tiny", "-p", "updates"], cli.UsageError, "-p='updates'"),
    (["figures", "run", "tiny", "-p", "updtes=3"], FigureError, "did you mean 'updates'"),
    (["figures", "run", "tiny", "-p", "updates=many"], FigureError, "updates='many'"),
    (["figures", "run", "tiny", "--cores", "0"], cli.UsageError, "--cores"),
    (["figures", "run", "tiny", "--profile", "nowhere"], cli.UsageError, "--profile='nowhere'"),
    (["figures", "replay", "tiny"], FigureError, "figure 'tiny'"),
    (["figures", "check", "tinny"], FigureError, "figure='tinny'"),
    (["figures", "promote"], cli.UsageError, "ID"),
    (["figures", "promote", "tiny"], FigureError, "figure 'tiny'"),
    (["figures", "promote", "tiny", "--scale", "gpu"], FigureError, "scale 'gpu'"),
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
CASES = [
    *((f"registry {new or old}", in_project(figures.registry, edit=(REGISTRY_PATH, old, new)), FigureError, named)
      for old, new, named in REGISTRY),
    ("no registry", in_project(lambda: (Path(REGISTRY_PATH).unlink(), figures.registry())), FigureError,
     "figures.yaml"),
    *((f"parameter {name}", in_project(figures.run, "tiny", overrides={name: value}), FigureError, name)
      for name, value in PARAMETERS.items()),
    *((f"seeds {value}", in_project(figures.plan, "tiny", overrides={"seeds": value}), FigureError, "seeds")
      for value in (["a"], [], [0, 0])),
    ("a Boolean for an integer", in_project(figures.plan, "tiny", overrides={"updates": True}), FigureError,
     "updates=True"),
    ("parameter of the registry", in_project(figures.plan, "tiny", edit=(REGISTRY_PATH, "updates: 4", "update: 4")),
     FigureError, "parameter='update'"),
    ("scale", in_project(figures.plan, "tiny", "smok"), FigureError, "mean 'smoke'"),
    ("GPU", in_project(figures.plan, "tiny", "gpu", edit=(REGISTRY_PATH, "claims:",
                                                          "device: {gpu: cuda}\n    claims:")), FigureError, "GPU"),
    ("items", in_project(figures.plan, "fan", overrides={"seeds": [1, 1]}), FigureError, "seeds=[1, 1]"),
    ("items with equal file names", in_project(figures.plan, "fan", edit=(
        FAN, "sizes = [8, 16]", 'sizes = [\\"a/b\\", \\"a_b\\"]')), FigureError, "sizes="),
    ("items without a list", in_project(figures.plan, "fan", edit=(FAN, "sizes = [8, 16]", "sizes = 8")),
     FigureError, "sizes=8"),
    ("no cell tagged parts", in_project(jobs, "fan", edit=(FAN, '"parts"', '"part"')), FigureError, "'parts'"),
    ("no cell tagged parameters", in_project(figures.run, "tiny", edit=(TINY, '"parameters"', '"parametres"')),
     FigureError, "'parameters'"),
    *((f"source {source}", in_project(jobs, "tiny", edit=(TINY, "import sys\\n", source)), FigureError, first)
      for source, first in (("x = !ls\\n", "x = !ls"), ("if True:\\n    %matplotlib inline\\n", "is not Python"))),
    *((f"parameters: {name}", in_project(parameter_cells, cells), FigureError, place)
      for name, (cells, place) in CELLS.items()),
    ("not a notebook", in_project(figures.parameter_defaults, Path("x.ipynb"), files={"x.ipynb": "import os"}),
     FigureError, "x.ipynb"),
    *((f"settings {text!r}", in_project(settings.load, files={"settings.ini": text}), settings.SettingsError, named)
      for text, named in SETTINGS),
    *((" ".join(["ebwm", *words]), in_project(command, *words), error, named) for words, error, named in COMMANDS),
    ("file name", in_project(unknown_file_name), FigureError, "name='a/b'"),
    ("record at a scale", in_project(lambda: figures.Record("tiny", defaults_of(scale="big"))), FigureError, "scale='big'"),
    ("record of a figure", in_project(lambda: figures.Record("tinny", defaults_of())), FigureError, "figure='tinny'"),
    ("record without parameters", in_project(lambda: figures.Record("tiny", {})), FigureError, "'scale'"),
    ("changed parameter", in_project(changed_parameter), FigureError, "'updates'"),
    ("promote other parameters", in_project(promote, parameters={"effective": {"updates": 99}}), FigureError,
     "updates = 99"),
    ("promote uncommitted changes", in_project(promote, git={"commit": "0", "dirty": True}), FigureError, "'tiny'"),
    ("promote a missing file", in_project(promote, data={"losses.parquet": "0"}), FigureError, "losses.parquet"),
    ("role", lambda: colour("ebtt"), FigureError, "role='ebtt'"),
    ("theme", style("drak").__enter__, FigureError, "theme='drak'"),
    ("no statistic", in_project(statistic, "loss.best", 3), FigureError, "'loss.best'"),
    *((f"statistic {result}", in_project(statistic, "loss", result), FigureError, "'loss'")
      for result in ("low", True, [1.0], {"value": 1.0})),
    *((f"manifest {text}", in_project(report, files={"figures/tiny/manifest.json": text}), FigureError,
       "manifest.json") for text in ("{", "[]", '{"scale": "cpu"}')),
    ("package", partial(compat.require, "no_such_package", "figures"), ImportError, "ebwm[figures]"),
    ("program", mock.patch.dict(os.environ, PATH="")(partial(compat.system_part, "chromium", "chromium", "drawing")),
     compat.MissingPart, "apt-get install chromium"),
    ("program with a website", mock.patch.dict(os.environ, PATH="")(
        partial(compat.system_part, "quarto", "https://quarto.org", "pages")), compat.MissingPart, "https://quarto"),
]
