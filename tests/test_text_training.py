"""Models of text: configured, trained, stopped and resumed, scored, in one process and in two."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from test_distributed import run
from test_resume import stop
from tiny_run import S2, assert_same_end

from ebwm import writing
from ebwm.data.text import perplexity
from ebwm.settings import generator
from ebwm.thinking import predict
from ebwm.training import configuration
from ebwm.training import trainer as training
from ebwm.training.checkpoint import load_tensors
from ebwm.training.configuration import ConfigError, TextConfig, from_dict, load_config, override
from ebwm.training.history import show as shown
from ebwm.training.learner import States, evaluate, make_learner, position_losses, state_errors, token_errors

TINY = ["data.kind=text", "data.length=12", "data.eval_windows=6", "model.step_size=2"]
CASES = {
    "s1": [],
    "s1, paper's update, whole graph": ["model.update=paper", "recipe.stream=false"],
    "s1, step token": ["model.step=context_token"],
    "s2": [*S2, "recipe.noise=3"],
    "s2, one document a window": [*S2, "data.packing=documents", "optimiser.accumulate=2"],
    "pieces": ["data.tokenizer=train:280"],
    "transformer": ["model.kind=transformer"],
    "gru": ["model.kind=gru"],
}


@pytest.fixture
def lines(runs):
    """A corpus of short documents, and the entries of a run on it."""
    path = runs.parent / "lines.jsonl"
    words = ("one", "two", "three", "four", "five", "six", "seven")
    texts = [f"{a} and {b} make {a} {b}, not {words[(i + k) % 7]}" for k, a in enumerate(words)
             for i, b in enumerate(words)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    entries = [*TINY, f"data.source={path}", "data.held_out=0.2"]
    shape = ["model.dim=16", "model.heads=2", "optimiser.updates=8", "eval_every=4", "run.save_every=2",
             "run.logger=none"]
    return [*shape, *entries]


def config_of(lines, *entries):
    return load_config("smoke", [*lines, *entries])


def trained(runs, lines, *entries):
    return training.train(config_of(lines, *entries), runs, progress=False)


@pytest.mark.parametrize("name", CASES)
def test_stopped_it_ends_as_if_it_never_was(runs, lines, name):
    whole = trained(runs, lines, *CASES[name])
    with pytest.raises(training.Stopped, match="ebwm train --resume"):
        training.train(config_of(lines, *CASES[name]), runs, progress=False,
                       callback=lambda row: row["update"] == 3)
    parts = max(runs.iterdir())
    stop(parts, 5)
    training.resume(parts, progress=False)
    assert_same_end(parts, whole)
    assert (parts / "tokenizer.json").read_bytes() == (whole / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("name", ["s1", "s2, one document a window", "pieces", "transformer"])
def test_the_result_is_the_perplexity_of_the_whole_test_set(runs, lines, name):
    """By a loop over windows and positions, each predicted from those before it alone."""
    folder = trained(runs, lines, *CASES[name], "model.start=zeros", "data.eval_windows=1000")
    found = json.loads((folder / "result.json").read_text())
    language = training.load_language(folder)
    data = training.load_data(language.config.data)["test"]
    learner, nats, count = training.load_learner(folder), [], 0
    for window in data.whole():
        for place in range(1, len(window)):
            if window[place] != data.ignore:
                logits = learner.predict(window[None, :place], generator(0, "any"))[0, -1]
                nats.append(float(F.cross_entropy(logits.detach(), window[place])))
                count += int(language.tokenizer.bytes[window[place]])
    assert found["text"]["tokens"] == len(nats)
    assert found["text"]["value"] == pytest.approx(math.exp(sum(nats) / len(nats)), rel=1e-4)
    assert found["test_loss"] == pytest.approx(sum(nats) / len(nats), rel=1e-4)
    assert found["text"]["bits_per_byte"] == pytest.approx(sum(nats) / math.log(2) / count, rel=1e-4)
    assert found["corpus_digest"] == data.corpus_digest
    windows = data.whole()
    losses = position_losses(learner, windows, language.config.seed)
    score = perplexity(losses, data.tokenizer.bytes[windows[:, 1:]])
    assert score._asdict() == pytest.approx(found["text"], rel=1e-6)
    told = f"(perplexity {found['text']['value']:.4g} ± {found['text']['error']:.2g}, "
    lines = shown(folder)
    assert told in lines and f", over {len(nats):,} tokens; " in lines
    assert "(default unknown)" not in lines and lines.endswith(f"ebwm generate --model {folder}")


def test_targets_that_do_not_count_change_nothing(runs, lines):
    config = config_of(lines, "data.packing=documents", "data.length=60")
    data = training.load_data(config.data)["train"]
    states = training.states_of(data)
    windows = data.whole(4)
    assert (windows == data.ignore).any()
    learner = make_learner(config.model, states, 0, config.recipe)
    losses = position_losses(learner, windows, 0)
    assert (losses.isnan() == (windows[:, 1:] == data.ignore)).all()
    loss = learner.loss(windows[:, :-1], windows[:, 1:], generator(0, "noise"))
    longer = F.pad(windows, (0, 7), value=data.ignore)
    same = make_learner(config.model, states, 0, config.recipe)
    assert same.loss(longer[:, :-1], longer[:, 1:], generator(0, "noise")).isfinite()
    assert loss.isfinite() and losses.nanmean() == pytest.approx(float(losses[~losses.isnan()].mean()))


@pytest.mark.parametrize(("name", "steps"), [("s1", 2), ("s2", 3), ("transformer", None)])
def test_a_model_predicts_by_the_longest_walks_that_it_learned(runs, lines, name, steps):
    folder = trained(runs, lines, *CASES[name], "optimiser.updates=1")
    assert training.load_language(folder).thinking().get("steps") == steps
    learner = training.load_learner(folder)
    if steps is None:
        return
    tokens = torch.arange(6)[None]
    expected = predict(learner.model, tokens, steps, generator=generator(0, "noise"), start="noise").value
    assert torch.equal(learner.predict(tokens, generator(0, "noise")), expected)


def test_a_text_begins_as_in_training(runs, lines):
    packed, alone = (trained(runs, lines, f"data.packing={packing}", "optimiser.updates=1")
                     for packing in ("packed", "documents"))
    packed, alone = map(training.load_language, (packed, alone))
    end = packed.tokenizer.end
    assert packed.begin("one") == [end, *b"one"] and alone.begin("one") == [*b"one"]
    assert packed.begin("") == [end]
    assert writing.begun(packed, ["", "one"]) == [[end], [end, *b"one"]]
    with pytest.raises(writing.WritingError, match="never saw how one begins; give a text to go on from"):
        writing.begun(alone, ["one", ""])


def test_a_prediction_that_is_no_number_is_infinitely_wrong(runs, lines):
    learner = training.load_learner(trained(runs, lines, "optimiser.updates=1", "data.packing=documents"))
    after_o = lambda x: (x == ord("o"))[..., None]
    broken = learner._replace(predict=lambda x, g: learner.predict(x, g).masked_fill(after_o(x), torch.nan))
    data = training.load_data(config_of(lines, "data.packing=documents").data)["test"]
    windows = data.whole(3)
    losses = position_losses(broken, windows, 0)
    counts = windows[:, 1:] != data.ignore
    assert (losses.isnan() == ~counts).all()
    assert ((losses == torch.inf) == (counts & (windows[:, :-1] == ord("o")))).all()
    assert (losses == torch.inf).any() and evaluate(broken, windows, 0) == math.inf
    states = torch.tensor([[[1.0, math.nan], [1.0, 2.0]]])
    assert state_errors(states, torch.zeros(1, 2, 2)).tolist() == [[math.inf, 1.0]]


def test_errors_of_tokens_are_their_cross_entropies():
    logits = torch.randn(2, 3, 5, generator=generator(0, "logits"))
    targets = torch.tensor([[0, 4, 2], [2, 2, 1]])
    errors = token_errors(logits, targets, ignore=2)
    for row, place in ((0, 0), (0, 1), (1, 2)):
        known = F.cross_entropy(logits[row, place], targets[row, place])
        assert errors[row, place] == pytest.approx(float(known))
    assert errors.isnan().tolist() == [[False, False, True], [True, True, False]]


def test_diffusion_does_not_learn_tokens():
    with pytest.raises(ConfigError, match="kind is 'diffusion', which predicts states"):
        make_learner(configuration.ModelConfig("diffusion"), States(5, tokens=True), 0)


def test_the_kind_of_data_decides_its_entries():
    config = load_config("smoke", ["data.kind=text", "data.length=9"])
    assert config.data == TextConfig(length=9)
    assert from_dict(json.loads(json.dumps(configuration.as_dict(config), sort_keys=True))) == config
    assert override(config, "data.kind", "text") == config
    assert override(config, "data.kind", "clips").data == configuration.DataConfig()
    for entry, message in (("data.size=3", "unknown key 'data.size'; here: kind, source, tokenizer"),
                           ("data.kind=sound", "data.kind is 'sound'; it must be one of clips, text"),
                           ("data.packing=loose", "packing is 'loose'; it must be 'packed' or 'documents'"),
                           ("data.held_out=0.5", "held_out is 0.5; it must be a share"),
                           ("data.length=0", "length is 0; it must be 1 or more")):
        with pytest.raises(ConfigError, match=message):
            load_config("smoke", ["data.kind=text", entry])
    assert "data.kind: 'clips' is now 'text'" in configuration.differences(load_config("smoke"), config)


@pytest.mark.parametrize("size", configuration.SIZES)
def test_presets_of_text_are_those_of_the_papers(size):
    s1, s2, transformer = (load_config(f"text-{size}-{recipe}") for recipe in ("s1", "s2", "transformer"))
    assert (s1.model.steps, s1.model.step_size, s1.optimiser.step_size_multiplier) == (2, 500.0, 3.0)
    assert (s2.model.step_size, s2.recipe.noise, s2.optimiser.step_size_multiplier) == (5.0, 3.0, 0.0)
    assert (s1.optimiser, s1.data) == (transformer.optimiser, transformer.data)
    assert s1.data.documents * (1 - 2 * s1.data.held_out) >= s1.optimiser.updates * s1.optimiser.batch


def test_a_run_that_cannot_start_says_why(runs, lines):
    for entry in ("data.source=nowhere.txt", "data.tokenizer=train:100000", "optimiser.batch=100000",
                  "model.candidates=latent", "model.kind=diffusion"):
        with pytest.raises(ConfigError):
            trained(runs, lines, entry)
    assert not runs.exists() or not any(runs.iterdir())


LEARN = """
import sys
import torch
from ebwm import settings
from ebwm.training.checkpoint import save_tensors
from ebwm.training.configuration import load_config
from ebwm.training.distributed import processes
from ebwm.training.learner import States, make_learner
from ebwm.training.trainer import Trainer

