"""The figure engine: registry, parameters, runs, records, style and table."""

import itertools
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_figure import REGISTRY, code, write_notebook, write_project

from ebwm import figures, settings
from ebwm.figures import FigureError, NotebookError, Record

pd = pytest.importorskip("pandas")
pytest.importorskip("matplotlib").use("agg")
ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "nbs/figures").glob("*.ipynb"))
PICTURES = ["losses.png", "losses.svg", "losses-dark.png", "losses-dark.svg"]


def rewrite(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def refusal(act, *arguments, **named):
    """The message of a refusal, which must be one line."""
    with pytest.raises(FigureError) as caught:
        act(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The registry


def test_registry_reads_what_the_file_says(project):
    known = figures.registry()
    assert list(known.figures) == ["tiny"] and list(known.planned) == ["later"]
    tiny = known["tiny"]
    assert tiny.headline and tiny.notebook == project / "nbs/figures/tiny.ipynb"
    assert tiny.parameters["smoke"] == {"updates": 4, "rate": 1} and tiny.claims == ("something",)


@pytest.mark.parametrize("old, new, message", [
    ("id: later", "id: tiny", "two entries have the id 'tiny'"),
    ("headline:", "headlin:", "tiny: unknown key 'headlin'; did you mean 'headline'? allowed: claims"),
    ("tiny.ipynb", "tinny.ipynb", "its notebook nbs/figures/tinny.ipynb does not exist"),
    ("    title: \"A tiny figure\"\n", "", "tiny: the key 'title' is missing"),
    ("{smoke: 0.1,", "{smok: 0.1,", "unknown key 'smok'; did you mean 'smoke'?"),
    ("claims:", "memory: lots\n    claims:", "memory is 'lots'; it must be a number of GiB"),
    ("headline: true", "headline: maybe", "headline is 'maybe'; it must be true or false"),
    ("[\"something\"]", "[3]", "claims is [3]; it must be a list of texts"),
    ("[\"something\"]", "something", "claims is 'something'; it must be a list of texts"),
    ("{smoke: 0.1,", "{smoke: soon,", "minutes is {'smoke': 'soon', 'cpu': 3}; it must be a number"),
    ("[0, 1]", "[]", "seeds is {'smoke': []}; it must be whole numbers"),
    ("{updates: 4,", "{out: here,", "parameters: smoke: 'out' is set by the runner"),
    ("{updates: 4, rate: 1}", "4", "4 is given where names and values are needed"),
    ("id: tiny", "id: Tiny figure", "'Tiny figure' must be of lower-case letters"),
    ("claims:", "device: {gpu: tpu}\n    claims:", "it must be any or cuda"),
    ("claims:", "extras: [vido]\n    claims:", "it must be among"),
    ("planned:", "planed:", "unknown key 'planed'; did you mean 'planned'?"),
    ("planned:\n", "planned: [\n", "figures.yaml: while parsing"),
    ("  - {id: later", "    {id: later", "'planned' must be a list"),
])
def test_registry_refuses(project, old, new, message):
    rewrite(project / "figures/figures.yaml", old, new)
    assert message in refusal(figures.registry)


def test_registry_missing(project):
    (project / "figures/figures.yaml").unlink()
    assert "run this inside a checkout" in refusal(figures.registry)


def test_unknown_and_planned_ids_are_refused(project):
    assert refusal(figures.plan, "tinny") == "unknown figure 'tinny'; did you mean 'tiny'? allowed: tiny"
    assert "planned, it has no notebook yet; allowed: tiny" in refusal(figures.plan, "later")
    assert refusal(figures.plan, "tiny", "smok").startswith("unknown scale 'smok'; did you mean 'smoke'?")


# The notebook's parameters


def test_parameter_defaults(project):
    defaults = {"scale": "cpu", "seeds": [0, 1, 2], "out": None, "updates": 2, "rate": 0.5}
    defaults |= {"folder": None, "clips_dir": None}
    assert figures.parameter_defaults(project / "nbs/figures/tiny.ipynb") == {**defaults, "fast": False}


@pytest.mark.parametrize("cells, message", [
    ([code("a = 1")], "no cells tagged 'parameters'; it needs exactly one"),
    ([code("a = 1", "parameters"), code("b = 1", "parameters")], "has 2 cells tagged"),
    ([code("a = 1\nb = 2 * 3", "parameters")], "line 2"),
    ([code("a = b = 1", "parameters")], "line 1"),
    ([code("import os", "parameters")], "line 1"),
    ([code("a: int", "parameters")], "line 1"),
    ([code("a = 1\nb = = 2", "parameters")], "line 2"),
])
def test_parameter_cells_that_are_refused(tmp_path, cells, message):
    assert message in refusal(figures.parameter_defaults, write_notebook(tmp_path / "x.ipynb", *cells))


def test_file_that_is_no_notebook(tmp_path):
    (tmp_path / "x.ipynb").write_text("import os")
    assert "x.ipynb is no notebook" in refusal(figures.parameter_defaults, tmp_path / "x.ipynb")


def test_plan_merges_scale_seeds_and_overrides(project, monkeypatch):
    assert figures.plan("tiny").parameters == {"scale": "smoke", "updates": 4, "rate": 1, "seeds": [0, 1]}
    monkeypatch.setenv("EBWM_SEEDS", "5 6 7")
    asked = figures.plan("tiny", "cpu", {"rate": 0.25, "folder": "clips"}).parameters
    assert asked == {"scale": "cpu", "rate": 0.25, "folder": "clips", "seeds": [5, 6, 7]}
    assert figures.plan("tiny", "smoke", {"seeds": (9,)}).parameters["seeds"] == [9]


def test_a_folder_is_sought_where_the_command_is_given(project, monkeypatch):
    (project / "nbs" / "clips").mkdir()
    monkeypatch.chdir(project / "nbs")
    asked = figures.plan("tiny", overrides={"clips_dir": "clips"}).parameters
    assert asked["clips_dir"] == str(project / "nbs" / "clips")


@pytest.mark.parametrize("name, value, message", [
    ("updtes", 3, "unknown parameter 'updtes'; did you mean 'updates'? allowed: clips_dir, fast, "),
    ("updates", 1.5, "parameter 'updates' is 1.5; it must be a whole number, like its default 2"),
    ("updates", True, "it must be a whole number"),
    ("rate", "high", "it must be a number, like its default 0.5"),
    ("seeds", 3, "it must be a list, like its default [0, 1, 2]"),
    ("seeds", ["a"], "it must be a list"),
    ("seeds", [], "seeds are []; at least one is needed, and no two alike"),
    ("seeds", [0, 0], "seeds are [0, 0]; at least one is needed"),
    ("fast", 1, "it must be true or false"),
    ("folder", 3, "it must be a text or None"),
    ("scale", "cpu", "set by the runner, the scale by --scale"),
    ("out", "here", "set by the runner"),
    ("clips_dir", "nowhere", "parameter 'clips_dir' is 'nowhere', which is no folder here"),
])
def test_parameters_refused_before_anything_runs(project, name, value, message):
    assert message in refusal(figures.run, "tiny", overrides={name: value})
    assert [p.name for p in (project / "figures").iterdir()] == ["figures.yaml"]


def test_parameters_of_the_registry_are_checked_too(project):
    rewrite(project / "figures/figures.yaml", "updates: 4", "update: 4")
    assert "unknown parameter 'update'" in refusal(figures.plan, "tiny")


def test_stripped_tag_is_refused(project):
    rewrite(project / "nbs/figures/tiny.ipynb", '"parameters"', '"parametres"')
    assert "no cells tagged 'parameters'" in refusal(figures.run, "tiny")


def test_scale_that_needs_a_gpu(project):
    rewrite(project / "figures/figures.yaml", "claims:", "device: {gpu: cuda}\n    claims:")
    assert "needs a GPU, and the device here is 'cpu'" in refusal(figures.plan, "tiny", "gpu")
    assert figures.plan("tiny", "cpu").scale == "cpu"


def test_missing_packages_are_named_with_their_extra(project, monkeypatch):
    rewrite(project / "figures/figures.yaml", "claims:", "extras: [video]\n    claims:")
    monkeypatch.setattr(figures, "_installed", lambda package: package != "av")
    assert refusal(figures.plan, "tiny") == "figure 'tiny' needs av: pip install 'ebwm[video]'"


def test_extras_of_a_checkout_that_is_not_installed(monkeypatch):
    def absent(name):
        raise figures.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(figures.importlib.metadata, "requires", absent)
    found = figures.extras()
    assert {"av", "timm"} <= set(found["video"]) and "ebwm" not in found["dev"]


# Runs of a notebook


def test_run_then_a_failing_run(project, capfd):
    folder = figures.run("tiny", overrides={"updates": 3})
    assert folder == project / "figures/tiny/runs/smoke"
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        ["losses.parquet", "manifest.json", "tiny.ipynb", *PICTURES])
    manifest = json.loads((folder / "manifest.json").read_text())
    asked = {"scale": "smoke", "seeds": [0, 1], "updates": 3, "rate": 1}
    assert manifest["parameters"]["asked"] == asked
    assert manifest["parameters"]["effective"] == {**asked, "folder": None, "clips_dir": None}
    assert manifest["seeds"] == [0, 1] and manifest["threads"] == 1 and manifest["git"] is None
    assert manifest["results"] == {"executable": sys.executable, "least": 1}
    assert len(pd.read_parquet(folder / "losses.parquet")) == 6
    shown = capfd.readouterr().err
    assert "walking: 100%" in shown and "WARNING" not in shown

    with pytest.raises(NotebookError) as caught:
        figures.run("tiny", overrides={"folder": "nowhere"})
    assert str(caught.value) == ("figure 'tiny' failed: ValueError: the walk diverged; "
                                 "the partial notebook is figures/tiny/runs/smoke.failed/tiny.ipynb")
    assert "diverged" in (project / "figures/tiny/runs/smoke.failed/tiny.ipynb").read_text()
    assert json.loads((folder / "manifest.json").read_text()) == manifest
    assert sorted(p.name for p in folder.parent.iterdir()) == ["smoke", "smoke.failed"]


def test_notebook_that_ignores_what_was_asked_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(write_project(tmp_path, "updates = 1"))
    with pytest.raises(NotebookError, match=r"failed: the notebook ran with updates = 1, asked was 4;"):
        figures.run("tiny")
    assert not (tmp_path / "figures/tiny/runs/smoke").exists()


def finish(text):
    """A stand-in for executing a notebook: leaves this manifest, if any."""
    def execute(plan, folder):
        if text:
            (folder / "manifest.json").write_text(text)
    return execute


@pytest.mark.parametrize("text, message", [
    ("", "the notebook wrote no manifest.json"),
    ('{"parameters": {"effective": {"scale": "smoke", "seeds": [0, 1], "rate": 1}}}',
     "the notebook did not record its parameter 'updates'"),
    ("{", "JSONDecodeError"),
])
def test_notebook_with_an_incomplete_record_is_an_error(project, monkeypatch, text, message):
    monkeypatch.setattr(figures, "_execute_notebook", finish(text))
    with pytest.raises(NotebookError, match=re.escape(message)):
        figures.run("tiny")


def test_interrupted_run_keeps_what_there_was(project, monkeypatch):
    def interrupt(plan, folder):
        (folder / "half").touch()
        raise KeyboardInterrupt

    earlier = project / "figures/tiny/runs/smoke/manifest.json"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("{}")
    monkeypatch.setattr(figures, "_execute_notebook", interrupt)
    with pytest.raises(KeyboardInterrupt):
        figures.run("tiny")
    assert earlier.read_text() == "{}" and (project / "figures/tiny/runs/smoke.failed/half").exists()


# Records


def draw():
    from matplotlib import pyplot as plt

    fig, ax = plt.subplots()
    figures.spread(ax, [0, 1, 2], [[3, 2, 1], [3, 1, 1]], figures.colour("ebt"), "EBT")
    ax.legend()
    return fig


def record(scale="smoke", value=1.0, names=("losses",), out=None):
    seeds = {"smoke": [0, 1], "cpu": [0, 1, 2]}[scale]
    made = Record("tiny", {"scale": scale, "seeds": seeds, "out": out}, out)
    for name in names:
        made.data(name, pd.DataFrame({"loss": [value]}))
        made.picture(name, draw)
    made.close(best=torch.tensor(0.5))
    return made.folder


def test_record_by_hand_lies_in_the_folder_of_the_scale(project, monkeypatch):
    monkeypatch.chdir(project / "nbs/figures")
    folder = record("cpu")
    assert folder == project / "figures/tiny/runs/cpu"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["parameters"] == {"asked": None, "effective": {"scale": "cpu", "seeds": [0, 1, 2]}}
    assert manifest["results"] == {"best": 0.5} and manifest["pictures"] == ["losses"]
    assert manifest["versions"]["torch"] == torch.__version__ and manifest["peak_memory_mib"] > 50
    assert manifest["finished"].endswith("+00:00") and manifest["device"] == "cpu"


def test_pictures_are_the_same_bytes_again_and_differ_by_theme(project):
    first, second = record(out="a"), record(out="b")
    contents = [(first / name).read_bytes() for name in PICTURES]
    assert contents == [(second / name).read_bytes() for name in PICTURES]
    assert len(set(contents)) == 4
    assert not [p for p in first.iterdir() if p.name.startswith(".")]


def test_record_refuses_names_and_scales(project):
    made = Record("tiny", {"scale": "smoke"})
    assert "file name 'a/b'" in refusal(made.data, "a/b", pd.DataFrame({"a": [1]}))
    assert "unknown scale 'big'" in refusal(Record, "tiny", {"scale": "big"})


def test_manifest_tells_the_commit_and_whether_the_code_differs(project):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    state = json.loads((record() / "manifest.json").read_text())["git"]
    assert re.fullmatch("[0-9a-f]{40}", state["commit"]) and state["dirty"] is False
    rewrite(project / "settings.ini", "threads = 1", "threads = 2")
    assert json.loads((record() / "manifest.json").read_text())["git"]["dirty"] is True


# Putting on record


def test_promote_replaces_smaller_but_never_larger_scales(project):
    record("smoke", names=("losses", "extra"))
    figures.promote("tiny", "smoke")
    assert (project / "figures/tiny/extra-dark.png").is_file()
    run = record("cpu", value=2.0)
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    files = figures.promote("tiny", "cpu")
    names = ["losses.parquet", "manifest.json", *PICTURES]
    assert sorted(p.name for p in files) == sorted(names)
    assert sorted(p.name for p in (project / "figures/tiny").iterdir()) == sorted([*names, "runs"])
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before
    message = refusal(figures.promote, "tiny", "smoke")
    assert message.startswith("'tiny' is on record at scale 'cpu'; a run at the smaller scale 'smoke' does")
    assert pd.read_parquet(project / "figures/tiny/losses.parquet")["loss"][0] == 2.0


def test_promote_refuses_runs_that_are_absent_or_changed(project):
    assert "has no run at scale 'smoke'; make one: ebwm figures run tiny" in refusal(figures.promote, "tiny")
    folder = record()
    (folder / "losses.parquet").write_bytes(b"other")
    assert "losses.parquet is not the file that its manifest names" in refusal(figures.promote, "tiny")
    folder = record()
    (folder / "losses-dark.svg").unlink()
    assert "losses-dark.svg is missing" in refusal(figures.promote, "tiny")
    assert [p.name for p in (project / "figures/tiny").iterdir()] == ["runs"]


def test_promote_refuses_runs_with_other_parameters(project):
    folder = record()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["parameters"]["effective"]["updates"] = 99
    (folder / "manifest.json").write_text(json.dumps(manifest))
    message = refusal(figures.promote, "tiny")
    assert message == "figure 'tiny' was run with updates = 99, the registry has 4; run it again without -p"


# Style


def luminance(colour):
    channels = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    low, high = sorted([luminance(a), luminance(b)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", figures.COLOURS)
def test_colours_stand_out_from_their_background(theme):
    palette = figures.COLOURS[theme]
    assert palette.keys() == figures.COLOURS["light"].keys()
    assert min(contrast(palette[role], palette["background"]) for role in (*figures.ROLES, "truth")) > 3
    assert contrast(palette["text"], palette["background"]) > 7


def deuteranope(colour):
    """What is left of a colour without green cones (Viénot, Brettel and Mollon 1999, in linear RGB)."""
    r, g, b = ((int(colour[i:i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5))
    return 0.29275 * r + 0.70725 * g, -0.02234 * r + 0.02234 * g + b


@pytest.mark.parametrize("theme", figures.COLOURS)
def test_colours_differ_for_the_colour_blind(theme):
    seen = [deuteranope(figures.COLOURS[theme][role]) for role in figures.ROLES]
    pairs = itertools.combinations(seen, 2)
    assert min(math.dist(a, b) ** 0.5 for a, b in pairs) > 0.25


def test_style_sets_the_theme_and_takes_it_back():
    import matplotlib

    before = matplotlib.rcParams.copy()
    with figures.style("dark"):
        assert figures.colour("ebt") == figures.COLOURS["dark"]["ebt"]
        assert matplotlib.rcParams["axes.facecolor"] == figures.COLOURS["dark"]["background"]
    assert figures.colour("ebt") == figures.COLOURS["light"]["ebt"] and matplotlib.rcParams == before
    assert "did you mean 'dark'?" in refusal(figures.style("drak").__enter__)
    assert "unknown colour role 'ebtt'; did you mean 'ebt'?" in refusal(figures.colour, "ebtt")


def test_style_does_not_depend_on_a_persons_own(project):
    import matplotlib

    first = record(out="a")
    with matplotlib.rc_context({"lines.linestyle": ":", "font.size": 30, "axes.grid": False}):
        second = record(out="b")
    assert (first / "losses.png").read_bytes() == (second / "losses.png").read_bytes()


def test_spread_draws_mean_seeds_and_band():
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    mean = figures.spread(ax, [0, 1], [[1, 2], [3, 6]], "#0072b2", "EBT")
    assert list(mean.get_ydata()) == [2, 4] and mean.get_label() == "EBT"
    assert len(ax.lines) == 3 and len(ax.collections) == 1
    assert ax.collections[0].get_datalim(ax.transData).intervaly.tolist() == [1, 6]
    assert len(ax.get_legend_handles_labels()[1]) == 1
    figures.spread(alone := Figure().subplots(), [0, 1], [1, 2], "#0072b2", "one seed")
    assert len(alone.lines) == 1 and not alone.collections


# The table


def test_table_tells_made_from_unmade(project):
    rewrite(project / "figures/figures.yaml", "planned:\n", "planned:\n" + "".join(
        f"  - {{id: planned_figure_{i}, title: t, paper: p}}\n" for i in range(12)))
    figure = REGISTRY.split("figures:\n")[1].split("planned:")[0].replace("id: tiny", "id: other")
    rewrite(project / "figures/figures.yaml", "figures:\n", "figures:\n" + figure)
    text = figures.table({"tiny": project / "figures/tiny/runs/smoke"})
    lines = text.splitlines()
    assert lines[:2] == ["other  6 s   ebwm figures run other", "    A tiny figure"]
    assert lines[2] == "tiny   made  figures/tiny/runs/smoke"
    assert "planned: planned_figure_0," in text and max(map(len, lines)) <= 100
    assert "3 min  ebwm figures run other --scale cpu" in figures.table({}, "cpu")
    assert "time unknown" in figures.table({}, "gpu")


# This repository's own figures


def clean(notebook, folder, remove=""):
    """A copy of a notebook after nbdev-clean, under this repository's configuration less one line of it."""
    pytest.importorskip("nbdev")
    (folder / "nbs").mkdir()
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    if remove:
        rewrite(folder / "pyproject.toml", remove, "")
    copy = Path(shutil.copy(notebook, folder / "nbs"))
    call = "from nbdev.clean import nbdev_clean; nbdev_clean()"
    subprocess.run([sys.executable, "-c", call, "--fname", copy], cwd=folder, check=True, capture_output=True)
    return copy


@pytest.mark.parametrize("name", ["tiny", *(n.stem for n in NOTEBOOKS)])
def test_notebooks_keep_their_parameters_tag_after_cleaning(project, tmp_path_factory, name):
    notebook = {n.stem: n for n in NOTEBOOKS}.get(name, project / "nbs/figures/tiny.ipynb")
    copy = clean(notebook, tmp_path_factory.mktemp("clean"))
    assert figures.parameter_defaults(copy) == figures.parameter_defaults(notebook)


def test_cleaning_without_our_configuration_would_strip_the_tag(project, tmp_path_factory):
    folder, line = tmp_path_factory.mktemp("clean"), 'allowed_cell_metadata_keys = ["tags"]'
    copy = clean(project / "nbs/figures/tiny.ipynb", folder, remove=line)
    assert "no cells tagged 'parameters'" in refusal(figures.parameter_defaults, copy)


@pytest.mark.skipif(not NOTEBOOKS, reason="no figure has a notebook yet")
def test_registry_of_this_repository_fits_its_notebooks():
    config = settings.load(ROOT)
    known = figures.registry(config)
    assert {f.notebook for f in known.figures.values()} == set(NOTEBOOKS)
    for id, scale in itertools.product(known.figures, settings.SCALES):
        if known[id].device.get(scale) != "cuda" or torch.cuda.is_available():
            assert figures.plan(id, scale, config=config).parameters["scale"] == scale
        defaults = figures.parameter_defaults(known[id].notebook)
        assert known[id].parameters.get(scale, {}).keys() <= defaults.keys()
        assert scale == "gpu" or scale in known[id].minutes


# The figures of this repository


def test_next_frame_uses_the_settings_that_its_trials_chose():
    tuning = json.loads((ROOT / "figures/next_frame/tuning.json").read_text())
    defaults = figures.parameter_defaults(ROOT / "nbs/figures/next_frame.ipynb")
    for kind, chosen in tuning["chosen"].items():
        rows = [row for row in tuning["trials"] if row["model"] == kind]
        assert len(rows) == 5 and chosen == min(rows, key=lambda row: row["valid_loss"])
        assert defaults[f"learning_rate_{kind}"] == chosen["learning_rate"]
    assert defaults["step_size"] == tuning["chosen"]["ebt"]["step_size"]
    assert {name: defaults[name] for name in tuning["settings"]} == tuning["settings"]
