"""The README and the pages: up to date, with valid links, generated tables and translated directives."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"

pytest.importorskip("nbconvert", reason="nbconvert is not installed: pip install 'ebwm[docs]'")
sys.path.insert(0, str(ROOT / "docs"))
import adapter  # noqa: E402
import readme  # noqa: E402
import records  # noqa: E402
import symbols  # noqa: E402
import yaml  # noqa: E402
from tiny_figure import write_manifest  # noqa: E402

from ebwm import figures, settings  # noqa: E402
from ebwm.figures import FigureError, registry  # noqa: E402
from ebwm.figures.findings import answer_cell, opening, write_answer  # noqa: E402

EXPORTED = '''#| export
import torch

def walk(
    y: float,  # start
    steps: int = 2,  # number of steps
) -> float:  # end
    "Take `steps` steps."
    return y

class Place:
    "A place."

    def __init__(
        self,
        name: str,  # name of the place
    ):
        self.name = name

    def near(self, other: str) -> bool:
        "Whether it is close."
        return other == self.name

    def __call__(self, y: float) -> float:  # its height
        return y
'''


def code(source: str, **other) -> dict:
    return {"cell_type": "code", "id": other.pop("id", "a"), "metadata": {}, "source": source, "outputs": [],
            "execution_count": None, **other}


def text(source: str, id: str = "b") -> dict:
    return {"cell_type": "markdown", "id": id, "metadata": {}, "source": source}


# The README


def test_the_readme_is_up_to_date():
    text = README.read_text(encoding="utf-8")
    assert text == readme.render(ROOT), "run: make readme"
    assert "#|" not in text and "<!--" not in text


def test_the_readmes_links_lead_to_files():
    links = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", README.read_text(encoding="utf-8"))
    assert links and [link for link in links if not (ROOT / link).exists()] == []


# Answers


REGISTERED = registry().figures.values()


@pytest.mark.parametrize("figure", REGISTERED, ids=lambda figure: figure.id)
def test_every_figure_opens_with_its_answer_on_record(figure):
    assert figure.answer and opening(figure) == answer_cell(figure, settings.load()), "run: make readme"
    assert "\n%" not in opening(figure), "a line that begins with % is a comment in MyST"
    assert re.search(r"95 % intervals? (over|of)", " ".join(opening(figure).split()))


def with_answer(root: Path, **changes) -> tuple:
    """A figure with an answer, and its notebook."""
    with_finding(root, answer={"found": "It falls: {law.0.4:.1f}, {none:.1f}.", "holds": ["law.0.4.low > 0"]} | changes)
    path = root / "nbs/figures/fall.ipynb"
    cells = [text("# Fall\n\n> Down"), text("**Question.** Does it?\n\n**Answer.** Perhaps.", "c")]
    path.write_text(json.dumps({"cells": cells}))
    config = settings.load(root)
    return registry(config)["fall"], config


def test_the_answer_is_written_into_the_notebook(tmp_path):
    figure, config = with_answer(tmp_path)
    assert "differs from the record" in figures.check(["fall"], config)[0].wrong[0]
    assert write_answer(figure, config) and not write_answer(figure, config)
    source = "".join(json.loads(figure.notebook.read_text())["cells"][1]["source"])
    assert source == "**Question.** Does it?\n\n**Answer.** It falls: 2.0 (1.0 to 3.0), 0.0."
    assert figures.check(["fall"], config)[0].wrong == ()


def test_an_answer_that_does_not_hold_is_an_error_of_the_record(tmp_path):
    figure, config = with_answer(tmp_path, holds=["law.0.4.low > 1"])
    assert "does not hold on record" in figures.check(["fall"], config)[0].wrong[0]
    with pytest.raises(FigureError, match="does not hold on record"):
        write_answer(figure, config)


def test_a_number_that_is_missing_is_refused(tmp_path):
    with pytest.raises(FigureError, match="sentences need numbers"):
        write_answer(*with_answer(tmp_path, found="{missing}"))


def test_a_finding_without_sentences_has_the_answer_of_the_figure(tmp_path):
    with_answer(tmp_path)
    path = tmp_path / "figures/figures.yaml"
    content = yaml.safe_load(path.read_text())
    content["figures"][0]["findings"] = [{"asks": "Does it?"}]
    path.write_text(yaml.dump(content))
    assert "| Does it? | It falls: 2.0 (1.0 to 3.0), 0.0 | [fall]" in records.findings_table(tmp_path)
    del content["figures"][0]["answer"]
    path.write_text(yaml.dump(content))
    with pytest.raises(FigureError, match="needs the figure's answer"):
        records.findings_table(tmp_path)


# Tables


FINDING = {"asks": "Is it fast?", "found": "Yes: {speed:.1f}, above {other.limit:.2f}",
           "holds": ["speed.low > 1", "0 < other.limit"]}


def with_finding(root: Path, answer: dict | None = None, **changes) -> None:
    record(root)
    path = root / "figures" / "figures.yaml"
    content = yaml.safe_load(path.read_text())
    content["figures"][0]["findings"] = [FINDING | changes]
    content["figures"][0] |= {"answer": answer} if answer else {}
    path.write_text(yaml.dump(content))
    (root / "nbs/figures/fall.ipynb").write_text(json.dumps({"cells": [text("# Fall\n\n> Down")]}))
    write_manifest(root / "figures" / "fall", scale="cpu", results={
        "speed": {"value": 1.5, "low": 1.25, "high": 2}, "other": {"limit": 0.5},
        "law": {"0.4": {"value": 2, "low": 1, "high": 3}}, "none": -1e-9, "missing": None})


def test_tables_are_made_from_the_registry_and_the_records(tmp_path):
    with_finding(tmp_path)
    text = "A\n<!-- table: figures -->\n<!-- table: findings -->"
    placed = records.place_tables(text, tmp_path).splitlines()
    times = "18 s on 2 cores | 6 min on 2 cores | not measured"
    assert f"| [Fall](figures/fall.ipynb) | `ebwm figures run fall` | {times} |" in placed
    assert placed[-1] == "| Is it fast? | Yes: 1.5 (1.2 to 2.0), above 0.50 | [fall](figures/fall.ipynb) |"


def test_links_in_a_table_are_relative_to_the_page(tmp_path):
    with_finding(tmp_path)
    placed = records.place_tables("<!-- table: findings -->", tmp_path, tmp_path / "nbs/guides")
    assert placed.splitlines()[-1].endswith("| [fall](../figures/fall.ipynb) |")


def test_the_home_page_states_the_recorded_benchmark_and_the_answers_of_some_figures():
    recorded = json.loads((ROOT / "figures/benchmarks/benchmarks.json").read_text())
    ratios = [case["official / manual"] for case in recorded["cases"] if case["case"]["kind"] == "generation"]
    assert f"generation {min(ratios):.2g} to {max(ratios):.2g} times as fast" in records.speed(ROOT)
    lines = records.headlines(ROOT).splitlines()
    assert [line.rpartition("([")[2].partition("]")[0] for line in lines] == list(records.HOME)


@pytest.mark.parametrize("changes, message", [
    ({"holds": ["speed.low > 1.3"]}, "'speed.low > 1.3' does not hold"),
    ({"holds": ["1 < speed.low < other.limit"]}, "does not hold"),
    ({"holds": ["speed.low"]}, "does not hold"),
    ({"holds": ["speed > 1"]}, "'speed'"),
    ({"found": "{speed.middle}"}, "'speed.middle'"),
])
def test_an_answer_that_does_not_follow_from_the_record_is_refused(tmp_path, changes, message):
    with_finding(tmp_path, **changes)
    with pytest.raises(FigureError, match=message):
        records.findings_table(tmp_path)


def test_the_gallery_shows_every_figure_on_record():
    parts = records.gallery(ROOT).split("\n\n")
    known = [figure.id for figure in REGISTERED if (ROOT / f"figures/{figure.id}/manifest.json").is_file()]
    pictures = [part for part in parts if part.startswith("![")]
    commands = [re.match(r"`ebwm figures run (\w+)`: .*\d", part) for part in parts]
    assert [match[1] for match in commands if match] == known
    files = [ROOT / "nbs" / part.split("(")[-1][:-1] for part in pictures]
    assert len(files) == len(known) and all(file.is_file() for file in files)
    assert not any("\n" in part for part in parts)


# From nbdev's notebooks to pages


def build(folder: Path, cells: list, processed: list, name: str = "core/02_walks.ipynb") -> list[dict]:
    """The cells of one page of a small repository that has a home page too."""
    home = [text("# Home", "h")]
    for path, content in {f"nbs/{name}": cells, "nbs/index.ipynb": home, f"done/{name}": processed,
                          "done/index.ipynb": home}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps({"cells": content}))
    adapter.write_pages(folder, folder / "done", folder / "out")
    return json.loads((folder / "out" / adapter.page_name(Path(name))).read_text())["cells"]


def test_the_sidebar_is_in_order_and_pages_have_no_numbers(tmp_path):
    ordered = ["index.ipynb", "protocol.ipynb", "core/01_d.ipynb", "core/02_c.ipynb", "training/e.md",
               "figures/b.ipynb", "z/a.ipynb"]
    for name in (*reversed(ordered), ".ipynb_checkpoints/f.ipynb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [str(p.relative_to(tmp_path)) for p in adapter.find_sources(tmp_path)] == ordered
    names = {"core/02_walks.ipynb": "core/walks.ipynb", "index.ipynb": "index.ipynb"}
    assert all(adapter.page_name(Path(name)) == Path(page) for name, page in names.items())


@pytest.mark.parametrize("source, expected", [
    ('::: {.callout-note}\nLook.\n:::', ":::{note}\nLook.\n:::"),
    ('::: {.callout-tip title="Try it"}\nDo.\n:::', ":::{admonition} Try it\n:class: tip\nDo.\n:::"),
    ("[this](02_walks.ipynb#a) [home](../index.ipynb)", "[this](walks.ipynb#a) [home](../index.ipynb)"),
    ("[`walk`](/core/walks.html#walk)", "[`walk`](#ebwm.walks.walk)"),
    ("[`near`](/core/walks.html#place.near)", "[`near`](#ebwm.walks.Place)"),
    ("[settings](../../settings.ini) [web](https://example.org)", "settings [web](https://example.org)"),
])
def test_markdown_is_converted(tmp_path, source, expected):
    (tmp_path / "settings.ini").touch()
    cells = [code("#| default_exp walks"), code(EXPORTED, id="e"), text(source)]
    assert build(tmp_path, cells, [text(source)])[-1]["source"] == expected


def test_front_matter_becomes_a_title_and_directives_become_tags(tmp_path):
    raw = {**text("---\ntitle: 'Walks: two'\ndescription: Down\n---\n"), "cell_type": "raw"}
    tags = {"echo: false": "remove-input", "output: false": "remove-output", "include: false": "remove-cell",
            "warning: false": "remove-stderr", "code-fold: true": "hide-input"}
    cells = [code(f"#| {directive}\n1 + 1") for directive in tags]
    first, *others = build(tmp_path, [text("# Walks"), *cells], [raw, *cells])
    assert first["source"] == "# Walks: two\n\n{.lead}\nDown"
    index = (tmp_path / "out/llms.txt").read_text()
    assert index.startswith("# ebwm") and index.endswith("## Core\n\n- [Walks: two](core/walks.html): Down\n")
    assert [c["metadata"]["tags"] for c in others] == [[tag] for tag in tags.values()]
    assert {c["source"] for c in others} == {"1 + 1"}


WALK_SECTION = """(ebwm.walks.walk)=
### `walk`

