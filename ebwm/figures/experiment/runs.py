"""The experiment of a figure: its record, learners, training, jobs by seed, and declared trials."""

import copy
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor
from tqdm.std import tqdm

from ebwm import checks, settings
from ebwm.data.tasks import ClipsConfig, load_data
from ebwm.data.video import trivial_baselines
from ebwm.evaluation.cost import flops
from ebwm.figures.errors import FigureError
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.tuning import SEED, Search, make_trials, trials_beyond, write_trials
from ebwm.figures.record import Record
from ebwm.figures.trials import BEYOND, TUNING, by_kind
from ebwm.files import write_json
from ebwm.training.configuration import Config, ModelConfig, OptimiserConfig, RecipeConfig, WalkConfig
from ebwm.training.learner import Learner, batches_of, make_learner
from ebwm.training.trainer import fit

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["Experiment", "baselines_of"]

SHAPE = ("dim", "depth", "heads")


class Experiment:
    """A figure in progress."""

    def __init__(
        self,
        id: str,  # id of the figure
        names: Mapping[str, Any],  # the notebook's `globals()`, for the values of its parameters
    ):
        self.id, self.record = id, Record(id, names)
        self.parameters = copy.deepcopy(self.record.parameters)
        self.device = settings.device()
        self.seeds: list[int] = sorted(self.parameters.get("seeds", []))
        self.trials: dict[str, Any] = {}  # contents of the files tuning.json in use, by figure
        self.progress: tqdm = tqdm(disable=True)

    @property
    def status(self) -> str:
        """Status of the data and models, for a heading."""
        return panels.status(self.parameters)

    def generator(
        self,
        seed: int,  # of the run
        name: str = "",  # of the stream
    ) -> torch.Generator:
        """A generator on the device."""
        return settings.generator(seed, name, self.device)

    # Data

    def clips(
        self,
        **fields: Any,  # of `ClipsConfig`; default: the parameters of the same names
    ) -> dict[str, Any]:
        """The three splits of moving digits, or of the parameter `video_dir`."""
        named = ("frames", "size", "spacing", "features", "train_clips", "eval_clips")
        given = {name: self.parameters[name] for name in named if name in self.parameters}
        return load_data(ClipsConfig(folder=self.parameters.get("video_dir"), **given | fields))

    def whole(
        self,
        split: Any,  # a data set
        limit: int | None = None,  # largest number of items
    ) -> Tensor:
        """The items of a split, on the device."""
        return (split.whole() if limit is None else split.whole(limit)).to(self.device)

    # Models

    def learner(
        self,
        kind: str,  # of model: "ebt", "transformer", "gru" or "diffusion"
        task: Any,  # a task, a state specification, or the number of features
        seed: int,  # fixes the initial weights
        walk: WalkConfig | None = None,  # sampling of an EBT; default: the parameters `mcmc_steps` and `step_size`
        recipe: RecipeConfig | None = None,  # of an EBT; default: S1
        **model: Any,  # fields of `ModelConfig`; default: the parameters `dim`, `depth` and `heads`
    ) -> Learner:
        """A model with its loss and its prediction, on the device."""
        shape = {name: self.parameters[name] for name in SHAPE if name in self.parameters}
        walk = walk or self.walk()
        learner = make_learner(ModelConfig(kind, **shape | model), task, seed, recipe, walk)
        learner.model.to(self.device)
        return learner

    def walk(
        self,
        step_size: float | None = None,  # initial alpha; default: the parameter, or that of `WalkConfig`
        start: str = "noise",  # initial candidates
        **fields: Any,  # of `WalkConfig`
    ) -> WalkConfig:
        """Sampling of an EBT in training."""
        alpha = step_size or self.parameters.get("step_size") or WalkConfig().step_size
        steps = self.parameters.get("mcmc_steps", WalkConfig().steps)
        return WalkConfig(**{"steps": steps, "start": start, "step_size": alpha, **fields})

    def optimiser(
        self,
        learning_rate: float,  # peak
        updates: int | None = None,  # default: the parameter
        **fields: Any,  # of `OptimiserConfig`; the warm-up is a tenth of the updates
    ) -> OptimiserConfig:
        """The settings of a training run."""
        updates = updates or self.parameters["updates"]
        given = {name: value for name, value in fields.items() if value is not None}
        return OptimiserConfig(updates, **{"batch": self.parameters.get("batch"), "learning_rate": learning_rate,
                                           "warmup": max(1, updates // 10), **given})

    def train(
        self,
        learner: Learner,  # to train
        data: Any,  # the training split
        seed: int,  # fixes the order of the batches and the noise
        optimiser: OptimiserConfig,  # from `optimiser`
        *,
        valid: Tensor | None = None,  # items to evaluate on; default: one item of the training split
        every: int | None = None,  # updates between evaluations; default: only at the end
        note: Callable[[dict[str, Any]], Any] | None = None,  # receives every row of the log
        diverging: bool = False,  # return the log so far if training fails, instead of raising
    ) -> pd.DataFrame:  # the log, one row an update; the last row has `valid_loss`
        """Train on batches in the order of `ebwm train`."""
        rows: list[dict[str, Any]] = []
        valid = data.whole(1) if valid is None else valid

        def report(row: dict[str, Any]) -> None:
            rows.append(row)
            self.progress.set_description(f"seed {seed}, loss {row['loss']:.3f}", refresh=False)
            self.progress.update()
            if note:
                note(row)

        config = Config(optimiser=optimiser, seed=seed, eval_every=every or optimiser.updates)
        batches = (batch.to(self.device) for batch in batches_of(data, optimiser.batch, seed))
        try:
            fit(learner, batches, valid.to(self.device), config, report)
        except FloatingPointError:
            if not diverging:
                raise
            self.progress.update(optimiser.updates - len(rows))
        return pd.DataFrame(rows)

    def cost(
        self,
        learner: Learner,  # counted
        items: Tensor,  # a batch
        times: int = 2,  # training steps of which the most expensive counts
    ) -> dict[str, float]:  # FLOPs
        """What a training step and a prediction cost; replayed candidates and random numbers of steps vary it."""
        generator, (context, target) = self.generator(0, "cost"), learner.pair(items.to(self.device))
        step = lambda: learner.loss(context, target, generator).backward()
        training = max(flops(step).total for _ in range(times))
        with torch.no_grad():
            prediction = flops(lambda: learner.predict(context, generator)).total
        return {"training step": training, "prediction": prediction}

    # Jobs and records

    def each(
        self,
        work: Callable[[int], Mapping[str, pd.DataFrame]],  # seed -> tables
        total: int | None = None,  # updates of a seed, for the progress bar
    ) -> dict[str, pd.DataFrame]:  # tables of all seeds, with the column `seed`
        """Call `work` for each seed, in a job of its own, and write the tables."""
        def job(seed: int) -> dict[str, pd.DataFrame]:
            with tqdm(total=total, unit="update", mininterval=0.5, disable=total is None) as self.progress:
                return dict(work(seed))

        return self.record.each(job, seed=self.record.parameters["seeds"])

    def data(
        self,
        name: str,  # file name without suffix
        frame: pd.DataFrame,  # data of the picture
    ) -> pd.DataFrame:  # the same
        """Write a table."""
        self.record.data(name, frame)
        return frame

    def picture(
        self,
        name: str,  # file name without suffix
        draw: Callable[[], "matplotlib.figure.Figure"],  # called for each theme
    ) -> "matplotlib.figure.Figure":
        """Save a picture."""
        return self.record.picture(name, draw)

    def close(
        self,
        data: Mapping[str, Any] | None = None,  # data sets with digests
        **results: Any,  # statistics, as JSON
    ) -> dict[str, Any]:  # the results, as recorded
        """Write the manifest."""
        digests = {name: split.digest for name, split in data.items()} if data else None
        if self.trials:
            results["tuning"] = self.trials if len(self.trials) > 1 else next(iter(self.trials.values()))
        seeds = self.parameters.get("seeds")
        return self.record.close(seeds=seeds, dataset_digest=digests, **results)["results"]

    # Trials

    def tuning(
        self,
        id: str | None = None,  # figure whose trials are used; default: this one
    ) -> dict[str, Any]:
        """The recorded trials of a figure, which the manifest then contains."""
        path = self.record.config.figures / (id or self.id) / TUNING
        self.trials[id or self.id] = json.loads(path.read_text(encoding="utf-8"))
        return self.trials[id or self.id]

    def tune(
        self,
        searches: Mapping[str, Search],  # by kind
        score: Callable[..., float],  # (kind, seed, **settings) -> validation loss
        shared: Mapping[str, Any] | Iterable[str] = (),  # parameters that all trials share: values, or names
        **options: Any,  # of `write_trials`: key, and further entries of the file
    ) -> dict[str, Any]:  # content of tuning.json
        """Declare the trials that chose the settings: make them under `ebwm figures tune`, else read them."""
        request, beyond = self.record.job.get("tune"), self.record.job.get("beyond", False)
        if request is None:
            return self.tuning()
        for kind in request:
            checks.one_of("--only", kind, searches, FigureError)
        chosen, key = request or list(searches), options.get("key", "model")
        stored = by_kind(self.tuning()["trials"], key) if request or beyond else {}

        def asked(kind: str) -> tuple[Callable[..., float], Callable[[dict[str, Any]], None]]:
            return partial(score, kind, SEED), lambda row: print({key: kind, **row}, flush=True)

        if beyond:
            further = {kind: trials_beyond(stored[kind], *asked(kind)) for kind in chosen}
            write_json(self.record.folder / BEYOND, {"seed": SEED, "trials": further})
            return self.tuning()
        made = {kind: make_trials(search, *asked(kind)) if kind in chosen else stored[kind]
                for kind, search in searches.items()}
        values = shared if isinstance(shared, Mapping) else {name: self.parameters[name] for name in shared}
        self.trials[self.id] = write_trials(self.record.folder / TUNING, made, values, **options)
        return self.trials[self.id]

    def table_of_trials(self) -> pd.DataFrame:
        """The trials in use, for display."""
        return pd.concat([pd.DataFrame(found["trials"]) for found in self.trials.values()]).round(4)


def baselines_of(
    data: Mapping[str, Any],  # splits of clips
    splits: Sequence[str] = ("valid", "test"),  # to score
    limit: int | None = None,  # largest number of clips
) -> dict[str, dict[str, float]]:
    """Losses of predictors that learn nothing: the last frame, the mean frame and the mean pixel."""
    mean, some = data["train"].mean_frame(), {} if limit is None else {"limit": limit}
    return {split: trivial_baselines(data[split], mean, **some) for split in splits}
