"""The README and the pages: up to date, with valid links, generated tables, translated directives, running examples."""

import json
import re
import shlex
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"

pytest.importorskip("nbconvert", reason="nbconvert is not installed: pip install 'ebwm[docs]'")
sys.path.insert(0, str(ROOT / "docs"))
import adapter  # noqa: E402
import build as builder  # noqa: E402
import policies  # noqa: E402
import readme  # noqa: E402
import records  # noqa: E402
import reference  # noqa: E402
import sidebar  # noqa: E402
import symbols  # noqa: E402
import yaml  # noqa: E402
from tiny_figure import write_manifest  # noqa: E402

from ebwm import cli, settings  # noqa: E402
from ebwm.data import documents  # noqa: E402
from ebwm.figures import FigureError, registry  # noqa: E402
from ebwm.figures.findings import MARK, answer_cell, opening  # noqa: E402

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


def test_the_index_in_plain_text_lists_all_modules():
    text = (ROOT / "nbs/llms.txt").read_text(encoding="utf-8")
    assert text == reference.plain_index(ROOT / "ebwm", sidebar.LEAD), "run: make readme"
    assert "- `ebwm.sampler`: " in text and "- `ebwm.policy.lerobot`: " in text


def test_the_readmes_links_lead_to_files():
    links = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", README.read_text(encoding="utf-8"))
    assert links and [link for link in links if not (ROOT / link).exists()] == []


# Examples of the how-to pages

BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SMALL = ["optimiser.updates=2", "model.depth=1", "optimiser.batch=16", "eval_every=2", "run.logger=none"]
OF_PRESET = {"next_frame": ["data.train_clips=16", "data.eval_clips=4"], "states": ["data.eval_items=4"],
             "text": ["data.length=16", "data.documents=4", "data.held_out=0.3", "data.eval_windows=4",
                      "data.tokenizer=byte"]}


def commands(block: str) -> list[list[str]]:
    """The lines that call ebwm or set a variable; runs are small: two updates, or three if they are lengthened."""
    lines = [shlex.split(re.sub(r"updates=\d+", "updates=3", line), comments=True) for line in block.splitlines()]
    begins = lambda words: words[:2] == ["ebwm", "train"] and words[2] != "--resume"
    return [[*words, *SMALL, *OF_PRESET.get(words[2], [])] if begins(words) else words
            for words in lines if words and words[0] in ("ebwm", "export")]


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted((ROOT / "nbs/howto").glob("*.md")), ids=lambda page: page.stem)
def test_the_examples_of_how_to_pages_run(page, runs, tmp_path, monkeypatch):
    """Commands of ebwm at tiny settings and with few texts, and Python as it is, in a folder for each page."""
    library = [*documents._library().items()][:9]
    monkeypatch.setattr(documents, "_library", lambda: dict(library))
    monkeypatch.setattr(documents, "PACKAGES", {"jinja2": documents.PACKAGES["jinja2"]})
    monkeypatch.setattr(documents, "_package_files", documents._package_files.__wrapped__)
    monkeypatch.chdir(tmp_path)
    np.save("recordings.npy", torch.randn(40, 6, 3, generator=settings.generator(0)).numpy())
    names, found = {}, BLOCK.findall(page.read_text(encoding="utf-8"))
    for language, block in found:
        if language == "python":
            exec(compile(block, str(page), "exec"), names)
            continue
        for program, *words in commands(block):
            if program == "export":
                monkeypatch.setenv(*words[0].split("=", 1))
            else:
                assert cli.main(words) == 0, words
    assert found


# Answers and tables


@pytest.mark.parametrize("figure", registry().figures.values(), ids=lambda figure: figure.id)
def test_every_figure_opens_with_its_answer_on_record(figure):
    assert figure.answer and opening(figure) == answer_cell(figure, settings.load()), "run: make readme"
    assert "\n%" not in opening(figure), "a line that begins with % is a comment in MyST"
    answer = " ".join(opening(figure).partition("\n\n")[0].split())
    assert re.search(r"95 % intervals? (over|of)", answer)
    assert len(re.findall(r"\. (?=[A-Z])", answer.removeprefix(MARK))) <= 1, "two sentences; others are its `detail`"


