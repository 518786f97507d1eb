"""The authors' models, from a checkout of github.com/alexiglad/EBT, as a reference for tests and benchmarks.

None of that code is included here. Stand-ins replace its heavy imports (Lightning, transformers, diffusers,
...) during the import; its models, losses and inner loops are unchanged. States replace the output of the
image encoder, and given initial candidates replace random ones. Float64 models compute in float64 (`exact`).
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ebwm import checks

KINDS = ("default", "time_embed", "adaln", "adaln_zero")
NAMES = ("nlp.ebt", "nlp.baseline_transformer", "vid.ebt", "vid.baseline_transformer", "ar_ebt_default",
         "ar_ebt_time_embed", "ar_ebt_adaln", "ar_transformer", "model_utils")
STOOD_IN = ("PIL", "datasets", "diffusers", "pytorch_lightning", "timm", "torchmetrics", "torchvision",
            "torchvision.models", "torchvision.transforms", "torchvision.utils", "transformers", "wandb")

# Settings with the defaults of all scripts; any of them can be given to a builder.
FLAGS = {
    "absolute_clamp": 0.0, "batch_size_per_device": 16, "clamp_futures_grad": False,
    "clamp_futures_grad_max_change": 9.0, "clamp_max_after_warm_up": 0.0, "contrastive_loss": False,
    "contrastive_loss_coeff": 0.0005, "denoising_initial_condition": "random_noise",
    "discrete_contrastive_loss_true_logit_val": 0.0, "dyt_alpha_init": 0.5, "ebt_act_func": "silu",
    "ebt_norm": "rms", "embeddings_distance_fn": "cosine", "energy_loss_coeff": 0.0, "energy_loss_fn": "MSE",
    "energy_loss_hinge": 0.0, "ffn_dim_multiplier": None, "gaussian_random_noise_scaling": 1.0,
    "langevin_dynamics_noise": 0.0, "langevin_dynamics_noise_learnable": False,
    "learnable_process_memory": False, "mcmc_replay_buffer": False,
    "mcmc_replay_buffer_sample_bs_percent": 0.5, "mcmc_replay_buffer_size": 192, "mcmc_step_size": 60.0,
    "mcmc_step_size_learnable": True, "no_mcmc_detach": False, "normalize_initial_condition": False,
    "normalize_initial_condition_only_first_step": False, "num_modality_processing_mlp_layers": 1,
    "out_of_bounds_loss_coeff": 0.0, "process_memory_linear_layer": False, "process_memory_type": None,
    "randomize_mcmc_num_steps": 0, "randomize_mcmc_num_steps_final_landscape": False,
    "randomize_mcmc_num_steps_min": 0, "randomize_mcmc_step_size_scale": 1, "reconstruction_coeff": 1.0,
    "scale_cosine_sim_decay": 7, "sdxl_vae_standardization": False, "sharpen_predicted_distribution": 0.0,
    "soften_target_prob_dist": 0.0, "truncate_mcmc": False, "vocab_to_embed_uses_prob_dist": False,
    "weight_initialization_gain": 1.0, "weight_initialization_method": "xavier",
}
VIDEO_S1 = {"mcmc_step_size": 30_000.0}
TEXT_S1 = {"mcmc_step_size": 500.0, "batch_size_per_device": 32, "normalize_initial_condition": True}


class Official(NamedTuple):
    """Model classes of a checkout."""

    video: type[nn.Module]  # EBT_VID
    text: type[nn.Module]  # EBT_NLP
    video_baseline: type[nn.Module]  # Baseline_Transformer_VID
    text_baseline: type[nn.Module]  # Baseline_Transformer_NLP
    modules: dict[str, ModuleType]  # all modules imported from the checkout, by full name


class HParams(dict):
    """Settings by key or as attributes, like Lightning's."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    __setattr__ = dict.__setitem__


class Module(nn.Module):
    """The parts of a LightningModule that the models use."""

    def __init__(self):
        super().__init__()
        self.hparams = HParams()

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.parameters()), torch.device("cpu"))


class Tokenizer:
    """A tokenizer with a number of tokens only, which the builders pass as its name."""

    eos_token_id = 0

    def __init__(self, tokens: int):
        self.tokens = tokens

    @classmethod
    def from_pretrained(cls, name: int, **_) -> "Tokenizer":
        return cls(name)

    def __len__(self) -> int:
        return self.tokens


