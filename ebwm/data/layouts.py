"""Folders of videos and their splits: by official split files, or at random by file."""

import csv
import hashlib
import json
import os
import warnings
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ebwm.checks import one_of, refusal
from ebwm.data.cache import SPLITS
from ebwm.data.configs import LAYOUTS
from ebwm.data.video import EXTENSIONS
from ebwm.files import sha256

__all__ = ["Entry", "Listing", "list_videos"]

SSV2 = {"train": ("something-something-v2-train.json", "train.json"),
        "valid": ("something-something-v2-validation.json", "validation.json"),
        "test": ("something-something-v2-test.json", "test.json")}
KINETICS = {"train": "train", "val": "valid", "validate": "valid", "validation": "valid", "test": "test"}
COLUMNS = {"youtube_id", "time_start", "time_end", "split"}  # of Kinetics' files
UCF101 = {"train": "trainlist01.txt", "test": "testlist01.txt"}


class Entry(NamedTuple):
    """A video, or a part of one."""

    name: str  # path relative to the folder
    share: tuple[int, int] = (0, 100)  # per cent of its duration
    seconds: tuple[float, float] | None = None  # start and end; None: all of it


class Listing(NamedTuple):
    """The videos of each split."""

    layout: str  # one of LAYOUTS
    splits: dict[str, list[Entry]]  # in an order that the seed fixes
    missing: dict[str, list[str]]  # videos that the split files name and the folder lacks


def list_videos(
    folder: str | os.PathLike,  # searched with its subfolders
    layout: str = "auto",  # one of LAYOUTS
    split_files: str | os.PathLike | None = None,  # folder of the official split files; None: `folder`
    seed: int = 0,  # fixes the order of videos, and the splits of a layout without official ones
) -> Listing:
    """The videos of a folder by split; at least one for each split.

    A layout without a list of test videos divides its validation videos in two. Validation videos of UCF-101 are
    15 % of the groups in its training list. A folder of fewer than three videos without lists is divided in time.
    """
    one_of("data.layout", layout, LAYOUTS)
    videos, others = _files(Path(folder), "data.source")
    if split_files is not None:
        others = _files(Path(split_files), "data.split_files")[1]
    lists = {name: found for name, find in FINDERS.items() if layout in (name, "auto") and (found := find(others))}
    if layout not in ("auto", "videos", *lists):
        raise refusal("data.layout", layout, f"has no split files in {str(split_files or folder)!r}",
                      f"expected {EXPECTED[layout]}; set data.split_files", FileNotFoundError)
    if not videos:
        raise refusal("data.source", str(folder), f"contains no {', '.join(EXTENSIONS)} file", error=FileNotFoundError)
    chosen = next(iter(lists), "videos")
    if chosen == "videos":
        return Listing(chosen, _by_file(_each_once(Path(folder), sorted(videos.values())), seed), {})
    named, missing = READERS[chosen](lists[chosen], videos)
    splits = _complete({split: _shuffled(entries, seed) for split, entries in named.items()}, chosen, seed)
    for split in SPLITS:
        if not splits.get(split):
            lost = [name for names in missing.values() for name in names]
            rule = f"has no {split} video of {chosen}" + (f"; {len(lost):,} are missing, such as {lost[0]}" if lost else "")
            raise refusal("data.source", str(folder), rule, "check the folder", FileNotFoundError)
    return Listing(chosen, splits, missing)


def _files(folder: Path, name: str) -> tuple[dict[str, str], dict[str, Path]]:
    """Videos by their stems, and paths of other files by their names."""
    if not folder.is_dir():
        raise refusal(name, str(folder), "must be a folder", f"write {name}=DIR", FileNotFoundError)
    videos, others = {}, {}
    for place, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        for file in sorted(files):
            stem, suffix = os.path.splitext(file)
            path = os.path.join(place, file)
            if suffix.lower() in EXTENSIONS:
                relative = Path(path).relative_to(folder).as_posix()
                videos[stem if stem not in videos else relative] = relative
            elif suffix in (".json", ".csv", ".txt"):
                others.setdefault(file, Path(path))
    return videos, others


def _each_once(folder: Path, names: list[str]) -> list[str]:
    """Names without those of files that are equal to an earlier one, which could lie in another split."""
    sizes = {name: (folder / name).stat().st_size for name in names}
    counts = Counter(sizes.values())
    marks = {name: _mark(folder / name) if counts[sizes[name]] > 1 else name for name in names}
    first = {mark: name for name, mark in reversed(marks.items())}
    if equal := [name for name in names if first[marks[name]] != name]:
        warnings.warn(f"data.source={str(folder)!r}: {len(equal):,} videos left out, which are equal to others: {equal[0]} "
                      f"to {first[marks[equal[0]]]}", stacklevel=4)
    return [name for name in names if first[marks[name]] == name]


def _mark(path: Path) -> str:
    try:
        return sha256(path)
    except OSError:  # is left out when it is decoded
        return str(path)


