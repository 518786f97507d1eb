"""The explorer of episodes of any simulator: pictures, energies and outcome of a trained policy, step by step."""

import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from ..checks import whole
from ..compat import require
from ..figures.style import COLOURS
from ..policy.evaluation import FIRST_SEED
from ..policy.film import pictured_episode, write_episode
from ..policy.policies import FILE, load_policy
from ..policy.rollout import Actor, EpisodeResult
from ..policy.simulators import Simulator, make_simulator
from .controls import Explorer, integer_box, integer_slider, set_range
from .plots import theme_layout

__all__ = ["FilmedEpisode", "RobotExplorer", "RobotSettings", "film_of"]

MAX_STEPS, MAX_LENGTH, SIDE = 40, 10_000, 320  # steps of a prediction, steps of an episode, pixels of a picture


@dataclass(frozen=True)
class RobotSettings:
    """An episode, and what of it is shown."""

    seed: int = 0  # of the episode, from the first of an evaluation
    steps: int = 0  # of a prediction; 0: as the policy was trained
    step: int = 0  # that is shown


class FilmedEpisode(NamedTuple):
    """An episode with a picture before each step and after the last."""

    settings: RobotSettings
    result: EpisodeResult
    pictures: list[UInt8[np.ndarray, "size size 3"]]

    @property
    def step(self) -> int:
        """The step that is shown."""
        return min(self.settings.step, len(self.pictures) - 1)


def film_of(
    policy: Actor,  # that acts
    simulator: Simulator,  # in which it acts, with a picture
    settings: RobotSettings,  # of the episode
    size: int = SIDE,  # pixels along each side
) -> FilmedEpisode:
    """Run an episode once, and keep its pictures; equal settings give equal episodes."""
    return FilmedEpisode(settings, *pictured_episode(policy, simulator, FIRST_SEED + settings.seed, size=size))


class RobotExplorer(Explorer):
    """Explorer of episodes of a trained policy in its simulator, such as Lift of robosuite; `view` displays it."""

    interval = 50  # milliseconds: 20 steps a second, as a film

    def __init__(
        self,
        make_policy: Callable[[int], Actor],  # from the steps of a prediction to the policy; 0: as trained
        simulator: Simulator,  # in which it acts, with a picture
        settings: RobotSettings | None = None,  # initial settings; None: the defaults
        theme: str = "light",  # or "dark"
    ):
        self.simulator = simulator
        self.policy = lru_cache(maxsize=4)(make_policy)
        self._film = lru_cache(maxsize=4)(lambda seed, steps: film_of(
            self.policy(steps), simulator, RobotSettings(seed, steps)))
        controls = {
            "seed": integer_box("seed", 9999),
            "steps": integer_slider("think steps", 0, MAX_STEPS, "steps of a prediction; 0: as the policy was trained"),
            "step": integer_slider("step", 0, 1, "the step that is shown"),
        }
        super().__init__(settings or RobotSettings(), controls, theme)

    @classmethod
    def from_run(
        cls,
        folder: Path | str,  # written by `ebwm policy train`
        simulator: str | None = None,  # its name; None: that of the demonstrations
        theme: str = "light",  # or "dark"
    ) -> "RobotExplorer":
        """An explorer of a trained policy; all simulators but "reach" need the packages of `ebwm[policy]`."""
        make_policy = lambda steps: load_policy(folder, **({"steps": steps} if steps else {}))
        image = make_policy(0).model.shape.image
        name = simulator or json.loads((Path(folder) / FILE).read_text(encoding="utf-8"))["simulator"]
        return cls(make_policy, make_simulator(name, **({"image": image} if image else {})), theme=theme)

    def compute(
        self,
        settings: RobotSettings,  # of the episode
    ) -> FilmedEpisode:
        """Run the episode, unless it has been run just before."""
        whole("seed", settings.seed, 0, 9999)
        whole("steps", settings.steps, 0, MAX_STEPS)
        whole("step", settings.step, 0, MAX_LENGTH)
        return self._film(settings.seed, settings.steps)._replace(settings=settings)

    def save_film(
        self,
        path: Path | str,  # file to write, which ends in .mp4
        rate: int = 20,  # frames a second; one frame a step
    ) -> None:
        """Write a film of the shown episode, from the pictures that are there."""
        write_episode(self.result.pictures, self.result.result, Path(path), rate)

    def draw(
        self,
        result: FilmedEpisode,  # of `compute`
        theme: str,  # "light" or "dark"
    ) -> dict[str, dict[str, Any] | None]:
        """The picture, and the energy of the chunks by time if they have any."""
        chunks = _energies(result)
        return {"picture": _picture_figure(result, theme), "energy": _energy_figure(result, theme) if chunks else None}

    def summary(
        self,
        result: FilmedEpisode,  # of `compute`
    ) -> tuple[dict[str, str], str]:
        """Outcome and costs."""
        found, shown = result.result, [chunk for chunk in result.result.chunks if chunk["at"] <= result.step]
        lines = {"Outcome": found.outcome, "Steps": str(found.steps), "Retries": str(found.retries),
                 "Predictions": str(len(found.chunks)), "Seconds": f"{found.seconds:.3g}"}
        if shown and shown[-1].get("energy") is not None:
            lines[f"Energy of the chunk from step {shown[-1]['at']}"] = f"{shown[-1]['energy']:.4g}"
        return lines, f"{self.simulator.name}; the seed of the episode is {found.seed}"

    def warning(
        self,
        result: FilmedEpisode,  # of `compute`
    ) -> str:
        """Why an episode ended by an error."""
        return result.result.message

    def set_controls(self) -> None:
        """Set the values; the time step ends with the episode."""
        set_range(self.controls["step"], 0, len(self.result.pictures) - 1, self.result.step)
        for name in ("seed", "steps"):
            self.controls[name].value = getattr(self.settings, name)

    def shown_value(
        self,
        name: str,  # of a control
    ) -> Any:
        """The value that a control should have."""
        return self.result.step if name == "step" else getattr(self.settings, name)


