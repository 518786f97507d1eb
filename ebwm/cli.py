"""The command `ebwm`: figures, training, and what this machine offers."""

import argparse
import ast
import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch

from ebwm import __version__, figures, settings
from ebwm.compat import MissingPart
from ebwm.figures import FigureError, NotebookError, suggest
from ebwm.settings import SCALES, SettingsError

__all__ = ["UsageError", "main"]

FAILED, REFUSED, INTERRUPTED = 1, 2, 130


class UsageError(ValueError):
    """A command line that cannot be followed; the message is one line and says what is allowed."""


def main(
    argv: list[str] | None = None,  # words after `ebwm`; those of the process by default
) -> int:  # 0 done, 1 a figure failed, 2 refused before anything was written, 130 interrupted
    """Run one command; what a user can put right is told in one line on stderr."""
    try:
        options = _parser().parse_args(argv)
        return options.run(options)
    except (UsageError, SettingsError, FigureError, MissingPart) as error:
        return _tell(error, REFUSED)
    except ImportError as error:
        if "pip install" not in str(error):
            raise
        return _tell(error, REFUSED)
    except KeyboardInterrupt:
        return _tell("interrupted", INTERRUPTED)


def _tell(message: object, code: int) -> int:
    print("ebwm:", " ".join(str(message).split()), file=sys.stderr)
    return code


class _Parser(argparse.ArgumentParser):
    """A parser that raises its complaints, in one line, instead of printing its usage."""

    def __init__(self, **options: Any):
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise UsageError(f"unknown {action.metavar or action.dest} {value!r}; {suggest(value, action.choices)}")


def _parser() -> _Parser:
    parser = _Parser(prog="ebwm", description="Energy-based world models: figures, training, and this machine.")
    parser.add_argument("--version", action="version", version=f"ebwm {__version__}")
    commands = parser.add_subparsers(metavar="command")
    parser.set_defaults(run=_needs(commands))
    _add_figures(commands.add_parser("figures", help="list figures, make them, put them on record"))
    _add_train(commands.add_parser("train", help="train a model"))
    info = commands.add_parser("info", help="versions, devices, settings, optional parts")
    info.set_defaults(run=_info)
    return parser


def _needs(commands: Any) -> Callable[[argparse.Namespace], NoReturn]:
    def complain(options: argparse.Namespace) -> NoReturn:
        raise UsageError(f"name a {commands.metavar}: one of {', '.join(commands.choices)}")

    return complain


def _add_figures(parser: _Parser) -> None:
    commands = parser.add_subparsers(metavar="figures command")
    parser.set_defaults(run=_needs(commands))
    make = commands.add_parser("run", help="execute the notebooks of figures")
    make.add_argument("ids", nargs="*", metavar="ID", help="figures to make")
    make.add_argument("--all", action="store_true", help="all figures")
    make.add_argument("--headline", action="store_true", help="the headline figures")
    make.add_argument("-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE",
                      help="a parameter of the notebook, such as -p updates=100")
    make.set_defaults(run=_run_figures)
    _add_scale(make)
    show = commands.add_parser("list", help="all figures: time and command of each")
    show.set_defaults(run=_list_figures)
    _add_scale(show)
    promote = commands.add_parser("promote", help="put a run on record in the figures folder")
    promote.add_argument("id", metavar="ID", help="figure whose run is to be on record")
    promote.set_defaults(run=_promote_figure)
    _add_scale(promote)


def _add_scale(parser: _Parser) -> None:
    parser.add_argument("--scale", choices=SCALES, metavar="scale",
                        help=f"{', '.join(SCALES)}; that of settings.ini by default")


def _add_train(parser: _Parser) -> None:
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="name of a preset, or a JSON file")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="entries of the configuration to change")
    parser.add_argument("--list", action="store_true", help="print the presets' names")
    parser.set_defaults(run=_train)


# Figures


def _run_figures(options: argparse.Namespace) -> int:
    overrides = dict(_assignment(text) for text in options.parameters)
    plans = [figures.plan(id, options.scale, overrides) for id in _chosen(options)]
    made, failed = {}, False
    for plan in plans:
        print(f"{plan.figure.id}: {plan.figure.title} ({plan.scale})", file=sys.stderr)
        try:
            made[plan.figure.id] = figures.execute(plan)
        except NotebookError as error:
            failed = bool(_tell(error, FAILED))
    print(figures.table(made, options.scale))
    return FAILED if failed else 0


def _chosen(options: argparse.Namespace) -> list[str]:
    known = figures.registry().figures
    if options.ids and (options.all or options.headline):
        raise UsageError("name figures, or give --all or --headline, not both")
    if not (options.ids or options.all or options.headline):
        raise UsageError(f"name a figure, or give --all or --headline; known: {', '.join(sorted(known))}")
    return list(dict.fromkeys(options.ids)) or [f.id for f in known.values() if options.all or f.headline]


def _assignment(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not (name.strip() and sign):
        raise UsageError(f"-p {text!r} is not NAME=VALUE, as in -p updates=100")
    return name.strip(), _value(value.strip())


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "null": None, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _list_figures(options: argparse.Namespace) -> int:
    print(figures.table({}, options.scale))
    return 0


def _promote_figure(options: argparse.Namespace) -> int:
    files = figures.promote(options.id, options.scale)
    print(f"{options.id}: {len(files)} files on record in {files[0].parent}")
    return 0


# Training


def _train(options: argparse.Namespace) -> int:
    from ebwm import training

    if options.list:
        print("\n".join(training.presets()))
        return 0
    if options.config is None:
        raise UsageError(f"name a configuration: a JSON file or one of {', '.join(sorted(training.presets()))}")
    if threads := settings.load().threads:
        torch.set_num_threads(threads)
    try:
        print(training.train(training.load_config(options.config, options.overrides)))
    except training.ConfigError as error:
        raise UsageError(str(error)) from error
    except FloatingPointError as error:
        return _tell(error, FAILED)
    return 0


# What there is


def _info(options: argparse.Namespace) -> int:
    config = settings.load()
    rows = {
        "ebwm": f"{__version__} in {Path(__file__).parent}",
        "python": f"{platform.python_version()}, {sys.executable}",
        "packages": ", ".join(f"{name} {_version(name)}" for name in CORE),
        "processor": f"{figures.cpu_model()}, {torch.get_num_threads()} threads",
        "GPUs": ", ".join(map(torch.cuda.get_device_name, range(torch.cuda.device_count()))) or "none",
        "device": f"{settings.device(config.device)} in use",
        **{f"setting {name}": _setting(name, value) for name, value in vars(config).items()},
        **{f"extra {extra}": _extra(extra) for extra in figures.extras()},
        **{name: shutil.which(name) or "not on the PATH" for name in ("chromium", "quarto")},
    }
    width = max(map(len, rows))
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows.items()))
    return 0


CORE = ("torch", "numpy", "jaxtyping", "safetensors", "scikit-learn", "tqdm")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _setting(name: str, value: Any) -> str:
    variable = f"EBWM_{name.upper()}"
    shown = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"{shown} (from {variable})" if variable in os.environ and name != "root" else shown


def _extra(extra: str) -> str:
    absent = figures.lacking(extra)
    if not absent:
        return ", ".join(f"{package} {_version(package)}" for package in figures.extras()[extra]) or "nothing to add"
    return f"lacks {', '.join(absent)}: pip install 'ebwm[{extra}]'"
