"""A short text, a file of rows, and the decoded texts of a data set."""

import json
from pathlib import Path

from ebwm.data.text import TextDataset

LINES = "the quick brown fox jumps over the lazy dog\npack my box with five dozen liquor jugs\n"


def write_lines(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def texts_of(dataset: TextDataset) -> list[str]:
    """The texts of a stream, decoded."""
    tokens, found = dataset.stream.read(0, len(dataset.stream)), [[]]
    for token in tokens.tolist():
        if token == dataset.tokenizer.end:
            found.append([])
        else:
            found[-1].append(token)
    assert found.pop() == []
    return [dataset.tokenizer.decode(row) for row in found]
