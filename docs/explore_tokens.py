"""Files of the page of the tokens explorer: recorded walks and models."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import explore_assets
import explorers
import torch

from ebwm.writing import INCLUDED, Language, load_language

STEPS, WALKS, TOP = 8, 8, 10  # as in tokens_model.js
MODELS = {"text": ("prefill.onnx", "step.onnx"), "text_transformer": ("forward.onnx",)}
EXAMPLES = (  # a context and its continuation; sorted by the measured entropy
    ("Return the number of items in the list. If the argument is not a list, raise a Type", "Error"),
    ("Open the file for reading and return a new", " file"),
    ("Raises a ValueError if x is", " not"),
    ("Create a new", " object"),
    ("The weather in the north of the", " country"),
)


# Files


def write(
    folder: Path,  # of the scripts of explorers in the built site
    cache: Path | None = None,  # keeps packages and exported models; None: that of the settings
) -> None:
    """Write the recorded walks and, if they can be made here, the models."""
    size = explore_assets.write(folder, "tokens", MODELS, load, cache)
    explorers.write_data(folder, "tokens", recorded() | {"bytes": size})


def load(
    folder: Path,  # of an included model of text
) -> Any:
    """The model."""
    return load_language(folder).model


# Recorded walks


def recorded() -> dict[str, Any]:
    """Everything that the page shows without the models: the tokenizer, and the walks of the examples at seed 0."""
    ebt, transformer = (load_language(INCLUDED / name) for name in MODELS)
    states = [{"text": text, "following": following, **state(ebt, transformer, text, following)}
              for text, following in EXAMPLES]
    states.sort(key=lambda made: made["entropies"][0][2])
    tokenizer = json.loads(ebt.tokenizer._json())["model"]
    return {"tokenizer": {name: tokenizer[name] for name in ("vocab", "merges")}, "end": ebt.tokenizer.end,
            "window": ebt.config.data.length, "stepSize": ebt.model.step_size.item(), "examples": states}


@torch.no_grad()
def state(
    ebt: Language,  # walks to the next token
    transformer: Language,  # predicts it in one pass
    text: str,  # context
    following: str,  # text that begins with the next token
    seed: int = 0,  # of the starts
) -> dict[str, Any]:  # as `predict` of tokens_model.js
    """Walks to the next token of a text, step by step."""
    tokens = torch.tensor([ebt.prompt(text)[-ebt.config.data.length :]])
    truth = ebt.tokenizer.encode(following)[0]
    logits, energies = _walks(ebt, tokens, seed)
    entropies, likely, truths = zip(*(_facts(walk, truth) for walk in logits.unbind(1)), strict=True)
    entropy, top, known = _facts(transformer.model(tokens)[0, -1:], truth)
    return {"truth": truth, "energies": [_short(walk) for walk in energies.T], "entropies": entropies,
            "likely": likely, "truths": truths,
            "transformer": {"entropy": entropy[0], "likely": top[0], "truth": known[0]}}


def _walks(ebt: Language, tokens: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [STEPS + 1, WALKS, vocabulary] and energies [STEPS + 1, WALKS]."""
    count = ebt.model.state_dim
    starts = torch.from_numpy(explore_assets.normals(seed, WALKS * count).astype("float32")).view(WALKS, 1, 1, count)
    landscape, places = ebt.model.landscape(tokens).last().expand(WALKS), [starts]
    walk = replace(ebt.walk()["walk"], steps=STEPS)
    found = walk.run(ebt.model, landscape, starts, callback=lambda index, after, info: places.append(after.y))
    energies = torch.cat([found.info.energy, found.state.energy[None]])
    return torch.stack(places).flatten(2, 3).squeeze(2), energies.flatten(1)


def _short(values: torch.Tensor) -> list[float]:
    return [float(f"{value:.5g}") for value in values.tolist()]


def _facts(logits: torch.Tensor, truth: int) -> tuple[list[float], list[list], list[float]]:
    """Entropies in bits, the most likely tokens with their probabilities, and the probability of the true one."""
    p = logits.double().softmax(-1)
    found = p.topk(TOP)
    likely = [[[token, share] for token, share in zip(row.tolist(), _short(shares), strict=True)]
              for row, shares in zip(found.indices, found.values, strict=True)]
    return _short(torch.special.entr(p).sum(-1) / math.log(2)), likely, _short(p[:, truth])
