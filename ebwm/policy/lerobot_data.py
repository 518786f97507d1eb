"""Demonstrations as folders of LeRobot, version 3 of its format."""

import functools
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from ebwm.checks import refusal
from ebwm.compat import require
from ebwm.files import draft_of, write_json
from ebwm.policy.demonstrations import Demonstrations, Episode
from ebwm.policy.reading import Source, check_demonstrations, check_layout, state_dim_of
from ebwm.usage import UsageError

__all__ = ["STATES", "read_lerobot", "write_lerobot"]

STATES = ("observation.state", "observation.environment_state")  # parts of a state, if they are there
ACTION, IMAGES, SUCCESS = "action", "observation.images.", "next.success"
LANGUAGE = "language"  # vectors of the instruction, in the table of episodes
INDICES = ("timestamp", "frame_index", "episode_index", "index", "task_index")
FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA, VIDEO = f"data/{FILE}.parquet", "videos/{video_key}/" + f"{FILE}.mp4"
FIRST = dict(chunk_index=0, file_index=0)  # the only file of a folder that is written here
QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
SAMPLED = 100  # images for statistics, at most
VERSION = "v3.0"
FPS = 20  # frames in a second, if the simulator has no other rate
CAMERA = "agentview"  # of the images that are written
ENCODER = {"crf": "10", "g": "2", "bf": "0"}  # of x264: little loss, and fast access to each frame
CONVERT = "convert it with LeRobot: python -m lerobot.scripts.convert_dataset_v21_to_v30"
Columns = dict[str, np.ndarray]


# Write


def write_lerobot(
    folder: Path,  # new
    demonstrations: Demonstrations,
    layout: dict[str, int] | None = None,  # sizes of the parts of a state by name; None: one part, "state"
    camera: str = CAMERA,  # name of the camera of images
    fps: int = FPS,  # frames in a second
) -> None:
    """Write a folder of LeRobot; the same demonstrations give the same bytes.

    Images become a video with a small loss. LeRobot ignores the seeds and the vectors of instructions in the table of
    episodes.
    """
    folder = Path(folder)
    check_demonstrations(demonstrations)
    if folder.exists():
        raise refusal("folder", str(folder), "exists already", "choose another, or delete it", UsageError)
    first = demonstrations.episodes[0]
    layout = check_layout(layout, state_dim_of(demonstrations))
    key = IMAGES + camera if "image" in first.observations else ""
    draft = draft_of(folder)
    try:
        columns = [_columns(demonstrations, number, fps) for number in range(len(demonstrations.episodes))]
        _write_data(draft, columns)
        features = _features(first, layout, key, fps)
        _write_meta(draft, demonstrations, columns, features, fps)
        if key:
            _write_video(draft / VIDEO.format(video_key=key, **FIRST), demonstrations, fps)
        os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _columns(demonstrations: Demonstrations, number: int, fps: int) -> Columns:
    """The columns of an episode, by name."""
    episodes = demonstrations.episodes
    episode, steps = episodes[number], len(episodes[number].actions)
    frame = np.arange(steps)
    before = sum(len(other.actions) for other in episodes[:number])
    return ({STATES[0]: episode.observations["state"]} if "state" in episode.observations else {}) | {
        ACTION: episode.actions,
        SUCCESS: (frame == steps - 1) & episode.success,
        "timestamp": (frame / fps).astype(np.float32),
        "frame_index": frame,
        "episode_index": np.full(steps, number),
        "index": before + frame,
        "task_index": np.zeros(steps, int),
    }


def _write_data(folder: Path, columns: list[Columns]) -> None:
    """Write the frames, one row group for each episode."""
    pa, parquet = require("pyarrow", "policy"), require("pyarrow.parquet", "policy")
    path = folder / DATA.format(**FIRST)
    path.parent.mkdir(parents=True)
    tables = [pa.table({name: _arrow(pa, values) for name, values in part.items()}) for part in columns]
    with parquet.ParquetWriter(path, tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)


def _arrow(pa: Any, values: np.ndarray) -> Any:
    """A column of numbers, or of vectors of one size; vectors of one feature are numbers."""
    flat = pa.array(values.ravel())
    size = values.shape[1] if values.ndim == 2 else 1
    return flat if size == 1 else pa.FixedSizeListArray.from_arrays(flat, size)


