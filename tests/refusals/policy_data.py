"""Refusals of demonstrations in files and in memory."""

import functools
import json
import shutil
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ebwm.policy.chunks import Chunks, ChunksConfig, Normaliser, split_episodes
from ebwm.policy.demonstrations import Demonstrations, Episode
from ebwm.policy.formats import read_demonstrations, write_demonstrations
from ebwm.policy.lerobot_data import read_lerobot
from ebwm.policy.robomimic import read_robomimic
from ebwm.usage import UsageError

FOLDER = Path(tempfile.mkdtemp())
INFO = "meta/info.json"
DATA = "data/chunk-000/file-000.parquet"


def episode(state=3):
    """An episode of zeros."""
    observations = {"state": np.zeros((4, state), np.float32), "image": np.zeros((4, 8, 8, 3), np.uint8)}
    return Episode(observations, np.zeros((4, 2), np.float32), True, 0)


@functools.cache
def good(target):
    """A good file or folder of two episodes."""
    path = Path(tempfile.mkdtemp(), target)
    write_demonstrations(path, Demonstrations("reach", [episode(), episode()]))
    return path


def copied(target):
    """A copy of a good file or folder, to be spoiled."""
    path = Path(tempfile.mkdtemp(), target)
    (shutil.copytree if good(target).is_dir() else shutil.copy)(good(target), path)
    return path


def spoiled(edit, **options):
    """Read a file of robomimic after an edit of it."""
    path = copied("set.hdf5")
    with h5py.File(path, "r+") as file:
        edit(file)
    return read_robomimic(path, **options)


def replaced(name, values):
    """Edit: another array in the first episode."""
    def edit(file):
        del file[f"data/demo_0/{name}"]
        file[f"data/demo_0/{name}"] = values
    return edit


def drop(name):
    """Edit: an entry less."""
    return lambda file: file.__delitem__(name)


def attribute(place, **values):
    """Edit: other attributes."""
    return lambda file: file[place].attrs.update(values)


def bytes_edited(target, edit, name=""):
    """Read a file or folder after an edit of the bytes of a file."""
    path = copied(target)
    file = path / name if name else path
    file.write_bytes(edit(file.read_bytes()))
    return read_demonstrations(path)


def facts(edit, **options):
    """Read a folder of LeRobot after an edit of its facts."""
    path = copied("set")
    info = json.loads((path / INFO).read_text(encoding="utf-8"))
    edit(info)
    (path / INFO).write_text(json.dumps(info), encoding="utf-8")
    return read_lerobot(path, **options)


def framed(edit, **options):
    """Read a folder of LeRobot after an edit of its frames."""
    path = copied("set")
    pq.write_table(edit(pq.read_table(path / DATA)), path / DATA)
    return read_lerobot(path, **options)


def column(name, edit):
    """Edit: other values of a column."""
    def edited(table):
        values = table[name].to_pylist()
        return table.set_column(table.column_names.index(name), name, pa.array([edit(*v) for v in enumerate(values)]))

    return edited


def removed(name):
    """Read a folder of LeRobot without a file."""
    path = copied("set")
    (path / name).unlink()
    return read_lerobot(path)


