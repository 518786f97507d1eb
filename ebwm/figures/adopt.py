"""Adoption of packed results: runs, benchmarks and logs from a machine without a network, with their digests checked."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ebwm import checks, settings
from ebwm.figures.errors import FigureError
from ebwm.figures.inputs import changed
from ebwm.figures.manifest import read_manifest
from ebwm.figures.plan import jobs_of, plan
from ebwm.figures.offline import MOST_FILES
from ebwm.figures.registry import registry
from ebwm.files import sha256
from ebwm.settings import Settings

__all__ = ["Adopted", "Run", "adopt"]

NAME = r"[A-Za-z0-9_][\w.+=,-]*"
ALLOWED = re.compile(  # paths in the packed results; no part of a path starts with a dot
    rf"status\.json|logs/{NAME}|figures/benchmarks/{NAME}/{NAME}|figures/[a-z][a-z0-9_]*/runs/{NAME}(/{NAME})?/{NAME}",
    re.ASCII)
DIGESTS, STATUS = "digests.json", "status.json"
SAFELY = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python has no filter before 3.11.4
MOST = 2**30  # bytes of all unpacked files


class Run(NamedTuple):
    """A run, or a part of one, that was taken home."""

    id: str  # figure
    folder: Path  # its place
    stale: tuple[str, ...]  # inputs that differ from those of this checkout
    part: bool = False  # whether it is a part


class Adopted(NamedTuple):
    """Packed results that were taken home."""

    runs: list[Run]
    benchmarks: list[Path]  # folders
    logs: Path  # folder of the logs and of status.json
    status: dict[str, Any]  # steps, machine, and what was left out


def adopt(
    files: Sequence[Path],  # results-1.tar.gz and all others of the same pack
    force: bool = False,  # replace different results that are here already
    config: Settings | None = None,  # default: the settings in effect
) -> Adopted:
    """Check and unpack results; nothing is written unless all of them are in order.

    A run of other code than this checkout's is taken home and reported as stale, like a record in `ebwm figures check`.
    """
    config = config or settings.load()
    with _draft(config) as draft:
        pack = _unpack(files, draft)
        status = json.loads((draft / STATUS).read_text(encoding="utf-8"))
        logs = config.figures / "runs" / f"{_device(status)}-{pack[:8]}"
        (draft / "logs").mkdir(exist_ok=True)
        (draft / STATUS).rename(draft / "logs" / STATUS)
        places = {folder: _place(folder.relative_to(draft), config) for folder in _folders(draft)}
        runs = [_run(folder, place, config) for folder, place in places.items() if not _is_benchmark(place, config)]
        new = {folder: place for folder, place in places.items() if not _equal(folder, place)}
        for place in new.values():
            if not force and place.exists():
                raise checks.refusal("FILE", str(files[0]), f"{place} exists with other contents",
                                     "replace it with --force", FigureError)
        for folder, place in [*new.items(), (draft / "logs", logs)]:
            _move(folder, place)
    benchmarks = [place for place in places.values() if _is_benchmark(place, config)]
    return Adopted(runs, benchmarks, logs, status)


@contextlib.contextmanager
def _draft(config: Settings) -> Iterator[Path]:
    """An empty hidden folder beside the figures; removed at the end."""
    draft = config.figures / f".adopt.{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


# Unpacking


def _unpack(files: Sequence[Path], draft: Path) -> str:
    """Unpack all parts of a pack, and compare every file with its digest; returns the digest of the pack."""
    found = {path: _open(path, draft) for path in files}
    first = next(iter(found.values()))
    for path, content in found.items():
        if content["pack"] != first["pack"]:
            raise checks.refusal("FILE", str(path), "belongs to other results than the first file", error=FigureError)
    numbers = {content["part"] for content in found.values()}
    absent = sorted({*range(1, first["parts"] + 1)} - numbers)
    if absent:
        raise checks.refusal("FILE", str(files[0]), f"the results have {first['parts']} files",
                             f"also name results-{absent[0]}.tar.gz", FigureError)
    return first["pack"]


def _open(path: Path, draft: Path) -> dict[str, Any]:
    """Unpack one file; returns its digests.json."""
    if not path.is_file():
        raise checks.refusal("FILE", str(path), "must be an existing file, such as results-1.tar.gz", error=FigureError)
    try:
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            _check_members(path, members)
            tar.extractall(draft, members, **SAFELY)
        content = json.loads((draft / DIGESTS).read_text(encoding="utf-8"))
        (draft / DIGESTS).unlink()
        digests, part, parts = content["files"], content["part"], content["parts"]
        complete = bool(re.fullmatch("[0-9a-f]{64}", content["pack"])) and 1 <= part <= parts <= MOST_FILES
        complete &= part > 1 or STATUS in digests
    except (tarfile.TarError, EOFError, ValueError, KeyError, TypeError, OSError) as error:
        raise checks.refusal("FILE", str(path), f"is not a file of packed results ({error})", error=FigureError) from None
    if not complete:
        raise checks.refusal("FILE", str(path), f"its {DIGESTS} is damaged", "copy it again", FigureError)
    if {member.name for member in members} != {DIGESTS, *digests}:
        raise checks.refusal("FILE", str(path), f"its files are not those of its {DIGESTS}", "pack it again", FigureError)
    for name, digest in digests.items():
        if sha256(draft / name) != digest:
            raise checks.refusal("FILE", str(path), f"{name} differs from its digest", "copy it again", FigureError)
    return content


def _check_members(path: Path, members: Sequence[tarfile.TarInfo]) -> None:
    for member in members:
        if not member.isfile() or not (member.name == DIGESTS or ALLOWED.fullmatch(member.name)):
            raise checks.refusal("FILE", str(path), f"{member.name!r} is no path of packed results", error=FigureError)
    if sum(member.size for member in members) > MOST:
        raise checks.refusal("FILE", str(path), f"unpacks to more than {MOST // 2**20} MiB", error=FigureError)


# Places


def _folders(draft: Path) -> list[Path]:
    """Folders of the runs, parts and benchmarks."""
    return sorted({path.parent for path in draft.glob("figures/**/*") if path.is_file()})


def _place(name: Path, config: Settings) -> Path:
    """The folder of results in this project."""
    return config.figures / name.relative_to("figures")


def _is_benchmark(place: Path, config: Settings) -> bool:
    return place.parent == config.figures / "benchmarks"


def _device(status: Mapping[str, Any]) -> str:
    """A folder's name for the machine's GPU, or for its lack."""
    gpu = str(status.get("machine", {}).get("gpu", "none"))
    return "cpu" if gpu == "none" else re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-") or "gpu"


def _equal(one: Path, other: Path) -> bool:
    if not other.is_dir():
        return False
    digests = [{path.name: sha256(path) for path in folder.iterdir() if path.is_file()} for folder in (one, other)]
    return digests[0] == digests[1]


def _move(folder: Path, place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(place)


def _run(folder: Path, place: Path, config: Settings) -> Run:
    """Check a run by its manifest; find what has changed since."""
    manifest = read_manifest(folder)
    names = place.relative_to(config.figures).parts  # id, runs, name, and the label of a part
    if manifest.get("id") != names[0] or names[0] not in registry(config).figures:
        raise checks.refusal("FILE", str(place), "is no run of this figure", error=FigureError)
    return Run(names[0], place, tuple(_stale(manifest, place, config)), part=len(names) == 4)


def _stale(manifest: dict[str, Any], place: Path, config: Settings) -> list[str]:
    """The inputs of a run that differ from those of this checkout."""
    then, (id, _, name, *part) = manifest.get("inputs"), place.relative_to(config.figures).parts
    if not then:
        return ["made without the runner: its inputs are unknown"]
    try:
        each = registry(config)[id].each if part else ()
        given = {key: value for key, value in then["parameters"].items() if key != "scale" and key not in each}
        again = plan(id, manifest["scale"], given, config, means=False)
        again = dataclasses.replace(again, suffix=name.removesuffix(".parts").removeprefix(manifest["scale"]))
        job = next((job for job in jobs_of(again) if Path(job.folder) == place), None)
    except FigureError as error:
        return [str(error)]
    return changed(then, {**job.inputs, "device": then["device"]}) if job else ["seeds: this part is not in the registry"]
