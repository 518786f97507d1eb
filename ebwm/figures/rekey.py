"""Carry records over a change of code: smoke runs of both commits must be the same to the last bit."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ebwm import checks, settings
from ebwm.figures.batch import signals_as_interrupts
from ebwm.figures.errors import FigureError
from ebwm.figures.execution import python_path
from ebwm.figures.identical import identical
from ebwm.figures.inputs import changed, key_of
from ebwm.figures.ledger import check
from ebwm.figures.manifest import MANIFEST, read_manifest, sealed
from ebwm.figures.packages import pins
from ebwm.figures.record import OUTPUTS
from ebwm.figures.registry import registry
from ebwm.figures.rejoin import rejoin
from ebwm.files import write_json
from ebwm.settings import SCALES, Settings

__all__ = ["Rekeyed", "rekey"]

SMOKE, EBWM = SCALES[0], ("-m", "ebwm")  # EBWM: arguments of Python for the command `ebwm`
DRAWING = ("notebook", *(f"module ebwm.figures.{name}" for name in (
    "pictures", "experiment.panels", "style", "record", "curves")))  # inputs that draw pictures
INPUTS = f"""
import json, sys
from ebwm.figures.errors import FigureError
from ebwm.figures.plan import jobs_of, plan

def inputs(id, scale):
    try:
        plan(id, {SMOKE!r})
        return jobs_of(plan(id, scale, means=False))[-1].inputs
    except FigureError as error:
        return str(error)

print(json.dumps({{id: inputs(id, scale) for id, scale in json.loads(sys.argv[1]).items()}}))
"""


class Rekeyed(NamedTuple):
    """What became of one record."""

    id: str  # figure
    refused: str = ""  # reason why it was not carried; empty if it was, or was up to date
    carried: dict[str, Any] | None = None  # the new entry of its manifest
    moved: bool = False  # whether a result has changed


@dataclass(frozen=True)
class _Tree:
    """A commit in a folder of its own."""

    commit: str
    name: str  # of the commit, for messages
    root: Path  # of the project

    def start(self, *words: str, **options: Any) -> subprocess.Popen:
        """Start Python with the code of this commit, with figures, runs and cache of its own."""
        folders = {f"EBWM_{name.upper()}": str(self.root / place)
                   for name, place in (("figures", "figures"), ("runs", "runs"), ("cache", "data/cache"))}
        path = os.pathsep.join([str(self.root), python_path()])
        return subprocess.Popen([sys.executable, *words], cwd=self.root, text=True, encoding="utf-8",
                                env={**os.environ, **folders, "PYTHONPATH": path}, **options)

    def smoke(self, id: str) -> Path:
        """The folder of a figure's smoke run."""
        return self.root / "figures" / id / "runs" / SMOKE


def rekey(
    ids: Sequence[str],  # figures; none: all whose record is stale
    since: str,  # a commit at which the records were up to date
    cores: int | None = None,  # number of processor cores; default: all
    config: Settings | None = None,  # default: the settings in effect
    joined: bool = False,  # execute the cells after the parts again, with the tables of the parts on record
) -> list[Rekeyed]:
    """Give records the inputs and key of the present commit, if the change of code since another has no effect.

    A record must be up to date at that commit, and differ since only in modules and notebook. Its figure runs at scale
    smoke in both commits; all tables, results and pictures must be the same to the last bit, except measured times. A
    record is not touched unless they are. With `joined` only the tables of the figure's parts must be the same: results,
    pictures and other tables are made of those on record by the present code.
    """
    config = config or settings.load()
    known = registry(config)
    commits = {_commit(config.root, since): since, _present(config.root): "the present commit"}
    ids = [known[id].id for id in dict.fromkeys(ids)] or [row.id for row in check((), config) if row.scale and row.stale]
    if not ids or len(commits) == 1:
        return [Rekeyed(id, f"{since} is the present commit; name an earlier one") for id in ids]
    with signals_as_interrupts(), contextlib.ExitStack() as stack:
        trees = [stack.enter_context(_tree(config.root, commit, name)) for commit, name in commits.items()]
        found = _eligible(ids, trees, config)
        chosen = [id for id, row in found.items() if isinstance(row, _Record) and row.names]
        errors = [_run_smoke(tree, chosen, cores) for tree in trees] if chosen else []
        return [_rekeyed(id, row, trees, errors, config, joined) for id, row in found.items()]


# What may be carried


class _Record(NamedTuple):
    """A record that may be carried."""

    manifest: dict[str, Any]
    now: dict[str, Any]  # inputs at the present commit
    names: list[str]  # names of the inputs that have changed since the run


def _eligible(ids: Sequence[str], trees: Sequence[_Tree], config: Settings) -> dict[str, "_Record | str"]:
    """The record of each figure, or the reason why it cannot be carried."""
    found: dict[str, Any] = {id: _manifest(id, config) for id in ids}
    scales = {id: row["scale"] for id, row in found.items() if isinstance(row, dict)}
    before, after = (_inputs(tree, scales) for tree in trees)
    return found | {id: _record(found[id], before[id], after[id], trees) for id in scales}


def _manifest(id: str, config: Settings) -> dict[str, Any] | str:
    if not (config.figures / id / MANIFEST).is_file():
        return "nothing is on record"
    try:
        manifest = read_manifest(config.figures / id)
    except FigureError as error:
        return str(error)
    return manifest if manifest.get("inputs") else "the record was made without the runner: its inputs are unknown"


