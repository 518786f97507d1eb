"""The commands `ebwm figures ...`: list, run, replay, check, promote, rekey, adopt, tune and report; and `ebwm bundle`."""

import argparse
import ast
import dataclasses
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from ebwm import checks, figures, settings
from ebwm.figures.notebook import own_data
from ebwm.files import write_whole
from ebwm.settings import SCALES
from ebwm.usage import Parser, UsageError, count, subcommands

__all__ = ["add", "add_bundle"]

FAILED = 1
MIB, LARGE = 2**20, 60  # bytes; MiB of a bundle that is hard to carry


def add(
    parser: Parser,  # parser of `ebwm figures`
) -> None:
    """Add the commands to a parser."""
    commands = subcommands(parser, "figures")
    listed = commands.add_parser("list", help="all figures with time, command and record")
    listed.set_defaults(run=_list)
    _add_scale(listed)
    _add_run(commands.add_parser("run", help="make figures; skip those that are up to date"))
    replay = commands.add_parser("replay", help="run a figure again, and compare every array")
    replay.add_argument("id", metavar="ID", help="figure to run again")
    replay.add_argument("--threads", type=count, metavar="N", help="threads of each job; default: as recorded")
    replay.add_argument("--cores", type=count, metavar="N", help="number of processor cores; default: all")
    replay.set_defaults(run=_replay)
    _add_scale(replay, "compare with the last run at this scale; default: with the record")
    check = commands.add_parser("check", help="verify records, and list those older than their code")
    check.add_argument("ids", nargs="*", metavar="ID", help="figures to check; default: all")
    check.set_defaults(run=_check)
    promote = commands.add_parser("promote", help="copy a run to the record in the figures folder, and write its answer into the notebook")
    promote.add_argument("id", metavar="ID", help="figure of the run")
    promote.set_defaults(run=_promote)
    _add_scale(promote)
    rekey = commands.add_parser("rekey", help="carry records over a change of code that smoke runs prove to have no effect")
    rekey.add_argument("ids", nargs="*", metavar="ID", help="figures; default: all whose record is stale")
    rekey.add_argument("--since", required=True, metavar="COMMIT", help="commit at which the records were up to date")
    rekey.add_argument("--cores", type=count, metavar="N", help="number of processor cores; default: all")
    rekey.add_argument("--join", action="store_true",
                       help="make results and pictures again from the tables of the figures' parts on record")
    rekey.set_defaults(run=_rekey)
    adopt = commands.add_parser("adopt", help="take home the packed results of a bundle, with digests checked")
    adopt.add_argument("files", nargs="+", metavar="FILE", type=Path, help="results-1.tar.gz, and the others beside it")
    adopt.add_argument("--force", action="store_true", help="replace different results that are here already")
    adopt.set_defaults(run=_adopt)
    tune = commands.add_parser("tune", help="make the trials that a figure declares, and write its tuning.json")
    tune.add_argument("id", metavar="ID", help="figure whose notebook declares trials, in the cell tagged tuning")
    tune.add_argument("--only", action="append", default=[], metavar="KIND",
                      help="make only the trials of this model again; the option can be repeated")
    tune.add_argument("--beyond", action="store_true", help="try the next value of each setting whose best value is at an end "
                      "of those tried, and write beyond.json; changes no record")
    _add_parameters(tune)
    tune.set_defaults(run=_tune)
    _add_scale(tune, "default: cpu; only trials at cpu with the default parameters are put on record")
    report = commands.add_parser("report", help="every claim of the papers with its verdict")
    place = report.add_mutually_exclusive_group()
    place.add_argument("--out", metavar="FILE", type=Path, help="write the report to this file, as Markdown")
    place.add_argument("--write", action="store_true",
                       help="write it to figures/report.md, and the site's pages Results and What we learned")
    report.set_defaults(run=_report)


def add_bundle(
    parser: Parser,  # parser of `ebwm bundle`
) -> None:
    """Add the options of `ebwm bundle`."""
    option = parser.add_argument
    option("out", metavar="OUT", type=Path, help="file to write, which ends in .tar or .tar.gz")
    option("--python", default="3.12", metavar="VERSION", help="version of Python on the machine; default: 3.12")
    option("--figures", nargs="+", default=[], metavar="ID", help="only these figures; default: the plan in figures.yaml")
    option("--steps", nargs="+", default=[], metavar="STEP", help="only these steps of the plan")
    option("--scale", choices=SCALES, default="gpu", metavar="scale", help=f"{', '.join(SCALES)}; default: gpu")
    option("--has", nargs="+", default=[], metavar="PACKAGE",
           help="packages that the machine has besides torch and those that come with it")
    option("--wheels", type=Path, metavar="FOLDER", help="take wheels from this folder instead of the network")
    parser.set_defaults(run=_bundle)


