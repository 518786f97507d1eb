"""Ways to train an EBT in the figure `remedies`."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ebwm.data.task import Tokens, Vectors
from ebwm.ebt import EBT
from ebwm.figures.experiment.remedies import (
    TWINS,
    WAYS,
    corrected,
    layer_weights,
    learner_of,
    logit_descent,
    losses_by_step,
    moving_photographs,
    shrinking,
    train,
)
from ebwm.figures.experiment.runs import Experiment
from ebwm.figures.experiment.tables import crossed
from ebwm.sampler import State, gradient_descent, run, softmax_descent
from ebwm.training.learner import item_losses
from ebwm.walk import Walk

SHAPE = dict(dim=16, depth=2, heads=2)


class Setting(Experiment):
    """An experiment without a record."""

    def __init__(self):
        self.parameters, self.device = SHAPE | {"mcmc_steps": 2, "step_size": 1.0}, torch.device("cpu")
        self.progress = SimpleNamespace(set_description=lambda *_, **__: None, update=lambda *_: None)


class Clips(torch.utils.data.Dataset):
    """Random states."""

    def __init__(self):
        self.items = torch.randn(16, 5, 4, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, item):
        return self.items[item]


def test_step_sizes_of_a_walk_shrink():
    kernels = shrinking(gradient_descent, 3, 0.5)(torch.tensor(4.0))
    found = run(lambda y: (y**2).sum(-1) / 2, torch.ones(2, 1, dtype=torch.float64), kernels, 3)
    assert found.info.step_size[:, 0].tolist() == [4.0, 2.0, 1.0]
    with pytest.raises(ValueError, match="decay"):
        shrinking(gradient_descent, 3, 0.0)


def test_descent_on_logits_keeps_them_and_has_the_step_of_the_distribution():
    model = EBT(**SHAPE, vocabulary=7, generator=torch.Generator().manual_seed(0))
    logits = torch.randn(1, 3, 7, generator=torch.Generator().manual_seed(1))
    landscape, _ = Walk().bind(model, model.landscape(torch.tensor([[1, 2, 3]])))
    ends = {make: make(2.0)(landscape, State(logits))[0].y for make in (logit_descent, softmax_descent)}
    torch.testing.assert_close(ends[logit_descent] - logits, ends[softmax_descent] - logits.softmax(-1))
    torch.testing.assert_close(logit_descent(0.0)(landscape, State(logits))[0].y, logits)


@pytest.mark.parametrize("state", [Vectors(4), Tokens(7)], ids=["vectors", "tokens"])
def test_a_proposal_learns_from_its_own_error_alone(state):
    learner = learner_of(Setting(), WAYS["proposal_full"], state, 0)
    draw = torch.Generator().manual_seed(0)
    tokens = isinstance(state, Tokens)
    items = torch.randint(7, (2, 5), generator=draw) if tokens else torch.randn(2, 5, 4, generator=draw)
    context, target = learner.pair(items)
    learner.loss(context, target, draw).backward()
    found = [weight.grad for weight in learner.model.proposal.parameters()]
    own = torch.autograd.grad(state.loss(learner.model.proposal(context), target), learner.model.proposal.parameters())
    torch.testing.assert_close(found, list(own))
    assert learner.model.head.weight.grad.abs().sum() > 0
    start = losses_by_step(learner, WAYS["proposal_full"], items, 2, draw)
    proposed = state.errors(learner.model.proposal(context), target).mean(1)
    torch.testing.assert_close(torch.tensor(start[start.step == 0].loss.to_numpy()), proposed.detach())
    refined = torch.tensor(start[start.step == 2].loss.to_numpy())
    torch.testing.assert_close(refined, item_losses(learner, items, 0))


def weights_of(way):
    return layer_weights(learner_of(Setting(), way, Vectors(4), 0).model)


def test_weights_of_the_layers_are_equal_where_the_figure_says_so():
    base = weights_of(WAYS["transformer"])
    found = {name: weights_of(way) / base for name, way in WAYS.items() if "wide" not in name}
    assert found.pop("proposal_full") == found.pop("transformer_deep") == 2 and set(found.values()) == {1.0}
    shapes = {"transformer": dict(dim=64, depth=2, heads=4), "wide": dict(dim=90, depth=1, heads=3),
              "transformer_wide": dict(dim=90, depth=2, heads=3)}
    base, wide, twin = (weights_of(replace(WAYS[name], shape=shape)) for name, shape in shapes.items())
    assert wide == pytest.approx(base, rel=0.015) and twin == pytest.approx(2 * base, rel=0.015)


def test_twins_predict_in_one_pass_with_as_many_weights():
    for name, twins in TWINS.items():
        for twin in set(twins) - {"transformer_wide"}:
            assert WAYS[twin].kind == "transformer" and weights_of(WAYS[twin]) == weights_of(WAYS[name])


def test_a_transformer_adds_its_output_to_the_last_state():
    learner, plain = (learner_of(Setting(), WAYS[name], Vectors(4), 0) for name in ("transformer_last", "transformer"))
    context, target = learner.pair(Clips().items)
    draw = torch.Generator()
    torch.testing.assert_close(learner.predict(context, draw) - plain.predict(context, draw), context)
    loss = Vectors(4).loss(learner.predict(context, draw), target)
    torch.testing.assert_close(learner.loss(context, target, draw), loss)
    with torch.no_grad():
        learner.model.decode.weight.zero_()
    repeated = item_losses(learner, Clips().items, 0)
    torch.testing.assert_close(repeated, learner.errors(context, target).mean(1))


def test_photographs_have_settings_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setenv("EBWM_CACHE", str(tmp_path))
    setting = Setting()
    setting.parameters |= dict(frames=4, size=64, train_clips=99)
    own = dict(footage="digits", video_dir=None, encoder="principal:3", size=16, spacing=0.25, train_clips=6,
               eval_clips=2)
    clips = moving_photographs(setting, own)
    assert len(clips.train) == 6 and clips.train[0].shape == (4, 3)
    assert {name: len(found) for name, found in clips.held.items()} == {"valid": 2, "test": 2, "other": 2}
    assert (setting.parameters["size"], setting.parameters["train_clips"]) == (64, 99)


def test_the_test_uses_the_average_that_validation_scored():
    data, way = Clips(), replace(WAYS["average"], average=0.9)
    learner = learner_of(Setting(), way, Vectors(4), 0)
    options = dict(learning_rate=1e-2, updates=5, batch=4)
    log = train(Setting(), way, learner, data, 0, data.items, **options)
    assert item_losses(learner, data.items, 0).mean().item() == pytest.approx(log.valid_loss.iloc[-1], rel=1e-5)
    plain = learner_of(Setting(), WAYS["ebt"], Vectors(4), 0)
    train(Setting(), WAYS["ebt"], plain, data, 0, data.items, **options)
    assert not torch.equal(plain.model.head.weight, learner.model.head.weight)


def test_updates_are_relative():
    learner, data = learner_of(Setting(), WAYS["longer"], Vectors(4), 0), Clips()
    log = train(Setting(), WAYS["longer"], learner, data, 0, data.items, learning_rate=1e-3, updates=5, batch=4)
    assert len(log) == 9


def test_intervals_widen_with_the_number_of_looks():
    values = np.random.default_rng(0).normal(1, 1, (3, 20))
    one, many, usual = corrected(values, 1), corrected(values, 8), crossed(values)
    assert one == usual and many["value"] == usual["value"]
    assert many["low"] < usual["low"] and many["high"] > usual["high"]
    assert corrected(values[:1], 8)["low"] is None
