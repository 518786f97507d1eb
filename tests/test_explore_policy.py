"""The policy explorer: episodes of the included policies, pushes, and its widgets."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from ebwm.explore.policy import POLICIES, EpisodeSettings, PolicyExplorer, compute, shipped_policies
from ebwm.explore.policy_plots import energy_figure
from ebwm.policy.evaluation import FIRST_SEED, evaluate_policy
from ebwm.policy.policies import load_policy
from ebwm.policy.reach import Reach
from ebwm.writing import INCLUDED

CARDS = {name: json.loads((INCLUDED / name / "card.json").read_text()) for name in POLICIES.values()}


@pytest.fixture(scope="module")
def policies():
    return shipped_policies()


@pytest.mark.parametrize("folder", CARDS)
def test_the_included_policies_are_small_and_have_a_card(folder):
    sizes = [path.stat().st_size for path in Path(INCLUDED / folder).iterdir()]
    assert sum(sizes) < 400_000 and CARDS[folder]["success"]["low"] > 0.8
    sides = CARDS[folder]["sides"]
    assert min(sides["left"], sides["right"]) > 0.3 * CARDS[folder]["tested"]


@pytest.mark.parametrize("name", POLICIES)
def test_an_episode_is_that_of_an_evaluation_and_repeats(policies, name):
    settings = EpisodeSettings(name, seed=3, steps=policies[name].options.steps or (9 if name == "EBT-Policy" else 16))
    episode = compute(policies, settings)
    policy = load_policy(INCLUDED / POLICIES[name])
    [result] = evaluate_policy(policy, "reach", [FIRST_SEED + 3], workers=0, trace=True)
    assert np.allclose(episode.path, np.array(result.trace["states"])[:, :2], atol=1e-6)
    assert episode.success == result.success and episode.retries == result.retries
    again = compute(policies, replace(settings, step=7))
    assert np.array_equal(again.path, episode.path) and again.choice.at <= 7 == again.step


def test_a_push_displaces_the_point_and_the_policy_goes_on(policies):
    calm, pushed = (compute(policies, EpisodeSettings(seed=2, push_at=at, push_x=0.3)) for at in (0, 6))
    assert np.array_equal(calm.path[:6], pushed.path[:6])
    assert np.allclose(pushed.path[6] - calm.path[6], [0.3, 0.0], atol=1e-6)


def test_chosen_and_candidate_chunks_start_at_the_point_and_have_energies(policies):
    for name in POLICIES:
        for choice in compute(policies, EpisodeSettings(name, samples=5)).choices:
            assert choice.samples.shape == (5, 17, 2) and choice.chunk.shape == (17, 2)
            assert np.allclose(choice.samples[:, 0], choice.chunk[0])
            assert (choice.energies is None) == (choice.energy is None) == (name != "EBT-Policy")


def test_the_energy_of_the_whole_episode_is_drawn_at_every_step(policies):
    for step in (0, 9, Reach.limit):
        episode = compute(policies, EpisodeSettings(step=step))
        later, sofar, candidates, here = energy_figure(episode, "light")["data"]
        last, energies = len(episode.path) - 1, [choice.energy for choice in episode.choices]
        assert later["x"] == [*range(0, last, 8), last] and later["y"] == [*energies, energies[-1]]
        assert sofar["x"][-1] == here["x"][0] == min(step, last)
        assert sofar["y"][-1] == here["y"][0] == episode.choice.energy
        assert len(candidates["x"]) == 8 * len(energies)


@pytest.mark.parametrize("changes, named", [
    ({"policy": "magic"}, "policy='magic'"), ({"steps": 0}, "steps=0"), ({"push_x": 2.0}, "push_x=2"),
    ({"step": Reach.limit + 1}, f"step={Reach.limit + 1}"), ({"seed": -1}, "seed=-1"),
])
def test_settings_that_are_not_available_are_refused(policies, changes, named):
    with pytest.raises(ValueError, match=named):
        compute(policies, replace(EpisodeSettings(), **changes))


def test_a_change_of_the_time_step_moves_the_point_and_a_click_pushes_it(policies):
    pytest.importorskip("anywidget", reason="anywidget is not installed: pip install 'ebwm[figures]'")
    explorer = PolicyExplorer(policies)
    explorer.controls["step"].value = 10
    point = explorer.figure("episode").data[-1]
    assert np.allclose([point.x[0], point.y[0]], explorer.result.path[10])
    explorer._clicked(None, type("Points", (), {"xs": [0.9], "ys": [float(point.y[0])]}), None)
    assert explorer.settings.push_at == 10 and explorer.settings.push_x > 0 and explorer.message.value == ""
    explorer.controls["policy"].value = "Diffusion Policy"
    assert explorer.figure("energy") is not None and explorer._boxes["energy"].layout.display == "none"
    explorer.state.value = json.dumps(asdict(EpisodeSettings(seed=1)))
    assert explorer.settings == EpisodeSettings(seed=1)
