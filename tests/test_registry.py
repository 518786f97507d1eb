"""The registry, the notebooks' parameters, and what is refused before anything runs."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from tiny_figure import code, refusal, rewrite, write_notebook

from ebwm import compat, figures, settings
from ebwm.figures.plan import cores, jobs_of, threads_for

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "nbs/figures").glob("*.ipynb"))


# The registry


def test_registry_reads_what_the_file_says(project):
    known = figures.registry()
    assert list(known.figures) == ["tiny", "fan"] and list(known.planned) == ["later"]
    tiny = known["tiny"]
    assert tiny.headline and tiny.notebook == project / "nbs/figures/tiny.ipynb"
    assert tiny.parameters["smoke"] == {"updates": 4, "rate": 1}
    assert [claim.name for claim in tiny.claims] == ["something"]


SOURCE = ', source: "EBT, Figure 0"'
STATISTIC = f"{SOURCE}, statistic: least"
PAPER = "papers: [{name: EBT, arxiv: 1, items: [{item: F1, shows: xEXTRA}]}]\nplanned:"


@pytest.mark.parametrize("old, new, message", [
    ("id: later", "id: tiny", "two entries have the id 'tiny'"),
    ("headline:", "headlin:", "tiny: unknown key 'headlin'; did you mean 'headline'? allowed: claims"),
    ("tiny.ipynb", "tinny.ipynb", "its file nbs/figures/tinny.ipynb does not exist"),
    ("claims:", "data: [data/none.csv]\n    claims:", "its file data/none.csv does not exist"),
    ("    title: \"A tiny figure\"\n", "", "tiny: the key 'title' is missing"),
    ("{smoke: 0.1,", "{smok: 0.1,", "unknown key 'smok'; did you mean 'smoke'?"),
    ("claims:", "memory: lots\n    claims:", "memory: 'lots' is given where names and values are needed"),
    ("claims:", "memory: {cpu: lots}\n    claims:", "memory is {'cpu': 'lots'}; it must be a number of GiB"),
    ("claims:", "timeout: {cpu: 0}\n    claims:", "it must be a number of minutes for each scale"),
    ("claims:", "processes: {cpu: 0.5}\n    claims:", "it must be a count for each scale"),
    ("claims:", "tolerances: {a: -1}\n    claims:", "it must be a number from 0, or any"),
    ("claims:", "each: seeds\n    claims:", "each is 'seeds'; it must be a list of texts"),
    ("headline: true", "headline: maybe", "headline is 'maybe'; it must be true or false"),
    ("name: something", "nam: something", "claims: name None must be of lower-case letters"),
    ("says:", "sayss:", "tiny: something: unknown key 'sayss'; did you mean 'says'?"),
    (SOURCE, "", "tiny: something: the key 'source' is missing"),
    (SOURCE, f"{STATISTIC}", "a claim has both a statistic and what to expect of it, or neither"),
    (SOURCE, f"{STATISTIC}, expect: {{equals: 1}}", "it must be {equals, within}, {below} or {above}"),
    (SOURCE, f"{STATISTIC}, expect: {{below: x}}", "each a number"),
    ("paper: EBT}", "paper: EBT, claims: [{name: something, says: a, source: b}]}", "the claim 'something'"),
    ("planned:", PAPER.replace("EXTRA", ""), "F1: name the figure"),
    ("planned:", PAPER.replace("EXTRA", ", figure: tin"),
     "EBT: F1: unknown figure 'tin'; did you mean 'tiny'?"),
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
    assert refusal(figures.plan, "tinny") == "unknown figure 'tinny'; did you mean 'tiny'? allowed: fan, tiny"
    assert "planned, it has no notebook yet; allowed: fan, tiny" in refusal(figures.plan, "later")
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
    monkeypatch.setattr(compat, "installed", lambda package: package != "av")
    assert refusal(figures.plan, "tiny") == "figure 'tiny' needs av: pip install 'ebwm[video]'"


def test_extras_are_those_of_the_checkout_whatever_is_installed(monkeypatch):
    def absent(name):
        raise compat.importlib.metadata.PackageNotFoundError(name)

    for requires in (absent, lambda name: ["old; extra == 'video'"]):
        monkeypatch.setattr(compat.importlib.metadata, "requires", requires)
        found = compat.extras()
        assert {"av", "timm"} <= set(found["video"]) and "old" not in found["video"]
        assert "ebwm" not in found["dev"]


def test_extras_of_an_installed_package_are_in_its_metadata(monkeypatch, tmp_path):
    monkeypatch.setattr(compat, "__file__", str(tmp_path / "ebwm" / "compat.py"))
    told = ["av>=14; extra == 'video'", "torch"]
    monkeypatch.setattr(compat.importlib.metadata, "requires", lambda name: told)
    assert compat.extras() == {"video": ["av"]}


# Jobs


def test_a_figure_without_items_is_one_job(project):
    (job,) = jobs_of(figures.plan("tiny"))
    assert job.name == "tiny" and not job.part and not job.needs
    assert job.folder == str(project / "figures/tiny/runs/smoke")
    assert job.timeout == 10 and job.memory == 4 and job.gpus == 0 and job.processes == 1


def test_a_figure_over_items_is_a_job_for_each_and_one_that_joins_them(project):
    first, second, whole = jobs_of(figures.plan("fan", overrides={"seeds": [3, 7], "sizes": [8]}))
    assert [first.name, second.name] == ["fan.seeds-3_sizes-8", "fan.seeds-7_sizes-8"]
    assert first.parameters["seeds"] == [3] and first.part
    assert first.folder.endswith("runs/smoke.parts/seeds-3_sizes-8")
    assert whole.name == "fan" and whole.needs == (first.name, second.name) and not whole.part
    assert whole.parts == (first.folder, second.folder) and whole.parameters["seeds"] == [3, 7]
    assert len(jobs_of(figures.plan("fan", overrides={"seeds": [3], "sizes": [8]}))) == 1


def test_items_must_be_a_list_of_different_ones_with_different_names(project):
    assert "seeds are [1, 1]" in refusal(figures.plan, "fan", overrides={"seeds": [1, 1]})
    notebook, sizes = project / "nbs/figures/fan.ipynb", 'sizes = [\\"a/b\\", \\"a_b\\"]'
    rewrite(notebook, "sizes = [8, 16]", sizes)
    assert "sizes are ['a/b', 'a_b']; at least one" in refusal(figures.plan, "fan")
    rewrite(notebook, sizes, "sizes = [8, 16]")
    rewrite(project / "nbs/figures/fan.ipynb", "sizes = [8, 16]", "sizes = 8")
    assert "'sizes' is 8; a parameter whose items are jobs must be a list" in refusal(figures.plan, "fan")


def test_the_cell_tagged_parts_is_checked(project):
    rewrite(project / "nbs/figures/fan.ipynb", '"parts"', '"part"')
    assert "no cells tagged 'parts'; it needs exactly one" in refusal(lambda: jobs_of(figures.plan("fan")))


def test_threads_are_shared_so_that_all_jobs_end_soonest():
    assert [threads_for(jobs, 2) for jobs in (1, 2, 3, 4)] == [2, 1, 2, 1]
    assert [threads_for(jobs, 16) for jobs in (1, 3, 16, 32)] == [16, 5, 1, 1]
    for jobs, count in itertools.product(range(1, 9), range(1, 9)):
        assert 1 <= threads_for(jobs, count) <= count


def test_the_cores_that_are_given_bound_the_threads(project):
    rewrite(project / "settings.ini", "threads = 1", "threads = 0")
    threads = lambda id, *count: {job.threads for job in jobs_of(figures.plan(id), *count)}
    assert threads("tiny", 1) == {1} and threads("tiny", 6) == {6}
    assert threads("fan", 4) == {1} and threads("fan", 6) == {3}
    assert threads("tiny") == {cores()}
    rewrite(project / "settings.ini", "threads = 0", "threads = 3")
    assert threads("tiny", 1) == {3}


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


def test_next_frame_uses_the_settings_that_its_trials_chose():
    tuning = json.loads((ROOT / "figures/next_frame/tuning.json").read_text())
    defaults = figures.parameter_defaults(ROOT / "nbs/figures/next_frame.ipynb")
    for kind, chosen in tuning["chosen"].items():
        rows = [row for row in tuning["trials"] if row["model"] == kind]
        assert len(rows) == 5 and chosen == min(rows, key=lambda row: row["valid_loss"])
        assert defaults[f"learning_rate_{kind}"] == chosen["learning_rate"]
    assert defaults["step_size"] == tuning["chosen"]["ebt"]["step_size"]
    assert {name: defaults[name] for name in tuning["settings"]} == tuning["settings"]


@pytest.mark.parametrize("id", ["objectives", "ablation", "thinking"])
def test_recipes_are_compared_with_the_settings_that_their_trials_chose(id):
    tuning = json.loads((ROOT / "figures" / id / "tuning.json").read_text())
    defaults = figures.parameter_defaults(ROOT / "nbs/figures" / f"{id}.ipynb")
    for kind, chosen in tuning["chosen"].items():
        rows = [row for row in tuning["trials"] if row["recipe"] == kind]
        assert len(rows) == 5 and chosen == min(rows, key=lambda row: row["valid_loss"])
        tried = chosen.keys() - {"recipe", "valid_loss", "seconds"}
        assert {name: defaults[name] for name in tried} == {name: chosen[name] for name in tried}
    assert {name: defaults[name] for name in tuning["settings"]} == tuning["settings"]


def test_width_is_tuned_at_its_own_settings_and_each_kind_as_often():
    tuning = json.loads((ROOT / "figures/width/tuning.json").read_text())
    defaults = figures.parameter_defaults(ROOT / "nbs/figures/width.ipynb")
    assert {name: defaults[name] for name in tuning["settings"]} == tuning["settings"]
    assert tuning["width"] in defaults["widths"] and tuning["seed"] not in defaults["seeds"]
    for kind, chosen in tuning["chosen"].items():
        rows = [row for row in tuning["trials"] if row["model"] == kind]
        assert len(rows) == 8 and chosen == min(rows, key=lambda row: row["valid_loss"])


def test_update_rules_are_tried_at_the_figures_settings_and_as_often():
    defaults = figures.parameter_defaults(ROOT / "nbs/figures/update_rule.ipynb")
    for name, forms in {"text_scaling": ["s1", "paper"], "update_rule": None}.items():
        tuning = json.loads((ROOT / f"figures/{name}/tuning.json").read_text())
        assert {name: defaults[name] for name in tuning["settings"]} == tuning["settings"]
        assert tuning["seed"] not in defaults["seeds"]
        for form in forms or tuning["chosen"]:
            rows = [row for row in tuning["trials"] if row["model"] == form]
            done = [row for row in rows if row["valid_loss"] is not None]
            assert len(rows) == 7 and tuning["chosen"][form] == min(done, key=lambda row: row["valid_loss"])


def test_each_start_uses_the_settings_that_its_trials_chose():
    tuning = json.loads((ROOT / "figures/initial_condition/tuning.json").read_text())
    defaults = figures.parameter_defaults(ROOT / "nbs/figures/initial_condition.ipynb")
    assert tuning["chosen"].keys() == {"noise", "last", "zeros"} and tuning["seed"] not in defaults["seeds"]
    for start, chosen in tuning["chosen"].items():
        rows = [row for row in tuning["trials"] if row["start"] == start]
        assert len(rows) == 5 and chosen == min(rows, key=lambda row: row["valid_loss"])
        assert defaults[f"learning_rate_{start}"] == chosen["learning_rate"]
        assert defaults[f"step_size_{start}"] == chosen["step_size"]
    assert {name: defaults[name] for name in tuning["settings"]} == tuning["settings"]
