"""Refusals of configurations, tasks, learners, checkpoints and text generation."""

import tempfile
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from ebwm.data.arrays import read_arrays
from ebwm.data.task import Rows, Tokens, Vectors
from ebwm.data.tasks import load_task
from ebwm.saving import CheckpointError, load_tensors, save_tensors
from ebwm.training.checkpoint import Checkpoints
from ebwm.training.configuration import (
    ConfigError,
    ModelConfig,
    OptimiserConfig,
    RecipeConfig,
    RunConfig,
    WalkConfig,
    from_dict,
)
from ebwm.training.distributed import SingleProcess
from ebwm.training.history import UnknownRun, find
from ebwm.training.learner import LEARNERS, BatchOrder, Kind, load_learner, make_learner
from ebwm.training.memory import check_memory
from ebwm.training.presets import load_config
from ebwm.training.run import resume, train
from ebwm.writing import WritingError, find_model

FOLDER = Path(tempfile.mkdtemp())


def written(name, content=b"no data"):
    """Path of a file with some content."""
    path = FOLDER / name
    path.write_bytes(content)
    return path


def folder_with(name):
    """Path of a new folder that holds an empty file."""
    folder = Path(tempfile.mkdtemp(dir=FOLDER))
    (folder / name).touch()
    return str(folder)


def weights(name, **tensors):
    """Path of a file of weights."""
    save_tensors(path := FOLDER / name, tensors)
    return path


def saved(name, **arrays):
    """Path of a NumPy archive."""
    np.savez(FOLDER / name, **arrays)
    return FOLDER / name


def load(preset, data=None, **entries):
    """Load the task of a preset."""
    config = load_config(preset, [f"data.{key}={value}" for key, value in entries.items()])
    return load_task(config.data, data=data)


states, pairs = partial(load, "states"), partial(load, "pairs")
NAMED = [  # entries of a configuration whose name the message must contain
    "model.widht=3", "model=3", "seed.x=3", "model.depth=two", "optimiser.updates=1.5", "model.compile=maybe",
    "recipe.name=s3", "recipe.spread=0.5", "run.logger=printer", "run.precision=16", "faults.lower=0",
    "data.kind=sound", "walk.step_size=automatic"]
REPEATED = [  # entries that the message must contain
    "optimiser.schedule=0", "seed", "seed=-1", "model.heads=0", "optimiser.updates=0", "faults.patience=0",
    "run.workers=-1", "eval_every=0", "model.diffusion_steps=0", "walk.step_size=-1", "optimiser.learning_rate=nan",
    "optimiser.average=1", "data.frames=0", "data.spacing=0", "data.features=0"]
RENAMED = {"model.steps=3": "walk.steps=3", "model.step=adaln": "model.step_conditioning"}
TEXT_ENTRIES = ["data.size=3", "data.packing=loose", "data.held_out=0.5", "data.length=0", "data.documents=0"]
FILES = {"not JSON": b"{", "empty": b"{}", "section": b'{"model": 3}', "list": b'["model"]',
         "null": b'{"seed": null}', "nested": b'{"data": {"folder": ["a"]}}',
         "type": b'{"model": {"depth": "2"}}', "digits": b'{"seed": ' + b"9" * 5000 + b"}", "deep": b"[" * 10**5,
         "twice": b'{"seed": 1, "seed": 2}', "bool": b'{"seed": true}', "binary": b"\x80\xff"}
NAN = torch.ones(9, 4, 2).index_fill(0, torch.tensor([3]), torch.nan)
ITEMS = torch.ones(9, 4, 2)

