"""The registry, parameters of notebooks, plans and jobs. Refusals are in refusals/figures.py."""

import contextlib
import itertools
import json
import sys
from pathlib import Path

import pytest
import torch
from tiny_figure import rewrite

from ebwm import compat, figures, settings
from ebwm.figures.errors import FigureError
from ebwm.figures.plan import as_json, from_json, jobs_of
from ebwm.figures.trials import KEYS

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "nbs/figures").glob("*.ipynb"))


def test_the_registry_and_the_defaults_of_a_notebook(project):
    known = figures.registry()
    assert list(known.figures) == ["tiny", "fan"] and list(known.planned) == ["later"]
    tiny = known["tiny"]
    assert tiny.headline and tiny.notebook == project / "nbs/figures/tiny.ipynb"
    assert tiny.parameters["smoke"] == {"updates": 4, "rate": 1} and tiny.minutes == {"smoke": 0.1, "cpu": 3}
    assert [claim.name for claim in tiny.claims] == ["something"]
    assert figures.parameter_defaults(tiny.notebook) == {
        "scale": "cpu", "seeds": [0, 1, 2], "out": None, "updates": 2, "rate": 0.5, "folder": None,
        "clips_dir": None, "fast": False}


def test_plan_merges_registry_settings_and_overrides(project, monkeypatch):
    assert figures.plan("tiny").parameters == {"scale": "smoke", "updates": 4, "rate": 1, "seeds": [0, 1]}
    monkeypatch.setenv("EBWM_SEEDS", "5 6 7")
    requested = figures.plan("tiny", "cpu", {"rate": 0.25, "folder": "clips"}).parameters
    assert requested == {"scale": "cpu", "rate": 0.25, "folder": "clips", "seeds": [5, 6, 7]}
    assert figures.plan("tiny", "smoke", {"seeds": (9,)}).parameters["seeds"] == [9]
    (project / "nbs/clips").mkdir()
    monkeypatch.chdir(project / "nbs")
    clips = figures.plan("tiny", overrides={"clips_dir": "clips"}).parameters["clips_dir"]
    assert clips == str(project / "nbs/clips"), "relative to the working folder"


def test_missing_packages_are_named_with_their_extra(project, monkeypatch):
    rewrite(project / "figures/figures.yaml", "claims:", "extras: [video]\n    claims:")
    monkeypatch.setattr(compat, "installed", lambda package: package != "av")
    with pytest.raises(figures.FigureError, match=r"needs av: pip install 'ebwm\[video\]'"):
        figures.plan("tiny")


@pytest.mark.parametrize("name, refused", [("reach", False), ("metaworld:hammer", True), ("robosuite:Can", True)])
def test_a_simulator_of_robots_needs_its_extra(project, monkeypatch, name, refused):
    rewrite(project / "nbs/figures/tiny.ipynb", "fast = False", f"fast = False\\nsimulator = '{name}'")
    monkeypatch.setattr(compat, "installed", lambda package: package != "mujoco")
    expected = pytest.raises(figures.FigureError, match=r"needs mujoco: pip install 'ebwm\[policy\]'")
    with expected if refused else contextlib.nullcontext():
        assert figures.plan("tiny").figure.id == "tiny"


# Jobs


def test_a_figure_without_items_is_one_job(project):
    (job,) = jobs_of(figures.plan("tiny"))
    assert job.name == "tiny" and not job.part and not job.needs
    assert job.folder == str(project / "figures/tiny/runs/smoke")
    assert (job.timeout, job.memory, job.gpus, job.processes) == (15, 4, 0, 1)
    assert from_json(json.loads(json.dumps(as_json(job)))).key == job.key


def test_a_figure_with_items_is_one_job_for_each_and_one_that_joins_them(project):
    first, second, whole = jobs_of(figures.plan("fan", overrides={"seeds": [3, 7], "sizes": [8]}))
    assert [first.name, second.name] == ["fan.seeds-3_sizes-8", "fan.seeds-7_sizes-8"]
    assert first.parameters["seeds"] == [3] and first.part and first.key != second.key
    assert second.inputs["parameters"] == second.parameters
    assert first.folder.endswith("runs/smoke.parts/seeds-3_sizes-8")
    assert whole.name == "fan" and whole.needs == (first.name, second.name) and not whole.part
    assert whole.parts == (first.folder, second.folder) and whole.parameters["seeds"] == [3, 7]
    assert len(jobs_of(figures.plan("fan", overrides={"seeds": [3], "sizes": [8]}))) == 1


def test_a_job_has_one_thread_unless_the_user_or_the_registry_say_more(project, monkeypatch):
    threads = lambda id: {job.threads for job in jobs_of(figures.plan(id))}
    rewrite(project / "settings.ini", "threads = 1", "threads = 0")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads("tiny") == threads("fan") == {1}
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threads("tiny") == threads("fan") == {2}
    rewrite(project / "settings.ini", "threads = 0", "threads = 3")
    assert threads("tiny") == threads("fan") == {3}


