"""Models are saved as their weights and the arguments of their constructor."""

import copy
import errno
from pathlib import Path

import numpy as np
import pytest
import torch

from ebwm import EBT, JointEBT, Transformer
from ebwm.baselines import GRU
from ebwm.diffusion import DiffusionTransformer
from ebwm.ebt import EBTOptions
from ebwm.files import write_whole
from ebwm.saving import CheckpointError, Saved, load_tensors, save_tensors
from ebwm.settings import generator

SHAPE = dict(dim=16, depth=1, generator=generator(0))


def moved(model):
    """The model with weights that float32 cannot hold."""
    for parameter in model.parameters():
        parameter.data += 1e-9 * torch.pi
    return model


MODELS = {
    "EBT": lambda: EBT(16, 1, 2, 8, options=EBTOptions(gradient="eager"), step_conditioning="adaln", step_size=3.0),
    "EBT of tokens": lambda: EBT.from_size("4xs", vocabulary=7, generator=generator(0)),
    "EBT with actions, in float64": lambda: moved(EBT(heads=2, action_dim=3, **SHAPE).double()),
    "JointEBT": lambda: JointEBT(heads=2, rows=3, state_dim=5, **SHAPE),
    "Transformer": lambda: Transformer(heads=2, vocabulary=7, **SHAPE),
    "GRU": lambda: GRU(state_dim=5, **SHAPE),
    "diffusion": lambda: DiffusionTransformer(heads=2, predicts="velocity", **SHAPE),
    "a copy": lambda: copy.deepcopy(EBT(heads=2, vocabulary=5, **SHAPE)),
}


def test_a_full_disk_names_the_file(tmp_path):
    with pytest.raises(OSError) as caught:
        write_whole(tmp_path / "file", lambda draft: Path("/dev/full").write_bytes(b"x"))
    assert (caught.value.filename, caught.value.errno) == (str(tmp_path / "file"), errno.ENOSPC)
    assert not [*tmp_path.iterdir()]


def test_a_device_is_not_replaced_by_a_file():
    with pytest.raises(FileExistsError, match="/dev/null"):
        write_whole(Path("/dev/null"), lambda draft: draft.write_bytes(b"x"))


def test_two_writers_of_one_process_number_do_not_share_a_draft(tmp_path):
    """As two threads, or two containers, in which the process has number 1."""
    def other(draft):
        draft.write_text("first")
        write_whole(tmp_path / "file", lambda draft: draft.write_text("second"))
        assert draft.read_text() == "first"

    write_whole(tmp_path / "file", other)
    assert (tmp_path / "file").read_text() == "first" and len([*tmp_path.iterdir()]) == 1


class World(EBT):
    """A model with arguments of its own."""

    def __init__(self, width=16):
        super().__init__(width, 1, 2)


def test_a_subclass_with_other_arguments_is_saved_and_loaded(tmp_path):
    model = World(32)
    model.save(tmp_path)
    loaded = World.load(tmp_path)
    assert loaded.dim == 32 and all(map(torch.equal, loaded.state_dict().values(), model.state_dict().values()))


@pytest.mark.parametrize("kind", MODELS)
def test_a_loaded_model_equals_the_saved_one(tmp_path, kind):
    model = MODELS[kind]()
    assert model.save(tmp_path / "new" / "folder") == tmp_path / "new" / "folder" / "model.safetensors"
    state = torch.get_rng_state()
    loaded = type(model).load(tmp_path / "new" / "folder")
    assert torch.equal(torch.get_rng_state(), state)
    assert loaded.arguments == model.arguments and str(loaded) == str(model)
    saved, found = model.state_dict(), loaded.state_dict()
    assert saved.keys() == found.keys()
    for name, tensor in saved.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
    states = torch.ones(1, 3, 16)
    if kind == "EBT":
        states = states[..., :8]
        assert torch.equal(model.landscape(states)(states), loaded.landscape(states)(states))
        assert EBT.load(tmp_path / "new" / "folder", compile=True).options.compile


def test_sizes_of_numpy_are_saved_as_numbers(tmp_path):
    class Map(Saved, torch.nn.Linear):
        pass

    model = Map(np.int64(2), np.prod((1, 3)), bias=False)
    model.save(tmp_path)
    assert torch.equal(Map.load(tmp_path).weight, model.weight)


def test_what_cannot_be_loaded_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"folder=.*contains no model\.safetensors"):
        EBT.load(tmp_path)
    path = Transformer(heads=2, **SHAPE).save(tmp_path)
    with pytest.raises(ValueError, match=r"folder=.*must hold a model of class EBT; it holds Transformer"):
        EBT.load(tmp_path)
    weights, meta = load_tensors(path)
    wide = weights | {"embed.weight": torch.ones(3)}
    for wrong, reason in ((wide, "of another shape: embed.weight"),
                          ({"other": torch.ones(1)}, "must hold the weights of this Transformer; .* and 9 more"),
                          (weights | {"norm.weight": torch.full((16,), torch.nan)}, "norm.weight holds NaN")):
        save_tensors(path, wrong, meta)
        with pytest.raises(CheckpointError, match=f"{path}: .*{reason}.*; save the model again"):
            Transformer.load(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=f"{path}: not a safetensors checkpoint"):
        Transformer.load(tmp_path)
