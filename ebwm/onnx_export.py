"""Trained models as ONNX files, for programs without PyTorch, such as web pages."""

import copy
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, config
from torch import Tensor, nn

from .baselines import Transformer
from .blocks import rotary
from .checks import instance, refusal
from .compat import require
from .ebt import EBT
from .gradient.attention import View
from .gradient.sweeps import Energy, first_order

if TYPE_CHECKING:
    import onnx

__all__ = ["Forward", "Prefill", "Step", "small", "to_onnx"]

SMALLEST = 1024  # entries of a weight that is stored in half precision, if that is exact


class Prefill(nn.Module):
    """Keys and values of a context, without the checks of `EBT.landscape`."""

    def __init__(
        self,
        model: EBT,  # without step conditioning
    ):
        super().__init__()
        self.model = model

    def forward(
        self,
        *parts: Tensor,  # states [1 s state_dim] or tokens [1 s], and actions [1 s a] if the model has them
    ) -> Float[Tensor, "l 2 h s e"]:  # keys and values of each layer
        """Encode the context."""
        return torch.stack([torch.cat(pair) for pair in self.model.encode_context(parts if parts[1:] else parts[0])])


class Step(nn.Module):
    """One step of all candidates for the state after a context, without the checks of a kernel."""

    def __init__(
        self,
        model: EBT,  # without step conditioning
    ):
        super().__init__()
        self.model = model

    def forward(
        self,
        candidates: Float[Tensor, "n c"],  # vectors, or logits of tokens
        cache: Float[Tensor, "l 2 h s e"],  # from `Prefill`
        step_size: Float[Tensor, ""],  # alpha
    ) -> tuple[Tensor, Tensor, Tensor]:  # energies [n], gradient [n c], next candidates [n c]
        """Gradient descent; for tokens the gradient and the step are those of the distributions."""
        y = candidates if self.model.tokens is None else candidates.softmax(-1)
        energy, gradient, _ = first_order(self._inputs(cache), self.model.embed_candidates(y[None]))
        gradient = self.model.pull_back(gradient)[0]
        return energy[0], gradient, y - step_size * gradient

    def _inputs(self, cache: Tensor) -> Energy:
        """All inputs of the energy but the candidates; nothing of the context is hidden from them."""
        pairs = F.pad(cache, (0, 0, 0, 1)).unsqueeze(2).unbind(0)
        place = torch.full((1,), cache.shape[3])
        cos, sin = (part[None] for part in rotary(place, self.model.head_dim))
        scale = torch.tensor([self.model.head_dim**-0.5, 1.0]).view(2, 1, 1, 1, 1)
        view = View(cos * scale, sin * scale, None, place - 1)
        layers, head = self.model.folded(torch.float32)
        return Energy(layers, head, tuple((pair[0], pair[1]) for pair in pairs), view, self.model.heads)


class Forward(nn.Module):
    """Prediction of the next state in one pass, without the checks of `Transformer`."""

    def __init__(
        self,
        model: Transformer,  # of vectors or tokens
    ):
        super().__init__()
        self.model = model

    def forward(
        self,
        *parts: Tensor,  # states [1 s state_dim] or tokens [1 s], and actions [1 s a] if the model has them
    ) -> Float[Tensor, " state_dim"]:  # the next state, or logits of tokens
        """Predict the state after the context."""
        x = self.model.embed(parts[0])
        x = x + self.model.embed_actions(parts[1]) if parts[1:] else x
        rotation = rotary(torch.arange(x.shape[1]), self.model.head_dim)
        for block in self.model.blocks:
            x = block(x, rotation)
        return self.model.read_out(x[0, -1])


class _Graph(NamedTuple):
    """A module to export, with an example of its inputs; an axis that is named has any size."""

    module: nn.Module
    inputs: dict[str, Tensor]
    axes: dict[str, dict[int, str]]  # names of axes, by input and index
    outputs: list[str]