def _features(episode: Episode, layout: dict[str, int], key: str, fps: int) -> dict[str, Any]:
    """Types, shapes and names of the columns and the video."""
    names = [name if size == 1 else f"{name}.{place}" for name, size in layout.items() for place in range(size)]
    actions = [f"action.{place}" for place in range(episode.actions.shape[1])]
    feature = lambda dtype, shape, names=None: {"dtype": dtype, "shape": shape, "names": names}
    found = {STATES[0]: feature("float32", [len(names)], names)} if names else {}
    found |= {ACTION: feature("float32", [len(actions)], actions), SUCCESS: feature("bool", [1])}
    found |= {name: feature("float32" if name == "timestamp" else "int64", [1]) for name in INDICES}
    if key:
        size = episode.observations["image"].shape[1]
        facts = {"height": size, "width": size, "codec": "h264", "pix_fmt": _pixels(size), "fps": fps, "channels": 3}
        video = {f"video.{name}": value for name, value in facts.items()} | {"is_depth_map": False, "has_audio": False}
        found[key] = feature("video", [size, size, 3], ["height", "width", "channels"]) | {"info": video}
    return found


def _write_meta(folder: Path, demonstrations: Demonstrations, columns: list[Columns], features: dict[str, Any],
                fps: int) -> None:
    """Write facts, statistics, and the tables of tasks and episodes."""
    key = next((name for name, feature in features.items() if feature["dtype"] == "video"), "")
    images = [episode.observations["image"] for episode in demonstrations.episodes] if key else None
    episodes, frames = len(columns), sum(len(part["index"]) for part in columns)
    write_json(folder / "meta/info.json", {
        "codebase_version": VERSION, "robot_type": demonstrations.simulator, "fps": fps, "features": features,
        "total_episodes": episodes, "total_frames": frames, "total_tasks": 1, "chunks_size": 1000,
        "data_files_size_in_mb": 100, "video_files_size_in_mb": 200, "splits": {"train": f"0:{episodes}"},
        "data_path": DATA, "video_path": VIDEO if key else None})
    whole = {name: np.concatenate([part[name] for part in columns]) for name in columns[0]}
    write_json(folder / "meta/stats.json", _statistics(whole, key, images))
    _write_tasks(folder / "meta/tasks.parquet", demonstrations.simulator)
    rows = []
    for number, (part, episode) in enumerate(zip(columns, demonstrations.episodes, strict=True)):
        row = _row(part, demonstrations.simulator, episode, key, fps)
        for name, kinds in _statistics(part, key, images and [images[number]]).items():
            row |= {f"stats/{name}/{kind}": value for kind, value in kinds.items()}
        rows.append(row)
    path = folder / "meta/episodes" / f"{FILE.format(**FIRST)}.parquet"
    path.parent.mkdir(parents=True)
    require("pyarrow.parquet", "policy").write_table(require("pyarrow", "policy").Table.from_pylist(rows), path)


def _row(part: Columns, task: str, episode: Episode, key: str, fps: int) -> dict[str, Any]:
    """The row of an episode in the table of episodes, without its statistics."""
    start, stop = int(part["index"][0]), int(part["index"][-1]) + 1
    row = {"episode_index": int(part["episode_index"][0]), "tasks": [task], "length": stop - start,
           "seed": episode.seed, "dataset_from_index": start, "dataset_to_index": stop}
    if episode.language is not None:
        row[LANGUAGE] = episode.language.tolist()
    for place in ("data", "meta/episodes", *([f"videos/{key}"] if key else [])):
        row |= {f"{place}/{name}": value for name, value in FIRST.items()}
    if key:
        row |= {f"videos/{key}/from_timestamp": start / fps, f"videos/{key}/to_timestamp": stop / fps}
    return row


def _write_tasks(path: Path, task: str) -> None:
    """Write the table of tasks, whose index in pandas is the task in words."""
    pa, parquet = require("pyarrow", "policy"), require("pyarrow.parquet", "policy")
    describe = lambda name, kind, numpy: {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy,
                                          "metadata": None}
    facts = {"index_columns": ["task"], "column_indexes": [],
             "columns": [describe("task_index", "int64", "int64"), describe("task", "unicode", "object")]}
    table = pa.table({"task_index": pa.array([0]), "task": pa.array([task])})
    parquet.write_table(table.replace_schema_metadata({"pandas": json.dumps(facts)}), path)


