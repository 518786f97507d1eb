"""Films and JSON lines of episodes in which an object is dropped: `python -m benchmarks.recovery`.

The policies of the first seed of the figure policy_recovery are trained again, with the settings on record. All run the
same episodes with the figure's first fault. recovery.jsonl in figures/benchmarks has a line for each episode, with the
energy of each predicted chunk, and recovery.mp4 shows one episode of all policies side by side: the first one that
only some of them solve. recovery.md says how many episodes end as on record.
"""

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw, ImageFont

from benchmarks.__main__ import FOLDER
from ebwm.figures.experiment.robots import KINDS, chosen_settings, demonstrated, episode_rows, episodes_of, windows
from ebwm.figures.manifest import load_manifest
from ebwm.files import write_whole
from ebwm.policy.film import STRIP, compose, framed, pictured_episode, write_film
from ebwm.policy.policies import Policy
from ebwm.policy.rollout import EpisodeResult
from ebwm.policy.simulators import Disturbance, make_simulator
from ebwm.policy.training import fit_policy

FIGURE = "policy_recovery"
ENDS = {"success": (86, 180, 233), "failure": (230, 159, 0)}
COMPARED = ("success", "steps", "retries")  # columns of the record
SIDE, TITLE, BORDER = 240, 24, 4  # pixels of a picture, of a title and of the frame of an outcome
COLUMNS = 3  # pictures in a row
RATE, HELD = 20, 2  # frames a second; seconds for which the end is shown

Picture = np.ndarray  # [height width 3], bytes


def trained(
    parameters: Mapping[str, Any],  # of the figure
    trials: Mapping[str, Any],  # that chose the settings
    seed: int,
) -> dict[str, Policy]:
    """The policies of a seed, by kind."""
    data = windows(demonstrated(parameters["simulator"], parameters["demonstrations"], seed), seed)
    return {kind: fit_policy(data, chosen_settings(parameters, trials, kind), seed).policy for kind in KINDS}


def agreement(
    found: Mapping[str, Sequence[EpisodeResult]],  # by kind
    recorded: pd.DataFrame,  # episodes of the same seed and fault on record
) -> dict[str, int]:  # by kind
    """How many episodes have the success, the steps and the retries of the record."""
    by_episode = recorded.set_index(["model", "episode"])[list(COMPARED)]
    rows = {kind: episode_rows(results).set_index("episode")[list(COMPARED)] for kind, results in found.items()}
    return {kind: int((part == by_episode.loc[kind].loc[part.index]).all(axis=1).sum()) for kind, part in rows.items()}


def lines(
    found: Mapping[str, Sequence[EpisodeResult]],  # by kind
) -> str:  # JSON lines
    """The episodes without times, which differ between runs."""
    timeless = lambda chunk: {name: value for name, value in chunk.items() if name != "seconds"}
    rows = [{"policy": kind, **dataclasses.asdict(result), "chunks": [*map(timeless, result.chunks)]}
            for kind, results in found.items() for result in results]
    unused = {"seconds", "trace", "message"}
    return "".join(json.dumps({name: row[name] for name in row if name not in unused}) + "\n" for row in rows)


def told_apart(
    found: Mapping[str, Sequence[EpisodeResult]],  # by kind
) -> int:
    """The seed of the first episode that some policies solve and others do not; if there is none, of the first one."""
    columns = list(zip(*found.values(), strict=True))
    differ = (column[0].seed for column in columns if len({result.success for result in column}) > 1)
    return next(differ, columns[0][0].seed)


def panels(
    policies: Mapping[str, Policy],  # by kind
    simulator: str,  # name
    seed: int,  # of the episode
    disturbance: Disturbance,
) -> list[Picture]:  # pictures of all policies, in a grid
    """Frames of one episode by each policy; one that has ended stays at its last picture, framed."""
    shown = []
    for kind, policy in policies.items():
        with closing(make_simulator(simulator)) as made:
            result, frames = pictured_episode(policy, made, seed, disturbance, SIDE)
        frames = [_as_high(frame) for frame in compose(frames, result)]
        ended = framed(frames[-1], ENDS.get(result.outcome, ENDS["failure"]), BORDER)
        shown.append([_titled(frame, KINDS[kind]) for frame in [*frames, ended]])
    length = max(map(len, shown)) + RATE * HELD
    return [_grid([frames[min(at, len(frames) - 1)] for frames in shown]) for at in range(length)]


