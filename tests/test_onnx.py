"""Models as ONNX files: onnxruntime gives the walks and predictions of PyTorch."""

import pytest
import torch

from ebwm.baselines import GRU, Transformer
from ebwm.ebt import EBT
from ebwm.joint import JointEBT
from ebwm.onnx_export import to_onnx
from ebwm.settings import generator
from ebwm.thinking import predict

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
LENGTHS = (1, 6)  # of contexts, other than that of the export
KINDS = {
    "latents": lambda draw: EBT(8, 1, 2, state_dim=6, action_dim=3, step_size=0.5, candidates="latent", generator=draw),
    "tokens": lambda draw: EBT(8, 2, 2, vocabulary=40, step_size=1.0, generator=draw),
    "transformer": lambda draw: Transformer(8, 1, 2, vocabulary=40, generator=draw),
}
close = torch.testing.assert_close


def session(path):
    """A function from named tensors to the outputs of a graph."""
    import onnxruntime

    graph = onnxruntime.InferenceSession(path)
    return lambda **inputs: [torch.from_numpy(part) for part in graph.run(
        None, {name: value.detach().numpy() for name, value in inputs.items()})]


def context_of(model, length, draw):
    """A random context, by the names of inputs."""
    if model.tokens:
        return {"tokens": torch.randint(40, (1, length), generator=draw)}
    parts = {"states": torch.randn(1, length, 6, generator=draw)}
    if model.embed_actions is not None:
        parts["actions"] = torch.randn(1, length, 3, generator=draw)
    return parts


def check_walk(model, graphs, context, draw, steps=3, walks=2):
    """Walks from the same initial candidates give the same energies and predictions."""
    parts, alpha = [*context.values()], model.step_size
    given, (cache,) = tuple(parts) if parts[1:] else parts[0], graphs["prefill"](**context)
    starts = torch.randn(walks, 1, parts[0].shape[1], model.candidate_dim, generator=draw)
    y, energies, expected = starts[:, 0, -1], [], []
    for _ in range(steps + 1):
        energy, _, following = graphs["step"](candidates=y, cache=cache, step_size=alpha)
        energies.append(energy)
        if len(energies) <= steps:
            y = following
    for index, start in enumerate(starts):
        seen = []
        found = predict(model, given, steps, start=start, callback=lambda i, state, info, seen=seen: seen.append(info))
        expected.append([*(info.energy[0, -1] for info in seen), found.energy[0, -1]])
        value = graphs["decode"](candidates=y)[0] if model.latent else y
        close(value[index], found.value[0, -1], rtol=0, atol=1e-4)
    close(torch.stack(energies, 1), torch.tensor(expected), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")  # of the packages about each other
def test_onnxruntime_gives_what_pytorch_gives(kind, tmp_path):
    for package in PACKAGES:
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'ebwm[onnx]'")
    draw = generator(0, "onnx")
    model = KINDS[kind](draw)
    graphs = {path.stem: session(path) for path in to_onnx(model, tmp_path / "graphs")}
    for length in LENGTHS:
        context = context_of(model, length, draw)
        if kind == "transformer":
            close(graphs["forward"](**context)[0], model(*context.values())[0, -1], rtol=0, atol=1e-4)
        else:
            check_walk(model, graphs, context, draw)


@pytest.mark.parametrize("make, message", [
    (lambda: GRU(16, 2), "model='GRU': has no ONNX graph; use an EBT or a Transformer"),
    (lambda: JointEBT(16, 1, 2), "model='JointEBT': has no ONNX graph"),
    (lambda: EBT(16, 1, 2, step_conditioning="adaln"), "step_conditioning='adaln': must be 'none'")])
def test_other_models_are_refused(make, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        to_onnx(make(), tmp_path / "graphs")
    assert not (tmp_path / "graphs").exists()
