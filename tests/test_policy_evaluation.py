"""Evaluation of policies: pairs, processes, files, retries, statistics, films, LeRobot's contract and commands."""

import abc
import inspect
import json
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ebwm import cli
from ebwm.evaluation.statistics import paired_rates, student_crossed
from ebwm.policy import evaluation, rollout
from ebwm.policy.evaluation import (
    EPISODES,
    best_kept,
    evaluate_policy,
    fingerprint,
    read_episodes,
    success_difference,
    summarise,
)
from ebwm.policy.film import LINE, energy_strip, film_episode
from ebwm.policy.lerobot import LeRobotConfig, LeRobotPolicy, observation_of
from ebwm.policy.rollout import EpisodeResult, count_retries
from ebwm.policy.simulators import Disturbance
from ebwm.settings import generator
from ebwm.training.checkpoint import CheckpointError, locked
from ebwm.usage import Failure, UsageError
from tests.tiny_policy import Corridor, Walker, missing

SEEDS = range(6)
here = partial(evaluate_policy, simulator=Corridor, workers=0, trace=True)


def plain(results):
    """What is paired of results: all but seconds."""
    return [(r.seed, r.outcome, r.steps, r.chunks, r.retries, r.trace) for r in results]


def test_episodes_depend_on_their_seed_alone():
    walker, noisy = Walker(), Disturbance(noise=0.3)
    alone = here(walker, seeds=SEEDS, disturbance=noisy)
    assert [r.success for r in alone] == [True] * 6 and len({r.steps for r in alone}) > 1
    assert plain(here(walker, seeds=[5, 2], disturbance=noisy)) == plain([alone[5], alone[2]])
    first = here(Walker(0.5), seeds=SEEDS)
    assert [r.trace["states"][0] for r in first] == [r.trace["states"][0] for r in alone]
    assert [chunk["at"] for chunk in first[0].chunks] == list(range(0, first[0].steps, 2))
    assert len(first[0].trace["states"]) == first[0].steps + 1 == len(first[0].trace["actions"]) + 1
    assert plain(here(walker, seeds=SEEDS)) != plain(alone), "the noise reaches the policy"
    slow = here(walker, seeds=SEEDS, disturbance=Disturbance(dynamics=0.5))
    assert all(s.steps > r.steps for s, r in zip(slow, here(walker, seeds=SEEDS), strict=True))


def test_noise_is_drawn_on_the_device_of_the_policy(monkeypatch):
    asked = []
    monkeypatch.setattr(rollout, "generator", lambda *words: asked.extend(words[2:]) or generator(*words[:2]))
    walker = Walker()
    walker.device = torch.device("cuda")
    assert plain(here(walker, seeds=[0])) == plain(here(Walker(), seeds=[0])) and asked == [walker.device, "cpu"]


def test_a_batch_advances_side_by_side_until_its_last_episode_ends():
    single, batch = here(Walker(), seeds=SEEDS), here(Walker(), seeds=SEEDS, batch=4)
    assert [r.success for r in batch] == [True] * 6
    assert plain(batch[:1]) != plain(single[:1]) and batch[0].trace["states"][0] == single[0].trace["states"][0]
    assert plain(here(Walker(), seeds=SEEDS, batch=4)) == plain(batch)
    with_crash = here(Walker(), seeds=[1, 14, 2], batch=3)
    assert [r.outcome for r in with_crash] == ["success", "crashed", "success"]


class Closing(Corridor):
    """A simulator that says when it is closed, and fails to."""

    closed = []

    def close(self):
        self.closed.append(self.seed)
        raise RuntimeError("no display")


def test_simulators_that_crash_are_closed():
    assert here(Walker(), simulator=Closing, seeds=[14])[0].outcome == "crashed" and Closing.closed == [14]


class Overloaded(Corridor):
    """A simulator that fails until its machine has recovered."""

    recovered = False

    def step(self, action):
        if not self.recovered:
            raise RuntimeError("out of memory")
        return super().step(action)


def test_crashed_episodes_run_again(tmp_path, monkeypatch):
    run = partial(here, Walker(), simulator=Overloaded, seeds=SEEDS[:4], batch=2, folder=tmp_path)
    assert {result.outcome for result in run()} == {"crashed"}
    monkeypatch.setattr(Overloaded, "recovered", True)
    assert {result.outcome for result in run()} == {"success"}
    monkeypatch.setattr(Overloaded, "recovered", False)
    assert {result.outcome for result in run()} == {"success"}, "the others do not run again"


