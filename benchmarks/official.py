"""The authors' own models, from a checkout of github.com/alexiglad/EBT, to measure and compare with.

Nothing of that code is kept here. Its heavy imports (Lightning, transformers, diffusers, ...) have stand-ins
while it is imported; its models, losses and inner loops are its own. In place of an image encoder the states
come as they are, and in place of drawn initial candidates the given ones. A float64 model computes in float64
throughout: see `exact`.
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

KINDS = ("default", "time_embed", "adaln", "adaln_zero")
NAMES = ("nlp.ebt", "nlp.baseline_transformer", "vid.ebt", "vid.baseline_transformer", "ar_ebt_default",
         "ar_ebt_time_embed", "ar_ebt_adaln", "ar_transformer", "model_utils")
STOOD_IN = ("PIL", "datasets", "diffusers", "pytorch_lightning", "timm", "torchmetrics", "torchvision",
            "torchvision.models", "torchvision.transforms", "torchvision.utils", "transformers", "wandb")

# Settings of the models that every script leaves at their defaults; any of them can be given to a builder.
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
    """The model classes of a checkout."""

    video: type[nn.Module]  # EBT_VID
    text: type[nn.Module]  # EBT_NLP
    video_baseline: type[nn.Module]  # Baseline_Transformer_VID
    text_baseline: type[nn.Module]  # Baseline_Transformer_NLP
    modules: dict[str, ModuleType]  # every module of the checkout that was imported, by its full name


class HParams(dict):
    """Settings by key or as attributes, like Lightning's."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    __setattr__ = dict.__setitem__


class Module(nn.Module):
    """What the models need of a LightningModule."""

    def __init__(self):
        super().__init__()
        self.hparams = HParams()

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.parameters()), torch.device("cpu"))


class Tokenizer:
    """A tokenizer that knows its number of tokens only; the builders pass that number as its name."""

    eos_token_id = 0

    def __init__(self, tokens: int):
        self.tokens = tokens

    @classmethod
    def from_pretrained(cls, name: int, **_) -> "Tokenizer":
        return cls(name)

    def __len__(self) -> int:
        return self.tokens


class Encoder(nn.Module):
    """An image encoder whose images are states already."""

    @classmethod
    def from_pretrained(cls, _: str) -> "Encoder":
        return cls()

    def encode(self, states: Tensor) -> SimpleNamespace:
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=states.clone()))


class StandIn(ModuleType):
    """A package that isn't there: whatever is imported from it is an empty class, unless given."""

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
    """Have these modules, and no other package called `model`, in sys.modules; then what was there before."""
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
    folder: Path,  # the checkout, which holds the package `model`; nothing is written there
    names: tuple[str, ...] = NAMES,  # modules of that package
) -> dict[str, ModuleType]:  # all that were imported from it, by full name
    """Import modules of a checkout with stand-ins for heavy packages; sys.modules is left as it was."""
    path = patch.object(sys, "path", [str(folder), *sys.path])
    with _present(_stand_ins()), path, patch.object(sys, "dont_write_bytecode", True):
        for name in names:
            import_module(f"model.{name}")
        return {name: module for name, module in sys.modules.items() if _of_checkout(name)}


def load(
    path: str | Path | None = None,  # the checkout; by default where OFFICIAL_EBT points
) -> Official:  # its models
    """Import the official models."""
    path = path or os.environ.get("OFFICIAL_EBT")
    if not path:
        raise ValueError("OFFICIAL_EBT isn't set: give the path of a checkout of github.com/alexiglad/EBT")
    folder = Path(path).resolve()
    missing = [f"model/{name.replace('.', '/')}.py" for name in NAMES]
    missing = [name for name in missing if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{path} isn't a checkout of github.com/alexiglad/EBT: it has no {missing[0]}")
    modules = import_modules(folder)
    return Official(
        modules["model.vid.ebt"].EBT_VID,
        modules["model.nlp.ebt"].EBT_NLP,
        modules["model.vid.baseline_transformer"].Baseline_Transformer_VID,
        modules["model.nlp.baseline_transformer"].Baseline_Transformer_NLP,
        modules,
    )


def _settings(script: Mapping, given: Mapping, **shape: Any) -> dict:
    """All that a model reads of its settings: the defaults, the script's, then those given."""
    for name in given:
        if name not in FLAGS:
            raise ValueError(f"{name} isn't a flag of the official models; the flags are {', '.join(FLAGS)}")
    if (kind := shape.get("ebt_type", "default")) not in KINDS:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}")
    fixed = {"debug_unused_parameters": False, "execution_mode": "pretrain", "backbone_type": "vae",
             "vit_backbone_size": "base", "weight_tie_vae_proj": False}
    return FLAGS | script | given | fixed | shape


def _shape(dim: int, depth: int, heads: int, length: int) -> dict[str, int]:
    return {"embedding_dim": dim, "num_transformer_blocks": depth, "multiheaded_attention_heads": heads,
            "context_length": length}


