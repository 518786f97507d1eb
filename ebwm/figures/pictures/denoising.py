"""The picture of the figure `denoising`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from ebwm.compat import require
from ebwm.data.images import from_patches
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.denoise import KINDS, PatchRows, level_noise
from ebwm.figures.experiment.tables import select
from ebwm.figures.style import colour

ROLES = {"ebt": "ebt", "one_pass": "transformer", "dit": "diffusion"}
DASHES = {"updates": "-", "time": "--"}
TRAININGS = {"paper": "As in the paper", "one": "Trained at one level", "all": "Trained at all levels"}
NOISES = {"paper": {"dit": "below", "": "one"}, "one": {"": "one"}, "all": {"": "all"}}  # of a training, by model
PROTOCOLS = {"paper": "paper's DiT,\nits passes", "paper_best": "paper's DiT,\nbest passes", "one_level": "DiT,\none level",
             "all_levels": "DiT, all\nlevels", "one_level_one_pass": "one pass,\none level",
             "all_levels_one_pass": "one pass,\nall levels"}


class Denoised(NamedTuple):
    """Tables and statistics of one source of images."""

    images: str  # its name, as for `image_splits`
    made: Mapping[str, pd.DataFrame]  # tables of all seeds
    differences: pd.DataFrame  # rows with protocol, budget, level and an interval
    floor: Mapping[int, float]  # PSNR of the noisy images by level
    test: PatchRows  # test images


def draw(
    sources: Sequence[Denoised],  # of images
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """Differences between the EBT's PSNR and that of others, for each source of images."""
    figure, column = require("matplotlib.pyplot", "figures").subplots(
        len(sources), 1, figsize=(9.6, 0.9 + 3.1 * len(sources)), squeeze=False)
    levels = (parameters["level"], 2 * parameters["level"] + 1)
    for panel, found in zip(column.ravel(), sources, strict=True):
        _differences(panel, found.differences, levels)
        panel.set(title=f"{found.images.capitalize()}: EBT's PSNR minus that of others", ylabel="difference (dB)")
    panels.legend_below(figure, column[0, 0], 4)
    _heading(figure, f"Denoised {' and '.join(found.images for found in sources)}", parameters,
             "bars: 95 % intervals over seeds and images")
    return figure


