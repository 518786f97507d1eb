"""The README and the pages: up to date, with links that lead somewhere, and nbdev's marks translated."""

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

EXPORTED = '''#| export
import torch

def walk(
    y: float,  # where it begins
    steps: int = 2,  # how far
) -> float:  # where it ends
    "Go `steps` steps."
    return y

class Place:
    "Somewhere."

    def __init__(
        self,
        name: str,  # what it is called
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


def test_the_readme_is_what_the_home_page_says():
    assert README.read_text(encoding="utf-8") == readme.render(ROOT), "run: make readme"


def test_the_readmes_links_lead_to_files():
    links = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", README.read_text(encoding="utf-8"))
    assert links and [link for link in links if not (ROOT / link).exists()] == []


def test_the_readme_shows_no_directives():
    assert "#|" not in README.read_text(encoding="utf-8")


def test_the_readme_lists_every_figure_with_its_times():
    rows = README.read_text(encoding="utf-8").splitlines()
    registry = yaml.safe_load((ROOT / "figures" / "figures.yaml").read_text(encoding="utf-8"))
    for figure in registry["figures"]:
        row = next(row for row in rows if f"`ebwm figures run {figure['id']}`" in row)
        times = [cell.strip() for cell in row.strip("|").split("|")][2:]
        known = {scale: records.time(minutes) for scale, minutes in figure["minutes"].items()}
        told = {scale: f"{time} on {records.HARDWARE[scale]}" for scale, time in known.items()}
        assert times == [told.get(scale, "not measured yet") for scale in records.HARDWARE]


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


def test_pages_are_named_without_their_numbers():
    assert adapter.page_name(Path("core/02_walks.ipynb")) == Path("core/walks.ipynb")
    assert adapter.page_name(Path("index.ipynb")) == Path("index.ipynb")


def test_the_sidebar_has_the_rooms_in_order(tmp_path):
    ordered = ["index.ipynb", "protocol.ipynb", "core/01_d.ipynb", "core/02_c.ipynb", "training/e.md",
               "figures/b.ipynb", "z/a.ipynb"]
    for name in (*reversed(ordered), ".ipynb_checkpoints/f.ipynb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [str(p.relative_to(tmp_path)) for p in adapter.find_sources(tmp_path)] == ordered


def test_front_matter_becomes_a_title(tmp_path):
    raw = {**text("---\ntitle: 'Walks: two'\ndescription: Down\n---\n"), "cell_type": "raw"}
    assert build(tmp_path, [text("# Walks")], [raw])[0]["source"] == "# Walks: two\n\n{.lead}\nDown"


@pytest.mark.parametrize("directive, tag", [
    ("#| echo: false", "remove-input"),
    ("#| output: false", "remove-output"),
    ("#| include: false", "remove-cell"),
    ("#| warning: false", "remove-stderr"),
    ("#| code-fold: true", "hide-input"),
])
def test_directives_become_tags_and_leave_the_source(tmp_path, directive, tag):
    cell = code(f"{directive}\n1 + 1")
    page = build(tmp_path, [cell], [cell])
    assert (page[0]["metadata"]["tags"], page[0]["source"]) == ([tag], "1 + 1")


def test_callouts_become_admonitions(tmp_path):
    source = '::: {.callout-note}\nLook.\n:::\n\n::: {.callout-tip title="Try it"}\nDo.\n:::'
    page = build(tmp_path, [text(source)], [text(source)])
    assert page[0]["source"] == ":::{note}\nLook.\n:::\n\n:::{admonition} Try it\n:class: tip\nDo.\n:::"


def test_links_follow_pages_and_names(tmp_path):
    source = ("[this](02_walks.ipynb#a) [home](../index.ipynb) [`walk`](/core/walks.html#walk) "
              "[`near`](/core/walks.html#place.near) [settings](../../settings.ini) [web](https://example.org)")
    (tmp_path / "settings.ini").touch()
    cells = [code("#| default_exp walks"), code(EXPORTED, id="e"), text(source)]
    assert build(tmp_path, cells, [text(source)])[-1]["source"] == (
        "[this](walks.ipynb#a) [home](../index.ipynb) [`walk`](#ebwm.walks.walk) "
        "[`near`](#ebwm.walks.Place) settings [web](https://example.org)")


WALK_SECTION = """(ebwm.walks.walk)=
### `walk`

```python
def walk(
    y: float,  # where it begins
    steps: int = 2,  # how far
) -> float:  # where it ends
```

Go `steps` steps."""

PLACE_SECTION = """(ebwm.walks.Place)=
### `Place`

```python
Place(
    name: str,  # what it is called
)
```

- `.near(other)`: Whether it is close.
- `.__call__(y)`: its height"""


def test_an_exported_name_has_a_section_then_its_source(tmp_path):
    shown = {"data": {"text/markdown": "---\n\n### walk\n\n```python\n...\n```\n\n*Go `steps` steps.*"}}
    heading, after = text("## Walking", "h"), text("After.", "f")
    original = [code("#| default_exp walks", id="d"), heading, code(EXPORTED, id="e"), after]
    documented = [code("show_doc(Place)", id="new1"), code("show_doc(walk)", id="new2", outputs=[shown])]
    page = [cell["source"] for cell in build(tmp_path, original, [heading, *documented, after])]
    assert page[1:3] == [WALK_SECTION, PLACE_SECTION]
    assert page[3].startswith("<details") and "import torch" in page[3] and page[4] == "After."


def test_only_what_is_worth_reading_is_folded():
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
        (root / "figures" / "fall" / name).write_bytes(b"png")
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


def test_the_numbers_in_the_readme_are_those_on_record():
    results = json.loads((ROOT / "figures/next_frame/manifest.json").read_text())["results"]
    text = README.read_text(encoding="utf-8")
    rows = {"EBT, walks of 2 steps from noise": "ebt", "Transformer++, one pass": "transformer"}
    for name, kind in rows.items():
        losses = results["test_loss"][kind].values()
        mean, least, largest = sum(losses) / len(losses), min(losses), max(losses)
        assert f"| {name} | {mean:.3f} | {least:.3f} to {largest:.3f} |" in text
    difference = results["ebt_minus_transformer"]["over_seeds_and_clips"]
    verdict = "holds" if difference["low"] <= 0 <= difference["high"] else "excludes"
    bounds = f"{difference['low']:.3f} to {difference['high']:.3f}"
    assert f"paired difference, {bounds}, {verdict}" in text
    assert f"higher by {difference['value']:.3f} on average" in text
    assert f"(repeat the last frame) | {min(results['floors'].values()):.3f} |" in text


FOUND = [
    ("width", "difference_of_slopes.narrow.noise_minus_transformer", 3, "{} from noise"),
    ("width", "difference_of_slopes.narrow.latent_minus_transformer", 3, "{} with latent candidates"),
    ("thinking", "gain_percent.s2.as trained.longer", 1, "{} % after recipe S2"),
    ("thinking", "gain_percent.s1.as trained.longer", 1, "{} % after S1"),
    ("thinking", "gain_percent.s2.as trained.both", 1, "the lowest energy of eight gain {} %"),
    ("thinking", "gain_percent.s2.as trained.oracle", 1, "an oracle's choice gains {} %"),
    ("thinking", "differences.s1.occluded.thinking_minus_transformer.transformer", 3, "{} on partly hidden"),
    ("thinking", "differences.s1.as trained.thinking_minus_transformer.transformer", 3, "{} on clips as in"),
    ("thinking", "steps_follow_difficulty.s1.as trained", 2, "rank correlation is {};"),
    ("thinking", "differences.s1.faster.adaptive_minus_random", 4, "is {} on faster digits"),
    ("uncertainty", "across.ebt_energy.entropy", 2, "entropy of the future is {} |"),
    ("objectives", "reconstruction_minus_contrastive.widest", 3, "the better contrastive recipe is {} |"),
    ("text_thinking", "thinking_minus_transformer.s1.held-out", 3, "on the same tokens, is {} nats"),
    ("text_thinking", "gain_percent.s2.held-out.best of N", 2, "of ten walks gains {} % of perplexity"),
    ("update_rule", "loss.code_noise", 2, "authors' code: {} nats a token"),
    ("update_rule", "loss.paper_noise", 2, "above an even guess, at {};"),
    ("update_rule", "loss.paper_zeros", 2, "from zeros it reaches {} |"),
    ("token_energy", "correlation.within.energy_end", 2, "rank correlation with the loss is {};"),
    ("token_energy", "correlation.within.entropy", 2, "the same model's prediction is {} |"),
]


@pytest.mark.parametrize("figure, path, digits, words", FOUND)
def test_what_the_readme_says_was_found_is_on_record(figure, path, digits, words):
    found = json.loads((ROOT / "figures" / figure / "manifest.json").read_text())["results"]
    for part in path.split("."):
        found = found[part]
    middle = found.get("value", found.get("gain"))
    numbers = [f"{number:.{digits}f}" for number in (middle, found["low"], found["high"])]
    assert words.format(f"{numbers[0]} ({numbers[1]} to {numbers[2]})") in README.read_text(encoding="utf-8")


def test_the_readmes_verdicts_follow_their_intervals():
    results = {id: json.loads((ROOT / "figures" / id / "manifest.json").read_text())["results"]
               for id in ("width", "thinking", "uncertainty", "objectives")}
    thinking, slopes = results["thinking"], results["width"]["difference_of_slopes"]["narrow"]
    zero_within = lambda found: found["low"] <= 0 <= found["high"]
    assert slopes["noise_minus_transformer"]["high"] < 0 and zero_within(slopes["latent_minus_transformer"])
    gains = thinking["gain_percent"]["s2"]["as trained"]
    assert gains["both"]["low"] < gains["longer"]["gain"] and gains["oracle"]["low"] > gains["both"]["high"]
    against = {name: found["thinking_minus_transformer"]["transformer"]
               for name, found in thinking["differences"]["s1"].items()}
    assert [name for name, found in against.items() if found["high"] < 0] == ["occluded"]
    assert against["as trained"]["low"] > 0 < thinking["steps_follow_difficulty"]["s1"]["as trained"]["low"]
    dealt = {name: found["adaptive_minus_random"] for name, found in thinking["differences"]["s1"].items()}
    assert dealt.pop("faster")["high"] < 0 and all(zero_within(found) for found in dealt.values())
    assert zero_within(results["uncertainty"]["across"]["ebt_energy"]["entropy"])
    assert results["objectives"]["reconstruction_minus_contrastive"]["widest"]["high"] < 0


def test_the_readmes_verdicts_on_text_follow_their_intervals():
    thinking, rules, energy = (json.loads((ROOT / "figures" / id / "manifest.json").read_text())["results"]
                               for id in ("text_thinking", "update_rule", "token_energy"))
    gains, loss = thinking["gain_percent"]["s2"]["held-out"], rules["loss"]
    within = energy["correlation"]["within"]
    assert thinking["thinking_minus_transformer"]["s1"]["held-out"]["low"] > 0
    assert 0 < gains["best of N"]["low"] and gains["best of N"]["high"] < 1 and gains["longer"]["value"] == 0
    assert loss["paper_noise"]["low"] > rules["floors"]["even guess"] > loss["paper_zeros"]["high"]
    assert loss["code_noise"]["high"] < loss["paper_noise"]["low"] and rules["kept_of_noise"]
    assert 0 < within["energy_end"]["low"] and within["entropy"]["value"] > within["energy_end"]["value"]


def test_a_picture_without_a_dark_twin_shows_on_both_themes(tmp_path):
    record(tmp_path, "fall.png")
    source = "![A fall](../figures/fall/fall.png) ![Missing](../figures/fall/rise.png)"
    placed = records.place_pictures(source, tmp_path / "nbs" / "index.ipynb", tmp_path, tmp_path / "out")
    assert placed == "![A fall](record/fall/fall.png) ![Missing](../figures/fall/rise.png)"


def test_a_figure_that_was_never_recorded_says_so(tmp_path):
    record(tmp_path)
    (tmp_path / "figures" / "fall" / "manifest.json").unlink()
    assert "| On record | nothing yet |" in records.section(Path("nbs/figures/fall.ipynb"), tmp_path)
    assert records.section(Path("nbs/figures/other.ipynb"), tmp_path) == ""


# The command


@pytest.mark.parametrize("arguments", [["no-such-thing"], ["sphinx", "readme"]])
def test_a_wrong_command_is_refused_in_one_line(arguments):
    command = [sys.executable, ROOT / "docs" / "build.py", *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2 and "site, sphinx, quarto, readme" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_without_quarto_its_name_and_its_source_are_told(monkeypatch):
    monkeypatch.setenv("PATH", "")
    command = [sys.executable, str(ROOT / "docs/build.py"), "quarto"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert "'quarto', needed for nbdev's own site, is not on the PATH: get it from https" in result.stderr