def _context(model: EBT | Transformer) -> tuple[dict[str, Tensor], dict[str, dict[int, str]]]:
    """An example of a context, and its axes of any size."""
    tokens, actions = bool(model.tokens), model.embed_actions
    states = torch.zeros(1, 5, dtype=torch.long) if tokens else torch.zeros(1, 5, model.state_dim)
    parts = {"tokens" if tokens else "states": states}
    if actions is not None:
        parts["actions"] = torch.zeros(1, 5, actions.in_features)
    return parts, {name: {1: "length"} for name in parts}


def _graphs(model: EBT | Transformer) -> dict[str, _Graph]:
    """The graphs of a model, by the names of their files."""
    context, axes = _context(model)
    if isinstance(model, Transformer):
        return {"forward": _Graph(Forward(model), context, axes, ["prediction"])}
    prefill, candidates = Prefill(model), torch.zeros(3, model.candidate_dim)
    inputs = {"candidates": candidates, "cache": prefill(*context.values()), "step_size": torch.tensor(1.0)}
    moving = {"candidates": {0: "candidates"}, "cache": {3: "length"}, "step_size": {}}
    found = {"prefill": _Graph(prefill, context, axes, ["cache"]),
             "step": _Graph(Step(model), inputs, moving, ["energy", "gradient", "next"])}
    if model.latent:
        found["decode"] = _Graph(model.decode, {"candidates": candidates}, {"candidates": {0: "candidates"}}, ["states"])
    return found


def _check(model: nn.Module) -> None:
    """Refuse a model without graphs."""
    kind = type(model).__name__
    if not isinstance(model, EBT | Transformer):
        raise refusal("model", kind, "has no ONNX graph", "use an EBT or a Transformer")
    if isinstance(model, EBT) and model.step_conditioning != "none":
        rule = "must be 'none' for an export to ONNX"
        raise refusal("step_conditioning", model.step_conditioning, rule, "train a model without it")


def _write(graph: _Graph, path: Path) -> Path:
    """Export a graph to a file."""
    import onnx

    shapes = [{axis: torch.export.Dim(label) for axis, label in graph.axes[name].items()} for name in graph.inputs]
    varargs = isinstance(graph.module, Prefill | Forward)
    with warnings.catch_warnings(), _unchecked_shapes():
        warnings.simplefilter("ignore")  # of the packages about each other
        program = torch.onnx.export(
            graph.module, tuple(graph.inputs.values()), dynamo=True, verbose=False, external_data=False,
            input_names=[*graph.inputs], output_names=graph.outputs,
            dynamic_shapes=(tuple(shapes),) if varargs else tuple(shapes))
    onnx.save(small(program.model_proto), path)
    return path


@contextmanager
def _unchecked_shapes() -> Iterator[None]:
    """No checks by jaxtyping, if a user has enabled them: each would fix the size of an axis in the graph."""
    before, config.jaxtyping_disable = config.jaxtyping_disable, True
    try:
        yield
    finally:
        config.jaxtyping_disable = before


def small(
    model: "onnx.ModelProto",  # a graph with weights in float32; changed
) -> "onnx.ModelProto":
    """Store weights that float16 holds exactly in float16, without a change of results, and drop what is for debugging."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT or math.prod(weight.dims) < SMALLEST:
            continue
        values = numpy_helper.to_array(weight)
        half = values.astype("float16")
        if (half.astype("float32") == values).all():
            name = weight.name
            weight.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
            casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    for part in (model.graph, *model.graph.node):
        part.ClearField("metadata_props")  # lines of the source
    return model


@torch.no_grad()
def to_onnx(
    model: nn.Module,  # an EBT without step conditioning or a Transformer, on any device
    folder: str | Path,  # created if necessary
) -> list[Path]:  # of the files
    """Write a model as ONNX files for contexts of any length, in float32.

    An EBT becomes `prefill.onnx`, from a context to keys and values, and `step.onnx`, one step of all candidates for
    the next state; if candidates are latent, also `decode.onnx`. A Transformer becomes `forward.onnx`.
    """
    instance("folder", folder, (str, Path), "must be a path")
    _check(model)
    require("onnx", "onnx"), require("onnxscript", "onnx")
    Path(folder).mkdir(parents=True, exist_ok=True)
    plain = copy.deepcopy(model).cpu().float().eval()
    return [_write(graph, Path(folder) / f"{name}.onnx") for name, graph in _graphs(plain).items()]