def _inputs(tree: _Tree, scales: Mapping[str, str]) -> dict[str, Any]:
    """The inputs of each figure at a commit, or a message."""
    process = tree.start("-c", INPUTS, json.dumps(scales), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate()
    if process.returncode:
        raise FigureError(f"the inputs of the figures at {tree.name} cannot be determined: {_last(err.splitlines())}")
    return json.loads(out.splitlines()[-1])


def _record(manifest: dict[str, Any], before: Any, after: Any, trees: Sequence[_Tree]) -> _Record | str:
    first = trees[0]
    for inputs, name in ((before, first.name), (after, "the present commit")):
        if isinstance(inputs, str):
            return f"at {name}: {inputs}"
    if names := changed(manifest["inputs"], before):
        return f"its record is not up to date at {first.name}: {', '.join(names)}; name the commit at which it was with --since"
    names = changed(manifest["inputs"], after)
    pinned = dict(pins(trees[0].root).items() & pins(trees[1].root).items())  # to the same version at both commits
    once = (before["packages"].keys() ^ after["packages"].keys()) & pinned.keys()
    code = {"notebook", *(f"package {name}" for name in once)}  # to import another pinned package is a change of code
    if beyond := [name for name in names if name not in code and not name.startswith("module ")]:
        return f"not only code has changed: {', '.join(beyond)}; {_again(manifest)}"
    return _Record(manifest, after, names)


def _again(manifest: dict[str, Any]) -> str:
    return f"run it again: ebwm figures run {manifest['id']} --scale {manifest['scale']}"


# Commits


def _git(root: Path, *words: str) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True)
    except OSError as error:
        raise FigureError(f"git cannot be started ({error}); records are carried between commits") from None


def _commit(root: Path, name: str) -> str:
    found = _git(root, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if found.returncode:
        raise checks.refusal("--since", name, "must be a commit of this repository, at which the records were up to date",
                             "see git log", FigureError)
    return found.stdout.strip()


def _present(root: Path) -> str:
    """The present commit; raises if files other than the figures' outputs differ from it."""
    if changes := _git(root, "status", "--porcelain", "--", ".", *OUTPUTS).stdout.splitlines():
        raise FigureError(f"there are uncommitted changes ({changes[0][3:]}); commit them: the record names the commit")
    return _commit(root, "HEAD")


@contextlib.contextmanager
def _tree(root: Path, commit: str, name: str) -> Iterator[_Tree]:
    """The files of a commit in a temporary folder; removed at the end."""
    below = _git(root, "rev-parse", "--show-prefix").stdout.strip()
    with tempfile.TemporaryDirectory(prefix="ebwm-rekey-") as folder:
        place = Path(folder).resolve() / commit[:7]
        made = _git(root, "worktree", "add", "--quiet", "--detach", str(place), commit)
        if made.returncode:
            raise FigureError(f"git cannot write the files of {name}: {_last(made.stderr.splitlines())}")
        try:
            yield _Tree(commit, name, place / below)
        finally:
            _git(root, "worktree", "remove", "--force", str(place))


def _last(lines: Sequence[str]) -> str:
    return next((line.strip() for line in reversed(lines) if line.strip()), "no message")


# Smoke runs, and the new manifest


def _run_smoke(tree: _Tree, ids: Sequence[str], cores: int | None) -> list[str]:
    """Run figures at scale smoke in one batch; returns what the command printed to stderr."""
    print(f"Smoke runs at {tree.name} ({tree.commit[:7]}):", file=sys.stderr, flush=True)
    options = ["--scale", SMOKE, *(["--cores", str(cores)] if cores else [])]
    lines = []
    with tree.start(*EBWM, "figures", "run", *ids, *options, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            for line in process.stderr:
                lines.append(line.rstrip())
                print(lines[-1], file=sys.stderr, flush=True)
        except BaseException:
            process.terminate()
            raise
    return lines


def _rekeyed(id: str, row: "_Record | str", trees: Sequence[_Tree], errors: Sequence[list[str]], config: Settings,
             joined: bool) -> Rekeyed:
    """Compare the smoke runs of a figure, and write its manifest if they are the same."""
    if isinstance(row, str) or not row.names:
        return Rekeyed(id, row if isinstance(row, str) else "")
    for tree, lines in zip(trees, errors, strict=True):
        if not (tree.smoke(id) / MANIFEST).is_file():
            message = _last([line for line in lines if f"figure '{id}" in line] or lines)
            return Rekeyed(id, f"its smoke run at {tree.name} failed: {message.removeprefix('ebwm: ')}")
    figure, runs = registry(config)[id], [tree.smoke(id) for tree in trees]
    tables = (read_manifest(runs[1]).get("part_tables") or None) if joined and figure.each else None
    try:
        drawing = any(name.startswith(DRAWING) for name in row.names)
        compared = identical(*runs, figure.tolerances, figure.times, drawing, tables)
        if read_manifest(config.figures / id) != row.manifest:
            return Rekeyed(id, "its record was replaced meanwhile")
    except FigureError as error:
        return Rekeyed(id, f"the change of code has an effect at scale {SMOKE}: {error}; {_again(row.manifest)}")
    entry = {"from": trees[0].commit, "to": trees[1].commit, "key": row.manifest.get("key"), "changed": row.names,
             "compared": {"scale": SMOKE, **compared}, "date": datetime.now(UTC).isoformat(timespec="seconds"),
             **({"joined": True} if tables else {})}
    history = [*row.manifest.get("carried", []), entry]
    new = row.manifest | {"inputs": row.now, "key": key_of(row.now), "carried": history}
    if not tables:
        write_json(config.figures / id / MANIFEST, sealed(new))
        return Rekeyed(id, carried=entry)
    try:
        return Rekeyed(id, carried=entry, moved=rejoin(id, new, tables, config))
    except FigureError as error:
        return Rekeyed(id, f"its parts cannot be joined again: {error}; {_again(row.manifest)}")
