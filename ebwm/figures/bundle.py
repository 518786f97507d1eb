"""Bundles for machines without a network: the package, the notebooks, the wheels, a plan, and a program that runs it."""

import functools
import os
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ebwm import checks, settings
from ebwm.figures import offline, wheels
from ebwm.figures.notebook import registry_path
from ebwm.figures.packages import PINS
from ebwm.figures.plan import checked_scale, plan
from ebwm.figures.registry import STEP_MINUTES, Registry, Step, registry
from ebwm.files import sha256, write_json, write_whole
from ebwm.settings import Settings
from ebwm.figures.wheels import CHECKOUT
from ebwm.usage import UsageError

__all__ = ["Bundle", "bundle", "steps_of"]

ENDINGS = {".tar": "w", ".tar.gz": "w:gz"}
FOLDERS = ("ebwm", "tests", "benchmarks")  # of the checkout, which travel as a whole
TOP = "ebwm-bundle"  # folder in the tar


class Bundle(NamedTuple):
    """A bundle that was written."""

    path: Path  # the tar
    size: int  # bytes
    wheels: list[str]  # file names
    commit: str  # from `commit_of`


def bundle(
    out: Path,  # a path that ends in .tar or .tar.gz
    steps: Sequence[dict[str, Any]],  # from `steps_of`
    scale: str = "gpu",  # of the figures
    python: str = "3.12",  # version of Python there
    has: Sequence[str] = (),  # packages that the machine has besides `wheels.HAS`
    given: Path | None = None,  # folder of wheels that take the place of a download
    config: Settings | None = None,  # default: the settings in effect
) -> Bundle:
    """Write the tar; its program run.py runs the steps and packs their results."""
    config = config or settings.load()
    ending = check_path(out)
    if not (CHECKOUT / "pyproject.toml").is_file():
        raise UsageError("a bundle is made from a checkout of ebwm, which has its tests and benchmarks; "
                         "ebwm is installed as a wheel here")
    known = registry(config)
    chosen = [known[step["figure"]] for step in steps if step["figure"]]
    tests = any("pytest" in step["command"] for step in steps)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        extras = dict.fromkeys(extra for figure in chosen for extra in figure.extras)
        wheels.collect(wheels.needed(extras, tests, python, has), python, folder / "wheels", given)
        for target, source in _sources(known, config, scale):
            (folder / "src" / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / "src" / target)
        shutil.copyfile(offline.__file__, folder / "run.py")
        commit = commit_of(CHECKOUT)
        write_json(folder / "plan.json", {"scale": scale, "python": python, "commit": commit, "steps": list(steps)})
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        write_json(folder / "digests.json", {path.relative_to(folder).as_posix(): sha256(path) for path in files})
        write_whole(out, lambda draft: _pack(folder, draft, ENDINGS[ending]))
        return Bundle(out, out.stat().st_size, [path.name for path in files if path.suffix == ".whl"], commit)


def commit_of(
    checkout: Path,  # root of the repository
) -> str:  # as in "1f3a... with changes"; "" outside git
    """The commit that travels, and whether files differ from it."""
    git = functools.partial(subprocess.run, cwd=checkout, capture_output=True, text=True)
    try:
        commit = git(["git", "rev-parse", "HEAD"]).stdout.strip()
        changes = git(["git", "status", "--porcelain", "--", *FOLDERS, "nbs/figures", "figures/figures.yaml"]).stdout
    except OSError:
        return ""
    return f"{commit} with changes" if commit and changes else commit


def check_path(
    out: Path,  # of the tar
) -> str:  # its ending
    """Refuse a path that is a folder or has another ending."""
    ending = next((ending for ending in ENDINGS if out.name.endswith(ending)), None)
    if ending is None or out.is_dir():
        raise checks.refusal("OUT", str(out), f"must be a file that ends in {' or '.join(ENDINGS)}", error=UsageError)
    return ending


def _pack(folder: Path, draft: Path, mode: str) -> None:
    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        return entry

    with tarfile.open(draft, mode) as tar:
        tar.add(folder, TOP, filter=plain)


def _sources(known: Registry, config: Settings, scale: str) -> Iterator[tuple[str, Path]]:
    """Files that the steps need, by their path there."""
    for name in FOLDERS:
        for path in sorted((CHECKOUT / name).rglob("*")):
            hidden = any(part.startswith((".", "__pycache__")) for part in path.relative_to(CHECKOUT).parts)
            if path.is_file() and not hidden:
                yield path.relative_to(CHECKOUT).as_posix(), path
    official = os.environ.get("OFFICIAL_EBT")  # the authors' code, for the benchmarks
    for path in sorted((Path(official) / "model").rglob("*.py")) if official else []:
        yield f"official/{path.relative_to(official).as_posix()}", path
    yield "pyproject.toml", CHECKOUT / "pyproject.toml"
    paths = [config.root / name for name in ("settings.ini", *PINS)]
    paths += [figure.notebook for figure in known.figures.values()]
    paths += [config.root / name for figure in known.figures.values() for name in figure.data]
    for path in dict.fromkeys(paths):
        if path.is_file():
            yield path.relative_to(config.root).as_posix(), path
    yield "figures/figures.yaml", registry_path(config)
    earlier = [*config.figures.glob(f"*/runs/{scale}*.parts/*/*"), *config.figures.glob("benchmarks/*/benchmarks.json")]
    for path in sorted(earlier):
        yield f"figures/{path.relative_to(config.figures).as_posix()}", path


# Steps


def steps_of(
    scale: str = "gpu",  # of the figures
    figures: Sequence[str] = (),  # ids; with `names` empty, no command is run
    names: Sequence[str] = (),  # steps of the plan
    config: Settings | None = None,  # default: the settings in effect
) -> list[dict[str, Any]]:  # name, figure ("" for a command), command and minutes, in the order of the plan
    """The steps of the GPU plan that are named, or all of them; at another scale, whole figures in its place."""
    config = config or settings.load()
    checked_scale(scale)
    known = registry(config)
    for name in names:
        checks.one_of("--steps", name, [step.name for step in known.gpu_plan], UsageError)
    chosen = [step for step in known.gpu_plan
              if not (figures or names) or step.name in names or step.figure in figures]
    planned = {step.figure for step in chosen}
    chosen += [Step(name=id, figure=known[id].id, minutes=STEP_MINUTES) for id in figures if id not in planned]
    if scale != "gpu":
        whole: dict[str, Step] = {}
        for step in chosen:
            if step.figure or scale in step.command:
                whole.setdefault(step.figure or step.name, _whole(step))
        chosen = list(whole.values())
    if not chosen:
        raise UsageError("no step is chosen: figures.yaml has no gpu_plan; name figures with --figures ID")
    for step in chosen:
        if step.figure:
            plan(step.figure, scale, step.parameters, config, means=False, cluster=True)
    return [{"name": step.name, "figure": step.figure, "minutes": step.minutes, "command": _command(step, scale)}
            for step in chosen]


def _whole(step: Step) -> Step:
    """The step of a whole figure with the registry's parameters."""
    return step.model_copy(update={"part": "", "parameters": {}, "name": step.figure or step.name})


def _command(step: Step, scale: str) -> list[str]:
    if step.command:
        checks.one_of(f"gpu_plan: {step.name}: scale", scale, step.command)
        return shlex.split(step.command[scale])
    given = [word for name, value in step.parameters.items() for word in ("-p", f"{name}={value!r}")]
    part = ["--part", step.part] if step.part else []
    return ["python", "-m", "ebwm", "figures", "run", step.figure, "--scale", scale, *part, *given]
