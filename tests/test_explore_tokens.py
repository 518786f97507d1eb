"""The tokens explorer: predictions that equal those of generation, examples, refusals and widgets."""

import json
import math
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("tokenizers")

from ebwm.explore.next_token import EXAMPLES, compute, entropy, included, readable, summary_lines
from ebwm.explore.tokens import TokensExplorer, TokensSettings
from ebwm.figures.style import COLOURS
from ebwm.generation import generate_tokens


@pytest.fixture
def explorer():
    for package in ("ipywidgets", "anywidget", "plotly"):
        pytest.importorskip(package)
    return TokensExplorer(TokensSettings(steps=4, step=4))


@pytest.mark.parametrize("settings", [
    TokensSettings(), TokensSettings(example=6, steps=5, step=1, walks=3, seed=7),
    TokensSettings(text="The list of items.\n" * 60, walks=2),
], ids=["default", "other", "long"])
def test_the_last_step_is_the_prediction_of_generation(settings):
    found, (ebt, transformer) = compute(settings), included()
    prompt = ebt.prompt(found.text)
    token = next(generate_tokens(ebt.model, [prompt], 1, window=128, seed=settings.seed, samples=settings.walks,
                                 walk=ebt.walk()["walk"], steps=settings.steps))
    other = next(generate_tokens(transformer.model, [prompt], 1, window=128))
    for log_p, made in ((found.log_p[-1], token), (found.transformer_log_p, other)):
        assert int(log_p.argmax()) == int(made.tokens)
        assert float(log_p.max()) == pytest.approx(float(made.logp), abs=1e-3)
    assert float(found.energies[-1, found.chosen]) == pytest.approx(float(token.energy), abs=1e-4)
    assert found.evaluations == int(token.evaluations) and len(found.tokens) + found.dropped == len(prompt)
    again = compute(settings)
    assert torch.equal(found.logits, again.logits) and torch.equal(found.context.excess, again.context.excess)


def test_examples_are_in_the_order_of_their_entropy_and_walks_find_their_next_tokens():
    """Ordered by the stated entropies, which are those of the model."""
    found = [compute(TokensSettings(example=number + 1)) for number in range(len(EXAMPLES))]
    assert [example.entropy for example in EXAMPLES] == sorted(example.entropy for example in EXAMPLES)
    assert [float(one.entropy[-1]) for one in found] == pytest.approx([e.entropy for e in EXAMPLES], abs=0.15)
    for one, example in zip(found, EXAMPLES, strict=True):
        assert example.following.startswith(one.models.ebt.tokenizer.decode([one.truth]))
    start, end = torch.stack([one.truth_bits[[0, -1]] for one in found]).mean(0)
    assert end < start - 3
    assert sum(int((one.energies[-1] < one.energies[0]).all()) for one in found) == len(found)


def test_scores_of_the_context_are_those_of_its_tokens():
    found, (ebt, transformer) = compute(TokensSettings(example=2)), included()
    context = torch.tensor([found.tokens])
    with torch.no_grad():
        energy = ebt.model.landscape(context[:, :-1])(ebt.model.encode(context[:, 1:]))[0]
        logits = transformer.model(context)[0, :-1].log_softmax(-1)
    assert torch.allclose(found.context.energy, energy, atol=1e-5)
    bits = -logits.gather(-1, context[0, 1:, None])[:, 0] / math.log(2)
    assert torch.allclose(found.context.transformer_bits, bits, atol=1e-4)


def test_the_temperature_divides_the_logits_and_tokens_are_readable():
    one, cold = (compute(TokensSettings(example=3, temperature=value)) for value in (1.0, 0.5))
    assert torch.equal(one.logits, cold.logits) and (cold.entropy < one.entropy).all()
    assert float(entropy(torch.full((8,), 1 / 8).log())) == pytest.approx(3)
    ebt = included().ebt
    texts = [readable(ebt, token) for token in ebt.tokenizer.encode(" the\n        x")]
    assert texts[0] == "␣the" and "⏎␣×" in "".join(texts)
    assert readable(ebt, ebt.tokenizer.end) == "(end)"


@pytest.mark.parametrize("changes, line", [
    ({"example": 7}, "example=7: must be at most 6"), ({"step": 3}, "step=3: must be at most 2"),
    ({"walks": 0}, "walks=0: must be at least 1"), ({"temperature": 0.0}, "temperature=0: must be from 0.1 to 3"),
    ({"seed": -1}, "seed=-1: must be at least 0"),
])
def test_settings_that_are_refused(changes, line):
    with pytest.raises(ValueError) as error:
        compute(TokensSettings(**changes))
    assert str(error.value) == line


def test_controls_change_the_figures_and_a_click_appends_a_token(explorer):
    bars = lambda: explorer.figure("next").data[0].x
    for name, value in {"example": 5, "step": 0, "temperature": 0.5, "steps": 6, "seed": 3, "walks": 8}.items():
        before = explorer.figure("walks").data[0].y, bars(), explorer.figure("next").layout.title.text
        explorer.controls[name].value = value
        assert getattr(explorer.settings, name) == value, name
        assert before != (explorer.figure("walks").data[0].y, bars(), explorer.figure("next").layout.title.text), name
    assert explorer.controls["step"].max == explorer.settings.step == 6
    assert bars() == pytest.approx(explorer.result.log_p[6, explorer.result.top()].exp().tolist())
    token = int(explorer.result.top()[1])
    explorer._clicked(None, SimpleNamespace(point_inds=[1]), None)
    text = EXAMPLES[4].text + included().ebt.tokenizer.decode([token])
    assert explorer.controls["text"].value == explorer.settings.text == text and explorer.result.truth is None
    explorer.controls["text"].value = ""
    assert explorer.controls["text"].value == EXAMPLES[4].text and explorer.result.truth is not None


def test_errors_themes_and_saved_settings(explorer):
    before = explorer.settings
    explorer.show(replace(before, step=99))
    assert "step=99: must be at most 4" in explorer.message.value and explorer.settings is before
    explorer.dark.value = True
    for name in ("next", "walks", "context"):
        assert explorer.figure(name).layout.paper_bgcolor == COLOURS["dark"]["background"]
    wanted = TokensSettings(text="<b>$x$</b>", seed=4)
    explorer.show_json(json.dumps(asdict(wanted)))
    assert explorer.settings == wanted and explorer.message.value == ""
    labels = explorer.figure("context").layout.xaxis.ticktext
    assert not any("<" in label or "$" in label for label in labels)
    assert "True next token" not in summary_lines(explorer.result)
