"""Cases of the benchmark: sizes, contenders, and a function to time for each of them."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import official as theirs
from ebwm.baselines import Transformer
from ebwm.ebt import EBT
from ebwm.evaluation.cost import Shape, ebt_training, transformer_training
from ebwm.interop import to_official
from ebwm.objective import S1, smooth_l1
from ebwm.sampler import evaluate, gradient_descent, run
from ebwm.settings import generator

PLAIN, OFFICIAL = "Transformer++", "official"
EAGER, MANUAL, FUSED, COMPILED = "eager", "manual", "fused", "compiled"
OURS = {EAGER: {"gradient": "eager"}, MANUAL: {"gradient": "handwritten"}, FUSED: {"gradient": "fused"},
        COMPILED: {"compile": True}}  # compiled with the fused kernels where there are any
LENGTHS = (16, 256, 1024, 4096)  # of the contexts on a GPU


@dataclass(frozen=True)
class Case:
    """One comparison: every contender does the same work on the same weights and inputs."""

    name: str
    kind: str  # "training", "inner gradient" or "generation"
    batch: int
    length: int
    dim: int = 384
    depth: int = 6
    heads: int = 6
    steps: int = 2
    vocabulary: int | None = None  # number of tokens; None: states are vectors
    contenders: tuple[str, ...] = (PLAIN, OFFICIAL, EAGER, MANUAL, COMPILED)
    memory: bool = False  # also measure peak memory
    device: str = "cpu"  # "cpu" or "cuda"
    precision: str = "float32"  # "float32", or "bf16": products in bfloat16

    @property
    def flops(self) -> dict[str, float]:
        """FLOPs of a training step of the Transformer++ and of the EBT, with masked entries of attention."""
        shape = Shape(self.dim, self.depth, self.batch, self.length)
        plain, ebt = transformer_training(shape).total, ebt_training(shape, self.steps).total
        row = 2 * self.batch * self.length * self.dim
        maps = (3 * self.steps + 2) * row * self.vocabulary if self.vocabulary else 0
        return {PLAIN: plain + 3 * row * (self.vocabulary or self.dim), MANUAL: ebt + maps}

    @property
    def bound(self) -> float:  # of a training step of the EBT, in training steps of the Transformer++
        """Ratio of FLOPs: nearly 2 n + 1, with attention and the products of the vocabulary."""
        return self.flops[MANUAL] / self.flops[PLAIN]

    @property
    def autocast(self) -> AbstractContextManager:
        """The context of a forward pass."""
        return torch.autocast(self.device, torch.bfloat16) if self.precision == "bf16" else nullcontext()


VIDEO = Case("video", "training", batch=16, length=16, memory=True)
TEXT = Case("text body", "training", batch=8, length=256, memory=True)
CASES = (
    VIDEO,
    replace(VIDEO, name="video, 12 layers", depth=12, memory=False),
    replace(VIDEO, name="video, n = 8", steps=8),
    TEXT,
    replace(TEXT, name="text body, n = 8", batch=2, steps=8),
    replace(TEXT, name="text, V = 50,277", batch=2, vocabulary=50_277,
            contenders=(PLAIN, OFFICIAL, EAGER, MANUAL)),
    Case("video, inner gradient", "inner gradient", 16, 16, contenders=(OFFICIAL, EAGER, MANUAL, COMPILED)),
    Case("text, inner gradient", "inner gradient", 8, 256, contenders=(OFFICIAL, EAGER, MANUAL, COMPILED)),
    Case("generation, S = 64", "generation", 1, 64, contenders=(PLAIN, OFFICIAL, MANUAL)),
    Case("generation, S = 256", "generation", 1, 256, contenders=(PLAIN, OFFICIAL, MANUAL)),
)


def cost_cases() -> list[tuple[str, int, Case]]:  # axis, value, case
    """Cases for the cost of a training step by number of steps, context length, width and batch size."""
    base = replace(VIDEO, contenders=(PLAIN, EAGER, MANUAL), memory=False)
    axes = {
        "steps": [replace(base, steps=n) for n in (1, 2, 4, 8)],
        "length": [replace(base, batch=256 // s, length=s) for s in (16, 64, 256)],
        "dim": [replace(base, dim=d, heads=d // 64) for d in (128, 256, 384, 768)],
        "batch": [replace(base, batch=b) for b in (1, 4, 16, 64)],
    }
    return [(axis, getattr(case, axis), case) for axis, cases in axes.items() for case in cases]


def gpu_cases(lengths: Sequence[int], precision: str) -> list[Case]:
    """Cases for a GPU, at several lengths of the context; on a CPU where there is none, to test the program.

    A batch has 8,192 states, or 4,096 at the largest length, where eager attention would not fit into 80 GB.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    contenders = (PLAIN, OFFICIAL, EAGER, MANUAL, FUSED, COMPILED)
    return [Case(f"S = {s:,}, {precision}", "training", 4096 // s if s >= 4096 else 8192 // s, s,
                 contenders=contenders, device=device, precision=precision) for s in lengths]


def small(case: Case) -> Case:
    """The same comparison at a tiny size, to test the program; nothing is compiled."""
    words = 101 if case.vocabulary else None
    contenders = tuple(name for name in case.contenders if name != COMPILED)
    sizes = {"batch": 2, "length": 16, "dim": 32, "heads": 2, "depth": 2}
    return replace(case, **sizes, vocabulary=words, contenders=contenders)


