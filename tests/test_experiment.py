"""The experiment layer of the figures: searches, tables, intervals, walks, and the command that makes trials."""

import ast
import copy
import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from sizes import ROOT
from tiny_figure import PARAMETERS, code, refusal, write_notebook

from ebwm import settings
from ebwm.cli import main
from ebwm.ebt import EBT
from ebwm.evaluation.statistics import student_crossed
from ebwm.figures import commands
from ebwm.figures.experiment import panels, robots, row_space
from ebwm.figures.experiment.ranking import wins
from ebwm.figures.experiment.sampled import Sampled
from ebwm.figures.experiment.scaling import faster_by_student, log_shares, slope_shares
from ebwm.figures.experiment.tables import (
    crossed,
    cube,
    grid,
    interval_rows,
    jackknife,
    join,
    matrix,
    over_seeds,
    percent_higher,
    resampled,
)
from ebwm.figures.experiment.tokens import random_text, words
from ebwm.figures.experiment.tuning import make_trials, search, times, trials_beyond
from ebwm.figures.experiment.walks import Walks, library_agreement, state_losses, traces
from ebwm.figures.notebook import cells_of, code_of
from ebwm.figures.trials import beyond
from ebwm.figures.tune import tune
from ebwm.objective import smooth_l1

NOTEBOOKS = sorted((ROOT / "nbs/figures").glob("*.ipynb"))


# Headings


@pytest.mark.parametrize("named, status, title", [
    ({}, panels.STAND_IN, "A (stand-in data, small)"), ({"source": "my.txt"}, "small models", "A (small)"),
    ({"source": "packages"}, panels.STAND_IN, "A (stand-in data, small)"),
    ({"source": "python", "video_dir": "clips"}, "small models", "A (small)")])
def test_the_users_own_data_are_no_stand_in(named, status, title):
    assert panels.status(named) == status and commands._title("A (stand-in data, small)", named) == title


# Notebooks


def test_figure_notebooks_share_no_function_are_short_and_open_with_question_picture_and_answer():
    names, bodies, lines = Counter(), Counter(), 0
    for path in NOTEBOOKS:
        picture = f"figures/{path.stem}/{path.stem}.png"
        opening = "".join(json.loads(path.read_text())["cells"][1]["source"])
        assert opening.startswith("**Question.**") and "**Answer.**" in opening
        assert f"../../{picture})" in opening and (ROOT / picture).is_file()
        for source in code_of(cells_of(path)):
            lines += len(source.splitlines())
            functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)]
            names.update(n.name for n in functions)
            bodies.update(ast.unparse(n.body) for n in functions)
    assert not [name for name, count in (names + bodies).items() if count > 1]
    assert lines <= 150 * len(NOTEBOOKS)


# Tuning


def test_a_search_tries_one_setting_after_another_at_the_best_so_far():
    def score(rate, size=1.0):
        if rate > 10:
            raise FloatingPointError
        return (rate - 2) ** 2 + (size - 3) ** 2

    stages = search(("rate", (1.0, 2.0, 20.0, times(0.5), times(2))), ("size", (3.0, 1.0)), size=1.0)
    rows = make_trials(stages, score, lambda row: None)
    tried = [(row["rate"], row["size"]) for row in rows]
    assert tried == [(1.0, 1.0), (2.0, 1.0), (20.0, 1.0), (4.0, 1.0), (2.0, 3.0)]  # without those already made
    assert [row["valid_loss"] for row in rows] == [5.0, 4.0, None, 8.0, 0.0]


def test_the_next_value_is_tried_where_the_best_is_at_an_end():
    loss = lambda rate, size, rule: (rate - 1) ** 2 + (size - 3) ** 2
    stages = search(("rate", (2.0, 4.0, 8.0)), ("size", (2.0, 3.0, 4.0)), size=2.0, rule="a")
    rows = make_trials(stages, loss, lambda row: None)
    assert beyond(rows) == {"rate": 1.0}
    further = trials_beyond(rows, loss, lambda row: None)
    assert [(row["beyond"], row["rate"], row["size"], row["valid_loss"]) for row in further] == [
        ("", 2.0, 3.0, 1.0), ("rate", 1.0, 3.0, 0.0)]
    assert trials_beyond(rows[:1], loss) == []  # one value has no end