def record(root: Path, *pictures: str, **changes) -> None:
    """A registry of one figure, with a finding but for some changes, pictures and a manifest."""
    for folder in ("figures/fall", "nbs/figures"):
        (root / folder).mkdir(parents=True)
    (root / "nbs/figures/fall.ipynb").write_text(json.dumps({"cells": [text("# Fall\n\n> Down")]}))
    claim = {"name": "falling", "says": "It falls", "source": "EBT, Figure 0", "statistic": "speed",
             "expect": {"below": 2}}
    finding = {"asks": "Is it fast?", "found": "Yes: {speed:.1f}, above {other.limit:.2f}, {law.0.4:.0f}, {none:.1f}",
               "holds": ["speed.low > 1", "0 < other.limit"]}
    entry = {"id": "fall", "title": "A fall", "notebook": "nbs/figures/fall.ipynb", "claims": [claim],
             "minutes": {"smoke": 0.3, "cpu": 6}, "answer": {"found": "It falls: {speed:.1f}.", "holds": []},
             "findings": [finding | changes, {"asks": "Does it fall?"}]}
    (root / "figures/figures.yaml").write_text(yaml.dump({"figures": [entry]}))
    for name in pictures:
        (root / "figures/fall" / name).touch()
    write_manifest(root / "figures/fall", scale="cpu", seeds=[0, 1], seconds=61.4, device="cpu", results={
        "speed": {"value": 1.5, "low": 1.25, "high": 2}, "other": {"limit": 0.5},
        "law": {"0.4": {"value": 2, "low": 1, "high": 3}}, "none": -1e-9, "missing": None})


def test_tables_are_made_from_the_registry_and_the_records(tmp_path):
    """With links relative to the page; a finding without sentences has the answer of the figure."""
    record(tmp_path)
    placed = records.place_tables("A\n<!-- table: figures -->\n<!-- table: findings -->", tmp_path).splitlines()
    times = "18 s on 2 cores | 6 min on 2 cores | – | not measured"
    assert f"| [Fall](figures/fall.ipynb) | `ebwm figures run fall` | {times} |" in placed
    numbers = "1.5 (1.2 to 2.0), above 0.50, 2 (1 to 3), 0.0"
    assert placed[-2:] == [f"| Is it fast? | Yes: {numbers} | [fall](figures/fall.ipynb) |",
                           "| Does it fall? | It falls: 1.5 (1.2 to 2.0) | [fall](figures/fall.ipynb) |"]
    placed = records.place_tables("<!-- table: findings -->", tmp_path, tmp_path / "nbs/guides")
    assert placed.endswith("| [fall](../figures/fall.ipynb) |")


@pytest.mark.parametrize("changes, message", [
    ({"holds": ["speed.low > 1.3"]}, "'speed.low > 1.3' does not hold"),
    ({"holds": ["1 < speed.low < other.limit"]}, "does not hold"),
    ({"holds": ["speed.low"]}, "does not hold"),
    ({"holds": ["speed > 1"]}, "'speed'"),
    ({"found": "{speed.middle}"}, "'speed.middle'"),
    ({"found": "{missing}"}, "sentences need numbers"),
])
def test_an_answer_that_does_not_follow_from_the_record_is_refused(tmp_path, changes, message):
    record(tmp_path, **changes)
    with pytest.raises(FigureError, match=message):
        records.findings_table(tmp_path)