CASES = [
    *[(entry, partial(load_config, "smoke", [entry]), ConfigError, word) for entry, word in (
        *((entry, entry.partition("=")[0]) for entry in NAMED), *zip(REPEATED, REPEATED, strict=True),
        *RENAMED.items())],
    *[(f"text {entry}", partial(load_config, "text", [entry]), ConfigError, entry.partition("=")[0])
      for entry in TEXT_ENTRIES],
    *[(f"file {name}", lambda text=text: load_config(str(written("config.json", text))), ConfigError, "")
      for name, text in FILES.items()],
    *[(f"states {entry}", partial(load_config, "states", [entry]), ConfigError, remedy) for entry, remedy in (
        ("source=x.npy", "did you mean data.source?"), ("optimiser.lr=1", "did you mean optimiser.learning_rate?"),
        ("data=x.npy", "it is a section"), ("modle.dim=3", "did you mean model.dim?"), ("states", "comes first"))],
    ("arrays for images", lambda: train("patches", data=ITEMS), ConfigError, "data.kind='patches': takes no arrays"),
    ("entry of a section", lambda: train("patches", overrides=["data.source=digits", "data.patch=3"]), ConfigError,
     "data.patch=3"),
    *[(entry, lambda entry=entry: load_task(load_config("states", [entry]).data), ValueError, named)
      for entry, named in (("data.source=no.npy", f"looked in {Path.cwd()}"), ("data.source=~/no", str(Path.home())))],
    ("preset", lambda: load_config("next_fram"), ConfigError,
     "config='next_fram': must be a preset or a JSON file; did"),
    ("old kind of value", lambda: from_dict({"model": {"steps": "2"}}), ConfigError, "walk.steps"),
    *[(f"memory {entries}", lambda entries=entries: check_memory(
        load_config("smoke", entries.split()), Vectors(8), SingleProcess(torch.device("cpu"))), ConfigError, "model=")
      for entries in ("model.dim=1000000 model.depth=1000", "model.depth=1000000000", "model.dim=1000000000",
                      f"walk.steps={10**9} model.step_conditioning=adaln")],
    *[(entry, partial(train, "smoke", overrides=[entry]), ConfigError, entry.partition("=")[0]) for entry in (
        f"walk.steps={10**15}", f"eval_every={10**4000}", "optimiser.learning_rate=1e300", "run.workers=100000",
        "faults.lower=2", "data.size=5000")],
    ("kind", lambda: make_learner(ModelConfig(kind="lstm"), 16, 0), ConfigError, "model.kind='lstm'"),
    ("diffusion of tokens", lambda: make_learner(ModelConfig("diffusion"), Tokens(5), 0), ConfigError, "model.kind"),
    ("joint states", lambda: make_learner(ModelConfig("joint_ebt"), Vectors(5), 0), ConfigError, "model.kind"),
    ("joint start", lambda: make_learner(ModelConfig("joint_ebt"), Rows(2, 3, 3), 0, walk=WalkConfig(start="last")),
     ConfigError, "walk.start='last'"),
    ("joint latent", lambda: make_learner(ModelConfig("joint_ebt", candidates="latent"), Rows(2, 3, 3), 0),
     ConfigError, "model.candidates='latent'"),
    ("causal rows", lambda: make_learner(ModelConfig("ebt"), Rows(2, 3, 3), 0), ConfigError, "choose one of joint_ebt"),
    ("actions", mock.patch.dict(LEARNERS, mine=Kind(None, (Vectors,)))(
        lambda: make_learner(ModelConfig("mine"), Vectors(5, 2), 0)), ConfigError, "model.kind='mine'"),
    *[(f"made with {named}", partial(kind, **{name: value}), error, named) for kind, error, named, name, value in (
        (ModelConfig, ConfigError, "dim='3': must be an integer", "dim", "3"),
        (ModelConfig, ConfigError, "compile=1: must be true or false", "compile", 1),
        (ModelConfig, TypeError, "widht", "widht", 3),
        (WalkConfig, ConfigError, "step_size=inf: must be at most 1e+30", "step_size", float("inf")),
        (WalkConfig, ConfigError, "step_size=nan: must be a finite number above 0", "step_size", float("nan")),
        (WalkConfig, ConfigError, "step_size=[1]: must be a number, or auto", "step_size", [1]),
        (RecipeConfig, ConfigError, "most=2.5: must be an integer, or none", "most", 2.5),
        (RunConfig, ConfigError, "did you mean 'fsdp'", "strategy", "fsdp2"))],
    ("too many", lambda: RecipeConfig(*"s1 true".split(), *range(20)), TypeError, "RecipeConfig: "),
    ("overrides", partial(train, "smoke", overrides="seed=3"), ConfigError, "overrides='seed=3'"),
    ("positional", lambda: OptimiserConfig(100, 0), ConfigError, "batch=0"),
    ("no features", partial(make_learner, ModelConfig(), 0, 0), ValueError, "dim=0"),
    ("large batch", lambda: BatchOrder(4, 5, 0), ConfigError, "batch=5"),
    ("indivisible batch", lambda: BatchOrder(9, 5, 0, part=(0, 2)), ConfigError, "batch=5"),
    ("no source", lambda: states(), ValueError, "data.source=None"),
    ("missing file", lambda: states(source="nowhere.npy"), ValueError, "data.source='nowhere.npy'"),
    ("empty folder", lambda: states(source=tempfile.mkdtemp()), ValueError, "data.source"),
    ("ending", lambda: read_arrays(Path("x.csv")), ValueError, "data.source='x.csv'"),
    *[(f"damaged {end}", lambda end=end: read_arrays(written(f"bad{end}")), ValueError, "data.source")
      for end in (".npy", ".npz", ".pt", ".safetensors", ".parquet")],
    ("name", lambda: states(source=saved("a.npz", x=ITEMS, y=ITEMS)), ValueError, "one must be 'states'"),
    ("text array", lambda: states(source=saved("t.npz", states=np.array(["a"]))), ValueError, "states"),
    ("alone", lambda: states(source=saved("b.npz", actions=ITEMS)), ValueError, "one must be 'states'"),
    *[(f"states {name}", lambda data=data: states(data), ValueError, named) for name, data, named in (
        ("empty", (), "data='0 parts'"), ("three", (ITEMS,) * 3, "data='3 parts'"),
        ("axes", torch.ones(5), "states=[5]"),
        ("complex", ITEMS + 1j, "states='torch.complex64"), ("sparse", ITEMS.to_sparse(), "torch.sparse_coo"),
        ("features", ITEMS[..., :0], "states=[9, 4, 0]"))],
    *[(f"pairs {name}", lambda data=data: pairs(data), ValueError, named) for name, data, named in (
        ("three", (ITEMS,) * 3, "data='tuple'"), ("number", 3, "data='int'"),
        ("stacked", torch.ones(2, 9, 4, 2), "data='Tensor'"),
        ("rows", (ITEMS[:, :0], ITEMS), "context=[9, 0, 2]"),
        ("flat", (ITEMS[:, 0], ITEMS), "context=[9, 2]: must have a shape of 3 axes, [items rows features]"))],
    ("one state", lambda: states(torch.ones(9, 1, 2)), ValueError, "states=[9, 1, 2]"),
    ("too large", lambda: states(1e200 * torch.randn(9, 4, 2).double()), ValueError, "too large to be standardised"),
    ("not finite", lambda: states(NAN), ValueError, "states=nan: must be finite; 8 of "),
    ("few items", lambda: states(ITEMS[:2]), ValueError, "data.source='data'"),
    ("length", lambda: states(ITEMS, length=5), ValueError, "length=5"),
    ("keys", lambda: states({"states": ITEMS, "action": ITEMS}), ValueError, "data="),
    ("action count", lambda: states((ITEMS, ITEMS[:, 1:])), ValueError, "actions.shape=[9, 3, 2]"),
    ("no target", lambda: pairs(source=saved("c.npz", context=ITEMS)), ValueError, "'target'"),
    ("other target", lambda: pairs((ITEMS, ITEMS[1:])), ValueError, "target=[9, 8]"),
    ("pairs folder", lambda: pairs(source=str(FOLDER)), ValueError, "data.source"),
    ("no pairs", lambda: pairs(), ValueError, "data.source=None"),
    ("no checkpoint", lambda: load_tensors(FOLDER / "none.safetensors"), CheckpointError, "none.safetensors"),
    ("other file", lambda: load_tensors(written("x.safetensors")), CheckpointError, "not a safetensors checkpoint"),
    ("no tensor", lambda: load_tensors(weights("no.safetensors")), CheckpointError, "no.safetensors: the file holds"),
    ("NaN", lambda: load_tensors(weights("nan.safetensors", head=NAN)), CheckpointError, "head holds NaN"),
    ("keep", lambda: Checkpoints(FOLDER, 0), ValueError, "keep=0"),
    ("no run", lambda: resume(FOLDER / "nothing"), ConfigError, "run="),
    ("unknown run", lambda: find("005", FOLDER), UnknownRun, "RUN='005'"),
    ("policy", lambda: find(folder_with("policy.json"), FOLDER), UnknownRun, "is a policy, not a run"),
    ("no model", lambda: load_learner(FOLDER), CheckpointError, "model.safetensors"),
    ("model name", lambda: find_model("txt", FOLDER), WritingError, "--model='txt'"),
]
