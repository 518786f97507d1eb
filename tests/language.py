"""Phrases that the documentation, docstrings, comments and messages avoid, with the standard term for each.

`python tests/language.py FILE ...` lists them; without files, converted ones are removed from language.txt.
"""

import ast
import io
import json
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PENDING = ROOT / "tests" / "language.txt"  # files that still contain phrases
SOURCES = ("ebwm/**/*.py", "docs/*.py", "benchmarks/**/*.py", "tests/**/*.py", "nbs/**/*.ipynb", "*.md",
           "Makefile", "figures/figures.yaml", "profiles/**/*.yaml", "settings.ini")
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


def found(path: Path) -> list[str]:
    """The phrases of a file, one line each."""
    if path.name in ("language.py", "test_check.py"):
        return []
    lines = []
    for place, text in texts(path):
        for match in PATTERN.finditer(" ".join(text.split())):
            better = list(PHRASES.values())[int(match.lastgroup[1:])]
            lines.append(f"{path.relative_to(ROOT)}:{place}: {match[0]!r}; better: {better}")
    return lines


def offenders() -> dict[str, list[str]]:
    """The phrases of all files, by path."""
    paths = sorted({path for pattern in SOURCES for path in ROOT.glob(pattern)})
    read = [path for path in paths if path.name != "_modidx.py" and ".ipynb_checkpoints" not in path.parts]
    by_path = {path.relative_to(ROOT).as_posix(): found(path) for path in read}
    return {name: lines for name, lines in by_path.items() if lines}


def check() -> bool:
    """Whether phrases occur only in the pending files, and in each of these; prints the others."""
    pending, now = set(PENDING.read_text().split()), offenders()
    for name in sorted(now.keys() - pending):
        print("\n".join(now[name]))
    for name in sorted(pending - now.keys()):
        print(f"{name} is converted; run: python tests/language.py")
    return pending == now.keys()


def main(files: list[str]) -> None:
    for line in (line for file in files for line in found(Path(file).resolve())):
        print(line)
    if not files:
        now = offenders()
        left = [name for name in PENDING.read_text().split() if name in now]
        PENDING.write_text("".join(f"{name}\n" for name in left))


if __name__ == "__main__":
    main(sys.argv[1:])