def test_the_settings_of_every_policy_and_preset_are_in_a_table():
    placed = records.place_tables("<!-- table: policies -->", ROOT, ROOT / "nbs/guides")
    rows = [line.strip("| ").split(" | ") for line in placed.splitlines() if line.startswith("| ")]
    for id, simulator in policies.COMPARED.items():
        chosen = json.loads((ROOT / f"figures/{id}/tuning.json").read_text())["chosen"]
        found = {name: float(rate) for where, name, _, rate, *_ in (row for row in rows if len(row) > 6)
                 if where == simulator}
        assert found == {name: chosen[kind]["learning_rate"] for kind, name in policies.KINDS.items()}
        assert f"](../figures/{id}.ipynb)" in placed
    rates = {row[0]: row[1:] for row in rows if len(row) == 6}
    [lift] = [row for setting, row in rates.items() if setting.startswith("[Lift") and "policy_tasks" in setting]
    record = json.loads((ROOT / "figures/policy_tasks/manifest.json").read_text())["results"]["success"]
    assert [cell[:4] for cell in lift] == [f"{record[kind]['Lift']['value']:.2f}" for kind in policies.KINDS]
    [two] = [row for setting, row in rates.items() if "in 2 steps" in setting]
    assert all(re.match(r"0\.\d\d \(", cell) for cell in two)
    processors = {id: json.loads((ROOT / f"figures/{id}/manifest.json").read_text())["cpu"]
                  for id in ("policy_data", "policy_recovery")}
    assert all(re.search(rf"{re.escape(name)}: [^;)]*`{id}`", placed) for id, name in processors.items())
    [presets] = [row[1:] for row in rows if row[0] == "`most`"]
    assert presets == [str(walk.most) for walk in policies.PRESETS.values()]


def test_the_gallery_shows_every_figure_on_record():
    parts = records.gallery(ROOT).split("\n\n")
    known = [figure.id for figure in registry().figures.values()
             if (ROOT / f"figures/{figure.id}/manifest.json").is_file()]
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


