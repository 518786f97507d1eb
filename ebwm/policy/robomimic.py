"""Demonstrations as HDF5 files of robomimic: the official ones, and those written here."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ebwm.checks import suggestion
from ebwm.compat import require
from ebwm.files import write_whole
from ebwm.policy.demonstrations import Demonstrations, Episode
from ebwm.policy.reading import Source, check_demonstrations, check_layout, state_dim_of

__all__ = ["LOW_DIM", "read_robomimic", "write_robomimic"]

LOW_DIM = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "object")  # state of the official files
TASKS = {"Can": "PickPlaceCan", "Square": "NutAssemblySquare"}  # names that differ from those of simulators
ROBOSUITE, GYM = 1, 2  # robomimic's types of environments
CAMERA = "agentview"  # of the images that are written


# Write


def write_robomimic(
    path: Path,  # of the file
    demonstrations: Demonstrations,
    layout: dict[str, int] | None = None,  # sizes of the parts of a state by name; None: one part, "state"
    masks: dict[str, Sequence[int]] | None = None,  # numbers of the episodes of each filter, by name
    camera: str = CAMERA,  # name of the camera of images
) -> None:
    """Write a file of robomimic; the same demonstrations give the same bytes.

    Episodes hold no observation after the last action, so the file has no `next_obs`; `states` is empty. The vectors of
    an instruction are `language` of an episode, which robomimic ignores.
    """
    h5py = require("h5py", "policy")
    check_demonstrations(demonstrations)
    layout = check_layout(layout, state_dim_of(demonstrations))

    def write(draft: Path) -> None:
        with h5py.File(draft, "w", libver=("earliest", "v110"), track_order=False) as file:
            data = file.create_group("data")
            data.attrs["env_args"] = json.dumps(_environment(demonstrations.simulator, layout))
            data.attrs["total"] = sum(len(episode.actions) for episode in demonstrations.episodes)
            for number, episode in enumerate(demonstrations.episodes):
                _write_episode(data.create_group(f"demo_{number}"), episode, layout, camera)
            for name, numbers in (masks or {}).items():
                file[f"mask/{name}"] = np.array([f"demo_{number}".encode() for number in numbers], dtype="S")

    write_whole(path, write)


def _environment(simulator: str, layout: dict[str, int]) -> dict[str, Any]:
    """Robomimic's arguments of an environment, with the simulator and the layout of its states."""
    kind, _, task = simulator.partition(":")
    known = kind == "robosuite"
    return {"env_name": TASKS.get(task, task) if known else simulator, "type": ROBOSUITE if known else GYM,
            "env_kwargs": {}, "simulator": simulator, "layout": layout}


def _write_episode(group: Any, episode: Episode, layout: dict[str, int], camera: str) -> None:
    """Write an episode; its last reward is 1 if it succeeded."""
    steps = len(episode.actions)
    last = np.arange(steps) == steps - 1
    group.attrs.update(num_samples=steps, success=episode.success, seed=episode.seed)
    group["actions"] = episode.actions
    group["rewards"] = (last & episode.success).astype(np.float64)
    group["dones"] = last.astype(np.int64)
    group["states"] = np.zeros((steps, 0))
    obs, ends = group.create_group("obs"), np.cumsum([*layout.values()]).tolist()
    for (name, size), end in zip(layout.items(), ends, strict=True):
        obs[name] = episode.observations["state"][:, end - size:end]
    if episode.language is not None:
        group["language"] = episode.language
    if "image" in episode.observations:
        obs.create_dataset(f"{camera}_image", data=episode.observations["image"], compression="gzip")


# Read


def read_robomimic(
    path: Path,  # of the file
    layout: dict[str, int] | None = None,  # observations that form a state, and sizes; {}: none; None: the file's, or LOW_DIM
    mask: str | None = None,  # name of a filter of the file, such as "valid"; None: all episodes
    camera: str | None = None,  # whose images to read; None: the only one, if there are images; "": none
    bounded: bool = True,  # refuse actions outside of [-1, 1]
) -> Demonstrations:
    """Read a file of robomimic; a bad file is a `UsageError` that names the entry."""
    source = Source(Path(path), bounded)
    h5py = require("h5py", "policy")
    if not source.path.is_file():
        raise source.refused("is not a file", "give an HDF5 file of robomimic")
    with source.reading(), h5py.File(source.path, "r") as file:
        data = _group(source, file, "data")
        environment = _facts(source, data)
        known = (layout, environment.get("layout"), dict.fromkeys(LOW_DIM))
        sizes = next(sizes for sizes in known if sizes is not None)
        names = _names(source, file, mask)
        episodes = [_read_episode(source, _group(source, data, name), sizes, camera) for name in names]
        return source.demonstrations(_simulator(environment), episodes)


