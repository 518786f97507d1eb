"""Make the small language models in ebwm/models: `python -m benchmarks.ship_text`.

Three seeds of the presets `text` and `text_transformer` are trained, found among the runs, or resumed. Each
is scored on the whole test split with its weights in half precision, as they are shipped, and compared with
interpolated 5-gram models of bytes and of the same tokens, trained on the same text. Seed 0 of each is
shipped with its tokenizer, its configuration, a thinned log and a card, unless an EBT of some seed is not
better than both 5-gram models.
"""

import argparse
import json
import math
import platform

import torch

from ebwm import settings
from ebwm.data.ngram import NGram
from ebwm.data.tasks import load_task
from ebwm.data.text import text_corpus
from ebwm.files import write_json, write_whole
from ebwm.saving import load_tensors, save_tensors
from ebwm.training import history as runs
from ebwm.training.configuration import ConfigError, differences
from ebwm.training.learner import load_run, position_losses
from ebwm.training.presets import load_config
from ebwm.training.run import resume, train
from ebwm.writing import INCLUDED

SEEDS, ORDER, EVERY = (0, 1, 2), 5, 100
SHIPPED = {"text": "ebt", "text_transformer": "transformer"}


def finished(preset, seed, folder, digest):
    """The run of a preset, a seed and a corpus: an existing one, resumed if necessary, or a new one."""
    config = load_config(preset, [f"seed={seed}", "run.logger=none"])
    for path in runs.known(folder):
        if not is_of(path, config):
            continue
        if not (path / "result.json").is_file():
            return resume(path)
        if json.loads((path / "result.json").read_text())["data_digests"].get("corpus") == digest:
            return path
    return train(config, folder)


def is_of(path, config):
    try:
        return not differences(load_config(str(path / "config.json")), config)
    except ConfigError:  # of another version
        return False


def rounded(folder):
    """Weights of a run in half precision, as they are shipped."""
    tensors, values = load_tensors(folder / "model.safetensors")
    return {name: value.half() for name, value in tensors.items()}, values


def scored(folder):
    """Perplexity and bits per byte of the whole test split, with the rounded weights."""
    learner, _, config = load_run(folder)
    task = load_task(config.data)
    learner.model.load_state_dict(rounded(folder)[0])
    windows = task.splits["test"].whole()
    return task.summary(position_losses(learner, windows, config.seed), learner.pair(windows)[1])


def by_ngrams():
    """Bits per byte of the test split by interpolated n-gram models of bytes and of the preset's tokens."""
    tokenizer = load_config("text").data.tokenizer
    return {"bytes": by_ngrams_of("byte"), "tokens": by_ngrams_of(tokenizer)}


def by_ngrams_of(tokenizer):
    train, test = (text_corpus("python", split, tokenizer=tokenizer) for split in ("train", "test"))
    model = NGram.fit(train.stream.read(0, len(train.stream)), ORDER, train.vocabulary)
    tokens = test.stream.read(0, len(test.stream))
    nats = -float(model.log_probabilities(tokens)[1:].sum())
    return nats / math.log(2) / int(test.tokenizer.bytes[tokens].sum())


def thinned(folder):
    """A few columns of a run's log, at every hundredth update and at evaluations."""
    names = ("update", "loss", "valid_loss", "grad_norm", "step_size", "seconds")
    rows = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [{name: row[name] for name in names if name in row} for row in rows
            if row["update"] % EVERY == 0 or "valid_loss" in row]


def ship(preset, found, card, where):
    """Write seed 0 of a preset with its tokenizer, configuration, log and card."""
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
        ship(preset, found, about | {"preset": preset, "seeds": scores}, INCLUDED)
        print(preset, scores, ngrams, flush=True)


if __name__ == "__main__":
    main()
