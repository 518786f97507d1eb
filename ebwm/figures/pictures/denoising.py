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
    sources: Sequence[Denoised],  # the first one in full, others without the panels by passes
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """PSNR by level for each training, by passes, differences, and denoised images, of each source."""
    heights = [13 if not place else 9.8 for place in range(len(sources))]
    figure = require("matplotlib.pyplot", "figures").figure(figsize=(10, sum(heights)))
    blocks = np.ravel(figure.subfigures(len(sources), 1, height_ratios=heights))
    for place, (block, found) in enumerate(zip(blocks, sources, strict=True)):
        top, bottom = block.subfigures(2, 1, height_ratios=[2 + (not place), 1.15])
        _statistics(top, found, not place, parameters)
        _images(bottom, found, parameters)
    return figure


def _statistics(top: Any, found: Denoised, full: bool, parameters: Mapping[str, Any]) -> None:
    """PSNR by level, in full also by passes, and differences."""
    grid, made = top.add_gridspec(2 + full, 6), found.made
    titles = {"paper": "As in the paper", "one": "All trained at one level", "all": "All trained at all levels"}
    for place, (protocol, title) in enumerate(titles.items()):
        panel = top.add_subplot(grid[0, 2 * place:2 * place + 2])
        _levels(panel, made["errors"], protocol, found.floor, parameters)
        panel.set(title=title, xlabel="noise level of the test (of 1,000)", ylabel="PSNR (dB)" if not place else None)
        if not place:
            panel.legend(fontsize=8)
    level = parameters["level"]
    for place, asked in enumerate((level, 2 * level + 1) if full else ()):
        panel = top.add_subplot(grid[1, 3 * place:3 * place + 3])
        _passes(panel, select(made["curves"], budget="updates", level=asked))
        panel.set(title=f"By forward passes, level {asked}", xlabel="forward passes", ylabel="PSNR (dB)")
        if not place:
            panel.legend(fontsize=7.5, ncols=2)
    _differences(top.add_subplot(grid[1 + full, :]), found.differences, (level, 2 * level + 1))
    what = f"Denoised {found.images}: {parameters['updates']} updates of the EBT"
    stand_in = panels.STAND_IN if found.images == "digits" else "small models"
    panels.heading(top, what, parameters["seeds"], "bars: 95 % intervals over seeds and images", stand_in)


def _levels(panel: Any, errors: pd.DataFrame, protocol: str, floor: Mapping[int, float], parameters: Mapping[str, Any]) -> None:
    noise = dict.fromkeys(KINDS, "one" if protocol == "paper" else protocol)
    if protocol == "paper":
        noise["dit"] = "below"
    for kind, name in KINDS.items():
        for budget, dashes in DASHES.items():
            part = select(errors, model=kind, noise=noise[kind], budget=budget, way="best")
            if len(part):
                means = part.groupby(["seed", "level"]).mse.mean().reset_index()
                means["psnr"] = 10 * np.log10(4 / means.mse)
                panels.lines(panel, means, "level", "psnr", ROLES[kind], name if budget == "updates" else "", linestyle=dashes)
    panel.plot(list(floor), list(floor.values()), color=colour("floor"), ls=":", lw=1.2, label="noisy")
    first, last = parameters["level"], max(parameters["test_levels"])
    trained = {"paper": (0, first), "one": (first - 3, first + 3), "all": (0, last)}[protocol]
    panel.axvspan(*trained, color=colour("floor"), alpha=0.12, lw=0)


def _passes(panel: Any, curves: pd.DataFrame) -> None:
    marks = {"one": "-", "below": "-.", "all": "--"}
    for (kind, noise, way), part in curves.groupby(["model", "noise", "way"]):
        name = f"{KINDS[kind]}, {noise}" + (", as in the paper" if way == "paper" else "")
        dashes, label = (":", name) if way == "paper" else (marks[noise], name)
        means = part.groupby("passes").test.mean()
        panel.plot(means.index, means, "o" + dashes, color=colour(ROLES[kind]), ms=3.5, lw=1.4, label=label)
    panel.set_xscale("log")
    panels.round_ticks(panel.xaxis, (1, 3))


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
    panel.set(title="EBT's PSNR less that of others", ylabel="difference (dB)")
    panel.legend(fontsize=8, ncols=2)


def _images(figure: Any, found: Denoised, parameters: Mapping[str, Any]) -> None:
    seed, level, test, shown = parameters["seeds"][0], 2 * parameters["level"] + 1, found.test, found.made["shown"]
    clean = test.whole(3)
    columns = {"noisy": level_noise(test.whole(parameters["eval_items"]), level, seed)[:3]}
    for noise in ("one", "all"):
        for kind, name in KINDS.items():
            part = select(shown, seed=seed, level=level, model=kind, noise=noise, budget="updates")
            columns[f"{name}\n{noise}"] = torch.tensor(np.stack(part.pixels)).float().reshape(len(part), *clean.shape[1:])
    columns["clean"] = clean
    grid = figure.subplots(len(clean), len(columns), squeeze=False)
    for column, (name, patches) in zip(grid.T, columns.items(), strict=True):
        column[0].set_title(name, fontsize=8, loc="center", weight="normal")
        for panel, image in zip(column, from_patches(patches, test.patch, test.images.shape), strict=True):
            panel.imshow((image.permute(1, 2, 0).clamp(-1, 1) + 1) / 2, cmap="gray", vmin=0, vmax=1)
            panel.set(xticks=[], yticks=[])
            panel.grid(False)
    figure.suptitle(f"Three test images at level {level} (seed {seed}); trained at one level, and at all", fontsize=10)
