"""The command `ebwm`: figures, training, and what this machine offers."""

import argparse
import ast
import importlib.metadata
import os
import platform
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch

from ebwm import __version__, figures, settings
from ebwm.compat import MissingPart, extras, lacking
from ebwm.cost import cpu_model
from ebwm.figures import FigureError, NotebookError, suggest
from ebwm.files import write_whole
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
    except NotebookError as error:
        return _tell(error, FAILED)
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
            what = action.metavar or action.dest
            raise UsageError(f"unknown {what} {value!r}; {suggest(value, action.choices)}")


def _parser() -> _Parser:
    about = "Energy-based world models: figures, training, and this machine."
    parser = _Parser(prog="ebwm", description=about)
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
    listed = commands.add_parser("list", help="all figures: time and command of each, and what is on record")
    listed.set_defaults(run=_list_figures)
    _add_scale(listed)
    _add_run(commands.add_parser("run", help="make figures: those that are up to date are skipped"))
    replay = commands.add_parser("replay", help="run a figure again and compare every array")
    replay.add_argument("id", metavar="ID", help="figure to run again")
    replay.set_defaults(run=_replay_figure)
    _add_scale(replay, "compare with the last run at this scale; by default with what is on record")
    check = commands.add_parser("check", help="verify what is on record; list what is older than its code")
    check.add_argument("ids", nargs="*", metavar="ID", help="figures to check; all by default")
    check.set_defaults(run=_check_figures)
    promote = commands.add_parser("promote", help="put a run on record in the figures folder")
    promote.add_argument("id", metavar="ID", help="figure whose run is to be on record")
    promote.set_defaults(run=_promote_figure)
    _add_scale(promote)
    report = commands.add_parser("report", help="every claim of the papers and its verdict")
    report.add_argument("--out", metavar="FILE", type=Path, help="write it there, as Markdown")
    report.set_defaults(run=_report_figures)


def _add_run(parser: _Parser) -> None:
    parser.add_argument("ids", nargs="*", metavar="ID", help="figures to make")
    parser.add_argument("--all", action="store_true", help="all figures")
    parser.add_argument("--headline", action="store_true", help="the headline figures")
    parser.add_argument("-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE",
                        help="a parameter of the notebook, such as -p updates=100")
    parser.add_argument("--cores", type=_count, metavar="N", help="processor cores to use; all by default")
    parser.add_argument("--force", action="store_true", help="run also what is up to date")
    parser.add_argument("--profile", type=Path, metavar="FOLDER",
                        help="a snakemake profile, such as profiles/slurm for a cluster")
    parser.set_defaults(run=_run_figures)
    _add_scale(parser)


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _add_scale(parser: _Parser, meaning: str = "that of settings.ini by default") -> None:
    parser.add_argument("--scale", choices=SCALES, metavar="scale", help=f"{', '.join(SCALES)}; {meaning}")


def _add_train(parser: _Parser) -> None:
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="name of a preset, or a JSON file")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="entries to change")
    parser.add_argument("--list", action="store_true", help="print the presets' names")
    parser.set_defaults(run=_train)


# Figures


def _run_figures(options: argparse.Namespace) -> int:
    overrides = dict(_assignment(text) for text in options.parameters)
    if options.profile and not options.profile.is_dir():
        raise UsageError(f"--profile {str(options.profile)!r} is no folder here; there is profiles/slurm")
    cluster = options.profile is not None
    plans = [figures.plan(id, options.scale, overrides, cluster=cluster) for id in _chosen(options)]
    for plan in plans:
        print(f"{plan.figure.id}: {plan.figure.title} ({plan.scale})", file=sys.stderr)
    outcome = figures.make(plans, options.cores, options.force, options.profile)
    for message in outcome.failed.values():
        _tell(message, FAILED)
    print(figures.table(outcome, options.scale))
    return FAILED if outcome.failed else 0


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
    print(figures.table(scale=options.scale))
    return 0


def _replay_figure(options: argparse.Namespace) -> int:
    arrays = figures.replay(options.id, options.scale)
    width = max((len(row.array) for row in arrays), default=0)
    for array, verdict, difference, allowed in arrays:
        far = f"; differs by {difference:.2g}, allowed {allowed:g}" if difference else ""
        print(f"{array:<{width}}  {verdict}{far}")
    counts = Counter(row.verdict for row in arrays)
    print(f"\n{options.id}: {', '.join(f'{count} {verdict}' for verdict, count in counts.items())}")
    return FAILED if counts["drifted"] else 0


def _check_figures(options: argparse.Namespace) -> int:
    found = figures.check(options.ids)
    for id, scale, wrong, stale in found:
        recorded = f"on record at scale {scale}" if scale else "nothing on record"
        print(f"{id}: {'WRONG' if wrong else recorded}{', whole' if scale and not wrong else ''}")
        print("".join(f"    {what}\n" for what in wrong), end="")
        if stale:
            print(f"    stale: since then these have changed: {', '.join(stale)}")
    return FAILED if any(row.wrong for row in found) else 0


def _promote_figure(options: argparse.Namespace) -> int:
    files = figures.promote(options.id, options.scale)
    print(f"{options.id}: {len(files)} files on record in {files[0].parent}")
    return 0


def _report_figures(options: argparse.Namespace) -> int:
    from ebwm.figures.claims import report

    text = report(settings.load())
    if options.out is None:
        print(text)
        return 0
    write_whole(options.out, lambda draft: draft.write_text(text + "\n", encoding="utf-8"))
    print(f"the report is {options.out}")
    return 0


# Training


def _train(options: argparse.Namespace) -> int:
    from ebwm import training

    if options.list:
        print("\n".join(training.presets()))
        return 0
    if options.config is None:
        known = ", ".join(sorted(training.presets()))
        raise UsageError(f"name a configuration: a JSON file or one of {known}")
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
        "processor": f"{cpu_model()}, {torch.get_num_threads()} threads",
        "GPUs": ", ".join(map(torch.cuda.get_device_name, range(torch.cuda.device_count()))) or "none",
        "device": f"{settings.device(config.device)} in use",
        **{f"setting {name}": _setting(name, value) for name, value in vars(config).items()},
        **{f"extra {extra}": _extra(extra) for extra in extras()},
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
    absent = lacking(extra)
    if not absent:
        return ", ".join(f"{package} {_version(package)}" for package in extras()[extra]) or "nothing to add"
    return f"lacks {', '.join(absent)}: pip install 'ebwm[{extra}]'"
