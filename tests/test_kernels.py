"""Fused attention and its derivatives equal the dense form: interpreted on a CPU, compiled on a GPU."""

import os
import subprocess
import sys

import pytest
import torch

from ebwm.attention import two_stream_attention, visible_context
from ebwm.gradient import kernels
from ebwm.settings import generator
from tests.helpers import close

COMPILED = not kernels.available("cpu") and torch.cuda.is_available()
DEVICE = "cuda" if COMPILED else "cpu"
installed = pytest.mark.skipif(kernels.triton is None, reason="triton is not installed")
runs = pytest.mark.skipif(
    not kernels.available(DEVICE),
    reason="triton is not installed, or there is no GPU and TRITON_INTERPRET=1 is not set",
)

SIZES = {  # batch, heads, candidates, states, width of a head
    "single": (1, 1, 1, 1, 8), "one candidate": (2, 2, 1, 40, 24), "one state": (2, 1, 5, 1, 8),
    "one head": (2, 1, 19, 37, 24), "odd": (2, 2, 19, 37, 24), "several blocks": (1, 2, 40, 70, 64),
}  # fmt: skip
if COMPILED:
    SIZES |= {
        "video": (8, 6, 16, 16, 64), "text": (2, 6, 256, 256, 64),
        "long": (1, 2, 1000, 1300, 128), "narrow": (2, 3, 300, 211, 16),
    }  # fmt: skip
