"""The command `ebwm`: figures, bundles, training, runs, text generation, games, and information about the machine."""

import argparse
import errno
import importlib.metadata
import locale
import os
import platform
import re
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebwm import __version__, allocator, settings
from ebwm.compat import MissingPart, extras, lacking
from ebwm.checks import between, refusal
from ebwm.settings import SettingsError
from ebwm.usage import Failure, Parser, SettingsParser, Stopped, UsageError, count, subcommands

if TYPE_CHECKING:  # training imports torch: imported by the commands that need it
    from ebwm.training.configuration import Config

__all__ = ["UsageError", "main"]

MOST_TIMES = 10_000  # continuations of a text, which are computed together
FAILED, REFUSED, INTERRUPTED, TERMINATED = 1, 2, 130, 143
NO_MEMORY = re.compile("out of memory|can't allocate memory|not enough memory|Storage size calculation overflowed")
# Errors of places that are missing, full, protected, or not what they should be.
PLACE_ERRORS = {getattr(errno, name) for name in (
    "EACCES", "EDQUOT", "EEXIST", "EISDIR", "ELOOP", "ENAMETOOLONG", "ENOENT", "ENOSPC", "ENOTDIR", "EPERM", "EROFS")
    if hasattr(errno, name)}


def main(
    argv: list[str] | None = None,  # arguments after `ebwm`; default: those of the process
) -> int:  # 0: done, 1: failed, 2: refused before anything was written, 130 and 143: stopped by SIGINT or SIGTERM
    """Run one command; errors of the user are reported in one line on stderr."""
    if argv is None:
        _use_utf8()
        allocator.keep_freed_memory()
        warnings.formatwarning = lambda message, *_: f"ebwm: {message}\n"
    words = sys.argv[1:] if argv is None else argv
    try:
        options = _parser(words).parse_args(words)
        code = options.run(options)
        print(end="", flush=True)
        return code
    except BrokenPipeError:  # the reader has ended, as in `ebwm runs list | head`
        _discard_output()
        return 0
    except (UsageError, SettingsError, MissingPart) as error:
        return _tell(error, REFUSED)
    except Failure as error:
        return _tell(error, FAILED)
    except Stopped as error:
        return _tell(error, TERMINATED if error.signal == "SIGTERM" else INTERRUPTED)
    except ImportError as error:
        if "pip install" not in str(error):
            raise
        from ebwm.figures.checkout import no_checkout
        return _tell(no_checkout(words) or error, REFUSED)
    except OSError as error:
        if error.errno not in PLACE_ERRORS:
            raise
        return _tell(refusal("path", _place_of(error), error.strerror, "free space or choose another place"), FAILED)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not NO_MEMORY.search(str(error)):
            raise
        reason = str(error).partition("\n")[0] or "no more is available"
        return _tell(f"not enough memory ({reason}); choose a smaller model, batch, number of steps or amount of data", FAILED)
    except KeyboardInterrupt:
        return _tell("interrupted", INTERRUPTED)


def _place_of(error: OSError) -> str:
    """The file that could not be used, or the output, which fails again and is then discarded."""
    if error.filename is not None:
        return str(error.filename)
    try:
        print(end="", flush=True)
        return "unknown"
    except OSError:
        _discard_output()
        return "output"


def _discard_output() -> None:
    """Discard what is still in the buffer of stdout."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _use_utf8() -> None:
    """Restart in Python's UTF-8 mode if the locale has another encoding: some libraries fail on other paths."""
    other = locale.getpreferredencoding(False).lower() not in ("utf-8", "utf8")
    if other and os.name == "posix" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _tell(message: object, code: int) -> int:
    line = " ".join(str(message).split())
    if _first() or "TORCHELASTIC_ERROR_FILE" not in os.environ:
        print("ebwm:", line, file=sys.stderr)
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler
        get_error_handler().record_exception(message if isinstance(message, Exception) else RuntimeError(line))
    return code


def _first() -> bool:
    """Whether this process speaks for all; torchrun reports what the others leave in their error files."""
    return os.environ.get("RANK", "0") == "0"