class Encoder(nn.Module):
    """An image encoder that returns its input."""

    @classmethod
    def from_pretrained(cls, _: str) -> "Encoder":
        return cls()

    def encode(self, states: Tensor) -> SimpleNamespace:
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=states.clone()))


class StandIn(ModuleType):
    """A package whose attributes are empty classes unless they are set."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def _stand_ins() -> dict[str, ModuleType]:
    found = {name: StandIn(name) for name in STOOD_IN}
    found["pytorch_lightning"].LightningModule = Module
    found["transformers"].AutoTokenizer = Tokenizer
    found["diffusers"].AutoencoderKL = Encoder
    return found


def _of_checkout(name: str) -> bool:
    return name.split(".")[0] == "model"


@contextmanager
def _present(modules: Mapping[str, ModuleType]) -> Iterator[None]:
    """Put modules in sys.modules, without other packages named `model`; restore it at the end."""
    def ours():
        return {name: m for name, m in sys.modules.items() if name in modules or _of_checkout(name)}

    before = ours()
    for name in before:
        del sys.modules[name]
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in ours():
            del sys.modules[name]
        sys.modules.update(before)


def import_modules(
    folder: Path,  # the checkout, which contains the package `model`; it is not modified
    names: tuple[str, ...] = NAMES,  # modules of that package
) -> dict[str, ModuleType]:  # all modules imported from it, by full name
    """Import modules of a checkout with stand-ins for heavy packages; sys.modules is restored."""
    path = patch.object(sys, "path", [str(folder), *sys.path])
    with _present(_stand_ins()), path, patch.object(sys, "dont_write_bytecode", True):
        for name in names:
            import_module(f"model.{name}")
        return {name: module for name, module in sys.modules.items() if _of_checkout(name)}


def load(
    path: str | Path | None = None,  # the checkout; None: the environment variable OFFICIAL_EBT
) -> Official:
    """Import the official models."""
    path = path or os.environ.get("OFFICIAL_EBT")
    if not path:
        raise ValueError("OFFICIAL_EBT is not set: must be a checkout of github.com/alexiglad/EBT")
    folder = Path(path).resolve()
    missing = [f"model/{name.replace('.', '/')}.py" for name in NAMES]
    missing = [name for name in missing if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"path={path}: must be a checkout of github.com/alexiglad/EBT; has no {missing[0]}")
    modules = import_modules(folder)
    return Official(
        modules["model.vid.ebt"].EBT_VID,
        modules["model.nlp.ebt"].EBT_NLP,
        modules["model.vid.baseline_transformer"].Baseline_Transformer_VID,
        modules["model.nlp.baseline_transformer"].Baseline_Transformer_NLP,
        modules,
    )


def _settings(script: Mapping, given: Mapping, **shape: Any) -> dict:
    """Settings of a model: the defaults, those of a script, then the given ones."""
    for name in given:
        checks.one_of("flag", name, FLAGS)
    checks.one_of("kind", shape.get("ebt_type", "default"), KINDS)
    fixed = {"debug_unused_parameters": False, "execution_mode": "pretrain", "backbone_type": "vae",
             "vit_backbone_size": "base", "weight_tie_vae_proj": False}
    return FLAGS | script | given | fixed | shape


def _shape(dim: int, depth: int, heads: int, length: int) -> dict[str, int]:
    return {"embedding_dim": dim, "num_transformer_blocks": depth, "multiheaded_attention_heads": heads,
            "context_length": length}


@contextmanager
def _building(official: Official, seed: int) -> Iterator[None]:
    """Build a model: its modules import each other then, and draw weights from the global generator."""
    with _present(official.modules), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _project(official: Official, model: nn.Module, dim: int, encoder_dim: int) -> None:
    """Replace the maps of a video model, which are for 3,136 features, by maps for any width."""
    if encoder_dim == model.encoder_dim:
        return
    model.encoder_dim = encoder_dim
    sizes = {"encoder_down_projection": (encoder_dim, dim), "encoder_up_projection": (dim, encoder_dim)}
    for name in sizes.keys() & dict(model.named_children()).keys():
        new = nn.Identity() if encoder_dim == dim else nn.Linear(*sizes[name])
        official.modules["model.model_utils"].init_whole_model_weights(new, "xavier")
        setattr(model, name, new)


def _video(
    official: Official, made: type[nn.Module], settings: dict, encoder_dim: int | None, seed: int
) -> nn.Module:
    dim = settings["embedding_dim"]
    with _building(official, seed):
        model = made(settings)
        _project(official, model, dim, encoder_dim or dim)
    return model


def video(
    official: Official,  # from `load`
    dim: int,  # width of the model
    depth: int,  # layers
    heads: int,  # attention heads
    length: int,  # maximum number of states
    steps: int = 2,  # sampling steps; each has another landscape unless kind is "default"
    kind: str = "time_embed",  # one of KINDS
    encoder_dim: int | None = None,  # features of a state, projected to dim; None: dim, without projection
    dtype: torch.dtype = torch.float32,  # of the weights
    seed: int = 0,  # of the initial weights
    **flags: Any,  # settings that differ from its S1 script, such as truncate_mcmc=True; see FLAGS
) -> nn.Module:
    """The official EBT for states with the settings of its S1 video script, without an image encoder."""
    shape = _shape(dim, depth, heads, length) | {"mcmc_num_steps": steps, "ebt_type": kind}
    settings = _settings(VIDEO_S1, flags, **shape)
    return _video(official, official.video, settings, encoder_dim, seed).to(dtype)


def video_baseline(
    official: Official,  # from `load`
    dim: int,  # width of the model
    depth: int,  # layers
    heads: int,  # attention heads
    length: int,  # maximum number of states
    encoder_dim: int | None = None,  # features of a state, projected to dim and back; None: dim
    dtype: torch.dtype = torch.float32,  # of the weights
    seed: int = 0,  # of the initial weights
) -> nn.Module:
    """The official Transformer++ for states, without an image encoder."""
    settings = _settings({}, {}, **_shape(dim, depth, heads, length))
    return _video(official, official.video_baseline, settings, encoder_dim, seed).to(dtype)


def text(
    official: Official,  # from `load`
    vocabulary: int,  # number of tokens; token 0 is the end of a text and padding, ignored in the loss
    dim: int,  # width of the model
    depth: int,  # layers
    heads: int,  # attention heads
    length: int,  # maximum number of tokens
    steps: int = 2,  # sampling steps; each has another landscape unless kind is "default"
    kind: str = "time_embed",  # one of KINDS
    dtype: torch.dtype = torch.float32,  # of the weights
    seed: int = 0,  # of the initial weights
    **flags: Any,  # settings that differ from its S1 script, such as no_mcmc_detach=True; see FLAGS
) -> nn.Module:
    """The official EBT for tokens with the settings of its S1 text script."""
    shape = _shape(dim, depth, heads, length) | {"mcmc_num_steps": steps, "ebt_type": kind}
    with _building(official, seed):
        return official.text(_settings(TEXT_S1, flags, tokenizer=vocabulary, **shape)).to(dtype)


def text_baseline(
    official: Official,  # from `load`
    vocabulary: int,  # number of tokens, as for `text`
    dim: int,  # width of the model
    depth: int,  # layers
    heads: int,  # attention heads
    length: int,  # maximum number of tokens
    dtype: torch.dtype = torch.float32,  # of the weights
    seed: int = 0,  # of the initial weights
) -> nn.Module:
    """The official Transformer++ for tokens."""
    settings = _settings(TEXT_S1, {}, tokenizer=vocabulary, **_shape(dim, depth, heads, length))
    with _building(official, seed):
        return official.text_baseline(settings).to(dtype)


def _is_ebt(model: nn.Module) -> bool:
    return hasattr(model, "corrupt_embeddings")


@contextmanager
def exact(
    model: nn.Module,  # an official model; no effect unless its weights are float64
) -> Iterator[None]:
    """Compute in float64 with a float64 model: `Tensor.float` does not round, and angles are exact."""
    if next(model.parameters()).dtype != torch.float64:
        yield
        return
    body, params = model.transformer, model.transformer.params
    angles = type(body).__init__.__globals__["precompute_freqs_cis"]
    with patch.object(torch.Tensor, "float", torch.Tensor.double):
        table = angles(params.dim // params.n_heads, params.max_seq_len)
        with patch.object(body, "freqs_cis", table):
            yield


def starting_from(model: nn.Module, start: Tensor | None) -> AbstractContextManager:
    """Start an EBT from the given candidates instead of random ones."""
    if _is_ebt(model) != (start is not None):
        given, rule = ("None", "must be initial candidates of an EBT") if start is None else (
            f"tensor {list(start.shape)}", "must be None for a baseline")
        raise ValueError(f"start={given}: {rule}")
    if start is None:
        return nullcontext()
    return patch.object(model, "corrupt_embeddings", lambda _: start.detach().clone())


def training_step(
    model: nn.Module,  # from one of the builders
    batch: Tensor,  # states [b s+1 features], or tokens [b s+1]
    start: Float[Tensor, "b s c"] | None = None,  # initial candidates: states or logits; none for a baseline
) -> Float[Tensor, ""]:  # the loss; call backward on it
    """The loss of one training step by the model's forward pass and loss.

    Other random numbers of S2 (noise, step sizes, numbers of steps) come from the global generator.
    """
    batch = batch if batch.is_floating_point() else {"input_ids": batch}
    with exact(model), starting_from(model, start):
        return model.forward_loss_wrapper(batch)["loss"]


def inner_gradient(
    model: nn.Module,  # an EBT
    states: Tensor,  # context: states [b s features], or tokens [b s]
    candidates: Float[Tensor, "b s c"],  # states, or logits
    step: int = 0,  # index of the sampling step, if landscapes differ
) -> tuple[Float[Tensor, "b s"], Float[Tensor, "b s c"]]:  # energies, and their gradient
    """One step of its inner loop, without a graph.

    For tokens, the gradient is that with respect to the probabilities, as in its update.
    """
    found, differentiate = [], torch.autograd.grad

    def noted(*given, **named):
        found.extend(differentiate(*given, **named))
        return found

    def at_step(_, given, named):
        return given, named | {"mcmc_step": step}

    one = patch.dict(model.hparams, mcmc_num_steps=1, randomize_mcmc_num_steps=0)
    note = patch.object(torch.autograd, "grad", noted)
    with exact(model), starting_from(model, candidates), one, note:
        with model.transformer.register_forward_pre_hook(at_step, with_kwargs=True):
            energies = model(states, learning=False)[1][0]
    return energies.detach().view(states.shape[:2]), found[0]


def walk(
    model: nn.Module,  # an EBT
    states: Tensor,  # context: states [b s features], or tokens [b s]
    candidates: Float[Tensor, "b s c"],  # states, or logits
) -> Float[Tensor, "b s c"]:  # final candidates
    """A prediction at every position; it processes the whole sequence for each new state, in every step."""
    with exact(model), starting_from(model, candidates):
        return model(states, learning=False)[0][-1].detach().view(candidates.shape)


def _logits(model: nn.Module, tokens: Tensor, start: Tensor | None) -> Tensor:
    seen = None if start is None else start[:, :tokens.shape[1]]
    with starting_from(model, seen):
        outputs = model(tokens, start_pos=0, learning=False, return_raw_logits=True)
    return outputs[0][-1] if _is_ebt(model) else outputs


@torch.no_grad()
def generate(
    model: nn.Module,  # an EBT or a baseline for text
    tokens: Int[Tensor, "b s"],  # the prompt
    new: int,  # number of tokens to append; it does not stop at the end of a text
    start: Float[Tensor, "b longer v"] | None = None,  # initial candidates of every position but the last
) -> Int[Tensor, "b longest"]:  # the prompt and its continuation
    """Greedy generation by its method: the whole sequence and all candidates again for each new token."""
    total, longest = tokens.shape[1] + new, model.hparams.context_length
    if total > longest:
        raise ValueError(f"new={new}: the prompt and new tokens must be at most {longest}, not {total}")
    with exact(model):
        for _ in range(new):
            follows = _logits(model, tokens, start)[:, -1:].argmax(-1)
            tokens = torch.cat([tokens, follows], 1)
    return tokens