def test_the_sidebar_is_in_order(tmp_path):
    ordered = ["index.ipynb", "protocol.ipynb", "core/01_d.ipynb", "core/02_c.ipynb", "training/e.md",
               "figures/b.ipynb", "z/a.ipynb"]
    for name in (*reversed(ordered), ".ipynb_checkpoints/f.ipynb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [str(p.relative_to(tmp_path)) for p in adapter.find_sources(tmp_path)] == ordered


MARKDOWN = {
    "::: {.callout-note}\nLook.\n:::": ":::{note}\nLook.\n:::",
    '::: {.callout-tip title="Try it"}\nDo.\n:::': ":::{admonition} Try it\n:class: tip\nDo.\n:::",
    "[this](02_walks.ipynb#a) [home](../index.ipynb)": "[this](walks.ipynb#a) [home](../index.ipynb)",
    "[`walk`](/core/walks.html#walk)": "[`walk`](#ebwm.walks.walk)",
    "[`near`](/core/walks.html#place.near)": "[`near`](#ebwm.walks.Place)",
    "[settings](../../settings.ini) [web](https://example.org)": "settings [web](https://example.org)",
    "<!-- index: step size, GPU -->": "```{index} ! step size, ! GPU\n```",
    "[rules](../../CONTRIBUTING.md)": "[rules](../extend/contributing.md)",
}
TAGS = {"echo: false": "remove-input", "output: false": "remove-output", "include: false": "remove-cell",
        "warning: false": "remove-stderr", "code-fold: true": "hide-input"}
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


def test_a_page_has_a_title_sections_of_exported_names_their_source_and_tags_for_directives(tmp_path):
    """Only definitions are folded."""
    (tmp_path / "settings.ini").touch()
    (tmp_path / "CONTRIBUTING.md").write_text("# Contributing\n\n## Rules\n\nTwo.\n\n## How to add a walk\n\n"
                                              "As [here](nbs/core/02_walks.ipynb).\n\n## Tests\n")
    raw = {**text("---\ntitle: 'Walks: two'\ndescription: Down\n---\n"), "cell_type": "raw"}
    shown = {"data": {"text/markdown": "---\n\n### walk\n\n```python\n...\n```\n\n*Take `steps` steps.*"}}
    heading, after = text("## Walking", "h"), [text(source, f"m{i}") for i, source in enumerate(MARKDOWN)]
    after += [code(f"#| {directive}\n1 + 1", id=f"c{i}") for i, directive in enumerate(TAGS)]
    original = [text("# Walks"), code("#| default_exp walks", id="d"), heading, code(EXPORTED, id="e"), *after]
    documented = [code("show_doc(Place)", id="new1"), code("show_doc(walk)", id="new2", outputs=[shown])]
    page = build(tmp_path, original, [raw, heading, *documented, *after])
    title, _, walk, place, source, *others = [cell["source"] for cell in page]
    assert title == "# Walks: two\n\n{.lead}\nDown" and (walk, place) == (WALK_SECTION, PLACE_SECTION)
    index = (tmp_path / "out/llms.txt").read_text()
    assert index.startswith("# ebwm")
    assert "## Lessons: energies and models\n\n- [Walks: two](core/walks.html): Down\n" in index
    assert source.startswith("<details") and "import torch" in source
    assert others == [*MARKDOWN.values(), *["1 + 1"] * len(TAGS)]
    added, rest = ((tmp_path / f"out/extend/{name}.md").read_text() for name in ("how_to_add", "contributing"))
    assert added == "# How to add a walk\n\nAs [here](../core/walks.ipynb).\n\n"
    assert rest == "# Contributing\n\n## Rules\n\nTwo.\n\n## Tests\n"
    assert [cell["metadata"]["tags"] for cell in page[-len(TAGS):]] == [[tag] for tag in TAGS.values()]
    assert symbols.fold(code("#| export\nimport torch")) == symbols.fold(code("x = 1")) == ""
    private = code("#| export\nWAYS = (1,)\ndef _check(): ...")
    assert "<summary>Source: WAYS, _check</summary>" in symbols.fold(private)


def test_the_reference_lists_public_names_by_package(tmp_path):
    for name, text in {"walks": EXPORTED, "__main__": EXPORTED, "data/clips": '"""Clips."""\n__all__ = ["Clip"]\n'
                       'class Clip:\n    """A clip.\n\n    Long."""\ndef other(): ...', "data/empty": "x = 1"}.items():
        (tmp_path / f"ebwm/{name}.py").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"ebwm/{name}.py").write_text(text)
    pages = reference.pages(tmp_path / "ebwm", {"ebwm.walks.walk"})
    title, lead, *names = pages["reference/ebwm.data.md"].splitlines()[::2]
    assert (title, lead) == ("# Reference: `ebwm.data`", reference.LEAD.format("ebwm.data")) and names == [
        "## `ebwm.data.clips`", "Clips.", "- `Clip`: A clip."]
    assert "- [`walk`](#ebwm.walks.walk): Take `steps` steps.\n- `Place`: A place.\n" in pages["reference/ebwm.md"]
    assert len(pages) == 2 and pages["reference/ebwm.md"].count("## ") == 1


def test_the_home_page_has_lines_for_the_site_alone_and_the_site_pages_for_data_and_changes(tmp_path):
    home = text("# Home\n[data](../../data/README.md)\n<!-- site: [all](a.md) -->")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/README.md").write_text("# Data\n")
    page = build(tmp_path, [home], [home], "core/01_a.ipynb")
    assert page[0]["source"] == "# Home\n[data](../reference/data.md)\n[all](a.md)"
    assert (tmp_path / "out/reference/data.md").read_text() == "# Data\n"
    shown = readme._plain(nbformat.from_dict(home | {"metadata": {}}), tmp_path).source
    assert shown == "# Home\n[data](../data/README.md)"


# Figures