def draw_passes(
    sources: Sequence[Denoised],  # the first one in full, others without the panels by passes
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """PSNR by noise level for each training, and by forward passes."""
    heights = [9] + [3.4] * (len(sources) - 1)
    figure = require("matplotlib.pyplot", "figures").figure(figsize=(10, sum(heights)))
    blocks = np.ravel(figure.subfigures(len(sources), 1, height_ratios=heights))
    level = parameters["level"]
    for place, (block, found) in enumerate(zip(blocks, sources, strict=True)):
        grid = block.subplots(1 if place else 3, 3, squeeze=False, sharey="row")
        for panel, (protocol, title) in zip(grid[0], TRAININGS.items(), strict=True):
            _levels(panel, found.made["errors"], protocol, found.floor, parameters)
            panel.set(title=title, xlabel="noise level of the test (of 1,000)")
        for row, asked in zip(grid[1:], (level, 2 * level + 1), strict=False):
            _passes(row, select(found.made["curves"], budget="updates", level=asked), asked)
        for row in grid:
            row[0].set_ylabel("PSNR (dB)")
        _heading(block, f"Denoised {found.images}", parameters, "lines: means over seeds; shaded: noise levels of the training")
    _legend(figure, "time" in set(sources[0].made["errors"].budget))
    return figure


def draw_images(
    sources: Sequence[Denoised],  # of images
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """Denoised images of each source."""
    figure = require("matplotlib.pyplot", "figures").figure(figsize=(9.6, 4.4 * len(sources)))
    for block, found in zip(np.ravel(figure.subfigures(len(sources), 1)), sources, strict=True):
        _images(block, found, parameters)
    return figure


def _heading(figure: Any, what: str, parameters: Mapping[str, Any], how: str) -> None:
    panels.heading(figure, f"{what}: {parameters['updates']} updates of the EBT", parameters["seeds"], how)


def _legend(figure: Any, timed: bool) -> None:
    """Colours of the models and dashes of the budgets, below all panels."""
    line = require("matplotlib.lines", "figures").Line2D
    made = [line([], [], color=colour(ROLES[kind]), label=name) for kind, name in KINDS.items()]
    made += [line([], [], color=colour("floor"), ls=":", lw=1.2, label="noisy image")]
    if timed:
        made += [line([], [], color=colour("text"), ls=dashes, label=f"equal {budget}") for budget, dashes in DASHES.items()]
    figure.legend(handles=made, loc="outside lower center", ncols=len(made))


def _levels(panel: Any, errors: pd.DataFrame, protocol: str, floor: Mapping[int, float], parameters: Mapping[str, Any]) -> None:
    noises = NOISES[protocol]
    for kind in KINDS:
        for budget, dashes in DASHES.items():
            part = select(errors, model=kind, noise=noises.get(kind, noises[""]), budget=budget, way="best")
            if len(part):
                means = part.groupby(["seed", "level"]).mse.mean().reset_index()
                means["psnr"] = 10 * np.log10(4 / means.mse)
                panels.lines(panel, means, "level", "psnr", ROLES[kind], linestyle=dashes)
    panel.plot(list(floor), list(floor.values()), color=colour("floor"), ls=":", lw=1.2)
    first, last = parameters["level"], max(parameters["test_levels"])
    trained = {"paper": (0, first), "one": (first - 3, first + 3), "all": (0, last)}[protocol]
    panel.axvspan(*trained, color=colour("floor"), alpha=0.12, lw=0)


def _passes(row: Any, curves: pd.DataFrame, level: int) -> None:
    """PSNR by forward passes, a panel for each training."""
    for panel in row[1:]:
        panel.sharex(row[0])
    for panel, (protocol, noises) in zip(row, NOISES.items(), strict=True):
        for (kind, noise, way), part in curves.groupby(["model", "noise", "way"]):
            if noise != noises.get(kind, noises[""]):
                continue
            means = part.groupby("passes").test.mean()
            style = dict(mfc=colour("background")) if way == "paper" else {}
            panel.plot(means.index, means, "o-", color=colour(ROLES[kind]), ms=4, lw=1.4, **style)
        panel.set(xscale="log", xlabel="forward passes")
        panel.set_title(f"{TRAININGS[protocol]}, level {level}", fontsize=10)
        panels.round_ticks(panel.xaxis, (1, 3))
    row[0].text(0.98, 0.03, "open: with as many passes as in the paper", transform=row[0].transAxes, ha="right", fontsize=7.5)


def _differences(panel: Any, rows: pd.DataFrame, levels: tuple[int, int]) -> None:
    names = [name for name in PROTOCOLS if name in set(rows.protocol)]
    styles = {(levels[0], "updates"): ("ebt", "o"), (levels[0], "time"): ("ebt", "s"),
              (levels[1], "updates"): ("gru", "o"), (levels[1], "time"): ("gru", "s")}
    for shift, ((level, budget), (role, mark)) in zip((-0.27, -0.09, 0.09, 0.27), styles.items(), strict=True):
        part = select(rows, level=str(level), budget=budget).set_index("protocol").reindex(names)
        if part.value.isna().all():
            continue
        panels.error_bars(panel, np.arange(len(names)) + shift, part, role, fmt=mark, ms=5, capsize=2,
                          label=f"level {level}, equal {budget}")
    panels.zero(panel)
    panels.named_ticks(panel.xaxis, [PROTOCOLS[name] for name in names], fontsize=8.5)


def _images(figure: Any, found: Denoised, parameters: Mapping[str, Any]) -> None:
    seed, level, test, shown = parameters["seeds"][0], 2 * parameters["level"] + 1, found.test, found.made["shown"]
    clean = test.whole(3)
    columns = {"noisy": level_noise(test.whole(parameters["eval_items"]), level, seed)[:3]}
    for noise in ("one", "all"):
        for kind, name in KINDS.items():
            part = select(shown, seed=seed, level=level, model=kind, noise=noise, budget="updates")
            columns[f"{name},\n{noise} level{'s' * (noise == 'all')}"] = torch.tensor(np.stack(part.pixels)).float().reshape(len(part), *clean.shape[1:])
    columns["clean"] = clean
    grid = figure.subplots(len(clean), len(columns), squeeze=False)
    for column, (name, patches) in zip(grid.T, columns.items(), strict=True):
        column[0].set_title(name, fontsize=8, loc="center", weight="normal")
        for panel, image in zip(column, from_patches(patches, test.patch, test.images.shape), strict=True):
            panel.imshow((image.permute(1, 2, 0).clamp(-1, 1) + 1) / 2, cmap="gray", vmin=0, vmax=1)
            panel.set(xticks=[], yticks=[])
            panel.grid(False)
    figure.suptitle(f"{found.images.capitalize()}: test images at noise level {level} (seed {seed}), denoised by models "
                    "trained at one level and at all", fontsize=10)