@contextmanager
def _building(official: Official, seed: int) -> Iterator[None]:
    """Its modules import each other as late as when a model is made, and draw weights from global streams."""
    with _present(official.modules), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _project(official: Official, model: nn.Module, dim: int, encoder_dim: int) -> None:
    """Give a video model maps for states of any width: its own are for 3,136 features only."""
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
    length: int,  # states it sees at most
    steps: int = 2,  # steps of a candidate, each with a landscape of its own unless kind is "default"
    kind: str = "time_embed",  # one of KINDS
    encoder_dim: int | None = None,  # features of a state, projected down to dim; dim itself unless given
    dtype: torch.dtype = torch.float32,  # of the weights
    seed: int = 0,  # of the initial weights
    **flags: Any,  # other settings than its S1 script's, such as truncate_mcmc=True; see FLAGS
) -> nn.Module:
    """The official EBT for states, set as in its S1 video script, without an image encoder."""
    shape = _shape(dim, depth, heads, length) | {"mcmc_num_steps": steps, "ebt_type": kind}
    settings = _settings(VIDEO_S1, flags, **shape)
    return _video(official, official.video, settings, encoder_dim, seed).to(dtype)


def video_baseline(
    official: Official,  # from `load`
    dim: int,  # width of the model
    depth: int,  # layers
    heads: int,  # attention heads
    length: int,  # states it sees at most
    encoder_dim: int | None = None,  # features of a state, projected to dim and back; dim itself unless given
    dtype: torch.dtype = torch.float32,  # of the weights
    seed: int = 0,  # of the initial weights
) -> nn.Module:
    """The official Transformer++ for states, without an image encoder."""
    settings = _settings({}, {}, **_shape(dim, depth, heads, length))
    return _video(official, official.video_baseline, settings, encoder_dim, seed).to(dtype)


def text(
    official: Official,  # from `load`
    vocabulary: int,  # tokens there are; token 0 ends a text and fills it up, and is left out of the loss
    dim: int,  # width of the model
    depth: int,  # layers
    heads: int,  # attention heads
    length: int,  # tokens it sees at most
    steps: int = 2,  # steps of a candidate, each with a landscape of its own unless kind is "default"
    kind: str = "time_embed",  # one of KINDS
    dtype: torch.dtype = torch.float32,  # of the weights
    seed: int = 0,  # of the initial weights
    **flags: Any,  # other settings than its S1 script's, such as no_mcmc_detach=True; see FLAGS
) -> nn.Module:
    """The official EBT for tokens, set as in its S1 text script."""
    shape = _shape(dim, depth, heads, length) | {"mcmc_num_steps": steps, "ebt_type": kind}
    with _building(official, seed):
        return official.text(_settings(TEXT_S1, flags, tokenizer=vocabulary, **shape)).to(dtype)


def text_baseline(
    official: Official,  # from `load`
    vocabulary: int,  # tokens there are, as for `text`
    dim: int,  # width of the model
    depth: int,  # layers
    heads: int,  # attention heads
    length: int,  # tokens it sees at most
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
    model: nn.Module,  # an official model; nothing happens unless its weights are float64
) -> Iterator[None]:
    """Let a float64 model compute in float64: `Tensor.float` is no rounding here, and angles are exact."""
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
    """Have an EBT start from the given candidates in place of what it would draw."""
    if _is_ebt(model) != (start is not None):
        needs = "an EBT needs initial candidates" if start is None else "a baseline has no candidates"
        raise ValueError(f"start is {None if start is None else list(start.shape)}: {needs}")
    if start is None:
        return nullcontext()
    return patch.object(model, "corrupt_embeddings", lambda _: start.detach().clone())


def training_step(
    model: nn.Module,  # from one of the builders
    batch: Tensor,  # states [b s+1 features], or tokens [b s+1]
    start: Float[Tensor, "b s c"] | None = None,  # initial candidates: states or logits; none for a baseline
) -> Float[Tensor, ""]:  # the loss; call backward on it
    """The loss of one training step, by the model's own forward and its own loss.

    What else an S2 setting draws (noise, step sizes, numbers of steps) comes from torch's global stream.
    """
    batch = batch if batch.is_floating_point() else {"input_ids": batch}
    with exact(model), starting_from(model, start):
        return model.forward_loss_wrapper(batch)["loss"]


def inner_gradient(
    model: nn.Module,  # an EBT
    states: Tensor,  # what it sees: states [b s features], or tokens [b s]
    candidates: Float[Tensor, "b s c"],  # states, or logits
    step: int = 0,  # the landscape, where each step has its own
) -> tuple[Float[Tensor, "b s"], Float[Tensor, "b s c"]]:  # energies, and their gradient
    """One step of its inner loop, whole, not to be differentiated again.

    Where it turns logits into probabilities first, the gradient is to the probabilities, as in its update.
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
    states: Tensor,  # what it sees: states [b s features], or tokens [b s]
    candidates: Float[Tensor, "b s c"],  # states, or logits
) -> Float[Tensor, "b s c"]:  # where its walk ends
    """A prediction at every position, as it makes one for each new state: the whole sequence, every step."""
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
    new: int,  # tokens to append; it doesn't stop at the end of a text
    start: Float[Tensor, "b longer v"] | None = None,  # initial candidates of every position but the last
) -> Int[Tensor, "b longest"]:  # the prompt and what follows
    """Greedy generation its way: the whole sequence anew, all its candidates too, for each new token."""
    total, longest = tokens.shape[1] + new, model.hparams.context_length
    if total > longest:
        raise ValueError(f"new is {new}: with the prompt that makes {total} tokens, above {longest}")
    with exact(model):
        for _ in range(new):
            follows = _logits(model, tokens, start)[:, -1:].argmax(-1)
            tokens = torch.cat([tokens, follows], 1)
    return tokens