# Figures


def _energies(episode: FilmedEpisode) -> list[tuple[int, float]]:
    return [(chunk["at"], chunk["energy"]) for chunk in episode.result.chunks if chunk.get("energy") is not None]


def _picture_figure(episode: FilmedEpisode, theme: str) -> dict[str, Any]:
    """The picture of the shown step, as a JPEG."""
    kept = io.BytesIO()
    require("PIL.Image", "figures").fromarray(episode.pictures[episode.step]).save(kept, "JPEG", quality=90)
    source = f"data:image/jpeg;base64,{base64.b64encode(kept.getvalue()).decode()}"
    axis = dict(visible=False, fixedrange=True)
    layout = dict(**theme_layout(theme), width=SIDE + 280, height=SIDE + 130, margin=dict(l=10, r=10, t=10, b=10),
                  xaxis=axis, yaxis=axis)
    return dict(data=[dict(type="image", source=source, hoverinfo="skip", zsmooth="fast")], layout=layout)


def _energy_figure(episode: FilmedEpisode, theme: str) -> dict[str, Any]:
    """Energy of the executed chunks by time, with the step that is shown."""
    palette, (at, energies) = COLOURS[theme], zip(*_energies(episode), strict=True)
    plain, last = dict(gridcolor=palette["grid"], zeroline=False), len(episode.pictures)
    line = dict(type="scatter", x=[*at, last], y=[*energies, energies[-1]], mode="lines", name="executed chunk",
                line=dict(color=palette["ebt"], shape="hv", width=2), hovertemplate="step %{x}: %{y:.4g}<extra></extra>")
    now = dict(type="line", x0=episode.step, x1=episode.step, yref="paper", y0=0, y1=1,
               line=dict(color=palette["transformer"], width=2))
    layout = dict(**theme_layout(theme), width=SIDE + 280, height=220, margin=dict(l=60, r=10, t=20, b=44), shapes=[now],
                  xaxis=dict(**plain, title=dict(text="time step"), range=[-1, last]),
                  yaxis=dict(**plain, title=dict(text="energy of the chunk")))
    return dict(data=[line], layout=layout)