half = lambda content: content[:len(content) // 2]
NAN, FAR = (np.full((4, 2), value) for value in (np.nan, 1.5))
VIDEO = "videos/observation.images.agentview/chunk-000/file-000.mp4"
second = lambda values: lambda row, value: values if row == 1 else value

CASES = [(name, call, UsageError, part) for name, part, call in [
    ("robomimic none", "must be an HDF5 file", lambda: read_demonstrations(FOLDER / "none.hdf5")),
    ("robomimic text", "the file cannot be read", lambda: read_robomimic(Path(__file__))),
    ("robomimic truncated", "may be truncated", lambda: bytes_edited("set.hdf5", half)),
    ("robomimic empty", "data is missing", lambda: spoiled(drop("data"))),
    ("robomimic no episode", "holds 0 episodes", lambda: spoiled(lambda file: file["data"].clear())),
    ("robomimic no actions", "data/demo_0/actions is missing", lambda: spoiled(drop("data/demo_0/actions"))),
    ("robomimic no obs", "data/demo_0/obs is missing", lambda: spoiled(drop("data/demo_0/obs"))),
    ("robomimic key", "did you mean 'state'", lambda: read_robomimic(good("set.hdf5"), {"states": 3})),
    ("robomimic size", "must be [steps, 4]", lambda: read_robomimic(good("set.hdf5"), {"state": 4})),
    ("robomimic official", "robot0_eef_pos is missing", lambda: spoiled(attribute("data", env_args="{}"))),
    ("robomimic env_args", "env_args of data is not JSON", lambda: spoiled(attribute("data", env_args="{"))),
    ("robomimic group", "actions is a group", lambda: spoiled(
        lambda file: (drop("data/demo_0/actions")(file), file.create_group("data/demo_0/actions")))),
    ("robomimic axes", "shape [4, 2, 1]", lambda: spoiled(replaced("actions", NAN[..., None]))),
    ("robomimic text actions", "has the type", lambda: spoiled(replaced("actions", [b"a"] * 4))),
    ("robomimic NaN", "the first is nan at step 0", lambda: spoiled(replaced("actions", NAN))),
    ("robomimic large", "has 12 values that are not finite in float32, the first is 1e+39 at step 0",
     lambda: spoiled(replaced("obs/state", np.full((4, 3), 1e39)))),
    ("robomimic state", "data/demo_0/obs/state has 1 values that are not finite",
     lambda: spoiled(lambda file: file["data/demo_0/obs/state"].__setitem__((1, 2), np.inf))),
    ("robomimic range", "1.5 at step 0, which is outside of [-1, 1]", lambda: spoiled(replaced("actions", FAR))),
    ("robomimic steps", "num_samples=4 and 3 actions", lambda: spoiled(
        replaced("actions", np.zeros((3, 2))))),
    ("robomimic state steps", "5 steps of state and 4 actions", lambda: spoiled(
        replaced("obs/state", np.zeros((5, 3))))),
    ("robomimic sizes", "episode 1 has the sizes", lambda: spoiled(replaced("actions", np.zeros((4, 3))))),
    ("robomimic filter", "mask/valid is missing", lambda: read_robomimic(good("set.hdf5"), mask="valid")),
    ("robomimic filtered", "names demo_7", lambda: spoiled(
        lambda file: file.__setitem__("mask/valid", [b"demo_7"]), mask="valid")),
    ("robomimic camera", "front_image is missing", lambda: read_robomimic(good("set.hdf5"), camera="front")),
    ("robomimic cameras", "choose one", lambda: spoiled(
        lambda file: file.__setitem__("data/demo_0/obs/front_image", np.zeros((4, 8, 8, 3), np.uint8)))),
    ("robomimic image", "must be square", lambda: spoiled(
        replaced("obs/agentview_image", np.zeros((4, 8, 9, 3), np.uint8)))),
    ("lerobot none", "meta/info.json is missing", lambda: read_lerobot(FOLDER)),
    ("lerobot filter", "mask='valid': needs an HDF5 file", lambda: read_demonstrations(good("set"), mask="valid")),
    ("lerobot JSON", "meta/info.json cannot be read", lambda: bytes_edited("set", half, INFO)),
    ("lerobot old", "convert_dataset_v21_to_v30", lambda: facts(lambda info: info.update(codebase_version="v2.1"))),
    ("lerobot shape", "must be a vector", lambda: facts(lambda info: info["features"]["action"].update(shape=[2, 2]))),
    ("lerobot size", "it must be 5 numbers for each frame", lambda: facts(
        lambda info: info["features"]["action"].update(shape=[5]))),
    ("lerobot camera", "the cameras are agentview", lambda: read_lerobot(good("set"), camera="front")),
    ("lerobot cameras", "choose one", lambda: facts(
        lambda info: info["features"].update({"observation.images.b": {"dtype": "video", "shape": [8, 8, 3]}}))),
    ("lerobot images", "stored as single images", lambda: facts(
        lambda info: info["features"]["observation.images.agentview"].update(dtype="image"))),
    ("lerobot truncated", f"{DATA} cannot be read", lambda: bytes_edited("set", half, DATA)),
    ("lerobot no data", "data has no Parquet file", lambda: removed(DATA)),
    ("lerobot column", "has no column action", lambda: framed(lambda table: table.drop_columns("action"))),
    ("lerobot NaN", "action of episode 0 has 2 values that are not finite",
     lambda: framed(column("action", second([None, float("nan")])))),
    ("lerobot range", "-3 at step 1, which is outside of [-1, 1]",
     lambda: framed(column("action", second([0.0, -3.0])))),
    ("lerobot ragged", "it must be 2 numbers for each frame", lambda: framed(column("action", second([0.0] * 3)))),
    ("lerobot frames", "data holds 7 frames, meta/episodes 8", lambda: framed(lambda table: table.slice(1))),
    ("lerobot order", "must count from 0", lambda: framed(lambda table: table.take([1, 0, 2, 3, 4, 5, 6, 7]))),
    ("lerobot no video", f"{VIDEO} is missing", lambda: removed(VIDEO)),
    ("lerobot video", f"{VIDEO} cannot be read", lambda: bytes_edited("set", half, VIDEO)),
    ("written twice", "exists already",
     lambda: write_demonstrations(good("set"), Demonstrations("reach", [episode()]))),
    ("written sizes", "demonstrations='reach': episode 1",
     lambda: write_demonstrations(FOLDER / "x.hdf5", Demonstrations("reach", [episode(), episode(state=2)]))),
    ("NaN in memory", "actions of episode 0 has 8 values that are not finite",
     lambda: Chunks.of(Demonstrations("reach", [episode()._replace(actions=NAN)] * 2))),
    ("steps in memory", "episode 0 has 4 steps of state and 3 actions",
     lambda: Chunks.of(Demonstrations("reach", [episode()._replace(actions=np.zeros((3, 2)))]))),
    ("layout", "must add up to 3", lambda: write_demonstrations(
        FOLDER / "x.hdf5", Demonstrations("reach", [episode()]), {"state": 2})),
    ("no source", "data.source=None", lambda: Chunks.load(ChunksConfig())),
    ("one episode", "demonstrations=1", lambda: split_episodes(1, 0.1, 0)),
    ("no run", "folder=", lambda: Normaliser.load(FOLDER)),
    *((f"{name}={value}", f"{name}={value}", functools.partial(ChunksConfig, **{name: value})) for name, value in [
        ("observe", 0), ("predict", 0), ("held_out", 0.5), ("floor", -1), ("eval_items", 0)]),
]]
