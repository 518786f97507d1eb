"""Parsing of command lines, and the exceptions that the command reports in one line."""

import argparse
from pathlib import Path
from typing import Any, NoReturn

from ebwm import checks

__all__ = ["Failure", "Parser", "Stopped", "UsageError", "count", "subcommands"]


class UsageError(ValueError):
    """Invalid command line or request; the message is one line and says what is allowed."""


class Failure(RuntimeError):
    """Failure of a command that had started; the message is one line."""


class Stopped(RuntimeError):
    """A training that was stopped by a signal or a callback, and saved; the message says how to resume it."""

    def __init__(
        self,
        message: str,
        name: str,  # "SIGTERM", "SIGINT" or "callback"
        folder: Path | None = None,  # of the training
    ):
        super().__init__(message)
        self.signal, self.folder = name, folder


class Parser(argparse.ArgumentParser):
    """A parser that raises `UsageError` instead of printing its usage."""

    def __init__(self, **options: Any):
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            checks.one_of(action.metavar or action.dest, value, action.choices, UsageError)


class SettingsParser(Parser):
    """A parser that takes KEY=VALUE also behind options."""

    def parse_known_args(
        self,
        args: list[str] | None = None,  # words
        namespace: argparse.Namespace | None = None,  # to fill
    ) -> tuple[argparse.Namespace, list[str]]:  # and the words that are unknown
        """Parse words; argparse itself takes the settings only where the first of them stands."""
        found, rest = super().parse_known_args(args, namespace)
        place = next((name for name in ("settings", "overrides") if hasattr(found, name)), None)
        known = [word for word in rest if place and "=" in word and word[0] != "-"]
        if known:
            setattr(found, place, [*getattr(found, place), *known])
        return found, [word for word in rest if word not in known]


def subcommands(
    parser: Parser,  # of a command, such as `ebwm runs`
    name: str = "",  # of the command, such as "runs"; "": that of the program
    parser_class: type[Parser] = Parser,  # of its commands
) -> Any:  # as from `add_subparsers`
    """Commands of a command, which messages call "runs command"; a command line without one of them is refused."""
    if name:
        parser.usage = f"{parser.prog} [-h] command ..."
    metavar = f"{name} command".strip()
    commands = parser.add_subparsers(metavar=metavar, prog=parser.prog, parser_class=parser_class)

    def refuse(options: argparse.Namespace) -> NoReturn:
        raise UsageError(f"{metavar} is missing; it must be one of {', '.join(commands.choices)}")

    parser.set_defaults(run=refuse)
    return commands


def count(
    text: str,  # an argument
) -> int:
    """An integer of at least 1, as the type of an option."""
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} must be an integer of at least 1")
    return int(text)