DECLARED = """
from ebwm.figures.experiment.runs import Experiment
from ebwm.figures.experiment.tuning import search

exp = Experiment("tiny", globals())
searches = {kind: search(("rate", (1.0, 3.0))) for kind in ("one", "two")}
exp.tune(searches, lambda kind, seed, rate: seed * (rate - 2.5) ** 2 + updates, shared=["updates"])
"""


def in_process(notebook, count, folder, parameters, root, manager):
    """Execute cells without a kernel."""
    first, *rest = code_of(cells_of(notebook)[:count])
    names = {}
    for source in (first, *(f"{name} = {value!r}" for name, value in parameters.items()), *rest):
        exec(source, names)


def test_the_command_makes_declared_trials_and_keeps_those_of_other_kinds(project, monkeypatch, capsys):
    write_notebook(project / "nbs/figures/tiny.ipynb", code(PARAMETERS, "parameters", id="p"),
                   code(DECLARED, "tuning", id="t"), code("raise RuntimeError", id="e"))
    path = project / "figures/tiny/tuning.json"
    with monkeypatch.context() as patch:
        patch.setattr("ebwm.figures.tune.execute_cells", in_process)
        assert main(["figures", "tune", "tiny"]) == 0
        made = json.loads(path.read_text())
        assert [row["model"] for row in made["trials"]] == ["one", "one", "two", "two"]
        assert made["chosen"]["one"]["rate"] == 3.0 and made["settings"] == {"updates": 2} and made["seed"] == 100
        assert made["seconds"] == pytest.approx(sum(row["seconds"] for row in made["trials"]), abs=0.1)
        path.write_text(json.dumps(made | {"trials": [row | {"seconds": 7.0} for row in made["trials"]]}))
        assert main(["figures", "tune", "tiny", "--only", "two"]) == 0
        again = json.loads(path.read_text())["trials"]
        assert [row["seconds"] == 7.0 for row in again] == [True, True, False, False]
        assert "--only='three': must be one of one, two" in refusal(tune, "tiny", only=["three"])
        assert main(["figures", "tune", "tiny", "--beyond"]) == 0
        further = json.loads(path.with_name("beyond.json").read_text())["trials"]
        assert further == {"one": [], "two": []}  # two values are a choice, not a grid
        assert json.loads(path.read_text())["trials"] == again
    told = code("raise ValueError(open(f'{out}/job.json').read())", "tuning", id="t")
    write_notebook(project / "nbs/figures/tiny.ipynb", code(PARAMETERS, "parameters", id="p"), told)
    assert main(["figures", "tune", "tiny", "--only", "two"]) == 1  # in a kernel
    assert 'failed: ValueError: { "beyond": false, "tune": [ "two" ] }' in capsys.readouterr().err
    assert json.loads(path.read_text())["trials"] == again


# Tables and intervals


def test_tables_of_parts_become_one_with_keys_as_columns():
    parts = {("a", 1): {"rows": [dict(x=1.0), dict(x=2.0)], "one": dict(y=3)},
             ("b", 2): {"rows": dict(x=np.array([4.0]))}}
    tables = join(parts, "model", "width")
    assert tables["rows"].to_dict("list") == {"model": ["a", "a", "b"], "width": [1, 1, 2], "x": [1.0, 2.0, 4.0]}
    assert tables["one"].to_dict("list") == {"model": ["a"], "width": [1], "y": [3]}


def test_intervals_are_students_over_seeds_and_items_and_empty_for_one_seed():
    noise = np.random.default_rng(0).normal(size=(2, 3, 5))
    keys = [(model, seed, clip) for model in "ab" for seed in range(3) for clip in range(5)]
    frame = pd.DataFrame(keys, columns=["model", "seed", "clip"]).assign(loss=noise.ravel())
    frame = frame.sample(frac=1, random_state=0)
    assert np.array_equal(matrix(frame, "loss", model="b"), noise[1])
    assert crossed(noise[0]) == student_crossed(noise[0])._asdict()
    base = noise[0] + 9
    assert np.isclose(percent_higher(noise[1], base).mean(), 100 * (noise[1].mean() / base.mean() - 1))
    assert np.allclose(percent_higher(1.5 * base, base), 50), "the base's variation is part of the interval"
    assert crossed(noise[0][:1]) == dict(value=noise[0][:1].mean(), low=None, high=None)
    assert over_seeds([1.0, np.nan]) == dict(value=None, low=None, high=None)
    assert grid(lambda a, b: a + b, "xy", "z") == {"x": {"z": "xz"}, "y": {"z": "yz"}}