def _statistics(columns: Columns, key: str, images: list[np.ndarray] | None) -> dict[str, dict[str, Any]]:
    """Statistics of each feature; those of images by channel, on the scale 0 to 1, over some evenly spaced images."""
    found = {name: _summary(values.reshape(len(values), -1), len(values)) for name, values in columns.items()}
    if images is not None:
        frames = [frame for part in images for frame in part]
        frames = frames[::-(-len(frames) // SAMPLED)]
        summary = _summary(np.stack(frames).reshape(-1, 3) / 255, len(frames))
        found[key] = {kind: value if kind == "count" else [[[number]] for number in value]
                      for kind, value in summary.items()}
    return found


def _summary(values: np.ndarray, count: int) -> dict[str, list[float]]:
    values = values.astype(np.float64)
    found = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
    quantiles = zip(QUANTILES, np.quantile(values, QUANTILES, 0), strict=True)
    found |= {f"q{round(100 * share):02d}": row for share, row in quantiles}
    return {kind: numbers.tolist() for kind, numbers in found.items()} | {"count": [count]}


def _pixels(size: int) -> str:
    """Format of the pixels of a video; odd sizes have colours at full resolution."""
    return "yuv444p" if size % 2 else "yuv420p"


def _write_video(path: Path, demonstrations: Demonstrations, fps: int) -> None:
    """Write the images of all episodes, one after the other."""
    av = require("av", "policy")
    path.parent.mkdir(parents=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options=ENCODER)
        stream.codec_context.thread_count = 1  # the same bytes on every machine
        size = demonstrations.episodes[0].observations["image"].shape[1]
        stream.width, stream.height, stream.pix_fmt = size, size, _pixels(size)
        for episode in demonstrations.episodes:
            for image in episode.observations["image"]:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


# Read


def read_lerobot(
    folder: Path,  # with meta/info.json
    camera: str | None = None,  # whose images to read; None: the only one, if there are images; "": none
    bounded: bool = True,  # refuse actions outside of [-1, 1]
) -> Demonstrations:
    """Read a folder of LeRobot; a bad file is a `UsageError` that names the entry."""
    source = Source(Path(folder), bounded)
    with source.reading():
        return _read(source, camera)


def _read(source: Source, camera: str | None) -> Demonstrations:
    """The demonstrations of a folder."""
    info = _info(source)
    sizes = {name: _size(source, info, name) for name in (*STATES, ACTION) if name in info["features"]}
    key = _video_key(source, info, camera)
    needed = {ACTION} if key else {STATES[0], ACTION}  # images need no state beside them
    if missing := needed - sizes.keys():
        raise source.refused(f"meta/info.json has no feature {min(missing)}; it has {', '.join(info['features'])}",
                             "rename the feature")
    rows = _table(source, "meta/episodes", ["episode_index", "length"]).to_pylist()
    frames = _frames(source, sizes, SUCCESS in info["features"])
    if (count := len(frames["episode_index"])) != sum(row["length"] for row in rows):
        raise source.refused(f"data holds {count} frames, meta/episodes {sum(row['length'] for row in rows)}",
                             "copy the folder again")
    rows.sort(key=lambda row: row["episode_index"])
    images = _images(source, info, key, rows) if key else itertools.repeat(None)
    episodes = [_read_episode(source, row, _part(source, frames, row), seen)
                for row, seen in zip(rows, images, strict=False)]
    return source.demonstrations(info.get("robot_type") or "unknown", episodes)


def _info(source: Source) -> dict[str, Any]:
    """The facts in meta/info.json."""
    path = source.path / "meta/info.json"
    if not path.is_file():
        raise source.refused("meta/info.json is missing", "give a folder of LeRobot")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        version, features = info["codebase_version"], info["features"]
        shapes = {name: [feature["dtype"], *feature["shape"]] for name, feature in features.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise source.unreadable(error, "meta/info.json") from None
    if not str(version).startswith("v3."):
        raise source.refused(f"meta/info.json has codebase_version={version!r}, not {VERSION}", CONVERT)
    return info | {"shapes": shapes}


def _size(source: Source, info: dict[str, Any], name: str) -> int:
    """Number of features of a vector."""
    dtype, *shape = info["shapes"][name]
    if len(shape) != 1 or not str(dtype).startswith(("float", "int")):
        raise source.refused(f"meta/info.json has {name} of the type {dtype} and shape {shape}",
                             "it must be a vector of numbers")
    return shape[0]


def _video_key(source: Source, info: dict[str, Any], camera: str | None) -> str:
    """Name of the video of a camera, or nothing."""
    kinds = {name: shape[0] for name, shape in info["shapes"].items() if shape[0] in ("video", "image")}
    cameras = [name.removeprefix(IMAGES) for name in kinds]
    if camera == "" or (camera is None and not kinds):
        return ""
    if camera is None and len(kinds) > 1:
        raise source.refused(f"has images of {', '.join(cameras)}",
                             f"choose one, as in camera={cameras[0]!r} or --camera {cameras[0]}; '' for none")
    if camera is not None and camera not in cameras:
        raise source.refused(f"has no images of camera {camera!r}", f"the cameras are {', '.join(cameras) or 'none'}")
    key = list(kinds)[0 if camera is None else cameras.index(camera)]
    if kinds[key] == "image":
        raise source.refused(f"{key} is stored as single images", "write it as video, or camera='' for the state alone")
    return key


def _table(source: Source, place: str, needed: list[str], optional: tuple[str, ...] | None = None) -> Any:
    """The rows of all Parquet files of a folder; optional: columns beside those needed, None: all."""
    pa, parquet = require("pyarrow", "policy"), require("pyarrow.parquet", "policy")
    paths = sorted((source.path / place).glob("*/*.parquet"))
    if not paths:
        raise source.refused(f"{place} has no Parquet file", "copy the folder again")
    tables = []
    for path in paths:
        name = str(path.relative_to(source.path))
        try:
            file = parquet.ParquetFile(path)
            there = file.schema_arrow.names
            if missing := [column for column in needed if column not in there]:
                raise source.refused(f"{name} has no column {missing[0]}; it has {', '.join(there)}", "write it again")
            wanted = [c for c in there if c in needed or not c.startswith("stats/")]
            tables.append(file.read(wanted if optional is None else [c for c in there if c in (*needed, *optional)]))
        except (OSError, pa.ArrowException) as error:
            raise source.unreadable(error, name) from None
    return pa.concat_tables(tables, promote_options="default")


def _frames(source: Source, sizes: dict[str, int], successes: bool) -> Columns:
    """The columns of all frames; vectors are [frames features]."""
    table = _table(source, "data", [*sizes, "episode_index", "frame_index"], (SUCCESS,) if successes else ())
    plain = [name for name in table.column_names if name not in sizes]
    columns = {name: table[name].to_numpy() for name in plain}
    return columns | {name: _vectors(source, name, table[name], size) for name, size in sizes.items()}


def _vectors(source: Source, name: str, column: Any, size: int) -> Float[np.ndarray, "frames size"]:
    """A column of vectors; entries that are missing are NaN."""
    values = column.combine_chunks()
    flat = values.flatten() if hasattr(values, "flatten") else values
    numbers = flat.to_numpy(zero_copy_only=False)
    if len(numbers) != size * len(values) or numbers.dtype.kind not in "fiu":
        raise source.refused(f"data has {len(numbers)} values of {numbers.dtype} in {len(values)} frames of {name}",
                             f"it must be {size} numbers for each frame, as in meta/info.json")
    return numbers.reshape(-1, size).astype(np.float64)


def _part(source: Source, frames: Columns, row: dict[str, Any]) -> Columns:
    """The frames of an episode."""
    rows = np.flatnonzero(frames["episode_index"] == row["episode_index"])
    order = frames["frame_index"][rows]
    if row["length"] < 1 or not np.array_equal(order, np.arange(row["length"])):
        raise source.refused(f"episode {row['episode_index']} has {len(rows)} frames in data and "
                             f"length={row['length']} in meta/episodes", "its frame_index must count from 0")
    return {name: values[rows] for name, values in frames.items()}


def _read_episode(source: Source, row: dict[str, Any], part: Columns, images: np.ndarray | None) -> Episode:
    """An episode; without a column of success it counts as successful."""
    name = f"episode {row['episode_index']}"
    states = [source.numbers(f"{key} of {name}", part[key]) for key in STATES if key in part]
    actions = source.actions(f"action of {name}", part[ACTION])
    success = bool(part[SUCCESS].any()) if SUCCESS in part else True
    seed = row.get("seed")
    observations = {"state": np.concatenate(states, 1)} if states else {}
    observations |= {} if images is None else {"image": images}
    seed = row["episode_index"] if seed is None else seed
    return source.episode(name, observations, actions, success, seed, row.get(LANGUAGE))


def _images(
    source: Source, info: dict[str, Any], key: str, rows: list[dict[str, Any]]
) -> Iterator[UInt8[np.ndarray, "steps height width 3"]]:
    """The images of each episode."""
    decoded = functools.lru_cache(1)(lambda name: _decoded(source, name))
    for row in rows:
        try:
            place = {name: row[f"videos/{key}/{name}"] for name in FIRST}
            name = info["video_path"].format(video_key=key, **place)
            start = round(row[f"videos/{key}/from_timestamp"] * info["fps"])
        except (KeyError, AttributeError, TypeError) as error:
            raise source.refused(f"meta has no place of the video of episode {row['episode_index']} ({error})",
                                 "write it again") from None
        yield decoded(name)[start:start + row["length"]]


def _decoded(source: Source, name: str) -> UInt8[np.ndarray, "frames height width 3"]:
    """All images of a video."""
    av, path = require("av", "policy"), source.path / name
    if not path.is_file():
        raise source.refused(f"{name} is missing", "copy the folder again, or camera='' for the state alone")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError("no video stream")
            return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    except (av.FFmpegError, OSError, ValueError) as error:
        raise source.unreadable(error, name) from None