def _parser(words: list[str]) -> Parser:
    """The parser of a command line; some commands are imported only if they are used."""
    about = "Energy-based world models: figures, training, runs, text generation."
    parser = Parser(prog="ebwm", description=about)
    parser.add_argument("--version", action="version", version=f"ebwm {__version__}")
    commands = subcommands(parser, parser_class=SettingsParser)
    _add_later(commands, words, "figures", "ebwm.figures.commands:add", "list, make, check and promote figures")
    _add_later(commands, words, "bundle", "ebwm.figures.commands:add_bundle",
               "pack figures and benchmarks for a machine without a network")
    _add_train(commands.add_parser("train", help="train a model, or resume a run"))
    _add_runs(commands.add_parser("runs", help="training runs: list, show, compare"))
    _add_generate(commands.add_parser("generate", help="continue a text, token by token"))
    _add_later(commands, words, "play", "ebwm.explore.play_page:add_play", "act in a game, and in a model's copy of it beside it")
    _add_later(commands, words, "policy", "ebwm.policy.commands:add", "robots: demonstrations, training, evaluation and films of policies")
    info = commands.add_parser("info", help="versions, devices, settings, optional packages")
    info.set_defaults(run=_info)
    return parser


def _add_later(commands: Any, words: list[str], name: str, place: str, about: str) -> None:
    """Add a command, and its options if the words are for it: they are added by a function of another module."""
    parser = commands.add_parser(name, help=about)
    if words[:1] == [name]:
        module, _, function = place.partition(":")
        getattr(importlib.import_module(module), function)(parser)


def _add_train(parser: Parser) -> None:
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="name of a preset, or a JSON file")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="entries to change")
    parser.add_argument("--list", action="store_true", help="print the presets")
    parser.add_argument("--print-config", action="store_true",
                        help="print all entries of CONFIG with their values and meaning, and do not train")
    parser.add_argument("--resume", metavar="RUN", help="resume a run: its folder or its name, such as 001")
    parser.add_argument("--changed", action="store_true",
                        help="with --resume: accept changes of the configuration or the data")
    parser.set_defaults(run=_train)


def _add_runs(parser: Parser) -> None:
    commands = subcommands(parser, "runs")
    listed = commands.add_parser("list", help="all runs: model, updates, state, losses, faults")
    listed.set_defaults(run=_list_runs)
    show = commands.add_parser("show", help="one run: configuration, losses, pace, faults, next command")
    show.add_argument("name", metavar="RUN", help="folder or name of a run, such as 001")
    show.set_defaults(run=_show_run)
    compare = commands.add_parser("compare", help="several runs: differences, losses, a plot")
    compare.add_argument("names", nargs="+", metavar="RUN", help="folder or name of a run, such as 001")
    compare.add_argument("--out", metavar="FILE", type=Path, help="plot to FILE.png, .svg or .pdf")
    compare.set_defaults(run=_compare_runs)


def _add_generate(parser: Parser) -> None:
    option = parser.add_argument
    option("texts", nargs="*", metavar="TEXT", help="texts to continue; none: start a new one")
    option("--model", default="text", metavar="MODEL",
           help="an included model (text, text_transformer), or the name or folder of a run; default: text")
    option("--tokens", type=count, default=100, metavar="N", help="maximum number for each text; default: 100")
    option("--temperature", type=float, default=0.8, metavar="T", help="0: always the most likely token; default: 0.8")
    option("--top-p", type=float, default=0.95, metavar="P", help="probability of the smallest set of tokens to draw from; default: 0.95")
    option("--stop", action="append", default=[], metavar="TOKEN", help="a token that ends a text, such as --stop .")
    option("--steps", type=count, metavar="N", help="sampling steps for each token, or their maximum; default: as in training")
    option("--samples", type=count, metavar="N", help="samples for each token; the one of lowest energy is selected")
    option("--adaptive", type=float, metavar="E", help="stop sampling when the energy changes by less than this")
    option("--times", type=count, default=1, metavar="N", help="continuations of each text, with consecutive seeds")
    option("--seed", type=int, default=0, metavar="N", help="seed of the random numbers; default: 0")
    option("--show", action="store_true", help="one line for each token: bits, energy and steps")
    parser.set_defaults(run=_generate)


# Training


def _train(options: argparse.Namespace) -> int:
    if options.list or options.print_config:
        print(_listing(options))
        return 0
    train = _resume(options) if options.resume else _start(options)
    _use_threads()
    try:
        path = train()
    except FloatingPointError as error:
        return _tell(error, FAILED)
    if _first():
        print(path)
        _summarise(path)
    return 0


def _summarise(path: Path) -> None:
    """Print the scores of a run, and the command that shows more, to stderr."""
    from ebwm.training.history import read
    from ebwm.training.reports import scores

    lines = [scores(read(path)), f"More: ebwm runs show {shlex.quote(str(path))}"]
    print("\n".join(filter(None, lines)), file=sys.stderr)


def _use_threads() -> None:
    """Set the number of threads of the settings; 0 leaves the default of torch."""
    if threads := settings.load().threads:
        import torch

        torch.set_num_threads(threads)


