"""Phrases that the documentation, docstrings, comments and messages avoid, with the standard term for each."""

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("ebwm/**/*.py", "docs/*.py", "benchmarks/**/*.py", "tests/**/*.py", "nbs/**/*.ipynb", "*.md",
           "Makefile", "figures/figures.yaml", "profiles/**/*.yaml", "settings.ini")
OMITTED = ("_modidx.py", "language.py", "test_check.py")
PHRASES = {
    r"at rest": "stopped, converged",
    r"com(?:e|es|ing) along|came along": "is included, is shipped",
    r"(?:is|are|was|were|be|been) told": "is reported",
    r"(?:is|are|was|were|be|been) said": "is given",
    r"whole numbers?": "integer",
    r"(?<!lower-case )(?<!upper-case )(?<!capital )letters": "characters",
    r"floors(?! \d| above| below|\.[\w*])": "trivial baselines",
    r"begun": "started",
    r"who(?:se)? (?:is|are|has|have|was|were)": "a subject: the process, the user, the item",
    r"go(?:es|ing)? on(?! to)|went on": "continues, resumes",
    r"(?<!kernel )(?:dies|died|dying)": "exits, fails",
    r"had better": "should",
    r"for the while": "during",
    r"(?-i:the hub)": "the Hugging Face Hub",
    r"weights that learn": "trainable weights",
    r"energies asked for": "energy evaluations",
    r"walks? downhill|walking downhill": "descends the energy",
    r"by chance|all chance": "random, randomness",
}
NAMED = [rf"(?P<p{i}>\b(?:{phrase})\b)" for i, phrase in enumerate(PHRASES)]
PATTERN = re.compile("|".join(NAMED), re.IGNORECASE)


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Lines or cells, and texts: comments and strings of Python, cells of notebooks, lines of other files."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from of_python(source)
    elif path.suffix == ".ipynb":
        for number, cell in enumerate(json.loads(source)["cells"]):
            text = "".join(cell["source"])
            parts = of_python(text) if cell["cell_type"] == "code" else [(0, text)]
            yield from ((number, part) for _, part in parts)
    else:
        yield from enumerate(source.splitlines(), 1)


def of_python(source: str) -> Iterator[tuple[int, str]]:
    """Comments, and strings with more than one word."""
    source = re.sub(r"^\s*[%!].*$", "", source, flags=re.MULTILINE)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield node.lineno, node.value


def found(path: Path) -> Iterator[str]:
    """The phrases of a file, one line each."""
    for place, text in texts(path):
        for match in PATTERN.finditer(" ".join(text.split())):
            better = list(PHRASES.values())[int(match.lastgroup[1:])]
            yield f"{path.relative_to(ROOT)}:{place}: {match[0]!r}; better: {better}"


def check() -> bool:
    """Whether no file contains a phrase; prints those found."""
    paths = sorted({path for pattern in SOURCES for path in ROOT.glob(pattern)})
    read = [path for path in paths if path.name not in OMITTED and ".ipynb_checkpoints" not in path.parts]
    lines = [line for path in read for line in found(path)]
    print("\n".join(lines), end="\n" if lines else "")
    return not lines