# This repository's registry


def test_the_registry_of_this_repository_matches_its_notebooks(monkeypatch):
    monkeypatch.setattr(compat, "installed", lambda package: True)  # extras are optional where tests run
    config = settings.load(ROOT)
    known = figures.registry(config)
    monkeypatch.setattr(sys.modules["ebwm.figures.plan"], "registry", lambda config: known)  # read once
    assert {f.notebook for f in known.figures.values()} == set(NOTEBOOKS)
    for id, scale in itertools.product(known.figures, settings.SCALES):
        if not known[id].has(scale):
            with pytest.raises(FigureError, match="has no scale 'long'"):
                figures.plan(id, scale, config=config)
            continue
        here = known[id].device.get(scale) != "cuda" or torch.cuda.is_available()
        assert figures.plan(id, scale, config=config, means=here, cluster=not here).parameters["scale"] == scale
        defaults = figures.parameter_defaults(known[id].notebook)
        assert known[id].parameters.get(scale, {}).keys() <= defaults.keys()
        assert scale == "gpu" or scale in known[id].minutes


TUNED_OTHERWISE = {  # figures that were tuned with other values of these parameters than their defaults
    "denoising": {"step_size"},  # one for each of its two data sets, below
    "facets": {"updates"}, "policy_tasks": {"simulator", "demonstrations"},  # tuned on one of its tasks
    "text_scaling": {"dim", "heads", "updates"}, "uncertainty": {"updates", "learning_rate"}}
FURTHER = {"facets": {"ebt"}}  # kinds with further trials, which show that the best of as many as others have is inside
TUNINGS = sorted((ROOT / "figures").glob("*/tuning.json"))


@pytest.mark.parametrize("path", TUNINGS, ids=lambda path: path.parent.name)
def test_defaults_are_the_best_settings_of_equally_many_trials(path):
    tuning, id = json.loads(path.read_text()), path.parent.name
    defaults = figures.parameter_defaults(ROOT / f"nbs/figures/{id}.ipynb")
    other = TUNED_OTHERWISE.get(id, set())
    assert {n for n, value in tuning["settings"].items() if defaults.get(n) != value} <= other
    assert tuning["seed"] not in defaults["seeds"]
    key = next(key for key in KEYS if key in tuning["trials"][0])
    trials = {kind: [row for row in tuning["trials"] if row[key] == kind] for kind in tuning["chosen"]}
    further = FURTHER.get(id, set())
    (count,) = {len(rows) for kind, rows in trials.items() if kind not in further}
    assert all(tuning["chosen"][kind] in trials[kind][:count] for kind in further)
    for kind, chosen in tuning["chosen"].items():
        done = [row for row in trials[kind] if row["valid_loss"] is not None]
        assert chosen == min(done, key=lambda row: row["valid_loss"])
        named = {n: defaults.get(f"{n}_{kind}", defaults.get(n)) for n in chosen.keys() - other}
        assert all(value == chosen[n] for n, value in named.items() if value is not None)


def test_denoising_has_the_best_settings_of_the_trials_on_each_of_its_data_sets():
    chosen = json.loads((ROOT / "figures/denoising/tuning.json").read_text())["chosen"]
    defaults = figures.parameter_defaults(ROOT / "nbs/figures/denoising.ipynb")
    kinds = ("ebt", "one_pass", "dit")
    assert {kind: chosen[f"digits {kind}"]["learning_rate"] for kind in kinds} == {
        kind: defaults[f"learning_rate_{kind}"] for kind in kinds}
    assert {kind: chosen[f"photographs {kind}"]["learning_rate"] for kind in kinds} == defaults["beside_rates"]
    assert chosen["digits ebt"]["step_size"] == defaults["step_size"]
    assert chosen["photographs ebt"]["step_size"] == defaults["beside_step_size"]


# The GPU plan


def test_the_gpu_plan_is_ordered_and_its_steps_can_be_planned():
    known = figures.registry(settings.load(ROOT))
    steps = known.gpu_plan
    first = [step.name for step in steps if step.first]
    assert first == ["kernels", "bench_short", "bench_long", "text_scaling_0", "width_0", "thinking_0"]
    for step in (step for step in steps if step.figure):
        assert known[step.figure].device["gpu"] == "cuda", step.name
        plan = figures.plan(step.figure, "gpu", step.parameters, settings.load(ROOT), means=False, cluster=True)
        labels = [job.name.removeprefix(f"{step.figure}.") for job in jobs_of(plan)[:-1]]
        assert not step.part or step.part in labels, step.name
    joined = {step.figure for step in steps if step.part} - {step.figure for step in steps if not step.part}
    assert not joined, "the parts of a figure are joined by a later step"