@pytest.mark.slow
def test_processes_that_exit_cost_their_episodes():
    seeds, reported = [11, 12, 13, 14, 15, 16], []
    results = evaluate_policy(Walker(), Corridor, seeds, workers=2, trace=True, report=reported.append)
    assert [r.outcome for r in results] == ["success", "success", "crashed", "crashed", "success", "success"]
    assert "exit code -9" in results[2].message and results[3].message == "RuntimeError: unstable simulation"
    assert plain(results[:2]) == plain(here(Walker(), seeds=[11, 12])) and len(reported) == 6
    summary = summarise(results)
    assert (summary.crashed, summary.errors, summary.rate.value) == (2, 0, pytest.approx(4 / 6))
    assert "2 crashed, 12 steps to success" in str(summary)
    without = str(summarise([EpisodeResult(0, "error", 0)]))
    assert without.endswith("1 ended by an error of the policy, 0.00 retries an episode")


def test_errors_of_a_policy_end_the_episode_and_are_counted():
    results = here(Walker(bad=1.0), seeds=range(10))
    ended = [r for r in results if r.outcome == "error"]
    assert 0 < len(ended) < 10 and ended[0].message == "FloatingPointError: energy=nan: must be finite"
    assert summarise(results).errors == len(ended)
    assert here(Walker(float("nan")), seeds=[0])[0].message == "FloatingPointError: actions: must be finite"


class Faulty(Walker):
    """Its actions are not finite where a rule for the states says so."""

    def __init__(self, rule):
        super().__init__()
        self.rule = rule

    def select_action(self, observation):
        return super().select_action(observation).masked_fill(self.rule(observation["state"])[:, None], torch.nan)


def test_an_action_that_is_not_finite_ends_its_episode_alone():
    run = partial(here, seeds=range(3), batch=3)
    good = run(Walker())
    ended = run(Faulty(lambda state: (state[:, 1] - state[:, 0]).abs() < 0.06))
    assert plain(ended) == plain(good), "episodes that have ended do not act"
    found = run(Faulty(lambda state: torch.tensor([False, True, False])))
    assert found[1].message == "FloatingPointError: actions: must be finite" and found[1].steps == 0
    for number in (0, 2):
        assert (found[number].outcome, found[number].trace) == ("success", good[number].trace)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_an_evaluation_resumes_where_it_was_killed(tmp_path, workers):
    run = partial(evaluate_policy, Walker(), Corridor, folder=tmp_path, workers=workers)
    whole = run(SEEDS)
    path, lines = tmp_path / EPISODES, (tmp_path / EPISODES).read_text().splitlines(keepends=True)
    assert len(lines) == 7
    path.write_text("".join(lines[:4]) + lines[4][:20])  # killed while it wrote
    seen = []
    assert plain(run([*SEEDS, 6], report=lambda r: seen.append(r.seed)))[:6] == plain(whole)
    done = {json.loads(line)["seed"] for line in lines[1:4]}
    assert sorted(seen) == sorted({*SEEDS, 6} - done), "finished seeds do not run again"
    path.write_text(lines[0][:10])
    assert plain(run(SEEDS)) == plain(whole)
    for changes in ({"disturbance": Disturbance(push=1.0)}, {"batch": 2}, {"policy": Walker(0.5)}):
        with pytest.raises(UsageError, match=rf"folder=.*other settings \({next(iter(changes))}\)"):
            evaluate_policy(**{"policy": Walker(), "simulator": Corridor, "seeds": SEEDS, "folder": tmp_path} | changes)


def test_a_second_evaluation_in_a_folder_is_refused(tmp_path):
    run = partial(here, Walker(), seeds=SEEDS, folder=tmp_path)
    with locked(tmp_path), pytest.raises(CheckpointError, match="another process"):
        run()
    assert not (tmp_path / EPISODES).exists() and len(run()) == len(SEEDS)