POSITIONS = {
    "in order": lambda b, n, s: torch.arange(n).clamp(max=s - 1),
    "all equal": lambda b, n, s: torch.full((n,), s // 2),
    "backwards": lambda b, n, s: torch.arange(n - 1, -1, -1).clamp(max=s - 1),
    "beyond the context": lambda b, n, s: torch.arange(n) + s - 3,
    "none": lambda b, n, s: torch.full((n,), -1),
    "by item, or none": lambda b, n, s: torch.randint(-1, s, (b, n), generator=generator(0, "positions")),
}
CASES = [  # size, positions, dtype, and the largest error as a fraction of the largest value
    *((size, "in order", torch.float32, 1e-5) for size in SIZES),
    *(("odd", positions, torch.float64, 1e-12) for positions in POSITIONS),
    ("odd", "in order", torch.float16, 2e-3),
    *[("odd", "in order", torch.bfloat16, 1.5e-2)] * COMPILED,  # the interpreter multiplies the bits of a bfloat16
]
NAMES = ("o", "lse", "q_bar", "k_bar", "v_bar", "o_dot", "mean", "q_bar_dot", "k_bar_dot", "v_bar_dot",
         "context_k_bar_dot", "context_v_bar_dot")
ROWS = ("q", "k", "v", "o_bar", "q_dot", "k_dot", "v_dot", "o_bar_dot")


def draw(batch, heads, n, s, e, dtype=torch.float64):
    """Tensors by name, stored in memory as [b n h e], the layout of a linear layer."""
    rows = dict.fromkeys(ROWS, n) | {"context_k": s, "context_v": s}
    return {
        name: torch.randn(batch, length, heads, e, generator=generator(0, name), dtype=torch.float64)
        .to(DEVICE, dtype).transpose(1, 2)
        for name, length in rows.items()
    }


def attend(q, k, v, context_k, context_v, positions):
    """The dense form: o and lse."""
    visible = visible_context(positions, context_k.shape[2])
    scores = (q @ context_k.mT).masked_fill(~visible, -torch.inf)
    scores = torch.cat([scores, (q * k).sum(-1, keepdim=True)], -1) * q.shape[-1] ** -0.5
    return two_stream_attention(q, k, v, context_k, context_v, visible), scores.logsumexp(-1)


def reference(given, positions):
    """The results of the four functions, by autograd in float64."""
    x = {name: tensor.detach().double().requires_grad_() for name, tensor in given.items()}
    context = x["context_k"], x["context_v"]
    own, dots = [x["q"], x["k"], x["v"]], [x["q_dot"], x["k_dot"], x["v_dot"]]
    o, lse = attend(*own, *context, positions)
    bars = torch.autograd.grad(o, own, x["o_bar"], create_graph=True)
    o_dot, mean = torch.func.jvp(lambda *rows: attend(*rows, *context, positions), tuple(own), tuple(dots))[1]
    along = (o * x["o_bar_dot"]).sum() + sum((a * b).sum() for a, b in zip(bars, dots, strict=True))
    seconds = torch.autograd.grad(along, [*own, *context])
    return dict(zip(NAMES, (o, lse, *bars, o_dot, mean, *seconds), strict=True))


def fused(given, positions):
    """The same by the kernels; each takes the results of those before it."""
    x = given
    qkv, dots = (kernels.QKV(*(x[f"{name}{end}"] for name in "qkv")) for end in ("", "_dot"))
    context = kernels.Context(x["context_k"], x["context_v"], positions)
    o, lse = kernels.forward(qkv, context)
    bars = kernels.adjoint(x["o_bar"], qkv, o, context, lse)
    o_dot, mean = kernels.tangent(dots, qkv, o, context, lse)
    seconds, of_context = kernels.adjoint_tangent(
        x["o_bar_dot"], x["o_bar"], dots, qkv, o, o_dot, context, lse, mean)
    return dict(zip(NAMES, (o, lse, *bars, o_dot, mean, *seconds, *of_context), strict=True))


@runs
@pytest.mark.parametrize(("size", "kind", "dtype", "tolerance"), CASES)
def test_kernels_equal_the_dense_form(size, kind, dtype, tolerance):
    """Compared with the dense form of the rounded tensors, in float64; states that no candidate sees have no effect."""
    b, h, n, s, e = SIZES[size]
    given, positions = draw(b, h, n, s, e, dtype), POSITIONS[kind](b, n, s).to(DEVICE)
    if dtype.itemsize == 2:
        positions = positions.int()
    unseen = ~visible_context(positions, s).reshape(-1, s).any(0)
    given["context_k"][:, :, unseen], given["context_v"][:, :, unseen] = 1e3, -1e3
    expected, found = reference(given, positions), fused(given, positions)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == value.shape, name
        error = (found[name].double() - value).abs().max() / value.abs().max().clamp(min=1e-3)
        assert error < tolerance, f"{name} is off by {error:.1e}"
    narrow = {name for name, value in found.items() if value.dtype == dtype}
    assert narrow == set(found) - ({"lse", "mean"} if dtype.itemsize == 2 else set())


@runs
def test_memory_layouts_do_not_matter():
    given = draw(*SIZES["odd"])
    positions = torch.arange(38, device=DEVICE)[::2]
    apart = {name: torch.stack([x, x], -1)[..., 0] for name, x in given.items()}
    assert apart["q"].stride(-1) == 2 and apart["q"].equal(given["q"])
    apart["v"] = given["v"] = given["v"][:1, :1].expand_as(given["v"])
    apart["context_k"] = given["context_k"].mT.contiguous().mT
    expected, found = fused(given, positions.contiguous()), fused(apart, positions)
    close(found, expected)


def test_missing_triton_and_unsupported_devices_are_refused(monkeypatch):
    given = draw(*SIZES["one state"])
    qkv = kernels.QKV(given["q"], given["k"], given["v"])
    context = kernels.Context(given["context_k"], given["context_v"], torch.arange(5, device=DEVICE))
    monkeypatch.setattr(kernels, "available", lambda device: False)
    if kernels.triton is not None:
        with pytest.raises(ValueError, match="compute capability"):
            kernels.forward(qkv, context)
    monkeypatch.undo()
    monkeypatch.setattr(kernels, "triton", None)
    assert not kernels.available(DEVICE)
    with pytest.raises(ImportError, match="pip install triton"):
        kernels.forward(qkv, context)


COMPILE = """
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction
from ebwm.gradient import kernels

class Driver:
    capability = 0
    get_current_device = lambda self: self.capability
    get_current_target = lambda self: GPUTarget("cuda", self.capability, 32)
    get_current_stream = lambda self, device: 0

def compile_only(self, *args, grid, warmup, **kwargs):
    kernel = launch(self, *args, grid=grid, warmup=True, **kwargs)
    print(Driver.capability, kernel.metadata.target.arch, kernel.metadata.shared, "mma" in kernel.asm["ptx"])

triton.runtime.driver.set_active(Driver())
launch, JITFunction.run, kernels.available = JITFunction.run, compile_only, lambda device: True
q, s = torch.zeros(2, 2, 70, 64, dtype=torch.bfloat16), torch.zeros(2, 2, 70)
qkv, context = kernels.QKV(q, q, q), kernels.Context(q, q, torch.arange(70))
for Driver.capability in (80, 90):
    kernels.forward(qkv, context)
    kernels.adjoint(q, qkv, q, context, s)
    kernels.tangent(qkv, qkv, q, context, s)
    kernels.adjoint_tangent(q, q, qkv, qkv, q, q, context, s, s)
"""


@pytest.mark.slow
@installed
def test_kernels_compile_for_other_gpus(tmp_path):
    """They use tensor cores and fit into 99 KiB of shared memory, which all GPUs since Ampere have."""
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[:2] for line in lines] == [["80", "80"]] * 5 + [["90", "90"]] * 5
    assert all(int(shared) <= 99 * 1024 and mma == "True" for *_, shared, mma in lines)