def _add_run(parser: Parser) -> None:
    parser.add_argument("ids", nargs="*", metavar="ID", help="figures to make")
    parser.add_argument("--all", action="store_true", help="all figures")
    parser.add_argument("--headline", action="store_true", help="the headline figures")
    _add_parameters(parser)
    parser.add_argument("--cores", type=count, metavar="N", help="number of processor cores; default: all")
    parser.add_argument("--force", action="store_true", help="run figures that are up to date too")
    parser.add_argument("--part", default="", metavar="ITEM",
                        help="run only the job of this item, as in --part seeds-0; without it, the parts are joined")
    parser.add_argument("--profile", type=Path, metavar="FOLDER",
                        help="a snakemake profile, such as profiles/slurm for a cluster")
    parser.set_defaults(run=_run)
    _add_scale(parser)


def _add_parameters(parser: Parser) -> None:
    parser.add_argument("-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE",
                        help="set a parameter of the notebook, as in -p updates=100")


def _add_scale(parser: Parser, meaning: str = "default: the setting in settings.ini") -> None:
    parser.add_argument("--scale", choices=SCALES, metavar="scale", help=f"{', '.join(SCALES)}; {meaning}")


def _run(options: argparse.Namespace) -> int:
    overrides = dict(_assignment(text) for text in options.parameters)
    if options.profile and not options.profile.is_dir():
        raise checks.refusal("--profile", str(options.profile), "must be an existing folder", "try profiles/slurm", UsageError)
    cluster = options.profile is not None
    plans = [figures.plan(id, options.scale, overrides, cluster=cluster) for id in _chosen(options)]
    plans = [dataclasses.replace(plan, suffix=figures.suffix(overrides)) for plan in plans]
    for plan in plans:
        print(f"{plan.figure.id}: {_title(plan.figure.title, plan.parameters)} ({plan.scale})", file=sys.stderr)
    outcome = figures.make(plans, options.cores, options.force, options.profile, options.part)
    if options.part:
        lines = [f"{id}: part {options.part}: {state}" for state, ids in (("made", outcome.made), ("up to date", outcome.fresh))
                 for id in ids]
        print("\n".join(lines), flush=True)
    else:
        from ebwm.figures.summary import summary

        print(summary(plans, outcome), flush=True)
    for message in outcome.failed.values():
        print("ebwm:", message, file=sys.stderr)
    return FAILED if outcome.failed else 0


def _title(title: str, parameters: dict[str, Any]) -> str:
    """The title of a figure; the user's own data are no stand-in."""
    return re.sub(r"stand-in data, | \(stand-in data\)", "", title) if own_data(parameters) else title


def _chosen(options: argparse.Namespace) -> list[str]:
    known = figures.registry().figures
    if options.ids and (options.all or options.headline):
        raise UsageError("ID and --all or --headline exclude each other")
    if not (options.ids or options.all or options.headline):
        raise UsageError(f"ID is missing; name figures, or give --all or --headline; allowed: {', '.join(sorted(known))}")
    scale = options.scale or settings.load().scale
    selected = [f.id for f in known.values() if (options.all or f.headline) and f.has(scale)]
    return list(dict.fromkeys(options.ids)) or selected