def _grid(pictures: Sequence[Picture]) -> Picture:
    """Pictures of one size in rows of COLUMNS."""
    places = [*pictures, *[np.zeros_like(pictures[0])] * (-len(pictures) % COLUMNS)]
    rows = [np.concatenate(places[start:start + COLUMNS], axis=1) for start in range(0, len(places), COLUMNS)]
    return np.concatenate(rows)


def _as_high(frame: Picture) -> Picture:
    """A frame with room for the strip of energies, which not all policies have."""
    return np.pad(frame, ((0, SIDE + SIDE // STRIP - len(frame)), (0, 0), (0, 0)))


def _titled(frame: Picture, text: str) -> Picture:
    image = Image.new("RGB", (frame.shape[1], len(frame) + TITLE))
    image.paste(Image.fromarray(frame), (0, TITLE))
    ImageDraw.Draw(image).text((6, 4), text, fill="white", font=ImageFont.load_default(14))
    return np.asarray(image)


def report(
    parameters: Mapping[str, Any],  # of the figure
    found: Mapping[str, Sequence[EpisodeResult]],  # by kind
    same: Mapping[str, int],  # of `agreement`
    shown: int,  # seed of the episode in the film
) -> str:  # Markdown
    """What the files show."""
    rows = [f"| {KINDS[kind]} | {sum(one.success for one in results)} | {sum(one.retries for one in results)} "
            f"| {same[kind]} of {len(results)} |" for kind, results in found.items()]
    about = (f"{parameters['simulator']} with the fault `{parameters['faults'][0]}`, policies of seed "
             f"{parameters['seeds'][0]}. [Film](recovery.mp4) of the episode of seed {shown}: frames are blue where it "
             "succeeds, orange where it fails. [Every episode as JSON lines](recovery.jsonl).")
    head = "| policy | successes | retries | same success, steps and retries as on record |"
    return "\n".join([about, "", head, "| --- " * 4 + "|", *rows]) + "\n"


def write(
    parameters: Mapping[str, Any],  # of the figure
    trials: Mapping[str, Any],  # that chose the settings
    recorded: pd.DataFrame,  # episodes of the figure on record
    out: Path,  # folder of the results
) -> None:
    """Train the policies, run their episodes, and write the files."""
    seed, fault, simulator = parameters["seeds"][0], parameters["faults"][0], parameters["simulator"]
    disturbance, policies = Disturbance(fault=fault), trained(parameters, trials, seed)
    found = {kind: episodes_of(policy, simulator, seed, parameters["episodes"], disturbance=disturbance)
             for kind, policy in policies.items()}
    shown, same = told_apart(found), agreement(found, recorded.query("seed == @seed and fault == @fault"))
    texts = {"recovery.jsonl": lines(found), "recovery.md": report(parameters, found, same, shown)}
    out.mkdir(parents=True, exist_ok=True)
    write_film(panels(policies, simulator, shown, disturbance), out / "recovery.mp4", RATE)
    for name, text in texts.items():
        write_whole(out / name, lambda draft, text=text: draft.write_text(text, encoding="utf-8"))
    print(texts["recovery.md"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recovery", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results")
    given, figures = parser.parse_args(), FOLDER.parent
    torch.set_num_threads(1)
    trials = json.loads((figures / "policy_tasks/tuning.json").read_text(encoding="utf-8"))
    parameters = load_manifest(figures / FIGURE)["parameters"]["effective"]
    write(parameters, trials, pd.read_parquet(figures / FIGURE / "episodes.parquet"), given.out)


if __name__ == "__main__":
    main()
