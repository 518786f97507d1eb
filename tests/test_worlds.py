"""Measurements of the figure on games: episodes as states, tables of one model, intervals and verdicts."""

import numpy as np
import pandas as pd
import pytest
import torch

from ebwm.data.task import state_errors
from ebwm.figures.experiment import worlds
from ebwm.training.learner import Learner

SIZES = dict(policy="random", frames=6, sizes={}, features=27, context=3, train_episodes=64, eval_episodes=8, probes=30)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EBWM_CACHE", str(tmp_path_factory.mktemp("cache")))
        return worlds.load_world("push:5", SIZES)


def test_frames_become_states_and_come_back(world):
    assert (world.state.dim, world.state.action_dim, len(world.data["train"])) == (27, 5, 64)
    frames = world.probed.branches
    states = world.states(frames)
    assert states.shape == (30, 5, 27) and world.encoded.encoder.explained > 0.99
    assert np.abs(np.array(world.pixels(states[0])) - frames[0].reshape(5, -1)).mean() < 3
    assert torch.equal(world.data["test"][0].states, world.data["test"].whole().to(torch.device("cpu")).states[0])


def test_what_is_told_without_a_score_is_known(world):
    """Of an action, by its frequency and by the number of different frames; of the test, whether training had it."""
    train, test = world.data["train"].whole(), world.data["test"].whole()
    assert worlds.recalled(train, train) == 1 and worlds.recalled(train, test) < 1
    assert worlds.recalled(test, worlds.Played(test.states + 1, test.actions)) == 0
    known, asked = worlds.uninformed(world), world.probed.distinct
    shares = [(world.probed.taken[asked] == action).mean() for action in range(5)]
    assert known["by action"] == pytest.approx(max(shares)) and 0.2 <= known["by frame"] < 1


def test_an_event_that_changes_no_component_is_not_visible(world, monkeypatch):
    kind = "teleport"
    assert (world.visible(kind) == world.probed.visible(kind)).all() and world.visible(kind).any()
    flat = world.encoded.states
    monkeypatch.setattr(type(world.encoded), "states", lambda self, frames: 0 * flat(frames))
    assert not world.visible(kind).any()


def test_a_model_that_repeats_the_last_frame_uses_no_action(world):
    learner = Learner(torch.nn.Module(), None, lambda context, noise: context[0], errors=state_errors)
    items = world.data["test"].whole()
    found = worlds.measure(learner, world, items, 0)
    value = found["measures"].set_index("measure")["value"]
    assert value["use"] == 0 and value["true actions"] == value["shuffled actions"] > 0
    assert value["by action"] == pytest.approx(0.2) and value["freeze"] < 0.5 < value["teleport"]
    ahead = found["rollouts"]
    assert ahead["error"] == ahead["last_frame"] and list(ahead["ahead"]) == [1, 2, 3]
    frames = worlds.predicted_frames({"still": learner}, world, items, [1, 3, 9], 0)["frames"]
    assert frames.groupby("row", sort=False).ahead.agg(list).to_dict() == {"true": [1, 3], "still": [1, 3]}


def test_differences_are_paired_by_seed_and_have_a_verdict():
    rows = [dict(model=model, score="error", measure="use", seed=seed, value=seed + offset)
            for model, offset in (("a", 0.5), ("b", 0.0)) for seed in (0, 1, 2)]
    rows += [row | dict(measure="teleport") for row in rows if row["model"] == "a"]
    values, differences = worlds.statistics(pd.DataFrame(rows), {"a_minus_b": ("a error", "b error")})
    assert values["a error"]["use"]["value"] == 1.5 and set(values["b error"]) == {"use"}
    assert differences["a_minus_b"] == {"use": dict(value=0.5, low=0.5, high=0.5)}
    assert worlds.verdicts(differences).verdict.tolist() == ["higher"]
    one = worlds.statistics(pd.DataFrame(rows).query("seed == 0"), {"b_minus_a": ("b error", "a error")})[1]
    assert worlds.verdicts(one).verdict.tolist() == ["one seed"]
