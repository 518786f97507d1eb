"""Models of text: scores, ignored targets, prompts, sampling as in training."""

import json
import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from tiny_run import S2, tiny_text

from ebwm import writing
from ebwm.data.task import Tokens, state_errors, token_errors
from ebwm.data.tasks import load_task
from ebwm.settings import generator
from ebwm.sizes import SIZES
from ebwm.thinking import predict
from ebwm.training.learner import evaluate, load_learner, make_learner, position_losses
from ebwm.training.presets import load_config
from ebwm.training.reports import show
from ebwm.training.run import train

DOCUMENTS = ["data.packing=documents"]


@pytest.fixture
def config(runs):
    return lambda *entries: load_config("smoke", tiny_text(runs.parent, *entries))


@pytest.fixture
def trained(runs, config):
    return lambda *entries: train(config(*entries), runs, progress=False)


@pytest.mark.parametrize("entries", [
    [], [*S2, *DOCUMENTS], ["data.tokenizer=train:280", "model.kind=transformer"]])
def test_the_result_is_the_perplexity_of_the_test_set(trained, entries):
    """Against a loop over positions, each predicted from the tokens before it, in batches of other windows."""
    folder = trained(*entries, "walk.start=zeros", "data.eval_windows=1000")
    result = json.loads((folder / "result.json").read_text())
    found, language = result["summary"], writing.load_language(folder)
    data = load_task(language.config.data).splits["test"]
    learner, windows, nats, count = load_learner(folder), data.whole(), [], 0
    for part, place in product((windows[::2], windows[1::2]), range(1, windows.shape[1])):
        seen = part[part[:, place] != data.ignore]
        logits, wanted = learner.predict(seen[:, :place], generator(0, "any"))[:, -1], seen[:, place]
        nats += F.cross_entropy(logits.detach(), wanted, reduction="none").tolist()
        count += int(language.tokenizer.bytes[wanted].sum())
    assert found["tokens"] == len(nats) and result["data_digests"]["corpus"] == data.corpus_digest
    assert found["value"] == pytest.approx(math.exp(sum(nats) / len(nats)), rel=1e-4)
    assert result["test_loss"] == pytest.approx(sum(nats) / len(nats), rel=1e-4)
    assert found["bits_per_byte"] == pytest.approx(sum(nats) / math.log(2) / count, rel=1e-4)
    shown = show(folder)
    assert f"perplexity {found['value']:.4g} ± " in shown and "token frequencies" in shown
    assert "(default unknown)" not in shown and shown.endswith(f"ebwm generate --model {folder}")


def test_trivial_baselines_of_text(config):
    """Smoothed frequencies of tokens in the scored windows of the training split."""
    task = load_task(config("data.length=30").data)
    found, size = task.baselines(), task.state.vocabulary
    ignored = task.state.ignore_index
    seen = [t for t in task.splits["train"].whole(task.config.scored).flatten().tolist() if t != ignored]
    targets = [t for t in task.items("test")[:, 1:].flatten().tolist() if t != ignored]
    rates = [-math.log((seen.count(t) + 1) / (len(seen) + size)) for t in targets]
    assert found["uniform"] == pytest.approx(math.log(size))
    assert found["token frequencies"] == pytest.approx(sum(rates) / len(rates), rel=1e-5)


def test_ignored_targets_do_not_count(config):
    chosen = config(*DOCUMENTS, "data.length=60")
    task = load_task(chosen.data)
    windows, ignored = task.splits["train"].whole(4), task.state.ignore_index
    assert (windows == ignored).any()
    make = lambda: make_learner(chosen.model, task, 0, chosen.recipe, chosen.walk)
    losses = position_losses(make(), windows, 0)
    assert (losses.isnan() == (windows[:, 1:] == ignored)).all()
    assert evaluate(make(), windows, 0) == pytest.approx(float(losses[~losses.isnan()].mean()))
    longer = F.pad(windows, (0, 7), value=ignored)
    for items in (windows, longer):
        assert make().loss(items[:, :-1], items[:, 1:], generator(0, "noise")).isfinite()


@pytest.mark.parametrize("entries, steps", [([], 2), (S2, 3), (["model.kind=transformer"], None)])
def test_a_model_predicts_with_the_largest_number_of_steps_of_its_training(trained, entries, steps):
    folder = trained(*entries, "optimiser.updates=1")
    walk = writing.load_language(folder).walk().get("walk")
    assert steps is None if walk is None else walk.steps == steps
    if steps is not None:
        learner, tokens = load_learner(folder), torch.arange(6)[None]
        expected = predict(learner.model, tokens, steps=steps, generator=generator(0), start="noise").value
        assert torch.equal(learner.predict(tokens, generator(0)), expected)


def test_a_prompt_starts_as_the_windows_of_training(trained):
    folders = [trained(*entries, "optimiser.updates=1") for entries in ([], DOCUMENTS)]
    packed, alone = map(writing.load_language, folders)
    end = packed.tokenizer.end
    assert packed.prompt("one") == [end, *b"one"] and alone.prompt("one") == [*b"one"]
    assert writing.prompts_of(packed, ["", "one"]) == [[end], [end, *b"one"]]
    with pytest.raises(writing.WritingError, match="TEXT"):
        writing.prompts_of(alone, ["one", ""])


def test_a_nan_prediction_has_an_infinite_error(trained, config):
    learner = load_learner(trained("optimiser.updates=1", *DOCUMENTS))
    after_o = lambda x: (x == ord("o"))[..., None]
    broken = learner._replace(predict=lambda x, g: learner.predict(x, g).masked_fill(after_o(x), torch.nan))
    task = load_task(config(*DOCUMENTS).data)
    windows = task.splits["test"].whole(3)
    losses, counts = position_losses(broken, windows, 0), windows[:, 1:] != task.state.ignore_index
    assert (losses.isnan() == ~counts).all()
    assert ((losses == torch.inf) == (counts & (windows[:, :-1] == ord("o")))).all()
    assert (losses == torch.inf).any() and evaluate(broken, windows, 0) == math.inf
    states = torch.tensor([[[1.0, math.nan], [1.0, 2.0]]])
    assert state_errors(states, torch.zeros(1, 2, 2)).tolist() == [[math.inf, 1.0]]


def test_errors_of_tokens_are_cross_entropies():
    logits, targets = torch.randn(2, 3, 5, generator=generator(0)), torch.tensor([[0, 4, 2], [2, 2, 1]])
    errors = token_errors(logits, targets, ignore_index=2)
    for row, place in ((0, 0), (0, 1), (1, 2)):
        known = F.cross_entropy(logits[row, place], targets[row, place])
        assert errors[row, place] == pytest.approx(float(known))
    assert errors.isnan().tolist() == [[False, False, True], [True, True, False]]
    assert Tokens(5, 2).loss(logits, targets) == pytest.approx(float(errors.nanmean()))


@pytest.mark.parametrize("size", SIZES)
def test_presets_of_text_share_optimiser_and_data_which_suffice_for_one_pass(size):
    s1, transformer = (load_config(f"text-{size}-{recipe}") for recipe in ("s1", "transformer"))
    assert (s1.optimiser, s1.data) == (transformer.optimiser, transformer.data)
    assert s1.data.documents * (1 - 2 * s1.data.held_out) >= s1.optimiser.updates * s1.optimiser.batch