torch.set_num_threads(1)
windows = torch.randint(30, (3, 8, 7), generator=settings.generator(0, "windows"))
with processes(torch.device("cpu"), strategy=sys.argv[1]) as others:
    for name in ("gradient=auto", "gradient=eager", "update=paper", "kind=transformer"):
        shape = ["data.kind=text", "model.dim=16", "model.heads=2", "model.depth=2", "model.start=zeros"]
        config = load_config("smoke", [*shape, "model.step_size=2", f"model.{name}"])
        learner = make_learner(config.model, States(30, tokens=True), 0, config.recipe)
        learner.model.double()
        others.take(learner.model)
        trainer = Trainer(learner, config, others=others)
        for batch in windows:
            row = trainer.update(batch.chunk(others.ranks)[others.rank])
        tensors = trainer.state()[0] | {"loss": torch.tensor(row["loss"])}
        if not others.rank:
            save_tensors(f"{sys.argv[2]}/{name}.safetensors", tensors)
"""


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_learn_what_one_learns(tmp_path, strategy):
    pytest.importorskip("lightning_fabric")
    script = tmp_path / "learn.py"
    script.write_text(LEARN)
    for name, count in (("auto", 1), (strategy, 2)):
        (tmp_path / name).mkdir()
        run(script, name, tmp_path / name, count=count)
    for path in (tmp_path / "auto").iterdir():
        one, two = load_tensors(path)[0], load_tensors(tmp_path / strategy / path.name)[0]
        for key in one:
            if not key.startswith("process"):
                torch.testing.assert_close(two[key], one[key], atol=1e-8, rtol=1e-8, msg=f"{path.stem} {key}")