def _order(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def _shuffled(entries: list[Entry], seed: int) -> list[Entry]:
    return sorted(entries, key=lambda entry: _order(seed, entry.name))


def _by_file(names: list[str], seed: int) -> dict[str, list[Entry]]:
    """About 70, 15 and 15 % of the files; of fewer than three files, of their duration."""
    order = sorted(names, key=lambda name: _order(seed, name))
    if len(order) < 3:
        shares = pairwise((0, 70, 85, 100))
        return {split: [Entry(name, share) for name in order] for split, share in zip(SPLITS, shares, strict=True)}
    few = max(1, round(0.15 * len(order)))
    cuts = pairwise((0, len(order) - 2 * few, len(order) - few, len(order)))
    return {split: [*map(Entry, order[a:b])] for split, (a, b) in zip(SPLITS, cuts, strict=True)}


def _complete(splits: dict[str, list[Entry]], layout: str, seed: int) -> dict[str, list[Entry]]:
    """The splits that a layout does not have, from those that it has."""
    if layout == "ucf101":
        group = lambda entry: entry.name.rsplit("_", 1)[0]  # clips of a group come from one video
        groups = sorted({*map(group, splits["train"])}, key=lambda name: _order(seed, name))
        held = {*groups[:max(1, round(0.15 * len(groups)))]} if len(groups) > 1 else set()
        parts = {split: [e for e in splits["train"] if (group(e) in held) == (split == "valid")] for split in SPLITS[:2]}
        return splits | parts
    if not splits.get("test") and len(valid := splits.get("valid", [])) > 1:
        return splits | {"valid": valid[::2], "test": valid[1::2]}
    return splits


# Official split files: where they are, and the videos that they name


Found = dict[str, Path]  # split files by split, or by name
Read = tuple[dict[str, list[Entry]], dict[str, list[str]]]  # videos that are there, and names of missing ones


def _find_ssv2(others: dict[str, Path]) -> Found:
    found = {split: next((others[name] for name in names if name in others), None) for split, names in SSV2.items()}
    return {split: path for split, path in found.items() if path} if found["train"] and found["valid"] else {}


def _find_kinetics(others: dict[str, Path]) -> Found:
    tables = {name: path for name, path in others.items() if path.suffix == ".csv"}
    return {name: path for name, path in tables.items() if {*_header(path)} >= COLUMNS}


def _header(path: Path) -> list[str]:
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        return file.readline().strip().replace('"', "").split(",")


def _find_ucf101(others: dict[str, Path]) -> Found:
    found = {split: others.get(name) for split, name in UCF101.items()}
    return {split: path for split, path in found.items() if path} if all(found.values()) else {}


def _read_ssv2(files: Found, videos: dict[str, str]) -> Read:
    return _matched({split: [(str(row["id"]), None) for row in _json_rows(path)] for split, path in files.items()}, videos)


def _json_rows(path: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(rows, list) and all(isinstance(row, dict) and "id" in row for row in rows)):
            raise ValueError("not a list of objects with the key 'id'")
    except (OSError, ValueError) as error:
        raise refusal("data.split_files", str(path), f"cannot be read ({str(error)[:100]})") from None
    return rows


def _read_kinetics(files: Found, videos: dict[str, str]) -> Read:
    named: dict[str, list[tuple[str, tuple[float, float] | None]]] = {}
    for path in files.values():
        with open(path, encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                try:
                    start, end = float(row["time_start"]), float(row["time_end"])
                    split = KINETICS[row["split"].strip().lower()]
                except (KeyError, TypeError, ValueError, AttributeError) as error:
                    rule = f"line {number} cannot be read ({type(error).__name__}: {str(error)[:60]})"
                    raise refusal("data.split_files", str(path), rule) from None
                cut = f"{row['youtube_id']}_{int(start):06d}_{int(end):06d}"  # the name of a file that was cut out
                there = cut in videos or row["youtube_id"] not in videos
                named.setdefault(split, []).append((cut, None) if there else (row["youtube_id"], (start, end)))
    return _matched(named, videos)


def _read_ucf101(files: Found, videos: dict[str, str]) -> Read:
    lines = {split: path.read_text(encoding="utf-8").split("\n") for split, path in files.items()}
    return _matched({split: [(Path(line.split()[0]).stem, None) for line in found if line.strip()]
                     for split, found in lines.items()}, videos)


def _matched(named: dict[str, list[tuple[str, Any]]], videos: dict[str, str]) -> Read:
    """Entries of the videos that are in the folder, and the stems of the others."""
    found, missing = {}, {}
    for split, stems in named.items():
        found[split] = [Entry(videos[stem], seconds=cut) for stem, cut in stems if stem in videos]
        if lost := [stem for stem, _ in stems if stem not in videos]:
            missing[split] = lost
    return found, missing


FINDERS = {"ssv2": _find_ssv2, "kinetics": _find_kinetics, "ucf101": _find_ucf101}
READERS = {"ssv2": _read_ssv2, "kinetics": _read_kinetics, "ucf101": _read_ucf101}
EXPECTED = {"ssv2": "something-something-v2-train.json and -validation.json",
            "kinetics": f"CSV files with the columns {', '.join(sorted(COLUMNS))}",
            "ucf101": "trainlist01.txt and testlist01.txt"}
