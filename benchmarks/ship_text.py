"""Make the small language models in data/checkpoints: `python -m benchmarks.ship_text`.

Three seeds of the presets `text` and `text_transformer` are trained, or found among the runs, or gone on
with; each is scored on the whole test split with its weights rounded as they are shipped, beside
interpolated 5-gram models of bytes and of the same tokens, trained on the same text. Seed 0 of each is
written, with its tokenizer, its configuration, its thinned log and a card; an EBT that doesn't beat both
5-gram models at every seed isn't.
"""

import argparse
import json
import math
import platform
from pathlib import Path

import torch

from ebwm import settings
from ebwm.data.ngram import NGram
from ebwm.data.text import perplexity, text_corpus
from ebwm.files import write_json, write_whole
from ebwm.training import history as runs
from ebwm.training import trainer as training
from ebwm.training.checkpoint import load_tensors, save_tensors

SEEDS, ORDER, EVERY = (0, 1, 2), 5, 100
SHIPPED = {"text": "ebt", "text_transformer": "transformer"}


def finished(preset, seed, folder, digest):
    """The run of a preset and a seed on a text: one that is there, gone on with if need be, or a new one."""
    config = training.load_config(preset, [f"seed={seed}", "run.logger=none"])
    for path in runs.known(folder):
        if not is_of(path, config):
            continue
        if not (path / "result.json").is_file():
            return training.resume(path)
        if json.loads((path / "result.json").read_text())["corpus_digest"] == digest:
            return path
    return training.train(config, folder)


def is_of(path, config):
    try:
        return not training.differences(training.load_config(str(path / "config.json")), config)
    except training.ConfigError:  # of another version
        return False


def rounded(folder):
    """Weights of a run as they are shipped: in half precision."""
    tensors, values = load_tensors(folder / "model.safetensors")
    return {name: value.half() for name, value in tensors.items()}, values


def scored(folder):
    """Perplexity and bits per byte of the whole test split, by the rounded weights."""
    language = training.load_language(folder)
    learner, data = training.load_learner(folder), training.load_data(language.config.data)["test"]
    learner.model.load_state_dict(rounded(folder)[0])
    windows = data.whole()
    losses = training.position_losses(learner, windows, language.config.seed)
    return perplexity(losses, data.tokenizer.bytes[windows[:, 1:]])._asdict()


def by_ngrams():
    """Bits per byte of the test split by interpolated n-gram models, of bytes and of the preset's pieces."""
    tokenizer = training.load_config("text").data.tokenizer
    return {"bytes": by_ngrams_of("byte"), "tokens": by_ngrams_of(tokenizer)}


def by_ngrams_of(tokenizer):
    train, test = (text_corpus("python", split, tokenizer=tokenizer) for split in ("train", "test"))
    model = NGram.fit(train.stream.read(0, len(train.stream)), ORDER, train.vocabulary)
    tokens = test.stream.read(0, len(test.stream))
    nats = -float(model.log_probabilities(tokens)[1:].sum())
    return nats / math.log(2) / int(test.tokenizer.bytes[tokens].sum())


def thinned(folder):
    """A few columns of a run's log, at every hundredth update and where it was evaluated."""
    names = ("update", "loss", "valid_loss", "grad_norm", "step_size", "seconds")
    rows = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [{name: row[name] for name in names if name in row} for row in rows
            if row["update"] % EVERY == 0 or "valid_loss" in row]


def ship(preset, found, card, where):
    """Seed 0 of a preset, with all that belongs to it."""
    source, target = found[SEEDS[0]], where / preset
    target.mkdir(parents=True, exist_ok=True)
    save_tensors(target / "model.safetensors", *rounded(source))
    for name in ("config.json", "tokenizer.json"):
        write_whole(target / name, lambda draft, name=name: draft.write_bytes((source / name).read_bytes()))
    lines = "".join(json.dumps(row) + "\n" for row in thinned(source))
    write_whole(target / "log.jsonl", lambda draft: draft.write_text(lines))
    write_json(target / "card.json", card)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("presets", nargs="*", help=f"of {', '.join(SHIPPED)}; all by default")
    presets = parser.parse_args().presets or list(SHIPPED)
    if unknown := {*presets} - {*SHIPPED}:
        parser.error(f"unknown {', '.join(sorted(unknown))}; known are {', '.join(SHIPPED)}")
    there = settings.load()
    digest = text_corpus("python", "test").corpus_digest
    ngrams = by_ngrams()
    about = {"corpus_digest": digest, "python": platform.python_version(), "torch": torch.__version__,
             "ngram_order": ORDER, "ngram_bits_per_byte": ngrams, "shipped_seed": SEEDS[0]}
    for preset in presets:
        found = {seed: finished(preset, seed, there.runs, digest) for seed in SEEDS}
        scores = {str(seed): scored(path) for seed, path in found.items()}
        worst = max(score["bits_per_byte"] for score in scores.values())
        if preset == "text" and worst >= (bar := min(ngrams.values())):
            raise SystemExit(f"{preset}: {worst:.3f} bits per byte at one seed, and {bar:.3f} by "
                             "a 5-gram model: nothing is shipped")
        ship(preset, found, about | {"preset": preset, "seeds": scores}, Path(there.data) / "checkpoints")
        print(preset, scores, ngrams, flush=True)


if __name__ == "__main__":
    main()