class Unembedded(nn.Identity):
    """States as they are, in place of an embedding; a model computes in the dtype of the empty `weight`."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.empty(0))


def plain_model(case: Case) -> nn.Module:
    """The Transformer++ of a case; vectors have the width of the model and are not embedded."""
    sizes = {"dim": case.dim, "depth": case.depth, "heads": case.heads}
    model = Transformer(**sizes, vocabulary=case.vocabulary, generator=generator(0, "weights"))
    if not case.vocabulary:
        model.embed = Unembedded()
    return model.to(case.device)


def our_model(case: Case, **options: object) -> EBT:
    """The EBT of a case, always with the same weights."""
    maps = {"vocabulary": case.vocabulary} if case.vocabulary else {"embed": "identity"}
    return EBT(case.dim, case.depth, case.heads, generator=generator(0, "weights"), **maps, **options).to(case.device)


def their_model(case: Case, official: theirs.Official) -> nn.Module:
    """The official EBT with our weights."""
    sizes = (case.dim, case.depth, case.heads, case.length + 1, case.steps)
    if case.vocabulary:
        model = theirs.text(official, case.vocabulary, *sizes, kind="default")
    else:
        model = theirs.video(official, *sizes, kind="default")
    model.load_state_dict(to_official(our_model(case)))
    return model.to(case.device)


def data(case: Case) -> tuple[Tensor, Tensor]:  # sequences, initial candidates
    """Inputs of a case; sequences have one state more than the context."""
    size = (case.batch, case.length + 1)
    g = generator(0, "data")
    if case.vocabulary:
        tokens = torch.randint(1, case.vocabulary, size, generator=g)
        sequences, start = tokens, torch.randn(case.batch, case.length, case.vocabulary, generator=g)
    else:
        sequences = torch.randn(*size, case.dim, generator=g)
        start = torch.randn(case.batch, case.length, case.dim, generator=g)
    return sequences.to(case.device), start.to(case.device)


def training(case: Case, name: str, official: theirs.Official | None) -> Callable[[], None]:
    """A training step of one contender, up to the gradients."""
    forward = loss_of(case, name, official)

    def step() -> None:
        with case.autocast:
            loss = forward()
        loss.backward()

    return step


def loss_of(case: Case, name: str, official: theirs.Official | None) -> Callable[[], Tensor]:
    """The loss of one contender."""
    sequences, start = data(case)
    states, targets = sequences[:, :-1], sequences[:, 1:]
    if name == OFFICIAL:
        model = their_model(case, official)
        return lambda: theirs.training_step(model, sequences, start)
    if name == PLAIN:
        model = plain_model(case)
        loss = (lambda y, t: F.cross_entropy(y.flatten(0, 1), t.flatten())) if case.vocabulary else smooth_l1
        return lambda: loss(model(states), targets)
    model = our_model(case, **OURS[name])
    recipe = S1(case.steps, stream=name != EAGER)
    return lambda: recipe(model, states, targets, start=start)


def inner_gradient(case: Case, name: str, official: theirs.Official | None) -> Callable[[], None]:
    """Energies and gradient of one sampling step; ours with an encoded context."""
    sequences, start = data(case)
    states = sequences[:, :-1]
    if name == OFFICIAL:
        model = their_model(case, official)
        return lambda: theirs.inner_gradient(model, states, start)
    with torch.no_grad():
        landscape = our_model(case, **OURS[name]).landscape(states)
    return lambda: evaluate(landscape, start)


def generation(case: Case, name: str, official: theirs.Official | None) -> Callable[[], None]:
    """The state after S others, eight times; ours and the Transformer++ with a KV cache."""
    sequences, start = data(case)
    states = sequences[:, :-1]
    if name == OFFICIAL:
        model = their_model(case, official)
        step = lambda: theirs.walk(model, states, start)
    else:
        step = plain_generation(case, states) if name == PLAIN else our_generation(case, name, states, start)
    return lambda: [step() for _ in range(8)]


def our_generation(case: Case, name: str, states: Tensor, start: Tensor) -> Callable[[], None]:
    """Append the last state to a cache of the others, and sample."""
    model = our_model(case, **OURS[name])
    cache, kernel = model.cache(case.batch, case.length), gradient_descent(model.step_size)
    cache.append(states[:, :-1])

    @torch.no_grad()
    def step() -> None:
        run(cache.append(states[:, -1:]), start[:, -1:], kernel, case.steps, final_energy=False)
        cache.rewind(case.length - 1)

    return step


def plain_generation(case: Case, states: Tensor) -> Callable[[], None]:
    """Append the last state to a cache of the others in the Transformer++."""
    cache = plain_model(case).cache(case.batch, case.length)
    cache.append(states[:, :-1])

    def step() -> None:
        cache.append(states[:, -1:])
        cache.rewind(case.length - 1)

    return step


FUNCTIONS = {"training": training, "inner gradient": inner_gradient, "generation": generation}


def function_of(case: Case, name: str, official: theirs.Official | None) -> Callable[[], None]:
    """The function of one contender in a case."""
    return FUNCTIONS[case.kind](case, name, official)