def test_figures_claims_and_the_benchmark_have_pages(tmp_path):
    record(tmp_path, "fall.png", "fall-dark.png")
    (tmp_path / "figures/benchmarks").mkdir()
    for name, content in {"table.md": "| ours | 1 |", "training.png": "", "training-dark.png": ""}.items():
        (tmp_path / "figures/benchmarks" / name).write_text(content)
    page = build(tmp_path, [text("# Fall")], [text("# Fall")], "figures/fall.ipynb")[1]["source"]
    for part in ("`ebwm figures run fall`", "smoke 18 s on 2 cores, cpu 6 min on 2 cores",
                 "scale cpu, seeds 0, 1, 1 min on cpu",
                 "| It falls (EBT, Figure 0) | undecided | 1.5 (1.25 to 2) | below 2 |\n\n"
                 "In the paper's setting: undecided."):
        assert part in page
    pictures = "![{0}](../record/{1}/{0}.png){{.only-light}}\n![{0}](../record/{1}/{0}-dark.png){{.only-dark}}"
    assert page.endswith(pictures.format("fall", "fall")) and (tmp_path / "out/record/fall/fall-dark.png").is_file()
    assert "**falling** (EBT, Figure 0): It falls." in (tmp_path / "out/figures/claims.md").read_text()
    page = (tmp_path / "out/figures/benchmarks.md").read_text()
    assert "| ours | 1 |" in page and pictures.format("training", "benchmarks") in page and "![cost]" not in page
    sidebar = json.loads((tmp_path / "out/index.ipynb").read_text())["cells"][-1]["source"]
    assert ":caption: Results\n\nfigures/claims\nfigures/benchmarks\nfigures/index\n" in sidebar
    overview = (tmp_path / "out/figures/index.md").read_text()
    assert overview.startswith("# Figures\n\n- [Fall](fall.ipynb)\n") and overview.endswith(":hidden:\n\nfall\n```\n")


def test_a_figure_without_a_dark_picture_or_without_a_record(tmp_path):
    record(tmp_path, "fall.png")
    source = "![A fall](../figures/fall/fall.png) ![Missing](../figures/fall/rise.png)"
    placed = records.place_pictures(source, tmp_path / "nbs/index.ipynb", tmp_path, tmp_path / "out")
    assert placed == "![A fall](record/fall/fall.png) ![Missing](../figures/fall/rise.png)"
    for name in ("walk.gif", "walk-dark.gif"):
        (tmp_path / "figures/fall" / name).touch()
    source = "![A walk](../figures/fall/walk.gif)"
    assert records.place_pictures(source, tmp_path / "nbs/index.ipynb", tmp_path, tmp_path / "out") == (
        "![A walk](record/fall/walk.gif){.only-light}\n![A walk](record/fall/walk-dark.gif){.only-dark}")
    (tmp_path / "figures/fall/manifest.json").unlink()
    assert "| On record | nothing |" in records.section(Path("nbs/figures/fall.ipynb"), tmp_path)
    assert records.section(Path("nbs/figures/other.ipynb"), tmp_path) == ""


# The command


def test_versions_lie_side_by_side(tmp_path):
    """The newest is listed first, and is the front page; a site without versions is replaced."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/old.html").touch()
    for version in ("0.1", "0.2", "0.3", "0.1"):
        (tmp_path / "built").mkdir()
        (tmp_path / "built/index.html").write_text(version)
        builder.place(tmp_path / "built", tmp_path / "site", version)
        if version == "0.3":
            (tmp_path / "site/0.2/index.html").unlink()
            (tmp_path / "site/0.2").rmdir()
    assert json.loads((tmp_path / "site/versions.json").read_text()) == ["0.1", "0.3"]
    assert (tmp_path / "site/0.3/index.html").read_text() == "0.3"
    assert "url=0.1/index.html" in (tmp_path / "site/index.html").read_text()
    assert {path.name for path in (tmp_path / "site").iterdir()} == {"0.1", "0.3", "index.html", "versions.json"}


@pytest.mark.parametrize("arguments, named", [
    (["no-such-thing"], "site, sphinx, quarto, readme"), (["sphinx", "readme"], "'sphinx readme'"),
    (["quarto"], "'quarto', needed for the site of nbdev, is not on the PATH"),
    (["quarto", "--version", "0.1"], "--version='0.1'"), (["--version", "../x"], "--version='../x'")])
def test_a_command_is_refused_in_one_line(monkeypatch, capsys, arguments, named):
    monkeypatch.setenv("PATH", "")
    assert builder.main(arguments) == 2
    err = capsys.readouterr().err
    assert named in err and err.count("\n") == 1