def _assignment(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not (name.strip() and sign):
        raise checks.refusal("-p", text, "must be NAME=VALUE, as in -p updates=100", error=UsageError)
    return name.strip(), _value(value.strip())


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "null": None, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return text


def _list(options: argparse.Namespace) -> int:
    print(figures.table(scale=options.scale))
    return 0


def _replay(options: argparse.Namespace) -> int:
    arrays = figures.replay(options.id, options.scale, threads=options.threads, cores=options.cores)
    width = max((len(row.array) for row in arrays), default=0)
    for array, verdict, difference, allowed in arrays:
        excess = f"; differs by {difference:.2g}, allowed {allowed:g}" if difference else ""
        print(f"{array:<{width}}  {verdict}{excess}")
    counts = Counter(row.verdict for row in arrays)
    print(f"\n{options.id}: {', '.join(f'{count} {verdict}' for verdict, count in counts.items())}")
    return FAILED if counts["drifted"] else 0


def _check(options: argparse.Namespace) -> int:
    rows = figures.check(options.ids)
    for id, scale, wrong, stale, carried in rows:
        recorded = f"on record at scale {scale}" if scale else "nothing on record"
        print(f"{id}: {'WRONG' if wrong else recorded}{', complete' if scale and not wrong else ''}"
              f"{', ' if carried else ''}{carried}")
        print("".join(f"    {error}\n" for error in wrong), end="")
        if stale:
            print(f"    stale: changed since the run: {', '.join(stale)}")
    return FAILED if any(row.wrong for row in rows) else 0


def _promote(options: argparse.Namespace) -> int:
    files = figures.promote(options.id, options.scale)
    print(f"{options.id}: {len(files)} files on record in {files[0].parent}")
    return 0


def _rekey(options: argparse.Namespace) -> int:
    from ebwm.figures.rekey import rekey

    rows = rekey(options.ids, options.since, options.cores, joined=options.join)
    for id, refused, entry, moved in rows:
        if refused or not entry:
            print(f"{id}: refused: {refused}" if refused else f"{id}: up to date")
            continue
        compared = entry["compared"]
        counts = ((number, name) for name in ("table", "result", "picture") if (number := compared[f"{name}s"]))
        print(f"{id}: carried from {entry['from'][:7]} to {entry['to'][:7]}; the same at scale {compared['scale']}: "
              f"{', '.join(f'{number} {name}' + 's' * (number != 1) for number, name in counts)}"
              + (f"; {free} measured times not compared" if (free := compared["not_compared"]) else "")
              + (f"; joined again, {'with other' if moved else 'the same'} results" if entry.get("joined") else ""))
    if not rows:
        print("no record is stale")
    return FAILED if any(row.refused for row in rows) else 0


def _adopt(options: argparse.Namespace) -> int:
    from ebwm.figures.adopt import adopt

    home = adopt(options.files, options.force)
    print(f"made on {home.status['machine']['gpu']} from commit {home.status.get('commit') or 'unknown'}")
    for step in home.status.get("steps", []):
        print(f"{step['name']}: {step['state']} after {step['seconds']:.0f} s")
    for name in home.status.get("left_out", []):
        print(f"{name}: left out there, too large")
    for run in home.runs:
        print(f"{run.id}: {run.folder}" + (f"; stale, changed since the run: {', '.join(run.stale)}" if run.stale else ""))
    for folder in [*home.benchmarks, home.logs]:
        print(folder)
    whole = [run for run in home.runs if run.folder.name in SCALES and not run.part]
    for run in whole:
        print(f"Next: ebwm figures promote {run.id} --scale {run.folder.name}")
    return 0


def _bundle(options: argparse.Namespace) -> int:
    from ebwm.figures.bundle import bundle, check_path, steps_of

    check_path(options.out)
    if not re.fullmatch(r"3\.\d+", options.python):
        raise checks.refusal("--python", options.python, "must be a version such as 3.12", error=UsageError)
    if options.wheels and not options.wheels.is_dir():
        raise checks.refusal("--wheels", str(options.wheels), "must be an existing folder", error=UsageError)
    steps = steps_of(options.scale, options.figures, options.steps)
    made = bundle(options.out, steps, options.scale, options.python, options.has, options.wheels)
    minutes = sum(step["minutes"] for step in steps)
    print(f"{made.path}: {made.size / MIB:.1f} MiB with {len(made.wheels)} wheels, {len(steps)} steps, "
          f"at most {minutes:g} minutes\nThere: tar -xf {made.path.name} && python ebwm-bundle/run.py")
    if made.commit.endswith("changes"):
        print("ebwm: uncommitted changes travel along; commit them before you put results on record", file=sys.stderr)
    if made.size > LARGE * MIB:
        print(f"ebwm: the bundle exceeds {LARGE} MiB; name what the machine has with --has PACKAGE", file=sys.stderr)
    return 0


def _tune(options: argparse.Namespace) -> int:
    from ebwm.figures.tune import tune

    path = tune(options.id, options.scale, dict(map(_assignment, options.parameters)), options.only, options.beyond)
    print(f"trials written to {path}")
    return 0


def _report(options: argparse.Namespace) -> int:
    from ebwm.figures.report import ledger, write_pages

    if options.write:
        config = settings.load()
        print("\n".join(f"{path.relative_to(config.root)} written" for path in write_pages(config)))
        return 0
    if options.out and options.out.exists() and not options.out.is_file():  # a device would be replaced by a file
        raise checks.refusal("--out", str(options.out), "must be a file, not a folder or a device", error=UsageError)
    text = ledger(settings.load())
    if options.out is None:
        print(text)
        return 0
    write_whole(options.out, lambda draft: draft.write_text(text + "\n", encoding="utf-8"))
    print(f"report written to {options.out}")
    return 0