def test_values_by_seed_and_two_items_and_intervals_by_group():
    keys = [(seed, window, place) for seed in range(2) for window in range(3) for place in range(4)]
    frame = pd.DataFrame(keys, columns=["seed", "window", "place"]).assign(loss=np.arange(24.0))
    shuffled = frame.sample(frac=1, random_state=0)
    assert np.array_equal(cube(shuffled, "loss"), np.arange(24.0).reshape(2, 3, 4))
    clips = shuffled.rename(columns={"window": "clip"}).assign(half=lambda rows: rows.place // 2, gone=np.nan)
    rows = interval_rows(clips, ["half"], ["loss", "gone", "absent"])
    assert rows.measure.tolist() == ["loss", "loss"] and rows.half.tolist() == [0, 1]
    by_clip = np.arange(24.0).reshape(2, 3, 2, 2).mean(3)
    assert rows[["value", "low", "high"]].iloc[1].tolist() == list(student_crossed(by_clip[..., 1]))


def test_a_bootstrap_surrounds_the_value_and_shares_average_to_it():
    random = np.random.default_rng(0)
    items, losses = random.normal(size=(3, 50)), random.uniform(1, 2, size=(2, 3, 4))
    mean = lambda rows, columns: items[rows][:, columns].mean()
    found = resampled(mean, *items.shape)
    assert found["value"] == items.mean() and found["low"] < items.mean() < found["high"]
    assert resampled(mean, 1, 50) == dict(value=items[0].mean(), low=None, high=None)
    assert np.allclose(jackknife(np.mean, items[0]), items[0])
    assert np.allclose(log_shares(losses).mean(-1), np.log(losses.mean(-1)))


def test_shares_of_a_slope_average_to_the_slope_and_give_a_ratio_with_its_interval():
    sizes, noise = np.array([1.0, 2.0, 4.0]), np.random.default_rng(0).normal(size=(3, 4, 6)) / 100
    shares = {rate: slope_shares(sizes, -rate * np.log(sizes)[:, None, None] + noise) for rate in (1.0, 2.0)}
    assert np.isclose(shares[2.0].mean(), np.polyfit(np.log(sizes), -2 * np.log(sizes) + noise.mean((1, 2)), 1)[0])
    found = faster_by_student(shares[2.0], shares[1.0])
    assert found["low"] < 100 < found["high"] and abs(found["value"] - 100) < 5


# Row spaces and ranks


def test_noise_outside_a_space_remains_and_adds_to_the_loss():
    noise = settings.generator(0)
    space, truth = torch.randn(6, 2, generator=noise), torch.randn(3, 4, 6, generator=noise)
    starts = [torch.randn(3, 4, 6, generator=noise) for _ in range(2)]
    ends = [truth - row_space.onto(space, truth) + start - row_space.onto(space, start) for start in starts]
    assert torch.allclose(row_space.onto(space, space.T), space.T, atol=1e-6)
    found = row_space.remaining(starts, ends, space)
    assert found["inside"] < 1e-5 and abs(found["outside"] - 1) < 1e-5
    assert row_space.loss_with_start(space, truth, truth, starts[0]) > 0.1
    assert row_space.loss_with_start(space, truth, truth, truth) < 1e-10
    draws = torch.randn(400_000, generator=noise, dtype=torch.float64)
    errors = lambda std: float(smooth_l1(std * draws, torch.zeros_like(draws)))
    assert abs(row_space.with_noise(errors(0.8), 0.36) - errors(1.0)) < 2e-3


def test_wins_are_shares_of_positions_where_the_truth_has_the_lower_energy():
    energy = lambda y: y.square().sum(-1)
    truth = torch.ones(2, 2, 3)
    wrong = torch.stack([torch.full((2, 3), 2.0), torch.stack([torch.zeros(3), torch.ones(3)])])
    rows = wins(energy, truth, {"far": 2 * truth, "mixed": wrong})
    assert rows.wrong.tolist() == ["far", "far", "mixed", "mixed"] and rows.wins.tolist() == [1.0, 1.0, 1.0, 0.25]
    assert rows.across.tolist() == [1.0, 1.0, 0.625, 0.625]


# Tokens


def test_the_first_windows_of_a_random_order_are_from_the_whole_split():
    class Windows(list):
        ignore = -1

    split = Windows(torch.arange(100)[:, None].unbind())
    drawn, again = copy.copy(Sampled(split)), Sampled(split)
    assert drawn.ignore == -1 and len(drawn) == 100
    assert torch.equal(drawn.whole().sort(0).values, torch.stack(split))
    few = drawn.whole(20)
    assert torch.equal(few, again.whole(20)) and torch.equal(few, drawn.whole()[:20])
    assert few.min() < 20 and few.max() >= 80 and not torch.equal(few, Sampled(split, 1).whole(20))


def test_words_join_tokens_up_to_a_space_or_a_sign():
    labels = ["The", "␣qu", "ick", ".", "␣fox"]
    part = pd.DataFrame(dict(place=range(5), label=labels, energy=[1.0, 2.0, 4.0, 5.0, 6.0]))
    found = words(part.sample(frac=1, random_state=0))
    assert dict(zip(found.word, found.energy, strict=True)) == {"the": 1.0, "quick": 3.0, ".": 5.0, "fox": 6.0}
    assert len(random_text(0, 20)) == 20 and random_text(0, 20) != random_text(1, 20)


# Walks


def test_walks_choose_stop_and_decide_and_take_the_steps_of_the_library():
    model = EBT(16, 1, 2, state_dim=3, step_size=5.0, generator=settings.generator(0, "weights"))
    clips = torch.randn(4, 6, 3, generator=settings.generator(0))
    walks = traces(model, clips[:, :-1], [5, 5, 2], state_losses(clips[:, 1:]), settings.generator(1))
    assert walks.losses.shape == walks.energies.shape == (3, 6, 4, 5) and np.isnan(walks.losses[2, 3:]).all()
    two = walks.first(2)
    assert (two.chosen("oracle", 2, 3) <= two.chosen("min", 2, 3)).all()
    lowest = np.take_along_axis(two.losses[:, 3], two.energies[:, 3].argmin(0)[None], 0)[0]
    assert np.array_equal(two.chosen("min", 2, 3), lowest)
    assert np.allclose(two.chosen("random", 2, 3), two.losses[:, 3].mean(0))
    tolerance = two.tolerances()[3]
    steps = two.stopping_steps(tolerance)
    assert steps.min() >= 2 and steps.max() <= 5 and np.array_equal(two.stopping_steps(0.0), np.full_like(steps, 5))
    expected = {"both": two.chosen("min", 2, 4), "oracle": two.chosen("oracle", 2, 3),
                "one walk": two.losses[:, 2].mean(0), "steps taken": two.first(1).stopping_steps(tolerance)[0]}
    ways = two.methods(2, 4, tolerance, 3, 1)
    assert all(np.array_equal(ways[name], value) for name, value in expected.items())
    flat = Walks(np.ones_like(two.losses), two.energies)
    assert np.allclose(flat.stopped(steps), 1) and np.allclose(flat.stopped_at_random(steps), 1)
    assert two.decide()[0] == two.losses.mean((0, 2, 3))[1:].argmin() + 1
    assert library_agreement(model, clips[:, :-1], two, two.tolerances()[4], settings.generator(1)) == 1


@pytest.mark.parametrize("drop, count, shown", [
    (None, 6, [0, 4, 8, 11, 15, 19]), (8, 6, [0, 7, 8, 12, 15, 19]), (1, 6, [0, 1, 7, 13, 19]), (19, 4, [0, 18, 19])])
def test_pictures_of_an_episode_show_the_steps_around_a_drop(drop, count, shown):
    assert robots._shown_steps(np.arange(20) >= (20 if drop is None else drop), count).tolist() == shown