def test_readers_count_each_seed_once_and_no_line_that_was_cut_off(tmp_path):
    run, path = partial(evaluate_policy, Walker(), Corridor, folder=tmp_path, workers=0, batch=2), tmp_path / EPISODES
    run(range(3))
    whole = run(range(4))
    assert len(path.read_text().splitlines()) == 6, "seed 2 has run again, beside seed 3"
    assert plain(read_episodes(path)[1]) == plain(whole)
    path.write_text(path.read_text() + '{"seed": 4')
    assert plain(read_episodes(path)[1]) == plain(whole)
    path.write_text("")
    assert read_episodes(path)[1] == []


def test_the_fingerprint_of_a_policy_is_that_of_its_contents(tmp_path):
    walker = Walker()
    walker.net = nn.Linear(2, 1)
    before = fingerprint(walker)
    here(walker, seeds=[0])
    assert fingerprint(walker) == before != fingerprint(Walker())
    nn.init.zeros_(walker.net.bias)
    assert fingerprint(walker) != before
    values = [np.ones(2), np.zeros(2), np.float32(1), np.float32(0), np.array(["a", None]), np.array(["b", None])]
    assert len({(setattr(walker, "scale", value), fingerprint(walker)) for value in values}) == len(values)
    rules = [lambda y: y, lambda y: y + 1, lambda y: y + 2, partial(max, 1), partial(max, 2)]
    assert len({(setattr(walker, "rule", rule), fingerprint(walker)) for rule in rules}) == len(rules)
    walker.rule = walker.select_action  # which leads back to the policy
    assert fingerprint(walker) == fingerprint(walker)
    (tmp_path / "model").write_text("1")
    run = fingerprint(tmp_path)
    (tmp_path / "model").write_text("2")
    assert fingerprint(tmp_path) != run


class Scaled(nn.Linear):
    """A module with settings of its own and of its class."""

    gain = 1.0

    def __init__(self, pace):
        super().__init__(1, 1)
        nn.init.zeros_(self.weight), nn.init.zeros_(self.bias)
        self.pace = pace


class Louder(Scaled):
    gain = 2.0


def test_the_fingerprint_has_the_settings_of_modules():
    def digest(make, pace):
        walker = Walker()
        walker.net = nn.ModuleDict({"head": make(pace)})
        return fingerprint(walker)

    assert digest(Scaled, 1.0) == digest(Scaled, 1.0)
    assert len({digest(Scaled, 1.0), digest(Scaled, -1.0), digest(Louder, 1.0)}) == 3


def test_episodes_that_ran_in_other_groups_run_again(tmp_path):
    """The noise of a batch depends on its first seed."""
    run = partial(evaluate_policy, Walker(), Corridor, workers=0, batch=3)
    run(range(6), folder=tmp_path)
    assert plain(run(range(1, 5), folder=tmp_path)) == plain(run(range(1, 5)))
    assert len((tmp_path / EPISODES).read_text().splitlines()) == 1 + 6 + 4
    assert len(run([1, 2, 3], folder=tmp_path)) == 3
    assert len((tmp_path / EPISODES).read_text().splitlines()) == 1 + 6 + 4


class Unscaled(Walker):
    state_std = None


class Unsendable(Walker):
    def __reduce__(self):
        raise TypeError("no")


def unloadable():
    os._exit(3)