def _listing(options: argparse.Namespace) -> str:
    """The presets, or the entries of a configuration."""
    from ebwm.training.listing import entries_listing, presets_listing

    if options.list:
        return presets_listing()
    if options.resume:
        raise UsageError("--print-config: not with --resume; ebwm runs show RUN has the configuration of a run")
    return entries_listing(_config(options))


def _config(options: argparse.Namespace) -> "Config":
    """The configuration of a new run; it needs no torch."""
    from ebwm.training.presets import load_config

    if options.changed:
        raise UsageError("--changed: only with --resume RUN")
    if options.config is None:
        raise UsageError("CONFIG is missing: give a preset (ebwm train --list) or a JSON file, or --resume RUN")
    return load_config(options.config, options.overrides)


def _start(options: argparse.Namespace) -> Callable[[], Path]:
    """The function that starts a run, after the checks that need no torch."""
    config = _config(options)
    from ebwm.training import run

    return lambda: run.train(config, progress=_interactive(), callback=_told)


def _resume(options: argparse.Namespace) -> Callable[[], Path]:
    """The function that resumes a run, if the run exists."""
    from ebwm.training.history import find

    overrides = [options.config, *options.overrides] if options.config else []
    path = find(options.resume, settings.load().runs)
    from ebwm.training import run

    return lambda: run.resume(path, overrides, progress=_interactive(), changed=options.changed, callback=_told)


def _told(row: dict[str, Any]) -> None:
    """Print a line for each evaluation where no progress bar is shown, as in the log of a cluster's job."""
    if "valid_loss" in row and _first() and not _interactive():
        print(f"update {row['update']}: loss {row['loss']:.4g}, validation {row['valid_loss']:.4g}", file=sys.stderr, flush=True)


def _interactive() -> bool:
    """Whether stderr is a terminal outside continuous integration, where a progress bar is useful."""
    return sys.stderr.isatty() and not os.environ.get("CI")


# Text


def _generate(options: argparse.Namespace) -> int:
    from ebwm import writing
    from ebwm.training.checkpoint import CheckpointError

    config = settings.load()
    between("--times", options.times, 1, MOST_TIMES, UsageError)
    _use_threads()
    try:
        language = writing.load_language(writing.find_model(options.model, config.runs))
        prompts = writing.prompts_of(language, texts := options.texts or [""], options.times)
        given = {name: getattr(options, name) for name in ("steps", "samples", "adaptive")}
        seeds = [options.seed + number for _ in texts for number in range(options.times)]
        pieces = writing.write(
            language, prompts, options.tokens, options.show, temperature=options.temperature,
            top_p=options.top_p, end=writing.end_tokens(language, options.stop), seed=seeds,
            **writing.sampling_options(language, given))
        for piece in pieces:
            print(piece, end="", flush=True)
    except (ValueError, CheckpointError) as error:
        other = isinstance(error, UnicodeEncodeError)
        return _tell(f"PYTHONIOENCODING={error.encoding}: must be utf-8 for this text" if other else error, REFUSED)
    return 0


# Runs


def _list_runs(options: argparse.Namespace) -> int:
    from ebwm.training.history import known, names
    from ebwm.training.reports import listing

    folder = settings.load().runs
    found = names(known(folder), folder)
    print(listing(found) if found else f"no runs in {folder}; start one: ebwm train next_frame")
    return 0


def _show_run(options: argparse.Namespace) -> int:
    from ebwm.training.history import find
    from ebwm.training.reports import show

    print(show(find(options.name, settings.load().runs)))
    return 0


def _compare_runs(options: argparse.Namespace) -> int:
    from ebwm.training.history import find, names
    from ebwm.training.reports import compare

    out, folder = options.out, settings.load().runs
    if out and out.suffix not in PLOT_ENDINGS:
        raise refusal("--out", str(out), f"must end in one of {', '.join(PLOT_ENDINGS)}", error=UsageError)
    chosen = names([find(name, folder) for name in options.names], folder)
    if out:
        _draw_runs(chosen, out)
    print(compare(chosen) + (f"\n\nPlot: {out}" if out else ""))
    return 0


PLOT_ENDINGS = (".png", ".svg", ".pdf")


def _draw_runs(chosen: dict[str, Path], out: Path) -> None:
    from ebwm.figures.curves import save
    from ebwm.training.history import history, read

    losses = dict.fromkeys(read(path).loss for path in chosen.values())
    try:
        save({name: history(path) for name, path in chosen.items()}, out, " or ".join(losses))
    except OSError as error:
        raise refusal("--out", str(out), f"cannot be written: {error.strerror}", error=UsageError) from error


# What there is


def _info(options: argparse.Namespace) -> int:
    import torch

    from ebwm.evaluation.cost import cpu_model

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