```python
def walk(
    y: float,  # start
    steps: int = 2,  # number of steps
) -> float:  # end
```

Take `steps` steps."""

PLACE_SECTION = """(ebwm.walks.Place)=
### `Place`

```python
Place(
    name: str,  # name of the place
)
```

- `.near(other)`: Whether it is close.
- `.__call__(y)`: its height"""


def test_an_exported_name_has_a_section_then_its_source(tmp_path):
    shown = {"data": {"text/markdown": "---\n\n### walk\n\n```python\n...\n```\n\n*Take `steps` steps.*"}}
    heading, after = text("## Walking", "h"), text("After.", "f")
    original = [code("#| default_exp walks", id="d"), heading, code(EXPORTED, id="e"), after]
    documented = [code("show_doc(Place)", id="new1"), code("show_doc(walk)", id="new2", outputs=[shown])]
    page = [cell["source"] for cell in build(tmp_path, original, [heading, *documented, after])]
    assert page[1:3] == [WALK_SECTION, PLACE_SECTION]
    assert page[3].startswith("<details") and "import torch" in page[3] and page[4] == "After."


def test_only_definitions_are_folded():
    assert symbols.fold(code("#| export\nimport torch")) == ""
    assert symbols.fold(code("x = 1")) == ""
    private = code("#| export\nWAYS = (1,)\ndef _check(): ...")
    assert "<summary>Source: WAYS, _check</summary>" in symbols.fold(private)


# Figures


def record(root: Path, *pictures: str) -> None:
    """A registry of one figure, with pictures and a manifest."""
    (root / "figures" / "fall").mkdir(parents=True)
    (root / "nbs" / "figures").mkdir(parents=True, exist_ok=True)
    (root / "nbs" / "figures" / "fall.ipynb").write_text(json.dumps({"cells": []}))
    claim = {"name": "falling", "says": "It falls", "source": "EBT, Figure 0", "statistic": "speed.value",
             "expect": {"below": 2}}
    entry = {"id": "fall", "title": "A fall", "notebook": "nbs/figures/fall.ipynb", "claims": [claim],
             "minutes": {"smoke": 0.3, "cpu": 6}}
    (root / "figures" / "figures.yaml").write_text(yaml.dump({"figures": [entry]}))
    for name in pictures:
        (root / "figures" / "fall" / name).touch()
    write_manifest(root / "figures" / "fall", scale="cpu", seeds=[0, 1], seconds=61.4, device="cpu",
                   results={"speed": {"value": 1.5}})


def test_a_figures_page_names_its_command_cost_and_record(tmp_path):
    record(tmp_path, "fall.png", "fall-dark.png")
    page = build(tmp_path, [text("# Fall")], [text("# Fall")], "figures/fall.ipynb")
    assert "`ebwm figures run fall`" in page[1]["source"]
    assert "smoke 18 s on 2 cores, cpu 6 min on 2 cores" in page[1]["source"]
    assert "scale cpu, seeds 0, 1, 61 s on cpu" in page[1]["source"]
    assert "| It falls | EBT, Figure 0 | 1.5 | below 2 | holds |" in page[1]["source"]
    assert "**falling** (EBT, Figure 0): It falls." in (tmp_path / "out/figures/claims.md").read_text()
    sidebar = json.loads((tmp_path / "out/index.ipynb").read_text())["cells"][-1]["source"]
    assert ":caption: Results\n\nfigures/fall\nfigures/claims\n" in sidebar
    assert page[1]["source"].endswith("![fall](../record/fall/fall.png){.only-light}\n"
                                      "![fall](../record/fall/fall-dark.png){.only-dark}")
    assert (tmp_path / "out" / "record" / "fall" / "fall-dark.png").is_file()


def test_the_benchmark_has_a_page(tmp_path):
    folder = tmp_path / "figures" / "benchmarks"
    folder.mkdir(parents=True)
    (folder / "table.md").write_text("| ours | 1 |")
    for name in ("training.png", "training-dark.png"):
        (folder / name).write_bytes(b"png")
    build(tmp_path, [text("# Home")], [text("# Home")])
    page = (tmp_path / "out/figures/benchmarks.md").read_text()
    assert "| ours | 1 |" in page and "![cost]" not in page
    assert "![training](../record/benchmarks/training-dark.png){.only-dark}" in page
    sidebar = json.loads((tmp_path / "out/index.ipynb").read_text())["cells"][-1]["source"]
    assert ":caption: Results\n\nfigures/benchmarks\n" in sidebar


def test_a_figure_without_a_dark_picture_or_without_a_record(tmp_path):
    record(tmp_path, "fall.png")
    source = "![A fall](../figures/fall/fall.png) ![Missing](../figures/fall/rise.png)"
    placed = records.place_pictures(source, tmp_path / "nbs" / "index.ipynb", tmp_path, tmp_path / "out")
    assert placed == "![A fall](record/fall/fall.png) ![Missing](../figures/fall/rise.png)"
    (tmp_path / "figures" / "fall" / "manifest.json").unlink()
    assert "| On record | nothing |" in records.section(Path("nbs/figures/fall.ipynb"), tmp_path)
    assert records.section(Path("nbs/figures/other.ipynb"), tmp_path) == ""


# The command


@pytest.mark.parametrize("arguments, named", [
    (["no-such-thing"], "site, sphinx, quarto, readme"), (["sphinx", "readme"], "'sphinx readme'"),
    (["quarto"], "'quarto', needed for the site of nbdev, is not on the PATH")])
def test_a_command_is_refused_in_one_line(monkeypatch, arguments, named):
    monkeypatch.setenv("PATH", "")
    command = [sys.executable, str(ROOT / "docs" / "build.py"), *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2 and named in result.stderr and result.stderr.count("\n") == 1