@pytest.mark.parametrize("call, error, message", [
    (lambda: here(Walker(), seeds=[1, 0, 0]), UsageError, "seeds=0: must all be different"),
    (lambda: here(Walker(), seeds=[]), ValueError, "len(seeds)=0"),
    (lambda: here(Walker(), seeds=[-1]), ValueError, "seeds[0]=-1"),
    (lambda: evaluate_policy(Walker(), missing, [0]), ImportError, "pip install 'ebwm[policy]'"),
    (lambda: evaluate_policy(Unsendable(), Corridor, [0]), UsageError, "policy='Unsendable': cannot be sent"),
    (lambda: evaluate_policy(unloadable, Corridor, [0]), Failure, "exit code 3"),
    (lambda: here(partial(Walker, 1.0), simulator="rech", seeds=[0]), UsageError, "did you mean 'reach'?"),
    (lambda: here(Unscaled(), seeds=[0], disturbance=Disturbance(noise=1.0)), UsageError, "state_std"),
    (lambda: evaluation.read_episodes(Path("none")), UsageError, "path='none'"),
    (lambda: best_kept([0.5, 1.5]), ValueError, "rates=1.5"),
])
def test_refusals(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("distances, expected", [
    ([1.0, 0.8, 0.5, 0.1], 0), ([1.0, 0.4, 0.6, 0.3], 0), ([0.5, 0.9, 1.0, 0.3], 0),
    ([1.0, 0.1, 0.4, 0.9, 0.6, 0.7], 1), ([1.0, 0.4, 0.7, 0.9, 0.3, 0.6], 2),
])
def test_retreats_from_a_goal_that_was_near_are_retries(distances, expected):
    simulator, states = type("Reaching", (Corridor,), {"name": "reach"})(), np.zeros((len(distances), 2))
    states[:, 0] = distances
    assert count_retries(simulator, states, np.zeros((len(distances) - 1, 1))) == expected


@pytest.mark.parametrize("commands, expected", [
    ([-1, 1], 0), ([1, -1, 1], 1), ([-1, 0.5, 0.1, 0.5], 0), ([1, -0.4, 0.4, -0.2, 1, -1, 1], 2), ([-1, -1], 0),
])
def test_closings_of_a_gripper_after_the_first_are_retries(commands, expected):
    count = lambda actions: count_retries(Corridor(), np.zeros((len(actions) + 1, 2)), np.array(actions))
    assert count([[0.0, command] for command in commands for _ in range(5)]) == expected
    assert count([[0.0, command] for command in commands for _ in range(4)] + [[0.0, 0.0]]) == 0, "too short to move"


def results(outcomes):
    return [EpisodeResult(seed, "success" if good else "failure", 5) for seed, good in enumerate(outcomes)]


def test_differences_of_success_are_paired_and_best_kept_stands_beside_the_final():
    ours, theirs = [[1, 1, 0, 1], [1, 0, 1, 1]], [[0, 1, 0, 0], [1, 0, 0, 0]]
    pairs = [list(map(results, rows)) for rows in (ours, theirs)]
    found, crossed = success_difference(*pairs), student_crossed(np.subtract(ours, theirs))
    pooled = paired_rates(*(np.array(rows, dtype=bool).ravel() for rows in (ours, theirs)))
    assert found == (crossed.value, min(crossed.low, pooled.low), 1), "the wider bounds, of what a difference can be"
    one, other = (np.array(rows[0], dtype=bool) for rows in (ours, theirs))
    assert success_difference(pairs[0][:1], pairs[1][:1]) == paired_rates(one, other)
    alike = success_difference(*[[results([1] * 10)] * 3] * 2)
    assert alike.value == 0 and alike.low < -0.05 and alike.high > 0.05, "no width if all episodes differ alike"
    with pytest.raises(ValueError, match=r"theirs\[0\]"):
        success_difference(pairs[0], [list(reversed(rows)) for rows in pairs[1]])
    assert best_kept([0.2, 0.9, 0.6]) == (0.6, 0.9, pytest.approx(0.3))
    assert best_kept([[0.2, 0.8], [0.9, 0.6]]) == pytest.approx((0.7, 0.85, 0.15))


@pytest.mark.parametrize("energies", [True, False])
def test_a_film_shows_each_step_and_the_energies(tmp_path, energies):
    av, walker = pytest.importorskip("av"), Walker()
    if not energies:
        walker.facts = property(lambda self: [])
        walker.predict_action_chunk = lambda observation: torch.ones(1, 2, 1)
    result = film_episode(walker, Corridor(), 3, tmp_path / "film.mp4", size=64, rate=10)
    with av.open(str(tmp_path / "film.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == result.steps + 1 + 10 and frames[0].shape == (80 if energies else 64, 64, 3)
    red, green, _ = frames[-1][0, 32].astype(int)
    assert result.success and green > red + 50, "the last picture has a green frame"
    with pytest.raises(UsageError, match=r"path='film.gif': must end in .mp4"):
        film_episode(walker, Corridor(), 3, Path("film.gif"))


@pytest.mark.parametrize("width", [32, 44, 160])
def test_the_curve_of_a_film_falls_with_the_energy(width):
    strip = energy_strip([{"at": 0, "energy": 1.0}, {"at": 1, "energy": 0.0}], 1, 2, width)
    first, last = (np.argmax((strip[:, column] == LINE).all(-1)) for column in (0, -1))
    assert 0 < first < last


# LeRobot


class Contract(nn.Module, abc.ABC):
    """What LeRobot 0.6 asks of a policy: two names, five methods, and an episode's queue that it can empty."""

    def __init_subclass__(cls):
        assert cls.config_class and cls.name

    get_optim_params = reset = abc.abstractmethod(lambda self: None)
    forward = abc.abstractmethod(lambda self, batch: None)
    predict_action_chunk = select_action = abc.abstractmethod(lambda self, batch, **options: None)

    def __init__(self, config):
        raise AssertionError("needs a configuration of LeRobot")


class Plugin(LeRobotPolicy, Contract):
    pass


class Learned(Walker):
    """A walker with the parts that training in LeRobot needs."""

    def __init__(self):
        super().__init__()
        self.model, self.remembered = nn.Linear(2, 1), []

    def add_observation(self, observation):
        self.remembered.append(observation["state"])

    def loss(self, observation, actions, generator):
        assert observation["state"].ndim == 3
        return ((self.model(observation["state"][:, -1])[:, None] - actions) ** 2).mean()


@pytest.fixture
def plugin():
    config = LeRobotConfig(n_obs_steps=1, horizon=4, n_action_steps=2)
    return Plugin(config, Learned(), dataset_stats={}, dataset_meta=None)


def test_a_policy_acts_and_learns_by_the_contract_of_lerobot(plugin):
    batch = {"observation.state": torch.tensor([[0.0, 1.0], [1.0, 0.0]]), "task": ["walk", "walk"]}
    actions = [plugin.select_action(batch) for _ in range(3)]
    assert all(a.shape == (2, 1) for a in actions)
    assert len(plugin.policy.facts) == 2 and len(plugin.policy.remembered) == 1
    plugin._action_queue.clear()
    assert plugin.predict_action_chunk(batch).shape == (2, 2, 1) and len(plugin.policy.facts) == 3
    plugin.reset()
    assert plugin.policy.facts == [] and not plugin._action_queue
    window = {"observation.state": batch["observation.state"][:, None].repeat(1, 3, 1), "action": torch.ones(2, 4, 1),
              "action_is_pad": torch.zeros(2, 4, dtype=torch.bool)}
    assert plugin.predict_action_chunk(window).shape == (2, 2, 1) and len(plugin.policy.remembered) == 3
    loss, logs = plugin(window)
    loss.backward()
    with torch.no_grad():
        for parameter in plugin.get_optim_params():
            parameter -= 0.1 * parameter.grad
    assert plugin(window)[0] < loss and logs == {"loss": loss.item()} and "model.weight" in plugin.state_dict()
    config = plugin.config
    assert config.observation_delta_indices == [0] and config.action_delta_indices == [0, 1, 2, 3]
    assert config.reward_delta_indices is None and config.get_scheduler_preset() is None
    assert {"batch"} <= set(inspect.signature(plugin.forward).parameters)


def test_images_of_lerobot_become_those_of_a_simulator():
    state, images = torch.zeros(2, 3), {f"observation.images.{c}": torch.rand(2, 3, 8, 6) for c in ("front", "hand")}
    found = observation_of({"observation.state": state, **images}, "hand")["image"]
    assert found.shape == (2, 8, 6, 3) and found.dtype == torch.uint8
    alone = {"observation.state": state, "observation.images.one": found.movedim(-1, 1)}
    assert (found == observation_of(alone)["image"]).all()


def test_a_state_of_lerobot_has_the_parts_of_its_files():
    parts = {"observation.environment_state": torch.ones(2, 3), "observation.state": torch.zeros(2, 1)}
    assert observation_of(parts)["state"].tolist() == [[0, 1, 1, 1]] * 2
    assert observation_of({"observation.environment_state": torch.ones(2, 3)})["state"].shape == (2, 3)


IMAGE = {"observation.images.a": torch.zeros(1, 3, 8, 8)}


@pytest.mark.parametrize("call, message", [
    (lambda p: p.select_action({"action": torch.zeros(1)}), "must hold observation.state"),
    (lambda p: p({"observation.state": torch.zeros(1, 1, 2)}), "must hold action"),
    (lambda p: p({}, reduction="none"), "reduction='none'"),
    (lambda p: p.predict_action_chunk({}, noise=torch.zeros(1)), "noise=[1]: must be None"),
    (lambda p: LeRobotPolicy(LeRobotConfig(horizon=5, n_obs_steps=1), p.policy), "horizon=5: must be that of the run"),
    (lambda p: observation_of({"observation.state": torch.zeros(1, 2)} | IMAGE, "b"), "camera='b'"),
])
def test_refusals_of_the_adapter(plugin, call, message):
    with pytest.raises(UsageError, match=r"^[^\n]*$") as caught:
        call(plugin)
    assert message in str(caught.value)


# Commands


@pytest.mark.parametrize("words, message", [
    ("evaluate nothing", "RUN='nothing': must be the folder of a policy"),
    ("train forest --demos a --out b", "KIND='forest': must be one of ebt"),
    ("train ebt updates --demos a --out b", "updates"),
    ("train ebt preset=paper --demos a --out b", "KEY=VALUE='preset=paper': is not a setting; give"),
    ("demos reach --out .", "--out='.': exists already"),
    ("", "policy command is missing"),
])
def test_commands_refuse_in_one_line(words, message, capsys):
    assert cli.main(["policy", *words.split()]) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1


@pytest.mark.parametrize("words", ["demos reach --out {}/x.hdf5", "train ebt --demos a --out {}/x",
                                   "train ebt --demos a --out {}"])
def test_a_file_in_the_place_of_a_folder_is_named(words, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["policy", *words.format(tmp_path / "file").split()]) == 2
    assert f"{tmp_path / 'file'} is a file, not a folder; choose another place" in capsys.readouterr().err


@pytest.mark.parametrize("target, package", [("x.hdf5", "h5py"), ("x", "pyarrow")])
def test_a_missing_package_is_named_before_demonstrations_are_recorded(target, package, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("ebwm.policy.demonstrations.collect", lambda *_: pytest.fail("episodes were recorded"))
    assert cli.main(["policy", "demos", "reach", "--out", str(tmp_path / target)]) == 2
    assert f"'{package}' cannot be imported" in capsys.readouterr().err


def test_commands_from_demonstrations_to_a_film(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EBWM_RUNS", str(tmp_path))

    def told(words):
        code = cli.main(["policy", *words.split()])
        return code, capsys.readouterr()

    demos, film = tmp_path / "demos.hdf5", tmp_path / "film.mp4"
    pytest.importorskip("h5py")
    assert "3 episodes of reach" in told(f"demos reach --episodes 3 --out {demos}")[1].out
    code, printed = told(f"train cloning --demos {demos} --out run updates=2 dim=16")
    assert code == 0 and "Next: ebwm policy evaluate" in printed.out
    assert told(f"train cloning --demos {demos} --out run")[0] == 2, "a run is not replaced"
    adapter = LeRobotPolicy(LeRobotConfig(run=str(tmp_path / "run")))
    window = {"observation.state": torch.randn(3, 2, 4), "action": torch.zeros(3, 16, 2)}
    assert adapter(window)[0].requires_grad and adapter.predict_action_chunk(window).shape == (3, 8, 2)
    code, printed = told("evaluate run --seeds 5 6 --push 0.2 --workers 1 execute=4")
    assert code == 0 and "in 2 episodes" in printed.out
    assert len(list(tmp_path.glob(f"run/evaluations/reach_execute=4_push=0.2/{EPISODES}"))) == 1
    assert "setting='excute'" in told("evaluate run excute=4")[1].err
    assert "use 'block'" in told("evaluate run --fault drop")[1].err
    with monkeypatch.context() as patch:
        patch.setattr("ebwm.policy.reach.Reach.layout", {"agent": 3})
        for command in ("evaluate run --simulator reach", f"play run --out {film}"):
            code, printed = told(command)
            assert code == 2 and "has state_dim=3, but the policy was trained with 4" in printed.err
    assert not (tmp_path / "run/evaluations/reach").exists() and not film.exists()
    assert "run  cloning on reach  reach_execute=4_push=0.2  success" in told("list")[1].out
    pytest.importorskip("av")
    assert told(f"play run --out {film} --size 64")[0] == 0 and film.stat().st_size > 1000