def _entry(source: Source, group: Any, name: str, remedy: str) -> tuple[Any, str]:
    """An entry of a group, and its place."""
    place = f"{group.name}/{name}".lstrip("/")
    if name not in group:
        raise source.refused(f"{place} is missing; there are {', '.join(group) or 'no entries'}",
                             suggestion(name, group) or remedy)
    return group[name], place


def _group(source: Source, group: Any, name: str) -> Any:
    entry, place = _entry(source, group, name, "is it a file of robomimic?")
    if not hasattr(entry, "keys"):
        raise source.refused(f"{place} is an array", "it must be a group, as in the files of robomimic")
    return entry


def _array(source: Source, group: Any, name: str, remedy: str = "is it a file of robomimic?") -> np.ndarray:
    entry, place = _entry(source, group, name, remedy)
    if not hasattr(entry, "dtype"):
        raise source.refused(f"{place} is a group", "it must be an array")
    return entry[()]


def _facts(source: Source, data: Any) -> dict[str, Any]:
    """The arguments of the environment; none if the file has none."""
    try:
        found = json.loads(data.attrs.get("env_args", "{}"))
    except (ValueError, TypeError) as error:
        raise source.refused(f"the attribute env_args of data is not JSON ({error})", "write the file again") from None
    return found if isinstance(found, dict) else {}


def _simulator(environment: dict[str, Any]) -> str:
    """Name of the simulator."""
    task = str(environment.get("env_name", "unknown"))
    names = {theirs: ours for ours, theirs in TASKS.items()}
    official = f"robosuite:{names.get(task, task)}" if environment.get("type") == ROBOSUITE else task
    return environment.get("simulator", official)


def _names(source: Source, file: Any, mask: str | None) -> list[str]:
    """Names of the episodes, by their number."""
    known = [name for name in file["data"] if name.rpartition("_")[2].isdecimal()]
    if mask is None:
        return sorted(known, key=_number)
    masks = file.get("mask", {})
    if mask not in masks:
        raise source.refused(f"mask/{mask} is missing; the filters are {', '.join(masks) or 'none'}",
                             suggestion(mask, masks) or "mask=None reads all episodes")
    names = list(dict.fromkeys(name.decode() for name in masks[mask][()]))
    if missing := [name for name in names if name not in known]:
        raise source.refused(f"mask/{mask} names {missing[0]}, which is missing in data", "write the filter again")
    return names


def _number(name: str) -> int:
    """The number in the name of an episode."""
    return int(name.rpartition("_")[2])


def _read_episode(source: Source, group: Any, layout: dict[str, int | None], camera: str | None) -> Episode:
    place, obs = group.name.lstrip("/"), _group(source, group, "obs")
    actions = source.actions(f"{place}/actions", _array(source, group, "actions"))
    if (count := int(group.attrs.get("num_samples", len(actions)))) != len(actions):
        raise source.refused(f"{place} has num_samples={count} and {len(actions)} actions", "write the episode again")
    remedy = "name the observations that form a state in layout"
    parts = [source.numbers(f"{place}/obs/{name}", _array(source, obs, name, remedy), size)
             for name, size in layout.items()]
    if len({len(part) for part in parts}) > 1:
        lengths = {name: len(part) for name, part in zip(layout, parts, strict=True)}
        raise source.refused(f"{place}/obs has the numbers of steps {lengths}", "they must be equal")
    observations = {"state": np.concatenate(parts, 1)} if parts else {}
    if name := _image(source, obs, camera):
        observations["image"] = _array(source, obs, name)
    rewards = source.numbers(f"{place}/rewards", _array(source, group, "rewards")) if "rewards" in group else np.ones(1)
    success = bool(group.attrs.get("success", (rewards > 0).any()))
    language = _array(source, group, "language") if "language" in group else None
    seed = int(group.attrs.get("seed", _number(group.name)))
    return source.episode(place, observations, actions, success, seed, language)


def _image(source: Source, obs: Any, camera: str | None) -> str:
    """Name of the images of a camera, or nothing."""
    if camera is not None:
        return camera and f"{camera}_image"
    found = [name for name in obs if name.endswith("_image")]
    if len(found) > 1:
        cameras = [name.removesuffix("_image") for name in found]
        raise source.refused(f"{obs.name.lstrip('/')} has images of {', '.join(cameras)}",
                             f"choose one, as in camera={cameras[0]!r} or --camera {cameras[0]}; '' for none")
    return found[0] if found else ""
